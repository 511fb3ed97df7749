"""The core of the producer: what goes into the next request, and what an answer means for each record.

Pure: knows neither clock nor network. The shell (`sending.py`) calls, in this order, for each group:

    add(lane, row, weight)             records enter a lane's open batch, which is sealed when full; or
    open(lane, row, weight, now)       start a new one
    picker.take(group, now)            what the group's next request carries; the group is busy until it is settled by
    answers.stored(shipment, body, now)    a 2xx answer, wholly or record by record
    answers.refused(shipment, error, now)  an error answer
    answers.lost(shipment, error, now)     no answer: maybe applied
    sweep(now)                         records whose time is up get their end

A record moves:  open batch -> part in its lane's queue -> shipment -> settled, or back to the *front* of the queue.

    Accumulator   batches in; what concerns all that waits: expiry, a new layout
      layout      the lanes there are, and whether requests bear numbers
      picker      takes from the lanes; knows what is in flight
      answers     settles what the picker took, or puts it back
      ends        counts ends, and gives room back; all of them report here

What can never happen: two shipments of a group at once, hence never two of a lane; a record behind a retried one of its
lane leaving before it; a record with two ends; an end "rejected" or "not stored" after an attempt that may have been
applied. `check()` asserts what can be asserted from the outside.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator

from ..errors import ConfigError
from ..model import NewRecord, PartitionInfo
from ..wire.columns import NewColumns
from .answers import Answers
from .config import ProducerConfig
from .ends import Ends
from .lanes import Lane
from .layout import Layout
from .outcome import Batch
from .pacing import Backoff
from .packing import Packing
from .picking import Picker
from .shipment import RECORD_OVERHEAD, Part, weight_at, weight_of
from .traffic import Book, PartitionStats, Traffic

SEAL_AFTER_S = 1.0
"""An open batch takes no more records after this: all records of a batch expire together, with its oldest."""


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
        self._max_rows = config.max_batch_rows
        self._max_bytes = config.max_batch_bytes
        self.layout = Layout(config, partitions, book or Book(None))
        self.ends = Ends(config, self.layout)
        self.picker = Picker(config, self.layout, self.ends, producer_id)
        self.answers = Answers(self.layout, self.ends, self.picker, backoff, ordered=config.order != "none")

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
            lane.seal()
        return batch

    def open(self, lane: Lane, row: NewRecord, weight: int, now: float) -> Batch:
        """Start a new batch in `lane` with this record."""
        lane.seal()
        batch = self._start(lane, now)
        batch.rows.append(row)
        batch.weight = weight
        if self._max_rows == 1:
            lane.seal()
        return batch

    def _start(self, lane: Lane, now: float, rows: NewColumns | None = None) -> Batch:
        config = self._config
        batch = Batch(now, now + config.linger_s, now + config.delivery_timeout_s, self.ends.ledger, lane.traffic)
        batch.packing = self._packing
        if rows is not None:
            batch.rows = rows
        lane.open = batch
        self.ends.live[batch] = None
        lane.activate()
        return batch

    def extend(self, lane: Lane, rows: NewColumns, weight: int, now: float) -> list[tuple[Batch, range]]:
        """Put many records into `lane`; `weight` is theirs together. Returns where they are, in order.

        `rows` are the batch's from then on.
        """
        if lane.open is None and len(rows) < self._max_rows and weight <= self._max_bytes:
            whole = self._start(lane, now, rows)
            whole.weight = weight
            return [(whole, range(len(rows)))]
        spans: list[tuple[Batch, range]] = []
        done = 0
        while done < len(rows):
            batch = lane.open
            if batch is None:
                batch = self._start(lane, now)
            first = len(batch.rows)
            if not done and first + len(rows) <= self._max_rows and batch.weight + weight <= self._max_bytes:
                batch.rows.extend(rows)
                batch.weight += weight
                done = len(rows)
            else:
                while done < len(rows) and len(batch.rows) < self._max_rows:
                    one = weight_at(rows, done)
                    if batch.rows and batch.weight + one > self._max_bytes:
                        break
                    batch.rows.append(rows[done])
                    batch.weight += one
                    done += 1
            if len(batch.rows) > first:
                spans.append((batch, range(first, len(batch.rows))))
            if done < len(rows) or len(batch.rows) >= self._max_rows:
                lane.seal()
        return spans

    def hurry(self, now: float) -> None:
        """Let every open batch go as soon as its lane is idle, whatever the linger."""
        for lane in self.layout.lanes.all():
            if lane.open is not None:
                lane.open.due_at = min(lane.open.due_at, now)

    # --- all that waits -------------------------------------------------------------------------------------------

    def offer(self, offered: bool) -> None:
        """The endpoint says whether it understands sessions. One that stops can settle no doubt any more."""
        if self.layout.offer(offered):
            for part in self._parts():
                part.unnumber()

    def _parts(self) -> Iterator[Part]:
        """All that is sealed and has no end."""
        for lane in self.layout.lanes.all():
            yield from lane.queue
        for shipment in self.picker.in_flight:
            for _, part in shipment.parts:
                yield part

    def sweep(self, now: float) -> float | None:
        """End what is overdue; the instant when to look again (None: nothing waits)."""
        flying = {lane for shipment in self.picker.in_flight for lane, _ in shipment.parts if lane.number is not None}
        for lane in self.layout.lanes.all():
            batch = lane.open
            if batch is not None and (
                now - batch.opened_at >= SEAL_AFTER_S or batch.deadline - now <= self.ends.min_attempt_s
            ):
                lane.seal()
            if lane.queue:
                # A lane's records end in order: behind a request that is out they wait for it, until it is cut off too.
                at = now - 3 * self.ends.min_attempt_s if lane in flying else now
                lane.queue = deque(part for part in lane.queue if not self.ends.expire(part, at))
        if not self.ends.live:
            return None
        soonest = min(batch.deadline for batch in self.ends.live) - self.ends.min_attempt_s
        # What is in flight is overdue for a moment until its attempt has timed out: no reason to spin.
        return min(now + SEAL_AFTER_S, max(soonest, now + self.ends.min_attempt_s))

    def abandon(self, detail: str) -> None:
        """Give every record that has no end its end, now. What is in flight is unknown."""
        for shipment in list(self.picker.in_flight):
            for _, part in shipment.parts:
                part.maybe_applied = True
                self.ends.give_up(part, "closed", detail)
            self.picker.done(shipment)
        for lane in self.layout.lanes.all():
            lane.seal()
            while lane.queue:
                self.ends.give_up(lane.queue.popleft(), "closed", detail)

    def relayout(self, partitions: Iterable[PartitionInfo]) -> bool:
        """Route what waits over a new layout, in order; nothing may be in flight or doubt. False: no change."""
        assert not self.picker.in_flight, "old lanes are settled before new ones open"
        assert not self.layout.in_doubt
        old = self.layout.replace(partitions)
        if old is None:
            return False
        for lane in old.all():
            lane.seal()
            for part in lane.queue:
                self._reroute(part)
        return True

    def _reroute(self, part: Part) -> None:
        part.placed = None
        part.unnumber()
        by_lane: dict[Lane, list[int]] = {}
        for i in part.each():
            try:
                lane = self.layout.lanes.of_row(part.batch.rows[i])
            except ConfigError as exc:  # it named a partition that is not written any more
                self.ends.refuse(part, i, "DIS.4319", str(exc))
            else:
                by_lane.setdefault(lane, []).append(i)
        for lane, indices in by_lane.items():
            whole = part.indices is None and len(indices) == len(part.batch.rows)
            lane.queue.append(part if whole else part.rest(indices))
            lane.activate()
        if part.batch.ends is not None:
            self.ends.wake(part)

    # --- looking --------------------------------------------------------------------------------------------------

    @property
    def drained(self) -> bool:
        return not self.ends.live

    @property
    def waiting(self) -> int:
        """Records that were accepted and have no end yet."""
        return sum(len(b.rows) - len(b.ends or ()) for b in self.ends.live)

    def partitions(self, now: float) -> tuple[PartitionStats, ...]:
        """Each partition's traffic, and that of records that may go to any, if there was such."""
        told = []
        for lane in self.layout.lanes.all():
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
        for batch in self.ends.live:
            waiting = [row for i, row in enumerate(batch.rows) if i not in (batch.ends or ())]
            held[batch.traffic] += sum(weight_of(row) + RECORD_OVERHEAD for row in waiting)
        for lane in self.layout.lanes.all():
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
                assert not part.batch.has_end(i), "a settled record waits"
                mine.add(i)

        for lane in self.layout.lanes.all():
            for part in lane.queue:
                claim(part)
            if lane.open is not None:
                claim(Part(lane.open))
            if lane.group is not None:
                assert lane.empty or lane in lane.group.active, f"{lane!r} waits but its group does not know"
            self._check_numbers(lane)
        groups = [group for shipment in self.picker.in_flight for group in shipment.groups]
        assert len(groups) == len(set(groups)), "two shipments of one group"
        for shipment in self.picker.in_flight:
            assert all(group.busy for group in shipment.groups)
            assert shipment.records == sum(len(part) for _, part in shipment.parts)
            assert shipment.count == sum(part.wire_count for _, part in shipment.parts)
            assert shipment.count <= self._config.max_batch_records
            for lane, part in shipment.parts:
                claim(part)
                assert part.placed in (None, lane.number)
            if (session := shipment.session) is not None:
                assert session.records == sum(part.wire_count for _, part in shipment.parts)
        assert set(seen) <= set(self.ends.live), "a batch waits that is not live"
        for batch in self.ends.live:
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
