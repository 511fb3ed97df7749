"""What depends on time or on a failing engine, on the application itself, under simulated time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from server_http import AppCaller, data

from disstream import clock
from disstream.engine import AppendRefused, Entry, PartitionRef, Replayed
from disstream.engine.memory import MemoryEngine, MemoryLog
from disstream.errors import OutcomeUnknown, StorageError
from disstream.server import App, ServerConfig, directory, layout, retention
from disstream.server.documents import decode_document, encode_document
from disstream.server.retention import keep_trimming
from disstream.testing.clock import run_simulated

HOUR = 3_600.0
CONFIG = ServerConfig(data_dir=None)


class FaultyLog(MemoryLog):
    """Does what the test put into `before_append` and `before_drop` first."""

    before_append: Callable[[], Awaitable[None]] | None = None
    before_drop: Callable[[], Awaitable[None]] | None = None

    async def append(self, entries: Sequence[Entry], now_ms: int) -> list[int | AppendRefused | Replayed]:
        if self.before_append is not None:
            await self.before_append()
        return await super().append(entries, now_ms)

    async def drop(self, stream_id: str) -> None:
        if self.before_drop is not None:
            await self.before_drop()
        await super().drop(stream_id)

    def streams(self) -> set[str]:
        return {ref.stream_id for ref in self._partitions}


class Bench(AppCaller):
    """An application on an engine whose log the test can trip."""

    def __init__(self, config: ServerConfig) -> None:
        self.engine = MemoryEngine()
        self.log = self.engine._log = FaultyLog(self.engine._life)
        super().__init__(App(self.engine, config))


def simulate(test: Callable[[Bench], Awaitable[None]], config: ServerConfig = CONFIG) -> None:
    async def main() -> None:
        bench = Bench(config)
        await bench.engine.start()
        await test(bench)
        await bench.engine.close()

    run_simulated(main)


async def fail(error: Exception) -> None:
    raise error


def test_cursors_live_five_minutes() -> None:
    """A cursor works for 300 s and is DIS.4225 afterwards; the one in the last page starts anew."""

    async def test(bench: Bench) -> None:
        await bench.create("s")
        await bench.put("s", {"data": ""})
        cursor = await bench.cursor("s", cursor_type="TRIM_HORIZON")
        await anyio.sleep(300)
        page = (await bench.get(cursor)).told
        assert len(page["records"]) == 1
        await anyio.sleep(1)
        answer = await bench.get(cursor)
        assert (answer.status, answer.code) == (400, "DIS.4225")
        await anyio.sleep(299)
        assert (await bench.get(page["next_partition_cursor"])).code == ""

    simulate(test)


def test_cursors_from_the_future() -> None:
    """A cursor stamped later than clocks may differ was never issued: DIS.4217."""

    async def test(bench: Bench) -> None:
        await bench.create("s")
        await anyio.sleep(301)
        cursor = await bench.cursor("s", cursor_type="LATEST")
        now = clock.wall()
        for back, code in ((299, ""), (301, "DIS.4217")):
            previous = clock.replace_wall(lambda back=back: now - back)  # type: ignore[misc]
            try:
                assert (await bench.get(cursor)).code == code
            finally:
                clock.replace_wall(previous)

    simulate(test)


def test_at_timestamp() -> None:
    """AT_TIMESTAMP finds the first record written at or after a time; the future is the end."""

    async def test(bench: Bench) -> None:
        await bench.create("s")
        written = []
        for _ in range(3):
            written.append(clock.wall_ms())
            await bench.put("s", {"data": "", "timestamp": 1}, {"data": ""})
            await anyio.sleep(10)
        for n, time in enumerate(written):
            assert await bench.position("s", cursor_type="AT_TIMESTAMP", timestamp=time) == 2 * n
            assert await bench.position("s", cursor_type="AT_TIMESTAMP", timestamp=time + 1) == 2 * n + 2
        assert await bench.position("s", cursor_type="AT_TIMESTAMP", timestamp=clock.wall_ms() + 10**9) == 6
        cursor = await bench.cursor("s", cursor_type="AT_TIMESTAMP", timestamp=written[1])
        assert (await bench.get(cursor)).told["records"][1]["timestamp"] == written[1]

    simulate(test)


def test_retention() -> None:
    """Records expire after their stream's own retention; numbers go on; cursors into the past get their codes."""

    async def test(bench: Bench) -> None:
        await bench.create("day")
        await bench.create("week", data_duration=168)
        for name in ("day", "week"):
            await bench.put(name, {"data": data(b"old")}, {"data": data(b"old")})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_trimming, bench.engine, bench.app.directory, bench.app.scaling, 60.0)
            await anyio.sleep(12 * HOUR)
            await bench.put("day", {"data": data(b"new")})
            await anyio.sleep(12 * HOUR - 200)
            stale = await bench.cursor("day", cursor_type="TRIM_HORIZON")
            assert len((await bench.get(stale)).told["records"]) == 3
            await anyio.sleep(280)
            assert await bench.ranges("day") == ["[2 : 3]"]
            assert (await bench.get(stale)).code == "DIS.4226"
            answer = await bench.ask_cursor("day", starting_sequence_number=1)
            assert answer.code == "DIS.4224"
            assert "[1][ should be within ][2][ ][3]" in answer.told["message"]
            assert await bench.position("day", cursor_type="TRIM_HORIZON") == 2
            after: dict[str, Any] = {"cursor_type": "AFTER_SEQUENCE_NUMBER", "starting_sequence_number": 1}
            assert await bench.position("day", **after) == 2
            assert [r["data"] for r in await bench.read("day")] == [data(b"new")]
            assert await bench.ranges("week") == ["[0 : 2]"]
            await anyio.sleep(13 * HOUR)
            assert await bench.ranges("day") == ["[3 : 3]"]
            assert (await bench.put("day", {"data": ""})).told["records"][0]["sequence_number"] == "3"
            await anyio.sleep(168 * HOUR)
            assert await bench.ranges("week") == ["[2 : 2]"]
            tasks.cancel_scope.cancel()

    simulate(test)


def test_retention_lets_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever its slice of time is over, a pass over many partitions lets waiting requests go first."""

    async def test(bench: Bench) -> None:
        for n in range(3):
            await bench.create(f"s{n}", 50)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await anyio.lowlevel.checkpoint()
                turns += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count)
            monkeypatch.setattr(retention, "SLICE_S", 1e9)
            await retention.trim_expired(bench.engine, bench.app.directory, bench.app.scaling)
            assert turns < 10
            monkeypatch.setattr(retention, "SLICE_S", 0.0)
            await retention.trim_expired(bench.engine, bench.app.directory, bench.app.scaling)
            assert turns >= 149
            tasks.cancel_scope.cancel()

    simulate(test)


def test_retention_outlives_a_failing_engine(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A trim that fails is told and tried again; the loop goes on."""

    async def test(bench: Bench) -> None:
        await bench.create("s")
        await bench.put("s", {"data": ""})
        trim = bench.log.trim
        failures = iter([StorageError("disk is gone")] * 2)

        async def sometimes(ref: PartitionRef, before: int) -> None:
            for error in failures:
                raise error
            await trim(ref, before)

        monkeypatch.setattr(bench.log, "trim", sometimes)
        async with anyio.create_task_group() as tasks:
            await anyio.sleep(25 * HOUR)
            tasks.start_soon(keep_trimming, bench.engine, bench.app.directory, bench.app.scaling, 60.0)
            await anyio.sleep(90)
            assert await bench.ranges("s") == ["[0 : 1]"]
            await anyio.sleep(60)
            assert await bench.ranges("s") == ["[1 : 1]"]
            tasks.cancel_scope.cancel()

    simulate(test)
    assert caplog.text.count("disk is gone") == 2


@pytest.mark.parametrize("error", [StorageError("disk full"), OutcomeUnknown("sync failed")])
def test_storage_that_fails(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """A failing engine is 500 with DIS.5000, logged once, without telling strangers why; the room comes back."""

    async def test(bench: Bench) -> None:
        await bench.create("s")
        bench.log.before_append = lambda: fail(error)
        for _ in range(20):
            answer = await bench.put("s", {"data": data(b"x" * 30)})
            assert (answer.status, answer.code) == (500, "DIS.5000")
            assert str(error) not in answer.told["message"]
        bench.log.before_append = None
        assert (await bench.put("s", {"data": data(b"x" * 30)})).code == ""

    simulate(test, SMALL)
    assert caplog.text.count(str(error)) == 20


SMALL = ServerConfig(data_dir=None, max_record_bytes=300, max_partition_key_bytes=10, max_pending_bytes=520)


def test_admission() -> None:
    """While bytes wait for the disk, records that no longer fit fail one by one under the suffix rule."""

    async def test(bench: Bench) -> None:
        await bench.create("s", 2)
        gate = asyncio.Event()

        async def wait() -> None:
            await gate.wait()

        bench.log.before_append = wait
        first = asyncio.create_task(bench.put("s", {"data": data(b"x" * 40)}))
        await anyio.sleep(1)
        second = asyncio.create_task(
            bench.put(
                "s",
                {"data": data(b"a" * 30), "partition_id": "0"},
                {"data": data(b"b" * 250), "partition_id": "1"},  # does not fit any more
                {"data": data(b"c" * 10), "partition_id": "0"},
                {"data": data(b"d"), "partition_id": "1"},  # would fit, but stands behind one that did not
                {"data": data(b"e"), "partition_id": "0"},
            )
        )
        await anyio.sleep(1)
        third = await bench.put("s", {"data": data(b"x" * 30)}, {"data": data(b"x" * 30)})
        assert (third.status, third.code) == (400, "DIS.4303")
        gate.set()
        assert (await first).code == ""
        told = (await second).told
        assert told["failed_record_count"] == 2
        throttled = {"error_code": "DIS.4303", "error_message": "Exceeded traffic control limit."}
        assert [told["records"][i] for i in (1, 3)] == [throttled] * 2
        assert [r["data"] for r in await bench.read("s", "0")][-3:] == [data(b"a" * 30), data(b"c" * 10), data(b"e")]
        assert (await bench.put("s", *[{"data": data(b"x" * 25)}] * 4)).told["failed_record_count"] == 0

    simulate(test, SMALL)


async def move(bench: Bench, name: str, *, tell: bool) -> None:
    """Raise the epoch of the stream's partitions, as a change of its layout does."""
    (found,) = await bench.engine.catalog.scan(f"stream/p/{name}")
    doc: Any = decode_document(found[1].value)
    epoch = doc.partitions[0].epoch + 1
    await bench.log.open({ref: epoch for ref in doc.refs()})
    if tell:
        moved = [type(p)(p.number, epoch, p.low, p.high) for p in doc.partitions]
        changed = type(doc)(**{**{f: getattr(doc, f) for f in doc.__struct_fields__}, "partitions": tuple(moved)})
        await bench.engine.catalog.transact({}, {found[0]: encode_document(changed)})


def test_a_layout_that_moves() -> None:
    """A put that raced with a change of the layout is placed again, once; if it moves again, it is throttled."""

    async def test(bench: Bench) -> None:
        await bench.create("s", 2)
        moves = iter([True])

        async def race() -> None:
            for tell in moves:
                await move(bench, "s", tell=tell)
                return

        bench.log.before_append = race
        told = (await bench.put("s", *[{"data": data(b"%d" % n), "partition_key": "k1"} for n in range(3)])).told
        assert [entry["sequence_number"] for entry in told["records"]] == ["0", "1", "2"]
        moves = iter([True, True])
        assert (await bench.put("s", {"data": "", "partition_key": "k1"})).code == "DIS.4303"
        assert await bench.ranges("s") == ["[0 : 3]", "[0 : 0]"]
        assert (await bench.put("s", {"data": "", "partition_key": "k1"})).code == ""

    simulate(test)


def test_a_stream_deleted_under_a_put() -> None:
    """A put that raced with the deletion of its stream stores nothing: DIS.4301, also if the name lives on."""

    async def test(bench: Bench) -> None:
        for again in (False, True):
            await bench.create("s")

            async def delete(again: bool = again) -> None:
                bench.log.before_append = None
                await bench.call("DELETE", "/v2/p/streams/s")
                if again:
                    await bench.create("s")

            bench.log.before_append = delete
            assert (await bench.put("s", {"data": ""})).code == "DIS.4301"
        assert await bench.ranges("s") == ["[0 : 0]"]

    simulate(test)


def test_a_deletion_that_is_interrupted() -> None:
    """If the records cannot be dropped the stream is gone all the same, and the next start drops them."""

    async def test(bench: Bench) -> None:
        await bench.create("s")
        await bench.create("other")
        bench.log.before_drop = lambda: fail(StorageError("no"))
        assert (await bench.call("DELETE", "/v2/p/streams/s")).code == "DIS.5000"
        assert (await bench.call("GET", "/v2/p/streams/s")).code == "DIS.4301"
        assert len(bench.log.streams()) == 2
        bench.log.before_drop = None
        await bench.app.directory.drop_remains()
        assert len(bench.log.streams()) == 1
        assert await bench.engine.catalog.scan("dropping/") == []
        assert (await bench.describe("other"))["status"] == "RUNNING"

    simulate(test)


@pytest.mark.parametrize("step", ["tombstone", "open", "publish"])
@pytest.mark.parametrize("done", [False, True])
def test_a_creation_that_is_interrupted(step: str, done: bool) -> None:
    """If the server dies at any step of a creation, the next start leaves a whole stream or nothing of it."""

    async def test(bench: Bench) -> None:
        await bench.create("other")
        open_, transact, calls = bench.log.open, bench.engine.catalog.transact, iter(["tombstone", "publish"])

        async def dies(this: str, call: Callable[..., Awaitable[None]], *args: Any) -> None:
            if this != step or done:
                await call(*args)
            if this == step:
                raise OutcomeUnknown("killed")

        bench.log.open = lambda *args: dies("open", open_, *args)  # type: ignore[method-assign]
        bench.engine.catalog.transact = lambda *args: dies(next(calls), transact, *args)  # type: ignore[method-assign]
        answer = await bench.call("POST", "/v2/p/streams", {"stream_name": "s", "partition_count": 3})
        assert answer.code == "DIS.5000"
        bench.log.open, bench.engine.catalog.transact = open_, transact  # type: ignore[method-assign]
        await bench.app.directory.drop_remains()
        whole = step == "publish" and done
        assert len(bench.log.streams()) == 1 + whole
        assert await bench.engine.catalog.scan("dropping/") == []
        assert (await bench.call("GET", "/v2/p/streams/s")).code == ("" if whole else "DIS.4301")
        assert (await bench.put("other", {"data": ""})).code == ""
        if not whole:
            await bench.create("s")
        assert (await bench.put("s", {"data": ""})).code == ""

    simulate(test)


def test_a_creation_that_loses() -> None:
    """Of two creations that race, the loser leaves no partitions behind."""

    async def test(bench: Bench) -> None:
        transact = bench.engine.catalog.transact

        async def race(*args: Any) -> None:
            bench.engine.catalog.transact = transact  # type: ignore[method-assign]
            await bench.create("s")
            await transact(*args)

        bench.engine.catalog.transact = race  # type: ignore[method-assign, assignment]
        answer = await bench.call("POST", "/v2/p/streams", {"stream_name": "s", "partition_count": 3})
        assert answer.code == "DIS.4307"
        assert len(bench.log.streams()) == 1
        assert len((await bench.describe("s"))["partitions"]) == 1

    simulate(test)


def test_many_streams_are_not_kept_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server keeps a bounded number of documents and of keys, and serves all streams."""
    monkeypatch.setattr(directory, "MAX_PARTITIONS", 40)
    monkeypatch.setattr(layout, "MAX_KEYS_TOGETHER", 10)

    async def test(bench: Bench) -> None:
        for n in range(70):
            await bench.create(f"s{n}")
            assert (await bench.put(f"s{n}", {"data": "", "partition_key": "k"})).code == ""
        assert len(bench.app.directory._decoded) == 20
        assert sum(len(stream.layout._known) for stream in bench.app.directory._decoded) <= 10
        for n in range(70):
            assert await bench.ranges(f"s{n}") == ["[0 : 1]"]

    simulate(test)
