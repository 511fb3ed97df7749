"""Workers that share a stream while something happens to them: what the demo and the fault table play on.

    this process --send at a steady pace--> server process --fetch--> worker processes, members of one app
                 <------------------------- what they handled ---------------------------

A run goes: server, stream, workers; when they hold their shares, traffic begins, and with it the incident, which does
to the processes what it likes; when traffic and incident are over and everything was handled, the workers are told to
leave, and what they say until they end still counts. Who handled what is known from the workers, what was sent from
this process, nothing from the service.

The workers share the partitions as members of the service's group, or by leases in a store that all reach.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.abc
import msgspec

from .. import clock
from ..door import DisClient, connect
from ..errors import DisError, Undelivered
from ..producer import Producer, ProducerStats
from .check import Sent
from .flights import Row
from .ledger import Ledger, Line
from .processes import PYTHON, TOLD_LINES, Child, ChildEnded, child, server
from .worker import Block, Work

PROJECT = "demo"
SESSION_TIMEOUT_S = 5.0
AUTO_COMMIT_S = 1.0
"""Of the workers. The default is 5 s: with less, a failure repeats less, for a request a partition each time."""
COMMIT_SLACK_S = 1.0
"""What lies between two commits beside the pause: the commits themselves, and a timer that is late when cores are."""
TICK_S = 0.02
"""Of the traffic: so often what is due is sent."""
START_TIMEOUT_S = 30.0
SETTLE_TIMEOUT_S = 45.0
"""For anything the workers are waited for. A failure that nobody tells takes a session time-out and a rebalance."""

_decode = msgspec.json.Decoder[Line](Line).decode


class Stage:
    """One run. `rows` are sent within `pace_s`. Incidents use `dis`, `ledger`, the names, and the methods."""

    def __init__(
        self,
        rows: Sequence[Row],
        *,
        pace_s: float,
        partitions: int = 4,
        workers: int = 2,
        session_timeout_s: float = SESSION_TIMEOUT_S,
        data_dir: Path | None = None,
        leases: bool = False,
        store: str = "",
        handler: bool = False,
    ) -> None:
        """`leases`: the workers agree through a lease store, instead of the service's group. `store`: its URL; "": a
        SQLite file. `handler`: each is a `disstream.Worker`, instead of a loop that fetches.
        """
        self._rows = rows
        self._pace_s = pace_s
        self._partitions = partitions
        self._count = workers
        self._leases = leases
        self._store = store
        self._handler = handler
        self._session_timeout_s = session_timeout_s
        self._data_dir = data_dir
        self._workers: dict[str, Child] = {}
        self._leaving: set[str] = set()
        self._ended: set[str] = set()
        self._serving = contextlib.AsyncExitStack()
        self._processes = contextlib.AsyncExitStack()
        self._server: Child | None = None
        self._watch: anyio.CancelScope | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._producer: Producer | None = None
        self._news = anyio.Event()
        self._scratch = Path()
        self._dis: DisClient | None = None
        self._url = ""
        suffix = token_hex(3)  # a data directory that is kept may hold earlier runs
        self.stream = f"flights-{suffix}"
        self.app = f"workers-{suffix}"
        self.sent = Sent.of(rows)
        self.ledger = Ledger(self.sent)
        self.failures: dict[str, int] = {}
        """Cause -> how many records could not be written."""
        self.begun_at = self.ended_at = 0.0
        """The traffic, and the last record of it, on the workers' clock."""

    async def run(self, incident: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do it all. Raises DisError if a process ends that nobody ended; whatever happens, none is left."""
        with TemporaryDirectory(prefix="disstream-demo-") as scratch:
            self._scratch = Path(scratch)
            async with self._serving, self._processes:
                async with anyio.create_task_group() as tasks:
                    self._tasks = tasks
                    await self._serve(0)
                    async with connect(self._url, project_id=PROJECT, credentials=None) as self._dis:
                        await self._dis.streams.create(self.stream, partitions=self._partitions)
                        await self._dis.streams.wait_running(self.stream)
                        (self._scratch / "sent.json").write_bytes(msgspec.json.encode(self.sent))
                        for _ in range(self._count):
                            await self.add_worker()
                        await self.until(self.shared, "the workers hold partitions", START_TIMEOUT_S)
                        async with anyio.create_task_group() as acts:
                            acts.start_soon(self._write, name="traffic")
                            acts.start_soon(incident, name="incident")
                        await self._finish()
                    tasks.cancel_scope.cancel()

    # --- for incidents ---

    @property
    def dis(self) -> DisClient:
        assert self._dis is not None
        return self._dis

    @property
    def workers(self) -> list[str]:
        """All there were, in the order they started."""
        return list(self._workers)

    @property
    def living(self) -> list[str]:
        """Workers that nobody ended."""
        return [name for name in self._workers if name not in self._leaving]

    @property
    def store(self) -> str:
        """The URL of the lease store; "" in a group."""
        return (self._store or f"sqlite:///{self._scratch / 'leases.db'}") if self._leases else ""

    def victim(self) -> str:
        """The living worker with the most partitions."""
        return max(self.living, key=lambda name: len(self.ledger.owned(name)))

    async def add_worker(self) -> str:
        """Start one more. Returns its name at once; it joins in its own time."""
        assert self._tasks is not None
        name = f"worker-{len(self._workers) + 1}"
        worker = child(name, [*PYTHON, "disstream.bench.worker"], self._scratch)
        process = self._workers[name] = await self._processes.enter_async_context(worker)
        await process.write(
            Work(
                self._url,
                PROJECT,
                self.stream,
                self.app,
                name,
                str(self._scratch / "sent.json"),
                AUTO_COMMIT_S,
                self.store,
                self._session_timeout_s,
                self._handler,
            )
        )
        self._tasks.start_soon(self._follow, name, process, name=f"follow-{name}")
        return name

    async def ended(self, worker: str) -> None:
        """Wait until the process of a worker that was told to leave has ended."""
        await self.until(lambda: worker in self._ended, f"{worker} ends")

    async def scale(self, partitions: int) -> None:
        """Change the number of partitions, and wait until the stream runs with them."""
        await self.dis.streams.scale(self.stream, partitions)
        await self.dis.streams.wait_running(self.stream)
        info = await self.dis.streams.describe(self.stream)
        self._partitions = sum(partition.readable for partition in info.partitions)

    def signal_server(self, number: signal.Signals) -> float:
        """Send the server a signal. Returns when, on the workers' clock."""
        assert self._server is not None
        at = clock.boot()
        self._server.signal(number)
        return at

    def signal(self, worker: str, number: signal.Signals) -> float:
        """Send a signal. Returns when, on the workers' clock."""
        if number in (signal.SIGKILL, signal.SIGTERM):
            self._leaving.add(worker)
        at = clock.boot()
        self._workers[worker].signal(number)
        return at

    async def block(self, worker: str, seconds: float) -> float:
        """Make its handler block its event loop. Returns when it was told, on the workers' clock."""
        at = clock.boot()
        await self._workers[worker].write(Block(seconds))
        return at

    async def restart_server(self) -> float:
        """SIGTERM, then a new one on the same port and data. Returns when, on the workers' clock."""
        at = clock.boot()
        assert self._watch is not None
        self._watch.cancel()
        await self._serving.aclose()
        await self._serve(urlsplit(self._url).port or 0)
        return at

    async def until(self, holds: Callable[[], bool], what: str, timeout_s: float = SETTLE_TIMEOUT_S) -> None:
        """Wait until it holds; it is asked after each line of a worker. Raises DisError if that takes too long."""
        with anyio.move_on_after(timeout_s):
            while not holds():
                self._news = anyio.Event()
                await self._news.wait()
            return
        said = "".join(f"\n--- {name}\n{process.said(TOLD_LINES)}" for name, process in self._workers.items())
        raise DisError(f"waited {timeout_s:.0f} s in vain: {what}{said}")

    def stats(self) -> ProducerStats | None:
        """The producer's; None before there is one."""
        return self._producer.stats() if self._producer is not None else None

    # --- the run ---

    async def _serve(self, port: int) -> None:
        assert self._tasks is not None
        data_dir = self._data_dir or self._scratch / "data"
        self._url, process = await self._serving.enter_async_context(
            server(data_dir, self._scratch, port=port, session_timeout_s=self._session_timeout_s)
        )
        self._server = process
        self._watch = anyio.CancelScope()
        self._tasks.start_soon(self._watch_server, process, self._watch, name="watch-server")

    async def _watch_server(self, process: Child, scope: anyio.CancelScope) -> None:
        with scope:
            await process.watch()

    async def _follow(self, name: str, process: Child) -> None:
        try:
            while True:
                self.ledger.add(name, _decode(await process.read_line()))
                self._news.set()
        except ChildEnded:
            self._ended.add(name)
            self._news.set()
            if name not in self._leaving:
                raise

    def shared(self) -> bool:
        """Whether all workers that live hold all partitions together, each once; in a group, in one generation."""
        latest = [self.ledger.assignments(name)[-1:] for name in self.living]
        generations = {line.generation for lines in latest for line in lines}
        held = [partition for lines in latest for line in lines for partition in line.partitions]
        together = len(held) == len(set(held)) == self._partitions
        if self._leases:  # who has nothing says nothing, if it never had anything
            least = self._partitions // max(len(latest), 1)
            return together and all(len(lines[0].partitions if lines else ()) >= least for lines in latest)
        return all(latest) and together and len(generations) == 1

    async def _write(self) -> None:
        total = len(self._rows)
        try:
            async with self.dis.producer(self.stream) as self._producer:
                self.begun_at = clock.boot()
                sent = 0
                while sent < total:
                    share = (clock.boot() - self.begun_at) / self._pace_s
                    due = min(total, int(share * total) + 1)
                    for data, key in self._rows[sent:due]:
                        await self._producer.send(data, key=key)
                    sent = due
                    await anyio.sleep(TICK_S)
        except Undelivered as exc:
            self.failures = exc.report

    async def _finish(self) -> None:
        """Wait until everything was handled, but not for ever: what is missing then is reported as missing."""
        info = await self.dis.streams.describe(self.stream)
        ends = {p.partition_id: p.sequence_range.end for p in info.partitions if p.sequence_range}
        with contextlib.suppress(DisError):
            await self.until(lambda: self.shared() and self.ledger.reached(ends), "all is handled")
        self.ended_at = clock.boot()
        for name in self.living:
            self.signal(name, signal.SIGTERM)
        await self.until(lambda: self._ended == set(self._workers), "the workers end")
