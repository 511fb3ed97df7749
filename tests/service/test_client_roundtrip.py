"""Proves that client and server understand each other, over a socket and without one."""

from __future__ import annotations

import asyncio
import gc
import random
import warnings
from datetime import UTC, datetime

import pytest

from disstream.client import Client, ClientConfig
from disstream.door import connect, serve
from disstream.engine.memory import MemoryEngine
from disstream.errors import ApiError, ConflictError, CursorExpired, NotFoundError, SequenceOutOfRange
from disstream.model import NewRecord
from disstream.server import App, ServerConfig
from disstream.testing.clock import run_simulated
from disstream.testing.network import AppTransport, FaultPlan, FaultyTransport


async def _round_trip(client: Client) -> None:
    """Create, describe, list, put, read by every cursor type, delete."""
    await client.streams.create("orders", partitions=3, retention_h=48, data_type="JSON", tags={"team": "a"})
    info = await client.streams.wait_running("orders")
    assert (info.name, info.retention_h, info.data_type, info.tags) == ("orders", 48, "JSON", {"team": "a"})
    assert [p.partition_id for p in info.partitions] == [f"shardId-{n:010d}" for n in range(3)]
    await client.streams.create("other", partitions=1)
    assert [s.name async for s in client.streams.list(page_size=1)] == ["orders", "other"]
    with pytest.raises(ConflictError):
        await client.streams.create("orders", partitions=1)

    payloads = [b"\x00\xff", b"", "ü".encode(), b"x" * 10_000]
    results = await client.records.put("orders", [NewRecord(p, key="k") for p in payloads])
    results.raise_for_failed()
    (home,) = {r.partition_id for r in results}
    assert home is not None
    assert [r.sequence_number for r in results] == [0, 1, 2, 3]

    page = await client.records.get(await client.cursors.get("orders", home, "TRIM_HORIZON"))
    assert [r.data for r in page.records] == payloads
    assert {(r.stream, r.partition_id, r.key) for r in page.records} == {("orders", home, "k")}
    assert not (await client.records.get(page.next_cursor)).records
    second = await client.cursors.get("orders", home, sequence_number=1)
    assert (await client.records.get(str(second))).records[0].partition_id == home
    behind = await client.cursors.get("orders", home, "AFTER_SEQUENCE_NUMBER", sequence_number=1)
    assert [r.sequence_number for r in (await client.records.get(behind)).records] == [2, 3]
    latest = await client.cursors.get("orders", home, "LATEST")
    assert not (await client.records.get(latest)).records
    early = await client.cursors.get("orders", home, "AT_TIMESTAMP", timestamp=datetime(2020, 1, 1, tzinfo=UTC))
    assert len((await client.records.get(early)).records) == 4

    with pytest.raises(SequenceOutOfRange, match=r"\[99\]"):
        await client.cursors.get("orders", home, sequence_number=99)
    with pytest.raises(CursorExpired, match=r"DIS\.4217"):
        await client.records.get("not a cursor")
    with pytest.raises(ApiError) as caught:
        await client.cursors.get("orders", "77", "LATEST")
    assert caught.value.code in ("DIS.4201", "DIS.4302")
    assert caught.value.request_id

    await client.streams.delete("orders")
    with pytest.raises(NotFoundError, match=r"\[orders\]"):
        await client.streams.describe("orders")
    with pytest.raises(NotFoundError):
        await client.streams.delete("orders")


async def test_over_a_socket() -> None:
    """The whole round trip against a server on loopback; nothing is left open when both have ended."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with serve(ServerConfig(data_dir=None, port=0)) as server:
            async with connect(server.url, project_id="demo") as client:
                await _round_trip(client)
        del client, server
        gc.collect()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_started_by_hand() -> None:
    """`await connect(...).start()` gives the client; what another project made is not seen."""
    async with serve(ServerConfig(data_dir=None, port=0)) as server:
        one = await connect(server.url, project_id="one").start()
        two = await connect(server.url, project_id="two").start()
        await one.streams.create("s", partitions=1)
        assert [s.name async for s in two.streams.list()] == []
        await asyncio.gather(one.close(), two.close())


def test_without_a_socket() -> None:
    """The same round trip in a simulation, where client and app share nothing but plain values."""

    async def main() -> None:
        engine = MemoryEngine()
        await engine.start()
        app = App(engine, ServerConfig(data_dir=None), random.Random(1))
        async with Client(AppTransport(app, latency_s=0.05), "demo") as client:
            await _round_trip(client)
        await engine.close()

    run_simulated(main)


def test_through_a_faulty_network() -> None:
    """Safe calls succeed through losses, delays and refusals, and a stream is deleted exactly once."""

    async def main() -> None:
        engine = MemoryEngine()
        await engine.start()
        app = App(engine, ServerConfig(data_dir=None), random.Random(1))
        quiet = AppTransport(app)
        plan = FaultPlan(refuse=0.1, lose_request=0.1, lose_answer=0.1, error_before=0.1, error_after=0.1, delay=0.3)
        network = FaultyTransport(quiet, random.Random(2), plan)
        config = ClientConfig(attempts=30)  # every other attempt fails
        async with Client(quiet, "demo") as calm, Client(network, "demo", config, dice=random.Random(3)) as client:
            for n in range(50):
                name = f"stream-{n}"
                await calm.streams.create(name, partitions=2)
                assert len((await client.streams.describe(name)).partitions) == 2
                await client.streams.delete(name)
                assert [s.name async for s in calm.streams.list()] == []
        assert client.stats().retries > 20
        await engine.close()

    run_simulated(main)


async def test_large_records_travel_without_a_warning() -> None:
    """Bodies beyond a megabyte, up to the service's limits, are sent and read back; aiohttp has nothing to warn of."""
    async with (
        serve(ServerConfig(data_dir=None, port=0)) as server,
        connect(server.url, project_id="demo") as dis,
    ):
        await dis.streams.create("s", partitions=1)
        large = random.Random(1).randbytes(1_048_576)
        (await dis.records.put("s", [NewRecord(large)] * 5)).raise_for_failed()
        page = await dis.records.get(await dis.cursors.get("s", "0", "TRIM_HORIZON"), max_bytes=5 * 1_048_576)
        assert [record.data for record in page.records] == [large] * 5
        with pytest.raises(ApiError) as caught:
            await dis.records.put("s", [NewRecord(large + b"x")])
        assert (caught.value.status, caught.value.code) == (413, "DIS.4200")
