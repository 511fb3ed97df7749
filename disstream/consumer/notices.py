"""Notices for the readers of a consumer: what is written is fetched at once, and who has nothing to read sleeps.

One request of the `wait` extension (wire/notices.py) for all partitions that are held, and the next when that one ends:

    opening   the readers know what they were told before, or poll
    live      each frame wakes the readers it names; all others sleep
    cut       once, after a request that had worked, another is opened while the readers sleep on; if that fails, or
              the first one did, they poll as where there are no notices, and notices are tried again after a pause
    changed   other partitions are held: a new request for those. What was missed in between its first frame tells

Nothing depends on notices but how soon a record comes and what waiting for it costs (hints.py).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import groupby
from random import Random
from typing import Protocol, runtime_checkable

import anyio

from ..errors import DisError
from ..model import Partition
from ..wire.notices import GONE, MAX_PARTITIONS, Watched
from ..wire.partitioning import partition_number
from .reader import Reader, log

SETTLE_S = 0.05
"""After a change of what is held: the other changes of the same hand-over come within it."""

OPEN_S = 5.0
"""For the first frame: how long readers may sleep by what they were told before."""

WORKED_S = 1.0
"""A request that lasted so long had worked: the next follows at once, not after a pause."""

PAUSE_S = 0.5
PAUSE_MAX_S = 60.0
"""After requests that failed; doubles, and is spread."""


class NoticesApi(Protocol):
    @property
    def offered(self) -> bool: ...
    def open(self, watched: Sequence[Watched]) -> AbstractAsyncContextManager[AsyncIterator[list[tuple[int, int]]]]: ...


@runtime_checkable
class NoticeSource(Protocol):
    """What a consumer needs of a client to be told what is written."""

    @property
    def notices(self) -> NoticesApi: ...


class Notices:
    def __init__(self, api: NoticesApi, readers: Mapping[Partition, Reader], rng: Random) -> None:
        """`readers`: those there are, at any time."""
        self._api = api
        self._readers = readers
        self._rng = rng
        self._change: anyio.Event | None = None

    def changed(self) -> None:
        """There are other readers than before."""
        if self._change is not None:
            self._change.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._change = anyio.Event()
            readers = sorted(self._readers.values(), key=_place)
            async with anyio.create_task_group() as tasks:
                for first in range(0, len(readers), MAX_PARTITIONS):
                    tasks.start_soon(self._listen, readers[first : first + MAX_PARTITIONS], name="notices")
                await self._change.wait()
                await anyio.sleep(SETTLE_S)
                tasks.cancel_scope.cancel()

    async def _listen(self, readers: list[Reader]) -> None:
        failures = 0
        while True:
            began = anyio.current_time()
            worked = False
            if self._api.offered:
                try:
                    worked = await self._hear(readers)
                    told = "the answer ended" if worked else f"no answer within {OPEN_S:g} s"
                except _Cut as cut:
                    worked, told = cut.worked, str(cut)
                if worked and anyio.current_time() - began >= WORKED_S:
                    failures = 0
                    continue
                log.log(logging.DEBUG if failures else logging.INFO, "no notices, polling instead: %s", told)
            for reader in readers:
                reader.untold()
            pause_s = min(PAUSE_S * 2.0 ** min(failures, 30), PAUSE_MAX_S)
            failures += 1
            await anyio.sleep(self._rng.uniform(pause_s / 2, pause_s))

    async def _hear(self, readers: list[Reader]) -> bool:
        """One request, to its end; whether a frame came. Raises _Cut."""
        wanted = [reader.cursor.next or 0 for reader in readers]
        live = False
        try:
            with anyio.CancelScope(deadline=anyio.current_time() + OPEN_S) as opening:
                async with self._api.open(_watched(readers, wanted)) as frames:
                    async for frame in frames:
                        if not live:
                            live = True
                            opening.deadline = float("inf")
                            for reader, end in zip(readers, wanted, strict=True):
                                reader.told_first(end)
                        for place, end in frame:
                            readers[place].told(None if end == GONE else end)
        except DisError as error:
            raise _Cut(live, error) from error
        return live


class _Cut(Exception):
    def __init__(self, worked: bool, error: DisError) -> None:
        super().__init__(str(error))
        self.worked = worked


def _place(reader: Reader) -> tuple[str, str, int]:
    return reader.partition.stream, reader.stream_id, partition_number(reader.partition.partition_id)


def _watched(readers: Sequence[Reader], wanted: Sequence[int]) -> list[Watched]:
    """In the same order: readers of one stream are neighbours."""
    pairs = zip(map(_place, readers), wanted, strict=True)
    return [
        Watched(stream, stream_id, [(number, first) for (_, _, number), first in group])
        for (stream, stream_id), group in groupby(pairs, key=lambda pair: pair[0][:2])
    ]
