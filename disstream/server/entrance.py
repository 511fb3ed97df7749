"""Where connections come in, for a server with several workers (fronts.py): accepted here, dealt out to the fronts."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import Protocol

logger = logging.getLogger("disstream.server")

_ACCEPTS = 64  # connections taken in a row: calls wait meanwhile, some 2 ms
_FULL_S = 0.01  # until it is tried again to hand over a connection that no front had room for
_EXHAUSTED_S = 1.0  # the same where the system has no descriptors left, as asyncio does


class Taker(Protocol):
    """A front, as far as it takes connections."""

    connections: int

    @property
    def load(self) -> tuple[bool, int]:
        """The least gets the next one."""
        ...

    def hand_over(self, connection: socket.socket) -> bool:
        """False: there is no room, or it is just ending."""
        ...


class Entrance:
    """Accepts connections and deals them out. Holds at most one that nobody had room for."""

    def __init__(self, listener: socket.socket, lines: Sequence[Taker | None], most: int) -> None:
        self._listener = listener
        self._lines = lines
        self._most = most
        self._held: socket.socket | None = None
        self._pausing: asyncio.TimerHandle | None = None

    def open(self) -> None:
        self._pausing = None
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._listener.fileno())
        if self._pausing is not None:
            self._pausing.cancel()
        if self._held is not None:
            self._held.close()

    def _accept(self) -> None:
        for _ in range(_ACCEPTS):
            try:
                connection = self._held or self._listener.accept()[0]
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:
                logger.error("connections cannot be accepted, trying again in %g s: %s", _EXHAUSTED_S, exc)
                self._pause(_EXHAUSTED_S)
                return
            self._held = None
            lines = [line for line in self._lines if line is not None]
            full = sum(line.connections for line in lines) >= self._most
            if not full and not any(line.hand_over(connection) for line in sorted(lines, key=_load)):
                self._held = connection
                self._pause(_FULL_S)
                return
            connection.close()  # ours: the front has a descriptor of its own

    def _pause(self, pause_s: float) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener.fileno())
        self._pausing = loop.call_later(pause_s, self.open)


def _load(line: Taker) -> tuple[bool, int]:
    return line.load
