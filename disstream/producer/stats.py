"""What a producer tells about itself."""

from __future__ import annotations

from dataclasses import dataclass

from .accumulator import Accumulator
from .traffic import HOTTEST, HotKey, PartitionStats, ScaleAdvice, advice


@dataclass(frozen=True, slots=True)
class ProducerStats:
    """A snapshot. Records: accepted = waiting + stored + rejected + not_stored + unknown."""

    accepted: int
    waiting: int
    stored: int
    rejected: int
    not_stored: int
    unknown: int
    reordered: int
    """Records stored after a later one of their key: the service broke the suffix rule. As far as answers tell."""
    requests: int
    refused_attempts: int
    """Records in attempts that the service refused and would take later (throttling), each time counted."""
    in_flight: int
    """Requests on the wire."""
    buffered_bytes: int
    """Of ProducerConfig.buffer_bytes."""
    sessions: bool
    """Whether records are numbered now, so that the service stores each once: the endpoint offers it, and
    ProducerConfig wants it."""
    spilled: int
    """Failed records that are in the spill file."""
    unspilled: int
    """Failed records that could not be written there."""
    partitions: tuple[PartitionStats, ...] = ()
    """How fast each is written, what waits, and whether it is at its cap."""
    hottest: tuple[HotKey, ...] = ()
    """The keys written most, over all partitions."""

    @property
    def scale_advice(self) -> tuple[ScaleAdvice, ...]:
        """For each partition at its cap, whether more partitions would help; `str()` of one says it in words."""
        return advice(self.partitions)


def snapshot(core: Accumulator, now: float, *, buffered_bytes: int, spilled: int, unspilled: int) -> ProducerStats:
    """What the core knows, now, and what others do."""
    counts, waiting = core.ends.counts, core.waiting
    hottest = [key for lane in core.layout.lanes.all() for key in lane.traffic.hottest(now)]
    return ProducerStats(
        accepted=waiting + counts.stored + counts.rejected + counts.not_stored + counts.unknown,
        waiting=waiting,
        stored=counts.stored,
        rejected=counts.rejected,
        not_stored=counts.not_stored,
        unknown=counts.unknown,
        reordered=counts.reordered,
        requests=counts.requests,
        refused_attempts=counts.refused_attempts,
        in_flight=len(core.picker.in_flight),
        buffered_bytes=buffered_bytes,
        sessions=core.layout.sessions,
        spilled=spilled,
        unspilled=unspilled,
        partitions=core.partitions(now),
        hottest=tuple(sorted(hottest, key=lambda key: -key.records_per_s)[:HOTTEST]),
    )
