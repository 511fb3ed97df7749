"""Proves that a partition that takes nothing cannot stop the others, and that waiting for a share keeps order."""

from __future__ import annotations

import asyncio
import gc
import random
import re
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from paced_world import Service, keys_of, producing

from disstream.errors import BufferFull, ClosedError, ConfigError, NotStored, TransportError
from disstream.model import NewRecord
from disstream.producer import Delivery, Producer
from disstream.producer.budget import ByteBudget
from disstream.producer.traffic import Traffic
from disstream.testing.clock import run_simulated
from disstream.wire.http import Request, Response
from disstream.wire.records import decode_put

PARTITIONS = 4
KEYS = keys_of(PARTITIONS, 3)
STUCK, FINE = KEYS[0], KEYS[1]


class Stuck(Service):
    """Puts for partition 0 get no answer until `opened`; `down`: nobody is there for any put."""

    down = False
    stuck = STUCK

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, **options)
        self.opened = anyio.Event()

    async def put(self, request: Request) -> Response | None:
        if self.down:
            raise TransportError("connection refused", outcome_unknown=False)
        if any(row.key in self.stuck for row in decode_put(request.body).records):
            await self.opened.wait()
        return None


def stuck(check: Any, **options: Any) -> None:
    settings: dict[str, Any] = {"buffer_bytes": 400_000, "max_batch_bytes": 20_000, "max_batch_records": 50}

    async def main() -> None:
        async with producing({}, partitions=PARTITIONS, service=Stuck, **(settings | options)) as (producer, service):
            await check(producer, service)

    run_simulated(main)


async def fill(producer: Producer, key: str = STUCK[0], size: int = 100) -> None:
    """Send to a partition until it is full."""
    told = ""
    while not told:
        try:
            producer.try_send(b"x" * size, key=key)
        except BufferFull as exc:
            told = str(exc)
        await anyio.lowlevel.checkpoint()
    assert re.search("shardId-000000000. holds .* so that it does not stop the others", told)


def test_a_stuck_partition_holds_half_and_the_others_go_on() -> None:
    """The stuck one is refused at its share; `send` to it raises at its deadline, to others it never waits."""

    async def check(producer: Producer, service: Stuck) -> None:
        await fill(producer)
        held = producer.stats().partitions[0].waiting_bytes
        assert 200_000 <= held <= 220_000
        began = anyio.current_time()
        with pytest.raises(BufferFull, match=r"a record for shardId-0000000000 of 's': no room within 2 s"):
            await producer.send(b"x", key=STUCK[1])
        assert anyio.current_time() - began == pytest.approx(2.0)
        assert producer.stats().partitions[0].waiting_bytes == held
        began = anyio.current_time()
        for _ in range(2_000):
            await (await producer.send(b"x" * 100, key=FINE[0]))
        assert anyio.current_time() - began < 2_000 * 0.006
        service.opened.set()
        await producer.send_and_wait(b"x", key=STUCK[1])

    stuck(check, send_timeout_s=2.0)


def test_stuck_partitions_share_evenly() -> None:
    """Nobody is there: each of the four partitions ends up with a fifth, whoever came first holds no more for long."""

    async def check(producer: Producer, service: Stuck) -> None:
        service.down = True

        async def feed(keys: list[str]) -> None:
            while True:
                await producer.send(b"x" * 100, key=keys[0])

        with anyio.move_on_after(60.0):
            async with anyio.create_task_group() as tasks:
                for keys in KEYS:
                    tasks.start_soon(feed, keys)
        held = [p.waiting_bytes for p in producer.stats().partitions if p.partition_id]
        assert max(held) <= 80_000 + 2 * 16_000, "a fifth, and what a batch adds to it"
        assert min(held) >= 80_000 - 3 * 16_000
        assert producer.stats().buffered_bytes <= 400_000

    stuck(check, delivery_timeout_s=5.0, max_batch_records=20)


def test_records_that_waited_for_their_share_keep_their_order() -> None:
    """Tasks that send to a full partition one after another: stored in the order of the calls, whoever gives up."""

    async def check(producer: Producer, service: Stuck) -> None:
        await fill(producer)
        dice = random.Random(7)
        accepted: list[tuple[int, Delivery]] = []

        async def one(number: int, patience: float) -> None:
            with anyio.move_on_after(patience):
                if number % 5:
                    accepted.append((number, await producer.send(b"%d" % number, key=STUCK[0])))
                else:
                    pair = [(b"%d" % number, STUCK[0]), (b"%d" % number, FINE[0])]
                    batch = await producer.send_many(pair)
                    accepted.append((number, Delivery(*next(batch._order[0].places()))))

        async with anyio.create_task_group() as tasks:
            for number in range(300):
                tasks.start_soon(one, number, dice.choice([0.2, 100.0, 100.0]))
                if number == 150:
                    await anyio.sleep(1.0)
                    service.opened.set()
                if number % 10 == 0:
                    await anyio.sleep(dice.choice([0.0, 0.01]))
        places = [(await delivery).sequence_number for _, delivery in sorted(accepted, key=lambda one: one[0])]
        assert len(places) > 150
        assert places == sorted(places)
        assert producer.stats().buffered_bytes == 0

    stuck(check)


def test_a_call_larger_than_a_share_goes_when_its_partitions_are_below_theirs() -> None:
    """send_many of more than any share: accepted whole once its partition holds little; never, if it cannot fit."""

    async def check(producer: Producer, service: Stuck) -> None:
        many = [(b"x" * 100, STUCK[0])] * 900  # 276 kB of 400
        await producer.send_many(many)
        with pytest.raises(BufferFull, match=r"900 records for 's': no room within 1 s"):
            await producer.send_many(many)
        with pytest.raises(BufferFull, match="can never fit"):
            await producer.send_many(many * 2)
        service.opened.set()
        assert len(await (await producer.send_many(many))) == 900

    stuck(check, send_timeout_s=1.0)


def test_a_small_record_does_not_slip_in_before_a_large_one_that_waits() -> None:
    """The open batch has room for a byte, not for what waits for a new batch: order of the calls all the same."""

    async def check(producer: Producer, service: Stuck) -> None:
        await fill(producer, STUCK[0], 3_000)
        large = asyncio.ensure_future(producer.send(b"x" * 3_000, key=STUCK[0]))
        await anyio.lowlevel.checkpoint()
        small = asyncio.ensure_future(producer.send(b"x", key=STUCK[0]))
        await anyio.sleep(0.1)
        assert not small.done()
        service.opened.set()
        assert (await (await large)).sequence_number < (await (await small)).sequence_number

    stuck(check)


def test_who_waits_is_let_in_where_its_records_go_after_scaling() -> None:
    """The layout changes while calls wait for a share: no later call overtakes them on the way to the new partition."""

    async def check(producer: Producer, service: Stuck) -> None:
        service.stuck = FINE  # of partition 1, which becomes part of partition 0
        await fill(producer, FINE[0])
        sending = [asyncio.ensure_future(producer.send(b"%d" % i, key=FINE[0])) for i in range(900)]
        gone = asyncio.ensure_future(producer.send_many([(b"x", FINE[0]), NewRecord(b"x", partition_id="3")]))
        await anyio.sleep(0.1)
        await producer._client.streams.scale("s", 2)
        service.opened.set()
        for i in range(100):  # the layout is learnt from an answer that names another partition
            sending.append(asyncio.ensure_future(producer.send(b"%d" % i, key=FINE[0])))
            await anyio.sleep(0.001)
        assert len(producer.stats().partitions) <= 3
        receipts = [await (await task) for task in sending]
        assert {receipt.partition_id for receipt in receipts} == {"shardId-0000000000"}
        places = [receipt.sequence_number for receipt in receipts]
        assert places == sorted(places)
        with pytest.raises(ConfigError, match="writable partitions are"):
            await gone

    stuck(check)


def test_closing_wakes_who_waits_for_a_share() -> None:
    """abort() lets nobody in any more, also those whose turn has come a moment before."""

    async def check(producer: Producer, service: Stuck) -> None:
        await fill(producer)
        waiting = [asyncio.ensure_future(producer.send(b"x", key=STUCK[0])) for _ in range(5)]
        await anyio.sleep(0.1)
        await producer.abort()
        for task in waiting:
            with pytest.raises(ClosedError):
                await task
        assert producer.stats().buffered_bytes == 0

    stuck(check)


def test_nobody_is_forgotten_at_the_door() -> None:
    """Who comes while granted waits have not run yet is let in right behind them, not when a batch is settled."""

    async def main() -> None:
        budget = ByteBudget(1_000_000)
        budget.open(anyio.current_time() - 1.0)
        entered: list[int] = []

        async def enter(number: int) -> None:
            await budget.enter(1, 5.0, "x")
            entered.append(number)

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(enter, number)
                if number % 3 == 0:
                    await anyio.lowlevel.checkpoint()
        assert entered == list(range(20))
        assert anyio.current_time() == 0.0
        assert budget.mark > 0

    run_simulated(main)


@pytest.mark.parametrize("seed", range(30))
def test_random_turns_keep_the_books(seed: int) -> None:
    """Calls to any partitions that enter, give up, are cancelled, rerouted: nothing leaks, in order, none stuck."""

    async def main() -> None:
        dice = random.Random(seed)
        budget = ByteBudget(100)
        budget.open(anyio.current_time())
        budget.shares = True
        traffics = [Traffic(i, None) for i in range(3)]
        in_order: dict[Traffic, list[int]] = {traffic: [] for traffic in traffics}

        async def call(number: int) -> None:
            mine = dice.sample(traffics, dice.choice([1, 1, 1, 2, 3]))
            need = dice.randint(len(mine), 40)
            with anyio.move_on_after(dice.choice([0.0, 0.1, 500.0])):
                try:
                    await budget.turn(need, lambda: mine, dice.choice([0.05, 500.0]), "call")
                except BufferFull:
                    return
                share = need // len(mine)
                for traffic in mine:
                    in_order[traffic].append(number)
                    traffic.held += share
                try:
                    assert budget.used <= 100
                    await anyio.sleep(dice.choice([0.0, 0.01, 0.3]))
                finally:
                    for traffic in mine:
                        traffic.held -= share
                    budget.leave(need)

        async with anyio.create_task_group() as tasks:
            for number in range(150):
                tasks.start_soon(call, number)
                await anyio.sleep(dice.choice([0.0, 0.0, 0.01]))
                if dice.random() < 0.05:
                    budget.reroute()
        assert anyio.current_time() < 100.0, "somebody was stuck"
        assert budget.used == 0
        assert budget.mark > 0, "the door is left closed"
        for traffic, numbers in in_order.items():
            assert (traffic.held, traffic.coming, len(traffic.turns)) == (0, 0, 0)
            assert numbers == sorted(numbers)

    run_simulated(main)


def test_an_hour_without_the_service_costs_no_memory() -> None:
    """Full speed into nothing for an hour: every record ends truthfully, and as many objects live as at the start."""
    counts: list[int] = []

    async def check(producer: Producer, service: Stuck) -> None:
        service.down = True
        ends: dict[str, int] = {"not stored": 0, "full": 0}

        async def feed(keys: list[str]) -> None:
            deliveries: list[Delivery] = []
            while True:
                try:
                    deliveries.append(await producer.send(b"x" * 100, key=keys[0]))
                except BufferFull:
                    ends["full"] += 1
                if len(deliveries) >= 100:
                    for delivery in deliveries:
                        with pytest.raises(NotStored, match="expired"):
                            await delivery
                        ends["not stored"] += 1
                    deliveries.clear()

        with anyio.move_on_after(3_600):
            async with anyio.create_task_group() as tasks:
                for keys in KEYS:
                    for _ in range(4):
                        tasks.start_soon(feed, keys)
                for _ in range(6):
                    await anyio.sleep(590)
                    assert producer.stats().buffered_bytes <= 100_000
                    gc.collect()
                    counts.append(len(gc.get_objects()))
        assert ends["not stored"] > 5_000

    stuck(check, buffer_bytes=100_000, send_timeout_s=50.0, delivery_timeout_s=120.0)
    assert max(counts[1:]) < 1.05 * min(counts[1:])
