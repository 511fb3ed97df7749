"""Proves that records share one of the service only where they belong together, within bounds, and always alike."""

from __future__ import annotations

from itertools import islice, pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from disstream.model import NewRecord, Record
from disstream.producer.config import Envelope, ProducerConfig
from disstream.producer.packing import Packing
from disstream.wire.compression import decompress_payload
from disstream.wire.envelope import unwrap, wrap

PRODUCER = bytes(range(16))

keyed = st.builds(NewRecord, st.binary(max_size=40), st.none() | st.sampled_from(["a", "bc"]))
routed = st.builds(
    NewRecord,
    st.binary(max_size=40),
    st.none() | st.sampled_from(["a", "bc"]),
    partition_id=st.none() | st.sampled_from(["0", "1"]),
    explicit_hash_key=st.none() | st.sampled_from(["7", "8"]),
    headers=st.none() | st.just({"name": "value"}),
)


def packing(compression: Any = None, **options: Any) -> Packing:
    return Packing(ProducerConfig(envelope=Envelope(**options), record_compression=compression), PRODUCER)


def opened(rows: list[NewRecord]) -> list[Record]:
    return unwrap([Record(row.data, i, key=row.key) for i, row in enumerate(rows)])


@given(st.lists(keyed, min_size=1, max_size=30) | st.lists(routed, min_size=1, max_size=30), st.integers(1, 5))
def test_neighbours_share_within_bounds(rows: list[NewRecord], most: int) -> None:
    """Each is in one, in order; none holds too many, too much, or records of different routes; none could hold more."""
    pack = packing(aggregate_records=most, aggregate_bytes=100)
    sizes = pack.sizes(rows)
    assert sum(sizes) == len(rows)
    following = iter(rows)
    groups = [list(islice(following, size)) for size in sizes]

    def fits(group: list[NewRecord]) -> bool:
        weight = sum(len(r.data) + len(r.key or "") + 8 + (len("namevalue") + 4 if r.headers else 0) for r in group)
        return len(group) <= most and weight <= 100 and len({(r.partition_id, r.explicit_hash_key) for r in group}) == 1

    assert all(len(group) == 1 or fits(group) for group in groups)
    for group, behind in pairwise(groups):
        assert not fits([*group, behind[0]])


@given(st.lists(keyed, min_size=1, max_size=30))
def test_packing_again_makes_the_same(rows: list[NewRecord]) -> None:
    """Retries send the same bytes; and what begins where a record of the service began is cut as it was."""
    pack = packing(aggregate_records=4, aggregate_bytes=100)
    sizes = pack.sizes(rows)
    packed = pack.pack(rows, sizes, range(len(rows)))
    assert pack.pack(rows, sizes, list(range(len(rows)))) == packed
    assert pack.sizes(rows[sizes[0] :] or rows) == (sizes[1:] or sizes)
    assert [(r.data, r.key, r.number) for r in opened(packed)] == [(r.data, r.key, i) for i, r in enumerate(rows)]


def test_the_route_of_the_first_is_that_of_all() -> None:
    """Key, hash key and partition id stand on the record of the service; a timestamp only if it is alone."""
    pack = packing()
    rows = [NewRecord(b"a", "k", "1", timestamp=5), NewRecord(b"b", "l", "1", timestamp=6)]
    (shared,) = pack.pack(rows, pack.sizes(rows), range(2))
    assert (shared.key, shared.partition_id, shared.timestamp) == ("k", "1", None)
    (alone,) = pack.pack(rows[:1], pack.sizes(rows[:1]), range(1))
    assert (alone.key, alone.partition_id, alone.timestamp) == ("k", "1", 5)


def test_nothing_is_wrapped_that_needs_no_envelope() -> None:
    """Alone, without identity and headers, a record goes as it is; unless it looks like an envelope itself."""
    pack = packing(identity=False, aggregate_records=1)
    plain, headed = NewRecord(b"a", "k"), NewRecord(b"b", "k", headers={"x": "y"})
    nested = NewRecord(wrap([plain]), "k")
    first, second, third = pack.pack([plain, headed, nested], None, range(3))
    assert first == plain
    assert [(r.data, r.headers) for r in opened([second, third])] == [(b"b", {"x": "y"}), (nested.data, None)]


def test_a_record_near_the_largest_goes_without_identity() -> None:
    """Rather than being refused for what nobody asked of it alone."""
    large = NewRecord(bytes(1_048_570), "k")
    assert packing().pack([large], [1], range(1)) == [large]


def test_compression_comes_last() -> None:
    """The service stores one block of snappy for each of its records, around the envelope if there is one."""
    rows = [NewRecord(b"abc" * 30, "k")] * 3
    bare = Packing(ProducerConfig(record_compression="snappy"), PRODUCER)
    assert [decompress_payload(row.data, 1000) for row in bare.pack(rows, None, range(3))] == [b"abc" * 30] * 3
    pack = packing("snappy")
    (shared,) = pack.pack(rows, [3], range(3))
    payload = decompress_payload(shared.data, 1000)
    assert payload is not None
    assert [r.data for r in opened([NewRecord(payload)])] == [b"abc" * 30] * 3
    assert len(shared.data) < 150
