"""Calls of the handler that are under way: how they end, and how they are ended.

    returned     the handler returned: its records are finished. A thread that returns after its time-out is late, and
                 counts as timed out: its record may be tried again already known to be slow
    raised       it raised; `Reject` means that trying again is useless
    timed out    it was cancelled because of `record_timeout_s`, and ended
    cancelled    it was cancelled by a stop, or because its partition went away, and ended; or it raised what ends the
                 process (SystemExit, KeyboardInterrupt)

A call keeps its place until it has ended, whatever was decided about it: two calls for one key never run at once. Who
swallows a cancellation, or cleans up for longer than `cancel_timeout_s`, is cancelled again.

This is the hot path of a worker: one task for each call, without a group of its own, which would cost as much again.
None is left behind: `end` waits, and tells how many did not end.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio

from ..consumer.stacks import task_stack, thread_stack
from ..errors import ConfigError, Reject
from ..model import Partition
from .lanes import Outcome
from .queues import Run

Handler = Callable[[Any], Awaitable[object] | object]
"""Called with a Record, or with a list of them. An `async def`, or a plain function, which runs in a thread."""

LAST_S = 1.0
"""Behind the second cancellation of a call at the end; then it is left alone."""


class _Call:
    __slots__ = ("again", "run", "task", "thread", "timer", "why")

    def __init__(self, run: Run) -> None:
        self.run = run
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.again: asyncio.TimerHandle | None = None
        self.thread: int | None = None
        self.why: Outcome | None = None  # it is being ended


class Calls:
    """`on_end(run, outcome, error)` is called once for each; `on_fatal` with what is nobody's to catch."""

    def __init__(
        self,
        handler: Handler,
        *,
        batches: bool,
        concurrency: int,
        timeout_s: float | None,
        cancel_timeout_s: float,
        on_end: Callable[[Run, Outcome, BaseException | None], None],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        if not callable(handler):
            raise ConfigError(f"handler={handler!r}: give a function that takes a record, async or plain")
        self._handler = handler
        self._batches = batches
        self._timeout_s = timeout_s
        self._cancel_timeout_s = cancel_timeout_s
        self._on_end = on_end
        self._on_fatal = on_fatal
        self._calls: dict[Run, _Call] = {}
        self._ended: asyncio.Event | None = None
        self._threads: ThreadPoolExecutor | None = None
        if not _is_async(handler):
            self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="handler")

    def start(self, run: Run) -> None:
        call = self._calls[run] = _Call(run)
        loop = asyncio.get_running_loop()
        call.task = loop.create_task(self._body(call, loop), name="handler")
        if self._timeout_s is not None:
            call.timer = loop.call_later(self._timeout_s, self._time_out, call)

    async def _body(self, call: _Call, loop: asyncio.AbstractEventLoop) -> None:
        run = call.run
        records = run.records
        given = records if self._batches else records[0]
        outcome: Outcome = "returned"
        error: BaseException | None = None
        try:
            if self._threads is None:
                result = self._handler(given)
            else:
                result = await loop.run_in_executor(self._threads, self._in_thread, call, given)
            if inspect.isawaitable(result):
                await result
            if call.why == "timed_out" and self._threads is not None:
                outcome, error = self._late()
        except asyncio.CancelledError as exc:
            if call.why is None:  # its own doing: it awaited something that was cancelled
                outcome, error = "raised", exc
            elif call.why == "timed_out":
                outcome, error = self._late()
            else:
                outcome = call.why
        except Reject as exc:
            outcome, error = "rejected", exc
        except Exception as exc:
            outcome, error = "raised", exc
        except BaseException as exc:  # no failure of the record: it comes again
            outcome, error = "cancelled", exc
            self._on_fatal(exc)
        for timer in (call.timer, call.again):
            if timer is not None:
                timer.cancel()
        del self._calls[run]
        if self._ended is not None:
            self._ended.set()
        self._on_end(run, outcome, error)

    def _in_thread(self, call: _Call, given: object) -> object:
        call.thread = threading.get_ident()
        try:
            return self._handler(given)
        except StopIteration as exc:  # a future that gets one never ends
            raise RuntimeError("the handler raised StopIteration") from exc

    def _late(self) -> tuple[Outcome, BaseException]:
        return "timed_out", TimeoutError(f"the handler took longer than {self._timeout_s} s")

    def stack_of(self, partition: Partition) -> str:
        """Where the oldest call for a partition stands, as in a traceback; "" if there is none."""
        for run, call in self._calls.items():
            if run.partition == partition and call.task is not None:
                return task_stack(call.task) if call.thread is None else thread_stack(call.thread)
        return ""

    def _time_out(self, call: _Call) -> None:
        self._end(call, "timed_out")

    def cancel(self, runs: Iterable[Run]) -> None:
        """End these. Threads go on, until they return."""
        for run in runs:
            if (call := self._calls.get(run)) is not None:
                self._end(call, "cancelled")

    def _end(self, call: _Call, why: Outcome) -> None:
        if call.why is None:
            call.why = why
            if self._threads is None:
                self._cancel(call)
        elif why == "cancelled":
            call.why = why  # no more a failure of the record

    def _cancel(self, call: _Call) -> None:
        assert call.task is not None
        call.task.cancel()
        call.again = call.task.get_loop().call_later(self._cancel_timeout_s, self._cancel, call)

    async def until(self, condition: Callable[[], bool], deadline: float) -> bool:
        """Wait until `condition` holds, looking when a call ends or `look` is called; at most until `deadline`."""
        with anyio.CancelScope(deadline=deadline):
            while not condition():
                if self._ended is None or self._ended.is_set():  # several may wait for the same
                    self._ended = asyncio.Event()
                await self._ended.wait()
        return condition()

    def look(self) -> None:
        """Something that `until` waits for may have happened."""
        if self._ended is not None:
            self._ended.set()

    async def end(self) -> int:
        """Cancel all, and wait, within bounds. Returns how many did not end, and are left alone."""
        self.cancel([*self._calls])
        await self.until(lambda: not self._calls, anyio.current_time() + self._cancel_timeout_s + LAST_S)
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        return len(self._calls)


def _is_async(handler: Handler) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)
