"""The consumer for threads: `disstream.Consumer`, in the client's loop.

`fetch` is a round trip for a batch of records. A `for` over the consumer takes a *run* of records in one round trip,
and then from the run itself, as `async for` does. `SharedConsumer` guards the run by a lock, because a commit or a
change of hands may look at it, or end it, in the loop meanwhile.
"""

from __future__ import annotations

import inspect
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Literal, ParamSpec, Self

from anyio import to_thread

from .. import clock, consumer
from ..client import Client
from ..consumer import ConsumerConfig, ConsumerStats, Pattern
from ..errors import ClosedError
from ..model import Partition, Record
from .life import Resident, Residents
from .portal import Portal, returned

P = ParamSpec("P")


class SharedConsumer(consumer.Consumer):
    """A consumer whose run may be taken from by another thread."""

    def __init__(
        self, client: Client, streams: str | Sequence[str] | Pattern, config: ConsumerConfig | None, app: str | None
    ) -> None:
        self._run_lock = threading.RLock()  # ending a run notes it first
        super().__init__(client, streams, config, app=app)

    def next_of_run(self) -> Record | None:
        """The next record, or None: ask the loop for it. For any thread."""
        if self._lease is not None and clock.boot() >= self._lease.deadline:
            return None
        with self._run_lock:
            return next(self._rest, None)

    async def next(self) -> Record:
        """The next record. A coroutine, as a call from a thread has to be."""
        return await self.__anext__()

    def forked(self) -> None:
        """This is the child of a `fork`: what was read ahead is the parent's."""
        self._run_lock = threading.RLock()
        self._rest = iter(())

    def _note(self) -> None:
        with self._run_lock:
            super()._note()

    def _end_run(self) -> None:
        with self._run_lock:
            super()._end_run()


class Consumer(Resident):
    """Reads streams, alone or as a member of an app's group. Serves one thread at a time.

        with dis.consumer("orders", app="billing") as consumer:
            for record in consumer: ...

    What is delivered, finished and committed is told by `disstream.Consumer`. A call that is interrupted (Ctrl-C) may
    have taken records that then reach nobody: they are not finished, so whoever goes on at the checkpoint gets them.
    """

    def __init__(self, portal: Portal, inner: SharedConsumer, started: Residents) -> None:
        super().__init__(portal, inner, started)
        self._inner = inner
        self._done: deque[Record] = deque()

    # --- taking ---

    def fetch(self, *, max_records: int = 500, timeout_s: float | None = None) -> list[Record]:
        """Up to `max_records` records, as soon as there are any. As `disstream.Consumer.fetch`."""
        return self._portal.call(self._inner.fetch(max_records=max_records, timeout_s=timeout_s))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Record:
        """The next record, for ever; asking for it finishes the one before. Raises as `fetch`."""
        record = self._inner.next_of_run()
        return record if record is not None else self._portal.call(self._inner.next())

    # --- committing ---

    def commit(self) -> dict[Partition, int]:
        """Commit all finished work now. As `disstream.Consumer.commit`."""
        return self._portal.call(self._inner.commit())

    def record_done(self, record: Record) -> None:
        """This record is finished. As `disstream.Consumer.record_done`; told to the loop without waiting for it.

        Every later call of this consumer finds it done.
        """
        self._done.append(record)
        if len(self._done) == 1:  # else the loop has still to come to one of before
            self._portal.call_soon(self._finish)

    def _finish(self) -> None:
        while self._done:
            self._inner.record_done(self._done.popleft())

    # --- where reading stands ---

    def assignment(self) -> frozenset[Partition]:
        """The partitions this consumer holds; empty before the first assignment."""
        return self._portal.call(returned(self._inner.assignment))

    def position(self, partition: Partition) -> int | None:
        """As `disstream.Consumer.position`."""
        return self._portal.call(returned(self._inner.position, partition))

    def lag(self) -> dict[Partition, int]:
        """As `disstream.Consumer.lag`."""
        return self._portal.call(self._inner.lag())

    def seek(self, partition: Partition, to: Literal["earliest", "latest"] | int | datetime) -> None:
        """As `disstream.Consumer.seek`."""
        self._portal.call(returned(self._inner.seek, partition, to))

    def may_act(self, partition: Partition) -> bool:
        """As `disstream.Consumer.may_act`."""
        return self._portal.call(returned(self._inner.may_act, partition))

    def holds_up(self, partition: Partition) -> bool:
        """As `disstream.Consumer.holds_up`."""
        return self._portal.call(returned(self._inner.holds_up, partition))

    def owes(self, record: Record) -> bool:
        """As `disstream.Consumer.owes`."""
        return self._portal.call(returned(self._inner.owes, record))

    def set_aside(self, records: Iterable[Record]) -> None:
        """As `disstream.Consumer.set_aside`."""
        self._portal.call(returned(self._inner.set_aside, records))

    def annotate(self, partition: Partition, text: str) -> None:
        """As `disstream.Consumer.annotate`."""
        self._portal.call(returned(self._inner.annotate, partition, text))

    def annotation(self, partition: Partition) -> str:
        """As `disstream.Consumer.annotation`."""
        return self._portal.call(returned(self._inner.annotation, partition))

    def pause(self, partition: Partition) -> None:
        """As `disstream.Consumer.pause`."""
        self._portal.call(returned(self._inner.pause, partition))

    def resume(self, partition: Partition) -> None:
        """As `disstream.Consumer.resume`."""
        self._portal.call(returned(self._inner.resume, partition))

    def stats(self) -> ConsumerStats:
        """As `disstream.Consumer.stats`. Works after `close`."""
        try:
            return self._portal.call(returned(self._inner.stats))
        except ClosedError:
            return self._inner.stats()

    def forked(self) -> None:
        """See `Resident`."""
        self._inner.forked()


def consumer_in(
    portal: Portal,
    client: Client,
    streams: str | Sequence[str] | Pattern,
    config: ConsumerConfig | None,
    app: str | None,
    started: Residents,
) -> Consumer:
    """A consumer whose callbacks, if they are plain functions, do not run in the loop but in threads of their own."""
    if isinstance(config, ConsumerConfig):
        config = replace(config, on_assigned=_threaded(config.on_assigned), on_revoked=_threaded(config.on_revoked))
    return Consumer(portal, SharedConsumer(client, streams, config, app), started)


def _threaded(callback: Callable[P, Awaitable[None] | None] | None) -> Callable[P, Awaitable[None] | None] | None:
    if callback is None or inspect.iscoroutinefunction(callback):
        return callback

    async def call(*args: P.args, **kwargs: P.kwargs) -> None:
        # What does not return by its deadline is left behind: a thread cannot be cancelled.
        result = await to_thread.run_sync(partial(callback, *args, **kwargs), abandon_on_cancel=True)
        if inspect.isawaitable(result):
            await result

    return call
