"""Keys stay in order over changes of the layout: nothing behind a bound before all that lies before it is finished."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.consumer.layouts import Layouts
from disstream.model import LayoutBound

BOUNDS = {"0": [LayoutBound(1, 10), LayoutBound(2, 10)], "1": [LayoutBound(1, 5), LayoutBound(2, 7)]}


def made(changes: int = 2) -> Layouts:
    layouts = Layouts()
    layouts.learn(changes, BOUNDS)
    layouts.check()
    return layouts


def test_a_stream_that_was_never_scaled_holds_nobody() -> None:
    """Nothing to wait for, whatever is asked."""
    layouts = Layouts()
    layouts.learn(0, {"0": ()})
    assert not layouts.open
    assert layouts.limit("0") is None
    assert not layouts.advance(lambda _: 0)


def test_everybody_waits_for_the_last_one() -> None:
    """A partition at its bound waits; once the last one is there, all go on to their next bounds."""
    layouts = made()
    places: dict[str, float | None] = {"0": 10, "1": 4}
    assert not layouts.advance(places.get)
    assert layouts.awaited == {"1": 5}
    assert (layouts.limit("0"), layouts.limit("1")) == (10, 5)
    places["1"] = None
    assert not layouts.advance(places.get), "a place that nobody knows is not behind a bound"
    places["1"] = 5
    assert layouts.advance(places.get)
    assert (layouts.passed, layouts.limit("0"), layouts.limit("1")) == (1, 10, 7)
    places["1"] = 7
    assert layouts.advance(places.get)
    assert (layouts.passed, layouts.open, layouts.limit("0")) == (2, False, None)


def test_several_changes_are_passed_at_once_by_who_stands_behind_them() -> None:
    """Old changes hold up nobody who begins behind them."""
    layouts = made()
    assert layouts.advance(lambda _: 10)
    assert layouts.passed == 2


def test_a_change_that_the_description_did_not_count_is_not_relied_on() -> None:
    """Its bounds may be those of some partitions only: a page will tell of it in time."""
    layouts = made(1)
    assert layouts.known == 1
    assert layouts.advance(lambda pid: {"0": 10, "1": 5}[pid])
    assert not layouts.open


def test_what_the_service_forgot_is_waited_for_until_it_is_finished() -> None:
    """Records that have expired may still be in hand."""
    layouts = made()
    layouts.learn(3, {"0": [LayoutBound(3, 20)]})
    assert layouts.limit("0") == 10
    assert layouts.advance(lambda pid: {"0": 10, "1": 7}[pid])
    assert (layouts.passed, layouts.limit("0"), layouts.limit("1")) == (2, 20, None)
    layouts.check()


def test_who_goes_back_is_waited_for_again() -> None:
    """Between the bounds there is nothing to wait for; before them the change counts again."""
    layouts = made()
    layouts.advance(lambda _: 10)
    assert not layouts.back("1", 7)
    assert not layouts.open
    assert layouts.back("1", 6)
    assert (layouts.passed, layouts.limit("0"), layouts.limit("1")) == (1, 10, 7)
    assert layouts.back("1", None)
    assert (layouts.passed, layouts.limit("0"), layouts.limit("1")) == (0, 10, 5)
    assert layouts.advance(lambda _: 10)
    assert not layouts.open


@dataclass
class Part:
    """A partition with all that was written to it. `ever`: what was finished at least once, whoever did it."""

    keys: list[tuple[str, int, int]] = field(default_factory=list)  # key, its number, the layout
    bounds: list[LayoutBound] = field(default_factory=list)
    active: bool = True
    handed: int = 0
    finished: int = 0
    committed: int = 0
    ever: int = 0


class World:
    """A stream that is scaled while members hand out, finish, commit, and take partitions over from each other."""

    def __init__(self, seed: int, members: int) -> None:
        self.dice = Random(seed)
        self.parts = {"0": Part(), "1": Part()}
        self.changes = 0
        self.numbers = [0] * 6
        self.owner = {"0": 0, "1": 0}
        self.layouts = [Layouts() for _ in range(members)]

    def active(self) -> list[str]:
        return [pid for pid, part in self.parts.items() if part.active]

    def write(self) -> None:
        for _ in range(self.dice.randint(1, 6)):
            key = self.dice.randrange(len(self.numbers))
            pids = self.active()
            part = self.parts[pids[(key + self.changes) % len(pids)]]
            part.keys.append((str(key), self.numbers[key], self.changes))
            self.numbers[key] += 1

    def scale(self) -> None:
        count = self.dice.randint(1, 5)
        chosen = {str(n) for n in range(count)}
        self.changes += 1
        for pid in sorted(chosen - self.parts.keys()):
            self.parts[pid] = Part(active=False)
            self.owner[pid] = self.dice.randrange(len(self.layouts))
        for pid, part in self.parts.items():
            if part.active or pid in chosen:
                part.bounds.append(LayoutBound(self.changes, len(part.keys)))
            part.active = pid in chosen

    def place(self, member: int, pid: str) -> float:
        part = self.parts[pid]
        return part.finished if self.owner[pid] == member else part.committed

    def look(self, member: int) -> None:
        layouts = self.layouts[member]
        layouts.learn(self.changes, {pid: part.bounds for pid, part in self.parts.items()})
        layouts.advance(lambda pid: self.place(member, pid))
        layouts.check()

    def mine(self, member: int) -> list[str]:
        return [pid for pid, owner in self.owner.items() if owner == member]

    def hand_out(self, member: int, pid: str) -> bool:
        """One record, if it may be: the page told of all changes before it, so the member has looked."""
        part = self.parts[pid]
        self.look(member)
        limit = self.layouts[member].limit(pid)
        end = len(part.keys) if limit is None else min(limit, len(part.keys))
        if part.handed >= end:
            return False
        key, number, layout = part.keys[part.handed]
        for other in self.parts.values():
            if other is part or part.handed < part.ever:
                continue  # read again, by who took it over
            for k, n, before in other.keys[other.ever :]:
                assert before >= layout, f"{key}:{number} of layout {layout} comes before {k}:{n} of {before}"
        part.handed += 1
        return True

    def finish(self, pid: str) -> bool:
        part = self.parts[pid]
        if part.finished == part.handed:
            return False
        part.finished += 1
        part.ever = max(part.ever, part.finished)
        return True

    def commit(self, member: int) -> bool:
        moved = False
        for pid in self.mine(member):
            part = self.parts[pid]
            moved = moved or part.committed < part.finished
            part.committed = part.finished
        return moved

    def move(self) -> None:
        """A partition goes to another member, which begins at the checkpoint: what was not committed comes again."""
        pid = self.dice.choice(list(self.parts))
        part = self.parts[pid]
        if self.dice.random() < 0.5:
            part.committed = part.finished
        self.owner[pid] = self.dice.randrange(len(self.layouts))
        part.handed = part.finished = part.committed

    def everybody(self) -> bool:
        """Each does what it can. Whether anything happened."""
        happened = False
        for member in range(len(self.layouts)):
            for pid in self.mine(member):
                happened = self.hand_out(member, pid) or happened
                happened = self.finish(pid) or happened
            happened = self.commit(member) or happened
        return happened


@pytest.mark.parametrize("members", [1, 2, 3])
@given(seed=st.integers(0, 2**32))
def test_order_over_random_layouts_without_dead_lock(members: int, seed: int) -> None:
    """No record of a layout while one of an earlier one is unfinished elsewhere; and in the end all are handed out."""
    world = World(seed, members)
    dice = world.dice
    for _ in range(dice.randint(10, 60)):
        match dice.choice(["write", "write", "scale", "take", "take", "take", "finish", "finish", "commit", "move"]):
            case "write":
                world.write()
            case "scale":
                world.scale()
            case "take":
                pid = dice.choice(list(world.parts))
                world.hand_out(world.owner[pid], pid)
            case "finish":
                world.finish(dice.choice(list(world.parts)))
            case "commit":
                world.commit(dice.randrange(members))
            case "move" if members > 1:
                world.move()
    while world.everybody():
        pass
    assert all(part.committed == len(part.keys) for part in world.parts.values())
