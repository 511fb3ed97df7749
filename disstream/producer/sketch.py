"""Which keys make up the traffic of a partition, from samples, in bounded memory. Pure.

A Misra-Gries summary, merged batch by batch: counts of up to `2 * SIZE` keys, cut back to the `SIZE` largest by taking
the largest of the others off every count. A count is never too high, so no cold key is ever named, and too low by at
most `total / (SIZE + 1)`: every key with more than a 33rd of the traffic is in the summary, and its share is told at
most 3 points too low. On top comes the error of sampling: with n samples about sqrt(share * (1 - share) / n), half a
point for a share of a tenth and 5,000 samples.

Counts halve every HALF_LIFE_S, so that the summary describes the last minute or so.

At most SAMPLES records of a part are looked at, and one in SAMPLES of a small one, each standing for as many as
the stride between them: about 5 ns per record of a full request (benchmarks/pacing.py --sketch measures it).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

SIZE = 32
SAMPLES = 8
HALF_LIFE_S = 30.0
_AGE_EVERY_S = 5.0  # counts are aged in steps: nothing is multiplied for every batch, and a thousand sketches seldom


class KeySketch:
    """The keys of one partition."""

    __slots__ = ("_aged_at", "_counts", "_start", "_total")

    def __init__(self) -> None:
        self._counts: dict[str, float] = {}
        self._total = 0.0
        self._aged_at = 0.0
        self._start = 0  # where in a stretch of `stride` the next sample stands: keys that come in turn are all met

    def feed(self, keys: Sequence[str | None], now: float) -> None:
        """Take samples of the keys of records that were stored."""
        count = len(keys)
        stride = max(-(-count // SAMPLES), min(count, SAMPLES))
        if stride > 1:
            self._start = (self._start + 7) % stride
            keys = keys[self._start :: stride]
        self.add(keys, stride, now)

    def add(self, keys: Collection[str | None], weight: float, now: float) -> None:
        """Each of these records counts `weight`."""
        if now - self._aged_at >= _AGE_EVERY_S:
            self._age(now)
        counts = self._counts
        for key in keys:
            if key is not None:
                counts[key] = counts.get(key, 0.0) + weight
        self._total += len(keys) * weight
        if len(counts) > 2 * SIZE:
            self._cut()

    def _cut(self) -> None:
        ordered = sorted(self._counts.values(), reverse=True)
        beyond = ordered[SIZE]
        self._counts = {key: count - beyond for key, count in self._counts.items() if count > beyond}

    def _age(self, now: float) -> None:
        factor = 0.5 ** ((now - self._aged_at) / HALF_LIFE_S)
        self._aged_at = now
        self._total *= factor
        self._counts = {key: count * factor for key, count in self._counts.items()}

    def shares(self, most: int) -> list[tuple[str, float]]:
        """The hottest keys, with the share of all records that is certainly theirs, hottest first."""
        if not self._total:
            return []
        counts = self._counts
        hottest = sorted(counts, key=counts.__getitem__, reverse=True)[:most]
        return [(key, counts[key] / self._total) for key in hottest]

    def __len__(self) -> int:
        return len(self._counts)

    def check(self) -> None:
        assert len(self._counts) <= 2 * SIZE
        assert all(count > 0 for count in self._counts.values())
        assert sum(self._counts.values()) <= self._total * (1 + 1e-9)
