"""The spill file: failed records of one stream as lines of JSON. Everything here blocks; loops call it from threads.

    {"spill":1,"stream":"orders","created":"2026-11-21T19:50:00+00:00"}                      line 1: what this is
    {"end":"not stored","cause":"expired","key":"customer-7","data":"7 apples"}              then a record a line
    {"end":"unknown"   ,"cause":"","partition_id":"shardId-0000000002","data":"/w==","encoding":"base64"}
           ^ 7          ^ 20

    end        "not stored": certainly not in the stream, to be sent again. "unknown": it may be in the stream already.
               "rejected": refused for good, kept to be looked at. "stored": sent again and stored; dead.
               Always twelve bytes, so that it can be overwritten in place.
    envelope, record_compression
               of line 1, where the producer had them: what readers of the stream expect. --resend sends likewise, and
               producers of another form are refused the file. `data` is always what the user sent.
    cause      what the producer gave up for: expired, throttled, closed, or the code of the refusal
    data       text if the bytes are UTF-8, else base64 and "encoding":"base64"
    further    key, partition_id, explicit_hash_key, timestamp (ms), headers: where the sender gave them

Lines are only ever appended, or have their `end` overwritten while the file is sent again; what is dead is removed by
writing a new file and renaming it over the old one. So a crash leaves at most a torn last line, which the reader skips
with a warning and the next writer cuts off. Who writes or sends again holds an flock. The mode is 0600.
"""

from __future__ import annotations

import binascii
import contextlib
import errno
import logging
import os
import stat
import sys
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Literal, NamedTuple, Self

import msgspec

from .. import clock
from ..errors import ConfigError
from ..model import NewRecord
from ..wire.compression import RecordCompression
from .config import Envelope, ProducerConfig

if sys.platform != "win32":
    import fcntl

log = logging.getLogger("disstream.producer")

SpillEnd = Literal["not stored", "unknown", "rejected", "stored"]

MAX_LINE_BYTES = 16 * 1024 * 1024
"""More than any record needs: 1 MiB of control characters is escaped to 6 MiB."""

SPILL_HEADER = b'{"spill":'
"""How the first line begins."""

_OPENING = b'{"end":'
_MARKS: dict[SpillEnd, bytes] = {
    "not stored": b'"not stored"',
    "unknown": b'"unknown"   ',
    "rejected": b'"rejected"  ',
    "stored": b'"stored"    ',
}
MARK_BYTES = 12
_ENDS = {mark: end for end, mark in _MARKS.items()}


class SpilledRecord(NamedTuple):
    """A line of a spill file. `record` can be sent again as it is; `line` counts from 1, `offset` is in bytes."""

    stream: str
    end: SpillEnd
    cause: str
    record: NewRecord
    line: int
    offset: int


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    aggregate_records: int
    aggregate_bytes: int
    identity: bool


class _Header(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):  # what we do not know we must not ignore
    spill: Literal[1]
    stream: str
    created: str
    envelope: _Envelope | None = None
    record_compression: RecordCompression | None = None

    @classmethod
    def of(cls, config: ProducerConfig, stream: str) -> Self:
        """The header of a file that begins now."""
        created = datetime.fromtimestamp(clock.wall(), UTC).isoformat(timespec="seconds")
        kept = config.envelope
        envelope = None
        if kept is not None:
            envelope = _Envelope(kept.aggregate_records, kept.aggregate_bytes, kept.identity)
        return cls(1, stream, created, envelope, config.record_compression)

    def config(self) -> ProducerConfig:
        """What sends the records as they would have been sent. Raises ConfigError for numbers that cannot be."""
        kept = self.envelope
        envelope = None
        if kept is not None:
            envelope = Envelope(
                aggregate_records=kept.aggregate_records, aggregate_bytes=kept.aggregate_bytes, identity=kept.identity
            )
        return ProducerConfig(envelope=envelope, record_compression=self.record_compression)

    def told_form(self) -> str:
        """What readers have to know of the records."""
        return f"{'an' if self.envelope else 'no'} envelope and record_compression={self.record_compression!r}"


class _Line(msgspec.Struct, omit_defaults=True):
    cause: str
    data: str
    key: str | None = None
    partition_id: str | None = None
    explicit_hash_key: str | None = None
    timestamp: int | None = None
    encoding: Literal["utf-8", "base64"] = "utf-8"
    headers: dict[str, str] | None = None


class _MarkedLine(_Line):
    end: SpillEnd = "stored"  # never left out; msgspec wants a default behind defaults


_header_decoder = msgspec.json.Decoder(_Header)
_line_decoder = msgspec.json.Decoder(_MarkedLine)


def spill_line(row: NewRecord, end: SpillEnd, cause: str) -> bytes:
    """The line of a record."""
    try:
        data, encoding = row.data.decode(), "utf-8"
    except UnicodeDecodeError:
        data, encoding = b64encode(row.data).decode("ascii"), "base64"
    place = (row.key, row.partition_id, row.explicit_hash_key, row.timestamp)
    line = _Line(cause, data, *place, encoding, row.headers)  # type: ignore[arg-type]
    return _OPENING + _MARKS[end] + b"," + msgspec.json.encode(line)[1:] + b"\n"


def read_spill(path: str | os.PathLike[str]) -> Iterator[SpilledRecord]:
    """The records of a spill file, in its order, those with end "stored" left out; also while a producer writes it.

    A torn last line, as a crash leaves it, is skipped with a warning. Raises OSError, and ConfigError for a file or a
    line that is none of ours, naming it. Blocks.
    """
    with open(path, "rb") as file:
        for line in _lines(file.fileno(), os.fspath(path)):
            if line.end != "stored":
                yield line


# --- writing -----------------------------------------------------------------------------------------------------


class SpillWriter:
    """Appends to the spill file of one producer, within a limit of bytes."""

    def __init__(self, path: str, stream: str, limit: int, config: ProducerConfig | None = None) -> None:
        """Open or make the file, and lock it. Raises ConfigError: it cannot be, or holds something else.

        `config`: of the producer. A file is of one form, which its first producer settled.
        """
        self._path = path
        self._header = _Header.of(config or ProducerConfig(), stream)
        self._limit = limit
        self.full = False
        try:
            self._fd = _locked(path, os.O_RDWR | os.O_CREAT)
        except OSError as exc:
            raise ConfigError(f"spill_path={path!r} cannot be written: {exc.strerror}") from exc
        try:
            self._size = self._whole_lines()
            if self._size:
                header = _read_header(self._fd, path)
                if header.stream != stream:
                    raise ConfigError(
                        f"spill_path={path!r} holds records of stream {header.stream!r}: give {stream!r} a file of its "
                        f"own, or send them first: disstream produce --resend {path}"
                    )
                if header.told_form() != self._header.told_form():
                    raise ConfigError(
                        f"spill_path={path!r} holds records with {header.told_form()}, this producer has "
                        f"{self._header.told_form()}: give it a file of its own, or send them first: "
                        f"disstream produce --resend {path}"
                    )
        except BaseException:
            os.close(self._fd)
            raise

    def _whole_lines(self) -> int:
        """Where the last whole line ends; what stands behind it is cut off by the next append."""
        size = end = os.fstat(self._fd).st_size
        while end:
            begin = max(0, end - 65_536)
            chunk = os.pread(self._fd, end - begin, begin)
            if (found := chunk.rfind(b"\n")) >= 0:
                end = begin + found + 1
                break
            end = begin
        if size and not end:
            raise ConfigError(f"spill_path={self._path!r} is no spill file: it begins with no whole line")
        if end < size:
            log.warning("a torn last line is cut off spill_path=%s bytes=%d", self._path, size - end)
        return end

    def append(self, lines: Iterable[bytes]) -> int:
        """Append lines as far as they fit; they are on the disk when this returns. Returns how many.

        Once one does not fit, none does any more. Raises OSError, and then none of them is in the file.
        """
        if self.full:
            return 0
        text = bytearray()
        if not self._size:
            text += msgspec.json.encode(self._header) + b"\n"
        count = 0
        for line in lines:
            if self._size + len(text) + len(line) > self._limit:
                self.full = True
                break
            text += line
            count += 1
        if count:
            try:
                os.ftruncate(self._fd, self._size)  # of a torn line, or of an append that failed
                _write(self._fd, text, self._size)
                os.fsync(self._fd)
                if not self._size:
                    _sync_directory(self._path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, self._size)
                raise
            self._size += len(text)
        return count

    def close(self) -> None:
        """Let go of the file; one that holds nothing is removed. Raises OSError."""
        try:
            if not self._size:
                os.unlink(self._path)
        finally:
            os.close(self._fd)


# --- sending again -----------------------------------------------------------------------------------------------


class SpillResend:
    """A spill file whose records are sent again; how each ended is written over its line."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Lock the file. Raises OSError, ConfigError: in use, or no spill file."""
        self._path = os.fspath(path)
        self._fd = _locked(self._path, os.O_RDWR)
        try:
            header = _read_header(self._fd, self._path)
            self.stream = header.stream
            self.config = header.config()
            """What sends the records in the form that readers of the stream expect."""
        except BaseException:
            os.close(self._fd)
            raise

    def records(self) -> Iterator[SpilledRecord]:
        """As `read_spill`."""
        return (line for line in _lines(self._fd, self._path) if line.end != "stored")

    def mark(self, offset: int, end: SpillEnd) -> None:
        """Write over the line at `offset` how its record ended. Raises OSError."""
        _write(self._fd, _MARKS[end], offset + len(_OPENING))

    def sync(self) -> None:
        """Put the marks on the disk. Raises OSError."""
        os.fsync(self._fd)

    def finish(self) -> Counter[SpillEnd | None]:
        """Keep only what is not stored, and return how many lines of each end that is (None: they tell none).

        A file without any is removed. Raises OSError; the file is then as it was, with its marks.
        """
        self.sync()
        left = Counter(_end_of(raw) for raw, offset in _raw_lines(self._fd) if offset)
        del left["stored"]
        if not left:
            os.unlink(self._path)
            return left
        new_path = self._path + ".new"
        new = os.open(new_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(new, "wb") as target:
                for raw, _ in _raw_lines(self._fd):
                    if _end_of(raw) != "stored":
                        target.write(raw)
                target.flush()
                os.fsync(new)
            os.rename(new_path, self._path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(new_path)
            raise
        _sync_directory(self._path)
        return left

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# --- below -------------------------------------------------------------------------------------------------------


def _locked(path: str, flags: int) -> int:
    """The file's descriptor, locked. Raises OSError, ConfigError."""
    if sys.platform == "win32":
        raise ConfigError("spill files need the locks and atomic renames of POSIX: leave spill_path out on Windows")
    while True:
        # Not blocking: on a pipe, open would wait for its other end.
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ConfigError(f"{path!r} is no file: a spill file is one")
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"the spill file {path!r} is in use: by a producer that runs, or by another --resend"
                ) from None
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.stat(path)):
                    return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # whoever held the lock before us has put another file in its place


def _raw_lines(fd: int) -> Iterator[tuple[bytes, int]]:
    """Whole lines and where they begin. Raises ConfigError for one without end."""
    with open(os.dup(fd), "rb") as file:
        file.seek(0)
        offset = 0
        while raw := file.readline(MAX_LINE_BYTES):
            if not raw.endswith(b"\n"):
                if len(raw) == MAX_LINE_BYTES:
                    raise ConfigError(f"byte {offset} begins a line of more than {MAX_LINE_BYTES} bytes")
                return
            yield raw, offset
            offset += len(raw)


def _end_of(raw: bytes) -> SpillEnd | None:
    """The end a line tells, without decoding it."""
    return _ENDS.get(raw[len(_OPENING) : len(_OPENING) + MARK_BYTES]) if raw.startswith(_OPENING) else None


def _read_header(fd: int, path: str) -> _Header:
    try:
        first, _ = next(_raw_lines(fd), (b"", 0))
        return _header_decoder.decode(first)
    except (ConfigError, msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path!r} is no spill file: its first line does not say so ({exc})") from exc


def _lines(fd: int, path: str) -> Iterator[SpilledRecord]:
    stream = _read_header(fd, path).stream
    number = end = 0
    for raw, offset in _raw_lines(fd):
        number += 1
        end = offset + len(raw)
        if number == 1:
            continue
        try:
            line = _line_decoder.decode(raw)
            if _end_of(raw) != line.end:
                raise ValueError('it does not begin with "end", padded to twelve bytes')
            data = line.data.encode() if line.encoding == "utf-8" else b64decode(line.data, validate=True)
        except (ValueError, binascii.Error, RecursionError) as exc:  # errors of JSON and UTF-8 are ValueErrors
            raise ConfigError(f"{path}: line {number} is none of a spill file: {exc}") from exc
        record = NewRecord(data, line.key, line.partition_id, line.explicit_hash_key, line.timestamp, line.headers)
        yield SpilledRecord(stream, line.end, line.cause, record, number, offset)
    if (size := os.fstat(fd).st_size) > end:
        log.warning("a torn last line is skipped spill_path=%s bytes=%d", path, size - end)


def _write(fd: int, data: bytes | bytearray, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view, offset = view[written:], offset + written


def _sync_directory(path: str) -> None:
    """Make a new name last. Not every file system can."""
    with contextlib.suppress(OSError):
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
