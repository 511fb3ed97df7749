"""What of the dead letters is to be sent back, and what unparks their keys. Pure.

All letters and marks are looked at twice, in the same order. The first look, `note`, keeps what each letter is known
by, and no payload; `decide` chooses what is to be sent; the second look, `take`, sends it. Words:

    double       the same record again, written by a worker that died before its commit: sent once
    settled      a mark covers it: sent, or discarded, before
    selected     what the user asked for

The last letter of a parked key that is sent says which number is the key's last one (parking.py). It says so only if
no letter of the key stays behind; else the key stays parked, or a letter that is sent later would come too late.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .letters import Identity, Letter, Mark, Settled
from .parking import PREFIX, Redriven


@dataclass(frozen=True, slots=True)
class Group:
    """The letters of a key that is, or was, parked."""

    app: str
    stream: str
    partition_id: str
    key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which letters are meant; None: any."""

    app: str | None = None
    stream: str | None = None
    key: str | None = None
    since_ms: int | None = None
    """Written at or after it."""
    failed: bool = False
    """Only those that failed themselves."""

    def takes(self, letter: Letter) -> bool:
        return (
            self.app in (None, letter.app)
            and self.stream in (None, letter.stream)
            and self.key in (None, letter.key)
            and (self.since_ms is None or letter.at_ms >= self.since_ms)
            and not (self.failed and letter.followed)
        )


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A letter to be sent. `headers` are the record's own; of a parked key, `redriven` goes with them."""

    letter: Letter
    settled: Settled
    headers: dict[str, str]
    group: Group | None = None
    redriven: Redriven | None = None

    @property
    def last(self) -> bool:
        """It unparks its key, unless more was written meanwhile."""
        return self.redriven is not None and self.redriven.last is not None


class _Seen:
    __slots__ = ("again", "group", "number", "selected")

    def __init__(self, number: int, selected: bool, group: Group | None, again: bool) -> None:
        self.number = number
        self.selected = selected
        self.group = group
        self.again = again


class _Key:
    __slots__ = ("behind", "last", "left")

    def __init__(self) -> None:
        self.last = 0  # number of its last letter
        self.left = 0  # to be sent
        self.behind = 0  # neither settled nor to be sent


class Plan:
    """One look at all dead letters, and what follows from it."""

    def __init__(self, selection: Selection, *, limit: int | None = None, only: frozenset[Group] | None = None) -> None:
        """`only`: letters of these keys, as far as they only followed: of a key that failed again none is sent."""
        self._selection = selection
        self._limit = limit
        self._only = only
        self._seen: dict[Identity, _Seen] = {}
        self._settled: dict[Identity, int] = {}
        self._keys: dict[Group, _Key] = {}
        self._taken: set[Identity] = set()
        self._blocked: set[Group] = set()
        self.doubles = 0
        self.failed_again: set[Group] = set()
        """Of `only`: keys with a letter that failed itself and is not settled."""
        self.to_send = 0
        """Letters that are to be taken, those that were taken included."""

    def note(self, found: Letter | Mark) -> None:
        """The first look."""
        if isinstance(found, Mark):
            for settled in found.letters:
                identity = settled.identity
                self._settled[identity] = max(settled.number, self._settled.get(identity, 0))
            return
        identity = found.identity
        group = group_of(found)
        if group is not None:
            key = self._keys.setdefault(group, _Key())
            key.last = max(key.last, found.number)
        known = self._seen.get(identity)
        if known is None:
            self._seen[identity] = _Seen(found.number, self._selection.takes(found), group, not found.followed)
        else:
            self.doubles += 1
            known.number = max(known.number, found.number)
            known.group = known.group or group

    def decide(self) -> None:
        """All was noted once."""
        if self._only is not None:
            self.failed_again = {
                seen.group
                for identity, seen in self._seen.items()
                if seen.group in self._only and seen.again and not self.is_settled(identity)
            }
        for identity, seen in self._seen.items():
            if self.is_settled(identity):
                seen.selected = False
                continue
            if self._only is not None and (seen.group not in self._only or seen.group in self.failed_again):
                seen.selected = False
            if self._limit is not None and self.to_send >= self._limit:
                seen.selected = False
            self.to_send += seen.selected
            if seen.group is not None:
                key = self._keys[seen.group]
                key.left += seen.selected
                key.behind += not seen.selected

    def is_settled(self, identity: Identity) -> bool:
        return self._settled.get(identity, -1) >= self._seen[identity].number

    @property
    def letters(self) -> int:
        """Without doubles."""
        return len(self._seen)

    def take(self, letter: Letter) -> Outgoing | None:
        """The second look. None: it is not to be sent, or was already."""
        identity = letter.identity
        seen = self._seen.get(identity)
        if seen is None or not seen.selected or identity in self._taken or seen.group in self._blocked:
            return None
        self._taken.add(identity)
        settled = Settled.of(identity, seen.number)
        headers = _own(letter.headers)
        if seen.group is None:
            return Outgoing(letter, settled, headers)
        key = self._keys[seen.group]
        key.left -= 1
        last = None if key.left or key.behind else key.last
        place = letter.partition_id, letter.sequence_number, letter.index
        return Outgoing(letter, settled, headers, seen.group, Redriven(letter.app, *place, seen.number, last))

    def block(self, group: Group) -> None:
        """The letter that was taken last, of this key, cannot be sent: those behind it must not overtake it."""
        self._blocked.add(group)
        self.to_send -= self._keys[group].left

    def left_behind(self) -> dict[Group, int]:
        """Keys of which letters are sent and others are not, because they are not selected: how many."""
        touched = {seen.group for seen in self._seen.values() if seen.selected and seen.group is not None}
        return {group: self._keys[group].behind for group in touched if self._keys[group].behind}

    def check(self) -> None:
        """Assert every invariant, after `decide`."""
        assert self.to_send == len(self._taken) + sum(
            seen.selected and seen.group not in self._blocked and identity not in self._taken
            for identity, seen in self._seen.items()
        )
        for identity, seen in self._seen.items():
            assert not (seen.selected and self.is_settled(identity))
            assert identity not in self._taken or seen.selected
        for group, key in self._keys.items():
            mine = {i: seen for i, seen in self._seen.items() if seen.group == group and not self.is_settled(i)}
            assert key.left == sum(seen.selected and i not in self._taken for i, seen in mine.items())
            assert key.behind == sum(not seen.selected for seen in mine.values())


def group_of(letter: Letter) -> Group | None:
    """None: its key was not parked."""
    return Group(letter.app, letter.stream, letter.partition_id, letter.key) if letter.number else None


def _own(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Headers without those of an earlier way back."""
    return {name: value for name, value in (headers or {}).items() if not name.startswith(PREFIX)}
