"""Which rows have to go for partitions to hold no more than so many bytes. Pure.

The oldest first, over all of the partitions, by the time of their append: a partition that is written little keeps its
rows as long as the others keep theirs. Stored batches go as a whole, and at most one more than needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from .api import PartitionRef, Surplus

MAX_PIECES = 10_000
"""Looked at in one call: some 20 ms, and 500 MB of common batches."""


class Piece(NamedTuple):
    """A stored batch without its rows: when it was appended, the number behind its last row, what it weighs."""

    append_ms: int
    end: int
    weight: int


def surplus(over_bytes: int, stored: Mapping[PartitionRef, Iterator[Piece]], limit: int = MAX_PIECES) -> Surplus:
    """What is to be trimmed for `over_bytes` to go, or the oldest `limit` pieces of it.

    `stored`: what each holds, in order, asked for no further than needed.
    """
    before: dict[PartitionRef, int] = {}
    oldest: list[tuple[int, PartitionRef, Piece]] = []
    if over_bytes <= 0:
        return Surplus(before)
    for ref, pieces in stored.items():
        for piece in pieces:
            oldest.append((piece.append_ms, ref, piece))
            break
    heapify(oldest)
    while oldest and over_bytes > 0 and limit:
        _, ref, piece = heappop(oldest)
        before[ref] = piece.end
        over_bytes -= piece.weight
        limit -= 1
        for following in stored[ref]:
            heappush(oldest, (following.append_ms, ref, following))
            break
    return Surplus(before, more=bool(oldest) and over_bytes > 0)
