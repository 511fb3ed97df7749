"""Bodies of the group protocol: join, sync, heartbeat, leave.

Keys are camelCase here and only here. Official clients leave null keys out and send more than the server needs to know;
both directions take null as absent and ignore what they do not know.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple

import msgspec

from ..model import GroupInfo, GroupMember
from .body import Whole, decode_answer, decode_body
from .partitioning import MAX_PARTITION_NUMBER

HeartbeatState = Literal["JOINING", "SYNCING", "STABLE", "GROUP_NOT_EXIST"]
JoinState = Literal["OK", "ERROR", "REJOIN", "ERR_SUBSCRIPTION", "GROUP_NOT_EXIST"]
SyncState = Literal["OK", "ERROR", "WAITING", "REJOIN", "GROUP_NOT_EXIST"]

MAX_TIMEOUT_MS = 24 * 3600 * 1000
"""Of a time to wait, or that a member may be silent: it believes that, and would wait, or act for its partitions, for
ever. No group waits a day for anybody."""

_Timeout = Annotated[int, msgspec.Meta(ge=-MAX_TIMEOUT_MS, le=MAX_TIMEOUT_MS)]
_Number = Annotated[int, msgspec.Meta(ge=0, le=MAX_PARTITION_NUMBER)]

NO_GENERATION = -1
"""What a member says before its first sync."""

_encode = msgspec.json.Encoder().encode


class JoinAnswer(NamedTuple):
    """`subscription`: the streams a pattern matches; None for a list. `session_timeout_s`: None if it is not told."""

    state: JoinState
    sync_delay_s: float
    subscription: tuple[str, ...] | None = None
    session_timeout_s: float | None = None


class SyncAnswer(NamedTuple):
    """`assignment`: stream name -> partition numbers; with `generation` only where the state is OK."""

    state: SyncState
    generation: int = NO_GENERATION
    assignment: Mapping[str, Sequence[int]] = MappingProxyType({})


# --- requests -----------------------------------------------------------------------------------------------------


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A member says what it wants to read: streams by name and by id, or by a pattern on their names."""

    group_id: str | None = None
    client_id: str | None = None
    interested_stream: tuple[str, ...] | None = None
    interested_stream_id_list: tuple[str, ...] | None = None
    stream_pattern: str | None = None
    accelerate_assign_enabled: bool | None = None
    rebalance_timeout_ms: int | None = None


class MemberRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A heartbeat or a sync."""

    group_id: str | None = None
    client_id: str | None = None
    generation: int | None = None


_join_decoder = msgspec.json.Decoder(JoinRequest)
_member_decoder = msgspec.json.Decoder(MemberRequest)


def encode_join(
    app: str, member_id: str, streams: Sequence[str], pattern: str | None, rebalance_timeout_s: float, accelerate: bool
) -> bytes:
    return _encode(
        JoinRequest(
            group_id=app,
            client_id=member_id,
            interested_stream=tuple(streams),
            interested_stream_id_list=(),
            stream_pattern=pattern,
            accelerate_assign_enabled=accelerate,
            rebalance_timeout_ms=_ms(rebalance_timeout_s),
        )
    )


def decode_join(body: bytes) -> JoinRequest:
    """Raises ApiError DIS.4200 or DIS.4300."""
    return decode_body(_join_decoder, body)


def encode_member(app: str, member_id: str, generation: int) -> bytes:
    """The body of a heartbeat or a sync."""
    return _encode(MemberRequest(group_id=app, client_id=member_id, generation=generation))


def decode_member(body: bytes) -> MemberRequest:
    """Raises ApiError DIS.4200 or DIS.4300. No body at all says nothing, and that is fine."""
    return decode_body(_member_decoder, body) if body else MemberRequest()


# --- answers ------------------------------------------------------------------------------------------------------


class _Join(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    state: JoinState
    sync_delayed_time_ms: _Timeout | None = None
    subscription: tuple[str, ...] | None = None
    session_timeout_ms: _Timeout | None = None


class _Sync(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    state: SyncState
    generation: Whole | None = None
    assignment: Mapping[str, Sequence[_Number]] | None = None


class _Heartbeat(msgspec.Struct):
    state: HeartbeatState


class _Member(msgspec.Struct, rename="camel"):
    member_id: str
    partitions: dict[str, list[_Number]]
    silent_ms: Whole


class _Members(msgspec.Struct):
    state: str
    generation: Whole
    members: tuple[_Member, ...]


_join_answer = msgspec.json.Decoder(_Join)
_sync_answer = msgspec.json.Decoder(_Sync)
_heartbeat_answer = msgspec.json.Decoder(_Heartbeat)
_members_answer = msgspec.json.Decoder(_Members)


def encode_join_answer(answer: JoinAnswer) -> bytes:
    """`syncDelayedTimeMs` is always there: official clients fail without. `sessionTimeoutMs` is ours."""
    return _encode(
        _Join(
            state=answer.state,
            sync_delayed_time_ms=_ms(answer.sync_delay_s),
            subscription=answer.subscription,
            session_timeout_ms=None if answer.session_timeout_s is None else _ms(answer.session_timeout_s),
        )
    )


def decode_join_answer(body: bytes) -> JoinAnswer:
    """Raises TransportError."""
    told = decode_answer(_join_answer, body)
    session_ms = told.session_timeout_ms
    return JoinAnswer(
        told.state,
        max(0, told.sync_delayed_time_ms or 0) / 1000,
        told.subscription,
        session_ms / 1000 if session_ms and session_ms > 0 else None,
    )


def encode_sync_answer(answer: SyncAnswer) -> bytes:
    if answer.state != "OK":
        return _encode(_Sync(state=answer.state))
    return _encode(_Sync(state="OK", generation=answer.generation, assignment=dict(answer.assignment)))


def decode_sync_answer(body: bytes) -> SyncAnswer:
    """Raises TransportError."""
    told = decode_answer(_sync_answer, body)
    if told.state != "OK":
        return SyncAnswer(told.state)
    return SyncAnswer("OK", NO_GENERATION if told.generation is None else told.generation, told.assignment or {})


def encode_heartbeat_answer(state: HeartbeatState) -> bytes:
    return _encode(_Heartbeat(state))


def decode_heartbeat_answer(body: bytes) -> HeartbeatState:
    """Raises TransportError."""
    return decode_answer(_heartbeat_answer, body).state


def encode_members(info: GroupInfo) -> bytes:
    return _encode(
        _Members(
            info.state,
            info.generation,
            tuple(_Member(m.member_id, m.partitions, _ms(m.silent_s)) for m in info.members),
        )
    )


def decode_members(body: bytes) -> GroupInfo:
    """Raises TransportError."""
    told = decode_answer(_members_answer, body)
    return GroupInfo(
        state=told.state,
        generation=told.generation,
        members=tuple(
            GroupMember(member_id=m.member_id, partitions=m.partitions, silent_s=m.silent_ms / 1000)
            for m in told.members
        ),
    )


def _ms(seconds: float) -> int:
    """Rounded up: who waits that long has waited long enough. The microsecond takes off what floats add."""
    return max(0, math.ceil(seconds * 1000 - 0.001))
