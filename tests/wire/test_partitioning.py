"""Hashing and hash ranges agree with what the service publishes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.errors import ApiError
from disstream.model import MAX_HASH_KEY, HashRange
from disstream.wire.partitioning import (
    HashRouter,
    format_range,
    hash_key,
    hash_ranges,
    parse_range,
    partition_id,
    partition_number,
)

GOLDEN = {
    "": (6061155539545534980, (0, 1, 1, 3, 6)),
    "0": (5750288053043553775, (0, 1, 1, 3, 6)),
    "k1": (3906786343346949848, (0, 0, 1, 2, 4)),
    "key-42": (4955656836653286917, (0, 1, 1, 2, 5)),
    "分区": (7404587220537540204, (0, 1, 2, 4, 8)),
}


@pytest.mark.parametrize("key", GOLDEN)
def test_known_keys(key: str) -> None:
    """Keys land where the service's own clients expect them, for 1, 2, 3, 5 and 10 partitions."""
    hashed, owners = GOLDEN[key]
    assert hash_key(key) == hashed
    for count, owner in zip((1, 2, 3, 5, 10), owners, strict=True):
        assert HashRouter(enumerate(hash_ranges(count))).owner(hashed) == owner


def test_published_ranges() -> None:
    """Two partitions divide the space exactly as published."""
    assert hash_ranges(2) == [HashRange(0, 4611686018427387902), HashRange(4611686018427387903, MAX_HASH_KEY)]


@given(count=st.integers(1, 3000), hashed=st.integers(0, MAX_HASH_KEY))
def test_ranges_cover_everything_once(count: int, hashed: int) -> None:
    """The ranges touch each other, and every hash has the owner whose range holds it."""
    ranges = hash_ranges(count)
    assert ranges[0].low == 0
    assert ranges[-1].high == MAX_HASH_KEY
    assert all(a.high + 1 == b.low for a, b in pairwise(ranges))
    owner = HashRouter(reversed(list(enumerate(ranges)))).owner(hashed)
    assert owner is not None
    assert ranges[owner].low <= hashed <= ranges[owner].high


@given(
    cuts=st.lists(st.integers(0, MAX_HASH_KEY), min_size=2, max_size=12, unique=True),
    hashed=st.integers(0, MAX_HASH_KEY),
)
def test_router_with_gaps(cuts: list[int], hashed: int) -> None:
    """Where ranges leave gaps the router finds the owner or says that there is none."""
    cuts.sort()
    ranges = [HashRange(low, high) for low, high in zip(cuts[::2], cuts[1::2], strict=False)]
    expected = next((i for i, r in enumerate(ranges) if r.low <= hashed <= r.high), None)
    assert HashRouter(enumerate(ranges)).owner(hashed) == expected


@given(number=st.integers(0, 2**31 - 1))
def test_partition_ids(number: int) -> None:
    """Both spellings, and any number of leading zeros, name the same partition."""
    assert partition_number(partition_id(number)) == partition_number(str(number)) == number
    assert partition_number(f"shardId-{number:012d}") == number


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "shardId-", "shardid-0", "1.0", "٣", "shardId-0 ", str(2**31), "9" * 33]
)
def test_bad_partition_ids(text: str) -> None:
    """What is no partition id is DIS.4201."""
    with pytest.raises(ApiError) as caught:
        partition_number(text)
    assert caught.value.code == "DIS.4201"


@given(low=st.integers(0, MAX_HASH_KEY), high=st.integers(0, MAX_HASH_KEY))
def test_ranges_survive_the_round_trip(low: int, high: int) -> None:
    """A printed range is read back."""
    assert parse_range(format_range(low, high)) == (low, high)


@pytest.mark.parametrize("text", [None, "", "null", "[-1 : -1]", "1 : 2", "[1 : x]"])
def test_ranges_that_are_none(text: str | None) -> None:
    """Absent, unreadable and empty ranges are None."""
    assert parse_range(text) is None
