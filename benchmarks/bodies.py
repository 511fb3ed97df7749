"""What the forms of body cost and save: JSON and protobuf, plain and compressed, for payloads of several kinds.

The producer writes with `send_many`, a consumer reads everything back with `fetch`, and both count the bytes of bodies
on the wire: requests of puts, answers of gets (never compressed). The server is durable and has its own process. All
forms in turn, so that a machine that drifts slows all of them; medians of the rounds.

    python benchmarks/bodies.py [--megabytes 12] [--rounds 3]

Predicted (plain JSON = 1): protobuf writes 0.6 as many 100-byte records a second and 1.1 as many of 1 KiB, on 0.75 of
the bytes; lz4 and snappy make a quarter of flights at 0.9 of the rate, zstd an eighth at 0.8; random bytes shrink by
what base64 added and no further, and only zstd gets that back.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import NamedTuple

import anyio

from disstream.bench.flights import SHIPPED, read_rows
from disstream.bench.machine import describe
from disstream.bench.processes import Child, server
from disstream.client import ClientConfig, Transport
from disstream.client.config import Body
from disstream.consumer import ConsumerConfig
from disstream.door import connect
from disstream.wire.compression import COMPRESSIONS, Compression
from disstream.wire.http import Request, Response

PARTITIONS = 4
KEYS = 97
BATCH = 1_000
BODIES: tuple[Body, ...] = ("json", "protobuf")
CODINGS: tuple[Compression | None, ...] = (None, *COMPRESSIONS)

Pairs = list[tuple[bytes, str]]
Form = tuple[Body, Compression | None]


class Figures(NamedTuple):
    """Of one way through the records; bytes and processor seconds per MB (10^6 bytes) of payload."""

    rate: float
    wire_bytes: float
    client_cpu_s: float
    server_cpu_s: float


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
    for name, size, share in (("random, 100 B", 100, 3), ("random, 1 KiB", 1024, 1), ("random, 10 KiB", 10_240, 1)):
        count = int(megabytes * 1e6 / share / size)
        kinds[name] = [(dice.randbytes(size), f"key-{dice.randrange(KEYS)}") for _ in range(count)]
    if SHIPPED.exists():
        rows = read_rows(SHIPPED, "tailnum")
        count = int(megabytes * 1e6 / statistics.mean(len(row.data) for row in rows[:1_000]))
        kinds["flights, JSON"] = [(row.data, row.key or "none") for row in rows[:count]]
    return kinds


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
            return Figures(len(pairs) / lasted, count / payload, ours / payload, theirs / payload)

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
        async with dis.consumer(stream, ConsumerConfig()) as consumer:
            before = read_clocks()
            while left > 0:
                left -= len(await consumer.fetch(max_records=BATCH, timeout_s=1.0))
            read = since(before)
        await dis.streams.delete(stream)
    return written, read


async def measure(megabytes: float, rounds: int) -> None:
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
        show(name, len(pairs), figures)


def show(name: str, count: int, figures: dict[Form, list[tuple[Figures, Figures]]]) -> None:
    print(f"\n{name}, {count:,} records")
    title = "rec/s     bytes/B  client  server"
    print(f"{'':17} | {'written: ' + title} | {'read: ' + title}   (client, server: CPU s per MB of payload)")
    for (body, compression), found in figures.items():
        cells = []
        for part in zip(*found, strict=True):
            rate, wire, ours, theirs = (statistics.median(column) for column in zip(*part, strict=True))
            cells.append(f"{rate:10,.0f} {wire / 1e6:9.2f} {ours:7.4f} {theirs:7.4f}")
        print(f"{body:8} {compression or 'plain':8} | {cells[0]:>43} | {cells[1]:>40}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=12, help="payload of each form and round (default: 12)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count (default: 3)")
    arguments = parser.parse_args()
    print(describe())
    anyio.run(measure, arguments.megabytes, arguments.rounds, backend_options={"use_uvloop": True})


if __name__ == "__main__":
    main()
