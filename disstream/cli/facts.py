"""What can be asked about an app on a stream: the facts behind `disstream app lag` and `disstream app explain`."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import anyio
from msgspec.structs import replace

from .. import clock
from ..consumer.config import MIN_FETCH_BYTES
from ..door import DisClient
from ..errors import ApiError, CursorExpired, NotFoundError, SequenceOutOfRange
from ..leases.api import LeaseStore
from ..model import Checkpoint, GroupInfo, PartitionState, StreamInfo
from ..wire.annotations import read_note
from ..wire.checkpoints import position, sealed
from ..wire.partitioning import partition_id, partition_number
from ..worker.parking import Parking
from .findings import SILENT_S, Facts, GroupFacts, PartitionFacts, Suspended
from .leaseview import BEAT_SHARE, look, with_leases

APP_NOT_FOUND = "DIS.4332"

REQUESTS_AT_ONCE = 16
"""For the times of unread records, one request or two a partition."""

PEEK_BYTES = 4_096
"""Asked for to see one record. Where a service gives nothing, because the record is larger, more is asked for."""


def progress(state: PartitionState) -> tuple[int | None, int]:
    """What is read next (None: no checkpoint), and how many records are left to read."""
    following = position(state.checkpoint)[0] if state.checkpoint else None
    # What expired before it was read is not to be read any more.
    return following, max(0, state.latest - max(state.earliest, following or 0))


async def group_of(dis: DisClient, app: str) -> GroupInfo | None:
    """The app's group. None: this service does not tell. Raises NotFoundError (no such app)."""
    try:
        return await dis.groups.members(app)
    except ApiError as exc:
        if exc.code != APP_NOT_FOUND and exc.status in (400, 404, 405):
            return None
        raise


async def unread_times(dis: DisClient, stream: str, states: Collection[PartitionState]) -> dict[str, int]:
    """Partition id -> the timestamp (ms since the epoch) of the record that is read next, where there is one."""
    found: dict[str, int] = {}
    room = anyio.Semaphore(REQUESTS_AT_ONCE)

    async def look(state: PartitionState, place: int) -> None:
        async with room:
            time_ms = await _time_at(dis, stream, state.partition_id, place)
            if time_ms is not None:
                found[state.partition_id] = time_ms

    async with anyio.create_task_group() as tasks:
        for state in states:
            following, left = progress(state)
            if left:
                place = max(state.earliest, following or 0)
                tasks.start_soon(look, state, place, name=f"time-{state.partition_id}")
    return found


async def _time_at(dis: DisClient, stream: str, partition: str, sequence: int) -> int | None:
    try:
        for max_bytes in (PEEK_BYTES, MIN_FETCH_BYTES):
            cursor = await dis.cursors.get(stream, partition, sequence_number=sequence)
            page = await dis.records.get(cursor, max_bytes=max_bytes)
            if page.records:
                return page.records[0].timestamp
    except (SequenceOutOfRange, CursorExpired, NotFoundError):
        pass  # it expired this moment
    return None


async def facts_of(dis: DisClient, app: str, stream: str, store: LeaseStore | None = None) -> Facts:
    """Everything that `findings` judges; with a store of leases, as its rows say.

    Raises NotFoundError (no such app, no such stream), StorageError.
    """
    states = await dis.apps.state(app, stream)
    info = await dis.streams.describe(stream)
    if store is None:
        group = await group_of(dis, app)
        times = await unread_times(dis, stream, states)
        return gathered(app, stream, states, info, group, times, clock.wall_ms())
    view = await look(store, app)
    states = with_leases(states, view.rows.leases, stream, info.stream_id)
    times = await unread_times(dis, stream, states)
    facts = gathered(app, stream, states, info, view.group(), times, clock.wall_ms())
    heirs = view.heirs(stream, info.stream_id)
    sessions = [row.session_timeout_s for row in view.rows.members.values()]
    assert facts.group is not None
    return replace(
        facts,
        group=replace(facts.group, silent_after_s=min(sessions, default=SILENT_S / BEAT_SHARE) * BEAT_SHARE),
        partitions=tuple(replace(p, heir=heirs.get(partition_number(p.partition_id), "")) for p in facts.partitions),
    )


async def states_of(dis: DisClient, app: str, stream: str, store: LeaseStore | None) -> list[PartitionState]:
    """How far the app is; with a store of leases, as its rows say. Raises NotFoundError, StorageError."""
    states = await dis.apps.state(app, stream)
    if store is None:
        return states
    info = await dis.streams.describe(stream)
    view = await look(store, app, watch=False)
    return with_leases(states, view.rows.leases, stream, info.stream_id)


def gathered(
    app: str,
    stream: str,
    states: Collection[PartitionState],
    info: StreamInfo,
    group: GroupInfo | None,
    times: Mapping[str, int],
    now_ms: int,
) -> Facts:
    """The answers as one picture."""
    owners: dict[str, tuple[str, float]] = {}
    for member in group.members if group is not None else ():
        # Members may have named the stream by its id.
        for number in (*member.partitions.get(stream, ()), *member.partitions.get(info.stream_id, ())):
            owners[partition_id(number)] = (member.member_id, member.silent_s)
    bounds = {
        partition_id(partition_number(p.partition_id)): {b.change: b.sequence_number for b in p.bounds}
        for p in info.partitions
    }
    found = []
    for state in states:
        following, _ = progress(state)
        owner, silent_s = owners.get(state.partition_id, ("", None))
        note = read_note(position(state.checkpoint)[1] if state.checkpoint else "")
        time_ms = times.get(state.partition_id)
        found.append(
            PartitionFacts(
                partition_id=state.partition_id,
                status=state.status,
                oldest=state.earliest,
                end=state.latest,
                following=following,
                committed_s=_age_s(state.committed_ms, now_ms),
                committed_by=state.committed_by,
                was_set=was_set(state.checkpoint),
                owner=owner,
                silent_s=silent_s,
                unread_s=_age_s(time_ms, now_ms),
                expires_s=None if time_ms is None else (time_ms - now_ms) / 1000 + info.retention_h * 3600,
                problem=line(note.problem),
                suspended=_suspended(note.annotation, now_ms),
                parked_keys=Parking.read(note.annotation).parked_keys,
                bounds=bounds.get(state.partition_id, {}),
            )
        )
    return Facts(
        app=app,
        stream=stream,
        group=None
        if group is None
        else GroupFacts(group.state, group.generation, {m.member_id: m.silent_s for m in group.members}),
        partitions=tuple(found),
        retention_h=info.retention_h,
    )


def was_set(checkpoint: Checkpoint | None) -> bool:
    if checkpoint is None:
        return False
    return checkpoint.metadata.startswith(sealed(checkpoint.sequence_number, read=False).metadata)


def _suspended(annotation: str, now_ms: int) -> Suspended | None:
    """Where a worker gave up. None: it did not, or it was no worker that wrote this."""
    given_up = Parking.read(annotation).suspension
    if given_up is None:
        return None
    return Suspended(given_up.sequence_number, line(given_up.error), _age_s(given_up.at_ms, now_ms))


def _age_s(time_ms: int | None, now_ms: int) -> float | None:
    """Clocks run apart: what comes from the future is of now."""
    return None if time_ms is None else max(0.0, (now_ms - time_ms) / 1000)


def line(text: str) -> str:
    """What a reader wrote, as one line that tells a terminal nothing."""
    return "".join(c if c.isprintable() else "." for c in text)
