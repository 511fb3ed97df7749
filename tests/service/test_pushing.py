"""Pages that come with notices: what a GET would have brought, and only where a GET would have brought it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from accounts import Signer, application

from disstream.client import Client, ClientConfig
from disstream.engine import Batch, PartitionRef
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine
from disstream.engine.memory import MemoryEngine
from disstream.errors import StorageError
from disstream.model import NewRecord
from disstream.server import App, Server, ServerConfig
from disstream.server.notices import GATHER_PAGE_S, GATHER_S
from disstream.server.pushing import MAX_FRAME_PAGES, QUIET_S
from disstream.testing.clock import run_simulated
from disstream.testing.network import AppTransport
from disstream.wire.http import Request
from disstream.wire.notices import (
    GONE,
    MAX_PUSH_RECORDS,
    Feed,
    Frame,
    Pushed,
    Watched,
    encode_notices,
)

PROJECT = "p"
PUSH_BYTES = 1_000


class World:
    """An application in memory, and a client in front of it."""

    def __init__(self, engine: MemoryEngine, app: App, client: Client) -> None:
        self.engine = engine
        self.app = app
        self.client = client

    async def put(self, partition: int, count: int = 1, data: bytes = b"x", stream: str = "s") -> None:
        records = [NewRecord(data, partition_id=str(partition), timestamp=n or None) for n in range(count)]
        (await self.client.records.put(stream, records)).raise_for_failed()

    async def stream_id(self) -> str:
        return (await self.client.streams.describe("s")).stream_id or ""

    @asynccontextmanager
    async def told(
        self, *watched: Watched, push_bytes: int = PUSH_BYTES
    ) -> AsyncIterator[Callable[[], Awaitable[Frame]]]:
        """Frames that tell something, one after the other."""
        async with self.client.notices.open(list(watched) or all_of(), push_bytes=push_bytes) as frames:

            async def following() -> Frame:
                while (frame := await anext(frames)) == []:
                    pass
                return frame

            yield following


def simulate(test: Callable[[World], Awaitable[None]], partitions: int = 4, **config: Any) -> None:
    async def main() -> None:
        engine = MemoryEngine()
        await engine.start()
        app = App(engine, ServerConfig(data_dir=None, **config))
        async with Client(AppTransport(app), PROJECT) as client:
            await client.streams.create("s", partitions=partitions)
            await test(World(engine, app, client))
        assert app.notices.open_answers == 0
        assert app.pushing.held_bytes == 0
        await engine.close()

    run_simulated(main)


def all_of(partitions: int = 4, wanted: int = 0, plain: tuple[int, ...] = ()) -> list[Watched]:
    return [Watched("s", "", [(n, wanted) for n in range(partitions)], plain)]


def page_of(frame: Frame) -> Pushed:
    assert isinstance(frame, Pushed), f"{frame} is no page"
    return frame


def test_a_pushed_page_is_the_one_that_a_get_would_bring() -> None:
    """Byte by byte: records, next cursor, and beside it the count of changes."""

    async def test(world: World) -> None:
        async with world.told(push_bytes=60_000) as following:
            end = 0
            for number in range(5):
                await world.put(2, number + 1, b"abc" * number)
                await world.put(2, 2)
                page = page_of(await following())
                assert (page.place, page.first, page.end) == (2, end, end + number + 3)
                end = page.end
                cursor = await world.client.cursors.get("s", "2", sequence_number=page.first)
                answer = await world.client.call(
                    "get_records",
                    query={"partition-cursor": cursor},
                    headers={"accept": "application/x-disstream-columns"},
                )
                assert page.body == answer.body
                asked, pushed = await world.client.records.get(cursor), page.page("s", "shardId-0000000002")
                assert pushed.records == asked.records
                assert (pushed.next_cursor, pushed.plain) == (asked.next_cursor, asked.plain)
                assert str(page.changes) == answer.headers["x-disstream-layouts"]
                assert [r.timestamp for r in pushed.records][1 : number + 1] == list(range(1, number + 1))
                following_page = await world.client.records.get(pushed.next_cursor)
                assert not following_page.records

    simulate(test)


def test_what_is_there_at_first_is_pushed_too() -> None:
    """From the number that is wanted; not what begins before it."""

    async def test(world: World) -> None:
        await world.put(0, 3)
        await world.put(1, 2)
        async with world.told(Watched("s", "", [(0, 2), (1, 2), (3, 0)])) as following:
            page = page_of(await following())
            assert (page.place, page.first, page.end) == (0, 2, 3)
            await world.put(3)
            assert page_of(await following()).place == 2

    simulate(test)


def test_nothing_is_pushed_unasked() -> None:
    """To an older client, for a partition it does not want pages of, or in another form than it chose."""

    async def test(world: World) -> None:
        async with world.told(push_bytes=0) as following:
            await world.put(0)
            assert await following() == [(0, 1)]
        async with world.told(*all_of(wanted=1, plain=(0,))) as following:
            await world.put(0)
            assert await following() == [(0, 2)]
            await world.put(1, 2)
            assert page_of(await following()).place == 1
        json = Client(AppTransport(world.app), PROJECT, ClientConfig(body="json"))
        async with json:
            await json.streams.describe("s")
            assert not json.notices.pushes
            async with json.notices.open([Watched("s", "", [(0, 0)])], push_bytes=PUSH_BYTES) as frames:
                assert await anext(frames) == [(0, 2)]

    simulate(test)


def test_a_server_that_pushes_nothing_is_asked_for_nothing() -> None:
    """An older server gets the request that it knows."""

    class Older(AppTransport):
        async def _carry(self, request: Request) -> Any:
            assert b"push" not in request.body
            response = await super()._carry(request)
            if "x-disstream" in response.headers:
                response.headers["x-disstream"] = response.headers["x-disstream"].replace("push, ", "")
            return response

    async def test(world: World) -> None:
        async with Client(Older(world.app), PROJECT) as client:
            await client.streams.describe("s")
            assert client.notices.offered
            assert not client.notices.pushes
            await world.put(0)
            async with client.notices.open(all_of(), push_bytes=PUSH_BYTES) as frames:
                assert await anext(frames) == [(0, 1)]

    simulate(test)


@pytest.mark.parametrize(("count", "size"), [(1, PUSH_BYTES + 1), (11, 100), (MAX_PUSH_RECORDS + 1, 0)])
def test_much_at_once_is_told_as_an_end(count: int, size: int) -> None:
    """In bytes, or in records that weigh nothing; for a while its reader asks, and then pages are pushed again."""

    async def test(world: World) -> None:
        async with world.told() as following:
            await world.put(0, count, b"x" * size)
            assert await following() == [(0, count)]
            await world.put(0)
            assert await following() == [(0, count + 1)]
            await world.put(1)
            assert page_of(await following()).place == 1
            await anyio.sleep(QUIET_S)
            await world.put(0)
            page = page_of(await following())
            assert (page.place, page.first, page.records) == (0, count + 1, 1)

    simulate(test)


def test_a_frame_has_so_many_pages() -> None:
    """The others are told as ends, and pushed the next time."""

    async def test(world: World) -> None:
        async with world.told(*all_of(40)) as following:
            for number in range(40):
                await world.put(number)
            frames = [await following() for _ in range(MAX_FRAME_PAGES + 1)]
            assert [page_of(frame).place for frame in frames[:-1]] == list(range(MAX_FRAME_PAGES))
            assert frames[-1] == [(number, 1) for number in range(MAX_FRAME_PAGES, 40)]
            await world.put(39)
            page = page_of(await following())
            assert (page.place, page.first) == (39, 1)

    simulate(test, partitions=40)


def test_pages_follow_each_other_soon() -> None:
    """The first after a pause at once, the next one GATHER_PAGE_S later; behind many pages later, but not by more."""

    async def test(world: World) -> None:
        async with world.told() as following:
            await anyio.sleep(1)
            turns = [((0,), 0.0), ((1,), GATHER_PAGE_S), ((0, 1, 2, 3), GATHER_PAGE_S), ((2,), GATHER_S)]
            for partitions, pause_s in turns:
                for number in partitions:
                    await world.put(number)
                began = anyio.current_time()
                pages = [page_of(await following()) for _ in partitions]
                assert [page.place for page in pages] == list(partitions)
                assert anyio.current_time() - began == pytest.approx(pause_s)

    simulate(test)


def test_slow_clients_do_not_fill_the_memory() -> None:
    """What is pushed and not taken is bounded over all answers; who takes nothing finds the latest ends."""

    async def test(world: World) -> None:
        async with world.told() as slow, world.told() as quick:
            await world.put(0)
            page_of(await slow())
            # The slow one is asked for nothing more: its generator stands where its frame is being sent.
            page_of(await quick())
            assert world.app.pushing.held_bytes > 0
            world.app.pushing.held_bytes += 1 << 30
            await world.put(0)
            assert await quick() == [(0, 2)]
            world.app.pushing.held_bytes -= 1 << 30
            for _ in range(5):
                await world.put(0)
            page = page_of(await quick())
            assert (page.first, page.end) == (2, 7)
            page = page_of(await slow())
            assert (page.first, page.end) == (1, 7)

    simulate(test)


def test_little_memory_means_no_pages() -> None:
    """A page is only made where it has room, whatever the client asks for."""

    async def test(world: World) -> None:
        async with world.told(push_bytes=50_000) as following:
            await world.put(0)
            assert await following() == [(0, 1)]

    simulate(test, max_buffered_bytes=65_536, max_body_bytes=65_536)


def test_limited_reading_is_never_pushed() -> None:
    """What goes out under limits is what was asked for."""

    async def test(world: World) -> None:
        async with world.told() as following:
            await world.put(0)
            assert await following() == [(0, 1)]

    simulate(test, common_out_bytes_per_s=2_000_000)


def test_what_is_trimmed_is_told_as_an_end() -> None:
    """The GET that follows says what became of it."""

    async def test(world: World) -> None:
        await world.put(0, 5)
        await world.engine.log.trim(PartitionRef(await world.stream_id(), 0), 3)
        async with world.told() as following:
            assert await following() == [(0, 5)]
            await anyio.sleep(QUIET_S)
            await world.put(0)
            page = page_of(await following())
            assert (page.first, page.end) == (5, 6)

    simulate(test)


def test_a_page_tells_of_changes() -> None:
    """Written before the change or after it: the count covers all records of the page, as that of a GET does."""

    async def test(world: World) -> None:
        async with world.told() as following:
            await world.put(0)
            await world.client.streams.scale("s", 2)
            page = page_of(await following())
            assert page.changes == 1
            await world.put(0, 2)
            page = page_of(await following())
            assert (page.first, page.changes) == (1, 1)

    simulate(test)


def test_a_stream_that_goes_is_not_pushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even if it goes while its page is made; nor is what the storage cannot read."""

    async def test(world: World) -> None:
        read = world.engine.log.read

        async def deleting(*args: Any) -> list[Batch]:
            stored = await read(*args)
            await world.client.streams.delete("s")
            return stored

        async def damaged(*args: Any) -> list[Batch]:
            raise StorageError("damaged")

        async with world.told() as following:
            monkeypatch.setattr(world.engine.log, "read", damaged)
            await world.put(0)
            assert await following() == [(0, 1)]
            monkeypatch.setattr(world.engine.log, "read", read)
            await world.put(0)
            assert page_of(await following()).first == 1
            monkeypatch.setattr(world.engine.log, "read", deleting)
            await world.put(0)
            assert await following() == [(0, 3)]
            monkeypatch.setattr(world.engine.log, "read", read)
            frame = await following()
            assert not isinstance(frame, Pushed)
            assert sorted(frame) == [(place, GONE) for place in range(4)]

    simulate(test)


async def test_who_may_read_is_pushed() -> None:
    """Another account's stream by the policy that lets read it, looked up for each page; the one after it has none."""
    async with application() as app:
        alice, bob = Signer(app, "alice"), Signer(app, "bob")
        await alice.create("s", project="a1")
        stream_id = (await alice.describe("s", "a1"))["stream_id"]
        rule = {"principal_name": "other.*", "action_type": "getRecords", "effect": "accept", "stream_id": stream_id}
        assert (await alice.call("POST", "/v2/a1/streams/s/policies", rule)).status == 201
        body = encode_notices([Watched("", stream_id, [(0, 0)])], 60, PUSH_BYTES)
        response = await app.handle(bob.request("POST", "/v2/b1/disstream/notices", body))
        assert response.pieces is not None
        feed = Feed(1)
        assert feed.feed(await anext(response.pieces)) == [[]]
        put = {"stream_name": "s", "records": [{"data": "eA==", "partition_id": "0"}]}
        assert (await alice.call("POST", "/v2/a1/records", put)).status == 200
        (page,) = feed.feed(await anext(response.pieces))
        assert page_of(page).end == 1
        assert (await alice.call("DELETE", "/v2/a1/streams/s")).status == 204
        await alice.create("s", project="a1")
        assert (await alice.call("POST", "/v2/a1/records", put)).status == 200
        assert feed.feed(await anext(response.pieces)) == [[(0, GONE)]]
        await response.pieces.aclose()


def test_pages_are_metered() -> None:
    """As the GETs that they save."""

    async def test(world: World) -> None:
        async with world.told() as following:
            await world.put(0, 3, b"abc")
            page_of(await following())
            await world.put(0, 1, b"abc")
            page_of(await following())
        (counts,) = world.app.meter.unstored(await world.stream_id()).values()
        assert counts.gets == 2
        assert (counts.partitions[0].get_records, counts.partitions[0].get_bytes) == (4, 12)

    simulate(test)


async def test_over_a_socket(tmp_path: Any) -> None:
    """Pages of any bytes come whole; nothing stays in the edge's budget."""
    async with (
        Server(ServerConfig(data_dir=None, port=0)) as server,
        Client(server.url, PROJECT) as client,
    ):
        await client.streams.create("s", partitions=4)
        async with client.notices.open(all_of(), push_bytes=65_536) as frames:
            assert await anext(frames) == []
            for number in range(50):
                data = bytes(range(256)) * (number * 5)
                await client.records.put("s", [NewRecord(data, key="\n{}", partition_id=None)])
                page = page_of(await anext(frames))
                (record,) = page.page("s", "p").records
                assert record.data == data


async def test_on_the_engine_with_a_thread(tmp_path: Any) -> None:
    """What the writing thread stored is pushed."""
    engine = EmbeddedEngine(tmp_path, EmbeddedConfig(map_size_bytes=1 << 30))
    await engine.start()
    app = App(engine, ServerConfig(data_dir=None))
    async with Client(AppTransport(app), PROJECT) as client:
        await client.streams.create("s", partitions=4)
        async with client.notices.open(all_of(), push_bytes=PUSH_BYTES) as frames:
            assert await anext(frames) == []
            for number in range(3):
                await client.records.put("s", [NewRecord(b"%d" % number, partition_id="3")])
                page = page_of(await anext(frames))
                assert [r.data for r in page.page("s", "p").records] == [b"%d" % number]
    await engine.close()
