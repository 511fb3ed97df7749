"""redis-py (with hiredis) on Redis Streams: pipelines of 1,000 XADD without MULTI, blocking or in asyncio.

A partition is a stream of its own. In asyncio each of the four has a connection and a pipeline of its own under way.
"""

from __future__ import annotations

import asyncio

import redis
import redis.asyncio
import uvloop
from lap import PARTITIONS, Lap, Outcome, Pairs, Stopwatch, compete, partition_of

BATCH = 1_000


def _run(lap: Lap) -> Outcome:
    streams = [f"{lap.name}-{i}" for i in range(PARTITIONS)]
    client = redis.Redis.from_url(lap.address)
    acknowledged, watch = (
        uvloop.run(_together(lap, streams)) if lap.way == "asyncio" else _in_turn(lap, streams, client)
    )
    stored = sum(client.xlen(stream) for stream in streams)
    client.delete(*streams)
    client.close()
    return watch.outcome(acknowledged, stored)


def _in_turn(lap: Lap, streams: list[str], client: redis.Redis) -> tuple[int, Stopwatch]:
    acknowledged = 0
    watch = Stopwatch()
    for start in range(0, len(lap.pairs), BATCH):
        pipeline = client.pipeline(transaction=False)
        for data, key in lap.pairs[start : start + BATCH]:
            pipeline.xadd(streams[partition_of(key)], {key: data})
        acknowledged += len(pipeline.execute())  # raises if one was refused
    watch.stop()
    return acknowledged, watch


async def _together(lap: Lap, streams: list[str]) -> tuple[int, Stopwatch]:
    client = redis.asyncio.Redis.from_url(lap.address)
    await client.ping()

    async def send(stream: str, pairs: Pairs) -> int:
        acknowledged = 0
        for start in range(0, len(pairs), BATCH):
            pipeline = client.pipeline(transaction=False)
            for data, key in pairs[start : start + BATCH]:
                pipeline.xadd(stream, {key: data})
            acknowledged += len(await pipeline.execute())
        return acknowledged

    lanes: list[Pairs] = [[] for _ in range(PARTITIONS)]
    for pair in lap.pairs:
        lanes[partition_of(pair[1])].append(pair)
    watch = Stopwatch()
    acknowledged = sum(await asyncio.gather(*map(send, streams, lanes)))
    watch.stop()
    await client.aclose()
    return acknowledged, watch


if __name__ == "__main__":
    compete(_run)
