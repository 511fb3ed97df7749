"""Proves that a supervised object starts and ends whole, whoever starts, closes or cancels it, and when."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from disstream.errors import ClosedError
from disstream.lifecycle import Bell, Limit, Scope, Supervisor, loop_time, unwrap
from disstream.testing.clock import run_simulated


class Thing:
    """An object with a task group, a child task that lives as long as it, and a note of what happened."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.supervisor = Supervisor("thing", self._run)
        self.die = anyio.Event()

    async def _run(self, scope: Scope) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                self.events.append("open")
                await anyio.sleep(1)  # resources take time to come up
                tasks.start_soon(self._child)
                scope.started()
                await scope.closing.wait()
                self.events.append("drain")
                await anyio.sleep(1)
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)  # giving back takes time too
            self.events.append("released")

    async def _child(self) -> None:
        await self.die.wait()
        raise RuntimeError("the child failed")


async def test_entered_and_left_in_different_tasks() -> None:
    """A task group started by one task may be ended by another, as fixtures and web frameworks do."""
    seen: list[str] = []

    async def run(scope: Scope) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            scope.started()
            await scope.closing.wait()
            tasks.cancel_scope.cancel()
        seen.append("left")

    supervisor = Supervisor("thing", run)
    await asyncio.create_task(supervisor.start())
    supervisor.check()
    await asyncio.create_task(supervisor.close())
    assert seen == ["left"]


def test_a_life() -> None:
    """Before start, while running, after close: `check` and `running` tell, and twice closed is closed."""

    async def main() -> None:
        thing = Thing()
        with pytest.raises(ClosedError, match="not started"):
            thing.supervisor.check()
        await thing.supervisor.close()  # closing what never started changes nothing
        await thing.supervisor.start()
        thing.supervisor.check()
        with pytest.raises(ClosedError, match="started already"):
            await thing.supervisor.start()
        await thing.supervisor.close()
        await thing.supervisor.close()
        await thing.supervisor.abort()
        assert not thing.supervisor.running
        with pytest.raises(ClosedError, match="is closed"):
            thing.supervisor.check()
        assert thing.events == ["open", "drain", "released"]

    run_simulated(main)


def test_closing_refuses_before_it_ends() -> None:
    """From the moment close is called nothing new is let in, while the body still drains."""

    async def main() -> None:
        thing = Thing()
        await thing.supervisor.start()
        closing = asyncio.create_task(thing.supervisor.close())
        await asyncio.sleep(0.5)
        assert thing.events == ["open", "drain"]
        with pytest.raises(ClosedError):
            thing.supervisor.check()
        await thing.supervisor.close()  # a second closer waits for the same end
        assert thing.events == ["open", "drain", "released"]
        await closing

    run_simulated(main)


def test_start_that_fails_half_way() -> None:
    """What the body opened is given back, start raises its reason, and the object stays dead."""

    async def main() -> None:
        events: list[str] = []

        async def run(scope: Scope) -> None:
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(anyio.sleep_forever)
                    await anyio.sleep(1)
                    raise ValueError("no room")
            finally:
                events.append("released")

        supervisor = Supervisor("thing", run)
        with pytest.raises(ValueError, match="no room"):
            await supervisor.start()
        assert events == ["released"]
        with pytest.raises(ClosedError, match="died: no room") as caught:
            supervisor.check()
        assert isinstance(caught.value.__cause__, ValueError)

    run_simulated(main)


def test_a_body_that_ends_without_starting() -> None:
    """start does not wait for ever for a body that returned before it was ready."""

    async def main() -> None:
        async def run(scope: Scope) -> None:
            await anyio.sleep(1)

        with pytest.raises(ClosedError, match="ended while starting"):
            await Supervisor("thing", run).start()

    run_simulated(main)


def test_a_body_that_dies_while_running() -> None:
    """The failure reaches users through check and close, unwrapped from its group; a second close is quiet."""

    async def main() -> None:
        thing = Thing()
        await thing.supervisor.start()
        thing.die.set()
        await anyio.sleep(2)
        assert not thing.supervisor.running
        assert thing.events == ["open", "released"]
        with pytest.raises(ClosedError, match="died: the child failed") as caught:
            thing.supervisor.check()
        assert isinstance(caught.value.__cause__, RuntimeError)
        with pytest.raises(RuntimeError, match="the child failed"):
            await thing.supervisor.close()
        await thing.supervisor.close()

    run_simulated(main)


def test_abort_ends_a_body_that_would_drain_for_ever() -> None:
    """abort cancels at once, waits for the cleaning up, and raises nothing; those who closed learn of it."""

    async def main() -> None:
        events: list[str] = []

        async def run(scope: Scope) -> None:
            try:
                scope.started()
                await scope.closing.wait()
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(1)
                events.append("released")

        supervisor = Supervisor("thing", run)
        await supervisor.start()
        closing = asyncio.create_task(supervisor.close())
        await anyio.sleep(3600)
        assert not closing.done()
        await supervisor.abort()
        assert events == ["released"]
        with pytest.raises(ClosedError, match="aborted"):
            await closing

    run_simulated(main)


def test_abort_repeats_for_a_body_that_loses_its_cancellation() -> None:
    """A body that swallows one cancellation is cancelled again until it ends."""

    async def main() -> None:
        swallowed = 0

        async def run(scope: Scope) -> None:
            nonlocal swallowed
            scope.started()
            while swallowed < 3:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    swallowed += 1

        supervisor = Supervisor("thing", run)
        await supervisor.start()
        await supervisor.abort()
        assert swallowed == 3

    run_simulated(main)


Step = Callable[[Thing], Coroutine[Any, Any, None]]


async def _start(thing: Thing) -> None:
    await thing.supervisor.start()


async def _start_and_close(thing: Thing) -> None:
    await thing.supervisor.start()
    await thing.supervisor.close()


@pytest.mark.parametrize("step", [_start, _start_and_close])
@pytest.mark.parametrize("when", [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0])
def test_cancelled_at_every_await(step: Step, when: float) -> None:
    """A caller cancelled in start or close leaves nothing behind: the body has ended when the cancellation arrives."""

    async def main() -> None:
        thing = Thing()
        task = asyncio.create_task(step(thing))
        await asyncio.sleep(when)
        cancelled_in_time = task.cancel()
        await asyncio.wait({task})
        if cancelled_in_time and task.cancelled():
            assert not thing.events or thing.events[-1] == "released"
            assert not thing.supervisor.running
        await thing.supervisor.abort()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert "released" in thing.events or "open" not in thing.events

    run_simulated(main)


def test_a_cancel_scope_around_start_and_close() -> None:
    """anyio's own cancellation, which strikes again at every await, ends a start and a close as well."""

    async def main() -> None:
        starting = Thing()
        with anyio.move_on_after(0.5) as scope:
            await starting.supervisor.start()
        assert scope.cancelled_caught
        assert starting.events == ["open", "released"]

        closing = Thing()
        await closing.supervisor.start()
        with anyio.move_on_after(0.5) as scope:
            await closing.supervisor.close()
        assert scope.cancelled_caught
        assert closing.events == ["open", "drain", "released"]

    run_simulated(main)


def test_unwrap_keeps_what_failed_for_several_reasons() -> None:
    """Groups of one become their exception at every depth; a group of two stays a group."""
    one, other = ValueError("one"), KeyError("other")
    assert unwrap(BaseExceptionGroup("", [ExceptionGroup("", [one])])) is one
    both = ExceptionGroup("", [one, other])
    assert unwrap(ExceptionGroup("", [both])) is both
    assert unwrap(one) is one


def test_a_bell_wakes_who_waits() -> None:
    """Whether it is rung before or while somebody waits, once or often; else at the time given; cancelled it stays."""

    async def main() -> None:
        bell = Bell()
        bell.ring()
        bell.ring()
        await bell.wait(loop_time() + 5)
        assert loop_time() == 0
        bell.still()
        await bell.wait(loop_time() + 5)
        assert loop_time() == 5
        await bell.wait(1.0)  # that is over
        assert loop_time() == 5
        async with anyio.create_task_group() as tasks:
            for until in (None, float("inf"), 100.0):
                tasks.start_soon(anyio.sleep, 1)
                asyncio.get_running_loop().call_later(2, bell.ring)
                await bell.wait(until)
                bell.still()
        assert loop_time() == 11
        with anyio.move_on_after(3):
            await bell.wait()
        assert loop_time() == 14
        bell.ring()
        await bell.wait()
        assert loop_time() == anyio.current_time() == 14

    run_simulated(main)


def test_a_limit_ends_a_wait() -> None:
    """At its time, also if that is over; not what has come by then, nor what is cancelled by somebody else."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for until in (5.0, 5.0, 1.0):
            with pytest.raises(TimeoutError):
                async with Limit(until):
                    await anyio.sleep(10)
            assert loop_time() == 5
        for until in (7.0, 7.0, 1.0):
            came = loop.create_future()
            loop.call_at(until, came.set_result, until)
            async with Limit(until):
                assert await came == until
        async with Limit(8.0):
            await anyio.sleep(0.5)
        await anyio.sleep(1)
        for end, until in ((10.0, 9.5), (11.0, 11.0), (12.0, 13.0)):
            with anyio.CancelScope(deadline=end) as scope:
                with contextlib.suppress(TimeoutError):
                    async with Limit(until):
                        await anyio.sleep(10)
                await anyio.sleep(10)
            assert scope.cancelled_caught
            assert loop_time() == end
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()

    run_simulated(main)
