"""Dead letters as bytes: what is written is read as it was, what is none is refused, nothing grows without bound."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.errors import ConfigError
from disstream.model import InnerRecord, Record
from disstream.worker.letters import (
    MAX_ERROR_CHARS,
    MAX_LETTER_BYTES,
    Identity,
    Letter,
    Mark,
    decode_letter,
    encode_letter,
    encode_mark,
    letter_line,
    may_begin_letters,
    read_line,
)

numbers = st.integers(0, 2**63 - 1)
texts = st.text(max_size=30)
letters = st.builds(
    Letter,
    app=texts,
    member_id=texts,
    stream=texts,
    partition_id=texts,
    sequence_number=numbers,
    index=numbers,
    key=st.none() | texts,
    timestamp=numbers,
    data=st.binary(max_size=200) | st.text(max_size=50).map(str.encode),
    headers=st.none() | st.dictionaries(texts, texts, max_size=3),
    error_type=texts,
    error=texts,
    attempts=numbers,
    at_ms=numbers,
    followed=st.booleans(),
    parked=st.booleans(),
)
RECORD = InnerRecord(b"7 apples", 4711, 17, "customer-7", "orders", "shardId-0000000002", 3, 9, {"a": "b"})


def letter(data: bytes = b"7 apples", error: BaseException | None = None) -> Letter:
    record = Record(data, 4711, 17, "customer-7", "orders", "shardId-0000000002")
    return Letter.of(record, app="billing", member_id="m", error=error or ValueError("no"), attempts=3, at_ms=99)


@given(letters)
def test_what_is_written_is_read(one: Letter) -> None:
    """In a stream and in a file, whatever is in it; a line of a file has one line end, at its end."""
    assert decode_letter(encode_letter(one)) == one
    line = letter_line(one)
    assert read_line(line) == one
    assert line.index(b"\n") == len(line) - 1
    assert may_begin_letters(line)
    assert all(may_begin_letters(line[:cut]) for cut in range(40))


@given(st.lists(st.builds(Identity, texts, texts, texts, numbers, numbers, numbers), max_size=5), st.booleans())
def test_marks_are_read_among_letters(settled: list[Identity], discarded: bool) -> None:
    """A mark is told from a letter in both forms, and holds what was settled."""
    text = encode_mark(settled, 5, discarded=discarded)
    for found in (decode_letter(text), read_line(text + b"\n")):
        assert isinstance(found, Mark)
        assert (list(found.letters), found.discarded, found.at_ms) == (settled, discarded, 5)


def test_a_record_becomes_a_letter() -> None:
    """Everything needed to find out why, and to send it again; the payload stays as it was."""
    one = Letter.of(RECORD, app="billing", member_id="m", error=KeyError("x"), attempts=3, at_ms=99, parked=True)
    assert one.identity == Identity("billing", "orders", "shardId-0000000002", 4711, 3, 17)
    payload = encode_letter(one)
    head, _, data = payload.partition(b"\n")
    assert data == b"7 apples"
    assert json.loads(head) == {
        "disstream_letter": 1,
        "app": "billing",
        "member_id": "m",
        "stream": "orders",
        "partition_id": "shardId-0000000002",
        "sequence_number": 4711,
        "index": 3,
        "key": "customer-7",
        "timestamp": 17,
        "headers": {"a": "b"},
        "error_type": "KeyError",
        "error": "'x'",
        "attempts": 3,
        "at_ms": 99,
        "followed": False,
        "parked": True,
        "encoding": "raw",
    }
    follower = Letter.of(RECORD, app="billing", member_id="m", error=None, attempts=0, at_ms=99)
    assert (follower.followed, follower.error_type, follower.error) == (True, "", "")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


def test_errors_are_bounded_and_can_be_written() -> None:
    """Long texts, lone surrogates, and errors that cannot tell what they are."""
    long = letter(error=ValueError("x" * 100_000))
    assert len(long.error) == MAX_ERROR_CHARS
    assert long.error.endswith("x…")
    odd = letter(error=ValueError("\ud800\x00\n"))
    assert decode_letter(encode_letter(odd)) == odd
    assert letter(error=Unspeakable()).error == "(its text cannot be had: RuntimeError)"


def test_large_payloads_are_compressed_only_if_they_must_be() -> None:
    """What fits stays readable; what does not is compressed and comes back; what does not even then is refused."""
    facts = len(encode_letter(letter(b"")))
    fits = letter(b"x" * (MAX_LETTER_BYTES - facts))
    assert len(encode_letter(fits)) == MAX_LETTER_BYTES
    packed = letter(b"x" * MAX_LETTER_BYTES)
    assert len(encode_letter(packed)) < 10_000
    assert decode_letter(encode_letter(packed)) == packed
    noise = letter(random.Random(1).randbytes(MAX_LETTER_BYTES))
    with pytest.raises(ConfigError, match=r"orders/shardId-0000000002 sequence number 4711 does not fit .*file:PATH"):
        encode_letter(noise)
    assert read_line(letter_line(noise)) == noise


def swap(payload: bytes, data: bytes) -> bytes:
    head, _, _ = payload.partition(b"\n")
    return head + b"\n" + data


def test_what_grows_too_large_is_refused() -> None:
    """A payload that unpacks to more than a record can hold is not unpacked; nor is a cut one."""
    packed = encode_letter(letter(b"x" * MAX_LETTER_BYTES))
    for data in (zlib.compress(b"x" * (MAX_LETTER_BYTES + 1)), zlib.compress(b"abc")[:-2], b"no zlib"):
        with pytest.raises(ConfigError, match="begins like a dead letter and is none"):
            decode_letter(swap(packed, data))


@pytest.mark.parametrize("read", [decode_letter, read_line])
@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"7 apples",
        b'{"a":1}\n',
        b"\xff\xfe",
        b'{"disstream_letter":1,',
        b'{"disstream_letter":1,"app":"a"}\n',
        b'{"disstream_letter":2,"app":"a"}\n',
        b'{"disstream_settled":1,"letters":5}',
        b'{"disstream_letter":1,"app":' + b"[" * 100_000,
    ],
)
def test_what_is_no_letter_is_refused(read: Callable[[bytes], object], text: bytes) -> None:
    """With an error that shows how it begins."""
    with pytest.raises(ConfigError, match=r"is no dead letter|begins like a (dead letter|mark) and is none"):
        read(text)


@given(st.binary(max_size=60), st.integers(0, 300))
def test_damaged_letters_are_refused_or_read(noise: bytes, at: int) -> None:
    """Whatever is changed in one, it is a letter or an error, and nothing else."""
    for text, read in ((encode_letter(letter()), decode_letter), (letter_line(letter()), read_line)):
        try:
            found = read(text[:at] + noise + text[at + len(noise) :])
        except ConfigError:
            continue
        assert isinstance(found, Letter | Mark)


@pytest.mark.parametrize("text", [b"order,customer\n", b"{}", b"\n", b'{"disstream_settled":1,'])
def test_files_of_something_else_are_known(text: bytes) -> None:
    """By how they begin: nobody's file is cut because it has no line end."""
    assert not may_begin_letters(text)
