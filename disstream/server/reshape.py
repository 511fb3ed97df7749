"""What a stream looks like after the number of its partitions has changed (API 5.1.5). Pure.

The hash space is divided evenly over the ACTIVE partitions in the order of their numbers. With fewer of them the ones
with the highest numbers become DELETED: still read, written no more, and EXPIRED once their records are. With more of
them those that are DELETED come back first, then those that are EXPIRED, each with the lowest number first and its
sequence numbers going on where they were; only then are there new ones. So numbers stay small however often a stream
grows and shrinks.

A change takes three steps, for no put that was let in under the old layout may land once readers know the new one:

    at rest --begun--> pending --(the log opens the pending epochs: writers of the old layout are refused)--> fenced
       ^                                                                                                        |
       +------------------------ finished (with the sequence numbers where the layouts meet) -------------------+

`pending` is stored first. A server that dies on the way finds it when it starts and goes on; before that the stream
stays readable, and puts are refused once the fence is up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest

import msgspec

from ..wire.partitioning import hash_ranges
from .config import MAX_SCALINGS
from .documents import LayoutDoc, PartitionDoc, ScalingDoc, StreamDoc

ACTIVE, DELETED, EXPIRED = "ACTIVE", "DELETED", "EXPIRED"

HOUR_MS = 3_600_000

_COMES_BACK = {DELETED: 0, EXPIRED: 1}


def writable_count(doc: StreamDoc) -> int:
    return sum(p.writable for p in doc.partitions)


def reshaped(partitions: Sequence[PartitionDoc], target: int, now_ms: int) -> tuple[PartitionDoc, ...]:
    """All partitions with `target` of them ACTIVE; those that were or become so have a higher epoch."""
    active = [p.number for p in partitions if p.writable]
    resting = sorted((p for p in partitions if not p.writable), key=lambda p: (_COMES_BACK[p.status], p.number))
    chosen = active[:target] + [p.number for p in resting][: max(0, target - len(active))]
    following = max((p.number for p in partitions), default=-1) + 1
    chosen += range(following, following + target - len(chosen))
    ranges = dict(zip(sorted(chosen), hash_ranges(target), strict=True))
    known = {p.number: p for p in partitions}
    result = []
    for number in sorted(known.keys() | ranges.keys()):
        old, owned = known.get(number), ranges.get(number)
        epoch = old.epoch + 1 if old else 1
        if owned is not None:
            result.append(PartitionDoc(number, epoch, owned.low, owned.high))
        elif old is not None and old.writable:
            result.append(PartitionDoc(number, epoch, -1, -1, DELETED, now_ms))
        elif old is not None:
            result.append(old)
    return tuple(result)


def begun(doc: StreamDoc, target: int, now_ms: int, *, automatic: bool = False) -> StreamDoc:
    """The document while the change is under way: what is pending, and still the old layout."""
    assert not doc.pending
    return msgspec.structs.replace(
        doc,
        pending=reshaped(doc.partitions, target, now_ms),
        pending_scaling=ScalingDoc(now_ms, writable_count(doc), target, automatic),
    )


def meeting(doc: StreamDoc) -> list[int]:
    """The numbers of the partitions in which the old layout meets the pending one."""
    epochs = {p.number: p.epoch for p in doc.partitions}
    return [p.number for p in doc.pending if epochs.get(p.number) != p.epoch]


def finished(doc: StreamDoc, now_ms: int) -> StreamDoc:
    """The document with its pending layout in force."""
    assert doc.pending_scaling is not None
    return msgspec.structs.replace(
        doc,
        partitions=doc.pending,
        pending=(),
        pending_scaling=None,
        changes=doc.changes + 1,
        scalings=remembered(doc, doc.pending_scaling),
        last_modified_time=max(now_ms, doc.last_modified_time),
    )


def remembered(doc: StreamDoc, scaling: ScalingDoc) -> tuple[ScalingDoc, ...]:
    """The stream's scalings with one more."""
    return (*doc.scalings, scaling)[-MAX_SCALINGS:]


def known(at_ms: int, now_ms: int) -> bool:
    """Whether a time that was written down means anything: not if a clock that is right now was far ahead then."""
    return at_ms <= now_ms + HOUR_MS


def refusal(
    scalings: Sequence[ScalingDoc], now_ms: int, *, per_hour: int | None, pause_s: float | None
) -> tuple[str, float] | None:
    """Why the stream may not be scaled yet and in how many seconds it may; None: it may.

    At most `per_hour` tries within an hour, whatever became of them, and none within `pause_s` of a success.
    """
    scalings = [s for s in scalings if known(s.at_ms, now_ms)]
    told: list[tuple[float, str]] = []
    if pause_s is not None:
        last = max((s.at_ms for s in scalings if not s.result_code), default=None)
        if last is not None and (left := last / 1000 + pause_s - now_ms / 1000) > 0:
            told.append((left, f"it was scaled less than {pause_s:g} s ago"))
    if per_hour is not None:
        recent = sorted(s.at_ms for s in scalings if s.at_ms > now_ms - HOUR_MS)
        if len(recent) >= per_hour:
            told.append(((recent[-per_hour] + HOUR_MS - now_ms) / 1000, f"{per_hour} tries in an hour are the most"))
    if not told:
        return None
    left, why = max(told)
    return why, left


def expired(doc: StreamDoc, empty: set[int], now_ms: int) -> StreamDoc:
    """The document with those partitions EXPIRED that are DELETED for the time of retention, and `empty`.

    Not at once when they are empty: readers find out that a partition ends while it still answers them.
    """
    before = now_ms - doc.retention_h * HOUR_MS
    if doc.pending or not any(_over(p, empty, before) for p in doc.partitions):
        return doc
    partitions = tuple(
        msgspec.structs.replace(p, status=EXPIRED) if _over(p, empty, before) else p for p in doc.partitions
    )
    return msgspec.structs.replace(doc, partitions=partitions, last_modified_time=max(now_ms, doc.last_modified_time))


def _over(partition: PartitionDoc, empty: set[int], before_ms: int) -> bool:
    return partition.status == DELETED and partition.deleted_ms <= before_ms and partition.number in empty


def needless(layouts: Mapping[int, LayoutDoc], oldest: Mapping[int, int]) -> list[int]:
    """The changes nobody needs to know of any more. `oldest`: of each partition, the first number still readable.

    One is needed as long as a record before it can be read, and it is told apart from the next: where nothing was
    written between two changes, the second says it all.
    """
    doomed = []
    changes = sorted(layouts)
    for change, following in zip_longest(changes, changes[1:]):
        bounds = layouts[change].bounds
        if all(bound <= oldest.get(number, bound) for number, bound in bounds.items()):
            doomed.append(change)
        elif following is not None:
            after = layouts[following].bounds
            if all(after.get(number) == bound for number, bound in bounds.items()):
                doomed.append(change)
    return doomed
