"""Checkpoints are reset while nobody can commit over them, and who comes back begins at them."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from app_server import NOTHING, reading
from app_world import SESSION_S, AppWorld, numbers, simulate, take

from disstream.errors import ConfigError, ConflictError, LeaseLost, NotFoundError, SequenceOutOfRange, StaleGeneration
from disstream.server.documents import group_key
from disstream.wire.checkpoints import RESETS

RESET = "/v2/p/apps/a/streams/s/checkpoints"


def test_a_member_does_not_overwrite_it() -> None:
    """Refused while a member lives; forced, its finished work is not committed, and it begins at the new place."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=10)
        consumer = await world.started(member_id="m")
        assert numbers(await take(consumer, 6)) == [*range(6)]
        await consumer.commit()
        assert numbers(await take(consumer, 2)) == [6, 7]  # so the six are finished, and not committed
        with pytest.raises(ConflictError, match=r"are reading: m\]"):
            await world.dis.checkpoints.reset("a", "s", {"0": 2})
        assert await world.committed() == {0: 0}
        assert RESETS in world.dis.extensions

        assert await world.dis.checkpoints.reset("a", "s", {"0": 2}, force=True) == ("m",)
        with pytest.raises(StaleGeneration, match=r"DIS\.4702"):
            await consumer.commit()
        assert await world.committed() == {0: 2}
        assert numbers(await take(consumer, 8)) == [*range(2, 10)]
        await consumer.close()
        assert (await world.committed())[0] == 2

    simulate(test)


def test_a_member_with_nothing_to_commit_goes_back_too() -> None:
    """One that has read and committed everything reads it again, within a heartbeat and a join."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=5)
        consumer = await world.started()
        for again in range(2):
            assert numbers(await take(consumer, 5)) == [*range(5)]
            assert await consumer.fetch(timeout_s=0) == []
            await consumer.commit()
            assert await world.committed() == {0: 5}
            if not again:
                began = anyio.current_time()
                await world.dis.checkpoints.reset("a", "s", {"0": 0}, force=True)
        assert anyio.current_time() - began < SESSION_S / 2

    simulate(test)


def test_a_member_that_was_silent_begins_at_it() -> None:
    """Dropped for its silence before the reset, it comes back behind it: what it remembers does not count."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=10)
        consumer = await world.started()
        await take(consumer, 5)
        assert await consumer.fetch(max_records=1) != []
        other = await world.other_client()
        world.line.cut = True
        await anyio.sleep(SESSION_S * 1.1)
        assert await other.checkpoints.reset("a", "s", {"0": 1}) == ()
        world.line.cut = False
        with pytest.raises(LeaseLost):
            await consumer.commit()
        seen = [r for r in numbers(await take(consumer, 9)) if r != 6]  # 6 may have been on its way
        assert seen[:3] == [1, 2, 3]

    simulate(test)


def test_several_partitions_at_once() -> None:
    """All of them or none; the others stay; a stranger to the group sees to its own."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=3, records=10)
        await world.dis.apps.create("a")
        reset = world.dis.checkpoints.reset
        assert await reset("a", "s", {"shardId-0000000000": 3, "2": 10}) == ()
        assert await world.committed() == {0: 3, 1: None, 2: 10}
        with pytest.raises(SequenceOutOfRange):
            await reset("a", "s", {"0": 4, "1": 11})
        assert await world.committed() == {0: 3, 1: None, 2: 10}
        for wrong, message in (({}, "name the partitions"), ({"x": 1}, "'x'"), ({"0": -1}, "next_sequence=-1")):
            with pytest.raises(ConfigError, match=message):
                await reset("a", "s", wrong)
        with pytest.raises(NotFoundError):
            await reset("nobody", "s", {"0": 1})
        assert (await world.dis.groups.members("a")).generation == -1, "a group that never was is not made"

    simulate(test)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"checkpoints": []}, "DIS.4200"),
        ({}, "DIS.4200"),
        ({"checkpoints": [{"partition_id": "0", "sequence_number": "1"}] * 2}, "DIS.4200"),
        ({"checkpoints": [{"partition_id": "0"}]}, "DIS.4216"),
        ({"checkpoints": [{"partition_id": "7", "sequence_number": "1"}]}, "DIS.4302"),
        ({"checkpoints": [{"partition_id": "x", "sequence_number": "1"}]}, "DIS.4201"),
        ({"checkpoints": [{"partition_id": "0", "sequence_number": "11"}]}, "DIS.4224"),
        ({"checkpoints": [{"partition_id": "0", "sequence_number": "1", "metadata": "m" * 1001}]}, "DIS.4200"),
        ({"checkpoints": [{"partition_id": "0", "sequence_number": "1"}], "force": "yes"}, "DIS.4200"),
        ({"stream_id": "no", "checkpoints": [{"partition_id": "0", "sequence_number": "1"}]}, "DIS.4301"),
    ],
)
async def test_what_is_refused(body: Any, code: str) -> None:
    """With its code, and nothing is changed."""
    async with reading() as server:
        await server.make("s")
        assert (await server.call("POST", RESET, body)).code == code
        assert await server.stored() == NOTHING


async def test_what_changes_meanwhile_is_seen() -> None:
    """A group written from elsewhere between the look and the transaction: it is looked at again; so is the app."""
    async with reading() as server:
        await server.make("s")
        body = {"checkpoints": [{"partition_id": "0", "sequence_number": "4"}], "force": True}
        joined = {"groupId": "a", "clientId": "m", "interestedStream": ["s"], "accelerateAssignEnabled": True}
        await server.call("POST", "/v2/p/apps/a/consumers/", joined)
        stored = await server.engine.get(group_key("p", "a"))
        assert stored is not None

        async def joins_elsewhere() -> None:
            assert stored is not None
            await server.engine._engine.catalog.transact({}, {group_key("p", "a"): stored.value})

        await server.call("DELETE", "/v2/p/apps/a/consumers/m/")
        server.engine.meanwhile = joins_elsewhere
        answer = await server.call("POST", RESET, body)
        assert (answer.status, answer.told) == (200, {"dropped_members": ["m"]})
        assert (await server.stored())["sequence_number"] == "4"
        assert (await server.told("/apps/a/consumers"))["members"] == []

        # The app goes between the look and the transaction: a commit for it would come out of the grave.
        server.engine.meanwhile = lambda: server.engine._engine.catalog.transact({}, {}, ["app/p/a"])
        assert (await server.call("POST", RESET, body)).code == "DIS.4332"


def test_the_state_tells_who_committed_and_when() -> None:
    """Of a member its name, of others none; ms since the epoch by the server's clock."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2, records=5)
        consumer = await world.started(member_id="m")
        await take(consumer, 10)
        assert await consumer.fetch(timeout_s=0) == []
        await consumer.commit()
        states = await world.dis.apps.state("a", "s")
        assert [state.committed_by for state in states] == ["m", "m"]
        assert all(state.committed_ms for state in states)
        await world.dis.checkpoints.commit("a", "s", "0", 3)
        first, second = await world.dis.apps.state("a", "s")
        assert (first.committed_by, second.committed_by) == ("", "m")
        await world.dis.checkpoints.delete("a", "s", "1")
        assert (await world.dis.apps.state("a", "s"))[1].committed_ms is None

    simulate(test)
