"""What the tests of `disstream.blocking` share: a network whose puts can be held, and programs that are run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from disstream.client import ClientConfig, HttpTransport
from disstream.errors import TransportError
from disstream.server import Server
from disstream.wire.http import Request, Response


class Gate(HttpTransport):
    """The way to a server; while it is shut, puts wait in front of it."""

    def __init__(self, url: str) -> None:
        super().__init__(url, ClientConfig())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open = asyncio.Event()
        self._open.set()
        self.waiting = threading.Event()
        """A put stands in front of the gate."""

    async def exchange(self, request: Request) -> Response:
        self._loop = asyncio.get_running_loop()
        if request.method == "POST" and request.target.endswith("/records"):
            if not self._open.is_set():
                self.waiting.set()
            try:
                async with asyncio.timeout(request.timeout_s):
                    await self._open.wait()
            except TimeoutError:
                raise TransportError("no answer", outcome_unknown=True) from None
        return await super().exchange(request)

    def shut(self) -> None:
        self._open.clear()

    def open(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._open.set)

    @contextmanager
    def closed(self) -> Iterator[None]:
        self.shut()
        try:
            yield
        finally:
            self.open()


PRELUDE = """
import os, signal, sys, threading
import disstream, disstream.blocking
from disstream import ConsumerConfig, ProducerConfig

url = sys.argv[1]

def interrupt():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
"""


def run(server: Server, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program that must end by itself, soon, and without a warning."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + program, server.url],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
