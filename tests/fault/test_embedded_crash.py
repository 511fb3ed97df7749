"""Kill -9 at a random moment: what the embedded engine acknowledged is there, and nothing is there by halves."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from appender import CONFIG, PARTITIONS, digest

from disstream.engine.api import Row, Writer
from disstream.engine.embedded import EmbeddedEngine
from disstream.testing.engine import opened


@dataclass
class Acknowledged:
    """Everything the processes so far were told to be durable."""

    rows: list[tuple[int, int, int, str]] = field(default_factory=list)
    written: dict[tuple[str, int], dict[int, int]] = field(default_factory=dict)
    """(producer, partition) -> number -> sequence number"""
    pair: int = 0
    merged: bool = False
    """Some of the appends were found in one batch."""

    def add(self, line: str) -> None:
        kind, *words = line.split()
        if kind == "rows":
            partition, first, length, found = words
            self.rows.append((int(partition), int(first), int(length), found))
        elif kind == "wrote":
            producer, partition, number, first = words
            self.written.setdefault((producer, int(partition)), {})[int(number)] = int(first)
        else:
            self.pair = max(self.pair, int(words[0]))


def run_and_kill(directory: Path, seed: int, lines: int) -> list[str]:
    """What a process acknowledged that is killed after it printed some `lines`."""
    script = Path(__file__).with_name("appender.py")
    with subprocess.Popen(
        [sys.executable, str(script), str(directory), str(seed)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        told += process.stdout.readlines()
    assert process.returncode == -9, f"seed {seed}: the process ended by itself"
    return [line for line in told if line.endswith("\n")]


async def verify(directory: Path, acknowledged: Acknowledged) -> None:
    async with opened(EmbeddedEngine(directory, CONFIG)) as engine:
        stored: list[list[Row]] = []
        for ref, bounds in zip(PARTITIONS, await engine.log.bounds(PARTITIONS), strict=True):
            assert bounds is not None
            rows: list[Row] = []
            begins_of_batches: set[int] = set()
            for batch in await engine.log.read(ref, 0, 1 << 40):
                assert batch.first_sequence == len(rows), "numbers are contiguous"
                begins_of_batches.add(len(rows))
                rows += batch.rows
            assert len(rows) == bounds.next
            at = 0
            while at < len(rows):  # appends, of which several may have become one batch
                batch_id, total = rows[at].data[:8], rows[at].data[9]
                begins = [row.data[:10] for row in rows[at : at + total]]
                assert begins == [batch_id + bytes([index, total]) for index in range(total)], "no half append"
                at += total
                acknowledged.merged |= at < len(rows) and at not in begins_of_batches
            stored.append(rows)
        for partition, first, length, expected in acknowledged.rows:
            assert digest(stored[partition][first : first + length]) == expected
        await verify_written(engine, acknowledged, stored)
        left, right = await engine.catalog.get("left"), await engine.catalog.get("right")
        assert (left and left.value) == (right and right.value), "no half transaction"
        assert int(left.value if left else 0) >= acknowledged.pair


async def verify_written(engine: EmbeddedEngine, acknowledged: Acknowledged, stored: list[list[Row]]) -> None:
    """The rows of a producer are there once, as many as are remembered of it, and where that was told."""
    for (producer, partition), places in acknowledged.written.items():
        begin = bytes.fromhex(producer)[:4]
        there = [row.data[:10] for row in stored[partition] if row.data.startswith(begin)]
        assert len(set(there)) == len(there), "no row twice"
        (known,) = await engine.log.recall([(PARTITIONS[partition], Writer(producer, 0, 0, 1 << 40), 1 << 30)], 1)
        assert (known.rows, known.refused) == (len(there), None)
        remembered = {
            number + n: first + n for number, end, first in known.spans if first >= 0 for n in range(end - number)
        }
        last = max(places)
        assert remembered[last] == places[last]
        assert all(remembered.get(number, first) == first for number, first in places.items())


async def crash(directory: Path, rounds: int, seed: int) -> None:
    dice = random.Random(seed)
    acknowledged = Acknowledged()
    for _ in range(rounds):
        for line in run_and_kill(directory, dice.randrange(1 << 30), dice.randrange(1, 150)):
            acknowledged.add(line)
        await verify(directory, acknowledged)
    assert len(acknowledged.rows) > rounds
    assert acknowledged.written
    assert acknowledged.merged


async def test_acknowledged_rows_survive_kill(tmp_path: Path) -> None:
    """Five crashes over one directory lose no acknowledged row and no acknowledged transaction."""
    await crash(tmp_path, 5, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
async def test_acknowledged_rows_survive_kill_for_long(seed: int, tmp_path: Path) -> None:
    """The same with fifty crashes, ten over each directory."""
    await crash(tmp_path, 10, seed=100 + seed)
