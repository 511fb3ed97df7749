"""A whole answer on its way out: aiohttp's `web.Response`, without what nobody here asks it for.

That one can be changed up to the last moment (cookies, compression, pieces, hooks), and is asked about each of these:
2 % of a request, and a large page was copied once more. What goes over the wire is the same byte for byte;
`tests/service/test_answers.py` compares the two.
"""

from __future__ import annotations

import functools
from email.utils import formatdate

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import SERVER_SOFTWARE

from .. import clock
from ..wire.http import Response

_APART_BYTES = 262_144
"""A larger body goes out behind its head, not joined to it: another call of the system costs less than the copy."""


def answer(request: web.BaseRequest, response: Response) -> web.StreamResponse:
    """What aiohttp is to send to this request."""
    if response.body and response.status >= 200 and response.status not in (204, 304) and request.method != "HEAD":
        return Whole(response)
    return web.Response(status=response.status, headers=response.headers, body=response.body)


class Whole(web.StreamResponse):
    """An answer with a body, which is known from the beginning."""

    def __init__(self, response: Response) -> None:
        super().__init__(status=response.status, headers=response.headers)
        self.body = response.body
        self._writer: AbstractStreamWriter | None = None

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Write the head, which waits for the body in aiohttp's writer."""
        self._keep_alive = request.keep_alive
        headers = self.headers
        headers["Content-Length"] = str(len(self.body))
        headers.setdefault("Content-Type", "application/octet-stream")
        headers["Date"] = _date(int(clock.wall()))
        headers["Server"] = SERVER_SOFTWARE
        version = request.version
        if request.keep_alive:
            if version == HttpVersion10:
                headers["Connection"] = "keep-alive"
        elif version == HttpVersion11:
            headers["Connection"] = "close"
        self._writer = writer = request.writer
        await writer.write_headers(f"HTTP/{version.major}.{version.minor} {self.status} {self.reason}", headers)
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        assert self._writer is not None, "prepare it first"
        assert not data, "it has its body"
        body, self.body = self.body, b""  # aiohttp keeps the answer until the connection has another one
        if len(body) > _APART_BYTES:
            self._writer.send_headers()
        await self._writer.write_eof(body)


@functools.lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
