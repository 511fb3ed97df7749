"""The meter counts what happened, once, wherever the counts are; against a plain list of what happened."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.engine import PartitionRef
from disstream.model import PARTITION_METRICS, STREAM_METRICS
from disstream.server.meter import (
    MAX_OPEN_MINUTES,
    PARTITION_VALUES,
    RECENT_MINUTES,
    STREAM_VALUES,
    Counts,
    Meter,
    Minutes,
    by_hour,
    merge,
    read_hour,
    read_minute,
    with_minutes,
)

MINUTE = 60_000
START = 472_222 * 60 * MINUTE  # the beginning of an hour
STREAMS = ("s", "t")


class Event(NamedTuple):
    """`stored`: partition -> (records, bytes); empty for what was refused by flow control."""

    kind: str
    stream: str
    minute: int
    stored: dict[int, tuple[int, int]]
    took_ms: int = 0
    throttled: bool = False


class World:
    """A meter, a catalog in a dict, and the events that must be in one of them."""

    def __init__(self) -> None:
        self.now = START
        self.catalog: dict[tuple[str, int], bytes] = {}
        self.events: list[Event] = []
        self.stored_events = 0
        self.start(self.now - MINUTE)

    def start(self, at_ms: int) -> None:
        self.meter = Meter()
        self.meter.written("s", 1, at_ms)
        self.met = at_ms // MINUTE

    def happen(self, event: Event) -> None:
        if event.kind == "put":
            self.meter.put(event.stream, event.stored, event.took_ms / 1000, self.now, throttled=event.throttled)
        elif event.stored:
            ((number, (records, size)),) = event.stored.items()
            self.meter.get(PartitionRef(event.stream, number), records, size, event.took_ms / 1000, self.now)
        else:
            self.meter.get_throttled(event.stream, self.now)
        self.events.append(event)

    def flush(self, *, conflicts: int = 0, during: Iterable[Event] = ()) -> None:
        for stream in self.meter.waiting():
            for left in range(conflicts, -1, -1):
                hours = self.meter.hours(stream)
                stored = {
                    (stream, hour): with_minutes(self.catalog.get((stream, hour)), minutes)
                    for hour, minutes in by_hour(self.meter.seal(stream, hours)).items()
                }
                for event in during:
                    self.happen(event)
                self.check()
                if left:
                    self.meter.unseal(stream)
                else:
                    self.catalog |= stored
                    self.meter.settle(stream)
            self.check()
        if not during:
            self.stored_events = len(self.events)

    def crash(self) -> None:
        """What was not stored is gone."""
        del self.events[self.stored_events :]
        self.start(self.now)

    def delete(self, stream: str) -> None:
        self.meter.forget(stream)
        self.catalog = {key: value for key, value in self.catalog.items() if key[0] != stream}
        kept = [event for event in self.events[: self.stored_events] if event.stream != stream]
        self.events = kept + [event for event in self.events[self.stored_events :] if event.stream != stream]
        self.stored_events = len(kept)

    def seen(self, stream: str) -> Minutes:
        """What an answer would be made of."""
        found = self.meter.unstored(stream)
        for (owner, hour), value in self.catalog.items():
            if owner == stream:
                merge(found, {60 * hour + minute: read_minute(raw) for minute, raw in read_hour(value).items()})
        return found

    def check(self) -> None:
        self.meter.check()
        for stream in STREAMS:
            assert self.seen(stream) == expected(event for event in self.events if event.stream == stream)
        now = self.now // MINUTE
        for stream in STREAMS:
            for minutes in (1, 5, RECENT_MINUTES):
                wanted = [
                    tuple(
                        sum(stored[i] for e in self.puts(stream, minute) for stored in e.stored.values())
                        for i in (0, 1)
                    )
                    for minute in range(max(now - minutes, self.met + 1), now)
                ]
                assert self.meter.written(stream, minutes, self.now) == wanted

    def puts(self, stream: str, minute: int) -> list[Event]:
        return [e for e in self.events if e.kind == "put" and (e.stream, e.minute) == (stream, minute)]


def expected(events: Iterable[Event]) -> Minutes:
    found: Minutes = {}
    for event in events:
        put = event.kind == "put"
        if put and not event.stored and not event.throttled:
            continue  # it failed
        counts = found.setdefault(event.minute, Counts())
        counts.throttled_puts += put and event.throttled
        counts.throttled_gets += not put and not event.stored
        if event.stored:
            counts.puts += put
            counts.gets += not put
            counts.put_us += 1000 * event.took_ms * put
            counts.get_us += 1000 * event.took_ms * (not put)
        for number, (records, size) in event.stored.items():
            traffic = counts.partition(number)
            traffic.put_records += records * put
            traffic.put_bytes += size * put
            traffic.get_records += records * (not put)
            traffic.get_bytes += size * (not put)
    return found


PARTS = st.dictionaries(st.integers(0, 2), st.tuples(st.integers(1, 9), st.integers(0, 99)), max_size=3)
ONE = st.dictionaries(st.integers(0, 2), st.tuples(st.integers(0, 9), st.integers(0, 99)), max_size=1)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(STREAMS), PARTS, st.integers(0, 30), st.booleans()),
        st.tuples(st.just("get"), st.sampled_from(STREAMS), ONE, st.integers(0, 30), st.just(False)),
        st.tuples(st.just("pass"), st.sampled_from([1, 30_000, MINUTE, 7 * MINUTE, 14 * MINUTE, 50 * MINUTE])),
        st.tuples(st.just("flush"), st.integers(0, 2)),
        st.tuples(st.just("race"), st.sampled_from(STREAMS), PARTS),
        st.tuples(st.just("crash")),
        st.tuples(st.just("delete"), st.sampled_from(STREAMS)),
        st.tuples(st.just("idle")),
    ),
    max_size=25,
)


@given(STEPS)
def test_everything_is_counted_once(steps: list[tuple[object, ...]]) -> None:
    """Flushed, in conflict, restarted, over ends of minutes and hours, deleted: stored and not yet stored is all."""
    world = World()
    for step in steps:
        match step:
            case (("put" | "get") as kind, str(stream), dict(stored), int(took_ms), bool(throttled)):
                world.happen(Event(str(kind), stream, world.now // MINUTE, stored, took_ms, throttled))
            case ("pass", int(ms)):
                world.flush()  # minute by minute, as the server does
                world.now += ms
            case ("flush", int(conflicts)):
                world.flush(conflicts=conflicts)
            case ("race", str(stream), dict(stored)):
                world.flush(during=[Event("put", stream, world.now // MINUTE, stored)])
                world.flush()
            case ("crash",):
                world.crash()
            case ("delete", str(stream)):
                world.delete(stream)
            case ("idle",):
                world.meter.forget_idle(world.now)
        world.check()


def test_an_hour_that_nobody_looked_at_is_not_taken() -> None:
    """What was counted in another hour than those that are on their way stays open."""
    meter = Meter()
    meter.put("s", {0: (1, 1)}, 0.0, START - 1)
    hours = meter.hours("s")
    meter.put("s", {0: (2, 2)}, 0.0, START)
    assert list(meter.seal("s", hours)) == [START // MINUTE - 1]
    meter.settle("s")
    assert list(meter.unstored("s")) == [START // MINUTE]


def test_only_the_minutes_that_are_added_to_are_read() -> None:
    """The others of a stored hour stay as they are, to the byte: an hour may be large."""
    hour = with_minutes(None, {0: Counts(puts=1), 1: Counts(puts=2)})
    foreign = hour.replace(hour[2:10], b"\xa6opaque", 1)
    grown = with_minutes(foreign, {1: Counts(puts=5), 2: Counts(gets=1)})
    told = read_hour(grown)
    assert bytes(told.pop(0)) == b"\xa6opaque"
    assert {minute: read_minute(raw) for minute, raw in told.items()} == {1: Counts(puts=7), 2: Counts(gets=1)}


def test_labels_are_those_of_the_documents() -> None:
    """What can be told is what can be asked for."""
    assert tuple(STREAM_VALUES) == STREAM_METRICS
    assert tuple(PARTITION_VALUES) == PARTITION_METRICS


def test_values() -> None:
    """Sums over the partitions, averages of the successful requests in whole milliseconds, none without requests."""
    meter = Meter()
    meter.put("s", {0: (2, 10), 7: (1, 5)}, 0.0014, START)
    meter.put("s", {0: (1, 1)}, 0.0044, START, throttled=True)
    meter.put("s", {}, 9.0, START, throttled=True)
    meter.put("s", {}, 9.0, START)
    meter.get_throttled("s", START)
    (counts,) = meter.unstored("s").values()
    assert {label: value(counts) for label, value in STREAM_VALUES.items()} == {
        "total_put_bytes_per_stream": 16,
        "total_get_bytes_per_stream": 0,
        "total_put_records_per_stream": 4,
        "total_get_records_per_stream": 0,
        "total_put_req_latency": 3,
        "total_get_req_latency": None,
        "total_put_req_suc_per_stream": 2,
        "total_get_req_suc_per_stream": 0,
        "traffic_control_put": 2,
        "traffic_control_get": 1,
    }
    assert [value(counts.partitions[7]) for value in PARTITION_VALUES.values()] == [5, 0, 1, 0]


def test_what_cannot_be_stored_is_bounded() -> None:
    """A stream keeps an hour, the last one, also of what comes back from a flush; then memory takes no more."""
    meter = Meter()
    for minute in range(2 * MAX_OPEN_MINUTES):
        meter.put("s", {0: (1, 1)}, 0.0, START + minute * MINUTE)
        if minute == MAX_OPEN_MINUTES:
            meter.seal("s", meter.hours("s"))
        meter.check()
    meter.unseal("s")
    meter.check()
    first = START // MINUTE + MAX_OPEN_MINUTES
    assert sorted(meter.unstored("s")) == list(range(first, first + MAX_OPEN_MINUTES))


@pytest.mark.parametrize("ahead", [False, True])
def test_streams_without_traffic_are_forgotten(ahead: bool) -> None:
    """15 minutes after its last stored minute nothing is left of a stream, also if the clock was ahead then."""
    meter = Meter()
    meter.put("s", {0: (1, 1)}, 0.0, START)
    meter.forget_idle(START)
    assert meter.streams() == {"s"}
    meter.seal("s", meter.hours("s"))
    meter.settle("s")
    sign = -1 if ahead else 1
    meter.forget_idle(START + sign * RECENT_MINUTES * MINUTE)
    assert meter.streams() == {"s"}
    meter.forget_idle(START + sign * (RECENT_MINUTES + 1) * MINUTE)
    assert meter.streams() == set()


def test_written_knows_what_it_does_not_know() -> None:
    """Minutes that began before the meter did are left out; those without traffic are zeros."""
    meter = Meter()
    assert meter.written("s", 5, START + 30_000) == []
    assert meter.written("s", 5, START + MINUTE) == []
    meter.put("s", {0: (3, 30), 1: (1, 5)}, 0.0, START + MINUTE)
    assert meter.written("s", 5, START + 2 * MINUTE) == [(4, 35)]
    assert meter.written("s", 5, START + 4 * MINUTE) == [(4, 35), (0, 0), (0, 0)]
    assert meter.written("s", 2, START + 4 * MINUTE) == [(0, 0), (0, 0)]
    assert len(meter.written("s", 99, START + 99 * MINUTE)) == RECENT_MINUTES


def test_a_minute_is_written_in_parts() -> None:
    """A minute that was stored twice, and has something on its way and something open, is the sum of all that."""
    meter = Meter()
    meter.written("s", 1, START - 1)
    for settled in (True, True, False):
        meter.put("s", {0: (1, 10)}, 0.0, START)
        meter.seal("s", meter.hours("s"))
        if settled:
            meter.settle("s")
    meter.put("s", {1: (1, 10)}, 0.0, START)
    assert meter.written("s", 1, START + MINUTE) == [(4, 40)]


def test_minutes_of_refused_puts() -> None:
    """It is known of the last minutes whether each saw a put refused, stored or not; and forgotten as traffic is."""
    meter = Meter()
    for minute in (0, 1, 3):
        meter.put("s", {0: (1, 1)}, 0.0, START + minute * MINUTE, throttled=True)
    meter.put("s", {0: (1, 1)}, 0.0, START + 2 * MINUTE)
    assert [meter.throttled("s", 2, START + minute * MINUTE) for minute in range(1, 5)] == [False, True, False, False]
    assert meter.throttled("s", 1, START + 4 * MINUTE)
    assert not meter.throttled("t", 1, START + 4 * MINUTE)
    meter.forget_idle(START + (RECENT_MINUTES + 4) * MINUTE)
    assert not meter.throttled("s", 1, START + 4 * MINUTE)
    meter.put("s", {}, 0.0, START, throttled=True)
    meter.forget("s")
    assert not meter.throttled("s", 1, START + MINUTE)
