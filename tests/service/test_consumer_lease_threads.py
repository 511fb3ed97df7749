"""Proves that leases outlive a blocked event loop as long as they may, and no longer. Real threads and SQLite files."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

import disstream
from disstream import ConsumerConfig, LeaseLost, Leases, LeaseStore, MemoryLeases, Partition, SqliteLeases
from disstream.errors import StoreUnavailable
from disstream.leases import Row, Swap


class Log:
    """What was written of members, for threads that wait for it."""

    def __init__(self) -> None:
        self.beats = 0
        self.left = threading.Event()
        self.threads: set[str] = set()
        self._changed = threading.Condition()

    def note(self, swaps: Sequence[Swap]) -> None:
        for swap in swaps:
            if swap.key.startswith("member/"):
                with self._changed:
                    self.beats += 1
                    self.threads.add(threading.current_thread().name)
                    self._changed.notify_all()
                if swap.text is None:
                    self.left.set()

    def wait_for_beats(self, count: int) -> None:
        """Block until so many more came."""
        with self._changed:
            wanted = self.beats + count
            assert self._changed.wait_for(lambda: self.beats >= wanted, timeout=30.0)


class Watched:
    """A store that notes what is written."""

    def __init__(self, store: LeaseStore, log: Log) -> None:
        self._store = store
        self._log = log

    async def start(self) -> None:
        await self._store.start()

    async def close(self) -> None:
        await self._store.close()

    async def read(self, app: str, prefix: str = "") -> dict[str, Row]:
        return await self._store.read(app, prefix)

    async def swap(self, app: str, swaps: Sequence[Swap]) -> list[int | None]:
        answer = await self._store.swap(app, swaps)
        self._log.note(swaps)
        return answer

    def twin(self) -> LeaseStore | None:
        twin = self._store.twin()
        return None if twin is None else Watched(twin, self._log)


@pytest.fixture
async def dis() -> AsyncIterator[disstream.DisClient]:
    config = disstream.ServerConfig(data_dir=None, port=0)
    async with disstream.serve(config) as server, disstream.connect(server.url, project_id="p") as client:
        await client.streams.create("s", partitions=2)
        await client.records.put("s", [disstream.NewRecord(b"x", partition_id=str(n % 2)) for n in range(20)])
        yield client


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LeaseStore:
    return MemoryLeases() if request.param == "memory" else SqliteLeases(tmp_path / "leases.db")


def beating() -> list[str]:
    """The threads of heartbeats that do not end. One that has said that it ends may be there for a moment more."""
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("heartbeats-")]
    for thread in threads:
        thread.join(30.0)
    return [thread.name for thread in threads if thread.is_alive()]


async def test_a_blocked_loop_keeps_its_leases(dis: disstream.DisClient, store: LeaseStore) -> None:
    """For three session time-outs nothing of the loop runs; then it goes on as if nothing had been."""
    log = Log()
    config = ConsumerConfig(coordination=Leases(Watched(store, log)), session_timeout_s=1.0, auto_commit_s=None)
    async with dis.consumer("s", config, app="a") as consumer:
        taken = len(await consumer.fetch(max_records=5))
        log.wait_for_beats(30)
        while taken < 20:
            taken += len(await consumer.fetch(max_records=5))
        assert await consumer.fetch(timeout_s=0) == []
        assert consumer.stats().rebalances == 1
        assert set((await consumer.commit()).values()) == {10}
    assert log.threads >= {"heartbeats-a"}
    assert log.left.is_set()
    assert not beating()


async def test_a_loop_that_is_blocked_for_too_long_gives_up(dis: disstream.DisClient, store: LeaseStore) -> None:
    """Its row is removed while it is blocked; the next fetch says so, once, and then it goes on where it committed."""
    log = Log()
    coordination = Leases(Watched(store, log), max_stall_s=0.5)
    config = ConsumerConfig(coordination=coordination, session_timeout_s=1.0, auto_commit_s=None)
    async with dis.consumer("s", config, app="a") as consumer:
        records: list[disstream.Record] = []
        while len(records) < 20:
            records += await consumer.fetch()
        assert await consumer.fetch(timeout_s=0) == []
        await consumer.commit()
        await dis.records.put("s", [disstream.NewRecord(b"y", partition_id="0")])
        assert log.left.wait(timeout=30.0), "blocks the loop until the member has left"
        with pytest.raises(LeaseLost, match="max_stall_s"):
            await consumer.fetch()
        (again,) = await consumer.fetch(max_records=1)
        assert (again.data, again.sequence_number) == (b"y", 10)


async def test_consumers_of_one_file_share_what_there_is(dis: disstream.DisClient, tmp_path: Path) -> None:
    """Each opens it for itself: one joins, and gets its half; one leaves, and the other gets all."""
    held: dict[str, frozenset[Partition]] = {}
    changed = asyncio.Condition()

    def config(name: str) -> ConsumerConfig:
        async def on_assigned(partitions: frozenset[Partition]) -> None:
            async with changed:
                held[name] = partitions
                changed.notify_all()

        store = SqliteLeases(tmp_path / "leases.db")
        return ConsumerConfig(coordination=Leases(store, look_s=0.05), on_assigned=on_assigned)

    async def until(name: str, count: int) -> None:
        async with changed, asyncio.timeout(30.0):
            await changed.wait_for(lambda: len(held.get(name, ())) == count)

    async with dis.consumer("s", config("first"), app="a") as first:
        await until("first", 2)
        async with dis.consumer("s", config("second"), app="a") as second:
            await until("second", 1)
            assert first.assignment() | second.assignment() == held["first"]
            held.clear()
        await until("first", 2)
    assert not beating()


class Rebuffing(Watched):
    """A store whose twins cannot be opened at first: each as often as is said for it."""

    def __init__(self, store: LeaseStore, log: Log, *of_twins: int, refusals: int = 0) -> None:
        super().__init__(store, log)
        self._of_twins = list(of_twins)
        self._refusals = refusals

    async def start(self) -> None:
        if self._refusals:
            self._refusals -= 1
            raise StoreUnavailable("the file is locked")
        await super().start()

    def twin(self) -> LeaseStore | None:
        twin = self._store.twin()
        return None if twin is None else Rebuffing(twin, self._log, refusals=self._of_twins.pop(0))


async def test_renewals_begin_once_the_store_can_be_opened(dis: disstream.DisClient, store: LeaseStore) -> None:
    """A store that is out for a moment, just when the thread of the heartbeats opens it, ends nobody."""
    log = Log()
    config = ConsumerConfig(coordination=Leases(Rebuffing(store, log, 0, 3)), session_timeout_s=1.0, auto_commit_s=None)
    async with dis.consumer("s", config, app="a") as consumer:
        assert await consumer.fetch(max_records=5)
        log.wait_for_beats(5)
        assert await consumer.fetch(max_records=5)
    assert log.threads >= {"heartbeats-a"}
    assert not beating()
