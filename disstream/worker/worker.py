"""The public object: records in, calls of a handler, finished work out.

    starting   signals are heeded, `/live` answers, the dead letters are open, the consumer joins
    running    records are fetched while there is room, handled lane by lane, and finished
    stopping   nothing is fetched or begun; calls under way may end until `drain_timeout_s`, letters are stored; then
               what is left is cancelled
    stopped    finished work was committed, the group was left

A second signal, an abort, or a failure skip the patience of stopping, and nothing else: what is finished is committed
anyway, within bounds. Whatever ends one of the worker's tasks ends all, and `run` raises it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from dataclasses import replace
from random import Random

import anyio
import anyio.abc
import anyio.to_thread

from ..consumer import Consumer, Pattern
from ..door import DisClient
from ..errors import ConcurrencyError, ConfigError, LeaseLost
from ..lifecycle import Scope, Supervisor
from .calls import Handler
from .config import WorkerConfig
from .control import Orders
from .deadletters import DeadLetters, dead_letters
from .dispatch import Dispatch
from .health import Health, Pulse
from .lanes import SUSPENDED
from .mailing import Mailing
from .stats import PartitionWork, WorkerStats
from .turnover import Turnover

log = logging.getLogger("disstream.worker")

FETCH_RECORDS = 500

WATCH_S = 0.25
"""Between two looks at the clock, and two signs of life. A membership that runs out leaves a tenth of the session until
others may begin (consumer/lease.py): calls are to be cancelled well within it."""

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Worker:
    """Calls `handler` with the records of streams, as one of the workers of an app. `await Worker(...).run()` is all.

        async def bill(record): ...
        await disstream.Worker(dis, bill, disstream.WorkerConfig(streams=["orders"], app="billing")).run()

    A record is finished when its handler returned; a checkpoint covers finished records only, so nothing is lost, and
    what was under way at a crash is handled again (at least once). What failed, was cancelled, or took too long is not
    finished: see `WorkerConfig` for what becomes of it. docs/worker.md tells all of it.
    """

    def __init__(self, dis: DisClient, handler: Handler, config: WorkerConfig, *, rng: Random | None = None) -> None:
        """`handler` gets a Record, or with batch_records above 1 a list of them. An `async def`, or a plain function,
        which runs in a thread. `rng` spreads the pauses after failures; tests give a seeded one.
        """
        if not isinstance(config, WorkerConfig):
            raise ConfigError(f"config is a {type(config).__name__}: a worker takes a WorkerConfig")
        self._config = config
        self._rng = rng or Random()
        self._dis = dis
        self._turnover = Turnover(config.consumer)
        self._member_id = (
            config.consumer.member_id or f"{socket.gethostname()}-{os.getpid()}-{self._rng.getrandbits(32):08x}"
        )
        streams = config.streams if isinstance(config.streams, Pattern) else list(config.streams)
        reading = replace(
            config.consumer,
            finish="explicit",
            max_gap=config.max_gap,
            member_id=self._member_id,
            on_assigned=self._turnover.assigned,
            on_revoked=self._turnover.revoked,
            stack_of=self._turnover.stack_of,
        )
        self._consumer = Consumer(dis, streams, reading, app=config.app, rng=self._rng)
        self._letters: DeadLetters | None = None
        if config.dead_letters is not None:
            self._letters = dead_letters(dis, config.dead_letters)
        self._dispatch = Dispatch(config, handler, self._consumer, self._rng)
        self._turnover.attach(self._dispatch, self._consumer)
        self._mailing: Mailing | None = None
        if self._letters is not None:
            self._mailing = Mailing(config, self._dispatch, self._letters, self._member_id, self._rng)
        self._pulse = Pulse()
        self._health: Health | None = None
        if config.health_port is not None:
            self._health = Health(config.health_host, config.health_port, config.health_stall_s, self._pulse)
        self._supervisor = Supervisor(f"worker {config.app}", self._body)
        self._state = "starting"
        self._began = False
        self._joined = False
        self._running = asyncio.Event()
        self._patience = anyio.CancelScope()

    # --- lifecycle ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until `stop`, or a signal. Once only.

        Raises what will not heal: ConfigError, NotFoundError, AuthError, CoordinationUnsupported, a bug; and what a
        handler raised that is no Exception (SystemExit). Cancellation: calls under way are cancelled, finished work is
        committed, the group is left, within bounds.
        """
        if self._began:
            raise ConcurrencyError(f"the worker of {self._config.app} was run already: make a new one")
        self._began = True
        try:
            await self._supervisor.start()
            await self._supervisor.wait()
        except BaseException:
            await self._supervisor.abort()
            raise
        await self._supervisor.close()
        if (fatal := self._dispatch.fatal) is not None:
            raise fatal

    async def wait_running(self) -> None:
        """Returns once `run` has joined. Waits for ever if it never does: `run` tells why."""
        await self._running.wait()

    async def wait_stopping(self) -> None:
        """Returns once it was told to stop, by a signal or by `stop`."""
        await self._dispatch.stopping.wait()

    def stop(self) -> None:
        """End gracefully; `run` returns then. The second time: without patience. For the thread of the loop."""
        dispatch = self._dispatch
        if dispatch.stopping.is_set():
            self._patience.cancel()
        dispatch.stopping.set()
        dispatch.lanes.halted = True

    async def _body(self, scope: Scope) -> None:
        failed = True
        try:
            with self._patience:
                async with anyio.create_task_group() as tasks:
                    if self._config.handle_signals and threading.current_thread() is threading.main_thread():
                        await tasks.start(self._heed_signals, name="signals")
                    tasks.start_soon(self._watch, name="watch")
                    scope.started()
                    async with anyio.create_task_group() as opening:
                        opening.start_soon(self._cut, opening.cancel_scope)
                        await self._open()
                        opening.cancel_scope.cancel()
                    if self._joined:
                        await self._work(tasks)
                    tasks.cancel_scope.cancel()
            failed = False
        finally:
            self._state = "failed" if failed else "stopping"
            with anyio.CancelScope(shield=True):
                await self._shut()

    async def _cut(self, opening: anyio.CancelScope) -> None:
        """A stop does not wait for a start that gets no answer."""
        await self._dispatch.stopping.wait()
        opening.cancel()

    async def _open(self) -> None:
        if self._health is not None:
            await anyio.to_thread.run_sync(self._health.start)
        if self._letters is not None:
            await self._letters.start()
        await self._consumer.start()
        self._turnover.look()  # partitions that were chosen are there at once
        self._joined = True
        self._state = "running"
        self._show()
        self._running.set()
        log.info("app %s: a worker runs (%s)", self._config.app, self._member_id)

    async def _work(self, tasks: anyio.abc.TaskGroup) -> None:
        dispatch = self._dispatch
        async with anyio.create_task_group() as fetching:
            fetching.start_soon(self._fetch, name="fetch")
            tasks.start_soon(Orders(self._dis, self._config.app, dispatch).run, name="orders")
            if self._mailing is not None:
                tasks.start_soon(self._mailing.run, name="letters")
            await dispatch.stopping.wait()
            fetching.cancel_scope.cancel()
        self._state = "stopping"
        self._show()
        log.info("app %s: a worker stops: %d call(s) under way", self._config.app, len(dispatch.lanes.runs))
        if dispatch.fatal is None:
            lanes = dispatch.lanes
            deadline = anyio.current_time() + self._config.drain_timeout_s
            await dispatch.calls.until(lambda: not any(map(lanes.in_work, lanes.partitions)), deadline)

    async def _shut(self) -> None:
        """Bounded in all its steps."""
        dispatch = self._dispatch
        dispatch.lanes.halted = True
        if left := await dispatch.calls.end():
            log.error("app %s: %d call(s) of the handler did not end, and are left alone", self._config.app, left)
        dispatch.close()
        try:
            await self._consumer.close()
        finally:
            if self._letters is not None:
                await self._letters.close()
            self._state = "failed" if self._state == "failed" else "stopped"
            self._show()
            if self._health is not None:
                await anyio.to_thread.run_sync(self._health.stop)
            log.info("app %s: the worker has ended", self._config.app)

    async def _heed_signals(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Until cancelled; then they do again what they did before."""
        before = [(number, signal.getsignal(number)) for number in SIGNALS]
        try:
            with anyio.open_signal_receiver(*SIGNALS) as received:
                task_status.started()
                async for number in received:
                    log.info("app %s: %s", self._config.app, signal.Signals(number).name)
                    self.stop()
        finally:
            for number, handler in before:
                signal.signal(number, handler)

    # --- its tasks ------------------------------------------------------------------------------------------------

    async def _fetch(self) -> None:
        dispatch, config = self._dispatch, self._config
        typical_bytes = 1
        while True:
            room = await dispatch.wait_for_room()
            # Bytes are known once they are here: a fetch is to bring an eighth of what may be held.
            limit = max(config.queue_bytes // 8 // typical_bytes, 1)
            try:
                records = await self._consumer.fetch(max_records=min(room, limit, FETCH_RECORDS))
            except LeaseLost as error:
                log.error("app %s: %s", config.app, error)
                continue
            if records:
                typical_bytes = max(sum(len(record.data) for record in records) // len(records), 1)
                self._turnover.look()
                dispatch.lanes.offer(records, anyio.current_time())
                dispatch.pump()

    async def _watch(self) -> None:
        while True:
            if self._joined:
                self._dispatch.watch()
            self._show()
            await anyio.sleep(WATCH_S)

    # --- what is told ---------------------------------------------------------------------------------------------

    @property
    def health_url(self) -> str | None:
        """Where `/live` and `/ready` are, once `run` has begun to listen."""
        return self._health.url or None if self._health is not None else None

    @property
    def consumer(self) -> Consumer:
        """What the worker reads with: to ask for its lag, assignment and positions. Leave the rest to the worker."""
        return self._consumer

    def _show(self) -> None:
        if self._health is None:
            return
        if self._state == "running":
            held = len(self._dispatch.lanes.partitions)
            why = f"holding {held} partition(s)" if held else "standing by: the other workers hold all partitions"
        else:
            why = f"the worker is {self._state}"
        self._pulse.show(self._state, ready=self._state == "running", why=why)
        if self._pulse.wanted:
            self._pulse.wanted = False
            self._pulse.stats = self.stats()

    def stats(self) -> WorkerStats:
        dispatch = self._dispatch
        lanes, counts = dispatch.lanes, dispatch.lanes.counts
        oldest = next(iter(lanes.runs), None)
        error = self._mailing.error if self._mailing is not None else None
        return WorkerStats(
            state=self._state,
            handled=counts.handled,
            failed=counts.failed,
            retried=counts.retried,
            raised=counts.raised,
            rejected=counts.rejected,
            timed_out=counts.timed_out,
            cancelled=counts.cancelled,
            dead_letters=counts.letters,
            followed=counts.followed,
            ignored=counts.ignored,
            parked_keys=sum(held.parking.parked_keys for held in lanes.partitions.values()),
            suspended=tuple(sorted(p for p, held in lanes.partitions.items() if SUSPENDED in held.blocks)),
            in_flight=len(lanes.runs),
            queued_records=lanes.records,
            queued_bytes=lanes.bytes,
            waiting_letters=len(lanes.out.letters),
            letter_error=None if error is None else str(error),
            oldest_in_flight_s=None if oldest is None else max(0.0, dispatch.now() - oldest.began),
            p50_s=dispatch.latencies.percentile(0.5),
            p99_s=dispatch.latencies.percentile(0.99),
            partitions={
                partition: PartitionWork(
                    held_records=len(held.items),
                    in_flight=held.running,
                    parked_keys=held.parking.parked_keys,
                    waiting_records=held.waiting_records,
                    suspended=None
                    if (why := held.parking.suspension) is None
                    else f"{why.sequence_number}: {why.error}",
                    paused=held.paused,
                )
                for partition, held in lanes.partitions.items()
            },
            consumer=self._consumer.stats() if self._joined else None,
        )
