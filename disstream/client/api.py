"""The seam below the client: whatever carries a request to an endpoint and brings its answer."""

from __future__ import annotations

from typing import Protocol

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
