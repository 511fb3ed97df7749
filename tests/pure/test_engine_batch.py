"""The form of a stored batch: as drawn in its docstring, and every damage is noticed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.engine.api import Row
from disstream.engine.embedded import batch
from disstream.errors import ConfigError

ROWS = st.lists(
    st.builds(
        Row,
        st.binary(max_size=50),
        st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
        st.none() | st.integers(-(2**63), 2**63 - 1),
    ),
    min_size=1,
    max_size=9,
)


def test_worked_example() -> None:
    """The bytes of the docstring are the bytes that are stored."""
    drawn = [line.strip() for line in (batch.__doc__ or "").splitlines()]
    begin = next(index for index, line in enumerate(drawn) if line.startswith("key "))
    key = bytes.fromhex(drawn[begin].removeprefix("key"))
    value = bytes.fromhex(drawn[begin + 1].removeprefix("value") + drawn[begin + 2])
    assert batch.key(1, 5) == key
    assert batch.encode([Row(b"hi", "k")]).value(5, 1000) == value


@given(rows=ROWS, first=st.integers(0, 2**63), append_ms=st.integers(0, 2**63))
def test_round_trip(rows: list[Row], first: int, append_ms: int) -> None:
    """What is encoded is decoded, and the header tells number, time and weight."""
    value = batch.encode(rows).value(first, append_ms)
    assert batch.verify(value) == (len(rows), first, append_ms, sum(row.weight for row in rows))
    assert batch.rows(value) == rows
    assert batch.parse_key(batch.key(first, append_ms)) == (first, append_ms)


@given(rows=ROWS, at=st.integers(0), bit=st.integers(0, 7))
def test_every_flipped_bit_is_noticed(rows: list[Row], at: int, bit: int) -> None:
    """No flipped bit, and no cut, passes the checksum."""
    value = bytearray(batch.encode(rows).value(7, 8))
    value[at % len(value)] ^= 1 << bit
    with pytest.raises(batch.Damaged):
        batch.verify(bytes(value))
    with pytest.raises(batch.Damaged):
        batch.verify(bytes(value[: at % len(value)]))


def test_rows_that_cannot_be_stored() -> None:
    """A key that is no text and a timestamp beyond 64 bits are the caller's mistakes."""
    with pytest.raises(ConfigError, match="surrogate"):
        batch.encode([Row(b"", "\ud800")])
    with pytest.raises(ConfigError, match="64 bits"):
        batch.encode([Row(b"", None, 2**64)])
