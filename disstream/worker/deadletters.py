"""Where dead letters are written: a stream, or a file.

`write` returns when the letters are safe: acknowledged by the service, or on the disk. A worker lets its checkpoint
pass a record only then. So a crash in between writes a letter again, and readers know doubles by `Letter.identity`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import sys
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import anyio
from anyio import CapacityLimiter, to_thread

from ..door import DisClient
from ..errors import ClosedError, ConfigError, NotFoundError, StorageError, Undelivered
from ..model import NewRecord
from ..producer import Producer, ProducerConfig
from .letters import Letter, encode_letter, letter_line, may_begin_letters

if sys.platform != "win32":
    import fcntl

log = logging.getLogger("disstream.worker")

TAIL_BYTES = 65_536
"""How much of a file is looked at at once for the end of its last whole line."""


class DeadLetters(Protocol):
    """Where letters are written. One task writes at a time, or several."""

    name: str
    """As it is told to people: stream:NAME or file:PATH."""

    async def start(self) -> None:
        """Raises ConfigError: it cannot be written to; DisError: it cannot be reached."""

    async def write(self, letters: Sequence[Letter]) -> None:
        """Returns when all are safe. Raises ConfigError: one of them cannot be written; DisError: try again.

        After an error or a cancellation some may have been written: written again, they are doubles, which readers
        know.
        """

    async def close(self) -> None:
        """Let go of it. Twice is fine."""


class Target(NamedTuple):
    kind: Literal["stream", "file"]
    place: str


def to_target(text: str) -> Target:
    """stream:NAME, file:PATH, or a path that looks like one. Raises ConfigError."""
    kind, colon, place = text.partition(":")
    if colon and place and kind == "stream":
        return Target("stream", place)
    if colon and place and kind == "file":
        return Target("file", place)
    if kind not in ("stream", "file") and ("/" in text or os.sep in text or "." in text):
        return Target("file", text)
    raise ConfigError(
        f"dead letters in {text!r}: say stream:NAME for a stream, or file:PATH (or a path like ./letters.jsonl)"
    )


def dead_letters(dis: DisClient, target: str) -> DeadLetters:
    """`target`: stream:NAME, file:PATH, or a path. Raises ConfigError."""
    kind, place = to_target(target)
    return StreamLetters(dis, place) if kind == "stream" else FileLetters(place)


# --- a stream ----------------------------------------------------------------------------------------------------


class StreamLetters:
    """Each letter a record, under the key of its own: the letters of a key stay in order.

    Any number of workers may write to one stream.
    """

    def __init__(self, dis: DisClient, stream: str) -> None:
        self.name = f"stream:{stream}"
        self._stream = stream
        # Times well below the producer's own: a worker that cannot write a letter has to say so, and tries again.
        self._producer: Producer = dis.producer(
            stream, ProducerConfig(order="key", delivery_timeout_s=30.0, request_timeout_s=10.0, close_timeout_s=10.0)
        )

    async def start(self) -> None:
        try:
            await self._producer.start()
        except NotFoundError as exc:
            raise ConfigError(
                f"dead letters in {self.name!r}: there is no such stream ({exc}); make it: "
                f"disstream stream create {self._stream} --partitions 1"
            ) from exc

    async def write(self, letters: Sequence[Letter]) -> None:
        if not letters:
            return
        if any(letter.stream == self._stream for letter in letters):
            raise ConfigError(
                f"a record of stream {self._stream!r} would become a dead letter in the same stream, and be read again "
                "for ever: name another stream for dead letters, or leave this one out of what the worker reads"
            )
        rows = [NewRecord(encode_letter(letter), letter.key or None) for letter in letters]
        await (await self._producer.send_many(rows))

    async def close(self) -> None:
        try:
            await self._producer.close()
        except Undelivered as exc:  # of a write that was cancelled: its records are not finished, and are read again
            log.info("letters were given up while they were written to %s: %s", self.name, exc)


# --- a file ------------------------------------------------------------------------------------------------------


class FileLetters:
    """Each letter a line, appended and synced. One worker at a time: it holds an flock. The mode is 0600.

    What a crash left of a last line is cut off at the next start.
    """

    def __init__(self, path: str) -> None:
        self.name = f"file:{path}"
        self._path = path
        self._fd: int | None = None
        self._size = 0
        self._turn = anyio.Lock()
        self._thread = CapacityLimiter(1)

    async def start(self) -> None:
        if self._fd is None:
            self._fd, self._size = await to_thread.run_sync(self._open, limiter=self._thread)

    async def write(self, letters: Sequence[Letter]) -> None:
        async with self._turn:
            if self._fd is None:
                raise ClosedError(f"dead letters in {self.name!r}: not started, or closed")
            text = b"".join(map(letter_line, letters))
            self._size = await to_thread.run_sync(self._append, self._fd, self._size, text, limiter=self._thread)

    async def close(self) -> None:
        with anyio.CancelScope(shield=True):  # it waits for a write at most: nobody may write through a closed number
            async with self._turn:
                fd, self._fd = self._fd, None
                if fd is not None:
                    await to_thread.run_sync(os.close, fd, limiter=self._thread)

    # --- in the thread --------------------------------------------------------------------------------------------

    def _open(self) -> tuple[int, int]:
        """The file, locked, and where its last whole line ends. Raises ConfigError."""
        fd = locked(self._path, f"dead letters in {self.name!r}", "several workers need a file each, or a stream")
        try:
            size = os.fstat(fd).st_size
            if not may_begin_letters(os.pread(fd, TAIL_BYTES, 0)):
                raise ConfigError(f"dead letters in {self.name!r}: the file holds something else; name another")
            end = _whole_lines(fd, size)
            if end < size:
                log.warning("a letter that a crash cut short is removed from %s: %d bytes", self.name, size - end)
                os.ftruncate(fd, end)
            _sync_directory(self._path)
        except BaseException:
            os.close(fd)
            raise
        return fd, end

    def _append(self, fd: int, size: int, text: bytes) -> int:
        """Put the lines behind the `size` bytes that are there, and return how many are there then."""
        try:
            done = 0
            while done < len(text):
                done += os.pwrite(fd, text[done:], size + done)
            os.fsync(fd)
        except OSError as exc:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, size)  # half a letter would spoil the next
            raise StorageError(f"dead letters in {self.name!r}: {exc.strerror or exc}") from exc
        return size + len(text)


def locked(path: str, what: str, remedy: str) -> int:
    """The descriptor of a file that is made if absent, with an flock on it. Blocks. Raises ConfigError.

    `what` begins the message of an error, `remedy` ends the one of a file in use.
    """
    if sys.platform == "win32":
        raise ConfigError(f"{what}: files need the locks of POSIX, use a stream on Windows")
    try:
        # Not blocking: on a pipe, open would wait for its other end.
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as exc:
        raise ConfigError(f"{what}: the file cannot be written: {exc.strerror or exc}") from exc
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ConfigError(f"{what}: {path!r} is no file")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{what}: the file {path!r} is in use by another process; {remedy}") from None
    except BaseException:
        os.close(fd)
        raise
    return fd


def _whole_lines(fd: int, size: int) -> int:
    """Where the last whole line ends."""
    end = size
    while end:
        begin = max(0, end - TAIL_BYTES)
        if (found := os.pread(fd, end - begin, begin).rfind(b"\n")) >= 0:
            return begin + found + 1
        end = begin
    return 0


def _sync_directory(path: str) -> None:
    """So that the file itself is still there after a power cut."""
    fd = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
