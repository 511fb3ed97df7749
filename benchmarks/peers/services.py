"""The services that contenders write to, each in a process of its own, in a directory that is gone afterwards."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

import anyio

from disstream import __version__
from disstream.bench.processes import START_TIMEOUT_S, Child, child, server

HERE = Path(__file__).parent


class Missing(Exception):
    """What is needed is not installed; the text says how to get it."""


class Tools(NamedTuple):
    """Where the programs of others are."""

    venvs: Path
    """Holds the environments `official` and `peers`."""
    nats_server: str
    redis_server: str

    def python(self, venv: str | None) -> str:
        """The interpreter of an environment; None: of ours. Raises Missing."""
        if venv is None:
            return sys.executable
        path = self.venvs / venv / "bin" / "python"
        if not path.exists():
            raise Missing(f"there is no {path}: `make bench-peers` makes it")
        return str(path)


class Served(NamedTuple):
    address: str
    process: Child
    version: str


class Service(Protocol):
    def __call__(self, directory: Path, tools: Tools) -> AbstractAsyncContextManager[Served]:
        """Raises Missing."""
        ...


@contextlib.asynccontextmanager
async def durable_disstream(directory: Path, tools: Tools) -> AsyncIterator[Served]:
    async with server(directory / "data", directory) as (url, process):
        yield Served(url, process, __version__)


@contextlib.asynccontextmanager
async def jetstream(directory: Path, tools: Tools) -> AsyncIterator[Served]:
    path = _found(tools.nats_server, "go install github.com/nats-io/nats-server/v2@latest, or apt install nats-server")
    port = _free_port()
    arguments = [path, "--jetstream", "--store_dir", str(directory / "store"), "--addr", "127.0.0.1", "--port", port]
    async with child("nats-server", arguments, directory) as process:
        await _answering(int(port))
        yield Served(f"nats://127.0.0.1:{port}", process, _version(path))


def redis_streams(appendfsync: str) -> Service:
    @contextlib.asynccontextmanager
    async def serving(directory: Path, tools: Tools) -> AsyncIterator[Served]:
        path = _found(tools.redis_server, "apt install redis-server")
        port = _free_port()
        options = {
            "bind": "127.0.0.1",
            "port": port,
            "dir": str(directory),
            "logfile": "redis.log",
            "save": "",
            "appendonly": "yes",
            "appendfsync": appendfsync,
            "auto-aof-rewrite-percentage": "0",  # it would come in the middle of somebody's lap
        }
        arguments = [path, *(text for name, value in options.items() for text in (f"--{name}", value))]
        async with child("redis-server", arguments, directory) as process:
            await _answering(int(port))
            yield Served(f"redis://127.0.0.1:{port}", process, _version(path))

    return serving


@contextlib.asynccontextmanager
async def kafka_mock(directory: Path, tools: Tools) -> AsyncIterator[Served]:
    arguments = [tools.python("peers"), str(HERE / "kafka_mock.py")]
    async with child("kafka-mock", arguments, directory) as process:
        with anyio.fail_after(START_TIMEOUT_S):
            address, _, version = (await process.read_line()).decode().strip().partition(" ")
        yield Served(address, process, version)


def _found(program: str, remedy: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise Missing(f"there is no {program}: {remedy}")
    return path


def _version(path: str) -> str:
    told = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    return f"{Path(path).name} {re.findall(r'[0-9]+(?:[.][0-9]+)+', told)[0]}"


def _free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


async def _answering(port: int) -> None:
    """Wait until somebody accepts connections there."""
    with anyio.fail_after(START_TIMEOUT_S):
        while True:
            with contextlib.suppress(OSError):
                await (await anyio.connect_tcp("127.0.0.1", port)).aclose()
                return
            await anyio.sleep(0.05)
