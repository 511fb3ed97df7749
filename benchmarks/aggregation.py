"""What aggregation makes of a partition's limits: acknowledged records a second, with and without envelopes.

A durable server in a process of its own, `--limits service`: a COMMON partition takes 1,000 records and 1 MiB a second.
A producer with more to send than may pass fills one partition with 100-byte records for some seconds, then everything
is read back by a consumer and compared. Processor time is measured apart, on a server without limits, with and without
envelopes in turn.

    python benchmarks/aggregation.py [--seconds 10] [--records 200000] [--rounds 3]

Predicted: 1,000 records a second without, 9,500 with (1 MiB by payload, key and 3 bytes each); processor time of both
sides together per record: half of what it is without.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import anyio

from disstream.bench.machine import describe
from disstream.bench.processes import START_TIMEOUT_S, Child, child
from disstream.consumer import ConsumerConfig
from disstream.door import DisClient, connect
from disstream.errors import BufferFull
from disstream.producer import Envelope, ProducerConfig

KEYS = 97
SIZE = 100
BATCH = 500
FORMS: dict[str, Envelope | None] = {
    "plain": None,
    "envelope of one": Envelope(aggregate_records=1),
    "aggregated": Envelope(),
}


class Cost(NamedTuple):
    """Of one way through the records, in microseconds of processor time per record."""

    client_put: float
    server_put: float
    client_get: float
    server_get: float


def payload(number: int, noise: bytes) -> bytes:
    return b"%08d" % number + noise[number % 4096 : number % 4096 + SIZE - 8]


async def fill(dis: DisClient, stream: str, envelope: Envelope | None, seconds: float, noise: bytes) -> None:
    """Offer one partition more than it may take, and count what is acknowledged between the second second and the end:
    the bucket of a partition that was idle holds a second's worth."""
    await dis.streams.create(stream, partitions=1)
    config = ProducerConfig(envelope=envelope, buffer_bytes=2_097_152, send_timeout_s=0.5, close_timeout_s=60.0)
    number = 0
    async with dis.producer(stream, config) as producer:
        begun = time.perf_counter()
        counted_from, before = 0.0, 0
        while (now := time.perf_counter()) - begun < seconds:
            if not counted_from and now - begun >= 2:
                counted_from, before = now, producer.stats().stored
            pairs = [(payload(n, noise), f"key-{n % KEYS}") for n in range(number, number + BATCH)]
            try:
                await producer.send_many(pairs)
                number += BATCH
            except BufferFull:
                continue
        stats = producer.stats()
        rate = (stats.stored - before) / (time.perf_counter() - counted_from)
        refused = stats.refused_attempts / max(stats.stored + stats.refused_attempts, 1)
        await producer.flush()
        accepted, stored = producer.stats().accepted, producer.stats().stored
    if stored != accepted:
        raise SystemExit(f"{stream}: {stored} of {accepted} records were stored")
    latest: dict[str | None, int] = {}
    left = stored
    async with dis.consumer(stream) as consumer:
        while left > 0:
            for record in await consumer.fetch(max_records=BATCH, timeout_s=10.0):
                found = int(record.data[:8])
                if record.data != payload(found, noise) or record.key != f"key-{found % KEYS}":
                    raise SystemExit(f"{stream}: record {found} came back as another")
                if latest.get(record.key, -1) >= found:
                    raise SystemExit(f"{stream}: record {found} came out of order, or twice")
                latest[record.key] = found
                left -= 1
    print(
        f"{stream:>16}: {rate:9,.0f} records/s acknowledged, {rate * SIZE / 2**20:5.2f} MiB/s of payload, "
        f"{refused:6.1%} of attempts throttled; {stored:,} read back, each once and in order",
        flush=True,
    )


async def cost(dis: DisClient, server: Child, stream: str, envelope: Envelope | None, count: int, noise: bytes) -> Cost:
    await dis.streams.create(stream, partitions=4)
    pairs = [(payload(n, noise), f"key-{n % KEYS}") for n in range(count)]

    def clocks() -> tuple[float, float]:
        return time.process_time(), server.cpu_s() or 0.0

    points = [clocks()]
    async with dis.producer(stream, ProducerConfig(envelope=envelope)) as producer:
        for start in range(0, count, BATCH):
            await producer.send_many(pairs[start : start + BATCH])
        await producer.flush()
        points.append(clocks())
    left = count
    async with dis.consumer(stream, ConsumerConfig()) as consumer:
        points.append(clocks())
        while left > 0:
            left -= len(await consumer.fetch(max_records=1_000, timeout_s=10.0))
        points.append(clocks())
    await dis.streams.delete(stream)
    put, get = ([(b - a) / count * 1e6 for a, b in zip(points[i], points[i + 1], strict=True)] for i in (0, 2))
    return Cost(*put, *get)


async def measure(seconds: float, records: int, rounds: int) -> None:
    noise = bytes((i * i * 31 + i // 7) % 251 for i in range(8192))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        async def run(limits: str, process: Child) -> DisClient:
            with anyio.fail_after(START_TIMEOUT_S):
                line = await process.read_line()
            print(f"\n--limits {limits}")
            return connect(line.decode().split()[1], project_id="demo")

        def arguments(limits: str) -> list[str]:
            data = str(folder / limits)
            return [
                "disstream",
                "serve",
                "--port",
                "0",
                "--data-dir",
                data,
                "--durability",
                "fsync",
                "--limits",
                limits,
            ]

        async with child("limited", arguments("service"), folder) as process:
            async with await run("service", process) as dis:
                for form, envelope in FORMS.items():
                    await fill(dis, form.replace(" ", "-"), envelope, seconds, noise)
        async with child("open", arguments("open"), folder) as process:
            async with await run("open", process) as dis:
                found: dict[str, list[Cost]] = {form: [] for form in FORMS}
                for turn in range(rounds + 1):
                    for number, (form, envelope) in enumerate(FORMS.items()):
                        figures = await cost(dis, process, f"s-{turn}-{number}", envelope, records, noise)
                        if turn:  # the first round warms up
                            found[form].append(figures)
        print("us of processor time per record   put: client  server   get: client  server")
        for form, figures_of in found.items():
            medians = [statistics.median(column) for column in zip(*figures_of, strict=True)]
            print(f"{form:>33} {medians[0]:12.2f} {medians[1]:7.2f} {medians[2]:13.2f} {medians[3]:7.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="how long each form fills a partition (default: 10)")
    parser.add_argument("--records", type=int, default=200_000, help="for processor time (default: 200000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count (default: 3)")
    given = parser.parse_args()
    print(describe())
    anyio.run(measure, given.seconds, given.records, given.rounds, backend_options={"use_uvloop": True})


if __name__ == "__main__":
    main()
