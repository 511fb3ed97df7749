"""What the commit thread decides to merge: neighbours, each row at most twice, and never more than it may at once."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from disstream.engine.embedded import merging
from disstream.engine.embedded.merging import FEW, LEAST_BATCHES, SMALL_BYTES, SMALL_ROWS, Merge, Merging

SLOTS = st.integers(1, 3)


class Stored(NamedTuple):
    """A batch in the model: how often its rows were written again, and whether this life of the process wrote it."""

    first: int
    length: int
    size: int
    tier: int = 0
    known: bool = True

    @property
    def small(self) -> bool:
        return self.tier < 2 and self.length < SMALL_ROWS[self.tier] and self.size < SMALL_BYTES[self.tier]


class Partitions(RuleBasedStateMachine):
    """Batches of some partitions, and transactions that store, merge as they are told, and now and then fail."""

    @initialize()
    def begin(self) -> None:
        self.merging = Merging()
        self.batches: dict[int, list[Stored]] = {slot: [] for slot in (1, 2, 3)}
        self.next = {slot: 0 for slot in (1, 2, 3)}
        self.since = 0
        self.broken: set[int] = set()
        """Where something was forgotten or a process ended: there more small batches may stand in a row."""

    @rule(
        slot=SLOTS,
        length=st.sampled_from([1, 1, 1, 5, SMALL_ROWS[0] - 1, SMALL_ROWS[0]]),
        size=st.sampled_from([60, 60, 60, SMALL_BYTES[0] - 1, SMALL_BYTES[0]]),
        count=st.integers(1, 2 * FEW),
    )
    def store(self, slot: int, length: int, size: int, count: int) -> None:
        for _ in range(count):
            stored = Stored(self.next[slot], length, size)
            self.merging.stored(slot, *stored[:3])
            self.batches[slot].append(stored)
            self.next[slot] += length
            self.since += stored.small

    @rule()
    def transact(self) -> None:
        merges = self.merging.take()
        room = max(LEAST_BATCHES, 2 * self.since)
        assert sum(merge.batches for merge in merges) < room + FEW
        self.since = 0
        for merge in merges:
            self.carry_out(merge)

    def carry_out(self, merge: Merge) -> None:
        batches = self.batches[merge.slot]
        chosen = [b for b in batches if merge.begin <= b.first and b.first + b.length <= merge.end]
        if merge.slot not in self.broken:
            assert len(chosen) == merge.batches
            assert sum(b.length for b in chosen) == merge.end - merge.begin
        assert all(b.tier == merge.tier and b.small for b in chosen)
        if len(chosen) < 2:
            return
        at = batches.index(chosen[0])
        assert batches[at : at + len(chosen)] == chosen, "they follow each other"
        one = Stored(chosen[0].first, sum(b.length for b in chosen), sum(b.size for b in chosen), merge.tier + 1)
        batches[at : at + len(chosen)] = [one]
        self.merging.merged(merge, *one[:3])
        self.since += one.tier == 1 and one.small

    @rule()
    def fail(self) -> None:
        """What is taken and put back is taken again, in the same order."""
        merges = self.merging.take()
        self.since = 0
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

    def everything_due(self) -> list[Merge]:
        found: list[Merge] = []
        while self.merging.due:
            found += self.merging.take()
        self.merging.put_back(found)
        self.since = 0
        return found

    @rule()
    def start_anew(self) -> None:
        self.merging = Merging()
        self.since = 0
        self.broken = {1, 2, 3}

    @rule()
    def come_to_rest(self) -> None:
        """When nothing is due, few small batches stand in a row wherever nothing was interrupted."""
        while self.merging.due:
            self.transact()
        for slot, batches in self.batches.items():
            for tier in (0, 1):
                run = 0
                for stored in batches:
                    run = run + 1 if stored.tier == tier and stored.small else 0
                    assert run < FEW or slot in self.broken

    @invariant()
    def check(self) -> None:
        if hasattr(self, "merging"):
            self.merging.check()


TestPartitions = Partitions.TestCase


@given(lengths=st.lists(st.integers(1, 200), max_size=300))
def test_no_row_is_written_a_third_time(lengths: list[int]) -> None:
    """However an append follows another: what was merged twice is never taken again."""
    machine = Merging()
    written: dict[int, int] = {}
    at = 0
    for length in lengths:
        machine.stored(7, at, length, length * 100)
        at += length
        for merge in machine.take():
            for row in range(merge.begin, merge.end):
                written[row] = written.get(row, 0) + 1
            machine.merged(merge, merge.begin, merge.end - merge.begin, (merge.end - merge.begin) * 100)
        machine.check()
    assert max(written.values(), default=0) <= 2


def test_one_by_one() -> None:
    """Records that come one by one end in batches of FEW times FEW, with few small ones behind them."""
    machine, batches = Merging(), 0
    for number in range(10 * FEW * FEW + FEW + 1):
        machine.stored(1, number, 1, 150)
        batches += 1
        for merge in machine.take():
            batches -= merge.batches - 1
            machine.merged(merge, merge.begin, merge.end - merge.begin, 120 * (merge.end - merge.begin))
    assert batches == 10 + 1 + 1


def test_what_came_at_once_is_merged_a_piece_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction does as much as it may; and more, if more than that comes with each."""
    monkeypatch.setattr(merging, "LEAST_BATCHES", 2 * FEW)
    machine = Merging()
    for number in range(FEW):
        for slot in range(50):
            machine.stored(slot, number, 1, 150)
    assert len(machine.take()) == 50  # just stored: 50 * FEW batches
    for slot in range(50):
        for number in range(FEW, 2 * FEW):
            machine.stored(slot, number, 1, 150)
    machine.put_back(machine.take())
    assert [len(machine.take()) for _ in range(26)] == [2] * 25 + [0]
    assert not machine.due
