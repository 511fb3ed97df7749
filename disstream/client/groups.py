"""The group protocol: members of an app share the partitions of its streams.

The API reference does not mention it; the official Kafka adapter speaks it. What an answer's state asks for is the
caller's business: only an endpoint that does not answer as DIS does is an error here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..model import GroupInfo
from ..wire.groups import (
    HeartbeatState,
    JoinAnswer,
    SyncAnswer,
    decode_heartbeat_answer,
    decode_join_answer,
    decode_members,
    decode_sync_answer,
    encode_join,
    encode_member,
)

if TYPE_CHECKING:
    from .client import Client


class Groups:
    """`client.groups`. All calls may be repeated: done twice is done once. `timeout_s` bounds each attempt."""

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
        """Ask to be a member that reads these streams, or all whose whole name matches `pattern` (RE2 syntax).

        Joining again makes the others join again too. `rebalance_timeout_s`: how long the group waits for this member
        when shares are dealt anew. `accelerate`: do not wait for others that may start at the same time.
        """
        if bool(streams) == bool(pattern):
            raise ConfigError(f"streams={list(streams)!r}, pattern={pattern!r}: give streams or a pattern, one of them")
        if not rebalance_timeout_s > 0:
            raise ConfigError(f"rebalance_timeout_s={rebalance_timeout_s!r}: give more than 0")
        body = encode_join(app, member_id, streams, pattern, rebalance_timeout_s, accelerate)
        answer = await self._client.call("group_join", {"app_name": app}, body=body, timeout_s=timeout_s)
        return decode_join_answer(answer.body)

    async def sync(self, app: str, member_id: str, generation: int, *, timeout_s: float | None = None) -> SyncAnswer:
        """Ask for the member's share. WAITING: not dealt yet, ask again. `generation`: of its last share, or -1."""
        body = encode_member(app, member_id, generation)
        answer = await self._client.call("group_sync", _member(app, member_id), body=body, timeout_s=timeout_s)
        return decode_sync_answer(answer.body)

    async def heartbeat(
        self, app: str, member_id: str, generation: int, *, timeout_s: float | None = None
    ) -> HeartbeatState:
        """Tell that the member lives. STABLE: its share of `generation` is still its own; else join or sync, as told.

        Unlike the other calls not repeated: a late sign of life is worth less than a new one.
        """
        answer = await self._client.call(
            "group_heartbeat",
            _member(app, member_id),
            body=encode_member(app, member_id, generation),
            timeout_s=timeout_s,
            attempts=1,
        )
        return decode_heartbeat_answer(answer.body)

    async def leave(self, app: str, member_id: str, *, timeout_s: float | None = None) -> None:
        """Give the share back at once. Not being a member is no error."""
        await self._client.call("group_leave", _member(app, member_id), timeout_s=timeout_s)

    async def members(self, app: str) -> GroupInfo:
        """Who reads what. Only disstream's server offers it: others raise ApiError. Raises NotFoundError (no app)."""
        return decode_members((await self._client.call("group_members", {"app_name": app})).body)


def _member(app: str, member_id: str) -> dict[str, str]:
    return {"app_name": app, "member_id": member_id}
