"""A disk that fails, call by call: what was acknowledged is there, nothing is acknowledged afterwards, and what can be
gone on with goes on. The failures are those of the C library (failing.c), under the real engine and the real server."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click.testing
import pytest

from disstream.cli import main
from disstream.engine.api import PartitionRef
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine
from disstream.engine.embedded.synced import is_settled
from disstream.testing.engine import opened

A = PartitionRef("s", 0)
Tell = Callable[[str], str]


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler for calls that fail (apt-get install gcc)")
    made = tmp_path_factory.mktemp("shim") / "failing.so"
    source = Path(__file__).with_name("failing.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", made, source, "-ldl"], check=True)
    return made


class Faults:
    """Switches of the shim."""

    def __init__(self, directory: Path, shim: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self.environment = {**os.environ, "LD_PRELOAD": str(shim), "FAILING_DIR": str(directory)}

    def on(self, what: str, code: int = errno.EIO) -> None:
        (self._directory / what).write_text(str(code))

    def off(self, what: str) -> None:
        (self._directory / what).unlink()


@pytest.fixture
def faults(tmp_path: Path, shim: Path) -> Faults:
    return Faults(tmp_path / "faults", shim)


@contextlib.contextmanager
def victim(data: Path, faults: Faults, durability: str = "fsync") -> Iterator[Tell]:
    """A process with an engine that does what it is told; it ends as a process does that is killed."""
    script = Path(__file__).with_name("storage_victim.py")
    with subprocess.Popen(
        [sys.executable, script, data, durability],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=faults.environment,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        stdin, stdout = process.stdin, process.stdout

        def tell(command: str) -> str:
            stdin.write(f"{command}\n")
            stdin.flush()
            return stdout.readline().rstrip("\n")

        try:
            yield tell
        finally:
            process.kill()


async def kept(data: Path) -> int:
    """How many rows a new engine finds, each as it was appended."""
    async with opened(EmbeddedEngine(data, EmbeddedConfig(map_size_bytes=1 << 30))) as engine:
        (bounds,) = await engine.log.bounds([A])
        assert bounds is not None
        number = bounds.oldest
        while number < bounds.next:
            for batch in await engine.log.read(A, number, 1 << 22):
                for row in batch.rows:
                    assert row.data[:8] == number.to_bytes(8, "big")
                    number += 1
        return number


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
async def test_a_failed_sync_is_not_tried_again(tmp_path: Path, faults: Faults, code: int) -> None:
    """The commit whose sync fails was not stored, says so, and stops the engine, whatever the next sync would say: the
    system tells once what it could not write. So does one that fails for lack of room, as thin volumes have it."""
    data = tmp_path / "data"
    with victim(data, faults) as tell:
        assert [tell("append 5000") for _ in range(3)] == ["ok 0", "ok 1", "ok 2"]
        faults.on("sync", code)
        refused = tell("append 5000")
        assert refused.startswith("StorageError nothing was stored")
        assert "check the disk, then start again" in refused
        faults.off("sync")
        for command in ("append 1", "put key", "trim 1", "read"):
            assert tell(command).startswith("StorageError"), command
        assert os.strerror(code) in tell("failed")
        assert tell("close") == "ok "
    assert await kept(data) == 3


async def test_a_failed_meta_page_is_unknown(tmp_path: Path, faults: Faults) -> None:
    """Nobody can know whether a transaction counts whose meta page failed: the engine says that, and stops."""
    data = tmp_path / "data"
    with victim(data, faults) as tell:
        assert tell("append 5000") == "ok 0"
        faults.on("meta")
        assert tell("append 5000").startswith("OutcomeUnknown")
        faults.off("meta")
        assert tell("append 5000").startswith("StorageError")
        assert "stops" in tell("failed")
    assert await kept(data) in (1, 2)


async def test_a_failed_write_stops(tmp_path: Path, faults: Faults) -> None:
    """A disk that does not take a page although it has room is broken: nothing was stored, and the engine stops."""
    data = tmp_path / "data"
    with victim(data, faults) as tell:
        assert tell("append 5000") == "ok 0"
        faults.on("pages")
        assert tell("append 5000").startswith("StorageError nothing was stored")
        faults.off("pages")
        assert tell("append 5000").startswith("StorageError")
    assert await kept(data) == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
async def test_a_write_without_room_goes_on(tmp_path: Path, faults: Faults, code: int) -> None:
    """A full disk, or quota, refuses what it refuses; what is there is read, and storing goes on once there is room."""
    data = tmp_path / "data"
    with victim(data, faults) as tell:
        assert tell("append 5000") == "ok 0"
        faults.on("pages", code)
        for _ in range(3):
            told = tell("append 5000")
            assert told.startswith("StorageFull nothing was stored")
            assert os.strerror(code) in told
        assert tell("read") == "ok 1"
        faults.off("pages")
        assert tell("append 5000") == "ok 1"
        assert tell("close") == "ok "
    assert await kept(data) == 2


async def test_half_a_write_on_a_disk_with_room_stops(tmp_path: Path, faults: Faults) -> None:
    """LMDB calls half a write EIO. It is a full disk only where there is no room, which is asked for."""
    with victim(tmp_path / "data", faults) as tell:
        assert tell("append 5000") == "ok 0"
        faults.on("part")
        assert tell("append 50000").startswith("StorageError nothing was stored")
        assert "start again" in tell("failed")


async def test_a_failed_sync_of_relaxed_goes_back(tmp_path: Path, faults: Faults) -> None:
    """What was acknowledged since the last sync is in nobody's hands once a sync failed: the engine stops, and the next
    start goes back to what was synchronised, although the system's memory may still show more."""
    data = tmp_path / "data"
    with victim(data, faults, "relaxed") as tell:
        assert tell("append 5000") == "ok 0"
        assert tell("close") == "ok "
    with victim(data, faults, "relaxed") as tell:
        faults.on("sync")
        tell("append 5000")  # stored or not: the sync after it fails, or the one before
        assert "undoes" in tell("failed")
        assert tell("append 1").startswith("StorageError")
        assert tell("close") == "ok "
        faults.off("sync")
    assert await kept(data) == 1


async def test_a_failed_write_of_relaxed_goes_back(tmp_path: Path, faults: Faults) -> None:
    """A disk that does not take a page may not have taken others, of transactions that nobody has synchronised."""
    data = tmp_path / "data"
    with victim(data, faults, "relaxed") as tell:
        assert tell("append 5000") == "ok 0"
        assert tell("close") == "ok "
    with victim(data, faults, "relaxed") as tell:
        faults.on("pages")
        assert tell("append 5000").startswith("StorageError nothing was stored")
        assert "start again" in tell("failed")
        assert tell("close") == "ok "
        faults.off("pages")
    assert not is_settled(data)
    assert await kept(data) == 1


async def test_a_sync_that_fails_at_the_start(tmp_path: Path, faults: Faults) -> None:
    """What a relaxed server that was killed has left may be gone once its sync failed. That is told once: the start
    after the one that failed goes back all the same."""
    data = tmp_path / "data"
    with victim(data, faults, "relaxed") as tell:
        assert tell("append 5000") == "ok 0"
        assert tell("close") == "ok "
    with victim(data, faults, "relaxed"):
        pass
    assert is_settled(data)
    faults.on("sync")
    script = Path(__file__).with_name("storage_victim.py")
    found = subprocess.run(
        [sys.executable, script, data, "fsync"], capture_output=True, text=True, env=faults.environment, check=False
    )
    assert "StorageError: cannot open the data directory" in found.stderr
    faults.off("sync")
    assert not is_settled(data)
    assert await kept(data) == 1


def test_a_server_with_a_failing_disk_ends(tmp_path: Path, faults: Faults) -> None:
    """`disstream serve` ends with one line that says what and what to do, and not with 0; what it acknowledged is there
    when it is started again, and a client in between is told nothing else."""
    data = str(tmp_path / "data")
    command = [sys.executable, "-m", "disstream", "serve", "--port", "0", "--data-dir", data]

    def invoke(url: str, *arguments: str, text: str = "") -> click.testing.Result:
        return click.testing.CliRunner().invoke(main, [*arguments, "--endpoint", url], input=text)

    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=faults.environment
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[1]
        assert invoke(url, "stream", "create", "kept", "--partitions", "1").exit_code == 0
        assert invoke(url, "produce", "kept", text="a\nb\n").stdout == "sent 2, stored 2, failed 0\n"
        faults.on("sync")
        refused = invoke(url, "stream", "create", "other", "--partitions", "1")
        assert refused.exit_code == 1
        _, log = process.communicate(timeout=30)
        assert process.returncode == 1
    assert "Traceback" not in log
    assert "check the disk, then start again" in log.splitlines()[-1]
    assert data in log.splitlines()[-1]
    faults.off("sync")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[1]
        assert invoke(url, "consume", "kept", "--no-follow", "--format", "raw").stdout == "a\nb\n"
        process.terminate()
        assert process.wait(timeout=30) == 0
