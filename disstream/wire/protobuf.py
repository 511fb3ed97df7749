"""Bodies of put and get as protobuf, which official clients choose by content type (API 5.4.1, 5.4.2).

Everything but these two bodies is JSON, refusals included. Each function imports the messages for itself, see there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

from ..errors import ApiError, TransportError
from ..model import NewRecord, PutResult, PutResults, Record
from .errors import api_error
from .partitioning import partition_id
from .records import PageRow, PlainRecord, PutFailure, PutRequest, counted

MAX_RECORDS = 100_000
"""Of a request, where nothing else is said."""

NO_TIMESTAMP = -(2**63)
"""What an entry without a timestamp reads as. Asking each one whether it has the field would cost a tenth more."""

# --- put ---------------------------------------------------------------------------------------------------------


def encode_put_protobuf(stream_name: str, records: list[NewRecord], stream_id: str | None = None) -> bytes:
    """As records.encode_put. Raises TypeError, ValueError for a record that cannot be written."""
    from .messages import PutRecordsRequest

    # The older of the official descriptors requires both names, and takes the empty one for none.
    message = PutRecordsRequest(streamName=stream_name, streamId=stream_id or "")
    add = message.records.add
    for record in records:
        entry = add()
        data = record.data
        entry.data = data if type(data) is bytes else bytes(data)
        if record.key is not None:
            entry.partitionKey = record.key
        if record.partition_id is not None:
            entry.partitionId = record.partition_id
        if record.explicit_hash_key is not None:
            entry.explicitHashKey = record.explicit_hash_key
        if record.timestamp is not None:
            entry.timestamp = record.timestamp
    body: bytes = message.SerializeToString()
    return body


def decode_put_protobuf(body: bytes, max_records: int = MAX_RECORDS) -> PutRequest:
    """The records are all NewRecords, or all PlainRecords.

    Raises ApiError: DIS.4300 (not such a message), DIS.4200 (a field that cannot be, more than `max_records`).
    """
    from .messages import DecodeError, PutRecordsRequest

    # An empty record takes two bytes here and a hundred when it is parsed, so they are counted first. Counting bytes
    # that a record may begin with is almost free, and above the truth.
    if body.count(b"\x12") + body.count(b"\x92") > max_records:
        _check_count(body, max_records)
    try:
        message = PutRecordsRequest.FromString(body)
    except DecodeError as exc:
        raise api_error("DIS.4300", f"[the body is no PutRecordsRequest in protobuf: {exc}]") from exc
    entries = list(message.records)
    records = cast("list[NewRecord] | None", _plain(entries)) or _rich(entries)
    name, stream_id = message.streamName, message.streamId
    if type(name) is bytes or type(stream_id) is bytes:  # text that is no UTF-8 comes as bytes
        raise api_error("DIS.4200", "[streamName or streamId is no UTF-8]")
    return PutRequest(stream_name=name or None, stream_id=stream_id or None, records=records)


def _plain(entries: list[Any]) -> list[PlainRecord] | None:
    """What the entries say, if each has nothing but data, which is not empty, and a key."""
    # Field by field, as most puts are: half of what it costs to look at each entry.
    if (
        any([entry.partitionId for entry in entries])
        or any([entry.explicitHashKey for entry in entries])
        or any([entry.timestamp != NO_TIMESTAMP for entry in entries])
    ):
        return None
    payloads = [entry.data for entry in entries]
    keys = [entry.partitionKey or None for entry in entries]
    if not all(payloads) or bytes in set(map(type, keys)):
        return None
    return list(map(PlainRecord, payloads, keys))


def _rich(entries: list[Any]) -> list[NewRecord]:
    """What any entries say. Raises ApiError DIS.4200."""
    records: list[NewRecord] = []
    for entry in entries:
        data, timestamp = entry.data, entry.timestamp
        key, home, hashed = entry.partitionKey or None, entry.partitionId or None, entry.explicitHashKey or None
        if type(key) is bytes or type(home) is bytes or type(hashed) is bytes:
            raise _bad(len(records), "partitionKey, partitionId or explicitHashKey is no UTF-8")
        if not data and not entry.HasField("data"):
            raise _bad(len(records), "data is missing")
        if timestamp >= 0:
            records.append(NewRecord(data, key, home, hashed, timestamp))
        elif timestamp == NO_TIMESTAMP:
            records.append(NewRecord(data, key, home, hashed))
        else:
            raise _bad(len(records), f"timestamp is {timestamp}: it counts milliseconds from 1970 on")
    return records


def _bad(index: int, told: str) -> ApiError:
    return api_error("DIS.4200", f"[{told} - at records[{index}]]")


def _check_count(body: bytes, limit: int) -> None:
    """Raise ApiError DIS.4200 if the message has more fields than a put of `limit` records.

    Walks from field to field; ends where the body is no message, which the parser then tells.
    """
    at = fields = 0
    while at < len(body):
        fields += 1
        if fields > limit + 2:
            raise api_error("DIS.4200", f"[the message has more than {limit} records]")
        # Numbers of one byte, as nearly all are, are read here: a call for each would take the loop half a second.
        tag = body[at]
        at += 1
        if tag >= 0x80:
            tag, at = _varint(body, at - 1)
        kind = tag & 7
        if kind == 2:
            size = body[at] if at < len(body) else 0
            at += 1
            if size >= 0x80:
                size, at = _varint(body, at - 1)
            at += size
        elif kind == 0:
            _, at = _varint(body, at)
        elif kind == 1:
            at += 8
        elif kind == 5:
            at += 4
        # 3 and 4 begin and end a group: what stands between them is counted as if it stood here.


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and what follows it. At most 10 bytes; the end of the body ends it too."""
    value = shift = 0
    end = min(at + 10, len(body))
    while at < end:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return value, at


def encode_put_answer_protobuf(
    lanes: Sequence[int],
    first: Mapping[int, int],
    failures: Mapping[int, PutFailure] | None = None,
    runs: Mapping[int, int] | None = None,
) -> bytes:
    """As records.encode_put_answer."""
    names = {n: partition_id(runs[n] if runs else n) for n in first}
    if not failures:
        counts = Counter(lanes)
        entries = {n: iter(_stored(names[n], start, start + counts[n])) for n, start in first.items()}
        return _ALL_STORED + "".join(map(next, map(entries.__getitem__, lanes))).encode("latin-1")
    from .messages import PutRecordsResult

    message = PutRecordsResult(failedRecordCount=len(failures))
    following = dict(first)
    add = message.records.add
    for index, number in enumerate(lanes):
        entry = add()
        failure = failures.get(index)
        if failure is not None:
            entry.errorCode, entry.errorMessage = failure.code, failure.message
            continue
        sequence = following[number]
        following[number] = sequence + 1
        entry.shardId, entry.sequenceNumber = names[number], str(sequence)
    body: bytes = message.SerializeToString()
    return body


_ALL_STORED = b"\xa8\x01\x00"
"""failedRecordCount (21): 0."""


def _stored(name: str, start: int, end: int) -> list[str]:
    """The entries of records that are stored in that partition, numbered `start` to before `end`, in Latin-1.

    Put together by hand, a thousand that share all but three digits: a tenth of what the library takes. Entries whose
    numbers have as many digits are of one length, which stands in front (below 128, one byte):

        b2 01 LENGTH   records (22)    ba 01 LENGTH name   shardId (23)    c2 01 LENGTH number   sequenceNumber (24)
    """
    parts: list[str] = []
    while start < end:
        digits = len(str(start))
        stop = min(end, 10**digits)
        fields = f"\xba\x01{chr(len(name))}{name}\xc2\x01{chr(digits)}"
        parts += counted(f"\xb2\x01{chr(len(fields) + digits)}{fields}", start, stop)
        start = stop
    return parts


def decode_put_answer_protobuf(body: bytes) -> PutResults:
    """As records.decode_put_answer."""
    from .messages import DecodeError, PutRecordsResult

    try:
        return PutResults(
            [
                PutResult(
                    _text(entry.shardId),
                    int(entry.sequenceNumber) if entry.sequenceNumber else None,
                    _text(entry.errorCode),
                    _text(entry.errorMessage),
                )
                for entry in _parse(PutRecordsResult, body).records
            ]
        )
    except (DecodeError, ValueError) as exc:
        raise _unreadable("PutRecordsResult", exc) from exc


# --- get ---------------------------------------------------------------------------------------------------------


def encode_page_protobuf(rows: list[PageRow], next_cursor: str) -> bytes:
    """As records.encode_page."""
    from .messages import GetRecordsResult

    message = GetRecordsResult(nextShardIterator=next_cursor)
    add = message.records.add
    for row in rows:
        entry = add()
        entry.sequenceNumber = row.sequence_number
        entry.data = row.data
        entry.timestamp = row.timestamp
        entry.timestampType = row.timestamp_type
        if row.partition_key is not None:
            entry.partitionKey = row.partition_key
    body: bytes = message.SerializeToString()
    return body


def decode_page_protobuf(body: bytes, stream: str, partition: str) -> tuple[list[Record], str]:
    """(records, next cursor) of a page of that partition. Raises TransportError."""
    from .messages import DecodeError, GetRecordsResult

    try:
        message = _parse(GetRecordsResult, body)
        records = [
            Record(entry.data, int(entry.sequenceNumber), entry.timestamp, _text(entry.partitionKey), stream, partition)
            for entry in message.records
        ]
        return records, _text(message.nextShardIterator) or ""
    except (DecodeError, ValueError) as exc:
        raise _unreadable("GetRecordsResult", exc) from exc


def _parse(kind: Any, body: bytes) -> Any:
    """Raises DecodeError. The parser lets pass what lacks required fields: even an empty body would be an answer."""
    from .messages import DecodeError

    message = kind.FromString(body)
    if not message.IsInitialized():
        raise DecodeError("a required field is missing")
    return message


def _text(value: str | bytes) -> str | None:
    """Empty is absent. Raises UnicodeDecodeError: text that is no UTF-8 comes as bytes."""
    return (value.decode() if isinstance(value, bytes) else value) or None


def _unreadable(name: str, why: Exception) -> TransportError:
    return TransportError(f"the endpoint's answer is no {name} in protobuf ({why})", outcome_unknown=True)
