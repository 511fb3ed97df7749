"""Sends a thousand orders. Needs DISSTREAM_ENDPOINT and DISSTREAM_PROJECT_ID."""

import asyncio

import disstream


async def main() -> None:
    async with disstream.connect() as dis:
        try:
            await dis.streams.create("orders", partitions=4)
        except disstream.ConflictError:
            print("the stream is there already")
        async with dis.producer("orders") as producer:
            for number in range(999):
                await producer.send(f"order {number}", key=f"customer-{number % 10}")  # waits for room only
            receipt = await producer.send_and_wait("order 999", key="customer-9")  # waits until it is stored
            print(f"the last one is in {receipt.partition_id} at {receipt.sequence_number}")


asyncio.run(main())
