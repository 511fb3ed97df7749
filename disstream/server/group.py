"""The state machine of one group: members of an app that share the partitions of its streams. Pure.

    EMPTY ──join──> JOINING ──round ends──> SYNCING ──all have synced──> STABLE
                       ^                       │                           │
                       └───────────────────────┴── who reads what changes ─┘     no member left: EMPTY, from everywhere

JOINING   A round: those who join it share the partitions when it ends. It ends once its delay is over and all members
          have joined, or after the rebalance time-out (the largest any member asked for): who has not joined by then is
          dropped. Until a member joins the round, or the round ends, its share of the last generation is still its own:
          it may commit what it finished.
SYNCING   The shares of a new generation stand; members fetch them. Who has not after the rebalance time-out is dropped.
STABLE    All members know their shares.

A generation is a number that only grows, also over EMPTY. Nothing that moves a partition from one member to another
happens without it: the end of a round is the only place where shares are dealt.

Two halves. `GroupDoc` is what must survive: it is stored before anybody is told. When a member was heard and when the
running phase began is known to this process only: what is not known counts as now, so after a restart everybody has one
session of grace, and a running phase starts its clock anew. Nothing runs by itself: `advance` comes before every other
call and does what time asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from ..engine import PartitionRef
from ..errors import ApiError
from ..model import GroupInfo, GroupMember
from ..wire.errors import api_error
from ..wire.groups import NO_GENERATION, HeartbeatState, SyncAnswer
from ..wire.sharing import assign

State = Literal["EMPTY", "JOINING", "SYNCING", "STABLE"]

MAX_MEMBERS = 1_000
MAX_WANTED = 1_000_000
"""Partitions wanted, summed over the members: what bounds the work of dealing them."""
MAX_VIEWED = 20_000
"""Partitions that different subscriptions stand for, summed over these. Each is stored, and handled one by one in every
deal while all requests wait; members that want the same cost nothing more."""


class Subscription(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a member wants to read: streams by name and by id, and all whose names match a pattern."""

    names: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    pattern: str = ""


class StreamView(msgspec.Struct, frozen=True):
    """A stream as it was last seen: its id and the numbers of its readable partitions."""

    stream_id: str
    partitions: tuple[int, ...]


Views = dict[str, StreamView]
"""What a subscription stands for: the streams that exist, as their reader calls them, each once."""


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    """`joined` the running round, `synced` the current generation. `partitions`: stream id -> numbers, ascending."""

    subscription: Subscription
    rebalance_timeout_ms: int
    joined: bool = False
    synced: bool = False
    partitions: dict[str, tuple[int, ...]] = {}


class GroupDoc(msgspec.Struct, frozen=True, omit_defaults=True):
    """The durable half. `delay_ms`: how long the running round stays open at least.

    `seen`: what the members' subscriptions stand for, each subscription once. In SYNCING and STABLE the shares were
    dealt from it.
    """

    state: State = "EMPTY"
    generation: int = NO_GENERATION
    delay_ms: int = 0
    members: dict[str, Member] = {}
    seen: tuple[tuple[Subscription, Views], ...] = ()


class Group:
    """A group in this process: its document and its clocks. All calls but `load` want `advance` before them."""

    def __init__(self, session_timeout_s: float, join_delay_s: float, max_members: int | None = None) -> None:
        self._session_timeout_s = session_timeout_s
        self._join_delay_s = join_delay_s
        self._max_members = max_members
        self.doc = GroupDoc()
        self._heard: dict[str, float] = {}
        self._phase: tuple[int, State] = (NO_GENERATION, "EMPTY")
        self._began = 0.0

    def load(self, doc: GroupDoc, now: float) -> None:
        """Go on from what is stored. Members and phases that this process knows keep their times."""
        self.doc = doc
        self._heard = {member_id: self._heard.get(member_id, now) for member_id in doc.members}
        self._keep_time(now)

    def views(self, subscription: Subscription) -> Views | None:
        """What it stood for when it was last looked up; None: no member has it."""
        return dict(self.doc.seen).get(subscription)

    # --- time -----------------------------------------------------------------------------------------------------

    def advance(self, now: float) -> None:
        """Drop the silent, end the round or its aftermath if they have waited long enough."""
        members = self.doc.members
        alive = {m: member for m, member in members.items() if now - self._heard[m] <= self._session_timeout_s}
        if len(alive) < len(members):
            self._remain(alive, now)
        waited_s = now - self._began
        patience_s = max((m.rebalance_timeout_ms for m in self.doc.members.values()), default=0) / 1000
        if self.doc.state == "JOINING":
            joined = {m: member for m, member in self.doc.members.items() if member.joined}
            complete = len(joined) == len(self.doc.members) and waited_s >= self.doc.delay_ms / 1000
            if complete or waited_s >= patience_s:
                self._deal(joined, now)
        elif self.doc.state == "SYNCING" and waited_s >= patience_s:
            self._remain({m: member for m, member in self.doc.members.items() if member.synced}, now)

    def _keep_time(self, now: float) -> None:
        phase = (self.doc.generation, self.doc.state)
        if self._phase != phase:
            self._phase, self._began = phase, now

    def _become(
        self, state: State, now: float, *, members: dict[str, Member], delay_s: float = 0.0, passed: int = 0
    ) -> None:
        generation = self.doc.generation + (state == "SYNCING") + passed
        self._heard = {member_id: self._heard.get(member_id, now) for member_id in members}
        self.doc = GroupDoc(
            state=state,
            generation=generation,
            delay_ms=round(delay_s * 1000),
            members=members,
            seen=_used(self.doc.seen, members),
        )
        self._keep_time(now)

    def _remain(self, members: dict[str, Member], now: float) -> None:
        """Only these are left. Those who had shares must deal them anew."""
        if not members:
            self._become("EMPTY", now, members={})
        elif self.doc.state == "JOINING":
            self._become("JOINING", now, members=members, delay_s=self.doc.delay_ms / 1000)
        else:
            self._begin(members, now)

    def _begin(self, members: dict[str, Member], now: float, delay_s: float = 0.0) -> None:
        """A round: everybody keeps its share until it joins, or until the round ends."""
        waiting = {m: msgspec.structs.replace(member, joined=False, synced=False) for m, member in members.items()}
        self._become("JOINING", now, members=waiting, delay_s=delay_s)

    def _deal(self, members: dict[str, Member], now: float) -> None:
        """The round ends with these."""
        if not members:
            self._become("EMPTY", now, members={})
            return
        wanted = {subscription: frozenset(_refs(views)) for subscription, views in self.doc.seen}
        current = {
            PartitionRef(stream_id, number): member_id
            for member_id, member in members.items()
            for stream_id, numbers in member.partitions.items()
            for number in numbers
        }
        shares: dict[str, dict[str, list[int]]] = {member_id: {} for member_id in members}
        dealt = assign({m: wanted[member.subscription] for m, member in members.items()}, current)
        for ref, member_id in sorted(dealt.items()):
            shares[member_id].setdefault(ref.stream_id, []).append(ref.number)
        self._become(
            "SYNCING",
            now,
            members={
                member_id: msgspec.structs.replace(
                    member,
                    joined=False,
                    synced=False,
                    partitions={stream_id: tuple(numbers) for stream_id, numbers in shares[member_id].items()},
                )
                for member_id, member in members.items()
            },
        )

    # --- what members say -----------------------------------------------------------------------------------------

    def join(
        self,
        member_id: str,
        subscription: Subscription,
        views: Views,
        now: float,
        *,
        rebalance_timeout_ms: int,
        accelerate: bool = False,
    ) -> float:
        """Join the running round, or begin one. Returns how long it stays open, seconds.

        Raises ApiError DIS.4339 if the group would become too large; then nothing has changed.
        """
        known = self.doc.members.get(member_id)
        returns = known is not None and known.subscription == subscription
        if known and returns and self.doc.state == "SYNCING" and not known.synced and views == self.views(subscription):
            self._heard[member_id] = now
            return 0.0  # it joined the round that has just ended, and did not learn that
        member = Member(subscription, rebalance_timeout_ms, True, False, known.partitions if known else {})
        members = {**self.doc.members, member_id: member}
        seen = _used(tuple({**dict(self.doc.seen), subscription: views}.items()), members)
        most = min(self._max_members or MAX_MEMBERS, MAX_MEMBERS)
        if known is None and len(members) > most:
            raise api_error("DIS.4339", f"[a group has at most {most} members: let some leave]")
        _check_size(members, seen)
        if self.doc.state != "JOINING":
            # Whoever is new may be the first of many that start together; who returns to its place keeps nobody.
            self._begin(self.doc.members, now, 0.0 if accelerate or returns else self._join_delay_s)
        self._heard[member_id] = now
        self.doc = msgspec.structs.replace(self.doc, members={**self.doc.members, member_id: member}, seen=seen)
        self.advance(now)
        return max(0.0, self._began + self.doc.delay_ms / 1000 - now) if self.doc.state == "JOINING" else 0.0

    def sync(self, member_id: str, generation: int, now: float) -> SyncAnswer:
        """The member's share, as often as it asks."""
        member = self._hear(member_id, now)
        if member is None:
            return SyncAnswer("ERROR")
        if generation > self.doc.generation:
            return SyncAnswer("REJOIN")
        if self.doc.state == "JOINING":
            return SyncAnswer("WAITING" if member.joined else "REJOIN")
        if not member.synced:
            member = msgspec.structs.replace(member, synced=True)
            members = {**self.doc.members, member_id: member}
            if all(m.synced for m in members.values()):
                self._become("STABLE", now, members=members)
            else:
                self.doc = msgspec.structs.replace(self.doc, members=members)
        return SyncAnswer("OK", self.doc.generation, _share(member, self.views(member.subscription) or {}))

    def heartbeat(self, member_id: str, generation: int, now: float) -> HeartbeatState:
        """What the member has to do: join, fetch its share, or work on."""
        member = self._hear(member_id, now)
        if member is None:
            return "JOINING"
        if self.doc.state == "JOINING":
            # One that has joined waits for the end of the round where it would wait for its share.
            return "SYNCING" if member.joined else "JOINING"
        if self.doc.state == "SYNCING":
            return "SYNCING"
        return "STABLE" if generation == self.doc.generation else "JOINING"

    def leave(self, member_id: str, now: float) -> None:
        if member_id in self.doc.members:
            self._remain({m: member for m, member in self.doc.members.items() if m != member_id}, now)
            self.advance(now)

    def disband(self, now: float) -> None:
        """Drop all members: none of them may commit any more, and whoever comes back begins at the checkpoints.

        Also if there is none, a generation is passed over: a member that was silent for long and joins the very next
        one takes it that nobody else read meanwhile, and goes on where it stood.
        """
        if self.doc.members or self.doc.generation != NO_GENERATION:
            self._become("EMPTY", now, members={}, passed=1)

    def see(self, subscription: Subscription, views: Views, now: float) -> None:
        """What a subscription stands for now. If that is something else than what was dealt, a round begins.

        Raises ApiError DIS.4339 if the group would become too large; then nothing has changed.
        """
        if self.views(subscription) in (None, views):
            return
        seen = tuple((known, views if known == subscription else old) for known, old in self.doc.seen)
        _check_size(self.doc.members, seen)
        self.doc = msgspec.structs.replace(self.doc, seen=seen)
        if self.doc.state != "JOINING":
            self._begin(self.doc.members, now)

    def refusal(self, member_id: str, generation: int, ref: PartitionRef, now: float) -> ApiError | None:
        """Why the member may not commit on the partition; None: it may, as long as the document stays what it is."""
        member = self._hear(member_id, now)
        if member is None:
            return api_error("DIS.4702", f"[{member_id}]")
        if member.joined:
            return api_error("DIS.4701", f"[{member_id} has joined the next round]")
        if generation != self.doc.generation:
            return api_error("DIS.4703", f"[{generation} is not the current {self.doc.generation}]")
        if ref.number not in member.partitions.get(ref.stream_id, ()):
            return api_error("DIS.4703", f"[partition {ref.number} is not {member_id}'s in generation {generation}]")
        return None

    def _hear(self, member_id: str, now: float) -> Member | None:
        member = self.doc.members.get(member_id)
        if member is not None:
            self._heard[member_id] = now
        return member

    # --- looking --------------------------------------------------------------------------------------------------

    def describe(self, now: float) -> GroupInfo:
        seen = dict(self.doc.seen)
        return GroupInfo(
            state=self.doc.state,
            generation=self.doc.generation,
            members=tuple(
                GroupMember(
                    member_id=member_id,
                    partitions=_share(member, seen[member.subscription]),
                    silent_s=max(0.0, now - self._heard[member_id]),
                )
                for member_id, member in sorted(self.doc.members.items())
            ),
        )

    def check(self) -> None:
        """Assert what always holds."""
        doc = self.doc
        members = doc.members.values()
        assert (doc.state == "EMPTY") == (not doc.members)
        assert set(self._heard) == set(doc.members)
        assert self._phase == (doc.generation, doc.state)
        assert {m.subscription for m in members} == {subscription for subscription, _ in doc.seen}
        held = [(s, number) for m in members for s, numbers in m.partitions.items() for number in numbers]
        assert len(held) == len(set(held)), "a partition has two owners"
        if doc.state == "JOINING":
            assert not any(m.synced for m in members)
        else:
            assert not any(m.joined for m in members)
            assert (doc.state == "STABLE") == (bool(members) and all(m.synced for m in members))
            wanted = {(ref.stream_id, ref.number) for _, views in doc.seen for ref in _refs(views)}
            assert set(held) == wanted, "a partition has no owner"


def _share(member: Member, views: Views) -> dict[str, list[int]]:
    return {
        name: list(member.partitions[view.stream_id])
        for name, view in views.items()
        if view.stream_id in member.partitions
    }


def _refs(views: Mapping[str, StreamView]) -> list[PartitionRef]:
    return [PartitionRef(view.stream_id, number) for view in views.values() for number in view.partitions]


def _used(
    seen: tuple[tuple[Subscription, Views], ...], members: Mapping[str, Member]
) -> tuple[tuple[Subscription, Views], ...]:
    used = {member.subscription for member in members.values()}
    return tuple(known for known in seen if known[0] in used)


def _check_size(members: Mapping[str, Member], seen: tuple[tuple[Subscription, Views], ...]) -> None:
    counts = {subscription: sum(len(view.partitions) for view in views.values()) for subscription, views in seen}
    viewed = sum(counts.values())
    if viewed > MAX_VIEWED:
        raise api_error(
            "DIS.4339",
            f"[the different subscriptions of the members stand for {viewed} partitions together, more than "
            f"{MAX_VIEWED}: subscribe to fewer streams, or all to the same]",
        )
    wanted = sum(counts[member.subscription] for member in members.values())
    if wanted > MAX_WANTED:
        raise api_error(
            "DIS.4339",
            f"[the members want {wanted} partitions together, more than {MAX_WANTED}: subscribe to fewer streams]",
        )
