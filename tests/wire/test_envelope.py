"""Proves that envelopes are read back as they were written, and that nothing else is taken for one."""

from __future__ import annotations

import pickle
import tracemalloc
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.model import InnerRecord, NewRecord, Record
from disstream.wire.envelope import MAGIC, MAX_RECORDS, OVERHEAD, may_hold_envelopes, unwrap, wrap
from disstream.wire.records import PageRow, encode_page, page_decoder

PRODUCER = bytes(range(16))
EXAMPLE = bytes.fromhex("8e38e38e38e38e38e38e38e3 e1521f11 01 96 92c4026869c402796f 92a16ba16c c0c0c0c0")

texts = st.text(max_size=20)
rows = st.builds(
    NewRecord,
    st.binary(max_size=50),
    st.none() | texts,
    timestamp=st.none() | st.integers(0, 2**63 - 1),
    headers=st.none() | st.dictionaries(texts, texts, min_size=1, max_size=3),
)


def sealed(body: object, version: int = 1) -> bytes:
    """A payload with whatever body, and a good checksum."""
    rest = bytes((version,)) + (body if isinstance(body, bytes) else msgspec.msgpack.encode(body))
    return MAGIC + zlib.crc32(rest).to_bytes(4, "big") + rest


@given(st.lists(rows, min_size=1, max_size=20), st.integers(0, 2**60), st.booleans(), st.booleans())
def test_what_was_wrapped_comes_back(given_rows: list[NewRecord], first: int, consecutive: bool, known: bool) -> None:
    """Payloads, keys, headers, timestamps, identity and order; and the same records always make the same bytes."""
    step = 1 if consecutive else 3
    numbers = range(first, first + step * len(given_rows), step)
    payload = wrap(given_rows, PRODUCER if known else None, numbers if known else ())
    assert payload == wrap(given_rows, PRODUCER if known else None, list(numbers) if known else ())
    found = unwrap([Record(payload, 7, 1_000, "wire key", "s", "p")])
    assert [(r.data, r.key, r.headers, r.index) for r in found] == [
        (row.data, row.key, row.headers, i) for i, row in enumerate(given_rows)
    ]
    assert [r.timestamp for r in found] == [1_000 if r.timestamp is None else r.timestamp for r in given_rows]
    assert {(r.sequence_number, r.stream, r.partition_id, r.count) for r in found} == {(7, "s", "p", len(given_rows))}
    assert [r.number for r in found] == (list(numbers) if known else [None] * len(given_rows))
    assert {r.producer_id for r in found} == {PRODUCER.hex() if known else None}


def test_the_example_is_the_format() -> None:
    """The bytes that the documentation shows."""
    assert wrap([NewRecord(b"hi", "k"), NewRecord(b"yo", "l")]) == EXAMPLE
    assert [(r.data, r.key) for r in unwrap([Record(EXAMPLE, 0)])] == [(b"hi", "k"), (b"yo", "l")]


@given(st.binary(max_size=30), st.text(max_size=10), st.integers(0, 2**63 - 1))
def test_an_envelope_of_one_adds_no_more_than_it_says(data: bytes, key: str, number: int) -> None:
    """What is checked before a record is accepted holds when it is sent."""
    row = NewRecord(data, key, timestamp=2**63 - 1)
    assert len(wrap([row], PRODUCER, [number])) <= len(data) + len(key.encode()) + OVERHEAD


@given(st.integers(0, len(EXAMPLE) - 1), st.integers(0, 7))
def test_a_flipped_bit_is_noticed(place: int, bit: int) -> None:
    """Whichever it is: the record comes as it is, and is told if it still looks like an envelope."""
    damaged = bytearray(EXAMPLE)
    damaged[place] ^= 1 << bit
    record = Record(bytes(damaged), 3)
    told: list[Record] = []
    assert unwrap([record], told.append) == [record]
    assert told == ([record] if record.data.startswith(MAGIC) else [])


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"hi",
        MAGIC,
        MAGIC + b"\0\0\0\0",
        EXAMPLE[:-1],
        EXAMPLE + b"\0",
        sealed([[b"a"]], version=2),
        sealed(b""),
        sealed({"payloads": [b"a"]}),
        sealed([[]]),
        sealed([["text"]]),
        sealed([[b"a"], ["k", "l"]]),
        sealed([[b"a"], [7]]),
        sealed([[b"a"], None, b"short", 1]),
        sealed([[b"a"], None, PRODUCER]),
        sealed([[b"a", b"b"], None, PRODUCER, [1]]),
        sealed([[b"a"], None, None, None, [1, 2]]),
        sealed([[b"a"], None, None, None, None, [{"a": 1}]]),
        sealed([[b""] * (MAX_RECORDS + 1)]),
        sealed(b"\x91\xdd\xff\xff\xff\xff"),
        sealed(b"\x96\xdd\x00\x00\x27\x10"),
        sealed(b"\xc1"),
        sealed(b"\x91" * 100_000),
        sealed(b"\x97\x91\xc4\x00" + b"\xc0" * 5 + b"\x91" * 100_000),
        sealed(b"\x92\x91\xc4\x00\x91\xa1\xff"),
        sealed(b"\x92\x91\xc4\x00\xa1\xff"),
    ],
)
def test_what_is_no_envelope_stays_what_it_is(payload: bytes) -> None:
    """Truncated, of another version, with arrays of other lengths, with counts that lie: never an error."""
    record = Record(payload, 3)
    told: list[Record] = []
    assert unwrap([record], told.append) == [record]
    assert len(told) == payload.startswith(MAGIC)


@given(st.binary(max_size=40), st.binary(max_size=4), st.integers(0, 100))
def test_no_body_makes_an_error(made_up: bytes, patch: bytes, at: int) -> None:
    """Whatever stands behind a good checksum: random bytes, or a real body that somebody changed."""
    whole = wrap([NewRecord(b"a", "k", timestamp=1, headers={"n": "v"}), NewRecord(b"b")], PRODUCER, [1, 5])[17:]
    for body in (made_up, whole[:at] + patch + whole[at + len(patch) :], whole[: -1 - at]):
        found = unwrap([Record(sealed(body), 3)])
        assert found
        assert all(isinstance(record.data, bytes) and record.index < record.count for record in found)


def test_a_count_that_lies_takes_no_memory() -> None:
    """An array of four thousand million elements is refused before any is made."""
    record = Record(sealed(b"\x91\xdd\xff\xff\xff\xff"), 3)
    tracemalloc.start()
    unwrap([record])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


def test_readers_pass_over_what_later_versions_append() -> None:
    """An element behind those that are known changes nothing."""
    (record,) = unwrap([Record(sealed([[b"a"], ["k"], None, None, None, None, {"new": [1]}]), 3)])
    assert (record.data, record.key) == (b"a", "k")


@pytest.mark.parametrize("size", [0, 1, 2, 3, 100])
def test_a_page_shows_whether_it_holds_envelopes(size: int) -> None:
    """Whatever stands before them, in both forms of page; and random payloads do not look like one."""
    plain = [PageRow(str(i), bytes([i]) * size, 1) for i in range(10)]
    assert not may_hold_envelopes(encode_page(plain, "cursor"), base64=True)
    page = encode_page([*plain, PageRow("10", EXAMPLE, 1, partition_key="k")], "cursor")
    assert may_hold_envelopes(page, base64=True)
    assert may_hold_envelopes(b"\x00" * size + EXAMPLE, base64=False)
    assert not may_hold_envelopes(EXAMPLE[1:], base64=False)


def test_inner_records_are_values() -> None:
    """Equal by what they hold, not equal to the record of the service, and pickled whole."""
    first, second = unwrap([Record(EXAMPLE, 3)])
    again, _ = unwrap([Record(EXAMPLE, 3)])
    assert first == again
    assert hash(first) == hash(again)
    assert first != second
    assert first != Record(b"hi", 3, key="k")
    assert pickle.loads(pickle.dumps(first)) == first
    assert isinstance(first, InnerRecord)
    plain = Record(b"hi", 3)
    assert (plain.index, plain.count, plain.headers, plain.producer_id, plain.number) == (0, 1, None, None, None)


def test_a_page_cannot_give_a_record_what_only_envelopes_hold() -> None:
    """Fields of these names in the answer of a service mean nothing."""
    body = (
        b'{"records":[{"sequence_number":"1","data":"","headers":7,"index":"x","count":0}],"next_partition_cursor":""}'
    )
    (record,), _ = page_decoder("s", "p")(body)
    assert (record.headers, record.index, record.count) == (None, 0, 1)
