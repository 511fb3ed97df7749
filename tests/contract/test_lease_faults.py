"""What becomes of lease stores when the world fails: real servers stopped, frozen, killed; real processes killed."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL, SIGQUIT

import pytest
from lease_calls import change, failure, opened, store_of
from lease_servers import PASSWORD, LeaseServer, lease_server

from disstream.errors import StoreUnavailable
from disstream.leases import Row, SqliteLeases, Swap, lease_store

KINDS = ["postgresql", "redis"]


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[LeaseServer]:
    with lease_server(request.param) as running:
        yield running


# --- servers that go and come -------------------------------------------------------------------------------------


async def test_a_server_that_restarts(server: LeaseServer) -> None:
    """While it is down calls fail and say that they may be repeated; when it is up again the same store works, and
    what was answered before is there."""
    async with opened(store_of(server.url, "restarts")) as store:
        version = await change(store, "k", None, "before")
        for _ in range(3):
            await asyncio.gather(*(store.read("app") for _ in range(8)))
            server.stop()
            for call in (store.read("app"), store.swap("app", [Swap("k", version, "down")])):
                assert isinstance(await failure(call), StoreUnavailable)
            server.start()
            assert (await store.read("app"))["k"].text == "before"
        assert await change(store, "k", version, "after") is not None


async def test_a_server_that_restarts_between_calls(server: LeaseServer) -> None:
    """A store that asked nothing meanwhile notices nothing, or says once that it may be repeated."""
    async with opened(store_of(server.url, "between")) as store:
        version = await change(store, "k", None, "before")
        server.stop()
        server.start()
        with contextlib.suppress(StoreUnavailable):
            await store.read("app")
        assert (await store.read("app"))["k"].version == version


async def test_a_server_that_is_down_at_the_start(server: LeaseServer) -> None:
    """The start fails and may be tried again: the same store works when the server does."""
    store = store_of(server.url, "down")
    server.stop()
    try:
        for _ in range(2):
            error = await failure(store.start())
            assert isinstance(error, StoreUnavailable)
            assert PASSWORD not in "".join(traceback.format_exception(error))
    finally:
        server.start()
    async with opened(store):
        assert await change(store, "k", None, "") is not None


async def test_a_server_that_answers_nobody(server: LeaseServer) -> None:
    """Frozen, it costs each call and each start its time-out; thawed, the same store works."""
    fresh = store_of(server.url, "frozen", timeout_s=0.3)
    async with opened(store_of(server.url, "frozen", timeout_s=1.0)) as store:
        version = await change(store, "k", None, "before")
        with server.frozen():
            calls = (store.read("app"), store.swap("app", [Swap("k", version, "frozen")]), fresh.start())
            for call in calls:
                error = await failure(call)
                assert isinstance(error, StoreUnavailable)
                assert "no answer within" in str(error)
            await fresh.close()
        found = (await store.read("app"))["k"]
        assert await change(store, "k", found.version, "after") is not None
        with server.frozen():
            await failure(store.read("app"))
            async with asyncio.timeout(60):
                await store.close()  # leaves nobody behind, though nobody says goodbye


async def test_a_server_that_crashes_has_what_it_answered(server: LeaseServer) -> None:
    """Rows that were answered are there after its processes were killed, on the disk or on their way to it."""
    async with opened(store_of(server.url, "crash")) as store:
        versions = await store.swap("app", [Swap(f"k{n}", None, str(n)) for n in range(50)])
        # For PostgreSQL, SIGQUIT is the end without any writing; killed hard it would leave children behind.
        server.stop(SIGQUIT if server.kind == "postgresql" else SIGKILL)
        server.start()
        with contextlib.suppress(StoreUnavailable):
            await store.read("app")
        found = await store.read("app")
        assert [found[f"k{n}"].version for n in range(50)] == versions


# --- processes ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", *(pytest.param(kind, marks=pytest.mark.long) for kind in KINDS)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/leases.db"
        return
    with lease_server(request.param) as running:
        yield running.url


def racer(address: str, *words: str) -> subprocess.Popen[str]:
    script = Path(__file__).with_name("lease_racer.py")
    return subprocess.Popen([sys.executable, str(script), address, *words], stdout=subprocess.PIPE, text=True)


async def test_processes_that_race(address: str) -> None:
    """Four processes that count one row up at the same time: each number was written once, by one of them."""
    processes = [racer(address, "count", "40") for _ in range(4)]
    numbers = [int(line) for process in processes for line in process.communicate(timeout=120)[0].split()]
    assert [process.returncode for process in processes] == [0] * 4
    assert sorted(numbers) == list(range(1, 161))
    async with opened(lease_store(address)) as store:
        assert (await store.read("race"))["counter"].text == "160"


async def test_processes_that_are_killed(address: str) -> None:
    """Killed -9 amid its changes, a process leaves what it was answered, at most one change more, and no lock."""
    known = 0
    for round_ in range(3):
        with racer(address, "endless") as process:
            assert process.stdout is not None
            told = [process.stdout.readline() for _ in range(20 + 7 * round_)]
            process.kill()
            told += process.stdout.readlines()
        assert process.returncode == -SIGKILL
        numbers = [int(line) for line in told if line.endswith("\n")]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert known < numbers[0] <= known + 2
        async with opened(lease_store(address)) as store:
            known = int((await store.read("race"))["endless"].text)
        assert known - numbers[-1] in (0, 1)


_OTHER = """
import asyncio, sys
from disstream.leases import SqliteLeases, Swap

async def main() -> None:
    store = SqliteLeases(sys.argv[1])
    await store.start()
    (version,) = await store.swap("a", [Swap("k", int(sys.argv[2]) or None, "theirs")])
    await store.close()
    print(version)

asyncio.run(main())
"""


async def test_sqlite_keeps_its_locks_beside_a_twin(tmp_path: Path) -> None:
    """A process that opens and closes the file does not take its log away from one that has it open twice.

    The locks of POSIX belong to a process, and go when it closes any descriptor of the file: reading a few bytes of it
    beside an open store would drop them, and the next process that closes would believe to be the last one.
    """
    path = tmp_path / "leases.db"

    async def elsewhere(expected: int) -> int:
        command = [sys.executable, "-c", _OTHER, str(path), str(expected)]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        told, _ = await process.communicate()
        return int(told)

    store = SqliteLeases(path)
    await store.start()
    twin = store.twin()
    await twin.start()
    try:
        version = await elsewhere(0)
        for _ in range(2):
            (ours,) = await store.swap("a", [Swap("k", version, "ours")])
            assert ours is not None, "what the other process wrote is what we see"
            version = await elsewhere(ours)
            assert (await twin.read("a"))["k"] == Row(version, "theirs")
    finally:
        await twin.close()
        await store.close()
