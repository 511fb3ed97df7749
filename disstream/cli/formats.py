"""Records as text: what `produce` reads and `consume` writes. Pure.

    lines     each line is a record, without its line end
    jsonl     each line is a JSON value and the record; the key is a field of it
    csv       each row becomes a JSON object, named by the header; the key is a column
    records   what `consume --format jsonl` writes: key, timestamp and data come back as they were; a spill file too,
              as long as nothing in it may be stored

A parser turns lines into `Line`s; what it cannot read becomes a `BadLine` in the same place, so that the caller decides
whether to stop. A key that no record would get (a column that the header lacks, a field that the first row lacks)
raises ConfigError.
"""

from __future__ import annotations

import binascii
import csv
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from ..errors import ConfigError
from ..model import Record

MAX_LINE_BYTES = 8 * 1024 * 1024
"""More than any record needs: 1 MiB as base64 with its key. Longer lines are bad lines, not memory."""


MAX_NAMES = 500
"""Characters of field names in an error message."""

NOT_TEXT = "not UTF-8 text"


class Line(NamedTuple):
    """A record to be sent, from line `number`. `timestamp`: ms since the epoch, None to leave it to the service."""

    number: int
    data: bytes
    key: str | None = None
    timestamp: int | None = None
    partition_id: str | None = None
    explicit_hash_key: str | None = None
    maybe_stored: bool = False  # of a spill file: an attempt may have stored it already
    offset: int = 0  # of a spill file: where its line begins
    headers: dict[str, str] | None = None


class BadLine(NamedTuple):
    """Line `number` (from 1) cannot be read, and why."""

    number: int
    reason: str


Parser = Callable[[Iterator[bytes]], Iterator[Line | BadLine]]


class LineSplitter:
    """Cuts a byte stream into lines that keep their line end; of an endless line it keeps only the beginning."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._held = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        *complete, rest = chunk.split(b"\n")
        for part in complete:
            self._hold(part)
            yield b"".join(self._rest) + b"\n"
            self._rest, self._held = [], 0
        self._hold(rest)

    def end(self) -> bytes:
        """What stands behind the last line end; empty if nothing does."""
        return b"".join(self._rest)

    def _hold(self, part: bytes) -> None:
        part = part[: MAX_LINE_BYTES + 1 - self._held]
        if part:
            self._rest.append(part)
            self._held += len(part)


def parser(name: str, key_field: str | None) -> Parser:
    """The parser of format `name`. `key_field` names the field or column that holds the partition key."""
    if name == "jsonl":
        return lambda lines: _each(lines, _json_line if key_field is None else _KeyedJson(key_field).line)
    if name == "records":
        from ..producer.spillfile import SPILL_HEADER  # here, because `disstream data` needs the times, and no producer

        return lambda lines: _each(lines, _record_line, left_out=SPILL_HEADER)
    if name == "csv":
        return lambda lines: _csv_rows(lines, key_field)
    return lambda lines: _each(lines, Line, blank_is_data=True)


def _each(
    lines: Iterator[bytes],
    read: Callable[[int, bytes], Line],
    *,
    blank_is_data: bool = False,
    left_out: bytes | None = None,
) -> Iterator[Line | BadLine]:
    """`left_out`: how lines begin that are no records."""
    for number, raw in enumerate(lines, 1):
        if left_out is not None and raw.startswith(left_out):
            if b'"record_compression"' in raw:
                raise ConfigError("readers expect these records compressed: send the file with --resend, which does so")
            continue
        line = raw.removesuffix(b"\n").removesuffix(b"\r")
        if len(line) > MAX_LINE_BYTES:
            yield BadLine(number, f"longer than {MAX_LINE_BYTES} bytes")
            continue
        if not blank_is_data and not line.strip():
            continue
        try:
            yield read(number, line)
        except ConfigError:
            raise
        except (ValueError, RecursionError) as exc:  # errors of JSON, UTF-8 and base64 are ValueErrors
            yield BadLine(number, str(exc) if _is_text(line) else NOT_TEXT)


def _is_text(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _json_line(number: int, line: bytes) -> Line:
    msgspec.json.decode(line)
    return Line(number, line)


class _KeyedJson:
    """JSON objects with the key in a field. The first must have it: a mistyped name would cost all records their order.

    A later one without the field has no key.
    """

    def __init__(self, field: str) -> None:
        self._field = field
        self._known = False

    def line(self, number: int, line: bytes) -> Line:
        value = msgspec.json.decode(line)
        if not isinstance(value, dict):
            raise ValueError(f"not a JSON object, so it has no field {self._field!r} for the key")
        if not self._known and self._field not in value:
            names = ", ".join(value)[:MAX_NAMES] or "none"
            raise ConfigError(f"--key {self._field}: the object in line {number} has no such field; it has {names}")
        self._known = True
        return Line(number, line, _key(value.get(self._field), self._field))


def _key(value: object, field: str) -> str | None:
    """A field as partition key: text as it is, numbers and booleans as JSON writes them; null and "" are no key."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return msgspec.json.encode(value).decode()
    raise ValueError(f"field {field!r} holds {type(value).__name__}: a partition key is text, a number or a boolean")


def _csv_rows(lines: Iterator[bytes], key_field: str | None) -> Iterator[Line | BadLine]:
    garbled = False

    def text() -> Iterator[str]:
        nonlocal garbled
        for line in lines:
            if not _is_text(line):
                garbled = True
            yield line.decode("utf-8", "surrogateescape")  # so that the reader goes on behind it

    rows = csv.reader(text())
    header: list[str] | None = None
    while True:
        garbled = False
        try:
            row = next(rows, None)
            if row is None:
                return
            if garbled:
                raise ValueError
            if not row:
                continue
            if header is None:
                header = [name.removeprefix("\ufeff") for name in row]
                if twice := [name for name, count in Counter(header).items() if count > 1]:
                    raise ConfigError(f"the header names column {twice[0]!r} more than once: rename one, or it is lost")
                if key_field is not None and key_field not in header:
                    raise ConfigError(f"--key {key_field}: the header has no such column; it has {', '.join(header)}")
                continue
            if len(row) != len(header):
                raise ValueError(f"{len(row)} fields where the header has {len(header)}")
            fields = dict(zip(header, row, strict=True))
            data = msgspec.json.encode(fields)
            yield Line(rows.line_num, data, fields[key_field] or None if key_field is not None else None)
        except ConfigError:
            raise
        except (csv.Error, ValueError) as exc:
            yield BadLine(rows.line_num, NOT_TEXT if garbled else str(exc))
            if header is None:
                raise ConfigError(f"line {rows.line_num} should be the header: without it no field has a name") from exc


class _RecordLine(msgspec.Struct, omit_defaults=True):
    """A record as one JSON object. Members without a value here are always written."""

    partition_id: str
    sequence_number: int
    key: str | None
    timestamp: int | None
    data: str
    encoding: str = "utf-8"
    headers: dict[str, str] | None = None


class _ReadBack(msgspec.Struct):
    """The same, as far as sending it again needs it: the service gives a new partition and number."""

    data: str
    key: str | None = None
    timestamp: int | None = None
    explicit_hash_key: str | None = None
    encoding: str = "utf-8"
    headers: dict[str, str] | None = None
    end: str = "not stored"


_read_back = msgspec.json.Decoder(_ReadBack)


def _record_line(number: int, line: bytes) -> Line:
    row = _read_back.decode(line)
    if row.end != "not stored":
        raise ValueError(f"its end was {row.end!r}: send a spill file with --resend, which knows what to leave out")
    if row.encoding == "utf-8":
        data = row.data.encode()
    elif row.encoding == "base64":
        try:
            data = b64decode(row.data, validate=True)
        except binascii.Error as exc:
            raise ValueError(f"data is not base64: {exc}") from exc
    else:
        raise ValueError(f"encoding {row.encoding!r} is neither 'utf-8' nor 'base64'")
    return Line(
        number, data, row.key or None, row.timestamp, explicit_hash_key=row.explicit_hash_key, headers=row.headers
    )


# --- writing -----------------------------------------------------------------------------------------------------


def renderer(form: str, width: int) -> Callable[[Record], bytes]:
    """How a record is written; `width` is the terminal's, 0 for none."""
    if form == "table":
        return lambda record: table(record, width)
    return raw if form == "raw" else jsonl


def jsonl(record: Record) -> bytes:
    """One JSON object and a line end; data that is not UTF-8 as base64, with `"encoding": "base64"`."""
    try:
        data, encoding = record.data.decode(), "utf-8"
    except UnicodeDecodeError:
        data, encoding = b64encode(record.data).decode("ascii"), "base64"
    headers = None if record.headers is None else dict(record.headers)
    row = _RecordLine(
        record.partition_id, record.sequence_number, record.key, record.timestamp, data, encoding, headers
    )
    return msgspec.json.encode(row) + b"\n"


def raw(record: Record) -> bytes:
    """The data alone and a line end."""
    return record.data + b"\n"


NARROW = 120
"""Below so many characters the other columns leave room for the data: partition 0 for shardId-0000000000, no year and
no milliseconds (records are kept for days), at most 12 characters of a key."""


def table_header(width: int) -> bytes:
    if 0 < width < NARROW:
        return f"{'PART':>4}  {'SEQUENCE':>8}  {'TIME (UTC)':<14}  {'KEY':<12}  DATA\n".encode()
    return f"{'PARTITION':<20}  {'SEQUENCE':>12}  {'TIME (UTC)':<23}  {'KEY':<16}  DATA\n".encode()


def table(record: Record, width: int) -> bytes:
    """One line of at most `width` characters (0: as long as it takes), without control characters."""
    when = time_text(record.timestamp)
    key = _printable("" if record.key is None else record.key)
    data = _printable(record.data[: width or None].decode("utf-8", "replace"))
    if 0 < width < NARROW:
        number = record.partition_id.removeprefix("shardId-").lstrip("0") or "0"
        key = key if len(key) <= 12 else key[:11] + "…"
        line = f"{number:>4}  {record.sequence_number:>8}  {when[5:19]:<14}  {key:<12}  {data}"
    else:
        line = f"{record.partition_id:<20}  {record.sequence_number:>12}  {when:<23}  {key:<16}  {data}"
    return (line[: width or None] + "\n").encode()


def time_text(ms: int) -> str:
    """Milliseconds since the epoch as UTC; the bare number if no calendar has it."""
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).isoformat(sep=" ", timespec="milliseconds")[:23]
    except (ValueError, OverflowError, OSError):
        return str(ms)


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else "." for c in text)
