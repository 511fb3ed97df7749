"""Proves the pace of a partition: never faster than its ceiling, gentle when refused, soon back, and never stuck."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.errors import ConfigError
from disstream.producer.pacing import (
    BURST_S,
    CUT_EVERY_S,
    FLOOR,
    PUBLISHED,
    QUANTUM_S,
    RECOVER_PER_S,
    STREAK_S,
    UNLIMITED,
    FailureBudget,
    Pace,
    Pacer,
)
from disstream.server.config import SERVICE_LIMITS

MIB = 1_048_576
COMMON = PUBLISHED["COMMON"]
NOTHING = Pace()


def pacer(ceiling: Pace = COMMON) -> Pacer:
    return Pacer(ceiling, random.Random(3))


def send(pace: Pacer, waiting: int, size: int, now: float) -> int:
    """What a lane does that holds so many records of a size: how many went."""
    if pace.ready_at(waiting, waiting * size, now) > now:
        return 0
    records, octets = pace.allowance(now)
    count = 0
    while count < waiting and records >= 1 and octets > 0:
        count, records, octets = count + 1, records - 1, octets - size
    pace.sent(count, count * size)
    pace.check()
    return count


@given(
    ceiling=st.builds(Pace, records_per_s=st.floats(0.5, 5_000), bytes_per_s=st.floats(100, 1e7)),
    sends=st.lists(st.tuples(st.floats(0, 2), st.integers(1, 3_000), st.integers(0, 2 * MIB)), max_size=40),
)
def test_no_stretch_of_time_sees_more_than_the_ceiling(ceiling: Pace, sends: list[tuple[float, int, int]]) -> None:
    """In t seconds at most rate * t, a burst, and of bytes the end of one record; and whoever waits gets its turn."""
    pace, now = pacer(ceiling), 0.0
    went: list[tuple[float, int, int]] = []
    for pause, waiting, size in sends:
        now += pause
        went.append((now, count := send(pace, waiting, size, now), count * size))
        ready = pace.ready_at(waiting, waiting * size, now)
        assert ready < math.inf
        assert send(pace, waiting, size, ready) >= 1, "it was told to come then"
        went.append((ready, 0, 0))
        now = ready
    assert ceiling.records_per_s is not None
    burst = max(ceiling.records_per_s * BURST_S, 1.0)
    for i, (start, _, _) in enumerate(went):
        total = 0
        for at, count, _ in went[i:]:
            total += count
            # a request goes up to a rounding before its time
            assert total <= ceiling.records_per_s * (at - start) + burst + 2


def test_at_its_cap_a_lane_sends_ten_requests_a_second() -> None:
    """A lane that always holds more sends as much as it may, in useful amounts; one with little never waits."""
    pace = pacer()
    now, sent, requests = 0.0, 0, 0
    while now < 10.0:
        sent += send(pace, 5_000, 100, now)
        requests += 1
        now = pace.ready_at(5_000, 500_000, now)
    assert 10_000 <= sent <= 10_000 + 1_000 * BURST_S + 1
    assert requests <= 10 / QUANTUM_S + 2
    light, waited = pacer(), 0
    for i in range(1_000):
        waited += light.ready_at(1, 100, i / 500) > i / 500
        light.sent(1, 100)
    assert waited == 0
    assert not light.held(2.0)


def test_a_record_larger_than_the_bucket_passes_and_is_paid_for() -> None:
    """1 MiB at 64 KiB a second goes at once, and the next one when it is paid."""
    pace = pacer(Pace(bytes_per_s=65_536))
    assert send(pace, 2, MIB, 0.0) == 1
    ready = pace.ready_at(1, MIB, 0.0)
    assert 15.0 < ready < 17.0
    assert send(pace, 1, MIB, ready) == 1


def test_a_refusal_slows_gently_and_time_heals() -> None:
    """A small refused part costs 5 %, a whole request half; once a second; then it comes back, a point a second."""
    pace = pacer()
    assert pace.refused(0.02, NOTHING, 100.0), "a streak begins"
    assert pace.pace(100.0) == COMMON.times(0.95)
    assert not pace.refused(1.0, NOTHING, 100.0 + CUT_EVERY_S / 2), "what was on its way is the same message"
    found = pace.pace(100.0 + CUT_EVERY_S / 2)
    assert found is not None
    assert found.records_per_s == pytest.approx(950, abs=1_000 * RECOVER_PER_S)
    pace.refused(1.0, NOTHING, 102.0)
    found = pace.pace(102.0)
    assert found is not None
    assert found.records_per_s == pytest.approx(485)
    for second in range(50):
        pace.refused(1.0, NOTHING, 103.0 + second)
        pace.check()
    found = pace.pace(152.0)
    assert found == COMMON.times(FLOOR)
    assert pace.ready_at(1, 10, 152.0) < 152.0 + 0.2, "even at the floor it is alive"
    assert pace.throttled(155.0)
    assert pace.pace(152.0 + 1 / RECOVER_PER_S) == COMMON
    assert not pace.throttled(152.0 + 1 / RECOVER_PER_S)
    assert pace.refused(0.1, NOTHING, 152.0 + STREAK_S), "a new streak"


def test_what_was_refused_goes_again_as_soon_as_the_service_can_have_room() -> None:
    """After a refusal the next request goes within two tenths of a second: no back-off that grows."""
    pace, now = pacer(), 50.0
    for _ in range(10):
        pace.refused(0.1, NOTHING, now)
        ready = pace.ready_at(5_000, 500_000, now)
        assert QUANTUM_S * 0.99 <= ready - now <= 2 * QUANTUM_S
        now = ready


def test_without_a_ceiling_nothing_is_paced_until_something_is_refused() -> None:
    """A refusal teaches the ceiling from what was stored; when that is long ago the lane is free again."""
    pace = pacer(UNLIMITED)
    assert pace.ready_at(10**6, 10**9, 0.0) == 0.0
    assert pace.allowance(0.0) == (math.inf, math.inf)
    pace.sent(10**6, 10**9)
    assert pace.pace(0.0) is None
    pace.refused(0.5, Pace(records_per_s=20_000, bytes_per_s=10 * MIB), 10.0)
    assert pace.pace(10.0) == Pace(records_per_s=20_000, bytes_per_s=10 * MIB)
    assert pace.pace(10.0 + 0.4 / RECOVER_PER_S) is not None
    assert pace.pace(10.0 + 0.51 / RECOVER_PER_S) is None
    pace.refused(0.5, NOTHING, 100.0)
    assert pace.pace(100.0) == COMMON.times(0.5), "never below what the service publishes"


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 1), st.booleans()), max_size=60))
def test_whatever_happens_it_stays_alive(steps: list[tuple[float, float, bool]]) -> None:
    """After any history of refusals and sends, something may go within the time the floor takes for a quantum."""
    pace, now = pacer(), 0.0
    for passed, part, is_refused in steps:
        now += passed
        if is_refused:
            pace.refused(part, NOTHING, now)
        else:
            send(pace, 500, 100, now)
        pace.check()
        assert pace.ready_at(1, 100, now) - now <= 2 * QUANTUM_S


def test_failures_are_spread_before_the_service_minds() -> None:
    """Thirty failures may follow each other at once; no minute sees more than sixty, however long it goes on."""
    budget, now, times = FailureBudget(), 0.0, []
    while now < 600.0:
        times.append(now)
        now = budget.next_try_at(now)
    assert times[:30] == [0.0] * 30
    assert max(sum(start <= at < start + 60 for at in times) for start in times) <= 60
    assert budget.next_try_at(10_000.0) == 10_000.0, "a quiet time restores it"


def test_the_published_caps_are_those_of_the_server_with_the_limits_of_the_service() -> None:
    """What the producer starts from is what `--limits service` enforces."""
    for kind, pace in PUBLISHED.items():
        assert pace.records_per_s == SERVICE_LIMITS[f"{kind.lower()}_in_records_per_s"]
        assert pace.bytes_per_s == SERVICE_LIMITS[f"{kind.lower()}_in_bytes_per_s"]


@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan])
def test_a_pace_that_is_none_is_refused(value: float) -> None:
    """0, negative, infinite and no number: the message names the field and the way out."""
    with pytest.raises(ConfigError, match=r"records_per_s=.*leave it out"):
        Pace(records_per_s=value)
