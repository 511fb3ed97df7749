"""The contract of an engine as checks: one suite for ours and for yours.

    await check_engine(lambda name: MyEngine(f"/tmp/my-engine/{name}"))

Each check proves one promise of `disstream.engine.api`. A test runner can take them one by one:

    @pytest.mark.parametrize("check", ENGINE_CHECKS, ids=lambda check: check.__name__)
    async def test_contract(check): await check(make)

Here are those of a log without writers, and of an engine's life; what is promised of rows as they come back, of what
has to go, to writers and of the catalog is checked in `contents`, `keeping`, `writers` and `catalog`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ..engine.api import AppendRefused, Batch, Bounds, Engine, Entry, PartitionRef, Row
from ..errors import ConfigError, StorageError
from . import contents, keeping, writers  # noqa: F401 - they register their checks
from .catalog import version_of
from .checks import (
    DURABLE_CHECKS,
    ENGINE_CHECKS,
    LOTS,
    NOW,
    A,
    B,
    C,
    Check,
    Make,
    durable_promise,
    flat,
    numbered,
    opened,
    promise,
    put,
    raises,
    rows_of,
    same,
    timed,
)

__all__ = ["DURABLE_CHECKS", "ENGINE_CHECKS", "Check", "Make", "check_engine", "opened"]


async def check_engine(make: Make, *, durable: bool = True) -> None:
    """Run all checks, each on an engine of its own. Raises AssertionError that tells the first broken promise."""
    for check in ENGINE_CHECKS + (DURABLE_CHECKS if durable else []):
        await check(make)


# --- the log: appending -------------------------------------------------------------------------------------------


@promise
async def numbers_are_contiguous_from_zero(engine: Engine) -> None:
    await engine.log.open({A: 1, B: 1})
    same(await engine.log.bounds([A]), [Bounds(0, 0, 1)], "bounds of an empty partition")
    same(await engine.log.append([Entry(A, rows_of(0, 3), 1), Entry(B, rows_of(0, 2), 1)], NOW), [0, 0], "first append")
    same(
        await engine.log.append([Entry(B, rows_of(2, 3), 1), Entry(A, rows_of(3, 4), 1)], NOW), [2, 3], "second append"
    )
    same(flat(await engine.log.read(A, 0, LOTS)), numbered(0, 4), "rows of the first partition")
    same(flat(await engine.log.read(B, 0, LOTS)), numbered(0, 3), "rows of the second partition")
    same(await engine.log.bounds([A, B]), [Bounds(0, 4, 1), Bounds(0, 3, 1)], "bounds")


@promise
async def one_append_may_name_a_partition_twice(engine: Engine) -> None:
    await engine.log.open({A: 1})
    entries = [Entry(A, rows_of(0, 2), 1), Entry(A, rows_of(2, 5), 1)]
    same(await engine.log.append(entries, NOW), [0, 2], "append of two entries for one partition")
    same(flat(await engine.log.read(A, 0, LOTS)), numbered(0, 5), "rows")


@promise
async def entries_are_independent(engine: Engine) -> None:
    await engine.log.open({A: 5, B: 1})
    results = await engine.log.append(
        [Entry(A, rows_of(0, 1), 4), Entry(C, rows_of(0, 1), 1), Entry(B, rows_of(0, 1), 1)], NOW
    )
    same([isinstance(result, AppendRefused) for result in results], [True, True, False], "refused entries")
    old, unopened, stored = results
    same(isinstance(old, AppendRefused) and old.epoch, 5, "present epoch told with a refusal")
    same(isinstance(unopened, AppendRefused) and unopened.epoch, None, "epoch of a partition that is not open")
    same(stored, 0, "the entry beside the refused ones")
    same(await engine.log.bounds([A, B, C]), [Bounds(0, 0, 5), Bounds(0, 1, 1), None], "bounds")


@promise
async def empty_entries_are_refused(engine: Engine) -> None:
    await engine.log.open({A: 1})
    call = engine.log.append([Entry(A, rows_of(0, 1), 1), Entry(A, [], 1)], NOW)
    await raises(ConfigError, call, "append of an entry without rows")
    same(await engine.log.bounds([A]), [Bounds(0, 0, 1)], "bounds after the refused call")
    same(await engine.log.append([], NOW), [], "append of nothing")


@promise
async def keys_that_are_not_text_are_refused(engine: Engine) -> None:
    await engine.log.open({A: 1})
    await raises(
        ConfigError, engine.log.append([Entry(A, [Row(b"", "\ud800")], 1)], NOW), "a key with a lone surrogate"
    )
    same(await engine.log.bounds([A]), [Bounds(0, 0, 1)], "bounds after the refused call")


@promise
async def epochs_fence_and_only_grow(engine: Engine) -> None:
    await engine.log.open({A: 1, B: 3})
    await engine.log.append([Entry(A, rows_of(0, 2), 1)], NOW)
    await engine.log.open({A: 1})
    same(await engine.log.bounds([A]), [Bounds(0, 2, 1)], "bounds after opening with the same epoch")
    await raises(StorageError, engine.log.open({C: 1, A: 2, B: 2}), "lowering one of three epochs")
    same(await engine.log.bounds([A, B, C]), [Bounds(0, 2, 1), Bounds(0, 0, 3), None], "bounds after a failed open")
    await engine.log.open({A: 2})
    (old,) = await engine.log.append([Entry(A, rows_of(2, 3), 1)], NOW)
    same(isinstance(old, AppendRefused) and old.epoch, 2, "an append with the older epoch")
    same(await engine.log.append([Entry(A, rows_of(2, 3), 2)], NOW), [2], "an append with the new epoch")
    (early,) = await engine.log.append([Entry(A, rows_of(3, 4), 3)], NOW)
    same(isinstance(early, AppendRefused) and early.epoch, 2, "an append with an epoch that is not yet")


@promise
async def impossible_partitions_are_refused(engine: Engine) -> None:
    impossible = [PartitionRef(stream, 0) for stream in ("", "x" * 501, "ü" * 251, "\ud800")]
    impossible += [PartitionRef("s", number) for number in (-1, 2**32)]
    for ref in impossible:
        await raises(ConfigError, engine.log.open({A: 1, ref: 1}), f"open of {str(ref)[:40]}")
    for epoch in (-1, 2**63):
        await raises(ConfigError, engine.log.open({A: epoch}), f"open with epoch {epoch}")
    for now_ms in (-1, 2**63):
        await raises(ConfigError, engine.log.append([Entry(A, rows_of(0, 1), 1)], now_ms), f"append at {now_ms}")
    same(await engine.log.bounds([A, *impossible]), [None] * 7, "bounds after refused calls")
    largest = PartitionRef("x" * 500, 2**32 - 1)
    await engine.log.open({largest: 2**63 - 1})
    same(await engine.log.append([Entry(largest, rows_of(0, 1), 2**63 - 1)], 2**63 - 1), [0], "append at every limit")
    same(len(await engine.log.read(largest, 0, LOTS)), 1, "batches at every limit")


@promise
async def concurrent_appends_keep_the_order_of_the_calls(engine: Engine) -> None:
    await engine.log.open({A: 1, B: 1})
    calls = [
        engine.log.append([Entry(A, rows_of(n, n + 1), 1), Entry(B, rows_of(n, n + 1), 1)], NOW) for n in range(100)
    ]
    results = await asyncio.gather(*calls)
    same(results, [[n, n] for n in range(100)], "numbers given to concurrent appends")
    for ref in (A, B):
        same(flat(await engine.log.read(ref, 0, LOTS)), numbered(0, 100), "rows in the order of the calls")


@promise
async def a_cancelled_append_is_whole_or_nothing(engine: Engine) -> None:
    await engine.log.open({A: 1})
    tasks = [asyncio.ensure_future(engine.log.append([Entry(A, rows_of(0, 7), 1)], NOW)) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results[1::2]:
        same(isinstance(result, list), True, "an append beside cancelled ones")
    rows = [row.data for batch in await engine.log.read(A, 0, LOTS) for row in batch.rows]
    stored = len(rows) // 7  # not the number of batches: the engine may have made one of several
    same(rows, [b"%d" % n for n in range(7)] * stored, "rows")
    same(await put(engine, A, Row(b"")), 7 * stored, "the next number")


# --- the log: reading ---------------------------------------------------------------------------------------------


@promise
async def reads_are_cut_by_weight(engine: Engine) -> None:
    await engine.log.open({A: 1})
    for first in (0, 3, 6):
        await put(engine, A, *[Row(b"12345678", "ké")] * 3)  # 11 bytes each
        same(await engine.log.bounds([A]), [Bounds(0, first + 3, 1)], "bounds while filling")
    for from_sequence in range(9):
        for max_bytes in range(0, 112):
            found = flat(await engine.log.read(A, from_sequence, max_bytes))
            expected = range(from_sequence, min(from_sequence + max_bytes // 11, 9))
            same([number for number, _ in found], list(expected), f"read({from_sequence}, max_bytes={max_bytes})")


@promise
async def rows_of_no_weight_need_no_room(engine: Engine) -> None:
    await engine.log.open({A: 1})
    await put(engine, A, Row(b""), Row(b""), Row(b"x"), Row(b""))
    same(flat(await engine.log.read(A, 0, 0)), [(0, b""), (1, b"")], "read with max_bytes=0")
    same(len(flat(await engine.log.read(A, 0, 1))), 4, "rows read with max_bytes=1")
    same(await engine.log.read(A, 2, 0), [], "a first row that is too heavy")


@promise
async def reads_outside_find_nothing(engine: Engine) -> None:
    await engine.log.open({A: 1, B: 1})
    await put(engine, A, *rows_of(0, 3))
    for outside in (-1, 3, 4, 2**63 - 1, 2**64, -(2**64)):
        same(await engine.log.read(A, outside, LOTS), [], f"read from {outside} of 0 to 2")
    same(await engine.log.read(B, 0, LOTS), [], "read of an empty partition")
    same(await engine.log.read(C, 0, LOTS), [], "read of a partition that was never opened")
    same(await engine.log.bounds([]), [], "bounds of nothing")


@promise
async def append_times_never_decrease(engine: Engine) -> None:
    await engine.log.open({A: 1, B: 1})
    for now_ms in (NOW, NOW - 5_000, NOW + 1):
        await put(engine, A, Row(b""), now_ms=now_ms)
    await put(engine, B, Row(b""), now_ms=NOW - 5_000)
    times = [time for _, time, _ in timed(await engine.log.read(A, 0, LOTS))]
    same(times, [NOW, NOW, NOW + 1], "append times under a clock that jumps back")
    same((await engine.log.read(B, 0, LOTS))[0].append_ms, NOW - 5_000, "append time in another partition")


@promise
async def seek_finds_the_first_at_or_after_a_time(engine: Engine) -> None:
    await engine.log.open({A: 1, B: 1})
    starts: list[tuple[int, int]] = []
    for step in range(40):
        starts.append(
            (NOW + step // 2 * 10, await put(engine, A, *rows_of(0, step % 5 + 1), now_ms=NOW + step // 2 * 10))
        )
    (bounds,) = await engine.log.bounds([A])
    end = bounds.next if bounds else -1
    for time_ms in [*range(NOW - 3, NOW + 203), 0, -1, 2**70]:
        expected = next((first for stamp, first in starts if stamp >= time_ms), end)
        same(await engine.log.seek(A, time_ms), expected, f"seek({time_ms - NOW} after the first)")
    same(await engine.log.seek(B, 0), 0, "seek in an empty partition")
    await engine.log.trim(A, 7)
    same(await engine.log.seek(A, 0), 7, "seek to before the oldest row")


# --- the log: waiting ---------------------------------------------------------------------------------------------


@promise
async def wait_returns_when_rows_arrive(engine: Engine) -> None:
    loop = asyncio.get_running_loop()
    await engine.log.open({A: 1, B: 1})
    waits = [asyncio.ensure_future(engine.log.wait(A, after, loop.time() + 60)) for after in (0, 0, 1, 2)]
    other = asyncio.ensure_future(engine.log.wait(B, 0, loop.time() + 60))
    await asyncio.sleep(0)
    await put(engine, A, *rows_of(0, 2))
    same(await asyncio.gather(*waits[:3]), [True, True, True], "waits that the append satisfies")
    same((waits[3].done(), other.done()), (False, False), "waits for more, and for another partition")
    await put(engine, A, *rows_of(2, 3))
    same(await waits[3], True, "the wait for more")
    same(await engine.log.wait(A, 2, loop.time() - 1), True, "a wait for what is there already, past its deadline")
    other.cancel()
    await asyncio.gather(other, return_exceptions=True)
    same(other.cancelled(), True, "a cancelled wait")


@promise
async def wait_ends_at_its_deadline(engine: Engine) -> None:
    loop = asyncio.get_running_loop()
    await engine.log.open({A: 1})
    same(await engine.log.wait(A, 0, loop.time() + 0.005), False, "a wait whose deadline passes")
    same(await engine.log.wait(A, 0, loop.time() - 1), False, "a wait whose deadline has passed")
    same(await engine.log.wait(C, 0, loop.time() + 0.005), False, "a wait for a partition that was never opened")
    waiting = asyncio.ensure_future(engine.log.wait(A, 0, loop.time() + 0.02))
    await asyncio.sleep(0)
    await engine.log.drop(A.stream_id)
    same(await waiting, False, "a wait for a dropped partition")


@promise
async def close_ends_waits(engine: Engine) -> None:
    await engine.log.open({A: 1})
    waiting = asyncio.ensure_future(engine.log.wait(A, 0, asyncio.get_running_loop().time() + 3600))
    await asyncio.sleep(0)
    await engine.close()
    (result,) = await asyncio.gather(waiting, return_exceptions=True)
    same(result is False or isinstance(result, StorageError), True, f"a wait that ended with {result!r} on close")


@promise
async def a_watch_tells_what_moves(engine: Engine) -> None:
    told: list[tuple[PartitionRef, int | None]] = []
    await engine.log.open({A: 1, B: 1, C: 1})
    await put(engine, A, *rows_of(0, 2))
    with engine.log.watch([A, B], lambda ref, end: told.append((ref, end))):
        same(told, [], "what was there before the watch")
        await engine.log.append([Entry(ref, rows_of(0, 3), 1) for ref in (A, B, C)], NOW)
        same(sorted(told, key=str), [(A, 5), (B, 3)], "an append to three partitions, two of them watched")
        await engine.log.drop(A.stream_id)
        same([end for ref, end in told if ref == A][-1], None, "a drop of a watched partition")
    told.clear()
    await put(engine, C, *rows_of(3, 4))
    same(told, [], "an append after the watch")


# --- the log: forgetting ------------------------------------------------------------------------------------------


@promise
async def trim_forgets_from_the_front(engine: Engine) -> None:
    await engine.log.open({A: 1})
    for first in range(0, 12, 4):
        await put(engine, A, *rows_of(first, first + 4))
    await engine.log.trim(A, 6)
    same(await engine.log.bounds([A]), [Bounds(6, 12, 1)], "bounds after trim(6)")
    same(await engine.log.read(A, 5, LOTS), [], "read below the oldest row")
    same(flat(await engine.log.read(A, 6, LOTS)), numbered(6, 12), "read at the oldest row")
    await engine.log.trim(A, 3)
    await engine.log.trim(A, -1)
    same(await engine.log.bounds([A]), [Bounds(6, 12, 1)], "bounds after trimming backwards")
    await engine.log.trim(A, 10**30)
    same(await engine.log.bounds([A]), [Bounds(12, 12, 1)], "bounds after trimming more than all")
    same(await engine.log.seek(A, 0), 12, "seek when all is trimmed")
    same(await put(engine, A, *rows_of(12, 14)), 12, "the number after everything was trimmed")
    same(flat(await engine.log.read(A, 12, LOTS)), numbered(12, 14), "rows after everything was trimmed")
    await engine.log.trim(C, 5)
    same(await engine.log.bounds([C]), [None], "trim of a partition that was never opened")


@promise
async def drop_forgets_a_stream_alone(engine: Engine) -> None:
    longer = PartitionRef("stream-a2", 0)
    await engine.log.open({A: 1, B: 1, C: 1, longer: 1})
    for ref in (A, B, C, longer):
        await put(engine, ref, *rows_of(0, 3))
    await engine.log.drop("stream-a")
    found = await engine.log.bounds([A, B, C, longer])
    same(found, [None, None, Bounds(0, 3, 1), Bounds(0, 3, 1)], "bounds after a drop")
    same(await engine.log.read(A, 0, LOTS), [], "read of a dropped partition")
    same(flat(await engine.log.read(C, 0, LOTS)), numbered(0, 3), "read of another stream")
    (refused,) = await engine.log.append([Entry(A, rows_of(0, 1), 1)], NOW)
    same(isinstance(refused, AppendRefused) and refused.epoch, None, "append to a dropped partition")
    await engine.log.drop("stream-a")
    for unknown in ("never was", "", "\ud800", "x" * 400, "ü" * 400, "x" * 100_000):
        await engine.log.drop(unknown)


@promise
async def a_dropped_stream_can_be_opened_anew(engine: Engine) -> None:
    await engine.log.open({A: 7})
    await engine.log.append([Entry(A, rows_of(0, 9), 7)], NOW)
    await engine.log.drop(A.stream_id)
    await engine.log.open({A: 1})
    same(await engine.log.bounds([A]), [Bounds(0, 0, 1)], "bounds of a stream opened anew")
    same(await engine.log.read(A, 0, LOTS), [], "rows of a stream opened anew")
    same(await put(engine, A, Row(b"new")), 0, "the first number of a stream opened anew")
    same(flat(await engine.log.read(A, 0, LOTS)), [(0, b"new")], "rows of a stream opened anew")


# --- life ---------------------------------------------------------------------------------------------------------


@promise
async def closed_engines_refuse(engine: Engine) -> None:
    await engine.log.open({A: 1})
    pending = [asyncio.ensure_future(engine.log.append([Entry(A, rows_of(n, n + 1), 1)], NOW)) for n in range(5)]
    await asyncio.sleep(0)
    await engine.close()
    same(await asyncio.gather(*pending), [[n] for n in range(5)], "appends that were accepted before the close")
    await engine.close()
    calls: list[Awaitable[object]] = [
        engine.log.open({A: 2}),
        engine.log.append([Entry(A, rows_of(0, 1), 1)], NOW),
        engine.log.read(A, 0, LOTS),
        engine.log.wait(A, 0, 0.0),
        engine.log.bounds([A]),
        engine.log.seek(A, 0),
        engine.log.surplus([A], 0),
        engine.log.trim(A, 1),
        engine.log.drop("stream-a"),
        engine.catalog.get("k"),
        engine.catalog.scan(""),
        engine.catalog.transact({}, {"k": b""}),
    ]
    for index, call in enumerate(calls):
        await raises(StorageError, call, f"call {index} on a closed engine")


@durable_promise
async def an_engine_that_never_started_refuses(make: Callable[[], Engine]) -> None:
    engine = make()
    await raises(StorageError, engine.log.bounds([A]), "a call before start()")
    await engine.close()


@durable_promise
async def everything_survives_reopening(make: Callable[[], Engine]) -> None:
    rows = [Row(b"x", "k", 5), Row(b"", None, None), Row(b"y", "ü", 6)]
    async with opened(make()) as engine:
        await engine.log.open({A: 1, B: 4, C: 1})
        await put(engine, A, *rows)
        await put(engine, C, *rows_of(0, 10))
        await engine.log.trim(A, 1)
        await engine.log.open({C: 2})
        await engine.catalog.transact({}, {"a": b"1", "b": b"2"})
        kept = await engine.catalog.scan("")
    async with opened(make()) as engine:
        expected = [Bounds(1, 3, 1), Bounds(0, 0, 4), Bounds(0, 10, 2)]
        same(await engine.log.bounds([A, B, C]), expected, "bounds after reopening")
        same(await engine.log.read(A, 1, LOTS), [Batch(1, NOW, rows[1:])], "rows after reopening")
        same(await engine.catalog.scan(""), kept, "catalog after reopening")
        same(
            await engine.log.append([Entry(A, rows_of(0, 1), 1), Entry(B, rows_of(0, 1), 4)], NOW - 99),
            [3, 0],
            "next numbers",
        )
        times = [time for _, time, _ in timed(await engine.log.read(A, 1, LOTS))]
        same(times, [NOW, NOW, NOW], "append times under a clock that jumped back meanwhile")


@durable_promise
async def numbers_never_restart(make: Callable[[], Engine]) -> None:
    for life in range(3):
        async with opened(make()) as engine:
            await engine.log.open({A: 1})
            same(await engine.log.bounds([A]), [Bounds(life * 5, life * 5, 1)], f"bounds in life {life}")
            same(await put(engine, A, *rows_of(0, 5), now_ms=NOW - life), life * 5, f"first number of life {life}")
            (batch,) = await engine.log.read(A, life * 5, LOTS)
            same(batch.append_ms, NOW, "append time when no older row is left to compare with")
            await engine.log.trim(A, LOTS)


@durable_promise
async def dropped_streams_stay_dropped(make: Callable[[], Engine]) -> None:
    async with opened(make()) as engine:
        await engine.log.open({A: 1, C: 1})
        await put(engine, A, *rows_of(0, 5))
        await engine.log.drop(A.stream_id)
    async with opened(make()) as engine:
        same(await engine.log.bounds([A, C]), [None, Bounds(0, 0, 1)], "bounds after a drop and reopening")
        await engine.log.open({A: 1})
        same(await engine.log.read(A, 0, LOTS), [], "rows of a stream opened anew")
        same(await put(engine, A, Row(b"")), 0, "the first number of a stream opened anew")


@durable_promise
async def versions_never_return(make: Callable[[], Engine]) -> None:
    seen: set[int] = set()
    for _ in range(3):
        async with opened(make()) as engine:
            await engine.catalog.transact({"k": 0}, {"k": b""})
            seen.add(await version_of(engine, "k"))
            await engine.catalog.transact({}, {}, ["k"])
    same(len(seen), 3, f"different versions in three lives, of {seen}")
