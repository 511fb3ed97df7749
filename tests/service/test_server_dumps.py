"""Dump tasks over HTTP: kept, told, started and stopped as the API words it, though none of them runs."""

from __future__ import annotations

import json
import logging
import random
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from accounts import Signer, application
from app_server import Meddler
from dump_samples import PASSWORD, SAMPLES, Sample
from server_http import Answer, AppCaller, data, serving

import disstream.server.dumps as dumps_module
from disstream import clock, connect
from disstream.engine.memory import MemoryEngine
from disstream.server import App, ServerConfig
from disstream.server.documents import tasks_of
from disstream.server.dumping import MAX_BODY_BYTES, decode_task
from disstream.testing.network import AppTransport

OBS, DWS, OPENTSDB = SAMPLES["obs text"], SAMPLES["dws"], SAMPLES["opentsdb"]
TASKS = "/v2/p/streams/s/transfer-tasks"
each_sample = pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)


class DumpCaller(AppCaller):
    """Short names for what the tests of dump tasks do, on stream s of project p."""

    def __init__(self, engine: Meddler, **config: Any) -> None:
        self.engine = engine
        super().__init__(App(engine, ServerConfig(data_dir=None, port=0, **config), random.Random(1)))

    async def dump(self, name: str = "t", sample: Sample = OBS, **fields: Any) -> Answer:
        return await self.call("POST", TASKS, sample.with_fields(task_name=name, **fields))

    async def tasks(self) -> dict[str, Any]:
        """What is listed, by name."""
        answer = await self.call("GET", TASKS)
        assert (answer.status, answer.code) == (200, "")
        assert answer.told["total_number"] == len(answer.told["tasks"])
        return {task["task_name"]: task for task in answer.told["tasks"]}

    async def states(self) -> dict[str, str]:
        return {name: task["state"] for name, task in (await self.tasks()).items()}

    async def detail(self, name: str = "t") -> Any:
        answer = await self.call("GET", f"{TASKS}/{name}")
        assert (answer.status, answer.code) == (200, ""), answer
        return answer.told

    async def starts(self, name: str = "t") -> list[int | None]:
        return [partition.get("start_offset") for partition in (await self.detail(name))["partitions"]]

    async def change(self, action: str, *ids: str) -> Answer:
        return await self.call("POST", f"{TASKS}/action", {"action": action, "tasks": [{"id": i} for i in ids]})

    async def left(self) -> list[str]:
        """Every key that tells of a task."""
        return [key for key, _ in await self.engine.scan("task/")]


@asynccontextmanager
async def dumping(data_type: str = "JSON", partitions: int = 1, **config: Any) -> AsyncIterator[DumpCaller]:
    engine = Meddler(MemoryEngine())
    await engine.start()
    caller = DumpCaller(engine, **config)
    await caller.create("s", partitions, data_type=data_type)
    yield caller
    await engine.close()


@each_sample
@pytest.mark.parametrize("plural", ["streams", "stream"])
async def test_a_task_lives(sample: Sample, plural: str) -> None:
    """201 and 204 without a body, 200 with the documented ones, on both spellings of the path; gone afterwards."""
    name = sample.descriptor["task_name"]
    path = f"/v2/p/{plural}/s/transfer-tasks"
    async with serving() as http:
        await http.create("s", 2, data_type="JSON")
        before = clock.wall_ms()
        made = await http.call("POST", path + "/", sample.body)
        assert (made.status, made.body, made.code) == (201, b"", "")
        listed = await http.call("GET", path)
        assert (listed.status, listed.code) == (200, "")
        told = listed.told
        (task,) = told.pop("tasks")
        assert told == {"total_number": 1, "quota": 2_147_483_647}
        reason = task["state_reason"]
        assert "does not run dump tasks yet" in reason
        assert before <= task["create_time"] <= clock.wall_ms()
        assert len(task["task_id"]) == 19
        assert task == {
            "task_id": task["task_id"],
            "task_name": name,
            "destination_type": sample.kind,
            "state": "ABNORMAL",
            "state_reason": reason,
            "create_time": task["create_time"],
            "last_transfer_timestamp": 0,
        }
        shown = (await http.call("GET", f"{path}/{name}")).told
        stream_id = (await http.describe("s"))["stream_id"]
        partitions = shown.pop("partitions")
        descriptors = {key: shown.pop(key) for key in list(shown) if "_destination_" in key}
        assert shown == {**task, "stream_name": "s", "stream_id": stream_id}
        ends = ("descripton", "description") if sample.kind in ("DWS", "CLOUDTABLE") else ("description",)
        assert descriptors == {f"{sample.kind.lower()}_destination_{end}": sample.told for end in ends}
        assert partitions[1] == {
            "partitionId": "shardId-0000000001",
            "partition_id": "shardId-0000000001",
            "status": "ACTIVE",
            "hash_range": "[4611686018427387903 : 9223372036854775807]",
            "sequence_number_range": "[0 : 0]",
            "state": "ABNORMAL",
            "discard": 0,
            "last_transfer_timestamp": 0,
            "start_offset": 0,
        }
        gone = await http.call("DELETE", f"{path}/{name}")
        assert (gone.status, gone.body, gone.code) == (204, b"", "")
        assert (await http.call("GET", path)).told["tasks"] == []


@each_sample
async def test_our_client_creates_and_reads_it(sample: Sample) -> None:
    """What is described is what was created, but for the password."""
    async with dumping() as caller, connect(transport=AppTransport(caller.app), project_id="p") as dis:
        await dis.dumps.create("s", sample.destination)
        info = await dis.dumps.describe("s", sample.destination.task_name)
        assert repr(info.destination) == repr(sample.destination)
        assert info.destination == sample.destination or sample.kind == "DWS"
        assert (info.stream, info.state, info.last_transfer_timestamp) == ("s", "ABNORMAL", 0)
        (listed,) = await dis.dumps.list("s")
        assert (listed.name, listed.task_id, listed.state_reason) == (info.name, info.task_id, info.state_reason)
        await dis.dumps.stop("s", info.name)
        assert (await dis.dumps.describe("s", info.name)).state == "PAUSED"
        await dis.dumps.start("s", listed)
        assert (await dis.dumps.describe("s", info.name)).state == "ABNORMAL"
        await dis.dumps.delete("s", info.name)
        assert await dis.dumps.list("s") == []


async def test_start_and_stop() -> None:
    """ABNORMAL after start, PAUSED after stop, each with its reason; again changes nothing; ids may repeat."""
    async with dumping() as caller:
        for name in "abc":
            assert (await caller.dump(name)).code == ""
        tasks = await caller.tasks()
        assert list(tasks) == ["a", "b", "c"]
        a, b = tasks["a"]["task_id"], tasks["b"]["task_id"]
        stopped = await caller.change("stop", a, b, a)
        assert (stopped.status, stopped.body, stopped.code) == (200, b"", "")
        assert await caller.states() == {"a": "PAUSED", "b": "PAUSED", "c": "ABNORMAL"}
        told = await caller.detail("a")
        assert (told["state"], told["partitions"][0]["state"]) == ("PAUSED", "PAUSED")
        assert "stopped by request" in told["state_reason"]
        writes = await caller.engine.scan("task/")
        assert (await caller.change("stop", a)).status == 200
        assert await caller.engine.scan("task/") == writes
        assert (await caller.change("start", b)).status == 200
        assert await caller.states() == {"a": "PAUSED", "b": "ABNORMAL", "c": "ABNORMAL"}


async def test_all_or_nothing() -> None:
    """One unknown id, or that of another stream's task, and no task changes: DIS.4354 names it."""
    async with dumping() as caller:
        await caller.create("other")
        assert (await caller.call("POST", "/v2/p/streams/other/transfer-tasks", OBS.body)).code == ""
        (foreign,) = (await caller.call("GET", "/v2/p/streams/other/transfer-tasks")).told["tasks"]
        await caller.dump("a")
        known = (await caller.tasks())["a"]["task_id"]
        for unknown in ("As805BudhcH1lDs6gbn", foreign["task_id"], "", "a"):
            refused = await caller.change("stop", known, unknown)
            assert (refused.status, refused.code) == (400, "DIS.4354")
            assert f"[{unknown}]" in refused.told["message"]
        assert await caller.states() == {"a": "ABNORMAL"}


async def test_a_task_named_action() -> None:
    """Only a POST to .../action is the batch call."""
    async with dumping() as caller:
        assert (await caller.dump("action")).code == ""
        assert (await caller.detail("action"))["task_name"] == "action"
        assert (await caller.call("DELETE", f"{TASKS}/action")).status == 204
        assert await caller.left() == []


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("POST", "/none/transfer-tasks", OBS.body, "DIS.4301"),
        ("GET", "/none/transfer-tasks", None, "DIS.4301"),
        ("GET", "/none/transfer-tasks/t", None, "DIS.4301"),
        ("DELETE", "/none/transfer-tasks/t", None, "DIS.4301"),
        ("POST", "/none/transfer-tasks/action", {"action": "start", "tasks": [{"id": "x"}]}, "DIS.4301"),
        ("GET", "/s/transfer-tasks/none", None, "DIS.4354"),
        ("DELETE", "/s/transfer-tasks/none", None, "DIS.4354"),
        ("GET", f"/s/transfer-tasks/{'x' * 2_000}", None, "DIS.4354"),
        ("DELETE", "/s/transfer-tasks/a%2Fb", None, "DIS.4354"),
        ("POST", "/s/transfer-tasks", OBS.with_fields(task_name="t"), "DIS.4355"),
        ("POST", "/s/transfer-tasks", DWS.with_fields(task_name="t"), "DIS.4355"),
        ("POST", "/s/transfer-tasks", SAMPLES["obs parquet"].body, "DIS.4358"),
        ("POST", "/s/transfer-tasks", SAMPLES["hbase"].body, "DIS.4358"),
        ("POST", "/s/transfer-tasks", SAMPLES["opentsdb"].body, "DIS.4358"),
        ("POST", "/s/transfer-tasks", OBS.with_fields(agency_name=""), "DIS.4335"),
        ("POST", "/s/transfer-tasks", SAMPLES["hbase"].with_fields(cloudtable_schema={}), "DIS.4345"),
        ("POST", "/s/transfer-tasks", SAMPLES["opentsdb"].with_fields(opentsdb_schema=5), "DIS.4348"),
        ("POST", "/s/transfer-tasks", OBS.with_fields(obs_bucket_path="No"), "DIS.4200"),
        ("POST", "/s/transfer-tasks", b"", "DIS.4300"),
        ("POST", "/s/transfer-tasks/action", {"action": "run", "tasks": [{"id": "x"}]}, "DIS.4200"),
        ("POST", "/s/transfer-tasks/action", {"action": "start", "tasks": []}, "DIS.4200"),
        ("POST", "/s/transfer-tasks/action", b"{", "DIS.4300"),
    ],
)
async def test_refusals(method: str, path: str, body: Any, code: str) -> None:
    """Each documented code where it is documented, as a 400; nothing has changed then."""
    async with dumping("BLOB") as caller:
        await caller.dump("t")
        before = await caller.engine.scan("")
        answer = await caller.call(method, f"/v2/p/streams{path}", body)
        assert (answer.status, answer.code) == (400, code)
        assert len(answer.body) < 1_000
        assert await caller.engine.scan("") == before


async def test_names_are_of_one_stream() -> None:
    """Two streams may have tasks of one name; both are found by the stream's id too."""
    async with dumping() as caller:
        await caller.create("other")
        await caller.dump("t")
        other = (await caller.describe("other"))["stream_id"]
        path = f"/v2/p/streams/{other}/transfer-tasks"
        assert (await caller.call("POST", path, DWS.with_fields(task_name="t"))).status == 201
        assert (await caller.call("GET", f"{path}/t")).told["stream_name"] == "other"
        assert (await caller.detail())["destination_type"] == "OBS"


async def test_where_copying_begins() -> None:
    """LATEST: behind what was there at creation; TRIM_HORIZON: with the oldest. Later records do not move it."""
    async with dumping(partitions=2) as caller:
        record = {"data": data(b"x"), "partition_id": "0"}
        await caller.put("s", record, record, record)
        await caller.dump("latest", consumer_strategy=None)
        await caller.dump("all", consumer_strategy="TRIM_HORIZON")
        await caller.put("s", record)
        assert await caller.starts("latest") == [3, 0]
        assert await caller.starts("all") == [0, 0]
        shown = await caller.detail("latest")
        assert shown["partitions"][0]["sequence_number_range"] == "[0 : 4]"
        assert "last_transfer_offset" not in shown["partitions"][0]
        await caller.change("stop", shown["task_id"])
        await caller.change("start", shown["task_id"])
        assert await caller.starts("latest") == [3, 0]


async def test_the_quota() -> None:
    """At most so many tasks of one stream, told with the list: DIS.4357; a deleted one makes room."""
    async with dumping(max_dump_tasks=2) as caller:
        for name in ("a", "b"):
            assert (await caller.dump(name)).code == ""
        refused = await caller.dump("c")
        assert (refused.status, refused.code) == (400, "DIS.4357")
        assert (await caller.dump("a")).code == "DIS.4355"
        assert (await caller.call("GET", TASKS)).told["quota"] == 2
        await caller.create("other")
        assert (await caller.call("POST", "/v2/p/streams/other/transfer-tasks", OBS.body)).code == ""
        assert (await caller.call("DELETE", f"{TASKS}/a")).status == 204
        assert (await caller.dump("c")).code == ""


async def test_two_at_once_for_one_place() -> None:
    """Both count the same tasks; the second to be written sees the first, and is refused."""
    async with dumping(max_dump_tasks=2) as caller:
        await caller.dump("a")
        between: list[Answer] = []

        async def meanwhile() -> None:
            between.append(await caller.dump("b"))

        caller.engine.meanwhile = meanwhile
        refused = await caller.dump("c")
        assert [answer.code for answer in between] == [""]
        assert refused.code == "DIS.4357"
        assert list(await caller.tasks()) == ["a", "b"]


async def test_two_at_once_with_one_name() -> None:
    """One of them is made, the other is told that the name is taken."""
    async with dumping() as caller:
        between: list[Answer] = []

        async def meanwhile() -> None:
            between.append(await caller.dump("t", DWS))

        caller.engine.meanwhile = meanwhile
        assert (await caller.dump("t")).code == "DIS.4355"
        assert [answer.code for answer in between] == [""]
        assert (await caller.detail())["destination_type"] == "DWS"


async def test_many_at_once() -> None:
    """Sent together over sockets, as many are made as there is room for, each once."""
    async with serving(max_dump_tasks=3) as http:
        await http.create("s")
        answers: list[Answer] = []

        async def create(number: int) -> None:
            body = OBS.with_fields(task_name=f"t{number % 6}")
            answers.append(await http.call("POST", TASKS, body))

        async with anyio.create_task_group() as tasks:
            for number in range(12):
                tasks.start_soon(create, number)
        codes = [answer.code for answer in answers]
        assert codes.count("") == 3
        assert set(codes) <= {"", "DIS.4355", "DIS.4357"}
        assert (await http.call("GET", TASKS)).told["total_number"] == 3


async def test_the_stream_goes_meanwhile() -> None:
    """A task is not made on a stream that is deleted before it is written, and none is left over."""
    async with dumping() as caller:

        async def meanwhile() -> None:
            assert (await caller.call("DELETE", "/v2/p/streams/s")).status == 204

        caller.engine.meanwhile = meanwhile
        assert (await caller.dump("t")).code == "DIS.4301"
        assert await caller.left() == []


async def test_the_type_of_the_data_changes_meanwhile() -> None:
    """What suited the stream when it was looked at must suit it when the task is written."""
    async with dumping("JSON") as caller:

        async def meanwhile() -> None:
            await caller.call("DELETE", "/v2/p/streams/s")
            await caller.create("s", data_type="BLOB")

        caller.engine.meanwhile = meanwhile
        assert (await caller.dump("t", SAMPLES["hbase"])).code == "DIS.4358"
        assert await caller.left() == []


async def test_a_task_goes_meanwhile() -> None:
    """Starting or stopping it together with another changes neither; deleting it twice finds it once."""
    async with dumping() as caller:
        await caller.dump("a")
        await caller.dump("b")
        ids = [task["task_id"] for task in (await caller.tasks()).values()]

        async def meanwhile() -> None:
            assert (await caller.call("DELETE", f"{TASKS}/b")).status == 204

        caller.engine.meanwhile = meanwhile
        assert (await caller.change("stop", *ids)).code == "DIS.4354"
        assert await caller.states() == {"a": "ABNORMAL"}

        async def again() -> None:
            assert (await caller.call("DELETE", f"{TASKS}/a")).status == 204

        caller.engine.meanwhile = again
        assert (await caller.call("DELETE", f"{TASKS}/a")).code == "DIS.4354"


async def test_tasks_go_with_their_stream() -> None:
    """Nothing of them is left; a stream of the same name has none, and old ids reach nothing."""
    async with dumping() as caller:
        for name in "ab":
            await caller.dump(name)
        old = (await caller.tasks())["a"]["task_id"]
        assert (await caller.call("DELETE", "/v2/p/streams/s")).status == 204
        assert await caller.left() == []
        await caller.create("s")
        assert await caller.tasks() == {}
        assert (await caller.change("start", old)).code == "DIS.4354"


async def test_a_password_is_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    """Not in an answer, not in the catalog, not in the log, whether the task is made or refused; the reason says so."""
    caplog.set_level(logging.DEBUG)
    async with dumping() as caller:
        answers = [
            await caller.dump("t", DWS),
            await caller.dump("t", DWS),
            await caller.dump("u", DWS, user_password=[PASSWORD]),
            await caller.dump("u", DWS, dws_delimiter="/"),
            await caller.dump("u", DWS, user_name=None),
            await caller.call("GET", TASKS),
            await caller.call("GET", f"{TASKS}/t"),
        ]
        assert [answer.status for answer in answers] == [201, 400, 400, 400, 400, 200, 200]
        assert not [answer for answer in answers if PASSWORD.encode() in answer.body]
        assert not [key for key, stored in await caller.engine.scan("") if PASSWORD.encode() in stored.value]
        assert "user_password was not kept" in (await caller.tasks())["t"]["state_reason"]
        assert "user_password" not in (await caller.detail())["dws_destination_descripton"]
    assert caplog.records
    assert PASSWORD not in caplog.text


HUGE = b"x" * (MAX_BODY_BYTES // 2)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b" " * (MAX_BODY_BYTES + 1), 413),
        (json.dumps(OBS.body).encode().replace(b'"obsbucket"', b"[" * 500_000), 400),
        (json.dumps(OBS.body).encode().replace(b'"obsbucket"', b'{"a":' * 100_000 + b"1" + b"}" * 100_000), 400),
        (json.dumps(OBS.body).encode().replace(b'"obsbucket"', b"[" * 400 + b"]" * 400), 400),
        (json.dumps(OBS.body).encode().replace(b"obsbucket", HUGE), 400),
        (json.dumps(OBS.body).encode().replace(b"newtask", HUGE), 400),
        (json.dumps(DWS.body).encode().replace(b"userpassword", HUGE), 400),
        (json.dumps(DWS.body).encode().replace(b"dwscluster", HUGE), 400),
        (json.dumps(OBS.body).encode().replace(b'"OBS"', b'"' + HUGE + b'"'), 400),
        (json.dumps(OBS.body).encode().replace(b"30", b"9" * 4_000), 400),
        (json.dumps(OBS.body).encode().replace(b"30", b"9" * 400_000), 400),
        (json.dumps(OBS.body).encode().replace(b"30", b"1e400"), 400),
    ],
    ids=[
        "body",
        "open lists",
        "deep",
        "lists",
        "bucket",
        "name",
        "password",
        "cluster",
        "type",
        "digits",
        "more digits",
        "number",
    ],
)
async def test_hostile_bodies(body: bytes, status: int) -> None:
    """Refused with a short answer, and nothing is kept of them."""
    async with dumping() as caller:
        for path in (TASKS, f"{TASKS}/action"):
            answer = await caller.call("POST", path, body)
            assert answer.status in (status, 400)
            assert answer.code in ("DIS.4200", "DIS.4300")
            assert len(answer.body) < 1_000
        assert await caller.left() == []


async def test_what_a_stream_s_tasks_take_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where their number is not: DIS.4357 names the bytes."""
    async with dumping() as caller:
        await caller.dump("a")
        await caller.dump("b")
        ((_, stored), _) = await caller.engine.scan("task/")
        monkeypatch.setattr(dumps_module, "MAX_STREAM_BYTES", 2 * len(stored.value))
        assert (await caller.dump("c")).code == ""
        refused = await caller.dump("d")
        assert refused.code == "DIS.4357"
        assert "bytes" in refused.told["message"]


async def test_many_tasks_are_listed() -> None:
    """More than fit into one look at the catalog, ascending by name."""
    async with dumping() as caller:
        names = [f"t{number:02}" for number in range(40)]
        for name in reversed(names):
            assert (await caller.dump(name)).code == ""
        assert list(await caller.tasks()) == names


async def test_many_tasks_do_not_hold_up_others() -> None:
    """Whoever looks at all tasks of a stream lets others have their turn after a few."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with dumping() as caller:
        for number in range(64):
            assert (await caller.dump(f"t{number}")).code == ""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(others)
            assert len(await caller.tasks()) == 64
            tasks.cancel_scope.cancel()
    assert turns >= 3


async def test_large_descriptors_do_not_hold_up_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of fields are checked, and told again, in a thread; a usual task is not worth one."""
    threads: dict[str, int] = {}

    def noting(name: str) -> None:
        work = getattr(dumps_module, name)

        def noted(*args: Any, **kwargs: Any) -> Any:
            threads[name] = threading.get_ident()
            return work(*args, **kwargs)

        monkeypatch.setattr(dumps_module, name, noted)

    noting("wanted")
    noting("encode_detail")
    points = OPENTSDB.descriptor["opentsdb_schema"]
    async with dumping() as caller:
        for name, sample, fields, inline in (
            ("small", OBS, {}, True),
            ("large", OPENTSDB, {"opentsdb_schema": points * 1_000}, False),
        ):
            answer = await caller.dump(name, sample, **fields)
            assert (answer.status, answer.code) == (201, "")
            detail = await caller.detail(name)
            here = threading.get_ident()
            assert (threads["wanted"] == here, threads["encode_detail"] == here) == (inline, inline)
        assert len(detail["cloudtable_destination_description"]["opentsdb_schema"]) == 1_000 * len(points)
        assert (await caller.dump("bad", sample, opentsdb_schema=[*points * 1_000, {}])).code == "DIS.4348"


async def test_what_is_kept() -> None:
    """One document per task under its stream's id: what was asked for with its defaults, and where it begins."""
    async with dumping() as caller:
        await caller.dump("t")
        stream_id = (await caller.describe("s"))["stream_id"]
        ((key, stored),) = await caller.engine.scan("task/")
        assert key == f"{tasks_of(stream_id)}t"
        task = decode_task(stored.value)
        assert json.loads(bytes(task.destination))["deliver_time_interval"] == 30
        assert (task.name, task.starts) == ("t", {0: 0})


async def test_rights() -> None:
    """Whoever may only look gets no task made, changed or deleted; another account sees nothing."""
    async with application() as app:
        alice, reader, bob = (Signer(app, name) for name in ("alice", "reader", "bob"))
        await alice.create("s", project="a1")
        path = "/v2/a1/streams/s/transfer-tasks"
        assert (await alice.call("POST", path, OBS.body)).status == 201
        (task,) = (await reader.call("GET", path)).told["tasks"]
        assert (await reader.call("GET", f"{path}/newtask")).status == 200
        for method, tail, body in (
            ("POST", "", OBS.with_fields(task_name="u")),
            ("POST", "/action", {"action": "stop", "tasks": [{"id": task["task_id"]}]}),
            ("DELETE", "/newtask", None),
        ):
            refused = await reader.call(method, path + tail, body)
            assert (refused.status, refused.code) == (403, "DIS.4116")
        assert (await bob.call("GET", path)).status in (400, 403)
        assert (await bob.call("GET", "/v2/b1/streams/s/transfer-tasks")).code == "DIS.4301"
