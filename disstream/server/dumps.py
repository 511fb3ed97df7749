"""Dump tasks: create, list, describe, delete, start and stop (API 5.5).

A task is created in one transaction that expects the stream as it was seen, and writes the stream's document again,
unchanged. So no task is left of a deleted stream, and of two that are created at once the second sees the first: both
count, and only one finds the stream at the version it saw. Starting and stopping changes all the tasks named, or none.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import anyio
import msgspec
from anyio import to_thread

from .. import clock
from ..destinations import Dump
from ..engine import Engine, PartitionRef, Versioned
from ..errors import ApiError, CatalogConflict
from ..wire.dumps import START, decode_change, decode_create, encode_detail, encode_list
from ..wire.errors import api_error
from ..wire.http import Response, json_response
from .call import Call
from .config import ServerConfig
from .destinations import LATEST, check_suits, wanted
from .directory import Directory, Stream
from .documents import encode_document, task_key, tasks_of
from .dumping import (
    ABNORMAL,
    MAX_STREAM_BYTES,
    PAUSED,
    check_size,
    decode_head,
    decode_task,
    description,
    encode_task,
    new_task,
    summary,
)
from .partitions import told_partitions

T = TypeVar("T")

logger = logging.getLogger("disstream.server")

NO_QUOTA = 2**31 - 1
"""What a list tells where there is none: the most an official client can read."""
_PAGE = 16  # documents at a time: one may have a megabyte
_INLINE_BYTES = 32_768
"""Descriptors up to this size are checked and told where they are: 10 ms at most. The largest takes 300."""


class DumpTasks:
    def __init__(self, engine: Engine, directory: Directory, config: ServerConfig, source: random.Random) -> None:
        self._log = engine.log
        self._catalog = engine.catalog
        self._directory = directory
        self._quota = NO_QUOTA if config.max_dump_tasks is None else config.max_dump_tasks
        self._source = source
        self._threads = anyio.CapacityLimiter(1)  # they share the interpreter with the loop

    async def create(self, call: Call) -> Response:
        request = decode_create(check_size(call.body))
        destination = await self._apart(len(call.body), lambda: wanted(request))
        while True:
            stream = await self._find(call)
            doc = stream.doc
            check_suits(destination, doc.data_type)
            await self._check_room(doc.stream_id, destination.task_name)
            task = new_task(
                destination, await self._starts(stream, destination), now_ms=clock.wall_ms(), source=self._source
            )
            key = _key(stream, task.name)
            try:
                await self._catalog.transact(
                    {stream.key: stream.version, key: 0},
                    {stream.key: encode_document(doc), key: encode_task(task)},
                )
                break
            except CatalogConflict:
                await anyio.lowlevel.checkpoint()  # somebody changed the stream or its tasks: look again
        logger.info(
            "dump task created: project=%s stream=%s task=%s id=%s type=%s",
            call.project,
            doc.name,
            task.name,
            task.task_id,
            task.destination_type,
        )
        return Response(status=201)

    async def listing(self, call: Call) -> Response:
        stream = await self._find(call)
        tasks = [summary(decode_head(stored.value)) async for _, stored in self._tasks(stream.doc.stream_id)]
        return json_response(encode_list(tasks, quota=self._quota))

    async def describe(self, call: Call) -> Response:
        stream = await self._find(call)
        _, stored = await self._task(stream, call.params["task_name"])
        task = decode_task(stored.value)
        doc = stream.doc
        partitions = await told_partitions(self._log, doc.stream_id, doc.partitions)
        return await self._apart(
            len(stored.value),
            lambda: json_response(encode_detail(description(task, doc.name, doc.stream_id, partitions))),
        )

    async def delete(self, call: Call) -> Response:
        name = call.params["task_name"]
        while True:
            stream = await self._find(call)
            key, stored = await self._task(stream, name)
            try:
                await self._catalog.transact({key: stored.version}, {}, [key])
                break
            except CatalogConflict:
                await anyio.lowlevel.checkpoint()
        logger.info("dump task deleted: project=%s stream=%s task=%s", call.project, stream.doc.name, name)
        return Response(status=204)

    async def change(self, call: Call) -> Response:
        action, ids = decode_change(check_size(call.body))
        state = ABNORMAL if action == START else PAUSED
        while True:
            stream = await self._find(call)
            missing = set(ids)
            expect: dict[str, int] = {}
            put: dict[str, bytes] = {}
            async for key, stored in self._tasks(stream.doc.stream_id):
                head = decode_head(stored.value)
                if head.task_id not in missing:
                    continue
                missing.discard(head.task_id)
                expect[key] = stored.version
                if head.state != state:
                    put[key] = encode_task(msgspec.structs.replace(decode_task(stored.value), state=state))
            if missing:
                raise _not_found(next(task_id for task_id in ids if task_id in missing))
            try:
                await self._catalog.transact(expect, put)
                break
            except CatalogConflict:
                await anyio.lowlevel.checkpoint()
        if put:
            logger.info(
                "dump tasks changed: project=%s stream=%s action=%s tasks=%d",
                call.project,
                stream.doc.name,
                action,
                len(put),
            )
        return Response(status=200)

    async def _apart(self, size: int, work: Callable[[], T]) -> T:
        """What `work` returns or raises; of a large size, from a thread, so that others are served meanwhile."""
        return work() if size <= _INLINE_BYTES else await to_thread.run_sync(work, limiter=self._threads)

    async def _find(self, call: Call) -> Stream:
        return await self._directory.find(call.project, *call.stream)

    async def _task(self, stream: Stream, name: str) -> tuple[str, Versioned]:
        """Key and document of a task. Raises ApiError DIS.4354."""
        key = task_key(stream.doc.stream_id, name)
        stored = await self._catalog.get(key) if key else None
        if key is None or stored is None:
            raise _not_found(name)
        return key, stored

    async def _tasks(self, stream_id: str) -> AsyncIterator[tuple[str, Versioned]]:
        """All tasks of a stream, ascending by name."""
        prefix, after = tasks_of(stream_id), ""
        while page := await self._catalog.scan(prefix, after, _PAGE):
            for found in page:
                yield found
            after = page[-1][0]
            await anyio.lowlevel.checkpoint()

    async def _check_room(self, stream_id: str, name: str) -> None:
        """Raises ApiError DIS.4355 or DIS.4357 if the stream cannot have this task besides those it has."""
        count = size = 0
        taken = task_key(stream_id, name)
        async for key, stored in self._tasks(stream_id):
            if key == taken:
                raise api_error("DIS.4355", f"[{name}]")
            count += 1
            size += len(stored.value)
        if count >= self._quota:
            raise api_error("DIS.4357", f"[the stream has {count} tasks, and may have {self._quota}]")
        if size > MAX_STREAM_BYTES:
            raise api_error(
                "DIS.4357", f"[the stream's {count} tasks take {size} bytes, more than {MAX_STREAM_BYTES}: delete one]"
            )

    async def _starts(self, stream: Stream, destination: Dump) -> dict[int, int]:
        """Where copying begins in each partition that can be read."""
        readable = [p.number for p in stream.doc.partitions]
        bounds = await self._log.bounds([PartitionRef(stream.doc.stream_id, number) for number in readable])
        latest = destination.consumer_strategy == LATEST
        return {
            number: bound.next if latest else bound.oldest
            for number, bound in zip(readable, bounds, strict=True)
            if bound is not None  # nothing is left of an EXPIRED one
        }


def _key(stream: Stream, name: str) -> str:
    key = task_key(stream.doc.stream_id, name)
    assert key is not None  # the name was checked
    return key


def _not_found(name: str) -> ApiError:
    return api_error("DIS.4354", f"[{name[:80]}]")
