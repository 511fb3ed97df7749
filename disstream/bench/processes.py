"""A server, readers and workers in processes of their own. What ends the block ends them, by their process ids."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.abc
import msgspec
from anyio.streams.buffered import BufferedByteReceiveStream

from ..errors import DisError
from .machine import cpu_s, private_bytes, resident_bytes

T = TypeVar("T")

START_TIMEOUT_S = 30.0
END_TIMEOUT_S = 15.0
MAX_LINE_BYTES = 1_000_000
TOLD_LINES = 20
"""Of what a process said on its standard error, when something went wrong."""
PYTHON = (sys.executable, "-m")
"""How to run a module with the interpreter and the packages we have."""


class ChildEnded(DisError):
    """A process that the run depends on is gone."""


class Child:
    """A process that talks in lines."""

    def __init__(self, name: str, process: anyio.abc.Process, log: Path) -> None:
        self._name = name
        self._process = process
        self._log = log
        assert process.stdout is not None
        self._lines = BufferedByteReceiveStream(process.stdout)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def read_line(self) -> bytes:
        """The next line it writes. Raises ChildEnded when it writes no more."""
        try:
            return await self._lines.receive_until(b"\n", MAX_LINE_BYTES)
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.ClosedResourceError, anyio.BrokenResourceError) as exc:
            raise await self._ended() from exc

    async def read(self, kind: type[T]) -> T:
        """The next line as JSON."""
        return msgspec.json.decode(await self.read_line(), type=kind)

    async def write(self, message: msgspec.Struct | dict[str, Any]) -> None:
        """One line of JSON to its standard input."""
        assert self._process.stdin is not None
        try:
            await self._process.stdin.send(msgspec.json.encode(message) + b"\n")
        except (anyio.ClosedResourceError, anyio.BrokenResourceError) as exc:
            raise await self._ended() from exc

    async def watch(self) -> None:
        """Wait for ever; raises ChildEnded if the process ends meanwhile."""
        await self._process.wait()
        raise await self._ended()

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def cpu_s(self) -> float | None:
        """Processor time it has used so far, in seconds; None where the system does not tell."""
        return cpu_s(self._process.pid)

    def private_bytes(self) -> int | None:
        """Memory it has now that is not backed by files, in bytes; None where the system does not tell."""
        return private_bytes(self._process.pid)

    def resident_bytes(self) -> int | None:
        """Memory it has now, files that it maps included, in bytes; None where the system does not tell."""
        return resident_bytes(self._process.pid)

    def said(self, lines: int) -> str:
        """The last lines of its standard error so far."""
        return "\n".join(self._log.read_text(errors="replace").strip().splitlines()[-lines:])

    async def _ended(self) -> ChildEnded:
        with anyio.move_on_after(END_TIMEOUT_S):
            await self._process.wait()
        told = f"the {self._name} process ended too early (exit code {self._process.returncode})"
        return ChildEnded(f"{told}: {said}" if (said := self.said(TOLD_LINES)) else told)


@contextlib.asynccontextmanager
async def child(
    name: str, arguments: list[str], directory: Path, *, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Child]:
    """Run a program; its standard error goes to a file in `directory`. SIGTERM at the end, then SIGKILL.

    `environment`: variables it has beside ours.
    """
    log = directory / f"{name}.log"
    with log.open("wb") as errors:
        # A session of its own: Ctrl-C in the terminal reaches us alone, and we end the children in order.
        process = await anyio.open_process(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **environment} if environment else None,
            start_new_session=True,
        )
    try:
        yield Child(name, process, log)
    finally:
        with anyio.CancelScope(shield=True):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with anyio.move_on_after(END_TIMEOUT_S) as patience:
                await process.wait()
            if patience.cancelled_caught:
                process.kill()
                await process.wait()
            await process.aclose()


@contextlib.asynccontextmanager
async def server(
    data_dir: Path, directory: Path, *, port: int = 0, session_timeout_s: float | None = None
) -> AsyncIterator[tuple[str, Child]]:
    """A durable server: its URL and its process. Port 0: a free one; `session_timeout_s` None: its default."""
    arguments = [
        *PYTHON,
        "disstream",
        "serve",
        "--port",
        str(port),
        "--data-dir",
        str(data_dir),
        "--durability",
        "fsync",
    ]
    if session_timeout_s is not None:
        config = directory / "server.toml"
        config.write_text(f"[group]\nsession_timeout_s = {float(session_timeout_s)}\n")
        arguments += ["--config", str(config)]
    async with child("server", arguments, directory) as process:
        with anyio.fail_after(START_TIMEOUT_S):
            line = await process.read_line()
        yield line.decode().split()[1], process
