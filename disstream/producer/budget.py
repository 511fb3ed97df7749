"""The byte budget: everything accepted and not settled fits in it, and who asked first enters first.

The fast path costs one comparison and lives in `Producer.send`:

    used = budget.used + need
    if used > budget.mark: await budget.enter(need, ...)      # no room, others wait, or time for a breath
    else: budget.used = used

`mark` is normally the end of the next stretch of BREATH_BYTES, so that a burst of sends that never suspend comes by
here every so often and, when a millisecond has passed, lets the loop breathe. While anybody waits for room, `mark` is
below everything, so that nobody overtakes: records of a key enter in the order of the `send` calls. A wait that was
granted holds the door until its task has run, for the same reason.

**Shares.** A partition that takes nothing, or too little, must not fill the budget and stop the others. So a partition
may start a batch only while its records hold at most as much of the budget as is free (`shut`): alone it gets a half,
two get a third each, n get 1/(n+1). What nobody uses is there for whoever comes, and no number has to be chosen. Asked
once per batch, not per record: a batch that was started is filled.

A paced partition is shut, too, while what it holds takes longer than half of delivery_timeout_s at its pace: better to
wait for room than to expire in the line.

Who finds its partition shut waits for a turn (`turn`): in the order of the calls per partition, and not in the way of
others. A call that writes to several partitions waits for its turn in all of them; calls queue up in all of theirs at
once, so no two wait for each other. From its turn on a call waits for room like everybody.

What can never happen: a record overtakes an earlier one of its partition (whoever queues for a turn has sealed the
lane's open batch first, so that nothing can be added to it on the fast path, and the last of those whose turn has come
does so again if others still wait); a call holds room, or a turn, after it was cancelled or timed out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from ..errors import BufferFull, ClosedError, ConfigError
from ..wire.partitioning import partition_id
from .traffic import Traffic

BREATH_BYTES = 65_536
BREATH_S = 0.001
_CLOSED = -1


class Turn:
    """A call that waits for its partitions. `route` tells them, and tells them anew when the layout has changed."""

    __slots__ = ("come", "future", "need", "route", "traffics")

    def __init__(self, need: int, route: Callable[[], Sequence[Traffic]], future: asyncio.Future[None]) -> None:
        self.need = need
        self.route = route
        self.future = future
        self.traffics = route()
        self.come = False  # it is our turn everywhere: only room may be missing

    @property
    def share(self) -> int:
        return self.need // len(self.traffics)


class ByteBudget:
    """Counts bytes in and out; waiting is first come, first served. For the tasks of one loop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.mark = _CLOSED
        self.shares = False
        """Whether there are several partitions to share it."""
        self._waiters: deque[tuple[asyncio.Future[None], int]] = deque()
        self._turns: dict[Turn, None] = {}  # that have not come, oldest first
        self._lines: dict[Traffic, None] = {}  # partitions that somebody waits for
        self._granted = 0  # waits that were granted but whose tasks have not run yet
        self._breathed_at = 0.0
        self._breath: asyncio.Handle | None = None
        self._closed: ClosedError | None = None

    @property
    def more(self) -> bool:
        """Whether somebody is in the middle of sending, and pauses to let the loop breathe, with room left."""
        if self.used >= self.limit // 2:
            return False
        # Who waits for more room than there is does not send on before something is settled.
        return self._granted > 0 or (bool(self._waiters) and self.used + self._waiters[0][1] <= self.limit)

    def open(self, now: float) -> None:
        self._breathed_at = now
        self._set_mark()

    def close(self, reason: ClosedError) -> None:
        """Let nobody in any more; who waits gets `reason`."""
        self._closed = reason
        self.mark = _CLOSED
        waiters, self._waiters = self._waiters, deque()
        for future in [*(future for future, _ in waiters), *(turn.future for turn in self._turns)]:
            if not future.done():
                future.set_exception(reason)

    # --- room -----------------------------------------------------------------------------------------------------

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
        self._check_size(need, what)
        future: asyncio.Future[None] = loop.create_future()
        self._waiters.append((future, need))
        self.mark = _CLOSED
        if not busy and self._breath is None:
            self._breath = loop.call_soon(self._after_breath)
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            if not _is_granted(future):  # else there was room in time, if only just
                self._withdraw(future, need)
                raise BufferFull(f"{what}: no room within {timeout_s:g} s, {self._told(need)}") from None
        except BaseException:
            self._withdraw(future, need)
            raise
        self._entered(need)

    def take(self, need: int) -> None:
        """Take `need` that was promised before, whatever is used now. Raises ClosedError."""
        self._check_open()
        self.used += need
        self._set_mark()

    def leave(self, amount: int) -> None:
        """Give `amount` back and let in who waits, in order."""
        self.used -= amount
        if self._waiters or self._turns:
            self._grant()

    # --- turns ----------------------------------------------------------------------------------------------------

    def shut(self, traffic: Traffic) -> bool:
        """Whether a record for this partition that needs a new batch has to wait for its turn."""
        return bool(traffic.turns or traffic.coming) or self._is_over(traffic)

    async def turn(self, need: int, route: Callable[[], Sequence[Traffic]], timeout_s: float, what: str) -> None:
        """Take `need`, waiting at most `timeout_s` for a turn in each partition that `route` names, and for room.

        Raises BufferFull, and what `route` raises if the layout changes meanwhile. Cancelled: nothing was taken.
        """
        self._check_open()
        self._check_size(need, what)
        loop = asyncio.get_running_loop()
        turn = Turn(need, route, loop.create_future())
        self._queue(turn)
        loop.call_soon(
            self._grant
        )  # not now: we would run before those whose turn has come and whose tasks have not run
        try:
            async with asyncio.timeout(timeout_s):
                await turn.future
        except TimeoutError:
            if not _is_granted(turn.future):
                told = self._told(need) if turn.come else self.told_share(turn.traffics)
                self._step_back(turn)
                raise BufferFull(f"{what}: no room within {timeout_s:g} s, {told}") from None
        except BaseException:
            self._step_back(turn)
            raise
        self._leave_door(turn)
        self._entered(need)

    def reroute(self) -> None:
        """The layout has changed: put who waits into the lines of their partitions of now, in the order they came."""
        turns = list(self._turns)
        for turn in turns:
            self._unqueue(turn)
        for turn in turns:
            if turn.future.done():
                continue
            try:
                turn.traffics = turn.route()
            except ConfigError as exc:  # it names a partition that is not written any more
                turn.future.set_exception(exc)
            else:
                self._queue(turn)
        self._grant()

    def _queue(self, turn: Turn) -> None:
        self._turns[turn] = None
        for traffic in turn.traffics:
            traffic.turns.append(turn)
            self._lines[traffic] = None

    def _unqueue(self, turn: Turn) -> None:
        del self._turns[turn]
        for traffic in turn.traffics:
            traffic.turns.remove(turn)

    def _call(self) -> None:
        """Let those whose turn has come wait for room, which they hold a share of from now on."""
        for traffic in list(self._lines):
            while traffic.turns and self._is_turn(traffic.turns[0]):
                turn = traffic.turns[0]
                self._unqueue(turn)
                turn.come = True
                for mine in turn.traffics:
                    mine.coming += 1
                    mine.held += turn.share
                self._waiters.append((turn.future, turn.need))
            if not traffic.turns:
                self._lines.pop(traffic, None)

    def _is_turn(self, turn: Turn) -> bool:
        return all(traffic.turns[0] is turn and not self._is_over(traffic) for traffic in turn.traffics)

    def _is_over(self, traffic: Traffic) -> bool:
        """Whether a partition holds more than its share, or more than its pace lets go in time."""
        return (self.shares and traffic.held > self.limit - self.used) or traffic.late

    def _leave_door(self, turn: Turn) -> None:
        for traffic in turn.traffics:
            traffic.coming -= 1
            traffic.held -= turn.share

    def _step_back(self, turn: Turn) -> None:
        if turn.come:
            self._leave_door(turn)
        elif turn in self._turns:  # not where `route` found no place for it in a new layout
            self._unqueue(turn)
        self._withdraw(turn.future, turn.need)

    # --- both -----------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed is not None:
            raise self._closed

    def _check_size(self, need: int, what: str) -> None:
        if need > self.limit:
            raise BufferFull(
                f"{what}: {need} bytes can never fit into buffer_bytes={self.limit}: raise it, or send less"
            )

    def _entered(self, need: int) -> None:
        """The task of a granted wait runs: the door is open again."""
        self._granted -= 1
        self._grant()  # who came while the door was held
        try:
            self._check_open()  # it may have been closed between the grant and this task's turn
        except ClosedError:
            self.leave(need)
            raise

    def _after_breath(self) -> None:
        self._breath = None
        self._breathed_at = asyncio.get_running_loop().time()
        self._grant()

    def _grant(self) -> None:
        if self._turns:
            self._call()
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
        if _is_granted(future):  # and cancelled then
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

    def told_share(self, traffics: Sequence[Traffic]) -> str:
        """Why records for these partitions have to wait."""
        fullest = max(traffics, key=lambda traffic: traffic.held)
        place = partition_id(fullest.number) if fullest.number is not None else "records for any partition"
        if fullest.late:
            return (
                f"{place} has {fullest.queued} records waiting, which take longer than half of delivery_timeout_s at "
                "its pace: spread them over more keys and partitions, or send less"
            )
        return (
            f"{place} holds {fullest.held} of buffer_bytes={self.limit}, of which {self.used} are used: one partition "
            "may hold as much as is free, so that it does not stop the others"
        )


def _is_granted(future: asyncio.Future[None]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None
