"""Proves durability end to end: kill -9 of the server at a random moment loses no acknowledged record."""

from __future__ import annotations

import random
import signal
from asyncio.subprocess import Process
from pathlib import Path

import anyio
import pytest
from kill_world import PARTITIONS, Place, drawn, note, nothing_lost, read_all, started

from disstream import TransportError, connect
from disstream.door import DisClient

WRITERS = 4


async def write_until_killed(server: Process, url: str, dice: random.Random, acknowledged: dict[Place, bytes]) -> int:
    """Put from several tasks; kill the server after a random number of answers. Returns how many puts were lost."""
    kill_after = dice.randint(1, 120)
    answers = lost = 0
    enough = anyio.Event()
    number = len(acknowledged) * 1_000_000

    async def write(dis: DisClient) -> None:
        nonlocal answers, lost, number
        while True:
            batch = drawn(dice, number)
            number += len(batch)
            try:
                results = await dis.records.put("s", batch)
            except TransportError:
                lost += 1
                return
            assert not results.failed
            note(acknowledged, batch, results)
            answers += 1
            if answers >= kill_after:
                enough.set()

    async with connect(url, project_id="demo") as dis, anyio.create_task_group() as tasks:
        for _ in range(WRITERS):
            tasks.start_soon(write, dis)
        await enough.wait()
        server.send_signal(signal.SIGKILL)
        assert await server.wait() == -signal.SIGKILL
    return lost


async def kill_rounds(data_dir: Path, seed: int, rounds: int) -> None:
    dice = random.Random(seed)
    acknowledged: dict[Place, bytes] = {}
    lost = 0
    async with started(data_dir) as (server, url):
        async with connect(url, project_id="demo") as dis:
            await dis.streams.create("s", partitions=PARTITIONS)
        server.terminate()
        assert await server.wait() == 0
    for _ in range(rounds):
        async with started(data_dir) as (server, url):
            lost += await write_until_killed(server, url, dice, acknowledged)
    async with started(data_dir) as (_, url):
        nothing_lost(acknowledged, await read_all(url))
    assert lost > 0, "no put was under way when the server died: the test proves little"


async def test_a_killed_server_keeps_every_acknowledged_record(tmp_path: Path) -> None:
    """Several kills of one server under concurrent puts: each acknowledged record is at its place, byte for byte."""
    await kill_rounds(tmp_path, seed=1, rounds=5)


@pytest.mark.long
async def test_a_killed_server_keeps_every_acknowledged_record_for_long(tmp_path: Path) -> None:
    """The same, fifty times."""
    await kill_rounds(tmp_path, seed=2, rounds=50)
