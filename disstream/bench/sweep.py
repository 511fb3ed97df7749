"""One thing changes from lap to lap, all else stays: does the cost of a record depend on it?

In each lap every key is sent once before the clock starts: what is looked for is what a record costs, not what the
first one of a key does.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from ..producer.lanes import KEY_CACHE_SIZE
from .curves import Panel, Picture
from .laps import Lap, Plan, Way, median
from .load import Bench, Tell
from .machine import Origin
from .writing import Load

LAP_BYTES = 60_000_000
"""Of payload at most: a lap of large records has fewer of them."""
KEYS_FOR_PARTITIONS = 10_000
"""Enough that each of a thousand partitions gets records, and no more than the producer remembers."""


class Subject(NamedTuple):
    """What can be varied."""

    values: tuple[int, ...]
    unit: str
    applied: Callable[[Plan, int], Plan]


def _with_size(plan: Plan, value: int) -> Plan:
    return msgspec.structs.replace(plan, size_bytes=value, records=max(min(plan.records, LAP_BYTES // value), 1))


def _with_partitions(plan: Plan, value: int) -> Plan:
    return msgspec.structs.replace(plan, partitions=value, keys=KEYS_FOR_PARTITIONS)


SUBJECTS = {
    "partitions": Subject((1, 4, 10, 30, 100, 300, 1_000), "partitions", _with_partitions),
    "keys": Subject(
        (1, 10, 100, 1_000, 10_000, 60_000, 100_000),
        "keys",
        lambda plan, value: msgspec.structs.replace(plan, keys=value),
    ),
    "size": Subject((10, 100, 300, 1_024, 10_240, 102_400), "bytes", _with_size),
}


class Point(msgspec.Struct, frozen=True):
    value: int
    laps: list[Lap]

    @property
    def median(self) -> Lap:
        return median(self.laps)

    @property
    def client_us(self) -> float:
        return statistics.median(lap.client_us for lap in self.laps)


class SweepResult(msgspec.Struct, frozen=True, kw_only=True):
    """Of all values, lap by lap in turn."""

    origin: Origin
    subject: str
    plan: Plan
    """What did not change."""
    points: list[Point]

    @property
    def good(self) -> bool:
        return all(lap.good for point in self.points for lap in point.laps)

    def cached(self, point: Point) -> bool:
        """Whether the producer remembers the partition of every key; else it hashes some again and again."""
        return self.subject != "keys" or point.value <= KEY_CACHE_SIZE

    def deviation(self) -> tuple[float, float]:
        """How far the cheapest and the dearest record are from the middle between them, as shares of it: the client's
        processor time, where every key is remembered."""
        costs = [point.client_us for point in self.points if self.cached(point)]
        if not costs:
            return 0.0, 0.0
        middle = (min(costs) + max(costs)) / 2
        return min(costs) / middle - 1, max(costs) / middle - 1

    def picture(self) -> Picture:
        costs = {
            "client": [(point.value, point.client_us) for point in self.points],
            "server": [(point.value, point.median.server_us or 0.0) for point in self.points],
        }
        rates = {"written": [(point.value, point.median.rate) for point in self.points]}
        return Picture(
            x_label=SUBJECTS[self.subject].unit,
            log_x=True,
            bounds={} if all(map(self.cached, self.points)) else {"keys remembered": KEY_CACHE_SIZE},
            panels=[Panel("processor time per record, us", costs), Panel("records/s, acknowledged", rates)],
        )


async def sweep(bench: Bench, plan: Plan, subject: str, values: Sequence[int], way: Way, tell: Tell) -> list[Point]:
    """Laps of all values in turn, `plan.repeats` times; each is read back."""
    points = [Point(value, []) for value in values]
    plans = [SUBJECTS[subject].applied(plan, value) for value in values]
    for number in range(plan.repeats + 1):
        for point, changed in zip(points, plans, strict=True):
            tell(f"{subject} {point.value:,} {number}/{plan.repeats}")
            records = changed.records if number else max(changed.records // 5, 1)  # the first round warms up
            changed = msgspec.structs.replace(changed, records=records, untimed=changed.keys)
            lap = await bench.lap(changed, way, Load.make(changed, random.Random(0)), tell)
            if number:
                point.laps.append(lap)
    return points
