"""Whether what is retained makes the engine slower: 10 GB in 50 partitions beside 10 MB, in one process, in turn.

Both directories are filled first ("relaxed", in large transactions, then synchronised), with batches of 500 records of
100 bytes, each a second later than the one before it. Then both are open with "fsync", and take turns:

    append       500 records to the end of a partition, one append at a time
    tail read    the newest batch of a partition
    by sequence  500 records from anywhere in a partition
    by time      where a partition stood at any time: the sequence number alone

Partitions are chosen at random. Times are of calls, medians of all rounds and 99 in 100; processor time is of this
process, of both its threads. What was read is counted. Random reads go through the whole file: what the system does not
hold in memory comes from the disk, and what is touched for the first time has to be mapped.

    python benchmarks/flat.py [--gigabytes 10] [--megabytes 10] [--rounds 7] [--directory DIR] [--json FILE]

It takes as much room in the directory, and gives it back. Predicted (large / small, processor time): append 1.1, tail
read 1.1, by sequence 1.5, by time 1.5.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import anyio
import msgspec

from disstream.bench.machine import Origin, fsync_times
from disstream.engine import Columns, Entry, PartitionRef
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine
from disstream.testing.engine import opened

PARTITIONS = 50
BATCH = 500
SIZE = 100
KEYS = 97
KEY_BYTES = len("key-00")
BATCH_BYTES = BATCH * (SIZE + KEY_BYTES)
SECOND_MS = 1_000
BEGIN_MS = 1_700_000_000_000
CALLS = {"append": 100, "tail read": 500, "by sequence": 300, "by time": 500}
"""Of each kind in a round."""


class Row(msgspec.Struct, frozen=True):
    """Of one kind of call on one directory."""

    kind: str
    retained_bytes: int
    p50_us: float
    p99_us: float
    cpu_us: float


class Table(msgspec.Struct, frozen=True):
    origin: Origin
    fsync_us: float
    """Of as many bytes as an append has, beside it."""
    rows: list[Row]


class Columned:
    """The batches that are appended: of one content, as they come out of a body."""

    def __init__(self) -> None:
        dice = random.Random(1)
        self._keys: list[str | None] = [f"key-{index % KEYS:02}" for index in range(BATCH)]
        self._data = memoryview(dice.randbytes(BATCH * SIZE))

    def make(self) -> Columns:
        return Columns(self._keys, [SIZE] * BATCH, None, self._data)


class Store(NamedTuple):
    """A filled directory that is open."""

    engine: EmbeddedEngine
    refs: list[PartitionRef]
    batches: int
    """In each partition when it was filled."""
    dice: random.Random
    rows: Columned

    def any(self) -> PartitionRef:
        return self.dice.choice(self.refs)

    async def append(self) -> None:
        now_ms = BEGIN_MS + (self.batches + 1) * SECOND_MS
        (first,) = await self.engine.log.append([Entry(self.any(), self.rows.make(), 1)], now_ms)
        assert isinstance(first, int)

    async def tail_read(self) -> None:
        ref = self.any()
        (bounds,) = await self.engine.log.bounds([ref])
        assert bounds is not None
        await self._read(ref, bounds.next - BATCH)

    async def by_sequence(self) -> None:
        await self._read(self.any(), self.dice.randrange((self.batches - 1) * BATCH))

    async def by_time(self) -> None:
        second = self.dice.randrange(self.batches)
        found = await self.engine.log.seek(self.any(), BEGIN_MS + second * SECOND_MS)
        assert found == second * BATCH, (found, second)

    async def _read(self, ref: PartitionRef, sequence: int) -> None:
        found = await self.engine.log.read(ref, sequence, BATCH_BYTES)
        assert sum(len(batch.rows) for batch in found) == BATCH


async def fill(directory: Path, size_bytes: int) -> tuple[list[PartitionRef], int]:
    """(partitions, batches in each): as many as make up that size."""
    refs = [PartitionRef("flat", number) for number in range(PARTITIONS)]
    batches = max(math.ceil(size_bytes / PARTITIONS / BATCH_BYTES), 2)
    rows = Columned()
    async with opened(EmbeddedEngine(directory, EmbeddedConfig(durability="relaxed"))) as engine:
        await engine.log.open(dict.fromkeys(refs, 1))
        for number in range(batches):
            entries = [Entry(ref, rows.make(), 1) for ref in refs]
            await engine.log.append(entries, BEGIN_MS + number * SECOND_MS)
    return refs, batches


@contextlib.asynccontextmanager
async def filled(directory: Path, size_bytes: int) -> AsyncIterator[Store]:
    began = time.perf_counter()
    refs, batches = await fill(directory, size_bytes)
    lasted = time.perf_counter() - began
    length = (directory / "data.mdb").stat().st_size
    told = f"{length / 1e6:,.0f} MB in {batches * PARTITIONS:,} batches took {lasted:.1f} s to fill"
    began = time.perf_counter()
    async with opened(EmbeddedEngine(directory)) as engine:
        print(f"{told}, {time.perf_counter() - began:.2f} s to open", flush=True)
        yield Store(engine, refs, batches, random.Random(2), Columned())


async def timed(call: Callable[[], Awaitable[None]], count: int) -> tuple[list[float], float]:
    """(microseconds of each call, of processor time for one)."""
    took = []
    cpu = time.process_time()
    for _ in range(count):
        began = time.perf_counter()
        await call()
        took.append((time.perf_counter() - began) * 1e6)
    return took, (time.process_time() - cpu) / count * 1e6


async def measure(options: argparse.Namespace, root: Path) -> Table:
    sizes = [int(options.megabytes * 1e6), int(options.gigabytes * 1e9)]
    took: dict[tuple[str, int], list[float]] = {(kind, size): [] for kind in CALLS for size in sizes}
    cpu: dict[tuple[str, int], list[float]] = {place: [] for place in took}
    beside: list[float] = []
    async with filled(root / "small", sizes[0]) as small, filled(root / "large", sizes[1]) as large:
        for turn in range(options.rounds + 1):
            for kind, count in CALLS.items():
                for size, store in zip(sizes, (small, large), strict=True):
                    calls = {
                        "append": store.append,
                        "tail read": store.tail_read,
                        "by sequence": store.by_sequence,
                        "by time": store.by_time,
                    }
                    times, used = await timed(calls[kind], count)
                    if turn:  # the first round warms up
                        took[kind, size] += times
                        cpu[kind, size].append(used)
            beside += fsync_times(root, BATCH_BYTES, 20)
    rows = []
    for (kind, size), times in took.items():
        marks = statistics.quantiles(times, n=100)
        rows.append(Row(kind, size, marks[49], marks[98], statistics.median(cpu[kind, size])))
    origin = Origin.here(" ".join(["python", *sys.argv]), "no service: the engine in this process, fsync")
    return Table(origin, statistics.median(beside) * 1e6, rows)


def show(table: Table) -> None:
    print(
        "\n| call | us small | us large | ratio | p99 us small | p99 us large | CPU us small | CPU us large | ratio |\n"
        "|---|" + "---:|" * 8
    )
    for small, large in zip(table.rows[::2], table.rows[1::2], strict=True):
        print(
            f"| {small.kind} | {small.p50_us:.0f} | {large.p50_us:.0f} | **{large.p50_us / small.p50_us:.2f}** "
            f"| {small.p99_us:.0f} | {large.p99_us:.0f} | {small.cpu_us:.0f} | {large.cpu_us:.0f} "
            f"| **{large.cpu_us / small.cpu_us:.2f}** |"
        )
    print(f"\nwriting and synchronising {BATCH_BYTES:,} bytes beside it took {table.fsync_us:.0f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=10, help="in the large directory (default: 10)")
    parser.add_argument("--megabytes", type=float, default=10, help="in the small one (default: 10)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count (default: 7)")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()), help="on which disk to store")
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    free, wanted = shutil.disk_usage(options.directory).free, int(options.gigabytes * 1.2e9)
    if free < wanted:
        raise SystemExit(f"{options.directory} has {free / 1e9:.1f} GB left, and {wanted / 1e9:.1f} are needed")
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        table = anyio.run(measure, options, Path(name), backend_options={"use_uvloop": True})
    print(table.origin.machine)
    show(table)
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(table), indent=1) + b"\n")


if __name__ == "__main__":
    main()
