"""What a request to create or update a stream must satisfy (API 5.1.1, 5.1.6), beyond the types its decoder checks.

Pure.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Sequence

import msgspec

from ..model import AutoScale
from ..wire.errors import api_error
from ..wire.partitioning import hash_ranges
from ..wire.streams import CreateStream, Tag, UpdateStream
from .documents import NAME, PartitionDoc, StreamDoc
from .schemas import checked_schema
from .tagging import checked_tags

STREAM_TYPES = ("COMMON", "ADVANCED")
DATA_TYPES = ("BLOB", "JSON", "CSV")
COMPRESSION_FORMATS = ("snappy", "gzip", "zip")
RETENTION_H = range(24, 169)
MIN_RETENTION_BYTES = 1_048_576
"""Less could not hold a single record of the largest."""
MAX_RETENTION_BYTES = 2**63 - 1
MAX_DELIMITER_CHARS = 16

_SYS_TAG_KEY = "_sys_enterprise_project_id"
_ID_LETTERS = string.ascii_letters + string.digits


def new_stream(
    request: CreateStream, *, max_partitions: int, max_tags: int, now_ms: int, source: random.Random
) -> StreamDoc:
    """The stream asked for, with a new id. Raises ApiError DIS.4200, DIS.4308, DIS.4360 or DIS.4601."""
    if not NAME.fullmatch(request.stream_name):
        raise api_error("DIS.4200", f"[stream_name={request.stream_name[:80]!r} is not 1 to 64 of A-Z a-z 0-9 _ -]")
    count = request.partition_count
    if count < 1:
        raise api_error("DIS.4200", f"[partition_count={count} is less than 1]")
    if count > max_partitions:
        raise api_error("DIS.4308", f"[partition_count={count} is more than max_partitions ({max_partitions})]")
    return StreamDoc(
        # As long as the service's own ids.
        stream_id="".join(source.choices(_ID_LETTERS, k=19)),
        name=request.stream_name,
        create_time=now_ms,
        last_modified_time=now_ms,
        retention_h=_retention(request.data_duration),
        retention_bytes=_retention_bytes(request.retention_bytes),
        stream_type=_choice("stream_type", request.stream_type, STREAM_TYPES) or "COMMON",
        data_type=_choice("data_type", request.data_type, DATA_TYPES) or "BLOB",
        partitions=tuple(
            PartitionDoc(number, 1, owned.low, owned.high) for number, owned in enumerate(hash_ranges(count))
        ),
        data_schema=checked_schema(request.data_schema),
        compression_format=_choice("compression_format", request.compression_format, COMPRESSION_FORMATS),
        csv_delimiter=_delimiter(request.csv_properties.delimiter if request.csv_properties else None),
        auto_scale=_auto_scale(
            request.auto_scale_min_partition_count, request.auto_scale_max_partition_count, max_partitions
        )
        if request.auto_scale_enabled
        else None,
        tags=checked_tags(request.tags or (), max_tags),
        sys_tags=_sys_tags(request.sys_tags or ()),
    )


def updated_stream(doc: StreamDoc, request: UpdateStream, *, max_partitions: int, now_ms: int) -> StreamDoc:
    """The stream with what the request names (API 5.1.6); what it leaves out or empty stays as it is.

    Raises ApiError DIS.4200, DIS.4308 or DIS.4360.
    """
    csv = request.csv_properties.delimiter if request.csv_properties else None
    auto_scale = doc.auto_scale
    if request.auto_scale_enabled is False:
        auto_scale = None
    elif request.auto_scale_enabled or auto_scale is not None:
        low, high = request.auto_scale_min_partition_count, request.auto_scale_max_partition_count
        if auto_scale is not None:
            low = auto_scale.min_partitions if low is None else low
            high = auto_scale.max_partitions if high is None else high
        auto_scale = _auto_scale(low, high, max_partitions)
    return msgspec.structs.replace(
        doc,
        last_modified_time=max(now_ms, doc.last_modified_time),
        retention_h=_retention(request.data_duration, doc.retention_h),
        retention_bytes=_retention_bytes(request.retention_bytes, doc.retention_bytes),
        data_type=_choice("data_type", request.data_type, DATA_TYPES) or doc.data_type,
        data_schema=checked_schema(request.data_schema) or doc.data_schema,
        csv_delimiter=_delimiter(csv) or doc.csv_delimiter,
        auto_scale=auto_scale,
    )


def _auto_scale(low: int | None, high: int | None, max_partitions: int) -> AutoScale:
    if low is None or high is None or not 1 <= low <= high:
        raise api_error(
            "DIS.4200",
            f"[auto_scale_min_partition_count={low} and auto_scale_max_partition_count={high}: "
            "automatic scaling takes both, with 1 <= min <= max]",
        )
    if high > max_partitions:
        raise api_error(
            "DIS.4308",
            f"[auto_scale_max_partition_count={high} is more than max_partitions={max_partitions} of this server]",
        )
    return AutoScale(low, high)


def _choice(field: str, value: str | None, allowed: Sequence[str]) -> str | None:
    if not value:
        return None
    if value not in allowed:
        raise api_error("DIS.4200", f"[{field}={value[:80]!r} is not one of {', '.join(allowed)}]")
    return value


def _retention(value: int | str | None, default: int = RETENTION_H[0]) -> int:
    if isinstance(value, str):
        if not re.fullmatch(r"[0-9]{0,9}", value, re.ASCII):
            raise api_error("DIS.4200", f"[data_duration={value[:80]!r} is not a number of hours]")
        value = int(value or 0)
    if not value:
        return default
    if value not in RETENTION_H:
        raise api_error("DIS.4200", f"[data_duration={value} is not within {RETENTION_H[0]}..{RETENTION_H[-1]} hours]")
    return value


def _retention_bytes(value: int | None, default: int | None = None) -> int | None:
    """0 takes a bound away."""
    if not value:
        return default if value is None else None
    if not MIN_RETENTION_BYTES <= value <= MAX_RETENTION_BYTES:
        raise api_error(
            "DIS.4200",
            f"[retention_bytes={value} is not within {MIN_RETENTION_BYTES}..{MAX_RETENTION_BYTES}, nor 0 for no bound]",
        )
    return value


def _delimiter(value: str | None) -> str | None:
    if value and len(value) > MAX_DELIMITER_CHARS:
        raise api_error("DIS.4200", f"[csv_properties.delimiter has more than {MAX_DELIMITER_CHARS} characters]")
    return value or None


def _sys_tags(tags: Sequence[Tag]) -> dict[str, str]:
    for tag in tags:
        if tag.key != _SYS_TAG_KEY or len(tag.value or "") > 64:
            raise api_error("DIS.4200", f"[sys_tags: only {_SYS_TAG_KEY} with a project id, not {tag.key[:80]!r}]")
    return {tag.key: tag.value or "" for tag in tags}
