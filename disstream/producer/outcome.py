"""The four ends of a record, and the batch that deliveries point into.

A record that was accepted gets exactly one end:

    stored      Receipt              the service answered with its place
    rejected    RecordRejected       the service refused it for good
    not stored  NotStored            certainly never applied: sending it again is safe
    unknown     DeliveryUnknown      some attempt may have been applied

Ambiguity is sticky: once an attempt may have been applied, only "stored" or "unknown" are left.

A `Batch` is what `send` fills: a list of records of one lane. A Delivery is (batch, index), nothing more, so the common
case, a whole batch stored by one request, settles with two assignments; receipts are read from the answer's body when
somebody looks. Everything per record (`ends`) exists only where ends differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec

from ..errors import DeliveryFailed, DeliveryUnknown, NotStored, RecordRejected
from ..model import NewRecord, PutResults


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """Where a record was stored.

    `sequence_number` is -1 if the service gave none that can be read.
    `attempts`: requests that carried it; more than 1 with an unknown outcome in between means it may be stored twice.
    `reordered`: a later record of its key was stored before it (only services without the suffix rule do that).
    """

    partition_id: str
    sequence_number: int
    attempts: int = 1
    reordered: bool = False


class Failure(NamedTuple):
    """An end other than stored. A value: each await raises an exception of its own from it."""

    kind: Literal["rejected", "not stored", "unknown"]
    code: str  # DIS code when rejected; "expired", "throttled" or "closed" when not stored; "" when unknown
    detail: str

    def exception(self) -> DeliveryFailed:
        if self.kind == "rejected":
            return RecordRejected(self.code, self.detail)
        if self.kind == "not stored":
            return NotStored(self.code, self.detail)
        return DeliveryUnknown(self.detail)

    @property
    def cause(self) -> str:
        return f"{self.kind} ({self.code})" if self.code else self.kind


End = Receipt | Failure


class _Receipts(msgspec.Struct):
    records: list[Receipt]


_decoder = msgspec.json.Decoder(_Receipts, strict=False)  # numbers travel as strings


def _receipts(body: bytes | PutResults) -> list[Receipt]:
    if isinstance(body, PutResults):
        return [Receipt(r.partition_id or "", -1 if r.sequence_number is None else r.sequence_number) for r in body]
    try:
        return _decoder.decode(body).records
    except msgspec.ValidationError:
        # Stored, says the service, but some place is not given as the API says. Better an odd receipt than none.
        entries = msgspec.json.decode(body)["records"]
        return [Receipt(str(e.get("partition_id") or ""), _number(e.get("sequence_number"))) for e in entries]
    except msgspec.DecodeError:  # whole and counted, yet no JSON
        return [Receipt("", -1)] * body.count(b'"sequence_number"')


def _number(given: object) -> int:
    try:
        return int(str(given))
    except ValueError:
        return -1


class Answer:
    """The answer to a put that stored every record; a body is decoded when the first receipt is looked at."""

    __slots__ = ("_body", "_receipts")

    def __init__(self, body: bytes | PutResults) -> None:
        self._body = body
        self._receipts: list[Receipt] | None = None

    def receipt(self, index: int, attempts: int) -> Receipt:
        receipts = self._receipts
        if receipts is None:
            receipts = self._receipts = _receipts(self._body)
            self._body = b""
        receipt = receipts[index]
        if attempts == 1:
            return receipt
        return Receipt(receipt.partition_id, receipt.sequence_number, attempts)


class Ledger:
    """Failures that nobody has looked at yet, by cause: what `Undelivered` reports.

    `waking`: waiters that were told of an end and have not run since; until they have, the report may still shrink.
    """

    def __init__(self) -> None:
        self._causes: Counter[str] = Counter()
        self.waking = 0

    def add(self, cause: str, count: int = 1) -> None:
        self._causes[cause] += count
        if self._causes[cause] <= 0:
            del self._causes[cause]

    def report(self) -> dict[str, int]:
        return dict(self._causes)


class Batch:
    """Records of one lane, accepted one after another.

    open (being filled) -> sealed -> settled: wholly by an `answer`, or record by record in `ends`.
    """

    __slots__ = (
        "answer",
        "attempts",
        "deadline",
        "due_at",
        "ends",
        "ledger",
        "offset",
        "opened_at",
        "rows",
        "unobserved",
        "unsettled",
        "watchers",
        "weight",
    )

    def __init__(self, opened_at: float, due_at: float, deadline: float, ledger: Ledger) -> None:
        self.rows: list[NewRecord] = []
        self.weight = 0
        self.opened_at = opened_at
        self.due_at = due_at
        self.deadline = deadline
        self.answer: Answer | None = None
        self.offset = 0
        self.attempts = 0
        self.ends: dict[int, End] | None = None
        self.unsettled = -1  # counted down once record by record settling begins; -1: not yet
        self.unobserved: dict[int, str] | None = None  # failed records nobody has looked at -> cause
        self.watchers: set[Callable[[], None]] = set()  # who waits for some record's end
        self.ledger = ledger

    @property
    def settled(self) -> bool:
        return self.answer is not None or self.unsettled == 0

    def end(self, index: int) -> End | None:
        """The end of a record, or None while it has none. Looking at a failure takes it off the ledger."""
        if self.answer is not None:
            return self.answer.receipt(self.offset + index, self.attempts)
        if self.ends is None:
            return None
        if self.unobserved and index in self.unobserved:
            self.ledger.add(self.unobserved.pop(index), -1)
        return self.ends.get(index)

    def settle_whole(self, answer: Answer, offset: int, attempts: int) -> None:
        """All records were stored by one request, at `offset` in its answer."""
        assert not self.settled
        assert self.ends is None
        self.answer = answer
        self.offset = offset
        self.attempts = attempts
        self._release()

    def settle(self, index: int, end: End) -> None:
        """One record reached its end. `wake` must follow once the caller has settled what it knows."""
        if self.ends is None:
            self.ends = {}
            self.unsettled = len(self.rows)
        assert index not in self.ends, "a record has one end"
        self.ends[index] = end
        self.unsettled -= 1
        if isinstance(end, Failure):
            if self.unobserved is None:
                self.unobserved = {}
            self.unobserved[index] = end.cause
            self.ledger.add(end.cause)

    def wake(self) -> None:
        """Tell who waits: some records have got their end."""
        if self.unsettled == 0:
            self._release()
        else:
            for watcher in list(self.watchers):
                watcher()

    def _release(self) -> None:
        # The payloads are not needed any more, and a Delivery that somebody keeps must not keep them alive.
        self.rows = []
        watchers, self.watchers = self.watchers, set()
        for watcher in watchers:
            watcher()
