"""Partitions that change hands, one by one, while the others are read on: what is opened, handed over, lost.

    opening    ours in the store; a reader is started, and nothing handed out before it is certain that it still is ours
               and `on_assigned` was told
    giving     marked for another: nothing more is handed out, what is in hand may finish until the deadline, is
               committed, and the row is released; each partition as soon as it is ready
    lost       the row turned out to be another's: dropped, and whoever was told that it is held is told

Callbacks run one at a time, whatever else goes on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from functools import partial
from random import Random

import anyio
import anyio.abc

from ..errors import DisError, NotFoundError
from ..model import Partition
from .callbacks import Callbacks
from .claims import Table, streams_of
from .config import ConsumerConfig
from .cursor import heals
from .holdings import Holdings
from .leasekeeper import LeaseKeeper, key_of, partition_of
from .reader import log
from .rows import LeaseKey

REVOKED = "revoked"
"""Why a partition is paused that is being given up."""

UNANNOUNCED = "unannounced"
"""Why one is paused that is being opened."""

PAUSE_S = 0.5
"""Between two tries of what failed."""


class Moves:
    def __init__(
        self,
        app: str,
        config: ConsumerConfig,
        holdings: Holdings,
        keeper: LeaseKeeper,
        table: Table,
        callbacks: Callbacks,
        rng: Random,
    ) -> None:
        self._app = app
        self._config = config
        self._holdings = holdings
        self._keeper = keeper
        self._table = table
        self._callbacks = callbacks
        self._rng = rng
        self._calling_back = anyio.Lock()
        self._opened = anyio.Event()
        self.opening: set[LeaseKey] = set()
        self.giving: set[LeaseKey] = set()
        self._revoked: set[LeaseKey] = set()  # of those, the ones that `on_revoked` was told of
        self.count = 0
        """How often partitions came or went."""
        self.news: Callable[[], None] = lambda: None
        """Something changed: look again."""
        self.doubt: Callable[[str], None] = lambda stream: None
        """A stream, or a partition of it, seems to be gone."""
        self.holds: Callable[[], bool] = lambda: False
        """Whether the lease does."""

    def begin_opening(self, tasks: anyio.abc.TaskGroup, keys: tuple[LeaseKey, ...]) -> None:
        self.opening |= set(keys)
        tasks.start_soon(self._open, keys, name="open")

    def begin_giving(self, tasks: anyio.abc.TaskGroup, keys: frozenset[LeaseKey]) -> None:
        self.giving |= keys
        tasks.start_soon(self._hand_over, keys, name="hand-over")

    async def _open(self, keys: tuple[LeaseKey, ...]) -> None:
        """Read these from now on. What cannot be opened yet is tried again: it stays ours, and not held."""
        try:
            await self._start_readers(keys)
            held = self._holdings.held
            # That may have taken long. Until here nothing of them was handed out.
            self._drop([partition_of(key) for key in keys if not self._is_ours(key)])
            opened = [partition for partition in map(partition_of, keys) if partition in held]
            if not opened:
                return
            self.count += 1
            log.info("app %s: %d partitions taken over", self._app, len(opened))
            async with self._calling_back:
                # What is to be given up next is announced, too: who is told that it has gone cannot let it finish.
                await self._callbacks.assigned(frozenset(held) - {partition_of(key) for key in self._revoked})
            for partition in opened:
                if (holding := held.get(partition)) is not None and key_of(partition) not in self.giving:
                    self._holdings.prefetch.resume(partition, UNANNOUNCED)
                    holding.reader.wake()
            self._holdings.intake.notify()
        finally:
            self.opening -= set(keys)
            self._opened.set()

    async def _start_readers(self, keys: tuple[LeaseKey, ...]) -> None:
        holdings, leases = self._holdings, self._table.leases
        fresh = [partition_of(key) for key in keys if key in leases and leases[key].row.fresh]
        others = [partition for partition in map(partition_of, keys) if partition not in fresh]
        try:
            await holdings.open(fresh, {partition.stream for partition in fresh}, paused=UNANNOUNCED)
            await holdings.open(others, paused=UNANNOUNCED)
        except DisError as error:
            if isinstance(error, NotFoundError):
                for stream in streams_of(keys):
                    self.doubt(stream)
            elif not heals(error):
                raise
            log.warning("app %s: partitions cannot be opened yet: %s", self._app, error)
            await self._pause()

    def _is_ours(self, key: LeaseKey) -> bool:
        lease = self._table.leases.get(key)
        return lease is not None and lease.row.owner == self._keeper.owner

    async def _hand_over(self, keys: frozenset[LeaseKey]) -> None:
        """Let what is in hand finish, commit it, and release the rows."""
        holdings = self._holdings
        while not keys.isdisjoint(self.opening):
            if self._opened.is_set():  # several may wait
                self._opened = anyio.Event()
            await self._opened.wait()
        partitions = frozenset(map(partition_of, keys)) & holdings.held.keys()
        for partition in partitions:
            holdings.prefetch.pause(partition, REVOKED)
        holdings.recall()
        async with self._calling_back:
            self._revoked |= keys
            deadline = anyio.current_time() + self._config.drain_timeout_s  # not while it waited for its turn
            await self._callbacks.revoked(deadline, deadline, partitions)
        left = set(keys)
        while left:
            waiting = {partition_of(key) for key in left}
            done = await holdings.drain_some(deadline, waiting)
            if not done:
                limit_s = self._config.drain_timeout_s
                log.warning("app %s: work was not finished within %.1f s and may be done again", self._app, limit_s)
                done = waiting
            # Those that are ready do not wait for a slow one.
            gone = frozenset(map(key_of, done))
            await self._until_done(partial(holdings.commit, done), gone)
            self._drop(done)
            await self._until_done(partial(self._keeper.release, gone), gone)
            self.giving -= gone
            self._revoked -= gone
            left -= gone
            self.news()
        self.count += 1
        log.info("app %s: %d partitions given up", self._app, len(partitions))

    async def _until_done(self, work: Callable[[], Awaitable[object]], keys: frozenset[LeaseKey]) -> None:
        """Again while the store is out of reach: as long as the rows are ours nobody waits for it in vain."""
        while True:
            try:
                await work()
                return
            except DisError as error:
                if not heals(error):
                    raise
                if self.holds() and not any(map(self._is_ours, keys)):
                    return  # they are others' already
                log.warning("app %s: partitions cannot be handed over yet: %s", self._app, error)
            await self._pause()

    def _drop(self, partitions: Collection[Partition]) -> None:
        if lost := self._holdings.drop([p for p in partitions if p in self._holdings.held]):
            log.warning(
                "app %s: %d partitions went with work that is not committed: it will be done again", self._app, lost
            )

    async def lose(self, keys: Collection[LeaseKey]) -> None:
        """They turned out to be others': a stream was created again, or somebody changed the rows by hand."""
        partitions = frozenset(map(partition_of, keys)) & self._holdings.held.keys()
        self._holdings.recall()
        self._drop(partitions)
        async with self._calling_back:
            now = anyio.current_time()
            await self._callbacks.revoked(now, now + self._config.drain_timeout_s, partitions)

    async def lose_all(self) -> None:
        """The tasks of before are cancelled, and others may have everything."""
        self.opening.clear()
        self.giving.clear()
        self._revoked.clear()
        self._holdings.recall()
        now = anyio.current_time()
        await self._callbacks.revoked(now, now + self._config.drain_timeout_s)
        self._drop(list(self._holdings.held))

    async def _pause(self) -> None:
        await anyio.sleep(self._rng.uniform(0.5, 1.5) * PAUSE_S)
