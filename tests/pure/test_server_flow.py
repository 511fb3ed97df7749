"""A rate lets pass what it promises and no more, nobody starves, and what was not used is there for others."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from disstream.engine import PartitionRef
from disstream.server.config import SERVICE_LIMITS, ServerConfig
from disstream.server.documents import StreamDoc
from disstream.server.flow import SWEEP_S, Flow, Pace, Rate

MIB = 1_048_576
REF = PartitionRef("s", 0)
OTHER = PartitionRef("s", 1)

sizes = st.lists(st.integers(0, 300), min_size=1, max_size=12)
puts = st.lists(st.tuples(st.floats(0, 2), sizes), min_size=1, max_size=30)


def doc(stream_type: str) -> StreamDoc:
    return StreamDoc(
        stream_id="s",
        name="s",
        create_time=0,
        last_modified_time=0,
        retention_h=24,
        stream_type=stream_type,
        data_type="BLOB",
        partitions=(),
    )


@given(
    puts=puts, in_bytes=st.one_of(st.none(), st.integers(1, 500)), in_records=st.one_of(st.none(), st.integers(1, 9))
)
def test_no_window_lets_too_much_pass(
    puts: list[tuple[float, list[int]]], in_bytes: int | None, in_records: int | None
) -> None:
    """In every window: rate * t, one second's worth, and less than one record more. What is refused is a suffix."""
    pace = Pace(in_bytes, in_records, None)
    now = 0.0
    passed: list[tuple[float, int, int]] = []
    for pause, wanted in puts:
        now += pause
        count = pace.put(REF, wanted, now)
        assert 0 <= count <= len(wanted)
        passed.append((now, count, sum(wanted[:count])))
    largest = max(size for _, wanted in puts for size in wanted)
    for i, (start, _, _) in enumerate(passed):
        for end, _, _ in passed[i:]:
            window = [(count, size) for at, count, size in passed[i:] if at <= end]
            if in_records is not None:
                assert sum(count for count, _ in window) < in_records * (end - start + 1) + 1 + 1e-6
            if in_bytes is not None:
                assert sum(size for _, size in window) <= in_bytes * (end - start + 1) + largest + 1e-6


@given(puts=puts, in_bytes=st.integers(1, 500), in_records=st.integers(1, 9))
def test_nobody_starves(puts: list[tuple[float, list[int]]], in_bytes: int, in_records: int) -> None:
    """Whatever went before, any record passes once the debt is paid, which takes no longer than what went too much."""
    pace = Pace(in_bytes, in_records, None)
    now = 0.0
    for pause, wanted in puts:
        now += pause
        pace.put(REF, wanted, now)
    largest = max(size for _, wanted in puts for size in wanted)
    assert pace.put(REF, [MIB], now + max(largest / in_bytes, 1 / in_records) + 0.001) == 1


@given(puts=puts, refused=st.data())
def test_what_is_given_back(puts: list[tuple[float, list[int]]], refused: st.DataObject) -> None:
    """With some of it given back, no window stores more than without; given back at once, it is as if never taken."""
    pace = Pace(100, None, None)
    now = 0.0
    stored: list[tuple[float, int]] = []
    for pause, wanted in puts:
        now += pause
        count = pace.put(REF, wanted, now)
        size = sum(wanted[:count])
        if count and refused.draw(st.booleans()):
            assert pace.in_bytes is not None
            before = pace.in_bytes.left(REF, now) + size
            later = refused.draw(st.sampled_from([0.0, 0.3, 1.5]))
            pace.unput(REF, count, size, now, now + later)
            if not later:
                assert math.isclose(pace.in_bytes.left(REF, now), before, abs_tol=1e-6)
            now += later
        else:
            stored.append((now, size))
    largest = max(size for _, wanted in puts for size in wanted)
    for i, (start, _) in enumerate(stored):
        for j in range(i, len(stored)):
            total = sum(size for _, size in stored[i : j + 1])
            assert total <= 100 * (stored[j][0] - start + 1) + largest + 1e-6


def test_records_of_the_service() -> None:
    """COMMON takes 1,000 records or 1 MiB a second and ADVANCED 2,000 or 5 MiB, exactly, then as much as flows in."""
    flow = Flow(ServerConfig(data_dir=None, **SERVICE_LIMITS))  # type: ignore[arg-type]
    common, advanced = flow.of(doc("COMMON")), flow.of(doc("ADVANCED"))
    assert common is not None
    assert advanced is not None
    assert common.put(REF, [10] * 1500, 7.0) == 1000
    assert common.put(REF, [10], 7.0) == 0
    assert common.put(OTHER, [10] * 1500, 7.0) == 1000  # each partition for itself
    assert common.put(REF, [10] * 1500, 7.5) == 500
    assert common.put(PartitionRef("t", 0), [MIB // 4] * 8, 7.0) == 4
    assert advanced.put(REF, [10] * 3000, 7.0) == 2000
    assert advanced.put(OTHER, [MIB] * 8, 7.0) == 5


def test_the_largest_record_passes() -> None:
    """A record beyond the bucket passes at once, also beside small ones, and is paid for afterwards."""
    pace = Pace(1000, None, None)
    assert pace.put(REF, [MIB], 0.0) == 1
    assert pace.put(REF, [1], 1000.0) == 0
    assert pace.put(REF, [1], 1048.0) == 1
    assert pace.put(OTHER, [10] * 99 + [MIB, 1], 0.0) == 100


def test_pages() -> None:
    """A page passes while anything is left and is paid for afterwards; of two read at once only one does."""
    pace = Pace(None, None, 1000)
    assert pace.may_get(REF, 0.0)
    assert pace.get(REF, 3000, 0.0)
    assert not pace.may_get(REF, 1.9)
    assert not pace.get(REF, 10, 1.9)
    assert pace.get(REF, 0, 1.9)  # nothing costs nothing
    assert pace.may_get(OTHER, 1.9)
    assert pace.may_get(REF, 2.1)
    assert pace.put(REF, [MIB] * 9, 2.1) == 9


def test_open_has_no_pace() -> None:
    """Without limits nothing is counted; with one of a type, streams of the other type are free."""
    assert Flow(ServerConfig(data_dir=None)).of(doc("COMMON")) is None
    flow = Flow(ServerConfig(data_dir=None, advanced_out_bytes_per_s=5))
    assert flow.of(doc("COMMON")) is None
    assert flow.of(doc("ADVANCED")) is not None


def test_idle_partitions_are_forgotten() -> None:
    """Buckets stand for partitions with traffic in the last moments only, however many there were."""
    rate = Rate(100)
    for second in range(100):
        for number in range(50):
            rate.take(PartitionRef(f"s{second}", number), 60, float(second))
        assert len(rate) <= 50 * (SWEEP_S + 2)
    rate.take(REF, 1, 1000.0)
    assert len(rate) == 1


def test_time_that_comes_out_of_order() -> None:
    """Requests that overlap may come with their times in either order: it never lets more pass, nor much less."""
    one, other = Rate(100), Rate(100)
    one.take(REF, 70, 1.0)
    one.take(REF, 60, 1.2)
    other.take(REF, 60, 1.2)
    other.take(REF, 70, 1.0)
    assert one.left(REF, 1.5) - 100 * 0.2 - 1e-6 <= other.left(REF, 1.5) <= one.left(REF, 1.5)
