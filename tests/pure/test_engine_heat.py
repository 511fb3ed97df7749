"""Which rows are taken for cached: what was written lately, never what the bytes written since have pushed out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from disstream.engine.api import PartitionRef
from disstream.engine.embedded.heat import Heat

REFS = [PartitionRef("s", number) for number in range(3)]


@given(
    st.dictionaries(st.sampled_from(REFS[:2]), st.integers(0, 9)),
    st.lists(st.tuples(st.sampled_from(REFS), st.integers(1, 5), st.integers(0, 60)), max_size=80),
)
def test_what_is_hot(opened: dict[PartitionRef, int], appends: list[tuple[PartitionRef, int, int]]) -> None:
    """Rows with less than half of the bytes written since are hot; older ones and those found when opening not."""
    heat = Heat(hot_bytes=100)
    heat.opened(opened)
    ends = dict(opened)
    written = 0
    born: list[tuple[PartitionRef, int, int]] = []
    largest = max((size for _, _, size in appends), default=0)
    for ref, rows, size in appends:
        if heat.wrote(size):
            heat.note(ends)
        heat.check()
        first = ends.get(ref, 0)
        ends[ref] = first + rows
        born += [(ref, number, written) for number in range(first, first + rows)]
        written += size
        assert all(heat.is_hot(ref, end) for ref, end in ends.items()), "who waits at the end reads what comes"
        for ref_, end in opened.items():
            assert not any(heat.is_hot(ref_, number) for number in range(end))
        for ref_, number, at in born:
            if written - at <= 50:
                assert heat.is_hot(ref_, number)
            if written - at > 100 + 3 * largest:
                assert not heat.is_hot(ref_, number)


def test_partitions_that_no_note_knows_are_new() -> None:
    """All of their rows were written since."""
    heat = Heat(hot_bytes=100)
    heat.opened({REFS[0]: 5})
    assert not heat.is_hot(REFS[0], 4)
    assert heat.is_hot(REFS[0], 5)
    assert heat.is_hot(REFS[1], 0)
