"""The client writes and reads records in every form of body, and takes whatever form the answer has."""

from __future__ import annotations

import os
import random

import click.testing
import pytest

from disstream.cli import main
from disstream.client import AccessKey, Client, ClientConfig
from disstream.client.config import Body
from disstream.door import connect, serve
from disstream.engine.memory import MemoryEngine
from disstream.errors import ConfigError, RecordRejected, TransportError
from disstream.model import NewRecord, Record
from disstream.producer import Producer, ProducerConfig
from disstream.server import App, Project, Server, ServerConfig, User, UserKey, Users
from disstream.testing.clock import run_simulated
from disstream.testing.network import AppTransport, FaultPlan, FaultyTransport
from disstream.wire.compression import COMPRESSIONS, Compression
from disstream.wire.http import JSON, PROTOBUF, Request, Response
from disstream.wire.protobuf import encode_put_answer_protobuf
from disstream.wire.records import encode_page, encode_put_answer

BODIES: tuple[Body, ...] = ("auto", "json", "protobuf")
FORMS: list[tuple[Body, Compression | None]] = [
    (body, compression) for body in BODIES for compression in (None, *COMPRESSIONS)
]


class Recorder(AppTransport):
    """Keeps the requests that it carries."""

    def __init__(self, app: App) -> None:
        super().__init__(app)
        self.seen: list[Request] = []

    async def exchange(self, request: Request) -> Response:
        self.seen.append(request)
        return await super().exchange(request)


class Canned:
    """Answers everything alike."""

    def __init__(self, body: bytes, kind: str) -> None:
        self.answer = Response(status=200, headers={"content-type": kind}, body=body)

    async def exchange(self, request: Request) -> Response:
        return self.answer

    async def close(self) -> None:
        pass


async def app() -> App:
    engine = MemoryEngine()
    await engine.start()
    return App(engine, ServerConfig(data_dir=None))


async def everything(client: Client, stream: str, partition: str = "0") -> list[Record]:
    found: list[Record] = []
    cursor = await client.cursors.get(stream, partition, "TRIM_HORIZON")
    while (page := await client.records.get(cursor)).records:
        found += page.records
        cursor = page.next_cursor
    return found


@pytest.mark.parametrize(("body", "compression"), FORMS)
async def test_every_form_over_a_socket_signed(body: Body, compression: Compression | None) -> None:
    """Puts and a producer's batches, small and larger than what is compressed in place, arrive and come back."""
    users = Users(
        [Project(id="demo", name="demo", domain="acme")],
        [User(name="a", domain="acme", projects=("demo",), access_keys=(UserKey(ak="AK", sk="SK"),))],
    )
    config = ClientConfig(body=body, compression=compression)
    async with (
        serve(ServerConfig(data_dir=None, port=0, users=users)) as server,
        connect(server.url, project_id="demo", credentials=AccessKey("AK", "SK"), config=config) as dis,
    ):
        await dis.streams.create("s", partitions=1)
        payloads = [b"", b"\x00\xff", b"x" * 500_000, os.urandom(500_000)]
        results = await dis.records.put("s", [NewRecord(p, key="k", timestamp=7) for p in payloads])
        assert [(r.sequence_number, r.partition_id) for r in results] == [(n, "shardId-0000000000") for n in range(4)]
        async with dis.producer("s") as producer:
            receipts = await (await producer.send_many([(p, "ü") for p in payloads]))
            lone = await producer.send_and_wait(b"last")
        assert [r.sequence_number for r in receipts] + [lone.sequence_number] == [4, 5, 6, 7, 8]
        records = await everything(dis, "s")
        assert [r.data for r in records] == [*payloads, *payloads, b"last"]
        assert [r.key for r in records] == ["k"] * 4 + ["ü"] * 4 + [None]
        assert {(r.stream, r.partition_id) for r in records} == {("s", "shardId-0000000000")}
        assert [r.timestamp for r in records[:4]] == [7] * 4


@pytest.mark.parametrize(("body", "compression"), FORMS)
def test_what_stands_on_the_wire(body: Body, compression: Compression | None) -> None:
    """Only records change their form: content type on put and get, coding on put alone where it makes it smaller."""

    async def main() -> None:
        transport = Recorder(await app())
        config = ClientConfig(body=body, compression=compression)
        async with Client(transport, "demo", config) as client:
            await client.streams.create("s", partitions=1)
            await client.records.put("s", [NewRecord(b"x" * 10_000)])
            await client.records.put("s", [NewRecord(b"")])
            await everything(client, "s")
        create, put, tiny, cursor, *gets = transport.seen
        kind = PROTOBUF if body == "protobuf" else JSON
        assert [r.headers["content-type"] for r in (create, put, tiny, cursor)] == [JSON, kind, kind, JSON]
        assert {r.headers["content-type"] for r in gets} == {kind}
        assert put.headers.get("content-encoding") == compression
        assert len(put.body) < 1_000 if compression else len(put.body) > 10_000
        assert {r.headers.get("content-encoding") for r in (create, cursor, *gets)} == {None}
        if body == "protobuf":  # a few bytes only become more
            assert "content-encoding" not in tiny.headers

    run_simulated(main)


async def test_an_answer_says_its_own_form() -> None:
    """A service that answers JSON to a client of protobuf is understood, and the other way round."""
    answer, page = encode_put_answer([3], {3: 7}), encode_page([], "next")
    for kind in (JSON, "Application/JSON; charset=utf-8", ""):
        async with Client(Canned(answer, kind), "demo", ClientConfig(body="protobuf")) as client:
            (result,) = await client.records.put("s", [NewRecord(b"x")])
            assert (result.partition_id, result.sequence_number) == ("shardId-0000000003", 7)
        async with Client(Canned(page, kind), "demo", ClientConfig(body="protobuf")) as client:
            assert (await client.records.get("cursor")).next_cursor == "next"
    in_protobuf = bytes.fromhex("a80100b20106ba010133c2010137")
    async with Client(Canned(in_protobuf, f"{PROTOBUF};charset=utf-8"), "demo") as client:
        with pytest.raises(TransportError, match="no PutRecordsResult"):
            await client.records.put("s", [NewRecord(b"x")])
    in_protobuf = bytes.fromhex("a80100b20108ba010133c2010137")
    async with Client(Canned(in_protobuf, f"{PROTOBUF};charset=utf-8"), "demo") as client:
        (result,) = await client.records.put("s", [NewRecord(b"x")])
        assert (result.partition_id, result.sequence_number) == ("3", 7)


async def test_an_answer_for_other_records() -> None:
    """Fewer results than records, or more, are no answer: nobody knows what became of which record."""
    for body, kind in ((encode_put_answer([3], {3: 7}), JSON), (encode_put_answer_protobuf([3], {3: 7}), PROTOBUF)):
        async with Client(Canned(body, kind), "demo") as client:
            with pytest.raises(TransportError, match="1 results for 2 records") as caught:
                await client.records.put("s", [NewRecord(b"x"), NewRecord(b"y")])
            assert caught.value.outcome_unknown


def test_what_protobuf_cannot_say() -> None:
    """A record that cannot be written is a ConfigError of a put, and rejected by a producer that goes on."""

    async def main() -> None:
        async with Client(AppTransport(await app()), "demo", ClientConfig(body="protobuf")) as client:
            await client.streams.create("s", partitions=1)
            with pytest.raises(ConfigError, match="cannot be written as protobuf"):
                await client.records.put("s", [NewRecord(b"", timestamp=2**70)])
            with pytest.raises(ConfigError, match="cannot be written as protobuf"):
                await client.records.put("s", [NewRecord(b"", key="\ud800")])

    run_simulated(main)


def test_a_producer_is_told_of_failures_in_protobuf() -> None:
    """Records that the service refuses for now are sent again, in order; what it cannot take is rejected alone."""

    async def main() -> None:
        engine = MemoryEngine()
        await engine.start()
        small = ServerConfig(data_dir=None, max_record_bytes=100, max_partition_key_bytes=10, max_pending_bytes=700)
        transport = AppTransport(App(engine, small))
        async with Client(transport, "demo", ClientConfig(body="protobuf", compression="zstd")) as client:
            await client.streams.create("s", partitions=2)
            async with Producer(client, "s", ProducerConfig(), rng=random.Random(1)) as producer:
                batch = await producer.send_many([(b"%2d" % n * 50, f"k{n % 3}") for n in range(60)])
                await batch
                with pytest.raises(RecordRejected, match=r"DIS\.4200"):
                    await producer.send_and_wait(b"x" * 101)
                stats = producer.stats()
            assert stats.refused_attempts > 0
            assert (stats.stored, stats.reordered) == (60, 0)
            stored = [await everything(client, "s", partition) for partition in ("0", "1")]
            assert sorted(r.data for records in stored for r in records) == [b"%2d" % n * 50 for n in range(60)]
            for records in stored:
                for key in {r.key for r in records}:
                    mine = [r.data for r in records if r.key == key]
                    assert mine == sorted(mine)

    run_simulated(main)


@pytest.mark.parametrize(("body", "compression"), FORMS)
def test_a_bad_network_loses_nothing(body: Body, compression: Compression | None) -> None:
    """Through lost, late and partly failed requests whatever is told stored is stored, and in order per key."""

    async def main() -> None:
        inner = AppTransport(await app(), latency_s=0.01)
        plan = FaultPlan(lose_answer=0.05, late=0.05, error_before=0.1, partial=0.3)
        faulty = FaultyTransport(inner, random.Random(f"{body} {compression}"), plan)
        settings = ProducerConfig(max_batch_records=20, request_timeout_s=1.0, sessions=False)
        async with (
            Client(inner, "demo") as plain,
            Client(faulty, "demo", ClientConfig(body=body, compression=compression, attempts=30)) as client,
        ):
            await plain.streams.create("s", partitions=2)
            async with Producer(client, "s", settings, rng=random.Random(2)) as producer:
                deliveries = [await producer.send(b"%04d" % n, key=f"k{n % 5}") for n in range(300)]
                for delivery in deliveries:
                    await delivery
            await faulty.settle()
            assert faulty.counts["partial"] > 0
            records = [r for partition in ("0", "1") for r in await everything(plain, "s", partition)]
            for key in {r.key for r in records}:
                firsts = list(dict.fromkeys(r.data for r in records if r.key == key))
                assert firsts == [b"%04d" % n for n in range(300) if f"k{n % 5}" == key]

    run_simulated(main)


@pytest.mark.parametrize("wrong", [{"body": "xml"}, {"body": None}, {"compression": "gzip"}, {"compression": ""}])
def test_forms_that_there_are_not(wrong: dict[str, str]) -> None:
    """A form that there is not is refused with those that there are."""
    with pytest.raises(ConfigError, match="use one of"):
        ClientConfig(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments", [["--body", "protobuf"], ["--compression", "zstd"], ["--body", "protobuf", "--compression", "lz4"]]
)
def test_the_commands_take_the_forms(disstream_server: Server, arguments: list[str]) -> None:
    """`produce` and `consume` write and read in the form that their options name."""
    run = click.testing.CliRunner()
    target = ["--endpoint", disstream_server.url, "--project", "demo"]
    made = run.invoke(main, ["stream", "create", "s", "--partitions", "1", *target])
    assert made.exit_code == 0, made.output
    lines = "".join(f"line {n} of many\n" for n in range(100))
    sent = run.invoke(main, ["produce", "s", *target, *arguments], input=lines)
    assert sent.output.strip().endswith("sent 100, stored 100, failed 0"), sent.output
    body = arguments[:2] if "--body" in arguments else []
    read = run.invoke(main, ["consume", "s", "--no-follow", "--format", "raw", *target, *body])
    assert read.output == lines
