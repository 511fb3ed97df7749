"""What goes into the next request of a group: in order, within the limits, at the pace of its partitions. Pure.

    take(group, now, more) -> Shipment the group is busy from then on, until its answer is in: done(shipment)
    next_wake(group, now)              if there was none: when to look again

What can never happen: two shipments of a group at once, hence never two of a lane. A group that has little to send
takes along what idle groups have; with much to send each is on its own.
"""

from __future__ import annotations

import math
from collections import deque

from ..wire.sessions import MAX_LANES, Session, SessionLane
from .config import ProducerConfig
from .ends import Ends
from .lanes import Group, Lane
from .layout import Layout
from .numbers import Run
from .pacing import QUANTUM_S
from .shipment import Part, Shipment, weight_at

FEW_RECORDS = 100
"""A request with fewer is small: handling it costs both sides more than its records do."""

GATHER_S = 0.002
"""How long a small request waits at most for one of ours that is out: the round trip to a service next door, during
which its answer comes mostly, and nothing beside the round trip to one far away."""

MANY_LANES = 8
FEW_OF_A_LANE = 64
"""A lane costs a request as much as some twenty records, so one with many lanes and few records of each is not full."""

WIDE_GATHER_S = 0.02
"""How long such a request waits at most while two or more of ours are out."""

MORE_GATHER_S = 0.2
"""How long it waits at most while somebody is in the middle of sending, and only pauses to let the loop breathe: at
300,000 records a second each of a thousand lanes gets sixty meanwhile. Counted from when the group could send, or its
next request would be as thin as the last one was slow; but no record waits so once a quarter of its time is over."""

LOOK_S = 0.005
"""So often it is seen whether that is still so: who has sent all, and awaits receipts, must not wait for nothing."""

COUNT_S = 0.025
"""So often what has gathered is counted meanwhile: with a hundred lanes that takes as long as sending fifty records."""


class Picker:
    """Takes from the lanes what is ready; knows what is in flight."""

    def __init__(self, config: ProducerConfig, layout: Layout, ends: Ends, producer_id: str) -> None:
        """`producer_id`: 32 hex digits that no other producer of the stream has, for sessions."""
        self._max_records = config.max_batch_records
        self._max_bytes = config.max_batch_bytes
        self._strict = config.order == "strict"
        self._patience_s = config.delivery_timeout_s / 4
        self._layout = layout
        self._ends = ends
        self._producer_id = producer_id
        self._request = 0
        self.in_flight: set[Shipment] = set()
        self.gathering: dict[Group, None] = {}
        """Groups that have something to send, and wait for a request that is out: to be woken when one ends."""
        self.paused_until = 0.0  # the service refuses whatever comes from us: nothing is taken

    def take(self, group: Group, now: float, *, more: bool = False) -> Shipment | None:
        """What `group` should send now; None: nothing is ready (see `next_wake`).

        `more`: somebody is in the middle of sending, so there will be more in a moment.
        """
        if more and group.patient_until > now:
            return None
        group.patient_until = 0.0
        if group.busy or self.paused_until > now:
            return None
        if group.gathers_since is None and group.active:
            group.gathers_since = now
        until = self._gathering_until(group, more)
        if until > now:
            if more and len(group.active) >= MANY_LANES:
                group.patient_until = min(until, now + COUNT_S)
            self.gathering[group] = None
            return None
        shipment = Shipment(group)
        sessions = self._layout.sessions
        if sessions:
            self._place_free(group, now)
            lanes = list(group.active)
        elif group.free_first:
            lanes = [self._layout.lanes.free, *group.active]
        else:
            lanes = [*group.active, self._layout.lanes.free]
        group.free_first = not group.free_first
        runs: list[SessionLane] = []
        open_to_more = self._fill(shipment, lanes, now, runs)
        if not shipment.parts:
            return None
        for other in self._layout.lanes.groups if open_to_more and shipment.count < FEW_RECORDS else ():
            if not other.busy and other.active and other is not group:
                count = shipment.count
                open_to_more = self._fill(shipment, list(other.active), now, runs)
                if shipment.count > count:
                    shipment.groups.append(other)
                if not open_to_more:
                    break
        for _, part in shipment.parts:
            part.attempts += 1
        if runs:
            self._request += 1
            shipment.session = Session(self._producer_id, self._request, tuple(runs))
        for taken in shipment.groups:
            taken.busy = True
            taken.gathers_since = None
        self.in_flight.add(shipment)
        self._ends.counts.requests += 1
        return shipment

    def _fill(self, shipment: Shipment, lanes: list[Lane], now: float, runs: list[SessionLane]) -> bool:
        """Move what may go now from these lanes to the shipment, and its numbers to `runs`. False: it takes no more."""
        sessions = self._layout.sessions
        for lane in lanes:
            if lane.empty:
                if lane.group is not None:
                    lane.group.active.pop(lane, None)
                continue
            if lane.due_at > now or lane.not_before > now or (lane.apart and shipment.parts):
                continue
            if self._layout.frozen and not lane.in_doubt:
                continue
            # Who would be ready soon comes along: lanes of a group then keep in step, and fewer requests carry more.
            if lane.traffic.paced and self._ready_at(lane, now) > now + (QUANTUM_S / 2 if shipment.parts else 0.0):
                continue
            run = Run(lane.numbers) if sessions else None
            self._pick(lane, shipment, now, run)
            if lane.group is not None:
                del lane.group.active[lane]  # to the end of the line, or out of it
                if not lane.empty:
                    lane.group.active[lane] = None
            if run is not None and run.first >= 0 and lane.number is not None:
                runs.append(SessionLane(lane.number, run.epoch, run.first, run.end - run.first))
                if len(runs) == MAX_LANES:
                    return False
            if shipment.count >= self._max_records or shipment.weight >= self._max_bytes:
                return False
            if shipment.parts and (shipment.parts[-1][1].alone or shipment.parts[-1][0].apart):
                return False
        return True

    def _gathering_until(self, group: Group, more: bool = False) -> float:
        """Until when the few records of a group wait, for a request of ours that is out, or because of what `more`
        tells, so that the next takes more.

        A request costs as much as hundreds of records: at a few thousand a second nearly each would be one. And each
        lane in it costs as much as some: with a thousand partitions a request would have a record or two of each. What
        fills a request by its bytes waits for nothing.
        """
        wide = len(group.active) >= MANY_LANES and (more or len(self.in_flight) > 1)
        if not self.in_flight and not wide:
            return 0.0
        count = lanes = weight = 0
        oldest = math.inf
        for lane in (*group.active, self._layout.lanes.free):
            batch = lane.queue[0].batch if lane.queue else lane.open
            if batch is None:
                continue
            count += sum(map(len, lane.queue)) + (0 if lane.open is None else len(lane.open.rows))
            weight += sum([part.batch.weight for part in lane.queue]) + (0 if lane.open is None else lane.open.weight)
            if weight >= self._max_bytes or (count >= FEW_RECORDS and not wide):
                return 0.0
            lanes += 1
            oldest = min(oldest, batch.opened_at)
        if not count or count >= max(FEW_RECORDS, FEW_OF_A_LANE * lanes if wide else 0):
            return 0.0
        if wide and more and group.gathers_since is not None:
            return min(group.gathers_since + MORE_GATHER_S, oldest + self._patience_s)
        return oldest + (GATHER_S if count < FEW_RECORDS else WIDE_GATHER_S)

    def done(self, shipment: Shipment) -> None:
        """Its answer is in, or will not come."""
        for group in shipment.groups:
            group.busy = False
        self.in_flight.discard(shipment)

    def carrier(self, group: Group, now: float) -> Lane | None:
        """The lane of the group that could take records without a key along now, in a session."""
        first = self._layout.lanes.free.queue[0] if self._layout.lanes.free.queue else None
        return group.carrier(now, lambda lane: self._ready_at(lane, now, first))

    def _place_free(self, group: Group, now: float) -> None:
        """In a session: choose a lane of the group for a request's worth of records without a key."""
        free = self._layout.lanes.free
        if free.open is not None and free.open.due_at <= now:
            free.seal()
        if not free.queue or self._layout.frozen or (carrier := self.carrier(group, now)) is None:
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
            carrier.activate()

    def _pick(self, lane: Lane, shipment: Shipment, now: float, run: Run | None) -> None:
        """Move what may go now from the lane to the shipment; `run` numbers it."""
        if lane.open is not None and lane.open.due_at <= now:
            lane.seal()
        pacer = lane.traffic.pacer if lane.traffic.paced else None
        records, octets = (math.inf, math.inf) if pacer is None else pacer.allowance(now)
        one_per_key = self._strict and lane.number is not None
        expiring = now + self._ends.min_attempt_s
        while lane.queue:
            part = lane.queue[0]
            if part.batch.deadline <= expiring and self._ends.expire(part, now):
                lane.queue.popleft()
                continue
            if pacer is not None and (records < 1.0 or octets <= 0.0):
                return
            if not part.in_doubt:
                if self._layout.frozen:
                    return
                if one_per_key:
                    self._pick_one_per_key(lane, shipment, now, run, records, octets)
                    return
            rest: Part | None = None
            count, size = part.wire_count, 0 if pacer is None else part.payload
            if count > records or count > self._max_records or size > octets:
                part, rest = self._cut(part, records, octets)
                count, size = part.wire_count, part.payload
            weight = part.batch.weight if part.indices is None else part.weight
            if shipment.parts and (
                part.alone or shipment.count + count > self._max_records or shipment.weight + weight > self._max_bytes
            ):
                return
            if run is not None:
                if run.first >= 0 and not run.admits(part):
                    return
                run.add(part, count)
            lane.queue.popleft()
            shipment.add(lane, part, count, weight)
            if pacer is not None:
                pacer.sent(count, size)
                records, octets = records - count, octets - size
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
        passed = {part.batch.rows.keys[i] for theirs, part in shipment.parts if theirs is lane for i in part.each()}
        kept: deque[Part] = deque()
        scanned = 0
        while lane.queue and shipment.count < self._max_records and scanned < self._max_records:
            part = lane.queue[0]
            if part.alone and (shipment.parts or kept):
                break
            lane.queue.popleft()
            if self._ends.expire(part, now):
                continue
            mine: list[int] = []
            left: list[int] = []
            weight = 0
            rows = part.batch.rows
            for i in part.each():
                key, size = rows.keys[i], weight_at(rows, i)
                room = shipment.count + len(mine) < self._max_records and (
                    shipment.weight + weight + size <= self._max_bytes or not (mine or shipment.parts)
                )
                if (key in passed and key is not None) or not room or records < 1.0 or octets <= 0.0:
                    left.append(i)
                else:
                    mine.append(i)
                    weight += size
                    records -= 1
                    octets -= len(rows.payloads[i])
                if key is not None:
                    passed.add(key)
            scanned += len(part)
            if mine:
                taken = part if not left else part.rest(mine)
                taken.alone = part.alone
                if run is not None:
                    if not run.admits(taken):
                        kept.append(part)
                        break
                    run.add(taken, taken.wire_count)
                shipment.add(lane, taken, taken.wire_count, weight)
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
        if group.patient_until > now:
            return min(group.patient_until, now + LOOK_S)
        free, sessions = self._layout.lanes.free, self._layout.sessions
        times = [
            max(lane.not_before, lane.due_at, self.paused_until, self._ready_at(lane, now))
            for lane in (group.active if sessions else (*group.active, free))
            if not lane.empty and (lane.in_doubt or not self._layout.frozen)
        ]
        if sessions and not free.empty and not self._layout.frozen:
            first = free.queue[0] if free.queue else None
            able_at = group.carrier_at(lambda lane: self._ready_at(lane, now, first))
            if able_at is not None:
                times.append(max(able_at, free.due_at, self.paused_until))
        return max(min(times), self._gathering_until(group)) if times else None

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
