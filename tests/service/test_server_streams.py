"""Streams over HTTP: created, listed, described and deleted as the API words it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from server_http import data, serving


async def test_a_stream_lives() -> None:
    """201, 200 and 204 with the documented bodies, and gone afterwards."""
    async with serving() as http:
        await http.create("s", 2)
        told = await http.describe("s")
        assert told["stream_name"] == "s"
        assert told["status"] == "RUNNING"
        assert told["retention_period"] == 24
        assert (told["stream_type"], told["data_type"]) == ("COMMON", "BLOB")
        assert (told["writable_partition_count"], told["readable_partition_count"]) == (2, 2)
        assert told["create_time"] == told["last_modified_time"] > 1_600_000_000_000
        assert told["partitions"] == [
            {
                "status": "ACTIVE",
                "partition_id": "shardId-0000000000",
                "hash_range": "[0 : 4611686018427387902]",
                "sequence_number_range": "[0 : 0]",
            },
            {
                "status": "ACTIVE",
                "partition_id": "shardId-0000000001",
                "hash_range": "[4611686018427387903 : 9223372036854775807]",
                "sequence_number_range": "[0 : 0]",
            },
        ]
        assert told["has_more_partitions"] is False
        assert told["auto_scale_enabled"] is False
        gone = await http.call("DELETE", "/v2/p/streams/s")
        assert (gone.status, gone.body, gone.code) == (204, b"", "")
        again = await http.call("GET", "/v2/p/streams/s")
        assert (again.status, again.code) == (400, "DIS.4301")
        assert again.told["message"] == "Stream does not exist. [s][p]"
        assert (await http.call("DELETE", "/v2/p/streams/s")).code == "DIS.4301"


async def test_what_was_given_is_told() -> None:
    """Tags, schema, delimiter, compression, types and retention come back in the description and the list."""
    fields: dict[str, Any] = {
        "stream_type": "ADVANCED",
        "data_type": "CSV",
        "data_duration": 72,
        "data_schema": '{"type":"string"}',
        "csv_properties": {"delimiter": ";"},
        "compression_format": "snappy",
        "tags": [{"key": "k", "value": "v"}],
        "sys_tags": [{"key": "_sys_enterprise_project_id", "value": "0"}],
        "private": False,
    }
    async with serving() as http:
        await http.create("s", **fields)
        told = await http.describe("s")
        (listed,) = (await http.call("GET", "/v2/p/streams")).told["stream_info_list"]
    fields["retention_period"] = fields.pop("data_duration")
    del fields["private"]
    assert {key: told[key] for key in fields} == fields
    in_list = fields.keys() & listed.keys()
    assert {"tags", "sys_tags", "stream_type", "data_type", "retention_period"} <= in_list
    assert {key: listed[key] for key in in_list} == {key: fields[key] for key in in_list}
    assert listed["stream_id"] == told["stream_id"]
    assert listed["partition_count"] == 1


async def test_a_name_is_taken_once() -> None:
    """Of creations at the same moment one succeeds; the others get DIS.4307, whatever their fields."""
    async with serving() as http:
        body = {"stream_name": "s", "partition_count": 1}
        answers = await asyncio.gather(*[http.call("POST", "/v2/p/streams", body) for _ in range(5)])
        assert sorted(a.code for a in answers) == ["", *["DIS.4307"] * 4]


async def test_a_stream_created_again_is_another() -> None:
    """A deleted stream's records and cursors do not reach the stream that takes its name."""
    async with serving() as http:
        await http.create("s")
        await http.put("s", {"data": data(b"old")})
        cursor = await http.cursor("s", cursor_type="TRIM_HORIZON")
        first = (await http.describe("s"))["stream_id"]
        await http.call("DELETE", "/v2/p/streams/s")
        assert (await http.get(cursor)).code == "DIS.4301"
        await http.create("s")
        assert (await http.describe("s"))["stream_id"] != first
        assert (await http.get(cursor)).code == "DIS.4301"
        assert await http.read("s") == []
        assert (await http.call("GET", f"/v2/p/streams/{first}")).code == "DIS.4301"


async def test_list_pages() -> None:
    """Names ascend by code point; pages continue exclusively behind a name, which need not exist."""
    names = sorted(["b", "a", "B", "_", "-", "a1", "A", "z9", "0", "a-", "aa", "m"])
    async with serving() as http:
        for name in reversed(names):
            await http.create(name)
        first = (await http.call("GET", "/v2/p/streams")).told
        assert first["stream_names"] == names[:10]
        assert [info["stream_name"] for info in first["stream_info_list"]] == names[:10]
        assert (first["total_number"], first["has_more_streams"]) == (12, True)
        rest = (await http.call("GET", f"/v2/p/streams?limit=2&start_stream_name={names[9]}&")).told
        assert (rest["stream_names"], rest["total_number"], rest["has_more_streams"]) == (names[10:], 12, False)
        between = (await http.call("GET", "/v2/p/streams/?limit=100&start_stream_name=a0&x=1")).told
        assert between["stream_names"] == [name for name in names if name > "a0"]


async def test_describe_pages() -> None:
    """Partitions continue exclusively behind one of them, in both spellings of the parameter and of the id."""
    async with serving() as http:
        await http.create("s", 5)

        async def numbers(query: str) -> tuple[list[int], bool]:
            told = await http.describe("s", query=query)
            return [int(p["partition_id"][-10:]) for p in told["partitions"]], told["has_more_partitions"]

        assert await numbers("?limit_partitions=2") == ([0, 1], True)
        assert await numbers("?limit_partitions=2&start_partition_id=shardId-0000000001") == ([2, 3], True)
        assert await numbers("?start_partitionId=3&limit_partitions=1000") == ([4], False)
        assert await numbers("?start_partitionId=4") == ([], False)
        assert await numbers("?start_partitionId=&stream_name=s&") == ([0, 1, 2, 3, 4], False)
        assert (await http.call("GET", "/v2/p/streams/s?start_partition_id=5")).code == "DIS.4302"
        assert (await http.call("GET", "/v2/p/streams/s?start_partition_id=x")).code == "DIS.4201"


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "1.5", "٣", "9" * 30])
async def test_limits_of_pages(limit: str) -> None:
    """A limit out of range or not a number is DIS.4200, for both kinds of pages."""
    async with serving() as http:
        await http.create("s")
        assert (await http.call("GET", f"/v2/p/streams?limit={limit}")).code == "DIS.4200"
        if limit != "101":
            assert (await http.call("GET", f"/v2/p/streams/s?limit_partitions={limit}")).code == "DIS.4200"
        assert (await http.call("GET", "/v2/p/streams/s?limit_partitions=1001")).code == "DIS.4200"


async def test_projects_do_not_see_each_other() -> None:
    """A stream of another project does not exist, by name, by id, by cursor."""
    async with serving() as http:
        await http.create("s", project="one")
        stream_id = (await http.describe("s", project="one"))["stream_id"]
        await http.put("s", {"data": data(b"x")}, project="one")
        cursor = (await http.ask_cursor("s", project="one", cursor_type="LATEST")).told["partition_cursor"]
        for answer in (
            await http.call("GET", "/v2/two/streams/s"),
            await http.call("GET", f"/v2/two/streams/{stream_id}"),
            await http.call("GET", f"/v2/two/streams/s?stream_id={stream_id}"),
            await http.call("DELETE", "/v2/two/streams/s"),
            await http.put("s", {"data": ""}, project="two"),
            await http.ask_cursor("s", project="two", cursor_type="LATEST"),
            await http.get(cursor, project="two"),
        ):
            assert answer.code == "DIS.4301"
        assert (await http.call("GET", "/v2/two/streams")).told["total_number"] == 0
        await http.create("s", project="two")
        assert (await http.get(cursor, project="two")).code == "DIS.4301"


@pytest.mark.parametrize("project", ["a%20b", "x" * 65, "%7Bproject_id%7D", "%C3%A9", "%FF", "a%2Fb"])
async def test_bad_projects(project: str) -> None:
    """A project id that cannot be one is DIS.4117 on every call."""
    async with serving() as http:
        for method, path in (("GET", "streams"), ("POST", "streams"), ("POST", "records"), ("GET", "cursors")):
            answer = await http.call(method, f"/v2/{project}/{path}", {} if method == "POST" else None)
            assert (answer.status, answer.code) == (400, "DIS.4117")


async def test_streams_by_id() -> None:
    """An id finds the stream in the body, in the query (both spellings) and in the name's place; a name wins."""
    async with serving() as http:
        await http.create("s")
        await http.create("other")
        s = (await http.describe("s"))["stream_id"]
        put = await http.call("POST", "/v2/p/records", {"stream_name": "", "stream_id": s, "records": [{"data": ""}]})
        assert put.code == ""
        put = await http.call("POST", "/v2/p/records", {"stream_name": "no", "stream_id": s, "records": [{"data": ""}]})
        assert put.code == ""
        body = {"stream_name": "other", "stream_id": s, "records": [{"data": ""}]}
        assert (await http.call("POST", "/v2/p/records", body)).code == ""
        assert (await http.ranges("s"), await http.ranges("other")) == (["[0 : 2]"], ["[0 : 1]"])
        for path in (s, f"no?stream_id={s}", f"no?stream-id={s}", f"{s}?stream_id={s}&stream_name={s}"):
            assert (await http.describe(path))["stream_name"] == "s"
        for query in (f"stream-id={s}", f"stream-name=no&stream-id={s}", f"stream_id={s}&stream-name=no"):
            answer = await http.call("GET", f"/v2/p/cursors?{query}&partition-id=0&cursor-type=LATEST")
            assert answer.code == ""
        assert (await http.call("DELETE", f"/v2/p/streams/{s}")).status == 204
        assert (await http.call("GET", "/v2/p/streams")).told["stream_names"] == ["other"]


async def test_trailing_slashes() -> None:
    """Every route has an optional slash at its end."""
    async with serving() as http:
        body = {"stream_name": "s", "partition_count": 1}
        assert (await http.call("POST", "/v2/p/streams/", body)).status == 201
        assert (await http.call("GET", "/v2/p/streams/s/")).status == 200
        put = {"stream_name": "s", "records": [{"data": ""}]}
        assert (await http.call("POST", "/v2/p/records/", put)).status == 200
        cursor = await http.call("GET", "/v2/p/cursors/?stream-name=s&partition-id=0&starting-sequence-number=0&")
        token = cursor.told["partition_cursor"]
        page = await http.call("GET", f"/v2/p/records/?partition-cursor={token}&limit=10&app_name=a&")
        assert len(page.told["records"]) == 1
        assert (await http.call("DELETE", "/v2/p/streams/s/")).status == 204
