"""HTTP as such: bodies are bounded, broken requests are answered, and the server starts and stops cleanly."""

from __future__ import annotations

import asyncio
import json
import socket
import tracemalloc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from server_http import FOUR_KEYS, data, serving

from disstream.engine import AppendRefused, PartitionRef, Row
from disstream.engine.memory import MemoryEngine, MemoryLog
from disstream.errors import ClosedError, ConfigError
from disstream.server import App, Server, ServerConfig
from disstream.server.edge import Edge
from disstream.wire.http import Request

MIB = 1_048_576


class Connection:
    """A socket that says exactly what the test says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, text: str | bytes) -> None:
        self.writer.write(text.encode() if isinstance(text, str) else text)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        if head[0].startswith("HTTP/1.0"):
            headers.setdefault("connection", "close")  # as HTTP/1.0 has it
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(head[0].split()[1]), headers, json.loads(body) if body else None

    async def refusal(self, status: int, code: str) -> str:
        """An answer with that status and code, on a connection that then ends."""
        got, headers, told = await self.answer()
        assert (got, told["error_code"]) == (status, code)
        assert set(told) == FOUR_KEYS
        assert headers["x-request-id"]
        assert headers["connection"] == "close"
        return str(told["message"])


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()


def head(method: str, target: str, **headers: object) -> str:
    lines = [f"{key.replace('_', '-')}: {value}" for key, value in headers.items()]
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: x", *lines, "", ""])


class GatedLog(MemoryLog):
    """Appends wait until the test opens the gate."""

    def __init__(self, engine: MemoryEngine) -> None:
        super().__init__(engine._life)
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()

    async def append(
        self, entries: Sequence[tuple[PartitionRef, Sequence[Row], int]], now_ms: int
    ) -> list[int | AppendRefused]:
        self.entered.set()
        await self.gate.wait()
        return await super().append(entries, now_ms)


@asynccontextmanager
async def gated(config: ServerConfig) -> AsyncIterator[tuple[Edge, App, GatedLog]]:
    """An application with a stream "s" whose appends wait, and an edge that does not listen yet."""
    engine = MemoryEngine()
    log = engine._log = GatedLog(engine)
    await engine.start()
    app = App(engine, config)
    body = json.dumps({"stream_name": "s", "partition_count": 1}).encode()
    assert (await app.handle(Request(method="POST", target="/v2/p/streams", body=body))).status == 201
    yield Edge(app, config), app, log
    await engine.close()


async def until(true: Callable[[], bool]) -> None:
    for _ in range(100_000):
        if true():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never became true")


PUT = json.dumps({"stream_name": "s", "records": [{"data": data(b"x")}]})


async def test_announced_too_large() -> None:
    """A body that announces itself as too large is refused before a byte of it is sent."""
    async with serving() as http, connected(http.server.url) as peer:
        await peer.send(head("POST", "/v2/p/records", content_length=1 << 40))
        assert str(12 * MIB) in await peer.refusal(413, "DIS.4200")


async def test_expectations_are_answered() -> None:
    """A client that waits for 100 Continue gets it, or the refusal instead."""
    async with serving() as http:
        await http.create("s")
        async with connected(http.server.url) as peer:
            await peer.send(head("POST", "/v2/p/records", content_length=len(PUT), expect="100-continue"))
            assert await peer.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            await peer.send(PUT)
            assert (await peer.answer())[0] == 200
        async with connected(http.server.url) as peer:
            await peer.send(head("POST", "/v2/p/records", content_length=1 << 30, expect="100-continue"))
            await peer.refusal(413, "DIS.4200")


async def test_huge_body_is_not_kept() -> None:
    """A body that never says its size is refused at the limit; what still comes is not held in memory."""
    async with serving(max_body_bytes=2 * MIB) as http, connected(http.server.url) as peer:
        block = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
        tracemalloc.start()
        try:
            await peer.send(head("POST", "/v2/p/records", transfer_encoding="chunked"))
            for _ in range(32 * 16):  # 32 MiB
                await peer.send(block)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        await peer.refusal(413, "DIS.4200")
        assert peak < 8 * MIB


async def test_bodies_under_way_are_bounded_together() -> None:
    """When all bodies together are too many bytes a new one is refused as retryable, and room comes back."""
    config = ServerConfig(data_dir=None, port=0, max_body_bytes=1000, max_buffered_bytes=1000)
    async with gated(config) as (edge, _, log), edge.listen() as url:
        log.gate.set()
        async with connected(url) as first, connected(url) as second:
            await first.send(head("POST", "/v2/p/records", content_length=900) + "x" * 800)
            await until(lambda: edge._buffered_bytes == 800)
            await second.send(head("POST", "/v2/p/records", content_length=900) + "x" * 300)
            await second.refusal(400, "DIS.4305")
            assert edge._buffered_bytes == 800
            await first.send(" " * 100)
            assert (await first.answer())[2]["error_code"] == "DIS.4300"
            assert edge._buffered_bytes == 0
            await first.send(head("POST", "/v2/p/records", content_length=len(PUT)) + PUT)
            assert (await first.answer())[0] == 200


async def test_hanging_up_half_way(caplog: pytest.LogCaptureFixture) -> None:
    """A client that leaves in the middle of its body leaves nothing behind, and is no error of the server's."""
    config = ServerConfig(data_dir=None, port=0)
    async with gated(config) as (edge, _, _), edge.listen() as url:
        async with connected(url) as peer:
            await peer.send(head("POST", "/v2/p/records", content_length=900) + "x" * 800)
            await until(lambda: edge._buffered_bytes == 800)
        await until(lambda: edge._buffered_bytes == 0)
    assert not caplog.records


async def test_slow_bodies_end() -> None:
    """A body that does not come is given up."""
    async with serving(body_timeout_s=0.05) as http, connected(http.server.url) as peer:
        await peer.send(head("POST", "/v2/p/records", content_length=900) + "x")
        assert "0.05 s" in await peer.refusal(408, "DIS.4200")


@pytest.mark.parametrize(
    "text",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"HELLO\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nBroken\r\n\r\n",
        b"POST /v2/p/records HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_what_is_not_http(text: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Garbage gets a refusal in the words of DIS and its connection closed, without a traceback in the log."""
    async with serving() as http:
        async with connected(http.server.url) as peer:
            await peer.send(text)
            await peer.refusal(400, "DIS.4200")
        assert (await http.call("GET", "/v2/p/streams")).status == 200
    assert not [r for r in caplog.records if r.levelname == "ERROR"]


async def test_bad_chunks() -> None:
    """A chunked body that breaks its own format is refused."""
    async with serving() as http, connected(http.server.url) as peer:
        await peer.send(head("POST", "/v2/p/records", transfer_encoding="chunked") + "zz\r\n")
        await peer.refusal(400, "DIS.4200")


async def test_one_connection_serves_many() -> None:
    """Requests follow each other on one connection, pipelined too, also after a refusal."""
    async with serving() as http, connected(http.server.url) as peer:
        await peer.send((head("GET", "/v2/p/streams") + head("GET", "/nothing")) * 3)
        assert [(await peer.answer())[0] for _ in range(6)] == [200, 404] * 3


async def test_our_own_bugs_are_answered(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """An exception nobody foresaw is a 500 with DIS.5000, and the log has it with its id."""

    async def broken(request: Request) -> Any:
        raise ZeroDivisionError

    async with serving() as http:
        monkeypatch.setattr(http.server.app, "handle", broken)
        answer = await http.call("GET", "/v2/p/streams")
        assert (answer.status, answer.code) == (500, "DIS.5000")
        assert answer.headers["x-request-id"] in caplog.text
        assert "ZeroDivisionError" in caplog.text


async def test_close_finishes_what_is_under_way() -> None:
    """A request that was received is answered although the server is closing; new ones find nobody."""
    config = ServerConfig(data_dir=None, port=0)
    async with gated(config) as (edge, _, log):
        listening = edge.listen()
        url = await listening.__aenter__()
        async with connected(url) as peer:
            await peer.send(head("POST", "/v2/p/records", content_length=len(PUT)) + PUT)
            await log.entered.wait()
            closing = asyncio.create_task(listening.__aexit__(None, None, None))
            await asyncio.sleep(0)
            with pytest.raises(OSError, match="Connect"):
                async with connected(url):
                    pass
            assert not closing.done()
            log.gate.set()
            assert (await peer.answer())[0] == 200
            await closing


async def test_close_does_not_wait_for_ever() -> None:
    """A request that does not end is cut when the time for closing is over."""
    config = ServerConfig(data_dir=None, port=0, close_timeout_s=0.05)
    async with gated(config) as (edge, _, log), edge.listen() as url, connected(url) as peer:
        await peer.send(head("POST", "/v2/p/records", content_length=len(PUT)) + PUT)
        await log.entered.wait()


async def test_life() -> None:
    """Started and closed in different tasks, closed twice, aborted; no task and no port remains."""
    before = asyncio.all_tasks()
    server = Server(ServerConfig(data_dir=None, port=0))
    with pytest.raises(ClosedError, match="not started"):
        _ = server.url
    await asyncio.create_task(server.start())
    url = server.url
    async with connected(url) as peer:
        await peer.send(head("GET", "/v2/p/streams"))
        assert (await peer.answer())[0] == 200
        await asyncio.create_task(server.close())
        assert await peer.reader.read() == b""
    await server.close()
    with pytest.raises(ClosedError, match="closed"):
        _ = server.url
    with pytest.raises(OSError, match="Connect"):
        async with connected(url):
            pass
    with pytest.raises(ClosedError, match="started already"):
        await server.start()
    aborted = await Server(ServerConfig(data_dir=None, port=0)).start()
    await aborted.abort()
    await aborted.abort()
    assert asyncio.all_tasks() == before


async def test_cancelled_while_starting() -> None:
    """A start that is cancelled at any of its steps leaves no task and no port."""
    before = asyncio.all_tasks()
    for steps in range(12):
        server = Server(ServerConfig(data_dir=None, port=0))
        starting = asyncio.create_task(server.start())
        for _ in range(steps):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await server.abort()
        assert asyncio.all_tasks() == before


async def test_port_in_use() -> None:
    """A port that is taken is told with its address and the remedy, and nothing stays open."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port}: it is in use; give another port"):
            async with Server(ServerConfig(data_dir=None, port=port)):
                pass


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2"])
async def test_other_loopback_addresses(host: str) -> None:
    """The name localhost and other loopback addresses serve as well."""
    async with serving(host=host) as http:
        assert (await http.call("GET", "/v2/p/streams")).status == 200


async def test_localhost_that_leads_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the name localhost resolves to an address others can reach, nothing is served."""

    async def elsewhere(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", elsewhere)
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        await Server(ServerConfig(data_dir=None, port=0, host="localhost")).start()
