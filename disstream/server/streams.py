"""Create, list, delete, describe, scale and update streams (API 5.1.1 to 5.1.6)."""

from __future__ import annotations

import random

from .. import clock
from ..engine import Engine
from ..model import Scaling, StreamInfo, StreamSummary
from ..wire.caps import HEADER as CAPS_HEADER
from ..wire.caps import encode_caps
from ..wire.errors import api_error
from ..wire.http import Response, json_response
from ..wire.layouts import HEADER as LAYOUTS_HEADER
from ..wire.partitioning import partition_id, partition_number
from ..wire.streams import (
    decode_create,
    decode_partition_count,
    decode_update,
    encode_describe,
    encode_list,
    encode_partition_count_answer,
    encode_update_answer,
)
from .call import Call
from .config import ServerConfig
from .creation import new_stream, updated_stream
from .directory import Directory, Stream
from .documents import StreamDoc
from .flow import Flow
from .partitions import told_partitions
from .reshape import EXPIRED, writable_count
from .scaling import Scaler

MAX_INTEGER = 2**31 - 1
"""What official clients can read of a number of partitions."""


class Streams:
    def __init__(
        self,
        engine: Engine,
        directory: Directory,
        scaling: Scaler,
        config: ServerConfig,
        flow: Flow,
        source: random.Random,
    ) -> None:
        self._engine = engine
        self._directory = directory
        self._scaling = scaling
        self._config = config
        self._flow = flow
        self._source = source

    async def create(self, call: Call) -> Response:
        doc = new_stream(
            decode_create(call.body),
            max_partitions=self._config.max_partitions,
            now_ms=clock.wall_ms(),
            source=self._source,
            max_tags=self._config.max_tags,
        )
        await self._directory.create(call.project, doc)
        return Response(status=201)

    async def delete(self, call: Call) -> Response:
        await self._directory.delete(call.project, *call.stream)
        return Response(status=204)

    async def scale(self, call: Call) -> Response:
        request = decode_partition_count(call.body)
        target = request.target_partition_count
        if target < 1:
            raise api_error("DIS.4200", f"[target_partition_count={target} is less than 1]")
        if target > MAX_INTEGER:  # it would be remembered, and told to all who ask
            raise api_error("DIS.4200", f"[target_partition_count is more than {MAX_INTEGER}]")
        name = _same_stream(call, request.stream_name)
        before, now = await self._scaling.scale(call.project, *call.stream, target)
        body = encode_partition_count_answer(name, before, now)
        return json_response(body)

    async def update(self, call: Call) -> Response:
        await self._update(call)
        return Response(status=204)

    async def update_v2(self, call: Call) -> Response:
        doc = await self._update(call)
        return json_response(encode_update_answer(doc.name, doc.data_type))

    async def _update(self, call: Call) -> StreamDoc:
        request = decode_update(call.body)
        _same_stream(call, request.stream_name)

        def edit(doc: StreamDoc) -> StreamDoc:
            return updated_stream(doc, request, max_partitions=self._config.max_partitions, now_ms=clock.wall_ms())

        return await self._directory.change(call.project, *call.stream, edit)

    async def listing(self, call: Call) -> Response:
        limit = call.number("limit", default=10, low=1, high=100)
        docs, more = await self._directory.page(call.project, call.query.get("start_stream_name", ""), limit)
        total = await self._directory.count(call.project)
        return json_response(encode_list(list(map(_summary, docs)), total=total, has_more=more))

    async def describe(self, call: Call) -> Response:
        limit = call.number("limit_partitions", default=100, low=1, high=1000)
        stream = await self._directory.find(call.project, *call.stream, caller=call.caller, action="getStreamInfo")
        # The documented name, and the one official clients send.
        start = call.query.get("start_partition_id") or call.query.get("start_partitionId")
        behind = list(stream.doc.partitions)
        if start:
            number = partition_number(start)
            if stream.doc.partition(number) is None:
                raise api_error("DIS.4302", f"[{partition_id(number)}]")
            behind = [p for p in behind if p.number > number]
        doc = stream.doc
        layouts = await self._scaling.layouts(doc.stream_id) if doc.changes else None
        page = await told_partitions(self._engine.log, doc.stream_id, behind[:limit], layouts)
        answer = json_response(
            encode_describe(_info(stream, self._config.retention_bytes), page, has_more=len(behind) > limit)
        )
        answer.headers[LAYOUTS_HEADER] = str(doc.changes)
        if (caps := encode_caps(self._flow.caps(doc))) is not None:
            answer.headers[CAPS_HEADER] = caps
        return answer


def _same_stream(call: Call, named: str | None) -> str:
    """The stream's name in the path, which is also what the body has to name, if it names one (API 5.1.5)."""
    name = call.params["stream_name"]
    if named and named != name:
        raise api_error("DIS.4200", f"[stream_name={named[:80]!r} in the body is not {name[:80]!r} of the path]")
    return name


def _summary(doc: StreamDoc) -> StreamSummary:
    return StreamSummary(
        name=doc.name,
        stream_id=doc.stream_id,
        status="RUNNING",
        stream_type=doc.stream_type,
        data_type=doc.data_type,
        partition_count=writable_count(doc),
        retention_h=doc.retention_h,
        create_time=doc.create_time,
        auto_scale=doc.auto_scale,
        tags=doc.tags,
        sys_tags=doc.sys_tags,
    )


def _info(stream: Stream, retention_bytes: int | None) -> StreamInfo:
    """`retention_bytes`: of streams without a bound of their own."""
    doc = stream.doc
    return StreamInfo(
        name=doc.name,
        stream_id=doc.stream_id,
        status="RUNNING",
        stream_type=doc.stream_type,
        data_type=doc.data_type,
        data_schema=doc.data_schema,
        compression_format=doc.compression_format,
        csv_delimiter=doc.csv_delimiter,
        retention_h=doc.retention_h,
        retention_bytes=doc.retention_bytes or retention_bytes,
        create_time=doc.create_time,
        last_modified_time=doc.last_modified_time,
        writable_partition_count=writable_count(doc),
        readable_partition_count=sum(p.status != EXPIRED for p in doc.partitions),
        auto_scale=doc.auto_scale,
        scalings=tuple(
            Scaling(
                create_time=s.at_ms, source=s.source, target=s.target, automatic=s.automatic, result_code=s.result_code
            )
            for s in doc.scalings
        ),
        tags=doc.tags,
        sys_tags=doc.sys_tags,
    )
