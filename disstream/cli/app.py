"""`disstream app`: create, list, describe and delete apps, and tell how far they are."""

from __future__ import annotations

import click

from ..errors import ApiError
from ..model import AppInfo, GroupInfo, GroupMember, PartitionState
from ..wire.checkpoints import position
from .formats import time_text
from .listing import show
from .session import Target, connects, run, say

APP_NOT_FOUND = "DIS.4332"


@click.group()
def app() -> None:
    """Create and delete apps; tell who reads and how far."""


@app.command()
@click.argument("name", metavar="APP")
@connects
def create(target: Target, name: str) -> None:
    """Create app APP: a reader of streams that has checkpoints of its own.

    Example: disstream app create billing
    """

    async def work() -> None:
        async with target.connect() as dis:
            await dis.apps.create(name)

    run(work)
    say(f"created {name}")


@app.command("list")
@click.option("--stream", metavar="STREAM", help="Only apps that have a checkpoint on STREAM.")
@connects
def list_apps(target: Target, stream: str | None) -> None:
    """List the apps of the project, by name, with the streams they have checkpoints on.

    In a pipe: one line an app, columns separated by tabs, no header.

    Example: disstream app list --stream orders
    """

    async def work() -> list[AppInfo]:
        async with target.connect() as dis:
            return [found async for found in dis.apps.list(stream=stream)]

    show(
        ("APP", "CREATED (UTC)", "STREAMS"),
        [(a.name, time_text(a.create_time), ", ".join(a.streams)) for a in run(work)],
        elastic=("APP", "STREAMS"),
    )


@app.command()
@click.argument("name", metavar="APP")
@connects
def describe(target: Target, name: str) -> None:
    """Show app APP and the streams it has checkpoints on.

    In a pipe: one line a stream, no header.

    Example: disstream app describe billing
    """

    async def work() -> AppInfo:
        async with target.connect() as dis:
            return await dis.apps.describe(name)

    info = run(work)
    show(
        ("STREAM",),
        [(stream,) for stream in info.streams],
        elastic=("STREAM",),
        title=f"{info.name} ({info.app_id}): created {time_text(info.create_time)} UTC",
    )


@app.command()
@click.argument("name", metavar="APP")
@connects
def delete(target: Target, name: str) -> None:
    """Delete app APP with all its checkpoints. It asks nothing and cannot be undone.

    Refused while members of its group are reading.

    Example: disstream app delete billing
    """

    async def work() -> None:
        async with target.connect() as dis:
            await dis.apps.delete(name)

    run(work)
    say(f"deleted {name}")


@app.command(short_help="Show how far APP is behind the end of STREAM.")
@click.argument("name", metavar="APP")
@click.argument("stream")
@connects
def lag(target: Target, name: str, stream: str) -> None:
    """Show how far APP is behind the end of STREAM: records from NEXT TO READ up to, not including, END.

    Where it has no checkpoint (-), all that can still be read counts. The last line is the sum.

    In a pipe: one line a partition and one for the sum, columns separated by tabs, no header.

    Example: disstream app lag billing orders
    """

    async def work() -> list[PartitionState]:
        async with target.connect() as dis:
            return await dis.apps.state(name, stream)

    rows, total = [], 0
    for state in run(work):
        following, left = _progress(state)
        total += left
        shown = "-" if following is None else str(following)
        rows.append((state.partition_id, state.status, shown, str(state.latest), str(left)))
    show(
        ("PARTITION", "STATUS", "NEXT TO READ", "END", "LAG"),
        [*rows, ("total", "", "", "", str(total))],
        elastic=(),
        title=f"{name} on {stream}",
    )


def _progress(state: PartitionState) -> tuple[int | None, int]:
    """What is read next (None: no checkpoint), and how many records are left to read."""
    following = position(state.checkpoint)[0] if state.checkpoint else None
    # What expired before it was read is not to be read any more.
    return following, max(0, state.latest - max(state.earliest, following or 0))


@app.command(short_help="Show who reads for APP.")
@click.argument("name", metavar="APP")
@connects
def members(target: Target, name: str) -> None:
    """Show the members of APP's group: the partitions of each, and for how many seconds it has been silent.

    Only disstream's own server tells this. In a pipe: one line a member, columns separated by tabs, no header.

    Example: disstream app members billing
    """

    async def work() -> GroupInfo:
        async with target.connect() as dis:
            return await dis.groups.members(name)

    try:
        group = run(work)
    except ApiError as exc:
        if exc.code != APP_NOT_FOUND and exc.status in (400, 404, 405):
            raise click.ClickException(f"this service does not tell the members of an app ({exc})") from exc
        raise
    show(
        ("MEMBER", "SILENT (s)", "PARTITIONS"),
        [(m.member_id, f"{m.silent_s:.1f}", _partitions(m)) for m in group.members],
        elastic=("MEMBER", "PARTITIONS"),
        title=f"{name}: {group.state}, generation {group.generation}",
    )


def _partitions(member: GroupMember) -> str:
    return "; ".join(
        f"{stream}: {', '.join(map(str, sorted(numbers))) or '-'}"
        for stream, numbers in sorted(member.partitions.items())
    )
