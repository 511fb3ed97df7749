"""A server on a data directory: what it answered is there when another one opens the directory."""

from __future__ import annotations

from pathlib import Path

import pytest
from server_http import data, serving

from disstream.errors import StorageError
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
