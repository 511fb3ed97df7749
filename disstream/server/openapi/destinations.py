"""Where dump tasks copy to, for the document (API 5.5, chapter 3). Pure."""

from __future__ import annotations

from typing import Any

from ..destinations import MAX_CHARS
from ..documents import NAME
from .parts import Schema, choice, many, number, record, text, whole

TASK_NAME = text("1 to 64 letters, digits, `_` or `-`.", pattern=whole(NAME.pattern))
_WORD = text(minLength=1, maxLength=MAX_CHARS)
_PATH = "Levels are separated by `/`, and none stands at the beginning."
_PREFIX = text(_PATH, maxLength=50, pattern="^([A-Za-z0-9_][A-Za-z0-9_/]*)?$")
_BUCKET = text("A bucket.", pattern="^[a-z0-9._-]{3,63}$")
_RETRY = number("For so long, in seconds, a failed delivery is tried again.", minimum=0, maximum=7200, default=1800)
_DAYS = ("yyyy/MM/dd", "MM/dd/yyyy", "dd/MM/yyyy", "yyyy-MM-dd", "MM-dd-yyyy", "dd-MM-yyyy")
_DATES = tuple(f"{day} HH:mm:ss" for day in _DAYS)
_VALUES = choice(("Bigint", "Double", "Boolean", "Timestamp", "String", "Decimal"))
_NAME_32 = text(pattern="^[A-Za-z0-9_]{1,32}$")
_SWITCH = choice(("true", "on", "false", "off"), default="false")

_MUST: dict[str, Schema] = {"task_name": TASK_NAME, "agency_name": text("An IAM agency.", minLength=1, maxLength=64)}
_MAY: dict[str, Schema] = {
    "deliver_time_interval": number("Seconds from file to file.", minimum=30, maximum=900, default=300),
    "consumer_strategy": choice(("LATEST", "TRIM_HORIZON"), "Where the task begins to read.", default="LATEST"),
}
_DWS_MUST = (
    *("dws_cluster_name", "dws_cluster_id", "dws_database_name", "dws_schema", "dws_table_name"),
    *("user_name", "user_password", "kms_user_key_name", "kms_user_key_id"),
)

DESCRIPTORS: dict[str, Schema] = {
    "ObsDestination": record(
        {**_MUST, "obs_bucket_path": _BUCKET},
        {
            **_MAY,
            "file_prefix": _PREFIX,
            "partition_format": choice(
                ("", "yyyy", "yyyy/MM", "yyyy/MM/dd", "yyyy/MM/dd/HH", "yyyy/MM/dd/HH/mm"),
                "Directories by time.",
                default="",
            ),
            "destination_file_type": choice(
                ("text", "csv", "parquet", "carbon"), "All but text need a stream of JSON.", default="text"
            ),
            "processing_schema": record(
                {"timestamp_name": _WORD, "timestamp_type": choice(("String", "Timestamp"))},
                {"timestamp_format": choice(_DATES, "Needed for a String.")},
                "Where in a record its time stands, by which directories are chosen.",
            ),
            # Not a choice: no generator makes names of these.
            "record_delimiter": text(
                "What ends a record of a text file: `,` `;` `|`, a line feed, or nothing.",
                maxLength=4,
                default="\n",
            ),
            "deliver_size_interval": number("MB; a file of this size is delivered at once.", minimum=1, maximum=300),
        },
    ),
    "DwsDestination": record(
        {
            **_MUST,
            **{name: _WORD for name in _DWS_MUST},
            "user_password": text("It is never told again.", minLength=1, maxLength=MAX_CHARS, format="password"),
            "dws_delimiter": choice((",", ";", "|")),
            "obs_bucket_path": _BUCKET,
        },
        {
            **_MAY,
            "file_prefix": _PREFIX,
            "retry_duration": _RETRY,
            "dws_table_columns": text("Separated by commas; empty: all."),
            "options": record(
                {},
                {
                    "fill_missing_fields": _SWITCH,
                    "ignore_extra_data": _SWITCH,
                    "compatible_illegal_chars": _SWITCH,
                    "reject_limit": text("A number, or `unlimited`.", pattern="^([0-9]{1,9}|unlimited)$", default="0"),
                    "error_table_name": text(maxLength=MAX_CHARS),
                },
            ),
        },
    ),
    "MrsDestination": record(
        {
            **_MUST,
            "mrs_cluster_name": _WORD,
            "mrs_cluster_id": _WORD,
            "mrs_hdfs_path": _WORD,
            "obs_bucket_path": _BUCKET,
        },
        {
            **_MAY,
            "file_prefix": _PREFIX,
            "hdfs_prefix_folder": text(_PATH, maxLength=50),
            "retry_duration": _RETRY,
        },
    ),
    "DliDestination": record(
        {**_MUST, "dli_database_name": _WORD, "dli_table_name": _WORD, "obs_bucket_path": _BUCKET},
        {**_MAY, "file_prefix": _PREFIX, "retry_duration": _RETRY},
    ),
    "CloudtableDestination": record(
        {**_MUST, "cloudtable_cluster_name": _WORD, "cloudtable_cluster_id": _WORD},
        {
            **_MAY,
            "cloudtable_table_name": {**_WORD, "description": "Needed with `cloudtable_schema`."},
            "cloudtable_schema": record(
                {
                    "row_key": many(record({"value": _WORD, "type": _VALUES}), minItems=1, maxItems=64),
                    "columns": many(
                        record(
                            {
                                "column_family_name": _WORD,
                                "column_name": _NAME_32,
                                "value": _WORD,
                                "type": _VALUES,
                            }
                        ),
                        minItems=1,
                        maxItems=4096,
                    ),
                },
                description="For HBase: this or `opentsdb_schema` is needed.",
            ),
            "opentsdb_schema": many(
                record(
                    {
                        "metric": many(
                            record(
                                {"type": choice(("Constant", "String")), "value": text(pattern="^[A-Za-z0-9.]{1,32}$")}
                            ),
                            minItems=1,
                        ),
                        "timestamp": record(
                            {"type": choice(("Timestamp", "String")), "value": _NAME_32},
                            {"format": choice(_DATES, "Needed for a String.")},
                        ),
                        "value": record({"type": _VALUES, "value": _NAME_32}),
                        "tags": many(record({"name": _NAME_32, "type": _VALUES, "value": _NAME_32}), minItems=1),
                    }
                ),
                "For OpenTSDB: this or `cloudtable_schema` is needed.",
                minItems=1,
            ),
            "cloudtable_row_key_delimiter": choice((",", ".", "|", ";", "\\", "-", "_", "~"), default="."),
            "obs_backup_bucket_path": _BUCKET,
            "backup_file_prefix": _PREFIX,
            "retry_duration": _RETRY,
        },
    ),
}


def _described(wanted: Schema) -> Schema:
    """What is told of a destination: what it was created with, but no password."""
    properties = {**wanted["properties"], "retry_duration": _RETRY}  # which OBS has only here
    must = {name: properties.pop(name) for name in wanted["required"]}
    must.pop("user_password", None)
    return record(must, properties)


DESCRIPTIONS = {name.replace("Destination", "Description"): _described(wanted) for name, wanted in DESCRIPTORS.items()}

OBS = {
    "consumer_strategy": "LATEST",
    "agency_name": "dis_admin_agency",
    "destination_file_type": "text",
    "obs_bucket_path": "obsbucket",
    "file_prefix": "",
    "partition_format": "yyyy/MM/dd/HH/mm",
    "record_delimiter": "|",
    "deliver_time_interval": 30,
}
EXAMPLES: dict[str, Any] = {
    "obs": {"destination_type": "OBS", "obs_destination_descriptor": {"task_name": "newtask", **OBS}},
    "dws": {
        "destination_type": "DWS",
        "dws_destination_descriptor": {
            "task_name": "dwstask",
            "consumer_strategy": "LATEST",
            "agency_name": "dis_admin_agency",
            "dws_cluster_name": "dwscluster",
            "dws_cluster_id": "f82dc227-3691-47eb-bca7-e7851f509b2a",
            "dws_database_name": "postgres",
            "dws_schema": "dbadmin",
            "dws_table_name": "dwstablename",
            "dws_delimiter": "|",
            "user_name": "dbadmin",
            "user_password": "a password",
            "kms_user_key_name": "kmskey",
            "kms_user_key_id": "1e759f06-9188-4d21-afab-a75e57c04d2b",
            "obs_bucket_path": "obsbucket",
            "file_prefix": "",
            "deliver_time_interval": 60,
            "retry_duration": 1800,
            "options": {"fill_missing_fields": "false", "reject_limit": "unlimited"},
        },
    },
    "mrs": {
        "destination_type": "MRS",
        "mrs_destination_descriptor": {
            "task_name": "mrstask",
            "consumer_strategy": "LATEST",
            "agency_name": "dis_admin_agency",
            "mrs_cluster_id": "f8123fa6-99f1-4ed9-83f4-c827c7277d41",
            "mrs_cluster_name": "mrscluster",
            "mrs_hdfs_path": "/user",
            "obs_bucket_path": "obsbucket",
            "hdfs_prefix_folder": "",
            "deliver_time_interval": 30,
            "retry_duration": 1800,
        },
    },
    "dli": {
        "destination_type": "DLI",
        "dli_destination_descriptor": {
            "task_name": "dlitask",
            "consumer_strategy": "LATEST",
            "agency_name": "dis_admin_agency",
            "dli_database_name": "dlidatabasename",
            "dli_table_name": "dlitablename",
            "obs_bucket_path": "obsbucket",
            "deliver_time_interval": 300,
            "retry_duration": 300,
        },
    },
    "hbase": {
        "destination_type": "CLOUDTABLE",
        "cloudtable_destination_descriptor": {
            "task_name": "hbasetask",
            "consumer_strategy": "TRIM_HORIZON",
            "agency_name": "dis_admin_agency",
            "cloudtable_cluster_name": "cloudtablecluster",
            "cloudtable_cluster_id": "b8c095e2-db5f-4732-8a1d-eacd662e35dc",
            "cloudtable_table_name": "cloudtabletable",
            "cloudtable_row_key_delimiter": "|",
            "cloudtable_schema": {
                "row_key": [{"value": "datavalue", "type": "String"}],
                "columns": [
                    {"column_family_name": "cfname1", "column_name": "ID", "value": "datavalue1", "type": "String"}
                ],
            },
            "retry_duration": 1800,
        },
    },
    "opentsdb": {
        "destination_type": "CLOUDTABLE",
        "cloudtable_destination_descriptor": {
            "task_name": "opentsdbtask",
            "agency_name": "dis_admin_agency",
            "cloudtable_cluster_name": "cloudtablecluster",
            "cloudtable_cluster_id": "b8c095e2-db5f-4732-8a1d-eacd662e35dc",
            "opentsdb_schema": [
                {
                    "metric": [{"type": "Constant", "value": "age"}],
                    "timestamp": {"value": "date", "type": "String", "format": "yyyy/MM/dd HH:mm:ss"},
                    "value": {"value": "value", "type": "Bigint"},
                    "tags": [{"name": "name", "value": "name", "type": "Bigint"}],
                }
            ],
        },
    },
}
