"""What every engine promises of rows, however they are handed over, as checks."""

from __future__ import annotations

from ..engine.api import Batch, Engine, Entry, Row
from ..engine.columns import Columns
from .checks import LOTS, NOW, A, B, flat, numbered, promise, put, rows_of, same, timed


@promise
async def rows_come_back_as_they_were(engine: Engine) -> None:
    await engine.log.open({A: 1})
    rows = [
        Row(b""),
        Row(bytes(range(256)), "key", NOW),
        Row(b"\x00" * 70_000, "schlüssel-鍵-🔑", 0),
        Row(b"x", "", -1),
        Row(b"y", None, 2**63 - 1),
    ]
    await put(engine, A, *rows)
    (batch,) = await engine.log.read(A, 0, LOTS)
    same(list(batch.rows), rows, "rows read back")
    same(await engine.log.read(A, 1, LOTS), [Batch(1, NOW, rows[1:])], "rows from the second on")


@promise
async def each_row_keeps_its_own_time(engine: Engine) -> None:
    """Written one by one, by producers that tell a timestamp and by others: engines may store such rows together."""
    await engine.log.open({A: 1, B: 1})
    rows = [Row(b"%d" % n, f"k{n}" if n % 3 else None, n if n % 5 == 0 else None) for n in range(100)]
    stored = [(n, NOW + n // 2 * 10, row) for n, row in enumerate(rows)]
    for _, time, row in stored:
        await put(engine, A, row, now_ms=time)
    await put(engine, B, *rows_of(0, 1))
    for begin in (*range(0, 100, 7), 99):
        same(timed(await engine.log.read(A, begin, LOTS)), stored[begin:], f"rows and times from {begin} on")
        weight = sum(row.weight for _, _, row in stored[begin : begin + 9])
        same(timed(await engine.log.read(A, begin, weight)), stored[begin : begin + 9], f"nine rows from {begin} on")
    for time in range(NOW - 5, NOW + 500, 5):
        expected = next((n for n, at, _ in stored if at >= time), 100)
        same(await engine.log.seek(A, time), expected, f"seek({time - NOW} after the first)")
    await engine.log.trim(A, 41)
    same(timed(await engine.log.read(A, 41, LOTS)), stored[41:], "what is left after a trim")
    same(await engine.log.seek(A, NOW), 41, "seek to before the oldest row")
    same(await engine.log.seek(A, NOW + 211), 44, "seek behind the oldest row")


@promise
async def columns_are_rows(engine: Engine) -> None:
    await engine.log.open({A: 1, B: 1})
    rows = [Row(b"one", "key", NOW), Row(b"", "schlüssel"), Row(b"three"), Row(b"4", "", 7)]
    payloads = memoryview(b"<onethree4>")[1:-1]  # they may be a part of what came
    whole = Columns(["key", "schlüssel", None, ""], [3, 0, 5, 1], [NOW, None, None, 7], payloads)
    entries = [Entry(A, whole, 1), Entry(A, whole[1:3], 1), Entry(B, Columns.of(rows[2:3]), 1)]
    same(await engine.log.append(entries, NOW), [0, 4, 0], "append of columns, of a cut of them, and of some from rows")
    whole.pop()
    found = [row for batch in await engine.log.read(A, 0, LOTS) for row in batch.rows]
    same(found, [*rows, *rows[1:3]], "rows read back")
    same(await engine.log.read(A, 5, LOTS), [Batch(5, NOW, rows[2:3])], "the last of them")
    same(await engine.log.read(B, 0, LOTS), [Batch(0, NOW, rows[2:3])], "rows of the second partition")


@promise
async def the_caller_may_reuse_its_list(engine: Engine) -> None:
    await engine.log.open({A: 1})
    rows = rows_of(0, 2)
    await engine.log.append([Entry(A, rows, 1)], NOW)
    rows.clear()
    same(flat(await engine.log.read(A, 0, LOTS)), numbered(0, 2), "rows after the caller's list was cleared")
