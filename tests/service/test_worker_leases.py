"""Proves that workers keep their promises when partitions come and go one by one."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from app_world import SESSION_S, Line, p
from msgspec.structs import replace
from worker_world import Hired, WorkerWorld, simulate, until

from disstream.consumer import ConsumerConfig
from disstream.consumer.leasekeeper import key_of
from disstream.consumer.rows import read_rows
from disstream.door import DisClient
from disstream.errors import Reject
from disstream.model import Checkpoint, Partition, Record
from disstream.testing.network import AppTransport
from disstream.worker.control import ask_to_resume
from disstream.worker.plan import Selection
from disstream.worker.reading import box
from disstream.worker.redrive import Redrive


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


@pytest.mark.parametrize("told", [True, False])
def test_what_is_parked_is_kept_in_the_rows_and_goes_over_with_them(told: bool) -> None:
    """The next worker lets no record of the key overtake; sent back it is unparked, which the rows tell."""

    async def test(world: WorkerWorld) -> None:
        await world.stream()
        await world.dis.streams.create("dead", partitions=1)
        await world.put(("bad", "1"), ("good", "2"))
        mended = False
        seen: list[str] = []

        async def handler(record: Record) -> None:
            if record.key == "bad" and not mended:
                raise Reject("no such account")
            seen.append(record.text())

        def hire() -> Hired:
            reading = ConsumerConfig(
                coordination=world.leases(mirror_s=None), session_timeout_s=SESSION_S, auto_commit_s=1.0
            )
            return world.hire(handler, dead_letters="stream:dead", consumer=reading)

        first = hire()
        await until(lambda: first.worker.stats().dead_letters == 1)
        await first.stop()
        second = hire()
        await world.put(("bad", "3"))
        await until(lambda: second.worker.stats().followed == 1)
        mended = True

        async def kept(app: str, partition: Partition) -> Checkpoint | None:
            return read_rows(world.rows.apps[app]).leases[key_of(partition)].kept()

        letters = box(world.client, "stream:dead")
        await letters.open(settles=True)
        redriving = Redrive(world.client, letters, Selection(), wait_s=10.0, kept=kept if told else None)
        report = await redriving.run()
        await letters.close()
        assert bool(report.unparked) == told
        await until(lambda: seen == ["2", "1", "3"])
        assert second.worker.stats().parked_keys == 0

    simulate(test)


def test_what_is_suspended_is_kept_in_the_rows_and_goes_over_with_them() -> None:
    """The next worker does not try either; resumed by what stands there, it goes on with the record it stopped at."""

    async def test(world: WorkerWorld) -> None:
        await world.stream(records=3)
        mended = False
        seen: list[str] = []

        async def handler(record: Record) -> None:
            if record.text() == "1" and not mended:
                raise Reject("no such table")
            seen.append(record.text())

        def hire() -> Hired:
            reading = ConsumerConfig(coordination=world.leases(mirror_s=None), session_timeout_s=SESSION_S)
            return world.hire(handler, order="partition", consumer=reading)

        first = hire()
        await until(lambda: first.worker.stats().suspended == (p(0),))
        await first.stop()
        second = hire()
        await until(lambda: second.worker.stats().suspended == (p(0),))
        mended = True
        assert await ask_to_resume(world.client, "a", "s") == [], "the service was told nothing"
        states = [
            replace(state, checkpoint=read_rows(world.rows.apps["a"]).leases[key_of(p(0))].kept())
            for state in await world.client.apps.state("a", "s")
        ]
        ((asked, suspension),) = await ask_to_resume(world.client, "a", "s", states=states)
        assert asked == p(0)
        assert suspension is not None
        await until(lambda: seen == ["0", "1", "2"])

    simulate(test)
