"""A server with limits, a producer and loads per partition, on the virtual clock: for tests of pace and shares."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio

from disstream.client import Client, ClientConfig
from disstream.engine.memory import MemoryEngine
from disstream.producer import Delivery, Producer, ProducerConfig
from disstream.server import App, ServerConfig
from disstream.testing.network import AppTransport
from disstream.wire.http import Request, Response
from disstream.wire.partitioning import HashRouter, hash_key, hash_ranges


def keys_of(partitions: int, each: int) -> list[list[str]]:
    """`each` keys for every partition of a fresh stream."""
    router = HashRouter(list(enumerate(hash_ranges(partitions))))
    found: list[list[str]] = [[] for _ in range(partitions)]
    number = 0
    while min(map(len, found)) < each:
        owner = router.owner(hash_key(f"k{number}"))
        assert owner is not None
        if len(found[owner]) < each:
            found[owner].append(f"k{number}")
        number += 1
    return found


class Service(AppTransport):
    """The way to the server. If `foreign`, nothing shows that it is ours. What `put` answers stands for the server."""

    def __init__(self, app: App, *, foreign: bool = False) -> None:
        super().__init__(app, latency_s=0.004)
        self._foreign = foreign
        self.puts: list[float] = []

    async def put(self, request: Request) -> Response | None:
        return None

    async def exchange(self, request: Request) -> Response:
        answer = None
        if request.target.endswith("/records"):
            self.puts.append(anyio.current_time())
            answer = await self.put(request)
        answer = answer or await super().exchange(request)
        if self._foreign:
            answer.headers = {name: value for name, value in answer.headers.items() if "disstream" not in name}
        return answer


@asynccontextmanager
async def producing(
    limits: Mapping[str, Any],
    *,
    partitions: int = 4,
    service: type[Service] = Service,
    foreign: bool = False,
    **options: Any,
) -> AsyncIterator[tuple[Producer, Service]]:
    """A producer to a fresh stream. Aborted at the end: what still waits does not matter."""
    engine = MemoryEngine()
    await engine.start()
    transport = service(App(engine, ServerConfig(data_dir=None, **limits)), foreign=foreign)
    async with Client(transport, "demo", ClientConfig()) as client:
        await client.streams.create("s", partitions=partitions)
        producer = await Producer(client, "s", ProducerConfig(**options), rng=random.Random(1)).start()
        try:
            yield producer, transport
        finally:
            await producer.abort()
            await transport.settle()
    await engine.close()


async def saturate(producer: Producer, keys: list[str], size: int) -> None:
    """As much as it takes, until cancelled."""
    number = 0
    while True:
        await producer.send(b"x" * size, key=keys[number % len(keys)])
        number += 1


async def steady(producer: Producer, keys: list[str], per_s: float, latencies: list[float]) -> None:
    """So many records a second, until cancelled; how long each took to be stored."""

    async def watch(delivery: Delivery, sent: float) -> None:
        await delivery
        latencies.append(anyio.current_time() - sent)

    async with anyio.create_task_group() as tasks:
        number = 0
        while True:
            sent = anyio.current_time()
            tasks.start_soon(watch, await producer.send(b"x" * 100, key=keys[number % len(keys)]), sent)
            number += 1
            await anyio.sleep(1 / per_s)
