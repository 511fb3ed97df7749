"""Proves how benches count time: from the instant something was due, by nearest rank, and every instant once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from disstream.bench.timing import Lateness, Spread, percentile, schedule


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
    assert [round(late, 6) for late in lateness.late_s] == [0, 0.0085, 0.0065, 0.0045, 0.0025, 0.0005]


@given(st.floats(0.001, 1.0), st.lists(st.floats(0, 5), max_size=30))
def test_no_instant_is_missed_or_counted_twice(period_s: float, pauses: list[float]) -> None:
    """Whenever visits come, as many instants are counted as have passed, and none before its time."""
    lateness, now = Lateness(period_s, 0.0), 0.0
    for pause in pauses:
        now += pause
        due = lateness.visit(now)
        assert now < due <= now + period_s * 1.001
    assert abs(len(lateness.late_s) - now / period_s) <= 1
    assert all(late >= 0 for late in lateness.late_s)
