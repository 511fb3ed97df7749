"""Sweeping: deleting the batches that are forgotten already (trim, drop), without holding anybody up.

A trim moves a number and is answered; what lies below it is *garbage*, and goes piece by piece with later transactions.
How large a piece is decides how long the appends of its transaction wait, and those that come while it is committed:

- beside jobs a piece takes BESIDE of the time that such transactions took lately, so that they take hardly longer than
  without, on a fast disk as on a slow one.
- alone a piece goes only when there was no job for QUIET_S, and then rests REST times as long as it took: whoever
  appends steadily never meets one, and of those who append now and then a tenth does, and waits for one commit.
- no piece frees more than SWEEP_BYTES. LMDB keeps what a transaction freed as one list of page numbers, reads it as a
  whole, and writes what is left of it with each commit that takes pages from it: a gigabyte freed at once is two
  megabytes more to write with each commit for a long time (docs/decisions/0025-retention-bytes.md has the figures).
- while STOCK_BYTES of the file are free nothing more is swept, unless the file grows all the same, because what is free
  is in runs too short: then twice of what it grew by. The file never shrinks, so garbage costs no more than free pages
  do. But LMDB looks through all of these for a run that a batch fits into, in each transaction anew: with 250 MB free
  in runs too short an append took 30 ms.
- a piece takes twice what its transaction stores, and one batch at least, however long that takes: a log that is
  trimmed as fast as it is written needs as much as it stores, and garbage must not grow for ever.
- where appends find no room in the map or on the disk none of this counts: what is free may be in runs too short, or
  wait for a sync, and to make room is all there is to do. Then the piece comes from one partition alone: to delete
  takes pages as well, fewer where the batches are neighbours.
- what lies on a damaged page cannot be deleted, and LMDB refuses the whole transaction in which that was tried. So it
  is *set aside* until the next start: the transaction is made again without, and what the partition forgets later is
  swept behind it. It takes room, and harms nobody.

Deleting a batch reads it, from the disk if it is no longer cached: that is why time is measured, and not only batches
counted.
"""

from __future__ import annotations

import enum
import logging
import math
import os
import struct
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import lmdb

from ...errors import StorageError
from ..api import PartitionRef
from . import batch
from .environment import Environment
from .partitions import PartitionState

if TYPE_CHECKING:
    from .write import Write

_log = logging.getLogger("disstream.engine")

EVERYTHING = 2**64 - 1
"""As a `before`: beyond every sequence number."""

BESIDE = 0.3
BESIDE_S = 0.0001, 0.002
ALONE_S = 0.003
QUIET_S = 0.05
REST = 9
SWEEP_BYTES = 16 * 1024**2
STOCK_BYTES = 64 * 1024**2
SWEEP_BATCHES = 1000

SMALL_SWEEP_BATCHES = 10
"""As many where there is hardly a free page: so few are found among those that each transaction leaves behind."""

LOOK_S = 10.0
"""How often the table of readers is looked at while there are commits."""

OLD_S = 60.0
"""From when on a snapshot is told of. Reads take milliseconds, a backup of 10 GB a minute."""


DAMAGE = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.PageFullError,
    lmdb.CursorFullError,
    struct.error,
    StorageError,
)
"""With what LMDB, and whoever parses a key or a record, tells of a page that is not what was written."""


class SetAside(Exception):
    """What rode along with a transaction met damage, and is not tried again: make the transaction anew, without."""


class Need(enum.Enum):
    """How much is to go if there is no room, instead of what would at such a time."""

    NOTHING = "nothing"
    MUCH = "much"
    LITTLE = "little"


class Garbage(NamedTuple):
    """Batches of a slot whose rows are all below `before`. No `partition`: it is dropped, and its writers go too."""

    slot: int
    before: int
    partition: PartitionRef | None = None


def left_over(env: Environment, states: Mapping[PartitionRef, PartitionState]) -> list[Garbage]:
    """What an earlier process forgot without sweeping it."""
    with env.reading() as txn:
        dropped = [Garbage(int.from_bytes(stored, "big"), EVERYTHING) for stored, _ in txn.cursor(db=env.dropped)]
    return dropped + [Garbage(state.slot, state.oldest, ref) for ref, state in states.items() if state.oldest]


class Sweeper:
    """The garbage, and when how much of it goes. Belongs to the commit thread.

    In each transaction `sweep` once, and `committed` if it counts.
    """

    def __init__(self) -> None:
        self._garbage: deque[Garbage] = deque()
        self.aside: dict[int, int] = {}
        """Slots with batches that are set aside, and the number below which those are."""
        self._finished = 0
        self._swept_s = 0.0
        self.may_sweep = True
        """Not again and again for nothing: what failed is tried again when something else has succeeded."""
        self._stocked = False
        self._file_bytes = 0
        self._alone_at = 0.0
        self._usual_s = 0.0

    def add(self, garbage: Iterable[Garbage]) -> None:
        self._garbage.extend(garbage)

    @property
    def can_sweep(self) -> bool:
        """Whether a piece would go if there were need."""
        return bool(self._garbage) and self.may_sweep

    def pause_s(self) -> float | None:
        """In how many seconds a piece may go alone; None: there is none, or no need, or it would be in vain."""
        if not self.can_sweep or self._stocked:
            return None
        return max(self._alone_at - time.monotonic(), 0.0)

    def sweep(self, write: Write, *, alone: bool, need: Need | None = None) -> None:
        """Delete a piece of the oldest garbage. Tell then if the transaction counts: `committed`.

        `alone`: without jobs, if only to merge: then it may not be time yet. `need`: it is, whatever it takes.
        Raises SetAside: the transaction is to be aborted.
        """
        self._finished = 0
        self._swept_s = 0.0
        if not self.can_sweep or need is Need.NOTHING:
            return
        if need is None:
            budget = self._budget(write, alone)
        else:
            most = SWEEP_BATCHES if need is Need.MUCH else SMALL_SWEEP_BATCHES
            budget = _Budget(math.inf, 0, SWEEP_BYTES, most)
        if budget is None:
            return
        began = time.monotonic()
        with write.txn.cursor(db=write.env.batches) as cursor:
            for garbage in self._garbage:
                try:
                    whole = _sweep(write, cursor, garbage, budget, self.aside.get(garbage.slot))
                except DAMAGE as exc:
                    self._set_aside(write, garbage, exc)
                    raise SetAside from exc
                if not whole:
                    break
                self._finished += 1
                if need is not None or budget.spent():
                    break
        self._swept_s = time.monotonic() - began

    def _set_aside(self, write: Write, garbage: Garbage, exc: Exception) -> None:
        self._finished = 0
        self._garbage.remove(garbage)
        if garbage.slot not in self.aside:
            tell_damage(write.env, garbage.slot, garbage.partition, "deleted", exc)
        self.aside[garbage.slot] = garbage.before

    def _budget(self, write: Write, alone: bool) -> _Budget | None:
        """None: nothing is to go."""
        if alone and time.monotonic() < self._alone_at:
            return None
        free, size = write.env.room(write.txn)
        grown, self._file_bytes = size - self._file_bytes, size
        self._stocked = free >= STOCK_BYTES
        if self._stocked and grown <= 0:
            return None
        most = min(2 * grown, SWEEP_BYTES) if self._stocked else SWEEP_BYTES
        if alone:
            return _Budget(ALONE_S, 0, most, SWEEP_BATCHES)
        low, high = BESIDE_S
        return _Budget(min(max(BESIDE * self._usual_s, low), high), 2 * write.stored_bytes, most, SWEEP_BATCHES)

    def committed(self, began: float, *, alone: bool) -> None:
        """The transaction that began then (monotonic) counts."""
        for _ in range(self._finished):
            self._garbage.popleft()
        self.may_sweep = True
        now = time.monotonic()
        if alone:
            self._alone_at = now + REST * (now - began)
        else:
            self._alone_at = now + QUIET_S
            self._usual_s += (now - began - self._swept_s - self._usual_s) / 8


class _Budget:
    """What is left of a piece."""

    def __init__(self, seconds: float, least_bytes: int, most_bytes: int, most_batches: int) -> None:
        self._least_bytes = least_bytes
        self._most_bytes = most_bytes
        self._most_batches = most_batches
        self._ends = time.monotonic() + seconds
        self._weight = 0
        self._batches = 0

    def take(self, weight: int) -> None:
        self._weight += weight
        self._batches += 1

    def spent(self) -> bool:
        if self._weight >= self._most_bytes or self._batches >= self._most_batches:
            return True
        return self._batches > 0 and self._weight >= self._least_bytes and time.monotonic() >= self._ends


def tell_damage(env: Environment, slot: int, ref: PartitionRef | None, undone: str, exc: Exception) -> None:
    """One line in the log. `undone`: what cannot be done to batches of the partition, of a dropped one if None."""
    whose = f"a dropped partition (slot {slot})"
    if ref is not None:
        whose = f"partition {ref.number} (stream id {ref.stream_id})"
    path = env.env.path()
    _log.error(
        "batches of %s cannot be %s, %s is damaged there (%s): they stay as they are until the next start, which tries "
        "it again; run `disstream data check %s`, and restore a copy",
        whose,
        undone,
        path,
        exc,
        path,
    )


def _sweep(write: Write, cursor: lmdb.Cursor[memoryview], garbage: Garbage, budget: _Budget, aside: int | None) -> bool:
    """Delete what the budget allows; True if nothing is left, but for what is set aside, below `aside`."""
    env, txn = write.env, write.txn
    slot, before, ref = garbage
    swept = 0
    whole = False
    cursor.set_range(batch.key(slot, aside or 0))
    while not whole:
        stored = cursor.key()  # empty behind the last batch of all
        found, last = batch.parse_key(stored) if stored else (-1, 0)
        if found != slot or last >= before:
            whole = True
        elif budget.spent():
            break
        else:
            try:
                weight = batch.header(cursor.value()).weight
            except batch.Damaged:
                weight = 0
            budget.take(weight)
            swept += weight
            cursor.delete()  # and stand on the next
    if ref is None:
        if whole and aside is None:  # else the next start shall find it
            env.writers.drop(txn, slot)
            txn.delete(slot.to_bytes(8, "big"), db=env.dropped)
    elif swept and (state := write.state(ref)) is not None and state.slot == slot:
        empty = whole and before >= state.next and aside is None
        held = 0 if empty else max(state.held - swept, 0)
        write.set_state(ref, env.put_state(txn, ref, state._replace(held=held)))
    return whole


class _Reader(NamedTuple):
    process: str
    thread: str
    transaction: str


def _readers(told: str) -> list[_Reader]:
    """What LMDB tells: a title, then process, thread and transaction ("-": none this moment) in a line for each."""
    found = [line.split() for line in told.splitlines()]
    return [_Reader(*words) for words in found if len(words) == 3 and words[0].isdigit() and words[2].isdigit()]


class Snapshots:
    """Who reads an old state of the file, which keeps everything that was forgotten since from being used again.

    Reads of this process end within milliseconds, but for the way back of "relaxed" (synced.py), which is meant to
    last. Another process may read too (backup, statistics): one that died is taken out of LMDB's table of
    readers, one that takes long is told of in the log, once.
    """

    def __init__(self) -> None:
        self._look_at = 0.0
        self._since: dict[_Reader, float] = {}
        self._told: set[_Reader] = set()

    def age_s(self, env: lmdb.Environment) -> float | None:
        """How long the oldest of the snapshots that were seen is there; None: none is there any more. For any thread.

        Asked of the table, for nobody looks at it while nothing is written, and a backup that has ended does not age.
        """
        since = self._since
        if not since:
            return None
        try:
            there = set(_readers(env.readers()))
        except lmdb.Error:
            there = set(since)
        return max((time.monotonic() - seen for reader, seen in since.items() if reader in there), default=None)

    def look(self, env: lmdb.Environment) -> None:
        """Look, if it is time to."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        try:
            self._look(env, now)
        except lmdb.Error as exc:  # of its table of readers: no reason to store nothing
            _log.warning("the readers of %s cannot be looked at: %s", env.path(), exc)

    def _look(self, env: lmdb.Environment, now: float) -> None:
        others = [reader for reader in _readers(env.readers()) if reader.process != str(os.getpid())]
        held = {reader: self._since.get(reader, now) for reader in others}
        for reader, since in held.items():
            if now - since >= OLD_S and reader not in self._told:
                self._told.add(reader)
                _log.warning(
                    "process %s has been reading an old state of %s for %d s: until it ends, what is forgotten frees "
                    "no space, and the file grows",
                    reader.process,
                    env.path(),
                    now - since,
                )
        for reader in self._told - held.keys():
            self._told.discard(reader)
            _log.info("process %s ended its old snapshot of %s", reader.process, env.path())
        self._since = held
