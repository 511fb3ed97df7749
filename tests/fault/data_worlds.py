"""Data directories for the tests of `disstream data`: filled by the engine, then changed behind its back."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb

from disstream.engine.api import Entry, PartitionRef, Row, Writer
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine
from disstream.testing.engine import opened

A = PartitionRef("s", 0)
B = PartitionRef("s", 1)
CONFIG = EmbeddedConfig(map_size_bytes=1 << 30)
P = "0123456789abcdef" * 2
ROWS_A, ROWS_B = 40, 30
LARGE = 6000
"""Payloads so large that every append stays a batch of its own."""


def quiet(doing: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


async def fill(directory: Path) -> None:
    """Partition 0: 8 batches of 5 rows, trimmed to 12; 1: 10 of 3 by a producer; a dropped stream; documents."""
    gone = PartitionRef("gone", 0)
    async with opened(EmbeddedEngine(directory, CONFIG)) as engine:
        await engine.log.open({A: 1, B: 1, gone: 1})
        for n in range(8):
            rows = [Row(b"a payload of row %d".ljust(LARGE) % (5 * n + i), "key", i) for i in range(5)]
            await engine.log.append([Entry(A, rows, 1), Entry(gone, rows, 1)], 1000 + n)
        for n in range(10):
            rows = [Row(bytes([n]) * LARGE) for _ in range(3)]
            await engine.log.append([Entry(B, rows, 1, Writer(P, 0, 3 * n, n + 1))], 2000 + n)
        await engine.log.trim(A, 12)
        await engine.log.drop("gone")
        await engine.catalog.transact({}, {f"document/{n}": b"%d" % n for n in range(20)})


@contextlib.contextmanager
def edited(directory: Path) -> Iterator[tuple[lmdb.Transaction[bytes], dict[str, Any]]]:
    """A transaction behind the engine's back, and the tables by name."""
    with lmdb.Environment(os.fspath(directory), max_dbs=9) as env, env.begin(write=True) as txn:
        names = [bytes(key).decode() for key, _ in txn.cursor()]
        yield txn, {name: env.open_db(name.encode(), txn=txn, create=False) for name in names}


class Appending:
    """A process that serves from a directory and appends as fast as it can (appender.py)."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.pid = process.pid
        self.lines: list[str] = []
        """What it has told to be stored, so far."""
        self._process = process
        self._grown = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._grown:
                self.lines.append(line)
                self._grown.notify_all()

    def wait(self, lines: int) -> None:
        """Until it has told so many more."""
        with self._grown:
            wanted = len(self.lines) + lines
            assert self._grown.wait_for(lambda: len(self.lines) >= wanted, timeout=60)

    def stop(self) -> None:
        """It stays where it is, and keeps the directory. All its threads have stopped when this returns."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def end(self) -> None:
        self._process.kill()
        self._reader.join(60)


@contextlib.contextmanager
def appending(directory: Path, seed: int = 1) -> Iterator[Appending]:
    """One, until the block ends: killed then."""
    script = Path(__file__).with_name("appender.py")
    with subprocess.Popen(
        [sys.executable, str(script), str(directory), str(seed), "fsync", "/dev/stdout", "-1"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        writer = Appending(process)
        try:
            writer.wait(300)
            yield writer
        finally:
            writer.end()
