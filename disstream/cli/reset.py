"""`disstream app reset`: let an app read on somewhere else, also while its members live."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import click

from .. import clock
from ..door import DisClient
from ..leases.api import LeaseStore
from ..model import GroupInfo, GroupMember, PartitionInfo, PartitionState
from ..wire.checkpoints import RESETS, sealed
from ..wire.partitioning import partition_number
from .facts import group_of, progress, states_of, was_set
from .findings import LEASES, STUCK_S, age
from .leaseview import View, look, maybe_opened, shown_names, store_option
from .leaseview import reset as reset_rows
from .listing import show
from .places import Start, first_since, partition_ids
from .running import run, say
from .session import Target, connects


class Move(NamedTuple):
    """Of one partition: what is read next (None: no checkpoint), and what is to be."""

    partition_id: str
    before: int | None
    after: int
    effect: str


@click.command(short_help="Let APP read on somewhere else, also while its members live.")
@click.argument("name", metavar="APP")
@click.argument("stream")
@click.option(
    "--to",
    "goal",
    type=Start(),
    required=True,
    metavar="earliest|latest|ISO-TIME|SEQ",
    help="What is read next. ISO-TIME: the first record that was written from then on; without an offset it is local "
    "time. SEQ, a sequence number, is one partition's: name it with --partition, unless there is only one.",
)
@click.option(
    "--partition",
    "partitions",
    multiple=True,
    callback=partition_ids,
    metavar="P",
    help="This partition only: 0 or shardId-0000000000. May be given several times.",
)
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option(
    "--force",
    is_flag=True,
    help="Also while members of the app read: they lose their partitions, join again by themselves, and begin at the "
    "new places. What they finished and did not commit is done again, or skipped, as the new place says.",
)
@store_option
@connects
def reset(
    target: Target,
    name: str,
    stream: str,
    goal: str | int | datetime,
    partitions: tuple[str, ...],
    dry_run: bool,
    force: bool,
    store_url: str | None,
) -> None:
    """Let APP read on elsewhere on STREAM: set its checkpoints on all partitions, or on those of --partition.

    Refused while members of APP's group live, unless --force is given. On disstream's own server the checkpoints are
    set and the members dropped in one step, so nobody commits over them; a record that a member has in hand at that
    moment is still handled, for some seconds at most. Other services tell nothing of members: stop every reader of APP
    first there, or it goes on where it was and commits over this.

    Of members that share by leases name the --store: their checkpoints are there. Those on the service only follow.

    What a worker kept beside its checkpoints goes with them: suspended partitions go on, parked keys are read again.

    In a pipe: one line a partition, columns separated by tabs: partition, from, to, effect.

    \b
    Examples:
      disstream app reset billing orders --to earliest --dry-run
      disstream app reset billing orders --to 2026-11-21T08:00:00+00:00
      disstream app reset billing orders --to 4711 --partition 0 --force
    """

    async def work() -> tuple[list[Move], tuple[str, ...]]:
        async with target.connect() as dis, maybe_opened(store_url) as store:
            states = _chosen(await states_of(dis, name, stream, store), stream, partitions)
            moves = await _moves(dis, stream, states, goal)
            group = await group_of(dis, name)
            if store is None or group is not None:
                _check_members(name, group, RESETS in dis.extensions, force=force, dry_run=dry_run)
            view = None
            if store is None:
                _warn_of_others(name, states)
            else:
                view = await look(store, name)
                living = GroupInfo(state=LEASES, generation=0, members=_living(view))
                _check_members(name, living, True, force=force, dry_run=dry_run)
            if dry_run:
                return moves, ()
            # With leases, too, and first: a partition that has no row yet begins at the service's checkpoint.
            dropped = await _carry_out(dis, name, stream, moves, force=force)
            if store is not None and view is not None:
                dropped += await _reset_leases(dis, store, view, name, stream, moves)
            return moves, dropped

    moves, dropped = run(work)
    show(
        ("PARTITION", "FROM", "TO", "EFFECT"),
        [(m.partition_id, "-" if m.before is None else str(m.before), str(m.after), m.effect) for m in moves],
        elastic=(),
        title=f"{name} on {stream}",
    )
    if dry_run:
        say("nothing was changed (--dry-run)", err=True)
    if dropped:
        say(f"dropped {', '.join(dropped)}: they join again by themselves, and begin at these places", err=True)


def _chosen(states: Sequence[PartitionState], stream: str, partitions: Sequence[str]) -> list[PartitionState]:
    """The partitions to be set: those named, or all that can be read."""
    readable = {state.partition_id: state for state in states if state.status in PartitionInfo.READABLE}
    if unknown := [partition for partition in partitions if partition not in readable]:
        raise click.ClickException(f"{stream} has no {unknown[0]} to read, only {', '.join(readable) or 'none'}")
    if not readable:
        raise click.ClickException(f"{stream} has no partition that can be read")
    return [readable[partition] for partition in partitions or readable]


async def _moves(
    dis: DisClient, stream: str, states: Sequence[PartitionState], goal: str | int | datetime
) -> list[Move]:
    """What the goal means for each partition. All is looked at before anything is changed."""
    if isinstance(goal, int) and len(states) != 1:
        raise click.UsageError(f"--to {goal} is one partition's number, {stream} has {len(states)}: add --partition")
    found = []
    for state in states:
        if isinstance(goal, int):
            after = goal
        elif isinstance(goal, datetime):
            first = await first_since(dis, stream, state.partition_id, goal)
            after = state.latest if first is None else first
        else:
            after = state.earliest if goal == "earliest" else state.latest
        if not state.earliest <= after <= max(state.latest, state.earliest):
            missing = "has expired" if after < state.earliest else "is not written yet"
            raise click.ClickException(
                f"{after} {missing}: {state.partition_id} holds {state.earliest} up to, not including, {state.latest}"
            )
        found.append(_move(state, after))
    return found


def _move(state: PartitionState, after: int) -> Move:
    before, left = progress(state)
    again = (state.latest - after) - left
    if again:
        effect = f"{again} again" if again > 0 else f"{-again} skipped"
    else:
        effect = "none" if before is not None else "pinned"
    return Move(state.partition_id, before, after, effect)


def _warn_of_others(name: str, states: Sequence[PartitionState]) -> None:
    """Somebody who is no member and commits is seen by that alone."""
    now_ms = clock.wall_ms()
    for state in states:
        if state.committed_ms is None or state.committed_by or was_set(state.checkpoint):
            continue
        since_s = max(0.0, (now_ms - state.committed_ms) / 1000)
        if since_s < STUCK_S:
            say(
                f"warning: {age(since_s)} ago somebody outside the group committed for {name}: if that reader lives, "
                "it commits over this; of readers that share by leases give the --store",
                err=True,
            )
            return


def _living(view: View) -> tuple[GroupMember, ...]:
    return tuple(GroupMember(member_id=member) for member in shown_names(view, view.living()))


async def _reset_leases(
    dis: DisClient, store: LeaseStore, view: View, name: str, stream: str, moves: Sequence[Move]
) -> tuple[str, ...]:
    """Set the checkpoints in the rows. Returns the living owners that were taken out of them."""
    stream_id = (await dis.streams.describe(stream)).stream_id
    places = {partition_number(move.partition_id): sealed(move.after, read=False) for move in moves}
    _, owners = await reset_rows(store, name, stream, stream_id, places)
    return tuple(shown_names(view, owners & set(view.living())))


def _check_members(name: str, group: GroupInfo | None, in_one_step: bool, *, force: bool, dry_run: bool) -> None:
    """Refuse while members live, unless forced; tell what is not certain. `in_one_step`: the service drops members."""
    if group is None:
        say(
            f"warning: this service does not tell who reads for {name}: a reader that lives commits over this, so stop "
            "all of them first",
            err=True,
        )
        return
    if not group.members:
        return
    named = ", ".join(member.member_id for member in group.members)
    told = f"{len(group.members)} member(s) read for {name} ({named})"
    if dry_run:
        say(f"note: {told}: it would take --force, or stopping them", err=True)
    elif not force:
        raise click.ClickException(f"{told}: stop them, or add --force, which makes them begin at the new places")
    elif not in_one_step:
        say(f"warning: {told}, and this service cannot drop them: they commit over this; set it again", err=True)


async def _carry_out(dis: DisClient, name: str, stream: str, moves: Sequence[Move], *, force: bool) -> tuple[str, ...]:
    """Set the checkpoints. Returns the members that were dropped for it."""
    if RESETS in dis.extensions:
        following = {move.partition_id: move.after for move in moves}
        return await dis.checkpoints.reset(name, stream, following, force=force)
    for move in moves:
        told = sealed(move.after, read=False)
        await dis.checkpoints.commit(name, stream, move.partition_id, told.sequence_number, metadata=told.metadata)
    return ()
