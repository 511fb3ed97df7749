"""An outage of a lease store lasts as long as somebody tried and failed, not as long as a process was stopped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.consumer.outage import MAX_STEP_S, Outage
from disstream.errors import StorageError, StoreUnavailable

DOWN = StoreUnavailable("it is down")


@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 100.0))))
def test_only_an_unbroken_outage_uses_up_the_budget(tries: list[tuple[bool, float]]) -> None:
    """Each try that succeeds begins anew; no step counts for more than a try may take."""
    outage = Outage(60.0)
    now, failing_s, failing = 0.0, 0.0, False
    for works, step_s in tries:
        now += step_s
        if works:
            assert outage.worked() is failing
            failing = False
            continue
        failing_s = failing_s + min(step_s, MAX_STEP_S) if failing else 0.0
        if failing_s >= 60.0 - 1e-9:
            if failing_s >= 60.0 + 1e-9:
                with pytest.raises(StorageError, match=r"outage_budget_s=60.*it is down"):
                    outage.failed(DOWN, now)
            return
        assert outage.failed(DOWN, now) is not failing
        failing = True
        outage.check()


def test_a_night_in_suspension_is_no_outage() -> None:
    """The machine slept between two tries, and the store is not back at once: that is one step."""
    outage = Outage(60.0)
    assert outage.failed(DOWN, 0.0)
    assert not outage.failed(DOWN, 8 * 3600.0)
    assert outage.lasted_s == MAX_STEP_S
    assert outage.worked()
    assert outage.count == 1
