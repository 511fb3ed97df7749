"""One at a time for each of several things: a line of those who wait before each of them.

Who comes first goes first. Things are taken in the same order by everybody, so that nobody waits for somebody who waits
for him; a release wakes one, however many wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import anyio

K = TypeVar("K", bound=tuple[object, ...])


class Turns(Generic[K]):
    """What is free costs no waiting."""

    def __init__(self) -> None:
        self._lines: dict[K, deque[anyio.Event]] = {}  # of everything that is taken

    def taken(self, keys: Iterable[K]) -> bool:
        """Whether `take` of these would wait now."""
        return any(key in self._lines for key in keys)

    @asynccontextmanager
    async def take(self, keys: Iterable[K]) -> AsyncIterator[None]:
        """Wait for the turn with each of `keys`, which are different and can be sorted; they are taken in the block."""
        taken: list[K] = []
        try:
            for key in sorted(keys):
                if key in self._lines:
                    await self._wait(key)
                else:
                    self._lines[key] = deque()
                taken.append(key)
            yield
        finally:
            for key in taken:
                self._release(key)

    async def _wait(self, key: K) -> None:
        turn = anyio.Event()
        self._lines[key].append(turn)
        try:
            await turn.wait()
        except anyio.get_cancelled_exc_class():
            if turn.is_set():  # it was ours already
                self._release(key)
            else:
                self._lines[key].remove(turn)
            raise

    def _release(self, key: K) -> None:
        line = self._lines[key]
        if line:
            line.popleft().set()
        else:
            del self._lines[key]
