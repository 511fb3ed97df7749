"""What every engine refuses before it touches its storage, so that all of them refuse the same."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from ..errors import ConfigError
from .api import Entry, PartitionRef, Row, Writer
from .columns import Columns, sizes_of

MAX_KEY_BYTES = 500
"""Of a catalog key or a stream id, as UTF-8. LMDB takes keys of 511 bytes; the rest is room for what surrounds them."""

MAX_INT = 2**63 - 1
"""Highest epoch and time: what fits a signed 64-bit field."""

MAX_PARTITION = 2**32 - 1

MAX_READ_ROWS = 20_000
"""Of one read: rows without payload weigh nothing, and millions of them are no page. At 100 bytes a row it is 2 MB."""

MAX_WRITERS = 1_000
"""Producers a partition knows. Far more than send to one at a time; each is some 60 to 500 bytes."""

WRITERS_SLACK = 250
"""So many more are there before those that were quiet longest are forgotten, all at once: looking for them takes
longer than an append."""

FORGET_WRITER_MS = 86_400_000
"""A producer that was quiet for so long is not known any more. Nobody repeats a put after a day."""

MAX_SPANS = 16
"""Of a producer whose places are known. One who waits for answers repeats the last one or two."""

_PRODUCER = re.compile(r"[0-9a-f]{32}", re.ASCII)


def weigh(rows: Sequence[Row]) -> int:
    """What the rows weigh together; the same as the sum of `Row.weight`, at a third of its price."""
    try:
        if isinstance(rows, Columns):
            return rows.key_bytes + rows.payload_bytes
        keys = "".join([row.key or "" for row in rows])
        size = len(keys) if keys.isascii() else len(keys.encode())
    except UnicodeEncodeError as exc:
        raise ConfigError(f"a key cannot be written as UTF-8 ({exc}): give a key without lone surrogates") from exc
    return size + sum(sizes_of(rows))


def check_append(entries: Sequence[Entry], now_ms: int) -> None:
    """Raise ConfigError for an entry without rows, a writer that cannot be, or a time that is none."""
    _check_time(now_ms)
    for partition, rows, _, writer in entries:
        if not rows:
            raise ConfigError(f"an entry for {partition} has no rows: leave it out")
        if writer is not None:
            _check_writer(writer, len(rows))


def check_recall(asked: Sequence[tuple[PartitionRef, Writer, int]], now_ms: int) -> None:
    """Raise ConfigError for no rows, a writer that cannot be, or a time that is none."""
    _check_time(now_ms)
    for _, writer, rows in asked:
        _check_writer(writer, rows)


def _check_time(now_ms: int) -> None:
    if not 0 <= now_ms <= MAX_INT:
        raise ConfigError(f"now_ms is {now_ms}: give milliseconds since the epoch, 0 to 2**63-1")


def _check_writer(writer: Writer, rows: int) -> None:
    producer, epoch, number, request = writer
    if not _PRODUCER.fullmatch(producer):
        raise ConfigError(f"producer {producer[:40]!r} is not 32 hex digits in lower case")
    if rows < 1:
        raise ConfigError(f"{writer} has {rows} rows: give at least 1")
    if min(epoch, number, request) < 0 or max(epoch, number + rows, request) > MAX_INT:
        raise ConfigError(f"{writer} with {rows} rows: epoch, number and request are 0 to 2**63-1")


def check_open(partitions: Mapping[PartitionRef, int]) -> None:
    """Raise ConfigError for a partition or epoch that no engine can keep."""
    for partition, epoch in partitions.items():
        if not 0 <= partition.number <= MAX_PARTITION:
            raise ConfigError(f"partition number {partition.number} is not in 0 to {MAX_PARTITION}")
        if not 0 <= epoch <= MAX_INT:
            raise ConfigError(f"epoch {epoch} of {partition} is not in 0 to 2**63-1")
        _check_key("stream id", partition.stream_id)


def check_transaction(put: Mapping[str, bytes], delete: Collection[str]) -> None:
    """Raise ConfigError for a key both put and deleted, and for a put key that no engine can keep."""
    both = put.keys() & set(delete)
    if both:
        raise ConfigError(f"{min(both)!r} is both put and deleted in one transaction: do one of them")
    for key in put:
        _check_key("catalog key", key)


def _check_key(what: str, key: str) -> None:
    try:
        size = len(key.encode())
    except UnicodeEncodeError as exc:
        raise ConfigError(f"{what} {key!r} cannot be written as UTF-8: leave lone surrogates out") from exc
    if not 1 <= size <= MAX_KEY_BYTES:
        raise ConfigError(f"{what} {key[:40]!r} has {size} bytes as UTF-8: use 1 to {MAX_KEY_BYTES}")
