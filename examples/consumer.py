"""Reads all orders, until none came for a second. Needs DISSTREAM_ENDPOINT and DISSTREAM_PROJECT_ID."""

import asyncio
from collections import Counter

import disstream


async def main() -> None:
    orders: Counter[str | None] = Counter()
    async with disstream.connect() as dis, dis.consumer("orders") as consumer:
        while batch := await consumer.fetch(max_records=500, timeout_s=1.0):
            for record in batch:  # in order within a partition, so in order within a key
                orders[record.key] += 1
    for customer, count in sorted(orders.items(), key=str):
        print(customer, count)


asyncio.run(main())
