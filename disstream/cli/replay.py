"""`disstream replay`: read a window of time again under another app's name, without touching the real one.

The window is cut once, at the start: of each partition the first record written at or after --from, up to, not
including, the first one at or after --to, or what was the end then. The shadow app's checkpoints say how far it is, and
beside them, in the metadata, for which window: so the same command goes on where the last one stopped, and a checkpoint
that something else wrote is not taken for that.

It reads the partitions itself, without a group, and commits by itself: a shadow app has no members.
"""

from __future__ import annotations

import inspect
import shutil
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

import anyio
import click
import msgspec

from ..client.config import Body
from ..consumer import Consumer, ConsumerConfig, Static
from ..door import DisClient
from ..errors import DisError, NotFoundError, WaitTimeout
from ..model import Partition, PartitionInfo, PartitionState, Record
from ..wire.checkpoints import position, sealed
from . import formats
from .facts import group_of
from .loading import load
from .places import Positive, Start, first_since, partition_ids
from .running import reader_left, run, say
from .session import Target, body_option, connects, given

FETCH_RECORDS = 2000

COMMIT_S = 5.0
"""How often it is noted how far it is: what a run that is killed does again."""

LAST_COMMIT_S = 10.0
"""For the commit of a run that ends early."""


class Window(NamedTuple):
    """Of one partition: from `begin` up to, not including, `end`. It is read up to `place` already."""

    partition_id: str
    begin: int
    end: int
    place: int


class _Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands in the metadata of a shadow app's checkpoint: the window as it was given."""

    replay: tuple[str, str]


_mark_decoder = msgspec.json.Decoder(_Mark)


@click.command()
@click.argument("stream")
@click.option(
    "--from",
    "start",
    type=Start(),
    required=True,
    metavar="earliest|ISO-TIME",
    help="The window begins here: with the first record written at this time or later. Without an offset it is local "
    "time.",
)
@click.option(
    "--to",
    "end",
    type=Start(),
    default="latest",
    metavar="latest|ISO-TIME",
    help="The window ends here: in front of the first record written at this time or later. In any case it ends at "
    "what was the newest record when the command began.",
)
@click.option(
    "--app",
    "shadow",
    required=True,
    callback=given,
    metavar="SHADOW",
    help="The app whose checkpoints say how far the replay is (made if absent). Not the real one: one of its own.",
)
@click.option(
    "--partition",
    "partitions",
    multiple=True,
    callback=partition_ids,
    metavar="P",
    help="This partition only: 0 or shardId-0000000000. May be given several times.",
)
@click.option(
    "--handler",
    metavar="MODULE:HANDLER",
    help="Call this function with each record instead of printing it, one after the other; it may be a coroutine "
    "function. What it raises ends the replay in front of that record.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "raw", "table"]),
    default="jsonl",
    help="How records are printed, as consume does it.",
)
@click.option("--force", is_flag=True, help="Begin at --from, whatever checkpoints SHADOW has.")
@click.option(
    "--timeout",
    "timeout_s",
    type=Positive(),
    default=30.0,
    metavar="SECONDS",
    help="Give up when nothing could be read for so long.",
)
@body_option
@connects
def replay(
    target: Target,
    stream: str,
    start: str | int | datetime,
    end: str | int | datetime,
    shadow: str,
    partitions: tuple[str, ...],
    handler: str | None,
    form: str,
    force: bool,
    timeout_s: float,
    body: Body,
) -> None:
    """Read a window of time of STREAM again: print its records, or hand them to --handler.

    The real app is not touched: neither its checkpoints nor its members. The same command again goes on where the last
    one stopped, by SHADOW's checkpoints; a run that was killed does up to five seconds of it again. Order holds within
    a partition. One replay for a SHADOW at a time. Ends with a line of counts on standard error.

    Refused if SHADOW has members, or, without --force, checkpoints that are not of this window. Exit code 1 if the
    window was not read to its end.

    \b
    Examples:
      disstream replay orders --from 2026-11-21T08:00 --to 2026-11-21T09:00 --app billing-check > hour.jsonl
      disstream replay orders --from 2026-11-21T08:00 --app billing-check --handler handlers:handle
    """
    if isinstance(start, int) or start == "latest":
        raise click.UsageError(f"--from {start}: give a time or earliest")
    if isinstance(end, int) or end == "earliest":
        raise click.UsageError(f"--to {end}: give a time or latest")
    if isinstance(start, datetime) and isinstance(end, datetime) and not start < end:
        raise click.UsageError(f"--to {end.isoformat()}: must be later than --from {start.isoformat()}")
    replaying = _Replay(stream, shadow, start, end, timeout_s, _taker(handler, form))

    async def work() -> None:
        async with target.connect(timeout_s, body=body) as dis:
            await replaying.run(dis, partitions, force=force)

    try:
        run(work)
    except KeyboardInterrupt:
        replaying.tell()
        raise click.ClickException("interrupted before the end: the same command goes on there") from None
    except BrokenPipeError:
        reader_left(sys.stdout)  # it has seen enough
    except DisError:
        replaying.tell()
        raise
    except HandlerFailed as failed:
        replaying.tell()
        traceback.print_exception(failed.error)
        raise click.ClickException(str(failed)) from None
    else:
        replaying.tell()


class HandlerFailed(Exception):
    """The user's function raised."""

    def __init__(self, record: Record, error: Exception) -> None:
        super().__init__(
            f"the handler raised {type(error).__name__} at record {record.sequence_number} of {record.partition_id}: "
            "the same command goes on with this record"
        )
        self.error = error


Done = Callable[[Record], Awaitable[None]]
"""Told of each record that is done. It may commit, so that slow handlers leave no more behind than quick ones."""

Taker = Callable[[Sequence[Record], Done], Awaitable[None]]
"""Takes records, and says of each that it is done."""


def _taker(handler: str | None, form: str) -> Taker:
    if handler is not None:
        function = load(handler, "--handler")

        async def handle(records: Sequence[Record], done: Done) -> None:
            for record in records:
                try:
                    if inspect.iscoroutinefunction(function):
                        await function(record)
                    else:
                        # In a thread: what it waits for must not hold up reading.
                        outcome = await anyio.to_thread.run_sync(function, record)
                        if inspect.isawaitable(outcome):
                            await outcome
                except Exception as error:
                    raise HandlerFailed(record, error) from error
                await done(record)

        return handle
    if sys.stdout is None:
        raise click.ClickException("standard output is closed: there is nowhere to write the records")
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    render = formats.renderer(form, width)
    out = sys.stdout.buffer
    if form == "table":
        out.write(formats.table_header(width))

    async def write(records: Sequence[Record], done: Done) -> None:
        out.write(b"".join(map(render, records)))
        out.flush()
        for record in records:
            await done(record)

    return write


class _Replay:
    def __init__(
        self,
        stream: str,
        shadow: str,
        start: str | datetime,
        end: str | datetime,
        timeout_s: float,
        take: Taker,
    ) -> None:
        self._stream = stream
        self._shadow = shadow
        self._start = start
        self._end = end
        self._timeout_s = timeout_s
        self._take = take
        self._mark = msgspec.json.encode(_Mark((_named(start), _named(end)))).decode()
        self._next: dict[str, int] = {}
        self._committed: dict[str, int] = {}
        self._committed_at = 0.0
        self.records = 0
        self.windows: list[Window] = []

    def tell(self) -> None:
        """The line of counts, once there is something to count."""
        if not self.windows:
            return
        left = sum(max(0, w.end - self._next.get(w.partition_id, w.place)) for w in self.windows)
        rest = f", {left} left" if left else ""
        say(f"replayed {self.records} records of {self._stream} for {self._shadow}{rest}", err=True)

    async def run(self, dis: DisClient, partitions: Sequence[str], *, force: bool) -> None:
        await self._ensure_app(dis)
        group = await group_of(dis, self._shadow)
        if group is not None and group.members:
            named = ", ".join(member.member_id for member in group.members)
            raise click.ClickException(
                f"{named} read for {self._shadow}: a replay is for an app of its own, choose another --app"
            )
        states = _chosen(await dis.apps.state(self._shadow, self._stream), self._stream, partitions)
        self.windows = [await self._window(dis, state, force=force) for state in states]
        for window in self.windows:
            self._next[window.partition_id] = window.place
            state = next(s for s in states if s.partition_id == window.partition_id)
            if state.checkpoint is None or force:
                await self._commit_one(dis, window.partition_id)
            else:
                self._committed[window.partition_id] = window.place
        open_ones = [window for window in self.windows if window.place < window.end]
        if not open_ones:
            return
        config = ConsumerConfig(
            coordination=Static([window.partition_id for window in open_ones]),
            start={window.partition_id: window.place for window in open_ones},
        )
        try:
            async with dis.consumer(self._stream, config) as consumer:
                await self._read_on(consumer, partial(self._done, dis), open_ones)
        finally:
            with anyio.move_on_after(LAST_COMMIT_S, shield=True):
                await self._commit(dis)

    async def _ensure_app(self, dis: DisClient) -> None:
        try:
            await dis.apps.describe(self._shadow)
        except NotFoundError:
            await dis.apps.create(self._shadow)

    # --- the window ---

    async def _window(self, dis: DisClient, state: PartitionState, *, force: bool) -> Window:
        begin = await self._place(dis, state, self._start, state.earliest)
        end = max(begin, min(await self._place(dis, state, self._end, state.latest), state.latest))
        if state.checkpoint is None or force:
            return Window(state.partition_id, begin, end, begin)
        following, metadata = position(state.checkpoint)
        mark = _read_mark(metadata)
        if mark is None or metadata != self._mark:
            found = "that no replay wrote" if mark is None else f"of a replay from {mark[0]} to {mark[1]}"
            raise click.ClickException(
                f"{self._shadow} has a checkpoint on {state.partition_id} {found} (next to read: {following}): choose "
                "another --app, or --force to begin at --from"
            )
        if (lost := min(state.earliest, end) - following) > 0:
            say(f"{state.partition_id}: {lost} records of the window expired before they were read", err=True)
        return Window(state.partition_id, begin, end, max(following, state.earliest))

    async def _place(self, dis: DisClient, state: PartitionState, time: str | datetime, otherwise: int) -> int:
        # A time that is still to come has no record; some services refuse to look for it.
        if not isinstance(time, datetime):
            return otherwise
        if time > datetime.now(UTC):
            return state.latest
        first = await first_since(dis, self._stream, state.partition_id, time)
        return state.latest if first is None else min(max(first, state.earliest), state.latest)

    # --- reading ---

    async def _read_on(self, consumer: Consumer, done: Done, windows: Iterable[Window]) -> None:
        ends = {window.partition_id: window.end for window in windows}
        written_at = self._committed_at = anyio.current_time()
        while ends:
            batch = await consumer.fetch(max_records=FETCH_RECORDS, timeout_s=0.5)
            mine = [r for r in batch if r.sequence_number < ends.get(r.partition_id, 0)]
            if mine:
                await self._take(mine, done)
                written_at = anyio.current_time()
            for partition, end in list(ends.items()):
                where = Partition(self._stream, partition)
                if (consumer.position(where) or 0) >= end:
                    consumer.pause(where)
                    self._next[partition] = end  # where the last record of the window is missing, too
                    del ends[partition]
            since = consumer.stats().unanswered_since
            waited_s = 0.0 if since is None else anyio.current_time() - max(since, written_at)
            if not batch and waited_s >= self._timeout_s:
                raise WaitTimeout(
                    f"nothing could be read for {self._timeout_s:g} s; the last error: "
                    f"{consumer.stats().last_error or 'none, it does not answer at all'}"
                )

    async def _done(self, dis: DisClient, record: Record) -> None:
        self.records += 1
        # Records out of one envelope share a number: behind it when the last one is done.
        self._next[record.partition_id] = record.sequence_number + (record.index + 1 >= record.count)
        if anyio.current_time() - self._committed_at >= COMMIT_S:
            await self._commit(dis)
            self._committed_at = anyio.current_time()

    # --- checkpoints ---

    async def _commit(self, dis: DisClient) -> None:
        for partition, place in list(self._next.items()):
            if self._committed.get(partition) != place:
                await self._commit_one(dis, partition)

    async def _commit_one(self, dis: DisClient, partition: str) -> None:
        place = self._next[partition]
        kept = sealed(place, read=False, metadata=self._mark)
        await dis.checkpoints.commit(
            self._shadow, self._stream, partition, kept.sequence_number, metadata=kept.metadata
        )
        self._committed[partition] = place


def _chosen(states: Sequence[PartitionState], stream: str, partitions: Sequence[str]) -> list[PartitionState]:
    readable = {state.partition_id: state for state in states if state.status in PartitionInfo.READABLE}
    if unknown := [partition for partition in partitions if partition not in readable]:
        raise click.UsageError(f"--partition {unknown[0]}: {stream} has {', '.join(readable) or 'none to read'}")
    return [readable[partition] for partition in partitions or readable]


def _named(time: str | datetime) -> str:
    """The same for the same instant, however it was given."""
    return time.astimezone(UTC).isoformat() if isinstance(time, datetime) else time


def _read_mark(metadata: str) -> tuple[str, str] | None:
    if not metadata.startswith("{"):
        return None
    try:
        return _mark_decoder.decode(metadata).replay
    except msgspec.MsgspecError:
        return None
