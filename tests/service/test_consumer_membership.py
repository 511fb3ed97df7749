"""Proves that a member of a group neither hangs nor acts for what is another's, whatever callbacks and endpoints do."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import anyio
import pytest
from app_world import GROUP, SESSION_S, AppWorld, numbers, p, simulate, take

from disstream import clock
from disstream.client import Client
from disstream.consumer import Consumer, ConsumerConfig, Pattern, ServiceGroup, Static
from disstream.consumer.heartbeat import Heartbeats
from disstream.consumer.lease import Lease
from disstream.errors import (
    AuthError,
    ClosedError,
    ConcurrencyError,
    ConfigError,
    CoordinationUnsupported,
    DisError,
    LeaseLost,
    NotFoundError,
    StaleGeneration,
    TransportError,
)
from disstream.model import Partition
from disstream.server import App, ServerConfig
from disstream.testing.clock import SimLoop, run_simulated
from disstream.testing.network import AppTransport
from disstream.wire.errors import api_error, refusal
from disstream.wire.groups import HeartbeatState
from disstream.wire.http import Request, Response, split_target
from disstream.wire.routes import Match, match

Rule = Callable[[Request], Awaitable[Response | None]]


class Endpoint:
    """The application of a world behind rules of the test: what a rule answers is answered instead."""

    def __init__(self, world: AppWorld) -> None:
        self.app = world.app
        self.rules: dict[str, Rule] = {}
        self.counts: Counter[str] = Counter()

    async def handle(self, request: Request) -> Response:
        found = match(request.method, split_target(request.target)[0])
        assert isinstance(found, Match)
        self.counts[found.operation] += 1
        rule = self.rules.get(found.operation)
        answer = await rule(request) if rule is not None else None
        return answer or await self.app.handle(request)


async def behind(world: AppWorld) -> Endpoint:
    """Put an endpoint between the world's application and its line."""
    endpoint = Endpoint(world)
    world.line._carry = AppTransport(endpoint, latency_s=0.01)
    return endpoint


async def join_and_leave(world: AppWorld, stay_s: float = 1.0) -> None:
    """A stranger makes the group deal anew, twice."""
    await world.dis.groups.join("a", "stranger", streams=["s"], accelerate=True)
    await asyncio.sleep(stay_s)
    await world.dis.groups.leave("a", "stranger")


def says(state: str) -> Rule:
    async def rule(request: Request) -> Response:
        return Response(status=200, body=b'{"state": "%s"}' % state.encode())

    return rule


@pytest.fixture(params=["group"], autouse=True)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    kind: str = request.param
    monkeypatch.setattr(AppWorld, "kind", kind)
    return kind


however_shared = pytest.mark.parametrize("kind", ["group", "leases"], indirect=True)


# --- callbacks ---


def test_a_callback_that_hangs_does_not_cost_the_membership() -> None:
    """It is cut at its deadline: what is finished is committed, and the member keeps its place in the group."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2, records=3)
        cut: list[float] = []

        async def hang(partitions: frozenset[Partition], deadline: float) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                cut.append(anyio.current_time() - deadline)

        consumer = await world.started(on_revoked=hang, drain_timeout_s=2.0, auto_commit_s=None)
        for record in await take(consumer, 6):
            consumer.record_done(record)
        other = Consumer(await world.other_client(), "s", ConsumerConfig(coordination=GROUP), app="a")
        async with other:
            await consumer.fetch(timeout_s=10.0)
            assert [len(consumer.assignment()), len(other.assignment())] == [1, 1]
        assert await world.committed() == {0: 3, 1: 3}
        assert cut == [pytest.approx(0.0)]

    simulate(test)


@however_shared
def test_a_close_does_not_wait_for_a_callback_for_ever() -> None:
    """It gets what a hand-over would give it; then what is finished is committed, and the group is left."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=3)
        left: list[float] = []

        async def hang(partitions: frozenset[Partition], deadline: float) -> None:
            left.append(deadline - anyio.current_time())
            await anyio.sleep_forever()

        consumer = await world.started(on_revoked=hang, drain_timeout_s=2.0)
        consumer.record_done((await take(consumer, 3))[-1])
        with anyio.fail_after(5.0):
            await consumer.close()
        assert left == [pytest.approx(2.0)]
        assert await world.committed() == {0: 3}
        assert (await world.dis.groups.members("a")).members == ()

    simulate(test)


@pytest.mark.parametrize("coordination", [GROUP, Static()])
def test_a_close_does_not_wait_for_its_commit_for_ever(
    coordination: ServiceGroup | Static, caplog: pytest.LogCaptureFixture
) -> None:
    """A service that does not answer costs ten seconds at most, and it is told that finished work is not committed."""

    async def test(world: AppWorld) -> None:
        endpoint = await behind(world)
        await world.stream(records=3)
        consumer = await world.started(coordination=coordination)
        consumer.record_done((await take(consumer, 3))[-1])

        async def hang(request: Request) -> None:
            await anyio.sleep_forever()

        endpoint.rules["commit_checkpoint"] = hang
        begun = anyio.current_time()
        await consumer.close()
        assert anyio.current_time() - begun < 12.0
        assert "finished work was not committed in time" in caplog.text

    simulate(test)


@however_shared
@pytest.mark.parametrize("ending", ["close", "abort"])
def test_a_callback_cannot_close_its_consumer(ending: str) -> None:
    """It would wait for itself; it is told so, and what it raises ends the consumer."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=1)

        async def assigned(partitions: frozenset[Partition]) -> None:
            await getattr(consumer, ending)()

        consumer = world.consumer(on_assigned=assigned)
        await consumer.start()
        with anyio.fail_after(60.0), pytest.raises(ClosedError) as told:
            await consumer.fetch()
        assert isinstance(told.value.__cause__, ConcurrencyError)
        with pytest.raises(ConcurrencyError, match="on_assigned"):
            await consumer.close()

    simulate(test)


@however_shared
def test_a_callback_may_commit_while_its_consumer_closes() -> None:
    """As at every hand-over; afterwards nobody may any more."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=5)
        told: list[object] = []

        async def revoked(partitions: frozenset[Partition], deadline: float) -> None:
            consumer.record_done(records[3])
            told.extend([await consumer.commit(), consumer.position(p(0)), await consumer.lag()])

        consumer = await world.started(on_revoked=revoked)
        records = await take(consumer, 5)
        await consumer.close()
        assert told == [{p(0): 4}, 5, {p(0): 0}]
        assert await world.committed() == {0: 4}
        with pytest.raises(ClosedError):
            await consumer.commit()

    simulate(test)


def test_a_commit_in_a_callback_that_comes_too_late_is_not_the_end() -> None:
    """The member was cut off; its callback commits as always, and the member joins again."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=10)

        async def assigned(partitions: frozenset[Partition]) -> None:
            await lonely.commit()

        async def revoked(partitions: frozenset[Partition], deadline: float) -> None:
            await lonely.commit()

        lonely = await world.started(on_assigned=assigned, on_revoked=revoked)
        records = await take(lonely, 3)
        other = await world.other_client()
        world.line.cut = True
        await asyncio.sleep(SESSION_S * 1.5)
        async with Consumer(other, "s", ConsumerConfig(coordination=GROUP), app="a") as successor:
            successor.record_done((await take(successor, 5))[-1])
        world.line.cut = False
        lonely.record_done(records[-1])
        assert numbers(await take(lonely, 5)) == [5, 6, 7, 8, 9]
        with pytest.raises(LeaseLost, match="1 partition"):
            await lonely.commit()

    simulate(test)


def test_a_commit_in_a_callback_without_an_answer_is_not_the_end() -> None:
    """The hand-over goes on and commits itself. What else the callback raises still ends the consumer."""

    async def test(world: AppWorld) -> None:
        endpoint = await behind(world)
        await world.stream(records=5)
        failed: list[DisError] = []

        async def revoked(partitions: frozenset[Partition], deadline: float) -> None:
            endpoint.rules["commit_checkpoint"] = fails
            try:
                await consumer.commit()
            except DisError as error:
                failed.append(error)
                if len(failed) == 2:
                    raise TransportError("of something else", outcome_unknown=False) from error
                raise
            finally:
                del endpoint.rules["commit_checkpoint"]

        async def fails(request: Request) -> Response:
            return refusal(api_error("DIS.4200"), "r")

        consumer = await world.started(on_revoked=revoked)
        consumer.record_done((await take(consumer, 3))[-1])
        await join_and_leave(world)
        await asyncio.sleep(5.0)
        assert len(failed) == 1
        assert await world.committed() == {0: 3}
        consumer.record_done((await take(consumer, 1))[-1])
        with pytest.raises(TransportError, match="of something else"):
            await consumer.close()

    simulate(test)


# --- handing out ---


@however_shared
def test_records_given_back_do_not_count_as_gap() -> None:
    """A loop broken off in the middle of a long run: its partition goes on once what was handed out is finished."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=40)
        consumer = await world.started(finish="explicit", max_gap=3)
        async for record in consumer:
            consumer.record_done(record)
            break
        for number in range(1, 40):
            (record,) = await take(consumer, 1)
            assert record.sequence_number == number
            consumer.record_done(record)

    simulate(test)


def test_a_hand_over_in_a_long_run_does_not_stop_its_partition() -> None:
    """What was taken and not handed out when the group changed is handed out afterwards."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=40)
        consumer = await world.started(finish="explicit", max_gap=3)
        seen = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(join_and_leave, world)
            with anyio.fail_after(60.0):
                async for record in consumer:
                    seen.append(record.sequence_number)
                    consumer.record_done(record)
                    await asyncio.sleep(0.2)
                    if len(seen) == 40:
                        break
        assert seen == list(range(40))

    simulate(test)


@however_shared
@pytest.mark.parametrize("to", ["earliest", datetime.fromtimestamp(0, UTC)])
def test_done_counts_after_a_seek_to_a_place_without_a_number(to: str | datetime) -> None:
    """As soon as records came from there, they can be finished and committed."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=10)
        consumer = await world.started()
        await take(consumer, 8)
        consumer.seek(p(0), to)  # type: ignore[arg-type]
        records = await take(consumer, 4)
        assert await consumer.commit() == {p(0): 0}
        consumer.record_done(records[2])
        assert await consumer.commit() == {p(0): 3}

    simulate(test)


# --- committing ---


def test_a_commit_that_waited_does_not_overtake_another_member() -> None:
    """While it was stuck the partition went to another member and came back: the checkpoint does not go back."""

    async def test(world: AppWorld) -> None:
        endpoint = await behind(world)
        await world.stream(partitions=40, records=6)
        consumer = await world.started(drain_timeout_s=1.0)
        for record in await take(consumer, 40 * 6):
            if record.sequence_number == 2:
                consumer.record_done(record)
        stuck = anyio.Event()

        async def hold(request: Request) -> None:
            await stuck.wait()

        endpoint.rules["commit_checkpoint"] = hold
        async with anyio.create_task_group() as tasks:

            async def commit() -> None:
                with pytest.raises(StaleGeneration):
                    await consumer.commit()

            tasks.start_soon(commit)
            await asyncio.sleep(0.5)
            client = await world.other_client()
            async with Consumer(client, "s", ConsumerConfig(coordination=GROUP), app="a") as other:
                for record in await take(other, 20 * 6):
                    other.record_done(record)
                theirs = other.assignment()
            await asyncio.sleep(1.0)
            assert len(consumer.assignment()) == 20
            await asyncio.sleep(12.0)
            assert len(consumer.assignment()) == 40
            stuck.set()
        committed = await world.committed()
        assert [committed[n] for n in range(40) if p(n) in theirs] == [6] * 20

    simulate(test)


def test_finished_work_is_committed_although_a_slow_record_used_up_the_time() -> None:
    """A hand-over leaves time for its commit, also where the session is shorter than a drain may take."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=6)
        consumer = await world.started(finish="explicit", drain_timeout_s=15.0)
        for record in (await take(consumer, 6))[:4]:
            consumer.record_done(record)
        await join_and_leave(world)
        await asyncio.sleep(15.0)
        assert await world.committed() == {0: 4}
        assert consumer.stats().rebalances > 1

    simulate(test)


def test_a_commit_without_an_answer_does_not_hold_up_the_group() -> None:
    """A hand-over gives up its commit when the lease ends, and the member joins again."""

    async def test(world: AppWorld) -> None:
        endpoint = await behind(world)
        await world.stream(records=6)
        consumer = await world.started()
        consumer.record_done((await take(consumer, 6))[-1])

        async def never(request: Request) -> None:
            await anyio.sleep_forever()

        endpoint.rules["commit_checkpoint"] = never
        await join_and_leave(world)
        await asyncio.sleep(SESSION_S + 5.0)
        assert consumer.stats().rebalances > 1
        del endpoint.rules["commit_checkpoint"]
        await consumer.close()
        assert await world.committed() == {0: 6}

    simulate(test)


def test_a_seek_finishes_what_a_hand_over_waits_for() -> None:
    """Nothing handed out before it counts any more."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=6)
        consumer = await world.started(drain_timeout_s=8.0)
        await take(consumer, 6)
        await world.dis.groups.join("a", "stranger", streams=["s"], accelerate=True)
        await asyncio.sleep(2.0)
        consumer.seek(p(0), 3)
        await asyncio.sleep(0.5)
        assert await world.committed() == {0: 3}

    simulate(test)


# --- joining ---


def test_who_never_asked_to_join_does_not_leave() -> None:
    """A start that failed before is told at once, without a call that nobody understands."""

    async def test(world: AppWorld) -> None:
        endpoint = await behind(world)
        await world.stream("t")

        async def unknown(request: Request) -> Response:
            return Response(status=404)

        for streams, error in (("s", NotFoundError), ("t", CoordinationUnsupported)):
            with pytest.raises(error):
                await world.consumer(streams).start()
            endpoint.rules["group_join"] = unknown
        assert endpoint.counts["group_leave"] == 0

    simulate(test)


@pytest.mark.parametrize("operation", ["describe_app", "describe_stream", "group_join"])
@pytest.mark.parametrize("coordination", [GROUP, Static()])
def test_a_close_cuts_a_start_that_gets_no_answer(operation: str, coordination: ServiceGroup | Static) -> None:
    """Whoever waits for the start learns it; nothing is left running."""

    async def test(world: AppWorld) -> None:
        endpoint = await behind(world)
        await world.stream(records=3)

        async def never(request: Request) -> None:
            await anyio.sleep_forever()

        endpoint.rules[operation] = never
        consumer = world.consumer(coordination=coordination)
        before = len(asyncio.all_tasks())
        starting = asyncio.create_task(consumer.start())
        await asyncio.sleep(1.0)
        with anyio.fail_after(4.0):
            await consumer.close()
        await asyncio.wait({starting})
        if not (operation == "group_join" and coordination != GROUP):
            assert isinstance(starting.exception(), ClosedError)
        endpoint.rules.clear()
        await asyncio.sleep(40.0)
        assert len(asyncio.all_tasks()) <= before + 1, "but for the request on the way that nobody answers"

    simulate(test)


def test_a_group_that_was_made_anew_is_joined() -> None:
    """Its app was deleted and made again, so its generations are lower than the one this member knows."""

    async def test(world: AppWorld) -> None:
        endpoint = await behind(world)
        await world.stream(records=10)
        consumer = await world.started()
        for _ in range(3):
            await join_and_leave(world)
            await asyncio.sleep(2.0)
        consumer.record_done((await take(consumer, 4))[-1])
        await consumer.commit()
        assert (consumer.stats().generation or 0) > 3
        other = await world.other_client()
        world.line.cut = True
        await asyncio.sleep(SESSION_S + 1.0)
        await other.apps.delete("a")
        await other.apps.create("a")
        world.line.cut = False
        asked = endpoint.counts["group_sync"]
        assert numbers(await take(consumer, 10)) == list(range(10)), "without checkpoints it begins anew"
        assert endpoint.counts["group_sync"] - asked < 20

    simulate(test)


@pytest.mark.parametrize("session_s", [0.5, 1.0])
def test_a_short_session_outlives_the_joining(session_s: float) -> None:
    """The join delay is longer than the session: signs of life are given from the join on."""

    async def test(world: AppWorld) -> None:
        endpoint = await behind(world)
        endpoint.app = App(world.engine, ServerConfig(data_dir=None, session_timeout_s=session_s), random.Random(1))
        await world.stream(records=3)
        consumer = await world.started(coordination=ServiceGroup())
        assert numbers(await take(consumer, 3)) == [0, 1, 2]
        assert consumer.stats().rebalances == 1

    simulate(test)


def test_a_session_that_became_shorter_is_kept() -> None:
    """The server was restarted with another setting: heartbeats come as often as that needs."""

    async def test(world: AppWorld) -> None:
        endpoint = await behind(world)
        await world.stream(records=10)
        consumer = await world.started()
        consumer.record_done((await take(consumer, 2))[-1])
        endpoint.app = App(world.engine, ServerConfig(data_dir=None, session_timeout_s=0.5), random.Random(1))
        await asyncio.sleep(5.0)
        rebalances = consumer.stats().rebalances
        assert rebalances > 1
        for _ in range(4):
            consumer.record_done((await take(consumer, 2))[-1])
            await asyncio.sleep(5.0)
        assert consumer.stats().rebalances == rebalances

    simulate(test)


@pytest.mark.parametrize("told_ms", [b"1", b"86400000", b"1000000000000000"])
def test_a_session_nobody_would_tell_is_survived(told_ms: bytes) -> None:
    """However short or long: the endpoint is not flooded, and a close does not wait. More than a day is no answer."""

    async def test(world: AppWorld) -> None:
        endpoint = await behind(world)
        await world.stream(records=3)

        async def join(request: Request) -> Response:
            await endpoint.app.handle(request)
            return Response(
                status=200, body=b'{"state": "OK", "syncDelayedTimeMs": 0, "sessionTimeoutMs": %s}' % told_ms
            )

        endpoint.rules["group_join"] = join
        if len(told_ms) > 8:
            with pytest.raises(TransportError, match=r"not what DIS answers.*sessionTimeoutMs"):
                await world.started()
            return
        consumer = await world.started()
        await consumer.fetch(timeout_s=10.0)
        assert endpoint.counts["group_heartbeat"] <= 250
        with anyio.fail_after(20.0):
            await consumer.close()

    simulate(test)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{}",
        b'{"state": "OK"}',
        b'{"state": "NO"}',
        b'{"state": "OK", "generation": -9, "assignment": {"s": [-1]}}',
        b'{"state": "OK", "generation": 0, "assignment": {"s": [77]}}',
        b'{"state": "OK", "generation": 0, "assignment": {"x": [0]}}',
        b'{"state": "OK", "generation": 0, "assignment": {"s": [0, 0]}}',
        b'{"state": "OK", "generation": 123456789012345678901234567890, "assignment": {"s": [0]}}',
        b'{"state": "OK", "generation": 0, "assignment": {"s": [123456789012345678901234567890]}}',
        b'{"state": "ERROR"}',
        b'{"state": "REJOIN"}',
        b'{"state": "GROUP_NOT_EXIST"}',
        b'{"state": "WAITING"}',
    ],
)
@pytest.mark.parametrize("operation", ["group_sync", "group_heartbeat"])
def test_nonsense_is_neither_believed_nor_repeated_without_a_pause(operation: str, body: bytes) -> None:
    """A fetch ends in time or with one of our errors, the endpoint is not flooded, and once it recovers so do we."""

    async def test(world: AppWorld) -> None:
        endpoint = await behind(world)
        await world.stream(records=3)

        async def nonsense(request: Request) -> Response:
            return Response(status=200, body=body)

        consumer = await world.started()
        if operation == "group_heartbeat":
            await take(consumer, 1)
        endpoint.rules[operation] = nonsense
        await world.dis.groups.join("a", "stranger", streams=["s"], accelerate=True)
        await world.dis.groups.leave("a", "stranger")
        endpoint.counts.clear()
        for _ in range(6):
            await consumer.fetch(max_records=1, timeout_s=5.0)
        assert endpoint.counts["group_sync"] + endpoint.counts["group_join"] < 30 * 12
        endpoint.rules.clear()
        await asyncio.sleep(30.0)
        await world.write(1)
        assert await consumer.fetch(timeout_s=30.0)

    simulate(test)


def test_a_member_of_many_streams_far_away_keeps_its_place() -> None:
    """What it asks about each stream while the others wait for it is asked of several at once."""

    async def test(world: AppWorld) -> None:
        names = [f"s{n}" for n in range(120)]
        for name in names:
            await world.dis.streams.create(name, partitions=1)
        world.line._carry = AppTransport(world.app, latency_s=0.2)
        group = ServiceGroup(rebalance_timeout_s=15.0)
        settings = {"coordination": group, "start": "latest", "idle_min_s": 20.0, "idle_max_s": 20.0}
        members = [await world.started(names, **settings) for _ in range(2)]
        await asyncio.sleep(60.0)
        assert [len(member.assignment()) for member in members] == [60, 60]
        rebalances = [member.stats().rebalances for member in members]
        await asyncio.sleep(20.0)
        assert [member.stats().rebalances for member in members] == rebalances

    simulate(test)


# --- streams that come and go ---


@however_shared
def test_a_pattern_survives_that_a_stream_is_deleted() -> None:
    """The others are read on without an error; a new one of the same name is read from its beginning."""

    async def test(world: AppWorld) -> None:
        for name in ("orders-1", "orders-2"):
            await world.stream(name, records=2)
        consumer = await world.started(Pattern("orders-.*"))
        await take(consumer, 4)
        await world.dis.streams.delete("orders-1")
        for number in range(2, 22):
            await world.write(1, "orders-2")
            (record,) = await take(consumer, 1)
            assert (record.stream, record.sequence_number) == ("orders-2", number)
            await asyncio.sleep(0.5)
        assert consumer.assignment() == {p(0, "orders-2")}
        await world.stream("orders-1", records=2)
        assert [(r.stream, r.sequence_number) for r in await take(consumer, 2)] == [("orders-1", 0), ("orders-1", 1)]

    simulate(test)


@however_shared
def test_a_named_stream_that_is_deleted_is_named() -> None:
    """The consumer ends: it cannot do what it was told. The error says which stream is missing."""

    async def test(world: AppWorld) -> None:
        for name in ("s", "t"):
            await world.stream(name, records=2)
        consumer = await world.started(["s", "t"])
        for record in await take(consumer, 4):
            consumer.record_done(record)
        await world.dis.streams.delete("t")
        with pytest.raises((NotFoundError, ClosedError), match=r"\[t\]"):
            await consumer.fetch(timeout_s=60.0)
        await asyncio.sleep(30.0)
        with pytest.raises(ClosedError, match=r"\[t\]"):
            await consumer.fetch(timeout_s=60.0)
        assert (await world.committed())[0] == 2

    simulate(test)


def test_a_start_of_a_stream_that_is_not_read_is_refused() -> None:
    """A typo in its name would otherwise begin somewhere else."""

    async def test(world: AppWorld) -> None:
        with pytest.raises(ConfigError, match="'t'"):
            world.consumer("s", start={p(0, "t"): 3})

    simulate(test)


# --- signs of life ---


def test_heartbeats_that_are_refused_for_good_are_told() -> None:
    """Once the lease has run out whoever fetches learns why, instead of waiting for ever."""

    async def test(world: AppWorld) -> None:
        endpoint = await behind(world)
        await world.stream(records=3)
        consumer = await world.started()
        await take(consumer, 3)

        async def refuse(request: Request) -> Response:
            return Response(status=403, body=b'{"error_code": "APIG.0305", "error_msg": "not allowed"}')

        endpoint.rules["group_heartbeat"] = refuse
        with anyio.fail_after(60.0), pytest.raises(ClosedError, match="not allowed") as told:
            await consumer.fetch()
        assert isinstance(told.value.__cause__, AuthError)

    simulate(test)


def test_a_refusal_of_heartbeats_that_passes_is_survived() -> None:
    """As long as the lease lasts; also flow control, however long."""

    async def test(world: AppWorld) -> None:
        endpoint = await behind(world)
        await world.stream(records=6)
        consumer = await world.started()
        await take(consumer, 3)

        async def refuse(request: Request) -> Response:
            return Response(status=403, body=b'{"error_code": "APIG.0305", "error_msg": "not allowed"}')

        async def throttle(request: Request) -> Response:
            return refusal(api_error("DIS.4303"), "r")

        endpoint.rules["group_heartbeat"] = refuse
        await asyncio.sleep(SESSION_S / 2)
        endpoint.rules["group_heartbeat"] = throttle
        await asyncio.sleep(SESSION_S * 3)
        endpoint.rules.clear()
        assert numbers(await take(consumer, 3)) == [3, 4, 5]

    simulate(test)


def test_a_loop_may_be_given_up_sooner_than_a_heartbeat_is_due() -> None:
    """max_stall_s below the interval: a loop that works is not taken for one that is blocked."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=10)
        consumer = await world.started(coordination=ServiceGroup(accelerate=True, max_stall_s=0.4))
        for _ in range(10):
            await take(consumer, 1)
            await asyncio.sleep(1.3)
        assert consumer.stats().rebalances == 1

    simulate(test)


def test_a_client_that_was_closed_first_is_told() -> None:
    """Whoever fetches learns it; the consumer still closes at once."""

    async def test(world: AppWorld) -> None:
        await world.stream(records=3)
        client: Client = await world.other_client()
        consumer = Consumer(client, "s", ConsumerConfig(coordination=GROUP), app="a")
        await consumer.start()
        await take(consumer, 3)
        await client.close()
        with anyio.fail_after(60.0), pytest.raises(ClosedError):
            await consumer.fetch()
        with anyio.fail_after(5.0):
            await consumer.abort()

    simulate(test)


def test_a_lease_that_runs_out_while_a_heartbeat_waits_is_revived_for_all() -> None:
    """Its late answer wakes whoever found the lease run out meanwhile, though nothing new is fetched."""

    async def test(world: AppWorld) -> None:
        endpoint = await behind(world)
        await world.stream(records=6)
        consumer = await world.started()
        await take(consumer, 3)
        assert consumer._member is not None
        served = anyio.Event()

        async def fail(request: Request) -> Response:
            return Response(status=500, body=b"{}")

        async def wait(request: Request) -> None:
            await served.wait()

        endpoint.rules["group_heartbeat"] = fail
        await asyncio.sleep(SESSION_S * 0.9 - 2.0)
        endpoint.rules["group_heartbeat"] = wait
        await asyncio.sleep(consumer._member.lease.deadline - clock.boot() + 0.05)
        fetching = asyncio.ensure_future(consumer.fetch())
        await asyncio.sleep(0.1)
        assert not fetching.done()
        endpoint.rules.clear()
        served.set()
        with anyio.fail_after(SESSION_S):
            assert numbers(await fetching) == [3, 4, 5]
        assert consumer.stats().rebalances == 1

    simulate(test)


def test_a_process_that_was_stopped_is_not_taken_for_a_blocked_loop() -> None:
    """Heartbeats that run again before the working loop does give nothing up; a loop that stays blocked is given up."""

    class Groups:
        async def heartbeat(
            self, app: str, member_id: str, generation: int, *, timeout_s: float | None = None
        ) -> HeartbeatState:
            return "STABLE"

        async def leave(self, app: str, member_id: str, *, timeout_s: float | None = None) -> None:
            left.append(clock.boot())

    left: list[float] = []
    lease = Lease(20.0)
    heartbeats = Heartbeats("a", "m", lease, interval_s=1.0, max_stall_s=30.0, on_news=lambda: None)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        heartbeats.alive()
        lease.grant(1, SESSION_S, clock.boot())
        beating = loop.create_task(heartbeats.run(Groups()))
        await asyncio.sleep(2.5)
        loop.advance(100.0)
        await asyncio.sleep(1.0)
        assert (heartbeats.stalled, left) == (False, [])
        assert lease.holds(clock.boot()), "the service still answers: go on"
        await asyncio.sleep(40.0)
        assert heartbeats.stalled
        assert left == [pytest.approx(133.5, abs=1.5)]
        beating.cancel()
        await asyncio.wait({beating})

    run_simulated(main)
