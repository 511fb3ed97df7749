"""What of the dead letters is to be sent back, and what unparks their keys. Pure.

All letters and marks are looked at twice, in the same order. The first look, `note`, keeps what each letter is known
by, and no payload; `decide` chooses what is to be sent; the second look, `take`, sends it. Words:

    double       the same record again, written by a worker that died before its commit: sent once
    settled      a mark covers it: sent, or discarded, before
    selected     what the user asked for, without what would overtake letters of its key that are not
    behind       neither settled nor selected

The last letter of a parked key that is sent tells the place of the key's last letter (parking.py). It tells it only if
no letter of the key stays behind; else the key stays parked, or a letter that is sent later would come too late.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

from .letters import Identity, Letter, Mark
from .parking import PREFIX, Place, Redriven, origin


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
    headers: dict[str, str]
    group: Group | None = None
    redriven: Redriven | None = None

    @property
    def last(self) -> bool:
        """It unparks its key, unless more was written meanwhile."""
        return self.redriven is not None and self.redriven.last is not None


class _Seen:
    __slots__ = ("failed", "group", "origin", "selected")

    def __init__(self, letter: Letter, selected: bool) -> None:
        self.group = group_of(letter)
        self.origin = _origin(letter)
        self.failed = not letter.followed
        self.selected = selected


class _Key:
    __slots__ = ("behind", "last", "left", "origins")

    def __init__(self) -> None:
        self.last: Place = (0, 0)  # the last letter's
        self.left = 0  # to be sent
        self.behind = 0  # neither settled nor to be sent
        self.origins: list[Place] = []  # of all letters that were not discarded, sorted


class Plan:
    """One look at all dead letters, and what follows from it."""

    def __init__(
        self,
        selection: Selection,
        *,
        limit: int | None = None,
        only: frozenset[Group] | None = None,
        discard: bool = False,
    ) -> None:
        """`only`: letters of these keys, as far as they only followed: of a key that failed again none is sent.

        `discard`: none is to be sent, so that what stays behind is not overtaken.
        """
        self._selection = selection
        self._limit = limit
        self._only = only
        self._discard = discard
        self._seen: dict[Identity, _Seen] = {}
        self._settled: set[Identity] = set()
        self._discarded: set[Identity] = set()
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
            self._settled.update(found.letters)
            if found.discarded:
                self._discarded.update(found.letters)
            return
        identity = found.identity
        if identity in self._seen:
            self.doubles += 1
            return
        seen = self._seen[identity] = _Seen(found, self._selection.takes(found))
        if seen.group is not None:
            key = self._keys.setdefault(seen.group, _Key())
            key.last = max(key.last, (found.sequence_number, found.index))

    def decide(self) -> None:
        """All was noted once."""
        open_letters = {i: seen for i, seen in self._seen.items() if i not in self._settled}
        if self._only is not None:
            self.failed_again = {s.group for s in open_letters.values() if s.failed and s.group in self._only}
        by_key: dict[Group, list[_Seen]] = {}
        for seen in open_letters.values():
            if self._only is not None and (seen.group not in self._only or seen.group in self.failed_again):
                seen.selected = False
            if seen.group is not None:
                by_key.setdefault(seen.group, []).append(seen)
        if not self._discard:
            for letters in by_key.values():
                self._keep_order(letters)
        for identity, seen in self._seen.items():
            if identity in self._settled:
                seen.selected = False
            elif self._limit is not None and self.to_send >= self._limit:
                seen.selected = False
            self.to_send += seen.selected
        for identity, seen in self._seen.items():
            if seen.group is not None and identity not in self._discarded:
                self._keys[seen.group].origins.append(seen.origin)
        for group, letters in by_key.items():
            self._keys[group].origins.sort()
            if not self._discard:
                self.to_send -= self._keep_order(letters)
            key = self._keys[group]
            key.left = sum(seen.selected for seen in letters)
            key.behind = len(letters) - key.left

    def _keep_order(self, letters: list[_Seen]) -> int:
        """Of a key: nothing is sent behind the first that is not. How many are not sent because of that."""
        letters.sort(key=lambda seen: seen.origin)
        first = next((i for i, seen in enumerate(letters) if not seen.selected), len(letters))
        overtaking = [seen for seen in letters[first:] if seen.selected]
        for seen in overtaking:
            seen.selected = False
        return len(overtaking)

    def is_settled(self, identity: Identity) -> bool:
        return identity in self._settled

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
        headers = _own(letter.headers)
        if seen.group is None:
            return Outgoing(letter, headers)
        key = self._keys[seen.group]
        key.left -= 1
        last = None if key.left or key.behind else key.last
        before = bisect_left(key.origins, seen.origin)
        after = key.origins[before - 1] if before else None
        redriven = Redriven(letter.app, letter.partition_id, seen.origin, after, last, self._discard)
        return Outgoing(letter, headers, seen.group, redriven)

    def block(self, group: Group) -> None:
        """The letter that was taken last, of this key, cannot be sent: those behind it must not overtake it."""
        self._blocked.add(group)
        self.to_send -= self._keys[group].left

    def left_behind(self) -> dict[Group, int]:
        """Keys of which some letters are selected and others are not: how many are not."""
        touched = {seen.group for seen in self._seen.values() if seen.selected and seen.group is not None}
        return {group: self._keys[group].behind for group in touched if self._keys[group].behind}

    def check(self) -> None:
        """Assert every invariant, after `decide`."""
        assert self.to_send == len(self._taken) + sum(
            seen.selected and seen.group not in self._blocked and identity not in self._taken
            for identity, seen in self._seen.items()
        )
        assert self._limit is None or self.to_send <= self._limit
        for identity, seen in self._seen.items():
            assert not (seen.selected and identity in self._settled)
            assert identity not in self._taken or seen.selected
        for group, key in self._keys.items():
            mine = {i: seen for i, seen in self._seen.items() if seen.group == group and i not in self._settled}
            assert key.left == sum(seen.selected and i not in self._taken for i, seen in mine.items())
            assert key.behind == sum(not seen.selected for seen in mine.values())
            if not self._discard:
                behind = [seen.origin for seen in mine.values() if not seen.selected]
                assert all(seen.origin <= min(behind) for seen in mine.values() if behind and seen.selected)


def group_of(letter: Letter) -> Group | None:
    """None: its key was not parked."""
    return Group(letter.app, letter.stream, letter.partition_id, letter.key) if letter.parked else None


def _origin(letter: Letter) -> Place:
    return origin(letter.app, letter.partition_id, (letter.sequence_number, letter.index), letter.headers)


def _own(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Headers without those of an earlier way back."""
    return {name: value for name, value in (headers or {}).items() if not name.startswith(PREFIX)}
