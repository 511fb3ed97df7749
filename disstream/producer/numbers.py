"""The numbers that records bear in a session. Pure.

In a session (`wire/sessions.py`) the records of a partition are numbered without gaps, so that the service can tell a
record it has from the next one. Two things must never happen:

- a number that has been sent names another record afterwards: the service would take it for the first one;
- a record whose fate is in doubt is sent under another number: the service would store it twice.

So a record that has been sent keeps its number until its end, and those in doubt (an attempt may have stored them) go
first, as they went. Where that is no longer possible, because a record in between was given up or went elsewhere, the
lane begins a new *epoch*, in which nothing was sent yet, as soon as nothing of it is in doubt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .shipment import Part


class Numbers:
    """The numbers of one partition, whatever the layout of the stream is.

    `next` is the first number that is not known to be stored, `unused` the first that was never sent.
    """

    __slots__ = ("epoch", "next", "unused")

    def __init__(self) -> None:
        self.epoch = self.next = self.unused = 0

    @property
    def idle(self) -> bool:
        """Everything that was sent is stored: any record may bear the next number."""
        return self.next == self.unused

    def stored(self, epoch: int, end: int) -> None:
        """All numbers before `end` are stored."""
        if epoch == self.epoch:
            self.next = max(self.next, end)

    def renew(self) -> None:
        """Begin a new epoch."""
        self.epoch += 1
        self.next = self.unused = 0


class Run:
    """The numbers that one request gives to the records of one partition: from `first` to before `end`."""

    __slots__ = ("_numbers", "end", "epoch", "first")

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers
        self.epoch = self.first = self.end = -1

    def admits(self, part: Part) -> bool:
        """Whether the part may go behind what is in the run; as the first of it any part may."""
        if self.first < 0:
            return True
        if part.in_doubt or self._bound(part):
            return (part.epoch, part.number) == (self.epoch, self.end)
        return self.epoch == self._numbers.epoch and self.end == self._numbers.unused

    def add(self, part: Part, count: int) -> None:
        """Number the part, which is `count` records of the service.

        What opens a run, and can neither keep nor get the next number, opens a new epoch.
        """
        numbers = self._numbers
        if part.number >= 0 and part.in_doubt:
            if self.first < 0:
                self.epoch, self.first, self.end = part.epoch, part.number, part.number
        elif self.first < 0:
            if part.number != numbers.next if self._bound(part) else not numbers.idle:
                numbers.renew()
            self.epoch, self.first, self.end = numbers.epoch, numbers.next, numbers.next
        part.epoch, part.number = self.epoch, self.end
        self.end += count
        if self.epoch == numbers.epoch and self.end > numbers.unused:
            numbers.unused = self.end

    def _bound(self, part: Part) -> bool:
        return part.number >= 0 and part.epoch == self._numbers.epoch
