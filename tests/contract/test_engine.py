"""Every engine keeps the contract of `disstream.engine.api`; memory and embedded answer the same to the same."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from disstream.engine.api import Engine, Entry, PartitionRef, Row, Writer
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine, commit, merging
from disstream.engine.memory import MemoryEngine
from disstream.engine.rules import MAX_READ_ROWS
from disstream.errors import DisError
from disstream.testing.checks import timed
from disstream.testing.engine import DURABLE_CHECKS, ENGINE_CHECKS, Check, check_engine, opened

SMALL = EmbeddedConfig(map_size_bytes=1 << 30)


def _name(check: Check) -> str:
    return check.__name__


@pytest.mark.parametrize("check", ENGINE_CHECKS, ids=_name)
async def test_memory(check: Check) -> None:
    """The memory engine keeps one promise."""
    await check(lambda name: MemoryEngine())


@pytest.mark.parametrize("check", ENGINE_CHECKS + DURABLE_CHECKS, ids=_name)
async def test_embedded(check: Check, tmp_path: Path) -> None:
    """The embedded engine keeps one promise."""
    await check(lambda name: EmbeddedEngine(tmp_path / name, SMALL))


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are merged as soon as two of them follow each other."""
    monkeypatch.setattr(merging, "FEW", 2)
    monkeypatch.setattr(commit, "MERGE_PAUSE_S", 0)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("check", ENGINE_CHECKS + DURABLE_CHECKS, ids=_name)
async def test_embedded_that_merges_all(check: Check, tmp_path: Path) -> None:
    """It keeps the promise as well while whatever can be merged is."""
    await check(lambda name: EmbeddedEngine(tmp_path / name, SMALL))


async def test_relaxed(tmp_path: Path) -> None:
    """Relaxed durability changes nothing but when the disk is synchronised."""
    config = EmbeddedConfig(durability="relaxed", sync_interval_s=0.01)
    await check_engine(lambda name: EmbeddedEngine(tmp_path / name, config))


@pytest.mark.parametrize("kind", ["memory", "embedded"])
async def test_reads_are_bounded_in_rows(kind: str, tmp_path: Path) -> None:
    """A read ends after MAX_READ_ROWS even if the rows weigh nothing; the next one goes on behind them."""
    ref = PartitionRef("s", 0)
    async with opened(MemoryEngine() if kind == "memory" else EmbeddedEngine(tmp_path, SMALL)) as engine:
        await engine.log.open({ref: 1})
        for length in (MAX_READ_ROWS - 1, 1, 5, 2 * MAX_READ_ROWS):
            await engine.log.append([Entry(ref, [Row(b"")] * length, 1)], 1)
        read = 0
        for expected in ([MAX_READ_ROWS - 1, 1], [5, MAX_READ_ROWS - 5], [MAX_READ_ROWS], [5], []):
            batches = await engine.log.read(ref, read, 1000)
            assert [len(batch.rows) for batch in batches] == expected
            assert not batches or batches[0].first_sequence == read
            read += sum(expected)


async def test_check_engine_finds_a_broken_engine() -> None:
    """The suite raises on an engine that forgets: it is no rubber stamp."""
    with pytest.raises(AssertionError, match="after reopening"):
        await check_engine(lambda name: MemoryEngine())


async def _compare(tmp_path: Path, seed: int, steps: int) -> None:
    """Give both engines the same random calls, now and then reopening the embedded one; every answer must be equal."""
    dice = random.Random(seed)
    refs = [PartitionRef(stream, number) for stream in ("s", "s2", "ü") for number in range(3)]
    keys = ["a", "a/b", "a/c", "b", "é", "\U0001f511"]
    memory: Engine = MemoryEngine()
    embedded: Engine = EmbeddedEngine(tmp_path / str(seed), SMALL)
    await memory.start()
    await embedded.start()
    # Versions are each engine's own: compared by what they mean, when used as an expectation.
    known: list[dict[str, int]] = [{}, {}]

    async def answer(engine: Engine, index: int, call: str, *args: Any) -> object:
        try:
            if call == "transact":
                expect = {key: known[index].get(key, 0) for key in args[0]}
                await engine.catalog.transact(expect, args[1], args[2])
                return None
            if call == "scan":
                page = await engine.catalog.scan(*args)
                known[index].update({key: value.version for key, value in page})
                return [(key, value.value) for key, value in page]
            if call == "get":
                value = await engine.catalog.get(*args)
                known[index][args[0]] = value.version if value else 0
                return value and value.value
            found = await getattr(engine.log, call)(*args)
            return timed(found) if call == "read" else found
        except DisError as exc:
            return type(exc)

    for step in range(steps):
        ref = dice.choice(refs)
        number = dice.randrange(-1, 200)
        rows = [
            Row(dice.randbytes(dice.randrange(40)), dice.choice([None, "", "k", "ü"]), dice.choice([None, 5]))
            for _ in range(dice.randrange(1, 9))
        ]
        some = dice.sample(keys, dice.randrange(4))
        writer = Writer(dice.choice("ab") * 32, dice.randrange(3), dice.choice([0, 0, dice.randrange(25)]), step // 2)
        calls: list[tuple[Any, ...]] = [
            ("open", {r: dice.randrange(1, 3) for r in dice.sample(refs, 3)}),
            *[("append", [Entry(ref, rows, dice.choice([1, 2])), Entry(dice.choice(refs), rows[:2], 2)], number + 500)]
            * 6,
            *[("append", [Entry(ref, rows, 2, writer), Entry(ref, rows[:2], 2, writer)], number + 500)] * 6,
            *[("recall", [(ref, writer, 5), (dice.choice(refs), writer, 5)], number + 500)] * 3,
            *[("read", ref, number, dice.choice([0, 10, 100, 1000, 1 << 30]))] * 6,
            ("bounds", refs),
            ("seek", ref, number + 500),
            ("trim", ref, number),
            ("drop", dice.choice(["s", "s2", "ü", "x"])) if dice.random() < 0.2 else ("bounds", [ref]),
            ("transact", some[:2], {key: dice.randbytes(3) for key in some}, dice.sample(keys, 1)),
            ("scan", dice.choice(["", "a", "a/"]), dice.choice(["", "a", "a/b"]), dice.randrange(5)),
            ("get", dice.choice(keys)),
        ]
        call = dice.choice(calls)
        expected = await answer(memory, 0, *call)
        found = await answer(embedded, 1, *call)
        assert found == expected, f"seed {seed}, step {step}: {call}"
        if dice.random() < 0.01:
            await embedded.close()
            embedded = EmbeddedEngine(tmp_path / str(seed), SMALL)
            await embedded.start()
    await embedded.close()
    await memory.close()


@pytest.mark.parametrize("seed", range(4))
async def test_embedded_answers_as_memory(seed: int, tmp_path: Path) -> None:
    """Embedded answers 400 random calls exactly as the oracle does, reopened in between."""
    await _compare(tmp_path, seed, 400)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("seed", range(4, 8))
async def test_embedded_that_merges_all_answers_as_memory(seed: int, tmp_path: Path) -> None:
    """So it does while whatever can be merged is."""
    await _compare(tmp_path, seed, 400)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 108))
async def test_embedded_answers_as_memory_for_long(seed: int, tmp_path: Path) -> None:
    """The same with 5,000 calls."""
    await _compare(tmp_path, seed, 5000)


async def test_opened_closes(tmp_path: Path) -> None:
    """The directory is free again behind the block, so that it can be opened at once."""
    for _ in range(2):
        async with opened(EmbeddedEngine(tmp_path, SMALL)):
            pass
