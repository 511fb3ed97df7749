"""The pytest plugin gives a server that synchronous clients can use, fresh for each test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

TESTS = """
import json, urllib.request

def streams(server):
    with urllib.request.urlopen(server.url + "/v2/demo/streams") as answer:
        return json.load(answer)["stream_names"]

def create(server, name):
    body = json.dumps({"stream_name": name, "partition_count": 1}).encode()
    urllib.request.urlopen(server.url + "/v2/demo/streams", data=body).close()

def test_one(disstream_server):
    create(disstream_server, "one")
    assert streams(disstream_server) == ["one"]

def test_two(disstream_server):
    create(disstream_server, "two")
    assert streams(disstream_server) == ["two"]

async def test_client(disstream_client):
    await disstream_client.streams.create("three", partitions=1)
    assert (await disstream_client.streams.describe("three")).status == "RUNNING"
"""


def test_fixtures(tmp_path: Path) -> None:
    """Two synchronous tests get a fresh server each, and an asynchronous one a connected client."""
    (tmp_path / "test_it.py").write_text(TESTS)
    plugin = [] if _registered() else ["-p", "disstream.testing.plugin"]
    options = ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"]
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", *options, *plugin]
    done = subprocess.run([*command, "."], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_the_plugin_is_light() -> None:
    """Loading the plugin's own module imports neither server nor client."""
    code = (
        "import json, sys, types\n"
        "sys.modules['disstream'] = package = types.ModuleType('disstream')\n"
        f"package.__path__ = [{str(Path(__file__).parents[2] / 'disstream')!r}]\n"
        "import disstream.testing.plugin\n"
        "print(json.dumps([name for name in sys.modules if name.startswith('disstream.')]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = json.loads(done.stdout)
    assert "disstream.testing.plugin" in loaded
    assert not [name for name in loaded if "server" in name or "client" in name or "engine" in name]


def _registered() -> bool:
    from importlib.metadata import entry_points

    return any(point.name == "disstream" for point in entry_points(group="pytest11"))
