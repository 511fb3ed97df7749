"""The envelope: what the payload of one wire record holds when a producer puts more into it than a user's payload.

Several records, their headers, and who numbered them, which the API has no place for. Readers that know nothing of it
see one record with a binary payload. All in one form:

    0   12  magic     8E 38 E3, four times: no UTF-8, and in base64 a run of sixteen `j`, which is searched for fast
    12   4  crc       CRC-32 of all that follows, big endian
    16   1  version   1
    17   …  body      MessagePack, an array; readers of this version pass over elements behind those they know:
                      payloads    array of bin, 1 to 10,000
                      keys        array of str or nil, one for each payload; a str: the key of all; nil: none has one
                      producer    bin of 16 bytes, drawn by the producer when it starts; nil: no identity
                      numbers     unsigned: of the first record, the others follow it; or an array of them; nil
                      timestamps  array of unsigned (ms since the epoch) or nil; nil: none gave one
                      headers     array of map (str to str) or nil; nil: none has any

What misses the magic, another version, a wrong CRC, a body that is not this or whose arrays differ in length is no
envelope, and its payload is what it seems to be.

Example: b"hi" of key "k" and b"yo" of key "l", without identity, timestamps and headers, 36 bytes:

    8e38e3 8e38e3 8e38e3 8e38e3  e1521f11  01
    96 92 c4 02 6869 c4 02 796f  92 a1 6b a1 6c  c0 c0 c0 c0
"""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from ..model import InnerRecord, NewRecord, Record

MAGIC = b"\x8e\x38\xe3" * 4

MAX_RECORDS = 10_000
"""In one envelope. An empty record takes two bytes here and two hundred when it is taken out, so their number is
bounded, and looked at before any is made."""

OVERHEAD = 60
"""Bytes that an envelope of one record adds to payload, key and headers, at most (and some for each header)."""

_HEAD_BYTES = len(MAGIC) + 4 + 1
_VERSION = 1
_VERSION_BYTE = bytes((_VERSION,))
_VERSION_CRC = zlib.crc32(_VERSION_BYTE)
_MAGIC_BASE64 = b"j" * 16


class Body(msgspec.Struct, array_like=True, gc=False):
    """Lists as long as `payloads`, or what stands for all of them."""

    payloads: Annotated[list[bytes], Meta(min_length=1, max_length=MAX_RECORDS)]
    keys: list[str | None] | str | None = None
    producer: Annotated[bytes, Meta(min_length=16, max_length=16)] | None = None
    numbers: list[int] | int | None = None
    timestamps: list[int | None] | None = None
    headers: list[dict[str, str] | None] | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Body)


def wrap(rows: Sequence[NewRecord], producer: bytes | None = None, numbers: Sequence[int] = ()) -> bytes:
    """One payload that holds these records; the same bytes for the same records. `numbers`: theirs, if `producer`."""
    # `count` compares in C: telling what all have in common costs less than making the lists.
    keys = [row.key for row in rows]
    timestamps = [row.timestamp for row in rows]
    headers = [row.headers for row in rows]
    body = _encoder.encode(
        Body(
            [row.data for row in rows],
            keys[0] if keys.count(keys[0]) == len(rows) else keys,
            producer,
            None if producer is None else _numbered(numbers),
            None if timestamps.count(None) == len(rows) else timestamps,
            None if headers.count(None) == len(rows) else headers,
        )
    )
    return b"".join((MAGIC, zlib.crc32(body, _VERSION_CRC).to_bytes(4, "big"), _VERSION_BYTE, body))


def _numbered(numbers: Sequence[int]) -> list[int] | int:
    first, last = numbers[0], numbers[-1]
    return first if last - first == len(numbers) - 1 else list(numbers)  # they ascend


def unpack(payload: bytes) -> Body | None:
    """What the envelope holds; None: the payload is none, or not whole."""
    if not payload.startswith(MAGIC) or len(payload) <= _HEAD_BYTES:
        return None
    if payload[_HEAD_BYTES - 1] != _VERSION:
        return None
    text = payload[_HEAD_BYTES:]
    if zlib.crc32(text, _VERSION_CRC).to_bytes(4, "big") != payload[len(MAGIC) : _HEAD_BYTES - 1]:
        return None
    try:
        body = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # text that is none; a later element, nested deep
        return None
    count = len(body.payloads)
    for column in (body.keys, body.numbers, body.timestamps, body.headers):
        if type(column) is list and len(column) != count:
            return None
    if body.producer is not None and body.numbers is None:
        return None
    return body


def unwrap(records: Sequence[Record], damaged: Callable[[Record], None] | None = None) -> list[Record]:
    """The records as they were sent: those in envelopes taken out of them, the others as they are; in order.

    For pages of `dis.records.get`; consumers do it by themselves. Opens all at once: a page of 2 MiB that was made to
    that end may hold a million records.
    Records of one envelope share its sequence number, and are told apart by `index`. What begins like an envelope and
    is none, or is damaged, stays as it is; `damaged` is told.
    """
    found: list[Record] = []
    for record in records:
        payload = record.data
        if not payload.startswith(MAGIC):
            found.append(record)
        elif (body := unpack(payload)) is not None:
            found += _taken_out(record, body)
        else:
            found.append(record)
            if damaged is not None:
                damaged(record)
    return found


def _taken_out(record: Record, body: Body) -> list[Record]:
    payloads = body.payloads
    count = len(payloads)
    if count == 1:
        return [_alone(record, body)]
    keys = body.keys if isinstance(body.keys, list) else [body.keys] * count
    stream, partition = record.stream, record.partition_id
    sequence, timestamp = record.sequence_number, record.timestamp
    timestamps: Sequence[int | None] = body.timestamps or [timestamp] * count
    headers: Sequence[dict[str, str] | None] = body.headers or [None] * count
    producer = None if body.producer is None else body.producer.hex()
    numbers: Sequence[int | None]
    if producer is None or body.numbers is None:
        numbers = [None] * count
    else:
        numbers = body.numbers if isinstance(body.numbers, list) else range(body.numbers, body.numbers + count)
    return [
        InnerRecord(
            data,
            sequence,
            timestamp if given is None else given,
            key,
            stream,
            partition,
            index,
            count,
            head or None,
            producer,
            number,
        )
        for index, (data, key, given, head, number) in enumerate(
            zip(payloads, keys, timestamps, headers, numbers, strict=True)
        )
    ]


def _alone(record: Record, body: Body) -> Record:
    """The same for one, in half the time."""
    keys, timestamps, headers, numbers = body.keys, body.timestamps, body.headers, body.numbers
    timestamp = timestamps[0] if timestamps is not None else None
    return InnerRecord(
        body.payloads[0],
        record.sequence_number,
        record.timestamp if timestamp is None else timestamp,
        keys[0] if isinstance(keys, list) else keys,
        record.stream,
        record.partition_id,
        0,
        1,
        None if headers is None else headers[0] or None,
        None if body.producer is None else body.producer.hex(),
        None if body.producer is None else numbers[0] if isinstance(numbers, list) else numbers,
    )


def _searcher() -> Callable[[bytes, bytes], bool]:
    """Whether the second stands in the first. A page is searched by the C library where that can be asked: 14 ns a
    record of 100 bytes; `in` takes 65, a fifth of what decoding one costs."""
    try:
        memmem = ctypes.CDLL(None).memmem
    except (OSError, AttributeError, TypeError):  # a platform that has no such thing
        return lambda text, part: part in text
    memmem.restype = ctypes.c_void_p
    memmem.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
    return lambda text, part: memmem(text, len(text), part, len(part)) is not None


_holds = _searcher()


def may_hold_envelopes(page: bytes, *, base64: bool) -> bool:
    """Whether the body of a page should be looked at record by record. False is certain."""
    return _holds(page, _MAGIC_BASE64 if base64 else MAGIC)
