"""Directories that earlier versions wrote: read, taken over, and marked; those of later ones: refused by everybody.

And those of the present one, in bytes that this file makes and not the engine.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import lmdb
import msgspec
import pytest
from data_worlds import CONFIG, A, edited, fill, quiet

from disstream.engine.api import Bounds, Entry, Row
from disstream.engine.embedded import EmbeddedEngine, progress
from disstream.engine.embedded.backup import backup, compact, restore
from disstream.engine.embedded.check import check
from disstream.engine.embedded.environment import FORMAT
from disstream.engine.embedded.figures import figures
from disstream.errors import StorageError
from disstream.testing.engine import opened

BATCHES = [
    [Row(b"a", "k"), Row(b"", None, 7), Row(b"ccc", "")],
    [Row(b"d")],
    [Row(b"e" * 9000, "schlüssel", -1), Row(b"f", None, 2**60)],
]
ROWS = [row for rows in BATCHES for row in rows]


def value_1(rows: Sequence[Row], first: int, append_ms: int) -> bytes:
    """Format 1: behind the header, msgpack of [data, key, timestamp] of each row."""
    body = msgspec.msgpack.encode([[row.data, row.key, row.timestamp] for row in rows])
    return _sealed(len(rows), first, append_ms, sum(row.weight for row in rows), body)


def value_2(rows: Sequence[Row], first: int, append_ms: int) -> bytes:
    """Format 2: the length's highest bit, the packed columns with their size before them, the payloads."""
    stamps = [row.timestamp for row in rows]
    columns = [[row.key for row in rows], [len(row.data) for row in rows], stamps if any_told(stamps) else None]
    packed = msgspec.msgpack.encode(columns)
    body = struct.pack(">I", len(packed)) + packed + b"".join(row.data for row in rows)
    return _sealed(len(rows) | 1 << 31, first, append_ms, sum(row.weight for row in rows), body)


def value_3(rows: Sequence[Row], first: int, append_ms: int) -> bytes:
    """Format 3: rows of several appends, here a ms between two; where one has no timestamp, its append time stands."""
    times = range(append_ms - len(rows) + 1, append_ms + 1)
    stamps = [time if row.timestamp is None else row.timestamp for row, time in zip(rows, times, strict=True)]
    own = [None if row.timestamp is None else time for row, time in zip(rows, times, strict=True)]
    packed = msgspec.msgpack.encode([[row.key for row in rows], [len(row.data) for row in rows], stamps])
    kept = msgspec.msgpack.encode(own if any_told(own) else None)
    body = struct.pack(">II", len(packed), len(kept)) + packed + kept + b"".join(row.data for row in rows)
    return _sealed(len(rows) | 3 << 30, first, append_ms, sum(row.weight for row in rows), body)


def any_told(stamps: Sequence[int | None]) -> bool:
    return any(stamp is not None for stamp in stamps)


def _sealed(length: int, first: int, append_ms: int, weight: int, body: bytes) -> bytes:
    fields = struct.pack(">IQQQ", length, first, append_ms, weight)
    return struct.pack(">I", zlib.crc32(fields, zlib.crc32(body))) + fields + body


FORMS: dict[int, Callable[[Sequence[Row], int, int], bytes]] = {1: value_1, 2: value_2, 3: value_3}


def written(directory: Path, number: int) -> None:
    """A directory as a version of that format left it: partition 0 of stream s, a batch each 1000 ms, one document."""
    tables = ["meta", "partitions", "batches", "dropped", "catalog"] + (["writers"] if number > 1 else [])
    with lmdb.Environment(os.fspath(directory), max_dbs=9, map_size=1 << 30) as env, env.begin(write=True) as txn:
        table = {name: env.open_db(name.encode(), txn=txn) for name in tables}
        txn.put(b"format", struct.pack(">I", number), db=table["meta"])
        for counter in (b"slot", b"version"):
            txn.put(counter, struct.pack(">Q", 1), db=table["meta"])
        txn.put(struct.pack(">H1sI", 1, b"s", 0), struct.pack(">QQQQQ", 1, 1, 0, 0, 0), db=table["partitions"])
        txn.put(b"key", struct.pack(">Q", 1) + b"document", db=table["catalog"])
        first = 0
        for n, rows in enumerate(BATCHES):
            key = struct.pack(">QQ", 1, first + len(rows) - 1)
            txn.put(key, FORMS[number](rows, first, 1000 * n + 1000), db=table["batches"])
            first += len(rows)


@pytest.mark.parametrize("number", FORMS)
async def test_each_format(tmp_path: Path, number: int) -> None:
    """Checked, counted and copied as it is; a server reads it, appends, and marks it; then it is checked again."""
    written(tmp_path, number)
    found = check(str(tmp_path), quiet)
    assert (found.findings, found.format, found.rows, found.documents) == ([], number, len(ROWS), 1)
    counted = figures(str(tmp_path), quiet)
    assert (counted.format, counted.rows, counted.partitions[0].newest_ms) == (number, len(ROWS), 3000)
    backup(str(tmp_path), str(tmp_path / "copy"), quiet, compact=True)
    restore(str(tmp_path / "copy"), str(tmp_path / "again"), quiet)
    assert compact(str(tmp_path / "again"), quiet).format == number
    for directory in (tmp_path, tmp_path / "again"):
        async with opened(EmbeddedEngine(directory, CONFIG)) as engine:
            assert await engine.log.bounds([A]) == [Bounds(0, len(ROWS), 1)]
            for begin in range(len(ROWS)):
                batches = await engine.log.read(A, begin, 1 << 20)
                assert [row for batch in batches for row in batch.rows] == ROWS[begin:]
            first = 2 if number > 2 else 0  # whose time is 1000
            assert [await engine.log.seek(A, ms) for ms in (0, 1000, 1001, 2001, 3001)] == [0, first, 3, 4, 6]
            assert await engine.log.append([Entry(A, [Row(b"new")], 1)], 4000) == [len(ROWS)]
            stored = await engine.catalog.get("key")
            assert stored is not None
            assert stored.value == b"document"
        found = check(str(directory), quiet)
        assert (found.findings, found.format, found.rows) == ([], FORMAT, len(ROWS) + 1)
    assert check(str(tmp_path / "copy"), quiet).format == number


@pytest.mark.parametrize("number", FORMS)
async def test_taking_over_tells_how_far_it_is(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first start, which counts every batch, and no later one; what takes no time says nothing."""
    caplog.set_level("INFO", "disstream.engine")
    for name in ("slow", "fast"):
        (tmp_path / name).mkdir()
        written(tmp_path / name, number)
    async with opened(EmbeddedEngine(tmp_path / "fast", CONFIG)):
        assert not caplog.records
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    monkeypatch.setattr(progress, "LOOK_STEPS", 1)
    async with opened(EmbeddedEngine(tmp_path / "slow", CONFIG)):
        lines = [record.getMessage() for record in caplog.records]
    first = f"taking over {tmp_path / 'slow'}, counting its batches once: "
    count = len(BATCHES)
    assert lines[:-1] == [f"{first}{n} of {count} ({100 * n // count} %)" for n in range(1, count + 1)]
    assert lines[-1].startswith(f"{first}done after ")
    caplog.clear()
    async with opened(EmbeddedEngine(tmp_path / "slow", CONFIG)):
        assert not caplog.records


async def test_a_later_format_is_refused_by_everybody(tmp_path: Path) -> None:
    """Each command and the server name both formats, and leave the directory as it is."""
    await fill(tmp_path / "data")
    backup(str(tmp_path / "data"), str(tmp_path / "copy"), quiet)
    for directory in (tmp_path / "data", tmp_path / "copy"):
        with edited(directory) as (txn, tables):
            txn.put(b"format", struct.pack(">I", FORMAT + 4), db=tables["meta"])
    before = (tmp_path / "data" / "data.mdb").read_bytes()
    data, copy, other = str(tmp_path / "data"), str(tmp_path / "copy"), str(tmp_path / "other")
    for job in (
        lambda: check(data, quiet),
        lambda: figures(data, quiet),
        lambda: backup(data, other, quiet),
        lambda: compact(data, quiet),
        lambda: restore(copy, other, quiet),
    ):
        with pytest.raises(
            StorageError, match=f"has format {FORMAT + 4}, this version of disstream writes .* {FORMAT}:"
        ):
            job()
    with pytest.raises(StorageError, match=f"has format {FORMAT + 4}"):
        await EmbeddedEngine(data, CONFIG).start()
    assert not (tmp_path / "other").exists()
    assert (tmp_path / "data" / "data.mdb").read_bytes() == before
