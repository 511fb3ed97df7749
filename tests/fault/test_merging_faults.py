"""Merging when something fails or comes between: no row is lost, doubled or changed, and what is due is done later."""

from __future__ import annotations

import asyncio
import errno
import threading
from pathlib import Path
from typing import Any

import lmdb
import pytest

from disstream.engine.api import Entry, PartitionRef, Row
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine, batch, commit, merging
from disstream.engine.embedded.environment import Environment
from disstream.engine.embedded.merging import FEW, Merge
from disstream.errors import StorageError
from disstream.testing.checks import timed
from disstream.testing.engine import opened

A = PartitionRef("s", 0)
CONFIG = EmbeddedConfig(map_size_bytes=1 << 30)


async def append(engine: EmbeddedEngine, first: int, last: int) -> None:
    """Row n at n ms, each by a call of its own."""
    for n in range(first, last):
        assert await engine.log.append([Entry(A, [row(n)], 1)], n) == [n]


def row(n: int) -> Row:
    return Row(b"%d" % n, f"key-{n}", n * 7 if n % 2 else None)


async def check(engine: EmbeddedEngine, last: int, first: int = 0) -> None:
    """All rows from `first` to before `last` are there, each with its time."""
    found = timed(await engine.log.read(A, first, 1 << 30))
    assert found == [(n, n, row(n)) for n in range(first, last)]


def environment(engine: EmbeddedEngine) -> Environment:
    return engine.log._committer.check()


def lengths(engine: EmbeddedEngine) -> list[int]:
    """How many rows each stored batch has."""
    env = environment(engine)
    with env.reading() as txn:
        return [batch.header(value).length for _, value in txn.cursor(db=env.batches)]


async def transact(engine: EmbeddedEngine) -> None:
    """A transaction that stores no rows."""
    await engine.catalog.transact({}, {"k": b""})


@pytest.fixture
def only_beside_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """No transaction only for merging."""
    monkeypatch.setattr(commit, "MERGE_PAUSE_S", 3600)


@pytest.mark.usefixtures("only_beside_others")
async def test_the_next_transaction_merges(tmp_path: Path) -> None:
    """What is due is merged by the transaction that comes next, whatever else it does, and again when it grew."""
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await engine.log.open({A: 1})
        await append(engine, 0, FEW)
        assert lengths(engine) == [1] * FEW
        await transact(engine)
        assert lengths(engine) == [FEW]
        await append(engine, FEW, 2 * FEW + 1)
        assert lengths(engine) == [2 * FEW, 1]
        await check(engine, 2 * FEW + 1)


async def test_a_pause_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If nobody writes any more, what is due is merged all the same."""
    monkeypatch.setattr(commit, "MERGE_PAUSE_S", 0.001)
    merged = threading.Event()
    merge = Environment.merge

    def told(env: Environment, txn: Any, due: Merge) -> None:
        merge(env, txn, due)
        merged.set()

    monkeypatch.setattr(Environment, "merge", told)
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await engine.log.open({A: 1})
        await append(engine, 0, FEW)
        assert await asyncio.to_thread(merged.wait, 30)
        await check(engine, FEW)
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        assert lengths(engine) == [FEW]
        await check(engine, FEW)


@pytest.mark.usefixtures("only_beside_others")
async def test_after_a_start(tmp_path: Path) -> None:
    """What stood at the end stays as it is, and what comes is merged behind it."""
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await engine.log.open({A: 1})
        await append(engine, 0, FEW - 1)
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await append(engine, FEW - 1, 2 * FEW - 1)
        await transact(engine)
        assert lengths(engine) == [1] * (FEW - 1) + [FEW]
        await check(engine, 2 * FEW - 1)


class Failing:
    """An environment whose next transactions fail when they would be committed, as on a disk that is full."""

    def __init__(self, real: lmdb.Environment, times: int) -> None:
        self._real = real
        self._left = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def begin(self, **options: Any) -> Any:
        txn = self._real.begin(**options)
        if options.get("write") and self._left:
            self._left -= 1
            return Doomed(txn)
        return txn


class Doomed:
    """A transaction that gets everything done, and then is not committed."""

    def __init__(self, txn: lmdb.Transaction[Any]) -> None:
        self._txn = txn

    def __enter__(self) -> lmdb.Transaction[Any]:
        return self._txn.__enter__()

    def __exit__(self, *exc: object) -> None:
        self._txn.abort()
        error = lmdb.DiskError("mdb_txn_commit: No space left on device")
        vars(error)["code"] = errno.ENOSPC  # as LMDB's own have it
        raise error


@pytest.mark.usefixtures("only_beside_others")
async def test_a_failed_transaction_merged_nothing(tmp_path: Path) -> None:
    """Its merging is undone with it, and done by a later one."""
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await engine.log.open({A: 1})
        await append(engine, 0, FEW)
        env = environment(engine)
        real = env.env
        env.env = Failing(real, 1)  # type: ignore[assignment]
        with pytest.raises(StorageError, match="nothing was stored"):
            await engine.log.append([Entry(A, [row(FEW)], 1)], FEW)
        assert lengths(engine) == [1] * FEW
        await append(engine, FEW, FEW + 1)
        await append(engine, FEW + 1, FEW + 2)
        assert lengths(engine) == [FEW, 1, 1]
        await check(engine, FEW + 2)


@pytest.mark.usefixtures("only_beside_others")
async def test_a_damaged_batch_is_left_alone(tmp_path: Path) -> None:
    """It and its neighbours stay as they are: reading tells what is damaged, and gives all the others."""
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await engine.log.open({A: 1})
        await append(engine, 0, FEW)
        env = environment(engine)
        with env.env.begin(write=True) as txn:
            key = batch.key(1, 3)
            value = bytearray(txn.get(key, b"", db=env.batches))
            value[-1] ^= 1
            txn.put(key, bytes(value), db=env.batches)
        await transact(engine)
        assert lengths(engine) == [1] * FEW
        with pytest.raises(StorageError, match=r"sequence number 3 .*damaged"):
            await engine.log.read(A, 3, 999)
        assert len(timed(await engine.log.read(A, 0, 999))) == 3
        await check(engine, FEW, 4)


@pytest.mark.usefixtures("only_beside_others")
async def test_what_was_forgotten_meanwhile(tmp_path: Path) -> None:
    """Rows that are trimmed and swept before they are merged do not come back, nor those of a dropped stream."""
    other = PartitionRef("other", 0)
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await engine.log.open({A: 1, other: 1})
        await append(engine, 0, FEW - 1)
        await engine.log.trim(A, 3)
        await append(engine, FEW - 1, FEW)
        for _ in range(3):
            await transact(engine)
        await check(engine, FEW, 3)
        assert sum(lengths(engine)) <= FEW
        for _ in range(FEW):
            await engine.log.append([Entry(other, [Row(b"x")], 1)], 1)
        await engine.log.drop("other")
        for _ in range(3):
            await transact(engine)
        assert sum(lengths(engine)) <= FEW
        assert not engine.log._committer._merging.due, "nothing is kept of the dropped one"
        assert engine.log._committer._merging._tails.keys() == {1}
        await check(engine, FEW, 3)


@pytest.mark.usefixtures("only_beside_others")
async def test_who_reads_meanwhile(tmp_path: Path) -> None:
    """A snapshot that is open while batches are merged still holds what it held."""
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await engine.log.open({A: 1})
        await append(engine, 0, FEW)
        env = environment(engine)
        with env.reading() as txn:
            before = [(bytes(key), bytes(value)) for key, value in txn.cursor(db=env.batches)]
            await transact(engine)
            assert [(bytes(key), bytes(value)) for key, value in txn.cursor(db=env.batches)] == before
        assert len(before) == FEW
        assert lengths(engine) == [FEW]


@pytest.mark.usefixtures("only_beside_others")
async def test_many_partitions_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one call made due for hundreds of partitions is merged piece by piece, and in the end all of it."""
    monkeypatch.setattr(merging, "LEAST_WORK", 200)
    monkeypatch.setattr(merging, "WORK_PER_ROW", 0)
    monkeypatch.setattr(merging, "WORK_PER_BATCH", 0)
    refs = [PartitionRef("s", n) for n in range(200)]
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await engine.log.open(dict.fromkeys(refs, 1))
        for n in range(FEW):
            await engine.log.append([Entry(ref, [row(n)], 1) for ref in refs], n)
        counts = [len(lengths(engine))]
        while counts[-1] > 200:
            await transact(engine)
            counts.append(len(lengths(engine)))
            assert 0 < counts[-2] - counts[-1] <= 6 * FEW
        for ref in refs:
            assert timed(await engine.log.read(ref, 0, 999)) == [(n, n, row(n)) for n in range(FEW)]
