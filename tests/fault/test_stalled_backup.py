"""A backup to a disk that hangs holds nobody up, and ends."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import data_jobs
import msgspec
import pytest
from data_worlds import appending, fill, quiet

from disstream.engine.embedded import child, copying
from disstream.engine.embedded.backup import CopyReport, backup
from disstream.engine.embedded.check import check
from disstream.engine.embedded.child import apart
from disstream.engine.embedded.copying import Stalled, copy_snapshot
from disstream.engine.embedded.figures import figures
from disstream.engine.embedded.visit import visit
from disstream.errors import StorageError


class Hanging:
    """Stands for the file of a copy: from the second write on nothing gets written, until the gate opens."""

    def __init__(self, file: Any, gate: threading.Event, left: int = 1) -> None:
        self._file = file
        self._gate = gate
        self._left = left

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Hanging:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        if self._left == 0:
            self._gate.wait()
        self._left -= 1
        written: int = self._file.write(data[:10_000])
        return written


@contextmanager
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    gate = threading.Event()
    real = Path.open

    def opened(path: Path, *arguments: Any, **named: Any) -> Any:
        file = real(path, *arguments, **named)
        return Hanging(file, gate) if path.name == "data.mdb.new" else file

    try:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", opened)
            yield
    finally:
        gate.set()
        for thread in threading.enumerate():
            if thread.name in ("disstream-pump", "disstream-copy"):
                thread.join(30)


@pytest.mark.parametrize("packed", [False, True])
def test_a_disk_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    """The server beside it stores meanwhile; the backup is given up and says so, and its snapshot is over. What it
    leaves is no backup, and the next one takes its place."""
    data, target = tmp_path / "data", tmp_path / "copy"
    with appending(data) as server:
        stored: list[int] = []

        def tell(doing: str, done: int, total: int) -> None:
            if len(stored) < 2:
                stored.append(len(server.lines))
                server.wait(10)

        with hanging(monkeypatch), pytest.raises(Stalled, match=r"nothing could be written to .*copy.* for 0\.3 s"):
            backup(str(data), str(target), tell, compact=packed, give_up_s=0.3)
        assert stored[1] >= stored[0] + 10
        assert [pid for pid, snapshot in figures(str(data), quiet).readers if snapshot is not None] == []
        assert [path.name for path in target.iterdir()] == ["data.mdb.new"]
        apart(backup, CopyReport, quiet, data_dir=str(data), target=str(target), compact=packed)
        assert [path.name for path in target.iterdir()] == ["data.mdb"]
    assert check(str(target), quiet).clean


async def test_a_sync_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is told likewise; one that takes long and ends is none."""
    await fill(tmp_path / "data")
    gate = threading.Event()
    monkeypatch.setattr(os, "fsync", lambda number: gate.wait())
    with pytest.raises(Stalled, match="given up"):
        backup(str(tmp_path / "data"), str(tmp_path / "copy"), quiet, give_up_s=0.2)
    told: list[str] = []

    def tell(doing: str, done: int, total: int) -> None:
        told.append(doing)
        if doing == "synchronising":
            gate.set()

    backup(str(tmp_path / "data"), str(tmp_path / "copy"), tell, give_up_s=30)
    assert check(str(tmp_path / "copy"), quiet).clean


async def test_who_was_stopped_gives_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time that passed while we stood still ourselves (a container that was paused) is not the disk's."""
    await fill(tmp_path / "data")
    gate = threading.Event()
    polls = 0
    fsync = os.fsync

    def tell(doing: str, done: int, total: int) -> None:
        nonlocal polls
        polls += doing == "synchronising"
        if polls == 3:
            gate.set()

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda number: gate.wait() and fsync(number))
        patch.setattr(time, "monotonic", itertools.count(0.0, 1000.0).__next__)
        backup(str(tmp_path / "data"), str(tmp_path / "copy"), tell, give_up_s=30)
    assert check(str(tmp_path / "copy"), quiet).clean


async def test_a_full_disk(tmp_path: Path) -> None:
    """Is told as such, with the remedy."""
    await fill(tmp_path / "data")
    with visit(tmp_path / "data", "copying") as found, pytest.raises(StorageError, match=r"No space .*free some room"):
        copy_snapshot(found.env, Path("/dev/full"), 1, quiet, compact=False)


async def test_pieces_are_synchronised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it grows, so that a server on the same disk never waits behind all of it."""
    await fill(tmp_path / "data")
    monkeypatch.setattr(copying, "SYNC_BYTES", 100_000)
    monkeypatch.setattr(copying, "PIPE_BYTES", 65536)
    sizes: list[int] = []
    real = os.fdatasync

    def synced(number: int) -> None:
        sizes.append(os.fstat(number).st_size)
        real(number)

    monkeypatch.setattr(os, "fdatasync", synced)
    backup(str(tmp_path / "data"), str(tmp_path / "copy"), quiet)
    size = (tmp_path / "copy" / "data.mdb").stat().st_size
    steps = [after - before for before, after in zip([0, *sizes], [*sizes, size], strict=True)]
    assert len(steps) > 3
    assert max(steps) < 200_000


TELLS = """
import sys
from disstream.engine.embedded.child import main
main()
"""


def test_nobody_reads_how_far_it_is(tmp_path: Path) -> None:
    """A job whose lines nobody takes goes on to its end: it may hold a snapshot."""
    request = msgspec.json.encode({"job": "data_jobs:tells_much", "arguments": {"marker": str(tmp_path / "done")}})
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    with subprocess.Popen(
        [sys.executable, "-c", TELLS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        os.mkfifo(tmp_path / "done")
        process.stdin.write(request + b"\n")
        process.stdin.flush()
        assert (tmp_path / "done").read_text() == "done", "opened by the job behind its last line"
        lines = process.stdout.read().splitlines()
        assert b"result" in lines[-1]
        assert process.wait(30) == 0


def test_a_child_that_cannot_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has told its error, and then hangs as on a disk that does, keeps nobody waiting."""
    monkeypatch.setattr(child, "END_S", 0.01)
    with pytest.raises(StorageError, match="it hung"):
        apart(data_jobs.lingers, int)
