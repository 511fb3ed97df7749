"""What it costs to read records that were written one by one, beside the same ones written 500 at a time.

    python benchmarks/small.py [--partitions 1000] [--records 500] [--rounds 5] [--directory DIR] [engine] [fetch]

Each partition gets so many records of 100 bytes, keys out of 97: in batches of 500; one by one, a record to every
partition in turn; and once more one by one by an engine that does not merge, which is how it was before. `engine` reads
all partitions from their beginning in pages of 2 MiB, in one process; `fetch` reads them with a consumer from a durable
server in a process of its own. All in turn, and every record is counted. Ratios are medians of those of neighbouring
rounds.

Processor time is what to look at first. In `fetch` a thousand partitions cost some thousand cursors and pages, whatever
is in them: `--partitions 50 --records 10000` tells more of records.

Predicted: one by one 0.7 of 500 at a time, and 0.05 without merging (engine); 0.7 and 0.1 (fetch). Found: 0.7 and 0.01;
0.9 and 0.2.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import anyio
from rich.console import Console
from rich.table import Table

from disstream.bench.machine import describe
from disstream.bench.processes import START_TIMEOUT_S, Child, child
from disstream.door import DisClient, connect
from disstream.engine.api import Entry, PartitionRef, Row
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine, merging
from disstream.model import NewRecord
from disstream.testing.engine import opened
from disstream.wire.partitioning import partition_id

BATCH = 500
SIZE = 100
PAGE_BYTES = 2 * 1024**2
NOW = 1_700_000_000_000
NEVER = 1 << 60
WAYS = {"500 at a time": BATCH, "one by one": 1, "one by one, not merged": 1}
SERVE = "import sys; from disstream.engine.embedded import merging; from disstream.cli import main; {}sys.exit(main())"

console = Console(width=110)


class Turn(NamedTuple):
    rate: float
    """Records a second."""
    us: float
    """Processor time per record: of the engine and who asks it, or of the client."""
    server_us: float


def batches(partitions: int, records: int, batch: int) -> Iterator[list[tuple[int, list[Row]]]]:
    """What each call appends: to many partitions at once, as it is where many send a little."""
    dice = random.Random(1)
    rows = [Row(dice.randbytes(SIZE), f"key-{index % 97}") for index in range(BATCH)]
    at_once = max(1000 // batch, 1)
    for begin in range(0, records, batch):
        some = [rows[index % BATCH] for index in range(begin, min(begin + batch, records))]
        for first in range(0, partitions, at_once):
            yield [(number, some) for number in range(first, min(first + at_once, partitions))]


# --- the engine alone -------------------------------------------------------------------------------------------------


async def measure_engine(root: Path, partitions: int, records: int, rounds: int) -> dict[str, list[Turn]]:
    refs = [PartitionRef("bench", number) for number in range(partitions)]
    async with contextlib.AsyncExitStack() as stack:
        engines: dict[str, EmbeddedEngine] = {}
        for name, batch in WAYS.items():
            directory = stack.enter_context(tempfile.TemporaryDirectory(dir=root))
            config = EmbeddedConfig(durability="relaxed")
            engines[name] = engine = await stack.enter_async_context(opened(EmbeddedEngine(directory, config)))
            few = NEVER if "not merged" in name else merging.FEW
            began = time.process_time()
            with mock.patch.object(merging, "FEW", few):
                await engine.log.open(dict.fromkeys(refs, 1))
                for now_ms, call in enumerate(batches(partitions, records, batch), NOW):
                    await engine.log.append([Entry(refs[number], rows, 1) for number, rows in call], now_ms)
                await engine.catalog.transact({}, {"end": b""})
            used = (time.process_time() - began) / partitions / records
            print(f"written {name}: {used * 1e6:.2f} us of processor time a record", file=sys.stderr)
        turns: dict[str, list[Turn]] = {name: [] for name in WAYS}
        for number in range(rounds + 1):
            for name, engine in engines.items():
                found = 0
                began, used = time.perf_counter(), time.process_time()
                for ref in refs:
                    found += await count_rows(engine, ref)
                lasted, used = time.perf_counter() - began, time.process_time() - used
                if found != partitions * records:
                    raise SystemExit(f"{name}: {partitions * records} were written, {found} found")
                if number:  # the first round warms up
                    turns[name].append(Turn(found / lasted, used / found * 1e6, 0))
    return turns


async def count_rows(engine: EmbeddedEngine, ref: PartitionRef) -> int:
    at = 0
    while page := await engine.log.read(ref, at, PAGE_BYTES):
        at = page[-1].first_sequence + len(page[-1].rows)
    return at


# --- through a server -------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def server(folder: Path, *, merges: bool) -> AsyncIterator[tuple[str, Child]]:
    """A durable one, run by a line of Python, which can tell it not to merge."""
    script = SERVE.format("" if merges else f"merging.FEW = {NEVER}; ")
    arguments = ["serve", "--port", "0", "--data-dir", str(folder / "data"), "--durability", "fsync"]
    async with child("server", [sys.executable, "-c", script, *arguments], folder) as process:
        with anyio.fail_after(START_TIMEOUT_S):
            line = await process.read_line()
        yield line.decode().split()[1], process


async def write(dis: DisClient, partitions: int, records: int, batch: int) -> None:
    await dis.streams.create("s", partitions=partitions)
    for call in batches(partitions, records, batch):
        sent = [NewRecord(row.data, key=row.key, partition_id=partition_id(n)) for n, rows in call for row in rows]
        (await dis.records.put("s", sent)).raise_for_failed()


async def fetch(dis: DisClient, records: int) -> None:
    left = records
    async with dis.consumer("s") as consumer:
        while left > 0:
            left -= len(await consumer.fetch(max_records=2_000))
    if left:
        raise SystemExit(f"{records} were written, {records - left} read")


async def measure_fetch(root: Path, partitions: int, records: int, rounds: int) -> dict[str, list[Turn]]:
    async with contextlib.AsyncExitStack() as stack:
        sides: dict[str, tuple[DisClient, Child]] = {}
        for name, batch in WAYS.items():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=root)))
            running = server(folder, merges="not merged" not in name)
            url, process = await stack.enter_async_context(running)
            dis = await stack.enter_async_context(connect(url, project_id="demo"))
            await write(dis, partitions, records, batch)
            used = (process.cpu_s() or 0.0) / partitions / records
            print(f"written {name}: {used * 1e6:.2f} us of the server's processor a record", file=sys.stderr)
            sides[name] = dis, process
        turns: dict[str, list[Turn]] = {name: [] for name in WAYS}
        for number in range(rounds + 1):
            for name, (dis, process) in sides.items():
                theirs = process.cpu_s() or 0.0
                began, used = time.perf_counter(), time.process_time()
                await fetch(dis, partitions * records)
                lasted, used = time.perf_counter() - began, time.process_time() - used
                theirs = (process.cpu_s() or 0.0) - theirs
                each = 1e6 / partitions / records
                if number:
                    turns[name].append(Turn(partitions * records / lasted, used * each, theirs * each))
    return turns


# --- the table --------------------------------------------------------------------------------------------------------


def show(title: str, turns: dict[str, list[Turn]]) -> None:
    shown = Table(title=title, title_justify="left")
    for index, column in enumerate(("written", "records/s", "of 500", "us", "of 500", "server us", "of 500")):
        shown.add_column(column, justify="right" if index else "left", no_wrap=True)
    whole = turns["500 at a time"]
    for name, rounds in turns.items():
        cells = [name, f"{statistics.median([turn.rate for turn in rounds]):,.0f}"]
        cells.append(ratio(rounds, whole, lambda turn: turn.rate))
        for figure in (_us, _server_us):
            cells.append(f"{statistics.median(map(figure, rounds)):.3f}")
            cells.append(ratio(whole, rounds, figure))
        shown.add_row(*cells)
    console.print(shown)


def _us(turn: Turn) -> float:
    return turn.us


def _server_us(turn: Turn) -> float:
    return turn.server_us


def ratio(turns: list[Turn], others: list[Turn], figure: Callable[[Turn], float]) -> str:
    """How many times as fast: the median over the rounds."""
    pairs = [(figure(turn), figure(other)) for turn, other in zip(turns, others, strict=True)]
    return f"{statistics.median([one / other for one, other in pairs]):.2f}" if all(b for _, b in pairs) else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="engine|fetch", help="what to measure (default: both)")
    parser.add_argument("--partitions", type=int, default=1000)
    parser.add_argument("--records", type=int, default=500, help="in each partition (default: 500)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default: 5)")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()), help="on which disk to store")
    options = parser.parse_args()
    measures: dict[str, Callable[[Path, int, int, int], Awaitable[dict[str, list[Turn]]]]] = {
        "engine": measure_engine,
        "fetch": measure_fetch,
    }
    if unknown := set(options.what) - set(measures):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from engine, fetch")
    console.print(f"{describe()}; {options.partitions:,} partitions of {options.records:,} records of {SIZE} bytes")
    for name in options.what or measures:
        measured = measures[name](options.directory, options.partitions, options.records, options.rounds)
        show(f"{name}: reading what was written", asyncio.run(_finish(measured)))


async def _finish(measured: Awaitable[dict[str, list[Turn]]]) -> dict[str, list[Turn]]:
    return await measured


if __name__ == "__main__":
    main()
