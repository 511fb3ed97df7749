"""Bodies of the dump task calls (API 5.5, chapter 3).

The descriptors themselves are the classes of destinations.py, under the names of the API. A request's descriptor comes
as a plain object, for the server to check field by field; an answer's is read as leniently as answers are sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from ..destinations import DESTINATIONS, Dump, DumpProgress, DumpTask, DumpTaskInfo, DwsDump, DwsOptions
from ..errors import ApiError, TransportError
from ..model import HashRange, PartitionInfo, SequenceRange
from .body import Whole, decode_answer, decode_body
from .errors import api_error
from .partitioning import format_range, parse_range, partition_id, partition_number

START, STOP = "start", "stop"

_SPELLINGS = ("descriptor", "description", "descripton", "descripion")
"""How the key of a descriptor ends, in one version of the API or another."""
_MISSPELT = frozenset({"DWS", "CLOUDTABLE"})
"""Types whose key in a description is misspelt in most SDKs: these read `descripton`, the others `description`."""
_NUMBERS = frozenset({"deliver_time_interval", "deliver_size_interval", "retry_duration"})
_OPTIONS = ("fill_missing_fields", "ignore_extra_data", "compatible_illegal_chars")
OPTION_ALIASES = {"compatible_illegal_chars": "compatible_invalid_chars"}
FLAGS = {"true": True, "on": True, "true/on": True, "false": False, "off": False, "false/off": False}
"""Booleans as DWS options write them, in any case."""
UNLIMITED = "unlimited"

_objects = msgspec.json.Decoder(dict[str, msgspec.Raw])
_anything = msgspec.json.Decoder()


# --- creating --------------------------------------------------------------------------------------------------------


class CreateDump(NamedTuple):
    """A request to create a task: `descriptor` stands under the key `where`, and nothing in it is checked."""

    destination_type: str
    where: str
    descriptor: Mapping[str, object]


class _Kind(msgspec.Struct):
    destination_type: str


_kind_decoder = msgspec.json.Decoder(_Kind)


def encode_create(destination: Dump) -> bytes:
    kind = destination.destination_type
    return msgspec.json.encode(
        {"destination_type": kind, f"{kind.lower()}_destination_descriptor": descriptor_of(destination, secrets=True)}
    )


def decode_create(body: bytes) -> CreateDump:
    """Raises ApiError: DIS.4300 not JSON, DIS.4200 no type of destination, or no descriptor of that type."""
    kind = decode_body(_kind_decoder, body).destination_type
    if kind not in DESTINATIONS:
        raise api_error("DIS.4200", f"[destination_type={kind[:80]!r} is not one of {', '.join(DESTINATIONS)}]")
    held = decode_body(_objects, body)
    for where in _keys(kind):
        raw = held.get(where)
        descriptor = None if raw is None else decode_body(_anything, bytes(raw))
        if isinstance(descriptor, dict):
            return CreateDump(kind, where, descriptor)
        if descriptor is not None:
            raise api_error("DIS.4200", f"[{where} is not an object]")
    raise api_error("DIS.4200", f"[{_keys(kind)[0]} is missing: destination_type {kind} needs it]")


def _keys(kind: str) -> list[str]:
    return [f"{kind.lower()}_destination_{spelling}" for spelling in _SPELLINGS]


def descriptor_of(destination: Dump, *, secrets: bool = False) -> dict[str, Any]:
    """A descriptor as it stands on the wire, without what is absent; with a password only if `secrets` are wanted."""
    found = {name: value for name, value in msgspec.to_builtins(destination).items() if value is not None}
    if isinstance(destination, DwsDump):
        if not (secrets and destination.user_password):
            del found["user_password"]
        if destination.options is not None:
            found["options"] = _wire_options(destination.options)
    return found


def _wire_options(options: DwsOptions) -> dict[str, str]:
    found = {name: "true" if getattr(options, name) else "false" for name in _OPTIONS}
    found["reject_limit"] = UNLIMITED if options.reject_limit is None else str(options.reject_limit)
    if options.error_table_name:
        found["error_table_name"] = options.error_table_name
    return found


def read_descriptor(kind: str, told: Mapping[str, Any]) -> Dump | None:
    """The destination an answer tells; None for a type that is not known. Raises TransportError.

    A service may leave out what it was given, and write numbers as text: what is missing is "" or the default.
    """
    cls = DESTINATIONS.get(kind)
    if cls is None:
        return None
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(cls):
        value = told.get(field.encode_name)
        if value is None or value in ([], {}) or (value == "" and field.encode_name in _NUMBERS):
            if field.required:
                values[field.encode_name] = ""
        else:
            values[field.encode_name] = _read_options(value) if field.name == "options" else value
    try:
        return msgspec.convert(values, cls, strict=False)
    except msgspec.ValidationError as exc:
        raise TransportError(
            f"the endpoint describes a destination of type {kind} in a way DIS does not: {exc}", outcome_unknown=True
        ) from exc


def _read_options(told: object) -> object:
    if not isinstance(told, dict):
        return told
    found: dict[str, Any] = {}
    for name in _OPTIONS:
        value = told.get(name, told.get(OPTION_ALIASES.get(name, name)))
        found[name] = FLAGS.get(str(value).lower(), False)
    limit = told.get("reject_limit")
    found["reject_limit"] = None if limit == UNLIMITED else limit or 0
    found["error_table_name"] = told.get("error_table_name") or None
    return found


# --- listing ---------------------------------------------------------------------------------------------------------


class _Task(msgspec.Struct, kw_only=True, omit_defaults=True):
    task_name: str
    task_id: str | None = None
    destination_type: str | None = None
    state: str | None = None
    state_reason: str | None = None  # ours: nobody else tells why
    create_time: Whole | None = None
    last_transfer_timestamp: Whole | None = None


class _Tasks(msgspec.Struct, kw_only=True):
    total_number: Whole = 0
    quota: Whole | None = None
    tasks: list[_Task] | None = None


_list_decoder = msgspec.json.Decoder(_Tasks, strict=False)


def encode_list(tasks: Iterable[DumpTask], *, quota: int) -> bytes:
    wire_tasks = [_Task(**_wire_task(task)) for task in tasks]
    return msgspec.json.encode(_Tasks(total_number=len(wire_tasks), quota=quota, tasks=wire_tasks))


def _wire_task(task: DumpTask) -> dict[str, Any]:
    return {
        "task_name": task.name,
        "task_id": task.task_id,
        "destination_type": task.destination_type,
        "state": task.state,
        "state_reason": task.state_reason or None,
        "create_time": task.create_time,
        "last_transfer_timestamp": task.last_transfer_timestamp,
    }


def decode_list(body: bytes) -> list[DumpTask]:
    return [DumpTask(**_task(task)) for task in decode_answer(_list_decoder, body).tasks or ()]


def _task(task: _Task) -> dict[str, Any]:
    return {
        "name": task.task_name,
        "task_id": task.task_id or "",
        "destination_type": task.destination_type or "",
        "state": task.state or "",
        "state_reason": task.state_reason or "",
        "create_time": task.create_time or 0,
        "last_transfer_timestamp": task.last_transfer_timestamp or 0,
    }


# --- describing ------------------------------------------------------------------------------------------------------


class _Progress(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A partition in both shapes: of the reference's table, and of its example."""

    partition_id: str | None = None
    partitionId: str | None = None
    status: str | None = None
    hash_range: str | None = None
    sequence_number_range: str | None = None
    parent_partitions: str | None = None
    state: str | None = None
    discard: Whole | None = None
    last_transfer_timestamp: Whole | None = None
    last_transfer_offset: Whole | None = None
    start_offset: Whole | None = None  # ours


class _Detail(_Task, kw_only=True, omit_defaults=True):
    stream_name: str | None = None
    stream_id: str | None = None
    partitions: list[_Progress] | None = None


_detail_decoder = msgspec.json.Decoder(_Detail, strict=False)


def encode_detail(info: DumpTaskInfo) -> bytes:
    """The description. A password is not in it, whatever `info` holds."""
    body = msgspec.to_builtins(
        _Detail(
            **_wire_task(info),
            stream_name=info.stream,
            stream_id=info.stream_id,
            partitions=[_wire_progress(progress) for progress in info.partitions],
        )
    )
    if info.destination is not None:
        kind = info.destination.destination_type
        descriptor = descriptor_of(info.destination)
        if kind == "OBS":
            descriptor["retry_duration"] = 0  # in every sample of the service
        for spelling in ("descripton", "description") if kind in _MISSPELT else ("description",):
            body[f"{kind.lower()}_destination_{spelling}"] = descriptor
    return msgspec.json.encode(body)


def _wire_progress(progress: DumpProgress) -> _Progress:
    p = progress.partition
    return _Progress(
        partition_id=p.partition_id,
        partitionId=p.partition_id,
        status=p.status,
        hash_range=format_range(*(p.hash_range or (-1, -1))),
        sequence_number_range=format_range(*p.sequence_range) if p.sequence_range else None,
        parent_partitions=p.parent_partitions,
        state=progress.state,
        discard=progress.discarded,
        last_transfer_timestamp=progress.last_transfer_timestamp,
        last_transfer_offset=progress.last_transfer_offset,
        start_offset=progress.start_offset,
    )


def decode_detail(body: bytes) -> DumpTaskInfo:
    told = decode_answer(_detail_decoder, body)
    kind, descriptor = told.destination_type or "", None
    held = decode_answer(_objects, body)
    for where in _keys(kind):
        raw = held.get(where)
        found = None if raw is None else decode_answer(_anything, bytes(raw))
        if isinstance(found, dict):
            descriptor = read_descriptor(kind, found)
            break
    return DumpTaskInfo(
        **_task(told),
        stream=told.stream_name or "",
        stream_id=told.stream_id or "",
        destination=descriptor,
        partitions=tuple(_progress(progress) for progress in told.partitions or ()),
    )


def _progress(told: _Progress) -> DumpProgress:
    name = told.partition_id or told.partitionId or ""
    try:
        name = partition_id(partition_number(name))
    except ApiError as exc:
        raise TransportError(
            f"the endpoint's answer is not what DIS answers: {exc.message}", outcome_unknown=True
        ) from exc
    hashes, sequences = parse_range(told.hash_range), parse_range(told.sequence_number_range)
    return DumpProgress(
        partition=PartitionInfo(
            partition_id=name,
            status=told.status or "",
            hash_range=HashRange(*hashes) if hashes else None,
            sequence_range=SequenceRange(*sequences) if sequences else None,
            parent_partitions=told.parent_partitions,
        ),
        state=told.state or "",
        discarded=told.discard or 0,
        last_transfer_timestamp=told.last_transfer_timestamp or 0,
        last_transfer_offset=told.last_transfer_offset,
        start_offset=told.start_offset,
    )


# --- starting and stopping -------------------------------------------------------------------------------------------


class _Ref(msgspec.Struct):
    id: str


class _Change(msgspec.Struct):
    action: str
    tasks: list[_Ref]


_change_decoder = msgspec.json.Decoder(_Change)


def encode_change(action: str, ids: Iterable[str]) -> bytes:
    return msgspec.json.encode(_Change(action, [_Ref(task_id) for task_id in ids]))


def decode_change(body: bytes) -> tuple[str, list[str]]:
    """(START or STOP, ids of tasks). Raises ApiError: DIS.4300 not JSON, DIS.4200 wrong, missing, or no task at all."""
    told = decode_body(_change_decoder, body)
    if told.action not in (START, STOP):
        raise api_error("DIS.4200", f"[action={told.action[:80]!r} is not {START} or {STOP}]")
    if not told.tasks:
        raise api_error("DIS.4200", "[tasks is empty: name the id of at least one task]")
    return told.action, [ref.id for ref in told.tasks]
