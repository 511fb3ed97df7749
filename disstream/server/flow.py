"""How fast a partition may be written and read: a bucket of tokens for each of its rates. Pure.

A bucket holds what may pass within one second, and refills all the time. Whatever asks while something is left passes
as a whole, and what it takes too much is a debt that the next ones wait for. So a record that is larger than the bucket
passes, and large records get their turn between small ones. Over any t seconds a rate lets pass at most

    rate * t  +  one second's worth  +  what the last one took too much (less than a record, or a page)

A full bucket is the same as none: only partitions with traffic in the last moments have buckets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..engine import PartitionRef
from ..errors import ThrottledError
from ..model import Caps
from ..wire.errors import ERRORS
from .config import ServerConfig
from .documents import StreamDoc

SWEEP_S = 10.0
"""How often full buckets are forgotten: those there are belong to partitions used since, or just before."""

RETRY_AFTER_S = 1.0
"""What a refused request is told to wait: within a second a bucket has filled, so that nothing is lost by waiting."""


class Rate:
    """One rate, and what is left of it in each partition. Times may come a little out of order."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._buckets: dict[PartitionRef, tuple[float, float]] = {}  # what was left, and when
        self._sweep_at = -math.inf

    def left(self, partition: PartitionRef, now: float) -> float:
        """0 or less: nothing passes."""
        left, at = self._buckets.get(partition, (self._per_s, now))
        return min(self._per_s, left + self._per_s * (now - at))

    def take(self, partition: PartitionRef, amount: float, now: float) -> None:
        self._buckets[partition] = self.left(partition, now) - amount, now
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_S
            self._buckets = {p: bucket for p, bucket in self._buckets.items() if self.left(p, now) < self._per_s}

    def give_back(self, partition: PartitionRef, amount: float, taken: float, now: float) -> None:
        """`amount`, taken at the time `taken`, was not used. What has flowed in since is there already."""
        rest = amount - self._per_s * (now - taken)
        if rest > 0:
            self.take(partition, -rest, now)

    def __len__(self) -> int:
        return len(self._buckets)


class Pace:
    """The rates of one type of stream. None: no limit."""

    def __init__(self, in_bytes: int | None, in_records: int | None, out_bytes: int | None) -> None:
        self.in_bytes = None if in_bytes is None else Rate(in_bytes)
        self.in_records = None if in_records is None else Rate(in_records)
        self.out_bytes = None if out_bytes is None else Rate(out_bytes)

    def put(self, partition: PartitionRef, sizes: Sequence[int], now: float) -> int:
        """How many records of these sizes (bytes of payload), from the first on, pass now. They count as written."""
        count = len(sizes)
        if self.in_records is not None:
            count = min(count, max(0, math.ceil(self.in_records.left(partition, now))))
        if self.in_bytes is not None:
            left = self.in_bytes.left(partition, now)
            for index in range(count):
                if left <= 0:
                    count = index
                    break
                left -= sizes[index]
        if count:
            self._write(partition, count, sum(sizes[:count]), now)
        return count

    def _write(self, partition: PartitionRef, records: int, size: int, now: float) -> None:
        if self.in_records is not None:
            self.in_records.take(partition, records, now)
        if self.in_bytes is not None:
            self.in_bytes.take(partition, size, now)

    def unput(self, partition: PartitionRef, records: int, size: int, passed: float, now: float) -> None:
        """Of what passed `put` at the time `passed`, so much was not written after all."""
        if self.in_records is not None:
            self.in_records.give_back(partition, records, passed, now)
        if self.in_bytes is not None:
            self.in_bytes.give_back(partition, size, passed, now)

    def may_get(self, partition: PartitionRef, now: float) -> bool:
        """Whether it is worth reading a page: `get` may still refuse it, if others were faster."""
        return self.out_bytes is None or self.out_bytes.left(partition, now) > 0

    def get(self, partition: PartitionRef, size: int, now: float) -> bool:
        """Whether a page of so many bytes of payload passes now. If so, it counts as read. An empty one always does."""
        if self.out_bytes is None or not size:
            return True
        if self.out_bytes.left(partition, now) <= 0:
            return False
        self.out_bytes.take(partition, size, now)
        return True


class Flow:
    """The pace of each stream."""

    def __init__(self, config: ServerConfig) -> None:
        common = config.common_in_bytes_per_s, config.common_in_records_per_s, config.common_out_bytes_per_s
        advanced = config.advanced_in_bytes_per_s, config.advanced_in_records_per_s, config.advanced_out_bytes_per_s
        self._paces = {
            kind: Pace(*rates)
            for kind, rates in (("COMMON", common), ("ADVANCED", advanced))
            if rates != (None, None, None)
        }
        self._caps = {"COMMON": Caps(common[1], common[0]), "ADVANCED": Caps(advanced[1], advanced[0])}

    def of(self, doc: StreamDoc) -> Pace | None:
        """None: as fast as the machine bears."""
        return self._paces.get(doc.stream_type)

    def caps(self, doc: StreamDoc) -> Caps:
        """How fast a partition may be written, as far as that is limited."""
        return self._caps.get(doc.stream_type, Caps())


def exceeded() -> ThrottledError:
    """DIS.4303 for what is beyond the pace."""
    spec = ERRORS["DIS.4303"]
    return ThrottledError(spec.shape, status=spec.status, code="DIS.4303", retry_after_s=RETRY_AFTER_S)


def no_room() -> ThrottledError:
    """DIS.4303 for what the engine has no room for: the code at which every client waits and tries again."""
    spec = ERRORS["DIS.4303"]
    told = f"{spec.shape} [the server has no room left to store it]"
    return ThrottledError(told, status=spec.status, code="DIS.4303", retry_after_s=RETRY_AFTER_S)
