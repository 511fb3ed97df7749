"""The partitions a consumer holds: their readers, what became of their records, and their checkpoints.

    open       a reader starts at the app's checkpoint, or where the app wants to start; that place is pinned then:
               committed before the first record, or a death before the first commit would lose what was written since
    suspended  nothing is handed out; readers fill the buffer on
    dropped    the reader is stopped, what was fetched is forgotten

Commits go in as few calls as their keeper allows, several at once, and never two rounds at a time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import NamedTuple, TypeVar

import anyio
import anyio.abc
import msgspec

from .. import clock
from ..errors import ConfigError, DisError, LeaseLost, NotFoundError, StaleGeneration
from ..model import Checkpoint, Partition, PartitionInfo, PartitionState, StreamInfo
from ..wire.annotations import read_note
from ..wire.checkpoints import position, sealed
from ..wire.cursors import decode_cursor
from ..wire.partitioning import partition_id, partition_number
from .assignment import Begin, begin, explicit_starts
from .config import ConsumerConfig, Static, to_where
from .crossing import Crossing
from .cursor import PartitionCursor, Since, Where
from .keeper import AppSource, Keeper, ServiceKeeper
from .opening import Opener
from .prefetch import Prefetch
from .progress import INDEX_BITS, Progress, first_place
from .reader import Intake, Reader, Source, log

T = TypeVar("T")

REQUESTS_AT_ONCE = 16
"""Requests of one round under way: an app of a thousand partitions must not open as many connections, and a member far
away from the service not keep the group waiting for a thousand answers one by one."""

GAP = "gap"
"""Why a partition is paused whose first unfinished record holds up too many finished ones."""


class Holding(NamedTuple):
    reader: Reader
    progress: Progress


@dataclass(slots=True)
class Counts:
    """What the readers counted that are gone."""

    pages: int = 0
    gap_records: int = 0
    repeated_records: int = 0
    retries: int = 0
    throttled: int = 0
    replayed_records: int = 0
    """Handed out by this consumer, and again after it lost the partition."""


class Holdings:
    def __init__(self, source: Source, app: str | None, config: ConsumerConfig, rng: Random) -> None:
        self._source = source
        self._app = app
        self._config = config
        self._rng = rng
        self.opener = Opener(config)
        self.prefetch: Prefetch[Partition] = Prefetch(config.prefetch_bytes, config.max_fetch_bytes, self.opener.open)
        self.intake = Intake(self.prefetch, self.opener.concerns, rng)
        self.held: dict[Partition, Holding] = {}
        self.keeper: Keeper | None = None
        if app is not None and isinstance(source, AppSource):
            self.keeper = ServiceKeeper(source, app)  # until a membership brings one with a fence
        self.lost: set[Partition] = set()
        """Dropped with records handed out that no commit covers; for `commit` to tell."""
        self.note: Callable[[], None] = lambda: None
        """Brings the progress up to date with what the consumer handed out."""
        self.recall: Callable[[], None] = lambda: None
        """Takes back what the consumer took to hand out and did not yet."""
        self.changed: Callable[[], None] = lambda: None
        """Tells that other partitions are held than before."""
        self.ended = Counts()
        self._handed: dict[Partition, tuple[str, int]] = {}  # of those dropped: stream id, where handing out stood
        coordination = config.coordination or (None if app is not None else Static())
        by_choice = isinstance(coordination, Static)
        grows = isinstance(coordination, Static) and coordination.partitions is None
        self.crossing = Crossing(self, grows=grows, asks=app is not None and not grows, chosen=by_choice and not grows)
        self._tasks: anyio.abc.TaskGroup | None = None
        self._committing = anyio.Lock()
        self._finished: anyio.Event | None = None

    def attach(self, tasks: anyio.abc.TaskGroup) -> None:
        """The group that readers run in."""
        self._tasks = tasks

    def app_source(self) -> tuple[AppSource, str]:
        if not isinstance(self._source, AppSource) or self._app is None:
            raise ConfigError("this consumer has no app: give consumer(streams, app=NAME) to commit")
        return self._source, self._app

    # --- what is held ---

    async def ensure_app(self) -> None:
        """Create the app unless it exists."""
        source, app = self.app_source()
        try:
            await source.apps.describe(app)
        except NotFoundError:
            try:
                await source.apps.create(app)
            except DisError:
                await source.apps.describe(app)  # somebody else made it, or the answer to our first try was lost
            else:
                log.info("app %s created", app)

    async def never_read(self, streams: Iterable[str]) -> frozenset[str]:
        """Of these streams those on which the app has no checkpoint at all, if that makes a difference."""
        keeper = self._keeper()
        fresh = set()

        async def ask(stream: str) -> None:
            try:
                states = await keeper.states(stream)
            except NotFoundError:
                return  # deleted meanwhile: whoever opens it will find out
            if all(state.checkpoint is None for state in states):
                fresh.add(stream)

        if self._config.start != "earliest":
            await _all(ask, streams, "state")
        return frozenset(fresh)

    async def look_for(self, streams: Iterable[str]) -> None:
        """Raises NotFoundError if one of these does not exist."""

        async def look(stream: str) -> None:
            await self._source.streams.describe(stream)

        await _all(look, streams, "describe")

    async def of_the_same_stream(self, partitions: Iterable[Partition]) -> set[Partition]:
        """Of these held ones, those whose stream was not replaced by another of its name: numbers of one mean nothing
        in the other."""
        ids: dict[str, str] = {}

        async def look(stream: str) -> None:
            try:
                ids[stream] = (await self._source.streams.describe(stream)).stream_id
            except NotFoundError:
                ids[stream] = "none"

        asked = set(partitions)
        await _all(look, sorted({partition.stream for partition in asked}), "describe")
        return {partition for partition in asked if ids[partition.stream] == self.held[partition].reader.stream_id}

    async def describe(self, stream: str) -> StreamInfo:
        # One that another account shares goes by its id.
        info = await self._source.streams.describe(stream)
        return info if info.name == stream else msgspec.structs.replace(info, name=stream)

    async def states(self, stream: str) -> list[PartitionState]:
        """How far the app is with every partition of the stream, whoever reads it."""
        return await self._keeper().states(stream)

    async def open(
        self,
        wanted: Collection[Partition],
        fresh: Collection[str] = (),
        infos: Mapping[str, StreamInfo] | None = None,
        *,
        later: bool = False,
        paused: str = "",
    ) -> None:
        """Hold these too. `fresh`: streams the app never read; `infos`: descriptions that are new. `later`: partitions
        that were made while the others were read. `paused`: why they are to hand out nothing yet.

        All or none of a stream. Raises what the service answers; StaleGeneration if the membership ended meanwhile.
        """
        by_stream: dict[str, list[Partition]] = {}
        for partition in wanted:
            by_stream.setdefault(partition.stream, []).append(partition)

        async def open_stream(stream: str) -> None:
            info = infos[stream] if infos else await self.describe(stream)
            self.crossing.learn(stream, info)
            known = {partition_id(partition_number(p.partition_id)): p for p in info.partitions}
            if self._app is None:
                for partition in by_stream[stream]:
                    described = known[partition.partition_id]
                    where = self._wanted(info, partition)
                    if later and where == "latest":
                        where = "earliest"  # all that it holds was written since then
                    self._start(partition, info, Begin(where, described.sequence_range), None)
            else:
                await self._open_for_app(info, by_stream[stream], known, stream in fresh, paused)

        await _all(open_stream, by_stream, "open")
        self.crossing.changed()
        self.intake.share_room()

    async def _open_for_app(
        self,
        info: StreamInfo,
        partitions: list[Partition],
        known: Mapping[str, PartitionInfo],
        fresh: bool,
        paused: str,
    ) -> None:
        states = {s.partition_id: s for s in await self._keeper().states(info.name)}
        begins: dict[Partition, Begin] = {}

        async def prepare(partition: Partition) -> None:
            state = states.get(partition.partition_id)
            if state is None or partition.partition_id not in known:
                told = f"partition {partition.partition_id} of {info.name} does not exist"
                raise NotFoundError(told, status=400, code="DIS.4302")
            place = begin(state, self._wanted(info, partition), fresh=fresh)
            begins[partition] = await self._pinned(partition, info, place)

        await _all(prepare, partitions, "open")
        for partition, place in begins.items():
            self._start(partition, info, place, place.committed)
            if paused:
                self.prefetch.pause(partition, paused)
            if (checkpoint := states[partition.partition_id].checkpoint) is not None:
                self.held[partition].progress.noted(read_note(position(checkpoint)[1]))

    async def _pinned(self, partition: Partition, info: StreamInfo, place: Begin) -> Begin:
        """With a checkpoint at the place, if that is a number already; else the first record will pin it."""
        if place.committed is not None:
            return place
        at: int | None = None
        if isinstance(place.where, int):
            at = place.where
        elif place.bounds is not None and place.where in ("earliest", "latest"):
            at = place.bounds.start if place.where == "earliest" else place.bounds.end
        elif isinstance(place.where, Since):
            cursor = await self._source.cursors.get(
                *partition, "AT_TIMESTAMP", timestamp=place.where.timestamp_ms, stream_id=info.stream_id or None
            )
            try:
                at = decode_cursor(cursor).sequence
            except DisError:
                at = None  # a service whose cursors do not tell
        if at is None:
            return place
        await self._send(partition, at, read=False)
        # "earliest" stays as it is: the oldest record may go away before it is read, and that is no gap.
        return Begin(place.where if place.where == "earliest" else at, place.bounds, at)

    def _wanted(self, info: StreamInfo, partition: Partition) -> Where:
        start = self._config.start
        if isinstance(start, Mapping):
            return explicit_starts(info, start).get(partition.partition_id, "earliest")
        return to_where("start", start)

    def _start(self, partition: Partition, info: StreamInfo, place: Begin, committed: int | None) -> None:
        config = self._config
        cursor = PartitionCursor(
            on_expired=config.on_expired,
            refresh_s=config.cursor_refresh_s,
            idle_min_s=config.idle_min_s,
            idle_max_s=config.idle_max_s,
            retry_base_s=config.retry_base_s,
            retry_max_s=config.retry_max_s,
            rng=self._rng,
        )
        cursor.begin(place.where, place.bounds)
        stream_id, handed = self._handed.pop(partition, ("", 0))
        if cursor.next is not None and stream_id == info.stream_id:
            self.ended.replayed_records += max(0, handed - cursor.next)
        progress = Progress(config.finish, None if cursor.next is None else first_place(cursor.next), committed)

        async def pin(first: int) -> None:
            if progress.committed is None:
                await self._send(partition, first, read=False)
                progress.committed = first

        reader = Reader(
            self._source,
            partition,
            info.stream_id,
            cursor,
            self.intake,
            config.max_fetch_bytes,
            self.crossing,
            pin if self._app is not None and committed is None else None,
        )
        assert self._tasks is not None
        self.prefetch.add(partition)
        self.held[partition] = Holding(reader, progress)
        self.intake.readers[partition] = reader
        self._tasks.start_soon(reader.run, name=f"read-{partition.stream}-{partition.partition_id}")
        self.changed()

    def drop(self, partitions: Iterable[Partition]) -> int:
        """Hold these no more. Returns how many of them were lost: handed out of further than a commit covers."""
        lost = 0
        for partition in list(partitions):
            reader, progress = self.held.pop(partition)
            if progress.uncommitted and self._app is not None:
                self.lost.add(partition)
                lost += 1
            reader.stop()
            self.ended.pages += reader.pages
            self.ended.gap_records += reader.cursor.gap_records
            self.ended.repeated_records += reader.cursor.repeated_records
            self.ended.retries += reader.cursor.retries
            self.ended.throttled += reader.throttled
            if progress.handed is not None:
                self._handed[partition] = (reader.stream_id, progress.handed >> INDEX_BITS)
            del self.intake.readers[partition]
            self.prefetch.remove(partition)
            self.intake.forgive(partition)
            self.changed()
        self.crossing.changed()
        self.intake.share_room()
        self.notify_finished()
        return lost

    # --- finishing ---

    def notify_finished(self) -> None:
        """Something that was handed out is finished, or nobody's any more."""
        if self._finished is not None:
            self._finished.set()

    async def drain(self, deadline: float) -> bool:
        """Wait until all that was handed out is finished or set aside, at most until `deadline` (loop's clock).

        Whether it is.
        """
        try:
            with anyio.CancelScope(deadline=deadline):
                while any(progress.unfinished for _, progress in self.held.values()):
                    await self._something_finished()
                return True
            return False
        finally:
            for _, progress in self.held.values():
                progress.hand_over_ended()

    async def drain_some(self, deadline: float, partitions: Collection[Partition]) -> set[Partition]:
        """Wait until of some of these all that was handed out is finished; which. None of them by `deadline`."""
        with anyio.CancelScope(deadline=deadline):
            while not (done := {p for p in partitions if p not in self.held or not self.held[p].progress.unfinished}):
                await self._something_finished()
            return done
        return set()

    async def _something_finished(self) -> None:
        if self._finished is None or self._finished.is_set():  # several may wait, each for partitions of its own
            self._finished = anyio.Event()
        await self._finished.wait()

    # --- committing ---

    async def commit(self, partitions: Collection[Partition] | None = None) -> dict[Partition, int]:
        """Commit what is finished and not committed. Returns what is committed now, of all that is held.

        `partitions`: of these only. Raises LeaseLost if the membership ran out, StaleGeneration if the service says so,
        and other refusals; what could be committed is committed then.
        """
        async with self._committing:
            self.note()
            keeper = self._keeper()
            due = [
                (partition, progress, number, progress.read, progress.note)
                for partition, (_, progress) in self.held.items()
                if (number := progress.due) is not None and (partitions is None or partition in partitions)
            ]
            failures: list[DisError] = []

            async def some(first: int) -> None:
                checkpoints: dict[Partition, Checkpoint] = {}
                for partition, progress, number, read, note in due[first : first + keeper.together]:
                    holding = self.held.get(partition)
                    # A round may wait for long: given away and back again meanwhile, others have committed behind this.
                    if holding is None or holding.progress is not progress:
                        told = f"{partition.partition_id} of {partition.stream!r} was given away before its commit"
                        failures.append(LeaseLost(told))
                        continue
                    checkpoints[partition] = sealed(number, read=read, metadata=note.text())
                refused = await keeper.keep_all(checkpoints)
                failures.extend(refused.values())
                for partition, progress, number, _, note in due[first : first + keeper.together]:
                    if partition in checkpoints and partition not in refused:
                        progress.committed = number
                        progress.committed_at = clock.boot()
                        progress.kept_note = note

            failures += await _each(some, range(0, len(due), keeper.together), "commit")
            if failures:
                raise min(failures, key=lambda error: not isinstance(error, StaleGeneration))
            return {p: h.progress.committed for p, h in self.held.items() if h.progress.committed is not None}

    async def between_commits(self, act: Callable[[], None]) -> None:
        """Act while no commit is under way: one that is cut may take effect later, and take a checkpoint back."""
        async with self._committing:
            act()

    async def _send(self, partition: Partition, sequence: int, *, read: bool) -> None:
        await self._keeper().keep(partition, sealed(sequence, read=read))

    def _keeper(self) -> Keeper:
        self.app_source()
        assert self.keeper is not None
        return self.keeper


async def _each(work: Callable[[T], Awaitable[None]], items: Iterable[T], name: str) -> list[DisError]:
    """Do it for each, some at once; returns what failed, in the order it did."""
    failures: list[DisError] = []
    room = anyio.Semaphore(REQUESTS_AT_ONCE)

    async def one(item: T) -> None:
        async with room:
            try:
                await work(item)
            except DisError as error:
                failures.append(error)

    async with anyio.create_task_group() as tasks:
        for item in items:
            tasks.start_soon(one, item, name=f"{name}-{item}")
    return failures


async def _all(work: Callable[[T], Awaitable[None]], items: Iterable[T], name: str) -> None:
    """Do it for each, some at once; raises what failed first."""
    for failure in await _each(work, items, name):
        raise failure
