"""What producer and consumer have in common: they are started, closed and aborted from any thread."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Protocol, Self

from .portal import Portal


class Living(Protocol):
    """An async object with the life that all of ours have."""

    async def start(self) -> object: ...
    async def close(self) -> None: ...
    async def abort(self) -> None: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Resident(ABC):
    """A producer or a consumer. Use it with `with`, or `start()` and `close()`, from any threads."""

    def __init__(self, portal: Portal, inner: Living, started: Residents) -> None:
        self._portal = portal
        self._living = inner
        self._started = started

    def start(self) -> Self:
        """As `start` of the async object."""
        self._started[self] = None
        try:
            self._portal.call(self._living.start())
        except BaseException:
            self._started.pop(self, None)
            raise
        return self

    def close(self) -> None:
        """As `close` of the async object. Interrupted (Ctrl-C): as `abort`."""
        self.__exit__(None, None, None)

    def abort(self) -> None:
        """As `abort` of the async object."""
        if self._portal.running:
            self._portal.call(self._living.abort())
        self._started.pop(self, None)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(exc)

    def end(self, exc: BaseException | None, timeout_s: float | None = None) -> None:
        """Close, because of `exc` if it is given; after `timeout_s`, abort and raise WaitTimeout."""
        if not self._portal.running:
            return  # it was closed with the client
        try:
            leaving = self._living.__aexit__(type(exc) if exc is not None else None, exc, None)
            self._portal.call(leaving, timeout_s, "it is not closed")
        finally:
            self._started.pop(self, None)

    @abstractmethod
    def stats(self) -> object:
        """What has happened so far. Works after `close`."""

    @abstractmethod
    def forked(self) -> None:
        """This is the child of a `fork`: the loop is not here, and a lock may be held for ever."""


Residents = dict[Resident, None]
"""Those of one client that are started and not closed, oldest first."""
