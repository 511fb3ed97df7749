"""`disstream stream`: create, list, describe and delete streams."""

from __future__ import annotations

import click

from ..model import StreamInfo, StreamSummary
from .formats import time_text
from .listing import show
from .session import Target, connects, run, say


@click.group()
def stream() -> None:
    """Create, list, describe and delete streams."""


@stream.command()
@click.argument("name")
@click.option("--partitions", type=click.IntRange(min=1), required=True, help="How many partitions it gets.")
@click.option("--retention-h", type=click.IntRange(24, 168), default=24, help="How long records are kept, in hours.")
@click.option("--type", "stream_type", type=click.Choice(["COMMON", "ADVANCED"]), default="COMMON", help="Its type.")
@connects
def create(target: Target, name: str, partitions: int, retention_h: int, stream_type: str) -> None:
    """Create stream NAME and wait until it can be used.

    Example: disstream stream create orders --partitions 4
    """

    async def work() -> StreamInfo:
        async with target.connect() as dis:
            await dis.streams.create(name, partitions=partitions, retention_h=retention_h, stream_type=stream_type)
            return await dis.streams.wait_running(name)

    info = run(work)
    say(f"created {info.name}: {info.writable_partition_count} partition(s), kept {info.retention_h} h")


@stream.command("list")
@connects
def list_streams(target: Target) -> None:
    """List the streams of the project, by name.

    In a pipe: one line a stream, columns separated by tabs, no header.

    Example: disstream stream list --project demo
    """

    async def work() -> list[StreamSummary]:
        async with target.connect() as dis:
            return [found async for found in dis.streams.list()]

    show(
        ("STREAM", "STATUS", "PARTITIONS", "RETENTION (h)", "TYPE", "CREATED (UTC)"),
        [
            (s.name, s.status, str(s.partition_count), str(s.retention_h), s.stream_type, time_text(s.create_time))
            for s in run(work)
        ],
        elastic=("STREAM",),
    )


@stream.command(short_help="Show stream NAME and its partitions.")
@click.argument("name")
@connects
def describe(target: Target, name: str) -> None:
    """Show stream NAME and its partitions: status, what is readable (OLDEST up to, not including, NEXT), hash keys.

    In a pipe: one line a partition, columns separated by tabs, no header.

    Example: disstream stream describe orders
    """

    async def work() -> StreamInfo:
        async with target.connect() as dis:
            return await dis.streams.describe(name)

    info = run(work)
    rows = []
    for p in info.partitions:
        oldest, following = p.sequence_range or ("-", "-")
        low, high = p.hash_range or ("-", "-")
        rows.append((p.partition_id, p.status, str(oldest), str(following), str(low), str(high)))
    show(
        ("PARTITION", "STATUS", "OLDEST", "NEXT", "FIRST HASH KEY", "LAST HASH KEY"),
        rows,
        elastic=("FIRST HASH KEY", "LAST HASH KEY"),
        title=f"{info.name} ({info.stream_id}): {info.status}\n{info.stream_type}, {info.data_type}, "
        f"kept {info.retention_h} h, created {time_text(info.create_time)} UTC",
    )


@stream.command()
@click.argument("name")
@connects
def delete(target: Target, name: str) -> None:
    """Delete stream NAME with all its records. It asks nothing and cannot be undone.

    Example: disstream stream delete orders
    """

    async def work() -> None:
        async with target.connect() as dis:
            await dis.streams.delete(name)

    run(work)
    say(f"deleted {name}")
