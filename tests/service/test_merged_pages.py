"""Records that were written one by one, and are stored together: who reads them over the API notices nothing of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from disstream import clock
from disstream.client import Client, ClientConfig
from disstream.client.config import Body
from disstream.consumer import Consumer
from disstream.engine import PartitionRef
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine
from disstream.model import NewRecord, Record
from disstream.server import App, ServerConfig
from disstream.testing.engine import opened
from disstream.testing.network import AppTransport
from disstream.wire.cursors import CursorType
from disstream.wire.pages import PageBatch, encode_page_columns

COUNT = 100
NOW = 1_700_000_000_000
CONFIG = EmbeddedConfig(map_size_bytes=1 << 28)
FORMS: tuple[Body, ...] = ("auto", "json", "protobuf")


@pytest.fixture
def ticking() -> Iterator[None]:
    """A second passes whenever somebody looks at the clock on the wall."""
    ticks = itertools.count(NOW // 1000)
    system = clock.replace_wall(lambda: float(next(ticks)))
    yield
    clock.replace_wall(system)


def own_timestamp(n: int) -> int | None:
    return n * 10 if n % 3 == 0 else None


async def write(client: Client) -> None:
    """One by one; every third tells its own timestamp."""
    await client.streams.create("s", partitions=1)
    for n in range(COUNT):
        record = NewRecord(b"%d" % n, key=f"k{n % 7}", timestamp=own_timestamp(n))
        (await client.records.put("s", [record])).raise_for_failed()


def check(records: list[Record], start: int) -> None:
    """Those from `start` on: as they were written, or with the time of an append, of which no two are the same."""
    told = [(record.data, record.sequence_number, record.key) for record in records]
    assert told == [(b"%d" % n, n, f"k{n % 7}") for n in range(start, COUNT)]
    times = [record.timestamp for record in records if own_timestamp(record.sequence_number) is None]
    assert times == sorted(set(times))
    assert all(time > NOW for time in times)
    others = [record for record in records if own_timestamp(record.sequence_number) is not None]
    assert all(record.timestamp == own_timestamp(record.sequence_number) for record in others)


async def page(client: Client, kind: CursorType, **options: Any) -> list[Record]:
    cursor = await client.cursors.get("s", "0", kind, **options)
    return list((await client.records.get(cursor)).records)


@pytest.mark.usefixtures("ticking")
async def test_any_form_and_any_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As JSON, protobuf and columns, a page from anywhere, and by a consumer: each record with its own timestamp."""
    sent: list[Sequence[PageBatch]] = []

    def seen(batches: Sequence[PageBatch], following: str) -> bytes:
        sent.append(batches)
        return encode_page_columns(batches, following)

    monkeypatch.setattr("disstream.server.records.encode_page_columns", seen)
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        app = App(engine, ServerConfig(data_dir=None))
        async with Client(AppTransport(app), "demo") as client:
            await write(client)
        read: dict[Body, list[Record]] = {}
        for body in FORMS:
            async with Client(AppTransport(app), "demo", config=ClientConfig(body=body)) as client:
                await client.streams.describe("s")  # whose answer tells what the server can do
                for start in (0, 1, 50, COUNT - 1):
                    found = await page(client, "AT_SEQUENCE_NUMBER", sequence_number=start)
                    check(found, start)
                    assert found == read.setdefault(body, found)[start:]
                async with Consumer(client, "s") as consumer:
                    fetched: list[Record] = []
                    while len(fetched) < COUNT:
                        fetched += await consumer.fetch(max_records=30)
                    assert fetched == read[body]
        assert read == dict.fromkeys(FORMS, read["auto"])
        assert len(sent[0]) < COUNT / 5, "many of them travel together"


@pytest.mark.usefixtures("ticking")
async def test_a_cursor_at_a_time(tmp_path: Path) -> None:
    """It stands at the first record that was appended then or later, not at the first of those it is stored with."""
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        async with Client(AppTransport(App(engine, ServerConfig(data_dir=None))), "demo") as client:
            await write(client)
            for record in await page(client, "TRIM_HORIZON"):
                if own_timestamp(record.sequence_number) is None:
                    at = await page(client, "AT_TIMESTAMP", timestamp=record.timestamp)
                    assert at[0] == record
                    behind = await page(client, "AT_TIMESTAMP", timestamp=record.timestamp + 1)
                    assert len(behind) == len(at) - 1


@pytest.mark.usefixtures("ticking")
async def test_what_expired_in_part(tmp_path: Path) -> None:
    """Of records that are stored together some are trimmed: the others are read, whatever form is asked for."""
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        app = App(engine, ServerConfig(data_dir=None))
        async with Client(AppTransport(app), "demo") as client:
            await write(client)
            stream_id = (await client.streams.describe("s")).stream_id
        await engine.log.trim(PartitionRef(stream_id, 0), 37)
        for body in FORMS:
            async with Client(AppTransport(app), "demo", config=ClientConfig(body=body)) as client:
                await client.streams.describe("s")
                check(await page(client, "TRIM_HORIZON"), 37)
