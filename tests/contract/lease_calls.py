"""What tests of lease stores do with them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from disstream.errors import DisError
from disstream.leases import LeaseStore, PostgresLeases, RedisLeases, Swap

# Long enough for a busy machine to answer, short enough to wait for in a test.
PATIENCE_S = 2.0


def store_of(url: str, name: str, timeout_s: float = PATIENCE_S) -> LeaseStore:
    if url.startswith("redis"):
        return RedisLeases(url, prefix=f"{name}:", timeout_s=timeout_s)
    return PostgresLeases(url, table=name, timeout_s=timeout_s)


@contextlib.asynccontextmanager
async def opened(store: LeaseStore) -> AsyncIterator[LeaseStore]:
    await store.start()
    try:
        yield store
    finally:
        await store.close()


async def failure(call: Any) -> DisError:
    """What it raises, within a bound."""
    with pytest.raises(DisError) as caught:
        async with asyncio.timeout(60):
            await call
    return caught.value


async def change(store: LeaseStore, key: str, expected: int | None, text: str | None) -> int | None:
    (version,) = await store.swap("app", [Swap(key, expected, text)])
    return version
