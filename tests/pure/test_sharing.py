"""Shares are dealt to who wants them, as evenly as can be, with no needless move, and always the same way."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.engine import PartitionRef
from disstream.wire import sharing
from disstream.wire.sharing import assign

MEMBERS = ("ann", "bob", "cyd", "dan", "eve")
PARTITIONS = tuple(PartitionRef(stream, number) for stream in ("s", "t") for number in range(3))

T = TypeVar("T")
Wants = dict[str, set[PartitionRef]]
Owners = dict[PartitionRef, str]

wants = st.dictionaries(st.sampled_from(MEMBERS[:4]), st.sets(st.sampled_from(PARTITIONS)))
alike = st.builds(
    lambda names, count: {name: {PartitionRef("s", n) for n in range(count)} for name in names},
    st.sets(st.sampled_from(MEMBERS), min_size=1),
    st.integers(0, 40),
)
garbage = st.dictionaries(
    st.sampled_from((*PARTITIONS, PartitionRef("gone", 0))), st.sampled_from((*MEMBERS, "stranger"))
)
crooked = st.dictionaries(st.builds(PartitionRef, st.just("s"), st.integers(0, 45)), st.sampled_from((*MEMBERS, "x")))


def loads(members: Wants, owners: Owners) -> Counter[str]:
    return Counter({member: 0 for member in members} | Counter(owners.values()))


def score(members: Wants, owners: Owners, current: Owners) -> tuple[int, int]:
    """(unevenness, moves): less is better, unevenness first."""
    uneven = sum(load * load for load in loads(members, owners).values())
    return uneven, sum(current.get(partition) != owner for partition, owner in owners.items())


def best_score(members: Wants, current: Owners) -> tuple[int, int]:
    """By trying all ways."""
    partitions = sorted(set().union(*members.values()))
    takers = [[member for member in members if partition in members[member]] for partition in partitions]
    ways = (dict(zip(partitions, owners, strict=True)) for owners in itertools.product(*takers))
    return min(score(members, way, current) for way in ways)


@given(members=wants, current=garbage)
def test_everything_wanted_has_one_owner_that_wants_it(members: Wants, current: Owners) -> None:
    """No partition is left over, none is given to who does not want it, whatever was before."""
    owners = assign(members, current)
    assert set(owners) == set().union(*members.values())
    assert all(partition in members[owner] for partition, owner in owners.items())


@given(members=wants, current=garbage)
def test_nothing_is_better(members: Wants, current: Owners) -> None:
    """Of all possible ways it is the most even one, and of the most even ones one with the fewest moves."""
    assert score(members, assign(members, current), current) == best_score(members, current)


@given(members=alike, current=crooked)
def test_equal_interests_are_at_most_one_apart(members: Wants, current: Owners) -> None:
    """Where all want the same, nobody has two more than another, and nobody gives away what it need not."""
    owners = assign(members, current)
    found = loads(members, owners)
    assert max(found.values()) - min(found.values()) <= 1
    floor, ceilings = divmod(len(owners), len(members))
    before = sorted((Counter(current.get(p) for p in owners)[member] for member in members), reverse=True)
    # Those who had most keep the larger shares.
    kept = sum(min(had, floor + (rank < ceilings)) for rank, had in enumerate(before))
    assert score(members, owners, current)[1] == len(owners) - kept


@given(members=st.one_of(wants, alike), current=garbage)
def test_asked_again_nothing_moves(members: Wants, current: Owners) -> None:
    """What was dealt once is dealt so again: from any state one deal is enough."""
    owners = assign(members, current)
    assert assign(members, owners) == owners


@given(members=wants, current=garbage, seed=st.integers(0, 99))
def test_order_does_not_count(members: Wants, current: Owners, seed: int) -> None:
    """The order of members, of partitions and of what was before changes nothing."""
    dice = random.Random(seed)

    def shuffled(items: list[T]) -> list[T]:
        return dice.sample(items, len(items))

    again = {member: shuffled(sorted(members[member])) for member in shuffled(sorted(members))}
    before = {partition: current[partition] for partition in shuffled(sorted(current))}
    assert assign(again, before) == assign(members, current)


@given(members=alike, leaves=st.sampled_from(MEMBERS))
def test_only_what_a_leaver_had_moves(members: Wants, leaves: str) -> None:
    """When a member leaves, its partitions are taken over and no other moves; when it comes back, only to it."""
    before = assign(members, {})
    rest = {member: partitions for member, partitions in members.items() if member != leaves}
    if not rest:
        return
    without = assign(rest, before)
    assert all(without[partition] == owner for partition, owner in before.items() if owner != leaves)
    back = assign(members, without)
    assert all(back[partition] in (owner, leaves) for partition, owner in without.items())


def test_a_chain_of_moves() -> None:
    """Loads even out over members that share no partition with each other."""
    s = [PartitionRef("s", n) for n in range(6)]
    members = {"ann": s[:4], "bob": s[2:5], "cyd": s[4:]}
    current = {s[0]: "ann", s[1]: "ann", s[2]: "ann", s[3]: "ann", s[4]: "bob", s[5]: "bob"}
    owners = assign(members, current)
    assert Counter(owners.values()) == {"ann": 2, "bob": 2, "cyd": 2}


def test_many_of_both() -> None:
    """A hundred members and a thousand partitions take well under a second, from nothing and from the worst state."""
    partitions = [PartitionRef("s", n) for n in range(1_000)]
    members = {f"m{n}": partitions for n in range(100)}
    began = time.process_time()
    fresh = assign(members, {})
    piled = assign(members, dict.fromkeys(partitions, "m7"))
    assert time.process_time() - began < 2.0
    for owners in (fresh, piled):
        assert set(Counter(owners.values()).values()) == {10}
    assert sum(owner == "m7" for owner in piled.values()) == 10


def test_the_search_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the work is used up the deal is complete all the same, and the next one goes on from there."""
    # A row in which everybody shares one stream with the next, and the first has far too much.
    members = {f"m{n}": {PartitionRef(f"s{k}", p) for k in (n, n + 1) for p in range(4)} for n in range(12)}
    before = {partition: member for member in reversed(members) for partition in members[member]}
    members["m0"] |= {PartitionRef("own", n) for n in range(20)}
    best = score(members, assign(members, before), {})[0]
    monkeypatch.setattr(sharing, "MAX_STEPS", 0)
    owners = assign(members, before)
    assert set(owners) == set().union(*members.values())
    assert all(partition in members[owner] for partition, owner in owners.items())
    assert score(members, owners, {})[0] > best
    monkeypatch.undo()
    assert score(members, assign(members, owners), {})[0] == best
