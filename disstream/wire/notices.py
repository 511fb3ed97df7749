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

A server that names `push` as well sends records with the notice, to who asks for it:

    {"streams": [{"stream_name": "orders", "partitions": [0, 17, 1, 20], "plain": [1]}], "push_bytes": 16384}

Where a partition has grown by few records behind what the answer told of it last (or behind the number wanted), and
payloads and keys of them weigh no more than `push_bytes`, a *pushed page* may stand in the place of its end: a line
that tells about it, and behind the line, in so many bytes, the page as a GET at `first` would have brought it in
columns (wire/pages.py), with its next cursor. `changes` is what the header of wire/layouts.py would have told.

    {"place":0,"first":17,"records":2,"changes":0,"bytes":271}
    (271 bytes of a page; the next line begins right behind them)

So whoever has read up to `first` has what is new, and where the partition ends: `first` + `records`. To everybody else
it is a notice of that end. Of the partitions named in `plain` only ends are told, as of all where nothing is pushed.

Notices are hints. Nobody may lose a record because one did not come, nor spin because one was wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Annotated, NamedTuple

import msgspec

from ..errors import TransportError
from ..model import Cursor, Page
from .body import decode_body
from .envelope import may_hold_envelopes
from .errors import api_error
from .pages import decode_page_columns

EXTENSION = "wait"
PUSH = "push"
"""What X-Disstream names where records are pushed."""

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

MAX_PUSH_BYTES = 65_536
"""A larger `push_bytes` counts as this: where so much is new at once, a request of its own costs little beside it."""

MAX_PUSH_RECORDS = 1_000
"""In a pushed page: they may be empty, and weigh nothing."""

MAX_PAGE_BYTES = 1_048_576
"""Of a pushed page: our server's have a tenth of it at most."""


class Watched(NamedTuple):
    """Partitions of one stream: (number, sequence number wanted next). Without an id: whatever bears the name.

    `plain`: numbers of those of which nothing is to be pushed.
    """

    stream: str
    stream_id: str
    partitions: Sequence[tuple[int, int]]
    plain: Collection[int] = ()


class Asked(NamedTuple):
    watched: list[Watched]
    longest_s: float
    push_bytes: int = 0
    """Of a pushed page; 0: nothing is pushed."""

    @property
    def partitions(self) -> int:
        return sum(len(one.partitions) for one in self.watched)


class WatchedStream(msgspec.Struct, omit_defaults=True):
    partitions: list[int]
    stream_name: str | None = None
    stream_id: str | None = None
    plain: list[int] = []  # msgspec gives each its own


class NoticesRequest(msgspec.Struct, omit_defaults=True):
    streams: list[WatchedStream]
    longest_ms: int | None = None
    push_bytes: int = 0


_request = msgspec.json.Decoder(NoticesRequest)
_frame = msgspec.json.Decoder(list[int])
_encode = msgspec.json.encode


def encode_notices(watched: Iterable[Watched], longest_s: float = LONGEST_S, push_bytes: int = 0) -> bytes:
    streams = [
        WatchedStream(
            [n for pair in one.partitions for n in pair],
            one.stream or None,
            one.stream_id or None,
            sorted(one.plain) if push_bytes else [],
        )
        for one in watched
    ]
    return _encode(NoticesRequest(streams, round(longest_s * 1000), push_bytes))


def decode_notices(body: bytes) -> Asked:
    """Raises ApiError DIS.4200, DIS.4300. A `longest_ms` beyond LONGEST_S counts as that, `push_bytes` likewise."""
    told = decode_body(_request, body)
    if told.push_bytes < 0:
        raise api_error("DIS.4200", f"[push_bytes={told.push_bytes}: give 0 or more]")
    watched = [_watched(one) for one in told.streams]
    asked = Asked(watched, LONGEST_S, min(told.push_bytes, MAX_PUSH_BYTES))
    if not 1 <= asked.partitions <= MAX_PARTITIONS:
        raise api_error("DIS.4200", f"[{asked.partitions} partitions: a request names 1 to {MAX_PARTITIONS}]")
    if told.longest_ms is None:
        return asked
    if told.longest_ms < 0:
        raise api_error("DIS.4200", f"[longest_ms={told.longest_ms}: give 0 or more]")
    return asked._replace(longest_s=min(told.longest_ms, LONGEST_S * 1000) / 1000)


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
    return Watched(name, stream_id, pairs, frozenset(one.plain))


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


class _Head(msgspec.Struct):
    """The line in front of a pushed page."""

    place: Annotated[int, msgspec.Meta(ge=0, lt=MAX_PARTITIONS)]
    first: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQUENCE)]
    records: Annotated[int, msgspec.Meta(ge=1, le=MAX_PUSH_RECORDS)]
    changes: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQUENCE)]
    bytes: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE_BYTES)]


_head = msgspec.json.Decoder(_Head)


class Pushed(NamedTuple):
    """A page that came with the notice of it. Nothing of it was looked at yet."""

    place: int
    """In the request."""
    first: int
    records: int
    changes: int
    """How often the partitions of the stream had been changed when it was read, as a page of a GET tells."""
    body: bytes
    """As of a GET: wire/pages.py."""

    @property
    def end(self) -> int:
        """What a plain notice would tell."""
        return self.first + self.records

    def page(self, stream: str, partition: str) -> Page:
        """As if it had been asked for. Raises TransportError."""
        records, following = decode_page_columns(self.body, stream, partition)
        if records.numbers != range(self.first, self.end):
            told = f"a pushed page of {partition} holds other records than {self.first} to {self.end - 1}"
            raise TransportError(told, outcome_unknown=True)
        return Page(
            records=records,
            next_cursor=Cursor(following, stream, partition),
            plain=not may_hold_envelopes(self.body, base64=False),
            changes=self.changes,
        )


def encode_pushed(pushed: Pushed) -> bytes:
    head = _Head(pushed.place, pushed.first, pushed.records, pushed.changes, len(pushed.body))
    return b"%b\n%b" % (_encode(head), pushed.body)


Frame = list[tuple[int, int]] | Pushed
"""A line of ends, as of `decode_frame`; or a page."""


class Feed:
    """Cuts what arrives of an answer for `count` partitions into frames."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._rest = b""
        self._head: _Head | None = None  # of the page that the rest begins with

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames that are complete now. Raises TransportError if something is none, or a line does not end."""
        frames: list[Frame] = []
        text, at = self._rest + chunk, 0
        while True:
            if (head := self._head) is not None:
                if len(text) - at < head.bytes:
                    break
                body = text[at : at + head.bytes]
                at += head.bytes
                self._head = None
                frames.append(Pushed(head.place, head.first, head.records, head.changes, body))
                continue
            end = text.find(b"\n", at)
            if end < 0:
                break
            if text.startswith(b"{", at):
                self._head = self._decode_head(text[at:end])
            else:
                frames.append(decode_frame(text[at:end], self._count))
            at = end + 1
        self._rest = text[at:]
        if self._head is None and len(self._rest) > MAX_LINE_BYTES:
            raise _odd(self._rest, f"a line of more than {MAX_LINE_BYTES} bytes")
        return frames

    def _decode_head(self, line: bytes) -> _Head:
        try:
            head = _head.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise _odd(line, str(exc)) from exc
        if head.place >= self._count:
            raise _odd(line, f"a place below {self._count} was expected")
        return head


def _odd(line: bytes, told: str) -> TransportError:
    text = line[:80].decode("utf-8", "replace")
    return TransportError(f"{text!r} is no frame of notices: {told}", outcome_unknown=False)
