"""Which stored batches become one. Pure.

Who writes a record at a time stores a batch for each, and a reader pays for batches: to find, check and send one costs
as much as twenty records. So the commit thread merges: `FEW` small batches of a partition that follow each other become
one, and `FEW` of those become one again, unless they are large by then. A row is so rewritten at most twice, and less
than two times `FEW` small batches stand at the end of a partition.

    stored ──> small: in a run ──> FEW in it: due ──> taken ──> merged ──> small still: in a run of tier 1 ──> due ...
                                               └──<── put back (the transaction failed)

What is due is done by the next transactions, a bounded number of batches in each, beside what else they write. A large
batch ends a run. All of it is remembered in memory only: after a start runs begin anew, and what stood at the end of a
partition by then stays as it is, as does what an earlier version stored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

FEW = 16
"""Less: rows are rewritten for little; more: more small batches at the end, where most reading is done. Figures are in
docs/decisions/0023-merging.md."""

SMALL_ROWS = (64, 128)
SMALL_BYTES = (16 * 1024, 32 * 1024)
"""By tier: a batch is small if it has fewer of both. Of larger ones a reader notices little, and none that is merged is
beyond half a MiB."""

LEAST_BATCHES = 256
"""What a transaction may merge, some 2 ms. It may merge more if more was stored since the one before: twice as many,
so that merging never falls behind."""


class Merge(NamedTuple):
    """So many neighbouring `batches` of a slot, with the rows from `begin` to before `end`, that shall be one."""

    slot: int
    begin: int
    end: int
    batches: int
    tier: int


class Merging:
    """What stands in a run at the end of each partition, and what is due. Belongs to the commit thread."""

    def __init__(self) -> None:
        # Slot -> begin, end, how many batches; by tier: 0 as they were stored, 1 merged once.
        self._runs: tuple[dict[int, tuple[int, int, int]], ...] = ({}, {})
        self._due: deque[Merge] = deque()
        self._stored = 0

    @property
    def due(self) -> bool:
        """Whether `take` would give anything."""
        return bool(self._due)

    def stored(self, slot: int, first: int, length: int, size: int) -> None:
        """A batch of so many rows and bytes was appended to the slot."""
        self._add(0, slot, first, length, size)

    def take(self) -> list[Merge]:
        """What the next transaction shall merge, in this order. Say then what became of it."""
        room = max(LEAST_BATCHES, 2 * self._stored)
        self._stored = 0
        taken: list[Merge] = []
        while self._due and room > 0:
            taken.append(self._due.popleft())
            room -= taken[-1].batches
        return taken

    def merged(self, merge: Merge, first: int, length: int, size: int) -> None:
        """It is one batch of so many rows and bytes."""
        if merge.tier == 0:
            self._add(1, merge.slot, first, length, size)

    def put_back(self, merges: Iterable[Merge]) -> None:
        """They were taken for nothing, and are due again."""
        self._due.extendleft(reversed(list(merges)))

    def forget(self, slot: int) -> None:
        """It was dropped."""
        for runs in self._runs:
            runs.pop(slot, None)
        self._due = deque([merge for merge in self._due if merge.slot != slot])

    def _add(self, tier: int, slot: int, first: int, length: int, size: int) -> None:
        runs = self._runs[tier]
        if length >= SMALL_ROWS[tier] or size >= SMALL_BYTES[tier]:
            runs.pop(slot, None)
            return
        self._stored += 1
        begin, end, count = runs.get(slot, (first, first, 0))
        if end != first:
            begin, count = first, 0
        if count + 1 < FEW:
            runs[slot] = begin, first + length, count + 1
        else:
            runs.pop(slot, None)
            self._due.append(Merge(slot, begin, first + length, FEW, tier))

    def check(self) -> None:
        """Assert what must always hold."""
        for runs in self._runs:
            for begin, end, count in runs.values():
                assert 0 < count < FEW
                assert end - begin >= count
        for merge in self._due:
            assert merge.batches == FEW
            assert merge.end - merge.begin >= FEW
        for tier in (0, 1):
            ends: dict[int, int] = {}
            for merge in self._due:
                if merge.tier == tier:
                    assert merge.begin >= ends.get(merge.slot, 0)
                    ends[merge.slot] = merge.end
