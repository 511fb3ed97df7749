"""Bodies of the group protocol: join, sync, heartbeat, leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

HeartbeatState = Literal["JOINING", "SYNCING", "STABLE", "GROUP_NOT_EXIST"]
JoinState = Literal["OK", "ERROR", "REJOIN", "ERR_SUBSCRIPTION", "GROUP_NOT_EXIST"]
SyncState = Literal["OK", "ERROR", "WAITING", "REJOIN", "GROUP_NOT_EXIST"]

NO_GENERATION = -1
"""What a member says before its first sync."""


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
