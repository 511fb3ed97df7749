"""The buffer of a consumer: order, fairness, and one budget of bytes."""

from __future__ import annotations

from collections import deque
from itertools import islice

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from disstream.consumer.prefetch import (
    COLUMNS_OVERHEAD_BYTES,
    RECORD_OVERHEAD_BYTES,
    RESERVE_FACTOR,
    SLICE_BYTES,
    Prefetch,
    cost,
)
from disstream.model import Record
from disstream.wire.pages import ColumnRecords, PageBatch, decode_page_columns, encode_page_columns


def make(budget: int, *partitions: str, page: int = 100) -> Prefetch[str]:
    prefetch: Prefetch[str] = Prefetch(budget, page)
    for partition in partitions:
        prefetch.add(partition)
    return prefetch


def records(start: int, count: int, size: int = 10) -> list[Record]:
    return [Record(b"x" * size, n) for n in range(start, start + count)]


def columns(start: int, count: int, size: int = 10) -> ColumnRecords:
    """The same as they come in a page of columns."""
    packed = msgspec.msgpack.encode(([None] * count, [size] * count, None))
    body = encode_page_columns([PageBatch(start, 0, packed, b"x" * size * count)], "")
    return decode_page_columns(body, "", "")[0]


def taken(prefetch: Prefetch[str], limit: int) -> tuple[str, list[int]]:
    run = prefetch.take(limit)
    assert run is not None
    return run[0], [r.sequence_number for r in run[1]]


def test_partitions_take_turns_run_by_run() -> None:
    """A partition with much to give does not starve one with little."""
    prefetch = make(10**6, "a", "b", "c")
    prefetch.put("a", records(0, 100))
    prefetch.put("b", records(0, 3))
    prefetch.put("c", records(0, 5))
    turns = [taken(prefetch, 2) for _ in range(6)]
    assert turns == [("a", [0, 1]), ("b", [0, 1]), ("c", [0, 1]), ("a", [2, 3]), ("b", [2]), ("c", [2, 3])]


def test_pages_of_a_partition_come_in_order_and_count_until_taken() -> None:
    """The bytes of a page are given back with its last record."""
    prefetch = make(10**6, "a")
    prefetch.put("a", records(0, 3))
    prefetch.put("a", records(3, 2))
    assert prefetch.held_bytes == 5 * (10 + RECORD_OVERHEAD_BYTES)
    assert taken(prefetch, 2) == ("a", [0, 1])
    assert prefetch.held_bytes == 5 * (10 + RECORD_OVERHEAD_BYTES)
    assert taken(prefetch, 2) == ("a", [2])
    assert prefetch.held_bytes == 2 * (10 + RECORD_OVERHEAD_BYTES)
    assert taken(prefetch, 9) == ("a", [3, 4])
    assert prefetch.take(9) is None
    assert prefetch.held_bytes == 0


def test_a_page_in_columns_is_made_as_it_is_taken() -> None:
    """In runs of any length, and no record before somebody takes it; what it costs is given back with the last one."""
    prefetch = make(10**6, "a")
    page = columns(0, 10)
    prefetch.put("a", page)
    assert prefetch.held_bytes == page.held_bytes + 10 * COLUMNS_OVERHEAD_BYTES < 10 * RECORD_OVERHEAD_BYTES
    made = [prefetch.take(limit) for limit in (1, 4, 3, 9)]
    assert [run and [r.sequence_number for r in run[1]] for run in made] == [[0], [1, 2, 3, 4], [5, 6, 7], [8, 9]]
    assert prefetch.held_bytes == 0
    assert [record for run in made if run for record in run[1]] == list(page)

    count = 0

    class Counted(Record, frozen=True, gc=False, eq=False):
        def __post_init__(self) -> None:
            nonlocal count
            count += 1

    prefetch.put("a", ColumnRecords(Counted, b"abcdef", 0, [None] * 6, [1] * 6, [0] * 6, range(6), 0))
    for limit, so_far in ((1, 1), (3, 4), (9, 6)):
        assert prefetch.first("a") == count
        prefetch.take(limit)
        assert count == so_far


def test_a_packed_page_in_columns_is_opened_in_slices() -> None:
    """At most SLICE_BYTES of payload at a time; what is taken out counts as records do, and nothing keeps the page."""
    opened: list[int] = []

    def unpack(some: list[Record]) -> list[Record]:
        opened.append(len(some))
        return [record for record in some for _ in range(3)]

    prefetch: Prefetch[str] = Prefetch(10**6, 100, unpack)
    prefetch.add("a")
    prefetch.put("a", columns(0, 10, SLICE_BYTES // 4), packed=True)
    assert opened == []
    assert prefetch.held_bytes == 10 * (SLICE_BYTES // 4 + COLUMNS_OVERHEAD_BYTES)
    found = []
    while run := prefetch.take(5):
        prefetch.check()
        found += [record.sequence_number for record in run[1]]
    assert found == sorted([*range(10)] * 3)
    assert opened == [4, 4, 2]
    assert prefetch.held_bytes == 0


def test_a_used_budget_makes_wait_but_never_who_holds_nothing() -> None:
    """A partition that holds nothing may always fetch one page; others wait in turn for room."""
    prefetch = make(RESERVE_FACTOR * 100, "a", "b", "c")
    prefetch.put("a", records(0, 1))
    prefetch.put("b", records(0, 1))
    assert not prefetch.reserve("a")
    assert not prefetch.reserve("b")
    assert prefetch.reserve("c")
    prefetch.release("c")
    assert prefetch.grant() is None
    assert taken(prefetch, 9) == ("a", [0])
    prefetch.check()
    assert prefetch.grant() == "a"
    assert prefetch.grant() is None, "b holds something and there is no room"


def test_one_that_ran_empty_overtakes_those_who_wait_for_room() -> None:
    """Nobody in front of it may hold it up, or a stuck partition would stop the others."""
    prefetch = make(1, "stuck", "b")
    for partition in ("stuck", "b"):
        prefetch.put(partition, records(0, 1))
        assert not prefetch.reserve(partition)
    prefetch.pause("stuck")
    assert taken(prefetch, 9) == ("b", [0])
    assert prefetch.grant() == "b"


def test_what_is_given_back_comes_first() -> None:
    """The rest of a run that was not handed out keeps its place, and the count of records forgets it."""
    prefetch = make(10**6, "a", "b")
    prefetch.put("a", records(0, 4))
    prefetch.put("b", records(0, 4))
    run = prefetch.take(3)
    assert run is not None
    prefetch.give_back("a", run[1][1:])
    prefetch.check()
    assert prefetch.taken_records == 1
    assert prefetch.first("a") == 1
    assert taken(prefetch, 9) == ("a", [1, 2])


def test_paused_records_stay_and_dropped_ones_go() -> None:
    """pause hides, resume shows again, drop forgets with the bytes."""
    prefetch = make(10**6, "a", "b")
    prefetch.put("a", records(0, 2))
    prefetch.pause("a")
    prefetch.put("a", records(2, 2))
    assert not prefetch.ready
    prefetch.check()
    prefetch.resume("a")
    prefetch.resume("a")
    assert taken(prefetch, 9) == ("a", [0, 1])
    prefetch.drop("a")
    assert prefetch.held_bytes == 0
    assert prefetch.first("a") is None
    prefetch.check()


OPERATIONS = ["fetch", "arrive", "arrive", "take", "take", "give_back", "pause", "resume", "drop", "lose"]


@given(data=st.data(), budget=st.integers(1, 40_000))
def test_random_use_keeps_order_and_the_bound(data: st.DataObject, budget: int) -> None:
    """Whatever happens in whatever order: per partition the records come as put, and held bytes stay bounded."""
    partitions = ["a", "b", "c"]
    prefetch = make(budget, *partitions, page=1000)
    page_cost = max(cost(records(0, 4, 250)), cost(columns(0, 4, 250)))
    assert page_cost <= RESERVE_FACTOR * 1000
    written = dict.fromkeys(partitions, 0)
    expected: dict[str, deque[int]] = {p: deque() for p in partitions}
    in_flight: set[str] = set()
    run: tuple[str, list[Record]] | None = None
    for operation in data.draw(st.lists(st.sampled_from(OPERATIONS), max_size=80)):
        partition = data.draw(st.sampled_from(partitions))
        if operation == "fetch":
            if prefetch.reserve(partition):
                in_flight.add(partition)
        elif operation in ("arrive", "lose") and partition in in_flight:
            if operation == "arrive":
                count = data.draw(st.integers(1, 4))
                form = data.draw(st.sampled_from([records, columns]))
                packed = data.draw(st.booleans())
                prefetch.put(partition, form(written[partition], count, 250), packed=packed)
                expected[partition].extend(range(written[partition], written[partition] + count))
                written[partition] += count
            in_flight.discard(partition)
            prefetch.release(partition)
        elif operation == "take":
            ready = prefetch.ready
            run = prefetch.take(data.draw(st.integers(1, 5)))
            assert (run is not None) == ready
            if run is not None:
                assert type(run[1]) is list
                assert prefetch.first(run[0]) == next(islice(expected[run[0]], len(run[1]), None), None)
                assert [r.sequence_number for r in run[1]] == [expected[run[0]].popleft() for _ in run[1]]
        elif operation == "give_back" and run is not None:
            left = run[1][-data.draw(st.integers(1, len(run[1]))) :]
            prefetch.give_back(run[0], left)
            expected[run[0]].extendleft(r.sequence_number for r in reversed(left))
            run = None
        elif operation == "pause":
            prefetch.pause(partition)
        elif operation == "resume":
            prefetch.resume(partition)
        elif operation == "drop":
            prefetch.drop(partition)
            expected[partition].clear()
            run = None if run is not None and run[0] == partition else run
        while (granted := prefetch.grant()) is not None:
            in_flight.add(granted)
        prefetch.check()
        # Beyond the budget: one page for each partition, and a run that was given back.
        assert prefetch.held_bytes <= budget + (len(partitions) + 1) * page_cost


def test_reasons_to_pause_are_independent() -> None:
    """A partition is handed out again when the last reason is gone."""
    prefetch = make(10**9, "a")
    prefetch.put("a", records(0, 1))
    prefetch.pause("a")
    prefetch.pause("a", "gap")
    prefetch.resume("a")
    assert prefetch.take(10) is None
    prefetch.resume("a", "gap")
    assert taken(prefetch, 10) == ("a", [0])
    prefetch.check()


def test_what_is_removed_leaves_nothing_behind() -> None:
    """Pages, a page in flight, a place in the queue for room: all gone, and the next one gets the room."""
    prefetch = make(1_000, "a", "b", page=200)
    for partition in ("a", "b"):
        prefetch.put(partition, records(0, 1))
        assert not prefetch.reserve(partition)
    prefetch.remove("a")
    prefetch.check()
    assert taken(prefetch, 10) == ("b", [0])
    assert prefetch.grant() == "b"
    prefetch.check()


def test_while_suspended_nothing_is_taken() -> None:
    """It stays, in order."""
    prefetch = make(10**9, "a")
    prefetch.put("a", records(0, 2))
    prefetch.suspended = True
    assert prefetch.take(10) is None
    prefetch.suspended = False
    assert taken(prefetch, 10) == ("a", [0, 1])
