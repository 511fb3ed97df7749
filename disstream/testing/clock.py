"""An event loop whose time jumps to the next timer: an hour of sleeping takes milliseconds.

The loop is the only clock of disstream, so running on this loop puts all of it, client, producer, consumer and server,
under virtual time; wall time moves along. Works as long as nothing waits for the outside: with a real socket or thread
the loop cannot know that something will still happen, and would jump past it.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from .. import clock

T = TypeVar("T")

EPOCH = 1_700_000_000.0
"""Wall time at loop time 0 in a simulation."""


class SimLoop(asyncio.SelectorEventLoop):
    """When nothing is ready to run, time becomes the instant of the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self._sim_now = 0.0

    def time(self) -> float:
        return getattr(self, "_sim_now", 0.0)  # the base class asks before our __init__ has set it

    def advance(self, seconds: float) -> None:
        """Move time without running anything: what a suspended machine or a blocked loop looks like."""
        self._sim_now += seconds

    def _run_once(self) -> None:
        # _ready and _scheduled are the two queues of asyncio.BaseEventLoop, stable since 3.4.
        ready: Any = self._ready  # type: ignore[attr-defined]
        scheduled: Any = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
            self._timer_cancelled_count -= 1  # type: ignore[attr-defined]
        if not ready and scheduled:
            self._sim_now = max(self._sim_now, scheduled[0]._when)
        super()._run_once()  # type: ignore[misc]


@contextlib.contextmanager
def sim_wall(loop: SimLoop) -> Iterator[None]:
    """Let wall time and the time since boot follow `loop` inside the block."""
    wall = clock.replace_wall(lambda: EPOCH + loop.time())
    boot = clock.replace_boot(loop.time)
    try:
        yield
    finally:
        clock.replace_wall(wall)
        clock.replace_boot(boot)


def run_simulated(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `main()` to its end on a fresh simulated loop, wall time included."""
    with asyncio.Runner(loop_factory=SimLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, SimLoop)
        with sim_wall(loop):
            return runner.run(main())
