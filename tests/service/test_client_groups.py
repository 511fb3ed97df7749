"""The client's group calls against our server, under virtual time, without sockets."""

from __future__ import annotations

import random

import anyio
import pytest

from disstream.client import Client, ClientConfig
from disstream.engine.memory import MemoryEngine
from disstream.errors import ConfigError, NotFoundError, QuotaError, TransportError
from disstream.model import GroupInfo, GroupMember
from disstream.server import group as group_module
from disstream.server.app import App
from disstream.server.config import ServerConfig
from disstream.testing.clock import run_simulated
from disstream.testing.network import AppTransport, FaultPlan, FaultyTransport
from disstream.wire.groups import NO_GENERATION, JoinAnswer, SyncAnswer

CONFIG = ServerConfig(data_dir=None, session_timeout_s=30, join_delay_s=3)


def test_a_membership() -> None:
    """Join, sync, heartbeat, look, leave: what the server answers comes back in our own words and seconds."""

    async def main() -> None:
        engine = MemoryEngine()
        await engine.start()
        async with Client(AppTransport(App(engine, CONFIG)), "p") as client:
            groups = client.groups
            assert (await groups.join("a", "m", streams=["s"])).state == "GROUP_NOT_EXIST"
            await client.streams.create("s", partitions=2)
            await client.apps.create("a")
            assert await groups.heartbeat("a", "m", NO_GENERATION) == "JOINING"
            assert (await groups.join("a", "m", streams=["t"])).state == "ERR_SUBSCRIPTION"
            assert await groups.join("a", "m", pattern="s.*") == JoinAnswer("OK", 3.0, ("s",), 30.0)
            assert await groups.sync("a", "m", NO_GENERATION) == SyncAnswer("WAITING")
            await anyio.sleep(3)
            assert await groups.sync("a", "m", NO_GENERATION) == SyncAnswer("OK", 0, {"s": [0, 1]})
            assert await groups.heartbeat("a", "m", 0) == "STABLE"
            await anyio.sleep(1.5)
            member = GroupMember(member_id="m", partitions={"s": [0, 1]}, silent_s=1.5)
            assert await groups.members("a") == GroupInfo(state="STABLE", generation=0, members=(member,))
            await groups.leave("a", "m")
            await groups.leave("a", "m")
            assert (await groups.members("a")).state == "EMPTY"
            with pytest.raises(NotFoundError):
                await groups.members("none")
        await engine.close()

    run_simulated(main)


def test_what_cannot_be_asked() -> None:
    """A subscription is streams or a pattern; names that cannot stand in a path never leave."""

    async def main() -> None:
        async with Client(AppTransport(App(MemoryEngine(), CONFIG)), "p") as client:
            for streams, pattern in (([], None), (["s"], "s"), ([], "")):
                with pytest.raises(ConfigError, match="streams or a pattern"):
                    await client.groups.join("a", "m", streams=streams, pattern=pattern)
            with pytest.raises(ConfigError, match="rebalance_timeout_s=0"):
                await client.groups.join("a", "m", streams=["s"], rebalance_timeout_s=0)
            with pytest.raises(ConfigError, match="member_id must not be empty"):
                await client.groups.heartbeat("a", "", 0)
            assert client.stats().requests == 0

    run_simulated(main)


def test_a_full_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group that takes no more members refuses with QuotaError, which is not tried again."""
    monkeypatch.setattr(group_module, "MAX_MEMBERS", 1)

    async def main() -> None:
        engine = MemoryEngine()
        await engine.start()
        async with Client(AppTransport(App(engine, CONFIG)), "p") as client:
            await client.streams.create("s", partitions=1)
            await client.apps.create("a")
            await client.groups.join("a", "m", streams=["s"])
            before = client.stats().requests
            with pytest.raises(QuotaError, match="at most 1 members"):
                await client.groups.join("a", "n", streams=["s"])
            assert client.stats().requests == before + 1
        await engine.close()

    run_simulated(main)


def test_lost_answers() -> None:
    """Join, sync and leave are tried again; a heartbeat is not: the next one is better."""

    async def main() -> None:
        wires = FaultyTransport(AppTransport(App(MemoryEngine(), CONFIG)), random.Random(1), FaultPlan(lose_answer=1.0))
        config = ClientConfig(attempts=3)
        async with Client(wires, "p", config, dice=random.Random(1)) as client:
            for call, attempts in (
                (client.groups.join("a", "m", streams=["s"]), 3),
                (client.groups.sync("a", "m", 0), 3),
                (client.groups.leave("a", "m"), 3),
                (client.groups.heartbeat("a", "m", 0), 1),
            ):
                before = client.stats().requests
                with pytest.raises(TransportError):
                    await call
                assert client.stats().requests == before + attempts

    run_simulated(main)
