"""A group under a simulated network: workers come, go, die, hang and lose their connection, and the server restarts.

What must never happen is asserted where it would: when a record is handled, and when the server accepts a commit.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import anyio
import orjson

from disstream.client import Client, ClientConfig
from disstream.consumer import Consumer, ConsumerConfig, ServiceGroup
from disstream.engine.memory import MemoryEngine
from disstream.errors import DisError, TransportError
from disstream.model import Checkpoint, NewRecord, Record
from disstream.server import App, ServerConfig
from disstream.testing.network import AppTransport, FaultPlan, FaultyTransport
from disstream.wire.checkpoints import position
from disstream.wire.http import Request, Response, split_target
from disstream.wire.partitioning import partition_number
from disstream.wire.routes import Match, match

SESSION_S = 6.0
PROJECT = "p"
APP = "a"
STREAM = "s"


class Cable:
    """A worker's line to the server: can be pulled, and plugged in again."""

    def __init__(self, world: World, latency_s: float, dice: random.Random) -> None:
        self.pulled = False
        self._carry = FaultyTransport(AppTransport(world, latency_s=latency_s), dice, world.plan)

    async def exchange(self, request: Request) -> Response:
        if self.pulled:
            await anyio.sleep(request.timeout_s or 1.0)
            raise TransportError("the cable is pulled", outcome_unknown=True)
        response = await self._carry.exchange(request)
        if self.pulled:
            raise TransportError("the cable was pulled", outcome_unknown=True)
        return response

    async def settle(self) -> None:
        await self._carry.settle()

    async def close(self) -> None:
        await self._carry.close()


class World:
    """The server, the stream, and what is known of each partition."""

    def __init__(self, seed: int, *, partitions: int = 4, plan: FaultPlan | None = None) -> None:
        self.dice = random.Random(seed)
        self.plan = plan or FaultPlan()
        self.partitions = partitions
        self.engine = MemoryEngine()
        self.config = ServerConfig(data_dir=None, session_timeout_s=SESSION_S)
        self.app = App(self.engine, self.config, random.Random(seed))
        self.down = False
        self.written = Counter[int]()
        self.handled_below = Counter[int]()  # partition -> all records below were handled at least once
        self.finished_below = Counter[int]()  # -> and their handling was finished
        self.generation: dict[int, tuple[int, str]] = {}  # partition -> the latest generation that handled it, and who
        self.checkpoints: dict[int, int] = {}
        self.duplicates = 0
        self.stale_refused = 0
        self.progressed = anyio.Event()

    async def handle(self, request: Request) -> Response:
        if self.down:
            raise TransportError("connection refused", outcome_unknown=False)
        response = await self.app.handle(request)
        found = match(request.method, split_target(request.target)[0])
        if isinstance(found, Match) and found.operation == "commit_checkpoint":
            self._committed(request, response)
        return response

    def _committed(self, request: Request, response: Response) -> None:
        body = orjson.loads(request.body)
        number = partition_number(body["partition_id"])
        if response.status != 201:
            self.stale_refused += b"DIS.470" in response.body
            return
        following, _ = position(Checkpoint(int(body["sequence_number"]), body.get("metadata", "")))
        assert following <= self.finished_below[number], f"a checkpoint of {number} covers unfinished work"
        assert following >= self.checkpoints.get(number, 0), f"the checkpoint of {number} went back"
        self.checkpoints[number] = following

    def client(self, cable: Cable | AppTransport) -> Client:
        config = ClientConfig(request_timeout_s=3.0, retry_base_s=0.05, retry_max_s=0.5, retry_budget_s=4.0)
        return Client(cable, PROJECT, config, dice=self.dice)

    async def prepare(self) -> None:
        await self.engine.start()
        async with self.client(AppTransport(self)) as client:
            await client.streams.create(STREAM, partitions=self.partitions)

    async def write(self, client: Client, count: int) -> None:
        for _ in range(count):
            number = self.dice.randrange(self.partitions)
            data = b"%d" % self.written[number]
            results = await client.records.put(STREAM, [NewRecord(data, partition_id=str(number))])
            results.raise_for_failed()
            self.written[number] += 1

    def restart_server(self) -> None:
        """Everything that was only in the memory of the old one is gone."""
        self.app = App(self.engine, self.config, self.dice)

    async def until_all_is_handled(self) -> None:
        while any(self.handled_below[n] < self.written[n] for n in range(self.partitions)):
            self.progressed = anyio.Event()
            await self.progressed.wait()

    # --- what a worker did ---

    def handled(self, worker: str, generation: int, record: Record) -> None:
        number, sequence = partition_number(record.partition_id), record.sequence_number
        latest, owner = self.generation.get(number, (-1, ""))
        assert generation >= latest, (
            f"{worker} got {number}/{sequence} in generation {generation}, {owner} had {latest}"
        )
        assert generation > latest or worker == owner, f"{worker} and {owner} share {number} in {generation}"
        self.generation[number] = (generation, worker)
        assert record.data == b"%d" % sequence
        assert sequence <= self.handled_below[number], f"{number}: {self.handled_below[number]} to {sequence} skipped"
        if sequence == self.handled_below[number]:
            self.handled_below[number] += 1
            self.progressed.set()
        else:
            self.duplicates += 1

    def finished(self, record: Record) -> None:
        number = partition_number(record.partition_id)
        self.finished_below[number] = max(self.finished_below[number], record.sequence_number + 1)


class Worker:
    """Fetches and handles until told to stop."""

    def __init__(self, world: World, name: str, *, config: ConsumerConfig | None = None) -> None:
        self.world = world
        self.name = name
        self.cable = Cable(world, world.dice.uniform(0.0, 0.2), world.dice)
        self.client = world.client(self.cable)
        self.consumer = Consumer(
            self.client,
            STREAM,
            config
            or ConsumerConfig(
                coordination=ServiceGroup(rebalance_timeout_s=10.0, heartbeat_s=0.7),
                session_timeout_s=SESSION_S,
                drain_timeout_s=4.0,
                auto_commit_s=world.dice.uniform(0.5, 3.0),
                member_id=name,
                idle_max_s=0.3,
                retry_max_s=1.0,
            ),
            app=APP,
            rng=world.dice,
        )
        self._stop = False
        self.task: asyncio.Task[None] | None = None
        self.count = 0

    def start(self) -> None:
        self.task = asyncio.get_running_loop().create_task(self._run(), name=self.name)

    async def _run(self) -> None:
        async with self.client:
            while not self._stop:
                try:
                    await self.consumer.start()
                    break
                except DisError:
                    self.consumer = Consumer(self.client, STREAM, self.consumer._config, app=APP, rng=self.world.dice)
                    await anyio.sleep(0.5)
            try:
                while not self._stop:
                    records = await self.consumer.fetch(max_records=self.world.dice.randint(1, 5), timeout_s=0.5)
                    for record in records:
                        self.world.handled(self.name, self.generation_of(record), record)
                        self.count += 1
                    await anyio.sleep(self.world.dice.choice((0.0, 0.01, 0.1)))
                    if self.world.dice.random() < 0.01:
                        await anyio.sleep(self.world.dice.uniform(0.0, 8.0))  # longer than a drain waits
                    for record in records:
                        self.world.finished(record)
                        self.consumer.record_done(record)
            finally:
                await self.consumer.close()

    def generation_of(self, record: Record) -> int:
        """That the worker believes to have the record's partition in."""
        return self.consumer.stats().generation or 0

    async def leave(self) -> None:
        self._stop = True
        assert self.task is not None
        await self.task

    async def die(self) -> None:
        """As a process that is killed: nothing more is sent."""
        self.cable.pulled = True
        assert self.task is not None
        self.task.cancel()
        await asyncio.wait({self.task})
