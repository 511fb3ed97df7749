"""A server on a data directory: what it answered is there when another one opens the directory."""

from __future__ import annotations

from pathlib import Path

import pytest
from server_http import data, serving

from disstream import connect
from disstream.engine.embedded import EmbeddedEngine
from disstream.errors import ClosedError, StorageError
from disstream.server import Server, ServerConfig


@pytest.mark.parametrize("durability", ["fsync", "relaxed"])
async def test_restart(tmp_path: Path, durability: str) -> None:
    """Streams, records, numbers and cursors outlive the server; deleted streams stay deleted."""
    async with serving(data_dir=tmp_path / "d", durability=durability) as http:
        await http.create("s", 2, data_duration=48, tags=[{"key": "k", "value": "v"}])
        await http.create("gone")
        await http.put("s", *[{"data": data(b"%d" % n), "partition_key": "k1", "timestamp": n} for n in range(3)])
        await http.put("gone", {"data": ""})
        await http.call("DELETE", "/v2/p/streams/gone")
        described, records = await http.describe("s"), await http.read("s")
        cursor = await http.cursor("s", starting_sequence_number=2)
    async with serving(data_dir=str(tmp_path / "d"), durability=durability) as http:
        assert await http.describe("s") == described
        assert await http.read("s") == records
        assert (await http.get(cursor)).told["records"] == records[2:]
        assert (await http.call("GET", "/v2/p/streams")).told["stream_names"] == ["s"]
        told = (await http.put("s", {"data": "", "partition_key": "k1"})).told
        assert told["records"] == [{"partition_id": "shardId-0000000000", "sequence_number": "3"}]


async def test_a_directory_serves_once(tmp_path: Path) -> None:
    """A second server on the same directory is refused by name, and the first goes on."""
    async with serving(data_dir=tmp_path) as http:
        with pytest.raises(StorageError, match=tmp_path.name):
            await Server(ServerConfig(data_dir=tmp_path, port=0)).start()
        assert (await http.call("GET", "/v2/p/streams")).status == 200


async def test_what_a_server_says_of_its_disk(tmp_path: Path) -> None:
    """`stats()` tells what a power failure takes, what was committed and the room there is; in memory it is all."""
    async with Server(ServerConfig(data_dir=None, port=0)) as server:
        stats = server.stats()
        assert (stats.engine.durability, stats.engine.loss_s, stats.pending_bytes) == ("none", None, 0)
    relaxed = ServerConfig(data_dir=tmp_path, port=0, durability="relaxed", sync_interval_s=7.5, ballast_bytes=65_536)
    server = Server(relaxed)
    with pytest.raises(ClosedError):
        server.stats()
    async with server:
        engine = server.stats().engine
        assert (engine.durability, engine.loss_s, engine.refusing) == ("relaxed", 7.5, None)
        assert engine.ballast_bytes == (tmp_path / "ballast").stat().st_size == 65_536
        assert 0 < engine.used_bytes <= engine.file_bytes
        assert engine.free_bytes > 0
    async with Server(ServerConfig(data_dir=tmp_path, port=0, ballast_bytes=0)) as server:
        before = server.stats().engine
        assert (before.durability, before.loss_s) == ("fsync", 0)
        async with connect(server.url, project_id="p") as dis:
            await dis.streams.create("s", partitions=1)
        after = server.stats().engine
        assert after.commits > before.commits
        assert after.syncs == after.commits
        assert after.sync_age_s is not None
        assert after.sync_age_s >= 0
    assert not (tmp_path / "ballast").exists()


async def test_a_server_ends_when_its_engine_stops(tmp_path: Path) -> None:
    """Nothing is served from an engine that has stopped: the server ends, and says why to whoever waits for it."""
    server = Server(ServerConfig(data_dir=tmp_path, port=0))
    await server.start()
    engine = server._engine
    assert isinstance(engine, EmbeddedEngine)
    engine._committer._stop(StorageError("the disk is gone; check it"))
    await server.wait_closed()
    with pytest.raises(ClosedError, match="the disk is gone"):
        server.stats()
    with pytest.raises(StorageError, match="the disk is gone"):
        await server.close()
