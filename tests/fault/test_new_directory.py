"""A directory that was being made when the process or the power ended is made again, or is whole."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine, creation, environment
from disstream.engine.embedded.backup import CopyReport, backup
from disstream.engine.embedded.child import apart
from disstream.engine.embedded.environment import Environment
from disstream.testing.engine import opened

CONFIG = EmbeddedConfig(map_size_bytes=1 << 30, ballast_bytes=0)


async def works(directory: Path) -> None:
    """The engine starts there, has nothing, and keeps what it is given."""
    async with opened(EmbeddedEngine(directory, CONFIG)) as engine:
        assert await engine.catalog.scan("") == []
        await engine.catalog.transact({}, {"key": b"value"})
    async with opened(EmbeddedEngine(directory, CONFIG)) as engine:
        assert len(await engine.catalog.scan("")) == 1
    assert not (directory / creation.FIRST).exists()


def leave(directory: Path, content: bytes) -> None:
    (directory / creation.FIRST).mkdir()
    (directory / creation.FIRST / "data.mdb").write_bytes(content)


@pytest.mark.parametrize("left", [b"", bytes(100), bytes(8192), b"half", os.urandom(20_000)], ids=len)
async def test_what_was_begun_is_begun_again(tmp_path: Path, left: bytes) -> None:
    """Whatever a disk kept of a file that was never synchronised."""
    leave(tmp_path, left)
    await works(tmp_path)


async def test_it_counts_once_it_is_synchronised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file gets its name when its last byte is on the disk, and every new name is synchronised in its directory."""
    told: list[tuple[str, str]] = []
    contents: list[bytes] = []
    data = tmp_path / "deep" / "deeper" / "data"
    first = data / creation.FIRST / "data.mdb"
    fsync, replace = os.fsync, os.replace

    def synced(number: int) -> None:
        fsync(number)
        path = os.readlink(f"/proc/self/fd/{number}")
        told.append(("sync", os.path.relpath(path, tmp_path)))
        if path == str(first):
            contents.append(first.read_bytes())

    def replaced(source: Path, target: Path) -> None:
        contents.append(source.read_bytes())
        replace(source, target)
        told.append(("rename", target.name))

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    Environment(data, CONFIG).close()
    made = ["deep", ".", "deep/deeper", "deep", "deep/deeper/data", "deep/deeper"]
    assert told[: len(made)] == [("sync", name) for name in made]
    rest = [
        ("sync", f"deep/deeper/data/{creation.FIRST}/data.mdb"),
        ("rename", "data.mdb"),
        ("sync", "deep/deeper/data"),
    ]
    assert told[len(made) : len(made) + 3] == rest
    assert contents[0] == contents[1]
    assert len(contents[0]) >= 4 * 4096


def killed_at(line: int, directory: Path) -> bool:
    """Open it in a process that ends before it runs that line of the watched ones, each counted once; False: it did."""
    watched = {creation.__file__, environment.__file__}
    seen: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename not in watched:
            return None
        seen.add((frame.f_code.co_filename, frame.f_lineno))
        if len(seen) > line:
            os._exit(9)
        return trace

    child = os.fork()
    if child == 0:
        sys.settrace(trace)
        Environment(directory, CONFIG)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


async def test_killed_at_every_line(tmp_path: Path) -> None:
    """Of what makes and opens a directory: the next start finds one that is whole, or none."""
    killed = 0
    while killed_at(killed, tmp_path / f"{killed}"):
        await works(tmp_path / f"{killed}")
        killed += 1
    assert killed > 60


async def test_a_file_that_is_ours_is_kept(tmp_path: Path) -> None:
    """What is there is never made again, whatever lies beside it."""
    await works(tmp_path)
    leave(tmp_path, b"half")
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        assert len(await engine.catalog.scan("")) == 1
    assert not (tmp_path / creation.FIRST).exists()


async def test_a_backup_beside_the_data_is_kept(tmp_path: Path) -> None:
    """Whatever somebody calls it: what is begun has a name that nobody gives to anything."""
    await works(tmp_path)
    for name in ("first", "new", "backup"):
        apart(backup, CopyReport, data_dir=str(tmp_path), target=str(tmp_path / name))
    async with opened(EmbeddedEngine(tmp_path, CONFIG)):
        pass
    for name in ("first", "new", "backup"):
        assert (tmp_path / name / "data.mdb").stat().st_size > 0


def test_below_a_directory_that_is_closed_to_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was started in a directory of somebody else (sudo -u) gets no further by its whole path, and need not."""
    here = tmp_path / "closed" / "here"
    here.mkdir(parents=True)
    here.chmod(0o777)
    monkeypatch.chdir(here)
    (tmp_path / "closed").chmod(0)
    whose = os.geteuid()
    try:
        if whose == 0:
            os.seteuid(65534)
        for _ in range(2):
            Environment(Path("deep/data"), CONFIG).close()
    finally:
        os.seteuid(whose)
        (tmp_path / "closed").chmod(0o700)
    assert (here / "deep" / "data" / "data.mdb").stat().st_size
