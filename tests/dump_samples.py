"""The reference's samples of dump tasks, as they stand on the wire and as values of ours."""

from __future__ import annotations

from typing import Any, NamedTuple

from disstream.destinations import (
    CloudTableColumn,
    CloudTableDump,
    CloudTableRowKey,
    CloudTableSchema,
    DliDump,
    Dump,
    DwsDump,
    DwsOptions,
    MrsDump,
    ObsDump,
    OpenTsdbMetric,
    OpenTsdbSchema,
    OpenTsdbTag,
    OpenTsdbTimestamp,
    OpenTsdbValue,
)

PASSWORD = "userpassword"


class Sample(NamedTuple):
    """`told`: the descriptor as our server describes it: with every default, without a password."""

    body: dict[str, Any]
    destination: Dump
    told: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.body["destination_type"])

    @property
    def where(self) -> str:
        return f"{self.kind.lower()}_destination_descriptor"

    @property
    def descriptor(self) -> dict[str, Any]:
        return dict(self.body[self.where])

    def with_fields(self, **fields: Any) -> dict[str, Any]:
        """The request with other fields in its descriptor."""
        return {**self.body, self.where: {**self.descriptor, **fields}}

    def without(self, field: str) -> dict[str, Any]:
        return {**self.body, self.where: {k: v for k, v in self.descriptor.items() if k != field}}


def _sample(kind: str, destination: Dump, told: dict[str, Any] | None = None, **descriptor: Any) -> Sample:
    body = {"destination_type": kind, f"{kind.lower()}_destination_descriptor": descriptor}
    shown = {"deliver_time_interval": 300, **descriptor, **(told or {})}
    shown.pop("user_password", None)
    return Sample(body, destination, shown)


_COMMON: dict[str, Any] = {"consumer_strategy": "LATEST", "agency_name": "dis_admin_agency"}


def _obs(file_type: str) -> Sample:
    return _sample(
        "OBS",
        ObsDump(
            task_name="newtask",
            agency_name="dis_admin_agency",
            destination_file_type=file_type,
            obs_bucket_path="obsbucket",
            partition_format="yyyy/MM/dd/HH/mm",
            record_delimiter="|",
            deliver_interval_s=30,
        ),
        {"retry_duration": 0},
        **_COMMON,
        task_name="newtask",
        destination_file_type=file_type,
        obs_bucket_path="obsbucket",
        file_prefix="",
        partition_format="yyyy/MM/dd/HH/mm",
        record_delimiter="|",
        deliver_time_interval=30,
    )


_DWS = _sample(
    "DWS",
    DwsDump(
        task_name="dwstask",
        agency_name="dis_admin_agency",
        dws_cluster_name="dwscluster",
        dws_cluster_id="f82dc227-3691-47eb-bca7-e7851f509b2a",
        dws_database_name="postgres",
        dws_schema="dbadmin",
        dws_table_name="dwstablename",
        dws_delimiter="|",
        user_name="dbadmin",
        user_password=PASSWORD,
        kms_user_key_name="kmskey",
        kms_user_key_id="1e759f06-9188-4d21-afab-a75e57c04d2b",
        obs_bucket_path="obsbucket",
        deliver_interval_s=60,
        retry_s=1800,
        options=DwsOptions(),
    ),
    {
        "options": {
            "fill_missing_fields": "false",
            "ignore_extra_data": "false",
            "compatible_illegal_chars": "false",
            "reject_limit": "0",
        }
    },
    **_COMMON,
    task_name="dwstask",
    dws_cluster_name="dwscluster",
    dws_cluster_id="f82dc227-3691-47eb-bca7-e7851f509b2a",
    dws_database_name="postgres",
    dws_schema="dbadmin",
    dws_table_name="dwstablename",
    dws_delimiter="|",
    user_name="dbadmin",
    user_password=PASSWORD,
    kms_user_key_name="kmskey",
    kms_user_key_id="1e759f06-9188-4d21-afab-a75e57c04d2b",
    obs_bucket_path="obsbucket",
    file_prefix="",
    deliver_time_interval=60,
    retry_duration=1800,
    options={
        "fill_missing_fields": "false",
        "ignore_extra_data": "false",
        "compatible_illegal_chars": "false",
    },
)

_MRS = _sample(
    "MRS",
    MrsDump(
        task_name="mrstask",
        agency_name="dis_admin_agency",
        mrs_cluster_name="mrscluster",
        mrs_cluster_id="f8123fa6-99f1-4ed9-83f4-c827c7277d41",
        mrs_hdfs_path="/user",
        obs_bucket_path="obsbucket",
        deliver_interval_s=30,
    ),
    **_COMMON,
    task_name="mrstask",
    destination_file_type="text",
    mrs_cluster_id="f8123fa6-99f1-4ed9-83f4-c827c7277d41",
    mrs_cluster_name="mrscluster",
    mrs_hdfs_path="/user",
    obs_bucket_path="obsbucket",
    file_prefix="",
    hdfs_prefix_folder="",
    deliver_time_interval=30,
    retry_duration=1800,
)
del _MRS.told["destination_file_type"]  # no field of it: let through, and not kept

_DLI = _sample(
    "DLI",
    DliDump(
        task_name="dlitask",
        agency_name="dis_admin_agency",
        dli_database_name="dlidatabasename",
        dli_table_name="dlitablename",
        obs_bucket_path="obsbucket",
        deliver_interval_s=300,
        retry_s=300,
    ),
    **_COMMON,
    task_name="dlitask",
    dli_database_name="dlidatabasename",
    dli_table_name="dlitablename",
    obs_bucket_path="obsbucket",
    file_prefix="",
    deliver_time_interval=300,
    retry_duration=300,
)

_CLUSTER: dict[str, Any] = {
    "agency_name": "dis_admin_agency",
    "cloudtable_cluster_name": "cloudtablecluster",
    "cloudtable_cluster_id": "b8c095e2-db5f-4732-8a1d-eacd662e35dc",
    "retry_duration": 1800,
    "obs_backup_bucket_path": "obsbackupbucket",
    "backup_file_prefix": "",
}

_HBASE = _sample(
    "CLOUDTABLE",
    CloudTableDump(
        task_name="hbasetask",
        agency_name="dis_admin_agency",
        consumer_strategy="TRIM_HORIZON",
        cloudtable_cluster_name="cloudtablecluster",
        cloudtable_cluster_id="b8c095e2-db5f-4732-8a1d-eacd662e35dc",
        cloudtable_table_name="cloudtabletable",
        cloudtable_row_key_delimiter="|",
        obs_backup_bucket_path="obsbackupbucket",
        cloudtable_schema=CloudTableSchema(
            row_key=(CloudTableRowKey(value="datavalue", type="String"),),
            columns=(
                CloudTableColumn(column_family_name="cfname1", column_name="ID", value="datavalue1", type="String"),
                CloudTableColumn(column_family_name="cfname2", column_name="VALUE", value="datavalue2", type="String"),
            ),
        ),
    ),
    **_CLUSTER,
    task_name="hbasetask",
    consumer_strategy="TRIM_HORIZON",
    cloudtable_table_name="cloudtabletable",
    cloudtable_row_key_delimiter="|",
    cloudtable_schema={
        "row_key": [{"value": "datavalue", "type": "String"}],
        "columns": [
            {"column_family_name": "cfname1", "column_name": "ID", "value": "datavalue1", "type": "String"},
            {"column_family_name": "cfname2", "column_name": "VALUE", "value": "datavalue2", "type": "String"},
        ],
    },
)

_OPENTSDB = _sample(
    "CLOUDTABLE",
    CloudTableDump(
        task_name="opentsdbtask",
        agency_name="dis_admin_agency",
        cloudtable_cluster_name="cloudtablecluster",
        cloudtable_cluster_id="b8c095e2-db5f-4732-8a1d-eacd662e35dc",
        obs_backup_bucket_path="obsbackupbucket",
        opentsdb_schema=(
            OpenTsdbSchema(
                metric=(OpenTsdbMetric(type="Constant", value="age"),),
                timestamp=OpenTsdbTimestamp(value="date", type="String", format="yyyy/MM/dd HH:mm:ss"),
                value=OpenTsdbValue(value="value", type="Bigint"),
                tags=(OpenTsdbTag(name="name", value="name", type="Bigint"),),
            ),
        ),
    ),
    {"cloudtable_row_key_delimiter": "."},
    **_CLUSTER,
    task_name="opentsdbtask",
    consumer_strategy="LATEST",
    opentsdb_schema=[
        {
            "metric": [{"type": "Constant", "value": "age"}],
            "timestamp": {"value": "date", "type": "String", "format": "yyyy/MM/dd HH:mm:ss"},
            "value": {"value": "value", "type": "Bigint"},
            "tags": [{"name": "name", "value": "name", "type": "Bigint"}],
        }
    ],
)

SAMPLES = {
    "obs text": _obs("text"),
    "obs parquet": _obs("parquet"),
    "dws": _DWS,
    "mrs": _MRS,
    "dli": _DLI,
    "hbase": _HBASE,
    "opentsdb": _OPENTSDB,
}
