"""From what a caller gives to what the wire can carry."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import ConfigError
from ..model import MAX_HASH_KEY, NewRecord
from ..wire.partitioning import partition_id as long_partition_id

MAX_RECORD_BYTES = 1_048_576
"""The service takes at most 1 MiB of payload in one record."""

MAX_HEADERS = 1_000
"""Of one record."""

Payload = bytes | bytearray | memoryview | str


def as_bytes(data: Payload) -> bytes:
    """What is sent for `data`. Raises ConfigError."""
    if type(data) is bytes:
        return data
    if isinstance(data, str):
        try:
            return data.encode()
        except UnicodeEncodeError as exc:
            raise ConfigError(f"data cannot be sent as UTF-8 ({exc}): encode it yourself, and send bytes") from exc
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise ConfigError(
        f"data is of type {type(data).__name__}: send bytes, or str (sent as UTF-8), or give a serializer to the "
        "producer: ProducerConfig(serializer=disstream.json)"
    )


def checked_key(key: object) -> str:
    """A partition key the service takes. Raises ConfigError."""
    if not isinstance(key, str):
        raise ConfigError(f"key={key!r:.80} is of type {type(key).__name__}: a partition key is text, use str(...)")
    if not key:
        raise ConfigError("key='': the service takes an empty key for none; leave it out (None)")
    try:
        key.encode()
    except UnicodeEncodeError as exc:
        raise ConfigError(f"key={key!r:.80} cannot be sent as UTF-8 ({exc}): leave lone surrogates out") from exc
    return key


def new_record(
    data: bytes,
    key: str | None,
    partition_id: str | int | None,
    explicit_hash_key: int | str | None,
    timestamp: int | None,
    headers: Mapping[str, str] | None = None,
) -> NewRecord:
    """A record in its wire form. Raises ConfigError for values the wire cannot carry."""
    if key is not None:
        checked_key(key)
    if explicit_hash_key is not None:
        explicit_hash_key = _checked_hash_key(explicit_hash_key)
    if timestamp is not None and (type(timestamp) is not int or not 0 <= timestamp <= MAX_HASH_KEY):
        raise ConfigError(f"timestamp={timestamp!r:.80}: must be milliseconds since the epoch, a whole number")
    if isinstance(partition_id, int):
        partition_id = long_partition_id(partition_id)
    elif partition_id is not None and not isinstance(partition_id, str):
        raise ConfigError(f"partition_id={partition_id!r:.80}: give an id like 'shardId-0000000000', or its number")
    return NewRecord(data, key, partition_id, explicit_hash_key, timestamp, checked_headers(headers))


def checked_headers(headers: Mapping[str, str] | None) -> dict[str, str] | None:
    """A copy, or None if there are none. Raises ConfigError for what an envelope cannot carry."""
    if not headers:
        return None
    if not isinstance(headers, Mapping):
        raise ConfigError(f"headers={headers!r:.80}: give a mapping from names to values, both text")
    if len(headers) > MAX_HEADERS:
        raise ConfigError(f"{len(headers)} headers: a record takes at most {MAX_HEADERS}")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigError(f"header {name!r:.80}: {value!r:.80}: names and values are text; write bytes as base64")
        try:
            (name + value).encode()
        except UnicodeEncodeError as exc:
            raise ConfigError(f"header {name!r:.80} cannot be sent as UTF-8 ({exc})") from exc
    return dict(headers)


def headers_weight(headers: Mapping[str, str]) -> int:
    """What headers count in budgets: their text, and some bytes for each."""
    return sum([len(name) + len(value) + 4 for name, value in headers.items()])


def _checked_hash_key(given: int | str) -> str:
    # isascii: str.isdigit alone accepts superscripts, which int() refuses
    if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) <= 19:
        given = int(given)
    if isinstance(given, int) and 0 <= given <= MAX_HASH_KEY:
        return str(given)
    told = f"{given!r:.80}" if isinstance(given, str) or abs(given) < 2**200 else "that"
    raise ConfigError(f"explicit_hash_key={told}: must be a number from 0 to {MAX_HASH_KEY}")


def checked_record(record: object) -> NewRecord:
    """A record that a caller made, in its wire form. Raises ConfigError for anything else."""
    if not isinstance(record, NewRecord):
        raise ConfigError(f"{record!r:.80} is neither (data, key) nor a NewRecord")
    return new_record(
        as_bytes(record.data),
        record.key,
        record.partition_id,
        record.explicit_hash_key,
        record.timestamp,
        record.headers,
    )
