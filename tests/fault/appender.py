"""A process that appends until it is killed: `python appender.py DIRECTORY SEED`.

Each line on stdout is something that was acknowledged:

    rows PARTITION FIRST COUNT DIGEST        an entry of an append
    pair NUMBER                              a transaction that wrote NUMBER to the keys "left" and "right"
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import sys
from collections.abc import Iterable
from itertools import count

from disstream.engine.api import Entry, PartitionRef, Row
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine

PARTITIONS = [PartitionRef("crash", number) for number in range(4)]
CONFIG = EmbeddedConfig(map_size_bytes=1 << 30)


def make_rows(dice: random.Random) -> list[Row]:
    """Rows that tell which of how many they are: `batch id (8 bytes) index (1) total (1) payload`."""
    batch_id, total = dice.randbytes(8), dice.randrange(1, 60)
    return [
        Row(
            batch_id + bytes([index, total]) + dice.randbytes(dice.randrange(400)), dice.choice([None, "k", "ü"]), index
        )
        for index in range(total)
    ]


def digest(rows: Iterable[Row]) -> str:
    return hashlib.sha256("".join([repr(row) for row in rows]).encode()).hexdigest()


async def append_for_ever(engine: EmbeddedEngine, dice: random.Random) -> None:
    while True:
        entries = [Entry(ref, make_rows(dice), 1) for ref in dice.sample(PARTITIONS, dice.randrange(1, 4))]
        results = await engine.log.append(entries, 1)
        for (ref, rows, *_), first in zip(entries, results, strict=True):
            print("rows", ref.number, first, len(rows), digest(rows), flush=True)


async def write_pairs_for_ever(engine: EmbeddedEngine) -> None:
    found = await engine.catalog.get("left")
    for number in count(int(found.value) + 1 if found else 1):
        value = b"%d" % number
        await engine.catalog.transact({}, {"left": value, "right": value})
        print("pair", number, flush=True)


async def main(directory: str, seed: int) -> None:
    engine = EmbeddedEngine(directory, CONFIG)
    await engine.start()
    await engine.log.open(dict.fromkeys(PARTITIONS, 1))
    async with asyncio.TaskGroup() as tasks:
        for task in range(6):
            tasks.create_task(append_for_ever(engine, random.Random(f"{seed} {task}")))
        tasks.create_task(write_pairs_for_ever(engine))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
