"""Notices for the readers of a consumer: what is written is fetched at once, and who has nothing to read sleeps.

One request of the `wait` extension (wire/notices.py) for all partitions that are held, and the next when that one ends:

    opening   the readers know what they were told before, or poll
    live      each frame wakes the readers it names; all others sleep
    cut       once, after a request that had worked, another is opened while the readers sleep on; if that fails, or
              the first one did, they poll as where there are no notices, and notices are tried again after a pause
    changed   other partitions are held: a new request for those. What was missed in between its first frame tells

A notice may bring the records with it. Readers that stand just there take them as if they had asked for them; to all
others it is a notice. Where that happens again and again, because a reader is paused or behind, the next request, which
follows at once, asks for no records of that partition, until the one after it.

Nothing depends on notices but how soon a record comes and what waiting for it costs (hints.py).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import groupby
from random import Random
from typing import Protocol, runtime_checkable

import anyio

from ..errors import DisError
from ..model import Partition
from ..wire.notices import GONE, MAX_PARTITIONS, Frame, Pushed, Watched
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


WASTE_PAGES = 64
"""Pushed in a row to a reader that takes none: then it gets none for a while. One that has read by requests, because
much came at once, is back where pages are pushed long before that."""


class NoticesApi(Protocol):
    @property
    def offered(self) -> bool: ...
    def open(
        self, watched: Sequence[Watched], *, push_bytes: int = 0
    ) -> AbstractAsyncContextManager[AsyncIterator[Frame]]: ...


@runtime_checkable
class NoticeSource(Protocol):
    """What a consumer needs of a client to be told what is written."""

    @property
    def notices(self) -> NoticesApi: ...


class Notices:
    def __init__(self, api: NoticesApi, readers: Mapping[Partition, Reader], rng: Random, push_bytes: int = 0) -> None:
        """`readers`: those there are, at any time. `push_bytes`: of records that may come with a notice."""
        self._api = api
        self._readers = readers
        self._push_bytes = push_bytes
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
        unpushed: set[Reader] = set()  # those that took nothing of what was pushed
        while True:
            began = anyio.current_time()
            worked = False
            if self._api.offered:
                try:
                    worked = await self._hear(readers, unpushed)
                    told = "the answer ended" if worked else f"no answer within {OPEN_S:g} s"
                    unpushed = set()
                except _Wasted as wasted:
                    unpushed |= wasted.readers
                    continue
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

    async def _hear(self, readers: list[Reader], unpushed: Collection[Reader]) -> bool:
        """One request, to its end; whether a frame came. Raises _Cut, _Wasted."""
        wanted = [reader.cursor.next or 0 for reader in readers]
        watched = _watched(readers, wanted, unpushed)
        live = False
        try:
            with anyio.CancelScope(deadline=anyio.current_time() + OPEN_S) as opening:
                async with self._api.open(watched, push_bytes=self._push_bytes) as frames:
                    async for frame in frames:
                        if not live:
                            live = True
                            opening.deadline = float("inf")
                            for reader, end in zip(readers, wanted, strict=True):
                                reader.told_first(end)
                        if isinstance(frame, Pushed):
                            readers[frame.place].pushed(frame)
                            if readers[frame.place].unused_pages >= WASTE_PAGES:
                                raise _Wasted({one for one in readers if one.unused_pages >= WASTE_PAGES / 2})
                        else:
                            for place, end in frame:
                                readers[place].told(None if end == GONE else end)
        except DisError as error:
            raise _Cut(live, error) from error
        return live


class _Cut(Exception):
    def __init__(self, worked: bool, error: DisError) -> None:
        super().__init__(str(error))
        self.worked = worked


class _Wasted(Exception):
    """Pages are pushed to readers that cannot take them."""

    def __init__(self, readers: set[Reader]) -> None:
        super().__init__(f"{len(readers)} reader(s) take no pushed pages")
        self.readers = readers


def _place(reader: Reader) -> tuple[str, str, int]:
    return reader.partition.stream, reader.stream_id, partition_number(reader.partition.partition_id)


def _watched(readers: Sequence[Reader], wanted: Sequence[int], unpushed: Collection[Reader]) -> list[Watched]:
    """In the same order: readers of one stream are neighbours."""
    found = []
    by_stream = groupby(zip(readers, map(_place, readers), wanted, strict=True), key=lambda one: one[1][:2])
    for (stream, stream_id), group in by_stream:
        members = list(group)
        pairs = [(number, first) for _, (_, _, number), first in members]
        plain = [number for reader, (_, _, number), _ in members if reader in unpushed]
        found.append(Watched(stream, stream_id, pairs, plain))
    return found
