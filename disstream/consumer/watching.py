"""Whether the partitions of a consumer get on, and if one does not, why. Pure.

A partition *stands* when there is something to do for it and nothing was handed out or finished for `warn_s`. What
there is to do: records handed out and not finished, records fetched and not taken, a page that is owed, records known
to be there. Whoever stands is told once, and again when the reason changes; getting on ends it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ..model import Partition

Cause = Literal["failed", "no lease", "unfinished", "held", "not taken", "no answer"]


class Facts(NamedTuple):
    """Of one partition, now. Times are those of the loop's clock."""

    partition: Partition
    mark: tuple[int | None, int | None]
    """Changes whenever something is handed out or finished."""
    position: int | None
    """The number of the next record to be handed out."""
    unfinished: int | None = None
    """The number of the first record handed out and not finished; None: there is none."""
    buffered: bool = False
    pauses: Collection[str] = ()
    """Why nothing of it is handed out: "" for the user's own `pause`."""
    behind: int = 0
    """Records known to be there and not handed out."""
    owed_since: float | None = None
    error: str = ""
    """What the page that is owed was last answered with."""
    failure: str = ""
    """What will not heal."""


@dataclass(frozen=True, slots=True)
class Stall:
    """A partition that stands: told to `ConsumerConfig.on_stall`, and logged."""

    partition: Partition
    cause: Cause
    reason: str
    """In words."""
    for_s: float
    """How long nothing of it was handed out or finished."""
    stack: str = ""
    """Where the code is that holds the records, if it is known: lines as in a traceback."""


class _Seen:
    __slots__ = ("mark", "since", "told")

    def __init__(self, mark: tuple[int | None, int | None], since: float) -> None:
        self.mark = mark
        self.since = since
        self.told: Cause | None = None


class Watch:
    """What was seen of the partitions, look after look."""

    def __init__(self, warn_s: float) -> None:
        self._warn_s = warn_s
        self._seen: dict[Partition, _Seen] = {}
        self.stalls = 0
        """Told so far; a partition that stands for another reason counts again."""

    @property
    def standing(self) -> dict[Partition, Cause]:
        """Those that stand now."""
        return {partition: seen.told for partition, seen in self._seen.items() if seen.told is not None}

    def look(
        self, facts: Iterable[Facts], now: float, *, holds: bool, taken_at: float
    ) -> tuple[list[Stall], list[Partition]]:
        """(those to be told of, those that stood and get on). Partitions not among `facts` are forgotten.

        `holds`: whether the lease lets records be handed out; `taken_at`: when somebody last asked for records.
        """
        told, moved = [], []
        seen_before, self._seen = self._seen, {}
        for fact in facts:
            seen = seen_before.get(fact.partition)
            found = self._cause(fact, now, holds, taken_at)
            if seen is None or seen.mark != fact.mark or found is None:
                if seen is not None and seen.told is not None:
                    moved.append(fact.partition)
                self._seen[fact.partition] = _Seen(fact.mark, now)
                continue
            self._seen[fact.partition] = seen
            cause, reason = found
            since = seen.since
            if cause == "no answer" and fact.owed_since is not None:
                since = fact.owed_since  # pages are owed now and then: how long this one is counts
            if now - since >= self._warn_s and seen.told != cause:
                seen.told = cause
                self.stalls += 1
                told.append(Stall(fact.partition, cause, reason, now - since))
        return told, moved

    def _cause(self, fact: Facts, now: float, holds: bool, taken_at: float) -> tuple[Cause, str] | None:
        if fact.failure:
            return "failed", f"it cannot be read: {fact.failure}"
        waiting = fact.buffered or fact.behind > 0
        if not holds:
            return ("no lease", "this member may not act now: it is not heard") if waiting else None
        if fact.unfinished is not None:
            most = ", and as many records behind it as max_gap allows" if "gap" in fact.pauses else ""
            return "unfinished", f"record {fact.unfinished} was handed out and is not finished{most}"
        if "" in fact.pauses:
            return None  # its user knows
        if fact.pauses:
            return ("held", f"it is held back: {', '.join(sorted(fact.pauses))}") if waiting else None
        if fact.buffered:
            return "not taken", f"its records are here, and nobody has asked for any for {now - taken_at:.0f} s"
        if fact.owed_since is not None:
            return "no answer", f"a page is owed for {now - fact.owed_since:.0f} s: {fact.error or 'no answer at all'}"
        return None
