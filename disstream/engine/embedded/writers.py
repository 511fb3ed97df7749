"""What a partition remembers of its producers, as it is stored: one key and one value for each of both.

Key, 24 bytes:

    0   8  slot          the partition's, as in batch.py
    8  16  producer      the bytes its 32 hex digits stand for

Value, msgpack: an array [epoch, next, request, seen_ms, spans] of a WriterState; spans is an array of arrays
[number, end, first]. Written in the transaction that stores the rows.

Example: slot 1; producer 00…02 stored its numbers 0 to 4 of epoch 0 as 10 to 14, by its request 7, at 1000 ms:

    key    00000000 00000001  00000000 00000000 00000000 00000002
    value  95 00 05 07 cd03e8 91 93 00 05 0a
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import lmdb
import msgspec

from ...errors import StorageError
from ..rules import MAX_WRITERS, WRITERS_SLACK
from ..writers import WriterState, overdue

_SLOT = struct.Struct(">Q")
_KEY_BYTES = _SLOT.size + 16

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(WriterState)


class Writers:
    """The table `writers`. What writes belongs to the commit thread."""

    def __init__(self, env: lmdb.Environment) -> None:
        self.db = env.open_db(b"writers")
        # Slot -> how many producers it has at most, for those that got a new one. Whoever fails to store leaves it too
        # high: then they are counted too early.
        self._counts: dict[int, int] = {}

    def get(self, txn: lmdb.Transaction[Any], slot: int, producer: str) -> WriterState | None:
        """Raises StorageError if what is stored is damaged."""
        value = txn.get(_key(slot, producer), db=self.db)
        return None if value is None else _decode(slot, producer, value)

    def put(self, txn: lmdb.Transaction[Any], slot: int, producer: str, state: WriterState, *, new: bool) -> None:
        """Keep it. If it is `new`, those that were quiet longest may have to go."""
        if new:
            self._make_room(txn, slot)
        txn.put(_key(slot, producer), _encoder.encode(state), db=self.db)

    def _make_room(self, txn: lmdb.Transaction[Any], slot: int) -> None:
        count = self._counts.get(slot)
        if count is None:
            count = sum(1 for _ in self._of(txn, slot))
        if count >= MAX_WRITERS + WRITERS_SLACK:
            seen = [(producer, _seen_ms(slot, producer, cursor.value())) for producer, cursor in self._of(txn, slot)]
            gone = overdue(seen)
            for producer in gone:
                txn.delete(_key(slot, producer), db=self.db)
            count = len(seen) - len(gone)
        self._counts[slot] = count + 1

    def drop(self, txn: lmdb.Transaction[Any], slot: int) -> None:
        """Forget all of a partition. There are so few that they need no pieces."""
        self._counts.pop(slot, None)
        for producer in [producer for producer, _ in self._of(txn, slot)]:
            txn.delete(_key(slot, producer), db=self.db)

    def _of(self, txn: lmdb.Transaction[Any], slot: int) -> Iterator[tuple[str, lmdb.Cursor[Any]]]:
        prefix = _SLOT.pack(slot)
        with txn.cursor(db=self.db) as cursor:
            more = cursor.set_range(prefix)
            while more and bytes(cursor.key()[: len(prefix)]) == prefix:
                yield bytes(cursor.key()[len(prefix) :]).hex(), cursor
                more = cursor.next()


def _key(slot: int, producer: str) -> bytes:
    return _SLOT.pack(slot) + bytes.fromhex(producer)


def parse_writer(stored: bytes | memoryview, value: bytes | memoryview) -> tuple[int, str, WriterState]:
    """Slot, producer and what is remembered, of a stored key and value. Raises StorageError if they are damaged."""
    if len(stored) != _KEY_BYTES:
        raise StorageError(f"a producer has the key {bytes(stored).hex()}, which is none: restore a copy")
    (slot,) = _SLOT.unpack_from(stored)
    producer = bytes(stored[_SLOT.size :]).hex()
    return slot, producer, _decode(slot, producer, value)


def _seen_ms(slot: int, producer: str, value: bytes | memoryview) -> int:
    """When it stored last. A damaged one is of use to nobody, and goes first."""
    try:
        return _decode(slot, producer, value).seen_ms
    except StorageError:
        return -1


def _decode(slot: int, producer: str, value: bytes | memoryview) -> WriterState:
    try:
        return _decoder.decode(value)
    except msgspec.MsgspecError as exc:
        raise StorageError(
            f"what is stored of producer {producer} in slot {slot} is damaged ({exc}): restore a copy of the data "
            "directory, or let the producer start anew"
        ) from exc
