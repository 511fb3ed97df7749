"""disstream: an asyncio producer and consumer for DIS, and a server that speaks its API.

connect   a client for a service: `disstream.connect("http://127.0.0.1:8080", project_id="demo")`
serve     a service in this process: `disstream.serve(disstream.ServerConfig(data_dir=None, port=0))`

Everything public is here, except `disstream.blocking`, the same for scripts and threads, and `disstream.testing`: who
wants those imports them.

A name is fetched from its room when it is first asked for, and the room with it: who produces starts without the
server, a server without the client, and `disstream --help` without either. That takes up to some tenths of a second:
whose event loop cannot spare them names what it needs at the top, `from disstream import connect, ConsumerConfig`.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .client import AccessKey, Client, ClientConfig, ClientStats, Credentials, Password, Token, Transport
    from .consumer import (
        Consumer,
        ConsumerConfig,
        ConsumerStats,
        Leases,
        PartitionReading,
        Pattern,
        ServiceGroup,
        Stall,
        Start,
        Static,
    )
    from .destinations import (
        CloudTableColumn,
        CloudTableDump,
        CloudTableRowKey,
        CloudTableSchema,
        DliDump,
        Dump,
        DumpProgress,
        DumpTask,
        DumpTaskInfo,
        DwsDump,
        DwsOptions,
        MrsDump,
        ObsDump,
        OpenTsdbMetric,
        OpenTsdbSchema,
        OpenTsdbTag,
        OpenTsdbTimestamp,
        OpenTsdbValue,
        ProcessingSchema,
    )
    from .door import DisClient, connect, serve
    from .errors import (
        ApiError,
        AuthError,
        BufferFull,
        CatalogConflict,
        ClosedError,
        ConcurrencyError,
        ConfigError,
        ConflictError,
        CoordinationUnsupported,
        CursorExpired,
        DeliveryFailed,
        DeliveryUnknown,
        DisError,
        FailedRecord,
        LeaseLost,
        NotFoundError,
        NotStored,
        OutcomeUnknown,
        QuotaError,
        RecordRejected,
        Reject,
        SequenceOutOfRange,
        ServerFault,
        StaleGeneration,
        StorageError,
        StorageFull,
        StoreUnavailable,
        ThrottledError,
        TransportError,
        Undelivered,
        WaitTimeout,
    )
    from .leases import LeaseStore, MemoryLeases, PostgresLeases, RedisLeases, SqliteLeases
    from .model import (
        AppInfo,
        AutoScale,
        Caps,
        Checkpoint,
        Cursor,
        DataPoint,
        GroupInfo,
        GroupMember,
        HashRange,
        LayoutBound,
        Metric,
        NewRecord,
        Page,
        Partition,
        PartitionInfo,
        PartitionState,
        PolicyRule,
        PutResult,
        PutResults,
        Record,
        Scaling,
        SequenceRange,
        StreamInfo,
        StreamSummary,
        TaggedStream,
    )
    from .producer import (
        BatchDelivery,
        Delivery,
        Envelope,
        HotKey,
        Order,
        Pace,
        PartitionStats,
        Payload,
        Producer,
        ProducerConfig,
        ProducerStats,
        Receipt,
        Receipts,
        ScaleAdvice,
        SpilledRecord,
        json,
        read_spill,
    )
    from .server import Server, ServerConfig, ServerStats
    from .wire.envelope import unwrap
    from .worker import PartitionWork, Worker, WorkerConfig, WorkerStats

__all__ = [
    "AccessKey",
    "ApiError",
    "AppInfo",
    "AuthError",
    "AutoScale",
    "BatchDelivery",
    "BufferFull",
    "Caps",
    "CatalogConflict",
    "Checkpoint",
    "Client",
    "ClientConfig",
    "ClientStats",
    "ClosedError",
    "CloudTableColumn",
    "CloudTableDump",
    "CloudTableRowKey",
    "CloudTableSchema",
    "ConcurrencyError",
    "ConfigError",
    "ConflictError",
    "Consumer",
    "ConsumerConfig",
    "ConsumerStats",
    "CoordinationUnsupported",
    "Credentials",
    "Cursor",
    "CursorExpired",
    "DataPoint",
    "Delivery",
    "DeliveryFailed",
    "DeliveryUnknown",
    "DisClient",
    "DisError",
    "DliDump",
    "Dump",
    "DumpProgress",
    "DumpTask",
    "DumpTaskInfo",
    "DwsDump",
    "DwsOptions",
    "Envelope",
    "FailedRecord",
    "GroupInfo",
    "GroupMember",
    "HashRange",
    "HotKey",
    "LayoutBound",
    "LeaseLost",
    "LeaseStore",
    "Leases",
    "MemoryLeases",
    "Metric",
    "MrsDump",
    "NewRecord",
    "NotFoundError",
    "NotStored",
    "ObsDump",
    "OpenTsdbMetric",
    "OpenTsdbSchema",
    "OpenTsdbTag",
    "OpenTsdbTimestamp",
    "OpenTsdbValue",
    "Order",
    "OutcomeUnknown",
    "Pace",
    "Page",
    "Partition",
    "PartitionInfo",
    "PartitionReading",
    "PartitionState",
    "PartitionStats",
    "PartitionWork",
    "Password",
    "Pattern",
    "Payload",
    "PolicyRule",
    "PostgresLeases",
    "ProcessingSchema",
    "Producer",
    "ProducerConfig",
    "ProducerStats",
    "PutResult",
    "PutResults",
    "QuotaError",
    "Receipt",
    "Receipts",
    "Record",
    "RecordRejected",
    "RedisLeases",
    "Reject",
    "ScaleAdvice",
    "Scaling",
    "SequenceOutOfRange",
    "SequenceRange",
    "Server",
    "ServerConfig",
    "ServerFault",
    "ServerStats",
    "ServiceGroup",
    "SpilledRecord",
    "SqliteLeases",
    "StaleGeneration",
    "Stall",
    "Start",
    "Static",
    "StorageError",
    "StorageFull",
    "StoreUnavailable",
    "StreamInfo",
    "StreamSummary",
    "TaggedStream",
    "ThrottledError",
    "Token",
    "Transport",
    "TransportError",
    "Undelivered",
    "WaitTimeout",
    "Worker",
    "WorkerConfig",
    "WorkerStats",
    "__version__",
    "connect",
    "json",
    "read_spill",
    "serve",
    "unwrap",
]

_ROOMS = {
    "client": "AccessKey Client ClientConfig ClientStats Credentials Password Token Transport",
    "consumer": "Consumer ConsumerConfig ConsumerStats Leases PartitionReading Pattern ServiceGroup Stall Start Static",
    "destinations": (
        "CloudTableColumn CloudTableDump CloudTableRowKey CloudTableSchema DliDump Dump DumpProgress DumpTask "
        "DumpTaskInfo DwsDump DwsOptions MrsDump ObsDump OpenTsdbMetric OpenTsdbSchema OpenTsdbTag "
        "OpenTsdbTimestamp OpenTsdbValue ProcessingSchema"
    ),
    "door": "DisClient connect serve",
    "errors": (
        "ApiError AuthError BufferFull CatalogConflict ClosedError ConcurrencyError ConfigError ConflictError "
        "CoordinationUnsupported CursorExpired DeliveryFailed DeliveryUnknown DisError FailedRecord LeaseLost "
        "NotFoundError NotStored OutcomeUnknown QuotaError RecordRejected Reject SequenceOutOfRange ServerFault "
        "StaleGeneration StorageError StorageFull StoreUnavailable ThrottledError TransportError Undelivered "
        "WaitTimeout"
    ),
    "leases": "LeaseStore MemoryLeases PostgresLeases RedisLeases SqliteLeases",
    "model": (
        "AppInfo AutoScale Caps Checkpoint Cursor DataPoint GroupInfo GroupMember HashRange LayoutBound Metric "
        "NewRecord Page Partition PartitionInfo PartitionState PolicyRule PutResult PutResults Record Scaling "
        "SequenceRange StreamInfo StreamSummary TaggedStream"
    ),
    "producer": (
        "BatchDelivery Delivery Envelope HotKey Order Pace PartitionStats Payload Producer ProducerConfig "
        "ProducerStats Receipt Receipts ScaleAdvice SpilledRecord json read_spill"
    ),
    "server": "Server ServerConfig ServerStats",
    "wire.envelope": "unwrap",
    "worker": "PartitionWork Worker WorkerConfig WorkerStats",
}
"""Room -> the public names in it: the imports above, for those who run this and do not check its types."""

_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names.split()}
_MODULES = {"clock", "engine", "lifecycle", "wire", *_ROOMS} - {"wire.envelope"}

if not TYPE_CHECKING:  # to type checkers every name would seem to be there

    def __getattr__(name: str) -> object:
        if name in _MODULES:  # `import disstream` is enough for `disstream.engine`
            return importlib.import_module(f".{name}", __name__)
        if name not in _ROOM_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(f".{_ROOM_OF[name]}", __name__), name)
        globals()[name] = found  # the next time it is simply there
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
