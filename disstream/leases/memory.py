"""Leases of the consumers of one process: rows in a dict, gone with it.

The oracle of the contract tests, so written to be obviously right. Nothing here waits; the lock is for twins that live
in other threads.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from .api import Row, Swap
from .rules import Life, check_read, check_swaps


class MemoryLeases:
    """A lease store for the consumers of this process, and for tests. `twin()` gives the same rows to another one."""

    def __init__(self) -> None:
        self._life = Life("the memory lease store")
        self._rows = _Rows()

    async def start(self) -> None:
        with self._life.starting():
            pass

    async def close(self) -> None:
        """The rows stay, as long as a twin or this object does."""
        self._life.close()

    async def read(self, app: str, prefix: str = "") -> dict[str, Row]:
        self._life.check()
        check_read(app, prefix)
        return self._rows.read(app, prefix)

    async def swap(self, app: str, swaps: Sequence[Swap]) -> list[int | None]:
        self._life.check()
        check_swaps(app, swaps)
        return self._rows.swap(app, swaps)

    def twin(self) -> MemoryLeases:
        other = MemoryLeases()
        other._rows = self._rows
        return other


class _Rows:
    """What twins share. One counter for all rows, so a version never comes back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._apps: dict[str, dict[str, Row]] = {}
        self._version = 0

    def read(self, app: str, prefix: str) -> dict[str, Row]:
        with self._lock:
            return {key: row for key, row in self._apps.get(app, {}).items() if key.startswith(prefix)}

    def swap(self, app: str, swaps: Sequence[Swap]) -> list[int | None]:
        with self._lock:
            rows = self._apps.setdefault(app, {})
            return [self._change(rows, swap) for swap in swaps]

    def _change(self, rows: dict[str, Row], swap: Swap) -> int | None:
        present = rows.get(swap.key)
        if (present and present.version) != swap.expected:
            return None
        self._version += 1
        if swap.text is None:
            del rows[swap.key]
        else:
            rows[swap.key] = Row(self._version, swap.text)
        return self._version
