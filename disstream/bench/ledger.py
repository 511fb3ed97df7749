"""What several workers did with numbered records, put together from their reports. Pure.

A record is handled when the line that tells it is complete: what a killed worker did and could not tell was not done.
The lines bear the time of the machine's clock that all processes share, so lines of different workers have an order.

    missing     sent, and in nobody's report
    duplicate   handled once more: again, or because it stands in the stream twice (`written_twice`)
    reordered   handled first behind a later record of its key, whoever handled either
    skipped     a partition that was taken over behind the record after the last one its former owner handled
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from operator import attrgetter
from typing import NamedTuple

import msgspec

from .check import Findings, Sent

UNNUMBERED = -1


class Lot(msgspec.Struct, frozen=True, array_like=True):
    """Records of one partition that follow one another: `numbers[i]` is what the record `first + i` bears."""

    partition: str
    first: int
    numbers: list[int]

    @property
    def end(self) -> int:
        """The sequence number behind the last one."""
        return self.first + len(self.numbers)


class Assigned(msgspec.Struct, frozen=True, tag=True):
    """A worker took over an assignment: all that it holds from now on."""

    at: float
    member: str
    generation: int
    partitions: list[str]


class Handled(msgspec.Struct, frozen=True, tag=True):
    """A worker handled records, in this order. Damage is counted from its start on."""

    at: float
    lots: list[Lot]
    rekeyed: int = 0
    changed: int = 0

    @property
    def count(self) -> int:
        return sum(len(lot.numbers) for lot in self.lots)


Line = Assigned | Handled


class Succession(NamedTuple):
    """How one worker's partitions went to others. Seconds count from the moment it failed."""

    begins_s: dict[str, float]
    """Partition -> until somebody else handled a record of it; those of which nobody did are not in it."""
    skipped: list[str]


class Ledger:
    """Everything that was reported. Lines of one worker come in their order; those of different ones in any."""

    def __init__(self, sent: Sent) -> None:
        self._sent = sent
        self._expected = len(sent.keys)
        self._handled: dict[str, list[Handled]] = {}
        self._assigned: dict[str, list[Assigned]] = {}
        self._ends: dict[str, tuple[float, int]] = {}
        self.counts: dict[str, int] = {}
        """Worker -> records it handled."""

    def add(self, worker: str, line: Line) -> None:
        if isinstance(line, Assigned):
            self._assigned.setdefault(worker, []).append(line)
            return
        self._handled.setdefault(worker, []).append(line)
        self.counts[worker] = self.counts.get(worker, 0) + line.count
        for lot in line.lots:
            if line.at >= self._ends.get(lot.partition, (0.0, 0))[0]:
                self._ends[lot.partition] = (line.at, lot.end)

    # --- where the work stands ---

    def reached(self, ends: Mapping[str, int]) -> bool:
        """Whether each partition was handled up to its end (exclusive) by whoever handled it last."""
        return all(end == 0 or self._ends.get(p, (0.0, 0))[1] >= end for p, end in ends.items())

    def assignments(self, worker: str) -> list[Assigned]:
        """Oldest first."""
        return self._assigned.get(worker, [])

    def owned(self, worker: str, at: float = float("inf")) -> frozenset[str]:
        """What a worker was assigned last, up to a moment."""
        found = [line for line in self.assignments(worker) if line.at <= at]
        return frozenset(found[-1].partitions) if found else frozenset()

    # --- what came of it ---

    def findings(self) -> Findings:
        """Whether every record was handled, as it was sent and in the order of its key."""
        seen = bytearray(self._expected)
        last: dict[str, int] = {}
        received = distinct = duplicates = reordered = foreign = 0
        for _, lot in self._lots():
            for number in lot.numbers:
                received += 1
                if not 0 <= number < self._expected:
                    foreign += 1
                elif seen[number]:
                    duplicates += 1
                else:
                    seen[number] = 1
                    distinct += 1
                    key = self._sent.keys[number]
                    if key is not None:
                        reordered += last.get(key, -1) > number
                        last[key] = max(last.get(key, -1), number)
        told = [lines[-1] for lines in self._handled.values()]
        rekeyed, changed = sum(line.rekeyed for line in told), sum(line.changed for line in told)
        return Findings(
            expected=self._expected,
            received=received,
            distinct=distinct,
            duplicates=duplicates,
            reordered=reordered,
            rekeyed=rekeyed,
            changed=changed,
            foreign=foreign,
        )

    def written_twice(self) -> int:
        """Duplicates that are not of the workers' making: records that stand in the stream more than once."""
        places = {(lot.partition, lot.first + i): n for _, lot in self._lots() for i, n in enumerate(lot.numbers)}
        return len(places) - len(set(places.values()))

    def succession(self, worker: str, failed_at: float) -> Succession:
        """Who went on, and where, with what `worker` owned when it failed."""
        begins_s: dict[str, float] = {}
        skipped: list[str] = []
        for partition in sorted(self.owned(worker, failed_at)):
            before: int | None = None
            for name, line, lot in self._named_lots():
                if lot.partition != partition:
                    continue
                if name == worker:
                    before = lot.end
                elif line.at >= failed_at:
                    begins_s[partition] = line.at - failed_at
                    if before is not None and lot.first > before:
                        skipped.append(partition)
                    break
        return Succession(begins_s, skipped)

    def inherited_s(self, worker: str, failed_at: float) -> float | None:
        """Seconds from when `worker` failed until others held all that it had; None: they never did."""
        left = set(self.owned(worker, failed_at))
        lines = [line for name, lines in self._assigned.items() if name != worker for line in lines]
        for line in sorted(lines, key=lambda line: line.at):
            if line.at >= failed_at:
                left.difference_update(line.partitions)
                if not left:
                    return line.at - failed_at
        return None

    def busiest(self, worker: str, window_s: float, until: float = float("inf")) -> int:
        """The most records a worker handled within `window_s`, before `until`."""
        lines = [line for line in self._handled.get(worker, []) if line.at < until]
        most = inside = begin = 0
        for line in lines:
            inside += line.count
            while lines[begin].at < line.at - window_s:
                inside -= lines[begin].count
                begin += 1
            most = max(most, inside)
        return most

    def silence_s(self, since: float, workers: Iterable[str] | None = None) -> float:
        """The longest time in which none of these workers (None: of all) handled anything, ended after `since`."""
        times = [line.at for line in self._sorted(workers)]
        return max((after - before for before, after in pairwise(times) if after >= since), default=0.0)

    def events(self, worker: str) -> list[tuple[float, int]]:
        """(when, how many records) of each line."""
        return [(line.at, line.count) for line in self._handled.get(worker, [])]

    def _named_lots(self) -> Iterator[tuple[str, Handled, Lot]]:
        """All lots by time, with who handled them."""
        lines = [(line.at, name, line) for name, lines in self._handled.items() for line in lines]
        for _, name, line in sorted(lines, key=lambda entry: entry[0]):
            for lot in line.lots:
                yield name, line, lot

    def _sorted(self, workers: Iterable[str] | None = None) -> list[Handled]:
        names = self._handled if workers is None else workers
        at: Callable[[Handled], float] = attrgetter("at")
        return sorted((line for name in names for line in self._handled.get(name, [])), key=at)

    def _lots(self, workers: Iterable[str] | None = None) -> Iterator[tuple[Handled, Lot]]:
        for line in self._sorted(workers):
            for lot in line.lots:
                yield line, lot
