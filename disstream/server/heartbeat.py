"""Whether a front (front.py) still does anything: beats that the core sent, and that were not answered. Pure.

    answers ──beat──> 1 ──beat──> 2 … ──beat──> MISSED: it hangs, and is killed
       ^               |           |
       └───────────────┴───────────┴── whatever came from it

A process can stand still and live: stopped by somebody, swapped out, in a loop that never ends. Its connections would
hang as long, for the system sees nothing wrong with them. Beats are counted and not timed: a core that stood still
itself (a suspended machine, a stopped container) has sent none meanwhile, and so has missed no answer.
"""

from __future__ import annotations

from typing import Final

BEAT_S: Final = 2.0
"""Between two beats: two frames of ten bytes."""

MISSED: Final = 15
"""So many unanswered ones: half a minute, for which no front that works is busy with one thing. To kill it costs all
who are connected to it, so it is not done early."""

HESITATES: Final = 2
"""From so many on it is given no more connections, if there is another."""


class Heartbeat:
    """Of one front."""

    def __init__(self, missed: int = MISSED) -> None:
        self._most = missed
        self._unanswered = 0

    def beat(self) -> bool:
        """Whether to send a beat now; False: it hangs."""
        if self._unanswered >= self._most:
            return False
        self._unanswered += 1
        return True

    def heard(self) -> None:
        """Something came from it."""
        self._unanswered = 0

    @property
    def hesitates(self) -> bool:
        return self._unanswered >= HESITATES

    def check(self) -> None:
        """Assert what must always hold."""
        assert 0 <= self._unanswered <= self._most
