"""Dump tasks on the wire: the reference's samples both ways, and every spelling that is in use."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from dump_samples import PASSWORD, SAMPLES, Sample
from rich.pretty import pretty_repr

from disstream.destinations import (
    DliDump,
    Dump,
    DumpProgress,
    DumpTask,
    DumpTaskInfo,
    DwsDump,
    DwsOptions,
    ObsDump,
    ProcessingSchema,
)
from disstream.errors import ApiError, TransportError
from disstream.model import HashRange, PartitionInfo, SequenceRange
from disstream.wire.dumps import (
    decode_change,
    decode_create,
    decode_detail,
    decode_list,
    descriptor_of,
    encode_change,
    encode_create,
    encode_detail,
    encode_list,
    read_descriptor,
)

SPELLINGS = ("descriptor", "description", "descripton", "descripion")
each_sample = pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)

INFO = DumpTaskInfo(
    name="newtask",
    task_id="As805BudhcH1lDs6gbn",
    destination_type="OBS",
    state="RUNNING",
    create_time=1606554932552,
    last_transfer_timestamp=1606984428612,
    stream="newstream",
    stream_id="RdMFID6edQdf8eDzc9e",
    destination=ObsDump(
        task_name="newtask",
        agency_name="dis_admin_agency",
        partition_format="yyyy/MM/dd",
        obs_bucket_path="obsbucket",
        deliver_interval_s=60,
    ),
    partitions=(
        DumpProgress(
            partition=PartitionInfo(
                partition_id="shardId-0000000000",
                status="ACTIVE",
                hash_range=HashRange(0, 9223372036854775807),
                sequence_range=SequenceRange(289911, 289927),
                parent_partitions="0",
            ),
            state="RUNNING",
            discarded=3,
            last_transfer_timestamp=1606984428612,
            last_transfer_offset=289897,
            start_offset=289000,
        ),
    ),
)
DETAIL = {
    "stream_id": "RdMFID6edQdf8eDzc9e",
    "stream_name": "newstream",
    "task_name": "newtask",
    "task_id": "As805BudhcH1lDs6gbn",
    "destination_type": "OBS",
    "state": "RUNNING",
    "create_time": 1606554932552,
    "last_transfer_timestamp": 1606984428612,
    "obs_destination_description": {
        "task_name": "newtask",
        "agency_name": "dis_admin_agency",
        "file_prefix": "",
        "partition_format": "yyyy/MM/dd",
        "obs_bucket_path": "obsbucket",
        "deliver_time_interval": 60,
        "consumer_strategy": "LATEST",
        "retry_duration": 0,
        "destination_file_type": "text",
        "record_delimiter": "\n",
    },
    "partitions": [
        {
            "partitionId": "shardId-0000000000",
            "partition_id": "shardId-0000000000",
            "status": "ACTIVE",
            "hash_range": "[0 : 9223372036854775807]",
            "sequence_number_range": "[289911 : 289927]",
            "parent_partitions": "0",
            "discard": 3,
            "state": "RUNNING",
            "last_transfer_timestamp": 1606984428612,
            "last_transfer_offset": 289897,
            "start_offset": 289000,
        }
    ],
}


def read(told: dict[str, Any]) -> DumpTaskInfo:
    return decode_detail(json.dumps(told).encode())


@each_sample
def test_creations(sample: Sample) -> None:
    """What we send for a sample's destination is the sample, with every default said."""
    sent = json.loads(encode_create(sample.destination))
    assert sent["destination_type"] == sample.kind
    told = {k: v for k, v in sample.told.items() if (sample.kind, k) != ("OBS", "retry_duration")}
    password = {"user_password": PASSWORD} if sample.kind == "DWS" else {}
    assert sent == {"destination_type": sample.kind, sample.where: {**told, **password}}
    assert read_descriptor(sample.kind, sample.descriptor) == sample.destination


@each_sample
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_a_descriptor(sample: Sample, spelling: str) -> None:
    """Requests may have any of the four keys, answers too; a null under another does not matter."""
    key = f"{sample.kind.lower()}_destination_{spelling}"
    nothing = {f"{sample.kind.lower()}_destination_{other}": None for other in SPELLINGS}
    request = decode_create(
        json.dumps({"x": [], "destination_type": sample.kind, **nothing, key: sample.descriptor}).encode()
    )
    assert request == (sample.kind, key, sample.descriptor)
    answer = {"task_name": "t", "destination_type": sample.kind, **nothing, key: sample.descriptor}
    assert read(answer).destination == sample.destination


@pytest.mark.parametrize(
    ("body", "code", "named"),
    [
        (b"", "DIS.4300", "JSON"),
        (b"[]", "DIS.4200", "object"),
        (b"{}", "DIS.4200", "destination_type"),
        (b'{"destination_type":1}', "DIS.4200", "destination_type"),
        (b'{"destination_type":"NOWHERE"}', "DIS.4200", "NOWHERE"),
        (b'{"destination_type":"obs","obs_destination_descriptor":{}}', "DIS.4200", "OBS, DWS, MRS, DLI, CLOUDTABLE"),
        (b'{"destination_type":"OBS"}', "DIS.4200", "obs_destination_descriptor is missing"),
        (b'{"destination_type":"OBS","dws_destination_descriptor":{}}', "DIS.4200", "obs_destination_descriptor"),
        (b'{"destination_type":"OBS","obs_destination_descriptor":null}', "DIS.4200", "obs_destination_descriptor"),
        (b'{"destination_type":"OBS","obs_destination_descriptor":[]}', "DIS.4200", "obs_destination_descriptor"),
        (b'{"destination_type":"OBS","obs_destination_descriptor":{"a":"\xff"}}', "DIS.4300", "JSON"),
        (b'{"destination_type":"OBS","obs_destination_descriptor":{"a":' + b"[" * 200_000, "DIS.4300", "JSON"),
        (b'{"destination_type":"OBS","obs_destination_descriptor":{"a":"\\ud800"}}', "DIS.4300", "JSON"),
    ],
)
def test_bad_creations(body: bytes, code: str, named: str) -> None:
    """Not JSON, however deep, is DIS.4300; no known type, or no descriptor of that type, DIS.4200."""
    with pytest.raises(ApiError) as caught:
        decode_create(body)
    assert caught.value.code == code
    assert named in caught.value.message


def test_a_description() -> None:
    """The reference's sample both ways; a partition in both its shapes, and `retry_duration` that OBS has not."""
    assert json.loads(encode_detail(INFO)) == DETAIL
    assert read(DETAIL) == INFO


def test_what_was_not_copied_is_not_shown() -> None:
    """Without a transfer there is no offset of one; the times are 0; an EXPIRED partition has no range."""
    expired = DumpProgress(partition=PartitionInfo(partition_id="shardId-0000000001", status="EXPIRED"), state="PAUSED")
    info = msgspec.structs.replace(INFO, partitions=(expired,), last_transfer_timestamp=0, state_reason="because")
    told = json.loads(encode_detail(info))
    assert told["last_transfer_timestamp"] == 0
    assert told["state_reason"] == "because"
    assert told["partitions"] == [
        {
            "partitionId": "shardId-0000000001",
            "partition_id": "shardId-0000000001",
            "status": "EXPIRED",
            "hash_range": "[-1 : -1]",
            "state": "PAUSED",
            "discard": 0,
            "last_transfer_timestamp": 0,
        }
    ]
    assert read(told) == info


@each_sample
def test_the_keys_of_a_description(sample: Sample) -> None:
    """As official SDKs read them: misspelt for DWS and CloudTable, which also come as they should be spelt."""
    info = DumpTaskInfo(name="t", destination_type=sample.kind, destination=sample.destination)
    body = encode_detail(info)
    told = json.loads(body)
    kind = sample.kind.lower()
    ends = ("descripton", "description") if kind in ("dws", "cloudtable") else ("description",)
    keys = {f"{kind}_destination_{end}" for end in ends}
    assert {key for key in told if "_destination_" in key} == keys
    for key in keys:
        assert told[key] == sample.told
    assert PASSWORD.encode() not in body
    unknown = {"user_password": ""} if sample.kind == "DWS" else {}
    assert decode_detail(body).destination == msgspec.structs.replace(sample.destination, **unknown)


def test_partitions_of_other_services() -> None:
    """The table's shape alone, the sample's alone, any width of the id, numbers as text, null."""
    told = read(
        {
            "task_name": "t",
            "create_time": "12",
            "last_transfer_timestamp": None,
            "partitions": [
                {"partition_id": "shardId-000000000002", "status": "ACTIVE", "hash_range": "[0 : 1]", "x": 1},
                {"partitionId": "3", "discard": "4", "state": "RUNNING", "last_transfer_offset": "5"},
            ],
        }
    )
    assert (told.create_time, told.destination) == (12, None)
    assert told.partitions == (
        DumpProgress(
            partition=PartitionInfo(partition_id="shardId-0000000002", status="ACTIVE", hash_range=HashRange(0, 1))
        ),
        DumpProgress(
            partition=PartitionInfo(partition_id="shardId-0000000003", status=""),
            state="RUNNING",
            discarded=4,
            last_transfer_offset=5,
        ),
    )
    assert told.partitions[1].partition_id == "shardId-0000000003"


@pytest.mark.parametrize(
    ("kind", "told", "meant"),
    [
        ("DLI", {}, DliDump(task_name="", agency_name="", dli_database_name="", dli_table_name="", obs_bucket_path="")),
        (
            "OBS",
            {
                "task_name": "t",
                "retry_duration": "",
                "deliver_time_interval": "60",
                "deliver_size_interval": "",
                "record_delimiter": "",
                "processing_schema": {},
                "file_prefix": None,
                "new": 1,
            },
            ObsDump(task_name="t", agency_name="", obs_bucket_path="", deliver_interval_s=60, record_delimiter=""),
        ),
        (
            "OBS",
            {"processing_schema": {"timestamp_name": "at", "timestamp_type": "Timestamp"}},
            ObsDump(
                task_name="",
                agency_name="",
                obs_bucket_path="",
                processing_schema=ProcessingSchema(timestamp_name="at", timestamp_type="Timestamp"),
            ),
        ),
        ("ELSEWHERE", {"task_name": "t"}, None),
    ],
    ids=["nothing", "numbers as text", "a part", "an unknown type"],
)
def test_descriptors_of_other_services(kind: str, told: dict[str, Any], meant: Dump | None) -> None:
    """What is left out is empty or the default, numbers may be text; a type of tomorrow is no error."""
    assert read_descriptor(kind, told) == meant


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ({}, None),
        ({"reject_limit": None}, DwsOptions()),
        (
            {"fill_missing_fields": "true/on", "ignore_extra_data": "ON", "compatible_invalid_chars": True},
            DwsOptions(fill_missing_fields=True, ignore_extra_data=True, compatible_illegal_chars=True),
        ),
        ({"compatible_illegal_chars": "on", "reject_limit": "unlimited", "error_table_name": "e"},
         DwsOptions(compatible_illegal_chars=True, reject_limit=None, error_table_name="e")),
        ({"fill_missing_fields": "false/off", "ignore_extra_data": False, "reject_limit": "7"},
         DwsOptions(reject_limit=7)),
    ],
)  # fmt: skip
def test_options_of_dws(told: dict[str, Any], meant: DwsOptions | None) -> None:
    """Booleans and numbers are texts on the wire, whatever they look like; both names of the third."""
    found = read_descriptor("DWS", {"options": told})
    assert isinstance(found, DwsDump)
    assert found.options == meant
    wire = descriptor_of(found).get("options")
    assert wire is None or all(isinstance(value, str) for value in wire.values())
    again = read_descriptor("DWS", descriptor_of(found))
    assert isinstance(again, DwsDump)
    assert again.options == meant


@pytest.mark.parametrize(
    "told",
    [
        {"task_name": "t", "destination_type": "OBS", "obs_destination_description": {"processing_schema": 1}},
        {"task_name": "t", "destination_type": "DWS", "dws_destination_descripton": {"options": [1]}},
        {"task_name": "t", "destination_type": "DWS", "dws_destination_descripton": {"options": {"reject_limit": "x"}}},
        {"task_name": "t", "partitions": [{"partition_id": "nonsense"}]},
        {"task_name": "t", "partitions": [{}]},
        {"task_name": "t", "create_time": "soon"},
        {},
    ],
)
def test_answers_that_are_none(told: dict[str, Any]) -> None:
    """A description that cannot be read is a TransportError, never another exception."""
    with pytest.raises(TransportError):
        read(told)


def test_a_list() -> None:
    """The reference's sample both ways, with the quota its table has; without the id and the quota too."""
    task = {
        "task_id": "As805BudhcH1lDs6gbn",
        "destination_type": "OBS",
        "task_name": "newtask",
        "create_time": 1606554932552,
        "state": "RUNNING",
        "last_transfer_timestamp": 1606984428612,
    }
    meant = DumpTask(
        name="newtask",
        task_id="As805BudhcH1lDs6gbn",
        destination_type="OBS",
        state="RUNNING",
        create_time=1606554932552,
        last_transfer_timestamp=1606984428612,
    )
    assert json.loads(encode_list([meant], quota=5)) == {"tasks": [task], "total_number": 1, "quota": 5}
    assert decode_list(json.dumps({"tasks": [task], "total_number": 1, "quota": 5}).encode()) == [meant]
    bare = {key: value for key, value in task.items() if key != "task_id"}
    assert decode_list(json.dumps({"tasks": [bare]}).encode()) == [msgspec.structs.replace(meant, task_id="")]
    assert json.loads(encode_list([], quota=5)) == {"tasks": [], "total_number": 0, "quota": 5}
    assert decode_list(b"{}") == decode_list(b'{"tasks":null}') == []
    why = msgspec.structs.replace(meant, state_reason="because")
    assert decode_list(encode_list([why], quota=5)) == [why]


def test_start_and_stop() -> None:
    """The reference's sample both ways."""
    body = {"action": "start", "tasks": [{"id": "9dSu1wfCytSk1aOLxvF"}]}
    assert json.loads(encode_change("start", ["9dSu1wfCytSk1aOLxvF"])) == body
    assert decode_change(json.dumps(body).encode()) == ("start", ["9dSu1wfCytSk1aOLxvF"])
    assert decode_change(b'{"action":"stop","x":1,"tasks":[{"id":"a","y":2},{"id":"b"}]}') == ("stop", ["a", "b"])


@pytest.mark.parametrize(
    ("body", "code", "named"),
    [
        (b"", "DIS.4300", "JSON"),
        (b"{}", "DIS.4200", "action"),
        (b'{"action":"run","tasks":[{"id":"a"}]}', "DIS.4200", "action='run'"),
        (b'{"action":"start"}', "DIS.4200", "tasks"),
        (b'{"action":"start","tasks":[]}', "DIS.4200", "tasks"),
        (b'{"action":"start","tasks":[{}]}', "DIS.4200", "id"),
        (b'{"action":"start","tasks":[{"id":1}]}', "DIS.4200", "id"),
    ],
)
def test_bad_changes(body: bytes, code: str, named: str) -> None:
    """Another action, no tasks, no ids."""
    with pytest.raises(ApiError) as caught:
        decode_change(body)
    assert caught.value.code == code
    assert named in caught.value.message


def test_a_password_is_not_shown() -> None:
    """Neither by repr nor where rich prints values; everything else is."""
    destination = SAMPLES["dws"].destination
    for shown in (repr(destination), pretty_repr(destination), f"{destination}"):
        assert PASSWORD not in shown
        assert "dws_cluster_name='dwscluster'" in shown
