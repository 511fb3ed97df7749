"""Proves what producers and consumers promise with envelopes, serialisers and compressed payloads."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import uuid
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest
import snappy
from app_world import AppWorld, numbers, p, simulate, take

import disstream
import disstream.blocking
from disstream.errors import ConfigError
from disstream.model import InnerRecord, NewRecord, Partition, Record
from disstream.producer import Envelope, Producer, ProducerConfig, Receipt, make_producer
from disstream.producer.spillfile import spill_line
from disstream.server import Server
from disstream.wire.compression import decompress_payload
from disstream.wire.envelope import MAGIC, unwrap, wrap


def producer(world: AppWorld, **options: Any) -> Producer:
    return Producer(world.dis, "s", ProducerConfig(**options), rng=random.Random(5))


async def sent(world: AppWorld, count: int, key: str = "k", **options: Any) -> list[Receipt]:
    """`count` records whose text is their number, in one batch, and so in as few records of the service as may be."""
    async with producer(world, envelope=Envelope(**options)) as made:
        batch = await made.send_many([(b"%d" % n, key) for n in range(count)])
        return list(await batch)


async def stored(world: AppWorld, partition_id: str = "0") -> list[Record]:
    """What the service has, as it has it."""
    return list((await world.dis.records.get(await world.dis.cursors.get("s", partition_id, "TRIM_HORIZON"))).records)


# --- there and back ---


def test_a_consumer_reads_what_was_sent() -> None:
    """Payload, key, headers, identity, timestamp; each where its receipt says; in order, whatever shared a record."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=3)
        async with producer(world, envelope=Envelope(aggregate_records=4)) as made:
            deliveries = []
            for n in range(50):
                headers = {"n": str(n)} if n % 3 == 0 else None
                timestamp = 1_000 + n if n % 5 == 0 else None
                deliveries.append(await made.send(b"%d" % n, key=f"key-{n % 7}", headers=headers, timestamp=timestamp))
            receipts = [await delivery for delivery in deliveries]
            assert made.stats().buffered_bytes == 0
        consumer = await world.started(app=None)
        found = await take(consumer, 50)
        by_number = {int(record.data): record for record in found}
        for n, receipt in enumerate(receipts):
            record = by_number[n]
            assert (record.key, record.headers) == (f"key-{n % 7}", {"n": str(n)} if n % 3 == 0 else None)
            assert (record.partition_id, record.sequence_number, record.index) == (
                receipt.partition_id,
                receipt.sequence_number,
                receipt.index,
            )
            if n % 5 == 0:
                assert record.timestamp == 1_000 + n
        assert len({(r.producer_id, r.number) for r in found}) == 50
        assert consumer.stats().records == 50
        for key in {r.key for r in found}:
            mine = [r for r in found if r.key == key]
            assert numbers(mine) == sorted(numbers(mine))
            assert [r.number for r in mine] == sorted(r.number for r in mine if r.number is not None)
        ranges = [info.sequence_range for info in (await world.dis.streams.describe("s")).partitions]
        assert sum(r.end for r in ranges if r is not None) < 40, "too few share a record of the service"

    simulate(test)


def test_others_see_one_record_under_the_key_of_the_first() -> None:
    """Raw reading changes nothing; `unwrap` opens a page; `unwrap=False` hands out what is stored."""

    async def test(world: AppWorld) -> None:
        await world.stream()
        await sent(world, 10)
        (record,) = await stored(world)
        assert record.key == "k"
        assert record.data.startswith(MAGIC)
        assert numbers(disstream.unwrap([record])) == list(range(10))
        consumer = await world.started(app=None, unwrap=False)
        assert await take(consumer, 1) == [record]
        assert consumer.stats().undecoded_records == 0

    simulate(test)


def test_streams_may_hold_both() -> None:
    """Records with and without envelopes, of one partition, in order."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=3)
        await sent(world, 4)
        await world.write(2)
        found = await take(await world.started(app=None), 9)
        assert [(r.sequence_number, r.index) for r in found] == [
            *[(n, 0) for n in range(3)],
            *[(3, n) for n in range(4)],
            *[(n, 0) for n in (4, 5)],
        ]

    simulate(test)


def test_headers_want_an_envelope() -> None:
    """Without one they are refused before anything is accepted, and so is what no envelope can carry."""

    async def test(world: AppWorld) -> None:
        await world.stream()
        async with producer(world) as made:
            with pytest.raises(ConfigError, match="envelope"):
                await made.send(b"x", headers={"a": "b"})
            with pytest.raises(ConfigError, match="envelope"):
                await made.send_many([NewRecord(b"x", headers={"a": "b"})])
            await made.send_and_wait(b"plain", headers={})
        with pytest.raises(ConfigError, match="envelope"):
            await world.dis.records.put("s", [NewRecord(b"x", headers={"a": "b"})])
        async with producer(world, envelope=Envelope()) as made:
            for headers in ({"a": 1}, {1: "a"}, "a=b", {"a": "\ud800"}, {str(n): "" for n in range(1_001)}):
                with pytest.raises(ConfigError, match="header"):
                    await made.send(b"x", headers=headers)  # type: ignore[arg-type]
            with pytest.raises(ConfigError, match="1 MiB"):
                await made.send(bytes(1_048_000), key="k", headers={"a": "b" * 1_000})
            assert made.stats().accepted == 0
        assert [r.data for r in await stored(world)] == [b"plain"]

    simulate(test)


def test_order_none_does_not_aggregate() -> None:
    """It knows no partitions; envelopes of one it makes."""

    async def test(world: AppWorld) -> None:
        await world.stream()
        with pytest.raises(ConfigError, match="aggregate_records=1"):
            ProducerConfig(order="none", envelope=Envelope())
        async with producer(world, order="none", envelope=Envelope(aggregate_records=1)) as made:
            await (await made.send_many([(b"%d" % n, f"key-{n}") for n in range(5)]))
        found = await take(await world.started(app=None), 5)
        assert sorted(numbers(found)) == list(range(5))
        assert [(r.index, r.count) for r in found] == [(0, 1)] * 5
        assert all(r.producer_id for r in found)

    simulate(test)


def test_a_batch_larger_than_a_request_is_cut() -> None:
    """max_batch_records counts records of the service: nothing beyond it travels, nothing waits for ever."""

    async def test(world: AppWorld) -> None:
        await world.stream()
        envelope = Envelope(aggregate_records=50)
        async with producer(world, envelope=envelope, max_batch_records=2) as made:
            # Hash keys in turn: no two neighbours may share a record.
            rows = [NewRecord(b"%d" % n, explicit_hash_key=str(n % 2)) for n in range(20)]
            receipts = await (await made.send_many(rows))
            assert [r.sequence_number for r in receipts] == list(range(20))
            assert made.stats().requests == 10

    simulate(test)


def test_scaling_puts_records_together_anew() -> None:
    """What waits when the layout changes is regrouped: every key in its new partition, in order."""

    async def test(world: AppWorld) -> None:
        await world.stream()
        async with producer(world, envelope=Envelope(aggregate_bytes=200), linger_s=0.01) as made:
            deliveries = []
            for n in range(300):
                deliveries.append(await made.send(b"%d" % n, key=f"key-{n % 7}"))
                if n == 100:
                    await world.dis.streams.scale("s", 4)
                if n % 10 == 0:
                    await asyncio.sleep(0.1)
            receipts = [await d for d in deliveries]
            fresh = await (await made.send_many([(b"%d" % n, f"key-{n % 7}") for n in range(300, 400)]))
        info = await world.dis.streams.describe("s")
        assert len({r.partition_id for r in receipts[-50:]}) > 1
        found: dict[tuple[str, int, int], Record] = {}
        for partition in info.partitions:
            for record in unwrap(await stored(world, partition.partition_id)):
                found[(record.partition_id, record.sequence_number, record.index)] = record
        assert len(found) == 400
        for n, receipt in enumerate([*receipts, *fresh]):
            assert found[(receipt.partition_id, receipt.sequence_number, receipt.index)].data == b"%d" % n
        homes = {(found[(r.partition_id, r.sequence_number, r.index)].key, r.partition_id) for r in fresh}
        assert len(homes) == 7

    simulate(test)


# --- checkpoints ---


@pytest.mark.parametrize("finish", ["next", "explicit"])
def test_a_crash_in_the_middle_brings_the_whole_again(finish: str) -> None:
    """The checkpoint stays in front of an envelope until its last record is finished; nothing is lost."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=2)
        await sent(world, 10)
        consumer = await world.started(finish=finish)
        for record in await take(consumer, 7):
            consumer.record_done(record)
        assert await consumer.commit() == {p(0): 2}
        assert consumer.position(p(0)) == 2
        await consumer.abort()
        consumer = await world.started(finish=finish)
        again = await take(consumer, 10)
        assert numbers(again) == list(range(10))
        for record in again[:9]:
            consumer.record_done(record)
        assert await consumer.commit() == {p(0): 2}
        consumer.record_done(again[9])
        assert await consumer.commit() == {p(0): 3}
        assert consumer.position(p(0)) == 3

    simulate(test)


def test_asking_for_the_next_finishes_within_an_envelope() -> None:
    """The loop's own way: the record in hand is not finished, in the middle and at the end."""

    async def test(world: AppWorld) -> None:
        await world.stream()
        await sent(world, 6, aggregate_records=3)
        expected = {0: 0, 1: 0, 2: 0, 3: 1, 4: 1, 5: 1}
        consumer = await world.started()
        async for record in consumer:
            assert await consumer.commit() == {p(0): expected[int(record.data)]}
            if int(record.data) == 5:
                break
        consumer.record_done(record)
        assert await consumer.commit() == {p(0): 2}

    simulate(test)


def test_fetch_and_seek_within_envelopes() -> None:
    """`max_records` counts records as they were sent; a seek begins with the first of those that share a number."""

    async def test(world: AppWorld) -> None:
        await world.stream()
        await sent(world, 12, aggregate_records=5)
        consumer = await world.started()
        assert numbers(await consumer.fetch(max_records=7)) == list(range(7))
        assert numbers(await consumer.fetch(max_records=2)) == [7, 8]
        assert consumer.position(p(0)) == 1
        consumer.seek(p(0), 1)
        assert numbers(await take(consumer, 7)) == [5, 6, 7, 8, 9, 10, 11]
        assert await consumer.lag() == {p(0): 0}

    simulate(test)


def test_a_hand_over_in_the_middle_waits_for_what_is_in_hand() -> None:
    """As for any record; whoever has the partition then goes on behind it, or begins with the whole envelope."""

    async def test(world: AppWorld) -> None:
        await world.stream()
        await sent(world, 8)
        revoked, again = anyio.Event(), anyio.Event()

        def on_assigned(partitions: frozenset[Partition]) -> None:
            if partitions and revoked.is_set():
                again.set()

        settings: dict[str, Any] = {"finish": "explicit", "on_assigned": on_assigned, "drain_timeout_s": 5.0}
        first = await world.started(on_revoked=lambda partitions, deadline: revoked.set(), **settings)
        held = await take(first, 3)
        joining = asyncio.ensure_future(world.started(**settings))
        await revoked.wait()
        await anyio.sleep(1.0)
        assert not again.is_set(), "given away while records of it are in hand"
        for record in held:
            first.record_done(record)
        second = await joining
        with anyio.fail_after(4.0):
            await again.wait()
        found = await take(first, 5) if first.assignment() else await take(second, 8)
        assert numbers(found) == list(range(8))[-len(found) :]

    simulate(test)


# --- hostile and damaged ---


def test_damaged_envelopes_come_as_they_are() -> None:
    """Counted, never an error, and the records around them are read."""

    async def test(world: AppWorld) -> None:
        await world.stream()
        whole = wrap([NewRecord(b"0"), NewRecord(b"1")])
        damaged = [whole[:-1], whole[:20] + b"!" + whole[21:], MAGIC]
        rows = [NewRecord(d, partition_id="0") for d in (whole, *damaged, b"2")]
        (await world.dis.records.put("s", rows)).raise_for_failed()
        consumer = await world.started(app=None)
        found = await take(consumer, 6)
        assert [r.data for r in found] == [b"0", b"1", *damaged, b"2"]
        assert consumer.stats().undecoded_records == 3

    simulate(test)


def test_a_page_of_crowded_envelopes_is_opened_bit_by_bit() -> None:
    """A page that holds a million empty records never has them in memory together."""

    async def test(world: AppWorld) -> None:
        await world.stream()
        crowded = wrap([NewRecord(b"")] * 10_000)
        rows = [NewRecord(crowded, partition_id="0")] * 60
        (await world.dis.records.put("s", rows)).raise_for_failed()
        consumer = await world.started(app=None)
        await consumer.fetch(max_records=1)
        largest = 0
        count = 1
        while count < 600_000:
            count += len(await consumer.fetch(max_records=5_000))
            largest = max(largest, consumer.stats().buffered_bytes)
        assert largest < 20_000_000  # a slice is opened: some 30,000 records

    simulate(test)


# --- compressed payloads ---


@pytest.mark.parametrize("envelope", [None, Envelope()])
def test_compressed_payloads_are_read_with_the_same_option(envelope: Envelope | None) -> None:
    """What the service stores is a raw block of snappy; our consumer gives back what was sent."""

    async def test(world: AppWorld) -> None:
        await world.stream()
        async with producer(world, record_compression="snappy", envelope=envelope) as made:
            await (await made.send_many([(b"payload " * 20 + b"%d" % n, "k") for n in range(5)]))
        raw = [snappy.decompress(r.data) for r in await stored(world)]
        payloads = [b"payload " * 20 + b"%d" % n for n in range(5)]
        assert (raw == payloads) if envelope is None else raw[0].startswith(MAGIC)
        found = await take(await world.started(app=None, record_compression="snappy"), 5)
        assert [r.data for r in found] == payloads

    simulate(test)


def test_what_is_not_compressed_comes_as_it_is() -> None:
    """Counted; and a block that says it holds more than a record can is not opened at all."""

    async def test(world: AppWorld) -> None:
        await world.stream()
        bomb = snappy.compress(bytes(1_048_577))
        liar = b"\xff\xff\xff\xff\x0f" + b"\0" * 10
        payloads = [b"plain text", b"", bomb, liar, snappy.compress(b"packed")]
        rows = [NewRecord(payload, partition_id="0") for payload in payloads]
        (await world.dis.records.put("s", rows)).raise_for_failed()
        consumer = await world.started(app=None, record_compression="snappy")
        assert [r.data for r in await take(consumer, 5)] == [*payloads[:4], b"packed"]
        assert consumer.stats().undecoded_records == 4

    simulate(test)


@pytest.mark.parametrize(
    ("block", "payload"),
    [
        ("00", b""),
        ("0568656c6c6f", None),
        ("051068656c6c6f", b"hello"),
        # Stored by the official Java client 1.3.21 with data.compress.enabled.
        ("28306a617661207061796c6f616420660d000030", b"java payload " * 3 + b"0"),
        ("28306a617661207061796c6f616420660d0000", None),
    ],
)
def test_blocks_of_snappy_byte_by_byte(block: str, payload: bytes | None) -> None:
    """No framing and no checksum: the length, then literals and copies."""
    assert decompress_payload(bytes.fromhex(block), 1_000) == payload


# --- serialisers ---


def test_any_value_goes_through_the_serializer() -> None:
    """Text and bytes too; `Record.json` reads back what `disstream.json` wrote."""

    async def test(world: AppWorld) -> None:
        await world.stream()
        values: list[Any] = [{"a": [1, None]}, "text", 7, None, uuid.UUID(int=3)]
        async with make_producer(world.dis, "s", ProducerConfig(serializer=disstream.json)) as made:
            await made.send_and_wait(values[0], key="k")
            made.try_send(values[1], key="k")
            await (await made.send_many([(value, "k") for value in values[2:4]]))
            await (await made.send_many([NewRecord(values[4], "k")]))
        found = await take(await world.started(app=None), 5)
        assert [r.json() for r in found] == [*values[:4], str(values[4])]

    simulate(test)


def test_what_a_serializer_raises_the_caller_gets() -> None:
    """As it is, from every way in, and nothing was accepted."""

    async def test(world: AppWorld) -> None:
        await world.stream()
        async with make_producer(
            world.dis, "s", ProducerConfig(serializer=lambda value: json.dumps(value).encode())
        ) as made:
            with pytest.raises(TypeError, match="serializable"):
                await made.send(object())  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="serializable"):
                made.try_send(object())  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="serializable"):
                await made.send_many([(b"", None), (object(), "k")])  # type: ignore[list-item]
            assert made.stats().accepted == 0
        for serializer in (disstream.json, str):
            async with make_producer(world.dis, "s", ProducerConfig(serializer=serializer)) as made:  # type: ignore[arg-type]
                with pytest.raises(ConfigError, match="object"):
                    await made.send(object())  # type: ignore[arg-type]
                assert made.stats().accepted == 0
        assert await stored(world) == []

    simulate(test)


def test_a_producer_without_serializer_says_how_to_have_one() -> None:
    """And one that is made without what serialises does not pass over the option."""

    async def test(world: AppWorld) -> None:
        await world.stream()
        async with producer(world) as made:
            with pytest.raises(ConfigError, match=r"disstream\.json"):
                await made.send({"a": 1})  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=r"DisClient\.producer"):
            producer(world, serializer=disstream.json)

    simulate(test)


# --- traces ---


def test_a_trace_gives_each_record_a_header() -> None:
    """Asked at each send; given headers win; none outside of a trace."""

    async def test(world: AppWorld) -> None:
        await world.stream()
        current: list[str | None] = ["00-1-2-01"]
        config = ProducerConfig(envelope=Envelope(trace=lambda: current[0]))
        async with make_producer(world.dis, "s", config) as made:
            await made.send(b"0", key="k")
            await made.send(b"1", key="k", headers={"traceparent": "mine", "a": "b"})
            await made.send_many([(b"2", "k"), NewRecord(b"3", "k", headers={"a": "b"})])
            current[0] = None
            await made.send(b"4", key="k")
            await made.send_many([(b"5", "k")])
        found = await take(await world.started(app=None), 6)
        assert [r.headers for r in found] == [
            {"traceparent": "00-1-2-01"},
            {"traceparent": "mine", "a": "b"},
            {"traceparent": "00-1-2-01"},
            {"traceparent": "00-1-2-01", "a": "b"},
            None,
            None,
        ]

    simulate(test)


def test_opentelemetry_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is missing, the error says what to install; where it is there, its propagator writes the headers."""
    name = "opentelemetry.trace.propagation.tracecontext"

    class Propagator:
        def inject(self, carrier: dict[str, str]) -> None:
            carrier |= {"traceparent": "00-a-b-01", "tracestate": "x=y"}

    async def test(world: AppWorld) -> None:
        await world.stream()
        config = ProducerConfig(envelope=Envelope(trace="opentelemetry"))
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ConfigError, match="opentelemetry-api"):
            make_producer(world.dis, "s", config)
        module = ModuleType(name)
        module.TraceContextTextMapPropagator = Propagator  # type: ignore[attr-defined]
        for parent in ("opentelemetry", "opentelemetry.trace", "opentelemetry.trace.propagation"):
            monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
        monkeypatch.setitem(sys.modules, name, module)
        async with make_producer(world.dis, "s", config) as made:
            await made.send(b"0", key="k")
        (record,) = await take(await world.started(app=None), 1)
        assert isinstance(record, InnerRecord)
        assert record.headers == {"traceparent": "00-a-b-01", "tracestate": "x=y"}

    simulate(test)


# --- elsewhere ---


def test_headers_survive_a_spill_file(tmp_path: Path) -> None:
    """What failed is sent again with what it had."""
    row = NewRecord(b"x", "k", headers={"a": "b"})
    path = tmp_path / "spill"
    opening = b'{"spill":1,"stream":"s","created":"2026-01-01T00:00:00+00:00"}\n'
    path.write_bytes(opening + spill_line(row, "not stored", "expired"))
    assert [spilled.record for spilled in disstream.read_spill(path)] == [row]


def test_headers_from_a_thread(disstream_server: Server) -> None:
    """The blocking producer takes them too, and the blocking consumer opens envelopes."""
    with disstream.blocking.connect(disstream_server.url, project_id="demo") as dis:
        dis.streams.create("s", partitions=1)
        with dis.producer("s", ProducerConfig(envelope=Envelope())) as made:
            deliveries = [made.send(b"%d" % n, key="k", headers={"n": str(n)}) for n in range(3)]
            deliveries.append(made.send(b"3", key="k"))
            places = [d.result() for d in deliveries]
            assert [receipt.sequence_number for receipt in places] == sorted(r.sequence_number for r in places)
        with dis.consumer("s") as consumer:
            found: list[Record] = []
            while len(found) < 4:
                found += consumer.fetch(timeout_s=5.0)
    assert [(r.data, r.headers) for r in found] == [*[(b"%d" % n, {"n": str(n)}) for n in range(3)], (b"3", None)]
