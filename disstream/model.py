"""The words of disstream as types: what users hold, what crosses the rooms.

Values only. Structs that exist once per record are msgspec structs without GC tracking: creating one costs a tenth
of a frozen dataclass, and the collector never walks them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import msgspec

from .errors import DeliveryFailed, RecordRejected

MAX_HASH_KEY = 2**63 - 1
"""The highest hash key, and the highest sequence number a cursor may name."""


class Partition(NamedTuple):
    """A partition as consumers name it."""

    stream: str
    partition_id: str


class HashRange(NamedTuple):
    """Hash keys a partition owns, both ends included."""

    low: int
    high: int


class SequenceRange(NamedTuple):
    """`start` is the oldest sequence number still readable, `end` the next one to be written (exclusive)."""

    start: int
    end: int


class Record(msgspec.Struct, frozen=True, gc=False, eq=False, rename={"key": "partition_key"}):
    """A record as read from a stream. Immutable.

    `timestamp` is milliseconds since the epoch: the producer's own if it gave one, else when the service wrote it.
    What only records out of an envelope have is None for the others: `headers`, and the identity by which a record that
    was stored twice is known, `producer_id` and the `number` that producer gave it.
    `count` records share the sequence number, this is number `index` of them; 1 and 0 without an envelope.
    """

    data: bytes
    sequence_number: int
    timestamp: int = 0
    key: str | None = None
    stream: str = ""
    partition_id: str = ""

    # Of the class: what pages decode into grows by nothing.
    index: ClassVar[int] = 0
    count: ClassVar[int] = 1
    headers: ClassVar[Mapping[str, str] | None] = None
    producer_id: ClassVar[str | None] = None
    number: ClassVar[int | None] = None

    @property
    def partition(self) -> Partition:
        return Partition(self.stream, self.partition_id)

    def text(self) -> str:
        """The data as UTF-8 text; raises UnicodeDecodeError."""
        return self.data.decode()

    def json(self) -> Any:
        """The data decoded as JSON; raises msgspec.DecodeError (a ValueError)."""
        return msgspec.json.decode(self.data)

    # Pages decode into a subclass per partition, whose defaults are the stream and the partition (wire/records.py):
    # equality, hash, repr and pickling must not tell the subclass from the class.
    def _values(self) -> tuple[object, ...]:
        return (self.data, self.sequence_number, self.timestamp, self.key, self.stream, self.partition_id)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((self.stream, self.partition_id, self.sequence_number))

    def __reduce__(self) -> tuple[Any, ...]:
        return (Record, self._values())


class InnerRecord(Record, frozen=True, gc=False, eq=False):
    """A record taken out of an envelope (wire/envelope.py). To users it is a `Record`."""

    index: int = 0  # type: ignore[misc]
    count: int = 1  # type: ignore[misc]
    headers: Mapping[str, str] | None = None  # type: ignore[misc]
    producer_id: str | None = None  # type: ignore[misc]
    number: int | None = None  # type: ignore[misc]

    def _values(self) -> tuple[object, ...]:
        return (*super()._values(), self.index, self.count, self.headers, self.producer_id, self.number)

    def __hash__(self) -> int:
        return hash((self.stream, self.partition_id, self.sequence_number, self.index))

    def __reduce__(self) -> tuple[Any, ...]:
        return (InnerRecord, self._values())


class NewRecord(msgspec.Struct, gc=False, omit_defaults=True, rename={"key": "partition_key", "headers": "(headers)"}):
    """A record to be written; also its form on the wire (PutRecordsRequestEntry, API 5.4.1).

    Routing precedence: `partition_id`, `explicit_hash_key` (decimal digits, 0 to 2**63-1), `key`; with none of them the
    service picks a partition. With `partition_id` the service does not keep the key. `timestamp`: ms since the epoch.
    `headers` travel in an envelope, which only a producer makes; the name keeps what others call so apart from them.
    """

    data: bytes
    key: str | None = None
    partition_id: str | None = None
    explicit_hash_key: str | None = None
    timestamp: Annotated[int, msgspec.Meta(ge=0, le=MAX_HASH_KEY)] | None = None
    headers: dict[str, str] | None = None


class PutResult(msgspec.Struct, frozen=True, gc=False):
    """What became of one record of a put: stored at (`partition_id`, `sequence_number`), or `error_code`."""

    partition_id: str | None = None
    sequence_number: int | None = None
    error_code: str | None = None
    error_message: str | None = None

    @property
    def ok(self) -> bool:
        return not self.error_code


class PutResults(list[PutResult]):
    """One result per record, in the order of the request."""

    @property
    def failed(self) -> list[tuple[int, PutResult]]:
        """(index, result) of every record that was not stored."""
        return [(i, r) for i, r in enumerate(self) if not r.ok]

    def raise_for_failed(self) -> Self:
        """Raise `DeliveryFailed` if any record was not stored (its `results` are these), else return self."""
        failed = self.failed
        if failed:
            index, first = failed[0]
            error = DeliveryFailed(
                f"{len(failed)} of {len(self)} records were not stored; the first is record {index}: "
                f"{RecordRejected(first.error_code or '', first.error_message or '')}"
            )
            error.results = tuple(self)
            raise error
        return self


class Cursor(str):
    """An opaque read position, valid for 5 minutes: a plain string that remembers what it points into."""

    __slots__ = ("partition_id", "stream")
    stream: str
    partition_id: str

    def __new__(cls, token: str, stream: str = "", partition_id: str = "") -> Self:
        self = super().__new__(cls, token)
        self.stream = stream
        self.partition_id = partition_id
        return self


class Page(msgspec.Struct, frozen=True):
    """One answer of a read: records in order, and the cursor that continues behind them (5 minutes valid)."""

    records: Sequence[Record]
    """A list, or what makes each record when it is taken: iterate, or make a list of it once, rather than by index."""
    next_cursor: Cursor
    plain: bool = False
    """Whether it is certain that no record holds an envelope, which `disstream.unwrap` would open."""
    changes: int | None = None
    """All records were written before the stream's partitions were changed more often than this (an extension; None:
    the endpoint does not tell)."""


class LayoutBound(NamedTuple):
    """Where a change of a stream's partitions cuts one of them: what lies below `sequence_number` is of the layouts
    before change number `change` (they count from 1), the rest of that change's layout and later ones.
    """

    change: int
    sequence_number: int


class PartitionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A partition as described by the service. ACTIVE: written and read; DELETED: still read; EXPIRED: gone.

    `hash_range` is None for a partition that owns none; `sequence_range` is None once it expired. `bounds`, ascending:
    the changes of the layout that records still to be read may lie before (an extension; empty without it).
    """

    partition_id: str
    status: str = "ACTIVE"
    hash_range: HashRange | None = None
    sequence_range: SequenceRange | None = None
    parent_partitions: str | None = None
    bounds: tuple[LayoutBound, ...] = ()

    READABLE: ClassVar[frozenset[str]] = frozenset({"ACTIVE", "DELETED"})

    @property
    def writable(self) -> bool:
        return self.status == "ACTIVE"

    @property
    def readable(self) -> bool:
        return self.status in self.READABLE


class AutoScale(NamedTuple):
    """Bounds between which the service chooses the number of partitions by itself, both included."""

    min_partitions: int
    max_partitions: int


class Scaling(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the number of partitions as the service remembers it. `create_time` is ms since the epoch."""

    create_time: int
    source: int
    target: int
    automatic: bool = False
    result_code: int | None = None


class StreamSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A stream as listed (API 5.1.2). Times are ms since the epoch, `retention_h` hours."""

    name: str
    stream_id: str = ""
    status: str = ""
    stream_type: str = "COMMON"
    data_type: str = "BLOB"
    partition_count: int = 0
    retention_h: int = 24
    create_time: int = 0
    auto_scale: AutoScale | None = None
    tags: dict[str, str] = {}
    sys_tags: dict[str, str] = {}


class Caps(msgspec.Struct, frozen=True):
    """How fast each partition of a stream may be written: records and payload bytes per second. None: no cap."""

    records_per_s: int | None = None
    bytes_per_s: int | None = None


class StreamInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A stream as described (API 5.1.4), with all its partitions. Times are ms since the epoch.

    `caps`, `changes` and `retention_bytes` are extensions; None: the endpoint does not tell (or, of the last, records
    are kept by time only). `changes`: how often the partitions were changed so far; bounds of no more changes are to be
    relied on.
    """

    name: str
    stream_id: str
    status: str
    stream_type: str = "COMMON"
    data_type: str = "BLOB"
    data_schema: str | None = None
    compression_format: str | None = None
    csv_delimiter: str | None = None
    retention_h: int = 24
    retention_bytes: int | None = None
    create_time: int = 0
    last_modified_time: int = 0
    partitions: tuple[PartitionInfo, ...] = ()
    writable_partition_count: int = 0
    readable_partition_count: int = 0
    auto_scale: AutoScale | None = None
    scalings: tuple[Scaling, ...] = ()
    tags: dict[str, str] = {}
    sys_tags: dict[str, str] = {}
    caps: Caps | None = None
    changes: int | None = None


class AppInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An app as described (API 5.2.4). `create_time` is ms since the epoch; `streams`: those it has checkpoints on."""

    name: str
    app_id: str = ""
    create_time: int = 0
    streams: tuple[str, ...] = ()


class Checkpoint(msgspec.Struct, frozen=True):
    """A checkpoint as the service keeps it: what the number means is up to who committed it.

    `wire.checkpoints.position` reads the ones disstream writes, and those of others without losing a record.
    """

    sequence_number: int
    metadata: str = ""


class PartitionState(msgspec.Struct, frozen=True, kw_only=True):
    """A partition as one app sees it (API 5.2.5). `checkpoint` is None where the app has none.

    `earliest` is the oldest sequence number still readable, `latest` the next one to be written.
    """

    partition_id: str
    checkpoint: Checkpoint | None = None
    earliest: int = 0
    latest: int = 0
    status: str = "ACTIVE"
    committed_ms: int | None = None
    """When the checkpoint was committed, ms since the epoch. None: none was, or the service does not tell."""
    committed_by: str = ""
    """The member that committed it. Empty: somebody outside the group, or the service does not tell."""


class GroupMember(msgspec.Struct, frozen=True, kw_only=True):
    """A member of an app's group: what it reads, and how long ago the service heard of it."""

    member_id: str
    partitions: dict[str, list[int]] = {}
    """Stream name -> partition numbers."""
    silent_s: float = 0.0


class GroupInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The group of an app. `state`: EMPTY, JOINING, SYNCING or STABLE."""

    state: str
    generation: int
    members: tuple[GroupMember, ...] = ()


class PolicyRule(msgspec.Struct, frozen=True, kw_only=True):
    """Who else may do what with a stream (API 5.1.8). `principal` is `domain.user` or `domain.*`."""

    principal: str
    action: str
    effect: str = "accept"
    principal_id: str = ""


STREAM_METRICS = (
    "total_put_bytes_per_stream",
    "total_get_bytes_per_stream",
    "total_put_records_per_stream",
    "total_get_records_per_stream",
    "total_put_req_latency",
    "total_get_req_latency",
    "total_put_req_suc_per_stream",
    "total_get_req_suc_per_stream",
    "traffic_control_put",
    "traffic_control_get",
)
"""What the service counts of a stream (API 5.6.1). Bytes are payload, latencies ms on average, the rest are numbers of
records, of successful requests, and of requests refused by flow control.
"""

PARTITION_METRICS = (
    "total_put_bytes_per_partition",
    "total_get_bytes_per_partition",
    "total_put_records_per_partition",
    "total_get_records_per_partition",
)
"""What the service counts of a partition (API 5.6.2)."""


class DataPoint(NamedTuple):
    """What was counted in one minute. `timestamp`: its first second, since the epoch."""

    timestamp: int
    value: int


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted under one label (API 5.6). Minutes in which nothing happened may be missing."""

    label: str
    points: tuple[DataPoint, ...] = ()


class TaggedStream(msgspec.Struct, frozen=True, kw_only=True):
    """A stream as found by its tags (API 5.7.6)."""

    name: str
    stream_id: str
    tags: dict[str, str] = {}
