"""Stream policies (API 5.1.7, 5.1.8): who else may use a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model import PolicyRule

if TYPE_CHECKING:
    from .client import Client


class Policies:
    """`client.policies`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def add(self, stream: str, principal: str, action: str, *, stream_id: str | None = None) -> None:
        """API 5.1.7."""
        raise NotImplementedError

    async def list(self, stream: str) -> list[PolicyRule]:
        """API 5.1.8."""
        raise NotImplementedError
