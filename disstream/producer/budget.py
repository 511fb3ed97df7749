"""The byte budget: everything accepted and not settled fits in it, and who asked first enters first.

The fast path costs one comparison and lives in `Producer.send`:

    used = budget.used + need
    if used > budget.mark: await budget.enter(need, ...)      # no room, others wait, or time for a breath
    else: budget.used = used

`mark` is normally the end of the next stretch of BREATH_BYTES, so that a burst of sends that never suspend comes by
here every so often and, when a millisecond has passed, lets the loop breathe. While anybody waits, `mark` is below
everything, so that nobody overtakes: records of a key enter in the order of the `send` calls. A wait that was granted
holds the door until its task has run, for the same reason.
"""

from __future__ import annotations

import asyncio
from collections import deque

import anyio

from ..errors import BufferFull, ClosedError

BREATH_BYTES = 65_536
BREATH_S = 0.001
_CLOSED = -1


class ByteBudget:
    """Counts bytes in and out; waiting is first come, first served. For the tasks of one loop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.mark = _CLOSED
        self._waiters: deque[tuple[asyncio.Future[None], int]] = deque()
        self._granted = 0  # waits that were granted but whose tasks have not run yet
        self._breathed_at = 0.0
        self._breath: asyncio.Handle | None = None
        self._closed: ClosedError | None = None

    def open(self, now: float) -> None:
        self._breathed_at = now
        self._set_mark()

    def close(self, reason: ClosedError) -> None:
        """Let nobody in any more; who waits gets `reason`."""
        self._closed = reason
        self.mark = _CLOSED
        waiters, self._waiters = self._waiters, deque()
        for future, _ in waiters:
            if not future.done():
                future.set_exception(reason)

    def enter_nowait(self, need: int, what: str) -> None:
        """Take `need` at once or raise BufferFull. Never takes the room of one who waits for room."""
        self._check_open()
        if self.used + sum(waiting for _, waiting in self._waiters) + need > self.limit:
            raise BufferFull(f"{what}: {self._told(need)}")
        self.used += need
        self._set_mark()

    async def enter(self, need: int, timeout_s: float, what: str) -> None:
        """Take `need`, waiting at most `timeout_s` for room. Raises BufferFull. Cancelled: nothing was taken."""
        self._check_open()
        loop = asyncio.get_running_loop()
        now = loop.time()
        busy = self._waiters or self._granted or self.used + need > self.limit
        if not busy and now - self._breathed_at < BREATH_S:
            self.used += need
            self._set_mark()
            return
        if need > self.limit:
            raise BufferFull(
                f"{what}: {need} bytes can never fit into buffer_bytes={self.limit}: raise it, or send less"
            )
        future: asyncio.Future[None] = loop.create_future()
        self._waiters.append((future, need))
        self.mark = _CLOSED
        if not busy and self._breath is None:
            self._breath = loop.call_soon(self._after_breath)
        try:
            with anyio.fail_after(timeout_s):
                await future
        except TimeoutError:
            self._withdraw(future, need)
            raise BufferFull(f"{what}: no room within {timeout_s:g} s, {self._told(need)}") from None
        except BaseException:
            self._withdraw(future, need)
            raise
        self._granted -= 1
        self._set_mark()
        try:
            self._check_open()  # it may have been closed between the grant and this task's turn
        except ClosedError:
            self.leave(need)
            raise

    def take(self, need: int) -> None:
        """Take `need` that was promised before, whatever is used now. Raises ClosedError."""
        self._check_open()
        self.used += need
        self._set_mark()

    def leave(self, amount: int) -> None:
        """Give `amount` back and let in who waits, in order."""
        self.used -= amount
        if self._waiters:
            self._grant()

    def _check_open(self) -> None:
        if self._closed is not None:
            raise self._closed

    def _after_breath(self) -> None:
        self._breath = None
        self._breathed_at = asyncio.get_running_loop().time()
        self._grant()

    def _grant(self) -> None:
        while self._waiters:
            future, need = self._waiters[0]
            if not future.done():
                if self.used + need > self.limit:
                    break
                self.used += need
                self._granted += 1
                future.set_result(None)
            self._waiters.popleft()
        self._set_mark()

    def _withdraw(self, future: asyncio.Future[None], need: int) -> None:
        if future.done() and not future.cancelled() and future.exception() is None:  # granted, then cancelled
            self._granted -= 1
            self.leave(need)
        else:
            future.cancel()
            self._grant()

    def _set_mark(self) -> None:
        if self._closed is None and not self._waiters and not self._granted:
            self.mark = min(self.limit, self.used + BREATH_BYTES)
        else:
            self.mark = _CLOSED

    def _told(self, need: int) -> str:
        return f"{need} bytes wanted, {self.used} of buffer_bytes={self.limit} are used by records not yet settled"
