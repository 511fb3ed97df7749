"""Which record is handled next, and what becomes of it. Pure.

A *lane* is a queue of records of which one *run* (a record, or a batch) is handled at a time: a key of a stream, or a
partition. Records that need no order share a *pool*, a lane of which any number of runs may be under way.

    queued    -> running     its turn came: lanes that can start something do so one after the other
              -> following   its key is parked: to the dead letters, without being tried
              -> waiting     its key is parked, and parked="wait": until the key is unparked
    running   -> finished    the handler returned
              -> queued      it failed and is tried again: at the front of its lane, after a pause; or it was cancelled
              -> lettered    it failed for good; its letter is to be stored
              -> suspended   it failed for good, and its partition stops: at the front of its lane, until `resume`
    following, lettered -> finished     when the letter is stored, and not before

A batch that failed for good is tried again record by record, so that only the one that fails is given up.
What is finished is told once (`outbox.py`); what is dropped with its partition is told to nobody: others read it again.

A partition is *blocked* for one reason or several (suspended, to be given up): nothing of it starts then. Of the room
for records each partition has a share: beyond it, it is to be paused, so that no partition fills the room.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Literal

from ..model import Partition, Record
from .config import WorkerConfig
from .held import Held
from .letters import error_text
from .outbox import Counts, Dead, Outbox, Suspended
from .parking import Fate, Parking
from .queues import Item, Lane, Ring, Run

Outcome = Literal["returned", "raised", "rejected", "timed_out", "cancelled"]

SUSPENDED = "suspended"
"""Why a partition is blocked that needs somebody to resume it."""

TOO_MANY = "too many keys are parked: send letters back (disstream deadletter redrive), then resume"
LAST = "a change of partitions waits for records of parked keys: resume"
TOO_MUCH = "too many records wait for parked keys: resume, or send letters back earlier"


class Lanes:
    """All that a worker holds. `wall_ms`: the time that suspensions and letters tell."""

    def __init__(self, config: WorkerConfig, rng: Random, wall_ms: Callable[[], int]) -> None:
        self._config = config
        self._rng = rng
        self._wall_ms = wall_ms
        self._batch = config.batch_records
        self._parks = config.failing == "park" and config.order != "none"
        self._ring = Ring()
        self._standing: dict[Partition, Held] = {}  # those that are blocked, or of which some waits
        self.partitions: dict[Partition, Held] = {}
        self.runs: dict[Run, None] = {}  # under way, the oldest first
        self.records = 0
        self.bytes = 0
        self.out = Outbox()
        self.counts = Counts()
        self.halted = False
        """Nothing starts any more."""

    # --- partitions -----------------------------------------------------------------------------------------------

    def hold(self, partition: Partition, parking: Parking) -> None:
        """Records of this partition may come."""
        assert partition not in self.partitions
        self.partitions[partition] = Held(partition, parking)
        if parking.suspension is not None:
            self.block(partition, SUSPENDED)
        for held in self.partitions.values():  # their shares are smaller now
            if held.items:
                self._look_at_share(held)

    def drop(self, partition: Partition) -> list[Run]:
        """It is another's: what was held of it is forgotten. Returns its runs under way, which are to be ended."""
        held = self.partitions.pop(partition)
        self._standing.pop(partition, None)
        for item in [*held.items]:
            self._end(item)
        self._ring.free(held)
        self.out.pauses.pop(partition, None)
        self.out.annotated.pop(partition, None)
        return [run for run in self.runs if run.items[0].held is held]

    def block(self, partition: Partition, why: str) -> None:
        """Nothing of it starts until `unblock`."""
        held = self.partitions[partition]
        held.blocks.add(why)
        self._standing[partition] = held
        self._look_at_share(held)

    def unblock(self, partition: Partition, why: str) -> None:
        held = self.partitions[partition]
        held.blocks.discard(why)
        if not held.blocks:
            self._ring.free(held)
        self._moves(held)

    def _moves(self, held: Held) -> None:
        """Less of it stands than before."""
        if not held.stands:
            self._standing.pop(held.partition, None)
        self._look_at_share(held)

    def in_work(self, partition: Partition) -> bool:
        """Whether some of it is in the hands of a handler, or of who stores letters."""
        held = self.partitions.get(partition)
        return held is not None and (held.running > 0 or any(item.state == "lettered" for item in held.items))

    def resume(self, partition: Partition) -> None:
        """A suspended partition goes on where it stopped. Nothing of it is parked any more.

        A partition may be suspended because too much is parked, so that nothing could ever be sent back to it.
        """
        held = self.partitions[partition]
        held.parking.resume()
        held.parking.unpark_all()
        self.out.annotated[partition] = held.parking
        for key in [*held.waiting]:
            self._go_on(held, key)
        self.unblock(partition, SUSPENDED)

    def _suspend(self, item: Item, told: str, error: BaseException | None) -> None:
        held, record = item.held, item.record
        held.parking.suspend(record.sequence_number, record.index, told, self._wall_ms())
        assert held.parking.suspension is not None
        self.out.annotated[held.partition] = held.parking
        self.out.suspended.append(Suspended(held.partition, held.parking.suspension, error))
        self.block(held.partition, SUSPENDED)

    # --- room -----------------------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """How many records may come; what stands does not count, or one standing partition would stop the others."""
        records, used = self.records, self.bytes
        for held in self._standing.values():
            records -= held.standing_records
            used -= held.standing_bytes
        return self._config.room_records - records if used < self._config.queue_bytes else 0

    @property
    def _share(self) -> tuple[int, int]:
        """Records and bytes that each partition may hold."""
        count = max(len(self.partitions), 1)
        return max(self._config.room_records // count, 1), self._config.queue_bytes // count

    def _look_at_share(self, held: Held) -> None:
        """Pause it if it is blocked, or holds more than its share; then until it holds half of that."""
        records, size = self._share
        part = 2 if held.paused else 1
        moving, moving_bytes = len(held.items) - held.waiting_records, held.bytes - held.waiting_bytes
        over = moving > records // part or moving_bytes > size // part
        # One alone is stopped by the room. It would be by its share just as well, but for two more calls each time.
        paused = bool(held.blocks) or (over and len(self.partitions) > 1)
        if paused != held.paused:
            held.paused = paused
            self.out.pauses[held.partition] = paused

    # --- records --------------------------------------------------------------------------------------------------

    def offer(self, records: Sequence[Record], now: float) -> None:
        """These came, in order of their partition. Those of a partition that is not held are passed by."""
        held: Held | None = None
        for record in records:
            if held is None or (record.stream, record.partition_id) != held.partition:
                if held is not None:
                    self._look_at_share(held)
                held = self.partitions.get(record.partition)
                if held is None:
                    continue
            item = Item(record, held, held.came)
            held.came += 1
            held.items[item] = None
            held.bytes += len(record.data)
            self.records += 1
            self.bytes += len(record.data)
            lane = self._lane_of(record)
            if not lane.items:
                lane.since = now
            lane.items.append(item)
            self._ring.look(lane)
        if held is not None:
            self._look_at_share(held)
        for standing in [*self._standing.values()]:
            self.look_at_waiting(standing)

    def _lane_of(self, record: Record) -> Lane:
        order = self._config.order
        if order == "key" and record.key is not None:
            # Not of a partition: after a change of the layout the key's records come from another one.
            return self._ring.lane((record.stream, record.key), pool=False)
        return self._ring.lane(record.partition, pool=order != "partition")

    def take(self, now: float) -> Run | None:
        """What is to be handled now; None: nothing, or `concurrency` is used up. Look at `out` then."""
        self._ring.ripen(now)
        if self.halted or len(self.runs) >= self._config.concurrency:
            return None
        while (lane := self._ring.pop()) is not None:
            run = self._form(lane, now)
            self._ring.popped(lane, started=run is not None)
            if run is not None:
                return run
        return None

    @property
    def next_look(self) -> float | None:
        """When `take` may find something that it would not find now, without a record coming or a run ending."""
        return self._ring.next_look

    def _form(self, lane: Lane, now: float) -> Run | None:
        items = lane.items
        while items:
            head = items[0]
            held = head.held
            if head.state == "ended":
                items.popleft()
                lane.again = 0
            elif held.blocks:
                lane.blocked = True
                held.lanes.append(lane)
                return None
            elif lane.not_before > now:
                self._ring.later(lane, lane.not_before)
                return None
            elif (fate := self._fate(head)) is Fate.HANDLE:
                break
            else:
                items.popleft()
                lane.again = 0
                if fate is Fate.SKIP:
                    self.counts.skipped += 1
                    self._handled(head)
                elif not self._follow(head):
                    self._ring.put_first(lane, [head])
        if not items:
            return None
        count = self._batch_of(lane, held)
        if count < self._batch and not lane.again and not head.alone and lane.since + self._config.batch_linger_s > now:
            self._ring.later(lane, lane.since + self._config.batch_linger_s)
            return None
        lane.again = 0
        run = Run(lane, [items.popleft() for _ in range(count)], now)
        for item in run.items:
            item.state = "running"
        self.runs[run] = None
        held.running += 1
        lane.busy += 1
        return run

    def _batch_of(self, lane: Lane, held: Held) -> int:
        """How many from the front go together."""
        if lane.again or self._batch == 1 or lane.items[0].alone:
            return lane.again or 1
        count = 0
        for item in lane.items:
            if count == self._batch or item.held is not held or item.state == "ended" or item.alone:
                break
            if count and self._fate(item) is not Fate.HANDLE:
                break
            count += 1
        return count

    def _fate(self, item: Item) -> Fate:
        record, parking = item.record, item.held.parking
        if record.headers is None and not parking.parked_keys:
            return Fate.HANDLE
        return parking.fate(self._config.app, record.partition_id, record.key, record.headers)

    def _follow(self, item: Item) -> bool:
        """A record whose turn came and whose key is parked. False: its partition is suspended now."""
        held, key = item.held, item.record.key
        assert key is not None
        if self._config.parked == "wait":
            held.wait(key, item)
            self._standing[held.partition] = held
            self.look_at_waiting(held)
            return True
        if not held.parking.park(self._config.app, item.record):
            self._suspend(item, TOO_MANY, None)
            return False
        self.counts.followed += 1
        self._letter(item, None)
        return True

    def look_at_waiting(self, held: Held, *, last: bool = False) -> None:
        """Suspend it if nothing sent back would ever arrive. `last`: a change of the layout comes behind what waits."""
        if held.oldest_waiting is None or held.blocks:
            return
        records, size = self._share
        if last or held.gap >= self._config.max_gap or held.waiting_records >= records or held.waiting_bytes >= size:
            self._suspend(held.oldest_waiting, LAST if last else TOO_MUCH, None)

    def _go_on(self, held: Held, key: str) -> None:
        """A key is not parked any more."""
        if waiting := held.go_on(key):
            self._ring.put_first(self._lane_of(waiting[0].record), waiting)
        self._moves(held)

    # --- what became of it ----------------------------------------------------------------------------------------

    def settle(self, run: Run, outcome: Outcome, error: BaseException | None, now: float) -> None:
        """A run ended. `error`: what it raised."""
        if outcome != "returned":
            setattr(self.counts, outcome, getattr(self.counts, outcome) + 1)
        if outcome == "cancelled" or run.items[0].state == "ended":
            return self.put_back(run)
        self._ended_run(run)
        if outcome == "returned":
            self.counts.handled += len(run.items)
            for item in run.items:
                self._handled(item)
        else:
            assert error is not None
            self._failed(run, outcome == "rejected", error, now)
        self._ring.look(run.lane)

    def _ended_run(self, run: Run) -> None:
        del self.runs[run]
        run.items[0].held.running -= 1
        run.lane.busy -= 1

    def put_back(self, run: Run) -> None:
        """As if it had not been taken; what was dropped meanwhile is left out."""
        self._ended_run(run)
        self._ring.put_first(run.lane, [item for item in run.items if item.state != "ended"])

    def _handled(self, item: Item) -> None:
        self._finish(item)
        held, record = item.held, item.record
        if record.headers is not None and record.key is not None:
            parking = held.parking
            if parking.handled(self._config.app, record.partition_id, record.key, record.headers):
                self.out.annotated[held.partition] = held.parking
                if not parking.is_parked(record.key):
                    self._go_on(held, record.key)

    def _failed(self, run: Run, rejected: bool, error: BaseException, now: float) -> None:
        items, lane = run.items, run.lane
        for item in items:
            item.attempts += 1
        attempts = max(item.attempts for item in items)
        if not rejected and attempts < self._config.attempts:
            self.counts.retried += len(items)
            self._again(lane, items, now + self._pause(attempts))
        elif len(items) > 1:
            self.counts.retried += len(items)
            for item in items:
                item.alone, item.attempts = True, 0
            self._ring.put_first(self._lane_for_retries(lane), items)
        else:
            self._give_up(lane, items[0], error)

    def _pause(self, attempts: int) -> float:
        longest = min(self._config.retry_base_s * 2.0 ** min(attempts - 1, 60), self._config.retry_max_s)
        return longest * self._rng.uniform(0.5, 1.0)

    def _again(self, lane: Lane, items: list[Item], not_before: float) -> None:
        lane = self._lane_for_retries(lane)
        lane.not_before = not_before
        self._ring.put_first(lane, items)
        lane.again = len(items)

    def _lane_for_retries(self, lane: Lane) -> Lane:
        """Others of a pool do not wait for what is tried again."""
        return Lane(None, pool=False) if lane.pool else lane

    def _give_up(self, lane: Lane, item: Item, error: BaseException) -> None:
        self.counts.failed += 1
        key, parking = item.record.key, item.held.parking
        if self._config.failing == "suspend":
            told = f"{type(error).__name__}: {error_text(error)}"
        elif self._config.dead_letters is None:
            self.counts.ignored += 1
            return self._finish(item)
        elif not self._parks or key is None or parking.park(self._config.app, item.record):
            return self._letter(item, error)
        else:
            told = TOO_MANY
        item.attempts = 0
        self._ring.put_first(self._lane_for_retries(lane), [item])
        self._suspend(item, told, error)

    # --- letters --------------------------------------------------------------------------------------------------

    def _letter(self, item: Item, error: BaseException | None) -> None:
        item.state = "lettered"
        parked = item.held.parking.is_parked(item.record.key)
        self.out.annotated[item.held.partition] = item.held.parking
        self.out.letters.append(Dead(item, error, self._wall_ms(), parked))

    def lettered(self, stored: Sequence[Dead]) -> None:
        """These are stored, so that their records are finished."""
        self.out.without(stored)
        for dead in stored:
            self.counts.letters += 1
            self._finish(dead.item)

    def unwritable(self, dead: Dead, error: BaseException) -> None:
        """No letter can hold this record: its partition is suspended."""
        self.out.without([dead])
        item = dead.item
        if item.state != "ended":
            item.attempts = 0
            self._ring.put_first(self._lane_of(item.record), [item])
            self._suspend(item, error_text(error), error)

    def _finish(self, item: Item) -> None:
        if item.state != "ended":
            self.out.done.append(item.record)
            self._end(item)
            if item.held.paused:
                self._look_at_share(item.held)

    def _end(self, item: Item) -> None:
        item.state = "ended"
        held = item.held
        del held.items[item]
        held.bytes -= len(item.record.data)
        self.records -= 1
        self.bytes -= len(item.record.data)

    def check(self) -> None:
        """Assert every invariant."""
        config = self._config
        assert len(self.runs) <= config.concurrency
        assert self.records == sum(len(held.items) for held in self.partitions.values())
        assert self.bytes == sum(held.bytes for held in self.partitions.values())
        for partition, held in self.partitions.items():
            held.check()
            assert held.partition == partition
            assert held.running == sum(run.items[0].held is held for run in self.runs)
            assert (held.parking.suspension is not None) == (SUSPENDED in held.blocks)
            assert (partition in self._standing) == held.stands
        blocked = [lane for held in self.partitions.values() for lane in held.lanes]
        assert all(lane.blocked for lane in blocked)
        queued = list(self._ring.check([*blocked, *(run.lane for run in self.runs)]))
        running = [item for run in self.runs for item in run.items if item.state != "ended"]
        lettered = [dead.item for dead in self.out.letters if dead.item.state != "ended"]
        waiting = [i for held in self.partitions.values() for items in held.waiting.values() for i in items]
        assert all(item.state == "queued" for item in queued)
        assert all(item.state == "running" for item in running)
        assert all(item.state == "lettered" for item in lettered)
        everything = [*queued, *running, *lettered, *waiting]
        assert len(everything) == len(set(everything)) == self.records, "a record is lost, or held twice"
