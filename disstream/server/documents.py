"""What the catalog holds about streams: the key scheme and the documents. Pure.

    stream/{project}/{name}      -> StreamDoc as JSON
    stream-id/{project}/{id}     -> name
    dropping/{id}                -> nothing; a tombstone: partitions of a stream that is no more, or not yet
    app/{project}/{app}          -> AppDoc as JSON                                       (apps.py)
    checkpoint/{project}/{app}/{stream id}/{partition, 10 digits}  -> CheckpointDoc      (progress.py)
    reader/{stream id}/{project}/{app}   -> nothing; the app has or had a checkpoint on the stream
    group/{project}/{app}        -> GroupDoc as JSON                                     (group.py)
    grant/{stream id}/{domain}/{user or *}/{action}  -> {project}/{name}                 (policies.py)
    layout/{stream id}/{change, 10 digits}  -> LayoutDoc                                 (scaling.py)
    task/{stream id}/{task name}     -> TaskDoc                                          (dumps.py)
    traffic/{stream id}/{hour, 10 digits}   -> what was counted in that hour             (metrics.py)

The first two are written and deleted together. A tombstone stands from before the log opens the stream's partitions
until the transaction that writes those two, and from the transaction that deletes them until the log has forgotten the
partitions. So after a crash the next start drops every stream with a tombstone, and no other partition is left over.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from operator import attrgetter

import msgspec

from ..engine import PartitionRef
from ..model import AutoScale, HashRange

STREAMS = "stream/"
STREAM_IDS = "stream-id/"
DROPPING = "dropping/"
TRAFFIC = "traffic/"

APP = re.compile(r"[A-Za-z0-9_-]{1,200}", re.ASCII)
"""App names."""

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
"""Stream names and project ids. None of their characters is the separator of the keys."""

_ID = re.compile(r"[A-Za-z0-9]{1,60}", re.ASCII)


def stream_key(project: str, name: str) -> str | None:
    """None for what cannot be a name: no need to ask the catalog, whose keys are bounded."""
    return f"{STREAMS}{project}/{name}" if NAME.fullmatch(name) else None


def id_key(project: str, stream_id: str) -> str | None:
    """None for what cannot be an id."""
    return f"{STREAM_IDS}{project}/{stream_id}" if _ID.fullmatch(stream_id) else None


def streams_of(project: str) -> str:
    """The prefix of a project's stream keys; what follows it is the name."""
    return f"{STREAMS}{project}/"


def app_key(project: str, app: str) -> str | None:
    """None for what cannot be an app's name."""
    return f"{apps_of(project)}{app}" if APP.fullmatch(app) else None


def apps_of(project: str) -> str:
    """The prefix of a project's app keys; what follows it is the name."""
    return f"app/{project}/"


def checkpoints_of(project: str, app: str, stream_id: str = "") -> str:
    """The prefix of an app's checkpoints: all, or those on one stream."""
    return f"checkpoint/{project}/{app}/" + (f"{stream_id}/" if stream_id else "")


def checkpoint_key(project: str, app: str, stream_id: str, partition: int) -> str:
    return f"{checkpoints_of(project, app, stream_id)}{partition:010d}"


def reader_key(stream_id: str, project: str, app: str) -> str:
    return f"{readers_of(stream_id)}{project}/{app}"


def readers_of(stream_id: str) -> str:
    """The prefix of the marks of a stream's apps; what follows it is {project}/{app}."""
    return f"reader/{stream_id}/"


def group_key(project: str, app: str) -> str:
    return f"group/{project}/{app}"


def grant_key(stream_id: str, domain: str, user: str, action: str) -> str:
    """`user` is "*" for everybody of the domain. None of the names holds the separator (users.py)."""
    return f"{grants_of(stream_id)}{domain}/{user}/{action}"


def grants_of(stream_id: str, domain: str = "", user: str = "") -> str:
    """The prefix of a stream's grants: all, or those to one user of a domain ("*": to everybody of it)."""
    return f"grant/{stream_id}/" + (f"{domain}/{user}/" if domain else "")


def layouts_of(stream_id: str) -> str:
    """The prefix of the changes of a stream's layout; what follows it is the change's number."""
    return f"layout/{stream_id}/"


def layout_key(stream_id: str, change: int) -> str:
    return f"{layouts_of(stream_id)}{change:010d}"


def tasks_of(stream_id: str) -> str:
    """The prefix of a stream's dump tasks; what follows it is the name."""
    return f"task/{stream_id}/"


def task_key(stream_id: str, task: str) -> str | None:
    """None for what cannot be a task's name."""
    return f"{tasks_of(stream_id)}{task}" if NAME.fullmatch(task) else None


def traffic_of(stream_id: str) -> str:
    """The prefix of what was counted of a stream; what follows it is the hour since the epoch."""
    return f"{TRAFFIC}{stream_id}/"


def traffic_key(stream_id: str, hour: int) -> str:
    return f"{traffic_of(stream_id)}{hour:010d}"


def belongings_of(stream_id: str) -> tuple[str, ...]:
    """The prefixes of what goes with a deleted stream, besides checkpoints. Adding to them takes its document."""
    return grants_of(stream_id), layouts_of(stream_id), tasks_of(stream_id), traffic_of(stream_id)


def is_id(text: str) -> bool:
    """Whether it can be a stream's id."""
    return _ID.fullmatch(text) is not None


def dropping_key(stream_id: str) -> str:
    return f"{DROPPING}{stream_id}"


class PartitionDoc(msgspec.Struct, frozen=True, gc=False):
    """A partition; its records live in the log under the stream's id and `number`.

    One that is not ACTIVE owns no hash keys: its range is (-1, -1).
    """

    number: int
    epoch: int
    low: int
    high: int
    status: str = "ACTIVE"
    deleted_ms: int = 0
    """When it was taken out of the layout, if it is DELETED."""

    @property
    def writable(self) -> bool:
        return self.status == "ACTIVE"

    @property
    def hash_range(self) -> HashRange:
        return HashRange(self.low, self.high)


_number_of = attrgetter("number")


class ScalingDoc(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A change of the number of partitions that was carried out, or was asked for and could not be."""

    at_ms: int
    source: int
    target: int
    automatic: bool = False
    result_code: int = 0


class LayoutDoc(msgspec.Struct, frozen=True, array_like=True):
    """A change of a stream's layout: partition -> the first sequence number written under it."""

    at_ms: int
    bounds: dict[int, int]


class StreamDoc(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A stream. Times are ms since the epoch; `partitions` ascend by number.

    `retention_bytes`: what it may hold, if it has a bound of its own. `pending`: the partitions of a change that is
    under way (scaling.py); `changes`: how many there have been.
    """

    stream_id: str
    name: str
    create_time: int
    last_modified_time: int
    retention_h: int
    retention_bytes: int | None = None
    stream_type: str
    data_type: str
    partitions: tuple[PartitionDoc, ...]
    data_schema: str | None = None
    compression_format: str | None = None
    csv_delimiter: str | None = None
    auto_scale: AutoScale | None = None
    scalings: tuple[ScalingDoc, ...] = ()
    changes: int = 0
    pending: tuple[PartitionDoc, ...] = ()
    pending_scaling: ScalingDoc | None = None
    tags: dict[str, str] = {}
    sys_tags: dict[str, str] = {}

    def partition(self, number: int) -> PartitionDoc | None:
        place = bisect_left(self.partitions, number, key=_number_of)
        found = self.partitions[place : place + 1]
        return found[0] if found and found[0].number == number else None

    def refs(self) -> dict[PartitionRef, int]:
        """Every partition as the log knows it, with its epoch."""
        return {PartitionRef(self.stream_id, p.number): p.epoch for p in self.partitions}


encode_layout = msgspec.json.Encoder().encode
decode_layout = msgspec.json.Decoder(LayoutDoc).decode

encode_document = msgspec.json.Encoder().encode
decode_document = msgspec.json.Decoder(StreamDoc).decode
