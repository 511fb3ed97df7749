"""The page of a get as columns: as drawn in its docstring, whole or refused, and the list of the records in it."""

from __future__ import annotations

import copy
import itertools
import pickle
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.errors import TransportError
from disstream.model import MAX_HASH_KEY, Record
from disstream.wire import pages
from disstream.wire.pages import (
    MAX_RECORDS,
    ColumnRecords,
    PageBatch,
    decode_in_parts,
    decode_page_columns,
    encode_page_columns,
    number_of,
)
from disstream.wire.records import PageRow, encode_page, page_decoder

STREAM, PARTITION = "s", "shardId-0000000002"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
payloads = st.binary(max_size=30) | st.sampled_from([b"x" * 255, b"x" * 256, b"x" * 70_000])
rows = st.tuples(payloads, st.none() | texts.filter(bool), st.none() | st.integers(0, MAX_HASH_KEY))
Rows = list[tuple[bytes, str | None, int | None]]
Batches = list[tuple[int, Rows]]
"""When each was appended, and what is in it."""

batches = st.lists(st.tuples(st.integers(0, MAX_HASH_KEY), st.lists(rows, max_size=8)), max_size=5)


def pack(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


def page(first: int, told: Batches, cursor: str = "next") -> bytes:
    """As our server writes it."""
    sent = []
    for append_ms, stored in told:
        times = [timestamp for _, _, timestamp in stored]
        columns = (
            [key for _, key, _ in stored],
            [len(data) for data, _, _ in stored],
            None if times.count(None) == len(times) else times,
        )
        sent.append(PageBatch(first, append_ms, pack(columns), memoryview(b"".join(row[0] for row in stored))))
        first += len(stored)
    return encode_page_columns(sent, cursor)


def as_json(first: int, told: Batches, cursor: str = "next") -> bytes:
    """The same in JSON."""
    flat = [(append_ms, row) for append_ms, stored in told for row in stored]
    return encode_page(
        [
            PageRow(str(first + index), data, append_ms if timestamp is None else timestamp, "CreateTime", key)
            for index, (append_ms, (data, key, timestamp)) in enumerate(flat)
        ],
        cursor,
    )


def decoded(body: bytes) -> tuple[ColumnRecords, str]:
    return decode_page_columns(body, STREAM, PARTITION)


def test_worked_example() -> None:
    """The bytes of the docstring are the bytes that are sent."""
    lines = (pages.__doc__ or "").splitlines()
    begin = next(index for index, line in enumerate(lines) if line.startswith("Example:"))
    drawn = bytes.fromhex(next(line for line in lines[begin + 1 :] if line))
    assert page(5, [(1000, [(b"hi", "k", None)])], "c") == drawn
    records, cursor = decoded(drawn)
    assert (list(records), cursor) == ([Record(b"hi", 5, 1000, "k", STREAM, PARTITION)], "c")


@given(first=st.integers(0, MAX_HASH_KEY - 50), told=batches, cursor=texts)
def test_the_same_page_in_json(first: int, told: Batches, cursor: str) -> None:
    """Both forms are decoded to the same records and the same cursor."""
    body = page(first, told, cursor)
    records, following = decoded(body)
    expected, wanted = page_decoder(STREAM, PARTITION)(as_json(first, told, cursor))
    assert list(records) == expected
    assert following == wanted
    assert all(type(record.data) is bytes for record in records)
    assert msgspec.msgpack.decode(body)[2] == b"".join(record.data for record in expected)


@given(first=st.integers(0, 99), told=batches, begin=st.none() | st.integers(-40, 40), end=st.none() | st.integers())
def test_they_are_the_list_of_their_records(first: int, told: Batches, begin: int | None, end: int | None) -> None:
    """Everything that can be asked is as with the list."""
    records, _ = decoded(page(first, told))
    model = list(records)
    assert len(records) == len(model) == sum(len(stored) for _, stored in told)
    assert [records[i] for i in range(-len(model), len(model))] == [*model, *model]
    assert list(reversed(records)) == model[::-1]
    assert list(records[begin:end]) == model[begin:end]
    assert list(records[begin:end][1:]) == model[begin:end][1:]
    for step in (-1, 2):
        assert list(records[begin:end:step]) == model[begin:end:step]
    assert [number_of(records, i) for i in range(len(model))] == [number_of(model, i) for i in range(len(model))]
    assert records == model
    assert model == records
    assert records == tuple(model)
    assert records != [*model, Record(b"", 0)]
    assert records != 7
    assert model == [] or records != [*model[:-1], Record(b"other", -1)]
    assert repr(records) == f"ColumnRecords({model!r})"
    assert pickle.loads(pickle.dumps(records)) == copy.copy(records) == model
    for beyond in (len(model), -len(model) - 1):
        with pytest.raises(IndexError):
            records[beyond]
    with pytest.raises(TypeError):
        hash(records)


@given(told=batches, most=st.integers(1, 100))
def test_pieces(told: Batches, most: int) -> None:
    """Together they are the page; none has more payload than asked for unless it is one record; none keeps the page."""
    records, _ = decoded(page(3, told))
    pieces = list(records.pieces(most))
    assert [record for piece in pieces for record in piece] == list(records)
    for piece in pieces:
        assert len(piece) == 1 or sum(len(record.data) for record in piece) <= most
        keys = sum(len(record.key or "") for record in piece)
        assert piece.held_bytes == sum(len(record.data) for record in piece) + keys
    for piece, following in itertools.pairwise(pieces):
        assert sum(len(record.data) for record in piece) + len(following[0].data) > most


def test_what_waits_holds_one_page() -> None:
    """Some lists beside the body, and no object for a record."""
    body = page(0, [(7, [(b"x" * 100, "k", None)] * 1000)] * 10)
    tracemalloc.start()
    try:
        records, _ = decoded(body)
        kept = tracemalloc.get_traced_memory()[0]
        assert len(records) == 10_000
        assert kept < 10_000 * 90
        assert records.held_bytes >= len(body)
    finally:
        tracemalloc.stop()


def test_a_large_page_is_decoded_with_breaks() -> None:
    """After some thousand records each, and what comes in the end is the page; a wrong end is found there."""
    body = page(0, [(7, [(b"x", "k", None)] * 1_500)] * 10)
    *breaks, found = decode_in_parts(body, STREAM, PARTITION)
    assert breaks == [None] * 3
    assert found == decoded(body)
    assert [*decode_in_parts(page(0, []), STREAM, PARTITION)] == [decoded(page(0, []))]
    unequal = pack((["k"], [1, 2], None))
    good = pack(([None] * 4_000, [0] * 4_000, None))
    parts = decode_in_parts(
        encode_page_columns([PageBatch(0, 0, good, b""), PageBatch(4_000, 0, unequal, b"")], ""), "", ""
    )
    assert next(parts) is None
    with pytest.raises(TransportError, match="different lengths"):
        next(parts)


def test_batches_with_a_gap() -> None:
    """Each tells its own first number."""
    columns = pack(([None, None], [0, 0], None))
    body = encode_page_columns([PageBatch(5, 1, columns, b""), PageBatch(9, 2, columns, b"")], "")
    records, _ = decoded(body)
    assert [(r.sequence_number, r.timestamp) for r in records] == [(5, 1), (6, 1), (9, 2), (10, 2)]
    assert list(records.numbers) == [5, 6, 9, 10]


# --- what is no page ----------------------------------------------------------------------------------------------


def refused(body: bytes) -> str:
    with pytest.raises(TransportError, match="no page of") as caught:
        decoded(body)
    assert caught.value.retryable
    return str(caught.value)


@given(body=st.binary(max_size=200))
def test_random_bytes(body: bytes) -> None:
    """No bytes make anything but a page or a TransportError."""
    refused(body)


@given(told=batches, cut=st.integers(0), more=st.binary(min_size=1, max_size=9))
def test_cut_and_lengthened(told: Batches, cut: int, more: bytes) -> None:
    """A page that ends early, or goes on behind its end, is none."""
    body = page(1, told)
    refused(body[: cut % len(body)])
    refused(body + more)


@given(told=batches, at=st.integers(0), byte=st.integers(0, 255))
def test_one_wrong_byte(told: Batches, at: int, byte: int) -> None:
    """Whatever passes can be taken to its end, and all its payloads are those that were sent."""
    body = bytearray(page(1, told))
    body[at % len(body)] = byte
    try:
        records, _ = decoded(bytes(body))
    except TransportError:
        return
    found = list(records)
    assert len(found) == len(records)
    assert b"".join(record.data for record in found) == msgspec.msgpack.decode(bytes(body))[2]


GOOD_COLUMNS: dict[str, Any] = {"keys": ["k", None], "sizes": [1, 2], "times": [7, None]}
GOOD: dict[str, Any] = {"cursor": "c", "batches": [[0, 5, pack([*GOOD_COLUMNS.values()])]], "data": b"abc"}


def batch(**wrong: object) -> dict[str, Any]:
    return {"batches": [[0, 5, pack([*(GOOD_COLUMNS | wrong).values()])]]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"cursor": None},
        {"cursor": b"c"},
        {"batches": None},
        {"batches": [None]},
        {"batches": [[]]},
        {"batches": [[0, 5]]},
        {"batches": [[0, 5, b""]]},
        {"batches": [[0, 5, None]]},
        {"batches": [[0, 5, [["k"], [3], None]]]},
        {"batches": [[-1, *GOOD["batches"][0][1:]]]},
        {"batches": [["0", *GOOD["batches"][0][1:]]]},
        {"batches": [[MAX_HASH_KEY + 1, *GOOD["batches"][0][1:]]]},
        {"batches": [[0, -1, GOOD["batches"][0][2]]]},
        {"batches": [[0, None, GOOD["batches"][0][2]]]},
        {"batches": GOOD["batches"] * 2},
        {"batches": []},
        batch(keys=None),
        batch(keys=["k"]),
        batch(keys=["k"] * 3),
        batch(keys=["k", 1]),
        batch(keys=["k", b"k"]),
        batch(sizes=None),
        batch(sizes=[3]),
        batch(sizes=[1, 1]),
        batch(sizes=[1, 3]),
        batch(sizes=[4, -1]),
        batch(sizes=[1, None]),
        batch(sizes=[1, 2**64 - 1]),
        batch(times=[7]),
        batch(times=[7] * 3),
        batch(times=7),
        batch(times=["7", None]),
        batch(more=1),
        {"data": None},
        {"data": "abc"},
        {"data": b"ab"},
        {"data": b"abcd"},
        {"data": msgspec.msgpack.Ext(1, b"abc")},
        {"more": 1},
    ],
)
def test_what_is_not_of_this_form(wrong: dict[str, Any]) -> None:
    """Wrong types, columns of other lengths, sizes that are not those of the payloads."""
    assert [record.data for record in decoded(pack([*GOOD.values()]))[0]] == [b"a", b"bc"]
    refused(pack([*(GOOD | wrong).values()]))


@pytest.mark.parametrize(
    "body",
    [b"", b'{"records":[]}', b"\xc1", pack({}), pack([]), pack(None), b"\x91" * 100_000, b"\x93\xa1\xff\x90\xc4\0"],
)
def test_another_thing(body: bytes) -> None:
    """JSON, a page in a page, nesting without end, text that is none."""
    refused(body)


def array(count: int, element: bytes) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big") + element * count


MANY = 4_000_000


@pytest.mark.parametrize(
    "body",
    [
        lambda: pack(["", [[0, 0, b"\x93" + array(MANY, b"\xc0") + b"\x90\xc0"]], b""]),
        lambda: pack(["", [[0, 0, b"\x93\x90" + array(MANY, b"\0") + b"\xc0"]], b""]),
        lambda: pack(["", [[0, 0, b"\x93\x90\x90" + array(MANY, b"\xc0")]], b""]),
        lambda: b"\x93\xa0" + array(MANY, b"\xc0") + b"\xc4\0",
    ],
    ids=["keys", "sizes", "timestamps", "batches"],
)
def test_millions_of_records_are_not_made(body: Callable[[], bytes]) -> None:
    """An array that is too long is refused by its length: it would take eight times what it takes in the body."""
    sent = body()
    tracemalloc.start()
    try:
        refused(sent)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_many_batches_are_not_made() -> None:
    """Nor are they if each is short enough: all together are counted before the next one is looked at."""
    empty = pack(([None] * 50_000, [0] * 50_000, None))

    def sent(count: int) -> bytes:
        return encode_page_columns([PageBatch(n * 50_000, 0, empty, b"") for n in range(count)], "")

    assert len(decoded(sent(2))[0]) == MAX_RECORDS
    body = sent(40)
    tracemalloc.start()
    try:
        assert f"more than {MAX_RECORDS} records" in refused(body)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_lengths_that_lie() -> None:
    """An array says that it is four thousand million long, and ends at once."""
    for columns in (b"\x93\xdd\xff\xff\xff\xff", b"\x93\x90\xdd\xff\xff\xff\xff", b"\x93\x90\x90\xdd\0\0\x07\xd0"):
        refused(pack(["", [[0, 0, columns]], b""]))
    refused(b"\x93\xa0\xdd\xff\xff\xff\xff")
    refused(b"\x93\xa0\x90\xc6\xff\xff\xff\xff")
