"""A producer at full speed while the service is down for an hour: what it holds in memory, on the virtual clock.

120 tasks send as fast as they are let and await every receipt, and nothing is ever stored. An hour of virtual time
passes. The buffer fills, expires after two minutes, and fills anew: the resident set is looked at every ten seconds;
what counts is the most of each two minutes, after the first.

    python benchmarks/outage.py [--seconds 3600] [--png FILE] [--json FILE]

Predicted: flat within 5 %: buffer_bytes (32 MiB) and what the interpreter holds. Ends with 1 if it is not.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

import anyio
import anyio.lowlevel

from disstream.bench.machine import describe
from disstream.client import Client, ClientConfig
from disstream.engine.memory import MemoryEngine
from disstream.errors import BufferFull, NotStored, TransportError
from disstream.producer import Delivery, Producer, ProducerConfig
from disstream.server import App, ServerConfig
from disstream.testing.clock import run_simulated
from disstream.testing.network import AppTransport
from disstream.wire.http import Request, Response

ALLOWED = 0.05
CYCLE_S = ProducerConfig().delivery_timeout_s


class Outage:
    """Answers everything but puts, for which nobody is there."""

    def __init__(self, inner: AppTransport) -> None:
        self._inner = inner

    async def exchange(self, request: Request) -> Response:
        if request.target.endswith("/records"):
            await anyio.sleep(0.001)
            raise TransportError("connection refused", outcome_unknown=False)
        return await self._inner.exchange(request)

    async def close(self) -> None:
        await self._inner.close()


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def feed(producer: Producer, number: int, ends: Counter[str]) -> None:
    payload = random.Random(number).randbytes(100)
    deliveries: list[Delivery] = []
    while True:
        try:
            deliveries.append(await producer.send(payload, key=f"key-{len(deliveries) % 97}"))
        except BufferFull:
            ends["buffer full"] += 1
        if len(deliveries) >= 1_000:
            for delivery in deliveries:
                try:
                    await delivery
                except NotStored:
                    ends["not stored"] += 1
            deliveries.clear()


async def outage(seconds: float) -> tuple[list[tuple[float, float]], Counter[str]]:
    engine = MemoryEngine()
    await engine.start()
    seen: list[tuple[float, float]] = []
    ends: Counter[str] = Counter()
    async with Client(Outage(AppTransport(App(engine, ServerConfig(data_dir=None)))), "demo", ClientConfig()) as client:
        await client.streams.create("s", partitions=4)
        producer = await Producer(client, "s", ProducerConfig()).start()
        async with anyio.create_task_group() as tasks:
            for number in range(120):
                tasks.start_soon(feed, producer, number, ends)
            began = anyio.current_time()
            while (now := anyio.current_time() - began) < seconds:
                most = 0.0
                for _ in range(12):
                    await anyio.sleep(CYCLE_S / 12)
                    most = max(most, resident_mb())
                gc.collect()
                seen.append((now + CYCLE_S, most))
            tasks.cancel_scope.cancel()
        await producer.abort()
    await engine.close()
    return seen, ends


def write_png(seen: list[tuple[float, float]], path: Path) -> None:
    """Raises ImportError without matplotlib (`pip install disstream[demo]`)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.8), dpi=130, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.plot([at / 60 for at, _ in seen], [mb for _, mb in seen], color="#1f6f8b", linewidth=2)
    axes.set_ylim(0, max(mb for _, mb in seen) * 1.2)
    axes.set_xlabel("virtual minutes without the service")
    axes.set_ylabel("resident set, MB")
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3_600.0, help="of virtual time (default: 3600)")
    parser.add_argument("--png", type=Path, help="draw the resident set over time")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    print(describe())
    cpu = time.process_time()
    seen, ends = run_simulated(lambda: outage(arguments.seconds))
    settled = [mb for at, mb in seen if at > CYCLE_S + 1.0]
    middle = sorted(settled)[len(settled) // 2]
    swing = max(abs(mb - middle) for mb in settled) / middle
    print(f"{arguments.seconds:,.0f} virtual seconds in {time.process_time() - cpu:.0f} s of processor time")
    print(f"ends: {', '.join(f'{count:,} {end}' for end, count in sorted(ends.items()))}")
    print(f"resident set: {min(settled):.0f} to {max(settled):.0f} MB, within {swing:.1%} of the median")
    if arguments.png:
        write_png(seen, arguments.png)
    if arguments.json:
        told = {"machine": describe(), "command": sys.argv, "resident_mb": seen, "ends": ends, "swing": swing}
        arguments.json.write_text(json.dumps(told, indent=1))
    sys.exit(swing > ALLOWED)


if __name__ == "__main__":
    main()
