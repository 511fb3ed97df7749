"""Finds the partitions that an app's consumers share out through a lease store, and keeps the rows true to them.

One member describes a stream every few seconds, whoever comes first by name of those that want it; when a stream has no
rows yet, or a reader was told that its partition is gone, anybody does. A partition that is new gets a row, with the
checkpoint that the service keeps for the app if it has one (an app that was a group before); one that expired, or whose
stream is gone, loses it. Rows of an earlier stream of the same name are begun anew.
"""

from __future__ import annotations

import anyio

from ..errors import NotFoundError
from ..leases.api import LeaseStore
from ..model import StreamInfo
from ..wire.partitioning import partition_number
from .claims import Claims, compare, corrections, streams_of
from .config import Pattern
from .keeper import AppSource
from .reader import log
from .rows import checkpoint_fields


class Survey:
    def __init__(
        self, source: AppSource, app: str, subscription: tuple[str, ...] | Pattern, store: LeaseStore, together: int
    ) -> None:
        """`together`: rows in one call of the store."""
        self._source = source
        self._app = app
        self._subscription = subscription
        self._store = store
        self._together = together
        self._doubted: set[str] = set()
        self._waiting: anyio.Event | None = None

    def doubt(self, stream: str) -> None:
        """A reader was told that something of the stream is gone: look, whoever else does."""
        self._doubted.add(stream)
        if self._waiting is not None:
            self._waiting.set()

    async def until_doubted(self) -> None:
        while not self._doubted:
            self._waiting = anyio.Event()
            await self._waiting.wait()

    async def look(self, claims: Claims) -> bool:
        """Once; whether rows were changed.

        Raises NotFoundError (a stream that was named is gone), what the service answers, StorageError.
        """
        doubted, self._doubted = self._doubted, set()
        changed = False
        try:
            streams = await self._streams(claims, doubted)
            doubted.intersection_update(streams)  # of others there are no rows (any more): nothing to see to
            for stream in streams:
                changed |= await self._look_at(stream, claims)
                doubted.discard(stream)
        finally:
            self._doubted |= doubted
        return changed

    async def _streams(self, claims: Claims, doubted: set[str]) -> list[str]:
        subscription = self._subscription
        if isinstance(subscription, Pattern):
            names = {name for name in streams_of(claims.table.leases) if subscription.matches(name)}
            if claims.lists(subscription.regex):
                names |= {s.name async for s in self._source.streams.list() if subscription.matches(s.name)}
        else:
            names = set(subscription)
        return sorted(name for name in names if name in doubted or claims.sees_to(name))

    async def _look_at(self, stream: str, claims: Claims) -> bool:
        table = claims.table
        info: StreamInfo | None = None
        gone: NotFoundError | None = None
        try:
            info = await self._source.streams.describe(stream)
        except NotFoundError as error:
            gone = error
        found = compare(stream, info, table)
        checkpoints: dict[int, tuple[str, str]] = {}
        if found.create:
            try:
                states = await self._source.apps.state(self._app, stream)
            except NotFoundError as error:
                if not isinstance(self._subscription, Pattern):
                    raise
                log.warning("app %s: partitions of %s cannot be shared yet: %s", self._app, stream, error)
                return False  # deleted this moment: the next look sees it
            for state in states:
                if state.checkpoint is not None:
                    checkpoints[partition_number(state.partition_id)] = checkpoint_fields(state.checkpoint)
        changes = corrections(found, info.stream_id if info is not None else "", checkpoints, table)
        keys = list(changes)
        for first in range(0, len(keys), self._together):
            some = keys[first : first + self._together]
            answers = await self._store.swap(self._app, [changes[key][0] for key in some])
            for key, version in zip(some, answers, strict=True):
                row = changes[key][1]
                if version is None:
                    continue  # somebody else was faster: the next look shows what it says now
                if row is None:
                    table.forget(key)
                else:
                    table.wrote(key, version, row)
        if changes:
            log.info(
                "app %s: stream %s has %d partitions more, %d less, %d of a new stream",
                self._app,
                stream,
                len(found.create),
                len(found.delete),
                len(found.reset),
            )
        if gone is not None and not isinstance(self._subscription, Pattern):
            raise gone
        return bool(changes)
