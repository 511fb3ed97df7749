"""Proves that records which share one of the service get true ends and keep their order, whatever the network does."""

from __future__ import annotations

import random
from collections import Counter

import anyio
import pytest

from disstream.client import Client, ClientConfig
from disstream.consumer import Consumer, ConsumerConfig, Static
from disstream.engine.memory import MemoryEngine
from disstream.errors import DeliveryFailed, DeliveryUnknown
from disstream.model import Record
from disstream.producer import Delivery, Envelope, Producer, ProducerConfig, Receipt
from disstream.producer.config import Order
from disstream.server import App, ServerConfig
from disstream.testing.clock import run_simulated
from disstream.testing.network import AppTransport, FaultPlan, FaultyTransport

KEYS = [None, "a", "b", "c", "d", "e"]
PARTITIONS = 3


async def torture(seed: int, order: Order, records: int = 250) -> Counter[str]:
    """Send through a bad network, read through a good one. Returns how often each end came."""
    dice = random.Random(seed)
    share = dice.choice([0.01, 0.03, 0.08])
    plan = FaultPlan(
        refuse=share,
        lose_request=share,
        lose_answer=share,
        late=share,
        error_before=share,
        error_after=share,
        hang=0.5,
        delay=0.2,
        partial=0.3,
        suffix_rule=True,
    )
    engine = MemoryEngine()
    await engine.start()
    app = App(engine, ServerConfig(data_dir=None))
    network = FaultyTransport(AppTransport(app, latency_s=0.004), dice, plan)
    config = ProducerConfig(
        order=order,
        envelope=Envelope(aggregate_records=dice.choice([1, 3, 100]), aggregate_bytes=dice.choice([40, 500])),
        max_batch_records=dice.choice([1, 5, 20]),
        max_in_flight=dice.choice([1, 2, 8]),
        delivery_timeout_s=dice.choice([3.0, 30.0]),
        request_timeout_s=2.0,
        retry_max_s=1.0,
    )
    ends: list[Receipt | DeliveryFailed] = []
    async with Client(AppTransport(app), "demo", ClientConfig()) as direct:
        await direct.streams.create("s", partitions=PARTITIONS)
        deliveries: list[tuple[str | None, Delivery]] = []
        async with Client(network, "demo", ClientConfig(attempts=50, retry_budget_s=3600.0)) as client:
            async with Producer(client, "s", config, rng=dice) as producer:
                for i in range(records):
                    key = dice.choice(KEYS)
                    deliveries.append((key, await producer.send(b"%d" % i, key=key)))
                    if dice.random() < 0.1:
                        await anyio.sleep(dice.choice([0.0, 0.01, 0.3]))
                for _, delivery in deliveries:
                    try:
                        ends.append(await delivery)
                    except DeliveryFailed as exc:
                        ends.append(exc)
            await network.settle()
        read = await read_all(direct)
    await engine.close()

    places = {(r.partition_id, r.sequence_number, r.index): r.data for r in read}
    assert len(places) == len(read), "every record was handed out once"
    counts = Counter(places.values())
    for i, end in enumerate(ends):
        data = b"%d" % i
        if isinstance(end, Receipt):
            assert places[(end.partition_id, end.sequence_number, end.index)] == data
            assert end.attempts > 1 or counts[data] == 1
        elif not isinstance(end, DeliveryUnknown):
            assert data not in counts, f"{end!r} but it is stored"
    # The identity tells copies from records, and the order of the sends of a key.
    identities: dict[tuple[str | None, int | None], bytes] = {}
    latest: dict[str, int] = {}
    stored = {i for i, end in enumerate(ends) if isinstance(end, Receipt)}
    for record in read:
        identity = (record.producer_id, record.number)
        assert identities.setdefault(identity, record.data) == record.data
        if record.key is not None and counts[record.data] == 1 and int(record.data) in stored:
            assert record.number is not None
            assert latest.get(record.key, -1) < record.number
            latest[record.key] = record.number
    assert len(identities) == len(counts), "one identity for each record, however often it was stored"
    return Counter(type(end).__name__ for end in ends)


async def read_all(client: Client) -> list[Record]:
    found: list[Record] = []
    async with Consumer(client, "s", ConsumerConfig(coordination=Static())) as consumer:
        while batch := await consumer.fetch(max_records=7, timeout_s=2.0):
            found += batch
    return found


@pytest.mark.parametrize("order", ["key", "strict"])
def test_every_end_is_true_and_order_holds_within_envelopes(order: Order) -> None:
    """Partial failures, lost answers and late effects: receipts name the place, nothing "not stored" is there, the
    identity finds every copy, and the numbers of a key ascend."""
    kinds: Counter[str] = Counter()
    for seed in range(15):
        kinds += run_simulated(lambda seed=seed: torture(seed, order))  # type: ignore[misc]
    assert kinds["Receipt"] > 2_000
    assert kinds["DeliveryUnknown"] > 0, "the network was too kind to prove anything"
