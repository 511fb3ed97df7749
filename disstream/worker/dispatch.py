"""Where the core of a worker, its consumer and the calls of its handler meet.

Whatever happens (records came, a call ended, a letter is stored, time passed) changes the core and then calls `pump`:
what can start is started, and what the core put into its outbox is carried out. Nothing in here waits.
"""

from __future__ import annotations

import asyncio
import logging
from random import Random

from .. import clock
from ..consumer import Consumer
from ..errors import DisError
from ..model import Partition
from .calls import Calls, Handler
from .config import WorkerConfig
from .lanes import SUSPENDED, Lanes, Outcome
from .parking import Parking
from .queues import Run
from .stats import Latencies

log = logging.getLogger("disstream.worker")

UNHEARD = "unheard"
"""Why a partition is blocked whose membership ran out by our own clock: it may be another's by now."""

ROOM_SHARE = 4
"""A full queue takes more when this part of it is free: not for each record one fetch."""


class Dispatch:
    def __init__(self, config: WorkerConfig, handler: Handler, consumer: Consumer, rng: Random) -> None:
        self._config = config
        self._consumer = consumer
        self.resumed_ms = 0
        """The latest order to resume that was seen."""
        # Clocks of machines differ: an order that was obeyed must not hold for what is suspended after it.
        self.lanes = Lanes(config, rng, lambda: max(clock.wall_ms(), self.resumed_ms + 1))
        self.latencies = Latencies()
        self.calls = Calls(
            handler,
            batches=config.batch_records > 1,
            concurrency=config.concurrency,
            timeout_s=config.record_timeout_s,
            cancel_timeout_s=config.cancel_timeout_s,
            on_end=self._ended,
            on_fatal=self._on_fatal,
        )
        self.fatal: BaseException | None = None
        """What a handler raised that ends the process: KeyboardInterrupt, SystemExit."""
        self.letters_due = asyncio.Event()
        self.suspended = asyncio.Event()
        self.stopping = asyncio.Event()
        self._room: asyncio.Event | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self.closed = False
        self._now = 0.0

    def now(self) -> float:
        """The loop's clock; after the loop, the last time it was looked at."""
        return self._now

    def close(self) -> None:
        """Nothing starts any more, by itself neither."""
        self.closed = self.lanes.halted = True
        if self._timer is not None:
            self._timer.cancel()

    # --- the pump -------------------------------------------------------------------------------------------------

    def pump(self) -> None:
        loop = asyncio.get_running_loop()
        now = self._now = loop.time()
        lanes = self.lanes
        while (run := lanes.take(now)) is not None:
            if self._consumer.may_act(run.partition):
                self.calls.start(run)
            else:
                lanes.put_back(run)
                lanes.block(run.partition, UNHEARD)
        self._carry_out()
        when = lanes.next_look
        if when is not None and when < self._timer_at and not self.closed:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = when
            self._timer = loop.call_at(max(when, now), self._due)

    def _due(self) -> None:
        self._timer, self._timer_at = None, float("inf")
        self.pump()

    def _ended(self, run: Run, outcome: Outcome, error: BaseException | None) -> None:
        now = asyncio.get_running_loop().time()
        self.latencies.add(now - run.began)
        failed = self.lanes.counts.failed
        self.lanes.settle(run, outcome, error, now)
        if self.lanes.counts.failed > failed:
            at = run.items[0].record.sequence_number
            told = (self._config.app, *run.partition, at, outcome)
            log.warning("app %s: %s/%s at %d is given up: %s", *told, exc_info=error)
        self.pump()

    def _on_fatal(self, error: BaseException) -> None:
        self.fatal = self.fatal or error
        self.lanes.halted = True
        self.stopping.set()

    def _carry_out(self) -> None:
        out = self.lanes.out
        if out.annotated:  # before what is finished: a commit may come at any time
            for partition, text in out.take_annotated():
                if partition in self._consumer.assignment():
                    self._consumer.annotate(partition, text)
        if out.done:
            for record in out.take_done():
                self._consumer.record_done(record)
        if out.pauses:
            for partition, paused in out.take_pauses().items():
                self.set_pause(partition, paused)
        for partition, suspension, error in out.take_suspended():
            log.error(
                "app %s: %s/%s is suspended at %d: %s; when it may go on: disstream worker resume %s %s %s",
                self._config.app,
                *partition,
                suspension.sequence_number,
                suspension.error,
                self._config.app,
                *partition,
                exc_info=error,
            )
            self.suspended.set()
        if out.letters:
            self.letters_due.set()
        if self._room is not None and self.lanes.room * ROOM_SHARE >= self._config.room_records:
            self._room.set()
        if not self.lanes.records:
            self.calls.look()

    async def commit(self) -> None:
        """Commit now what is finished, and what is kept beside it; failures are logged, and made good by later ones."""
        try:
            await self._consumer.commit()
        except DisError as error:
            log.warning("app %s: finished work could not be committed: %s", self._config.app, error)

    def set_pause(self, partition: Partition, paused: bool) -> None:
        if partition in self._consumer.assignment():
            (self._consumer.pause if paused else self._consumer.resume)(partition)

    # --- beside it ------------------------------------------------------------------------------------------------

    async def wait_for_room(self) -> int:
        """How many records may be fetched."""
        while self.lanes.room <= 0:
            self._room = asyncio.Event()
            await self._room.wait()
            self._room = None
        return self.lanes.room

    def watch(self) -> None:
        """Look at what our own clock says: who was away may hold nothing any more, and be vouched for later."""
        lanes = self.lanes
        held_now = self._consumer.assignment()
        for partition in [partition for partition in lanes.partitions if partition not in held_now]:
            self.drop(partition)  # given up, and nothing came instead
        lost = [run for run in lanes.runs if not self._consumer.may_act(run.partition)]
        if lost:
            self.calls.cancel(lost)
            for run in lost:
                if run.partition in lanes.partitions:
                    lanes.block(run.partition, UNHEARD)
        for partition, held in [*lanes.partitions.items()]:
            if held.waiting and held.waiting_records == len(held.items) and self._consumer.holds_up(partition):
                lanes.look_at_waiting(held, last=True)
            if UNHEARD in held.blocks and self._consumer.may_act(partition):
                lanes.unblock(partition, UNHEARD)
        self.pump()

    def stack_of(self, partition: Partition) -> str:
        """Why a partition stands, for the consumer's warning: the stack of the oldest call, or what it waits for."""
        if stack := self.calls.stack_of(partition):
            return stack
        held = self.lanes.partitions.get(partition)
        if held is not None and (suspension := held.parking.suspension) is not None:
            return f"(suspended at {suspension.sequence_number}: {suspension.error}; see disstream worker resume)\n"
        if held is not None and held.waiting:
            return f"({held.waiting_records} records wait for parked keys; see disstream deadletter redrive)\n"
        return ""

    # --- partitions -----------------------------------------------------------------------------------------------

    def adopt(self, partition: Partition) -> None:
        """It is ours from now on."""
        parking = Parking.read(self._consumer.annotation(partition))
        if parking.damage is not None:
            log.warning(
                "app %s: %s/%s: nothing is known of parked keys: %s", self._config.app, *partition, parking.damage
            )
        self.lanes.hold(partition, parking)
        held = self.lanes.partitions[partition]
        self.lanes.out.pauses.pop(partition, None)
        self.set_pause(partition, held.paused)
        if (suspension := parking.suspension) is not None:
            log.warning(
                "app %s: %s/%s is suspended since it stopped at %d: %s",
                self._config.app,
                *partition,
                suspension.sequence_number,
                suspension.error,
            )
            self.suspended.set()

    def drop(self, partition: Partition) -> None:
        """It is another's: its calls are cancelled."""
        self.calls.cancel(self.lanes.drop(partition))

    def resume(self, partition: Partition) -> None:
        """What was suspended goes on."""
        held = self.lanes.partitions.get(partition)
        if held is not None and SUSPENDED in held.blocks:
            self.lanes.resume(partition)
            log.info("app %s: %s/%s is resumed", self._config.app, *partition)
            self.pump()
