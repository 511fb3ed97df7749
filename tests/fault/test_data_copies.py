"""Copies of a data directory: complete or not there, whenever their maker is killed; and true beside a writer."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from data_jobs import jobs
from data_worlds import CONFIG, ROWS_A, ROWS_B, A, B, appending, edited, fill, quiet
from ledger import Ledger

from disstream.engine.api import Entry, Row
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine, synced, watch
from disstream.engine.embedded import backup as copies
from disstream.engine.embedded.backup import CopyReport, backup, compact, restore
from disstream.engine.embedded.check import CheckReport, check
from disstream.engine.embedded.child import apart
from disstream.engine.embedded.copying import copy_snapshot
from disstream.engine.embedded.environment import FORMAT
from disstream.errors import StorageError
from disstream.testing.engine import opened


def report(directory: Path) -> CheckReport:
    return check(str(directory), quiet)


class Full(NamedTuple):
    """What a disk tells that has only so much."""

    f_bavail: int
    f_frsize: int


async def all_rows(directory: Path) -> tuple[list[bytes], list[bytes]]:
    """The payloads of both partitions, read by an engine, which then appends."""
    async with opened(EmbeddedEngine(directory, CONFIG)) as engine:
        found = []
        for ref, begin in ((A, 12), (B, 0)):
            batches = await engine.log.read(ref, begin, 1 << 30)
            found.append([row.data for batch in batches for row in batch.rows])
        await engine.catalog.transact({}, {"after": b"x"})
    return found[0], found[1]


@pytest.mark.parametrize("packed", [False, True])
async def test_there_and_back(tmp_path: Path, packed: bool) -> None:
    """Backup, restore into nothing: the rows, numbers and documents that were; the backup is not changed by it."""
    await fill(tmp_path / "data")
    expected = await all_rows(tmp_path / "data")
    assert list(map(len, expected)) == [ROWS_A - 12, ROWS_B]
    told = backup(str(tmp_path / "data"), str(tmp_path / "copy" / "deep"), quiet, compact=packed)
    assert told.server is None
    assert told.target_bytes == (tmp_path / "copy" / "deep" / "data.mdb").stat().st_size
    assert (told.target_bytes < told.source_bytes) == packed
    assert [path.name for path in (tmp_path / "copy" / "deep").iterdir()] == ["data.mdb"]
    original = (tmp_path / "copy" / "deep" / "data.mdb").read_bytes()
    restore(str(tmp_path / "copy" / "deep"), str(tmp_path / "again"), quiet)
    assert await all_rows(tmp_path / "again") == expected
    assert report(tmp_path / "again").clean
    assert (tmp_path / "copy" / "deep" / "data.mdb").read_bytes() == original


async def test_a_backup_beside_a_writer(tmp_path: Path) -> None:
    """While a process appends as fast as it can: what it had acknowledged before is in the copy, nothing by halves."""
    directory = tmp_path / "data"
    for round_, packed in enumerate((False, True)):
        shutil.rmtree(directory, ignore_errors=True)
        with appending(directory, seed=round_) as writer:
            before = len(writer.lines)
            target = tmp_path / f"copy {round_}"
            arguments = {"data_dir": str(directory), "target": str(target), "compact": packed}
            told = apart(backup, CopyReport, quiet, **arguments)
            assert told.server == writer.pid
            writer.wait(10)  # it goes on
            assert len(writer.lines) > before + 10  # and did so meanwhile
        ledger = Ledger()
        for number, line in enumerate(writer.lines):
            (ledger.add if number < before else ledger.add_possible)(line)
        assert report(target).clean
        async with opened(EmbeddedEngine(target, CONFIG)) as engine:
            await ledger.verify(engine)


async def test_compaction_keeps_all_and_gives_space_back(tmp_path: Path) -> None:
    """Free pages go, rows and documents stay, and the engine goes on; a second one finds nothing more to give."""
    await fill(tmp_path)
    expected = await all_rows(tmp_path)
    with edited(tmp_path) as (txn, tables):
        for n in range(200):
            txn.put(b"filler/%d" % n, bytes(8) + bytes(5000), db=tables["catalog"])
    with edited(tmp_path) as (txn, tables):
        for n in range(200):
            txn.delete(b"filler/%d" % n, db=tables["catalog"])
    os.chmod(tmp_path / "data.mdb", 0o640)
    told = compact(str(tmp_path), quiet)
    assert told.source_bytes - told.target_bytes > 200 * 5000
    assert stat.S_IMODE((tmp_path / "data.mdb").stat().st_mode) == 0o640
    assert compact(str(tmp_path), quiet).target_bytes == told.target_bytes
    assert report(tmp_path).clean
    assert await all_rows(tmp_path) == expected
    assert await all_rows(tmp_path) == expected


@pytest.mark.long
async def test_killed_at_every_line_of_a_compaction(tmp_path: Path) -> None:
    """Whichever line is the last, the directory holds all that it held, a server takes it, and so does a compaction."""
    await fill(tmp_path / "original")
    expected = await all_rows(tmp_path / "original")
    killed = 0
    with jobs() as runner:
        while True:
            directory = tmp_path / "data"
            shutil.rmtree(directory, ignore_errors=True)
            shutil.copytree(tmp_path / "original", directory)
            told = runner.run("compact", str(directory), line=killed)
            if "result" in told:
                break
            assert told == {"signal": 9}
            killed += 1
            assert runner.run("check", str(directory))["result"]["findings"] == []
            assert await all_rows(directory) == expected
            assert "result" in runner.run("compact", str(directory))
            assert not (directory / "data.mdb.new").exists()
    assert killed > 80


@pytest.mark.long
async def test_killed_at_every_line_of_a_restore(tmp_path: Path) -> None:
    """Whichever line is the last, the directory holds all of the backup, or a server refuses it or finds it as new;
    and repeated, the restore is complete."""
    await fill(tmp_path / "original")
    expected = await all_rows(tmp_path / "original")
    backup(str(tmp_path / "original"), str(tmp_path / "backup"), quiet)
    killed = refused = complete = 0
    with jobs() as runner:
        while True:
            directory = tmp_path / "data"
            shutil.rmtree(directory, ignore_errors=True)
            told = runner.run("restore", str(tmp_path / "backup"), str(directory), line=killed)
            if "result" in told:
                break
            assert told == {"signal": 9}
            killed += 1
            if (directory / "data.mdb").exists():
                complete += 1
                assert await all_rows(directory) == expected
                continue
            if (directory / "data.mdb.new").exists():
                refused += 1
                with pytest.raises(StorageError, match=r"restore into .* was not finished: repeat it"):
                    await EmbeddedEngine(directory, CONFIG).start()
            assert "result" in runner.run("restore", str(tmp_path / "backup"), str(directory))
            assert await all_rows(directory) == expected
    assert killed > 80
    assert refused > 5
    assert complete > 5


@pytest.mark.long
async def test_killed_at_every_line_of_a_backup(tmp_path: Path) -> None:
    """What is called data.mdb is complete, or the backup that was there before; the original is not touched."""
    await fill(tmp_path / "data")
    original = (tmp_path / "data" / "data.mdb").read_bytes()
    killed = complete = 0
    with jobs() as runner:
        while True:
            target = tmp_path / "copy"
            shutil.rmtree(target, ignore_errors=True)
            told = runner.run("backup", str(tmp_path / "data"), str(target), line=killed)
            if "result" in told:
                break
            assert told == {"signal": 9}
            killed += 1
            if (target / "data.mdb").exists():
                complete += 1
                assert report(target).clean
            else:
                assert "result" in runner.run("backup", str(tmp_path / "data"), str(target))
            assert (tmp_path / "data" / "data.mdb").read_bytes() == original
    assert killed > 60
    assert complete > 5


async def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is overwritten unasked, nothing copied onto itself, nothing put where others' files are."""
    data, copy = tmp_path / "data", tmp_path / "copy"
    await fill(data)
    backup(str(data), str(copy), quiet)
    before = (copy / "data.mdb").read_bytes()
    refused: dict[str, Callable[[], object]] = {
        "holds a backup already.*--force": lambda: backup(str(data), str(copy), quiet),
        "is a data directory": lambda: backup(str(data), str(data), quiet, force=True),
        "holds other files .'photo'": lambda: backup(str(data), str(tmp_path / "mine"), quiet, force=True),
        "is no directory": lambda: backup(str(data), str(tmp_path / "mine" / "photo"), quiet),
        "no data.mdb in it": lambda: backup(str(tmp_path / "mine"), str(copy), quiet, force=True),
        "holds data already.*--force": lambda: restore(str(copy), str(data), quiet),
        "holds other files": lambda: restore(str(copy), str(tmp_path / "mine"), quiet),
        "not a directory that the backup": lambda: restore(str(copy), str(copy), quiet, force=True),
    }
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo").touch()
    for told, refuse in refused.items():
        with pytest.raises(StorageError, match=told):
            refuse()
    assert (copy / "data.mdb").read_bytes() == before
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["photo"]
    await all_rows(data)  # which writes a document
    backup(str(data), str(copy), quiet, force=True)
    assert (copy / "data.mdb").read_bytes() != before
    assert report(copy).documents == 21
    restore(str(copy), str(data), quiet, force=True)
    assert report(data).documents == 21
    monkeypatch.setattr(os, "statvfs", lambda path: Full(5, 4096))
    full: list[Callable[[], object]] = [
        lambda: compact(str(data), quiet),
        lambda: backup(str(data), str(tmp_path / "other"), quiet),
    ]
    for job in full:
        with pytest.raises(StorageError, match=r"takes [0-9,]+ bytes in .*, 20,480 are free"):
            job()
    assert not (tmp_path / "other").exists()
    assert report(data).clean


async def test_a_damaged_backup_is_not_restored(tmp_path: Path) -> None:
    """It is checked before anything is made, and the finding is told."""
    await fill(tmp_path / "data")
    backup(str(tmp_path / "data"), str(tmp_path / "copy"), quiet)
    path = tmp_path / "copy" / "data.mdb"
    path.write_bytes(path.read_bytes().replace(b"a payload of row 3", b"A payload of row 3"))
    with pytest.raises(StorageError, match=r"is damaged.*checksum.*use another backup"):
        restore(str(tmp_path / "copy"), str(tmp_path / "again"), quiet)
    assert not (tmp_path / "again").exists()


async def test_a_copy_that_is_not_the_original_is_not_put_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compaction whose copy lacks a document, or has another, leaves the directory as it was."""
    await fill(tmp_path)
    before = (tmp_path / "data.mdb").read_bytes()
    copy = copy_snapshot

    def wrong(found: object, new: Path, *rest: object, **more: object) -> None:
        copy(found, new, *rest, **more)  # type: ignore[arg-type]
        content = new.read_bytes()
        assert content.count(b"document/7") == 1
        new.write_bytes(content.replace(b"document/7", b"document/6z"[:10]))

    monkeypatch.setattr(copies, "copy_snapshot", wrong)
    with pytest.raises(StorageError, match="differs in catalog"):
        compact(str(tmp_path), quiet)
    assert (tmp_path / "data.mdb").read_bytes() == before
    assert not (tmp_path / "data.mdb.new").exists()


def test_beside_a_server_nothing_is_replaced(tmp_path: Path) -> None:
    """Compaction and restore name the process that serves, and do nothing."""
    with appending(tmp_path / "data") as process:
        with pytest.raises(StorageError, match=f"process {process.pid} serves from .*: stop it first"):
            apart(compact, CopyReport, quiet, data_dir=str(tmp_path / "data"))
        apart(backup, CopyReport, quiet, data_dir=str(tmp_path / "data"), target=str(tmp_path / "copy"))
        arguments = {"backup_dir": str(tmp_path / "copy"), "data_dir": str(tmp_path / "data"), "force": True}
        with pytest.raises(StorageError, match=f"process {process.pid} serves"):
            apart(restore, CopyReport, quiet, **arguments)
        process.wait(10)
    assert report(tmp_path / "data").clean


async def test_a_system_that_went_down_while_relaxed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the next server undoes is not read before; whoever replaces the file undoes it first, and leaves no way
    back that leads into another file."""
    relaxed = EmbeddedConfig(durability="relaxed", sync_interval_s=3600, map_size_bytes=1 << 30)
    async with opened(EmbeddedEngine(tmp_path / "data", relaxed)) as engine:
        await engine.catalog.transact({}, {"key": b"value"})
        shutil.copytree(tmp_path / "data", tmp_path / "down")
        shutil.copytree(tmp_path / "data", tmp_path / "replaced")
    assert not (tmp_path / "data" / synced.NAME).exists()
    assert report(tmp_path / "down").documents == 1
    monkeypatch.setattr(synced, "boot_id", lambda: b"another".ljust(36))
    for look in (report, lambda directory: backup(str(directory), str(tmp_path / "copy"), quiet)):
        with pytest.raises(StorageError, match=r"went down .* start a server there first"):
            look(tmp_path / "down")
    compact(str(tmp_path / "down"), quiet)
    backup(str(tmp_path / "data"), str(tmp_path / "copy"), quiet)
    restore(str(tmp_path / "copy"), str(tmp_path / "replaced"), quiet, force=True)
    for name, documents in (("down", 0), ("replaced", 1)):
        assert not (tmp_path / name / synced.NAME).exists()
        found = report(tmp_path / name)
        assert (found.findings, found.documents) == ([], documents)
        async with opened(EmbeddedEngine(tmp_path / name, relaxed)) as engine:
            assert len(await engine.catalog.scan("")) == documents


async def test_a_reader_that_outlives_its_server_stops_a_compaction(tmp_path: Path) -> None:
    """LMDB's table of readers belongs to the old file. While somebody has it open, the file is not replaced."""
    await fill(tmp_path)
    script = (
        "import lmdb, sys\n"
        "env = lmdb.Environment(sys.argv[1], readonly=True, max_dbs=9)\n"
        "print('open', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"open\n"
        with pytest.raises(StorageError, match="still reads from"):
            compact(str(tmp_path), quiet)
        reader.communicate(timeout=30)
    assert compact(str(tmp_path), quiet).format == FORMAT
    assert len((await all_rows(tmp_path))[1]) == ROWS_B


READS_AND_DIES = """
import lmdb, os, signal, sys
env = lmdb.Environment(sys.argv[1], readonly=True, create=False, map_size=0, max_dbs=9)
txn = env.begin()
os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_a_reader_that_is_killed_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup that is killed beside a server does not let its file grow for ever: what is freed is used again."""
    monkeypatch.setattr(watch, "LOOK_INTERVAL_S", 0)
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await engine.log.open({A: 1})
        subprocess.run([sys.executable, "-c", READS_AND_DIES, tmp_path], check=False)
        for number in range(50):
            await engine.log.append([Entry(A, [Row(bytes(100_000))], 1)], 1)
            await engine.log.trim(A, number + 1)
        assert (tmp_path / "data.mdb").stat().st_size < 2_000_000
