"""How long a member of a group may act for its partitions, judged by its own clock.

The service counts a member's silence from when it *heard* it; the member counts from when it *sent*, which is earlier,
and stops a margin before the end. So whatever the network does, the member stops first:

    not joined   -> held      a sync was answered: until sent + session time-out - margin
    held         -> held      a heartbeat was answered with "go on": the same again
    held         -> ending    it was answered with "join again": the others may take over after the rebalance time-out,
                              counted from the last heartbeat that was told "go on"
    any          -> lost      given up, or the service forgot the member, or its generation

A lease that ran out holds nothing, yet a later "go on" revives it: the service then vouches that nobody took over.
Times are those of `clock.boot`, so sleep and a stopped process count. Threads may share a lease: each method writes
single attributes, and a reader sees the state before or after, which both are safe.
"""

from __future__ import annotations

MARGIN = 0.1
"""Share of the session time-out kept back: clocks that run apart, and the moments between looking and acting."""


class Lease:
    """Of one member, generation after generation."""

    def __init__(self, rebalance_timeout_s: float) -> None:
        self._rebalance_timeout_s = rebalance_timeout_s
        self._session_s = 0.0
        self._confirmed_at = float("-inf")
        self._lost: int | None = None  # the generation, if it was
        self.generation = -1
        self.deadline = float("-inf")
        self.rejoin = False
        """The service said: join again."""

    def grant(self, generation: int, session_timeout_s: float, sent_at: float) -> None:
        """A sync that was sent at `sent_at` made this member part of a generation."""
        self.deadline = float("-inf")  # whoever looks in between must not combine old and new
        self._session_s = session_timeout_s
        self.generation = generation
        self._lost = None
        self.rejoin = False
        self._confirmed_at = sent_at  # also if a heartbeat of before was sent later
        self.go_on(generation, sent_at)

    def go_on(self, generation: int, sent_at: float) -> None:
        """A heartbeat of `generation` sent at `sent_at` was answered: nothing changed."""
        if generation == self.generation >= 0 and not self.rejoin and sent_at >= self._confirmed_at:
            self._confirmed_at = sent_at
            self.deadline = sent_at + self._session_s * (1 - MARGIN)
            if self._lost == generation:  # by another thread, since we looked
                self.deadline = float("-inf")

    def end(self, generation: int) -> None:
        """A heartbeat of `generation` was answered: join again."""
        if generation == self.generation and not self.rejoin:
            self.rejoin = True
            limit = self._confirmed_at + self._rebalance_timeout_s * (1 - MARGIN)
            self.deadline = min(self.deadline, limit)

    def lose(self, generation: int) -> None:
        """Given up, or the service does not know the member any more."""
        if generation == self.generation:
            self._lost = generation  # before the deadline: a `go_on` in another thread looks at it behind its own
            self.deadline = float("-inf")
            self.rejoin = True

    def forget(self) -> None:
        """The service counts generations anew, or went on without this member: nothing of before holds any more."""
        self.lose(self.generation)
        self.generation = -1

    def holds(self, now: float) -> bool:
        """Whether records may be handed out and commits sent."""
        return now < self.deadline
