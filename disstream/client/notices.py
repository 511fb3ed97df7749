"""Notices: which of many partitions have something new, told as it happens. An extension (wire/notices.py)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ..errors import TransportError
from ..wire.notices import EXTENSION, HEARTBEAT_S, LONGEST_S, PUSH, Feed, Frame, Watched, encode_notices

if TYPE_CHECKING:
    from .client import Client

SILENCE_S = 2.5 * HEARTBEAT_S
"""After which a line is taken for dead: one heartbeat may be late, two are not."""


class Frames:
    """What the service tells: an iterator over frames, which ends when the answer does.

    A frame is a list of (place in the request, end), or a pushed page.
    """

    def __init__(self, pieces: AsyncIterator[bytes], count: int) -> None:
        self._pieces = pieces
        self._feed = Feed(count)
        self._ready: list[Frame] = []  # the next one last

    def __aiter__(self) -> Frames:
        return self

    async def __anext__(self) -> Frame:
        """Raises TransportError: the line is cut, or silent for longer than SILENCE_S, or tells what is no frame."""
        while not self._ready:
            try:
                # Of asyncio: a fifth of anyio's price, for each page that is pushed.
                async with asyncio.timeout(SILENCE_S):
                    piece = await anext(self._pieces)
            except TimeoutError as exc:
                raise TransportError(f"notices: nothing came for {SILENCE_S:g} s", outcome_unknown=False) from exc
            self._ready = self._feed.feed(piece)[::-1]
        return self._ready.pop()


class Notices:
    """`client.notices`. For consumers; nothing is repeated here."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def offered(self) -> bool:
        """Whether the endpoint has named the extension, and the transport can carry an answer that goes on."""
        return EXTENSION in self._client.extensions and self._client.can_stream

    @property
    def pushes(self) -> bool:
        """Whether the endpoint would send records with notices: in columns, so not to who chose another form."""
        return PUSH in self._client.extensions and self._client.config.body == "auto"

    @asynccontextmanager
    async def open(
        self, watched: Sequence[Watched], longest_s: float = LONGEST_S, *, push_bytes: int = 0
    ) -> AsyncIterator[Frames]:
        """Ask for notices, at most MAX_PARTITIONS of them; they come inside the block, over a connection of their own.

        `push_bytes`: of records that may come with a notice, if the endpoint `pushes`; 0: none.
        Raises ApiError, TransportError (also inside the block, when the client is closed), ClosedError.
        """
        count = sum(len(one.partitions) for one in watched)
        body = encode_notices(watched, longest_s, push_bytes if self.pushes else 0)
        async with self._client.stream("notices", body, timeout_s=SILENCE_S) as pieces:
            yield Frames(pieces, count)
