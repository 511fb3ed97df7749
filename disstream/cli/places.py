"""Options that say where: places in a partition, partitions, and how the service finds them."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import click

from ..door import DisClient
from ..errors import ApiError, DisError
from ..model import MAX_HASH_KEY
from ..wire.cursors import decode_cursor
from ..wire.partitioning import partition_id, partition_number


class Positive(click.FloatRange):
    """A finite number above 0. The plain range lets "nan" through."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number", param, ctx)
        return number


class Start(click.ParamType[Any]):
    """earliest, latest, a sequence number, or a time (without an offset: local time)."""

    name = "start"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in ("earliest", "latest"):
            return value
        if value.isascii() and value.isdigit():
            # By length first: Python refuses to convert thousands of digits.
            if len(value) > len(str(MAX_HASH_KEY)) or int(value) > MAX_HASH_KEY:
                self.fail(f"{value[:40]} is no sequence number: the highest is {MAX_HASH_KEY}", param, ctx)
            return int(value)
        try:
            return datetime.fromisoformat(value).astimezone()
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is neither earliest, latest, a sequence number nor an ISO 8601 time", param, ctx)


def partition_ids(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(partition_id(partition_number(text)) for text in value))
    except ApiError as exc:
        raise click.BadParameter(exc.message) from exc


async def first_since(dis: DisClient, stream: str, partition: str, time: datetime) -> int | None:
    """The first sequence number written at or after `time`, or the next one to be written; None: the service has
    nothing to tell it by."""
    cursor = await dis.cursors.get(stream, partition, "AT_TIMESTAMP", timestamp=time)
    try:
        return decode_cursor(cursor).sequence
    except DisError:  # a service whose cursors do not tell
        page = await dis.records.get(cursor)
        return page.records[0].sequence_number if page.records else None
