"""The session header says the same on both sides, and what is no session is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.errors import ApiError
from disstream.wire.sessions import MAX_LANES, Session, SessionLane, decode_session, encode_session

NUMBERS = st.integers(0, 10**18 - 1)
LANES = st.lists(
    st.builds(SessionLane, NUMBERS, NUMBERS, NUMBERS, st.integers(1, 10**6)),
    min_size=1,
    max_size=20,
    unique_by=lambda lane: lane.partition,
).map(tuple)
PRODUCERS = st.text("0123456789abcdef", min_size=32, max_size=32)


@given(st.builds(Session, PRODUCERS, NUMBERS, LANES))
def test_what_is_encoded_is_decoded(session: Session) -> None:
    """Any session comes back as it was."""
    assert decode_session(encode_session(session)) == session


def test_it_reads_as_documented() -> None:
    """The documented example."""
    text = "9f86d081884c7d659a2feaa0c55ad015.12; 0=0:1500:700, 3=2:0:300"
    session = Session("9f86d081884c7d659a2feaa0c55ad015", 12, (SessionLane(0, 0, 1500, 700), SessionLane(3, 2, 0, 300)))
    assert encode_session(session) == text
    assert decode_session(text) == session
    assert session.records == 1000


def test_the_largest_header_passes_everywhere() -> None:
    """As many lanes as are allowed, with numbers of a year's traffic, stay below 8 KiB."""
    lanes = tuple(SessionLane(9000 + i, 12, 10**11 + i, 1000) for i in range(MAX_LANES))
    assert len(encode_session(Session("f" * 32, 10**9, lanes))) < 8000


A = "a" * 32


@pytest.mark.parametrize(
    "text",
    [
        "",
        ";",
        A,
        f"{A}.1",
        f"{A}.1;",
        f"{A[1:]}.1; 0=0:0:1",
        f"{A.upper()}.1; 0=0:0:1",
        f"{A}.x; 0=0:0:1",
        f"{A}.1; 0=0:0:0",
        f"{A}.1; 0=0:0:01",
        f"{A}.1; 0=0:0",
        f"{A}.1; 0=0:-1:1",
        f"{A}.1; 0=0:0:1, 0=0:1:1",
        f"{A}.1; 0=0:0:\u0661",
        f"{A}.1; 0=0:0:{'9' * 19}",
        f"{A}.1; " + ", ".join(f"{i}=0:0:1" for i in range(MAX_LANES + 1)),
        f"{A}.1; " + "," * 1_000_000,
    ],
)
def test_what_is_no_session_is_refused(text: str) -> None:
    """Bad headers get DIS.4200 that quotes their beginning."""
    with pytest.raises(ApiError) as refused:
        decode_session(text)
    assert refused.value.code == "DIS.4200"
    assert len(str(refused.value)) < 400
