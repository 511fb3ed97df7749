"""How far something is that takes long while a directory is opened: told in the log, for nobody can be asked yet."""

from __future__ import annotations

import logging
import time

_log = logging.getLogger("disstream.engine")

EVERY_S = 5.0
"""Between two lines. What takes less than the first one says nothing."""

LOOK_STEPS = 256
"""Steps between two looks at the clock: a step takes some microseconds, or waits for a page of the disk."""


class Progress:
    """Of `total` steps, each told by `step()`."""

    def __init__(self, doing: str, total: int) -> None:
        self._doing = doing
        self._total = total
        self._done = 0
        self._began = self._told_at = time.monotonic()

    def step(self) -> None:
        self._done += 1
        if self._done % LOOK_STEPS == 0 and (now := time.monotonic()) - self._told_at >= EVERY_S:
            self._told_at = now
            percent = 100 * self._done // max(self._total, self._done)
            _log.info("%s: %d of %d (%d %%)", self._doing, self._done, self._total, percent)

    def end(self) -> None:
        """A last line, if there was one before."""
        if self._told_at != self._began:
            _log.info("%s: done after %.0f s", self._doing, time.monotonic() - self._began)
