"""Proves the producer's life: from any task, cancelled anywhere, closed twice, without a record or task lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from functools import partial

import anyio
import pytest

from disstream.client import Client, ClientConfig
from disstream.engine.memory import MemoryEngine
from disstream.errors import (
    BufferFull,
    ClosedError,
    ConfigError,
    DeliveryFailed,
    NotFoundError,
    NotStored,
    RecordRejected,
    TransportError,
    Undelivered,
)
from disstream.model import NewRecord
from disstream.producer import Delivery, Producer, ProducerConfig, Receipt
from disstream.server import App, ServerConfig
from disstream.testing.clock import run_simulated
from disstream.testing.network import AppTransport
from disstream.wire.columns import encode_columns
from disstream.wire.http import Request, Response


class Slow(AppTransport):
    """A network whose puts wait for `go`."""

    def __init__(self, app: App) -> None:
        super().__init__(app)
        self.go = anyio.Event()
        self.go.set()

    async def exchange(self, request: Request) -> Response:
        if request.method == "POST":
            await self.go.wait()
        return await super().exchange(request)


class World:
    """A service with a stream of 4 partitions, and a client to it."""

    network: Slow
    client: Client

    def producer(self, **options: object) -> Producer:
        return Producer(self.client, "s", ProducerConfig(**options), rng=random.Random(1))  # type: ignore[arg-type]

    async def stored(self) -> list[bytes]:
        found: list[bytes] = []
        for partition in (await self.client.streams.describe("s")).partitions:
            cursor = await self.client.cursors.get("s", partition.partition_id, "TRIM_HORIZON")
            while (page := await self.client.records.get(cursor)).records:
                found += [record.data for record in page.records]
                cursor = page.next_cursor
        return found


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    engine = MemoryEngine()
    await engine.start()
    world.network = Slow(App(engine, ServerConfig(data_dir=None)))
    async with Client(world.network, "demo", ClientConfig()) as world.client:
        await world.client.streams.create("s", partitions=4)
        yield world
    await engine.close()


async def test_started_and_closed_in_different_tasks(world: World) -> None:
    """start, send and close each from a task of its own, closed twice, then refusing with a clear error."""
    producer = world.producer()
    with pytest.raises(ClosedError, match="not started"):
        await producer.send(b"early")
    await asyncio.create_task(producer.start())
    delivery = await asyncio.create_task(producer.send(b"x", key="k"))
    await asyncio.create_task(producer.close())
    await producer.close()
    assert (await delivery).attempts == 1
    for attempt in (producer.send(b"late"), producer.send_many([(b"late", None)]), producer.flush()):
        with pytest.raises(ClosedError, match="is closed"):
            await attempt
    with pytest.raises(ClosedError, match="is closed"):
        producer.try_send(b"late")


async def test_a_stream_that_does_not_exist_fails_the_start(world: World) -> None:
    """start() raises what the service says, and leaves nothing behind."""
    producer = Producer(world.client, "nowhere")
    with pytest.raises(NotFoundError, match="nowhere"):
        await producer.start()
    await producer.close()
    assert not [task for task in asyncio.all_tasks() if "producer" in task.get_name()]


async def test_every_kind_of_send_arrives(world: World) -> None:
    """send, try_send, send_and_wait and send_many with key, partition, hash key and timestamp all arrive as told."""
    async with world.producer() as producer:
        first = await (await producer.send("größer", key="k"))
        again = await producer.send_and_wait(bytearray(b"ba"), key="k")
        assert again.partition_id == first.partition_id
        assert again.sequence_number == first.sequence_number + 1
        placed = await producer.send_and_wait(memoryview(b"mv"), partition_id=2)
        hashed = await producer.try_send(b"h", explicit_hash_key=2**63 - 1, timestamp=17)
        many = await producer.send_many([(b"1", "k"), (b"2", None), NewRecord(b"3", partition_id="shardId-0000000001")])
        receipts = await many
    assert placed.partition_id == "shardId-0000000002"
    assert hashed.partition_id == "shardId-0000000003"
    assert receipts[2].partition_id == "shardId-0000000001"
    assert receipts[0].sequence_number > again.sequence_number
    assert len(list(receipts)) == len(receipts) == len(many) == 3
    assert sorted(await world.stored()) == sorted(["größer".encode(), b"ba", b"mv", b"h", b"1", b"2", b"3"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"data": 5}, "data is of type int"),
        ({"data": b"", "key": ""}, "key=''"),
        ({"data": b"", "key": 5}, "key=5 is of type int"),
        ({"data": b"", "key": 0}, "key=0 is of type int"),
        ({"data": b"", "key": ["k"]}, "key=.*is of type list"),
        ({"data": b"", "key": "\ud800"}, "cannot be sent as UTF-8"),
        ({"data": b"", "key": "\ud800", "partition_id": 0}, "cannot be sent as UTF-8"),
        ({"data": "\ud800"}, "cannot be sent as UTF-8"),
        ({"data": b"", "partition_id": "first"}, "partition_id='first'"),
        ({"data": b"", "partition_id": 1.5}, "partition_id=1.5"),
        ({"data": b"", "explicit_hash_key": 10**5000}, "explicit_hash_key=that"),
        ({"data": b"", "timestamp": 2**63}, "timestamp=9223372036854775808"),
        ({"data": b"x" * 1_048_577}, "1048577 bytes"),
        ({"data": b"", "partition_id": "shardId-9"}, "partition_id='shardId-9'"),
        ({"data": b"", "explicit_hash_key": "far"}, "explicit_hash_key='far'"),
        ({"data": b"", "explicit_hash_key": 2**63}, "explicit_hash_key=9223372036854775808"),
        ({"data": b"", "timestamp": -1}, "timestamp=-1"),
    ],
)
async def test_what_the_service_would_refuse_is_not_accepted(
    world: World, arguments: dict[str, object], told: str
) -> None:
    """A bad record raises ConfigError naming the value, before anything is accepted; the next one is fine."""
    async with world.producer() as producer:
        with pytest.raises(ConfigError, match=told):
            await producer.send(**arguments)  # type: ignore[arg-type]
        with pytest.raises(ConfigError):
            producer.try_send(**arguments)  # type: ignore[arg-type]
        await producer.send_and_wait(b"fine")
        assert producer.stats().accepted == 1
        assert producer.stats().buffered_bytes == 0


class Text(str):
    """A string of a subclass, as enums and numpy have them."""


async def test_strings_of_a_subclass_are_text(world: World) -> None:
    """A key, partition id or payload of a str subclass is what it says; nobody else's record suffers."""
    async with world.producer() as producer:
        deliveries = [
            await producer.send(Text("1"), key=Text("k")),
            await producer.send(b"2", partition_id=Text("1")),
            await producer.send(b"3", key="k"),
        ]
        deliveries.append(await producer.send_many([(Text("4"), Text("k")), (b"5", "k")]))  # type: ignore[arg-type]
        for delivery in deliveries:
            await delivery
    assert sorted(await world.stored()) == [b"1", b"2", b"3", b"4", b"5"]


async def test_a_record_that_cannot_be_encoded_is_rejected_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should a record slip through the checks that no body can carry, only it is rejected and the producer goes on."""
    monkeypatch.setattr("disstream.wire.columns.encode_columns", encode_or_fail)
    async with world.producer() as producer:
        deliveries = [await producer.send(b"bad" if i == 5 else b"%d" % i, key="k") for i in range(10)]
        ends = [await end_of(delivery) for delivery in deliveries]
    assert [type(end) for end in ends] == [Receipt] * 5 + [RecordRejected] + [Receipt] * 4
    assert len(await world.stored()) == 9


def encode_or_fail(stream: str, records: Sequence[NewRecord]) -> bytes:
    if any(record.data == b"bad" for record in records):
        raise TypeError("no body for this")
    body = encode_columns(stream, records)
    assert body is not None
    return body


async def test_an_outage_is_logged_once_and_its_end_too(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Failing puts are warned of once per streak, and the first answer after them is told."""
    caplog.set_level("INFO", logger="disstream.producer")
    broken = Broken(world.network)
    async with Client(broken, "demo", ClientConfig()) as client, Producer(client, "s", FAST) as producer:
        for _ in range(2):
            broken.failures = 3
            await producer.send_and_wait(b"x", key="k")
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    told = [(level, message.split(" stream=")[0]) for level, message in lines]
    warning = ("WARNING", "puts fail and are tried again until delivery_timeout_s=120")
    assert told == [warning, ("INFO", "puts are answered again")] * 2
    assert "cut off" in lines[0][1]


FAST = ProducerConfig(retry_base_s=0.001, retry_max_s=0.001)


class Broken:
    """A transport whose next `failures` puts are cut off."""

    def __init__(self, inner: Slow) -> None:
        self._inner = inner
        self.failures = 0

    async def exchange(self, request: Request) -> Response:
        if request.method == "POST" and self.failures:
            self.failures -= 1
            raise TransportError("cut off", outcome_unknown=False)
        return await self._inner.exchange(request)

    async def close(self) -> None:
        pass


async def test_what_is_given_up_at_close_tells_the_last_error(world: World) -> None:
    """A record given up by close names what its attempts met, not only that somebody closed."""
    broken = Broken(world.network)
    broken.failures = 1_000_000
    async with Client(broken, "demo", ClientConfig()) as client:
        producer = await Producer(client, "s", ProducerConfig(close_timeout_s=0.0)).start()
        delivery = await producer.send(b"x", key="k")
        while producer.stats().requests == 0:
            await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        waiting = asyncio.ensure_future(end_of(delivery))
        await anyio.lowlevel.checkpoint()
        await producer.close()
        assert "cut off" in str(await waiting)


async def test_what_is_printed_of_deliveries_can_be_read(world: World) -> None:
    """The repr of deliveries and receipts tells their state, not addresses."""
    async with world.producer() as producer:
        batch = await producer.send_many([(b"x", "k")] * 5)
        delivery = await producer.send(b"x", key="k")
        assert repr(delivery) == "<Delivery: under way>"
        assert repr(batch) == "<BatchDelivery of 5: under way>"
        receipts = await batch
        await delivery
        assert repr(delivery) == "<Delivery: settled>"
        assert repr(receipts).startswith("Receipts([Receipt(partition_id='shardId-")
        assert repr(receipts).endswith(", ...], 5 in all)")


async def test_a_client_closed_first_stores_nothing_more(world: World) -> None:
    """If the client closes under the producer, what was never sent is "not stored", and close says so as one error."""
    client = await Client(world.network, "demo", ClientConfig()).start()
    producer = await Producer(client, "s", ProducerConfig(linger_s=0.5)).start()
    watched = await producer.send(b"1", key="k")
    await producer.send(b"2", key="k")
    client._supervisor._closing.set()  # type: ignore[union-attr]  # closed, but for the transport that others share
    with pytest.raises(NotStored, match="the client was closed before its producer"):
        await watched
    with pytest.raises(Undelivered) as caught:
        await producer.close()
    assert caught.value.report == {"not stored (closed)": 1}
    await client.abort()


async def test_closing_before_the_start_changes_nothing(world: World) -> None:
    """close() of a producer that never started is nothing: it can still be started and used."""
    producer = world.producer()
    await producer.close()
    await producer.abort()
    await producer.start()
    await producer.send_and_wait(b"x")
    await producer.close()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_batch_records", 1.5),
        ("max_batch_records", 0),
        ("buffer_bytes", float("nan")),
        ("linger_s", -1.0),
        ("linger_s", float("nan")),
        ("delivery_timeout_s", float("inf")),
        ("delivery_timeout_s", 0.0),
        ("order", "keys"),
        ("max_batch_bytes", 1 << 40),
    ],
)
def test_a_bad_option_is_named(option: str, value: object) -> None:
    """An option out of its range raises ConfigError that names it and its value."""
    with pytest.raises(ConfigError, match=option):
        ProducerConfig(**{option: value})  # type: ignore[arg-type]


async def test_a_failure_whose_waiter_was_cancelled_is_not_forgotten(world: World) -> None:
    """Who is cancelled in the moment the end comes has not seen it: it counts as undelivered."""
    producer = await world.producer(close_timeout_s=0.0).start()
    world.network.go = anyio.Event()
    delivery = await producer.send(b"x", key="k")
    waiting = asyncio.ensure_future(receipt_of(delivery))
    await anyio.lowlevel.checkpoint()
    producer._core.abandon("test")
    assert delivery.done()
    waiting.cancel()
    with pytest.raises(Undelivered) as caught:
        await producer.close()
    assert sum(caught.value.report.values()) == 1
    assert waiting.cancelled()


async def test_send_many_is_all_or_none(world: World) -> None:
    """One bad record, or no room: none of the batch was accepted."""
    async with world.producer(buffer_bytes=10_000, max_batch_bytes=10_000, send_timeout_s=0.01) as producer:
        for bad in ((b"2", ""), (b"2", ["k"]), (b"2",), (5, "k"), b"2"):
            with pytest.raises(ConfigError):
                await producer.send_many([(b"1", "k"), bad])  # type: ignore[list-item]
        with pytest.raises(BufferFull, match="can never fit"):
            await producer.send_many([(b"x" * 1000, "k")] * 20)
        assert producer.stats().accepted == 0
        assert len(await (await producer.send_many([]))) == 0
    assert await world.stored() == []


async def test_a_delivery_can_be_awaited_often_and_a_cancelled_wait_touches_nothing(world: World) -> None:
    """Waits time out and are cancelled without the record noticing; later waits, also two at once, get the receipt."""
    async with world.producer() as producer:
        world.network.go = anyio.Event()
        delivery = await producer.send(b"x", key="k")
        batch = await producer.send_many([(b"y", "k"), (b"z", "other")])
        for wait in (delivery, batch):
            with anyio.move_on_after(0.01) as scope:
                await wait
            assert scope.cancelled_caught
        assert not delivery.done()
        assert not batch.done()
        waits = [asyncio.ensure_future(receipt_of(delivery)) for _ in range(3)]
        await anyio.lowlevel.checkpoint()
        waits[0].cancel()
        world.network.go.set()
        receipts = await asyncio.gather(*waits[1:])
        assert receipts[0] == receipts[1] == await delivery
        assert delivery.done()
        assert len(await batch) == 2
        assert batch.done()


async def test_flush_waits_for_what_was_accepted_and_does_not_linger(world: World) -> None:
    """flush returns when everything accepted before is settled, however long the linger."""
    async with world.producer(linger_s=60.0) as producer:
        deliveries = [await producer.send(b"%d" % i, key=f"k{i}") for i in range(20)]
        await producer.flush()
        assert all(delivery.done() for delivery in deliveries)
        assert producer.stats().waiting == 0


async def test_try_send_never_waits(world: World) -> None:
    """A full buffer: try_send raises BufferFull naming the partition, send waits, and goes on when room comes."""
    async with world.producer(buffer_bytes=1_000, max_batch_bytes=1_000) as producer:
        world.network.go = anyio.Event()
        accepted = [await producer.send(b"x" * 100, key="k") for _ in range(3)]
        with pytest.raises(BufferFull, match=r"a record for shardId-000000000\d of 's'"):
            producer.try_send(b"x" * 100, key="k")
        waiting = asyncio.ensure_future(producer.send(b"x" * 100, key="k"))
        await anyio.lowlevel.checkpoint()
        assert not waiting.done()
        world.network.go.set()
        await (await waiting)
        assert all(delivery.done() for delivery in accepted)


async def test_close_while_a_send_waits_for_room(world: World) -> None:
    """A send that waits for room when the producer closes raises ClosedError; what was accepted is stored."""
    producer = await world.producer(buffer_bytes=1_000, max_batch_bytes=1_000).start()
    world.network.go = anyio.Event()
    accepted = [await producer.send(b"x" * 100, key="k") for _ in range(3)]
    waiting = asyncio.ensure_future(producer.send(b"x" * 100, key="k"))
    await anyio.lowlevel.checkpoint()
    closing = asyncio.ensure_future(producer.close())
    with pytest.raises(ClosedError):
        await waiting
    world.network.go.set()
    await closing
    assert [(await delivery).attempts for delivery in accepted] == [1, 1, 1]


def test_cancelled_at_every_step_nothing_is_lost() -> None:
    """Cancel the sending task after its k-th step, for every k: each accepted record still has one true end."""

    async def main(steps: int) -> bool:
        world = World()
        engine = MemoryEngine()
        await engine.start()
        world.network = Slow(App(engine, ServerConfig(data_dir=None)))
        async with Client(world.network, "demo", ClientConfig()) as world.client:
            await world.client.streams.create("s", partitions=4)
            accepted: list[Delivery] = []

            async def work() -> None:
                async with world.producer(max_batch_records=3, buffer_bytes=2_000, max_batch_bytes=2_000) as producer:
                    for i in range(12):
                        accepted.append(await producer.send(b"%d" % i, key=f"k{i % 3}"))
                    await producer.flush()

            task = asyncio.ensure_future(work())
            for _ in range(steps):
                if task.done():
                    break
                await asyncio.sleep(0)
            finished = task.done()
            task.cancel()
            await asyncio.wait({task})
            await world.network.settle()
            ends = [await end_of(delivery) for delivery in accepted]
            stored = await world.stored()
            for number, end in enumerate(ends):
                if isinstance(end, Receipt):
                    assert b"%d" % number in stored
                elif isinstance(end, NotStored):
                    assert b"%d" % number not in stored
        await engine.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others, f"left behind: {others}"
        return finished

    steps = 0
    while not run_simulated(partial(main, steps)):
        steps += 1
    assert steps > 20


async def receipt_of(delivery: Delivery) -> Receipt:
    return await delivery


async def end_of(delivery: Delivery) -> Receipt | DeliveryFailed:
    try:
        return await delivery
    except DeliveryFailed as exc:
        return exc
