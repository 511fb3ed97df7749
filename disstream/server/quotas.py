"""What the streams of a project may take together. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ..wire.errors import api_error
from .config import ServerConfig
from .documents import StreamDoc


def has_quotas(config: ServerConfig) -> bool:
    """False: nothing has to be counted."""
    return (config.max_streams, config.max_common_partitions, config.max_advanced_partitions) != (None, None, None)


def writable_partitions(doc: StreamDoc) -> int:
    """What the stream takes of its project's quota: while it is being scaled, the larger number."""
    return max(sum(p.writable for p in doc.partitions), sum(p.writable for p in doc.pending))


def check_quotas(
    config: ServerConfig, docs: Sequence[StreamDoc], stream_type: str, *, partitions: int, streams: int
) -> None:
    """Raise ApiError DIS.4308 if a project with these streams may not have so many more."""
    most = config.max_streams
    if most is not None and len(docs) + streams > most:
        raise api_error("DIS.4308", f"[the project has {len(docs)} streams of the {most} it may have: delete some]")
    most = config.max_common_partitions if stream_type == "COMMON" else config.max_advanced_partitions
    taken = sum(writable_partitions(doc) for doc in docs if doc.stream_type == stream_type)
    if most is not None and taken + partitions > most:
        raise api_error(
            "DIS.4308",
            f"[{partitions} more {stream_type} partitions: the project has {taken} of the {most} it may have]",
        )
