"""Proves that leases lose nothing, keep order, and let nobody act for what is another's, whatever dies or hangs."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from lease_world import LeaseWorker, LeaseWorld

from disstream.testing.clock import SimLoop, run_simulated
from disstream.testing.network import AppTransport, FaultPlan

BAD_NETWORK = FaultPlan(refuse=0.01, lose_request=0.01, lose_answer=0.02, late=0.005, error_before=0.01, delay=0.05)
EVENTS = [
    "hire",
    "leave",
    "die",
    "cut",
    "cut",
    "slow",
    "outage",
    "pull",
    "plug",
    "plug",
    "suspend",
    "restart",
    "nothing",
]


async def chaos(world: LeaseWorld, steps: int) -> None:
    """Workers come, leave, die, lose store or service; the store is out or slow, the machine sleeps; then peace."""
    dice = world.dice
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    await world.prepare()
    workers: list[LeaseWorker] = []
    names = iter(range(10_000))

    def hire() -> None:
        workers.append(LeaseWorker(world, f"w{next(names)}"))
        workers[-1].start()

    def repair() -> None:
        for worker in workers:
            worker.cable.pulled = worker.line.cut = False
            worker.line.latency_s = 0.01

    async with world.client(AppTransport(world)) as writer:
        for _ in range(3):
            hire()
        for _ in range(steps):
            await anyio.sleep(dice.uniform(0.0, 4.0))
            await world.write(writer, dice.randint(0, 20))
            for worker in workers:
                assert worker.task is not None
                if worker.task.done():
                    worker.task.result()
            match dice.choice(EVENTS):
                case "hire" if len(workers) < 5:
                    hire()
                case "leave" if len(workers) > 1:
                    worker = workers.pop(dice.randrange(len(workers)))
                    worker.cable.pulled = worker.line.cut = False
                    await worker.leave()
                case "die" if len(workers) > 1:
                    await workers.pop(dice.randrange(len(workers))).die()
                case "cut":
                    dice.choice(workers).line.cut = True
                case "slow":
                    dice.choice(workers).line.latency_s = dice.uniform(0.0, 10.0)
                case "outage":
                    for worker in workers:
                        worker.line.cut = True
                    await anyio.sleep(dice.uniform(0.0, 15.0))
                    repair()
                case "pull":
                    dice.choice(workers).cable.pulled = True
                case "plug":
                    repair()
                case "suspend":
                    loop.advance(dice.uniform(0.0, 20.0))
                case "restart":
                    world.down = True
                    await anyio.sleep(dice.uniform(0.0, 8.0))
                    world.restart_server()
                    world.down = False
        repair()
        await world.write(writer, 20)
        with anyio.fail_after(300.0):
            await world.until_all_is_handled()
        for worker in workers:
            await worker.leave()
        assert world.kept() == {n: world.written[n] for n in range(world.partitions)}
        assert world.takeovers > world.partitions, "nobody ever took over: this seed shows nothing"
        assert world.commits > world.partitions


@pytest.mark.parametrize("seed", range(6))
def test_leases_survive_their_members(seed: int) -> None:
    """With a good network, and a store that answers whom it hears."""
    world = LeaseWorld(seed)
    run_simulated(lambda: chaos(world, 40))


@pytest.mark.parametrize("seed", range(100, 106))
def test_leases_survive_their_members_network_and_store(seed: int) -> None:
    """With requests and answers that are lost, late or refused, on both lines."""
    world = LeaseWorld(seed, plan=BAD_NETWORK, lose=0.03)
    run_simulated(lambda: chaos(world, 40))
