"""From what a caller gives to what the wire can carry."""

from __future__ import annotations

from ..errors import ConfigError
from ..model import NewRecord
from ..wire.partitioning import partition_id as long_partition_id

MAX_RECORD_BYTES = 1_048_576
"""The service takes at most 1 MiB of payload in one record."""

Payload = bytes | bytearray | memoryview | str


def as_bytes(data: Payload) -> bytes:
    if type(data) is bytes:
        return data
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise ConfigError(
        f"data is a {type(data).__name__}: send bytes, or str (sent as UTF-8); encode anything else first"
    )


def new_record(
    data: bytes,
    key: str | None,
    partition_id: str | int | None,
    explicit_hash_key: int | str | None,
    timestamp: int | None,
) -> NewRecord:
    """A record in its wire form. Raises ConfigError for values the wire cannot carry."""
    if explicit_hash_key is not None:
        text = str(explicit_hash_key)
        if not (text.isascii() and text.isdigit()):
            raise ConfigError(f"explicit_hash_key={explicit_hash_key!r}: must be a number from 0 to 2**63-1")
        explicit_hash_key = text
    if timestamp is not None and (type(timestamp) is not int or timestamp < 0):
        raise ConfigError(f"timestamp={timestamp!r}: must be milliseconds since the epoch, a whole number")
    if isinstance(partition_id, int):
        partition_id = long_partition_id(partition_id)
    return NewRecord(data, key, partition_id, explicit_hash_key, timestamp)


def checked_record(record: object) -> NewRecord:
    """A record that a caller made, in its wire form. Raises ConfigError for anything else."""
    if not isinstance(record, NewRecord):
        raise ConfigError(f"{record!r:.80} is neither (data, key) nor a NewRecord")
    return new_record(
        as_bytes(record.data), record.key, record.partition_id, record.explicit_hash_key, record.timestamp
    )
