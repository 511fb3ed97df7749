"""`disstream bench`: records per second, and whether they are right."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import click
import msgspec

from ..bench import curves
from ..bench.laps import NUMBER_BYTES, Mode, Plan, ReadMode, Result, Way
from ..bench.load import Bench, Tell
from ..bench.load import bench as open_bench
from ..bench.machine import Origin
from ..bench.report import bench_lines, soak_lines, sweep_lines
from ..bench.soak import SoakResult, soak
from ..bench.sweep import SUBJECTS, SweepResult, sweep
from ..client import ClientConfig
from ..producer import Order
from .running import run, say
from .session import DEFAULT_PROJECT, body_option, compression_option, given, library_messages

READ_MODES: tuple[ReadMode, ...] = ("fetch", "async for")
ALL_ORDERS = "all"

Command = TypeVar("Command", bound=Callable[..., Any])


R = TypeVar("R", Result, SweepResult, SoakResult)


@click.group()
def bench() -> None:
    """Measure records per second and verify them in the same run.

    Without --endpoint it starts a durable server (fsync before each answer) in a process of its own. Payloads are
    random bytes made beforehand; what is compared takes turns, after a lap that does not count; only acknowledged
    records count; then everything is read back, and key, bytes and order of each record are compared with what was
    sent. Exit code 1 if a record was lost, not acknowledged, altered or out of order.
    """


def _count(name: str, default: int, told: str) -> Callable[[Command], Command]:
    return click.option(name, type=click.IntRange(min=1), default=default, help=told)


def _repeats(default: int) -> Callable[[Command], Command]:
    return _count("--repeats", default, "Repetitions; the median is named.")


RECORDS = _count("--records", 300_000, "Records in each repetition.")
LOAD = [
    click.option("--size", type=click.IntRange(NUMBER_BYTES, 2**20), default=100, help="Bytes of each payload."),
    _count("--keys", 97, "Different partition keys, in turn."),
    _count("--partitions", 4, "Partitions of the stream."),
]
ORDER = click.option("--order", type=click.Choice(get_args(Order)), default="key", help="What the producer keeps.")
PNG = click.option(
    "--png",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also draw the result as a picture; takes matplotlib (pip install 'disstream[demo]').",
)
SERVICE = [
    click.option(
        "--endpoint", callback=given, metavar="URL", help="A service that runs already.  [default: a server of its own]"
    ),
    click.option("--project", default=DEFAULT_PROJECT, callback=given, metavar="ID", help="The project to work in."),
    body_option,
    compression_option,
    click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        help="Where the server of its own keeps data, to choose the disk.  [default: a temporary directory]",
    ),
    click.option(
        "--json",
        "json_file",
        type=click.Path(dir_okay=False, writable=True, path_type=Path),
        help="Also write the result to this file, as JSON.",
    ),
]


def _options(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    def with_options(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return with_options


@bench.command(short_help="Write, then read everything back.")
@_options(RECORDS, *LOAD, _repeats(3))
@click.option(
    "--mode",
    "modes",
    type=click.Choice(get_args(Mode)),
    multiple=True,
    default=["send"],
    help="One record a call, without and with a receipt awaited of each, or a thousand a call; twice: in turn.",
)
@click.option(
    "--order",
    type=click.Choice([*get_args(Order), ALL_ORDERS]),
    default="key",
    help=f"What the producer keeps; {ALL_ORDERS}: each of them in turn, to see what it costs.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Records a second, each at its instant however long the others take.  [default: as fast as it goes]",
)
@_options(*SERVICE)
def produce(modes: tuple[Mode, ...], order: str, rate: float | None, **options: Any) -> None:
    """Write records through the producer, then read them back.

    \b
    Examples:
      disstream bench produce --size 1024 --records 200000
      disstream bench produce --mode send --mode receipts --mode send_many
      disstream bench produce --order all
    """
    if rate is not None and modes != ("send",):
        raise click.UsageError("--rate sends each record at its instant: not with --mode")
    plan = _plan(options, options["records"], rate)
    orders: Iterable[Order] = get_args(Order) if order == ALL_ORDERS else [cast(Order, order)]
    ways = [Way(mode, each) for mode in dict.fromkeys(modes) for each in orders]

    async def work(bench: Bench, tell: Tell, origin: Origin) -> Result:
        return Result(origin=origin, plan=plan, laps=await bench.produce(plan, ways, tell))

    _measure(options, work, bench_lines)


@bench.command(short_help="From the instant a record is due to its receipt.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), default=1_000.0, help="Records a second.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=30.0, help="Of each repetition.")
@click.option(
    "--end-to-end", is_flag=True, help="A consumer reads meanwhile: also from the instant to the body of its loop."
)
@_options(*LOAD, _repeats(1), ORDER, *SERVICE)
def latency(rate: float, seconds: float, end_to_end: bool, order: Order, **options: Any) -> None:
    """Send records at a steady rate and tell how long each waits for its receipt.

    Each record has its instant, and its time counts from there, even if the bench or the producer is late: one slow
    answer shows in all records that had to wait for it. How long the disk takes to sync as many bytes is measured
    beforehand. With --end-to-end, a consumer in the same process reads what is written, and what it got is compared.

    \b
    Examples:
      disstream bench latency --rate 1000 --seconds 30
      disstream bench latency --end-to-end
    """
    plan = _plan(options, max(round(rate * seconds), 1), rate)

    async def work(bench: Bench, tell: Tell, origin: Origin) -> Result:
        tell("syncing the disk")
        fsync = await bench.fsync(plan.size_bytes)
        if end_to_end:
            laps = await bench.end_to_end(plan, rate, order, tell)
        else:
            laps = await bench.produce(plan, [Way("send", order)], tell)
        return Result(origin=origin, plan=plan, laps=laps, fsync=fsync)

    _measure(options, work, bench_lines)


@bench.command(short_help="Read at full speed, in two ways.")
@_options(RECORDS, *LOAD, _repeats(3), *SERVICE)
def consume(**options: Any) -> None:
    """Read records at full speed through the consumer: with fetch, and with async for.

    Example: disstream bench consume --records 500000
    """
    plan = _plan(options, options["records"], None)

    async def work(bench: Bench, tell: Tell, origin: Origin) -> Result:
        return Result(origin=origin, plan=plan, laps=await bench.consume(plan, READ_MODES, tell))

    _measure(options, work, bench_lines)


@bench.command(name="sweep", short_help="What a record costs, as one thing changes.")
@click.argument("subject", type=click.Choice(list(SUBJECTS)))
@click.option("--values", metavar="N,N,...", help="What SUBJECT is, in turn.  [default: several powers of ten]")
@_options(RECORDS, *LOAD, _repeats(3))
@click.option("--mode", type=click.Choice(get_args(Mode)), default="send", help="As in `bench produce`.")
@_options(ORDER, PNG, *SERVICE)
def sweep_command(subject: str, values: str | None, mode: Mode, order: Order, png: Path | None, **options: Any) -> None:
    """Write with different numbers of partitions or keys, or sizes of payload; the rest stays the same.

    \b
    Examples:
      disstream bench sweep keys --png keys.png
      disstream bench sweep partitions --values 1,10,100
    """
    chosen = SUBJECTS[subject].values if values is None else _numbers(values, NUMBER_BYTES if subject == "size" else 1)
    plan = _plan(options, options["records"], None)

    async def work(bench: Bench, tell: Tell, origin: Origin) -> SweepResult:
        points = await sweep(bench, plan, subject, chosen, Way(mode, order), tell)
        return SweepResult(origin=origin, subject=subject, plan=plan, points=points)

    _measure(options, work, sweep_lines, png)


@bench.command(name="soak", short_help="Write for a long time: rate and memory.")
@click.option("--seconds", type=click.FloatRange(min=1), default=600.0, help="How long.")
@click.option(
    "--compare",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long to write in turn with a fresh client, before and after; 0: not.  [default: a tenth of --seconds]",
)
@_options(*LOAD)
@click.option("--mode", type=click.Choice(["send", "send_many"]), default="send", help="As in `bench produce`.")
@_options(ORDER, PNG, *SERVICE)
def soak_command(
    seconds: float, compare: float | None, mode: Mode, order: Order, png: Path | None, **options: Any
) -> None:
    """Write at full speed for a long time, and tell whether the rate holds and memory stays where it was.

    Before and after, the client takes turns of seconds with a fresh one in a process of its own: how the two compare
    tells what age does to it, whatever the machine does meanwhile.

    Nothing is read back: the service is asked how many records it holds. Ten minutes may fill 40 GB of disk; choose
    one with --data-dir.

    Example: disstream bench soak --seconds 600 --png soak.png
    """
    plan = _plan({**options, "repeats": 1}, 0, None)

    async def work(bench: Bench, tell: Tell, origin: Origin) -> SoakResult:
        compare_s = seconds / 10 if compare is None else compare
        return await soak(bench, plan, Way(mode, order), seconds, compare_s, tell, origin)

    _measure(options, work, soak_lines, png)


def _plan(options: dict[str, Any], records: int, rate: float | None) -> Plan:
    return Plan(
        records=records,
        size_bytes=options["size"],
        keys=options["keys"],
        partitions=options["partitions"],
        repeats=options["repeats"],
        rate=rate,
    )


def _numbers(text: str, least: int) -> list[int]:
    try:
        numbers = [int(word) for word in text.split(",")]
    except ValueError:
        raise click.UsageError(f"--values {text}: whole numbers, with commas between them") from None
    if min(numbers) < least:
        raise click.UsageError(f"--values {text}: at least {least} each")
    return numbers


@library_messages()
def _measure(
    options: dict[str, Any],
    work: Callable[[Bench, Tell, Origin], Awaitable[R]],
    lines: Callable[[R], Iterable[str]],
    png: Path | None = None,
) -> None:
    """Do the work on the service that the options name, tell what came of it, and exit with 1 if that is not good."""
    endpoint: str | None = options["endpoint"]
    data_dir: Path | None = options["data_dir"]
    if endpoint is not None and data_dir is not None:
        raise click.UsageError("--data-dir is for the server that bench starts: not with --endpoint")
    if png is not None and importlib.util.find_spec("matplotlib") is None:
        raise click.UsageError(f"--png {png}: that takes matplotlib (pip install 'disstream[demo]')")
    origin = Origin.here(" ".join(["disstream", *sys.argv[1:]]), endpoint or "a server of its own, fsync")

    async def measure() -> R:
        config = ClientConfig(body=options["body"], compression=options["compression"])
        async with open_bench(endpoint, options["project"], data_dir, config) as opened:
            return await work(opened, lambda text: say(text, err=True), origin)

    result = run(measure)
    for line in lines(result):
        say(line)
    json_file: Path | None = options["json_file"]
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    if png is not None:
        assert not isinstance(result, Result)
        curves.write_png(result.picture(), png)
        say(f"drawn: {png}", err=True)
    if not result.good:
        sys.exit(1)
