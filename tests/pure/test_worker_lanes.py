"""Proves what a worker decides: order and exclusion by key, one end per record, room, pauses, parking, suspension."""

from __future__ import annotations

from collections import defaultdict
from random import Random
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from disstream.model import InnerRecord, Partition, Record
from disstream.worker.config import WorkerConfig
from disstream.worker.lanes import Lanes, Outcome
from disstream.worker.parking import Parking, Redriven
from disstream.worker.queues import Run
from disstream.worker.stats import Latencies

P = [Partition("s", f"shardId-000000000{n}") for n in range(3)]


def lanes_of(**settings: Any) -> Lanes:
    config = WorkerConfig(**{"streams": ["s"], "app": "a", "concurrency": 4, "retry_base_s": 1.0, **settings})
    lanes = Lanes(config, Random(3), lambda: 1_700_000_000_000)
    for partition in P:
        lanes.hold(partition, Parking())
    return lanes


def record(number: int, key: str | None = None, partition: int = 0, data: bytes = b"x") -> Record:
    return Record(data, number, 0, key, *P[partition])


def taken(lanes: Lanes, now: float = 0.0) -> list[Run]:
    """All that can start now."""
    runs = []
    while (run := lanes.take(now)) is not None:
        lanes.check()
        runs.append(run)
    return runs


def numbers(runs: list[Run]) -> list[list[int]]:
    return [[r.sequence_number for r in run.records] for run in runs]


def done(lanes: Lanes) -> list[int]:
    return [r.sequence_number for r in lanes.out.take_done()]


BOOM = ValueError("boom")


class Machine(RuleBasedStateMachine):
    """Random records, ends, stored letters, blocks, losses and passing time, against a plain account of each record."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.next: dict[Partition, int] = defaultdict(int)
        self.came: dict[tuple[Partition, int], Record] = {}
        self.ended: set[tuple[Partition, int]] = set()
        self.running: list[Run] = []
        self.gone: set[int] = set()

    @initialize(
        order=st.sampled_from(["key", "partition", "none"]),
        batch=st.sampled_from([1, 1, 3]),
        linger=st.sampled_from([0.0, 2.0]),
        failing=st.sampled_from(["suspend", "park", "ignore", "letters"]),
        parked=st.sampled_from(["follow", "wait"]),
        attempts=st.integers(1, 3),
        concurrency=st.integers(1, 5),
    )
    def configure(
        self, order: str, batch: int, linger: float, failing: str, parked: str, attempts: int, concurrency: int
    ) -> None:
        self.order = order
        self.failing = failing
        dead = {"park": "stream:d", "letters": "stream:d"}.get(failing)
        self.lanes = lanes_of(
            order=order,
            batch_records=batch,
            batch_linger_s=linger,
            on_failure="ignore" if failing == "letters" else failing,
            parked=parked,
            attempts=attempts,
            concurrency=concurrency,
            dead_letters=dead,
            queue_records=40,
            max_gap=30,
        )

    @rule(partition=st.sampled_from(P), keys=st.lists(st.sampled_from(["k", "l", "m", None]), min_size=1, max_size=12))
    def offer(self, partition: Partition, keys: list[str | None]) -> None:
        room = self.lanes.room
        assert room >= 0
        held = self.lanes.partitions[partition]
        if held.paused:
            return
        records = []
        for key in keys[:room]:
            number = self.next[partition]
            self.next[partition] += 1
            one = Record(b"x", number, 0, key, *partition)
            self.came[partition, number] = one
            records.append(one)
        if records:
            self.lanes.offer(records, self.now)

    @rule()
    def take(self) -> None:
        run = self.lanes.take(self.now)
        if run is None:
            return
        assert not self.lanes.partitions[run.partition].blocks
        self.running.append(run)
        assert len({r.partition for r in run.records}) == 1
        for one in run.records:
            key = (one.partition, one.sequence_number)
            assert key not in self.ended, "handled again after its end"
            self._check_exclusive(one, run)

    def _check_exclusive(self, one: Record, run: Run) -> None:
        for other in self.running:
            for theirs in other.records if other is not run else ():
                if self.order == "partition":
                    assert theirs.partition != one.partition or id(other) in self.gone
                elif self.order == "key" and one.key is not None:
                    assert theirs.key != one.key, "two of a key at once"
        if self.order == "key" and one.key is not None:
            # Whatever came before it of its key and partition has its end, or is in the same batch.
            for (partition, number), earlier in self.came.items():
                if partition == one.partition and earlier.key == one.key and number < one.sequence_number:
                    assert (partition, number) in self.ended or earlier in run.records or self._is_lettered(earlier)

    def _is_lettered(self, one: Record) -> bool:
        return any(dead.item.record == one for dead in self.lanes.out.letters)

    @precondition(lambda self: self.running)
    @rule(
        data=st.data(),
        outcome=st.sampled_from(["returned", "returned", "raised", "timed_out", "rejected", "cancelled"]),
    )
    def settle(self, data: st.DataObject, outcome: Outcome) -> None:
        run = data.draw(st.sampled_from(self.running))
        self.running.remove(run)
        self.lanes.settle(run, outcome, None if outcome in ("returned", "cancelled") else BOOM, self.now)

    @rule(count=st.integers(1, 5))
    def store_letters(self, count: int) -> None:
        self.lanes.lettered(self.lanes.out.next_letters(count))

    @rule(seconds=st.floats(0.1, 3.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(partition=st.sampled_from(P))
    def block(self, partition: Partition) -> None:
        self.lanes.block(partition, "revoked")

    @rule(partition=st.sampled_from(P))
    def unblock(self, partition: Partition) -> None:
        self.lanes.unblock(partition, "revoked")

    @rule(partition=st.sampled_from(P))
    def resume(self, partition: Partition) -> None:
        if "suspended" in self.lanes.partitions[partition].blocks:
            self.lanes.resume(partition)

    @rule(partition=st.sampled_from(P))
    def lose_and_get_back(self, partition: Partition) -> None:
        """Others may have it meanwhile; what was not finished comes again, from the first."""
        before = self.lanes.partitions[partition]
        for run in self.lanes.drop(partition):
            self.gone.add(id(run))
        self._account()
        self.lanes.check()
        left = [n for (p, n) in self.came if p == partition and (p, n) not in self.ended]
        self.next[partition] = min(left, default=self.next[partition])
        for number in left:
            del self.came[partition, number]
        for p, number in [*self.ended]:
            if p == partition and number >= self.next[partition]:
                self.ended.discard((p, number))
                del self.came[p, number]
        self.lanes.hold(partition, before.parking)

    def _account(self) -> None:
        for one in self.lanes.out.take_done():
            key = (one.partition, one.sequence_number)
            assert key in self.came
            assert key not in self.ended, "two ends"
            self.ended.add(key)
        self.lanes.out.take_annotated()
        self.lanes.out.take_suspended()
        self.lanes.out.take_pauses()

    @invariant()
    def stands(self) -> None:
        if not hasattr(self, "lanes"):
            return
        self._account()
        self.lanes.check()
        live = sum(len(held.items) for held in self.lanes.partitions.values())
        assert live == len(self.came) - len(self.ended), "a record is lost"
        standing = sum(held.standing_records for held in self.lanes.partitions.values())
        assert live - standing <= 40 + standing, "the room is exceeded"

    def teardown(self) -> None:
        """Nothing starves: with handlers that return and time that passes everything has its end."""
        if not hasattr(self, "lanes"):
            return
        for run in self.running:
            self.lanes.settle(run, "returned", None, self.now)
        for _ in range(400):
            for partition, held in self.lanes.partitions.items():
                self.lanes.unblock(partition, "revoked")
                if "suspended" in held.blocks:
                    self.lanes.resume(partition)
                if held.waiting:
                    for key in [*held.waiting]:
                        held.parking.unpark(key)
                        self.lanes._go_on(held, key)
            self.now += 40.0
            for run in taken(self.lanes, self.now):
                self.lanes.settle(run, "returned", None, self.now)
            self.lanes.lettered(self.lanes.out.next_letters(100))
            self._account()
            if not self.lanes.records:
                break
        assert not self.lanes.records
        assert set(self.came) == self.ended


TestMachine = Machine.TestCase


# --- examples ---


def test_a_lane_that_lost_its_records_leaves_no_timer() -> None:
    """Its partition was lost while a batch waited for more, and came back: another lane has its name by then."""
    machine = Machine()
    machine.configure(order="key", batch=3, linger=2.0, failing="suspend", parked="follow", attempts=1, concurrency=1)
    machine.offer(P[0], ["k"])
    machine.take()
    machine.offer(P[0], ["k"])
    machine.lose_and_get_back(P[0])
    machine.take()
    machine.offer(P[0], ["k"])
    machine.stands()
    machine.teardown()


def settled(lanes: Lanes, outcome: Outcome, now: float = 0.0) -> list[list[int]]:
    """Start all that can, and end each so. The numbers of what was started."""
    runs = taken(lanes, now)
    for run in runs:
        lanes.settle(run, outcome, None if outcome in ("returned", "cancelled") else BOOM, now)
        lanes.check()
    return numbers(runs)


def test_a_partition_that_holds_its_share_is_paused() -> None:
    """Until it holds half of it; the room of the others stays free."""
    lanes = lanes_of(queue_records=30, concurrency=1)
    lanes.offer([record(n, "k") for n in range(11)], 0.0)
    assert lanes.out.take_pauses() == {P[0]: True}
    assert lanes.room == 19
    pauses = []
    for _ in range(7):
        settled(lanes, "returned")
        pauses.append(lanes.out.take_pauses())
    assert pauses == [{}, {}, {}, {}, {}, {P[0]: False}, {}]


def test_a_suspended_partition_takes_no_room() -> None:
    """What is held of it stays in memory, and the others have all of the room."""
    lanes = lanes_of(queue_records=30, order="partition", attempts=1)
    lanes.offer([record(n) for n in range(8)], 0.0)
    assert settled(lanes, "raised") == [[0]]
    ((partition, suspension, error),) = lanes.out.take_suspended()
    assert (partition, suspension.sequence_number, error) == (P[0], 0, BOOM)
    assert (lanes.room, lanes.records) == (30, 8)
    assert taken(lanes) == []
    lanes.resume(P[0])
    assert settled(lanes, "returned") == [[0]]


def test_more_keys_than_can_be_parked_suspend_the_partition() -> None:
    """Nothing is lost: the record for whose key there is no room is tried again after a resume, which forgets keys."""
    lanes = lanes_of(on_failure="park", dead_letters="stream:d", attempts=1, concurrency=128, queue_records=1000)
    lanes.offer([record(n, f"k{n}") for n in range(60)], 0.0)
    settled(lanes, "raised")
    assert "suspended" in lanes.partitions[P[0]].blocks
    stored = lanes.out.next_letters(100)
    assert len(stored) == 20
    lanes.lettered(stored)
    lanes.check()
    assert lanes.records == 60 - len(stored)
    lanes.resume(P[0])
    lanes.check()
    assert lanes.partitions[P[0]].parking.parked_keys == 0
    assert sum(map(len, settled(lanes, "returned"))) == 60 - len(stored)


def test_letters_of_a_key_unpark_it_when_all_came_back() -> None:
    """Also where later records wait: they go on behind the last one that came back, in order."""
    lanes = lanes_of(on_failure="park", dead_letters="stream:d", attempts=1, parked="wait", concurrency=1)
    lanes.offer([record(n, "k") for n in range(3)], 0.0)
    assert settled(lanes, "raised") == [[0]]
    (letter,) = lanes.out.next_letters(9)
    assert (letter.attempts, letter.error) == (1, BOOM)
    lanes.lettered([letter])
    assert done(lanes) == [0]
    assert taken(lanes) == []
    assert lanes.partitions[P[0]].waiting_records == 2
    back = Redriven("a", P[0].partition_id, (0, 0), last=(0, 0)).headers()
    lanes.offer([InnerRecord(b"x", 3, 0, "k", *P[0], 0, 1, back)], 0.0)
    order = []
    while runs := settled(lanes, "returned"):
        order += runs
    assert order == [[3], [1], [2]]
    assert lanes.partitions[P[0]].parking.parked_keys == 0


def test_letters_that_were_discarded_unpark_their_key() -> None:
    """The record that says so does not reach the handler."""
    lanes = lanes_of(on_failure="park", dead_letters="stream:d", attempts=1, parked="wait", concurrency=1)
    lanes.offer([record(n, "k") for n in range(2)], 0.0)
    settled(lanes, "raised")
    lanes.lettered(lanes.out.next_letters(9))
    gone = Redriven("a", P[0].partition_id, (0, 0), last=(0, 0), discard=True).headers()
    lanes.offer([InnerRecord(b"", 2, 0, "k", *P[0], 0, 1, gone)], 0.0)
    assert settled(lanes, "returned") == [[1]]
    assert sorted(done(lanes)) == [0, 1, 2]


def test_records_of_a_key_stay_in_order_across_partitions() -> None:
    """After a change of the layout a key comes from another partition: it is one lane all the same."""
    lanes = lanes_of()
    lanes.offer([record(7, "k", 0), record(0, "k", 1)], 0.0)
    (first,) = taken(lanes)
    assert first.partition == P[0]
    assert lanes.drop(P[0]) == [first]
    assert taken(lanes) == [], "its call has not ended yet"
    lanes.settle(first, "cancelled", None, 0.0)
    lanes.check()
    assert [run.partition for run in taken(lanes)] == [P[1]]


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_pauses_double_and_are_jittered(attempts: int) -> None:
    """Between half and all of base * 2^n, at most retry_max_s; the last failure ends it."""
    lanes = lanes_of(attempts=attempts, retry_base_s=1.0, retry_max_s=4.0, on_failure="ignore")
    lanes.offer([record(0, "k")], 0.0)
    now, pauses = 0.0, []
    while True:
        settled(lanes, "raised", now)
        assert taken(lanes, now) == []
        if (when := lanes.next_look) is None:
            break
        pauses.append(when - now)
        now = when
    assert [longest / 2 <= pause <= longest for pause, longest in zip(pauses, (1, 2, 4, 4), strict=False)] == [True] * (
        attempts - 1
    )
    assert (lanes.counts.ignored, lanes.counts.retried) == (1, attempts - 1)


def test_latencies_are_right_to_a_bucket() -> None:
    """Percentiles of known times, from microseconds to hours."""
    latencies = Latencies()
    assert latencies.percentile(0.5) is None
    for seconds in [0.001] * 98 + [3.0, 1e9]:
        latencies.add(seconds)
    half, most = latencies.percentile(0.5), latencies.percentile(0.99)
    assert half is not None
    assert most is not None
    assert 0.001 <= half <= 0.0011
    assert 3.0 <= most <= 3.3
    latencies.add(0.0)
