"""Stream policies (API 5.1.7, 5.1.8): who else may use a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..model import PolicyRule
from ..wire.policies import ACTION_TYPES, decode_rules, encode_add_policy

if TYPE_CHECKING:
    from .client import Client


class Policies:
    """`client.policies`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def add(self, stream: str, principal: str, action: str, *, stream_id: str | None = None) -> None:
        """Let another account use a stream of this project. There already: nothing changes.

        API 5.1.7. `principal`: `domain.user`, or `domain.*` for all of an account (a bare `domain` means the same), or
        several with commas between; whether there is such a user is not checked. `action`: putRecords, getRecords or
        getStreamInfo; producers and consumers need getStreamInfo beside theirs. The request carries the stream's id;
        without `stream_id` it is asked for first. Those allowed then name the stream by that id. The API has no call to
        take a rule back. Raises NotFoundError.
        """
        if not principal.strip():
            raise ConfigError("a policy needs a principal, like 'domain.user' or 'domain.*'")
        if action not in ACTION_TYPES:
            raise ConfigError(f"action {action!r} is not one of {', '.join(ACTION_TYPES)}")
        if stream_id is None:
            stream_id = (await self._client.streams.describe(stream)).stream_id
        body = encode_add_policy(stream_id, principal, action)
        await self._client.call("add_policy", {"stream_name": stream}, body=body)

    async def list(self, stream: str) -> list[PolicyRule]:
        """Everything allowed to others on a stream of this project. API 5.1.8. Raises NotFoundError."""
        answer = await self._client.call("list_policies", {"stream_name": stream})
        return decode_rules(answer.body)
