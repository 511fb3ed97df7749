"""The input of `produce`: a file or pipe, read and parsed by its own thread.

The thread blocks in read(), which no event loop may do and no cancellation can end; so it is a daemon, reads the
descriptor without Python's buffered reader (whose lock a dying interpreter would wait for), and is left behind when
the command ends first. It hands over what it has before every read, so records of a slow pipe are sent as they come.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from ..errors import ConfigError
from .formats import BadLine, Line, LineSplitter, Parser

READ_BYTES = 256 * 1024
CHUNK_RECORDS = 2000
CHUNKS_AHEAD = 4
GZIP_MAGIC = b"\x1f\x8b"

Chunk = list[Line | BadLine]


class Feed:
    """Chunks of parsed input, at most a few read ahead."""

    def __init__(self, source: BinaryIO, parse: Parser) -> None:
        with contextlib.suppress(OSError, ValueError):  # not a descriptor, or not one that could be anything else
            # Whoever shares our standard input may have set it not to wait; "nothing yet" would look like its end.
            os.set_blocking(source.fileno(), True)
        self._read = getattr(source, "raw", source).read
        self._parse = parse
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[Chunk | OSError | ConfigError | None] = asyncio.Queue()  # bounded by _room
        self._room = threading.Semaphore(CHUNKS_AHEAD)
        self._parsed: Chunk = []
        threading.Thread(target=self._run, name="feed", daemon=True).start()

    async def next(self) -> Chunk | None:
        """The next chunk, None at the end. Raises OSError if the source cannot be read, and what the parser raises."""
        chunk = await self._chunks.get()
        self._room.release()
        if isinstance(chunk, OSError | ConfigError):
            raise chunk
        return chunk

    def _run(self) -> None:
        try:
            for item in self._parse(self._lines()):
                self._parsed.append(item)
                if len(self._parsed) >= CHUNK_RECORDS:
                    self._hand_over()
            self._hand_over()
            self._put(None)
        except (OSError, ConfigError) as exc:
            self._hand_over()
            self._put(exc)

    def _lines(self) -> Iterator[bytes]:
        splitter = LineSplitter()
        for chunk in self._text():
            yield from splitter.feed(chunk)
            self._hand_over()
        if rest := splitter.end():
            yield rest

    def _text(self) -> Iterator[bytes]:
        """What the source holds, unpacked if it is gzip. Raises OSError for gzip that is damaged or cut off."""
        head: bytes = self._read(READ_BYTES)
        while head == GZIP_MAGIC[:1] and (more := self._read(READ_BYTES)):
            head += more
        if head.startswith(GZIP_MAGIC):
            yield from self._unpacked(head)
            return
        while head:
            yield head
            head = self._read(READ_BYTES)

    def _unpacked(self, packed: bytes) -> Iterator[bytes]:
        # Not the gzip module: it fills its buffer before it returns, and a slow pipe would have to wait for that.
        while packed:  # each turn is one member: gzip files may be joined
            member = zlib.decompressobj(zlib.MAX_WBITS | 16)
            while not member.eof:
                try:
                    yield member.decompress(packed, READ_BYTES)
                except zlib.error as exc:
                    raise OSError(f"the input is damaged gzip: {exc}") from exc
                packed = member.unconsumed_tail
                if not packed and not member.eof and not (packed := self._read(READ_BYTES)):
                    raise OSError("the input is gzip that was cut off: its end is missing")
            packed = (member.unused_data or self._read(READ_BYTES)).lstrip(b"\0")  # tapes pad with zeros

    def _hand_over(self) -> None:
        if self._parsed:
            self._put(self._parsed)
            self._parsed = []

    def _put(self, chunk: Chunk | OSError | ConfigError | None) -> None:
        self._room.acquire()
        try:
            self._loop.call_soon_threadsafe(self._chunks.put_nowait, chunk)
        except RuntimeError:  # the loop is closed: nobody reads any more
            return
