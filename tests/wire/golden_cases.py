"""For each golden pair: the call of our client that it answers, and what the client makes of the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
from dump_samples import SAMPLES

from disstream.client import Client
from disstream.destinations import DumpProgress, DumpTask, DumpTaskInfo, DwsDump, ObsDump
from disstream.errors import NotFoundError, TransportError
from disstream.model import (
    AppInfo,
    AutoScale,
    Checkpoint,
    DataPoint,
    HashRange,
    Metric,
    NewRecord,
    PartitionInfo,
    PartitionState,
    PolicyRule,
    PutResult,
    PutResults,
    Record,
    SequenceRange,
    StreamInfo,
    StreamSummary,
    TaggedStream,
)
from disstream.wire.http import Request, build_target
from disstream.wire.iam import (
    PROJECTS_TARGET,
    TOKEN_TARGET,
    IamProject,
    IssuedToken,
    TokenRequest,
    decode_projects,
    decode_token_answer,
    encode_token_request,
)


class Case(NamedTuple):
    """`makes`: a value, or type and text of the exception that the client raises."""

    ask: Callable[[Client], Awaitable[object]]
    makes: object = None


def token(**project: str) -> Case:
    """The client asks for tokens on its own; the form in which it does is the codec's."""

    async def ask(client: Client) -> object:
        wanted = TokenRequest(user="username", domain="domainname", password="********", **project)
        request = Request(method="POST", target=TOKEN_TARGET, body=encode_token_request(wanted))
        return decode_token_answer(await client.transport.exchange(request))

    return Case(ask, IssuedToken("MIIatAYJ", 1550040733.855))


async def projects(client: Client) -> object:
    target = build_target(tuple(PROJECTS_TARGET.strip("/").split("/")), {"name": "region_name"})
    return decode_projects((await client.transport.exchange(Request(method="GET", target=target))).body)


def first(listing: str, *names: str, **options: Any) -> Callable[[Client], Awaitable[object]]:
    """The first of what `client.{listing}` gives page by page: examples tell of more than they show."""

    async def ask(client: Client) -> object:
        resource, method = listing.split(".")
        async for found in getattr(getattr(client, resource), method)(*names, **options):
            return found
        return None

    return ask


STREAM_ID = "8QM3Nt9YTLOwtUVYJhO"
SCHEMA = (
    '{"type":"record","name":"RecordName","fields":[{"name":"key1","type":"string"},{"name":"key2","type":"string"}]}'
)
STREAM = StreamInfo(
    name="newstream",
    stream_id=STREAM_ID,
    status="RUNNING",
    create_time=1593569685875,
    last_modified_time=1599050091026,
    writable_partition_count=1,
    readable_partition_count=1,
    partitions=(
        PartitionInfo(
            partition_id="shardId-0000000000",
            hash_range=HashRange(0, 2**63 - 1),
            sequence_range=SequenceRange(289911, 289927),
        ),
    ),
)
SUMMARY = StreamSummary(
    name="newstream", stream_id=STREAM_ID, status="RUNNING", partition_count=1, create_time=1593569685875
)
RULE = PolicyRule(principal="anotherusername", action="putRecords", principal_id="3b3f237122574xxxxb74482ae11005ba.*")
APP = AppInfo(name="newstream", app_id="bd6IPpvgiIflQPMpi9M", create_time=1593569685875)
STATE = PartitionState(partition_id="shardId-0000000000", earliest=1653120573, latest=1658297359)
STATE_OF_THE_OTHER = PartitionState(
    partition_id="shardId-0000000002", checkpoint=Checkpoint(485), earliest=10, latest=1000
)
PAYLOAD = b"1" * 29
CURSOR = (
    "eyJnZXRJdGVyYXRvclBhcmFtIjp7InN0cmVhbS1uYW1lIjoibmV3c3RyZWFtIiwicGFydGl0aW9uLWlkIjoiMCIsImN1cnNvci10eXBlIjoi"
    "QVRfU0VRVUVOQ0VfTlVNQkVSIiwic3RhcnRpbmctc2VxdWVuY2UtbnVtYmVyIjoiMTAifSwiZ2VuZXJhdGVUaW1lc3RhbXAiOjE1MDYxNTk1"
    "NjM0MDV9"
)
RECORD = Record(data=PAYLOAD, sequence_number=485, timestamp=1527577402541, key="0")
THROTTLED = PutResult(error_code="DIS.4303", error_message="Exceeded traffic control limit.")
STORED = PutResult(partition_id="shardId-0000000000", sequence_number=485)
TASK = DumpTask(
    name="newtask",
    task_id="As805BudhcH1lDs6gbn",
    state="RUNNING",
    destination_type="OBS",
    create_time=1606554932552,
    last_transfer_timestamp=1606984428612,
)
OBS = ObsDump(
    task_name="",  # the example's descriptor does not repeat it
    agency_name="dis_admin_agency",
    deliver_interval_s=60,
    obs_bucket_path="obsbucket",
    partition_format="yyyy/MM/dd",
)
TASK_INFO = DumpTaskInfo(
    **msgspec.structs.asdict(TASK),
    stream="newstream",
    stream_id="RdMFID6edQdf8eDzc9e",
    destination=OBS,
    partitions=(
        DumpProgress(
            partition=PartitionInfo(partition_id="shardId-0000000000", status=""),
            state="RUNNING",
            last_transfer_timestamp=1606984428612,
            last_transfer_offset=289897,
        ),
    ),
)
NO_DELIMITER = msgspec.structs.replace(TASK_INFO, destination=msgspec.structs.replace(OBS, record_delimiter=""))
PUT_BYTES, PUT_RECORDS = "total_put_bytes_per_stream", "total_put_records_per_stream"
PARTITION_BYTES = "total_put_bytes_per_partition"
T0 = 1606984320


def metric(label: str, *values: int) -> dict[str, Metric]:
    return {label: Metric(label=label, points=tuple(DataPoint(T0 + 60 * i, value) for i, value in enumerate(values)))}


def dump(sample: str) -> Case:
    return Case(lambda c: c.dumps.create("newstream", SAMPLES[sample].destination))


async def page(client: Client) -> object:
    found = await client.records.get(CURSOR)
    return [*found.records], found.next_cursor[-len(NEXT) :]


NEXT = "IiwiVGltZVN0YW1wIjowfQ=="
DWS = SAMPLES["dws"].destination
assert isinstance(DWS, DwsDump)
KEYS = {"key1": ["value1", "value2"], "key2": ["value1", "value2"]}
TAGS = {"key1": "value1", "key2": "value3"}

CASES: dict[str, Case] = {
    "1.3-token": token(project_id="xxxxxxxxxxxxxxxxxx"),
    "1.3-token.by-name": token(project_name="xxxxxxxxxxxxxxxxxx"),
    "1.5-projects": Case(
        projects,
        [
            IamProject(
                id="a4a5d4098fb4474fa22cd05f897d6b99",
                name="region_name",
                domain_id="65382450e8f64ac0870cd180d14e684b",
                parent_id="65382450e8f64ac0870cd180d14e684b",
            )
        ],
    ),
    "1.6-error": Case(
        lambda c: c.streams.describe("newstream"),
        (NotFoundError, "DIS.4301: The stream does not exist. newstream"),
    ),
    "5.1.1-create-stream": Case(lambda c: c.streams.create("newstream", partitions=3, retention_h=24)),
    "5.1.1-create-stream.auto-scale": Case(
        lambda c: c.streams.create("dis-DLpR", partitions=1, auto_scale=AutoScale(2, 10))
    ),
    "5.1.1-create-stream.schema": Case(
        lambda c: c.streams.create(
            "dis-DLpR", partitions=1, auto_scale=AutoScale(1, 10), data_type="JSON", data_schema=SCHEMA
        )
    ),
    "5.1.2-list-streams": Case(first("streams.list"), SUMMARY),
    "5.1.3-delete-stream": Case(lambda c: c.streams.delete("newstream")),
    "5.1.4-show-stream": Case(lambda c: c.streams.describe("newstream"), STREAM),
    "5.1.4-show-stream.as-printed": Case(
        lambda c: c.streams.describe("newstream"), msgspec.structs.replace(STREAM, stream_id="8QM3Nt9YTLwtUVYJhO")
    ),
    "5.1.5-update-partition-count": Case(lambda c: c.streams.scale("newstream", 5)),
    "5.1.6-update-stream": Case(lambda c: c.streams.update("stz_test", retention_h=48)),
    "5.1.6-update-stream.type": Case(lambda c: c.streams.update("stz_test", data_type="JSON")),
    "5.1.7-add-policy": Case(
        lambda c: c.policies.add("newstream", "domainname1.username1", "putRecords", stream_id="CiFdELMr0401K9GGZlp")
    ),
    "5.1.7-add-policy.tenant": Case(
        lambda c: c.policies.add("newstream", "domainname1", "putRecords", stream_id="CiFdELMr0401K9GGZlp")
    ),
    "5.1.8-list-policies": Case(lambda c: c.policies.list("newstream"), [RULE]),
    "5.1.8-list-policies.as-printed": Case(lambda c: c.policies.list("newstream"), [RULE]),
    "5.2.1-create-app": Case(lambda c: c.apps.create("newapp")),
    "5.2.2-list-apps": Case(first("apps.list"), APP),
    "5.2.2-list-apps.as-printed": Case(first("apps.list"), APP),
    "5.2.3-delete-app": Case(lambda c: c.apps.delete("newapp")),
    "5.2.4-show-app": Case(
        lambda c: c.apps.describe("newstream"), msgspec.structs.replace(APP, streams=("newstream",))
    ),
    "5.2.5-consumption-state": Case(lambda c: c.apps.state("4aSiZ", "disMonitorTest"), [STATE]),
    "5.2.5-consumption-state.as-printed": Case(lambda c: c.apps.state("4aSiZ", "disMonitorTest"), [STATE]),
    "5.2.5-consumption-state.chinese": Case(lambda c: c.apps.state("newapp", "newstream"), [STATE_OF_THE_OTHER]),
    "5.3.1-commit-checkpoint": Case(lambda c: c.checkpoints.commit("newapp", "newstream", "0", 2)),
    "5.3.2-show-checkpoint": Case(lambda c: c.checkpoints.get("newapp", "newstream", "0"), Checkpoint(485)),
    "5.3.2-show-checkpoint.none": Case(lambda c: c.checkpoints.get("newapp", "newstream", "0")),
    "5.3.2-show-checkpoint.as-printed": Case(
        lambda c: c.checkpoints.get("newapp", "newstream", "0"),
        (
            TransportError,
            "the endpoint's answer is not what DIS answers: the checkpoint's sequence number is 'newstram'",
        ),
    ),
    "5.3.3-delete-checkpoint": Case(lambda c: c.checkpoints.delete("newapp", "newstream", "0")),
    "5.4.1-upload-records": Case(lambda c: c.records.put("newstream", [NewRecord(PAYLOAD)]), PutResults([STORED])),
    "5.4.1-upload-records.throttled": Case(
        lambda c: c.records.put("newstream", [NewRecord(PAYLOAD)] * 2), PutResults([STORED, THROTTLED])
    ),
    "5.4.2-download-records": Case(page, ([RECORD], NEXT)),
    "5.4.2-download-records.no-key": Case(page, ([msgspec.structs.replace(RECORD, key=None)], NEXT)),
    "5.4.3-get-cursor": Case(lambda c: c.cursors.get("newstream", "0", sequence_number=10), CURSOR),
    "5.5.1-create-obs-task": dump("obs text"),
    "5.5.1-create-obs-task.parquet": dump("obs parquet"),
    "5.5.2-list-tasks": Case(lambda c: c.dumps.list("newstream"), [TASK]),
    "5.5.2-list-tasks.as-printed": Case(lambda c: c.dumps.list("newstream"), [TASK]),
    "5.5.3-delete-task": Case(lambda c: c.dumps.delete("newstream", "newtask")),
    "5.5.4-show-task": Case(lambda c: c.dumps.describe("newstream", "newtask"), TASK_INFO),
    "5.5.4-show-task.as-printed": Case(lambda c: c.dumps.describe("newstream", "newtask"), NO_DELIMITER),
    "5.5.4-show-task.web": Case(lambda c: c.dumps.describe("newstream", "newtask"), NO_DELIMITER),
    "5.5.5-start-tasks": Case(
        lambda c: c.dumps.start("newstream", DumpTask(name="newtask", task_id="9dSu1wfCytSk1aOLxvF"))
    ),
    "5.5.6-stop-tasks": Case(
        lambda c: c.dumps.stop("newstream", DumpTask(name="newtask", task_id="9dSu1wfCytSk1aOLxvF"))
    ),
    "5.5.7-create-dws-task": dump("dws"),
    "5.5.7-create-dws-task.as-printed": Case(
        lambda c: c.dumps.create("newstream", msgspec.structs.replace(DWS, dws_delimiter=""))
    ),
    "5.5.8-create-mrs-task": dump("mrs"),
    "5.5.9-create-dli-task": dump("dli"),
    "5.5.10-create-cloudtable-task.hbase": dump("hbase"),
    "5.5.10-create-cloudtable-task.opentsdb": dump("opentsdb"),
    "5.6.1-stream-metrics": Case(
        lambda c: c.metrics.stream("newstream", PUT_BYTES, T0, T0 + 120), metric(PUT_BYTES, 1024, 2048)
    ),
    "5.6.1-stream-metrics.list": Case(
        lambda c: c.metrics.stream("newstream", [PUT_BYTES, PUT_RECORDS], T0, T0 + 59),
        metric(PUT_BYTES, 1024) | metric(PUT_RECORDS, 2),
    ),
    "5.6.2-partition-metrics": Case(
        lambda c: c.metrics.partition("newstream", "shardId-0000000000", PARTITION_BYTES, T0, T0 + 59),
        metric(PARTITION_BYTES, 512),
    ),
    "5.7.1-create-tag": Case(lambda c: c.tags.add("", "key", "value", stream_id=STREAM_ID)),
    "5.7.2-stream-tags": Case(lambda c: c.tags.of("", stream_id=STREAM_ID), TAGS),
    "5.7.3-delete-tag": Case(lambda c: c.tags.remove("", "key1", stream_id=STREAM_ID)),
    "5.7.4-add-tags": Case(lambda c: c.tags.add_many("", TAGS, stream_id=STREAM_ID)),
    "5.7.5-list-tags": Case(lambda c: c.tags.all(), KEYS),
    "5.7.6-count-by-tags": Case(lambda c: c.tags.count(tags=KEYS, name="resource1"), 1000),
    "5.7.6-filter-by-tags": Case(
        first("tags.find", tags={"key1": ["*value1", "value2"]}, name="resource1", page_size=100),
        TaggedStream(name="resource1", stream_id="cdfs_cefs_wesas_12_dsad", tags={"key1": "value1", "key2": "value1"}),
    ),
    "5.7.7-delete-tags": Case(lambda c: c.tags.remove_many("", TAGS, stream_id=STREAM_ID)),
}
