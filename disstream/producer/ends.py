"""The ends of records: counted, told to their batches and to the ledger, and their room given back. Pure.

Whoever knows what became of a record says so here, once: `store`, `refuse` and `unknown` of one record, after which
`wake` must follow; `store_whole`, `expire` and `give_up` of all of a part.

What can never happen: an end "rejected" or "not stored" after an attempt that may have been applied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from ..errors import FailedRecord
from ..model import NewRecord
from .config import ProducerConfig
from .layout import Layout
from .outcome import MAX_CODE, Answer, Batch, End, Failure, Ledger, Receipt, Spilled
from .shipment import RECORD_OVERHEAD, Part, weight_of

MIN_ATTEMPT_S = 0.05
"""Nothing is sent with less time left than this: it would only turn "not stored" into "unknown"."""


class Counts:
    """What has happened so far, in records (and requests)."""

    __slots__ = ("not_stored", "refused_attempts", "rejected", "reordered", "requests", "stored", "unknown")

    def __init__(self) -> None:
        self.stored = self.rejected = self.not_stored = self.unknown = 0
        self.reordered = self.requests = self.refused_attempts = 0


class Ends:
    """What came to an end, and which batches have records without one."""

    def __init__(self, config: ProducerConfig, layout: Layout) -> None:
        self._timeout_s = config.delivery_timeout_s
        self._layout = layout
        self.min_attempt_s = min(MIN_ATTEMPT_S, config.delivery_timeout_s / 10)
        self.ledger = Ledger()
        self.counts = Counts()
        self.live: dict[Batch, None] = {}  # batches with unsettled records
        self.spill: Callable[[NewRecord, Failure, int], Spilled | None] | None = None
        """Takes (record, end, weight) of what failed; None: it does not."""
        self.freed = 0  # budget given back since the shell last looked

    def store_whole(self, part: Part, answer: Answer, offset: int) -> None:
        """All records of the part, which is a whole batch, were stored: the first of them at `offset` in the answer."""
        self.counts.stored += len(part)
        self._let_go(part.batch, len(part))
        part.batch.settle_whole(answer, offset, part.attempts)

    def _let_go(self, batch: Batch, count: int) -> None:
        """All of a batch, so many records, are about to get their end."""
        freed = batch.weight + count * RECORD_OVERHEAD
        self.freed += freed
        batch.traffic.held -= freed
        batch.traffic.queued -= count
        del self.live[batch]

    def store(self, part: Part, index: int, receipt: Receipt) -> None:
        """This record was stored there."""
        if index in part.overtaken:
            self.counts.reordered += 1
            receipt = Receipt(receipt.partition_id, receipt.sequence_number, receipt.attempts, True, receipt.index)
        self.counts.stored += 1
        self._end(part.batch, index, receipt)

    def refuse(self, part: Part, index: int, code: str, message: str) -> None:
        """The service will not take this record: rejected, unless an earlier attempt may have stored it."""
        code = code[:MAX_CODE]  # the service's word: it is kept for each record
        if part.maybe_applied:
            self.unknown(part, index, f"refused now ({code}: {message}), but an earlier attempt may have stored it")
        else:
            self.counts.rejected += 1
            self._end(part.batch, index, Failure("rejected", code, message))

    def unknown(self, part: Part, index: int, detail: str) -> None:
        """What became of this record will never be known."""
        self.counts.unknown += 1
        self._end(part.batch, index, Failure("unknown", "", detail))

    def _end(self, batch: Batch, index: int, end: End) -> None:
        row = batch.rows[index]
        weight = weight_of(row) + RECORD_OVERHEAD
        batch.traffic.held -= weight
        batch.traffic.queued -= 1
        if isinstance(end, Failure):
            if self.spill is not None and (spilled := self.spill(row, end, weight)) is not None:
                end = Failure(end.kind, end.code, end.detail, spilled)
                weight = 0  # given back when the record is written, so that the budget bounds what waits for that
            cause = batch.settle(index, end)
            if cause is not None and self.ledger.lacks_samples(cause):
                self.ledger.sample(batch, index, FailedRecord(cause, self._layout.place_of(row), row.key, end.detail))
        else:
            batch.settle(index, end)
        self.freed += weight

    def wake(self, part: Part) -> None:
        """Tell who waits for records of the part: some have got their end."""
        if part.batch.settled:
            self.live.pop(part.batch, None)
        part.batch.wake()

    def expire(self, part: Part, now: float) -> bool:
        """Whether the part's time is up (it has got its end then), or too little is left for an attempt."""
        left = part.batch.deadline - now
        if left > self.min_attempt_s:
            return False
        timeout = f"delivery_timeout_s={self._timeout_s:g}"
        why = f"not settled within {timeout} after {part.attempts} attempts"
        if part.last_error:
            why += f"; the last: {part.last_error}"
        self.give_up(part, "throttled" if part.throttled else "expired", why)
        return True

    def give_up(self, part: Part, reason: Literal["expired", "throttled", "closed"], detail: str) -> None:
        """No record of the part is sent any more: not stored, unless an attempt may have stored it."""
        if reason == "closed" and part.last_error:
            detail += f"; the last of {part.attempts} attempts: {part.last_error}"
        if part.maybe_applied:
            self.counts.unknown += len(part)
            end = Failure("unknown", "", f"{reason}: {detail}; an attempt may have stored it")
        else:
            self.counts.not_stored += len(part)
            end = Failure("not stored", reason, detail)
        # One step for all, if they are a batch: in an outage a whole buffer is given up at once, and the loop stands
        # still for it. What is spilled ends one by one, as each has a place of its own in the file.
        batch = part.batch
        if self.spill is None and batch.ends is None and not batch.settled and len(part) == len(batch.rows):
            self._fail_whole(batch, end)
            return
        for i in part.each():
            self._end(batch, i, end)
        self.wake(part)

    def _fail_whole(self, batch: Batch, end: Failure) -> None:
        rows = batch.rows
        cause = self.ledger.add(end, len(rows))
        for i in range(len(rows)):
            if not self.ledger.lacks_samples(cause):
                break
            row = rows[i]
            self.ledger.sample(batch, i, FailedRecord(cause, self._layout.place_of(row), row.key, end.detail))
        self._let_go(batch, len(rows))
        batch.fail_whole(end, cause)
