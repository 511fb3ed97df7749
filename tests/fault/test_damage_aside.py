"""Damage where nobody asked for anything, under forgotten rows or beneath a due merge, makes no put fail."""

from __future__ import annotations

import logging
from pathlib import Path

import lmdb
import pytest

from disstream.engine.api import Entry, PartitionRef, Row
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine, batch, commit, merging, sweeping
from disstream.engine.embedded.environment import Environment
from disstream.engine.embedded.merging import FEW
from disstream.testing.engine import opened

CONFIG = EmbeddedConfig(map_size_bytes=1 << 30)
PAGE = 4096
A, B = PartitionRef("a", 0), PartitionRef("b", 7)


@pytest.fixture
def as_appended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is small enough to be merged, and nothing is swept alone."""
    monkeypatch.setattr(merging, "SMALL_ROWS", 0)
    monkeypatch.setattr(sweeping, "QUIET_S", 3600.0)
    monkeypatch.setattr(sweeping, "BESIDE_S", (3600.0, 3600.0))


def damage(directory: Path, payload: bytes) -> None:
    """Make the page with that payload one that is no page of a tree, behind the engine's back."""
    path = directory / "data.mdb"
    content = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        at = content.find(payload)
        assert at >= 0
        while at >= 0:  # also where an earlier transaction had it: which of them counts is LMDB's matter
            file.seek(at // PAGE * PAGE + 10)
            file.write(bytes(2))
            at = content.find(payload, at + 1)


async def fill(engine: EmbeddedEngine, ref: PartitionRef, first: int, last: int) -> None:
    for n in range(first, last):
        stored = await engine.log.append([Entry(ref, [Row(b"%s %d." % (ref.stream_id.encode(), n) * 40)], 1)], n)
        assert stored == [n]


def numbers(engine: EmbeddedEngine, slot: int, begin: int = 0) -> list[int]:
    """Of the last rows of the batches in the file, from row `begin` on."""
    env = engine.log._committer.check()
    found: list[int] = []
    with env.reading() as txn, txn.cursor(db=env.batches) as cursor:
        more = cursor.set_range(batch.key(slot, begin))
        while more:
            stored, last = batch.parse_key(cursor.key())
            if stored != slot:
                break
            found.append(last)
            more = cursor.next()
    return found


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]


@pytest.mark.usefixtures("as_appended")
async def test_damage_under_the_garbage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every put goes through, the first one too; the partition is named once, with the remedy, and counted; what it
    forgets later, and what others forget, is swept all the same. The next start tries again."""
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await engine.log.open({A: 1, B: 1})
        await fill(engine, A, 0, 200)
        await fill(engine, B, 0, 50)
        damage(tmp_path, b"a 3.")
        await engine.log.trim(A, 100)
        await engine.log.trim(B, 40)
        await fill(engine, B, 50, 60)
        await fill(engine, A, 200, 210)
        (line,) = told(caplog)
        assert "batches of partition 0 (stream id a) cannot be deleted" in line
        assert f"run `disstream data check {tmp_path}`" in line
        assert engine.stats().set_aside == 1
        assert numbers(engine, 2) == list(range(40, 60))
        await engine.log.trim(A, 150)
        await fill(engine, B, 60, 62)
        assert numbers(engine, 1, 100) == list(range(150, 210)), "behind the damage it is swept"
        await engine.log.drop("a")
        await fill(engine, B, 62, 66)
        assert numbers(engine, 1, 100) == []
        assert len(told(caplog)) == 1
        assert engine.stats().refusing is None
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await fill(engine, B, 66, 68)
        assert "batches of a dropped partition (slot 1) cannot be deleted" in told(caplog)[-1]
        assert len(told(caplog)) == 2
        assert engine.stats().set_aside == 1


@pytest.mark.usefixtures("as_appended")
async def test_damage_that_is_swept_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a job beside it the same: it is set aside, and the thread does not try it over and over."""
    monkeypatch.setattr(sweeping, "QUIET_S", 0.0)
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await engine.log.open({A: 1, B: 1})
        await fill(engine, A, 0, 200)
        await fill(engine, B, 0, 1)
        damage(tmp_path, b"a 3.")
        await engine.log.trim(A, 100)
        for _ in range(20):
            await engine.catalog.transact({}, {"nudge": b""})
        assert engine.log._committer._sweeper.pause_s() is None
        assert len(told(caplog)) == 1


@pytest.mark.usefixtures("as_appended")
async def test_a_key_that_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A batch whose key cannot be read is damage like any other, and not the end of the thread."""
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await engine.log.open({A: 1, B: 1})
        await fill(engine, A, 0, 5)
        env = engine.log._committer.check()
        with env.env.begin(write=True) as txn:
            txn.put(batch.key(1, 2) + b"?", b"?", db=env.batches)
        await engine.log.trim(A, 4)
        await fill(engine, B, 0, 3)
        assert len(told(caplog)) == engine.stats().set_aside == 1


async def test_damage_under_a_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Puts go through, others are merged, and the partition is left alone until the next start."""
    monkeypatch.setattr(commit, "MERGE_PAUSE_S", 3600)
    merge = Environment.merge

    def damaged(env: Environment, txn: lmdb.Transaction[memoryview], due: merging.Merge) -> None:
        merge(env, txn, due)
        if due.slot == 1:  # after it has changed something, as on a page that is reached while the tree is balanced
            raise lmdb.CorruptedError("MDB_CORRUPTED")

    monkeypatch.setattr(Environment, "merge", damaged)
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await engine.log.open({A: 1, B: 1})
        await fill(engine, A, 0, 3 * FEW)
        for _ in range(FEW):
            await engine.log.append([Entry(A, [Row(b"x")], 1), Entry(B, [Row(b"x")], 1)], 1)
        await fill(engine, A, 4 * FEW, 4 * FEW + 3)
        assert numbers(engine, 1) == list(range(4 * FEW + 3))
        assert numbers(engine, 2) == [FEW - 1]
        (line,) = told(caplog)
        assert "batches of partition 0 (stream id a) cannot be merged" in line
        assert engine.stats().set_aside == 1
        engine.log._committer._merging.check()
