"""Where HTTP ends: aiohttp requests become plain ones, bounded in number, size, time and total memory.

One budget holds the bodies that have arrived and the answers that are not taken yet; whatever a client keeps the server
waiting for has its time: the head of a request, its body, the taking of the answer.

aiohttp's low-level server is used as it is, without its routing and middlewares, which cost more than a small put.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from http import HTTPStatus
from typing import Protocol, cast

import anyio
from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler

from ..errors import ApiError
from ..wire.errors import api_error, refusal
from ..wire.http import Request, Response
from .answers import Whole, answer
from .config import ServerConfig
from .listening import HANDSHAKE_S, bound, secure

logger = logging.getLogger("disstream.server")

# A client still sending a refused body gets this long to see the refusal; what it sends is thrown away. Closing the
# server waits for it.
_LINGER_S = 1.0
# A larger body is not even received from somebody who cannot sign in: the room is for those who can.
_STRANGERS_BYTES = 65_536


class _Refused(Exception):
    """The request is answered without its body; the connection cannot be used again."""

    def __init__(self, error: ApiError) -> None:
        self.error = error


class Ending(Protocol):
    def end(self) -> None: ...


class Answering(Protocol):
    """An `App`, or what stands for it in another process (front.py)."""

    @property
    def notices(self) -> Ending: ...

    def request_id(self) -> str: ...

    async def precheck(self, headers: Mapping[str, str], peer: str) -> None: ...

    async def handle(self, request: Request) -> Response: ...

    def refused(self, peer: str, status: int, code: str) -> None: ...


class Edge:
    """Speaks HTTP for an `App`. `ended` is called for each connection that is over."""

    def __init__(self, app: Answering, config: ServerConfig, ended: Callable[[], None] | None = None) -> None:
        self._app = app
        self.config = config
        self.ended = ended
        self.buffered_bytes = 0
        self.answer_bytes = 0  # of them: answers that are not taken yet
        self.connections: set[_Connection] = set()

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[str]:
        """Serve inside the block; yields the URL.

        Leaving waits for requests under way, at most `close_timeout_s`; leaving by an exception or a cancellation cuts
        them. Raises DisError if the address cannot be used.
        """
        loop = asyncio.get_running_loop()
        tls = secure(self.config)
        listener, url = await bound(self.config)
        try:
            async with self.answering() as connection:
                accepting = await loop.create_server(
                    connection,
                    sock=listener,
                    start_serving=False,
                    ssl=tls,
                    ssl_handshake_timeout=HANDSHAKE_S if tls else None,
                )
                try:
                    await accepting.start_serving()
                    yield url
                finally:
                    accepting.close()
        finally:
            listener.close()

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[Callable[[], RequestHandler]]:
        """Serve the connections that are made with the protocol it yields; leaving is as in `listen`."""
        server = _Server(self, asyncio.get_running_loop())
        grace_s = 0.001  # aiohttp takes 0 for no limit
        try:
            yield server
            # aiohttp waits this long for handlers, and once more for what they still write.
            grace_s = self.config.close_timeout_s / 2
        finally:
            self._app.notices.end()
            server.pre_shutdown()
            with anyio.CancelScope(shield=True):
                await server.shutdown(grace_s)
            self.cut()

    def cut(self) -> None:
        """End all connections now."""
        for connection in list(self.connections):
            connection.cut()

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        target = request.raw_path
        if not target.isascii():
            # Bytes that are no UTF-8 arrive as lone surrogates, which no answer could quote.
            target = target.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        peer = request.remote or ""
        headers = _headers(request)
        size = 0
        try:
            try:
                body = await self._body(request, headers) if request.body_exists else b""
            except _Refused as refused:
                self._app.refused(peer, refused.error.status, refused.error.code)
                return _closing(refused.error, self._app.request_id())
            size = len(body)
            response = await self._app.handle(
                Request(
                    method=request.method,
                    target=target,
                    headers=headers,
                    body=body,
                    peer=peer,
                )
            )
            if request.method == "GET" and not self._fits(response.body):
                # What was read can be read again; what was stored has to be told.
                response = refusal(api_error("DIS.4305"), response.headers["x-request-id"])
            if response.pieces is not None:
                self.buffered_bytes -= size  # decoded: nobody needs it while the answer goes on
                size = 0
                return await self._piecemeal(request, response, response.pieces)
            return answer(request, response)
        finally:
            self.buffered_bytes -= size

    async def _piecemeal(
        self, request: web.BaseRequest, response: Response, pieces: AsyncGenerator[bytes, None]
    ) -> web.StreamResponse:
        """Write an answer bit by bit; a bit is asked for when the client has taken the one before.

        Ends with its connection, which serves no other request: its client had it opened for this one.
        """
        connection = request.protocol
        assert isinstance(connection, _Connection)
        answer = web.StreamResponse(status=response.status, headers=response.headers)
        if request.version >= HttpVersion11:
            answer.enable_chunked_encoding()
        answer.force_close()
        with suppress(ConnectionError), anyio.CancelScope() as connection.answering:
            async with aclosing(pieces):
                await answer.prepare(request)
                async for piece in pieces:
                    weight = _weight(piece)
                    self.buffered_bytes += weight
                    try:
                        await answer.write(piece)
                        await request.writer.drain()
                    finally:
                        self.buffered_bytes -= weight
        connection.answering = None
        return answer

    def _fits(self, answer: bytes) -> bool:
        """While no other waits an answer passes: it might never fit, and slow uploads must not stop all reading."""
        return not self.answer_bytes or self.buffered_bytes + _weight(answer) <= self.config.max_buffered_bytes

    async def _body(self, request: web.BaseRequest, headers: Mapping[str, str]) -> bytes:
        """The whole body, counted in `buffered_bytes` once it is here. Raises _Refused."""
        limit = self.config.max_body_bytes
        announced = request.content_length or 0
        if announced > limit:
            raise _Refused(_too_large(f"{announced} bytes", limit))
        if announced > _STRANGERS_BYTES or request.content_length is None:
            try:
                await self._app.precheck(headers, request.remote or "")
            except ApiError as error:
                raise _Refused(error) from error
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        content = request.content
        chunks: list[bytes] = []
        try:
            if content.is_eof():  # it is here, as most are
                await self._take(content, chunks)
            else:
                async with asyncio.timeout(self.config.body_timeout_s):
                    await self._take(content, chunks)
        except BaseException as exc:
            self.buffered_bytes -= sum(map(len, chunks))
            if isinstance(exc, TimeoutError):
                told = f"[the body did not arrive within {self.config.body_timeout_s:g} s]"
                raise _Refused(api_error("DIS.4200", told, status=408)) from None
            if isinstance(exc, ConnectionError | web.RequestPayloadError):  # hung up half-way, or sent bad chunks
                raise _Refused(api_error("DIS.4200", "[the body is incomplete]")) from exc
            raise
        return b"".join(chunks)

    async def _take(self, content: StreamReader, chunks: list[bytes]) -> None:
        """Append what arrives until the body ends, each chunk counted in `buffered_bytes`. Raises _Refused."""
        size = 0
        while chunk := await content.readany():
            chunks.append(chunk)
            size += len(chunk)
            self.buffered_bytes += len(chunk)
            if size > self.config.max_body_bytes:
                raise _Refused(_too_large("more bytes", self.config.max_body_bytes))
            if self.buffered_bytes > self.config.max_buffered_bytes:
                raise _Refused(api_error("DIS.4305"))

    def failed(self, status: int, exc: BaseException | None, message: str | None) -> web.Response:
        """The answer to what is not HTTP, and to a request a bug of ours broke."""
        request_id = self._app.request_id()
        # What stands behind a colon is the line at fault, which may hold a token.
        told = (message or HTTPStatus(status).phrase).partition(":")[0][:200]
        if status >= 500:
            logger.error("request %s broke the server", request_id, exc_info=exc)
            error = api_error("DIS.5000", status=status)
        else:
            logger.debug("request %s is not HTTP: %s", request_id, told)
            error = api_error("DIS.4200", f"[{told}]", status=status)
        return _closing(error, request_id)


class _Server(web.Server):
    """aiohttp's, with connections of our own."""

    def __init__(self, edge: Edge, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(edge.serve, request_factory=_request, loop=loop)
        self._edge = edge

    def __call__(self) -> RequestHandler:
        return _Connection(self, self._edge, self._loop)


class _Connection(RequestHandler):
    """aiohttp's, which fails in the words of DIS, and does not wait for ever for its client.

    `keepalive_timeout` runs from the beginning and from each answer until the next head is complete, idle or not. What
    follows a head is timed by `Edge._body` and here.
    """

    __slots__ = ("_edge", "_overdue", "_socket", "answering", "payload")

    def __init__(self, server: _Server, edge: Edge, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]
            auto_decompress=False,
            keepalive_timeout=edge.config.idle_timeout_s,
            lingering_time=_LINGER_S,
        )
        self._edge = edge
        self._socket: asyncio.Transport | None = None  # aiohttp forgets its own before everything is sent
        self._overdue: asyncio.TimerHandle | None = None
        self.answering: anyio.CancelScope | None = None  # while an answer goes on: it ends with the connection
        self.payload: StreamReader = EMPTY_PAYLOAD  # of the last request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast(asyncio.Transport, transport)
        if len(self._edge.connections) >= self._edge.config.max_connections:
            self.cut()
            return
        self._edge.connections.add(self)
        # Writing counts as paused as soon as the client does not take all at once, and until it has taken all.
        self._socket.set_write_buffer_limits(high=0)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._edge.connections.discard(self)
        self._in_time()
        if self._edge.ended is not None:
            self._edge.ended()
        if self.answering is not None:
            self.answering.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._overdue = self._loop.call_later(self._edge.config.answer_timeout_s, self.cut)

    def resume_writing(self) -> None:
        self._in_time()
        super().resume_writing()

    def _in_time(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def cut(self) -> None:
        """End it now, without what is not sent yet."""
        if self._socket is not None:
            self._socket.abort()

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that sends no more after a whole request still gets the answer; True keeps the connection for it.

        One that goes on ends, though: with closing its client most likely wants just that.
        """
        if self.answering is not None:
            return False
        idle = self._waiter is not None and not self._waiter.done()
        if idle or not all(payload.is_eof() for payload in (self.payload, *(waiting for _, waiting in self._messages))):
            return False
        self.close()  # after the answer
        return self._edge.config.tls_certificate is None  # TLS has no way to keep half of a connection

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Write the answer, which counts as buffered until the client has taken it."""
        weight = _weight(resp.body) if isinstance(resp, (Whole, web.Response)) else 0
        self._edge.buffered_bytes += weight
        self._edge.answer_bytes += weight
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._edge.buffered_bytes -= weight
            self._edge.answer_bytes -= weight

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had begun already")
        return self._edge.failed(status, exc, message)


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    assert isinstance(protocol, _Connection)
    protocol.payload = payload
    return web.BaseRequest(message, payload, protocol, writer, task, protocol._loop)


def _headers(request: web.BaseRequest) -> dict[str, str]:
    """By their names in lower case. A name that comes twice is a list (RFC 9110, 5.3), and must not hide its first."""
    given = request.headers
    headers = {name.lower(): value for name, value in given.items()}
    if len(headers) == len(given):
        return headers
    return {name: ", ".join(given.getall(name)) for name in headers}


def _closing(error: ApiError, request_id: str) -> web.Response:
    """A refusal after which the connection ends."""
    response = refusal(error, request_id)
    answer = web.Response(status=response.status, headers=response.headers, body=response.body)
    answer.force_close()
    return answer


def _weight(body: object) -> int:
    """What an answer costs until it is sent: beside it the transport holds a copy."""
    return 2 * len(body) if isinstance(body, bytes) else 0


def _too_large(what: str, limit: int) -> ApiError:
    return api_error("DIS.4200", f"[the body has {what}, more than {limit}]", status=413)
