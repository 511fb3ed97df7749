"""What the forms of body cost and save: columns, JSON, protobuf, plain and compressed, for payloads of several kinds.

The producer writes with `send_many`, a consumer reads everything back with `fetch`, and both count the bytes of bodies
on the wire: requests of puts, answers of gets (never compressed). The server is durable and has its own process. All
forms in turn, so that a machine that drifts slows all of them; medians of the rounds.

    python benchmarks/bodies.py [--megabytes 12] [--rounds 3]

Predicted (plain JSON = 1): columns write 1.3 times as many 100-byte records a second on 0.63 of the bytes, and their
pages are JSON; protobuf writes 0.6 as many 100-byte records a second and 1.1 as many of 1 KiB, on 0.75 of the bytes;
lz4 and snappy make a quarter of flights at 0.9 of the rate, zstd an eighth at 0.8; random bytes shrink by what base64
added and no further, and only zstd gets that back.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import anyio
import msgspec

from disstream.bench.flights import SHIPPED, read_rows
from disstream.bench.machine import Origin
from disstream.bench.processes import Child, server
from disstream.client import ClientConfig, Transport
from disstream.client.config import Body
from disstream.consumer import ConsumerConfig
from disstream.door import connect
from disstream.model import Record
from disstream.wire.compression import COMPRESSIONS, Compression
from disstream.wire.http import Request, Response

PARTITIONS = 4
KEYS = 97
BATCH = 1_000
SIZES = {"100 B": 100, "1 KiB": 1_024, "10 KiB": 10_240}
BODIES: dict[Body, str] = {"auto": "columns", "json": "json", "protobuf": "protobuf"}
"""And what each is called in the table: our server reads columns, so that is what "auto" writes. It reads as JSON."""
CODINGS: tuple[Compression | None, ...] = (None, *COMPRESSIONS)

Pairs = list[tuple[bytes, str]]
Form = tuple[Body, Compression | None]


class Figures(NamedTuple):
    """Of one way through the records; processor seconds per MB (10^6 bytes) of payload."""

    rate: float
    wire_bytes: float
    """Per byte of payload."""
    client_cpu_s: float
    server_cpu_s: float


class Row(msgspec.Struct, frozen=True):
    """Medians of one form of body."""

    body: Body
    compression: Compression | None
    written: Figures
    read: Figures

    @classmethod
    def of(cls, form: Form, found: list[tuple[Figures, Figures]]) -> Row:
        written, read = (
            Figures(*(statistics.median(column) for column in zip(*part, strict=True)))
            for part in zip(*found, strict=True)
        )
        return cls(*form, written, read)


class Table(msgspec.Struct, frozen=True):
    origin: Origin
    megabytes: float
    rounds: int
    kinds: dict[str, list[Row]]


class Counting:
    """Counts the bytes of bodies of put and get."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.count = 0

    async def exchange(self, request: Request) -> Response:
        response = await self._inner.exchange(request)
        if request.target.partition("?")[0].endswith("/records"):
            self.count += len(request.body or response.body)
        return response

    async def close(self) -> None:
        await self._inner.close()


def payloads(megabytes: float) -> dict[str, Pairs]:
    """Kind -> records of about that size together; a third of it for those of 100 bytes, which take longer."""
    dice = random.Random(1)
    kinds: dict[str, Pairs] = {}
    rows = [row.data for row in read_rows(SHIPPED, "tailnum")]
    for name, size in SIZES.items():
        count = max(int(megabytes * 1e6 / size / (3 if size < 1_000 else 1)), 1)
        keys = [f"key-{dice.randrange(KEYS)}" for _ in range(count)]
        kinds[f"random, {name}"] = [(dice.randbytes(size), key) for key in keys]
        kinds[f"flights, {name}"] = list(zip(flights(rows, size, count), keys, strict=True))
    return kinds


def flights(rows: list[bytes], size: int, count: int) -> list[bytes]:
    """Records of about `size` bytes of JSON: a list of flights, or one with as many of its fields as fit."""
    supply = itertools.cycle(rows)
    records = []
    for _ in range(count):
        row = next(supply)
        if len(row) > size:
            row = row[: row.rindex(b",", 0, size)] + b"}"
        while len(row) + len(rows[0]) < size:
            row += b"," + next(supply)
        records.append(b"[" + row + b"]")
    return records


async def write_and_read(url: str, process: Child, form: Form, stream: str, pairs: Pairs) -> tuple[Figures, Figures]:
    config = ClientConfig(body=form[0], compression=form[1])
    payload = sum(len(data) for data, _ in pairs) / 1e6

    async with connect(url, project_id="demo", config=config) as dis:
        wire = Counting(dis.transport)
        dis.transport = wire

        def read_clocks() -> tuple[float, float, float, int]:
            return time.perf_counter(), time.process_time(), process.cpu_s() or 0.0, wire.count

        def since(before: tuple[float, float, float, int]) -> Figures:
            lasted, ours, theirs, count = (b - a for a, b in zip(before, read_clocks(), strict=True))
            return Figures(len(pairs) / lasted, count / payload / 1e6, ours / payload, theirs / payload)

        await dis.streams.create(stream, partitions=PARTITIONS)
        async with dis.producer(stream) as producer:
            before = read_clocks()
            for start in range(0, len(pairs), BATCH):
                await producer.send_many(pairs[start : start + BATCH])
            await producer.flush()
            written = since(before)
            if producer.stats().stored != len(pairs):
                raise SystemExit(f"{form}: {producer.stats()}")
        left = len(pairs)
        came: list[Record] = []
        async with dis.consumer(stream, ConsumerConfig()) as consumer:
            before = read_clocks()
            while left > 0:
                records = await consumer.fetch(max_records=BATCH, timeout_s=1.0)
                left -= len(records)
                came += records
            read = since(before)
        if sum(crc32(record.data) for record in came) != sum(crc32(data) for data, _ in pairs):
            raise SystemExit(f"{form}: other bytes came back")
        await dis.streams.delete(stream)
    return written, read


async def measure(megabytes: float, rounds: int) -> dict[str, list[Row]]:
    table: dict[str, list[Row]] = {}
    for name, pairs in payloads(megabytes).items():
        figures: dict[Form, list[tuple[Figures, Figures]]] = {form: [] for form in product(BODIES, CODINGS)}
        with tempfile.TemporaryDirectory() as directory:
            folder = Path(directory)
            async with server(folder / "data", folder) as (url, process):
                for turn in range(rounds + 1):
                    for number, form in enumerate(figures):
                        found = await write_and_read(url, process, form, f"s-{turn}-{number}", pairs)
                        if turn:  # the first round warms up
                            figures[form].append(found)
        table[name] = [Row.of(form, found) for form, found in figures.items()]
        for line in lines(name, table[name]):
            print(line, flush=True)
    return table


def lines(name: str, rows: list[Row]) -> Iterator[str]:
    """Markdown."""
    yield f"\n{name}:\n"
    yield "| body | written/s | wire B/B | client s/MB | server s/MB | read/s | client s/MB | server s/MB |"
    yield "|---|" + "---:|" * 7
    for row in rows:
        into, out = row.written, row.read
        cells = [
            BODIES[row.body] if row.compression is None else f"{BODIES[row.body]}, {row.compression}",
            f"{into.rate:,.0f}",
            f"{into.wire_bytes:.2f}",
            f"{into.client_cpu_s:.4f}",
            f"{into.server_cpu_s:.4f}",
            f"{out.rate:,.0f}",
            f"{out.client_cpu_s:.4f}",
            f"{out.server_cpu_s:.4f}",
        ]
        yield "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=12, help="payload of each form and round (default: 12)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count (default: 3)")
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    if not SHIPPED.exists():
        raise SystemExit(f"there is no {SHIPPED}: run this in a checkout of the repository")
    origin = Origin.here(" ".join(["python", *sys.argv]), "a server of its own for each kind, fsync")
    print(origin.machine)
    kinds = anyio.run(measure, arguments.megabytes, arguments.rounds, backend_options={"use_uvloop": True})
    if arguments.json:
        table = Table(origin, arguments.megabytes, arguments.rounds, kinds)
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(table), indent=1) + b"\n")


if __name__ == "__main__":
    main()
