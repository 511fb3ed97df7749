"""Consumer, client and server together: simulated with a faulty network, and once over a real socket."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest

from disstream.client import Client
from disstream.consumer import Consumer, ConsumerConfig
from disstream.engine.memory import MemoryEngine
from disstream.errors import NotFoundError
from disstream.model import NewRecord, Partition, Record
from disstream.server import App, Server, ServerConfig
from disstream.testing.clock import run_simulated
from disstream.testing.network import AppTransport, FaultPlan, FaultyTransport


@asynccontextmanager
async def simulated(plan: FaultPlan | None = None, seed: int = 0) -> AsyncIterator[tuple[Client, Client]]:
    """(client that nothing happens to, client whose network goes wrong as planned), both before one server."""
    engine = MemoryEngine()
    await engine.start()
    calm = AppTransport(App(engine, ServerConfig(data_dir=None), Random(seed)), latency_s=0.002)
    shaky = FaultyTransport(calm, Random(seed), plan or FaultPlan())
    async with Client(calm, "demo") as writer, Client(shaky, "demo", dice=Random(seed)) as reader:
        yield writer, reader
    await engine.close()


async def put(client: Client, stream: str, first: int, count: int, partition: str | None = None) -> None:
    records = [
        NewRecord(b"%d" % n, key=None if partition else f"k{n % 17}", partition_id=partition)
        for n in range(first, first + count)
    ]
    (await client.records.put(stream, records)).raise_for_failed()


def by_partition(records: list[Record]) -> dict[Partition, list[int]]:
    grouped: dict[Partition, list[int]] = defaultdict(list)
    for record in records:
        grouped[record.partition].append(record.sequence_number)
    return grouped


@pytest.mark.parametrize("seed", range(3))
def test_through_a_faulty_network_each_record_once_in_order(seed: int) -> None:
    """Lost requests, lost answers, delays, refusals: what was written is read once, per partition in order."""

    async def main() -> None:
        plan = FaultPlan(refuse=0.1, lose_request=0.05, lose_answer=0.05)
        async with simulated(plan, seed) as (writer, reader):
            await writer.streams.create("s", partitions=3)
            await put(writer, "s", 0, 500)
            got: list[Record] = []
            async with Consumer(reader, "s", rng=Random(seed)) as consumer:
                await asyncio.sleep(700)  # older than any cursor
                await put(writer, "s", 500, 500)
                while len(got) < 1000:
                    got += await consumer.fetch(max_records=33, timeout_s=3600)
            assert sorted(int(r.data) for r in got) == list(range(1000))
            assert all(n == list(range(len(n))) for n in by_partition(got).values())

    run_simulated(main)


def test_a_deleted_stream_ends_the_loop_after_its_records() -> None:
    """The records fetched before come first, then NotFoundError."""

    async def main() -> None:
        async with simulated() as (client, _):
            await client.streams.create("s", partitions=2)
            await put(client, "s", 0, 100)
            async with Consumer(client, "s") as consumer:
                await asyncio.sleep(5)
                await client.streams.delete("s")
                await asyncio.sleep(5)
                got = [await anext(consumer) for _ in range(100)]
                assert sorted(int(r.data) for r in got) == list(range(100))
                with pytest.raises(NotFoundError):
                    await anext(consumer)

    run_simulated(main)


async def test_over_a_real_socket() -> None:
    """Start positions, seek and both ways of taking against the server on loopback."""
    async with (
        Server(ServerConfig(data_dir=None, port=0)) as server,
        Client(server.url, "demo") as client,
    ):
        await client.streams.create("s", partitions=2)
        await put(client, "s", 0, 10, partition="0")
        place = Partition("s", "shardId-0000000000")
        async with (
            Consumer(client, "s") as consumer,
            Consumer(client, "s", ConsumerConfig(start="latest")) as late,
            Consumer(client, "s", ConsumerConfig(start={"0": 7})) as seventh,
        ):
            got = [await anext(consumer) for _ in range(4)]
            assert [r.data for r in got] == [b"0", b"1", b"2", b"3"]
            assert consumer.position(place) == 4
            assert await late.fetch(timeout_s=0.05) == []
            assert [r.sequence_number for r in await seventh.fetch()] == [7, 8, 9]
            consumer.seek(place, 8)
            assert [r.sequence_number for r in await consumer.fetch()] == [8, 9]
            await put(client, "s", 10, 1, partition="0")
            assert [r.partition for r in await late.fetch()] == [place]
