"""Where a partition stands, and the record of it in the table `partitions`.

    key     stream id length (2 bytes), stream id, partition number (4 bytes)
    value   PartitionState without `unrecorded`, 6 x 8 bytes; without `held` in records of earlier versions

A record is written when the partition is opened, trimmed and swept, and by every UNRECORDED_BATCHES-th append only:
what `next`, `last_ms` and `held` have become since then is told by the batches behind it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import lmdb

from ...errors import StorageError
from ..api import PartitionRef
from ..rules import weigh
from . import batch

UNRECORDED_BATCHES = 4
"""How many batches a partition's record may be behind. Each of them is a page to be read when the directory is opened,
on a disk that may be slow; a record costs an append 1.5 us and the commit a page."""

_STATE = struct.Struct(">QQQQQQ")
_STATE_BEFORE_HELD = struct.Struct(">QQQQQ")
_REF_HEAD = struct.Struct(">H")
_REF_TAIL = struct.Struct(">I")

STATE_BYTES = _STATE.size
"""Of a record that tells what the batches weigh."""


class PartitionState(NamedTuple):
    """Where a partition stands. `last_ms`: the time of the latest append, below which no later one is stamped.

    `held`: payload and key bytes of all stored batches, those included that are forgotten and not swept yet.
    `unrecorded`: how many batches are younger than the partition's record; this alone is not stored.
    """

    slot: int
    epoch: int
    oldest: int = 0
    next: int = 0
    last_ms: int = 0
    held: int = 0
    unrecorded: int = 0


def stream_prefix(stream_id: str) -> bytes:
    """How the keys of a stream's partitions begin. With its length: no id is the beginning of another."""
    encoded = stream_id.encode("utf-8", "surrogatepass")
    return _REF_HEAD.pack(len(encoded)) + encoded


def key(ref: PartitionRef) -> bytes:
    return stream_prefix(ref.stream_id) + _REF_TAIL.pack(ref.number)


def parse_number(stored: bytes | memoryview) -> int:
    """The partition's number, of a key."""
    number: int = _REF_TAIL.unpack(stored[-_REF_TAIL.size :])[0]
    return number


def parse_ref(stored: bytes | memoryview) -> PartitionRef:
    """The partition that a key names. If none: UnicodeDecodeError or struct.error."""
    (length,) = _REF_HEAD.unpack_from(stored)
    end = len(stored) - _REF_TAIL.size
    if _REF_HEAD.size + length != end:
        raise struct.error(f"it tells of a stream id of {length} bytes and has {len(stored)} bytes in all")
    return PartitionRef(str(stored[_REF_HEAD.size : end], "utf-8"), *_REF_TAIL.unpack(stored[end:]))


def record(state: PartitionState) -> bytes:
    return _STATE.pack(*state[:-1])


def parse_state(stored: bytes | memoryview) -> PartitionState:
    """A record. Raises struct.error if it is none."""
    form = _STATE_BEFORE_HELD if len(stored) == _STATE_BEFORE_HELD.size else _STATE
    return PartitionState(*form.unpack(stored))


def current(
    cursor: lmdb.Cursor[Any], ref: PartitionRef, stored: bytes | memoryview, looked: Callable[[], None] | None = None
) -> PartitionState:
    """The record brought up to date by the batches behind it. If it does not tell `held`, all of them are looked at.

    `looked` is called behind each.
    """
    state = parse_state(stored)
    counted = state.next if len(stored) == STATE_BYTES else 0
    more = cursor.set_range(batch.key(state.slot, counted))
    while more:
        slot, last = batch.parse_key(cursor.key())
        if slot != state.slot:
            break
        try:
            head = batch.header(cursor.value())
            weight = head.weight
            if head.first < counted:  # merged since, with batches that are counted
                weight = weigh(batch.rows(cursor.value())[counted - head.first :])
        except batch.Damaged as exc:
            raise StorageError(f"the last batch of {ref} is damaged: {exc}; restore a copy of the directory") from exc
        state = state._replace(
            next=max(state.next, last + 1),
            last_ms=max(state.last_ms, head.append_ms),
            held=state.held + weight,
            unrecorded=state.unrecorded + 1,
        )
        more = cursor.next()
        if looked is not None:
            looked()
    return state
