"""How late something was, of many times it happened. Pure.

What is due at known instants is counted from those, not from when it was begun: who only starts the next request when
the last one has returned does not see what a pause cost everybody else ("coordinated omission").
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence

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


class Lateness:
    """How late something comes that is due every `period_s`. A visit that comes late stands for all it has missed."""

    def __init__(self, period_s: float, now: float) -> None:
        self.period_s = period_s
        self.due = now + period_s
        self.late_s = array("d")  # of hours, without being seen in the memory that is measured

    def visit(self, now: float) -> float:
        """Count everything that is due by `now`; returns when the next one is."""
        due = self.due
        while due <= now:
            self.late_s.append(now - due)
            due += self.period_s
        self.due = due
        return due
