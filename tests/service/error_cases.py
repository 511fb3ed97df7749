"""For each error code that the server gives: the request that provokes it, on a server made for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import anyio
import msgspec
from accounts import users
from dump_samples import SAMPLES
from server_http import AppCaller, data

from disstream import clock
from disstream.engine import AppendRefused, Entry, Replayed
from disstream.engine.memory import MemoryEngine, MemoryLog
from disstream.errors import StorageError
from disstream.server import App, ServerConfig
from disstream.server.retention import trim_expired
from disstream.wire.compression import compress
from disstream.wire.http import Request
from disstream.wire.signing import sdk_date

HOUR = 3_600.0
KIB = 1_024


class Ask(msgspec.Struct, frozen=True):
    """A request, as the client's calls make them."""

    operation: str
    params: dict[str, str] = {}
    query: dict[str, str] = {}
    body: Any = None
    headers: dict[str, str] = {}
    user: str = ""
    project: str = "p"


class TrippedLog(MemoryLog):
    """Does what the test put into `before_append` first."""

    before_append: Callable[[], Awaitable[None]] | None = None

    async def append(self, entries: Sequence[Entry], now_ms: int) -> list[int | AppendRefused | Replayed]:
        if self.before_append is not None:
            await self.before_append()
        return await super().append(entries, now_ms)


class Bench(AppCaller):
    """A server, and the task group of its test. Without users it has a stream `s` of two partitions with a record in
    the first, an app `a`, and a dump task on the stream.
    """

    def __init__(self, config: ServerConfig, tasks: anyio.abc.TaskGroup) -> None:
        self.engine = MemoryEngine()
        self.log = self.engine._log = TrippedLog(self.engine._life)
        self.tasks = tasks
        super().__init__(App(self.engine, config))

    async def furnish(self) -> None:
        await self.create("s", 2)
        await self.put("s", {"data": data(b"x"), "partition_id": "0"})
        await self.call("POST", "/v2/p/apps", {"app_name": "a"})
        await self.call("POST", "/v2/p/streams/s/transfer-tasks", SAMPLES["obs text"].body)

    async def ids(self) -> dict[str, str]:
        """Where the tags of `s` are."""
        return {"resource_type": "stream", "stream_id": (await self.describe("s"))["stream_id"]}

    async def join(self, member: str) -> None:
        body = {"groupId": "a", "clientId": member, "interestedStream": ["s"], "accelerateAssignEnabled": True}
        assert (await self.call("POST", "/v2/p/apps/a/consumers", body)).told["state"] == "OK"

    async def stable(self, member: str) -> int:
        """Alone in the group of `a`. Returns the generation."""
        await self.join(member)
        body = {"groupId": "a", "clientId": member, "generation": -1}
        told = (await self.call("POST", f"/v2/p/apps/a/consumers/{member}/partitions", body)).told
        assert told["state"] == "OK"
        return int(told["generation"])


Provoke = Callable[[Bench], Awaitable[Ask]]


class Case(NamedTuple):
    provoke: Provoke
    config: dict[str, Any]


CASES: dict[str, Case] = {}


def provokes(code: str, **config: Any) -> Callable[[Provoke], Provoke]:
    def register(provoke: Provoke) -> Provoke:
        CASES[code] = Case(provoke, config)
        return provoke

    return register


def plainly(code: str, operation: str, *, config: dict[str, Any] | None = None, **more: Any) -> None:
    """The furnished server needs no more than the request."""

    async def ask(bench: Bench) -> Ask:
        return Ask(operation, **more)

    CASES[code] = Case(ask, config or {})


STREAM, APP, TASK = {"stream_name": "s"}, {"app_name": "a"}, {"stream_name": "s", "task_name": "t"}
PERIOD = {"start_time": "1699999000", "end_time": "1700000000"}
LABEL = {"label": "total_put_bytes_per_stream"}
CURSOR = {"stream-name": "s", "partition-id": "0"}


def made(**fields: Any) -> dict[str, Any]:
    return {"stream_name": "n", "partition_count": 1, **fields}


def commit(**fields: Any) -> dict[str, Any]:
    return {"app_name": "a", "stream_name": "s", "partition_id": "0", "sequence_number": "1", **fields}


def tag(key: str) -> dict[str, Any]:
    return {"tag": {"key": key, "value": "v"}}


plainly("DIS.4200", "create_stream", body=made(partition_count=0))
plainly("DIS.4201", "get_cursor", query={**CURSOR, "partition-id": "x", "cursor-type": "LATEST"})
plainly("DIS.4202", "put_records", body={"stream_name": "s", "records": []})
plainly("DIS.4203", "stream_metrics", params=STREAM, query={**LABEL, "start_time": "2", "end_time": "1"})
plainly("DIS.4204", "stream_metrics", params=STREAM, query={**LABEL, **PERIOD, "start_time": "1699000000"})
plainly("DIS.4209", "stream_metrics", params=STREAM, query={**PERIOD, "label": "total_put_bytes_per_partition"})
plainly("DIS.4215", "get_cursor", query={**CURSOR, "cursor-type": "NEWEST"})
plainly("DIS.4216", "get_cursor", query={**CURSOR, "starting-sequence-number": "one"})
plainly("DIS.4217", "get_records", query={"partition-cursor": "bm9uZQ"})
plainly("DIS.4224", "get_cursor", query={**CURSOR, "starting-sequence-number": "2"})
plainly("DIS.4300", "put_records", body=b"{")
plainly("DIS.4301", "describe_stream", params={"stream_name": "none"})
plainly("DIS.4302", "get_cursor", query={**CURSOR, "partition-id": "2", "cursor-type": "LATEST"})
plainly(
    "DIS.4303",
    "put_records",
    body={"stream_name": "s", "records": [{"data": "", "partition_id": "0"}]},
    config={"common_in_records_per_s": 1},
)
plainly("DIS.4307", "create_stream", body=made(stream_name="s"))
plainly("DIS.4308", "create_stream", body=made(partition_count=2), config={"max_common_partitions": 3})
plainly("DIS.4329", "create_app", body={"app_name": "b"}, config={"max_apps": 1})
plainly("DIS.4330", "create_app", body={"app_name": "a"})
plainly("DIS.4332", "describe_app", params={"app_name": "none"})
plainly("DIS.4335", "create_dump_task", params=STREAM, body=SAMPLES["obs text"].without("agency_name"))
plainly(
    "DIS.4345", "create_dump_task", params=STREAM, body=SAMPLES["hbase"].with_fields(cloudtable_schema={"row_key": []})
)
plainly("DIS.4348", "create_dump_task", params=STREAM, body=SAMPLES["opentsdb"].with_fields(opentsdb_schema=[{}]))
plainly("DIS.4354", "describe_dump_task", params=TASK)
plainly("DIS.4355", "create_dump_task", params=STREAM, body=SAMPLES["obs text"].body)
plainly("DIS.4357", "create_dump_task", params=STREAM, body=SAMPLES["mrs"].body, config={"max_dump_tasks": 1})
plainly("DIS.4358", "create_dump_task", params=STREAM, body=SAMPLES["hbase"].body)
plainly("DIS.4360", "create_stream", body=made(data_schema="{"))
plainly("DIS.4375", "delete_checkpoint", query={"stream_name": "s", "app_name": "a"})
plainly("DIS.4601", "create_stream", body=made(tags=[{"key": "x"}, {"key": "y"}]), config={"max_tags": 1})
plainly("DIS.4602", "list_tags", params={"resource_type": "app"})
plainly("DIS.4603", "stream_tags", params={"resource_type": "stream", "stream_id": "none"})
plainly("DIS.4702", "commit_checkpoint", body=commit(client_id="stranger", generation_id=1))


@provokes("DIS.4604")
async def no_such_key(bench: Bench) -> Ask:
    return Ask("delete_tag", {**await bench.ids(), "key": "none"})


@provokes("DIS.4605")
async def no_such_action(bench: Bench) -> Ask:
    return Ask("change_tags", await bench.ids(), body={"action": "rename", "tags": []})


@provokes("DIS.4225")
async def five_minutes_later(bench: Bench) -> Ask:
    cursor = await bench.cursor("s", cursor_type="LATEST")
    await anyio.sleep(301)
    return Ask("get_records", query={"partition-cursor": cursor})


@provokes("DIS.4226")
async def expired_under_the_cursor(bench: Bench) -> Ask:
    await anyio.sleep(24 * HOUR - 60)
    cursor = await bench.cursor("s", cursor_type="TRIM_HORIZON")
    await anyio.sleep(120)
    await trim_expired(bench.engine, bench.app.directory, bench.app.scaling)
    return Ask("get_records", query={"partition-cursor": cursor})


@provokes("DIS.4319")
async def a_day_after_its_end(bench: Bench) -> Ask:
    answer = await bench.call("PUT", "/v2/p/streams/s", {"stream_name": "s", "target_partition_count": 1})
    assert answer.status == 200
    await anyio.sleep(24 * HOUR + 60)
    await trim_expired(bench.engine, bench.app.directory, bench.app.scaling)
    return Ask("get_cursor", query={**CURSOR, "partition-id": "1", "cursor-type": "LATEST"})


@provokes("DIS.4305", max_body_bytes=64 * KIB, max_buffered_bytes=64 * KIB)
async def while_another_body_is_handled(bench: Bench) -> Ask:
    waiting = anyio.Event()

    async def hang() -> None:
        waiting.set()
        await anyio.sleep_forever()

    bench.log.before_append = hang
    record = {"data": data(bytes(30 * KIB))}
    body, headers = compress(msgspec.json.encode({"stream_name": "s", "records": [record]}), "lz4")
    target = "/v2/p/records"
    bench.tasks.start_soon(bench.app.handle, Request(method="POST", target=target, headers=headers, body=body))
    await waiting.wait()
    return Ask("put_records", body=body, headers=headers)


@provokes("DIS.4309", max_failures_per_minute=1)
async def after_two_failures(bench: Bench) -> Ask:
    for _ in range(2):
        assert (await bench.call("GET", "/v2/p/streams/none")).code == "DIS.4301"
    return Ask("list_streams")


@provokes("DIS.4331")
async def while_a_member_reads(bench: Bench) -> Ask:
    await bench.stable("m")
    return Ask("delete_app", APP)


@provokes("DIS.4339", max_group_members=1)
async def a_member_too_many(bench: Bench) -> Ask:
    await bench.join("m")
    return Ask("group_join", APP, body={"groupId": "a", "clientId": "n", "interestedStream": ["s"]})


@provokes("DIS.4701")
async def joined_the_next_round(bench: Bench) -> Ask:
    generation = await bench.stable("m")
    body = {"groupId": "a", "clientId": "n", "interestedStream": ["s"]}
    assert (await bench.call("POST", "/v2/p/apps/a/consumers", body)).told["state"] == "OK"
    await bench.join("m")
    return Ask("commit_checkpoint", body=commit(client_id="m", generation_id=generation))


@provokes("DIS.4703")
async def of_an_old_generation(bench: Bench) -> Ask:
    generation = await bench.stable("m")
    return Ask("commit_checkpoint", body=commit(client_id="m", generation_id=generation - 1))


@provokes("DIS.5000")
async def a_disk_that_fails(bench: Bench) -> Ask:
    async def fail() -> None:
        raise StorageError("the disk is gone")

    bench.log.before_append = fail
    return Ask("put_records", body={"stream_name": "s", "records": [{"data": ""}]})


# --- signing in -------------------------------------------------------------------------------------------------------

A = "SDK-HMAC-SHA256 Access=AKalice, SignedHeaders=host;x-sdk-date, Signature=00"
B = "SDK-HMAC-SHA256 Credential=AKalice/{}/cn-north-1/dis/sdk_request, SignedHeaders=host;x-sdk-date, Signature=00"


def signed(code: str, authorization: str, date: str | None = None) -> None:
    """With users and a region, a request of these headers."""

    async def ask(bench: Bench) -> Ask:
        now = sdk_date(clock.wall())
        headers = {"authorization": authorization.format(now[:8]), "x-sdk-date": now if date is None else date}
        return Ask("list_streams", headers=headers, project="a1")

    CASES[code] = Case(ask, {"users": users(), "region": "cn-north-1"})


def with_users(code: str, operation: str, **more: Any) -> None:
    plainly(code, operation, config={"users": users()}, **{"project": "a1", **more})


signed("DIS.4102", "Bearer x")
signed("DIS.4103", A, "")
signed("DIS.4104", A, "yesterday")
signed("DIS.4105", A, "20000101T000000Z")
signed("DIS.4106", A.replace("AKalice", ""))
signed("DIS.4107", A.replace("AKalice", "AKnobody"))
signed("DIS.4108", B.replace("/dis/", "//"))
signed("DIS.4109", A.replace(", Signature=00", ""))
signed("DIS.4110", A.replace("Signature=00", "Signature="))
signed("DIS.4111", B.replace("cn-north-1", "cn-east-2"))
signed("DIS.4112", B)
with_users("DIS.4101", "list_streams")
with_users("DIS.4113", "list_streams", headers={"x-auth-token": ""})
with_users("DIS.4114", "list_streams", headers={"x-auth-token": "nobody's"})
with_users("DIS.4116", "create_stream", user="reader", body=made())
with_users("DIS.4117", "list_streams", user="bob")
