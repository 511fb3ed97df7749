"""Bills orders, each customer's in order, many customers at once. Ctrl-C stops it when calls under way have ended.

Or without the last lines: disstream worker handlers:bill --stream orders --app invoices --concurrency 32
"""

import asyncio

import disstream


async def bill(record: disstream.Record) -> None:
    print(record.key, record.text(), flush=True)  # what raises is tried again; what returned is committed


async def main() -> None:
    config = disstream.WorkerConfig(streams=["orders"], app="invoices", concurrency=32, order="key")
    async with disstream.connect() as dis:
        await disstream.Worker(dis, bill, config).run()


if __name__ == "__main__":
    asyncio.run(main())
