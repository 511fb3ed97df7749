"""How long a lease store has been of no use, as far as somebody tried. Pure.

Counted in steps between two tries, each bounded: time in which the process was stopped, or the machine slept, is not
the store's.
"""

from __future__ import annotations

from ..errors import DisError, StorageError

MAX_STEP_S = 15.0
"""A try is given up after 10 s, and the next follows soon."""


class Outage:
    def __init__(self, budget_s: float) -> None:
        self._budget_s = budget_s
        self._tried_at: float | None = None
        self.lasted_s = 0.0
        self.count = 0
        self._is_on = False

    def failed(self, error: DisError, now: float) -> bool:
        """A try failed; whether it is the first. Raises StorageError once the budget is used up."""
        began = not self._is_on
        if began:
            self.count += 1
            self.lasted_s = 0.0
        elif self._tried_at is not None:
            self.lasted_s += min(now - self._tried_at, MAX_STEP_S)
        self._is_on = True
        self._tried_at = now
        if self.lasted_s >= self._budget_s:
            raise StorageError(
                f"the lease store was of no use for outage_budget_s={self._budget_s:g}, and nothing could be handed "
                f"out: see to the store, or allow more ({error})"
            ) from error
        return began

    def worked(self) -> bool:
        """A try succeeded; whether that ended an outage."""
        ended, self._is_on = self._is_on, False
        return ended

    def check(self) -> None:
        """Assert every invariant."""
        assert 0.0 <= self.lasted_s < self._budget_s + MAX_STEP_S
