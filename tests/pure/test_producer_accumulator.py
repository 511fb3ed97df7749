"""Proves the producer's core: every record gets one true end, and order per key holds, whatever the service answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from disstream.errors import ApiError, DeliveryUnknown, NotStored, RecordRejected, TransportError
from disstream.model import NewRecord, PartitionInfo, PutResults, Record
from disstream.producer.accumulator import Accumulator
from disstream.producer.config import Envelope, Order, ProducerConfig
from disstream.producer.lanes import Lane
from disstream.producer.outcome import Batch, Failure, Receipt
from disstream.producer.pacing import Backoff, Pace
from disstream.producer.packing import Packing
from disstream.producer.shipment import RECORD_OVERHEAD, Shipment, weight_of
from disstream.producer.traffic import Book
from disstream.wire.columns import NewColumns
from disstream.wire.envelope import unwrap
from disstream.wire.errors import api_error
from disstream.wire.partitioning import HashRouter, hash_key, hash_ranges, partition_id, partition_number
from disstream.wire.records import decode_put_answer

KEYS = [None, "a", "b", "c", "d", "e", "f"]


def layout(count: int) -> list[PartitionInfo]:
    return [
        PartitionInfo(partition_id=partition_id(i), hash_range=hash_range)
        for i, hash_range in enumerate(hash_ranges(count))
    ]


def make(order: Order = "key", partitions: int = 3, ceiling: Pace | None = None, **options: Any) -> Accumulator:
    settled: dict[str, Any] = {"max_batch_records": 4, "max_batch_bytes": 60, "max_in_flight": 2} | options
    config = ProducerConfig(order=order, delivery_timeout_s=100.0, **settled)
    packing = Packing(config, bytes(16)) if config.packs else None
    book = Book(ceiling, random.Random(2))
    return Accumulator(config, layout(partitions), Backoff(0.05, 5.0, random.Random(1)), packing, book=book)


def add(core: Accumulator, row: NewRecord, now: float = 0.0) -> tuple[Batch, int]:
    lane = core.layout.lanes.of_row(row)
    weight = weight_of(row)
    batch = core.add(lane, row, weight) or core.open(lane, row, weight, now)
    return batch, len(batch.rows) - 1


class Service:
    """A DIS that stores what it is told to: partitions by hash, one log per partition, a global clock of stores."""

    def __init__(self, partitions: int) -> None:
        self.next: dict[int, int] = {}
        self.log: list[tuple[str | None, bytes, int, int, int]] = []
        """Key, data, partition, sequence, index within it: in order of storing."""
        self._turn = 0
        self.scale(partitions)

    def scale(self, partitions: int) -> None:
        self.scaled = getattr(self, "scaled", False) or partitions != getattr(self, "partitions", partitions)
        self.partitions = partitions
        self.router = HashRouter(list(enumerate(hash_ranges(partitions))))

    def place(self, row: NewRecord) -> int:
        if row.partition_id is not None:
            return partition_number(row.partition_id)
        if row.key is not None:
            number = self.router.owner(hash_key(row.key))
            assert number is not None
            return number
        self._turn += 1
        return self._turn % self.partitions

    def put(self, rows: Sequence[NewRecord], failing: dict[int, str], *, suffix_rule: bool) -> bytes:
        """Store `rows` but for the records whose index is in `failing` (code), and what the suffix rule adds."""
        results: list[dict[str, str]] = []
        broken: set[int] = set()
        for index, row in enumerate(rows):
            number = self.place(row)
            code = failing.get(index) or ("DIS.4303" if suffix_rule and number in broken else None)
            if code:
                broken.add(number)
                results.append({"error_code": code, "error_message": "no"})
                continue
            sequence = self.next.get(number, 0)
            self.next[number] = sequence + 1
            for inner in unwrap([Record(row.data, sequence, key=row.key)]):
                self.log.append((inner.key, inner.data, number, sequence, inner.index))
            results.append({"partition_id": partition_id(number), "sequence_number": str(sequence)})
        failed = sum("error_code" in r for r in results)
        return msgspec.json.encode({"failed_record_count": failed, "records": results})

    def order_violations(self) -> list[tuple[str, int, int]]:
        """Pairs of records of a key whose first occurrences are stored in the wrong order."""
        seen: set[bytes] = set()
        latest: dict[str, int] = {}
        wrong = []
        for key, data, *_ in self.log:
            if key is None or data in seen:
                continue
            seen.add(data)
            number = int(data)
            if latest.get(key, -1) > number:
                wrong.append((key, latest[key], number))
            latest[key] = max(latest.get(key, -1), number)
        return wrong


class AccumulatorMachine(RuleBasedStateMachine):
    """Any sequence of adds, requests, answers, losses, time and scaling; check() after every step."""

    order: Order = "key"
    suffix_rule = True
    envelope: Envelope | None = None

    ceiling: Pace | None = None

    @initialize(partitions=st.integers(1, 5), in_flight=st.integers(1, 4), linger=st.sampled_from([0.0, 0.5]))
    def begin(self, partitions: int, in_flight: int, linger: float) -> None:
        self.core = make(
            self.order, partitions, self.ceiling, max_in_flight=in_flight, linger_s=linger, envelope=self.envelope
        )
        self.now = 0.0
        self.sent: list[tuple[Batch, int, NewRecord]] = []
        self.used = 0
        self.flying: list[Shipment] = []
        self.lossy = False
        self.prepare(partitions)

    def prepare(self, partitions: int) -> None:
        self.service = Service(partitions)

    def put(self, shipment: Shipment, failing: dict[int, str]) -> bytes:
        """What the service does with the request, and answers."""
        return self.service.put(shipment.rows(), failing, suffix_rule=self.suffix_rule)

    @rule(key=st.sampled_from(KEYS), burst=st.integers(1, 7))
    def send(self, key: str | None, burst: int) -> None:
        for _ in range(burst):
            row = NewRecord(b"%d" % len(self.sent), key)
            self.used += weight_of(row) + RECORD_OVERHEAD
            self.sent.append((*add(self.core, row, self.now), row))

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=12), size=st.sampled_from([0, 0, 30]))
    def send_many(self, keys: list[str | None], size: int) -> None:
        rows: dict[Lane, list[NewRecord]] = {}
        for number, key in enumerate(keys, len(self.sent)):
            row = NewRecord(b"%d" % number + b" " * size, key)
            rows.setdefault(self.core.layout.lanes.of_row(row), []).append(row)
        for lane, mine in rows.items():
            weight = sum(map(weight_of, mine))
            self.used += weight + len(mine) * RECORD_OVERHEAD
            spans = self.core.extend(lane, NewColumns.of(mine), weight, self.now)
            places = [(batch, index) for batch, span in spans for index in span]
            assert [batch.rows[index] for batch, index in places] == mine
            self.sent += [(batch, index, row) for (batch, index), row in zip(places, mine, strict=True)]

    @rule(group=st.integers(0, 3))
    def take(self, group: int) -> None:
        groups = self.core.layout.lanes.groups
        mine = groups[group % len(groups)]
        shipment = self.core.picker.take(mine, self.now)
        if shipment is not None:
            self.flying.append(shipment)
        elif (again := self.core.picker.next_wake(mine, self.now)) is not None:
            assert again > self.now, "the shell would spin"

    def _land(self, which: int) -> Shipment:
        return self.flying.pop(which % len(self.flying))

    @precondition(lambda self: self.flying)
    @rule(which=st.integers(0, 3), decoded=st.booleans(), data=st.data())
    def answer(self, which: int, decoded: bool, data: st.DataObject) -> None:
        shipment = self._land(which)
        codes = st.sampled_from(["DIS.4303", "DIS.4303", "DIS.5250", "DIS.4200"])
        failing = data.draw(st.dictionaries(st.integers(0, 4), codes, max_size=2))
        body = self.put(shipment, failing)
        self.core.answers.stored(shipment, decode_put_answer(body) if decoded else body, self.now)

    @precondition(lambda self: self.flying)
    @rule(which=st.integers(0, 3), applied=st.booleans(), known=st.booleans())
    def lose(self, which: int, applied: bool, known: bool) -> None:
        shipment = self._land(which)
        self.lossy = True
        if applied:
            self.put(shipment, {})
        self.core.answers.lost(shipment, TransportError("cut", outcome_unknown=applied or not known), self.now)

    @precondition(lambda self: self.flying)
    @rule(
        which=st.integers(0, 3),
        code=st.sampled_from(["DIS.4303", "DIS.4205", "DIS.5000", "DIS.4200", "DIS.4301", "DIS.4309"]),
    )
    def refuse(self, which: int, code: str) -> None:
        self.core.answers.refused(self._land(which), api_error(code), self.now)

    @precondition(lambda self: self.flying)
    @rule(which=st.integers(0, 3), body=st.sampled_from([b"", b"{}", b'{"records":[]}', b"<html>", None]))
    def garble(self, which: int, body: bytes | None) -> None:
        shipment = self._land(which)
        self.lossy = True
        self.put(shipment, {})
        self.core.answers.stored(shipment, PutResults() if body is None else body, self.now)

    @rule(seconds=st.sampled_from([0.01, 0.3, 2.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        again = self.core.sweep(self.now)
        assert (again is None) == self.core.drained
        assert again is None or again > self.now

    @rule(partitions=st.integers(1, 6))
    def scale(self, partitions: int) -> None:
        self.service.scale(partitions)

    @precondition(lambda self: not self.flying and self.core.layout.stale)
    @rule()
    def relayout(self) -> None:
        assert not self.core.layout.in_doubt
        self.core.relayout(layout(self.service.partitions))

    @invariant()
    def consistent(self) -> None:
        if hasattr(self, "core"):
            self.core.check()
            waiting = sum(1 for batch, i, _ in self.sent if not self._ended(batch, i))
            assert self.core.waiting == waiting
            assert self.used - self.core.ends.freed == sum(
                weight_of(row) + RECORD_OVERHEAD for batch, i, row in self.sent if not self._ended(batch, i)
            )

    @staticmethod
    def _ended(batch: Batch, index: int) -> bool:
        return batch.has_end(index)

    def teardown(self) -> None:
        if not hasattr(self, "core"):
            return
        self.core.abandon("test over")
        stored_data = {data for _, data, *_ in self.service.log}
        places = {tuple(place): data for _, data, *place in self.service.log}
        for batch, index, row in self.sent:
            end = batch.end(index)
            assert end is not None, "a record without an end"
            if isinstance(end, Receipt):
                assert places[(partition_number(end.partition_id), end.sequence_number, end.index)] == row.data
            elif end.kind != "unknown":
                assert row.data not in stored_data, f"{end} but it is stored"
        self.check_order()
        assert self.core.ends.ledger.report() == {}, "everything was looked at"

    def check_order(self) -> None:
        assert self.service.order_violations() == []


class StrictMachine(AccumulatorMachine):
    """Order "strict" is exact even where the service stores later records of a partition behind refused ones."""

    order: Order = "strict"
    suffix_rule = False


class PacedMachine(AccumulatorMachine):
    """Where each partition takes but a few records a second, nothing of the above changes."""

    ceiling = Pace(records_per_s=3, bytes_per_s=40)


class PacedStrictMachine(StrictMachine):
    """The same in order "strict"."""

    ceiling = Pace(records_per_s=3, bytes_per_s=40)


class CountingMachine(AccumulatorMachine):
    """Order "key" on a service without the suffix rule: order may break, and `reordered` tells when it did."""

    suffix_rule = False

    def check_order(self) -> None:
        ends = [batch.end(i) for batch, i, _ in self.sent]
        late = sum(isinstance(end, Receipt) and end.reordered for end in ends)
        assert late == self.core.ends.counts.reordered
        if not self.lossy:  # a lost answer may hide a partial failure that no client can see
            assert late == len({number for _, _, number in self.service.order_violations()})


class NoOrderMachine(AccumulatorMachine):
    order: Order = "none"
    suffix_rule = False

    def check_order(self) -> None:
        pass


class AggregatingMachine(AccumulatorMachine):
    """Records that share one of the service get its end, and their place within it."""

    envelope = Envelope(aggregate_records=3, aggregate_bytes=45)

    def check_order(self) -> None:
        if self.service.scaled:  # other keys of an envelope may have moved, which only a session finds out in time
            return
        super().check_order()


class StrictAggregatingMachine(StrictMachine):
    envelope = Envelope(aggregate_records=3, aggregate_bytes=45)

    def check_order(self) -> None:
        if not self.service.scaled:
            super().check_order()


class PacedAggregatingMachine(AggregatingMachine):
    """Where records share those of the service, a paced lane sends whole ones of those."""

    ceiling = Pace(records_per_s=3, bytes_per_s=80)


for _machine in (
    AccumulatorMachine,
    StrictMachine,
    CountingMachine,
    NoOrderMachine,
    AggregatingMachine,
    StrictAggregatingMachine,
):
    _machine.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
for _machine in (PacedMachine, PacedStrictMachine, PacedAggregatingMachine):
    _machine.TestCase.settings = settings(max_examples=40, stateful_step_count=40)
TestKeyOrder = AccumulatorMachine.TestCase
TestStrictOrder = StrictMachine.TestCase
TestPaced = PacedMachine.TestCase
TestPacedAggregating = PacedAggregatingMachine.TestCase
TestPacedStrict = PacedStrictMachine.TestCase
TestCountedOrder = CountingMachine.TestCase
TestNoOrder = NoOrderMachine.TestCase
TestAggregation = AggregatingMachine.TestCase
TestStrictAggregation = StrictAggregatingMachine.TestCase


def ship(core: Accumulator, now: float = 0.0) -> Shipment:
    for group in core.layout.lanes.groups:
        if (shipment := core.picker.take(group, now)) is not None:
            return shipment
    raise AssertionError("nothing to take")


def test_an_idle_lane_sends_at_once_and_a_busy_one_fills() -> None:
    """Without linger a record goes at once; while its request is in flight, later ones gather in one batch."""
    core = make(partitions=1, max_batch_records=10)
    add(core, NewRecord(b"0", "a"))
    first = ship(core)
    for i in range(1, 5):
        add(core, NewRecord(b"%d" % i, "a"))
    assert core.picker.take(core.layout.lanes.groups[0], 0.0) is None
    core.answers.stored(first, Service(1).put(first.rows(), {}, suffix_rule=True), 0.0)
    assert [row.data for row in ship(core).rows()] == [b"1", b"2", b"3", b"4"]


def test_linger_holds_a_batch_until_it_is_due_full_or_hurried() -> None:
    """With linger a batch goes when it is old enough, full, or a flush asks for it."""
    core = make(partitions=1, linger_s=0.5, max_batch_records=3)
    group = core.layout.lanes.groups[0]
    add(core, NewRecord(b"0", "a"), now=10.0)
    assert core.picker.take(group, 10.4) is None
    assert core.picker.next_wake(group) == 10.5
    assert core.picker.take(group, 10.5) is not None
    core = make(partitions=1, linger_s=0.5, max_batch_records=3)
    for i in range(3):
        add(core, NewRecord(b"%d" % i, "a"), now=10.0)
    assert core.picker.take(core.layout.lanes.groups[0], 10.0) is not None
    core = make(partitions=1, linger_s=0.5)
    add(core, NewRecord(b"0", "a"), now=10.0)
    core.hurry(10.1)
    assert core.picker.take(core.layout.lanes.groups[0], 10.1) is not None


def test_lanes_of_two_groups_never_share_a_request() -> None:
    """With much to send a request takes lanes of one group only, so that groups stay in flight side by side."""
    core = make(partitions=4, max_in_flight=2, max_batch_records=100, max_batch_bytes=10_000)
    for i in range(200):
        add(core, NewRecord(b"x", f"key-{i}"))
    shipments = [core.picker.take(group, 0.0) for group in core.layout.lanes.groups]
    lanes = [{lane.number for lane, _ in s.parts} for s in shipments if s is not None]
    assert len(lanes) == 2
    assert all(lane in {0, 2} for lane in lanes[0])
    assert all(lane in {1, 3} for lane in lanes[1])


def test_strict_order_puts_one_record_of_a_key_on_the_wire() -> None:
    """In order "strict" a request never holds two records of a key, and keys still flow side by side."""
    core = make("strict", partitions=1, max_batch_records=10)
    for i in range(3):
        for key in ("a", "b"):
            add(core, NewRecord(f"{key}{i}".encode(), key))
    service = Service(1)
    seen = []
    for _ in range(3):
        shipment = ship(core)
        seen.append([row.data for row in shipment.rows()])
        core.answers.stored(shipment, service.put(shipment.rows(), {}, suffix_rule=True), 0.0)
    assert seen == [[b"a0", b"b0"], [b"a1", b"b1"], [b"a2", b"b2"]]


def test_a_partial_failure_resends_from_the_first_failed_record() -> None:
    """After a partial failure the lane goes on with exactly what failed, in order, before anything newer."""
    core = make(partitions=1, max_batch_records=4, max_batch_bytes=10_000)
    service = Service(1)
    ends = [add(core, NewRecord(b"%d" % i, "a")) for i in range(6)]
    shipment = ship(core)
    core.answers.stored(shipment, service.put(shipment.rows(), {2: "DIS.4303"}, suffix_rule=True), 0.0)
    again = ship(core, now=10.0)
    assert [row.data for row in again.rows()] == [b"2", b"3", b"4", b"5"]
    core.answers.stored(again, service.put(again.rows(), {}, suffix_rule=True), 10.0)
    receipts = [batch.end(i) for batch, i in ends]
    assert [r.sequence_number for r in receipts if isinstance(r, Receipt)] == [0, 1, 2, 3, 4, 5]
    assert [r.attempts for r in receipts if isinstance(r, Receipt)] == [1, 1, 2, 2, 1, 1]


def test_a_broken_suffix_rule_is_counted() -> None:
    """Where a service stores k#1 after refusing k#0, k#0's receipt says so once it is stored."""
    core = make(partitions=1)
    service = Service(1)
    ends = [add(core, NewRecord(b"%d" % i, "a")) for i in range(3)]
    for failing in ({0: "DIS.4303"}, {}):
        shipment = ship(core, now=10.0)
        core.answers.stored(shipment, service.put(shipment.rows(), failing, suffix_rule=False), 0.0)
    receipts = [batch.end(i) for batch, i in ends]
    assert [r.reordered for r in receipts if isinstance(r, Receipt)] == [True, False, False]
    assert core.ends.counts.reordered == len(service.order_violations()) == 1


def test_overtaking_is_counted_across_the_parts_of_a_request() -> None:
    """k#0, tried again, shares a request with k#1 in another part; refused again while k#1 is stored, it is late."""
    core = make(partitions=1)
    service = Service(1)
    first = add(core, NewRecord(b"0", "a"))
    shipment = ship(core)
    core.answers.stored(shipment, service.put(shipment.rows(), {0: "DIS.4303"}, suffix_rule=False), 0.0)
    add(core, NewRecord(b"1", "a"))
    for failing in ({0: "DIS.4303"}, {}):
        shipment = ship(core, now=10.0)
        core.answers.stored(shipment, service.put(shipment.rows(), failing, suffix_rule=False), 0.0)
    end = first[0].end(first[1])
    assert isinstance(end, Receipt)
    assert end.reordered
    assert core.ends.counts.reordered == 1


@pytest.mark.parametrize(
    ("body", "ends"),
    [
        (b'{"failed_record_count":0,"records":[{"partition_id":"shardId-0000000000","error_code":"DIS.4303"}]}', None),
        (b'{"records":[{"partition_id":"shardId-0000000000","sequence_number":"1","error_code":"DIS.4303"}]}', None),
        (b'{"records":[{"partition_id":"shardId-0000000000"}]}', "unknown"),
        (b'{"records":[{"partition_id":"shardId-0000000000","sequence_number":null}]}', "unknown"),
        (b'{"records":[]}', "unknown"),
        (b'{"failed_record_count":0,"records":[{"partition_id":"shardId-0000000000","sequence_number":"7"', "unknown"),
        (b'{"records":[{"partition_id":"shardId-0000000000","sequence_number":"7","error_code":""}]}', "stored"),
        (b'{"records":[{"partition_id":"shardId-0000000000","sequence_number":"7","error_code":null}]}', "stored"),
        (b'{"records":[{"partition_id":"0","sequence_number":7}]}', "stored"),
    ],
)
def test_odd_answers_are_taken_at_their_word(body: bytes, ends: str | None) -> None:
    """What an answer says of a record decides, not its count; one that says nothing leaves the outcome unknown."""
    core = make(partitions=1)
    batch, index = add(core, NewRecord(b"0", "a"))
    core.answers.stored(ship(core), body, 0.0)
    if ends != "stored":
        assert batch.end(index) is None, "neither stored nor refused for good: it is tried again"
        core.sweep(101.0)
    end = batch.end(index)
    if isinstance(end, Receipt):
        assert ends == "stored"
        assert end.sequence_number == 7
    else:
        assert end is not None
        assert end.kind == (ends or "not stored")


def test_a_place_that_cannot_be_read_is_still_stored() -> None:
    """A sequence number that is no number does not break the receipt: the record is stored, its place is -1."""
    core = make(partitions=1)
    batch, index = add(core, NewRecord(b"0", "a"))
    entry = b'{"partition_id":"shardId-0000000000","sequence_number":"many"}'
    core.answers.stored(ship(core), b'{"failed_record_count":0,"records":[' + entry + b"]}", 0.0)
    assert batch.end(index) == Receipt("shardId-0000000000", -1)


def test_a_request_time_out_of_the_service_is_tried_again() -> None:
    """HTTP 408 says that the request was not read: nothing is stored, and the next attempt may succeed."""
    core = make(partitions=1)
    batch, index = add(core, NewRecord(b"0", "a"))
    core.answers.refused(ship(core), ApiError("too slow", status=408), 0.0)
    assert batch.end(index) is None
    shipment = ship(core, now=10.0)
    core.answers.stored(shipment, Service(1).put(shipment.rows(), {}, suffix_rule=True), 10.0)
    assert isinstance(batch.end(index), Receipt)


def test_one_bad_record_does_not_sink_the_others() -> None:
    """A request refused as a whole is halved until the record the service does not take stands alone."""
    core = make(partitions=2, max_batch_records=100, max_batch_bytes=10_000)
    service = Service(2)
    ends = [add(core, NewRecord(b"bad" if i == 13 else b"%d" % i, f"k{i % 5}")) for i in range(40)]
    requests = 0
    while not core.drained:
        shipment = ship(core)
        requests += 1
        if any(row.data == b"bad" for row in shipment.rows()):
            core.answers.refused(shipment, api_error("DIS.4200", "[too odd]"), 0.0)
        else:
            core.answers.stored(shipment, service.put(shipment.rows(), {}, suffix_rule=True), 0.0)
    failures = [(i, end) for i, (b, j) in enumerate(ends) if isinstance(end := b.end(j), Failure)]
    assert [i for i, _ in failures] == [13]
    assert isinstance(failures[0][1].exception(), RecordRejected)
    assert requests < 20
    assert service.order_violations() == []


@pytest.mark.parametrize(("applied", "kind"), [(True, DeliveryUnknown), (False, NotStored)])
def test_ambiguity_is_sticky(applied: bool, kind: type[Exception]) -> None:
    """A record that may have been applied once is unknown for ever, whatever refuses it later."""
    core = make(partitions=1)
    batch, index = add(core, NewRecord(b"0", "a"))
    core.answers.lost(ship(core), TransportError("cut", outcome_unknown=applied), 0.0)
    core.answers.lost(ship(core, now=10.0), TransportError("refused", outcome_unknown=False), 10.0)
    core.sweep(101.0)
    end = batch.end(index)
    assert isinstance(end, Failure)
    assert isinstance(end.exception(), kind)


def test_throttled_to_the_end_says_so() -> None:
    """A record refused by flow control until its time is up is not stored, with the reason "throttled"."""
    core = make(partitions=1)
    batch, index = add(core, NewRecord(b"0", "a"))
    core.answers.refused(ship(core), api_error("DIS.4303"), 0.0)
    core.sweep(101.0)
    end = batch.end(index)
    assert isinstance(end, Failure)
    assert (end.kind, end.code) == ("not stored", "throttled")


def test_unobserved_failures_are_counted_by_cause_until_looked_at() -> None:
    """The ledger holds failures nobody looked at; looking once takes a record off."""
    core = make(partitions=1)
    ends = [add(core, NewRecord(b"%d" % i, "a")) for i in range(3)]
    core.abandon("over")
    assert core.ends.ledger.report() == {"not stored (closed)": 3}
    ends[1][0].end(ends[1][1])
    ends[1][0].end(ends[1][1])
    assert core.ends.ledger.report() == {"not stored (closed)": 2}


def test_a_batch_that_is_given_up_whole_has_one_end() -> None:
    """Whoever keeps deliveries of an outage keeps nothing for each record: only who has looked at it yet."""
    core = make(partitions=1, max_batch_records=1_000, max_batch_bytes=10_000)
    ends = [add(core, NewRecord(b"%d" % i, "a")) for i in range(500)]
    told: list[int] = []
    ends[0][0].watch(lambda: told.append(1))
    core.sweep(200.0)
    core.check()
    batch = ends[0][0]
    assert {place for place, _ in ends} == {batch}
    assert (batch.settled, batch.ends, len(batch.rows), told) == (True, None, 0, [1])
    assert core.ends.freed == sum(len(b"%d" % i) + 1 + RECORD_OVERHEAD for i in range(500))
    assert core.ends.ledger.report() == {"not stored (expired)": 500}
    assert [sample.key for sample in core.ends.ledger.samples()] == ["a"] * 3
    assert all(batch.has_end(i) for i in range(500))
    assert len({id(batch.end(i)) for i in range(500)}) == 1
    assert (core.ends.ledger.report(), core.ends.ledger.samples()) == ({}, [])


def test_what_is_left_of_a_batch_is_given_up_record_by_record() -> None:
    """Where ends differ, each record has its own: what was stored stays stored."""
    core = make(partitions=1, max_batch_records=4, max_batch_bytes=10_000)
    ends = [add(core, NewRecord(b"%d" % i, "a")) for i in range(4)]
    shipment = ship(core)
    core.answers.stored(shipment, Service(1).put(shipment.rows(), {2: "DIS.4303"}, suffix_rule=True), 0.0)
    core.sweep(200.0)
    core.check()
    kinds = [end.kind if isinstance(end := batch.end(i), Failure) else "stored" for batch, i in ends]
    assert kinds == ["stored", "stored", "not stored", "not stored"]


@pytest.mark.parametrize("order", ["key", "strict", "none"])
def test_a_record_heavier_than_a_batch_travels_alone(order: Literal["key", "strict", "none"]) -> None:
    """A record above max_batch_bytes is not stuck: it gets a request of its own."""
    core = make(order, partitions=1, max_batch_bytes=60, max_in_flight=1)
    for data in (b"1", b"x" * 500, b"2"):
        add(core, NewRecord(data, "a" if order == "key" else None))
    sizes = []
    service = Service(1)
    while not core.drained:
        shipment = ship(core)
        sizes.append(shipment.count)
        core.answers.stored(shipment, service.put(shipment.rows(), {}, suffix_rule=True), 0.0)
    assert sizes == [1, 1, 1]


def test_scaling_moves_waiting_records_in_order() -> None:
    """When an answer names another partition, what waits is routed over the new layout without losing its order."""
    core = make(partitions=1, max_batch_records=10, max_batch_bytes=10_000)
    service = Service(3)
    for i in range(9):
        add(core, NewRecord(b"%d" % i, f"key-{i % 3}"))
    shipment = ship(core)
    for i in range(9, 30):
        add(core, NewRecord(b"%d" % i, f"key-{i % 3}"))
    core.answers.stored(shipment, service.put(shipment.rows(), {}, suffix_rule=True), 0.0)
    assert bool(core.layout.stale)
    assert core.relayout(layout(3))
    core.check()
    while not core.drained:
        shipment = ship(core)
        core.answers.stored(shipment, service.put(shipment.rows(), {}, suffix_rule=True), 0.0)
    assert not bool(core.layout.stale)
    assert service.order_violations() == []
    assert len(service.log) == 30


@pytest.mark.parametrize("moved", [False, True])
def test_an_answer_for_many_lanes_says_where_each_record_is(moved: bool) -> None:
    """A request may hold more lanes than are worth counting: its records are told apart all the same."""
    core = make(partitions=16, max_batch_records=100, max_batch_bytes=10_000, max_in_flight=1)
    service = Service(16)
    if moved:
        service.router = HashRouter([(15 - n, r) for n, r in enumerate(hash_ranges(16))])
    sent = [(i, *add(core, NewRecord(b"%d" % i, f"key-{i % 40}"))) for i in range(80)]
    shipment = ship(core)
    assert len({lane for lane, _ in shipment.parts}) > 10
    core.answers.stored(shipment, service.put(shipment.rows(), {}, suffix_rule=True), 0.0)
    core.check()
    assert core.drained
    assert core.layout.stale == moved
    places = {data: (partition_id(number), sequence) for _, data, number, sequence, _ in service.log}
    for i, batch, index in sent:
        end = batch.end(index)
        assert isinstance(end, Receipt)
        assert (end.partition_id, end.sequence_number) == places[b"%d" % i]


def test_a_service_with_another_hash_is_not_asked_for_its_layout_for_ever() -> None:
    """If the layout is as we knew it although places differ, places are not compared any more."""
    core = make(partitions=2, max_batch_records=10)
    service = Service(2)
    service.router = HashRouter([(1 - n, r) for n, r in enumerate(hash_ranges(2))])
    for i in range(4):
        add(core, NewRecord(b"%d" % i, f"key-{i}"))
    shipment = ship(core)
    core.answers.stored(shipment, service.put(shipment.rows(), {}, suffix_rule=True), 0.0)
    assert bool(core.layout.stale)
    core.relayout(layout(2))
    for i in range(4, 8):
        add(core, NewRecord(b"%d" % i, f"key-{i}"))
    while not core.drained:
        shipment = ship(core)
        core.answers.stored(shipment, service.put(shipment.rows(), {}, suffix_rule=True), 0.0)
    assert not bool(core.layout.stale)


def test_a_bad_record_within_an_envelope_does_not_sink_the_others() -> None:
    """Halved between records of the service first, then within the one that is refused."""
    core = make(partitions=1, max_batch_records=100, max_batch_bytes=10_000, envelope=Envelope(aggregate_records=8))
    service = Service(1)
    ends = [add(core, NewRecord(b"bad" if i == 13 else b"%d" % i, f"k{i % 5}")) for i in range(40)]
    whole: set[bytes] = set()
    while not core.drained:
        shipment = ship(core)
        core.check()
        rows = shipment.rows()
        if any(b"bad" in row.data for row in rows):
            whole = whole or {row.data for row in rows}
            assert len(rows) == 1 or {row.data for row in rows} <= whole
            core.answers.refused(shipment, api_error("DIS.4200", "[too odd]"), 0.0)
        else:
            core.answers.stored(shipment, service.put(rows, {}, suffix_rule=True), 0.0)
    found = [batch.end(i) for batch, i in ends]
    assert [i for i, end in enumerate(found) if not isinstance(end, Receipt)] == [13]
    assert isinstance(found[13], Failure)
    assert found[13].kind == "rejected"
    assert service.order_violations() == []
