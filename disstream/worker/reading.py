"""Dead letters read: all there are at one moment, in the order they were written; and marks written beside them.

Both kinds of a place for letters look alike from here: `box`, then `look()` for the moment, `reading()` any number of
times, and `settle` for marks. Marks of a stream are records in it; they are younger than the letters they speak of, so
they outlive them. Marks of a file are lines of another file, PATH.settled: the worker that writes the letters holds the
lock of the first, and may go on.
"""

from __future__ import annotations

import contextlib
import heapq
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, NamedTuple, Protocol

import anyio
from anyio import to_thread

from .. import clock
from ..client import Client
from ..door import DisClient
from ..errors import ConfigError, CursorExpired, SequenceOutOfRange, WaitTimeout
from ..model import Cursor, Record
from ..producer import Producer, ProducerConfig
from .deadletters import locked, to_target
from .letters import Identity, Letter, Mark, decode_letter, encode_mark, read_line

LINES_AT_ONCE = 500

MAX_LINE_BYTES = 16 * 1024 * 1024
"""More than any letter needs: 1 MiB of control characters is escaped to 6 MiB."""

EMPTY_PAUSE_S = 0.2
"""After a page without records, where there should be some."""

PATIENCE_S = 30.0
"""How long a partition may give nothing although it says that it holds something."""


class Foreign(NamedTuple):
    """What is neither letter nor mark, where it stands and why."""

    place: str
    reason: str


Found = Letter | Mark | Foreign


class Reading(Protocol):
    async def next(self) -> Found | None:
        """None: the end, as it was at the `look`."""


class Box(Protocol):
    """A place for dead letters, from the side of those who read them."""

    name: str

    async def open(self, *, settles: bool) -> None:
        """`settles`: marks will be written. Raises ConfigError, NotFoundError: it is not there."""

    async def look(self) -> None:
        """From now on readings end at what is there now."""

    def reading(self) -> Reading:
        """From the first letter on."""

    async def settle(self, letters: Sequence[Identity], *, discarded: bool) -> None:
        """Write a mark; it is safe when this returns. Raises DisError, OSError."""

    async def close(self) -> None: ...


def box(dis: DisClient, target: str) -> Box:
    """`target` as `dead_letters` takes it. Raises ConfigError."""
    kind, place = to_target(target)
    return StreamBox(dis, place) if kind == "stream" else FileBox(place)


# --- a stream ----------------------------------------------------------------------------------------------------


class StreamBox:
    def __init__(self, dis: DisClient, stream: str) -> None:
        self.name = f"stream:{stream}"
        self._dis = dis
        self._stream = stream
        self._ends: dict[str, int] = {}
        self._marks: Producer | None = None

    async def open(self, *, settles: bool) -> None:
        if settles:
            self._marks = await self._dis.producer(self._stream, ProducerConfig(delivery_timeout_s=30.0)).start()
        else:
            await self._dis.streams.describe(self._stream)

    async def look(self) -> None:
        info = await self._dis.streams.describe(self._stream)
        self._ends = {
            p.partition_id: p.sequence_range.end
            for p in info.partitions
            if p.readable and p.sequence_range is not None and p.sequence_range.start < p.sequence_range.end
        }

    def reading(self) -> Reading:
        return _Merged([_Partition(self._dis, self._stream, name, end) for name, end in self._ends.items()])

    async def settle(self, letters: Sequence[Identity], *, discarded: bool) -> None:
        assert self._marks is not None, "opened without settles=True"
        await self._marks.send_and_wait(encode_mark(letters, clock.wall_ms(), discarded=discarded))

    async def close(self) -> None:
        if self._marks is not None:
            await self._marks.close()


class _Partition:
    """The records of one partition, from the oldest to an end."""

    def __init__(self, client: Client, stream: str, partition_id: str, end: int) -> None:
        self._client = client
        self._stream = stream
        self._partition_id = partition_id
        self._end = end
        self._following = 0
        self._cursor: Cursor | None = None
        self._page: deque[Record] = deque()

    async def next(self) -> Record | None:
        deadline: float | None = None
        while not self._page:
            if self._following >= self._end:
                return None
            self._page.extend(await self._fetch())
            if not self._page:
                if await self._is_gone():
                    return None
                now = anyio.current_time()
                deadline = deadline or now + PATIENCE_S
                if now >= deadline:
                    raise WaitTimeout(
                        f"{self._stream}/{self._partition_id} says that it ends at {self._end}, and gives nothing "
                        f"behind {self._following} for {PATIENCE_S:g} s"
                    )
                await anyio.sleep(EMPTY_PAUSE_S)
        record = self._page.popleft()
        self._following = record.sequence_number + 1
        return record if record.sequence_number < self._end else None

    async def _fetch(self) -> Sequence[Record]:
        try:
            if self._cursor is None:
                self._cursor = await self._open()
            page = await self._client.records.get(self._cursor)
        except (CursorExpired, SequenceOutOfRange):  # who sends slowly, or stops, is overtaken by either
            self._cursor = await self._open()
            page = await self._client.records.get(self._cursor)
        self._cursor = page.next_cursor
        return page.records

    async def _open(self) -> Cursor:
        cursors = self._client.cursors
        if self._following:
            with contextlib.suppress(SequenceOutOfRange):
                return await cursors.get(self._stream, self._partition_id, sequence_number=self._following)
        return await cursors.get(self._stream, self._partition_id, "TRIM_HORIZON")

    async def _is_gone(self) -> bool:
        """Whether retention took the rest."""
        info = await self._client.streams.describe(self._stream)
        ranges = {p.partition_id: p.sequence_range for p in info.partitions if p.readable}
        told = ranges.get(self._partition_id)
        return told is None or told.start >= self._end


class _Merged:
    """Partitions as one, by the time each record was written.

    Within a partition the order is kept, whatever the times say. Across them it matters after the stream was scaled:
    letters of a key then lie in two partitions, the older ones in the one where it was before.
    """

    def __init__(self, partitions: Sequence[_Partition]) -> None:
        self._partitions = partitions
        self._heads: list[tuple[int, int, Record]] = []
        self._begun = False

    async def next(self) -> Found | None:
        if not self._begun:
            for number in range(len(self._partitions)):
                await self._refill(number, 0)
            self._begun = True
        if not self._heads:
            return None
        time, number, record = heapq.heappop(self._heads)
        await self._refill(number, time)
        try:
            return decode_letter(record.data)
        except ConfigError as exc:
            return Foreign(f"{record.stream}/{record.partition_id} sequence number {record.sequence_number}", str(exc))

    async def _refill(self, number: int, time: int) -> None:
        record = await self._partitions[number].next()
        if record is not None:
            heapq.heappush(self._heads, (max(time, record.timestamp), number, record))


# --- a file ------------------------------------------------------------------------------------------------------


class FileBox:
    def __init__(self, path: str) -> None:
        self.name = f"file:{path}"
        self._path = path
        self._beside = path + ".settled"
        self._fd: int | None = None
        self._ends = (0, 0)

    async def open(self, *, settles: bool) -> None:
        def open_marks() -> int:
            return locked(self._beside, f"dead letters in {self.name!r}", "it ends by itself, then try again")

        if not await to_thread.run_sync(os.path.isfile, self._path):
            raise ConfigError(f"dead letters in {self.name!r}: there is no such file")
        if settles:
            self._fd = await to_thread.run_sync(open_marks)

    async def look(self) -> None:
        def sizes() -> tuple[int, int]:
            with contextlib.suppress(FileNotFoundError):
                return os.path.getsize(self._path), os.path.getsize(self._beside)
            return os.path.getsize(self._path), 0

        self._ends = await to_thread.run_sync(sizes)

    def reading(self) -> Reading:
        letters, marks = self._ends
        return _Lines(lambda: _read([(self._beside, marks), (self._path, letters)]))

    async def settle(self, letters: Sequence[Identity], *, discarded: bool) -> None:
        fd = self._fd
        assert fd is not None, "opened without settles=True"

        def append() -> None:
            size = os.fstat(fd).st_size
            text = encode_mark(letters, clock.wall_ms(), discarded=discarded) + b"\n"
            if size and os.pread(fd, 1, size - 1) != b"\n":
                text = b"\n" + text  # a crash cut the last mark: it spoils no other
            done = 0
            while done < len(text):
                done += os.pwrite(fd, text[done:], size + done)
            os.fsync(fd)

        await to_thread.run_sync(append)

    async def close(self) -> None:
        if self._fd is not None:
            await to_thread.run_sync(os.close, self._fd)
            self._fd = None


def _read(files: Sequence[tuple[str, int]]) -> Iterator[Found]:
    for path, end in files:
        if not end:
            continue
        with open(path, "rb") as file:
            yield from _of_file(file, path, end)


def _of_file(file: BinaryIO, path: str, end: int) -> Iterator[Found]:
    at = number = 0
    while at < end and (line := file.readline(MAX_LINE_BYTES)):
        at += len(line)
        number += 1
        if not line.endswith(b"\n") and at >= end:
            return  # being written, or cut by a crash
        if not line.strip():
            continue
        try:
            yield read_line(line)
        except ConfigError as exc:
            yield Foreign(f"{path} line {number}", str(exc))


class _Lines:
    """An iterator that blocks, read in a thread, some hundred items at once."""

    def __init__(self, begin: Callable[[], Iterator[Found]]) -> None:
        self._begin = begin
        self._items: Iterator[Found] | None = None
        self._ready: deque[Found] = deque()

    async def next(self) -> Found | None:
        if not self._ready:
            self._ready.extend(await to_thread.run_sync(self._take))
        return self._ready.popleft() if self._ready else None

    def _take(self) -> list[Found]:
        if self._items is None:
            self._items = self._begin()
        return [item for _, item in zip(range(LINES_AT_ONCE), self._items, strict=False)]
