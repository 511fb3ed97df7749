"""What a process does not use it does not import: that is nearly all of the time in which it starts."""

from __future__ import annotations

import subprocess
import sys

import pytest

ROOMS = {f"disstream.{room}" for room in ("bench", "client", "consumer", "leases", "producer", "server", "worker")}
HEAVY = {"aiohttp", "anyio", "asyncio", "avro", "google.protobuf", "lmdb", "matplotlib", "msgspec", "rich", "sqlite3"}

IMPORTED = "import disstream"
HELP = """
import contextlib
from disstream.cli import main
with contextlib.suppress(SystemExit):
    main(["--help"])
"""
SERVED = """
import anyio
import disstream.cli.serve
from disstream.server import Server, ServerConfig

async def served(directory):
    async with Server(ServerConfig(data_dir=directory, port=0)):
        pass

with __import__("tempfile").TemporaryDirectory() as directory:
    anyio.run(served, directory, backend_options={"use_uvloop": sys.platform != "win32"})
"""
FRONT = "import disstream.server.front"
PRODUCED = """
import anyio
import disstream

async def produced():
    async with disstream.connect("http://127.0.0.1:9", project_id="demo") as dis:
        dis.producer("orders", disstream.ProducerConfig())

anyio.run(produced)
"""
CHECKED = """
import contextlib
from disstream.cli import main
with contextlib.suppress(SystemExit):
    main(["data", "check", "/dev/null/none"])
"""
CHILD = "import disstream.engine.embedded.child, disstream.engine.embedded.check"


@pytest.mark.parametrize(
    ("program", "without", "needed"),
    [
        pytest.param(IMPORTED, HEAVY | ROOMS | {"click"}, "disstream", id="import disstream"),
        pytest.param(HELP, (HEAVY | ROOMS) - {"anyio", "asyncio"}, "click", id="disstream --help"),
        pytest.param(
            SERVED,
            (HEAVY | ROOMS) - {"anyio", "asyncio", "aiohttp", "lmdb", "msgspec", "disstream.server"},
            "aiohttp.web",
            id="disstream serve",
        ),
        pytest.param(
            FRONT,
            ROOMS - {"disstream.server"} | {"avro", "click", "google.protobuf", "lmdb"},
            "aiohttp.web",
            id="worker of a server",
        ),
        pytest.param(
            PRODUCED,
            (HEAVY | ROOMS | {"aiohttp.web"})
            - {"anyio", "asyncio", "aiohttp", "msgspec", "disstream.client", "disstream.producer"},
            "disstream.producer",
            id="a producer",
        ),
        pytest.param(
            CHECKED,
            (HEAVY | ROOMS) - {"anyio", "asyncio", "lmdb", "msgspec", "disstream.server"},
            "lmdb",
            id="disstream data",
        ),
        pytest.param(CHILD, (HEAVY | ROOMS) - {"anyio", "asyncio", "lmdb", "msgspec"}, "lmdb", id="child of data"),
    ],
)
def test_nothing_is_imported_in_vain(program: str, without: set[str], needed: str) -> None:
    """A process that does one thing has not imported the rooms and libraries of the others, and did what it should."""
    told = "\nprint('modules', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}{told}"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.splitlines()[-1].split())
    assert needed in imported
    assert not without & imported
