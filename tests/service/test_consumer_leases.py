"""Proves what is promised of consumers that share partitions by leases: hand-overs, take-overs, stores that fail."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import anyio
import pytest
from app_world import SESSION_S, AppWorld, numbers, p, simulate, take
from msgspec.structs import replace

from disstream import clock
from disstream.consumer import Consumer, ConsumerConfig, Leases, Pattern, ServiceGroup
from disstream.consumer.leasing import Leasing
from disstream.consumer.rows import LeaseKey, encode_row, read_rows
from disstream.errors import (
    ClosedError,
    ConfigError,
    DisError,
    LeaseLost,
    NotFoundError,
    StorageError,
    StoreUnavailable,
)
from disstream.leases.api import Row, Swap
from disstream.model import Partition, PartitionState, Record, StreamInfo
from disstream.testing.clock import SimLoop
from disstream.testing.leasing import LeaseRows, SimLeases
from disstream.wire.checkpoints import position


@pytest.fixture(autouse=True)
def _leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AppWorld, "kind", "leases")


def line_of(consumer: Consumer) -> SimLeases:
    """To the store."""
    coordination = consumer._config.coordination
    assert isinstance(coordination, Leases)
    assert isinstance(coordination.store, SimLeases)
    return coordination.store


def owners(world: AppWorld, app: str = "a") -> dict[str, str]:
    rows = read_rows(world.rows.apps.get(app, {})).leases
    return {key.text(): row.owner for key, row in sorted(rows.items())}


class Handler:
    """Handles records one by one, each for `pause_s`, and notes when it did."""

    def __init__(self, consumer: Consumer, pause_s: float = 0.05) -> None:
        self.consumer = consumer
        self.pause_s = pause_s
        self.seen: list[tuple[float, Record]] = []
        self._end = anyio.CancelScope()
        self._ended = anyio.Event()

    async def run(self) -> None:
        with self._end:
            async for record in self.consumer:
                self.seen.append((anyio.current_time(), record))
                self.consumer.record_done(record)
                await anyio.sleep(self.pause_s)
        self._ended.set()

    async def end(self) -> None:
        self._end.cancel()
        await self._ended.wait()


async def until(reached: Callable[[], bool]) -> None:
    """Looks twenty times a second of simulated time."""
    with anyio.fail_after(120.0):
        while not reached():  # noqa: ASYNC110
            await anyio.sleep(0.05)


async def starve(consumer: Consumer) -> None:
    """Fetch, and get nothing, until that raises."""
    while True:
        assert await consumer.fetch(timeout_s=1.0) == []


async def write_to(world: AppWorld, partitions: int, count: int) -> None:
    """So many records into each partition, one at a time."""
    for _ in range(count):
        for number in range(partitions):
            await world.write(1, number=number)
        await anyio.sleep(0.1)


# --- hand-overs ---


def test_a_rolling_restart_replays_nothing() -> None:
    """Three workers under load are replaced one by one: each record is handled once, and in order."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=6)
        handlers: list[Handler] = []
        everybody: list[Handler] = []

        async with anyio.create_task_group() as tasks:

            async def hire() -> None:
                handlers.append(Handler(await world.started(auto_commit_s=1.0), 0.01))
                everybody.append(handlers[-1])
                tasks.start_soon(handlers[-1].run)

            for _ in range(3):
                await hire()
            tasks.start_soon(write_to, world, 6, 120)
            for _ in range(3):
                await anyio.sleep(5.0)
                leaving = handlers.pop(0)
                await leaving.end()
                await leaving.consumer.close()
                await hire()
            await anyio.sleep(20.0)
            for handler in handlers:
                await handler.end()
            assert sorted(len(h.consumer.assignment()) for h in handlers) == [2, 2, 2]
            for handler in handlers:
                await handler.consumer.close()
        handled = sorted((at, r.partition_id, r.sequence_number) for h in everybody for at, r in h.seen)
        for number in range(6):
            mine = [sequence for _, partition, sequence in handled if partition == p(number).partition_id]
            assert mine == list(range(120))
        assert all(handler.consumer.stats().replayed_records == 0 for handler in everybody)

    simulate(test)


def test_partitions_that_stay_are_read_on_while_others_go() -> None:
    """A record that takes its time holds up the partition that it is of; the others are handed out meanwhile."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=4)
        taken: Counter[str] = Counter()
        revoked: list[tuple[frozenset[Partition], float]] = []

        def on_revoked(partitions: frozenset[Partition], deadline: float) -> None:
            revoked.append((partitions, deadline))

        consumer = await world.started(finish="explicit", on_revoked=on_revoked, drain_timeout_s=8.0)
        await world.write(1, number=3)
        (slow,) = await take(consumer, 1)
        newcomer = await world.started()
        begun = anyio.current_time()
        while anyio.current_time() < begun + 6.0:
            await world.write(1, number=0)
            for record in await consumer.fetch(timeout_s=0.1):
                consumer.record_done(record)
                taken[record.partition_id] += 1
            assert p(0) in consumer.assignment()
        assert taken[p(0).partition_id] > 30
        assert newcomer.assignment() == {p(2)}, "what nobody works on is there at once"
        ((gone, deadline),) = revoked
        assert gone == {p(2), p(3)}
        assert deadline == pytest.approx(begun + 8.0, abs=0.6)
        assert p(3) in consumer.assignment()
        consumer.record_done(slow)
        await newcomer.fetch(timeout_s=1.0)
        assert newcomer.assignment() == {p(2), p(3)}
        assert (await world.committed())[3] == 1

    simulate(test)


def test_a_member_that_leaves_is_replaced_within_a_look() -> None:
    """By those that are left; its rows stay, its own is gone."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2, records=2)
        first, second = await world.started(), await world.started()
        await anyio.sleep(2.0)
        assert [len(first.assignment()), len(second.assignment())] == [1, 1]
        await first.close()
        await anyio.sleep(0.6)
        assert second.assignment() == {p(0), p(1)}
        await second.abort()
        assert set(world.rows.apps["a"]) == {"lease/s/0", "lease/s/1"}
        assert not any(owners(world).values())

    simulate(test)


@pytest.mark.parametrize("latency_s", [0.001, 0.1])
def test_a_member_that_dies_is_replaced_within_its_session_and_a_second(latency_s: float) -> None:
    """Counted from its death; what it had committed is not read again."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=4, records=5)
        stores = [SimLeases(world.rows, latency_s=latency_s) for _ in range(2)]
        dying, heir = [await world.started(coordination=Leases(store)) for store in stores]
        await anyio.sleep(3.0)
        records = await take(dying, 10)
        dying.record_done(records[-1])
        for record in records:
            dying.record_done(record)
        await dying.commit()
        stores[0].cut = True  # as a process that is killed: nothing of it is heard again
        begun = anyio.current_time()
        await until(lambda: len(heir.assignment()) == 4)
        assert SESSION_S * 0.5 < anyio.current_time() - begun <= SESSION_S + 1.0
        assert sorted({r.partition for r in await take(heir, 10)}) == sorted(heir.assignment() - dying.assignment())
        assert await heir.fetch(timeout_s=2.0) == []

    simulate(test)


def test_callbacks_tell_what_comes_and_goes() -> None:
    """`on_assigned`: all that is held by then, before the first record of it; `on_revoked`: only what goes."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=4, records=3)
        told: list[tuple[str, list[int]]] = []

        def note(what: str, partitions: frozenset[Partition]) -> None:
            told.append((what, sorted(int(q.partition_id[-4:]) for q in partitions)))

        async def on_assigned(partitions: frozenset[Partition]) -> None:
            assert consumer.stats().records in (0, 12)
            await anyio.sleep(0.3)
            note("assigned", partitions)

        consumer = await world.started(
            on_assigned=on_assigned, on_revoked=lambda partitions, deadline: note("revoked", partitions)
        )
        for record in await take(consumer, 12):
            assert told == [("assigned", [0, 1, 2, 3])]
            consumer.record_done(record)
        other = await world.started()
        await anyio.sleep(2.0)
        await other.close()
        await anyio.sleep(2.0)
        await consumer.close()
        all_four = [0, 1, 2, 3]
        assert told == [
            ("assigned", all_four),
            ("revoked", [2, 3]),
            ("assigned", all_four),
            ("revoked", all_four),
        ]

    simulate(test)


# --- liveness ---


def test_a_member_cut_off_from_the_store_hands_out_and_commits_nothing() -> None:
    """Before anybody may have taken over; then the other goes on at the checkpoint, and it is told once."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=10)
        lonely = await world.started()
        records = await take(lonely, 3)
        line_of(lonely).cut = True
        heir = await world.started()
        await anyio.sleep(SESSION_S * 0.95)
        assert await lonely.fetch(timeout_s=0.1) == []
        with pytest.raises(LeaseLost, match="may belong to another"):
            await lonely.commit()
        assert not heir.assignment(), "nobody took over before"
        again = await take(heir, 5)
        assert numbers(again) == [0, 1, 2, 3, 4]
        heir.record_done(again[-1])
        line_of(lonely).cut = False
        await heir.close()
        lonely.record_done(records[-1])
        assert numbers(await take(lonely, 5)) == [5, 6, 7, 8, 9], "it joined again and began at the checkpoint"
        with pytest.raises(LeaseLost, match="1 partition"):
            await lonely.commit()
        assert lonely.stats().lapses == 1

    simulate(test)


@pytest.mark.parametrize("slow", [False, True])
def test_a_store_that_is_out_for_long_stops_delivery_until_it_is_back(slow: bool) -> None:
    """For all members at once: none takes another for dead, nothing is replayed, and it is counted and logged."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2, records=20)
        members = [await world.started(), await world.started()]
        await anyio.sleep(2.0)
        before = owners(world)
        first = [await take(member, 5) for member in members]
        for member in members:
            line_of(member).cut = not slow
            line_of(member).latency_s = 10.0 if slow else 0.001
        await anyio.sleep(SESSION_S)
        begun = anyio.current_time()
        for member in members:
            assert await member.fetch(timeout_s=0.1) == []
        await anyio.sleep(begun + 20.0 - anyio.current_time())
        for member in members:
            line_of(member).cut = False
            line_of(member).latency_s = 0.001
        rest = [await take(member, 15, timeout_s=15.0) for member in members]
        assert [numbers(a + b) for a, b in zip(first, rest, strict=True)] == [list(range(20))] * 2
        assert owners(world) == before, "nobody took over"
        for member, records in zip(members, rest, strict=True):
            member.record_done(records[-1])
            await member.commit()
            assert member.stats().lapses == 1
            assert member.stats().rebalances <= 2
        assert await world.committed() == {0: 20, 1: 20}

    simulate(test)


def test_a_store_that_stays_away_ends_the_consumer(caplog: pytest.LogCaptureFixture) -> None:
    """After the budget, with the budget's name; not sooner."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=3)
        consumer = await world.started(coordination=world.leases(outage_budget_s=60.0))
        await take(consumer, 3)
        line_of(consumer).cut = True
        begun = anyio.current_time()
        with pytest.raises((ClosedError, StorageError), match="outage_budget_s=60"):
            await starve(consumer)
        assert 60.0 <= anyio.current_time() - begun < 67.0, "the budget, and what it takes to leave"
        with pytest.raises(StorageError, match="cannot be reached"):
            await consumer.close()

    simulate(test)
    assert "the lease store does not answer" in caplog.text


def test_a_store_that_is_of_no_use_any_more_ends_the_consumer_at_once() -> None:
    """It was emptied, say: that does not pass by itself, so nobody waits for it."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=3)
        consumer = await world.started()
        await take(consumer, 3)

        async def refuse(app: str, prefix: str = "") -> dict[str, Row]:
            raise StorageError("it was emptied")

        line_of(consumer).read = refuse  # type: ignore[method-assign]
        begun = anyio.current_time()
        with pytest.raises((ClosedError, StorageError), match="it was emptied"):
            await starve(consumer)
        assert anyio.current_time() - begun < 5.0

    simulate(test)


def test_a_store_that_can_be_read_only_is_out() -> None:
    """What cannot be renewed does not hold."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=3)
        consumer = await world.started(coordination=world.leases(outage_budget_s=30.0))
        await take(consumer, 3)
        store = line_of(consumer)

        async def refuse(app: str, swaps: Any) -> list[int | None]:
            raise StoreUnavailable("read-only replica")

        store.swap = refuse  # type: ignore[method-assign]
        with pytest.raises((ClosedError, StorageError), match="cannot be renewed"):
            await starve(consumer)

    simulate(test)


@pytest.mark.parametrize("stopped_s", [SESSION_S + 1.0, 3600.0])
def test_a_process_that_was_stopped_goes_on_if_nobody_took_over(stopped_s: float) -> None:
    """Stopped, or the machine slept: nothing is handed out before the lease is renewed, and nothing is replayed."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=300)
        sleeper = await world.started()
        assert numbers([await anext(sleeper) for _ in range(3)]) == [0, 1, 2]
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        renewals = len(line_of(sleeper).swaps)
        loop.advance(stopped_s)
        assert (await anext(sleeper)).sequence_number == 3
        assert len(line_of(sleeper).swaps) > renewals, "in the middle of a run"
        assert sleeper.stats().rebalances == 1
        assert sleeper.stats().lapses == 1
        assert await sleeper.commit() == {p(0): 3}

    simulate(test)


def test_a_member_removed_while_it_was_stopped_gets_nothing_out() -> None:
    """Its row is gone, so it has ended; it joins again under another name, and the work it lost is told."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=300)
        stopped = await world.started()
        assert numbers([await anext(stopped) for _ in range(3)]) == [0, 1, 2]
        (member,) = [key for key in world.rows.apps["a"] if key.startswith("member/")]
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        loop.advance(SESSION_S + 1.0)
        world.rows.swap("a", Swap(member, world.rows.apps["a"][member].version, None))
        assert (await anext(stopped)).sequence_number == 0, "nothing was committed"
        with pytest.raises(LeaseLost, match="1 partition"):
            await stopped.commit()
        assert stopped.stats().rebalances == 2
        assert stopped.stats().replayed_records == 3
        assert member not in world.rows.apps["a"]

    simulate(test)


def test_wall_time_does_not_matter() -> None:
    """It jumps by a day to and fro: nobody loses anything."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2, records=30)
        members = [await world.started(), await world.started()]
        await anyio.sleep(2.0)
        before = owners(world)
        loop = asyncio.get_running_loop()

        def wall(jump: float) -> float:
            return 1_700_000_000.0 + jump + loop.time()

        for jump in (86_400.0, -86_400.0):
            clock.replace_wall(partial(wall, jump))
            await anyio.sleep(SESSION_S * 2)
            for member in members:
                await take(member, 5)
                await member.commit()
        assert owners(world) == before
        assert [member.stats().lapses for member in members] == [0, 0]

    simulate(test)


# --- commits ---


def test_a_commit_of_what_another_has_is_refused_whatever_the_clocks_say() -> None:
    """By the row's version; the partition is dropped then, and the store keeps what the other wrote."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2, records=5)
        consumer = await world.started(coordination=world.leases(look_s=30.0))
        records = await take(consumer, 10)
        for record in records:
            consumer.record_done(record)
        key = LeaseKey("s", 0)
        version, text = world.rows.apps["a"][key.text()]
        row = replace(read_rows({key.text(): Row(version, text)}).leases[key], owner="thief/1", token=9)
        assert world.rows.swap("a", Swap(key.text(), version, encode_row(row))) is not None
        with pytest.raises(LeaseLost, match="shardId-0000000000 of 's'"):
            await consumer.commit()
        assert await world.committed() == {0: 0, 1: 5}
        await anyio.sleep(1.0)
        assert numbers(await take(consumer, 5)) == [0, 1, 2, 3, 4], "a thief without a row has ended: taken back"
        assert owners(world)["lease/s/0"] != "thief/1"

    simulate(test)


def test_a_commit_decided_before_a_partition_went_and_came_back_is_refused() -> None:
    """The owner's name alone does not show it, the token does: meanwhile somebody may have read on, or reset it."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=9)
        consumer = await world.started(coordination=world.leases(look_s=30.0))
        records = await take(consumer, 9)
        consumer.record_done(records[3])
        key = LeaseKey("s", 0)
        version, text = world.rows.apps["a"][key.text()]
        row = read_rows({key.text(): Row(version, text)}).leases[key]
        again = replace(row, token=row.token + 2, checkpoint=("8", row.checkpoint[1] if row.checkpoint else ""))
        assert world.rows.swap("a", Swap(key.text(), version, encode_row(again))) is not None
        with pytest.raises(LeaseLost, match="shardId-0000000000 of 's'"):
            await consumer.commit()
        assert await world.committed() == {0: 8}

    simulate(test)


def test_a_commit_without_an_answer_is_recognised() -> None:
    """It was made: the next one goes on from it instead of taking the partition for lost."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=9)
        consumer = await world.started()
        records = await take(consumer, 9)
        store = line_of(consumer)
        swap = SimLeases.swap

        async def lose_answer(self: SimLeases, app: str, swaps: Any) -> list[int | None]:
            await swap(self, app, swaps)
            if any(s.key.startswith("lease/") for s in swaps):
                raise StoreUnavailable("no answer")
            return await swap(self, app, swaps)

        consumer.record_done(records[3])
        store.swap = lose_answer.__get__(store)  # type: ignore[method-assign]
        with pytest.raises(StorageError, match="no answer"):
            await consumer.commit()
        assert await world.committed() == {0: 4}
        del store.swap
        consumer.record_done(records[8])
        assert await consumer.commit() == {p(0): 9}
        assert await world.committed() == {0: 9}
        assert consumer.stats().rebalances == 1

    simulate(test)


def test_many_partitions_are_committed_in_few_calls() -> None:
    """And renewed by one row."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=250, records=1)
        consumer = await world.started(idle_min_s=30.0, idle_max_s=30.0)
        for record in await take(consumer, 250):
            consumer.record_done(record)
        calls: list[int] = []
        swap = SimLeases.swap

        async def count(self: SimLeases, app: str, swaps: Any) -> list[int | None]:
            calls.append(len(swaps))
            return await swap(self, app, swaps)

        store = line_of(consumer)
        store.swap = count.__get__(store)  # type: ignore[method-assign]
        assert set((await consumer.commit()).values()) == {1}
        assert sorted(calls, reverse=True)[:2] == [200, 50]
        calls.clear()
        await anyio.sleep(10.0)
        assert set(calls) == {1}, "only renewals"
        assert len(calls) == pytest.approx(10.0, abs=1)

    simulate(test)


def test_the_service_is_told_of_the_checkpoints() -> None:
    """Every `mirror_s` and at the close; a service that refuses disturbs nobody."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2, records=8)

        async def kept() -> list[int | None]:
            states = await world.dis.apps.state("a", "s")
            return [position(s.checkpoint)[0] if s.checkpoint else None for s in states]

        consumer = await world.started(coordination=world.leases(mirror_s=5.0), auto_commit_s=0.5)
        for record in await take(consumer, 8):
            consumer.record_done(record)
        await anyio.sleep(6.0)
        assert sum(number or 0 for number in await kept()) == 8
        for record in await take(consumer, 8):
            consumer.record_done(record)
        await consumer.close()
        assert await kept() == [8, 8]
        silent = await world.started(coordination=world.leases(mirror_s=None), auto_commit_s=0.5)
        await world.write(3)
        silent.record_done((await take(silent, 3))[-1])
        await silent.close()
        assert await kept() == [8, 8]
        assert await world.committed() == {0: 11, 1: 8}

    simulate(test)


def test_an_app_moves_from_a_group_to_leases_without_a_replay() -> None:
    """Where the store has no row, the checkpoint at the service is the start; later the store alone counts."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2, records=10)
        member = await world.started(coordination=ServiceGroup(accelerate=True), start="latest")
        member.seek  # noqa: B018
        await member.fetch(timeout_s=1.0)
        for number in (0, 1):
            member.seek(p(number), 4)
        member.record_done((await take(member, 12))[-1])
        await member.close()
        moved = await world.started(start="latest")
        first = await take(moved, 6)
        assert {r.sequence_number for r in first} <= {4, 5, 6, 7, 8, 9}
        await moved.close()
        await world.dis.checkpoints.commit("a", "s", "0", 0)
        again = await world.started()
        assert 0 not in numbers(await take(again, 1))

    simulate(test)


# --- streams that change ---


def test_new_partitions_are_found_and_read_from_their_beginning() -> None:
    """Also by an app that began at the latest; one member looks for all."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2, records=3)
        members = [await world.started(start="latest") for _ in range(2)]
        await anyio.sleep(2.0)
        await world.dis.streams.scale("s", 5)
        await world.write(2, number=4)
        await anyio.sleep(7.0)
        assert sorted(len(member.assignment()) for member in members) == [2, 3]
        got = [r for member in members for r in await member.fetch(timeout_s=5.0)]
        assert [(r.partition, r.sequence_number) for r in got] == [(p(4), 0), (p(4), 1)]

    simulate(test)


def test_streams_of_a_pattern_come_and_go() -> None:
    """A new one is read, a deleted one is forgotten with its rows, the others are read on."""

    async def test(world: AppWorld) -> None:
        await world.stream("s-1", records=2)
        consumer = await world.started(Pattern("s-.*"), auto_commit_s=0.5)
        await take(consumer, 2)
        await world.stream("s-2", records=3)
        assert {r.stream for r in await take(consumer, 3)} == {"s-2"}
        await world.dis.streams.delete("s-1")
        await world.write(2, "s-2")
        assert {r.stream for r in await take(consumer, 2)} == {"s-2"}
        await anyio.sleep(6.0)
        assert consumer.assignment() == {p(0, "s-2")}
        assert list(owners(world)) == ["lease/s-2/0"]
        await world.stream("s-1", records=4)
        assert numbers(await take(consumer, 4)) == [0, 1, 2, 3], "another stream of that name"

    simulate(test)


def test_members_with_different_wishes_share_what_both_want() -> None:
    """Each gets only what it asked for, everything is read, as evenly as that allows."""

    async def test(world: AppWorld) -> None:
        for name in ("s", "t"):
            await world.stream(name, partitions=3, records=1)
        both = await world.started(["s", "t"])
        only = await world.started("t")
        await anyio.sleep(3.0)
        assert {q.stream for q in only.assignment()} == {"t"}
        assert len(only.assignment()) == 3
        assert both.assignment() == {p(n) for n in range(3)}

    simulate(test)


# --- wrong use ---


def test_a_store_with_rows_of_others_is_refused() -> None:
    """At once, with the row; and later, if a newer release begins to write."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=1)
        consumer = await world.started()
        await take(consumer, 1)
        world.rows.swap("a", Swap("member/new/1", None, '{"v":2}'))
        with pytest.raises((ClosedError, ConfigError), match="same release"):
            await consumer.fetch(timeout_s=5.0)

    simulate(test)


def test_leases_need_an_app_and_streams_that_exist() -> None:
    """Both are told at the start."""

    async def test(world: AppWorld) -> None:
        with pytest.raises(ConfigError, match=r"Leases\(\) shares"):
            world.consumer(app=None, coordination=world.leases())
        consumer = world.consumer("x")
        with pytest.raises(NotFoundError, match=r"\[x\]"):
            await consumer.start()
        assert not world.rows.apps.get("a")
        down = world.leases()
        assert isinstance(down.store, SimLeases)
        down.store.cut = True
        await world.stream()
        with pytest.raises(StorageError):
            await world.consumer(coordination=down).start()

    simulate(test)


def test_a_start_whose_answer_was_lost_is_a_start() -> None:
    """The member's row was written, and the store said nothing: the same row is used, or removed."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=2)
        settings = world.leases()
        store = settings.store
        assert isinstance(store, SimLeases)
        swap = SimLeases.swap
        lost: list[DisError] = []

        async def lose_first(self: SimLeases, app: str, swaps: Any) -> list[int | None]:
            answer = await swap(self, app, swaps)
            if not lost:
                lost.append(StoreUnavailable("no answer"))
                raise lost[0]
            return answer

        store.swap = lose_first.__get__(store)  # type: ignore[method-assign]
        consumer = world.consumer(coordination=settings)
        with pytest.raises(StorageError, match="no answer"):
            await consumer.start()
        assert not [key for key in world.rows.apps["a"] if key.startswith("member/")], "nothing is left behind"
        assert not store.started

    simulate(test)


def names(rows: LeaseRows) -> Iterator[str]:
    return (key for key in rows.apps["a"] if key.startswith("member/"))


def test_the_same_member_id_twice_is_two_members() -> None:
    """A restart under its old name waits for nobody, and two by mistake do not rob each other."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2, records=2)
        twins = [await world.started(member_id="pod-0") for _ in range(2)]
        await anyio.sleep(2.0)
        assert [len(twin.assignment()) for twin in twins] == [1, 1]
        assert len({name.rpartition("/")[0] for name in names(world.rows)}) == 1
        assert isinstance(twins[0]._config, ConsumerConfig)

    simulate(test)


def test_a_row_that_is_free_again_while_its_partition_is_opened_is_not_opened_twice() -> None:
    """Begun anew by another member, as for a stream that was created again: one reader, and each record once."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=5)
        consumer = world.consumer()
        keeper = consumer._holdings.keeper
        assert keeper is not None
        states, answer = keeper.states, anyio.Event()

        async def slow(stream: str) -> list[PartitionState]:
            await answer.wait()
            return await states(stream)

        keeper.states = slow  # type: ignore[method-assign]
        async with consumer:
            await anyio.sleep(2.0)
            key = "lease/s/0"
            (row,) = read_rows({key: world.rows.apps["a"][key]}).leases.values()
            assert row.owner
            anew = replace(row, owner="", token=row.token + 1)
            assert world.rows.swap("a", Swap(key, world.rows.apps["a"][key].version, encode_row(anew)))
            await anyio.sleep(2.0)
            answer.set()
            got = await take(consumer, 5)
            got += await consumer.fetch(timeout_s=5.0)
            assert numbers(got) == [0, 1, 2, 3, 4]
            assert consumer.assignment() == {p(0)}
            consumer.record_done(got[-1])
            assert await consumer.commit() == {p(0): 5}

    simulate(test)


def test_what_was_assigned_is_not_gone_before_it_was_revoked() -> None:
    """Also if partitions come and others go while a callback runs: those that go wait for their turn."""
    told: list[tuple[str, frozenset[Partition]]] = []

    async def test(world: AppWorld) -> None:
        await world.stream("s", partitions=2)
        await world.stream("t", partitions=1)

        async def on_assigned(partitions: frozenset[Partition]) -> None:
            told.append(("assigned", partitions))

        async def on_revoked(partitions: frozenset[Partition], deadline: float) -> None:
            told.append(("revoked", partitions))

        consumer = await world.started(["s", "t"], on_assigned=on_assigned, on_revoked=on_revoked)
        await anyio.sleep(2.0)
        leasing = consumer._member
        assert isinstance(leasing, Leasing)
        async with leasing._moves._calling_back:  # as by a callback that takes its time
            await world.dis.streams.scale("t", 2)
            await until(lambda: len(consumer.assignment()) == 4)
            other = await world.started("s")
            await until(lambda: len(leasing._moves.giving) == 2)
        await until(lambda: len(other.assignment()) == 2)
        known: frozenset[Partition] = frozenset()
        for what, partitions in told:
            assert what == "revoked" or known <= partitions, told
            known = partitions if what == "assigned" else known - partitions
        assert known == consumer.assignment() == {p(0, "t"), p(1, "t")}

    simulate(test)


def test_a_loss_is_told_although_another_partition_is_announced_first() -> None:
    told: list[tuple[str, frozenset[Partition]]] = []

    async def test(world: AppWorld) -> None:
        await world.stream("s", partitions=1)
        await world.stream("t", partitions=1)

        async def on_assigned(partitions: frozenset[Partition]) -> None:
            told.append(("assigned", partitions))

        async def on_revoked(partitions: frozenset[Partition], deadline: float) -> None:
            told.append(("revoked", partitions))

        consumer = await world.started(["s", "t"], on_assigned=on_assigned, on_revoked=on_revoked)
        await anyio.sleep(2.0)
        told.clear()
        leasing = consumer._member
        assert isinstance(leasing, Leasing)
        async with leasing._moves._calling_back:  # as by a callback that takes its time
            await world.dis.streams.scale("t", 2)
            await until(lambda: len(consumer.assignment()) == 3)
            world.rows.swap("a", Swap("lease/s/0", world.rows.apps["a"]["lease/s/0"].version, None))
            await until(lambda: p(0) not in consumer.assignment())
        await anyio.sleep(0.1)
        assert told == [("assigned", frozenset({p(0, "t"), p(1, "t")})), ("revoked", frozenset({p(0)}))]

    simulate(test)


def test_a_hand_over_has_its_time_although_it_waited_for_its_turn() -> None:
    """Of what goes while another callback takes its time, too, the work in hand may finish."""
    left_s: list[float] = []

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2)

        async def on_revoked(partitions: frozenset[Partition], deadline: float) -> None:
            left_s.append(deadline - anyio.current_time())
            await anyio.sleep(5.0)
            left_s.append(deadline - anyio.current_time())

        consumer = await world.started(on_revoked=on_revoked)
        await anyio.sleep(2.0)
        leasing = consumer._member
        assert isinstance(leasing, Leasing)
        async with leasing._moves._calling_back:  # as by a callback that takes its time
            other = await world.started()
            await anyio.sleep(15.0)
        await until(lambda: len(other.assignment()) == 1)
        assert left_s == pytest.approx([10.0, 5.0])

    simulate(test)


def test_a_stream_of_a_pattern_that_goes_while_it_is_looked_at_ends_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleted between its description and the question how far the app is: the others are read on."""

    async def test(world: AppWorld) -> None:
        await world.stream("s-1", records=2)
        consumer = await world.started(Pattern("s-.*"))
        await take(consumer, 2)
        state = world.dis.apps.state

        async def deleted_first(app: str, stream: str) -> list[PartitionState]:
            if stream == "s-2":
                await world.dis.streams.delete("s-2")
            return await state(app, stream)

        monkeypatch.setattr(world.dis.apps, "state", deleted_first)
        await world.stream("s-2")
        await anyio.sleep(20.0)
        await world.write(1, "s-1")
        assert numbers(await take(consumer, 1)) == [2]

    simulate(test)


# --- doubts ---


def test_a_stream_that_goes_while_the_store_is_out_leaves_the_loop_to_others() -> None:
    """Who was told that it is gone looks once the lease holds again; until then nothing turns without a pause."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=1)
        consumer = await world.started()
        await take(consumer, 1)
        line_of(consumer).cut = True
        await anyio.sleep(SESSION_S * 1.5)
        looks: list[float] = []
        leasing = consumer._member
        assert isinstance(leasing, Leasing)
        wait = leasing._survey.until_doubted

        async def waited() -> None:
            looks.append(anyio.current_time())
            assert len(looks) < 1000, "it turns without a pause"
            await wait()

        leasing._survey.until_doubted = waited  # type: ignore[method-assign]
        await world.dis.streams.delete("s")
        await anyio.sleep(10.0)
        line_of(consumer).cut = False
        with pytest.raises(NotFoundError):
            await starve(consumer)

    simulate(test)


def test_a_doubt_about_a_stream_that_nobody_knows_any_more_is_no_reason_to_look_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Readers of a deleted stream may be told so one after the other, the last behind the end of its rows."""

    async def test(world: AppWorld) -> None:
        await world.stream("s-1", records=1)
        consumer = await world.started(Pattern("s-.*"))
        await take(consumer, 1)
        leasing = consumer._member
        assert isinstance(leasing, Leasing)
        described: list[str] = []
        describe = world.dis.streams.describe

        async def counted(name: str) -> StreamInfo:
            described.append(name)
            assert len(described) < 100, "it asks without a pause"
            return await describe(name)

        monkeypatch.setattr(world.dis.streams, "describe", counted)
        leasing._survey.doubt("s-2")
        await anyio.sleep(60.0)
        assert await consumer.commit() == {p(0, "s-1"): 0}

    simulate(test)
