"""`disstream demo`: the main job on real data, drawn while it runs."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..bench.demo import Demo, DemoReport
from ..bench.flights import SHIPPED, read_rows
from ..bench.report import demo_lines
from .session import library_messages, run, say, show_progress

DRAW_INTERVAL_S = 0.1
PRINT_INTERVAL_S = 1.0


@click.command(short_help="Send a CSV file through a server and check every record.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option("--key", default="tailnum", metavar="COLUMN", help="The column that keys the records.")
@click.option("--partitions", type=click.IntRange(min=1), default=4, help="Of the stream that is made.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the server's data here, to look at afterwards (disstream serve --data-dir DIR, project demo).  "
    "[default: a temporary directory, removed at the end]",
)
@library_messages()
def demo(file: Path | None, key: str, partitions: int, data_dir: Path | None) -> None:
    """Send a CSV file through a durable server and prove that nothing was lost, changed or reordered.

    Starts a server and a reader in processes of their own, writes each row of FILE as a JSON record, keyed by a column,
    while the reader checks what comes out. FILE may be gzipped; without it, the flights of the repository's
    examples/data are used. Exit code 1 if a record is missing, out of order or not acknowledged, or came back with
    another key or other bytes.

    \b
    Examples:
      disstream demo
      disstream demo orders.csv --key customer
    """
    path = file or SHIPPED
    if file is None and not path.exists():
        raise click.UsageError(
            "the flights data is not part of the installed package: run `make demo` in a checkout of the repository "
            "(the file is examples/data/flights-2013.csv.gz), or name a CSV file: disstream demo FILE --key COLUMN"
        )
    say(f"reading {path.name}", err=True)
    job = Demo(read_rows(path, key), partitions=partitions, data_dir=data_dir)

    async def work() -> DemoReport:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_draw if show_progress() else _print, job, name="progress")
            report = await job.run()
            tasks.cancel_scope.cancel()
        return report

    report = run(work)
    for line in demo_lines(report, path.name):
        say(line)
    if not report.good:
        sys.exit(1)


async def _draw(job: Demo) -> None:
    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bars = [progress.add_task(name, total=job.total) for name in ("sent", "acknowledged", "received")]
        while True:
            for bar, count in zip(bars, _counts(job), strict=True):
                progress.update(bar, completed=count)
            await anyio.sleep(DRAW_INTERVAL_S)


async def _print(job: Demo) -> None:
    while True:
        await anyio.sleep(PRINT_INTERVAL_S)
        sent, stored, received = _counts(job)
        say(f"sent {sent}, acknowledged {stored}, received {received} of {job.total}", err=True)


def _counts(job: Demo) -> tuple[int, int, int]:
    stats, status = job.stats(), job.status
    return (
        stats.accepted if stats is not None else 0,
        stats.stored if stats is not None else 0,
        status.findings.distinct if status is not None else 0,
    )
