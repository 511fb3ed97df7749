"""Upload and download of records, and the cursors downloads start from (API 5.4.1 to 5.4.3): the hot path."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, repeat, starmap
from typing import NamedTuple

import anyio

from .. import clock
from ..engine import AppendRefused, Batch, Bounds, Columns, Engine, Entry, PartitionRef, Replayed
from ..errors import ApiError, StorageFull, ThrottledError
from ..wire.columns import COLUMNS, SentColumns, decode_columns
from ..wire.cursors import (
    LIFETIME_MS,
    CursorQuery,
    CursorState,
    decode_cursor,
    encode_cursor,
    encode_cursor_answer,
    parse_cursor_query,
)
from ..wire.errors import api_error, sequence_out_of_range, stream_not_found
from ..wire.http import JSON, PROTOBUF, Response, json_response
from ..wire.layouts import HEADER as LAYOUTS
from ..wire.pages import PageBatch, encode_page_columns
from ..wire.partitioning import partition_id, partition_number
from ..wire.places import encode_put_answer_short
from ..wire.protobuf import decode_put_protobuf, encode_page_protobuf, encode_put_answer_protobuf
from ..wire.records import PageRow, counted, decode_put, encode_page, too_many_records
from ..wire.sessions import Session, decode_session
from .admission import Admission, PutPlan
from .call import Call
from .config import ServerConfig
from .directory import Directory, Stream
from .flow import Flow, exceeded, no_room
from .layout import Records as SentRecords
from .meter import Meter
from .relay import PLACED, encode_placed
from .reshape import EXPIRED
from .scaling import Scaler
from .sessions import LaneKey, Refusals, SessionPlan, session_keys
from .turns import Turns

# What a policy of another account's stream must allow.
_PUT, GET = "putRecords", "getRecords"


class _Sent(NamedTuple):
    """What a put asks for."""

    name: str
    stream_id: str
    records: SentRecords


def _columns(sent: SentColumns) -> _Sent:
    keys = [key or None for key in sent.keys] if "" in sent.keys else sent.keys  # an empty key is none
    return _Sent(sent.stream_name or "", sent.stream_id or "", Columns(keys, sent.sizes, sent.timestamps, sent.data))


class Records:
    def __init__(
        self,
        engine: Engine,
        directory: Directory,
        scaling: Scaler,
        config: ServerConfig,
        flow: Flow,
        meter: Meter,
    ) -> None:
        self._log = engine.log
        self._directory = directory
        self._scaling = scaling
        self._config = config
        self._flow = flow
        self._meter = meter
        self.admission = Admission(config.max_pending_bytes)
        self._turns = Turns[LaneKey]()
        self._refusals = Refusals()

    async def put(self, call: Call) -> Response:
        began = _now()
        protobuf = call.media_type == PROTOBUF
        request = self._request(call)
        if not (request.name or request.stream_id):
            raise api_error("DIS.4200", "[stream_name is missing]")
        stream = await self._directory.find(
            call.project, request.name, request.stream_id, caller=call.caller, action=_PUT
        )
        if call.session is None:
            plan: PutPlan | SessionPlan = await self._put(call, stream, request.records)
        else:
            session = decode_session(call.session)
            keys = session_keys(session, stream.doc.stream_id)
            if self._turns.taken(keys):
                # What waits does so as it came, which is counted: small records take ten times as much, and nothing
                # has let them in yet.
                request = request._replace(records=())
            async with self._turns.take(keys):
                if not request.records:
                    request = self._request(call)
                plan = await self._put_in_session(call, stream, request.records, session)
        self._meter.put(stream.doc.stream_id, plan.stored, _now() - began, clock.wall_ms(), throttled=plan.throttled)
        if call.relayed:
            return Response(status=200, headers={"content-type": PLACED}, body=plan.answer(encode_placed))
        if protobuf:
            return Response(
                status=200, headers={"content-type": PROTOBUF}, body=plan.answer(encode_put_answer_protobuf)
            )
        return json_response(plan.answer(encode_put_answer_short) if call.short else plan.answer())

    def _request(self, call: Call) -> _Sent:
        """The body, with records, but not too many. Raises ApiError."""
        most = self._config.max_request_records
        if COLUMNS in (call.media_type, call.form):
            sent = _columns(decode_columns(call.body, most))
        else:
            request = (decode_put_protobuf if call.media_type == PROTOBUF else decode_put)(call.body, most)
            sent = _Sent(request.stream_name or "", request.stream_id or "", request.records)
        if not sent.records:
            raise api_error("DIS.4202")
        if len(sent.records) > most:
            raise too_many_records(len(sent.records), most)
        return sent

    async def _put(self, call: Call, stream: Stream, records: SentRecords) -> PutPlan:
        plan = PutPlan(records, stream.layout)
        with self._taken_in(plan, stream):
            if await self._append(plan, stream):
                await self._append_again(plan, stream, call)
        return plan

    @contextmanager
    def _taken_in(self, plan: PutPlan, stream: Stream) -> Iterator[None]:
        """What bandwidth and memory let pass of it is theirs inside the block."""
        if (pace := self._flow.of(stream.doc)) is not None:
            plan.pace(pace, stream.doc.stream_id, _now())
        plan.admit(self.admission)
        try:
            yield
        finally:
            self.admission.release(plan.weight)
        # Not after a failure or a cancellation: the records may be stored, and are paid.
        plan.unpace(_now())

    async def _append(self, plan: PutPlan, stream: Stream) -> bool:
        """True: some partition refused."""
        entries = plan.entries(stream.doc.stream_id)
        return plan.settle(await self._store(entries)) if entries else False

    async def _store(self, entries: Sequence[Entry]) -> list[int | AppendRefused | Replayed]:
        """Raises ApiError DIS.4303 if the engine has no room: it stored nothing, and clients try that again."""
        try:
            return await self._log.append(entries, clock.wall_ms())
        except StorageFull as exc:
            raise no_room() from exc

    async def _append_again(self, plan: PutPlan, stream: Stream, call: Call) -> None:
        """The layout changed after it was looked up, or is changing; or the stream is being deleted."""
        try:
            stream = await self._find_again(stream, call)
        except ApiError as error:
            plan.give_up(error)
            return
        plan.reroute(stream.layout, _now())
        try:
            refused = await self._append(plan, stream)
        except ThrottledError as error:  # what was stored under the layout before is told
            plan.unsettled()
            plan.give_up(error)
            return
        if refused:
            plan.give_up(api_error("DIS.4303"))

    async def _find_again(self, stream: Stream, call: Call) -> Stream:
        """The stream once no change of its layout is under way. Raises ApiError DIS.4301."""
        doc = stream.doc
        stream = await self._directory.find(
            call.project, doc.name, doc.stream_id, caller=call.caller, action=_PUT, exact=True
        )
        return await self._scaling.settled(stream)

    async def _put_in_session(self, call: Call, stream: Stream, records: SentRecords, session: Session) -> SessionPlan:
        """While nobody else has the turn of any of its lanes."""
        plan = SessionPlan(session, records, stream.doc.stream_id, self._refusals, call.project)
        error: ApiError = api_error("DIS.4303")
        for again in (False, True):
            known = await self._log.recall(plan.asked(), clock.wall_ms())
            if (put := plan.round(stream.layout, known)) is None:
                break
            with self._taken_in(put, stream):
                entries = put.entries(stream.doc.stream_id)
                try:
                    # To its end even if nobody waits any more: who repeats this must not find it half done.
                    with anyio.CancelScope(shield=True):
                        results = await self._store(entries) if entries else []
                except ThrottledError as full:
                    if not again:
                        raise
                    error = full  # what was stored under the layout before is told
                    break
                put.settle(results)
            plan.settle(entries, results)
            if plan.settled or again:
                break
            try:
                stream = await self._find_again(stream, call)
            except ApiError as gone:
                error = gone
                break
        plan.end(error)
        return plan

    def refused(self, call: Call) -> None:
        """This put was refused as a whole: no copy of it may be stored, if its session tells a copy from the next."""
        if call.session is not None:
            with suppress(ApiError):  # no session: a copy is refused as well
                self._refusals.remember_whole(call.project, decode_session(call.session))

    async def get_cursor(self, call: Call) -> Response:
        wanted = parse_cursor_query(call.query)
        stream = await self._directory.find(
            call.project, wanted.stream_name, wanted.stream_id or call.stream_id, caller=call.caller, action=GET
        )
        number = partition_number(wanted.partition)
        ref, bounds = await self._locate(stream, number, call.project)
        token = encode_cursor(
            CursorState(
                stream.doc.name,
                stream.doc.stream_id,
                number,
                await self._position(wanted, ref, bounds),
                clock.wall_ms(),
            )
        )
        return json_response(encode_cursor_answer(token))

    async def _position(self, wanted: CursorQuery, ref: PartitionRef, bounds: Bounds) -> int:
        match wanted.cursor_type:
            case "TRIM_HORIZON":
                return bounds.oldest
            case "LATEST":
                return bounds.next
            case "AT_TIMESTAMP":
                assert wanted.timestamp_ms is not None
                return max(bounds.oldest, await self._log.seek(ref, wanted.timestamp_ms))
            case kind:
                assert wanted.sequence is not None
                position = wanted.sequence + (kind == "AFTER_SEQUENCE_NUMBER")
                # The next number to be written is in range: consumers that have read everything stand there.
                if not bounds.oldest <= position <= bounds.next:
                    raise sequence_out_of_range(wanted.sequence, bounds.oldest, bounds.next)
                return position

    async def get(self, call: Call) -> Response:
        began = _now()
        cursor = decode_cursor(call.query.get("partition-cursor", ""))
        age_ms = clock.wall_ms() - cursor.issued_ms
        if age_ms > LIFETIME_MS:
            raise api_error("DIS.4225", f"[it is {age_ms // 1000} s old]")
        if age_ms < -LIFETIME_MS:
            raise api_error("DIS.4217", "[it was issued in the future]")
        max_bytes = self._fetch_bytes(call)
        stream = await self._directory.find(
            call.project, cursor.stream_name, cursor.stream_id, caller=call.caller, action=GET, exact=True
        )
        ref, bounds = await self._locate(stream, cursor.partition, call.project)
        if not bounds.oldest <= cursor.sequence <= bounds.next:
            raise api_error("DIS.4226")
        pace = self._flow.of(stream.doc)
        if pace is not None and not pace.may_get(ref, _now()):
            raise self._throttled(ref)
        batches = [as_columns(batch) for batch in await self._log.read(ref, cursor.sequence, max_bytes)]
        if batches:
            # Again, behind the reading: only what was written under a layout that is in force by then was read.
            stream = await self._directory.find(stream.project, stream.doc.name, stream.doc.stream_id, exact=True)
        count = sum([len(rows) for _, _, rows in batches])
        size = sum([len(rows.data) for _, _, rows in batches])
        following = cursor._replace(sequence=cursor.sequence + count, issued_ms=clock.wall_ms())
        if pace is not None and not pace.get(ref, size, _now()):
            raise self._throttled(ref)
        kind, body = _page(call, batches, encode_cursor(following))
        self._meter.get(ref, count, size, _now() - began, clock.wall_ms())
        return Response(status=200, headers={"content-type": kind, LAYOUTS: str(stream.doc.changes)}, body=body)

    def _throttled(self, ref: PartitionRef) -> ApiError:
        self._meter.get_throttled(ref.stream_id, clock.wall_ms())
        return exceeded()

    def _fetch_bytes(self, call: Call) -> int:
        default = self._config.default_fetch_bytes
        documented = call.number("max_fetch_by_bytes", default=default, low=1)  # the documents' spelling
        return min(call.number("max_fetch_bytes", default=documented, low=1), self._config.max_fetch_bytes)

    async def _locate(self, stream: Stream, number: int, project: str) -> tuple[PartitionRef, Bounds]:
        """Raises ApiError DIS.4302, DIS.4319; DIS.4301 if the stream is being deleted this moment."""
        partition = stream.doc.partition(number)
        if partition is None:
            raise api_error("DIS.4302", f"[{partition_id(number)}]")
        if partition.status == EXPIRED:
            raise api_error("DIS.4319", f"[{partition_id(number)}]")
        ref = PartitionRef(stream.doc.stream_id, number)
        (bounds,) = await self._log.bounds([ref])
        if bounds is None:
            raise stream_not_found(stream.doc.name, project)
        return ref, bounds


def _now() -> float:
    """As `anyio.current_time`, which looks up the library of the loop each time: ten times as much."""
    return asyncio.get_running_loop().time()


Stored = tuple[int, int, Columns]
"""A batch: its first sequence number, when it was appended, its rows, which tell their times if these differ."""


def as_columns(batch: Batch) -> Stored:
    return batch.first_sequence, batch.append_ms, Columns.of(batch.rows, batch.times)


def _page(call: Call, batches: list[Stored], next_cursor: str) -> tuple[str, bytes]:
    """The content type and the body of a page, in the form that the call asks for."""
    if call.media_type == PROTOBUF and not call.relayed:
        return PROTOBUF, encode_page_protobuf(_page_rows(batches), next_cursor)
    if call.columns or call.relayed:
        return COLUMNS, columns_page(batches, next_cursor)
    return JSON, encode_page(_page_rows(batches), next_cursor)


def columns_page(batches: list[Stored], next_cursor: str) -> bytes:
    told = [PageBatch(first, append_ms, rows.stamped, rows.data) for first, append_ms, rows in batches]
    return encode_page_columns(told, next_cursor)


def _page_rows(batches: list[Stored]) -> list[PageRow]:
    return list(chain.from_iterable(starmap(_rows_of, batches)))


def _rows_of(first: int, append_ms: int, columns: Columns) -> Iterator[PageRow]:
    times = columns.stamps(columns.times or repeat(append_ms))
    numbers = counted("", first, first + len(columns))
    return map(PageRow, numbers, columns.payloads, times, repeat("CreateTime"), columns.keys)
