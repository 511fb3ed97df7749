"""Holds partitions where layouts of their stream meet, until everybody has come as far (layouts.py decides).

    a page tells of more changes than are known -> the stream is described before any record of it is handed out
    a partition comes to its bound              -> its reader stops there; `look`, after all that was read or finished,
                                                   lets it go on once all partitions have passed the change
    all that is held here has come there        -> what is finished is committed at once, for other members know of our
                                                   progress by checkpoints only; theirs are asked for, again and again

Also finds the partitions that a stream gets later, for a consumer that reads all of them by its own choice.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from ..errors import DisError, TransportError
from ..model import Partition, PartitionInfo, PartitionState, StreamInfo
from ..wire.checkpoints import position
from ..wire.partitioning import partition_id, partition_number
from .layouts import Layouts, Place
from .progress import INDEX_BITS
from .reader import Reader, log

if TYPE_CHECKING:
    from .holdings import Holding, Holdings

LAYOUT = "layout"
"""Why a partition is paused that was fetched further than it may be handed out, after a seek of another one."""

ASK_FIRST_S = 0.3
ASK_LAST_S = 2.0
"""Between two questions how far other members are: grows from the first to the last."""

WARN_S = 10.0
WARN_LAST_S = 600.0
"""How long partitions wait for others before that is told; the pause doubles with each time, up to the last."""

LOOK_S = 60.0
"""How often a consumer of all partitions asks whether there are more: pages of our server tell at once, others not."""

NAMES = 10
"""Partitions named in a message."""


Commit = Callable[[], Awaitable[None]]
"""Commits what is finished, as far as this consumer may, and logs what fails."""


@dataclass(slots=True)
class _Stream:
    """What is known of a stream that partitions are held of."""

    name: str
    info: StreamInfo
    look_at: float
    layouts: Layouts = field(default_factory=Layouts)
    oldest: dict[str, int] = field(default_factory=dict)
    """Of the partitions that can be read: nothing below it is there to be waited for."""
    told: dict[str, Place] = field(default_factory=dict)
    """How far others are, as they were heard of last."""
    describing: anyio.Lock = field(default_factory=anyio.Lock)
    fresh: bool = True
    """There may be partitions that nobody opened yet."""
    passed: int = -1
    """Where it stood when it was looked after last."""
    owes: bool = False
    """What is finished here has to be committed, for others wait for it."""
    ask_at: float = math.inf
    pause_s: float = ASK_FIRST_S
    warn_at: float = math.inf
    warn_s: float = WARN_S


class Crossing:
    """Of all streams of one consumer. The gate of its readers."""

    def __init__(self, holdings: Holdings, *, grows: bool, asks: bool, chosen: bool) -> None:
        """`grows`: all partitions are read here, also those made later. `asks`: other consumers of the app read what is
        not held here. `chosen`: by nobody's assignment, so a partition without checkpoint is read by no one.
        """
        self._holdings = holdings
        self._grows = grows
        self._asks = asks
        self._chosen = chosen
        self._streams: dict[str, _Stream] = {}
        self._news: anyio.Event | None = None
        self._stirred = False
        self._open = False

    # --- for readers: the gate ---

    async def heed(self, reader: Reader, changes: int | None) -> None:
        name = reader.partition.stream
        stream = self._streams.get(name)
        if changes is None or stream is None or changes <= stream.layouts.known:
            return
        async with stream.describing:
            if changes <= stream.layouts.known:
                return  # another reader was told the same
            info = await self._holdings.describe(name)
            reader.check_stream(info.stream_id)
            if (info.changes or 0) < changes:
                told = f"a page of {name!r} tells of {changes} changes of its partitions, the description of fewer"
                raise TransportError(told, outcome_unknown=False)
            if self._streams.get(name) is stream:
                self.learn(name, info)

    def limit(self, partition: Partition) -> int | None:
        if not self._open:
            return None
        stream = self._streams.get(partition.stream)
        return None if stream is None else stream.layouts.limit(partition.partition_id)

    def look(self, stream: str | None = None) -> None:
        """Something was read or finished (of this stream): perhaps the others may go on."""
        if not self._open:
            return
        for one in list(self._streams.values()):
            if one.layouts.open and stream in (None, one.name):
                self._advance(one)

    # --- for whoever opens, seeks and drops ---

    def learn(self, name: str, info: StreamInfo) -> None:
        """A description of the stream. One that is older than what is known changes nothing."""
        stream = self._streams.get(name)
        if stream is None or stream.info.stream_id != info.stream_id:
            stream = self._streams[name] = _Stream(name, info, anyio.current_time() + LOOK_S)
        changes = info.changes or 0
        if changes < stream.layouts.known:
            return
        readable = {partition_id(partition_number(p.partition_id)): p for p in info.partitions if p.readable}
        stream.fresh = stream.fresh or info is not stream.info
        stream.info = info
        stream.oldest = {pid: p.sequence_range.start if p.sequence_range else 0 for pid, p in readable.items()}
        if changes > stream.layouts.known:
            stream.layouts.learn(changes, {pid: p.bounds for pid, p in readable.items()})
            self._apply(stream)
        self._advance(stream)
        self._stir()

    def moved(self, partition: Partition) -> None:
        """A seek: what is read again is read in order, too."""
        stream = self._streams.get(partition.stream)
        if stream is None:
            return
        if stream.layouts.back(partition.partition_id, self._holdings.held[partition].reader.cursor.at):
            stream.told.clear()  # it was enough for then
            self._apply(stream)
        self._advance(stream)

    def changed(self) -> None:
        """Other partitions are held than before. Streams of which none is held any more are forgotten."""
        kept = {partition.stream for partition in self._holdings.held}
        self._streams = {name: stream for name, stream in self._streams.items() if name in kept}
        self._note_open()
        self.look()
        self._stir()

    # --- what is told ---

    def held(self) -> tuple[Partition, ...]:
        """Partitions whose next records wait for other partitions."""
        return tuple(partition for partition in self._holdings.held if self.waits(partition))

    def waits(self, partition: Partition) -> bool:
        """Whether the next record of this one, which is held here, waits for other partitions."""
        if (limit := self.limit(partition)) is None:
            return False
        place = self._own_place(partition, self._holdings.held[partition])
        return place is not None and limit <= place < math.inf

    def holds_up(self, partition: Partition) -> bool:
        """Whether this one, which is held here, was handed out up to a change that waits for it to be finished."""
        stream = self._streams.get(partition.stream)
        bound = None if stream is None else stream.layouts.awaited.get(partition.partition_id)
        if bound is None:
            return False
        place = self._read_to(partition, self._holdings.held[partition])
        return place is not None and place >= bound

    def awaited(self) -> tuple[Partition, ...]:
        """Partitions that these wait for, here or elsewhere."""
        return tuple(
            Partition(stream.name, pid) for stream in self._streams.values() for pid in sorted(stream.layouts.awaited)
        )

    # --- deciding ---

    def _advance(self, stream: _Stream) -> None:
        if not any(partition.stream == stream.name for partition in self._holdings.held):
            return  # it is being opened: who is waited for here is not known yet
        before = len(stream.layouts.awaited)
        moved = stream.layouts.advance(lambda pid: self._place(stream, pid))
        if moved:
            self._apply(stream)
        if moved or len(stream.layouts.awaited) != before:
            self._stir()

    def _stir(self) -> None:
        self._stirred = True
        if self._news is not None:
            self._news.set()

    def _apply(self, stream: _Stream) -> None:
        """Limits have moved: whoever is held by them, or is no more, shall know."""
        self._note_open()
        prefetch = self._holdings.prefetch
        for partition, holding in self._of(stream):
            first, limit = prefetch.first(partition), stream.layouts.limit(partition.partition_id)
            if first is not None and limit is not None and first >= limit:
                prefetch.pause(partition, LAYOUT)
            else:
                prefetch.resume(partition, LAYOUT)
            holding.reader.wake()
        if prefetch.ready:
            self._holdings.intake.notify()

    def _note_open(self) -> None:
        self._open = any(stream.layouts.open for stream in self._streams.values())

    def _place(self, stream: _Stream, pid: str) -> Place | None:
        """All of the partition before it is finished, or not there to be waited for."""
        partition = Partition(stream.name, pid)
        holding = self._holdings.held.get(partition)
        if holding is not None:
            return self._own_place(partition, holding)
        if pid not in stream.oldest or not (self._grows or self._asks):
            return math.inf
        return max(stream.told.get(pid, 0), stream.oldest[pid])

    def _own_place(self, partition: Partition, holding: Holding) -> Place | None:
        # What was set aside counts: nobody has finished it, and whoever gets it next may take his time.
        if holding.progress.owing:
            assert holding.progress.finished is not None
            return holding.progress.finished >> INDEX_BITS
        return self._read_to(partition, holding)

    def _read_to(self, partition: Partition, holding: Holding) -> Place | None:
        reader = holding.reader
        first = self._holdings.prefetch.first(partition)
        if first is not None:
            return first
        return math.inf if reader.cursor.over else reader.cursor.at

    def _of(self, stream: _Stream) -> Iterator[tuple[Partition, Holding]]:
        for partition, holding in list(self._holdings.held.items()):
            if partition.stream == stream.name:
                yield partition, holding

    # --- the task ---

    async def run(self, commit: Commit) -> None:
        """Until cancelled."""
        while True:
            if not self._stirred:
                self._news = anyio.Event()
                with anyio.CancelScope(deadline=self._next_at()):
                    await self._news.wait()
            self._stirred = False
            for stream in list(self._streams.values()):
                await self._look_after(stream, commit)

    def _next_at(self) -> float:
        return min(
            (min(s.ask_at, s.warn_at, s.look_at if self._grows else math.inf) for s in self._streams.values()),
            default=math.inf,
        )

    async def _look_after(self, stream: _Stream, commit: Commit) -> None:
        if self._grows:
            await self._find_new(stream, commit)
        layouts = stream.layouts
        self._advance(stream)
        if layouts.passed != stream.passed:
            stream.owes = self._asks and layouts.passed > 0
            stream.passed = layouts.passed
            stream.ask_at = stream.warn_at = math.inf
            stream.pause_s, stream.warn_s = ASK_FIRST_S, WARN_S
        elsewhere = False
        if layouts.open:
            here = {partition.partition_id for partition, _ in self._of(stream)}
            # While something that is held here is awaited, asking for the others would change nothing.
            elsewhere = self._asks and not here & layouts.awaited.keys() and not here.issuperset(layouts.bounds())
        if not (elsewhere or stream.owes):
            stream.ask_at = math.inf
        elif stream.ask_at == math.inf or anyio.current_time() >= stream.ask_at:
            stream.owes = not await self._committed(stream, commit)
            if elsewhere:
                await self._ask(stream)
                self._advance(stream)
            stream.ask_at = anyio.current_time() + stream.pause_s
            stream.pause_s = min(stream.pause_s * 1.5, ASK_LAST_S)
        self._warn_if_long(stream)

    async def _committed(self, stream: _Stream, commit: Commit) -> bool:
        """Whether all that is finished now is committed, or is not ours any more."""
        due = [(partition, held.progress, held.progress.due) for partition, held in self._of(stream)]
        due = [(partition, progress, number) for partition, progress, number in due if number is not None]
        if due:
            await commit()
        for partition, progress, number in due:
            holding = self._holdings.held.get(partition)
            if holding is not None and holding.progress is progress and (progress.committed or 0) < (number or 0):
                return False
        return True

    def _warn_if_long(self, stream: _Stream) -> None:
        now = anyio.current_time()
        if not stream.layouts.open:
            stream.warn_at = math.inf
        elif stream.warn_at == math.inf:
            stream.warn_at = now + stream.warn_s
        elif now >= stream.warn_at:
            self._warn(stream)
            stream.warn_s = min(stream.warn_s * 2, WARN_LAST_S)
            stream.warn_at = now + stream.warn_s

    async def _ask(self, stream: _Stream) -> None:
        """How far others are."""
        try:
            states = await self._holdings.states(stream.name)
        except DisError as error:
            log.info("%s: how far other members are cannot be asked yet: %s", stream.name, error)
            return
        stream.told = {partition_id(partition_number(state.partition_id)): self._told(state) for state in states}

    def _told(self, state: PartitionState) -> Place:
        if state.status not in PartitionInfo.READABLE:
            return math.inf
        if state.checkpoint is None:
            return math.inf if self._chosen else state.earliest
        return max(position(state.checkpoint)[0], state.earliest)

    def _warn(self, stream: _Stream) -> None:
        waiting = [partition for partition, _ in self._of(stream) if self.waits(partition)]
        if not waiting:
            return
        awaited = []
        for pid, bound in sorted(stream.layouts.awaited.items())[:NAMES]:
            where = "here" if Partition(stream.name, pid) in self._holdings.held else "elsewhere"
            awaited.append(f"{pid} (held {where}, finished below {self._place(stream, pid)} of {bound})")
        log.warning(
            "%s: %d partitions wait, for keys have moved to them with change %d of its layout: records from before it "
            "are not finished in %d partitions: %s",
            stream.name,
            len(waiting),
            stream.layouts.following,
            len(stream.layouts.awaited),
            ", ".join(awaited),
        )

    # --- partitions that are made later ---

    async def _find_new(self, stream: _Stream, commit: Commit) -> None:
        now = anyio.current_time()
        if now >= stream.look_at:
            stream.look_at = now + LOOK_S
            try:
                info = await self._holdings.describe(stream.name)
            except DisError as error:
                log.debug("%s: it cannot be asked for new partitions: %s", stream.name, error)  # its readers tell it
            else:
                if info.stream_id == stream.info.stream_id:
                    self.learn(stream.name, info)
        if stream.fresh:
            stream.fresh = False
            try:
                await self._open_new(stream, commit)
            except DisError as error:
                stream.fresh = True
                stream.look_at = anyio.current_time() + ASK_LAST_S
                log.info("%s: new partitions cannot be read yet: %s", stream.name, error)

    async def _open_new(self, stream: _Stream, commit: Commit) -> None:
        holdings = self._holdings
        readable = {Partition(stream.name, pid) for pid in stream.oldest}
        back = [p for p, held in self._of(stream) if p in readable and held.reader.cursor.over]
        if back:  # gone for good, it seemed: the stream grew again, and they go on where they ended
            if holdings.keeper is not None:
                await commit()
            holdings.drop(back)
        if new := sorted(readable - holdings.held.keys()):
            await holdings.open(new, (), {stream.name: stream.info}, later=True)
            log.info("%s: %d partitions more are read", stream.name, len(new))
