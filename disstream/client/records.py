"""Records (API 5.4.1, 5.4.2), in the form of body that the client is configured for.

Answers are read by their own content type: a service may answer in JSON whatever it was asked in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from anyio import Lock, to_thread
from anyio.lowlevel import checkpoint

from ..errors import ApiError, ConfigError, TransportError
from ..model import Cursor, NewRecord, Page, PutResults, Record
from ..wire import columns, pages, places
from ..wire.compression import compress
from ..wire.cursors import MAX_TOKEN_CHARS, decode_cursor
from ..wire.envelope import may_hold_envelopes
from ..wire.http import JSON, PROTOBUF, Response, media_type
from ..wire.layouts import decode_changes
from ..wire.partitioning import partition_id
from ..wire.places import Places
from ..wire.protobuf import decode_page_protobuf, decode_put_answer_protobuf, encode_put_protobuf
from ..wire.records import decode_put_answer, encode_put, page_decoder

if TYPE_CHECKING:
    from .client import Client

_DECODERS = 1024  # partitions whose decoder is kept: making one takes a millisecond, keeping one some kilobytes

_COLUMNS_WANTED = {"accept": pages.ACCEPT}

_INLINE_BYTES = 262_144
"""Smaller bodies are compressed where they are, and smaller pages decoded as they come: 0.1 to 0.4 ms, little more than
handing them to a thread costs."""


class Records:
    """`client.records`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._form = client.config.body
        self._compression = client.config.compression
        self._headers: dict[str, str] | None = None  # beside those of every call
        if self._form == "protobuf":
            # On a get too, which has no body: it says how the page is wanted.
            self._headers = {"content-type": PROTOBUF, "accept": f"{PROTOBUF}, {JSON}"}
        self._turn = Lock()  # of whoever decodes a large page
        self._decoder = lru_cache(maxsize=_DECODERS)(page_decoder)

    async def put(
        self,
        stream: str,
        records: Sequence[NewRecord],
        *,
        stream_id: str | None = None,
        timeout_s: float | None = None,
    ) -> PutResults:
        """Write records in one request; result i belongs to record i, and some may have failed (`.failed`).

        API 5.4.1. Never repeated once a byte has left: for delivery that retries, use a producer.
        Raises ConfigError (nothing was sent), ApiError, TransportError (may have been written if `outcome_unknown`).
        Cancellation: the records may have been written.
        """
        _check_records(stream or stream_id or "", records)
        encode = encode_put_protobuf if self._form == "protobuf" else encode_put
        try:
            body = encode(stream, list(records), stream_id)
        except (TypeError, ValueError, OverflowError) as exc:
            form = "protobuf" if self._form == "protobuf" else "JSON"
            raise ConfigError(f"a record cannot be written as {form}: {exc}") from exc
        answer = await self._put(body, timeout_s, None)
        results = decode_put_answer_protobuf(answer.body) if _is_protobuf(answer) else decode_put_answer(answer.body)
        if len(results) != len(records):
            told = f"the answer has {len(results)} results for {len(records)} records"
            raise TransportError(told, outcome_unknown=True)
        return results

    async def put_encoded(
        self, body: bytes, *, timeout_s: float | None = None, headers: Mapping[str, str] | None = None
    ) -> bytes | PutResults | Places:
        """One attempt to put a body in any form that the endpoint reads.

        `headers` (lower case) go with it: its content type, and those of an extension that the endpoint names.
        Returns the 2xx answer: the body of one in JSON, which may be left undecoded; the results of one in protobuf;
        the places of a short one, which is asked for where the endpoint gives it.
        For the producer, which repeats on its own. Raises as `put`; DIS.4303 for a whole request is a ThrottledError.
        """
        if places.EXTENSION in self._client.extensions:
            headers = {**(headers or {}), places.HEADER: places.EXTENSION}
        answer = await self._put(body, timeout_s, 1, headers)
        if _is_protobuf(answer):
            return decode_put_answer_protobuf(answer.body)
        return places.decode_places(answer.body, len(body) // columns.SHORTEST_RECORD) or answer.body

    async def _put(
        self,
        body: bytes,
        timeout_s: float | None,
        attempts: int | None,
        more: Mapping[str, str] | None = None,
    ) -> Response:
        headers = self._headers
        if more:
            headers = {**(headers or {}), **more}
        kind = self._compression
        if kind is not None:
            if len(body) <= _INLINE_BYTES:
                packed, told = compress(body, kind)
            else:
                packed, told = await to_thread.run_sync(compress, body, kind)
            if len(packed) < len(body):
                body, headers = packed, {**(headers or {}), **told}
        return await self._client.call(
            "put_records", body=body, headers=headers, timeout_s=timeout_s, attempts=attempts
        )

    async def get(self, cursor: Cursor | str, *, max_bytes: int | None = None) -> Page:
        """One page from the cursor on, possibly empty; `page.next_cursor` continues behind it.

        API 5.4.2. `max_bytes` caps the page; a record larger than it can never be read.
        What travels in an envelope comes as it is: `disstream.unwrap(page.records)` opens it.
        Records name their stream and partition if the cursor is a `Cursor`, or a string that tells them.
        Raises CursorExpired (get a new one), SequenceOutOfRange (the records there have expired).
        """
        if not 1 <= len(cursor) <= MAX_TOKEN_CHARS:
            raise ConfigError(f"a cursor has 1 to {MAX_TOKEN_CHARS} characters, this has {len(cursor)}")
        if max_bytes is not None and max_bytes < 1:
            raise ConfigError(f"max_bytes={max_bytes!r} must be 1 or more")
        query = {"partition-cursor": str(cursor)}
        if max_bytes is not None:
            query["max_fetch_bytes"] = str(max_bytes)
        stream, partition = _place(cursor)
        headers = self._headers
        if self._form == "auto" and pages.EXTENSION in self._client.extensions:
            headers = _COLUMNS_WANTED
        answer = await self._client.call("get_records", query=query, headers=headers)
        if len(answer.body) <= _INLINE_BYTES:
            return await self._page(answer, stream, partition)
        # Pages of several partitions often come in one turn of the loop. Each is a millisecond or more of work, and
        # whatever else runs on the loop must not have to wait for all of them.
        async with self._turn:
            await checkpoint()
            return await self._page(answer, stream, partition)

    async def _page(self, answer: Response, stream: str, partition: str) -> Page:
        records: Sequence[Record]
        kind = media_type(answer.headers)
        if kind == columns.COLUMNS:
            parts = pages.decode_in_parts(answer.body, stream, partition)
            while (decoded := next(parts)) is None:
                await checkpoint()
            records, following = decoded
        elif kind == PROTOBUF:
            records, following = decode_page_protobuf(answer.body, stream, partition)
        else:
            records, following = self._decoder(stream, partition)(answer.body)
        plain = not may_hold_envelopes(answer.body, base64=kind not in (columns.COLUMNS, PROTOBUF))
        return Page(
            records=records,
            next_cursor=Cursor(following, stream, partition),
            plain=plain,
            changes=decode_changes(answer.headers),
        )


def _is_protobuf(answer: Response) -> bool:
    return media_type(answer.headers) == PROTOBUF


def _place(cursor: Cursor | str) -> tuple[str, str]:
    """Stream and partition id the cursor points into; empty if a foreign service's token does not tell."""
    if isinstance(cursor, Cursor) and cursor.partition_id:
        return cursor.stream, cursor.partition_id
    try:
        state = decode_cursor(cursor)
    except ApiError:
        return "", ""
    return state.stream_name, partition_id(state.partition)


def _check_records(stream: str, records: Sequence[object]) -> None:
    """Raise ConfigError for what the service would misread or refuse with less to go by."""
    if not stream:
        raise ConfigError("put needs the name of a stream")
    if not records:
        raise ConfigError("put needs at least one record: the service refuses an empty request")
    for index, record in enumerate(records):
        if not isinstance(record, NewRecord):
            raise ConfigError(f"record {index} is a {type(record).__name__}: wrap it, like NewRecord(b'...', key='k')")
        data: object = record.data  # whatever the annotation says: msgspec checks nothing when a struct is made
        if not isinstance(data, bytes | bytearray | memoryview):
            remedy = "encode it: data=text.encode()" if isinstance(data, str) else "data is bytes"
            raise ConfigError(f"record {index} has {type(data).__name__} as data: {remedy}")
        if record.headers is not None:
            raise ConfigError(f"record {index} has headers: they travel in an envelope, which only a producer makes")
        for field in ("key", "partition_id", "explicit_hash_key"):
            value = getattr(record, field)
            if value is None:
                continue
            if not isinstance(value, str):
                raise ConfigError(f"record {index} has {field}={value!r}: it must be a str or None")
            if not value:
                raise ConfigError(f"record {index} has {field}='': the service takes that for none, so say None")
