"""A front hangs when it left so many beats in a row unanswered, and not before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from disstream.server.heartbeat import HESITATES, MISSED, Heartbeat


@given(st.lists(st.booleans(), max_size=200), st.integers(1, 5))
def test_it_hangs_after_so_many_in_a_row(history: list[bool], missed: int) -> None:
    """Whatever came before: what it sends takes all that was missed away."""
    heart, silent = Heartbeat(missed), 0
    for heard in history:
        if heard:
            heart.heard()
            silent = 0
        else:
            assert heart.beat() == (silent < missed)
            silent += 1
        heart.check()
        assert heart.hesitates == (min(silent, missed) >= HESITATES)


def test_it_is_not_hasty() -> None:
    """By default more than one missed beat is needed for either."""
    assert 1 < HESITATES < MISSED
