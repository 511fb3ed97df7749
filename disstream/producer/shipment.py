"""What travels: a `Part` is (some of) a batch, a `Shipment` the parts of one request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from ..model import NewRecord, PutResult
from ..wire.columns import NewColumns
from ..wire.partitioning import partition_id
from ..wire.sessions import Session
from .outcome import Batch
from .packing import ROW_BYTES
from .payload import headers_weight

if TYPE_CHECKING:
    from .lanes import Group, Lane

RECORD_OVERHEAD = 150
"""What a waiting record costs beside payload and key: payload header, delivery, list slots, rounding.
Measured at 122 to 143 bytes for payloads of 10 to 1,000 bytes (benchmarks/producer_memory.py)."""


def weight_of(row: NewRecord) -> int:
    weight = len(row.data) + (len(row.key) if row.key else 0)
    return weight if row.headers is None else weight + headers_weight(row.headers)


def weight_at(rows: NewColumns, index: int) -> int:
    """The weight of one of them."""
    if rows.rich and index in rows.rich:
        return weight_of(rows.rich[index])
    key = rows.keys[index]
    return len(rows.payloads[index]) + (len(key) if key else 0)


def weigh(rows: NewColumns) -> int:
    """The weight of all of them."""
    return sum(map(len, rows.payloads)) + _beside_payload(rows)


def _beside_payload(rows: NewColumns) -> int:
    size = sum(map(len, filter(None, rows.keys)))
    for row in rows.rich.values():
        if row.headers is not None:
            size += headers_weight(row.headers)
    return size


class Part:
    """Records of one batch that travel together: all of it (`indices` None), or what is left of it."""

    __slots__ = (
        "_sizes",
        "alone",
        "attempts",
        "batch",
        "epoch",
        "indices",
        "last_error",
        "loose",
        "maybe_applied",
        "number",
        "overtaken",
        "placed",
        "throttled",
    )

    def __init__(self, batch: Batch, indices: list[int] | None = None) -> None:
        self.batch = batch
        self.indices = indices
        self.attempts = 0
        self.maybe_applied = False  # sticky
        self.throttled = False  # the last attempt ended by flow control
        self.alone = False  # must not share a request: a refusal of the whole request is being narrowed down
        self.last_error = ""
        self.overtaken: frozenset[int] = frozenset()  # records of whose key a later one was stored already
        self.epoch = self.number = -1  # of the first record, in the session of its lane; -1: was not sent in one
        self.loose = False  # an attempt without a number may have been applied: no session can tell
        self.placed: int | None = None  # the partition that we chose for records without a key
        self._sizes: list[int] | None = None

    def __len__(self) -> int:
        return len(self.batch.rows) if self.indices is None else len(self.indices)

    def each(self) -> Sequence[int]:
        return range(len(self.batch.rows)) if self.indices is None else self.indices

    @property
    def in_doubt(self) -> bool:
        """An attempt may have been applied, and sending the same under the same numbers will tell."""
        return self.maybe_applied and self.number >= 0

    @property
    def originals(self) -> NewColumns:
        """The records as they were accepted."""
        rows = self.batch.rows
        return rows if self.indices is None else rows.pick(self.indices)

    def rows(self, *, named: bool = True) -> Sequence[NewRecord]:
        """The records as they travel; `named`: those without a key name the partition that we chose for them."""
        rows = self.originals
        if self.placed is None or not named:
            return rows
        place = partition_id(self.placed)
        return [NewRecord(row.data, None, place, None, row.timestamp, row.headers) for row in rows]

    @property
    def sizes(self) -> list[int] | None:
        """How many of them share each record of the service, in order; None: none do."""
        packing = self.batch.packing
        if packing is None or not packing.aggregates:
            return None
        if self._sizes is None:
            self._sizes = packing.sizes(self.rows())
        return self._sizes

    @property
    def wire_count(self) -> int:
        """How many records of the service these are."""
        if self.batch.packing is None:  # nearly always, and asked several times per request
            return len(self.batch.rows) if self.indices is None else len(self.indices)
        sizes = self.sizes
        return len(self) if sizes is None else len(sizes)

    def wire_rows(self, *, named: bool = True) -> Sequence[NewRecord]:
        """The records of the service: made anew for each attempt, and always the same. `named`: as of `rows`."""
        packing = self.batch.packing
        if packing is None:
            return self.rows(named=named)
        first = self.batch.first
        numbers = range(first, first + len(self)) if self.indices is None else [first + i for i in self.indices]
        return packing.pack(self.rows(named=named), self.sizes, numbers)

    def spread(self, results: Sequence[PutResult]) -> Iterable[tuple[PutResult, int]]:
        """For each record what became of the one of the service that it is in, and which of that it is."""
        if self.sizes is None:
            return ((result, 0) for result in results)
        return ((result, i) for result, size in zip(results, self.sizes, strict=True) for i in range(size))

    @property
    def weight(self) -> int:
        if self.indices is None:
            return self.batch.weight
        return weigh(self.originals)

    @property
    def payload(self) -> int:
        """Bytes of payload in the records of the service, which is what it counts; before compression."""
        return self._payload(self.originals)

    def _payload(self, rows: NewColumns) -> int:
        size = sum(map(len, rows.payloads))
        if self.batch.packing is not None:
            size += _beside_payload(rows) + ROW_BYTES * len(rows)
        return size

    def fits(self, records: float, octets: float) -> int:
        """How many of its records may go where so many of the service, and so many bytes of payload, may pass.

        At least one of the service may: what is larger than what is left has to pass some time.
        """
        rows, sizes = self.originals, self.sizes
        most = int(min(max(records, 1.0), len(rows)))
        if sizes is None:
            if octets >= self._payload(rows[:most]):
                return most
            sizes = [1] * most
        count = 0
        for size in sizes[:most]:
            if octets <= 0 and count:
                break
            octets -= self._payload(rows[count : count + size])
            count += size
        return count

    def rest(self, indices: list[int]) -> Part:
        """A part for some of these records, with the same past; the first or the last of them keep their numbers."""
        part = Part(self.batch, indices)
        part.attempts = self.attempts
        part.maybe_applied = self.maybe_applied
        part.throttled = self.throttled
        part.last_error = self.last_error
        part.overtaken = self.overtaken
        part.placed = self.placed
        part.loose = self.loose
        if self.number >= 0:
            mine, count = list(self.each()), len(indices)
            if indices == mine[:count] and self._may_cut(count):
                part.epoch, part.number = self.epoch, self.number
            elif indices == mine[-count:] and self._may_cut(len(mine) - count):
                part.epoch, part.number = self.epoch, self.number + self.wire_count - part.wire_count
            else:
                part.loose |= self.maybe_applied
        return part

    def _may_cut(self, at: int) -> bool:
        """Whether there is a border between records of the service: a number names one as it was sent."""
        return self.sizes is None or at in accumulate(self.sizes, initial=0)

    def unnumber(self) -> None:
        """Forget the numbers; what may have been applied cannot be found out any more."""
        self.loose |= self.maybe_applied
        self.epoch = self.number = -1

    def resolve(self) -> None:
        """The service says that no attempt with a number was applied, or ever will be."""
        self.maybe_applied = self.loose
        self.epoch = self.number = -1


class Shipment:
    """One request: its records in order, and which part and lane they come from.

    `records`: those that were sent; `count`: those of the service that they become.
    """

    __slots__ = ("count", "deadline", "groups", "parts", "records", "session", "weight")

    def __init__(self, group: Group) -> None:
        self.groups = [group]
        self.parts: list[tuple[Lane, Part]] = []
        self.records = 0
        self.count = 0
        self.weight = 0
        self.deadline = float("inf")  # when the first of its records must have its end
        self.session: Session | None = None  # the numbers of its records

    def add(self, lane: Lane, part: Part, count: int, weight: int) -> None:
        """`count` and `weight`: the part's, which the caller knows."""
        self.parts.append((lane, part))
        self.records += len(part)
        self.count += count
        self.weight += weight
        self.deadline = min(self.deadline, part.batch.deadline)

    def rows(self, *, named: bool = True) -> Sequence[NewRecord]:
        """The records of the service. Not `named`: the lanes of the session tell where those without a key go."""
        if len(self.parts) == 1:
            return self.parts[0][1].wire_rows(named=named)
        rows = NewColumns()
        for _, part in self.parts:
            if part.indices is None and part.batch.packing is None and (part.placed is None or not named):
                rows.extend(part.batch.rows)  # as always, if nothing failed
                continue
            some = part.wire_rows(named=named)
            rows.extend(some if isinstance(some, NewColumns) else NewColumns.of(some))
        return rows


def halves(part: Part, *, alone: bool) -> list[Part]:
    """The part as pieces that travel alone: itself, or, if it was `alone` in its request already, its two halves."""
    indices = list(part.each())
    middle = len(indices) // 2 if alone else len(indices)
    if alone and part.sizes is not None and part.wire_count > 1:
        middle = sum(part.sizes[: part.wire_count // 2])  # between records of the service: those stay what they were
    pieces = []
    for piece in (indices[:middle], indices[middle:]):
        if piece:
            half = part.rest(piece)
            half.alone = True
            pieces.append(half)
    return pieces
