"""What a request to create a stream must satisfy (API 5.1.1), beyond the types its decoder checks. Pure."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Sequence

import msgspec

from ..wire.errors import api_error
from ..wire.partitioning import hash_ranges
from ..wire.streams import CreateStream, Tag
from .documents import NAME, PartitionDoc, StreamDoc

STREAM_TYPES = ("COMMON", "ADVANCED")
DATA_TYPES = ("BLOB", "JSON", "CSV")
COMPRESSION_FORMATS = ("snappy", "gzip", "zip")
RETENTION_H = range(24, 169)
MAX_TAGS = 10
MAX_SCHEMA_CHARS = 65_536  # a document is read on every call: keep what rides along small
MAX_DELIMITER_CHARS = 16

_HAN = "\u4e00-\u9fff"
_TAG_KEY = re.compile(rf"[A-Za-z0-9_\-{_HAN}]{{1,36}}")
_TAG_VALUE = re.compile(rf"[A-Za-z0-9._\-{_HAN}]{{0,43}}")
_SYS_TAG_KEY = "_sys_enterprise_project_id"
_ID_LETTERS = string.ascii_letters + string.digits


def new_stream(request: CreateStream, *, max_partitions: int, now_ms: int, source: random.Random) -> StreamDoc:
    """The stream asked for, with a new id. Raises ApiError DIS.4200, DIS.4308, DIS.4360 or DIS.4601."""
    if not NAME.fullmatch(request.stream_name):
        raise api_error("DIS.4200", f"[stream_name={request.stream_name[:80]!r} is not 1 to 64 of A-Z a-z 0-9 _ -]")
    count = request.partition_count
    if count < 1:
        raise api_error("DIS.4200", f"[partition_count={count} is less than 1]")
    if count > max_partitions:
        raise api_error("DIS.4308", f"[partition_count={count} is more than the {max_partitions} this server allows]")
    if request.auto_scale_enabled:
        raise api_error(
            "DIS.4200", "[auto_scale_enabled=true: this server does not scale streams by itself yet: leave it out]"
        )
    return StreamDoc(
        # As long as the service's own ids.
        stream_id="".join(source.choices(_ID_LETTERS, k=19)),
        name=request.stream_name,
        create_time=now_ms,
        last_modified_time=now_ms,
        retention_h=_retention(request.data_duration),
        stream_type=_choice("stream_type", request.stream_type, STREAM_TYPES) or "COMMON",
        data_type=_choice("data_type", request.data_type, DATA_TYPES) or "BLOB",
        partitions=tuple(
            PartitionDoc(number, 1, owned.low, owned.high) for number, owned in enumerate(hash_ranges(count))
        ),
        data_schema=_schema(request.data_schema),
        compression_format=_choice("compression_format", request.compression_format, COMPRESSION_FORMATS),
        csv_delimiter=_delimiter(request.csv_properties.delimiter if request.csv_properties else None),
        tags=_tags(request.tags or ()),
        sys_tags=_sys_tags(request.sys_tags or ()),
    )


def _choice(field: str, value: str | None, allowed: Sequence[str]) -> str | None:
    if not value:
        return None
    if value not in allowed:
        raise api_error("DIS.4200", f"[{field}={value[:80]!r} is not one of {', '.join(allowed)}]")
    return value


def _retention(value: int | str | None) -> int:
    if isinstance(value, str):
        if not re.fullmatch(r"[0-9]{0,9}", value, re.ASCII):
            raise api_error("DIS.4200", f"[data_duration={value[:80]!r} is not a number of hours]")
        value = int(value or 0)
    if not value:
        return RETENTION_H[0]
    if value not in RETENTION_H:
        raise api_error("DIS.4200", f"[data_duration={value} is not within {RETENTION_H[0]}..{RETENTION_H[-1]} hours]")
    return value


def _schema(value: str | None) -> str | None:
    if not value:
        return None
    if len(value) > MAX_SCHEMA_CHARS:
        raise api_error("DIS.4360", f"[{len(value)} characters are more than {MAX_SCHEMA_CHARS}]")
    try:
        msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise api_error("DIS.4360", f"[not JSON: {exc}]") from exc
    return value


def _delimiter(value: str | None) -> str | None:
    if value and len(value) > MAX_DELIMITER_CHARS:
        raise api_error("DIS.4200", f"[csv_properties.delimiter has more than {MAX_DELIMITER_CHARS} characters]")
    return value or None


def _tags(tags: Sequence[Tag]) -> dict[str, str]:
    if len(tags) > MAX_TAGS:
        raise api_error("DIS.4601")
    found: dict[str, str] = {}
    for tag in tags:
        value = tag.value or ""
        if not _TAG_KEY.fullmatch(tag.key):
            raise api_error("DIS.4200", f"[tag key {tag.key[:80]!r}: 1 to 36 letters, digits, - or _]")
        if not _TAG_VALUE.fullmatch(value):
            raise api_error("DIS.4200", f"[tag value {value[:80]!r}: at most 43 letters, digits, '.', - or _]")
        if tag.key in found:
            raise api_error("DIS.4200", f"[tag key {tag.key!r} is given twice]")
        found[tag.key] = value
    return found


def _sys_tags(tags: Sequence[Tag]) -> dict[str, str]:
    for tag in tags:
        if tag.key != _SYS_TAG_KEY or len(tag.value or "") > 64:
            raise api_error("DIS.4200", f"[sys_tags: only {_SYS_TAG_KEY} with a project id, not {tag.key[:80]!r}]")
    return {tag.key: tag.value or "" for tag in tags}
