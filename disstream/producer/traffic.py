"""What the producer knows of each partition: how fast it is written, by which keys, how fast it may be. Pure.

A `Traffic` belongs to a partition, not to a lane: it lives on when the layout of the stream changes. Lanes and batches
point to it. It is updated per part of a request, never per record.
"""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..wire.partitioning import partition_id
from .pacing import Pace, Pacer
from .sketch import KeySketch

if TYPE_CHECKING:
    from .budget import Turn
    from .shipment import Part

RATE_S = 5.0
"""Rates are those of about the last seconds: long enough to be steady at ten requests a second."""
HOTTEST = 10
"""Keys that `stats()` names; of more than ten hot ones, none is."""
AT_CAP = 0.8
"""A partition that was held back lately and stores this much of its pace is at its cap."""
ONE_KEY = 0.5
"""From this share on a partition is one key's: if all others left, that key could be written twice as fast at most."""


@dataclass(frozen=True, slots=True)
class HotKey:
    """A key that makes up much of a partition's traffic."""

    key: str
    partition_id: str
    """ "" where records have no lane (order "none")."""
    share: float
    """Of the records stored there in the last minute or so, 0 to 1: sampled, and told at most 3 points too low."""
    records_per_s: float


@dataclass(frozen=True, slots=True)
class PartitionStats:
    """One partition, now. Rates are those of the last seconds."""

    partition_id: str
    """ "" stands for records that go to any partition: without a key, or with order "none"."""
    stored_per_s: float
    stored_bytes_per_s: float
    """Payload and keys."""
    waiting: int
    """Records that are not on the wire yet."""
    waiting_bytes: int
    """Of ProducerConfig.buffer_bytes, with what is on the wire."""
    throttled: bool
    """The service refused records of it within the last seconds (DIS.4303)."""
    pace: Pace | None
    """What it is sent at most; None: as much as it takes."""
    at_cap: bool
    """It is written as fast as it may be, and more waits."""
    hottest: HotKey | None
    scaling_helps: bool | None
    """None: it is not at its cap. False: half of its load or more is one key's, which no other partition can take."""


@dataclass(frozen=True, slots=True)
class ScaleAdvice:
    """A partition at its cap, and whether more partitions would help. `str()` says it in words."""

    partition_id: str
    helps: bool
    partitions: int | None
    """How many to scale the stream to, if that helps: twice as many, which halves the hash range of each."""
    hottest: HotKey | None

    def __str__(self) -> str:
        told = f"{self.partition_id} is at its cap"
        if self.helps:
            return f"{told} and its load is spread over keys: scale the stream to {self.partitions} partitions"
        hot = self.hottest
        assert hot is not None
        return f"{told} and {hot.share:.0%} of it is key {hot.key!r}: scaling does not help, splitting that key does"


STEP_S = 0.05
"""What comes within so short a time counts as coming at once: a request may hold parts of 256 partitions."""


class Rates:
    """Records and bytes per second: exponentially weighted over RATE_S."""

    __slots__ = ("_at", "_began", "_bytes", "_records")

    def __init__(self) -> None:
        self._records = self._bytes = 0.0
        self._began = self._at = -math.inf

    def add(self, records: int, octets: int, now: float) -> None:
        if now - self._at < STEP_S:
            self._records += records
            self._bytes += octets
            return
        if self._began == -math.inf:
            self._began = self._at = now
        left = math.exp((self._at - now) / RATE_S)
        self._records = self._records * left + records
        self._bytes = self._bytes * left + octets
        self._at = now

    @property
    def used(self) -> bool:
        return self._began != -math.inf

    def per_s(self, now: float) -> tuple[float, float]:
        if not self.used:
            return 0.0, 0.0
        weight_s = RATE_S * (1.0 - math.exp((self._began - now) / RATE_S))
        per_s = math.exp((self._at - now) / RATE_S) / max(weight_s, 0.5)
        return self._records * per_s, self._bytes * per_s


class Traffic:
    """One partition's."""

    __slots__ = ("coming", "held", "keys", "number", "pacer", "patience_s", "queued", "rates", "turns")

    def __init__(self, number: int | None, pacer: Pacer | None) -> None:
        self.number = number
        self.pacer = pacer
        self.rates = Rates()
        self.keys = KeySketch()
        self.held = 0  # of the byte budget: sealed records that are not settled, and calls whose turn has come
        self.queued = 0  # those records
        self.coming = 0  # those calls
        self.patience_s = math.inf  # no more is accepted while what is queued takes longer than this
        self.turns: deque[Turn] = deque()  # calls that wait for their turn, in order

    def stored(self, part: Part, now: float) -> None:
        """A part was stored whole."""
        keys = part.batch.rows.keys
        if part.indices is not None:
            keys = [keys[i] for i in part.indices]
        self.rates.add(len(keys), part.weight, now)
        self.keys.feed(keys, now)

    @property
    def paced(self) -> bool:
        """Whether it is written as fast as a pace allows, and no faster."""
        return self.pacer is not None and not self.pacer.free

    @property
    def late(self) -> bool:
        """Whether what is queued takes too long at the partition's pace: what came now might expire in the line."""
        pacer = self.pacer
        return pacer is not None and not pacer.free and pacer.takes_s(self.queued, self.held) > self.patience_s

    @property
    def used(self) -> bool:
        """Whether anything was ever stored there."""
        return self.rates.used

    @property
    def name(self) -> str:
        return "" if self.number is None else partition_id(self.number)

    def lately(self, now: float) -> Pace:
        records, octets = self.rates.per_s(now)
        return Pace(records_per_s=records or None, bytes_per_s=octets or None)

    def hottest(self, now: float) -> list[HotKey]:
        rate, _ = self.rates.per_s(now)
        return [HotKey(key, self.name, share, share * rate) for key, share in self.keys.shares(HOTTEST)]

    def stats(self, waiting: int, waiting_bytes: int, now: float) -> PartitionStats:
        pacer = self.pacer
        pace = None if pacer is None else pacer.pace(now)
        records, octets = self.rates.per_s(now)
        used = 0.0
        if pace is not None:
            used = max(records / (pace.records_per_s or math.inf), octets / (pace.bytes_per_s or math.inf))
        throttled = pacer is not None and pacer.throttled(now)
        at_cap = throttled or (pacer is not None and pacer.held(now) and used >= AT_CAP)
        hot = next(iter(self.hottest(now)), None)
        return PartitionStats(
            partition_id=self.name,
            stored_per_s=records,
            stored_bytes_per_s=octets,
            waiting=waiting,
            waiting_bytes=waiting_bytes,
            throttled=throttled,
            pace=pace,
            at_cap=at_cap,
            hottest=hot,
            scaling_helps=(hot is None or hot.share < ONE_KEY) if at_cap and self.number is not None else None,
        )


class Book:
    """The traffic of all partitions that the producer has seen."""

    def __init__(self, ceiling: Pace | None, rng: random.Random | None = None, patience_s: float = math.inf) -> None:
        """`ceiling`: what each partition may be sent; None: nothing is paced, whatever the service says.

        `patience_s`: how long what is accepted may have to wait for its pace.
        """
        self._ceiling = ceiling
        self._patience_s = patience_s
        self._rng = rng or random.Random(0)
        self._known: dict[int | None, Traffic] = {}

    def of(self, number: int | None, partitions: int) -> Traffic:
        """`number` None: records that the service spreads over all `partitions`, with the caps of all together."""
        traffic = self._known.get(number)
        if traffic is None:
            traffic = self._known[number] = Traffic(number, None)
            traffic.patience_s = self._patience_s
        if self._ceiling is not None:
            if number is None:
                traffic.pacer = Pacer(self._ceiling.times(max(partitions, 1)), self._rng)
            elif traffic.pacer is None:
                traffic.pacer = Pacer(self._ceiling, self._rng)
        return traffic


def advice(partitions: tuple[PartitionStats, ...]) -> tuple[ScaleAdvice, ...]:
    """Where more partitions would help, and where they would not."""
    count = sum(1 for p in partitions if p.partition_id)
    return tuple(
        ScaleAdvice(p.partition_id, p.scaling_helps, 2 * count if p.scaling_helps else None, p.hottest)
        for p in partitions
        if p.scaling_helps is not None
    )
