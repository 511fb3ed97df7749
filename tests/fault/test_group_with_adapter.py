"""Proves that members of ours and clients that behave as the official Kafka adapter share one group without a loss.

The adapter beats every 10 s, joins again whenever it is told anything but STABLE, and its checkpoints say what is read
next; ours say what was read last.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import anyio
import orjson
import pytest

from disstream.client import Client
from disstream.consumer import Consumer, ConsumerConfig
from disstream.engine.memory import MemoryEngine
from disstream.model import NewRecord, Record
from disstream.server import App, ServerConfig
from disstream.testing.clock import run_simulated
from disstream.testing.network import AppTransport
from disstream.wire.checkpoints import position
from disstream.wire.http import Request
from disstream.wire.partitioning import partition_id, partition_number

PARTITIONS = 4
CONSUMERS = "/v2/p/apps/a/consumers/"


class World:
    """A server, a stream, and what was handled of it by whom."""

    def __init__(self) -> None:
        self.engine = MemoryEngine()
        self.app = App(self.engine, ServerConfig(data_dir=None), random.Random(1))
        self.written = Counter[int]()
        self.below = Counter[int]()  # partition -> all records below were handled
        self.by = Counter[str]()

    def client(self) -> Client:
        return Client(AppTransport(self.app, latency_s=0.01), "p", dice=random.Random(2))

    def handled(self, who: str, record: Record) -> None:
        number = partition_number(record.partition_id)
        assert record.sequence_number <= self.below[number], f"{who} skipped records of {number}"
        self.below[number] = max(self.below[number], record.sequence_number + 1)
        self.by[who] += 1

    async def write(self, client: Client, number: int, count: int) -> None:
        records = [NewRecord(b"x", partition_id=str(number)) for _ in range(count)]
        (await client.records.put("s", records)).raise_for_failed()
        self.written[number] += count


class Adapter:
    """The adapter's state machine, in raw requests."""

    def __init__(self, world: World, client: Client, name: str) -> None:
        self.world = world
        self.client = client
        self.name = name
        self.generation = -1
        self.stable = False
        self.places: dict[int, int] = {}  # what it holds, and where it stands
        self.refused = 0
        self.life = anyio.CancelScope()

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        data = b"" if body is None else orjson.dumps(body)
        response = await self.world.app.handle(Request(method=method, target=path, body=data))
        return response.status, orjson.loads(response.body) if response.body else None

    async def _say(self, what: str) -> Any:
        body = {"groupId": "a", "clientId": self.name, "generation": self.generation}
        return (await self._call("POST", f"{CONSUMERS}{self.name}/{what}/", body))[1]

    async def run(self) -> None:
        with self.life:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._poll)
                while True:
                    told = (await self._say("heartbeats"))["state"]
                    if self.stable and told != "STABLE":
                        await self.commit()  # what its listener does when partitions are revoked
                    if not self.stable or told != "STABLE":
                        self.stable = False
                        while not await self._join():
                            pass
                    await asyncio.sleep(10.0)

    async def _join(self) -> bool:
        body = {
            "groupId": "a",
            "clientId": self.name,
            "interestedStream": ["s"],
            "interestedStreamIdList": [],
            "accelerateAssignEnabled": False,
            "rebalanceTimeoutMs": 20_000,
        }
        _, joined = await self._call("POST", CONSUMERS, body)
        assert joined["state"] == "OK", joined
        await asyncio.sleep(joined["syncDelayedTimeMs"] / 1000)
        while (synced := await self._say("partitions"))["state"] == "WAITING":  # noqa: ASYNC110 (as the adapter does)
            await asyncio.sleep(0.5)
        if synced["state"] != "OK":
            return False
        self.generation = synced["generation"]
        places = {}
        for number in (synced.get("assignment") or {}).get("s", []):
            query = f"?stream_name=s&partition_id={partition_id(number)}&app_name=a&checkpoint_type=LAST_READ"
            _, kept = await self._call("GET", f"/v2/p/checkpoints/{query}")
            places[number] = max(int(kept["sequence_number"]), 0)  # the number is what it reads next
        self.places = places
        while (told := (await self._say("heartbeats"))["state"]) == "SYNCING":  # noqa: ASYNC110 (as the adapter does)
            await asyncio.sleep(0.5)
        self.stable = told == "STABLE"
        return self.stable

    async def _poll(self) -> None:
        committed_at = anyio.current_time()
        while True:
            await asyncio.sleep(0.3)
            for number in list(self.places) if self.stable else []:
                generation = self.generation
                cursor = await self.client.cursors.get("s", partition_id(number), sequence_number=self.places[number])
                page = await self.client.records.get(cursor)
                if not self.stable or self.generation != generation:
                    break
                for record in page.records[:10]:
                    self.world.handled(self.name, record)
                    self.places[number] = record.sequence_number + 1
            if anyio.current_time() - committed_at > 5.0:
                await self.commit()
                committed_at = anyio.current_time()

    async def commit(self) -> None:
        for number, following in list(self.places.items()):
            body = {
                "app_name": "a",
                "checkpoint_type": "LAST_READ",
                "stream_name": "s",
                "partition_id": partition_id(number),
                "sequence_number": str(following),
                "metadata": "",
                "client_id": self.name,
                "generation_id": self.generation,
            }
            status, _ = await self._call("POST", "/v2/p/checkpoints/", body)
            self.refused += status != 201

    async def leave(self) -> None:
        await self._call("DELETE", f"{CONSUMERS}{self.name}/")


@pytest.mark.parametrize("seed", range(4))
def test_a_mixed_group_loses_nothing(seed: int) -> None:
    """Adapters join two members of ours; one dies, one leaves; everybody handles some, all is handled, none skipped."""

    async def main() -> None:
        dice = random.Random(seed)
        world = World()
        await world.engine.start()
        stop = anyio.Event()

        async def ours(name: str) -> None:
            config = ConsumerConfig(auto_commit_s=2.0, member_id=name)
            async with world.client() as client, Consumer(client, "s", config, app="a", rng=random.Random(seed)) as c:
                while not stop.is_set():
                    for record in await c.fetch(max_records=10, timeout_s=0.5):
                        world.handled(name, record)
                    await asyncio.sleep(0.05)

        async def traffic(client: Client) -> None:
            while anyio.current_time() < 220.0:
                await world.write(client, dice.randrange(PARTITIONS), dice.randint(1, 8))
                await asyncio.sleep(0.2)

        async with world.client() as client, anyio.create_task_group() as tasks:
            await client.streams.create("s", partitions=PARTITIONS)
            tasks.start_soon(ours, "ours-1")
            tasks.start_soon(ours, "ours-2")
            tasks.start_soon(traffic, client)
            adapters = [Adapter(world, client, f"adapter-{n}") for n in range(3)]
            for adapter in adapters:
                await asyncio.sleep(dice.uniform(1.0, 30.0))
                tasks.start_soon(adapter.run)
            await asyncio.sleep(60.0)
            dying, leaving, staying = adapters
            dying.life.cancel()
            await asyncio.sleep(dice.uniform(1.0, 40.0))
            await leaving.commit()
            leaving.life.cancel()
            await leaving.leave()
            await asyncio.sleep(280.0 - anyio.current_time())
            group = await client.groups.members("a")
            assert (group.state, len(group.members)) == ("STABLE", 3)
            assert world.below == world.written
            await staying.commit()
            staying.life.cancel()
            stop.set()
        assert await _committed(world) == dict(world.written)
        assert min(world.by[name] for name in ("ours-1", "ours-2", "adapter-0", "adapter-1", "adapter-2")) > 0

    run_simulated(main)


async def _committed(world: World) -> dict[int, int]:
    """Partition -> what is read next, as the service keeps it."""
    async with world.client() as client:
        states = await client.apps.state("a", "s")
    return {partition_number(s.partition_id): position(s.checkpoint)[0] if s.checkpoint else 0 for s in states}
