"""An engine that is told what to do: `python storage_victim.py DIRECTORY DURABILITY`, one command a line on stdin.

    append BYTES    -> ok SEQUENCE           of a row that is its sequence number in 8 bytes, filled up
    put KEY         -> ok                    a catalog transaction
    trim BEFORE     -> ok
    read            -> ok NEXT               reads all there is, each row as it was appended
    failed          -> ok REASON             once the engine has stopped
    close           -> ok

What raises a StorageError is answered with its class and text instead.
"""

from __future__ import annotations

import asyncio
import sys

from disstream.engine.api import Entry, PartitionRef, Row
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine
from disstream.errors import StorageError

A = PartitionRef("s", 0)


async def obey(engine: EmbeddedEngine, verb: str, words: list[str]) -> object:
    (bounds,) = await engine.log.bounds([A]) if verb in ("append", "read") else [None]
    if verb == "append":
        assert bounds is not None
        row = Row(bounds.next.to_bytes(8, "big") + bytes(int(words[0])))
        return (await engine.log.append([Entry(A, [row], 1)], 1))[0]
    if verb == "put":
        await engine.catalog.transact({}, {words[0]: b"v"})
    elif verb == "trim":
        await engine.log.trim(A, int(words[0]))
    elif verb == "read":
        assert bounds is not None
        number = bounds.oldest
        while number < bounds.next:
            for batch in await engine.log.read(A, number, 1 << 22):
                for row in batch.rows:
                    assert row.data[:8] == number.to_bytes(8, "big")
                    number += 1
        return number
    elif verb == "failed":
        try:
            await engine.wait_failed()
        except StorageError as exc:
            return exc
    else:
        await engine.close()
    return ""


async def main(directory: str, durability: str) -> None:
    config = EmbeddedConfig(
        durability="relaxed" if durability == "relaxed" else "fsync",
        map_size_bytes=1 << 30,
        sync_interval_s=0.001,
        ballast_bytes=1 << 20,
    )
    engine = EmbeddedEngine(directory, config)
    await engine.start()
    await engine.log.open({A: 1})
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        verb, *words = line.split()
        try:
            print("ok", await obey(engine, verb, words), flush=True)
        except StorageError as exc:
            print(type(exc).__name__, exc, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
