"""Checkpoints in the rows of leases, and every other change of rows that a member makes.

One call of the store changes many rows. Each expects the version that this member saw or wrote last; what another has
taken meanwhile is refused, whatever the clocks say. A refusal may also mean that an earlier change of our own was made
although its answer was lost: then the row, read again, still names this life of this member, which nobody else writes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol

import anyio
from msgspec.structs import replace

from .. import clock
from ..errors import DisError, LeaseLost, StoreUnavailable
from ..leases.api import LeaseStore, Swap
from ..model import Checkpoint, Partition, PartitionState, SequenceRange, StreamInfo
from ..wire.partitioning import partition_id, partition_number
from .claims import Table, marked, released, taken
from .lease import Lease
from .rows import LeaseKey, LeaseRow, checkpoint_fields, encode_row, lease_key, lease_prefix, member_key, read_lease

TRIES = 3
"""Of one change: the second sees what an unanswered one before it left. More would mean that somebody else writes."""

Change = Callable[[LeaseRow], LeaseRow]


def key_of(partition: Partition) -> LeaseKey:
    return LeaseKey(partition.stream, partition_number(partition.partition_id))


def partition_of(key: LeaseKey) -> Partition:
    return Partition(key.stream, partition_id(key.number))


class Describing(Protocol):
    async def describe(self, name: str) -> StreamInfo: ...


class LeaseKeeper:
    """A `Keeper` over a lease store, for one member."""

    together = 200
    """Partitions in one call: a statement of some hundred kilobytes at most."""

    def __init__(self, store: LeaseStore, app: str, table: Table, lease: Lease, streams: Describing) -> None:
        self._store = store
        self._app = app
        self._table = table
        self._lease = lease
        self._streams = streams
        self._lock = anyio.Lock()
        self.owner = ""
        """This life of this member."""
        self.on_refused: Callable[[], None] = lambda: None
        """Told when somebody else turned out to have a partition of ours."""

    async def states(self, stream: str) -> list[PartitionState]:
        """Every partition of the stream with its range and the app's checkpoint, read from the store."""
        info = await self._streams.describe(stream)
        rows = await self._store.read(self._app, lease_prefix(stream))
        kept = {lease_key(key).number: read_lease(key, row.text) for key, row in rows.items()}
        states = []
        for described in info.partitions:
            row = kept.get(partition_number(described.partition_id))
            earliest, latest = described.sequence_range or SequenceRange(0, 0)
            states.append(
                PartitionState(
                    partition_id=partition_id(partition_number(described.partition_id)),
                    checkpoint=row.kept() if row is not None and row.stream_id == info.stream_id else None,
                    earliest=earliest,
                    latest=latest,
                    status=described.status,
                )
            )
        return states

    async def keep(self, partition: Partition, checkpoint: Checkpoint) -> None:
        for error in (await self.keep_all({partition: checkpoint})).values():
            raise error

    async def keep_all(self, checkpoints: Mapping[Partition, Checkpoint]) -> dict[Partition, DisError]:
        """Write these; which were refused, and why. Raises StoreUnavailable: each may have been written or not."""
        changes: dict[LeaseKey, Change] = {
            key_of(partition): partial(_with_checkpoint, checkpoint=checkpoint)
            for partition, checkpoint in checkpoints.items()
        }
        refused = await self.change(changes)
        return {
            partition: LeaseLost(
                f"{partition.partition_id} of {partition.stream!r} may belong to another member by now"
            )
            for partition in map(partition_of, refused)
        }

    async def change(self, changes: Mapping[LeaseKey, Change], *, fenced: bool = True) -> set[LeaseKey]:
        """Change rows that this member owns; returns those that it does not own (any more).

        `fenced`: only while the lease holds, by this member's own clock. Raises StoreUnavailable.
        """
        owner = self.owner
        # What is written was decided on for these: a row that went away and came back meanwhile is another.
        tokens = {key: self._table.leases[key].row.token for key in changes if key in self._table.leases}
        async with self._lock:  # two changes of one row at once would refuse each other
            left = dict(changes)
            refused: set[LeaseKey] = set()
            for attempt in range(TRIES):
                if fenced and not self._lease.holds(clock.boot()):
                    return refused | left.keys()
                new: dict[LeaseKey, LeaseRow] = {}
                swaps: list[Swap] = []
                for key, change in left.items():
                    known = self._table.leases.get(key)
                    if known is None or known.row.owner != owner or known.row.token != tokens.get(key):
                        refused.add(key)
                        continue
                    new[key] = change(known.row)
                    swaps.append(Swap(key.text(), known.version, encode_row(new[key])))
                versions = await self._store.swap(self._app, swaps) if swaps else []
                left = {}
                for (key, row), version in zip(new.items(), versions, strict=True):
                    if version is None:
                        left[key] = changes[key]
                    else:
                        self._table.wrote(key, version, row)
                if not left:
                    break
                if attempt < TRIES - 1:
                    await self._look_at(left)
            refused |= left.keys()
        if refused:
            self.on_refused()
        return refused

    async def mark(self, give: Collection[tuple[LeaseKey, str]]) -> None:
        """Write who is to have these next, of those that this member owns."""
        leases = self._table.leases
        await self._change_many(
            {key: partial(marked, heir=heir) for key, heir in give if key in leases and leases[key].row.heir != heir}
        )

    async def release(self, keys: Collection[LeaseKey]) -> None:
        """Own these no more; also when the lease has run out, because nobody else can own them then."""
        now_ms = clock.wall_ms()
        await self._change_many({key: partial(released, now_ms=now_ms) for key in keys}, fenced=False)

    async def _change_many(self, changes: Mapping[LeaseKey, Change], *, fenced: bool = True) -> None:
        for some in _batches(list(changes)):
            await self.change({key: changes[key] for key in some}, fenced=fenced)

    async def take(self, keys: Sequence[LeaseKey]) -> tuple[LeaseKey, ...]:
        """Become the owner of these free ones; which it became. Raises StoreUnavailable: of more, perhaps."""
        mine: list[LeaseKey] = []
        for some in _batches(keys):
            rows = [taken(self._table.leases[key].row, self.owner, clock.wall_ms()) for key in some]
            swaps = [
                Swap(key.text(), self._table.leases[key].version, encode_row(row))
                for key, row in zip(some, rows, strict=True)
            ]
            for key, row, version in zip(some, rows, await self._store.swap(self._app, swaps), strict=True):
                if version is not None:
                    self._table.wrote(key, version, row)
                    mine.append(key)
        return tuple(mine)

    async def bury(self, names: Sequence[str]) -> tuple[str, ...]:
        """Remove members that were silent for too long; which. The others have just been heard."""
        members = self._table.members
        swaps = [Swap(member_key(name), members[name].version, None) for name in names]
        answers = await self._store.swap(self._app, swaps)
        buried = tuple(name for name, answer in zip(names, answers, strict=True) if answer is not None)
        for name in buried:
            self._table.bury(name)
        return buried

    async def _look_at(self, keys: Mapping[LeaseKey, object]) -> None:
        for stream in {key.stream for key in keys}:
            rows = await self._store.read(self._app, lease_prefix(stream))
            for key in keys:
                if key.stream == stream:
                    self._table.looked_at(key, rows.get(key.text()))


def _with_checkpoint(row: LeaseRow, checkpoint: Checkpoint) -> LeaseRow:
    return replace(row, checkpoint=checkpoint_fields(checkpoint))


def _batches(keys: Sequence[LeaseKey]) -> Iterator[Sequence[LeaseKey]]:
    for first in range(0, len(keys), LeaseKeeper.together):
        yield keys[first : first + LeaseKeeper.together]


@contextlib.contextmanager
def answered_in(seconds: float) -> Iterator[None]:
    """Raises StoreUnavailable if the block takes longer."""
    try:
        with anyio.fail_after(seconds):
            yield
    except TimeoutError as exc:
        raise StoreUnavailable(f"the lease store did not answer within {seconds:g} s") from exc
