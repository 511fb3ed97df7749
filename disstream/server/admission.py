"""How much of a put is taken in, and what becomes of each of its records. Pure.

The *suffix rule*: in one request, once a record of a partition is not stored, no later record of that partition is. A
client can then send again from the first failure on and keep the order of its records.

A put moves through its plan like this; the shell in between only waits for the log:

    routed --pace, admit--> admitted --entries/settle--> settled
                               ^                            | partitions that refused (their epoch moved, or are gone)
                               +---------- reroute ---------+ once, under the layout read anew; refused again: they fail

Why records fail one by one at all: the pace (the bandwidth of a partition is used up), admission (bytes accepted but
not yet durable are capped) and changes of the layout between looking it up and appending. Everything else refuses the
request as a whole, before anything is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from ..engine import AppendRefused, Entry, PartitionRef, Replayed, Row, Writer, sizes_of
from ..errors import ApiError
from ..wire.errors import api_error
from ..wire.records import PutFailure, encode_put_answer
from .flow import Pace, exceeded
from .layout import Layout, Records, Rows, row_of, weight_of

PutAnswerEncoder = Callable[
    [Sequence[int], Mapping[int, int], Mapping[int, PutFailure] | None, Mapping[int, int] | None], bytes
]


class Admission:
    """Counts the bytes accepted but not yet durable, against one limit for all streams."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self.pending_bytes = 0

    def admit(self, weight: int) -> bool:
        """Take all of it or nothing. What was taken must be released."""
        if self.pending_bytes + weight > self._limit:
            return False
        self.pending_bytes += weight
        return True

    def admit_some(self, lanes: Sequence[int], weights: Sequence[int]) -> tuple[list[int], int]:
        """(indexes of the records refused, bytes taken in). Takes what fits, in order, under the suffix rule."""
        refused: list[int] = []
        closed: set[int] = set()
        taken = 0
        for index, (lane, weight) in enumerate(zip(lanes, weights, strict=True)):
            if lane in closed or not self.admit(weight):
                closed.add(lane)
                refused.append(index)
            else:
                taken += weight
        return refused, taken

    def release(self, weight: int) -> None:
        self.pending_bytes -= weight
        assert self.pending_bytes >= 0, self.pending_bytes


class PutPlan:
    """One put on its way into the log."""

    def __init__(self, records: Records, layout: Layout, lanes: list[int] | None = None) -> None:
        """`lanes`: where the records go, if `layout` was asked before. Raises ApiError if any cannot be placed."""
        routed = layout.route(records, lanes)
        self._records = records
        self._epochs = layout.epochs
        self._groups: dict[int, Rows] = routed.groups
        self._refused: set[int] = set()
        self.lanes = routed.lanes
        self.writers: Mapping[int, Writer] = {}
        """Partition -> who numbered its records, in a session (sessions.py, which places them and gives the answer)."""
        self.weight = routed.weight
        self._payload = routed.payload
        self.first: dict[int, int] = {}
        self.failures: dict[int, ApiError] = {}
        self.stored: dict[int, tuple[int, int]] = {}
        """Partition -> (records, payload bytes) that the log has."""
        self.throttled = False
        """Whether the bandwidth of some partition was used up."""
        self._pace: Pace | None = None
        self._stream_id = ""
        self._paced_at = 0.0
        self._passed: dict[int, tuple[int, int]] = {}  # partition -> (records, payload bytes) that its bandwidth paid

    def pace(self, pace: Pace, stream_id: str, now: float) -> None:
        """Refuse what goes beyond the bandwidth of its partition. What is not stored in the end `unpace` gives back."""
        self._pace, self._stream_id, self._paced_at = pace, stream_id, now
        for lane, rows in self._groups.items():
            sizes = sizes_of(rows)
            count = pace.put(PartitionRef(stream_id, lane), sizes, now)
            self._passed[lane] = count, sum(sizes[:count])
        if any(count < len(self._groups[lane]) for lane, (count, _) in self._passed.items()):
            self.throttled = True
            error = exceeded()
            rest = {lane: count for lane, (count, _) in self._passed.items()}
            for index, lane in enumerate(self.lanes):
                rest[lane] -= 1
                if rest[lane] < 0:
                    self.weight -= weight_of(self._records[index])
                    self._refuse(index, error)

    def unpace(self, now: float) -> None:
        """Give back the bandwidth of what was refused after all."""
        if self._pace is None:
            return
        for lane, (count, size) in self._passed.items():
            stored = self.stored.get(lane, (0, 0))
            if stored[0] < count:
                ref = PartitionRef(self._stream_id, lane)
                self._pace.unput(ref, count - stored[0], size - stored[1], self._paced_at, now)
        self._passed = dict(self.stored)

    def admit(self, admission: Admission) -> None:
        """Take in what fits; `weight` becomes what must be released."""
        if admission.admit(self.weight):
            return
        left = [i for i in range(len(self.lanes)) if i not in self.failures]
        weights = [weight_of(self._records[i]) for i in left]
        refused, self.weight = admission.admit_some([self.lanes[i] for i in left], weights)
        error = api_error("DIS.4303")  # one for all: they may be many
        for place in refused:
            self._refuse(left[place], error)

    def _refuse(self, index: int, error: ApiError) -> None:
        """What a partition is refused is the end of its group."""
        self.failures[index] = error
        group = self._groups[self.lanes[index]]
        group.pop()
        if not group:
            del self._groups[self.lanes[index]]

    def entries(self, stream_id: str) -> list[Entry]:
        """What to append now; may be empty."""
        writers, epochs = self.writers, self._epochs
        return [
            Entry(PartitionRef(stream_id, lane), rows, epochs[lane], writers.get(lane))
            for lane, rows in self._groups.items()
        ]

    def settle(self, results: Sequence[int | AppendRefused | Replayed]) -> bool:
        """What the log said to `entries`. True: some partition refused; `reroute` or `give_up`."""
        for lane, result in zip(self._groups, results, strict=True):
            if isinstance(result, AppendRefused):
                self._refused.add(lane)
                continue
            rows = self._groups[lane]
            if isinstance(result, Replayed):
                placed = result.spans[-1].end - result.spans[0].number
                rows = rows[placed - result.stored : placed]
            else:
                self.first[lane] = result
            if not rows:
                continue
            whole = len(rows) == len(self._records)  # what an ordered producer sends
            self.stored[lane] = len(rows), self._payload if whole else sum(sizes_of(rows))
        self._groups = {}
        return bool(self._refused)

    def unsettled(self) -> None:
        """The append failed as a whole: all that it held is refused."""
        self._refused.update(self._groups)
        self._groups = {}

    def reroute(self, layout: Layout, now: float) -> None:
        """Place the refused records anew. Where they go they pay again; what they paid is given back first.

        A record whose new partition stored others of this request already fails: it would land behind them, and numbers
        in the answer would not be consecutive.
        """
        self.unpace(now)
        self._paced_at = now
        failed_from: dict[int, int] = {}  # partition -> first record that failed
        for index in sorted(self.failures):
            failed_from.setdefault(self.lanes[index], index)
        self._epochs = layout.epochs
        again: dict[int, list[Row]] = {}
        for index in self._waiting():
            old = self.lanes[index]
            try:
                lane = layout.lane(self._records[index])
                if lane in self.first or index > failed_from.get(lane, index) or index > failed_from.get(old, index):
                    raise api_error("DIS.4303")
                self._pay(lane, len(self._records[index].data), now)
            except ApiError as error:
                self.failures[index] = error
                failed_from[old] = min(index, failed_from.get(old, index))
                continue
            self.lanes[index] = lane
            again.setdefault(lane, []).append(row_of(self._records[index]))
        self._groups = cast("dict[int, Rows]", again)
        self._refused = set()

    def _pay(self, lane: int, size: int, now: float) -> None:
        """One record more for the partition. Raises ApiError DIS.4303 if its bandwidth is used up."""
        if self._pace is None:
            return
        if not self._pace.put(PartitionRef(self._stream_id, lane), (size,), now):
            self.throttled = True
            raise exceeded()
        count, total = self._passed.get(lane, (0, 0))
        self._passed[lane] = count + 1, total + size

    def give_up(self, error: ApiError) -> None:
        """Fail the refused records."""
        for index in self._waiting():
            self.failures[index] = error
        self._refused = set()

    def _waiting(self) -> list[int]:
        refused, failures = self._refused, self.failures
        return [i for i, lane in enumerate(self.lanes) if lane in refused and i not in failures]

    def answer(self, encode: PutAnswerEncoder = encode_put_answer) -> bytes:
        """The body of the answer. Raises the first record's ApiError if nothing at all was stored."""
        if not self.first:
            raise self.failures[0]
        failures = {i: PutFailure(error.code, error.message) for i, error in self.failures.items()}
        return encode(self.lanes, self.first, failures, None)

    def check(self) -> None:
        """Assert the suffix rule, and that every record is stored, failed or on its way."""
        failed: set[int] = set()
        for index, lane in enumerate(self.lanes):
            if index in self.failures:
                failed.add(lane)
            else:
                assert lane not in failed, (index, lane)
                assert lane in self.first or lane in self._groups or lane in self._refused, (index, lane)
