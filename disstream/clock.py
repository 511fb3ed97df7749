"""The one door to the clocks of the machine.

Everything that *waits* uses the event loop's clock (`anyio.current_time()`), so that a test loop can make
time jump. Wall time is needed only where a number leaves the process: record timestamps, cursor ages, creation
times; the time since boot where a thread, or a process that was stopped, must know how much time passed. Both are
read here and nowhere else, so that a simulation can move them together with its loop.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

_source: Callable[[], float] = time.time

_SYSTEM_BOOT: Callable[[], float] = (
    # Where the system has no such clock, sleep of the machine goes unnoticed.
    functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)

# A variable and no function around one: it is read for every record that a group member hands out.
boot: Callable[[], float] = _SYSTEM_BOOT
"""Seconds since the machine started, sleep and suspension included: what a lease is measured with.

The event loop's clock stands still while the machine sleeps, and wall time jumps. Call it as `clock.boot()`, or a
simulation cannot replace it.
"""


def wall() -> float:
    """Seconds since the epoch."""
    return _source()


def wall_ms() -> int:
    """Milliseconds since the epoch, as DIS writes times (13 digits)."""
    return int(_source() * 1000)


def replace_boot(source: Callable[[], float] | None) -> Callable[[], float]:
    """Make `boot` read `source` (None: the system's clock) and return what it read before. For simulations."""
    global boot
    previous = boot
    boot = _SYSTEM_BOOT if source is None else source
    return previous


def replace_wall(source: Callable[[], float] | None) -> Callable[[], float]:
    """Make `wall` read `source` (None: the system's clock) and return what it read before. For simulations."""
    global _source
    previous = _source
    _source = time.time if source is None else source
    return previous
