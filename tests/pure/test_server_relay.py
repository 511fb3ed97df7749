"""What a front does for the core changes nothing: the same records arrive, and the client reads the same bytes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream import NewRecord
from disstream.server.relay import PLACED, encode_placed, in_columns, rendered
from disstream.wire.columns import COLUMNS, decode_columns
from disstream.wire.http import JSON, PROTOBUF, Response
from disstream.wire.pages import ACCEPT, PageBatch, encode_page_columns
from disstream.wire.places import encode_put_answer_short
from disstream.wire.protobuf import (
    decode_put_protobuf,
    encode_page_protobuf,
    encode_put_answer_protobuf,
    encode_put_protobuf,
)
from disstream.wire.records import PageRow, PutFailure, decode_put, encode_page, encode_put, encode_put_answer

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
RECORDS = st.lists(
    st.builds(NewRecord, st.binary(max_size=40), st.none() | TEXT, timestamp=st.none() | st.integers(0, 2**63 - 1)),
    min_size=1,
    max_size=20,
)
FORMS: dict[str, Any] = {JSON: (encode_put, decode_put), PROTOBUF: (encode_put_protobuf, decode_put_protobuf)}


@pytest.mark.parametrize("kind", FORMS)
@given(RECORDS, TEXT, st.none() | TEXT)
def test_columns_hold_the_records_of_the_body(
    kind: str, records: list[NewRecord], name: str, stream_id: str | None
) -> None:
    """Stream, payloads, keys and timestamps; an empty key is none, as it is to the core."""
    encode, decode = FORMS[kind]
    body = encode(name, records, stream_id)
    made = in_columns({"content-type": kind}, body, 100)
    assert made is not None
    read, sent = decode_columns(made, 100), decode(body, 100)
    assert (read.stream_name or "", read.stream_id or "") == (sent.stream_name or "", sent.stream_id or "")
    assert [(r.data, r.key or None, r.timestamp) for r in read.records()] == [
        (r.data, r.key or None, r.timestamp) for r in sent.records
    ]


PLAIN = b'{"stream_name":"s","records":[{"data":"YQ=="}]}'


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"{", {}),
        (b'{"stream_name":"s","records":[]}', {}),
        (b'{"stream_name":"s","records":[{"data":"Y"}]}', {}),
        (b'{"stream_name":"s","records":[{"data":"","partition_key":"\\ud800"}]}', {}),
        (b'{"stream_name":"s","records":[{"data":"","partition_id":"0"}]}', {}),
        (b'{"stream_name":"s","records":[{"data":""},{"data":"","explicit_hash_key":"0"}]}', {}),
        (b'{"stream_name":"s","records":[{"data":""},{"data":""},{"data":""},{"data":""}]}', {}),
        (PLAIN, {"x-disstream-session": "x"}),
        (PLAIN, {"content-type": COLUMNS}),
        (PLAIN, {"content-type": PROTOBUF}),
    ],
)
def test_what_columns_cannot_say_stays_as_it_was(body: bytes, headers: dict[str, str]) -> None:
    """Bodies that are refused, records with a place of their own, too many; and puts in a session."""
    assert in_columns(headers, body, 3) is None
    assert in_columns({}, PLAIN, 3) is not None


@st.composite
def placed(draw: st.DrawFn) -> tuple[list[int], dict[int, int], dict[int, PutFailure], dict[int, int] | None]:
    lanes = draw(st.lists(st.integers(0, 5), min_size=1, max_size=30))
    first = {lane: draw(st.integers(0, 2**50)) for lane in lanes}
    failed = draw(st.lists(st.integers(0, len(lanes) - 1), max_size=5))
    failures = {index: PutFailure("DIS.4303", draw(TEXT)) for index in failed}
    runs = draw(st.none() | st.just({lane: lane * 7 for lane in first}))
    return lanes, first, failures, runs


@given(placed())
def test_the_answer_to_a_put_is_the_one_the_core_would_give(
    what: tuple[list[int], dict[int, int], dict[int, PutFailure], dict[int, int] | None],
) -> None:
    """Byte for byte, in all three forms."""
    short = {"x-disstream-answer": "places"}
    for headers, kind, encode in (
        ({}, JSON, encode_put_answer),
        (short, JSON, encode_put_answer_short),
        ({"content-type": PROTOBUF, **short}, PROTOBUF, encode_put_answer_protobuf),
    ):
        told = Response(status=200, headers={"content-type": PLACED, "x": "y"}, body=encode_placed(*what))
        answer = rendered(headers, told)
        assert answer.body == encode(*what)
        assert answer.headers == {"content-type": kind, "x": "y"}


ROWS = st.lists(st.tuples(st.binary(max_size=9), st.none() | TEXT, st.none() | st.integers(0, 2**40)), min_size=1)
BATCHES = st.lists(st.tuples(st.integers(0, 2**50), st.integers(0, 2**40), ROWS), max_size=5)


@given(BATCHES, TEXT)
def test_a_page_is_the_one_the_core_would_give(batches: list[tuple[int, int, list[Any]]], cursor: str) -> None:
    """In JSON, in protobuf, and as it is for who reads columns."""
    told, rows = [], []
    for first, append_ms, batch in batches:
        sizes = [len(data) for data, _, _ in batch]
        packed = msgspec.msgpack.encode(([key for _, key, _ in batch], sizes, [time for _, _, time in batch]))
        told.append(PageBatch(first, append_ms, packed, b"".join(data for data, _, _ in batch)))
        for number, (data, key, time) in enumerate(batch, first):
            rows.append(PageRow(str(number), data, append_ms if time is None else time, "CreateTime", key))
    body = encode_page_columns(told, cursor)
    for headers, kind, wanted in (
        ({}, JSON, encode_page(rows, cursor)),
        ({"content-type": PROTOBUF, "accept": ACCEPT}, PROTOBUF, encode_page_protobuf(rows, cursor)),
        ({"accept": ACCEPT}, COLUMNS, body),
    ):
        answer = rendered(headers, Response(status=200, headers={"content-type": COLUMNS}, body=body))
        assert (answer.headers["content-type"], answer.body) == (kind, wanted)


def test_other_answers_pass() -> None:
    """Whatever the core says in a form of its own goes to the client as it is."""
    answer = Response(status=404, headers={"content-type": JSON}, body=b"{}")
    assert rendered({}, answer) == Response(status=404, headers={"content-type": JSON}, body=b"{}")
