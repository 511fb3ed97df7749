"""When a stream gets more or fewer partitions by itself (API 5.1.1, auto_scale_*). Pure.

The service tells its bounds, not its rules; these are ours. What was written in a minute is compared with what the
partitions take at most, in bytes and in records, whichever comes closer:

    both of the last two minutes used 80 % or more  -> as many as would have been used to 60 %, at least one more
    the same of 60 %, and puts were refused in both -> the same: who is refused backs off, and leaves some unused
    none of the last ten minutes used 30 %          -> as many as the busiest of them would use to 60 %
    fewer than the minimum, or more than the maximum -> the bound, at once

Between 30 and 80 % nothing else happens, and what a change aims at lies well inside, so that it does not lead to the
next. Ten quiet minutes must pass after a change before partitions are taken away: they are counted anew from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ..model import AutoScale

FULL, IDLE, AIM = 0.8, 0.3, 0.6
BUSY_MINUTES, QUIET_MINUTES = 2, 10


class Capacity(NamedTuple):
    """What one partition takes in a second."""

    records: int
    size: int


CAPACITY = {"COMMON": Capacity(1_000, 1_048_576), "ADVANCED": Capacity(2_000, 5 * 1_048_576)}
"""Of the service; it is what automatic scaling reckons with even where a server sets no limits."""


def decide(
    bounds: AutoScale,
    partitions: int,
    capacity: Capacity,
    minutes: Sequence[tuple[int, int]],
    since_change_s: float,
    *,
    throttled: bool = False,
) -> int | None:
    """How many partitions there should be; None: as many as there are.

    `minutes`: (records, payload bytes) written in each of the last whole minutes, the oldest first. `since_change_s`:
    from the last change to the end of the last of them; those that do not lie wholly in that time do not count.
    `throttled`: puts were refused, as beyond the bandwidth, in each of the last BUSY_MINUTES.
    """
    low, high = bounds
    if partitions < low:
        return low
    if partitions > high:
        return high
    counted = minutes[max(0, len(minutes) - max(0, math.floor(since_change_s / 60))) :]
    needed = [max(records / capacity.records, size / capacity.size) / 60 for records, size in counted]
    busy = needed[-BUSY_MINUTES:]
    if len(busy) == BUSY_MINUTES and min(busy) >= (AIM if throttled else FULL) * partitions:
        target = min(high, max(partitions + 1, math.ceil(max(busy) / AIM)))
    elif len(needed) >= QUIET_MINUTES and max(needed[-QUIET_MINUTES:]) < IDLE * partitions:
        target = max(low, math.ceil(max(needed[-QUIET_MINUTES:]) / AIM))
    else:
        return None
    return target if target != partitions else None
