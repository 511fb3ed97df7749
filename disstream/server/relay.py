"""What a front does for the core: bodies of puts become columns, and what the core tells becomes an answer. Pure.

The core (app.py) has all state, so it is what all requests have to pass; whatever needs no state is done in the fronts,
of which there are several (fronts.py). Of a put and a get that is most of the work:

    put   JSON or protobuf -> columns           records that name a partition or a hash key stay as they were sent
          answer: `encode_placed` -> JSON or protobuf
    get   answer: a page in columns -> JSON or protobuf, unless the client reads columns

A body that cannot be read is handed on as it came: the core refuses it, in its words and after it knows who asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from ..errors import ApiError
from ..model import NewRecord
from ..wire.columns import COLUMNS, NewColumns, encode_columns
from ..wire.http import JSON, PROTOBUF, Request, Response, accepts, media_type
from ..wire.pages import page_rows
from ..wire.places import EXTENSION as PLACES
from ..wire.places import HEADER as ANSWER
from ..wire.places import encode_put_answer_short
from ..wire.protobuf import decode_put_protobuf, encode_page_protobuf, encode_put_answer_protobuf
from ..wire.records import PutFailure, are_plain, decode_put, encode_page, encode_put_answer
from ..wire.sessions import HEADER as SESSION


class Relayed(Request):
    """A request that a front took in. Its answer may be in the forms that `rendered` understands."""

    form: str = ""
    """Media type of the body, where a front made another of it than the headers tell."""
    unpacked: bool = False
    """The body is no more compressed as the headers tell."""
    digest: str = ""
    """SHA-256 of the body as it was sent, in hex, where this is another one and the request is signed."""
    size: int = 0
    """The bytes that the body had when it was sent, where this is another one."""


def sent_body(request: Request) -> tuple[str, int]:
    """The body as it was sent: its SHA-256, "" if it is the request's own, and its bytes."""
    if isinstance(request, Relayed) and request.digest:
        return request.digest, request.size
    return "", len(request.body)


PLACED = "application/x-disstream-placed"
"""Content type of the core's answer to a put: the arguments of a `PutAnswerEncoder`, in msgpack."""

_Placed = tuple[list[int], dict[int, int], dict[int, PutFailure] | None, dict[int, int] | None]
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Placed)


def encode_placed(
    lanes: Sequence[int],
    first: Mapping[int, int],
    failures: Mapping[int, PutFailure] | None = None,
    runs: Mapping[int, int] | None = None,
) -> bytes:
    """As records.encode_put_answer, for a front to finish: a tenth of the work."""
    return _encoder.encode((lanes, first, failures, runs))


def in_columns(headers: Mapping[str, str], body: bytes, max_records: int) -> bytes | None:
    """The body of a put as columns; None: it is to be handed on as it is."""
    kind = media_type(headers)
    if kind == COLUMNS or SESSION in headers:  # in a session columns have a meaning of their own for keyless records
        return None
    try:
        sent = (decode_put_protobuf if kind == PROTOBUF else decode_put)(body, max_records)
        records: Sequence[NewRecord] = sent.records
        if not 0 < len(records) <= max_records:
            return None
        if are_plain(records):
            # Without the look at each for what it might have beside its key.
            records = NewColumns([record.data for record in records], [record.key for record in records])
        return encode_columns(sent.stream_name or "", records, sent.stream_id)
    except (ApiError, UnicodeEncodeError):
        return None


def rendered(headers: Mapping[str, str], response: Response) -> Response:
    """The core's answer as the client with these headers wants it."""
    kind = response.headers.get("content-type")
    protobuf = media_type(headers) == PROTOBUF
    if kind == PLACED:
        lanes, first, failures, runs = _decoder.decode(response.body)
        if protobuf:
            response.body = encode_put_answer_protobuf(lanes, first, failures, runs)
        elif headers.get(ANSWER) == PLACES:
            response.body = encode_put_answer_short(lanes, first, failures, runs)
        else:
            response.body = encode_put_answer(lanes, first, failures, runs)
    elif kind == COLUMNS and (protobuf or not accepts(headers, COLUMNS)):
        rows, next_cursor = page_rows(response.body)
        response.body = (encode_page_protobuf if protobuf else encode_page)(rows, next_cursor)
    else:
        return response
    response.headers["content-type"] = PROTOBUF if protobuf else JSON
    return response
