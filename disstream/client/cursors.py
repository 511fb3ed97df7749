"""Cursors (API 5.4.3)."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from ..errors import ApiError, ConfigError
from ..model import MAX_HASH_KEY, Cursor
from ..wire import partitioning
from ..wire.cursors import CURSOR_TYPES, CursorType, cursor_query, decode_cursor_answer

if TYPE_CHECKING:
    from .client import Client


class Cursors:
    """`client.cursors`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def get(
        self,
        stream: str,
        partition_id: str,
        cursor_type: CursorType = "AT_SEQUENCE_NUMBER",
        *,
        sequence_number: int | None = None,
        timestamp: int | datetime | None = None,
        stream_id: str | None = None,
    ) -> Cursor:
        """A cursor into a partition, 5 minutes valid.

        API 5.4.3. AT_SEQUENCE_NUMBER and AFTER_SEQUENCE_NUMBER need `sequence_number`, AT_TIMESTAMP needs `timestamp`
        (ms since the epoch, or an aware datetime); TRIM_HORIZON (oldest) and LATEST (only what comes later) need none.
        `partition_id`: either spelling; the cursor and its records carry the long one.
        Raises ConfigError, NotFoundError, SequenceOutOfRange.
        """
        _check_position(cursor_type, sequence_number, timestamp)
        if isinstance(timestamp, datetime):
            if timestamp.tzinfo is None:
                raise ConfigError(f"timestamp {timestamp} has no time zone: say which, like tzinfo=timezone.utc")
            timestamp = int(timestamp.timestamp() * 1000)
        if timestamp is not None and timestamp < 0:
            raise ConfigError(f"timestamp={timestamp!r} is before 1970: it is milliseconds since the epoch")
        try:
            partition = partitioning.partition_id(partitioning.partition_number(partition_id))
        except ApiError as exc:
            raise ConfigError(
                f"partition_id {partition_id!r} is neither like 'shardId-0000000000' nor a number"
            ) from exc
        query = cursor_query(
            stream,
            partition,
            cursor_type,
            sequence=sequence_number,
            timestamp_ms=timestamp,
            stream_id=stream_id or "",
        )
        answer = await self._client.call("get_cursor", query=query)
        return Cursor(decode_cursor_answer(answer.body), stream, partition)


def _check_position(cursor_type: str, sequence_number: int | None, timestamp: int | datetime | None) -> None:
    if cursor_type not in CURSOR_TYPES:
        raise ConfigError(f"cursor_type {cursor_type!r} is none of {', '.join(CURSOR_TYPES)}")
    by_sequence = cursor_type in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER")
    by_time = cursor_type == "AT_TIMESTAMP"
    if by_sequence != (sequence_number is not None):
        raise ConfigError(f"a cursor {cursor_type} {'needs' if by_sequence else 'takes no'} sequence_number")
    if by_time != (timestamp is not None):
        raise ConfigError(f"a cursor {cursor_type} {'needs' if by_time else 'takes no'} timestamp")
    if sequence_number is not None and not 0 <= sequence_number <= MAX_HASH_KEY:
        raise ConfigError(f"sequence_number={sequence_number!r} must be within 0 and {MAX_HASH_KEY}")
