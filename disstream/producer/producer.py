"""The producer: accepts records, each with its room in the budget, and hands them to the core.

    send() -> budget -> accumulator (lanes, batches) -> sending: take, encode, put, settle -> deliveries wake

All tasks are children of the supervisor's group: those that send, `spill` (spill.py), and `drain`, which ends the
others once `close` has been asked for.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Self

import anyio
from anyio.lowlevel import checkpoint

from ..client import Client
from ..errors import BufferFull, ClosedError, ConfigError, Undelivered
from ..lifecycle import Scope, Supervisor, unwrap
from ..model import NewRecord
from ..wire.partitioning import partition_id as long_partition_id
from .accumulator import Accumulator
from .budget import ByteBudget
from .config import ProducerConfig
from .delivery import BatchDelivery, Delivery
from .lanes import Lane, Lanes
from .outcome import Batch, Receipt
from .pacing import Backoff, ceiling
from .packing import Packing, check_headers
from .payload import MAX_RECORD_BYTES, Payload, as_bytes, new_record
from .sending import Sending
from .shares import Share, share_out, share_out_again
from .shipment import RECORD_OVERHEAD, weight_of
from .spill import Spill
from .stats import ProducerStats, snapshot
from .traffic import Book, Traffic

log = logging.getLogger("disstream.producer")


class Producer:
    """Writes records to one stream, in batches, in order, with one truthful end for each record.

    Made by `DisClient.producer`. Use it with `async with`, or `start()` and `close()`, from any task of one loop; any
    number of tasks may send. API 5.4.1.
    """

    _converts = False
    """Whether it gives records to a serializer, and headers of a trace to them (conversion.py)."""

    def __init__(
        self,
        client: Client,
        stream: str,
        config: ProducerConfig | None = None,
        *,
        rng: random.Random | None = None,
    ) -> None:
        self._client = client
        self._stream = stream
        if config is not None and not isinstance(config, ProducerConfig):
            raise ConfigError(f"config is a {type(config).__name__}: a producer takes a ProducerConfig")
        self._config = config or ProducerConfig()
        if not self._converts and self._config.converts:
            raise ConfigError("a serializer and traces need the producer that `DisClient.producer` makes")
        self._rng = rng or random.Random()
        self._supervisor = Supervisor(f"producer of {stream!r}", self._run)
        self._budget = ByteBudget(self._config.buffer_bytes)
        self._by_key: dict[str | None, Lane] = {}
        self._core: Accumulator
        self._lanes: Lanes  # the core's
        self._sending: Sending
        self._time: Callable[[], float]  # the loop's; anyio finds the loop anew each time, 0.6 us for each batch
        self._raising = False
        self._spill: Spill | None = None
        self._last_index = self._config.max_batch_rows - 1

    # --- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> Self:
        """Read the stream's layout and begin.

        Raises ApiError (NotFoundError: no such stream), TransportError, ConfigError (spill_path cannot be used).
        """
        await self._supervisor.start()
        return self

    async def close(self) -> None:
        """Stop accepting, send what was accepted (at most close_timeout_s), end the rest as not stored or unknown.

        With a spill file it is on the disk then, or given up (10 s more). Raises Undelivered if records failed that
        nobody awaited. Twice is fine. Cancelled: as `abort`.
        """
        if self._supervisor.running:
            self._budget.close(ClosedError(f"the producer of {self._stream!r} is closed"))
        await self._supervisor.close()

    async def abort(self) -> None:
        """End now: what was not sent is "not stored (closed)", what is on the wire unknown. It raises nothing."""
        self._raising = True
        if self._supervisor.running:
            self._budget.close(ClosedError(f"the producer of {self._stream!r} was aborted"))
        await self._supervisor.abort()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An exception from the block is what the user must see: undelivered records are then logged, not raised.
        self._raising = exc is not None
        try:
            await self.close()
        except Exception:  # a transport's or a credentials provider's own may be among them
            if exc is None:
                raise
            log.exception("closing failed stream=%s", self._stream)

    async def _run(self, scope: Scope) -> None:
        config = self._config
        info = await self._client.streams.describe(self._stream)
        book = Book(ceiling(config.pace, info), self._rng, config.delivery_timeout_s / 2)
        packing = Packing(config, self._rng.randbytes(16)) if config.packs else None
        backoff = Backoff(config.retry_base_s, config.retry_max_s, self._rng)
        core = Accumulator(config, info.partitions, backoff, packing, f"{self._rng.getrandbits(128):032x}", book)
        sending = Sending(self._client, self._stream, config, core, self._budget, self._adopt_lanes)
        self._core, self._sending = core, sending
        self._time = asyncio.get_running_loop().time
        self._adopt_lanes()
        if config.spill_path is not None:
            self._spill = Spill(config, self._stream, sending.give_back)
            core.ends.spill = self._spill.take
        why_closed = "the producer was closed before the record was settled"
        self._budget.open(anyio.current_time())
        try:
            async with anyio.create_task_group() as tasks:
                sending.start_in(tasks)
                if self._spill is not None:
                    tasks.start_soon(self._spill.run, name="spill")
                tasks.start_soon(self._drain_on, scope.closing, tasks.cancel_scope, name="drain")
                scope.started()
            if sending.client_closed:
                why_closed = "the client was closed before its producer"
        except Exception as exc:
            why_closed = f"the producer died: {unwrap(exc)!r}"
            self._raising = True
            raise
        except BaseException:
            self._raising = True  # aborted, or the loop is being shut down
            raise
        finally:
            self._budget.close(ClosedError(f"the producer of {self._stream!r} is closed"))
            core.abandon(why_closed)
            sending.give_back()
            try:
                with anyio.CancelScope(shield=True):
                    if self._spill is not None:
                        await self._spill.close()
                    while core.ends.ledger.waking:  # who awaited a failed record sees it first
                        await checkpoint()
            finally:
                self._log_undelivered()
        if not self._raising and (report := core.ends.ledger.report()):
            samples, spill = core.ends.ledger.samples(), self._spill
            if spill is None:
                raise Undelivered(report, samples)
            raise Undelivered(report, samples, spilled=spill.spilled, unspilled=spill.unspilled, spill_path=spill.path)

    def _log_undelivered(self) -> None:
        """Where something else is raised, or nothing may be, what nobody awaited is logged."""
        if self._raising:
            for cause, count in self._core.ends.ledger.report().items():
                log.warning("undelivered records stream=%s count=%d cause=%s", self._stream, count, cause)

    async def _drain_on(self, closing: anyio.Event, tasks: anyio.CancelScope) -> None:
        """Once closing is asked for, wait for what was accepted, then end the tasks."""
        await closing.wait()
        with anyio.move_on_after(self._config.close_timeout_s):
            await self._sending.drain()
        tasks.cancel()

    # --- records in -----------------------------------------------------------------------------------------------

    async def send(
        self,
        data: Payload,
        *,
        key: str | None = None,
        partition_id: str | int | None = None,
        explicit_hash_key: int | str | None = None,
        timestamp: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Delivery:
        """Accept one record, waiting only for room. `str` is sent as UTF-8; `timestamp` is ms since the epoch.

        `headers` need an envelope (`ProducerConfig.envelope`).
        Prefer `key`; with `partition_id` the service forgets the key. Records of a key are stored in the order of the
        calls. A partition that takes too little makes the calls for it wait, not those for others: a task that sends to
        many keys and must not wait for a slow one uses `try_send`, or a task per partition or key.
        Raises BufferFull (no room within send_timeout_s, naming the partition), ConfigError (a record the service would
        refuse), ClosedError.
        Cancelled while waiting: the record was not accepted.
        """
        if type(data) is not bytes:
            data = as_bytes(data)
        row: NewRecord | None = None  # only of a record that has more than a payload and a key
        if partition_id is None and explicit_hash_key is None and timestamp is None and headers is None:
            try:
                lane = self._by_key.get(key)
            except TypeError:  # not even hashable: no key, as the check will say
                lane = None
            if lane is None or len(data) > MAX_RECORD_BYTES:
                lane = self._check(NewRecord(data, key))
            weight = len(data) + (len(key) if key else 0)
        else:
            row = new_record(data, key, partition_id, explicit_hash_key, timestamp, headers)
            lane = self._check(row)
            weight = weight_of(row)
        budget = self._budget
        used = budget.used + weight + RECORD_OVERHEAD
        if used > budget.mark:
            self._supervisor.check()
            return await self._send_slowly(lane, row or NewRecord(data, key), weight)
        budget.used = used
        # What `_accept` does, without its calls, for the usual record: the batch is open and this does not fill it.
        batch = lane.open
        if batch is not None and row is None:
            payloads = batch.rows.payloads
            index = len(payloads)
            weight += batch.weight
            if index < self._last_index and weight <= self._config.max_batch_bytes:
                payloads.append(data)
                batch.rows.keys.append(key)
                batch.weight = weight
                return Delivery(batch, index)
            weight -= batch.weight
        row = row or NewRecord(data, key)
        if self._must_queue(lane, weight):
            budget.leave(weight + RECORD_OVERHEAD)
            return await self._send_slowly(lane, row, weight, in_line=True)
        return self._accept(lane, row, weight)

    async def _send_slowly(self, lane: Lane, row: NewRecord, weight: int, *, in_line: bool = False) -> Delivery:
        """`send` that has to wait: for a breath of the loop, for room, or (`in_line`) for its turn in its partition."""
        budget, need, timeout_s = self._budget, weight + RECORD_OVERHEAD, self._config.send_timeout_s
        began = self._time()
        if not in_line:
            await budget.enter(need, timeout_s, self._named(lane))
            lane = self._lane_now(row, weight)
            if not self._must_queue(lane, weight):
                return self._accept(lane, row, weight)
            budget.leave(need)
        self._seal((lane,))  # nobody is to add to its batch before us
        left_s = max(0.0, began + timeout_s - self._time())
        await budget.turn(need, lambda: (self._lanes.of_row(row).traffic,), left_s, self._named(lane))
        lane = self._lane_now(row, weight)
        delivery = self._accept(lane, row, weight)
        self._seal_for_others((lane,))
        return delivery

    def _must_queue(self, lane: Lane, weight: int) -> bool:
        """Whether a record has to wait for its turn: it needs a new batch, and its partition holds its share."""
        batch, traffic = lane.open, lane.traffic
        if batch is not None and batch.weight + weight <= self._config.max_batch_bytes and not traffic.turns:
            return traffic.coming > 0
        return self._budget.shut(traffic)

    def _seal(self, lanes: Iterable[Lane]) -> None:
        for lane in lanes:
            if lane.open is not None:
                lane.seal()
                self._sending.wake(lane)

    def _seal_for_others(self, lanes: Iterable[Lane]) -> None:
        """After our turn: who still waits in line must not be overtaken on the fast path."""
        self._seal(lane for lane in lanes if lane.traffic.turns and not lane.traffic.coming)

    def try_send(
        self,
        data: Payload,
        *,
        key: str | None = None,
        partition_id: str | int | None = None,
        explicit_hash_key: int | str | None = None,
        timestamp: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Delivery:
        """As `send`, but never waits: raises BufferFull where `send` would."""
        row = new_record(as_bytes(data), key, partition_id, explicit_hash_key, timestamp, headers)
        self._supervisor.check()
        lane = self._check(row)
        weight = weight_of(row)
        self._budget.enter_nowait(weight + RECORD_OVERHEAD, self._named(lane))
        if self._must_queue(lane, weight):
            self._budget.leave(weight + RECORD_OVERHEAD)
            raise BufferFull(f"{self._named(lane)}: {self._budget.told_share((lane.traffic,))}")
        return self._accept(lane, row, weight)

    async def send_and_wait(
        self,
        data: Payload,
        *,
        key: str | None = None,
        partition_id: str | int | None = None,
        explicit_hash_key: int | str | None = None,
        timestamp: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Receipt:
        """`send`, then await the delivery. Cancelled: the record may still be stored."""
        delivery = await self.send(
            data,
            key=key,
            partition_id=partition_id,
            explicit_hash_key=explicit_hash_key,
            timestamp=timestamp,
            headers=headers,
        )
        return await delivery

    async def send_many(self, records: Iterable[tuple[Payload, str | None] | NewRecord]) -> BatchDelivery:
        """Accept many records at once, room for all or none: the fast lane. Each is (data, key), or a NewRecord.

        Raises as `send`; then none was accepted. Order per key is the order given. A call waits for its turn in every
        partition it writes to, so it is as slow as the slowest of them; a task that must not be writes them apart.
        """
        order, by_lane, need = share_out(records, self._by_key, self._check)
        budget = self._budget
        used = budget.used + need
        if used > budget.mark or any(budget.shut(lane.traffic) for lane in by_lane):
            self._supervisor.check()
            lanes = self._lanes
            await self._enter_many(need, order, by_lane)
            if lanes is not self._lanes:
                try:
                    order, by_lane = share_out_again(order, self._lanes.of_row)
                except ConfigError:
                    budget.leave(need)
                    raise
        else:
            budget.used = used
        return self._put_in(order, by_lane)

    def _put_in(self, order: list[Share], by_lane: dict[Lane, Share]) -> BatchDelivery:
        """Accept what was shared out, and has its room."""
        now = self._time()
        for share in by_lane.values():
            share.spans = self._core.extend(share.lane, share.let_go(), share.weight, now)
        for lane in {lane.group: lane for lane in by_lane}.values():  # one of each group wakes its task
            self._sending.opened(lane)
        self._seal_for_others(by_lane)
        return BatchDelivery(order, by_lane.values())

    async def _enter_many(self, need: int, order: list[Share], by_lane: dict[Lane, Share]) -> None:
        """Take room for all records of a call, once it is their turn in all partitions they go to."""
        budget, timeout_s = self._budget, self._config.send_timeout_s
        what = f"{len(order)} records for {self._stream!r}"
        deadline = self._time() + timeout_s
        if budget.used + need > budget.mark:
            await budget.enter(need, timeout_s, what)
            if not any(budget.shut(lane.traffic) for lane in by_lane):
                return
            budget.leave(need)
        self._seal(by_lane)

        def route() -> list[Traffic]:
            rows = (row for share in by_lane.values() for row in share.rows)
            return list({self._lanes.of_row(row).traffic: None for row in rows})

        await budget.turn(need, route, max(0.0, deadline - self._time()), what)

    def _accept(self, lane: Lane, row: NewRecord, weight: int) -> Delivery:
        batch = self._core.add(lane, row, weight)
        if batch is None:
            batch = self._open(lane, row, weight)
            return Delivery(batch, 0)
        if lane.open is None:  # this one made it full
            self._sending.wake(lane)
            return Delivery(batch, self._last_index)
        return Delivery(batch, len(batch.rows) - 1)

    def _open(self, lane: Lane, row: NewRecord, weight: int) -> Batch:
        batch = self._core.open(lane, row, weight, self._time())
        self._sending.opened(lane)
        return batch

    def _check(self, row: NewRecord) -> Lane:
        """The lane of a record the service would take. Raises ConfigError for one it would not."""
        if len(row.data) > MAX_RECORD_BYTES:
            raise ConfigError(
                f"a record of {len(row.data)} bytes: the service takes at most {MAX_RECORD_BYTES} (1 MiB); split it"
            )
        if row.headers is not None:
            check_headers(row, self._config.envelope)
        if not self._supervisor.running:
            self._supervisor.check()
        return self._lanes.of_row(row)

    def _lane_now(self, row: NewRecord, weight: int) -> Lane:
        """The lane after a wait in which the layout may have changed. If there is none now, nothing was accepted."""
        try:
            return self._lanes.of_row(row)
        except ConfigError:
            self._budget.leave(weight + RECORD_OVERHEAD)
            raise

    def _named(self, lane: Lane) -> str:
        place = long_partition_id(lane.number) if lane.number is not None else "any partition"
        return f"a record for {place} of {self._stream!r}"

    def _adopt_lanes(self) -> None:
        self._lanes = lanes = self._core.layout.lanes
        self._by_key = lanes.by_key
        self._budget.shares = self._config.order != "none" and len(lanes.ranges) > 1
        self._budget.reroute()

    # --- waiting and looking --------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Wait until every record accepted so far has its end, without lingering. Raises nothing for failed records.

        Cancelled: nothing is touched.
        """
        self._supervisor.check()
        await self._sending.drain()

    def stats(self) -> ProducerStats:
        """What has happened so far, and what goes on. Raises ClosedError before `start`; works after `close`."""
        if not hasattr(self, "_core"):
            self._supervisor.check()
        try:
            now = anyio.current_time()
        except RuntimeError:  # no loop runs any more: as of the last time anything was sent
            now = self._sending.sent_at
        spill = self._spill
        return snapshot(
            self._core,
            now,
            buffered_bytes=self._budget.used,
            spilled=spill.spilled if spill else 0,
            unspilled=spill.unspilled if spill else 0,
        )
