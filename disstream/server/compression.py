"""Request bodies that arrive compressed, within a budget of memory.

The edge counts bodies as they arrive, and a compressed one may become a thousand times as large. What they become has
a budget of its own, a quarter of `max_buffered_bytes`: bodies and answers together hold at most five quarters of it.
A body takes the size it announces before anything is decompressed, and holds its own until its request is answered.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import anyio
from anyio import to_thread

from ..errors import ApiError
from ..wire.compression import Packed, announced
from ..wire.errors import api_error
from ..wire.http import Request
from .config import ServerConfig

INLINE_BYTES = 262_144
"""Smaller bodies are decompressed where they are: 0.05 to 0.2 ms, no more than handing them to a thread costs."""

_THREADS = 2  # the loop has several times as much to do with a body as they have


class Unpacking:
    """Decompresses for one server. `held_bytes`: of bodies that are being handled."""

    def __init__(self, config: ServerConfig) -> None:
        self._limit = config.max_body_bytes
        self._budget = max(config.max_buffered_bytes // 4, config.max_body_bytes)
        self._threads = anyio.CapacityLimiter(_THREADS)
        self.held_bytes = 0

    @asynccontextmanager
    async def unpacked(self, request: Request) -> AsyncIterator[bytes]:
        """The body before its Content-Encoding, held inside the block.

        Raises ApiError: DIS.4200, DIS.4300, 413 (wire/compression.py); DIS.4305 if others hold the whole budget.
        """
        packed = announced(request.headers, request.body, self._limit)
        if packed is None:
            yield request.body
            return
        body: bytes | None = None
        if packed.untold and len(packed.body) <= INLINE_BYTES < packed.size_bytes:
            # Most are small. If each took the room of the largest body there is, five would fill the budget.
            try:
                body = await self._unpack(packed._replace(size_bytes=INLINE_BYTES))
            except ApiError as error:
                if error.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                    raise
        if body is None:
            body = await self._unpack(packed)
        try:
            yield body
        finally:
            self.held_bytes -= len(body)

    async def _unpack(self, packed: Packed) -> bytes:
        """The body, which is counted in `held_bytes`."""
        if self.held_bytes + packed.size_bytes > self._budget:
            raise api_error("DIS.4305")
        self.held_bytes += packed.size_bytes
        size = 0
        try:
            # What comes to little may still be large: blocks of nothing.
            if max(packed.size_bytes, len(packed.body)) <= INLINE_BYTES:
                body = packed.unpack()
            else:
                body = await to_thread.run_sync(packed.unpack, limiter=self._threads)
            size = len(body)
            return body
        finally:
            self.held_bytes -= packed.size_bytes - size
