"""What `disstream app explain` makes of the facts: one finding a partition, and one next step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.cli.facts import gathered
from disstream.cli.findings import (
    SILENT_S,
    SOON_S,
    STUCK_S,
    Facts,
    GroupFacts,
    PartitionFacts,
    Suspended,
    age,
    findings,
    next_step,
)
from disstream.model import (
    Checkpoint,
    GroupInfo,
    GroupMember,
    LayoutBound,
    PartitionInfo,
    PartitionState,
    Record,
    StreamInfo,
)
from disstream.wire.annotations import Note
from disstream.wire.checkpoints import sealed
from disstream.worker.parking import Parking

ZERO, ONE = "shardId-0000000000", "shardId-0000000001"
STABLE = GroupFacts("STABLE", 3, {"m1": 0.5})
EMPTY = GroupFacts("EMPTY", 3, {})


def partition(**facts: Any) -> PartitionFacts:
    """One that m1 reads, ten records behind, with a commit a moment ago."""
    usual = {"partition_id": ZERO, "oldest": 0, "end": 20, "following": 10, "committed_s": 2.0, "unread_s": 3.0}
    return PartitionFacts(**{**usual, "owner": "m1", "silent_s": 0.5, "expires_s": 80_000.0, **facts})


def facts(*partitions: PartitionFacts, group: GroupFacts | None = STABLE, **more: Any) -> Facts:
    return Facts(app="billing", stream="orders", group=group, partitions=partitions, **more)


NOBODY: dict[str, Any] = {"owner": "", "silent_s": None}


@dataclass
class Case:
    facts: Facts
    kind: str
    why: str
    command: str


def case(kind: str, why: str, command: str, group: GroupFacts | None = STABLE, **told: Any) -> Any:
    return pytest.param(Case(facts(partition(**told), group=group), kind, why, command), id=f"{kind}: {why}")


CASES = [
    case("behind", "being read", "app lag billing orders --time --watch 5"),
    case("done", "all is read", "", following=20, unread_s=None),
    case("done", "nothing is left to read", "", status="EXPIRED", oldest=0, end=0, following=7),
    case(
        "suspended",
        "suspended 2 h ago at record 10: ValueError: no such order",
        "worker resume billing orders 0",
        suspended=Suspended(10, "ValueError: no such order", 7200.0),
    ),
    case(
        "stuck",
        "m1 has committed nothing for 5 min, it stands at record 10",
        "consume orders --partition 0 --from 10 --max 1",
        committed_s=300.0,
        unread_s=300.0,
    ),
    case("stuck", "record 10: the handler waits", "", committed_s=300.0, unread_s=299.0, problem="the handler waits"),
    case("behind", "being read", "", committed_s=3600.0, unread_s=1.0),
    case("behind", "being read", "", committed_s=None, unread_s=3600.0),
    case("done", "all is read", "", committed_s=3600.0, following=20, unread_s=None),
    case("troubled", "DIS.4303 for 12 s", "app lag", problem="DIS.4303 for 12 s"),
    case("silent", "its owner m1 has been silent for 14 s", "app members billing", silent_s=14.0),
    case("unowned", "none of the 1 members of billing reads it", "worker MODULE:HANDLER --stream orders", **NOBODY),
    case("unread", "nobody reads for billing", "worker MODULE", group=EMPTY, committed_s=90.0, **NOBODY),
    case("unread", "nobody reads", "worker MODULE", group=EMPTY, committed_s=None, following=None, **NOBODY),
    case("unread", "nobody reads", "worker MODULE", group=EMPTY, committed_s=2.0, was_set=True, **NOBODY),
    case("unread", "said: it was fine", "worker", group=EMPTY, committed_s=90.0, problem="it was fine", **NOBODY),
    case("outside", "committed 2.0 s ago by somebody outside the group", "app lag", group=EMPTY, **NOBODY),
    case("done", "nobody reads for billing now", "", group=EMPTY, following=20, committed_s=99.0, **NOBODY),
    case("done", "scaled away, and read to its end", "", status="DELETED", following=20, **NOBODY),
    case("dealing", "dealing its partitions anew (JOINING)", "app members", group=GroupFacts("JOINING", 3, {"m1": 1})),
    case("dealing", "m1 is giving it up for m2", "app members billing", heir="m2", committed_s=300.0, unread_s=300.0),
    case("dealing", "it was given up for m2", "app members billing", heir="m2", **NOBODY),
    case("expired", "5 records expired before they were read: reading goes on at 15", "--retention-h 48", oldest=15),
    case("expired", "1 record expired", "--retention-h 48", oldest=11),
    case("parked", "3 keys are parked", "deadletter redrive TARGET --app billing --stream orders", parked_keys=3),
    case("behind", "not all is read", "app lag", group=None, **NOBODY),
    case("troubled", "broken", "app lag", group=None, problem="broken", **NOBODY),
    case("behind", "the next record expires in 10 min", "--retention-h 48", expires_s=600.0),
    case("behind", "the next record expires now", "--retention-h 48", expires_s=-5.0),
    case("unread", "expires in 10 min", "worker", group=EMPTY, committed_s=99.0, expires_s=600.0, **NOBODY),
    case("suspended", "5 records expired before they were read; 1 key is parked", "resume", oldest=15, parked_keys=1,
         suspended=Suspended(15, "")),
]  # fmt: skip


@pytest.mark.parametrize("told", CASES)
def test_one_partition(told: Case) -> None:
    """What is the matter, in words that name it, and the command that helps."""
    (found,) = findings(told.facts)
    step = next_step(told.facts, [found])
    assert (found.kind, told.why in found.why) == (told.kind, True), found.why
    assert told.command in step.command
    assert bool(step.command) == (found.kind != "done")


def test_held_at_a_change_of_the_partitions() -> None:
    """It stands at the bound, and the others have not passed theirs: they are named, and nobody calls it stuck."""
    late = {"committed_s": 600.0, "unread_s": 600.0}
    held = partition(bounds={1: 4, 2: 10}, **late)
    passed = partition(partition_id="shardId-0000000003", following=18, bounds={2: 7})
    behind = partition(partition_id=ONE, following=5, bounds={1: 4, 2: 7}, **late)
    gone = partition(partition_id="shardId-0000000004", status="EXPIRED", following=0, bounds={2: 7})
    all_of_them = facts(held, passed, behind, gone)
    found = findings(all_of_them)
    assert [f.kind for f in found] == ["held", "behind", "stuck", "done"]
    assert found[0].why == "at a change of the partitions: it goes on when 1 have been read up to theirs"
    assert next_step(all_of_them, found).partition_id == ONE, "the one that the others wait for"
    moved = facts(held, passed, msgspec.structs.replace(behind, following=7))
    assert findings(moved)[0].kind == "stuck"


def test_the_most_urgent_decides() -> None:
    """A record about to expire comes first, then the order of kinds, then who is furthest behind."""
    suspended = partition(suspended=Suspended(10, "x"))
    unread = partition(partition_id=ONE, following=0)
    expiring = partition(partition_id="shardId-0000000002", expires_s=SOON_S - 1)
    for chosen, others in ((expiring, (suspended, unread)), (suspended, (unread,)), (unread, (partition(),))):
        for order in ((chosen, *others), (*others, chosen)):
            told = facts(*order)
            assert next_step(told, findings(told)).partition_id == chosen.partition_id
    assert next_step(facts(), []).text.startswith("nothing")


def test_a_stream_that_keeps_records_for_longest_is_not_asked_for_more() -> None:
    """Retention ends at 168 h: then only reading faster helps."""
    for hours, command in ((24, "--retention-h 48"), (100, "--retention-h 168"), (168, "app lag")):
        told = facts(partition(expires_s=5.0), retention_h=hours)
        assert command in next_step(told, findings(told)).command


def test_a_silent_member_holds_up_a_round() -> None:
    """While the group deals, the one that nobody hears of is named."""
    told = facts(partition(**NOBODY), group=GroupFacts("JOINING", 3, {"m1": 0.1, "m2": SILENT_S + 5}))
    assert "m2 has been silent for 15 s" in next_step(told, findings(told)).text


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0.0 s"),
        (9.96, "10.0 s"),
        (45.4, "45 s"),
        (119.0, "119 s"),
        (180.0, "3 min"),
        (7200.0, "2 h"),
        (2e5, "2 d"),
    ],
)
def test_ages(seconds: float, said: str) -> None:
    """As people say them."""
    assert age(seconds) == said


maybe_s = st.none() | st.floats(0, 1e6)
partitions = st.builds(
    PartitionFacts,
    partition_id=st.sampled_from([ZERO, ONE, "shardId-0000000002"]),
    status=st.sampled_from(["ACTIVE", "DELETED", "EXPIRED"]),
    oldest=st.integers(0, 9),
    end=st.integers(9, 20),
    following=st.none() | st.integers(0, 20),
    committed_s=maybe_s,
    owner=st.sampled_from(["", "m1"]),
    silent_s=maybe_s,
    unread_s=maybe_s,
    expires_s=st.none() | st.floats(-1e6, 1e6),
    problem=st.sampled_from(["", "broken"]),
    suspended=st.none() | st.builds(Suspended, st.integers(0, 20), st.sampled_from(["", "ValueError"]), maybe_s),
    parked_keys=st.integers(0, 3),
    heir=st.sampled_from(["", "m2"]),
    bounds=st.dictionaries(st.integers(1, 3), st.integers(0, 20), max_size=3),
)
groups = st.none() | st.builds(
    GroupFacts,
    st.sampled_from(["EMPTY", "JOINING", "SYNCING", "STABLE"]),
    st.integers(-1, 5),
    st.dictionaries(st.sampled_from(["m1", "m2"]), st.floats(0, 100), max_size=2),
)


@given(st.lists(partitions, max_size=3, unique_by=lambda p: p.partition_id), groups, st.sampled_from([24, 168]))
def test_any_facts(told: list[PartitionFacts], group: GroupFacts | None, retention_h: int) -> None:
    """Each partition gets one finding in words, and there is one step, for the sake of the worst of them."""
    all_of_them = facts(*told, group=group, retention_h=retention_h)
    found = findings(all_of_them)
    assert [f.partition_id for f in found] == [p.partition_id for p in told]
    assert all(f.why and "\n" not in f.why for f in found)
    for finding, partition in zip(found, told, strict=True):
        assert not (finding.kind == "done" and partition.lag and partition.status != "EXPIRED")
        if finding.kind == "stuck":
            assert partition.owner
            assert partition.committed_s is not None
            assert partition.committed_s >= STUCK_S
    step = next_step(all_of_them, found)
    assert step.text
    if any(f.urgent for f in found):
        assert step.partition_id in {f.partition_id for f in found if f.urgent}


def test_what_a_worker_wrote() -> None:
    """Parked keys and a suspension come out of the annotation; that of another kind of reader is left alone."""
    parking = Parking()
    for number, key in enumerate(("customer-7", "customer-8")):
        assert parking.park("billing", Record(b"", number, key=key, partition_id=ZERO))
    parking.suspend(12, 0, "ValueError: no such order", 40_000)
    notes = [Note(annotation=parking.text()), Note(annotation="my own")]
    states = [
        PartitionState(partition_id=name, checkpoint=sealed(12, read=True, metadata=note.text()), latest=20)
        for name, note in zip((ZERO, ONE), notes, strict=True)
    ]
    info = StreamInfo(name="orders", stream_id="id", status="RUNNING")
    found = gathered("billing", "orders", states, info, None, {}, 100_000)
    assert found.partitions[0].suspended == Suspended(12, "ValueError: no such order", 60.0)
    assert [p.parked_keys for p in found.partitions] == [2, 0]
    assert found.partitions[1].suspended is None


def test_facts_from_answers() -> None:
    """Owners by stream name or id, ages by the clock, what the reader wrote beside its checkpoint, bounds."""
    told = sealed(7, read=True, metadata=Note(problem="slow\x1b[31m", annotation="mine").text())
    states = [
        PartitionState(
            partition_id=ZERO, checkpoint=told, earliest=2, latest=9, committed_ms=95_000, committed_by="m1"
        ),
        PartitionState(partition_id=ONE, checkpoint=Checkpoint(3), latest=3),
        PartitionState(partition_id="shardId-0000000002", checkpoint=sealed(4, read=False), latest=4),
    ]
    info = StreamInfo(
        name="orders",
        stream_id="id",
        status="RUNNING",
        retention_h=24,
        partitions=(PartitionInfo(partition_id=ZERO, bounds=(LayoutBound(1, 5),)),),
    )
    group = GroupInfo(
        state="STABLE",
        generation=1,
        members=(
            GroupMember(member_id="m1", partitions={"orders": [0], "other": [1]}, silent_s=1.0),
            GroupMember(member_id="m2", partitions={"id": [1]}, silent_s=2.0),
        ),
    )
    found = gathered("billing", "orders", states, info, group, {ZERO: 90_000}, 100_000)
    zero, one, two = found.partitions
    assert (zero.following, zero.lag, zero.owner, zero.silent_s) == (7, 2, "m1", 1.0)
    assert (zero.committed_s, zero.committed_by, zero.unread_s, zero.expires_s) == (5.0, "m1", 10.0, 86_390.0)
    assert (zero.problem, zero.bounds, zero.was_set) == ("slow.[31m", {1: 5}, False)
    assert (one.owner, one.committed_s, one.unread_s, one.was_set) == ("m2", None, None, False)
    assert (two.owner, two.was_set) == ("", True)
    assert found.group == GroupFacts("STABLE", 1, {"m1": 1.0, "m2": 2.0})
    future = gathered("billing", "orders", states, info, None, {ZERO: 200_000}, 100_000)
    assert (future.group, future.partitions[0].unread_s) == (None, 0.0)
