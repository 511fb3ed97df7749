"""The read position of a partition: nothing skipped, nothing repeated, whatever the service answers."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.consumer.cursor import Describe, Obtain, OnExpired, PartitionCursor, Read, Since, Skipped, Wait
from disstream.errors import DisError, SequenceOutOfRange, ServerFault, ThrottledError, TransportError
from disstream.model import Cursor, Page, Record, SequenceRange
from disstream.wire.cursors import CursorState, encode_cursor
from disstream.wire.errors import api_error, sequence_out_of_range


def make(on_expired: OnExpired = "earliest", seed: int = 0) -> PartitionCursor:
    return PartitionCursor(
        on_expired=on_expired,
        refresh_s=270.0,
        idle_min_s=0.02,
        idle_max_s=0.5,
        retry_base_s=0.1,
        retry_max_s=30.0,
        rng=Random(seed),
    )


def page(*numbers: int, following: str = "next") -> Page:
    return Page(records=[Record(b"", n) for n in numbers], next_cursor=Cursor(following))


def at(place: int) -> PartitionCursor:
    """One that holds a cursor at `place`, obtained at 0."""
    cursor = make()
    cursor.begin(place, SequenceRange(0, 100))
    assert cursor.next_action(0.0) == Obtain(cursor.epoch, "AT_SEQUENCE_NUMBER", sequence_number=place)
    cursor.obtained(cursor.epoch, Cursor("c"))
    return cursor


def lost_range(cursor: PartitionCursor, expected: int) -> SequenceOutOfRange:
    error = sequence_out_of_range(expected, 50, 60)
    assert isinstance(error, SequenceOutOfRange)
    cursor.failed(cursor.epoch, error, 0.0)
    assert cursor.next_action(0.0) == Describe(cursor.epoch)
    return error


def numbers(records: Sequence[Record]) -> list[int]:
    return [r.sequence_number for r in records]


def test_every_start_asks_for_its_own_place() -> None:
    """The range at the start turns "earliest" and "latest" into numbers; a time and a number are asked for as such."""
    bounds = SequenceRange(5, 9)
    expected: dict[object, tuple[object, ...]] = {
        "earliest": ("AT_SEQUENCE_NUMBER", 5, None),
        "latest": ("AT_SEQUENCE_NUMBER", 9, None),
        7: ("AT_SEQUENCE_NUMBER", 7, None),
        Since(1234): ("AT_TIMESTAMP", None, 1234),
    }
    for where, query in expected.items():
        cursor = make()
        cursor.begin(where, bounds)  # type: ignore[arg-type]
        assert cursor.next_action(0.0) == Obtain(cursor.epoch, *query)  # type: ignore[arg-type]
        cursor.check()


def test_without_a_range_the_oldest_is_a_trim_horizon_and_the_newest_is_described() -> None:
    """A range the service does not tell yet never turns into a LATEST cursor, which could skip records."""
    cursor = make()
    cursor.begin("earliest", None)
    assert cursor.next_action(0.0) == Obtain(cursor.epoch, "TRIM_HORIZON")
    cursor.begin("latest", None)
    assert cursor.next_action(0.0) == Describe(cursor.epoch)
    cursor.described(cursor.epoch, None, 0.0)
    assert isinstance(cursor.next_action(0.0), Wait)
    assert cursor.next_action(1.0) == Describe(cursor.epoch)
    cursor.described(cursor.epoch, SequenceRange(0, 42), 1.0)
    assert cursor.next == 42


def test_a_cursor_is_replaced_at_270_seconds_counted_from_its_request() -> None:
    """The age counts from before the answer, so it is never younger than the service believes."""
    cursor = at(3)
    assert cursor.next_action(269.9) == Read(cursor.epoch, Cursor("c"))
    assert cursor.next_action(270.0) == Obtain(cursor.epoch, "AT_SEQUENCE_NUMBER", sequence_number=3)


def test_time_stays_the_place_until_a_record_tells_a_number() -> None:
    """A start by time is asked for by the same time again as long as it was empty."""
    cursor = make()
    cursor.begin(Since(1234), SequenceRange(0, 9))
    obtain = cursor.next_action(0.0)
    assert obtain == Obtain(cursor.epoch, "AT_TIMESTAMP", timestamp_ms=1234)
    cursor.obtained(cursor.epoch, Cursor("c"))
    assert cursor.accept(cursor.epoch, page(), 0.0) == []
    assert cursor.next_action(400.0) == obtain
    cursor.obtained(cursor.epoch, Cursor("c"))
    cursor.accept(cursor.epoch, page(6, 7), 400.0)
    assert cursor.next == 8
    assert cursor.gap_records == 0


def test_an_expired_cursor_is_replaced_at_once_and_a_second_one_after_a_pause() -> None:
    """Cursors that are born dead must not become a busy loop."""
    cursor = at(3)
    cursor.failed(cursor.epoch, api_error("DIS.4225", ""), 1.0)
    assert cursor.next_action(1.0) == Obtain(cursor.epoch, "AT_SEQUENCE_NUMBER", sequence_number=3)
    cursor.obtained(cursor.epoch, Cursor("d"))
    cursor.failed(cursor.epoch, api_error("DIS.4217", ""), 1.0)
    assert isinstance(cursor.next_action(1.0), Wait)


@pytest.mark.parametrize(("policy", "place", "gap"), [("earliest", 50, 40), ("latest", 60, 50)])
def test_expired_records_are_skipped_by_policy_and_counted(policy: OnExpired, place: int, gap: int) -> None:
    """The gap is exactly what lies between the number expected and the number read next."""
    cursor = make(policy)
    cursor.begin(10, SequenceRange(10, 60))
    lost_range(cursor, 10)
    assert cursor.described(cursor.epoch, SequenceRange(50, 60), 0.0) == Skipped(10, place)
    assert (cursor.next, cursor.gap_records, cursor.failure) == (place, gap, None)
    cursor.check()


def test_on_expired_raise_stops_with_the_error_until_a_seek() -> None:
    """The user decides; a seek makes it go on."""
    cursor = make("raise")
    cursor.begin(10, SequenceRange(10, 60))
    error = lost_range(cursor, 10)
    cursor.described(cursor.epoch, SequenceRange(50, 60), 0.0)
    assert cursor.failure is error
    assert cursor.next_action(1e9) == Wait(None)
    cursor.seek("earliest")
    assert cursor.next_action(0.0) == Obtain(cursor.epoch, "TRIM_HORIZON")


def test_a_place_beyond_the_end_stops_whatever_the_policy() -> None:
    """Going back to the oldest record would repeat what was read; such a number was never written."""
    cursor = make("earliest")
    cursor.begin(99, SequenceRange(50, 60))
    error = lost_range(cursor, 99)
    cursor.described(cursor.epoch, SequenceRange(50, 60), 0.0)
    assert cursor.failure is error


def test_earliest_trimmed_before_the_first_read_is_no_gap() -> None:
    """The oldest record that went away between describe and cursor was never promised."""
    cursor = make("raise")
    cursor.begin("earliest", SequenceRange(5, 60))
    cursor.failed(cursor.epoch, sequence_out_of_range(5, 50, 60), 0.0)
    assert cursor.next_action(0.0) == Obtain(cursor.epoch, "TRIM_HORIZON")
    cursor.obtained(cursor.epoch, Cursor("c"))
    assert numbers(cursor.accept(cursor.epoch, page(50, 51), 0.0)) == [50, 51]
    assert cursor.gap_records == 0


def test_a_page_that_overlaps_or_jumps_is_corrected_and_counted() -> None:
    """Repeated records are dropped, missing numbers counted, in one page and between pages."""
    cursor = at(3)
    assert numbers(cursor.accept(cursor.epoch, page(2, 3, 4, 4, 7), 0.0)) == [3, 4, 7]
    assert (cursor.gap_records, cursor.repeated_records, cursor.next) == (2, 2, 8)
    assert numbers(cursor.accept(cursor.epoch, page(10, 11), 0.0)) == [10, 11]
    assert (cursor.gap_records, cursor.next) == (4, 12)
    assert cursor.accept(cursor.epoch, page(10, 11), 0.0) == []
    assert isinstance(cursor.next_action(0.0), Wait), "a page of old records only is no progress"


def test_the_idle_pause_doubles_to_its_cap_and_ends_with_a_record() -> None:
    """An idle partition costs little, a busy one no pause."""
    cursor = at(3)
    pauses = []
    for _ in range(7):
        cursor.accept(cursor.epoch, page(), 100.0)
        action = cursor.next_action(100.0)
        assert isinstance(action, Wait)
        assert action.until is not None
        pauses.append(round(action.until - 100.0, 3))
    assert pauses == [0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5]
    cursor.accept(cursor.epoch, page(3), 101.0)
    assert isinstance(cursor.next_action(101.0), Read)


def test_pauses_after_failures_grow_and_respect_the_service() -> None:
    """Back-off doubles with jitter to its cap, for any length of a streak; Retry-After is a minimum."""
    cursor = at(3)
    for streak in range(1, 2000):
        cursor.failed(cursor.epoch, TransportError("cut", outcome_unknown=True), 0.0)
        action = cursor.next_action(0.0)
        assert isinstance(action, Wait)
        assert action.until is not None
        longest = min(30.0, 0.1 * 2.0 ** min(streak - 1, 50))
        assert longest / 2 <= action.until <= longest
    cursor.accept(cursor.epoch, page(3), 0.0)
    assert cursor.streak == 0
    cursor.failed(cursor.epoch, ThrottledError("slow", status=429, retry_after_s=12.0), 100.0)
    assert cursor.next_action(111.9) == Wait(112.0)


@pytest.mark.parametrize("code", ["DIS.4301", "DIS.4302", "DIS.4319", "DIS.4116", "DIS.4200"])
def test_what_will_not_heal_stops(code: str) -> None:
    """Stream or partition gone, refused credentials, a refused request: no endless retry."""
    cursor = at(3)
    error = api_error(code, "x")
    cursor.failed(cursor.epoch, error, 0.0)
    assert cursor.failure is error


@pytest.mark.parametrize("code", ["DIS.4303", "DIS.4305", "DIS.4309", "DIS.4205", "DIS.5000"])
def test_what_may_heal_is_tried_again(code: str) -> None:
    """Throttling, a stream that is being changed, a failing service."""
    cursor = at(3)
    cursor.failed(cursor.epoch, api_error(code), 0.0)
    assert cursor.failure is None
    assert isinstance(cursor.next_action(60.0), Read)


def test_answers_from_before_a_seek_change_nothing() -> None:
    """A seek makes every answer to an earlier question stale: page, cursor, range, failure."""
    cursor = at(3)
    old = cursor.epoch
    cursor.seek(7)
    assert cursor.accept(old, page(3, 4), 0.0) == []
    cursor.obtained(old, Cursor("old"))
    assert cursor.described(old, SequenceRange(0, 1), 0.0) is None
    cursor.failed(old, api_error("DIS.4301", ""), 0.0)
    assert cursor.failure is None
    assert cursor.next_action(0.0) == Obtain(cursor.epoch, "AT_SEQUENCE_NUMBER", sequence_number=7)


@given(data=st.data(), policy=st.sampled_from(["earliest", "latest"]))
def test_random_service_every_number_comes_once_or_is_counted(data: st.DataObject, policy: OnExpired) -> None:
    """Against a partition that grows, expires, forgets cursors and fails: read + counted gaps = the numbers passed."""
    oldest, end = 0, data.draw(st.integers(0, 20))
    now = 0.0
    cursor = make(policy, seed=1)
    cursor.begin("earliest", SequenceRange(oldest, end))
    read: list[int] = []
    skipped = 0  # by the start at the oldest, which is no gap
    faults: list[DisError] = [
        api_error("DIS.4225", ""),
        api_error("DIS.5000"),
        TransportError("cut", outcome_unknown=True),
    ]
    for _ in range(data.draw(st.integers(1, 60))):
        event = data.draw(st.sampled_from(["write", "trim", "ask", "ask", "ask", "fault", "age"]))
        if event == "write":
            end += data.draw(st.integers(1, 5))
        elif event == "trim":
            oldest = data.draw(st.integers(oldest, end))
        elif event == "age":
            now += 300.0
        else:
            action = cursor.next_action(now)
            if isinstance(action, Wait):
                assert action.until is not None
                now = action.until
                action = cursor.next_action(now)
            if event == "fault":
                cursor.failed(cursor.epoch, data.draw(st.sampled_from(faults)), now)
            elif isinstance(action, Describe):
                cursor.described(action.epoch, SequenceRange(oldest, end), now)
            elif isinstance(action, Obtain):
                if action.sequence_number is None:
                    cursor.obtained(action.epoch, Cursor(str(oldest)))
                elif oldest <= action.sequence_number <= end:
                    cursor.obtained(action.epoch, Cursor(str(action.sequence_number)))
                else:
                    cursor.failed(action.epoch, sequence_out_of_range(action.sequence_number, oldest, end), now)
            elif isinstance(action, Read):
                start = int(action.cursor)
                if start < oldest:
                    cursor.failed(action.epoch, api_error("DIS.4226"), now)
                else:
                    stop = min(end, start + 4)
                    got = cursor.accept(action.epoch, page(*range(start, stop), following=str(stop)), now)
                    if got and not read:
                        skipped = got[0].sequence_number - cursor.gap_records
                    read += numbers(got)
        cursor.check()
    assert cursor.failure is None
    assert read == sorted(set(read))
    if cursor.next is not None and read:
        assert len(read) + cursor.gap_records + skipped == cursor.next


def test_server_fault_is_not_an_answer() -> None:
    """A 5xx keeps the cursor: it may still be good."""
    cursor = at(3)
    cursor.failed(cursor.epoch, ServerFault("boom", status=502), 0.0)
    assert cursor.next_action(1.0) == Read(cursor.epoch, Cursor("c"))


def test_a_page_is_cut_where_records_have_to_wait() -> None:
    """What lies behind is neither accepted nor counted as missing, and is asked for again from there."""
    cursor = at(3)
    assert numbers(cursor.accept(cursor.epoch, page(3, 4, 5, 6), 0.0, below=5)) == [3, 4]
    cursor.check()
    assert (cursor.next, cursor.gap_records) == (5, 0)
    assert cursor.next_action(0.0) == Obtain(cursor.epoch, "AT_SEQUENCE_NUMBER", sequence_number=5)
    cursor.obtained(cursor.epoch, Cursor("d"))
    assert cursor.accept(cursor.epoch, page(5, 6), 0.0, below=5) == []
    assert cursor.next == 5
    cursor.obtained(cursor.epoch, Cursor("e"))
    assert numbers(cursor.accept(cursor.epoch, page(5, 6), 0.0, below=9)) == [5, 6]
    assert (cursor.next, cursor.repeated_records, cursor.gap_records) == (7, 0, 0)


def test_a_gap_up_to_the_cut_is_counted_and_passed() -> None:
    """Numbers that are missing right before it must not be asked for again and again."""
    cursor = at(3)
    assert numbers(cursor.accept(cursor.epoch, page(3, 8), 0.0, below=6)) == [3]
    assert (cursor.next, cursor.gap_records) == (6, 2)
    cursor = at(3)
    assert cursor.accept(cursor.epoch, page(8), 0.0, below=6) == []
    assert (cursor.next, cursor.gap_records) == (6, 3)
    cursor.check()


def test_a_cut_before_the_first_record_of_a_time_tells_its_number() -> None:
    """The time stood for a place behind the cut."""
    cursor = make()
    cursor.begin(Since(1234), None)
    cursor.next_action(0.0)
    cursor.obtained(cursor.epoch, Cursor("c"))
    assert cursor.at is None
    assert cursor.accept(cursor.epoch, page(7, 8), 0.0, below=5) == []
    assert (cursor.next, cursor.gap_records) == (7, 0)


def test_where_a_cursor_points_is_known_before_the_first_record() -> None:
    """A partition that is read from a time on, and in which nothing is written, does stand somewhere."""
    cursor = make()
    cursor.begin(Since(1234), None)
    cursor.next_action(0.0)
    cursor.obtained(cursor.epoch, Cursor(encode_cursor(CursorState("s", "id", 0, 42, 0))))
    assert (cursor.at, cursor.next) == (42, None)
    cursor.seek("earliest")
    assert cursor.at is None
