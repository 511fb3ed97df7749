"""A group deals each partition to one live member, asks nobody twice, and waits for nobody too long."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.engine import PartitionRef
from disstream.errors import QuotaError
from disstream.server import group as group_module
from disstream.server.group import Group, GroupDoc, StreamView, Subscription, Views
from disstream.wire.groups import HeartbeatState, SyncAnswer

SESSION_S = 30.0
DELAY_S = 3.0
PATIENCE_S = 20.0

SUB = Subscription(names=("s",))
OTHER = Subscription(names=("s", "t"))
VIEWS: dict[Subscription, Views] = {
    SUB: {"s": StreamView("id-s", (0, 1, 2, 3))},
    OTHER: {"s": StreamView("id-s", (0, 1, 2, 3)), "t": StreamView("id-t", (0, 1))},
}


class Bench:
    """A group and a clock. Every call is advanced to now first and checked behind, as the shell does."""

    def __init__(self) -> None:
        self.group = Group(SESSION_S, DELAY_S)
        self.now = 100.0

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            self.advance()
            result = getattr(self.group, name)(*args, now=self.now, **more)
            self.group.check()
            return result

        return call

    def advance(self) -> None:
        generation = self.group.doc.generation
        self.group.advance(self.now)
        self.group.check()
        assert self.group.doc.generation >= generation
        settled = self.group.doc
        self.group.advance(self.now)
        assert self.group.doc is settled, "advancing twice is advancing once"

    def join(self, member: str, subscription: Subscription = SUB, views: Views | None = None, **more: Any) -> float:
        more.setdefault("rebalance_timeout_ms", int(PATIENCE_S * 1000))
        self.advance()
        delay_s = self.group.join(
            member, subscription, VIEWS[subscription] if views is None else views, self.now, **more
        )
        self.group.check()
        return delay_s

    def sync(self, member: str, generation: int = -1) -> SyncAnswer:
        answer = self.__getattr__("sync")(member, generation)
        assert isinstance(answer, SyncAnswer)
        return answer

    def beat(self, member: str, generation: int = -1) -> HeartbeatState:
        state: HeartbeatState = self.__getattr__("heartbeat")(member, generation)
        return state

    def code(self, member: str, generation: int, number: int = 0, stream_id: str = "id-s") -> str:
        """Of the refusal of a commit; "" if it may."""
        refusal = self.__getattr__("refusal")(member, generation, PartitionRef(stream_id, number))
        return "" if refusal is None else str(refusal.code)

    def stable(self, *members: str) -> dict[str, Any]:
        """Let exactly these be a stable group. Returns their shares of "s"."""
        for member in members:
            self.join(member)
        self.now += DELAY_S
        shares = {member: self.sync(member).assignment.get("s", []) for member in members}
        assert self.state == "STABLE"
        return shares

    def restart(self) -> None:
        """The process ends; another one goes on from what was stored."""
        stored = msgspec.json.decode(msgspec.json.encode(self.group.doc), type=GroupDoc)
        assert stored == self.group.doc
        self.group = Group(SESSION_S, DELAY_S)
        self.now = 7.0  # clocks of loops start anew
        self.group.load(stored, self.now)

    @property
    def state(self) -> str:
        return self.group.doc.state

    @property
    def generation(self) -> int:
        return self.group.doc.generation


@pytest.fixture
def bench() -> Bench:
    return Bench()


# --- joining ------------------------------------------------------------------------------------------------------


def test_members_that_start_together_make_one_rebalance(bench: Bench) -> None:
    """A newcomer's round stays open for the delay; who comes meanwhile is in it, and waits for what is left."""
    assert bench.join("a") == 3.0
    bench.now += 1
    assert bench.join("b") == 2.0
    assert bench.join("b") == 2.0
    assert (bench.sync("a").state, bench.beat("a"), bench.state) == ("WAITING", "SYNCING", "JOINING")
    bench.now += 2
    assert bench.sync("a") == SyncAnswer("OK", 0, {"s": [0, 2]})
    assert (bench.state, bench.beat("a", 0), bench.beat("b")) == ("SYNCING", "SYNCING", "SYNCING")
    assert bench.sync("b") == SyncAnswer("OK", 0, {"s": [1, 3]})
    assert (bench.state, bench.beat("a", 0), bench.beat("b", 0)) == ("STABLE", "STABLE", "STABLE")
    assert bench.sync("a", 0) == SyncAnswer("OK", 0, {"s": [0, 2]})


def test_accelerated(bench: Bench) -> None:
    """Who asks for it and is alone waits for nobody."""
    assert bench.join("a", accelerate=True) == 0.0
    assert bench.sync("a") == SyncAnswer("OK", 0, {"s": [0, 1, 2, 3]})
    assert bench.join("b", accelerate=True) == 0.0
    assert (bench.sync("b").state, bench.beat("a", 0), bench.sync("a", 0).state) == ("WAITING", "JOINING", "REJOIN")
    assert bench.join("a") == 0.0
    assert (bench.state, bench.generation) == ("SYNCING", 1)


def test_a_lost_join_answer_costs_no_round(bench: Bench) -> None:
    """Joining again is joining once, also when the round has just ended; not once the share was fetched."""
    bench.join("a")
    bench.join("b")
    bench.now += DELAY_S
    bench.sync("b")
    assert (bench.join("a"), bench.state, bench.generation) == (0.0, "SYNCING", 0)
    assert (bench.join("b"), bench.state) == (0.0, "JOINING")


def test_a_client_that_starts_again_under_its_name(bench: Bench) -> None:
    """An unchanged join of a stable member begins a round without delay; a changed one waits like a newcomer's."""
    bench.stable("a", "b")
    assert bench.beat("a", -1) == "JOINING"
    assert (bench.join("a"), bench.state, bench.beat("b", 0)) == (0.0, "JOINING", "JOINING")
    bench.join("b")
    assert (bench.sync("a").state, bench.sync("b").state, bench.generation) == ("OK", "OK", 1)
    assert bench.join("a", OTHER) == DELAY_S


def test_a_round_waits_for_the_rebalance_timeout_only(bench: Bench) -> None:
    """Who lives but does not join is dropped after the longest time-out of the members, and may come back."""
    bench.stable("a", "b")
    bench.join("a", OTHER, rebalance_timeout_ms=5_000)
    for _ in range(4):
        bench.now += PATIENCE_S / 4 - 0.1
        assert (bench.sync("a", 0).state, bench.beat("b", 0)) == ("WAITING", "JOINING")
    bench.now += 0.4
    assert bench.sync("a", 0) == SyncAnswer("OK", 1, {"s": [0, 1, 2, 3], "t": [0, 1]})
    assert (bench.beat("b", 0), bench.sync("b", 0).state) == ("JOINING", "ERROR")
    assert bench.join("b") == DELAY_S


def test_who_does_not_fetch_its_share_is_dropped(bench: Bench) -> None:
    """SYNCING lasts as long as the rebalance time-out at most; then those who synced begin again without the others."""
    bench.join("a")
    bench.join("b")
    bench.now += DELAY_S
    bench.sync("a")
    bench.now += PATIENCE_S
    assert (bench.beat("a", 0), bench.state, list(bench.group.doc.members)) == ("JOINING", "JOINING", ["a"])
    bench.join("a")
    assert bench.sync("a", 0) == SyncAnswer("OK", 1, {"s": [0, 1, 2, 3]})


def test_nobody_fetches(bench: Bench) -> None:
    """If no member fetches its share the group is empty; its generation is not used again."""
    bench.join("a", accelerate=True)
    bench.now += PATIENCE_S
    assert (bench.beat("a", 0), bench.state, bench.generation) == ("JOINING", "EMPTY", 0)
    bench.join("a", accelerate=True)
    assert bench.sync("a").generation == 1


# --- leaving ------------------------------------------------------------------------------------------------------


def test_the_silent_are_dropped(bench: Bench) -> None:
    """After the session time-out, and whatever a member says is a sign of life; the rest deal anew without a delay."""
    shares = bench.stable("a", "b", "c")
    for say in (lambda: bench.beat("a", 0), lambda: bench.sync("a", 0), lambda: bench.code("a", 0)):
        bench.now += SESSION_S / 2
        say()
        bench.beat("b", 0)
    assert (bench.beat("a", 0), bench.state) == ("JOINING", "JOINING")
    assert list(bench.group.doc.members) == ["a", "b"]
    bench.join("a")
    assert bench.join("b") == 0.0
    assert (bench.state, bench.generation) == ("SYNCING", 1)
    after = {member: bench.sync(member).assignment["s"] for member in ("a", "b")}
    assert all(set(shares[member]) <= set(after[member]) for member in after)


def test_a_session_lasts_its_time(bench: Bench) -> None:
    """A sign of life at the very end of the time-out is in time."""
    bench.stable("a")
    bench.now += SESSION_S
    assert bench.beat("a", 0) == "STABLE"
    bench.now += SESSION_S + 0.001
    assert (bench.beat("a", 0), bench.state) == ("JOINING", "EMPTY")


def test_who_waits_for_a_silent_member_waits_for_its_session_only(bench: Bench) -> None:
    """A member that dies in a round holds it up until its session ends, not until the rebalance time-out."""
    bench.stable("a", "b")
    bench.now += SESSION_S - 5
    bench.join("a", rebalance_timeout_ms=600_000)
    bench.now += 5.1
    assert bench.sync("a", 0).generation == 1


def test_leaving(bench: Bench) -> None:
    """The others are asked at once; strangers leave nothing; the last one leaves an empty group."""
    bench.stable("a", "b")
    bench.leave("stranger")
    assert bench.state == "STABLE"
    bench.leave("b")
    assert (bench.beat("a", 0), bench.join("a"), bench.state) == ("JOINING", 0.0, "SYNCING")
    bench.leave("a")
    assert (bench.state, bench.generation) == ("EMPTY", 1)


def test_the_round_ends_when_the_last_one_waited_for_leaves(bench: Bench) -> None:
    """Members that have joined need not wait for one that is gone."""
    bench.stable("a", "b")
    bench.join("a")
    bench.leave("b")
    assert (bench.state, bench.sync("a").generation) == ("SYNCING", 1)


# --- committing ---------------------------------------------------------------------------------------------------


def test_commits_of_a_stable_group(bench: Bench) -> None:
    """Of the own partitions in the current generation; each refusal says what is wrong."""
    bench.stable("a", "b")
    assert [bench.code("a", 0, n) for n in range(5)] == ["", "DIS.4703", "", "DIS.4703", "DIS.4703"]
    assert bench.code("a", 0, 0, "id-of-a-stream-of-that-name-that-was-deleted") == "DIS.4703"
    assert [bench.code("a", generation) for generation in (-1, 1)] == ["DIS.4703", "DIS.4703"]
    assert bench.code("stranger", 0) == "DIS.4702"


def test_commits_while_shares_are_dealt_anew(bench: Bench) -> None:
    """A member may finish until it joins, or until the round ends; then its generation is over."""
    bench.stable("a", "b")
    bench.join("c", rebalance_timeout_ms=1_000)
    assert (bench.code("a", 0, 0), bench.code("b", 0, 3), bench.code("c", 0, 0)) == ("", "", "DIS.4701")
    bench.join("a")
    assert (bench.code("a", 0, 0), bench.code("b", 0, 3)) == ("DIS.4701", "")
    bench.join("b")
    bench.now += DELAY_S
    assert bench.code("b", 0, 3) == "DIS.4703"
    assert bench.code("b", 1, 3) == ""  # still its own, before it fetched it
    bench.now += SESSION_S + 1
    assert bench.code("b", 1, 3) == "DIS.4702"


# --- streams that change ------------------------------------------------------------------------------------------


def test_streams_that_change(bench: Bench) -> None:
    """What is seen again as it was changes nothing; more partitions, another stream of the name, none: a round."""
    bench.stable("a")
    bench.see(SUB, dict(VIEWS[SUB]))
    bench.see(OTHER, {})
    assert bench.state == "STABLE"
    for generation, (views, share) in enumerate(
        [
            ({"s": StreamView("id-s", (0, 1, 2, 3, 4))}, {"s": [0, 1, 2, 3, 4]}),
            ({"s": StreamView("id-new", (0,))}, {"s": [0]}),
            ({}, {}),
        ],
        1,
    ):
        bench.see(SUB, views)
        assert (bench.state, bench.beat("a", generation - 1)) == ("JOINING", "JOINING")
        bench.join("a", views=views)
        assert bench.sync("a") == SyncAnswer("OK", generation, share)


def test_one_stream_under_two_names(bench: Bench) -> None:
    """Members that call a stream by its name and by its id share its partitions."""
    bench.join("a")
    bench.join("b", Subscription(ids=("id-s",)), {"id-s": StreamView("id-s", (0, 1, 2, 3))})
    bench.now += DELAY_S
    assert (bench.sync("a").assignment, bench.sync("b").assignment) == ({"s": [0, 2]}, {"id-s": [1, 3]})


def test_too_large(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member too many, or one that wants too much, is refused and changes nothing."""
    bench.stable("a", "b")
    before = bench.group.doc
    monkeypatch.setattr(group_module, "MAX_MEMBERS", 2)
    with pytest.raises(QuotaError, match="at most 2 members"):
        bench.join("c")
    monkeypatch.setattr(group_module, "MAX_WANTED", 8)
    with pytest.raises(QuotaError, match="want 10 partitions together"):
        bench.see(SUB, {"s": StreamView("id-s", tuple(range(5))), "t": StreamView("id-t", ())})
    with pytest.raises(QuotaError, match="want 10 partitions together"):
        bench.join("b", OTHER)
    monkeypatch.setattr(group_module, "MAX_VIEWED", 6)
    with pytest.raises(QuotaError, match="stand for 7 partitions together"):
        bench.join("b", Subscription(names=("t",)), {"t": StreamView("id-t", (0, 1, 2))})
    assert bench.group.doc == before
    bench.join("b")


# --- life and restarts --------------------------------------------------------------------------------------------


def test_a_restart(bench: Bench) -> None:
    """Shares and generation stand; everybody has one session to be heard; a round begins its time anew."""
    bench.stable("a", "b")
    bench.restart()
    assert (bench.state, bench.code("a", 0), bench.beat("a", 0)) == ("STABLE", "", "STABLE")
    bench.now += SESSION_S
    assert bench.beat("b", 0) == "STABLE"
    bench.join("c")
    bench.join("a")
    bench.restart()
    assert (bench.state, bench.beat("c"), bench.sync("a").state) == ("JOINING", "SYNCING", "WAITING")
    assert bench.join("b") == DELAY_S
    bench.now += DELAY_S
    assert {bench.sync(member).generation for member in "abc"} == {1}


def test_the_description(bench: Bench) -> None:
    """State, generation, and of each member its partitions and how long it was silent."""
    bench.stable("b", "a")
    bench.now += 4
    bench.beat("a", 0)
    info = bench.describe()
    assert (info.state, info.generation) == ("STABLE", 0)
    assert [(m.member_id, m.partitions, m.silent_s) for m in info.members] == [
        ("a", {"s": [0, 2]}, 0.0),
        ("b", {"s": [1, 3]}, 4.0),
    ]


def test_clocks_of_a_document_that_was_not_stored(bench: Bench) -> None:
    """What a failed write made of a group is forgotten; who was heard meanwhile was heard."""
    bench.stable("a", "b")
    stored = bench.group.doc
    bench.now += 20
    bench.beat("a", 0)
    bench.join("c")
    bench.group.load(stored, bench.now)
    bench.group.check()
    bench.now += 11
    assert bench.beat("a", 0) == "JOINING"  # b was not heard for 31 s
    assert list(bench.group.doc.members) == ["a"]


def test_disbanded(bench: Bench) -> None:
    """Nobody may commit any more; who joins again does so in a generation that is not the very next one."""
    bench.disband()
    assert bench.group.doc == GroupDoc(), "a group that never was needs no trace"
    bench.stable("a", "b")
    bench.disband()
    assert (bench.state, bench.code("a", 0), bench.beat("b", 0)) == ("EMPTY", "DIS.4702", "JOINING")
    assert bench.stable("a") == {"a": [0, 1, 2, 3]}
    assert bench.generation == 2
    bench.now += SESSION_S + 1
    bench.disband()
    assert (bench.state, bench.generation) == ("EMPTY", 3), "for one that comes back after its silence"


names = st.sampled_from(["a", "b", "c"])
numbers = st.integers(-1, 4)
steps = st.one_of(
    st.tuples(st.just("join"), names, st.sampled_from([SUB, OTHER]), st.booleans()),
    st.tuples(st.just("sync"), names, numbers),
    st.tuples(st.just("beat"), names, numbers),
    st.tuples(st.just("leave"), names),
    st.tuples(st.just("disband")),
    st.tuples(st.just("see"), st.sampled_from([SUB, OTHER]), st.integers(0, 5)),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 3.0, 10.0, 31.0])),
    st.tuples(st.just("restart")),
)


@given(script=st.lists(steps, max_size=40))
def test_any_history(script: list[tuple[Any, ...]]) -> None:
    """Whatever happens: one owner at most for a partition, and members that do as they are told end up STABLE."""
    bench = Bench()
    views = dict(VIEWS)
    for action, *args in script:
        if action == "join":
            member, subscription, accelerate = args
            bench.join(member, subscription, views[subscription], accelerate=accelerate)
        elif action == "see":
            subscription, count = args
            views[subscription] = {**views[subscription], "s": StreamView("id-s", tuple(range(count)))}
            bench.see(subscription, views[subscription])
        elif action == "wait":
            bench.now += args[0]
        elif action == "restart":
            bench.restart()
        elif action == "leave":
            bench.leave(*args)
        else:
            getattr(bench, action)(*args)
        asked = Group(SESSION_S, DELAY_S)  # another one, because being asked is a sign of life
        asked.load(bench.group.doc, bench.now)
        allowed = [
            (stream_id, number)
            for member in bench.group.doc.members
            for stream_id in ("id-s", "id-t")
            for number in range(5)
            if not asked.refusal(member, bench.generation, PartitionRef(stream_id, number), bench.now)
        ]
        assert len(allowed) == len(set(allowed)), "two members may commit on one partition"
    known = dict.fromkeys("abc", -1)
    for _ in range(20):
        for member in known:
            state = bench.beat(member, known[member])
            if state == "JOINING":
                bench.join(member, SUB, views[SUB])
            elif state == "SYNCING" and (answer := bench.sync(member, known[member])).state == "OK":
                known[member] = answer.generation
        bench.now += 1
    assert bench.state == "STABLE"
    assert {bench.beat(member, known[member]) for member in known} == {"STABLE"}
