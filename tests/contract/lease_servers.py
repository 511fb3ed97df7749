"""Real servers for the tests of lease stores: started on loopback, in directories of their own, and ended behind them.

Debian's packages `postgresql` and `redis-server` have the programs; nothing of what they start by themselves is used.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

PASSWORD = "s3cr3t-of-the-test"


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class LeaseServer:
    """A process that can be ended and started again on the same data and port."""

    kind: str
    url: str
    ready: str

    def __init__(self) -> None:
        self.port = _free_port()
        self._process: subprocess.Popen[str] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def user(self) -> str | None:
        return None

    def start(self) -> None:
        """Return once it takes connections."""
        self._process = process = subprocess.Popen(
            self.command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, user=self.user(), cwd="/"
        )
        assert process.stdout is not None
        told = []
        for line in process.stdout:
            told.append(line)
            if self.ready in line:
                # What it tells later must be taken from it, or it waits for somebody who reads.
                threading.Thread(target=self._drain, args=[process], daemon=True).start()
                return
        process.stdout.close()
        raise AssertionError(f"{self.kind} ended with {process.wait()}: {''.join(told)}")

    def _drain(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for _ in process.stdout:
                pass

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Both end at once at SIGINT, without waiting for their clients."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(30)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Inside the block it holds its connections and answers nobody."""
        assert self._process is not None
        frozen = [self._process.pid]
        os.kill(self._process.pid, signal.SIGSTOP)
        # Stopped first, it begets no more.
        frozen += map(int, Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split())
        for pid in frozen[1:]:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in reversed(frozen):
                os.kill(pid, signal.SIGCONT)


class PostgresServer(LeaseServer):
    kind = "postgresql"
    ready = "database system is ready to accept connections"

    def __init__(self, programs: Path, directory: Path) -> None:
        super().__init__()
        self._programs = programs
        self._data = directory / "data"
        self._directory = directory
        self.url = f"postgresql://disstream:{PASSWORD}@127.0.0.1:{self.port}/postgres"
        if (owner := self.user()) is not None:
            shutil.chown(directory, owner)
        secret = directory / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        subprocess.run(
            [
                *(programs / "initdb", "-D", self._data, "-U", "disstream", "--pwfile", secret, "-A", "scram-sha-256"),
                *("-E", "UTF8", "--locale", "C", "--no-sync"),
            ],
            user=owner,
            cwd="/",
            check=True,
            capture_output=True,
        )

    def user(self) -> str | None:
        """It refuses to run as root: then as the user that its package has made, or as nobody."""
        if os.getuid():
            return None
        try:
            return pwd.getpwnam("postgres").pw_name
        except KeyError:
            return "nobody"

    def command(self) -> list[str]:
        # Without fsync: the tests end processes, not the machine.
        options = [f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self._directory}"]
        options += ["fsync=off", "shared_buffers=16MB", "max_connections=60", "deadlock_timeout=20ms"]
        command = [str(self._programs / "postgres"), "-D", str(self._data)]
        return command + [word for option in options for word in ("-c", option)]


class RedisServer(LeaseServer):
    kind = "redis"
    ready = "Ready to accept connections"

    def __init__(self, program: str, directory: Path) -> None:
        super().__init__()
        self._program = program
        self._directory = directory
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        command = [self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._directory)]
        # "everysec" may answer before it writes, while an earlier sync goes on: a Redis that is killed loses that.
        return [*command, "--requirepass", PASSWORD, "--save", "", "--appendonly", "yes", "--appendfsync", "always"]


@contextlib.contextmanager
def lease_server(kind: str) -> Iterator[LeaseServer]:
    """A running one of that kind. Skips, with the reason, where there is no such program or no library for it."""
    pytest.importorskip({"postgresql": "asyncpg", "redis": "redis"}[kind])
    # Not in pytest's directories, which another user may not enter.
    with tempfile.TemporaryDirectory(prefix="disstream-", ignore_cleanup_errors=True) as name:
        server: LeaseServer
        if kind == "postgresql":
            found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
            on_path = shutil.which("initdb")
            initdb = found[-1] if found else Path(on_path).resolve() if on_path else None
            if initdb is None:
                pytest.skip("no PostgreSQL server here: apt install postgresql")
            server = PostgresServer(initdb.parent, Path(name))
        else:
            program = shutil.which("redis-server")
            if program is None:
                pytest.skip("no Redis server here: apt install redis-server")
            server = RedisServer(program, Path(name))
        server.start()
        try:
            yield server
        finally:
            server.stop()
