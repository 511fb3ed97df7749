"""The streams: found as they are now, and listed at the price of a page; the number of all of them stays right."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager

import msgspec
import pytest

from disstream.engine import Versioned
from disstream.engine.memory import MemoryEngine
from disstream.errors import ApiError, NotFoundError, OutcomeUnknown
from disstream.server.config import ServerConfig
from disstream.server.directory import Directory
from disstream.server.documents import PartitionDoc, StreamDoc
from disstream.testing.engine import opened

PROJECT = "p"


def doc(name: str) -> StreamDoc:
    return StreamDoc(
        stream_id=f"id{name}",
        name=name,
        create_time=0,
        last_modified_time=0,
        retention_h=24,
        stream_type="COMMON",
        data_type="BLOB",
        partitions=(PartitionDoc(0, 1, 0, 2**63 - 1),),
    )


class Catalog:
    """That of an engine, which notes what is scanned, and can be late, or lose its answer to what it has stored."""

    def __init__(self, inner: MemoryEngine) -> None:
        self._inner = inner.catalog
        self.scans: list[int] = []
        self.loses: str | None = None
        """The beginning of a key."""
        self.gate: asyncio.Event | None = None
        self.gets: list[str] = []
        self.late: asyncio.Event | None = None

    @property
    def revision(self) -> int:
        return self._inner.revision

    async def get(self, key: str) -> Versioned | None:
        self.gets.append(key)
        found = await self._inner.get(key)
        if self.late is not None:
            await self.late.wait()
        return found

    async def scan(self, prefix: str, after: str = "", limit: int = 1000) -> list[tuple[str, Versioned]]:
        found = await self._inner.scan(prefix, after, limit)
        self.scans.append(len(found))
        if self.gate is not None:
            await self.gate.wait()
        return found

    async def transact(self, expect: Mapping[str, int], put: Mapping[str, bytes], delete: Collection[str] = ()) -> None:
        await self._inner.transact(expect, put, delete)
        if self.loses is not None and any(key.startswith(self.loses) for key in [*put, *delete]):
            self.loses = None
            raise OutcomeUnknown("the disk is gone")


class Engine:
    """A started one, with that catalog."""

    def __init__(self, inner: MemoryEngine) -> None:
        self.log = inner.log
        self.catalog = Catalog(inner)
        self.stats = inner.stats
        self.wait_failed = inner.wait_failed

    async def start(self) -> None: ...

    async def close(self) -> None: ...


@asynccontextmanager
async def directory() -> AsyncIterator[tuple[Directory, Catalog]]:
    async with opened(MemoryEngine()) as inner:
        engine = Engine(inner)
        yield Directory(engine, ServerConfig(data_dir=None)), engine.catalog


async def test_a_page_costs_what_is_on_it() -> None:
    """Once the streams were counted a page reads one more than it tells, wherever it begins."""
    async with directory() as (streams, catalog):
        for number in range(50):
            await streams.create(PROJECT, doc(f"s{number:02}"))
        await streams.create("another", doc("t"))
        assert await streams.count(PROJECT) == 50
        catalog.scans.clear()
        for after, names, more in (
            ("", ["s00", "s01", "s02"], True),
            ("s46", ["s47", "s48", "s49"], False),
            ("s45x", ["s46", "s47", "s48"], True),
            ("s49", [], False),
        ):
            page, has_more = await streams.page(PROJECT, after, 3)
            assert ([one.name for one in page], has_more) == (names, more)
            assert await streams.count(PROJECT) == 50
        assert sum(catalog.scans) <= 4 * 4


async def test_streams_are_read_when_something_changed() -> None:
    """While nothing in the catalog changes it is not asked; a change, a deletion and a new life are seen at once."""
    async with directory() as (streams, catalog):
        await streams.create(PROJECT, doc("a"))
        await streams.create(PROJECT, doc("b"))
        first = await streams.find(PROJECT, "a")
        catalog.gets.clear()
        assert await streams.find(PROJECT, "a") is first
        assert not catalog.gets
        await catalog.transact({}, {"something else": b""})
        assert await streams.find(PROJECT, "a") is first
        assert catalog.gets == [first.key]
        await streams.change(PROJECT, "a", "", lambda found: msgspec.structs.replace(found, retention_h=48))
        assert (await streams.find(PROJECT, "a")).doc.retention_h == 48
        await streams.delete(PROJECT, "a")
        with pytest.raises(NotFoundError):
            await streams.find(PROJECT, "a")
        await streams.create(PROJECT, doc("a"))
        assert (await streams.find(PROJECT, "a")).doc.retention_h == 24


async def test_a_late_read_is_not_kept() -> None:
    """What was read before a change, and came after it, is read again."""
    async with directory() as (streams, catalog):
        await streams.create(PROJECT, doc("a"))
        catalog.late = asyncio.Event()
        finding = asyncio.create_task(streams.find(PROJECT, "a"))
        await asyncio.sleep(0)
        late, catalog.late = catalog.late, None
        await streams.change(PROJECT, "a", "", lambda found: msgspec.structs.replace(found, retention_h=48))
        assert (await streams.find(PROJECT, "a")).doc.retention_h == 48
        late.set()
        assert (await finding).doc.retention_h == 24
        assert (await streams.find(PROJECT, "a")).doc.retention_h == 48


async def test_the_count_follows() -> None:
    """Made, deleted, refused because it is there, and lost on the way: the count is what a new directory counts."""
    async with directory() as (streams, catalog):
        assert await streams.count(PROJECT) == 0
        for name in ("a", "b", "c"):
            await streams.create(PROJECT, doc(name))
        await streams.delete(PROJECT, "b")
        with pytest.raises(ApiError):
            await streams.create(PROJECT, doc("a"))
        with pytest.raises(ApiError):
            await streams.delete(PROJECT, "b")
        assert await streams.count(PROJECT) == 2
        catalog.loses = "stream/"
        with pytest.raises(OutcomeUnknown):
            await streams.create(PROJECT, doc("d"))
        assert await streams.count(PROJECT) == 3
        catalog.loses = "stream/"
        with pytest.raises(OutcomeUnknown):
            await streams.delete(PROJECT, "a")
        assert await streams.count(PROJECT) == 2


async def test_what_changes_while_it_is_counted_is_not_counted_twice() -> None:
    """A stream that is made while others are counted, on either side of the scan, is counted once from then on."""
    async with directory() as (streams, catalog):
        await streams.create(PROJECT, doc("a"))
        catalog.gate = asyncio.Event()
        counting = asyncio.create_task(streams.count(PROJECT))
        await asyncio.sleep(0)
        await streams.create(PROJECT, doc("b"))
        catalog.gate.set()
        await counting
        assert await streams.count(PROJECT) == 2
        await streams.create(PROJECT, doc("c"))
        assert await streams.count(PROJECT) == 3
