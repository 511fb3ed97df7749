"""From the records of a part to the records of the service: enveloped, aggregated, compressed.

Everything here is a function of the records and their numbers. A retry makes the same bytes of the same records, and
after a change of the layout those of each new lane are put together anew.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from ..errors import ConfigError
from ..model import NewRecord
from ..wire.columns import NewColumns
from ..wire.compression import compress_payload
from ..wire.envelope import MAGIC, OVERHEAD, wrap
from .config import Envelope, ProducerConfig
from .payload import MAX_RECORD_BYTES, headers_weight

ROW_BYTES = 8
"""What a record adds to an envelope beside payload, key and headers, about."""


class Packing:
    """What a producer was told about payloads."""

    def __init__(self, config: ProducerConfig, producer: bytes) -> None:
        """`producer`: 16 bytes that no other producer has."""
        envelope = config.envelope
        self._wraps = envelope is not None
        self._most_records = envelope.aggregate_records if envelope is not None else 1
        self._most_bytes = envelope.aggregate_bytes if envelope is not None else 0
        self._producer = producer if envelope is not None and envelope.identity else None
        self._compress = config.record_compression is not None
        self.aggregates = self._most_records > 1
        self._numbered = 0

    def number(self, count: int) -> int:
        """Numbers for so many records, in the order they were sealed: the first of them."""
        self._numbered += count
        return self._numbered - count

    def sizes(self, rows: Sequence[NewRecord]) -> list[int]:
        """How many of the records, in order, go into each record of the service.

        Neighbours share one if they are routed the same way: by their keys, which belong to one partition as they are
        of one lane, by one hash key, or by one partition id. A record that fills one by itself goes alone.
        """
        if not isinstance(rows, NewColumns) or rows.rich:
            return self._sizes_of_any(rows)
        # The same for records of keys alone, in half the time.
        ends = list(
            accumulate(
                [len(data) + len(key or "") + ROW_BYTES for data, key in zip(rows.payloads, rows.keys, strict=True)]
            )
        )
        sizes = []
        at = weight = 0
        while at < len(ends):
            most = min(at + self._most_records, len(ends))
            end = max(bisect_right(ends, weight + self._most_bytes, at, most), at + 1)
            sizes.append(end - at)
            at, weight = end, ends[end - 1]
        return sizes

    def _sizes_of_any(self, rows: Sequence[NewRecord]) -> list[int]:
        sizes = []
        most_records, most_bytes = self._most_records, self._most_bytes
        count = weight = 0
        partition_id = hash_key = None
        for row in rows:
            size = len(row.data) + ROW_BYTES
            if row.key is not None:
                size += len(row.key)
            if row.headers is not None:
                size += headers_weight(row.headers)
            if count and (
                weight + size > most_bytes
                or count == most_records
                or row.partition_id != partition_id
                or row.explicit_hash_key != hash_key
            ):
                sizes.append(count)
                count = weight = 0
            if not count:
                partition_id, hash_key = row.partition_id, row.explicit_hash_key
            count += 1
            weight += size
        sizes.append(count)
        return sizes

    def pack(self, rows: Sequence[NewRecord], sizes: list[int] | None, numbers: Sequence[int]) -> list[NewRecord]:
        """The records of the service for these; `sizes`: as `sizes` says, None: one each. `numbers`: of the rows."""
        if not self._wraps:
            packed = list(rows)
        elif sizes is None:
            packed = [self._wrapped([row], [number]) for row, number in zip(rows, numbers, strict=True)]
        else:
            packed = []
            at = 0
            for size in sizes:
                packed.append(self._wrapped(rows[at : at + size], numbers[at : at + size]))
                at += size
        return [_compressed(row) for row in packed] if self._compress else packed

    def _wrapped(self, rows: Sequence[NewRecord], numbers: Sequence[int]) -> NewRecord:
        first = rows[0]
        if len(rows) > 1:
            data = wrap(rows, self._producer, numbers)
            return NewRecord(data, first.key, first.partition_id, first.explicit_hash_key)
        # A payload that looks like an envelope would be opened by whoever reads it, so it goes in one.
        wanted = self._producer is not None or first.data.startswith(MAGIC)
        if first.headers is None and not (wanted and enveloped_bytes(first) <= MAX_RECORD_BYTES):
            return first
        data = wrap(rows, self._producer, numbers)
        return NewRecord(data, first.key, first.partition_id, first.explicit_hash_key, first.timestamp)


def enveloped_bytes(row: NewRecord) -> int:
    """What a record takes in an envelope of its own, at most."""
    key = len(row.key.encode()) if row.key else 0
    headers = 0
    for name, value in (row.headers or {}).items():
        headers += len(name.encode()) + len(value.encode()) + 10
    return len(row.data) + key + headers + OVERHEAD


def check_headers(row: NewRecord, envelope: Envelope | None) -> None:
    """Raises ConfigError for a record whose headers cannot travel."""
    if envelope is None:
        raise ConfigError("headers travel in an envelope: give ProducerConfig(envelope=disstream.Envelope())")
    size = enveloped_bytes(row)
    if size > MAX_RECORD_BYTES:
        raise ConfigError(
            f"a record of {size} bytes with its headers: the service takes at most {MAX_RECORD_BYTES} (1 MiB)"
        )


def _compressed(row: NewRecord) -> NewRecord:
    return NewRecord(compress_payload(row.data), row.key, row.partition_id, row.explicit_hash_key, row.timestamp)
