"""Proves that a consumer that does not get on says so, and why; and that it tells how far behind it is."""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback

import anyio
import pytest
from app_world import AppWorld, numbers, p, simulate

from disstream.consumer import ConsumerConfig, Stall
from disstream.consumer.stacks import task_stack, thread_stack
from disstream.wire.annotations import read_note
from disstream.wire.checkpoints import position


async def sleep_within(seconds: float) -> None:
    await anyio.sleep(seconds)


async def problem(world: AppWorld) -> str:
    (state,) = await world.dis.apps.state("a", "s")
    assert state.checkpoint is not None
    return read_note(position(state.checkpoint)[1]).problem


def test_a_loop_body_that_takes_long_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """Once, with the record and the place in the code; the checkpoint tells it from elsewhere; going on ends it."""
    stalls: list[Stall] = []

    async def test(world: AppWorld) -> None:
        await world.stream(records=10)
        async with world.consumer(on_stall=stalls.append, auto_commit_s=1.0) as consumer:
            async for record in consumer:
                if int(record.data) == 2:
                    await sleep_within(200)
                    assert consumer.stats().stalls == 1
                    assert consumer.stats().partitions[0].stalled == "unfinished"
                    assert await problem(world) == "record 2 was handed out and is not finished"
                elif int(record.data) == 5:
                    await sleep_within(50)
                    assert consumer.stats().partitions[0].stalled is None
                    assert await problem(world) == ""
                    break
        assert consumer.stats().stalls == 1

    with caplog.at_level(logging.INFO, "disstream.consumer"):
        simulate(test)
    (stall,) = stalls
    assert (stall.partition, stall.cause) == (p(0), "unfinished")
    assert 60 <= stall.for_s <= 75
    assert "await sleep_within(200)" in stall.stack
    assert "await anyio.sleep(seconds)" in stall.stack
    told = [record.getMessage() for record in caplog.records if "get" in record.getMessage()]
    assert len([text for text in told if "has not got on" in text and "record 2 " in text]) == 1
    assert told[-1].endswith("gets on again")


@pytest.mark.parametrize("left", [True, False])
def test_what_was_told_of_a_former_owner_ends_once_the_next_gets_on(left: bool) -> None:
    """Whether it finds records or is at the end: who looks from elsewhere must not be told of trouble that is over."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=3)
        async with world.consumer(auto_commit_s=1.0) as stuck:
            records = await stuck.fetch(max_records=3)
            await anyio.sleep(200)
            assert await problem(world) == "record 0 was handed out and is not finished"
            if not left:
                stuck.record_done(records[-1])
        assert await problem(world) == "record 0 was handed out and is not finished"
        async with world.consumer(auto_commit_s=1.0) as other:
            if left:
                records = await other.fetch(max_records=3)
                await anyio.sleep(40)
                assert await problem(world) == "record 0 was handed out and is not finished", "as far as is known"
                other.record_done(records[-1])
            else:
                assert await other.fetch(timeout_s=30.0) == []
            await anyio.sleep(40)
            assert await problem(world) == ""

    simulate(test)


def test_records_that_nobody_takes_are_told() -> None:
    """With the code that took records last; `stack_of` tells it of those who hand records to tasks."""
    stalls: list[Stall] = []

    async def test(world: AppWorld) -> None:
        await world.stream(records=10)
        async with world.consumer(
            on_stall=stalls.append, finish="explicit", stack_of=lambda _: "in a task"
        ) as consumer:
            await consumer.fetch(max_records=2)
            await sleep_within(100)

    simulate(test)
    assert [(stall.cause, stall.stack) for stall in stalls] == [("unfinished", "in a task")]


def test_a_paused_partition_is_no_stall() -> None:
    """Its user knows. Nor is an idle one."""
    stalls: list[Stall] = []

    async def test(world: AppWorld) -> None:
        await world.stream(records=3)
        async with world.consumer(on_stall=stalls.append) as consumer:
            assert numbers(await consumer.fetch()) == [0, 1, 2]
            with anyio.move_on_after(500):
                await consumer.fetch()
            consumer.pause(p(0))
            await world.write(3)
            await anyio.sleep(500)

    simulate(test)
    assert stalls == []


def test_the_lag_in_records_and_time() -> None:
    """From the place handed out to the end as last asked; in time, by the record that is next."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=10)
        async with world.consumer(lag_interval_s=5.0) as consumer:
            await consumer.fetch(max_records=4)
            before = consumer.stats()
            assert (before.lag_records, before.partitions[0].end) == (None, None)
            await anyio.sleep(6)
            (reading,) = consumer.stats().partitions
            assert (reading.position, reading.end, reading.lag_records, reading.committed) == (4, 10, 6, 0)
            assert consumer.stats().lag_records == 6
            assert reading.lag_s is not None
            assert reading.lag_s >= 6
            await consumer.fetch()
            await consumer.commit()
            (reading,) = consumer.stats().partitions
            assert (reading.position, reading.lag_records, reading.lag_s, reading.committed) == (10, 0, 0.0, 4)
            assert reading.checkpoint_age_s is not None
            assert reading.checkpoint_age_s < 1

    simulate(test)


def test_stacks_show_what_a_task_awaits() -> None:
    """From the outermost coroutine to the innermost; "" of one that ended."""

    async def outer() -> None:
        await sleep_within(10)

    async def main() -> None:
        task = asyncio.ensure_future(outer())
        await asyncio.sleep(0)
        text = task_stack(task)
        places = [text.index(name) for name in ("in outer", "in sleep_within")]
        assert places == sorted(places)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task_stack(task) == ""

    asyncio.run(main())


def test_the_stack_of_a_thread() -> None:
    """As a traceback of it would read; "" of none."""
    assert "test_the_stack_of_a_thread" in thread_stack(threading.get_ident())
    assert thread_stack(-1) == ""
    assert "thread_stack" in traceback.format_stack()[-1]


def test_a_stall_time_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="stall_warn_s=0"):
        ConsumerConfig(stall_warn_s=0)
