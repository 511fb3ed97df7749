"""Where HTTP ends: aiohttp requests become plain ones, bounded in size, time and total memory.

aiohttp's low-level server is used as it is, without its routing and middlewares, which cost more than a small put.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import anyio
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from ..errors import ApiError, ConfigError
from ..wire.errors import api_error, refusal
from ..wire.http import Request
from .app import App
from .config import ServerConfig

logger = logging.getLogger("disstream.server")

# A client still sending a refused body gets this long to see the refusal; what it sends is thrown away. Closing the
# server waits for it.
_LINGER_S = 1.0


class _Refused(Exception):
    """The request is answered without its body; the connection cannot be used again."""

    def __init__(self, error: ApiError) -> None:
        self.error = error


class Edge:
    """Speaks HTTP for an `App`."""

    def __init__(self, app: App, config: ServerConfig) -> None:
        self._app = app
        self._config = config
        self._buffered_bytes = 0

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[str]:
        """Serve inside the block; yields the URL.

        Leaving waits for requests under way, at most `close_timeout_s`; leaving by an exception or a cancellation cuts
        them. Raises ConfigError if the address cannot be used.
        """
        loop = asyncio.get_running_loop()
        host = await _resolve(self._config.host)
        # Bound here, because asyncio leaks a socket of its own making if it is cancelled on the way.
        listener = _bind(host, self._config.port)
        port = listener.getsockname()[1]
        server = _Server(self, loop)
        grace_s = 0.001  # aiohttp takes 0 for no limit
        try:
            accepting = await loop.create_server(server, sock=listener, start_serving=False)
            try:
                await accepting.start_serving()
                yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
                # aiohttp waits this long for handlers, and once more for what they still write.
                grace_s = self._config.close_timeout_s / 2
            finally:
                accepting.close()
                server.pre_shutdown()
                with anyio.CancelScope(shield=True):
                    await server.shutdown(grace_s)
        finally:
            listener.close()

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        target = request.raw_path
        if not target.isascii():
            # Bytes that are no UTF-8 arrive as lone surrogates, which no answer could quote.
            target = target.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        size = 0
        try:
            try:
                body = await self._body(request) if request.body_exists else b""
            except _Refused as refused:
                return _closing(refused.error, self._app.request_id())
            size = len(body)
            response = await self._app.handle(
                Request(
                    method=request.method,
                    target=target,
                    headers={name.lower(): value for name, value in request.headers.items()},
                    body=body,
                )
            )
            return web.Response(status=response.status, headers=response.headers, body=response.body)
        finally:
            self._buffered_bytes -= size

    async def _body(self, request: web.BaseRequest) -> bytes:
        """The whole body, counted in `_buffered_bytes` once it is here. Raises _Refused."""
        limit = self._config.max_body_bytes
        announced = request.content_length or 0
        if announced > limit:
            raise _Refused(_too_large(f"{announced} bytes", limit))
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        content = request.content
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(None if content.is_eof() else self._config.body_timeout_s):
                while chunk := await content.readany():
                    size += len(chunk)
                    self._buffered_bytes += len(chunk)
                    if size > limit:
                        raise _Refused(_too_large("more bytes", limit))
                    if self._buffered_bytes > self._config.max_buffered_bytes:
                        raise _Refused(api_error("DIS.4305"))
                    chunks.append(chunk)
        except BaseException as exc:
            self._buffered_bytes -= size
            if isinstance(exc, TimeoutError):
                told = f"[the body did not arrive within {self._config.body_timeout_s:g} s]"
                raise _Refused(api_error("DIS.4200", told, status=408)) from None
            if isinstance(exc, ConnectionError | web.RequestPayloadError):  # hung up half-way, or sent bad chunks
                raise _Refused(api_error("DIS.4200", "[the body is incomplete]")) from exc
            raise
        return b"".join(chunks)

    def failed(self, status: int, exc: BaseException | None, message: str | None) -> web.Response:
        """The answer to what is not HTTP, and to a request a bug of ours broke."""
        request_id = self._app.request_id()
        if status >= 500:
            logger.error("request %s broke the server", request_id, exc_info=exc)
            error = api_error("DIS.5000", status=status)
        else:
            logger.debug("request %s is not HTTP: %s", request_id, message)
            error = api_error("DIS.4200", f"[{(message or HTTPStatus(status).phrase)[:200]}]", status=status)
        return _closing(error, request_id)


class _Server(web.Server):
    """aiohttp's, with connections that fail in the words of DIS."""

    def __init__(self, edge: Edge, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(edge.serve, loop=loop)
        self.edge = edge

    def __call__(self) -> RequestHandler:
        return _Connection(
            self, loop=self._loop, edge=self.edge, access_log=None, auto_decompress=False, lingering_time=_LINGER_S
        )


class _Connection(RequestHandler):
    __slots__ = ("_edge",)

    def __init__(self, manager: web.Server, *, edge: Edge, **options: Any) -> None:
        super().__init__(manager, **options)
        self._edge = edge

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


def _closing(error: ApiError, request_id: str) -> web.Response:
    """A refusal after which the connection ends."""
    response = refusal(error, request_id)
    answer = web.Response(status=response.status, headers=response.headers, body=response.body)
    answer.force_close()
    return answer


def _too_large(what: str, limit: int) -> ApiError:
    return api_error("DIS.4200", f"[the body has {what}, more than {limit}]", status=413)


def _bind(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=1024
        )
    except OSError as exc:
        why = "it is in use" if exc.errno == errno.EADDRINUSE else exc.strerror or exc
        raise ConfigError(f"cannot listen on {host}:{port}: {why}; give another port, or 0 for a free one") from exc


async def _resolve(host: str) -> str:
    """The address to bind. Raises ConfigError if the name localhost leads elsewhere."""
    if host != "localhost":
        return host
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    addresses = [str(info[4][0]) for info in found]
    for address in addresses:
        if not ipaddress.ip_address(address).is_loopback:
            raise ConfigError(f"localhost resolves to {address}, which is not this machine: give host='127.0.0.1'")
    # One address only, or port 0 would become two ports; IPv4 first, as every client tries it.
    return next((a for a in addresses if ":" not in a), addresses[0])
