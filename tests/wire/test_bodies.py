"""Golden bodies: the exact JSON on the wire, in both directions."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.errors import ApiError, NotFoundError, ServerFault, ThrottledError, TransportError
from disstream.model import HashRange, NewRecord, PartitionInfo, SequenceRange, StreamInfo, StreamSummary
from disstream.wire.body import decode_body
from disstream.wire.errors import ERRORS, api_error, decode_error, encode_error, sequence_out_of_range, stream_not_found
from disstream.wire.http import Response
from disstream.wire.protobuf import decode_put_answer_protobuf, encode_put_answer_protobuf
from disstream.wire.records import (
    PageRow,
    PutFailure,
    PutRequest,
    SentRecord,
    _put_decoder,
    decode_failed_count,
    decode_put,
    decode_put_answer,
    encode_page,
    encode_put,
    encode_put_answer,
    page_decoder,
)
from disstream.wire.streams import (
    CreateStream,
    CsvProperties,
    Tag,
    decode_create,
    decode_describe,
    decode_list,
    encode_create,
    encode_describe,
    encode_list,
)


def test_put_request() -> None:
    """The body of a put: base64 data, absent fields left out."""
    body = encode_put("s", [NewRecord(b"hi", key="k"), NewRecord(b"", partition_id="0", timestamp=5)])
    assert json.loads(body) == {
        "stream_name": "s",
        "records": [{"data": "aGk=", "partition_key": "k"}, {"data": "", "partition_id": "0", "timestamp": 5}],
    }
    told = decode_put(body)
    assert told.records[0].data == b"hi"
    assert told.records[1].timestamp == 5


def test_put_request_as_official_clients_send_it() -> None:
    """Empty strings, nulls and keys of other versions are let through."""
    told = decode_put(
        b'{"stream_name":"","stream_id":"abc","x":1,"records":[{"data":"aGk=","partition_key":null,"partition_id":"","y":2}]}'
    )
    assert isinstance(told, PutRequest)
    assert (told.stream_name, told.stream_id, told.records[0].key, told.records[0].partition_id) == (
        "",
        "abc",
        None,
        "",
    )


def test_headers_are_no_field_of_a_request() -> None:
    """What `NewRecord` keeps for envelopes is passed over, like any field that the API does not have."""
    for value in (b"5", b'{"a":"b"}', b"null"):
        (record,) = decode_put(b'{"records":[{"data":"aGk=","(headers)":%s,"headers":5}]}' % value).records
        assert record.headers is None
    fields = [field.encode_name for field in msgspec.structs.fields(NewRecord)]
    assert fields == [*(field.encode_name for field in msgspec.structs.fields(SentRecord)), "(headers)"]


_FIELDS = ["data", "partition_key", "partition_id", "explicit_hash_key", "timestamp", "(headers)", "key", "Data"]
_VALUES = [
    *('"YQ=="', '""', "null", '"YQ"', '"_-=="', "1", "-1", "1.0", "9223372036854775808", "{}", "[]", "true", "01"),
    *(r'"\ud800"', r'"\udc00\ud800"', r'"\u0000"', '"a\nb"', '"é"', '{"a":', "9" * 5000),
]


def _objects(names: list[str], values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    fields = st.lists(st.tuples(st.sampled_from(names), values), max_size=4)
    return fields.map(lambda told: "{" + ",".join(f'"{name}":{value}' for name, value in told) + "}")


_records = st.lists(
    st.sampled_from(['{"data":"YQ=="}', '{"data":"","partition_key":"k"}'])
    | _objects(_FIELDS, st.sampled_from(_VALUES)),
    max_size=4,
).map(lambda records: f"[{','.join(records)}]")
_puts = _objects(["records", "records", "stream_name", "stream_id", "x"], _records | st.sampled_from(_VALUES))


@given(_puts, st.sampled_from(["", " ", ",", "x"]), st.booleans())
def test_plain_records_are_read_as_any_others(text: str, behind: str, damaged: bool) -> None:
    """Whatever is sent, the fast way accepts, reads and refuses it as the decoder of all records does."""
    body = (text + behind).encode()
    if damaged:
        body = body.replace(b"\xc3", b"").replace(b'"}', b'"', 1)
    assert _read(decode_put, body) == _read(lambda body: decode_body(_put_decoder, body), body)


def _read(decode: Callable[[bytes], Any], body: bytes) -> object:
    try:
        put = decode(body)
    except ApiError as error:
        return error.code, error.status, error.message
    return put.stream_name, put.stream_id, [(r.data, r.key, r.partition_id, r.timestamp) for r in put.records]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "DIS.4300"),
        (b"hello", "DIS.4300"),
        (b"\xff", "DIS.4300"),
        (b'{"records":[', "DIS.4300"),
        (b'{"stream_name": 5, oops', "DIS.4300"),
        (b"[" * 100_000, "DIS.4300"),
        (b"[]", "DIS.4200"),
        (b"null", "DIS.4200"),
        (b"{}", "DIS.4200"),
        (b'{"stream_name":5,"records":[]}', "DIS.4200"),
        (b'{"records":[{}]}', "DIS.4200"),
        (b'{"records":[{"data":1}]}', "DIS.4200"),
        (b'{"records":[{"data":"a"}]}', "DIS.4200"),
        (b'{"records":[{"data":"aGk=","partition_key":5}]}', "DIS.4200"),
        (b'{"records":[{"data":"aGk=","timestamp":"5"}]}', "DIS.4200"),
    ],
)
def test_bad_put_requests(body: bytes, code: str) -> None:
    """Not JSON is DIS.4300, even behind a wrong type; JSON of the wrong shape is DIS.4200."""
    with pytest.raises(ApiError) as caught:
        decode_put(body)
    assert caught.value.code == code


def test_put_answer_of_one_partition() -> None:
    """The short form for one partition is the same JSON as the general one."""
    body = encode_put_answer([3, 3], {3: 9})
    assert json.loads(body) == {
        "failed_record_count": 0,
        "records": [
            {"partition_id": "shardId-0000000003", "sequence_number": "9"},
            {"partition_id": "shardId-0000000003", "sequence_number": "10"},
        ],
    }


def test_put_answer_with_failures() -> None:
    """A failed record has no sequence number and takes none; the client reads back what the server wrote."""
    body = encode_put_answer([0, 1, 0, 1], {0: 4, 1: 7}, {3: PutFailure("DIS.4303", "busy")})
    assert json.loads(body) == {
        "failed_record_count": 1,
        "records": [
            {"partition_id": "shardId-0000000000", "sequence_number": "4"},
            {"partition_id": "shardId-0000000001", "sequence_number": "7"},
            {"partition_id": "shardId-0000000000", "sequence_number": "5"},
            {"error_code": "DIS.4303", "error_message": "busy"},
        ],
    }
    results = decode_put_answer(body)
    assert [r.sequence_number for r in results] == [4, 7, 5, None]
    assert [i for i, _ in results.failed] == [3]
    assert decode_failed_count(body) == 1


def test_put_answer_of_runs() -> None:
    """Records of a partition whose numbers are not consecutive are told run by run, in either form of the body."""
    lanes, first, runs = [7, 7, 9, 8, 9, 8], {7: 4, 8: 90, 9: -1}, {7: 0, 8: 0, 9: 2}
    failures = {4: PutFailure("DIS.4303", "busy")}
    told = decode_put_answer(encode_put_answer(lanes, first, failures, runs))
    places = [(r.partition_id, r.sequence_number) for r in told]
    zero, two = "shardId-0000000000", "shardId-0000000002"
    assert places == [(zero, 4), (zero, 5), (two, -1), (zero, 90), (None, None), (zero, 91)]
    assert decode_put_answer_protobuf(encode_put_answer_protobuf(lanes, first, failures, runs)) == told
    assert encode_put_answer([5, 5], {5: 3}, None, {5: 2}) == encode_put_answer([2, 2], {2: 3})


def test_page() -> None:
    """A page has string numbers, and no partition_key where there is none."""
    rows = [PageRow("5", b"hi", 17, "CreateTime", "k"), PageRow("6", b"", 18, "CreateTime")]
    body = encode_page(rows, "next")
    assert json.loads(body) == {
        "records": [
            {
                "sequence_number": "5",
                "data": "aGk=",
                "timestamp": 17,
                "timestamp_type": "CreateTime",
                "partition_key": "k",
            },
            {"sequence_number": "6", "data": "", "timestamp": 18, "timestamp_type": "CreateTime"},
        ],
        "next_partition_cursor": "next",
    }
    records, following = page_decoder("s", "shardId-0000000000")(body)
    assert following == "next"
    assert [(r.sequence_number, r.data, r.key, r.stream) for r in records] == [
        (5, b"hi", "k", "s"),
        (6, b"", None, "s"),
    ]


def test_answers_that_are_none() -> None:
    """A 2xx answer that cannot be read leaves the outcome unknown."""
    with pytest.raises(TransportError) as caught:
        decode_put_answer(b"<html>")
    assert caught.value.outcome_unknown


def test_create() -> None:
    """A create request carries what is set and nothing else."""
    request = CreateStream(
        stream_name="s", partition_count=2, tags=[Tag("a", "b")], csv_properties=CsvProperties(";"), data_duration=48
    )
    assert json.loads(encode_create(request)) == {
        "stream_name": "s",
        "partition_count": 2,
        "data_duration": 48,
        "csv_properties": {"delimiter": ";"},
        "tags": [{"key": "a", "value": "b"}],
    }
    assert decode_create(encode_create(request)) == request


def test_describe() -> None:
    """A description: ranges as text, no keys for what a stream has not; the client reads the same values."""
    partition = PartitionInfo(
        partition_id="shardId-0000000000", hash_range=HashRange(0, 2**63 - 1), sequence_range=SequenceRange(3, 9)
    )
    info = StreamInfo(
        name="s",
        stream_id="i",
        status="RUNNING",
        create_time=1,
        last_modified_time=2,
        tags={"a": "b"},
        data_schema="{}",
    )
    body = encode_describe(info, [partition], has_more=True)
    told = json.loads(body)
    assert told["partitions"] == [
        {
            "status": "ACTIVE",
            "partition_id": "shardId-0000000000",
            "hash_range": "[0 : 9223372036854775807]",
            "sequence_number_range": "[3 : 9]",
        }
    ]
    assert told["auto_scale_enabled"] is False
    assert told["update_partition_counts"] == []
    assert told["has_more_partitions"] is True
    assert "compression_format" not in told
    read, more = decode_describe(body)
    assert more
    assert read.partitions == (partition,)
    assert (read.name, read.stream_id, read.tags, read.data_schema) == ("s", "i", {"a": "b"}, "{}")


def test_list() -> None:
    """A list names streams twice, as names and as details, in the same order."""
    page = [StreamSummary(name="a", stream_id="1", status="RUNNING", partition_count=2), StreamSummary(name="b")]
    body = encode_list(page, total=3, has_more=True)
    told = json.loads(body)
    assert (told["total_number"], told["stream_names"], told["has_more_streams"]) == (3, ["a", "b"], True)
    read = decode_list(body)
    assert (read.streams, read.total, read.has_more) == (page, 3, True)


def test_list_of_names_only() -> None:
    """A service that sends only names gives streams that have only names."""
    assert decode_list(b'{"stream_names":["a"],"total_number":"1"}').streams == [StreamSummary(name="a")]


@pytest.mark.parametrize("code", ERRORS)
def test_error_bodies(code: str) -> None:
    """Every code has all four keys and comes back as the same class with the same words."""
    error = api_error(code, "[x]")
    body = encode_error(error)
    told = json.loads(body)
    assert told["error_code"] == told["errorCode"] == code
    assert told["error_msg"] == told["message"] == error.message
    read = decode_error(Response(status=error.status, headers={"x-request-id": "r"}, body=body))
    assert type(read) is type(error)
    assert (read.code, read.message, read.status, read.request_id) == (code, error.message, error.status, "r")


def test_messages_that_are_parsed() -> None:
    """The two messages that a client takes apart have their exact shape."""
    assert stream_not_found("s", "p").message == "Stream does not exist. [s][p]"
    assert sequence_out_of_range(5280, 0, 617).message == (
        "Sequence_number out of range. [5280][ should be within ][0][ ][617]"
    )


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (400, b'{"errorCode":"DIS.4301","message":"m"}', NotFoundError, "DIS.4301"),
        (429, b"slow down", ThrottledError, ""),
        (502, b"<html>bad gateway</html>", ServerFault, ""),
        (400, b'{"error_code":"DIS.5250","error_msg":"m"}', ServerFault, "DIS.5250"),
        (500, b"", ServerFault, ""),
    ],
)
def test_foreign_errors(status: int, body: bytes, kind: type[ApiError], code: str) -> None:
    """Errors of gateways and other spellings find their class."""
    error = decode_error(Response(status=status, body=body))
    assert type(error) is kind
    assert error.code == code
    assert error.message


def test_a_body_of_the_wrong_type_costs_little() -> None:
    """That the rest of a wrong body is JSON is checked without building it: small bodies could become large objects."""
    body = b'{"stream_name": 5, "x": [' + b"[]," * 100_000 + b"[]]}"
    tracemalloc.start()
    try:
        for wrong, code in ((body, "DIS.4200"), (body[:-1], "DIS.4300"), (body + b"\xff", "DIS.4300")):
            with pytest.raises(ApiError) as caught:
                decode_put(wrong)
            assert caught.value.code == code
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_too_many_records_cost_little() -> None:
    """Where there may be more records than are allowed they are counted, not made; as many as allowed are made."""

    def body(*records: str) -> bytes:
        return b'{"stream_name":"s","records":[%s]}' % ",".join(records).encode()

    empty = '{"data":""}'
    many = body(*[empty] * 500_000)
    tracemalloc.start()
    try:
        with pytest.raises(ApiError, match=r"DIS\.4200: .*500000 records are more than 100000") as caught:
            decode_put(many, 100_000)
        assert caught.value.status == 400
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert len(decode_put(body(*[empty] * 50), 50).records) == 50
    # A key that spells it is no record.
    named = json.dumps({"data": "", "partition_key": '"data"'})
    assert len(decode_put(body(*[named] * 50), 50).records) == 50
