"""What travels: a `Part` is (some of) a batch, a `Shipment` the parts of one request."""

from __future__ import annotations

from collections.abc import Iterable

from ..model import NewRecord
from .lanes import Group, Lane
from .outcome import Batch


def weight_of(row: NewRecord) -> int:
    return len(row.data) + (len(row.key) if row.key else 0)


class Part:
    """Records of one batch that travel together: all of it (`indices` None), or what is left of it."""

    __slots__ = ("alone", "attempts", "batch", "indices", "last_error", "maybe_applied", "overtaken", "throttled")

    def __init__(self, batch: Batch, indices: list[int] | None = None) -> None:
        self.batch = batch
        self.indices = indices
        self.attempts = 0
        self.maybe_applied = False  # sticky
        self.throttled = False  # the last attempt ended by flow control
        self.alone = False  # must not share a request: a refusal of the whole request is being narrowed down
        self.last_error = ""
        self.overtaken: frozenset[int] = frozenset()  # records of whose key a later one was stored already

    def __len__(self) -> int:
        return len(self.batch.rows) if self.indices is None else len(self.indices)

    def each(self) -> Iterable[int]:
        return range(len(self.batch.rows)) if self.indices is None else self.indices

    def rows(self) -> list[NewRecord]:
        rows = self.batch.rows
        return rows if self.indices is None else [rows[i] for i in self.indices]

    @property
    def weight(self) -> int:
        return self.batch.weight if self.indices is None else sum(map(weight_of, self.rows()))

    def rest(self, indices: list[int]) -> Part:
        """A part for some of these records, with the same past."""
        part = Part(self.batch, indices)
        part.attempts = self.attempts
        part.maybe_applied = self.maybe_applied
        part.throttled = self.throttled
        part.last_error = self.last_error
        part.overtaken = self.overtaken
        return part


class Shipment:
    """One request: its records in order, and which part and lane they come from."""

    __slots__ = ("count", "deadline", "group", "parts", "weight")

    def __init__(self, group: Group) -> None:
        self.group = group
        self.parts: list[tuple[Lane, Part]] = []
        self.count = 0
        self.weight = 0
        self.deadline = float("inf")  # when the first of its records must have its end

    def add(self, lane: Lane, part: Part, weight: int) -> None:
        self.parts.append((lane, part))
        self.count += len(part)
        self.weight += weight
        self.deadline = min(self.deadline, part.batch.deadline)

    def rows(self) -> list[NewRecord]:
        if len(self.parts) == 1:
            return self.parts[0][1].rows()
        return [row for _, part in self.parts for row in part.rows()]


def halves(part: Part, *, alone: bool) -> list[Part]:
    """The part as pieces that travel alone: itself, or, if it was `alone` in its request already, its two halves."""
    indices = list(part.each())
    middle = len(indices) // 2 if alone else len(indices)
    pieces = []
    for piece in (indices[:middle], indices[middle:]):
        if piece:
            half = part.rest(piece)
            half.alone = True
            pieces.append(half)
    return pieces
