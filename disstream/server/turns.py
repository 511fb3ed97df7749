"""One at a time for each of several things, which are taken together: no two wait for each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable, Iterable
from contextlib import asynccontextmanager

import anyio


class Turns:
    """Who comes first goes first only if what it needs is free; what is free costs no waiting."""

    def __init__(self) -> None:
        self._taken: dict[Hashable, anyio.Event] = {}

    @asynccontextmanager
    async def take(self, keys: Iterable[Hashable]) -> AsyncIterator[None]:
        """Wait until all of `keys` are free; they are taken inside the block."""
        keys = list(keys)
        while (taken := next((self._taken[key] for key in keys if key in self._taken), None)) is not None:
            await taken.wait()
        free = anyio.Event()
        for key in keys:
            self._taken[key] = free
        try:
            yield
        finally:
            for key in keys:
                del self._taken[key]
            free.set()
