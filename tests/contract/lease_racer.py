"""A process that changes rows of a lease store: `python lease_racer.py ADDRESS count NUMBER` or `... ADDRESS endless`.

count      adds one to the row "counter", against everybody who does so too, until it did so NUMBER times
endless    adds one to the row "endless" until it is killed

Each line on stdout is a number that it wrote, and that was answered.
"""

from __future__ import annotations

import asyncio
import sys

from disstream.leases import LeaseStore, Swap, lease_store


async def add_one(store: LeaseStore, key: str) -> int | None:
    row = (await store.read("race", key)).get(key)
    number = int(row.text) + 1 if row else 1
    (version,) = await store.swap("race", [Swap(key, row and row.version, str(number))])
    return None if version is None else number


async def main(address: str, what: str, number: int) -> None:
    store = lease_store(address)
    await store.start()
    left = number
    while what == "endless" or left:
        written = await add_one(store, "endless" if what == "endless" else "counter")
        if written is not None:
            left -= 1
            print(written, flush=True)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0))
