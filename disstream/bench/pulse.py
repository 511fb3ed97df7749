"""How late the event loop comes to its timers: what everybody else on the loop has to wait for."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from .machine import exact_now
from .timing import Histogram, Lateness, Spread

PERIOD_S = 0.002
"""Short against the stalls looked for, and some 5 us of work each: a quarter of a percent of a core."""


class Pulse:
    """While entered, counts the lateness of a timer of the running loop. Timers are good to a millisecond."""

    # Bare asyncio: this runs beside what is measured, and a task with a cancel scope for each tick would cost ten times
    # as much.

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._lateness = Lateness(PERIOD_S, exact_now())

    def __enter__(self) -> Self:
        self._lateness = Lateness(PERIOD_S, exact_now())
        self._tick()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._lateness.visit(exact_now())  # a stall that was still going on counts too

    def _tick(self) -> None:
        now = exact_now()
        self._handle = self._loop.call_later(self._lateness.visit(now) - now, self._tick)

    @property
    def late(self) -> Histogram:
        """How late it was, of each time that it was due."""
        return self._lateness.late

    def spread(self) -> Spread:
        return self._lateness.late.spread()
