"""A server application in memory with clients on it, under simulated time."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from disstream.client import Client
from disstream.consumer import Consumer, ConsumerConfig, Leases, Pattern, ServiceGroup
from disstream.consumer.rows import read_rows
from disstream.engine.memory import MemoryEngine
from disstream.errors import TransportError
from disstream.model import NewRecord, Partition, Record
from disstream.server import App, ServerConfig
from disstream.testing.clock import run_simulated
from disstream.testing.leasing import LeaseRows, SimLeases
from disstream.testing.network import AppTransport
from disstream.wire.checkpoints import position
from disstream.wire.http import Request, Response
from disstream.wire.partitioning import partition_id, partition_number

SESSION_S = 10.0
GROUP = ServiceGroup(accelerate=True)


class Line:
    """A client's line to the application, which can be cut."""

    def __init__(self, app: App) -> None:
        self.cut = False
        self._carry = AppTransport(app, latency_s=0.01)

    async def exchange(self, request: Request) -> Response:
        if self.cut:
            raise TransportError("the line is cut", outcome_unknown=True)
        return await self._carry.exchange(request)

    async def close(self) -> None:
        await self._carry.close()


class AppWorld:
    """One application, one client, and consumers that end with the test."""

    kind = "group"
    """How consumers of an app share partitions unless a test says otherwise: "group" or "leases"."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.engine = MemoryEngine()
        self.app = App(self.engine, ServerConfig(data_dir=None, session_timeout_s=SESSION_S), random.Random(1))
        self.line = Line(self.app)
        self.dis = Client(self.line, "p", dice=random.Random(2))
        self._stack = stack
        self._made = 0
        self.rows = LeaseRows()

    async def other_client(self) -> Client:
        """One with a line of its own."""
        client = Client(Line(self.app), "p", dice=random.Random(2))
        return await self._stack.enter_async_context(client)

    async def stream(self, name: str = "s", partitions: int = 1, records: int = 0) -> None:
        await self.dis.streams.create(name, partitions=partitions)
        for number in range(partitions):
            await self.write(records, name, number)

    async def write(self, count: int, name: str = "s", number: int = 0) -> None:
        """Records whose text is their own number."""
        if count:
            first = (await self.dis.streams.describe(name)).partitions[number].sequence_range
            assert first is not None
            records = [NewRecord(b"%d" % n, partition_id=str(number)) for n in range(first.end, first.end + count)]
            (await self.dis.records.put(name, records)).raise_for_failed()

    def consumer(
        self, streams: str | Sequence[str] | Pattern = "s", app: str | None = "a", **settings: Any
    ) -> Consumer:
        if app and self.kind == "leases":
            settings = {"coordination": self.leases(), "session_timeout_s": SESSION_S, **settings}
        settings = {"coordination": GROUP if app else None, "auto_commit_s": None, **settings}
        self._made += 1
        return Consumer(self.dis, streams, ConsumerConfig(**settings), app=app, rng=random.Random(self._made))

    async def started(self, *args: Any, **settings: Any) -> Consumer:
        """A consumer that is aborted at the end of the test, if it was not closed."""
        consumer = self.consumer(*args, **settings)
        await consumer.start()
        self._stack.push_async_callback(consumer.abort)
        return consumer

    def leases(self, **settings: Any) -> Leases:
        """A line of its own to the store of this world."""
        return Leases(SimLeases(self.rows), **settings)

    async def committed(self, stream: str = "s", app: str = "a") -> dict[int, int | None]:
        """Partition -> what is read next, as the service keeps it; of leases, as the store does."""
        if self.kind == "leases":
            rows = read_rows(self.rows.apps.get(app, {})).leases
            kept = {key.number: row.kept() for key, row in rows.items() if key.stream == stream}
            return {number: None if c is None else position(c)[0] for number, c in sorted(kept.items())}
        return {
            partition_number(s.partition_id): None if s.checkpoint is None else position(s.checkpoint)[0]
            for s in await self.dis.apps.state(app, stream)
        }


def simulate(test: Callable[[AppWorld], Awaitable[None]]) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            world = AppWorld(stack)
            await world.engine.start()
            await stack.enter_async_context(world.dis)
            await test(world)

    run_simulated(main)


async def take(consumer: Consumer, count: int, timeout_s: float = 60.0) -> list[Record]:
    """Fetch until there are `count` records."""
    records: list[Record] = []
    while len(records) < count:
        batch = await consumer.fetch(max_records=count - len(records), timeout_s=timeout_s)
        assert batch, f"{len(records)} of {count} records came"
        records += batch
    return records


def numbers(records: Sequence[Record]) -> list[int]:
    return [int(record.data) for record in records]


def p(number: int, stream: str = "s") -> Partition:
    return Partition(stream, partition_id(number))
