"""What the destination of a dump task must satisfy: every field of every destination, by its name and value."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from dump_samples import PASSWORD, SAMPLES, Sample
from hypothesis import given
from hypothesis import strategies as st

from disstream.destinations import CloudTableDump, Dump, DwsDump, DwsOptions, ObsDump, ProcessingSchema
from disstream.errors import ApiError
from disstream.model import PartitionInfo
from disstream.server.destinations import MAX_CHARS, check_suits, wanted
from disstream.server.dumping import (
    ABNORMAL,
    MAX_BODY_BYTES,
    PAUSED,
    check_size,
    decode_head,
    decode_task,
    description,
    encode_task,
    new_task,
    summary,
)
from disstream.wire.dumps import decode_create

OBS, DWS, MRS, DLI, HBASE, OPENTSDB = (SAMPLES[name] for name in ("obs text", "dws", "mrs", "dli", "hbase", "opentsdb"))
LONG = "x" * (MAX_CHARS + 1)


def asked(body: dict[str, Any]) -> Dump:
    return wanted(decode_create(json.dumps(body).encode()))


def refusal(body: dict[str, Any]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        asked(body)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_the_samples(sample: Sample) -> None:
    """Each is what it says, but for the password; keys it does not know, and null for what may be absent, are fine."""
    kept = {"user_password": ""} if sample.kind == "DWS" else {}
    meant = msgspec.structs.replace(sample.destination, **kept)
    assert asked(sample.body) == meant
    optional = dict.fromkeys(("options", "opentsdb_schema", "cloudtable_schema", "processing_schema"))
    nothing = {key: value for key, value in optional.items() if key not in sample.descriptor}
    assert asked(sample.with_fields(**nothing, task_type="x", **{'file_prefix"': "no"})) == meant


TEXTS = {  # what the API bounds by nothing but being there
    "dws_cluster_name": DWS,
    "dws_cluster_id": DWS,
    "dws_database_name": DWS,
    "dws_schema": DWS,
    "dws_table_name": DWS,
    "user_name": DWS,
    "kms_user_key_name": DWS,
    "kms_user_key_id": DWS,
    "mrs_cluster_name": MRS,
    "mrs_cluster_id": MRS,
    "mrs_hdfs_path": MRS,
    "dli_database_name": DLI,
    "dli_table_name": DLI,
    "cloudtable_cluster_name": HBASE,
    "cloudtable_cluster_id": HBASE,
    "cloudtable_table_name": HBASE,
}
BUCKETS = ["ab", "x" * 64, "Upper", "a/b", "a b", 5]
PREFIXES = ["/a", "a-b", "a b", "x" * 51, 5]
RETRIES = [-1, 7_201, "7201", "soon", 1.5, True, [], {}]


def bad_values() -> Iterator[tuple[Sample, str, Any]]:
    """(sample, field, a value it cannot have); "" and missing are tested apart."""
    wrong: list[tuple[tuple[Sample, ...], str, list[Any]]] = [
        ((OBS, DWS, MRS, DLI, HBASE, OPENTSDB), "task_name", ["a b", "x" * 65, "ä", 5, [], {}, True]),
        ((OBS, DWS, MRS, DLI, HBASE, OPENTSDB), "agency_name", [5, [], "a\nb"]),
        (
            (OBS, DWS, MRS, DLI, HBASE, OPENTSDB),
            "deliver_time_interval",
            [29, 901, "29", "x", 30.5, True, [], 2**62, 10**40],
        ),
        ((OBS, DWS, MRS, DLI, HBASE, OPENTSDB), "consumer_strategy", ["latest", "AT", 5, []]),
        ((OBS, DWS, MRS, DLI), "obs_bucket_path", BUCKETS),
        ((OBS, DWS, MRS, DLI), "file_prefix", PREFIXES),
        ((DWS, MRS, DLI, HBASE, OPENTSDB), "retry_duration", RETRIES),
        ((OBS,), "partition_format", ["yyyy-MM", "MM", 5]),
        ((OBS,), "destination_file_type", ["orc", 5]),
        ((OBS,), "record_delimiter", ["||", "\t", 5]),
        ((OBS,), "deliver_size_interval", [0, 301, "301", "x", True]),
        ((OBS,), "processing_schema", [5, []]),
        ((DWS,), "dws_delimiter", ["\t", "||", 5]),
        ((DWS,), "dws_table_columns", [",", "a,", "a,,b", "a\n", "x" * 65_537, 5]),
        ((DWS,), "options", [5, []]),
        ((MRS,), "hdfs_prefix_folder", ["x" * 51, "a\nb", 5]),
        ((HBASE, OPENTSDB), "cloudtable_row_key_delimiter", ["/", "..", 5]),
        ((HBASE, OPENTSDB), "obs_backup_bucket_path", BUCKETS),
        ((HBASE, OPENTSDB), "backup_file_prefix", PREFIXES),
        *(((sample,), field, [LONG, "a\x00b", "a\x1b[31m", 5, [], {}, True]) for field, sample in TEXTS.items()),
    ]
    for samples, field, values in wrong:
        for sample in samples:
            for value in values:
                yield sample, field, value


@pytest.mark.parametrize(
    ("sample", "field", "value"),
    [pytest.param(*case, id=f"{case[0].kind}-{case[1]}-{case[2]!r:.20}") for case in bad_values()],
)
def test_wrong_fields(sample: Sample, field: str, value: Any) -> None:
    """DIS.4200, which names the descriptor and the field, and shows a short value."""
    error = refusal(sample.with_fields(**{field: value}))
    assert error.code == "DIS.4200"
    assert f"{sample.where}.{field}" in error.message
    assert len(error.message) < 400
    if isinstance(value, str) and len(value) < 20:
        assert repr(value) in error.message


@pytest.mark.parametrize(
    ("sample", "field"),
    [
        *((sample, "task_name") for sample in (OBS, DWS, MRS, DLI, HBASE, OPENTSDB)),
        *((sample, "obs_bucket_path") for sample in (OBS, DWS, MRS, DLI)),
        *((sample, field) for field, sample in TEXTS.items()),
        (DWS, "dws_delimiter"),
        (DWS, "user_password"),
        (HBASE, "cloudtable_schema"),
        (OPENTSDB, "opentsdb_schema"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
def test_missing_fields(sample: Sample, field: str) -> None:
    """What must be there is missed, whether it is absent, null or empty."""
    empty: Any = [] if field == "opentsdb_schema" else ""
    for body in (sample.without(field), sample.with_fields(**{field: None}), sample.with_fields(**{field: empty})):
        error = refusal(body)
        assert error.code == "DIS.4200"
        assert field in error.message


@pytest.mark.parametrize("agency", [None, "", "x" * 65])
def test_agencies_that_cannot_be(agency: str | None) -> None:
    """None, or a name longer than any: DIS.4335. 64 characters are fine."""
    for sample in SAMPLES.values():
        assert refusal(sample.with_fields(agency_name=agency)).code == "DIS.4335"
        assert refusal(sample.without("agency_name")).code == "DIS.4335"
    assert asked(OBS.with_fields(agency_name="x" * 64)).agency_name == "x" * 64


@pytest.mark.parametrize("password", [5, True, [PASSWORD], {PASSWORD: 1}, PASSWORD * 200])
def test_a_wrong_password_is_not_told(password: Any) -> None:
    """The refusal names the field alone."""
    error = refusal(DWS.with_fields(user_password=password))
    assert (error.code, PASSWORD in error.message) == ("DIS.4200", False)
    assert "dws_destination_descriptor.user_password" in error.message


@pytest.mark.parametrize(
    ("fields", "meant"),
    [
        ({"deliver_time_interval": None}, {"deliver_interval_s": 300}),
        ({"deliver_time_interval": ""}, {"deliver_interval_s": 300}),
        ({"deliver_time_interval": "900"}, {"deliver_interval_s": 900}),
        ({"deliver_size_interval": 300}, {"deliver_size_mb": 300}),
        ({"deliver_size_interval": "1"}, {"deliver_size_mb": 1}),
        ({"consumer_strategy": ""}, {"consumer_strategy": "LATEST"}),
        ({"consumer_strategy": "TRIM_HORIZON"}, {"consumer_strategy": "TRIM_HORIZON"}),
        ({"partition_format": ""}, {"partition_format": ""}),
        ({"partition_format": "N/A"}, {"partition_format": ""}),
        ({"partition_format": "yyyy"}, {"partition_format": "yyyy"}),
        ({"destination_file_type": "Text"}, {"destination_file_type": "text"}),
        ({"destination_file_type": "CARBON"}, {"destination_file_type": "carbon"}),
        ({"destination_file_type": ""}, {"destination_file_type": "text"}),
        ({"record_delimiter": None}, {"record_delimiter": "\n"}),
        ({"record_delimiter": "\n"}, {"record_delimiter": "\n"}),
        ({"record_delimiter": ""}, {"record_delimiter": ""}),
        ({"record_delimiter": "NULL"}, {"record_delimiter": ""}),
        ({"file_prefix": "a/b_1"}, {"file_prefix": "a/b_1"}),
        ({"obs_bucket_path": "a-b_c.1"}, {"obs_bucket_path": "a-b_c.1"}),
        ({"retry_duration": "anything"}, {}),
    ],
)
def test_defaults_of_obs(fields: dict[str, Any], meant: dict[str, Any]) -> None:
    """What is absent has the documented default; numbers may be texts; `retry_duration` is none of its fields."""
    assert asked(OBS.with_fields(**fields)) == msgspec.structs.replace(OBS.destination, **meant)


@pytest.mark.parametrize("sample", [DWS, MRS, DLI, HBASE], ids=lambda s: s.kind)
@pytest.mark.parametrize(("told", "meant"), [(None, 1800), ("", 1800), (0, 0), ("0", 0), ("7200", 7200)])
def test_retrying(sample: Sample, told: Any, meant: int) -> None:
    """A number or a text of one; half an hour if none is given."""
    retry_s = getattr(asked(sample.with_fields(retry_duration=told)), "retry_s")  # noqa: B009 - not of every type
    assert retry_s == meant


@pytest.mark.parametrize("form", ["yyyy/MM/dd HH:mm:ss", "dd-MM-yyyy HH:mm:ss"])
def test_time_directories_of_records(form: str) -> None:
    """A String needs one of six formats, a Timestamp none; nothing else is a type."""
    schema = {"timestamp_name": "at", "timestamp_type": "String", "timestamp_format": form}
    found = asked(OBS.with_fields(processing_schema=schema))
    assert isinstance(found, ObsDump)
    assert found.processing_schema == ProcessingSchema(
        timestamp_name="at", timestamp_type="String", timestamp_format=form
    )
    found = asked(OBS.with_fields(processing_schema={**schema, "timestamp_type": "Timestamp"}))
    assert isinstance(found, ObsDump)
    assert found.processing_schema == ProcessingSchema(timestamp_name="at", timestamp_type="Timestamp")
    wrong: list[tuple[str, Any]] = [
        ("timestamp_name", ""),
        ("timestamp_name", LONG),
        ("timestamp_type", "Long"),
        ("timestamp_type", None),
        ("timestamp_format", "yyyy"),
        ("timestamp_format", None),
    ]
    for field, value in wrong:
        error = refusal(OBS.with_fields(processing_schema={**schema, field: value}))
        assert error.code == "DIS.4200"
        assert f"obs_destination_descriptor.processing_schema.{field}" in error.message


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ({}, DwsOptions()),
        (dict.fromkeys(("fill_missing_fields", "reject_limit", "error_table_name"), ""), DwsOptions()),
        ({"fill_missing_fields": True, "ignore_extra_data": False}, DwsOptions(fill_missing_fields=True)),
        ({"fill_missing_fields": "On", "ignore_extra_data": "TRUE/ON"},
         DwsOptions(fill_missing_fields=True, ignore_extra_data=True)),
        ({"fill_missing_fields": "false/off", "ignore_extra_data": "Off"}, DwsOptions()),
        ({"compatible_invalid_chars": "true"}, DwsOptions(compatible_illegal_chars=True)),
        ({"compatible_illegal_chars": "false", "compatible_invalid_chars": "true"}, DwsOptions()),
        ({"reject_limit": "unlimited", "error_table_name": "e"}, DwsOptions(reject_limit=None, error_table_name="e")),
        ({"reject_limit": 5}, DwsOptions(reject_limit=5)),
        ({"reject_limit": "5"}, DwsOptions(reject_limit=5)),
    ],
)  # fmt: skip
def test_options_of_dws(told: dict[str, Any], meant: DwsOptions) -> None:
    """Booleans in every form; the other name of the third counts where the first is absent."""
    found = asked(DWS.with_fields(options=told, dws_table_columns="c1,c2"))
    assert isinstance(found, DwsDump)
    assert (found.options, found.dws_table_columns) == (meant, "c1,c2")


WRONG_FLAGS: list[Any] = ["yes", 1, [], "truefalse"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, value) for name in ("fill_missing_fields", "ignore_extra_data", "compatible_illegal_chars")
          for value in WRONG_FLAGS),
        ("reject_limit", "many"),
        ("reject_limit", -1),
        ("reject_limit", True),
        ("error_table_name", LONG),
        ("error_table_name", 5),
    ],
)  # fmt: skip
def test_wrong_options_of_dws(field: str, value: Any) -> None:
    """Named with the object they stand in."""
    error = refusal(DWS.with_fields(options={field: value}))
    assert error.code == "DIS.4200"
    assert f"dws_destination_descriptor.options.{field}" in error.message


HBASE_SCHEMA: dict[str, Any] = HBASE.descriptor["cloudtable_schema"]
KEY, COLUMN = HBASE_SCHEMA["row_key"][0], HBASE_SCHEMA["columns"][0]


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        (5, "cloudtable_schema"),
        ([], "cloudtable_schema"),
        ({}, "row_key"),
        ({"columns": [COLUMN]}, "row_key"),
        ({"row_key": [], "columns": [COLUMN]}, "row_key"),
        ({"row_key": [KEY] * 65, "columns": [COLUMN]}, "row_key"),
        ({"row_key": [5], "columns": [COLUMN]}, "row_key[0]"),
        ({"row_key": [KEY, {**KEY, "type": "Long"}], "columns": [COLUMN]}, "row_key[1].type"),
        ({"row_key": [{**KEY, "value": ""}], "columns": [COLUMN]}, "row_key[0].value"),
        ({"row_key": [{**KEY, "value": LONG}], "columns": [COLUMN]}, "row_key[0].value"),
        ({"row_key": [KEY]}, "columns"),
        ({"row_key": [KEY], "columns": {}}, "columns"),
        ({"row_key": [KEY], "columns": []}, "columns"),
        ({"row_key": [KEY], "columns": [COLUMN] * 4_097}, "columns"),
        ({"row_key": [KEY], "columns": [None]}, "columns[0]"),
        *(
            ({"row_key": [KEY], "columns": [COLUMN, {**COLUMN, field: value}]}, f"columns[1].{field}")
            for field, value in (
                ("column_family_name", ""),
                ("column_family_name", LONG),
                ("column_name", "a-b"),
                ("column_name", "x" * 33),
                ("column_name", None),
                ("value", ""),
                ("value", 5),
                ("type", "string"),
                ("type", []),
            )
        ),
    ],
)
def test_wrong_schemas_of_hbase(schema: Any, named: str) -> None:
    """DIS.4345 with the place of what is wrong."""
    error = refusal(HBASE.with_fields(cloudtable_schema=schema))
    assert error.code == "DIS.4345"
    assert named in error.message


POINT: dict[str, Any] = OPENTSDB.descriptor["opentsdb_schema"][0]


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        (5, "opentsdb_schema"),
        ({}, "opentsdb_schema"),
        ([POINT] * 4_097, "opentsdb_schema"),
        ([POINT, 5], "opentsdb_schema[1]"),
        *(([{k: v for k, v in POINT.items() if k != field}], f"opentsdb_schema[0].{field}") for field in POINT),
        *(([{**POINT, field: []}], f"opentsdb_schema[0].{field}") for field in POINT),
        *(
            ([{**POINT, part: [{**POINT[part][0], field: value}]}], f"opentsdb_schema[0].{part}[0].{field}")
            for part, field, value in (
                ("metric", "type", "Bigint"),
                ("metric", "type", None),
                ("metric", "value", "a_b"),
                ("metric", "value", ""),
                ("tags", "name", "a.b"),
                ("tags", "type", "Constant"),
                ("tags", "value", "x" * 33),
            )
        ),
        *(
            ([{**POINT, part: {**POINT[part], field: value}}], f"opentsdb_schema[0].{part}.{field}")
            for part, field, value in (
                ("timestamp", "type", "Bigint"),
                ("timestamp", "value", "a.b"),
                ("timestamp", "format", None),
                ("timestamp", "format", "yyyy"),
                ("value", "type", "Constant"),
                ("value", "value", ""),
            )
        ),
    ],
)
def test_wrong_schemas_of_opentsdb(schema: Any, named: str) -> None:
    """DIS.4348 with the place of what is wrong."""
    error = refusal(OPENTSDB.with_fields(opentsdb_schema=schema))
    assert error.code == "DIS.4348"
    assert named in error.message


def test_schemas_exclude_one_another() -> None:
    """Both, or neither, is DIS.4200; a Timestamp of a point needs no format."""
    both = HBASE.with_fields(opentsdb_schema=[POINT])
    assert refusal(both).code == refusal(OPENTSDB.without("opentsdb_schema")).code == "DIS.4200"
    point = {**POINT, "timestamp": {"type": "Timestamp", "value": "at"}}
    found = asked(OPENTSDB.with_fields(opentsdb_schema=[point]))
    assert isinstance(found, CloudTableDump)
    assert found.opentsdb_schema is not None
    assert found.opentsdb_schema[0].timestamp.format is None


@pytest.mark.parametrize("data_type", ["BLOB", "JSON", "CSV"])
def test_what_suits_a_stream(data_type: str) -> None:
    """CloudTable and files that are no text need JSON records: DIS.4358."""
    for name, sample in SAMPLES.items():
        if data_type != "JSON" and name in ("obs parquet", "hbase", "opentsdb"):
            with pytest.raises(ApiError) as caught:
                check_suits(sample.destination, data_type)
            assert caught.value.code == "DIS.4358"
            assert data_type in caught.value.message
        else:
            check_suits(sample.destination, data_type)


def test_sizes() -> None:
    """A body of up to a megabyte is looked at; the largest schema of the API fits with names of 64 characters."""
    columns = [
        {"column_family_name": "f" * 64, "column_name": f"c{i:05}", "value": "v" * 64, "type": "Timestamp"}
        for i in range(4_096)
    ]
    body = json.dumps(HBASE.with_fields(cloudtable_schema={"row_key": [KEY] * 64, "columns": columns})).encode()
    destination = wanted(decode_create(check_size(body)))
    task = new_task(destination, {n: 2**62 for n in range(100)}, now_ms=1, source=random.Random(1))
    assert len(encode_task(task)) < MAX_BODY_BYTES
    with pytest.raises(ApiError) as caught:
        check_size(b" " * (MAX_BODY_BYTES + 1))
    assert (caught.value.code, caught.value.status) == ("DIS.4200", 413)


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_documents(sample: Sample) -> None:
    """A document decodes to what was encoded, whole and its head alone, and tells everything but the password."""
    task = new_task(sample.destination, {0: 5, 7: 0}, now_ms=12, source=random.Random(1))
    stored = encode_task(msgspec.structs.replace(task, state=PAUSED))
    again = decode_task(stored)
    assert (again.task_id, again.starts, again.create_time) == (task.task_id, {0: 5, 7: 0}, 12)
    head = decode_head(stored)
    assert (head.task_id, head.name, head.state) == (task.task_id, sample.destination.task_name, PAUSED)
    partitions = [PartitionInfo(partition_id=f"shardId-000000000{n}") for n in (0, 1, 7)]
    info = description(again, "s", "id", partitions)
    assert PASSWORD.encode() not in stored
    unknown = {"user_password": ""} if sample.kind == "DWS" else {}
    assert info.destination == msgspec.structs.replace(sample.destination, **unknown)
    assert [(p.start_offset, p.last_transfer_offset, p.state) for p in info.partitions] == [
        (5, None, PAUSED),
        (None, None, PAUSED),
        (0, None, PAUSED),
    ]
    for state in (ABNORMAL, PAUSED):
        told = summary(msgspec.structs.replace(head, state=state))
        assert told.state == state
        assert "does not run" in told.state_reason
        assert ("user_password" in told.state_reason) == (sample.kind == "DWS")
        assert told.last_transfer_timestamp == 0


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=70),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_any_value_is_taken_or_refused(name: str, data: st.DataObject) -> None:
    """Whatever stands in one field, the answer is a destination or an ApiError 400, never a crash."""
    sample = SAMPLES[name]
    field = data.draw(st.sampled_from(sorted(sample.descriptor)))
    body = json.dumps(sample.with_fields(**{field: data.draw(anything)})).encode()
    try:
        found = wanted(decode_create(body))
    except ApiError as error:
        assert error.status == 400  # noqa: PT017 - refused or not, both are fine
    else:
        assert found.destination_type == sample.kind
