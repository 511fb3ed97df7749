"""Bodies in protobuf say what bodies in JSON say, byte for byte as official clients write and read them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.errors import ApiError, TransportError
from disstream.model import MAX_HASH_KEY, NewRecord, PutResult, Record
from disstream.wire.messages import PutRecordsResult
from disstream.wire.partitioning import partition_id
from disstream.wire.protobuf import (
    decode_page_protobuf,
    decode_put_answer_protobuf,
    decode_put_protobuf,
    encode_page_protobuf,
    encode_put_answer_protobuf,
    encode_put_protobuf,
)
from disstream.wire.records import (
    PageRow,
    PutFailure,
    decode_put,
    decode_put_answer,
    encode_page,
    encode_put,
    encode_put_answer,
    page_decoder,
)

# As the classic Python client's generated classes write them; the third record of the put has an extendedInfo.
PUT = bytes.fromhex(
    "0a066f7264657273120c1a0200ff2a066b65792d3432121e1a003212736861726449642d30303030303030303031e80180d095ffbc31"
    "12151a06e58886e58cba2201303a084201664a01645801f20100"
)
PUT_ANSWER = bytes.fromhex(
    "a80101b20119ba0112736861726449642d30303030303030303031c2010137b2012dca01084449532e34333033d2011f4578636565646564"
    "207472616666696320636f6e74726f6c206c696d69742e"
)
PAGE = bytes.fromhex(
    "720263328201218a01016b920101379a010100d80180d095ffbc31e2010a43726561746554696d65820117920101389a0100d80100e2010a"
    "43726561746554696d65"
)

names = st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
new_records = st.builds(
    NewRecord, st.binary(max_size=300), names, names, names, st.none() | st.integers(0, MAX_HASH_KEY)
)


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value % 2**64)
    return varint(number << 3 | 2) + varint(len(value)) + value


def put_of(*entries: bytes) -> bytes:
    return field(1, b"s") + b"".join(field(2, entry) for entry in entries)


def code_of(body: bytes, *args: int) -> str:
    with pytest.raises(ApiError) as caught:
        decode_put_protobuf(body, *args)
    assert caught.value.status == 400
    return caught.value.code


def test_an_official_put_is_read() -> None:
    """What an official client writes is read field by field; the empty stream id and extendedInfo count for nothing."""
    put = decode_put_protobuf(PUT)
    assert (put.stream_name, put.stream_id) == ("orders", None)
    assert put.records == [
        NewRecord(b"\x00\xff", key="key-42"),
        NewRecord(b"", partition_id="shardId-0000000001", timestamp=1_700_000_000_000),
        NewRecord("分区".encode(), explicit_hash_key="0"),
    ]


def test_answers_are_those_that_official_clients_read() -> None:
    """Answer and page are the very bytes that an official client's classes give for the same content."""
    failure = PutFailure("DIS.4303", "Exceeded traffic control limit.")
    assert encode_put_answer_protobuf([1, 1], {1: 7}, {1: failure}) == PUT_ANSWER
    rows = [
        PageRow("7", b"\x00", 1_700_000_000_000, "CreateTime", "k"),
        PageRow("8", b"", 0, "CreateTime"),
    ]
    assert encode_page_protobuf(rows, "c2") == PAGE
    stored, failed = decode_put_answer_protobuf(PUT_ANSWER)
    assert stored == PutResult("shardId-0000000001", 7)
    assert failed == PutResult(None, None, failure.code, failure.message)
    records = [Record(b"\x00", 7, 1_700_000_000_000, "k", "s", "p"), Record(b"", 8, 0, None, "s", "p")]
    assert decode_page_protobuf(PAGE, "s", "p") == (records, "c2")


def test_what_official_parsers_require_is_there() -> None:
    """failedRecordCount and nextShardIterator stand in the answer even if they are 0 and empty; so do both names."""
    assert encode_put_answer_protobuf([], {}) == field(21, 0)
    assert encode_page_protobuf([], "") == field(14, b"")
    assert encode_put_protobuf("s", []) == field(1, b"s") + field(30, b"")


def test_an_answer_lacks_nothing_that_is_required() -> None:
    """An answer that lost its body, or its end, is no answer: it would read as one that holds no records."""
    decoders: list[tuple[Callable[[bytes], object], tuple[bytes, ...]]] = [
        (decode_put_answer_protobuf, (b"", field(22, field(24, b"7")))),
        (lambda body: decode_page_protobuf(body, "s", "p"), (b"", field(16, field(18, b"7") + field(19, b"x")))),
    ]
    for decode, bodies in decoders:
        for body in bodies:
            with pytest.raises(TransportError, match="in protobuf") as caught:
                decode(body)
            assert caught.value.outcome_unknown


@given(name=st.text(st.characters(exclude_categories=["Cs"])), records=st.lists(new_records, max_size=5))
def test_a_put_says_the_same_in_both_forms(name: str, records: list[NewRecord]) -> None:
    """A put reads back as it was written, and as its JSON does, empty strings apart, which mean nothing in either."""
    read = decode_put_protobuf(encode_put_protobuf(name, records, "id"))
    other = decode_put(encode_put(name, records, "id"))
    assert (read.stream_name or "", read.stream_id) == (other.stream_name, other.stream_id)
    assert list(map(told, read.records)) == list(map(told, other.records))


def told(record: NewRecord) -> tuple[object, ...]:
    """All that a record says: of JSON, records that say little are of a class of their own."""
    return record.data, record.key, record.partition_id, record.explicit_hash_key, record.timestamp


@given(lanes=st.lists(st.integers(0, 2), max_size=8), failing=st.sets(st.integers(0, 7)))
def test_an_answer_says_the_same_in_both_forms(lanes: list[int], failing: set[int]) -> None:
    """The answer to a put decodes to equal results from both forms, whatever failed."""
    failures = {i: PutFailure("DIS.4303", "no") for i in failing if i < len(lanes)}
    first = {lane: 10 * lane for lane in lanes}
    in_protobuf = encode_put_answer_protobuf(lanes, first, failures)
    assert decode_put_answer_protobuf(in_protobuf) == decode_put_answer(encode_put_answer(lanes, first, failures))


@given(
    st.lists(
        st.tuples(st.binary(max_size=50), st.integers(0, MAX_HASH_KEY), st.integers(0, MAX_HASH_KEY), names),
        max_size=5,
    )
)
def test_a_page_says_the_same_in_both_forms(given_rows: list[tuple[bytes, int, int, str | None]]) -> None:
    """A page decodes to equal records from both forms."""
    rows = [PageRow(str(number), data, time, "CreateTime", key) for data, number, time, key in given_rows]
    page = decode_page_protobuf(encode_page_protobuf(rows, "next"), "s", "p")
    assert page == page_decoder("s", "p")(encode_page(rows, "next"))


def test_bytes_of_any_kind_are_sent() -> None:
    """Payloads that are bytearrays or views are written as the bytes they hold."""
    records: list[Any] = [NewRecord(kind(b"ab")) for kind in (bytearray, memoryview)]  # type: ignore[arg-type]
    assert [r.data for r in decode_put_protobuf(encode_put_protobuf("s", records)).records] == [b"ab", b"ab"]


@pytest.mark.parametrize("fields", [{"key": "\ud800"}, {"timestamp": 2**63}, {"key": 5}, {"timestamp": "x"}])
def test_what_cannot_be_written(fields: dict[str, Any]) -> None:
    """A record that protobuf has no form for is a TypeError or a ValueError, as with JSON."""
    with pytest.raises((TypeError, ValueError)):
        encode_put_protobuf("s", [NewRecord(b"", **fields)])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"\xff", "DIS.4300"),
        (b'{"stream_name":"s"}', "DIS.4300"),
        (PUT[:-1], "DIS.4300"),
        (PUT[:-4], "DIS.4300"),
        (b"\x0a\xff\xff\xff\xff\x0f", "DIS.4300"),
        (b"\x0b" * 5_000, "DIS.4300"),
        (put_of(b""), "DIS.4200"),
        (put_of(field(5, b"k")), "DIS.4200"),
        (put_of(field(3, b""), field(3, b"") + field(29, -1)), "DIS.4200"),
        (put_of(field(3, b"") + field(5, b"\xff")), "DIS.4200"),
        (put_of(field(3, b"") + field(6, b"\xff")), "DIS.4200"),
        (put_of(field(3, b"") + field(4, b"\xff")), "DIS.4200"),
        (field(1, b"\xff"), "DIS.4200"),
        (field(30, b"\xff"), "DIS.4200"),
    ],
)
def test_what_is_no_put(body: bytes, code: str) -> None:
    """DIS.4300 for what is no such message; DIS.4200 for a record without data, bad text, a time before 1970."""
    assert code_of(body) == code


def test_a_bad_record_is_named() -> None:
    """The refusal of a bad record says which one it is."""
    with pytest.raises(ApiError, match=r"timestamp is -7.*records\[1\]"):
        decode_put_protobuf(put_of(field(3, b""), field(3, b"") + field(29, -7)))


def test_what_is_unknown_is_passed_over() -> None:
    """Unknown fields of every wire type are ignored, in the message and in its records; so is order."""
    unknown = field(99, 5) + field(98, b"x") + varint(97 << 3 | 1) + b"12345678" + varint(96 << 3 | 5) + b"1234"
    unknown += varint(95 << 3 | 3) + field(2, b"not a record") + varint(95 << 3 | 4)
    put = decode_put_protobuf(
        unknown + field(2, unknown + field(3, b"d") + unknown) + field(30, b"id") + field(1, b"s")
    )
    assert (put.stream_name, put.stream_id) == ("s", "id")
    assert list(map(told, put.records)) == [told(NewRecord(b"d"))]


def test_records_are_counted_before_they_cost() -> None:
    """As many records as allowed pass, one more is refused, also if it hides behind an overlong tag."""
    record = field(2, field(3, b""))
    assert len(decode_put_protobuf(field(1, b"s") + record * 50, 50).records) == 50
    assert len(decode_put_protobuf(field(1, b"s") + field(2, field(3, b"\x12" * 5_000)), 50).records) == 1
    overlong = b"\x92\x00" + record[1:]
    for body in (record * 53, overlong * 53, (b"\x92\x80\x00" + record[1:]) * 53):
        assert code_of(body, 50) == "DIS.4200"


BOMB = """
import resource
from disstream.errors import ApiError
from disstream.wire.protobuf import decode_put_protobuf
bombs = (
    b"\\x12\\x00" * 6_000_000,
    b"\\x92\\x00\\x00" * 4_000_000,
    b"\\x12\\x00" * 50_000 + b"\\x98\\x03\\x01" * 3_900_000,
)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for bomb in bombs:
    try:
        decode_put_protobuf(bomb)
    except ApiError as error:
        assert error.code == "DIS.4200", error
    else:
        raise AssertionError
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_many_small_records_do_not_fill_the_memory() -> None:
    """12 MB of empty records, which would become 600 MB, are refused within 48 MB."""
    told = subprocess.run([sys.executable, "-c", BOMB], check=True, capture_output=True, text=True)
    assert int(told.stdout) < 48 * 1024


mutations = st.tuples(st.integers(0, 10_000), st.binary(max_size=4), st.integers(0, 4))


def _mutated(body: bytes, changes: list[tuple[int, bytes, int]]) -> bytes:
    for at, new, cut in changes:
        at %= len(body) + 1
        body = body[:at] + new + body[at + cut :]
    return body


@given(st.binary(max_size=200) | st.lists(mutations, max_size=4).map(lambda changes: _mutated(PUT, changes)))
def test_arbitrary_puts(body: bytes) -> None:
    """Arbitrary bytes, and puts that were damaged, are a put of proper values or an ApiError, never anything else."""
    try:
        records = decode_put_protobuf(body).records
        code = ""
    except ApiError as error:
        records, code = [], error.code
    assert code in ("", "DIS.4200", "DIS.4300")
    assert list(map(told, decode_put(encode_put("s", records)).records)) == list(map(told, records))


@given(st.binary(max_size=200), st.lists(mutations, max_size=4))
def test_arbitrary_answers(noise: bytes, changes: list[tuple[int, bytes, int]]) -> None:
    """Arbitrary bytes as an answer, and damaged answers, are results or a TransportError of unknown outcome."""
    decoders: list[tuple[Callable[[bytes], object], bytes]] = [
        (decode_put_answer_protobuf, PUT_ANSWER),
        (lambda body: decode_page_protobuf(body, "s", "p"), PAGE),
    ]
    for decode, proper in decoders:
        for body in (noise, _mutated(proper, changes)):
            unknown = True
            try:
                decode(body)
            except TransportError as error:
                unknown = error.outcome_unknown
            assert unknown


@given(
    lanes=st.lists(st.integers(0, 3), min_size=1, max_size=30),
    starts=st.lists(st.sampled_from([0, 7, 98, 990, 998, 9_995, 123_456, 999_990, 10**18]), min_size=4, max_size=4),
)
def test_an_answer_by_hand_is_that_of_the_library(lanes: list[int], starts: list[int]) -> None:
    """What is written without the library, because all is stored, is what the library reads, and would write."""
    first = {lane: starts[lane] for lane in lanes}
    body = encode_put_answer_protobuf(lanes, first)
    parsed = PutRecordsResult.FromString(body)
    assert parsed.IsInitialized()
    assert parsed.SerializeToString() == body
    following = dict(first)
    for lane, entry in zip(lanes, parsed.records, strict=True):
        assert (entry.shardId, entry.sequenceNumber) == (partition_id(lane), str(following[lane]))
        following[lane] += 1
