"""Records and cursors, for the document (API 5.4). Pure."""

from __future__ import annotations

from ...wire.cursors import CURSOR_TYPES, LIFETIME_MS, MAX_TOKEN_CHARS
from ...wire.notices import GONE, HEARTBEAT_S, LONGEST_S, MAX_PARTITIONS, MAX_PUSH_BYTES, MAX_SEQUENCE
from ...wire.sessions import FENCED, GAP, MOVED
from .parts import (
    LAYOUTS,
    PARTITION_ID,
    SEQUENCE_NUMBER,
    SHARED_ID,
    STREAM_NAME,
    Answer,
    Body,
    Operation,
    Parameter,
    Schema,
    choice,
    many,
    number,
    record,
    ref,
    text,
    time_ms,
)

_CURSOR = text(f"A position in a partition. Good for {LIFETIME_MS // 60_000} minutes.", maxLength=MAX_TOKEN_CHARS)
_TOKEN = (
    "eyJnZXRJdGVyYXRvclBhcmFtIjp7InN0cmVhbS1uYW1lIjoibmV3c3RyZWFtIiwicGFydGl0aW9uLWlkIjoiMCIsImN1cnNvci10eXBlIjoiQVRf"
    "U0VRVUVOQ0VfTlVNQkVSIiwic3RhcnRpbmctc2VxdWVuY2UtbnVtYmVyIjoiMTAifSwiZ2VuZXJhdGVUaW1lc3RhbXAiOjE1MDYxNTk1NjM0MDV9"
)
_DATA = text(
    "The payload, as base64.",
    contentEncoding="base64",
    pattern="^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
)
_NUMBER = "(0|[1-9][0-9]{0,17})"
_LANE = f"{_NUMBER}={_NUMBER}:{_NUMBER}:[1-9][0-9]{{0,17}}"

SCHEMAS: dict[str, Schema] = {
    "PutRecordsRequest": record(
        {"records": many(ref("NewRecord"), minItems=1)},
        {
            "stream_name": {**STREAM_NAME, "description": "This or `stream_id` is needed."},
            "stream_id": SHARED_ID,
        },
    ),
    "NewRecord": record(
        {"data": _DATA},
        {
            "partition_id": {**PARTITION_ID, "description": "Where the record goes; with it no key is kept."},
            "explicit_hash_key": text(
                "0 to 9223372036854775807: goes to the partition that owns this number.", pattern="^[0-9]{1,19}$"
            ),
            "partition_key": text("Records with the same key go to the same partition, in order."),
            "timestamp": time_ms("When the record came to be, if not now"),
        },
        "`partition_id` beats `explicit_hash_key`, which beats `partition_key`; with none of them the server chooses.",
    ),
    "PutRecordsAnswer": record(
        {
            "failed_record_count": number(minimum=0),
            "records": many(ref("PutResult"), "One for each record, in the order of the request."),
        }
    ),
    "PutResult": record(
        {},
        {
            "partition_id": PARTITION_ID,
            "sequence_number": text(
                "0 to 9223372036854775807, in decimal digits; -1 for a repetition of a record that was stored too long "
                "ago to know where.",
                pattern=r"^(-1|[0-9]{1,19})$",
            ),
            "error_code": text(
                f"Why it was not stored; most often DIS.4303, flow control. In a session also {GAP}, {FENCED}, {MOVED}."
            ),
            "error_message": text(),
        },
        "Partition and sequence number of a record that is stored, or the error of one that is not. Once a record "
        "fails, all later ones of the same partition in the same request do.",
    ),
    "GetRecordsAnswer": record(
        {
            "records": many(ref("Record"), "Ascending; empty: nothing new."),
            "next_partition_cursor": _CURSOR,
        }
    ),
    "Record": record(
        {
            "sequence_number": SEQUENCE_NUMBER,
            "data": _DATA,
            "timestamp": time_ms("What the producer gave, or else when it was stored"),
            "timestamp_type": choice(("CreateTime",)),
        },
        {"partition_key": text("Not there for a record without one, or put by `partition_id`.")},
    ),
    "Cursor": record({"partition_cursor": _CURSOR}),
    "NoticesRequest": record(
        {"streams": many(ref("WatchedStream"), f"Of at most {MAX_PARTITIONS:,} partitions together.", minItems=1)},
        {
            "longest_ms": number("When the answer ends at the latest.", minimum=0, maximum=int(LONGEST_S * 1000)),
            "push_bytes": number(
                "New records of a partition that weigh no more than this may come with the notice; 0: none do.",
                minimum=0,
                maximum=MAX_PUSH_BYTES,
            ),
        },
    ),
    "WatchedStream": record(
        {
            "partitions": many(
                number(minimum=0, maximum=MAX_SEQUENCE),
                "The number of a partition and the sequence number that is wanted next, and so on in pairs.",
                minItems=2,
            )
        },
        {
            "stream_name": {**STREAM_NAME, "description": "This or `stream_id` is needed."},
            "stream_id": SHARED_ID,
            "plain": many(
                number(minimum=0, maximum=MAX_SEQUENCE), "Numbers of partitions of which no records are to come."
            ),
        },
    ),
}

OPERATIONS: dict[str, Operation] = {
    "put_records": Operation(
        "Records",
        "Write records",
        {
            200: Answer(
                "What became of each record: some may be stored and others not.",
                "PutRecordsAnswer",
                {
                    "failed_record_count": 1,
                    "records": [
                        {"partition_id": "shardId-0000000000", "sequence_number": "485"},
                        {"error_code": "DIS.4303", "error_message": "Exceeded traffic control limit."},
                    ],
                },
                protobuf="PutRecordsResult",
            )
        },
        codes=("DIS.4201", "DIS.4202", "DIS.4301", "DIS.4302", "DIS.4303", "DIS.4319"),
        description="Refused as a whole, or answered record by record. A record has at most 1 MiB before base64, a "
        "request 5 MiB.",
        body=Body(
            "PutRecordsRequest",
            {
                "upload": {"stream_name": "newstream", "records": [{"data": "MTExMTEx"}]},
                "routed": {
                    "stream_name": "newstream",
                    "records": [
                        {"data": "MTExMTEx", "partition_key": "sensor-1"},
                        {"data": "MjIyMjIy", "partition_id": "shardId-0000000000", "timestamp": 1527577402541},
                        {"data": "MzMzMzMz", "explicit_hash_key": "0"},
                    ],
                },
            },
            protobuf="PutRecordsRequest",
            columns=True,
        ),
        headers={
            "X-Disstream-Session": Parameter(
                text(
                    "Makes it safe to repeat the put: each record is stored once. The producer's random id, a dot, the "
                    "number of this request; then for each partition, in the order of the records: "
                    "partition=epoch:number of its first record:count. In each partition and epoch a producer numbers "
                    "its records from 0.",
                    pattern=rf"^[0-9a-f]{{32}}\.{_NUMBER}; {_LANE}(, {_LANE})*$",
                )
            )
        },
    ),
    "get_records": Operation(
        "Records",
        "Read records",
        {
            200: Answer(
                "One page, and the cursor of the next.",
                "GetRecordsAnswer",
                {
                    "records": [
                        {
                            "partition_key": "0",
                            "sequence_number": "485",
                            "data": "MTExMTEx",
                            "timestamp": 1527577402541,
                            "timestamp_type": "CreateTime",
                        }
                    ],
                    "next_partition_cursor": _TOKEN,
                },
                headers={"X-Disstream-Layouts": LAYOUTS},
                protobuf="GetRecordsResult, to a request whose Content-Type (not Accept) asks for it",
                columns=True,
            )
        },
        codes=("DIS.4217", "DIS.4225", "DIS.4226", "DIS.4301", "DIS.4302", "DIS.4303", "DIS.4319"),
        query={
            "partition-cursor": Parameter(_CURSOR, required=True),
            "max_fetch_bytes": Parameter(number("Payload of a page. One record always passes.", minimum=1)),
            "max_fetch_by_bytes": Parameter(
                number("The same, as the reference spells it.", minimum=1), deprecated=True
            ),
        },
    ),
    "get_cursor": Operation(
        "Records",
        "Get a cursor, from which records are read",
        {200: Answer("The cursor.", "Cursor", {"partition_cursor": _TOKEN})},
        codes=("DIS.4201", "DIS.4215", "DIS.4216", "DIS.4224", "DIS.4301", "DIS.4302", "DIS.4319"),
        query={
            "stream-name": Parameter({**STREAM_NAME, "description": "This or `stream-id` is needed."}),
            "stream-id": Parameter(SHARED_ID),
            "partition-id": Parameter(PARTITION_ID, required=True),
            "cursor-type": Parameter(
                choice(
                    CURSOR_TYPES,
                    "AT_ and AFTER_SEQUENCE_NUMBER need `starting-sequence-number`, AT_TIMESTAMP needs `timestamp`; "
                    "TRIM_HORIZON is the oldest record, LATEST what will be written next.",
                    default="AT_SEQUENCE_NUMBER",
                )
            ),
            "starting-sequence-number": Parameter(SEQUENCE_NUMBER),
            "timestamp": Parameter(time_ms("The first record from then on")),
        },
    ),
    "notices": Operation(
        "Records",
        "Be told which of many partitions have something new",
        {
            200: Answer(
                "Goes on until the time is over, or the server closes.",
                lines="Lines, each an array of integers in JSON, as soon as they are known: the place of a partition "
                "in the request, from 0, and the number behind its last record, and so on in pairs. The first line "
                "names all partitions that hold what is wanted or something behind it, a later one those that have "
                f"grown. A number of {GONE}: look yourself. An empty array says, every {HEARTBEAT_S:g} seconds, that "
                "nothing is new. With `push_bytes`, the new records of a partition may come instead of the number: "
                "a line with an object {place, first, records, changes, bytes}, and behind it, in so many bytes, the "
                "page as a GET at `first` would have brought it as application/x-disstream-columns.",
            )
        },
        codes=("DIS.4301", "DIS.4303"),
        description="An extension. Only hints: what is written can be read whether or not it was told.",
        body=Body(
            "NoticesRequest",
            {"two": {"streams": [{"stream_name": "newstream", "partitions": [0, 485, 1, 0]}], "longest_ms": 60000}},
        ),
    ),
}
