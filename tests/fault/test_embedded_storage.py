"""The embedded engine when its storage fails it: every failure is a clean StorageError, and what was stored stays."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import queue
import resource
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import lmdb
import msgspec
import pytest

from disstream.engine.api import Batch, Bounds, Entry, PartitionRef, Replayed, Row, Span, Writer
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine, commit, merging, sweeping
from disstream.engine.embedded.environment import Environment
from disstream.errors import ConfigError, OutcomeUnknown, StorageError, StorageFull
from disstream.testing.engine import opened

A = PartitionRef("s", 0)
B = PartitionRef("s", 1)
CONFIG = EmbeddedConfig(map_size_bytes=1 << 30)


async def append(engine: EmbeddedEngine, *data: bytes, ref: PartitionRef = A) -> object:
    (first,) = await engine.log.append([Entry(ref, [Row(item) for item in data], 1)], 1)
    return first


def environment(engine: EmbeddedEngine) -> Environment:
    return engine.log._committer.check()


def stored_batches(engine: EmbeddedEngine) -> int:
    env = environment(engine)
    with env.reading() as txn:
        return txn.stat(env.batches)["entries"]


def eio(what: str) -> lmdb.Error:
    error = lmdb.Error(what)
    vars(error)["code"] = errno.EIO  # as LMDB's own have it
    return error


class FailingEnv:
    """An LMDB environment whose next commit fails at its meta page, or whose syncs fail, with EIO."""

    def __init__(self, real: lmdb.Environment, fails: str) -> None:
        self._real = real
        self._fails = fails
        self._panic = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def begin(self, **options: Any) -> Any:
        if self._panic and options.get("write"):
            raise lmdb.PanicError("mdb_txn_begin")
        txn = self._real.begin(**options)
        return self._doomed(txn) if options.get("write") and self._fails == "meta" else txn

    @contextlib.contextmanager
    def _doomed(self, txn: lmdb.Transaction) -> Iterator[lmdb.Transaction]:
        with txn:
            yield txn
            self._panic = True
            self._fails = ""
            raise eio("mdb_txn_commit")

    def sync(self, force: bool = False) -> None:
        raise eio("mdb_env_sync")


@contextlib.contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """write() beyond it fails with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_full_map_stores_nothing(tmp_path: Path) -> None:
    """A full map refuses the append, names the setting, leaves no hole in the numbers, and the engine goes on."""
    async with opened(EmbeddedEngine(tmp_path, EmbeddedConfig(map_size_bytes=1 << 20))) as engine:
        await engine.log.open({A: 1, B: 1})
        assert await append(engine, b"before") == 0
        with pytest.raises(StorageError, match="map_size_bytes") as caught:
            await engine.log.append([Entry(B, [Row(b"small")], 1), Entry(A, [Row(bytes(4 << 20))], 1)], 1)
        assert not isinstance(caught.value, OutcomeUnknown)
        assert await engine.log.bounds([A, B]) == [Bounds(0, 1, 1), Bounds(0, 0, 1)]
        assert await append(engine, b"after") == 1
        assert await append(engine, b"after", ref=B) == 0


async def fill(engine: EmbeddedEngine) -> int:
    """Append until there is no room; how many were stored. What was freed last may be used after one refusal only."""
    stored = 0
    for number in count():
        try:
            await append(engine, bytes(9_000))
            stored += 1
        except StorageFull:
            if number or not engine.stats().refusing:
                return stored
    raise AssertionError


async def test_a_full_map_is_emptied(tmp_path: Path) -> None:
    """Where map_size_bytes ends, reading, the catalog, trims and drops go on, and appends do again in what these free;
    so it is time after time."""
    async with opened(EmbeddedEngine(tmp_path, EmbeddedConfig(map_size_bytes=2 << 20, ballast_bytes=0))) as engine:
        await engine.log.open({A: 1})
        stored = 0
        for round_ in range(5):
            before = stored
            stored += await fill(engine)
            assert stored - before > 20, round_
            assert "raise map_size_bytes" in str(engine.stats().refusing)
            for number in range(200):
                await engine.catalog.transact({}, {"key": b"%d" % number})
            assert (await engine.log.bounds([A]))[0] == Bounds(before, stored, 1)
            assert len((await engine.log.read(A, stored - 1, 1 << 20))[0].rows) == 1
            await engine.log.trim(A, stored)
            while stored_batches(engine):
                await engine.catalog.transact({}, {"key": b""})
        await engine.log.drop("s")


async def test_full_disk_stores_nothing(tmp_path: Path) -> None:
    """A commit that cannot write its pages stored nothing, and the engine goes on when there is room again."""
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await engine.log.open({A: 1})
        await append(engine, b"before")
        with files_end_at(1 << 20), pytest.raises(StorageFull, match=r"nothing was stored.*File too large"):
            await append(engine, bytes(4 << 20))
        assert engine.stats().refusing
        assert await append(engine, b"after") == 1
        assert not engine.stats().refusing
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        assert [row.data for batch in await engine.log.read(A, 0, 99) for row in batch.rows] == [b"before", b"after"]


async def test_failed_commit_stops_the_engine(tmp_path: Path) -> None:
    """A commit that fails at its meta page has an unknown outcome; from then on everything is refused."""
    engine = EmbeddedEngine(tmp_path, CONFIG)
    await engine.start()
    await engine.log.open({A: 1})
    await append(engine, b"before")
    waiting = asyncio.ensure_future(engine.log.wait(A, 5, asyncio.get_running_loop().time() + 3600))
    await asyncio.sleep(0)
    env = environment(engine)
    env.env = FailingEnv(env.env, "meta")  # type: ignore[assignment]
    results = await asyncio.gather(append(engine, b"1"), append(engine, b"2"), return_exceptions=True)
    # Both in one transaction, or the second was still waiting and then certainly did not happen.
    assert [type(result) for result in results] in ([OutcomeUnknown] * 2, [OutcomeUnknown, StorageError])
    assert await waiting is False
    with pytest.raises(StorageError, match="stops"):
        await append(engine, b"3")
    with pytest.raises(StorageError, match="stops"):
        await engine.log.read(A, 0, 99)
    with pytest.raises(StorageError, match="check the disk"):
        await engine.wait_failed()
    assert "check the disk" in str(engine.stats().refusing)
    await engine.close()
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as again:
        assert await again.log.bounds([A]) == [Bounds(0, 1, 1)]


async def test_a_thread_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the user may have no more threads a start fails, and closing what was not started ends."""

    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    engine = EmbeddedEngine(tmp_path, CONFIG)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refused)
        with pytest.raises(RuntimeError, match="thread"):
            await engine.start()
    await asyncio.wait_for(engine.close(), 10)


class Resting(queue.SimpleQueue[Any]):
    """The queue of the thread; tells whether that waits for as long as it takes."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if timeout is None:
            self.event.set()
        return super().get(block, timeout)


async def test_an_engine_that_has_stopped_rests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sync of relaxed that is due when a commit fails does not keep the thread, and the loop, busy until it is
    closed."""
    resting = Resting()
    stop = commit.Committer._stop_thread

    def stopping(*args: Any) -> StorageError:
        resting.event.clear()
        return stop(*args)

    monkeypatch.setattr(commit.Committer, "_stop_thread", stopping)
    config = EmbeddedConfig(map_size_bytes=1 << 30, durability="relaxed", sync_interval_s=0.001)
    engine = EmbeddedEngine(tmp_path, config)
    engine._log._committer._queue = resting
    async with opened(engine):
        await engine.log.open({A: 1})
        env = environment(engine)
        env.env = FailingEnv(env.env, "meta")  # type: ignore[assignment]
        with pytest.raises(OutcomeUnknown):
            await append(engine, b"1")
        assert await asyncio.to_thread(resting.event.wait, 10)


async def test_failed_sync_stops_a_relaxed_engine(tmp_path: Path) -> None:
    """When the periodic sync fails, the engine says so instead of collecting rows that will be lost."""
    engine = EmbeddedEngine(
        tmp_path, EmbeddedConfig(durability="relaxed", sync_interval_s=0.001, map_size_bytes=1 << 30)
    )
    await engine.start()
    await engine.log.open({A: 1})
    env = environment(engine)
    assert env.synced is not None
    env.synced._env = FailingEnv(env.env, "sync")  # type: ignore[assignment]
    waiting = asyncio.ensure_future(engine.log.wait(A, 5, asyncio.get_running_loop().time() + 3600))
    with contextlib.suppress(StorageError):  # the sync after open() may have failed already
        await append(engine, b"1")
    assert await waiting is False
    with pytest.raises(StorageError, match="mdb_env_sync"):
        await append(engine, b"2")
    await engine.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_bug_on_the_thread_hangs_nobody(tmp_path: Path) -> None:
    """If a job dies of a bug, those who wait are told that they cannot know, and the directory is released."""
    engine = EmbeddedEngine(tmp_path, CONFIG)
    await engine.start()
    await engine.log.open({A: 1})
    failing = asyncio.ensure_future(engine.wait_failed())
    await asyncio.sleep(0)
    bug = engine.log._committer.submit(lambda write: 1 // 0)
    results = await asyncio.gather(bug, append(engine, b"1"), return_exceptions=True)
    assert [type(result) for result in results] == [OutcomeUnknown, OutcomeUnknown]
    with pytest.raises(StorageError, match="died"):
        await failing
    await engine.close()
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as again:
        assert await again.log.bounds([A]) == [Bounds(0, 0, 1)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_bug_while_opening_hangs_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the thread dies before it opened the directory, start() raises, and the directory is free."""
    with monkeypatch.context() as patch:
        patch.setattr(Environment, "load", lambda self: 1 // 0)
        engine = EmbeddedEngine(tmp_path, CONFIG)
        with pytest.raises(OutcomeUnknown, match="died"):
            await engine.start()
        await engine.close()
    async with opened(EmbeddedEngine(tmp_path, CONFIG)):
        pass


async def test_flipped_bit_is_reported(tmp_path: Path) -> None:
    """A damaged row is a StorageError that names partition and sequence; the rows around it can still be read."""
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await engine.log.open({B: 1})
        for data in (b"first", b"a payload to be damaged", b"last"):
            await append(engine, data, data, ref=B)
    path = tmp_path / "data.mdb"
    content = bytearray(path.read_bytes())
    positions = [at for at in range(len(content)) if content.startswith(b"a payload to be damaged", at)]
    assert positions
    for at in positions:
        content[at + 3] ^= 1
    path.write_bytes(content)
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        with pytest.raises(StorageError, match=r"sequence number 3 of partition 1 \(stream id s\).*checksum"):
            await engine.log.read(B, 3, 1 << 20)
        with pytest.raises(StorageError, match="sequence number 2"):
            await engine.log.read(B, 2, 1 << 20)
        assert [len(batch.rows) for batch in await engine.log.read(B, 0, 1 << 20)] == [2]
        assert len((await engine.log.read(B, 4, 99))[0].rows) == 2


async def test_file_that_is_cut_short(tmp_path: Path) -> None:
    """A file that lost its end is refused with its size and the remedy; nothing is touched that is not there."""
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await engine.log.open({A: 1})
        for number in range(20):
            await append(engine, bytes(5_000 * number))
    path = tmp_path / "data.mdb"
    content = path.read_bytes()
    for size in range(4096, len(content), len(content) // 9):
        path.write_bytes(content[:size])
        told = "restore a copy" if size == 4096 else rf"cut short: {size} of [0-9]+ bytes are there.*restore a copy"
        for _ in range(2):  # twice: the first refusal has released the directory
            with pytest.raises(StorageError, match=told):
                await EmbeddedEngine(tmp_path, CONFIG).start()
    path.write_bytes(content)
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        assert await engine.log.bounds([A]) == [Bounds(0, 20, 1)]


async def test_batches_that_lost_their_end(tmp_path: Path) -> None:
    """However many pages of a file are gone, opening or reading it says so: the process lives, no row is invented."""
    rows = [bytes([number]) * 100_000 for number in range(1, 6)]
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await engine.log.open({A: 1})
        for row in rows:
            await append(engine, row)
    path = tmp_path / "data.mdb"
    content = path.read_bytes()
    told = []
    for pages in range(1, 40):
        path.write_bytes(content[: -4096 * pages])
        try:
            async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
                for number, row in enumerate(rows):
                    (found,) = await engine.log.read(A, number, 150_000)
                    assert found.rows[0].data == row
        except StorageError as exc:
            told.append(str(exc))
    assert len(told) == 39
    assert any("cut short" in text for text in told)
    assert any("damaged" in text for text in told)


async def test_file_that_ends_with_unused_pages(tmp_path: Path) -> None:
    """LMDB does not write pages taken and given back in one transaction: a file that ends before them is whole."""
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await engine.catalog.transact({}, {"a": bytes(1_500)})
        await engine.catalog.transact({}, {"b": bytes(500)})
        env = environment(engine)
        with env.env.begin(write=True) as txn:
            txn.put(b"c", bytes(300_000), db=env.catalog)
            txn.delete(b"c", db=env.catalog)
        complete = (env.env.info()["last_pgno"] + 1) * env.env.stat()["psize"]
    assert (tmp_path / "data.mdb").stat().st_size < complete
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        assert [key for key, _ in await engine.catalog.scan("")] == ["a", "b"]
        await engine.catalog.transact({}, {"d": bytes(300_000)})
        assert len(await engine.catalog.scan("")) == 3


async def test_directory_belongs_to_one(tmp_path: Path) -> None:
    """A second engine, in this process or another, is refused with the directory and the holder's pid."""
    told = f"{tmp_path} is in use by process {os.getpid()}"
    script = (
        "import asyncio, sys\n"
        "from disstream.engine.embedded import EmbeddedEngine\n"
        "try: asyncio.run(EmbeddedEngine(sys.argv[1]).start())\n"
        "except Exception as exc: print(type(exc).__name__, exc)\n"
    )
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        with pytest.raises(StorageError, match=told):
            await EmbeddedEngine(tmp_path, CONFIG).start()
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True, timeout=30
        )
        assert done.stdout.startswith(f"StorageError the data directory {told}")
        await engine.log.open({A: 1})
    async with opened(EmbeddedEngine(tmp_path, CONFIG)):
        pass


async def test_newer_format_is_refused(tmp_path: Path) -> None:
    """A directory of a newer version is refused with both numbers, and left as it is."""
    with lmdb.Environment(str(tmp_path), max_dbs=5) as env, env.begin(write=True) as txn:
        txn.put(b"format", (7).to_bytes(4, "big"), db=env.open_db(b"meta", txn=txn))
    for _ in range(2):  # twice: the first refusal has released the directory
        with pytest.raises(StorageError, match=r"format 7.*format 3"):
            await EmbeddedEngine(tmp_path, CONFIG).start()
    with lmdb.Environment(str(tmp_path), max_dbs=5, readonly=True) as env:
        assert env.dbs() == [b"meta"]


def in_format_1(path: Path, rows: list[list[Row]]) -> None:
    """A directory as format 1 had it: partition 0 of stream s with one batch for each list, appended at 1000 ms."""
    count = sum(map(len, rows))
    with lmdb.Environment(str(path), max_dbs=6) as env, env.begin(write=True) as txn:
        tables = {name: env.open_db(name.encode(), txn=txn) for name in ("meta", "partitions", "batches")}
        txn.put(b"format", (1).to_bytes(4, "big"), db=tables["meta"])
        txn.put(b"slot", (1).to_bytes(8, "big"), db=tables["meta"])
        state = struct.pack(">QQQQQ", 1, 1, 0, 0, 0)
        txn.put(struct.pack(">H1sI", 1, b"s", 0), state, db=tables["partitions"])
        first = 0
        for batch in rows:
            packed = msgspec.msgpack.encode([[row.data, row.key, row.timestamp] for row in batch])
            fields = struct.pack(">IQQQ", len(batch), first, 1000, sum(row.weight for row in batch))
            value = struct.pack(">I", zlib.crc32(fields, zlib.crc32(packed))) + fields + packed
            first += len(batch)
            txn.put(struct.pack(">QQ", 1, first - 1), value, db=tables["batches"])
    assert first == count


def stored_format(path: Path) -> int:
    with lmdb.Environment(str(path), max_dbs=6, readonly=True) as env, env.begin() as txn:
        return int.from_bytes(txn.get(b"format", b"", db=env.open_db(b"meta", txn=txn, create=False)), "big")


async def test_directory_of_format_1(tmp_path: Path) -> None:
    """It is taken over: what is stored is read, cut anywhere, appended to, trimmed; its format is the present one."""
    old = [[Row(b"a", "k"), Row(b"", None, 7), Row(b"ccc", "")], [Row(b"d")]]
    new = [Row(b"e", "schlüssel"), Row(b"f", None, 8)]
    in_format_1(tmp_path, old)
    rows = [*old[0], *old[1], *new]
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        assert await engine.log.bounds([A]) == [Bounds(0, 4, 1)]
        assert [row for batch in await engine.log.read(A, 0, 999) for row in batch.rows] == rows[:4]
        (state,) = engine.log._committer.states.values()
        assert state.held == sum(row.weight for row in rows[:4])
    assert stored_format(tmp_path) == 3
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        assert await engine.log.append([Entry(A, new, 1)], 2000) == [4]
        for begin in range(7):
            found = await engine.log.read(A, begin, 999)
            assert [row for batch in found for row in batch.rows] == rows[begin:]
            assert all(batch.append_ms == (1000 if batch.first_sequence < 4 else 2000) for batch in found)
        assert await engine.log.read(A, 1, 3) == [Batch(1, 1000, rows[1:3])]
        await engine.log.trim(A, 2)
        assert [row for batch in await engine.log.read(A, 2, 999) for row in batch.rows] == rows[2:]
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        assert [row for batch in await engine.log.read(A, 2, 999) for row in batch.rows] == rows[2:]
        (state,) = engine.log._committer.states.values()
        assert state.held == sum(row.weight for row in rows)
    assert stored_format(tmp_path) == 3


P = "0123456789abcdef" * 2


async def write(engine: EmbeddedEngine, writer: Writer, *data: bytes) -> object:
    (result,) = await engine.log.append([Entry(A, [Row(item) for item in data], 1, writer)], 1)
    return result


async def test_directory_from_before_there_were_writers(tmp_path: Path) -> None:
    """A directory without the table of producers is opened, and gets one."""
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await engine.log.open({A: 1})
        await append(engine, b"old")
    with lmdb.Environment(str(tmp_path), max_dbs=6) as env, env.begin(write=True) as txn:
        txn.drop(env.open_db(b"writers", txn=txn))
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        assert await write(engine, Writer(P, 0, 0, 1), b"new") == 1
        assert await write(engine, Writer(P, 0, 0, 1), b"new") == Replayed((Span(0, 1, 1),))


async def test_damaged_producer_is_reported(tmp_path: Path) -> None:
    """What is remembered of a producer cannot be read: its rows are refused with the remedy, and nobody else's."""
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await engine.log.open({A: 1})
        await write(engine, Writer(P, 0, 0, 1), b"x")
    with lmdb.Environment(str(tmp_path), max_dbs=6) as env, env.begin(write=True) as txn:
        table = env.open_db(b"writers", txn=txn)
        ((key, _),) = txn.cursor(db=table)
        txn.put(key, b"\x00", db=table)
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        with pytest.raises(StorageError, match=f"{P}.*damaged"):
            await write(engine, Writer(P, 0, 1, 2), b"y")
        with pytest.raises(StorageError, match=f"{P}.*damaged"):
            await engine.log.recall([(A, Writer(P, 0, 1, 2), 1)], 1)
        assert await append(engine, b"y") == 1
        assert await write(engine, Writer("f" * 32, 0, 0, 1), b"z") == 2


async def test_failed_write_forgets_its_producer(tmp_path: Path) -> None:
    """Rows that were not stored are not remembered either: the same numbers are stored on the next try."""
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await engine.log.open({A: 1})
        await write(engine, Writer(P, 0, 0, 1), b"0")
        with files_end_at(1 << 20), pytest.raises(StorageFull):
            await write(engine, Writer(P, 0, 1, 2), bytes(4 << 20))
        assert await write(engine, Writer(P, 0, 1, 2), b"1") == 1
        assert await write(engine, Writer(P, 0, 0, 3), b"0", b"1") == Replayed((Span(0, 2, 0),))


async def test_unusable_directories(tmp_path: Path) -> None:
    """What cannot be created, is no LMDB file, or does not fit the address space is a StorageError with a remedy."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="name a directory"):
        await EmbeddedEngine(tmp_path / "file", CONFIG).start()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "data.mdb").write_bytes(b"no such thing " * 1000)
    with pytest.raises(StorageError, match="damaged or not ours"):
        await EmbeddedEngine(tmp_path / "foreign", CONFIG).start()
    with pytest.raises(StorageError, match="lower map_size_bytes"):
        await EmbeddedEngine(tmp_path / "large", EmbeddedConfig(map_size_bytes=1 << 60)).start()
    await EmbeddedEngine(tmp_path / "never", CONFIG).close()
    assert not (tmp_path / "never").exists()


async def test_start_only_once(tmp_path: Path) -> None:
    """An engine starts once; a cancelled start releases the directory."""
    engine = EmbeddedEngine(tmp_path, CONFIG)
    starting = asyncio.ensure_future(engine.start())
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await engine.close()
    with pytest.raises(StorageError, match="make a new one"):
        await engine.start()
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as again:
        with pytest.raises(StorageError, match="make a new one"):
            await again.start()


async def test_commits_are_shared(tmp_path: Path) -> None:
    """Appends that wait together share transactions: far fewer commits than appends."""
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await engine.log.open({A: 1})
        env = environment(engine).env
        before = env.info()["last_txnid"]
        await asyncio.gather(*[append(engine, b"x") for _ in range(300)])
        assert env.info()["last_txnid"] - before < 100


async def test_forgotten_rows_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trimmed and dropped batches leave the file piece by piece, also when the engine was closed in between.

    So does what is remembered of producers in a dropped partition.
    """
    monkeypatch.setattr(sweeping, "SWEEP_BATCHES", 10)
    monkeypatch.setattr(merging, "FEW", 1000)
    other = PartitionRef("other", 0)
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await engine.log.open({A: 1, B: 1, other: 1})
        for ref in (A, B, other):
            await asyncio.gather(*[append(engine, b"x", b"y", ref=ref) for _ in range(50)])
        assert stored_batches(engine) == 150
        await write(engine, Writer(P, 0, 0, 1), b"z")
        await engine.log.trim(A, 41)
        for _ in range(5):
            await engine.catalog.transact({}, {"k": b""})
        assert stored_batches(engine) == 131
        assert (await engine.log.read(A, 41, 99))[0].first_sequence == 41
        await engine.log.trim(A, 60)
        await engine.log.drop("s")
        assert await engine.log.bounds([A, B]) == [None, None]
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        for _ in range(20):
            await engine.catalog.transact({}, {"k": b""})
        assert stored_batches(engine) == 50
        env = environment(engine)
        with env.reading() as txn:
            assert txn.stat(env.dropped)["entries"] == 0
            assert txn.stat(env.env.open_db(b"writers"))["entries"] == 0
        assert len(await engine.log.read(other, 0, 1 << 20)) == 50


def test_config_names_what_is_wrong() -> None:
    """A configuration that cannot work is refused with the field's name."""
    with pytest.raises(ConfigError, match="durability"):
        EmbeddedConfig(durability="maybe")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="sync_interval_s"):
        EmbeddedConfig(sync_interval_s=0)
    with pytest.raises(ConfigError, match="map_size_bytes"):
        EmbeddedConfig(map_size_bytes=4096)
    with pytest.raises(ConfigError, match="ballast_bytes"):
        EmbeddedConfig(ballast_bytes=-1)
