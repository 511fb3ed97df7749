"""An application on an engine whose catalog a test can meddle with, for the tests of apps and checkpoints."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

from server_http import AppCaller, data

from disstream.engine import Catalog, Engine, EngineStats, Log, Versioned
from disstream.engine.memory import MemoryEngine
from disstream.server import ServerConfig
from disstream.server.app import App


class Meddler:
    """An engine that lets something happen just before its next transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.meanwhile: Callable[[], Awaitable[object]] | None = None
        self.transactions = 0

    @property
    def log(self) -> Log:
        return self._engine.log

    @property
    def catalog(self) -> Catalog:
        return self

    @property
    def revision(self) -> int:
        return self._engine.catalog.revision

    async def start(self) -> None:
        await self._engine.start()

    async def close(self) -> None:
        await self._engine.close()

    def stats(self) -> EngineStats:
        return self._engine.stats()

    async def wait_failed(self) -> None:
        await self._engine.wait_failed()

    async def get(self, key: str) -> Versioned | None:
        return await self._engine.catalog.get(key)

    async def scan(self, prefix: str, after: str = "", limit: int = 1000) -> list[tuple[str, Versioned]]:
        return await self._engine.catalog.scan(prefix, after, limit)

    async def transact(self, expect: Mapping[str, int], put: Mapping[str, bytes], delete: Collection[str] = ()) -> None:
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        self.transactions += 1
        await self._engine.catalog.transact(expect, put, delete)

    async def keys(self) -> list[str]:
        """Every key that tells of apps and what they have read."""
        found = [key for key, _ in await self.scan("")]
        return [key for key in found if key.split("/")[0] in ("app", "checkpoint", "reader", "group")]


class ReaderCaller(AppCaller):
    """Short names for what the tests of apps and checkpoints do."""

    def __init__(self, engine: Meddler) -> None:
        self.engine = engine
        super().__init__(App(engine, ServerConfig(data_dir=None, port=0), random.Random(1)))

    async def make(self, *streams: str, apps: tuple[str, ...] = ("a",), records: int = 10, partitions: int = 1) -> None:
        """Streams with so many records in partition 0, and apps."""
        for name in streams:
            await self.create(name, partitions)
            if records:
                await self.put(name, *[{"data": data(b"x"), "partition_id": "0"}] * records)
        for name in apps:
            answer = await self.call("POST", "/v2/p/apps", {"app_name": name})
            assert (answer.status, answer.body, answer.code) == (201, b"", "")

    async def commit(self, sequence: object, *, project: str = "p", **fields: Any) -> str:
        """The code of the answer, "" for success; app a, stream s, partition 0 unless told otherwise."""
        body: dict[str, Any] = {
            "app_name": "a",
            "stream_name": "s",
            "partition_id": "0",
            "checkpoint_type": "LAST_READ",
        }
        body |= {"sequence_number": sequence, **fields}
        answer = await self.call("POST", f"/v2/{project}/checkpoints/", body)
        assert answer.code or (answer.status, answer.body) == (201, b"")
        return answer.code

    async def stored(self, query: str = "app_name=a&stream_name=s&partition_id=0", project: str = "p") -> Any:
        """The checkpoint as answered: a dict, or the code of a refusal."""
        answer = await self.call("GET", f"/v2/{project}/checkpoints?{query}&checkpoint_type=LAST_READ")
        return answer.code or answer.told

    async def forget(self, query: str = "app_name=a&stream_name=s", project: str = "p") -> str:
        answer = await self.call("DELETE", f"/v2/{project}/checkpoints?{query}")
        assert answer.code or (answer.status, answer.body) == (204, b"")
        return answer.code

    async def delete_app(self, name: str = "a") -> str:
        answer = await self.call("DELETE", f"/v2/p/apps/{name}/")
        assert answer.code or (answer.status, answer.body) == (204, b"")
        return answer.code

    async def told(self, target: str) -> Any:
        """The answer to a GET below the project: a dict, or the code of a refusal."""
        answer = await self.call("GET", f"/v2/p{target}")
        return answer.code or answer.told


NOTHING = {"sequence_number": "-1", "metadata": ""}


@asynccontextmanager
async def reading(engine: Engine | None = None) -> AsyncIterator[ReaderCaller]:
    """An application on a started engine."""
    meddler = Meddler(engine or MemoryEngine())
    await meddler.start()
    try:
        yield ReaderCaller(meddler)
    finally:
        await meddler.close()
