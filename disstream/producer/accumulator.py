"""The core of the producer: what goes into the next request, and what an answer means for each record.

Pure: knows neither clock nor network. The shell (`producer.py`) calls, in this order, for each group:

    add(lane, row, weight)             records enter a lane's open batch, which is sealed when full; or
    open(lane, row, weight, now)       start a new one
    take(group, now) -> Shipment       what the group's next request carries; the group is busy until it is settled by
    stored(shipment, body)                 a 2xx answer, wholly or record by record
    refused(shipment, error, now)          an error answer
    lost(shipment, error, now)             no answer: maybe applied
    sweep(now)                         records whose time is up get their end

A record moves:  open batch -> part in its lane's queue -> shipment -> settled, or back to the *front* of the queue.

What can never happen: two shipments of a group at once, hence never two of a lane; a record behind a retried one of its
lane leaving before it; a record with two ends; an end "rejected" or "not stored" after an attempt that may have been
applied. `check()` asserts what can be asserted from the outside.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Literal

from ..errors import ApiError, ConfigError, FailedRecord, ThrottledError, TransportError
from ..model import NewRecord, PartitionInfo, PutResult, PutResults
from ..wire.errors import RETRYABLE_RECORD_CODES
from ..wire.partitioning import partition_id, partition_number
from ..wire.places import Places, spelt_out
from ..wire.records import count_stored, decode_failed_count, decode_put_answer
from ..wire.sessions import FENCED, GAP, MAX_LANES, MOVED, Session, SessionLane
from .config import ProducerConfig
from .lanes import Group, Lane, Lanes
from .numbers import Numbers, Run
from .outcome import MAX_CODE, Answer, Batch, End, Failure, Ledger, Receipt, SharedAnswer, ShortAnswer, Spilled
from .pacing import QUANTUM_S, Backoff, FailureBudget
from .packing import Packing
from .shipment import Part, Shipment, halves, weight_of
from .traffic import Book, PartitionStats, Traffic

RECORD_OVERHEAD = 200
"""What a waiting record costs beside payload and key: row, payload header, delivery, list slots, rounding.
Measured at 175 to 197 bytes for payloads of 10 to 1,000 bytes (benchmarks/producer_memory.py)."""

SEAL_AFTER_S = 1.0
"""An open batch takes no more records after this: all records of a batch expire together, with its oldest."""

LOCKED_OUT_S = 60.0
"""The pause after DIS.4309 where the service does not tell how long: an address that goes on stays locked out."""

MIN_ATTEMPT_S = 0.05
"""Nothing is sent with less time left than this: it would only turn "not stored" into "unknown"."""

_SPLIT_STATUS = {400, 413}
_NOT_ABOUT_CONTENT = {"DIS.4117", "DIS.4301"}
"""Refusals of a whole request that no other composition of records would avoid."""
_SESSION_CODES = {GAP, FENCED, MOVED}
_RETRYABLE_CODES = {"DIS.4205"}
"""The stream is not running: it may be being created, or scaled."""


class Counts:
    """What has happened so far, in records (and requests)."""

    __slots__ = ("not_stored", "refused_attempts", "rejected", "reordered", "requests", "stored", "unknown")

    def __init__(self) -> None:
        self.stored = self.rejected = self.not_stored = self.unknown = 0
        self.reordered = self.requests = self.refused_attempts = 0


class _Overtaken:
    """Which failed records of a request were overtaken: a later one of their key was stored by the same request."""

    def __init__(self) -> None:
        self._failed: dict[tuple[Lane, str], list[tuple[Part, int]]] = {}
        self._late: dict[Part, set[int]] = {}
        self.rests: dict[Part, Part] = {}  # part of the request -> what of it is tried again

    def failed(self, lane: Lane, key: str | None, part: Part, index: int) -> None:
        if key is not None:
            self._failed.setdefault((lane, key), []).append((part, index))

    def stored(self, lane: Lane, key: str | None) -> None:
        if key is not None:
            for part, index in self._failed.pop((lane, key), ()):
                self._late.setdefault(part, set()).add(index)

    def mark(self) -> None:
        for part, late in self._late.items():
            self.rests[part].overtaken |= late


class Accumulator:
    """Batches per lane. open -> sealed -> in flight -> settled (retry: back to sealed)."""

    def __init__(
        self,
        config: ProducerConfig,
        partitions: Iterable[PartitionInfo],
        backoff: Backoff,
        packing: Packing | None = None,
        producer_id: str = "0" * 32,
        book: Book | None = None,
    ) -> None:
        """`packing`: how records become those of the service; None: they are.

        `producer_id`: 32 hex digits that no other producer of the stream has, for sessions.

        `book`: the traffic of the partitions, with their pace; None: nothing is paced.
        """
        self._config = config
        self._packing = packing
        self._numbered = 0
        self._producer_id = producer_id
        self._numbers: dict[int, Numbers] = {}  # by partition, also of those that are gone: they may come back
        self._offered = False
        self._request = 0
        self._max_rows = config.max_batch_rows
        self._max_records = config.max_batch_records
        self._max_bytes = config.max_batch_bytes
        self._min_attempt_s = min(MIN_ATTEMPT_S, config.delivery_timeout_s / 10)
        self._backoff = backoff
        self._ordered = config.order != "none"
        self._strict = config.order == "strict"
        self._book = book or Book(None)
        self._failures = FailureBudget()
        self.lanes = self._layout(partitions)
        self.ledger = Ledger()
        self.counts = Counts()
        self.live: dict[Batch, None] = {}  # batches with unsettled records
        self.in_flight: set[Shipment] = set()
        self.spill: Callable[[NewRecord, Failure, int], Spilled | None] | None = None
        """Takes (record, end, weight) of what failed; None: it does not."""
        self.freed = 0  # budget given back since the shell last looked
        self.frozen = False  # the layout is being changed: nothing is taken
        self.paused_until = 0.0  # the service refuses whatever comes from us: nothing is taken
        self.slowed: list[Traffic] = []  # partitions that began to be throttled since the shell last looked
        self.stale = False  # an answer named another partition than we expected
        self._trust_layout = True  # False: the service places keys differently; stop comparing

    def _layout(self, partitions: Iterable[PartitionInfo]) -> Lanes:
        lanes = Lanes(list(partitions), self._config.max_in_flight, self._numbers, ordered=self._ordered)
        for lane in lanes.all():
            lane.traffic = self._book.of(lane.number, len(lanes.ranges))
        return lanes

    # --- sessions -------------------------------------------------------------------------------------------------

    @property
    def sessions(self) -> bool:
        """Whether requests bear numbers: they are offered, wanted, and every record's partition can be predicted."""
        return self._offered and self.lanes.whole

    def offer(self, offered: bool) -> None:
        """The endpoint says whether it understands sessions. One that stops can settle no doubt any more."""
        offered = offered and self._ordered and self._config.sessions
        if self._offered and not offered:
            for part in self._parts():
                part.unnumber()
            for numbers in self._numbers.values():
                numbers.renew()
        self._offered = offered

    def _parts(self) -> Iterator[Part]:
        """All that is sealed and has no end."""
        for lane in self.lanes.all():
            yield from lane.queue
        for shipment in self.in_flight:
            for _, part in shipment.parts:
                yield part

    @property
    def in_doubt(self) -> bool:
        """Whether any lane has to find out what became of its last request, before its records may go elsewhere."""
        return any(lane.in_doubt for lane in self.lanes.all())

    # --- records in -----------------------------------------------------------------------------------------------

    def add(self, lane: Lane, row: NewRecord, weight: int) -> Batch | None:
        """Put a record into the open batch of its lane, as its last; None: there is none with room, `open` one first.

        The hot path; opening is a call of its own so that this one needs no clock.
        """
        batch = lane.open
        if batch is None or batch.weight + weight > self._max_bytes:
            return None
        rows = batch.rows
        rows.append(row)
        batch.weight += weight
        if len(rows) >= self._max_rows:
            self.seal(lane)
        return batch

    def open(self, lane: Lane, row: NewRecord, weight: int, now: float) -> Batch:
        """Start a new batch in `lane` with this record."""
        self.seal(lane)
        batch = self._start(lane, now)
        batch.rows.append(row)
        batch.weight = weight
        if self._max_rows == 1:
            self.seal(lane)
        return batch

    def _start(self, lane: Lane, now: float) -> Batch:
        config = self._config
        batch = Batch(now, now + config.linger_s, now + config.delivery_timeout_s, self.ledger, lane.traffic)
        batch.packing = self._packing
        lane.open = batch
        self.live[batch] = None
        self._activate(lane)
        return batch

    def extend(self, lane: Lane, rows: list[NewRecord], weight: int, now: float) -> list[tuple[Batch, range]]:
        """Put many records into `lane`; `weight` is theirs together. Returns where they are, in order."""
        spans: list[tuple[Batch, range]] = []
        done = 0
        while done < len(rows):
            batch = lane.open
            if batch is None:
                batch = self._start(lane, now)
            first = len(batch.rows)
            if not done and first + len(rows) <= self._max_rows and batch.weight + weight <= self._max_bytes:
                batch.rows += rows
                batch.weight += weight
                done = len(rows)
            else:
                while done < len(rows) and len(batch.rows) < self._max_rows:
                    one = weight_of(rows[done])
                    if batch.rows and batch.weight + one > self._max_bytes:
                        break
                    batch.rows.append(rows[done])
                    batch.weight += one
                    done += 1
            if len(batch.rows) > first:
                spans.append((batch, range(first, len(batch.rows))))
            if done < len(rows) or len(batch.rows) >= self._max_rows:
                self.seal(lane)
        return spans

    def seal(self, lane: Lane) -> None:
        """Close the open batch, if any: it takes no more records and may go at once."""
        batch = lane.open
        if batch is not None:
            batch.first = self._numbered
            self._numbered += len(batch.rows)
            batch.traffic.held += batch.weight + len(batch.rows) * RECORD_OVERHEAD
            batch.traffic.queued += len(batch.rows)
            lane.queue.append(Part(batch))
            lane.open = None

    def hurry(self, now: float) -> None:
        """Let every open batch go as soon as its lane is idle, whatever the linger."""
        for lane in self.lanes.all():
            if lane.open is not None:
                lane.open.due_at = min(lane.open.due_at, now)

    @staticmethod
    def _activate(lane: Lane) -> None:
        if lane.group is not None:
            lane.group.active.setdefault(lane)

    # --- requests out ---------------------------------------------------------------------------------------------

    def take(self, group: Group, now: float) -> Shipment | None:
        """What `group` should send now; None: nothing is ready (see `next_wake`)."""
        if group.busy or self.paused_until > now:
            return None
        shipment = Shipment(group)
        sessions = self.sessions
        if sessions:
            self._place_free(group, now)
            lanes = list(group.active)
        elif group.free_first:
            lanes = [self.lanes.free, *group.active]
        else:
            lanes = [*group.active, self.lanes.free]
        group.free_first = not group.free_first
        runs: list[SessionLane] = []
        for lane in lanes:
            if lane.empty:
                group.active.pop(lane, None)
                continue
            if lane.not_before > now or (self.frozen and not lane.in_doubt) or (lane.apart and shipment.parts):
                continue
            # Who would be ready soon comes along: lanes of a group then keep in step, and fewer requests carry more.
            if self._ready_at(lane, now) > now + (QUANTUM_S / 2 if shipment.parts else 0.0):
                continue
            run = Run(lane.numbers) if sessions else None
            self._pick(lane, shipment, now, run)
            if lane.group is not None:
                del group.active[lane]  # to the end of the line, or out of it
                if not lane.empty:
                    group.active[lane] = None
            if run is not None and run.first >= 0 and lane.number is not None:
                runs.append(SessionLane(lane.number, run.epoch, run.first, run.end - run.first))
                if len(runs) == MAX_LANES:
                    break
            if shipment.count >= self._max_records or shipment.weight >= self._max_bytes:
                break
            if shipment.parts and (shipment.parts[-1][1].alone or shipment.parts[-1][0].apart):
                break
        if not shipment.parts:
            return None
        for _, part in shipment.parts:
            part.attempts += 1
        if runs:
            self._request += 1
            shipment.session = Session(self._producer_id, self._request, tuple(runs))
        group.busy = True
        self.in_flight.add(shipment)
        self.counts.requests += 1
        return shipment

    def carrier(self, group: Group, now: float) -> Lane | None:
        """The lane of the group that could take records without a key along now, in a session."""
        first = self.lanes.free.queue[0] if self.lanes.free.queue else None
        return group.carrier(now, lambda lane: self._ready_at(lane, now, first))

    def _place_free(self, group: Group, now: float) -> None:
        """In a session: choose a lane of the group for a request's worth of records without a key."""
        free = self.lanes.free
        if free.open is not None and free.open.due_at <= now:
            self.seal(free)
        if not free.queue or self.frozen or (carrier := self.carrier(group, now)) is None:
            return
        if not group.free_first and len(carrier.queue) > 1:
            return  # behind so much they would wait for long; with the next request it is their turn
        group.turn = group.lanes.index(carrier) + 1
        placed: list[Part] = []
        count = weight = 0
        pacer = carrier.traffic.pacer
        records, octets = (math.inf, math.inf) if pacer is None else pacer.allowance(now)
        while free.queue and (not placed or (count < self._max_records and weight < self._max_bytes)):
            if records < 1.0 or octets <= 0.0:
                break
            part, rest = self._cut(free.queue.popleft(), records, octets)
            if rest is not None:
                free.queue.appendleft(rest)
            records -= part.wire_count
            octets -= part.payload
            part.placed = carrier.number
            placed.append(part)
            count += part.wire_count
            weight += part.weight
        if group.free_first:
            carrier.queue.extendleft(reversed(placed))
            group.active = {carrier: None, **group.active}
        else:
            carrier.queue.extend(placed)
            self._activate(carrier)

    def _pick(self, lane: Lane, shipment: Shipment, now: float, run: Run | None) -> None:
        """Move what may go now from the lane to the shipment; `run` numbers it."""
        if lane.open is not None and lane.open.due_at <= now:
            self.seal(lane)
        pacer = lane.traffic.pacer
        if pacer is not None and pacer.free:
            pacer = None
        records, octets = (math.inf, math.inf) if pacer is None else pacer.allowance(now)
        one_per_key = self._strict and lane.number is not None
        while lane.queue:
            part = lane.queue[0]
            if self._expire(part, now):
                lane.queue.popleft()
                continue
            if pacer is not None and (records < 1.0 or octets <= 0.0):
                return
            if not part.in_doubt:
                if self.frozen:
                    return
                if one_per_key:
                    self._pick_one_per_key(lane, shipment, now, run, records, octets)
                    return
            rest: Part | None = None
            if pacer is not None or part.wire_count > self._max_records:
                part, rest = self._cut(part, records, octets)
            weight = part.weight
            if shipment.parts and (
                part.alone
                or shipment.count + part.wire_count > self._max_records
                or shipment.weight + weight > self._max_bytes
            ):
                return
            if run is not None:
                if not run.admits(part):
                    return
                run.add(part)
            lane.queue.popleft()
            shipment.add(lane, part, weight)
            if pacer is not None:
                size = part.payload
                pacer.sent(part.wire_count, size)
                records, octets = records - part.wire_count, octets - size
            if rest is not None:
                lane.queue.appendleft(rest)
                return
            if part.alone:
                return

    def _cut(self, part: Part, records: float, octets: float) -> tuple[Part, Part | None]:
        """What of a part may go in one request now, and what stays.

        What may be stored already is sent as it was, never less of it.
        """
        if part.maybe_applied:
            records = octets = math.inf
        count = part.fits(min(records, self._max_records), octets)
        if count == len(part):
            return part, None
        each = list(part.each())
        front, rest = part.rest(each[:count]), part.rest(each[count:])
        front.alone = rest.alone = part.alone
        return front, rest

    def _pick_one_per_key(
        self, lane: Lane, shipment: Shipment, now: float, run: Run | None, records: float, octets: float
    ) -> None:
        """Order "strict": the first waiting record of each key. What stays keeps its place.

        `records` and `octets` (of payload): what the partition takes now.
        """
        pacer = lane.traffic.pacer
        passed = {part.batch.rows[i].key for theirs, part in shipment.parts if theirs is lane for i in part.each()}
        kept: deque[Part] = deque()
        scanned = 0
        while lane.queue and shipment.count < self._max_records and scanned < self._max_records:
            part = lane.queue[0]
            if part.alone and (shipment.parts or kept):
                break
            lane.queue.popleft()
            if self._expire(part, now):
                continue
            mine: list[int] = []
            left: list[int] = []
            weight = 0
            for i in part.each():
                row = part.batch.rows[i]
                room = shipment.count + len(mine) < self._max_records and (
                    shipment.weight + weight + weight_of(row) <= self._max_bytes or not (mine or shipment.parts)
                )
                if (row.key in passed and row.key is not None) or not room or records < 1.0 or octets <= 0.0:
                    left.append(i)
                else:
                    mine.append(i)
                    weight += weight_of(row)
                    records -= 1
                    octets -= len(row.data)
                if row.key is not None:
                    passed.add(row.key)
            scanned += len(part)
            if mine:
                taken = part if not left else part.rest(mine)
                taken.alone = part.alone
                if run is not None:
                    if not run.admits(taken):
                        kept.append(part)
                        break
                    run.add(taken)
                shipment.add(lane, taken, weight)
                if pacer is not None:
                    pacer.sent(taken.wire_count, taken.payload)
            if left:
                rest = part if not mine else part.rest(left)
                kept.append(rest)
            if part.alone:
                break
        lane.queue.extendleft(reversed(kept))

    def next_wake(self, group: Group, now: float = 0.0) -> float | None:
        """When `take` may have something for an idle group although nothing new happened."""
        if group.busy:
            return None
        free, sessions = self.lanes.free, self.sessions
        times = [
            max(lane.not_before, lane.due_at, self.paused_until, self._ready_at(lane, now))
            for lane in (group.active if sessions else (*group.active, free))
            if not lane.empty and (lane.in_doubt or not self.frozen)
        ]
        if sessions and not free.empty and not self.frozen:
            first = free.queue[0] if free.queue else None
            able_at = group.carrier_at(lambda lane: self._ready_at(lane, now, first))
            if able_at is not None:
                times.append(max(able_at, free.due_at, self.paused_until))
        return min(times, default=None)

    def _ready_at(self, lane: Lane, now: float, extra: Part | None = None) -> float:
        """When the pace of its partition lets a lane send what it holds, and `extra`, or a useful part of that."""
        pacer = lane.traffic.pacer
        if pacer is None or pacer.free:
            return 0.0
        records, octets = (0, 0) if extra is None else (extra.wire_count, extra.batch.weight)
        for part in lane.queue:
            records += part.wire_count
            octets += part.batch.weight
            if records >= self._max_records:  # more than any pace asks for at once: no need to look at all
                break
        if lane.open is not None:
            records += len(lane.open.rows)
            octets += lane.open.weight
        return pacer.ready_at(records, octets, now)

    # --- answers in -----------------------------------------------------------------------------------------------

    def stored(self, shipment: Shipment, answer: bytes | PutResults | Places, now: float) -> None:
        """The service answered 2xx, with this body or these results. What does not fit the request is no answer."""
        try:
            if isinstance(answer, tuple):
                if self._in_places(shipment, answer):
                    self._settle_all(shipment, ShortAnswer(answer), now)
                    return
                results = spelt_out(answer)
            elif isinstance(answer, PutResults):
                if self._in_place(shipment, answer):
                    self._settle_all(shipment, Answer(answer), now)
                    return
                results = answer
            elif decode_failed_count(answer) == 0 and self._as_expected(shipment, answer):
                self._settle_all(shipment, Answer(answer), now)
                return
            else:
                results = decode_put_answer(answer)
        except TransportError as exc:
            self.lost(shipment, exc, now)
            return
        if shipment.session is not None and any(r.ok and r.sequence_number is None for r in results):
            # It is asked again, and will be told: in the same records under the same numbers.
            self.lost(shipment, TransportError("the answer tells no place of a record", outcome_unknown=True), now)
            return
        if len(results) != shipment.count:
            told = f"the answer has {len(results)} results for {shipment.count} records"
            self.lost(shipment, TransportError(told, outcome_unknown=True), now)
            return
        self._settle_each(shipment, results, now)

    def _as_expected(self, shipment: Shipment, body: bytes) -> bool:
        """Whether the answer has a place for every record, in the predicted partition: counted, not decoded."""
        if not self._trust_layout or any(lane.number is None for lane, _ in shipment.parts):
            return count_stored(body, None) == shipment.count
        per_lane: dict[int | None, int] = {}
        for lane, part in shipment.parts:
            per_lane[lane.number] = per_lane.get(lane.number, 0) + part.wire_count
        return all(count_stored(body, number) == count for number, count in per_lane.items())

    def _in_place(self, shipment: Shipment, results: PutResults) -> bool:
        """The same of results."""
        places = [r.partition_id for r in results if r.error_code is None and r.sequence_number is not None]
        if len(results) != shipment.count or len(places) != shipment.count:
            return False
        offset = 0
        for lane, part in shipment.parts:
            end = offset + part.wire_count
            if self._trust_layout and lane.number is not None:
                if places[offset:end] != [partition_id(lane.number)] * (end - offset):
                    return False
            offset = end
        return True

    def _in_places(self, shipment: Shipment, places: Places) -> bool:
        """The same of the short answer."""
        if sum([place.records for place in places]) != shipment.count:
            return False
        told = iter(places)
        partition = left = 0
        for lane, part in shipment.parts:
            need = part.wire_count
            while need:
                if not left:
                    partition, _, left = next(told)
                if self._trust_layout and lane.number not in (None, partition):
                    return False
                step = min(need, left)
                need -= step
                left -= step
        return True

    def _settle_all(self, shipment: Shipment, answer: Answer, now: float) -> None:
        offset = 0
        for lane, part in shipment.parts:
            lane.failures = 0
            lane.apart = False
            lane.traffic.stored(part, now)
            count = len(part)
            if part.number >= 0:
                lane.numbers.stored(part.epoch, part.number + part.wire_count)
            sizes = part.sizes
            own, start = (answer, offset) if sizes is None else (SharedAnswer(answer, offset, sizes), 0)
            if part.indices is None and not part.overtaken:
                self.counts.stored += count
                freed = part.batch.weight + count * RECORD_OVERHEAD
                self.freed += freed
                part.batch.traffic.held -= freed
                part.batch.traffic.queued -= count
                del self.live[part.batch]
                part.batch.settle_whole(own, start, part.attempts)
            else:
                for place, i in enumerate(part.each(), start):
                    self._store(part, i, own.receipt(place, part.attempts))
                self._wake(part)
            offset += count if sizes is None else len(sizes)
        self._done(shipment)

    def _settle_each(self, shipment: Shipment, results: list[PutResult], now: float) -> None:
        """The slow way: a partial failure, or an answer that names other partitions than predicted."""
        offset = 0
        retries: list[tuple[Lane, Part]] = []
        slowed: dict[Lane, list[int]] = {}  # lanes that flow control stopped: [records it refused, records sent]
        behind = _Overtaken()
        short: set[Lane] = set()  # lanes of which a record was not stored
        for lane, part in shipment.parts:
            again: list[int] = []
            done: list[int] = []
            throttled = unclear = False
            resolved = 0  # records that no earlier attempt has stored, or ever will
            stored = 0  # records before the first that was not stored
            wire_count = part.wire_count
            spread = part.spread(results[offset : offset + wire_count])
            for (result, index), i in zip(spread, part.each(), strict=True):
                key = part.batch.rows[i].key if self._ordered else None
                if result.ok and result.sequence_number is not None:
                    self._compare_place(lane, result)
                    behind.stored(lane, key)
                    stored += lane not in short
                    done.append(i)
                    place = Receipt(result.partition_id or "", result.sequence_number, part.attempts, index=index)
                    self._store(part, i, place)
                    continue
                if lane not in short:
                    short.add(lane)
                    self._stored_up_to(lane, part, stored)
                if shipment.session is not None and result.error_code in _SESSION_CODES:
                    if result.error_code == MOVED:
                        self.stale = True
                    elif part.epoch == lane.numbers.epoch:
                        lane.numbers.renew()
                    if result.error_code == GAP and part.in_doubt:
                        self._unknown(part, i, "the service does not know the session any more; it may be stored")
                        continue
                    resolved += result.error_code != GAP
                    part.last_error = f"{result.error_code}: {result.error_message}"
                    again.append(i)
                    behind.failed(lane, key, part, i)
                elif result.ok or (result.error_code or "").startswith(RETRYABLE_RECORD_CODES):
                    throttled = result.error_code == "DIS.4303"
                    if throttled and not again and lane.traffic.pacer is not None:
                        slowed.setdefault(lane, [0, 0])  # what the first failure is due to, the others follow from
                    unclear |= result.ok  # neither a place nor an error: it may be stored
                    part.last_error = (
                        f"{result.error_code}: {result.error_message}" if result.error_code else "no result"
                    )
                    self.counts.refused_attempts += 1
                    again.append(i)
                    behind.failed(lane, key, part, i)
                else:
                    self._refuse_one(part, i, result.error_code or "", result.error_message or "")
            offset += wire_count
            if lane not in short:
                self._stored_up_to(lane, part, len(part))
            if done:
                lane.traffic.stored(part.rest(done), now)
            if lane in slowed:
                slowed[lane][0] += len(again)
                slowed[lane][1] += len(part)
            if again:
                rest = part.rest(again)
                rest.throttled = throttled
                if unclear:
                    rest.maybe_applied = True
                    rest.unnumber()
                if resolved == len(again):
                    rest.resolve()
                retries.append((lane, rest))
                behind.rests[part] = rest
            self._wake(part)
        behind.mark()
        self._done(shipment)
        self._back_off([lane for lane, _ in retries if lane not in slowed], now)
        for lane, (refused, sent) in slowed.items():
            self._slow_down(lane, refused / sent, now)
        self._put_back(retries)
        for lane in {lane for lane, _ in shipment.parts} - ({lane for lane, _ in retries} - set(slowed)):
            lane.failures = 0
            lane.apart = False

    def _slow_down(self, lane: Lane, refused: float, now: float) -> None:
        """Flow control refused this part of what a request held of the lane. No failure: its pace says when it goes."""
        traffic = lane.traffic
        assert traffic.pacer is not None
        if traffic.pacer.refused(refused, traffic.lately(now), now):
            self.slowed.append(traffic)

    @staticmethod
    def _stored_up_to(lane: Lane, part: Part, count: int) -> None:
        """The first `count` records of the part are stored, and what was before it in its lane."""
        if part.number >= 0:
            behind = part.rest(list(part.each())[count:])
            lane.numbers.stored(part.epoch, part.number + part.wire_count - behind.wire_count)

    def _compare_place(self, lane: Lane, result: PutResult) -> None:
        if self._trust_layout and lane.number is not None and result.partition_id:
            try:
                self.stale |= partition_number(result.partition_id) != lane.number
            except ApiError:
                self.stale = True

    def refused(self, shipment: Shipment, error: ApiError, now: float) -> None:
        """The service refused the request as a whole: nothing of it is stored, unless it failed itself (5xx)."""
        if error.outcome_unknown:
            self.lost(shipment, error, now)
            return
        for _, part in shipment.parts:
            part.last_error = str(error)
            part.throttled = isinstance(error, ThrottledError)
        self.counts.refused_attempts += shipment.records
        wait_s = (error.retry_after_s or 0.0) if isinstance(error, ThrottledError) else 0.0
        lanes = list({lane: None for lane, _ in shipment.parts})
        if error.code == "DIS.4309":
            self._done(shipment)
            self.paused_until = max(self.paused_until, now + (wait_s or LOCKED_OUT_S))
            self._put_back(shipment.parts)
        elif error.code == "DIS.4303" and lanes[0].traffic.pacer is not None:
            self._done(shipment)
            for lane in lanes:
                lane.not_before = now + wait_s
                lane.apart = len(lanes) > 1  # whose fault it was, they find out one by one
                self._slow_down(lane, 0.0 if lane.apart else 1.0, now)
            self._put_back(shipment.parts)
        elif error.retryable or error.status == HTTPStatus.REQUEST_TIMEOUT or error.code in _RETRYABLE_CODES:
            self._done(shipment)
            self._again(shipment.parts, now, wait_s)
        elif error.status in _SPLIT_STATUS and error.code not in _NOT_ABOUT_CONTENT and shipment.records > 1:
            # One record that the service does not take must not sink the others: halve until it stands alone.
            self._done(shipment)
            self._wait_for_failures(lanes, now)
            self._put_back(
                [(lane, half) for lane, part in shipment.parts for half in halves(part, alone=len(shipment.parts) == 1)]
            )
        else:
            for _, part in shipment.parts:
                for i in part.each():
                    self._refuse_one(part, i, error.code or f"HTTP {error.status}", error.message)
                self._wake(part)
            self._done(shipment)
            self._wait_for_failures(lanes, now)
            self.stale |= error.code in ("DIS.4302", "DIS.4319")

    def lost(self, shipment: Shipment, error: ApiError | TransportError, now: float) -> None:
        """No answer, or one that says nothing about the records: try again, remembering that it may be there."""
        for _, part in shipment.parts:
            part.last_error = str(error)
            part.throttled = False
            part.maybe_applied |= error.outcome_unknown
            if shipment.session is None or part.number < 0:
                part.unnumber()
        self._done(shipment)
        self._again(shipment.parts, now)

    def _wait_for_failures(self, lanes: list[Lane], now: float) -> None:
        """Their request was refused as a whole: the next ones wait if that has happened too often lately."""
        next_try_at = self._failures.next_try_at(now)
        for lane in lanes:
            lane.not_before = max(lane.not_before, next_try_at)

    def _again(self, parts: list[tuple[Lane, Part]], now: float, at_least_s: float = 0.0) -> None:
        self._back_off([lane for lane, _ in parts], now, at_least_s)
        self._put_back(parts)

    def _back_off(self, lanes: list[Lane], now: float, at_least_s: float = 0.0) -> None:
        for lane in dict.fromkeys(lanes):
            lane.failures += 1
            lane.not_before = now + self._backoff.pause_s(lane.failures, at_least_s)

    def _put_back(self, parts: list[tuple[Lane, Part]]) -> None:
        """To the front of their lanes, in order: nothing of a lane may pass what is tried again."""
        for lane, part in reversed(parts):
            lane.queue.appendleft(part)
            self._activate(lane)

    # --- ends -----------------------------------------------------------------------------------------------------

    def _done(self, shipment: Shipment) -> None:
        shipment.group.busy = False
        self.in_flight.discard(shipment)

    def _store(self, part: Part, index: int, receipt: Receipt) -> None:
        if index in part.overtaken:
            self.counts.reordered += 1
            receipt = Receipt(receipt.partition_id, receipt.sequence_number, receipt.attempts, True, receipt.index)
        self.counts.stored += 1
        self._end(part.batch, index, receipt)

    def _refuse_one(self, part: Part, index: int, code: str, message: str) -> None:
        code = code[:MAX_CODE]  # the service's word: it is kept for each record
        if part.maybe_applied:
            self._unknown(part, index, f"refused now ({code}: {message}), but an earlier attempt may have stored it")
        else:
            self.counts.rejected += 1
            self._end(part.batch, index, Failure("rejected", code, message))

    def _unknown(self, part: Part, index: int, detail: str) -> None:
        self.counts.unknown += 1
        self._end(part.batch, index, Failure("unknown", "", detail))

    def _end(self, batch: Batch, index: int, end: End) -> None:
        row = batch.rows[index]
        weight = weight_of(row) + RECORD_OVERHEAD
        batch.traffic.held -= weight
        batch.traffic.queued -= 1
        if isinstance(end, Failure):
            if self.spill is not None and (spilled := self.spill(row, end, weight)) is not None:
                end = Failure(end.kind, end.code, end.detail, spilled)
                weight = 0  # given back when the record is written, so that the budget bounds what waits for that
            cause = batch.settle(index, end)
            if cause is not None and self.ledger.lacks_samples(cause):
                self.ledger.sample(batch, index, FailedRecord(cause, self._place(row), row.key, end.detail))
        else:
            batch.settle(index, end)
        self.freed += weight

    def _place(self, row: NewRecord) -> str:
        try:
            number = self.lanes.of_row(row).number
        except ConfigError:  # it named a partition that is not written any more
            return row.partition_id or ""
        return "" if number is None else partition_id(number)

    def _wake(self, part: Part) -> None:
        if part.batch.settled:
            self.live.pop(part.batch, None)
        part.batch.wake()

    def _expire(self, part: Part, now: float) -> bool:
        """Whether the part's time is up (it has got its end then), or too little is left for an attempt."""
        left = part.batch.deadline - now
        if left > self._min_attempt_s:
            return False
        timeout = f"delivery_timeout_s={self._config.delivery_timeout_s:g}"
        why = f"not settled within {timeout} after {part.attempts} attempts"
        if part.last_error:
            why += f"; the last: {part.last_error}"
        self._give_up(part, "throttled" if part.throttled else "expired", why)
        return True

    def _give_up(self, part: Part, reason: Literal["expired", "throttled", "closed"], detail: str) -> None:
        if reason == "closed" and part.last_error:
            detail += f"; the last of {part.attempts} attempts: {part.last_error}"
        # One value for all: in an outage a whole buffer is given up at once, and the loop stands still for it.
        if part.maybe_applied:
            self.counts.unknown += len(part)
            end = Failure("unknown", "", f"{reason}: {detail}; an attempt may have stored it")
        else:
            self.counts.not_stored += len(part)
            end = Failure("not stored", reason, detail)
        for i in part.each():
            self._end(part.batch, i, end)
        self._wake(part)

    def sweep(self, now: float) -> float | None:
        """End what is overdue; the instant when to look again (None: nothing waits)."""
        flying = {lane for shipment in self.in_flight for lane, _ in shipment.parts if lane.number is not None}
        for lane in self.lanes.all():
            batch = lane.open
            if batch is not None and (
                now - batch.opened_at >= SEAL_AFTER_S or batch.deadline - now <= self._min_attempt_s
            ):
                self.seal(lane)
            if lane.queue:
                # A lane's records end in order: behind a request that is out they wait for it, until it is cut off too.
                at = now - 3 * self._min_attempt_s if lane in flying else now
                lane.queue = deque(part for part in lane.queue if not self._expire(part, at))
        if not self.live:
            return None
        soonest = min(batch.deadline for batch in self.live) - self._min_attempt_s
        # What is in flight is overdue for a moment until its attempt has timed out: no reason to spin.
        return min(now + SEAL_AFTER_S, max(soonest, now + self._min_attempt_s))

    def abandon(self, detail: str) -> None:
        """Give every record that has no end its end, now. What is in flight is unknown."""
        for shipment in list(self.in_flight):
            for _, part in shipment.parts:
                part.maybe_applied = True
                self._give_up(part, "closed", detail)
            self._done(shipment)
        for lane in self.lanes.all():
            self.seal(lane)
            while lane.queue:
                self._give_up(lane.queue.popleft(), "closed", detail)

    # --- layout ---------------------------------------------------------------------------------------------------

    def relayout(self, partitions: Iterable[PartitionInfo]) -> bool:
        """Route what waits over a new layout, keeping its order; nothing may be in flight or doubt. False: no change.

        If the layout is the one we had although an answer contradicted it, the service places keys by a rule of its
        own: lanes then only group keys, which is all that order needs, and places are not compared any more.
        """
        assert not self.in_flight, "old lanes are settled before new ones open"
        assert not self.in_doubt
        self.stale = False
        new = self._layout(partitions)
        if new.ranges == self.lanes.ranges:
            # In a session the service checks our predictions itself, and we may have looked too early.
            self._trust_layout = self.sessions
            return False
        old, self.lanes = self.lanes, new
        for lane in old.all():
            self.seal(lane)
            for part in lane.queue:
                self._reroute(part)
        return True

    def _reroute(self, part: Part) -> None:
        part.placed = None
        part.unnumber()
        by_lane: dict[Lane, list[int]] = {}
        for i in part.each():
            try:
                lane = self.lanes.of_row(part.batch.rows[i])
            except ConfigError as exc:  # it named a partition that is not written any more
                self._refuse_one(part, i, "DIS.4319", str(exc))
            else:
                by_lane.setdefault(lane, []).append(i)
        for lane, indices in by_lane.items():
            whole = part.indices is None and len(indices) == len(part.batch.rows)
            lane.queue.append(part if whole else part.rest(indices))
            self._activate(lane)
        if part.batch.ends is not None:
            self._wake(part)

    # --- looking --------------------------------------------------------------------------------------------------

    @property
    def drained(self) -> bool:
        return not self.live

    @property
    def waiting(self) -> int:
        """Records that were accepted and have no end yet."""
        return sum(len(b.rows) - len(b.ends or ()) for b in self.live)

    def partitions(self, now: float) -> tuple[PartitionStats, ...]:
        """Each partition's traffic, and that of records that may go to any, if there was such."""
        told = []
        for lane in self.lanes.all():
            open_rows = [] if lane.open is None else lane.open.rows
            waiting = sum(map(len, lane.queue)) + len(open_rows)
            octets = lane.traffic.held
            if lane.open is not None:
                octets += lane.open.weight + len(open_rows) * RECORD_OVERHEAD
            if lane.number is not None or octets or lane.traffic.used:
                told.append(lane.traffic.stats(waiting, octets, now))
        return tuple(told)

    def check(self) -> None:
        """Assert every invariant."""
        held: Counter[Traffic] = Counter()
        for batch in self.live:
            waiting = [row for i, row in enumerate(batch.rows) if i not in (batch.ends or ())]
            held[batch.traffic] += sum(weight_of(row) + RECORD_OVERHEAD for row in waiting)
        for lane in self.lanes.all():
            if lane.open is not None:
                held[lane.traffic] -= lane.open.weight + len(lane.open.rows) * RECORD_OVERHEAD
            assert lane.traffic.held == held[lane.traffic], (
                f"{lane!r} holds {lane.traffic.held}, not {held[lane.traffic]}"
            )

        seen: dict[Batch, set[int]] = {}

        def claim(part: Part) -> None:
            mine = seen.setdefault(part.batch, set())
            for i in part.each():
                assert i not in mine, "a record waits in two places"
                assert not part.batch.ends or i not in part.batch.ends, "a settled record waits"
                mine.add(i)

        for lane in self.lanes.all():
            for part in lane.queue:
                claim(part)
            if lane.open is not None:
                claim(Part(lane.open))
            if lane.group is not None:
                assert lane.empty or lane in lane.group.active, f"{lane!r} waits but its group does not know"
            self._check_numbers(lane)
        groups = [shipment.group for shipment in self.in_flight]
        assert len(groups) == len(set(groups)), "two shipments of one group"
        for shipment in self.in_flight:
            assert shipment.group.busy
            assert shipment.records == sum(len(part) for _, part in shipment.parts)
            assert shipment.count == sum(part.wire_count for _, part in shipment.parts) <= self._max_records
            for lane, part in shipment.parts:
                claim(part)
                assert part.placed in (None, lane.number)
            if (session := shipment.session) is not None:
                assert session.records == sum(part.wire_count for _, part in shipment.parts)
        assert set(seen) <= set(self.live), "a batch waits that is not live"
        for batch in self.live:
            ended = len(batch.ends or ())
            assert len(seen.get(batch, ())) + ended == len(batch.rows), "a record is nowhere"

    @staticmethod
    def _check_numbers(lane: Lane) -> None:
        numbers = lane.numbers
        assert 0 <= numbers.next <= numbers.unused
        doubts = [part.in_doubt for part in lane.queue]
        assert doubts == sorted(doubts, reverse=True), f"{lane!r} has something in front of what is in doubt"
        end = {numbers.epoch: numbers.next}
        for part in lane.queue:
            assert part.placed in (None, lane.number)
            if part.number >= 0:
                assert part.number >= end.get(part.epoch, 0), f"{lane!r} has two records with one number"
                end[part.epoch] = part.number + part.wire_count
        assert end[numbers.epoch] <= numbers.unused
