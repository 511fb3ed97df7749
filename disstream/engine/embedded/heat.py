"""Which rows are certainly in memory: those that were written a short while ago. Pure.

Nobody tells whether a page of the file is in the system's cache. What was written within the last HOT_BYTES is, unless
the machine is out of memory. So the ends of all partitions are noted whenever half of that was written, and what lies
behind the note before the last one is hot:

    ── opened ──┬────── half ──────┬────── half ──────┬── now
                └ cold before this  └ noted            └ noted; from now on the first note is the mark

What was stored before the directory was opened is cold, whether it is cached or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from ..api import PartitionRef

HOT_BYTES = 256 * 1024**2
"""Little beside the memory of a machine where it matters, and what such a one writes in a second or more."""


class Heat:
    """The two notes, and what was written since the last one."""

    def __init__(self, hot_bytes: int = HOT_BYTES) -> None:
        self._half = hot_bytes // 2
        self._written = 0
        self._mark: dict[PartitionRef, int] = {}
        self._next_mark: dict[PartitionRef, int] = {}

    def opened(self, ends: Mapping[PartitionRef, int]) -> None:
        """So far the partitions reached when the directory was opened."""
        self._mark = self._next_mark = dict(ends)

    def wrote(self, size: int) -> bool:
        """So many bytes more; True: `note` is due."""
        self._written += size
        return self._written >= self._half

    def note(self, ends: Mapping[PartitionRef, int]) -> None:
        """So far the partitions reach now."""
        self._written = 0
        self._mark, self._next_mark = self._next_mark, dict(ends)

    def is_hot(self, partition: PartitionRef, sequence: int) -> bool:
        """Whether this row, and with it all behind it, is hot. A partition that no note knows is new."""
        return sequence >= self._mark.get(partition, 0)

    def check(self) -> None:
        """Assert what must always hold."""
        assert self._written >= 0
        for earlier, later in pairwise((self._mark, self._next_mark)):
            assert all(later.get(ref, end) >= end for ref, end in earlier.items())
