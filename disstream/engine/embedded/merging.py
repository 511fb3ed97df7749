"""Which stored batches become one. Pure.

Who writes a record at a time stores a batch for each, and a reader pays for batches: to find, check and send one costs
as much as fifty records. So the commit thread merges what stands at the end of a partition:

    large ... large  300 .. 70 .. 20  1 1 1        rows; on the right is what comes next
                     └ merged ─────┘  fresh

- `FEW` fresh batches become one. So does what was merged before them, from the right, as long as it is not more than
  twice what is merged already: then what is left is some batches, each larger than all behind it, and a row that came
  alone is written five or six times more until its batch is large.
- A large batch, stored or merged, ends it: what stands before it is not touched any more.
- So does a batch that lies on a damaged page: the partition is *set aside* until the next start.

It is decided when a batch is stored. Done it is by the next transactions, a bounded piece in each, beside what else
they write. All is remembered in memory only: after a start the end of each partition stays as it is, and so does what
was stored by a version that did not merge.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

FEW = 4
"""Less: rows are written for little; more: more fresh batches at the end, where most reading is done. Figures are in
docs/decisions/0023-merging.md."""

SMALL_ROWS = 32
SMALL_BYTES = 8 * 1024
"""What is stored is fresh if it has fewer of both. To merge larger ones costs more than it gives a reader."""

LARGE_ROWS = 512
LARGE_BYTES = 64 * 1024
"""What is merged is large if it has as many of one: a reader notices little of its end. None gets beyond three times
that."""

BATCH_WORK = 8
"""To merge a batch costs as much as so many rows, of which each costs 0.4 us."""

LEAST_WORK = 4096
"""In rows: what a transaction may merge, some 2 ms."""

WORK_PER_ROW = 4
WORK_PER_BATCH = 20
"""In rows, for each that was stored since the transaction before: it may merge so much if that is more. It is nearly
twice what they come to in the end, so merging never falls behind."""


class Merge(NamedTuple):
    """So many neighbouring `batches` of a slot, with the rows from `begin` to before `end`, that shall be one."""

    slot: int
    begin: int
    end: int
    batches: int

    @property
    def work(self) -> int:
        """What it costs, in rows."""
        return self.end - self.begin + self.batches * BATCH_WORK


class _Batch(NamedTuple):
    first: int
    rows: int
    size: int


class _Tail:
    """The small batches at the end of a partition, up to `end`."""

    __slots__ = ("count", "end", "fresh", "merged")

    def __init__(self, end: int) -> None:
        self.end = end
        self.merged: list[_Batch] = []
        self.fresh = _Batch(end, 0, 0)  # all of them together
        self.count = 0


class Merging:
    """What stands at the end of each partition, and what is due. Belongs to the commit thread."""

    def __init__(self) -> None:
        self._tails: dict[int, _Tail] = {}
        self._due: deque[Merge] = deque()
        self._allowed = 0
        self.aside: set[int] = set()
        """Slots whose batches stay as they are, because some are damaged."""

    @property
    def due(self) -> bool:
        """Whether `take` would give anything."""
        return bool(self._due)

    def stored(self, slot: int, first: int, rows: int, size: int) -> None:
        """A batch of so many rows and bytes was appended to the slot."""
        if rows >= SMALL_ROWS or size >= SMALL_BYTES or slot in self.aside:
            self._tails.pop(slot, None)
            return
        self._allowed += WORK_PER_BATCH + WORK_PER_ROW * rows
        tail = self._tails.get(slot)
        if tail is None:
            tail = self._tails[slot] = _Tail(first)
        tail.end = first + rows
        tail.count += 1
        tail.fresh = _Batch(tail.fresh.first, tail.fresh.rows + rows, tail.fresh.size + size)
        if tail.count >= FEW:
            self._merge(slot, tail)

    def _merge(self, slot: int, tail: _Tail) -> None:
        begin, rows, size = tail.fresh
        batches = tail.count
        while tail.merged and tail.merged[-1].rows <= 2 * rows:
            before = tail.merged.pop()
            begin, rows, size, batches = before.first, before.rows + rows, before.size + size, batches + 1
        self._due.append(Merge(slot, begin, tail.end, batches))
        if rows >= LARGE_ROWS or size >= LARGE_BYTES:
            del self._tails[slot]
        else:
            tail.merged.append(_Batch(begin, rows, size))
            tail.fresh = _Batch(tail.end, 0, 0)
            tail.count = 0

    def take(self) -> list[Merge]:
        """What the next transaction shall merge, in this order. `put_back` it if the transaction failed."""
        room = max(LEAST_WORK, self._allowed)
        self._allowed = 0
        taken: list[Merge] = []
        while self._due and room > 0:
            taken.append(self._due.popleft())
            room -= taken[-1].work
        return taken

    def put_back(self, merges: Iterable[Merge]) -> None:
        """They were taken for nothing, and are due again."""
        self._due.extendleft(reversed([merge for merge in merges if merge.slot not in self.aside]))

    def set_aside(self, slot: int) -> None:
        """Its batches cannot be merged, and are not to be tried again."""
        self.forget(slot)
        self.aside.add(slot)

    def forget(self, slot: int) -> None:
        """It was dropped."""
        self.aside.discard(slot)
        self._tails.pop(slot, None)
        self._due = deque([merge for merge in self._due if merge.slot != slot])

    def check(self) -> None:
        """Assert what must always hold."""
        for tail in self._tails.values():
            assert 0 <= tail.count < FEW
            assert tail.fresh.rows >= tail.count
            at = tail.merged[0].first if tail.merged else tail.fresh.first
            for first, rows, size in tail.merged:
                assert first == at, "they follow each other"
                assert FEW <= rows < LARGE_ROWS
                assert size < LARGE_BYTES
                at += rows
            assert at == tail.fresh.first == tail.end - tail.fresh.rows
            behind = 0
            for _, rows, _ in reversed(tail.merged):
                assert rows > 2 * behind, "each is larger than what is behind it"
                behind = rows
        assert not any(merge.slot in self.aside for merge in self._due)
        assert not self.aside & self._tails.keys()
        assert all(merge.batches >= FEW and merge.end - merge.begin >= FEW for merge in self._due)
