"""Proves that a producer that gathers the records of many partitions sends them all, in time and in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest

from disstream.client import Client
from disstream.engine.memory import MemoryEngine
from disstream.producer import Producer, ProducerConfig
from disstream.producer.budget import ByteBudget
from disstream.producer.picking import FEW_OF_A_LANE, LOOK_S, MANY_LANES, MORE_GATHER_S
from disstream.server import App, ServerConfig
from disstream.testing.clock import run_simulated
from disstream.testing.network import AppTransport

GROUPS = ProducerConfig().max_in_flight
PARTITIONS = 2 * GROUPS * MANY_LANES
LATENCY_S = 0.01


def simulate(test: Callable[[Producer], Awaitable[None]]) -> None:
    async def main() -> None:
        engine = MemoryEngine()
        await engine.start()
        app = App(engine, ServerConfig(data_dir=None))
        async with Client(AppTransport(app, latency_s=LATENCY_S), "demo") as client:
            await client.streams.create("s", partitions=PARTITIONS)
            async with Producer(client, "s") as producer:
                await producer.send_and_wait(b"", key="first")
                await test(producer)
        await engine.close()

    run_simulated(main)


class Burst:
    """Whether somebody is in the middle of sending, as it is told to the producer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.goes_on = True
        monkeypatch.setattr(ByteBudget, "more", property(lambda budget: self.goes_on))


async def send(producer: Producer, records: int) -> list[tuple[int, int]]:
    """Send so many, and return the keys and sequence numbers of all."""
    keys = [f"k{n % (4 * PARTITIONS)}" for n in range(records)]
    deliveries = [await producer.send(b"%d" % n, key=key) for n, key in enumerate(keys)]
    receipts = [await delivery for delivery in deliveries]
    return [(n % (4 * PARTITIONS), receipt.sequence_number) for n, receipt in enumerate(receipts)]


def in_order(places: list[tuple[int, int]]) -> bool:
    return sorted(places) == sorted(places, key=lambda place: place[0])


def test_a_burst_that_never_seems_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few records of many partitions wait for more, MORE_GATHER_S at most; then all go, and so do those after them."""
    burst = Burst(monkeypatch)

    async def test(producer: Producer) -> None:
        for _ in range(3):
            began = anyio.current_time()
            assert in_order(await send(producer, 6 * PARTITIONS))
            waited_s = anyio.current_time() - began
            assert MORE_GATHER_S <= waited_s < MORE_GATHER_S + 2 * LATENCY_S
        burst.goes_on = False

    simulate(test)


def test_a_burst_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once nobody sends any more, nothing is waited for."""
    burst = Burst(monkeypatch)

    async def test(producer: Producer) -> None:
        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send, producer, 6 * PARTITIONS)
            await anyio.lowlevel.checkpoint()
            burst.goes_on = False
        assert anyio.current_time() - began < 2 * (LOOK_S + LATENCY_S)

    simulate(test)


def test_a_burst_that_brings_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is enough of each partition it goes although more is on its way: requests are full."""
    burst = Burst(monkeypatch)

    async def test(producer: Producer) -> None:
        before = producer.stats().requests
        began = anyio.current_time()
        records = 2 * FEW_OF_A_LANE * PARTITIONS
        assert in_order(await send(producer, records))
        assert anyio.current_time() - began < MORE_GATHER_S
        assert producer.stats().requests - before < 2 * records / ProducerConfig().max_batch_records
        burst.goes_on = False

    simulate(test)
