"""What the core of a worker wants its shell to do. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..model import Partition, Record
from .parking import Parking, Suspension
from .queues import Item


class Dead:
    """A record whose letter is to be stored. `error` None: it did not fail, it follows."""

    __slots__ = ("at_ms", "attempts", "error", "item", "parked")

    def __init__(self, item: Item, error: BaseException | None, at_ms: int, parked: bool) -> None:
        self.item = item
        self.error = error
        self.attempts = item.attempts
        self.at_ms = at_ms
        self.parked = parked


class Suspended(NamedTuple):
    """A partition that was suspended just now. `error` None: too much waits for parked keys, or too many are."""

    partition: Partition
    suspension: Suspension
    error: BaseException | None


@dataclass(slots=True)
class Counts:
    """What became of records, and of calls."""

    # of records
    handled: int = 0
    retried: int = 0
    failed: int = 0  # given up
    followed: int = 0
    ignored: int = 0  # finished without a letter
    letters: int = 0  # stored
    skipped: int = 0  # sent back for another app
    # of calls
    raised: int = 0
    rejected: int = 0
    timed_out: int = 0
    cancelled: int = 0


class Outbox:
    def __init__(self) -> None:
        self.done: list[Record] = []
        """Finished."""
        self.letters: deque[Dead] = deque()
        """To be stored, in this order, and left here until they are."""
        self.pauses: dict[Partition, bool] = {}
        """Partitions to be paused (True), or not any more."""
        self.annotated: dict[Partition, Parking] = {}
        """Whose text is to be kept with the checkpoint from now on."""
        self.suspended: list[Suspended] = []
        """To be told loudly."""

    def next_letters(self, limit: int) -> list[Dead]:
        """Those of partitions that went away meanwhile are left out."""
        while self.letters and self.letters[0].item.state == "ended":
            self.letters.popleft()
        return [dead for dead, _ in zip(self.letters, range(limit), strict=False) if dead.item.state != "ended"]

    def without(self, letters: Sequence[Dead]) -> None:
        """These need not be stored any more."""
        gone = set(map(id, letters))
        self.letters = deque(dead for dead in self.letters if id(dead) not in gone)

    def take_done(self) -> list[Record]:
        """Each once."""
        done, self.done = self.done, []
        return done

    def take_pauses(self) -> dict[Partition, bool]:
        pauses, self.pauses = self.pauses, {}
        return pauses

    def take_annotated(self) -> list[tuple[Partition, str]]:
        annotated, self.annotated = self.annotated, {}
        return [(partition, parking.text()) for partition, parking in annotated.items()]

    def take_suspended(self) -> list[Suspended]:
        suspended, self.suspended = self.suspended, []
        return suspended
