"""Where reading of one partition stands, and what its reader must do next.

    place unknown   "latest", or a number that fell out of the range   -> Describe -> a number
    no cursor       a number, a time, "earliest"                       -> Obtain   -> a cursor
    cursor          younger than the refresh age                       -> Read     -> records, the cursor behind them
    waiting         idle pause or back-off                             -> Wait
    failed          what will not heal; only a seek leads out          -> Wait

The place is kept by number as soon as a record, or the range of the partition, told it. A cursor is only the short way
back to the place: losing it (270 s, DIS.4217, DIS.4225) skips and repeats nothing. "latest" is never asked for by a
LATEST cursor: if that got lost before its first record, a second one would skip what was written in between. A time is
asked for by the same time again, which comes to the same record.

Each seek begins a new epoch. Answers carry the epoch of their question; those of an older one change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Literal, NamedTuple

from ..errors import (
    ApiError,
    ConflictError,
    CursorExpired,
    DisError,
    LeaseLost,
    SequenceOutOfRange,
    StaleGeneration,
    ThrottledError,
)
from ..model import Cursor, Page, Record, SequenceRange
from ..wire.cursors import CursorType, decode_cursor
from ..wire.pages import number_of


class Since(NamedTuple):
    """The first record written at or after `timestamp_ms` (since the epoch)."""

    timestamp_ms: int


Where = int | Since | Literal["earliest", "latest"]
OnExpired = Literal["earliest", "latest", "raise"]


class Describe(NamedTuple):
    """Ask for the range of the partition, answer with `described`."""

    epoch: int


class Obtain(NamedTuple):
    """Ask for a cursor, answer with `obtained`."""

    epoch: int
    cursor_type: CursorType
    sequence_number: int | None = None
    timestamp_ms: int | None = None


class Read(NamedTuple):
    """Ask for a page, answer with `accept`."""

    epoch: int
    cursor: Cursor


class Wait(NamedTuple):
    """Nothing to do until the loop's clock reads `until` (None: until a seek)."""

    until: float | None


Action = Describe | Obtain | Read | Wait


class Skipped(NamedTuple):
    """Retention overtook the reader: it went on at `to` instead of `expected`."""

    expected: int
    to: int


class PartitionCursor:
    """The read position of one partition. `now` is the loop's clock in seconds; answers may come in any order."""

    def __init__(
        self,
        *,
        on_expired: OnExpired,
        refresh_s: float,
        idle_min_s: float,
        idle_max_s: float,
        retry_base_s: float,
        retry_max_s: float,
        rng: Random,
    ) -> None:
        self._on_expired: OnExpired = on_expired
        self._refresh_s = refresh_s
        self._idle_min_s = idle_min_s
        self._idle_max_s = idle_max_s
        self._retry_base_s = retry_base_s
        self._retry_max_s = retry_max_s
        self._rng = rng
        self._place: Where = "earliest"
        self._at_oldest = False  # started at the oldest number, and nothing was read yet
        self._told: int | None = None  # where the cursor points that was got for a place without a number
        self._cursor: Cursor | None = None
        self._cursor_from = 0.0  # when it was asked for: its age on the service is at most that
        self._asked_at = 0.0
        self._outside: SequenceOutOfRange | None = None  # why the place must be looked up anew
        self._idle_s = 0.0
        self._not_before = 0.0
        self.epoch = 0
        self.streak = 0  # failures since the last page
        self.failure: DisError | None = None
        self.retries = 0
        self.gap_records = 0
        self.repeated_records = 0

    @property
    def over(self) -> bool:
        """Whether the partition was scaled away and all it held has expired: an end, unless expiry is to be raised."""
        failure = self.failure
        return isinstance(failure, ApiError) and failure.code == "DIS.4319" and self._on_expired != "raise"

    @property
    def next(self) -> int | None:
        """The number of the next record to be fetched; None while only the service knows."""
        return self._place if isinstance(self._place, int) else None

    @property
    def at(self) -> int | None:
        """As `next`, or where a cursor says that it points: all before it is read or not wanted."""
        return self._place if isinstance(self._place, int) else self._told

    @property
    def idle(self) -> bool:
        """Whether the last page was empty, and nothing is wrong: a pause is for that alone."""
        return self._idle_s > 0 and self.streak == 0

    def expect(self) -> None:
        """Something is said to be there: an idle pause is over. The next one is as long as if it had been kept."""
        if self.idle:
            self._not_before = float("-inf")

    def begin(self, where: Where, bounds: SequenceRange | None) -> None:
        """Set the first place, from the range as described at the start: all partitions then start at one moment."""
        self.seek(where)
        if bounds is not None and where == "earliest":
            self._place = bounds.start
            self._at_oldest = True
        elif bounds is not None and where == "latest":
            self._place = bounds.end

    def seek(self, where: Where) -> None:
        """Go on at `where`. Forgets cursor, failure and pauses; answers to earlier questions are ignored."""
        self.epoch += 1
        self._place = where
        self._at_oldest = False
        self._told = None
        self._cursor = None
        self._outside = None
        self._idle_s = 0.0
        self._not_before = float("-inf")
        self.streak = 0
        self.failure = None

    def next_action(self, now: float) -> Action:
        if self.failure is not None:
            return Wait(None)
        if now < self._not_before:
            return Wait(self._not_before)
        self._asked_at = now
        if self._outside is not None or self._place == "latest":
            return Describe(self.epoch)
        if self._cursor is not None and now - self._cursor_from < self._refresh_s:
            return Read(self.epoch, self._cursor)
        self._cursor = None
        if isinstance(self._place, int):
            return Obtain(self.epoch, "AT_SEQUENCE_NUMBER", sequence_number=self._place)
        if isinstance(self._place, Since):
            return Obtain(self.epoch, "AT_TIMESTAMP", timestamp_ms=self._place.timestamp_ms)
        return Obtain(self.epoch, "TRIM_HORIZON")

    def obtained(self, epoch: int, cursor: Cursor) -> None:
        if epoch == self.epoch:
            self._cursor = cursor
            self._cursor_from = self._asked_at
            if not isinstance(self._place, int):
                self._told = _number(cursor)

    def described(self, epoch: int, bounds: SequenceRange | None, now: float) -> Skipped | None:
        """The range of the partition (None: the service tells none yet; asked again later).

        Returns what retention took, if the place had to move forward; such records are counted.
        """
        if epoch != self.epoch:
            return None
        if bounds is None:
            self._back_off(now)
            return None
        if not isinstance(self._place, int):
            self._place = bounds.end
            return None
        outside, self._outside = self._outside, None
        expected = self._place
        if bounds.start <= expected <= bounds.end:
            # Refused although it is there: the service is behind itself.
            self._back_off(now)
            return None
        if expected > bounds.end or self._on_expired == "raise":
            # A place beyond the end was never written: no policy for expired records may choose another.
            self.failure = outside
            return None
        self._place = bounds.start if self._on_expired == "earliest" else bounds.end
        self.gap_records += self._place - expected
        return Skipped(expected, self._place)

    def accept(self, epoch: int, page: Page, now: float, below: int | None = None) -> Sequence[Record]:
        """The records of a page that are to be handed out: normally all; none if a seek came in between.

        `below`: only those with a lower number; the others are asked for again.
        Numbers that are missing are counted in `gap_records`; records that came already are dropped and counted in
        `repeated_records`.
        """
        if epoch != self.epoch:
            return []
        self.streak = 0
        self._cursor = page.next_cursor or None
        self._cursor_from = self._asked_at
        records = page.records
        if below is not None and records and number_of(records, -1) >= below:
            return self._up_to(records, below)
        records = self._in_order(records)
        if not records:
            self._idle_s = min(max(self._idle_s * 2, self._idle_min_s), self._idle_max_s)
            self._not_before = now + self._idle_s
            return records
        self._idle_s = 0.0
        self._place = number_of(records, -1) + 1
        self._at_oldest = False
        return records

    def _up_to(self, records: Sequence[Record], below: int) -> Sequence[Record]:
        """The records below this number. The place is `below` then, or behind it if reading was there already."""
        self._cursor = None  # it would go on behind what is not accepted
        first = number_of(records, 0)
        numbers = [number_of(records, i) for i in range(len(records))]
        kept = self._in_order(records[: sum([number < below for number in numbers])])
        if kept:
            self._place = number_of(kept, -1) + 1
        elif not isinstance(self._place, int):
            self._place = first
        if not self._at_oldest or kept:
            self.gap_records += max(0, below - self._place)
        self._place = max(self._place, below)
        self._at_oldest = self._at_oldest and not kept
        return kept

    def _in_order(self, records: Sequence[Record]) -> Sequence[Record]:
        if not records:
            return records
        first, last = number_of(records, 0), number_of(records, -1)
        expected = first if self._at_oldest or not isinstance(self._place, int) else self._place
        if first == expected and last - first == len(records) - 1:
            return records
        kept = []
        for record in records:
            if record.sequence_number >= expected:
                kept.append(record)
                self.gap_records += record.sequence_number - expected
                expected = record.sequence_number + 1
        self.repeated_records += len(records) - len(kept)
        return kept

    def failed(self, epoch: int, error: DisError, now: float) -> None:
        """A question was answered with `error`: go on later, look the place up, or stop (`failure` is set then)."""
        if epoch != self.epoch:
            return
        if isinstance(error, CursorExpired):
            self._cursor = None
            self.streak += 1
            self.retries += 1
            if self.streak > 1:  # the first costs nothing: that is how cursors end
                self._pause(now, 0.0)
        elif isinstance(error, SequenceOutOfRange):
            self._cursor = None
            if self._at_oldest:
                # The oldest record went away before it was read. Wanted was the oldest there is, so nothing is missing.
                self._place = "earliest"
                self._at_oldest = False
            elif isinstance(self._place, int):
                self._outside = error
            else:
                self._back_off(now)
        elif heals(error):
            self._back_off(now, (error.retry_after_s or 0.0) if isinstance(error, ThrottledError) else 0.0)
        else:
            self.failure = error

    def _back_off(self, now: float, at_least_s: float = 0.0) -> None:
        self.streak += 1
        self.retries += 1
        self._pause(now, at_least_s)

    def _pause(self, now: float, at_least_s: float) -> None:
        # The exponent is capped because a streak has no end, and 2.0**1100 overflows.
        longest = min(self._retry_max_s, self._retry_base_s * 2.0 ** min(self.streak - 1, 60))
        self._not_before = now + max(at_least_s, self._rng.uniform(longest / 2, longest))

    def check(self) -> None:
        """Assert every invariant."""
        assert not (isinstance(self._place, int) and self._place < 0)
        assert self._cursor is None or self._place != "latest"
        assert self._outside is None or (self._cursor is None and isinstance(self._place, int))
        assert not self._at_oldest or isinstance(self._place, int)
        assert 0 <= self._idle_s <= self._idle_max_s
        assert min(self.streak, self.retries, self.gap_records, self.repeated_records) >= 0


def _number(cursor: Cursor) -> int | None:
    """None: a service whose cursors do not tell."""
    try:
        return decode_cursor(cursor).sequence
    except DisError:
        return None


def heals(error: DisError) -> bool:
    """Whether the same request may succeed later, without anybody's help."""
    # Conflict (DIS.4205): the stream is being changed. A lease may revive, or the partition is dropped anyway.
    passing = error.retryable or isinstance(error, ConflictError | LeaseLost | StaleGeneration)
    return passing or (isinstance(error, ApiError) and error.status == 408)  # the answer came too late
