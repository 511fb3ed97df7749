"""Dump tasks as values: where a stream is copied to, and how far the copy is (API 5.5).

A destination is a `ObsDump`, `DwsDump`, `MrsDump`, `DliDump` or `CloudTableDump`. Its fields have the names of the API,
except where a unit belongs to them (`deliver_interval_s` is `deliver_time_interval`); the API says what the service
accepts, and the service checks it.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from .model import PartitionInfo


class Dump(msgspec.Struct, frozen=True, kw_only=True):
    """What all destinations have in common.

    `task_name`: 1 to 64 letters, digits, - or _, unique in the stream. `agency_name`: the IAM agency that lets DIS
    write there. `deliver_interval_s`: 30 to 900. `consumer_strategy`: LATEST copies what comes from now on,
    TRIM_HORIZON also what is still there.
    """

    destination_type: ClassVar[str]

    task_name: str
    agency_name: str
    deliver_interval_s: int = msgspec.field(default=300, name="deliver_time_interval")
    consumer_strategy: str = "LATEST"


class ProcessingSchema(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Time directories by a timestamp in the record: the attribute `timestamp_name`, which is a Timestamp (13 digits)
    or a String in the format `timestamp_format`, like "yyyy/MM/dd HH:mm:ss".
    """

    timestamp_name: str
    timestamp_type: str
    timestamp_format: str | None = None


class ObsDump(Dump, frozen=True, kw_only=True):
    """Files in a bucket of OBS.

    `partition_format`: the time directories, "yyyy" to "yyyy/MM/dd/HH/mm", or none. `destination_file_type`: text, or
    for JSON streams parquet, carbon or csv. `record_delimiter` of text files: one of `,` `;` `|` and a line end, or
    none. `deliver_size_mb`: deliver earlier when so much has gathered, 1 to 300.
    """

    destination_type: ClassVar[str] = "OBS"

    obs_bucket_path: str
    file_prefix: str = ""
    partition_format: str = ""
    destination_file_type: str = "text"
    record_delimiter: str = "\n"
    processing_schema: ProcessingSchema | None = None
    deliver_size_mb: int | None = msgspec.field(default=None, name="deliver_size_interval")


class DwsOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How tolerant the import is of bad rows. `reject_limit`: how many it bears; None: any number."""

    fill_missing_fields: bool = False
    ignore_extra_data: bool = False
    compatible_illegal_chars: bool = False
    reject_limit: int | None = 0
    error_table_name: str | None = None


class DwsDump(Dump, frozen=True, kw_only=True):
    """Rows of a table of DWS, by way of a bucket.

    `dws_delimiter` separates the columns in a record: one of `,` `;` `|`. `dws_table_columns`: names with commas
    between; None: all columns. `retry_s`: how long a failed delivery is tried again, 0 to 7200. `user_password` is sent
    to the service and never told by it ("" in what was described).
    """

    destination_type: ClassVar[str] = "DWS"

    dws_cluster_name: str
    dws_cluster_id: str
    dws_database_name: str
    dws_schema: str
    dws_table_name: str
    dws_delimiter: str
    user_name: str
    user_password: str
    kms_user_key_name: str
    kms_user_key_id: str
    obs_bucket_path: str
    file_prefix: str = ""
    retry_s: int = msgspec.field(default=1800, name="retry_duration")
    dws_table_columns: str | None = None
    options: DwsOptions | None = None

    def __rich_repr__(self) -> list[tuple[str, Any]]:  # without the password
        return [(name, getattr(self, name)) for name in self.__struct_fields__ if name != "user_password"]

    def __repr__(self) -> str:
        return f"DwsDump({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


class MrsDump(Dump, frozen=True, kw_only=True):
    """Files in the HDFS of an MRS cluster without Kerberos, by way of a bucket. `retry_s`: as `DwsDump`."""

    destination_type: ClassVar[str] = "MRS"

    mrs_cluster_name: str
    mrs_cluster_id: str
    mrs_hdfs_path: str
    obs_bucket_path: str
    file_prefix: str = ""
    hdfs_prefix_folder: str = ""
    retry_s: int = msgspec.field(default=1800, name="retry_duration")


class DliDump(Dump, frozen=True, kw_only=True):
    """Rows of a table of DLI, by way of a bucket. `retry_s`: as `DwsDump`."""

    destination_type: ClassVar[str] = "DLI"

    dli_database_name: str
    dli_table_name: str
    obs_bucket_path: str
    file_prefix: str = ""
    retry_s: int = msgspec.field(default=1800, name="retry_duration")


class CloudTableRowKey(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the row key, from the JSON attribute `value`.

    `type`: Bigint, Double, Boolean, Timestamp, String or Decimal.
    """

    value: str
    type: str


class CloudTableColumn(msgspec.Struct, frozen=True, kw_only=True):
    """A column and the JSON attribute it takes; `type` as of a row key."""

    column_family_name: str
    column_name: str
    value: str
    type: str


class CloudTableSchema(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes a row of HBase: 1 to 64 parts of the key, 1 to 4096 columns."""

    row_key: tuple[CloudTableRowKey, ...]
    columns: tuple[CloudTableColumn, ...]


class OpenTsdbMetric(msgspec.Struct, frozen=True, kw_only=True):
    """`type`: Constant (the name is `value`) or String (it is in the JSON attribute `value`)."""

    type: str
    value: str


class OpenTsdbTimestamp(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The JSON attribute `value`: a Timestamp, or a String in `format`, like "yyyy/MM/dd HH:mm:ss"."""

    type: str
    value: str
    format: str | None = None


class OpenTsdbValue(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON attribute `value`; `type` as of a row key."""

    type: str
    value: str


class OpenTsdbTag(msgspec.Struct, frozen=True, kw_only=True):
    """A tag and the JSON attribute it takes; `type` as of a row key."""

    name: str
    type: str
    value: str


class OpenTsdbSchema(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes a point of OpenTSDB."""

    metric: tuple[OpenTsdbMetric, ...]
    timestamp: OpenTsdbTimestamp
    value: OpenTsdbValue
    tags: tuple[OpenTsdbTag, ...]


class CloudTableDump(Dump, frozen=True, kw_only=True):
    """Rows of HBase (`cloudtable_table_name` and `cloudtable_schema`) or points of OpenTSDB (`opentsdb_schema`) in a
    CloudTable cluster. For JSON streams only.

    `cloudtable_row_key_delimiter`: one of `,` `.` `|` `;` `\\` `-` `_` `~`. `obs_backup_bucket_path`: where that goes
    which could not be delivered in `retry_s` (0 to 7200).
    """

    destination_type: ClassVar[str] = "CLOUDTABLE"

    cloudtable_cluster_name: str
    cloudtable_cluster_id: str
    cloudtable_table_name: str | None = None
    cloudtable_schema: CloudTableSchema | None = None
    opentsdb_schema: tuple[OpenTsdbSchema, ...] | None = None
    cloudtable_row_key_delimiter: str = "."
    obs_backup_bucket_path: str | None = None
    backup_file_prefix: str = ""
    retry_s: int = msgspec.field(default=1800, name="retry_duration")


DESTINATIONS: dict[str, type[Dump]] = {
    kind.destination_type: kind for kind in (ObsDump, DwsDump, MrsDump, DliDump, CloudTableDump)
}
"""Destination type, as it stands on the wire -> its class."""


class DumpTask(msgspec.Struct, frozen=True, kw_only=True):
    """A dump task as listed (API 5.5.2).

    `state`: STARTING, RUNNING, PAUSED, ABNORMAL, ERROR or DELETE; `state_reason` says why, if the service does.
    `task_id` is "" where the service does not tell it. Times are ms since the epoch; 0: nothing was copied yet.
    """

    name: str
    task_id: str = ""
    state: str = ""
    state_reason: str = ""
    destination_type: str = ""
    create_time: int = 0
    last_transfer_timestamp: int = 0


class DumpProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a dump task is in one partition.

    `start_offset`: the sequence number at which copying begins (an extension; None without it), `last_transfer_offset`:
    the last one that was copied, None: none was. `discarded`: records that could not be delivered and were given up.
    """

    partition: PartitionInfo
    state: str = ""
    discarded: int = 0
    last_transfer_timestamp: int = 0
    last_transfer_offset: int | None = None
    start_offset: int | None = None

    @property
    def partition_id(self) -> str:
        return self.partition.partition_id


class DumpTaskInfo(DumpTask, frozen=True, kw_only=True):
    """A dump task as described (API 5.5.4). `destination` is None for a type this version does not know."""

    stream: str = ""
    stream_id: str = ""
    destination: Dump | None = None
    partitions: tuple[DumpProgress, ...] = ()
