"""Readers that are pushed what is new: they ask for nothing, and lose, double and reorder nothing, whatever happens."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

import anyio
import pytest
from notice_world import LATENCY_S, Line, World, simulate

from disstream.client import Client
from disstream.consumer import Consumer, ConsumerConfig, ServiceGroup
from disstream.consumer.notices import WASTE_PAGES
from disstream.engine import Batch, PartitionRef
from disstream.model import NewRecord, Partition, Record
from disstream.producer import Envelope, Producer, ProducerConfig
from disstream.wire.http import Request, Response
from disstream.wire.notices import LONGEST_S
from disstream.wire.partitioning import partition_id

FIRST = Partition("s", "shardId-0000000000")


class Taken(list[Record]):
    """What a consumer hands out, in order."""

    def __init__(self) -> None:
        super().__init__()
        self._more = anyio.Event()

    async def take(self, consumer: Consumer) -> None:
        async for record in consumer:
            self.append(record)
            self._more.set()
            self._more = anyio.Event()

    async def until(self, count: int) -> None:
        with anyio.fail_after(200):
            while len(self) < count:
                await self._more.wait()


def numbers(records: list[Record]) -> list[int]:
    return [int(r.data) for r in records]


def test_who_keeps_up_asks_for_nothing() -> None:
    """A thousand records a second over four partitions, each read half a round trip after it was written."""

    async def test(world: World) -> None:
        got = Taken()
        async with Consumer(world.reader, "s") as consumer, anyio.create_task_group() as tasks:
            tasks.start_soon(got.take, consumer)
            await world.until_live()
            world.line.asked.clear()
            for number in range(2_000):
                await world.put(number % 4)
                await anyio.sleep(0.001)
            await anyio.sleep(2 * LATENCY_S + 0.001)
            assert len(got) == 2_000
            assert not world.line.asked
            assert consumer.stats().pages <= 2_000
            assert sorted(numbers(got)) == list(range(2_000))
            assert all(number % 4 == int(r.partition_id[-1]) for number, r in zip(numbers(got), got, strict=True))
            for partition in range(4):
                mine = [r for r in got if r.partition_id == partition_id(partition)]
                assert [r.sequence_number for r in mine] == list(range(500))
            assert consumer.position(FIRST) == 500
            assert (await consumer.lag())[FIRST] == 0
            tasks.cancel_scope.cancel()

    simulate(test, partitions=4)


def test_without_push_it_is_as_before() -> None:
    """`push_bytes=0`, and a server that knows nothing of it: each record is asked for."""

    class Older(Line):
        async def _carry(self, request: Request) -> Response:
            response = await super()._carry(request)
            told = response.headers.get("x-disstream", "")
            response.headers["x-disstream"] = told.replace("push, ", "")
            return response

    async def test(world: World) -> None:
        older = Older(world.app)
        async with Client(older, "p") as client:
            for line, source, config in (
                (world.line, world.reader, ConsumerConfig(push_bytes=0)),
                (older, client, ConsumerConfig()),
            ):
                async with Consumer(source, "s", config) as consumer:
                    await world.until_live()
                    await consumer.fetch(timeout_s=0)
                    line.asked.clear()
                    for _ in range(20):
                        await world.put()
                        assert await consumer.fetch(max_records=100)
                    assert line.asked["GET records"] >= 20
                    assert line.pages == 0

    simulate(test)


def test_envelopes_are_opened() -> None:
    """Records in envelopes come out of a pushed page as they come out of any other."""

    async def test(world: World) -> None:
        got = Taken()
        config = ProducerConfig(envelope=Envelope())
        async with (
            Consumer(world.reader, "s") as consumer,
            Producer(world.writer, "s", config) as producer,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(got.take, consumer)
            await world.until_live()
            world.line.asked.clear()
            for number in range(200):
                await producer.send(b"%d" % number, key="k", headers={"n": str(number)})
                if number % 7 == 0:
                    await producer.flush()
            await producer.flush()
            await got.until(200)
            assert numbers(got) == list(range(200))
            assert [r.headers["n"] for r in got if r.headers] == [str(number) for number in range(200)]
            assert not world.line.asked["GET records"]
            tasks.cancel_scope.cancel()

    simulate(test)


def test_a_paused_partition_is_pushed_nothing_for_long() -> None:
    """What it is sent in vain is bounded, it holds no memory, and resumed it reads on from where it stood."""

    async def test(world: World) -> None:
        got = Taken()
        async with Consumer(world.reader, "s") as consumer, anyio.create_task_group() as tasks:
            tasks.start_soon(got.take, consumer)
            await world.until_live()
            await world.put(0)
            await got.until(1)
            consumer.pause(FIRST)
            pages, answers = world.line.pages, world.line.asked["notices"]
            for _ in range(10 * WASTE_PAGES):
                await world.put(0)
                await anyio.sleep(0.01)
            assert WASTE_PAGES <= world.line.pages - pages <= WASTE_PAGES + 2
            assert world.line.asked["notices"] == answers + 1
            assert len(got) == 1
            assert consumer.stats().buffered_bytes == 0
            # The other partition is pushed to as ever.
            world.line.asked.clear()
            await world.put(1)
            await got.until(2)
            assert not world.line.asked["GET records"]
            consumer.resume(FIRST)
            await got.until(world.written)
            mine = [r.sequence_number for r in got if r.partition_id == FIRST.partition_id]
            assert mine == list(range(10 * WASTE_PAGES + 1))
            # And once the answer has ended, it is again.
            await anyio.sleep(LONGEST_S + 1)
            world.line.asked.clear()
            await world.put(0)
            await got.until(world.written)
            assert not world.line.asked["GET records"]
            tasks.cancel_scope.cancel()

    simulate(test, partitions=2)


def test_a_seek_while_a_page_is_on_its_way() -> None:
    """Back, forward or nowhere: what comes next is what was sought, and nothing of it is missing."""

    async def test(world: World) -> None:
        async with Consumer(world.reader, "s") as consumer:
            await world.until_live()
            rng = Random(5)
            await world.put(0, 20)
            while (consumer.position(FIRST) or 0) < 20:
                await consumer.fetch()
            for _ in range(60):
                await world.put(0, rng.randint(1, 5))
                await anyio.sleep(rng.choice([0, LATENCY_S / 4, LATENCY_S / 2, LATENCY_S]))
                to = rng.randint(0, world.written)
                consumer.seek(FIRST, to)
                await anyio.sleep(rng.choice([0, LATENCY_S / 4]))
                more = rng.randint(1, 3)
                await world.put(0, more)
                got: list[Record] = []
                with anyio.fail_after(100):
                    while len(got) < world.written - to:
                        got += await consumer.fetch()
                assert [r.sequence_number for r in got] == list(range(to, world.written))
            assert consumer.stats().gap_records == 0

    simulate(test)


def test_what_retention_took_before_it_was_pushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader asks, is told that it is gone, and goes on behind it; what comes then is pushed again."""

    async def test(world: World) -> None:
        got = Taken()
        async with Consumer(world.reader, "s") as consumer, anyio.create_task_group() as tasks:
            tasks.start_soon(got.take, consumer)
            await world.until_live()
            await world.put()
            await got.until(1)
            ref = PartitionRef((await world.writer.streams.describe("s")).stream_id or "", 0)
            kept = world.engine.log.read

            async def late(*args: Any) -> list[Batch]:
                await world.engine.log.trim(ref, 4)
                return await kept(*args)

            monkeypatch.setattr(world.engine.log, "read", late)
            await world.put(count=5)
            await got.until(3)
            monkeypatch.setattr(world.engine.log, "read", kept)
            assert numbers(got) == [0, 4, 5]
            assert consumer.stats().gap_records == 3
            await anyio.sleep(1)
            world.line.asked.clear()
            await world.put()
            await got.until(4)
            assert numbers(got) == [0, 4, 5, 6]
            assert not world.line.asked["GET records"]
            tasks.cancel_scope.cancel()

    simulate(test)


def test_a_member_that_gives_a_partition_up_hands_out_nothing_more_of_it() -> None:
    """Pages that come while partitions change hands: each record is handed out by its owner, in order, and once."""

    async def test(world: World) -> None:
        group = ConsumerConfig(coordination=ServiceGroup(accelerate=True), auto_commit_s=1.0)
        got: list[tuple[str, Record]] = []

        async def consume(name: str, consumer: Consumer) -> None:
            async for record in consumer:
                assert record.partition in consumer.assignment()
                got.append((name, record))

        async def write() -> None:
            while True:
                await world.put(world.written % 4)
                await anyio.sleep(0.017)

        async with anyio.create_task_group() as writing:
            async with Consumer(world.reader, "s", group, app="a") as first, anyio.create_task_group() as tasks:
                tasks.start_soon(consume, "first", first)
                await world.until_live()
                writing.start_soon(write)
                for turn in range(4):
                    async with Consumer(world.reader, "s", group, app="a") as second, anyio.create_task_group() as more:
                        more.start_soon(consume, f"second{turn}", second)
                        await anyio.sleep(15 + turn / 7)
                        assert len(second.assignment()) == 2
                        more.cancel_scope.cancel()
                    await anyio.sleep(8)
                writing.cancel_scope.cancel()
                await anyio.sleep(1)
                tasks.cancel_scope.cancel()
        # The loops are cancelled with one record in hand, which the next owner gets again; otherwise once.
        for partition in range(4):
            mine = [(name, r.sequence_number) for name, r in got if r.partition_id == partition_id(partition)]
            assert sorted({n for _, n in mine}) == list(range(len({n for _, n in mine})))
            for (before, one), (after, two) in pairwise(mine):
                assert two == one + 1 or (before != after and two <= one), f"{before} had {one}, then {after} {two}"
            assert len(mine) - len({n for _, n in mine}) <= 8
        assert len({(r.partition_id, r.sequence_number) for _, r in got}) == world.written

    simulate(test, partitions=4)


def test_what_runs_ahead_stays_bounded() -> None:
    """Nobody takes anything: the buffer fills to its budget and no further, and then everything comes."""

    async def test(world: World) -> None:
        config = ConsumerConfig(prefetch_bytes=2_097_152, max_fetch_bytes=2_097_152)
        async with Consumer(world.reader, "s", config) as consumer:
            await world.until_live()
            for _ in range(800):
                records = [NewRecord(bytes(5_000), partition_id="0")] * 3
                (await world.writer.records.put("s", records)).raise_for_failed()
                await anyio.sleep(0.01)
            assert consumer.stats().buffered_bytes <= 2 * 2_097_152 + 8 * 65_536
            got: list[Record] = []
            with anyio.fail_after(100):
                while len(got) < 2_400:
                    got += await consumer.fetch()
            assert [r.sequence_number for r in got] == list(range(2_400))

    simulate(test)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_in_any_order(seed: int) -> None:
    """Bursts, pauses, seeks and lines that go wrong, drawn anew each time: all records come, in order, each once."""

    async def test(world: World) -> None:
        rng = Random(seed)
        faults = [
            "",
            "",
            "",
            "doubled",
            "lost",
            "late",
            "half",
            "rotten",
            "behind",
            "before",
            "more",
            "other",
            "low",
            "cut",
        ]
        got: list[list[int]] = [[], [], []]

        async def write() -> None:
            for _ in range(600):
                await world.put(rng.randrange(3), rng.choice([1, 1, 1, 2, 5, 40]))
                await anyio.sleep(rng.choice([0, 0.0005, 0.002, 0.01, 0.3]))

        async def disturb(consumer: Consumer) -> None:
            while True:
                await anyio.sleep(rng.uniform(0, 2))
                world.line.fault = rng.choice(faults)
                partition = Partition("s", partition_id(rng.randrange(3)))
                match rng.randrange(4):
                    case 0:
                        consumer.pause(partition)
                        await anyio.sleep(rng.choice([0, 0.01, 1]))
                        consumer.resume(partition)
                    case 1:
                        mine = got[int(partition.partition_id[-1])]
                        to = rng.randint(0, len(mine))
                        consumer.seek(partition, to)
                        del mine[to:]

        async def take(consumer: Consumer) -> None:
            while True:
                for record in await consumer.fetch(max_records=rng.choice([1, 10, 500])):
                    mine = got[int(record.partition_id[-1])]
                    assert record.sequence_number == len(mine), "a record is missing, doubled or out of order"
                    mine.append(int(record.data))
                if rng.random() < 0.1:
                    await anyio.sleep(rng.choice([0, 0.001, 0.1]))

        async with Consumer(world.reader, "s", rng=Random(seed)) as consumer, anyio.create_task_group() as tasks:
            tasks.start_soon(take, consumer)
            tasks.start_soon(disturb, consumer)
            await write()
            tasks.cancel_scope.cancel()
        async with Consumer(world.reader, "s", ConsumerConfig(start=dict(enumerated(got)))) as rest:
            with anyio.fail_after(200):
                while sum(map(len, got)) < world.written:
                    for record in await rest.fetch():
                        got[int(record.partition_id[-1])].append(int(record.data))
        assert sorted(number for mine in got for number in mine) == list(range(world.written))
        assert all(mine == sorted(mine) for mine in got)

    simulate(test, partitions=3)


def enumerated(got: list[list[int]]) -> list[tuple[str, int]]:
    return [(partition_id(n), len(mine)) for n, mine in enumerate(got)]
