"""The thread with the loop in which everything lives, and how other threads call into it.

    new -> running -> closed    `open()` starts the thread, `close()` ends it; once each
           running -> forked    in a child process, where the thread is not

A call is a coroutine that runs in the loop while its caller waits for a future. What can never happen: a caller that
waits for a loop that is gone. A call is let in under the lock under which `close` refuses later ones, so the loop has
seen it before it is told to stop; then it cancels what still runs.

anyio's portal owns the thread and the loop. Calls do not go through it: they cost one change of threads each way, where
`BlockingPortal.call` costs two (40 us against 107).
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, wait
from contextlib import ExitStack, suppress
from typing import Any, Generic, ParamSpec, TypeVar

from anyio.from_thread import start_blocking_portal

from ..errors import ClosedError, ConcurrencyError, WaitTimeout

P = ParamSpec("P")
T = TypeVar("T")

CUT_S = 1.0
"""How long an interrupted call waits for its coroutine to end: cancelled, it has little left to do."""

_CLOSED = "the client is closed"


class _Call(Generic[T]):
    """A coroutine that runs in the loop for a thread that waits for `future`."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self.future: Future[T] = Future()
        self._work = work
        self._task: asyncio.Task[T]

    def begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._work)
        self._task.add_done_callback(self._ended)

    def cancel(self) -> None:
        self._task.cancel()

    def _ended(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.future.cancel()
            self.future.set_running_or_notify_cancel()  # without this nobody who waits is woken
        elif (error := task.exception()) is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(task.result())


class Portal:
    """One thread, one loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._thread_id: int | None = None
        self._refusal: str | None = "the client is not started: use 'with', or start()"
        self._loop: asyncio.AbstractEventLoop

    @property
    def running(self) -> bool:
        return self._refusal is None

    def open(self) -> None:
        """Start the thread. Raises ClosedError the second time."""
        with self._lock:
            if self._thread_id is not None:
                raise ClosedError("the client was started already: make a new one")
            backend = {"use_uvloop": sys.platform != "win32"}
            portal = self._stack.enter_context(start_blocking_portal("asyncio", backend, name="disstream"))
            self._loop, self._thread_id = portal.call(_whereabouts)
            self._refusal = None

    def close(self) -> None:
        """End the thread. Calls that still run are cancelled: their callers get ClosedError. Twice is fine."""
        self._check_thread()
        with self._lock:
            if self._refusal is not None:
                return
            self._refusal = _CLOSED
        self._stack.close()

    def call(self, work: Coroutine[Any, Any, T], timeout_s: float | None = None, waiting: str = "") -> T:
        """Run `work` in the loop and wait for it. Interrupted (Ctrl-C): `work` is cancelled, and has ended.

        Raises what `work` raises, ClosedError, WaitTimeout after `timeout_s` (then `work` is cancelled; `waiting` says
        for what), ConcurrencyError in the loop's own thread.
        """
        call = self._let_in(work)
        try:
            if timeout_s is None or wait((call.future,), timeout_s).done:
                return call.future.result()
            self._cut(call)
            if call.future.done() and not call.future.cancelled():
                return call.future.result()  # just in time
            raise WaitTimeout(f"{waiting} after {timeout_s:g} s")
        except CancelledError:
            raise ClosedError(_CLOSED) from None
        except BaseException:
            if not call.future.done():
                self._cut(call)
            raise

    def _cut(self, call: _Call[Any]) -> None:
        self.call_soon(call.cancel)
        wait((call.future,), CUT_S)

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Have `callback` run in the loop; do not wait for it. Nothing happens when there is no loop (any more)."""
        if self.running:
            with suppress(RuntimeError):  # closed since we looked
                self._loop.call_soon_threadsafe(callback)

    def _let_in(self, work: Coroutine[Any, Any, T]) -> _Call[T]:
        try:
            self._check_thread()
            with self._lock:
                if self._refusal is not None:
                    raise ClosedError(self._refusal)
                call = _Call(work)
                self._loop.call_soon_threadsafe(call.begin)
                return call
        except BaseException:
            work.close()
            raise

    def _check_thread(self) -> None:
        if self.running and threading.get_ident() == self._thread_id:  # a later thread may get the number of ours
            raise ConcurrencyError(
                "a blocking call in the client's own thread would wait for itself: make it from another one"
            )

    def forked(self) -> None:
        """This is the child of a `fork`: the thread is not here, and a lock may be held for ever."""
        self._lock = threading.Lock()
        self._refusal = "the process was forked, which does not copy threads: connect again in the child"


def finished(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work` that has nothing to wait for, without a loop."""
    try:
        work.send(None)
    except StopIteration as returned:
        result: T = returned.value
        return result
    work.close()
    raise AssertionError("there is something to wait for")


async def returned(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `call` returns, called in the loop."""
    return call(*args, **kwargs)


async def _whereabouts() -> tuple[asyncio.AbstractEventLoop, int]:
    return asyncio.get_running_loop(), threading.get_ident()
