"""`disstream data`: the data directory of a server, looked after: checked, copied, put back, packed, counted."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from ..engine.embedded import backup as copies
from ..engine.embedded.backup import CopyReport
from ..engine.embedded.check import CheckReport, Finding
from ..engine.embedded.child import Killed, apart
from ..engine.embedded.environment import FORMAT
from ..engine.embedded.figures import DataFigures, PartitionFigures
from ..engine.embedded.visit import Tell
from ..server.inspection import check_data, data_figures
from .formats import time_text
from .listing import show
from .running import say, show_progress

T = TypeVar("T")

_directory = click.Path(file_okay=False, path_type=Path)
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object.")


@click.group()
def data() -> None:
    """Check, back up, restore, compact and measure the data directory of a server.

    They work on files, not on a service: run them where the directory is, as the user of the server. What each of them
    does to a server that runs is told by its own help.
    """


@data.command(short_help="Check everything that DIR holds.")
@click.argument("directory", metavar="DIR", type=_directory)
@_json
def check(directory: Path, as_json: bool) -> None:
    """Check everything that DIR holds: a data directory or a backup of one. Changes nothing.

    Every page is accounted for; every batch of records has its checksum, its rows and its place without a gap; every
    document can be read, and names what there is. What is wrong is told with partition and sequence numbers, and what
    to do about it.

    Beside a running server it checks what was stored when it began, without the pages. Until it ends, the server cannot
    use the space again that is freed meanwhile. Without one, it keeps servers out while it runs.

    In a pipe: one line a finding, columns separated by tabs, no header. Exit codes: 0 clean; 1 findings, or nothing
    that can be checked.

    Example: disstream data check disstream-data
    """
    try:
        report = _run(check_data, CheckReport, data_dir=str(directory))
    except Killed as exc:
        # Not ours to survive: LMDB follows a page that is not what it says, and the system ends the process.
        report = CheckReport(directory=str(directory), pages="damaged")
        report.add(Finding(f"the process that read the file was {exc}", "restore a backup"))
    if as_json:
        _say_json(report)
    else:
        _tell_check(report)
    if not report.clean:
        sys.exit(1)


def _tell_check(report: CheckReport) -> None:
    rows = [
        (finding.stream_id or "-", _number(finding.partition), _rows(finding), finding.what, finding.remedy)
        for finding in report.findings
    ]
    if rows:
        show(("STREAM ID", "PARTITION", "ROWS", "FINDING", "REMEDY"), rows, elastic=("FINDING", "REMEDY"))
    more = f", {report.more} more are not shown" if report.more else ""
    by = f", in use by process {report.server}" if report.server is not None else ""
    old = f" (this version writes {FORMAT}; a server that opens it takes it over)" if 0 < report.format < FORMAT else ""
    say(f"{report.directory}: format {report.format or 'unknown'}{old}{by}; pages {report.pages}", err=True)
    say(
        f"{report.partitions} partitions, {report.rows} rows in {report.batches} batches, {_size(report.bytes)}; "
        f"{report.writers} producers, {report.documents} documents; {report.swept_later} batches wait to be deleted",
        err=True,
    )
    say("clean" if report.clean else f"{len(report.findings)} finding(s){more}", err=True)


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _rows(finding: Finding) -> str:
    if finding.first is None:
        return "-"
    return str(finding.first) if finding.first == finding.last else f"{finding.first}-{finding.last}"


@data.command(short_help="Copy DIR into the directory TARGET.")
@click.argument("directory", metavar="DIR", type=_directory)
@click.argument("target", type=_directory)
@click.option("--compact", is_flag=True, help="Leave out free pages: smaller, and takes longer.")
@click.option("--force", is_flag=True, help="Replace the backup that is in TARGET, once the new one is complete.")
@click.option(
    "--give-up",
    "give_up_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=copies.GIVE_UP_S,
    show_default=True,
    help="How long nothing may get written before it gives up.",
)
@_json
def backup(directory: Path, target: Path, compact: bool, force: bool, give_up_s: float, as_json: bool) -> None:
    """Copy DIR into the directory TARGET, which is made if need be. A server may run, and is not stopped.

    The copy is one instant of all streams, records, apps and checkpoints: what was acknowledged before the command
    began is in it. It appears under its name when it is complete and synchronised, never before. TARGET looks like DIR:
    `disstream data check` and `stats` read it, `restore` puts it back.

    Until it ends, the server cannot use the space again that is freed meanwhile: its file may grow by what it writes in
    that time. So it ends with an error if the disk of TARGET hangs; what was written stays there as data.mdb.new, which
    the next backup removes.

    \b
    Examples:
      disstream data backup disstream-data /backup/monday
      disstream data backup disstream-data /backup/latest --force --compact
    """
    where = {"data_dir": str(directory), "target": str(target)}
    report = _run(copies.backup, CopyReport, **where, compact=compact, force=force, give_up_s=give_up_s)
    _tell_copy(report, as_json, f"copied {directory} to {target}")


@data.command(short_help="Put BACKUP into the directory DIR.")
@click.argument("source", metavar="BACKUP", type=_directory)
@click.argument("directory", metavar="DIR", type=_directory)
@click.option("--force", is_flag=True, help="Replace the data that is in DIR.")
@_json
def restore(source: Path, directory: Path, force: bool, as_json: bool) -> None:
    """Put BACKUP into the directory DIR, which is made if need be, once BACKUP is checked. No server may use DIR.

    DIR holds all of it, or what it held before. If the command is killed while it copies into an empty DIR, a server
    that is started there refuses to start, and the command can be repeated.

    Example: disstream data restore /backup/monday disstream-data
    """
    report = _run(copies.restore, CopyReport, backup_dir=str(source), data_dir=str(directory), force=force)
    _tell_copy(report, as_json, f"restored {source} to {directory}")


@data.command(short_help="Write the file of DIR anew, without free space.")
@click.argument("directory", metavar="DIR", type=_directory)
@_json
def compact(directory: Path, as_json: bool) -> None:
    """Write the file of DIR anew, without the free space in it. No server may use DIR.

    A server uses free space again by itself: this is for a disk that others need. It takes room for what is left of the
    file beside it; it says how much if that is not there. The new file is compared with the old one, then takes its
    place in one step: killed at any moment, DIR holds the one or the other.

    Example: disstream data compact disstream-data
    """
    report = _run(copies.compact, CopyReport, data_dir=str(directory))
    _tell_copy(report, as_json, f"compacted {directory}")


def _tell_copy(report: CopyReport, as_json: bool, done: str) -> None:
    if as_json:
        _say_json(report)
        return
    beside = f", beside process {report.server}" if report.server is not None else ""
    say(f"{done}: {_size(report.target_bytes)} of {_size(report.source_bytes)}, format {report.format}{beside}")


@data.command(short_help="Show what DIR holds, and what its file has left.")
@click.argument("directory", metavar="DIR", type=_directory)
@_json
def stats(directory: Path, as_json: bool) -> None:
    """Show what DIR holds, partition by partition, and what its file has left. A server may run.

    ROWS can be read, BYTES are their payloads and keys, OLDEST and NEWEST when the first and the last of them were
    written. Free pages are used again before the file grows, unless a reader needs what they held.

    In a pipe: one line a partition, columns separated by tabs, no header. --json tells the figures of the file as well.

    Example: disstream data stats disstream-data
    """
    report = _run(data_figures, DataFigures, data_dir=str(directory))
    if as_json:
        _say_json(report)
        return
    show(
        ("STREAM", "PARTITION", "ROWS", "BYTES", "OLDEST", "NEWEST", "BATCHES", "ROWS A BATCH"),
        [_partition(partition) for partition in report.partitions],
        elastic=("STREAM",),
        title=_title(report),
    )


def _partition(found: PartitionFigures) -> tuple[str, ...]:
    return (
        found.stream or found.stream_id,
        str(found.partition),
        str(found.rows),
        str(found.bytes),
        "-" if found.oldest_ms is None else time_text(found.oldest_ms),
        "-" if found.newest_ms is None else time_text(found.newest_ms),
        str(found.batches),
        f"{found.rows / found.batches:.1f}" if found.batches else "-",
    )


def _title(report: DataFigures) -> str:
    page = report.page_bytes
    by = "nobody serves from it" if report.server is None else f"process {report.server} serves from it"
    oldest = [txn for _, txn in report.readers if txn is not None]
    behind = f", the oldest is {report.last_transaction - min(oldest)} transactions behind" if oldest else ""
    return (
        f"{report.directory}: format {report.format}; {by}; {len(report.readers)} other reader(s){behind}\n"
        f"file {_size(report.file_bytes)}: {_size(report.live_pages * page)} in use, {_size(report.free_pages * page)} "
        f"free; {report.garbage_batches} batches wait to be deleted\n"
        f"may grow to {_size(report.map_bytes)}; the disk has {_size(report.disk_free_bytes)} left\n"
    )


def _size(count: int) -> str:
    """In the unit that leaves a number below 1024."""
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{count} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def _say_json(report: msgspec.Struct) -> None:
    say(msgspec.json.format(msgspec.json.encode(report), indent=1).decode())


def _run(job: Callable[..., T], kind: type[T], **arguments: object) -> T:
    """Call it in a child; draw how far it is, if somebody watches."""
    with _bars() as tell:
        return apart(job, kind, tell, **arguments)


@contextlib.contextmanager
def _bars() -> Iterator[Tell]:
    """A bar for each thing that a job does, one after the other."""
    if not show_progress():
        yield lambda doing, done, total: None
        return
    from rich.console import Console  # here, because pipes see no bars
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<22}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, int] = {}

        def tell(doing: str, done: int, total: int) -> None:
            if doing not in tasks:
                tasks[doing] = progress.add_task(doing, total=total or None)
            progress.update(progress.task_ids[tasks[doing]], completed=done, total=total or None)

        yield tell
