"""Proves the byte budget: bounded, first come first served, and cheap to leave by cancellation."""

from __future__ import annotations

import asyncio
import random

import anyio
import anyio.lowlevel
import pytest

from disstream.errors import BufferFull, ClosedError
from disstream.producer.budget import BREATH_BYTES, ByteBudget
from disstream.producer.traffic import Traffic
from disstream.testing.clock import SimLoop, run_simulated


def test_room_is_given_in_the_order_of_asking() -> None:
    """Who waits first enters first, even if somebody smaller would fit before."""

    async def main() -> list[str]:
        budget = ByteBudget(100)
        budget.open(anyio.current_time())
        await budget.enter(90, 1.0, "first")
        entered: list[str] = []

        async def enter(name: str, need: int) -> None:
            await budget.enter(need, 1.0, name)
            entered.append(name)

        async with anyio.create_task_group() as tasks:
            for name, need in (("big", 50), ("small", 5), ("smaller", 1)):
                tasks.start_soon(enter, name, need)
                await anyio.lowlevel.checkpoint()
            await anyio.sleep(0.1)
            assert entered == []
            budget.leave(90)
        assert budget.used == 56
        return entered

    assert run_simulated(main) == ["big", "small", "smaller"]


def test_nobody_overtakes_a_wait_that_was_granted() -> None:
    """Between the grant and the waiter's turn, another task cannot slip in through the fast path."""

    async def main() -> None:
        budget = ByteBudget(100)
        budget.open(anyio.current_time())
        await budget.enter(100, 1.0, "first")
        waiter = asyncio.ensure_future(budget.enter(10, 1.0, "waiter"))
        await anyio.lowlevel.checkpoint()
        budget.leave(100)
        assert budget.used + 1 > budget.mark, "the fast path is open although a granted wait has not run"
        await waiter
        assert budget.used == 10
        assert budget.used + 1 <= budget.mark

    run_simulated(main)


def test_a_full_budget_raises_at_the_deadline_and_forgets_the_wait() -> None:
    """Without room within the time-out BufferFull names the place and the sizes, and nothing was taken."""

    async def main() -> None:
        budget = ByteBudget(100)
        budget.open(anyio.current_time())
        await budget.enter(90, 1.0, "first")
        began = anyio.current_time()
        with pytest.raises(BufferFull, match=r"a record for shardId-7: no room within 2 s, 20 bytes wanted, 90 of"):
            await budget.enter(20, 2.0, "a record for shardId-7")
        assert anyio.current_time() - began == pytest.approx(2.0)
        assert budget.used == 90
        with pytest.raises(BufferFull, match="can never fit"):
            await budget.enter(101, 2.0, "a record")
        with pytest.raises(BufferFull):
            budget.enter_nowait(20, "a record")
        budget.enter_nowait(10, "a record")
        assert budget.used == 100

    run_simulated(main)


def test_closing_wakes_who_waits() -> None:
    """close() lets nobody in any more: waiters get its reason, also those granted a moment before."""

    async def main() -> None:
        budget = ByteBudget(100)
        budget.open(anyio.current_time())
        await budget.enter(100, 1.0, "first")
        granted = asyncio.ensure_future(budget.enter(60, 1.0, "granted"))
        waiting = asyncio.ensure_future(budget.enter(60, 1.0, "waiting"))
        await anyio.lowlevel.checkpoint()
        budget.leave(100)
        budget.close(ClosedError("over"))
        for task in (granted, waiting):
            with pytest.raises(ClosedError, match="over"):
                await task
        assert budget.used == 0
        with pytest.raises(ClosedError):
            await budget.enter(1, 1.0, "late")
        with pytest.raises(ClosedError):
            budget.enter_nowait(1, "late")

    run_simulated(main)


def test_a_burst_lets_the_loop_breathe() -> None:
    """A burst that never suspends passes by once per BREATH_BYTES, and pauses there when a millisecond has gone."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        budget = ByteBudget(1 << 30)
        budget.open(loop.time())
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            await anyio.lowlevel.checkpoint()
            before = turns
            for _ in range(10 * BREATH_BYTES // 1024):
                used = budget.used + 1024
                if used > budget.mark:
                    loop.advance(0.002)  # what the burst took
                    await budget.enter(1024, 1.0, "burst")
                else:
                    budget.used = used
            passed = turns - before
            tasks.cancel_scope.cancel()
        return passed

    assert run_simulated(main) >= 9


def test_no_time_to_wait_is_enough_where_there_is_room() -> None:
    """A pause for a breath, or for one's turn, is no lack of room, however short the time-out is."""

    async def main() -> None:
        budget = ByteBudget(100)
        budget.open(anyio.current_time() - 1.0)
        traffic = Traffic(0, None)
        for wanted in (30, 70):
            await budget.enter(10, 0.0, "a breath")
            await budget.turn(wanted - 10, lambda: (traffic,), 0.0, "a turn")
            assert budget.used == wanted
            assert traffic.held == traffic.coming == 0
            budget.leave(wanted)
            budget._breathed_at = -1.0
        await budget.enter(50, 0.0, "half")
        for wait in (budget.enter(51, 0.0, "more"), budget.turn(51, lambda: (traffic,), 0.0, "more")):
            with pytest.raises(BufferFull, match="no room within 0 s"):
                await wait
        assert budget.used == 50
        assert budget.mark >= 0
        assert not traffic.turns

    run_simulated(main)


def test_whether_somebody_is_in_the_middle_of_sending() -> None:
    """Who pauses for a breath sends on in a moment; who waits for more room than there is does not."""

    async def main() -> None:
        budget = ByteBudget(100)
        budget.open(anyio.current_time() - 1.0)
        await budget.enter(45, 1.0, "first")  # after a breath
        assert not budget.more
        for need, more in ((55, True), (56, False)):
            budget._breathed_at = -1.0
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(budget.enter, need, 1.0, "second")
                while not budget._waiters:
                    await anyio.lowlevel.checkpoint()
                assert budget.more is more
                tasks.cancel_scope.cancel()
            assert not budget.more

    run_simulated(main)


@pytest.mark.parametrize("seed", range(20))
def test_random_use_keeps_the_books(seed: int) -> None:
    """Entering, leaving, timing out and being cancelled in any order: the budget is never exceeded nor leaks."""

    async def main() -> None:
        dice = random.Random(seed)
        budget = ByteBudget(100)
        budget.open(anyio.current_time())
        inside = 0

        async def visit() -> None:
            nonlocal inside
            need = dice.randint(1, 60)
            with anyio.move_on_after(dice.choice([0.0, 0.1, 5.0])):
                try:
                    await budget.enter(need, dice.choice([0.05, 10.0]), "visit")
                except BufferFull:
                    return
                try:
                    inside += need
                    assert inside <= 100
                    await anyio.sleep(dice.choice([0.0, 0.01, 0.3]))
                finally:
                    inside -= need
                    budget.leave(need)

        async with anyio.create_task_group() as tasks:
            for _ in range(200):
                tasks.start_soon(visit)
                await anyio.sleep(dice.choice([0.0, 0.0, 0.01]))
        assert budget.used == 0
        assert budget.mark >= 0, "the door is left closed"

    run_simulated(main)
