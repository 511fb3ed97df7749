"""The group protocol: members of an app share the partitions of its streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..model import GroupInfo
from ..wire.groups import HeartbeatState, JoinAnswer, SyncAnswer

if TYPE_CHECKING:
    from .client import Client


class Groups:
    """`client.groups`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def join(
        self,
        app: str,
        member_id: str,
        *,
        streams: Sequence[str] = (),
        pattern: str | None = None,
        rebalance_timeout_s: float = 20.0,
        accelerate: bool = False,
        timeout_s: float | None = None,
    ) -> JoinAnswer:
        raise NotImplementedError

    async def sync(self, app: str, member_id: str, generation: int, *, timeout_s: float | None = None) -> SyncAnswer:
        raise NotImplementedError

    async def heartbeat(
        self, app: str, member_id: str, generation: int, *, timeout_s: float | None = None
    ) -> HeartbeatState:
        raise NotImplementedError

    async def leave(self, app: str, member_id: str, *, timeout_s: float | None = None) -> None:
        raise NotImplementedError

    async def members(self, app: str) -> GroupInfo:
        raise NotImplementedError
