"""Relaxed, and the power fails: whatever of the unsynchronised writes reached the disk, in whatever order, the
directory opens, and holds what was synchronised; only what came later is gone."""

from __future__ import annotations

import logging
import random
import shutil
from pathlib import Path

import pytest

from disstream.engine.api import Entry, PartitionRef, Row
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine, synced
from disstream.errors import StorageError
from disstream.testing.engine import opened

A = PartitionRef("s", 0)
PAGE = 4096
RELAXED = EmbeddedConfig(durability="relaxed", sync_interval_s=3600, map_size_bytes=1 << 30, ballast_bytes=0)
FSYNC = EmbeddedConfig(map_size_bytes=1 << 30, ballast_bytes=0)


def row(number: int) -> Row:
    return Row(number.to_bytes(8, "big") + random.Random(number).randbytes(number * 37 % 9_000))


async def write(engine: EmbeddedEngine, dice: random.Random, count: int) -> None:
    """Appends, trims and transactions, each a commit of its own, so that pages are freed and used again."""
    for _ in range(count):
        (bounds,) = await engine.log.bounds([A])
        assert bounds is not None
        kind = dice.randrange(4)
        if kind == 0:
            await engine.log.trim(A, bounds.oldest + (bounds.next - bounds.oldest) // 3)
        elif kind == 1:
            await engine.catalog.transact({}, {f"key {dice.randrange(9)}": dice.randbytes(dice.randrange(3_000))})
        else:
            rows = [row(bounds.next + index) for index in range(dice.randrange(1, 5))]
            assert await engine.log.append([Entry(A, rows, 1)], 1) == [bounds.next]


async def contents(engine: EmbeddedEngine) -> tuple[object, ...]:
    (bounds,) = await engine.log.bounds([A])
    assert bounds is not None
    found: list[bytes] = []
    while len(found) < bounds.next - bounds.oldest:
        for batch in await engine.log.read(A, bounds.oldest + len(found), 1 << 20):
            found += [each.data for each in batch.rows]
    assert found == [row(number).data for number in range(bounds.oldest, bounds.next)]
    return bounds, [(key, versioned.value) for key, versioned in await engine.catalog.scan("")]


def sync_now(engine: EmbeddedEngine) -> None:
    """What the thread does each `sync_interval_s`; nothing else is under way."""
    advancing = engine.log._committer.check().synced
    assert advancing is not None
    advancing.advance()


def after_power_failure(at_sync: dict[str, bytes], later: Path, dice: random.Random, to: Path) -> None:
    """The disk: what was synchronised, and any pages of those that were written since."""
    to.mkdir()
    for name, before in at_sync.items():
        now = (later / name).read_bytes()
        disk = bytearray(before.ljust(len(now), b"\0"))
        share = dice.choice([0.1, 0.5, 0.9, 1.0])
        if name == "data.mdb":
            for begin in range(0, len(now), PAGE):
                # The first pages name the latest transaction, and are often the first that the system writes.
                if dice.random() < (0.8 if begin < 2 * PAGE else share):
                    disk[begin : begin + PAGE] = now[begin : begin + PAGE]
        (to / name).write_bytes(disk)


@pytest.mark.parametrize("seed", range(12))
async def test_nothing_synchronised_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """After a power failure the directory holds what it held at the last sync, exactly, and is written again; after
    another one, that of then."""
    dice = random.Random(seed)
    data = tmp_path / "data"
    for life in range(3):
        monkeypatch.setattr(synced, "boot_id", lambda life=life: f"boot {life}".encode().ljust(36))
        engine = EmbeddedEngine(data, RELAXED)
        await engine.start()
        await engine.log.open({A: 1})
        await write(engine, dice, 30)
        sync_now(engine)
        kept = await contents(engine)
        at_sync = {name: (data / name).read_bytes() for name in ("data.mdb", synced.NAME)}
        await write(engine, dice, dice.randrange(1, 40))
        crashed = tmp_path / f"crashed {life}"
        after_power_failure(at_sync, data, dice, crashed)
        await engine.close()
        shutil.rmtree(data)
        crashed.rename(data)
        monkeypatch.setattr(synced, "boot_id", lambda life=life: f"boot {life}, again".encode().ljust(36))
        async with opened(EmbeddedEngine(data, dice.choice([RELAXED, FSYNC]))) as again:
            assert await contents(again) == kept


async def test_without_the_way_back_it_would_be_lost(tmp_path: Path) -> None:
    """The proof of the proof: with the record taken away, the same disk does not open, or reads damaged."""
    broken = 0
    for seed in range(8):
        dice = random.Random(seed)
        data, crashed = tmp_path / f"data {seed}", tmp_path / f"crashed {seed}"
        async with opened(EmbeddedEngine(data, RELAXED)) as engine:
            await engine.log.open({A: 1})
            await write(engine, dice, 30)
            sync_now(engine)
            at_sync = {"data.mdb": (data / "data.mdb").read_bytes()}
            await write(engine, dice, 30)
            after_power_failure(at_sync, data, dice, crashed)
        try:
            async with opened(EmbeddedEngine(crashed, FSYNC)) as again:
                await contents(again)
        except (StorageError, AssertionError):
            broken += 1
    assert broken


async def test_the_end_of_the_process_takes_nothing(tmp_path: Path) -> None:
    """Where only the process ended, what it stored is there although it was never synchronised."""
    data, copy = tmp_path / "data", tmp_path / "copy"
    async with opened(EmbeddedEngine(data, RELAXED)) as engine:
        await engine.log.open({A: 1})
        await write(engine, random.Random(1), 40)
        stored = await contents(engine)
        shutil.copytree(data, copy)  # as a process leaves it that is killed
    for config in (RELAXED, FSYNC):
        async with opened(EmbeddedEngine(copy, config)) as engine:
            assert await contents(engine) == stored
    assert not (copy / synced.NAME).exists()  # closed as it should: there is nothing to go back to


async def test_going_back_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says that something was undone, and how many transactions at least."""
    data, copy = tmp_path / "data", tmp_path / "copy"
    async with opened(EmbeddedEngine(data, RELAXED)) as engine:
        await engine.log.open({A: 1})
        sync_now(engine)
        for number in range(3):
            await engine.log.append([Entry(A, [row(number)], 1)], 1)
        shutil.copytree(data, copy)
    monkeypatch.setattr(synced, "boot_id", lambda: b"another".ljust(36))
    with caplog.at_level(logging.WARNING, "disstream.engine"):
        async with opened(EmbeddedEngine(copy, FSYNC)) as engine:
            assert (await engine.log.bounds([A]))[0] == (0, 0, 1)
    assert "3 transactions at least" in caplog.text


@pytest.mark.parametrize("damage", ["torn", "both", "older data"])
async def test_a_damaged_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    """A torn record leaves the one before it, which is as sound; without any, or with an older data.mdb, the directory
    is refused with what to do, and not guessed at."""
    data, copy = tmp_path / "data", tmp_path / "copy"
    async with opened(EmbeddedEngine(data, RELAXED)) as engine:
        await engine.log.open({A: 1})
        old = (data / "data.mdb").read_bytes()
        await write(engine, random.Random(1), 10)
        sync_now(engine)
        stored = await contents(engine)
        shutil.copytree(data, copy)
        kept = (data / synced.NAME).read_bytes()
        sync_now(engine)  # writes the other slot: torn, it counts for nothing
        record = bytearray((data / synced.NAME).read_bytes())
    newer = next(at for at in (0, 512) if record[at : at + 212] != kept[at : at + 212])
    record[newer + 100] ^= 1
    if damage == "both":
        record[512 - newer + 100] ^= 1
    if damage == "older data":
        (copy / "data.mdb").write_bytes(old)
    (copy / synced.NAME).write_bytes(record)
    monkeypatch.setattr(synced, "boot_id", lambda: b"another".ljust(36))
    engine = EmbeddedEngine(copy, FSYNC)
    if damage == "torn":
        async with opened(engine):
            assert await contents(engine) == stored
        return
    with pytest.raises(StorageError, match=rf"{copy}.*remove"):
        await engine.start()
    (copy / synced.NAME).unlink()
    (copy / "data.mdb").write_bytes(old)
    async with opened(EmbeddedEngine(copy, FSYNC)):
        pass
