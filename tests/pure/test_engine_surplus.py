"""Which rows have to go for partitions to hold no more than so many bytes: the oldest, and not one more than needed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from disstream.engine.api import PartitionRef
from disstream.engine.surplus import Piece, surplus

Told = list[tuple[int, int, int]]  # ms since the one before, rows, weight


def pieces(told: Told) -> list[Piece]:
    times = accumulate(ms for ms, _, _ in told)
    ends = accumulate(rows for _, rows, _ in told)
    return [Piece(ms, end, weight) for ms, end, (_, _, weight) in zip(times, ends, told, strict=True)]


PARTITIONS = st.dictionaries(
    st.integers(0, 5).map(lambda number: PartitionRef("s", number)),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(0, 9)), max_size=12).map(pieces),
)


@given(PARTITIONS, st.integers(-5, 300), st.integers(1, 40))
def test_the_oldest_go(stored: dict[PartitionRef, list[Piece]], over: int, limit: int) -> None:
    """It is what one gets by sorting all pieces by their time and taking from the front."""
    found = surplus(over, {ref: iter(held) for ref, held in stored.items()}, limit)
    expected: dict[PartitionRef, int] = {}
    left = over
    everything = sorted((piece.append_ms, ref, piece) for ref, held in stored.items() for piece in held)
    taken = 0
    for _, ref, piece in everything:
        if left <= 0 or taken == limit:
            break
        expected[ref] = piece.end
        left -= piece.weight
        taken += 1
    assert found.before == expected
    assert found.more == (left > 0 and taken < len(everything))


@given(PARTITIONS, st.integers(0, 300))
def test_asking_until_it_is_enough(stored: dict[PartitionRef, list[Piece]], over: int) -> None:
    """Piece by piece it comes to the same as at once."""
    at_once = surplus(over, {ref: iter(held) for ref, held in stored.items()}, 10**9)
    assert not at_once.more
    more, before = True, dict.fromkeys(stored, 0)
    while more:
        gone = sum(piece.weight for ref, held in stored.items() for piece in held if piece.end <= before[ref])
        rest = {ref: iter([p for p in held if p.end > before[ref]]) for ref, held in stored.items()}
        found, more = surplus(over - gone, rest, 1)
        before |= found
    assert {ref: end for ref, end in before.items() if end} == at_once.before


def test_no_more_is_read_than_needed() -> None:
    """Of each partition one piece more than what goes is asked for: millions may be stored behind it."""
    asked = []

    def stored() -> Iterator[Piece]:
        for number in range(1000):
            asked.append(number)
            yield Piece(number, number + 1, 10)

    ref = PartitionRef("s", 0)
    assert surplus(25, {ref: stored()}).before == {ref: 3}
    assert asked == [0, 1, 2, 3]
    asked.clear()
    assert surplus(0, {ref: stored()}).before == {}
    assert asked == []
