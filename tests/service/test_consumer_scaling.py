"""Proves that consumers live through the scaling of what they read, down to partitions that are gone for good."""

from __future__ import annotations

import pytest
from app_world import AppWorld, numbers, simulate, take

from disstream import clock
from disstream.consumer import Consumer
from disstream.errors import NotFoundError
from disstream.server.retention import trim_expired

HOUR = 3_600.0


@pytest.fixture(params=["group", "leases"], autouse=True)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """However an app's consumers share the partitions."""
    kind: str = request.param
    monkeypatch.setattr(AppWorld, "kind", kind)
    return kind


async def scaled_away(world: AppWorld, consumer: Consumer) -> None:
    """Partition 1 is read, scaled away, and expires while the consumer goes on."""
    assert sorted(numbers(await take(consumer, 4))) == [0, 0, 1, 1]
    await world.dis.streams.scale("s", 1)
    assert await consumer.fetch(timeout_s=10.0) == []
    # A day passes for the service alone: a consumer that polls all day is a long test.
    now = clock.replace_wall(lambda: now() + 25 * HOUR)
    await trim_expired(world.engine, world.app.directory, world.app.scaling)
    statuses = [p.status for p in (await world.dis.streams.describe("s")).partitions]
    assert statuses == ["ACTIVE", "EXPIRED"]


@pytest.mark.parametrize("app", [None, "a"])
def test_a_partition_that_expires_ends_nobody(app: str | None) -> None:
    """Alone or in a group, a consumer goes on with the partitions there are; a revived one is read on by the group."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2, records=2)
        consumer = await world.started(app=app)
        await scaled_away(world, consumer)
        assert await consumer.fetch(timeout_s=30.0) == []
        await world.write(2)
        assert numbers(await take(consumer, 2)) == [2, 3]
        if app:
            await consumer.commit()
            await world.dis.streams.scale("s", 2)
            await world.write(1, number=1)
            assert numbers(await take(consumer, 1)) == [2]

    simulate(test)


def test_expiry_is_raised_if_so_wanted() -> None:
    """Who wants to be told what expired is told that the partition did."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2, records=2)
        consumer = await world.started(app=None, on_expired="raise")
        await scaled_away(world, consumer)
        with pytest.raises(NotFoundError, match=r"DIS\.4319"):
            await consumer.fetch(timeout_s=30.0)

    simulate(test)


def test_a_group_takes_in_new_partitions() -> None:
    """Partitions that come while a group reads are read from their beginning, those that go to their end."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=1, records=3)
        consumer = await world.started()
        assert len(await take(consumer, 3)) == 3
        await world.dis.streams.scale("s", 3)
        await world.write(2, number=2)
        assert numbers(await take(consumer, 2)) == [0, 1]
        await world.write(1, number=2)
        await world.dis.streams.scale("s", 2)
        assert numbers(await take(consumer, 1)) == [2]
        assert len(consumer.assignment()) == 3

    simulate(test)
