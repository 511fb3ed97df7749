"""What a worker holds of one partition, and what of it must not be touched yet. Pure."""

from __future__ import annotations

from ..model import Partition
from .parking import Parking
from .queues import Item, Lane


class Held:
    """A partition: blocked for one reason or several, or not; some of its records may wait for parked keys."""

    __slots__ = (
        "blocks", "bytes", "came", "items", "lanes", "oldest_waiting", "parking", "partition", "paused", "running",
        "waiting", "waiting_bytes", "waiting_records",
    )  # fmt: skip

    def __init__(self, partition: Partition, parking: Parking) -> None:
        self.partition = partition
        self.parking = parking
        self.blocks: set[str] = set()
        self.lanes: list[Lane] = []  # that wait until it is not blocked any more
        self.came = 0  # records, ever
        self.items: dict[Item, None] = {}  # all that is held, in whatever state
        self.bytes = 0
        self.running = 0  # runs under way
        self.waiting: dict[str, list[Item]] = {}  # of parked keys
        self.waiting_records = 0
        self.waiting_bytes = 0
        self.oldest_waiting: Item | None = None
        self.paused = False

    @property
    def stands(self) -> bool:
        return bool(self.blocks or self.waiting)

    @property
    def standing_records(self) -> int:
        """How much of what is held stands until something else ends."""
        return len(self.items) if self.blocks else self.waiting_records

    @property
    def standing_bytes(self) -> int:
        return self.bytes if self.blocks else self.waiting_bytes

    @property
    def gap(self) -> int:
        """Records from the oldest that waits on."""
        return 0 if self.oldest_waiting is None else self.came - self.oldest_waiting.number

    def wait(self, key: str, item: Item) -> None:
        """Its key is parked: it waits until `go_on`."""
        item.state = "waiting"
        self.waiting.setdefault(key, []).append(item)
        self.waiting_records += 1
        self.waiting_bytes += len(item.record.data)
        if self.oldest_waiting is None or item.number < self.oldest_waiting.number:
            self.oldest_waiting = item

    def go_on(self, key: str) -> list[Item]:
        """The key is not parked any more: what waited, in order."""
        items = self.waiting.pop(key, [])
        if items:
            self.waiting_records -= len(items)
            self.waiting_bytes -= sum(len(item.record.data) for item in items)
            firsts = [waiting[0] for waiting in self.waiting.values()]
            self.oldest_waiting = min(firsts, key=lambda item: item.number, default=None)
        return items

    def check(self) -> None:
        """Assert every invariant."""
        self.parking.check()
        waiting = [item for items in self.waiting.values() for item in items]
        assert all(item.state == "waiting" for item in waiting)
        assert all(self.waiting.values())
        assert self.waiting_records == len(waiting)
        assert self.waiting_bytes == sum(len(item.record.data) for item in waiting)
        assert self.oldest_waiting is min(waiting, key=lambda item: item.number, default=None)
        assert self.bytes == sum(len(item.record.data) for item in self.items)
        assert all(item.held is self and item.state != "ended" for item in self.items)
        assert self.blocks or not self.lanes
        assert not self.blocks or self.paused
