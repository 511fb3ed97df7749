"""Looks at the partitions that a consumer holds: how far behind each is, and whether it gets on.

Two clocks of its own: every few seconds it looks at what is known here (watching.py decides what that means), and every
`lag_interval_s` it asks the service where the streams end. What stands is logged once, told to `on_stall`, and written
beside the next checkpoint, so that whoever looks from elsewhere finds the reason there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio

from .. import clock
from ..errors import DisError
from ..model import Partition
from ..wire.annotations import Note
from ..wire.partitioning import partition_id, partition_number
from .config import ConsumerConfig
from .crossing import LAYOUT
from .holdings import Holding, Holdings
from .progress import INDEX_BITS, Progress
from .reader import Reader, Source, log
from .stats import PartitionReading
from .watching import Facts, Stall, Watch

LOOKS = 4
"""Within the time after which a stall is told: so it is told a quarter late at most."""

MAX_LOOK_S = 15.0


class Overseer:
    """Of one consumer. `run` is its task; the rest may be asked at any time."""

    def __init__(
        self,
        source: Source,
        holdings: Holdings,
        config: ConsumerConfig,
        *,
        holds: Callable[[], bool],
        position: Callable[[Partition], int | None],
        taker_stack: Callable[[], str],
    ) -> None:
        """`position`: of the next record to be handed out; `taker_stack`: where the code is that took records last."""
        self._source = source
        self._holdings = holdings
        self._config = config
        self._holds = holds
        self._position = position
        self._taker_stack = taker_stack
        warn_s = config.stall_warn_s
        self._watch = Watch(math.inf if warn_s is None else warn_s)
        self.taken_at = 0.0
        """When somebody last asked for records, on the loop's clock."""

    @property
    def stalls(self) -> int:
        return self._watch.stalls

    async def run(self) -> None:
        """Until cancelled. Raises what `on_stall` raises."""
        self.taken_at = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            if self._config.lag_interval_s is not None:
                tasks.start_soon(self._ask_ends, self._config.lag_interval_s, name="ends")
            if self._config.stall_warn_s is not None:
                tasks.start_soon(self._look_after, self._config.stall_warn_s, name="stalls")

    # --- how far behind ---

    async def _ask_ends(self, every_s: float) -> None:
        while True:
            await anyio.sleep(every_s)
            if not self._holds():
                continue
            for stream in sorted({partition.stream for partition in self._holdings.held}):
                try:
                    await self.ask_end(stream)
                except DisError as error:
                    log.debug("where %s ends could not be asked: %s", stream, error)

    async def ask_end(self, stream: str) -> None:
        """Ask where the partitions of a stream end. API 5.1.4. Raises what the service answers."""
        info = await self._source.streams.describe(stream)
        for described in info.partitions:
            partition = Partition(stream, partition_id(partition_number(described.partition_id)))
            holding = self._holdings.held.get(partition)
            if holding is not None and described.sequence_range is not None:
                holding.reader.heard_range(described.sequence_range)

    def readings(self) -> tuple[PartitionReading, ...]:
        standing = self._watch.standing
        now = clock.boot()
        wall_ms = clock.wall_ms()
        return tuple(
            self._reading(partition, holding, standing.get(partition), now, wall_ms)
            for partition, holding in sorted(self._holdings.held.items())
        )

    def _reading(
        self, partition: Partition, holding: Holding, stalled: str | None, now: float, wall_ms: int
    ) -> PartitionReading:
        reader, progress = holding
        position = self._position(partition)
        lag = reader.lag(position)
        lag_s: float | None = None
        if lag == 0:
            lag_s = 0.0
        else:
            oldest_ms = self._holdings.prefetch.first_ms(partition) or progress.handed_ms
            if oldest_ms is not None and (lag is not None or self._holdings.prefetch.first(partition) is not None):
                lag_s = max(0.0, (wall_ms - oldest_ms) / 1000)
        return PartitionReading(
            partition=partition,
            position=position,
            committed=progress.committed,
            checkpoint_age_s=None if progress.committed_at is None else now - progress.committed_at,
            end=None if reader.range is None else reader.range.end,
            lag_records=lag,
            lag_s=lag_s,
            paused=tuple(sorted(self._pauses(partition))),
            stalled=stalled,
            last_error=reader.last_error,
        )

    # --- whether they get on ---

    async def _look_after(self, warn_s: float) -> None:
        every_s = min(MAX_LOOK_S, warn_s / LOOKS)
        while True:
            await anyio.sleep(every_s)
            self._holdings.note()
            told, moved = self._watch.look(
                [self._facts(partition, holding) for partition, holding in self._holdings.held.items()],
                anyio.current_time(),
                holds=self._holds(),
                taken_at=self.taken_at,
            )
            for partition in moved:
                log.info("%s/%s gets on again", *partition)
            standing = self._watch.standing
            for partition, (reader, progress) in self._holdings.held.items():
                # What was told may also be a former owner's, and is over once this one gets on, or is at the end.
                gets_on = partition in moved or progress.read or self._is_at_end(reader, progress)
                if progress.note.problem and partition not in standing and gets_on:
                    progress.note = Note("", progress.note.annotation)
            for stall in told:
                self._tell(stall)

    def _is_at_end(self, reader: Reader, progress: Progress) -> bool:
        """Whether everything there is, as far as is known, is finished."""
        return progress.finished is not None and reader.lag(progress.finished >> INDEX_BITS) == 0

    def _facts(self, partition: Partition, holding: Holding) -> Facts:
        reader, progress = holding
        prefetch = self._holdings.prefetch
        unfinished = None
        if progress.unfinished and progress.finished is not None:
            unfinished = progress.finished >> INDEX_BITS
        position = self._position(partition)
        return Facts(
            partition,
            mark=(progress.handed, progress.finished),
            position=position,
            unfinished=unfinished,
            buffered=prefetch.first(partition) is not None,
            pauses=self._pauses(partition),
            behind=reader.lag(position) or 0,
            owed_since=reader.unanswered_since,
            error="" if reader.last_error is None else str(reader.last_error),
            failure="" if reader.cursor.failure is None or reader.cursor.over else str(reader.cursor.failure),
        )

    def _pauses(self, partition: Partition) -> set[str]:
        pauses = set(self._holdings.prefetch.pauses(partition))
        return pauses | {LAYOUT} if self._holdings.crossing.waits(partition) else pauses

    def _tell(self, stall: Stall) -> None:
        stack = ""
        if stall.cause == "unfinished" and self._config.stack_of is not None:
            stack = self._config.stack_of(stall.partition)
        if not stack and stall.cause in ("unfinished", "not taken"):
            stack = self._taker_stack()
        stall = Stall(stall.partition, stall.cause, stall.reason, stall.for_s, stack)
        log.warning(
            "%s/%s has not got on for %.0f s: %s%s",
            *stall.partition,
            stall.for_s,
            stall.reason,
            f"; the code that took records last stands at\n{stack}" if stack else "",
        )
        holding = self._holdings.held.get(stall.partition)
        if holding is not None:
            holding.progress.note = Note(stall.reason, holding.progress.note.annotation)
        if self._config.on_stall is not None:
            self._config.on_stall(stall)
