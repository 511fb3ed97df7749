"""Dump tasks as the catalog holds them and as they are told (API 5.5). Pure.

    create -> ABNORMAL <-start / stop-> PAUSED

Nothing copies yet: a task keeps its destination and the positions it was created at, and tells so.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ..destinations import Dump, DumpProgress, DumpTask, DumpTaskInfo
from ..model import PartitionInfo
from ..wire.dumps import descriptor_of, read_descriptor
from ..wire.errors import api_error
from ..wire.partitioning import partition_number

MAX_BODY_BYTES = 1_048_576
"""Of a request about tasks: room for 4,096 columns with names of 64 characters. It bounds a task's document too, which
holds nothing but what was sent, the defaults, and a number per partition."""
MAX_STREAM_BYTES = 16 * MAX_BODY_BYTES
"""Of the documents of one stream's tasks together: what a list, and the deletion of the stream, cost at most."""

ABNORMAL, PAUSED = "ABNORMAL", "PAUSED"

_REASONS = {
    ABNORMAL: "this server does not run dump tasks yet: the task is kept with the positions it starts from",
    PAUSED: "stopped by request; this server does not run dump tasks yet",
}
_NO_PASSWORD = "; its user_password was not kept"

_ID_LETTERS = string.ascii_letters + string.digits


def check_size(body: bytes) -> bytes:
    """The body, if it may be decoded. Raises ApiError 413 with DIS.4200."""
    if len(body) > MAX_BODY_BYTES:
        told = f"[the body has {len(body)} bytes, more than the {MAX_BODY_BYTES} of a request about dump tasks]"
        raise api_error("DIS.4200", told, status=413)
    return body


class TaskHead(msgspec.Struct, frozen=True, kw_only=True):
    """A task without what may be large in it. `create_time` is ms since the epoch."""

    task_id: str
    name: str
    state: str
    destination_type: str
    create_time: int


class TaskDoc(TaskHead, frozen=True, kw_only=True):
    """A task. `destination`: its descriptor as on the wire.

    `starts`: partition number -> the sequence number at which copying begins there, fixed when the task was created. A
    partition that is not in it did not exist then: all of it is to be copied.
    """

    destination: msgspec.Raw
    starts: dict[int, int]


encode_task = msgspec.json.Encoder().encode
decode_task = msgspec.json.Decoder(TaskDoc).decode
decode_head = msgspec.json.Decoder(TaskHead).decode


def new_task(destination: Dump, starts: Mapping[int, int], *, now_ms: int, source: random.Random) -> TaskDoc:
    return TaskDoc(
        # As long as the service's own ids.
        task_id="".join(source.choices(_ID_LETTERS, k=19)),
        name=destination.task_name,
        state=ABNORMAL,
        destination_type=destination.destination_type,
        create_time=now_ms,
        destination=msgspec.Raw(msgspec.json.encode(descriptor_of(destination))),
        starts=dict(starts),
    )


def summary(task: TaskHead) -> DumpTask:
    return DumpTask(**_told(task))


def description(task: TaskDoc, stream: str, stream_id: str, partitions: Iterable[PartitionInfo]) -> DumpTaskInfo:
    return DumpTaskInfo(
        **_told(task),
        stream=stream,
        stream_id=stream_id,
        destination=read_descriptor(task.destination_type, msgspec.json.decode(task.destination)),
        partitions=tuple(
            DumpProgress(partition=p, state=task.state, start_offset=task.starts.get(partition_number(p.partition_id)))
            for p in partitions
        ),
    )


def _told(task: TaskHead) -> dict[str, Any]:
    return {
        "name": task.name,
        "task_id": task.task_id,
        "state": task.state,
        "state_reason": _REASONS[task.state] + (_NO_PASSWORD if task.destination_type == "DWS" else ""),
        "destination_type": task.destination_type,
        "create_time": task.create_time,
    }
