"""Partitions as they are told to clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..engine import Log, PartitionRef
from ..model import LayoutBound, PartitionInfo, SequenceRange
from ..wire.partitioning import partition_id
from .documents import LayoutDoc, PartitionDoc
from .reshape import EXPIRED


async def told_partitions(
    log: Log, stream_id: str, wanted: Sequence[PartitionDoc], layouts: Mapping[int, LayoutDoc] | None = None
) -> list[PartitionInfo]:
    """What there is to say of these, with their ranges as they are now, and with the bounds of `layouts`."""
    bounds = await log.bounds([PartitionRef(stream_id, p.number) for p in wanted])
    return [
        PartitionInfo(
            partition_id=partition_id(p.number),
            status=p.status,
            hash_range=p.hash_range if p.writable else None,
            sequence_range=SequenceRange(bound.oldest, bound.next) if bound and p.status != EXPIRED else None,
            bounds=tuple(
                LayoutBound(change, layout.bounds[p.number])
                for change, layout in (layouts or {}).items()
                if p.number in layout.bounds
            ),
        )
        for p, bound in zip(wanted, bounds, strict=True)
    ]
