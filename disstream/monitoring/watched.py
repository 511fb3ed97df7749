"""The objects whose `stats()` are read, from whatever thread asks.

`stats()` belongs to the event loop of its object; metrics are often asked for by a thread of their own (the HTTP server
of `prometheus_client`, the exporter of OpenTelemetry). So each look asks the loop, and waits `ANSWER_S` at most. A loop
that does not answer is told as such (`disstream_watch_stale`), with the figures of the last look: a blocked loop is
when they are wanted most. So is a server that has ended.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from typing import Any, Protocol

from .. import clock
from ..errors import ConfigError, DisError
from .names import BY_STATS

ANSWER_S = 1.0

FRESH_S = 0.2
"""A look may be this old: OpenTelemetry asks for each metric on its own."""


class Observable(Protocol):
    """A client, producer, consumer, worker or server."""

    def stats(self) -> Any: ...


class Watched:
    """One object under one name. Made in the object's event loop."""

    def __init__(self, target: Observable, name: str) -> None:
        stats = target.stats() if hasattr(target, "stats") else None
        if type(stats) not in BY_STATS:
            raise ConfigError(
                f"{type(target).__name__} cannot be watched: give a client, producer, consumer, worker or server"
            )
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigError(f"watch {name!r} from within the event loop that it runs in") from None
        self.name = name
        self._target = target
        self._thread = threading.get_ident()
        self._last = stats
        self._looked_at = clock.boot()
        self.stale = False
        """The last look got no answer."""

    def look(self) -> Any:
        """Its figures now, or those of the last look if its loop does not answer. Raises nothing."""
        now = clock.boot()
        if now - self._looked_at < FRESH_S:
            return self._last
        self._looked_at = now
        if threading.get_ident() == self._thread:
            try:
                self._last, self.stale = self._target.stats(), False
            except DisError:
                self.stale = True
            return self._last
        answer: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            self._loop.call_soon_threadsafe(self._answer, answer)
            self._last, self.stale = answer.result(ANSWER_S), False
        except (TimeoutError, RuntimeError, DisError):  # blocked; or closed: then nothing changes any more
            self.stale = True
        return self._last

    def _answer(self, answer: concurrent.futures.Future[Any]) -> None:
        try:
            answer.set_result(self._target.stats())
        except DisError as exc:  # a server that is closed has none
            answer.set_exception(exc)


class Watchlist:
    """What is watched, by name. Names are unique among objects of a kind."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[tuple[type, str], Watched] = {}

    def add(self, target: Observable, name: str) -> Watched:
        """Raises ConfigError: it cannot be watched, or one of its kind is under this name already."""
        watched = Watched(target, name)
        key = (type(watched.look()), name)
        with self._lock:
            if key in self._watched:
                raise ConfigError(f"{name!r} is watched already: give each {type(target).__name__} a name of its own")
            self._watched[key] = watched
        return watched

    def remove(self, watched: Watched) -> None:
        """Twice is fine."""
        with self._lock:
            self._watched = {key: value for key, value in self._watched.items() if value is not watched}

    def all(self) -> list[Watched]:
        with self._lock:
            return list(self._watched.values())
