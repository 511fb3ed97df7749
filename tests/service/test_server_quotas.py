"""Quotas of a project and of a group: what fits is made, what does not is refused, however many ask at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from server_http import AppCaller

from disstream.engine.embedded import EmbeddedEngine
from disstream.engine.memory import MemoryEngine
from disstream.errors import QuotaError
from disstream.server import App, ServerConfig
from disstream.server.documents import PartitionDoc, StreamDoc
from disstream.server.quotas import check_quotas, writable_partitions
from disstream.testing.clock import run_simulated


def simulate(test: Callable[[AppCaller], Awaitable[None]], **config: Any) -> None:
    async def main() -> None:
        engine = MemoryEngine()
        await engine.start()
        await test(AppCaller(App(engine, ServerConfig(data_dir=None, **config))))
        await engine.close()

    run_simulated(main)


async def make(caller: AppCaller, name: str, partitions: int = 1, project: str = "p", **more: Any) -> str:
    """The code of the answer, "" for success."""
    body = {"stream_name": name, "partition_count": partitions, **more}
    return (await caller.call("POST", f"/v2/{project}/streams", body)).code


async def make_app(caller: AppCaller, name: str, project: str = "p") -> str:
    return (await caller.call("POST", f"/v2/{project}/apps", {"app_name": name})).code


async def join(caller: AppCaller, member: str, app: str = "a") -> str:
    """ "OK", or the code of a refusal."""
    body = {"groupId": app, "clientId": member, "interestedStream": ["s"], "accelerateAssignEnabled": True}
    answer = await caller.call("POST", f"/v2/p/apps/{app}/consumers/", body)
    return answer.code or str(answer.told["state"])


def test_partitions_of_a_project() -> None:
    """All streams of a type count together, each type and project for itself; deleting makes room."""

    async def test(caller: AppCaller) -> None:
        assert await make(caller, "a", 3) == ""
        assert await make(caller, "b", 3) == "DIS.4308"
        assert await make(caller, "b", 2) == ""
        assert await make(caller, "c") == "DIS.4308"
        assert await make(caller, "c", 2, stream_type="ADVANCED") == ""
        assert await make(caller, "d", 1, stream_type="ADVANCED") == "DIS.4308"
        assert await make(caller, "c", 5, project="q") == ""
        assert await make(caller, "a", 9) == "DIS.4307"  # the name is looked at first
        assert (await caller.call("DELETE", "/v2/p/streams/a")).status == 204
        assert await make(caller, "e", 3) == ""

    simulate(test, max_common_partitions=5, max_advanced_partitions=2)


def test_a_refusal_tells_what_is_left() -> None:
    """The message names what is asked, what is taken, and how much there may be."""

    async def test(caller: AppCaller) -> None:
        await make(caller, "a", 3)
        answer = await caller.call("POST", "/v2/p/streams", {"stream_name": "b", "partition_count": 3})
        assert answer.told["message"] == (
            "Insufficient quota. [3 more COMMON partitions: the project has 3 of the 5 it may have]"
        )

    simulate(test, max_common_partitions=5)


def test_streams_of_a_project() -> None:
    """max_streams counts streams of both types."""

    async def test(caller: AppCaller) -> None:
        assert await make(caller, "a") == ""
        assert await make(caller, "b", stream_type="ADVANCED") == ""
        assert await make(caller, "c") == "DIS.4308"
        assert await make(caller, "c", project="q") == ""

    simulate(test, max_streams=2)


async def test_many_at_once(tmp_path: Any) -> None:
    """Requests that overlap on a disk do not overshoot, neither with streams nor with apps."""
    engine = EmbeddedEngine(tmp_path)
    await engine.start()
    try:
        config = ServerConfig(data_dir=None, max_common_partitions=7, max_apps=3)
        caller = AppCaller(App(engine, config))
        codes = await asyncio.gather(*[make(caller, f"s{i}", 2) for i in range(8)])
        assert sorted(codes) == [""] * 3 + ["DIS.4308"] * 5
        codes = await asyncio.gather(*[make_app(caller, f"a{i}") for i in range(8)])
        assert sorted(codes) == [""] * 3 + ["DIS.4329"] * 5
    finally:
        await engine.close()


def test_a_claim_holds_until_it_is_written() -> None:
    """Who scales claims what the stream will take more: a stream made meanwhile waits, and finds it taken."""

    async def main() -> None:
        engine = MemoryEngine()
        await engine.start()
        app = App(engine, ServerConfig(data_dir=None, max_common_partitions=5))
        caller = AppCaller(app)
        assert await make(caller, "a", 2) == ""
        async with app.directory.claim("p", "COMMON", partitions=3):
            making = asyncio.create_task(make(caller, "b", 1))
            await asyncio.sleep(1)
            assert not making.done()

            def grown(doc: StreamDoc) -> StreamDoc:
                more = tuple(PartitionDoc(n, 1, -1, -1) for n in range(5))
                return msgspec.structs.replace(doc, pending=more)

            await app.directory.change("p", "a", "", grown)
        assert await making == "DIS.4308"
        with pytest.raises(QuotaError):
            async with app.directory.claim("p", "COMMON", partitions=1):
                raise AssertionError("there is nothing left")
        async with app.directory.claim("p", "COMMON", partitions=-1):
            pass  # to shrink is always allowed
        await engine.close()

    run_simulated(main)


def test_what_counts() -> None:
    """Of a stream being scaled the larger number; DELETED partitions are free; without a limit nothing counts."""
    active, deleted = PartitionDoc(0, 1, 0, 1), PartitionDoc(1, 2, -1, -1, "DELETED")
    doc = StreamDoc(
        stream_id="s",
        name="s",
        create_time=0,
        last_modified_time=0,
        retention_h=24,
        stream_type="COMMON",
        data_type="BLOB",
        partitions=(active, deleted),
    )
    assert writable_partitions(doc) == 1
    growing = msgspec.structs.replace(doc, pending=(active, active, deleted))
    assert writable_partitions(growing) == 2
    check_quotas(ServerConfig(), [doc] * 100, "COMMON", partitions=1000, streams=1000)
    config = ServerConfig(max_common_partitions=3)
    check_quotas(config, [doc, doc], "COMMON", partitions=1, streams=0)
    with pytest.raises(QuotaError):
        check_quotas(config, [doc, growing], "COMMON", partitions=1, streams=0)


def test_apps_of_a_project() -> None:
    """DIS.4329 beyond max_apps; a name that is taken is told first, and a deleted app makes room."""

    async def test(caller: AppCaller) -> None:
        assert [await make_app(caller, name) for name in ("a", "b", "c", "a")] == ["", "", "DIS.4329", "DIS.4330"]
        assert await make_app(caller, "c", project="q") == ""
        assert (await caller.call("DELETE", "/v2/p/apps/a")).status == 204
        assert await make_app(caller, "c") == ""

    simulate(test, max_apps=2)


def test_members_of_a_group() -> None:
    """DIS.4339 for who would be one too many; who is a member may join again, and who leaves makes room."""

    async def test(caller: AppCaller) -> None:
        await make(caller, "s", 3)
        await make_app(caller, "a")
        await make_app(caller, "b")
        assert [await join(caller, member) for member in ("m1", "m2", "m3", "m1")] == ["OK", "OK", "DIS.4339", "OK"]
        assert await join(caller, "m3", app="b") == "OK"
        assert (await caller.call("DELETE", "/v2/p/apps/a/consumers/m2")).status == 204
        assert await join(caller, "m3") == "OK"

    simulate(test, max_group_members=2)


def test_counting_many_streams_lets_others_run() -> None:
    """A project of many streams holds nobody up when another is made in it."""

    async def test(caller: AppCaller) -> None:
        for n in range(200):
            assert await make(caller, f"s{n}") == ""
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        task = asyncio.create_task(other())
        assert await make(caller, "t") == "DIS.4308"
        task.cancel()
        assert turns >= 4

    simulate(test, max_streams=200)
