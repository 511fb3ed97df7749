"""Apps (API 5.2)."""

from __future__ import annotations

import random

from ..engine import Engine
from ..wire.http import Response
from .call import Call
from .directory import Directory
from .groups import Groups


class Apps:
    def __init__(self, engine: Engine, directory: Directory, groups: Groups, source: random.Random) -> None:
        pass

    async def create(self, call: Call) -> Response:
        raise NotImplementedError

    async def delete(self, call: Call) -> Response:
        raise NotImplementedError

    async def describe(self, call: Call) -> Response:
        raise NotImplementedError

    async def listing(self, call: Call) -> Response:
        raise NotImplementedError

    async def consuming_state(self, call: Call) -> Response:
        raise NotImplementedError
