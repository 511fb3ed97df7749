"""Who reads which partition: dealt evenly, with as few moves as that allows. Pure.

Of all ways to give every wanted partition to one member that wants it, take those whose loads are the most even (the
sum of their squares is least), and of these one that leaves the most partitions where they were. That is a minimum cost
flow, and is solved as one: start from a good guess, then look for a chain of moves that makes it better and carry it
out, until there is none. Nothing but the arguments counts, and they are put in order first: the same question has the
same answer everywhere: on a server, and with each of many consumers that agree through what they all can read.

Partitions that the same members want are alike: they form a *pool*, most often one for each stream. The graph in which
chains are looked for has a node for each member, one for each pool and one for all loads together:

    member -> pool     the member gives away a partition of the pool; costs 1 if only some that were its own are left
    pool -> member     somebody who wants it takes it
    member -> member   the first gives the second back what was its own; gains 1
    load -> member     a chain begins: its first member will have one less  (gains what its last partition costs)
    member -> load     a chain ends: its last member will have one more     (costs what one more partition costs)

A partition more costs a member its load, times more than all moves of a chain together. A cycle that gains something is
a better deal; none is left exactly when the deal is the best.

What that takes grows fast with the number of different wishes, and whoever joins a group chooses one, while everybody
waits. So the search ends after a fixed amount of work (`MAX_STEPS`) with the deal it has then, which is complete, and
the same for the same question; the next one goes on from there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=tuple[str, int])
"""What names a partition: its stream, and its number there."""

MAX_STEPS = 500_000
"""Edges looked at in one deal: some tenths of a second. A hundred members that want up to twenty streams each, all
different, need less."""


def assign(members: Mapping[str, Collection[K]], current: Mapping[K, str]) -> dict[K, str]:
    """A member for every partition that any of `members` wants.

    `current`: who had it before; may be anything, also members and partitions that are no more.
    """
    return _Deal(members, current).solve()


class _Pool(NamedTuple, Generic[K]):
    """Partitions that the same members want, both in order."""

    members: list[int]
    partitions: list[K]


class _Edge(NamedTuple):
    source: int
    target: int
    cost: int


class _Deal(Generic[K]):
    """Members and pools are numbers: members from 0, pools behind them, the load last."""

    def __init__(self, members: Mapping[str, Collection[K]], current: Mapping[K, str]) -> None:
        self._names = sorted(members)
        self._pools = _pools([frozenset(members[name]) for name in self._names])
        numbers = {name: i for i, name in enumerate(self._names)}
        self._loads = [0] * len(self._names)
        self._owner: dict[K, int] = {}
        self._pool_of: dict[K, int] = {}
        self._steps = 0
        self._home: dict[K, int] = {}
        # Of each (member, pool): what it holds that was its own before, and what was not. Dicts, to keep an order.
        self._own: defaultdict[tuple[int, int], dict[K, None]] = defaultdict(dict)
        self._new: defaultdict[tuple[int, int], dict[K, None]] = defaultdict(dict)
        for p, pool in enumerate(self._pools):
            takers = set(pool.members)
            for partition in pool.partitions:
                self._pool_of[partition] = p
                home = numbers.get(current.get(partition, ""))
                if home in takers:
                    assert home is not None
                    self._home[partition] = home

    def solve(self) -> dict[K, str]:
        self._guess()
        while cycle := self._better():
            self._carry_out(cycle)
        return {partition: self._names[owner] for partition, owner in sorted(self._owner.items())}

    def _guess(self) -> None:
        """Everything where it was, the rest where least is; then straight moves from the fullest to the emptiest."""
        for partition, home in self._home.items():
            self._give(partition, home)
        for pool in self._pools:
            for partition in pool.partitions:
                if partition not in self._owner:
                    self._give(partition, min(pool.members, key=self._loads.__getitem__))
        for p, pool in enumerate(self._pools):
            while True:
                holders = [m for m in pool.members if self._own[m, p] or self._new[m, p]]
                fullest = max(holders, key=self._loads.__getitem__)
                emptiest = min(pool.members, key=self._loads.__getitem__)
                if self._loads[fullest] < self._loads[emptiest] + 2:
                    break
                self._give(self._cheapest(fullest, p), emptiest)

    def _give(self, partition: K, taker: int) -> None:
        pool, home, giver = self._pool_of[partition], self._home.get(partition), self._owner.get(partition)
        if giver is not None:
            self._loads[giver] -= 1
            del (self._own if giver == home else self._new)[giver, pool][partition]
        self._owner[partition] = taker
        self._loads[taker] += 1
        (self._own if taker == home else self._new)[taker, pool][partition] = None

    def _cheapest(self, member: int, pool: int) -> K:
        """What `member` gives away of `pool`: rather what was not its own."""
        held = self._new[member, pool] or self._own[member, pool]
        return next(reversed(held))

    # --- better deals ---------------------------------------------------------------------------------------------

    def _edges(self) -> list[_Edge]:
        count, load = len(self._names), len(self._names) + len(self._pools)
        weight = 2 * load + 2  # a cycle visits a node once, so it holds fewer moves than there are nodes
        edges = []
        for m in range(count):
            edges.append(_Edge(m, load, weight * self._loads[m]))
            if self._loads[m]:
                edges.append(_Edge(load, m, -weight * (self._loads[m] - 1)))
        for p, pool in enumerate(self._pools):
            for m in pool.members:
                edges.append(_Edge(count + p, m, 0))
                new = self._new[m, p]
                if new or self._own[m, p]:
                    edges.append(_Edge(m, count + p, 0 if new else 1))
                edges += [_Edge(m, home, -1) for home in {self._home[n]: None for n in new if n in self._home}]
        return edges

    def _better(self) -> list[int]:
        """The nodes of a cycle that gains, in the direction of the moves (Bellman-Ford); empty: none was found."""
        edges = self._edges()
        self._steps += len(edges)
        nodes = len(self._names) + len(self._pools) + 1
        costs = [0] * nodes
        before = [-1] * nodes
        while self._steps < MAX_STEPS:
            self._steps += len(edges)
            changed = False
            for source, target, cost in edges:
                if costs[source] + cost < costs[target]:
                    costs[target] = costs[source] + cost
                    before[target] = source
                    changed = True
            if not changed:
                return []
            if cycle := _cycle(before):
                return cycle
        return []

    def _carry_out(self, cycle: list[int]) -> None:
        count, load = len(self._names), len(self._names) + len(self._pools)
        for i, node in enumerate(cycle):
            if node >= count:
                continue
            target = cycle[(i + 1) % len(cycle)]
            if target == load:
                continue
            if target >= count:
                partition = self._cheapest(node, target - count)
                target = cycle[(i + 2) % len(cycle)]
            else:
                partition = self._away(node, target)
            self._give(partition, target)

    def _away(self, holder: int, home: int) -> K:
        """A partition of `home`'s that `holder` has."""
        return next(
            partition
            for p in range(len(self._pools))
            for partition in self._new.get((holder, p), ())
            if self._home.get(partition) == home
        )


def _cycle(before: list[int]) -> list[int]:
    """A cycle among the arrows node -> before[node], turned round; empty if there is none. -1 is the end of a path."""
    seen_from = [-1] * len(before)
    for start in range(len(before)):
        node = start
        while node != -1 and seen_from[node] == -1:
            seen_from[node] = start
            node = before[node]
        if node != -1 and seen_from[node] == start:
            cycle = [node]
            while (node := before[node]) != cycle[0]:
                cycle.append(node)
            return cycle[::-1]
    return []


def _pools(wanted: list[frozenset[K]]) -> list[_Pool[K]]:
    """The pools, ordered by their first partition."""
    # Most members want the same, so what they want is looked at once for all of them.
    alike: dict[frozenset[K], list[int]] = {}
    for member, partitions in enumerate(wanted):
        alike.setdefault(partitions, []).append(member)
    takers: dict[K, tuple[int, ...]] = {}
    for number, partitions in enumerate(alike):
        for partition in partitions:
            takers[partition] = (*takers.get(partition, ()), number)
    kinds = list(alike.values())
    pools: dict[tuple[int, ...], _Pool[K]] = {}
    for partition, numbers in sorted(takers.items()):
        pool = pools.get(numbers)
        if pool is None:
            pool = pools[numbers] = _Pool(sorted(m for n in numbers for m in kinds[n]), [])
        pool.partitions.append(partition)
    return list(pools.values())
