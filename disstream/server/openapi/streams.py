"""Streams and their policies, for the document (API 5.1). Pure."""

from __future__ import annotations

from ...wire.policies import ACTION_TYPES, EFFECT
from ..creation import (
    COMPRESSION_FORMATS,
    DATA_TYPES,
    MAX_DELIMITER_CHARS,
    MAX_RETENTION_BYTES,
    MIN_RETENTION_BYTES,
    RETENTION_H,
    STREAM_TYPES,
)
from .parts import (
    LAYOUTS,
    PARTITION_ID,
    RANGE,
    SEQUENCE_NUMBER,
    SHARED_ID,
    STREAM_ID,
    STREAM_NAME,
    Answer,
    Body,
    Operation,
    Parameter,
    Schema,
    choice,
    flag,
    many,
    number,
    record,
    ref,
    text,
    time_ms,
)

_HOURS = "Hours for which a record is kept."
_RETENTION = number(_HOURS, minimum=RETENTION_H[0], maximum=RETENTION_H[-1])
_SCHEMA = (
    '{"type":"record","name":"RecordName","fields":[{"name":"key1","type":"string"},{"name":"key2","type":"string"}]}'
)
_RETENTION_BYTES = "Payload and keys of all records it may hold: beyond that the oldest go. An extension."
_AUTO_SCALE: dict[str, Schema] = {
    "auto_scale_enabled": flag("Whether the server changes the number of partitions by itself, by their traffic."),
    "auto_scale_min_partition_count": number("It goes no lower. 0 in an answer: it does not scale by itself."),
    "auto_scale_max_partition_count": number("It goes no higher. 0 in an answer: it does not scale by itself."),
}
_DESCRIBED: dict[str, Schema] = {
    "stream_id": STREAM_ID,
    "stream_name": STREAM_NAME,
    "create_time": time_ms("When it was created"),
    "retention_period": number(_HOURS),
    "status": ref("StreamStatus"),
    "stream_type": ref("StreamType"),
    "data_type": ref("DataType"),
    **_AUTO_SCALE,
    "tags": many(ref("Tag")),
    "sys_tags": many(ref("Tag")),
}
_INFO = {
    "stream_id": "8QM3Nt9YTLOwtUVYJhO",
    "stream_name": "newstream",
    "create_time": 1593569685875,
    "retention_period": 24,
    "status": "RUNNING",
    "stream_type": "COMMON",
    "data_type": "BLOB",
    "auto_scale_enabled": False,
    "auto_scale_min_partition_count": 0,
    "auto_scale_max_partition_count": 0,
    "tags": [],
    "sys_tags": [],
}

SCHEMAS: dict[str, Schema] = {
    "StreamType": choice(STREAM_TYPES, "How much a partition of the stream bears."),
    "StreamStatus": choice(("CREATING", "RUNNING", "TERMINATING", "TERMINATED", "FROZEN")),
    "DataType": choice(DATA_TYPES, "What the records hold."),
    "PartitionStatus": choice(
        ("CREATING", "ACTIVE", "DELETED", "EXPIRED"),
        "ACTIVE: written and read. DELETED: read only, until its records have expired. EXPIRED: empty.",
    ),
    "CsvProperties": record({}, {"delimiter": text("What separates the fields.", maxLength=MAX_DELIMITER_CHARS)}),
    "CreateStreamRequest": record(
        {"stream_name": STREAM_NAME, "partition_count": number(minimum=1)},
        {
            "stream_type": ref("StreamType"),
            "data_type": ref("DataType"),
            "data_duration": {**_RETENTION, "default": RETENTION_H[0]},
            "retention_bytes": number(_RETENTION_BYTES, minimum=MIN_RETENTION_BYTES, maximum=MAX_RETENTION_BYTES),
            **_AUTO_SCALE,
            "data_schema": text("An Avro schema, as text: what a JSON or CSV record holds."),
            "csv_properties": ref("CsvProperties"),
            "compression_format": choice(COMPRESSION_FORMATS, "In which producers compress their data."),
            "tags": many(ref("Tag")),
            "sys_tags": many(ref("SysTag"), maxItems=1),
        },
    ),
    "StreamSummary": record({**_DESCRIBED, "partition_count": number("ACTIVE partitions.", minimum=0)}),
    "StreamList": record(
        {
            "total_number": number("All streams of the project.", minimum=0),
            "stream_names": many(STREAM_NAME, "Those of this page, ascending."),
            "stream_info_list": many(ref("StreamSummary"), "The same streams."),
            "has_more_streams": flag(),
        }
    ),
    "Partition": record(
        {"status": ref("PartitionStatus"), "partition_id": PARTITION_ID, "hash_range": RANGE},
        {
            "sequence_number_range": {
                **RANGE,
                "description": "`[low : high]`: the oldest number that is kept, and the next that will be given.",
            },
            "parent_partitions": text("The partition that held its keys before, if there is one."),
            "bounds": many(
                record({"change": number(minimum=1), "sequence_number": SEQUENCE_NUMBER}),
                "What was written before each change of the layout has lower numbers. An extension.",
            ),
        },
    ),
    "Scaling": record(
        {
            "create_timestamp": time_ms("When it was asked for"),
            "src_partition_count": number(minimum=0),
            "target_partition_count": number(minimum=0),
            "result_code": number("0: done. Otherwise the digits of the DIS code with which it was refused."),
            "auto_scale": flag("Whether the server did it by itself."),
        },
        description="A change of the number of partitions, or a try.",
    ),
    "Stream": record(
        {
            **_DESCRIBED,
            "last_modified_time": time_ms("When it was changed last"),
            "writable_partition_count": number("ACTIVE partitions.", minimum=0),
            "readable_partition_count": number("ACTIVE and DELETED partitions.", minimum=0),
            "partitions": many(ref("Partition"), "Those of this page, ascending."),
            "has_more_partitions": flag(),
            "update_partition_counts": many(ref("Scaling"), "What was scaled lately."),
        },
        {
            "retention_bytes": number(_RETENTION_BYTES, minimum=1),
            "data_schema": text("The Avro schema, as text."),
            "csv_properties": ref("CsvProperties"),
            "compression_format": choice(COMPRESSION_FORMATS),
        },
    ),
    "UpdatePartitionCountRequest": record(
        {"target_partition_count": number("More than now: scale out; fewer: scale in.", minimum=1)},
        {"stream_name": {**STREAM_NAME, "description": "As in the path."}},
    ),
    "PartitionCount": record(
        {
            "stream_name": STREAM_NAME,
            "current_partition_count": number("Before.", minimum=0),
            "target_partition_count": number("Now.", minimum=1),
        }
    ),
    "UpdatedStream": record({"stream_name": STREAM_NAME, "target_data_type": ref("DataType")}),
    "UpdateStreamRequest": record(
        {},
        {
            "stream_name": {**STREAM_NAME, "description": "As in the path."},
            "data_duration": _RETENTION,
            "retention_bytes": number(_RETENTION_BYTES + " 0: no bound.", minimum=0, maximum=MAX_RETENTION_BYTES),
            "data_type": ref("DataType"),
            "data_schema": text("An Avro schema, as text."),
            "csv_properties": ref("CsvProperties"),
            **_AUTO_SCALE,
        },
        "What is left out stays as it is.",
    ),
    "AddPolicyRequest": record(
        {
            "principal_name": text(
                "`domain.user`, `domain.*` or `domain`; several are separated by commas.", minLength=1
            ),
            "action_type": choice(ACTION_TYPES),
        },
        {
            "stream_id": {**STREAM_ID, "description": "As of the stream in the path."},
            "effect": choice((EFFECT,), "Policies allow; none denies."),
        },
    ),
    "Policy": record(
        {
            "principal": text("`id of the domain.id of the user`, or `.*` for all its users."),
            "principal_name": text("`domain.user` or `domain.*`."),
            "action_type": choice(ACTION_TYPES),
            "effect": choice((EFFECT,)),
        }
    ),
    "PolicyList": record({"stream_id": STREAM_ID, "streamId": STREAM_ID, "rules": many(ref("Policy"))}),
}

_BY_ID = {"stream_id": Parameter(SHARED_ID)}

OPERATIONS: dict[str, Operation] = {
    "create_stream": Operation(
        "Streams",
        "Create a stream",
        {201: Answer("It can be written and read.")},
        codes=("DIS.4307", "DIS.4308", "DIS.4360", "DIS.4601"),
        body=Body(
            "CreateStreamRequest",
            {
                "simple": {"stream_name": "newstream", "partition_count": 3, "data_duration": 24},
                "autoScale": {
                    "stream_name": "dis-DLpR",
                    "partition_count": 2,
                    "stream_type": "COMMON",
                    "data_duration": 24,
                    "auto_scale_enabled": True,
                    "auto_scale_min_partition_count": 2,
                    "auto_scale_max_partition_count": 10,
                },
                "schema": {
                    "stream_name": "dis-DLpS",
                    "partition_count": 1,
                    "data_type": "JSON",
                    "data_schema": _SCHEMA,
                    "tags": [{"key": "stage", "value": "test"}],
                },
            },
        ),
    ),
    "list_streams": Operation(
        "Streams",
        "List the streams of the project",
        {
            200: Answer(
                "One page, ascending by name.",
                "StreamList",
                {
                    "total_number": 1,
                    "stream_names": ["newstream"],
                    "stream_info_list": [{**_INFO, "partition_count": 1}],
                    "has_more_streams": False,
                },
            )
        },
        query={
            "limit": Parameter(number("Of one page.", minimum=1, maximum=100, default=10)),
            "start_stream_name": Parameter(text("The page begins behind this name.")),
        },
    ),
    "delete_stream": Operation(
        "Streams",
        "Delete a stream, its records, and the checkpoints on it",
        {204: Answer("It is gone.")},
        codes=("DIS.4301",),
        query=_BY_ID,
    ),
    "describe_stream": Operation(
        "Streams",
        "Describe a stream and its partitions",
        {
            200: Answer(
                "The stream, with one page of partitions. Where it is limited how fast each may be written, the header "
                "X-Disstream-Caps tells it (an extension).",
                "Stream",
                {
                    **_INFO,
                    "last_modified_time": 1599050091026,
                    "writable_partition_count": 1,
                    "readable_partition_count": 1,
                    "partitions": [
                        {
                            "status": "ACTIVE",
                            "partition_id": "shardId-0000000000",
                            "hash_range": "[0 : 9223372036854775807]",
                            "sequence_number_range": "[289911 : 289927]",
                        }
                    ],
                    "has_more_partitions": False,
                    "update_partition_counts": [],
                },
                headers={"X-Disstream-Layouts": LAYOUTS},
            )
        },
        codes=("DIS.4201", "DIS.4301", "DIS.4302"),
        query={
            "limit_partitions": Parameter(number("Of one page.", minimum=1, maximum=1000, default=100)),
            "start_partition_id": Parameter(PARTITION_ID | {"description": "The page begins behind this partition."}),
            "start_partitionId": Parameter(
                PARTITION_ID | {"description": "The same; official clients spell it so."}, deprecated=True
            ),
            **_BY_ID,
        },
    ),
    "update_partition_count": Operation(
        "Streams",
        "Change the number of partitions",
        {
            200: Answer(
                "The stream has that many.",
                "PartitionCount",
                {"stream_name": "newstream", "current_partition_count": 3, "target_partition_count": 5},
            )
        },
        codes=("DIS.4301", "DIS.4308"),
        query=_BY_ID,
        body=Body("UpdatePartitionCountRequest", {"scale": {"stream_name": "newstream", "target_partition_count": 5}}),
    ),
    "update_stream": Operation(
        "Streams",
        "Change what a stream holds, and for how long",
        {204: Answer("It is changed.")},
        codes=("DIS.4301", "DIS.4308", "DIS.4360"),
        query=_BY_ID,
        body=Body(
            "UpdateStreamRequest",
            {
                "retention": {"stream_name": "newstream", "data_duration": 48},
                "dataType": {"stream_name": "newstream", "data_type": "JSON"},
            },
        ),
    ),
    "update_stream_v2": Operation(
        "Streams",
        "Change what a stream holds, and for how long, as the classic Java SDK asks for it",
        {200: Answer("It is changed.", "UpdatedStream", {"stream_name": "newstream", "target_data_type": "BLOB"})},
        codes=("DIS.4301", "DIS.4308", "DIS.4360"),
        query=_BY_ID,
        body=Body("UpdateStreamRequest", {"retention": {"stream_name": "newstream", "data_duration": 48}}),
    ),
    "add_policy": Operation(
        "Streams",
        "Allow users of other accounts something with a stream",
        {201: Answer("They may.")},
        codes=("DIS.4301",),
        query=_BY_ID,
        body=Body(
            "AddPolicyRequest",
            {
                "user": {
                    "stream_id": "8QM3Nt9YTLOwtUVYJhO",
                    "principal_name": "domainname1.username1",
                    "action_type": "putRecords",
                    "effect": "accept",
                },
                "account": {"principal_name": "domainname1", "action_type": "getRecords", "effect": "accept"},
            },
        ),
    ),
    "list_policies": Operation(
        "Streams",
        "List what users of other accounts may do with a stream",
        {
            200: Answer(
                "All rules.",
                "PolicyList",
                {
                    "stream_id": "8QM3Nt9YTLOwtUVYJhO",
                    "streamId": "8QM3Nt9YTLOwtUVYJhO",
                    "rules": [
                        {
                            "principal": "3b3f237122574f4bb74482ae11005ba0.*",
                            "principal_name": "domainname1.*",
                            "action_type": "putRecords",
                            "effect": "accept",
                        }
                    ],
                },
            )
        },
        codes=("DIS.4301",),
        query=_BY_ID,
    ),
}
