"""The short answer to a put says where every record is, as the usual answer does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.errors import TransportError
from disstream.wire.partitioning import partition_id
from disstream.wire.places import Place, decode_places, encode_places, encode_put_answer_short, places_of
from disstream.wire.records import decode_put_answer, encode_put_answer

RUNS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40)), min_size=1, max_size=8)


@given(runs=RUNS, start=st.integers(0, 10**12))
def test_both_forms_say_the_same(runs: list[tuple[int, int]], start: int) -> None:
    """Spelt out, the places are those of the usual answer."""
    lanes = [lane for lane, count in runs for _ in range(count)]
    first = {lane: start + 100 * lane for lane in set(lanes)}
    places = places_of(lanes, first)
    assert places is not None
    body = encode_places(places)
    assert decode_places(body) == tuple(places)
    assert [(partition_id(p), n) for p, begin, count in places for n in range(begin, begin + count)] == [
        (result.partition_id, result.sequence_number) for result in decode_put_answer(encode_put_answer(lanes, first))
    ]


def test_it_reads_as_documented() -> None:
    """The documented example."""
    body = b'{"failed_record_count":0,"places":[[0,1500,700],[3,0,300]]}'
    places = [Place(0, 1500, 700), Place(3, 0, 300)]
    assert encode_places(places) == body
    assert decode_places(body) == tuple(places)


def test_places_that_nobody_knows_are_not_told() -> None:
    """A record that was stored too long ago to know where makes the answer a usual one."""
    assert places_of([0, 1], {0: 5, 1: -1}) is None
    assert decode_places(encode_put_answer_short([0, 1], {0: 5, 1: -1})) is None


def test_the_usual_answer_is_no_short_one() -> None:
    """What has the usual form is left to its decoder."""
    assert decode_places(encode_put_answer([0, 0], {0: 5})) is None
    assert decode_places(b"") is None


def test_an_answer_about_more_records_than_were_sent() -> None:
    """Twenty bytes that tell of a billion records are no answer, instead of results that no memory holds."""
    body = encode_places([Place(0, 0, 999_999_998), Place(1, 0, 2)])
    assert decode_places(body, 10**9) is not None
    with pytest.raises(TransportError) as caught:
        decode_places(body, 10**9 - 1)
    assert caught.value.outcome_unknown


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"[0,1]]}",
        b"[0,1,2]",
        b'["0",1,2]]}',
        b"[0,1,0]]}",
        b"[-1,1,1]]}",
        b"[0,-1,1]]}",
        b"[0,1,1.5]]}",
        b"\xff]}",
    ],
)
def test_a_damaged_answer_is_no_answer(rest: bytes) -> None:
    """A short answer that cannot be read leaves the outcome unknown."""
    with pytest.raises(TransportError) as caught:
        decode_places(b'{"failed_record_count":0,"places":[' + rest)
    assert caught.value.outcome_unknown
