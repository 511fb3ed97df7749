"""`disstream bench`: records per second, and whether they are right."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import click
import msgspec

from ..bench.load import NUMBER_BYTES, Bench, Lap, Mode, Plan, ReadMode, Result
from ..bench.load import bench as open_bench
from ..bench.machine import describe
from ..bench.report import bench_lines
from ..client import ClientConfig
from ..producer import Order
from .session import DEFAULT_PROJECT, body_option, compression_option, given, library_messages, run, say

READ_MODES: tuple[ReadMode, ...] = ("fetch", "async for")

Work = Callable[[Bench, Callable[[str], None]], Awaitable[list[Lap]]]


@click.group()
def bench() -> None:
    """Measure records per second and verify them in the same run.

    Without --endpoint it starts a durable server (fsync before each answer) in a process of its own. Payloads are
    random bytes made beforehand; only acknowledged records count; then everything is read back, and key, bytes and
    order of each record are compared with what was sent. Exit code 1 if a record was lost, not acknowledged, altered or
    out of order.
    """


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        [
            click.option("--records", type=click.IntRange(min=1), default=300_000, help="Records in each repetition."),
            click.option(
                "--size", type=click.IntRange(NUMBER_BYTES, 2**20), default=100, help="Bytes of each payload."
            ),
            click.option("--keys", type=click.IntRange(min=1), default=97, help="Different partition keys, in turn."),
            click.option("--partitions", type=click.IntRange(min=1), default=4, help="Partitions of the stream."),
            click.option("--repeats", type=click.IntRange(min=1), default=3, help="Repetitions; the median is named."),
            click.option(
                "--endpoint",
                callback=given,
                metavar="URL",
                help="A service that runs already.  [default: a server of its own]",
            ),
            click.option(
                "--project", default=DEFAULT_PROJECT, callback=given, metavar="ID", help="The project to work in."
            ),
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
    ):
        command = option(command)
    return command


@bench.command(short_help="Write at full speed, then read everything back.")
@_options
@click.option("--order", type=click.Choice(["key", "strict", "none"]), default="key", help="What the producer keeps.")
@click.option(
    "--mode", type=click.Choice(["send", "send_many"]), default="send", help="One record a call, or a thousand."
)
def produce(order: str, mode: str, **options: Any) -> None:
    """Write records at full speed through the producer, then read them back.

    Example: disstream bench produce --size 1024 --records 200000
    """
    plan = _plan(options, cast(Order, order))
    _measure(plan, options, lambda bench, tell: bench.produce(plan, cast(Mode, mode), tell))


@bench.command(short_help="Read at full speed, in two ways.")
@_options
def consume(**options: Any) -> None:
    """Read records at full speed through the consumer: with fetch, and with async for.

    Example: disstream bench consume --records 500000
    """
    plan = _plan(options, "key")
    _measure(plan, options, lambda bench, tell: bench.consume(plan, READ_MODES, tell))


def _plan(options: dict[str, Any], order: Order) -> Plan:
    return Plan(
        records=options["records"],
        size_bytes=options["size"],
        keys=options["keys"],
        partitions=options["partitions"],
        order=order,
        repeats=options["repeats"],
    )


@library_messages()
def _measure(plan: Plan, options: dict[str, Any], work: Work) -> None:
    endpoint: str | None = options["endpoint"]
    data_dir: Path | None = options["data_dir"]
    if endpoint is not None and data_dir is not None:
        raise click.UsageError("--data-dir is for the server that bench starts: not with --endpoint")

    async def measure() -> Result:
        config = ClientConfig(body=options["body"], compression=options["compression"])
        async with open_bench(endpoint, options["project"], data_dir, config) as opened:
            laps = await work(opened, lambda text: say(text, err=True))
            return Result(
                command=" ".join(["disstream", *sys.argv[1:]]),
                machine=describe(),
                endpoint=endpoint or "a server of its own, fsync",
                plan=plan,
                laps=laps,
            )

    result = run(measure)
    for line in bench_lines(result):
        say(line)
    json_file: Path | None = options["json_file"]
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    if not result.good:
        sys.exit(1)
