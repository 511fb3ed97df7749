"""Random histories of attempts, copies, scaling, throttling and refusals on the log that is the oracle.

The plan of a session is walked as the server's shell walks it; the log in memory never suspends, so nothing waits here.
"""

from __future__ import annotations

import json
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.engine import Columns, Entry, PartitionRef, Replayed, Row, Writer
from disstream.engine.memory import MemoryEngine
from disstream.model import NewRecord
from disstream.server.admission import Admission
from disstream.server.config import ServerConfig
from disstream.server.documents import PartitionDoc
from disstream.server.flow import Pace
from disstream.server.layout import Layout
from disstream.server.sessions import Refusals, SessionPlan
from disstream.wire.errors import api_error
from disstream.wire.partitioning import HashRouter, hash_key, hash_ranges, partition_number
from disstream.wire.sessions import FENCED, GAP, MOVED, Session, SessionLane

P = "0123456789abcdef" * 2
COUNTS = (2, 3, 4)
CONFIG = ServerConfig(data_dir=None)

T = TypeVar("T")


def at_once(call: Coroutine[Any, Any, T]) -> T:
    try:
        call.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise AssertionError("the memory engine waited")


def keys_of(partition: int) -> list[str]:
    """Keys that belong to the partition in one layout or more, those that do in all of them first."""
    routers = [HashRouter(enumerate(hash_ranges(count))) for count in COUNTS]
    owned = {k: [r.owner(hash_key(k)) for r in routers].count(partition) for k in map(str, range(60))}
    return sorted((k for k, count in owned.items() if count), key=lambda k: -owned[k])[:6]


KEYS = [keys_of(partition) for partition in range(4)]


def as_columns(records: list[NewRecord]) -> Columns:
    """As they come out of a body of columns."""
    data = memoryview(b"".join(record.data for record in records))
    return Columns([record.key for record in records], [len(record.data) for record in records], None, data)


@dataclass
class World:
    """A stream whose layout changes, and what was told of each record."""

    pace: Pace | None
    admission: Admission
    refusals: Refusals = field(default_factory=Refusals)
    epoch: int = 0
    refused: dict[tuple[int, int, int], int] = field(default_factory=dict)
    """Record -> the last request that was told it is not stored"""
    now: float = 1.0

    def __post_init__(self) -> None:
        self.engine = MemoryEngine()
        at_once(self.engine.start())
        self.layout = self.behind = self.scaled(2)

    def scaled(self, count: int) -> Layout:
        """A new layout in force; the one before may still be what somebody looked up."""
        self.epoch += 1
        at_once(self.engine.log.open({PartitionRef("id", number): self.epoch for number in range(4)}))
        docs = [PartitionDoc(n, self.epoch, r.low, r.high) for n, r in enumerate(hash_ranges(count))]
        self.behind = getattr(self, "layout", None) or Layout(docs, CONFIG)
        self.layout = Layout(docs, CONFIG)
        return self.layout

    def stored(self) -> dict[tuple[int, int, int], tuple[int, int]]:
        """(lane, epoch, number) -> (partition, sequence number), each once and in order."""
        found: dict[tuple[int, int, int], tuple[int, int]] = {}
        for number in range(4):
            last: dict[int, int] = {}
            for batch in at_once(self.engine.log.read(PartitionRef("id", number), 0, 1 << 40)):
                for sequence, row in enumerate(batch.rows, batch.first_sequence):
                    lane, epoch, place = map(int, row.data.decode().split("."))
                    assert lane == number, "nothing is stored where it was not expected"
                    assert place == last.get(epoch, -1) + 1, "each once, in order, without a gap"
                    assert epoch == max(last, default=epoch) or epoch > max(last), "no older epoch after a newer one"
                    last[epoch] = place
                    found[lane, epoch, place] = (number, sequence)
        return found

    def attempt(self, session: Session, stale: bool) -> None:
        identities = [
            (lane.partition, lane.epoch, lane.number + i) for lane in session.lanes for i in range(lane.records)
        ]
        records = [
            NewRecord(b"%d.%d.%d" % (p, epoch, n), KEYS[p][(n // 2 + epoch) % len(KEYS[p])])
            for p, epoch, n in identities
        ]
        before = self.stored()
        plan = SessionPlan(session, as_columns(records) if session.request % 2 else records, "id", self.refusals)
        throttled = self.walk(plan, self.behind if stale else self.layout)
        after = self.stored()
        new = after.keys() - before.keys()
        assert sum(count for count, _ in plan.stored.values()) == len(new)
        assert not throttled or plan.throttled or self.admission.pending_bytes == 0
        for identity in new:
            assert session.request > self.refused.get(identity, -1), "what was refused stays refused"
        self.told(session, identities, json.loads(plan.answer()), after)

    def walk(self, plan: SessionPlan, layout: Layout) -> bool:
        throttled = False
        for again in (False, True):
            known = at_once(self.engine.log.recall(plan.asked(), 1000))
            put = plan.round(layout, known)
            plan.check()
            if put is None:
                break
            if self.pace is not None:
                put.pace(self.pace, "id", self.now)
            put.admit(self.admission)
            put.check()
            throttled = throttled or bool(put.failures)
            entries = put.entries("id")
            results = at_once(self.engine.log.append(entries, 1000)) if entries else []
            put.settle(results)
            self.admission.release(put.weight)
            put.unpace(self.now)
            plan.settle(entries, results)
            plan.check()
            if plan.settled or again:
                break
            layout = self.layout
        plan.end(api_error("DIS.4303"))
        assert plan.settled
        plan.check()
        return throttled

    def told(
        self,
        session: Session,
        identities: list[tuple[int, int, int]],
        answer: Any,
        stored: dict[tuple[int, int, int], tuple[int, int]],
    ) -> None:
        failed: dict[int, str] = {}
        assert len(answer["records"]) == len(identities)
        for identity, told in zip(identities, answer["records"], strict=True):
            lane = identity[0]
            if "error_code" not in told:
                assert lane not in failed, "the suffix rule"
                place = partition_number(told["partition_id"]), int(told["sequence_number"])
                assert place in (stored[identity], (lane, -1))
                continue
            code = failed[lane] = told["error_code"]
            assert code in (GAP, FENCED, MOVED, "DIS.4303")
            assert identity not in stored or (
                code == FENCED and max(e for p, e, _ in stored if p == lane) > identity[1]
            )
            self.refused[identity] = max(session.request, self.refused.get(identity, -1))
        assert answer["failed_record_count"] == sum("error_code" in told for told in answer["records"])


lanes = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(-3, 1), st.integers(1, 4)),
    min_size=1,
    max_size=4,
    unique_by=lambda lane: lane[0],
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("attempt"), lanes, st.booleans()),
        st.tuples(st.just("copy"), st.integers(1, 5), st.booleans()),
        st.tuples(st.just("scale"), st.sampled_from(COUNTS), st.none()),
        st.tuples(st.just("time"), st.floats(0.1, 3), st.none()),
    ),
    max_size=30,
)
paces = st.none() | st.builds(Pace, st.none(), st.integers(1, 9), st.none())


@given(steps=steps, pace=paces, limit=st.integers(300, 3000))
def test_whatever_comes(steps: list[tuple[str, Any, Any]], pace: Pace | None, limit: int) -> None:
    """Each record is stored at most once and in order, places are true, and what was refused is stored by later
    attempts only.
    """
    world = World(pace, Admission(limit))
    sent: list[Session] = []
    epochs = dict.fromkeys(range(4), 0)
    for request, (kind, what, stale) in enumerate(steps):
        if kind == "scale":
            world.scaled(what)
        elif kind == "time":
            world.now += what
        elif kind == "copy":
            if len(sent) >= what:
                world.attempt(sent[-what], stale)
        else:
            stored = world.stored()
            told = []
            for partition, newer, ahead, records in what:
                epoch = epochs[partition] = epochs[partition] + (newer and ahead == 1)
                following = sum((p, e) == (partition, epoch) for p, e, _ in stored)
                told.append(SessionLane(partition, epoch, max(0, following + ahead), records))
            sent.append(Session(P, request, tuple(told)))
            world.attempt(sent[-1], stale)


def test_it_is_no_trivial_history() -> None:
    """The walk above meets every end there is."""
    world = World(None, Admission(700))
    world.attempt(Session(P, 1, (SessionLane(0, 0, 0, 3),)), stale=False)
    assert len(world.stored()) == 3
    world.attempt(Session(P, 2, (SessionLane(0, 0, 1, 9),)), stale=False)
    assert 3 < len(world.stored()) < 10
    world.scaled(4)
    world.attempt(Session(P, 3, (SessionLane(0, 0, 0, 10),)), stale=True)
    world.attempt(Session(P, 4, (SessionLane(3, 0, 0, 1),)), stale=False)
    assert (3, 0, 0) in world.stored()
    world.scaled(2)
    world.attempt(Session(P, 5, (SessionLane(3, 0, 0, 2),)), stale=False)
    assert world.refused[3, 0, 1] == 5
    (known,) = at_once(world.engine.log.recall([(PartitionRef("id", 3), Writer(P, 0, 0, 9), 2)], 1000))
    assert known.rows == 1


@pytest.mark.parametrize(("request_number", "records", "refused"), [(2, 3, None), (1, 3, FENCED), (1, 2, None)])
def test_stored_between_recall_and_append(request_number: int, records: int, refused: str | None) -> None:
    """An attempt that gets in between is no harm: what it stored is told as its own, and only the rest is counted."""
    world = World(None, Admission(10_000))
    log = world.engine.log
    sent = [NewRecord(b"%d" % n * 5, KEYS[0][0]) for n in range(records)]
    plan = SessionPlan(Session(P, request_number, (SessionLane(0, 0, 0, records),)), sent, "id", world.refusals)
    put = plan.round(world.layout, at_once(log.recall(plan.asked(), 1000)))
    assert put is not None
    between = Entry(PartitionRef("id", 0), [Row(b"00000"), Row(b"11111")], world.epoch, Writer(P, 0, 0, 1))
    at_once(log.append([between], 1000))
    entries = put.entries("id")
    results = at_once(log.append(entries, 1000))
    assert isinstance(results[0], Replayed)
    put.settle(results)
    plan.settle(entries, results)
    plan.end(api_error("DIS.4303"))
    plan.check()
    told = json.loads(plan.answer())["records"]
    assert [entry.get("sequence_number") for entry in told] == ["0", "1", None if refused else "2"][:records]
    assert told[-1].get("error_code") == refused
    assert plan.stored == ({0: (1, 5)} if records == 3 and not refused else {})
