"""Notices on the wire: requests and frames as they are drawn in wire/notices.py, and what is none of them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.errors import ApiError, TransportError
from disstream.wire.notices import (
    LONGEST_S,
    MAX_LINE_BYTES,
    MAX_PARTITIONS,
    MAX_SEQUENCE,
    Lines,
    Watched,
    decode_frame,
    decode_notices,
    encode_frame,
    encode_notices,
)

numbers = st.integers(0, MAX_SEQUENCE)
names = st.text(min_size=1, max_size=10)


def test_a_request_looks_as_it_is_drawn() -> None:
    """The request of the docstring, byte by byte."""
    watched = [Watched("orders", "x1", [(0, 17), (1, 20)]), Watched("bills", "", [(4, 0)])]
    assert encode_notices(watched) == (
        b'{"streams":[{"partitions":[0,17,1,20],"stream_name":"orders","stream_id":"x1"},'
        b'{"partitions":[4,0],"stream_name":"bills"}],"longest_ms":60000}'
    )


@given(
    st.lists(
        st.builds(Watched, names, st.just("") | names, st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5)),
        min_size=1,
        max_size=4,
    ),
    st.floats(0.0, LONGEST_S),
)
def test_requests_come_back(watched: list[Watched], longest_s: float) -> None:
    """What is asked for is what the server reads, to the millisecond."""
    asked = decode_notices(encode_notices(watched, longest_s))
    assert asked.watched == watched
    assert asked.longest_s == pytest.approx(longest_s, abs=0.0006)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"[", "not JSON"),
        (b"{}", "streams"),
        (b'{"streams":[]}', "0 partitions"),
        (b'{"streams":[{"stream_name":"s","partitions":[]}]}', "0 partitions"),
        (b'{"streams":[{"partitions":[0,0]}]}', "stream_name is missing"),
        (b'{"streams":[{"stream_name":"s","partitions":[0]}]}', "1 numbers"),
        (b'{"streams":[{"stream_name":"s","partitions":[0,-1]}]}', "from -1"),
        (b'{"streams":[{"stream_name":"s","partitions":[0,9223372036854775808]}]}', "from 9223372036854775808"),
        (b'{"streams":[{"stream_name":"s","partitions":[0,0]}],"longest_ms":-5}', "longest_ms=-5"),
    ],
)
def test_what_is_no_request_is_refused(body: bytes, told: str) -> None:
    """With the value that is wrong."""
    with pytest.raises(ApiError, match=told):
        decode_notices(body)


def test_requests_are_bounded() -> None:
    """In partitions, and in time."""
    most = [Watched("s", "", [(n, 0) for n in range(MAX_PARTITIONS)])]
    assert decode_notices(encode_notices(most, 1e6)).longest_s == LONGEST_S
    with pytest.raises(ApiError, match=str(MAX_PARTITIONS)):
        decode_notices(encode_notices([*most, Watched("t", "", [(0, 0)])]))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-1, MAX_SEQUENCE))), st.data())
def test_frames_come_back_however_they_are_cut(ends: list[tuple[int, int]], data: st.DataObject) -> None:
    """Three frames in pieces of any size are three frames."""
    text = encode_frame(ends) + encode_frame([]) + encode_frame(ends[:1])
    lines, found, at = Lines(), [], 0
    while at < len(text):
        size = data.draw(st.integers(1, 20))
        found += lines.feed(text[at : at + size])
        at += size
    assert [decode_frame(line, 10) for line in found] == [ends, [], ends[:1]]


@pytest.mark.parametrize("line", [b"", b"{}", b"[1]", b"[10,1]", b"[-1,1]", b"[0,-2]", b'["0",1]', b"[0,1.5]"])
def test_what_is_no_frame_is_an_error(line: bytes) -> None:
    """And not an end that somebody believes."""
    with pytest.raises(TransportError, match="no frame"):
        decode_frame(line, 10)


def test_a_line_ends() -> None:
    """A server that sends without end does not fill the memory."""
    lines = Lines()
    assert not lines.feed(b"1" * MAX_LINE_BYTES)
    with pytest.raises(TransportError, match="a line of more than"):
        lines.feed(b"1")
    # The longest line there is passes.
    longest = msgspec.json.encode([n for place in range(MAX_PARTITIONS) for n in (place, MAX_SEQUENCE)])
    assert len(longest) < MAX_LINE_BYTES
