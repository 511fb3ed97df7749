"""Which partitions of a stream a consumer reads by its own choice, and where each partition begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..errors import ApiError, ConfigError
from ..model import Partition, PartitionInfo, PartitionState, SequenceRange, StreamInfo
from ..wire.checkpoints import position
from ..wire.partitioning import partition_id, partition_number
from .cursor import Where


def assign(info: StreamInfo, wanted: Sequence[str] | None) -> dict[str, PartitionInfo]:
    """The partitions `wanted` (either spelling; doubles count once), or all that can be read, by their long id.

    Raises ConfigError naming what exists if one is unknown or expired, or if nothing can be read.
    """
    readable = {_number(p.partition_id): p for p in info.partitions if p.readable}
    if wanted is None:
        if not readable:
            raise ConfigError(
                f"stream {info.name!r} (status {info.status}) has no partition to read: wait until it is RUNNING"
            )
        return {partition_id(number): p for number, p in readable.items()}
    chosen = {}
    for text in wanted:
        number = _number(text)
        if number not in readable:
            raise ConfigError(f"no partition {text!r} to read in stream {info.name!r}: {_names(readable)}")
        chosen[partition_id(number)] = readable[number]
    return chosen


def explicit_starts(info: StreamInfo, start: Mapping[str, int] | Mapping[Partition, int]) -> dict[str, Where]:
    """Long partition id -> sequence number. Raises ConfigError if a partition is unknown: a typo must not go unseen."""
    known = {_number(p.partition_id): p for p in info.partitions}
    places: dict[str, Where] = {}
    for name, sequence in start.items():
        if isinstance(name, Partition) and name.stream != info.name:
            continue
        text = name.partition_id if isinstance(name, Partition) else name
        number = _number(text)
        if number not in known:
            raise ConfigError(f"start names partition {text!r}, stream {info.name!r} does not: {_names(known)}")
        places[partition_id(number)] = sequence
    return places


class Begin(NamedTuple):
    """Where a partition begins. `committed`: what its checkpoint says, None: it has none yet."""

    where: Where
    bounds: SequenceRange | None
    committed: int | None = None


def begin(state: PartitionState, wanted: Where, *, fresh: bool) -> Begin:
    """Where an app begins to read a partition: at its checkpoint if it has one.

    Without one: where it wants to, if the app is `fresh` on the stream; else at the oldest record, because somebody
    read this stream before, and what was written since then must not be skipped.
    """
    bounds = SequenceRange(state.earliest, state.latest)
    if state.checkpoint is not None:
        following, _ = position(state.checkpoint)
        return Begin(following, bounds, following)
    return Begin(wanted if fresh else "earliest", bounds)


def _number(text: str) -> int:
    try:
        return partition_number(text)
    except ApiError as exc:
        raise ConfigError(f"partition id {text!r}: use a form like 'shardId-0000000000' or '0'") from exc


def _names(partitions: Mapping[int, PartitionInfo]) -> str:
    names = [partition_id(number) for number in partitions]
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return f"it has {shown}" if names else "it has none"
