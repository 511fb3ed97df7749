"""How close the consumer comes to hand-written readers of the same server, and how far the official SDK is, in one run.

A ceiling does what cannot be avoided and nothing else: it gets page after page over aiohttp, one request per partition
in flight, decodes them with the same library, and makes each record, 2,000 at a time. No budget, no cursors to renew,
no gaps to find, no turns, nothing that could be committed or cancelled. One reads the JSON that any DIS gives, the
other the columns that our server gives; the consumer too reads both. `fetch` asks for 2,000 records at a time, `async
for` touches one after another. huaweicloudsdkdis runs in an environment of its own (`make bench-peers`), in one thread,
and reads a twentieth of the stream.

All in turn, so that a machine that drifts slows all of them. Each way must read as many records as were written; that
their bytes are right is what `disstream bench consume` checks. The loop of the reader is asked every 2 ms how late it
is: in a ceiling it is held up by each page.

    python benchmarks/consumer_ceiling.py [--records 1000000] [--size 100] [--rounds 5]

Predicted (100 bytes): fetch 0.85 and async for 0.55 of the ceiling in columns; fetch 15 times huaweicloudsdkdis.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import aiohttp
import anyio
import msgspec

from disstream.bench.machine import describe
from disstream.bench.processes import Child, child, server
from disstream.bench.pulse import Pulse
from disstream.bench.timing import Histogram
from disstream.client import ClientConfig
from disstream.client.config import Body
from disstream.door import DisClient, connect
from disstream.model import Record
from disstream.wire.http import JSON
from disstream.wire.pages import ACCEPT, decode_page_columns
from disstream.wire.partitioning import partition_id
from disstream.wire.records import page_decoder

HERE = Path(__file__).parent
VENVS = HERE.parent / ".venv"
PARTITIONS = 4
KEYS = 97
MANY = 2_000
"""Records at a time."""
SDK_SHARE = 20
"""The SDK reads so small a part of the records."""

Decode = Callable[[bytes], tuple[Sequence[Record], str]]
Way = Callable[["Work"], Awaitable[None]]
"""Reads everything; raises unless it was as many records as there are."""


class Work(NamedTuple):
    """What is to be read."""

    dis: DisClient
    url: str
    stream: str
    ends: list[int]
    """How many records are in each partition."""

    @property
    def records(self) -> int:
        return sum(self.ends)


def ceiling(accept: str, decoder: Callable[[str, str], Decode]) -> Way:
    async def run(work: Work) -> None:
        async def read(session: aiohttp.ClientSession, number: int) -> None:
            cursor = await work.dis.cursors.get(work.stream, str(number), "TRIM_HORIZON")
            decode = decoder(work.stream, partition_id(number))
            token, left = str(cursor), work.ends[number]
            while left > 0:
                url = f"{work.url}/v2/demo/records?partition-cursor={token}&max_fetch_bytes=2097152"
                async with session.get(url, headers={"accept": accept}) as answer:
                    records, token = decode(await answer.read())
                made = iter(records)
                while some := list(islice(made, MANY)):
                    left -= len(some)
            assert left == 0

        async with aiohttp.ClientSession() as session, anyio.create_task_group() as tasks:
            for number in range(PARTITIONS):
                tasks.start_soon(read, session, number)

    return run


def _columns(stream: str, partition: str) -> Decode:
    return lambda body: decode_page_columns(body, stream, partition)


async def fetch(work: Work) -> None:
    left = work.records
    async with work.dis.consumer(work.stream) as consumer:
        while left > 0:
            left -= len(await consumer.fetch(max_records=MANY))
    assert left == 0


async def async_for(work: Work) -> None:
    left = work.records
    async with work.dis.consumer(work.stream) as consumer:
        async for _ in consumer:
            left -= 1
            if not left:
                break


def through(body: Body, way: Way) -> Way:
    """The same by a client of its own that reads this form."""

    async def run(work: Work) -> None:
        async with connect(work.url, project_id="demo", config=ClientConfig(body=body)) as dis:
            await way(work._replace(dis=dis))

    return run


CEILING, IN_COLUMNS, SDK = "ceiling", "ceiling in columns", "huaweicloudsdkdis"
WAYS: dict[str, Way] = {
    CEILING: ceiling(JSON, page_decoder),
    IN_COLUMNS: ceiling(ACCEPT, _columns),
    "fetch": fetch,
    "async for": async_for,
    "fetch as JSON": through("json", fetch),
    "async for as JSON": through("json", async_for),
}


class Turn(NamedTuple):
    rate: float
    """Records a second."""
    client_us: float
    """Processor time of the reader per record."""
    server_us: float
    late: Histogram
    """How late its loop was, of every 2 ms."""


class SdkLap(msgspec.Struct):
    records: int
    payload_bytes: int
    seconds: float
    cpu_s: float


async def measure(records: int, size: int, rounds: int, venvs: Path) -> tuple[dict[str, list[Turn]], bool]:
    """Way -> its rounds; and whether the SDK took part."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url, process = await stack.enter_async_context(server(folder / "data", folder))
        dis = await stack.enter_async_context(connect(url, project_id="demo"))
        work = await _written(dis, url, records, size)
        sdk = await stack.enter_async_context(_sdk(venvs, folder))
        gc.collect()
        gc.freeze()
        turns: dict[str, list[Turn]] = {name: [] for name in WAYS}
        if sdk is not None:
            turns[SDK] = []
        for number in range(rounds + 1):
            for name in turns:
                if name != SDK:
                    turn = await _turn(WAYS[name], work, process)
                else:
                    assert sdk is not None
                    turn = await _sdk_turn(sdk, work, size, process)
                print(f"{number}/{rounds} {name:20} {turn.rate:12,.0f} records/s", file=sys.stderr)
                if number:  # the first round warms up
                    turns[name].append(turn)
    return turns, sdk is not None


async def _written(dis: DisClient, url: str, records: int, size: int) -> Work:
    dice = random.Random(1)
    await dis.streams.create("s", partitions=PARTITIONS)
    async with dis.producer("s") as producer:
        for start in range(0, records, MANY):
            some = range(start, min(start + MANY, records))
            await producer.send_many([(dice.randbytes(size), f"key-{n % KEYS}") for n in some])
    info = await dis.streams.describe("s")
    ends = [partition.sequence_range.end for partition in info.partitions if partition.sequence_range]
    work = Work(dis, url, "s", ends)
    assert work.records == records
    total = 0
    async with dis.consumer("s") as consumer:
        for _ in range(records):
            total += len((await anext(consumer)).data)
    assert total == records * size
    return work


async def _turn(way: Way, work: Work, process: Child) -> Turn:
    with Pulse() as pulse:
        theirs = process.cpu_s() or 0.0
        began, used = time.perf_counter(), time.process_time()
        await way(work)
        lasted, used = time.perf_counter() - began, time.process_time() - used
    theirs = (process.cpu_s() or 0.0) - theirs
    each = 1e6 / work.records
    return Turn(work.records / lasted, used * each, theirs * each, pulse.late)


async def _sdk_turn(sdk: Child, work: Work, size: int, process: Child) -> Turn:
    theirs = process.cpu_s() or 0.0
    await sdk.write({"address": work.url, "stream": work.stream, "records": work.records // SDK_SHARE})
    lap = await sdk.read(SdkLap)
    assert lap.records >= work.records // SDK_SHARE
    assert lap.payload_bytes == lap.records * size
    theirs = (process.cpu_s() or 0.0) - theirs
    return Turn(lap.records / lap.seconds, lap.cpu_s / lap.records * 1e6, theirs / lap.records * 1e6, Histogram())


@contextlib.asynccontextmanager
async def _sdk(venvs: Path, folder: Path) -> AsyncIterator[Child | None]:
    """The SDK's process; None: it is not installed."""
    python = venvs / "official" / "bin" / "python"
    if not python.exists():
        yield None
        return
    # It writes logs into its home, and would go through a proxy.
    environment = {"HOME": str(folder), "NO_PROXY": "127.0.0.1", "PYTHONPATH": ""}
    script = str(HERE / "peers" / "read_with_sdk.py")
    async with child("sdk", [str(python), script], folder, environment=environment) as process:
        yield process


def against(turns: Sequence[Turn], others: Sequence[Turn]) -> float:
    """The median of the ratios of the rates, round by round."""
    return statistics.median(turn.rate / other.rate for turn, other in zip(turns, others, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000, help="records of each round (default: 1000000)")
    parser.add_argument("--size", type=int, default=100, help="payload bytes (default: 100)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default: 5)")
    parser.add_argument("--venvs", type=Path, default=VENVS, help="holds official/, the environment of the SDK")
    arguments = parser.parse_args()
    print(f"{describe()}; {arguments.records:,} records of {arguments.size} bytes")
    turns, with_sdk = anyio.run(
        measure,
        arguments.records,
        arguments.size,
        arguments.rounds,
        arguments.venvs,
        backend_options={"use_uvloop": True},
    )
    columns = ["records/s", "MB/s", "client us", "server us", "of ceiling", "in columns", "times SDK"]
    widths = [11, 8, 9, 9, 11, 11, 11]
    header = " ".join(f"{column:>{width}}" for column, width in zip(columns, widths, strict=True))
    print(f"{'':19} {header}    loop late, ms: p50, p99, p99.9")
    for name, rounds in turns.items():
        rate = statistics.median(turn.rate for turn in rounds)
        cells = [
            f"{name:19} {rate:11,.0f} {rate * arguments.size / 1e6:8,.1f}",
            f"{statistics.median(turn.client_us for turn in rounds):9.2f}",
            f"{statistics.median(turn.server_us for turn in rounds):9.2f}",
            f"{against(rounds, turns[CEILING]):11.2f} {against(rounds, turns[IN_COLUMNS]):11.2f}",
            f"{against(rounds, turns[SDK]):11.1f}" if with_sdk else f"{'-':>11}",
        ]
        late = Histogram()
        for turn in rounds:
            late.merge(turn.late)
        if late.count:
            cells.append("   " + ", ".join(f"{late.percentile(share) * 1e3:.1f}" for share in (0.5, 0.99, 0.999)))
        print(" ".join(cells))
    if not with_sdk:
        print("huaweicloudsdkdis took no part: `make bench-peers` installs it")


if __name__ == "__main__":
    main()
