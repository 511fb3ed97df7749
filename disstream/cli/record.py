"""`disstream produce` and `disstream consume`: records from lines of text, and back."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, BinaryIO

import anyio
import click
from click.core import ParameterSource

from ..bench.reader import reached
from ..client.config import Body
from ..consumer import ConsumerConfig, ConsumerStats, Static
from ..door import DisClient
from ..errors import ConfigError, LeaseLost, WaitTimeout
from ..model import Partition, Record
from ..producer import Envelope, ProducerConfig
from ..wire.compression import Compression
from . import formats
from .feed import Feed
from .places import Positive, Start, first_since, partition_ids
from .resend import resend
from .running import reader_left, run, say
from .sending import HEADERS_KEPT, Sending
from .session import Target, body_option, compression_option, connects, given

FETCH_RECORDS = 2000


# --- produce -----------------------------------------------------------------------------------------------------


def _headers(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    headers = {}
    for text in value:
        name, equals, told = text.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE")
        headers[name] = told
    return headers


class _Input(click.File):
    """A file, or - for the standard input, which somebody may have closed."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "-" and sys.stdin is None:
            self.fail("standard input is closed: name a file", param, ctx)
        return super().convert(value, param, ctx)


@click.command()
@click.argument("stream", required=False)
@click.argument("file", type=_Input("rb"), default="-", required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(["lines", "jsonl", "csv", "records"]),
    default="lines",
    help="lines: each line is a record. jsonl: each line is a JSON value and a record. csv: each row is sent as a JSON "
    "object, named by the header. records: what consume --format jsonl writes.",
)
@click.option(
    "--key",
    metavar="FIELD",
    help="jsonl, csv: the field whose value is the partition key; empty: no key. A first row without the field is "
    "refused, a later one has no key.",
)
@click.option("--rate", type=Positive(), metavar="N", help="At most N records a second.")
@click.option("--skip-bad", is_flag=True, help="Name lines that cannot be read and go on, instead of stopping.")
@click.option(
    "--aggregate",
    is_flag=True,
    help="Let small records share one of the service, which counts them as one. Readers must know: disstream does.",
)
@click.option(
    "--header",
    "headers",
    multiple=True,
    callback=_headers,
    metavar="NAME=VALUE",
    help="Give each record this header, in an envelope that readers must know. May be given several times.",
)
@click.option(
    "--resend",
    "spill_path",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Send what a producer left in this spill file, to the stream that it names. What is stored then is taken out "
    "of the file.",
)
@click.option(
    "--include-unknown", is_flag=True, help="With --resend: also records that may be stored already, so perhaps twice."
)
@body_option
@compression_option
@connects
def produce(
    target: Target,
    stream: str | None,
    file: BinaryIO,
    form: str,
    key: str | None,
    rate: float | None,
    skip_bad: bool,
    aggregate: bool,
    headers: dict[str, str],
    spill_path: str | None,
    include_unknown: bool,
    body: Body,
    compression: Compression | None,
) -> None:
    """Send the records of FILE (-: standard input, the default) to STREAM. Gzip is unpacked.

    Ends with a line of counts: sent, stored, failed. A line that cannot be read is named with its number and stops the
    run; what was read before it is stored. Ctrl-C ends the input likewise; again, it gives up what is not stored yet.
    Exit code 1 if a line was bad (without --skip-bad) or a record failed.

    \b
    Examples:
      disstream produce orders orders.csv --format csv --key customer
      tail -f app.log | disstream produce logs
      disstream produce --resend orders.spill
    """
    if spill_path is not None:
        context = click.get_current_context()
        options = {
            "file": "FILE",
            "form": "--format",
            "key": "--key",
            "aggregate": "--aggregate",
            "headers": "--header",
        }
        for name, told in options.items():
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(f"--resend names the file and knows its form: leave {told} out")
        dis = target.connect(body=body, compression=compression)
        if not resend(dis, stream, spill_path, rate, skip_bad, include_unknown):
            sys.exit(1)
        return
    if stream is None:
        raise click.UsageError("Missing argument 'STREAM'.")
    if include_unknown:
        raise click.UsageError("--include-unknown needs --resend")
    if key is not None and form not in ("jsonl", "csv"):
        raise click.UsageError(f"--key names a field of jsonl or csv; --format {form} has none")
    parse = formats.parser(form, key)
    if aggregate:
        config = ProducerConfig(envelope=Envelope())
    else:
        config = HEADERS_KEPT if headers or form == "records" else ProducerConfig()

    async def work() -> Sending:
        async with target.connect(body=body, compression=compression) as dis, dis.producer(stream, config) as producer:
            sending = Sending(producer, rate, skip_bad, headers=headers)
            await sending.run(Feed(file, parse))
            return sending

    sending = run(work)
    sending.tell()
    if sending.failed or sending.stopped:
        sys.exit(1)


# --- consume -----------------------------------------------------------------------------------------------------


@click.command()
@click.argument("stream")
@click.option(
    "--from",
    "start",
    type=Start(),
    default="earliest",
    metavar="earliest|latest|SEQ|ISO-TIME",
    help="Where to begin. SEQ, a sequence number, is one partition's: name it with --partition, unless there is only "
    "one. ISO-TIME: what was written from then on; without an offset it is local time.",
)
@click.option(
    "--partition",
    "partitions",
    multiple=True,
    callback=partition_ids,
    metavar="P",
    help="Read this partition only: 0 or shardId-0000000000. May be given several times.",
)
@click.option(
    "--app",
    metavar="APP",
    callback=given,
    help="Read as a member of this app's group (made if absent): share the partitions with its other members, begin at "
    "its checkpoints (--from holds where there is none), and commit what was printed. With --partition: read these "
    "alone, without the group.",
)
@click.option("--max", "maximum", type=click.IntRange(min=1), metavar="N", help="Stop after N records.")
@click.option("--no-follow", is_flag=True, help="Stop at what was the newest record when the command began.")
@click.option(
    "--timeout",
    "timeout_s",
    type=Positive(),
    default=30.0,
    metavar="SECONDS",
    help="With --no-follow: give up when nothing could be read for so long. Without it, a service that fails is waited "
    "for until Ctrl-C.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "raw", "table"]),
    default="jsonl",
    help="jsonl: one object a line, data as text or (encoding: base64) base64. raw: the data and a line end. table: "
    "for the eye, shortened to the terminal's width.",
)
@body_option
@connects
def consume(
    target: Target,
    stream: str,
    start: str | int | datetime,
    partitions: tuple[str, ...],
    app: str | None,
    maximum: int | None,
    no_follow: bool,
    timeout_s: float,
    form: str,
    body: Body,
) -> None:
    """Print the records of STREAM, and follow it until --max or Ctrl-C.

    Order holds within a partition. Without --app nothing is committed, each run begins where --from says, and of a
    stream that is scaled meanwhile the new partitions are not read. Exit code 1 if the service says no or, with
    --no-follow, does not answer any more; what was read before is printed.

    \b
    Examples:
      disstream consume orders --from latest
      disstream consume orders --no-follow > orders.jsonl
      disstream consume orders --partition 2 --from 1000 --max 10 --format table
      disstream consume orders --app billing
    """
    if sys.stdout is None:
        raise click.ClickException("standard output is closed: there is nowhere to write the records")
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    render = formats.renderer(form, width)
    out = sys.stdout.buffer

    def write(records: Iterable[Record]) -> None:
        out.write(b"".join(map(render, records)))
        out.flush()

    async def work() -> None:
        async with target.connect(timeout_s if no_follow else None, body=body) as dis:
            if app is not None:
                begin = await _span(dis, stream, start, partitions, bounded=False)
                await _print_for_app(dis, stream, app, begin, bool(partitions), maximum, no_follow, timeout_s, write)
                return
            span = await _span(dis, stream, start, partitions, bounded=no_follow)
            await _print(dis, stream, span, maximum, timeout_s, write)

    try:
        if form == "table":
            out.write(formats.table_header(width))
        run(work)
    except KeyboardInterrupt:
        if no_follow:
            raise click.ClickException("interrupted before the end") from None
        return  # how following ends
    except BrokenPipeError:
        reader_left(sys.stdout)  # it has seen enough


class _Span:
    """What to read: partitions, where to begin, and, unless it follows, where each ends (exclusive)."""

    def __init__(
        self,
        partitions: list[str],
        start: str | datetime | dict[str, int],
        ends: dict[str, int] | None = None,
        *,
        everything: bool = False,
    ) -> None:
        self.partitions = partitions
        self.start: Any = start
        self.ends = ends
        self.chosen = None if everything else partitions  # None: also those that are made while it follows


async def _span(
    dis: DisClient, stream: str, start: str | int | datetime, chosen: tuple[str, ...], *, bounded: bool
) -> _Span:
    info = await dis.streams.describe(stream)
    ranges = {p.partition_id: p.sequence_range for p in info.partitions if p.readable}
    if unknown := [p for p in chosen if p not in ranges]:
        raise ConfigError(f"--partition {unknown[0]}: {stream} has {', '.join(ranges)}")
    partitions = list(chosen or ranges)
    if isinstance(start, int):
        if len(partitions) != 1:
            raise ConfigError(f"--from {start} is one partition's number, {stream} has {len(ranges)}: add --partition")
        # The service judges the number, so that one out of range is told instead of replaced.
        await dis.cursors.get(stream, partitions[0], "AT_SEQUENCE_NUMBER", sequence_number=start)
        start_at: str | datetime | dict[str, int] = {partitions[0]: start}
    else:
        start_at = start
    if not bounded:
        return _Span(partitions, start_at, everything=not chosen)
    begins: dict[str, int] = {}
    ends: dict[str, int] = {}
    for partition in partitions:
        oldest, following = ranges[partition] or (0, 0)
        if isinstance(start, datetime):
            begin = await first_since(dis, stream, partition, start)
        elif start == "latest":
            begin = None
        else:
            begin = start if isinstance(start, int) else oldest
        if begin is not None and begin < following:
            begins[partition] = begin
            ends[partition] = following
    return _Span(list(begins), begins, ends)


async def _print(
    dis: DisClient,
    stream: str,
    span: _Span,
    maximum: int | None,
    timeout_s: float,
    write: Callable[[Iterable[Record]], None],
) -> None:
    if not span.partitions:
        return
    ends = span.ends
    left = maximum
    config = ConsumerConfig(coordination=Static(span.chosen), start=span.start)
    async with dis.consumer(stream, config) as consumer:
        written_at = anyio.current_time()
        while left is None or left > 0:
            batch = await consumer.fetch(max_records=FETCH_RECORDS, timeout_s=0.5)
            if ends is not None:
                batch = [record for record in batch if record.sequence_number < ends[record.partition_id]]
            if left is not None:
                batch = batch[:left]
                left -= len(batch)
            if batch:
                write(batch)
                written_at = anyio.current_time()
            if ends is not None:
                if reached(consumer, stream, ends):
                    return
                if not batch:
                    _give_up_if_stalled(consumer.stats(), written_at, timeout_s)


async def _print_for_app(
    dis: DisClient,
    stream: str,
    app: str,
    span: _Span,
    alone: bool,
    maximum: int | None,
    no_follow: bool,
    timeout_s: float,
    write: Callable[[Iterable[Record]], None],
) -> None:
    """As `_print`, as a member or on chosen partitions; each record is finished once it is written."""
    info = await dis.streams.describe(stream)
    ends = {p.partition_id: p.sequence_range.end for p in info.partitions if p.sequence_range is not None}
    share: frozenset[Partition] | None = None  # None: the group deals it anew
    revoked_at = anyio.current_time()

    def assigned(partitions: frozenset[Partition]) -> None:
        nonlocal share
        share = partitions

    def revoked(partitions: frozenset[Partition], deadline: float) -> None:
        nonlocal share, revoked_at
        share, revoked_at = None, anyio.current_time()

    config = ConsumerConfig(
        coordination=Static(span.partitions) if alone else None,
        start=span.start,
        on_assigned=assigned,
        on_revoked=revoked,
    )
    left = maximum
    async with dis.consumer(stream, config, app=app) as consumer:
        if alone:
            share = consumer.assignment()
        written_at = anyio.current_time()
        while left is None or left > 0:
            try:
                batch = await consumer.fetch(max_records=min(FETCH_RECORDS, left or FETCH_RECORDS), timeout_s=0.5)
            except LeaseLost as error:  # a full pipe held up the loop for minutes, as a pager does: join again
                say(f"{app}: {error}", err=True)
                continue
            if left is not None:
                left -= len(batch)
            if batch:
                write(batch)
                for record in {record.partition_id: record for record in batch}.values():  # the last one of each
                    consumer.record_done(record)
                written_at = anyio.current_time()
            if no_follow:
                if share is not None:
                    mine = {p.partition_id for p in share}
                    if not mine:
                        say(f"the other members of {app} hold all partitions of {stream}", err=True)
                    if reached(consumer, stream, {p: ends[p] for p in mine & ends.keys()}):
                        return
                elif anyio.current_time() - max(revoked_at, written_at) >= timeout_s:
                    raise WaitTimeout(f"no partition was assigned for {timeout_s:g} s: see disstream app members {app}")
                if not batch:
                    _give_up_if_stalled(consumer.stats(), written_at, timeout_s)


def _give_up_if_stalled(stats: ConsumerStats, written_at: float, timeout_s: float) -> None:
    """`written_at`: a write into a full pipe holds up everything, and that time is not the service's."""
    since = stats.unanswered_since
    if since is not None and anyio.current_time() - max(since, written_at) >= timeout_s:
        last = stats.last_error or "none, it does not answer at all"
        raise WaitTimeout(f"nothing could be read for {timeout_s:g} s; the last error: {last}")
