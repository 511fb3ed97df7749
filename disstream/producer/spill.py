"""Failed records on their way to the spill file: taken from the core, written by a thread, then off the budget.

    take() -> chunk (open -> pending -> writing -> settled) -> thread: SpillWriter.append -> give_back(weight)

A record has its end when it is taken; what its exception says of the file is looked up when it is raised. Its bytes
stay charged to the producer's budget until they are on the disk, so an outage of any length fills the file, not the
memory, and a disk that is slower than the failures slows down `send`.

What can never happen: a file that is written by two threads; a chunk that is written twice; an error of the disk that
reaches `send`; a close that waits for a dead disk. After WRITE_S without an answer the disk is given up for good, as
its thread may still be at the file. Any other error costs its chunk; the next one tries anew.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import anyio
from anyio import to_thread

from ..model import NewRecord
from .config import ProducerConfig
from .outcome import Failure
from .spillfile import SpillWriter, spill_line

log = logging.getLogger("disstream.producer")

CHUNK_RECORDS = 1_000
CHUNK_BYTES = 1_048_576
"""One write: a few milliseconds of encoding, which hold the interpreter's lock, and one fsync."""

WRITE_S = 10.0
"""How long the disk may take for a chunk, and at the close for all."""


class _Chunk:
    """Records that are written together."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.rows: list[tuple[NewRecord, Failure]] = []
        self.count = 0
        self.bytes = 0
        self.weight = 0
        self.written: int | None = None  # set by the thread: how many, from the first, are in the file
        self.problem = ""

    def write(self, file: SpillWriter, lock: threading.Lock) -> None:
        """In a thread. Doing it twice is fine: the second finds it done."""
        with lock:
            if self.written is not None:
                return
            try:
                written = file.append(spill_line(row, end.kind, end.code) for row, end in self.rows)
                if written < self.count:
                    self.problem = "spill_bytes are used up"
            except OSError as exc:
                written, self.problem = 0, exc.strerror or str(exc)
            self.written = written


class Leaf(NamedTuple):
    """Where one record was left: what `Failure.spilled` asks."""

    chunk: _Chunk
    place: int

    @property
    def path(self) -> str | None:
        return None if self._missing else self.chunk.path

    @property
    def _missing(self) -> bool:
        chunk = self.chunk
        return bool(chunk.problem) and self.place >= (chunk.written or 0)

    def told(self) -> str:
        chunk = self.chunk
        if self._missing:
            return f"it could not be written to the spill file {chunk.path}: {chunk.problem}"
        return f"it is{' being' if chunk.written is None else ''} written to the spill file {chunk.path}"


class Spill:
    """The way of one producer's failed records into its spill file. For the tasks of one loop."""

    def __init__(self, config: ProducerConfig, stream: str, give_back: Callable[[int], None]) -> None:
        """Open the file. `give_back` takes the weight of what needs no room any more. Raises ConfigError."""
        assert config.spill_path is not None
        self.path = os.fspath(config.spill_path)
        self.spilled = self.unspilled = 0
        self._stream = stream
        self._give_back = give_back
        # A few system calls, once, as at the close: what is written in between is what may take long.
        self._file = SpillWriter(self.path, stream, config.spill_bytes, config)
        self._lock = threading.Lock()
        self._limiter = anyio.CapacityLimiter(1)  # of our own: threads of the application must not hold us up
        self._pending: deque[_Chunk] = deque()
        self._writing: _Chunk | None = None
        self._wake = anyio.Event()
        self._dead = ""  # why nothing is written any more
        self._troubled = False

    def take(self, row: NewRecord, end: Failure, weight: int) -> Leaf | None:
        """Keep a record whose end is `end`; None: it cannot be, and its weight is free at once."""
        if self._dead or self._file.full:
            self._note_trouble(self._dead or "spill_bytes are used up")
            self.unspilled += 1
            return None
        chunk = self._pending[-1] if self._pending else None
        if chunk is None or chunk.count >= CHUNK_RECORDS or chunk.bytes >= CHUNK_BYTES:
            chunk = _Chunk(self.path)
            self._pending.append(chunk)
            self._wake.set()
        chunk.rows.append((row, end))
        chunk.count += 1
        chunk.bytes += len(row.data)
        chunk.weight += weight
        return Leaf(chunk, chunk.count - 1)

    async def run(self) -> None:
        """Write what comes, until cancelled; a chunk that is being written then is still finished."""
        while True:
            while self._pending or self._writing is not None:
                await self._write_next()
            self._wake = anyio.Event()
            await self._wake.wait()

    async def close(self) -> None:
        """Write what is left, within WRITE_S, and close the file. Never raises of the disk."""
        deadline = anyio.current_time() + WRITE_S
        try:
            while self._pending or self._writing is not None:
                await self._write_next(deadline)
        finally:
            while (chunk := self._writing or (self._pending.popleft() if self._pending else None)) is not None:
                chunk.problem = chunk.problem or "the producer was cut off before it was written"
                self._writing = None
                self._dead = self._dead or chunk.problem
                self._settle(chunk)
            if not self._dead:  # else a thread may still be using it
                try:
                    self._file.close()
                except OSError as exc:
                    self._note_trouble(str(exc))
        told = log.warning if self.unspilled else log.info
        if self.spilled or self.unspilled:
            told(
                "failed records were spilled stream=%s path=%s spilled=%d unspilled=%d",
                self._stream,
                self.path,
                self.spilled,
                self.unspilled,
            )

    async def _write_next(self, deadline: float = float("inf")) -> None:
        chunk = self._writing = self._writing or self._pending.popleft()
        if not self._dead:
            deadline = min(deadline, anyio.current_time() + WRITE_S)
            with anyio.CancelScope(deadline=deadline, shield=True):
                await to_thread.run_sync(
                    chunk.write, self._file, self._lock, abandon_on_cancel=True, limiter=self._limiter
                )
            if chunk.written is None:
                self._dead = f"the disk did not answer within {WRITE_S:g} s"
        if chunk.written is None:
            chunk.problem = self._dead
        self._writing = None
        self._settle(chunk)

    def _settle(self, chunk: _Chunk) -> None:
        chunk.rows = []
        written = chunk.written or 0
        self.spilled += written
        self.unspilled += chunk.count - written
        if chunk.problem:
            self._note_trouble(chunk.problem)
        else:
            self._troubled = False
        self._give_back(chunk.weight)

    def _note_trouble(self, problem: str) -> None:
        """Say once per streak that failed records are not spilled."""
        if not self._troubled:
            self._troubled = True
            log.warning("failed records are not spilled stream=%s path=%s: %s", self._stream, self.path, problem)
