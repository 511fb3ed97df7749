"""The form of a stored batch: as drawn in its docstring, and every damage is noticed."""

from __future__ import annotations

import struct
import zlib

import msgspec
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
    stored = batch.encode([Row(b"hi", "k")]).value(5, 1000)
    assert stored == value
    begin = next(index for index, line in enumerate(drawn[begin + 3 :], begin + 3) if line.startswith("key "))
    key = bytes.fromhex(drawn[begin].removeprefix("key"))
    value = bytes.fromhex(drawn[begin + 1].removeprefix("value") + drawn[begin + 2])
    assert batch.key(1, 6) == key
    assert batch.merge([bytes(stored), bytes(batch.encode([Row(b"!", None, 7)]).value(6, 1001))]) == value


@given(rows=ROWS, first=st.integers(0, 2**63), append_ms=st.integers(0, 2**63))
def test_round_trip(rows: list[Row], first: int, append_ms: int) -> None:
    """What is encoded is decoded, and the header tells number, time and weight."""
    value = batch.encode(rows).value(first, append_ms)
    assert batch.verify(value) == batch.Header(len(rows), first, append_ms, sum(row.weight for row in rows))
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


APPENDS = st.lists(st.tuples(ROWS, st.integers(0, 2) | st.integers(0, 2**40)), min_size=1, max_size=8)


def stored(appends: list[tuple[list[Row], int]], first: int) -> tuple[list[bytes], list[Row], list[int]]:
    """The batches of these appends, each so long after the one before, and their rows and times."""
    values: list[bytes] = []
    rows: list[Row] = []
    times: list[int] = []
    now_ms = 1000
    for appended, pause in appends:
        now_ms += pause
        values.append(bytes(batch.encode(appended).value(first + len(rows), now_ms)))
        rows += appended
        times += [now_ms] * len(appended)
    return values, rows, times


@given(appends=APPENDS, first=st.integers(0, 2**62), cuts=st.tuples(st.integers(0, 8), st.integers(0, 8)))
def test_merged_batches(appends: list[tuple[list[Row], int]], first: int, cuts: tuple[int, int]) -> None:
    """Merged at once or by and by, it is one value, with all rows, the time of each, and what readers get of them."""
    values, rows, times = stored(appends, first)
    value = bytes(batch.merge(values))
    head = batch.verify(value)
    assert head[:4] == (len(rows), first, times[-1], sum(row.weight for row in rows))
    found = batch.rows(value)
    assert found == rows
    assert head.timed == found.timed == (times[0] != times[-1])
    assert found.times == (times if head.timed else None)
    stamps = [time if row.timestamp is None else row.timestamp for row, time in zip(rows, times, strict=True)]
    assert [*found.stamps(times)] == stamps
    low, high = sorted(cuts)
    parts = [part for part in (values[:low], values[low:high], values[high:]) if part]
    assert batch.merge([bytes(batch.merge(part)) for part in parts]) == value


def test_old_batches_are_merged() -> None:
    """One of format 1 as well as the others."""
    old = sealed(2, msgspec.msgpack.encode([Row(b"a", "k"), Row(b"b", None, 7)]), old=True)
    value = bytes(batch.merge([old, bytes(batch.encode([Row(b"c")]).value(7, 1001))]))
    assert batch.verify(value)[:3] == (3, 5, 1001)
    assert batch.rows(value) == [Row(b"a", "k"), Row(b"b", None, 7), Row(b"c")]
    assert batch.rows(value).times == [1000, 1000, 1001]


def test_only_neighbours_are_merged() -> None:
    """A gap, an overlap and a damaged one are told, and nothing is made of them."""
    one = bytes(batch.encode([Row(b"a"), Row(b"b")]).value(5, 1000))
    for first in (4, 6, 8):
        with pytest.raises(batch.Damaged, match=f"begins with {first}"):
            batch.merge([one, bytes(batch.encode([Row(b"c")]).value(first, 1001))])
    with pytest.raises(batch.Damaged, match="checksum"):
        batch.merge([one, one[:-1] + b"c"])
    for wrong in (sealed(2, b"\0"), sealed(2, columns([["k"], [2], None], b"hi"))):
        with pytest.raises(batch.Damaged):
            batch.merge([wrong])


@given(appends=APPENDS, at=st.integers(0), bit=st.integers(0, 7))
def test_every_flipped_bit_of_a_merged_batch_is_noticed(
    appends: list[tuple[list[Row], int]], at: int, bit: int
) -> None:
    """Its times are under the checksum too."""
    value = batch.merge(stored(appends, 7)[0])
    value[at % len(value)] ^= 1 << bit
    with pytest.raises(batch.Damaged):
        batch.verify(bytes(value))


def test_rows_that_cannot_be_stored() -> None:
    """A key that is no text and a timestamp beyond 64 bits are the caller's mistakes."""
    with pytest.raises(ConfigError, match="surrogate"):
        batch.encode([Row(b"", "\ud800")])
    with pytest.raises(ConfigError, match="64 bits"):
        batch.encode([Row(b"", None, 2**64)])


def sealed(length: int, rest: bytes, *, old: bool = False) -> bytes:
    """A value whose checksum is right, whatever it holds."""
    fields = struct.pack(">IQQQ", length if old else length | 1 << 31, 5, 1000, 3)
    return struct.pack(">I", zlib.crc32(fields, zlib.crc32(rest))) + fields + rest


def columns(told: object, payloads: bytes = b"") -> bytes:
    packed = msgspec.msgpack.encode(told)
    return len(packed).to_bytes(4, "big") + packed + payloads


def test_the_old_form_is_read() -> None:
    """A batch of format 1, as that format's worked example had it: length without its highest bit, rows in msgpack."""
    value = bytes.fromhex(
        "9752123d 00000001 00000000 00000005 00000000 000003e8 00000000 00000003 91 93 c4 02 68 69 a1 6b c0"
    )
    assert batch.verify(value) == batch.Header(1, 5, 1000, 3)
    assert batch.rows(value) == [Row(b"hi", "k")]


@given(rows=ROWS)
def test_old_rows(rows: list[Row]) -> None:
    """All that could be stored in the old form is read as the same rows as in the new one."""
    value = sealed(len(rows), msgspec.msgpack.encode(rows), old=True)
    assert batch.verify(value).length == len(rows)
    assert batch.rows(value) == batch.rows(batch.encode(rows).value(0, 0)) == rows


def test_the_tests_own_form_is_the_right_one() -> None:
    """What the next test damages is a batch that is read."""
    value = sealed(2, columns([["k", None], [2, 0], [7, None]], b"hi"))
    assert batch.verify(value) == batch.Header(2, 5, 1000, 3)
    assert batch.rows(value) == [Row(b"hi", "k", 7), Row(b"")]


@pytest.mark.parametrize(
    "value",
    [
        sealed(1, b""),
        sealed(1, b"\0\0\0"),
        sealed(1, b"\0\0\0\0"),
        sealed(1, b"\xff\xff\xff\xff" + columns([[None], [0], None])[4:-1]),  # told reaches beyond the end
        sealed(1, (2).to_bytes(4, "big") + columns([[None], [0], None])[4:]),  # and ends in the middle
        sealed(1, (99).to_bytes(4, "big") + columns([[None], [2], None], b"hi")[4:]),  # and swallows the payloads
        sealed(1, columns([[None], [2], None])),
        sealed(1, columns([[None], [2], None], b"h")),
        sealed(1, columns([[None], [2], None], b"hi!")),
        sealed(1, columns([[None, None], [2], None], b"hi")),
        sealed(1, columns([[None], [2, 0], None], b"hi")),
        sealed(1, columns([[None], [2], [None, 7]], b"hi")),
        sealed(1, columns([[None], [2], []], b"hi")),
        sealed(1, columns([[], [], None])),
        sealed(3, columns([["a", "b"], [1, 1], None], b"hi")),  # the header tells of more rows than there are
        sealed(1, columns([["a", "b"], [1, 1], None], b"hi")),  # or of fewer
        sealed(2, columns([["a", "b"], [3, -1], None], b"hi")),
        sealed(1, columns([["a"], ["2"], None], b"hi")),
        sealed(1, columns([[1], [2], None], b"hi")),
        sealed(1, columns([["a"], [2], ["7"]], b"hi")),
        sealed(1, columns({"keys": []})),
        sealed(1, columns([["k"], [2], None], b"hi").replace(b"k", b"\xff")),  # a key that is no text
        sealed(1, msgspec.msgpack.encode([Row(b"hi", "k")])),  # the old form under the new mark
        sealed(1, columns([["k"], [2], None], b"hi"), old=True),  # and the other way round
        sealed(1, msgspec.msgpack.encode([Row(b"hi", "k")]).replace(b"k", b"\xff"), old=True),
        sealed(2, msgspec.msgpack.encode([Row(b"hi", "k")]), old=True),
    ],
)
def test_damage_below_the_checksum(value: bytes) -> None:
    """Columns that do not fit together are noticed though the checksum is right, and no other exception comes of it."""
    batch.verify(value)
    with pytest.raises(batch.Damaged):
        batch.rows(value)


def timed(told: object, kept: object, payloads: bytes = b"") -> bytes:
    """Columns with times, and a header that says so."""
    packed, times = msgspec.msgpack.encode(told), msgspec.msgpack.encode(kept)
    return len(packed).to_bytes(4, "big") + len(times).to_bytes(4, "big") + packed + times + payloads


def test_the_tests_own_timed_form_is_the_right_one() -> None:
    """What the next test damages is a batch that is read."""
    value = sealed(2 | 1 << 30, timed([["k", None], [2, 0], [7, 1000]], [999, None], b"hi"))
    assert batch.verify(value) == batch.Header(2, 5, 1000, 3, True)
    assert batch.rows(value) == [Row(b"hi", "k", 7), Row(b"")]
    assert batch.rows(value).times == [999, 1000]


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"\0\0\0\0\0\0\0",
        timed([["k", None], [2, 0], None], None, b"hi"),  # no times at all
        timed([["k", None], [2, 0], [7, None]], None, b"hi"),  # of one row neither timestamp nor time
        timed([["k", None], [2, 0], [7, 1000]], [999], b"hi"),
        timed([["k", None], [2, 0], [7, 1000]], [999, None, None], b"hi"),
        timed([["k", None], [2, 0], [7, 1000]], ["999", None], b"hi"),
        timed([["k", None], [2, 0], [7, 1000]], 7, b"hi"),
        timed([["k", None], [2, 0], [7, 1000]], [999, None], b"hi!"),
        timed([["k", None], [2, 0], [7, 1000]], [999, None], b"hi")[:-4],
        columns([["k", None], [2, 0], [7, 1000]], b"hi"),  # not timed, under the mark of such
    ],
)
def test_damage_of_times(rest: bytes) -> None:
    """Times that do not fit the rows are noticed though the checksum is right."""
    value = sealed(2 | 1 << 30, rest)
    batch.verify(value)
    with pytest.raises(batch.Damaged):
        batch.rows(value)


@given(rest=st.binary(max_size=60), length=st.integers(1, 3), old=st.booleans())
def test_nonsense_below_the_checksum(rest: bytes, length: int, old: bool) -> None:
    """Whatever stands there, it is as many rows as the header tells, or it is damaged."""
    values = [sealed(length, rest, old=old), sealed(length, columns(None)[:3] + rest), sealed(length | 1 << 30, rest)]
    for value in [*values, sealed(length | 1 << 30, timed([[None], [0], [1]], None)[:9] + rest)]:
        batch.verify(value)
        try:
            found = batch.rows(value)
        except batch.Damaged:
            continue
        assert len(found) == len(list(found)) == length
