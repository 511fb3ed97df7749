"""Reads the orders that are new to the app "billing", shared with all other workers of it. Ctrl-C stops it.

Needs DISSTREAM_ENDPOINT and DISSTREAM_PROJECT_ID.
"""

import asyncio
from contextlib import suppress

import disstream


async def main() -> None:
    async with disstream.connect() as dis, dis.consumer("orders", app="billing") as consumer:
        async for record in consumer:  # asking for the next one finishes a record
            print(record.key, record.text(), flush=True)


with suppress(KeyboardInterrupt):
    asyncio.run(main())
