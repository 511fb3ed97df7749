"""What a consumer is told, and which partitions that means."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from disstream.consumer.assignment import assign, explicit_starts
from disstream.consumer.config import ConsumerConfig, Static, to_where
from disstream.consumer.cursor import Since
from disstream.errors import ConfigError
from disstream.model import Partition, PartitionInfo, StreamInfo

IDS = [f"shardId-{n:010d}" for n in range(3)]


def stream(*statuses: str) -> StreamInfo:
    partitions = tuple(PartitionInfo(partition_id=p, status=s) for p, s in zip(IDS, statuses, strict=False))
    return StreamInfo(name="orders", stream_id="x", status="RUNNING", partitions=partitions)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"start": "newest"}, "start='newest'.*partition id: sequence number"),
        ({"start": 5}, "start=5.*partition id: sequence number"),
        ({"start": {0: 5}}, "start names 0"),
        ({"start": datetime(2024, 1, 1)}, "no time zone"),
        ({"start": datetime(1960, 1, 1, tzinfo=UTC)}, "before 1970"),
        ({"start": {"0": -1}}, "sequence number"),
        ({"start": {"0": "7"}}, "sequence number"),
        ({"on_expired": "ignore"}, "on_expired='ignore'"),
        ({"max_fetch_bytes": 1_048_576}, "max_fetch_bytes=1048576"),
        ({"prefetch_bytes": 1}, "prefetch_bytes=1"),
        ({"idle_min_s": 0}, "idle_min_s=0"),
        ({"idle_min_s": 2, "idle_max_s": 1}, "idle_max_s=1"),
        ({"retry_base_s": 60}, "retry_max_s=30.0"),
        ({"cursor_refresh_s": 300}, "cursor_refresh_s=300"),
        ({"coordination": ["0"]}, "Static"),
    ],
)
def test_a_wrong_value_is_named_with_its_field(values: dict[str, Any], told: str) -> None:
    """Mistakes are found when the config is made, not when records stop coming."""
    with pytest.raises(ConfigError, match=told):
        ConsumerConfig(**values)


def test_static_refuses_what_reads_nothing_or_each_letter() -> None:
    """A string is a sequence of strings, an empty list a consumer that never gets anything."""
    with pytest.raises(ConfigError, match="give a list"):
        Static("shardId-0000000000")
    with pytest.raises(ConfigError, match="reads nothing"):
        Static([])


def test_a_time_becomes_milliseconds_rounded_down() -> None:
    """The record of exactly that instant is not missed, in any time zone, to the microsecond."""
    instant = datetime(2023, 11, 14, 22, 13, 20, 1_999, tzinfo=UTC)
    assert to_where("start", instant) == Since(1_700_000_000_001)
    assert to_where("start", instant.astimezone(timezone(timedelta(hours=8)))) == Since(1_700_000_000_001)


def test_partitions_in_either_spelling_and_once() -> None:
    """The short number and the long id name the same partition."""
    info = stream("ACTIVE", "ACTIVE", "ACTIVE")
    assert list(assign(info, ["2", "shardId-0000000000", "0"])) == [IDS[2], IDS[0]]


def test_all_means_what_can_be_read() -> None:
    """A partition that is no longer written is still read; an expired one is gone."""
    assert list(assign(stream("ACTIVE", "DELETED", "EXPIRED"), None)) == IDS[:2]
    with pytest.raises(ConfigError, match="no partition to read"):
        assign(stream("EXPIRED"), None)


@pytest.mark.parametrize("wanted", ["3", "shardId-0000000002", "partition-1", ""])
def test_an_unknown_partition_is_refused_by_name(wanted: str) -> None:
    """The message says what exists, so that a typo is seen."""
    with pytest.raises(ConfigError, match=r"shardId-0000000000"):
        assign(stream("ACTIVE", "ACTIVE", "EXPIRED"), [wanted])


def test_start_numbers_by_id_or_partition_and_typos_refused() -> None:
    """Both spellings and `Partition` work as keys; a partition the stream does not have is refused."""
    info = stream("ACTIVE", "ACTIVE")
    assert explicit_starts(info, {"1": 7}) == {IDS[1]: 7}
    assert explicit_starts(info, {Partition("orders", IDS[0]): 3}) == {IDS[0]: 3}
    with pytest.raises(ConfigError, match="start names partition '9'"):
        explicit_starts(info, {"9": 7})
