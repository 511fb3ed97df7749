"""Records go where their partition id, hash key or partition key says, in this order, and bad ones go nowhere."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.engine import Columns, Row
from disstream.errors import ApiError
from disstream.model import MAX_HASH_KEY, NewRecord
from disstream.server import layout as layout_module
from disstream.server.config import RECORD_BYTES, ServerConfig
from disstream.server.documents import PartitionDoc
from disstream.server.layout import Layout
from disstream.wire.partitioning import HashRouter, hash_key, hash_ranges
from disstream.wire.records import PlainRecord

CONFIG = ServerConfig(data_dir=None)
HALF = MAX_HASH_KEY // 2


def layout(count: int, config: ServerConfig = CONFIG) -> Layout:
    return Layout([PartitionDoc(n, 1, r.low, r.high) for n, r in enumerate(hash_ranges(count))], config)


def lane(**record: Any) -> int:
    return layout(10).route([NewRecord(b"x", **record)]).lanes[0]


def test_precedence() -> None:
    """partition_id before explicit_hash_key before partition_key; empty strings count as absent."""
    last = str(MAX_HASH_KEY)
    assert lane(key="k1") == 4
    assert lane(key="k1", explicit_hash_key=last) == 9
    assert lane(key="k1", explicit_hash_key=last, partition_id="2") == 2
    assert lane(key="k1", explicit_hash_key=last, partition_id="shardId-0000000003") == 3
    assert lane(key="k1", explicit_hash_key="", partition_id="") == 4


@pytest.mark.parametrize("text", ["-1", "-9223372036854775809", "9223372036854775808", "9" * 5000])
def test_numbers_that_are_no_hash_keys(text: str) -> None:
    """A number outside the space is passed over in favour of the key, however long it is."""
    assert lane(key="k1", explicit_hash_key=text) == 4


@pytest.mark.parametrize(("text", "owner"), [("0", 0), ("-0", 0), ("+1", 0), ("0" * 30, 0), (str(MAX_HASH_KEY), 9)])
def test_hash_keys(text: str, owner: int) -> None:
    """Every way to write a number within the space is understood."""
    assert lane(explicit_hash_key=text) == owner


def test_without_a_key_partitions_take_turns() -> None:
    """Records that name nothing are spread evenly, across requests."""
    even = layout(3)
    lanes = [even.route([NewRecord(b"x", key="")] * 2).lanes for _ in range(3)]
    assert sorted(n for pair in lanes for n in pair) == [0, 0, 1, 1, 2, 2]


def test_rows() -> None:
    """The key is kept unless a partition was named; the producer's timestamp is kept; order is kept."""
    routed = layout(1).route(
        [NewRecord(b"a", key="k", timestamp=5), NewRecord(b"b", key="k", partition_id="0"), NewRecord(b"", key="")]
    )
    assert routed.groups == {0: [Row(b"a", "k", 5), Row(b"b", None, None), Row(b"", None, None)]}
    assert routed.weight == 3 + 3 * RECORD_BYTES


@given(keys=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=30))
def test_known_keys_change_nothing(keys: list[str]) -> None:
    """A key goes to the same partition the first time and ever after, and to the owner of its hash."""
    used = layout(7)
    router = HashRouter(enumerate(hash_ranges(7)))
    for _ in range(2):
        routed = used.route([NewRecord(b"", key=key) for key in keys])
        assert routed.lanes == [router.owner(hash_key(key)) for key in keys]


texts = st.none() | st.sampled_from(["", "a", "b", "k1", "分区"])
sent_rows = st.lists(
    st.tuples(st.binary(max_size=9), texts, st.none() | st.integers(0, 9)), min_size=1, max_size=12
) | st.lists(st.tuples(st.binary(max_size=9), st.just("k1"), st.none()), min_size=1, max_size=5)


@given(rows=sent_rows, count=st.integers(1, 5), ordered=st.booleans(), times=st.booleans())
def test_columns_are_placed_like_records(
    rows: list[tuple[bytes, str | None, int | None]], count: int, ordered: bool, times: bool
) -> None:
    """Lanes, rows, weight and whose turn it is are the same, with new keys and known ones; what was sent stays so."""
    router = HashRouter(enumerate(hash_ranges(count)))
    if ordered:  # as a session sends them
        rows.sort(key=lambda row: router.owner(hash_key(row[1] or "")) or 0)
    records = [NewRecord(data, key, timestamp=time if times else None) for data, key, time in rows]
    as_rows = [Row(data, key or None, time if times else None) for data, key, time in rows]
    data = memoryview(b"".join(row.data for row in as_rows))
    given_times = [row.timestamp for row in as_rows] if times else None
    columns = Columns([row.key for row in as_rows], [len(row.data) for row in as_rows], given_times, data)
    plain = [PlainRecord(data, key) for data, key, _ in rows]
    one, other = layout(count), layout(count)
    for _ in range(2):
        expected = one.route(records)
        found = other.route(columns)
        assert found == expected
        assert sorted(row.data for group in found.groups.values() for row in group) == sorted(r.data for r in as_rows)
        for group in found.groups.values():
            group.pop()
        assert columns == as_rows
        again = one.route(columns, expected.lanes)
        assert again == other.route(records, expected.lanes)
        if not times:
            assert one.route(cast("list[NewRecord]", plain), expected.lanes) == again


def test_long_keys_are_not_kept() -> None:
    """It is their bytes that count: a character may take four of them."""
    records = [NewRecord(b"", key) for key in ("k" * 128, "\U0001f600" * 32, "k" * 129, "\U0001f600" * 33)]
    wanted = layout(10)
    wanted.route(records)
    assert list(wanted._known) == [record.key for record in records[:2]]


def test_known_keys_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither many keys nor long ones are remembered without bound."""
    monkeypatch.setattr(layout_module, "MAX_KNOWN_KEYS", 10)
    used = layout(2)
    used.route([NewRecord(b"", key=f"key {n}") for n in range(25)])
    used.route([NewRecord(b"", key="x" * 129)])
    assert len(used._known) <= 10
    assert all(len(key or "") <= 128 for key in used._known)


@pytest.mark.parametrize(
    ("record", "code", "status"),
    [
        (NewRecord(b"", partition_id="x"), "DIS.4201", 400),
        (NewRecord(b"", partition_id="7"), "DIS.4302", 400),
        (NewRecord(b"", explicit_hash_key="ten"), "DIS.4200", 400),
        (NewRecord(b"", explicit_hash_key="1.5"), "DIS.4200", 400),
        (NewRecord(b"", explicit_hash_key="٣"), "DIS.4200", 400),
        (NewRecord(b"x" * 101), "DIS.4200", 413),
        (NewRecord(b"", key="k" * 51), "DIS.4200", 400),
        (NewRecord(b"", key="é" * 26), "DIS.4200", 400),
        (NewRecord(b"", key="k" * 51, explicit_hash_key="5"), "DIS.4200", 400),
        (Row(b"x" * 101), "DIS.4200", 413),
        (Row(b"", "k" * 51), "DIS.4200", 400),
        (Row(b"", "é" * 26), "DIS.4200", 400),
    ],
)
def test_bad_records(record: NewRecord | Row, code: str, status: int) -> None:
    """Each mistake of a record has its code, whatever stands before it."""
    config = ServerConfig(data_dir=None, max_record_bytes=100, max_partition_key_bytes=50)
    sent = Columns.of([Row(b"good"), record]) if isinstance(record, Row) else [NewRecord(b"good"), record]
    with pytest.raises(ApiError) as caught:
        layout(2, config).route(sent)
    assert (caught.value.code, caught.value.status) == (code, status)


def test_all_records_together_are_bounded() -> None:
    """Records that are small one by one may be too large together."""
    config = ServerConfig(data_dir=None, max_request_bytes=10)
    assert layout(1, config).route([NewRecord(b"12345")] * 2).weight == 10 + 2 * RECORD_BYTES
    with pytest.raises(ApiError, match="more than 10") as caught:
        layout(1, config).route([NewRecord(b"123456")] * 2)
    assert caught.value.status == 413
