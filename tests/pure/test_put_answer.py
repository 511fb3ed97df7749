"""The answer to a put, written a thousand numbers at a time, says what one written number by number says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from disstream.wire.partitioning import partition_id
from disstream.wire.records import decode_put_answer, encode_put_answer

STARTS = st.one_of(st.integers(0, 3000), st.integers(0, 2**63 - 5000), st.sampled_from([999, 1000, 9_999, 999_999]))


@given(start=STARTS, count=st.one_of(st.integers(1, 30), st.integers(900, 2100)), lane=st.integers(0, 2000))
def test_numbers_are_written_whole(start: int, count: int, lane: int) -> None:
    """Every number is there with all its digits, in order, across the edges of thousands."""
    results = decode_put_answer(encode_put_answer([lane] * count, {lane: start}))
    assert [r.sequence_number for r in results] == list(range(start, start + count))
    assert {r.partition_id for r in results} == {partition_id(lane)}
