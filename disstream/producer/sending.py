"""The tasks of a producer: they carry out what the core decides.

`send-i`, one per group: take, encode, put, settle; so at most one request of a group is in flight. `sweep` ends what is
overdue. `layout` reads the stream anew when an answer shows that it was scaled, lets the old lanes settle, and opens
the new ones.

A task stills its bell before it looks, so nothing that happens meanwhile is missed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from ..client import Client
from ..errors import ApiError, ClosedError, ConfigError, TransportError
from ..lifecycle import Bell, Limit, loop_time
from ..model import StreamInfo
from ..wire.columns import COLUMNS
from ..wire.sessions import EXTENSION, HEADER, encode_session
from .accumulator import Accumulator
from .bodies import Bodies
from .budget import ByteBudget
from .config import ProducerConfig
from .ends import MIN_ATTEMPT_S
from .lanes import Lane
from .shipment import Shipment

log = logging.getLogger("disstream.producer")


class Sending:
    """Sends what the core holds, until its tasks are cancelled."""

    def __init__(
        self,
        client: Client,
        stream: str,
        config: ProducerConfig,
        core: Accumulator,
        budget: ByteBudget,
        on_layout: Callable[[], None],
    ) -> None:
        """`on_layout` is called when the lanes of the core were replaced, before anything is sent from them."""
        self._client = client
        self._stream = stream
        self._bodies = Bodies(stream, client.config.body)
        self._config = config
        self._core = core
        self._budget = budget
        self._on_layout = on_layout
        self._wakes = [Bell() for _ in core.layout.lanes.groups]
        self._next_free = 0
        self._worked = False  # a request was written in this turn of the loop
        self._changed = anyio.Event()  # something was settled, or the layout task has work; several may wait for it
        self._sweep_wake = Bell()
        self._troubled_since: float | None = None  # loop time of the first failure of a streak
        self.sent_at = 0.0  # loop time
        self.client_closed = False

    def start_in(self, tasks: TaskGroup) -> None:
        """Begin. If the client is closed meanwhile, nothing can be sent any more, and the tasks are cancelled."""
        for i in range(len(self._wakes)):
            tasks.start_soon(self._send_loop, i, tasks.cancel_scope, name=f"send-{i}")
        tasks.start_soon(self._sweep_loop, name="sweep")
        tasks.start_soon(self._layout_loop, name="layout")

    # --- requests out ---------------------------------------------------------------------------------------------

    def opened(self, lane: Lane) -> None:
        """A batch was opened there: it has to be looked after."""
        if lane.group is None or not lane.group.patient_until:  # else its task looks soon, whatever comes
            self.wake(lane)
        self._sweep_wake.ring()

    def wake(self, lane: Lane) -> None:
        """Let the task that may take from `lane` look."""
        if lane.group is not None:
            self._wakes[lane.group.index].ring()
            return
        groups = self._core.layout.lanes.groups
        core, now = self._core, loop_time()
        for i in range(self._next_free, self._next_free + len(groups)):
            group = groups[i % len(groups)]
            if not group.busy and (not core.layout.sessions or core.picker.carrier(group, now) is not None):
                self._wakes[group.index].ring()
                self._next_free = (i + 1) % len(groups)
                return
        if core.layout.sessions:  # none could send it now: let those that are idle see when they can
            self.wake_all()

    def _wake_others(self, shipment: Shipment) -> None:
        """Let those groups look that were in the request with another one, or waited for it."""
        for group in (*shipment.groups[1:], *self._core.picker.gathering):
            self._wakes[group.index].ring()
        self._core.picker.gathering.clear()

    def wake_all(self) -> None:
        """Let all of them look."""
        for wake in self._wakes:
            wake.ring()

    async def _send_loop(self, index: int, tasks: anyio.CancelScope) -> None:
        core, wake = self._core, self._wakes[index]
        while True:
            wake.still()
            while self._worked:
                await checkpoint()
            now = loop_time()
            core.offer(EXTENSION in self._client.extensions)
            shipment = core.picker.take(core.layout.lanes.groups[index], now, more=self._budget.more)
            if shipment is not None:
                self._note_work()
                await self._send(shipment, now, tasks)
                self._wake_others(shipment)
                continue
            self.give_back()  # take may have ended what was overdue
            await wake.wait(core.picker.next_wake(core.layout.lanes.groups[index], now))

    def _note_work(self) -> None:
        """Let nobody begin a request until the next turn of the loop.

        Answers come together, as the service commits together. If all groups wrote their next requests in one turn,
        everybody else on the loop would have to wait for all of that.
        """
        self._worked = True
        asyncio.get_running_loop().call_soon(self._rest)

    def _rest(self) -> None:
        self._worked = False

    async def _send(self, shipment: Shipment, now: float, tasks: anyio.CancelScope) -> None:
        core = self._core
        self.sent_at = now
        timeout_s = min(self._config.request_timeout_s, shipment.deadline - now)
        try:
            body, form = self._bodies.encode(shipment, self._client.extensions)
        except ConfigError as exc:  # what the checks let pass: refused like what the service refuses
            core.answers.refused(shipment, ApiError(str(exc), status=400), now)
            self.give_back()
            return
        headers = {"content-type": form}
        if shipment.session is not None:
            headers[HEADER] = encode_session(shipment.session)
        try:
            # The client bounds the exchange, but not what stands around it: new credentials, a transport's own ideas.
            async with Limit(shipment.deadline + MIN_ATTEMPT_S):
                answer = await self._client.records.put_encoded(body, timeout_s=timeout_s, headers=headers)
        except TimeoutError:
            told = f"no answer within delivery_timeout_s={self._config.delivery_timeout_s:g}"
            core.answers.lost(shipment, TransportError(told, outcome_unknown=True), loop_time())
        except ApiError as exc:
            if form == COLUMNS and exc.code == "DIS.4300":
                if self._bodies.misread():
                    log.warning("the endpoint cannot read columns: records travel as JSON now stream=%s", self._stream)
                unread = TransportError("the body could not be read", outcome_unknown=False)
                core.answers.lost(shipment, unread, loop_time())
            else:
                log.debug("put refused stream=%s records=%d error=%s", self._stream, shipment.records, exc)
                core.answers.refused(shipment, exc, loop_time())
                # With a pace, flow control is told by partition.
                if exc.retryable and (exc.code != "DIS.4303" or self._config.pace is None):
                    self._note_trouble(exc)
        except TransportError as exc:
            log.debug("put lost stream=%s records=%d error=%s", self._stream, shipment.records, exc)
            core.answers.lost(shipment, exc, loop_time())
            self._note_trouble(exc)
        except ClosedError:
            # The client was closed under us: nothing was sent, and nothing ever will be.
            gone = TransportError("the client is closed", outcome_unknown=False)
            core.answers.lost(shipment, gone, loop_time())
            self.client_closed = True
            tasks.cancel()
        except BaseException as exc:
            # Cancelled, or the transport has a bug: the request may have been applied. The records keep their place.
            told = f"the request failed: {exc!r}" if isinstance(exc, Exception) else "the request was cancelled"
            core.answers.lost(shipment, TransportError(told, outcome_unknown=True), loop_time())
            raise
        else:
            core.answers.stored(shipment, answer, loop_time())
            if self._troubled_since is not None:
                lasted = loop_time() - self._troubled_since
                log.info("puts are answered again stream=%s after_s=%.1f", self._stream, lasted)
                self._troubled_since = None
        self.give_back()
        if core.layout.frozen or core.layout.stale:
            self._changed.set()  # the layout task waits for this

    def _note_trouble(self, error: Exception) -> None:
        """Say once per streak that puts fail: from outside, an outage looks like a producer that does nothing."""
        if self._troubled_since is None:
            self._troubled_since = loop_time()
            log.warning(
                "puts fail and are tried again until delivery_timeout_s=%g stream=%s error=%s",
                self._config.delivery_timeout_s,
                self._stream,
                error,
            )

    def give_back(self, spilled: int = 0) -> None:
        """Return to the budget what the core has settled, or what was spilled, and tell who waits for progress."""
        if self._core.answers.slowed:
            self._note_slowed()
        freed = self._core.ends.freed + spilled
        if freed:
            self._core.ends.freed = 0
            self._budget.leave(freed)
            self._changed.set()

    def _note_slowed(self) -> None:
        """Say once per streak that a partition is written faster than it takes."""
        now = loop_time()
        for traffic in self._core.answers.slowed:
            pace = traffic.pacer.pace(now) if traffic.pacer is not None else None
            log.info("throttled stream=%s partition=%s now_at=%s", self._stream, traffic.name or "any", pace)
        self._core.answers.slowed.clear()

    async def _sweep_loop(self) -> None:
        while True:
            self._sweep_wake.still()
            again_at = self._core.sweep(loop_time())
            self.give_back()
            if again_at is None:
                await self._sweep_wake.wait()
            else:
                await anyio.sleep_until(again_at)

    # --- layout ---------------------------------------------------------------------------------------------------

    async def _layout_loop(self) -> None:
        """When an answer names another partition than predicted: settle the old lanes, then open the new ones."""
        core = self._core
        failures = 0
        while True:
            while not core.layout.stale:
                await self._next_change()
            try:
                info = await self._client.streams.describe(self._stream)
            except (ApiError, TransportError) as exc:
                # The old lanes go on meanwhile: they keep the order of their keys wherever the service puts them.
                failures += 1
                log.warning("the layout cannot be read stream=%s error=%s", self._stream, exc)
                await anyio.sleep(min(self._config.retry_max_s, self._config.retry_base_s * 2.0 ** min(failures, 30)))
                continue
            except ClosedError:
                return  # the client was closed: the sending tasks find out themselves
            failures = 0
            core.layout.frozen = True
            while core.picker.in_flight or core.layout.in_doubt:
                await self._next_change()
            self._relayout(info)

    def _relayout(self, info: StreamInfo) -> None:
        core = self._core
        if core.relayout(info.partitions):
            log.info("layout changed stream=%s writable=%d", self._stream, info.writable_partition_count)
        elif not core.layout.sessions:
            log.warning(
                "the service does not place keys by their MD5; order is kept all the same stream=%s",
                self._stream,
            )
        self._on_layout()
        core.layout.frozen = False
        self.give_back()
        self.wake_all()

    # --- progress -------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Wait until every record accepted so far has its end, without lingering."""
        self._core.hurry(loop_time())
        self.wake_all()
        for batch in list(self._core.ends.live):
            while not batch.settled:
                await self._next_change()

    async def _next_change(self) -> None:
        self._changed = changed = anyio.Event() if self._changed.is_set() else self._changed
        await changed.wait()
