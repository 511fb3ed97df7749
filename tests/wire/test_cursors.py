"""Cursors: the shape one official client decodes, and no token that could break the server."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.errors import ApiError, CursorExpired
from disstream.model import MAX_HASH_KEY
from disstream.wire.cursors import CursorState, cursor_query, decode_cursor, encode_cursor, parse_cursor_query

STATE = CursorState("orders", "8QM3Nt9YTLOwtUVYJhO", 1, 10, 1506159563405)
states = st.builds(
    CursorState,
    stream_name=st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
    stream_id=st.from_regex(r"[A-Za-z0-9]{19,20}", fullmatch=True),
    partition=st.integers(0, 2**31 - 1),
    sequence=st.integers(0, MAX_HASH_KEY),
    issued_ms=st.integers(0, 2**53),
)


def test_the_shape() -> None:
    """base64url over JSON with exactly two top-level keys, the offset where the Kafka adapter looks for it."""
    token = encode_cursor(STATE)
    assert "=" not in token
    told = json.loads(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    assert set(told) == {"getIteratorParam", "generateTimestamp"}
    assert told["getIteratorParam"]["starting-sequence-number"] == "10"
    assert told["getIteratorParam"]["stream-name"] == "orders"
    assert told["getIteratorParam"]["partition-id"] == "1"
    assert told["generateTimestamp"] == 1506159563405


@given(state=states)
def test_round_trip(state: CursorState) -> None:
    """Every state fits its token of 512 characters and comes back, with padding, without, in either alphabet."""
    token = encode_cursor(state)
    assert len(token) <= 512
    padded = token + "=" * (-len(token) % 4)
    assert decode_cursor(token) == decode_cursor(padded) == state
    assert decode_cursor(padded.replace("-", "+").replace("_", "/")) == state


def token_of(told: object) -> str:
    return urlsafe_b64encode(json.dumps(told).encode()).decode()


def altered(**param: object) -> dict[str, object]:
    told = json.loads(urlsafe_b64decode(encode_cursor(STATE) + "=="))
    told["getIteratorParam"].update({key.replace("_", "-"): value for key, value in param.items()})
    assert isinstance(told, dict)
    return told


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "é",
        "not base64 at all!",
        "A" * 513,
        token_of([]),
        token_of({"getIteratorParam": {}, "generateTimestamp": 1}),
        token_of(altered(partition_id="x")),
        token_of(altered(partition_id="-1")),
        token_of(altered(partition_id="")),
        token_of(altered(partition_id=" 1 ")),
        token_of(altered(partition_id="0_1")),
        token_of(altered(partition_id="\u0661")),
        token_of(altered(starting_sequence_number="+1")),
        token_of(altered(starting_sequence_number="1_0")),
        token_of(altered(starting_sequence_number="\u0661")),
        token_of(altered(starting_sequence_number="1\n")),
        token_of(altered(starting_sequence_number="-1")),
        token_of(altered(starting_sequence_number=str(2**63))),
        token_of(altered(starting_sequence_number=5)),
        token_of({**altered(), "generateTimestamp": -1}),
        token_of({**altered(), "generateTimestamp": "now"}),
        urlsafe_b64encode(b"[" * 300).decode(),
        urlsafe_b64encode(b"\xff\xfe").decode(),
    ],
)
def test_bad_tokens(token: str) -> None:
    """Whatever is no cursor is DIS.4217."""
    with pytest.raises(CursorExpired) as caught:
        decode_cursor(token)
    assert caught.value.code == "DIS.4217"


@given(token=st.text(max_size=600))
def test_any_text_is_a_cursor_or_refused(token: str) -> None:
    """No text makes the decoder fail in another way."""
    try:
        decode_cursor(token)
    except CursorExpired:
        pass


def test_queries_round_trip() -> None:
    """What the client asks is what the server reads, for all five types."""
    sent = cursor_query("s", "0", "AFTER_SEQUENCE_NUMBER", sequence=7)
    assert parse_cursor_query(sent)[:5] == ("s", "", "0", "AFTER_SEQUENCE_NUMBER", 7)
    at = parse_cursor_query(cursor_query("s", "0", "AT_TIMESTAMP", timestamp_ms=5, stream_id="i"))
    assert (at.stream_id, at.timestamp_ms, at.sequence) == ("i", 5, None)
    assert parse_cursor_query(cursor_query("s", "0", "LATEST")).cursor_type == "LATEST"
    assert parse_cursor_query(cursor_query("s", "0", "TRIM_HORIZON")).cursor_type == "TRIM_HORIZON"


def test_type_left_out() -> None:
    """Without a type the number means AT_SEQUENCE_NUMBER."""
    wanted = parse_cursor_query({"stream-name": "s", "partition-id": "0", "starting-sequence-number": "3"})
    assert (wanted.cursor_type, wanted.sequence) == ("AT_SEQUENCE_NUMBER", 3)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"partition-id": "0"}, "DIS.4200"),
        ({"stream-name": "s"}, "DIS.4200"),
        ({"stream-name": "s", "partition-id": "0", "cursor-type": "latest"}, "DIS.4215"),
        ({"stream-name": "s", "partition-id": "0"}, "DIS.4216"),
        ({"stream-name": "s", "partition-id": "0", "starting-sequence-number": "-1"}, "DIS.4216"),
        ({"stream-name": "s", "partition-id": "0", "starting-sequence-number": str(2**63)}, "DIS.4216"),
        ({"stream-name": "s", "partition-id": "0", "starting-sequence-number": "²"}, "DIS.4216"),
        ({"stream-name": "s", "partition-id": "0", "cursor-type": "AT_TIMESTAMP"}, "DIS.4200"),
        ({"stream-name": "s", "partition-id": "0", "cursor-type": "AT_TIMESTAMP", "timestamp": "1.5"}, "DIS.4200"),
    ],
)
def test_bad_queries(query: dict[str, str], code: str) -> None:
    """Each mistake has its code."""
    with pytest.raises(ApiError) as caught:
        parse_cursor_query(query)
    assert caught.value.code == code
