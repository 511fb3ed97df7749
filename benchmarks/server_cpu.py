"""What a record costs the server in processor time, beyond a server of the same make that only moves its bytes.

The *null handler* is aiohttp's low-level server on uvloop, as our edge uses it, in a process of its own: it reads the
body, and answers so many bytes as our server answered. The same client sends the same requests to both in turn, over so
many connections at once; what the processes used is read from /proc. Our server is durable: what its thread spends on
commits and syncs counts as well.

Requests have 500 records of 100 random bytes and one of 97 keys. JSON is what the official Python SDK sends, blanks
included; columns are what our own clients write and read. "4 partitions": the keys of each request belong to four, as
those of official clients do; else all to one, as those of a producer that keeps an order do. A page is one stored batch
of 500 records, or the 2 MiB that our consumer asks for, out of batches of 500.

    python benchmarks/server_cpu.py [--requests 1500] [--rounds 3] [--connections 8] [--json FILE]

Predicted (us a record beyond the null handler): put JSON 1.2, columns 0.5, protobuf 1.5; get JSON 0.5, columns 0.1,
protobuf 1.2.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import anyio
import msgspec
from aiohttp import web

from disstream.bench.machine import Origin
from disstream.bench.processes import Child, child, server
from disstream.door import connect
from disstream.model import NewRecord
from disstream.wire.columns import COLUMNS, NewColumns, encode_columns
from disstream.wire.http import JSON, PROTOBUF
from disstream.wire.partitioning import HashRouter, hash_key, hash_ranges
from disstream.wire.places import EXTENSION as PLACES
from disstream.wire.places import HEADER as ANSWER
from disstream.wire.protobuf import encode_put_protobuf

PROJECT = "demo"
RECORDS = 500
SIZE = 100
KEYS = 97
PAGE_BYTES = RECORDS * (SIZE + len("key-00"))
"""Of a page of exactly one stored batch."""
LARGE_PAGE_BYTES = 2 * 1024**2


class Case(NamedTuple):
    """A request that is sent again and again, and how many records each moves."""

    name: str
    request: bytes
    records: int


class Row(msgspec.Struct, frozen=True):
    """Medians, in microseconds of processor time a record."""

    name: str
    server_us: float
    null_us: float

    @property
    def beyond_us(self) -> float:
        return self.server_us - self.null_us


class Table(msgspec.Struct, frozen=True):
    origin: Origin
    requests: int
    rounds: int
    connections: int
    rows: list[Row]


# --- the client ---------------------------------------------------------------------------------------------------


class Line:
    """A connection that sends one request after another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, request: bytes) -> bytes:
        """The body of the answer. Ends the run unless it is a success."""
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        (size,) = [int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
        body = await self._reader.readexactly(size)
        if not head.startswith(b"http/1.1 200"):
            raise SystemExit(f"the server answered {head!r} {body[:500]!r}")
        return body

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def line(url: str) -> Line:
    host, _, port = url.removeprefix("http://").partition(":")
    return Line(*await asyncio.open_connection(host, int(port), limit=2 * LARGE_PAGE_BYTES))


async def ask_all(lines: Sequence[Line], request: bytes, count: int) -> None:
    """So many requests, shared among the connections as they have time."""
    left = iter(range(count))

    async def run(one: Line) -> None:
        for _ in left:
            await one.ask(request)

    async with anyio.create_task_group() as tasks:
        for one in lines:
            tasks.start_soon(run, one)


def http(method: str, target: str, media_type: str, body: bytes = b"", **more: str) -> bytes:
    headers = {"host": "127.0.0.1", "content-type": media_type, "content-length": str(len(body)), **more}
    head = "".join([f"{method} {target} HTTP/1.1\r\n", *(f"{name}: {value}\r\n" for name, value in headers.items())])
    return head.encode() + b"\r\n" + body


# --- what is sent -------------------------------------------------------------------------------------------------


def make_records() -> list[NewRecord]:
    dice = random.Random(1)
    return [NewRecord(dice.randbytes(SIZE), f"key-{index % KEYS:02}") for index in range(RECORDS)]


def as_json(stream: str, records: Sequence[NewRecord]) -> bytes:
    """As the official Python SDK writes it."""
    told = [{"data": base64.b64encode(record.data).decode(), "partition_key": record.key} for record in records]
    return json.dumps({"stream_name": stream, "records": told}).encode()


def puts(stream: str, partitions: int, records: list[NewRecord]) -> list[Case]:
    target = f"/v2/{PROJECT}/records"
    router = HashRouter(enumerate(hash_ranges(partitions)))
    ordered = sorted(records, key=lambda record: router.owner(hash_key(record.key or "")) or 0)
    columns = encode_columns(stream, NewColumns.of(ordered))
    assert columns is not None
    return [
        Case("JSON", http("POST", target, JSON, as_json(stream, records)), RECORDS),
        Case("columns", http("POST", target, COLUMNS, columns, **{ANSWER: PLACES}), RECORDS),
        Case("protobuf", http("POST", target, PROTOBUF, encode_put_protobuf(stream, records)), RECORDS),
    ]


def gets(cursor: str, max_bytes: int, records: int) -> list[Case]:
    target = f"/v2/{PROJECT}/records?partition-cursor={cursor}&max_fetch_bytes={max_bytes}"
    return [
        Case("JSON", http("GET", target, JSON), records),
        Case("columns", http("GET", target, JSON, accept=f"{COLUMNS}, {JSON}"), records),
        Case("protobuf", http("GET", target, PROTOBUF), records),
    ]


async def make_cases(url: str) -> list[Case]:
    """The streams, and every request."""
    records = make_records()
    found: list[Case] = []
    async with connect(url, project_id=PROJECT) as dis:
        for partitions in (1, 4):
            stream = f"put-{partitions}"
            await dis.streams.create(stream, partitions=partitions)
            where = "1 partition" if partitions == 1 else f"{partitions} partitions"
            found += [case._replace(name=f"put {case.name}, {where}") for case in puts(stream, partitions, records)]
        for batches in (1, LARGE_PAGE_BYTES // PAGE_BYTES):
            stream = f"get-{batches}"
            await dis.streams.create(stream, partitions=1)
            for _ in range(batches):
                (await dis.records.put(stream, records)).raise_for_failed()
            cursor = str(await dis.cursors.get(stream, "0", "TRIM_HORIZON"))
            for case in gets(cursor, PAGE_BYTES * batches, RECORDS * batches):
                found.append(case._replace(name=f"get {case.name}, {case.records:,} records"))
    return found


# --- the null handler ---------------------------------------------------------------------------------------------


async def serve_null(answer_bytes: int, media_type: str) -> None:
    """Run for ever, and answer each request so."""
    answer = b"x" * answer_bytes

    async def handle(request: web.BaseRequest) -> web.Response:
        await request.read()
        return web.Response(body=answer, headers={"content-type": media_type, "x-request-id": "0" * 32})

    listening = await asyncio.get_running_loop().create_server(web.Server(handle), "127.0.0.1", 0)
    print(f"serving http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", flush=True)
    await anyio.sleep_forever()


# --- the measurement ----------------------------------------------------------------------------------------------


async def used_us(process: Child, lines: Sequence[Line], case: Case, requests: int) -> float:
    """Microseconds of the process for each record."""
    before = process.cpu_s()
    await ask_all(lines, case.request, requests)
    after = process.cpu_s()
    if before is None or after is None:
        raise SystemExit("this system does not tell the processor time of another process: it takes /proc")
    return (after - before) / (requests * case.records) * 1e6


async def measure(options: argparse.Namespace) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        folder = Path(name)
        async with server(folder / "data", folder) as (url, process):
            for case in await make_cases(url):
                if options.only not in case.name:
                    continue
                rows.append(await compare(case, url, process, folder, options))
                print(shown(rows[-1]), flush=True)
    return rows


async def compare(case: Case, url: str, process: Child, folder: Path, options: argparse.Namespace) -> Row:
    requests = max(options.requests * RECORDS // case.records, 20)
    first = await line(url)
    answer = await first.ask(case.request)
    await first.close()
    arguments = [sys.executable, __file__, "--null", str(len(answer)), JSON]
    async with child("null", arguments, folder) as null:
        null_url = (await null.read_line()).decode().split()[1]
        ours = [await line(url) for _ in range(options.connections)]
        theirs = [await line(null_url) for _ in range(options.connections)]
        found: list[tuple[float, float]] = []
        for turn in range(options.rounds + 1):
            pair = (
                await used_us(process, ours, case, requests if turn else requests // 5),
                await used_us(null, theirs, case, requests if turn else requests // 5),
            )
            if turn:  # the first round warms up
                found.append(pair)
        for one in (*ours, *theirs):
            await one.close()
    return Row(case.name, *(statistics.median(column) for column in zip(*found, strict=True)))


HEAD = ("| 500 records of 100 B | server us/record | null handler | beyond it |", "|---|---:|---:|---:|")


def shown(row: Row) -> str:
    return f"| {row.name} | {row.server_us:.2f} | {row.null_us:.2f} | **{row.beyond_us:.2f}** |"


def main() -> None:
    if sys.argv[1:2] == ["--null"]:
        anyio.run(serve_null, int(sys.argv[2]), sys.argv[3], backend_options={"use_uvloop": True})
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1500, help="of each case and round (default: 1500)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count (default: 3)")
    parser.add_argument("--connections", type=int, default=8, help="requests at once (default: 8)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only the cases whose names hold it")
    parser.add_argument("--directory", type=Path, help="on which disk the server stores (default: the temporary one)")
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    origin = Origin.here(" ".join(["python", *sys.argv]), "a server of its own, fsync")
    print(origin.machine, *HEAD, sep="\n", flush=True)
    rows = anyio.run(measure, options, backend_options={"use_uvloop": True})
    if options.json:
        table = Table(origin, options.requests, options.rounds, options.connections, rows)
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(table), indent=1) + b"\n")


if __name__ == "__main__":
    main()
