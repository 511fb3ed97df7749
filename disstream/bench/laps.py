"""What a bench does, and what came of it. Pure values; their JSON is what `--json` writes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal

import msgspec

from ..producer import Order
from .check import Findings
from .machine import Origin
from .timing import Spread

NUMBER_BYTES = 8
"""At the beginning of each payload: the number of the record."""

Mode = Literal["send", "receipts", "send_many"]
"""Each record by `send` and no receipt looked at; the same and every receipt awaited; a thousand at a time."""
ReadMode = Literal["fetch", "async for"]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The records of a lap, and how often. A lap that warms up comes before those that count."""

    records: int
    size_bytes: int
    keys: int
    partitions: int
    repeats: int
    rate: float | None = None
    """Records a second, each sent at its instant; None: as fast as it goes."""
    untimed: int = 0
    """Records that each lap sends before these, through the same producer, while the clock stands."""


class Way(msgspec.Struct, frozen=True):
    """One way to write."""

    mode: Mode
    order: Order

    def __str__(self) -> str:
        return self.mode if self.order == "key" else f"{self.mode} {self.order}"


class Lap(msgspec.Struct, frozen=True, kw_only=True):
    """One repetition. `records` were acknowledged (written) or received (read) in `seconds`.

    CPU is processor time in seconds; the server's is None where it cannot be known.
    """

    what: str
    ordered: bool
    """Whether records out of the order of their key are wrong."""
    records: int
    failed: int
    seconds: float
    client_cpu_s: float
    server_cpu_s: float | None
    findings: Findings
    """Of the untimed records too."""
    untimed: int = 0
    stall: Spread | None = None
    """How late the client's event loop came to what was due every few milliseconds."""
    latency: Spread | None = None
    """With a rate: from the instant a record was due to its receipt."""
    arrival: Spread | None = None
    """End to end: from the instant a record was due to the loop of a consumer."""
    lateness: Spread | None = None
    """With a rate: from the instant a record was due to its `send`: what of the latency is the bench's own."""

    @property
    def rate(self) -> float:
        return self.records / self.seconds if self.seconds else 0.0

    @property
    def client_us(self) -> float:
        """Processor time per record, microseconds."""
        return self.client_cpu_s / self.records * 1e6 if self.records else 0.0

    @property
    def server_us(self) -> float | None:
        return self.server_cpu_s / self.records * 1e6 if self.server_cpu_s is not None and self.records else None

    @property
    def lost(self) -> int:
        """Acknowledged, and not there when the stream was read back."""
        return max(0, self.records + self.untimed - self.findings.distinct)

    @property
    def good(self) -> bool:
        """Nothing lost, failed, altered, or (where order was asked for) reordered."""
        wrong = self.lost or self.failed or self.findings.altered or (self.ordered and self.findings.reordered)
        return not wrong


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """All repetitions, with what they were made on."""

    origin: Origin
    plan: Plan
    laps: list[Lap]
    fsync: Spread | None = None
    """Of writing and syncing as many bytes in the server's directory, before anything else ran."""

    @property
    def good(self) -> bool:
        return all(lap.good for lap in self.laps)

    def kinds(self) -> dict[str, list[Lap]]:
        """The laps by what was done, in the order it was first done."""
        found: dict[str, list[Lap]] = {}
        for lap in self.laps:
            found.setdefault(lap.what, []).append(lap)
        return found


def median(laps: Sequence[Lap]) -> Lap:
    """The lap in the middle by rate (of an even number: the lower one)."""
    rate = statistics.median_low(lap.rate for lap in laps)
    return next(lap for lap in laps if lap.rate == rate)
