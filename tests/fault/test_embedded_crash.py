"""Kill -9 at a random moment: what the embedded engine acknowledged is there, and nothing is there by halves."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from appender import CONFIGS
from ledger import Ledger, use

from disstream.engine.embedded import EmbeddedEngine
from disstream.testing.engine import opened

Forks = tuple[IO[str], IO[str]]


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    """A process that forks one for each line it is given."""
    script = Path(__file__).with_name("appender.py")
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdin, process.stdout
        process.stdin.close()


def run_and_kill(forks: Forks, directory: Path, seed: int, config: str, lines: int) -> list[str]:
    """What a process told that was killed after some `lines`: none, and it is killed while it opens the directory."""
    to, told = forks
    to.write(f"{directory}\t{seed}\t{config}\n")
    to.flush()
    pid = int(told.readline().removeprefix("pid "))
    found = [told.readline() for _ in range(lines)]
    os.kill(pid, signal.SIGKILL)
    while not (line := told.readline()).startswith("ended "):
        found.append(line)
    assert line == "ended -9\n", f"seed {seed}: the process ended by itself"
    return found


async def crash(forks: Forks, directory: Path, config: str, rounds: int, seed: int) -> None:
    dice = random.Random(seed)
    ledger = Ledger()
    for number in range(rounds):
        lines = 0 if number % 9 == 8 else dice.randrange(1, 300)
        for line in run_and_kill(forks, directory, seed * 1_000 + number, config, lines):
            ledger.add(line)
        async with opened(EmbeddedEngine(directory, CONFIGS[config])) as engine:
            await ledger.verify(engine)
    assert ledger.acknowledged > rounds * 50
    async with opened(EmbeddedEngine(directory, CONFIGS[config])) as engine:
        await use(engine)


@pytest.mark.parametrize("config", ["fsync", "relaxed"])
async def test_acknowledged_rows_survive_kill(forks: Forks, tmp_path: Path, config: str) -> None:
    """Five kills over one directory undo nothing that was acknowledged: rows, trims, epochs, drops, transactions."""
    await crash(forks, tmp_path, config, 5, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("config", ["fsync", "relaxed"])
@pytest.mark.parametrize("seed", range(4))
async def test_acknowledged_rows_survive_kill_for_long(forks: Forks, tmp_path: Path, seed: int, config: str) -> None:
    """The same with 400 kills, 50 over each directory, which ages: its pages are freed and used again."""
    await crash(forks, tmp_path, config, 50, seed=100 + seed)
