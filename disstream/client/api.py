"""The seam below the client: whatever carries a request to an endpoint and brings its answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol, runtime_checkable

from ..wire.http import Request, Response


class Transport(Protocol):
    """Carries requests. aiohttp in production; a class of the test's in a simulated network."""

    async def exchange(self, request: Request) -> Response:
        """One request, one answer, whatever its status. Never repeats.

        Raises TransportError: `outcome_unknown=False` only if no byte of the request can have reached the endpoint.
        Cancellation: as a lost answer; the request may have been received.
        """
        ...

    async def close(self) -> None:
        """Give back connections. Twice is fine."""
        ...


class Streamed(NamedTuple):
    """An answer whose body comes piece by piece."""

    status: int
    headers: dict[str, str]
    pieces: AsyncIterator[bytes]


@runtime_checkable
class StreamingTransport(Transport, Protocol):
    """A transport that can also carry answers that go on. Not every one can: what needs it does without, then."""

    def stream(self, request: Request) -> AbstractAsyncContextManager[Streamed]:
        """One request, whose answer is read inside the block, over a connection that no other exchange waits for.

        `timeout_s` of the request bounds the time until the answer begins; the pieces may take any time. Raises
        TransportError, also where a piece is asked for.
        """
        ...
