"""What the server says of its traffic is what was sent and read: at once, after a restart, and for seven days."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from server_http import AppCaller, Caller, data, serving
from test_client_calls import Script, client_on, ok

from disstream import clock, connect
from disstream.engine.memory import MemoryCatalog, MemoryEngine
from disstream.errors import ApiError, CatalogConflict, ConfigError, OutcomeUnknown, StorageError
from disstream.model import PARTITION_METRICS, STREAM_METRICS
from disstream.server import App, ServerConfig
from disstream.testing.clock import run_simulated

MINUTE, HOUR, DAY = 60, 3_600, 86_400


async def told(caller: Caller, stream: str = "s", *, part: str = "", back_s: int = 600, ahead_s: int = 5) -> Any:
    """Label -> minute -> value of all labels, of the time around now."""
    labels = ",".join(PARTITION_METRICS if part else STREAM_METRICS)
    now = int(clock.wall())
    path = f"/v2/p/streams/{stream}/partitions/{part}/metrics" if part else f"/v2/p/streams/{stream}/metrics"
    query = f"?label_list={labels}&start_time={now - back_s}&end_time={now + ahead_s}"
    answer = await caller.call("GET", path + query)
    assert answer.code == "", answer
    found = {}
    for metric in answer.told["metrics_list"]:
        times = [point["timestamp"] for point in metric["dataPoints"]]
        assert times == sorted(set(times))
        assert not any(time % MINUTE for time in times)
        found[metric["label"]] = {point["timestamp"]: point["value"] for point in metric["dataPoints"]}
    assert ",".join(found) == labels
    if part:
        assert answer.told["metrics"] == answer.told["metrics_list"][0]
    return found


async def totals(caller: Caller, stream: str = "s", **where: Any) -> dict[str, int]:
    """The sums, without what is zero and without latencies, under short names."""
    found = await told(caller, stream, **where)
    sums = {label: sum(points.values()) for label, points in found.items() if "latency" not in label}
    short = {label.removeprefix("total_").partition("_per_")[0]: value for label, value in sums.items() if value}
    return short


async def traffic(caller: Caller) -> None:
    """5 records of 15 bytes in 3 requests; 3 of them, 6 bytes, in partition 0. Read: 2 times partition 0, 1 time 1."""
    await caller.put("s", {"data": data(b"a"), "partition_id": "0"}, {"data": data(b"bb"), "partition_id": "0"})
    await caller.put("s", {"data": data(b"ccc"), "partition_id": "0"}, {"data": data(b"dddd"), "partition_id": "1"})
    await caller.put("s", {"data": data(b"eeeee"), "partition_id": "1"})
    for part in ("0", "0", "1"):
        await caller.get(await caller.cursor("s", part, cursor_type="TRIM_HORIZON"))


WHOLE = {
    "put_bytes": 15,
    "get_bytes": 21,
    "put_records": 5,
    "get_records": 8,
    "put_req_suc": 3,
    "get_req_suc": 3,
}
FIRST = {"put_bytes": 6, "get_bytes": 12, "put_records": 3, "get_records": 6}
SECOND = {"put_bytes": 9, "get_bytes": 9, "put_records": 2, "get_records": 2}


async def test_counts_are_the_traffic() -> None:
    """To the byte, of the stream and of each partition, in either spelling; stored or not makes no difference."""
    async with serving() as http:
        await http.create("s", 3)
        await http.create("quiet")
        await traffic(http)
        for _ in range(2):
            assert await totals(http) == WHOLE
            assert await totals(http, part="0") == FIRST
            assert await totals(http, part="shardId-0000000001") == SECOND
            assert await totals(http, part="2") == {}
            assert await totals(http, "quiet") == {}
            await http.server.app.metrics.flush()
        latency = (await told(http))["total_put_req_latency"]
        assert latency
        assert all(0 <= value < 10_000 for value in latency.values())


async def test_counts_outlive_the_server(tmp_path: Path) -> None:
    """A server that is closed stores all; the next one adds to it. What went with a stream does not come back."""
    for round_ in (1, 2):
        async with serving(data_dir=tmp_path) as http:
            if round_ == 1:
                await http.create("s", 2)
                await http.create("gone")
                await http.put("gone", {"data": ""})
                await http.call("DELETE", "/v2/p/streams/gone")
            await traffic(http)
            wanted = {**WHOLE, "put_bytes": 15 * round_, "put_records": 5 * round_, "get_req_suc": 3 * round_}
            found = await totals(http)
            assert {name: found[name] for name in ("put_bytes", "put_records", "get_req_suc")} == {
                name: wanted[name] for name in ("put_bytes", "put_records", "get_req_suc")
            }
    async with serving(data_dir=tmp_path) as http:
        found = await totals(http)
        assert (found["put_records"], found["put_req_suc"]) == (10, 6)
        await http.create("gone")
        assert await totals(http, "gone") == {}


async def test_what_fails_is_not_counted() -> None:
    """Refused requests are not; records beside refused ones are."""
    async with serving(max_record_bytes=100, max_pending_bytes=1_000_000) as http:
        await http.create("s")
        assert (await http.put("s", {"data": data(b"x" * 200)})).code
        assert (await http.put("s")).code
        assert (await http.put("s", {"data": "", "partition_id": "7"})).code
        assert (await http.get("nonsense")).code
        assert await totals(http) == {}
        await http.put("s", {"data": data(b"xy")})
        assert await totals(http) == {"put_bytes": 2, "put_records": 1, "put_req_suc": 1}


PERIOD = "PERIOD"  # becomes the last minute
PUT_BYTES, PART_BYTES = "total_put_bytes_per_stream", "total_put_bytes_per_partition"


@pytest.mark.parametrize(
    ("target", "code"),
    [
        (f"s/metrics?label={PUT_BYTES}&{PERIOD}", ""),
        (f"s/metrics?label={PUT_BYTES}&stream_name=s&{PERIOD}&", ""),
        (f"s/metrics?label=traffic_controll_put&{PERIOD}", ""),
        (f"s/metrics?label={PART_BYTES}&{PERIOD}", "DIS.4209"),
        (f"s/metrics?label_list={PUT_BYTES}%2Cx&{PERIOD}", "DIS.4209"),
        (f"s/metrics?{PERIOD}", "DIS.4209"),
        (f"s/metrics?label={PUT_BYTES}", "DIS.4203"),
        (f"s/metrics?label={PUT_BYTES}&start_time=1&end_time=2", "DIS.4204"),
        (f"none/metrics?label={PUT_BYTES}&{PERIOD}", "DIS.4301"),
        (f"s/partitions/0/metrics?label={PART_BYTES}&{PERIOD}", ""),
        (f"s/partitions/0/metrics?label={PUT_BYTES}&{PERIOD}", "DIS.4209"),
        (f"s/partitions/1/metrics?label={PART_BYTES}&{PERIOD}", "DIS.4302"),
        (f"s/partitions/x/metrics?label={PART_BYTES}&{PERIOD}", "DIS.4201"),
        (f"none/partitions/0/metrics?label={PART_BYTES}&{PERIOD}", "DIS.4301"),
    ],
)
async def test_requests(target: str, code: str) -> None:
    """What is wrong has its code; an answer to one label holds nothing else."""
    now = int(clock.wall())
    target = target.replace(PERIOD, f"start_time={now - 60}&end_time={now}")
    async with serving() as http:
        await http.create("s")
        answer = await http.call("GET", f"/v2/p/streams/{target}", b'{"ignored": true}')
        assert answer.code == code
        assert answer.status == (400 if code else 200)
        if not code:
            assert set(answer.told) == {"metrics"}
            assert set(answer.told["metrics"]) == {"dataPoints", "label"}


async def test_a_stream_is_also_named_by_its_id() -> None:
    """In the place of the name, or beside it."""
    async with serving() as http:
        await http.create("s")
        await http.put("s", {"data": data(b"xyz")})
        stream_id = (await http.describe("s"))["stream_id"]
        for name in (f"{stream_id}/metrics?", f"none/metrics?stream_id={stream_id}&"):
            now = int(clock.wall())
            answer = await http.call(
                "GET", f"/v2/p/streams/{name}label={PUT_BYTES}&start_time={now - 60}&end_time={now}"
            )
            assert sum(point["value"] for point in answer.told["metrics"]["dataPoints"]) == 3


# --- under simulated time ---------------------------------------------------------------------------------------------


class FaultyCatalog(MemoryCatalog):
    """Does what the test put into `before_store` and `after_store` around each transaction that stores counts."""

    before_store: Callable[[], Awaitable[object]] | None = None
    after_store: Callable[[], Awaitable[object]] | None = None

    async def transact(self, expect: Mapping[str, int], put: Mapping[str, bytes], delete: Collection[str] = ()) -> None:
        counts = any(key.startswith("traffic/") for key in put)
        if counts and self.before_store is not None:
            await self.before_store()
        await super().transact(expect, put, delete)
        if counts and self.after_store is not None:
            await self.after_store()


class Bench(AppCaller):
    def __init__(self, engine: MemoryEngine, catalog: FaultyCatalog, limits: dict[str, Any]) -> None:
        self.engine = engine
        self.catalog = catalog
        super().__init__(App(engine, ServerConfig(data_dir=None, **limits)))

    def restart(self) -> None:
        """As after a crash."""
        self.app = App(self.engine, ServerConfig(data_dir=None))

    async def documents(self) -> list[str]:
        return [key for key, _ in await self.catalog.scan("traffic/")]


def simulate(test: Callable[[Bench], Awaitable[None]], **limits: Any) -> None:
    async def main() -> None:
        engine = MemoryEngine()
        catalog = engine._catalog = FaultyCatalog(engine._life)
        await engine.start()
        await test(Bench(engine, catalog, limits))
        await engine.close()

    run_simulated(main)


def test_minutes_and_days() -> None:
    """Each minute has its point; stored once a minute, one document an hour; after seven days they are gone."""

    async def test(bench: Bench) -> None:
        await bench.create("s")
        sent: dict[int, int] = {}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.app.metrics.keep)
            for n in range(200):
                await bench.put("s", {"data": data(b"x" * n)})
                sent[int(clock.wall()) // MINUTE * MINUTE] = sent.get(int(clock.wall()) // MINUTE * MINUTE, 0) + n
                await anyio.sleep(47)
            assert (await told(bench, back_s=4 * HOUR))[PUT_BYTES] == sent
            assert len(await bench.documents()) == len({time // HOUR for time in sent})
            await anyio.sleep(7 * DAY - 2 * HOUR)
            left = (await told(bench, back_s=7 * DAY, ahead_s=0))[PUT_BYTES]
            assert left == {time: size for time, size in sent.items() if time > clock.wall() - 7 * DAY - MINUTE}
            assert 0 < len(left) < len(sent)
            await anyio.sleep(4 * HOUR)
            assert await bench.documents() == []
            assert bench.app.meter.streams() == set()
            tasks.cancel_scope.cancel()

    simulate(test)


def test_days_of_hours() -> None:
    """A period reaches over as many stored hours as it has, and not beyond; a sweep takes the old ones of all."""

    async def test(bench: Bench) -> None:
        await bench.create("s")
        await bench.create("t")
        for n in range(60):
            for name in ("s", "t"):
                await bench.put(name, {"data": data(b"x" * n)})
            await bench.app.metrics.flush()
            await anyio.sleep(HOUR)
        bench.restart()
        assert len((await told(bench, back_s=3 * DAY))[PUT_BYTES]) == 60
        assert [*(await told(bench, back_s=40 * HOUR, ahead_s=-10 * HOUR))[PUT_BYTES].values()] == [*range(20, 51)]
        await bench.app.metrics.sweep()
        assert len(await bench.documents()) == 120
        await anyio.sleep(7 * DAY - 10 * HOUR)
        await bench.app.metrics.sweep()
        # Ten hours are left, and those that a period may just reach.
        assert len(await bench.documents()) == 2 * 11
        await anyio.sleep(DAY)
        await bench.app.metrics.sweep()
        assert await bench.documents() == []

    simulate(test)


def test_a_crash_loses_the_last_minute() -> None:
    """What was counted since the last time is gone, nothing else."""

    async def test(bench: Bench) -> None:
        await bench.create("s")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.app.metrics.keep)
            await bench.put("s", {"data": data(b"kept")})
            await anyio.sleep(61)
            await bench.put("s", {"data": data(b"lost!")})
            tasks.cancel_scope.cancel()
        assert (await totals(bench))["put_bytes"] == 9
        bench.restart()
        assert (await totals(bench))["put_bytes"] == 4

    simulate(test)


def test_a_deleted_stream_has_no_counts() -> None:
    """Deleted at any moment of a flush: nothing of it is left, or comes back; the next of its name starts at zero."""

    async def test(bench: Bench) -> None:
        async def delete() -> None:
            bench.catalog.before_store = bench.catalog.after_store = None
            assert (await bench.call("DELETE", "/v2/p/streams/s")).status == 204
            assert await bench.documents() == []

        for moment in ("never stored", "stored", "before_store", "after_store"):
            await bench.create("s")
            await bench.put("s", {"data": data(b"x")})
            if moment.endswith("_store"):
                setattr(bench.catalog, moment, delete)
            if moment != "never stored":
                await bench.app.metrics.flush()
            if not moment.endswith("_store"):
                await delete()
            await bench.app.metrics.flush()
            assert await bench.documents() == []
            await bench.create("s")
            await bench.app.metrics.flush()
            assert await totals(bench) == {}
            await bench.call("DELETE", "/v2/p/streams/s")
        await anyio.sleep(16 * MINUTE)
        await bench.app.metrics.flush()
        assert bench.app.meter.streams() == set()

    simulate(test)


def test_flow_control_is_counted() -> None:
    """Each request that was refused something once; of an upload what was stored counts all the same."""

    async def test(bench: Bench) -> None:
        await bench.create("s")
        cursor = await bench.cursor("s", cursor_type="TRIM_HORIZON")
        assert (await bench.put("s", *[{"data": data(b"12345")}] * 3)).told["failed_record_count"] == 1
        assert (await bench.put("s", {"data": ""})).code == "DIS.4303"
        assert (await bench.get(cursor)).code == ""
        for _ in range(2):
            assert (await bench.get(cursor)).code == "DIS.4303"
        assert await totals(bench) == {
            "put_bytes": 10,
            "put_records": 2,
            "put_req_suc": 1,
            "get_bytes": 10,
            "get_records": 2,
            "get_req_suc": 1,
            "traffic_control_put": 2,
            "traffic_control_get": 2,
        }

    simulate(test, common_in_records_per_s=2, common_out_bytes_per_s=5)


def test_much_traffic_does_not_hold_up_others() -> None:
    """An answer about hours of a stream with many partitions lets others have their turn after every minute."""

    async def test(bench: Bench) -> None:
        await bench.create("s", 500)
        stream_id = (await bench.describe("s"))["stream_id"]
        hour = int(clock.wall()) // HOUR
        for ago in (0, 1):
            for minute in range(60):
                stored = {number: (1, 10) for number in range(500)}
                bench.app.meter.put(stream_id, stored, 0.0, 1000 * ((hour - ago) * HOUR + minute * MINUTE))
            await bench.app.metrics.flush()
        bench.restart()
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                await anyio.lowlevel.checkpoint()
                turns += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(others)
            found = await told(bench, back_s=3 * HOUR, ahead_s=HOUR)
            tasks.cancel_scope.cancel()
        assert [*found[PUT_BYTES].values()] == [5_000] * 120
        assert turns >= 120

    simulate(test)


def test_many_streams_do_not_hold_up_others() -> None:
    """What is stored is stored wherever its stream stands among many, and the search lets others have their turn."""

    async def test(bench: Bench) -> None:
        names = [f"s{number:03}" for number in range(450)]
        for name in names:
            await bench.create(name)
        for name in (names[0], names[-1]):
            await bench.put(name, {"data": data(b"x")})
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                await anyio.lowlevel.checkpoint()
                turns += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(others)
            await bench.app.metrics.flush()
            tasks.cancel_scope.cancel()
        assert turns >= 3
        bench.restart()
        for name in (names[0], names[-1]):
            assert (await totals(bench, name))["put_bytes"] == 1

    simulate(test)


def test_others_change_the_stream_meanwhile() -> None:
    """A transaction that meets a conflict is tried again, and counts once."""

    async def test(bench: Bench) -> None:
        await bench.create("s")
        stream_id = (await bench.describe("s"))["stream_id"]
        keys = iter("abc")

        async def change() -> None:
            if key := next(keys, None):
                tag = {"tag": {"key": key, "value": "v"}}
                assert (await bench.call("POST", f"/v2/p/stream/{stream_id}/tags", tag)).status == 204
                await bench.put("s", {"data": data(b"22")})

        bench.catalog.before_store = change
        await bench.put("s", {"data": data(b"1")})
        await bench.app.metrics.flush()
        assert (await totals(bench))["put_bytes"] == 7
        bench.restart()
        assert (await totals(bench))["put_bytes"] == 7

    simulate(test)


def test_an_answer_waits_for_what_is_being_stored() -> None:
    """Between the transaction and its end counts are here and there: whoever asks then is told them once."""

    async def test(bench: Bench) -> None:
        await bench.create("s")
        await bench.put("s", {"data": data(b"1")})
        found: list[dict[str, int]] = []

        async def ask() -> None:
            found.append(await totals(bench))

        async with anyio.create_task_group() as tasks:

            async def meanwhile() -> None:
                tasks.start_soon(ask)
                await anyio.sleep(1)
                assert found == []

            bench.catalog.after_store = meanwhile
            await bench.app.metrics.flush()
        assert found == [{"put_bytes": 1, "put_records": 1, "put_req_suc": 1}]

    simulate(test)


@pytest.mark.parametrize(
    ("moment", "error", "left"),
    [
        ("before_store", StorageError("disk full"), 1),
        ("before_store", OutcomeUnknown("sync failed"), 0),
        ("after_store", OutcomeUnknown("sync failed"), 1),
    ],
)
def test_storage_that_fails(moment: str, error: Exception, left: int, caplog: pytest.LogCaptureFixture) -> None:
    """Told in the log; what was certainly not stored is stored the next time, and nothing twice."""

    async def test(bench: Bench) -> None:
        async def fail() -> None:
            setattr(bench.catalog, moment, None)
            raise error

        await bench.create("s")
        await bench.put("s", {"data": data(b"x")})
        setattr(bench.catalog, moment, fail)
        await bench.app.metrics.flush()
        assert (await totals(bench)).get("put_bytes", 0) == left
        await bench.app.metrics.flush()
        bench.restart()
        assert (await totals(bench)).get("put_bytes", 0) == left

    simulate(test)
    assert caplog.text.count(str(error)) == 1


def test_cancelled_while_it_stores() -> None:
    """A flush that is cancelled leaves nothing in doubt: the transaction ends, and the next one has the rest."""

    async def test(bench: Bench) -> None:
        for name in ("a", "b"):
            await bench.create(name)
            await bench.put(name, {"data": data(b"x")})

        async with anyio.create_task_group() as tasks:

            async def cancel() -> None:
                tasks.cancel_scope.cancel()
                bench.catalog.before_store = None
                await anyio.sleep(1)

            bench.catalog.before_store = cancel
            tasks.start_soon(bench.app.metrics.flush)
        assert len(await bench.documents()) == 1
        await bench.app.metrics.flush()
        assert len(await bench.documents()) == 2
        bench.restart()
        assert [(await totals(bench, name))["put_bytes"] for name in ("a", "b")] == [1, 1]

    simulate(test)


def test_two_servers_count_on_one_catalog() -> None:
    """What another stored in the same hour since it was looked up is added to, not replaced."""

    async def test(bench: Bench) -> None:
        await bench.create("s")
        other = AppCaller(App(bench.engine, ServerConfig(data_dir=None)))

        async def meanwhile() -> None:
            bench.catalog.before_store = None
            await other.put("s", {"data": data(b"22")})
            await other.app.metrics.flush()

        await bench.put("s", {"data": data(b"1")})
        bench.catalog.before_store = meanwhile
        await bench.app.metrics.flush()
        assert (await totals(bench))["put_bytes"] == 3

    simulate(test)


def test_a_conflict_is_no_failure() -> None:
    """An engine may report any number of conflicts in a row."""

    async def test(bench: Bench) -> None:
        left = iter(range(20))

        async def conflict() -> None:
            if next(left, None) is not None:
                raise CatalogConflict("somebody else was faster")

        await bench.create("s")
        await bench.put("s", {"data": data(b"1")})
        bench.catalog.before_store = conflict
        await bench.app.metrics.flush()
        assert next(left, None) is None
        assert len(await bench.documents()) == 1

    simulate(test)


# --- the client -------------------------------------------------------------------------------------------------------


async def test_the_client() -> None:
    """Each label with its points: one or several labels, times of both kinds, a stream or a partition of it."""
    async with serving() as http, connect(http.server.url, project_id="p") as dis:
        await http.create("s", 2)
        await traffic(http)
        minute_ago = datetime.now(tz=UTC) - timedelta(minutes=1)
        for labels, start in ((STREAM_METRICS, minute_ago), (dis.metrics.STREAM_LABELS, minute_ago.timestamp())):
            found = await dis.metrics.stream("s", labels, start)
            assert tuple(found) == STREAM_METRICS
            assert sum(value for _, value in found[PUT_BYTES].points) == WHOLE["put_bytes"]
        one = await dis.metrics.stream("s", PUT_BYTES, minute_ago, minute_ago + timedelta(minutes=2))
        assert one == {PUT_BYTES: found[PUT_BYTES]}
        parts = await dis.metrics.partition("s", "0", dis.metrics.PARTITION_LABELS, minute_ago)
        assert {label: sum(value for _, value in metric.points) for label, metric in parts.items()} == dict(
            zip(PARTITION_METRICS, (FIRST["put_bytes"], FIRST["get_bytes"], 3, 6), strict=True)
        )
        assert list(await dis.metrics.stream("s", "traffic_controll_put", minute_ago)) == ["traffic_control_put"]
        for call, code in (
            (dis.metrics.stream("none", PUT_BYTES, minute_ago), "DIS.4301"),
            (dis.metrics.partition("s", "2", PART_BYTES, minute_ago), "DIS.4302"),
            (dis.metrics.stream("s", PART_BYTES, minute_ago), "DIS.4209"),
            (dis.metrics.stream("s", PUT_BYTES, minute_ago, 1), "DIS.4203"),
            (dis.metrics.stream("s", PUT_BYTES, 1), "DIS.4204"),
        ):
            with pytest.raises(ApiError) as caught:
                await call
            assert caught.value.code == code


def test_labels_that_lack_are_asked_for_alone() -> None:
    """A service that answers a list of labels with the first of them: the others follow, one by one."""

    async def main() -> None:
        def answer(label: str) -> dict[str, Any]:
            return {"metrics": {"label": label, "dataPoints": [{"timestamp": 60, "value": 1}]}}

        first, *others = PARTITION_METRICS
        script = Script(ok(answer(first)), *(ok(answer(label)) for label in others[:-1]), ok({}))
        async with client_on(script) as client:
            found = await client.metrics.partition("s", "0", PARTITION_METRICS, 60, 120)
        assert [len(found[label].points) for label in PARTITION_METRICS] == [1, 1, 1, 0]
        period = {"start_time": "60", "end_time": "120"}
        assert script.queries() == [
            {"label_list": ",".join(PARTITION_METRICS), **period},
            *({"label": label, **period} for label in others),
        ]

    run_simulated(main)


@pytest.mark.parametrize(
    ("labels", "start", "told"),
    [
        ([], 60, "names nothing"),
        ("", 60, "names nothing"),
        ([PUT_BYTES, ""], 60, "names nothing"),
        (PUT_BYTES, datetime(2026, 1, 1), "no time zone"),
        (PUT_BYTES, float("nan"), "no time in seconds"),
        (PUT_BYTES, -1, "no time in seconds"),
        (PUT_BYTES, 1_606_984_320_000, "no time in seconds"),
    ],
)
async def test_what_is_not_sent(labels: Any, start: Any, told: str) -> None:
    """Mistakes are named before anything is asked."""
    script = Script()
    async with client_on(script) as client:
        with pytest.raises(ConfigError, match=told):
            await client.metrics.stream("s", labels, start)
    assert script.asked == []
