"""What became of the records of one partition: handed out, finished, committed.

    committed <= finished <= handed        as sequence numbers of the next record each; None while no number is known

Everything below `finished` is finished, so `finished` is what a checkpoint may say. Who finishes:

    next        asking for the next records finishes all that were handed out before; `done` may finish some earlier
    explicit    only `done` does, record by record, in any order: `finished` is the first number that still is open

A seek forgets all of it and goes on at the new place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Literal

Finish = Literal["next", "explicit"]


class Progress:
    """Of one partition, as far as this consumer brought it."""

    __slots__ = ("_explicit", "_open", "began", "committed", "finished", "handed")

    def __init__(self, finish: Finish, at: int | None = None, committed: int | None = None) -> None:
        """`at`: where reading begins, if it is known; `committed`: what the service already keeps."""
        self._explicit = finish == "explicit"
        # explicit: those handed out, from the first one that is not finished; whether each is
        self._open: OrderedDict[int, bool] = OrderedDict()
        self.committed = committed
        self.began = at  # where reading began: up to there nothing was read by us
        self.finished = at
        self.handed = at

    def begin(self, sequence: int) -> None:
        """The place is known now: the first record will be this one."""
        if self.finished is None:
            self.began = self.finished = self.handed = sequence

    def seek(self, at: int | None) -> None:
        """Reading goes on at `at`; None: at a place only the service knows yet."""
        self._open.clear()
        self.began = self.finished = self.handed = at

    # --- handing out ---

    def hand_out(self, following: int, sequences: Iterable[int]) -> None:
        """Records were handed out; `following` comes next. `sequences`: their numbers, looked at if explicit.

        The place must be known: `begin` first.
        """
        self.handed = following
        if self._explicit:
            for sequence in sequences:
                self._open[sequence] = False

    def take_back(self, following: int) -> None:
        """Of what was handed out last, the records from `following` on never reached anybody."""
        self.handed = following
        while self._open and next(reversed(self._open)) >= following:
            self._open.popitem()

    # --- finishing ---

    def finish_below(self, sequence: int) -> None:
        """Whoever took the records asked for what comes behind: those below `sequence` are finished."""
        if not self._explicit and self.finished is not None and self.handed is not None:
            self.finished = max(self.finished, min(sequence, self.handed))

    def finish_handed(self) -> None:
        """Whoever took the records asked for the next."""
        if not self._explicit:
            self.finished = self.handed

    def done(self, sequence: int) -> None:
        """This record is finished; without `explicit` so are those handed out before it."""
        if not self._explicit:
            self.finish_below(sequence + 1)
            return
        if sequence not in self._open:
            return  # of before a seek, or told twice
        self._open[sequence] = True
        while self._open and self._open[first := next(iter(self._open))]:
            del self._open[first]
        self.finished = next(iter(self._open), self.handed)

    # --- asking ---

    @property
    def unfinished(self) -> bool:
        """Whether records were handed out that are not finished."""
        return bool(self._open) if self._explicit else self.handed != self.finished

    @property
    def outstanding(self) -> int:
        """explicit: records handed out from the first unfinished one on, finished or not."""
        return len(self._open)

    @property
    def due(self) -> int | None:
        """What a checkpoint should say and does not; None: nothing to commit."""
        return self.finished if self.finished != self.committed else None

    @property
    def read(self) -> bool:
        """Whether the record before `finished` was read by this consumer."""
        return self.finished is not None and self.began is not None and self.finished > self.began

    def check(self) -> None:
        """Assert every invariant."""
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
