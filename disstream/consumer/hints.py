"""How long a reader may sleep, by what notices say of its partition.

    polling   no notices: an idle reader asks again and again, after a pause that doubles (cursor.py)
    told      notices are live, and say where the partition ends: a reader that stands there asks again when they say
              that there is more, or at the safety poll
    doubted   they said that there is more and there was nothing: polling, until a page has records again

Notices are hints of a service that may be wrong. Too low an end costs the time until the safety poll, one too high an
idle pause; neither loses a record, and neither makes a reader spin. Only a page that was empty, or that reached just
the end that is told, lets a reader sleep: behind any other there may be more, whatever is said.
"""

from __future__ import annotations

from random import Random

from .cursor import Action, PartitionCursor, Read, Wait

SAFETY_S = 60.0
"""Until a reader asks although it was told of nothing: what a notice that never came costs at most."""
SAFETY_MAX_S = 240.0
"""For many partitions; below the life of a cursor, so that these polls are also what keeps it."""
SAFETY_RATE = 4.0
"""Such polls of a consumer in a second at most: some 0.3 % of a core on both sides together."""


def safety_s(partitions: int, rng: Random) -> float:
    """How long a reader of a consumer of so many partitions sleeps at most; spread, so that not all wake at once."""
    return min(max(SAFETY_S, partitions / SAFETY_RATE), SAFETY_MAX_S) * rng.uniform(0.5, 1.0)


class Hint:
    """What notices say of one partition. `place` is the next number to be read; None while nobody knows it."""

    def __init__(self) -> None:
        self.end: int | None = None
        """Behind the last record there is, as far as told; None: there are no notices."""
        self.doubted = False
        self._look = False
        self._asked: int | None = None  # the end that was told when the last page was asked for
        self._empty = False  # the last page was
        self._poll_at = float("-inf")

    def begin(self, end: int) -> None:
        """Notices are live anew, and all there is behind `end` is told next. What was told before is forgotten."""
        self.end = end
        self.doubted = False

    def tell(self, end: int) -> None:
        """The partition ends there, or behind it."""
        if self.end is not None:
            self.end = max(end, self.end)

    def look(self) -> None:
        """The partition is not what it was, or is read somewhere else: ask, whatever is known of its end."""
        self._look = True

    def lose(self) -> None:
        """Notices come no more."""
        self.end = None
        self.doubted = False

    def asked(self) -> None:
        """A page is asked for."""
        self._asked = self.end

    def answered(self, place: int | None, records: int, poll_at: float) -> None:
        """The page that was asked for at `place` came with so many records. `poll_at`: when the next safety poll is.

        What was told while it was on its way says nothing about it.
        """
        self._look = False
        self._empty = records == 0
        self._poll_at = poll_at
        if records:
            self.doubted = False
        elif self.end is not None and self._asked is not None and place is not None and place < self._asked:
            self.doubted = True

    def expects(self, place: int | None) -> bool:
        """Whether there is something at `place`, as far as told: an idle pause is over."""
        return self.end is not None and place is not None and place < self.end and not self.doubted

    def sleeps_until(self, place: int | None, now: float) -> float | None:
        """When a reader at `place` asks next unless it is told of more; None: now, or as if there were no notices."""
        if self._look or self.end is None or place is None or self._poll_at <= now:
            return None
        at_the_end = place >= self.end if self._empty else place == self.end
        return self._poll_at if at_the_end else None

    def check(self) -> None:
        """Assert every invariant."""
        assert self.end is None or self.end >= 0
        assert not (self.doubted and self.end is None)


def next_action(cursor: PartitionCursor, hint: Hint, now: float) -> Action:
    """What the reader of a partition does next: what the cursor says, but for sleeping shorter or longer."""
    if hint.expects(cursor.next):
        cursor.expect()
    action = cursor.next_action(now)
    if isinstance(action, Read) or (isinstance(action, Wait) and cursor.idle):
        until = hint.sleeps_until(cursor.next, now)
        if until is not None:
            return Wait(until)
    return action
