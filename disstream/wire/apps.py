"""Bodies of the app calls (API 5.2)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..errors import ApiError, TransportError
from ..model import AppInfo, PartitionState
from .body import Whole, decode_answer, decode_body
from .checkpoints import LAST_READ, read_checkpoint, wire_checkpoint
from .partitioning import partition_id, partition_number


class _Create(msgspec.Struct):
    app_name: str


_create_decoder = msgspec.json.Decoder(_Create)


def encode_create(name: str) -> bytes:
    return msgspec.json.encode(_Create(name))


def decode_create(body: bytes) -> str:
    """The name of the app. Raises ApiError: DIS.4300 not JSON, DIS.4200 wrong or missing field."""
    return decode_body(_create_decoder, body).app_name


class _App(msgspec.Struct, kw_only=True, omit_defaults=True):
    app_name: str
    app_id: str | None = None
    create_time: Whole = 0
    commit_checkpoint_stream_names: list[str] | None = None
    commit_check_point_stream_names: list[str] | None = None  # the documents have both spellings: read both


class _AppList(msgspec.Struct, kw_only=True):
    total_number: Whole = 0
    apps: list[_App] = []
    has_more_app: bool = False


_app_decoder = msgspec.json.Decoder(_App, strict=False)
_list_decoder = msgspec.json.Decoder(_AppList, strict=False)


def encode_app(app: AppInfo) -> bytes:
    return msgspec.json.encode(_wire_app(app))


def decode_app(body: bytes) -> AppInfo:
    return _app_info(decode_answer(_app_decoder, body))


def encode_list(page: Sequence[AppInfo], *, total: int, has_more: bool) -> bytes:
    return msgspec.json.encode(
        _AppList(total_number=total, apps=[_wire_app(app) for app in page], has_more_app=has_more)
    )


class AppPage(msgspec.Struct, frozen=True):
    apps: list[AppInfo]
    total: int
    has_more: bool


def decode_list(body: bytes) -> AppPage:
    told = decode_answer(_list_decoder, body)
    return AppPage([_app_info(app) for app in told.apps], told.total_number, told.has_more_app)


def _wire_app(app: AppInfo) -> _App:
    return _App(
        app_name=app.name,
        app_id=app.app_id,
        create_time=app.create_time,
        commit_checkpoint_stream_names=list(app.streams),
    )


def _app_info(app: _App) -> AppInfo:
    streams = app.commit_checkpoint_stream_names or app.commit_check_point_stream_names or ()
    return AppInfo(name=app.app_name, app_id=app.app_id or "", create_time=app.create_time, streams=tuple(streams))


# --- what an app has read of a stream --------------------------------------------------------------------------------


class _State(msgspec.Struct, kw_only=True):
    """Partition ids are plain numbers here, and offsets integers beside a sequence number that is a string.

    The last two are ours, and left out where there is nothing to tell.
    """

    partition_id: str | Whole
    sequence_number: str | Whole | None = None
    latest_offset: Whole | None = None
    earliest_offset: Whole | None = None
    checkpoint_type: str | None = LAST_READ
    status: str | None = None
    metadata: str | None = None
    commit_time: Whole | msgspec.UnsetType | None = msgspec.UNSET
    committed_by: str | msgspec.UnsetType | None = msgspec.UNSET


class _States(msgspec.Struct, kw_only=True):
    has_more: bool = False
    stream_name: str | None = None
    app_name: str | None = None
    partition_consuming_states: list[_State] = []


_states_decoder = msgspec.json.Decoder(_States, strict=False)


def encode_states(app: str, stream: str, page: Sequence[PartitionState], *, has_more: bool) -> bytes:
    return msgspec.json.encode(
        _States(
            has_more=has_more,
            stream_name=stream,
            app_name=app,
            partition_consuming_states=[_wire_state(state) for state in page],
        )
    )


def _wire_state(state: PartitionState) -> _State:
    number, metadata = wire_checkpoint(state.checkpoint)
    return _State(
        partition_id=str(partition_number(state.partition_id)),
        sequence_number=number,
        latest_offset=state.latest,
        earliest_offset=state.earliest,
        status=state.status,
        metadata=metadata,
        commit_time=state.committed_ms or msgspec.UNSET,
        committed_by=state.committed_by or msgspec.UNSET,
    )


class StatePage(msgspec.Struct, frozen=True):
    """`last`: the id of the last partition as the service spelled it; the next page begins behind it."""

    states: list[PartitionState]
    has_more: bool
    last: str


def decode_states(body: bytes) -> StatePage:
    """One page of states, with long partition ids. Raises TransportError."""
    told = decode_answer(_states_decoder, body)
    wire_states = told.partition_consuming_states
    last = str(wire_states[-1].partition_id) if wire_states else ""
    return StatePage([_state(state) for state in wire_states], told.has_more, last)


def _state(state: _State) -> PartitionState:
    try:
        number = partition_number(str(state.partition_id))
    except ApiError as exc:
        raise TransportError(
            f"the endpoint's answer is not what DIS answers: {exc.message}", outcome_unknown=True
        ) from exc
    return PartitionState(
        partition_id=partition_id(number),
        checkpoint=read_checkpoint(state.sequence_number, state.metadata),
        earliest=state.earliest_offset or 0,
        latest=state.latest_offset or 0,
        status=state.status or "ACTIVE",
        committed_ms=state.commit_time or None,
        committed_by=state.committed_by or "",
    )
