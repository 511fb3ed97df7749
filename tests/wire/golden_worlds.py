"""For each golden pair: what must be there before a server gets its request.

A world tells which id or cursor of its own stands for the example's: they change places on the way in and out.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any

from dump_samples import SAMPLES
from golden_cases import CURSOR, PAYLOAD, STREAM_ID, T0

from disstream import clock
from disstream.server import App
from disstream.wire.http import Request


class World:
    def __init__(self, app: App) -> None:
        self.app = app
        self._stands_for: dict[str, str] = {}
        """Ours -> the example's."""

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        data = b"" if body is None else json.dumps(body).encode()
        answer = await self.app.handle(Request(method=method, target=f"/v2/p{path}", body=data))
        assert answer.status < 300, answer.body
        return json.loads(answer.body) if answer.body else None

    def at(self, time_s: float) -> None:
        """Wall time stands there; the simulation sets it free."""
        clock.replace_wall(lambda: time_s)

    def means(self, ours: str, examples: str) -> None:
        self._stands_for[ours] = examples

    def real(self, text: str) -> str:
        for ours, examples in self._stands_for.items():
            text = text.replace(examples, ours)
        return text

    def printed(self, text: str) -> str:
        for ours, examples in self._stands_for.items():
            text = text.replace(ours, examples)
        return text

    async def stream(self, name: str = "newstream", partitions: int = 1, **fields: Any) -> str:
        """Returns its id."""
        await self.call("POST", "/streams", {"stream_name": name, "partition_count": partitions, **fields})
        return str((await self.call("GET", f"/streams/{name}"))["stream_id"])

    async def put(self, *records: dict[str, Any]) -> None:
        await self.call("POST", "/records", {"stream_name": "newstream", "records": records})

    async def make_app(self, name: str) -> None:
        await self.call("POST", "/apps", {"app_name": name})

    async def commit(self, app: str, partition: str, number: int) -> None:
        body = {"app_name": app, "stream_name": "newstream", "partition_id": partition}
        await self.call("POST", "/checkpoints", {**body, "sequence_number": str(number)})


async def nothing(world: World) -> None:
    pass


async def region(world: World) -> None:
    """Without users every project is there, and all have the same domain."""
    answer = await world.app.handle(Request(method="GET", target="/v3/projects?name=any"))
    world.means(json.loads(answer.body)["projects"][0]["domain_id"], "65382450e8f64ac0870cd180d14e684b")
    world.means("http://www.example.com", "https://www.example.com")


def streams(*names: str, partitions: int = 1, examples_id: str = STREAM_ID, **fields: Any) -> Callable[[World], Any]:
    async def make(world: World) -> None:
        world.at(1593569685.875)
        for name in names:
            world.means(await world.stream(name, partitions, **fields), examples_id)

    return make


async def modified(world: World) -> None:
    await streams("newstream")(world)
    world.at(1599050091.026)
    await world.call("PUT", "/streams/newstream/update", {"data_duration": 24})


async def modified_as_printed(world: World) -> None:
    await streams("newstream", examples_id="8QM3Nt9YTLwtUVYJhO")(world)
    world.at(1599050091.026)
    await world.call("PUT", "/streams/newstream/update", {"data_duration": 24})


async def shared(world: World) -> None:
    stream_id = await world.stream()
    world.means(stream_id, "CiFdELMr0401K9GGZlp")
    rule = {"principal_name": "another.user", "action_type": "putRecords", "effect": "accept"}
    await world.call("POST", "/streams/newstream/policies", {"stream_id": stream_id, **rule})


def apps(name: str, *, committed: bool = False) -> Callable[[World], Any]:
    async def make(world: World) -> None:
        world.at(1593569685.875)
        await world.make_app(name)
        world.means((await world.call("GET", f"/apps/{name}"))["app_id"], "bd6IPpvgiIflQPMpi9M")
        if committed:
            await world.stream()
            await world.commit(name, "0", 0)

    return make


async def unread(world: World) -> None:
    await world.stream("disMonitorTest")
    await world.make_app("4aSiZ")


def written(records: int, *, committed: int | None = None) -> Callable[[World], Any]:
    async def make(world: World) -> None:
        await world.stream()
        await world.make_app("newapp")
        if records:
            await world.put(*[{"data": ""}] * records)
        if committed is not None:
            await world.commit("newapp", "0", committed)

    return make


async def read_in_part(world: World) -> None:
    await world.stream(partitions=3)
    await world.make_app("newapp")
    await world.put(*[{"data": "", "partition_id": "2"}] * 1000)
    await world.commit("newapp", "2", 485)


def record(**how: str) -> Callable[[World], Any]:
    """The example's record is the 486th."""

    async def make(world: World) -> None:
        world.at(1527577402.541)
        await written(485)(world)
        await world.put({"data": b64encode(PAYLOAD).decode(), **how})
        query = "stream-name=newstream&partition-id=0&starting-sequence-number=485"
        world.means((await world.call("GET", f"/cursors?{query}"))["partition_cursor"], CURSOR)

    return make


def tasks(sample: str = "obs text", *, task_id: str = "As805BudhcH1lDs6gbn", **fields: Any) -> Callable[[World], Any]:
    async def make(world: World) -> None:
        world.at(1606554932.552)
        world.means(await world.stream(), "RdMFID6edQdf8eDzc9e")
        await world.call("POST", "/streams/newstream/transfer-tasks", SAMPLES[sample].with_fields(**fields))
        (task,) = (await world.call("GET", "/streams/newstream/transfer-tasks"))["tasks"]
        world.means(task["task_id"], task_id)

    return make


def described(delimiter: str) -> Callable[[World], Any]:
    return tasks(partition_format="yyyy/MM/dd", deliver_time_interval=60, record_delimiter=delimiter)


async def traffic(world: World) -> None:
    await world.stream(partitions=2)
    world.at(T0 + 10)
    await world.put(*[{"data": b64encode(b"x" * 512).decode(), "partition_id": str(i)} for i in range(2)])
    world.at(T0 + 70)
    await world.put({"data": b64encode(b"x" * 2048).decode()})


def tagged(**tags: str) -> Callable[[World], Any]:
    return streams("newstream", tags=[{"key": key, "value": value} for key, value in tags.items()])


async def tagged_alike(world: World) -> None:
    for number in (1, 2):
        tags = [{"key": key, "value": f"value{number}"} for key in ("key1", "key2")]
        world.means(
            await world.stream(f"resource{number}", tags=tags), ("cdfs_cefs_wesas_12_dsad", "other")[number - 1]
        )


DONE = streams("newstream")
JSON_STREAM = streams("newstream", data_type="JSON")
EXAMPLES_TASK = tasks(task_id="9dSu1wfCytSk1aOLxvF")
POLICY = streams("newstream", examples_id="CiFdELMr0401K9GGZlp")
TWO = tagged(key1="value1", key2="value3")

WORLDS: dict[str, Callable[[World], Awaitable[None]]] = {
    "1.3-token": nothing,
    "1.3-token.by-name": nothing,
    "1.5-projects": region,
    "1.6-error": nothing,
    "5.1.1-create-stream": nothing,
    "5.1.1-create-stream.auto-scale": nothing,
    "5.1.1-create-stream.schema": nothing,
    "5.1.2-list-streams": DONE,
    "5.1.3-delete-stream": DONE,
    "5.1.4-show-stream": modified,
    "5.1.4-show-stream.as-printed": modified_as_printed,
    "5.1.5-update-partition-count": DONE,
    "5.1.6-update-stream": streams("stz_test"),
    "5.1.6-update-stream.type": streams("stz_test"),
    "5.1.7-add-policy": POLICY,
    "5.1.7-add-policy.tenant": POLICY,
    "5.1.8-list-policies": shared,
    "5.1.8-list-policies.as-printed": shared,
    "5.2.1-create-app": nothing,
    "5.2.2-list-apps": apps("newstream"),
    "5.2.2-list-apps.as-printed": apps("newstream"),
    "5.2.3-delete-app": apps("newapp"),
    "5.2.4-show-app": apps("newstream", committed=True),
    "5.2.5-consumption-state": unread,
    "5.2.5-consumption-state.as-printed": unread,
    "5.2.5-consumption-state.chinese": read_in_part,
    "5.3.1-commit-checkpoint": written(5),
    "5.3.2-show-checkpoint": written(500, committed=485),
    "5.3.2-show-checkpoint.none": written(0),
    "5.3.2-show-checkpoint.as-printed": written(500, committed=485),
    "5.3.3-delete-checkpoint": written(5, committed=2),
    "5.4.1-upload-records": written(485),
    "5.4.1-upload-records.throttled": written(485),
    "5.4.2-download-records": record(partition_key="0"),
    "5.4.2-download-records.no-key": record(partition_id="0"),
    "5.4.3-get-cursor": written(20),
    "5.5.1-create-obs-task": DONE,
    "5.5.1-create-obs-task.parquet": JSON_STREAM,
    "5.5.2-list-tasks": tasks(),
    "5.5.2-list-tasks.as-printed": tasks(),
    "5.5.3-delete-task": tasks(),
    "5.5.4-show-task": described("\n"),
    "5.5.4-show-task.as-printed": described(""),
    "5.5.4-show-task.web": described(""),
    "5.5.5-start-tasks": EXAMPLES_TASK,
    "5.5.6-stop-tasks": EXAMPLES_TASK,
    "5.5.7-create-dws-task": DONE,
    "5.5.7-create-dws-task.as-printed": DONE,
    "5.5.8-create-mrs-task": DONE,
    "5.5.9-create-dli-task": DONE,
    "5.5.10-create-cloudtable-task.hbase": JSON_STREAM,
    "5.5.10-create-cloudtable-task.opentsdb": JSON_STREAM,
    "5.6.1-stream-metrics": traffic,
    "5.6.1-stream-metrics.list": traffic,
    "5.6.2-partition-metrics": traffic,
    "5.7.1-create-tag": DONE,
    "5.7.2-stream-tags": TWO,
    "5.7.3-delete-tag": TWO,
    "5.7.4-add-tags": DONE,
    "5.7.5-list-tags": tagged_alike,
    "5.7.6-count-by-tags": tagged_alike,
    "5.7.6-filter-by-tags": tagged_alike,
    "5.7.7-delete-tags": TWO,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "5.4.1-upload-records.throttled": {"common_in_records_per_s": 486},
    "5.5.2-list-tasks": {"max_dump_tasks": 5},
}
