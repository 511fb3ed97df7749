"""`disstream checkpoint`: show, set and delete how far an app has read."""

from __future__ import annotations

import sys

import click

from ..door import DisClient
from ..errors import ApiError
from ..model import MAX_HASH_KEY, PartitionInfo, PartitionState
from ..wire.checkpoints import position, sealed
from ..wire.partitioning import partition_id, partition_number
from .listing import show
from .running import run, say
from .session import Target, connects

ALL = "all"


def _partition(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is None or value == ALL:
        return value
    try:
        return partition_id(partition_number(value))
    except ApiError as exc:
        raise click.BadParameter(f"{value!r} is neither a number, nor like shardId-0000000000, nor {ALL}") from exc


def _sequence(ctx: click.Context, param: click.Parameter, value: str) -> int | str:
    if value in ("earliest", "latest"):
        return value
    if value.isascii() and value.isdigit() and len(value) <= 19 and int(value) <= MAX_HASH_KEY:
        return int(value)
    raise click.BadParameter(f"{value!r} is neither earliest nor latest nor a number within 0 and {MAX_HASH_KEY}")


@click.group()
def checkpoint() -> None:
    """Show, set and delete how far an app has read."""


@checkpoint.command("show", short_help="Show how far APP has read STREAM.")
@click.argument("app")
@click.argument("stream")
@connects
def show_checkpoints(target: Target, app: str, stream: str) -> None:
    """Show how far APP has read STREAM: what it reads next, the number as stored, and the reader's own metadata.

    In a pipe: one line a partition, columns separated by tabs, no header.

    Example: disstream checkpoint show billing orders
    """

    async def work() -> list[PartitionState]:
        async with target.connect() as dis:
            return await dis.apps.state(app, stream)

    rows = []
    for state in run(work):
        if state.checkpoint is None:
            rows.append((state.partition_id, state.status, "-", "-", ""))
        else:
            following, metadata = position(state.checkpoint)
            # A reader may have put anything there: a line stays a line, and a terminal gets no commands.
            told = "".join(c if c.isprintable() else "." for c in metadata)
            rows.append((state.partition_id, state.status, str(following), str(state.checkpoint.sequence_number), told))
    show(
        ("PARTITION", "STATUS", "NEXT TO READ", "STORED", "METADATA"),
        rows,
        elastic=("METADATA",),
        title=f"{app} on {stream}",
    )


@checkpoint.command("set", short_help="Let APP read on at SEQ.")
@click.argument("app")
@click.argument("stream")
@click.argument("partition", callback=_partition)
@click.argument("sequence", metavar="SEQ", callback=_sequence)
@connects
def set_checkpoint(target: Target, app: str, stream: str, partition: str, sequence: int | str) -> None:
    """Let APP read PARTITION of STREAM on at SEQ: the record with that number is what it reads next.

    PARTITION: 0, shardId-0000000000, or all. SEQ: a number, earliest, or latest (only what comes from now on). Members
    of the app's group do not notice, and will commit over it: stop them first, or use `disstream app reset`.

    \b
    Examples:
      disstream checkpoint set billing orders 0 1000
      disstream checkpoint set billing orders all earliest
    """

    async def work() -> dict[str, int]:
        async with target.connect() as dis:
            goals = _goals(await dis.apps.state(app, stream), stream, partition, sequence)
            reading = await _members(dis, app)
            if reading:
                say(
                    f"warning: {reading} member(s) are reading for {app} and will commit over this: "
                    "stop them, then set it again, or use `disstream app reset --force`",
                    err=True,
                )
            for number, following in goals.items():
                kept = sealed(following, read=False)
                await dis.checkpoints.commit(app, stream, number, kept.sequence_number, metadata=kept.metadata)
            return goals

    for number, following in run(work).items():
        say(f"{number}: next is {following}")


def _goals(states: list[PartitionState], stream: str, partition: str, sequence: int | str) -> dict[str, int]:
    """Partition id -> what is read next. All is checked before anything is changed."""
    chosen = [
        s for s in states if (s.status in PartitionInfo.READABLE if partition == ALL else s.partition_id == partition)
    ]
    if not chosen:
        raise click.ClickException(f"{stream} has no {partition}, only {', '.join(s.partition_id for s in states)}")
    goals = {}
    for state in chosen:
        following = {"earliest": state.earliest, "latest": state.latest}.get(str(sequence))
        goals[state.partition_id] = int(sequence) if following is None else following
        if goals[state.partition_id] > state.latest:
            raise click.ClickException(
                f"{sequence} is not written yet: {state.partition_id} ends before {state.latest}"
            )
    return goals


async def _members(dis: DisClient, app: str) -> int:
    """How many members the group has; 0 where the service does not tell."""
    try:
        return len((await dis.groups.members(app)).members)
    except ApiError:
        return 0


@checkpoint.command(short_help="Forget how far APP has read STREAM.")
@click.argument("app")
@click.argument("stream")
@click.argument("partition", callback=_partition, required=False)
@click.option("--yes", is_flag=True, help="Do not ask before those of all partitions are deleted.")
@connects
def delete(target: Target, app: str, stream: str, partition: str | None, yes: bool) -> None:
    """Forget how far APP has read PARTITION of STREAM (0 or shardId-0000000000), or without PARTITION all of it.

    APP then begins as its consumers are told to begin without a checkpoint. On a terminal it asks before it deletes
    those of all partitions.

    \b
    Examples:
      disstream checkpoint delete billing orders 0
      disstream checkpoint delete billing orders --yes
    """
    one = None if partition == ALL else partition
    if one is None and not yes and _asks():
        click.confirm(f"Delete all checkpoints of {app} on {stream}?", abort=True, err=True)

    async def work() -> None:
        async with target.connect() as dis:
            await dis.checkpoints.delete(app, stream, one)

    run(work)
    say(f"deleted {app}'s checkpoint on {stream} {one}" if one else f"deleted {app}'s checkpoints on {stream}")


def _asks() -> bool:
    """Whether somebody is there to answer."""
    return sys.stdin is not None and sys.stdin.isatty()
