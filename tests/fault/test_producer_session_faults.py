"""Proves exactly-once and order in sessions, and at-least-once without: real producer, real server, a network that
loses, repeats and delays beyond every time-out, throttling, scaling; seeded, under virtual time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from disstream.client import Client, ClientConfig, Transport
from disstream.engine import AppendRefused, Engine, Entry, Replayed
from disstream.engine.memory import MemoryEngine
from disstream.errors import DeliveryFailed, DeliveryUnknown
from disstream.producer import Delivery, Producer, ProducerConfig, Receipt
from disstream.producer.config import Order
from disstream.server import App, ServerConfig
from disstream.testing.clock import run_simulated
from disstream.testing.network import AppTransport, FaultPlan, FaultyTransport
from disstream.wire.http import Request, Response
from disstream.wire.partitioning import partition_id
from disstream.wire.sessions import HEADER

KEYS = [None, None, "a", "b", "c", "d", "e", "f"]
REQUEST_S = 1.0
PATIENT = ClientConfig(attempts=50, retry_budget_s=3600.0)


@dataclass(frozen=True)
class Case:
    order: Order = "key"
    sessions: bool = True
    scaling: bool = False

    def __str__(self) -> str:
        return f"{self.order}, {'sessions' if self.sessions else 'plain'}{', scaling' if self.scaling else ''}"


class Witness:
    """What the log of an engine stored, in the order it did, over all partitions together."""

    def __init__(self, engine: Engine) -> None:
        self.stored: list[tuple[str | None, bytes]] = []
        self.places: dict[tuple[str, int], bytes] = {}
        self._append = engine.log.append
        engine.log.append = self.append  # type: ignore[method-assign]

    async def append(self, entries: Sequence[Entry], now_ms: int) -> list[int | AppendRefused | Replayed]:
        results = await self._append(entries, now_ms)
        for entry, result in zip(entries, results, strict=True):
            if isinstance(result, AppendRefused):
                continue
            if isinstance(result, Replayed):
                told = [span.first + i for span in result.spans for i in range(span.end - span.number)]
                begin = len(told) - result.stored
                new = list(zip(entry.rows[begin:], told[begin:], strict=False))
            else:
                new = [(row, result + i) for i, row in enumerate(entry.rows)]
            for row, sequence in new:
                self.stored.append((row.key, row.data))
                assert self.places.setdefault((partition_id(entry.partition.number), sequence), row.data) == row.data
        return results


async def run(seed: int, case: Case, records: int = 150) -> Counter[str]:
    """Send through a bad network, then compare every end with what is stored. Returns how often each end came."""
    dice = random.Random(seed)
    share = dice.choice([0.02, 0.05, 0.1])
    throttled = dice.random() < 0.5
    # Without sessions nothing keeps a copy of a partly refused request from storing what was refused.
    copies = case.sessions or not throttled
    plan = FaultPlan(
        refuse=share / 2,
        lose_request=share,
        lose_answer=share,
        late=share,
        duplicate=share if copies else 0.0,
        error_before=share / 2,
        error_after=share,
        hang=0.5,
        delay=0.2,
        delay_s=dice.choice([0.1, 3 * REQUEST_S]),
        late_s=dice.choice([0.5, 8 * REQUEST_S]),
    )
    engine = MemoryEngine()
    await engine.start()
    witness = Witness(engine)
    app = App(engine, ServerConfig(data_dir=None, common_in_records_per_s=20 if throttled else None))
    network = FaultyTransport(AppTransport(app, latency_s=0.004), dice, plan)
    config = ProducerConfig(
        order=case.order,
        sessions=case.sessions,
        max_batch_records=dice.choice([1, 5, 20]),
        max_in_flight=dice.choice([1, 2, 8]),
        linger_s=dice.choice([0.0, 0.05]),
        delivery_timeout_s=dice.choice([3.0, 8.0, 30.0]),
        request_timeout_s=REQUEST_S,
        retry_max_s=1.0,
    )
    sizes = iter([8, 3, 5, 2])
    async with Client(AppTransport(app), "demo", ClientConfig()) as direct:
        await direct.streams.create("s", partitions=2)
        deliveries: list[tuple[str | None, bytes, Delivery]] = []
        ends: list[Receipt | DeliveryFailed] = []
        async with Client(network, "demo", PATIENT, dice=dice) as client:
            async with Producer(client, "s", config, rng=dice) as producer:
                for i in range(records):
                    key = dice.choice(KEYS)
                    deliveries.append((key, b"%d" % i, await producer.send(b"%d" % i, key=key)))
                    if dice.random() < 0.2:
                        await anyio.sleep(dice.choice([0.0, 0.01, 0.3]))
                    if case.scaling and i % 40 == 20:
                        await direct.streams.scale("s", next(sizes))
                for _, _, delivery in deliveries:
                    try:
                        ends.append(await delivery)
                    except DeliveryFailed as exc:
                        ends.append(exc)
                stats = producer.stats()
            await network.settle()
    await engine.close()
    assert stats.sessions == case.sessions
    assert stats.accepted == records
    assert stats.waiting == stats.buffered_bytes == stats.in_flight == 0
    compare(case, [(key, data, end) for (key, data, _), end in zip(deliveries, ends, strict=True)], witness)
    return Counter(type(end).__name__ for end in ends) + Counter(
        reordered=stats.reordered,
        copies=len(witness.stored) - len({data for _, data in witness.stored}),
        throttled=sum("4303" in str(end) for end in ends),
    )


def compare(case: Case, ended: list[tuple[str | None, bytes, Receipt | DeliveryFailed]], witness: Witness) -> None:
    times = Counter(data for _, data in witness.stored)
    counted = set()  # whose order counts
    for _, data, end in ended:
        if isinstance(end, Receipt):
            assert witness.places[(end.partition_id, end.sequence_number)] == data, f"{end} is another's place"
            assert times[data] == 1 or not case.sessions, f"{data!r} is stored {times[data]} times"
            counted.add(data)
        elif isinstance(end, DeliveryUnknown):
            assert times[data] <= 1 or not case.sessions, f"{data!r} is stored {times[data]} times"
            if case.sessions and not case.scaling:
                counted.add(data)
        else:
            assert times[data] == 0, f"{end!r}, but {data!r} is stored"
    latest: dict[str, int] = {}
    seen: set[bytes] = set()
    for key, data in witness.stored:
        if key is None or data in seen or data not in counted:
            continue
        seen.add(data)
        assert latest.get(key, -1) < int(data), f"{key}#{int(data)} is stored behind {key}#{latest[key]}"
        latest[key] = int(data)


@pytest.mark.parametrize("scaling", [False, True])
def test_broken_order_is_counted_truly(scaling: bool) -> None:
    """Where a service stores later records behind refused ones, and says so, each record that comes late is told."""
    late = sum(run_simulated(lambda seed=seed: run_refusing(seed, scaling)) for seed in range(25))  # type: ignore[misc]
    assert late > 100


async def run_refusing(seed: int, scaling: bool) -> int:
    """Every answer arrives, but the suffix rule is not obeyed. Returns how many records came late."""
    dice = random.Random(seed)
    engine = MemoryEngine()
    await engine.start()
    witness = Witness(engine)
    app = App(engine, ServerConfig(data_dir=None))
    plan = FaultPlan(partial=0.6, suffix_rule=False, error_before=0.1, errors_before=("DIS.4303",), refuse=0.1)
    network = FaultyTransport(AppTransport(app, latency_s=0.004), dice, plan)
    config = ProducerConfig(max_batch_records=dice.choice([5, 20]), max_in_flight=dice.choice([1, 8]), sessions=False)
    sizes = iter([8, 3, 5, 2])
    async with Client(AppTransport(app), "demo") as direct, Client(network, "demo", PATIENT, dice=dice) as client:
        await direct.streams.create("s", partitions=2)
        async with Producer(client, "s", config, rng=dice) as producer:
            sent = []
            for i in range(120):
                key = dice.choice(KEYS)
                sent.append((key, b"%d" % i, await producer.send(b"%d" % i, key=key)))
                if dice.random() < 0.2:
                    await anyio.sleep(dice.choice([0.0, 0.01, 0.1]))
                if scaling and i % 40 == 20:
                    await direct.streams.scale("s", next(sizes))
            told = {data for _, data, delivery in sent if (await delivery).reordered}
            assert producer.stats().reordered == len(told)
    await engine.close()
    late = set()
    latest: dict[str, int] = {}
    for key, data in witness.stored:
        if key is not None:
            if int(data) < latest.get(key, -1):
                late.add(data)
            latest[key] = max(latest.get(key, -1), int(data))
    assert told == late
    return len(late)


CASES = [
    Case("key"),
    Case("strict"),
    Case("key", scaling=True),
    Case("strict", scaling=True),
    Case("key", sessions=False),
    Case("strict", sessions=False, scaling=True),
    Case("key", sessions=False, scaling=True),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_record_is_lost_or_lied_about(case: Case) -> None:
    """Every end is true; in sessions what is stored is stored once, and order per key holds for all of it."""
    kinds: Counter[str] = Counter()
    for seed in range(30):
        kinds += simulate(seed, case)
    assert kinds["Receipt"] > 2_000
    assert kinds["NotStored"] + kinds["DeliveryUnknown"] > 0, "the network was too kind to prove anything"
    if not case.sessions:
        assert kinds["copies"] > 0, "the network was too kind to need sessions"


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_record_is_lost_or_lied_about_for_many_seeds(case: Case) -> None:
    """The same over many more networks."""
    for seed in range(1_000, 1_250):
        simulate(seed, case)


def simulate(seed: int, case: Case, **options: Any) -> Counter[str]:
    try:
        return run_simulated(lambda: run(seed, case, **options))
    except BaseException as exc:
        exc.add_note(f"seed={seed} {case}")
        raise


class Downgrade:
    """A transport to a service that stops understanding sessions, or begins to."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.plain = False
        self.numbered = 0

    async def exchange(self, request: Request) -> Response:
        if self.plain:
            request.headers.pop(HEADER, None)
        self.numbered += HEADER in request.headers
        response = await self._inner.exchange(request)
        if self.plain:
            response.headers.pop("x-disstream", None)
        return response

    async def close(self) -> None:
        await self._inner.close()


async def on_line(check: Callable[[Producer, Downgrade, Client], Awaitable[None]]) -> None:
    engine = MemoryEngine()
    await engine.start()
    line = Downgrade(AppTransport(App(engine, ServerConfig(data_dir=None)), latency_s=0.01))
    async with Client(line, "demo") as client:
        await client.streams.create("s", partitions=3)
        async with Producer(client, "s", ProducerConfig(), rng=random.Random(1)) as producer:
            await check(producer, line, client)
    await engine.close()


def test_an_endpoint_may_stop_offering_sessions() -> None:
    """A producer goes on without numbers when the endpoint names sessions no more, and with them when it does again."""

    async def check(producer: Producer, line: Downgrade, client: Client) -> None:
        told = []
        for plain in (False, True, False):
            line.plain = plain
            before = line.numbered
            for i in range(20):
                await producer.send_and_wait(b"%d" % i, key=f"k{i}")
            told.append((producer.stats().sessions, line.numbered - before))
        assert told == [(True, 20), (False, 0), (True, 19)], "the first answer that names them is the news"
        assert producer.stats().stored == 60

    run_simulated(lambda: on_line(check))


def test_a_record_without_a_key_costs_one_round_trip() -> None:
    """Under light load it leaves at once, and the partitions take turns."""

    async def check(producer: Producer, line: Downgrade, client: Client) -> None:
        began = anyio.current_time()
        places = Counter([(await producer.send_and_wait(b"x")).partition_id for _ in range(30)])
        assert anyio.current_time() - began == pytest.approx(30 * 0.01)
        assert set(places.values()) == {10}

    run_simulated(lambda: on_line(check))
