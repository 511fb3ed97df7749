"""The count of changes is read from the header as it was told, and from nothing that is odd."""

from __future__ import annotations

import pytest

from disstream.wire.layouts import HEADER, decode_changes


@pytest.mark.parametrize(
    ("told", "count"),
    [("0", 0), ("12", 12), ("", None), ("-1", None), ("01", None), ("1e3", None), ("٣", None), ("9" * 30, None)],
)
def test_the_count(told: str, count: int | None) -> None:
    """A number that no stream reaches is none."""
    assert decode_changes({HEADER: told}) == count


def test_no_header() -> None:
    """Another service tells nothing."""
    assert decode_changes({}) is None
