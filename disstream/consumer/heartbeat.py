"""Heartbeats of a group member, beside the event loop that works.

In production they come from a thread with an event loop and a connection of its own, so that a handler that blocks the
working loop does not cost its partitions. (C code that keeps the interpreter's lock stops this thread too.) In a
simulation, where no thread can be, they are a task.

A loop that is blocked for good must not keep its partitions for ever: it shows a sign of life with each `alive()`, and
when none came for `max_stall_s`, the partitions are given up. Time in which the whole process was stopped, or the
machine slept, is no proof against the loop: then the lease decides. And whatever ends the heartbeats ends the consumer:
a member without them would wait for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Protocol

import anyio

from .. import clock
from ..errors import DisError
from ..wire.groups import NO_GENERATION, HeartbeatState
from .cursor import heals
from .lease import Lease
from .stacks import thread_stack

log = logging.getLogger("disstream.consumer")


BEAT_MIN_S = 0.05
"""However short the session."""

BEAT_MAX_S = 3.0

STOPPED_INTERVALS = 5
"""Without a look at the working loop for so many intervals, this one did not run either: a beat takes three at most."""


class BeatingGroups(Protocol):
    async def heartbeat(
        self, app: str, member_id: str, generation: int, *, timeout_s: float | None = None
    ) -> HeartbeatState: ...
    async def leave(self, app: str, member_id: str, *, timeout_s: float | None = None) -> None: ...


class Twin(Protocol):
    """A client for another event loop, not started."""

    @property
    def groups(self) -> BeatingGroups: ...
    async def start(self) -> object: ...
    async def abort(self) -> None: ...


class Heartbeats:
    """Renews `lease` every `interval_s` until stopped; calls `on_news` in the working loop when it matters there."""

    def __init__(
        self,
        app: str,
        member_id: str,
        lease: Lease,
        *,
        interval_s: float,
        max_stall_s: float,
        on_news: Callable[[], None],
        warn_s: float | None = None,
    ) -> None:
        """`warn_s`: a loop that was blocked for so long is logged, with the code that blocks it."""
        self._app = app
        self._member_id = member_id
        self._lease = lease
        self.interval_s = interval_s
        self._max_stall_s = max_stall_s
        self._on_news = on_news
        self._alive_at = clock.boot()
        self._warn_s = float("inf") if warn_s is None else warn_s
        self._warned = False  # and no sign of life since
        self._home_thread: int | None = None  # of the working loop, if the heartbeats have another
        self._gave_up = False  # and no sign of life since
        self._unheard = False  # the lease ran out because nothing was answered
        self.stalled = False
        """The loop was blocked for `max_stall_s`, and the partitions were given up."""
        self.lapses = 0
        """How often the lease ran out because nothing was answered in time, or the process was stopped."""

    def alive(self) -> None:
        """The working loop works."""
        self._alive_at = clock.boot()

    async def run(self, groups: BeatingGroups) -> None:
        """As a task of the working loop. Until cancelled. Raises what will not heal."""
        await self._beat(groups, self._on_news)

    async def run_beside(self, twin: Twin) -> None:
        """In a thread with an event loop of its own. Until cancelled; the thread has ended then, or is about to.

        Raises what ended the thread otherwise.
        """
        home = asyncio.get_running_loop()
        self._home_thread = threading.get_ident()
        ended = asyncio.Event()
        stop = _Stop()
        failures: list[BaseException] = []

        def tell() -> None:
            _call_in(home, self._on_news)

        async def beat() -> None:
            await twin.start()
            try:
                with stop.scope():
                    await self._beat(twin.groups, tell)
            finally:
                await twin.abort()

        def body() -> None:
            try:
                anyio.run(beat)
            except BaseException as error:  # raised again in the task that waits for this thread
                failures.append(error)
            finally:
                _call_in(home, ended.set)

        # Not joined at the end of the process: a thread that waits for an answer must not hold that up.
        thread = threading.Thread(target=body, name=f"heartbeats-{self._app}", daemon=True)
        thread.start()
        try:
            await ended.wait()
        finally:
            stop.set()
            with anyio.move_on_after(self.interval_s, shield=True):
                await ended.wait()
        for failure in failures:
            raise failure

    async def _beat(self, groups: BeatingGroups, tell: Callable[[], None]) -> None:
        looked_at = clock.boot()
        while True:
            begun, now = anyio.current_time(), clock.boot()
            if now - looked_at > self.interval_s * STOPPED_INTERVALS:
                self.alive()  # not only the loop, the whole process was stopped: then the loop had no chance to show it
            looked_at = now
            self._warn_of_block(now - self._alive_at)
            generation = self._lease.generation
            if now - self._alive_at > self._max_stall_s:
                await self._give_up(groups, generation, tell)
            else:
                self._gave_up = False
                await self._once(groups, generation, tell)
            await anyio.sleep_until(begun + self.interval_s)

    def _warn_of_block(self, blocked_s: float) -> None:
        if blocked_s < self._warn_s or self._home_thread is None:
            self._warned = False
        elif not self._warned:
            self._warned = True
            log.warning(
                "%s: the event loop of member %s is blocked for %.0f s; it stands at\n%s",
                self._app,
                self._member_id,
                blocked_s,
                thread_stack(self._home_thread),
            )

    async def _once(self, groups: BeatingGroups, generation: int, tell: Callable[[], None]) -> None:
        # Also while the member is to join again: it keeps its place until it has handed over what it holds.
        sent_at = clock.boot()
        told = self._lease.rejoin
        try:
            # An answer that takes longer would renew next to nothing. A lost one is followed by the next beat.
            with anyio.fail_after(self.interval_s * 3):
                state = await groups.heartbeat(self._app, self._member_id, generation, timeout_s=self.interval_s * 2)
        except (DisError, TimeoutError) as error:
            self._failed(generation, error)
            return
        unheard, self._unheard = self._unheard, False
        if unheard:
            log.info("%s: member %s is heard again", self._app, self._member_id)
        if state in ("STABLE", "SYNCING"):
            ended_at = self._lease.deadline
            self._lease.go_on(generation, sent_at)
            if clock.boot() >= ended_at:  # looked at behind it: whoever found it run out until then is waiting
                self.lapses += not unheard and ended_at > float("-inf")
                tell()
        elif not told:
            self._lease.end(generation)
            tell()

    def _failed(self, generation: int, error: DisError | TimeoutError) -> None:
        """Raises what will not heal once nothing is held any more. While it is joined again the join tells."""
        log.debug("%s: heartbeat of %s failed: %s", self._app, self._member_id, error)
        if generation == NO_GENERATION or self._lease.rejoin or self._lease.holds(clock.boot()):
            return
        if isinstance(error, DisError) and not heals(error):
            raise error
        if not self._unheard:
            self._unheard = True
            self.lapses += 1
            told = str(error) or "no answer in time"  # a TimeoutError says nothing
            log.warning("%s: member %s hands out nothing until it is heard: %s", self._app, self._member_id, told)

    async def _give_up(self, groups: BeatingGroups, generation: int, tell: Callable[[], None]) -> None:
        if self._gave_up:
            return
        self._lease.lose(generation)
        self._gave_up = self.stalled = True
        log.error("%s: the event loop of member %s is blocked: its partitions are given up", self._app, self._member_id)
        tell()
        try:
            with anyio.move_on_after(self.interval_s * 3):
                await groups.leave(self._app, self._member_id)
        except DisError as error:
            log.debug("%s: member %s could not leave: %s", self._app, self._member_id, error)


def beat_interval_s(wanted_s: float | None, session_s: float) -> float:
    """How often to beat: nine may get lost, unless something else is wanted; two at least, whatever is."""
    interval_s = wanted_s or min(session_s / 10, BEAT_MAX_S)
    return max(BEAT_MIN_S, min(interval_s, session_s / 3))


class _Stop:
    """Cancels a scope that is entered in another thread's loop, before or after."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = False
        self._entered: tuple[asyncio.AbstractEventLoop, anyio.CancelScope] | None = None

    def scope(self) -> anyio.CancelScope:
        scope = anyio.CancelScope()
        with self._lock:
            self._entered = (asyncio.get_running_loop(), scope)
            if self._stopped:
                scope.cancel()
        return scope

    def set(self) -> None:
        with self._lock:
            self._stopped = True
            if self._entered is not None:
                loop, scope = self._entered
                _call_in(loop, scope.cancel)


def _call_in(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # it is closed: then nobody is left to be told
        loop.call_soon_threadsafe(call)
