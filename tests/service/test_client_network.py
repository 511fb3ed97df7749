"""Proves that the doubles of a network do exactly the harm they are told, and keep count of it."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from typing import Any

import anyio
import pytest

from disstream.client import Client, ClientConfig
from disstream.engine.memory import MemoryEngine
from disstream.errors import ApiError, ConfigError, ServerFault, ThrottledError, TransportError
from disstream.model import NewRecord, PutResults, Record
from disstream.server import App, ServerConfig
from disstream.testing.clock import run_simulated
from disstream.testing.network import AppTransport, FaultPlan, FaultyTransport
from disstream.wire.columns import COLUMNS, encode_columns
from disstream.wire.compression import Compression, compress
from disstream.wire.http import JSON, PROTOBUF, Request, Response, split_target
from disstream.wire.partitioning import HashRouter, hash_key, hash_ranges, partition_id
from disstream.wire.records import decode_put, decode_put_answer, encode_put_answer
from disstream.wire.routes import Match, match

PARTITIONS = 4
ROUTER = HashRouter(enumerate(hash_ranges(PARTITIONS)))


class MiniApp:
    """Stores what is put, by hash; describes its one stream. Notes the time of every effect."""

    def __init__(self) -> None:
        self.stored: dict[int, list[bytes]] = defaultdict(list)
        self.effects: list[float] = []

    async def handle(self, request: Request) -> Response:
        found = match(request.method, split_target(request.target)[0])
        assert isinstance(found, Match)
        if found.operation == "describe_stream":
            ranges = [
                f'{{"partition_id":"{partition_id(n)}","status":"ACTIVE","hash_range":"[{r.low} : {r.high}]"}}'
                for n, r in enumerate(hash_ranges(PARTITIONS))
            ]
            return Response(status=200, body=f'{{"stream_name":"s","partitions":[{",".join(ranges)}]}}'.encode())
        self.effects.append(anyio.current_time())
        records = decode_put(request.body).records
        lanes = [ROUTER.owner(hash_key(r.key or "")) or 0 for r in records]
        first = {lane: len(self.stored[lane]) for lane in lanes}
        for lane, record in zip(lanes, records, strict=True):
            self.stored[lane].append(record.data)
        return Response(status=200, body=encode_put_answer(lanes, first))

    @property
    def count(self) -> int:
        return sum(map(len, self.stored.values()))


def records(count: int) -> list[NewRecord]:
    return [NewRecord(b"%d" % n, key=f"key-{n % 17}") for n in range(count)]


class Setup:
    """A client on a faulty network in front of a MiniApp; puts with a time-out of 10 s."""

    def __init__(self, seed: int = 1, **plan: Any) -> None:
        self.app = MiniApp()
        self.inner = AppTransport(self.app, latency_s=0.1)
        self.network = FaultyTransport(self.inner, random.Random(seed), FaultPlan(**plan))
        self.client = Client(self.network, "p", ClientConfig(attempts=1, request_timeout_s=10))

    async def put(self, count: int = 1) -> PutResults | Exception:
        try:
            return await self.client.records.put("s", records(count))
        except (ApiError, TransportError) as exc:
            return exc


def put_once(**plan: Any) -> tuple[PutResults | Exception, float, int, int, Setup]:
    """Outcome of one put, when the caller had it, effects by then, effects in the end."""
    setup = Setup(**plan)

    async def main() -> tuple[PutResults | Exception, float, int, int, Setup]:
        async with setup.client:
            outcome = await setup.put()
            now, by_then = anyio.current_time(), len(setup.app.effects)
            await setup.network.settle()
            return outcome, now, by_then, len(setup.app.effects), setup

    return run_simulated(main)


def test_without_faults() -> None:
    """Nothing planned, nothing happens: the answer is the app's, after the latency."""
    outcome, now, by_then, in_the_end, setup = put_once()
    assert isinstance(outcome, PutResults)
    assert now == pytest.approx(0.1)
    assert (by_then, in_the_end) == (1, 1)
    assert +setup.network.counts == {"exchanges": 1}


@pytest.mark.parametrize(
    ("plan", "unknown", "when", "effects"),
    [
        ({"refuse": 1.0}, False, 0.0, 0),
        ({"lose_request": 1.0}, True, 0.0, 0),
        ({"lose_request": 1.0, "hang": 1.0}, True, 10.0, 0),
        ({"lose_answer": 1.0}, True, 0.1, 1),
        ({"lose_answer": 1.0, "hang": 1.0}, True, 10.0, 1),
    ],
)
def test_losses(plan: dict[str, float], unknown: bool, when: float, effects: int) -> None:
    """Refused is known; lost before or after the effect is unknown, told at once or by the time-out."""
    outcome, now, _, in_the_end, setup = put_once(**plan)
    assert isinstance(outcome, TransportError)
    assert outcome.outcome_unknown is unknown
    assert now == pytest.approx(when)
    assert in_the_end == effects
    assert setup.network.counts[next(iter(plan))] == 1


def test_late_effects() -> None:
    """A late request takes effect after its caller gave up, and within late_s."""
    outcome, now, by_then, in_the_end, setup = put_once(late=1.0, late_s=5.0)
    assert isinstance(outcome, TransportError)
    assert outcome.outcome_unknown
    assert now == pytest.approx(10.0)
    assert (by_then, in_the_end) == (0, 1)
    assert 10.0 < setup.app.effects[0] <= 15.1


def test_duplicates() -> None:
    """Every request takes effect twice and is answered once; some second effects come after the answer."""
    late = 0
    for seed in range(20):
        outcome, _, by_then, in_the_end, _ = put_once(duplicate=1.0, seed=seed)
        assert isinstance(outcome, PutResults)
        assert in_the_end == 2
        late += by_then == 1
    assert 0 < late < 20


@pytest.mark.parametrize(("fault", "effects"), [("error_before", 0), ("error_after", 1)])
@pytest.mark.parametrize(
    ("kind", "raised", "status"),
    [
        ("500", ServerFault, 500),
        ("503", ServerFault, 503),
        ("429", ThrottledError, 429),
        ("DIS.4303", ThrottledError, 400),
        ("DIS.4305", ThrottledError, 400),
    ],
)
def test_errors(fault: str, effects: int, kind: str, raised: type[ApiError], status: int) -> None:
    """The planned error is what a client makes of it, before or after the effect."""
    where = "errors_before" if fault == "error_before" else "errors_after"
    outcome, _, _, in_the_end, _ = put_once(**{fault: 1.0, where: (kind,)})
    assert type(outcome) is raised
    assert outcome.status == status
    assert in_the_end == effects


def test_delays() -> None:
    """A delayed request arrives later by at most delay_s; delayed beyond its time-out it still takes effect."""
    outcome, now, _, _, _ = put_once(delay=1.0, delay_s=3.0)
    assert isinstance(outcome, PutResults)
    assert 0.1 < now <= 3.1
    outcome, now, by_then, in_the_end, _ = put_once(delay=1.0, delay_s=10_000.0)
    assert isinstance(outcome, TransportError)
    assert now == pytest.approx(10.0)
    assert (by_then, in_the_end) == (0, 1)


@pytest.mark.parametrize("suffix_rule", [True, False])
def test_partial_failure_is_exact(suffix_rule: bool) -> None:
    """One result per record in order; exactly the records without error are stored, and by the suffix rule or not."""

    async def main() -> None:
        violations = 0
        for seed in range(30):
            setup = Setup(seed, partial=1.0, partial_share=0.1, suffix_rule=suffix_rule)
            async with setup.client:
                sent = records(60)
                results = await setup.client.records.put("s", sent)
                assert len(results) == len(sent)
                assert results.failed
                assert setup.network.counts["records failed"] == len(results.failed)
                failed_lanes: set[int] = set()
                numbers: dict[int, int] = defaultdict(int)
                for record, result in zip(sent, results, strict=True):
                    lane = ROUTER.owner(hash_key(record.key or "")) or 0
                    if result.ok:
                        violations += lane in failed_lanes
                        assert result.partition_id == partition_id(lane)
                        assert result.sequence_number == numbers[lane]
                        assert setup.app.stored[lane][numbers[lane]] == record.data
                        numbers[lane] += 1
                    else:
                        assert result.error_code == "DIS.4303"
                        assert result.sequence_number is None
                        failed_lanes.add(lane)
                assert setup.app.count == sum(numbers.values()) == len(sent) - len(results.failed)
        assert (violations == 0) is suffix_rule

    run_simulated(main)


def test_partial_failure_of_everything() -> None:
    """When no record gets through the app is not called, and every record has its error."""

    async def main() -> None:
        setup = Setup(partial=1.0, partial_share=1.0)
        async with setup.client:
            results = await setup.client.records.put("s", records(5))
        assert [r.error_code for r in results] == ["DIS.4303"] * 5
        assert not setup.app.effects

    run_simulated(main)


@pytest.mark.parametrize("coded", [None, "zstd"])
def test_partial_failure_of_columns(coded: Compression | None) -> None:
    """A put as columns fails in part as one in JSON does, and the rest of it is stored with keys and times."""

    async def main() -> None:
        engine = MemoryEngine()
        await engine.start()
        network = FaultyTransport(
            AppTransport(App(engine, ServerConfig(data_dir=None))),
            random.Random(1),
            FaultPlan(partial=1.0, partial_share=0.2),
        )
        async with Client(network, "demo") as client:
            await client.streams.create("s", partitions=2)
            sent = [NewRecord(b"%d" % n, f"k{n % 3}", timestamp=n or None) for n in range(60)]
            body = encode_columns("s", sent) or b""
            packed, headers = (body, {}) if coded is None else compress(body, coded)
            answer = await client.records.put_encoded(packed, headers={**headers, "content-type": COLUMNS})
            assert isinstance(answer, bytes)
            results = decode_put_answer(answer)
            found = [r for n in "01" for r in await everything(client, n)]
        failed = [result.error_code is not None for result in results]
        assert network.counts["partial"] == 1
        assert 0 < network.counts["records failed"] == sum(failed) < len(sent)
        kept = [record for record, gone in zip(sent, failed, strict=True) if not gone]
        assert sorted((r.data, r.key) for r in found) == sorted((r.data, r.key) for r in kept)
        assert {r.data: r.timestamp for r in found if r.data != b"0"} == {
            r.data: r.timestamp for r in kept if r.data != b"0"
        }

    async def everything(client: Client, partition: str) -> list[Record]:
        cursor = await client.cursors.get("s", partition, "TRIM_HORIZON")
        return list((await client.records.get(cursor)).records)

    run_simulated(main)


def test_partial_failure_leaves_bad_requests_to_the_app() -> None:
    """A body that is no put is forwarded as it is."""

    async def main() -> None:
        class Refusing:
            async def handle(self, request: Request) -> Response:
                return Response(status=400, body=request.body)

        network = FaultyTransport(AppTransport(Refusing()), random.Random(1), FaultPlan(partial=1.0))
        for kind in (JSON, PROTOBUF, COLUMNS):
            headers = {"content-type": kind}
            bad = Request(method="POST", target="/v2/p/records", headers=headers, body=b"{")
            response = await network.exchange(bad)
            assert (response.status, response.body) == (400, b"{")
        await network.close()

    run_simulated(main)


MIXED: dict[str, Any] = {
    "refuse": 0.1,
    "lose_request": 0.1,
    "lose_answer": 0.1,
    "late": 0.1,
    "duplicate": 0.1,
    "error_before": 0.1,
    "error_after": 0.1,
    "hang": 0.5,
    "delay": 0.5,
    "partial": 0.5,
}


def _history(seed: int) -> tuple[list[str], list[float], dict[int, list[bytes]], dict[str, int]]:
    setup = Setup(seed, **MIXED)

    async def main() -> list[str]:
        async with setup.client:
            outcomes = [repr(await setup.put(5)) for _ in range(100)]
            await setup.network.settle()
        return outcomes

    outcomes = run_simulated(main)
    return outcomes, setup.app.effects, setup.app.stored, dict(setup.network.counts)


def test_the_same_dice_make_the_same_faults() -> None:
    """A seed replays exactly: outcomes, effects and their times; another seed is another history."""
    first, again, other = _history(3), _history(3), _history(4)
    assert first == again
    assert first != other
    assert all(first[3][name] > 0 for name in MIXED)
    assert first[3]["exchanges"] == 100


def test_a_cancelled_caller_does_not_stop_the_effect() -> None:
    """What was sent is sent: the app handles the request of a caller that has gone; close drops what is on the way."""

    async def main() -> None:
        for dropped in (False, True):
            setup = Setup()
            async with setup.client:
                put = asyncio.create_task(setup.put())
                await anyio.sleep(0.01)
                put.cancel()
                await asyncio.wait({put})
                if not dropped:
                    await setup.network.settle()
            assert setup.app.count == (0 if dropped else 1)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    run_simulated(main)


def test_bugs_of_the_app_are_not_lost() -> None:
    """An exception in an app reaches its caller, and settle, even if the caller had given up."""

    async def main() -> None:
        class Broken:
            async def handle(self, request: Request) -> Response:
                await anyio.sleep(2)
                raise ZeroDivisionError

        transport = AppTransport(Broken())
        with pytest.raises(ZeroDivisionError):
            await transport.exchange(Request(method="GET", target="/"))
        transport = AppTransport(Broken())
        with pytest.raises(TransportError, match="no answer within 1 s"):
            await transport.exchange(Request(method="GET", target="/", timeout_s=1))
        with pytest.raises(ZeroDivisionError):
            await transport.settle()

    run_simulated(main)


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ({"refuse": 1.5}, "refuse=1.5"),
        ({"partial": -0.1}, "partial=-0.1"),
        ({"late": 0.6, "duplicate": 0.6}, "add up to 1.2"),
        ({"late_s": -1.0}, "late_s=-1.0"),
        ({"error_before": 0.5, "errors_before": ()}, "errors_before is empty"),
    ],
)
def test_impossible_plans(plan: dict[str, Any], told: str) -> None:
    """A plan that cannot be carried out is refused, naming the value."""
    with pytest.raises(ConfigError, match=told):
        FaultPlan(**plan)
