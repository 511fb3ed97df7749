"""What the destination of a new dump task must satisfy (API 5.5, chapter 3). Pure.

Every field of every destination is checked. Nothing asks the cloud: whether an agency, a bucket, a cluster or a table
exists is not known here. A password is checked and not kept: nothing uses it, and there is no key to encrypt it with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from ..destinations import (
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
    ProcessingSchema,
)
from ..errors import ApiError
from ..model import MAX_HASH_KEY
from ..wire.dumps import FLAGS, OPTION_ALIASES, UNLIMITED, CreateDump
from ..wire.errors import api_error
from .documents import NAME

MAX_CHARS = 1_024  # of a text that the API does not bound
MAX_COLUMN_NAMES_CHARS = 65_536  # a list of names: a table has up to 1,600 columns of up to 63 characters
MAX_ITEMS = 4_096  # of columns by the API, of other lists by us

LATEST, TRIM_HORIZON = "LATEST", "TRIM_HORIZON"

_TYPES = ("Bigint", "Double", "Boolean", "Timestamp", "String", "Decimal")
_TIME_FORMATS = tuple(
    f"{day} HH:mm:ss" for day in ("yyyy/MM/dd", "MM/dd/yyyy", "dd/MM/yyyy", "yyyy-MM-dd", "MM-dd-yyyy", "dd-MM-yyyy")
)
_PARTITION_FORMATS = ("yyyy", "yyyy/MM", "yyyy/MM/dd", "yyyy/MM/dd/HH", "yyyy/MM/dd/HH/mm", "N/A")
_FILE_TYPES = ("text", "parquet", "carbon", "csv")

_BUCKET = re.compile(r"[a-z0-9._-]{3,63}", re.ASCII), "3 to 63 of a-z 0-9 . _ -"
_PREFIX = re.compile(r"(?!/)[A-Za-z0-9_/]{1,50}", re.ASCII), "at most 50 of A-Z a-z 0-9 _ /, not beginning with /"
_WORD = re.compile(r"[A-Za-z0-9_]{1,32}", re.ASCII), "1 to 32 of A-Z a-z 0-9 _"
_METRIC = re.compile(r"[A-Za-z0-9.]{1,32}", re.ASCII), "1 to 32 of A-Z a-z 0-9 ."
_TASK = NAME, "1 to 64 of A-Z a-z 0-9 _ -"
_FOLDER = re.compile(r"[^\x00-\x1f\x7f]{1,50}"), "at most 50 characters"
_COLUMNS = re.compile(r"[^\x00-\x1f\x7f,]+(?:,[^\x00-\x1f\x7f,]+)*"), "names with commas between"
_DIGITS = re.compile(r"[0-9]{1,18}", re.ASCII)

Shape = tuple[re.Pattern[str], str]


def check_suits(destination: Dump, data_type: str) -> None:
    """Raises ApiError DIS.4358 if only JSON records can be copied there, and the stream's are not."""
    if data_type == "JSON":
        return
    if isinstance(destination, CloudTableDump):
        told = "destination_type=CLOUDTABLE"
    elif isinstance(destination, ObsDump) and destination.destination_file_type != "text":
        told = f"destination_file_type={destination.destination_file_type}"
    else:
        return
    raise api_error("DIS.4358", f"[{told} needs a stream of data_type JSON, this one has {data_type}]")


def wanted(request: CreateDump) -> Dump:
    """The destination asked for, with its defaults, without its password.

    Raises ApiError: DIS.4335 for the name of an agency that cannot be, DIS.4345 and DIS.4348 for a bad schema of HBase
    and of OpenTSDB, DIS.4200 for anything else, with the field, its value and what it may be.
    """
    return _READERS[request.destination_type](_Fields(request.descriptor, request.where))


class _Fields:
    """One object of a request, whose fields are read one by one: null and "" count as absent.

    A field that must be there has no default. What is wrong is refused with `code`.
    """

    def __init__(self, values: object, where: str, code: str = "DIS.4200") -> None:
        self._where = where
        self._code = code
        if not isinstance(values, dict):
            raise self._refusal("", "is not an object")
        self._values: dict[str, object] = values

    def _refusal(self, name: str, told: str) -> ApiError:
        return api_error(self._code, f"[{self._where}{'.' if name else ''}{name} {told}]")

    def refusal(self, name: str, told: str) -> ApiError:
        """A refusal that shows the value, if it is one that can be shown."""
        value = self._values.get(name)
        if isinstance(value, str):
            name = f"{name}={value[:80]!r}"
        elif isinstance(value, int | float) and abs(value) < MAX_HASH_KEY:  # a number may have a thousand digits
            name = f"{name}={value}"
        return self._refusal(name, told)

    def value(self, name: str) -> object:
        value = self._values.get(name)
        return None if value == "" else value

    def raw(self, name: str) -> object:
        return self._values.get(name)

    def text(
        self,
        name: str,
        shape: Shape | None = None,
        *,
        default: str | None = None,
        max_chars: int = MAX_CHARS,
    ) -> str:
        value = self.value(name)
        if value is None:
            if default is None:
                raise self._refusal(name, f"is missing or empty: give {shape[1] if shape else 'a text'}")
            return default
        if not isinstance(value, str):
            raise self.refusal(name, "is not a text")
        if len(value) > max_chars:
            raise self._refusal(name, f"has {len(value)} characters, more than {max_chars}")
        if shape is not None and not shape[0].fullmatch(value):
            raise self.refusal(name, f"is not {shape[1]}")
        if not value.isprintable():
            raise self.refusal(name, "has characters that cannot be printed")
        return value

    def secret(self, name: str) -> None:
        """Check a text that is never told again, not even to say what is wrong with it."""
        value = self.value(name)
        if not (isinstance(value, str) and len(value) <= MAX_CHARS):
            raise self._refusal(name, f"is not a text of 1 to {MAX_CHARS} characters")

    def choice(self, name: str, allowed: Sequence[str], *, default: str | None = None, lower: bool = False) -> str:
        value = self.value(name)
        if value is None and default is not None:
            return default
        if isinstance(value, str) and lower:
            value = value.lower()
        if not (isinstance(value, str) and value in allowed):
            told = "is missing or empty" if value is None else "is wrong"
            raise self.refusal(name, f"{told}: give one of {' '.join(map(repr, allowed))}")
        return value

    def number(self, name: str, low: int, high: int, default: int | None = None) -> int | None:
        value = self.value(name)
        if value is None:
            return default
        if isinstance(value, str) and _DIGITS.fullmatch(value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.refusal(name, f"is not a number within {low}..{high}")
        return value

    def flag(self, name: str) -> bool:
        value = self.value(name)
        if value is None:
            value = self.value(OPTION_ALIASES.get(name, name))
        found = FLAGS.get(str(value).lower()) if isinstance(value, str | bool) else None
        if found is None and value is not None:
            raise self.refusal(name, "is not one of true on false off")
        return bool(found)

    def part(self, name: str, code: str = "") -> _Fields | None:
        value = self.value(name)
        return None if value is None else _Fields(value, f"{self._where}.{name}", code or self._code)

    def needed(self, name: str) -> _Fields:
        found = self.part(name)
        if found is None:
            raise self._refusal(name, "is missing: give an object")
        return found

    def parts(self, name: str, high: int = MAX_ITEMS, code: str = "") -> list[_Fields]:
        value = self.value(name)
        code = code or self._code
        where = f"{self._where}.{name}"
        if not (isinstance(value, list) and 1 <= len(value) <= high):
            told = f"{len(value)} elements" if isinstance(value, list) else "none"
            raise api_error(code, f"[{where} is not a list of 1 to {high} elements: it has {told}]")
        return [_Fields(item, f"{where}[{i}]", code) for i, item in enumerate(value)]


def _common(fields: _Fields) -> dict[str, Any]:
    agency = fields.value("agency_name")
    if agency is None or (isinstance(agency, str) and len(agency) > 64):
        raise api_error("DIS.4335", "[agency_name has 1 to 64 characters]")
    return {
        "task_name": fields.text("task_name", _TASK),
        "agency_name": fields.text("agency_name"),
        "deliver_interval_s": fields.number("deliver_time_interval", 30, 900, 300),
        "consumer_strategy": fields.choice("consumer_strategy", (LATEST, TRIM_HORIZON), default=LATEST),
    }


def _bucketed(fields: _Fields) -> dict[str, Any]:
    return {
        "obs_bucket_path": fields.text("obs_bucket_path", _BUCKET),
        "file_prefix": fields.text("file_prefix", _PREFIX, default=""),
    }


def _texts(fields: _Fields, *names: str) -> dict[str, Any]:
    return {name: fields.text(name) for name in names}


def _retry(fields: _Fields) -> dict[str, Any]:
    return {"retry_s": fields.number("retry_duration", 0, 7_200, 1_800)}


def _obs(fields: _Fields) -> Dump:
    form = fields.choice("partition_format", _PARTITION_FORMATS, default="")
    schema = fields.part("processing_schema")
    return ObsDump(
        **_common(fields),
        **_bucketed(fields),
        partition_format="" if form == "N/A" else form,
        destination_file_type=fields.choice("destination_file_type", _FILE_TYPES, default="text", lower=True),
        record_delimiter=_record_delimiter(fields),
        processing_schema=None if schema is None else _processing(schema),
        deliver_size_mb=fields.number("deliver_size_interval", 1, 300),
    )


def _record_delimiter(fields: _Fields) -> str:
    if fields.raw("record_delimiter") in ("", "NULL"):  # the only field where "" is not the same as nothing
        return ""
    return fields.choice("record_delimiter", (",", ";", "|", "\n"), default="\n")


def _processing(fields: _Fields) -> ProcessingSchema:
    kind = fields.choice("timestamp_type", ("String", "Timestamp"))
    return ProcessingSchema(
        timestamp_name=fields.text("timestamp_name"),
        timestamp_type=kind,
        timestamp_format=fields.choice("timestamp_format", _TIME_FORMATS) if kind == "String" else None,
    )


def _dws(fields: _Fields) -> Dump:
    fields.secret("user_password")
    options = fields.part("options")
    return DwsDump(
        **_common(fields),
        **_bucketed(fields),
        **_retry(fields),
        **_texts(fields, "dws_cluster_name", "dws_cluster_id", "dws_database_name", "dws_schema", "dws_table_name"),
        **_texts(fields, "user_name", "kms_user_key_name", "kms_user_key_id"),
        user_password="",
        dws_delimiter=fields.choice("dws_delimiter", (",", ";", "|")),
        dws_table_columns=fields.text("dws_table_columns", _COLUMNS, default="", max_chars=MAX_COLUMN_NAMES_CHARS)
        or None,
        options=None if options is None else _options(options),
    )


def _options(fields: _Fields) -> DwsOptions:
    limit = None if fields.value("reject_limit") == UNLIMITED else fields.number("reject_limit", 0, 2**31 - 1, 0)
    return DwsOptions(
        fill_missing_fields=fields.flag("fill_missing_fields"),
        ignore_extra_data=fields.flag("ignore_extra_data"),
        compatible_illegal_chars=fields.flag("compatible_illegal_chars"),
        reject_limit=limit,
        error_table_name=fields.text("error_table_name", default="") or None,
    )


def _mrs(fields: _Fields) -> Dump:
    return MrsDump(
        **_common(fields),
        **_bucketed(fields),
        **_retry(fields),
        **_texts(fields, "mrs_cluster_name", "mrs_cluster_id", "mrs_hdfs_path"),
        hdfs_prefix_folder=fields.text("hdfs_prefix_folder", _FOLDER, default=""),
    )


def _dli(fields: _Fields) -> Dump:
    return DliDump(
        **_common(fields),
        **_bucketed(fields),
        **_retry(fields),
        **_texts(fields, "dli_database_name", "dli_table_name"),
    )


def _cloudtable(fields: _Fields) -> Dump:
    hbase = fields.part("cloudtable_schema", "DIS.4345")
    points = fields.value("opentsdb_schema")
    if (hbase is None) == (points is None or points == []):
        told = "is neither given nor opentsdb_schema" if hbase is None else "excludes opentsdb_schema"
        raise fields.refusal(
            "cloudtable_schema", f"{told}: give one of them, the first for HBase, the other for OpenTSDB"
        )
    return CloudTableDump(
        **_common(fields),
        **_retry(fields),
        cloudtable_cluster_name=fields.text("cloudtable_cluster_name"),
        cloudtable_cluster_id=fields.text("cloudtable_cluster_id"),
        cloudtable_table_name=fields.text("cloudtable_table_name", default="" if hbase is None else None) or None,
        cloudtable_schema=None if hbase is None else _hbase(hbase),
        opentsdb_schema=None
        if hbase is not None
        else tuple(_point(point) for point in fields.parts("opentsdb_schema", code="DIS.4348")),
        cloudtable_row_key_delimiter=fields.choice("cloudtable_row_key_delimiter", tuple(",.|;\\-_~"), default="."),
        obs_backup_bucket_path=fields.text("obs_backup_bucket_path", _BUCKET, default="") or None,
        backup_file_prefix=fields.text("backup_file_prefix", _PREFIX, default=""),
    )


def _hbase(fields: _Fields) -> CloudTableSchema:
    return CloudTableSchema(
        row_key=tuple(
            CloudTableRowKey(value=key.text("value"), type=key.choice("type", _TYPES))
            for key in fields.parts("row_key", 64)
        ),
        columns=tuple(
            CloudTableColumn(
                column_family_name=column.text("column_family_name"),
                column_name=column.text("column_name", _WORD),
                value=column.text("value"),
                type=column.choice("type", _TYPES),
            )
            for column in fields.parts("columns")
        ),
    )


def _point(fields: _Fields) -> OpenTsdbSchema:
    time, value = fields.needed("timestamp"), fields.needed("value")
    kind = time.choice("type", ("Timestamp", "String"))
    return OpenTsdbSchema(
        metric=tuple(
            OpenTsdbMetric(type=metric.choice("type", ("Constant", "String")), value=metric.text("value", _METRIC))
            for metric in fields.parts("metric")
        ),
        timestamp=OpenTsdbTimestamp(
            type=kind,
            value=time.text("value", _WORD),
            format=time.choice("format", _TIME_FORMATS) if kind == "String" else None,
        ),
        value=OpenTsdbValue(type=value.choice("type", _TYPES), value=value.text("value", _WORD)),
        tags=tuple(
            OpenTsdbTag(name=tag.text("name", _WORD), type=tag.choice("type", _TYPES), value=tag.text("value", _WORD))
            for tag in fields.parts("tags")
        ),
    )


_READERS: dict[str, Callable[[_Fields], Dump]] = {
    "OBS": _obs,
    "DWS": _dws,
    "MRS": _mrs,
    "DLI": _dli,
    "CLOUDTABLE": _cloudtable,
}
