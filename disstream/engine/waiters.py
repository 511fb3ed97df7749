"""Who wants to know when partitions grow: tasks that wait, and watches, which are called.

Event driven: a wait costs one future and at most one timer, a watch nothing while nothing is appended."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from .api import PartitionRef

Moved = Callable[[PartitionRef, int | None], None]


class Waiters:
    """Who waits for what, and who watches. Lives on one loop; every engine has one."""

    def __init__(self) -> None:
        self._watching: dict[PartitionRef, list[Moved]] = {}
        self._waiting: dict[PartitionRef, set[tuple[int, asyncio.Future[bool]]]] = {}
        self._closed = False

    async def wait(self, partition: PartitionRef, after: int, deadline: float) -> bool:
        """True once `advanced` names a sequence number beyond `after`; False at `deadline` (loop time) or on close."""
        loop = asyncio.get_running_loop()
        if self._closed or deadline <= loop.time():
            return False
        future: asyncio.Future[bool] = loop.create_future()
        entry = (after, future)
        self._waiting.setdefault(partition, set()).add(entry)
        # uvloop cannot turn an infinite delay into milliseconds.
        timer = None if math.isinf(deadline) else loop.call_at(deadline, _resolve, future, False)
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            group = self._waiting.get(partition, set())
            group.discard(entry)
            if not group:
                self._waiting.pop(partition, None)

    @contextmanager
    def watch(self, partitions: Collection[PartitionRef], moved: Moved) -> Iterator[None]:
        """As `Log.watch`."""
        watched = set(partitions)
        for ref in watched:
            self._watching.setdefault(ref, []).append(moved)
        try:
            yield
        finally:
            for ref in watched:
                group = self._watching[ref]
                group.remove(moved)
                if not group:
                    del self._watching[ref]

    def dropped(self, partition: PartitionRef) -> None:
        """Tell who watches; who waits goes on waiting."""
        for moved in self._watching.get(partition, ()):
            moved(partition, None)

    def advanced(self, partition: PartitionRef, next_sequence: int) -> None:
        """Wake those whom `next_sequence` satisfies, and tell who watches."""
        for moved in self._watching.get(partition, ()):
            moved(partition, next_sequence)
        for after, future in self._waiting.get(partition, ()):
            if after < next_sequence:
                _resolve(future, True)

    def close(self) -> None:
        """Let every wait return False, those to come as well."""
        self._closed = True
        for group in self._waiting.values():
            for _, future in group:
                _resolve(future, False)


def _resolve(future: asyncio.Future[bool], value: bool) -> None:
    if not future.done():
        future.set_result(value)
