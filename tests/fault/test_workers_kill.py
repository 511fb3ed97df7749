"""Proves that workers cost no acknowledged record: fronts are killed, and the server is ended, while many write."""

from __future__ import annotations

import os
import random
import re
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from kill_world import PARTITIONS, Place, drawn, note, nothing_lost, read_all, started

from disstream import TransportError, connect
from disstream.door import DisClient

WRITERS = 6


class Server:
    """`disstream serve --workers 2` in a process of its own."""

    def __init__(self, process: Process, url: str) -> None:
        self.process = process
        self.url = url
        self.fronts: dict[int, int] = {}  # worker -> its process, the latest
        self.started = 0

    async def watch(self) -> None:
        """Read its log to the end."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            if found := re.search(rb"worker (\d+) serves: pid=(\d+)", line):
                self.fronts[int(found[1])] = int(found[2])
                self.started += 1

    async def end(self) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        assert await self.process.wait() == 0


@asynccontextmanager
async def serving(data_dir: Path) -> AsyncIterator[Server]:
    async with started(data_dir, "--workers", "2", stderr=PIPE) as (process, url):
        server = Server(process, url)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.watch)
            yield server
            await server.end()


async def write(dis: DisClient, dice: random.Random, acknowledged: dict[Place, bytes], ended: anyio.Event) -> None:
    """Put until the server is gone for good; what is not answered is tried no more."""
    number = 0
    while not ended.is_set():
        batch = drawn(dice, number)
        number += len(batch)
        try:
            results = await dis.records.put("s", batch)
        except TransportError:
            continue
        note(acknowledged, batch, results)


async def grown(acknowledged: dict[Place, bytes], by: int) -> None:
    enough = len(acknowledged) + by
    with anyio.fail_after(60):
        while len(acknowledged) < enough:
            await anyio.lowlevel.checkpoint()


async def kill_rounds(data_dir: Path, seed: int, rounds: int) -> None:
    dice = random.Random(seed)
    acknowledged: dict[Place, bytes] = {}
    async with serving(data_dir) as server:
        async with connect(server.url, project_id="demo") as dis:
            await dis.streams.create("s", partitions=PARTITIONS)
        ended = anyio.Event()
        async with connect(server.url, project_id="demo") as dis, anyio.create_task_group() as tasks:
            for _ in range(WRITERS):
                tasks.start_soon(write, dis, random.Random(dice.random()), acknowledged, ended)
            for number in range(rounds):
                await grown(acknowledged, dice.randint(1, 400))
                os.kill(server.fronts[dice.randint(1, 2)], signal.SIGKILL)
                with anyio.fail_after(60):
                    while server.started < 3 + number:
                        await anyio.lowlevel.checkpoint()
            await grown(acknowledged, dice.randint(1, 400))
            await server.end()  # while all of them write
            ended.set()
    async with serving(data_dir) as server:
        nothing_lost(acknowledged, await read_all(server.url))


async def test_killed_fronts_and_an_end_under_load_lose_nothing(tmp_path: Path) -> None:
    """Every acknowledged record is at its place, byte for byte, after a kill and a SIGTERM."""
    await kill_rounds(tmp_path, seed=1, rounds=1)


@pytest.mark.long
async def test_killed_fronts_lose_nothing_for_long(tmp_path: Path) -> None:
    """The same after twenty-five."""
    await kill_rounds(tmp_path, seed=2, rounds=25)
