"""Notices on the wire: requests and frames as they are drawn in wire/notices.py, and what is none of them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.errors import ApiError, TransportError
from disstream.model import Cursor, Record
from disstream.wire.notices import (
    LONGEST_S,
    MAX_LINE_BYTES,
    MAX_PARTITIONS,
    MAX_PUSH_BYTES,
    MAX_PUSH_RECORDS,
    MAX_SEQUENCE,
    Feed,
    Frame,
    Pushed,
    Watched,
    decode_notices,
    encode_frame,
    encode_notices,
    encode_pushed,
)
from disstream.wire.pages import PageBatch, encode_page_columns

numbers = st.integers(0, MAX_SEQUENCE)
names = st.text(min_size=1, max_size=10)


def test_a_request_looks_as_it_is_drawn() -> None:
    """The request of the docstring, byte by byte."""
    watched = [Watched("orders", "x1", [(0, 17), (1, 20)]), Watched("bills", "", [(4, 0)])]
    assert encode_notices(watched) == (
        b'{"streams":[{"partitions":[0,17,1,20],"stream_name":"orders","stream_id":"x1"},'
        b'{"partitions":[4,0],"stream_name":"bills"}],"longest_ms":60000}'
    )
    watched = [Watched("orders", "", [(0, 17), (1, 20)], {1})]
    assert encode_notices(watched, push_bytes=16384) == (
        b'{"streams":[{"partitions":[0,17,1,20],"stream_name":"orders","plain":[1]}],'
        b'"longest_ms":60000,"push_bytes":16384}'
    )
    # To a server that pushes nothing it is what it always was.
    assert encode_notices(watched) == encode_notices([Watched("orders", "", [(0, 17), (1, 20)])])


@given(
    st.lists(
        st.builds(
            Watched,
            names,
            st.just("") | names,
            st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5),
            st.frozensets(numbers, max_size=3),
        ),
        min_size=1,
        max_size=4,
    ),
    st.floats(0.0, LONGEST_S),
    st.integers(1, 2 * MAX_PUSH_BYTES),
)
def test_requests_come_back(watched: list[Watched], longest_s: float, push_bytes: int) -> None:
    """What is asked for is what the server reads, to the millisecond."""
    asked = decode_notices(encode_notices(watched, longest_s, push_bytes))
    assert asked.watched == watched
    assert asked.push_bytes == min(push_bytes, MAX_PUSH_BYTES)
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
        (b'{"streams":[{"stream_name":"s","partitions":[0,0]}],"push_bytes":-5}', "push_bytes=-5"),
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
    huge = b"9" * 400  # more than any float holds
    body = b'{"streams":[{"stream_name":"s","partitions":[0,0]}],"longest_ms":%b,"push_bytes":%b}' % (huge, huge)
    asked = decode_notices(body)
    assert (asked.longest_s, asked.push_bytes) == (LONGEST_S, MAX_PUSH_BYTES)
    with pytest.raises(ApiError, match=str(MAX_PARTITIONS)):
        decode_notices(encode_notices([*most, Watched("t", "", [(0, 0)])]))


def test_a_pushed_page_looks_as_it_is_drawn() -> None:
    """The line of the docstring, and the page behind it, whatever bytes it has."""
    body = encode_page_columns([PageBatch(17, 5, b"\x93\x92\xa1a\n\x92\x01\x01\xc0", b"\n{")], "c")
    pushed = Pushed(0, 17, 2, 0, body)
    head = b'{"place":0,"first":17,"records":2,"changes":0,"bytes":%d}\n' % len(body)
    assert encode_pushed(pushed) == head + body
    assert Feed(1).feed(encode_pushed(pushed) + b"[]\n") == [pushed, []]
    assert pushed.end == 19


def test_a_pushed_page_is_a_page() -> None:
    """Records, cursor and count of changes, as of a GET; what is no page raises what a GET of it would."""
    columns = msgspec.msgpack.encode((["k", None], [2, 0], [7, None]))
    page = Pushed(0, 17, 2, 3, encode_page_columns([PageBatch(17, 5, columns, b"hi")], "c")).page("s", "p")
    assert page.records == [Record(b"hi", 17, 7, "k", "s", "p"), Record(b"", 18, 5, None, "s", "p")]
    assert (page.next_cursor, page.changes, page.plain) == ("c", 3, True)
    assert isinstance(page.next_cursor, Cursor)
    assert page.next_cursor.partition_id == "p"
    with pytest.raises(TransportError, match="no page"):
        Pushed(0, 17, 2, 3, b"x").page("s", "p")


pages = st.builds(
    Pushed,
    st.integers(0, 9),
    numbers,
    st.integers(1, MAX_PUSH_RECORDS),
    st.integers(0, 99),
    st.binary(min_size=1, max_size=60) | st.sampled_from([b"\n", b"{}\n[]\n"]),
)
ends = st.lists(st.tuples(st.integers(0, 9), st.integers(-1, MAX_SEQUENCE)))


@given(st.lists(ends | pages), st.data())
def test_frames_come_back_however_they_are_cut(frames: list[Frame], data: st.DataObject) -> None:
    """Frames in pieces of any size are the same frames."""
    text = b"".join(encode_pushed(one) if isinstance(one, Pushed) else encode_frame(one) for one in frames)
    feed, found, at = Feed(10), [], 0
    while at < len(text):
        size = data.draw(st.integers(1, 40))
        found += feed.feed(text[at : at + size])
        at += size
    assert found == frames


@pytest.mark.parametrize(
    "line",
    [
        *[b"", b"{}", b"[1]", b"[10,1]", b"[-1,1]", b"[0,-2]", b'["0",1]', b"[0,1.5]", b"{", b"\xff", b"{\xff}"],
        b'{"place":10,"first":17,"records":2,"changes":0,"bytes":9}',
        b'{"place":0,"first":-1,"records":2,"changes":0,"bytes":9}',
        b'{"place":0,"first":17,"records":0,"changes":0,"bytes":9}',
        b'{"place":0,"first":17,"records":2000,"changes":0,"bytes":9}',
        b'{"place":0,"first":17,"records":2,"changes":0,"bytes":1048577}',
        b'{"place":0,"first":17,"records":2,"changes":0,"bytes":0}',
        b'{"place":0,"first":17,"records":2,"bytes":9}',
    ],
)
def test_what_is_no_frame_is_an_error(line: bytes) -> None:
    """And not an end that somebody believes, nor a page that fills the memory."""
    with pytest.raises(TransportError, match="no frame"):
        Feed(10).feed(line + b"\n")


def test_a_line_ends() -> None:
    """A server that sends without end does not fill the memory."""
    feed = Feed(10)
    assert not feed.feed(b"1" * MAX_LINE_BYTES)
    with pytest.raises(TransportError, match="a line of more than"):
        feed.feed(b"1")
    # The longest line there is passes.
    longest = msgspec.json.encode([n for place in range(MAX_PARTITIONS) for n in (place, MAX_SEQUENCE)])
    assert len(longest) < MAX_LINE_BYTES
