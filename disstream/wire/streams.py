"""Bodies of the stream calls (API 5.1.1, 5.1.2, 5.1.4 to 5.1.6)."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from ..model import AutoScale, HashRange, LayoutBound, PartitionInfo, Scaling, SequenceRange, StreamInfo, StreamSummary
from .body import Whole, decode_answer, decode_body
from .partitioning import format_range, parse_range

RETENTION = "retention"
"""What X-Disstream names where streams can be bounded in bytes: `retention_bytes` in the bodies below. An extension."""


class Tag(msgspec.Struct, frozen=True):
    key: str
    value: str | None = None


class CsvProperties(msgspec.Struct, frozen=True):
    delimiter: str | None = None


class CreateStream(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The request of create stream as it stands on the wire; the server checks what the types do not say."""

    stream_name: str
    partition_count: int
    stream_type: str | None = None
    data_type: str | None = None
    data_duration: int | str | None = None  # an empty string means the default
    retention_bytes: int | None = None
    auto_scale_enabled: bool | None = None
    auto_scale_min_partition_count: int | None = None
    auto_scale_max_partition_count: int | None = None
    data_schema: str | None = None
    csv_properties: CsvProperties | None = None
    compression_format: str | None = None
    tags: list[Tag] | None = None
    sys_tags: list[Tag] | None = None


_create_decoder = msgspec.json.Decoder(CreateStream)


def encode_create(request: CreateStream) -> bytes:
    return msgspec.json.encode(request)


def decode_create(body: bytes) -> CreateStream:
    """Raises ApiError: DIS.4300 not JSON, DIS.4200 wrong or missing field."""
    return decode_body(_create_decoder, body)


class UpdateStream(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The request of update stream. What is absent stays as it is. `stream_name` must be the one of the path."""

    stream_name: str | None = None
    data_duration: int | str | None = None
    retention_bytes: int | None = None
    data_type: str | None = None
    data_schema: str | None = None
    csv_properties: CsvProperties | None = None
    auto_scale_enabled: bool | None = None
    auto_scale_min_partition_count: int | None = None
    auto_scale_max_partition_count: int | None = None


_update_decoder = msgspec.json.Decoder(UpdateStream)


def encode_update(request: UpdateStream) -> bytes:
    return msgspec.json.encode(request)


def decode_update(body: bytes) -> UpdateStream:
    """Raises ApiError: DIS.4300 not JSON, DIS.4200 wrong field."""
    return decode_body(_update_decoder, body)


def encode_update_answer(name: str, data_type: str) -> bytes:
    """What the classic Java SDK reads of an update at its own path; the documented one answers nothing."""
    return msgspec.json.encode({"stream_name": name, "target_data_type": data_type})


class UpdatePartitionCount(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The request to change the number of partitions. `stream_name` must be the one of the path."""

    stream_name: str | None = None
    target_partition_count: int


_count_decoder = msgspec.json.Decoder(UpdatePartitionCount)


def encode_partition_count(name: str, target: int) -> bytes:
    return msgspec.json.encode(UpdatePartitionCount(stream_name=name, target_partition_count=target))


def decode_partition_count(body: bytes) -> UpdatePartitionCount:
    """Raises ApiError: DIS.4300 not JSON, DIS.4200 wrong or missing field."""
    return decode_body(_count_decoder, body)


def encode_partition_count_answer(name: str, current: int, target: int) -> bytes:
    """What the classic Java SDK reads; the documents have no body, and other clients ignore it."""
    return msgspec.json.encode(
        {"stream_name": name, "current_partition_count": current, "target_partition_count": target}
    )


class _Bound(msgspec.Struct):
    """An extension. `sequence_number` is text on the wire, as everywhere."""

    change: Whole
    sequence_number: Whole


class _Partition(msgspec.Struct, kw_only=True):
    status: str = ""
    partition_id: str = ""
    hash_range: str | None = None
    sequence_number_range: str | None = None
    parent_partitions: str | None = None
    bounds: list[_Bound] = []


class _Scaling(msgspec.Struct, kw_only=True, omit_defaults=True):
    """`result_msg` is an integer to some official clients and text to others, so it is never written."""

    create_timestamp: Whole = 0
    src_partition_count: Whole = 0
    target_partition_count: Whole = 0
    result_code: Whole | str | None = None
    auto_scale: bool | None = None


class _Stream(msgspec.Struct, kw_only=True):
    """One stream, listed or described: the union of both forms (unknown keys are ignored)."""

    stream_name: str
    stream_id: str = ""
    create_time: Whole = 0
    last_modified_time: Whole = 0
    retention_period: Whole = 24
    retention_bytes: Whole | None = None
    status: str = ""
    stream_type: str | None = None
    data_type: str | None = None
    data_schema: str | None = None
    compression_format: str | None = None
    csv_properties: CsvProperties | None = None
    partition_count: Whole = 0
    writable_partition_count: Whole = 0
    readable_partition_count: Whole = 0
    partitions: list[_Partition] = []
    has_more_partitions: bool = False
    auto_scale_enabled: bool | None = None
    auto_scale_min_partition_count: Whole | None = None
    auto_scale_max_partition_count: Whole | None = None
    update_partition_counts: list[_Scaling] | None = None
    tags: list[Tag] | None = None
    sys_tags: list[Tag] | None = None


class _StreamList(msgspec.Struct, kw_only=True):
    total_number: Whole = 0
    stream_names: list[str] = []
    stream_info_list: list[_Stream] = []
    has_more_streams: bool = False


_describe_decoder = msgspec.json.Decoder(_Stream, strict=False)
_list_decoder = msgspec.json.Decoder(_StreamList, strict=False)


def decode_describe(body: bytes) -> tuple[StreamInfo, bool]:
    """One page of a description: the stream with the partitions of this page, and whether more follow."""
    s = decode_answer(_describe_decoder, body)
    info = StreamInfo(
        name=s.stream_name,
        stream_id=s.stream_id,
        status=s.status,
        stream_type=s.stream_type or "COMMON",
        data_type=s.data_type or "BLOB",
        data_schema=s.data_schema,
        compression_format=s.compression_format,
        csv_delimiter=s.csv_properties.delimiter if s.csv_properties else None,
        retention_h=s.retention_period,
        retention_bytes=s.retention_bytes,
        create_time=s.create_time,
        last_modified_time=s.last_modified_time,
        partitions=tuple(_partition_info(p) for p in s.partitions),
        writable_partition_count=s.writable_partition_count,
        readable_partition_count=s.readable_partition_count,
        auto_scale=_auto_scale(s),
        scalings=tuple(
            Scaling(
                create_time=u.create_timestamp,
                source=u.src_partition_count,
                target=u.target_partition_count,
                automatic=bool(u.auto_scale),
                result_code=_integer(u.result_code),
            )
            for u in s.update_partition_counts or ()
        ),
        tags=_tag_dict(s.tags),
        sys_tags=_tag_dict(s.sys_tags),
    )
    return info, s.has_more_partitions


def _partition_info(p: _Partition) -> PartitionInfo:
    hashes, sequences = parse_range(p.hash_range), parse_range(p.sequence_number_range)
    return PartitionInfo(
        partition_id=p.partition_id,
        status=p.status,
        hash_range=HashRange(*hashes) if hashes else None,
        sequence_range=SequenceRange(*sequences) if sequences else None,
        parent_partitions=p.parent_partitions,
        bounds=tuple(LayoutBound(b.change, b.sequence_number) for b in p.bounds),
    )


def _auto_scale(s: _Stream) -> AutoScale | None:
    if not s.auto_scale_enabled:
        return None
    return AutoScale(s.auto_scale_min_partition_count or 1, s.auto_scale_max_partition_count or 1)


def _integer(value: int | str | None) -> int | None:
    """None for text that is no number: some services answer with words."""
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"-?[0-9]{1,18}", value, re.ASCII) else None
    return value


def _tag_dict(tags: list[Tag] | None) -> dict[str, str]:
    return {tag.key: tag.value or "" for tag in tags or ()}


def _tag_list(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": k, "value": v} for k, v in tags.items()]


def encode_describe(info: StreamInfo, partitions: list[PartitionInfo], *, has_more: bool) -> bytes:
    """The description with one page of partitions."""
    body: dict[str, Any] = {
        "stream_id": info.stream_id,
        "stream_name": info.name,
        "create_time": info.create_time,
        "last_modified_time": info.last_modified_time,
        "retention_period": info.retention_h,
        "status": info.status,
        "stream_type": info.stream_type,
        "data_type": info.data_type,
        "writable_partition_count": info.writable_partition_count,
        "readable_partition_count": info.readable_partition_count,
        "tags": _tag_list(info.tags),
        "sys_tags": _tag_list(info.sys_tags),
        **_wire_auto_scale(info.auto_scale),
        "update_partition_counts": [
            _Scaling(
                create_timestamp=s.create_time,
                src_partition_count=s.source,
                target_partition_count=s.target,
                result_code=s.result_code,
                auto_scale=s.automatic,
            )
            for s in info.scalings
        ],
        "partitions": [_wire_partition(p) for p in partitions],
        "has_more_partitions": has_more,
    }
    if info.retention_bytes is not None:
        body["retention_bytes"] = info.retention_bytes
    if info.data_schema is not None:
        body["data_schema"] = info.data_schema
    if info.compression_format is not None:
        body["compression_format"] = info.compression_format
    if info.csv_delimiter is not None:
        body["csv_properties"] = {"delimiter": info.csv_delimiter}
    return msgspec.json.encode(body)


def _wire_auto_scale(auto_scale: AutoScale | None) -> dict[str, Any]:
    low, high = auto_scale or (0, 0)
    return {
        "auto_scale_enabled": auto_scale is not None,
        "auto_scale_min_partition_count": low,
        "auto_scale_max_partition_count": high,
    }


def _wire_partition(p: PartitionInfo) -> dict[str, Any]:
    told: dict[str, Any] = {
        "status": p.status,
        "partition_id": p.partition_id,
        # A partition without keys of its own shows [-1 : -1].
        "hash_range": format_range(*(p.hash_range or (-1, -1))),
    }
    if p.sequence_range is not None:
        told["sequence_number_range"] = format_range(*p.sequence_range)
    if p.parent_partitions is not None:
        told["parent_partitions"] = p.parent_partitions
    if p.bounds:
        told["bounds"] = [{"change": change, "sequence_number": str(sequence)} for change, sequence in p.bounds]
    return told


def encode_list(page: list[StreamSummary], *, total: int, has_more: bool) -> bytes:
    return msgspec.json.encode(
        {
            "total_number": total,
            "stream_names": [s.name for s in page],
            "stream_info_list": [
                {
                    "stream_id": s.stream_id,
                    "stream_name": s.name,
                    "create_time": s.create_time,
                    "retention_period": s.retention_h,
                    "status": s.status,
                    "stream_type": s.stream_type,
                    "data_type": s.data_type,
                    "partition_count": s.partition_count,
                    "tags": _tag_list(s.tags),
                    "sys_tags": _tag_list(s.sys_tags),
                    **_wire_auto_scale(s.auto_scale),
                }
                for s in page
            ],
            "has_more_streams": has_more,
        }
    )


class StreamPage(msgspec.Struct, frozen=True):
    streams: list[StreamSummary]
    total: int
    has_more: bool


def decode_list(body: bytes) -> StreamPage:
    """One page of streams. A service that sends only names gives summaries that hold only names."""
    answer = decode_answer(_list_decoder, body)
    infos = {s.stream_name: s for s in answer.stream_info_list}
    names = answer.stream_names or list(infos)
    streams = [_summary(infos[n]) if n in infos else StreamSummary(name=n) for n in names]
    return StreamPage(streams, answer.total_number, answer.has_more_streams)


def _summary(s: _Stream) -> StreamSummary:
    return StreamSummary(
        name=s.stream_name,
        stream_id=s.stream_id,
        status=s.status,
        stream_type=s.stream_type or "COMMON",
        data_type=s.data_type or "BLOB",
        partition_count=s.partition_count,
        retention_h=s.retention_period,
        create_time=s.create_time,
        auto_scale=_auto_scale(s),
        tags=_tag_dict(s.tags),
        sys_tags=_tag_dict(s.sys_tags),
    )
