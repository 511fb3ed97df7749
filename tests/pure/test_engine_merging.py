"""What the commit thread decides to merge: neighbours, no row too often, and never more than it may at once."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from disstream.engine.embedded import merging
from disstream.engine.embedded.merging import FEW, LARGE_ROWS, LEAST_WORK, SMALL_BYTES, SMALL_ROWS, Merge, Merging

SLOTS = st.integers(1, 3)
MOST_WORK = 3 * LARGE_ROWS + 3 * FEW * merging.BATCH_WORK
"""Of one merge."""


class Stored(NamedTuple):
    """A batch in the model."""

    first: int
    length: int
    size: int
    merged: bool = False

    @property
    def fresh(self) -> bool:
        return not self.merged and self.length < SMALL_ROWS and self.size < SMALL_BYTES


class Partitions(RuleBasedStateMachine):
    """Batches of some partitions, and transactions that store, merge as they are told, and now and then fail."""

    @initialize()
    def begin(self) -> None:
        self.merging = Merging()
        self.batches: dict[int, list[Stored]] = {slot: [] for slot in (1, 2, 3)}
        self.next = {slot: 0 for slot in (1, 2, 3)}
        self.allowed = 0
        self.broken: set[int] = set()
        """Where rows were forgotten, or a process ended: more fresh batches may stand in a row there."""

    @rule(
        slot=SLOTS,
        length=st.sampled_from([1, 1, 1, 5, SMALL_ROWS - 1, SMALL_ROWS]),
        size=st.sampled_from([60, 60, 60, SMALL_BYTES - 1, SMALL_BYTES]),
        count=st.integers(1, 5 * FEW),
    )
    def store(self, slot: int, length: int, size: int, count: int) -> None:
        for _ in range(count):
            stored = Stored(self.next[slot], length, size)
            self.merging.stored(slot, *stored[:3])
            self.batches[slot].append(stored)
            self.next[slot] += length
            self.allowed += (20 + 4 * length) * stored.fresh

    @rule()
    def transact(self) -> None:
        merges = self.merging.take()
        assert sum(merge.work for merge in merges) < max(LEAST_WORK, self.allowed) + MOST_WORK
        self.allowed = 0
        for merge in merges:
            self.carry_out(merge)

    def carry_out(self, merge: Merge) -> None:
        batches = self.batches[merge.slot]
        chosen = [b for b in batches if merge.begin <= b.first and b.first + b.length <= merge.end]
        if merge.slot not in self.broken:
            assert len(chosen) == merge.batches
            assert sum(b.length for b in chosen) == merge.end - merge.begin
        assert all(b.fresh or (b.merged and b.length < LARGE_ROWS) for b in chosen)
        assert merge.work < MOST_WORK
        if len(chosen) < 2:
            return
        at = batches.index(chosen[0])
        assert batches[at : at + len(chosen)] == chosen, "they follow each other"
        one = Stored(chosen[0].first, sum(b.length for b in chosen), sum(b.size for b in chosen), merged=True)
        batches[at : at + len(chosen)] = [one]

    @rule()
    def fail(self) -> None:
        """What is taken and put back is taken again, in the same order."""
        merges = self.merging.take()
        self.allowed = 0
        self.merging.put_back(merges)
        again = self.merging.take()
        shorter = min(len(merges), len(again))
        assert merges[:shorter] == again[:shorter]
        self.merging.put_back(again)

    @rule(slot=SLOTS, part=st.floats(0, 1))
    def trim(self, slot: int, part: float) -> None:
        del self.batches[slot][: int(part * len(self.batches[slot]))]
        self.broken.add(slot)

    @rule(slot=SLOTS)
    def drop(self, slot: int) -> None:
        self.merging.forget(slot)
        self.batches[slot] = []
        self.broken.discard(slot)
        assert all(merge.slot != slot for merge in self.everything_due())

    @rule(slot=SLOTS)
    def set_aside(self, slot: int) -> None:
        """A transaction failed for one of its merges: the others are due again, and of that slot nothing, ever."""
        merges = self.merging.take()
        self.allowed = 0
        self.merging.set_aside(slot)
        self.merging.put_back(merges)
        self.broken.add(slot)
        rest = [merge for merge in merges if merge.slot != slot]
        again = self.everything_due()
        assert again[: len(rest)] == rest
        assert all(merge.slot != slot for merge in again)

    def everything_due(self) -> list[Merge]:
        found: list[Merge] = []
        while self.merging.due:
            found += self.merging.take()
        self.merging.put_back(found)
        self.allowed = 0
        return found

    @rule()
    def start_anew(self) -> None:
        self.merging = Merging()
        self.allowed = 0
        self.broken = {1, 2, 3}

    @rule()
    def come_to_rest(self) -> None:
        """When nothing is due, few fresh batches stand in a row wherever nothing was interrupted."""
        while self.merging.due:
            self.transact()
        for slot, batches in self.batches.items():
            run = 0
            for stored in batches:
                run = run + 1 if stored.fresh else 0
                assert run < FEW or slot in self.broken

    @invariant()
    def check(self) -> None:
        if hasattr(self, "merging"):
            self.merging.check()


TestPartitions = Partitions.TestCase


@given(lengths=st.lists(st.integers(1, 80), max_size=300) | st.lists(st.integers(1, 2), min_size=100, max_size=900))
def test_no_row_is_written_often(lengths: list[int]) -> None:
    """However appends follow each other: the batch of a row grows by half at least, up to a large one."""
    machine = Merging()
    written: dict[int, int] = {}
    batch_of: dict[int, int] = {}
    at = 0
    for length in lengths:
        machine.stored(7, at, length, length * 100)
        batch_of.update(dict.fromkeys(range(at, at + length), length))
        at += length
        for merge in machine.take():
            rows = merge.end - merge.begin
            for row in range(merge.begin, merge.end):
                assert rows >= batch_of[row] * 1.5
                batch_of[row] = rows
                written[row] = written.get(row, 0) + 1
        machine.check()
    assert sum(written.values()) <= 8 * at


def test_one_by_one() -> None:
    """Records that come one by one end in large batches, with a handful of others behind them."""
    machine, batches, written = Merging(), 0, 0
    for number in range(50_000):
        machine.stored(1, number, 1, 150)
        batches += 1
        for merge in machine.take():
            batches -= merge.batches - 1
            written += merge.end - merge.begin
        machine.check()
        assert batches <= number // 384 + FEW + 8
    assert written < 50_000 * 6


def test_what_came_at_once_is_merged_a_piece_at_a_time() -> None:
    """A transaction merges some milliseconds' worth; what came at once waits for the next ones, but not for ever."""
    machine = Merging()
    taken, longest = 0, 0
    for number in range(FEW * 64):
        for slot in range(1_000):
            machine.stored(slot, number, 1, 150)
        work = sum(merge.work for merge in machine.take())
        taken, longest = taken + work, max(longest, work)
    assert longest <= 24 * 1_000 + MOST_WORK
    left = 0
    while machine.due:
        work = sum(merge.work for merge in machine.take())
        assert work <= LEAST_WORK + MOST_WORK
        left += work
    assert left < 20 * LEAST_WORK < taken


def test_a_large_one_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands before a large batch is left alone, however many small ones follow."""
    monkeypatch.setattr(merging, "FEW", 4)
    machine = Merging()
    for first in (0, 1, 2):
        machine.stored(1, first, 1, 100)
    machine.stored(1, 3, SMALL_ROWS, 100)
    for first in range(3 + SMALL_ROWS, 7 + SMALL_ROWS):
        assert not machine.due
        machine.stored(1, first, 1, 100)
    assert machine.take() == [Merge(1, 3 + SMALL_ROWS, 7 + SMALL_ROWS, 4)]
