"""A producer against a server with the limits of the service: what is stored of what it takes, what is refused.

Runs on fresh streams of 4 COMMON partitions (1,000 records/s and 1 MiB/s each), on a durable server in a process of its
own:

    saturated   every partition gets as much as the producer accepts
    calm        three get 300 records/s each, one gets nothing: how long do receipts take?
    hot         the same three, and the fourth gets as much as the producer accepts
    unpaced     as `hot` with `pace=None`: only back-off

    python benchmarks/pacing.py [--seconds 60] [--size 100] [--json FILE]
    python benchmarks/pacing.py --sketch        # what counting hot keys costs a record

Predicted: saturated 100 % of the cap plus half a second's worth, nothing refused; hot: p50 and p99
of the three as when calm. Unpaced: half of the records refused at least once, and the others wait behind them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio

import disstream
from disstream.bench.machine import describe
from disstream.bench.processes import START_TIMEOUT_S, child
from disstream.producer.sketch import KeySketch
from disstream.wire.partitioning import HashRouter, hash_key, hash_ranges

PARTITIONS = 4
CAP_RECORDS, CAP_BYTES = 1_000, 1_048_576
KEYS = 20
MODERATE = 300


def keys_of_partitions() -> list[list[str]]:
    router = HashRouter(list(enumerate(hash_ranges(PARTITIONS))))
    found: list[list[str]] = [[] for _ in range(PARTITIONS)]
    number = 0
    while min(map(len, found)) < KEYS:
        owner = router.owner(hash_key(f"key-{number}"))
        assert owner is not None
        found[owner].append(f"key-{number}")
        number += 1
    return [keys[:KEYS] for keys in found]


async def saturate(producer: disstream.Producer, keys: list[str], payload: bytes) -> None:
    number = 0
    while True:
        await producer.send(payload, key=keys[number % KEYS])
        number += 1


async def steady(producer: disstream.Producer, keys: list[str], payload: bytes, took: list[float]) -> None:
    """Open loop: each record is sent at its time, and its latency counts from there."""

    async def one(due: float, key: str) -> None:
        await producer.send_and_wait(payload, key=key)
        took.append(anyio.current_time() - due)

    async with anyio.create_task_group() as tasks:
        due = anyio.current_time()
        number = 0
        while True:
            await anyio.sleep_until(due)
            tasks.start_soon(one, due, keys[number % KEYS])
            number += 1
            due += 1 / MODERATE


async def run(url: str, name: str, seconds: float, size: int) -> dict[str, Any]:
    config = disstream.ProducerConfig(pace=None) if name == "unpaced" else disstream.ProducerConfig()
    payload, took = random.Random(1).randbytes(size), list[float]()
    async with disstream.connect(url, project_id="bench") as dis:
        await dis.streams.create(name, partitions=PARTITIONS)
        producer = await dis.producer(name, config).start()
        cpu = time.process_time()
        with anyio.move_on_after(seconds):
            async with anyio.create_task_group() as tasks:
                for number, keys in enumerate(keys_of_partitions()):
                    if name == "saturated" or (number == 0 and name != "calm"):
                        tasks.start_soon(saturate, producer, keys, payload)
                    elif number:
                        tasks.start_soon(steady, producer, keys, payload, took)
        cpu = time.process_time() - cpu
        stats = producer.stats()
        await producer.abort()
        await dis.streams.delete(name)
    cap = min(CAP_RECORDS, CAP_BYTES / size)
    full = {"saturated": PARTITIONS, "calm": 0}.get(name, 1)
    wanted = full * cap + (0 if name == "saturated" else PARTITIONS - 1) * MODERATE
    took.sort()
    return {
        "run": name,
        "seconds": seconds,
        "stored": stats.stored,
        "of_load": stats.stored / (wanted * seconds),
        "refused": stats.refused_attempts / max(stats.stored, 1),
        "requests_per_s": stats.requests / seconds,
        "cpu_us_per_record": cpu / max(stats.stored, 1) * 1e6,
        "others_p50_ms": took[len(took) // 2] * 1e3 if took else None,
        "others_p99_ms": took[int(len(took) * 0.99)] * 1e3 if took else None,
        "hot_per_s": stats.partitions[0].stored_per_s,
        "hot_waiting_bytes": stats.partitions[0].waiting_bytes,
    }


async def measure(seconds: float, size: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        arguments = ["disstream", "serve", "--port", "0", "--limits", "service", "--data-dir", str(directory / "data")]
        async with child("server", arguments, directory) as server:
            with anyio.fail_after(START_TIMEOUT_S):
                url = (await server.read_line()).decode().split()[1]
            return [await run(url, kind, seconds, size) for kind in ("saturated", "calm", "hot", "unpaced")]


def sketch() -> None:
    dice = random.Random(2)
    for label, spread in (("97 keys", 97), ("100,000 keys", 100_000)):
        batches = [[f"k{dice.randrange(spread)}" for _ in range(1_000)] for _ in range(200)]
        keys = KeySketch()
        began = time.process_time()
        for round_ in range(10):
            for requested in batches:
                keys.feed(requested, float(round_))
        print(f"counting hot keys, {label}: {(time.process_time() - began) / 2e6 * 1e9:.1f} ns per record")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each run (default: 60)")
    parser.add_argument("--size", type=int, default=100, help="payload bytes (default: 100)")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--sketch", action="store_true", help="only what the summary of keys costs")
    arguments = parser.parse_args()
    print(describe())
    if arguments.sketch:
        sketch()
        return
    runs = asyncio.run(measure(arguments.seconds, arguments.size))
    print(f"{'':>10} {'stored':>8} {'of load':>7} {'refused':>8} {'req/s':>7} {'others p50':>11} {'others p99':>11}")
    for told in runs:
        times = [f"{told[f'others_{p}_ms']:.1f} ms" if told[f"others_{p}_ms"] else "-" for p in ("p50", "p99")]
        print(
            f"{told['run']:>10} {told['stored']:>8,} {told['of_load']:>7.1%} {told['refused']:>8.2%} "
            f"{told['requests_per_s']:>7.1f} {times[0]:>11} {times[1]:>11}"
        )
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"machine": describe(), "command": sys.argv, "size": arguments.size, "runs": runs}, indent=1)
        )


if __name__ == "__main__":
    main()
