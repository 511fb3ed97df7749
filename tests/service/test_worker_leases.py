"""Proves that workers keep their promises when partitions come and go one by one."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from app_world import SESSION_S, Line
from worker_world import Hired, WorkerWorld, simulate, until

from disstream.consumer import ConsumerConfig
from disstream.door import DisClient
from disstream.model import Record
from disstream.testing.network import AppTransport


def test_what_is_given_up_while_something_is_opened_is_handed_over_in_peace() -> None:
    """A hand-over that has to wait for partitions being opened: their announcement takes none of the others away."""

    async def test(world: WorkerWorld) -> None:
        await world.stream(partitions=4, records=40)
        handled: Counter[str] = Counter()

        async def handler(record: Record) -> None:
            await asyncio.sleep(0.5)
            handled[f"{record.partition_id} {record.text()}"] += 1

        async def hire(line: Line) -> Hired:
            dis = DisClient(line, "p", dice=random.Random(9))
            await world._stack.enter_async_context(dis)
            leases = world.leases(mirror_s=None)
            reading = ConsumerConfig(coordination=leases, session_timeout_s=SESSION_S, drain_timeout_s=20.0)
            return world.hire(handler, order="partition", dis=dis, consumer=reading)

        slow = Line(world.app)
        first = await hire(slow)
        second = await hire(Line(world.app))
        await until(lambda: all(len(h.worker.consumer.assignment()) == 2 for h in (first, second)))
        slow._carry = AppTransport(world.app, latency_s=3.0)
        await second.stop()
        await asyncio.sleep(1.0)
        others = [await hire(Line(world.app)) for _ in range(3)]
        # Well within the time that calls would have, if somebody waited for what nobody finishes any more.
        await until(lambda: all(len(h.worker.consumer.assignment()) == 1 for h in (first, *others)), 15.0)
        await until(lambda: len(handled) == 160)
        assert first.worker.stats().cancelled == 0
        assert set(handled.values()) == {1}

    simulate(test)
