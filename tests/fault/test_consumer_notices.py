"""Consumers that are told what is written: how soon records come, what waiting costs, and what no lie can do."""

from __future__ import annotations

from random import Random

import anyio
import pytest
from notice_world import LATENCY_S, World, simulate

from disstream.client import Client
from disstream.consumer import Consumer, ConsumerConfig, ServiceGroup
from disstream.consumer.notices import PAUSE_MAX_S
from disstream.engine.memory import MemoryEngine
from disstream.errors import NotFoundError, SequenceOutOfRange, TransportError
from disstream.model import NewRecord, Partition
from disstream.server import App, ServerConfig
from disstream.testing.clock import run_simulated
from disstream.testing.network import AppTransport, FaultPlan, FaultyTransport

POLLING = ConsumerConfig(wait=False)


async def delays(world: World, consumer: Consumer, count: int) -> list[float]:
    """From each write to the moment its record is handed out, with pauses in between."""
    found = []
    for number in range(count):
        await anyio.sleep(0.3 + 0.07 * number)
        began = anyio.current_time()
        await world.put(number % 4)
        record = await anext(consumer)
        assert int(record.data) == world.written - 1
        found.append(anyio.current_time() - began)
    return found


def test_a_record_comes_as_soon_as_it_is_written() -> None:
    """With notices after a round trip and a half, whatever the pause before; by polling only after that pause."""

    async def test(world: World) -> None:
        async with Consumer(world.reader, "s") as consumer:
            await world.until_live()
            assert max(await delays(world, consumer, 50)) < 2 * LATENCY_S + 0.001
        async with Consumer(world.reader, "s", ConsumerConfig(wait=False, start="latest")) as consumer:
            assert max(await delays(world, consumer, 50)) > 0.1

    simulate(test, partitions=4)


def test_waiting_for_nothing_costs_little() -> None:
    """A thousand idle partitions: one request for notices a minute, and a few safety polls a second."""

    async def test(world: World) -> None:
        async with Consumer(world.reader, "s") as consumer:
            await world.until_live()
            world.line.asked.clear()
            await anyio.sleep(600)
            assert consumer.stats().unanswered_since is None
            assert 9 <= world.line.asked["notices"] <= 12
            assert world.line.asked["GET records"] < 600 * 8
            await world.put(777)
            assert (await consumer.fetch(timeout_s=0.1))[0].partition_id == "shardId-0000000777"

    simulate(test, partitions=1000)


@pytest.mark.parametrize(
    "fault",
    [
        *["404", "405", "500", "refused", "never", "cut", "silent", "low", "high", "garbage", "short"],
        *["doubled", "lost", "late", "half", "rotten", "behind", "before", "more", "other", "dead"],
    ],
)
def test_whatever_becomes_of_notices_all_records_come(fault: str) -> None:
    """In order, each once; no slower than by polling, but where the service says there is nothing; nobody spins."""

    async def test(world: World) -> None:
        async with Consumer(world.reader, "s") as consumer:
            await world.until_live()
            world.line.fault = fault
            await world.put()
            assert int((await anext(consumer)).data) == 0
            await anyio.sleep(90)  # long enough for the next request, and to find out that a line is silent
            world.line.asked.clear()
            began, longest = anyio.current_time(), 0.0
            for number in range(1, 60):
                await anyio.sleep(number / 20)
                written_at = anyio.current_time()
                await world.put()
                assert int((await anext(consumer)).data) == number
                longest = max(longest, anyio.current_time() - written_at)
            took = anyio.current_time() - began
            assert longest < (61 if fault in ("low", "lost", "before") else 14 if fault == "silent" else 1)
            assert world.line.asked["GET records"] < took / 0.5 + 59 * 12
            assert world.line.asked["notices"] < took + 10
            # And healed, it is as before.
            world.line.fault = ""
            await anyio.sleep(2 * PAUSE_MAX_S)
            written_at = anyio.current_time()
            await world.put()
            await anext(consumer)
            assert anyio.current_time() - written_at < 2 * LATENCY_S + 0.001

    simulate(test)


def test_a_server_that_restarts_is_found_again() -> None:
    """While it is away the failure shows in the statistics; afterwards records come, and soon at once again."""

    async def test(world: World) -> None:
        async with Consumer(world.reader, "s") as consumer:
            await world.until_live()
            world.line.down = True
            world.app.notices.end()
            await anyio.sleep(20)
            assert (consumer.stats().unanswered_since or 1e9) < anyio.current_time() - 10
            assert isinstance(consumer.stats().last_error, TransportError)
            world.app = App(world.engine, ServerConfig(data_dir=None))
            world.line._app = world.app
            world.line.down = False
            await world.put()
            assert int((await anext(consumer)).data) == 0
            await anyio.sleep(PAUSE_MAX_S)
            written_at = anyio.current_time()
            await world.put()
            await anext(consumer)
            assert anyio.current_time() - written_at < 2 * LATENCY_S + 0.001

    simulate(test)


def test_members_are_told_of_what_they_hold() -> None:
    """Partitions that change hands are told to whoever has them now; nobody reads through another's eyes."""

    async def test(world: World) -> None:
        group = ConsumerConfig(coordination=ServiceGroup(accelerate=True))
        got: list[int] = []
        late: list[float] = []
        written_at: dict[int, float] = {}

        async def read(consumer: Consumer) -> None:
            async for record in consumer:
                number = int(record.data)
                got.append(number)
                late.append(anyio.current_time() - written_at[number])

        async def write(seconds: int) -> None:
            for number in range(seconds * 4):
                await anyio.sleep(0.25)
                written_at[world.written] = anyio.current_time()
                await world.put(number % 8)

        async with Consumer(world.reader, "s", group, app="a") as first, anyio.create_task_group() as tasks:
            tasks.start_soon(read, first)
            await world.until_live()
            await write(10)
            assert max(late) < 0.02
            async with Consumer(world.reader, "s", group, app="a") as second, anyio.create_task_group() as more:
                more.start_soon(read, second)
                await write(20)  # the hand-over takes its time
                late.clear()
                await write(10)
                assert max(late) < 0.02
                assert world.app.notices.open_answers == 2
                assert len(first.assignment()) == len(second.assignment()) == 4
                more.cancel_scope.cancel()
            await write(20)
            late.clear()
            await write(10)
            assert max(late) < 0.02
            await anyio.sleep(1)
            tasks.cancel_scope.cancel()
        assert sorted(set(got)) == list(range(world.written))

    simulate(test, partitions=8)


def test_a_sleeping_reader_hears_of_the_end() -> None:
    """A seek beyond what was written, and the end of the stream, are told at once, not at the next safety poll."""

    async def test(world: World) -> None:
        async with Consumer(world.reader, "s") as consumer:
            await world.until_live()
            partition = Partition("s", "shardId-0000000000")
            consumer.seek(partition, 17)
            with anyio.fail_after(1), pytest.raises(SequenceOutOfRange):
                await consumer.fetch()
            await world.put(count=5)
            consumer.seek(partition, 3)
            with anyio.fail_after(0.1):
                assert [r.sequence_number for r in await consumer.fetch()] == [3, 4]
            await anyio.sleep(1)
            await world.writer.streams.delete("s")
            with anyio.fail_after(1), pytest.raises(NotFoundError):
                await consumer.fetch()

    simulate(test)


def test_a_sleeping_reader_hears_of_new_partitions() -> None:
    """What is written there is read at once, and not only when a safety poll tells of the change."""

    async def test(world: World) -> None:
        async with Consumer(world.reader, "s", rng=Random(3)) as consumer:
            await world.put()
            assert len(await consumer.fetch()) == 1
            await world.until_live()
            await world.writer.streams.scale("s", 2)
            await world.put(partition=1)
            with anyio.fail_after(1.0):
                (record,) = await consumer.fetch()
            assert record.partition_id == "shardId-0000000001"

    simulate(test)


def test_lag_is_known_as_it_grows() -> None:
    """What is written of a partition that is not read shows in the statistics at once, not with the next question."""

    async def test(world: World) -> None:
        async with Consumer(world.reader, "s") as consumer:
            await anyio.sleep(40)  # long enough to have asked where it ends
            consumer.pause(Partition("s", "shardId-0000000000"))
            await world.put(count=5)
            await anyio.sleep(0.1)
            (reading,) = consumer.stats().partitions
            assert (reading.end, reading.lag_records) == (5, 5)

    simulate(test)


def test_a_close_leaves_nothing() -> None:
    """At any moment of a request's life, by close, by abort or by cancellation; `simulate` counts what is left."""

    async def test(world: World) -> None:
        for moment in range(12):
            consumer = Consumer(world.reader, "s")
            await consumer.start()
            await anyio.sleep(moment * LATENCY_S / 2)
            await (consumer.abort() if moment % 2 else consumer.close())
            with anyio.move_on_after(0.1 + moment * LATENCY_S / 2):
                async with Consumer(world.reader, "s") as other:
                    await other.fetch()
            await anyio.sleep(LATENCY_S)
            assert world.app.notices.open_answers == 0

    simulate(test, partitions=4)


@pytest.mark.parametrize("seed", range(4))
def test_a_network_that_goes_wrong(seed: int) -> None:
    """Requests and answers of all kinds get lost, late or refused, notices among them: every record comes, in order."""

    async def main() -> None:
        engine = MemoryEngine()
        await engine.start()
        calm = AppTransport(App(engine, ServerConfig(data_dir=None), Random(seed)), latency_s=LATENCY_S)
        plan = FaultPlan(refuse=0.05, lose_request=0.05, lose_answer=0.2, late=0.02, error_before=0.1, hang=0.3)
        shaky = FaultyTransport(calm, Random(seed), plan)
        got: list[int] = []
        async with Client(calm, "p") as writer, Client(shaky, "p", dice=Random(seed)) as client:
            await writer.streams.create("s", partitions=2)
            async with Consumer(client, "s", rng=Random(seed)) as consumer:
                for number in range(200):
                    await anyio.sleep(Random(number).uniform(0, 5))
                    await writer.records.put("s", [NewRecord(b"%d" % number, partition_id=str(number % 2))])
                    got += [int(r.data) for r in await consumer.fetch(timeout_s=0)]
                while len(got) < 200:
                    got += [int(r.data) for r in await consumer.fetch()]
            assert [n for n in got if n % 2] == list(range(1, 200, 2))
            assert [n for n in got if not n % 2] == list(range(0, 200, 2))
        assert shaky.counts["streams"] > 5
        await engine.close()

    run_simulated(main)


def test_switched_off_nothing_is_asked() -> None:
    """`wait=False` polls, and so does a consumer before a service that offers nothing."""

    async def test(world: World) -> None:
        async with Consumer(world.reader, "s", POLLING) as consumer:
            await anyio.sleep(10)
            await world.put()
            assert await consumer.fetch(timeout_s=1)
        assert world.line.asked["notices"] == 0

    simulate(test)
