"""Proves when a partition is said to stand, why, and how often."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.consumer.watching import Facts, Watch
from disstream.model import Partition

ONE = Partition("s", "shardId-0000000000")
TWO = Partition("s", "shardId-0000000001")


def fact(partition: Partition = ONE, mark: tuple[int | None, int | None] = (0, 0), **more: Any) -> Facts:
    return Facts(partition, mark, position=0, **more)


@pytest.mark.parametrize(
    ("facts", "holds", "cause", "words"),
    [
        ({"failure": "no such stream"}, True, "failed", "it cannot be read: no such stream"),
        ({"buffered": True}, False, "no lease", "not heard"),
        ({"unfinished": 41}, True, "unfinished", "record 41 was handed out and is not finished"),
        ({"unfinished": 41, "pauses": {"gap"}}, True, "unfinished", "as max_gap allows"),
        ({"buffered": True, "pauses": {"layout"}}, True, "held", "held back: layout"),
        ({"buffered": True}, True, "not taken", "nobody has asked for any for 55 s"),
        ({"owed_since": 0.0, "error": "down"}, True, "no answer", "a page is owed for 60 s: down"),
        ({"owed_since": 0.0}, True, "no answer", "no answer at all"),
        ({}, True, None, ""),
        ({"buffered": True, "pauses": {""}}, True, None, ""),
        ({"behind": 7}, True, None, ""),
        ({"pauses": {"layout"}}, True, None, ""),
        ({}, False, None, ""),
        ({"owed_since": 1.0}, True, None, ""),
    ],
)
def test_why_a_partition_stands(facts: dict[str, Any], holds: bool, cause: str | None, words: str) -> None:
    """Each reason is told once, when the time is over and not before; whoever has nothing to do is left alone."""
    watch = Watch(60)
    assert watch.look([fact(**facts)], 0, holds=holds, taken_at=0) == ([], [])
    assert watch.look([fact(**facts)], 59.9, holds=holds, taken_at=5) == ([], [])
    told, _ = watch.look([fact(**facts)], 60, holds=holds, taken_at=5)
    assert [(stall.partition, stall.cause, stall.for_s) for stall in told] == ([(ONE, cause, 60)] if cause else [])
    assert all(words in stall.reason for stall in told)
    assert watch.look([fact(**facts)], 300, holds=holds, taken_at=5)[0] == [] or facts == {"owed_since": 1.0}


def test_getting_on_ends_it() -> None:
    """A new mark is told once, and the time begins anew; another reason is told again."""
    watch = Watch(60)
    watch.look([fact(buffered=True)], 0, holds=True, taken_at=0)
    assert len(watch.look([fact(buffered=True)], 60, holds=True, taken_at=0)[0]) == 1
    assert watch.standing == {ONE: "not taken"}
    told, moved = watch.look([fact(unfinished=3)], 70, holds=True, taken_at=70)
    assert ([stall.cause for stall in told], moved) == (["unfinished"], [])
    told, moved = watch.look([fact(mark=(9, 3), unfinished=3)], 80, holds=True, taken_at=80)
    assert (told, moved, watch.standing) == ([], [ONE], {})
    assert watch.look([fact(mark=(9, 3), unfinished=3)], 139, holds=True, taken_at=80)[0] == []
    assert len(watch.look([fact(mark=(9, 3), unfinished=3)], 140, holds=True, taken_at=80)[0]) == 1
    assert watch.stalls == 3


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 2), st.floats(0, 50)), max_size=40))
def test_never_told_early_or_twice(looks: list[tuple[bool, bool, int, float]]) -> None:
    """Whatever happens: a stall was standing with one mark for the whole time, and is not repeated while it stands."""
    watch = Watch(60)
    now = 0.0
    since: dict[Partition, tuple[int, float]] = {}
    told_of: dict[Partition, str] = {}
    for present, buffered, mark, passed in looks:
        now += passed
        facts = [fact(ONE, (mark, 0), buffered=buffered)] + [fact(TWO, buffered=True)] * present
        told, moved = watch.look(facts, now, holds=True, taken_at=now)
        for found in facts:
            key = found.mark[0] or 0
            if found.partition not in since or since[found.partition][0] != key or not found.buffered:
                since[found.partition] = (key, now)
                told_of.pop(found.partition, None)
        if not present:
            since.pop(TWO, None)
            told_of.pop(TWO, None)
        for stall in told:
            assert now - since[stall.partition][1] >= 60
            assert stall.partition not in told_of
            told_of[stall.partition] = stall.cause
        assert not set(moved) & set(told_of)
        assert dict(watch.standing) == told_of
