"""Rows of docs/compatibility.md that no other test shows: misprints, lengths, statuses and paths of the documents."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from accounts import application
from dump_samples import SAMPLES
from server_http import AppCaller, serving

from disstream.client import Client
from disstream.model import Scaling
from disstream.wire.http import Request, Response
from disstream.wire.routes import ROUTES
from disstream.wire.streams import decode_describe

HBASE = SAMPLES["hbase"]


class Answering:
    """A transport that answers everything alike."""

    def __init__(self, status: int, body: Any = None) -> None:
        self._answer = status, b"" if body is None else json.dumps(body).encode()

    async def exchange(self, request: Request) -> Response:
        return Response(status=self._answer[0], body=self._answer[1])

    async def close(self) -> None:
        pass


async def test_misprinted_names_of_cloudtable() -> None:
    """`clouhtable_...` inside the descriptor is nobody's name; CLOUDBASE and CLOUTABLE are no destinations."""
    async with serving() as http:
        await http.create("s", data_type="JSON")
        tasks = "/v2/p/streams/s/transfer-tasks"
        schema = HBASE.descriptor["cloudtable_schema"]
        misprint = {**HBASE.without("cloudtable_schema")[HBASE.where], "clouhtable_schema": schema}
        answer = await http.call("POST", tasks, {**HBASE.body, HBASE.where: misprint})
        assert answer.code == "DIS.4200"
        assert "cloudtable_schema" in answer.told["error_msg"]
        misprint = {**HBASE.without("cloudtable_row_key_delimiter")[HBASE.where], "clouhtable_row_key_delimiter": "|"}
        assert (await http.call("POST", tasks, {**HBASE.body, HBASE.where: misprint})).status == 201
        told = (await http.call("GET", f"{tasks}/hbasetask")).told["cloudtable_destination_description"]
        assert told["cloudtable_row_key_delimiter"] == "."
        for kind in ("CLOUDBASE", "CLOUTABLE", "NOWHERE"):
            answer = await http.call("POST", tasks, {**HBASE.body, "destination_type": kind})
            assert answer.code == "DIS.4200"
            assert kind in answer.told["error_msg"]
            assert "OBS, DWS, MRS, DLI, CLOUDTABLE" in answer.told["error_msg"]


VALUES = [
    *(("hbase", "cloudtable_row_key_delimiter", value) for value in (",", ".", "|", ";", "\\", "-", "_", "~")),
    *(("dws", "dws_delimiter", value) for value in (",", ";", "|")),
    *(("obs text", "record_delimiter", value) for value in (",", ";", "|", "\n", "")),
    *(("obs text", "destination_file_type", value) for value in ("text", "parquet", "carbon", "csv")),
    ("hbase", "backup_file_prefix", "a/b_1"),
    ("dws", "file_prefix", "a/b_1"),
    ("mrs", "hdfs_prefix_folder", "a/b"),
]


async def test_values_of_dump_tasks() -> None:
    """Every value that some document lists is taken, and told again as it was given."""
    async with serving() as http:
        for number, (name, field, value) in enumerate(VALUES):
            await http.create(f"s{number}", data_type="JSON")
            sample = SAMPLES[name]
            tasks = f"/v2/p/streams/s{number}/transfer-tasks"
            answer = await http.call("POST", tasks, sample.with_fields(**{field: value}))
            assert (answer.status, answer.code) == (201, ""), (field, value, answer)
            task = sample.descriptor["task_name"]
            told = (await http.call("GET", f"{tasks}/{task}")).told
            assert told[f"{sample.kind.lower()}_destination_description"][field] == value


async def test_tasks_are_started_on_either_path() -> None:
    """Below `stream` as below `streams`, as all calls of dump tasks."""
    async with serving() as http:
        await http.create("s")
        await http.call("POST", "/v2/p/stream/s/transfer-tasks", SAMPLES["obs text"].body)
        for action, state in (("stop", "PAUSED"), ("start", "ABNORMAL")):
            (task,) = (await http.call("GET", "/v2/p/streams/s/transfer-tasks")).told["tasks"]
            body = {"action": action, "tasks": [{"id": task["task_id"]}]}
            assert (await http.call("POST", "/v2/p/stream/s/transfer-tasks/action", body)).status == 200
            told = (await http.call("GET", "/v2/p/streams/s/transfer-tasks/newtask")).told
            assert told["state"] == state


async def test_a_tag_of_the_system_has_no_status() -> None:
    """What one document prints in its table is let through and not told."""
    project = {"key": "_sys_enterprise_project_id", "value": "0aad99bc-f5f6-4f78-8404-c598d76b0ed2"}
    async with serving() as http:
        await http.create("s", sys_tags=[{**project, "status": "_sys_enterprise_project_id"}])
        assert (await http.describe("s"))["sys_tags"] == [project]


def test_results_of_scaling_are_numbers_or_text() -> None:
    """Services tell the result of a scaling as a number or as text, with or without a message: all are read."""
    changes: list[dict[str, Any]] = [
        {"result_code": 0, "result_msg": 0},
        {"result_code": "0", "result_msg": ""},
        {"result_code": "DIS.4308", "result_msg": "Insufficient quota."},
        {},
    ]
    history = [{"create_timestamp": 1, "src_partition_count": 1, "target_partition_count": 2, **c} for c in changes]
    body = msgspec.json.encode({"stream_name": "s", "update_partition_counts": history})
    info, _ = decode_describe(body)
    done = Scaling(create_time=1, source=1, target=2, result_code=0)
    unknown = msgspec.structs.replace(done, result_code=None)
    assert info.scalings == (done, done, unknown, unknown)


@pytest.mark.parametrize("status", ["CREATING", "RUNNING", "TERMINATING", "TERMINATED", "FROZEN", "OF_TOMORROW"])
def test_any_status_of_a_stream_is_read(status: str) -> None:
    """The documents name five, in two lists of four."""
    info, _ = decode_describe(msgspec.json.encode({"stream_name": "s", "status": status}))
    assert info.status == status


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_any_2xx_is_success(status: int) -> None:
    """Where an answer has no content, its status does not matter to the client."""
    async with Client(Answering(status), "p") as client:
        await client.streams.create("s", partitions=1)
        await client.streams.scale("s", 2)
        await client.streams.update("s", retention_h=48)
        await client.streams.delete("s")
        await client.policies.add("s", "acme.bob", "putRecords", stream_id="id")
        await client.apps.create("a")
        await client.checkpoints.commit("a", "s", "0", 1)
        await client.checkpoints.delete("a", "s")
        await client.dumps.create("s", HBASE.destination)
        await client.dumps.delete("s", "hbasetask")
        await client.tags.add("s", "key", "value", stream_id="id")
        await client.tags.remove_many("s", ["key"], stream_id="id")
        assert await client.checkpoints.get("a", "s", "0") is None


async def test_names_have_the_greater_length() -> None:
    """64 characters of a stream and 200 of an app, also where some tables say 60 and 50."""
    stream, app = "s" * 64, "a" * 200
    checkpoint = {"stream_name": stream, "app_name": app, "partition_id": "0", "sequence_number": "0"}
    query = f"stream_name={stream}&app_name={app}&checkpoint_type=LAST_READ"
    metrics = "label=total_put_bytes_per_stream&start_time=1&end_time=1"
    calls: list[tuple[str, str, Any, int]] = [
        ("POST", "/streams", {"stream_name": stream, "partition_count": 1}, 201),
        ("GET", f"/streams/{stream}", None, 200),
        ("PUT", f"/streams/{stream}", {"stream_name": stream, "target_partition_count": 2}, 200),
        ("GET", f"/streams/{stream}/policies", None, 200),
        ("POST", "/records", {"stream_name": stream, "records": [{"data": ""}]}, 200),
        ("GET", f"/cursors?stream-name={stream}&partition-id=0&cursor-type=LATEST", None, 200),
        ("POST", f"/streams/{stream}/transfer-tasks", SAMPLES["obs text"].body, 201),
        ("GET", f"/streams/{stream}/transfer-tasks/newtask", None, 200),
        ("GET", f"/streams/{stream}/metrics?{metrics}", None, 400),  # the period is too old, the stream was found
        ("POST", "/apps", {"app_name": app}, 201),
        ("POST", "/checkpoints", checkpoint, 201),
        ("GET", f"/apps/{app}/streams/{stream}?checkpoint_type=LAST_READ", None, 200),
        ("DELETE", f"/checkpoints?{query}", None, 204),
        ("DELETE", f"/apps/{app}", None, 204),
        ("DELETE", f"/streams/{stream}", None, 204),
    ]
    async with serving() as http:
        for method, path, body, status in calls:
            answer = await http.call(method, f"/v2/p{path}", body)
            assert (answer.status, answer.code) == (status, "DIS.4204" if status == 400 else ""), (method, path, answer)
        for name, what in ((f"{stream}s", "stream_name"), (f"{app}a", "app_name")):
            path = "/streams" if what == "stream_name" else "/apps"
            assert (await http.call("POST", f"/v2/p{path}", {what: name, "partition_count": 1})).code == "DIS.4200"


async def test_retention_up_to_a_week() -> None:
    """24 to 168 hours, when a stream is made and later; not the 72 of one document."""
    async with serving() as http:
        for hours in (24, 72, 168):
            await http.create(f"s{hours}", data_duration=hours)
            assert (await http.describe(f"s{hours}"))["retention_period"] == hours
        for hours, code in ((168, ""), (169, "DIS.4200"), (23, "DIS.4200")):
            body = {"stream_name": "s24", "data_duration": hours}
            assert (await http.call("PUT", "/v3/p/streams/s24", body)).code == code


async def test_keys_that_only_some_clients_know_are_passed_over() -> None:
    """The classic Java client says more of a stream than the documents; every body may hold what nobody knows."""
    private: dict[str, Any] = {
        "private": False,
        "is_private": False,
        "private_cluster_id": None,
        "private_cluster_topic_name": None,
    }
    more: dict[str, Any] = {"key_of_tomorrow": [{"x": None}]}
    checkpoint = {"app_name": "a", "stream_name": "s", "partition_id": "0", "sequence_number": "1"}
    async with serving() as http:
        await http.create("s", **private, **more)
        stream_id = (await http.describe("s"))["stream_id"]
        tags = f"/v2/p/stream/{stream_id}/tags"
        calls: list[tuple[str, str, dict[str, Any], int]] = [
            ("POST", "/v2/p/records", {"stream_name": "s", "records": [{"data": "", **more}]}, 200),
            ("PUT", "/v2/p/streams/s", {"target_partition_count": 2}, 200),
            ("PUT", "/v3/p/streams/s", {"data_duration": 48}, 204),
            ("PUT", "/v2/p/streams/s/update", {"update_type": "data_type", "data_duration": 48}, 200),
            ("POST", "/v2/p/streams/s/policies", {"principal_name": "acme.bob", "action_type": "getRecords"}, 201),
            ("POST", "/v2/p/apps", {"app_name": "a"}, 201),
            ("POST", "/v2/p/checkpoints", checkpoint, 201),
            ("POST", "/v2/p/streams/s/transfer-tasks", SAMPLES["obs text"].with_fields(**more), 201),
            ("POST", tags, {"tag": {"key": "k", "value": "v", **more}}, 204),
            ("POST", f"{tags}/action", {"action": "create", "tags": [{"key": "l", **more}]}, 204),
            ("POST", "/v2/p/stream/resource_instances/action", {"action": "count"}, 200),
        ]
        for method, target, body, status in calls:
            answer = await http.call(method, target, {**body, **more})
            assert (answer.status, answer.code) == (status, ""), (method, target, answer)


UNSIGNED = {"create_token", "list_projects", "openapi"}
"""IAM tells strangers who they are not, in its own shape; the description of the API is for everybody."""


@pytest.mark.parametrize("route", [route for route in ROUTES if route.operation not in UNSIGNED], ids=lambda r: r[0])
async def test_every_call_needs_credentials(route: Any) -> None:
    """Also those whose sections have no table of headers."""
    params = {"{project_id}": "a1", "{resource_type}": "stream"}
    path = "/".join(params.get(part, "x" if part[0] == "{" else part) for part in route.path)
    async with application() as app:
        answer = await AppCaller(app).call(route.method, f"/{path}")
        assert (answer.status, answer.code) == (401, "DIS.4101")


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/p/stream/tags", 404),
        ("POST", "/p/stream/resource_instances/action", 404),
        ("DELETE", "/v2/p/streams/s/policies", 405),
        ("PUT", "/v2/p/streams/s/transfer-tasks", 405),
        ("GET", "/v1/p/connections", 404),
        ("GET", "/v1/p/events", 404),
        ("POST", "/v1/p/event-subs", 404),
        ("GET", "/v1/p/statistics", 404),
        ("GET", "/p/quotas", 404),
    ],
)
async def test_what_is_only_mentioned_is_not_offered(method: str, target: str, status: int) -> None:
    """Paths that the documents name without describing them."""
    async with serving() as http:
        answer = await http.call(method, target)
        assert (answer.status, answer.code) == (status, "DIS.4200")
