"""Proves what the HTTP transport puts on a real socket, and what it makes of servers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import aiohttp
import anyio
import anyio.lowlevel
import pytest
from certificates import certified

from disstream.client import Client, ClientConfig, HttpTransport
from disstream.errors import ClosedError, ConfigError, TransportError
from disstream.wire.http import Request

Behave = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Request-Id: r1\r\n\r\nok"


class RawServer:
    """A TCP server that reads one request at a time and lets `behave` do the rest; counts what arrives."""

    def __init__(self, behave: Behave) -> None:
        self._behave = behave
        self.connections = 0
        self.requests: list[bytes] = []
        self.url = ""
        self.arrived = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
                )
                self.requests.append(head + await reader.readexactly(length))
                self.arrived.set()
                await self._behave(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)


def saying(answer: bytes, *, then_close: bool = False) -> Behave:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        if then_close:
            writer.close()

    return behave


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)


@contextlib.asynccontextmanager
async def transport_to(url: str, config: ClientConfig | None = None) -> AsyncIterator[HttpTransport]:
    transport = HttpTransport(url, config)
    try:
        yield transport
    finally:
        await transport.close()


GET = Request(method="GET", target="/v2/p/streams")


async def test_what_is_sent() -> None:
    """The target goes out exactly as given, escapes included, with headers and body; no cookies, no compression."""
    answer = b"HTTP/1.1 201 Created\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\nX-Odd: 1\r\n\r\n"
    async with RawServer(saying(answer)).running() as server, transport_to(server.url) as transport:
        target = "/v2/p/streams/a%2Fb%20c~%7E?x=%2B%3D&empty="
        request = Request(method="POST", target=target, headers={"x-project-id": "p"}, body=b"\x00body")
        response = await transport.exchange(request)
        await transport.exchange(request)
    assert (response.status, response.body, response.headers["x-odd"]) == (201, b"", "1")
    head, _, body = server.requests[1].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    assert lines[0] == f"POST {target} HTTP/1.1"
    assert body == b"\x00body"
    assert headers["host"] == server.url.removeprefix("http://")
    assert headers["x-project-id"] == "p"
    assert headers["accept-encoding"] == "identity"
    assert headers["content-length"] == "5"
    assert "cookie" not in headers


async def test_connections_are_reused_and_bounded() -> None:
    """Calls one after another share a connection; calls at once use at most max_connections."""
    async with RawServer(saying(OK)).running() as server:
        async with transport_to(server.url) as transport:
            for _ in range(5):
                assert (await transport.exchange(GET)).body == b"ok"
        assert server.connections == 1
        async with transport_to(server.url, ClientConfig(max_connections=3)) as transport:
            await asyncio.gather(*(transport.exchange(GET) for _ in range(20)))
        assert server.connections <= 4
    assert len(server.requests) == 25


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        bytes(range(256)) * 10,
    ],
    ids=[
        "closes at once",
        "closes in head",
        "closes after head",
        "half a body",
        "half a chunk",
        "bad chunk",
        "bad length",
        "unasked gzip",
        "huge head",
        "not http",
        "garbage",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_bad_answers(method: str, answer: bytes) -> None:
    """Whatever comes back that is no answer: TransportError, outcome unknown, named, and never sent a second time."""
    async with RawServer(saying(answer, then_close=True)).running() as server, transport_to(server.url) as transport:
        request = Request(method=method, target="/v2/p/records?secret=1", body=b"x" if method == "POST" else b"")
        with pytest.raises(TransportError) as caught:
            await transport.exchange(request)
    assert caught.value.outcome_unknown
    assert f"{method} {server.url}/v2/p/records: " in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "may have been received" in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
async def test_a_kept_connection_that_died(method: str) -> None:
    """A kept connection cut under a request: outcome unknown, and no silent second try, whatever the method."""
    behaviours = iter([saying(OK), saying(b"", then_close=True)])

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await next(behaviours)(reader, writer)

    async with RawServer(behave).running() as server, transport_to(server.url) as transport:
        await transport.exchange(GET)
        with pytest.raises(TransportError) as caught:
            await transport.exchange(Request(method=method, target="/v2/p/x"))
    assert caught.value.outcome_unknown
    assert len(server.requests) == 2
    assert server.connections <= 2


async def test_an_answer_that_nobody_asked_for() -> None:
    """What comes while a connection is idle is not the answer to the next request, and shifts no later one."""
    stale = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 5\r\n\r\nstale"
    writers: list[asyncio.StreamWriter] = []

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(OK)

    async with RawServer(behave).running() as server, transport_to(server.url) as transport:
        await transport.exchange(GET)
        writers[0].write(stale)
        assert transport._session is not None
        assert transport._session.connector is not None
        [[(idle, _)]] = transport._session.connector._conns.values()
        with anyio.fail_after(5):
            while not len(idle):
                await anyio.lowlevel.checkpoint()
        for _ in range(2):
            response = await transport.exchange(Request(method="POST", target="/", body=b"x"))
            assert (response.status, response.body) == (200, b"ok")
    assert server.connections == 2


async def test_nothing_listens() -> None:
    """A refused connection: nothing was sent, and the message asks for the endpoint."""
    with socket.socket() as holder:  # bound, not listening: nobody else takes the port meanwhile
        holder.bind(("127.0.0.1", 0))
        async with transport_to(f"http://127.0.0.1:{holder.getsockname()[1]}") as transport:
            with pytest.raises(TransportError, match=r"no connection, Connection refused .nothing was sent") as caught:
                await transport.exchange(Request(method="POST", target="/", body=b"x"))
    assert not caught.value.outcome_unknown
    assert caught.value.retryable


async def test_an_attempt_that_failed_is_let_go_of_at_once() -> None:
    """What aiohttp's frames and errors hold of it does not wait for the garbage collector: an outage has thousands."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{holder.getsockname()[1]}"
        async with Client(url, "let-go", ClientConfig(attempts=1)) as client:
            gc.collect()
            gc.disable()
            try:
                for _ in range(5):
                    with contextlib.suppress(TransportError):
                        await client.records.put_encoded(b"{}")
                assert client.stats().requests == 5
                assert not [it for it in gc.get_objects() if isinstance(it, Request) and "let-go" in it.target]
            finally:
                gc.enable()


async def test_an_unknown_host() -> None:
    """A name that does not resolve: nothing was sent."""
    async with transport_to("http://nowhere.invalid:1") as transport:
        with pytest.raises(TransportError, match="the host's name is not known") as caught:
            await transport.exchange(GET)
    assert not caught.value.outcome_unknown


async def test_tls_with_a_server_that_speaks_none() -> None:
    """A failed handshake: nothing of the request was sent."""
    async with await asyncio.start_server(_reject, "127.0.0.1", 0) as rejecting:
        port = rejecting.sockets[0].getsockname()[1]
        async with transport_to(f"https://127.0.0.1:{port}") as transport:
            with pytest.raises(TransportError) as caught:
                await transport.exchange(Request(method="POST", target="/", body=b"x"))
    assert not caught.value.outcome_unknown


async def _reject(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(10)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    writer.close()


async def test_a_server_that_hangs() -> None:
    """The request's own time-out, and else the configured one, ends the wait; outcome unknown."""
    async with RawServer(hang).running() as server:
        async with transport_to(server.url) as transport:
            with pytest.raises(TransportError, match=r"no answer within 0\.05 s") as caught:
                await transport.exchange(Request(method="GET", target="/", timeout_s=0.05))
        assert caught.value.outcome_unknown
        async with transport_to(server.url, ClientConfig(request_timeout_s=0.04)) as transport:
            with pytest.raises(TransportError, match=r"no answer within 0\.04 s"):
                await transport.exchange(GET)


async def test_an_answer_that_came_while_the_loop_was_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finds the answer and the end of its time at once takes the answer: without it the outcome is unknown."""
    loop = asyncio.get_running_loop()
    time, ahead_s = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: time() + ahead_s)

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal ahead_s
        writer.write(OK)
        ahead_s += 1000.0

    async with RawServer(behave).running() as server, transport_to(server.url) as transport:
        for _ in range(2):
            assert (await transport.exchange(GET)).body == b"ok"


async def test_a_request_that_was_given_up_is_not_sent_to_its_end() -> None:
    """Of a request that nobody waits for no more is sent: its body would be kept until the server reads it, late."""
    body = bytes(32 * 2**20)  # more than sockets buffer
    awake = asyncio.Event()
    received = asyncio.get_running_loop().create_future()

    async def sleep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await awake.wait()
        size = 0
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(2**20):
                size += len(piece)
        received.set_result(size)
        writer.close()

    async with await asyncio.start_server(sleep, "127.0.0.1", 0, limit=2**12) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with transport_to(url) as transport:
            with pytest.raises(TransportError, match="no answer within"):
                await transport.exchange(Request(method="POST", target="/", body=body, timeout_s=0.05))
            awake.set()
            with anyio.fail_after(10):
                assert await received < len(body)


async def test_waiting_for_a_connection_sends_nothing() -> None:
    """A time-out while all connections are busy is a known outcome: the request never left."""
    async with (
        RawServer(hang).running() as server,
        transport_to(server.url, ClientConfig(max_connections=1)) as transport,
    ):
        busy = asyncio.create_task(transport.exchange(GET))
        await server.arrived.wait()
        with pytest.raises(TransportError) as caught:
            await transport.exchange(Request(method="POST", target="/", body=b"x", timeout_s=0.05))
        busy.cancel()
        await asyncio.wait({busy})
    assert not caught.value.outcome_unknown
    assert len(server.requests) == 1


async def test_cancelled_when_its_turn_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gives up just when a connection is free leaves it to the next who waits."""
    held = asyncio.Event()
    release = aiohttp.TCPConnector._release_waiter

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await held.wait()
        writer.write(OK)

    def release_and_cancel(connector: aiohttp.TCPConnector) -> None:
        release(connector)
        second.cancel()

    async with (
        RawServer(hold).running() as server,
        transport_to(server.url, ClientConfig(max_connections=1)) as transport,
    ):
        first = asyncio.create_task(transport.exchange(GET))
        await server.arrived.wait()
        second = asyncio.create_task(transport.exchange(GET))
        third = asyncio.create_task(transport.exchange(GET))
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        monkeypatch.setattr(aiohttp.TCPConnector, "_release_waiter", release_and_cancel)
        held.set()
        with anyio.fail_after(5):
            await asyncio.wait({first, second, third})
        assert second.cancelled()
        assert third.result().status == 200


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
    ids=["told", "chunked", "until closed"],
)
async def test_a_body_without_end(head: bytes) -> None:
    """An answer larger than allowed is refused after reading no more than the limit, told or not."""
    written = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(head)
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        while True:
            writer.write(chunk)
            await writer.drain()
            written += len(chunk)

    config = ClientConfig(max_response_bytes=100_000)
    async with RawServer(flood).running() as server, transport_to(server.url, config) as transport:
        with pytest.raises(TransportError, match="larger than max_response_bytes=100000: raise it") as caught:
            await transport.exchange(GET)
    assert caught.value.outcome_unknown
    assert written < 64 * 2**20  # what sockets buffer, not what the server would send


async def test_redirects_are_answers() -> None:
    """A redirect is handed up as it is: following it would send records to a place nobody named."""
    answer = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://elsewhere.invalid/\r\nContent-Length: 0\r\n\r\n"
    async with RawServer(saying(answer)).running() as server, transport_to(server.url) as transport:
        response = await transport.exchange(GET)
    assert (response.status, response.headers["location"]) == (307, "http://elsewhere.invalid/")


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY matters only to those who say trust_env."""
    async with RawServer(saying(OK)).running() as proxy, RawServer(saying(OK)).running() as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        async with transport_to(server.url) as transport:
            await transport.exchange(GET)
        assert (len(proxy.requests), len(server.requests)) == (0, 1)
        async with transport_to("http://dis.invalid", ClientConfig(trust_env=True)) as transport:
            await transport.exchange(GET)
        assert proxy.requests[0].startswith(b"GET http://dis.invalid/v2/p/streams HTTP/1.1\r\n")


@pytest.mark.parametrize("trust_env", [False, True])
async def test_closing_under_a_request(monkeypatch: pytest.MonkeyPatch, trust_env: bool) -> None:
    """A transport closed while an answer is awaited raises at once, says so, and stays closed."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with RawServer(hang).running() as server:
        transport = HttpTransport(server.url, ClientConfig(trust_env=trust_env))
        waiting = asyncio.create_task(transport.exchange(GET))
        await server.arrived.wait()
        await transport.close()
        await transport.close()
        with pytest.raises(TransportError, match="closed meanwhile") as caught:
            await waiting
        assert caught.value.outcome_unknown
        with pytest.raises(ClosedError):
            await transport.exchange(GET)


@pytest.mark.parametrize("trust_env", [False, True])
async def test_closing_while_a_connection_is_awaited(monkeypatch: pytest.MonkeyPatch, trust_env: bool) -> None:
    """Who waits for a connection is told that the transport was closed, not that he was cancelled."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with RawServer(hang).running() as server:
        transport = HttpTransport(server.url, ClientConfig(max_connections=1, trust_env=trust_env))
        first = asyncio.create_task(transport.exchange(GET))
        await server.arrived.wait()
        others = [asyncio.create_task(transport.exchange(GET)) for _ in range(2)]
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        others[1].cancel()
        await transport.close()
        with pytest.raises(TransportError, match="closed meanwhile") as caught:
            await others[0]
        assert not caught.value.outcome_unknown
        with pytest.raises(asyncio.CancelledError):
            await others[1]
        with pytest.raises(TransportError, match="closed meanwhile"):
            await first


async def test_closing_in_the_middle_of_an_answer() -> None:
    """Of an answer that has begun no more is awaited once the transport is closed."""
    reading = asyncio.Event()

    class Reading(HttpTransport):
        async def _read(self, headers: Mapping[str, str], content: aiohttp.StreamReader) -> bytes:
            asyncio.get_running_loop().call_soon(reading.set)
            return await super()._read(headers, content)

    begun = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
    async with RawServer(saying(begun)).running() as server:
        transport = Reading(server.url)
        waiting = asyncio.create_task(transport.exchange(GET))
        await reading.wait()
        await transport.close()
        with anyio.fail_after(5), pytest.raises(TransportError, match="closed meanwhile") as caught:
            await waiting
    assert caught.value.outcome_unknown


@pytest.mark.parametrize("tls", [False, True])
async def test_an_answer_that_comes_early(tls: bool, tmp_path: Path) -> None:
    """Who answers without having read the request gets no other one behind the rest of it."""
    refusal = b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\n\r\n"
    connections = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(refusal)
        ended.append(asyncio.get_running_loop().create_future())
        await ended[-1]
        writer.transport.abort()

    ended: list[asyncio.Future[None]] = []
    theirs, ours = contexts(tmp_path) if tls else (None, True)
    async with await asyncio.start_server(refuse, "127.0.0.1", 0, limit=2**12, ssl=theirs) as server:
        url = f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with transport_to(url, ClientConfig(ssl=ours)) as transport:
            for _ in range(2):
                request = Request(method="POST", target="/v2/p/records", body=bytes(16 * 2**20), timeout_s=5)
                assert (await transport.exchange(request)).status == 413
        for future in ended:
            future.set_result(None)
    assert connections == 2


async def test_tls(tmp_path: Path) -> None:
    """Requests with and without a body share a connection over TLS; a small one that is refused does not end it."""
    refusal = b"HTTP/1.1 429 Slow Down\r\nContent-Length: 0\r\n\r\n"
    theirs, ours = contexts(tmp_path)
    answers = iter([OK, OK, OK, refusal, OK])

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(next(answers))

    async with RawServer(behave).running(theirs) as server, transport_to(server.url, ClientConfig(ssl=ours)) as it:
        for size in (0, 1, 2**22, 2**20, 0):
            await it.exchange(Request(method="POST" if size else "GET", target="/", body=bytes(size)))
    assert [len(request.partition(b"\r\n\r\n")[2]) for request in server.requests] == [0, 1, 2**22, 2**20, 0]
    assert server.connections == 1


def contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a server of this machine, and a client that trusts it, need for TLS."""
    certificate, key = certified(folder)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(certificate, key)
    return theirs, ssl.create_default_context(cafile=str(certificate))


async def test_what_announces_an_answer() -> None:
    """100 and 103 come in front of an answer, and are none."""
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK
    async with RawServer(saying(answer)).running() as server, transport_to(server.url) as transport:
        for _ in range(2):
            response = await transport.exchange(GET)
            assert (response.status, response.body) == (200, b"ok")
    assert server.connections == 1


@pytest.mark.parametrize("bad", ["a\r\nx: y", "a\ny", "a\ry", "a\0"])
async def test_no_header_ends_early(bad: str) -> None:
    """A value that would begin a header of its own is refused, and nothing is sent."""
    async with RawServer(saying(OK)).running() as server, transport_to(server.url) as transport:
        for request in (
            Request(method="GET", target="/", headers={"x-auth-token": bad}),
            Request(method="GET", target=f"/{bad}"),
        ):
            with pytest.raises(ConfigError, match="a line end or a null"):
                await transport.exchange(request)
    assert not server.requests


async def test_cancelled_while_waiting() -> None:
    """A cancelled exchange ends at once, gives its connection up, and the next one works."""
    behaviours = iter([hang, saying(OK)])

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await next(behaviours)(reader, writer)

    async with RawServer(behave).running() as server, transport_to(server.url) as transport:
        waiting = asyncio.create_task(transport.exchange(GET))
        await server.arrived.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with anyio.fail_after(5):
            assert (await transport.exchange(GET)).body == b"ok"
    assert server.connections == 2


def test_made_before_there_is_a_loop() -> None:
    """Transports are made where there is no event loop yet; bad endpoints are refused there already."""
    transport = HttpTransport("http://127.0.0.1:1/")
    assert transport.endpoint == "http://127.0.0.1:1"
    with pytest.raises(ConfigError, match="a prefix cannot be honoured"):
        HttpTransport("http://127.0.0.1:1/dis")
    with pytest.raises(ConfigError, match="a host that cannot be"):
        HttpTransport(f"http://{'ä' * 300}")
    assert HttpTransport("http://bücher.example")._origin == "http://xn--bcher-kva.example"
    asyncio.run(transport.close())


async def test_a_host_that_never_accepts() -> None:
    """A connection that does not come about in connect_timeout_s: nothing was sent, and the setting is named."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):  # once the queue is full, the kernel drops what else knocks
            knocking = sockets.enter_context(socket.socket())
            knocking.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                knocking.connect(listener.getsockname())
        config = ClientConfig(connect_timeout_s=0.05)
        async with transport_to(f"http://127.0.0.1:{listener.getsockname()[1]}", config) as transport:
            with pytest.raises(TransportError, match=r"no connection within connect_timeout_s=0\.05") as caught:
                await transport.exchange(GET)
    assert not caught.value.outcome_unknown
