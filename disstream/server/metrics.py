"""Metrics of streams and partitions (API 5.6): the shell around meter.py.

What was counted goes into the catalog once a minute, one document for each stream and hour, added to what is there by
compare and set. The transaction also expects the stream's own document: when a stream is deleted what was stored goes
with it, and nothing can be stored behind that. A server that dies loses what it counted since the last time, at most
a minute; one that is closed loses nothing. If the engine cannot tell whether it stored something, it is taken as
stored: counts may lack then, but never count twice.

An answer adds what is stored and what is not yet. Nobody stores while it looks at the hours that both may have.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TypeVar

import anyio
import anyio.lowlevel
import msgspec

from .. import clock
from ..engine import Engine
from ..errors import CatalogConflict, OutcomeUnknown, StorageError
from ..model import DataPoint, Metric
from ..wire.errors import api_error
from ..wire.http import Response, json_response
from ..wire.metrics import (
    LENIENCE_S,
    PERIOD_S,
    MetricsQuery,
    encode_partition_metrics,
    encode_stream_metrics,
    parse_metrics_query,
)
from ..wire.partitioning import partition_id, partition_number
from .call import Call
from .directory import Directory, Stream
from .documents import STREAMS, TRAFFIC, traffic_key, traffic_of
from .meter import (
    PARTITION_VALUES,
    STREAM_VALUES,
    Counts,
    Meter,
    Minutes,
    Traffic,
    by_hour,
    read_hour,
    read_minute,
    with_minutes,
)

T = TypeVar("T", Counts, Traffic)

logger = logging.getLogger("disstream.server")

INTERVAL_S = 60.0
"""What a crash may lose."""

SWEEP_INTERVAL_S = 3_600.0

_HOURS_AT_ONCE = 8
"""Stored hours in one look into the catalog: one of a stream with a thousand busy partitions takes most of a MB."""

_STREAMS_AT_ONCE = 200
"""In one look for those that have something to be stored."""

_LOOKS = 4
"""Answers that look into stored hours at the same time."""

_LARGE_BYTES = 1_024
"""Of a stored minute: after such a one others have their turn."""

_BEHIND = "~"
"""Sorts behind every character of an hour in a key."""


class _Id(msgspec.Struct):
    stream_id: str


_decode_id = msgspec.json.Decoder(_Id).decode


class Metrics:
    def __init__(self, engine: Engine, directory: Directory, meter: Meter) -> None:
        self._catalog = engine.catalog
        self._directory = directory
        self._meter = meter
        self._storing = anyio.Lock()
        self._looking = anyio.CapacityLimiter(_LOOKS)
        self._keys: dict[str, str] = {}
        """Stream id -> the key of its document, of the streams that the meter knows. A stream never changes its key."""

    # --- storing --------------------------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Store what was counted, minute by minute, and delete what is too old, until cancelled."""
        swept = -SWEEP_INTERVAL_S
        while True:
            await anyio.sleep(INTERVAL_S)
            await self.flush()
            now = anyio.current_time()
            if now - swept >= SWEEP_INTERVAL_S:
                swept = now
                try:
                    await self.sweep()
                except StorageError as exc:
                    logger.error("old metrics could not be deleted: %s", exc)

    async def flush(self) -> None:
        """Store what was counted up to now. A failure of the engine is logged; what is left is kept for the next time.

        Cancellation: between two streams, with nothing in doubt.
        """
        waiting = self._meter.waiting()
        try:
            await self._find_keys(waiting)
            for stream_id in waiting:
                await self._store(stream_id)
        except StorageError as exc:
            logger.error("metrics could not be stored: %s", exc)
        self._meter.forget_idle(clock.wall_ms())
        known = self._meter.streams()
        self._keys = {stream_id: key for stream_id, key in self._keys.items() if stream_id in known}

    async def _find_keys(self, stream_ids: list[str]) -> None:
        wanted = set(stream_ids) - self._keys.keys()
        if not wanted:
            return
        after = ""
        while wanted and (page := await self._catalog.scan(STREAMS, after, _STREAMS_AT_ONCE)):
            for key, stored in page:
                stream_id = _decode_id(stored.value).stream_id
                if stream_id in wanted:
                    self._keys[stream_id] = key
                    wanted.discard(stream_id)
            after = page[-1][0]
            await anyio.lowlevel.checkpoint()

    async def _store(self, stream_id: str) -> None:
        while True:
            async with self._storing:
                try:
                    await self._store_once(stream_id)
                except CatalogConflict:
                    pass  # somebody changed the stream, or counted on the same hour, since: look again
                else:
                    return
            await anyio.lowlevel.checkpoint()

    async def _store_once(self, stream_id: str) -> None:
        key = self._keys.get(stream_id)
        stream = await self._catalog.get(key) if key else None
        if key is None or stream is None or _decode_id(stream.value).stream_id != stream_id:
            self._meter.forget(stream_id)
            return
        expect = {key: stream.version}
        stored: dict[int, bytes | None] = {}
        for hour in self._meter.hours(stream_id):
            name = traffic_key(stream_id, hour)
            known = await self._catalog.get(name)
            expect[name] = known.version if known else 0
            stored[hour] = known.value if known else None
        # Counting goes on meanwhile; an hour that has begun since was not looked at, and waits for the next time.
        sealed = by_hour(self._meter.seal(stream_id, stored.keys()))
        put = {traffic_key(stream_id, hour): with_minutes(stored[hour], minutes) for hour, minutes in sealed.items()}
        try:
            with anyio.CancelScope(shield=True):  # or nobody would know whether it was stored
                await self._catalog.transact(expect, put)
        except OutcomeUnknown:
            raise
        except StorageError:
            self._meter.unseal(stream_id)
            raise
        finally:
            self._meter.settle(stream_id)

    async def sweep(self) -> None:
        """Delete what nobody can ask for any more."""
        first = int(clock.wall() - PERIOD_S - LENIENCE_S) // 3600
        after = ""
        while page := await self._catalog.scan(TRAFFIC, after, 1):
            stream_id = page[0][0].removeprefix(TRAFFIC).partition("/")[0]
            prefix, kept = traffic_of(stream_id), traffic_key(stream_id, first)
            while old := [key for key, _ in await self._catalog.scan(prefix, "", _HOURS_AT_ONCE) if key < kept]:
                await self._catalog.transact({}, {}, old)
            after = prefix + _BEHIND
            await anyio.lowlevel.checkpoint()

    # --- answering ------------------------------------------------------------------------------------------------

    async def of_stream(self, call: Call) -> Response:
        query = parse_metrics_query(call.query, STREAM_VALUES, int(clock.wall()))
        stream = await self._find(call)
        found = await self._points(stream.doc.stream_id, query, STREAM_VALUES, lambda counts: counts)
        return json_response(encode_stream_metrics(found, listed=query.listed))

    async def of_partition(self, call: Call) -> Response:
        """Of every partition that the stream's document names, also one that is written no more."""
        query = parse_metrics_query(call.query, PARTITION_VALUES, int(clock.wall()))
        number = partition_number(call.params["partition_id"])
        stream = await self._find(call)
        if stream.doc.partition(number) is None:
            raise api_error("DIS.4302", f"[{partition_id(number)}]")
        found = await self._points(
            stream.doc.stream_id, query, PARTITION_VALUES, lambda counts: counts.partitions.get(number)
        )
        return json_response(encode_partition_metrics(found, listed=query.listed))

    async def _find(self, call: Call) -> Stream:
        return await self._directory.find(call.project, *call.stream)

    async def _points(
        self,
        stream_id: str,
        query: MetricsQuery,
        values: Mapping[str, Callable[[T], int | None]],
        part: Callable[[Counts], T | None],
    ) -> list[Metric]:
        """What each label tells of the minutes of the period in which there was something to count."""
        points: dict[str, dict[int, int]] = {label: {} for label in query.labels}

        def collect(second: int, counts: Counts) -> None:
            if query.start_s <= second <= query.end_s and (counted := part(counts)) is not None:
                for label, told in points.items():
                    value = values[label](counted)
                    if value is not None:
                        told[second] = value

        async def collect_stored(hour: int, stored: bytes, live: Minutes) -> None:
            """Add to the live minutes what is stored of them; what is stored of others is told."""
            for minute, encoded in read_hour(stored).items():
                second = 3600 * hour + 60 * minute
                if not query.start_s <= second <= query.end_s:
                    continue
                if minute in live:
                    live[minute].add(read_minute(encoded))
                else:
                    collect(second, read_minute(encoded))
                if len(encoded) >= _LARGE_BYTES:
                    await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()

        first, last = query.start_s // 3600, query.end_s // 3600
        async with self._looking:
            known: dict[int, bytes] = {}
            async with self._storing:
                live = by_hour(self._meter.unstored(stream_id))
                for hour in live:
                    if first <= hour <= last and (found := await self._catalog.get(traffic_key(stream_id, hour))):
                        known[hour] = found.value
            for hour, minutes in live.items():
                if hour in known:
                    await collect_stored(hour, known[hour], minutes)
                for minute, counts in minutes.items():
                    collect(3600 * hour + 60 * minute, counts)
            prefix = traffic_of(stream_id)
            after, end = traffic_key(stream_id, first - 1), traffic_key(stream_id, last)
            while page := await self._catalog.scan(prefix, after, _HOURS_AT_ONCE):
                for key, stored in page:
                    if key > end:
                        break
                    hour = int(key.removeprefix(prefix))
                    if hour not in live:
                        await collect_stored(hour, stored.value, {})
                after = page[-1][0]
                if after >= end:
                    break
        return [
            Metric(label=label, points=tuple(DataPoint(*point) for point in sorted(told.items())))
            for label, told in points.items()
        ]
