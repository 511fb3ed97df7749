"""Pages that go with notices (wire/notices.py): read, checked and counted as the GET would be that they save.

A page is pushed if it holds all that is new, is small, and may be read by this caller at this moment. In all other
cases nothing is lost by telling the end alone: the reader asks, and is answered or refused.

    many at once      a partition that grew by more than a page holds is read by GET for QUIET_S: where a reader stands
                      that goes on by itself is not known, and its pages are the larger ones
    limited reading   nothing is pushed of streams whose reading is limited: what goes out is what was asked for
    slow clients      what is not taken yet is bounded, over all answers; beyond it only ends are told
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from .. import clock
from ..engine import Engine, PartitionRef
from ..errors import ApiError, StorageError
from ..lifecycle import loop_time
from ..wire.cursors import CursorState, encode_cursor
from ..wire.notices import MAX_PUSH_RECORDS, Pushed
from .call import Call
from .config import ServerConfig
from .directory import Directory
from .documents import StreamDoc
from .flow import Flow
from .meter import Meter
from .records import GET, Stored, as_columns, columns_page
from .reshape import EXPIRED

QUIET_S = 0.1
"""A reader that was told of more than a page comes to the end within it, unless there is more and more: then the
pages of a GET serve it better."""

MAX_FRAME_PAGES = 32
"""Pushed at once: two milliseconds of work, and 2 MiB."""


class Told(NamedTuple):
    """A partition that has grown to `end` behind `known`, which was told last."""

    place: int
    doc: StreamDoc
    ref: PartitionRef
    known: int
    end: int


class _Found(NamedTuple):
    told: Told
    stored: list[Stored]
    records: int


class Pushing:
    def __init__(self, engine: Engine, directory: Directory, config: ServerConfig, flow: Flow, meter: Meter) -> None:
        self._log = engine.log
        self._directory = directory
        self._flow = flow
        self._meter = meter
        self._most = config.max_buffered_bytes // 8
        self.held_bytes = 0
        """Of pages that were pushed and not taken yet."""

    def may_push(self, doc: StreamDoc) -> bool:
        """Whether reading of the stream is not limited."""
        return self._flow.of(doc) is None

    @contextmanager
    def held(self, size: int) -> Iterator[None]:
        """So many bytes wait for a client inside the block."""
        self.held_bytes += size
        try:
            yield
        finally:
            self.held_bytes -= size

    async def pages(self, call: Call, wanted: list[Told], push_bytes: int) -> tuple[list[Pushed], list[Told]]:
        """The pages that may be pushed, and of which partitions there is more than a page holds. The others: neither.

        Raises StorageError.
        """
        began = loop_time()
        found: list[_Found] = []
        large: list[Told] = []
        room = self._most - self.held_bytes
        for told in wanted[:MAX_FRAME_PAGES]:
            if room < push_bytes:
                break
            one = await self._read(told, push_bytes)
            if one is None:
                large.append(told)
            elif one.stored:
                found.append(one)
                room -= push_bytes
        # Behind the reading, as a GET looks it up: what was read was written under a layout in force by then. And
        # whoever may not read any more is told so by the GET to which the end alone leads.
        docs = await self._docs(call, found)
        pages = [self._page(one, docs[one.told.ref.stream_id], began) for one in found]
        return [page for page in pages if page is not None], large

    async def _read(self, told: Told, push_bytes: int) -> _Found | None:
        """None: there is more than a page holds. Empty: it cannot be read, which a GET tells better."""
        if told.end - told.known > MAX_PUSH_RECORDS:
            return None
        try:
            stored = [as_columns(batch) for batch in await self._log.read(told.ref, told.known, push_bytes)]
        except StorageError:
            return _Found(told, [], 0)
        records = sum([len(rows) for _, _, rows in stored])
        if not told.end - told.known <= records <= MAX_PUSH_RECORDS:
            return None
        return _Found(told, stored, records)

    async def _docs(self, call: Call, found: list[_Found]) -> dict[str, StreamDoc | None]:
        """By id; None: not to be had."""
        docs: dict[str, StreamDoc | None] = {}
        for doc in {one.told.ref.stream_id: one.told.doc for one in found}.values():
            try:
                stream = await self._directory.find(
                    call.project, doc.name, doc.stream_id, caller=call.caller, action=GET, exact=True
                )
            except ApiError:
                docs[doc.stream_id] = None
            else:
                docs[doc.stream_id] = stream.doc
        return docs

    def _page(self, one: _Found, doc: StreamDoc | None, began: float) -> Pushed | None:
        told, stored, records = one
        if doc is None or not self.may_push(doc):
            return None
        partition = doc.partition(told.ref.number)
        if partition is None or partition.status == EXPIRED:
            return None
        now_ms = clock.wall_ms()
        following = CursorState(doc.name, doc.stream_id, told.ref.number, told.known + records, now_ms)
        body = columns_page(stored, encode_cursor(following))
        size = sum([len(rows.data) for _, _, rows in stored])
        self._meter.get(told.ref, records, size, loop_time() - began, now_ms)
        return Pushed(told.place, told.known, records, doc.changes, body)
