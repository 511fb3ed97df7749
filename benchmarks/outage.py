"""A producer at full speed while the service is down for an hour: what it holds in memory, on the virtual clock.

120 tasks send as fast as they are let and await every receipt, and nothing is ever stored. An hour of virtual time
passes. The buffer fills, expires after two minutes, and fills anew. What counts of each two minutes is the most that
was resident at any moment: the system's own mark (VmHWM), which is set back after each look, so no moment is missed
between two. The first two minutes fill what there is to fill, and do not count.

    python benchmarks/outage.py [--seconds 3600] [--service refuses|silent] [--senders 120] [--png FILE] [--json FILE]

Predicted: flat within 5 %: buffer_bytes (32 MiB) and what the interpreter holds. Ends with 1 if it is not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

import anyio
import anyio.lowlevel

from disstream.bench.machine import describe
from disstream.client import Client, ClientConfig
from disstream.engine.memory import MemoryEngine
from disstream.errors import BufferFull, DeliveryUnknown, NotStored, TransportError
from disstream.producer import Delivery, Producer, ProducerConfig
from disstream.server import App, ServerConfig
from disstream.testing.clock import run_simulated
from disstream.testing.network import AppTransport
from disstream.wire.http import Request, Response

ALLOWED = 0.05
CYCLE_S = ProducerConfig().delivery_timeout_s
LEAST_S = 3 * CYCLE_S
"""One cycle does not count, and two are the least that can differ."""
CYCLES_A_ROW = 10
TOLD = {"refuses": "refuses puts at once", "silent": "takes puts and never answers"}


class Outage:
    """Answers everything but puts. Those it refuses at once; `silent`: it takes them, and never answers."""

    def __init__(self, inner: AppTransport, silent: bool) -> None:
        self._inner = inner
        self._silent = silent

    async def exchange(self, request: Request) -> Response:
        if not request.target.endswith("/records"):
            return await self._inner.exchange(request)
        if self._silent:
            await anyio.sleep(request.timeout_s or 0.0)
            raise TransportError("no answer in time", outcome_unknown=True)
        await anyio.sleep(0.001)
        raise TransportError("connection refused", outcome_unknown=False)

    async def close(self) -> None:
        await self._inner.close()


def most_resident_mb() -> float:
    """The most that was resident since the last call."""
    lines = Path("/proc/self/status").read_text().splitlines()
    most = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): sets the mark back to what is resident now
    return most


async def feed(producer: Producer, number: int, ends: Counter[str]) -> None:
    dice = random.Random(number)
    deliveries: list[Delivery] = []
    while True:
        try:
            deliveries.append(await producer.send(dice.randbytes(100), key=f"key-{len(deliveries) % 97}"))
        except BufferFull:
            ends["buffer full"] += 1
        if len(deliveries) >= 1_000:
            for delivery in deliveries:
                try:
                    await delivery
                except NotStored:
                    ends["not stored"] += 1
                except DeliveryUnknown:
                    ends["unknown"] += 1
            deliveries.clear()


async def outage(seconds: float, silent: bool, senders: int) -> tuple[float, list[tuple[float, float]], Counter[str]]:
    """What was resident before the first record; the most of each cycle, and when it ended; the ends of records."""
    engine = MemoryEngine()
    await engine.start()
    seen: list[tuple[float, float]] = []
    ends: Counter[str] = Counter()
    transport = Outage(AppTransport(App(engine, ServerConfig(data_dir=None))), silent)
    async with Client(transport, "demo", ClientConfig()) as client:
        await client.streams.create("s", partitions=4)
        producer = await Producer(client, "s", ProducerConfig()).start()
        most_resident_mb()
        before = most_resident_mb()
        async with anyio.create_task_group() as tasks:
            for number in range(senders):
                tasks.start_soon(feed, producer, number, ends)
            began = anyio.current_time()
            while (now := anyio.current_time() - began) < seconds:
                await anyio.sleep(CYCLE_S)
                seen.append((now + CYCLE_S, most_resident_mb()))
            tasks.cancel_scope.cancel()
        await producer.abort()
    await engine.close()
    return before, seen, ends


def write_png(seen: list[tuple[float, float]], path: Path) -> None:
    """Raises ImportError without matplotlib (`pip install disstream[demo]`)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.8), dpi=130, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.plot([at / 60 for at, _ in seen], [mb for _, mb in seen], color="#1f6f8b", linewidth=2)
    axes.set_ylim(0, max(mb for _, mb in seen) * 1.2)
    axes.set_xlabel("virtual minutes without the service")
    axes.set_ylabel("most resident, MB")
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3_600.0, help="of virtual time (default: 3600)")
    parser.add_argument("--service", choices=["refuses", "silent"], default="refuses", help="what becomes of puts")
    parser.add_argument("--senders", type=int, default=120, help="tasks with a thousand records each (default: 120)")
    parser.add_argument("--png", type=Path, help="draw the resident set over time")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    if arguments.seconds < LEAST_S:
        parser.error(f"--seconds {arguments.seconds:g}: at least {LEAST_S:g}, three cycles of the buffer")
    if not os.access("/proc/self/clear_refs", os.W_OK):
        parser.error("this system does not tell the most that was resident (/proc/self/clear_refs): run it on Linux")
    print(describe())
    cpu = time.process_time()
    before, seen, ends = run_simulated(
        lambda: outage(arguments.seconds, arguments.service == "silent", arguments.senders)
    )
    settled = [mb for _, mb in seen[1:]]
    middle = statistics.median(settled)
    swing = max(abs(mb - middle) for mb in settled) / middle
    told = f"{arguments.seconds:,.0f} virtual seconds, a service that {TOLD[arguments.service]}"
    print(f"{told}; {time.process_time() - cpu:.0f} s of processor time")
    print(f"ends: {', '.join(f'{count:,} {end}' for end, count in sorted(ends.items()))}")
    print(f"resident before the first record: {before:.1f} MB; most of each {CYCLE_S:g} s, MB:")
    for row in range(0, len(seen), CYCLES_A_ROW):
        print("".join(f"{mb:8.1f}" for _, mb in seen[row : row + CYCLES_A_ROW]))
    print(
        f"after the first: {min(settled):.1f} to {max(settled):.1f} MB, within {swing:.1%} of the median "
        f"(the last against the second: {settled[-1] / settled[0] - 1:+.1%}); "
        f"flat within {ALLOWED:.0%}: {'yes' if swing <= ALLOWED else 'NO'}"
    )
    if arguments.png:
        write_png(seen, arguments.png)
    if arguments.json:
        figures = {"before_mb": before, "most_resident_mb": seen, "ends": ends, "swing": swing}
        arguments.json.write_text(json.dumps({"machine": describe(), "command": sys.argv, **figures}, indent=1))
    sys.exit(swing > ALLOWED)


if __name__ == "__main__":
    main()
