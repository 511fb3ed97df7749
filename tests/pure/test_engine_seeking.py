"""Looking for a time among batches: the same row as by looking at each, and few looks."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from disstream.engine.embedded.seeking import Search

batches = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3) | st.integers(0, 1_000_000)), min_size=1, max_size=60)
"""How many rows each has, and how much later than the one before it was appended."""


def look(search: Search, bounds: list[tuple[int, int, int]]) -> int:
    """How many looks it took; `bounds`: first, last and time of each batch."""
    looks = 0
    while (probe := search.probe()) is not None:
        looks += 1
        first, last, append_ms = next(one for one in bounds if one[1] >= probe)
        search.told(probe, first, last, append_ms)
        search.check()
    return looks


@given(given_batches=batches, oldest=st.integers(0, 400), time_ms=st.integers(-5, 100) | st.integers(0, 60_000_000))
def test_the_row_is_found(given_batches: list[tuple[int, int]], oldest: int, time_ms: int) -> None:
    """However batches came and wherever the oldest row stands in one: as by looking at each, in bounded looks."""
    ends = list(accumulate(rows for rows, _ in given_batches))
    times = list(accumulate(later for _, later in given_batches))
    bounds = [(end - rows, end - 1, at) for end, (rows, _), at in zip(ends, given_batches, times, strict=True)]
    following = ends[-1]
    oldest = min(oldest, following - 1)
    search = Search(oldest, following, times[-1], time_ms)
    looks = look(search, bounds)
    of_rows = [at for first, last, at in bounds for _ in range(first, last + 1)]
    assert search.found == max(oldest, bisect_left(of_rows, time_ms))
    assert looks <= 3 * (following.bit_length() + 1)


@given(place=st.integers(0, 199_999), late_ms=st.integers(0, 999))
def test_rows_that_came_evenly_take_few_looks(place: int, late_ms: int) -> None:
    """A batch of 500 a second, a hundred million rows: five looks at most, where bisecting takes 27."""
    count = 200_000

    search = Search(0, count * 500, (count - 1) * 1_000, place * 1_000 - late_ms)
    looks = 0
    while (probe := search.probe()) is not None:
        looks += 1
        number = probe // 500
        search.told(probe, number * 500, number * 500 + 499, number * 1_000)
        search.check()
    assert search.found == place * 500
    assert looks <= 5


def test_nothing_is_looked_at_where_nothing_can_be() -> None:
    """No rows, or none so late."""
    assert Search(7, 7, 100, 5).probe() is None
    late = Search(0, 7, 100, 101)
    assert late.probe() is None
    assert late.found == 7
