"""Notices: an answer that goes on tells the ends of many partitions, and ends when it should."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from accounts import Signer, application
from server_http import serving

from disstream.client import Client, ClientConfig
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine
from disstream.engine.memory import MemoryEngine
from disstream.errors import ApiError, ClosedError, NotFoundError, ThrottledError, TransportError
from disstream.model import NewRecord
from disstream.server import App, Server, ServerConfig
from disstream.server.edge import Edge
from disstream.testing.clock import run_simulated
from disstream.testing.network import AppTransport
from disstream.wire.http import Request
from disstream.wire.notices import FRAMES, GONE, HEARTBEAT_S, LONGEST_S, Watched, encode_notices

PROJECT = "p"


class World:
    """An application in memory, and a client in front of it."""

    def __init__(self, app: App, client: Client) -> None:
        self.app = app
        self.client = client

    async def put(self, partition: int, count: int = 1, stream: str = "s") -> None:
        records = [NewRecord(b"x", partition_id=str(partition))] * count
        (await self.client.records.put(stream, records)).raise_for_failed()


def simulate(test: Callable[[World], Awaitable[None]], **config: Any) -> None:
    async def main() -> None:
        engine = MemoryEngine()
        await engine.start()
        app = App(engine, ServerConfig(data_dir=None, **config))
        async with Client(AppTransport(app), PROJECT) as client:
            await client.streams.create("s", partitions=4)
            await test(World(app, client))
        assert app.notices.open_answers == 0
        assert not [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        await engine.close()

    run_simulated(main)


def all_of(stream: str = "s", partitions: int = 4, wanted: int = 0) -> list[Watched]:
    return [Watched(stream, "", [(n, wanted) for n in range(partitions)])]


def test_the_ends_of_many_partitions_are_told() -> None:
    """First what is there at or behind the wanted numbers, then what grows, at once, and nothing else."""

    async def test(world: World) -> None:
        await world.put(1, 3)
        await world.put(2, 3)
        watched = [Watched("s", "", [(2, 3), (1, 2), (0, 0)])]
        async with world.client.notices.open(watched) as frames:
            assert await anext(frames) == [(1, 3)]
            await world.put(3)  # nobody asked
            await world.put(0, 2)
            assert await anext(frames) == [(2, 2)]
            await world.put(2)
            before = anyio.current_time()
            assert await anext(frames) == [(0, 4)]
            assert anyio.current_time() - before < 0.01

    simulate(test)


def test_a_slow_client_gets_the_latest_ends() -> None:
    """However much is written between two frames, one frame holds it, and no partition stands in it twice."""

    async def test(world: World) -> None:
        async with world.client.notices.open(all_of()) as frames:
            assert await anext(frames) == []
            for _ in range(50):
                for partition in range(4):
                    await world.put(partition)
            assert sorted(await anext(frames)) == [(0, 50), (1, 50), (2, 50), (3, 50)]

    simulate(test)


def test_an_idle_answer_beats_and_ends() -> None:
    """Nothing is written: an empty frame every few seconds, and after a minute the end."""

    async def test(world: World) -> None:
        began = anyio.current_time()
        async with world.client.notices.open(all_of(), 3600) as frames:
            told = [(frame, anyio.current_time() - began) async for frame in frames]
        assert [frame for frame, _ in told] == [[]] * len(told)
        assert [at for _, at in told[:-1]] == pytest.approx([n * HEARTBEAT_S for n in range(len(told) - 1)])
        assert told[-1][1] == pytest.approx(LONGEST_S)

    simulate(test)


def test_what_is_not_to_be_had_is_gone() -> None:
    """A partition or a stream of several that is not there is told as gone; with none left the request is refused."""

    async def test(world: World) -> None:
        watched = [Watched("s", "", [(0, 0), (7, 0)]), Watched("t", "", [(0, 0)])]
        async with world.client.notices.open(watched, 0) as frames:
            assert sorted([pair async for frame in frames for pair in frame]) == [(1, GONE), (2, GONE)]
        for missing in ([Watched("t", "", [(0, 0)])], [Watched("s", "another-id", [(0, 0)])]):
            with pytest.raises(NotFoundError):
                async with world.client.notices.open(missing):
                    pass
        with pytest.raises(ApiError, match="named twice"):
            async with world.client.notices.open(all_of() * 2):
                pass

    simulate(test)


def test_a_stream_that_goes_is_told() -> None:
    """Deleted and made again under its name it is another stream: of the first one nothing more is told."""

    async def test(world: World) -> None:
        stream_id = (await world.client.streams.describe("s")).stream_id
        async with world.client.notices.open([Watched("s", stream_id, [(0, 0), (1, 0)])]) as frames:
            assert await anext(frames) == []
            await world.client.streams.delete("s")
            assert sorted(await anext(frames)) == [(0, GONE), (1, GONE)]
            await world.client.streams.create("s", partitions=4)
            await world.put(0)
            assert await anext(frames) == []

    simulate(test)


def test_answers_are_counted() -> None:
    """A user of a project has half of what there is at most; what ended makes room."""

    async def test(world: World) -> None:
        async with AsyncExitStack() as stack:
            for _ in range(2):
                frames = await stack.enter_async_context(world.client.notices.open(all_of()))
                await anext(frames)
            with pytest.raises(ThrottledError):
                async with world.client.notices.open(all_of()):
                    pass
        async with world.client.notices.open(all_of()) as frames:
            assert await anext(frames) == []

    simulate(test, max_notices=4)


def test_a_closing_server_ends_them() -> None:
    """At once, with what was not told yet; one that is asked for then has a first frame and no more."""

    async def test(world: World) -> None:
        async with world.client.notices.open(all_of()) as frames:
            assert await anext(frames) == []
            await world.put(1)
            world.app.notices.end()
            assert await anext(frames) == [(1, 1)]
            assert [frame async for frame in frames] == []
        async with world.client.notices.open(all_of()) as frames:
            assert (await anext(frames))[0] == (1, 1)
            assert [frame async for frame in frames] == [[]]
        assert anyio.current_time() < 1

    simulate(test)


async def test_who_may_read_is_told() -> None:
    """The right to read, in one's own project; another account's stream only where a policy lets read."""
    async with application() as app:
        alice, bob = Signer(app, "alice"), Signer(app, "bob")
        await alice.create("s", project="a1")
        stream_id = (await alice.describe("s", "a1"))["stream_id"]
        body = encode_notices([Watched("", stream_id, [(0, 0)])], 0)

        async def told(signer: Signer, project: str) -> tuple[int, str]:
            request = signer.request("POST", f"/v2/{project}/disstream/notices", body)
            response = await app.handle(request)
            if response.pieces is None:
                return response.status, ""
            assert response.headers["content-type"] == FRAMES
            return response.status, b"".join([piece async for piece in response.pieces]).decode()

        assert await told(alice, "a1") == (200, "[]\n[]\n")
        assert await told(Signer(app, "reader"), "a1") == (200, "[]\n[]\n")
        assert (await told(bob, "a1"))[0] == 400
        assert (await told(bob, "b1"))[0] == 400
        rule = {"principal_name": "other.*", "action_type": "getRecords", "effect": "accept", "stream_id": stream_id}
        assert (await alice.call("POST", "/v2/a1/streams/s/policies", rule)).status == 201
        assert await told(bob, "b1") == (200, "[]\n[]\n")


async def test_nothing_is_metered() -> None:
    """An answer that lasted a minute is no get that took one."""
    engine = MemoryEngine()
    await engine.start()
    app = App(engine, ServerConfig(data_dir=None))
    async with Client(AppTransport(app), PROJECT) as client:
        await client.streams.create("s", partitions=1)
        async with client.notices.open(all_of(partitions=1), 0) as frames:
            assert [frame async for frame in frames]
        assert not app.meter.streams()
    await engine.close()


# --- over sockets -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def running(**config: Any) -> AsyncIterator[tuple[Server, Client]]:
    async with (
        Server(ServerConfig(data_dir=None, port=0, **config)) as server,
        Client(server.url, PROJECT, ClientConfig(max_connections=1)) as client,
    ):
        await client.streams.create("s", partitions=4)
        yield server, client


async def ended(server: Server) -> None:
    with anyio.fail_after(10):
        while server.app.notices.open_answers:
            await anyio.lowlevel.checkpoint()


async def test_over_a_socket() -> None:
    """Frames come as they are made, beside the only connection for calls; a client that goes ends its answer."""
    async with running() as (server, client):
        async with client.notices.open(all_of()) as frames:
            assert await anext(frames) == []
            await client.records.put("s", [NewRecord(b"x", partition_id="2")])
            assert await anext(frames) == [(2, 1)]
        await ended(server)


async def test_a_close_of_the_server_does_not_wait() -> None:
    """An open answer ends with the server, by its proper end."""
    async with running(close_timeout_s=1000) as (server, client):
        async with client.notices.open(all_of()) as frames:
            assert await anext(frames) == []
            with anyio.fail_after(10):
                await server.close()
                assert [frame async for frame in frames] == [[]]


async def test_a_close_of_the_client_does_not_wait() -> None:
    """Whoever listens gets TransportError at once, and then ClosedError."""
    async with running() as (server, _), Client(server.url, PROJECT) as other:

        async def listen() -> None:
            with pytest.raises(TransportError, match="the client was closed"):
                await heed()

        async def heed() -> None:
            await other.streams.describe("s")
            async with other.notices.open(all_of()) as frames:
                async for _ in frames:
                    heard.set()

        heard = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            await heard.wait()
            with anyio.fail_after(5):
                await other.close()
        with pytest.raises(ClosedError):
            async with other.notices.open(all_of()):
                pass
        await ended(server)


async def test_a_client_that_takes_nothing_is_cut() -> None:
    """An answer is not kept for a client that does not read it: after `answer_timeout_s` its connection ends."""
    engine = MemoryEngine()
    await engine.start()
    config = ServerConfig(data_dir=None, port=0, answer_timeout_s=0.05)
    app = App(engine, config)
    edge = Edge(app, config)
    async with edge.listen() as url, Client(url, PROJECT) as client, Client(url, PROJECT) as writer:
        await client.streams.create("s", partitions=4)
        known = set(edge.connections)
        async with client.notices.open(all_of()) as frames:
            assert await anext(frames) == []
            (connection,) = edge.connections - known
            connection.pause_writing()  # as when the socket takes no more
            await writer.records.put("s", [NewRecord(b"", partition_id="0")])
            assert await anext(frames) == [(0, 1)]
            with pytest.raises(TransportError):
                await anext(frames)
        assert app.notices.open_answers == 0
    await engine.close()


async def test_old_http_gets_its_answer_too() -> None:
    """HTTP/1.0 knows no chunks: the end of the connection is the end of the answer."""
    async with serving() as http:
        await http.create("s")
        host, port = http.server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        body = encode_notices([Watched("s", "", [(0, 0)])], 0)
        head = f"POST /v2/p/disstream/notices HTTP/1.0\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\n[]\n[]\n")
        writer.close()


async def test_on_the_engine_with_a_thread(tmp_path: Any) -> None:
    """What the writing thread stored is told."""
    engine = EmbeddedEngine(tmp_path, EmbeddedConfig(map_size_bytes=1 << 30))
    await engine.start()
    app = App(engine, ServerConfig(data_dir=None))
    async with Client(AppTransport(app), PROJECT) as client:
        await client.streams.create("s", partitions=4)
        async with client.notices.open(all_of()) as frames:
            assert await anext(frames) == []
            await client.records.put("s", [NewRecord(b"x", partition_id="3")])
            assert await anext(frames) == [(3, 1)]
    await engine.close()


async def test_a_plain_exchange_waits_for_the_end() -> None:
    """Over a transport without streams nothing is offered; who asks all the same gets the whole answer."""
    engine = MemoryEngine()
    await engine.start()
    transport = AppTransport(App(engine, ServerConfig(data_dir=None)))
    async with Client(transport, PROJECT) as client:
        await client.streams.create("s", partitions=4)
        request = Request(method="POST", target="/v2/p/disstream/notices", body=encode_notices(all_of(), 0))
        assert (await transport.exchange(request)).body == b"[]\n[]\n"
        assert client.notices.offered

        class Plain:
            exchange = staticmethod(transport.exchange)
            close = staticmethod(transport.close)

        async with Client(Plain(), PROJECT) as other:
            await other.streams.describe("s")
            assert not other.notices.offered
    await engine.close()
