"""The blocking producer: what threads send arrives once, in their order, within bounds, and with a truthful end."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest
from blocking_world import Gate, run
from paced_world import keys_of

import disstream
from disstream import blocking
from disstream.blocking.staging import CHUNK_RECORDS
from disstream.errors import (
    BufferFull,
    ClosedError,
    ConfigError,
    DeliveryFailed,
    DeliveryUnknown,
    NotFoundError,
    NotStored,
    RecordRejected,
    Undelivered,
    WaitTimeout,
)
from disstream.model import NewRecord
from disstream.producer import Envelope, ProducerConfig, Receipt
from disstream.server import Server
from disstream.wire.http import Request, Response


class World:
    """A server with a stream of 2 partitions, and a blocking client to it through a gate."""

    def __init__(self, server: Server, gate: Gate) -> None:
        self.gate = gate
        self.dis = blocking.connect(transport=gate, project_id="demo")

    def producer(self, **options: Any) -> blocking.Producer:
        return self.dis.producer("orders", ProducerConfig(**options))

    def stored(self, stream: str = "orders") -> list[list[bytes]]:
        """What each partition holds."""
        found = []
        for partition in self.dis.streams.describe(stream).partitions:
            cursor = self.dis.cursors.get(stream, partition.partition_id, "TRIM_HORIZON")
            held: list[bytes] = []
            while (page := self.dis.records.get(cursor)).records:
                held += [record.data for record in page.records]
                cursor = page.next_cursor
            found.append(held)
        return found


@pytest.fixture
def world(disstream_server: Server) -> Iterator[World]:
    world = World(disstream_server, Gate(disstream_server.url))
    with world.dis:
        world.dis.streams.create("orders", partitions=2)
        yield world


def started(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call)
    thread.start()
    return thread


def test_a_record_and_its_receipt(world: World) -> None:
    """send gives a delivery whose result is the receipt, as often as asked, from any thread, and after closing."""
    with world.producer() as producer:
        delivery = producer.send(b"x", key="k")
        receipt = delivery.result()
        assert receipt == Receipt(receipt.partition_id, 0)
        assert delivery.done()
        assert repr(delivery) == "<Delivery: settled>"
        assert producer.send_and_wait("text", key="k") == Receipt(receipt.partition_id, 1)
        assert producer.try_send(bytearray(b"y"), key="k").result(10) == Receipt(receipt.partition_id, 2)
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(lambda _: delivery.result().sequence_number, range(20))) == {0}
        unasked = producer.send(memoryview(b"z"), key="k")
    world.dis.close()
    assert unasked.done()
    assert [d.result().sequence_number for d in (delivery, unasked)] == [0, 3]
    assert producer.stats().stored == 4


def test_many_at_once(world: World) -> None:
    """send_many takes any iterable, also one that sends itself, and its receipts are in the order given."""
    with world.producer() as producer:

        def records() -> Iterator[tuple[str, str]]:
            for i in range(100):
                producer.send(f"before {i}", key="other")
                yield f"{i}", f"key {i % 7}"

        batch = producer.send_many(records())
        receipts = batch.result(10)
        assert batch.done()
        assert (len(batch), len(receipts)) == (100, 100)
        assert [r.attempts for r in receipts] == [1] * 100
        again = producer.send_many([NewRecord(b"x", "key 3"), (b"y", None)])
        first = again.result()[0]
    assert again.result()[0] == first
    assert first.partition_id == receipts[3].partition_id
    stored = world.stored()
    assert sum(map(len, stored)) == 202
    index = int(receipts[99].partition_id.removeprefix("shardId-"))
    assert stored[index][receipts[99].sequence_number] == b"99"


def test_the_order_of_a_thread_is_kept(world: World) -> None:
    """Each of four threads mixes all ways to send; what it sent to a key is stored in the order of its calls."""
    rounds = 40

    def work(producer: blocking.Producer, name: str) -> None:
        number = iter(range(1_000_000))

        def data() -> bytes:
            return f"{name} {next(number)}".encode()

        for i in range(rounds):
            for _ in range(40):
                producer.send(data(), key=name)
            producer.send_many([(data(), name), (data(), name)])
            producer.send(data(), key=name, timestamp=i)
            last = data()
            try:
                producer.try_send(last, key=name)
            except BufferFull:
                producer.send(last, key=name)
            if i % 10 == 0:
                producer.send_and_wait(data(), key=name)

    with world.producer(buffer_bytes=200_000, max_batch_records=100, max_batch_bytes=100_000) as producer:
        threads = [started(lambda name=name: work(producer, name)) for name in "abcd"]  # type: ignore[misc]
        for thread in threads:
            thread.join(30)
    assert producer.stats().stored == 4 * (rounds * 44 + 4)
    for name in "abcd":
        (held,) = filter(None, ([d for d in held if d.startswith(name.encode())] for held in world.stored()))
        assert held == [f"{name} {i}".encode() for i in range(rounds * 44 + 4)]


def test_what_the_service_would_refuse_is_refused_in_the_call(world: World) -> None:
    """ConfigError comes from the call that was wrong, whichever way it went, and nothing was accepted."""
    with world.producer() as producer:
        for wrong in (
            lambda: producer.send(7),
            lambda: producer.send(b"x", key=""),
            lambda: producer.send(b"x", key=7),  # type: ignore[arg-type]
            lambda: producer.send(b"x", key=[]),  # type: ignore[arg-type]
            lambda: producer.send("\ud800"),
            lambda: producer.send(bytes(1_048_577)),
            lambda: producer.send(b"x", partition_id="shardId-0000000007"),
            lambda: producer.try_send(b"x", timestamp=-1),
            lambda: producer.send_many([(b"x", "k"), (b"y", "")]),
            lambda: producer.send_many([b"x"]),  # type: ignore[list-item]
        ):
            with pytest.raises(ConfigError):
                wrong()
        assert producer.stats().accepted == 0
        producer.send(bytes(1_048_576), key="the largest").result()
    with pytest.raises(NotFoundError):
        world.dis.producer("nowhere").start()
    with pytest.raises(ConfigError, match="takes a ProducerConfig"):
        world.dis.producer("orders", {"linger_s": 1})  # type: ignore[arg-type]


def test_a_full_buffer_makes_send_wait_and_then_raise(world: World) -> None:
    """With the service held, senders stop at buffer_bytes; BufferFull comes at send_timeout_s; the rest is stored."""
    accepted: list[blocking.Delivery] = []
    size = 100_000
    world.dis.streams.create("single", partitions=1)  # which may hold all of it
    config = ProducerConfig(buffer_bytes=size, max_batch_bytes=10_000, send_timeout_s=0.05)
    with world.dis.producer("single", config) as producer:
        with world.gate.closed():
            with pytest.raises(BufferFull, match="no room within"):  # noqa: PT012
                while True:
                    accepted.append(producer.send(bytes(100), key="k"))
            full = producer.stats()
            with pytest.raises(BufferFull):
                producer.try_send(bytes(100), key="k")
            with pytest.raises(BufferFull):
                producer.send_many([(bytes(100), "k")])
            assert full.buffered_bytes <= size < full.buffered_bytes + 301
            assert full.accepted == len(accepted)
            with pytest.raises(WaitTimeout, match="no end"):
                accepted[0].result(0.01)
        assert [d.result().sequence_number for d in accepted] == list(range(len(accepted)))


def test_who_waits_for_room_goes_on_when_there_is_some(world: World) -> None:
    """Threads blocked in send go on once the service answers, and a thread in send_many too; all are stored."""
    each = 2_000

    def work(key: str) -> None:
        for i in range(each):
            producer.send(f"{key} {i}", key=key)
        producer.send_many([(b"last", key)] * 100).result()

    with world.producer(buffer_bytes=100_000, max_batch_bytes=50_000) as producer:
        with world.gate.closed():
            threads = [started(lambda key=key: work(key)) for key in ("a", "b")]  # type: ignore[misc]
            assert world.gate.waiting.wait(10)
        for thread in threads:
            thread.join(30)
    assert producer.stats().stored == 2 * (each + 100)
    for key in ("a", "b"):
        assert [d for part in world.stored() for d in part if d.startswith(key.encode())] == [
            f"{key} {i}".encode() for i in range(each)
        ]


def test_a_chunk_is_bounded(world: World) -> None:
    """However fast a thread sends, it waits for the loop after a chunk: what is staged never grows beyond it."""
    with world.producer() as producer:
        inner = producer._inner
        largest = 0
        for i in range(5 * CHUNK_RECORDS):
            producer.send(b"x", key=str(i % 10))
            largest = max(largest, len(inner._chunk.rows))
        assert largest <= CHUNK_RECORDS
        producer.flush()
        assert producer.stats().stored == 5 * CHUNK_RECORDS


def test_a_stuck_partition_does_not_stop_the_others(world: World) -> None:
    """Its keys are refused at its share of the buffer, known ones and new ones; other keys are stored."""
    fresh, (fine, *_) = keys_of(2, 4_000)
    stuck = fresh[0]
    options = {"buffer_bytes": 400_000, "max_batch_bytes": 20_000, "max_batch_records": 50, "send_timeout_s": 0.05}
    for keys in ([stuck] * len(fresh), fresh):
        with world.producer(**options) as producer:
            producer.send_many([(b"", stuck), (b"", fine)]).result()
            with world.gate.closed(), pytest.raises(BufferFull, match="so that it does not stop the others"):  # noqa: PT012
                for key in keys:
                    producer.send(bytes(100), key=key)
            with world.gate.closed():
                held = producer.stats().buffered_bytes
                assert held < 300_000, keys[:2]
                others = [producer.send(bytes(100), key=fine) for _ in range(100)]
            assert [delivery.result(10).attempts for delivery in others] == [1] * 100


def test_any_value_goes_through_the_serializer_where_it_is_sent(world: World) -> None:
    """Once for each record, in the thread that sends, whichever way it goes; what it raises the call raises."""
    calls: list[tuple[int, object]] = []

    def serialize(value: object) -> bytes:
        calls.append((threading.get_ident(), value))
        return disstream.json(value)

    with world.dis.producer("orders", serializer=serialize) as producer:
        for i in range(CHUNK_RECORDS + 10):  # more than is staged at once
            producer.send({"i": i}, key="k")
        producer.try_send(["try"], key="k")
        producer.send("routed", partition_id=0)
        producer.send_and_wait(None, key="k")
        producer.send_many([({"many": 1}, "k"), NewRecord({"many": 2}, "k")]).result()  # type: ignore[arg-type]
        count = CHUNK_RECORDS + 15
        assert (len(calls), {thread for thread, _ in calls}) == (count, {threading.get_ident()})
        for call in (producer.send, producer.try_send, producer.send_and_wait):
            with pytest.raises(ConfigError, match="object"):
                call(object())
        with pytest.raises(ConfigError, match="object"):
            producer.send_many([({}, "k"), (object(), "k")])
        assert producer.stats().accepted == count
    with world.dis.consumer("orders") as consumer:
        found = [next(consumer) for _ in range(count)]
    assert [r.json() for r in found if r.key == "k"] == [
        *({"i": i} for i in range(CHUNK_RECORDS + 10)),
        ["try"],
        None,
        {"many": 1},
        {"many": 2},
    ]


def test_a_trace_is_that_of_the_thread_that_sends(world: World) -> None:
    """Asked in the caller's context, with a serializer beside it; given headers win; outside of a trace none are."""
    parent: ContextVar[str | None] = ContextVar("parent", default=None)
    config = ProducerConfig(envelope=Envelope(trace=parent.get), serializer=disstream.json)
    with world.dis.producer("orders", config) as producer:
        producer.send(0, key="k")

        def work() -> None:
            parent.set("00-1-2-01")
            producer.send(1, key="k")
            producer.try_send(2, key="k", headers={"a": "b"})
            producer.send_and_wait(3, key="k", headers={"traceparent": "mine"})
            producer.send_many([(4, "k")])

        started(work).join(10)
        producer.send(5, key="k")
    with world.dis.consumer("orders") as consumer:
        found = [next(consumer) for _ in range(6)]
    traced = {"traceparent": "00-1-2-01"}
    assert [(r.json(), r.headers) for r in found] == [
        (0, None),
        (1, traced),
        (2, {**traced, "a": "b"}),
        (3, {"traceparent": "mine"}),
        (4, traced),
        (5, None),
    ]


class Refusing(Gate):
    """A service that refuses records, or takes them and does not say so."""

    refuse = False
    cut = False

    async def exchange(self, request: Request) -> Response:
        response = await super().exchange(request)
        if request.method == "POST" and request.target.endswith("/records"):
            if self.refuse:
                return Response(status=400, body=b'{"errorCode":"DIS.4200","message":"no"}')
            if self.cut:
                return Response(status=502)
        return response


def test_ends_keep_their_types(disstream_server: Server) -> None:
    """Each end is raised by result with its type, as often as asked; leaving raises Undelivered for the others."""
    service = Refusing(disstream_server.url)
    config = ProducerConfig(delivery_timeout_s=0.3, retry_base_s=0.01, retry_max_s=0.01)
    with blocking.connect(transport=service, project_id="demo") as dis:
        dis.streams.create("orders", partitions=1)
        with dis.producer("orders", config) as producer:
            service.refuse = True
            delivery = producer.send(b"x", key="k")
            for _ in range(2):
                with pytest.raises(RecordRejected, match=r"DIS\.4200"):
                    delivery.result()
            with pytest.raises(DeliveryFailed, match="1 of 1"):
                producer.send_many([(b"x", "k")]).result()
            service.refuse, service.cut = False, True
            with pytest.raises(DeliveryUnknown):
                producer.send(b"x", key="k").result()
        with pytest.raises(Undelivered, match=r"1 x unknown"), dis.producer("orders", config) as producer:  # noqa: PT012
            looked_at = producer.send(b"x", key="k")
            producer.flush()
            producer.send(b"y", key="k")
            with pytest.raises(DeliveryUnknown):
                looked_at.result()
        with pytest.raises(ZeroDivisionError), dis.producer("orders", config) as producer:  # noqa: PT012
            producer.send(b"x", key="k")
            raise ZeroDivisionError


def test_abort_ends_what_was_not_sent(world: World) -> None:
    """abort gives every record its end at once: what waited is not stored, what was on the wire unknown."""
    with world.gate.closed():
        producer = world.producer(max_batch_records=10).start()
        deliveries = [producer.send(b"x", key="k") for _ in range(30)]
        world.gate.waiting.wait(10)
        producer.abort()
        assert all(delivery.done() for delivery in deliveries)
    with pytest.raises(DeliveryUnknown):
        deliveries[0].result()
    with pytest.raises(NotStored, match="closed"):
        deliveries[-1].result()
    for call in (lambda: producer.send(b"x"), lambda: producer.send_many([(b"x", "k")]), producer.flush):
        with pytest.raises(ClosedError):
            call()
    producer.close()


def test_closing_while_others_send(world: World) -> None:
    """Threads that send until they are told that it is closed: each record they were given a delivery for is stored."""
    for _ in range(5):
        accepted: list[blocking.Delivery] = []
        producer = world.producer().start()
        going = threading.Event()

        def work(
            producer: blocking.Producer = producer, accepted: list[blocking.Delivery] = accepted, go: Any = going
        ) -> None:
            with pytest.raises(ClosedError):  # noqa: PT012
                while True:
                    accepted.append(producer.send(b"x", key="k"))
                    if len(accepted) > 500:
                        go.set()

        threads = [started(work) for _ in range(3)]
        going.wait(10)
        producer.close()
        for thread in threads:
            thread.join(10)
        assert producer.stats().stored == len(accepted)
        assert all(delivery.result().attempts == 1 for delivery in accepted)


def test_a_producer_whose_client_died(world: World) -> None:
    """Under a client that was ended behind its back a producer takes nothing; what was staged is told as not stored."""
    producer = world.producer().start()
    world.dis._portal.call(world.dis._inner.abort())
    with pytest.raises(NotStored):
        producer.send(b"x", key="k").result()
    with pytest.raises(ClosedError):
        producer.send(b"y", key="k")
    with pytest.raises(ClosedError):
        producer.flush()


def test_closing_the_client_closes_its_producers(disstream_server: Server) -> None:
    """Producers left open are drained by the client's end, which raises an Undelivered, and ends all the same."""
    service = Refusing(disstream_server.url)
    before = set(threading.enumerate())
    dis = blocking.connect(transport=service, project_id="demo").start()
    dis.streams.create("orders", partitions=1)
    good, bad, worse = (dis.producer("orders").start() for _ in range(3))
    delivery = good.send(b"x", key="k")
    good.flush()
    service.refuse = True
    bad.send(b"x", key="k")
    worse.send(b"x", key="k")
    with pytest.raises(Undelivered, match="rejected"):
        dis.close()
    dis.close()
    assert set(threading.enumerate()) == before
    assert [producer.stats().rejected for producer in (good, bad, worse)] == [0, 1, 1]
    assert delivery.result().sequence_number == 0


def test_ctrl_c_in_a_full_send_and_in_result(disstream_server: Server) -> None:
    """An interrupt ends a send that waits for room and a wait for a receipt; both records keep their ends; a second
    one cuts the closing short."""
    done = run(
        disstream_server,
        """
import asyncio
from disstream.client import ClientConfig, HttpTransport

class Held(HttpTransport):
    async def exchange(self, request):
        if request.method == "POST" and request.target.endswith("/records"):
            await asyncio.sleep(1e6)
        return await super().exchange(request)

config = ProducerConfig(buffer_bytes=1000, max_batch_bytes=1000, close_timeout_s=5.0)
with disstream.blocking.connect(transport=Held(url, ClientConfig()), project_id="demo") as dis:
    dis.streams.create("orders", partitions=1)
    try:
        with dis.producer("orders", config) as producer:
            delivery = producer.send(b"x", key="k")
            for wait in (delivery.result, lambda: [producer.send(b"y", key="k") for _ in range(10)]):
                try:
                    threading.Timer(0.1, interrupt).start()
                    wait()
                except KeyboardInterrupt:
                    print("interrupted", producer.stats().waiting >= 1)
            threading.Timer(0.1, interrupt).start()
    except KeyboardInterrupt:
        print("closing was interrupted", delivery.done(), producer.stats().waiting)
""",
    )
    assert done.stdout.splitlines() == ["interrupted True"] * 2 + ["closing was interrupted True 0"]
    assert done.returncode == 0
    assert sum(map(int, re.findall(r"undelivered records stream=orders count=(\d+)", done.stderr))) == 6
