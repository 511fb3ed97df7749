"""What became of the records of one partition: handed out, finished, committed.

    committed <= finished <= handed        the places of the next record each; None while no number is known

A *place* is a sequence number and, for records that came out of one envelope and share it, which of them, as one
number: places of records ascend as they are handed out. Everything below `finished` is finished, so a checkpoint may
say its sequence number: it passes an envelope when the last record of it is finished. Who finishes:

    next        asking for the next records finishes all that were handed out before; `done` may finish some earlier
    explicit    only `done` does, record by record, in any order: `finished` is the first number that still is open

A seek forgets all of it and goes on at the new place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Literal

from ..model import Record
from ..wire.annotations import Note
from ..wire.envelope import MAX_RECORDS

Finish = Literal["next", "explicit"]

INDEX_BITS = MAX_RECORDS.bit_length()


def first_place(sequence: int) -> int:
    """Of the first record with this sequence number."""
    return sequence << INDEX_BITS


def place_of(record: Record) -> int:
    return record.sequence_number << INDEX_BITS | record.index


def place_behind(record: Record) -> int:
    """Of the record that follows."""
    if record.index + 1 < record.count:
        return place_of(record) + 1
    return record.sequence_number + 1 << INDEX_BITS


class Progress:
    """Of one partition, as far as this consumer brought it."""

    __slots__ = (
        "_aside",
        "_explicit",
        "_left",
        "_open",
        "began",
        "committed",
        "committed_at",
        "finished",
        "handed",
        "handed_ms",
        "kept_note",
        "note",
    )

    def __init__(self, finish: Finish, at: int | None = None, committed: int | None = None) -> None:
        """`at`: the place where reading begins, if it is known; `committed`: the number that the service keeps."""
        self._explicit = finish == "explicit"
        # explicit: those handed out, from the first one that is not finished; whether each is
        self._open: OrderedDict[int, bool] = OrderedDict()
        self._left = 0  # of them, how many are not finished
        self._aside: set[int] = set()  # of those, the ones that a hand-over is not to wait for
        self.committed = committed  # a sequence number, unlike the others
        self.committed_at: float | None = None  # by `clock.boot`, and by us
        self.handed_ms: int | None = None  # the timestamp of the record handed out last
        self.began = at  # where reading began: up to there nothing was read by us
        self.finished = at
        self.handed = at
        self.note = self.kept_note = Note()  # what the next checkpoint says beside its number; what the last one does

    def noted(self, note: Note) -> None:
        """The checkpoint found says this beside its number."""
        self.note = self.kept_note = note

    def begin(self, first: int) -> None:
        """The place is known now: that of the first record."""
        if self.finished is None:
            self.began = self.finished = self.handed = first

    def seek(self, at: int | None) -> None:
        """Reading goes on at `at`; None: at a place only the service knows yet."""
        self._open.clear()
        self._left = 0
        self._aside.clear()
        self.began = self.finished = self.handed = at

    # --- handing out ---

    def hand_out(self, following: int, places: Iterable[int]) -> None:
        """Records were handed out; `following` comes next. `places`: theirs, looked at if explicit.

        The place must be known: `begin` first.
        """
        self.handed = following
        if self._explicit:
            for one in places:
                self._open[one] = False
                self._left += 1

    def take_back(self, following: int) -> None:
        """Of what was handed out last, the records from `following` on never reached anybody."""
        self.handed = following
        while self._open and next(reversed(self._open)) >= following:
            one, done = self._open.popitem()
            self._left -= not done
            self._aside.discard(one)

    # --- finishing ---

    def finish_below(self, following: int) -> None:
        """Whoever took the records asked for what comes behind: those below `following` are finished."""
        if not self._explicit and self.finished is not None and self.handed is not None:
            self.finished = max(self.finished, min(following, self.handed))

    def finish_handed(self) -> None:
        """Whoever took the records asked for the next."""
        if not self._explicit:
            self.finished = self.handed

    def done(self, record: Record) -> None:
        """This record is finished; without `explicit` so are those handed out before it."""
        if not self._explicit:
            self.finish_below(place_behind(record))
            return
        one = place_of(record)
        if self._open.get(one, True):
            return  # of before a seek, or told twice
        self._open[one] = True
        self._left -= 1
        self._aside.discard(one)
        while self._open and self._open[first := next(iter(self._open))]:
            del self._open[first]
        self.finished = next(iter(self._open), self.handed)

    def set_aside(self, record: Record) -> None:
        """explicit: a hand-over need not wait for this record. It may still be finished."""
        if self.owes(record):
            self._aside.add(place_of(record))

    def hand_over_ended(self) -> None:
        """The next one waits for everything again."""
        self._aside.clear()

    # --- asking ---

    @property
    def unfinished(self) -> bool:
        """Whether records were handed out that are not finished, nor set aside."""
        return self._left > len(self._aside) if self._explicit else self.handed != self.finished

    @property
    def owing(self) -> bool:
        """Whether records were handed out that are not finished, set aside or not."""
        return self._left > 0 if self._explicit else self.handed != self.finished

    def owes(self, record: Record) -> bool:
        """explicit: whether this record was handed out, since the last seek, and is not finished."""
        return not self._open.get(place_of(record), True)

    @property
    def outstanding(self) -> int:
        """explicit: records handed out from the first unfinished one on, finished or not."""
        return len(self._open)

    @property
    def due(self) -> int | None:
        """The sequence number of a checkpoint that is to be written; None: the one there is says all of it."""
        number = self.committed if self.finished is None else self.finished >> INDEX_BITS
        return number if number != self.committed or self.note != self.kept_note else None

    @property
    def uncommitted(self) -> bool:
        """Whether records were handed out, finished or not, that no checkpoint covers."""
        return self.handed is not None and (self.committed is None or self.handed != first_place(self.committed))

    @property
    def read(self) -> bool:
        """Whether the record before what is `due` was read by this consumer."""
        if self.finished is None or self.began is None:
            return False
        return self.finished >> INDEX_BITS > self.began >> INDEX_BITS

    def check(self) -> None:
        """Assert every invariant."""
        assert self._left == sum(not done for done in self._open.values())
        assert all(self._open.get(one) is False for one in self._aside)
        if self.finished is None:
            assert not self._open
            return
        assert self.handed is not None
        assert self.began is not None
        assert self.began <= self.finished <= self.handed
        if self._open:
            first = next(iter(self._open))
            assert self.finished <= first
            assert not self._open[first]
        assert list(self._open) == sorted(self._open)
