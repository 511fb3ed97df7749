"""Proves that a group loses nothing, keeps order and lets nobody act for what is another's, whatever dies."""

from __future__ import annotations

import anyio
import pytest
from group_world import Worker, World

from disstream.testing.clock import run_simulated
from disstream.testing.network import AppTransport, FaultPlan

BAD_NETWORK = FaultPlan(refuse=0.01, lose_request=0.01, lose_answer=0.02, late=0.005, error_before=0.01, delay=0.05)


async def chaos(world: World, steps: int) -> None:
    """Workers come, leave, die, lose their cable; the server restarts; then peace, and everything must be handled."""
    dice = world.dice
    await world.prepare()
    workers: list[Worker] = []
    names = iter(range(10_000))

    def hire() -> None:
        workers.append(Worker(world, f"w{next(names)}"))
        workers[-1].start()

    async with world.client(AppTransport(world)) as writer:
        hire()
        for _ in range(steps):
            await anyio.sleep(dice.uniform(0.0, 4.0))
            await world.write(writer, dice.randint(0, 20))
            for worker in workers:
                assert worker.task is not None
                if worker.task.done():
                    worker.task.result()
            match dice.choice(["hire", "leave", "die", "pull", "plug", "restart", "nothing", "nothing"]):
                case "hire" if len(workers) < 5:
                    hire()
                case "leave" if len(workers) > 1:
                    worker = workers.pop(dice.randrange(len(workers)))
                    worker.cable.pulled = False
                    await worker.leave()
                case "die" if len(workers) > 1:
                    await workers.pop(dice.randrange(len(workers))).die()
                case "pull":
                    dice.choice(workers).cable.pulled = True
                case "plug":
                    for worker in workers:
                        worker.cable.pulled = False
                case "restart":
                    world.down = True
                    await anyio.sleep(dice.uniform(0.0, 8.0))
                    world.restart_server()
                    world.down = False
        for worker in workers:
            worker.cable.pulled = False
        await world.write(writer, 20)
        with anyio.fail_after(300.0):
            await world.until_all_is_handled()
        for worker in workers:
            await worker.leave()
        for state in await writer.apps.state("a", "s"):
            assert state.checkpoint is not None
        assert all(world.checkpoints.get(n, 0) == world.written[n] for n in range(world.partitions))


@pytest.mark.parametrize("seed", range(6))
def test_a_group_survives_its_members(seed: int) -> None:
    """On a good network."""
    world = World(seed)
    run_simulated(lambda: chaos(world, 40))


@pytest.mark.parametrize("seed", range(100, 106))
def test_a_group_survives_its_members_and_the_network(seed: int) -> None:
    """With requests and answers that are lost, late or refused."""
    world = World(seed, plan=BAD_NETWORK)
    run_simulated(lambda: chaos(world, 40))
