"""`disstream dump`: create, list, describe, start, stop and delete dump tasks."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from typing import Any

import click
import msgspec

from ..destinations import DumpTask, DumpTaskInfo
from ..wire.dumps import descriptor_of
from .formats import time_text
from .listing import show
from .running import run, say
from .session import Target, connects

MAX_FILE_BYTES = 16 * 1_048_576
"""Far above any destination; the service has a limit of its own."""
_SECRET = b"user_password"


@click.group()
def dump() -> None:
    """Create, start and stop dump tasks: a stream copied into a store."""


@dump.command(short_help="Create a dump task on STREAM.")
@click.argument("stream")
@click.option("--file", "path", required=True, metavar="FILE", help="The destination as JSON. (-: standard input.)")
@connects
def create(target: Target, stream: str, path: str) -> None:
    """Create a dump task on STREAM with the destination that FILE describes, as the API has it:

    \b
    {"destination_type": "OBS",
     "obs_destination_descriptor": {
       "task_name": "archive", "agency_name": "dis_admin_agency",
       "obs_bucket_path": "bucket", "partition_format": "yyyy/MM/dd"}}

    A file with a password (DWS) must not be readable by others.

    Example: disstream dump create orders --file archive.json
    """
    body = _read(path)
    try:
        told = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise click.UsageError(f"--file: {path} is not JSON: {exc}") from exc
    if not isinstance(told, dict) or "destination_type" not in told:
        raise click.UsageError(f"--file: {path} holds no object with destination_type: see disstream dump create -h")

    async def work() -> None:
        async with target.connect() as dis:
            # As it stands: the service knows fields that this version does not.
            await dis.call("create_dump_task", {"stream_name": stream}, body=body)

    run(work)
    say(f"created {_task_name(told)} on {stream}")


def _read(path: str) -> bytes:
    if path == "-":
        if sys.stdin is None:
            raise click.UsageError("--file -: standard input is closed")
        return _bounded(sys.stdin.buffer.read(MAX_FILE_BYTES + 1), path)
    with open(path, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        body = _bounded(file.read(MAX_FILE_BYTES + 1), path)
    if _SECRET in body and os.name == "posix" and stat.S_ISREG(mode) and mode & 0o077:
        raise click.UsageError(
            f"--file: others can read or change {path}, which holds a password; run: chmod 600 {shlex.quote(path)}"
        )
    return body


def _bounded(body: bytes, path: str) -> bytes:
    if len(body) > MAX_FILE_BYTES:
        raise click.UsageError(f"--file: {path} has more than {MAX_FILE_BYTES} bytes: no destination is so large")
    return body


def _task_name(told: dict[str, Any]) -> str:
    descriptors = (value for key, value in told.items() if "_destination_" in key and isinstance(value, dict))
    return next((str(value["task_name"]) for value in descriptors if "task_name" in value), "a dump task")


@dump.command("list")
@click.argument("stream")
@connects
def list_tasks(target: Target, stream: str) -> None:
    """List the dump tasks of STREAM.

    In a pipe: one line a task, columns separated by tabs, no header.

    Example: disstream dump list orders
    """

    async def work() -> list[DumpTask]:
        async with target.connect() as dis:
            return await dis.dumps.list(stream)

    show(
        ("TASK", "TYPE", "STATE", "CREATED (UTC)", "LAST COPY (UTC)", "REASON"),
        [
            (
                task.name,
                task.destination_type,
                task.state,
                time_text(task.create_time),
                _time(task.last_transfer_timestamp),
                task.state_reason,
            )
            for task in run(work)
        ],
        elastic=("TASK", "REASON"),
    )


@dump.command(short_help="Show dump task TASK of STREAM.")
@click.argument("stream")
@click.argument("task")
@connects
def describe(target: Target, stream: str, task: str) -> None:
    """Show dump task TASK of STREAM: its destination, and how far it is in each partition.

    In a pipe: one line a partition, columns separated by tabs, no header.

    Example: disstream dump describe orders archive
    """

    async def work() -> DumpTaskInfo:
        async with target.connect() as dis:
            return await dis.dumps.describe(stream, task)

    info = run(work)
    show(
        ("PARTITION", "STATUS", "STATE", "START", "LAST COPIED", "LAST COPY (UTC)", "DISCARDED"),
        [
            (
                p.partition_id,
                p.partition.status,
                p.state,
                _number(p.start_offset),
                _number(p.last_transfer_offset),
                _time(p.last_transfer_timestamp),
                str(p.discarded),
            )
            for p in info.partitions
        ],
        elastic=(),
        title="\n".join(_title(info)),
    )


def _title(info: DumpTaskInfo) -> list[str]:
    lines = [
        f"{info.name} ({info.task_id}): {info.state}",
        info.state_reason,
        f"created {time_text(info.create_time)} UTC",
    ]
    lines.append(f"to {info.destination_type}")
    if info.destination is not None:
        told = descriptor_of(info.destination)
        lines += [f"  {name}: {_short(value)}" for name, value in told.items() if name != "task_name"]
    return [line for line in lines if line]


def _short(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 1_000 else f"{text[:1_000]}..."


def _time(ms: int) -> str:
    return time_text(ms) if ms else "-"


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


@dump.command(short_help="Start dump tasks of STREAM.")
@click.argument("stream")
@click.argument("task", nargs=-1, required=True)
@connects
def start(target: Target, stream: str, task: tuple[str, ...]) -> None:
    """Start dump tasks of STREAM where they stopped, by their names.

    Example: disstream dump start orders archive
    """

    async def work() -> list[DumpTask]:
        async with target.connect() as dis:
            await dis.dumps.start(stream, *task)
            return await dis.dumps.list(stream)

    for found in run(work):
        if found.name in task:
            say(f"{found.name} is {found.state}" + (f": {found.state_reason}" if found.state_reason else ""))


@dump.command(short_help="Pause dump tasks of STREAM.")
@click.argument("stream")
@click.argument("task", nargs=-1, required=True)
@connects
def stop(target: Target, stream: str, task: tuple[str, ...]) -> None:
    """Pause dump tasks of STREAM, by their names. They keep their positions.

    Example: disstream dump stop orders archive
    """

    async def work() -> None:
        async with target.connect() as dis:
            await dis.dumps.stop(stream, *task)

    run(work)
    say(f"stopped {', '.join(task)}")


@dump.command()
@click.argument("stream")
@click.argument("task")
@connects
def delete(target: Target, stream: str, task: str) -> None:
    """Delete dump task TASK of STREAM. What it copied stays. It asks nothing and cannot be undone.

    Example: disstream dump delete orders archive
    """

    async def work() -> None:
        async with target.connect() as dis:
            await dis.dumps.delete(stream, task)

    run(work)
    say(f"deleted {task}")
