"""How a member's row in a lease store is renewed, by whom the heartbeats come from.

Beats go one swap each, however many partitions the member holds. The row is nobody else's: if a swap is refused,
either an earlier one was made whose answer was lost, and a look at the row shows the version to go on from; or the row
is gone, and the member has ended.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import anyio
from msgspec.structs import replace

from ..errors import StoreUnavailable
from ..leases.api import LeaseStore, Swap
from ..wire.groups import HeartbeatState
from .rows import MemberRow, encode_row, member_key


class Life(NamedTuple):
    """One membership, from a join to its end."""

    generation: int
    """How many this consumer had before."""
    name: str
    row: MemberRow
    version: int


class Lives:
    """Which life is led now: written by the working loop, read by the one that beats, in one step."""

    def __init__(self) -> None:
        self.now: Life | None = None


class Renewals:
    """Heartbeats (heartbeat.py) over a store."""

    def __init__(self, store: LeaseStore, lives: Lives, *, started: bool = True) -> None:
        """`started`: whether the store is; else the first heartbeat starts it that can."""
        self._store = store
        self._lives = lives
        self._started = started
        self._generation = -1
        self._version: int | None = None
        self._beat = 0

    async def start(self) -> None:
        """Unless it was: before a first heartbeat, so that a store of no use is told at once."""
        if not self._started:
            await self._store.start()
            self._started = True

    async def heartbeat(
        self, app: str, member_id: str, generation: int, *, timeout_s: float | None = None
    ) -> HeartbeatState:
        """STABLE: the row was renewed. Anything else: the member has ended. Raises StorageError, TimeoutError."""
        life = self._lives.now
        if life is None or life.generation != generation:
            return "JOINING"  # another life has begun, and its lease is about to say so
        if self._generation != generation:
            self._generation, self._version, self._beat = generation, life.version, life.row.beat
        key = member_key(life.name)
        with anyio.fail_after(timeout_s):
            await self.start()
            for _ in range(2):
                version, self._version = self._version, None  # not known until it is answered
                if version is None:
                    row = (await self._store.read(app, key)).get(key)
                    if row is None:
                        return "GROUP_NOT_EXIST"
                    version = row.version
                self._beat += 1
                text = encode_row(replace(life.row, beat=self._beat))
                (answer,) = await self._store.swap(app, [Swap(key, version, text)])
                if answer is not None:
                    self._version = answer
                    return "STABLE"
        return "GROUP_NOT_EXIST"

    async def leave(self, app: str, member_id: str, *, timeout_s: float | None = None) -> None:
        """Remove the row: what the member held is free."""
        life = self._lives.now
        if life is None:
            return
        with anyio.fail_after(timeout_s):
            await self.start()
            await remove(self._store, app, life.name)


async def remove(store: LeaseStore, app: str, name: str) -> None:
    """Delete a member's row whatever it says."""
    key = member_key(name)
    for _ in range(3):  # a renewal may come between
        row = (await store.read(app, key)).get(key)
        if row is None or (await store.swap(app, [Swap(key, row.version, None)]))[0] is not None:
            return


class StoreTwin:
    """What the thread of the heartbeats starts and ends (heartbeat.Twin)."""

    def __init__(self, store: LeaseStore, lives: Lives) -> None:
        self._store = store
        self.groups = Renewals(store, lives, started=False)

    async def start(self) -> None:
        """One that is out of reach is no reason to end: the heartbeats fail until it can be started."""
        with contextlib.suppress(StoreUnavailable):
            await self.groups.start()

    async def abort(self) -> None:
        await self._store.close()
