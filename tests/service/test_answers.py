"""What we write in aiohttp's place is what aiohttp would write."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from disstream.server.answers import answer
from disstream.wire.http import Response

LAST = "GET /last HTTP/1.0\r\n\r\n"
REQUESTS = {
    "1.1": " / HTTP/1.1\r\nHost: x\r\n\r\n" + LAST,
    "1.1, closed": " / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "1.0": " / HTTP/1.0\r\n\r\n",
    "1.0, kept": " / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + LAST,
}
"""What follows the method; a connection that stays open has another request, which ends it."""
RESPONSES = [
    Response(status=200, headers={"content-type": "application/json", "x-request-id": "é"}, body=b"{}"),
    Response(status=200, headers={"content-type": "application/x-protobuf", "a": "1"}, body=b"\0" * 3_000_000),
    Response(status=201, body=b"no type"),
    Response(status=404, headers={"content-type": "application/json", "allow": "GET, PUT"}, body=b'"none"'),
    Response(status=599, headers={"content-type": "application/json"}, body=b"a status without a name"),
    Response(status=200, headers={"content-type": "application/json"}),
    Response(status=204, headers={"x-request-id": "1"}),
    Response(status=204, headers={"content-type": "application/json"}, body=b"that is not sent"),
    Response(status=304, body=b"that is not sent"),
]

Make = Callable[[web.BaseRequest, Response], web.StreamResponse]


def as_aiohttp(_: web.BaseRequest, response: Response) -> web.StreamResponse:
    return web.Response(status=response.status, headers=response.headers, body=response.body)


@asynccontextmanager
async def listening(
    handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a server that answers so."""
    server = web.Server(handle)
    accepting = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*accepting.sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        accepting.close()
        await server.shutdown()


async def written(make: Make, request: str, response: Response) -> bytes:
    """All that comes back until the connection ends, without the dates."""

    async def handle(received: web.BaseRequest) -> web.StreamResponse:
        return make(received, response)

    async with listening(handle) as (reader, writer):
        writer.write(request.encode())
        found = await reader.read()
    return re.sub(rb"Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n", b"Date\r\n", found)


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
@pytest.mark.parametrize("kind", REQUESTS)
async def test_the_same_goes_over_the_wire(kind: str, method: str) -> None:
    """Byte for byte, and the connection goes on or ends likewise."""
    for response in RESPONSES:
        request = method + REQUESTS[kind]
        assert await written(answer, request, response) == await written(as_aiohttp, request, response)


async def test_no_header_can_begin_another() -> None:
    """With a line break in a header nothing is sent at all."""
    response = Response(status=200, headers={"content-type": "a\r\nb: c"}, body=b"1")
    assert await written(answer, LAST, response) == await written(as_aiohttp, LAST, response) == b""


async def test_an_answer_that_was_taken_is_let_go_of() -> None:
    """A connection that waits for its next request keeps nothing of the last one's answer: there may be thousands."""
    body = bytes(3_000_000)

    async def handle(received: web.BaseRequest) -> web.StreamResponse:
        return answer(received, Response(status=200, body=body))

    async with listening(handle) as (reader, writer):
        before = sys.getrefcount(body)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(body))
        for _ in range(100):  # turns of the loop in which the server gets to its end
            await asyncio.sleep(0)
        assert sys.getrefcount(body) == before
