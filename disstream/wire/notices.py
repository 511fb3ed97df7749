"""Notices: which of many partitions have something new, told as it happens. An extension.

A server that names `wait` in X-Disstream answers one request for many partitions, and the answer goes on:

    POST /v2/{project_id}/disstream/notices
    {"streams": [{"stream_name": "orders", "stream_id": "x1", "partitions": [0, 17, 1, 20]},
                 {"stream_name": "bills", "partitions": [4, 0]}],
     "longest_ms": 60000}

`partitions` holds a number of a partition and the sequence number that is wanted next, and so on in pairs. The answer
is a line of JSON for each frame, as soon as it is known:

    [0, 18, 2, 5]      the first partition of the request ends before 18 now, the third before 5
    []                 nothing new, but the line works: at least every HEARTBEAT_S
    [1, -1]            the second one is not what it was, or not to be had: whoever reads it should look

The first frame comes at once and names all partitions that hold the number that is wanted, or one behind it. A later
frame names those that have grown since; what happens faster than it is taken is told as the last of it. The answer ends
after `longest_ms`, sooner if the server ends or wants its clients to ask anew.

Notices are hints. Nobody may lose a record because one did not come, nor spin because one was wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from ..errors import TransportError
from .body import decode_body
from .errors import api_error

EXTENSION = "wait"
FRAMES = "application/x-ndjson"
"""Content type of the answer."""

HEARTBEAT_S = 5.0
"""The longest silence of a server: short enough that a dead line does not delay records for long, and 0.2 lines a
second cost nothing."""

LONGEST_S = 60.0
"""After which an answer ends: rights, policies and streams are looked up anew then."""

MAX_PARTITIONS = 10_000
"""Of one request: 150 KB of numbers."""

MAX_SEQUENCE = 2**63 - 1
"""What a partition can hold."""

GONE = -1
"""In the place of an end: look yourself."""

MAX_LINE_BYTES = 64 * MAX_PARTITIONS


class Watched(NamedTuple):
    """Partitions of one stream: (number, sequence number wanted next). Without an id: whatever bears the name."""

    stream: str
    stream_id: str
    partitions: Sequence[tuple[int, int]]


class Asked(NamedTuple):
    watched: list[Watched]
    longest_s: float

    @property
    def partitions(self) -> int:
        return sum(len(one.partitions) for one in self.watched)


class WatchedStream(msgspec.Struct, omit_defaults=True):
    partitions: list[int]
    stream_name: str | None = None
    stream_id: str | None = None


class NoticesRequest(msgspec.Struct):
    streams: list[WatchedStream]
    longest_ms: int | None = None


_request = msgspec.json.Decoder(NoticesRequest)
_frame = msgspec.json.Decoder(list[int])
_encode = msgspec.json.encode


def encode_notices(watched: Iterable[Watched], longest_s: float = LONGEST_S) -> bytes:
    streams = [
        WatchedStream([n for pair in one.partitions for n in pair], one.stream or None, one.stream_id or None)
        for one in watched
    ]
    return _encode(NoticesRequest(streams, round(longest_s * 1000)))


def decode_notices(body: bytes) -> Asked:
    """Raises ApiError DIS.4200, DIS.4300. A `longest_ms` beyond LONGEST_S counts as that."""
    told = decode_body(_request, body)
    watched = [_watched(one) for one in told.streams]
    asked = Asked(watched, LONGEST_S)
    if not 1 <= asked.partitions <= MAX_PARTITIONS:
        raise api_error("DIS.4200", f"[{asked.partitions} partitions: a request names 1 to {MAX_PARTITIONS}]")
    if told.longest_ms is None:
        return asked
    if told.longest_ms < 0:
        raise api_error("DIS.4200", f"[longest_ms={told.longest_ms}: give 0 or more]")
    return asked._replace(longest_s=min(told.longest_ms / 1000, LONGEST_S))


def _watched(one: WatchedStream) -> Watched:
    name, stream_id, numbers = one.stream_name or "", one.stream_id or "", one.partitions
    if not (name or stream_id):
        raise api_error("DIS.4200", "[stream_name is missing]")
    if len(numbers) % 2:
        told = f"[partitions of {(name or stream_id)[:80]!r} holds {len(numbers)} numbers: two for each partition]"
        raise api_error("DIS.4200", told)
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    for number, wanted in pairs:
        if not (0 <= number <= MAX_SEQUENCE and 0 <= wanted <= MAX_SEQUENCE):
            told = f"[partition {number} from {wanted}: both are from 0 to {MAX_SEQUENCE}]"
            raise api_error("DIS.4200", told)
    return Watched(name, stream_id, pairs)


def encode_frame(ends: Iterable[tuple[int, int]]) -> bytes:
    """A line: (place in the request, end) of each."""
    return _encode([n for pair in ends for n in pair]) + b"\n"


def decode_frame(line: bytes, count: int) -> list[tuple[int, int]]:
    """(place in the request, end) of each, of a request for `count` partitions. Raises TransportError."""
    try:
        numbers = _frame.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise _odd(line, str(exc)) from exc
    pairs = list(zip(numbers[::2], numbers[1::2], strict=False))
    if len(numbers) % 2 or any(not 0 <= place < count or end < GONE for place, end in pairs):
        raise _odd(line, f"pairs of a place below {count} and an end were expected")
    return pairs


class Lines:
    """Cuts what arrives into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that are complete now. Raises TransportError if one does not end."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise _odd(self._rest, f"a line of more than {MAX_LINE_BYTES} bytes")
        return lines


def _odd(line: bytes, told: str) -> TransportError:
    text = line[:80].decode("utf-8", "replace")
    return TransportError(f"{text!r} is no frame of notices: {told}", outcome_unknown=False)
