"""Proves that records of a key come in their order while the stream is scaled, and that nobody waits for ever."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import anyio
import pytest
from app_world import AppWorld, numbers, p, simulate, take

from disstream.consumer import Consumer, Static
from disstream.engine import PartitionRef
from disstream.model import NewRecord, Record
from disstream.wire.partitioning import HashRouter, hash_key, hash_ranges

KEYS = [f"key-{n}" for n in range(40)]


@pytest.fixture(params=["group", "leases"], autouse=True)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """However an app's consumers share the partitions."""
    kind: str = request.param
    monkeypatch.setattr(AppWorld, "kind", kind)
    return kind


class Writer:
    """Writes one record of each key at a time, numbered per key."""

    def __init__(self, world: AppWorld) -> None:
        self._world = world
        self.rounds = 0

    async def write(self, rounds: int = 1) -> None:
        for _ in range(rounds):
            records = [NewRecord(b"%d" % self.rounds, key=key) for key in KEYS]
            (await self._world.dis.records.put("s", records)).raise_for_failed()
            self.rounds += 1

    async def scaled(self, *counts: int) -> None:
        """Written before, between and behind these changes."""
        await self.write(3)
        for count in counts:
            await self._world.dis.streams.scale("s", count)
            await self.write(3)


def in_order(records: Sequence[Record]) -> bool:
    last: dict[str | None, int] = {}
    for record in records:
        if int(record.data) != last.get(record.key, -1) + 1:
            return False
        last[record.key] = int(record.data)
    return True


async def drained(consumer: Consumer, count: int, size: int = 7) -> list[Record]:
    records: list[Record] = []
    while len(records) < count:
        records += await take(consumer, min(size, count - len(records)))
    return records


@pytest.mark.parametrize("app", [None, "a"])
@pytest.mark.parametrize("coordination", [None, Static(), Static([str(n) for n in range(8)])])
def test_a_history_of_layouts_is_read_in_order(app: str | None, coordination: Static | None) -> None:
    """Whoever reads it all gets every key in its order, though it lies in many partitions."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2)
        writer = Writer(world)
        await writer.scaled(8, 3, 5, 1, 4)
        settings = {} if coordination is None else {"coordination": coordination}
        consumer = await world.started(app=app, **settings)
        records = await drained(consumer, writer.rounds * len(KEYS))
        assert in_order(records)
        assert not await consumer.fetch(timeout_s=5.0)
        assert consumer.stats().gap_records == consumer.stats().repeated_records == 0
        assert consumer.stats().held_partitions == consumer.stats().awaited_partitions == ()

    simulate(test)


@pytest.mark.parametrize("app", [None, "a"])
def test_changes_under_reading(app: str | None) -> None:
    """What is scaled while it is read is told by the pages, before anything is handed out behind the change."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2)
        writer = Writer(world)
        consumer = await world.started(app=app)
        records = []
        for count in (8, 3, 8, 2):
            await writer.write(4)
            records += await drained(consumer, 50)
            await world.dis.streams.scale("s", count)
            await writer.write(4)
        records += await drained(consumer, writer.rounds * len(KEYS) - len(records))
        assert in_order(records)
        assert len({r.partition_id for r in records}) == 8

    simulate(test)


@pytest.mark.parametrize("auto_commit_s", [None, 1000.0])
def test_members_wait_for_each_other(auto_commit_s: float | None) -> None:
    """A record behind the change comes when the other member has finished what lies before it, and soon after."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2)
        first = await world.started(auto_commit_s=auto_commit_s)
        second = await world.started(auto_commit_s=auto_commit_s)
        while len(first.assignment()) != 1 or len(second.assignment()) != 1:
            await first.fetch(timeout_s=0.1)
            await second.fetch(timeout_s=0.1)
        (slow,), (fast,) = first.assignment(), second.assignment()
        if slow == p(1):
            first, second, slow, fast = second, first, fast, slow
        await world.write(3)
        await world.write(1, number=1)
        await world.dis.streams.scale("s", 1)  # keys of partition 1 go to partition 0
        await world.write(2)
        assert numbers(await take(first, 3)) == [0, 1, 2]
        assert await first.fetch(timeout_s=3.0) == []
        assert numbers(await take(second, 1)) == [0]
        assert await first.fetch(timeout_s=3.0) == [], "it is in hand, not finished"
        stats = first.stats()
        assert (stats.held_partitions, stats.awaited_partitions) == ((p(0),), (p(1),))
        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(second.fetch)
            assert numbers(await take(first, 2)) == [3, 4]
            tasks.cancel_scope.cancel()
        assert anyio.current_time() - began < 3.0
        assert (await world.committed())[1] == 1

    simulate(test)


def test_explicit_finishing() -> None:
    """With record_done() the last one that is done lets the others go on."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2, records=2)
        consumer = await world.started(app=None, finish="explicit")
        await world.dis.streams.scale("s", 1)
        await world.write(1)
        old = await take(consumer, 4)
        for record in old[:-1]:
            consumer.record_done(record)
            assert await consumer.fetch(timeout_s=1.0) == []
        consumer.record_done(old[-1])
        assert numbers(await take(consumer, 1)) == [2]

    simulate(test)


def test_what_is_set_aside_is_not_finished() -> None:
    """A worker that hands a partition over sets aside what it had not begun: it still comes before the change."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2, records=1)
        consumer = await world.started(finish="explicit", auto_commit_s=0.5)
        first, second = sorted(await take(consumer, 2), key=lambda record: record.partition_id)
        await world.dis.streams.scale("s", 3)
        await world.write(1)
        assert await consumer.fetch(timeout_s=10.0) == []
        consumer.set_aside([second])
        consumer.record_done(first)
        assert await consumer.fetch(timeout_s=10.0) == []
        consumer.record_done(second)
        assert numbers(await take(consumer, 1)) == [1]

    simulate(test)


def test_iterating() -> None:
    """`async for` takes runs; the last of the old layout is finished when the next is asked for."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=3)
        writer = Writer(world)
        await writer.scaled(5, 2)
        consumer = await world.started()
        records = []
        async for record in consumer:
            records.append(record)
            if len(records) % 10 == 0:
                await consumer.commit()
            if len(records) == writer.rounds * len(KEYS):
                break
        assert in_order(records)

    simulate(test)


def test_who_holds_the_others_up_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """A partition that the user paused stops those behind the change: a warning says so, again and again."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2, records=1)
        consumer = await world.started(app=None)
        await world.dis.streams.scale("s", 1)
        await world.write(1)
        consumer.pause(p(1))
        assert len(await take(consumer, 1)) == 1
        with caplog.at_level(logging.WARNING, "disstream.consumer"):
            assert await consumer.fetch(timeout_s=60.0) == []
        told = [record.getMessage() for record in caplog.records]
        assert 1 <= len(told) <= 3
        assert "s: 1 partitions wait" in told[0]
        assert "shardId-0000000001 (held here, finished below 0 of 1)" in told[0]
        consumer.resume(p(1))
        assert len(await take(consumer, 2)) == 2

    simulate(test)


def test_a_seek_before_a_change_is_read_in_order() -> None:
    """The others stop where they are until the one that was sent back has come up to them."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2, records=3)
        consumer = await world.started(app=None)
        await world.dis.streams.scale("s", 1)
        await world.write(3)
        assert len(await take(consumer, 7)) == 7
        await consumer.fetch(timeout_s=5.0)  # the rest is fetched
        for place in (0, "earliest"):
            consumer.seek(p(1), place)
            consumer.seek(p(0), 4)
            got = await take(consumer, 5)
            assert [(r.partition_id[-1], r.sequence_number) for r in got] == [
                ("1", 0), ("1", 1), ("1", 2), ("0", 4), ("0", 5)
            ]  # fmt: skip
        consumer.seek(p(1), "latest")
        consumer.seek(p(0), 5)
        assert numbers(await take(consumer, 1)) == [5]

    simulate(test)


def test_the_newest_waits_for_nothing_old() -> None:
    """start="latest" stands behind all changes, and reads partitions that are made later from their beginning."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2, records=2)
        await world.dis.streams.scale("s", 3)
        consumer = await world.started(app=None, start="latest")
        writer = Writer(world)
        await writer.scaled(5, 2)
        records = await drained(consumer, writer.rounds * len(KEYS))
        assert in_order(records)
        assert len(consumer.assignment()) == 5

    simulate(test)


def test_what_has_expired_is_not_waited_for() -> None:
    """Neither records below what retention left, nor a partition that is gone."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2, records=3)
        consumer = await world.started(app="a", coordination=Static(["0"]))
        assert len(await take(consumer, 3)) == 3
        await world.dis.streams.scale("s", 1)
        await world.write(2)
        assert numbers(await take(consumer, 2)) == [3, 4], "nobody of the app reads the other one"
        other = await world.started(app="a", coordination=Static(["1"]))
        assert len(await take(other, 1)) == 1
        consumer.seek(p(0), 2)
        assert numbers(await take(consumer, 1)) == [2]
        assert await consumer.fetch(timeout_s=3.0) == []
        (stream,) = [s async for s in world.dis.streams.list()]
        await world.engine.log.trim(PartitionRef(stream.stream_id, 1), 3)
        assert numbers(await take(consumer, 2)) == [3, 4]

    simulate(test)


def test_a_revived_partition_is_read_on_without_an_app() -> None:
    """Partitions that a stream gets back are read like new ones, and those it gets while nothing is written."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=1)
        consumer = await world.started(app=None)
        await world.dis.streams.scale("s", 2)
        assert await consumer.fetch(timeout_s=2.0) == []
        assert consumer.assignment() == {p(0), p(1)}
        await world.write(1, number=1)
        await world.dis.streams.scale("s", 1)
        await world.dis.streams.scale("s", 2)
        await world.write(1, number=1)
        assert numbers(await take(consumer, 2)) == [0, 1]

    simulate(test)


def test_the_keys_do_move() -> None:
    """These tests would prove little with keys that stay where they are."""

    def owners(count: int) -> list[int | None]:
        router = HashRouter(enumerate(hash_ranges(count)))
        return [router.owner(hash_key(key)) for key in KEYS]

    ways = zip(owners(2), owners(8), owners(3), strict=True)
    assert sum(len(set(way)) > 1 for way in ways) > len(KEYS) / 2
