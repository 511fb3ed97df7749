"""The transport that talks to a real endpoint. The only module of the client that knows aiohttp.

What a caller needs to know about a failure is whether the request may have been received. aiohttp's exceptions do not
tell: one class means "refused" here and "cut in the middle" there. So each exchange notes the moment it gets a
connection: before it nothing can have left, and the outcome is known; after it, nothing is.

An exchange takes a connection of aiohttp's pool, writes head and body to it, and lets aiohttp's parser read the answer.
With a session, which can do much more, a put costs the client 1.4 times the processor time. It is used where what it
can do is needed: proxies and passwords of the environment, and answers that go on.

The same note forbids what a session does on its own: it silently sends GET and DELETE again when a kept connection
turns out dead. An exchange happens once; repeating is decided above, where it is known what a second execution does.
"""

from __future__ import annotations

import asyncio
import io
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from contextvars import ContextVar
from typing import Any

import aiohttp
import anyio
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.payload import TOO_LARGE_BYTES_BODY
from yarl import URL

from ..errors import ClosedError, ConfigError, TransportError
from ..lifecycle import Limit, loop_time
from ..wire.http import Request, Response
from .api import Streamed
from .config import ClientConfig
from .endpoint import check_endpoint


class _Exchange:
    """Whether the exchange got a connection, so that its request may have left."""

    __slots__ = ("connected",)

    def __init__(self) -> None:
        self.connected = False


_current: ContextVar[_Exchange] = ContextVar("_current")


class _Connector(aiohttp.TCPConnector):
    """Gives each exchange one connection. aiohttp's own tracing could note it too, at 45 us a request."""

    async def connect(self, *args: Any, **kwargs: Any) -> aiohttp.connector.Connection:
        exchange = _current.get()
        if exchange.connected:
            raise TransportError("a kept connection was cut before the answer came", outcome_unknown=True)
        try:
            connection = await super().connect(*args, **kwargs)
            while connection.protocol is not None and len(connection.protocol):
                connection.close()  # an answer has come that nobody asked for: it is not that to this request
                connection = await super().connect(*args, **kwargs)
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            self._release_waiter()  # our turn may have come already: aiohttp would let it pass, and nobody take it
            if not self.closed or task is None or task.cancelling():
                raise
            # Nobody cancelled us: a pool that is closed cancels the futures on which its callers wait.
            raise aiohttp.ClientConnectionError("the pool is closed") from exc
        exchange.connected = True
        return connection


class HttpTransport:
    """One endpoint over HTTP/1.1 with kept connections. May be made outside an event loop; serves one loop."""

    def __init__(self, endpoint: str, config: ClientConfig | None = None) -> None:
        """Raises ConfigError for an endpoint that is none."""
        self.endpoint = check_endpoint(endpoint)
        try:
            origin = URL(self.endpoint).origin()  # a host that is not ASCII becomes its DNS form here
        except ValueError as exc:
            raise ConfigError(f"endpoint {endpoint!r} names a host that cannot be: {exc}") from exc
        self._origin = str(origin)
        self._tls = origin.scheme == "https"
        self.host = origin.host_port_subcomponent or ""
        """What stands in the Host header."""
        self._config = config or ClientConfig()
        # The whole exchange is bounded by our own scope: aiohttp rounds long time-outs up to whole seconds.
        self._timeouts = aiohttp.ClientTimeout(total=None, sock_connect=self._config.connect_timeout_s)
        self._where: aiohttp.ClientRequest | None = None  # says to the pool which connections we take
        self._session: aiohttp.ClientSession | None = None
        self._streams: aiohttp.ClientSession | None = None
        self._reading: set[aiohttp.StreamReader] = set()  # bodies that have begun: a closed pool forgets to end them
        self._closed = False

    def _opened(self) -> aiohttp.ClientSession:
        if self._closed:
            raise ClosedError(f"the transport to {self.endpoint} is closed")
        if self._session is None:
            config = self._config
            connector = _Connector(limit=config.max_connections, keepalive_timeout=config.keepalive_s, ssl=config.ssl)
            self._session = self._made(connector)
        return self._session

    def _made(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeouts,
            trust_env=self._config.trust_env,
            auto_decompress=False,  # a small compressed answer could fill the memory
        )

    async def exchange(self, request: Request) -> Response:
        """As `Transport.exchange`. An answer larger than `max_response_bytes` is a TransportError."""
        session = self._opened()
        timeout_s = self._config.request_timeout_s if request.timeout_s is None else request.timeout_s
        exchange = _Exchange()
        before = _current.set(exchange)
        try:
            async with Limit(loop_time() + timeout_s):
                if self._config.trust_env:
                    return await self._by_session(session, request)
                return await self._directly(session, request)
        except TimeoutError as exc:  # aiohttp's connect time-outs are TimeoutErrors too
            if isinstance(exc, aiohttp.ClientError):
                told = f"no connection within connect_timeout_s={self._config.connect_timeout_s:g}"
            else:
                told = f"no answer within {timeout_s:g} s"
            raise self._failure(request, exchange.connected, told) from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise self._failure(request, exchange.connected, _told(exc)) from exc
        except TransportError as exc:
            raise self._failure(request, exchange.connected, str(exc)) from exc
        except ValueError as exc:
            if not (self._config.trust_env and "authorization" in request.headers):
                raise
            raise ConfigError(
                f"~/.netrc holds a password for {self.endpoint}, and a signed request cannot carry it too: remove that "
                "entry, or set ClientConfig(trust_env=False)"
            ) from exc
        finally:
            _current.reset(before)

    async def _directly(self, session: aiohttp.ClientSession, request: Request) -> Response:
        head = _head(request, self.host)
        connection = await self._connection(session)
        protocol, line = connection.protocol, connection.transport
        assert protocol is not None
        assert line is not None
        try:
            protocol.set_response_params(
                skip_payload=request.method == "HEAD", read_until_eof=True, auto_decompress=False
            )
            line.writelines((head, request.body))
            try:
                message, content = await protocol.read()
                while 100 <= message.code < 200 and message.code != 101:  # only announces the answer
                    message, content = await protocol.read()
            except HttpProcessingError as exc:
                raise TransportError(_improper(exc.message), outcome_unknown=True) from exc
            headers = _headers(message.headers)
            body = await self._read(headers, content)
            if line.get_write_buffer_size() or self._is_suspect(request, message.code):
                protocol.abort()  # it answers without having read all: the rest would come before the next request
                connection.close()
        except BaseException:
            protocol.abort()  # a close would first send the rest of the request, to whoever reads it some day
            connection.close()
            raise
        connection.release()
        return Response(status=message.code, headers=headers, body=body)

    def _is_suspect(self, request: Request, status: int) -> bool:
        """Whether some of the request may wait below TLS, where nobody can see it: a large one that was refused."""
        return self._tls and status >= 300 and len(request.body) > TOO_LARGE_BYTES_BODY

    async def _connection(self, session: aiohttp.ClientSession) -> aiohttp.connector.Connection:
        if self._where is None:
            self._where = aiohttp.ClientRequest("GET", URL(self._origin), loop=asyncio.get_running_loop())
        assert session.connector is not None
        try:
            return await session.connector.connect(self._where, [], self._timeouts)
        except TimeoutError as exc:  # not ours, which comes as a cancellation
            raise aiohttp.ConnectionTimeoutError from exc

    async def _by_session(self, session: aiohttp.ClientSession, request: Request) -> Response:
        async with self._asked(session, request) as answer:
            headers = _headers(answer.headers)
            try:
                body = await self._read(headers, answer.content)
            except TransportError:
                answer.close()  # not released: the rest of the body stays unread
                raise
            return Response(status=answer.status, headers=headers, body=body)

    def _asked(self, session: aiohttp.ClientSession, request: Request) -> aiohttp.client._RequestContextManager:
        return session.request(
            request.method,
            URL(self._origin + request.target, encoded=True),
            headers={"accept-encoding": "identity", **request.headers},
            data=_payload(request.body),
            allow_redirects=False,
        )

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[Streamed]:
        """As `StreamingTransport.stream`. The connection is closed with the block."""
        self._opened()
        if self._streams is None:
            # Without a limit, and kept by nobody: what stays open must not take the place of what is short.
            self._streams = self._made(aiohttp.TCPConnector(limit=0, force_close=True, ssl=self._config.ssl))
        timeout_s = self._config.request_timeout_s if request.timeout_s is None else request.timeout_s
        try:
            with anyio.fail_after(timeout_s):
                answer = await self._asked(self._streams, request)
        except TimeoutError as exc:
            raise self._failure(request, True, f"no answer within {timeout_s:g} s") from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise self._failure(request, not isinstance(exc, aiohttp.ClientConnectorError), _told(exc)) from exc
        try:
            async with aclosing(self._pieces(request, answer)) as pieces:
                yield Streamed(answer.status, _headers(answer.headers), pieces)
        finally:
            answer.close()

    async def _pieces(self, request: Request, answer: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        try:
            async for piece in answer.content.iter_any():
                yield piece
        except (aiohttp.ClientError, OSError) as exc:
            raise self._failure(request, True, _told(exc)) from exc

    async def _read(self, headers: Mapping[str, str], content: aiohttp.StreamReader) -> bytes:
        limit = self._config.max_response_bytes
        coding = headers.get("content-encoding", "identity")
        if coding.lower() != "identity":
            raise TransportError(f"the answer is encoded as {coding[:40]!r} unasked", outcome_unknown=True)
        if int(headers.get("content-length", 0)) <= limit:
            chunks = []
            size = 0
            self._reading.add(content)
            try:
                while size <= limit and (chunk := await content.readany()):
                    size += len(chunk)
                    chunks.append(chunk)
            finally:
                self._reading.discard(content)
            if size <= limit:
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        raise TransportError(
            f"the answer is larger than max_response_bytes={limit}: raise it, or ask for less", outcome_unknown=True
        )

    def _failure(self, request: Request, sent: bool, told: str) -> TransportError:
        path = request.target.partition("?")[0]
        if self._closed:
            told = "the transport was closed meanwhile"
        if sent:
            advice = "the request may have been received"
        else:
            advice = "nothing was sent; is that the address, and does a server run there? `disstream serve` starts one"
        return TransportError(f"{request.method} {self.endpoint}{path}: {told} ({advice})", outcome_unknown=sent)

    async def close(self) -> None:
        """Cut all connections; running exchanges raise TransportError. Twice is fine."""
        self._closed = True
        sessions = self._session, self._streams
        self._session = self._streams = None
        for session in sessions:
            if session is not None and session.connector is not None:
                await session.connector.close()  # not the session, whose exchanges trip over its missing pool then
        for content in self._reading:
            content.set_exception(aiohttp.ServerDisconnectedError())


def _head(request: Request, host: str) -> bytes:
    """Everything in front of the body. Raises ConfigError for what would not end where it should."""
    headers = {"host": host, "accept-encoding": "identity", **request.headers}
    if request.body or request.method not in ("GET", "HEAD"):
        headers["content-length"] = str(len(request.body))
    lines = [f"{request.method} {request.target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    text = "\r\n".join(lines)
    if text.count("\n") >= len(lines) or text.count("\r") >= len(lines) or "\0" in text:
        raise ConfigError(f"{request!r} cannot be sent: its target or a header holds a line end or a null")
    return f"{text}\r\n\r\n".encode()


def _headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _payload(body: bytes) -> bytes | io.BytesIO | None:
    """What aiohttp is to send: it wants large bodies as a stream, and warns of others."""
    if not body:
        return None
    return body if len(body) <= TOO_LARGE_BYTES_BODY else io.BytesIO(body)


def _told(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return (
            f"its certificate is not trusted: {str(error.certificate_error)[:300]}; "
            "name a file with the one to trust in SSL_CERT_FILE, or give ClientConfig(ssl=...)"
        )
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the host's name is not known ({error.os_error.strerror or error.os_error})"
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        if isinstance(cause, ssl.SSLError):  # its number is not one of the operating system's
            return f"no TLS connection, {cause.reason or cause}"
        return f"no connection, {os.strerror(cause.errno) if cause.errno else cause}"
    if isinstance(error, aiohttp.ClientResponseError):  # its text would repeat the URL with its query
        return _improper(error.message or str(error.status))
    return str(error) or type(error).__name__


def _improper(told: str) -> str:
    return f"the answer is not proper HTTP: {told.splitlines()[0][:200] if told else 'it cannot be read'}"
