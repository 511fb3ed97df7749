"""The file as of one snapshot, copied by LMDB into another one, which may be on a disk that hangs.

    LMDB   its own thread   the snapshot ──> a pipe
    pump   a thread         the pipe ──> the new file, synchronised every SYNC_BYTES
    watch  who called       tells how far it is, and gives up if nothing moves

Why not into the file itself: LMDB holds the lock of all writers while it writes the first two pages, so that a server
beside it could store nothing for as long as the disk of the copy hangs; and it cannot be told to stop, so that its
snapshot would keep the server's file growing for as long. Into an empty pipe two pages always go at once. And whoever
gives up closes the pipe: then LMDB fails, and its snapshot is over, whatever the pump hangs in.

Synchronised in pieces: so that it is seen to move, and that a server on the same disk does not wait behind gigabytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from pathlib import Path

import lmdb

from ...errors import StorageError
from .ballast import NO_ROOM
from .faults import remedy
from .visit import Tell

POLL_INTERVAL_S = 0.1
PIPE_BYTES = 1024**2
SYNC_BYTES = 32 * 1024**2

_END_S = 10.0
"""How long LMDB may take to notice that nobody wants its copy any more: it does so at its next write."""


class Stalled(StorageError):
    """Nothing moved for too long. What there is of the copy lies where it was written: removing it may hang as well."""


def copy_snapshot(
    env: lmdb.Environment, new: Path, total: int, tell: Tell, *, compact: bool, give_up_s: float | None = None
) -> None:
    """Write a snapshot of now into the file `new`, of about `total` bytes, and synchronise it.

    `compact`: without free pages. Raises StorageError; Stalled if nothing moved for `give_up_s` (None: wait for ever).
    The snapshot is over when this returns or raises.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # more than a process may have: then it is a smaller one
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    pump = _Pump(reading, new)
    source = _Source(env, writing, compact=compact)
    # Daemons: who ends us ends them, and the file goes.
    source.start()
    pump.start()
    moved, polls = pump.moved, 0  # counted, not timed: while we were stopped ourselves the pump was, too
    try:
        while pump.is_alive():
            tell(*("synchronising", 0, 0) if pump.complete else ("copying", min(pump.bytes, total), total))
            pump.join(POLL_INTERVAL_S)
            polls += 1
            if pump.moved != moved:
                moved, polls = pump.moved, 0
            elif give_up_s is not None and polls * POLL_INTERVAL_S >= give_up_s and pump.is_alive():
                raise Stalled(
                    f"nothing could be written to {new} for {give_up_s:g} s, after {pump.bytes:,} of {total:,} bytes: "
                    "given up, the original is as it was; look after the disk of the copy, then run again"
                )
    finally:
        pump.release()
        source.join(_END_S)
    if pump.failed is not None:
        told = "free some room" if pump.failed.errno in NO_ROOM else "check the disk"
        raise StorageError(f"cannot copy to {new}: {pump.failed.strerror}; {told}") from pump.failed
    if source.failed is not None:
        raise StorageError(f"cannot copy to {new}: {source.failed}; {remedy(source.failed)}") from source.failed
    tell("copying", total, total)


class _Source(threading.Thread):
    def __init__(self, env: lmdb.Environment, pipe: int, *, compact: bool) -> None:
        super().__init__(name="disstream-copy", daemon=True)
        self.failed: lmdb.Error | None = None
        self._env = env
        self._pipe = pipe
        self._compact = compact

    def run(self) -> None:
        try:
            self._env.copyfd(self._pipe, compact=self._compact)
        except lmdb.Error as exc:
            self.failed = exc
        finally:
            os.close(self._pipe)


class _Pump(threading.Thread):
    def __init__(self, pipe: int, new: Path) -> None:
        super().__init__(name="disstream-pump", daemon=True)
        self.bytes = 0
        self.moved = 0
        """Grows with whatever gets done."""
        self.complete = False
        self.failed: OSError | None = None
        self._pipe: int | None = pipe
        self._new = new
        self._lock = threading.Lock()

    def run(self) -> None:
        try:
            with self._new.open("wb", buffering=0) as file:
                unsynced = 0
                while chunk := self._read():
                    written = 0
                    while written < len(chunk):
                        written += file.write(chunk[written:])
                        self.moved += 1
                    self.bytes += written
                    unsynced += written
                    if unsynced >= SYNC_BYTES:
                        os.fdatasync(file.fileno())
                        unsynced = 0
                        self.moved += 1
                self.complete = True
                os.fsync(file.fileno())
        except OSError as exc:
            self.failed = exc
        finally:
            self.release()

    def _read(self) -> bytes:
        pipe = self._pipe
        return b"" if pipe is None else os.read(pipe, PIPE_BYTES)

    def release(self) -> None:
        """Nobody reads the pipe any more. Twice is fine."""
        with self._lock:
            pipe, self._pipe = self._pipe, None
        if pipe is not None:
            os.close(pipe)
