"""How the checks of a lease store are written and collected: what the modules with them start from."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from ..leases.api import LeaseStore, Swap

MakeLeases = Callable[[str], LeaseStore]
"""Gives a store, not started, on the rows of that name: another name is another, empty storage."""

LeaseCheck = Callable[[MakeLeases], Coroutine[Any, Any, None]]

LEASE_CHECKS: list[LeaseCheck] = []
"""What every lease store must pass."""

DURABLE_LEASE_CHECKS: list[LeaseCheck] = []
"""What a store must pass whose rows outlive it."""


@contextlib.asynccontextmanager
async def opened(store: LeaseStore) -> AsyncIterator[LeaseStore]:
    await store.start()
    try:
        yield store
    finally:
        await store.close()


def promise(kept: Callable[[LeaseStore], Coroutine[Any, Any, None]]) -> None:
    """Register a check that needs one open store."""

    @functools.wraps(kept)
    async def check(make: MakeLeases) -> None:
        async with opened(make(kept.__name__)) as store:
            await kept(store)

    LEASE_CHECKS.append(check)


def promise_of_two(kept: Callable[[LeaseStore, LeaseStore], Coroutine[Any, Any, None]]) -> None:
    """Register a check that needs two open stores on the same rows."""

    @functools.wraps(kept)
    async def check(make: MakeLeases) -> None:
        first = make(kept.__name__)
        async with opened(first), opened(first.twin() or make(kept.__name__)) as second:
            await kept(first, second)

    LEASE_CHECKS.append(check)


def promise_of_life(kept: Callable[[Callable[[], LeaseStore]], Coroutine[Any, Any, None]]) -> None:
    """Register a check that opens and closes stores itself."""

    @functools.wraps(kept)
    async def check(make: MakeLeases) -> None:
        await kept(lambda: make(kept.__name__))

    LEASE_CHECKS.append(check)


def durable_promise(kept: Callable[[Callable[[], LeaseStore]], Coroutine[Any, Any, None]]) -> None:
    """Register a check that opens the same rows several times."""

    @functools.wraps(kept)
    async def check(make: MakeLeases) -> None:
        await kept(lambda: make(kept.__name__))

    DURABLE_LEASE_CHECKS.append(check)


async def change(store: LeaseStore, key: str, expected: int | None, text: str | None, app: str = "app") -> int | None:
    (version,) = await store.swap(app, [Swap(key, expected, text)])
    return version


async def made(store: LeaseStore, key: str, text: str = "", app: str = "app") -> int:
    version = await change(store, key, None, text, app)
    if version is None:
        raise AssertionError(f"making {key!r} in {app!r}: expected a version, found None, which says that it is there")
    return version
