"""Proves spilling: stored, spilled and unknown together are what was accepted, in order, in time and within bounds."""

from __future__ import annotations

import asyncio
import logging
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest
from anyio import to_thread

from disstream.client import Client, ClientConfig
from disstream.engine.memory import MemoryEngine
from disstream.errors import BufferFull, ConfigError, DeliveryFailed, NotStored, TransportError, Undelivered
from disstream.producer import Delivery, Producer, ProducerConfig, Receipt, SpilledRecord, read_spill
from disstream.producer.config import Order
from disstream.server import App, ServerConfig
from disstream.testing.clock import run_simulated
from disstream.testing.network import AppTransport, FaultPlan, FaultyTransport
from disstream.wire.http import Request, Response

T = TypeVar("T")

MARGIN_S = 0.2
KEYS = [None, "a", "b", "c", "d"]


async def inline(function: Callable[..., T], *args: Any, **_: object) -> T:
    """What a thread would do, where time is virtual and a thread's work would take none of it."""
    await anyio.lowlevel.checkpoint()
    return function(*args)


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(to_thread, "run_sync", inline)


class World:
    """A service with a stream of 3 partitions, and a bad way to it."""

    def __init__(self) -> None:
        self.engine = MemoryEngine()
        self.app = App(self.engine, ServerConfig(data_dir=None))

    async def open(self) -> World:
        await self.engine.start()
        async with Client(AppTransport(self.app), "demo", ClientConfig()) as direct:
            await direct.streams.create("s", partitions=3)
        return self

    async def stored(self) -> Counter[bytes]:
        found: Counter[bytes] = Counter()
        async with Client(AppTransport(self.app), "demo", ClientConfig()) as direct:
            for partition in (await direct.streams.describe("s")).partitions:
                cursor = await direct.cursors.get("s", partition.partition_id, "TRIM_HORIZON")
                while (page := await direct.records.get(cursor)).records:
                    found.update(record.data for record in page.records)
                    cursor = page.next_cursor
        return found


class Refusing(AppTransport):
    """Says of each put, sooner or later, that it could not be sent."""

    def __init__(self, app: App, dice: random.Random) -> None:
        super().__init__(app)
        self.dice = dice

    async def exchange(self, request: Request) -> Response:
        if request.method == "POST":
            assert request.timeout_s is not None
            await anyio.sleep(self.dice.choice([0.0, request.timeout_s / 2, request.timeout_s * 0.999]))
            raise TransportError("no route", outcome_unknown=False)
        return await super().exchange(request)


def simulated(work: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        world = await World().open()
        await work(world)
        await world.engine.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_simulated(main)


async def end_of(delivery: Delivery) -> Receipt | DeliveryFailed:
    try:
        return await delivery
    except DeliveryFailed as exc:
        return exc


def spilled(path: Path) -> list[SpilledRecord]:
    return list(read_spill(path)) if path.exists() else []


# --- everything together ------------------------------------------------------------------------------------------


async def torture(world: World, seed: int, order: Order, path: Path) -> Counter[str]:
    """Send through a bad network, leave somehow, and compare the ends with the log and the file."""
    dice = random.Random(seed)
    share = dice.choice([0.03, 0.12])
    plan = FaultPlan(
        refuse=share * 3,
        lose_request=share,
        lose_answer=share,
        late=share,
        error_before=share,
        error_after=share,
        hang=0.5,
        delay=0.2,
        partial=0.3,
    )
    network = FaultyTransport(AppTransport(world.app, latency_s=0.004), dice, FaultPlan())
    client = await Client(network, "demo", ClientConfig(attempts=50, retry_budget_s=3600.0)).start()
    config = ProducerConfig(
        order=order,
        max_batch_records=dice.choice([1, 5, 20]),
        max_in_flight=dice.choice([1, 2, 8]),
        delivery_timeout_s=dice.choice([0.5, 1.5, 4.0]),
        request_timeout_s=1.0,
        close_timeout_s=dice.choice([0.0, 0.3, 10.0]),
        spill_path=path,
    )
    producer = await Producer(client, "s", config, rng=dice).start()
    network._plan = plan
    waiting: list[tuple[float, Delivery]] = []
    deliveries: list[tuple[bytes, Delivery]] = []
    late: list[float] = []

    async def watch() -> None:
        """Looks often when which record has its end."""
        while True:
            now = anyio.current_time()
            still = [(at, delivery) for at, delivery in waiting if not delivery.done()]
            waiting[:] = still
            late.extend(now - at for at, _ in still if now - at > config.delivery_timeout_s + MARGIN_S)
            await anyio.sleep(0.01)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        for i in range(200):
            delivery = await producer.send(b"%d" % i, key=dice.choice(KEYS))
            deliveries.append((b"%d" % i, delivery))
            waiting.append((anyio.current_time(), delivery))
            if dice.random() < 0.2:
                await anyio.sleep(dice.choice([0.0, 0.01, 0.1]))
        leave = dice.choice(["wait", "close", "abort"])
        if leave == "wait":
            await producer.flush()
        tasks.cancel_scope.cancel()
    told: Undelivered | None = None
    try:
        await (producer.abort() if leave == "abort" else producer.close())
    except Undelivered as exc:
        told = exc
    assert not late, f"{len(late)} records were overdue, by up to {max(late) - config.delivery_timeout_s:.3f} s"
    await client.abort()
    await network.settle()
    stored = await world.stored()
    lines = spilled(path)
    stats = producer.stats()
    assert stats.waiting == stats.buffered_bytes == stats.in_flight == stats.unspilled == 0
    assert stats.spilled == len(lines) == stats.not_stored + stats.unknown + stats.rejected
    assert leave == "abort" or bool(told) == bool(lines)
    if told is not None:
        assert (told.spilled, told.unspilled, told.spill_path) == (len(lines), 0, str(path))
        assert sum(told.report.values()) == len(lines)
    by_data = {line.record.data: line for line in lines}
    assert len(by_data) == len(lines), "a record is in the file twice"
    kinds: Counter[str] = Counter()
    for data, delivery in deliveries:
        end = await end_of(delivery)
        if isinstance(end, Receipt):
            assert data in stored
            assert data not in by_data
            kinds["stored"] += 1
            continue
        line = by_data.pop(data)
        kinds[line.end] += 1
        assert end.spilled == str(path)
        assert f"it is written to the spill file {path}" in str(end)
        assert line.end != "not stored" or data not in stored, "spilled as not stored, but it is"
        assert (line.end == "not stored") == isinstance(end, NotStored)
    assert not by_data, "the file holds what was never accepted"
    return kinds


@pytest.mark.parametrize("order", ["key", "strict", "none"])
def test_stored_and_spilled_are_what_was_accepted(order: Order, tmp_path: Path, no_threads: None) -> None:
    """Ends are in time; log and file together make up what was accepted, and "not stored" is never in the log."""
    kinds: Counter[str] = Counter()
    for seed in range(20):

        async def one(world: World, seed: int = seed) -> None:
            kinds.update(await torture(world, seed, order, tmp_path / f"{seed}.spill"))

        simulated(one)
    assert kinds.total() == 4_000
    assert min(kinds["stored"], kinds["not stored"], kinds["unknown"]) > 50, kinds


@pytest.mark.parametrize("order", ["key", "strict"])
@pytest.mark.parametrize("leave", ["wait", "close", "abort"])
def test_in_an_outage_the_file_has_each_key_in_order(
    order: Order, leave: str, tmp_path: Path, no_threads: None
) -> None:
    """Nothing can be sent, at once or after a while: the file holds all of every key in the order of the sends."""

    async def work(world: World, seed: int) -> None:
        dice = random.Random(seed)
        path = tmp_path / f"{seed}.spill"
        config = ProducerConfig(
            order=order,
            max_batch_records=dice.choice([1, 3, 20]),
            max_in_flight=dice.choice([1, 2]),
            delivery_timeout_s=1.0,
            request_timeout_s=dice.choice([0.3, 5.0]),
            close_timeout_s=0.5,
            spill_path=path,
        )
        async with Client(Refusing(world.app, dice), "demo", ClientConfig()) as client:
            producer = await Producer(client, "s", config, rng=dice).start()
            sent: dict[str | None, list[bytes]] = {}
            for i in range(150):
                key = dice.choice(KEYS[1:])
                sent.setdefault(key, []).append(b"%d" % i)
                await producer.send(b"%d" % i, key=key)
                await anyio.sleep(dice.choice([0.0, 0.0, 0.005, 0.03]))
            if leave == "wait":
                await producer.flush()
            if leave == "abort":
                await producer.abort()
            else:
                with pytest.raises(Undelivered, match="150 failed record"):
                    await producer.close()
        found: dict[str | None, list[bytes]] = {}
        for line in spilled(path):
            found.setdefault(line.record.key, []).append(line.record.data)
        if leave == "wait":
            assert found == sent
        else:  # what was on the way when everything was cut off is unknown, and keeps its place
            assert {key: sorted(rows, key=int) for key, rows in found.items()} == found == sent

    for seed in range(15):
        simulated(lambda world, seed=seed: work(world, seed))  # type: ignore[misc]


# --- bounds -------------------------------------------------------------------------------------------------------


def test_an_hour_without_service_fills_the_file_not_the_memory(tmp_path: Path, no_threads: None) -> None:
    """Room is taken until a record is written, the file stops at its bound, and every record is counted somewhere."""
    path = tmp_path / "s"

    async def work(world: World) -> None:
        config = ProducerConfig(
            delivery_timeout_s=20.0,
            buffer_bytes=50_000,
            max_batch_bytes=50_000,
            send_timeout_s=120.0,
            spill_path=path,
            spill_bytes=1_000_000,
        )
        async with Client(Refusing(world.app, random.Random(1)), "demo", ClientConfig()) as client:
            producer = await Producer(client, "s", config, rng=random.Random(1)).start()
            while anyio.current_time() < 3600.0:
                await producer.send(b"x" * 100, key="k")
                stats = producer.stats()
                assert stats.buffered_bytes <= 50_000
                await anyio.sleep(0.05)
            with pytest.raises(Undelivered) as caught:
                await producer.close()
            stats = producer.stats()
            assert stats.spilled == len(spilled(path)) > 5_000
            assert stats.unspilled > 5_000
            assert stats.spilled + stats.unspilled == stats.accepted == stats.not_stored
            assert (caught.value.spilled, caught.value.unspilled) == (stats.spilled, stats.unspilled)
            assert f"{stats.unspilled} could not be written" in str(caught.value)

    simulated(work)
    assert 990_000 < path.stat().st_size <= 1_000_000


def test_room_is_taken_until_the_disk_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk is slow, failed records have their end and keep their room, and `send` waits for it."""
    go: list[anyio.Event] = []

    async def slow(function: Callable[..., None], *args: Any, **_: object) -> None:
        await go[0].wait()
        function(*args)

    monkeypatch.setattr(to_thread, "run_sync", slow)

    async def work(world: World) -> None:
        go.append(anyio.Event())
        config = ProducerConfig(
            delivery_timeout_s=1.0,
            buffer_bytes=2_000,
            max_batch_bytes=2_000,
            send_timeout_s=1.0,
            spill_path=tmp_path / "s",
        )
        async with Client(Refusing(world.app, random.Random(1)), "demo", ClientConfig()) as client:
            producer = await Producer(client, "s", config, rng=random.Random(1)).start()
            first = [await producer.send(b"x" * 200, key="k") for _ in range(4)]
            with pytest.raises(NotStored, match="it is being written to the spill file") as caught:
                await first[0]
            assert caught.value.spilled == str(tmp_path / "s")
            assert producer.stats().waiting == 0
            with pytest.raises(BufferFull):
                await producer.send(b"x" * 500, key="k")
            go[0].set()
            await anyio.sleep(2.0)
            assert producer.stats().buffered_bytes == 0
            with pytest.raises(NotStored, match="it is written to the spill file"):
                await first[0]
            await producer.abort()

    simulated(work)


def test_a_dead_disk_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that never returns costs ten seconds once; then records are not kept, and say so. close() returns."""

    async def dead(*_: object, **__: object) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr(to_thread, "run_sync", dead)

    async def work(world: World) -> None:
        config = ProducerConfig(delivery_timeout_s=1.0, close_timeout_s=1.0, spill_path=tmp_path / "s")
        async with Client(Refusing(world.app, random.Random(1)), "demo", ClientConfig()) as client:
            producer = await Producer(client, "s", config, rng=random.Random(1)).start()
            delivery = await producer.send(b"x", key="k")
            began = anyio.current_time()
            with pytest.raises(Undelivered) as caught:
                await producer.close()
            assert anyio.current_time() - began < 12.0
            assert (caught.value.spilled, caught.value.unspilled) == (0, 1)
            with pytest.raises(NotStored, match="the disk did not answer within 10 s") as told:
                await delivery
            assert told.value.spilled is None
            assert producer.stats().buffered_bytes == 0

    simulated(work)


def test_a_full_disk_costs_what_did_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_threads: None, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of the disk never reaches send: logged once, told by the record and by Undelivered; then it works."""
    caplog.set_level(logging.WARNING, logger="disstream.producer")

    async def work(world: World) -> None:
        config = ProducerConfig(delivery_timeout_s=1.0, spill_path=tmp_path / "s")
        async with Client(Refusing(world.app, random.Random(1)), "demo", ClientConfig()) as client:
            producer = await Producer(client, "s", config, rng=random.Random(1)).start()
            spill = producer._spill
            assert spill is not None
            real = spill._file.append

            def full(lines: object) -> int:
                raise OSError(28, "No space left on device")

            monkeypatch.setattr(spill._file, "append", full)
            lost = [await producer.send(b"%d" % i, key="k") for i in range(3)]
            await producer.flush()
            monkeypatch.setattr(spill._file, "append", real)
            kept = await producer.send(b"kept", key="k")
            await producer.flush()
            for delivery in lost:
                with pytest.raises(NotStored, match=r"could not be written .*: No space left") as told:
                    await delivery
                assert told.value.spilled is None
            with pytest.raises(NotStored, match="it is written"):
                await kept
            await producer.send(b"unseen", key="k")
            with pytest.raises(Undelivered, match=r"2 failed record\(s\) are in .*, 3 could not be written there"):
                await producer.close()

    simulated(work)
    assert [line.record.data for line in spilled(tmp_path / "s")] == [b"kept", b"unseen"]
    assert caplog.text.count("failed records are not spilled") == 1


def test_rejected_records_are_listed(tmp_path: Path, no_threads: None) -> None:
    """What the service refuses for good is in the file as such, with its code."""

    class Rejecting(AppTransport):
        async def exchange(self, request: Request) -> Response:
            if request.method == "POST":
                return Response(status=400, headers={}, body=b'{"errorCode":"DIS.4200","message":"no"}')
            return await super().exchange(request)

    async def work(world: World) -> None:
        async with Client(Rejecting(world.app), "demo", ClientConfig()) as client:
            producer = await Producer(client, "s", ProducerConfig(spill_path=tmp_path / "s")).start()
            await end_of(await producer.send(b"x", key="k"))
            await producer.close()

    simulated(work)
    (line,) = spilled(tmp_path / "s")
    assert (line.end, line.cause, line.record.key) == ("rejected", "DIS.4200", "k")


# --- with threads -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", ["close", "abort", "end of the loop"])
def test_what_threads_write_is_whole_when_the_producer_has_ended(leave: str, tmp_path: Path) -> None:
    """On a real loop: when the producer has ended, however, every failed record is in the file and nothing is left."""
    path = tmp_path / "s"

    class Down(AppTransport):
        async def exchange(self, request: Request) -> Response:
            if request.method == "POST":
                raise TransportError("no route", outcome_unknown=False)
            return await super().exchange(request)

    async def main() -> Producer:
        world = await World().open()
        client = await Client(Down(world.app), "demo", ClientConfig()).start()
        config = ProducerConfig(delivery_timeout_s=0.05, close_timeout_s=1.0, spill_path=path)
        producer = await Producer(client, "s", config).start()
        for i in range(5_000):
            await producer.send(b"%d" % i, key=f"k{i % 7}")
        if leave == "close":
            with pytest.raises(Undelivered):
                await producer.close()
        if leave == "abort":
            await producer.abort()
        if leave != "end of the loop":
            assert producer.stats().spilled == 5_000
            await client.close()
        return producer

    producer = asyncio.run(main())  # cancels what still runs
    assert producer.stats().unspilled == 0
    assert sorted(int(line.record.data) for line in spilled(path)) == list(range(5_000))


async def test_a_producer_that_spills_nothing_leaves_no_file(tmp_path: Path) -> None:
    """The file is made at the start, to know that it can be, and removed in the end if it holds nothing."""
    world = await World().open()
    async with Client(AppTransport(world.app), "demo", ClientConfig()) as client:
        config = ProducerConfig(spill_path=tmp_path / "s")
        async with Producer(client, "s", config) as producer:
            assert (tmp_path / "s").exists()
            other = Producer(client, "s", config)
            with pytest.raises(ConfigError, match="in use"):
                await other.start()
            await producer.send_and_wait(b"x")
        assert not (tmp_path / "s").exists()
        missing = Producer(client, "s", ProducerConfig(spill_path=tmp_path / "none" / "s"))
        with pytest.raises(ConfigError, match=r"spill_path=.*cannot be written"):
            await missing.start()
    await world.engine.close()


INTERRUPTED = """
import asyncio, os, signal, sys
from disstream.client import Client, ClientConfig
from disstream.errors import TransportError
from disstream.engine.memory import MemoryEngine
from disstream.producer import Producer, ProducerConfig
from disstream.server import App, ServerConfig
from disstream.testing.network import AppTransport

class Down(AppTransport):
    async def exchange(self, request):
        if request.method == "POST":
            raise TransportError("no route", outcome_unknown=False)
        return await super().exchange(request)

async def main():
    engine = MemoryEngine()
    await engine.start()
    app = App(engine, ServerConfig(data_dir=None))
    async with Client(AppTransport(app), "demo", ClientConfig()) as direct:
        await direct.streams.create("s", partitions=2)
    async with Client(Down(app), "demo", ClientConfig()) as client:
        async with Producer(client, "s", ProducerConfig(spill_path=sys.argv[1])) as producer:
            for i in range(3000):
                await producer.send(b"%d" % i, key=f"k{i % 7}")
            os.kill(os.getpid(), signal.SIGINT)  # cancels this task: closing begins, and would take 30 s
            asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGINT)  # impatient
            await asyncio.sleep(60)

asyncio.run(main())
"""


def test_ctrl_c_twice_leaves_everything_in_the_file(tmp_path: Path) -> None:
    """A process that is interrupted, again while it closes, ends at once; all it had accepted is in the file."""
    command = [sys.executable, "-W", "error", "-c", INTERRUPTED, str(tmp_path / "s")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=25, check=False)
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert "was never" not in done.stderr
    assert sorted(int(line.record.data) for line in spilled(tmp_path / "s")) == list(range(3_000))
