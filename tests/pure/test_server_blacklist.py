"""Who fails too often is not heard until its minute is over, and nobody else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.server import blacklist
from disstream.server.blacklist import Blacklist


def test_a_minute_of_failures() -> None:
    """One more than the limit, and the address is refused for the rest of the minute that its first failure began."""
    known = Blacklist(2)
    for second in range(3):
        assert known.refused_for("1.2.3.4", 10.0 + second) is None
        known.answered("1.2.3.4", 400, "DIS.4301", 10.0 + second)
    assert known.refused_for("1.2.3.4", 12.0) is not None
    assert known.refused_for("1.2.3.4", 69.9) is not None
    assert known.refused_for("1.2.3.5", 69.9) is None
    assert known.refused_for("1.2.3.4", 70.0) is None
    known.answered("1.2.3.4", 401, "DIS.4112", 70.0)
    known.answered("1.2.3.4", 404, "", 100.0)
    assert known.refused_for("1.2.3.4", 100.0) is None
    known.answered("1.2.3.4", 404, "", 129.0)
    assert known.refused_for("1.2.3.4", 129.9) is not None


@pytest.mark.parametrize(
    ("status", "code"), [(200, ""), (201, ""), (500, "DIS.5000"), (429, ""), (400, "DIS.4303"), (400, "DIS.4305")]
)
def test_what_is_no_failure(status: int, code: str) -> None:
    """Success, throttling and faults of the server are not held against anybody."""
    known = Blacklist(1)
    for _ in range(9):
        known.answered("1.2.3.4", status, code, 0.0)
    assert known.refused_for("1.2.3.4", 0.0) is None
    assert len(known) == 0


def test_addresses_of_one_household() -> None:
    """An IPv6 network of 64 bits is one address; an IPv4 address is the same in both families."""
    known = Blacklist(1)
    for peer in ("2001:db8:0:1::5", "2001:db8:0:1:ffff::", "::ffff:1.2.3.4", "1.2.3.4", "fe80::1%2", "fe80::2%2"):
        known.answered(peer, 400, "DIS.4200", 0.0)
    for peer in ("2001:db8:0:1::6", "1.2.3.4", "::ffff:1.2.3.4", "fe80::3"):
        assert known.refused_for(peer, 1.0) is not None
    for peer in ("2001:db8:0:2::5", "1.2.3.5", "::ffff:1.2.3.5"):
        assert known.refused_for(peer, 1.0) is None


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 40)), max_size=60))
def test_the_table_is_bounded(failures: list[tuple[int, float]]) -> None:
    """Never more addresses than it may hold; the oldest minutes go first, and a running one of the last few stays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blacklist, "MAX_ADDRESSES", 3)
        known = Blacklist(1)
        now = 0.0
        for number, pause in failures:
            now += pause
            known.answered(f"10.0.0.{number}", 400, "DIS.4200", now)
            assert len(known) <= 3
            began = [at for at, _ in known._minutes.values()]
            assert began == sorted(began)
            assert f"10.0.0.{number}" in known._minutes
