"""The four ends of a record, and the batch that deliveries point into.

A record that was accepted gets exactly one end:

    stored      Receipt              the service answered with its place
    rejected    RecordRejected       the service refused it for good
    not stored  NotStored            certainly never applied: sending it again is safe
    unknown     DeliveryUnknown      some attempt may have been applied

Ambiguity is sticky: once an attempt may have been applied, only "stored" or "unknown" are left.

A `Batch` is what `send` fills: a list of records of one lane. A Delivery is (batch, index), nothing more, so the common
case, a whole batch stored by one request, settles with two assignments; receipts are read from the answer's body when
somebody looks. Likewise a whole batch that is given up has one `failure`: in an outage a buffer full of records ends at
once, and whoever keeps a Delivery of it must not keep a value for each. Everything per record (`ends`) exists only
where ends differ.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import msgspec

from ..errors import DeliveryFailed, DeliveryUnknown, FailedRecord, NotStored, RecordRejected
from ..model import PutResults
from ..wire.columns import NewColumns
from ..wire.partitioning import partition_id
from ..wire.places import Places
from .traffic import Traffic

if TYPE_CHECKING:
    from .packing import Packing

MAX_CODE = 40
MAX_CAUSES = 50
"""Causes a ledger tells apart: codes come from the service, which may make one up for each record."""

SAMPLES = 3
"""Records that a ledger remembers of each cause."""


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """Where a record was stored.

    `sequence_number` is -1 if the service gave none that can be read.
    `attempts`: requests that carried it. More than 1, with an unknown outcome in between, means that it may be stored
    twice; not in a session (`ProducerStats.sessions`), where the service stores each record once.
    `reordered`: an answer said that a later record of its key was stored while it was refused (only services without
    the suffix rule do that). Exact as long as no answer is lost: what a lost one said, nobody can count.
    `index`: which it is of the records that share the sequence number, see `ProducerConfig.envelope`.
    """

    partition_id: str
    sequence_number: int
    attempts: int = 1
    reordered: bool = False
    index: int = 0


class Spilled(Protocol):
    """Where a failed record was left; `producer/spill.py` tells, at the moment of asking."""

    @property
    def path(self) -> str | None: ...
    def told(self) -> str: ...


class Failure(NamedTuple):
    """An end other than stored. A value: each await raises an exception of its own from it."""

    kind: Literal["rejected", "not stored", "unknown"]
    code: str  # DIS code when rejected; "expired", "throttled" or "closed" when not stored; "" when unknown
    detail: str
    spilled: Spilled | None = None

    def exception(self) -> DeliveryFailed:
        detail = self.detail if self.spilled is None else f"{self.detail}; {self.spilled.told()}"
        error: DeliveryFailed
        if self.kind == "rejected":
            error = RecordRejected(self.code, detail)
        elif self.kind == "not stored":
            error = NotStored(self.code, detail)
        else:
            error = DeliveryUnknown(detail)
        if self.spilled is not None:
            error.spilled = self.spilled.path
        return error

    @property
    def cause(self) -> str:
        return f"{self.kind} ({self.code[:MAX_CODE]})" if self.code else self.kind


End = Receipt | Failure


class _Receipts(msgspec.Struct):
    records: list[Receipt]


_decoder = msgspec.json.Decoder(_Receipts, strict=False)  # numbers travel as strings


def _receipts(body: bytes | PutResults) -> list[Receipt]:
    """Never raises: stored, says the service, but some places may not be given as the API says. Better odd receipts."""
    if isinstance(body, PutResults):
        return [Receipt(r.partition_id or "", -1 if r.sequence_number is None else r.sequence_number) for r in body]
    try:
        return _decoder.decode(body).records
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # of another form, or no JSON at all although whole and counted
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    entries = answer.get("records") if isinstance(answer, dict) else None
    return [_odd_receipt(entry) for entry in entries] if isinstance(entries, list) else []


def _odd_receipt(entry: object) -> Receipt:
    if not isinstance(entry, dict):
        return NOWHERE
    try:
        number = int(str(entry.get("sequence_number")))
    except ValueError:
        number = -1
    return Receipt(str(entry.get("partition_id") or ""), number)


NOWHERE = Receipt("", -1)
"""The receipt of a record of which the service said only that it is stored."""


class Answer:
    """The answer to a put that stored every record; a body is decoded when the first receipt is looked at.

    One attribute, so that threads may look at the same time: at worst both decode.
    """

    __slots__ = ("_told",)

    def __init__(self, body: bytes | PutResults) -> None:
        self._told: bytes | PutResults | tuple[Receipt, ...] = body

    def receipt(self, index: int, attempts: int) -> Receipt:
        told = self._told
        if not isinstance(told, tuple):
            told = self._told = tuple(_receipts(told))
        receipt = told[index] if index < len(told) else NOWHERE
        if attempts == 1:
            return receipt
        return Receipt(receipt.partition_id, receipt.sequence_number, attempts)


class ShortAnswer(Answer):
    """The same of an answer that tells places in runs."""

    __slots__ = ("_places", "_runs")

    def __init__(self, places: Places) -> None:
        self._places = places
        self._runs: tuple[list[int], list[tuple[str, int]]] | None = None

    def receipt(self, index: int, attempts: int) -> Receipt:
        ends, runs = self._runs or self._look()
        name, offset = runs[bisect_right(ends, index)]
        return Receipt(name, offset + index, attempts)

    def _look(self) -> tuple[list[int], list[tuple[str, int]]]:
        """Where each run ends, its partition, and what the index of a record lacks to its sequence number."""
        ends = [*accumulate(place.records for place in self._places)]
        runs = [
            (partition_id(partition), first + records - end)
            for (partition, first, records), end in zip(self._places, ends, strict=True)
        ]
        self._runs = ends, runs  # one assignment: threads may look at the same time, at worst both do this
        return self._runs


class SharedAnswer(Answer):
    """The same for records of which several share one of the service; `index` counts those of one batch."""

    __slots__ = ("_answer", "_offset", "_starts")

    def __init__(self, answer: Answer, offset: int, sizes: list[int]) -> None:
        """`sizes[i]` records share record `offset + i` of the answer."""
        self._answer = answer
        self._offset = offset
        self._starts = [0, *accumulate(sizes)]

    def receipt(self, index: int, attempts: int) -> Receipt:
        shared = bisect_right(self._starts, index) - 1
        receipt = self._answer.receipt(self._offset + shared, attempts)
        return within(receipt, index - self._starts[shared])


def within(receipt: Receipt, index: int) -> Receipt:
    """The receipt of number `index` of those that share the place."""
    if not index:
        return receipt
    return Receipt(receipt.partition_id, receipt.sequence_number, receipt.attempts, receipt.reordered, index)


class Ledger:
    """Failures that nobody has looked at yet, by cause, with a few samples: what `Undelivered` reports.

    `waking`: waiters that were told of an end and have not run since; until they have, the report may still shrink.
    """

    def __init__(self) -> None:
        self._causes: Counter[str] = Counter()
        self._samples: dict[str, dict[tuple[Batch, int], FailedRecord]] = {}
        self.waking = 0

    def add(self, failure: Failure, count: int = 1) -> str:
        """Count a failure of so many records; returns under which cause."""
        cause = failure.cause
        if cause not in self._causes and len(self._causes) >= MAX_CAUSES:
            cause = f"{failure.kind} (others)"
        self._causes[cause] += count
        return cause

    def lacks_samples(self, cause: str) -> bool:
        return len(self._samples.get(cause, ())) < SAMPLES

    def sample(self, batch: Batch, index: int, record: FailedRecord) -> None:
        self._samples.setdefault(record.cause, {})[batch, index] = record

    def observed(self, cause: str, batch: Batch, index: int) -> None:
        """Somebody has looked at a failure that was counted under `cause`."""
        self._causes[cause] -= 1
        samples = self._samples.get(cause, {})
        samples.pop((batch, index), None)
        if not samples:
            self._samples.pop(cause, None)
        if not self._causes[cause]:
            del self._causes[cause]

    def report(self) -> dict[str, int]:
        return dict(self._causes)

    def samples(self) -> list[FailedRecord]:
        return [record for samples in self._samples.values() for record in samples.values()]


_GONE = NewColumns()
"""The records of every batch that is settled."""


class Batch:
    """Records of one lane, accepted one after another.

    open (being filled) -> sealed -> settled: wholly by an `answer` or a `failure`, or record by record in `ends`.
    """

    __slots__ = (
        "_unseen",
        "_watchers",
        "answer",
        "attempts",
        "deadline",
        "due_at",
        "ends",
        "failure",
        "first",
        "ledger",
        "offset",
        "opened_at",
        "packing",
        "rows",
        "traffic",
        "unobserved",
        "unsettled",
        "weight",
    )

    def __init__(self, opened_at: float, due_at: float, deadline: float, ledger: Ledger, traffic: Traffic) -> None:
        self.rows = NewColumns()
        self.traffic = traffic  # of the partition it was accepted for, whose share of the budget it takes
        self.weight = 0
        self.opened_at = opened_at
        self.due_at = due_at
        self.deadline = deadline
        self.answer: Answer | None = None
        self.offset = 0
        self.attempts = 0
        self.failure: Failure | None = None
        self.ends: dict[int, End] | None = None
        self.unsettled = -1  # counted down once record by record settling begins; -1: not yet
        self.unobserved: dict[int, str] | None = None  # failed records nobody has looked at -> cause
        self._unseen: tuple[str, bytearray] | None = None  # the same of `failure`: its cause, 1 for each such record
        self._watchers: set[Callable[[], None]] | None = None  # who waits for some record's end
        self.ledger = ledger
        self.packing: Packing | None = None
        self.first = 0  # the number of the first record among all of the producer, known once it is sealed

    @property
    def settled(self) -> bool:
        return self.answer is not None or self.unsettled == 0

    def has_end(self, index: int) -> bool:
        """Whether a record has its end."""
        return self.answer is not None or self.failure is not None or (self.ends is not None and index in self.ends)

    def end(self, index: int) -> End | None:
        """The end of a record, or None while it has none. Looking at a failure takes it off the ledger."""
        if self.answer is not None:
            return self.answer.receipt(self.offset + index, self.attempts)
        if self.failure is not None:
            assert self._unseen is not None
            cause, unseen = self._unseen
            if unseen[index]:
                unseen[index] = 0
                self.ledger.observed(cause, self, index)
            return self.failure
        if self.ends is None:
            return None
        if self.unobserved and index in self.unobserved:
            self.ledger.observed(self.unobserved.pop(index), self, index)
        return self.ends.get(index)

    def settle_whole(self, answer: Answer, offset: int, attempts: int) -> None:
        """All records were stored by one request, at `offset` in its answer."""
        assert not self.settled
        assert self.ends is None
        self.offset = offset
        self.attempts = attempts
        self.answer = answer  # last: other threads look at it, and then at the others
        self._release()

    def fail_whole(self, failure: Failure, cause: str) -> None:
        """All records failed alike; the ledger has counted them under `cause`."""
        assert not self.settled
        assert self.ends is None
        self._unseen = cause, bytearray(b"\x01") * len(self.rows)
        self.unsettled = 0
        self.failure = failure
        self._release()

    def settle(self, index: int, end: End) -> str | None:
        """One record reached its end. `wake` must follow once the caller has settled what it knows.

        Returns the cause under which the ledger counts it, None if it was stored.
        """
        if self.ends is None:
            self.ends = {}
            self.unsettled = len(self.rows)
        assert index not in self.ends, "a record has one end"
        self.ends[index] = end
        self.unsettled -= 1
        if not isinstance(end, Failure):
            return None
        if self.unobserved is None:
            self.unobserved = {}
        cause = self.unobserved[index] = self.ledger.add(end)
        return cause

    def wake(self) -> None:
        """Tell who waits: some records have got their end."""
        if self.unsettled == 0:
            self._release()
        else:
            for watcher in list(self._watchers or ()):
                watcher()

    def watch(self, watcher: Callable[[], None]) -> None:
        """Have it called whenever some record gets its end."""
        if self._watchers is None:
            self._watchers = set()
        self._watchers.add(watcher)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        """No more of that; it may have been called for the last time already."""
        if self._watchers is not None:
            self._watchers.discard(watcher)

    def _release(self) -> None:
        # The payloads are not needed any more, and a Delivery that somebody keeps must not keep them alive.
        self.rows = _GONE
        watchers, self._watchers = self._watchers, None
        for watcher in watchers or ():
            watcher()
