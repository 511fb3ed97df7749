"""The public object: hands out what its readers fetched.

    start     describe the stream, choose partitions, fix where each begins; one reader task per partition
    running   readers fill the buffer; `fetch` and `async for` take from it, one task at a time
    halted    a partition failed for good: nobody fetches; what was fetched is handed out, then the failure is raised,
              and again by each call, until `seek` sends that partition somewhere else
    closed    readers are cancelled, the buffer is forgotten, whoever waits gets ClosedError

A record is taken from the buffer only when nothing can be awaited any more before it reaches the caller, so cancelling
`fetch` or the step of an `async for` loses nothing.

`async for` iterates over a *run*: some consecutive records of one partition, taken from the buffer at once. The records
of a run that were not handed out are given back whenever somebody needs to know or to change where reading stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter, length_hint
from random import Random
from typing import Literal, Self

import anyio
from anyio.lowlevel import checkpoint

from ..errors import ConcurrencyError, ConfigError, DisError
from ..lifecycle import Scope, Supervisor
from ..model import Partition, Record, StreamInfo
from .assignment import assign, explicit_starts
from .config import ConsumerConfig, to_where
from .cursor import PartitionCursor, Where
from .prefetch import Prefetch
from .reader import Intake, Reader, Source, log

BREATH_S = 0.001
"""How long records are handed out without letting the loop run anything else."""

MAX_RUN = 256
"""Longest run of `async for`: what it costs to start a run is some 10 ns per record then, and a loop body that suddenly
becomes slow is noticed soon."""


@dataclass(frozen=True, slots=True)
class ConsumerStats:
    """A snapshot. Counts are since `start()`."""

    records: int
    """Handed out; those before a seek included."""
    pages: int
    """Fetched with at least one record in them."""
    buffered_bytes: int
    """Fetched and not taken, with the overhead per record. At most prefetch_bytes and one page for each partition."""
    gap_records: int
    """Sequence numbers that never came: expired before they were read, or missing in a page."""
    repeated_records: int
    """Records that the service sent again and that were dropped."""
    retries: int
    """Requests that failed and were made again, beside the client's own."""
    unanswered_since: float | None
    """When (on the loop's clock, `anyio.current_time()`) a page was asked for that still has not come, of the partition
    that waits longest. Moments ago is normal; long ago means that the service fails or hangs. None: none is owed."""
    last_error: DisError | None
    """What asking for that page was last answered with; None: nothing yet."""


class Consumer:
    """Reads the partitions of one stream. Serves one task at a time.

        async with dis.consumer("orders") as consumer:
            async for record in consumer: ...

    Each record comes once, in the order of its partition; between partitions there is no order. Failures that may heal
    are tried again for ever; others (the stream or the partition is gone, credentials are refused, on_expired="raise")
    are raised by `fetch` and `async for` after the records that were fetched before.
    """

    def __init__(
        self, client: Source, stream: str, config: ConsumerConfig | None = None, *, rng: Random | None = None
    ) -> None:
        """`rng` spreads the pauses after failures; tests give a seeded one."""
        if not stream:
            raise ConfigError("stream must not be empty")
        self._client = client
        self._stream = stream
        if config is not None and not isinstance(config, ConsumerConfig):
            raise ConfigError(f"config is a {type(config).__name__}: a consumer takes a ConsumerConfig")
        self._config = config or ConsumerConfig()
        self._rng = rng or Random()
        self._supervisor = Supervisor(f"consumer {stream}", self._body)
        self._prefetch = Prefetch(self._config.prefetch_bytes, self._config.max_fetch_bytes)
        self._intake = Intake(self._prefetch)
        self._readers = self._intake.readers
        self._busy = False
        self._run_of = ""
        self._run: list[Record] = []
        self._rest: Iterator[Record] = iter(())  # over the run: what was not handed out
        self._run_size = 64
        self._breathed_at = 0.0

    # --- lifecycle ---

    async def start(self) -> Self:
        """Choose the partitions and start reading. "latest" means this moment.

        Raises ConfigError (unknown partition), and what describing the stream raises.
        """
        await self._supervisor.start()
        return self

    async def close(self) -> None:
        """Stop reading and forget what was not handed out: nothing is waited for. Twice is fine.

        Raises what made the consumer die, if that was a bug; failures to read were raised by `fetch`.
        """
        await self._supervisor.close()

    async def abort(self) -> None:
        """As `close`, but never raises what made the consumer die."""
        await self._supervisor.abort()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: object) -> None:
        await self.close()

    async def _body(self, scope: Scope) -> None:
        try:
            self._assign(await self._client.streams.describe(self._stream))
            async with anyio.create_task_group() as tasks:
                for reader in self._readers.values():
                    tasks.start_soon(reader.run, name=f"read-{self._stream}-{reader.partition.partition_id}")
                log.info("consumer of %s started on %d partitions", self._stream, len(self._readers))
                scope.started()
                await scope.closing.wait()
                tasks.cancel_scope.cancel()
        finally:
            self._end_run()
            for partition_id in self._readers:
                self._prefetch.drop(partition_id)
            self._intake.notify()  # who waits finds out
            log.info("consumer of %s closed", self._stream)

    def _assign(self, info: StreamInfo) -> None:
        config = self._config
        chosen = assign(info, config.coordination.partitions)
        places: dict[str, Where] = {}
        start: Where = "earliest"
        if isinstance(config.start, Mapping):
            places = explicit_starts(info, config.start)
        else:
            start = to_where("start", config.start)
        for partition_id, partition in chosen.items():
            cursor = PartitionCursor(
                on_expired=config.on_expired,
                refresh_s=config.cursor_refresh_s,
                idle_min_s=config.idle_min_s,
                idle_max_s=config.idle_max_s,
                retry_base_s=config.retry_base_s,
                retry_max_s=config.retry_max_s,
                rng=self._rng,
            )
            cursor.begin(places.get(partition_id, start), partition.sequence_range)
            self._prefetch.add(partition_id)
            self._readers[partition_id] = Reader(
                self._client,
                Partition(self._stream, partition_id),
                info.stream_id,
                cursor,
                self._intake,
                config.max_fetch_bytes,
            )

    # --- taking ---

    async def fetch(self, *, max_records: int = 500, timeout_s: float | None = None) -> list[Record]:
        """Up to `max_records` records, as soon as there are any; in order within a partition.

        Empty after `timeout_s` without a record (0: what is there now; None: wait for ever).
        Raises ClosedError, ConcurrencyError (another task is waiting), and what will not heal.
        Cancellation loses nothing: the next call gets the records.
        """
        if max_records < 1:
            raise ConfigError(f"max_records={max_records}: must be at least 1")
        self._enter()
        try:
            now = anyio.current_time()
            deadline = float("inf") if timeout_s is None else now + timeout_s
            self._end_run()
            if now - self._breathed_at > BREATH_S:
                await self._breathe()
            await self._until_ready(deadline)
            return self._take(max_records) if self._prefetch.ready else []
        finally:
            self._busy = False

    def _take(self, max_records: int) -> list[Record]:
        taken = self._prefetch.take(max_records)
        assert taken is not None
        records = taken[1]
        if len(records) < max_records and self._prefetch.ready:
            records = records.copy()  # the list may still be somebody's page
            while len(records) < max_records and (taken := self._prefetch.take(max_records - len(records))):
                records += taken[1]
        self._intake.share_room()
        return records

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Record:
        """The next record, for ever. Raises and is cancelled as `fetch`."""
        record = next(self._rest, None)
        if record is None:
            await self._next_run()
            record = next(self._rest)
        return record

    async def _next_run(self) -> None:
        self._enter()
        try:
            lasted = anyio.current_time() - self._breathed_at
            if lasted > BREATH_S:
                # Shorter runs for slow loop bodies. If the body waited instead, they are needless but cost it little.
                self._run_size = max(self._run_size // 2, 1)
                await self._breathe()
            elif lasted < BREATH_S / 2:
                self._run_size = min(self._run_size * 2, MAX_RUN)
            await self._until_ready(float("inf"))
            taken = self._prefetch.take(self._run_size)
            assert taken is not None
            self._run_of, self._run = taken
            self._rest = iter(self._run)
            self._intake.share_room()
        finally:
            self._busy = False

    def _enter(self) -> None:
        self._supervisor.check()
        if self._busy:
            raise ConcurrencyError(f"another task is waiting for records of {self._stream!r}: one task at a time")
        self._busy = True

    async def _breathe(self) -> None:
        await checkpoint()
        self._breathed_at = anyio.current_time()

    async def _until_ready(self, deadline: float) -> None:
        """Wait until something can be taken, or until `deadline`; gives the readers one turn at least."""
        turns = 0
        while not self._prefetch.ready:
            self._supervisor.check()
            self._intake.raise_failure()
            if anyio.current_time() < deadline:
                await self._intake.wait(deadline)
                self._breathed_at = anyio.current_time()
            elif turns:
                return
            else:
                await self._breathe()
            turns += 1
        self._supervisor.check()

    def _end_run(self) -> None:
        """Give back what the current run still holds."""
        left = length_hint(self._rest)
        if left:
            self._rest = iter(())
            self._prefetch.give_back(self._run_of, self._run[-left:])
        self._run = []

    # --- where reading stands ---

    def assignment(self) -> frozenset[Partition]:
        """The partitions this consumer reads; empty before `start()`."""
        return frozenset(reader.partition for reader in self._readers.values())

    def position(self, partition: Partition) -> int | None:
        """The sequence number of the next record to be handed out; None while only the service knows it.

        That is so after a start or a seek by time or to an end of the stream, until the first answer.
        """
        reader = self._reader(partition)
        left = length_hint(self._rest)
        if left and self._run_of == partition.partition_id:
            return self._run[-left].sequence_number
        held = self._prefetch.first(partition.partition_id)
        return reader.cursor.next if held is None else held

    def seek(self, partition: Partition, to: Literal["earliest", "latest"] | int | datetime) -> None:
        """Hand out next the record at `to`: a sequence number, an end of the stream, the first one at or after a time.

        What was fetched of the partition is forgotten, and its failure, if it had one. A number that was not written
        yet makes `fetch` raise SequenceOutOfRange, once it has handed out what was fetched of other partitions; for an
        expired one `on_expired` decides.
        """
        reader = self._reader(partition)
        where = to_where("to", to)
        self._end_run()
        self._prefetch.drop(partition.partition_id)
        reader.cursor.seek(where)
        reader.wake()
        self._intake.forgive(partition.partition_id)
        self._intake.share_room()

    def pause(self, partition: Partition) -> None:
        """Hand out and fetch nothing of `partition` until `resume`. What was fetched is kept."""
        self._reader(partition)
        self._end_run()
        self._prefetch.pause(partition.partition_id)

    def resume(self, partition: Partition) -> None:
        """Undo `pause`."""
        reader = self._reader(partition)
        self._prefetch.resume(partition.partition_id)
        reader.wake()
        if self._prefetch.ready:
            self._intake.notify()

    def _reader(self, partition: Partition) -> Reader:
        if not isinstance(partition, Partition):
            raise ConfigError(
                f"{partition!r} is no Partition: use record.partition, or Partition(stream, partition_id)"
            )
        self._supervisor.check()
        reader = self._readers.get(partition.partition_id)
        if reader is None or partition.stream != self._stream:
            raise ConfigError(
                f"{partition} is not assigned to this consumer; it reads {', '.join(self._readers)} of {self._stream!r}"
            )
        return reader

    def stats(self) -> ConsumerStats:
        readers = self._readers.values()
        owed = [(r.unanswered_since, r.last_error) for r in readers if r.unanswered_since is not None]
        unanswered_since, last_error = min(owed, key=itemgetter(0), default=(None, None))
        return ConsumerStats(
            records=self._prefetch.taken_records - length_hint(self._rest),
            pages=sum(r.pages for r in readers),
            buffered_bytes=self._prefetch.held_bytes,
            gap_records=sum(r.cursor.gap_records for r in readers),
            repeated_records=sum(r.cursor.repeated_records for r in readers),
            retries=sum(r.cursor.retries for r in readers),
            unanswered_since=unanswered_since,
            last_error=last_error,
        )
