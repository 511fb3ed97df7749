"""Proves what a worker promises: order, concurrency, three ways a call ends, what is committed, letters, suspension."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import threading
from collections import Counter, defaultdict
from typing import Any

import pytest
from app_world import Line, p
from worker_world import Hired, WorkerWorld, simulate, texts, until

from disstream.consumer import ConsumerConfig, ServiceGroup, Static
from disstream.door import DisClient
from disstream.errors import ConcurrencyError, ConfigError, NotFoundError, Reject
from disstream.model import NewRecord, Partition, Record
from disstream.wire.http import Request, Response
from disstream.worker import Worker, WorkerConfig
from disstream.worker.control import ask_to_resume
from disstream.worker.health import Pulse, body_of
from disstream.worker.plan import Selection
from disstream.worker.reading import box
from disstream.worker.redrive import Redrive, Report

# --- order and concurrency ---


@pytest.mark.parametrize("order", ["key", "partition", "none"])
def test_what_runs_at_once_and_what_does_not(order: str) -> None:
    """By key: each key in order, different keys beside each other. By partition: one at a time. None: all at once."""

    async def test(world: WorkerWorld) -> None:
        await world.stream(partitions=2)
        await world.put(*[(f"k{n % 5}", f"{n}") for n in range(60)])
        seen: defaultdict[Any, list[int]] = defaultdict(list)
        busy: Counter[Any] = Counter()
        most = 0

        async def handler(record: Record) -> None:
            nonlocal most
            name = record.key if order == "key" else record.partition
            busy[name] += 1
            busy["all"] += 1
            most = max(most, busy["all"])
            assert busy[name] == 1 or order == "none"
            seen[name].append(int(record.text()))
            await asyncio.sleep(1.0)
            busy[name] -= 1
            busy["all"] -= 1

        hired = world.hire(handler, order=order, concurrency=16)
        await until(lambda: hired.worker.stats().handled == 60)
        await hired.stop()
        assert most == {"key": 5, "partition": 2, "none": 16}[order]
        if order != "none":
            assert all(numbers == sorted(numbers) for numbers in seen.values())
        assert sum((await world.committed()).values()) == 60  # type: ignore[arg-type]

    simulate(test)


def test_batches_are_of_one_key_and_linger() -> None:
    """A batch waits for more until it lingered; it holds records of its key only, in order."""

    async def test(world: WorkerWorld) -> None:
        await world.stream()
        batches: list[list[str]] = []

        async def handler(records: list[Record]) -> None:
            assert len({record.key for record in records}) == 1
            batches.append(texts(records))

        hired = world.hire(handler, batch_records=3, batch_linger_s=2.0)
        await until(lambda: hired.worker.stats().state == "running")
        await world.put(("a", "a1"), ("b", "b1"), ("a", "a2"))
        await asyncio.sleep(1.0)
        assert batches == []
        await world.put(("a", "a3"), ("a", "a4"))
        await until(lambda: hired.worker.stats().handled == 5)
        assert sorted(batches) == [["a1", "a2", "a3"], ["a4"], ["b1"]]

    simulate(test)


def test_a_key_that_is_tried_again_holds_nobody_up() -> None:
    """While it pauses, its later records wait and all others go on, also with one slot."""

    async def test(world: WorkerWorld) -> None:
        await world.stream()
        await world.put(("bad", "bad"), *[(f"k{n}", f"{n}") for n in range(20)], ("bad", "next"))
        seen: list[str] = []

        async def handler(record: Record) -> None:
            seen.append(record.text())
            if seen.count("bad") < 3 and record.text() == "bad":
                raise ValueError("not yet")

        hired = world.hire(handler, concurrency=1, retry_base_s=30.0)
        await until(lambda: hired.worker.stats().handled == 22)
        assert seen[0] == "bad"
        assert seen[1:21] == [f"{n}" for n in range(20)]
        assert seen[21:] == ["bad", "bad", "next"]
        stats = hired.worker.stats()
        assert (stats.retried, stats.raised, stats.failed) == (2, 2, 0)

    simulate(test)


def test_plain_functions_and_objects_are_handlers() -> None:
    """A partial of a coroutine function, and an object with an async __call__."""

    async def test(world: WorkerWorld) -> None:
        await world.stream(records=4)
        seen: list[str] = []

        async def handler(prefix: str, record: Record) -> None:
            seen.append(prefix + record.text())

        class Handler:
            async def __call__(self, record: Record) -> None:
                seen.append(record.text())

        for number, one in enumerate((functools.partial(handler, "x"), Handler())):
            hired = world.hire(one, app=f"app{number}")
            await until(lambda hired=hired: hired.worker.stats().handled == 4)  # type: ignore[misc]
        assert seen == ["x0", "x1", "x2", "x3", "0", "1", "2", "3"]

    simulate(test)


async def test_a_thread_that_is_late_counts_as_timed_out(disstream_client: DisClient) -> None:
    """It cannot be stopped: its record is tried again when it has returned, and not before."""
    await disstream_client.streams.create("s", partitions=1)
    await disstream_client.records.put("s", [NewRecord(b"x", key="k")])
    loop = asyncio.get_running_loop()
    release = threading.Event()
    calls: list[bool] = []
    handled = asyncio.Event()

    def handler(record: Record) -> None:
        calls.append(release.is_set())
        if len(calls) == 1:
            loop.call_soon_threadsafe(loop.call_later, 0.2, release.set)
            release.wait()
        else:
            loop.call_soon_threadsafe(handled.set)

    reading = ConsumerConfig(coordination=ServiceGroup(accelerate=True))
    config = WorkerConfig(
        streams=["s"], app="a", record_timeout_s=0.1, retry_base_s=0.01, handle_signals=False, consumer=reading
    )
    worker = Worker(disstream_client, handler, config)
    task = asyncio.create_task(worker.run())
    await handled.wait()
    worker.stop()
    await task
    stats = worker.stats()
    assert calls == [False, True]
    assert (stats.timed_out, stats.handled) == (1, 1)


# --- how a call ends ---


def test_a_call_that_takes_too_long_is_cancelled_and_tried_again() -> None:
    """Timed out is counted apart from raised, and commits nothing."""

    async def test(world: WorkerWorld) -> None:
        await world.stream(records=2)
        tries: Counter[str] = Counter()

        async def handler(record: Record) -> None:
            tries[record.text()] += 1
            if record.text() == "0" and tries["0"] < 3:
                await asyncio.sleep(1e6)

        hired = world.hire(handler, record_timeout_s=5.0)
        await until(lambda: hired.worker.stats().handled == 2)
        stats = hired.worker.stats()
        assert (tries["0"], stats.timed_out, stats.raised, stats.cancelled) == (3, 2, 0, 0)
        await hired.stop()
        assert await world.committed() == {0: 2}

    simulate(test)


def test_a_handler_that_swallows_cancellation_keeps_its_place() -> None:
    """Its key does not run twice at once; it is cancelled again until it ends."""

    async def test(world: WorkerWorld) -> None:
        await world.stream()
        await world.put(("k", "first"), ("k", "second"))
        events: list[str] = []

        async def handler(record: Record) -> None:
            events.append(f"begin {record.text()}")
            for _ in range(3 if events == ["begin first"] else 0):
                try:
                    await asyncio.sleep(1e6)
                except asyncio.CancelledError:
                    events.append("swallowed")
                    if events.count("swallowed") == 3:
                        raise
            events.append(f"end {record.text()}")

        hired = world.hire(handler, record_timeout_s=5.0, cancel_timeout_s=2.0)
        await until(lambda: hired.worker.stats().handled == 2)
        assert events == ["begin first", *["swallowed"] * 3, "begin first", "end first", "begin second", "end second"]

    simulate(test)


def test_a_stop_waits_for_calls_and_commits_them() -> None:
    """Calls under way end, nothing new begins, what ended is committed, and the rest comes again."""

    async def test(world: WorkerWorld) -> None:
        await world.stream(records=10)
        begun: list[str] = []

        async def handler(record: Record) -> None:
            begun.append(record.text())
            await asyncio.sleep(3.0)

        hired = world.hire(handler, concurrency=4, order="none")
        await until(lambda: len(begun) == 4)
        hired.worker.stop()
        await hired.task
        assert begun == ["0", "1", "2", "3"]
        assert hired.worker.stats().state == "stopped"
        assert await world.committed() == {0: 4}

    simulate(test)


def test_a_stop_cancels_what_takes_longer() -> None:
    """After drain_timeout_s calls are cancelled: they are counted, and not committed."""

    async def test(world: WorkerWorld) -> None:
        await world.stream(records=3)
        cleaned: list[str] = []

        async def handler(record: Record) -> None:
            if record.text() == "1":
                try:
                    await asyncio.sleep(1e6)
                finally:
                    await asyncio.sleep(1.0)  # cleaning up may await
                    cleaned.append(record.text())

        hired = world.hire(handler, order="none", record_timeout_s=None, drain_timeout_s=5.0)
        await until(lambda: hired.worker.stats().handled == 2)
        began = asyncio.get_running_loop().time()
        await hired.stop()
        assert 5.0 < asyncio.get_running_loop().time() - began < 8.0
        assert cleaned == ["1"]
        assert hired.worker.stats().cancelled == 1
        assert await world.committed() == {0: 1}

    simulate(test)


def test_a_second_stop_has_no_patience() -> None:
    """Calls are cancelled at once, and what was finished is committed all the same."""

    async def test(world: WorkerWorld) -> None:
        await world.stream(records=3)

        async def handler(record: Record) -> None:
            if record.text() != "0":
                await asyncio.sleep(1e6)

        hired = world.hire(handler, order="none", record_timeout_s=None, drain_timeout_s=1000.0)
        await until(lambda: hired.worker.stats().handled == 1)
        hired.worker.stop()
        await asyncio.sleep(1.0)
        assert not hired.task.done()
        hired.worker.stop()
        began = asyncio.get_running_loop().time()
        await hired.task
        assert asyncio.get_running_loop().time() - began < 5.0
        assert await world.committed() == {0: 1}

    simulate(test)


def test_cancelling_run_commits_what_is_finished() -> None:
    """The task that runs the worker is cancelled: calls are cancelled, finished work is committed, then it ends."""

    async def test(world: WorkerWorld) -> None:
        await world.stream(records=3)

        async def handler(record: Record) -> None:
            if record.text() == "2":
                await asyncio.sleep(1e6)

        hired = world.hire(handler, record_timeout_s=None)
        await until(lambda: hired.worker.stats().handled == 2)
        hired.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hired.task
        assert await world.committed() == {0: 2}

    simulate(test)


def test_what_is_nobodys_to_catch_ends_the_worker() -> None:
    """SystemExit from a handler ends run, and what was finished before is committed."""

    async def test(world: WorkerWorld) -> None:
        await world.stream(records=3)

        async def handler(record: Record) -> None:
            if record.text() == "1":
                raise SystemExit(3)

        await world.worker(handler, order="partition").run()

    with pytest.raises(SystemExit):
        simulate(test)


def test_partitions_that_a_stream_got_later_are_handled_without_a_group() -> None:
    """Static() reads them, and announces them to nobody."""

    async def test(world: WorkerWorld) -> None:
        await world.stream(records=2)
        seen: list[str] = []

        async def handler(record: Record) -> None:
            seen.append(record.text())

        hired = world.hire(handler, consumer=ConsumerConfig(coordination=Static(), auto_commit_s=1.0))
        await until(lambda: len(seen) == 2)
        await world.dis.streams.scale("s", 2)
        await world.write(3, number=1)
        await until(lambda: len(seen) == 5)
        await hired.stop()
        assert await world.committed() == {0: 2, 1: 3}

    simulate(test)


@pytest.mark.parametrize("on_failure", ["ignore", "suspend"])
def test_what_is_nobodys_to_catch_is_no_failure_of_the_record(on_failure: str) -> None:
    """The record that raised SystemExit in its last attempt is neither given up nor does its partition stop."""

    async def test(world: WorkerWorld) -> None:
        await world.stream(records=3)
        leave = True

        async def handler(record: Record) -> None:
            if leave and record.text() == "1":
                raise SystemExit(3)

        first = world.worker(handler, order="partition", attempts=1, on_failure=on_failure)
        with pytest.raises(SystemExit):
            await first.run()
        assert await world.committed() == {0: 1}
        assert first.stats().failed == 0
        leave = False
        second = world.hire(handler, order="partition")
        await until(lambda: second.worker.stats().handled == 2)

    simulate(test)


def test_health_tells_why_the_service_does_not_answer() -> None:
    """While it is away /live must be answered, or everybody's workers are killed for it."""

    async def test(world: WorkerWorld) -> None:
        await world.stream(records=1)

        async def handler(record: Record) -> None: ...

        hired = world.hire(handler)
        await until(lambda: hired.worker.stats().handled == 1)
        world.line.cut = True
        await until(lambda: any(one.last_error for one in hired.worker.consumer.stats().partitions))
        pulse = Pulse()
        pulse.stats = hired.worker.stats()
        consumer = json.loads(body_of(pulse, ""))["stats"]["consumer"]
        assert consumer["partitions"][0]["last_error"] == consumer["last_error"] == "the line is cut"
        world.line.cut = False

    simulate(test)


def test_a_worker_runs_once() -> None:
    """A second run is refused, and leaves the first alone."""

    async def test(world: WorkerWorld) -> None:
        await world.stream(records=1)

        async def handler(record: Record) -> None: ...

        hired = world.hire(handler)
        await until(lambda: hired.worker.stats().state == "running")
        with pytest.raises(ConcurrencyError):
            await hired.worker.run()
        await until(lambda: hired.worker.stats().handled == 1)
        await hired.stop()

    simulate(test)


def test_a_stop_before_or_during_the_start_is_heeded() -> None:
    """Also while the service does not answer: nothing is waited for."""

    async def test(world: WorkerWorld) -> None:
        await world.stream()

        async def handler(record: Record) -> None: ...

        early = world.worker(handler)
        early.stop()
        await early.run()

        class Silent(Line):
            async def exchange(self, request: Request) -> Response:
                await asyncio.sleep(1e6)
                return await super().exchange(request)

        dis = DisClient(Silent(world.app), "p")
        await dis.start()
        hired = world.hire(handler, dis=dis)
        await asyncio.sleep(1.0)
        assert hired.worker.stats().state == "starting"
        await hired.stop()
        await dis.close()

    simulate(test)


def test_what_cannot_be_read_ends_the_worker() -> None:
    """A stream that does not exist is raised by run."""

    async def test(world: WorkerWorld) -> None:
        async def handler(record: Record) -> None: ...

        with pytest.raises(NotFoundError):
            await world.worker(handler, streams=["nowhere"]).run()

    simulate(test)


# --- what becomes of records that fail ---


def test_a_poison_record_is_parked_and_its_key_follows() -> None:
    """The letter tells position, error and attempts; later records of the key follow; other keys go on; all commits."""

    async def test(world: WorkerWorld) -> None:
        await world.stream()
        await world.stream("dead")
        await world.put(("good", "1"), ("bad", "poison"), ("good", "2"), ("bad", "later"), (None, "3"))
        handled: list[str] = []

        async def handler(record: Record) -> None:
            handled.append(record.text())
            if record.text() == "poison":
                raise ValueError("no such account")

        hired = world.hire(handler, dead_letters="stream:dead", attempts=3)
        await until(lambda: hired.worker.stats().dead_letters == 2)
        stats = hired.worker.stats()
        assert (stats.handled, stats.failed, stats.retried, stats.followed, stats.parked_keys) == (3, 1, 2, 1, 1)
        assert Counter(handled) == {"poison": 3, "1": 1, "2": 1, "3": 1}
        await hired.stop()
        assert await world.committed() == {0: 5}
        poison, later = await world.letters()
        assert (poison.sequence_number, poison.error_type, poison.error, poison.attempts, poison.followed) == (
            1,
            "ValueError",
            "no such account",
            3,
            False,
        )
        assert (later.data, later.followed, later.attempts) == (b"later", True, 0)

    simulate(test)


def test_a_parked_key_stays_parked_for_the_next_worker() -> None:
    """Across a hand-over: the next one sends later records of the key to the letters without trying them."""

    async def test(world: WorkerWorld) -> None:
        await world.stream()
        await world.stream("dead")
        await world.put(("bad", "poison"))
        handled: list[str] = []

        async def handler(record: Record) -> None:
            handled.append(record.text())
            if record.text() == "poison":
                raise Reject("never")

        first = world.hire(handler, dead_letters="stream:dead")
        await until(lambda: first.worker.stats().dead_letters == 1)
        second = world.hire(handler, dead_letters="stream:dead", dis=await world.other())
        await until(lambda: second.worker.stats().state == "running")
        await first.stop()
        await world.put(("bad", "later"), ("good", "1"))
        await until(lambda: second.worker.stats().dead_letters == 1 and second.worker.stats().handled == 1)
        assert handled == ["poison", "1"]
        assert [letter.data for letter in await world.letters()] == [b"poison", b"later"]

    simulate(test)


def test_rejected_and_ignored() -> None:
    """Reject is not tried again; on_failure="ignore" goes on with the key, with a letter or without."""

    async def test(world: WorkerWorld) -> None:
        await world.stream()
        await world.stream("dead")
        await world.put(("k", "poison"), ("k", "later"))

        async def handler(record: Record) -> None:
            if record.text() == "poison":
                raise Reject("never")

        for number, dead in enumerate((None, "stream:dead")):
            hired = world.hire(handler, app=f"app{number}", on_failure="ignore", dead_letters=dead)
            await until(lambda hired=hired: hired.worker.stats().queued_records == 0 < hired.worker.stats().handled)  # type: ignore[misc]
            stats = hired.worker.stats()
            assert (stats.rejected, stats.handled, stats.ignored, stats.dead_letters, stats.parked_keys) == (
                1,
                1,
                1 - number,
                number,
                0,
            )
            await hired.stop()
            assert await world.committed(app=f"app{number}") == {0: 2}

    simulate(test)


def test_of_a_failed_batch_only_the_poison_is_given_up() -> None:
    """A batch that fails for good is tried record by record; the others are finished."""

    async def test(world: WorkerWorld) -> None:
        await world.stream()
        await world.stream("dead")
        calls: list[list[str]] = []

        async def handler(records: list[Record]) -> None:
            calls.append(texts(records))
            if any(record.text() == "poison" for record in records):
                raise ValueError("poison")

        await world.put(*[(None, text) for text in ("1", "poison", "2")])
        hired = world.hire(handler, batch_records=3, attempts=2, dead_letters="stream:dead")
        await until(lambda: hired.worker.stats().dead_letters == 1 and hired.worker.stats().handled == 2)
        assert calls == [["1", "poison", "2"]] * 2 + [["1"], ["poison"], ["poison"], ["2"]]

    simulate(test)


# --- suspension ---


async def suspended(world: WorkerWorld, hired: Hired) -> None:
    await until(lambda: hired.worker.stats().suspended == (p(0),))


def test_a_partition_is_suspended_until_it_is_resumed(caplog: pytest.LogCaptureFixture) -> None:
    """The other partition goes on; it is told loudly with position and error; a restart keeps it; resume ends it."""

    async def test(world: WorkerWorld) -> None:
        await world.stream(partitions=2, records=3)
        broken = True
        handled: list[str] = []

        async def handler(record: Record) -> None:
            if record.partition == p(0) and record.text() == "1" and broken:
                raise ValueError("no such table")
            handled.append(f"{record.partition_id[-1]}:{record.text()}")

        hired = world.hire(handler, order="partition", attempts=2)
        await suspended(world, hired)
        await until(lambda: hired.worker.stats().handled == 4)
        assert sorted(handled) == ["0:0", "1:0", "1:1", "1:2"]
        told = hired.worker.stats().partitions[p(0)].suspended
        assert told == "1: ValueError: no such table"
        assert "is suspended at 1" in caplog.text
        await hired.stop()
        assert await world.committed() == {0: 1, 1: 3}

        handled.clear()
        again = world.hire(handler, order="partition", attempts=2)
        await suspended(world, again)
        await world.write(1, number=1)
        await until(lambda: again.worker.stats().handled == 1)
        await asyncio.sleep(60.0)
        assert handled == ["1:3"]

        broken = False
        (asked,) = await ask_to_resume(world.dis, "a", "s")
        assert (asked.partition, asked.suspension and asked.suspension.sequence_number) == (p(0), 1)
        await until(lambda: again.worker.stats().handled == 3)
        assert handled == ["1:3", "0:1", "0:2"]
        await again.stop()
        assert await world.committed() == {0: 3, 1: 4}
        assert await ask_to_resume(world.dis, "a", "s") == []

    with caplog.at_level(logging.ERROR):
        simulate(test)


def test_an_old_order_does_not_hold_for_a_new_suspension() -> None:
    """Resumed and failed again, it is suspended again, and stays so; also for an order given before a worker starts."""

    async def test(world: WorkerWorld) -> None:
        await world.stream(records=2)
        tries = 0

        async def handler(record: Record) -> None:
            nonlocal tries
            tries += 1
            raise ValueError("still broken")

        hired = world.hire(handler, order="partition", attempts=1)
        await suspended(world, hired)
        await hired.stop()
        await ask_to_resume(world.dis, "a", "s", p(0).partition_id)
        again = world.hire(handler, order="partition", attempts=1)
        await until(lambda: tries == 2)
        await suspended(world, again)
        await asyncio.sleep(120.0)
        assert tries == 2

    simulate(test)


def test_waiting_records_of_a_parked_key_suspend_the_partition_at_the_gap() -> None:
    """parked="wait": later ones of the key are not finished; at max_gap the partition stops; resume handles them."""

    async def test(world: WorkerWorld) -> None:
        await world.stream()
        await world.stream("dead")
        await world.put(("bad", "poison"), ("bad", "w1"), *[("good", f"{n}") for n in range(30)], ("bad", "w2"))
        handled: list[str] = []

        async def handler(record: Record) -> None:
            if record.text() == "poison":
                raise Reject("never")
            handled.append(record.text())

        hired = world.hire(handler, dead_letters="stream:dead", parked="wait", max_gap=20)
        await suspended(world, hired)
        assert "w1" not in handled
        assert "w2" not in handled
        await until(lambda: hired.worker.stats().in_flight == 0)
        await asyncio.sleep(5.0)
        assert await world.committed() == {0: 1}
        await ask_to_resume(world.dis, "a", "s")
        await until(lambda: hired.worker.stats().handled == 32)
        assert [text for text in handled if text.startswith("w")] == ["w1", "w2"]
        assert [letter.data for letter in await world.letters()] == [b"poison"]

    simulate(test)


# --- what cannot be configured ---


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"streams": "s"}, "streams='s'"),
        ({"streams": []}, "needs a stream"),
        ({"app": ""}, "app=''"),
        ({"concurrency": 0}, "concurrency=0"),
        ({"concurrency": 129}, "more workers"),
        ({"order": "keys"}, "order='keys'"),
        ({"on_failure": "park"}, "needs dead_letters"),
        ({"on_failure": "suspend", "dead_letters": "stream:d"}, "would never be written"),
        ({"attempts": 0}, "attempts=0"),
        ({"retry_base_s": 60.0}, "retry_base_s=60.0"),
        ({"queue_records": 3}, "concurrency x batch_records = 8"),
        ({"health_port": 70_000}, "health_port=70000"),
        ({"record_timeout_s": 0.0}, "record_timeout_s=0.0"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], told: str) -> None:
    """The message names the value and what to use."""
    with pytest.raises(ConfigError, match=told):
        WorkerConfig(**{"streams": ["s"], "app": "a", **settings})


# --- letters that come back ---


async def redrive(client: DisClient, wait_s: float) -> Report:
    """All letters of the stream "dead"."""
    letters = box(client, "stream:dead")
    await letters.open(settles=True)
    try:
        return await Redrive(client, letters, Selection(), wait_s=wait_s).run()
    finally:
        await letters.close()


def test_what_waits_for_a_parked_key_holds_up_no_change_of_the_layout_for_ever() -> None:
    """What is sent back lies behind the change, so it would never come: the partition is suspended, and told so."""

    async def test(world: WorkerWorld) -> None:
        await world.stream()
        await world.dis.streams.create("dead", partitions=1)
        await world.put(("bad", "1"), ("bad", "2"), ("good", "3"))
        mended = False
        seen: list[str] = []

        async def handler(record: Record) -> None:
            if record.text() == "1" and not mended:
                raise Reject("no such account")
            seen.append(record.text())

        hired = world.hire(handler, dead_letters="stream:dead", parked="wait")
        await until(lambda: seen == ["3"] and hired.worker.stats().dead_letters == 1)
        assert hired.worker.stats().suspended == ()
        await world.dis.streams.scale("s", 2)
        await world.put(("bad", "4"), ("good", "5"))
        await until(lambda: hired.worker.stats().suspended == (p(0),))
        mended = True
        await redrive(world.client, 0.0)
        await ask_to_resume(world.client, "a", "s")
        await until(lambda: len(seen) == 5)
        assert [text for text in seen if text in "24"] == ["2", "4"]

    simulate(test)


@pytest.mark.parametrize("parked", ["follow", "wait"])
def test_letters_that_are_sent_back_unpark_their_key(parked: str) -> None:
    """Mended and redriven: the key's records are handled in the order they were written, and it is parked no more."""

    async def test(world: WorkerWorld) -> None:
        await world.stream()
        await world.stream("dead")
        await world.put(("bad", "1"), ("good", "g1"), ("bad", "2"), ("bad", "3"))
        handled: list[str] = []
        broken = True

        async def handler(record: Record) -> None:
            if broken and record.text() == "1":
                raise Reject("no such account")
            handled.append(record.text())

        hired = world.hire(handler, dead_letters="stream:dead", parked=parked)
        letters = 3 if parked == "follow" else 1
        await until(lambda: hired.worker.stats().dead_letters == letters and handled == ["g1"])
        await asyncio.sleep(5.0)
        assert handled == ["g1"]

        broken = False
        client = await world.other()
        report = await redrive(client, wait_s=30.0)
        assert (report.settled, len(report.unparked), report.parked) == (letters, 1, {})
        await until(lambda: hired.worker.stats().handled == 4)
        assert handled == ["g1", "1", "2", "3"]
        assert hired.worker.stats().parked_keys == 0
        await world.put(("bad", "4"))
        await until(lambda: handled[-1] == "4")
        await hired.stop()
        ends = {n: s.latest for n, s in enumerate(await world.dis.apps.state("a", "s"))}
        assert await world.committed() == ends

    simulate(test)


def test_what_fails_again_stays_parked() -> None:
    """A redriven record that fails once more becomes a letter again; what follows it does not overtake it."""

    async def test(world: WorkerWorld) -> None:
        await world.stream()
        await world.stream("dead")
        await world.put(("bad", "1"), ("bad", "2"))
        handled: list[str] = []

        async def handler(record: Record) -> None:
            if record.text() == "1":
                raise Reject("no such account")
            handled.append(record.text())

        hired = world.hire(handler, dead_letters="stream:dead")
        await until(lambda: hired.worker.stats().dead_letters == 2)
        client = await world.other()
        report = await redrive(client, wait_s=10.0)
        await until(lambda: hired.worker.stats().dead_letters == 4)
        assert handled == []
        assert not report.unparked
        assert hired.worker.stats().parked_keys == 1

    simulate(test)


# --- beside it ---


def test_a_call_that_hangs_is_told_with_its_stack(caplog: pytest.LogCaptureFixture) -> None:
    """The consumer's warning about a partition that stands shows where the handler is; of a suspended one, why."""

    async def test(world: WorkerWorld) -> None:
        await world.stream(partitions=2, records=1)

        async def waits_for_the_bank() -> None:
            await asyncio.sleep(1e6)

        async def handler(record: Record) -> None:
            if record.partition == p(0):
                await waits_for_the_bank()
            raise Reject("no such account")

        world.hire(handler, record_timeout_s=None)
        await until(lambda: caplog.text.count("has not got on") == 2)

    simulate(test)
    assert "waits_for_the_bank" in caplog.text
    assert "(suspended at 0: Reject: no such account; see disstream worker resume)" in caplog.text


def test_chosen_partitions_and_callbacks_of_ones_own() -> None:
    """Static() works without a group; in a group the callbacks of the consumer's configuration are called too."""

    async def test(world: WorkerWorld) -> None:
        await world.stream(partitions=2, records=3)
        seen: list[str] = []
        told: list[tuple[str, int]] = []

        async def handler(record: Record) -> None:
            seen.append(record.partition_id[-1] + record.text())

        async def revoked(partitions: frozenset[Partition], deadline: float) -> None:
            told.append(("revoked", len(partitions)))

        static = ConsumerConfig(coordination=Static([p(1).partition_id]), auto_commit_s=1.0)
        hired = world.hire(handler, consumer=static)
        await until(lambda: hired.worker.stats().handled == 3)
        await hired.stop()
        assert seen == ["10", "11", "12"]
        group = ConsumerConfig(
            coordination=ServiceGroup(accelerate=True),
            on_assigned=lambda partitions: told.append(("assigned", len(partitions))),
            on_revoked=revoked,
        )
        hired = world.hire(handler, consumer=group)
        await until(lambda: hired.worker.stats().handled == 3)
        assert hired.worker.consumer.assignment() == {p(0), p(1)}
        await hired.stop()
        assert seen[3:] == ["00", "01", "02"]
        assert told == [("assigned", 2), ("revoked", 2)]

    simulate(test)


def test_a_suspension_of_chosen_partitions_is_found_at_the_start() -> None:
    """Static() has no callbacks: what is kept with the checkpoints is looked at before the first record."""

    async def test(world: WorkerWorld) -> None:
        await world.stream(records=2)
        tries = 0

        async def handler(record: Record) -> None:
            nonlocal tries
            tries += 1
            raise Reject("never")

        static = ConsumerConfig(coordination=Static(), auto_commit_s=1.0)
        for _ in range(2):
            hired = world.hire(handler, consumer=static, order="partition")
            await suspended(world, hired)
            await asyncio.sleep(30.0)
            await hired.stop()
        assert tries == 1

    simulate(test)


def test_the_queue_is_bounded() -> None:
    """However much there is, no more than queue_records are taken and not finished; all of it is handled."""

    async def test(world: WorkerWorld) -> None:
        await world.stream(partitions=3)
        await world.put(*[(f"k{n % 7}", f"{n}") for n in range(400)])
        most = 0

        async def handler(record: Record) -> None:
            nonlocal most
            most = max(most, hired.worker.stats().queued_records)
            await asyncio.sleep(0.1)

        hired = world.hire(handler, concurrency=4, queue_records=40)
        await until(lambda: hired.worker.stats().handled == 400)
        assert 20 < most <= 40

    simulate(test)
