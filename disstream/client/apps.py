"""Apps (API 5.2)."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from ..model import AppInfo, PartitionState

if TYPE_CHECKING:
    from .client import Client


class Apps:
    """`client.apps`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def create(self, name: str) -> None:
        """API 5.2.1. Raises ConflictError (exists), QuotaError."""
        raise NotImplementedError

    async def describe(self, name: str) -> AppInfo:
        """API 5.2.4. Raises NotFoundError."""
        raise NotImplementedError

    def list(self, *, stream: str | None = None, page_size: int = 100) -> AsyncIterator[AppInfo]:
        """API 5.2.2."""
        raise NotImplementedError

    async def delete(self, name: str) -> None:
        """API 5.2.3. Raises NotFoundError, ConflictError (members are reading)."""
        raise NotImplementedError

    async def state(self, name: str, stream: str) -> builtins.list[PartitionState]:
        """API 5.2.5: all partitions of a stream as the app sees them, page by page."""
        raise NotImplementedError
