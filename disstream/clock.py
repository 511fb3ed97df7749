"""The one door to wall time.

Everything that *waits* uses the event loop's clock (`anyio.current_time()`), so that a test loop can make
time jump. Wall time is needed only where a number leaves the process: record timestamps, cursor ages, creation
times. It is read here and nowhere else, so that a simulation can move it together with its loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_source: Callable[[], float] = time.time


def wall() -> float:
    """Seconds since the epoch."""
    return _source()


def wall_ms() -> int:
    """Milliseconds since the epoch, as DIS writes times (13 digits)."""
    return int(_source() * 1000)


def replace_wall(source: Callable[[], float] | None) -> Callable[[], float]:
    """Make `wall` read `source` (None: the system's clock) and return what it read before. For simulations."""
    global _source
    previous = _source
    _source = time.time if source is None else source
    return previous
