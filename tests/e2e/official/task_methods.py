"""Dump tasks: five kinds of them, though the SDK has a method to create only one."""

from __future__ import annotations

from typing import Any

from compare import identifier, recent_ms
from huaweicloudsdkdis import v2
from instrument import Sdk, exercise
from stream_methods import create

COMMON = {"agency_name": "dis_admin_agency", "deliver_time_interval": 300, "consumer_strategy": "LATEST"}
OBS = {
    **COMMON,
    "file_prefix": "raw/2026",
    "partition_format": "yyyy/MM/dd/HH/mm",
    "obs_bucket_path": "obsbucket",
    "destination_file_type": "parquet",
    "processing_schema": {
        "timestamp_name": "at",
        "timestamp_type": "String",
        "timestamp_format": "yyyy/MM/dd HH:mm:ss",
    },
    "record_delimiter": "|",
}
DWS = {
    **COMMON,
    "dws_cluster_name": "dwscluster",
    "dws_cluster_id": "f82dc227-3691-47eb-bca7-e7851f509b2a",
    "dws_database_name": "postgres",
    "dws_schema": "dbadmin",
    "dws_table_name": "dwstablename",
    "dws_delimiter": "|",
    "user_name": "dbadmin",
    "user_password": "the secret",
    "kms_user_key_name": "kmskey",
    "kms_user_key_id": "1e759f06-9188-4d21-afab-a75e57c04d2b",
    "obs_bucket_path": "obsbucket",
    "file_prefix": "stage",
    "retry_duration": "1800",
    "dws_table_columns": "c1,c2",
    "options": {
        "fill_missing_fields": "true",
        "ignore_extra_data": "false",
        "compatible_illegal_chars": "false",
        "reject_limit": "unlimited",
        "error_table_name": "errors",
    },
}
MRS = {
    **COMMON,
    "mrs_cluster_id": "f8123fa6-99f1-4ed9-83f4-c827c7277d41",
    "mrs_cluster_name": "mrscluster",
    "mrs_hdfs_path": "/user",
    "obs_bucket_path": "obsbucket",
    "file_prefix": "stage",
    "hdfs_prefix_folder": "dis",
    "retry_duration": "0",
}
DLI = {
    **COMMON,
    "dli_database_name": "dlidatabasename",
    "dli_table_name": "dlitablename",
    "obs_bucket_path": "obsbucket",
    "file_prefix": "stage",
    "retry_duration": "300",
}
CLOUDTABLE = {
    **COMMON,
    "cloudtable_cluster_name": "cloudtablecluster",
    "cloudtable_cluster_id": "b8c095e2-db5f-4732-8a1d-eacd662e35dc",
    "cloudtable_table_name": "cloudtabletable",
    "cloudtable_row_key_delimiter": "|",
    "retry_duration": "1800",
    "obs_backup_bucket_path": "obsbackupbucket",
    "backup_file_prefix": "failed",
    "cloudtable_schema": {
        "row_key": [{"value": "datavalue", "type": "String"}],
        "columns": [
            {"column_family_name": "cfname1", "column_name": "ID", "value": "datavalue1", "type": "Bigint"},
            {"column_family_name": "cfname2", "column_name": "VALUE", "value": "datavalue2", "type": "String"},
        ],
    },
}
OPENTSDB = {
    **{key: value for key, value in CLOUDTABLE.items() if key not in ("cloudtable_table_name", "cloudtable_schema")},
    "opentsdb_schema": [
        {
            "metric": [{"type": "Constant", "value": "age"}],
            "timestamp": {"value": "date", "type": "String", "format": "yyyy/MM/dd HH:mm:ss"},
            "value": {"value": "value", "type": "Bigint"},
            "tags": [{"name": "name", "value": "name", "type": "Bigint"}],
        }
    ],
}


def obs_task(sdk: Sdk, name: str, stream: str = "s") -> None:
    answer = sdk.create_obs_transfer_task(stream_name=stream, body=obs_request(name))
    sdk.done(f"creation of {name}", answer, 201)


def obs_request(name: str, **changes: Any) -> Any:
    fields: dict[str, Any] = {**OBS, "task_name": name, **changes}
    fields["processing_schema"] = v2.ProcessingSchema(**OBS["processing_schema"])  # type: ignore[arg-type]
    descriptor = v2.OBSDestinationDescriptorRequest(**fields)
    return v2.CreateTransferTaskReq(destination_type="OBS", obs_destination_descriptor=descriptor)


def listed(name: str, state: str, kind: str = "OBS") -> dict[str, Any]:
    return {
        "task_name": name,
        "state": state,
        "destination_type": kind,
        "create_time": recent_ms,
        "last_transfer_timestamp": 0,
    }


def shown(name: str, state: str, kind: str, container: str, description: dict[str, Any]) -> dict[str, Any]:
    return {
        **listed(name, state, kind),
        "stream_name": "s",
        "partitions": [progress],
        container: {**description, "task_name": name},
    }


def progress(value: Any) -> bool:
    """the first partition of two, or what a dump shows of it"""
    return isinstance(value, dict) and value["partition_id"] == "shardId-0000000000" and value["status"] == "ACTIVE"


def states(sdk: Sdk) -> dict[str, str]:
    return {task.task_name: task.state for task in sdk.list_transfer_tasks(stream_name="s").tasks}


def ids(sdk: Sdk) -> dict[str, str]:
    """The SDK's model of a task lacks the id that its methods to start and stop one want."""
    raw = sdk.list_transfer_tasks(stream_name="s").to_json_object()
    found = {task["task_name"]: task["task_id"] for task in raw["tasks"]}
    sdk.equal("ids", found, dict.fromkeys(found, identifier))
    return found


@exercise
def create_obs_transfer_task(sdk: Sdk) -> None:
    """With every field; names are unique in a stream, of which five may stand beside each other."""
    create(sdk, "s", data_type="JSON")
    create(sdk, "blob")
    obs_task(sdk, "t")
    sdk.equal("it is there", states(sdk), {"t": "ABNORMAL"})
    least = v2.OBSDestinationDescriptorRequest(
        task_name="least", agency_name="a", deliver_time_interval=30, obs_bucket_path="obsbucket"
    )
    body = v2.CreateTransferTaskReq(destination_type="OBS", obs_destination_descriptor=least)
    answer = sdk.create_obs_transfer_task(stream_name="blob", body=body)
    sdk.done("the least", answer, 201)

    def refused(code: str, message: str, stream: str = "s", **changes: Any) -> None:
        body = obs_request(**{"name": "other", **changes})
        sdk.refused("create_obs_transfer_task", code, message, stream_name=stream, body=body)

    refused("DIS.4355", "The transfer task already exists. ...", name="t")
    refused("DIS.4301", f"Stream does not exist. [gone][{sdk.project}]", "gone")
    refused("DIS.4358", "The dump type does not suit the data type of the stream. ...", "blob")
    refused("DIS.4200", "Invalid request. ...", deliver_time_interval=29)
    refused("DIS.4200", "Invalid request. ...", partition_format="yyyy-MM")
    refused("DIS.4200", "Invalid request. ...", consumer_strategy="OLDEST")
    for number in range(4):
        obs_task(sdk, f"t{number}")
    refused("DIS.4357", "Exceeded transfer task quota. ...")
    body = v2.CreateTransferTaskReq(destination_type="FTP")
    sdk.refused("create_obs_transfer_task", "DIS.4200", "Invalid request. ...", stream_name="s", body=body)


@exercise
def list_transfer_tasks(sdk: Sdk) -> None:
    """All tasks of a stream with their states, and how many there may be."""
    create(sdk, "s", data_type="JSON")
    nothing = {"total_number": 0, "quota": 5, "tasks": []}
    sdk.told("nothing", sdk.list_transfer_tasks(stream_name="s"), nothing)
    obs_task(sdk, "b")
    body = {"destination_type": "DLI", "dli_destination_descriptor": {**DLI, "task_name": "a"}}
    sdk.done("creation of a", sdk.raw("POST", "streams/s/transfer-tasks", body), 201)
    tasks = [listed("a", "ABNORMAL", "DLI"), listed("b", "ABNORMAL")]
    answer = sdk.list_transfer_tasks(stream_name="s")
    sdk.told("two tasks", answer, {"total_number": 2, "quota": 5, "tasks": tasks})
    reasons = [task["state_reason"] for task in answer.to_json_object()["tasks"]]
    sdk.equal("why", [len(reason) > 20 for reason in reasons], [True, True])
    gone = f"Stream does not exist. [gone][{sdk.project}]"
    sdk.refused("list_transfer_tasks", "DIS.4301", gone, stream_name="gone")


@exercise
def show_transfer_task(sdk: Sdk) -> None:
    """Everything that was asked for comes back, whatever the destination, but for passwords."""
    create(sdk, "s", data_type="JSON")
    create(sdk, "t", 2, data_type="JSON")
    obs_task(sdk, "obs")
    others = (
        ("dws", "DWS", "dws_destination_descripton", DWS),
        ("mrs", "MRS", "mrs_destination_description", MRS),
        ("dli", "DLI", "dli_destination_description", DLI),
        ("hbase", "CLOUDTABLE", "cloudtable_destination_descripton", CLOUDTABLE),
    )
    for name, kind, _, fields in others:
        body = {"destination_type": kind, f"{kind.lower()}_destination_descriptor": {**fields, "task_name": name}}
        sdk.done(f"creation of {name}", sdk.raw("POST", "streams/s/transfer-tasks", body), 201)
    tsdb = {"destination_type": "CLOUDTABLE", "cloudtable_destination_descriptor": {**OPENTSDB, "task_name": "tsdb"}}
    sdk.done("creation of tsdb", sdk.raw("POST", "streams/t/transfer-tasks", tsdb), 201)
    answer = sdk.show_transfer_task(stream_name="s", task_name="obs")
    sdk.told("obs", answer, shown("obs", "ABNORMAL", "OBS", "obs_destination_description", OBS))
    for name, kind, container, fields in others:
        answer = sdk.show_transfer_task(stream_name="s", task_name=name)
        if name == "dws":
            sdk.equal("the password", answer.dws_destination_descripton.user_password, None)
            sdk.equal("the password on the wire", b"the secret" in answer.raw_content, False)
            fields = {**fields, "user_password": None}
        sdk.told(name, answer, shown(name, "ABNORMAL", kind, container, fields))
    answer = sdk.show_transfer_task(stream_name="t", task_name="tsdb")
    wanted = shown("tsdb", "ABNORMAL", "CLOUDTABLE", "cloudtable_destination_descripton", OPENTSDB)
    wanted |= {"stream_name": "t", "partitions": [progress, partition_of_two]}
    sdk.told("tsdb", answer, wanted)
    missing = "The transfer task does not exist. ..."
    sdk.refused("show_transfer_task", "DIS.4354", missing, stream_name="s", task_name="gone")
    gone = f"Stream does not exist. [gone][{sdk.project}]"
    sdk.refused("show_transfer_task", "DIS.4301", gone, stream_name="gone", task_name="obs")


def partition_of_two(value: Any) -> bool:
    """the second partition"""
    return isinstance(value, dict) and value["partition_id"] == "shardId-0000000001"


@exercise
def delete_transfer_task(sdk: Sdk) -> None:
    """It is gone, the others stay, and its name is free again."""
    create(sdk, "s", data_type="JSON")
    obs_task(sdk, "a")
    obs_task(sdk, "b")
    sdk.done("deletion", sdk.delete_transfer_task(stream_name="s", task_name="a"), 204)
    sdk.equal("what is left", states(sdk), {"b": "ABNORMAL"})
    missing = "The transfer task does not exist. ..."
    sdk.refused("delete_transfer_task", "DIS.4354", missing, stream_name="s", task_name="a")
    gone = f"Stream does not exist. [gone][{sdk.project}]"
    sdk.refused("delete_transfer_task", "DIS.4301", gone, stream_name="gone", task_name="a")
    obs_task(sdk, "a")


@exercise
def batch_stop_transfer_task(sdk: Sdk) -> None:
    """Those named are paused; an unknown one among them leaves all as they were."""
    create(sdk, "s", data_type="JSON")
    for name in ("a", "b", "c"):
        obs_task(sdk, name)
    found = ids(sdk)
    tasks = [v2.BatchTransferTask(id=found["a"]), v2.BatchTransferTask(id="A" * 19)]
    body = v2.BatchStopTransferTaskReq(action="stop", tasks=tasks)
    missing = "The transfer task does not exist. ..."
    sdk.refused("batch_stop_transfer_task", "DIS.4354", missing, stream_name="s", body=body)
    sdk.equal("after the refusal", states(sdk), dict.fromkeys("abc", "ABNORMAL"))
    tasks = [v2.BatchTransferTask(id=found[name]) for name in ("a", "c")]
    body = v2.BatchStopTransferTaskReq(action="stop", tasks=tasks)
    sdk.done("stop", sdk.batch_stop_transfer_task(stream_name="s", body=body), 200)
    sdk.done("stop again", sdk.batch_stop_transfer_task(stream_name="s", body=body), 200)
    sdk.equal("states", states(sdk), {"a": "PAUSED", "b": "ABNORMAL", "c": "PAUSED"})
    body = v2.BatchStopTransferTaskReq(action="halt", tasks=tasks)
    sdk.refused("batch_stop_transfer_task", "DIS.4200", "Invalid request. ...", stream_name="s", body=body)


@exercise
def batch_start_transfer_task(sdk: Sdk) -> None:
    """What was paused is no longer; nothing runs dumps yet, so it shows as abnormal."""
    create(sdk, "s", data_type="JSON")
    obs_task(sdk, "a")
    obs_task(sdk, "b")
    tasks = [v2.BatchTransferTask(id=found) for found in ids(sdk).values()]
    sdk.batch_stop_transfer_task(stream_name="s", body=v2.BatchStopTransferTaskReq(action="stop", tasks=tasks))
    body = v2.BatchStartTransferTaskReq(action="start", tasks=tasks[:1])
    answer = sdk.batch_start_transfer_task(stream_name="s", body=body)
    sdk.done("start", answer, 200)
    sdk.equal("its body", answer.body, None)
    sdk.equal("states", states(sdk), {"a": "ABNORMAL", "b": "PAUSED"})
    body = v2.BatchStartTransferTaskReq(action="start", tasks=[v2.BatchTransferTask(id="A" * 19)])
    missing = "The transfer task does not exist. ..."
    sdk.refused("batch_start_transfer_task", "DIS.4354", missing, stream_name="s", body=body)
    gone = f"Stream does not exist. [gone][{sdk.project}]"
    body = v2.BatchStartTransferTaskReq(action="start", tasks=tasks)
    sdk.refused("batch_start_transfer_task", "DIS.4301", gone, stream_name="gone", body=body)
