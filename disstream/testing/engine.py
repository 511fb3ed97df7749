"""The contract of an engine as checks: one suite for ours and for yours.

    await check_engine(lambda name: MyEngine(f"/tmp/my-engine/{name}"))

Each check proves one promise of `disstream.engine.api`. A test runner can take them one by one:

    @pytest.mark.parametrize("check", ENGINE_CHECKS, ids=lambda check: check.__name__)
    async def test_contract(check): await check(make)
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from ..engine.api import AppendRefused, Batch, Bounds, Engine, PartitionRef, Row, Versioned
from ..errors import CatalogConflict, ConfigError, StorageError

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


async def check_engine(make: Make, *, durable: bool = True) -> None:
    """Run all checks, each on an engine of its own. Raises AssertionError that tells the first broken promise."""
    for check in ENGINE_CHECKS + (DURABLE_CHECKS if durable else []):
        await check(make)


@contextlib.asynccontextmanager
async def opened(engine: E) -> AsyncIterator[E]:
    """The engine, started, and closed behind the block."""
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def _check(promise: Callable[[Engine], Coroutine[Any, Any, None]]) -> None:
    """Register a check that needs one running engine."""

    @functools.wraps(promise)
    async def check(make: Make) -> None:
        async with opened(make(promise.__name__)) as engine:
            await promise(engine)

    ENGINE_CHECKS.append(check)


def _durable(promise: Callable[[Callable[[], Engine]], Coroutine[Any, Any, None]]) -> None:
    """Register a check that opens the same storage several times."""

    @functools.wraps(promise)
    async def check(make: Make) -> None:
        await promise(lambda: make(promise.__name__))

    DURABLE_CHECKS.append(check)


def _same(found: object, expected: object, what: str) -> None:
    if found != expected:
        raise AssertionError(f"{what}: expected {expected!r}, found {found!r}")


async def _raises(kind: type[Exception], call: Awaitable[object], what: str) -> None:
    try:
        result = await call
    except kind:
        return
    raise AssertionError(f"{what}: expected {kind.__name__}, but it returned {result!r}")


def _flat(batches: Sequence[Batch]) -> list[tuple[int, bytes]]:
    return [(batch.first_sequence + i, row.data) for batch in batches for i, row in enumerate(batch.rows)]


def _numbered(first: int, last: int) -> list[tuple[int, bytes]]:
    return [(n, b"%d" % n) for n in range(first, last)]


def _rows(first: int, last: int) -> list[Row]:
    return [Row(data) for _, data in _numbered(first, last)]


async def _put(engine: Engine, ref: PartitionRef, *rows: Row, now_ms: int = NOW) -> int:
    (first,) = await engine.log.append([(ref, rows, 1)], now_ms)
    if isinstance(first, AppendRefused):
        raise AssertionError(f"append to {ref}: refused: {first.reason}")
    return first


# --- the log: appending -------------------------------------------------------------------------------------------


@_check
async def numbers_are_contiguous_from_zero(engine: Engine) -> None:
    await engine.log.open({A: 1, B: 1})
    _same(await engine.log.bounds([A]), [Bounds(0, 0, 1)], "bounds of an empty partition")
    _same(await engine.log.append([(A, _rows(0, 3), 1), (B, _rows(0, 2), 1)], NOW), [0, 0], "first append")
    _same(await engine.log.append([(B, _rows(2, 3), 1), (A, _rows(3, 4), 1)], NOW), [2, 3], "second append")
    _same(_flat(await engine.log.read(A, 0, LOTS)), _numbered(0, 4), "rows of the first partition")
    _same(_flat(await engine.log.read(B, 0, LOTS)), _numbered(0, 3), "rows of the second partition")
    _same(await engine.log.bounds([A, B]), [Bounds(0, 4, 1), Bounds(0, 3, 1)], "bounds")


@_check
async def one_append_may_name_a_partition_twice(engine: Engine) -> None:
    await engine.log.open({A: 1})
    entries = [(A, _rows(0, 2), 1), (A, _rows(2, 5), 1)]
    _same(await engine.log.append(entries, NOW), [0, 2], "append of two entries for one partition")
    _same(_flat(await engine.log.read(A, 0, LOTS)), _numbered(0, 5), "rows")


@_check
async def rows_come_back_as_they_were(engine: Engine) -> None:
    await engine.log.open({A: 1})
    rows = [
        Row(b""),
        Row(bytes(range(256)), "key", NOW),
        Row(b"\x00" * 70_000, "schlüssel-鍵-🔑", 0),
        Row(b"x", "", -1),
        Row(b"y", None, 2**63 - 1),
    ]
    await _put(engine, A, *rows)
    (batch,) = await engine.log.read(A, 0, LOTS)
    _same(list(batch.rows), rows, "rows read back")
    _same(await engine.log.read(A, 1, LOTS), [Batch(1, NOW, rows[1:])], "rows from the second on")


@_check
async def the_caller_may_reuse_its_list(engine: Engine) -> None:
    await engine.log.open({A: 1})
    rows = _rows(0, 2)
    await engine.log.append([(A, rows, 1)], NOW)
    rows.clear()
    _same(_flat(await engine.log.read(A, 0, LOTS)), _numbered(0, 2), "rows after the caller's list was cleared")


@_check
async def entries_are_independent(engine: Engine) -> None:
    await engine.log.open({A: 5, B: 1})
    results = await engine.log.append([(A, _rows(0, 1), 4), (C, _rows(0, 1), 1), (B, _rows(0, 1), 1)], NOW)
    _same([isinstance(result, AppendRefused) for result in results], [True, True, False], "refused entries")
    old, unopened, stored = results
    _same(isinstance(old, AppendRefused) and old.epoch, 5, "present epoch told with a refusal")
    _same(isinstance(unopened, AppendRefused) and unopened.epoch, None, "epoch of a partition that is not open")
    _same(stored, 0, "the entry beside the refused ones")
    _same(await engine.log.bounds([A, B, C]), [Bounds(0, 0, 5), Bounds(0, 1, 1), None], "bounds")


@_check
async def empty_entries_are_refused(engine: Engine) -> None:
    await engine.log.open({A: 1})
    call = engine.log.append([(A, _rows(0, 1), 1), (A, [], 1)], NOW)
    await _raises(ConfigError, call, "append of an entry without rows")
    _same(await engine.log.bounds([A]), [Bounds(0, 0, 1)], "bounds after the refused call")
    _same(await engine.log.append([], NOW), [], "append of nothing")


@_check
async def keys_that_are_not_text_are_refused(engine: Engine) -> None:
    await engine.log.open({A: 1})
    await _raises(ConfigError, engine.log.append([(A, [Row(b"", "\ud800")], 1)], NOW), "a key with a lone surrogate")
    _same(await engine.log.bounds([A]), [Bounds(0, 0, 1)], "bounds after the refused call")


@_check
async def epochs_fence_and_only_grow(engine: Engine) -> None:
    await engine.log.open({A: 1, B: 3})
    await engine.log.append([(A, _rows(0, 2), 1)], NOW)
    await engine.log.open({A: 1})
    _same(await engine.log.bounds([A]), [Bounds(0, 2, 1)], "bounds after opening with the same epoch")
    await _raises(StorageError, engine.log.open({C: 1, A: 2, B: 2}), "lowering one of three epochs")
    _same(await engine.log.bounds([A, B, C]), [Bounds(0, 2, 1), Bounds(0, 0, 3), None], "bounds after a failed open")
    await engine.log.open({A: 2})
    (old,) = await engine.log.append([(A, _rows(2, 3), 1)], NOW)
    _same(isinstance(old, AppendRefused) and old.epoch, 2, "an append with the older epoch")
    _same(await engine.log.append([(A, _rows(2, 3), 2)], NOW), [2], "an append with the new epoch")
    (early,) = await engine.log.append([(A, _rows(3, 4), 3)], NOW)
    _same(isinstance(early, AppendRefused) and early.epoch, 2, "an append with an epoch that is not yet")


@_check
async def impossible_partitions_are_refused(engine: Engine) -> None:
    impossible = [PartitionRef(stream, 0) for stream in ("", "x" * 501, "ü" * 251, "\ud800")]
    impossible += [PartitionRef("s", number) for number in (-1, 2**32)]
    for ref in impossible:
        await _raises(ConfigError, engine.log.open({A: 1, ref: 1}), f"open of {str(ref)[:40]}")
    for epoch in (-1, 2**63):
        await _raises(ConfigError, engine.log.open({A: epoch}), f"open with epoch {epoch}")
    for now_ms in (-1, 2**63):
        await _raises(ConfigError, engine.log.append([(A, _rows(0, 1), 1)], now_ms), f"append at {now_ms}")
    _same(await engine.log.bounds([A, *impossible]), [None] * 7, "bounds after refused calls")
    largest = PartitionRef("x" * 500, 2**32 - 1)
    await engine.log.open({largest: 2**63 - 1})
    _same(await engine.log.append([(largest, _rows(0, 1), 2**63 - 1)], 2**63 - 1), [0], "append at every limit")
    _same(len(await engine.log.read(largest, 0, LOTS)), 1, "batches at every limit")


@_check
async def concurrent_appends_keep_the_order_of_the_calls(engine: Engine) -> None:
    await engine.log.open({A: 1, B: 1})
    calls = [engine.log.append([(A, _rows(n, n + 1), 1), (B, _rows(n, n + 1), 1)], NOW) for n in range(100)]
    results = await asyncio.gather(*calls)
    _same(results, [[n, n] for n in range(100)], "numbers given to concurrent appends")
    for ref in (A, B):
        _same(_flat(await engine.log.read(ref, 0, LOTS)), _numbered(0, 100), "rows in the order of the calls")


@_check
async def a_cancelled_append_is_whole_or_nothing(engine: Engine) -> None:
    await engine.log.open({A: 1})
    tasks = [asyncio.ensure_future(engine.log.append([(A, _rows(0, 7), 1)], NOW)) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results[1::2]:
        _same(isinstance(result, list), True, "an append beside cancelled ones")
    batches = await engine.log.read(A, 0, LOTS)
    _same([row.data for batch in batches for row in batch.rows], [b"%d" % n for n in range(7)] * len(batches), "rows")
    _same(await _put(engine, A, Row(b"")), 7 * len(batches), "the next number")


# --- the log: reading ---------------------------------------------------------------------------------------------


@_check
async def reads_are_cut_by_weight(engine: Engine) -> None:
    await engine.log.open({A: 1})
    for first in (0, 3, 6):
        await _put(engine, A, *[Row(b"12345678", "ké")] * 3)  # 11 bytes each
        _same(await engine.log.bounds([A]), [Bounds(0, first + 3, 1)], "bounds while filling")
    for from_sequence in range(9):
        for max_bytes in range(0, 112):
            found = _flat(await engine.log.read(A, from_sequence, max_bytes))
            expected = range(from_sequence, min(from_sequence + max_bytes // 11, 9))
            _same([number for number, _ in found], list(expected), f"read({from_sequence}, max_bytes={max_bytes})")


@_check
async def rows_of_no_weight_need_no_room(engine: Engine) -> None:
    await engine.log.open({A: 1})
    await _put(engine, A, Row(b""), Row(b""), Row(b"x"), Row(b""))
    _same(_flat(await engine.log.read(A, 0, 0)), [(0, b""), (1, b"")], "read with max_bytes=0")
    _same(len(_flat(await engine.log.read(A, 0, 1))), 4, "rows read with max_bytes=1")
    _same(await engine.log.read(A, 2, 0), [], "a first row that is too heavy")


@_check
async def reads_outside_find_nothing(engine: Engine) -> None:
    await engine.log.open({A: 1, B: 1})
    await _put(engine, A, *_rows(0, 3))
    for outside in (-1, 3, 4, 2**63 - 1, 2**64, -(2**64)):
        _same(await engine.log.read(A, outside, LOTS), [], f"read from {outside} of 0 to 2")
    _same(await engine.log.read(B, 0, LOTS), [], "read of an empty partition")
    _same(await engine.log.read(C, 0, LOTS), [], "read of a partition that was never opened")
    _same(await engine.log.bounds([]), [], "bounds of nothing")


@_check
async def append_times_never_decrease(engine: Engine) -> None:
    await engine.log.open({A: 1, B: 1})
    for now_ms in (NOW, NOW - 5_000, NOW + 1):
        await _put(engine, A, Row(b""), now_ms=now_ms)
    await _put(engine, B, Row(b""), now_ms=NOW - 5_000)
    times = [batch.append_ms for batch in await engine.log.read(A, 0, LOTS)]
    _same(times, [NOW, NOW, NOW + 1], "append times under a clock that jumps back")
    _same((await engine.log.read(B, 0, LOTS))[0].append_ms, NOW - 5_000, "append time in another partition")


@_check
async def seek_finds_the_first_at_or_after_a_time(engine: Engine) -> None:
    await engine.log.open({A: 1, B: 1})
    starts: list[tuple[int, int]] = []
    for step in range(40):
        starts.append(
            (NOW + step // 2 * 10, await _put(engine, A, *_rows(0, step % 5 + 1), now_ms=NOW + step // 2 * 10))
        )
    (bounds,) = await engine.log.bounds([A])
    end = bounds.next if bounds else -1
    for time_ms in [*range(NOW - 3, NOW + 203), 0, -1, 2**70]:
        expected = next((first for stamp, first in starts if stamp >= time_ms), end)
        _same(await engine.log.seek(A, time_ms), expected, f"seek({time_ms - NOW} after the first)")
    _same(await engine.log.seek(B, 0), 0, "seek in an empty partition")
    await engine.log.trim(A, 7)
    _same(await engine.log.seek(A, 0), 7, "seek to before the oldest row")


# --- the log: waiting ---------------------------------------------------------------------------------------------


@_check
async def wait_returns_when_rows_arrive(engine: Engine) -> None:
    loop = asyncio.get_running_loop()
    await engine.log.open({A: 1, B: 1})
    waits = [asyncio.ensure_future(engine.log.wait(A, after, loop.time() + 60)) for after in (0, 0, 1, 2)]
    other = asyncio.ensure_future(engine.log.wait(B, 0, loop.time() + 60))
    await asyncio.sleep(0)
    await _put(engine, A, *_rows(0, 2))
    _same(await asyncio.gather(*waits[:3]), [True, True, True], "waits that the append satisfies")
    _same((waits[3].done(), other.done()), (False, False), "waits for more, and for another partition")
    await _put(engine, A, *_rows(2, 3))
    _same(await waits[3], True, "the wait for more")
    _same(await engine.log.wait(A, 2, loop.time() - 1), True, "a wait for what is there already, past its deadline")
    other.cancel()
    await asyncio.gather(other, return_exceptions=True)
    _same(other.cancelled(), True, "a cancelled wait")


@_check
async def wait_ends_at_its_deadline(engine: Engine) -> None:
    loop = asyncio.get_running_loop()
    await engine.log.open({A: 1})
    _same(await engine.log.wait(A, 0, loop.time() + 0.005), False, "a wait whose deadline passes")
    _same(await engine.log.wait(A, 0, loop.time() - 1), False, "a wait whose deadline has passed")
    _same(await engine.log.wait(C, 0, loop.time() + 0.005), False, "a wait for a partition that was never opened")
    waiting = asyncio.ensure_future(engine.log.wait(A, 0, loop.time() + 0.02))
    await asyncio.sleep(0)
    await engine.log.drop(A.stream_id)
    _same(await waiting, False, "a wait for a dropped partition")


@_check
async def close_ends_waits(engine: Engine) -> None:
    await engine.log.open({A: 1})
    waiting = asyncio.ensure_future(engine.log.wait(A, 0, asyncio.get_running_loop().time() + 3600))
    await asyncio.sleep(0)
    await engine.close()
    (result,) = await asyncio.gather(waiting, return_exceptions=True)
    _same(result is False or isinstance(result, StorageError), True, f"a wait that ended with {result!r} on close")


# --- the log: forgetting ------------------------------------------------------------------------------------------


@_check
async def trim_forgets_from_the_front(engine: Engine) -> None:
    await engine.log.open({A: 1})
    for first in range(0, 12, 4):
        await _put(engine, A, *_rows(first, first + 4))
    await engine.log.trim(A, 6)
    _same(await engine.log.bounds([A]), [Bounds(6, 12, 1)], "bounds after trim(6)")
    _same(await engine.log.read(A, 5, LOTS), [], "read below the oldest row")
    _same(_flat(await engine.log.read(A, 6, LOTS)), _numbered(6, 12), "read at the oldest row")
    await engine.log.trim(A, 3)
    await engine.log.trim(A, -1)
    _same(await engine.log.bounds([A]), [Bounds(6, 12, 1)], "bounds after trimming backwards")
    await engine.log.trim(A, 10**30)
    _same(await engine.log.bounds([A]), [Bounds(12, 12, 1)], "bounds after trimming more than all")
    _same(await engine.log.seek(A, 0), 12, "seek when all is trimmed")
    _same(await _put(engine, A, *_rows(12, 14)), 12, "the number after everything was trimmed")
    _same(_flat(await engine.log.read(A, 12, LOTS)), _numbered(12, 14), "rows after everything was trimmed")
    await engine.log.trim(C, 5)
    _same(await engine.log.bounds([C]), [None], "trim of a partition that was never opened")


@_check
async def drop_forgets_a_stream_alone(engine: Engine) -> None:
    longer = PartitionRef("stream-a2", 0)
    await engine.log.open({A: 1, B: 1, C: 1, longer: 1})
    for ref in (A, B, C, longer):
        await _put(engine, ref, *_rows(0, 3))
    await engine.log.drop("stream-a")
    found = await engine.log.bounds([A, B, C, longer])
    _same(found, [None, None, Bounds(0, 3, 1), Bounds(0, 3, 1)], "bounds after a drop")
    _same(await engine.log.read(A, 0, LOTS), [], "read of a dropped partition")
    _same(_flat(await engine.log.read(C, 0, LOTS)), _numbered(0, 3), "read of another stream")
    (refused,) = await engine.log.append([(A, _rows(0, 1), 1)], NOW)
    _same(isinstance(refused, AppendRefused) and refused.epoch, None, "append to a dropped partition")
    await engine.log.drop("stream-a")
    for unknown in ("never was", "", "\ud800", "x" * 400, "ü" * 400, "x" * 100_000):
        await engine.log.drop(unknown)


@_check
async def a_dropped_stream_can_be_opened_anew(engine: Engine) -> None:
    await engine.log.open({A: 7})
    await engine.log.append([(A, _rows(0, 9), 7)], NOW)
    await engine.log.drop(A.stream_id)
    await engine.log.open({A: 1})
    _same(await engine.log.bounds([A]), [Bounds(0, 0, 1)], "bounds of a stream opened anew")
    _same(await engine.log.read(A, 0, LOTS), [], "rows of a stream opened anew")
    _same(await _put(engine, A, Row(b"new")), 0, "the first number of a stream opened anew")
    _same(_flat(await engine.log.read(A, 0, LOTS)), [(0, b"new")], "rows of a stream opened anew")


# --- the catalog --------------------------------------------------------------------------------------------------


async def _version(engine: Engine, key: str) -> int:
    found = await engine.catalog.get(key)
    return found.version if found else 0


@_check
async def catalog_keeps_bytes(engine: Engine) -> None:
    values = {"a": b"", "b": bytes(range(256)), "c/ü/鍵/🔑": b"x" * 100_000, "\x00": b"zero", "k" * 500: b"long"}
    await engine.catalog.transact({}, values)
    for key, value in values.items():
        found = await engine.catalog.get(key)
        _same(found.value if found else None, value, f"value of {key[:20]!r}")
    for absent in ("", "b2", "k" * 501, "k" * 5000, "\ud800"):
        _same(await engine.catalog.get(absent), None, f"get of the absent {absent[:20]!r}")


@_check
async def versions_differ_after_each_change(engine: Engine) -> None:
    seen = {0}
    for change in range(6):
        await engine.catalog.transact({"k": await _version(engine, "k")}, {"k": b"same", "other": b""})
        version = await _version(engine, "k")
        _same(version > 0 and version not in seen, True, f"version {version} is new after change {change}")
        seen.add(version)
        if change % 2:
            await engine.catalog.transact({}, {}, ["k"])
            _same(await engine.catalog.get("k"), None, "a deleted key")


@_check
async def a_conflict_changes_nothing(engine: Engine) -> None:
    await engine.catalog.transact({}, {"a": b"1", "b": b"1"})
    a, b = await _version(engine, "a"), await _version(engine, "b")
    conflicts = (
        {"a": a, "b": b + 1},
        {"a": a, "b": 0},
        {"absent": 1, "a": a},
        {"k" * 600: 1},
        {"": 1},
    )
    for expect in conflicts:
        call = engine.catalog.transact(expect, {"a": b"2", "new": b"2"}, ["b"])
        await _raises(CatalogConflict, call, f"transact that expects {str(expect)[:40]}")
    expected = [("a", Versioned(b"1", a)), ("b", Versioned(b"1", b))]
    _same(await engine.catalog.scan(""), expected, "catalog after conflicts")
    await engine.catalog.transact({"a": a, "b": b, "absent": 0, "": 0}, {"a": b"2", "new": b"2"}, ["b", "absent"])
    found = [(key, value.value) for key, value in await engine.catalog.scan("")]
    _same(found, [("a", b"2"), ("new", b"2")], "catalog after a transaction of many keys")
    await _raises(CatalogConflict, engine.catalog.transact({"b": b}, {"b": b"3"}), "the version before a delete")


@_check
async def one_of_many_concurrent_transactions_wins(engine: Engine) -> None:
    calls = [engine.catalog.transact({"k": 0}, {"k": b"%d" % n, f"trace-{n}": b""}) for n in range(30)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    _same([result for result in results if not isinstance(result, CatalogConflict)], [None], "transactions that won")
    _same(len(await engine.catalog.scan("")), 2, "keys that the winner left")


@_check
async def conflicts_do_not_disturb_neighbours(engine: Engine) -> None:
    await engine.log.open({A: 1})
    calls: list[Awaitable[object]] = []
    for n in range(20):
        calls.append(engine.catalog.transact({"never": 9}, {"never": b""}))
        calls.append(engine.catalog.transact({}, {f"{n:02}": b""}))
        calls.append(engine.log.append([(A, _rows(n, n + 1), 1), (C, _rows(0, 1), 1)], NOW))
    await asyncio.gather(*calls, return_exceptions=True)
    _same([key for key, _ in await engine.catalog.scan("")], [f"{n:02}" for n in range(20)], "keys put in between")
    _same(_flat(await engine.log.read(A, 0, LOTS)), _numbered(0, 20), "rows appended in between")


@_check
async def impossible_transactions_are_refused(engine: Engine) -> None:
    await _raises(ConfigError, engine.catalog.transact({}, {"a": b"", "b": b""}, ["b"]), "a key both put and deleted")
    for key in ("", "k" * 501, "ü" * 251, "\ud800"):
        await _raises(ConfigError, engine.catalog.transact({}, {key: b"", "a": b""}), f"put of {key[:10]!r}")
    _same(await engine.catalog.scan(""), [], "catalog after refused transactions")
    await engine.catalog.transact({}, {}, ["", "k" * 600, "absent", "\ud800"])


@_check
async def scans_page_in_code_point_order(engine: Engine) -> None:
    # UTF-16 would put U+FFFD behind U+1F511; many locales would mix cases.
    keys = sorted(
        ["a/", "a/B", "a/b", "a/b/c", "a/é", "a/\uffff", "a/\ufffd", "a/\U0001f511", "a/\x00", "A/a", "a0", "b"]
    )
    await engine.catalog.transact({}, {key: key.encode() for key in keys})
    for prefix in ("", "a", "a/", "a/b", "b", "c", "a/\uffff", "a/é", "\ud800", "x" * 600):
        expected = [key for key in keys if key.startswith(prefix)]
        _same([key for key, _ in await engine.catalog.scan(prefix)], expected, f"scan({prefix[:9]!r})")
        for limit in (1, 2, 3, 100):
            paged: list[str] = []
            while page := await engine.catalog.scan(prefix, paged[-1] if paged else "", limit):
                _same(len(page) <= limit, True, f"a page of {len(page)} stays within {limit}")
                paged += [key for key, _ in page]
            _same(paged, expected, f"scan({prefix[:9]!r}) in pages of {limit}")
    for after in ("a/", "a/a", "a/b", "z", "a/\uffff", "a/\ud800", "a/b" + "z" * 600):
        expected = [key for key in keys if key.startswith("a/") and key > after]
        _same([key for key, _ in await engine.catalog.scan("a/", after)], expected, f"scan behind {after[:9]!r}")
    _same(await engine.catalog.scan("", "", 0), [], "scan of no keys")
    (found,) = await engine.catalog.scan("b")
    _same(found, ("b", await engine.catalog.get("b")), "scan and get")


# --- life ---------------------------------------------------------------------------------------------------------


@_check
async def closed_engines_refuse(engine: Engine) -> None:
    await engine.log.open({A: 1})
    pending = [asyncio.ensure_future(engine.log.append([(A, _rows(n, n + 1), 1)], NOW)) for n in range(5)]
    await asyncio.sleep(0)
    await engine.close()
    _same(await asyncio.gather(*pending), [[n] for n in range(5)], "appends that were accepted before the close")
    await engine.close()
    calls: list[Awaitable[object]] = [
        engine.log.open({A: 2}),
        engine.log.append([(A, _rows(0, 1), 1)], NOW),
        engine.log.read(A, 0, LOTS),
        engine.log.wait(A, 0, 0.0),
        engine.log.bounds([A]),
        engine.log.seek(A, 0),
        engine.log.trim(A, 1),
        engine.log.drop("stream-a"),
        engine.catalog.get("k"),
        engine.catalog.scan(""),
        engine.catalog.transact({}, {"k": b""}),
    ]
    for index, call in enumerate(calls):
        await _raises(StorageError, call, f"call {index} on a closed engine")


@_durable
async def an_engine_that_never_started_refuses(make: Callable[[], Engine]) -> None:
    engine = make()
    await _raises(StorageError, engine.log.bounds([A]), "a call before start()")
    await engine.close()


@_durable
async def everything_survives_reopening(make: Callable[[], Engine]) -> None:
    rows = [Row(b"x", "k", 5), Row(b"", None, None), Row(b"y", "ü", 6)]
    async with opened(make()) as engine:
        await engine.log.open({A: 1, B: 4, C: 1})
        await _put(engine, A, *rows)
        await _put(engine, C, *_rows(0, 10))
        await engine.log.trim(A, 1)
        await engine.log.open({C: 2})
        await engine.catalog.transact({}, {"a": b"1", "b": b"2"})
        kept = await engine.catalog.scan("")
    async with opened(make()) as engine:
        expected = [Bounds(1, 3, 1), Bounds(0, 0, 4), Bounds(0, 10, 2)]
        _same(await engine.log.bounds([A, B, C]), expected, "bounds after reopening")
        _same(await engine.log.read(A, 1, LOTS), [Batch(1, NOW, rows[1:])], "rows after reopening")
        _same(await engine.catalog.scan(""), kept, "catalog after reopening")
        _same(await engine.log.append([(A, _rows(0, 1), 1), (B, _rows(0, 1), 4)], NOW - 99), [3, 0], "next numbers")
        times = [batch.append_ms for batch in await engine.log.read(A, 1, LOTS)]
        _same(times, [NOW, NOW], "append times under a clock that jumped back meanwhile")


@_durable
async def numbers_never_restart(make: Callable[[], Engine]) -> None:
    for life in range(3):
        async with opened(make()) as engine:
            await engine.log.open({A: 1})
            _same(await engine.log.bounds([A]), [Bounds(life * 5, life * 5, 1)], f"bounds in life {life}")
            _same(await _put(engine, A, *_rows(0, 5), now_ms=NOW - life), life * 5, f"first number of life {life}")
            (batch,) = await engine.log.read(A, life * 5, LOTS)
            _same(batch.append_ms, NOW, "append time when no older row is left to compare with")
            await engine.log.trim(A, LOTS)


@_durable
async def dropped_streams_stay_dropped(make: Callable[[], Engine]) -> None:
    async with opened(make()) as engine:
        await engine.log.open({A: 1, C: 1})
        await _put(engine, A, *_rows(0, 5))
        await engine.log.drop(A.stream_id)
    async with opened(make()) as engine:
        _same(await engine.log.bounds([A, C]), [None, Bounds(0, 0, 1)], "bounds after a drop and reopening")
        await engine.log.open({A: 1})
        _same(await engine.log.read(A, 0, LOTS), [], "rows of a stream opened anew")
        _same(await _put(engine, A, Row(b"")), 0, "the first number of a stream opened anew")


@_durable
async def versions_never_return(make: Callable[[], Engine]) -> None:
    seen: set[int] = set()
    for _ in range(3):
        async with opened(make()) as engine:
            await engine.catalog.transact({"k": 0}, {"k": b""})
            seen.add(await _version(engine, "k"))
            await engine.catalog.transact({}, {}, ["k"])
    _same(len(seen), 3, f"different versions in three lives, of {seen}")
