"""Where a read of the file happens: on the loop if it is hot (heat.py), else in one of a few threads.

A read of cached pages costs less than to hand it to a thread and back (some 100 us). One of pages that are not has to
wait for the disk, and on the loop everybody would wait with it: the appends of the moment for somebody who reads
yesterday. In a thread only he does: LMDB's bindings touch the pages of a value with the GIL released.

A snapshot is opened and closed where the read happens, and never held over an await. So it lasts as long as one page of
records, and what is forgotten meanwhile becomes free behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import lmdb

from ..api import PartitionRef
from .environment import Environment
from .heat import Heat
from .partitions import PartitionState

T = TypeVar("T")

Work = Callable[["lmdb.Transaction[memoryview]", "lmdb.Cursor[memoryview]"], T]
"""What is to be done in a snapshot, with a cursor over the batches."""

THREADS = 2
"""While one reader waits for the disk another gets on; more would only take turns at the GIL."""


class Reading:
    """Reads of one directory. Belongs to the loop."""

    def __init__(self, heat: Heat | None = None) -> None:
        self._heat = heat or Heat()
        self._threads: ThreadPoolExecutor | None = None

    def opened(self, states: Mapping[PartitionRef, PartitionState]) -> None:
        self._heat.opened(_ends(states))

    def wrote(self, size: int, states: Mapping[PartitionRef, PartitionState]) -> None:
        """So many bytes are on their way into the file."""
        if self._heat.wrote(size):
            self._heat.note(_ends(states))

    async def run(self, env: Environment, partition: PartitionRef, sequence: int, work: Work[T]) -> T:
        """The result of a read that begins with this row."""
        if self._heat.is_hot(partition, sequence):
            return _run(env, work)
        return await self.run_aside(env, work)

    async def run_aside(self, env: Environment, work: Work[T]) -> T:
        """The same in a thread, for what may take long. Cancelled: the thread ends what it has begun."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="disstream-read")
        return await asyncio.get_running_loop().run_in_executor(self._threads, _run, env, work)

    def close(self) -> None:
        """Wait for the reads under way, each a page at most. Before the environment is closed."""
        if self._threads is not None:
            self._threads.shutdown()


def _run(env: Environment, work: Work[T]) -> T:
    with env.reading() as txn, txn.cursor(db=env.batches) as cursor:
        return work(txn, cursor)


def _ends(states: Mapping[PartitionRef, PartitionState]) -> dict[PartitionRef, int]:
    return {ref: state.next for ref, state in states.items()}
