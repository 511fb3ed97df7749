"""What a waiting record costs in memory beside its payload and key: the figure behind RECORD_OVERHEAD.

Fills a producer whose service never answers, keeps every Delivery, and divides the growth of the resident set.

    python benchmarks/producer_memory.py [--records 500000] [--size 10]

Predicted: payload header 33 + delivery 32 + list slots 24 + rounding: about 110 bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import platform
import random
from pathlib import Path

import anyio

from disstream.client import Client, ClientConfig
from disstream.engine.memory import MemoryEngine
from disstream.producer import Producer, ProducerConfig
from disstream.producer.shipment import RECORD_OVERHEAD
from disstream.server import App, ServerConfig
from disstream.testing.network import AppTransport
from disstream.wire.http import Request, Response


class Silent:
    """Answers everything but puts."""

    def __init__(self, inner: AppTransport) -> None:
        self._inner = inner

    async def exchange(self, request: Request) -> Response:
        if request.target.endswith("/records"):
            await anyio.sleep_forever()
        return await self._inner.exchange(request)

    async def close(self) -> None:
        await self._inner.close()


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def measure(records: int, size: int) -> float:
    engine = MemoryEngine()
    await engine.start()
    transport = Silent(AppTransport(App(engine, ServerConfig(data_dir=None))))
    dice = random.Random(1)
    keys = [f"key-{i}" for i in range(97)]
    async with Client(transport, "demo", ClientConfig()) as client:
        await client.streams.create("s", partitions=4)
        producer = Producer(client, "s", ProducerConfig(buffer_bytes=1 << 40))
        await producer.start()
        gc.collect()
        before = resident_bytes()
        kept = [await producer.send(dice.randbytes(size), key=keys[i % 97]) for i in range(records)]
        gc.collect()
        grown = resident_bytes() - before
        await producer.abort()
        assert len(kept) == records
    await engine.close()
    return grown / records - size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=500_000, help="records to keep waiting (default: 500000)")
    parser.add_argument("--size", type=int, default=10, help="payload bytes (default: 10)")
    arguments = parser.parse_args()
    cost = asyncio.run(measure(arguments.records, arguments.size))
    print(f"{platform.machine()}, CPython {platform.python_version()}, {os.cpu_count()} cores")
    print(f"{arguments.records} waiting records of {arguments.size} bytes: {cost:.0f} bytes each beside the payload")
    print(f"counted by the byte budget: {RECORD_OVERHEAD} bytes")


if __name__ == "__main__":
    main()
