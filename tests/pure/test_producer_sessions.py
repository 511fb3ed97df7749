"""Proves the producer's core in sessions: each record is stored once, in order, whatever is lost, late or repeated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from test_producer_accumulator import AccumulatorMachine, Service, add, layout, make, ship

from disstream.errors import TransportError
from disstream.model import NewRecord, Record
from disstream.producer.accumulator import Accumulator
from disstream.producer.config import Envelope, Order
from disstream.producer.outcome import Failure, Receipt
from disstream.producer.pacing import Pace
from disstream.producer.shipment import Shipment
from disstream.wire.envelope import unwrap
from disstream.wire.errors import api_error
from disstream.wire.partitioning import partition_id
from disstream.wire.sessions import FENCED, GAP, MAX_LANES, MOVED, Session


class Known(NamedTuple):
    """What a partition knows of the producer: the places of the records that are stored, and who stored last."""

    epoch: int
    places: list[int]
    request: int


def opened(row: NewRecord) -> list[Record]:
    """The records in one of the service."""
    return unwrap([Record(row.data, 0, key=row.key)])


class SessionService(Service):
    """A service that understands sessions, as the decision page tells it: one partition after another, by its numbers.

    Notes which record each number was sent for: no number may ever name two.
    """

    def __init__(self, partitions: int) -> None:
        super().__init__(partitions)
        self.known: dict[int, Known] = {}
        self.refused: dict[int, int] = {}
        self.named: dict[tuple[int, int, int], bytes] = {}

    def put_in_session(self, session: Session, rows: Sequence[NewRecord], failing: dict[int, str]) -> bytes:
        results: list[dict[str, str]] = []
        assert session.records == len(rows)
        for partition, epoch, number, count in session.lanes:
            code = None
            for place in range(count):
                index = len(results)
                code = code or self._put_one(
                    session.request, partition, epoch, number + place, rows[index], failing.get(index), results
                )
                if code is not None:
                    self.refused[partition] = max(session.request, self.refused.get(partition, 0))
                    results.append({"error_code": code, "error_message": "no"})
        failed = sum("error_code" in r for r in results)
        return msgspec.json.encode({"failed_record_count": failed, "records": results})

    def _put_one(
        self,
        request: int,
        partition: int,
        epoch: int,
        number: int,
        row: NewRecord,
        failing: str | None,
        results: list[dict[str, str]],
    ) -> str | None:
        """Store the record, or say why not; a result is added if it is stored."""
        known = self.known.get(partition)
        if known is not None and known.epoch == epoch and number < len(known.places):
            sequence = known.places[number]
            results.append({"partition_id": partition_id(partition), "sequence_number": str(sequence)})
            return None
        if known is not None and epoch < known.epoch:
            return FENCED
        if request <= self.refused.get(partition, 0):
            return FENCED
        if known is not None and known.epoch == epoch and request < known.request:
            return FENCED
        if number > (len(known.places) if known is not None and known.epoch == epoch else 0):
            return GAP
        if partition >= self.partitions or (row.partition_id is None and self.place(row) != partition):
            return MOVED
        if failing is not None:
            return failing
        sequence = self.next.get(partition, 0)
        self.next[partition] = sequence + 1
        self.log += [(i.key, i.data, partition, sequence, i.index) for i in opened(row)]
        places = known.places if known is not None and known.epoch == epoch else []
        self.known[partition] = Known(epoch, [*places, sequence], request)
        results.append({"partition_id": partition_id(partition), "sequence_number": str(sequence)})
        return None

    def note(self, session: Session, rows: Sequence[NewRecord]) -> None:
        row = iter(rows)
        for partition, epoch, number, count in session.lanes:
            for n in range(number, number + count):
                data = next(row).data
                assert self.named.setdefault((partition, epoch, n), data) == data, "a number names two records"


class SessionMachine(AccumulatorMachine):
    """As the machine it stands on; and copies of requests come late, however late."""

    service: SessionService

    def prepare(self, partitions: int) -> None:
        self.service = SessionService(partitions)
        self.core.offer(True)
        self.on_the_way: list[tuple[Session, Sequence[NewRecord]]] = []
        self.copied: set[int] = set()
        self.asked: list[int] = []
        self.scaled = False

    @rule(group=st.integers(0, 3))
    def take(self, group: int) -> None:
        before = len(self.flying)
        super().take(group)
        for shipment in self.flying[before:]:
            assert shipment.session is not None
            assert shipment.session.producer == "0" * 32
            self.asked.append(shipment.session.request)
            assert self.asked == sorted(set(self.asked)), "requests are numbered as they go"
            self.service.note(shipment.session, shipment.rows())

    def put(self, shipment: Shipment, failing: dict[int, str]) -> bytes:
        assert shipment.session is not None
        return self.service.put_in_session(shipment.session, shipment.rows(), failing)

    @precondition(lambda self: self.flying)
    @rule(which=st.integers(0, 3), code=st.sampled_from(["DIS.4303", "DIS.4205", "DIS.5000", "DIS.4200", "DIS.4301"]))
    def refuse(self, which: int, code: str) -> None:
        """As a whole; but of what is stored already, through a copy, the service says so."""
        shipment = self.flying[which % len(self.flying)]
        session = shipment.session
        assert session is not None
        stored = {data for _, data, *_ in self.service.log}
        if any(inner.data in stored for row in shipment.rows() for inner in opened(row)):
            failing = dict.fromkeys(range(shipment.count), "DIS.4303")
            self.core.answers.stored(self._land(which), self.put(shipment, failing), self.now)
            return
        for partition, *_ in session.lanes:
            self.service.refused[partition] = max(session.request, self.service.refused.get(partition, 0))
        super().refuse(which, code)

    @precondition(lambda self: self.flying)
    @rule(which=st.integers(0, 3))
    def copy(self, which: int) -> None:
        """The network makes a copy of a request."""
        shipment = self.flying[which % len(self.flying)]
        assert shipment.session is not None
        self.on_the_way.append((shipment.session, shipment.rows()))
        self.copied.add(shipment.session.request)

    @precondition(lambda self: self.flying)
    @rule(which=st.integers(0, 3), applied=st.booleans(), known=st.booleans())
    def lose(self, which: int, applied: bool, known: bool) -> None:
        """Of what was copied nobody says that it never left."""
        session = self.flying[which % len(self.flying)].session
        assert session is not None
        super().lose(which, applied, known and session.request not in self.copied)

    @precondition(lambda self: self.on_the_way)
    @rule(which=st.integers(0, 9), keep=st.booleans())
    def arrive(self, which: int, keep: bool) -> None:
        """A copy arrives; nobody reads the answer."""
        which %= len(self.on_the_way)
        self.service.put_in_session(*self.on_the_way[which], {})
        if not keep:
            del self.on_the_way[which]

    @rule(partitions=st.integers(1, 6))
    def scale(self, partitions: int) -> None:
        self.scaled = True
        super().scale(partitions)

    @precondition(lambda self: not self.flying and self.core.layout.stale)
    @rule()
    def relayout(self) -> None:
        """Only what is in doubt may go while the layout changes, until nothing is."""
        self.core.layout.frozen = True
        while self.core.layout.in_doubt:
            self.now += 1.0
            self.core.sweep(self.now)
            for group in self.core.layout.lanes.groups:
                if (shipment := self.core.picker.take(group, self.now)) is not None:
                    assert shipment.session is not None
                    assert all(part.attempts > 1 for _, part in shipment.parts)
                    self.asked.append(shipment.session.request)
                    self.core.answers.stored(shipment, self.put(shipment, {}), self.now)
                    self.core.check()
        self.core.relayout(layout(self.service.partitions))
        self.core.layout.frozen = False

    def check_order(self) -> None:
        stored = Counter(data for _, data, *_ in self.service.log)
        for batch, index, row in self.sent:
            end = batch.end(index)
            if isinstance(end, Receipt):
                assert stored[row.data] == 1, "stored, and once"
                assert not end.reordered
            elif isinstance(end, Failure) and end.kind != "unknown":
                assert stored[row.data] == 0
        assert max(stored.values(), default=1) == 1, "stored twice"
        if not self.scaled:
            assert self.service.order_violations() == []


class StrictSessionMachine(SessionMachine):
    order: Order = "strict"


class AggregatingSessionMachine(SessionMachine):
    """Numbers name records of the service, which are made of the same ones however often they are sent."""

    envelope = Envelope(aggregate_records=3, aggregate_bytes=45)


class PacedSessionMachine(SessionMachine):
    """Where each partition takes but a few records a second, numbers and order hold all the same."""

    ceiling = Pace(records_per_s=3, bytes_per_s=40)


class PacedAggregatingSessionMachine(AggregatingSessionMachine):
    """The same where records share those of the service."""

    ceiling = Pace(records_per_s=3, bytes_per_s=80)


for _machine in (
    SessionMachine,
    StrictSessionMachine,
    AggregatingSessionMachine,
):
    _machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
for _machine in (PacedSessionMachine, PacedAggregatingSessionMachine):
    _machine.TestCase.settings = settings(max_examples=25, stateful_step_count=40)
TestSessions = SessionMachine.TestCase
TestStrictSessions = StrictSessionMachine.TestCase
TestAggregatingSessions = AggregatingSessionMachine.TestCase
TestPacedSessions = PacedSessionMachine.TestCase
TestPacedAggregatingSessions = PacedAggregatingSessionMachine.TestCase


def make_session(order: Order = "key", partitions: int = 1, **options: Any) -> tuple[Accumulator, SessionService]:
    core = make(order, partitions, **({"max_batch_records": 100, "max_batch_bytes": 10_000} | options))
    core.offer(True)
    return core, SessionService(partitions)


def lanes_of(shipment: Shipment) -> list[tuple[int, ...]]:
    assert shipment.session is not None
    return [tuple(lane) for lane in shipment.session.lanes]


def answer(core: Accumulator, service: SessionService, shipment: Shipment, failing: dict[int, str], now: float) -> None:
    assert shipment.session is not None
    core.answers.stored(shipment, service.put_in_session(shipment.session, shipment.rows(), failing), now)
    core.check()


CUT = TransportError("cut", outcome_unknown=True)


def test_what_is_in_doubt_goes_first_as_it_went_and_new_records_behind_it() -> None:
    """After a lost answer the same records go under the same numbers, newer ones behind, and all is stored once."""
    core, service = make_session()
    ends = [add(core, NewRecord(b"%d" % i, "a")) for i in range(3)]
    first = ship(core)
    assert first.session is not None
    service.put_in_session(first.session, first.rows(), {})
    core.answers.lost(first, CUT, 0.0)
    ends.append(add(core, NewRecord(b"3", "a")))
    again = ship(core, now=10.0)
    assert lanes_of(first) == [(0, 0, 0, 3)]
    assert lanes_of(again) == [(0, 0, 0, 4)]
    answer(core, service, again, {}, 10.0)
    assert [data for _, data, *_ in service.log] == [b"0", b"1", b"2", b"3"]
    assert [end.sequence_number for b, i in ends if isinstance(end := b.end(i), Receipt)] == [0, 1, 2, 3]


def test_what_was_refused_keeps_its_number() -> None:
    """Records refused by flow control go again under their numbers, in the same epoch: nothing was given up."""
    core, service = make_session()
    for i in range(4):
        add(core, NewRecord(b"%d" % i, "a"))
    answer(core, service, ship(core), {2: "DIS.4303"}, 0.0)
    assert lanes_of(ship(core, now=10.0)) == [(0, 0, 2, 2)]


def test_giving_up_what_is_in_doubt_begins_a_new_epoch() -> None:
    """Once a record in doubt is unknown for good, the next ones are numbered from 0 in a new epoch, which fences it."""
    core, service = make_session()
    old = add(core, NewRecord(b"0", "a"))
    late = ship(core)
    core.answers.lost(late, CUT, 0.0)
    core.sweep(101.0)
    assert (end := old[0].end(old[1])) is not None
    assert isinstance(end, Failure)
    assert end.kind == "unknown"
    new = add(core, NewRecord(b"1", "a"), now=101.0)
    shipment = ship(core, now=101.0)
    assert lanes_of(shipment) == [(0, 1, 0, 1)]
    answer(core, service, shipment, {}, 101.0)
    assert late.session is not None
    assert FENCED in service.put_in_session(late.session, [NewRecord(b"0", "a")], {}).decode()
    assert isinstance(new[0].end(new[1]), Receipt)
    assert [data for _, data, *_ in service.log] == [b"1"]


@pytest.mark.parametrize("doubt", [False, True])
def test_a_service_that_has_forgotten_the_session(doubt: bool) -> None:
    """A gap: new records begin an epoch; those in doubt are unknown, for the service cannot tell any more."""
    core, service = make_session()
    add(core, NewRecord(b"0", "a"))
    answer(core, service, ship(core), {}, 0.0)
    batch, index = add(core, NewRecord(b"1", "a"))
    shipment = ship(core)
    if doubt:
        core.answers.lost(shipment, CUT, 0.0)
        shipment = ship(core, now=10.0)
    service.known.clear()
    answer(core, service, shipment, {}, 10.0)
    if doubt:
        assert isinstance(end := batch.end(index), Failure)
        assert end.kind == "unknown"
        add(core, NewRecord(b"2", "a"))
    answer(core, service, again := ship(core, now=20.0), {}, 20.0)
    assert lanes_of(again) == [(0, 1, 0, 1)]
    assert len(service.log) == 2


@pytest.mark.parametrize("code", [FENCED, MOVED])
def test_the_service_can_clear_a_doubt(code: str) -> None:
    """Told that no attempt was applied, or ever will be, a record that expires then is not stored: nothing unknown."""
    core, _ = make_session()
    batch, index = add(core, NewRecord(b"0", "a"))
    core.answers.lost(ship(core), CUT, 0.0)
    shipment = ship(core, now=10.0)
    failed = [{"error_code": code, "error_message": "no"}]
    core.answers.stored(shipment, msgspec.json.encode({"failed_record_count": 1, "records": failed}), 10.0)
    core.check()
    assert core.layout.stale == (code == MOVED)
    core.sweep(101.0)
    assert isinstance(end := batch.end(index), Failure)
    assert (end.kind, end.code) == ("not stored", "expired")


def test_an_endpoint_that_stops_offering_sessions() -> None:
    """Requests go without numbers then; what was in doubt stays so whatever is said later, in a new session too."""
    core, _ = make_session()
    batch, index = add(core, NewRecord(b"0", "a"))
    core.answers.lost(ship(core), CUT, 0.0)
    core.offer(False)
    plain = ship(core, now=10.0)
    assert plain.session is None
    core.answers.refused(plain, api_error("DIS.4303"), 10.0)
    core.offer(True)
    shipment = ship(core, now=20.0)
    assert lanes_of(shipment) == [(0, 1, 0, 1)]
    failed = [{"error_code": FENCED, "error_message": "no"}]
    core.answers.stored(shipment, msgspec.json.encode({"failed_record_count": 1, "records": failed}), 20.0)
    core.sweep(101.0)
    assert isinstance(end := batch.end(index), Failure)
    assert end.kind == "unknown"


def test_records_without_a_key_take_turns_over_the_lanes() -> None:
    """In a session they go at once, a batch to each partition in turn, named on the wire; not to one that backs off."""
    core, service = make_session(partitions=3, max_in_flight=1)
    places = []
    for i in range(4):
        add(core, NewRecord(b"%d" % i))
        shipment = ship(core)
        places += [row.partition_id for row in shipment.rows()]
        answer(core, service, shipment, {}, 0.0)
    assert places == [partition_id(n) for n in (0, 1, 2, 0)]
    add(core, NewRecord(b"4"))
    core.answers.lost(ship(core), CUT, 0.0)
    for i in (5, 6, 7):
        add(core, NewRecord(b"%d" % i))
        shipment = ship(core)
        assert [lane[0] for lane in lanes_of(shipment)] == [(2, 0, 2)[i - 5]], "partition 1 backs off"
        answer(core, service, shipment, {}, 0.0)


def test_keyed_records_do_not_starve_those_without_a_key() -> None:
    """However many keyed records wait, a record without a key leaves with one of the next two requests."""
    core, service = make_session(partitions=2, max_in_flight=1, max_batch_records=4)
    for i in range(40):
        add(core, NewRecord(b"%d" % i, f"k{i % 5}"))
    free = add(core, NewRecord(b"free"))
    for _ in range(2):
        answer(core, service, ship(core), {}, 0.0)
    assert isinstance(free[0].end(free[1]), Receipt)


def test_a_request_has_at_most_so_many_lanes() -> None:
    """The header of a request that takes from all of 300 lanes would be too long: it takes from 256."""
    core, _ = make_session(partitions=300, max_in_flight=1, max_batch_records=1_000)
    for lane in core.layout.lanes.all():
        if lane.number is not None:
            core.open(lane, NewRecord(b"x", None, partition_id(lane.number)), 1, 0.0)
    assert len(lanes_of(ship(core))) == MAX_LANES


def test_nothing_new_leaves_while_the_layout_changes() -> None:
    """Frozen, a lane sends what is in doubt, and nothing else, so that it is known before its keys go elsewhere."""
    core, service = make_session(max_batch_records=2)
    for i in range(5):
        add(core, NewRecord(b"%d" % i, "a"))
    core.answers.lost(ship(core), CUT, 0.0)
    core.layout.frozen = True
    assert core.layout.in_doubt
    assert core.picker.next_wake(core.layout.lanes.groups[0]) is not None
    again = ship(core, now=10.0)
    assert again.count == 2
    answer(core, service, again, {}, 10.0)
    assert not bool(core.layout.in_doubt)
    assert core.picker.next_wake(core.layout.lanes.groups[0]) is None
    assert core.picker.take(core.layout.lanes.groups[0], 20.0) is None


def test_a_layout_with_holes_has_no_sessions() -> None:
    """Where no partition owns a key, its place cannot be predicted: requests go without numbers."""
    holey = layout(3)
    del holey[1]
    core = make(partitions=1)
    core.offer(True)
    assert bool(core.layout.sessions)
    core.relayout(holey)
    assert not bool(core.layout.sessions)


@pytest.mark.parametrize("options", [{"order": "none"}, {"sessions": False}])
def test_who_does_not_want_sessions_gets_none(options: dict[str, Any]) -> None:
    """Order "none" and sessions=False never number anything, whatever the endpoint offers."""
    core = make(**options)
    core.offer(True)
    assert not core.layout.sessions
    add(core, NewRecord(b"0", "a"))
    assert ship(core).session is None
