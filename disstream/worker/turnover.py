"""Partitions come and go: what a worker does when its consumer tells so.

to be given up   nothing of them starts; calls under way may finish until shortly before the deadline, and are
                 cancelled then; what has not begun is set aside, so that the hand-over does not wait for it
back again       what was set aside goes on where it stood
lost             calls are cancelled at once; what was held is forgotten, and comes again
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable

import anyio

from ..consumer import Consumer, ConsumerConfig, Static
from ..model import Partition
from .dispatch import Dispatch
from .held import Held

REVOKED = "revoked"
"""Why a partition is blocked that may go to another member."""

MARGIN = 0.2
"""Share of the time until the deadline that is kept for cancelled calls to clean up, and for the commit."""


class Turnover:
    def __init__(self, config: ConsumerConfig) -> None:
        self._on_assigned = config.on_assigned
        self._on_revoked = config.on_revoked
        self._stack_of = config.stack_of
        self._chosen = isinstance(config.coordination, Static)
        self._dispatch: Dispatch | None = None
        self._consumer: Consumer | None = None

    def attach(self, dispatch: Dispatch, consumer: Consumer) -> None:
        self._dispatch, self._consumer = dispatch, consumer

    def stack_of(self, partition: Partition) -> str:
        dispatch, _ = self._parts()
        told = "" if self._stack_of is None else self._stack_of(partition)
        return told or dispatch.stack_of(partition)

    async def assigned(self, partitions: frozenset[Partition]) -> None:
        """These are all that the worker holds."""
        self.take_over(partitions)
        if self._on_assigned is not None and inspect.isawaitable(result := self._on_assigned(partitions)):
            await result

    def take_over(self, partitions: Iterable[Partition]) -> None:
        dispatch, consumer = self._parts()
        wanted = set(partitions)
        for partition, held in [*dispatch.lanes.partitions.items()]:
            if partition not in wanted or not _is_the_same(held, consumer):
                dispatch.drop(partition)
        for partition in sorted(wanted):
            if (held_now := dispatch.lanes.partitions.get(partition)) is None:
                dispatch.adopt(partition)
            else:
                dispatch.lanes.unblock(partition, REVOKED)
                dispatch.set_pause(partition, held_now.paused)
        dispatch.pump()

    def look(self) -> None:
        """Partitions that were chosen, and are not assigned: nobody tells of those that a stream got since then."""
        dispatch, consumer = self._parts()
        if self._chosen and (held := consumer.assignment()) != dispatch.lanes.partitions.keys():
            self.take_over(held)

    async def revoked(self, partitions: frozenset[Partition], deadline: float) -> None:
        """These may go to others; at `deadline` they do, by the loop's clock."""
        dispatch, consumer = self._parts()
        if not dispatch.closed:  # else nothing is under way any more, but what did not end when it was cancelled
            await self._let_go(dispatch, consumer, partitions, deadline)
        if self._on_revoked is not None and inspect.isawaitable(result := self._on_revoked(partitions, deadline)):
            await result

    async def _let_go(
        self, dispatch: Dispatch, consumer: Consumer, partitions: frozenset[Partition], deadline: float
    ) -> None:
        lanes, calls = dispatch.lanes, dispatch.calls
        ours = [partition for partition in partitions if partition in lanes.partitions]
        for partition in ours:
            lanes.block(partition, REVOKED)
        now = anyio.current_time()
        if now < deadline:
            await calls.until(lambda: not any(map(lanes.in_work, ours)), deadline - (deadline - now) * MARGIN)
        runs = [run for run in lanes.runs if run.partition in partitions]
        calls.cancel(runs)
        await calls.until(lambda: not any(run in lanes.runs for run in runs), float("inf"))  # cancelled at the deadline
        for partition in ours:
            if partition in lanes.partitions:
                consumer.set_aside(item.record for item in lanes.partitions[partition].items)

    def _parts(self) -> tuple[Dispatch, Consumer]:
        assert self._dispatch is not None
        assert self._consumer is not None
        return self._dispatch, self._consumer


def _is_the_same(held: Held, consumer: Consumer) -> bool:
    """Whether the partition stayed with us all the time, so that what is held of it is still to be finished."""
    first = next(iter(held.items), None)
    # Nothing held: then nothing is lost by taking it over anew, with what others may have noted meanwhile.
    return first is not None and consumer.owes(first.record)
