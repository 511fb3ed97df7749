"""Pages that were fetched and not handed out yet, under one budget of bytes.

    partition   holds pages in order, the first perhaps half handed out; may be paused, for one reason or several; may
                have a page in flight
    ring        the partitions that can hand out, in turn: each gives one run, then goes to the back
    waiting     the partitions that want to fetch and found the budget used, in the order they came

A partition may fetch if the page fits the budget, or if it holds nothing and nothing is in flight for it: then the
others cannot starve it, whoever is paused or slow. So what is held never exceeds the budget by more than one page for
each partition. A page counts until its last record is taken.

A page may be *packed*: several records in one, which are taken out when they are wanted, a slice of the page at a time.
So neither the memory nor the loop has to bear what a page of envelopes could hold all at once.

The records of a page in columns are made when they are taken, as many as are taken: what waits is one piece of bytes
and some lists, and a page of twenty thousand records holds up nobody.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeVar

from ..model import Record
from ..wire.pages import ColumnRecords, number_of

K = TypeVar("K", bound=Hashable)
"""What names a partition."""

RECORD_OVERHEAD_BYTES = 250
"""What a record costs in memory beside data and key: objects, headers, numbers (measured, rounded up)."""

COLUMNS_OVERHEAD_BYTES = 130
"""The same of a record in columns, which is not made yet: three places in lists, a size, a string around the key."""

RESERVE_FACTOR = 4
"""A page in flight counts as this many times its cap: its base64 text and what is decoded from it exist together."""


SLICE_BYTES = 65_536
"""Payload that is opened at once, unless one record has more: some hundred small records, a fraction of a
millisecond."""


def cost(records: Sequence[Record]) -> int:
    """Bytes that `records` occupy."""
    if isinstance(records, ColumnRecords):
        return records.held_bytes + COLUMNS_OVERHEAD_BYTES * len(records)
    # List comprehensions: half the time of generators, and this runs for every record.
    keys = sum([len(r.key) for r in records if r.key])
    return sum([len(r.data) for r in records]) + keys + RECORD_OVERHEAD_BYTES * len(records)


def slices(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """The records in pieces of at most SLICE_BYTES of payload, or of one record."""
    if isinstance(records, ColumnRecords):
        yield from records.pieces(SLICE_BYTES)
        return
    piece: list[Record] = []
    size = 0
    for record in records:
        size += len(record.data)
        if piece and size > SLICE_BYTES:
            yield piece
            piece, size = [], len(record.data)
        piece.append(record)
    yield piece


class _Page:
    """`length`: how many records it holds, taken or not. Of columns, `rest` makes those that are not taken."""

    __slots__ = ("cost", "length", "packed", "records", "rest", "taken")

    def __init__(self, records: Sequence[Record], *, packed: bool = False) -> None:
        self.packed = packed
        self._hold(records)

    def _hold(self, records: Sequence[Record]) -> None:
        self.records = records if isinstance(records, list | ColumnRecords) else list(records)
        self.length = len(records)
        self.rest: Iterator[Record] = iter(records if isinstance(records, ColumnRecords) else ())
        self.taken = 0
        self.cost = cost(records)

    def unpack(self, unpack: Callable[[list[Record]], list[Record]]) -> None:
        self.packed = False
        self._hold(unpack(list(self.records)))

    def take(self, limit: int) -> list[Record]:
        """Up to `limit` of those that are not taken."""
        begin = self.taken
        self.taken = end = min(begin + limit, self.length)
        if isinstance(self.records, list):
            return self.records[begin:end] if begin or end < self.length else self.records
        return list(islice(self.rest, end - begin))


class _Partition:
    __slots__ = ("pages", "pauses", "reserved")

    def __init__(self) -> None:
        self.pages: deque[_Page] = deque()
        self.pauses: set[str] = set()
        self.reserved = False


class Prefetch(Generic[K]):
    """The buffer between readers and the one who takes."""

    def __init__(
        self, budget_bytes: int, page_bytes: int, unpack: Callable[[list[Record]], list[Record]] = lambda r: r
    ) -> None:
        """`unpack`: the records of packed ones, in order, at least one for each."""
        self._unpack = unpack
        self._budget = budget_bytes
        self._reserve = page_bytes * RESERVE_FACTOR
        self._partitions: dict[K, _Partition] = {}
        self._ring: deque[K] = deque()
        self._waiting: OrderedDict[K, None] = OrderedDict()
        self._reserved_count = 0
        self.held_bytes = 0
        self.taken_records = 0
        self.suspended = False
        """Nothing is to be taken for now, of no partition."""

    @property
    def ready(self) -> bool:
        """Whether there is something to take."""
        return bool(self._ring) and not self.suspended

    def add(self, partition: K) -> None:
        self._partitions[partition] = _Partition()

    def remove(self, partition: K) -> None:
        """Forget the partition with all it holds, and what is in flight for it. Look for grants afterwards."""
        self.drop(partition)
        self.release(partition)
        del self._partitions[partition]

    # --- for readers ---

    def reserve(self, partition: K) -> bool:
        """Room for one page in flight; True as well if it is reserved already. False: waits for a `grant`."""
        held = self._partitions[partition]
        if held.reserved:
            return True
        if not self._fits(held):
            self._waiting[partition] = None
            return False
        self._waiting.pop(partition, None)
        held.reserved = True
        self._reserved_count += 1
        return True

    def release(self, partition: K) -> None:
        """The page in flight came or will not come, or nobody waits for room any more. Look for grants afterwards."""
        held = self._partitions[partition]
        self._waiting.pop(partition, None)
        if held.reserved:
            held.reserved = False
            self._reserved_count -= 1

    def grant(self) -> K | None:
        """Reserve for the next waiting partition if there is room: that one, or None. Call until None."""
        for partition in self._waiting:
            return partition if self.reserve(partition) else None
        return None

    def _fits(self, held: _Partition) -> bool:
        if not held.pages:
            return True
        return self.held_bytes + (self._reserved_count + 1) * self._reserve <= self._budget

    def put(self, partition: K, records: Sequence[Record], *, packed: bool = False) -> None:
        """A page came. It must not be empty."""
        if not packed:
            self._insert(partition, _Page(records), at_front=False)
            return
        for piece in slices(records):
            self._insert(partition, _Page(piece, packed=True), at_front=False)

    def is_paused(self, partition: K) -> bool:
        return bool(self._partitions[partition].pauses)

    def pauses(self, partition: K) -> frozenset[str]:
        """Why nothing of it is handed out; "" stands for no reason given."""
        return frozenset(self._partitions[partition].pauses)

    # --- for the one who takes ---

    def take(self, limit: int) -> tuple[K, list[Record]] | None:
        """(partition, up to `limit` consecutive records) of the partition whose turn it is; None if none has any."""
        if not self.ready:
            return None
        partition = self._ring.popleft()
        pages = self._partitions[partition].pages
        page = pages[0]
        if page.packed:
            self.held_bytes -= page.cost
            page.unpack(self._unpack)
            self.held_bytes += page.cost
        run = page.take(limit)
        if page.taken == page.length:
            self.held_bytes -= page.cost
            pages.popleft()
        if pages:
            self._ring.append(partition)
        else:
            self._emptied(partition)
        self.taken_records += len(run)
        return partition, run

    def give_back(self, partition: K, records: list[Record]) -> None:
        """The end of the run taken last was not handed out: it comes first again."""
        self._insert(partition, _Page(records), at_front=True)
        self.taken_records -= len(records)

    def _insert(self, partition: K, page: _Page, *, at_front: bool) -> None:
        held = self._partitions[partition]
        self.held_bytes += page.cost
        if at_front:
            held.pages.appendleft(page)
            if partition in self._waiting:
                self._waiting.move_to_end(partition)  # it holds something again, so it needs room like the others
        else:
            held.pages.append(page)
        if not held.pauses and (at_front or len(held.pages) == 1):
            if partition in self._ring:
                self._ring.remove(partition)
            if at_front:
                self._ring.appendleft(partition)
            else:
                self._ring.append(partition)

    def first(self, partition: K) -> int | None:
        """The number of the first record held for `partition`."""
        pages = self._partitions[partition].pages
        return number_of(pages[0].records, pages[0].taken) if pages else None

    def first_ms(self, partition: K) -> int | None:
        """The timestamp of the first record held for `partition`."""
        pages = self._partitions[partition].pages
        return pages[0].records[pages[0].taken].timestamp if pages else None

    def drop(self, partition: K) -> None:
        """Forget what is held for `partition`. A page in flight stays reserved."""
        pages = self._partitions[partition].pages
        self.held_bytes -= sum(page.cost for page in pages)
        pages.clear()
        if partition in self._ring:
            self._ring.remove(partition)
        self._emptied(partition)

    def _emptied(self, partition: K) -> None:
        # It may fetch whatever the budget says, so nobody in front of it may hold it up.
        if partition in self._waiting:
            self._waiting.move_to_end(partition, last=False)

    def pause(self, partition: K, why: str = "") -> None:
        """Hand out nothing of `partition`; what it holds stays, and counts. Reasons are independent of each other."""
        self._partitions[partition].pauses.add(why)
        if partition in self._ring:
            self._ring.remove(partition)

    def resume(self, partition: K, why: str = "") -> None:
        """Undo the pause for this reason."""
        held = self._partitions[partition]
        if why in held.pauses:
            held.pauses.discard(why)
            if held.pages and not held.pauses:
                self._ring.append(partition)

    def check(self) -> None:
        """Assert every invariant."""
        pages = [page for held in self._partitions.values() for page in held.pages]
        assert self.held_bytes == sum(page.cost for page in pages)
        assert all(0 <= page.taken < page.length == len(page.records) for page in pages)
        assert self._reserved_count == sum(held.reserved for held in self._partitions.values())
        able = [p for p, held in self._partitions.items() if held.pages and not held.pauses]
        assert len(self._ring) == len(able)
        assert set(self._ring) == set(able)
        assert not any(self._partitions[p].reserved for p in self._waiting)
        empty = [not self._partitions[p].pages for p in self._waiting]
        assert empty == sorted(empty, reverse=True), "one that may always fetch waits behind one that may not"
