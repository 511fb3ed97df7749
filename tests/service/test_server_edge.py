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

from disstream.engine import AppendRefused, Entry, Replayed
from disstream.engine.memory import MemoryEngine, MemoryLog
from disstream.errors import ClosedError, ConfigError, DisError
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
async def connected(url: str, receive_buffer: int | None = None) -> AsyncIterator[Connection]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    sock = socket.socket(socket.AF_INET6 if "[" in host else socket.AF_INET)
    sock.setblocking(False)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (host.strip("[]"), int(port)))
    except BaseException:
        sock.close()
        raise
    reader, writer = await asyncio.open_connection(sock=sock)
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

    async def append(self, entries: Sequence[Entry], now_ms: int) -> list[int | AppendRefused | Replayed]:
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


async def test_who_failed_too_often_sends_no_body() -> None:
    """The room for bodies is for those who are heard; being refused is no failure more."""
    async with serving(max_failures_per_minute=1) as http:
        for _ in range(2):
            assert (await http.call("GET", "/v2/p/streams/none")).code == "DIS.4301"
        async with connected(http.server.url) as peer:
            await peer.send(head("POST", "/v2/p/records", content_length=MIB))
            async with asyncio.timeout(5):
                await peer.refusal(400, "DIS.4309")


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
            await until(lambda: edge.buffered_bytes == 800)
            await second.send(head("POST", "/v2/p/records", content_length=900) + "x" * 300)
            await second.refusal(400, "DIS.4305")
            assert edge.buffered_bytes == 800
            await first.send(" " * 100)
            assert (await first.answer())[2]["error_code"] == "DIS.4300"
            assert edge.buffered_bytes == 0
            await first.send(head("POST", "/v2/p/records", content_length=len(PUT)) + PUT)
            assert (await first.answer())[0] == 200


async def test_hanging_up_half_way(caplog: pytest.LogCaptureFixture) -> None:
    """A client that leaves in the middle of its body leaves nothing behind, and is no error of the server's."""
    config = ServerConfig(data_dir=None, port=0)
    async with gated(config) as (edge, _, _), edge.listen() as url:
        async with connected(url) as peer:
            await peer.send(head("POST", "/v2/p/records", content_length=900) + "x" * 800)
            await until(lambda: edge.buffered_bytes == 800)
        await until(lambda: edge.buffered_bytes == 0)
    assert not caplog.records


async def test_slow_bodies_end() -> None:
    """A body that does not come is given up."""
    async with serving(body_timeout_s=0.05) as http, connected(http.server.url) as peer:
        await peer.send(head("POST", "/v2/p/records", content_length=900) + "x")
        assert "0.05 s" in await peer.refusal(408, "DIS.4200")


async def fill(app: App) -> str:
    """Put 8 MB into "s"; the request that reads them all, more than a socket takes unread."""
    record = {"data": data(bytes(1_000_000))}
    for _ in range(8):
        body = json.dumps({"stream_name": "s", "records": [record]}).encode()
        assert (await app.handle(Request(method="POST", target="/v2/p/records", body=body))).status == 200
    target = "/v2/p/cursors?stream-name=s&partition-id=0&cursor-type=TRIM_HORIZON"
    told = json.loads((await app.handle(Request(method="GET", target=target))).body)
    return head("GET", f"/v2/p/records?partition-cursor={told['partition_cursor']}&max_fetch_bytes=99999999")


async def test_answers_nobody_takes_are_bounded() -> None:
    """Pages that are not taken use up the budget: other pages are refused as retryable, puts are not, till room is."""
    config = ServerConfig(data_dir=None, port=0, max_buffered_bytes=30 * MIB)
    async with gated(config) as (edge, app, log), edge.listen() as url:
        log.gate.set()
        get = await fill(app)
        async with connected(url, 4096) as slow, connected(url) as other:
            await slow.send(get)
            await until(lambda: edge.buffered_bytes > 20 * MIB)
            await other.send(get)
            status, _, told = await other.answer()
            assert (status, told["error_code"]) == (400, "DIS.4305")
            await other.send(head("POST", "/v2/p/records", content_length=len(PUT)) + PUT)
            assert (await other.answer())[2]["failed_record_count"] == 0
            assert len((await slow.answer())[2]["records"]) == 8
            assert edge.buffered_bytes == 0
            await other.send(get)
            assert (await other.answer())[0] == 200


async def test_an_answer_larger_than_the_budget_passes_alone() -> None:
    """No setting makes a record that can be stored impossible to read."""
    config = ServerConfig(data_dir=None, port=0, max_buffered_bytes=12 * MIB)
    async with gated(config) as (edge, app, log), edge.listen() as url, connected(url) as peer:
        log.gate.set()
        await peer.send(await fill(app))
        assert len((await peer.answer())[2]["records"]) == 8


async def test_a_slow_upload_does_not_stop_reading() -> None:
    """Bytes of a body that is still coming leave room for one page at a time, whatever the budget."""
    config = ServerConfig(data_dir=None, port=0, max_buffered_bytes=12 * MIB)
    async with gated(config) as (edge, app, log), edge.listen() as url:
        log.gate.set()
        get = await fill(app)
        async with connected(url) as slow, connected(url) as reader:
            await slow.send(head("POST", "/v2/p/records", content_length=900) + "x")
            await until(lambda: edge.buffered_bytes == 1)
            for _ in range(2):
                await reader.send(get)
                assert len((await reader.answer())[2]["records"]) == 8
        await until(lambda: edge.buffered_bytes == edge.answer_bytes == 0)


async def test_an_answer_nobody_takes_is_given_up() -> None:
    """A client that does not take its answer in time is cut, and its memory comes back."""
    config = ServerConfig(data_dir=None, port=0, answer_timeout_s=0.05)
    async with gated(config) as (edge, app, log), edge.listen() as url:
        log.gate.set()
        get = await fill(app)
        async with connected(url, 4096) as peer:
            await peer.send(get)
            await until(lambda: edge.buffered_bytes > 0)
            await until(lambda: not edge.connections)
            await until(lambda: edge.buffered_bytes == 0)


async def test_close_leaves_nobody_connected() -> None:
    """A client that does not take its answer does not outlive the server."""
    config = ServerConfig(data_dir=None, port=0, close_timeout_s=0.05)
    async with gated(config) as (edge, app, log):
        listening = edge.listen()
        url = await listening.__aenter__()
        log.gate.set()
        get = await fill(app)
        async with connected(url, 4096) as peer:
            await peer.send(get)
            await until(lambda: edge.buffered_bytes > 0)
            await listening.__aexit__(None, None, None)
            await until(lambda: not edge.connections)
            await until(lambda: edge.buffered_bytes == 0)


async def test_idle_connections_end() -> None:
    """Whoever sends nothing, half a head, or nothing after an answer, is not waited for without end."""
    async with (
        serving(idle_timeout_s=0.05) as http,
        connected(http.server.url) as silent,
        connected(http.server.url) as half,
        connected(http.server.url) as kept,
    ):
        await half.send("GET /v2/p/streams HTTP/1.1\r\nX: ")
        await kept.send(head("GET", "/v2/p/streams"))
        assert (await kept.answer())[0] == 200
        for peer in (silent, half, kept):
            assert await peer.reader.read() == b""


async def test_too_many_connections() -> None:
    """A connection beyond the limit ends at once; when another ends there is room again."""
    config = ServerConfig(data_dir=None, port=0, max_connections=2)
    async with gated(config) as (edge, _, _), edge.listen() as url, connected(url) as first:
        async with connected(url) as second:
            for peer in (first, second):
                await peer.send(head("GET", "/v2/p/streams"))
                assert (await peer.answer())[0] == 200
            async with connected(url) as third:
                assert await third.reader.read() == b""
        await until(lambda: len(edge.connections) == 1)
        async with connected(url) as third:
            for peer in (first, third):
                await peer.send(head("GET", "/v2/p/streams"))
                assert (await peer.answer())[0] == 200


async def test_half_closed_after_a_request() -> None:
    """A client that sends a whole request and no more gets its answer; half a request, or none, just ends."""
    config = ServerConfig(data_dir=None, port=0)
    async with gated(config) as (edge, _, log), edge.listen() as url:
        log.gate.set()
        whole = head("POST", "/v2/p/records", content_length=len(PUT)) + PUT
        async with connected(url) as peer:
            await peer.send(whole)
            peer.writer.write_eof()
            assert (await peer.answer())[0] == 200
            assert await peer.reader.read() == b""
        for text in ("", whole[:20], whole[:-1]):
            async with connected(url) as peer:
                await peer.send(text)
                peer.writer.write_eof()
                assert await peer.reader.read() == b""
        await until(lambda: not edge.connections)
        assert edge.buffered_bytes == 0


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


async def test_a_header_that_comes_twice() -> None:
    """Both of its values count: what follows must not hide what the body went through first."""
    async with serving() as http, connected(http.server.url) as line:
        head = "POST /v2/p/records HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n"
        await line.send(f"{head}Content-Encoding: gzip\r\ncontent-encoding: identity\r\n\r\n{{}}")
        status, _, told = await line.answer()
        assert (status, told["error_code"]) == (400, "DIS.4200")
        assert "gzip, identity" in told["message"]


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
        with pytest.raises(DisError, match=rf"127\.0\.0\.1:{port}: it is in use; give another port") as caught:
            async with Server(ServerConfig(data_dir=None, port=port)):
                pass
        assert not isinstance(caught.value, ConfigError)  # what was asked for is right, the machine is not ready for it


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
