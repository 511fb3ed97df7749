"""Members that decide alone from rows they read late, never share a partition, and come to rest with an even deal."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disstream.consumer.claims import Claims, Table, compare, corrections, marked, released, taken
from disstream.consumer.lease import MARGIN
from disstream.consumer.rows import (
    VERSION,
    LeaseKey,
    LeaseRow,
    MemberRow,
    encode_row,
    member_key,
    read_rows,
)
from disstream.errors import ConfigError
from disstream.leases.api import Row, Swap
from disstream.model import PartitionInfo, StreamInfo
from disstream.wire.partitioning import partition_id

SESSION_S = 10.0
LOOK_S = 0.5


class Store:
    """Rows that change by compare-and-set."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.version = 0
        self.tokens: Counter[LeaseKey] = Counter()
        self.made: list[Swap] = []

    def swap(self, swap: Swap) -> int | None:
        before = self.rows.get(swap.key)
        if (before.version if before else None) != swap.expected:
            return None
        self.version += 1
        self.made.append(swap)
        if swap.text is None:
            del self.rows[swap.key]
        else:
            self.rows[swap.key] = Row(self.version, swap.text)
        return self.version


@dataclass
class Actor:
    """What the shell around `Claims` does, one swap at a time, with a mirror of what it believes to hold."""

    store: Store
    name: str
    streams: tuple[str, ...]
    now: float
    dice: random.Random
    table: Table = field(default_factory=Table)
    held: set[LeaseKey] = field(default_factory=set)
    giving: set[LeaseKey] = field(default_factory=set)
    todo: list[tuple[str, LeaseKey | str, str]] = field(default_factory=list)
    reading: dict[str, Row] | None = None
    unread: list[str] = field(default_factory=list)
    alive: bool = True
    renewed_at: float = 0.0
    hangs_until: float = 0.0

    def __post_init__(self) -> None:
        self.claims = Claims(self.name, self.table)
        self.row = MemberRow(v=VERSION, beat=0, session_timeout_s=SESSION_S, streams=self.streams)
        version = self.store.swap(Swap(member_key(self.name), None, encode_row(self.row)))
        assert version is not None
        self.version = version
        self.renewed_at = self.now

    def may_act(self, now: float) -> bool:
        return now < self.renewed_at + SESSION_S * (1 - MARGIN)

    def renew(self, now: float) -> None:
        version = self.store.swap(Swap(member_key(self.name), self.version, encode_row(self.row)))
        if version is None:
            self.alive = False  # removed
            return
        self.version, self.renewed_at = version, now

    def begin_to_read(self) -> None:
        self.reading, self.unread = {}, sorted(self.store.rows)
        self.dice.shuffle(self.unread)

    def read_on(self, count: int) -> None:
        """Some rows: a store need not read all of them at one moment."""
        assert self.reading is not None
        for _ in range(min(count, len(self.unread))):
            key = self.unread.pop()
            if (row := self.store.rows.get(key)) is not None:
                self.reading[key] = row

    def look(self, now: float) -> None:
        """The answer came."""
        assert self.reading is not None
        self.read_on(len(self.unread))
        # What was made while it was read, as no store has to show it, but what was there before may not be missing.
        self.table.looked(self.reading)
        self.reading = None
        self.claims.looked(now)
        self.plan(now)

    def plan(self, now: float) -> None:
        self.todo.clear()
        plan = self.claims.plan(self.held, self.giving)
        self.claims.check()
        if plan.ended:
            self.alive = False
            return
        if not self.may_act(now):
            return
        for key in plan.lost:
            self.held.discard(key)
            self.giving.discard(key)
        self.todo += [("bury", name, "") for name in plan.bury]
        for key, heir in plan.give:
            self.todo.append(("give", key, heir))
        self.todo += [("take", key, "") for key in plan.take]
        self.held |= set(plan.open)

    def act(self, now: float) -> None:
        """The next change."""
        kind, what, heir = self.todo.pop(0)
        if kind == "bury":
            assert isinstance(what, str)
            known = self.table.members[what]
            if self.store.swap(Swap(member_key(what), known.version, None)) is not None:
                self.table.bury(what)
                if not any(left == "bury" for left, _, _ in self.todo):
                    self.plan(now)
            return
        assert isinstance(what, LeaseKey)
        if kind == "give":
            row = self.table.leases[what].row
            if row.heir == heir or self.change(what, marked(row, heir)):
                self.giving.add(what)
        elif self.change(what, taken(self.table.leases[what].row, self.name, 0)):
            self.held.add(what)

    def release(self, key: LeaseKey) -> None:
        """It is drained."""
        self.held.discard(key)
        if key in self.table.leases and self.table.leases[key].row.owner == self.name:
            self.change(key, released(self.table.leases[key].row, 0))
        self.giving.discard(key)

    def change(self, key: LeaseKey, row: LeaseRow) -> bool:
        version = self.store.swap(Swap(key.text(), self.table.leases[key].version, encode_row(row)))
        if version is None:
            return False
        self.table.wrote(key, version, row)
        return True


class World:
    def __init__(self, seed: int, partitions: dict[str, int]) -> None:
        self.dice = random.Random(seed)
        self.store = Store()
        self.now = 0.0
        self.actors: list[Actor] = []
        self.count = 0
        self.partitions: dict[str, int] = {}
        for stream, count in partitions.items():
            self.grow(stream, count)

    def grow(self, stream: str, count: int) -> None:
        for number in range(self.partitions.get(stream, 0), count):
            row = LeaseRow(v=VERSION, stream_id=f"id-{stream}")
            self.store.swap(Swap(LeaseKey(stream, number).text(), None, encode_row(row)))
        self.partitions[stream] = max(count, self.partitions.get(stream, 0))

    def join(self) -> None:
        self.count += 1
        streams = tuple(sorted(self.dice.sample(sorted(self.partitions), self.dice.randint(1, len(self.partitions)))))
        self.actors.append(Actor(self.store, f"m{self.count}/{self.count}", streams, self.now, self.dice))

    def leave(self, actor: Actor) -> None:
        """In peace."""
        for key in sorted(actor.held):
            actor.release(key)
        self.store.swap(Swap(member_key(actor.name), actor.version, None))
        self.actors.remove(actor)

    def step(self, *, stir: bool) -> None:
        """One thing happens somewhere."""
        dice = self.dice
        if stir and (dice.random() < 0.05 or not self.actors):
            match dice.choice(["join", "join", "leave", "die", "grow", "hang", "hang"]):
                case "join" if len(self.actors) < 5:
                    self.join()
                case "leave" if self.actors:
                    self.leave(dice.choice(self.actors))
                case "die" if self.actors:
                    self.actors.remove(dice.choice(self.actors))  # never heard of again, for all that it knows
                case "hang" if self.actors:
                    dice.choice(self.actors).hangs_until = self.now + dice.uniform(0.0, 3 * SESSION_S)
                case "grow":
                    stream = dice.choice(sorted(self.partitions))
                    self.grow(stream, min(self.partitions[stream] + 1, 8))
        if not self.actors:
            return
        actor = dice.choice(self.actors)
        if actor.hangs_until > self.now:
            self.now += dice.uniform(0.0, LOOK_S)
            return
        match dice.choice(["time", "renew", "read", "read", "look", "act", "act", "act", "release"]):
            case "time":
                self.now += dice.uniform(0.0, 2.0) if stir else dice.uniform(0.0, 0.3)
            case "renew":
                actor.renew(self.now)
            case "read" if actor.reading is None and not actor.todo:
                actor.begin_to_read()
            case "read" if actor.reading is not None:
                actor.read_on(dice.randint(1, 3))
            case "look" if actor.reading is not None:
                actor.look(self.now)
            case "act" if actor.todo and actor.may_act(self.now):
                actor.act(self.now)
            case "release" if actor.giving:
                actor.release(dice.choice(sorted(actor.giving)))
        for gone in [a for a in self.actors if not a.alive]:
            self.actors.remove(gone)  # it drops everything, and may join again under another name
        self.check()

    def check(self) -> None:
        """What must never be."""
        rows = read_rows(self.store.rows)
        for key, row in rows.leases.items():
            assert row.token >= self.store.tokens[key]
            self.store.tokens[key] = row.token
        acting = Counter(key for a in self.actors if a.may_act(self.now) for key in a.held)
        assert all(count == 1 for count in acting.values()), f"two act for {acting.most_common(1)}"
        for actor in self.actors:
            if actor.may_act(self.now):
                assert all(rows.leases[key].owner == actor.name for key in actor.held)

    def round(self, releases: int = 1000) -> int:
        """Everybody renews, looks, does all that follows, and releases; how many changes that made beside renewals.

        `releases`: at most, of all.
        """
        before = len(self.store.made)
        order = self.actors.copy()
        self.dice.shuffle(order)
        self.now += LOOK_S
        beats = 0
        for actor in order:
            actor.renew(self.now)
            beats += 1
            actor.begin_to_read()
        for actor in order:
            actor.look(self.now)
        working = order.copy()
        while working:
            actor = self.dice.choice(working)
            if actor.todo:
                actor.act(self.now)
            elif actor.giving and releases:
                releases -= 1
                actor.release(max(actor.giving))
            else:
                working.remove(actor)
            self.check()
        return len(self.store.made) - before - beats

    def loads(self) -> list[int]:
        return sorted(len(actor.held) for actor in self.actors)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 1000))
def test_nobody_shares_and_all_come_to_rest(seed: int, steps: int) -> None:
    """From any state: one owner at a time; when nothing changes any more, an even deal and silence within rounds."""
    world = World(seed, {"s": world_size(seed), "t": 2})
    world.join()
    for _ in range(steps):
        world.step(stir=True)
    if not world.actors:
        world.join()
    for actor in world.actors:
        actor.renew(world.now)
    world.actors = [actor for actor in world.actors if actor.alive]
    if not world.actors:
        world.join()
    for actor in world.actors:
        actor.reading, actor.todo = None, []
    quiet = 0
    rounds = 0
    deaths = int(SESSION_S / LOOK_S) + 3  # so long it takes until the last one that died is removed
    while quiet < 3:
        rounds += 1
        quiet = quiet + 1 if world.round() == 0 and rounds > deaths else 0
        assert rounds < deaths + 12, "it does not come to rest"
    names = {actor.name for actor in world.actors}
    rows = read_rows(world.store.rows)
    assert set(rows.members) == names
    wanted = {key for key in rows.leases if any(key.stream in a.streams for a in world.actors)}
    held = Counter(key for actor in world.actors for key in actor.held)
    assert held == Counter(wanted), "everything that is wanted is held once"
    assert not any(actor.giving for actor in world.actors)
    for actor in world.actors:  # even: no partition could go to somebody who wants it and has two fewer
        for key in actor.held:
            assert all(len(b.held) >= len(actor.held) - 1 for b in world.actors if key.stream in b.streams)


def world_size(seed: int) -> int:
    return seed % 8 + 1


def at_rest(members: int, partitions: int) -> World:
    world = World(1, {"s": partitions})
    for _ in range(members):
        world.join()
    while world.round():
        pass
    world.store.made.clear()
    return world


@pytest.mark.parametrize(("members", "partitions"), [(1, 8), (3, 8), (5, 3), (4, 40)])
def test_a_join_moves_no_more_than_it_must(members: int, partitions: int) -> None:
    """What stays is not written, so not paused; and one round of marks is enough."""
    world = at_rest(members, partitions)
    before = {key: actor.name for actor in world.actors for key in actor.held}
    world.join()
    rounds = 0
    while world.round():
        rounds += 1
    after = {key: actor.name for actor in world.actors for key in actor.held}
    moved = [key for key in before if before[key] != after[key]]
    assert len(moved) == partitions // (members + 1)
    assert rounds <= 3
    assert max(world.loads()) - min(world.loads()) <= 1


@pytest.mark.parametrize(("members", "partitions"), [(1, 8), (3, 24), (4, 40)])
def test_a_slow_hand_over_moves_no_more(members: int, partitions: int) -> None:
    """While partitions are given up one by one, and everybody looks in between, nothing else is marked."""
    world = at_rest(members, partitions)
    before = {key: actor.name for actor in world.actors for key in actor.held}
    world.join()
    world.round(releases=1)
    while any(actor.giving for actor in world.actors) or world.round():
        world.round(releases=1)
    after = {key: actor.name for actor in world.actors for key in actor.held}
    assert len([key for key in before if before[key] != after[key]]) == partitions // (members + 1)
    marks = [swap for swap in world.store.made if swap.text and '"heir"' in swap.text and '"owner"' in swap.text]
    assert len(marks) == partitions // (members + 1)


def test_at_rest_only_renewals_are_written() -> None:
    """A thousand looks change nothing."""
    world = at_rest(3, 8)
    assert not any(world.round() for _ in range(1000))


def test_a_member_is_silent_only_while_somebody_listens() -> None:
    """An outage of the store, or a listener that slept, buries nobody; a session time-out of silence does."""
    world = at_rest(2, 4)
    listener, silent = world.actors
    listener.claims.looked(world.now)
    for hours in (1.0, 2.0):
        listener.claims.looked(world.now + hours * 3600)
    assert silent.name not in listener.claims.plan(listener.held, set()).bury, "two looks count two thirds of a session"
    now = world.now + 3 * 3600
    for _ in range(int(SESSION_S / LOOK_S)):
        listener.renew(now := now + LOOK_S)
        listener.begin_to_read()
        listener.look(now)
    assert listener.claims.plan(listener.held, set()).bury == (silent.name,)


def test_who_cannot_write_judges_nobody() -> None:
    """While a store can only be read all are silent; when it takes writes again each has time for a renewal."""
    world = at_rest(2, 4)
    listener, silent = world.actors
    now = world.now
    for _ in range(int(10 * SESSION_S / LOOK_S)):
        now += LOOK_S
        listener.begin_to_read()
        listener.look(now)
    listener.renew(now)
    for _ in range(int(SESSION_S / 4 / LOOK_S)):
        listener.renew(now := now + LOOK_S)
        listener.begin_to_read()
        listener.look(now)
        assert silent.name not in listener.claims.plan(listener.held, set()).bury
    for _ in range(int(SESSION_S / LOOK_S)):
        listener.renew(now := now + LOOK_S)
        listener.begin_to_read()
        listener.look(now)
    assert listener.claims.plan(listener.held, set()).bury == (silent.name,), "it never came back"


def test_an_owner_without_a_row_may_have_come_meanwhile() -> None:
    """When a lease is seen for the first time nobody can say that its owner has ended: a read may be of two moments."""
    store = Store()
    store.swap(Swap("lease/s/0", None, encode_row(LeaseRow(v=VERSION, stream_id="i"))))
    actor = Actor(store, "a/1", ("s",), 0.0, random.Random(1))
    actor.begin_to_read()
    actor.read_on(10)
    other = Actor(store, "b/1", ("s",), 0.0, random.Random(1))
    row = taken(LeaseRow(v=VERSION, stream_id="i"), other.name, 0)
    assert actor.reading is not None
    actor.reading["lease/s/0"] = Row(99, encode_row(row))  # of a later moment than the members
    actor.look(0.0)
    assert not actor.todo
    actor.table.looked(
        {key: r for key, r in actor.store.rows.items() if key != "member/b/1"} | {"lease/s/0": Row(99, encode_row(row))}
    )
    assert actor.claims.plan((), ()).take == (LeaseKey("s", 0),), "seen twice: it has ended"


def described(*statuses: str, stream_id: str = "i") -> StreamInfo:
    partitions = tuple(PartitionInfo(partition_id=partition_id(n), status=s) for n, s in enumerate(statuses))
    return StreamInfo(name="s", stream_id=stream_id, status="RUNNING", partitions=partitions)


def test_rows_follow_what_there_is_to_read() -> None:
    """New partitions get rows, expired ones lose them, those of an earlier stream begin anew; a second time nothing."""
    store, table = Store(), Table()

    def apply(info: StreamInfo | None, checkpoints: dict[int, tuple[str, str]]) -> tuple[int, int, int]:
        found = compare("s", info, table)
        changes = corrections(found, info.stream_id if info else "", checkpoints, table)
        assert all(store.swap(swap) is not None for swap, _ in changes.values())
        table.looked(store.rows)
        table.check()
        assert compare("s", info, table) == ((), (), ())
        return len(found.create), len(found.reset), len(found.delete)

    assert apply(described("ACTIVE", "ACTIVE"), {}) == (2, 0, 0)
    assert all(known.row.fresh for known in table.leases.values())
    assert apply(described("ACTIVE", "ACTIVE", "ACTIVE"), {2: ("7", "x")}) == (1, 0, 0)
    assert table.leases[LeaseKey("s", 2)].row.checkpoint == ("7", "x")
    assert not table.leases[LeaseKey("s", 2)].row.fresh, "the app has read of the stream before"
    assert apply(described("ACTIVE", "DELETED", "EXPIRED"), {}) == (0, 0, 1)
    assert apply(described("ACTIVE", "ACTIVE", stream_id="j"), {}) == (0, 2, 0)
    assert all(known.row.fresh and not known.row.owner for known in table.leases.values())
    assert apply(None, {}) == (0, 0, 2)


@pytest.mark.parametrize(
    ("key", "text", "told"),
    [
        ("lease/s/0", '{"v":2,"shape":[]}', "version 2"),
        ("member/a/1", '{"v":2}', "version 2"),
        ("lease/s/0", '{"v":1}', "stream_id"),
        ("lease/s/0", "hello", "not written by a consumer"),
        ("lease/s/0", '{"v":1,"stream_id":"i","checkpoint":["-4",""]}', "its checkpoint is '-4'"),
        ("lease/s", '{"v":1,"stream_id":"i"}', "lease/s"),
        ("something", "{}", "something"),
    ],
)
def test_rows_of_others_are_refused(key: str, text: str, told: str) -> None:
    """A newer version, and what no consumer wrote: with the row's key and what to do."""
    for read in (read_rows, Table().looked):
        with pytest.raises(ConfigError, match=told):
            read({key: Row(1, text)})


def test_rows_read_as_they_were_written() -> None:
    """Also what is left out because it says nothing."""
    member = MemberRow(v=VERSION, beat=3, session_timeout_s=30.0, pattern="a.*")
    lease = LeaseRow(v=VERSION, stream_id="i", owner="a/1", token=2, checkpoint=("41", "x"))
    free = LeaseRow(v=VERSION, stream_id="i")
    key, other = LeaseKey("a-b", 0), LeaseKey("x/y", 12)
    rows = {
        member_key("m/1"): Row(1, encode_row(member)),
        key.text(): Row(2, encode_row(lease)),
        other.text(): Row(3, encode_row(free)),
    }
    assert read_rows(rows) == ({"m/1": member}, {key: lease, other: free})
    assert encode_row(free) == '{"v":1,"stream_id":"i"}'
