"""Cursors (API 5.4.3): the query that asks for one, and the token itself.

The token is not opaque to one official client, which decodes it and reads the offset from it, so its shape is fixed:
base64url over JSON with exactly two top-level keys, at most 512 characters:

    {"getIteratorParam": {"stream-name": "s", "partition-id": "0", "cursor-type": "AT_SEQUENCE_NUMBER",
                          "starting-sequence-number": "10", "stream-id": "8QM3Nt9YTLOwtUVYJhO"},
     "generateTimestamp": 1506159563405}

`stream-id` is ours, inside the object where extra keys are ignored: a cursor must not reach a later stream of the same
name. The position is resolved when the cursor is issued, so the token's type is always AT_SEQUENCE_NUMBER.
"""

from __future__ import annotations

import binascii
from typing import Literal, NamedTuple

import msgspec

from ..model import MAX_HASH_KEY
from .body import decode_answer
from .errors import api_error

LIFETIME_MS = 300_000
MAX_TOKEN_CHARS = 512

CursorType = Literal["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER", "TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"]
CURSOR_TYPES: tuple[CursorType, ...] = (
    "AT_SEQUENCE_NUMBER",
    "AFTER_SEQUENCE_NUMBER",
    "TRIM_HORIZON",
    "LATEST",
    "AT_TIMESTAMP",
)


class CursorState(NamedTuple):
    """What a token says: read `stream_id`'s partition `partition` from `sequence` on; issued at `issued_ms`."""

    stream_name: str
    stream_id: str
    partition: int
    sequence: int
    issued_ms: int


class _Param(msgspec.Struct, rename="kebab"):
    stream_name: str
    partition_id: str
    cursor_type: str
    starting_sequence_number: str
    stream_id: str


class _Token(msgspec.Struct):
    get_iterator_param: _Param = msgspec.field(name="getIteratorParam")
    generate_timestamp: int = msgspec.field(name="generateTimestamp")


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Token)


def encode_cursor(cursor: CursorState) -> str:
    token = _Token(
        _Param(
            cursor.stream_name,
            str(cursor.partition),
            "AT_SEQUENCE_NUMBER",
            str(cursor.sequence),
            cursor.stream_id,
        ),
        cursor.issued_ms,
    )
    text = binascii.b2a_base64(_encoder.encode(token), newline=False).decode("ascii")
    return text.rstrip("=").replace("+", "-").replace("/", "_")


def decode_cursor(token: str) -> CursorState:
    """What the token says; its age is the caller's to judge. Raises ApiError DIS.4217."""
    if not 1 <= len(token) <= MAX_TOKEN_CHARS:
        raise api_error("DIS.4217", f"[a cursor has 1 to {MAX_TOKEN_CHARS} characters, this has {len(token)}]")
    try:
        # Lenient towards the standard alphabet and towards padding: both travel in the wild.
        text = token.rstrip("=").replace("-", "+").replace("_", "/")
        parsed = _decoder.decode(binascii.a2b_base64(text + "=" * (-len(text) % 4)))
        param = parsed.get_iterator_param
        cursor = CursorState(
            param.stream_name,
            param.stream_id,
            _number(param.partition_id),
            _number(param.starting_sequence_number),
            parsed.generate_timestamp,
        )
    except (binascii.Error, msgspec.DecodeError, ValueError, RecursionError) as exc:
        raise api_error("DIS.4217", f"[{token[:80]}]") from exc
    if cursor.sequence > MAX_HASH_KEY or cursor.issued_ms < 0:
        raise api_error("DIS.4217", f"[{token[:80]}]")
    return cursor


def _number(text: str) -> int:
    """Digits only: `int` alone takes signs, spaces, underscores and the digits of every script. Raises ValueError."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    return int(text)


class CursorQuery(NamedTuple):
    """A request for a cursor, checked in itself (not against the stream)."""

    stream_name: str
    stream_id: str
    partition: str
    cursor_type: CursorType
    sequence: int | None
    timestamp_ms: int | None


def parse_cursor_query(query: dict[str, str]) -> CursorQuery:
    """Raises ApiError: DIS.4200 (missing), DIS.4215 (type), DIS.4216 (sequence number)."""
    stream_name, stream_id = query.get("stream-name", ""), query.get("stream-id", "")
    partition = query.get("partition-id", "")
    if not (stream_name or stream_id):
        raise api_error("DIS.4200", "[stream-name is missing]")
    if not partition:
        raise api_error("DIS.4200", "[partition-id is missing]")
    wanted = query.get("cursor-type", "AT_SEQUENCE_NUMBER")
    for cursor_type in CURSOR_TYPES:
        if cursor_type == wanted:
            break
    else:
        raise api_error("DIS.4215", f"[{wanted[:80]}] is not one of {', '.join(CURSOR_TYPES)}.")
    sequence: int | None = None
    timestamp_ms: int | None = None
    if cursor_type in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"):
        text = query.get("starting-sequence-number", "")
        # isascii: str.isdigit alone accepts superscripts, which int() refuses
        if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= MAX_HASH_KEY):
            raise api_error("DIS.4216", f"[starting-sequence-number={text[:40]}] is not within 0..{MAX_HASH_KEY}.")
        sequence = int(text)
    elif cursor_type == "AT_TIMESTAMP":
        text = query.get("timestamp", "")
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise api_error("DIS.4200", f"[timestamp={text[:40]}] is not a time in milliseconds.")
        timestamp_ms = int(text)
    return CursorQuery(stream_name, stream_id, partition, cursor_type, sequence, timestamp_ms)


def cursor_query(
    stream: str,
    partition_id: str,
    cursor_type: CursorType,
    *,
    sequence: int | None = None,
    timestamp_ms: int | None = None,
    stream_id: str = "",
) -> dict[str, str]:
    """The query of a cursor request, as the client sends it."""
    query = {"stream-name": stream, "partition-id": partition_id, "cursor-type": cursor_type}
    if sequence is not None:
        query["starting-sequence-number"] = str(sequence)
    if timestamp_ms is not None:
        query["timestamp"] = str(timestamp_ms)
    if stream_id:
        query["stream-id"] = stream_id
    return query


class _CursorAnswer(msgspec.Struct):
    partition_cursor: str


_answer_decoder = msgspec.json.Decoder(_CursorAnswer)


def encode_cursor_answer(token: str) -> bytes:
    return _encoder.encode(_CursorAnswer(token))


def decode_cursor_answer(body: bytes) -> str:
    return decode_answer(_answer_decoder, body).partition_cursor
