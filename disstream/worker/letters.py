"""Dead letters as bytes. Pure.

A letter is a record that a worker gave up, with what is needed to find out why and to send it again. In a stream it is
one record under the key of its own: a line of JSON, then the payload as it was.

    {"disstream_letter":1,"app":"billing","member_id":"host-1-ab","stream":"orders",
     "partition_id":"shardId-0000000002","sequence_number":4711,"index":0,"key":"customer-7",
     "timestamp":1795313464210,"headers":null,"error_type":"ValueError","error":"no such account","attempts":3,
     "at_ms":1795313465000,"followed":false,"parked":true,"encoding":"raw"}\\n
    7 apples

    index       of records that share a sequence number; 0 else                     timestamp, at_ms   ms since 1970
    error       the first 2,000 characters                                          attempts           0 if `followed`
    followed    it did not fail: an earlier record of its key did, and it must not overtake that one
    parked      its key is, until the record comes back (parking.py)
    encoding    raw; zlib: compressed, because it did not fit into a record of 1 MiB otherwise

In a file it is one line: the same members, then "data". "encoding" is "utf-8" for text, and "base64" else, as
`disstream consume --format jsonl` has it.

A *mark* says that letters were sent back, or discarded: they are settled. It is a record, or a line, beside them:

    {"disstream_settled":1,"at_ms":1795320000000,"discarded":false,
     "letters":[["billing","orders","shardId-0000000002",4711,0,1795313464210]]}
"""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from ..errors import ConfigError
from ..model import Record

MAX_LETTER_BYTES = 1_048_576
"""Of one record of the service."""

MAX_ERROR_CHARS = 2_000
"""Of an error's text: enough for a message; a traceback belongs into the log."""

MAX_TYPE_CHARS = 200

_LETTER = b'{"disstream_letter":1,'
_MARK = b'{"disstream_settled":1,'


class Identity(msgspec.Struct, frozen=True, array_like=True):
    """What a letter is known by, however often it was written. `timestamp`: a stream that is made again under its name
    begins at sequence number 0 again."""

    app: str
    stream: str
    partition_id: str
    sequence_number: int
    index: int
    timestamp: int


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A record that was given up, and why. Times in ms since the epoch."""

    app: str
    member_id: str
    stream: str
    partition_id: str
    sequence_number: int
    index: int
    key: str | None
    timestamp: int
    data: bytes
    headers: Mapping[str, str] | None
    error_type: str
    error: str
    attempts: int
    at_ms: int
    followed: bool = False
    """It did not fail itself: an earlier record of its key did."""
    parked: bool = False
    """Its key is, until the record comes back."""

    @classmethod
    def of(
        cls,
        record: Record,
        *,
        app: str,
        member_id: str,
        error: BaseException | None,
        attempts: int,
        at_ms: int,
        parked: bool = False,
    ) -> Letter:
        """The letter of a record. `error` None: it did not fail, it follows an earlier one of its key."""
        return cls(
            app=app,
            member_id=member_id,
            stream=record.stream,
            partition_id=record.partition_id,
            sequence_number=record.sequence_number,
            index=record.index,
            key=record.key,
            timestamp=record.timestamp,
            data=record.data,
            headers=record.headers,
            error_type="" if error is None else _bounded(type(error).__qualname__, MAX_TYPE_CHARS),
            error="" if error is None else error_text(error),
            attempts=attempts,
            at_ms=at_ms,
            followed=error is None,
            parked=parked,
        )

    @property
    def identity(self) -> Identity:
        return Identity(self.app, self.stream, self.partition_id, self.sequence_number, self.index, self.timestamp)


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """These letters were sent back, or discarded."""

    disstream_settled: Literal[1] = 1
    at_ms: int
    discarded: bool
    letters: tuple[Identity, ...]


class _Facts(msgspec.Struct, kw_only=True):
    disstream_letter: Literal[1] = 1
    app: str
    member_id: str
    stream: str
    partition_id: str
    sequence_number: int
    index: int
    key: str | None
    timestamp: int
    headers: dict[str, str] | None
    error_type: str
    error: str
    attempts: int
    at_ms: int
    followed: bool
    parked: bool


class _Head(_Facts, kw_only=True):
    encoding: Literal["raw", "zlib"]


class _Line(_Facts, kw_only=True):
    encoding: Literal["utf-8", "base64"]
    data: str


_head_decoder = msgspec.json.Decoder(_Head)
_line_decoder = msgspec.json.Decoder(_Line)
_mark_decoder = msgspec.json.Decoder(Mark)
_FACTS = tuple(name for name in _Facts.__struct_fields__ if name != "disstream_letter")


def error_text(error: BaseException) -> str:
    """What an error says, bounded. A user's `__str__` may raise."""
    try:
        told = str(error)
    except Exception as exc:
        told = f"(its text cannot be had: {type(exc).__qualname__})"
    return _bounded(told, MAX_ERROR_CHARS)


# --- in a stream -------------------------------------------------------------------------------------------------


def encode_letter(letter: Letter) -> bytes:
    """The payload of a letter's record. Raises ConfigError: it does not fit, not even compressed."""
    raw = _head(letter, "raw")
    if len(raw) + len(letter.data) <= MAX_LETTER_BYTES:
        return raw + letter.data
    head, packed = _head(letter, "zlib"), zlib.compress(letter.data)
    if len(head) + len(packed) <= MAX_LETTER_BYTES:
        return head + packed
    raise ConfigError(
        f"the dead letter of {letter.stream}/{letter.partition_id} sequence number {letter.sequence_number} does not "
        f"fit into a record of {MAX_LETTER_BYTES} bytes: {len(letter.data)} bytes of payload, compressed "
        f"{len(packed)}, beside {len(head)} that tell where it comes from; a file takes it: dead_letters='file:PATH'"
    )


def decode_letter(payload: bytes) -> Letter | Mark:
    """A letter, or a mark. Raises ConfigError for what is neither."""
    if payload.startswith(_MARK):
        return _decode_mark(payload)
    line, _, data = payload.partition(b"\n")
    if not line.startswith(_LETTER):
        raise ConfigError(f"{payload[:40]!r} is no dead letter")
    try:
        head = _head_decoder.decode(line)
        if head.encoding == "zlib":
            data = _unpacked(data)
    except (ValueError, RecursionError, zlib.error) as exc:
        raise ConfigError(f"{payload[:40]!r} begins like a dead letter and is none: {exc}") from exc
    return _letter(head, data)


def _head(letter: Letter, encoding: Literal["raw", "zlib"]) -> bytes:
    return msgspec.json.encode(_Head(**_facts(letter), encoding=encoding)) + b"\n"


def _unpacked(data: bytes) -> bytes:
    unpacking = zlib.decompressobj()
    found = unpacking.decompress(data, MAX_LETTER_BYTES + 1)
    if len(found) > MAX_LETTER_BYTES or not unpacking.eof:
        raise ValueError("its payload is cut, or larger than a record can be")
    return found


# --- in a file ---------------------------------------------------------------------------------------------------


def letter_line(letter: Letter) -> bytes:
    """A letter's line of a file, with its line end."""
    encoding: Literal["utf-8", "base64"]
    try:
        data, encoding = letter.data.decode(), "utf-8"
    except UnicodeDecodeError:
        data, encoding = b64encode(letter.data).decode("ascii"), "base64"
    return msgspec.json.encode(_Line(**_facts(letter), encoding=encoding, data=data)) + b"\n"


def may_begin_letters(text: bytes) -> bool:
    """Whether a file that begins so is one of letters: empty, or its first line is one, which may be cut short."""
    return text.startswith(_LETTER) or _LETTER.startswith(text)


def read_line(line: bytes) -> Letter | Mark:
    """A letter, or a mark. Raises ConfigError for what is neither."""
    if line.startswith(_MARK):
        return _decode_mark(line)
    if not line.startswith(_LETTER):
        raise ConfigError(f"{line[:40]!r} is no dead letter")
    try:
        found = _line_decoder.decode(line)
        data = found.data.encode() if found.encoding == "utf-8" else b64decode(found.data, validate=True)
    except (ValueError, RecursionError) as exc:  # errors of JSON, UTF-8 and base64 are ValueErrors
        raise ConfigError(f"{line[:40]!r} begins like a dead letter and is none: {exc}") from exc
    return _letter(found, data)


# --- marks -------------------------------------------------------------------------------------------------------


def encode_mark(letters: Sequence[Identity], at_ms: int, *, discarded: bool = False) -> bytes:
    """A mark, as payload of a record, or with a line end behind it as a line."""
    return msgspec.json.encode(Mark(at_ms=at_ms, discarded=discarded, letters=tuple(letters)))


def _decode_mark(text: bytes) -> Mark:
    try:
        return _mark_decoder.decode(text)
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"{text[:40]!r} begins like a mark and is none: {exc}") from exc


# --- below -------------------------------------------------------------------------------------------------------


def _facts(letter: Letter) -> dict[str, Any]:
    return {name: getattr(letter, name) for name in _FACTS}


def _letter(facts: _Facts, data: bytes) -> Letter:
    return Letter(**{name: getattr(facts, name) for name in _FACTS}, data=data)


def _bounded(text: str, most: int) -> str:
    """At most so many characters, that JSON can carry."""
    shown = text.encode("utf-8", "backslashreplace").decode()
    return shown if len(shown) <= most else shown[: most - 1] + "…"
