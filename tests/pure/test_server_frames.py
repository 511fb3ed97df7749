"""The frames between the core of a server and its fronts: whatever is sent arrives, however the stream is cut."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.errors import TransportError
from disstream.server import frames
from disstream.server.frames import Frames, Head, Left, encode_frame, join_odd, split_odd

NUMBERS = st.integers(0, 2**40)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
HEADERS = st.dictionaries(TEXT, TEXT, max_size=5)
HEADS: st.SearchStrategy[Head] = st.one_of(
    st.builds(frames.Hello, NUMBERS, NUMBERS),
    st.builds(
        frames.Call,
        NUMBERS,
        TEXT,
        TEXT,
        HEADERS,
        TEXT,
        TEXT,
        st.booleans(),
        TEXT,
        NUMBERS,
        st.dictionaries(TEXT, st.binary(max_size=9), max_size=2),
    ),
    st.builds(frames.Cancel, NUMBERS),
    st.builds(frames.More, NUMBERS),
    st.builds(frames.Check, NUMBERS, HEADERS, TEXT),
    st.builds(frames.Refused, TEXT, st.integers(100, 599), TEXT),
    st.builds(frames.Left),
    st.builds(frames.Told, TEXT, st.integers(0, 50), TEXT),
    st.builds(frames.Answer, NUMBERS, st.integers(0, 599), HEADERS),
    st.builds(frames.Opening, NUMBERS, st.integers(100, 599), HEADERS),
    st.builds(frames.Piece, NUMBERS),
    st.builds(frames.Ended, NUMBERS),
    st.builds(frames.Drain),
    st.builds(frames.Beat),
    st.builds(
        frames.Settings,
        NUMBERS,
        st.integers(0, 50),
        *[NUMBERS] * 4,
        *[st.floats(0, 1e6)] * 4,
        st.booleans(),
        st.none() | TEXT,
        st.none() | TEXT,
    ),
)


@given(st.lists(st.tuples(HEADS, st.binary(max_size=300)), max_size=8), st.integers(0, 2**32))
def test_frames_arrive_however_the_stream_is_cut(sent: list[tuple[Head, bytes]], seed: int) -> None:
    """All of them, in order, with their bodies; each as soon as its last byte is there."""
    stream = b"".join(encode_frame(head, body) + body for head, body in sent)
    dice = random.Random(seed)
    cutter = Frames()
    found: list[tuple[Head, bytes]] = []
    at = 0
    while at < len(stream):
        size = dice.choice([1, 2, 7, 64, 1000])
        found += cutter.feed(stream[at : at + size])
        cutter.check()
        at += size
    assert found == sent


def test_the_example() -> None:
    """The bytes that the description shows."""
    assert encode_frame(Left()) == bytes.fromhex("00000002 00000000 9107")


@given(st.binary(max_size=200))
def test_anything_else_is_refused_or_waits(stream: bytes) -> None:
    """What is no stream of frames ends in a TransportError, if it ends, and never in another error."""
    cutter = Frames()
    try:
        cutter.feed(stream)
    except TransportError:
        return
    cutter.check()


@pytest.mark.parametrize("start", ["7fffffff 00000000", "00000002 7fffffff"])
def test_sizes_that_cannot_be_are_not_waited_for(start: str) -> None:
    """Neither head nor body of gigabytes."""
    with pytest.raises(TransportError, match="bytes between"):
        Frames().feed(bytes.fromhex(start))


@given(st.dictionaries(TEXT, st.binary(max_size=20), max_size=6))
def test_headers_of_any_bytes_pass(sent: dict[str, bytes]) -> None:
    """aiohttp gives bytes that are no UTF-8 as lone surrogates, which no frame could hold as text."""
    headers = {name: value.decode("utf-8", "surrogateescape") for name, value in sent.items()}
    text, odd = split_odd(headers)
    encode_frame(frames.Check(1, text, "", odd))
    assert join_odd(text, odd) == headers
