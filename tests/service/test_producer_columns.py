"""A producer sends columns where they are read, JSON where they are not, and nothing is lost between the two."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import anyio
import pytest

from disstream.client import Client, ClientConfig
from disstream.client.config import Body
from disstream.engine.memory import MemoryEngine
from disstream.errors import RecordRejected
from disstream.model import NewRecord, Record
from disstream.producer import Envelope, Producer, ProducerConfig
from disstream.server import App, ServerConfig
from disstream.testing.clock import run_simulated
from disstream.testing.network import AppTransport, FaultPlan, FaultyTransport
from disstream.wire.columns import COLUMNS
from disstream.wire.compression import COMPRESSIONS, Compression
from disstream.wire.envelope import unwrap
from disstream.wire.http import JSON, PROTOBUF, Request, Response
from disstream.wire.partitioning import HashRouter, hash_key, hash_ranges

LATENCY_S = 0.01


class Endpoint(AppTransport):
    """A server of the present version, or of one that has never heard of columns: it takes every body for JSON."""

    def __init__(self, app: App) -> None:
        super().__init__(app, latency_s=LATENCY_S)
        self.puts: list[Request] = []
        self.knows_columns = True
        self.tells_columns = True

    async def exchange(self, request: Request) -> Response:
        if self._is_put(request):
            self.puts.append(request)
            if not self.knows_columns:
                headers = {**request.headers, "content-type": JSON}
                return await super().exchange(
                    Request(
                        method=request.method,
                        target=request.target,
                        headers=headers,
                        body=request.body,
                        timeout_s=request.timeout_s,
                    )
                )
        answer = await super().exchange(request)
        if self.tells_columns:
            return answer
        headers = dict(answer.headers)
        headers["x-disstream"] = headers.get("x-disstream", "").replace("columns, ", "")
        return Response(status=answer.status, headers=headers, body=answer.body)

    def _is_put(self, request: Request) -> bool:
        return request.method == "POST" and request.target.endswith("/records")

    @property
    def kinds(self) -> list[str]:
        return [request.headers["content-type"] for request in self.puts]


async def everything(client: Client) -> list[Record]:
    found: list[Record] = []
    for partition in (await client.streams.describe("s")).partitions:
        cursor = await client.cursors.get("s", partition.partition_id, "TRIM_HORIZON")
        while (page := await client.records.get(cursor)).records:
            found += page.records
            cursor = page.next_cursor
    return found


def simulate(test: Callable[[Endpoint, Client], Awaitable[None]], config: ClientConfig | None = None) -> None:
    async def main() -> None:
        engine = MemoryEngine()
        await engine.start()
        endpoint = Endpoint(App(engine, ServerConfig(data_dir=None)))
        async with Client(endpoint, "demo", config or ClientConfig()) as client:
            await client.streams.create("s", partitions=4)
            await test(endpoint, client)
        await engine.close()

    run_simulated(main)


@pytest.mark.parametrize(("body", "kind"), [("auto", COLUMNS), ("json", JSON), ("protobuf", PROTOBUF)])
def test_the_form_is_the_clients(body: Body, kind: str) -> None:
    """By itself columns from the first request on; where the client is told of another form, that in every request."""

    async def test(endpoint: Endpoint, client: Client) -> None:
        async with Producer(client, "s", ProducerConfig()) as producer:
            for n in range(3):
                await producer.send_and_wait(b"%d" % n, key="k", timestamp=n + 5)
            await (await producer.send_many([(b"many %d" % n, f"k{n}") for n in range(100)]))
            await producer.send_and_wait("größer", key="ü")
        assert set(endpoint.kinds) == {kind}
        records = await everything(client)
        assert len(records) == 104
        assert [(r.data, r.timestamp) for r in records if r.key == "k"] == [(b"%d" % n, n + 5) for n in range(3)]
        assert [r.data for r in records if r.key == "ü"] == ["größer".encode()]

    simulate(test, ClientConfig(body=body))


def test_a_put_of_the_client_is_json() -> None:
    """A put that is not a producer's goes as every service reads it."""

    async def test(endpoint: Endpoint, client: Client) -> None:
        await client.records.put("s", [NewRecord(b"x", key="k")])
        assert endpoint.kinds == [JSON]

    simulate(test)


def test_where_columns_are_not_read() -> None:
    """An endpoint that does not name the extension gets JSON."""

    async def test(endpoint: Endpoint, client: Client) -> None:
        endpoint.tells_columns = endpoint.knows_columns = False
        await client.streams.describe("s")
        async with Producer(client, "s", ProducerConfig()) as producer:
            await producer.send_and_wait(b"x", key="k")
        assert endpoint.kinds == [JSON]

    simulate(test)


def test_records_that_say_where_they_belong() -> None:
    """A request with one that names its partition or hash key goes as JSON, the others as columns; all are placed."""

    async def test(endpoint: Endpoint, client: Client) -> None:
        async with Producer(client, "s", ProducerConfig(order="none")) as producer:
            by_key = await producer.send_and_wait(b"key", key="k")
            by_name = await producer.send_and_wait(b"name", partition_id=2)
            by_hash = await producer.send_and_wait(b"hash", explicit_hash_key=2**63 - 1)
            mixed = await producer.send_many([(b"1", "k"), NewRecord(b"2", partition_id="1")])
            receipts = await mixed
            last = await producer.send_and_wait(b"last", key="k")
        assert endpoint.kinds[:3] == [COLUMNS, JSON, JSON]
        assert JSON in endpoint.kinds[3:-1]
        assert endpoint.kinds[-1] == COLUMNS
        assert [by_name.partition_id[-1], by_hash.partition_id[-1]] == ["2", "3"]
        assert receipts[1].partition_id[-1] == "1"
        assert by_key.partition_id == receipts[0].partition_id == last.partition_id
        assert sorted(r.data for r in await everything(client)) == sorted(
            [b"key", b"name", b"hash", b"1", b"2", b"last"]
        )

    simulate(test)


def test_headers_travel_in_columns() -> None:
    """They are in an envelope, which is a payload like any other."""

    async def test(endpoint: Endpoint, client: Client) -> None:
        async with Producer(client, "s", ProducerConfig(envelope=Envelope())) as producer:
            await producer.send_and_wait(b"x", key="k", headers={"a": "b"})
        assert endpoint.kinds == [COLUMNS]
        (record,) = unwrap(await everything(client))
        assert (record.data, record.key, dict(record.headers or ())) == (b"x", "k", {"a": "b"})

    simulate(test)


@pytest.mark.parametrize("sessions", [True, False])
def test_records_without_a_key(sessions: bool) -> None:
    """In a session they are stored in the partition that the producer chose for them; else the server chooses."""

    async def test(endpoint: Endpoint, client: Client) -> None:
        async with Producer(client, "s", ProducerConfig(sessions=sessions)) as producer:
            mixed = [(b"%d" % n, "k" if n % 5 == 4 else None) for n in range(20)]
            receipts = await (await producer.send_many(mixed))
        assert set(endpoint.kinds) == {COLUMNS}
        stored = {r.data: (r.partition_id, r.sequence_number) for r in await everything(client)}
        assert [stored[data] for data, _ in mixed] == [(r.partition_id, r.sequence_number) for r in receipts]
        assert sorted(int(r.data) for r in await everything(client)) == list(range(20))

    simulate(test)


@pytest.mark.parametrize("coding", COMPRESSIONS)
def test_compressed_columns(coding: Compression) -> None:
    """Compression packs the columns as it packs other bodies, where they become smaller."""

    async def test(endpoint: Endpoint, client: Client) -> None:
        payloads = [b"abc" * 1_000, b"x" * 200_000, b"y" * 200_000, b""]
        async with Producer(client, "s", ProducerConfig()) as producer:
            for payload in payloads:
                await producer.send_and_wait(payload, key="k")
        assert set(endpoint.kinds) == {COLUMNS}
        assert [request.headers.get("content-encoding") for request in endpoint.puts][:3] == [coding] * 3
        assert all(len(request.body) < 50_000 for request in endpoint.puts)
        assert [r.data for r in await everything(client)] == payloads

    simulate(test, ClientConfig(compression=coding))


@pytest.mark.parametrize("sessions", [True, False])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_an_older_server_takes_its_place(
    sessions: bool, compression: Compression | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Each record is stored once and in order, the rest goes as JSON, whatever comes later; it is told once."""

    async def test(endpoint: Endpoint, client: Client) -> None:
        config = ProducerConfig(sessions=sessions, max_batch_records=20)
        async with Producer(client, "s", config) as producer:
            deliveries = [await producer.send(b"%03d" % n, key=f"k{n % 11}") for n in range(100)]
            for delivery in deliveries:
                await delivery
            assert set(endpoint.kinds) == {COLUMNS}
            endpoint.knows_columns = False
            refused = len(endpoint.puts)
            deliveries = [await producer.send(b"%03d" % n, key=f"k{n % 11}") for n in range(100, 300)]
            ends = [await delivery for delivery in deliveries]
            kinds = endpoint.kinds[refused:]
            assert 1 < kinds.count(COLUMNS) <= 8  # those that were on their way
            assert kinds == sorted(kinds, key=(COLUMNS, JSON).index)
            endpoint.knows_columns = True
            await producer.send_and_wait(b"300", key="k3")
            assert endpoint.kinds[-1] == JSON
            stats = producer.stats()
        assert (stats.stored, stats.reordered) == (301, 0)
        assert max(end.attempts for end in ends) == 2
        records = await everything(client)
        for key in {record.key for record in records}:
            expected = [b"%03d" % n for n in range(301) if f"k{n % 11}" == key]
            assert [record.data for record in records if record.key == key] == expected

    simulate(test, ClientConfig(compression=compression))
    told = [record.getMessage() for record in caplog.records if "columns" in record.getMessage()]
    assert len(told) == 1
    assert "JSON" in told[0]


def key_in(before: int, after: int) -> str:
    """A key of these partitions, of two and of three."""
    two, three = (HashRouter(enumerate(hash_ranges(count))) for count in (2, 3))
    keys = ((key, hash_key(key)) for key in map(str, range(10_000)))
    return next(key for key, hashed in keys if (two.owner(hashed), three.owner(hashed)) == (before, after))


def test_an_older_server_while_the_stream_is_scaled() -> None:
    """The request that settles the old layout is the one that cannot be read: the new layout is opened all the same."""

    class Held(Endpoint):
        """Carries the first put once `go` is set."""

        go = anyio.Event()

        async def exchange(self, request: Request) -> Response:
            first = self._is_put(request) and not self.puts
            if first:
                self.puts.append(request)
                await self.go.wait()
                self.knows_columns = False
            return await super().exchange(request)

    async def main() -> None:
        engine = MemoryEngine()
        await engine.start()
        app = App(engine, ServerConfig(data_dir=None))
        endpoint = Held(app)
        async with Client(AppTransport(app), "demo") as plain, Client(endpoint, "demo") as client:
            await plain.streams.create("s", partitions=2)
            async with Producer(client, "s", ProducerConfig()) as producer:
                stays = await producer.send(b"stays", key=key_in(0, 0))
                await anyio.sleep(1)
                await plain.streams.scale("s", 3)
                moves = await producer.send(b"moves", key=key_in(1, 2))
                await anyio.sleep(1)  # it is told to have moved, and the layout is read
                endpoint.go.set()
                with anyio.fail_after(5):
                    assert (await stays).partition_id[-1] == "0"
                    assert (await moves).partition_id[-1] == "2"
            assert [r.data for r in await everything(plain)] == [b"stays", b"moves"]
            assert endpoint.kinds[-1] == JSON
        await engine.close()

    run_simulated(main)


def test_a_record_is_rejected_alone() -> None:
    """What a server that reads columns refuses for its content is refused for that, and the others arrive."""

    async def main() -> None:
        engine = MemoryEngine()
        await engine.start()
        endpoint = Endpoint(App(engine, ServerConfig(data_dir=None, max_record_bytes=100, max_partition_key_bytes=10)))
        async with Client(endpoint, "demo") as client:
            await client.streams.create("s", partitions=4)
            async with Producer(client, "s", ProducerConfig()) as producer:
                rows = [(b"x" * (101 if n == 5 else 100), "k" * (11 if n == 7 else 3)) for n in range(20)]
                deliveries = [await producer.send(data, key=key) for data, key in rows]
                for n, delivery in enumerate(deliveries):
                    if n in (5, 7):
                        with pytest.raises(RecordRejected, match=r"DIS\.4200"):
                            await delivery
                    else:
                        await delivery
            assert set(endpoint.kinds) == {COLUMNS}
            assert len(await everything(client)) == 18
        await engine.close()

    run_simulated(main)


@pytest.mark.parametrize("seed", range(5))
def test_a_bad_network_and_an_older_server(seed: int) -> None:
    """Servers that know columns and servers that do not, in turn, behind a network that loses and doubles: no loss."""

    async def main() -> None:
        engine = MemoryEngine()
        await engine.start()
        endpoint = Endpoint(App(engine, ServerConfig(data_dir=None)))
        dice = random.Random(seed)
        plan = FaultPlan(lose_answer=0.05, lose_request=0.05, late=0.05, duplicate=0.05, error_before=0.1)
        network = FaultyTransport(endpoint, dice, plan)
        settings = ProducerConfig(max_batch_records=7, request_timeout_s=1.0)
        async with (
            Client(AppTransport(endpoint._app), "demo") as plain,
            Client(network, "demo", ClientConfig(attempts=30), dice=dice) as client,
        ):
            await plain.streams.create("s", partitions=2)
            async with Producer(client, "s", settings, rng=dice) as producer:
                deliveries = []
                for n in range(300):
                    if n == 150:
                        endpoint.knows_columns = False
                    deliveries.append(await producer.send(b"%03d" % n, key=f"k{n % 5}"))
                    if n % 10 == 0:
                        await deliveries[-1]
                for delivery in deliveries:
                    await delivery
            await network.settle()
            assert set(endpoint.kinds) == {COLUMNS, JSON}
            records = await everything(plain)
            for key in {record.key for record in records}:
                mine = [record.data for record in records if record.key == key]
                assert mine == [b"%03d" % n for n in range(300) if f"k{n % 5}" == key]
        await engine.close()

    run_simulated(main)
