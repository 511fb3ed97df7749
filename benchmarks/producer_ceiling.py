"""How close the producer comes to hand-written senders on the same server, in one run.

A ceiling does what cannot be avoided and nothing else: it knows beforehand which records belong together, encodes a
request with the same library, posts it over aiohttp with one request per partition in flight, and decodes the answer.
No budget, no lanes, no retries, no receipts. One writes the JSON that any DIS takes, a thousand records a request. The
other writes what the producer writes to a server of ours: columns, as many records a request as the producer's own, and
asks for the short answer; the producer too runs in both forms. `send` awaits a receipt of every record (while the next
ones are under way), `send_many` one of every 1,000. All in turn, so that a machine that drifts slows all of them.

    python benchmarks/producer_ceiling.py [--records 300000] [--size 100] [--rounds 5]

Predicted (100 bytes): send 0.6 of the JSON ceiling, send_many 0.85; half of the ceiling in columns.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import aiohttp
import anyio

from disstream.bench.machine import describe
from disstream.bench.processes import server
from disstream.bench.writing import WAITING
from disstream.client import ClientConfig
from disstream.door import DisClient, connect
from disstream.model import NewRecord
from disstream.producer import Delivery, ProducerConfig
from disstream.wire import places
from disstream.wire.columns import COLUMNS, NewColumns, encode_columns
from disstream.wire.http import JSON
from disstream.wire.partitioning import HashRouter, hash_key, hash_ranges
from disstream.wire.records import decode_put_answer, encode_put

PARTITIONS = 4
KEYS = 97
BATCH = 1_000
LARGE_BATCH = ProducerConfig().max_batch_records

Pairs = list[tuple[bytes, str]]


class Work(NamedTuple):
    """Records to write to a stream that exists."""

    stream: str
    pairs: Pairs
    lanes: list[Pairs]
    """The same, by partition: what the ceiling knows beforehand."""

    @classmethod
    def of(cls, stream: str, pairs: Pairs) -> Work:
        router = HashRouter(enumerate(hash_ranges(PARTITIONS)))
        lanes: list[Pairs] = [[] for _ in range(PARTITIONS)]
        for data, key in pairs:
            lanes[router.owner(hash_key(key)) or 0].append((data, key))
        return cls(stream, pairs, lanes)


Way = Callable[[DisClient, str, Work], Awaitable[None]]
"""Given a client and the server's URL, writes everything; raises unless each record was acknowledged."""


async def ceiling(dis: DisClient, url: str, work: Work) -> None:
    async def send(lane: Pairs) -> None:
        for start in range(0, len(lane), BATCH):
            rows = [NewRecord(data, key) for data, key in lane[start : start + BATCH]]
            body = encode_put(work.stream, rows)
            async with session.post(f"{url}/v2/demo/records", data=body, headers={"content-type": JSON}) as answer:
                assert len(decode_put_answer(await answer.read())) == len(rows)

    async with aiohttp.ClientSession() as session, anyio.create_task_group() as tasks:
        for lane in work.lanes:
            tasks.start_soon(send, lane)


async def ceiling_in_columns(dis: DisClient, url: str, work: Work) -> None:
    async def send(lane: Pairs) -> None:
        headers = {"content-type": COLUMNS, places.HEADER: places.EXTENSION}
        for start in range(0, len(lane), LARGE_BATCH):
            some = lane[start : start + LARGE_BATCH]
            body = encode_columns(work.stream, NewColumns([data for data, _ in some], [key for _, key in some]))
            async with session.post(f"{url}/v2/demo/records", data=body, headers=headers) as answer:
                told = places.decode_places(await answer.read())
                assert told is not None
                assert sum(place.records for place in told) == len(some)

    async with aiohttp.ClientSession() as session, anyio.create_task_group() as tasks:
        for lane in work.lanes:
            tasks.start_soon(send, lane)


async def one_by_one(dis: DisClient, url: str, work: Work) -> None:
    pairs = work.pairs
    waiting: deque[list[Delivery]] = deque()
    async with dis.producer(work.stream) as producer:
        for i in range(0, len(pairs), BATCH):
            waiting.append([await producer.send(data, key=key) for data, key in pairs[i : i + BATCH]])
            if len(waiting) > WAITING:
                for delivery in waiting.popleft():
                    await delivery
        for deliveries in waiting:
            for delivery in deliveries:
                await delivery


async def by_the_thousand(dis: DisClient, url: str, work: Work) -> None:
    pairs = work.pairs
    async with dis.producer(work.stream) as producer:
        batches = [await producer.send_many(pairs[i : i + BATCH]) for i in range(0, len(pairs), BATCH)]
        for batch in batches:
            await batch


def as_json(way: Way) -> Way:
    """The same by a client that writes nothing but JSON."""

    async def run(dis: DisClient, url: str, work: Work) -> None:
        async with connect(url, project_id="demo", config=ClientConfig(body="json")) as plain:
            await way(plain, url, work)

    return run


WAYS: dict[str, Way] = {
    "ceiling": ceiling,
    "ceiling in columns": ceiling_in_columns,
    "send": one_by_one,
    "send_many": by_the_thousand,
    "send as JSON": as_json(one_by_one),
    "send_many as JSON": as_json(by_the_thousand),
}


async def measure(records: int, size: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Way -> (records/s, microseconds of processor time of this process a record) of each round."""
    dice = random.Random(1)
    pairs = [(dice.randbytes(size), f"key-{dice.randrange(KEYS)}") for _ in range(records)]
    figures: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        async with server(folder / "data", folder) as (url, _), connect(url, project_id="demo") as dis:
            await dis.streams.create("s", partitions=PARTITIONS)
            work = Work.of("s", pairs)
            for turn in range(rounds + 1):
                for name, way in WAYS.items():
                    began, used = time.perf_counter(), time.process_time()
                    await way(dis, url, work)
                    lasted = time.perf_counter() - began
                    if turn:  # the first round warms up
                        figures[name].append((records / lasted, (time.process_time() - used) / records * 1e6))
    return figures


def against(rounds: list[tuple[float, float]], others: list[tuple[float, float]]) -> float:
    """The median of the ratios of the rates, round by round."""
    return statistics.median(rate / other for (rate, _), (other, _) in zip(rounds, others, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=300_000, help="records of each way and round (default: 300000)")
    parser.add_argument("--size", type=int, default=100, help="payload bytes (default: 100)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default: 5)")
    arguments = parser.parse_args()
    print(describe())
    figures = anyio.run(
        measure, arguments.records, arguments.size, arguments.rounds, backend_options={"use_uvloop": True}
    )
    for name, rounds in figures.items():
        rate = statistics.median(rate for rate, _ in rounds)
        cost = statistics.median(cost for _, cost in rounds)
        ratio = against(rounds, figures["ceiling"])
        in_columns = against(rounds, figures["ceiling in columns"])
        print(
            f"{name:18} {rate:10,.0f} records/s {cost:6.2f} us of client CPU a record "
            f"{ratio:6.2f} of the ceiling {in_columns:6.2f} of that in columns"
        )


if __name__ == "__main__":
    main()
