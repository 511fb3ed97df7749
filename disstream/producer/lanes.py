"""Lanes: where order is kept, and how a record finds its lane.

A lane is the queue of one partition; at most one request of a lane is in flight, so a lane's records are stored in
order. Lanes are dealt out to at most `max_in_flight` *groups*; a request takes lanes of one group only. (If any lane
could share a request with any other, lanes that shared one would finish and refill together, and concurrency fall to
one.)

Records without a key have no order to keep. They share the *free* lane, from which every group may take. In a session
(`numbers.py`) every record needs a partition that is known beforehand: a group sends free records along with one of its
own lanes, a batch with this lane, the next with that one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..errors import ApiError, ConfigError
from ..model import MAX_HASH_KEY, HashRange, NewRecord, PartitionInfo
from ..wire.partitioning import HashRouter, hash_key, partition_id, partition_number
from .numbers import Numbers
from .payload import checked_key
from .shipment import RECORD_OVERHEAD, Part
from .traffic import Traffic

if TYPE_CHECKING:
    from .outcome import Batch

KEY_CACHE_SIZE = 65_536
"""Keys whose lane is remembered: a hit costs a twentieth of the MD5. Full: forget all, so that memory stays bounded."""


class Group:
    """What one sending task serves."""

    __slots__ = ("active", "busy", "free_first", "gathers_since", "index", "lanes", "patient_until", "turn")

    def __init__(self, index: int) -> None:
        self.index = index
        self.busy = False  # a request is in flight
        self.free_first = False  # whose turn it is: the free lane's or our own lanes'
        self.active: dict[Lane, None] = {}  # our lanes that hold records, longest waiting first
        self.lanes: list[Lane] = []
        self.gathers_since: float | None = None  # since when it could send what its lanes hold, as far as known
        self.patient_until = 0.0  # it gathers, and is not asked again before, as long as more is being sent
        self.turn = 0  # which of them takes free records along next

    def carrier(self, now: float, ready_at: Callable[[Lane], float]) -> Lane | None:
        """The lane that may take free records along now, in turn: it neither backs off nor has to repeat anything, its
        pace lets it (`ready_at`), and preferably it has nothing to do."""
        able = None
        for i in range(len(self.lanes)):
            lane = self.lanes[(self.turn + i) % len(self.lanes)]
            if lane.not_before <= now and not lane.resending and ready_at(lane) <= now:
                if lane.empty:
                    return lane
                able = able or lane
        return able

    def carrier_at(self, ready_at: Callable[[Lane], float]) -> float | None:
        """When there may be a carrier; None: not before an answer comes, or something else that waits has gone."""
        return min([max(lane.not_before, ready_at(lane)) for lane in self.lanes if not lane.resending], default=None)


class Lane:
    """Records of one partition (or the free ones) that wait: sealed parts in order, behind them the open batch."""

    __slots__ = ("apart", "failures", "group", "not_before", "number", "numbers", "open", "queue", "traffic")

    def __init__(self, number: int | None, group: Group | None, numbers: Numbers | None = None) -> None:
        self.number = number
        self.group = group
        self.numbers = numbers or Numbers()
        if group is not None:
            group.lanes.append(self)
        self.open: Batch | None = None
        self.queue: deque[Part] = deque()
        self.failures = 0  # attempts that failed in a row
        self.not_before = 0.0  # back-off: nothing is taken until then
        self.apart = False  # shares no request: one that it shared was refused, and whose fault that was is not known
        self.traffic = Traffic(number, None)  # the partition's, which outlives the lane

    def seal(self) -> None:
        """Close the open batch, if any: it takes no more records and may go at once."""
        batch = self.open
        if batch is not None:
            count = len(batch.rows)
            if batch.packing is not None:
                batch.first = batch.packing.number(count)
            batch.traffic.held += batch.weight + count * RECORD_OVERHEAD
            batch.traffic.queued += count
            self.queue.append(Part(batch))
            self.open = None

    def activate(self) -> None:
        """Let the group know that something waits here."""
        if self.group is not None:
            self.group.active.setdefault(self)

    @property
    def empty(self) -> bool:
        return not self.queue and self.open is None

    @property
    def due_at(self) -> float:
        """When the first of what waits may go, back-off aside; only of a lane that is not empty."""
        return self.open.due_at if self.open is not None and not self.queue else 0.0

    @property
    def in_doubt(self) -> bool:
        """Whether the first of what waits is: what is in doubt is never behind anything else."""
        return bool(self.queue) and self.queue[0].in_doubt

    @property
    def resending(self) -> bool:
        """Whether the first of what waits was sent before, in a session."""
        return bool(self.queue) and self.queue[0].number >= 0

    def __repr__(self) -> str:
        return "the free lane" if self.number is None else f"lane {partition_id(self.number)}"


class Lanes:
    """The lanes of one layout of the stream."""

    def __init__(
        self, partitions: Sequence[PartitionInfo], max_groups: int, numbers: dict[int, Numbers], *, ordered: bool
    ) -> None:
        """`ordered=False`: everything goes to the free lane (order "none"). `numbers` outlive layouts."""
        writable = [p for p in partitions if p.writable]
        writable_numbers = [partition_number(p.partition_id) for p in writable]
        self.ranges: list[tuple[int, HashRange]] = [
            (n, p.hash_range) for n, p in zip(writable_numbers, writable, strict=True) if p.hash_range is not None
        ]
        self.groups = [Group(i) for i in range(max_groups)]
        self.free = Lane(None, None)
        self._ordered = ordered
        self._router = HashRouter(self.ranges)
        self._by_number = {
            n: Lane(n, self.groups[i % max_groups], numbers.setdefault(n, Numbers()))
            for i, n in enumerate(sorted(writable_numbers))
        }
        self.whole = self._covers_all()
        """Every key has a lane that can be predicted."""
        self.by_key: dict[str | None, Lane] = {}
        self._forget_keys()

    def _covers_all(self) -> bool:
        following = 0
        for low, high in sorted((r.low, r.high) for _, r in self.ranges):
            if low != following:
                return False
            following = high + 1
        return following == MAX_HASH_KEY + 1

    def _forget_keys(self) -> None:
        self.by_key.clear()
        self.by_key[None] = self.free

    def all(self) -> list[Lane]:
        return [*self._by_number.values(), self.free]

    def of_key(self, key: str) -> Lane:
        """The lane of a partition key, remembered for the next time. Raises ConfigError for what is no key."""
        lane = self._of_hash(hash_key(checked_key(key)))
        if len(self.by_key) >= KEY_CACHE_SIZE:
            self._forget_keys()
        self.by_key[key] = lane
        return lane

    def of_row(self, row: NewRecord) -> Lane:
        """The lane of any record, by the service's precedence: partition id, explicit hash key, key."""
        if row.partition_id is not None:
            try:
                lane = self._by_number.get(partition_number(row.partition_id))
            except ApiError:
                lane = None
            if lane is None:
                known = ", ".join(partition_id(n) for n in list(self._by_number)[:8])
                raise ConfigError(f"partition_id={row.partition_id!r}: the stream's writable partitions are {known}")
            return lane if self._ordered else self.free
        if row.explicit_hash_key is not None:
            return self._of_hash(int(row.explicit_hash_key))
        if row.key is None:
            return self.free
        return (self.by_key.get(row.key) if isinstance(row.key, str) else None) or self.of_key(row.key)

    def _of_hash(self, hashed: int) -> Lane:
        if not self._ordered:
            return self.free
        number = self._router.owner(hashed)
        return self.free if number is None else self._by_number[number]
