"""Proves what a consumer promises to those who read for an app: what is committed, where it goes on, who has what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from app_world import GROUP, SESSION_S, AppWorld, numbers, p, simulate, take

from disstream.client import Client
from disstream.consumer import Consumer, ConsumerConfig, Leases, Pattern, ServiceGroup, Static
from disstream.errors import ConfigError, CoordinationUnsupported, LeaseLost, NotFoundError, StaleGeneration
from disstream.model import Partition
from disstream.testing.clock import SimLoop
from disstream.testing.leasing import LeaseRows, SimLeases
from disstream.testing.network import AppTransport
from disstream.wire.checkpoints import position
from disstream.wire.http import Request, Response

# --- what is finished ---


only_a_group = pytest.mark.parametrize("kind", ["group"], indirect=True)


@pytest.fixture(params=["group", "leases"], autouse=True)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is promised holds however the partitions are shared."""
    kind: str = request.param
    monkeypatch.setattr(AppWorld, "kind", kind)
    return kind


def test_the_batch_in_hand_is_not_committed() -> None:
    """Asking for the next batch finishes one; a commit in between does not cover it."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=10)
        consumer = await world.started()
        assert numbers(await take(consumer, 4)) == [0, 1, 2, 3]
        assert await consumer.commit() == {p(0): 0}
        assert numbers(await consumer.fetch(max_records=3)) == [4, 5, 6]
        assert await consumer.commit() == {p(0): 4}
        await consumer.close()
        assert await world.committed() == {0: 4}

    simulate(test)


def test_the_record_in_the_loop_body_is_not_committed() -> None:
    """In the middle of a run as well as at its end; after an exception it comes again, and nothing before it."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=10)

        async def fail_at(number: int) -> None:
            async with world.consumer() as consumer:
                async for record in consumer:
                    if int(record.data) == number:
                        raise ValueError(number)

        for number in (3, 3, 7):
            with pytest.raises(ValueError, match=str(number)):
                await fail_at(number)
            assert await world.committed() == {0: number}

    simulate(test)


def test_an_annotation_goes_with_the_checkpoint() -> None:
    """It is written with the next commit, alone if nothing else moved, and found by whoever reads next; "" ends it."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=10)
        async with world.consumer() as first:
            await first.fetch(max_records=3)
            assert first.annotation(p(0)) == ""
            first.annotate(p(0), "parked: k")
            assert first.annotation(p(0)) == "parked: k"
            with pytest.raises(ConfigError, match="601 characters"):
                first.annotate(p(0), "x" * 599)
            with pytest.raises(ConfigError, match="no text"):
                first.annotate(p(0), "\ud800")
            await first.commit()
        assert await world.committed() == {0: 0}
        async with world.consumer() as second:
            assert numbers(await second.fetch(max_records=3)) == [0, 1, 2]
            assert second.annotation(p(0)) == "parked: k"
            await second.fetch(max_records=2)
            await second.commit()
            assert await world.committed() == {0: 3}
        async with world.consumer() as third:
            await third.fetch(max_records=1)
            assert third.annotation(p(0)) == "parked: k"
            third.annotate(p(0), "")
        async with world.consumer() as last:
            await last.fetch(max_records=1)
            assert last.annotation(p(0)) == ""
        async with world.consumer(app=None) as none:
            with pytest.raises(ConfigError, match="no app"):
                none.annotate(p(0), "x")

    simulate(test)


def test_done_finishes_the_last_one() -> None:
    """Whoever stops by choice says so with record_done, and reads on behind it next time."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=10)
        for expected in ([0, 1, 2], [3, 4, 5]):
            seen = []
            async with world.consumer() as consumer:
                async for record in consumer:
                    seen.append(int(record.data))
                    if len(seen) == 3:
                        consumer.record_done(record)
                        break
            assert seen == expected

    simulate(test)


def test_explicit_commits_up_to_the_first_that_is_open() -> None:
    """Records are finished in any order; the checkpoint waits for the slowest; a restart reads from there."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=10)
        consumer = await world.started(finish="explicit")
        records = await take(consumer, 6)
        for index in (0, 1, 3, 4):
            consumer.record_done(records[index])
        assert await consumer.commit() == {p(0): 2}
        consumer.record_done(records[2])
        assert await consumer.commit() == {p(0): 5}
        await consumer.close()
        assert numbers(await take(await world.started(), 5)) == [5, 6, 7, 8, 9]

    simulate(test)


def test_a_slow_record_stops_its_partition_only() -> None:
    """Beyond max_gap nothing more is handed out of the partition, until the slow one is done; others go on."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2, records=10)
        consumer = await world.started(finish="explicit", max_gap=3)
        seen = []
        for _ in range(14):
            (record,) = await consumer.fetch(max_records=1, timeout_s=5.0)
            seen.append(record)
            if record.partition == p(1) or record.sequence_number > 0:
                consumer.record_done(record)
        stuck = [r for r in seen if r.partition == p(0)]
        assert numbers(stuck) == [0, 1, 2, 3]
        assert await consumer.fetch(timeout_s=5.0) == []
        consumer.record_done(stuck[0])
        assert len(await take(consumer, 6)) == 6

    simulate(test)


def test_done_of_a_record_of_others_does_nothing() -> None:
    """A partition that is not held, or not any more."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=3)
        await world.stream("t", records=3)
        other = await world.started("t", "b")
        (record,) = await take(other, 1)
        consumer = await world.started()
        await take(consumer, 1)
        consumer.record_done(record)
        assert await consumer.commit() == {p(0): 0}

    simulate(test)


# --- when it is committed ---


def test_finished_work_is_committed_by_itself() -> None:
    """Every auto_commit_s; and what is in hand is not."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=10)
        consumer = await world.started(auto_commit_s=2.0)
        await take(consumer, 3)
        await take(consumer, 3)
        await asyncio.sleep(2.1)
        assert await world.committed() == {0: 3}

    simulate(test)


@pytest.mark.parametrize("graceful", [True, False])
def test_a_close_commits_and_an_abort_does_not(graceful: bool) -> None:
    """Both leave the group at once: the next member need not wait for the session time-out."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=10)
        consumer = await world.started()
        await take(consumer, 3)
        await take(consumer, 3)
        await (consumer.close() if graceful else consumer.abort())
        assert await world.committed() == {0: 3 if graceful else 0}
        begun = anyio.current_time()
        assert numbers(await take(await world.started(), 1)) == [3 if graceful else 0]
        assert anyio.current_time() - begun < SESSION_S / 2

    simulate(test)


@only_a_group
def test_a_commit_needs_an_app() -> None:
    """And a group needs one too."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=1)
        consumer = await world.started(app=None)
        await take(consumer, 1)
        with pytest.raises(ConfigError, match="has no app"):
            await consumer.commit()
        with pytest.raises(ConfigError, match="give app=NAME"):
            world.consumer(app=None, coordination=ServiceGroup())

    simulate(test)


# --- where it begins ---


def test_the_start_is_pinned_before_the_first_record() -> None:
    """A consumer that starts at the latest and dies before its first commit loses nothing that is written meanwhile."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=5)
        first = await world.started(start="latest")
        assert await first.fetch(timeout_s=1.0) == []
        assert await world.committed() == {0: 5}
        await first.abort()
        await world.write(2)
        assert numbers(await take(await world.started(start="latest"), 2)) == [5, 6]

    simulate(test)


def test_members_that_start_together_agree_where_the_latest_is() -> None:
    """The one that pins first does not make the other begin at the oldest record."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=4, records=5)
        patient: dict[str, Any] = {"coordination": ServiceGroup()} if world.kind == "group" else {}
        members = [world.consumer(start="latest", **patient) for _ in range(2)]
        async with members[0], members[1]:
            for member in members:
                assert await member.fetch(timeout_s=10.0) == []
            assert await world.committed() == dict.fromkeys(range(4), 5)
            assert sorted(len(member.assignment()) for member in members) == [2, 2]

    simulate(test)


def test_a_partition_without_checkpoint_begins_at_its_oldest_once_the_app_has_one() -> None:
    """Somebody read this stream before, so nothing may be skipped."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2, records=3)
        await world.dis.apps.create("a")
        await world.dis.checkpoints.commit("a", "s", "0", 2)
        consumer = await world.started(start="latest")
        assert sorted((r.partition_id[-1], r.sequence_number) for r in await take(consumer, 4)) == [
            ("0", 2),
            ("1", 0),
            ("1", 1),
            ("1", 2),
        ]

    simulate(test)


@only_a_group
@pytest.mark.parametrize("coordination", [ServiceGroup(accelerate=True), Static()])
def test_checkpoints_of_others_are_taken_as_next_to_read(coordination: ServiceGroup | Static) -> None:
    """Whoever meant "read last" sees one record twice; whoever meant "next" loses none."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=5)
        await world.dis.apps.create("a")
        await world.dis.checkpoints.commit("a", "s", "0", 2, metadata="theirs")
        consumer = await world.started(coordination=coordination)
        assert numbers(await take(consumer, 3)) == [2, 3, 4]
        assert await consumer.commit() == {p(0): 2}
        assert await consumer.fetch(timeout_s=0.1) == []
        assert await consumer.commit() == {p(0): 5}
        kept = await world.dis.checkpoints.get("a", "s", "0")
        assert kept is not None
        assert kept.sequence_number == 4, "what was read last, as the documents say"
        assert position(kept) == (5, "")

    simulate(test)


def test_explicit_starts_hold_where_there_is_no_checkpoint() -> None:
    """By partition; a typo is an error, not a default."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2, records=4)
        consumer = await world.started(start={p(0): 3, p(1): 2})
        assert sorted((r.partition_id[-1], r.sequence_number) for r in await take(consumer, 3)) == [
            ("0", 3),
            ("1", 2),
            ("1", 3),
        ]

    simulate(test)


def test_a_seek_is_committed_as_where_reading_goes_on() -> None:
    """Back or forth; nothing handed out before counts any more."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=10)
        consumer = await world.started()
        await take(consumer, 8)
        consumer.seek(p(0), 2)
        assert await consumer.commit() == {p(0): 2}
        assert numbers(await take(consumer, 1)) == [2]
        assert await consumer.lag() == {p(0): 7}

    simulate(test)


# --- which streams ---


def test_several_streams_and_a_pattern() -> None:
    """One app over all of them; a stream that is made later and matches is read too."""

    async def test(world: AppWorld) -> None:
        await world.stream("orders-1", records=2)
        await world.stream("orders-2", records=2)
        await world.stream("other", records=2)
        both = await world.started(["orders-1", "other"])
        assert sorted(r.stream for r in await take(both, 4)) == ["orders-1"] * 2 + ["other"] * 2
        matching = await world.started(Pattern("orders-.*"), "b")
        assert sorted(r.stream for r in await take(matching, 4)) == ["orders-1"] * 2 + ["orders-2"] * 2
        await world.stream("orders-3", records=2)
        assert {r.stream for r in await take(matching, 2)} == {"orders-3"}

    simulate(test)


def test_static_reads_several_streams_and_patterns_as_they_are_at_the_start() -> None:
    """Without a group, with and without an app."""

    async def test(world: AppWorld) -> None:
        await world.stream("orders-1", partitions=2, records=1)
        await world.stream("orders-2", records=1)
        for app in ("a", None):
            consumer = await world.started(Pattern("orders-.*"), app, coordination=Static())
            assert sorted(r.stream for r in await take(consumer, 3)) == ["orders-1", "orders-1", "orders-2"]
        with pytest.raises(ConfigError, match="no stream matches"):
            await world.consumer(Pattern("x.*"), None).start()
        with pytest.raises(ConfigError, match="partitions of one stream"):
            await world.consumer(["orders-1", "orders-2"], None, coordination=Static(["0"])).start()

    simulate(test)


@pytest.mark.parametrize(
    ("streams", "told"),
    [([], "no stream"), (["s", "s"], "name one twice"), ([""], "not empty"), ("", "not empty")],
)
def test_a_wrong_subscription_is_refused(streams: list[str] | str, told: str) -> None:
    """Before anything is asked of the service."""

    async def test(world: AppWorld) -> None:
        with pytest.raises(ConfigError, match=told):
            world.consumer(streams)

    simulate(test)


# --- the group ---


class Diary:
    """What the callbacks of one member were told."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, int]] = []

    def assigned(self, partitions: frozenset[Partition]) -> None:
        self.entries.append(("assigned", len(partitions)))

    async def revoked(self, partitions: frozenset[Partition], deadline: float) -> None:
        assert deadline >= anyio.current_time() - 0.01
        self.entries.append(("revoked", len(partitions)))


async def handle(consumer: Consumer, seen: list[tuple[str, int, int]], pause_s: float = 0.05) -> None:
    async for record in consumer:
        seen.append((record.stream, int(record.partition_id[-10:]), record.sequence_number))
        await asyncio.sleep(pause_s)


@only_a_group
def test_a_hand_over_replays_nothing() -> None:
    """A member joins and leaves while records flow: each record is handled once, in order, and the callbacks tell."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=4, records=50)
        seen: list[tuple[str, int, int]] = []
        diaries = [Diary(), Diary()]
        members = [
            world.consumer(on_assigned=d.assigned, on_revoked=d.revoked, coordination=ServiceGroup()) for d in diaries
        ]
        async with anyio.create_task_group() as tasks:
            await members[0].start()
            tasks.start_soon(handle, members[0], seen)
            await asyncio.sleep(5.0)
            await members[1].start()
            other = anyio.CancelScope()
            ended = anyio.Event()

            async def second() -> None:
                with other:
                    async for record in members[1]:
                        seen.append((record.stream, int(record.partition_id[-10:]), record.sequence_number))
                        members[1].record_done(record)
                        await asyncio.sleep(0.05)
                ended.set()

            tasks.start_soon(second)
            await asyncio.sleep(6.0)
            other.cancel()
            await ended.wait()
            await members[1].close()
            await asyncio.sleep(15.0)
            tasks.cancel_scope.cancel()
        await members[0].close()
        assert sorted(seen) == [("s", n, i) for n in range(4) for i in range(50)]
        for number in range(4):
            assert [i for _, n, i in seen if n == number] == list(range(50))
        assert diaries[1].entries == [("assigned", 2), ("revoked", 2)]
        assert diaries[0].entries == [
            ("assigned", 4),
            ("revoked", 4),
            ("assigned", 2),
            ("revoked", 2),
            ("assigned", 4),
            ("revoked", 4),
        ]

    simulate(test)


@only_a_group
def test_work_in_hand_may_outlast_the_hand_over() -> None:
    """A record that takes longer than a drain waits is committed later if its partition stayed, and comes once."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=3)
        consumer = await world.started(drain_timeout_s=1.0)
        (record,) = await take(consumer, 1)
        generation = consumer.stats().generation
        assert generation is not None
        joined = await world.dis.groups.join("a", "stranger", streams=["s"], accelerate=True)
        assert joined.state == "OK"
        await asyncio.sleep(5.0)
        await world.dis.groups.leave("a", "stranger")
        await asyncio.sleep(8.0)
        assert consumer.stats().rebalances > 1
        assert consumer.assignment() == {p(0)}
        consumer.record_done(record)
        assert await consumer.commit() == {p(0): 1}
        assert numbers(await take(consumer, 2)) == [1, 2]

    simulate(test)


@only_a_group
def test_a_member_that_was_cut_off_hands_out_and_commits_nothing() -> None:
    """Its clock says so before the service does. What another member read meanwhile goes on there; it is told once."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=10)
        lonely = await world.started(auto_commit_s=None)
        records = await take(lonely, 3)
        other = await world.other_client()
        world.line.cut = True
        await asyncio.sleep(SESSION_S * 0.95)
        assert not lonely._member.holds  # type: ignore[union-attr]
        assert await lonely.fetch(timeout_s=1.0) == []
        with pytest.raises(LeaseLost, match="may belong to another"):
            await lonely.commit()
        async with Consumer(other, "s", ConsumerConfig(coordination=GROUP), app="a") as successor:
            again = await take(successor, 5)
            successor.record_done(again[-1])
        assert numbers(again) == [0, 1, 2, 3, 4]
        world.line.cut = False
        lonely.record_done(records[-1])
        assert numbers(await take(lonely, 5)) == [5, 6, 7, 8, 9], "it joined again and began at the checkpoint"
        with pytest.raises(LeaseLost, match="1 partition"):
            await lonely.commit()
        assert await lonely.commit() == {p(0): 5}

    simulate(test)


@only_a_group
def test_a_member_that_slept_alone_replays_nothing() -> None:
    """It lost its partitions, but nobody else had them: it goes on where it stood."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=10)
        sleeper = await world.started(auto_commit_s=None)
        await take(sleeper, 3)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        loop.advance(SESSION_S + 1.0)  # the process was stopped
        assert not sleeper._member.holds  # type: ignore[union-attr]
        assert numbers(await take(sleeper, 7)) == [3, 4, 5, 6, 7, 8, 9]
        assert sleeper.stats().rebalances == 2
        assert await sleeper.commit() == {p(0): 3}

    simulate(test)


@only_a_group
def test_a_stale_commit_is_refused_by_the_service() -> None:
    """Whatever the member believes: the generation and the owner decide."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=10)
        consumer = await world.started()
        await take(consumer, 3)
        member, generation = consumer._member.member_id, consumer.stats().generation  # type: ignore[union-attr]
        assert generation is not None
        for wrong_member, wrong_generation in (("x", generation), (member, generation - 1), (member, generation + 1)):
            with pytest.raises(StaleGeneration):
                await world.dis.checkpoints.commit(
                    "a", "s", "0", 3, member_id=wrong_member, generation=wrong_generation
                )
        assert await world.committed() == {0: 0}

    simulate(test)


class Without:
    """An endpoint that does not know the group calls."""

    def __init__(self, world: AppWorld, answer: Response) -> None:
        self._app = world.app
        self._answer = answer

    async def handle(self, request: Request) -> Response:
        if "/consumers" in request.target:
            return self._answer
        return await self._app.handle(request)


@only_a_group
@pytest.mark.parametrize(
    "answer",
    [
        Response(status=404, body=b"<html>not found</html>"),
        Response(status=404, body=b'{"error_code": "APIGW.0101", "error_msg": "The API does not exist"}'),
        Response(status=400, body=b'{"error_code": "APIGW.0101", "error_msg": "The API does not exist"}'),
        Response(status=405),
    ],
)
def test_an_endpoint_without_groups_is_told_at_once(answer: Response) -> None:
    """With what to use instead; nothing falls back silently."""

    async def test(world: AppWorld) -> None:
        await world.stream()
        client = Client(AppTransport(Without(world, answer)), "p")
        async with client:
            with pytest.raises(CoordinationUnsupported, match="Static"):
                await Consumer(client, "s", app="a").start()

    simulate(test)


def test_a_stream_that_does_not_exist_is_told_at_once() -> None:
    """By name, also among several, and not as a group that never gets an assignment."""

    async def test(world: AppWorld) -> None:
        await world.stream()
        for streams in ("x", ["s", "x"]):
            with pytest.raises(NotFoundError, match=r"\[x\]"):
                await world.consumer(streams).start()

    simulate(test)


def test_what_a_callback_raises_ends_the_consumer() -> None:
    """It leaves the group, and whoever fetches is told why."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=1)

        def broken(partitions: frozenset[Partition]) -> None:
            raise RuntimeError("my callback")

        consumer = world.consumer(on_assigned=broken)
        await consumer.start()
        with pytest.raises(Exception, match="my callback"):
            await consumer.fetch()
        assert (await world.dis.groups.members("a")).members == ()
        with pytest.raises(RuntimeError, match="my callback"):
            await consumer.close()

    simulate(test)


def test_recreating_a_stream_starts_it_anew() -> None:
    """The old numbers mean nothing in the new stream; the members find out by themselves."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=5)
        consumer = await world.started(auto_commit_s=0.5)
        await take(consumer, 5)
        await asyncio.sleep(1.0)
        await world.dis.streams.delete("s")
        await world.stream(records=2)
        seen: list[int] = []
        while len(seen) < 2:
            try:
                seen += numbers(await consumer.fetch(timeout_s=30.0))
            except NotFoundError:
                await asyncio.sleep(1.0)  # of the old stream, until the group has noticed
        assert seen == [0, 1]

    simulate(test)


@only_a_group
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: ConsumerConfig(finish="later"), "finish="),  # type: ignore[arg-type]
        (lambda: ConsumerConfig(max_gap=0), "max_gap=0"),
        (lambda: ConsumerConfig(auto_commit_s=0), "auto_commit_s=0"),
        (lambda: ConsumerConfig(member_id="a/b"), "member_id='a/b'"),
        (lambda: ConsumerConfig(coordination="group"), "coordination='group'"),  # type: ignore[arg-type]
        (lambda: ServiceGroup(max_stall_s=0), "max_stall_s=0"),
        (lambda: ConsumerConfig(coordination=ServiceGroup(rebalance_timeout_s=5)), "drain_timeout_s=10"),
        (lambda: ConsumerConfig(coordination=ServiceGroup(heartbeat_s=20)), "heartbeat_s=20"),
        (lambda: Leases(SimLeases(LeaseRows()), look_s=0), "look_s=0"),
        (lambda: Leases("leases.db"), "leases.db"),  # type: ignore[arg-type]
        (lambda: ConsumerConfig(coordination=Leases(SimLeases(LeaseRows()), heartbeat_s=20)), "heartbeat_s=20"),
        (lambda: Pattern(""), "Pattern"),
        (lambda: Pattern("("), "no regular expression"),
    ],
)
def test_a_wrong_setting_is_refused(make: Callable[[], object], told: str) -> None:
    """By name and value."""
    with pytest.raises(ConfigError, match=told):
        make()
