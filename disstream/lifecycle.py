"""One supervisor task per public object.

A task group entered in one task and left in another breaks, as pytest fixtures and web frameworks do all the time. So
each public object (client, producer, consumer, server) has one task that enters its resources and its task group, and
leaves them; `start`, `close` and `async with` only signal that task.

    state     idle -> starting -> running -> closing -> closed       (starting or running -> closed when the body fails)

The body is one coroutine function `run(scope)`:

    async def _run(self, scope: Scope) -> None:
        async with anyio.create_task_group() as tasks:
            ... start what belongs to the object ...
            scope.started()
            await scope.closing.wait()         # close() was called
            ... drain; what takes longer than the object's close_timeout_s is the body's to cut ...

If the body raises, everybody who waits in `start()` or `close()` gets the exception; a task group that failed for one
reason raises that reason. Calls on the object in between should go through `check()`, which raises ClosedError from it.

And how such tasks wait for each other, a `Bell`, and for what may not come, a `Limit`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from types import TracebackType

import anyio

from .errors import ClosedError


class Bell:
    """One task waits, others ring.

    Made of asyncio's parts, because some wait for each page: an event and a cancel scope of anyio cost five times as
    much.
    """

    def __init__(self) -> None:
        self._rung = False
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        self._rung = True
        self._wake()

    def still(self) -> None:
        """Forget that it was rung: what it was rung for is looked at now."""
        self._rung = False

    async def wait(self, until: float | None = None) -> None:
        """Until it is rung, also if it was since the last `still`, or until the loop's clock reads `until`."""
        if self._rung:
            return
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = None if until is None or math.isinf(until) else loop.call_at(until, self._wake)
        try:
            await self._waiter
        finally:
            if timer is not None:
                timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Limit:
    """`async with Limit(until)`: as `asyncio.timeout_at(until)`, but what has come in time is not thrown away.

    A loop that was blocked finds an answer and the end of its time in one turn. asyncio's time-out cancels the task all
    the same, as it has not run yet. So this one strikes a turn later. A scope of anyio does no harm either, at five
    times the price.
    """

    __slots__ = ("_timeout", "_timer", "_until")

    def __init__(self, until: float) -> None:
        self._until = until
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._timer = asyncio.get_running_loop().call_at(self._until, self._timeout.reschedule, self._until)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._timeout.__aexit__(kind, error, trace)


def loop_time() -> float:
    """As `anyio.current_time()`, at a fifth of its price: for what is asked for each page."""
    return asyncio.get_running_loop().time()


class Scope:
    """What a body gets: `started()` to let `start()` return, `closing` to wait for."""

    def __init__(self, closing: anyio.Event, on_started: Callable[[], None]) -> None:
        self.closing = closing
        self._on_started = on_started

    def started(self) -> None:
        self._on_started()


class Supervisor:
    """Runs one body in its own task, from `start()` to `close()` or `abort()`."""

    def __init__(self, name: str, body: Callable[[Scope], Awaitable[None]]) -> None:
        self._name = name
        self._body = body
        self._task: asyncio.Task[None] | None = None
        self._started: asyncio.Future[None] | None = None
        self._closing: anyio.Event | None = None
        self._failure: BaseException | None = None
        # Not Task.cancel(): that strikes once, and through anyio's shields, so it would cut the body's cleaning up.
        self._life: anyio.CancelScope | None = None

    @property
    def running(self) -> bool:
        """Started, not closing, not failed."""
        return (
            self._task is not None
            and not self._task.done()
            and self._started is not None
            and self._started.done()
            and self._closing is not None
            and not self._closing.is_set()
        )

    def check(self) -> None:
        """Raise ClosedError unless the object runs: never started, closing, closed, or dead (then from its failure)."""
        if self.running:
            return
        if self._task is None:
            raise ClosedError(f"{self._name} is not started: use 'async with', or await its start()") from self._failure
        if self._failure is not None:
            raise ClosedError(f"{self._name} died: {self._failure}") from self._failure
        raise ClosedError(f"{self._name} is closed")

    async def start(self) -> None:
        """Run the body until it calls `scope.started()`.

        Raises what the body raises before that. Cancelled while waiting: the body is cancelled and has ended when this
        re-raises. A second start raises ClosedError.
        """
        if self._task is not None:
            raise ClosedError(f"{self._name} was started already: make a new one")
        loop = asyncio.get_running_loop()
        self._started = started = loop.create_future()
        self._closing = anyio.Event()
        scope = Scope(self._closing, lambda: None if started.done() else started.set_result(None))
        self._life = anyio.CancelScope()
        self._task = loop.create_task(self._run(scope, self._life), name=self._name)
        try:
            await asyncio.wait({started, self._task}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.abort()
            raise
        if not started.done():
            started.cancel()
            self._closing.set()  # the failure is told here: close() has nothing to add
            raise self._failure or ClosedError(f"{self._name} ended while starting")

    async def _run(self, scope: Scope, life: anyio.CancelScope) -> None:
        try:
            with life:
                await self._body(scope)
            if life.cancelled_caught:
                self._failure = ClosedError(f"{self._name} was aborted")
        except asyncio.CancelledError:  # the loop is being shut down
            self._failure = ClosedError(f"{self._name} was aborted")
        except BaseException as exc:
            self._failure = unwrap(exc)
            if not isinstance(exc, Exception):
                raise

    async def close(self) -> None:
        """Ask the body to end and wait for it; raises what it raised. Twice is fine: the second raises nothing.

        Cancelled while waiting: the body is aborted, and has ended when this re-raises.
        """
        if self._task is None or self._closing is None:
            return
        first = not self._closing.is_set()
        self._closing.set()
        try:
            await asyncio.wait({self._task})
        except asyncio.CancelledError:
            await self.abort()
            raise
        if first and self._failure is not None:
            raise self._failure

    async def wait(self) -> None:
        """Return once the body has ended, for whatever reason; `close` tells which. At once if it never began."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def abort(self) -> None:
        """End now: cancel the body and wait until it has cleaned up. Raises nothing of the body's."""
        if self._task is None or self._closing is None or self._life is None:
            return
        self._closing.set()
        self._life.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait({self._task})


def unwrap(exc: BaseException) -> BaseException:
    """A group that holds one exception becomes that exception, at every depth."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc
