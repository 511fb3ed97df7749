"""Bodies of put and get (API 5.4.1, 5.4.2): the hot path.

Structs decode straight from the body and encode straight into it, base64 included, so that a record costs one object on
each side. What is per record here is measured in `benchmarks/wire.py`.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, cast

import msgspec

from ..errors import ApiError
from ..model import MAX_HASH_KEY, NewRecord, PutResult, PutResults, Record
from .body import decode_answer, decode_body
from .errors import api_error
from .partitioning import partition_id


def plain_text(value: object) -> str:
    """Strings of a subclass (an enum's, numpy's) are written as the text they hold."""
    if isinstance(value, str):
        return str.__str__(value)
    raise TypeError(f"{value!r:.80} is a {type(value).__name__}, which JSON does not have")


_encoder = msgspec.json.Encoder(enc_hook=plain_text)


# --- put ---------------------------------------------------------------------------------------------------------


class PutRequest(msgspec.Struct, kw_only=True, gc=False, omit_defaults=True):
    stream_name: str | None = None
    stream_id: str | None = None
    records: list[NewRecord]


class SentRecord(msgspec.Struct, gc=False, omit_defaults=True, rename={"key": "partition_key"}):
    """A `NewRecord` as the server reads it: the fields of the API, and no headers, which are not sent as such."""

    data: bytes
    key: str | None = None
    partition_id: str | None = None
    explicit_hash_key: str | None = None
    timestamp: Annotated[int, msgspec.Meta(ge=0, le=MAX_HASH_KEY)] | None = None
    headers: ClassVar[None] = None


class PlainRecord(msgspec.Struct, gc=False, forbid_unknown_fields=True, rename={"key": "partition_key"}):
    """A `SentRecord` as most are, with nothing but data and a key. Reading and placing it costs two thirds."""

    data: bytes
    key: str | None = None
    partition_id: ClassVar[None] = None
    explicit_hash_key: ClassVar[None] = None
    timestamp: ClassVar[None] = None
    headers: ClassVar[None] = None


def are_plain(records: Sequence[object]) -> bool:
    """Whether these, out of `decode_put`, are PlainRecords."""
    return bool(records) and isinstance(records[0], PlainRecord)


class _PlainRequest(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    records: list[PlainRecord]
    stream_name: str | None = None
    stream_id: str | None = None


class _SentRequest(msgspec.Struct, gc=False):
    records: list[SentRecord]
    stream_name: str | None = None
    stream_id: str | None = None


_put_decoder = msgspec.json.Decoder(_SentRequest)
_plain_decoder = msgspec.json.Decoder(_PlainRequest)


def encode_put(stream_name: str, records: list[NewRecord], stream_id: str | None = None) -> bytes:
    return _encoder.encode(PutRequest(stream_name=stream_name, stream_id=stream_id, records=records))


def decode_put(body: bytes, max_records: int | None = None) -> PutRequest:
    """The records are all SentRecords, or all PlainRecords.

    Raises ApiError: DIS.4300 (not JSON), DIS.4200 (wrong type, missing field, bad base64, too many records).
    """
    # An empty record takes twelve bytes here and ten times that when it is decoded, so where there may be too many they
    # are counted first: by their braces, which costs a hundredth of a microsecond a record, and only where these are
    # too many (some may stand in keys) by their field, which costs twenty times that. In a text the quotes of the field
    # would stand behind backslashes.
    if (
        max_records is not None
        and len(body) > SHORTEST_RECORD * max_records
        and body.count(b"{") > max_records
        and (count := body.count(b'"data"')) > max_records
    ):
        raise too_many_records(count, max_records)
    sent: _PlainRequest | _SentRequest
    try:
        sent = _plain_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        sent = decode_body(_put_decoder, body)  # a richer one, mostly: that shows at its first record
    # Whoever reads the records finds the fields of a NewRecord in each.
    return PutRequest(
        stream_name=sent.stream_name, stream_id=sent.stream_id, records=cast("list[NewRecord]", sent.records)
    )


SHORTEST_RECORD = len(b'{"data":""},')
"""In a body of JSON: so long that it holds no more records than this goes into it."""


def too_many_records(count: int, most: int) -> ApiError:
    return api_error("DIS.4200", f"[{count} records are more than {most}]")


class PutFailure(msgspec.Struct, frozen=True):
    code: str
    message: str


def encode_put_answer(
    lanes: Sequence[int],
    first: Mapping[int, int],
    failures: Mapping[int, PutFailure] | None = None,
    runs: Mapping[int, int] | None = None,
) -> bytes:
    """The answer to a put. `lanes[i]` is record i's partition number, `first[p]` the sequence number of the first
    record stored in p; stored records of a partition are numbered from there on.

    `failures`: record index -> why it was not stored (it takes no number and shows none: a classic client takes its
    presence for success). `runs`: where the records of a partition have no consecutive numbers, `lanes` and `first`
    tell of runs that have, and `runs[r]` is the partition of run r.
    """
    homes = runs or {n: n for n in first}
    if not failures and len(first) == 1 and lanes:
        # One run, no failure: what an ordered producer sends. A join costs a tenth of the general form.
        ((number, start),) = first.items()
        entry = f'{{"partition_id":"{partition_id(homes[number])}","sequence_number":"'
        return f'{{"failed_record_count":0,"records":[{_numbered(entry, start, start + len(lanes))}]}}'.encode("ascii")
    # The entries of each partition at once, and of these one after another as its records come: half of what it costs
    # to write one by one.
    openings = {n: f'{{"partition_id":"{partition_id(homes[n])}","sequence_number":"' for n in first}
    counts = Counter(lanes)
    entries = {n: iter(counted(openings[n], start, start + counts[n], _ENTRY_ENDS)) for n, start in first.items()}
    if not failures:
        joined = ",".join(map(next, map(entries.__getitem__, lanes)))
        return f'{{"failed_record_count":0,"records":[{joined}]}}'.encode("ascii")
    parts: list[str] = []
    for index, number in enumerate(lanes):
        failure = failures.get(index)
        if failure is None:
            parts.append(next(entries[number]))
        else:
            parts.append(_encoder.encode({"error_code": failure.code, "error_message": failure.message}).decode())
    return f'{{"failed_record_count":{len(failures)},"records":[{",".join(parts)}]}}'.encode()


_ENDS = [f"{n:03}" for n in range(1000)]
"""The last three digits of a number."""

_ENTRY_ENDS = [f'{end}"}}' for end in _ENDS]
"""How an entry of an answer ends: the last three digits of its number, and what closes it."""


def _numbered(entry: str, start: int, end: int) -> str:
    """The entries numbered `start` to before `end`: a thousand at a time share all digits but the last three."""
    parts = [f'{entry}{n}"}}' for n in range(start, min(end, 1000))]
    start = max(start, 1000)
    while start < end:
        thousand, first = divmod(start, 1000)
        last = min(1000, first + end - start)
        opening = f"{entry}{thousand}"
        parts.append(opening + f",{opening}".join(_ENTRY_ENDS[first:last]))
        start += last - first
    return ",".join(parts)


def counted(opening: str, start: int, end: int, ends: Sequence[str] = _ENDS) -> list[str]:
    """The numbers from `start` to before `end`, each behind `opening`, at a third of the price of writing each.

    `ends` are the last three digits of each thousand, and what follows them.
    """
    parts = [f"{opening}{n}{ends[0][3:]}" for n in range(start, min(end, 1000))]
    start = max(start, 1000)
    while start < end:
        thousand, first = divmod(start, 1000)
        last = min(1000, first + end - start)
        same = f"{opening}{thousand}"
        parts += [same + digits for digits in ends[first:last]]
        start += last - first
    return parts


class _PutAnswer(msgspec.Struct):
    records: list[PutResult]
    failed_record_count: int = 0


class _PutCount(msgspec.Struct):
    failed_record_count: int | None = None


_answer_decoder = msgspec.json.Decoder(_PutAnswer, strict=False)
_count_decoder = msgspec.json.Decoder(_PutCount, strict=False)


def decode_put_answer(body: bytes) -> PutResults:
    """Results in the order of the request. Raises TransportError if the body is not such an answer."""
    return PutResults(decode_answer(_answer_decoder, body).records)


def decode_failed_count(body: bytes) -> int | None:
    """`failed_record_count` alone, without making an object per record; None if the answer has none."""
    if body.startswith(b'{"failed_record_count":0,') and body.endswith(b"]}"):
        return 0  # as our server writes it, and whole: nothing needs to be parsed
    return decode_answer(_count_decoder, body).failed_record_count


def count_stored(body: bytes, partition: int | None) -> int:
    """How many records the answer says are stored (in `partition`), as far as it can be told without decoding it.

    Exact for an answer in the compact form of our server, none for another form: what is not counted must be decoded.
    """
    if partition is None:
        return body.count(b'"sequence_number":"')
    return body.count(f'{{"partition_id":"{partition_id(partition)}","sequence_number":"'.encode())


# --- get ---------------------------------------------------------------------------------------------------------


class PageRow(msgspec.Struct, gc=False, omit_defaults=True):
    """A record in the answer of a get, as the server writes it."""

    sequence_number: str
    data: bytes
    timestamp: int
    timestamp_type: str | None = None  # always given: None only lets omit_defaults act on partition_key alone
    partition_key: str | None = None


def encode_page(rows: list[PageRow], next_cursor: str) -> bytes:
    return _encoder.encode({"records": rows, "next_partition_cursor": next_cursor})


class _Page(msgspec.Struct):
    records: list[Record]
    next_partition_cursor: str = ""


@functools.lru_cache(maxsize=1024)
def record_kind(stream: str, partition: str) -> type[Record]:
    """What the records of a partition are made of: a subclass of `Record`.

    Stream and partition are not in the page. They become the defaults of the subclass, so that finished records are
    built in C; setting them one by one afterwards costs half as much again, giving them to each a third.
    """
    kind: Any = msgspec.defstruct(
        "Record",
        [("stream", str, stream), ("partition_id", str, partition)],
        bases=(Record,),
        module=Record.__module__,
        frozen=True,
        gc=False,
        eq=False,
    )
    return cast("type[Record]", kind)


PageDecoder = Callable[[bytes], tuple[list[Record], str]]


def page_decoder(stream: str, partition: str) -> PageDecoder:
    """A decoder of pages of one partition: body -> (records, next cursor). Raises TransportError.

    Make one per partition and keep it: making it costs about a millisecond.
    """
    kind = record_kind(stream, partition)
    page: Any = msgspec.defstruct(
        "Page",
        [("records", list[kind]), ("next_partition_cursor", str, "")],  # type: ignore[valid-type]
    )
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(page, strict=False)

    def decode(body: bytes) -> tuple[list[Record], str]:
        answer = decode_answer(decoder, body)
        return answer.records, answer.next_partition_cursor

    return decode
