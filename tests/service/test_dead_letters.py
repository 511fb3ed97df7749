"""Dead letters in a stream: written, listed, sent back in order, and their keys unparked, exactly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from app_world import GROUP, AppWorld, Line, simulate

from disstream.consumer import ConsumerConfig
from disstream.door import DisClient, connect
from disstream.errors import ConfigError, DeliveryFailed, NotFoundError
from disstream.model import NewRecord, Partition, Record
from disstream.producer import Envelope, ProducerConfig
from disstream.wire.envelope import unwrap
from disstream.worker.deadletters import DeadLetters, dead_letters, to_target
from disstream.worker.letters import Letter
from disstream.worker.parking import Fate, Parking
from disstream.worker.plan import Selection
from disstream.worker.reading import Box, box
from disstream.worker.redrive import Redrive, Report, browse

TARGET = "stream:dead"
Test = Callable[[AppWorld, DisClient], Any]


def with_streams(test: Test, partitions: int = 2) -> None:
    """Runs `test` with the streams s and dead under simulated time."""

    async def prepared(world: AppWorld) -> None:
        await world.stream("s", partitions=partitions)
        await world.stream("dead", partitions=2)
        async with connect(project_id="p", transport=Line(world.app), credentials=None) as dis:
            await test(world, dis)

    simulate(prepared)


def letter(number: int, key: str | None = "k", *, app: str = "a", parked: bool = False, **more: Any) -> Letter:
    record = Record(b"%d" % number, number, 1000 + number, key, "s", "shardId-0000000000")
    told: dict[str, Any] = {"error": ValueError("no"), "attempts": 3, "at_ms": 5000 + number, **more}
    return Letter.of(record, app=app, member_id="m", parked=parked, **told)


async def write(dis: DisClient, *letters: Letter) -> None:
    store = dead_letters(dis, TARGET)
    await store.start()
    for one in letters:
        await store.write([one])
    await store.close()


async def opened(dis: DisClient) -> Box:
    found = box(dis, TARGET)
    await found.open(settles=True)
    return found


async def redrive(dis: DisClient, selection: Selection | None = None, **options: Any) -> Report:
    found = await opened(dis)
    try:
        return await Redrive(dis, found, selection or Selection(), **{"wait_s": 0.0, **options}).run()
    finally:
        await found.close()


async def listed(dis: DisClient, *, settled: bool = False, **selects: Any) -> list[tuple[bytes, bool]]:
    found: list[tuple[bytes, bool]] = []

    def show(one: Letter, done: bool) -> None:
        found.append((one.data, done))

    opened_box = await opened(dis)
    await browse(opened_box, Selection(**selects), show, settled=settled)
    await opened_box.close()
    return found


async def stored(dis: DisClient, stream: str = "s") -> list[Record]:
    """What the stream holds, as it was stored."""
    found: list[Record] = []
    for partition in (await dis.streams.describe(stream)).partitions:
        cursor = await dis.cursors.get(stream, partition.partition_id, "TRIM_HORIZON")
        found += (await dis.records.get(cursor)).records
    return found


# --- letters -----------------------------------------------------------------------------------------------------


def test_letters_are_listed_once_and_in_order() -> None:
    """Oldest first, over partitions; one that was written twice is one; selections choose."""

    async def test(world: AppWorld, dis: DisClient) -> None:
        await write(dis, letter(1, "x"), letter(2, "y"), letter(3, "z"), letter(2, "y"), letter(4, None, app="b"))
        assert await listed(dis) == [(b"1", False), (b"2", False), (b"3", False), (b"4", False)]
        assert await listed(dis, app="a", key="y") == [(b"2", False)]
        assert await listed(dis, since_ms=5003) == [(b"3", False), (b"4", False)]
        assert await listed(dis, stream="other") == []

    with_streams(test)


def test_letters_that_were_not_parked_go_back_as_they_were() -> None:
    """Payload, key and time, without an envelope; once, however often it is run; and in order per key."""

    async def test(world: AppWorld, dis: DisClient) -> None:
        await write(dis, *(letter(n, f"k{n % 3}") for n in range(30)), letter(7, "k1"))
        report = await redrive(dis)
        assert (report.settled, report.letters, report.doubles, report.parked) == (30, 30, 1, {})
        back = await stored(dis)
        assert sorted((int(r.data), r.key, r.timestamp) for r in back) == [
            (n, f"k{n % 3}", 1000 + n) for n in range(30)
        ]
        for key in ("k0", "k1", "k2"):
            mine = [int(r.data) for r in back if r.key == key]
            assert mine == sorted(mine)
        assert (await redrive(dis)).settled == 0
        assert await listed(dis) == []
        assert len(await listed(dis, settled=True)) == 30

    with_streams(test)


def test_some_are_sent_and_the_rest_later() -> None:
    """By key and by number; what was not chosen stays, and goes with the next run."""

    async def test(world: AppWorld, dis: DisClient) -> None:
        await write(dis, *(letter(n, f"k{n % 2}") for n in range(6)))
        assert (await redrive(dis, Selection(key="k1"))).settled == 3
        assert (await redrive(dis, limit=2)).settled == 2
        assert (await redrive(dis, rate=2.0)).settled == 1
        assert sorted(int(r.data) for r in await stored(dis)) == list(range(6))

    with_streams(test)


def test_copies_elsewhere_change_nothing() -> None:
    """--to-stream sends payloads without headers of ours, marks nothing, and can be done again."""

    async def test(world: AppWorld, dis: DisClient) -> None:
        await world.stream("other")
        await write(dis, letter(1, parked=True), letter(2, "x"))
        for _ in range(2):
            assert (await redrive(dis, to_stream="other")).settled == 2
        assert [r.data for r in await stored(dis, "other")] == [b"1", b"2", b"1", b"2"]
        assert await stored(dis) == []
        assert len(await listed(dis)) == 2

    with_streams(test)


def test_a_rate_is_kept() -> None:
    """Ten letters at two a second take four and a half seconds."""

    async def test(world: AppWorld, dis: DisClient) -> None:
        await write(dis, *(letter(n) for n in range(10)))
        began = anyio.current_time()
        await redrive(dis, rate=2.0)
        assert 4.5 <= anyio.current_time() - began < 6

    with_streams(test)


def test_headers_of_the_record_go_back_with_it() -> None:
    """What the sender gave comes back; what an earlier way back added does not."""

    async def test(world: AppWorld, dis: DisClient) -> None:
        async with dis.producer("s", ProducerConfig(envelope=Envelope())) as producer:
            await producer.send_and_wait(b"1", key="k", headers={"trace": "t", "disstream-redrive-app": "old"})
        (record,) = unwrap(await stored(dis))
        await write(dis, Letter.of(record, app="a", member_id="m", error=None, attempts=0, at_ms=5))
        await redrive(dis)
        assert [dict(r.headers or {}) for r in unwrap(await stored(dis))][1:] == [{"trace": "t"}]

    with_streams(test)


def test_records_of_others_are_passed_over() -> None:
    """A stray record is told and stops nothing; a stream without any letter is an error."""

    async def test(world: AppWorld, dis: DisClient) -> None:
        await dis.records.put("dead", [NewRecord(b"stray")])
        with pytest.raises(ConfigError, match="stream:dead holds no dead letters: 1 of something else"):
            await redrive(dis)
        await write(dis, letter(1))
        report = await redrive(dis)
        assert (report.settled, report.foreign_count) == (1, 1)
        assert "stray" in report.foreign[0].reason

    with_streams(test)


def test_wrong_targets_are_told() -> None:
    """No such stream, letters into the stream they came from, and a target that says neither."""

    async def test(world: AppWorld, dis: DisClient) -> None:
        store = dead_letters(dis, "stream:nowhere")
        with pytest.raises(ConfigError, match="disstream stream create nowhere"):
            await store.start()
        with pytest.raises(NotFoundError):
            await box(dis, "stream:nowhere").open(settles=False)
        same: DeadLetters = dead_letters(dis, "stream:s")
        await same.start()
        with pytest.raises(ConfigError, match="the same stream"):
            await same.write([letter(1)])
        await same.close()

    with_streams(test)
    for text in ("orders", "stream:", "file:", "", "stream"):
        with pytest.raises(ConfigError, match="stream:NAME"):
            to_target(text)
    assert to_target("./x") == ("file", "./x")
    assert to_target("file:x") == ("file", "x")
    assert to_target("C:/x") == ("file", "C:/x")


def test_a_stream_that_cannot_be_reached_is_an_error_and_writing_goes_on_later() -> None:
    """`write` raises in time for a worker to tell it; tried again it succeeds, and readers see no double."""

    async def test(world: AppWorld, dis: DisClient) -> None:
        line = Line(world.app)
        async with connect(project_id="p", transport=line, credentials=None) as cut:
            store = dead_letters(cut, TARGET)
            await store.start()
            line.cut = True
            began = anyio.current_time()
            with pytest.raises(DeliveryFailed):
                await store.write([letter(1)])
            assert anyio.current_time() - began < 35
            line.cut = False
            await store.write([letter(1)])
            await store.close()
        assert await listed(dis) == [(b"1", False)]

    with_streams(test)


def test_a_scaled_stream_of_letters_keeps_the_order() -> None:
    """Letters of a key that lie in two partitions are read, and sent, in the order they were written."""

    async def test(world: AppWorld, dis: DisClient) -> None:
        for count in (2, 5, 3):
            first = (await listed(dis, settled=True))[-1:]
            begin = int(first[0][0]) + 1 if first else 0
            await write(dis, *(letter(n, f"k{n % 4}") for n in range(begin, begin + 20)))
            await anyio.sleep(1)
            if count != 2:
                await dis.streams.scale("dead", count)
                await dis.streams.wait_running("dead")
        await redrive(dis)
        back = [r for r in await stored(dis)]
        for key in range(4):
            assert [int(r.data) for r in back if r.key == f"k{key}"] == list(range(key, 60, 4))

    with_streams(test)


# --- parked keys -------------------------------------------------------------------------------------------------


class SmallWorker:
    """As little of a worker as parked keys need. Payloads in `poison` fail."""

    def __init__(self, dis: DisClient, app: str = "a") -> None:
        self.dis = dis
        self.app = app
        self.poison: set[bytes] = set()
        self.handled: defaultdict[str | None, list[bytes]] = defaultdict(list)
        self.parked: dict[Partition, Parking] = {}

    async def run(self) -> None:
        config = ConsumerConfig(coordination=GROUP, finish="explicit", auto_commit_s=1.0)
        store = dead_letters(self.dis, TARGET)
        await store.start()
        async with self.dis.consumer("s", config, app=self.app) as consumer:
            while True:
                for record in await consumer.fetch(timeout_s=5.0):
                    parking = self.parked.get(record.partition)
                    if parking is None:
                        parking = Parking.read(consumer.annotation(record.partition))
                        self.parked[record.partition] = parking
                    fate = parking.fate(self.app, record.partition_id, record.key, record.headers)
                    if fate is Fate.FOLLOW or (fate is Fate.HANDLE and record.data in self.poison):
                        assert parking.park(self.app, record)
                        error = ValueError("poison") if fate is Fate.HANDLE else None
                        told: dict[str, Any] = {"attempts": 1, "at_ms": 5, "parked": True}
                        await store.write([Letter.of(record, app=self.app, member_id="m", error=error, **told)])
                    else:
                        if fate is Fate.HANDLE:
                            self.handled[record.key].append(record.data)
                        parking.handled(self.app, record.partition_id, record.key, record.headers)
                    consumer.annotate(record.partition, parking.text())
                    consumer.record_done(record)

    @property
    def parked_keys(self) -> int:
        return sum(parking.parked_keys for parking in self.parked.values())


def with_worker(test: Callable[[DisClient, SmallWorker], Any], app: str = "a") -> None:
    async def prepared(world: AppWorld, dis: DisClient) -> None:
        worker = SmallWorker(dis, app)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            await test(dis, worker)
            tasks.cancel_scope.cancel()

    with_streams(prepared)


async def send(dis: DisClient, key: str, *numbers: int) -> None:
    records = [NewRecord(b"%d" % n, key) for n in numbers]
    (await dis.records.put("s", records)).raise_for_failed()


def test_a_key_is_unparked_when_all_came_back() -> None:
    """The poison and what followed it are handled in order, and then later records without any detour."""

    async def test(dis: DisClient, worker: SmallWorker) -> None:
        worker.poison = {b"1"}
        await send(dis, "k", 0, 1, 2, 3)
        await send(dis, "other", 0, 9)
        await anyio.sleep(10)
        assert (worker.handled["k"], worker.handled["other"]) == ([b"0"], [b"0", b"9"])
        worker.poison = set()
        report = await redrive(dis, wait_s=60.0)
        assert (report.settled, report.parked, len(report.unparked)) == (3, {}, 1)
        assert worker.parked_keys == 0
        await send(dis, "k", 4)
        await anyio.sleep(10)
        assert worker.handled["k"] == [b"0", b"1", b"2", b"3", b"4"]
        assert await listed(dis) == []

    with_worker(test)


def test_what_follows_meanwhile_goes_in_another_round() -> None:
    """Records that come while letters are sent back stay behind them, and unpark the key in the end."""

    async def test(dis: DisClient, worker: SmallWorker) -> None:
        worker.poison = {b"0"}
        await send(dis, "k", 0, 1)
        await anyio.sleep(10)
        worker.poison = set()
        async with anyio.create_task_group() as tasks:

            async def more() -> None:
                for n in range(2, 12):
                    await send(dis, "k", n)
                    await anyio.sleep(0.3)

            tasks.start_soon(more)
            report = await redrive(dis, wait_s=60.0, rate=1.0)
        assert (report.parked, len(report.unparked)) == ({}, 1)
        assert report.settled > 2
        await anyio.sleep(10)
        assert worker.handled["k"] == [b"%d" % n for n in range(12)]

    with_worker(test)


def test_what_fails_again_is_not_sent_again_by_the_same_run() -> None:
    """The key stays parked, which is told; repaired, the next run sends what is left, in order."""

    async def test(dis: DisClient, worker: SmallWorker) -> None:
        worker.poison = {b"1"}
        await send(dis, "k", 0, 1, 2)
        await anyio.sleep(10)
        report = await redrive(dis, wait_s=60.0)
        assert list(report.parked.values()) == ["a record of it failed again"]
        assert worker.handled["k"] == [b"0"]
        worker.poison = set()
        report = await redrive(dis, wait_s=60.0)
        assert (report.parked, len(report.unparked), worker.parked_keys) == ({}, 1, 0)
        assert worker.handled["k"] == [b"0", b"1", b"2"]

    with_worker(test)


def test_poison_can_be_discarded() -> None:
    """What failed is marked, what followed is sent back and unparks; a key with nothing left is unparked at once."""

    async def test(dis: DisClient, worker: SmallWorker) -> None:
        worker.poison = {b"1", b"8"}
        await send(dis, "k", 0, 1, 2)
        await send(dis, "x", 8)
        await anyio.sleep(10)
        report = await redrive(dis, Selection(failed=True), discard=True, wait_s=60.0)
        assert (report.settled, [g.key for g in report.unparked], list(report.left_behind.values())) == (2, ["x"], [1])
        report = await redrive(dis, wait_s=60.0)
        assert (report.settled, [g.key for g in report.unparked]) == (1, ["k"])
        assert (worker.handled["k"], worker.handled["x"], worker.parked_keys) == ([b"0", b"2"], [], 0)

    with_worker(test)


def test_what_is_behind_something_that_was_not_chosen_is_not_sent() -> None:
    """A key's letters go in order or not at all: the key stays parked, and it is told how many are left."""

    async def test(dis: DisClient, worker: SmallWorker) -> None:
        worker.poison = {b"0"}
        await send(dis, "k", 0, 1, 2)
        await anyio.sleep(10)
        worker.poison = set()
        report = await redrive(dis, limit=2, wait_s=60.0)
        assert (report.settled, list(report.left_behind.values()), worker.parked_keys) == (2, [1], 1)
        await redrive(dis, wait_s=60.0)
        assert (worker.handled["k"], worker.parked_keys) == ([b"0", b"1", b"2"], 0)

    with_worker(test)


def test_workers_of_other_apps_pass_over_it() -> None:
    """Each app handles each record once, although both read the stream to which letters of one are sent back."""

    async def test(dis: DisClient, worker: SmallWorker) -> None:
        other = SmallWorker(dis, "b")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other.run)
            worker.poison = {b"0"}
            await send(dis, "k", 0, 1)
            await anyio.sleep(10)
            worker.poison = set()
            await redrive(dis, wait_s=60.0)
            await anyio.sleep(10)
            assert worker.handled["k"] == other.handled["k"] == [b"0", b"1"]
            tasks.cancel_scope.cancel()

    with_worker(test)


def test_without_a_worker_the_keys_stay_parked_and_it_is_told() -> None:
    """The letters are sent; nobody has handled them in time."""

    async def test(world: AppWorld, dis: DisClient) -> None:
        await write(dis, letter(0, parked=True))
        report = await redrive(dis, wait_s=5.0)
        assert (report.settled, list(report.parked.values())) == (
            1,
            ["no worker of a has handled what was sent within 5 s"],
        )

    with_streams(test)


def test_a_record_too_large_for_its_envelope_stops_its_key_only() -> None:
    """It is told, it and what is behind it stay where they are, and other keys go."""

    async def test(world: AppWorld, dis: DisClient) -> None:
        big = Record(b"x" * 1_048_576, 1, 1001, "k", "s", "shardId-0000000000")
        told: dict[str, Any] = {"app": "a", "member_id": "m", "attempts": 1, "at_ms": 5, "parked": True}
        await write(dis, Letter.of(big, error=ValueError("no"), **told), letter(2, parked=True), letter(3, "x"))
        report = await redrive(dis)
        assert (report.settled, len(report.unsendable), len(report.parked)) == (1, 1, 1)
        assert [data[:9] for data, _ in await listed(dis)] == [b"xxxxxxxxx", b"2"]

    with_streams(test)
