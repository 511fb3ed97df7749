"""How long to wait before the next attempt. Pure: randomness is handed in."""

from __future__ import annotations

import random


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
