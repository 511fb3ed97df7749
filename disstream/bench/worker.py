"""A worker process: `python -m disstream.bench.worker`. Reads a stream as a member of an app and tells what it handled.

Talks in lines of JSON:

    in    Work      first: what to read, as whom, and the file that tells what was sent
    in    Block     keep the event loop busy for so long with the next records, as a handler that computes would
    out   Assigned  whenever its partitions change
    out   Handled   of each batch, before it asks for the next: a line that is cut is a batch that was not handled

What reads is a loop that fetches, or a `disstream.Worker` that calls a handler. SIGTERM makes it finish the batch in
hand, commit and leave. When its standard input closes, whoever started it is gone, and it ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import msgspec

from .. import clock
from ..consumer import Consumer, ConsumerConfig, ConsumerStats, Leases
from ..door import DisClient, connect
from ..leases import lease_store
from ..model import Partition, Record
from ..worker import Worker, WorkerConfig
from .check import Checker, Sent
from .ledger import UNNUMBERED, Assigned, Handled, Lot
from .reader import row_number

FETCH_RECORDS = 500
"""A batch, so also what a worker can have in hand when it dies."""

CALL_RECORDS = 100
"""What a handler is called with. Fewer than a batch: some calls are under way at any moment."""


class Work(msgspec.Struct):
    endpoint: str
    project: str
    stream: str
    app: str
    member: str
    sent: str
    """Path of a file that holds a `Sent` as JSON."""
    auto_commit_s: float
    store: str = ""
    """The URL of a lease store; "": the workers are members of the service's group."""
    session_timeout_s: float = 30.0
    handler: bool = False
    """Whether a `disstream.Worker` calls a handler, instead of a loop that fetches."""


class Block(msgspec.Struct):
    seconds: float


class _Worker:
    def __init__(self, work: Work, commands: io.FileIO) -> None:
        self._work = work
        self._commands = commands
        self._checker = Checker(msgspec.json.decode(Path(work.sent).read_bytes(), type=Sent))
        self._stats: Callable[[], ConsumerStats | None] = lambda: None
        self._block_s = 0.0
        self._held: frozenset[Partition] = frozenset()

    async def run(self) -> None:
        working = anyio.CancelScope()
        async with anyio.create_task_group() as tasks:
            loop = asyncio.get_running_loop()

            def told(message: Block | None) -> None:
                if message is None:
                    tasks.cancel_scope.cancel()
                else:
                    self._block_s = message.seconds

            threading.Thread(target=_listen, args=(self._commands, loop, told), name="stdin", daemon=True).start()
            if not self._work.handler:  # a Worker heeds signals itself
                tasks.start_soon(_end_on_signal, working, name="signals")
            async with connect(self._work.endpoint, project_id=self._work.project, credentials=None) as dis:
                store = self._work.store
                config = ConsumerConfig(
                    auto_commit_s=self._work.auto_commit_s,
                    coordination=Leases(lease_store(store)) if store else None,
                    session_timeout_s=self._work.session_timeout_s,
                    member_id=self._work.member,
                    on_assigned=self._assigned,
                    on_revoked=self._revoked,
                )
                if self._work.handler:
                    await self._call(dis, config)
                else:
                    await self._fetch(dis.consumer(self._work.stream, config, app=self._work.app), working)
            tasks.cancel_scope.cancel()

    async def _fetch(self, consumer: Consumer, working: anyio.CancelScope) -> None:
        self._stats = consumer.stats
        async with consumer:
            with working:
                while True:
                    batch = await consumer.fetch(max_records=FETCH_RECORDS)
                    self._handle(batch)
                    for record in {record.partition_id: record for record in batch}.values():
                        consumer.record_done(record)

    async def _call(self, dis: DisClient, config: ConsumerConfig) -> None:
        """A partition's records one after the other, so that what was handled of it has no gaps."""

        async def handler(batch: list[Record]) -> None:
            self._handle(batch)

        told = WorkerConfig(
            streams=[self._work.stream],
            app=self._work.app,
            order="partition",
            batch_records=CALL_RECORDS,
            consumer=config,
        )
        worker = Worker(dis, handler, told)
        self._stats = lambda: worker.stats().consumer
        await worker.run()

    def _handle(self, batch: list[Record]) -> None:
        if self._block_s:
            # In the loop, not beside it: what is shown here is that a handler that does this keeps its partitions.
            time.sleep(self._block_s)
            self._block_s = 0.0
        lots: list[Lot] = []
        for record in batch:
            number = row_number(record.data)
            self._checker.add(number, record.key, record.data)
            if not lots or (lots[-1].partition, lots[-1].end) != (record.partition_id, record.sequence_number):
                lots.append(Lot(record.partition_id, record.sequence_number, []))
            lots[-1].numbers.append(UNNUMBERED if number is None else number)
        found = self._checker.findings()
        _say(Handled(clock.boot(), lots, found.rekeyed, found.changed))

    def _assigned(self, partitions: frozenset[Partition]) -> None:
        stats = self._stats()
        generation = (stats and stats.generation) or 0  # leases know none
        self._held = partitions
        _say(Assigned(clock.boot(), self._work.member, generation, sorted(p.partition_id for p in partitions)))

    def _revoked(self, partitions: frozenset[Partition], deadline: float) -> None:
        if self._work.store:  # in a group everything is given up, and assigned anew at once
            self._assigned(self._held - partitions)


def _say(line: Assigned | Handled) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


async def _end_on_signal(working: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        await anext(aiter(signals))
        working.cancel()


def _listen(commands: io.FileIO, loop: asyncio.AbstractEventLoop, told: Callable[[Block | None], None]) -> None:
    while True:
        line = commands.readline()
        message = msgspec.json.decode(line, type=Block) if line else None
        with contextlib.suppress(RuntimeError):  # the loop is closed: we are done anyway
            loop.call_soon_threadsafe(told, message)
        if message is None:
            return


def main() -> None:
    # Unbuffered: the listening thread may still block in a read when the interpreter ends, and then must hold no lock.
    commands = io.FileIO(0, closefd=False)
    work = msgspec.json.decode(commands.readline(), type=Work)
    anyio.run(_Worker(work, commands).run, backend_options={"use_uvloop": sys.platform != "win32"})


if __name__ == "__main__":
    main()
