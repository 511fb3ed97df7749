"""How late something was, of many times it happened. Pure.

What is due at known instants is counted from those, not from when it was begun: who only starts the next request when
the last one has returned does not see what a pause cost everybody else ("coordinated omission").
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

import msgspec


class Spread(msgspec.Struct, frozen=True):
    """Seconds."""

    count: int
    p50_s: float
    p90_s: float
    p99_s: float
    p999_s: float
    max_s: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Spread:
        ordered = sorted(seconds)
        shares = (0.5, 0.9, 0.99, 0.999, 1.0)
        return cls(len(ordered), *(percentile(ordered, share) for share in shares))


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the sorted values that at least `share` of them do not exceed; 0 if there are none."""
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)] if ordered else 0.0


def schedule(begin: float, rate: float, count: int) -> Iterator[float]:
    """The instants at which `count` records are due at `rate` a second, the first one at `begin`."""
    return (begin + number / rate for number in range(count))


FINEST_S = 1e-6
STEP = 1.01
BUCKETS = 2_400
"""From a microsecond in steps of one percent: six hours. The last one holds what took longer."""


class Histogram:
    """How often something took how long, within one percent, in memory that does not grow with how often.

    A run of hours must not be seen in the memory that it measures.
    """

    def __init__(self) -> None:
        self._counts = array("Q", bytes(8 * BUCKETS))
        self.count = 0
        self.max_s = 0.0

    def add(self, seconds: float) -> None:
        bucket = 0 if seconds <= FINEST_S else 1 + int(math.log(seconds / FINEST_S) / _LOG_STEP)
        self._counts[min(bucket, BUCKETS - 1)] += 1
        self.count += 1
        self.max_s = max(self.max_s, seconds)

    def merge(self, other: Histogram) -> None:
        """Count what the other has counted, too."""
        for bucket, count in enumerate(other._counts):
            self._counts[bucket] += count
        self.count += other.count
        self.max_s = max(self.max_s, other.max_s)

    def percentile(self, share: float) -> float:
        """As `percentile`: never less than that, and at most one percent (or a microsecond) more."""
        rank = max(1, math.ceil(self.count * share))
        if rank >= self.count:
            return self.max_s
        bucket = next(i for i, below in enumerate(accumulate(self._counts)) if below >= rank)
        return min(FINEST_S * STEP**bucket, self.max_s)

    def spread(self) -> Spread:
        shares = (0.5, 0.9, 0.99, 0.999, 1.0)
        return Spread(self.count, *map(self.percentile, shares))


_LOG_STEP = math.log(STEP)


class Lateness:
    """How late something comes that is due every `period_s`. A visit that comes late stands for all it has missed."""

    def __init__(self, period_s: float, now: float) -> None:
        self.period_s = period_s
        self.due = now + period_s
        self.late = Histogram()

    def visit(self, now: float) -> float:
        """Count everything that is due by `now`; returns when the next one is."""
        due = self.due
        while due <= now:
            self.late.add(now - due)
            due += self.period_s
        self.due = due
        return due
