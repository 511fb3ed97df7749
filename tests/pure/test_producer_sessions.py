"""Proves the producer's core in sessions: each record is stored once, in order, whatever is lost, late or repeated."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from disstream.errors import TransportError
from disstream.model import NewRecord
from disstream.producer.config import Order
from disstream.producer.numbers import Numbers, Run
from disstream.producer.outcome import Batch, Failure, Receipt
from disstream.producer.shipment import Part, Shipment
from disstream.wire.errors import api_error
from disstream.wire.partitioning import partition_id, partition_number
from disstream.wire.sessions import FENCED, GAP, MOVED, Session
from test_producer_accumulator import KEYS, AccumulatorMachine, Service, add, layout, make, ship


class Known(NamedTuple):
    """What a partition knows of the producer: the places of the records that are stored, and who stored last."""

    epoch: int
    places: list[int]
    request: int


class SessionService(Service):
    """A service that understands sessions, as the decision page tells it: one partition after another, by its numbers.

    Notes which record each number was sent for: no number may ever name two.
    """

    def __init__(self, partitions: int) -> None:
        super().__init__(partitions)
        self.known: dict[int, Known] = {}
        self.refused: dict[int, int] = {}
        self.named: dict[tuple[int, int, int], bytes] = {}

    def put_in_session(self, session: Session, rows: list[NewRecord], failing: dict[int, str]) -> bytes:
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
        self.log.append((row.key, row.data, partition, sequence))
        places = known.places if known is not None and known.epoch == epoch else []
        self.known[partition] = Known(epoch, [*places, sequence], request)
        results.append({"partition_id": partition_id(partition), "sequence_number": str(sequence)})
        return None

    def note(self, session: Session, rows: list[NewRecord]) -> None:
        row = iter(rows)
        for partition, epoch, number, count in session.lanes:
            for n in range(number, number + count):
                data = next(row).data
                assert self.named.setdefault((partition, epoch, n), data) == data, "a number names two records"

    def forget(self) -> None:
        """As after a day of silence, or a thousand other producers."""
        self.known.clear()


class SessionMachine(AccumulatorMachine):
    """As the machine it stands on; and copies of requests come late, however late."""

    service: SessionService

    def prepare(self, partitions: int) -> None:
        self.service = SessionService(partitions)
        self.core.offer(True)
        self.on_the_way: list[tuple[Session, list[NewRecord]]] = []
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
        if any(row.data == data for row in shipment.rows() for _, data, _, _ in self.service.log):
            failing = dict.fromkeys(range(shipment.count), "DIS.4303")
            self.core.stored(self._land(which), self.put(shipment, failing), self.now)
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

    @precondition(lambda self: not self.flying and self.core.stale)
    @rule()
    def relayout(self) -> None:
        """Only what is in doubt may go while the layout changes, until nothing is."""
        self.core.frozen = True
        while self.core.in_doubt:
            self.now += 1.0
            self.core.sweep(self.now)
            for group in self.core.lanes.groups:
                if (shipment := self.core.take(group, self.now)) is not None:
                    assert shipment.session is not None
                    assert all(part.attempts > 1 for _, part in shipment.parts)
                    self.asked.append(shipment.session.request)
                    self.core.stored(shipment, self.put(shipment, {}), self.now)
                    self.core.check()
        self.core.relayout(layout(self.service.partitions))
        self.core.frozen = False

    def check_order(self) -> None:
        stored = Counter(data for _, data, _, _ in self.service.log)
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


for _machine in (SessionMachine, StrictSessionMachine):
    _machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestSessions = SessionMachine.TestCase
TestStrictSessions = StrictSessionMachine.TestCase
