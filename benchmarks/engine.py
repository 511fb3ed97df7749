"""How fast the embedded engine is alone, without HTTP, and how close it comes to the disk.

    python benchmarks/engine.py [--directory DIR] [--seconds S] [--rounds N] [--json FILE] [append] [read] [disk]

`append` and `read`: batches of 500 records of one partition each, random payload, keys out of 97, given as columns, as
the server gives them, or as rows. Durability "relaxed" is the engine without the disk: nothing waits for a sync.
Appends count acknowledged records only, and each run ends by reading all of them back.

`disk`: appends of so many bytes, two at a time: while one is written the next is encoded, and each commit has one.
Beside it, in turn, what the disk does with as many bytes and no engine: written to the end of a file that grows, or
over a file that is there, each followed by fdatasync. The engine's file grows too, or ("again") takes the space of rows
that were forgotten. Bytes are payload; commits are counted by the engine's own numbers.

The predictions were written down before the first run.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import lmdb
import msgspec

from disstream.bench.machine import Origin
from disstream.engine import Columns, Entry, PartitionRef, Row
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine
from disstream.testing.engine import opened

BATCH = 500
PAGE_BYTES = 2 * 1024**2
NOW = 1_700_000_000_000
KEYS = 97
DISK_SIZES = (64 * 1024, 1024**2)
WRITERS = 2
"""Appends at once: while one is committed the next is encoded."""

# (durability, appenders, payload bytes) -> million records/s
PREDICTED_APPEND = {
    ("relaxed", 1, 100): 2.9,
    ("relaxed", 8, 100): 4.5,
    ("fsync", 1, 100): 0.6,
    ("fsync", 8, 100): 3.0,
    ("relaxed", 1, 1024): 1.1,
    ("relaxed", 8, 1024): 1.3,
    ("fsync", 1, 1024): 0.28,
    ("fsync", 8, 1024): 0.45,
}
PREDICTED_READ = {100: 7.0, 1024: 2.6}
PREDICTED_DISK = {64 * 1024: 0.5, 1024**2: 0.75}
"""The share of the disk's bandwidth: a commit syncs twice, its pages and then the one that makes them count."""


class Appended(msgspec.Struct, frozen=True):
    durability: str
    appenders: int
    size: int
    form: str
    records_per_s: float
    cpu_us: float
    """Of processor time a record, both threads."""
    p50_ms: float
    p99_ms: float


class Read(msgspec.Struct, frozen=True):
    size: int
    form: str
    records_per_s: float
    cpu_us: float


class Disk(msgspec.Struct, frozen=True):
    """Bytes of payload a second."""

    commit_bytes: int
    size: int
    engine: float
    again: float
    growing: float
    there: float


class Tables(msgspec.Struct, frozen=True):
    origin: Origin
    append: list[Appended]
    read: list[Read]
    disk: list[Disk]


Make = Callable[[], Sequence[Row]]
"""Gives the rows of an append, which nobody has seen before."""


def make_rows(size: int, count: int = BATCH) -> list[Row]:
    dice = random.Random(size)
    return [Row(dice.randbytes(size), f"key-{index % KEYS}") for index in range(count)]


def makers(size: int, count: int = BATCH) -> dict[str, Make]:
    """Form -> rows in it, all payloads in one piece as they come from a body."""
    rows = make_rows(size, count)
    keys, data = [row.key for row in rows], memoryview(b"".join(row.data for row in rows))
    return {"columns": lambda: Columns(list(keys), [size] * count, None, data), "rows": lambda: rows}


# --- append and read ----------------------------------------------------------------------------------------------


async def measure_append(
    directory: Path, config: EmbeddedConfig, appenders: int, size: int, form: str, seconds: float
) -> Appended:
    make = makers(size)[form]
    refs = [PartitionRef("bench", number) for number in range(appenders)]
    took: list[float] = []
    async with opened(EmbeddedEngine(directory, config)) as engine:
        await engine.log.open(dict.fromkeys(refs, 1))
        begin, cpu = time.perf_counter(), time.process_time()
        end = begin + seconds

        async def append(ref: PartitionRef) -> None:
            while (at := time.perf_counter()) < end:
                await engine.log.append([Entry(ref, make(), 1)], NOW)
                took.append(time.perf_counter() - at)

        await asyncio.gather(*[append(ref) for ref in refs])
        records = len(took) * BATCH
        rate, used = records / (time.perf_counter() - begin), time.process_time() - cpu
        found = 0
        for ref in refs:
            found += await count_rows(engine, ref)
    if found != records:
        raise SystemExit(f"lost records: {records} acknowledged, {found} found")
    marks = statistics.quantiles(took, n=100)
    return Appended(
        config.durability, appenders, size, form, rate, used / records * 1e6, marks[49] * 1e3, marks[98] * 1e3
    )


async def count_rows(engine: EmbeddedEngine, ref: PartitionRef, *, look: bool = False) -> int:
    """How many there are. `look`: at each key, size and payload, for which columns are unpacked."""
    at = 0
    while page := await engine.log.read(ref, at, PAGE_BYTES):
        for batch in page:
            at += len(batch.rows)
            if look:
                columns = Columns.of(batch.rows)
                assert len(columns.keys) == len(columns.payloads)
    return at


async def measure_read(directory: Path, size: int, seconds: float) -> list[Read]:
    """Pages of 2 MiB out of the page cache: as they are sent to our own clients, and taken apart for others."""
    make = makers(size)["columns"]
    ref = PartitionRef("bench", 0)
    tables = []
    async with opened(EmbeddedEngine(directory, EmbeddedConfig(durability="relaxed"))) as engine:
        await engine.log.open({ref: 1})
        for _ in range(200):
            await engine.log.append([Entry(ref, make(), 1)], NOW)
        for form, look in (("columns", False), ("taken apart", True)):
            found = 0
            begin, cpu = time.perf_counter(), time.process_time()
            while time.perf_counter() < begin + seconds:
                found += await count_rows(engine, ref, look=look)
            lasted, used = time.perf_counter() - begin, time.process_time() - cpu
            tables.append(Read(size, form, found / lasted, used / found * 1e6))
    return tables


# --- the disk -----------------------------------------------------------------------------------------------------


async def measure_engine(directory: Path, size: int, payload: int, seconds: float) -> tuple[float, float, int]:
    """(bytes/s with a file that grows, with the space of forgotten rows, bytes a commit)."""
    make = makers(payload, max(size // payload, 1))["columns"]
    refs = [PartitionRef("bench", number) for number in range(WRITERS)]
    each = max(size // payload, 1) * payload

    async def write(engine: EmbeddedEngine, most: float = math.inf) -> tuple[float, int]:
        """(bytes/s, appends), after so many at most."""
        begin = time.perf_counter()
        end = begin + seconds
        count = 0

        async def append(ref: PartitionRef) -> None:
            nonlocal count
            while time.perf_counter() < end and count < most:
                count += 1
                await engine.log.append([Entry(ref, make(), 1)], NOW)

        await asyncio.gather(*[append(ref) for ref in refs])
        return count * each / (time.perf_counter() - begin), count

    async with opened(EmbeddedEngine(directory)) as engine:
        await engine.log.open(dict.fromkeys(refs, 1))
        grown, appends = await write(engine)
    with lmdb.Environment(str(directory), readonly=True, lock=False) as found:
        commits = int(found.info()["last_txnid"])
    length = (directory / "data.mdb").stat().st_size
    async with opened(EmbeddedEngine(directory)) as engine:
        for ref in refs:
            (bounds,) = await engine.log.bounds([ref])
            assert bounds is not None
            await engine.log.trim(ref, bounds.next)
        # What is forgotten is swept piece by piece, with each transaction; then it is free for the one after the next.
        for index in range(appends // 100 + 10):
            await engine.catalog.transact({}, {f"sweep-{index}": b""})
        again, _ = await write(engine, 0.9 * appends)
    if (now := (directory / "data.mdb").stat().st_size) > 1.2 * length + 4 * size:
        raise SystemExit(f"the file grew from {length} to {now} bytes: no space was used again")
    return grown, again, appends * each // commits


def measure_disk(directory: Path, size: int, seconds: float, *, there: bool) -> float:
    """Bytes/s, each write synchronised. `there`: over a file that has its bytes already."""
    data = os.urandom(size)
    path = directory / "disk.probe"
    most = max(int(seconds * 2e9) // size, 1)
    with path.open("wb", buffering=0) as file:
        if there:
            most = min(most, 512 * 1024**2 // size)
            for _ in range(most):
                file.write(data)
            os.fsync(file.fileno())
            file.seek(0)
        begin = time.perf_counter()
        count = 0
        while time.perf_counter() < begin + seconds:
            if there and count % most == 0:
                file.seek(0)
            file.write(data)
            os.fdatasync(file.fileno())
            count += 1
        rate = count * size / (time.perf_counter() - begin)
    path.unlink()
    return rate


def compare_with_disk(root: Path, size: int, payload: int, seconds: float, rounds: int) -> Disk:
    found: list[tuple[float, float, float, float]] = []
    commit_bytes = size
    for turn in range(rounds + 1):
        with tempfile.TemporaryDirectory(dir=root) as name:
            directory = Path(name)
            growing = measure_disk(directory, commit_bytes, seconds, there=False)
            there = measure_disk(directory, commit_bytes, seconds, there=True)
            engine, again, commit_bytes = asyncio.run(measure_engine(directory / "data", size, payload, seconds))
        if turn:  # the first round tells how much a commit has
            found.append((engine, again, growing, there))
    return Disk(commit_bytes, payload, *(statistics.median(column) for column in zip(*found, strict=True)))


# --- the tables ---------------------------------------------------------------------------------------------------


def show_append(root: Path, seconds: float) -> list[Appended]:
    print("\n| append | appenders | payload | given as | predicted | M records/s | CPU us/record | p50 ms | p99 ms |")
    print("|---|---:|---:|---|" + "---:|" * 5)
    found = []
    for (durability, appenders, size), predicted in PREDICTED_APPEND.items():
        config = EmbeddedConfig(durability="fsync" if durability == "fsync" else "relaxed")
        for form in ("columns", "rows"):
            with tempfile.TemporaryDirectory(dir=root) as directory:
                row = asyncio.run(measure_append(Path(directory), config, appenders, size, form, seconds))
            found.append(row)
            print(
                f"| {durability} | {appenders} | {size} B | {form} | {predicted:.2f} | {row.records_per_s / 1e6:.2f} "
                f"| {row.cpu_us:.2f} | {row.p50_ms:.2f} | {row.p99_ms:.2f} |",
                flush=True,
            )
    return found


def show_read(root: Path, seconds: float) -> list[Read]:
    print("\n| read, pages of 2 MiB | given as | predicted | M records/s | CPU us/record |")
    print("|---|---|" + "---:|" * 3)
    found = []
    for size, predicted in PREDICTED_READ.items():
        with tempfile.TemporaryDirectory(dir=root) as directory:
            rows = asyncio.run(measure_read(Path(directory), size, seconds))
        for row in rows:
            rate = row.records_per_s / 1e6
            print(f"| {size} B | {row.form} | {predicted:.2f} | {rate:.2f} | {row.cpu_us:.2f} |", flush=True)
        found += rows
    return found


def show_disk(root: Path, seconds: float, rounds: int) -> list[Disk]:
    print(
        "\n| an append has | records of | bytes a commit | engine MB/s | again MB/s | disk, growing | disk, there "
        "| predicted | engine / growing | again / there |"
    )
    print("|---|---:|" + "---:|" * 8)
    found = []
    for size in DISK_SIZES:
        for payload in (100, 1024):
            row = compare_with_disk(root, size, payload, seconds, rounds)
            found.append(row)
            rates = " | ".join(f"{rate / 1e6:.0f}" for rate in (row.engine, row.again, row.growing, row.there))
            print(
                f"| {size // 1024} KiB | {payload} B | {row.commit_bytes:,} | {rates} | {PREDICTED_DISK[size]:.2f} "
                f"| **{row.engine / row.growing:.2f}** | **{row.again / row.there:.2f}** |",
                flush=True,
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="append|read|disk", help="what to measure (default: everything)")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()), help="on which disk to store")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long to measure each row of a table")
    parser.add_argument("--rounds", type=int, default=5, help="of what is compared with the disk (default: 5)")
    parser.add_argument("--json", type=Path, help="also write the tables to this file")
    options = parser.parse_args()
    what = options.what or ["append", "read", "disk"]
    if unknown := set(what) - {"append", "read", "disk"}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from append, read, disk")
    origin = Origin.here(" ".join(["python", *sys.argv]), "no service: the engine in this process")
    print(f"{origin.machine}; {BATCH} records an append, load {os.getloadavg()[0]:.1f}")
    tables = Tables(
        origin,
        show_append(options.directory, options.seconds) if "append" in what else [],
        show_read(options.directory, options.seconds) if "read" in what else [],
        show_disk(options.directory, options.seconds / 4, options.rounds) if "disk" in what else [],
    )
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(tables), indent=1) + b"\n")


if __name__ == "__main__":
    main()
