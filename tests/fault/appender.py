"""A process that appends until it is killed: `python appender.py DIRECTORY SEED`.

Each line on stdout is something that was acknowledged:

    rows PARTITION FIRST COUNT DIGEST        an entry of an append
    wrote PRODUCER PARTITION NUMBER FIRST    the same entry, if it had a writer
    pair NUMBER                              a transaction that wrote NUMBER to the keys "left" and "right"
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import sys
from collections.abc import Iterable
from itertools import count

from disstream.engine.api import Entry, PartitionRef, Row, Writer
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine

PARTITIONS = [PartitionRef("crash", number) for number in range(4)]
CONFIG = EmbeddedConfig(map_size_bytes=1 << 30)


def make_rows(dice: random.Random, begin: bytes = b"") -> list[Row]:
    """Rows that tell which of how many they are: `batch id (8 bytes) index (1) total (1) payload`."""
    batch_id, total = begin + dice.randbytes(8 - len(begin)), dice.randrange(1, 60)
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


async def write_for_ever(engine: EmbeddedEngine, dice: random.Random) -> None:
    """Numbered rows, each of them by two attempts at once. Their batch ids begin with what the producer begins with."""
    producer = dice.randbytes(16)
    numbers = dict.fromkeys(PARTITIONS, 0)
    for request in count(0, 2):
        rows = {ref: make_rows(dice, producer[:4]) for ref in dice.sample(PARTITIONS, dice.randrange(1, 4))}
        attempts = [
            [Entry(ref, rows[ref], 1, Writer(producer.hex(), 0, numbers[ref], attempt)) for ref in rows]
            for attempt in (request, request + 1)
        ]
        results, _ = await asyncio.gather(*(engine.log.append(entries, 1) for entries in attempts))
        for ref, first in zip(rows, results, strict=True):
            print("rows", ref.number, first, len(rows[ref]), digest(rows[ref]), flush=True)
            print("wrote", producer.hex(), ref.number, numbers[ref], first, flush=True)
            numbers[ref] += len(rows[ref])


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
        for task in range(4):
            tasks.create_task(append_for_ever(engine, random.Random(f"{seed} {task}")))
        for task in range(4, 7):
            tasks.create_task(write_for_ever(engine, random.Random(f"{seed} {task}")))
        tasks.create_task(write_pairs_for_ever(engine))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
