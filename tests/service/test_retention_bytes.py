"""Streams that may hold so many bytes: the oldest records go, the others stay, and it is said who keeps to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest
from server_http import AppCaller, data

from disstream.client import Client
from disstream.engine import Engine
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine
from disstream.engine.memory import MemoryEngine
from disstream.errors import ConfigError
from disstream.model import NewRecord
from disstream.server import App, ServerConfig
from disstream.server.retention import keep_trimming, trim_expired
from disstream.testing.clock import run_simulated
from disstream.testing.network import AppTransport
from disstream.wire.http import Request, Response

MIB = 1_048_576
CONFIG = ServerConfig(data_dir=None)
QUARTER = data(b"x" * (MIB // 4))


class Bench(AppCaller):
    def __init__(self, engine: Engine, config: ServerConfig) -> None:
        self.engine = engine
        self.config = config
        super().__init__(App(engine, config))

    async def fill(self, name: str, *partitions: int) -> None:
        """A quarter of a MiB into each of these, in this order, a second apart."""
        for number in partitions:
            answer = await self.put(name, {"data": QUARTER, "partition_id": str(number)})
            assert answer.told["failed_record_count"] == 0
            await anyio.sleep(1)

    async def trim(self) -> None:
        await trim_expired(self.engine, self.app.directory, self.app.scaling, self.config.retention_bytes)

    async def described(self, name: str) -> object:
        """What it may hold, as told."""
        return (await self.call("GET", f"/v2/p/streams/{name}")).told.get("retention_bytes")


def simulate(test: Callable[[Bench], Awaitable[None]], config: ServerConfig = CONFIG) -> None:
    async def main() -> None:
        bench = Bench(MemoryEngine(), config)
        await bench.engine.start()
        await test(bench)
        await bench.engine.close()

    run_simulated(main)


def test_the_oldest_of_all_partitions_go() -> None:
    """A partition that is written little keeps its record while others lose theirs; another stream loses nothing."""

    async def test(bench: Bench) -> None:
        await bench.create("s", 3, retention_bytes=MIB)
        await bench.create("other", 1)
        await bench.fill("other", 0, 0, 0, 0, 0)
        await bench.fill("s", 0, 0, 1, 2)
        await bench.trim()
        assert await bench.ranges("s") == ["[0 : 2]", "[0 : 1]", "[0 : 1]"]
        await bench.fill("s", 0)
        await bench.trim()
        assert await bench.ranges("s") == ["[1 : 3]", "[0 : 1]", "[0 : 1]"]
        await bench.fill("s", 0, 0)
        await bench.trim()
        assert await bench.ranges("s") == ["[2 : 5]", "[1 : 1]", "[0 : 1]"]
        assert await bench.ranges("other") == ["[0 : 5]"]
        assert len(await bench.read("s")) == 3

    simulate(test)


def test_it_is_done_by_itself() -> None:
    """Every interval, without anybody asking; who reads too late is told as with records that expired."""

    async def test(bench: Bench) -> None:
        await bench.create("s", 1, retention_bytes=MIB)
        stale = await bench.cursor("s", cursor_type="TRIM_HORIZON")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_trimming, bench.engine, bench.app.directory, bench.app.scaling, 60.0)
            await bench.fill("s", *[0] * 20)
            await anyio.sleep(60)
            assert await bench.ranges("s") == ["[16 : 20]"]
            assert (await bench.get(stale)).code == "DIS.4226"
            tasks.cancel_scope.cancel()

    simulate(test)


def test_where_it_is_said() -> None:
    """A stream's own bound goes before the server's; it is told, kept by other updates, changed, and taken away."""

    async def test(bench: Bench) -> None:
        await bench.create("own", 1, retention_bytes=MIB)
        await bench.create("default", 1)
        assert [await bench.described(name) for name in ("own", "default")] == [MIB, 2 * MIB]
        for name in ("own", "default"):
            await bench.fill(name, *[0] * 10)
        await bench.trim()
        assert [await bench.ranges(name) for name in ("own", "default")] == [["[6 : 10]"], ["[2 : 10]"]]
        for body, expected in (
            ({"data_duration": 48}, MIB),
            ({"retention_bytes": 3 * MIB}, 3 * MIB),
            ({"retention_bytes": None}, 3 * MIB),
            ({"retention_bytes": 0}, 2 * MIB),
        ):
            answer = await bench.call("PUT", "/v3/p/streams/own", {"stream_name": "own", **body})
            assert answer.status == 204
            assert await bench.described("own") == expected

    simulate(test, ServerConfig(data_dir=None, retention_bytes=2 * MIB))


@pytest.mark.parametrize("value", [1, MIB - 1, -1, 2**63, "10GB", 1.5, True])
def test_impossible_bounds(value: object) -> None:
    """They are refused by name, whether a stream is created or changed."""

    async def test(bench: Bench) -> None:
        await bench.create("s", 1)
        create = {"stream_name": "t", "partition_count": 1, "retention_bytes": value}
        for method, target, body in (
            ("POST", "/v2/p/streams", create),
            ("PUT", "/v3/p/streams/s", {"stream_name": "s", "retention_bytes": value}),
        ):
            answer = await bench.call(method, target, body)
            assert answer.code == "DIS.4200"
            assert "retention_bytes" in answer.told["message"]
        assert await bench.described("s") is None

    simulate(test)


async def test_on_disk(tmp_path: Path) -> None:
    """A stream stays within its bytes and what came since, is counted anew by nobody, and the file stops growing."""
    settings = EmbeddedConfig(map_size_bytes=1 << 30)
    sizes: list[int] = []
    for _ in range(3):
        engine = EmbeddedEngine(tmp_path, settings)
        await engine.start()
        bench = Bench(engine, CONFIG)
        if not sizes:
            await bench.create("s", 2, retention_bytes=2 * MIB)
        for _ in range(8):
            for number in (0, 0, 0, 1):
                record = {"data": QUARTER, "partition_id": str(number)}
                assert (await bench.put("s", record, record)).told["failed_record_count"] == 0
            await bench.trim()
            ranges = [answer.strip("[]").split(" : ") for answer in await bench.ranges("s")]
            assert sum(int(end) - int(oldest) for oldest, end in ranges) in (7, 8)
        sizes.append((tmp_path / "data.mdb").stat().st_size)
        await engine.close()
    assert sizes[-1] <= sizes[0] + 2 * MIB, sizes


class Line(AppTransport):
    """A way to a service that knows nothing of bytes, if it is told to be one."""

    plain = False

    async def exchange(self, request: Request) -> Response:
        response = await super().exchange(request)
        if self.plain:
            response.headers.pop("x-disstream", None)
        return response


def test_by_the_client() -> None:
    """It says what a stream may hold, and raises where nobody would keep to it, before anything is created."""

    async def main() -> None:
        engine = MemoryEngine()
        await engine.start()
        line = Line(App(engine, CONFIG))
        async with Client(line, "demo") as client:
            await client.streams.create("s", partitions=1, retention_bytes=3 * MIB)
            assert (await client.streams.describe("s")).retention_bytes == 3 * MIB
            await client.streams.update("s", retention_bytes=2 * MIB)
            assert (await client.streams.describe("s")).retention_bytes == 2 * MIB
            await client.streams.update("s", retention_bytes=0)
            assert (await client.streams.describe("s")).retention_bytes is None
            (await client.records.put("s", [NewRecord(b"x")])).raise_for_failed()
            for wrong in (-1, 1.5, "1GB", True):
                with pytest.raises(ConfigError, match="retention_bytes"):
                    await client.streams.create("t", partitions=1, retention_bytes=wrong)  # type: ignore[arg-type]
        line.plain = True
        async with Client(line, "demo") as client:
            with pytest.raises(ConfigError, match="keeps records by time only"):
                await client.streams.create("t", partitions=1, retention_bytes=3 * MIB)
            with pytest.raises(ConfigError, match="keeps records by time only"):
                await client.streams.update("s", retention_bytes=3 * MIB)
            assert [stream.name async for stream in client.streams.list()] == ["s"]
        await engine.close()

    run_simulated(main)
