"""The group calls: the shell around group.py."""

from __future__ import annotations

from ..engine import Engine
from ..wire.http import Response
from .call import Call
from .config import ServerConfig
from .directory import Directory


class Groups:
    def __init__(self, engine: Engine, directory: Directory, config: ServerConfig) -> None:
        pass

    async def fence(
        self, project: str, app: str, member_id: str, generation: int, stream_id: str, partition: int
    ) -> dict[str, int]:
        """What a transaction must expect of the catalog so that a commit of this member lands only while it may.

        Counts as a sign of life. Raises ApiError: DIS.4702 (no member), DIS.4703 (another generation, or the partition
        is not the member's), DIS.4701 (it rejoined already).
        """
        raise NotImplementedError

    async def in_use(self, project: str, app: str) -> bool:
        """Whether a live member reads for the app."""
        raise NotImplementedError

    async def join(self, call: Call) -> Response:
        raise NotImplementedError

    async def sync(self, call: Call) -> Response:
        raise NotImplementedError

    async def heartbeat(self, call: Call) -> Response:
        raise NotImplementedError

    async def leave(self, call: Call) -> Response:
        raise NotImplementedError

    async def members(self, call: Call) -> Response:
        raise NotImplementedError
