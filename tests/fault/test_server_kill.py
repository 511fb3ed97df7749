"""Proves durability end to end: kill -9 of the server at a random moment loses no acknowledged record."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from disstream import NewRecord, Record, TransportError, connect
from disstream.door import DisClient

WRITERS = 4
PARTITIONS = 3


class Victim:
    """A server in a process of its own, on a data directory that outlives it."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url

    async def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        assert await self.process.wait() == -signal.SIGKILL


@asynccontextmanager
async def server(data_dir: Path) -> AsyncIterator[Victim]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "disstream", "serve", "--port", "0", "--data-dir", str(data_dir)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        found = re.match(r"serving (http://\S+)", line)
        assert found, f"the server said {line!r}"
        yield Victim(process, found[1])
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def write_until_killed(victim: Victim, dice: random.Random, acknowledged: dict[tuple[str, int], bytes]) -> int:
    """Put from several tasks; kill the server after a random number of answers. Returns how many puts were lost."""
    kill_after = dice.randint(1, 120)
    answers = lost = 0
    enough = anyio.Event()
    number = len(acknowledged) * 1_000_000

    async def write(dis: DisClient) -> None:
        nonlocal answers, lost, number
        while True:
            batch = []
            for _ in range(dice.choice([1, 3, 40])):
                number += 1
                batch.append(NewRecord(b"%d:" % number + dice.randbytes(dice.choice([0, 10, 900])), f"k{number % 11}"))
            try:
                results = await dis.records.put("s", batch)
            except TransportError:
                lost += 1
                return
            for record, result in zip(batch, results, strict=True):
                assert result.partition_id is not None
                assert result.sequence_number is not None
                acknowledged[(result.partition_id, result.sequence_number)] = record.data
            answers += 1
            if answers >= kill_after:
                enough.set()

    async with connect(victim.url, project_id="demo") as dis, anyio.create_task_group() as tasks:
        for _ in range(WRITERS):
            tasks.start_soon(write, dis)
        await enough.wait()
        await victim.kill()
    return lost


async def read_all(url: str) -> dict[tuple[str, int], Record]:
    stored: dict[tuple[str, int], Record] = {}
    async with connect(url, project_id="demo") as dis:
        for partition in (await dis.streams.describe("s")).partitions:
            cursor = await dis.cursors.get("s", partition.partition_id, "TRIM_HORIZON")
            numbers = []
            while (page := await dis.records.get(cursor)).records:
                stored |= {(r.partition_id, r.sequence_number): r for r in page.records}
                numbers += [r.sequence_number for r in page.records]
                cursor = page.next_cursor
            assert numbers == list(range(len(numbers))), "numbers are contiguous from 0"
            assert partition.sequence_range is not None
            assert partition.sequence_range.end == len(numbers)
    return stored


async def kill_rounds(data_dir: Path, seed: int, rounds: int) -> None:
    dice = random.Random(seed)
    acknowledged: dict[tuple[str, int], bytes] = {}
    lost = 0
    async with server(data_dir) as victim, connect(victim.url, project_id="demo") as dis:
        await dis.streams.create("s", partitions=PARTITIONS)
    for _ in range(rounds):
        async with server(data_dir) as victim:
            lost += await write_until_killed(victim, dice, acknowledged)
    async with server(data_dir) as victim:
        stored = await read_all(victim.url)
    for place, data in acknowledged.items():
        assert place in stored, f"{place} was acknowledged and is lost"
        assert stored[place].data == data
    assert lost > 0, "no put was under way when the server died: the test proves little"


async def test_a_killed_server_keeps_every_acknowledged_record(tmp_path: Path) -> None:
    """Several kills of one server under concurrent puts: each acknowledged record is at its place, byte for byte."""
    await kill_rounds(tmp_path, seed=1, rounds=5)


@pytest.mark.long
async def test_a_killed_server_keeps_every_acknowledged_record_for_long(tmp_path: Path) -> None:
    """The same, fifty times."""
    await kill_rounds(tmp_path, seed=2, rounds=50)
