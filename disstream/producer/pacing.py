"""How fast a lane may send, and how long to wait after what went wrong. Pure: randomness is handed in.

A `Pacer` holds two buckets of tokens for one partition, records and payload bytes, and fills them at

    share * ceiling

The ceiling is what the service told or publishes for the type of stream, or what the user asked for; the share says how
much of it is left for us, as others may write to the partition too:

    refused (DIS.4303)   share *= 1 - refused part of the request / 2, at most 0.95 and at least 0.5, once in
                         CUT_EVERY_S; the buckets are empty, as the service's is, and a random moment emptier, so that
                         producers that were refused together do not return together
    time                 share += RECOVER_PER_S * seconds, up to 1
    always               share >= FLOOR: below it, it would take minutes to notice that there is room again

Where no ceiling is known (our server without limits) nothing is paced until something is refused. Then the ceiling is
learnt: twice what was stored lately, with a share of a half. When the share has come back to 1, that was long ago, and
the lane is free again.

A lane that holds much waits until QUANTUM_S worth of tokens is there, so that being paced means no swarm of small
requests; one that holds less goes as soon as there are tokens for all of it, so light load never waits. The last record
of a request may overdraw the bytes, as one larger than the bucket has to pass too; the debt is waited for.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError
from ..model import StreamInfo

CUT_EVERY_S = 1.0
"""Refusals within this time are one message: requests were on their way when the first of them came."""
RECOVER_PER_S = 0.01
FLOOR = 1 / 16
QUANTUM_S = 0.1
"""Ten requests a second for a lane that is at its cap cost little, and 0.1 s more is no delay where records queue."""
BURST_S = 0.5
"""What may pass at once after a pause. Half a second's worth: a service that counts by the second lets it pass even if
a quantum went just before; more it might refuse, and with less a load that comes in bursts would wait."""
STREAK_S = 60.0
"""Refusals with less than this between them are one streak: told once."""
CAP_S = 5.0
"""A lane that was held back within this time is at its cap."""
SOON_S = 1e-6
"""No wait: clocks and floats are not finer."""
_NEVER = -math.inf
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What a partition may be sent: records and payload bytes per second. None: no limit."""

    records_per_s: float | None = None
    bytes_per_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("records_per_s", "bytes_per_s"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name}={value!r}: must be more than 0, and finite; leave it out for no limit")

    def times(self, factor: float) -> Pace:
        records, octets = self.records_per_s, self.bytes_per_s
        return Pace(
            records_per_s=None if records is None else records * factor,
            bytes_per_s=None if octets is None else octets * factor,
        )


UNLIMITED = Pace()
PUBLISHED = {
    "COMMON": Pace(records_per_s=1_000, bytes_per_s=1_048_576),
    "ADVANCED": Pace(records_per_s=2_000, bytes_per_s=5_242_880),
}
"""What the service takes per partition, by the type of the stream."""


def ceiling(wanted: Pace | Literal["auto"] | None, info: StreamInfo) -> Pace | None:
    """What a partition of the stream may be sent; `wanted`: ProducerConfig.pace. None: nothing is paced."""
    if wanted != "auto":
        return wanted
    if info.caps is None:  # not our server
        return PUBLISHED.get(info.stream_type, PUBLISHED["COMMON"])
    return Pace(records_per_s=info.caps.records_per_s, bytes_per_s=info.caps.bytes_per_s)


class _Bucket:
    """Tokens of one kind. `left` is below 0 where one record took more than there was."""

    __slots__ = ("left", "per_s", "quantum", "size")

    def __init__(self) -> None:
        self.per_s = self.quantum = self.size = self.left = math.inf

    def set_rate(self, per_s: float) -> None:
        self.per_s = per_s
        self.quantum = max(per_s * QUANTUM_S, 1.0)
        self.size = max(per_s * BURST_S, self.quantum)
        self.left = min(self.left, self.size) if per_s < math.inf else math.inf

    def fill(self, seconds: float) -> None:
        self.left = min(self.left + self.per_s * seconds, self.size)

    def wait_s(self, wanted: float) -> float:
        """Until so much (or a quantum, whichever is less) is there."""
        if self.per_s == math.inf:
            return 0.0
        return max(0.0, min(wanted, self.quantum) - self.left) / self.per_s

    def empty(self, wait_s: float) -> None:
        """Nothing is left, and nothing will be for `wait_s`."""
        if self.per_s < math.inf:
            self.left = min(self.left, -self.per_s * wait_s)


class Pacer:
    """The tokens of one partition. Times never decrease."""

    __slots__ = (
        "_at",
        "_bytes",
        "_ceiling",
        "_cut_at",
        "_held_at",
        "_learnt",
        "_least",
        "_records",
        "_refused_at",
        "_rng",
        "_share",
    )

    def __init__(self, ceiling: Pace, rng: random.Random, *, least: Pace = PUBLISHED["COMMON"]) -> None:
        """`least`: a ceiling that has to be learnt is never below this."""
        self._ceiling = UNLIMITED if ceiling == UNLIMITED else ceiling
        self._least = least
        self._learnt = False
        self._share = 1.0
        self._rng = rng
        self._records = _Bucket()
        self._bytes = _Bucket()
        self._at = _NEVER
        self._cut_at = self._refused_at = self._held_at = _NEVER
        self._set_rates()

    def _set_rates(self) -> None:
        ceiling = self._ceiling
        for bucket, per_s in ((self._records, ceiling.records_per_s), (self._bytes, ceiling.bytes_per_s)):
            bucket.set_rate(math.inf if per_s is None else per_s * self._share)

    @property
    def free(self) -> bool:
        """Nothing is paced (yet)."""
        return self._ceiling is UNLIMITED

    def _advance(self, now: float) -> None:
        passed = now - self._at
        if passed <= 0:
            return
        self._at = now
        for bucket in (self._records, self._bytes):
            bucket.fill(passed)
        if self._share < 1.0 and passed < math.inf:
            self._share = min(1.0, self._share + RECOVER_PER_S * passed)
            if self._share == 1.0 and self._learnt:
                self._ceiling, self._learnt = UNLIMITED, False
            self._set_rates()

    def ready_at(self, records: int, octets: int, now: float) -> float:
        """When a lane that holds so much may send; `now`: at once."""
        if self.free:
            return now
        self._advance(now)
        wait_s = max(self._records.wait_s(records), self._bytes.wait_s(octets))
        if wait_s <= SOON_S:
            return now
        self._held_at = now
        return now + wait_s

    def allowance(self, now: float) -> tuple[float, float]:
        """(records, payload bytes) that may go now that the lane is ready: a record, and more while there are bytes."""
        if self.free:
            return math.inf, math.inf
        self._advance(now)
        return max(self._records.left + _ROUNDING, 1.0), self._bytes.left

    def takes_s(self, records: int, octets: int) -> float:
        """How long so much takes at the pace of now."""
        return max(records / self._records.per_s, octets / self._bytes.per_s)

    def sent(self, records: int, octets: int) -> None:
        """So much was put on the wire."""
        self._records.left -= records
        self._bytes.left -= octets

    def refused(self, part: float, lately: Pace, now: float) -> bool:
        """The service refused `part` (0 to 1) of a request's records of this partition by DIS.4303. True: a new streak.

        `lately`: what it stored per second in the last moments.
        """
        self._advance(now)
        if self.free:
            least = self._least
            self._ceiling = Pace(
                records_per_s=max(2 * (lately.records_per_s or 0.0), least.records_per_s or 0.0),
                bytes_per_s=max(2 * (lately.bytes_per_s or 0.0), least.bytes_per_s or 0.0),
            )
            self._learnt = True
            self._share = 0.5
            self._cut_at = now
        elif now - self._cut_at >= CUT_EVERY_S:
            self._share = max(FLOOR, self._share * (1.0 - min(max(part / 2, 0.05), 0.5)))
            self._cut_at = now
        self._set_rates()
        wait_s = self._rng.uniform(0.0, QUANTUM_S)
        self._records.empty(wait_s)
        self._bytes.empty(wait_s)
        told = now - self._refused_at < STREAK_S
        self._refused_at = now
        return not told

    # --- looking --------------------------------------------------------------------------------------------------

    def pace(self, now: float) -> Pace | None:
        """What may be sent now, per second; None: nothing is paced."""
        self._advance(now)
        return None if self.free else self._ceiling.times(self._share)

    def throttled(self, now: float) -> bool:
        """Whether the service refused something within the last moments."""
        return now - self._refused_at < CAP_S

    def held(self, now: float) -> bool:
        """Whether something waited for tokens within the last moments."""
        return now - self._held_at < CAP_S

    def check(self) -> None:
        assert FLOOR <= self._share <= 1.0, self._share
        for bucket in (self._records, self._bytes):
            assert bucket.left <= bucket.size


class FailureBudget:
    """When requests that were refused as a whole may be followed by another try.

    The service locks out an address that fails too often (DIS.4309), at a number it does not tell. BURST failures may
    follow each other at once, which is what narrowing down a few bad records takes; then they are spread to one in
    EVERY_S, 60 in the worst minute. Only lanes that failed wait for it.
    """

    BURST = 30
    EVERY_S = 2.0

    def __init__(self) -> None:
        self._paid_until = _NEVER

    def next_try_at(self, now: float) -> float:
        """A request failed now; when its records may be tried again, at the earliest."""
        self._paid_until = max(self._paid_until, now) + self.EVERY_S
        return max(now, self._paid_until - self.BURST * self.EVERY_S)


class Backoff:
    """Exponential with full jitter: after n failures in a row, anything between 0 and min(max, base * 2**(n-1)).

    Full jitter spreads lanes that failed together; doubling stops a dead service from being hammered.
    """

    def __init__(self, base_s: float, max_s: float, rng: random.Random) -> None:
        self._base_s = base_s
        self._max_s = max_s
        self._rng = rng

    def pause_s(self, failures: int, at_least_s: float = 0.0) -> float:
        """The pause after `failures` (>= 1) failures in a row; `at_least_s`: what the service asked for, if it did."""
        ceiling = min(self._max_s, self._base_s * 2.0 ** min(failures - 1, 30))
        return max(at_least_s, self._rng.uniform(0.0, ceiling))
