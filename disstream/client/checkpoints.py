"""Checkpoints (API 5.3), as the service keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model import Checkpoint

if TYPE_CHECKING:
    from .client import Client


class Checkpoints:
    """`client.checkpoints`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def commit(
        self,
        app: str,
        stream: str,
        partition_id: str,
        sequence_number: int,
        *,
        metadata: str = "",
        stream_id: str | None = None,
        member_id: str | None = None,
        generation: int | None = None,
    ) -> None:
        """API 5.3.1."""
        raise NotImplementedError

    async def get(self, app: str, stream: str, partition_id: str) -> Checkpoint | None:
        """API 5.3.2. None: nothing was committed."""
        raise NotImplementedError

    async def delete(self, app: str, stream: str, partition_id: str | None = None) -> None:
        """API 5.3.3. None: those of all partitions."""
        raise NotImplementedError
