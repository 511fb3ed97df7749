"""Streams that change: their partitions by hand and by themselves, their settings; simulated time, the wire itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from server_http import AppCaller, data

from disstream import clock
from disstream.engine.memory import MemoryEngine
from disstream.errors import StorageError
from disstream.server import App, ServerConfig
from disstream.server.autoscaling import keep_scaling, scale_all
from disstream.server.config import SERVICE_LIMITS
from disstream.server.documents import layouts_of
from disstream.server.retention import keep_trimming
from disstream.server.scaling import MAX_BOUNDS, MAX_CHANGES
from disstream.testing.clock import run_simulated

HOUR = 3_600.0
OPEN = ServerConfig(data_dir=None)


class Bench(AppCaller):
    def __init__(self, config: ServerConfig) -> None:
        self.engine = MemoryEngine()
        super().__init__(App(self.engine, config))

    async def scale(self, target: object, name: str = "s", **body: Any) -> str:
        """The code of a refusal; "" for success."""
        body = {"stream_name": name, "target_partition_count": target, **body}
        return (await self.call("PUT", f"/v2/p/streams/{name}", body)).code

    async def update(self, **body: Any) -> str:
        answer = await self.call("PUT", "/v3/p/streams/s", {"stream_name": "s", **body})
        assert answer.code or (answer.status, answer.body) == (204, b"")
        return answer.code

    async def statuses(self) -> list[str]:
        return [p["status"] for p in (await self.describe("s"))["partitions"]]

    async def layouts(self) -> int:
        stream_id = (await self.describe("s"))["stream_id"]
        return len(await self.engine.catalog.scan(layouts_of(stream_id)))


def simulate(test: Callable[[Bench], Awaitable[None]], config: ServerConfig = OPEN) -> None:
    async def main() -> None:
        bench = Bench(config)
        await bench.engine.start()
        await test(bench)
        await bench.engine.close()

    run_simulated(main)


def test_up_and_down() -> None:
    """Answer, partitions, counts and history tell of each change; the same count again changes nothing."""

    async def test(bench: Bench) -> None:
        await bench.create("s", 2)
        answer = await bench.call("PUT", "/v2/p/streams/s/", {"stream_name": "s", "target_partition_count": 3})
        assert (answer.status, answer.told) == (
            200,
            {"stream_name": "s", "current_partition_count": 2, "target_partition_count": 3},
        )
        await anyio.sleep(5)
        assert await bench.scale(1) == ""
        assert await bench.scale(1) == ""
        told = await bench.describe("s")
        assert (told["writable_partition_count"], told["readable_partition_count"]) == (1, 3)
        assert [(p["partition_id"][-2:], p["status"], p["hash_range"]) for p in told["partitions"]] == [
            ("00", "ACTIVE", "[0 : 9223372036854775807]"),
            ("01", "DELETED", "[-1 : -1]"),
            ("02", "DELETED", "[-1 : -1]"),
        ]
        first, second = told["update_partition_counts"]
        assert {
            "src_partition_count": 2,
            "target_partition_count": 3,
            "result_code": 0,
            "auto_scale": False,
        }.items() <= (first.items())
        assert (second["src_partition_count"], second["target_partition_count"]) == (3, 1)
        assert second["create_timestamp"] - first["create_timestamp"] == 5_000
        assert told["last_modified_time"] == second["create_timestamp"]
        assert all(isinstance(value, int) for change in (first, second) for value in change.values())
        listed = (await bench.call("GET", "/v2/p/streams")).told["stream_info_list"][0]
        assert listed["partition_count"] == 1

    simulate(test)


def test_what_cannot_be_asked_for() -> None:
    """Bad counts, another stream's name in the body, unknown streams, more than there may be."""

    async def test(bench: Bench) -> None:
        await bench.create("s", 2)
        for target in (0, -1, "3", None, 1.5):
            assert await bench.scale(target) == "DIS.4200"
        assert await bench.scale(3, stream_name="t") == "DIS.4200"
        assert await bench.scale(3, name="t") == "DIS.4301"
        assert await bench.scale(1_001) == "DIS.4308"
        assert await bench.scale(2**31) == "DIS.4200"
        told = await bench.describe("s")
        # Only what could have been carried out counts as tried.
        assert [(c["target_partition_count"], c["result_code"]) for c in told["update_partition_counts"]] == [
            (1_001, 4308)
        ]
        stream_id = told["stream_id"]
        body = {"stream_name": stream_id, "target_partition_count": 3}
        assert (await bench.call("PUT", f"/v2/p/streams/{stream_id}", body)).code == ""

    simulate(test)


def test_a_deleted_partition_is_read_and_not_written() -> None:
    """Cursors and downloads go on; uploads to it by id are refused; its hash keys are others' now."""

    async def test(bench: Bench) -> None:
        await bench.create("s", 2)
        await bench.put("s", {"data": data(b"x"), "partition_id": "1"})
        cursor = await bench.cursor("s", "1", cursor_type="TRIM_HORIZON")
        assert await bench.scale(1) == ""
        assert len((await bench.get(cursor)).told["records"]) == 1
        assert len(await bench.read("s", "1")) == 1
        assert await bench.position("s", "1", cursor_type="LATEST") == 1
        assert (await bench.put("s", {"data": "", "partition_id": "1"})).code == "DIS.4319"
        answer = await bench.put("s", {"data": "", "explicit_hash_key": "9223372036854775807"})
        assert answer.told["records"][0]["partition_id"] == "shardId-0000000000"
        assert await bench.scale(2) == ""
        answer = await bench.put("s", {"data": "", "partition_id": "1"})
        assert answer.told["records"][0]["sequence_number"] == "1"  # it goes on where it was

    simulate(test)


def test_expiry_of_a_deleted_partition() -> None:
    """A day after, its records gone, it is EXPIRED: shown without a range, refused as documented, and revived later."""

    async def test(bench: Bench) -> None:
        await bench.create("s", 3)
        await bench.put("s", {"data": "", "partition_id": "2"})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_trimming, bench.engine, bench.app.directory, bench.app.scaling, 60.0)
            await anyio.sleep(HOUR)
            assert await bench.scale(1) == ""
            cursor = await bench.cursor("s", "2", cursor_type="LATEST")
            await anyio.sleep(24 * HOUR - 10)
            assert await bench.statuses() == ["ACTIVE", "DELETED", "DELETED"]
            await anyio.sleep(80)
            assert await bench.statuses() == ["ACTIVE", "EXPIRED", "EXPIRED"]
            tasks.cancel_scope.cancel()
        told = await bench.describe("s")
        assert (told["writable_partition_count"], told["readable_partition_count"]) == (1, 1)
        assert "sequence_number_range" not in told["partitions"][2]
        assert (await bench.ask_cursor("s", "2", cursor_type="TRIM_HORIZON")).code == "DIS.4319"
        assert (await bench.get(cursor)).code == "DIS.4225"  # five minutes come first
        assert (await bench.put("s", {"data": "", "partition_id": "2"})).code == "DIS.4319"
        assert await bench.layouts() == 0
        assert await bench.scale(3) == ""
        answer = await bench.put("s", {"data": "", "partition_id": "2"})
        assert answer.told["records"][0]["sequence_number"] == "1"

    simulate(test)


def test_a_cursor_into_a_partition_that_expires() -> None:
    """A cursor still young when its partition expires is refused with the partition's code."""

    async def test(bench: Bench) -> None:
        await bench.create("s", 2)
        assert await bench.scale(1) == ""
        await anyio.sleep(24 * HOUR - 10)
        cursor = await bench.cursor("s", "1", cursor_type="LATEST")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_trimming, bench.engine, bench.app.directory, bench.app.scaling, 60.0)
            await anyio.sleep(100)
            tasks.cancel_scope.cancel()
        assert (await bench.get(cursor)).code == "DIS.4319"

    simulate(test)


def test_bounds_are_told_while_they_matter() -> None:
    """Readers are told where layouts meet, until no record before it is left; the answers say that they can be."""

    async def test(bench: Bench) -> None:
        await bench.create("s", 1)
        await bench.put("s", {"data": ""}, {"data": ""})
        assert await bench.scale(2) == ""
        answer = await bench.call("GET", "/v2/p/streams/s")
        assert (
            answer.headers["x-disstream"]
            == "bounds, caps, columns, layouts, pages, places, push, resets, retention, sessions, wait"
        )
        assert [p.get("bounds") for p in answer.told["partitions"]] == [
            [{"change": 1, "sequence_number": "2"}],
            [{"change": 1, "sequence_number": "0"}],
        ]
        # Nothing was written in between: the next change says it all.
        assert await bench.scale(3) == ""
        told = await bench.describe("s")
        assert [p.get("bounds") for p in told["partitions"]] == [
            [{"change": 2, "sequence_number": "2"}],
            [{"change": 2, "sequence_number": "0"}],
            [{"change": 2, "sequence_number": "0"}],
        ]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_trimming, bench.engine, bench.app.directory, bench.app.scaling, 60.0)
            await anyio.sleep(24 * HOUR + 100)
            tasks.cancel_scope.cancel()
        assert all("bounds" not in p for p in (await bench.describe("s"))["partitions"])
        assert await bench.layouts() == 0

    simulate(test)


def test_changes_that_readers_must_know_are_bounded() -> None:
    """With records before a hundred changes still readable there are no more, until they expire."""

    async def test(bench: Bench) -> None:
        await bench.create("s", 1)
        for n in range(MAX_CHANGES):
            await bench.put("s", {"data": ""})
            assert await bench.scale(2 - n % 2) == ""
        await bench.put("s", {"data": ""})
        assert await bench.scale(3) == "DIS.4308"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_trimming, bench.engine, bench.app.directory, bench.app.scaling, 60.0)
            await anyio.sleep(24 * HOUR + 100)
            tasks.cancel_scope.cancel()
        assert await bench.scale(3) == ""

    simulate(test)


def test_changes_of_many_partitions_are_bounded_earlier() -> None:
    """What is told of them stays short: with a thousand partitions there are twenty changes, and always one."""

    async def test(bench: Bench) -> None:
        await bench.create("s", 1_000)
        for n in range(20):
            records = ({"data": "", "explicit_hash_key": str(part * (2**63 // 1_000) + 1)} for part in range(1_000))
            await bench.put("s", *records)
            assert await bench.scale(999 + n % 2) == ""
        assert await bench.scale(998) == "DIS.4308"
        told = await bench.describe("s", query="?limit_partitions=1000")
        assert sum(len(p["bounds"]) for p in told["partitions"]) <= MAX_BOUNDS
        await bench.create("wide", MAX_BOUNDS + 1)
        assert await bench.scale(1, "wide") == ""

    simulate(test, ServerConfig(data_dir=None, max_partitions=2 * MAX_BOUNDS))


def test_the_limits_of_the_service() -> None:
    """None within an hour of a success, five tries in an hour; a partition too many is a try, and told as one."""

    async def test(bench: Bench) -> None:
        await bench.create("s", 2)
        assert await bench.scale(3) == ""
        assert await bench.scale(4) == "DIS.4200"
        await anyio.sleep(HOUR - 1)
        answer = await bench.call("PUT", "/v2/p/streams/s", {"stream_name": "s", "target_partition_count": 4})
        assert "try again in 1 s" in answer.told["error_msg"]
        await anyio.sleep(1)
        for _ in range(5):
            assert await bench.scale(51) == "DIS.4308"
            await anyio.sleep(60)
        assert await bench.scale(4) == "DIS.4200"
        await anyio.sleep(HOUR - 300)
        assert await bench.scale(4) == ""
        codes = [c["result_code"] for c in (await bench.describe("s"))["update_partition_counts"]]
        assert codes == [0, 4308, 4308, 4308, 4308, 4308, 0]

    limits: Any = SERVICE_LIMITS
    simulate(test, ServerConfig(data_dir=None, **limits))


def test_who_waited_sees_what_came_before() -> None:
    """Changes asked for at once count one after another: for the pause, for the quota and for what is answered."""

    async def test(bench: Bench) -> None:
        await bench.create("s", 4)
        codes: dict[int, str] = {}

        async def scale(target: int) -> None:
            codes[target] = await bench.scale(target)

        async with (
            anyio.create_task_group() as tasks,
            bench.app.directory.turn((await bench.describe("s"))["stream_id"]),
        ):
            for target in (1, 6):
                tasks.start_soon(scale, target)
                await anyio.wait_all_tasks_blocked()
        assert codes == {1: "", 6: "DIS.4200"}
        (only,) = (await bench.describe("s"))["update_partition_counts"]
        assert only["target_partition_count"] == 1

    limits: Any = SERVICE_LIMITS
    simulate(test, ServerConfig(data_dir=None, **limits))


def test_the_quota_of_the_project() -> None:
    """All streams of a type share it, and what is asked for at once cannot take the same partitions twice."""

    async def test(bench: Bench) -> None:
        await bench.create("s", 2)
        await bench.create("t", 2)
        await bench.create("advanced", 3, stream_type="ADVANCED")
        codes: list[str] = []

        async def scale(name: str) -> None:
            codes.append(await bench.scale(4, name))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(scale, "s")
            tasks.start_soon(scale, "t")
        assert sorted(codes) == ["", "DIS.4308"]
        counts = [s["partition_count"] for s in (await bench.call("GET", "/v2/p/streams")).told["stream_info_list"]]
        assert sorted(counts) == [2, 3, 4]
        assert await bench.scale(1) == ""
        assert await bench.scale(4, "t") == ""

    simulate(test, ServerConfig(data_dir=None, max_common_partitions=6))


def test_updates() -> None:
    """What is named changes and is shown, over both paths; what is wrong is refused and changes nothing."""

    async def test(bench: Bench) -> None:
        await bench.create("s", 2, data_type="JSON", data_schema='"int"')
        before = await bench.describe("s")
        await anyio.sleep(1)
        assert await bench.update(data_duration=48) == ""
        after = await bench.describe("s")
        assert after["retention_period"] == 48
        assert after["last_modified_time"] == before["last_modified_time"] + 1_000
        assert (
            await bench.update(
                data_schema='"string"',
                auto_scale_enabled=True,
                auto_scale_min_partition_count=1,
                auto_scale_max_partition_count=4,
            )
            == ""
        )
        told = await bench.describe("s")
        assert (told["retention_period"], told["data_type"], told["data_schema"]) == (48, "JSON", '"string"')
        scale = [told[f"auto_scale_{key}"] for key in ("enabled", "min_partition_count", "max_partition_count")]
        assert scale == [True, 1, 4]
        listed = (await bench.call("GET", "/v2/p/streams")).told["stream_info_list"][0]
        assert listed["auto_scale_max_partition_count"] == 4
        answer = await bench.call("PUT", "/v2/p/streams/s/update/", {"stream_name": "s", "data_type": "BLOB"})
        assert (answer.status, answer.told) == (200, {"stream_name": "s", "target_data_type": "BLOB"})
        for body, code in (
            ({"data_duration": 5}, "DIS.4200"),
            ({"data_schema": "{}"}, "DIS.4360"),
            ({"stream_name": "t"}, "DIS.4200"),
            ({"auto_scale_enabled": "true"}, "DIS.4200"),
        ):
            assert await bench.update(**{"data_type": "CSV", **body}) == code
        assert (await bench.describe("s"))["data_type"] == "BLOB"
        assert (await bench.call("PUT", "/v3/p/streams/t", {"stream_name": "t"})).code == "DIS.4301"
        assert (await bench.call("PUT", "/v3/p/streams/s", b"{")).code == "DIS.4300"

    simulate(test)


def test_a_shorter_retention_counts_for_what_is_stored() -> None:
    """Records older than the new retention go with the next round."""

    async def test(bench: Bench) -> None:
        await bench.create("s", data_duration=72)
        await bench.put("s", {"data": ""})
        await anyio.sleep(30 * HOUR)
        assert await bench.update(data_duration=24) == ""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_trimming, bench.engine, bench.app.directory, bench.app.scaling, 60.0)
            await anyio.sleep(1)
            tasks.cancel_scope.cancel()
        assert await bench.ranges("s") == ["[1 : 1]"]

    simulate(test)


async def load(bench: Bench, per_second: int, seconds: int) -> None:
    for _ in range(seconds):
        await bench.put("s", *({"data": "", "partition_key": str(n)} for n in range(per_second)))
        await anyio.sleep(1)


@pytest.mark.parametrize("profile", ["open", "service"])
def test_a_stream_scales_itself(profile: str) -> None:
    """Measured traffic drives it up, silence down, both within its bounds, and the history says that it did it."""
    limits: Any = SERVICE_LIMITS if profile == "service" else {}

    async def test(bench: Bench) -> None:
        bounds: Any = {"auto_scale_min_partition_count": 1, "auto_scale_max_partition_count": 3}
        await bench.create("s", 1, auto_scale_enabled=True, **bounds)
        await bench.create("still", 1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_scaling, bench.app.directory, bench.app.scaling, bench.app.meter)
            await load(bench, 900, 200)
            assert (await bench.describe("s"))["writable_partition_count"] == 2
            await anyio.sleep(11 * 60 if profile == "open" else HOUR + 60)
            told = await bench.describe("s")
            assert told["writable_partition_count"] == 1
            assert [c["auto_scale"] for c in told["update_partition_counts"]] == [True, True]
            assert (await bench.describe("still"))["update_partition_counts"] == []
            tasks.cancel_scope.cancel()

    simulate(test, ServerConfig(data_dir=None, **limits))


def test_who_is_throttled_gets_more() -> None:
    """Clients that back off when they are refused leave a part of the bandwidth unused: it counts as full earlier."""

    async def test(bench: Bench) -> None:
        bounds: Any = {"auto_scale_min_partition_count": 1, "auto_scale_max_partition_count": 3}
        await bench.create("s", 1, auto_scale_enabled=True, **bounds)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_scaling, bench.app.directory, bench.app.scaling, bench.app.meter)
            records = [{"data": "", "partition_key": str(n)} for n in range(1_500)]
            for _ in range(130):
                assert (await bench.put("s", *records)).told["failed_record_count"] > 0
                await anyio.sleep(1.5)
                if (await bench.describe("s"))["writable_partition_count"] == 2:
                    break
            else:
                raise AssertionError("it has not grown")
            tasks.cancel_scope.cancel()

    limits: Any = SERVICE_LIMITS
    simulate(test, ServerConfig(data_dir=None, **limits))


def test_a_stream_below_its_minimum() -> None:
    """The documents' own example begins with one partition and a minimum of two."""

    async def test(bench: Bench) -> None:
        bounds: Any = {"auto_scale_min_partition_count": 2, "auto_scale_max_partition_count": 10}
        await bench.create("s", 1, auto_scale_enabled=True, **bounds)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_scaling, bench.app.directory, bench.app.scaling, bench.app.meter)
            await anyio.sleep(61)
            assert (await bench.describe("s"))["writable_partition_count"] == 2
            tasks.cancel_scope.cancel()

    simulate(test)


def test_a_clock_that_was_ahead() -> None:
    """What was written down of a year to come stops no scaling, by hand or by itself, once the clock is right."""

    async def test(bench: Bench) -> None:
        bounds: Any = {"auto_scale_min_partition_count": 1, "auto_scale_max_partition_count": 4}
        right = clock.replace_wall(lambda: right() + 365 * 24 * HOUR)
        await bench.create("s", 1, auto_scale_enabled=True, **bounds)
        assert await bench.scale(2) == ""
        await load(bench, 1, 61)
        clock.replace_wall(right)
        assert await bench.scale(1) == ""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_scaling, bench.app.directory, bench.app.scaling, bench.app.meter)
            await anyio.sleep(HOUR)
            await load(bench, 900, 200)
            tasks.cancel_scope.cancel()
        assert (await bench.describe("s"))["writable_partition_count"] == 2

    limits: Any = SERVICE_LIMITS
    simulate(test, ServerConfig(data_dir=None, **limits))


def test_what_was_left_half_way_is_finished_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change whose engine failed before the fence is met by no put: whoever scales by itself finishes it."""

    async def test(bench: Bench) -> None:
        await bench.create("s", 2)
        with monkeypatch.context() as patch:

            async def full(partitions: object) -> None:
                raise StorageError("the disk is full")

            patch.setattr(bench.engine.log, "open", full)
            assert await bench.scale(3) == "DIS.5000"
        assert (await bench.put("s", {"data": ""})).code == ""
        assert (await bench.describe("s"))["writable_partition_count"] == 2
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_scaling, bench.app.directory, bench.app.scaling, bench.app.meter)
            await anyio.sleep(61)
            tasks.cancel_scope.cancel()
        assert (await bench.describe("s"))["writable_partition_count"] == 3

    simulate(test)


@pytest.mark.parametrize("off", [False, True])
def test_automatic_scaling_yields(off: bool) -> None:
    """What a user asked for while it waited for its turn, by hand or by switching it off, is not undone by it."""

    async def test(bench: Bench) -> None:
        bounds: Any = {"auto_scale_min_partition_count": 4, "auto_scale_max_partition_count": 8}
        await bench.create("s", 2, auto_scale_enabled=True, **bounds)
        stream_id = (await bench.describe("s"))["stream_id"]
        async with anyio.create_task_group() as tasks:
            async with bench.app.directory.turn(stream_id):
                if not off:
                    tasks.start_soon(bench.scale, 6)
                    await anyio.wait_all_tasks_blocked()
                tasks.start_soon(scale_all, bench.app.directory, bench.app.scaling, bench.app.meter)
                await anyio.wait_all_tasks_blocked()
                if off:
                    assert await bench.update(auto_scale_enabled=False) == ""
        assert (await bench.describe("s"))["writable_partition_count"] == (2 if off else 6)

    simulate(test)
