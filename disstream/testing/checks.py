"""How the checks of an engine are written and collected: what every one of their modules starts from."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from ..engine.api import Batch, Engine, Entry, PartitionRef, Row

E = TypeVar("E", bound=Engine)

Make = Callable[[str], Engine]
"""Gives an engine, not started, on the storage of that name: another name is another, empty storage."""

Check = Callable[[Make], Coroutine[Any, Any, None]]

ENGINE_CHECKS: list[Check] = []
"""What every engine must pass."""

DURABLE_CHECKS: list[Check] = []
"""What an engine must pass whose storage outlives it."""

A = PartitionRef("stream-a", 0)
B = PartitionRef("stream-a", 1)
C = PartitionRef("stream-c", 0)
LOTS = 1 << 40
NOW = 1_700_000_000_000


@contextlib.asynccontextmanager
async def opened(engine: E) -> AsyncIterator[E]:
    """The engine, started, and closed behind the block."""
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def promise(kept: Callable[[Engine], Coroutine[Any, Any, None]]) -> None:
    """Register a check that needs one running engine."""

    @functools.wraps(kept)
    async def check(make: Make) -> None:
        async with opened(make(kept.__name__)) as engine:
            await kept(engine)

    ENGINE_CHECKS.append(check)


def durable_promise(kept: Callable[[Callable[[], Engine]], Coroutine[Any, Any, None]]) -> None:
    """Register a check that opens the same storage several times."""

    @functools.wraps(kept)
    async def check(make: Make) -> None:
        await kept(lambda: make(kept.__name__))

    DURABLE_CHECKS.append(check)


def same(found: object, expected: object, what: str) -> None:
    if found != expected:
        raise AssertionError(f"{what}: expected {expected!r}, found {found!r}")


async def raises(kind: type[Exception], call: Awaitable[object], what: str) -> None:
    try:
        result = await call
    except kind:
        return
    raise AssertionError(f"{what}: expected {kind.__name__}, but it returned {result!r}")


def flat(batches: Sequence[Batch]) -> list[tuple[int, bytes]]:
    return [(batch.first_sequence + i, row.data) for batch in batches for i, row in enumerate(batch.rows)]


def timed(batches: Sequence[Batch]) -> list[tuple[int, int, Row]]:
    """Number, time of the append and row of each, however they are batched."""
    found: list[tuple[int, int, Row]] = []
    for first, append_ms, rows, times in batches:
        if times is not None and (len(times) != len(rows) or times[-1] != append_ms):
            raise AssertionError(
                f"the batch at {first}: {len(rows)} rows, the last of {append_ms}, and times {times!r}"
            )
        found += zip(range(first, first + len(rows)), times or [append_ms] * len(rows), rows, strict=True)
    return found


def numbered(first: int, last: int) -> list[tuple[int, bytes]]:
    return [(n, b"%d" % n) for n in range(first, last)]


def rows_of(first: int, last: int) -> list[Row]:
    return [Row(data) for _, data in numbered(first, last)]


async def put(engine: Engine, ref: PartitionRef, *rows: Row, now_ms: int = NOW) -> int:
    (first,) = await engine.log.append([Entry(ref, rows, 1)], now_ms)
    if not isinstance(first, int):
        raise AssertionError(f"append to {ref}: expected a number, found {first!r}")
    return first
