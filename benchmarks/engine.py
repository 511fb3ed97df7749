"""How fast the embedded engine is alone, without HTTP, and what the two forms of storing a batch cost.

    python benchmarks/engine.py [--directory DIR] [--seconds S] [append] [read] [forms]

Appends are 500 records of one partition each, random payload, keys out of 97. `predicted` was written down before the
first run. Append figures count acknowledged records only, and the run ends by reading all of them back.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import statistics
import tempfile
import time
import zlib
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

import lmdb
import msgspec
from rich.console import Console
from rich.table import Table

from disstream.engine.api import Entry, PartitionRef, Row
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine, batch
from disstream.testing.engine import opened
from disstream.wire.records import PageRow, encode_page

BATCH = 500
PAGE_BYTES = 2 * 1024**2
NOW = 1_700_000_000_000

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
# ns per record in a throw-away prototype with 1,000 records a batch
PREDICTED_FORMS = {
    ("raw: put", 100): 97,
    ("raw: get", 100): 440,
    ("text: put", 100): 315,
    ("text: put with offsets", 100): 447,
    ("text: get", 100): 210,
    ("raw: put", 1024): 125,
    ("raw: get", 1024): 1410,
    ("text: put", 1024): 1230,
    ("text: put with offsets", 1024): 2524,
    ("text: get", 1024): 1650,
}

console = Console(width=110)


def make_rows(size: int) -> list[Row]:
    dice = random.Random(size)
    return [Row(dice.randbytes(size), f"key-{index % 97}") for index in range(BATCH)]


# --- the engine ---------------------------------------------------------------------------------------------------


async def measure_append(directory: Path, config: EmbeddedConfig, appenders: int, size: int, seconds: float) -> str:
    """Million records/s, and how long one append took."""
    rows = make_rows(size)
    refs = [PartitionRef("bench", number) for number in range(appenders)]
    took: list[float] = []
    async with opened(EmbeddedEngine(directory, config)) as engine:
        await engine.log.open(dict.fromkeys(refs, 1))
        begin = time.perf_counter()
        end = begin + seconds

        async def append(ref: PartitionRef) -> None:
            while (at := time.perf_counter()) < end:
                await engine.log.append([Entry(ref, rows, 1)], NOW)
                took.append(time.perf_counter() - at)

        await asyncio.gather(*[append(ref) for ref in refs])
        rate = len(took) * BATCH / (time.perf_counter() - begin) / 1e6
        found = 0
        for ref in refs:
            found += await count_rows(engine, ref)
    if found != len(took) * BATCH:
        raise SystemExit(f"lost records: {len(took) * BATCH} acknowledged, {found} found")
    marks = statistics.quantiles(took, n=100)
    return f"{rate:.2f} M/s   p50 {marks[49] * 1e3:.2f} ms   p99 {marks[98] * 1e3:.2f} ms"


async def count_rows(engine: EmbeddedEngine, ref: PartitionRef) -> int:
    at = 0
    while page := await engine.log.read(ref, at, PAGE_BYTES):
        at = page[-1].first_sequence + len(page[-1].rows)
    return at


async def measure_read(directory: Path, size: int, seconds: float) -> str:
    """Million records/s, reading pages of 2 MiB out of the page cache."""
    rows = make_rows(size)
    ref = PartitionRef("bench", 0)
    async with opened(EmbeddedEngine(directory, EmbeddedConfig(durability="relaxed"))) as engine:
        await engine.log.open({ref: 1})
        for _ in range(200):
            await engine.log.append([Entry(ref, rows, 1)], NOW)
        found = 0
        begin = time.perf_counter()
        while time.perf_counter() < begin + seconds:
            found += await count_rows(engine, ref)
        return f"{found / (time.perf_counter() - begin) / 1e6:.2f} M/s"


# --- the two forms of a stored batch ------------------------------------------------------------------------------


def page_rows(rows: Sequence[Row], first: int) -> list[PageRow]:
    return [
        PageRow(str(first + index), row.data, row.timestamp or NOW, "CreateTime", row.key)
        for index, row in enumerate(rows)
    ]


def raw_put(rows: list[Row]) -> bytearray:
    return batch.encode(rows).value(1_000_000, NOW)


def raw_get(value: bytearray) -> bytes:
    batch.verify(value)
    return encode_page(page_rows(batch.rows(value), 1_000_000), "cursor")


def text_put(rows: list[Row]) -> bytes:
    """Records as they stand in a page, joined; the whole batch is read or nothing of it."""
    text = msgspec.json.encode(page_rows(rows, 1_000_000))[1:-1]
    return zlib.crc32(text).to_bytes(4, "big") + text


def text_put_with_offsets(rows: list[Row]) -> bytes:
    """The same with the end of each record, so that a page can begin and end inside the batch."""
    encode = msgspec.json.Encoder().encode
    parts = [encode(row) for row in page_rows(rows, 1_000_000)]
    ends = array("I", [len(part) for part in parts]).tobytes()
    text = b",".join(parts)
    return zlib.crc32(text).to_bytes(4, "big") + ends + text


def text_get(value: bytes) -> bytes:
    view = memoryview(value)
    if zlib.crc32(view[4:]) != int.from_bytes(view[:4], "big"):
        raise SystemExit("the checksum does not match")
    return b"".join((b'{"records":[', view[4:], b'],"next_partition_cursor":"cursor"}'))


def ns_per_record(function: Callable[[], object], seconds: float) -> float:
    """The best of many runs: what it costs when nobody else takes the processor."""
    best = float("inf")
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - begin)
    return best / BATCH * 1e9


def measure_forms(size: int, seconds: float) -> tuple[dict[str, float], dict[str, float]]:
    """(ns per record, bytes per record on disk), by form."""
    rows = make_rows(size)
    raw, text, indexed = raw_put(rows), text_put(rows), text_put_with_offsets(rows)
    if msgspec.json.decode(raw_get(raw)) != msgspec.json.decode(text_get(text)):
        raise SystemExit("the two forms give different pages")
    costs = {
        "raw: put": ns_per_record(lambda: raw_put(rows), seconds),
        "raw: get": ns_per_record(lambda: raw_get(raw), seconds),
        "text: put": ns_per_record(lambda: text_put(rows), seconds),
        "text: put with offsets": ns_per_record(lambda: text_put_with_offsets(rows), seconds),
        "text: get": ns_per_record(lambda: text_get(text), seconds),
    }
    sizes = {"raw": len(raw) / BATCH, "text": len(text) / BATCH, "text with offsets": len(indexed) / BATCH}
    return costs, sizes


# --- the tables ---------------------------------------------------------------------------------------------------


def table(title: str, *columns: str) -> Table:
    made = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        made.add_column(column, justify="right" if index else "left", no_wrap=True)
    return made


def show_append(root: Path, seconds: float) -> None:
    shown = table("append: acknowledged records", "durability", "appenders", "payload", "predicted", "measured")
    for (durability, appenders, size), predicted in PREDICTED_APPEND.items():
        config = EmbeddedConfig(durability="fsync" if durability == "fsync" else "relaxed")
        with tempfile.TemporaryDirectory(dir=root) as directory:
            found = asyncio.run(measure_append(Path(directory), config, appenders, size, seconds))
        shown.add_row(durability, str(appenders), f"{size} B", f"{predicted:.2f} M/s", found)
    console.print(shown)


def show_read(root: Path, seconds: float) -> None:
    shown = table("read: rows decoded, pages of 2 MiB", "payload", "predicted", "measured")
    for size, predicted in PREDICTED_READ.items():
        with tempfile.TemporaryDirectory(dir=root) as directory:
            found = asyncio.run(measure_read(Path(directory), size, seconds))
        shown.add_row(f"{size} B", f"{predicted:.2f} M/s", found)
    console.print(shown)


def show_forms(seconds: float) -> None:
    shown = table("storage forms: one batch, no disk", "payload", "what", "predicted", "measured")
    for size in (100, 1024):
        costs, sizes = measure_forms(size, seconds / 5)
        for what, cost in costs.items():
            shown.add_row(f"{size} B", what, f"{PREDICTED_FORMS[what, size]} ns/record", f"{cost:.0f} ns/record")
        for form, found in sizes.items():
            shown.add_row(f"{size} B", f"{form}: stored", "", f"{found:.0f} B/record")
    console.print(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="append|read|forms", help="what to measure (default: everything)")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()), help="on which disk to store")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long to measure each row of a table")
    options = parser.parse_args()
    what = options.what or ["append", "read", "forms"]
    if unknown := set(what) - {"append", "read", "forms"}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from append, read, forms")
    console.print(
        f"{os.cpu_count()} CPUs ({platform.machine()}), load {os.getloadavg()[0]:.1f}, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}, LMDB {'.'.join(map(str, lmdb.version()))}, "
        f"msgspec {msgspec.__version__}, {BATCH} records an append"
    )
    if "append" in what:
        show_append(options.directory, options.seconds)
    if "read" in what:
        show_read(options.directory, options.seconds)
    if "forms" in what:
        show_forms(options.seconds)


if __name__ == "__main__":
    main()
