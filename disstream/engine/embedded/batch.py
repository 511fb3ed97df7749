"""How a batch is stored: one key and one value for neighbouring rows of one partition. Pure.

A batch is what one append stored, or what `merge` made of several small ones.

Key, 16 bytes (big endian, so that LMDB's byte order is the order of the log):

    0   8  slot          the partition's number in this directory; a dropped partition's is never used again
    8   8  last          sequence number of the batch's LAST row: the first key >= (slot, n) is the batch that holds n

Value, 32 bytes of header and the rows as columns:

    0   4  crc           CRC-32 of everything from byte 32 on, continued over header bytes 4..31
    4   4  length        how many rows, at least 1; the highest bit is set, and the next one if they are timed
    8   8  first         sequence number of the first row; last = first + length - 1
    16  8  append_ms     when the last row was appended, ms since the epoch; the others as well, unless they are timed
    24  8  weight        payload and key bytes of all rows, so that a reader need not add them up
    32  4  told          how many bytes `columns` has
    36  …  columns       keys, sizes and timestamps in packed form: see ../columns.py
    …   …  payloads      one behind the other

Rows that were appended at different times are *timed*. Their columns are in the stamped form, which a page wants: as
its timestamp each row has the producer's own or, without one, the time of its append. From byte 32 on:

    32  4  told          how many bytes `columns` has
    36  4  kept          how many bytes `times` has
    40  …  columns       keys, sizes and timestamps, stamped
    …   …  times         in msgpack: nil if no row has a timestamp of its own; else an array: of a row with one, when it
                         was appended, ms since the epoch; of any other nil
    …   …  payloads      one behind the other

The CRC ends with the header because the rows are encoded and summed where the append was called, before the commit
thread gives them their numbers.

Example: slot 1, one row (b"hi", key "k", no timestamp) appended as number 5 at 1000 ms:

    key    00000000 00000001  00000000 00000005
    value  93db9461  80000001  00000000 00000005  00000000 000003e8  00000000 00000003
           00000007 93 91 a16b 91 02 c0 6869

The same row merged with the next one, b"!", no key, appended at 1001 ms with the timestamp 7 of its producer:

    key    00000000 00000001  00000000 00000006
    value  28c310e2  c0000002  00000000 00000005  00000000 000003e9  00000000 00000004
           0000000d  00000005  93 92a16bc0 920201 92cd03e807  92c0cd03e9  686921

Before format 3 no rows were timed. Before format 2 the highest bit of the length was not set, and at byte 32 stood the
rows, in msgpack: an array of arrays [data (bin), key (str or nil), timestamp (int or nil)]. All of it is still read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ...errors import ConfigError, StorageError
from ..api import Row
from ..columns import Columns, Data, Unpacked, unpack
from ..rules import weigh

_KEY = struct.Struct(">QQ")
_CRC = struct.Struct(">I")
_FIELDS = struct.Struct(">IQQQ")
_HEADER_BYTES = _CRC.size + _FIELDS.size
_TOLD = struct.Struct(">I")
_COLUMNS_AT = _HEADER_BYTES + _TOLD.size
_TIMED_COLUMNS_AT = _COLUMNS_AT + _TOLD.size
_AS_COLUMNS = 1 << 31
_TIMED = 1 << 30
_LENGTH = _TIMED - 1

_decoder_1 = msgspec.msgpack.Decoder(list[Row])


Buffer = bytes | bytearray | memoryview


class Damaged(Exception):
    """A stored batch is not what was written. The reader turns it into StorageError, knowing whose batch it is."""


class Encoded(NamedTuple):
    """Rows ready to be stored, as soon as they have numbers. `buffer` is the value, its header still empty."""

    length: int
    weight: int
    marks: int
    buffer: bytearray
    rows_crc: int

    def value(self, first: int, append_ms: int) -> bytearray:
        """The value to be stored; call it once."""
        fields = _FIELDS.pack(self.length | self.marks, first, append_ms, self.weight)
        self.buffer[:_HEADER_BYTES] = _CRC.pack(zlib.crc32(fields, self.rows_crc)) + fields
        return self.buffer


class Header(NamedTuple):
    """What a value tells without decoding its rows."""

    length: int
    first: int
    append_ms: int
    weight: int
    timed: bool = False


def encode(rows: Sequence[Row]) -> Encoded:
    """Rows of one append. Raises ConfigError for a key that is not UTF-8 and a timestamp beyond 64 bits."""
    columns = Columns.of(rows)
    weight = weigh(columns)
    try:
        packed = columns.packed
    except OverflowError as exc:
        raise ConfigError(f"a timestamp does not fit into 64 bits ({exc}): give milliseconds since the epoch") from exc
    return _encoded(len(columns), weight, _AS_COLUMNS, packed, b"", columns.data)


def _encoded(length: int, weight: int, marks: int, packed: bytes, kept: bytes, data: Data) -> Encoded:
    buffer = bytearray(_HEADER_BYTES)
    buffer += _TOLD.pack(len(packed))
    if marks & _TIMED:
        buffer += _TOLD.pack(len(kept))
    buffer += packed
    buffer += kept
    buffer += data
    return Encoded(length, weight, marks, buffer, zlib.crc32(memoryview(buffer)[_HEADER_BYTES:]))


def merge(values: Sequence[Buffer]) -> bytearray:
    """One value for the rows of several, of which each begins where the one before ends. Raises Damaged."""
    keys: list[str | None] = []
    sizes: list[int] = []
    timestamps: list[int | None] = []
    times: list[int] = []
    payloads: list[Data] = []
    weight = 0
    own = False
    begin = header(values[0]).first
    for value in values:
        length, first, append_ms, heavy, timed = verify(value)
        if first != begin + len(keys):
            raise Damaged(f"it begins with {first}, and what is before it ends before {begin + len(keys)}")
        if timed or not value[_CRC.size] & 0x80:
            part = rows(value)
            told, payload = (part.keys, part.sizes, part.timestamps), part.data
            times += part.times or [append_ms] * length
        else:  # by far the most: as `rows` does it, at a third of its price
            told, payload = _plain(value, length)
            times += [append_ms] * length
        keys += told[0]
        sizes += told[1]
        own = own or told[2] is not None
        timestamps += told[2] or [None] * length
        payloads.append(payload)
        weight += heavy
    merged = Columns(keys, sizes, timestamps if own else None, b"".join(payloads), times=times)
    if times[0] == times[-1]:
        encoded = _encoded(len(keys), weight, _AS_COLUMNS, merged.packed, b"", merged.data)
    else:
        marks = _AS_COLUMNS | _TIMED
        encoded = _encoded(len(keys), weight, marks, merged.stamped, merged.packed_times, merged.data)
    return encoded.value(begin, times[-1])


def _plain(value: Buffer, length: int) -> tuple[Unpacked, bytes]:
    """The rows of a verified value that is neither timed nor old. Raises Damaged."""
    try:
        (told,) = _TOLD.unpack_from(value, _HEADER_BYTES)
        data = bytes(value[_COLUMNS_AT + told :])
        return unpack(value[_COLUMNS_AT : _COLUMNS_AT + told], length, len(data)), data
    except (struct.error, StorageError) as exc:
        raise Damaged(f"its rows cannot be decoded: {exc}") from exc


def key(slot: int, last: int) -> bytes:
    return _KEY.pack(slot, last)


def parse_key(stored: bytes | memoryview) -> tuple[int, int]:
    """(slot, last)."""
    slot, last = _KEY.unpack(stored)
    return slot, last


def header(value: Buffer) -> Header:
    """The header, unverified: good enough to find a way, not to hand anything out. Raises Damaged."""
    if len(value) < _HEADER_BYTES:
        raise Damaged(f"only {len(value)} bytes are left of it")
    length, first, append_ms, weight = _FIELDS.unpack_from(value, _CRC.size)
    return Header(length & _LENGTH, first, append_ms, weight, length & _TIMED != 0)


def verify(value: Buffer) -> Header:
    """The header, after the checksum proved header and rows. Raises Damaged."""
    found = header(value)
    view = memoryview(value)
    (expected,) = _CRC.unpack_from(value)
    if zlib.crc32(view[_CRC.size : _HEADER_BYTES], zlib.crc32(view[_HEADER_BYTES:])) != expected:
        raise Damaged("its checksum does not match")
    return found


def rows(value: Buffer) -> Columns:
    """The rows of a verified value, looked at. Raises Damaged."""
    found = unopened(value, header(value))
    try:
        found.check()
    except StorageError as exc:
        raise Damaged(str(exc)) from exc
    return found


def unopened(value: Buffer, head: Header) -> Columns:
    """The rows of a verified value with that header, which may be in the old form. Raises Damaged.

    What the checksum vouches for is not looked at: columns that do not fit together raise StorageError when somebody
    does.
    """
    length = head.length
    view = memoryview(value)
    try:
        if not view[_CRC.size] & 0x80:
            found = Columns.of(_decoder_1.decode(view[_HEADER_BYTES:]))
        elif head.timed:
            (told,) = _TOLD.unpack_from(view, _HEADER_BYTES)
            (kept,) = _TOLD.unpack_from(view, _COLUMNS_AT)
            times, data = _TIMED_COLUMNS_AT + told, _TIMED_COLUMNS_AT + told + kept
            packed = bytes(view[_TIMED_COLUMNS_AT:times])
            found = Columns.of_packed(length, packed, bytes(view[data:]), bytes(view[times:data]))
        else:
            (told,) = _TOLD.unpack_from(view, _HEADER_BYTES)
            data = _COLUMNS_AT + told
            found = Columns.of_packed(length, bytes(view[_COLUMNS_AT:data]), bytes(view[data:]))
    except (msgspec.MsgspecError, UnicodeDecodeError, struct.error) as exc:
        raise Damaged(f"its rows cannot be decoded: {exc}") from exc
    if len(found) != length:
        raise Damaged(f"it has {len(found)} rows, its header tells of {length}")
    return found
