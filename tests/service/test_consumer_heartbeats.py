"""Proves that a blocked event loop keeps its partitions as long as it may, and no longer. Real threads and sockets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from disstream import ClosedError, ConsumerConfig, LeaseLost, ServiceGroup, connect
from disstream.client.groups import Groups
from disstream.server import Server, ServerConfig
from disstream.wire.groups import HeartbeatState
from disstream.wire.http import Request, Response

SESSION_S = 1.0


class Listening(Server):
    """A server that notes what members say, for threads that wait for it."""

    def __init__(self) -> None:
        super().__init__(ServerConfig(data_dir=None, port=0, session_timeout_s=SESSION_S))
        self.heartbeats = 0
        self.left = threading.Event()
        self._beat = threading.Condition()
        answer = self.app.handle

        async def handle(request: Request) -> Response:
            response = await answer(request)
            if "/heartbeats" in request.target:
                with self._beat:
                    self.heartbeats += 1
                    self._beat.notify_all()
            elif request.method == "DELETE" and "/consumers/" in request.target:
                self.left.set()
            return response

        self.app.handle = handle  # type: ignore[method-assign]

    def wait_for_heartbeats(self, count: int) -> None:
        """Block until so many more came."""
        with self._beat:
            wanted = self.heartbeats + count
            assert self._beat.wait_for(lambda: self.heartbeats >= wanted, timeout=30.0)


@pytest.fixture
def server() -> Iterator[Listening]:
    listening = Listening()
    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(listening):
        yield listening


async def test_a_blocked_loop_keeps_its_partitions(server: Listening) -> None:
    """For three session time-outs nothing of the loop runs; then it goes on as if nothing had been."""
    config = ConsumerConfig(coordination=ServiceGroup(accelerate=True), auto_commit_s=None)
    async with connect(server.url, project_id="p") as dis:
        await dis.streams.create("s", partitions=2)
        async with dis.producer("s") as producer:
            for number in range(20):
                await producer.send(b"x", key=str(number))
        async with dis.consumer("s", config, app="a") as consumer:
            first = await consumer.fetch(max_records=5)
            server.wait_for_heartbeats(int(3 * SESSION_S / (SESSION_S / 10)))
            taken = len(first)
            while taken < 20:
                taken += len(await consumer.fetch(max_records=5))
            assert consumer.stats().rebalances == 1
            assert sum((await consumer.commit()).values()) > 0


async def test_a_loop_that_is_blocked_for_too_long_gives_up(
    server: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    """Its member leaves while it is blocked, having said where it stands; the next fetch says so, once, and goes on."""
    group = ServiceGroup(accelerate=True, max_stall_s=0.5)
    config = ConsumerConfig(coordination=group, auto_commit_s=None, stall_warn_s=0.1)
    async with connect(server.url, project_id="p") as dis:
        await dis.streams.create("s", partitions=1)
        async with dis.producer("s") as producer:
            for _ in range(3):
                await producer.send(b"x")
        async with dis.consumer("s", config, app="a") as consumer:
            (first,) = await consumer.fetch(max_records=1)
            assert server.left.wait(timeout=30.0), "blocks the loop until the member has left"
            with pytest.raises(LeaseLost, match="max_stall_s"):
                await consumer.fetch()
            assert [r.sequence_number for r in await consumer.fetch(max_records=1)] == [first.sequence_number + 1]
            assert consumer.stats().rebalances == 2
    # Once; on a machine that is busy with other things the loop may truly stand still at other places, too.
    told = [r.getMessage() for r in caplog.records if "is blocked for" in r.getMessage()]
    assert ["assert server.left.wait(timeout=30.0)" in message for message in told].count(True) == 1


def beating() -> list[str]:
    """The threads of heartbeats that do not end. One that has said that it ends may be there for a moment more."""
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("heartbeats-")]
    for thread in threads:
        thread.join(30.0)
    return [thread.name for thread in threads if thread.is_alive()]


async def test_nothing_is_left_running(server: Listening) -> None:
    """The thread of the heartbeats ends with its consumer."""
    async with connect(server.url, project_id="p") as dis:
        await dis.streams.create("s", partitions=1)
        for _ in range(3):
            config = ConsumerConfig(coordination=ServiceGroup(accelerate=True), start="latest")
            async with dis.consumer("s", config, app="a") as consumer:
                assert await consumer.fetch(timeout_s=0.3) == []
    assert not beating()


async def test_what_ends_the_heartbeats_ends_the_consumer(server: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in their thread is raised where records are waited for; the member leaves, and no thread is left."""
    beat = Groups.heartbeat

    async def break_at_the_fifth(groups: Groups, app: str, *args: Any, **options: Any) -> HeartbeatState:
        if server.heartbeats >= 5:
            raise RuntimeError("a bug")
        return await beat(groups, app, *args, **options)

    monkeypatch.setattr(Groups, "heartbeat", break_at_the_fifth)
    async with connect(server.url, project_id="p") as dis:
        await dis.streams.create("s", partitions=1)
        consumer = dis.consumer("s", ConsumerConfig(coordination=ServiceGroup(accelerate=True)), app="a")
        await consumer.start()
        with pytest.raises(ClosedError, match="a bug") as told:
            await consumer.fetch(timeout_s=30.0)
        assert isinstance(told.value.__cause__, RuntimeError)
        assert server.left.wait(timeout=30.0)
        with pytest.raises(RuntimeError, match="a bug"):
            await consumer.close()
    assert not beating()
