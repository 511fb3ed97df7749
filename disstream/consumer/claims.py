"""Who reads which partition, decided by each consumer for itself from the rows that all of them see. Pure.

Everybody deals the partitions alike (`wire/sharing.py`: even, few moves, nothing counts but the rows), and changes only
what is its own to change:

    removed    a member that was silent for its session time-out: whoever saw that deletes its row as it was seen; from
               then on its renewals fail, and what it held is free
    marked     a partition of mine that is dealt to another member: I write who is to be its heir, and let go of it
    released   the owner is gone from the row, the heir stays in it
    taken      a free partition that is dealt to me: I write myself into it as the owner

Partitions that stay are not touched. Why it comes to rest: a mark counts in the deal as if it were done, so each one
brings the rows nearer to the deal by one partition and the next deal does not take it back; what is released or taken
leaves the deal as it is. Two who act on different pasts may between them move one too many; whoever looks next sees
both.

Why nobody is robbed. A member's row stands before the first partition that it takes, and its key never comes back. So
if a look finds an owner in a row that was the same in the look *before*, and finds no row of that owner, the owner has
ended. (One look alone does not show that: a store need not read all rows at one moment.) Its row is then taken as it
was seen, and whatever the former owner still wants to write is refused.

Silence is counted by the clock of who listens, in steps between two looks, each of them a third of the session time-out
at most, and not while the listener's own row stays as it is for long: then nobody can write. So time in which the store
was out of reach, or could only be read, or the listener slept, is no proof against others. The member
counts its own time from when it *sent* a renewal, so it stops before anybody could have taken over.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Generic, NamedTuple, TypeVar

from msgspec.structs import replace

from ..errors import ConfigError
from ..leases.api import Row, Swap
from ..model import StreamInfo
from ..wire.partitioning import partition_number
from ..wire.sharing import assign
from .rows import (
    MEMBERS,
    VERSION,
    LeaseKey,
    LeaseRow,
    MemberRow,
    encode_row,
    lease_key,
    read_lease,
    read_member,
)

R = TypeVar("R", MemberRow, LeaseRow)

SHARE_OF_SILENCE = 1 / 3
"""Of a session time-out, how much the time between two looks counts at most."""

OWN_SILENCE = 1 / 2
"""Of its session time-out, for how long a listener's own row may stay as it is before it stops to judge others: a few
renewals that got lost, and less than what would let it remove somebody who could not write either."""


class Known(NamedTuple, Generic[R]):
    version: int
    row: R


class Table:
    """The rows of an app as far as they are known: read, or written by ourselves. Goes back to no older version."""

    def __init__(self) -> None:
        self.members: dict[str, Known[MemberRow]] = {}
        self.leases: dict[LeaseKey, Known[LeaseRow]] = {}
        self.looks = 0
        self._first_seen: dict[LeaseKey, int] = {}  # in which look this version was
        self._keys: dict[str, LeaseKey] = {}

    def looked(self, rows: Mapping[str, Row]) -> None:
        """All rows were read. Raises ConfigError: one was not written by a consumer."""
        self.looks += 1
        members = {}
        leases: set[LeaseKey] = set()
        for text, row in rows.items():
            if text.startswith(MEMBERS):
                name = text.removeprefix(MEMBERS)
                known = self.members.get(name)
                if known is None or known.version < row.version:
                    known = Known(row.version, read_member(text, row.text))
                members[name] = known
                continue
            key = self._keys.get(text)
            if key is None:
                key = self._keys[text] = lease_key(text)
            leases.add(key)
            self._saw(key, text, row)
        self.members = members
        for key in [key for key in self.leases if key not in leases]:
            self.forget(key)

    def looked_at(self, key: LeaseKey, row: Row | None) -> None:
        """One lease was read."""
        if row is None:
            self.forget(key)
        else:
            self._saw(key, key.text(), row)

    def _saw(self, key: LeaseKey, text: str, row: Row) -> None:
        lease = self.leases.get(key)
        if lease is None or lease.version < row.version:
            self.wrote(key, row.version, read_lease(text, row.text))

    def wrote(self, key: LeaseKey, version: int, row: LeaseRow) -> None:
        """We changed a lease, and were told its version."""
        lease = self.leases.get(key)
        if lease is None or lease.version < version:
            self.leases[key] = Known(version, row)
            self._first_seen[key] = self.looks

    def forget(self, key: LeaseKey) -> None:
        self.leases.pop(key, None)
        self._first_seen.pop(key, None)
        self._keys.pop(key.text(), None)

    def bury(self, name: str) -> None:
        """We removed a member, so what it holds is free at once: nobody has to look twice."""
        self.members.pop(name, None)
        for key, lease in self.leases.items():
            if lease.row.owner == name:
                self._first_seen[key] = -1

    def is_free(self, key: LeaseKey) -> bool:
        """Whether nobody may act for the partition: it was released, or its owner has ended."""
        owner = self.leases[key].row.owner
        return not owner or (owner not in self.members and self._first_seen[key] < self.looks)

    def check(self) -> None:
        """Assert every invariant."""
        assert self.leases.keys() == self._first_seen.keys()
        assert all(seen <= self.looks for seen in self._first_seen.values())


class Plan(NamedTuple):
    """What is to be done now. In this order."""

    ended: bool
    """My own row is gone: nothing is mine any more, whatever the leases say."""
    bury: tuple[str, ...] = ()
    """Members to be removed. Ask again afterwards."""
    lost: tuple[LeaseKey, ...] = ()
    """Held, and not mine by their rows."""
    give: tuple[tuple[LeaseKey, str], ...] = ()
    """Mine, and to be given up, each to whom."""
    take: tuple[LeaseKey, ...] = ()
    """Free, and to be mine."""
    open: tuple[LeaseKey, ...] = ()
    """Mine by their rows, and not held yet."""


class Claims:
    """One member's view. Ask for a `plan` after each look."""

    def __init__(self, me: str, table: Table) -> None:
        self.me = me
        self.table = table
        self._looked_at: float | None = None
        self._silence: dict[str, tuple[int, float]] = {}  # member -> version of its row, and for how long
        self._dealt_from: tuple[dict[str, MemberRow], dict[LeaseKey, str]] | None = None
        self._deal: dict[LeaseKey, str] = {}
        self._patterns: dict[str, re.Pattern[str]] = {}

    def looked(self, now: float) -> None:
        """The table was read anew; `now`: when it was answered, by a clock that counts sleep."""
        elapsed = 0.0 if self._looked_at is None else max(0.0, now - self._looked_at)
        self._looked_at = now
        members, before = self.table.members, self._silence
        silence: dict[str, tuple[int, float]] = {}
        for name in sorted(members, key=lambda name: name != self.me):  # first my own
            known = members[name]
            version, silent_s = before.get(name, (-1, 0.0))
            if version != known.version:
                silent_s = 0.0
            elif name == self.me or self._may_judge(silence):
                silent_s += min(elapsed, known.row.session_timeout_s * SHARE_OF_SILENCE)
            silence[name] = (known.version, silent_s)
        self._silence = silence

    def _may_judge(self, silence: Mapping[str, tuple[int, float]]) -> bool:
        """Whether my own renewals got through lately."""
        mine = self.table.members.get(self.me)
        return mine is not None and silence[self.me][1] <= mine.row.session_timeout_s * OWN_SILENCE

    def plan(self, held: Collection[LeaseKey], giving: Collection[LeaseKey]) -> Plan:
        """`held`: partitions that are open here, or being opened; `giving`: those of which the giving up has begun."""
        table = self.table
        if self.me not in table.members:
            return Plan(ended=True)
        lost = tuple(sorted(k for k in held if k not in table.leases or table.leases[k].row.owner != self.me))
        bury = tuple(sorted(name for name in table.members if name != self.me and self._is_silent(name)))
        if bury:
            return Plan(ended=False, bury=bury, lost=lost)
        deal = self._dealt()
        give, take, opening = [], [], []
        for key in sorted(table.leases):
            row, to = table.leases[key].row, deal.get(key, "")
            if row.owner != self.me:
                # What is left of an earlier ownership of mine ends first.
                if to == self.me and table.is_free(key) and key not in held and key not in giving:
                    take.append(key)
            elif key in giving:
                pass
            elif row.heir or to != self.me:
                give.append((key, row.heir or to))
            elif key not in held:
                opening.append(key)
        return Plan(ended=False, lost=lost, give=tuple(give), take=tuple(take), open=tuple(opening))

    def _is_silent(self, name: str) -> bool:
        _, silent_s = self._silence.get(name, (-1, 0.0))
        return silent_s >= self.table.members[name].row.session_timeout_s

    # --- dealing ---

    def _dealt(self) -> dict[LeaseKey, str]:
        """Partition -> member, the same for all who see the same rows."""
        members = self.table.members
        wishes = {name: replace(known.row, beat=0, session_timeout_s=0.0) for name, known in members.items()}
        homes = {key: self._home(known.row) for key, known in self.table.leases.items()}
        if self._dealt_from != (wishes, homes):  # most looks find nothing new
            wanted = {name: [key for key in homes if self._wants(row, key.stream)] for name, row in wishes.items()}
            self._deal = assign(wanted, homes)
            self._dealt_from = (wishes, homes)
        return self._deal

    def _home(self, row: LeaseRow) -> str:
        """Who has it, or will: what is marked counts as moved."""
        members = self.table.members
        return row.heir if row.heir in members else row.owner if row.owner in members else ""

    def _wants(self, row: MemberRow, stream: str) -> bool:
        if not row.pattern:
            return stream in row.streams
        pattern = self._patterns.get(row.pattern)
        if pattern is None:
            try:
                pattern = self._patterns[row.pattern] = re.compile(row.pattern)
            except re.error as exc:
                raise ConfigError(f"a member's pattern {row.pattern!r} in the lease store is none: {exc}") from exc
        return pattern.fullmatch(stream) is not None

    # --- finding partitions ---

    def sees_to(self, stream: str) -> bool:
        """Whether it is for me to look what partitions the stream has: one member does, and all at first."""
        first = min((n for n, known in self.table.members.items() if self._wants(known.row, stream)), default=self.me)
        return first == self.me or not any(key.stream == stream for key in self.table.leases)

    def lists(self, pattern: str) -> bool:
        """Whether it is for me to look what streams match my pattern."""
        alike = [name for name, known in self.table.members.items() if known.row.pattern == pattern]
        return min(alike, default=self.me) == self.me

    def check(self) -> None:
        """Assert every invariant."""
        self.table.check()
        assert self._silence.keys() >= self.table.members.keys() - {self.me}
        assert all(silent_s >= 0 for _, silent_s in self._silence.values())


def streams_of(leases: Iterable[LeaseKey]) -> set[str]:
    return {key.stream for key in leases}


class Found(NamedTuple):
    """How the rows of a stream must change."""

    create: tuple[LeaseKey, ...] = ()
    reset: tuple[LeaseKey, ...] = ()
    """Of an earlier stream of the same name."""
    delete: tuple[LeaseKey, ...] = ()
    """Nothing can be read there any more."""


def compare(stream: str, info: StreamInfo | None, table: Table) -> Found:
    """What was described against what the rows say; None: there is no such stream."""
    rows = {key: known.row for key, known in table.leases.items() if key.stream == stream}
    if info is None:
        return Found(delete=tuple(sorted(rows)))
    readable = {LeaseKey(stream, partition_number(p.partition_id)) for p in info.partitions if p.readable}
    return Found(
        create=tuple(sorted(readable - rows.keys())),
        reset=tuple(sorted(key for key in readable & rows.keys() if rows[key].stream_id != info.stream_id)),
        delete=tuple(sorted(rows.keys() - readable)),
    )


def corrections(
    found: Found, stream_id: str, checkpoints: Mapping[int, tuple[str, str]], table: Table
) -> dict[LeaseKey, tuple[Swap, LeaseRow | None]]:
    """The changes that `found` asks for. `checkpoints`: what the service keeps for the app, for rows that are new.

    An owner of a row that is reset or deleted is not asked: what it reads is gone, and its next commit is refused.
    """
    changes: dict[LeaseKey, tuple[Swap, LeaseRow | None]] = {}
    streams = streams_of(found.create)
    known = [k.row for key, k in table.leases.items() if key.stream in streams and key not in found.reset]
    fresh = not checkpoints and all(row.fresh and row.checkpoint is None for row in known)
    for key in found.create:
        row = LeaseRow(v=VERSION, stream_id=stream_id, checkpoint=checkpoints.get(key.number), fresh=fresh)
        changes[key] = (Swap(key.text(), None, encode_row(row)), row)
    for key in found.reset:
        version, old = table.leases[key]
        row = LeaseRow(v=VERSION, stream_id=stream_id, token=old.token + 1, fresh=True)
        changes[key] = (Swap(key.text(), version, encode_row(row)), row)
    for key in found.delete:
        changes[key] = (Swap(key.text(), table.leases[key].version, None), None)
    return changes


# --- changes of one row ---------------------------------------------------------------------------------------------


def taken(row: LeaseRow, by: str, now_ms: int) -> LeaseRow:
    return replace(row, owner=by, heir="", token=row.token + 1, since_ms=now_ms)


def marked(row: LeaseRow, heir: str) -> LeaseRow:
    return replace(row, heir=heir)


def released(row: LeaseRow, now_ms: int) -> LeaseRow:
    """By its owner. The heir stays, so that everybody deals as before."""
    return replace(row, owner="", token=row.token + 1, since_ms=now_ms)
