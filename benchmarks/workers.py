"""What `serve --workers N` gives: the same puts and gets with one process, and with fronts before the core.

    python benchmarks/workers.py [--workers 1 2] [--seconds 3] [--rounds 5] [--size 100] [--data-dir DIR]

The requests are made once and sent again and again over raw sockets, so that the clients, which share the machine, cost
as little as they can: puts of 500 records, in JSON as an official client sends them, keys mixed, and in columns as ours
does, partition by partition; and pages of 2 MiB in both. Configurations take turns; figures are medians. All that was
acknowledged must be there in the end, and each page must be as long as those before.

records/s shows what this machine gives, clients included. *core* and *fronts* are microseconds of processor time a
record; with one worker the core is all there is. They tell where it ends with more cores: the core is one process, so

    at most 1 / core records/s, and on C cores of which one is the core's at most (C - 1) / fronts

The column *8 cores* is the lesser of the two, clients elsewhere, beside 1 / core with one worker.

Predicted (100 bytes, 2 cores): JSON put, core 0.45 and fronts 0.9 us; JSON get, core 0.15 and fronts 0.9 us; columns
put, core 0.35 and fronts 0.15: in columns it gives nothing, as the core does the same as before and the line is extra.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import anyio
from anyio import to_thread
from rich.console import Console
from rich.table import Table

from disstream import NewRecord, connect
from disstream.bench.machine import cpu_s, describe
from disstream.bench.processes import PYTHON, child
from disstream.model import MAX_HASH_KEY
from disstream.wire.columns import COLUMNS, encode_columns
from disstream.wire.http import JSON
from disstream.wire.pages import ACCEPT
from disstream.wire.partitioning import hash_key
from disstream.wire.records import encode_put

BATCH = 500
CONNECTIONS = 8
PARTITIONS = 4
KEYS = 97
CORES = 8
PROJECT = "demo"
STORED = b'{"failed_record_count":0,'
"""How the answer to a put begins that stored all."""

console = Console(width=120)


class Running(NamedTuple):
    """A server under test."""

    url: str
    core: int
    fronts: list[int]
    """Process ids."""

    def cpu(self) -> tuple[float, float]:
        """Processor time of the core, and of all fronts, in seconds."""
        return cpu_s(self.core) or 0.0, sum(cpu_s(pid) or 0.0 for pid in self.fronts)


class Lap(NamedTuple):
    requests: int
    rate: float
    core_us: float
    fronts_us: float


@contextlib.asynccontextmanager
async def serving(workers: int, directory: Path) -> AsyncIterator[Running]:
    place = directory / str(workers)
    place.mkdir()
    arguments = [*PYTHON, "disstream", "serve", "--port", "0", "--data-dir", str(place / "data")]
    async with child("server", [*arguments, "--workers", str(workers)], place) as process:
        url = (await process.read_line()).decode().split()[1]
        core = process.pid
        yield Running(url, core, children(core))


def children(parent: int) -> list[int]:
    """The processes that it started."""
    listed = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(pid) for one in listed for pid in one.read_text().split()]


def message(method: str, target: str, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "host: bench", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def send_again(url: str, request: bytes, until: float, answers: list[int], failures: list[str]) -> None:
    """Send the request until that time, one after another; count the answers that are as they must be."""
    host, _, port = urlsplit(url).netloc.partition(":")
    first = 0
    with socket.create_connection((host, int(port))) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while time.perf_counter() < until:
            connection.sendall(request)
            answer = bytearray()
            while b"\r\n\r\n" not in answer:
                answer += received(connection, 1 << 20)
            at = answer.index(b"\r\n\r\n") + 4
            size = int(answer[:at].lower().partition(b"content-length:")[2].split()[0])
            while len(answer) < at + size:
                answer += received(connection, at + size - len(answer))
            put = request.startswith(b"POST")
            first = first or size
            if not answer.startswith(b"HTTP/1.1 200") or (STORED not in answer if put else size != first):
                failures.append(answer[:400].decode("latin-1"))
                return
            answers.append(size)


def received(connection: socket.socket, most: int) -> bytes:
    chunk = connection.recv(most)
    if not chunk:
        raise SystemExit("the server hung up")
    return chunk


def load(url: str, requests: list[bytes], seconds: float) -> list[int]:
    """All connections at once, each in a thread; the bytes of each answer."""
    answers: list[int] = []
    failures: list[str] = []
    until = time.perf_counter() + seconds
    threads = [
        threading.Thread(target=send_again, args=(url, request, until, answers, failures)) for request in requests
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(f"{len(failures)} requests failed, the first with {failures[0]!r}")
    return answers


def put_requests(records: list[NewRecord], stream: str) -> dict[str, list[bytes]]:
    target = f"/v2/{PROJECT}/records"
    columns = encode_columns(stream, by_partition(records))
    assert columns is not None
    return {
        "put, JSON": [message("POST", target, encode_put(stream, records), content_type=JSON)] * CONNECTIONS,
        "put, columns": [message("POST", target, columns, content_type=COLUMNS, x_disstream_answer="places")]
        * CONNECTIONS,
    }


def by_partition(records: list[NewRecord]) -> list[NewRecord]:
    """As our producer sends them: those of a partition behind one another."""
    return sorted(records, key=lambda record: hash_key(record.key or "") * PARTITIONS // (MAX_HASH_KEY + 1))


async def get_requests(url: str, stream: str) -> tuple[dict[str, list[bytes]], int]:
    """And how many records are in each page."""
    async with connect(url, project_id=PROJECT) as dis:
        pages: dict[str, list[bytes]] = {"get, JSON": [], "get, columns": []}
        counts = set()
        for index in range(CONNECTIONS):
            cursor = await dis.cursors.get(stream, str(index % PARTITIONS), "TRIM_HORIZON")
            counts.add(len((await dis.records.get(cursor)).records))
            target = f"/v2/{PROJECT}/records?partition-cursor={cursor}"
            pages["get, JSON"].append(message("GET", target))
            pages["get, columns"].append(message("GET", target, accept=ACCEPT))
    return pages, round(statistics.mean(counts))


async def stored(url: str, stream: str) -> int:
    async with connect(url, project_id=PROJECT) as dis:
        info = await dis.streams.describe(stream)
        return sum(partition.sequence_range.end for partition in info.partitions if partition.sequence_range)


async def lap(server: Running, requests: list[bytes], records: int, seconds: float) -> Lap:
    """`records` are in each request, or in each page."""
    before = server.cpu()
    began = time.perf_counter()
    answers = await to_thread.run_sync(load, server.url, requests, seconds)
    took = time.perf_counter() - began
    core, fronts = (after - then for after, then in zip(server.cpu(), before, strict=True))
    count = len(answers) * records
    return Lap(len(answers), count / took, core / count * 1e6, fronts / count * 1e6)


def filled(size: int) -> list[NewRecord]:
    dice = random.Random(size)
    return [NewRecord(dice.randbytes(size), f"key-{index % KEYS}") for index in range(BATCH)]


def in_turn(rounds: int, workers: list[int]) -> Iterator[tuple[bool, int]]:
    """The first round warms up, and does not count."""
    for number in range(rounds + 1):
        yield from ((number > 0, count) for count in workers)


async def measure(options: argparse.Namespace, directory: Path) -> dict[tuple[str, int], list[Lap]]:
    found: dict[tuple[str, int], list[Lap]] = {}
    records = filled(options.size)
    async with contextlib.AsyncExitStack() as stack:
        servers = {count: await stack.enter_async_context(serving(count, directory)) for count in options.workers}
        pages: dict[int, tuple[dict[str, list[bytes]], int]] = {}
        acknowledged = dict.fromkeys(servers, 0)
        for count, server in servers.items():
            async with connect(server.url, project_id=PROJECT) as dis:
                await dis.streams.create("s", partitions=PARTITIONS)
                for _ in range(200):
                    (await dis.records.put("s", records)).raise_for_failed()
            acknowledged[count] = 200 * BATCH
            pages[count] = await get_requests(server.url, "s")
        for kind in ("put, JSON", "put, columns", "get, JSON", "get, columns"):
            for counts, count in in_turn(options.rounds, options.workers):
                server = servers[count]
                if kind.startswith("put"):
                    result = await lap(server, put_requests(records, "s")[kind], BATCH, options.seconds)
                    acknowledged[count] += result.requests * BATCH
                else:
                    requests, each = pages[count]
                    result = await lap(server, requests[kind], each, options.seconds)
                if counts:
                    found.setdefault((kind, count), []).append(result)
        for count, server in servers.items():
            if await stored(server.url, "s") != acknowledged[count]:
                raise SystemExit(f"{count} workers: not all that was acknowledged is stored")
    return found


def shown(found: dict[tuple[str, int], list[Lap]], size: int) -> Table:
    table = Table(title=f"{size} bytes a record, {BATCH} in a put, {CONNECTIONS} connections", title_justify="left")
    for name in ("", "workers", "records/s", "core us", "fronts us", f"{CORES} cores, records/s"):
        table.add_column(name, justify="right" if name else "left")
    for (kind, workers), laps in found.items():
        _, rate, core, fronts = (statistics.median(column) for column in zip(*laps, strict=True))
        # A lap may be too short for a tick of the clock that counts processor time.
        ceilings = [share * 1e6 / us for share, us in ((1, core), (CORES - 1, fronts)) if us]
        most = f"{min(ceilings):,.0f}" if ceilings else "-"
        table.add_row(kind, str(workers), f"{rate:,.0f}", f"{core:.3f}", f"{fronts:.3f}", most)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="What serve --workers N gives.")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--data-dir", type=Path, help="on the disk that matters; default: a temporary directory")
    options = parser.parse_args()
    console.print(describe())
    with tempfile.TemporaryDirectory(dir=options.data_dir) as directory:
        console.print(shown(anyio.run(measure, options, Path(directory)), options.size))


if __name__ == "__main__":
    main()
