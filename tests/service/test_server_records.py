"""Records over HTTP: put, cursors and get as the API words them."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import pytest
from server_http import data, serving

from disstream import clock

KEYS = {"k1": 4, "key-42": 5, "分区": 8, "0": 6}  # where the service's own clients expect them among 10 partitions


async def test_put_and_read_back() -> None:
    """String sequence numbers from 0 on in request order; data, key and timestamp come back, types as documented."""
    async with serving() as http:
        await http.create("s")
        before = clock.wall_ms()
        answer = await http.put(
            "s",
            {"data": data(b"\x00\xff"), "partition_key": "k"},
            {"data": "", "timestamp": 5},
            {"data": data(b"x"), "partition_key": "lost", "partition_id": "0"},
        )
        assert answer.told == {
            "failed_record_count": 0,
            "records": [{"partition_id": "shardId-0000000000", "sequence_number": str(n)} for n in range(3)],
        }
        first, second, third = await http.read("s")
        assert before <= first.pop("timestamp") <= clock.wall_ms()
        assert first == {
            "sequence_number": "0",
            "data": data(b"\x00\xff"),
            "timestamp_type": "CreateTime",
            "partition_key": "k",
        }
        assert second == {"sequence_number": "1", "data": "", "timestamp": 5, "timestamp_type": "CreateTime"}
        assert (third["data"], "partition_key" in third) == (data(b"x"), False)
        assert await http.ranges("s") == ["[0 : 3]"]


async def test_routing() -> None:
    """Partition id before hash key before key; empty strings are absent; keyless records take turns."""
    async with serving() as http:
        await http.create("s", 10)

        async def partitions(*records: dict[str, Any]) -> list[int]:
            told = (await http.put("s", *[{"data": "", **record} for record in records])).told
            assert told["failed_record_count"] == 0
            return [int(entry["partition_id"].removeprefix("shardId-")) for entry in told["records"]]

        assert await partitions(*[{"partition_key": key} for key in KEYS]) == list(KEYS.values())
        assert await partitions(
            {"partition_key": "k1", "explicit_hash_key": str(2**63 - 1), "partition_id": "shardId-0000000002"},
            {"partition_key": "k1", "explicit_hash_key": str(2**63 - 1), "partition_id": "3"},
            {"partition_key": "k1", "explicit_hash_key": str(2**63 - 1)},
            {"partition_key": "k1", "explicit_hash_key": "0"},
            {"partition_key": "k1", "explicit_hash_key": "-5"},
            {"partition_key": "k1", "explicit_hash_key": str(2**63)},
            {"partition_key": "k1", "explicit_hash_key": "", "partition_id": ""},
        ) == [2, 3, 9, 0, 4, 4, 4]
        assert sorted(await partitions(*[{}] * 5) + await partitions(*[{"partition_key": ""}] * 5)) == list(range(10))


async def test_many_records_in_one_request() -> None:
    """Far more records than the producers of today send in one request are stored, in order."""
    async with serving() as http:
        await http.create("s")
        answer = await http.put("s", *[{"data": data(b"%d" % n)} for n in range(20_000)])
        assert answer.told["failed_record_count"] == 0
        assert [int(b64decode(r["data"])) for r in await http.read("s")] == list(range(20_000))


async def test_the_largest_record() -> None:
    """A record of exactly 1 MiB and a request of exactly 5 MiB pass; one byte more is refused with 413."""
    async with serving() as http:
        await http.create("s")
        mib = data(b"x" * 1_048_576)
        assert (await http.put("s", *[{"data": mib, "partition_key": "k"}] * 5)).code == ""
        for records in ([{"data": data(b"x" * 1_048_577)}], [{"data": mib}] * 5 + [{"data": data(b"y")}]):
            answer = await http.put("s", *records)
            assert (answer.status, answer.code) == (413, "DIS.4200")
        assert await http.ranges("s") == ["[0 : 5]"]
        assert len(await http.read("s")) == 5


async def test_cursor_types() -> None:
    """All five types start where they say; both partition id spellings; the type may be left out."""
    async with serving() as http:
        await http.create("s", 2)
        await http.put("s", *[{"data": data(b"%d" % n), "partition_id": "1"} for n in range(4)])
        for partition in ("1", "shardId-0000000001"):
            assert await http.position("s", partition, cursor_type="TRIM_HORIZON") == 0
            assert await http.position("s", partition, cursor_type="LATEST") == 4
            at = {"cursor_type": "AT_SEQUENCE_NUMBER", "starting_sequence_number": 2}
            assert await http.position("s", partition, **at) == 2
            after = {"cursor_type": "AFTER_SEQUENCE_NUMBER", "starting_sequence_number": 2}
            assert await http.position("s", partition, **after) == 3
            assert await http.position("s", partition, starting_sequence_number=1) == 1
            past, future = 1, clock.wall_ms() + 3_600_000
            assert await http.position("s", partition, cursor_type="AT_TIMESTAMP", timestamp=past) == 0
            assert await http.position("s", partition, cursor_type="AT_TIMESTAMP", timestamp=future) == 4
        cursor = await http.cursor("s", "1", cursor_type="AFTER_SEQUENCE_NUMBER", starting_sequence_number=1)
        assert [r["sequence_number"] for r in (await http.get(cursor)).told["records"]] == ["2", "3"]


async def test_range_of_sequence_numbers() -> None:
    """AT the next number and AFTER the newest are in range; one further is DIS.4224 in its parsed shape."""
    async with serving() as http:
        await http.create("s")
        for oldest_to_next in (0, 3):
            at, after = "AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"
            assert await http.position("s", cursor_type=at, starting_sequence_number=oldest_to_next) == oldest_to_next
            for kind, number in (
                (at, oldest_to_next + 1),
                (after, oldest_to_next),
                (at, 2**63 - 1),
                (after, 2**63 - 1),
            ):
                answer = await http.ask_cursor("s", cursor_type=kind, starting_sequence_number=number)
                assert answer.code == "DIS.4224"
                shape = f"Sequence_number out of range. [{number}][ should be within ][0][ ][{oldest_to_next}]"
                assert answer.told["message"] == shape
            if not oldest_to_next:
                await http.put("s", *[{"data": ""}] * 3)
        assert await http.position("s", cursor_type=after, starting_sequence_number=2) == 3


async def test_pages_are_cut_by_bytes() -> None:
    """max_fetch_bytes counts payload and key; a record larger than it is never returned; both spellings work."""
    async with serving() as http:
        await http.create("s")
        await http.put("s", *[{"data": data(b"x" * 10), "partition_key": "kk"} for _ in range(10)])
        cursor = await http.cursor("s", cursor_type="TRIM_HORIZON")

        async def count(query: str) -> int:
            return len((await http.get(cursor, query)).told["records"])

        assert await count("&max_fetch_bytes=35") == 2
        assert await count("&max_fetch_bytes=36") == 3
        assert await count("&max_fetch_by_bytes=36") == 3
        assert await count("&max_fetch_bytes=11") == 0
        for large in (10**11, 2**63 - 1, 10**19 - 1, 10**40 - 1):
            assert await count(f"&max_fetch_bytes={large}") == 10
            assert await count(f"&max_fetch_by_bytes={large}") == 10
        assert await count("&limit=1&app_name=a") == 10
        for bad in ("0", "-1", "x", "9" * 41, "%D9%A1"):
            for name in ("max_fetch_bytes", "max_fetch_by_bytes"):
                assert (await http.get(cursor, f"&{name}={bad}")).code == "DIS.4200"


async def test_pages_are_bounded() -> None:
    """A get that asks for nothing in particular gets the default, and none gets more than the page's maximum."""
    small = {"max_record_bytes": 100, "max_partition_key_bytes": 10}
    async with serving(**small, default_fetch_bytes=100, max_fetch_bytes=210) as http:
        await http.create("s")
        await http.put("s", *[{"data": data(b"x" * 50)}] * 10)
        cursor = await http.cursor("s", cursor_type="TRIM_HORIZON")
        assert len((await http.get(cursor)).told["records"]) == 2
        assert len((await http.get(cursor, "&max_fetch_bytes=5000")).told["records"]) == 4


async def test_reading_on() -> None:
    """The next cursor continues behind the page, stays put at the end, and finds what is written later."""
    async with serving() as http:
        await http.create("s")
        cursor = await http.cursor("s", cursor_type="LATEST")
        page = (await http.get(cursor)).told
        assert page["records"] == []
        await http.put("s", {"data": data(b"1")}, {"data": data(b"2")})
        page = (await http.get(page["next_partition_cursor"], "&max_fetch_bytes=1")).told
        assert [r["data"] for r in page["records"]] == [data(b"1")]
        page = (await http.get(page["next_partition_cursor"])).told
        assert [r["data"] for r in page["records"]] == [data(b"2")]
        assert (await http.get(page["next_partition_cursor"])).told["records"] == []


@pytest.mark.parametrize(
    ("record", "name"),
    [({"data": "", "partition_id": "2"}, "s"), ({"data": "", "partition_id": "shardId-9"}, "s")],
)
async def test_unknown_partitions(record: dict[str, str], name: str) -> None:
    """A partition that a stream does not have is DIS.4302, for put and for cursors."""
    async with serving() as http:
        await http.create(name, 2)
        assert (await http.put(name, {"data": ""}, record)).code == "DIS.4302"
        assert await http.ranges(name) == ["[0 : 0]", "[0 : 0]"]
        assert (await http.ask_cursor(name, record["partition_id"], cursor_type="LATEST")).code == "DIS.4302"
