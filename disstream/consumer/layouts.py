"""How far the partitions of one stream may be handed out, so that keys stay in order when the stream is scaled. Pure.

Scaling divides the hash keys anew over all partitions, so a key may move between any two of them, and none is the
parent of another. What the service tells is where each partition is cut by each *change*: its *bound*, the number of
the first record that was written behind it. A record behind a bound may only be handed out when of every partition all
records before its bound of that change are finished.

    met        a change whose bounds are known. Its partitions may be handed out up to their bounds
    passed     everybody has finished what lies before it: the bounds of the next change count now

Changes are passed in their order, for a partition that a change did not touch (it had been scaled away before) is
bound by the ones before it. So one number, `passed`, tells where the stream stands, and a partition is held by the
first bound of a later change that it has.

`passed` goes back only by a seek: what is read again is read in order as well, so the others wait where they are.

No dead-lock: of the first change that is not passed, the partitions that have not reached their bounds are handed out
further, for all their earlier bounds belong to changes that are passed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..model import LayoutBound

Place = float
"""A sequence number; infinity for a partition that nobody waits for."""


class Layouts:
    """Of one stream. Partitions are named by their ids."""

    def __init__(self) -> None:
        self.known = 0
        """Changes that are met, or were before the service forgot them."""
        self.passed = 0
        self.awaited: dict[str, int] = {}
        """Of the first change that is not passed: the partitions that were not seen behind their bounds, and these."""
        self._changes: dict[int, dict[str, int]] = {}  # ascending
        self._limits: dict[str, int] = {}

    @property
    def open(self) -> bool:
        """Whether there is a change that is not passed."""
        return bool(self.awaited)

    def limit(self, partition: str) -> int | None:
        """Its records may be handed out below this number; None: all of them, as far as is known."""
        return self._limits.get(partition)

    def bounds(self) -> Mapping[str, int]:
        """Of the first change that is not passed, for all its partitions."""
        return self._changes[self.following] if self.awaited else {}

    @property
    def following(self) -> int:
        """The first change that is not passed, if there is one."""
        return next(change for change in self._changes if change > self.passed)

    def learn(self, changes: int, partitions: Mapping[str, Sequence[LayoutBound]]) -> None:
        """What a description says that knows of so many changes. Bounds of later ones may be incomplete: passed over.

        What it does not tell any more stays known until it is passed: nothing before it can be read any more, but
        what was read of it may be unfinished.
        """
        told: dict[int, dict[str, int]] = {}
        for partition, bounds in partitions.items():
            for change, number in bounds:
                if change <= changes:
                    told.setdefault(change, {})[partition] = number
        kept = {change: known for change, known in self._changes.items() if change > self.passed}
        self._changes = dict(sorted((kept | told).items()))
        self.known = max(self.known, changes)
        self._look_again()

    def advance(self, place: Callable[[str], Place | None]) -> bool:
        """Look at those that are awaited. True: a change was passed, and limits have moved.

        `place`: all of the partition before it is finished, or not wanted; None: nobody knows.
        """
        moved = False
        while self.awaited:
            for partition, bound in list(self.awaited.items()):
                at = place(partition)
                if at is not None and at >= bound:
                    del self.awaited[partition]
            if self.awaited:
                break
            self.passed = self.following
            self._look_again()
            moved = True
        return moved

    def back(self, partition: str, to: int | None) -> bool:
        """The partition is read from there again; None: from a place that nobody knows yet. True: limits have moved."""
        for change, bounds in self._changes.items():
            bound = bounds.get(partition)
            if bound is not None and (to is None or bound > to):
                moved = change <= self.passed
                self.passed = min(self.passed, change - 1)
                self._look_again()
                return moved
        return False

    def _look_again(self) -> None:
        """From the changes that are not passed to what follows from them."""
        self._limits = {}
        self.awaited = {}
        for change, bounds in self._changes.items():
            if change > self.passed:
                self.awaited = self.awaited or dict(bounds)
                self._limits = bounds | self._limits

    def check(self) -> None:
        """Assert every invariant."""
        assert list(self._changes) == sorted(self._changes)
        assert self.passed <= self.known
        assert all(change <= self.known for change in self._changes)
        later = [bounds for change, bounds in self._changes.items() if change > self.passed]
        assert bool(later) == self.open, "a change that nobody is awaited for is passed"
        if later:
            assert self.awaited.items() <= later[0].items()
            assert self.bounds() == later[0]
        for partition in {name for bounds in later for name in bounds}:
            assert self.limit(partition) == min(bounds[partition] for bounds in later if partition in bounds)
