"""Proves that each key stays in order over all members of a group while the stream is scaled under load.

A producer numbers its records; the stream is scaled 2 -> 8 -> 3 and so on; members come, leave and die. When a record
is handled for the first time, all earlier records of its key must have been handled to their end, by whoever it was.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict

import anyio
import pytest

from disstream.bench.check import Sent
from disstream.bench.ledger import Handled, Ledger, Lot
from disstream.client import Client, ClientConfig
from disstream.consumer import Consumer, ConsumerConfig, ServiceGroup, Static
from disstream.engine.memory import MemoryEngine
from disstream.errors import DisError, TransportError
from disstream.model import Record
from disstream.producer import Producer, ProducerConfig
from disstream.server import App, ServerConfig
from disstream.testing.clock import run_simulated
from disstream.testing.network import AppTransport, FaultPlan, FaultyTransport
from disstream.wire.checkpoints import position
from disstream.wire.http import Request, Response

KEYS = [f"key-{n}" for n in range(30)]
COUNTS = [8, 3, 8, 2, 5, 1, 8, 3]
SLOW = FaultPlan(delay=0.3)
BAD = FaultPlan(refuse=0.01, lose_request=0.01, lose_answer=0.01, delay=0.1)


class World:
    """A server with one stream, and what became of the records that were sent."""

    def __init__(self, seed: int, plan: FaultPlan) -> None:
        self.dice = random.Random(seed)
        self.plan = plan
        self.engine = MemoryEngine()
        self.app = App(
            self.engine, ServerConfig(data_dir=None, session_timeout_s=6.0, join_delay_s=0.5), random.Random(seed)
        )
        self.sent: list[str] = []  # number -> key
        self.lines: list[tuple[str, Handled]] = []
        self.finished: set[int] = set()
        self.ahead: dict[str, list[int]] = defaultdict(list)  # key -> its numbers
        self.may_repeat = 0
        self.progressed = anyio.Event()

    def line(self) -> Line:
        return Line(self)

    def client(self, line: Line | AppTransport) -> Client:
        config = ClientConfig(request_timeout_s=3.0, retry_base_s=0.05, retry_max_s=0.5, retry_budget_s=4.0)
        return Client(line, "p", config, dice=self.dice)

    async def send(self, producer: Producer, count: int) -> None:
        for _ in range(count):
            key = self.dice.choice(KEYS)
            self.ahead[key].append(len(self.sent))
            self.sent.append(key)
            await producer.send(b"%d" % (len(self.sent) - 1), key=key)

    def begin(self, record: Record) -> None:
        """Somebody handles it."""
        number = int(record.data)
        assert record.key == self.sent[number]
        if number in self.finished:
            return
        for earlier in self.ahead[record.key]:
            assert earlier >= number or earlier in self.finished, (
                f"{number} of {record.key} in {record.partition_id}/{record.sequence_number} comes before {earlier}"
            )

    def end(self, who: str, record: Record) -> None:
        number = int(record.data)
        self.finished.add(number)
        lot = Lot(record.partition_id, record.sequence_number, [number])
        self.lines.append((who, Handled(float(len(self.lines)), [lot])))
        self.progressed.set()

    async def until_all_is_handled(self) -> None:
        while len(self.finished) < len(self.sent):
            self.progressed = anyio.Event()
            await self.progressed.wait()

    def ledger(self) -> Ledger:
        ledger = Ledger(Sent.of((b"", key) for key in self.sent))
        for who, line in self.lines:
            ledger.add(who, line)
        return ledger


class Line:
    """A member's line to the server, which ends with it."""

    def __init__(self, world: World) -> None:
        self.cut = False
        self._carry = FaultyTransport(AppTransport(world.app, latency_s=0.01), world.dice, world.plan)

    async def exchange(self, request: Request) -> Response:
        if self.cut:
            raise TransportError("the line is cut", outcome_unknown=True)
        return await self._carry.exchange(request)

    async def close(self) -> None:
        await self._carry.close()


class Member:
    """Handles records one after the other until it is told to leave, or dies."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.line = world.line()
        self.client = world.client(self.line)
        config = ConsumerConfig(
            coordination=ServiceGroup(rebalance_timeout_s=10.0, heartbeat_s=0.7),
            session_timeout_s=6.0,
            drain_timeout_s=4.0,
            auto_commit_s=world.dice.choice((None, 0.5, 3.0)),
            member_id=name,
            retry_max_s=1.0,
            finish=world.dice.choice(("next", "explicit")),
        )
        self.consumer = Consumer(self.client, "s", config, app="a", rng=world.dice)
        self._stop = False
        self.task = asyncio.get_running_loop().create_task(self._run(), name=name)

    async def _run(self) -> None:
        world = self.world
        async with self.client:
            while True:
                try:
                    await self.consumer.start()
                    break
                except DisError:
                    self.consumer = Consumer(self.client, "s", self.consumer._config, app="a", rng=world.dice)
            try:
                while not self._stop:
                    for record in await self.consumer.fetch(max_records=world.dice.randint(1, 20), timeout_s=0.5):
                        world.begin(record)
                        await anyio.sleep(world.dice.choice((0.0, 0.0, 0.0, 0.01, 0.2)))
                        world.end(self.name, record)
                        self.consumer.record_done(record)
            finally:
                await self.consumer.close()

    async def leave(self) -> None:
        self._stop = True
        await self.task

    async def die(self, watcher: Client) -> None:
        """As a process that is killed: nothing more is sent. What it handled and did not commit comes again."""
        self.line.cut = True
        held = self.consumer.assignment()
        self.task.cancel()
        await asyncio.wait({self.task})
        if not held:
            return
        states = {s.partition_id: s.checkpoint for s in await watcher.apps.state("a", "s")}
        for partition in held:
            checkpoint = states[partition.partition_id]
            at = position(checkpoint)[0] if checkpoint is not None else 0
            ends = [lot.end for who, line in self.world.lines for lot in line.lots
                    if who == self.name and lot.partition == partition.partition_id]  # fmt: skip
            self.world.may_repeat += max(0, max(ends, default=0) - at)


async def run(world: World, members: int, *, deaths: bool) -> None:
    dice = world.dice
    await world.engine.start()
    async with world.client(AppTransport(world.app)) as admin, world.client(world.line()) as sender:
        await admin.streams.create("s", partitions=2)
        async with Producer(sender, "s", ProducerConfig(order="key", linger_s=0.01)) as producer:
            crew = [Member(world, f"m{n}") for n in range(members)]
            for step, count in enumerate(COUNTS):
                await world.send(producer, dice.randint(50, 250))
                await anyio.sleep(dice.uniform(0.0, 3.0))
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(admin.streams.scale, "s", count)
                    await world.send(producer, dice.randint(50, 250))
                await anyio.sleep(dice.uniform(0.0, 6.0) if dice.random() < 0.7 else 0.0)
                for member in crew:
                    if member.task.done():
                        member.task.result()
                match dice.choice(["hire", "leave", "die", "nothing"]):
                    case "hire" if len(crew) < 3:
                        crew.append(Member(world, f"late{step}"))
                    case "leave" if len(crew) > 1:
                        await crew.pop(dice.randrange(len(crew))).leave()
                    case "die" if deaths:
                        await crew.pop(dice.randrange(len(crew))).die(admin)
                        if not crew:
                            crew.append(Member(world, f"late{step}"))
            await producer.flush()
        with anyio.fail_after(600.0):
            await world.until_all_is_handled()
        for member in crew:
            await member.leave()
        for state in await admin.apps.state("a", "s"):
            assert state.checkpoint is not None
            assert position(state.checkpoint)[0] == state.latest
    found = world.ledger().findings()
    assert (found.missing, found.reordered, found.foreign) == (0, 0, 0)
    if world.plan is SLOW:
        assert found.duplicates <= world.may_repeat


@pytest.mark.parametrize("members", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_members_that_come_and_go(members: int, seed: int) -> None:
    """In order, nothing lost, and nothing handled twice."""
    world = World(seed, SLOW)
    run_simulated(lambda: run(world, members, deaths=False))
    assert world.ledger().findings().duplicates == 0


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("seed", range(10, 13))
def test_members_that_die(members: int, seed: int) -> None:
    """In order, nothing lost, and twice only what the dead ones had not committed."""
    world = World(seed, SLOW)
    run_simulated(lambda: run(world, members, deaths=True))


@pytest.mark.parametrize("seed", range(20, 24))
def test_members_that_die_on_a_bad_network(seed: int) -> None:
    """In order and nothing lost."""
    world = World(seed, BAD)
    run_simulated(lambda: run(world, 3, deaths=True))


@pytest.mark.parametrize("seed", range(30, 33))
def test_a_reader_without_an_app(seed: int) -> None:
    """It takes in the partitions that are made while it reads."""
    world = World(seed, SLOW)

    async def main() -> None:
        await world.engine.start()
        async with world.client(AppTransport(world.app)) as admin, world.client(world.line()) as reader:
            await admin.streams.create("s", partitions=2)
            async with (
                Producer(admin, "s", ProducerConfig(order="key", linger_s=0.01)) as producer,
                Consumer(reader, "s", ConsumerConfig(coordination=Static()), rng=world.dice) as consumer,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(consume, consumer)
                for count in COUNTS:
                    await world.send(producer, 150)
                    await admin.streams.scale("s", count)
                    await anyio.sleep(world.dice.choice((0.0, 0.3, 2.0)))
                await world.send(producer, 150)
                await producer.flush()
                with anyio.fail_after(60.0):
                    await world.until_all_is_handled()
                tasks.cancel_scope.cancel()

    async def consume(consumer: Consumer) -> None:
        async for record in consumer:
            world.begin(record)
            world.end("reader", record)

    run_simulated(main)
    found = world.ledger().findings()
    assert (found.missing, found.reordered, found.duplicates) == (0, 0, 0)
