"""What the core of a server and its fronts say to each other (workers): frames on a stream of bytes. Pure.

    0   4   bytes of the head, big-endian
    4   4   bytes of the body, big-endian
    8       head: msgpack, an array whose first element tells which of the structs below it is
            body: bytes as they are, mostly none

The body stands beside the head and not in it, so that a put of megabytes is not copied by an encoder.

    front                               core
    Hello            ->
                                    <-  Settings         then connections come, on another line (fronts.py)
    Call  + body     ->                                  `number` tells calls apart; many are open at once
                                    <-  Answer + body    or, for an answer that goes on:
                                    <-  Opening
    More             ->             <-  Piece + body     and so on: asked for when the client took the one before
                                    <-  Ended
    Cancel           ->                                  whoever asked is gone; an answer may be under way
    Check            ->             <-  Answer + body    the refusal that is certain whatever the body is, or status 0
    Refused, Left, Told  ->                              it refused something itself; a connection ended; a log line
                                    <-  Drain            finish what is open, then hang up
    Beat             ->             <-  Beat             now and then; it answers each at once (heartbeat.py)

Example: Left() is 00000002 00000000 91 07.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from ..errors import TransportError

PROTOCOL: Final = 2
"""To be raised with every change here or in relay.py. A front is started from the files of its core, unless somebody
replaced these meanwhile: then it is refused, and the server wants to be restarted."""

MAX_HEAD_BYTES = 8 * 1024 * 1024
"""No head comes near it: HTTP heads are bounded to some 100 KB by the parser."""

MAX_BODY_BYTES = 1 << 30
"""Nor a body near this: requests and pages are bounded by the configuration."""


class _Head(msgspec.Struct, array_like=True, gc=False):
    pass


class Hello(_Head, tag=0):
    protocol: int
    pid: int


class Settings(_Head, tag=1):
    """What a front has to know of the server's configuration."""

    worker: int
    """From 1."""
    log_level: int
    max_body_bytes: int
    max_request_records: int
    max_buffered_bytes: int
    max_connections: int
    idle_timeout_s: float
    body_timeout_s: float
    answer_timeout_s: float
    close_timeout_s: float
    checked: bool
    """Whether some requests are refused whatever their bodies are: there are users, or failures are counted."""
    tls_certificate: str | None
    tls_key: str | None


class Call(_Head, tag=2):
    """A request. `form`, `unpacked`, `digest` and `size`: see relay.Relayed."""

    number: int
    method: str
    target: str
    headers: dict[str, str]
    peer: str
    form: str = ""
    unpacked: bool = False
    digest: str = ""
    size: int = 0
    odd: dict[str, bytes] = {}
    """Headers whose bytes are no UTF-8, which no text in msgpack could hold."""


class Cancel(_Head, tag=3):
    number: int


class More(_Head, tag=4):
    number: int


class Check(_Head, tag=5):
    number: int
    headers: dict[str, str]
    peer: str
    odd: dict[str, bytes] = {}


class Refused(_Head, tag=6):
    peer: str
    status: int
    code: str


class Left(_Head, tag=7):
    pass


class Told(_Head, tag=8):
    logger: str
    level: int
    text: str


class Answer(_Head, tag=9):
    """To a Check: the refusal, or a status of 0."""

    number: int
    status: int
    headers: dict[str, str]


class Opening(_Head, tag=10):
    number: int
    status: int
    headers: dict[str, str]


class Piece(_Head, tag=11):
    number: int


class Ended(_Head, tag=12):
    """An answer that went on is over; or, in the place of an answer or of its rest: a bug broke the request."""

    number: int
    broken: bool = False


class Drain(_Head, tag=13):
    pass


class Beat(_Head, tag=14):
    pass


Head = (
    Hello
    | Settings
    | Call
    | Cancel
    | More
    | Check
    | Refused
    | Left
    | Told
    | Answer
    | Opening
    | Piece
    | Ended
    | Drain
    | Beat
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Head] = msgspec.msgpack.Decoder(Head)


def encode_frame(head: Head, body: bytes = b"") -> bytes:
    """The frame up to its body, which is to follow as it is. Raises UnicodeEncodeError: text with a lone surrogate."""
    told = _encoder.encode(head)
    return len(told).to_bytes(4, "big") + len(body).to_bytes(4, "big") + told


def split_odd(headers: Mapping[str, str]) -> tuple[dict[str, str], dict[str, bytes]]:
    """The headers that are text, and those that are not: their bytes arrive as lone surrogates."""
    text: dict[str, str] = {}
    odd: dict[str, bytes] = {}
    for name, value in headers.items():
        try:
            value.encode()
            text[name] = value
        except UnicodeEncodeError:
            odd[name] = value.encode("utf-8", "surrogateescape")
    return text, odd


def join_odd(headers: dict[str, str], odd: dict[str, bytes]) -> dict[str, str]:
    """What `split_odd` was given."""
    if not odd:
        return headers
    return headers | {name: value.decode("utf-8", "surrogateescape") for name, value in odd.items()}


class Frames:
    """Cuts what arrives into frames."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = 8  # bytes until there is something to look at
        self._sizes: tuple[int, int] | None = None  # of head and body, once they are known

    def feed(self, chunk: bytes) -> list[tuple[Head, bytes]]:
        """The frames that are complete now. Raises TransportError if this is no such stream."""
        self._chunks.append(chunk)
        self._have += len(chunk)
        frames: list[tuple[Head, bytes]] = []
        if self._have < self._need:
            return frames
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        at = 0
        while len(data) - at >= self._need:
            if self._sizes is None:
                self._sizes = self._measure(data, at)
                at += 8
                self._need = sum(self._sizes)
                continue
            head, body = self._sizes
            frames.append((self._decode(data, at, head), data[at + head : at + head + body] if body else b""))
            at += head + body
            self._sizes, self._need = None, 8
        self._chunks = [data[at:]] if at < len(data) else []
        self._have = len(data) - at
        return frames

    def _measure(self, data: bytes, at: int) -> tuple[int, int]:
        head, body = int.from_bytes(data[at : at + 4], "big"), int.from_bytes(data[at + 4 : at + 8], "big")
        if head > MAX_HEAD_BYTES or body > MAX_BODY_BYTES:
            raise TransportError(f"a frame of {head} + {body} bytes between worker and server", outcome_unknown=True)
        return head, body

    def _decode(self, data: bytes, at: int, size: int) -> Head:
        try:
            return _decoder.decode(memoryview(data)[at : at + size])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            raise TransportError(f"no frame of worker and server: {exc}", outcome_unknown=True) from exc

    def check(self) -> None:
        """Assert that what is kept is less than a whole frame, and counted right."""
        assert self._have == sum(map(len, self._chunks)), (self._have, self._chunks)
        assert self._have < self._need, (self._have, self._need)
