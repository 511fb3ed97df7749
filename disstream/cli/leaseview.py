"""The leases of an app as its members wrote them into a lease store: for the commands that take `--store`.

Of an app whose members share by leases the service knows neither members nor, before the mirror tells it, checkpoints:
the rows of the store say both (consumer/rows.py). Whether a member lives, no row says: it is watched until its beat
moves, or until it has missed one for certain.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio
import click
from msgspec.structs import replace

from .. import clock
from ..consumer.rows import LeaseKey, LeaseRow, Rows, checkpoint_fields, encode_row, lease_key, lease_prefix, read_lease
from ..consumer.rows import read_rows as read_all
from ..errors import StorageError
from ..leases.api import LeaseStore, Swap
from ..leases.opening import lease_store
from ..model import Checkpoint, GroupInfo, GroupMember, PartitionState
from ..wire.partitioning import partition_number
from .findings import LEASES
from .session import given

LOOK_S = 0.5
"""Between two looks at the beats."""

BEAT_SHARE = 1 / 3
"""Of its session time-out a member lets pass between two beats at most."""

TRIES = 20
"""Of a change to a row: a living owner writes it every few seconds, so the second try meets nobody."""

store_option = click.option(
    "--store",
    "store_url",
    callback=given,
    envvar="DISSTREAM_LEASES",
    show_envvar=True,
    metavar="URL",
    help="The lease store, if the members of APP share by leases: sqlite:///path, postgresql://user:password@host/name "
    "or redis://host:6379/0. A password is better kept in the variable.",
)


class View(NamedTuple):
    """What the store says of an app. `silent_s`: member's name -> how long it was watched without a beat; 0: it has
    beaten. `watched_s`: how long that took."""

    rows: Rows
    silent_s: dict[str, float]
    watched_s: float

    def living(self) -> list[str]:
        """The names of those that live, or may."""
        return sorted(name for name, silent_s in self.silent_s.items() if not self.is_silent(name, silent_s))

    def is_silent(self, name: str, silent_s: float) -> bool:
        return silent_s > self.rows.members[name].session_timeout_s * BEAT_SHARE

    def group(self) -> GroupInfo:
        """As a group would be told. Members whose row is gone read nothing any more."""
        shown = _shown(self.rows.members)
        return GroupInfo(
            state=LEASES if self.rows.members else "EMPTY",
            generation=max((row.token for row in self.rows.leases.values()), default=0),
            members=tuple(
                GroupMember(
                    member_id=shown[name],
                    partitions=_held_by(self.rows.leases, name),
                    silent_s=self.silent_s[name],
                )
                for name in sorted(self.rows.members)
            ),
        )

    def heirs(self, stream: str, stream_id: str) -> dict[int, str]:
        """Partition number -> the member that is to have it next."""
        shown = _shown(self.rows.members)
        return {
            key.number: shown.get(row.heir, row.heir)
            for key, row in self.rows.leases.items()
            if row.heir and key.stream == stream and row.stream_id == stream_id
        }


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[LeaseStore]:
    """The store, started. Raises ConfigError, StorageError."""
    store = lease_store(url)
    try:
        await store.start()
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def maybe_opened(url: str | None) -> AsyncIterator[LeaseStore | None]:
    """The store of `--store`, or None without that."""
    if url is None:
        yield None
    else:
        async with opened(url) as store:
            yield store


async def look(store: LeaseStore, app: str, *, watch: bool = True) -> View:
    """Read the rows, and with `watch` find out who lives: some seconds, until every member has beaten or missed it."""
    began = anyio.current_time()
    rows = read_all(await store.read(app))
    beats = {name: row.beat for name, row in rows.members.items()}
    silent = set(beats) if watch else set()
    patience_s = max((row.session_timeout_s * BEAT_SHARE for row in rows.members.values()), default=0.0) + 2 * LOOK_S
    while silent and anyio.current_time() - began < patience_s:
        await anyio.sleep(LOOK_S)
        rows = read_all(await store.read(app))
        silent = {name for name in silent if name in rows.members and rows.members[name].beat == beats[name]}
    watched_s = anyio.current_time() - began
    return View(rows, {name: watched_s if name in silent else 0.0 for name in rows.members}, watched_s)


def with_leases(
    states: Collection[PartitionState], rows: Mapping[LeaseKey, LeaseRow], stream: str, stream_id: str
) -> list[PartitionState]:
    """The states with the checkpoints that count: those of the rows, where there are any.

    When one was committed the service tells only of those that it was told already.
    """
    found = []
    for state in states:
        row = rows.get(LeaseKey(stream, partition_number(state.partition_id)))
        if row is not None and row.stream_id == stream_id and row.kept() != state.checkpoint:
            state = replace(state, checkpoint=row.kept(), committed_ms=None, committed_by="")
        found.append(state)
    return found


async def reset(
    store: LeaseStore, app: str, stream: str, stream_id: str, places: Mapping[int, Checkpoint]
) -> tuple[set[int], set[str]]:
    """Set checkpoints in the rows, and take the owners out of them: what they still commit is refused, and whoever
    takes the partition next begins at the checkpoint.

    Returns the partitions that have a row of this stream (the others begin at what the service keeps), and the names of
    the owners that were taken out. Each row is changed for itself. Raises StorageError.
    """
    left, known, dropped = set(places), set[int](), set[str]()
    for _ in range(TRIES):
        found = await store.read(app, lease_prefix(stream))
        rows = {lease_key(key).number: (row.version, read_lease(key, row.text)) for key, row in found.items()}
        mine = {n: rows[n] for n in left if n in rows and rows[n][1].stream_id == stream_id}
        known |= mine.keys()
        swaps = [
            Swap(LeaseKey(stream, number).text(), version, encode_row(_set(row, places[number])))
            for number, (version, row) in mine.items()
        ]
        answers = await store.swap(app, swaps) if swaps else []
        done = {number for number, answer in zip(mine, answers, strict=True) if answer is not None}
        dropped |= {mine[number][1].owner for number in done} - {""}
        left = mine.keys() - done
        if not left:
            return known, dropped
    raise StorageError(
        f"partitions {sorted(left)} of {stream!r} change faster than they can be reset: stop their owners"
    )


def _set(row: LeaseRow, place: Checkpoint) -> LeaseRow:
    return replace(
        row,
        owner="",
        heir="",
        token=row.token + 1,
        since_ms=clock.wall_ms(),
        fresh=False,
        checkpoint=checkpoint_fields(place),
    )


def _held_by(leases: Mapping[LeaseKey, LeaseRow], name: str) -> dict[str, list[int]]:
    held: dict[str, list[int]] = {}
    for key, row in sorted(leases.items()):
        if row.owner == name:
            held.setdefault(key.stream, []).append(key.number)
    return held


def shown_names(view: View, names: Collection[str]) -> Sequence[str]:
    shown = _shown(view.rows.members)
    return sorted(shown.get(name, name) for name in names)


def _shown(names: Collection[str]) -> dict[str, str]:
    """Name -> the member id in it, unless two lives have the same."""
    ids = [name.rpartition("/")[0] for name in names]
    return {name: (short if ids.count(short) == 1 else name) for name, short in zip(names, ids, strict=True)}
