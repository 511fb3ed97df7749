"""Queues of records of which one run at a time is handled, and whose turn it is. Pure.

    idle      nothing to start, or a run is under way: not in the ring
    ready     in the ring: when its turn comes it may start a run
    timed     it must not start yet (a pause, a batch that waits for more): in the ring again when its time has come
    blocked   set aside with a partition; `free` brings it back

Lanes take turns: one that started something goes to the back of the ring when it may start more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Literal

from ..model import Record

if TYPE_CHECKING:
    from .held import Held

State = Literal["queued", "running", "waiting", "lettered", "ended"]


class Item:
    """A record that is held."""

    __slots__ = ("alone", "attempts", "held", "number", "record", "state")

    def __init__(self, record: Record, held: Held, number: int) -> None:
        self.record = record
        self.held = held
        self.number = number  # of the records of its partition
        self.attempts = 0
        self.alone = False  # a batch with it failed: it is tried by itself
        self.state: State = "queued"


class Lane:
    """`items` may hold some that have ended: those of dropped partitions are passed by when their turn comes."""

    __slots__ = ("again", "blocked", "busy", "items", "name", "not_before", "pool", "ready", "since", "timer")

    def __init__(self, name: Hashable, pool: bool) -> None:
        self.name = name
        self.pool = pool
        self.items: deque[Item] = deque()
        self.busy = 0  # runs under way
        self.ready = False  # among those that may start something
        self.blocked = False  # set aside until a partition is unblocked
        self.again = 0  # so many from the front were a batch that failed, and are tried as that batch
        self.not_before = 0.0
        self.since = 0.0  # when the first item came
        self.timer: float | None = None


class Run:
    """A call of the handler."""

    __slots__ = ("began", "items", "lane", "partition")

    def __init__(self, lane: Lane, items: list[Item], began: float) -> None:
        self.lane = lane
        self.items = items
        self.began = began
        self.partition = items[0].held.partition

    @property
    def records(self) -> list[Record]:
        return [item.record for item in self.items]


class Ring:
    """The lanes that hold something, and which of them comes next."""

    def __init__(self) -> None:
        self._named: dict[Hashable, Lane] = {}
        self._ready: deque[Lane] = deque()
        self._timers: list[tuple[float, int, Lane]] = []
        self._timer_number = 0

    def lane(self, name: Hashable, *, pool: bool) -> Lane:
        found = self._named.get(name)
        if found is None:
            found = self._named[name] = Lane(name, pool)
        return found

    def look(self, lane: Lane) -> None:
        """It got something to start, or a run of it ended."""
        if lane.items:
            if not lane.ready and not lane.blocked and (lane.pool or not lane.busy):
                lane.ready = True
                self._ready.append(lane)
        elif not lane.busy and self._named.get(lane.name) is lane:
            del self._named[lane.name]
            lane.timer = None  # when it strikes, another lane may have the name

    def later(self, lane: Lane, when: float) -> None:
        if lane.timer is None or when < lane.timer:
            lane.timer = when
            self._timer_number += 1
            heappush(self._timers, (when, self._timer_number, lane))

    def ripen(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            when, _, lane = heappop(self._timers)
            if lane.timer == when:
                lane.timer = None
                self.look(lane)

    @property
    def next_look(self) -> float | None:
        """When a lane gets ready by itself."""
        return self._timers[0][0] if self._timers else None

    def pop(self) -> Lane | None:
        """The lane whose turn it is; `popped` ends its turn. Until then it gets into the ring by nothing."""
        return self._ready.popleft() if self._ready else None

    def popped(self, lane: Lane, *, started: bool) -> None:
        """`started`: it may have more to start. Else it is timed, blocked, or empty."""
        lane.ready = False
        if started or not lane.items:
            self.look(lane)

    def put_first(self, lane: Lane, items: Sequence[Item]) -> None:
        """These come before all others of the lane."""
        for item in items:
            item.state = "queued"
        lane.again = 0
        lane.items.extendleft(reversed(items))
        self.look(lane)

    def free(self, held: Held) -> None:
        """What was set aside with a partition takes its turns again."""
        lanes, held.lanes = held.lanes, []
        for lane in lanes:
            lane.blocked = False
            self.look(lane)

    def check(self, others: Sequence[Lane]) -> Iterator[Item]:
        """Assert every invariant; the items that are queued. `others`: lanes that are blocked, or have runs."""
        timed = {id(lane) for when, _, lane in self._timers if lane.timer == when}
        known = {id(lane): lane for lane in (*self._ready, *self._named.values(), *others)}
        known |= {id(lane): lane for when, _, lane in self._timers if lane.timer == when}
        ready = [id(lane) for lane in self._ready]
        assert len(ready) == len(set(ready))
        for lane in known.values():
            assert lane.pool or lane.busy <= 1
            assert lane.ready == (id(lane) in ready)
            assert lane.name is None or self._named.get(lane.name) in (lane, None)
            live = [item for item in lane.items if item.state != "ended"]
            if live and (lane.pool or not lane.busy):
                assert lane.ready or lane.blocked or id(lane) in timed, "a lane that nobody will ever look at"
            yield from live
