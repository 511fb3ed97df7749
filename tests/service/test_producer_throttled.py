"""Proves on the virtual clock that a producer keeps to the pace of a limited service, uses it, and wastes nothing."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest
from paced_world import Service, keys_of, producing, saturate, steady

from disstream.producer import Pace, Producer, ProducerStats
from disstream.server import ServerConfig
from disstream.server.config import SERVICE_LIMITS
from disstream.testing.clock import run_simulated
from disstream.wire.errors import api_error, refusal
from disstream.wire.http import Request, Response

SECONDS = 6.0
BUFFER = 4_194_304


def load(
    *partitions: float | None, limits: dict[str, Any], size: int = 100, seconds: float = SECONDS, **options: Any
) -> tuple[ProducerStats, list[float], int]:
    """(stats, latencies of the steady loads, puts) after a while; None: a partition is saturated, else records/s."""

    async def main() -> tuple[ProducerStats, list[float], int]:
        latencies: list[float] = []
        async with producing(limits, partitions=len(partitions), buffer_bytes=BUFFER, **options) as (producer, service):
            with anyio.move_on_after(seconds):
                async with anyio.create_task_group() as tasks:
                    for keys, per_s in zip(keys_of(len(partitions), 20), partitions, strict=True):
                        if per_s is None:
                            tasks.start_soon(saturate, producer, keys, size)
                        else:
                            tasks.start_soon(steady, producer, keys, per_s, latencies)
            return producer.stats(), sorted(latencies), len(service.puts)

    return run_simulated(main)


@pytest.mark.parametrize(("order", "size", "cap"), [("key", 100, 1_000), ("key", 4_096, 256), ("strict", 4_096, 256)])
def test_every_partition_is_written_at_its_cap_and_nothing_is_refused(order: str, size: int, cap: int) -> None:
    """Four saturated partitions: at least 95 % of the cap each, less than 1 % refused, ten requests a second each."""
    stats, _, puts = load(
        None, None, None, None, limits=SERVICE_LIMITS, size=size, order=order, delivery_timeout_s=900.0
    )
    assert stats.stored >= 0.95 * 4 * cap * SECONDS
    assert stats.refused_attempts < 0.01 * stats.stored
    assert puts <= 4 * 11 * SECONDS * (1 if order == "key" else 6)
    assert all(p.at_cap and p.scaling_helps and p.stored_per_s > 0.95 * cap for p in stats.partitions)
    assert [a.partitions for a in stats.scale_advice] == [8] * 4


def test_a_service_that_does_not_tell_its_caps() -> None:
    """Elsewhere the published caps are kept to from the first request on."""
    stats, _, _ = load(None, None, limits=SERVICE_LIMITS, foreign=True)
    assert stats.stored >= 0.95 * 2 * 1_000 * SECONDS
    assert stats.refused_attempts < 0.01 * stats.stored


@pytest.mark.parametrize("foreign", [True, False])
def test_a_service_that_takes_less_than_it_says(foreign: bool) -> None:
    """With 600 a second where 1,000 are published, or unexpected limits: most of it is used, and little refused."""
    limits = {"common_in_records_per_s": 600}
    options: dict[str, Any] = {"foreign": True} if foreign else {"pace": Pace(records_per_s=1_000)}
    stats, _, _ = load(None, None, limits=limits, seconds=10.0, **options)
    assert stats.stored >= 0.9 * 2 * 600 * 10.0
    assert stats.refused_attempts < 0.05 * stats.stored
    assert all(p.pace is not None and (p.pace.records_per_s or 0) < 1_000 for p in stats.partitions)


def test_nothing_expires_while_it_waits_for_its_pace() -> None:
    """As much as is accepted into one partition, for three times as long as a record may take: nothing fails."""
    stats, _, _ = load(None, limits=SERVICE_LIMITS, seconds=30.0, delivery_timeout_s=10.0, size=10)
    assert stats.not_stored == 0
    assert 1_000 < stats.waiting <= 5_000 + 2 * 2_000, "five seconds' worth, the open batch and one that was started"
    assert stats.stored >= 0.95 * 1_000 * 30.0


def test_a_hot_partition_slows_no_other() -> None:
    """One saturated partition: the others are stored as soon as they would be alone, and its share holds no more."""
    stats, latencies, _ = load(None, 100, 100, 100, limits=SERVICE_LIMITS)
    hot = stats.partitions[0]
    assert hot.stored_per_s > 950
    assert hot.waiting_bytes <= BUFFER / 2 + 310_000, "what it may hold, and a batch"
    assert len(latencies) > 0.99 * 3 * 100 * SECONDS
    assert latencies[int(len(latencies) * 0.99)] < 0.02
    assert stats.refused_attempts == 0


def test_no_pace_where_nothing_is_limited() -> None:
    """Our server without limits: requests go as full and as fast as they can."""

    async def main() -> None:
        async with producing({}) as (producer, service):
            for i in range(20_000):
                await producer.send(b"x", key=f"k{i % 50}")
            await producer.flush()
            stats = producer.stats()
            assert stats.stored == 20_000
            assert anyio.current_time() < 0.5
            assert len(service.puts) < 60
            assert [p.pace for p in stats.partitions] == [None] * 4

    run_simulated(main)


def test_a_pace_of_ones_own() -> None:
    """Pace(...) is kept to although the service would take more."""
    stats, _, _ = load(None, limits={}, pace=Pace(bytes_per_s=20_000))
    assert 0.95 * 200 * SECONDS <= stats.stored <= 200 * (SECONDS + 0.5) + 2
    stats, _, _ = load(None, limits={}, pace=Pace(records_per_s=200))
    assert 0.95 * 200 * SECONDS <= stats.stored <= 200 * (SECONDS + 0.5) + 1


def test_one_hot_key_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """A partition that is full of one key: stats name it, its share, and that scaling does not help."""

    async def main() -> None:
        async with producing(SERVICE_LIMITS, partitions=2) as (producer, _):
            (hot, *cold), other = keys_of(2, 10)
            with anyio.move_on_after(5):
                while True:
                    for key in cold:
                        await producer.send(b"x" * 10, key=key)
                        await producer.send(b"x" * 10, key=hot)
                        await producer.send(b"x" * 10, key=hot)
            await producer.send(b"", key=other[0])
            stats = producer.stats()
            assert (stats.hottest[0].key, stats.hottest[0].partition_id) == (hot, "shardId-0000000000")
            assert 0.6 < stats.hottest[0].share < 0.67 + 0.03
            (advice,) = stats.scale_advice
            assert (advice.partition_id, advice.helps, advice.partitions) == ("shardId-0000000000", False, None)
            assert f"key {hot!r}: scaling does not help" in str(advice)

    with caplog.at_level(logging.INFO, "disstream.producer"):
        run_simulated(main)


def test_being_throttled_is_told_once_per_partition(caplog: pytest.LogCaptureFixture) -> None:
    """Seconds of refusals: one line for each partition, no warning, and no failure of a record."""
    with caplog.at_level(logging.INFO, "disstream.producer"):
        stats, _, _ = load(None, None, limits={"common_in_records_per_s": 300}, foreign=True)
    assert stats.refused_attempts > 0
    told = [record.getMessage() for record in caplog.records if record.name == "disstream.producer"]
    told = [line for line in told if not line.startswith("undelivered")]  # what was cut off in the end
    assert sorted(line.split(" now_at")[0] for line in told) == [
        f"throttled stream=s partition=shardId-000000000{i}" for i in range(2)
    ]
    assert stats.not_stored == stats.unknown == 0


class Moody(Service):
    """Refuses whole requests with a code, for a time or where several partitions are in them."""

    code = "DIS.4303"
    until = 0.0
    retry_after_s: str | None = None
    refused = 0

    async def put(self, request: Request) -> Response | None:
        if anyio.current_time() >= self.until:
            return None
        self.refused += 1
        answer = refusal(api_error(self.code), "moody")
        if self.retry_after_s is not None:
            answer.headers["retry-after"] = self.retry_after_s
        return answer


def moody(check: Any, **options: Any) -> None:
    async def main() -> None:
        async with producing({}, partitions=4, service=Moody, **options) as (producer, service):
            assert isinstance(service, Moody)
            await check(producer, service)

    run_simulated(main)


def test_an_address_that_is_locked_out_waits_as_long_as_told() -> None:
    """DIS.4309: not one request until the time told is over, then everything is stored."""

    async def check(producer: Producer, service: Moody) -> None:
        service.code, service.until, service.retry_after_s = "DIS.4309", 1.0, "40"
        deliveries = [await producer.send(b"x", key=f"k{i}") for i in range(100)]
        for delivery in deliveries:
            await delivery
        assert service.refused <= 4, "one per request that was on its way"
        assert [at for at in service.puts if 0.1 < at < 40.0] == []
        assert 40.0 <= anyio.current_time() < 40.5

    moody(check)


def test_a_retry_after_is_kept_and_not_prolonged() -> None:
    """Five times refused with Retry-After: 1, each next try comes a second later, not after a pause that doubles."""

    async def check(producer: Producer, service: Moody) -> None:
        service.until, service.retry_after_s = 4.5, "1"
        await producer.send_and_wait(b"x", key="a")
        steps = [after - before for before, after in zip(service.puts, service.puts[1:], strict=False)]
        assert len(steps) == 5
        assert all(1.0 <= step < 1.4 for step in steps), steps

    moody(check)


def test_lanes_of_a_refused_request_go_one_by_one_until_they_are_clear() -> None:
    """After DIS.4303 for a request of several partitions each goes alone; once answered they travel together again."""

    async def check(producer: Producer, service: Moody) -> None:
        service.until = anyio.current_time() + 0.003

        async def round_() -> int:
            before = len(service.puts)
            batch = await producer.send_many([(b"x", keys[0]) for keys in keys_of(4, 1)])
            await batch
            return len(service.puts) - before

        assert await round_() == 1 + 4
        assert await round_() == 1

    moody(check, max_in_flight=1)


def test_failing_requests_are_spread_before_the_service_minds() -> None:
    """A stream of records that the service refuses: an address that may fail 100 times a minute is never locked out."""

    async def main() -> None:
        limits = {"max_failures_per_minute": 100, "max_record_bytes": 1_000}
        async with producing(limits, partitions=1, max_batch_records=1) as (producer, _):
            good = 0
            with anyio.move_on_after(300):
                while True:
                    bad = await producer.send(b"x" * 2_000, key="a")
                    await producer.send_and_wait(b"x", key="a")
                    good += 1
                    assert bad.done()
            assert good >= 100
            assert producer.stats().not_stored == 0
            assert producer.stats().rejected >= good

    run_simulated(main)


def test_caps_are_told_by_servers_that_have_some() -> None:
    """The describe answer of a server with limits tells them; of one without, that there are none."""
    for limits, told in ((SERVICE_LIMITS, Pace(records_per_s=1_000, bytes_per_s=1_048_576)), ({}, None)):

        async def main(limits: Any = limits, told: Any = told) -> None:
            async with producing(limits) as (producer, _):
                assert [p.pace for p in producer.stats().partitions] == [told] * 4

        run_simulated(main)
    assert ServerConfig(data_dir=None).common_in_records_per_s is None
