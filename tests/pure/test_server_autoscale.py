"""When a stream scales itself: the rules, and that they come to rest."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.model import AutoScale
from disstream.server.autoscale import CAPACITY, FULL, IDLE, QUIET_MINUTES, Capacity, decide

COMMON = CAPACITY["COMMON"]
LONG = 3600.0


def minutes(*per_second: float) -> list[tuple[int, int]]:
    """(records, bytes) of minutes with so many records a second, of 100 bytes."""
    return [(int(each * 60), int(each * 60) * 100) for each in per_second]


@pytest.mark.parametrize(
    ("partitions", "traffic", "since_s", "target"),
    [
        (2, minutes(1600, 1600), LONG, 3),  # 80 % of two
        (2, minutes(1599, 1600), LONG, None),  # not both minutes
        (2, minutes(1600), LONG, None),  # one minute is no trend
        (2, minutes(1600, 1600), 119, None),  # one of them was partly before the change
        (2, minutes(1600, 1600), 120, 3),
        (2, minutes(6000, 6000), LONG, 10),  # to 60 % of each
        (2, minutes(60000, 60000), LONG, 10),  # not beyond the maximum
        (10, minutes(60000, 60000), LONG, None),
        (4, minutes(*[1000] * 9), LONG, None),
        (4, minutes(*[1000] * 10), LONG, 2),  # ten minutes below 30 %
        (4, minutes(*[1000] * 10), 599, None),
        (4, minutes(*[1000] * 9, 1200), LONG, None),
        (4, minutes(*[0] * 10), LONG, 1),
        (1, minutes(*[0] * 10), LONG, None),
        (4, minutes(*[2000] * 10), LONG, None),  # in between
        (12, minutes(*[9000] * 10), 0, 10),  # beyond the bounds: at once
        (1, [], 0, None),
    ],
)
def test_rules(partitions: int, traffic: list[tuple[int, int]], since_s: float, target: int | None) -> None:
    """Each rule at its edge."""
    assert decide(AutoScale(1, 10), partitions, COMMON, traffic, since_s) == target


def test_refused_puts_show_that_it_is_full() -> None:
    """While puts are refused 60 % is enough; below that it is one busy key, which more partitions do not help."""
    for per_second, target in ((1199, None), (1200, 3), (1600, 3)):
        traffic = minutes(per_second, per_second)
        assert decide(AutoScale(1, 10), 2, COMMON, traffic, LONG, throttled=True) == target


def test_below_the_minimum() -> None:
    """A stream made with fewer partitions than its minimum gets them at once."""
    assert decide(AutoScale(2, 10), 1, COMMON, [], 0) == 2


def test_bytes_count_like_records() -> None:
    """Whichever comes closer to what a partition takes decides."""
    large = [(60, 60 * 900_000)] * 2
    assert decide(AutoScale(1, 10), 1, COMMON, large, LONG) == 2
    assert decide(AutoScale(1, 10), 1, CAPACITY["ADVANCED"], large, LONG) is None


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 50), st.floats(0, 100_000))
def test_steady_traffic_comes_to_rest(low: int, more: int, partitions: int, rate: float) -> None:
    """Under traffic that does not change there is at most one change after the bounds are kept, and it suits."""
    bounds = AutoScale(low, low + more)
    traffic = minutes(*[rate] * QUIET_MINUTES)
    changes = []
    while (target := decide(bounds, partitions, COMMON, traffic, LONG)) is not None:
        assert bounds.min_partitions <= target <= bounds.max_partitions
        assert target != partitions
        changes.append(target)
        partitions = target
    assert len(changes) <= 2
    needed = traffic[0][0] / 60 / COMMON.records
    assert partitions == bounds.max_partitions or needed < FULL * partitions
    assert partitions == bounds.min_partitions or needed >= IDLE * partitions or math.ceil(needed / 0.6) == partitions


def test_no_traffic_needs_no_partition_but_one_is_kept() -> None:
    """An aim of none is lifted to the minimum, never to nothing."""
    assert decide(AutoScale(1, 9), 9, Capacity(1, 1), [(0, 0)] * 10, LONG) == 1
