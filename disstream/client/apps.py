"""Apps (API 5.2)."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from ..errors import ConfigError, TransportError
from ..model import AppInfo, PartitionState
from ..wire.apps import decode_app, decode_list, decode_states, encode_create
from ..wire.checkpoints import LAST_READ

if TYPE_CHECKING:
    from .client import Client

_PARTITION_PAGE = 1000  # the most the service gives at once


class Apps:
    """`client.apps`: who reads streams, each with checkpoints of its own."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def create(self, name: str) -> None:
        """Create an app. `name`: 1 to 200 letters, digits, - or _.

        API 5.2.1. Raises ConflictError (exists), QuotaError.
        Not repeated once it may have been received: after TransportError or ServerFault the app may exist.
        """
        if not name:
            raise ConfigError("an app needs a name")
        try:
            body = encode_create(name)
        except UnicodeEncodeError as exc:
            raise ConfigError(f"{name!r:.80} cannot be sent: a name is text without lone surrogates") from exc
        await self._client.call("create_app", body=body)

    async def describe(self, name: str) -> AppInfo:
        """API 5.2.4. Raises NotFoundError."""
        return decode_app((await self._client.call("describe_app", {"app_name": name})).body)

    async def list(self, *, stream: str | None = None, page_size: int = 100) -> AsyncIterator[AppInfo]:
        """All apps of the project in the service's order, `page_size` (1 to 100) a request.

        API 5.2.2. `stream`: only those that have a checkpoint on it; raises NotFoundError if there is no such stream.
        Apps created or deleted meanwhile may or may not appear.
        """
        if not 1 <= page_size <= 100:
            raise ConfigError(f"page_size={page_size!r} must be within 1 and 100")
        query = {"limit": str(page_size)}
        if stream:
            query["stream_name"] = stream
        while True:
            page = decode_list((await self._client.call("list_apps", query=query)).body)
            for app in page.apps:
                yield app
            if not page.has_more:
                return
            last = page.apps[-1].name if page.apps else ""
            if not last or last == query.get("start_app_name"):
                raise TransportError(f"the list of apps does not go on behind {last!r}", outcome_unknown=False)
            query["start_app_name"] = last

    async def delete(self, name: str) -> None:
        """Delete an app and all its checkpoints.

        API 5.2.3. Raises ConflictError (members of its group are reading), NotFoundError, except after an attempt whose
        answer was lost: then it is gone as asked.
        """
        await self._client.call("delete_app", {"app_name": name})

    async def state(self, name: str, stream: str) -> builtins.list[PartitionState]:
        """All partitions of a stream as the app sees them, asked for page by page.

        API 5.2.5. Those that are not written any more are among them. A stream that another account shares is named by
        its id. Raises NotFoundError (app or stream).
        """
        query = {"limit": str(_PARTITION_PAGE), "checkpoint_type": LAST_READ}
        params = {"app_name": name, "stream_name": stream}
        states: dict[str, PartitionState] = {}
        while True:
            page = decode_states((await self._client.call("consuming_state", params, query)).body)
            before = len(states)
            states |= {state.partition_id: state for state in page.states}
            if not page.has_more:
                return [*states.values()]
            # A page that brings nothing new would be asked for for ever.
            if len(states) == before:
                raise TransportError(
                    f"the partitions of stream {stream!r} do not go on behind {page.last!r}", outcome_unknown=False
                )
            query["start_partition_id"] = page.last
