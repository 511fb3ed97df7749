"""The readers of a consumer: one task per partition, and the intake where they meet the task that takes.

A reader asks the service what its cursor wants next, one request at a time, and puts the records into the buffer. It
sleeps while it is paused, halted, without room, or idle, and is woken by whoever ends that; idle, by notices if there
are any (notices.py).

A notice may bring the page that begins where the reader stands. The reader then does as always, up to the request that
it would send: the answer is there already. Some may come while it does that, or while it asks, and are looked at when
it has done so. What it has no use for then it forgets, and asks when it can.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from random import Random
from types import TracebackType
from typing import Protocol

import anyio

from ..errors import CursorExpired, DisError, NotFoundError, ThrottledError
from ..lifecycle import Bell, loop_time
from ..model import Cursor, Page, Partition, SequenceRange, StreamInfo, StreamSummary
from ..wire.cursors import CursorType, decode_cursor
from ..wire.notices import Pushed
from ..wire.pages import number_of
from ..wire.partitioning import partition_id, partition_number
from .cursor import Describe, Obtain, PartitionCursor, Read, Wait, Where
from .hints import Hint, next_action, safety_s
from .prefetch import Prefetch

log = logging.getLogger("disstream.consumer")

MAX_PUSHED = 4
"""Pages that may wait for a reader: those that came at once because the loop was late. Where there are more, one
request brings them all."""


class StreamsApi(Protocol):
    async def describe(self, name: str) -> StreamInfo: ...
    def list(self) -> AsyncIterator[StreamSummary]: ...


class CursorsApi(Protocol):
    async def get(
        self,
        stream: str,
        partition_id: str,
        cursor_type: CursorType = "AT_SEQUENCE_NUMBER",
        *,
        sequence_number: int | None = None,
        timestamp: int | datetime | None = None,
        stream_id: str | None = None,
    ) -> Cursor: ...


class RecordsApi(Protocol):
    async def get(self, cursor: Cursor, *, max_bytes: int | None = None) -> Page: ...


class Source(Protocol):
    """What a consumer needs of a client. Failures it reports were tried again already."""

    @property
    def streams(self) -> StreamsApi: ...
    @property
    def cursors(self) -> CursorsApi: ...
    @property
    def records(self) -> RecordsApi: ...


class Gate(Protocol):
    """How far a partition may be read at this moment, because keys move when the stream is scaled."""

    async def heed(self, reader: Reader, changes: int | None) -> None:
        """A page tells how often the stream was changed: what is not known of that is asked for."""

    def limit(self, partition: Partition) -> int | None:
        """Records from this number on have to wait; None: none that is known of."""

    def look(self, stream: str | None = None) -> None:
        """Something was read or finished."""


class Intake:
    """Where the readers of a consumer and the one task that takes meet: buffer, failures, and who waits for what."""

    def __init__(self, prefetch: Prefetch[Partition], is_packed: Callable[[Page], bool], rng: Random) -> None:
        """`is_packed`: whether the records of a page must be opened before they are handed out."""
        self.rng = rng
        self.prefetch = prefetch
        self.is_packed = is_packed
        self.readers: dict[Partition, Reader] = {}
        self._failures: dict[Partition, tuple[DisError, TracebackType | None]] = {}
        self._arrival = Bell()
        self.heed: Callable[[Partition, DisError], bool] = lambda partition, error: False
        """Asked about each failure first: whether somebody else sees to it, and nobody needs to be told."""

    @property
    def halted(self) -> bool:
        """A partition failed. Nobody fetches, so that its failure gets its turn behind what was fetched before."""
        return bool(self._failures)

    def fail(self, partition: Partition, error: DisError, *, over: bool) -> None:
        """`over`: it is only the end of what the partition holds, which stops nobody."""
        if self.heed(partition, error):
            return
        if over:
            log.info("%s/%s was scaled away and has expired: nothing more to read there", *partition)
            return
        self._failures[partition] = (error, error.__traceback__)
        self.notify()

    def forgive(self, partition: Partition) -> None:
        """Forget a failure; after the last one everybody fetches again."""
        if self._failures.pop(partition, None) is not None and not self._failures:
            for reader in self.readers.values():
                reader.wake()

    def raise_failure(self) -> None:
        """Raise the oldest failure, if there is one. It stays."""
        for error, traceback in self._failures.values():
            raise error.with_traceback(traceback)  # else each raising would lengthen the traceback

    def share_room(self) -> None:
        """Wake the readers that there is room for now."""
        while (partition := self.prefetch.grant()) is not None:
            self.readers[partition].wake()

    def notify(self) -> None:
        """Wake the task in `wait`, if there is one: records, a failure, or the end."""
        self._arrival.ring()

    async def wait(self, deadline: float) -> None:
        """Until the next `notify`, or until the loop's clock reads `deadline`. For one task at a time."""
        self._arrival.still()
        await self._arrival.wait(deadline)


class Reader:
    """Reads `partition` ahead of whoever takes, as far as the buffer lets it."""

    def __init__(
        self,
        source: Source,
        partition: Partition,
        stream_id: str,
        cursor: PartitionCursor,
        intake: Intake,
        max_fetch_bytes: int,
        gate: Gate,
        first: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        """`first` is told the number of the first record before anybody gets it; if it raises, the page comes again."""
        self.partition = partition
        self.cursor = cursor
        self._hint = Hint()
        self._pushed: deque[Pushed] = deque(maxlen=MAX_PUSHED)  # one behind the other
        self.unused_pages = 0  # pushed since one was of use
        self.pages = 0
        self.unanswered_since: float | None = (
            None  # when the page that is owed was first asked for, on the loop's clock
        )
        self.last_error: DisError | None = None  # since the last page
        self.range: SequenceRange | None = None  # of the partition, as last heard
        self.throttled = 0
        self._source = source
        self.stream_id = stream_id
        self._first = first
        self._gate = gate
        self._intake = intake
        self._prefetch = intake.prefetch
        self._max_fetch_bytes = max_fetch_bytes
        self._woken = Bell()
        self._life = anyio.CancelScope()
        self._stopped = False

    def heard_range(self, heard: SequenceRange) -> None:
        """Somebody asked about the partition."""
        self.range = heard

    def lag(self, position: int | None) -> int | None:
        """Records from `position` to the end, as far as it was heard of; None: it was not, or the place is unknown."""
        if self.range is None or position is None:
            return None
        return max(0, self.range.end - max(position, self.range.start))

    @property
    def gone(self) -> bool:
        """Whether the service said that there is no such stream or partition."""
        return isinstance(self.cursor.failure, NotFoundError)

    def wake(self) -> None:
        """Something changed: look again at what is to do."""
        self._woken.ring()

    def seek(self, where: Where) -> None:
        """Go on at `where`."""
        self.cursor.seek(where)
        self._pushed.clear()
        self._hint.look()  # a number that was never written must be refused now
        self.wake()

    def told_first(self, end: int) -> None:
        """By notices that begin: the partition ends at `end`, or behind it if they tell so next."""
        self._hint.begin(end)
        self.unused_pages = 0

    def told(self, end: int | None) -> None:
        """By notices: the partition ends at `end` or behind it; None: it is not what it was."""
        if end is None:
            self._hint.look()
        else:
            self._hint.tell(end)
            if self.range is not None and end > self.range.end:
                self.range = SequenceRange(self.range.start, end)
            if not self._hint.expects(self.cursor.next):
                return
        self.wake()

    def pushed(self, pushed: Pushed) -> None:
        """By notices: the page from `pushed.first` on. At least a notice of where the partition ends."""
        self.unused_pages += 1
        # Without an id nobody knows whether this is the stream that is read.
        of_use = self.stream_id and pushed.end > (self.cursor.next or 0)
        if of_use and not (self._stopped or self._prefetch.is_paused(self.partition)):
            if self._pushed and self._pushed[-1].end != pushed.first:
                self._pushed.clear()
            self._pushed.append(pushed)
        self.told(pushed.end)

    def _take_pushed(self) -> Pushed | None:
        """The page that is wanted next, if it is there."""
        place = self.cursor.next
        while self._pushed:
            page = self._pushed.popleft()
            if page.first == place:
                return page
        return None

    def untold(self) -> None:
        """Notices come no more."""
        self._hint.lose()
        self.wake()

    async def run(self) -> None:
        """Until cancelled or stopped."""
        with self._life:
            await self._run()

    def stop(self) -> None:
        """End `run`, and have nothing to do with the buffer any more: the partition may be in other hands."""
        self._stopped = True
        self._life.cancel()

    async def _run(self) -> None:
        while not self._stopped:
            self._woken.still()
            action = next_action(self.cursor, self._hint, loop_time())
            if (
                isinstance(action, Wait)
                or self._intake.halted
                or self._prefetch.is_paused(self.partition)
                or self._is_held()
            ):
                until = action.until if isinstance(action, Wait) else None
                if until is None or self.cursor.streak == 0:
                    self.unanswered_since = None  # nobody asks, or there would be nothing to come
                self._pushed.clear()
                self._prefetch.release(self.partition)  # a grant may have come just before
                self._intake.share_room()
                await self._woken.wait(until)
            elif isinstance(action, Read) and not self._prefetch.reserve(self.partition):
                self.unanswered_since = None
                self._pushed.clear()
                await self._woken.wait(None)
            else:
                await self._ask(action)

    def _is_held(self) -> bool:
        """What comes next has to wait for other partitions."""
        limit, at = self._gate.limit(self.partition), self.cursor.at
        return limit is not None and at is not None and at >= limit

    async def _ask(self, action: Describe | Obtain | Read) -> None:
        if self.unanswered_since is None:
            self.unanswered_since = loop_time()
        try:
            match action:
                case Describe():
                    await self._describe(action)
                case Obtain():
                    await self._obtain(action)
                case Read():
                    await self._read(action)
        except DisError as error:
            self._failed(action.epoch, error)
        if not self._stopped:
            self._gate.look(self.partition.stream)  # it may have come to where others are let go on

    async def _obtain(self, action: Obtain) -> None:
        cursor = await self._source.cursors.get(
            *self.partition,
            action.cursor_type,
            sequence_number=action.sequence_number,
            timestamp=action.timestamp_ms,
            stream_id=self.stream_id or None,
        )
        if self.stream_id:
            # Asked for by name, it may be of a later stream. A cursor that does not tell is one of another service:
            # describe then, now and not before, because an id never comes back. Still ours: ours when it was made.
            told = _told_stream_id(cursor)
            self.check_stream(told or (await self._source.streams.describe(self.partition.stream)).stream_id)
        self.cursor.obtained(action.epoch, cursor)

    def check_stream(self, stream_id: str) -> None:
        """Raises NotFoundError if it is another: numbers of one mean nothing in the other, even under the same name."""
        if stream_id != self.stream_id:
            message = f"the stream {self.partition.stream} was deleted and created again: start a new consumer"
            raise NotFoundError(message, status=400, code="DIS.4301")

    async def _read(self, action: Read) -> None:
        self._hint.asked()
        try:
            if (pushed := self._take_pushed()) is not None:
                page = pushed.page(*self.partition)
                self.unused_pages = 0
            else:
                page = await self._source.records.get(action.cursor, max_bytes=self._max_fetch_bytes)
            await self._gate.heed(self, page.changes)
            if self._first is not None and page.records:
                await self._first(number_of(page.records, 0))
                self._first = None
            if not self._stopped:
                self._accept(action.epoch, page)
        finally:
            if not self._stopped:
                self._prefetch.release(self.partition)
                self._intake.share_room()

    def _accept(self, epoch: int, page: Page) -> None:
        if self.last_error is not None:
            log.info("%s/%s can be read again", *self.partition)
        self.unanswered_since = self.last_error = None
        expected, gap = self.cursor.next, self.cursor.gap_records
        now = loop_time()
        records = self.cursor.accept(epoch, page, now, self._gate.limit(self.partition))
        if epoch == self.cursor.epoch:
            poll_at = now + safety_s(len(self._intake.readers), self._intake.rng)
            self._hint.answered(expected, len(page.records), poll_at)  # also what was cut off is there
        if not records:
            return
        self.pages += 1
        missing = self.cursor.gap_records - gap
        if missing:
            log.warning("%s/%s: %d sequence numbers from %s on are missing", *self.partition, missing, expected)
        self._prefetch.put(self.partition, records, packed=self._intake.is_packed(page))
        self._intake.notify()

    async def _describe(self, action: Describe) -> None:
        info = await self._source.streams.describe(self.partition.stream)
        self.check_stream(info.stream_id)
        bounds = self._bounds(info)
        if bounds is not None:
            self.heard_range(bounds)
        skipped = self.cursor.described(action.epoch, bounds, loop_time())
        if skipped is not None:
            log.warning(
                "%s/%s: records %d to %d expired before they were read; going on at %d",
                *self.partition,
                skipped.expected,
                skipped.to - 1,
                skipped.to,
            )
        self._report()

    def _bounds(self, info: StreamInfo) -> SequenceRange | None:
        mine = self.partition.partition_id
        for partition in info.partitions:
            if partition_id(partition_number(partition.partition_id)) == mine and partition.readable:
                return partition.sequence_range
        raise NotFoundError(f"Partition {mine} of {info.name} is expired", status=400, code="DIS.4319")

    def _failed(self, epoch: int, error: DisError) -> None:
        if self._stopped:
            return
        self.last_error = error
        self.throttled += isinstance(error, ThrottledError)
        retries = self.cursor.retries
        self.cursor.failed(epoch, error, loop_time())
        if self.cursor.retries > retries and self.cursor.streak == 1:
            log.warning("%s/%s cannot be read and is tried again: %s", *self.partition, error)
        self._report()

    def _report(self) -> None:
        if self.cursor.failure is not None and not self._stopped:
            self._intake.fail(self.partition, self.cursor.failure, over=self.cursor.over)


def _told_stream_id(cursor: Cursor) -> str:
    """The id of the stream a cursor is of; empty if it is not of the form that tells it."""
    try:
        return decode_cursor(cursor).stream_id
    except CursorExpired:
        return ""
