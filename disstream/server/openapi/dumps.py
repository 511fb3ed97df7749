"""Dump tasks, for the document (API 5.5). Pure."""

from __future__ import annotations

from ...destinations import DESTINATIONS
from .destinations import DESCRIPTIONS, DESCRIPTORS, EXAMPLES, OBS, TASK_NAME
from .parts import (
    PARTITION_ID,
    RANGE,
    SHARED_ID,
    STREAM_ID,
    STREAM_NAME,
    Answer,
    Body,
    Operation,
    Parameter,
    Schema,
    choice,
    many,
    number,
    record,
    ref,
    text,
    time_ms,
)

STATES = ("ERROR", "STARTING", "PAUSED", "RUNNING", "DELETE", "ABNORMAL")

_TOLD: dict[str, Schema] = {
    "task_id": text("By which it is started and stopped."),
    "task_name": TASK_NAME,
    "state": choice(STATES),
    "destination_type": choice([*DESTINATIONS]),
    "create_time": time_ms("When it was created"),
    "last_transfer_timestamp": time_ms("When it delivered last; 0: never"),
}

_WHY: dict[str, Schema] = {"state_reason": text("Why it is in this state. An extension.")}

SCHEMAS: dict[str, Schema] = {
    **DESCRIPTORS,
    **DESCRIPTIONS,
    **{
        f"Create{kind.title()}TaskRequest": record(
            {
                "destination_type": {"const": kind},
                f"{kind.lower()}_destination_descriptor": ref(f"{kind.title()}Destination"),
            }
        )
        for kind in DESTINATIONS
    },
    "CreateTaskRequest": {
        "oneOf": [ref(f"Create{kind.title()}TaskRequest") for kind in DESTINATIONS],
        "discriminator": {
            "propertyName": "destination_type",
            "mapping": {kind: f"#/components/schemas/Create{kind.title()}TaskRequest" for kind in DESTINATIONS},
        },
    },
    "TaskSummary": record(_TOLD, _WHY),
    "TaskList": record(
        {
            "total_number": number(minimum=0),
            "quota": number("How many there may be.", minimum=0),
            "tasks": many(ref("TaskSummary"), "All of the stream."),
        }
    ),
    "TaskPartition": record(
        {
            "partition_id": PARTITION_ID,
            "partitionId": PARTITION_ID,
            "status": ref("PartitionStatus"),
            "state": text("Of the task in this partition."),
            "discard": number("Records that could not be delivered.", minimum=0),
            "last_transfer_timestamp": time_ms("When it delivered last; 0: never"),
        },
        {
            "last_transfer_offset": number("The last number that was delivered."),
            "start_offset": number("The number at which the task began. An extension.", minimum=0),
            "hash_range": RANGE,
            "sequence_number_range": RANGE,
            "parent_partitions": text(),
        },
    ),
    "Task": record(
        {
            "stream_id": STREAM_ID,
            "stream_name": STREAM_NAME,
            **_TOLD,
            "partitions": many(ref("TaskPartition")),
        },
        {
            **_WHY,
            "obs_destination_description": ref("ObsDescription"),
            # Misspelt as on the wire of the service; official clients read these names.
            "dws_destination_descripton": ref("DwsDescription"),
            "dws_destination_description": ref("DwsDescription"),
            "mrs_destination_description": ref("MrsDescription"),
            "dli_destination_description": ref("DliDescription"),
            "cloudtable_destination_descripton": ref("CloudtableDescription"),
            "cloudtable_destination_description": ref("CloudtableDescription"),
        },
        "With the description of its destination, which tells no password.",
    ),
    "ChangeTasksRequest": record(
        {
            "action": choice(("start", "stop")),
            "tasks": many(record({"id": text("Of the task, not its name.", minLength=1)}), minItems=1),
        }
    ),
}

_STREAM = {"stream_id": Parameter(SHARED_ID)}
_TASK = {
    "task_id": "As805BudhcH1lDs6gbn",
    "destination_type": "OBS",
    "task_name": "newtask",
    "create_time": 1606554932552,
    "state": "RUNNING",
    "last_transfer_timestamp": 1606984428612,
}

OPERATIONS: dict[str, Operation] = {
    "create_dump_task": Operation(
        "Dump tasks",
        "Create a dump task",
        {201: Answer("It is there.")},
        codes=(
            *("DIS.4301", "DIS.4335", "DIS.4345", "DIS.4348"),
            *("DIS.4355", "DIS.4357", "DIS.4358"),
        ),
        query=_STREAM,
        body=Body("CreateTaskRequest", EXAMPLES),
    ),
    "list_dump_tasks": Operation(
        "Dump tasks",
        "List the dump tasks of a stream",
        {200: Answer("All of them.", "TaskList", {"tasks": [_TASK], "total_number": 1, "quota": 5})},
        codes=("DIS.4301",),
        query=_STREAM,
    ),
    "delete_dump_task": Operation(
        "Dump tasks",
        "Delete a dump task",
        {204: Answer("It is gone.")},
        codes=("DIS.4301", "DIS.4354"),
        query=_STREAM,
    ),
    "describe_dump_task": Operation(
        "Dump tasks",
        "Describe a dump task, and how far it is in each partition",
        {
            200: Answer(
                "The task.",
                "Task",
                {
                    **_TASK,
                    "stream_id": "8QM3Nt9YTLOwtUVYJhO",
                    "stream_name": "newstream",
                    "obs_destination_description": {"task_name": "newtask", **OBS, "retry_duration": 0},
                    "partitions": [
                        {
                            "partition_id": "shardId-0000000000",
                            "partitionId": "shardId-0000000000",
                            "status": "ACTIVE",
                            "state": "RUNNING",
                            "discard": 0,
                            "last_transfer_timestamp": 1606984428612,
                            "last_transfer_offset": 289897,
                        }
                    ],
                },
            )
        },
        codes=("DIS.4301", "DIS.4354"),
        query=_STREAM,
    ),
    "change_dump_tasks": Operation(
        "Dump tasks",
        "Start or stop dump tasks",
        {200: Answer("All of them are started, or stopped.")},
        codes=("DIS.4301", "DIS.4354"),
        query=_STREAM,
        body=Body(
            "ChangeTasksRequest",
            {verb: {"action": verb, "tasks": [{"id": "As805BudhcH1lDs6gbn"}]} for verb in ("start", "stop")},
        ),
    ),
}
