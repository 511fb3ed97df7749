"""Records: send, consume, and the cursors in between."""

from __future__ import annotations

import hashlib
import json
import time
from base64 import b64decode, b64encode, urlsafe_b64decode, urlsafe_b64encode
from typing import Any

from compare import MAX_HASH_KEY, a_cursor, recent_ms, shard
from huaweicloudsdkdis import v2
from instrument import Sdk, case, exercise
from stream_methods import create

BINARY = bytes(range(256)) * 4
NO_RESULT = dict.fromkeys(v2.PutRecordsResultEntry.openapi_types)
PAYLOADS = [b"", b"x", "流 – données".encode(), BINARY, b"\xff\xfe\x00"]


def entry(data: bytes, **fields: str) -> Any:
    return v2.PutRecordsRequestEntry(data=b64encode(data).decode(), **fields)


def send(sdk: Sdk, stream: str, *records: Any, **fields: str) -> Any:
    return sdk.send_records(body=v2.PutRecordsRequest(stream_name=stream, records=list(records), **fields))


def stored(number: int, sequence: int) -> dict[str, Any]:
    return {"partition_id": shard(number), "sequence_number": str(sequence)}


def cursor(sdk: Sdk, stream: str, partition: str = "0", **fields: Any) -> str:
    answer = sdk.show_cursor(stream_name=stream, partition_id=partition, **fields)
    sdk.told(f"cursor {fields}", answer, {"partition_cursor": a_cursor})
    return str(answer.partition_cursor)


def numbers(sdk: Sdk, at: str) -> list[str]:
    return [record.sequence_number for record in sdk.consume_records(partition_cursor=at).records]


def owner(key: str, count: int) -> int:
    """The partition, of `count` equal ones, that the published rule gives to a key."""
    hashed = int.from_bytes(hashlib.md5(key.encode()).digest()[:8], "big") & MAX_HASH_KEY
    return min(hashed // (MAX_HASH_KEY // count), count - 1)


@exercise
def send_records(sdk: Sdk) -> None:
    """Every way to name a partition, in the order of their precedence; results in the order of the records."""
    create(sdk, "s", 3)
    put = send(
        sdk,
        "s",
        entry(b"0", partition_id="2"),
        entry(b"1", partition_id=shard(2), explicit_hash_key="0", partition_key="k"),
        entry(b"2", explicit_hash_key=str(MAX_HASH_KEY), partition_key="k"),
        entry(b"3", explicit_hash_key="0"),
    )
    sdk.told("results", put, {"failed_record_count": 0, "records": [stored(2, n) for n in range(3)] + [stored(0, 0)]})
    keys = ["", "0", "k1", "key-42", "分区", "é", "a b&c=d/e"]
    put = send(sdk, "s", *(entry(b"x", partition_key=key) for key in keys[1:]))
    found = [result.partition_id for result in put.records]
    sdk.equal("partitions of keys", found, [shard(owner(key, 3)) for key in keys[1:]])
    create(sdk, "one")
    put = send(sdk, "one", *(entry(payload) for payload in PAYLOADS))
    wanted = {"failed_record_count": 0, "records": [stored(0, n) for n in range(len(PAYLOADS))]}
    sdk.told("without a key", put, wanted)
    by_id = sdk.show_stream(stream_name="one").stream_id
    put = send(sdk, "", entry(b"x"), stream_id=by_id)
    sdk.told("by the stream's id", put, {"failed_record_count": 0, "records": [stored(0, len(PAYLOADS))]})

    def refused(code: str, message: str, *records: Any, stream: str = "s") -> None:
        body = v2.PutRecordsRequest(stream_name=stream, records=list(records))
        sdk.refused("send_records", code, message, body=body)

    refused("DIS.4202", "Empty request.")
    refused("DIS.4301", f"Stream does not exist. [gone][{sdk.project}]", entry(b"x"), stream="gone")
    refused("DIS.4302", f"Partition does not exist. [{shard(3)}]", entry(b"x", partition_id="3"))
    refused("DIS.4201", "Invalid partition_id. ...", entry(b"x", partition_id="three"))
    refused("DIS.4200", "Invalid request. ...", v2.PutRecordsRequestEntry(data="no base64"))
    body = v2.PutRecordsRequest(stream_name="s", records=[entry(bytes(1_048_577))])
    sdk.refused("send_records", "DIS.4200", "Invalid request. ...", 413, body=body)


@exercise
def show_cursor(sdk: Sdk) -> None:
    """The five kinds stand where they should, with either spelling of the partition; both ends of the range."""
    create(sdk, "s", 2)
    send(sdk, "s", *(entry(b"early", partition_id="1") for _ in range(3)))
    between = int(send_time(sdk, "s", "1")) + 1
    while time.time() * 1000 <= between:
        pass  # at most two milliseconds: timestamps have no finer unit
    send(sdk, "s", *(entry(b"late", partition_id="1") for _ in range(2)))

    def at(partition: str = "1", **fields: Any) -> list[str]:
        return numbers(sdk, cursor(sdk, "s", partition, **fields))

    sdk.equal("oldest", at(cursor_type="TRIM_HORIZON"), list("01234"))
    sdk.equal("newest", at(cursor_type="LATEST"), [])
    sdk.equal("at", at(shard(1), cursor_type="AT_SEQUENCE_NUMBER", starting_sequence_number="2"), list("234"))
    sdk.equal("after", at(cursor_type="AFTER_SEQUENCE_NUMBER", starting_sequence_number="2"), list("34"))
    sdk.equal("by default at", at(starting_sequence_number="4"), ["4"])
    sdk.equal("at the end", at(starting_sequence_number="5"), [])
    sdk.equal("at a time", at(cursor_type="AT_TIMESTAMP", timestamp=between), list("34"))
    sdk.equal("an empty partition", at("0", cursor_type="TRIM_HORIZON"), [])

    def refused(code: str, message: str, stream: str = "s", partition: str = "1", **fields: Any) -> None:
        sdk.refused("show_cursor", code, message, stream_name=stream, partition_id=partition, **fields)

    outside = "Sequence_number out of range. [6][ should be within ][0][ ][5]"
    refused("DIS.4224", outside, starting_sequence_number="6")
    refused("DIS.4216", "Invalid sequence_number. ...", starting_sequence_number="six")
    refused("DIS.4215", "Invalid cursor type. ...", cursor_type="OLDEST")
    refused("DIS.4301", f"Stream does not exist. [gone][{sdk.project}]", "gone", cursor_type="LATEST")
    refused("DIS.4302", f"Partition does not exist. [{shard(2)}]", partition="2", cursor_type="LATEST")
    refused("DIS.4201", "Invalid partition_id. ...", partition="-1", cursor_type="LATEST")


def send_time(sdk: Sdk, stream: str, partition: str) -> int:
    """When the first record of a partition was stored, in ms."""
    at = cursor(sdk, stream, partition, cursor_type="TRIM_HORIZON")
    return int(sdk.consume_records(partition_cursor=at).records[0].timestamp)


@exercise
def consume_records(sdk: Sdk) -> None:
    """Every byte comes back, with its key or without one; pages follow each other to the end and stay there."""
    create(sdk, "s")
    send(sdk, "s", *(entry(payload, partition_key="城市") for payload in PAYLOADS))
    send(sdk, "s", entry(BINARY, partition_id="0"), entry(BINARY))
    keys: list[str | None] = ["城市"] * len(PAYLOADS) + [None, None]
    payloads = [*PAYLOADS, BINARY, BINARY]
    every = [
        {
            "partition_key": key,
            "sequence_number": str(number),
            "data": b64encode(payload).decode(),
            "timestamp": recent_ms,
            "timestamp_type": "CreateTime",
        }
        for number, (key, payload) in enumerate(zip(keys, payloads, strict=True))
    ]
    start = cursor(sdk, "s", cursor_type="TRIM_HORIZON")
    answer = sdk.consume_records(partition_cursor=start)
    sdk.told("all of it", answer, {"records": every, "next_partition_cursor": a_cursor})
    sdk.equal("the bytes", [b64decode(record.data) for record in answer.records], payloads)
    times = [record.timestamp for record in answer.records]
    sdk.equal("times ascend", times, sorted(times))
    rest = sdk.consume_records(partition_cursor=answer.next_partition_cursor)
    sdk.told("then nothing", rest, {"records": [], "next_partition_cursor": a_cursor})
    send(sdk, "s", entry(b"new"))
    news = sdk.consume_records(partition_cursor=rest.next_partition_cursor)
    sdk.equal("then what is new", [b64decode(record.data) for record in news.records], [b"new"])
    at, pages = start, []
    while found := (page := sdk.consume_records(partition_cursor=at, max_fetch_bytes=1_100)).records:
        pages.append([record.sequence_number for record in found])
        at = page.next_partition_cursor
    sdk.equal("by pages", [number for page in pages for number in page], [str(n) for n in range(len(every) + 1)])
    sdk.equal("more than one page", len(pages) > 1, True)
    sdk.refused("consume_records", "DIS.4217", "Invalid partition cursor. ...", partition_cursor="nonsense")
    old = json.loads(urlsafe_b64decode(start + "=="))
    sdk.equal("keys of a cursor", sorted(old), ["generateTimestamp", "getIteratorParam"])
    old["generateTimestamp"] -= 301_000
    expired = urlsafe_b64encode(json.dumps(old).encode()).decode()
    sdk.refused("consume_records", "DIS.4225", "Expired partition cursor. ...", partition_cursor=expired)
    sdk.done("deletion", sdk.delete_stream(stream_name="s"), 204)
    gone = f"Stream does not exist. [s][{sdk.project}]"
    sdk.refused("consume_records", "DIS.4301", gone, partition_cursor=start)


@case
def traffic_control(sdk: Sdk) -> None:
    """A COMMON partition takes a thousand records or 1 MiB in a second: of more the rest fails, each with its own code,
    or else the whole request.
    """
    create(sdk, "s", 2)
    put = send(sdk, "s", *(entry(b"x", partition_id="0") for _ in range(3_000)))
    taken = 3_000 - put.failed_record_count
    sdk.equal("records taken", 1_000 <= taken < 2_000, True)
    failure = {"error_code": "DIS.4303", "error_message": "Exceeded traffic control limit."}
    results = [stored(0, n) for n in range(taken)] + [failure] * (3_000 - taken)

    def in_order(found: Any) -> bool:
        """the first of the records stored, and the rest refused"""
        return bool(found == [{**NO_RESULT, **result} for result in results])

    sdk.told("a part", put, {"failed_record_count": 3_000 - taken, "records": in_order})
    # Each is a second's worth. The third must wait, unless a slow machine took a second for the first two.
    large = v2.PutRecordsRequest(stream_name="s", records=[entry(bytes(1_048_576), partition_id="1")])
    sdk.refused("send_records", "DIS.4303", "Exceeded traffic control limit.", body=large, tries=20)
