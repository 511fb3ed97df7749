"""The public object: hands out what its readers fetched.

    start     join the app's group, or choose partitions; one reader task per partition that is held
    running   readers fill the buffer; `fetch` and `async for` take from it, one task at a time
    waiting   nothing is held for now, or the lease ran out: whoever takes waits
    halted    a partition failed for good: nobody fetches; what was fetched is handed out, then the failure is raised,
              and again by each call, until `seek` sends that partition somewhere else, or another member has it
    closed    finished work was committed, the group was left; readers are cancelled, the buffer is forgotten, whoever
              waits gets ClosedError

A record is taken from the buffer only when nothing can be awaited any more before it reaches the caller, so cancelling
`fetch` or the step of an `async for` loses nothing.

`async for` iterates over a *run*: some consecutive records of one partition, taken from the buffer at once. The records
of a run that were not handed out are given back whenever somebody needs to know or to change where reading stands.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from operator import itemgetter, length_hint
from random import Random
from typing import Any, Literal, Self

import anyio
from anyio.lowlevel import checkpoint

from .. import clock
from ..errors import ConcurrencyError, ConfigError, DisError, LeaseLost
from ..lifecycle import Scope, Supervisor, loop_time
from ..model import Partition, Record
from ..wire.annotations import MAX_ANNOTATION_CHARS, Note, json_chars
from .assignment import assign
from .config import ConsumerConfig, Leases, Pattern, ServiceGroup, Static, to_where
from .holdings import GAP, Holding, Holdings
from .keeper import AppSource
from .leasing import Leasing
from .member import GroupSource, Member
from .membership import CLOSE_COMMIT_S, Membership
from .notices import Notices, NoticeSource
from .overseer import Overseer
from .progress import INDEX_BITS, Progress, first_place, place_behind, place_of
from .reader import Source
from .stacks import task_stack
from .stats import ConsumerStats

log = logging.getLogger("disstream.consumer")

BREATH_S = 0.001
"""How long records are handed out without letting the loop run anything else."""

MAX_RUN = 256
"""Longest run of `async for`: what it costs to start a run is some 10 ns per record then, and a loop body that suddenly
becomes slow is noticed soon."""


class Consumer:
    """Reads streams, alone or as a member of an app's group. Serves one task at a time.

        async with dis.consumer("orders", app="billing") as consumer:
            async for record in consumer: ...

    Without a failure each record comes once, in the order of its partition; between partitions there is no order. With
    an app the members share the partitions, and whoever takes one over begins at its checkpoint: records that were
    handed out but not finished, or finished but not committed, come again (at least once). A record is finished when
    the one behind it is asked for (see `ConsumerConfig.finish`).

    Failures that may heal are tried again for ever; others (the stream or the partition is gone, credentials are
    refused, on_expired="raise") are raised by `fetch` and `async for` after the records that were fetched before.
    """

    def __init__(
        self,
        client: Source,
        streams: str | Sequence[str] | Pattern,
        config: ConsumerConfig | None = None,
        *,
        app: str | None = None,
        rng: Random | None = None,
    ) -> None:
        """`rng` spreads the pauses after failures; tests give a seeded one."""
        if config is not None and not isinstance(config, ConsumerConfig):
            raise ConfigError(f"config is a {type(config).__name__}: a consumer takes a ConsumerConfig")
        if app is not None and not app:
            raise ConfigError("app must not be empty: give the app's name, or leave it out to read without checkpoints")
        self._client = client
        self._subscription = _subscription(streams)
        self._app = app
        self._config = config = config or ConsumerConfig()
        self._coordination = config.coordination or (ServiceGroup() if app is not None else Static())
        if isinstance(self._coordination, ServiceGroup | Leases) and app is None:
            kind = type(self._coordination).__name__
            raise ConfigError(f"{kind}() shares the partitions among the consumers of an app: give app=NAME")
        _check_start(config.start, self._subscription)
        rng = rng or Random()
        self._name = streams if isinstance(streams, str) else str(self._subscription)
        self._supervisor = Supervisor(f"consumer {self._name}", self._body)
        self._holdings = Holdings(client, app, config, rng)
        self._holdings.note = self._note
        self._holdings.recall = self._end_run
        self._prefetch = self._holdings.prefetch
        self._intake = self._holdings.intake
        self._notices: Notices | None = None
        if config.wait and isinstance(client, NoticeSource):
            self._notices = Notices(client.notices, self._intake.readers, rng, config.push_bytes)
            self._holdings.changed = self._notices.changed
        self._member: Membership | None = None
        if isinstance(self._coordination, ServiceGroup):
            assert app is not None
            if not isinstance(client, GroupSource):
                raise ConfigError(f"{type(client).__name__} cannot speak the group protocol: use Static()")
            self._member = Member(client, app, self._subscription, config, self._coordination, self._holdings, rng)
        elif isinstance(self._coordination, Leases):
            assert app is not None
            if not isinstance(client, AppSource):
                raise ConfigError(f"{type(client).__name__} knows no apps: leases are those of an app")
            self._member = Leasing(client, app, self._subscription, config, self._coordination, self._holdings, rng)
        self._lease = self._member.lease if self._member is not None else None
        self._explicit = config.finish == "explicit"
        self._busy = False
        self._in_hand: list[Progress] = []  # of what was handed out last
        self._run_of: Partition | None = None
        self._run: list[Record] = []
        self._rest: Iterator[Record] = iter(())  # over the run: what was not handed out
        self._run_size = 64
        self._breathed_at = 0.0
        self._taker: asyncio.Task[Any] | None = None  # who took records last
        self._overseer = Overseer(
            client,
            self._holdings,
            config,
            holds=lambda: self._member is None or self._member.holds,
            position=self._position,
            taker_stack=lambda: "" if self._taker is None else task_stack(self._taker),
        )

    # --- lifecycle ---

    async def start(self) -> Self:
        """Join the group, or choose the partitions and start reading. Without an app "latest" means this moment.

        In a group the first assignment comes later: `fetch` waits for it. Raises ConfigError (unknown partition),
        NotFoundError (no such stream), CoordinationUnsupported (the endpoint serves no groups), AuthError.
        """
        await self._supervisor.start()
        return self

    async def close(self) -> None:
        """Commit what is finished, leave the group, stop reading. Records in hand are not waited for. Twice is fine.

        A record is not finished by leaving the loop: call `record_done` for the last one, or `commit` covers it not.
        Raises what made the consumer die, if that was a bug; failures to read were raised by `fetch`. Raises
        ConcurrencyError within a callback.
        """
        if self._member is not None:
            self._member.callbacks.check_not_within("close")
        await self._supervisor.close()

    async def abort(self) -> None:
        """Leave the group and stop, without a commit. Never raises what made the consumer die."""
        if self._member is not None:
            self._member.callbacks.check_not_within("abort")
        await self._supervisor.abort()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: object) -> None:
        await self.close()

    async def _body(self, scope: Scope) -> None:
        member = self._member
        try:
            async with anyio.create_task_group() as tasks:
                self._holdings.attach(tasks)
                if self._notices is not None:
                    tasks.start_soon(self._notices.run, name=f"notices-{self._name}")
                async with anyio.create_task_group() as starting:
                    starting.start_soon(self._cut_when_closing, scope, starting.cancel_scope)
                    await (member.join() if member is not None else self._open_static())
                    starting.cancel_scope.cancel()
                if scope.closing.is_set():
                    tasks.cancel_scope.cancel()
                    return
                coordination = anyio.CancelScope()
                coordinated = anyio.Event()
                tasks.start_soon(self._coordinate, coordination, coordinated, name=f"coordinate-{self._name}")
                log.info("consumer of %s started", self._name)
                scope.started()
                await scope.closing.wait()
                with anyio.move_on_after(CLOSE_COMMIT_S):
                    await self._holdings.between_commits(coordination.cancel)
                coordination.cancel()
                await coordinated.wait()
                if member is not None:
                    await member.close()
                elif self._app is not None:
                    with anyio.move_on_after(CLOSE_COMMIT_S) as commit:
                        await self._commit_quietly()
                    if commit.cancelled_caught:
                        log.warning("consumer of %s: finished work was not committed in time", self._name)
                tasks.cancel_scope.cancel()
        finally:
            if member is not None:
                await member.leave()
            self._end_run()
            self._holdings.drop(self._holdings.held.keys())
            self._intake.notify()  # who waits finds out
            log.info("consumer of %s closed", self._name)

    async def _cut_when_closing(self, scope: Scope, starting: anyio.CancelScope) -> None:
        """A close does not wait for a start that gets no answer."""
        await scope.closing.wait()
        starting.cancel()

    async def _coordinate(self, life: anyio.CancelScope, ended: anyio.Event) -> None:
        """Everything that changes what is held, or commits by itself, until `life` is cancelled."""
        with life:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._overseer.run, name="overseer")
                if self._member is not None:
                    tasks.start_soon(self._member.run, name="member")
                if self._app is not None and self._config.auto_commit_s is not None:
                    tasks.start_soon(self._auto_commit, self._config.auto_commit_s, name="auto-commit")
                tasks.start_soon(self._holdings.crossing.run, self._commit_finished, name="crossing")
        ended.set()

    async def _open_static(self) -> None:
        assert isinstance(self._coordination, Static)
        wanted = self._coordination.partitions
        streams = self._subscription
        if isinstance(streams, Pattern):
            streams = tuple([s.name async for s in self._client.streams.list() if streams.matches(s.name)])
            if not streams:
                raise ConfigError(f"no stream matches {self._subscription}")
        if wanted is not None and len(streams) > 1:
            raise ConfigError(f"Static({wanted!r}) names partitions of one stream, not of {len(streams)}")
        partitions: list[Partition] = []
        infos = {}
        for stream in streams:
            infos[stream] = info = await self._holdings.describe(stream)
            partitions += [Partition(stream, partition_id) for partition_id in assign(info, wanted)]
        fresh: frozenset[str] = frozenset()
        if self._app is not None:
            await self._holdings.ensure_app()
            fresh = await self._holdings.never_read(streams)
        await self._holdings.open(partitions, fresh, infos)

    def _check(self) -> None:
        """Raises ClosedError unless it runs. While it closes, `on_revoked` may still commit and ask."""
        if self._member is None or not self._member.callbacks.running:
            self._supervisor.check()

    # --- committing ---

    async def commit(self) -> dict[Partition, int]:
        """Commit all finished work now. Returns what is committed: the number of the next record of each partition.

        API 5.3.1, one request for each partition that moved. The record or batch in hand is not finished until the next
        one is asked for, or `record_done` is called.
        Raises LeaseLost (once, if partitions were lost with work that no commit covers: it will be done again),
        StaleGeneration (another member has them), and what the service answers.
        Cancellation: some partitions may be committed, some not.
        """
        self._check()
        self._holdings.app_source()
        try:
            if self._member is None or not self._member.callbacks.running:  # a callback cannot do anything about it
                self._tell_lost()
            return await self._holdings.commit()
        except DisError as error:
            if self._member is not None:
                self._member.callbacks.commit_failed(error)
                self._member.heed(error)
            raise

    def _tell_lost(self) -> None:
        if lost := self._holdings.lost:
            names = ", ".join(f"{p.stream}/{p.partition_id}" for p in sorted(lost)[:10])
            count = len(lost)
            lost.clear()
            raise LeaseLost(f"{count} partition(s) were lost with work that was not committed: {names}")

    def record_done(self, record: Record) -> None:
        """This record is finished. With finish="explicit" the only way to say so; in any order.

        Otherwise it also finishes the records of its partition handed out before it, without asking for the next. Of
        a partition that this consumer does not hold any more it does nothing.
        """
        partition = record.partition
        holding = self._holdings.held.get(partition)
        if holding is None:
            return
        progress = holding.progress
        progress.done(record)
        if self._explicit and progress.outstanding <= self._config.max_gap:
            self._unpause(partition, holding, GAP)
        if not progress.unfinished:
            self._holdings.notify_finished()
        self._holdings.crossing.look(partition.stream)

    def may_act(self, partition: Partition) -> bool:
        """Whether the partition is this consumer's now, by its own clock: what to ask before work on a record begins.

        False also while the membership is unheard; what is held then may be its own again, or another's by now.
        """
        held = partition in self._holdings.held
        return held and (self._lease is None or clock.boot() < self._lease.deadline)

    def owes(self, record: Record) -> bool:
        """finish="explicit": whether this record was handed out and `record_done` of it would still do something.

        Not if its partition was taken away meanwhile, even if it came back: then the record comes again.
        """
        holding = self._holdings.held.get(record.partition)
        return holding is not None and holding.progress.owes(record)

    def holds_up(self, partition: Partition) -> bool:
        """Whether records behind a change of the stream's partitions wait for what was handed out of this one, and
        nothing more comes of it before."""
        return partition in self._holdings.held and self._holdings.crossing.holds_up(partition)

    def set_aside(self, records: Iterable[Record]) -> None:
        """finish="explicit": work on these has not begun, so a hand-over need not wait for them to be finished.

        They may be finished later, if the partition stays after all; else whoever gets it reads them again.
        """
        for record in records:
            if (holding := self._holdings.held.get(record.partition)) is not None:
                holding.progress.set_aside(record)
        self._holdings.notify_finished()

    def annotate(self, partition: Partition, text: str) -> None:
        """Keep `text` with the partition's checkpoint: the next commit writes both at once, even if nothing else moved.

        Whoever reads the partition next gets it from `annotation`: a small memory that a hand-over does not lose. ""
        takes it away. Raises ConfigError: without an app, a partition not held, more than 600 characters as JSON.
        """
        self._holdings.app_source()
        progress = self._holding(partition).progress
        try:
            length = json_chars(text)
        except UnicodeEncodeError as exc:
            raise ConfigError(f"an annotation that is no text: {exc}") from exc
        if length > MAX_ANNOTATION_CHARS:
            raise ConfigError(
                f"an annotation of {length} characters (as JSON) for {partition}: use at most {MAX_ANNOTATION_CHARS}"
            )
        progress.note = Note(progress.note.problem, text)

    def annotation(self, partition: Partition) -> str:
        """What is kept with the partition's checkpoint, or was said since; "" if nothing is."""
        return self._holding(partition).progress.note.annotation

    async def _auto_commit(self, every_s: float) -> None:
        while True:
            await anyio.sleep(every_s)
            await self._commit_finished()

    async def _commit_finished(self) -> None:
        if self._member is None:
            await self._commit_quietly()
        elif self._member.holds:
            await self._member.commit_finished()

    async def _commit_quietly(self) -> None:
        try:
            await self._holdings.commit()
        except DisError as error:
            log.warning("consumer of %s: finished work could not be committed: %s", self._name, error)

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
            now = self._overseer.taken_at = loop_time()
            deadline = float("inf") if timeout_s is None else now + timeout_s
            self._end_run()
            self._finish_in_hand()
            if now - self._breathed_at > BREATH_S:
                await self._breathe()
            return self._take(max_records) if await self._until_ready(deadline) else []
        finally:
            self._busy = False

    def _take(self, max_records: int) -> list[Record]:
        taken = self._prefetch.take(max_records)
        assert taken is not None
        records = taken[1]
        self._handed_out(*taken)
        if len(records) < max_records and self._prefetch.ready:
            records = records.copy()  # the list may still be somebody's page
            while len(records) < max_records and (taken := self._prefetch.take(max_records - len(records))):
                self._handed_out(*taken)
                records += taken[1]
        self._intake.share_room()
        return records

    def _handed_out(self, partition: Partition, run: list[Record]) -> None:
        progress = self._holdings.held[partition].progress
        if progress.finished is None:
            progress.begin(place_of(run[0]))
        places = [r.sequence_number << INDEX_BITS | r.index for r in run] if self._explicit else ()
        progress.hand_out(place_behind(run[-1]), places)
        progress.handed_ms = run[-1].timestamp
        if not self._explicit:
            self._in_hand.append(progress)
        elif progress.outstanding > self._config.max_gap:
            self._prefetch.pause(partition, GAP)

    def _finish_in_hand(self) -> None:
        """What was handed out before is finished: the next is asked for."""
        if self._in_hand:
            for progress in self._in_hand:
                progress.finish_handed()
            self._in_hand.clear()
            self._holdings.notify_finished()
            self._holdings.crossing.look()

    def _note(self) -> None:
        """Of the current run all is finished but the record handed out last."""
        handed = len(self._run) - length_hint(self._rest)
        if handed and self._run_of is not None and (holding := self._holdings.held.get(self._run_of)) is not None:
            holding.progress.finish_below(place_of(self._run[handed - 1]))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Record:
        """The next record, for ever. Raises and is cancelled as `fetch`."""
        if self._lease is not None and clock.boot() >= self._lease.deadline:
            self._end_run()  # before each record: a stopped process may have lost its partitions in the middle of a run
        for record in self._rest:  # the next one, if there is one: an eighth of the step less than asking `next`
            return record
        await self._next_run()
        return next(self._rest)

    async def _next_run(self) -> None:
        self._enter()
        try:
            self._finish_in_hand()
            self._overseer.taken_at = now = loop_time()
            lasted = now - self._breathed_at
            if lasted > BREATH_S:
                # Shorter runs for slow loop bodies. If the body waited instead, they are needless but cost it little.
                self._run_size = max(self._run_size // 2, 1)
                await self._breathe()
            elif lasted < BREATH_S / 2:
                self._run_size = min(self._run_size * 2, MAX_RUN)
            await self._until_ready(float("inf"))
            taken = self._prefetch.take(self._run_size)
            assert taken is not None
            self._handed_out(*taken)
            self._run_of, self._run = taken
            self._rest = iter(self._run)
            self._intake.share_room()
        finally:
            self._busy = False

    def _enter(self) -> None:
        self._supervisor.check()
        if self._member is not None:
            self._member.callbacks.check_not_within("fetch")
        if self._busy:
            raise ConcurrencyError(f"another task is waiting for records of {self._name!r}: one task at a time")
        self._busy = True
        self._taker = asyncio.current_task()

    async def _breathe(self) -> None:
        await checkpoint()
        self._breathed_at = loop_time()

    async def _until_ready(self, deadline: float) -> bool:
        """Wait until something may be taken (True), or until `deadline`; gives the readers one turn at least."""
        turns = 0
        member = self._member
        while not (self._prefetch.ready and (member is None or member.holds)):
            self._supervisor.check()
            self._intake.raise_failure()
            if member is not None and member.stall_to_tell:
                member.stall_to_tell = False
                raise LeaseLost("the event loop was blocked for longer than max_stall_s: the partitions were given up")
            if loop_time() < deadline:
                await self._intake.wait(deadline)
                self._breathed_at = loop_time()
            elif turns:
                return False
            else:
                await self._breathe()
            turns += 1
        self._supervisor.check()
        return True

    def _end_run(self) -> None:
        """Give back what the current run still holds."""
        self._note()
        left = length_hint(self._rest)
        if left:
            self._rest = iter(())
            assert self._run_of is not None
            holding = self._holdings.held.get(self._run_of)
            if holding is not None:  # else it was dropped, and so is what was fetched of it
                self._prefetch.give_back(self._run_of, self._run[-left:])
                holding.progress.take_back(place_of(self._run[-left]))
                if self._explicit and holding.progress.outstanding <= self._config.max_gap:
                    self._unpause(self._run_of, holding, GAP)
        self._run = []

    # --- where reading stands ---

    def assignment(self) -> frozenset[Partition]:
        """The partitions this consumer holds; empty before the first assignment."""
        return frozenset(self._holdings.held)

    def position(self, partition: Partition) -> int | None:
        """The sequence number of the next record to be handed out; None while only the service knows it.

        Between records of one envelope it is theirs: a seek there would begin with the first of them.
        That is so after a start or a seek by time or to an end of the stream, until the first answer.
        """
        self._holding(partition)
        return self._position(partition)

    def _position(self, partition: Partition) -> int | None:
        left = length_hint(self._rest)
        if left and self._run_of == partition:
            return self._run[-left].sequence_number
        held = self._prefetch.first(partition)
        return self._holdings.held[partition].reader.cursor.next if held is None else held

    async def lag(self) -> dict[Partition, int]:
        """Of each partition held, how many records were written that were not handed out yet. Asks the service.

        API 5.1.4. A partition whose position only the service knows yet counts from its oldest record.
        """
        self._check()
        lag: dict[Partition, int] = {}
        for stream in sorted({p.stream for p in self._holdings.held}):
            await self._overseer.ask_end(stream)
        for partition, (reader, _) in sorted(self._holdings.held.items()):
            if reader.range is not None:
                at = self._position(partition)
                behind = reader.lag(reader.range.start if at is None else at)
                assert behind is not None
                lag[partition] = behind
        return lag

    def seek(self, partition: Partition, to: Literal["earliest", "latest"] | int | datetime) -> None:
        """Hand out next the record at `to`: a sequence number, an end of the stream, the first one at or after a time.

        What was fetched of the partition is forgotten, and its failure, if it had one. A number that was not written
        yet makes `fetch` raise SequenceOutOfRange, once it has handed out what was fetched of other partitions; for an
        expired one `on_expired` decides. The next commit says where reading goes on from there. What is read again is
        read in order: partitions that stand behind a change of the layout wait for one sent back before it.
        """
        reader, progress = self._holding(partition)
        where = to_where("to", to)
        self._end_run()
        self._prefetch.drop(partition)
        self._prefetch.resume(partition, GAP)
        progress.seek(first_place(where) if isinstance(where, int) else None)
        self._holdings.notify_finished()
        reader.seek(where)
        self._holdings.crossing.moved(partition)
        self._intake.forgive(partition)
        self._intake.share_room()

    def pause(self, partition: Partition) -> None:
        """Hand out and fetch nothing of `partition` until `resume`. What was fetched is kept."""
        self._holding(partition)
        self._end_run()
        self._prefetch.pause(partition)

    def resume(self, partition: Partition) -> None:
        """Undo `pause`."""
        self._unpause(partition, self._holding(partition), "")

    def _unpause(self, partition: Partition, holding: Holding, why: str) -> None:
        self._prefetch.resume(partition, why)
        holding.reader.wake()
        if self._prefetch.ready:
            self._intake.notify()

    def _holding(self, partition: Partition) -> Holding:
        if not isinstance(partition, Partition):
            raise ConfigError(
                f"{partition!r} is no Partition: use record.partition, or Partition(stream, partition_id)"
            )
        self._check()
        holding = self._holdings.held.get(partition)
        if holding is None:
            names = ", ".join(f"{p.stream}/{p.partition_id}" for p in sorted(self._holdings.held)[:20])
            raise ConfigError(f"{partition} is not assigned to this consumer; it holds {names or 'nothing now'}")
        return holding

    def stats(self) -> ConsumerStats:
        readers = self._intake.readers.values()
        ended = self._holdings.ended
        owed = [(r.unanswered_since, r.last_error) for r in readers if r.unanswered_since is not None]
        unanswered_since, last_error = min(owed, key=itemgetter(0), default=(None, None))
        return ConsumerStats(
            records=self._prefetch.taken_records - length_hint(self._rest),
            pages=ended.pages + sum(r.pages for r in readers),
            buffered_bytes=self._prefetch.held_bytes,
            gap_records=ended.gap_records + sum(r.cursor.gap_records for r in readers),
            undecoded_records=self._holdings.opener.undecoded,
            repeated_records=ended.repeated_records + sum(r.cursor.repeated_records for r in readers),
            retries=ended.retries + sum(r.cursor.retries for r in readers),
            unanswered_since=unanswered_since,
            last_error=last_error,
            assigned=len(self._holdings.held),
            generation=self._member.generation if self._member is not None else None,
            rebalances=self._member.rebalances if self._member is not None else 0,
            lapses=self._member.lapses if self._member is not None else 0,
            throttled=ended.throttled + sum(r.throttled for r in readers),
            replayed_records=ended.replayed_records,
            stalls=self._overseer.stalls,
            partitions=self._overseer.readings(),
            held_partitions=self._holdings.crossing.held(),
            awaited_partitions=self._holdings.crossing.awaited(),
        )


def _subscription(streams: str | Sequence[str] | Pattern) -> tuple[str, ...] | Pattern:
    if isinstance(streams, Pattern):
        return streams
    names = (streams,) if isinstance(streams, str) else tuple(streams)
    if not names:
        raise ConfigError("no stream: give a name, several, or a Pattern")
    for name in names:
        if not isinstance(name, str) or not name:
            raise ConfigError(f"stream {name!r}: must be a name that is not empty")
    if len(set(names)) < len(names):
        raise ConfigError(f"streams {list(names)} name one twice")
    return names


def _check_start(start: object, subscription: tuple[str, ...] | Pattern) -> None:
    """Raises ConfigError if it names a partition of a stream that is never read: a typo must not go unseen."""
    for partition in start if isinstance(start, Mapping) else ():
        if isinstance(partition, Partition) and not (
            subscription.matches(partition.stream)
            if isinstance(subscription, Pattern)
            else partition.stream in subscription
        ):
            raise ConfigError(f"start names {partition}, but this consumer reads {subscription}")
