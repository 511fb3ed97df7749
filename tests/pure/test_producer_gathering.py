"""Proves when few records share a request: what waits for one that is out, for how long, and who comes along."""

from __future__ import annotations

import random

from disstream.model import NewRecord, PartitionInfo
from disstream.producer.accumulator import Accumulator
from disstream.producer.config import ProducerConfig
from disstream.producer.pacing import Backoff
from disstream.producer.picking import (
    COUNT_S,
    FEW_OF_A_LANE,
    FEW_RECORDS,
    GATHER_S,
    LOOK_S,
    MANY_LANES,
    MORE_GATHER_S,
    WIDE_GATHER_S,
)
from disstream.producer.shipment import Shipment, weight_of
from disstream.wire.errors import api_error
from disstream.wire.partitioning import hash_key, hash_ranges, partition_id
from disstream.wire.places import Place

PARTITIONS = 4
OWNERS = [
    next(key for key in (f"k{i}" for i in range(1000)) if owner.low <= hash_key(key) <= owner.high)
    for owner in hash_ranges(PARTITIONS)
]
"""A key of each partition."""


def make(
    partitions: int = PARTITIONS, max_in_flight: int = PARTITIONS, delivery_timeout_s: float = 120.0
) -> Accumulator:
    config = ProducerConfig(
        max_in_flight=max_in_flight,
        delivery_timeout_s=delivery_timeout_s,
        request_timeout_s=min(30.0, delivery_timeout_s / 2),
    )
    layout = [PartitionInfo(partition_id=partition_id(i), hash_range=r) for i, r in enumerate(hash_ranges(partitions))]
    return Accumulator(config, layout, Backoff(0.05, 5.0, random.Random(1)))


def add(core: Accumulator, partition: int, now: float, count: int = 1) -> None:
    for _ in range(count):
        row = NewRecord(b"x", OWNERS[partition])
        lane = core.layout.lanes.of_row(row)
        if core.add(lane, row, weight_of(row)) is None:
            core.open(lane, row, weight_of(row), now)


def take(core: Accumulator, group: int, now: float, *, more: bool = False) -> Shipment | None:
    return core.picker.take(core.layout.lanes.groups[group], now, more=more)


def settle(core: Accumulator, shipment: Shipment, now: float) -> None:
    places = tuple(Place(lane.number or 0, 0, len(part)) for lane, part in shipment.parts)
    core.answers.stored(shipment, places, now)
    core.check()


def lanes(shipment: Shipment | None) -> list[int | None]:
    assert shipment is not None
    return [lane.number for lane, _ in shipment.parts]


def test_a_few_records_wait_for_a_request_that_is_out() -> None:
    """A group with little to send waits until a request of ours ends, and says so to be woken; at most GATHER_S."""
    core = make()
    add(core, 0, 10.0)
    first = take(core, 0, 10.0)
    assert lanes(first) == [0]
    add(core, 1, 10.001)
    assert take(core, 1, 10.001) is None
    group = core.layout.lanes.groups[1]
    assert list(core.picker.gathering) == [group]
    assert core.picker.next_wake(group, 10.001) == 10.001 + GATHER_S
    assert lanes(take(core, 1, 10.001 + GATHER_S)) == [1]


def test_it_goes_when_that_request_ends_and_takes_idle_groups_along() -> None:
    """What gathered in several groups meanwhile becomes one request; all of them are busy until its answer."""
    core = make()
    add(core, 0, 10.0)
    first = take(core, 0, 10.0)
    assert first is not None
    for partition in (1, 2, 0):
        add(core, partition, 10.0001)
        assert take(core, partition, 10.0001) is None
    settle(core, first, 10.001)
    shared = take(core, 1, 10.001)
    assert sorted(n for n in lanes(shared) if n is not None) == [0, 1, 2]
    core.check()
    assert [group.busy for group in core.layout.lanes.groups] == [True, True, True, False]
    add(core, 2, 10.001)
    assert take(core, 2, 11.0) is None
    assert core.picker.next_wake(core.layout.lanes.groups[2], 11.0) is None
    assert shared is not None
    settle(core, shared, 11.0)
    assert not any(group.busy for group in core.layout.lanes.groups)
    assert lanes(take(core, 2, 11.0)) == [2]


def test_many_records_neither_wait_nor_take_others_along() -> None:
    """With much to send each group has its own request in flight."""
    core = make()
    add(core, 0, 10.0)
    assert take(core, 0, 10.0) is not None
    add(core, 1, 10.0, FEW_RECORDS)
    add(core, 2, 10.0, FEW_RECORDS - 1)
    assert lanes(take(core, 1, 10.0)) == [1]
    assert take(core, 2, 10.0) is None
    add(core, 2, 10.0)
    assert lanes(take(core, 2, 10.0)) == [2]


def test_full_requests_do_not_wait() -> None:
    """What fills a request by its bytes goes at once, however few records it is."""
    core = make(partitions=4 * MANY_LANES)
    full = ProducerConfig().max_batch_bytes // MANY_LANES
    for group, more in ((0, True), (1, False), (2, False)):
        for lane in core.layout.lanes.groups[group].lanes[:MANY_LANES]:
            row = NewRecord(bytes(full), partition_id=partition_id(lane.number or 0))
            core.open(lane, row, weight_of(row), 10.0)
        assert take(core, group, 10.0, more=more) is not None
    core.check()


def add_to_lanes(core: Accumulator, group: int, lanes: int, count: int, now: float) -> None:
    """So many records to each of so many lanes of a group."""
    for lane in core.layout.lanes.groups[group].lanes[:lanes]:
        for _ in range(count):
            row = NewRecord(b"x", partition_id=partition_id(lane.number or 0))
            if core.add(lane, row, weight_of(row)) is None:
                core.open(lane, row, weight_of(row), now)


def test_many_lanes_with_few_records_each_wait_longer() -> None:
    """While two requests are out, a group waits until its lanes have something to send, at most WIDE_GATHER_S."""
    core = make(partitions=4 * MANY_LANES)
    for number in (0, 1):
        add_to_lanes(core, number, MANY_LANES, FEW_OF_A_LANE, 10.0)
    add_to_lanes(core, 2, MANY_LANES, FEW_OF_A_LANE - 1, 10.0)
    first = take(core, 0, 10.0)
    assert len(lanes(first)) == MANY_LANES
    group = core.layout.lanes.groups[2]
    assert core.picker.next_wake(group, 10.0) == 10.0, "only one is out"
    assert take(core, 1, 10.0) is not None
    assert take(core, 2, 10.0) is None
    assert list(core.picker.gathering) == [group]
    assert core.picker.next_wake(group, 10.0) == 10.0 + WIDE_GATHER_S
    assert len(lanes(take(core, 2, 10.0 + WIDE_GATHER_S))) == MANY_LANES
    add_to_lanes(core, 3, MANY_LANES - 1, FEW_RECORDS // (MANY_LANES - 1) + 1, 10.0)
    assert len(lanes(take(core, 3, 10.0))) == MANY_LANES - 1


def test_many_lanes_wait_while_more_is_being_sent() -> None:
    """In a burst they wait even with nothing out, at most MORE_GATHER_S, and look often whether it goes on."""
    core = make(partitions=4 * MANY_LANES)
    add_to_lanes(core, 0, MANY_LANES, 1, 10.0)
    group = core.layout.lanes.groups[0]
    now = 10.0
    while now < 10.0 + MORE_GATHER_S:
        assert take(core, 0, now, more=True) is None
        again_at = core.picker.next_wake(group, now)
        assert again_at is not None
        assert now < again_at <= now + LOOK_S
        now = again_at
    assert len(lanes(take(core, 0, now, more=True))) == MANY_LANES


def test_they_go_when_the_burst_has_ended() -> None:
    """Who has sent all and awaits receipts finds out that nothing is waited for within LOOK_S."""
    core = make(partitions=4 * MANY_LANES)
    add_to_lanes(core, 0, MANY_LANES, 1, 10.0)
    assert take(core, 0, 10.0, more=True) is None
    assert core.picker.next_wake(core.layout.lanes.groups[0], 10.0) == 10.0 + LOOK_S
    assert len(lanes(take(core, 0, 10.0 + LOOK_S))) == MANY_LANES
    assert core.layout.lanes.groups[0].patient_until == 0.0


def test_they_go_when_there_is_enough_of_each() -> None:
    """What has gathered is counted again after COUNT_S."""
    core = make(partitions=4 * MANY_LANES)
    add_to_lanes(core, 0, MANY_LANES, 1, 10.0)
    assert take(core, 0, 10.0, more=True) is None
    add_to_lanes(core, 0, MANY_LANES, FEW_OF_A_LANE - 1, 10.0)
    assert take(core, 0, 10.0 + COUNT_S / 2, more=True) is None
    shipment = take(core, 0, 10.0 + COUNT_S, more=True)
    assert shipment is not None
    assert shipment.records == MANY_LANES * FEW_OF_A_LANE


def test_patience_does_not_outlive_its_time() -> None:
    """Whatever else holds a group back, it is not taken for one that looks soon by itself, and left asleep."""
    core = make(partitions=4 * MANY_LANES)
    add_to_lanes(core, 0, MANY_LANES, 1, 10.0)
    assert take(core, 0, 10.0, more=True) is None
    core.picker.paused_until = 20.0
    assert take(core, 0, 11.0, more=True) is None
    assert core.layout.lanes.groups[0].patient_until == 0.0


def test_the_wait_counts_from_when_the_group_could_send() -> None:
    """What gathered behind a slow request waits as long as what comes to an idle group."""
    core = make(partitions=4 * MANY_LANES)
    add_to_lanes(core, 0, MANY_LANES, FEW_OF_A_LANE, 10.0)
    first = take(core, 0, 10.0, more=True)
    assert first is not None
    add_to_lanes(core, 0, MANY_LANES, 1, 10.0)
    settle(core, first, 11.0)
    assert take(core, 0, 11.0, more=True) is None
    assert take(core, 0, 11.0 + MORE_GATHER_S - LOOK_S, more=True) is None
    assert len(lanes(take(core, 0, 11.0 + MORE_GATHER_S, more=True))) == MANY_LANES


def test_few_lanes_wait_for_nothing_that_is_to_come() -> None:
    """Batches of few lanes fill by themselves."""
    core = make(partitions=4 * (MANY_LANES - 1))
    add_to_lanes(core, 0, MANY_LANES - 1, 1, 10.0)
    assert len(lanes(take(core, 0, 10.0, more=True))) == MANY_LANES - 1


def test_no_record_expires_while_more_is_awaited() -> None:
    """With little time for a record the wait is shorter: a quarter of it."""
    core = make(partitions=4 * MANY_LANES, delivery_timeout_s=0.5)
    add_to_lanes(core, 0, MANY_LANES, 1, 10.0)
    assert take(core, 0, 10.0, more=True) is None
    assert len(lanes(take(core, 0, 10.13, more=True))) == MANY_LANES


def test_one_that_travels_alone_takes_nobody_along() -> None:
    """A lane whose request was refused for what it held finds its bad record without the records of other groups."""
    core = make()
    add(core, 0, 10.0, 2)
    first = take(core, 0, 10.0)
    assert first is not None
    core.answers.refused(first, api_error("DIS.4200"), 10.0)
    add(core, 1, 10.0)
    assert lanes(take(core, 0, 10.0)) == [0]


def test_records_without_a_key_wait_too() -> None:
    """The free lane counts to what a group has to send."""
    core = make()
    add(core, 0, 10.0)
    assert take(core, 0, 10.0) is not None
    row = NewRecord(b"x")
    core.open(core.layout.lanes.of_row(row), row, weight_of(row), 10.0)
    assert take(core, 1, 10.0) is None
    assert lanes(take(core, 1, 10.0 + GATHER_S)) == [None]
