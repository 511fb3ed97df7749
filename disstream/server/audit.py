"""Whether the documents of a catalog are what the server wrote, and fit together and to the log. Pure.

    Each document can be decoded. A stream has its document and its id's, and they name each other. The log has every
    partition of every stream, at no older epoch; and none beside them, but of streams that are being dropped.

Keys of kinds that are not known here are passed over: another version may have more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from ..engine import PartitionRef
from .apps import AppDoc
from .documents import DROPPING, STREAM_IDS, STREAMS, StreamDoc, decode_document, decode_layout, id_key, stream_key
from .dumping import decode_task
from .group import GroupDoc
from .meter import read_hour, read_minute
from .progress import CheckpointDoc


def _traffic(value: bytes) -> None:
    for minute in read_hour(value).values():
        read_minute(minute)


def _empty(value: bytes) -> None:
    if value:
        raise ValueError(f"it has {len(value)} bytes, and there should be none")


_DECODERS: dict[str, Callable[[bytes], Any]] = {
    STREAMS: decode_document,
    STREAM_IDS: bytes.decode,
    DROPPING: _empty,
    "app/": msgspec.json.Decoder(AppDoc).decode,
    "checkpoint/": msgspec.json.Decoder(CheckpointDoc).decode,
    "reader/": _empty,
    "group/": msgspec.json.Decoder(GroupDoc).decode,
    "grant/": bytes.decode,
    "layout/": decode_layout,
    "task/": decode_task,
    "traffic/": _traffic,
}


class Problem(NamedTuple):
    """Something that does not fit together."""

    what: str
    stream_id: str | None = None
    partition: int | None = None


class Audit:
    """Takes every document, then what the log has; tells what is wrong."""

    def __init__(self) -> None:
        self._streams: dict[str, StreamDoc] = {}
        self._ids: dict[str, str] = {}
        self._dropping: set[str] = set()

    def document(self, key: str, value: bytes) -> str | None:
        """Look at one. Returns what is wrong with it."""
        kind = key.partition("/")[0] + "/"
        decode = _DECODERS.get(kind)
        if decode is None:
            return None
        try:
            decoded = decode(value)
        except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
            return f"it cannot be decoded: {exc}"
        if kind == STREAMS:
            self._streams[key] = decoded
        elif kind == STREAM_IDS:
            self._ids[key] = decoded
        elif kind == DROPPING:
            self._dropping.add(key.removeprefix(DROPPING))
        return None

    def end(self, epochs: Mapping[PartitionRef, int]) -> Iterator[Problem]:
        """What is wrong with all of it together; `epochs`: the partitions of the log."""
        known: set[str] = set()
        for key, doc in self._streams.items():
            project = key.removeprefix(STREAMS).partition("/")[0]
            known.add(doc.stream_id)
            if key != stream_key(project, doc.name):
                yield Problem(f"document {key!r} is of a stream {doc.name!r}", doc.stream_id)
            if self._ids.get(id_key(project, doc.stream_id) or "") != doc.name:
                yield Problem(f"stream {doc.name!r} cannot be found by its id {doc.stream_id}", doc.stream_id)
            for ref, epoch in doc.refs().items():
                held = epochs.get(ref)
                if held is None:
                    yield Problem(f"stream {doc.name!r} has a partition that the log has not", *ref)
                elif held < epoch:
                    yield Problem(f"the log has epoch {held} of it, stream {doc.name!r} is at {epoch}", *ref)
        for key, name in self._ids.items():
            project, _, stream_id = key.removeprefix(STREAM_IDS).partition("/")
            doc_of = self._streams.get(stream_key(project, name) or "")
            if doc_of is None or doc_of.stream_id != stream_id:
                yield Problem(f"id {stream_id} names stream {name!r}, which is another or none", stream_id)
        for stream_id in sorted({ref.stream_id for ref in epochs} - known - self._dropping):
            yield Problem("the log has partitions of a stream that does not exist", stream_id)
