"""`disstream demo`: the main job on real data, and a worker that is killed, drawn while they run."""

from __future__ import annotations

import importlib.util
import math
import shutil
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import anyio
import click

from ..bench.chart import Chart, chart_lines, write_png
from ..bench.demo import Demo
from ..bench.flights import SHIPPED, read_rows
from ..bench.report import demo_lines, takeover_lines
from ..bench.takeover import Takeover
from .running import run, say, show_progress
from .session import library_messages

T = TypeVar("T")

DRAW_INTERVAL_S = 0.1
PRINT_INTERVAL_S = 1.0


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option("--key", default="tailnum", metavar="COLUMN", help="The column that keys the records.")
@click.option("--partitions", type=click.IntRange(min=1), default=4, help="Of the stream that is made.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the server's data here, to look at afterwards (disstream serve --data-dir DIR, project demo).  "
    "[default: a temporary directory, removed at the end]",
)
@click.option(
    "--pace-s",
    type=click.FloatRange(min=1.0),
    default=20.0,
    metavar="SECONDS",
    help="Of the second part: how long its traffic lasts. Half-way one worker is killed.",
)
@click.option("--no-takeover", is_flag=True, help="Leave out the second part.")
@click.option(
    "--png",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also draw the second part's chart as a picture; takes matplotlib (pip install 'disstream[demo]').",
)
@library_messages()
def demo(
    file: Path | None,
    key: str,
    partitions: int,
    data_dir: Path | None,
    pace_s: float,
    no_takeover: bool,
    png: Path | None,
) -> None:
    """Send a CSV file through a durable server and prove that nothing was lost, changed or reordered.

    Starts a server and a reader in processes of their own, writes each row of FILE as a JSON record, keyed by a column,
    while the reader checks what comes out. Then again at a steady pace, for two workers that share the stream as
    members of one app; one of them is killed half-way, and the other takes over. FILE may be gzipped; without it, the
    flights of the repository's examples/data are used.

    Exit code 1 if a record is missing, out of order or not acknowledged, or came back with another key or other bytes,
    or if more came twice than the commits allow.

    \b
    Examples:
      disstream demo
      disstream demo orders.csv --key customer
      disstream demo --no-takeover
    """
    if not math.isfinite(pace_s):
        raise click.UsageError(f"--pace-s {pace_s}: a finite number of seconds")
    if png is not None:
        if no_takeover:
            raise click.UsageError("--png draws the second part, which --no-takeover leaves out")
        png = _drawable(png)
    path = file or SHIPPED
    if file is None and not path.exists():
        raise click.UsageError(
            "the flights data is not part of the installed package: run `make demo` in a checkout of the repository "
            "(the file is examples/data/flights-2013.csv.gz), or name a CSV file: disstream demo FILE --key COLUMN"
        )
    say(f"reading {path.name}", err=True)
    rows = read_rows(path, key)
    through = Demo(rows, partitions=partitions, data_dir=data_dir)
    report = _watched(through.run, lambda: _counts(through), through.total)
    for line in demo_lines(report, path.name):
        say(line)
    good = report.good
    if not no_takeover:
        say("")
        takeover = Takeover(rows, pace_s=pace_s, partitions=max(partitions, 2), data_dir=data_dir)
        outcome = _watched(takeover.run, takeover.counts, takeover.total)
        *told, verdict = takeover_lines(outcome)
        for line in told:
            say(line)
        drawn = _show(outcome.chart, png)
        say("")
        say(verdict)
        good = good and outcome.good and drawn
    if not good:
        sys.exit(1)


def _drawable(png: Path) -> Path | None:
    """Tell before the work what would be in the way of the picture behind it. None: it is done without."""
    if importlib.util.find_spec("matplotlib") is None:
        say(f"{png} will not be drawn: that takes matplotlib (pip install 'disstream[demo]')", err=True)
        return None
    try:
        png.parent.mkdir(parents=True, exist_ok=True)
        existed = png.exists()
        with png.open("ab"):
            pass
        if not existed:
            png.unlink()
    except OSError as exc:
        raise click.UsageError(f"--png {png} cannot be written: {exc.strerror or exc}") from exc
    return png


def _show(chart: Chart, png: Path | None) -> bool:
    """Draw it. False: the picture could not be written."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else 100
    encoding = (sys.stdout.encoding or "").lower() if sys.stdout is not None else ""
    for line in chart_lines(chart, width=width, unicode=encoding.startswith("utf"), colour=terminal):
        say(f"  {line}" if not terminal else line)
    if png is None:
        return True
    try:
        write_png(chart, png)
    except OSError as exc:
        say(f"{png} could not be written: {exc.strerror or exc}", err=True)
        return False
    say(f"  the picture: {png}")
    return True


def _watched(work: Callable[[], Coroutine[Any, Any, T]], counts: Callable[[], dict[str, int]], total: int) -> T:
    """Do the work and show how far it is."""

    async def watched() -> T:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_draw if show_progress() else _print, counts, total, name="progress")
            report = await work()
            tasks.cancel_scope.cancel()
        return report

    return run(watched)


async def _draw(counts: Callable[[], dict[str, int]], total: int) -> None:
    from rich.console import Console  # here, because pipes see no bars
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bars = [progress.add_task(name, total=total) for name in counts()]
        while True:
            for bar, (name, count) in zip(bars, counts().items(), strict=True):
                progress.update(bar, description=name, completed=count)
            await anyio.sleep(DRAW_INTERVAL_S)


async def _print(counts: Callable[[], dict[str, int]], total: int) -> None:
    while True:
        await anyio.sleep(PRINT_INTERVAL_S)
        say(", ".join(f"{name} {count}" for name, count in counts().items()) + f" of {total}", err=True)


def _counts(job: Demo) -> dict[str, int]:
    stats, status = job.stats(), job.status
    return {
        "sent": stats.accepted if stats is not None else 0,
        "acknowledged": stats.stored if stats is not None else 0,
        "received": status.findings.distinct if status is not None else 0,
    }
