"""Who reads far behind waits for the disk in a thread; the loop, and with it the head, goes on."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from disstream.engine.api import Batch, Bounds, Entry, PartitionRef, Row, Surplus
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine, heat, merging, reading
from disstream.errors import StorageError
from disstream.testing.engine import opened

RELAXED = EmbeddedConfig(map_size_bytes=1 << 30, durability="relaxed", sync_interval_s=3600)
A, B = PartitionRef("s", 0), PartitionRef("s", 1)
LOTS = 1 << 30


@pytest.fixture(autouse=True)
def as_appended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is small enough to be merged, so that it is known which batches there are."""
    monkeypatch.setattr(merging, "SMALL_ROWS", 0)


class SlowDisk:
    """Reads in threads wait until they may go on; those on the loop do not, or the test would never end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = asyncio.get_running_loop()
        self.there = threading.Event()
        self.waits = asyncio.Event()
        self.threads: set[str] = set()
        self._run = reading._run
        monkeypatch.setattr(reading, "_run", self.run)

    def run(self, env: Any, work: Any) -> Any:
        thread = threading.current_thread()
        if thread is not threading.main_thread():
            self.threads.add(thread.name)
            self.loop.call_soon_threadsafe(self.waits.set)
            assert self.there.wait(60)
        return self._run(env, work)


async def store(engine: EmbeddedEngine, ref: PartitionRef, *data: bytes) -> None:
    await engine.log.append([Entry(ref, [Row(item) for item in data], 1)], 1)


def told(batches: list[Batch]) -> list[bytes]:
    return [row.data for batch in batches for row in batch.rows]


async def test_the_head_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While cold reads wait for the disk, what comes is appended and read at once, and trims are carried out."""
    async with opened(EmbeddedEngine(tmp_path, RELAXED)) as engine:
        await engine.log.open({A: 1, B: 1})
        for n in range(10):
            await store(engine, A, b"old %d" % n)
    async with opened(EmbeddedEngine(tmp_path, RELAXED)) as engine:
        disk = SlowDisk(monkeypatch)
        cold = [asyncio.ensure_future(engine.log.read(A, n, LOTS)) for n in (0, 5)]
        sought = asyncio.ensure_future(engine.log.seek(A, 0))
        much = asyncio.ensure_future(engine.log.surplus([A], 3))
        await disk.waits.wait()
        for n in range(5):
            await store(engine, A, b"new %d" % n)
            assert told(await engine.log.read(A, 10 + n, LOTS)) == [b"new %d" % n]
        await engine.log.trim(A, 3)
        await engine.log.trim(A, 4)  # by the second one the batches of the first are swept
        assert await engine.log.bounds([A]) == [Bounds(4, 15, 1)]
        assert not any(call.done() for call in (*cold, sought, much))
        disk.there.set()
        before, behind = await asyncio.gather(*cold)
        assert told(behind) == [b"old %d" % n for n in range(5, 10)], "no further than the end when it was asked"
        assert before == [], "trimmed and swept meanwhile"
        assert await sought in (0, 4)
        assert isinstance(await much, Surplus)
        assert disk.threads == {"disstream-read_0", "disstream-read_1"}


async def test_what_is_hot_stays_on_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are read on the loop until so many bytes were written after them."""
    async with opened(EmbeddedEngine(tmp_path, RELAXED)) as engine:
        engine.log._committer.reading._heat = heat.Heat(hot_bytes=20_000)
        disk = SlowDisk(monkeypatch)
        disk.there.set()
        await engine.log.open({A: 1})
        for _ in range(10):
            await store(engine, A, b"x" * 1000)
            assert len(await engine.log.read(A, 0, LOTS)) > 0
        assert not disk.threads
        for _ in range(50):
            await store(engine, A, b"x" * 1000)
        assert len(await engine.log.read(A, 59, LOTS)) == 1
        assert not disk.threads
        assert len(await engine.log.read(A, 0, LOTS)) == 60
        assert disk.threads


@pytest.mark.parametrize("seed", range(5))
async def test_closing_and_cancelling_while_reading(seed: int, tmp_path: Path) -> None:
    """Every read ends with its rows, its cancellation or a StorageError, and the directory is free at once."""
    dice = random.Random(seed)
    for _ in range(4):
        async with opened(EmbeddedEngine(tmp_path, RELAXED)) as engine:
            await engine.log.open({A: 1})
            await store(engine, A, *[b"x" * 1000] * 100)
            cold = [asyncio.ensure_future(engine.log.read(A, dice.randrange(50), LOTS)) for _ in range(20)]
            await asyncio.sleep(0)
            for call in dice.sample(cold, 5):
                call.cancel()
            await engine.close()
            for found in await asyncio.gather(*cold, return_exceptions=True):
                assert isinstance(found, (list, StorageError, asyncio.CancelledError))


async def test_damage_found_in_a_thread(tmp_path: Path) -> None:
    """What a cold read finds damaged is told as on the loop."""
    async with opened(EmbeddedEngine(tmp_path, RELAXED)) as engine:
        await engine.log.open({A: 1})
        await store(engine, A, b"needle" * 1000)
    path = tmp_path / "data.mdb"
    found = path.read_bytes()
    path.write_bytes(found.replace(b"needleneedle", b"needleNeedle"))
    async with opened(EmbeddedEngine(tmp_path, RELAXED)) as engine:
        with pytest.raises(StorageError, match="damaged"):
            await engine.log.read(A, 0, LOTS)
