"""`disstream deadletter`: list what workers gave up, send it back, or discard it."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from functools import partial
from typing import Any

import click

from ..door import DisClient
from ..errors import NotFoundError
from ..leases.api import LeaseStore
from ..model import Checkpoint, Partition
from ..worker.letters import Letter, letter_line
from ..worker.plan import Group, Selection
from ..worker.reading import Box, box
from ..worker.redrive import Kept, Redrive, Report, browse
from .facts import states_of
from .formats import time_text
from .leaseview import maybe_opened, store_option
from .listing import show
from .running import reader_left, run, say
from .session import Target, connects, given

SHOWN = 20
"""Keys and letters that are named one by one."""

ERROR_CHARS = 80
"""Of an error, in a table."""


@click.group()
def deadletter() -> None:
    """List the records that workers gave up, send them back, or discard them.

    TARGET is where the worker wrote them: stream:NAME, file:PATH, or a path.
    """


def _since(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    try:
        return int(datetime.fromisoformat(value).astimezone().timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(f"{value!r} is no ISO 8601 time, like 2026-11-21T19:50") from None


def _finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is no finite number")
    return value


def _selects(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that choose letters."""
    for option in reversed(
        (
            click.option("--app", callback=given, metavar="APP", help="Only letters that workers of APP wrote."),
            click.option("--stream", callback=given, metavar="STREAM", help="Only of records of STREAM."),
            click.option("--key", callback=given, metavar="KEY", help="Only of records with this key."),
            click.option(
                "--since",
                "since_ms",
                callback=_since,
                metavar="ISO-TIME",
                help="Only letters written from then on; without an offset it is local time.",
            ),
            click.option(
                "--failed", is_flag=True, help="Only records that failed themselves, not those that followed them."
            ),
            click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N letters, the oldest."),
        )
    ):
        command = option(command)
    return command


_wait = click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    callback=_finite,
    default=60.0,
    metavar="SECONDS",
    help="How long to wait for a worker to handle what was sent, and so unpark its keys. 0: not at all.",
)


@contextlib.asynccontextmanager
async def _opened(dis: DisClient, target: str, *, settles: bool) -> AsyncIterator[Box]:
    found = box(dis, target)
    await found.open(settles=settles)
    try:
        yield found
    finally:
        await found.close()


@deadletter.command("list")
@click.argument("target", metavar="TARGET")
@_selects
@click.option("--all", "settled", is_flag=True, help="Also those that were sent back or discarded.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "jsonl"]),
    default="table",
    help="table: a line each, without payload. jsonl: a JSON object each, as in a file of letters, which the other "
    "commands read.",
)
@connects
def list_letters(service: Target, target: str, settled: bool, form: str, limit: int | None, **selects: Any) -> None:
    """List the dead letters of TARGET, oldest first, without those that were sent back or discarded.

    A letter that was written twice, by a worker that died in between, is one.
    In a pipe: columns separated by tabs, no header.

    \b
    Examples:
      disstream deadletter list stream:orders-dead --app billing
      disstream deadletter list letters.jsonl --format jsonl --key customer-7
    """
    if sys.stdout is None:
        raise click.ClickException("standard output is closed: there is nowhere to write the letters")
    rows: list[tuple[str, ...]] = []
    out = sys.stdout.buffer

    def write(letter: Letter, done: bool) -> None:
        if form == "jsonl":
            out.write(letter_line(letter))
        else:
            rows.append(_row(letter, done))

    async def work() -> Report:
        async with service.connect() as dis, _opened(dis, target, settles=False) as letters:
            return await browse(letters, Selection(**selects), write, settled=settled, limit=limit)

    try:
        report = run(work)
        out.flush()
    except BrokenPipeError:
        reader_left(sys.stdout)  # it has seen enough
        return
    if form == "table":
        show(_COLUMNS, rows, elastic=("APP", "STREAM", "KEY", "ERROR"))
    _tell_foreign(report)


_COLUMNS = ("WRITTEN (UTC)", "APP", "STREAM", "PARTITION", "SEQUENCE", "KEY", "ATTEMPTS", "ERROR", "STATE")


def _row(letter: Letter, done: bool) -> tuple[str, ...]:
    error = " ".join(f"{letter.error_type}: {letter.error}".split()) if not letter.followed else "followed"
    sequence = str(letter.sequence_number) + (f"/{letter.index}" if letter.index else "")
    return (
        time_text(letter.at_ms),
        letter.app,
        letter.stream,
        letter.partition_id,
        sequence,
        "-" if letter.key is None else _printable(letter.key),
        str(letter.attempts),
        _printable(error if len(error) <= ERROR_CHARS else error[: ERROR_CHARS - 1] + "…"),
        "settled" if done else "parked" if letter.parked else "-",
    )


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "." for c in text)


@deadletter.command()
@click.argument("target", metavar="TARGET")
@_selects
@click.option(
    "--to-stream",
    metavar="OTHER",
    callback=given,
    help="Send copies to this stream instead. The letters stay as they are, and keys stay parked.",
)
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), callback=_finite, metavar="N", help="At most N a second."
)
@click.option("--dry-run", is_flag=True, help="Send nothing, list what would be sent.")
@_wait
@store_option
@connects
def redrive(
    service: Target,
    target: str,
    to_stream: str | None,
    rate: float | None,
    dry_run: bool,
    wait_s: float,
    store_url: str | None,
    limit: int | None,
    **selects: Any,
) -> None:
    """Send dead letters back to the streams they came from, in order per key, and unpark their keys.

    What was sent is marked beside the letters, and not sent by the next run. A key stays parked if one of its records
    fails again, or if not all of its letters were chosen. Every app that reads the stream gets the records again;
    workers of other apps pass over those of parked keys. Of workers that share by leases name the --store: their
    checkpoints, which tell whether a key is unparked, are there.

    Exit code 1 if something could not be sent, or a key stays parked although all of its letters were chosen.

    \b
    Examples:
      disstream deadletter redrive stream:orders-dead --app billing
      disstream deadletter redrive letters.jsonl --key customer-7 --dry-run
    """
    selection = Selection(**selects)
    if dry_run:
        rows: list[tuple[str, ...]] = []

        async def look() -> Report:
            async with service.connect() as dis, _opened(dis, target, settles=False) as letters:
                return await browse(
                    letters, selection, lambda *one: rows.append(_row(*one)), settled=False, limit=limit
                )

        report = run(look)
        show(_COLUMNS, rows, elastic=("APP", "STREAM", "KEY", "ERROR"))
        say(f"would send {len(rows)} of {report.letters} letters", err=True)
        _tell_foreign(report)
        return
    _run_and_tell(
        service,
        target,
        store_url,
        lambda dis, letters, kept: Redrive(
            dis,
            letters,
            selection,
            limit=limit,
            to_stream=to_stream,
            rate=rate,
            wait_s=0.0 if to_stream else wait_s,
            kept=kept,
        ),
        "sent",
    )


@deadletter.command()
@click.argument("target", metavar="TARGET")
@_selects
@_wait
@store_option
@connects
def discard(
    service: Target, target: str, wait_s: float, store_url: str | None, limit: int | None, **selects: Any
) -> None:
    """Mark dead letters so that they are never sent back. Give at least one option that chooses them.

    A key whose last letters these are is unparked: a record without payload, in an envelope, goes to its stream and
    tells the worker. Letters of a key that stay behind can be sent back afterwards, and unpark it.

    Examples: disstream deadletter discard stream:orders-dead --key customer-7 --failed
    """
    if not any(selects.values()) and limit is None:
        raise click.UsageError("discard needs to be told which letters: --app, --stream, --key, --since, --failed")
    _run_and_tell(
        service,
        target,
        store_url,
        lambda dis, letters, kept: Redrive(
            dis, letters, Selection(**selects), limit=limit, discard=True, wait_s=wait_s, kept=kept
        ),
        "discarded",
    )


def _run_and_tell(
    service: Target,
    target: str,
    store_url: str | None,
    make: Callable[[DisClient, Box, Kept | None], Redrive],
    done: str,
) -> None:
    reports: list[Report] = []

    async def work() -> None:
        async with (
            service.connect() as dis,
            maybe_opened(store_url) as store,
            _opened(dis, target, settles=True) as letters,
        ):
            redriving = make(dis, letters, None if store is None else partial(_kept_in, dis, store))
            reports.append(redriving.report)
            await redriving.run()

    try:
        run(work)
    finally:
        for report in reports:
            say(f"{done} {report.settled} of {report.letters} letters")
    if not _tell(reports[0]):
        sys.exit(1)


async def _kept_in(dis: DisClient, store: LeaseStore, app: str, partition: Partition) -> Checkpoint | None:
    try:
        states = await states_of(dis, app, partition.stream, store)
    except NotFoundError:
        return None
    return next((state.checkpoint for state in states if state.partition_id == partition.partition_id), None)


def _tell(report: Report) -> bool:
    """What is to be known beside the counts. Returns whether all went well."""
    _tell_foreign(report)
    if report.unparked:
        say(f"unparked {_count(len(report.unparked), 'key')}")
    if report.unwatched:
        say(f"{_count(report.unwatched, 'key')} to be unparked once a worker has handled all of it")
    if report.expired:
        say(f"{_count(report.expired, 'letter')} expired before they could be sent", err=True)
    lines = [
        f"not sent: the record of {letter.stream}/{letter.partition_id} sequence number {letter.sequence_number}: {why}"
        for letter, why in report.unsendable
    ]
    lines += [f"{_named(group)} stays parked: {why}" for group, why in report.parked.items()]
    lines += [
        f"{_named(group)} stays parked: {_count(count, 'letter')} of it were not chosen"
        for group, count in report.left_behind.items()
    ]
    for line in lines[:SHOWN]:
        say(" ".join(line.split()), err=True)
    if len(lines) > SHOWN:
        say(f"... and {len(lines) - SHOWN} more like these", err=True)
    return not (report.expired or report.unsendable or report.parked)


def _tell_foreign(report: Report) -> None:
    for foreign in report.foreign:
        say(f"passed over: {foreign.place}: {_printable(foreign.reason)}", err=True)
    if report.foreign_count > len(report.foreign):
        say(f"... and {report.foreign_count - len(report.foreign)} more that are no letters", err=True)


def _named(group: Group) -> str:
    return f"key {group.key!r:.80} of {group.stream}/{group.partition_id}, app {group.app},"


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
