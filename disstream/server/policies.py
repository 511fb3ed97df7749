"""Stream policies (API 5.1.7, 5.1.8)."""

from __future__ import annotations

from ..engine import Engine
from ..wire.http import Response
from .call import Call
from .directory import Directory


class Policies:
    def __init__(self, engine: Engine, directory: Directory) -> None:
        pass

    async def add(self, call: Call) -> Response:
        raise NotImplementedError

    async def listing(self, call: Call) -> Response:
        raise NotImplementedError
