"""Notices: which of many partitions have something new, told as it happens. An extension (wire/notices.py)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from ..errors import TransportError
from ..wire.notices import EXTENSION, HEARTBEAT_S, LONGEST_S, Lines, Watched, decode_frame, encode_notices

if TYPE_CHECKING:
    from .client import Client

SILENCE_S = 2.5 * HEARTBEAT_S
"""After which a line is taken for dead: one heartbeat may be late, two are not."""


class Frames:
    """What the service tells: an iterator over lists of (place in the request, end), ends when the answer does."""

    def __init__(self, pieces: AsyncIterator[bytes], count: int) -> None:
        self._pieces = pieces
        self._count = count
        self._lines = Lines()
        self._ready: list[bytes] = []

    def __aiter__(self) -> Frames:
        return self

    async def __anext__(self) -> list[tuple[int, int]]:
        """Raises TransportError: the line is cut, or silent for longer than SILENCE_S, or tells what is no frame."""
        try:
            with anyio.fail_after(SILENCE_S):
                while not self._ready:
                    self._ready = self._lines.feed(await anext(self._pieces))
        except TimeoutError as exc:
            raise TransportError(f"notices: nothing came for {SILENCE_S:g} s", outcome_unknown=False) from exc
        return decode_frame(self._ready.pop(0), self._count)


class Notices:
    """`client.notices`. For consumers; nothing is repeated here."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def offered(self) -> bool:
        """Whether the endpoint has named the extension, and the transport can carry an answer that goes on."""
        return EXTENSION in self._client.extensions and self._client.can_stream

    @asynccontextmanager
    async def open(self, watched: Sequence[Watched], longest_s: float = LONGEST_S) -> AsyncIterator[Frames]:
        """Ask for notices, at most MAX_PARTITIONS of them; they come inside the block, over a connection of their own.

        Raises ApiError, TransportError (also inside the block, when the client is closed), ClosedError.
        """
        count = sum(len(one.partitions) for one in watched)
        async with self._client.stream("notices", encode_notices(watched, longest_s), timeout_s=SILENCE_S) as pieces:
            yield Frames(pieces, count)
