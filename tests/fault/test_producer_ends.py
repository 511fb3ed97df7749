"""Proves the four ends: whatever the service does and however the producer is left, each record gets one, in time."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.client import Client, ClientConfig
from disstream.engine.memory import MemoryEngine
from disstream.errors import (
    ClosedError,
    DeliveryFailed,
    DeliveryUnknown,
    FailedRecord,
    NotStored,
    RecordRejected,
    Undelivered,
)
from disstream.producer import BatchDelivery, Delivery, Producer, ProducerConfig, Receipt
from disstream.producer.outcome import Answer, Batch, Failure, Ledger
from disstream.producer.traffic import Traffic
from disstream.server import App, ServerConfig
from disstream.testing.clock import run_simulated
from disstream.testing.network import AppTransport
from disstream.wire.columns import NewColumns
from disstream.wire.http import Request, Response

MARGIN_S = 0.2
"""How long after delivery_timeout_s an end may come: two rounds of the sweep, and the grace of an attempt."""

End = Receipt | DeliveryFailed


class Strange(AppTransport):
    """Answers puts in a way of its own."""

    def __init__(self, app: App, way: str) -> None:
        super().__init__(app, latency_s=0.002)
        self.way = way
        self.puts = 0

    async def exchange(self, request: Request) -> Response:
        if request.method != "POST":
            return await super().exchange(request)
        self.puts += 1
        way = self.way if self.way != "mixed" else ("well", "well", "500", "partly")[self.puts % 4]
        match way:
            case "500" | "404" | "413" | "429":
                return Response(status=int(way), headers={}, body=b"nothing to read")
            case "black hole":
                await anyio.sleep_forever()  # whatever time-out the request names
            case "raises":
                raise RuntimeError("a transport with a bug")
            case "garbage":
                return Response(status=200, headers={}, body=b"\x00garbage")
            case "no records":
                return Response(status=200, headers={}, body=b'{"failed_record_count":0,"records":[]}')
            case "partly":
                answer = await super().exchange(request)
                return Response(status=200, headers=answer.headers, body=answer.body[: len(answer.body) // 2])
        return await super().exchange(request)


WAYS = ["well", "500", "404", "413", "429", "black hole", "raises", "garbage", "no records", "mixed"]


class Ends:
    """The records of one run and when they got which end."""

    def __init__(self) -> None:
        self.deliveries: list[tuple[bytes, Delivery]] = []
        self.batches: list[tuple[list[bytes], BatchDelivery]] = []

    @property
    def accepted(self) -> int:
        return len(self.deliveries) + sum(len(data) for data, _ in self.batches)

    async def look(self) -> dict[bytes, End]:
        found: dict[bytes, End] = {}
        for data, delivery in self.deliveries:
            assert delivery.done(), f"{data!r} has no end"
            found[data] = await end_of(delivery)
            assert type(await end_of(delivery)) is type(found[data]), "the second look tells otherwise"
        for many, batch in self.batches:
            assert batch.done(), f"{many!r} have no end"
            try:
                results: tuple[object, ...] = tuple(await batch)
            except DeliveryFailed as exc:
                results = exc.results
            for data, result in zip(many, results, strict=True):
                assert isinstance(result, Receipt | DeliveryFailed)
                found[data] = result
        return found


async def end_of(delivery: Delivery) -> End:
    try:
        return await delivery
    except DeliveryFailed as exc:
        return exc


async def fill(producer: Producer, ends: Ends) -> None:
    """Send until the producer is gone: one by one and many at once, keyed and not."""
    number = 0
    try:
        while number < 60:
            for _ in range(6):
                data = b"%d" % number
                ends.deliveries.append((data, await producer.send(data, key=(None, "a", "b", "c")[number % 4])))
                number += 1
            many = [b"%d" % i for i in range(number, number + 6)]
            number += 6
            ends.batches.append((many, await producer.send_many([(data, f"k{data[-1]}") for data in many])))
            await anyio.sleep(0.01)
    except ClosedError:
        pass


# --- ways to leave a producer -------------------------------------------------------------------------------------

Leave = Callable[[Producer, Client, Ends], Awaitable[None]]


async def by_close(producer: Producer, client: Client, ends: Ends) -> None:
    await producer.start()
    await fill(producer, ends)
    await producer.close()


async def by_abort(producer: Producer, client: Client, ends: Ends) -> None:
    await producer.start()
    await fill(producer, ends)
    await producer.abort()


async def by_an_exception(producer: Producer, client: Client, ends: Ends) -> None:
    async def block() -> None:
        async with producer:
            await fill(producer, ends)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await block()


async def by_closing_the_client_first(producer: Producer, client: Client, ends: Ends) -> None:
    async with producer:
        await fill(producer, ends)
        await client.close()


async def by_aborting_the_client_first(producer: Producer, client: Client, ends: Ends) -> None:
    async with producer:
        await fill(producer, ends)
        await client.abort()


async def by_a_cancelled_group(producer: Producer, client: Client, ends: Ends) -> None:
    async with anyio.create_task_group() as tasks:

        async def work() -> None:
            async with producer:
                await fill(producer, ends)
                await anyio.sleep_forever()

        tasks.start_soon(work)
        await anyio.sleep(0.13)
        tasks.cancel_scope.cancel()


async def by_a_cancelled_close(producer: Producer, client: Client, ends: Ends) -> None:
    await producer.start()
    await fill(producer, ends)
    with anyio.move_on_after(0.01):
        await producer.close()


async def by_the_end_of_the_loop(producer: Producer, client: Client, ends: Ends) -> None:
    """What asyncio.run does in the end, also after a second Ctrl-C: every task is cancelled, once."""
    await producer.start()
    await fill(producer, ends)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def by_waiting(producer: Producer, client: Client, ends: Ends) -> None:
    """Not left before everything has its end by itself."""
    async with producer:
        await fill(producer, ends)
        await anyio.sleep(producer._config.delivery_timeout_s + MARGIN_S)
        if producer.stats().waiting:
            raise AssertionError(f"{producer.stats().waiting} records have no end in time")


LEAVES = [
    by_close,
    by_abort,
    by_an_exception,
    by_closing_the_client_first,
    by_aborting_the_client_first,
    by_a_cancelled_group,
    by_a_cancelled_close,
    by_the_end_of_the_loop,
    by_waiting,
]


@pytest.mark.parametrize("leave", LEAVES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("way", WAYS)
def test_each_record_has_one_true_end(way: str, leave: Leave, caplog: pytest.LogCaptureFixture) -> None:
    """However the service answers and the producer is left: one end each, in time, true to the log, and told."""
    caplog.set_level(logging.WARNING, logger="disstream.producer")

    async def main() -> None:
        engine = MemoryEngine()
        await engine.start()
        app = App(engine, ServerConfig(data_dir=None))
        async with Client(AppTransport(app), "demo", ClientConfig()) as direct:
            await direct.streams.create("s", partitions=3)
        network = Strange(app, way)
        client = await Client(network, "demo", ClientConfig(close_timeout_s=0.5)).start()
        config = ProducerConfig(
            max_batch_records=7,
            delivery_timeout_s=4.0,
            request_timeout_s=1.5,
            close_timeout_s=2.0,
            max_in_flight=2,
            retry_max_s=0.2,
        )
        producer = Producer(client, "s", config, rng=random.Random(1))
        ends = Ends()
        raised: BaseException | None = None
        try:
            await leave(producer, client, ends)
        except (Undelivered, RuntimeError, ExceptionGroup) as exc:  # a group: two requests met the bug at once
            raised = exc
        left = anyio.current_time()
        assert ends.accepted > 0
        stats = producer.stats()
        assert (stats.waiting, stats.in_flight, stats.buffered_bytes) == (0, 0, 0)
        found = await ends.look()
        assert stats.accepted == ends.accepted == len(found)
        kinds = Counter(type(end) for end in found.values())
        told = {
            Receipt: stats.stored,
            RecordRejected: stats.rejected,
            NotStored: stats.not_stored,
            DeliveryUnknown: stats.unknown,
        }
        assert kinds == Counter(told)
        assert left < 10.0
        # Nobody awaited anything before the producer was left: every failure must have been raised or logged.
        failed = stats.accepted - stats.stored
        if isinstance(raised, Undelivered):
            assert sum(raised.report.values()) == failed
            assert (raised.not_stored, raised.unknown, raised.rejected) == (
                stats.not_stored,
                stats.unknown,
                stats.rejected,
            )
            assert failed == 0 or raised.samples
        else:
            logged = [r.args for r in caplog.records if r.msg.startswith("undelivered records")]
            assert sum(a[1] for a in logged if isinstance(a, tuple)) == failed  # type: ignore[misc]
        await client.abort()
        await network.settle()
        async with Client(AppTransport(app), "demo", ClientConfig()) as direct:
            stored = await read_all(direct)
        for data, end in found.items():
            if isinstance(end, Receipt):
                assert data in stored
            elif not isinstance(end, DeliveryUnknown):
                assert data not in stored, f"{data!r} is stored, but: {end}"
        await engine.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_simulated(main)


async def read_all(client: Client) -> set[bytes]:
    stored: set[bytes] = set()
    for partition in (await client.streams.describe("s")).partitions:
        cursor = await client.cursors.get("s", partition.partition_id, "TRIM_HORIZON")
        while (page := await client.records.get(cursor)).records:
            stored |= {record.data for record in page.records}
            cursor = page.next_cursor
    return stored


# --- cancelled anywhere -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["mixed", "500", "well"])
@pytest.mark.parametrize("whom", ["the sender", "the closer", "everybody"])
def test_cancelled_at_every_step_each_record_has_one_true_end(way: str, whom: str) -> None:
    """Cancel the sender, the one who closes, or all tasks of the loop after the k-th step: one true end each."""

    async def main(steps: int) -> bool:
        engine = MemoryEngine()
        await engine.start()
        app = App(engine, ServerConfig(data_dir=None))
        network = Strange(app, way)
        async with Client(AppTransport(app), "demo", ClientConfig()) as direct:
            await direct.streams.create("s", partitions=2)
        client = await Client(network, "demo", ClientConfig()).start()
        config = ProducerConfig(max_batch_records=3, buffer_bytes=3_000, max_batch_bytes=3_000, delivery_timeout_s=1.0)
        producer = await Producer(client, "s", config, rng=random.Random(1)).start()
        ends = Ends()

        async def work() -> None:
            if whom == "the closer":
                ends.deliveries.extend([(b"%d" % i, producer.try_send(b"%d" % i, key="a")) for i in range(9)])
                await producer.close()
            else:
                await fill(producer, ends)
                await producer.flush()

        task = asyncio.ensure_future(work())
        for _ in range(steps):
            if task.done():
                break
            await asyncio.sleep(0)
        finished = task.done()
        cancelled = asyncio.all_tasks() - {asyncio.current_task()} if whom == "everybody" else {task}
        for other in cancelled:
            other.cancel()
        await asyncio.wait({task})
        await producer.abort()
        await client.abort()
        await network.settle()
        found = await ends.look()
        stats = producer.stats()
        assert (stats.waiting, stats.buffered_bytes) == (0, 0)
        assert stats.accepted >= len(found)  # a cancelled send_many may have been accepted and not told
        async with Client(AppTransport(app), "demo", ClientConfig()) as direct:
            stored = await read_all(direct)
        for data, end in found.items():
            assert isinstance(end, DeliveryUnknown) or isinstance(end, Receipt) == (data in stored)
        task.exception() if not task.cancelled() else None
        await engine.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return finished

    steps = 0
    while steps < 300 and not run_simulated(partial(main, steps)):
        steps += 1 if steps < 30 else 7  # the life repeats itself, in rounds that are no multiple of 7
    assert steps > 5


# --- answers that nobody should give ------------------------------------------------------------------------------

JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["7", "shardId-0000000000"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["records", "failed_record_count", "partition_id", "sequence_number", "error_code", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.one_of(
        st.binary(max_size=60),
        JSON_LIKE.map(msgspec.json.encode),
        st.binary(max_size=40).map(lambda junk: b'{"failed_record_count":0,"records":[' + junk + b"]}"),
    )
)
def test_a_receipt_can_be_had_from_any_answer(body: bytes) -> None:
    """What was taken for "all stored" gives a receipt for each record, however the places are told."""
    answer = Answer(body)
    for index in range(3):
        for attempts in (1, 2):
            assert isinstance(answer.receipt(index, attempts), Receipt)


def test_causes_and_samples_are_bounded() -> None:
    """A service that makes up a code for each record fills neither the report nor the memory; a look takes off."""
    ledger = Ledger()
    batch = Batch(0.0, 0.0, 1.0, ledger, Traffic(0, None))
    batch.rows = NewColumns([b"x"] * 1000, ["k"] * 1000)
    for i in range(1000):
        code = f"DIS.{i}" + "9" * 1000
        cause = batch.settle(i, Failure("rejected", code, "no"))
        assert cause is not None
        assert len(cause) < 60
        if ledger.lacks_samples(cause):
            ledger.sample(batch, i, FailedRecord(cause, "", "k", "no"))
    assert len(ledger.report()) <= 51
    assert sum(ledger.report().values()) == 1000
    assert len(ledger.samples()) <= 51 * 3
    for i in range(1000):
        batch.end(i)
    assert (ledger.report(), ledger.samples()) == ({}, [])
