"""Proves how benches count time: from the instant something was due, by nearest rank, and every instant once."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.bench.timing import Histogram, Lateness, Spread, percentile, schedule


def test_percentiles_occurred() -> None:
    """A percentile is the smallest value that as many do not exceed; of nothing it is 0."""
    assert [percentile([1, 2, 3, 4], share) for share in (0.0, 0.5, 0.51, 0.99, 1.0)] == [1, 2, 3, 4, 4]
    assert percentile([], 0.5) == 0
    assert Spread.of(reversed(range(1, 1001))) == Spread(1000, 500, 900, 990, 999, 1000)
    assert Spread.of([]) == Spread(0, 0, 0, 0, 0, 0)


def test_a_schedule_does_not_drift() -> None:
    """The last of many instants is where it belongs, however long the way there: intervals are not added up."""
    instants = list(schedule(100.0, 3.0, 3_000_001))
    assert instants[0] == 100.0
    assert instants[-1] == 100.0 + 1_000_000


def test_a_stall_counts_for_everything_that_waited() -> None:
    """A loop that stands for 10 ms makes five timers late, each by its own part; those in time are not late."""
    lateness = Lateness(0.002, 0.0)
    assert lateness.visit(0.002) == 0.004
    assert lateness.visit(0.003) == 0.004
    assert lateness.visit(0.0125) == 0.014
    late = lateness.late
    shares = [i / 6 for i in range(1, 7)]
    known = [0, 0.0005, 0.0025, 0.0045, 0.0065, 0.0085]
    assert late.count == 6
    assert [late.percentile(share) for share in shares] == pytest.approx(known, rel=0.01, abs=1e-6)
    assert late.max_s == pytest.approx(0.0085, rel=1e-9)


@given(st.floats(0.001, 1.0), st.lists(st.floats(0, 5), max_size=30))
def test_no_instant_is_missed_or_counted_twice(period_s: float, pauses: list[float]) -> None:
    """Whenever visits come, as many instants are counted as have passed, and none before its time."""
    lateness, now = Lateness(period_s, 0.0), 0.0
    for pause in pauses:
        now += pause
        due = lateness.visit(now)
        assert now < due <= now + period_s * 1.001
    assert abs(lateness.late.count - now / period_s) <= 1


@given(st.lists(st.floats(0, 20_000), max_size=60), st.lists(st.floats(0, 1), max_size=60), st.floats(0, 1))
def test_a_histogram_tells_percentiles_within_a_percent(some: list[float], more: list[float], share: float) -> None:
    """Whatever it is given, in one or merged from two: never less than occurred, hardly more, in the same memory."""
    one, other = Histogram(), Histogram()
    size = sys.getsizeof(one._counts)
    for seconds in some:
        one.add(seconds)
    for seconds in more:
        other.add(seconds)
    one.merge(other)
    exact = percentile(sorted([*some, *more]), share)
    assert exact * (1 - 1e-9) <= one.percentile(share) <= max(exact * 1.01, 1e-6) * (1 + 1e-9)
    assert one.spread().max_s == max([*some, *more], default=0.0)
    assert one.count == len(some) + len(more)
    assert sys.getsizeof(one._counts) == size
