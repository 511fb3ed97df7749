"""Workers that share a stream, one of which fails: the second part of the demo, and the stage of the fault table.

    this process --send at a steady pace--> server process --fetch--> two worker processes, members of one app
                 <------------------------- what they handled -------------------------------

A run goes: server, stream, workers; when both hold their share, traffic begins, and with it the incident, which does
to the processes what it likes; when traffic and incident are over and everything was handled, the workers are told to
leave, and what they say until they end still counts. Who handled what is known from the workers, what was sent from
this process, nothing from the service.
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
from .chart import Chart
from .check import Findings, Sent
from .flights import Row
from .ledger import Ledger, Line
from .processes import PYTHON, Child, ChildEnded, child, server
from .worker import Block, Work

PROJECT = "demo"
WORKERS = ("worker-1", "worker-2")
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
        session_timeout_s: float = SESSION_TIMEOUT_S,
        data_dir: Path | None = None,
    ) -> None:
        self._rows = rows
        self._pace_s = pace_s
        self._partitions = partitions
        self._session_timeout_s = session_timeout_s
        self._data_dir = data_dir
        self._workers: dict[str, Child] = {}
        self._leaving: set[str] = set()
        self._ended: set[str] = set()
        self._serving = contextlib.AsyncExitStack()
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
            async with contextlib.AsyncExitStack() as processes:
                await processes.enter_async_context(self._serving)
                async with anyio.create_task_group() as tasks:
                    self._tasks = tasks
                    await self._serve(0)
                    async with connect(self._url, project_id=PROJECT, credentials=None) as self._dis:
                        await self._dis.streams.create(self.stream, partitions=self._partitions)
                        await self._dis.streams.wait_running(self.stream)
                        await self._start_workers(processes)
                        await self.until(self._shared, "both workers hold partitions", START_TIMEOUT_S)
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
    def living(self) -> list[str]:
        """Workers that nobody ended."""
        return [name for name in WORKERS if name not in self._leaving]

    def victim(self) -> str:
        """The worker with the most partitions."""
        return max(WORKERS, key=lambda name: len(self.ledger.owned(name)))

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
        raise DisError(f"waited {timeout_s:.0f} s in vain: {what}")

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
        self._watch = anyio.CancelScope()
        self._tasks.start_soon(self._watch_server, process, self._watch, name="watch-server")

    async def _watch_server(self, process: Child, scope: anyio.CancelScope) -> None:
        with scope:
            await process.watch()

    async def _start_workers(self, processes: contextlib.AsyncExitStack) -> None:
        assert self._tasks is not None
        sent = self._scratch / "sent.json"
        sent.write_bytes(msgspec.json.encode(self.sent))
        for name in WORKERS:
            worker = child(name, [*PYTHON, "disstream.bench.worker"], self._scratch)
            self._workers[name] = await processes.enter_async_context(worker)
        for name, process in self._workers.items():
            await process.write(Work(self._url, PROJECT, self.stream, self.app, name, str(sent), AUTO_COMMIT_S))
            self._tasks.start_soon(self._follow, name, process, name=f"follow-{name}")

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

    def _shared(self) -> bool:
        """Whether all workers that live are in one generation, and hold all partitions together."""
        latest = [self.ledger.assignments(name)[-1:] for name in self.living]
        generations = {line.generation for lines in latest for line in lines}
        held = [partition for lines in latest for line in lines for partition in line.partitions]
        return all(latest) and len(generations) == 1 and len(held) == self._partitions

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
            await self.until(lambda: self._shared() and self.ledger.reached(ends), "all is handled")
        self.ended_at = clock.boot()
        for name in self.living:
            self.signal(name, signal.SIGTERM)
        await self.until(lambda: self._ended == set(WORKERS), "the workers end")


class TakeoverReport(msgspec.Struct, frozen=True, kw_only=True):
    """What happened. Times in seconds."""

    sent: int
    acknowledged: int
    failures: dict[str, int]
    findings: Findings
    written_twice: int
    """Duplicates that stand in the stream: the producer repeated a request whose answer was lost."""
    pace_s: float
    session_timeout_s: float
    victim: str
    survivor: str
    killed_after_s: float
    """From the first record sent."""
    begins_s: dict[str, float]
    """The victim's partitions -> seconds from the kill until the survivor handled a record of it."""
    inherited_s: float | None
    """From the kill until the survivor held them all, also those of which no record came any more; None: never."""
    orphans: int
    """Partitions the victim had."""
    skipped: list[str]
    """Partitions in which the survivor began too late."""
    rate: float
    """Records/s of the victim when it was busiest."""
    chart: Chart

    @property
    def repeated(self) -> int:
        """Records that were handled again."""
        return self.findings.duplicates - self.written_twice

    @property
    def bound(self) -> int:
        """How many may have been: those the victim handled after its last commit."""
        return round(self.rate * (AUTO_COMMIT_S + COMMIT_SLACK_S))

    @property
    def good(self) -> bool:
        return (
            self.acknowledged == self.sent
            and self.findings.good
            and self.inherited_s is not None
            and not self.skipped
            and self.repeated <= self.bound
        )


class Takeover:
    """Half-way through the traffic one worker is killed. A display may look at `counts()` while it lasts."""

    def __init__(
        self,
        rows: Sequence[Row],
        *,
        pace_s: float,
        partitions: int = 4,
        session_timeout_s: float = SESSION_TIMEOUT_S,
        data_dir: Path | None = None,
    ) -> None:
        self.total = len(rows)
        self._pace_s = pace_s
        self._session_timeout_s = session_timeout_s
        self._stage = Stage(
            rows, pace_s=pace_s, partitions=partitions, session_timeout_s=session_timeout_s, data_dir=data_dir
        )
        self._victim = ""
        self._killed_at = 0.0

    def counts(self) -> dict[str, int]:
        """Records sent, and handled by each worker; the one that was killed bears it in its name."""
        stats = self._stage.stats()
        counts = {"sent": stats.accepted if stats is not None else 0}
        for name in WORKERS:
            shown = f"{name}, killed" if name == self._victim else name
            counts[shown] = self._stage.ledger.counts.get(name, 0)
        return counts

    async def run(self) -> TakeoverReport:
        """Raises DisError if a process ends that was not killed; whatever happens, no process or file is left."""
        await self._stage.run(self._kill)
        return self._report()

    async def _kill(self) -> None:
        await anyio.sleep(self._pace_s / 2)
        victim = self._stage.victim()
        self._killed_at = self._stage.signal(victim, signal.SIGKILL)
        self._victim = victim

    def _report(self) -> TakeoverReport:
        stage, ledger, victim = self._stage, self._stage.ledger, self._victim
        stats = stage.stats()
        if stats is None:
            raise DisError("the run ended before it began")
        begins_s, skipped = ledger.succession(victim, self._killed_at)
        killed_after_s = self._killed_at - stage.begun_at
        marks = {f"{victim} killed": killed_after_s}
        if begins_s:
            marks["taken over"] = killed_after_s + max(begins_s.values())
        return TakeoverReport(
            sent=self.total,
            acknowledged=stats.stored,
            failures=stage.failures,
            findings=ledger.findings(),
            written_twice=ledger.written_twice(),
            pace_s=self._pace_s,
            session_timeout_s=self._session_timeout_s,
            victim=victim,
            survivor=next(name for name in WORKERS if name != victim),
            killed_after_s=killed_after_s,
            begins_s=begins_s,
            inherited_s=ledger.inherited_s(victim, self._killed_at),
            orphans=len(ledger.owned(victim, self._killed_at)),
            skipped=skipped,
            rate=ledger.busiest(victim, AUTO_COMMIT_S + COMMIT_SLACK_S, self._killed_at)
            / (AUTO_COMMIT_S + COMMIT_SLACK_S),
            chart=Chart(
                duration_s=stage.ended_at - stage.begun_at,
                events={name: [(at - stage.begun_at, n) for at, n in ledger.events(name)] for name in WORKERS},
                marks=marks,
            ),
        )
