"""The suffix rule holds whatever is refused, and every byte taken in is given back."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.engine import AppendRefused, Columns, PartitionRef
from disstream.errors import ApiError, ThrottledError
from disstream.model import NewRecord
from disstream.server.admission import Admission, PutPlan
from disstream.server.config import ServerConfig
from disstream.server.documents import PartitionDoc
from disstream.server.flow import Pace
from disstream.server.layout import Layout, weight_of
from disstream.wire.errors import stream_not_found
from disstream.wire.partitioning import hash_ranges

CONFIG = ServerConfig(data_dir=None)


def layout(count: int, epoch: int = 1) -> Layout:
    docs = [PartitionDoc(n, epoch, r.low, r.high) for n, r in enumerate(hash_ranges(count))]
    return Layout(docs, CONFIG)


def columns(batch: list[NewRecord]) -> Columns:
    """As they come out of a body: in one piece, and an empty key is none."""
    data = memoryview(b"".join(record.data for record in batch))
    return Columns([record.key or None for record in batch], [len(record.data) for record in batch], None, data)


def stored(plan: PutPlan) -> list[int]:
    return [i for i in range(len(plan.lanes)) if i not in plan.failures]


records = st.lists(
    st.builds(
        NewRecord,
        data=st.binary(max_size=40),
        key=st.one_of(st.none(), st.sampled_from(["", "k1", "k2", "key-42", "分区", "a", "b"])),
        partition_id=st.one_of(st.none(), st.none(), st.sampled_from(["0", "shardId-0000000001"])),
    ),
    min_size=1,
    max_size=30,
)


@given(lanes=st.lists(st.integers(0, 4), max_size=40), limit=st.integers(0, 200), data=st.data())
def test_some_are_admitted(lanes: list[int], limit: int, data: st.DataObject) -> None:
    """What is refused of a partition is its end; what is taken fits; release leaves nothing behind."""
    weights = data.draw(st.lists(st.integers(0, 30), min_size=len(lanes), max_size=len(lanes)))
    admission = Admission(limit)
    refused, taken = admission.admit_some(lanes, weights)
    assert admission.pending_bytes == taken <= limit
    assert taken == sum(w for i, w in enumerate(weights) if i not in refused)
    for lane in set(lanes):
        verdicts = [i in refused for i, other in enumerate(lanes) if other == lane]
        assert verdicts == sorted(verdicts)
    # The first refusal is of a record that really did not fit.
    if refused:
        assert sum(weights[: refused[0]]) + weights[refused[0]] > limit
    admission.release(taken)
    assert admission.pending_bytes == 0


paces = st.one_of(
    st.none(),
    st.builds(Pace, st.one_of(st.none(), st.integers(1, 200)), st.one_of(st.none(), st.integers(1, 9)), st.none()),
)


@given(
    batch=records,
    as_columns=st.booleans(),
    limit=st.integers(0, 3000),
    pace=paces,
    before=st.integers(1, 6),
    after=st.integers(1, 6),
    data=st.data(),
)
def test_the_suffix_rule(
    batch: list[NewRecord],
    as_columns: bool,
    limit: int,
    pace: Pace | None,
    before: int,
    after: int,
    data: st.DataObject,
) -> None:
    """Throttled, refused by moved partitions, placed anew, refused again: no record is stored behind a failed one.

    What is stored is all that the pace has let pass in the end.
    """
    if as_columns:
        batch = [NewRecord(record.data, record.key) for record in batch]
    old = layout(max(before, 2))
    plan = PutPlan(columns(batch) if as_columns else batch, old)
    admission = Admission(limit)
    if pace is not None:
        plan.pace(pace, "id", 1.0)
        plan.check()
        assert plan.throttled == bool(plan.failures)
        assert all(error.code == "DIS.4303" for error in plan.failures.values())
    plan.admit(admission)
    plan.check()
    assert admission.pending_bytes == plan.weight
    old_lanes = list(plan.lanes)
    numbers = {"next": 100}

    def append(verdicts: st.SearchStrategy[bool]) -> bool:
        answers: list[int | AppendRefused] = []
        for ref, rows, *_ in plan.entries("id"):
            assert [(row.data, row.key) for row in rows] == [
                (record.data, None if record.partition_id else record.key or None)
                for index, record in enumerate(batch)
                if index not in plan.failures and plan.lanes[index] == ref.number and ref.number not in plan.first
            ]
            if data.draw(verdicts):
                answers.append(numbers["next"])
                numbers["next"] += len(rows)
            else:
                answers.append(AppendRefused("moved"))
        return plan.settle(answers)

    twice = False
    if append(st.booleans()):
        plan.check()
        if data.draw(st.booleans()):
            plan.give_up(stream_not_found("s", "p"))
        else:
            plan.reroute(layout(after, epoch=2), 1.0)
            plan.check()
            assert all(epoch == 2 for _, _, epoch, _ in plan.entries("id"))
            twice = append(st.booleans())
            if twice:
                plan.give_up(ThrottledError("busy", status=400, code="DIS.4303"))
    plan.check()
    assert set(plan.lanes[i] for i in stored(plan)) == set(plan.first)
    if not twice:
        # Seen with the partitions the client expects, too.
        for lane in set(old_lanes):
            verdicts = [i in plan.failures for i, other in enumerate(old_lanes) if other == lane]
            assert verdicts == sorted(verdicts)
    # The order of a key's records is exact in every case.
    for key in {record.key for record in batch if record.key}:
        verdicts = [
            i in plan.failures for i, record in enumerate(batch) if record.key == key and not record.partition_id
        ]
        assert verdicts == sorted(verdicts)
    if plan.first:
        answer = json.loads(plan.answer())
        assert answer["failed_record_count"] == len(plan.failures)
        assert [i for i, entry in enumerate(answer["records"]) if "sequence_number" in entry] == stored(plan)
    else:
        with pytest.raises(ApiError):
            plan.answer()
    admission.release(plan.weight)
    assert admission.pending_bytes == 0
    plan.unpace(1.0)
    if pace is not None:
        check_paid(pace, plan, batch)


def check_paid(pace: Pace, plan: PutPlan, batch: list[NewRecord]) -> None:
    """Each partition is charged with what it stored, no more and no less."""
    for lane in range(7):
        indices = [i for i in stored(plan) if plan.lanes[i] == lane]
        assert plan.stored.get(lane, (0, 0)) == (len(indices), sum(len(batch[i].data) for i in indices))
        ref = PartitionRef("id", lane)
        untouched = PartitionRef("other", 0)
        count, size = plan.stored.get(lane, (0, 0))
        for rate, paid in ((pace.in_records, count), (pace.in_bytes, size)):
            if rate is not None:
                assert math.isclose(rate.left(ref, 1.0), rate.left(untouched, 1.0) - paid)


def test_refused_records_follow_their_keys() -> None:
    """A layout that changed between look-up and append: records go where the new one puts them."""
    batch = [NewRecord(b"1", key="k1"), NewRecord(b"2", key="分区"), NewRecord(b"3", key="k1")]
    plan = PutPlan(batch, layout(1))
    assert plan.settle([AppendRefused("moved", 2)])
    plan.reroute(layout(10, epoch=2), 0.0)
    assert [(ref.number, [row.data for row in rows], epoch) for ref, rows, epoch, _ in plan.entries("id")] == [
        (4, [b"1", b"3"], 2),
        (8, [b"2"], 2),
    ]
    assert not plan.settle([50, 60])
    assert [entry["sequence_number"] for entry in json.loads(plan.answer())["records"]] == ["50", "60", "51"]


def test_bandwidth_ends_a_partition() -> None:
    """What goes beyond a partition's bandwidth fails from there on; whole other partitions go on."""
    batch = [NewRecord(b"x" * 60, partition_id="0")] * 3 + [NewRecord(b"x", partition_id="1")] * 2
    plan = PutPlan(batch, layout(2))
    heavy = plan.weight
    plan.pace(Pace(100, None, None), "id", 5.0)
    assert plan.throttled
    assert {i: error.code for i, error in plan.failures.items()} == {2: "DIS.4303"}
    assert [(ref, len(rows)) for ref, rows, *_ in plan.entries("id")] == [
        (PartitionRef("id", 0), 2),
        (PartitionRef("id", 1), 2),
    ]
    assert plan.weight == heavy - weight_of(batch[2])
    assert not plan.settle([7, 0])
    entries = json.loads(plan.answer())["records"]
    assert entries[2] == {"error_code": "DIS.4303", "error_message": "Exceeded traffic control limit."}
    assert [entry.get("sequence_number") for entry in entries] == ["7", "8", None, "0", "1"]


def test_nothing_passes() -> None:
    """A put of which nothing passes is refused as a whole, and appends nothing."""
    pace = Pace(None, 1, None)
    assert pace.put(PartitionRef("id", 0), [1], 5.0) == 1
    plan = PutPlan([NewRecord(b"1"), NewRecord(b"2")], layout(1))
    plan.pace(pace, "id", 5.0)
    assert (plan.entries("id"), plan.weight) == ([], 0)
    with pytest.raises(ThrottledError) as refused:
        plan.answer()
    assert (refused.value.code, refused.value.status) == ("DIS.4303", 400)


def test_a_moved_record_pays_once_where_it_goes() -> None:
    """Placed anew, it takes of the bandwidth of its new partition, or is refused there; the old one has it back."""
    batch = [NewRecord(b"1", key="k1"), NewRecord(b"2", key="分区"), NewRecord(b"3", key="k1")]
    pace = Pace(None, 3, None)
    rate = pace.in_records
    assert rate is not None
    assert pace.put(PartitionRef("id", 4), [1, 1], 0.0) == 2
    plan = PutPlan(batch, layout(1))
    plan.pace(pace, "id", 0.0)
    assert rate.left(PartitionRef("id", 0), 0.0) == 0
    assert plan.settle([AppendRefused("moved", 2)])
    plan.reroute(layout(10, epoch=2), 0.0)
    plan.check()
    assert {i: error.code for i, error in plan.failures.items()} == {2: "DIS.4303"}
    assert plan.throttled
    assert plan.settle([AppendRefused("moved", 3), 60])
    plan.give_up(stream_not_found("s", "p"))
    plan.unpace(0.0)
    assert [rate.left(PartitionRef("id", n), 0.0) for n in (0, 4, 8)] == [3, 1, 2]


def test_a_partition_that_is_gone() -> None:
    """Records that name a partition which the new layout does not have fail with DIS.4302; the others are stored."""
    batch = [NewRecord(b"1", partition_id="1"), NewRecord(b"2", key="k1"), NewRecord(b"3", partition_id="1")]
    plan = PutPlan(batch, layout(2))
    assert plan.settle([AppendRefused("closed"), 5])
    plan.reroute(layout(1), 0.0)
    assert plan.entries("id") == []
    assert [(i, error.code) for i, error in sorted(plan.failures.items())] == [(0, "DIS.4302"), (2, "DIS.4302")]
    assert json.loads(plan.answer())["records"][1] == {"partition_id": "shardId-0000000000", "sequence_number": "5"}
