"""Checkpoints (API 5.3)."""

from __future__ import annotations

from ..engine import Engine
from ..wire.http import Response
from .call import Call
from .directory import Directory
from .groups import Groups


class Checkpoints:
    def __init__(self, engine: Engine, directory: Directory, groups: Groups) -> None:
        pass

    async def commit(self, call: Call) -> Response:
        raise NotImplementedError

    async def get(self, call: Call) -> Response:
        raise NotImplementedError

    async def delete(self, call: Call) -> Response:
        raise NotImplementedError
