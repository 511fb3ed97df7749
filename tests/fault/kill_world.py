"""A server in a process of its own, what is put into it, and what it has: for tests that kill it or a part of it."""

from __future__ import annotations

import asyncio
import random
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from disstream import NewRecord, PutResults, connect

PARTITIONS = 3

Place = tuple[str, int]
"""Partition and sequence number."""


@asynccontextmanager
async def started(data_dir: Path, *options: str, stderr: int = DEVNULL) -> AsyncIterator[tuple[Process, str]]:
    """`disstream serve` on a data directory that outlives it, and where it answers. What is left of it is killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "disstream", "serve", "--port", "0", "--data-dir", str(data_dir), *options),
        stdout=PIPE,
        stderr=stderr,
    )
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        found = re.match(r"serving (http://\S+)", line)
        assert found, f"the server said {line!r}"
        yield process, found[1]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def drawn(dice: random.Random, number: int) -> list[NewRecord]:
    """A batch, few or many, small or large; no two are equal if the numbers of their first records are far apart."""
    return [
        NewRecord(b"%d:" % each + dice.randbytes(dice.choice([0, 10, 900])), f"k{each % 11}")
        for each in range(number, number + dice.choice([1, 3, 40]))
    ]


def note(acknowledged: dict[Place, bytes], batch: list[NewRecord], results: PutResults) -> None:
    """What was stored, by the answer."""
    for record, result in zip(batch, results, strict=True):
        if result.partition_id is not None and result.sequence_number is not None:
            acknowledged[result.partition_id, result.sequence_number] = record.data


async def read_all(url: str) -> dict[Place, bytes]:
    """Everything in stream `s`; its numbers are contiguous from 0 and end where the service says."""
    stored: dict[Place, bytes] = {}
    async with connect(url, project_id="demo") as dis:
        for partition in (await dis.streams.describe("s")).partitions:
            cursor = await dis.cursors.get("s", partition.partition_id, "TRIM_HORIZON")
            numbers = []
            while (page := await dis.records.get(cursor)).records:
                stored |= {(r.partition_id, r.sequence_number): r.data for r in page.records}
                numbers += [r.sequence_number for r in page.records]
                cursor = page.next_cursor
            assert numbers == list(range(len(numbers)))
            assert partition.sequence_range is not None
            assert partition.sequence_range.end == len(numbers)
    return stored


def nothing_lost(acknowledged: dict[Place, bytes], stored: dict[Place, bytes]) -> None:
    """Each acknowledged record is at its place, byte for byte."""
    for place, data in acknowledged.items():
        assert stored.get(place) == data, f"{place} was acknowledged and is lost"
