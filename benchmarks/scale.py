"""What a directory of many streams costs: start-up, memory, listing and describing, and what retention holds up.

For 10 streams and for 1,000, of 10 partitions each, a directory is filled first: records in every partition, and on
every tenth stream an app with a checkpoint for each partition. Then `disstream serve` is started on it, as often as
there are rounds: from the start of the process to the first answer (a list of streams); the memory it has then, and
after every stream was described and written to; how long a page of streams and a description take over one connection,
medians; how late any answer was while retention looked at all partitions, which it does first thing after the start.

    python benchmarks/scale.py [--streams 10 1000] [--partitions 10] [--rounds 3] [--directory DIR] [--json FILE]

Predicted for 1,000 streams: start 1.3 s, of it 1.1 for importing; resident 130 MB; a page of 100 streams 4 ms, of 10
the same within a millisecond; a description 1 ms, as with 10 streams.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import anyio
import msgspec

from disstream.bench.machine import Origin
from disstream.bench.processes import Child, server
from disstream.door import DisClient, connect
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine
from disstream.model import NewRecord
from disstream.server.app import App
from disstream.server.config import ServerConfig
from disstream.testing.engine import opened
from disstream.testing.network import AppTransport
from disstream.wire.partitioning import partition_id

PROJECT = "demo"
RECORDS = 20
"""In each stream, of 100 bytes; their keys fall into all partitions."""
APP_EVERY = 10
CALLS = 50
"""Of which a time is the median."""
WATCH_S = 3.0
"""How long answers are watched after the start."""


class Row(msgspec.Struct, frozen=True):
    """Medians of the rounds; the worst one of `late_ms`."""

    streams: int
    partitions: int
    fill_s: float
    file_bytes: int
    start_s: float
    start_cpu_s: float
    """Of processor time, of `start_s`."""
    resident_bytes: int
    used_bytes: int
    """Resident, after every stream was described and written to."""
    page_100_ms: float
    page_10_ms: float
    describe_ms: float
    late_ms: float
    """The slowest answer to a description within seconds of the start."""


class Table(msgspec.Struct, frozen=True):
    origin: Origin
    rounds: int
    import_s: float
    rows: list[Row]


def stream_name(number: int) -> str:
    return f"stream-{number:05}"


@contextlib.asynccontextmanager
async def inside(directory: Path) -> AsyncIterator[DisClient]:
    """A client of a server without a socket, on that directory; nothing is synchronised before the end."""
    async with opened(EmbeddedEngine(directory, EmbeddedConfig(durability="relaxed"))) as engine:
        app = App(engine, ServerConfig(data_dir=directory))
        async with connect(project_id=PROJECT, transport=AppTransport(app)) as dis:
            yield dis


async def fill(directory: Path, streams: int, partitions: int) -> None:
    async with inside(directory) as dis, anyio.create_task_group() as tasks:
        left = iter(range(streams))

        async def work() -> None:
            for number in left:
                await fill_stream(dis, number, partitions)

        for _ in range(8):
            tasks.start_soon(work)


async def fill_stream(dis: DisClient, number: int, partitions: int) -> None:
    name = stream_name(number)
    await dis.streams.create(name, partitions=partitions)
    records = [NewRecord(b"x" * 100, f"key-{index}") for index in range(RECORDS)]
    records += [NewRecord(b"x" * 100, partition_id=partition_id(one)) for one in range(partitions)]
    (await dis.records.put(name, records)).raise_for_failed()
    if number % APP_EVERY == 0:
        app = f"app-{number:05}"
        await dis.apps.create(app)
        for one in range(partitions):
            await dis.checkpoints.commit(app, name, partition_id(one), 0)


def resident_bytes(process: Child) -> int:
    """All that is in memory, the mapped file with it."""
    size = process.resident_bytes()
    if size is None:
        raise SystemExit("this system does not tell the memory of another process: it takes /proc")
    return size


async def timed(call: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds, the median."""
    took = []
    for _ in range(CALLS):
        began = time.perf_counter()
        await call()
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1e3


async def look(directory: Path, folder: Path, streams: int, partitions: int) -> tuple[float, ...]:
    """One start: the figures of `Row` from `start_s` on."""
    began = time.perf_counter()
    async with server(directory, folder) as (url, process), connect(url, project_id=PROJECT) as dis:
        await first_page(dis, 10)
        start_s, start_cpu_s = time.perf_counter() - began, process.cpu_s() or 0.0
        resident = resident_bytes(process)
        late = 0.0
        end = time.perf_counter() + WATCH_S
        while (asked := time.perf_counter()) < end:
            await dis.streams.describe(stream_name(0))
            late = max(late, time.perf_counter() - asked)
        last = stream_name(streams - 1)
        page_100 = await timed(lambda: first_page(dis, 100))
        page_10 = await timed(lambda: first_page(dis, 10))
        describe = await timed(lambda: dis.streams.describe(last))
        for number in range(streams):
            info = await dis.streams.describe(stream_name(number))
            assert len(info.partitions) == partitions
            (await dis.records.put(info.name, [NewRecord(b"x", "k")])).raise_for_failed()
        used = resident_bytes(process)
        return start_s, start_cpu_s, resident, used, page_100, page_10, describe, late * 1e3


async def first_page(dis: DisClient, limit: int) -> None:
    await anext(dis.streams.list(page_size=limit))


async def measure(options: argparse.Namespace) -> list[Row]:
    rows = []
    for streams in options.streams:
        with tempfile.TemporaryDirectory(dir=options.directory) as name:
            folder = Path(name)
            directory = folder / "data"
            began = time.perf_counter()
            await fill(directory, streams, options.partitions)
            fill_s = time.perf_counter() - began
            size = (directory / "data.mdb").stat().st_size
            found = [await look(directory, folder, streams, options.partitions) for _ in range(options.rounds)]
            start_s, start_cpu_s, resident, used, page_100, page_10, describe, _ = (
                statistics.median(column) for column in zip(*found, strict=True)
            )
            row = Row(
                streams=streams,
                partitions=options.partitions,
                fill_s=fill_s,
                file_bytes=size,
                start_s=start_s,
                start_cpu_s=start_cpu_s,
                resident_bytes=int(resident),
                used_bytes=int(used),
                page_100_ms=page_100,
                page_10_ms=page_10,
                describe_ms=describe,
                late_ms=max(late for *_, late in found),
            )
            rows.append(row)
            print(shown(row), flush=True)
    return rows


HEAD = (
    "| streams x partitions | file MB | start s | of it CPU s | resident MB | after use MB | page of 100 ms "
    "| page of 10 ms | describe ms | slowest ms |",
    "|---|" + "---:|" * 9,
)


def shown(row: Row) -> str:
    cells = [
        f"{row.streams:,} x {row.partitions}",
        f"{row.file_bytes / 1e6:.1f}",
        f"**{row.start_s:.2f}**",
        f"{row.start_cpu_s:.2f}",
        f"**{row.resident_bytes / 1e6:.0f}**",
        f"**{row.used_bytes / 1e6:.0f}**",
        f"{row.page_100_ms:.2f}",
        f"{row.page_10_ms:.2f}",
        f"{row.describe_ms:.2f}",
        f"{row.late_ms:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def import_s() -> float:
    """Of a start: what importing alone takes, the median of five processes."""
    took = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import disstream.cli"], check=True)
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[10, 1000], help="how many (default: 10 1000)")
    parser.add_argument("--partitions", type=int, default=10, help="of each stream (default: 10)")
    parser.add_argument("--rounds", type=int, default=3, help="starts of each (default: 3)")
    parser.add_argument("--directory", type=Path, help="on which disk to store (default: the temporary one)")
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    origin = Origin.here(" ".join(["python", *sys.argv]), "a server of its own for each start, fsync")
    importing = import_s()
    print(f"{origin.machine}; importing takes {importing:.2f} s of a start", *HEAD, sep="\n", flush=True)
    rows = anyio.run(measure, options, backend_options={"use_uvloop": True})
    if options.json:
        table = Table(origin, options.rounds, importing, rows)
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(table), indent=1) + b"\n")


if __name__ == "__main__":
    main()
