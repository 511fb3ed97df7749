"""What every engine promises about which rows have to go, as checks."""

from __future__ import annotations

from collections.abc import Callable

from ..engine.api import Bounds, Engine, Entry, PartitionRef, Row, Surplus
from .checks import LOTS, NOW, A, B, C, durable_promise, flat, opened, promise, put, same

ROWS = 40
"""In a batch: as many as no engine joins with others, so that it is known where each begins."""


def _rows(*first: Row) -> list[Row]:
    return [*first, *[Row(b"")] * (ROWS - len(first))]


async def _fill(engine: Engine) -> None:
    """Ten batches of 20 bytes, by turns in A and B, a second apart; in C one that is older than all of them."""
    await engine.log.open({A: 1, B: 1, C: 1})
    await put(engine, C, Row(b"x" * 1000), now_ms=NOW - 1000)
    for step in range(10):
        ref = B if step % 2 else A
        await put(engine, ref, *_rows(Row(b"12345678", "ké"), Row(b"1234567", "kk")), now_ms=NOW + step * 1000)


@promise
async def the_oldest_rows_are_surplus(engine: Engine) -> None:
    await _fill(engine)
    for keep, gone in ((10**30, 0), (200, 0), (199, 1), (180, 1), (179, 2), (95, 6), (20, 9), (19, 10), (0, 10)):
        expected = {ref: ROWS * count for ref, count in ((A, (gone + 1) // 2), (B, gone // 2)) if count}
        same(
            await engine.log.surplus([A, B], keep),
            Surplus(expected),
            f"surplus over {keep} of 200 bytes in ten batches",
        )
    same(await engine.log.surplus([A], 60), Surplus({A: 2 * ROWS}), "surplus of one partition")
    same(
        await engine.log.surplus([A, B, C], 250),
        Surplus({C: 1}),
        "surplus with a partition that is older, and over alone",
    )
    same(await engine.log.surplus([], 0), Surplus({}), "surplus of nothing")
    unknown = PartitionRef("never was", 0)
    same(await engine.log.surplus([unknown], 0), Surplus({}), "surplus of a partition that was never opened")
    same(await engine.log.bounds([A]), [Bounds(0, 5 * ROWS, 1)], "bounds after asking")


@promise
async def what_is_trimmed_is_no_surplus(engine: Engine) -> None:
    await _fill(engine)
    await engine.log.trim(A, 2 * ROWS + 1)  # two batches, and a row of the third, which counts as a whole
    once, twice = {B: ROWS}, {B: 2 * ROWS}
    behind = {A: 3 * ROWS, B: 2 * ROWS}
    for keep, expected in ((160, {}), (159, once), (140, once), (139, twice), (119, behind)):
        same(await engine.log.surplus([A, B], keep), Surplus(expected), f"surplus over {keep} bytes behind a trim")
    await engine.log.trim(A, 5 * ROWS)
    same(await engine.log.surplus([A, B], 100), Surplus({}), "surplus when one of two partitions is empty")
    same(await engine.log.surplus([A], 0), Surplus({}), "surplus of an empty partition")
    await put(engine, A, Row(b"x" * 50), now_ms=NOW + 20_000)
    same(await engine.log.surplus([A, B], 130), Surplus({B: ROWS}), "surplus after another append")
    await engine.log.drop(A.stream_id)
    same(await engine.log.surplus([A, B], 0), Surplus({}), "surplus of what was dropped")
    await engine.log.open({A: 1})
    await put(engine, A, Row(b"x" * 50))
    same(await engine.log.surplus([A], 50), Surplus({}), "surplus of a stream opened anew")
    same(await engine.log.surplus([A], 49), Surplus({A: 1}), "surplus of a stream opened anew that holds too much")


@promise
async def asking_and_trimming_ends(engine: Engine) -> None:
    await engine.log.open({A: 1, B: 1})
    for step in range(300):
        ref = B if step % 3 else A
        await engine.log.append([Entry(ref, [Row(b"x" * (step % 7)), Row(b"y" * 5)], 1)], NOW + step)
    for keep in (2000, 1000, 999, 300, 3):
        more = True
        while more:
            found, more = await engine.log.surplus([A, B], keep)
            for ref, before in found.items():
                await engine.log.trim(ref, before)
        left = 0
        for ref, bounds in zip((A, B), await engine.log.bounds([A, B]), strict=True):
            assert bounds is not None
            rows = flat(await engine.log.read(ref, bounds.oldest, LOTS)) if bounds.oldest < bounds.next else []
            left += sum(len(data) for _, data in rows)
        same(left <= keep, True, f"{left} bytes are left of which {keep} are to be kept")
        most = 11 * 256  # what the largest stored batch may be, if an engine joins what was appended in small pieces
        same(left > keep - most, True, f"{left} bytes are left of {keep}: too few")


@durable_promise
async def surplus_survives(make: Callable[[], Engine]) -> None:
    async with opened(make()) as engine:
        await _fill(engine)
        await engine.log.trim(A, 2 * ROWS)
    for _ in range(2):
        async with opened(make()) as again:
            for keep, expected in (
                (160, {}),
                (159, {B: ROWS}),
                (139, {B: 2 * ROWS}),
                (119, {A: 3 * ROWS, B: 2 * ROWS}),
            ):
                same(
                    await again.log.surplus([A, B], keep),
                    Surplus(expected),
                    f"surplus over {keep} bytes after reopening",
                )
    async with opened(make()) as again:
        await put(again, B, Row(b"x" * 50), now_ms=NOW + 60_000)
    async with opened(make()) as again:
        same(await again.log.surplus([A, B], 210), Surplus({}), "surplus after an append and reopening")
        same(await again.log.surplus([A, B], 209), Surplus({B: ROWS}), "surplus over one byte less")
