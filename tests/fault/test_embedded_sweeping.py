"""What is forgotten leaves the file and holds nobody up; what is told of the rest stays true through crashes."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import lmdb
import pytest

from disstream.engine.api import Entry, PartitionRef, Row, Surplus
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine, batch, commit, merging, sweeping, watch
from disstream.engine.embedded.check import check
from disstream.engine.embedded.environment import Environment
from disstream.engine.embedded.figures import figures
from disstream.errors import StorageFull
from disstream.testing.engine import opened

DURABLE = EmbeddedConfig(map_size_bytes=1 << 30)
"""With "relaxed" nothing is free before it is synchronised, which RELAXED never does."""
RELAXED = EmbeddedConfig(map_size_bytes=1 << 30, durability="relaxed", sync_interval_s=3600)
A, B = PartitionRef("s", 0), PartitionRef("s", 1)
OTHER = PartitionRef("other", 0)


@pytest.fixture(autouse=True)
def as_appended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is small enough to be merged, so that it is known which batches there are."""
    monkeypatch.setattr(merging, "SMALL_ROWS", 0)


def environment(engine: EmbeddedEngine) -> Environment:
    return engine.log._committer.check()


def stored(engine: EmbeddedEngine) -> dict[int, int]:
    """What the batches in the file weigh, by slot."""
    env = environment(engine)
    found: dict[int, int] = {}
    with env.reading() as txn, txn.cursor(db=env.batches) as cursor:
        for key, value in cursor:
            slot, _ = batch.parse_key(key)
            found[slot] = found.get(slot, 0) + batch.header(value).weight
    return found


def held(engine: EmbeddedEngine) -> dict[int, int]:
    """What the engine says of that, of partitions that are not dropped."""
    states = engine.log._committer.states.values()
    return {state.slot: state.held for state in states if state.held}


async def nudge(engine: EmbeddedEngine) -> None:
    """A transaction, with which a piece is swept."""
    await engine.catalog.transact({}, {"nudge": b""})


async def sweep_all(engine: EmbeddedEngine) -> None:
    while engine.log._committer._sweeper.pause_s() is not None:
        await nudge(engine)
    await nudge(engine)  # the states of the last piece arrive before the answer to what comes behind it


@pytest.mark.parametrize("merges", [False, True])
@pytest.mark.parametrize("seed", range(3))
async def test_what_is_held_is_what_is_stored(
    seed: int, merges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through appends, merging, trims, drops, pieces of sweeping, crashes at any moment, re-opening: byte for byte."""
    if merges:
        monkeypatch.setattr(merging, "SMALL_ROWS", 32)
        monkeypatch.setattr(merging, "FEW", 2)
        monkeypatch.setattr(commit, "MERGE_PAUSE_S", 0)
    monkeypatch.setattr(sweeping, "SWEEP_BATCHES", 3)
    monkeypatch.setattr(sweeping, "QUIET_S", 3600.0)
    dice = random.Random(seed)
    refs = [A, B, OTHER]
    directory = tmp_path / "first"
    engine = EmbeddedEngine(directory, RELAXED)
    await engine.start()
    for step in range(250):
        ref = dice.choice(refs)
        kind = dice.choice(["append"] * 8 + ["trim"] * 4 + ["drop", "crash", "reopen"][: 3 if step % 5 == 0 else 0])
        if kind == "append":
            await engine.log.open(dict.fromkeys(refs, 1))
            rows = [Row(dice.randbytes(dice.randrange(30)), "kü") for _ in range(dice.randrange(1, 5))]
            await engine.log.append([Entry(ref, rows, 1), Entry(dice.choice(refs), rows[:1], 1)], step)
        elif kind == "trim":
            (bounds,) = await engine.log.bounds([ref])
            if bounds is not None:
                await engine.log.trim(ref, bounds.oldest + dice.randrange(20))
        elif kind == "drop":
            await engine.log.drop(ref.stream_id)
        else:
            if kind == "crash":  # as a kill leaves it: nothing was said at the end
                shutil.copytree(directory, tmp_path / f"{step}")
            await engine.close()
            directory = tmp_path / f"{step}" if kind == "crash" else directory
            engine = EmbeddedEngine(directory, RELAXED)
            await engine.start()
        await nudge(engine)
        slots = {state.slot for state in engine.log._committer.states.values()}
        assert held(engine) == {slot: weight for slot, weight in stored(engine).items() if slot in slots and weight}
    await sweep_all(engine)
    assert held(engine) == {slot: weight for slot, weight in stored(engine).items() if weight}
    await engine.close()
    assert check(str(directory), lambda what, done, total: None).findings == []


@pytest.mark.parametrize("config", [DURABLE, RELAXED], ids=["fsync", "relaxed"])
async def test_space_is_used_again(config: EmbeddedConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a steady load with trimming the file stops growing: after the first rounds it is as large as it will be."""
    monkeypatch.setattr(commit, "MAX_LOOSE_PAGES", 80)
    dice = random.Random(1)
    rows = [Row(dice.randbytes(1000), "key") for _ in range(100)]
    sizes: list[int] = []
    async with opened(EmbeddedEngine(tmp_path, config)) as engine:
        await engine.log.open({A: 1, B: 1})
        for _ in range(50):
            for _ in range(10):
                some = rows[: dice.randrange(1, 30)]
                await engine.log.append([Entry(A, rows, 1), Entry(B, some, 1), Entry(B, rows[:1], 1)], 1)
            for ref in (A, B):
                (bounds,) = await engine.log.bounds([ref])
                assert bounds is not None
                await engine.log.trim(ref, (bounds.oldest + bounds.next) // 2)
            sizes.append((tmp_path / "data.mdb").stat().st_size)
    assert sizes[-1] <= sizes[20] * 1.1, sizes
    assert sizes[-1] <= sizes[0] * 4, sizes


async def test_relaxed_leaves_few_loose_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it replaces is free only behind a sync: without one in time free pages pile up that no large batch fits."""
    monkeypatch.setattr(commit, "MAX_LOOSE_PAGES", 300)
    refs = [PartitionRef("s", number) for number in range(20)]
    async with opened(EmbeddedEngine(tmp_path, RELAXED)) as engine:
        await engine.log.open(dict.fromkeys(refs, 1))
        for _ in range(200):
            await engine.log.append([Entry(ref, [Row(b"x" * 5000)], 1) for ref in refs], 1)
    assert figures(str(tmp_path), lambda what, done, total: None).free_pages < 1_000


async def test_pieces_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One transaction frees no more than SWEEP_BYTES, takes no longer than it may, and always twice what it stores."""
    monkeypatch.setattr(sweeping, "QUIET_S", 3600.0)
    async with opened(EmbeddedEngine(tmp_path, RELAXED)) as engine:
        await engine.log.open({A: 1})
        for _ in range(100):
            await engine.log.append([Entry(A, [Row(b"x" * 1000)], 1)], 1)
        monkeypatch.setattr(sweeping, "BESIDE_S", (3600.0, 3600.0))
        monkeypatch.setattr(sweeping, "SWEEP_BYTES", 10_000)
        await engine.log.trim(A, 90)
        assert stored(engine) == {1: 100_000}
        await nudge(engine)
        assert stored(engine) == {1: 90_000}
        monkeypatch.setattr(sweeping, "BESIDE_S", (0.0, 0.0))
        await nudge(engine)
        assert stored(engine) == {1: 89_000}
        await engine.log.append([Entry(A, [Row(b"x" * 1500)], 1)] * 2, 1)
        assert stored(engine) == {1: 86_000}, "6,000 of the garbage, for 3,000 that were stored"
        assert (engine.log._committer._sweeper.pause_s() or 0) > 3000, "alone it waits for a quiet time"
        monkeypatch.setattr(sweeping, "BESIDE_S", (3600.0, 3600.0))
        monkeypatch.setattr(sweeping, "SWEEP_BYTES", 1 << 30)
        await nudge(engine)
        assert stored(engine) == {1: 13_000}
        assert engine.log._committer._sweeper.pause_s() is None


async def test_space_is_made_as_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With enough of the file free garbage stays; what is stored next is made room for, and the file does not grow."""
    monkeypatch.setattr(sweeping, "STOCK_BYTES", 500_000)
    monkeypatch.setattr(sweeping, "SWEEP_BYTES", 200_000)
    monkeypatch.setattr(sweeping, "BESIDE_S", (3600.0, 3600.0))
    monkeypatch.setattr(sweeping, "QUIET_S", 0.0)
    async with opened(EmbeddedEngine(tmp_path, DURABLE)) as engine:
        await engine.log.open({A: 1, B: 1})
        for _ in range(100):
            await engine.log.append([Entry(A, [Row(b"x" * 50_000)], 1)], 1)
        await engine.log.trim(A, 100)
        for _ in range(20):
            await nudge(engine)
        assert engine.log._committer._sweeper.pause_s() is None
        left = sum(stored(engine).values())
        assert 4_000_000 <= left <= 4_500_000
        size = (tmp_path / "data.mdb").stat().st_size
        for _ in range(90):
            await engine.log.append([Entry(B, [Row(b"x" * 50_000)], 1)], 1)
        assert (tmp_path / "data.mdb").stat().st_size <= size + 100_000
        assert stored(engine).get(1, 0) <= 600_000
        # Garbage in runs that are too short for what comes goes all the same, as the file grows.
        for _ in range(10):
            await engine.log.append([Entry(A, [Row(b"x" * 20_000)], 1), Entry(B, [Row(b"x" * 20_000)], 1)], 1)
        await engine.log.trim(A, 110)
        for _ in range(20):
            await engine.log.append([Entry(B, [Row(b"x" * 800_000)], 1)], 1)
        assert 1 not in stored(engine)


async def test_it_is_swept_when_nobody_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces go alone as well, until nothing is left."""
    monkeypatch.setattr(sweeping, "SWEEP_BATCHES", 7)
    monkeypatch.setattr(sweeping, "QUIET_S", 0.0)
    async with opened(EmbeddedEngine(tmp_path, RELAXED)) as engine:
        await engine.log.open({A: 1})
        for _ in range(60):
            await engine.log.append([Entry(A, [Row(b"x")], 1)], 1)
        changed = asyncio.Event()
        with engine.log.watch([A], lambda ref, end: changed.set()):
            await engine.log.trim(A, 50)
            while stored(engine) != {1: 10}:
                changed.clear()
                await changed.wait()


async def test_a_failed_transaction_sweeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a transaction swept that did not count is swept by a later one, and is counted once."""
    monkeypatch.setattr(sweeping, "QUIET_S", 3600.0)
    async with opened(EmbeddedEngine(tmp_path, RELAXED)) as engine:
        await engine.log.open({A: 1})
        for _ in range(20):
            await engine.log.append([Entry(A, [Row(b"x")], 1)], 1)
        await engine.log.trim(A, 12)
        real = environment(engine).env

        class Full:
            """All its transactions fail at their end, for want of room."""

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

            def begin(self, **options: Any) -> Any:
                txn = real.begin(**options)
                return Doomed(txn) if options.get("write") else txn

        class Doomed:
            def __init__(self, txn: Any) -> None:
                self.abort = txn.abort
                self._txn = txn

            def __enter__(self) -> Any:
                return self._txn.__enter__()

            def __exit__(self, *_: object) -> None:
                self.abort()
                error = lmdb.DiskError("mdb_txn_commit")
                vars(error)["code"] = errno.ENOSPC  # as LMDB's own have it
                raise error

        environment(engine).env = Full()  # type: ignore[assignment]
        with pytest.raises(StorageFull):
            await nudge(engine)
        assert stored(engine) == {1: 20} == held(engine)
        environment(engine).env = real
        await nudge(engine)
        await nudge(engine)
        await nudge(engine)
        assert stored(engine) == {1: 8} == held(engine)
        assert await engine.log.surplus([A], 7) == Surplus({A: 13})


# --- who keeps what is forgotten from becoming free ---------------------------------------------------------------

READER = """
import sys, lmdb
env = lmdb.Environment(sys.argv[1], readonly=True, max_dbs=6)
txn = env.begin()
print("reading", flush=True)
sys.stdin.readline()
"""


def reader(directory: Path) -> subprocess.Popen[str]:
    """Another process that holds a snapshot until it is told to end, or killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", READER, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "reading\n"
    return process


async def churn(engine: EmbeddedEngine, rounds: int) -> None:
    """Store a megabyte and forget it, again and again."""
    rows = [Row(b"x" * 10_000)] * 100
    for _ in range(rounds):
        await engine.log.append([Entry(A, rows, 1)], 1)
        await engine.log.trim(A, 10**9)
        await nudge(engine)


async def test_a_reader_that_died_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A process that was killed while it read is forgotten, and the file does not grow for it."""
    monkeypatch.setattr(watch, "LOOK_INTERVAL_S", 0.0)
    caplog.set_level(logging.INFO, "disstream.engine")
    async with opened(EmbeddedEngine(tmp_path, DURABLE)) as engine:
        await engine.log.open({A: 1})
        await churn(engine, 3)
        with reader(tmp_path) as process:
            await churn(engine, 3)
            assert str(process.pid) in environment(engine).env.readers()
            process.send_signal(signal.SIGKILL)
        await churn(engine, 2)
        assert str(process.pid) not in environment(engine).env.readers()
        size = (tmp_path / "data.mdb").stat().st_size
        await churn(engine, 20)
        assert (tmp_path / "data.mdb").stat().st_size <= size + 4 * 2**20
    assert "what was kept for them is used again" in caplog.text


async def test_a_reader_that_stalls_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A process that holds a snapshot for long is named in the log, once, and again when it is over."""
    monkeypatch.setattr(sweeping, "LOOK_S", 0.0)
    monkeypatch.setattr(sweeping, "OLD_S", 0.0)
    caplog.set_level(logging.INFO, "disstream.engine")
    async with opened(EmbeddedEngine(tmp_path, RELAXED)) as engine:
        await engine.log.open({A: 1})
        with reader(tmp_path) as process:
            await churn(engine, 3)
            told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
            assert len(told) == 1
            assert f"process {process.pid} has been reading an old state of {tmp_path}" in told[0]
            assert (engine.stats().snapshot_age_s or 0) > 0
            assert process.stdin is not None
            process.stdin.write("\n")
        assert engine.stats().snapshot_age_s is None, "also while nothing is written"
        await churn(engine, 1)
        assert f"process {process.pid} ended its old snapshot" in caplog.text
        assert engine.stats().snapshot_age_s is None
    assert f"process {os.getpid()} " not in caplog.text
