"""The shape of streams: division of the hash keys, the ways of partitions, and what readers are told."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.model import MAX_HASH_KEY
from disstream.server.config import MAX_SCALINGS
from disstream.server.creation import new_stream
from disstream.server.documents import LayoutDoc, ScalingDoc, StreamDoc, decode_document, encode_document
from disstream.server.reshape import (
    begun,
    expired,
    finished,
    meeting,
    needless,
    refusal,
    reshaped,
    writable_count,
)
from disstream.wire.partitioning import hash_ranges
from disstream.wire.streams import CreateStream

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def stream(partitions: int) -> StreamDoc:
    request = CreateStream(stream_name="s", partition_count=partitions)
    return new_stream(request, max_partitions=1000, max_tags=10, now_ms=0, source=random.Random(1))


def scaled(doc: StreamDoc, target: int, now_ms: int = 1) -> StreamDoc:
    return finished(begun(doc, target, now_ms), now_ms)


@given(st.integers(1, 9), st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=6))
def test_any_way_of_scaling(first: int, steps: list[tuple[int, bool]]) -> None:
    """The keys are divided evenly in id order, epochs rise where it matters, numbers stay small and never go."""
    doc = stream(first)
    most = first
    for now_ms, (target, expiring) in enumerate(steps, 1):
        if target == writable_count(doc):
            continue
        before = doc
        pending = begun(doc, target, now_ms)
        assert pending.partitions == before.partitions
        assert decode_document(encode_document(pending)) == pending
        doc = finished(pending, now_ms)
        most = max(most, target)
        active = [p for p in doc.partitions if p.writable]
        assert [p.hash_range for p in active] == hash_ranges(target)
        assert (active[0].low, active[-1].high) == (0, MAX_HASH_KEY)
        assert [p.number for p in doc.partitions] == list(range(most))
        old = {p.number: p for p in before.partitions}
        for p in doc.partitions:
            assert p.writable or (p.low, p.high) == (-1, -1)
            known = old.get(p.number)
            if known is None:
                assert (p.epoch, p.writable) == (1, True)
            else:
                moved = known.writable or p.writable
                assert p.epoch == known.epoch + moved
                assert (p.number in meeting(pending)) == moved
                assert moved or p == known
        assert (doc.changes, doc.pending, doc.pending_scaling) == (before.changes + 1, (), None)
        assert doc.scalings[-1] == ScalingDoc(now_ms, writable_count(before), target)
        if expiring:
            doc = expired(doc, set(range(most)), now_ms + DAY_MS)
            assert all(p.status in ("ACTIVE", "EXPIRED") for p in doc.partitions)


def test_who_goes_and_who_comes_back() -> None:
    """The highest numbers go; the deleted come back before the expired, and new ones last."""
    doc = scaled(stream(4), 2)
    assert [p.status for p in doc.partitions] == ["ACTIVE", "ACTIVE", "DELETED", "DELETED"]
    doc = expired(doc, {2}, DAY_MS + 1)
    assert [p.status for p in doc.partitions] == ["ACTIVE", "ACTIVE", "EXPIRED", "DELETED"]
    doc = scaled(doc, 3)
    assert [p.status for p in doc.partitions] == ["ACTIVE", "ACTIVE", "EXPIRED", "ACTIVE"]
    doc = scaled(doc, 5)
    assert [(p.number, p.status) for p in doc.partitions] == [(n, "ACTIVE") for n in range(5)]


def test_expiry_takes_time_and_emptiness() -> None:
    """A deleted partition expires once it is empty, and not before its readers had the time of retention."""
    doc = scaled(stream(2), 1, now_ms=1_000)
    assert expired(doc, {0, 1}, DAY_MS + 999) is doc
    assert expired(doc, {0}, DAY_MS + 1_000) is doc
    assert [p.status for p in expired(doc, {0, 1}, DAY_MS + 1_000).partitions] == ["ACTIVE", "EXPIRED"]
    longer = msgspec.structs.replace(doc, retention_h=48)
    assert expired(longer, {0, 1}, DAY_MS + 1_000) is longer


def test_the_history_is_bounded() -> None:
    """Only the last changes are remembered."""
    doc = stream(1)
    for n in range(MAX_SCALINGS + 5):
        doc = scaled(doc, 2 - n % 2, now_ms=n)
    assert len(doc.scalings) == MAX_SCALINGS
    assert doc.scalings[-1].at_ms == MAX_SCALINGS + 4


def tried(minute: int, code: int = 0) -> ScalingDoc:
    return ScalingDoc(minute * 60_000, 1, 2, False, code)


@pytest.mark.parametrize(
    ("scalings", "minute", "left_s"),
    [
        ([], 0, None),
        ([tried(0)], 0, 3600),
        ([tried(0)], 59, 60),
        ([tried(0)], 60, None),
        ([tried(0), tried(10, 4308)], 60, None),  # a failure starts no pause
        ([tried(n, 4308) for n in range(4)], 10, None),
        ([tried(n, 4308) for n in range(5)], 10, 3000),  # until the first of them is an hour old
        ([tried(n, 4308) for n in range(5)], 60, None),
        ([tried(n, 4308) for n in range(7)], 10, 3120),
        ([*(tried(n, 4308) for n in range(4)), tried(9)], 10, 3540),  # both rules: the later counts
        ([tried(30)], 0, 5400),  # by a clock that was a little ahead
        ([tried(600_000)] * 5, 0, None),  # by one that was a year ahead, and is right now
    ],
)
def test_how_often(scalings: list[ScalingDoc], minute: int, left_s: float | None) -> None:
    """Five tries in an hour, and none in the hour after a success."""
    found = refusal(scalings, minute * 60_000, per_hour=5, pause_s=3600)
    assert (found and found[1]) == left_s


def test_without_limits_nothing_is_too_soon() -> None:
    """Where no limit is set, scaling is never refused for its frequency."""
    assert refusal([tried(0)] * 50, 0, per_hour=None, pause_s=None) is None


def layouts(*bounds: dict[int, int]) -> dict[int, LayoutDoc]:
    return {change: LayoutDoc(0, each) for change, each in enumerate(bounds, 1)}


def test_what_readers_need_not_know() -> None:
    """A change is told as long as records before it can be read and it differs from the next one."""
    changes = layouts({0: 10, 1: 5}, {0: 20, 1: 5})
    assert needless(changes, {0: 0, 1: 0}) == []
    assert needless(changes, {0: 10, 1: 4}) == []
    assert needless(changes, {0: 10, 1: 5}) == [1]
    assert needless(changes, {0: 20, 1: 5}) == [1, 2]
    assert needless(layouts({0: 10, 1: 5}, {0: 10, 1: 5, 2: 0}), {0: 0, 1: 0}) == [1]
    # Partition 1 ended at the first change; the second says nothing of it.
    assert needless(layouts({0: 10, 1: 5}, {0: 10, 2: 0}), {0: 0, 1: 0, 2: 0}) == []
    assert needless({}, {0: 10}) == []
    # One that nobody knows any more holds nothing back.
    assert needless(layouts({0: 10, 9: 5}), {0: 10}) == [1]


def test_even_division_of_many() -> None:
    """The service's own published example: two partitions."""
    two = reshaped(stream(5).partitions, 2, 0)
    assert [p.hash_range for p in two if p.writable] == [(0, 4611686018427387902), (4611686018427387903, MAX_HASH_KEY)]
