"""Turns: one at a time, first come first served, whoever gives up."""

from __future__ import annotations

import random

import anyio
import pytest

from disstream.server.turns import Turns
from disstream.testing.clock import run_simulated

Key = tuple[int]


def test_first_come_first_served() -> None:
    """Those who wait for the same get it in the order they came; others are not held up."""

    async def test() -> None:
        turns = Turns[Key]()
        told: list[str] = []

        async def worker(name: str, *keys: int) -> None:
            async with turns.take([(key,) for key in keys]):
                told.append(name)
                await anyio.sleep(1)

        async with anyio.create_task_group() as tasks:
            for name, keys in (("a", (2, 1)), ("b", (1,)), ("c", (1, 2)), ("d", (2,)), ("free", (3,))):
                tasks.start_soon(worker, name, *keys)
                await anyio.wait_all_tasks_blocked()
        # c waits for 1 first, so that d, which came later, has 2 meanwhile.
        assert told == ["a", "free", "b", "d", "c"]
        assert anyio.current_time() == 3.0
        assert not turns._lines

    run_simulated(test)


@pytest.mark.parametrize("seed", range(20))
def test_random_takers_that_give_up(seed: int) -> None:
    """No two have the same thing, nobody waits for ever, and nothing is left taken."""

    async def test() -> None:
        turns = Turns[Key]()
        dice = random.Random(seed)
        held: set[Key] = set()

        async def taker(patience: float) -> None:
            with anyio.move_on_after(patience) as scope:
                keys = [(key,) for key in dice.sample(range(5), dice.randrange(1, 4))]
                async with turns.take(keys):
                    assert not held & set(keys)
                    held.update(keys)
                    try:
                        await anyio.sleep(dice.random())
                    finally:
                        held.difference_update(keys)
            assert not (scope.cancelled_caught and patience == 1000)

        async with anyio.create_task_group() as tasks:
            for _ in range(200):
                tasks.start_soon(taker, dice.choice((0.0, 0.5, 3.0, 1000.0)))
                await anyio.sleep(dice.choice((0, 0, 0.1)))
        assert not turns._lines

    run_simulated(test)
