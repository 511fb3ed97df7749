"""The layout of the stream that records are routed by, and what hangs on it: lanes, numbers, trust. Pure.

It follows the stream: an answer that names another partition than predicted makes it `stale`, the shell reads the
stream anew, freezes it until nothing is in flight or doubt any more, and replaces it.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import ConfigError
from ..model import NewRecord, PartitionInfo
from ..wire.partitioning import partition_id
from .config import ProducerConfig
from .lanes import Lanes
from .numbers import Numbers
from .traffic import Book


class Layout:
    """The lanes there are now, and whether the service can be expected to place records as we do."""

    def __init__(self, config: ProducerConfig, partitions: Iterable[PartitionInfo], book: Book) -> None:
        self._max_groups = config.max_in_flight
        self._ordered = config.order != "none"
        self._wanted = self._ordered and config.sessions
        self._book = book
        self._numbers: dict[int, Numbers] = {}  # by partition, also of those that are gone: they may come back
        self._offered = False
        self.lanes = self._deal(partitions)
        self.frozen = False  # it is being changed: nothing is taken
        self.stale = False  # an answer named another partition than we expected
        self.trusted = True  # False: the service places keys differently; stop comparing

    def _deal(self, partitions: Iterable[PartitionInfo]) -> Lanes:
        lanes = Lanes(list(partitions), self._max_groups, self._numbers, ordered=self._ordered)
        for lane in lanes.all():
            lane.traffic = self._book.of(lane.number, len(lanes.ranges))
        return lanes

    def replace(self, partitions: Iterable[PartitionInfo]) -> Lanes | None:
        """Begin the layout of these; returns the lanes of the one before. None: it is the one we have.

        If an answer contradicted the layout although it is the right one, the service places keys by a rule of its
        own: lanes then only group keys, which is all that order needs, and places are not compared any more.
        """
        self.stale = False
        new = self._deal(partitions)
        if new.ranges == self.lanes.ranges:
            # In a session the service checks our predictions itself, and we may have looked too early.
            self.trusted = self.sessions
            return None
        old, self.lanes = self.lanes, new
        return old

    @property
    def sessions(self) -> bool:
        """Whether requests bear numbers: they are offered, wanted, and every record's partition can be predicted."""
        return self._offered and self.lanes.whole

    def offer(self, offered: bool) -> bool:
        """The endpoint says whether it understands sessions. True: it does not any more, and all numbers are void."""
        offered = offered and self._wanted
        ended = self._offered and not offered
        if ended:
            for numbers in self._numbers.values():
                numbers.renew()
        self._offered = offered
        return ended

    @property
    def in_doubt(self) -> bool:
        """Whether any lane has to find out what became of its last request, before its records may go elsewhere."""
        return any(lane.in_doubt for lane in self.lanes.all())

    def place_of(self, row: NewRecord) -> str:
        """The id of the partition that a record goes to; "" if that is for the service to choose."""
        try:
            number = self.lanes.of_row(row).number
        except ConfigError:  # it named a partition that is not written any more
            return row.partition_id or ""
        return "" if number is None else partition_id(number)
