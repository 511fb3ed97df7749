"""A server application in memory, and workers on it, under simulated time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
from app_world import AppWorld, Line

from disstream.consumer import ConsumerConfig, ServiceGroup
from disstream.door import DisClient
from disstream.model import NewRecord, Record
from disstream.testing.clock import run_simulated
from disstream.worker import Worker, WorkerConfig
from disstream.worker.letters import Letter, decode_letter

READING = ConsumerConfig(coordination=ServiceGroup(accelerate=True), auto_commit_s=1.0)


class Hired:
    """A worker and the task that runs it."""

    def __init__(self, worker: Worker, task: asyncio.Task[None]) -> None:
        self.worker = worker
        self.task = task

    async def stop(self) -> None:
        self.worker.stop()
        await self.task


class WorkerWorld(AppWorld):
    def __init__(self, stack: AsyncExitStack) -> None:
        super().__init__(stack)
        self.dis = self.client = DisClient(self.line, "p", dice=random.Random(2))
        self._hired = 0

    async def other(self) -> DisClient:
        """A client with a line of its own."""
        return await self._stack.enter_async_context(DisClient(Line(self.app), "p", dice=random.Random(4)))

    async def put(self, *rows: tuple[str | None, str], stream: str = "s") -> None:
        """(key, text) each."""
        records = [NewRecord(text.encode(), key=key) for key, text in rows]
        (await self.dis.records.put(stream, records)).raise_for_failed()

    def worker(self, handler: Any, *, dis: DisClient | None = None, **settings: Any) -> Worker:
        settings = {"streams": ["s"], "app": "a", "consumer": READING, "handle_signals": False, **settings}
        self._hired += 1
        return Worker(dis or self.client, handler, WorkerConfig(**settings), rng=random.Random(self._hired))

    def hire(self, handler: Any, **settings: Any) -> Hired:
        """A worker that runs until the end of the test, if it is not ended before."""
        worker = self.worker(handler, **settings)
        task = asyncio.create_task(worker.run())
        self._stack.push_async_callback(self._fire, task)
        return Hired(worker, task)

    async def _fire(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        await asyncio.wait({task})

    async def letters(self, stream: str = "dead") -> list[Letter]:
        """All dead letters of a stream, in order of their partitions."""
        found = []
        for partition in (await self.dis.streams.describe(stream)).partitions:
            cursor = await self.dis.cursors.get(stream, partition.partition_id, "TRIM_HORIZON")
            while page := (await self.dis.records.get(cursor)).records:
                for record in page:
                    letter = decode_letter(record.data)
                    assert isinstance(letter, Letter)
                    found.append(letter)
                cursor = await self.dis.cursors.get(
                    stream,
                    partition.partition_id,
                    "AFTER_SEQUENCE_NUMBER",
                    sequence_number=page[-1].sequence_number,
                )
        return found


async def until(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    """Let time pass until it holds; virtual time costs nothing."""
    for _ in range(int(seconds * 20)):
        if condition():
            return
        await anyio.sleep(0.05)
    raise TimeoutError(f"it did not come to hold within {seconds} s")


def texts(records: list[Record]) -> list[str]:
    return [record.text() for record in records]


def simulate(test: Callable[[WorkerWorld], Awaitable[None]]) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            world = WorkerWorld(stack)
            await world.engine.start()
            await stack.enter_async_context(world.dis)
            await test(world)

    run_simulated(main)
