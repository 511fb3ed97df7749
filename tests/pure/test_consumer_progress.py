"""Proves that a checkpoint covers finished work only, in whatever order records are handed out and finished."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from disstream.consumer.progress import Finish, Progress, first_place, place_behind, place_of
from disstream.model import InnerRecord, Record


def numbered(sequence: int) -> Record:
    return Record(b"", sequence)


class ExplicitMachine(RuleBasedStateMachine):
    """Random hand-outs (with gaps), completions, take-backs and seeks against a plain set of what is finished."""

    def __init__(self) -> None:
        super().__init__()
        self.progress = Progress("explicit", first_place(0))
        self.start = 0
        self.next = 0
        self.handed: list[int] = []
        self.finished: set[int] = set()
        self.aside: set[int] = set()

    @rule(number=st.integers(0, 60))
    def set_aside(self, number: int) -> None:
        self.progress.set_aside(numbered(number))
        if number in self.handed and number not in self.finished:
            self.aside.add(number)

    @rule()
    def hand_over_ended(self) -> None:
        self.progress.hand_over_ended()
        self.aside.clear()

    @rule(gaps=st.lists(st.integers(1, 3), min_size=1, max_size=8))
    def hand_out(self, gaps: list[int]) -> None:
        numbers = []
        for gap in gaps:
            self.next += gap
            numbers.append(self.next - 1)
        self.progress.hand_out(first_place(self.next), [first_place(n) for n in numbers])
        self.handed += numbers

    @precondition(lambda self: self.handed)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.handed))
        self.progress.done(numbered(number))
        self.finished.add(number)

    @rule(number=st.integers(-5, 60))
    def done_of_what_was_never_handed_out(self, number: int) -> None:
        if number not in self.handed:
            before = self.progress.finished
            self.progress.done(numbered(number))
            assert self.progress.finished == before

    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        tail = [n for n in self.handed if not any(f >= n for f in self.finished)]
        if tail:
            following = data.draw(st.sampled_from(tail))
            self.progress.take_back(first_place(following))
            self.handed = [n for n in self.handed if n < following]
            self.next = following
            self.aside = {n for n in self.aside if n < following}

    @rule(to=st.integers(0, 50))
    def seek(self, to: int) -> None:
        self.progress.seek(first_place(to))
        self.start = self.next = to
        self.handed, self.finished, self.aside = [], set(), set()

    @invariant()
    def covers_exactly_the_contiguous_finished(self) -> None:
        self.progress.check()
        still = [n for n in self.handed if n not in self.finished]
        finished = self.progress.finished
        assert finished is not None
        assert all(first_place(n) >= finished for n in still), "a checkpoint would pass an unfinished record"
        prefix = [n for n in self.handed if not still or n < still[0]]
        assert all(first_place(n) < finished for n in prefix), "finished work would not be committed"
        assert self.progress.unfinished == bool(set(still) - self.aside)
        assert [n for n in range(61) if self.progress.owes(numbered(n))] == [n for n in still if n <= 60]
        held_up = [n for n in self.handed if still and n >= still[0]]
        assert self.progress.outstanding == len(held_up)


TestExplicit = ExplicitMachine.TestCase


@given(st.lists(st.sampled_from(["hand_out", "ask", "done"]), max_size=40), st.integers(0, 2**32))
def test_asking_for_the_next_finishes_what_was_handed_out_before(steps: list[str], seed: int) -> None:
    """With "next" the checkpoint follows the requests, never the records still in hand."""
    dice = random.Random(seed)
    progress = Progress("next", first_place(5))
    handed = asked = 5
    for step in steps:
        if step == "hand_out":
            progress.finish_handed()
            asked = handed
            handed += dice.randint(1, 4)
            progress.hand_out(first_place(handed), ())
        elif step == "ask":
            progress.finish_handed()
            asked = handed
        elif handed > asked:
            asked = dice.randint(asked, handed - 1) + 1
            progress.done(numbered(asked - 1))
        progress.check()
        assert progress.finished == first_place(asked)
        assert progress.unfinished == (asked < handed)
        assert progress.read == (asked > 5)


def test_what_was_not_handed_out_is_never_finished() -> None:
    """The end of a run that is given back counts as never seen."""
    progress = Progress("next", first_place(0))
    progress.hand_out(first_place(10), ())
    progress.finish_below(first_place(4))
    progress.take_back(first_place(5))
    progress.finish_handed()
    assert [progress.finished, progress.handed] == [first_place(5), first_place(5)]


@pytest.mark.parametrize("finish", ["next", "explicit"])
def test_an_unknown_place_is_known_with_its_first_record(finish: Finish) -> None:
    """Before it there is nothing to commit, and nothing counts as read."""
    progress = Progress(finish, None)
    assert (progress.due, progress.read) == (None, False)
    progress.begin(first_place(7))
    assert (progress.due, progress.read) == (7, False)
    progress.hand_out(first_place(8), [first_place(7)])
    progress.done(numbered(7))
    assert (progress.due, progress.read) == (8, True)


def test_nothing_is_due_that_is_committed() -> None:
    """Only a moved position is worth a request, in either direction."""
    progress = Progress("next", first_place(3), committed=3)
    due = [progress.due]
    progress.hand_out(first_place(6), ())
    progress.finish_handed()
    due.append(progress.due)
    progress.committed = 6
    due.append(progress.due)
    progress.seek(first_place(2))
    assert [*due, progress.due] == [None, 6, None, 2]


@pytest.mark.parametrize("finish", ["next", "explicit"])
def test_a_checkpoint_passes_an_envelope_with_its_last_record(finish: Finish) -> None:
    """Until then it stands in front of all of them, so that a crash brings all again; and they count as in hand."""
    inner = [InnerRecord(b"", 7, index=i, count=3) for i in range(3)]
    progress = Progress(finish, first_place(7), committed=7)
    seen = []
    for record in inner:
        progress.hand_out(place_behind(record), [place_of(record)])
        progress.check()
        assert progress.unfinished
        assert progress.uncommitted
        progress.done(record)
        progress.check()
        seen.append((progress.due, progress.read, progress.unfinished))
    assert seen == [(None, False, False), (None, False, False), (8, True, False)]


def test_records_of_an_envelope_finish_in_any_order() -> None:
    """With "explicit" the one that is left holds the checkpoint, whichever it is."""
    inner = [InnerRecord(b"", 0, index=i, count=4) for i in range(4)]
    progress = Progress("explicit", first_place(0))
    progress.hand_out(first_place(1), [place_of(r) for r in inner])
    due = []
    for record in (inner[3], inner[0], inner[2], inner[1]):
        progress.done(record)
        progress.check()
        due.append(progress.due)
    assert due == [0, 0, 0, 1]
