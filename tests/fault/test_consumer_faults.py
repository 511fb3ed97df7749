"""The consumer against a service that fails, forgets, expires and hangs: each record once, in order, or told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from itertools import pairwise
from random import Random
from typing import Any

import anyio
import pytest
from consumer_double import DoubleService

from disstream.consumer import Consumer, ConsumerConfig, Static
from disstream.consumer.config import Start
from disstream.errors import (
    AuthError,
    ClosedError,
    ConcurrencyError,
    ConfigError,
    DisError,
    NotFoundError,
    SequenceOutOfRange,
    TransportError,
)
from disstream.model import Partition, Record
from disstream.testing.clock import EPOCH, SimLoop, run_simulated
from disstream.wire.errors import api_error

P0, P1, P2 = (Partition("s", f"shardId-{n:010d}") for n in range(3))


def consumer_of(service: DoubleService, **config: Any) -> Consumer:
    config = {"lag_interval_s": None, **config}  # or each count of requests here would hold those for statistics
    return Consumer(service, "s", ConsumerConfig(**config), rng=Random(7))


def numbers(records: list[Record]) -> list[int]:
    return [r.sequence_number for r in records]


async def fetch_until(consumer: Consumer, count: int, max_records: int = 500) -> list[int]:
    """The numbers of the next `count` records."""
    got: list[int] = []
    while len(got) < count:
        records = await consumer.fetch(max_records=min(max_records, count - len(got)), timeout_s=3600)
        assert records, f"only {len(got)} of {count} records came"
        got += numbers(records)
    return got


async def iterate(consumer: Consumer, count: int) -> list[int]:
    got = []
    async for record in consumer:
        got.append(record.sequence_number)
        if len(got) == count:
            break
    return got


async def idle_tasks() -> int:
    await asyncio.sleep(0)
    return len(asyncio.all_tasks())


# --- each record once, in order ---


@pytest.mark.parametrize("seed", range(12))
def test_under_random_faults_each_record_comes_once_and_in_order(seed: int) -> None:
    """Expired cursors, cut connections, 5xx, throttling, random hand-out in both ways: nothing lost or repeated."""

    async def main() -> None:
        rng = Random(seed)
        faults: list[DisError] = [
            TransportError("cut", outcome_unknown=True),
            api_error("DIS.5000"),
            api_error("DIS.4303"),
            api_error("DIS.4225", ""),
            api_error("DIS.4217", ""),
        ]
        service = DoubleService(3, page_records=7)
        async with consumer_of(service, prefetch_bytes=2_097_152) as consumer:
            service.fault = lambda operation: rng.choice(faults) if rng.random() < 0.3 else None
            got: dict[str, list[int]] = defaultdict(list)
            total = 0
            for _ in range(30):
                for partition in range(3):
                    service.write(partition, rng.randrange(20))
                if rng.random() < 0.3:
                    await asyncio.sleep(rng.uniform(0, 400))  # cursors grow old meanwhile
                records = await consumer.fetch(max_records=rng.randint(1, 30), timeout_s=rng.uniform(0, 5))
                for _ in range(rng.randrange(3)):
                    try:
                        records.append(await asyncio.wait_for(anext(consumer), rng.uniform(0.0, 1.0)))
                    except TimeoutError:
                        break
                for record in records:
                    got[record.partition_id].append(record.sequence_number)
                total += len(records)
            written = sum(len(log) for log in service.logs.values())
            while total < written:
                for record in await consumer.fetch(timeout_s=3600):
                    got[record.partition_id].append(record.sequence_number)
                    total += 1
            for name, log in service.logs.items():
                assert got[name] == list(range(len(log)))
            stats = consumer.stats()
            assert (stats.records, stats.gap_records, stats.repeated_records) == (written, 0, 0)
            assert stats.retries > 0

    run_simulated(main)


def test_twenty_idle_minutes_keep_the_place() -> None:
    """With polls far apart and then none at all, cursors are renewed in time: no expiry is ever met."""

    async def main() -> None:
        service = DoubleService()
        service.write(0, 3)
        async with consumer_of(service) as consumer:
            assert await fetch_until(consumer, 3) == [0, 1, 2]
            consumer.pause(P0)  # nothing is polled, so no answer brings a fresh cursor
            await asyncio.sleep(1200)
            service.write(0, 2)
            consumer.resume(P0)
            assert await fetch_until(consumer, 2) == [3, 4]
            await asyncio.sleep(1200)
            service.write(0, 1)
            assert await fetch_until(consumer, 1) == [5]
            assert consumer.stats().retries == 0
            assert service.cursor_types == {"AT_SEQUENCE_NUMBER": 2}

    run_simulated(main)


def test_cursors_expire_while_a_slow_consumer_holds_pages() -> None:
    """A consumer that stands for ten minutes with a full buffer gets what was buffered, then goes on exactly there."""

    async def main() -> None:
        service = DoubleService(page_records=5)
        service.write(0, 60, size=200_000)
        async with consumer_of(service, prefetch_bytes=2_097_152) as consumer:
            got = []
            async for record in consumer:
                got.append(record.sequence_number)
                if len(got) % 20 == 1:
                    await asyncio.sleep(600)
                if len(got) == 60:
                    break
            assert got == list(range(60))
            assert consumer.stats().retries == 0

    run_simulated(main)


def test_a_hanging_service_that_forgets_cursors_early_is_survived() -> None:
    """A cursor refused long before its time costs one more request."""

    async def main() -> None:
        service = DoubleService(page_records=5)
        service.write(0, 20)
        refused = iter([True, False, True, False, False])
        service.fault = lambda op: api_error("DIS.4217", "") if op == "read" and next(refused, False) else None
        async with consumer_of(service) as consumer:
            assert await fetch_until(consumer, 20) == list(range(20))
            assert consumer.stats().retries == 2

    run_simulated(main)


# --- where reading starts ---


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("earliest", [2, 3, 4, 5, 6]),
        ("latest", [5, 6]),
        ({"shardId-0000000000": 4}, [4, 5, 6]),
        ({P0: 5}, [5, 6]),
        (datetime.fromtimestamp(EPOCH + 103, UTC), [3, 4, 5, 6]),
        (datetime.fromtimestamp(EPOCH + 1000, UTC), [5, 6]),
    ],
)
def test_start_positions(start: Start, expected: list[int]) -> None:
    """earliest, latest, a number and a time, past or to come, each begin where they say."""

    async def main() -> None:
        service = DoubleService()
        await asyncio.sleep(100)
        for _ in range(5):
            service.write(0, 1)  # number n at second 100 + n
            await asyncio.sleep(1)
        service.trim(0, 2)
        async with consumer_of(service, start=start) as consumer:
            await asyncio.sleep(2000)
            service.write(0, 2)
            assert await fetch_until(consumer, len(expected)) == expected
            assert consumer.position(P0) == 7
            assert consumer.stats().gap_records == 0

    run_simulated(main)


def test_latest_means_the_moment_of_start_for_all_partitions() -> None:
    """What is written while the first cursors still fail is read: latest is not decided by whoever succeeds later."""

    async def main() -> None:
        service = DoubleService(2)
        service.write(0, 3)
        async with consumer_of(service, start="latest") as consumer:
            service.fault = lambda op: TransportError("down", outcome_unknown=False)
            await asyncio.sleep(10)
            service.write(0, 2)
            service.write(1, 1)
            service.fault = lambda op: None
            assert sorted(await fetch_until(consumer, 3)) == [0, 3, 4]

    run_simulated(main)


def test_earliest_trimmed_while_starting_is_no_gap() -> None:
    """If the oldest record expires between the description and the cursor, reading begins at the new oldest."""

    async def main() -> None:
        service = DoubleService()
        service.write(0, 10)
        async with consumer_of(service, on_expired="raise") as consumer:
            service.trim(0, 6)
            assert await fetch_until(consumer, 4) == [6, 7, 8, 9]
            assert consumer.stats().gap_records == 0

    run_simulated(main)


def test_static_partitions_only_and_unknown_ones_refused() -> None:
    """Only the named partitions are read; an unknown one fails the start with those that exist, and leaves no task."""

    async def main() -> None:
        service = DoubleService(3)
        for partition in range(3):
            service.write(partition, 4)
        async with consumer_of(service, coordination=Static(["1"])) as consumer:
            assert consumer.assignment() == {P1}
            got = await consumer.fetch()
            assert {r.partition for r in got} == {P1}
            with pytest.raises(ConfigError, match="not assigned"):
                consumer.seek(P0, 0)
        refused = consumer_of(service, coordination=Static(["7"]))
        with pytest.raises(ConfigError, match=r"'7'.*shardId-0000000002"):
            await refused.start()
        assert await idle_tasks() == 1

    run_simulated(main)


# --- expiry ---


async def overtaken(consumer: Consumer, service: DoubleService) -> None:
    """Read 0 to 9, stop, and let retention take 10 to 29 of 40."""
    assert await fetch_until(consumer, 10) == list(range(10))
    consumer.pause(P0)
    await asyncio.sleep(1)  # a read that was under way comes back empty
    service.write(0, 30)
    await asyncio.sleep(1200)
    service.trim(0, 30)
    consumer.resume(P0)


@pytest.mark.parametrize(("policy", "first", "gap"), [("earliest", 30, 20), ("latest", 40, 30)])
def test_expired_records_are_skipped_counted_and_logged(
    policy: str, first: int, gap: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Reading goes on by policy; the gap is in the statistics and in one warning."""

    async def main() -> None:
        service = DoubleService()
        service.write(0, 10)
        async with consumer_of(service, on_expired=policy) as consumer:
            await overtaken(consumer, service)
            await asyncio.sleep(10)
            assert consumer.position(P0) == first
            service.write(0, 1)
            assert (await fetch_until(consumer, 1))[0] == first
            assert consumer.stats().gap_records == gap

    with caplog.at_level(logging.WARNING, "disstream.consumer"):
        run_simulated(main)
    assert [r.getMessage() for r in caplog.records if "expired" in r.message] == [
        f"s/shardId-0000000000: records 10 to {first - 1} expired before they were read; going on at {first}"
    ]


def test_expiry_raises_if_asked_and_a_seek_goes_on() -> None:
    """on_expired="raise" gives the error at each call, until a seek says where to go on."""

    async def main() -> None:
        service = DoubleService()
        service.write(0, 10)
        async with consumer_of(service, on_expired="raise") as consumer:
            await overtaken(consumer, service)
            for _ in range(2):
                with pytest.raises(SequenceOutOfRange):
                    await consumer.fetch(timeout_s=100)
            consumer.seek(P0, "earliest")
            assert await fetch_until(consumer, 10) == list(range(30, 40))

    run_simulated(main)


# --- failures that do not heal ---


@pytest.mark.parametrize("way", ["fetch", "async for"])
def test_a_fatal_error_comes_after_the_records_before_it(way: str) -> None:
    """The stream is deleted: what was fetched of it is handed out first, of all partitions, then NotFoundError."""

    async def main() -> None:
        service = DoubleService(2)
        service.write(0, 10)
        service.write(1, 10)
        reads = 0

        def fault(operation: str) -> DisError | None:
            nonlocal reads
            reads += operation == "read"
            return api_error("DIS.4301", "[s][p]") if reads > 2 else None

        service.fault = fault
        async with consumer_of(service) as consumer:
            await asyncio.sleep(5)
            got: list[int] = []

            async def take_all() -> None:
                if way == "fetch":
                    while True:
                        got.extend(numbers(await consumer.fetch(max_records=3)))
                async for record in consumer:
                    got.append(record.sequence_number)

            with pytest.raises(NotFoundError):
                await take_all()
            assert sorted(got) == sorted([*range(10), *range(10)])
            with pytest.raises(NotFoundError):
                await consumer.fetch()
        assert await idle_tasks() == 1

    run_simulated(main)


def test_one_failed_partition_is_heard_although_another_is_busy() -> None:
    """Endless records of one partition do not drown the failure of another."""

    async def main() -> None:
        service = DoubleService(2)
        service.write(0, 5)
        service.write(1, 20_000)
        async with consumer_of(service) as consumer:
            await fetch_until(consumer, 50)
            service.fault = lambda op: api_error("DIS.4116", "no") if op == "cursor" else None
            consumer.seek(P0, 0)
            got = 0

            async def take_slowly() -> None:
                nonlocal got
                while True:
                    got += len(await consumer.fetch(max_records=5))
                    await asyncio.sleep(0.02)  # slower than the reader: the buffer is never empty by itself

            with pytest.raises(AuthError):
                await take_slowly()
            assert got < 1000

    run_simulated(main)


@pytest.mark.parametrize("opaque", [False, True])
@pytest.mark.parametrize("again", [3, 30], ids=["fewer", "more"])
@pytest.mark.parametrize("how", ["expired", "refused", "seek"])
def test_a_stream_created_again_is_another_stream(how: str, again: int, opaque: bool) -> None:
    """Its numbers mean nothing to a reader of the first one: whatever cursor is obtained anew, and whether or not the
    number exists there too, the records fetched before are handed out, then NotFoundError tells it at each call.
    """

    async def main() -> None:
        service = DoubleService(2, opaque=opaque)
        service.write(0, 10)
        service.write(1, 10)
        async with consumer_of(service) as consumer:
            assert len(await fetch_until(consumer, 15)) == 15
            for place in (P0, P1):
                consumer.pause(place)
            await asyncio.sleep(1200 if how == "expired" else 5)
            service.recreate([again, again])
            if how == "refused":
                service.fault = lambda op: api_error("DIS.4225", "") if op == "read" else None
            consumer.resume(P0)
            if how == "seek":
                consumer.seek(P0, "earliest")
            else:
                consumer.resume(P1)
            left: list[Record] = []

            async def take_all() -> None:
                while records := await consumer.fetch(timeout_s=3600):
                    left.extend(records)

            with pytest.raises(NotFoundError, match=r"DIS\.4301.*created again"):
                await take_all()
            assert len(left) <= 5
            assert consumer.stats().gap_records == 0
            consumer.seek(P0, 0)
            with pytest.raises(NotFoundError, match="created again"):
                await consumer.fetch(timeout_s=3600)

    run_simulated(main)


@pytest.mark.parametrize("opaque", [False, True])
def test_which_stream_a_cursor_is_of_costs_nothing_while_pages_renew_it(opaque: bool) -> None:
    """Twenty minutes of polling ask for one description at the start, and one more where cursors do not tell it."""

    async def main() -> None:
        service = DoubleService(opaque=opaque)
        service.write(0, 3)
        async with consumer_of(service, coordination=Static(["0"])) as consumer:
            await asyncio.sleep(1200)
            assert await fetch_until(consumer, 3) == [0, 1, 2]
            assert service.calls["describe"] == 1 + opaque
            assert service.calls["cursor"] == 1

    run_simulated(main)


def test_an_hour_without_the_service_is_two_warnings(caplog: pytest.LogCaptureFixture) -> None:
    """Transient failures are tried for ever, ever more slowly, counted, logged once per streak, and once as a stall."""

    async def main() -> None:
        service = DoubleService()
        async with consumer_of(service, coordination=Static(["0"])) as consumer:
            service.fault = lambda op: TransportError("down", outcome_unknown=False)
            before = service.calls.total()
            await asyncio.sleep(3600)
            tries = service.calls.total() - before
            assert 3600 / 30 <= tries <= 3600 / 15 + 20
            assert consumer.stats().retries == pytest.approx(tries, abs=1)
            service.fault = lambda op: None
            service.write(0, 1)
            assert await fetch_until(consumer, 1) == [0]

    with caplog.at_level(logging.WARNING, "disstream.consumer"):
        run_simulated(main)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "cannot be read and is tried again: down" in told[0]
    assert "a page is owed for" in told[1]
    assert told[1].endswith("down")


def test_who_waits_can_see_since_when_and_why() -> None:
    """stats() tell how long a page is owed and the last failure; nothing once it came, or while none is asked for."""

    async def main() -> None:
        service = DoubleService(2)
        async with consumer_of(service, prefetch_bytes=2_097_152) as consumer:
            await asyncio.sleep(100.5)
            assert consumer.stats().unanswered_since is None
            down = TransportError("down", outcome_unknown=False)
            service.fault = lambda op: down
            await asyncio.sleep(100)
            stats = consumer.stats()
            assert stats.unanswered_since == pytest.approx(anyio.current_time() - 100, abs=1)
            assert stats.last_error is down
            consumer.pause(P0)
            consumer.pause(P1)
            await asyncio.sleep(100)
            assert consumer.stats().unanswered_since is None
            service.fault = lambda op: None
            service.write(0, 1000, size=20_000)  # more than there is room for
            consumer.resume(P0)
            consumer.resume(P1)
            assert len(await consumer.fetch(timeout_s=100)) > 0
            await asyncio.sleep(1000)
            stats = consumer.stats()
            assert (stats.unanswered_since, stats.last_error) == (None, None)

    run_simulated(main)


def test_a_hanging_service_owes_a_page_too() -> None:
    """Without any failure the wait is seen."""

    async def main() -> None:
        service = DoubleService()
        service.hold = anyio.Event()
        async with consumer_of(service) as consumer:
            await asyncio.sleep(50)
            stats = consumer.stats()
            assert stats.unanswered_since == pytest.approx(anyio.current_time() - 50, abs=1)
            assert stats.last_error is None

    run_simulated(main)


# --- seek, pause ---


@pytest.mark.parametrize("target", [0, 3, 17, 20, "earliest", "latest"])
def test_seek_while_a_page_is_in_flight(target: Any) -> None:
    """Forwards or backwards: the page under way and the buffer are forgotten, and reading goes on at the target."""

    async def main() -> None:
        service = DoubleService(page_records=5)
        service.write(0, 20)
        async with consumer_of(service) as consumer:
            assert await fetch_until(consumer, 5) == list(range(5))
            service.hold = anyio.Event()
            consumer.seek(P0, 5)
            await asyncio.sleep(1)
            assert service.reading[P0.partition_id] == 1
            consumer.seek(P0, target)
            held, service.hold = service.hold, None
            held.set()
            first = {"earliest": 0, "latest": 20}.get(target, target)
            if target == "latest":
                await asyncio.sleep(1)
            service.write(0, 2)
            assert await fetch_until(consumer, 22 - first) == list(range(first, 22))

    run_simulated(main)


def test_seek_in_the_middle_of_a_run_of_async_for() -> None:
    """The next record of the loop is the one sought, and position always tells the next one."""

    async def main() -> None:
        service = DoubleService(page_records=50)
        service.write(0, 50)
        async with consumer_of(service) as consumer:
            got = []
            async for record in consumer:
                got.append(record.sequence_number)
                assert consumer.position(P0) == record.sequence_number + 1
                if len(got) == 3:
                    consumer.seek(P0, 48)
                    assert consumer.position(P0) == 48
                if len(got) == 5:
                    break
            assert got == [0, 1, 2, 48, 49]
            assert consumer.position(P0) == 50

    run_simulated(main)


def test_seek_by_time() -> None:
    """A seek to a time reads the first record at or after it."""

    async def main() -> None:
        service = DoubleService()
        for _ in range(5):
            service.write(0, 1)
            await asyncio.sleep(10)
        async with consumer_of(service, start="latest") as consumer:
            consumer.seek(P0, datetime.fromtimestamp(EPOCH + 25, UTC))
            assert consumer.position(P0) is None
            assert await fetch_until(consumer, 2) == [3, 4]
            with pytest.raises(ConfigError, match="no time zone"):
                consumer.seek(P0, datetime(2024, 1, 1))

    run_simulated(main)


def test_pause_hands_out_and_fetches_nothing_and_resume_goes_on() -> None:
    """Also in the middle of a run; the other partition goes on meanwhile."""

    async def main() -> None:
        service = DoubleService(2)
        service.write(0, 30)
        service.write(1, 5)
        async with consumer_of(service) as consumer:
            first = await anext(consumer)
            while first.partition != P0:
                first = await anext(consumer)
            consumer.pause(P0)
            await asyncio.sleep(1)
            calls = service.calls["read"]
            others = []
            while records := await consumer.fetch(timeout_s=1):
                others += [r.partition for r in records]
            assert set(others) <= {P1}
            consumer.pause(P1)
            await asyncio.sleep(1)
            calls = service.calls["read"]
            await asyncio.sleep(100)
            assert service.calls["read"] == calls
            assert consumer.position(P0) == first.sequence_number + 1
            consumer.resume(P0)
            left = 29 - first.sequence_number
            assert await fetch_until(consumer, left) == list(range(30 - left, 30))

    run_simulated(main)


# --- bounds and fairness ---


def test_prefetch_is_bounded_in_bytes_with_a_stuck_taker() -> None:
    """Nobody takes: what is held stays at the budget and one page per partition, and nothing is fetched any more."""

    async def main() -> None:
        service = DoubleService(3, page_records=20)
        for partition in range(3):
            service.write(partition, 400, size=10_000)
        budget = 2_097_152 * 5
        async with consumer_of(service, prefetch_bytes=budget) as consumer:
            await asyncio.sleep(200)
            held = consumer.stats().buffered_bytes
            page = 20 * (10_000 + 250)
            assert held <= budget + 3 * page
            assert held >= budget - 2_097_152 * 4 - page, "room for a page is used"
            calls = service.calls["read"] + service.calls["cursor"]
            await asyncio.sleep(200)
            assert service.calls["read"] + service.calls["cursor"] == calls
            assert len(await fetch_until(consumer, 1200)) == 1200

    run_simulated(main)


def test_a_paused_partition_that_fills_the_budget_does_not_stop_the_others() -> None:
    """Each partition may hold one page whatever the budget says, so nothing deadlocks."""

    async def main() -> None:
        service = DoubleService(2, page_records=20)
        service.write(0, 400, size=20_000)
        async with consumer_of(service, prefetch_bytes=2_097_152) as consumer:
            await asyncio.sleep(10)
            consumer.pause(P0)
            service.write(1, 200, size=20_000)
            assert await fetch_until(consumer, 200) == list(range(200))
            consumer.resume(P0)
            assert await fetch_until(consumer, 400) == list(range(400))

    run_simulated(main)


def test_a_busy_partition_does_not_starve_the_others() -> None:
    """With three full partitions, any stretch of hand-outs contains all of them, in both ways of taking."""

    async def main() -> None:
        service = DoubleService(3, page_records=100)
        service.write(0, 1000)
        service.write(1, 100)
        service.write(2, 100)
        async with consumer_of(service) as consumer:
            await asyncio.sleep(5)
            seen = [await consumer.fetch(max_records=10) for _ in range(6)]
            assert [len(records) for records in seen] == [10] * 6
            assert [records[0].partition for records in seen[:3]] == [records[0].partition for records in seen[3:]]
            assert {records[0].partition for records in seen} == {P0, P1, P2}
            by_loop: Counter[Partition] = Counter()
            for _ in range(400):
                by_loop[(await anext(consumer)).partition] += 1
            assert min(by_loop.values()) >= 80

    run_simulated(main)


def test_fetch_joins_partitions_and_keeps_their_order() -> None:
    """One fetch may hold records of several partitions, up to its maximum."""

    async def main() -> None:
        service = DoubleService(3)
        for partition in range(3):
            service.write(partition, 4)
        async with consumer_of(service) as consumer:
            await asyncio.sleep(1)
            records = await consumer.fetch(max_records=10)
            assert len(records) == 10
            for place in (P0, P1, P2):
                got = [r.sequence_number for r in records if r.partition == place]
                assert got == list(range(len(got)))
            assert len(await consumer.fetch(max_records=10)) == 2
            assert await consumer.fetch(timeout_s=0) == []
            assert await consumer.fetch(timeout_s=2) == []
            with pytest.raises(ConfigError, match="max_records=0"):
                await consumer.fetch(max_records=0)

    run_simulated(main)


@pytest.mark.parametrize("way", ["async for", "fetch"])
def test_handing_out_lets_the_loop_breathe(way: str) -> None:
    """A caller that never suspends, 50 us a record, lets other tasks run every millisecond or two, once it is known."""

    async def main() -> None:
        service = DoubleService(page_records=5_000)
        service.write(0, 5_000)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        turns: list[float] = []

        async def other() -> None:
            while True:
                turns.append(loop.time())
                await asyncio.sleep(0)

        async with consumer_of(service) as consumer:
            await anext(consumer)
            noting = asyncio.create_task(other())
            left = 4_999
            while left:
                got = [await anext(consumer)] if way == "async for" else await consumer.fetch(max_records=10)
                left -= len(got)
                loop.advance(0.00005 * len(got))
            noting.cancel()
        gaps = [after - before for before, after in pairwise(turns)]
        assert len(gaps) > 50
        assert max(gaps[20:]) < 0.002

    run_simulated(main)


# --- lifecycle ---


def test_close_while_a_fetch_waits_and_twice() -> None:
    """The waiting task gets ClosedError, later calls too; closing again is fine; no task remains."""

    async def main() -> None:
        consumer = consumer_of(DoubleService())
        with pytest.raises(ClosedError, match="not started"):
            await consumer.fetch()
        await consumer.start()
        waiting = [asyncio.create_task(consumer.fetch())]
        await asyncio.sleep(1)
        await consumer.close()
        await consumer.close()
        for task in waiting:
            with pytest.raises(ClosedError):
                await task
        with pytest.raises(ClosedError):
            await consumer.fetch(timeout_s=0)
        with pytest.raises(ClosedError):
            await anext(consumer)
        with pytest.raises(ClosedError):
            consumer.seek(P0, 0)
        assert consumer.stats().buffered_bytes == 0
        assert await idle_tasks() == 1

    run_simulated(main)


def test_close_in_the_middle_of_a_run_ends_the_loop() -> None:
    """Buffered records are not handed out after close."""

    async def main() -> None:
        service = DoubleService(page_records=50)
        service.write(0, 50)
        consumer = await consumer_of(service).start()
        await iterate(consumer, 3)
        await consumer.close()
        assert consumer.stats().records == 3
        with pytest.raises(ClosedError):
            await anext(consumer)

    run_simulated(main)


def test_two_tasks_at_once_are_refused() -> None:
    """The second one is told; the first one still gets its records."""

    async def main() -> None:
        service = DoubleService()
        async with consumer_of(service) as consumer:
            first = asyncio.create_task(consumer.fetch())
            await asyncio.sleep(1)
            with pytest.raises(ConcurrencyError):
                await consumer.fetch()
            with pytest.raises(ConcurrencyError):
                await anext(consumer)
            service.write(0, 2)
            assert numbers(await first) == [0, 1]

    run_simulated(main)


def test_a_bug_below_reaches_the_user() -> None:
    """An exception that is not disstream's ends the consumer: calls say so with the cause, close raises it."""

    async def main() -> None:
        service = DoubleService()
        consumer = await consumer_of(service).start()
        service.write(0, 1)

        def fault(operation: str) -> DisError | None:
            raise ZeroDivisionError("a bug")

        service.fault = fault
        with pytest.raises(ClosedError) as caught:
            await consumer.fetch()
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        with pytest.raises(ZeroDivisionError):
            await consumer.close()
        assert await idle_tasks() == 1

    run_simulated(main)


def test_a_failing_start_raises_and_leaves_nothing() -> None:
    """The stream does not exist: start says so."""

    async def main() -> None:
        service = DoubleService()
        service.fault = lambda op: api_error("DIS.4301", "[s][p]")
        consumer = consumer_of(service)
        with pytest.raises(NotFoundError):
            await consumer.start()
        assert await idle_tasks() == 1

    run_simulated(main)


# --- cancellation ---


async def cancel_at(step: int, work: Callable[[], Awaitable[Any]]) -> Any:
    """Run `work`, cancelled after `step` turns of the loop; its result if it was faster, else None."""
    task = asyncio.ensure_future(work())
    for _ in range(step):
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        return await task
    return None


@pytest.mark.parametrize("step", range(12))
def test_cancelled_at_any_step_nothing_is_lost(step: int) -> None:
    """fetch and the step of async for, cancelled after k turns of the loop, again and again: each record comes once."""

    async def main() -> None:
        service = DoubleService(page_records=3, latency_s=0)
        got: list[int] = []
        async with consumer_of(service) as consumer:
            for _ in range(10):
                service.write(0, 5)
                records = await cancel_at(step, lambda: consumer.fetch(max_records=4, timeout_s=1))
                got += numbers(records or [])
                record = await cancel_at(step, lambda: anext(consumer))
                got += [record.sequence_number] if record else []
                await asyncio.sleep(0.013)
            got += await fetch_until(consumer, 50 - len(got))
            assert got == list(range(50))

    run_simulated(main)


@pytest.mark.parametrize("step", range(14))
def test_a_whole_life_cancelled_at_any_step_leaves_no_task(step: int) -> None:
    """Start, reading and close, cancelled after k turns of the loop: nothing keeps running."""

    async def main() -> None:
        service = DoubleService(2, page_records=3, latency_s=0)
        service.write(0, 5)

        async def life() -> None:
            async with consumer_of(service) as consumer:
                await consumer.fetch(max_records=2)
                await anext(consumer)
                await asyncio.sleep(0)

        await cancel_at(step, life)
        assert await idle_tasks() == 1

    run_simulated(main)
