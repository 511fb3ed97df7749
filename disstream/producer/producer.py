"""The producer: accepts records, and runs one sending task per group around the pure core.

    send() -> budget -> accumulator (lanes, batches) -> task send-0..n: take, encode, put, settle -> deliveries wake

Tasks, all children of the supervisor's group: `send-i` (one per group, at most one request in flight each), `sweep`
(ends what is overdue), `layout` (re-reads the stream when an answer shows that it was scaled).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import anyio
from anyio.lowlevel import checkpoint

from ..client import Client
from ..errors import ApiError, BufferFull, ClosedError, ConfigError, TransportError, Undelivered
from ..lifecycle import Scope, Supervisor, unwrap
from ..model import NewRecord, StreamInfo
from ..wire.partitioning import partition_id as long_partition_id
from ..wire.protobuf import encode_put_protobuf
from ..wire.records import encode_put
from ..wire.sessions import EXTENSION, HEADER, encode_session
from .accumulator import MIN_ATTEMPT_S, RECORD_OVERHEAD, Accumulator
from .budget import ByteBudget
from .config import ProducerConfig
from .delivery import BatchDelivery, Delivery, Share
from .lanes import Lane
from .outcome import Batch, Receipt
from .pacing import PUBLISHED, Backoff, Pace
from .packing import Packing, enveloped_bytes
from .payload import MAX_RECORD_BYTES, Payload, as_bytes, checked_record, new_record
from .shipment import Shipment, weight_of
from .spill import Spill
from .traffic import HOTTEST, Book, HotKey, PartitionStats, ScaleAdvice, Traffic, advice

log = logging.getLogger("disstream.producer")


@dataclass(frozen=True, slots=True)
class ProducerStats:
    """A snapshot. Records: accepted = waiting + stored + rejected + not_stored + unknown."""

    accepted: int
    waiting: int
    stored: int
    rejected: int
    not_stored: int
    unknown: int
    reordered: int
    """Records stored after a later one of their key: the service broke the suffix rule. As far as answers tell."""
    requests: int
    refused_attempts: int
    """Records in attempts that the service refused for now (throttling), each time counted."""
    in_flight: int
    """Requests on the wire."""
    buffered_bytes: int
    """Of ProducerConfig.buffer_bytes."""
    sessions: bool
    """Whether records are numbered now, so that the service stores each once: the endpoint offers it, and
    ProducerConfig wants it."""
    spilled: int
    """Failed records that are in the spill file."""
    unspilled: int
    """Failed records that could not be written there."""
    partitions: tuple[PartitionStats, ...] = ()
    """How fast each is written, what waits, and whether it is at its cap."""
    hottest: tuple[HotKey, ...] = ()
    """The keys written most, over all partitions."""

    @property
    def scale_advice(self) -> tuple[ScaleAdvice, ...]:
        """For each partition at its cap, whether more partitions would help; `str()` of one says it in words."""
        return advice(self.partitions)


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
        self._wakes: list[anyio.Event] = []
        self._next_free = 0
        self._changed = anyio.Event()  # something was settled, or the layout task has work
        self._sweep_wake = anyio.Event()
        self._raising = False
        self._spill: Spill | None = None
        self._troubled_since: float | None = None  # loop time of the first failure of a streak
        self._why_closed = "the producer was closed before the record was settled"
        self._sent_at = 0.0  # loop time
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
        book = Book(_ceiling(config, info), self._rng, config.delivery_timeout_s / 2)
        packing = Packing(config, self._rng.randbytes(16)) if config.packs else None
        backoff = Backoff(config.retry_base_s, config.retry_max_s, self._rng)
        core = Accumulator(config, info.partitions, backoff, packing, f"{self._rng.getrandbits(128):032x}", book)
        self._core = core
        self._adopt_lanes()
        if config.spill_path is not None:
            self._spill = Spill(config, self._stream, self._give_back)
            core.spill = self._spill.take
        self._wakes = [anyio.Event() for _ in core.lanes.groups]
        self._budget.open(anyio.current_time())
        try:
            async with anyio.create_task_group() as tasks:
                for i in range(len(core.lanes.groups)):
                    tasks.start_soon(self._send_loop, i, tasks.cancel_scope, name=f"send-{i}")
                tasks.start_soon(self._sweep_loop, name="sweep")
                tasks.start_soon(self._layout_loop, name="layout")
                if self._spill is not None:
                    tasks.start_soon(self._spill.run, name="spill")
                tasks.start_soon(self._drain_on, scope.closing, tasks.cancel_scope, name="drain")
                scope.started()
        except Exception as exc:
            self._why_closed = f"the producer died: {unwrap(exc)!r}"
            self._raising = True
            raise
        except BaseException:
            self._raising = True  # aborted, or the loop is being shut down
            raise
        finally:
            self._budget.close(ClosedError(f"the producer of {self._stream!r} is closed"))
            core.abandon(self._why_closed)
            self._give_back()
            try:
                with anyio.CancelScope(shield=True):
                    if self._spill is not None:
                        await self._spill.close()
                    while core.ledger.waking:  # who awaited a failed record sees it first
                        await checkpoint()
            finally:
                self._log_undelivered()
        if not self._raising and (report := core.ledger.report()):
            samples, spill = core.ledger.samples(), self._spill
            if spill is None:
                raise Undelivered(report, samples)
            raise Undelivered(report, samples, spilled=spill.spilled, unspilled=spill.unspilled, spill_path=spill.path)

    def _log_undelivered(self) -> None:
        """Where something else is raised, or nothing may be, what nobody awaited is logged."""
        if self._raising:
            for cause, count in self._core.ledger.report().items():
                log.warning("undelivered records stream=%s count=%d cause=%s", self._stream, count, cause)

    async def _drain_on(self, closing: anyio.Event, tasks: anyio.CancelScope) -> None:
        """Once closing is asked for, wait for what was accepted, then end the tasks."""
        await closing.wait()
        with anyio.move_on_after(self._config.close_timeout_s):
            await self._drain()
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
        if partition_id is None and explicit_hash_key is None and timestamp is None and headers is None:
            row = NewRecord(data, key)
            try:
                lane = self._by_key.get(key)
            except TypeError:  # not even hashable: no key, as the check will say
                lane = None
            if lane is None or len(data) > MAX_RECORD_BYTES:
                lane = self._check(row)
            weight = len(data) + (len(key) if key else 0)
        else:
            row = new_record(data, key, partition_id, explicit_hash_key, timestamp, headers)
            lane = self._check(row)
            weight = weight_of(row)
        budget = self._budget
        used = budget.used + weight + RECORD_OVERHEAD
        if used > budget.mark:
            self._supervisor.check()
            return await self._send_slowly(lane, row, weight)
        budget.used = used
        # What `_accept` does, without its calls, for the usual record: the batch is open and this does not fill it.
        batch = lane.open
        if batch is not None:
            index = len(batch.rows)
            weight += batch.weight
            if index < self._last_index and weight <= self._config.max_batch_bytes:
                batch.rows.append(row)
                batch.weight = weight
                return Delivery(batch, index)
            weight -= batch.weight
        if self._must_queue(lane, weight):
            budget.leave(weight + RECORD_OVERHEAD)
            return await self._send_slowly(lane, row, weight, in_line=True)
        return self._accept(lane, row, weight)

    async def _send_slowly(self, lane: Lane, row: NewRecord, weight: int, *, in_line: bool = False) -> Delivery:
        """`send` that has to wait: for a breath of the loop, for room, or (`in_line`) for its turn in its partition."""
        budget, need, timeout_s = self._budget, weight + RECORD_OVERHEAD, self._config.send_timeout_s
        began = anyio.current_time()
        if not in_line:
            await budget.enter(need, timeout_s, self._named(lane))
            lane = self._lane_now(row, weight)
            if not self._must_queue(lane, weight):
                return self._accept(lane, row, weight)
            budget.leave(need)
        self._seal((lane,))  # nobody is to add to its batch before us
        left_s = max(0.0, began + timeout_s - anyio.current_time())
        await budget.turn(need, lambda: (self._core.lanes.of_row(row).traffic,), left_s, self._named(lane))
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
                self._core.seal(lane)
                self._wake(lane)

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
        order, by_lane, need = self._share_out(records)
        budget = self._budget
        used = budget.used + need
        if used > budget.mark or any(budget.shut(lane.traffic) for lane in by_lane):
            self._supervisor.check()
            lanes = self._core.lanes
            await self._enter_many(need, order, by_lane)
            if lanes is not self._core.lanes:
                try:
                    order, by_lane = self._share_out_again(order)
                except ConfigError:
                    budget.leave(need)
                    raise
        else:
            budget.used = used
        return self._put_in(order, by_lane)

    def _share_out(
        self, records: Iterable[tuple[Payload, str | None] | NewRecord]
    ) -> tuple[list[Share], dict[Lane, Share], int]:
        """Each record's share, in order; each lane's; and the room they need together. Raises ConfigError."""
        order: list[Share] = []
        shares: dict[str | None, Share] = {}  # of keys; records that are routed otherwise have the lane's alone
        by_lane: dict[Lane, Share] = {}
        for record in records:
            if isinstance(record, tuple):
                try:
                    data, key = record
                    share = shares.get(key)
                except (ValueError, TypeError):  # not two, or a key that is not even hashable
                    raise ConfigError(f"{record!r:.80} is not a (data, key) pair with a key of text") from None
                if share is None and (known := self._by_key.get(key)) is not None:
                    share = shares[key] = by_lane.setdefault(known, Share(known))
                if share is not None and type(data) is bytes and len(data) <= MAX_RECORD_BYTES:
                    share.rows.append(NewRecord(data, key))
                    share.weight += len(data) + (len(key) if key else 0)
                    order.append(share)
                    continue
                row = NewRecord(as_bytes(data), key)
            else:
                row = checked_record(record)
            lane = self._check(row)
            share = by_lane.get(lane)
            if share is None:
                share = by_lane[lane] = Share(lane)
            if row.partition_id is None and row.explicit_hash_key is None:
                shares[row.key] = share
            share.rows.append(row)
            share.weight += weight_of(row)
            order.append(share)
        return order, by_lane, sum(share.weight for share in by_lane.values()) + len(order) * RECORD_OVERHEAD

    def _put_in(self, order: list[Share], by_lane: dict[Lane, Share]) -> BatchDelivery:
        """Accept what was shared out, and has its room."""
        now = anyio.current_time()
        for share in by_lane.values():
            share.spans = self._core.extend(share.lane, share.rows, share.weight, now)
            share.rows = []  # the batches hold them, and let go of them when they are settled
            self._wake(share.lane)
        self._seal_for_others(by_lane)
        self._sweep_wake.set()
        return BatchDelivery(order, by_lane.values())

    async def _enter_many(self, need: int, order: list[Share], by_lane: dict[Lane, Share]) -> None:
        """Take room for all records of a call, once it is their turn in all partitions they go to."""
        budget, timeout_s = self._budget, self._config.send_timeout_s
        what = f"{len(order)} records for {self._stream!r}"
        deadline = anyio.current_time() + timeout_s
        if budget.used + need > budget.mark:
            await budget.enter(need, timeout_s, what)
            if not any(budget.shut(lane.traffic) for lane in by_lane):
                return
            budget.leave(need)
        self._seal(by_lane)

        def route() -> list[Traffic]:
            rows = (row for share in by_lane.values() for row in share.rows)
            return list({self._core.lanes.of_row(row).traffic: None for row in rows})

        await budget.turn(need, route, max(0.0, deadline - anyio.current_time()), what)

    def _share_out_again(self, order: list[Share]) -> tuple[list[Share], dict[Lane, Share]]:
        """The layout changed while the call waited for room. Raises ConfigError for a partition that is gone."""
        following = {share: iter(share.rows) for share in set(order)}
        by_lane: dict[Lane, Share] = {}
        again = []
        for old in order:
            row = next(following[old])
            lane = self._core.lanes.of_row(row)
            share = by_lane.setdefault(lane, Share(lane))
            share.rows.append(row)
            share.weight += weight_of(row)
            again.append(share)
        return again, by_lane

    def _accept(self, lane: Lane, row: NewRecord, weight: int) -> Delivery:
        batch = self._core.add(lane, row, weight)
        if batch is None:
            batch = self._open(lane, row, weight)
            return Delivery(batch, 0)
        if lane.open is None:  # this one made it full
            self._wake(lane)
            return Delivery(batch, self._last_index)
        return Delivery(batch, len(batch.rows) - 1)

    def _open(self, lane: Lane, row: NewRecord, weight: int) -> Batch:
        batch = self._core.open(lane, row, weight, anyio.current_time())
        self._wake(lane)
        self._sweep_wake.set()
        return batch

    def _check(self, row: NewRecord) -> Lane:
        """The lane of a record the service would take. Raises ConfigError for one it would not."""
        if len(row.data) > MAX_RECORD_BYTES:
            raise ConfigError(
                f"a record of {len(row.data)} bytes: the service takes at most {MAX_RECORD_BYTES} (1 MiB); split it"
            )
        if row.headers is not None:
            self._check_headers(row)
        if not self._supervisor.running:
            self._supervisor.check()
        return self._core.lanes.of_row(row)

    def _check_headers(self, row: NewRecord) -> None:
        if self._config.envelope is None:
            raise ConfigError("headers travel in an envelope: give ProducerConfig(envelope=disstream.Envelope())")
        size = enveloped_bytes(row)
        if size > MAX_RECORD_BYTES:
            raise ConfigError(
                f"a record of {size} bytes with its headers: the service takes at most {MAX_RECORD_BYTES} (1 MiB)"
            )

    def _lane_now(self, row: NewRecord, weight: int) -> Lane:
        """The lane after a wait in which the layout may have changed. If there is none now, nothing was accepted."""
        try:
            return self._core.lanes.of_row(row)
        except ConfigError:
            self._budget.leave(weight + RECORD_OVERHEAD)
            raise

    def _named(self, lane: Lane) -> str:
        place = long_partition_id(lane.number) if lane.number is not None else "any partition"
        return f"a record for {place} of {self._stream!r}"

    # --- requests out ---------------------------------------------------------------------------------------------

    def _wake(self, lane: Lane) -> None:
        """Let the task that may take from `lane` look."""
        groups = self._core.lanes.groups
        if lane.group is not None:
            self._wakes[lane.group.index].set()
            return
        core, now = self._core, anyio.current_time()
        for i in range(self._next_free, self._next_free + len(groups)):
            group = groups[i % len(groups)]
            if not group.busy and (not core.sessions or core.carrier(group, now) is not None):
                self._wakes[group.index].set()
                self._next_free = (i + 1) % len(groups)
                return
        if core.sessions:  # none could send it now: let those that are idle see when they can
            self._wake_all()

    async def _send_loop(self, index: int, tasks: anyio.CancelScope) -> None:
        core = self._core
        while True:
            self._wakes[index] = wake = anyio.Event()
            now = anyio.current_time()
            core.offer(EXTENSION in self._client.extensions)
            shipment = core.take(core.lanes.groups[index], now)
            if shipment is not None:
                await self._send(shipment, now, tasks)
                continue
            self._give_back()  # take may have ended what was overdue
            await _wait(wake, core.next_wake(core.lanes.groups[index], now))

    async def _send(self, shipment: Shipment, now: float, tasks: anyio.CancelScope) -> None:
        core = self._core
        self._sent_at = now
        timeout_s = min(self._config.request_timeout_s, shipment.deadline - now)
        protobuf = self._client.records.form == "protobuf"
        encode = encode_put_protobuf if protobuf else encode_put
        try:
            body = encode(self._stream, shipment.rows())
        except (TypeError, ValueError) as exc:  # what the checks let pass: refused like what the service refuses
            form = "protobuf" if protobuf else "JSON"
            core.refused(shipment, ApiError(f"it cannot be written as {form}: {exc}", status=400), now)
            self._give_back()
            return
        headers = None if shipment.session is None else {HEADER: encode_session(shipment.session)}
        try:
            # The client bounds the exchange, but not what stands around it: new credentials, a transport's own ideas.
            with anyio.fail_after(shipment.deadline - now + MIN_ATTEMPT_S):
                answer = await self._client.records.put_encoded(body, timeout_s=timeout_s, headers=headers)
        except TimeoutError:
            told = f"no answer within delivery_timeout_s={self._config.delivery_timeout_s:g}"
            core.lost(shipment, TransportError(told, outcome_unknown=True), anyio.current_time())
        except ApiError as exc:
            log.debug("put refused stream=%s records=%d error=%s", self._stream, shipment.records, exc)
            core.refused(shipment, exc, anyio.current_time())
            if exc.retryable and (exc.code != "DIS.4303" or self._config.pace is None):  # else it is told by partition
                self._note_trouble(exc)
        except TransportError as exc:
            log.debug("put lost stream=%s records=%d error=%s", self._stream, shipment.records, exc)
            core.lost(shipment, exc, anyio.current_time())
            self._note_trouble(exc)
        except ClosedError:
            # The client was closed under us: nothing was sent, and nothing ever will be.
            core.lost(shipment, TransportError("the client is closed", outcome_unknown=False), anyio.current_time())
            self._why_closed = "the client was closed before its producer"
            tasks.cancel()
        except BaseException as exc:
            # Cancelled, or the transport has a bug: the request may have been applied. The records keep their place.
            told = f"the request failed: {exc!r}" if isinstance(exc, Exception) else "the request was cancelled"
            core.lost(shipment, TransportError(told, outcome_unknown=True), anyio.current_time())
            raise
        else:
            core.stored(shipment, answer, anyio.current_time())
            if self._troubled_since is not None:
                lasted = anyio.current_time() - self._troubled_since
                log.info("puts are answered again stream=%s after_s=%.1f", self._stream, lasted)
                self._troubled_since = None
        self._give_back()
        if core.frozen or core.stale:
            self._changed.set()  # the layout task waits for this

    def _note_trouble(self, error: Exception) -> None:
        """Say once per streak that puts fail: from outside, an outage looks like a producer that does nothing."""
        if self._troubled_since is None:
            self._troubled_since = anyio.current_time()
            log.warning(
                "puts fail and are tried again until delivery_timeout_s=%g stream=%s error=%s",
                self._config.delivery_timeout_s,
                self._stream,
                error,
            )

    def _give_back(self, spilled: int = 0) -> None:
        """Return to the budget what the core has settled, or what was spilled, and tell who waits for progress."""
        if self._core.slowed:
            self._note_slowed()
        freed = self._core.freed + spilled
        if freed:
            self._core.freed = 0
            self._budget.leave(freed)
            self._changed.set()

    def _note_slowed(self) -> None:
        """Say once per streak that a partition is written faster than it takes."""
        now = anyio.current_time()
        for traffic in self._core.slowed:
            pace = traffic.pacer.pace(now) if traffic.pacer is not None else None
            log.info("throttled stream=%s partition=%s now_at=%s", self._stream, traffic.name or "any", pace)
        self._core.slowed.clear()

    async def _sweep_loop(self) -> None:
        while True:
            self._sweep_wake = anyio.Event()
            again_at = self._core.sweep(anyio.current_time())
            self._give_back()
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
            while not core.stale:
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
            core.frozen = True
            while core.in_flight or core.in_doubt:
                await self._next_change()
            self._relayout(info)

    def _relayout(self, info: StreamInfo) -> None:
        core = self._core
        if core.relayout(info.partitions):
            log.info("layout changed stream=%s writable=%d", self._stream, info.writable_partition_count)
        elif not core.sessions:
            log.warning(
                "the service does not place keys by their MD5; order is kept all the same stream=%s",
                self._stream,
            )
        self._adopt_lanes()
        core.frozen = False
        self._give_back()
        self._wake_all()

    def _adopt_lanes(self) -> None:
        lanes = self._core.lanes
        self._by_key = lanes.by_key
        self._budget.shares = self._config.order != "none" and len(lanes.ranges) > 1
        self._budget.reroute()

    def _wake_all(self) -> None:
        for wake in self._wakes:
            wake.set()

    async def _next_change(self) -> None:
        self._changed = changed = anyio.Event() if self._changed.is_set() else self._changed
        await changed.wait()

    # --- waiting and looking --------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Wait until every record accepted so far has its end, without lingering. Raises nothing for failed records.

        Cancelled: nothing is touched.
        """
        self._supervisor.check()
        await self._drain()

    async def _drain(self) -> None:
        self._core.hurry(anyio.current_time())
        self._wake_all()
        for batch in list(self._core.live):
            while not batch.settled:
                await self._next_change()

    def stats(self) -> ProducerStats:
        """What has happened so far, and what goes on. Raises ClosedError before `start`; works after `close`."""
        if not hasattr(self, "_core"):
            self._supervisor.check()
        core, counts = self._core, self._core.counts
        waiting = core.waiting
        try:
            now = anyio.current_time()
        except RuntimeError:  # no loop runs any more: as of the last time anything was sent
            now = self._sent_at
        hottest = [key for lane in core.lanes.all() for key in lane.traffic.hottest(now)]
        return ProducerStats(
            accepted=waiting + counts.stored + counts.rejected + counts.not_stored + counts.unknown,
            waiting=waiting,
            stored=counts.stored,
            rejected=counts.rejected,
            not_stored=counts.not_stored,
            unknown=counts.unknown,
            reordered=counts.reordered,
            requests=counts.requests,
            refused_attempts=counts.refused_attempts,
            in_flight=len(core.in_flight),
            buffered_bytes=self._budget.used,
            sessions=core.sessions,
            spilled=self._spill.spilled if self._spill else 0,
            unspilled=self._spill.unspilled if self._spill else 0,
            partitions=core.partitions(now),
            hottest=tuple(sorted(hottest, key=lambda key: -key.records_per_s)[:HOTTEST]),
        )


def _ceiling(config: ProducerConfig, info: StreamInfo) -> Pace | None:
    """What a partition of the stream may be sent. None: nothing is paced."""
    if config.pace != "auto":
        return config.pace
    if info.caps is None:  # not our server
        return PUBLISHED.get(info.stream_type, PUBLISHED["COMMON"])
    return Pace(records_per_s=info.caps.records_per_s, bytes_per_s=info.caps.bytes_per_s)


async def _wait(event: anyio.Event, until: float | None) -> None:
    """Wait for the event, at most until the instant."""
    if until is None:
        await event.wait()
        return
    with anyio.CancelScope(deadline=until):
        await event.wait()
