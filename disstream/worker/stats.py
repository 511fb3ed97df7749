"""What a worker tells of itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, log2

from ..consumer import ConsumerStats
from ..model import Partition

_SHORTEST_S = 1e-5
_PER_DOUBLING = 8
_BUCKETS = 30 * _PER_DOUBLING  # up to three hours


class Latencies:
    """How long calls took: counts in buckets that are 9 % wide, so percentiles are right to that."""

    def __init__(self) -> None:
        self._counts = [0] * (_BUCKETS + 1)
        self._total = 0

    def add(self, seconds: float) -> None:
        bucket = ceil(_PER_DOUBLING * log2(seconds / _SHORTEST_S)) if seconds > _SHORTEST_S else 0
        self._counts[min(bucket, _BUCKETS)] += 1
        self._total += 1

    def percentile(self, share: float) -> float | None:
        """Seconds that this share of the calls did not exceed. None: there were none."""
        if not self._total:
            return None
        left = max(ceil(share * self._total), 1)
        for bucket, count in enumerate(self._counts):
            left -= count
            if left <= 0:
                return _SHORTEST_S * float(2.0 ** (bucket / _PER_DOUBLING))
        raise AssertionError("the buckets hold fewer than were counted")


@dataclass(frozen=True, slots=True)
class PartitionWork:
    """One partition that a worker holds."""

    held_records: int
    """Taken and not finished: waiting for a handler, in its hands, or for their letter to be stored."""
    in_flight: int
    """Calls under way."""
    parked_keys: int
    waiting_records: int
    """Of parked keys, with parked="wait"."""
    suspended: str | None
    """What it was suspended for: position and error. None: it goes on."""
    paused: bool
    """True: nothing of it is taken, because it is suspended or holds its share of the queue."""


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """A snapshot. Counts are since `run` began."""

    state: str
    """starting, running, stopping, stopped, or failed."""
    handled: int
    """Records whose handler returned."""
    failed: int
    """Records that were given up, after all attempts or by `Reject`: parked, ignored, or what stopped a partition."""
    retried: int
    """Records that were put back to be tried again."""
    raised: int
    """Calls that raised; rejected ones are counted by themselves."""
    rejected: int
    timed_out: int
    cancelled: int
    """Calls that were cancelled by a stop or because their partition goes to others. Their records come again."""
    dead_letters: int
    """Letters stored, of failed records and of those that followed them."""
    followed: int
    """Records that went to the dead letters because their key is parked."""
    ignored: int
    """Failed records that were finished without a letter (on_failure="ignore" without dead letters)."""
    parked_keys: int
    suspended: tuple[Partition, ...]
    in_flight: int
    queued_records: int
    """Taken and not finished, those in flight included."""
    queued_bytes: int
    waiting_letters: int
    """Not stored yet. Many, for long: the dead letters cannot be written."""
    letter_error: str | None
    """Why letters could not be written the last time; None: they could."""
    oldest_in_flight_s: float | None
    p50_s: float | None
    """Of the time that calls took."""
    p99_s: float | None
    partitions: Mapping[Partition, PartitionWork]
    consumer: ConsumerStats | None
    """None before the consumer was started."""
