"""The way in: `connect`, and the client it gives."""

from __future__ import annotations

import atexit
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self

from .. import door
from ..client import ClientConfig, ClientStats, Credentials, Provider, Transport
from ..consumer import ConsumerConfig, Pattern
from ..door import FROM_ENVIRONMENT, _Default
from ..errors import DisError
from ..producer import ProducerConfig
from .consumer import Consumer, consumer_in
from .life import Residents
from .portal import Portal
from .producer import Producer
from .resources import Apps, Checkpoints, Cursors, Dumps, Groups, Metrics, Policies, Records, Streams, Tags
from .staging import StagedProducer

log = logging.getLogger("disstream.client")

EXIT_GRACE_S: Final = 2.0
"""What an interpreter that ends gives to clients that nobody closed: enough for a service that answers, and no hang."""


class DisClient:
    """The calls of DIS, by resource, and producers and consumers; see `disstream.DisClient`. Made by `connect`.

    Use it with `with`, or `start()` and `close()`. Any number of threads may share it. It does not outlive a `fork`: in
    the child every call raises ClosedError, so connect there.
    """

    def __init__(self, inner: door.DisClient) -> None:
        self._inner = inner
        self._portal = portal = Portal()
        self._residents = Residents()
        self.streams = Streams(portal, inner.streams)
        self.records = Records(portal, inner.records)
        self.cursors = Cursors(portal, inner.cursors)
        self.apps = Apps(portal, inner.apps)
        self.checkpoints = Checkpoints(portal, inner.checkpoints)
        self.groups = Groups(portal, inner.groups)
        self.policies = Policies(portal, inner.policies)
        self.dumps = Dumps(portal, inner.dumps)
        self.metrics = Metrics(portal, inner.metrics)
        self.tags = Tags(portal, inner.tags)

    # --- life ---

    def start(self) -> Self:
        """Start the thread in which the client lives. Connects to nothing. A client starts once."""
        self._portal.open()
        _started.add(self)
        self._portal.call(self._inner.start())
        return self

    def close(self) -> None:
        """Close what is still open of its producers and consumers, then the client and its thread. Twice is fine.

        Raises what one of them raises (Undelivered) once all are closed. Interrupted (Ctrl-C): the one that is being
        closed is aborted.
        """
        self.__exit__(None, None, None)

    def abort(self) -> None:
        """End everything now. Twice is fine."""
        for resident in reversed(list(self._residents)):
            resident.abort()
        if self._portal.running:
            self._portal.call(self._inner.abort())
        self._end()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._portal.running:
            return
        with ExitStack() as ends:  # each of them comes, whatever those before it raise
            ends.callback(self._end)
            ends.callback(lambda: self._portal.call(self._inner.close()))
            for resident in list(self._residents):
                ends.callback(resident.end, exc)

    def _end(self) -> None:
        self._portal.close()
        _started.discard(self)

    def _exit(self) -> None:
        """The interpreter ends, and nobody closed this client."""
        until = time.monotonic() + EXIT_GRACE_S
        for resident in reversed(list(self._residents)):
            try:
                resident.end(None, max(0.0, until - time.monotonic()))
            except DisError as error:
                resident.abort()
                log.warning("not closed before the interpreter ended: %s error=%s", resident.stats(), error)
        self.abort()

    def _forked(self) -> None:
        self._portal.forked()
        for resident in self._residents:
            resident.forked()

    # --- what it makes ---

    def stats(self) -> ClientStats:
        """As `disstream.Client.stats`."""
        return self._inner.stats()

    def producer(
        self, stream: str, config: ProducerConfig | None = None, *, serializer: Callable[[Any], bytes] | None = None
    ) -> Producer:
        """A producer for a stream, not started: use it with `with`, inside the client's.

        `serializer`: that of the config. It runs in the threads that send, and so does the callable of a trace.
        """
        if serializer is not None:
            config = replace(config or ProducerConfig(), serializer=serializer)
        return Producer(self._portal, StagedProducer(self._portal, self._inner, stream, config), self._residents)

    def consumer(
        self, streams: str | Sequence[str] | Pattern, config: ConsumerConfig | None = None, *, app: str | None = None
    ) -> Consumer:
        """A consumer, not started: use it with `with`, inside the client's. See `disstream.DisClient.consumer`.

        `on_assigned` and `on_revoked` that are plain functions run in threads of their own, so they may block.
        """
        return consumer_in(self._portal, self._inner, streams, config, app, self._residents)


def connect(
    endpoint: str | None = None,
    *,
    project_id: str | None = None,
    credentials: Credentials | Provider | _Default | None = FROM_ENVIRONMENT,
    config: ClientConfig | None = None,
    transport: Transport | None = None,
) -> DisClient:
    """A client for one project of a service, not started: `with connect(...)`. Arguments as of `disstream.connect`.

    Everything runs in one background thread with a loop of its own; `credentials` that are a callable and a `transport`
    are called there.
    """
    return DisClient(
        door.connect(endpoint, project_id=project_id, credentials=credentials, config=config, transport=transport)
    )


_started: set[DisClient] = set()


@atexit.register
def _exit_all() -> None:
    for client in list(_started):
        client._exit()


def _after_fork() -> None:
    for client in _started:
        client._forked()
    _started.clear()  # they are the parent's to end


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
