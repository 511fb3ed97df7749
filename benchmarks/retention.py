"""What forgetting and reading far behind cost those who write and read at the head.

    python benchmarks/retention.py [--directory DIR] [--gigabytes G] [--seconds S] [--repeats N] [trim] [behind]

The engine alone, with fsync. Appends of 500 records of 100 bytes come in an open loop, RATE a second by turns to 8
partitions, whatever became of those before; each is timed from when it was due, and followed by a read of what it
wrote. Rounds with and without are measured in turn, and the medians of their percentiles compared.

trim    G gigabytes are stored and dropped from the system's cache. At the beginning of each round with trimming a share
        of them is trimmed, so large that it is not swept when the round ends (told: how much of it was).
behind  G gigabytes are stored and dropped from the system's cache. In each round with a reader one goes on from where
        it was, pages of 2 MiB at full speed (told: at what rate).

Wanted: with trimming a p99 of at most twice, with a reader far behind of at most 1.5 times that without.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from disstream.engine.api import Entry, PartitionRef, Row
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine
from disstream.testing.engine import opened

BATCH = 500
SIZE = 100
PARTITIONS = [PartitionRef("bench", number) for number in range(8)]
RATE = 100.0
PAGE_BYTES = 2 * 1024**2
GIB = 1024**3

console = Console(width=120)


def make_rows() -> list[Row]:
    dice = random.Random(7)
    return [Row(dice.randbytes(SIZE), f"key-{index % 97}") for index in range(BATCH)]


ROWS = make_rows()
WEIGHT = sum(row.weight for row in ROWS)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def fill(directory: Path, size: float) -> None:
    """So many bytes, over all partitions."""
    async with opened(EmbeddedEngine(directory, EmbeddedConfig(durability="relaxed"))) as engine:
        await engine.log.open(dict.fromkeys(PARTITIONS, 1))
        for _ in range(int(size / WEIGHT / len(PARTITIONS) / 4) + 1):
            await engine.log.append([Entry(ref, ROWS, 1) for ref in PARTITIONS] * 4, now_ms())


class Head:
    """Who writes and reads at the head, for some seconds: how long each took, in ms."""

    def __init__(self) -> None:
        self.appends: list[float] = []
        self.reads: list[float] = []

    async def run(self, engine: EmbeddedEngine, seconds: float) -> None:
        begin = time.perf_counter()
        calls: list[asyncio.Task[None]] = []
        for index in range(int(seconds * RATE)):
            due = begin + index / RATE
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            calls.append(asyncio.create_task(self._once(engine, PARTITIONS[index % len(PARTITIONS)], due)))
        await asyncio.gather(*calls)

    async def _once(self, engine: EmbeddedEngine, ref: PartitionRef, due: float) -> None:
        (first,) = await engine.log.append([Entry(ref, ROWS, 1)], now_ms())
        stored = time.perf_counter()
        self.appends.append((stored - due) * 1000)
        if not isinstance(first, int) or not await engine.log.read(ref, first, PAGE_BYTES):
            raise SystemExit(f"what was appended as {first!r} is not there")
        self.reads.append((time.perf_counter() - stored) * 1000)


class Figures:
    """Percentiles of many rounds."""

    def __init__(self) -> None:
        self._rounds: dict[str, list[tuple[float, float, float]]] = {"append": [], "tail read": []}

    def add(self, head: Head) -> None:
        for name, took in (("append", head.appends), ("tail read", head.reads)):
            marks = statistics.quantiles(took, n=100)
            self._rounds[name].append((marks[49], marks[98], max(took)))

    def median(self, name: str) -> tuple[float, float, float]:
        p50, p99, worst = (statistics.median(column) for column in zip(*self._rounds[name], strict=True))
        return p50, p99, worst


def show(title: str, without: Figures, beside: Figures, what: str) -> None:
    shown = Table(title=title, title_justify="left")
    for column in ("ms", "", "p50", "p99", "worst", "p99 / p99 without"):
        shown.add_column(column, justify="left" if column in ("ms", "") else "right", no_wrap=True)
    for name in ("append", "tail read"):
        base = without.median(name)
        for label, figures in (("without", without), (what, beside)):
            found = figures.median(name)
            shown.add_row(name, label, *[f"{value:.2f}" for value in found], f"{found[1] / base[1]:.2f}")
    console.print(shown)


def file_bytes(directory: Path) -> int:
    return (directory / "data.mdb").stat().st_size


# --- trim ---------------------------------------------------------------------------------------------------------


async def measure_trim(directory: Path, size: float, seconds: float, repeats: int) -> None:
    await fill(directory, size)
    drop_cache(directory)
    without, beside = Figures(), Figures()
    swept = 0.0
    async with opened(EmbeddedEngine(directory)) as engine:
        (first, *_) = await engine.log.bounds(PARTITIONS[:1])
        assert first is not None
        share = first.next // repeats
        before = file_bytes(directory)
        for round_ in range(repeats):
            head = Head()
            await head.run(engine, seconds)
            without.add(head)
            for ref in PARTITIONS:
                await engine.log.trim(ref, (round_ + 1) * share)
            held = sum(state.held for state in engine._committer.states.values())
            head = Head()
            await head.run(engine, seconds)
            beside.add(head)
            swept += held + len(head.appends) * WEIGHT - sum(s.held for s in engine._committer.states.values())
            while not swept_all(engine):  # noqa: ASYNC110 - the engine tells nobody, and nobody else wants to know
                await asyncio.sleep(0.2)
        show(
            f"trim: {size / GIB:.1f} GiB in {repeats} shares, {swept / repeats / seconds / 1e6:.0f} MB/s swept beside",
            without,
            beside,
            "while swept",
        )
        console.print(
            f"the file: {before / 1e9:.2f} GB before, {file_bytes(directory) / 1e9:.2f} GB behind all rounds\n"
        )


def swept_all(engine: EmbeddedEngine) -> bool:
    return engine._committer._sweeper.pause_s() is None


# --- behind -------------------------------------------------------------------------------------------------------


def drop_cache(directory: Path) -> None:
    """Take the file out of the system's cache, so that reading means reading from the disk."""
    descriptor = os.open(directory / "data.mdb", os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


class Behind:
    """A reader from the beginning, over all partitions by turns."""

    def __init__(self, engine: EmbeddedEngine) -> None:
        self._log = engine.log
        self._at = dict.fromkeys(PARTITIONS, 0)
        self.read = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            for ref in PARTITIONS:
                batches = await self._log.read(ref, self._at[ref], PAGE_BYTES)
                if not batches:
                    raise SystemExit("the reader reached the head: store more gigabytes, or measure fewer seconds")
                self._at[ref] = batches[-1].first_sequence + len(batches[-1].rows)
                self.read += sum(len(batch.rows) for batch in batches) * SIZE
                await asyncio.sleep(0)


async def measure_behind(directory: Path, size: float, seconds: float, repeats: int) -> None:
    await fill(directory, size)
    drop_cache(directory)
    without, beside = Figures(), Figures()
    async with opened(EmbeddedEngine(directory)) as engine:
        behind = Behind(engine)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
        for _ in range(repeats):
            head = Head()
            await head.run(engine, seconds)
            without.add(head)
            head = Head()
            async with behind.running():
                await head.run(engine, seconds)
            beside.add(head)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt - faults
    rate = behind.read / repeats / seconds / 1e6
    show(
        f"behind: {size / GIB:.1f} GiB not cached, read at {rate:.0f} MB/s ({faults} waits for the disk)",
        without,
        beside,
        "beside a reader",
    )


# --- the whole ----------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="trim|behind", help="what to measure (default: both)")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()), help="on which disk to store")
    parser.add_argument("--gigabytes", type=float, default=10.0, help="how much is stored")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long a round lasts")
    parser.add_argument("--repeats", type=int, default=5, help="how many rounds of each kind")
    options = parser.parse_args()
    kinds = {"trim": measure_trim, "behind": measure_behind}
    what = options.what or list(kinds)
    if unknown := set(what) - kinds.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from trim, behind")
    free = shutil.disk_usage(options.directory).free
    if free < 1.3 * options.gigabytes * GIB:
        parser.error(f"{options.directory} has {free / GIB:.1f} GiB free: too little for {options.gigabytes} GiB")
    for name in what:
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            uvloop.run(kinds[name](Path(directory), options.gigabytes * GIB, options.seconds, options.repeats))


if __name__ == "__main__":
    main()
