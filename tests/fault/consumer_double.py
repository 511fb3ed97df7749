"""A service for consumers, in memory, with a knob for what can go wrong. No client, no server, no sockets."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import datetime

import anyio
import msgspec

from disstream import clock
from disstream.errors import DisError
from disstream.model import Cursor, Page, PartitionInfo, Record, SequenceRange, StreamInfo, StreamSummary
from disstream.wire.cursors import CursorState, CursorType, decode_cursor, encode_cursor
from disstream.wire.errors import api_error, sequence_out_of_range
from disstream.wire.pages import ColumnRecords, PageBatch, decode_page_columns, encode_page_columns
from disstream.wire.partitioning import partition_id, partition_number

CURSOR_LIFE_MS = 300_000


class DoubleService:
    """A stream "s". `fault(operation)` is asked before each request; what it returns is raised.

    `opaque`: cursors do not tell the stream they are of, and only know it by its name.
    """

    def __init__(
        self, partitions: int = 1, *, page_records: int = 10, latency_s: float = 0.001, opaque: bool = False
    ) -> None:
        self.ids = [partition_id(n) for n in range(partitions)]
        self.logs: dict[str, list[Record]] = {p: [] for p in self.ids}
        self.oldest = dict.fromkeys(self.ids, 0)
        self.page_records = page_records
        self.latency_s = latency_s
        self.opaque = opaque
        self.stream_id = "id-1"
        self.fault: Callable[[str], DisError | None] = lambda operation: None
        self.calls: Counter[str] = Counter()
        self.cursor_types: Counter[str] = Counter()
        self.hold: anyio.Event | None = None  # reads do not return before it is set
        self.reading: Counter[str] = Counter()
        self.streams = _Streams(self)
        self.cursors = _Cursors(self)
        self.records = _Records(self)

    def write(self, partition: int, count: int, size: int = 10) -> None:
        log = self.logs[self.ids[partition]]
        for _ in range(count):
            data = b"%0*d" % (size, len(log))
            log.append(Record(data, len(log), clock.wall_ms(), None, "s", self.ids[partition]))

    def recreate(self, counts: list[int]) -> None:
        """Delete the stream and create it again, with so many records in each partition."""
        self.stream_id += "-again"
        for number, count in enumerate(counts):
            self.logs[self.ids[number]].clear()
            self.oldest[self.ids[number]] = 0
            self.write(number, count)

    def cursor(self, partition: str, at: int) -> Cursor:
        state = CursorState("s", self.stream_id, partition_number(partition), at, clock.wall_ms())
        token = encode_cursor(state)
        return Cursor(token[::-1] if self.opaque else token, "s", partition)

    def trim(self, partition: int, oldest: int) -> None:
        self.oldest[self.ids[partition]] = oldest

    def bounds(self, partition: str) -> SequenceRange:
        return SequenceRange(self.oldest[partition], len(self.logs[partition]))

    async def enter(self, operation: str) -> None:
        self.calls[operation] += 1
        await anyio.sleep(self.latency_s)
        error = self.fault(operation)
        if error is not None:
            raise error


class _Streams:
    def __init__(self, service: DoubleService) -> None:
        self._service = service

    async def describe(self, name: str) -> StreamInfo:
        service = self._service
        await service.enter("describe")
        partitions = tuple(PartitionInfo(partition_id=p, sequence_range=service.bounds(p)) for p in service.ids)
        return StreamInfo(name=name, stream_id=service.stream_id, status="RUNNING", partitions=partitions)

    async def list(self) -> AsyncIterator[StreamSummary]:
        await self._service.enter("list")
        yield StreamSummary(name="s", stream_id=self._service.stream_id)


class _Cursors:
    def __init__(self, service: DoubleService) -> None:
        self._service = service

    async def get(
        self,
        stream: str,
        partition_id: str,
        cursor_type: CursorType = "AT_SEQUENCE_NUMBER",
        *,
        sequence_number: int | None = None,
        timestamp: int | datetime | None = None,
        stream_id: str | None = None,
    ) -> Cursor:
        service = self._service
        await service.enter("cursor")
        service.cursor_types[cursor_type] += 1
        bounds = service.bounds(partition_id)
        if cursor_type == "AT_SEQUENCE_NUMBER":
            assert sequence_number is not None
            if not bounds.start <= sequence_number <= bounds.end:
                raise sequence_out_of_range(sequence_number, *bounds)
            at = sequence_number
        elif cursor_type == "TRIM_HORIZON":
            at = bounds.start
        else:
            assert cursor_type == "AT_TIMESTAMP"
            assert isinstance(timestamp, int)
            log = service.logs[partition_id]
            at = next((n for n in range(*bounds) if log[n].timestamp >= timestamp), bounds.end)
        return service.cursor(partition_id, at)


class _Records:
    def __init__(self, service: DoubleService) -> None:
        self._service = service

    async def get(self, cursor: Cursor, *, max_bytes: int | None = None) -> Page:
        service = self._service
        state = decode_cursor(cursor[::-1] if service.opaque else cursor)
        partition = cursor.partition_id
        service.reading[partition] += 1
        assert service.reading[partition] == 1, "two reads of one partition at once"
        try:
            await service.enter("read")
            if not service.opaque and state.stream_id != service.stream_id:
                raise api_error("DIS.4301", "[s][p]")
            if clock.wall_ms() - state.issued_ms > CURSOR_LIFE_MS:
                raise api_error("DIS.4225", "")
            start = state.sequence
            if start < service.oldest[partition]:
                raise api_error("DIS.4226")
            records = service.logs[partition][start : start + service.page_records]
            if service.hold is not None:
                await service.hold.wait()
        finally:
            service.reading[partition] -= 1
        page = in_columns(records) if service.calls["read"] % 2 else records
        return Page(records=page, next_cursor=service.cursor(partition, start + len(records)))


def in_columns(records: list[Record]) -> ColumnRecords:
    """As they come in a page of columns."""
    sent = [
        PageBatch(r.sequence_number, r.timestamp, msgspec.msgpack.encode(([r.key], [len(r.data)], None)), r.data)
        for r in records
    ]
    place = (records[0].stream, records[0].partition_id) if records else ("", "")
    return decode_page_columns(encode_page_columns(sent, ""), *place)[0]
