"""Proves the producer's promises on a plain service, over a network that loses, delays and repeats, in virtual time."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import anyio
import pytest
from msgspec import structs

from disstream.client import Client, ClientConfig
from disstream.engine.memory import MemoryEngine
from disstream.errors import DeliveryFailed, DeliveryUnknown, NotStored, TransportError, Undelivered
from disstream.producer import Delivery, Producer, ProducerConfig, Receipt
from disstream.producer.config import Order
from disstream.server import App, ServerConfig
from disstream.server.documents import STREAMS, decode_document, encode_document
from disstream.testing.clock import run_simulated
from disstream.testing.network import AppTransport, FaultPlan, FaultyTransport
from disstream.wire.partitioning import partition_number

PARTITIONS = 3
KEYS = [None, "a", "b", "c", "d", "e"]


async def read_all(client: Client, stream: str) -> dict[tuple[str, int], bytes]:
    """Everything stored, by place."""
    stored: dict[tuple[str, int], bytes] = {}
    for partition in (await client.streams.describe(stream)).partitions:
        cursor = await client.cursors.get(stream, partition.partition_id, "TRIM_HORIZON")
        while (page := await client.records.get(cursor)).records:
            stored |= {(r.partition_id, r.sequence_number): r.data for r in page.records}
            cursor = page.next_cursor
    return stored


async def torture(seed: int, order: Order, *, suffix_rule: bool, records: int = 250) -> Counter[str]:
    """Send through a bad network, then compare every end with what is stored. Returns how often each end came."""
    dice = random.Random(seed)
    share = dice.choice([0.01, 0.03, 0.08])
    # A network that repeats a request whose answer says "partly refused" may store what was refused: no client can see
    # that without the help of the service, so the two do not come together.
    repeats = dice.random() < 0.3
    plan = FaultPlan(
        refuse=share,
        lose_request=share,
        lose_answer=share,
        late=share,
        duplicate=share if repeats else 0.0,
        error_before=share,
        error_after=share,
        hang=0.5,
        delay=0.2,
        partial=0.0 if repeats else 0.3,
        suffix_rule=suffix_rule,
    )
    engine = MemoryEngine()
    await engine.start()
    app = App(engine, ServerConfig(data_dir=None))
    clean = AppTransport(app)
    network = FaultyTransport(AppTransport(app, latency_s=0.004), dice, plan)
    config = ProducerConfig(
        order=order,
        sessions=False,  # test_producer_session_faults.py has them; here is what holds of a plain service
        max_batch_records=dice.choice([1, 5, 20]),
        max_in_flight=dice.choice([1, 2, 8]),
        linger_s=dice.choice([0.0, 0.05]),
        delivery_timeout_s=dice.choice([3.0, 30.0]),
        request_timeout_s=2.0,
        retry_max_s=1.0,
    )
    async with Client(clean, "demo", ClientConfig()) as direct:
        await direct.streams.create("s", partitions=PARTITIONS)
        deliveries: list[tuple[str | None, bytes, Delivery]] = []
        ends: list[Receipt | DeliveryFailed] = []
        async with Client(network, "demo", ClientConfig(attempts=50, retry_budget_s=3600.0)) as client:
            async with Producer(client, "s", config, rng=dice) as producer:
                for i in range(records):
                    key = dice.choice(KEYS)
                    deliveries.append((key, b"%d" % i, await producer.send(b"%d" % i, key=key)))
                    if dice.random() < 0.2:
                        await anyio.sleep(dice.choice([0.0, 0.01, 0.3]))
                for _, _, delivery in deliveries:
                    try:
                        ends.append(await delivery)
                    except DeliveryFailed as exc:
                        ends.append(exc)
                stats = producer.stats()
            await network.settle()
        stored = await read_all(direct, "s")
    await engine.close()

    everything = Counter(stored.values())
    for (_, data, _), end in zip(deliveries, ends, strict=True):
        if isinstance(end, Receipt):
            assert stored[(end.partition_id, end.sequence_number)] == data
            assert end.attempts > 1 or everything[data] == 1 or repeats, "stored twice by one attempt"
        elif not isinstance(end, DeliveryUnknown):
            assert data not in everything, f"{end!r} but it is stored"
    kinds = Counter(type(end).__name__ for end in ends)
    assert stats.accepted == records
    assert stats.waiting == stats.buffered_bytes == stats.in_flight == 0
    assert (stats.stored, stats.unknown, stats.not_stored) == (
        kinds["Receipt"],
        kinds["DeliveryUnknown"],
        kinds["NotStored"],
    )
    if order == "strict" or (order == "key" and suffix_rule):
        settled = {data for (_, data, _), end in zip(deliveries, ends, strict=True) if isinstance(end, Receipt)}
        check_order(stored, {data: key for key, data, _ in deliveries}, settled)
    return kinds


def check_order(stored: dict[tuple[str, int], bytes], key_of: dict[bytes, str | None], settled: set[bytes]) -> None:
    """Of every key, the first occurrences of stored records stand in the order of the sends."""
    latest: dict[str, int] = {}
    seen: set[bytes] = set()
    for place in sorted(stored):
        data = stored[place]
        key = key_of[data]
        if key is None or data in seen or data not in settled:
            continue
        seen.add(data)
        assert latest.get(key, -1) < int(data), f"{key}#{int(data)} stands behind {key}#{latest[key]}"
        latest[key] = int(data)


@pytest.mark.parametrize(
    ("order", "suffix_rule"), [("key", True), ("strict", True), ("strict", False), ("none", False)]
)
def test_every_end_is_true_and_order_holds(order: Order, suffix_rule: bool) -> None:
    """Whatever the network does, every record gets one end in time, the end is true, and order per key holds."""
    kinds: Counter[str] = Counter()
    for seed in range(12):
        kinds += run_simulated(lambda seed=seed: torture(seed, order, suffix_rule=suffix_rule))  # type: ignore[misc]
    assert kinds["Receipt"] > 1_500
    assert kinds["DeliveryUnknown"] > 0, "the network was too kind to prove anything"


@pytest.mark.long
@pytest.mark.parametrize(("order", "suffix_rule"), [("key", True), ("strict", False), ("key", False), ("none", True)])
def test_every_end_is_true_for_many_seeds(order: Order, suffix_rule: bool) -> None:
    """The same over many more networks."""
    for seed in range(100, 250):
        run_simulated(lambda seed=seed: torture(seed, order, suffix_rule=suffix_rule))  # type: ignore[misc]


def simulated_producer(check: Any, plan: FaultPlan | None = None, **options: Any) -> None:
    """Run `check(producer, network)` on a fresh stream of 3 partitions under virtual time."""

    async def main() -> None:
        engine = MemoryEngine()
        await engine.start()
        app = App(engine, ServerConfig(data_dir=None))
        network = FaultyTransport(AppTransport(app, latency_s=0.002), random.Random(5), plan or FaultPlan())
        async with Client(AppTransport(app), "demo", ClientConfig()) as direct:
            await direct.streams.create("s", partitions=PARTITIONS)
            async with Client(network, "demo", ClientConfig()) as client:
                producer = Producer(client, "s", ProducerConfig(**options), rng=random.Random(1))
                await check(producer, network, direct, engine)
        await engine.close()

    run_simulated(main)


def test_a_service_that_is_down_ends_every_record_in_time() -> None:
    """With nobody there, each record ends as not stored within delivery_timeout_s, and leaves its room."""

    async def check(producer: Producer, network: FaultyTransport, direct: Client, engine: MemoryEngine) -> None:
        async with producer:
            network._plan = FaultPlan(refuse=1.0)
            began = anyio.current_time()
            deliveries = [await producer.send(b"x", key=f"k{i}") for i in range(50)]
            for delivery in deliveries:
                with pytest.raises(NotStored, match="expired"):
                    await delivery
            assert anyio.current_time() - began <= 20.0
            assert producer.stats().buffered_bytes == 0

    simulated_producer(check, delivery_timeout_s=20.0)


def test_close_raises_what_nobody_awaited() -> None:
    """Failed records that nobody awaited come out of close, by cause; awaited ones do not."""

    async def check(producer: Producer, network: FaultyTransport, direct: Client, engine: MemoryEngine) -> None:
        await producer.start()
        network._plan = FaultPlan(lose_answer=1.0, hang=1.0)
        watched = await producer.send(b"0", key="a")
        await producer.send(b"1", key="b")
        await producer.send(b"2", key="b")
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                with pytest.raises(DeliveryUnknown):
                    await watched

            tasks.start_soon(watch)
            await anyio.sleep(0.1)
            with pytest.raises(Undelivered) as caught:
                await producer.close()
        assert caught.value.report == {"unknown": 2}
        await producer.close()

    simulated_producer(check, close_timeout_s=1.0)


def test_an_exception_in_the_block_is_not_replaced() -> None:
    """Leaving the block with an exception raises that one; undelivered records are logged instead."""

    async def check(producer: Producer, network: FaultyTransport, direct: Client, engine: MemoryEngine) -> None:
        async def block() -> None:
            async with producer:
                network._plan = FaultPlan(refuse=1.0)
                await producer.send(b"0")
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            await block()

    simulated_producer(check, close_timeout_s=0.5)


def test_abort_is_now() -> None:
    """Abort ends every record at once: unknown on the wire, not stored otherwise; no time passes, no task remains."""

    async def check(producer: Producer, network: FaultyTransport, direct: Client, engine: MemoryEngine) -> None:
        await producer.start()
        network._plan = FaultPlan(lose_answer=1.0, hang=1.0)
        flying = await producer.send(b"0", key="a")
        await anyio.sleep(0.1)
        waiting = await producer.send(b"1", key="a")
        began = anyio.current_time()
        await producer.abort()
        assert anyio.current_time() == began
        with pytest.raises(DeliveryUnknown):
            await flying
        with pytest.raises(NotStored, match="closed"):
            await waiting

    simulated_producer(check)


def test_scaling_while_producing_keeps_order() -> None:
    """When the stream is divided anew behind the producer's back, order per key holds over both layouts together."""

    async def check(producer: Producer, network: FaultyTransport, direct: Client, engine: MemoryEngine) -> None:
        async with producer:
            for i in range(600):
                await producer.send(b"%d" % i, key=f"k{i % 7}")
                if i % 50 == 49:
                    await anyio.sleep(0.01)
                if i == 300:
                    await divide_anew(engine)
        assert producer.stats().stored == 600
        info = await direct.streams.describe("s")
        assert producer._core.layout.lanes.ranges == [
            (partition_number(p.partition_id), p.hash_range) for p in info.partitions
        ]
        stored = await read_all(direct, "s")
        assert len(set(stored.values())) == 600

    simulated_producer(check, max_batch_records=20)


def test_a_layout_that_cannot_be_read_stops_nobody() -> None:
    """While an answer contradicts the layout and the description hangs, records go on being stored in the old lanes."""

    async def check(producer: Producer, network: FaultyTransport, direct: Client, engine: MemoryEngine) -> None:
        async with producer:
            await divide_anew(engine)
            producer._sending._client = NoDescription(producer._sending._client)  # type: ignore[assignment]
            began = anyio.current_time()
            for i in range(300):
                await producer.send(b"%d" % i, key=f"k{i % 7}")
                await anyio.sleep(0.1)
            await producer.flush()
            assert anyio.current_time() - began < 31.0
            assert producer.stats().stored == 300

    # In a session the service refuses what it would have to store elsewhere: there the producer has to wait.
    simulated_producer(check, sessions=False)


class NoDescription:
    """A client whose descriptions never come."""

    def __init__(self, client: Client) -> None:
        self.records = client.records
        self.extensions = client.extensions
        self.streams = self

    async def describe(self, name: str) -> None:
        await anyio.sleep(60.0)
        raise TransportError("no answer", outcome_unknown=True)


async def divide_anew(engine: MemoryEngine) -> None:
    """Swap the hash ranges of partitions 0 and 2, as the catalog would hold them after scaling."""
    ((key, found),) = await engine.catalog.scan(STREAMS)
    document = decode_document(found.value)
    first, middle, last = document.partitions
    swapped = (
        structs.replace(first, low=last.low, high=last.high),
        middle,
        structs.replace(last, low=first.low, high=first.high),
    )
    await engine.catalog.transact(
        {key: found.version}, {key: encode_document(structs.replace(document, partitions=swapped))}
    )
