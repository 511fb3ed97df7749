"""Bad input of every kind gets the documented answer and changes nothing."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from typing import Any

import pytest
from server_http import HttpCaller, data, serving

GOOD = {"data": data(b"good")}


def put(*records: object, **fields: object) -> dict[str, object]:
    return {"stream_name": "s", "records": list(records), **fields}


PUTS: list[tuple[object, int, str]] = [
    (b"", 400, "DIS.4300"),
    (b"hello", 400, "DIS.4300"),
    (b"\xff\xfe", 400, "DIS.4300"),
    (b'{"stream_name":"s","records":[{"data":"aGk="}]', 400, "DIS.4300"),
    (b"[" * 50_000, 400, "DIS.4300"),
    ([], 400, "DIS.4200"),
    ("text", 400, "DIS.4200"),
    ({}, 400, "DIS.4200"),
    ({"stream_name": "s"}, 400, "DIS.4200"),
    ({"records": [GOOD]}, 400, "DIS.4200"),
    (put(GOOD, stream_name=""), 400, "DIS.4200"),
    (put(GOOD, stream_name=5), 400, "DIS.4200"),
    (put(GOOD, stream_name="no"), 400, "DIS.4301"),
    (put(GOOD, stream_name="x" * 100_000), 400, "DIS.4301"),
    (put(GOOD, stream_name="a/b\u0000"), 400, "DIS.4301"),
    (put(GOOD, stream_name="", stream_id="no"), 400, "DIS.4301"),
    (put(), 400, "DIS.4202"),
    (put(records=None), 400, "DIS.4200"),
    (put(records={}), 400, "DIS.4200"),
    (put(GOOD, None), 400, "DIS.4200"),
    (put(GOOD, {}), 400, "DIS.4200"),
    (put(GOOD, {"data": None}), 400, "DIS.4200"),
    (put(GOOD, {"data": 5}), 400, "DIS.4200"),
    (put(GOOD, {"data": "a"}), 400, "DIS.4200"),
    (put(GOOD, {"data": "a-_="}), 400, "DIS.4200"),
    (put(GOOD, {"data": "aGk"}), 400, "DIS.4200"),
    (put(GOOD, {**GOOD, "partition_key": 5}), 400, "DIS.4200"),
    (put(GOOD, {**GOOD, "partition_key": "\ud800"}), 400, "DIS.4300"),
    (put(GOOD, {**GOOD, "partition_key": "k" * 70_000}), 400, "DIS.4200"),
    (put(GOOD, {**GOOD, "partition_id": 0}), 400, "DIS.4200"),
    (put(GOOD, {**GOOD, "partition_id": "zero"}), 400, "DIS.4201"),
    (put(GOOD, {**GOOD, "partition_id": "-1"}), 400, "DIS.4201"),
    (put(GOOD, {**GOOD, "partition_id": "9"}), 400, "DIS.4302"),
    (put(GOOD, {**GOOD, "explicit_hash_key": 5}), 400, "DIS.4200"),
    (put(GOOD, {**GOOD, "explicit_hash_key": "0x10"}), 400, "DIS.4200"),
    (put(GOOD, {**GOOD, "timestamp": "5"}), 400, "DIS.4200"),
    (put(GOOD, {**GOOD, "timestamp": -1}), 400, "DIS.4200"),
    (put(GOOD, {**GOOD, "timestamp": 10**30}), 400, "DIS.4200"),
    (put(GOOD, {**GOOD, "timestamp": 1.5}), 400, "DIS.4200"),
    (put(*[{"data": ""}] * 100_001), 400, "DIS.4200"),
    (put(GOOD, {"data": data(b"x" * 1_048_577)}), 413, "DIS.4200"),
    (put(GOOD, pad="x" * (12 * 1_048_576)), 413, "DIS.4200"),
]

CREATES: list[tuple[object, str]] = [
    (b"", "DIS.4300"),
    (b"{", "DIS.4300"),
    ([], "DIS.4200"),
    ({}, "DIS.4200"),
    ({"stream_name": "n"}, "DIS.4200"),
    ({"partition_count": 1}, "DIS.4200"),
    ({"stream_name": "n", "partition_count": "1"}, "DIS.4200"),
    ({"stream_name": "n", "partition_count": True}, "DIS.4200"),
    ({"stream_name": "n", "partition_count": 1.5}, "DIS.4200"),
    ({"stream_name": "n", "partition_count": 0}, "DIS.4200"),
    ({"stream_name": "n", "partition_count": 1_001}, "DIS.4308"),
    ({"stream_name": "n n", "partition_count": 1}, "DIS.4200"),
    ({"stream_name": 5, "partition_count": 1}, "DIS.4200"),
    ({"stream_name": "s", "partition_count": 1}, "DIS.4307"),
    ({"stream_name": "n", "partition_count": 1, "data_duration": 200}, "DIS.4200"),
    ({"stream_name": "n", "partition_count": 1, "data_duration": [24]}, "DIS.4200"),
    ({"stream_name": "n", "partition_count": 1, "data_type": "X"}, "DIS.4200"),
    ({"stream_name": "n", "partition_count": 1, "auto_scale_enabled": "true"}, "DIS.4200"),
    ({"stream_name": "n", "partition_count": 1, "auto_scale_enabled": True}, "DIS.4200"),
    ({"stream_name": "n", "partition_count": 1, "auto_scale_min_partition_count": "x"}, "DIS.4200"),
    ({"stream_name": "n", "partition_count": 1, "data_schema": "{"}, "DIS.4360"),
    ({"stream_name": "n", "partition_count": 1, "csv_properties": ";"}, "DIS.4200"),
    ({"stream_name": "n", "partition_count": 1, "tags": {"a": "b"}}, "DIS.4200"),
    ({"stream_name": "n", "partition_count": 1, "tags": [{"value": "v"}]}, "DIS.4200"),
    ({"stream_name": "n", "partition_count": 1, "tags": [{"key": f"k{n}"} for n in range(101)]}, "DIS.4601"),
]

CURSORS = [
    ("", "DIS.4200"),
    ("stream-name=s", "DIS.4200"),
    ("stream-name=&partition-id=0", "DIS.4200"),
    ("partition-id=0", "DIS.4200"),
    ("stream-name=no&partition-id=0&cursor-type=LATEST", "DIS.4301"),
    ("stream-name=s&partition-id=x&cursor-type=LATEST", "DIS.4201"),
    ("stream-name=s&partition-id=7&cursor-type=LATEST", "DIS.4302"),
    ("stream-name=s&partition-id=0&cursor-type=NEWEST", "DIS.4215"),
    ("stream-name=s&partition-id=0", "DIS.4216"),
    ("stream-name=s&partition-id=0&starting-sequence-number=one", "DIS.4216"),
    ("stream-name=s&partition-id=0&starting-sequence-number=-1", "DIS.4216"),
    ("stream-name=s&partition-id=0&starting-sequence-number=9223372036854775808", "DIS.4216"),
    ("stream-name=s&partition-id=0&starting-sequence-number=2", "DIS.4224"),
    ("stream-name=s&partition-id=0&cursor-type=AFTER_SEQUENCE_NUMBER&starting-sequence-number=1", "DIS.4224"),
    ("stream-name=s&partition-id=0&cursor-type=AT_TIMESTAMP", "DIS.4200"),
    ("stream-name=s&partition-id=0&cursor-type=AT_TIMESTAMP&timestamp=-5", "DIS.4200"),
]

GETS = ["", "partition-cursor=", "partition-cursor=%FF", "partition-cursor=abc", "partition-cursor=" + "A" * 513]

UNROUTED: list[tuple[str, str, int]] = [
    ("GET", "/", 404),
    ("GET", "/v2", 404),
    ("GET", "/v2/p", 404),
    ("GET", "/v1/p/streams", 404),
    ("GET", "/v2/p/nothing", 404),
    ("GET", "/v2//streams/s/x/y", 404),
    ("GET", "/v2/p/streams/s/%FF%00", 404),
    ("PUT", "/v2/p/streams", 405),
    ("PATCH", "/v2/p/streams/s", 405),
    ("DELETE", "/v2/p/records", 405),
    ("POST", "/v2/p/cursors", 405),
    ("HEAD", "/v2/p/streams", 405),
]


async def state(http: HttpCaller) -> Any:
    streams = (await http.call("GET", "/v2/p/streams?limit=100")).told
    return streams, [await http.describe(name) for name in streams["stream_names"]], await http.read("s")


async def test_bad_input_changes_nothing() -> None:
    """Every bad request of the tables is refused with its code; the server holds afterwards what it held before."""
    async with serving() as http:
        await http.create("s", 2)
        await http.put("s", {**GOOD, "partition_id": "0"})
        before = await state(http)
        for body, status, code in PUTS:
            answer = await http.call("POST", "/v2/p/records", body)
            assert (answer.status, answer.code) == (status, code), (str(body)[:200], answer)
            assert len(answer.body) < 3_000
        for body, code in CREATES:
            answer = await http.call("POST", "/v2/p/streams", body)
            assert (answer.status, answer.code) == (400, code), (str(body)[:200], answer)
        for query, code in CURSORS:
            answer = await http.call("GET", f"/v2/p/cursors?{query}")
            assert (answer.status, answer.code) == (400, code), (query, answer)
        for query in GETS:
            answer = await http.call("GET", f"/v2/p/records?{query}")
            assert (answer.status, answer.code) == (400, "DIS.4217"), (query, answer)
        for name in ("no", "a%2Fb", "%00", "%FF", "x" * 2_000, "%ED%A0%80"):
            for method in ("GET", "DELETE"):
                answer = await http.call(method, f"/v2/p/streams/{name}")
                assert (answer.status, answer.code) == (400, "DIS.4301"), (name, answer)
        for method, target, status in UNROUTED:
            answer = await http.call(method, target)
            assert answer.status == status, (target, answer)
            if method != "HEAD":
                assert answer.code == "DIS.4200"
            assert ("allow" in answer.headers) == (status == 405)
        assert await state(http) == before


@pytest.mark.parametrize("encoding", ["gzip", "br", "lz4", "GZIP", "identity, gzip"])
async def test_encodings(encoding: str) -> None:
    """A body in an encoding that is not understood, or lacks what its own needs, is refused by name, not misread."""
    async with serving() as http:
        await http.create("s")
        answer = await http.call("POST", "/v2/p/records", put(GOOD), content_encoding=encoding)
        assert (answer.status, answer.code) == (400, "DIS.4200")
        assert encoding.lower() in answer.told["message"]
        assert (await http.call("POST", "/v2/p/records", put(GOOD), content_encoding="identity")).status == 200
        assert await http.ranges("s") == ["[0 : 1]"]


async def test_cursor_that_was_never_issued() -> None:
    """A well-formed cursor of another server's making reaches nothing."""
    token = (
        b'{"getIteratorParam":{"stream-name":"s","partition-id":"0","cursor-type":"AT_SEQUENCE_NUMBER",'
        b'"starting-sequence-number":"0","stream-id":"%b"},"generateTimestamp":9999999999999}'
    )
    async with serving() as http:
        await http.create("s")
        for stream_id in (b"8QM3Nt9YTLOwtUVYJhO", b"", b"/../"):
            answer = await http.get(urlsafe_b64encode(token % stream_id).decode())
            assert answer.code == "DIS.4217"  # from the future


async def test_allow_names_the_methods() -> None:
    """405 tells which methods the path has."""
    async with serving() as http:
        answer = await http.call("PUT", "/v2/p/records/")
        assert (answer.status, answer.code, answer.headers["allow"]) == (405, "DIS.4200", "POST, GET")
