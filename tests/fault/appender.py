"""A process that uses an engine in every way at once until it is killed.

    python appender.py DIRECTORY SEED CONFIG TOLD LINES    once; it tells its deeds to the file TOLD, and closes the
                                                           engine after so many LINES
    python appender.py                                     for each line `DIRECTORY SEED CONFIG` on stdin in a fork of
                                                           its own that tells on stdout, and for ever; before it
                                                           `pid PID`, and `ended STATUS` behind it

Several actors work at the same time, each of them on what is its own, one call after the other. What they do is told
line by line; a line that ends with "ing" says that it begins, its partner that it was acknowledged:

    opening K LIFE   opened K    a short life of the stream brief-K begins: partitions 0 and 1
    dropping K       dropped K   and ends
    raising E        raised E    the epoch of all partitions of the stream "crash"
    trimming P N     trimmed P   a partition of it
    setting N        set N       a transaction that writes `N NEXT` to the keys "left" and "right", where NEXT was the
                                 next number of partition 0 when it began
    rows STREAM P FIRST BATCH    an entry of an append: the rows that BATCH stands for
    wrote PRODUCER P NUMBER      the same entry, if it had a writer

A batch id, 8 bytes, says whose its rows are, and all about them (`rows_of`), so that every row can be checked that is
found, acknowledged or not:

    of an append     0-15: a bit for each partition that the call names, as all or none must be stored; 7 random bytes
    of a writer      the first 4 bytes of its producer, beginning with 128 or more, and the number of the first row
    of a short life  the life, and 4 random bytes
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import traceback
from functools import lru_cache
from hashlib import shake_128
from itertools import count
from pathlib import Path

from disstream.engine.api import AppendRefused, Entry, PartitionRef, Row, Writer
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine

PARTITIONS = [PartitionRef("crash", number) for number in range(4)]
LIVES = 2
KEPT_ROWS = [50, 100, 200, 400]
"""Of each partition, about: some are trimmed before small batches could be merged, some behind it."""
MOST_ROWS = 60
"""Of a batch."""
CONFIGS = {
    "fsync": EmbeddedConfig(map_size_bytes=1 << 30),
    "relaxed": EmbeddedConfig(map_size_bytes=1 << 30, durability="relaxed", sync_interval_s=0.01),
    "never synced": EmbeddedConfig(map_size_bytes=1 << 30, durability="relaxed", sync_interval_s=3600),
}


def brief(k: int) -> list[PartitionRef]:
    return [PartitionRef(f"brief-{k}", number) for number in range(2)]


@lru_cache(maxsize=4096)
def rows_of(batch_id: bytes) -> list[Row]:
    """The rows that a batch id stands for. Each payload: the id, 8 bytes; index; how many; and what fills it up."""
    dice = shake_128(batch_id).digest(4)
    if dice[0] < 200:  # so small that they may be merged with their neighbours
        total, most = 1 + dice[1] % 6, 100
    elif dice[0] < 235:
        total, most = 1 + dice[1] % MOST_ROWS, 300
    else:  # rows that LMDB gives pages of their own
        total, most = 1 + dice[1] % 3, 20_000
    return [
        Row(
            batch_id + bytes([n, total]) + shake_128(batch_id + bytes([n])).digest((dice[2] + 256 * dice[3]) % most),
            (None, "k", "ü", "")[(n + dice[2]) % 4],
            n if n % 3 else None,
        )
        for n in range(total)
    ]


class _Enough(Exception):
    """As many lines as were asked for."""


class Actors:
    """Those who share an engine, and what they know of it."""

    def __init__(self, engine: EmbeddedEngine, seed: int, told: int, lines: int) -> None:
        self._engine = engine
        self._log = engine.log
        self._seed = seed
        self._told = told
        self._lines = lines
        self._clock = 1_000 + seed % 1_000 * 10_000
        self._epoch = 0
        self._next = [0] * len(PARTITIONS)

    def tell(self, *words: object) -> None:
        """One write for a line: it is told as a whole or not at all."""
        os.write(self._told, " ".join(map(str, words)).encode() + b"\n")
        self._lines -= 1
        if self._lines == 0:
            raise _Enough

    async def play(self) -> None:
        await self._begin()
        async with asyncio.TaskGroup() as tasks:
            for task in range(4):
                tasks.create_task(self._append(random.Random(f"{self._seed} {task}")))
            for task in range(4, 6):
                tasks.create_task(self._write(random.Random(f"{self._seed} {task}")))
            tasks.create_task(self._trim(random.Random(f"{self._seed} trim")))
            tasks.create_task(self._raise())
            tasks.create_task(self._live_briefly(random.Random(f"{self._seed} brief")))
            tasks.create_task(self._transact())

    async def _begin(self) -> None:
        """Find out where the one before was killed."""
        for ref, bounds in zip(PARTITIONS, await self._log.bounds(PARTITIONS), strict=True):
            if bounds is not None:
                self._epoch = bounds.epoch
                self._next[ref.number] = bounds.next
        if not self._epoch:
            await self._raise_once()

    def _now(self, dice: random.Random) -> int:
        """By a clock that goes forth in the end, and jumps back and forth until then."""
        self._clock += dice.randrange(10)
        return self._clock + dice.randrange(-500, 500)

    async def _append(self, dice: random.Random) -> None:
        while True:
            mask = dice.randrange(1, 16)
            batch_id = bytes([mask]) + dice.randbytes(7)
            rows = rows_of(batch_id)
            epoch = self._epoch
            entries = [Entry(ref, rows, epoch) for ref in PARTITIONS if mask >> ref.number & 1]
            for entry, first in zip(entries, await self._log.append(entries, self._now(dice)), strict=True):
                if isinstance(first, AppendRefused):
                    assert first.epoch is not None
                    assert first.epoch > epoch
                else:
                    assert isinstance(first, int)
                    self._stored(entry.partition, first, batch_id, len(rows))

    def _stored(self, ref: PartitionRef, first: int, batch_id: bytes, rows: int) -> None:
        self.tell("rows", ref.stream_id, ref.number, first, batch_id.hex())
        self._next[ref.number] = max(self._next[ref.number], first + rows)

    async def _write(self, dice: random.Random) -> None:
        """Numbered rows, each of them by two attempts at once."""
        producer = bytes([dice.randrange(128, 256)]) + dice.randbytes(15)
        numbers = dict.fromkeys(PARTITIONS, 0)
        for request in count(0, 2):
            ids = {
                ref: producer[:4] + numbers[ref].to_bytes(4, "big")
                for ref in dice.sample(PARTITIONS, dice.randrange(1, 4))
            }
            epoch = self._epoch
            attempts = [
                [Entry(ref, rows_of(ids[ref]), epoch, Writer(producer.hex(), 0, numbers[ref], n)) for ref in ids]
                for n in (request, request + 1)
            ]
            results, _ = await asyncio.gather(*(self._log.append(entries, self._now(dice)) for entries in attempts))
            for ref, first in zip(ids, results, strict=True):
                # Refused where the epoch was raised meanwhile; then the second attempt was too.
                if isinstance(first, int):
                    self._stored(ref, first, ids[ref], len(rows_of(ids[ref])))
                    self.tell("wrote", producer.hex(), ref.number, numbers[ref])
                    numbers[ref] += len(rows_of(ids[ref]))

    async def _trim(self, dice: random.Random) -> None:
        while True:
            ref = dice.choice(PARTITIONS)
            before = max(self._next[ref.number] - dice.randrange(KEPT_ROWS[ref.number]), 0)
            self.tell("trimming", ref.number, before)
            await self._log.trim(ref, before)
            self.tell("trimmed", ref.number)

    async def _raise(self) -> None:
        for turn in count():
            if turn % 8 == 7:
                await self._raise_once()
            else:  # several commits in between
                await self._engine.catalog.transact({}, {}, ["nothing"])

    async def _raise_once(self) -> None:
        self.tell("raising", self._epoch + 1)
        await self._log.open(dict.fromkeys(PARTITIONS, self._epoch + 1))
        self._epoch += 1
        self.tell("raised", self._epoch)

    async def _live_briefly(self, dice: random.Random) -> None:
        for k in range(LIVES):
            await self._drop(k)
        for life in count():
            k, life_id = life % LIVES, (self._seed * 1_000 + life).to_bytes(4, "big")
            self.tell("opening", k, life_id.hex())
            await self._log.open(dict.fromkeys(brief(k), 1))
            self.tell("opened", k)
            for _ in range(dice.randrange(5)):
                batch_id = life_id + dice.randbytes(4)
                ref = dice.choice(brief(k))
                (first,) = await self._log.append([Entry(ref, rows_of(batch_id), 1)], self._now(dice))
                self.tell("rows", ref.stream_id, ref.number, first, batch_id.hex())
            await self._drop(k)

    async def _drop(self, k: int) -> None:
        self.tell("dropping", k)
        await self._log.drop(f"brief-{k}")
        self.tell("dropped", k)

    async def _transact(self) -> None:
        found = await self._engine.catalog.get("left")
        begin = int(found.value.split()[0]) + 1 if found else 1
        version = found.version if found else 0
        for number in count(begin):
            self.tell("setting", number)
            value = b"%d %d" % (number, self._next[0])
            await self._engine.catalog.transact({"left": version}, {"left": value, "right": value})
            self.tell("set", number)
            found = await self._engine.catalog.get("left")
            assert found is not None
            assert found.version > version
            version = found.version


async def run(directory: Path, seed: int, config: str, told: int, lines: int = -1) -> None:
    engine = EmbeddedEngine(directory, CONFIGS[config])
    actors = Actors(engine, seed, told, lines)
    actors.tell("starting")
    await engine.start()
    try:
        await actors.play()
    except* _Enough:
        await engine.close()


def in_forks() -> None:
    """What a process costs is its start; a fork costs next to nothing."""
    for line in sys.stdin:
        directory, seed, config = line.rstrip("\n").split("\t")
        if pid := os.fork():
            _, status = os.waitpid(pid, 0)
            os.write(1, b"ended %d\n" % os.waitstatus_to_exitcode(status))
        else:
            try:
                os.write(1, b"pid %d\n" % os.getpid())
                asyncio.run(run(Path(directory), int(seed), config, 1))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        in_forks()
    else:
        path, seed, config, file, lines = sys.argv[1:]
        to = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        asyncio.run(run(Path(path), int(seed), config, to, int(lines)))
