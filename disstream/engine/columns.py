"""Rows as columns: all payloads in one piece, all keys in one list. Pure.

A put and a page hold a thousand rows of which nobody looks at one: what is asked is how large they are together and
where their keys belong. As columns they travel, are placed and are stored without an object for each. Whoever does look
gets a `Row`, made for him.

Keys, sizes and timestamps have one *packed* form, in which they are stored and sent to readers: msgpack, an array
[keys, sizes, timestamps]: an array of str or nil, an array of the payloads' bytes, and an array of int or nil, or nil
if no row has one. What was stored so is unpacked when somebody asks for it, and sent on as it is.

Rows that were appended at different times can be columns too. They tell their `times`, and have a second packed form,
*stamped*: in its timestamps stands the time of the append where the producer gave none, which is what readers get.
Beside it only the append times of the other rows are needed; see `pack_times`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from itertools import repeat
from operator import itemgetter
from typing import Annotated, TypeVar, cast, overload

import msgspec

from ..errors import StorageError
from .api import Row

T = TypeVar("T")

Data = bytes | memoryview

_encoder = msgspec.msgpack.Encoder()
_Size = Annotated[int, msgspec.Meta(ge=0)]
_decoder = msgspec.msgpack.Decoder(tuple[list[str | None], list[_Size], list[int | None] | None])
_times_decoder = msgspec.msgpack.Decoder(list[int | None] | None)


def _at(column: list[T], indices: Sequence[int]) -> list[T]:
    return list(itemgetter(*indices)(column)) if len(indices) > 1 else [column[index] for index in indices]


class Columns(Sequence[Row]):
    """Rows that can be cut and shortened, each cut a copy of all but the payloads; equal to any list of equal rows."""

    __slots__ = (
        "_count",
        "_data",
        "_key_bytes",
        "_keys",
        "_packed",
        "_packed_times",
        "_payloads",
        "_sizes",
        "_times",
        "_timestamps",
    )

    def __init__(
        self,
        keys: list[str | None],
        sizes: list[int],
        timestamps: list[int | None] | None = None,
        data: Data | None = None,
        payloads: list[bytes] | None = None,
        times: list[int] | None = None,
    ) -> None:
        """Give all payloads joined, as `data`, or one by one: the other form is made when it is asked for.

        `times`: when each row was appended, if that differs.
        """
        assert len(keys) == len(sizes)
        assert timestamps is None or len(timestamps) == len(sizes)
        assert times is None or len(times) == len(sizes)
        self._count = len(keys)
        self._keys = keys
        self._sizes = sizes
        self._timestamps = timestamps
        self._data = data
        self._payloads = payloads
        self._times = times
        self._key_bytes: int | None = None
        # As they came: `_packed` is stamped if there are `_packed_times`.
        self._packed: bytes | None = None
        self._packed_times: bytes | None = None

    @classmethod
    def of_packed(cls, count: int, packed: bytes, data: bytes, times: bytes | None = None) -> Columns:
        """So many rows in packed form, which is believed until somebody looks at them (`check`).

        With `times`, of `pack_times`, `packed` is the stamped form.
        """
        columns = cls([], [], None, data)
        columns._count = count
        columns._packed = packed
        columns._packed_times = times
        return columns

    @classmethod
    def of(cls, rows: Sequence[Row], times: Sequence[int] | None = None) -> Columns:
        """These rows, appended at these times if they differ; themselves, if they are columns that tell the same."""
        if not isinstance(rows, Columns):
            payloads = [row.data for row in rows]
            timestamps = [row.timestamp for row in rows]
            told = timestamps if any([timestamp is not None for timestamp in timestamps]) else None
            keys = [row.key for row in rows]
            return cls(keys, list(map(len, payloads)), told, None, payloads, None if times is None else list(times))
        if times is None or (isinstance(times, Times) and times.columns is rows):
            return rows
        timed = rows[:]
        timed._times = list(times)
        return timed

    def check(self) -> None:
        """Unpack. Raises StorageError if they are not so many rows with these payloads, as does all that looks at them.

        Then nothing is changed, and the next one is told the same.
        """
        if self._packed is None or len(self._keys) == self._count:
            return
        keys, sizes, timestamps = unpack(self._packed, self._count, len(self._data or b""))
        times = None
        if self._packed_times is not None:
            timestamps, times = _unstamp(timestamps, self._packed_times)
        self._keys, self._sizes, self._timestamps, self._times = keys, sizes, timestamps, times

    @property
    def keys(self) -> list[str | None]:
        """The key of each row."""
        self.check()
        return self._keys

    @property
    def sizes(self) -> list[int]:
        """The bytes of each payload."""
        self.check()
        return self._sizes

    @property
    def timestamps(self) -> list[int | None] | None:
        """The timestamp of each row; None if no row has one."""
        self.check()
        return self._timestamps

    @property
    def times(self) -> list[int] | None:
        """When each row was appended; None: all at one time, which is told elsewhere."""
        self.check()
        return self._times

    @property
    def timed(self) -> bool:
        """Whether there are `times`, without looking at them."""
        return self._times is not None or self._packed_times is not None

    @property
    def packed(self) -> bytes:
        """All but the payloads and the times, as the docstring of the module draws it.

        Raises UnicodeEncodeError (a key with a lone surrogate), OverflowError (a timestamp beyond 64 bits).
        """
        if self._packed is None or self._packed_times is not None:
            return _encoder.encode((self.keys, self.sizes, self.timestamps))
        return self._packed

    @property
    def stamped(self) -> bytes:
        """The same with the time of the append where a row has no timestamp, if there are times. Raises likewise."""
        if not self.timed:
            return self.packed
        if self._packed is not None and self._packed_times is not None:
            return self._packed
        return _encoder.encode((self.keys, self.sizes, self.stamps(self.times or ())))

    def stamps(self, times: Iterable[int]) -> Iterable[int]:
        """The timestamp of each row, for rows that were appended at these times: what readers get."""
        if self.timestamps is None:
            return times
        return [time if own is None else own for own, time in zip(self.timestamps, times, strict=False)]

    @property
    def packed_times(self) -> bytes:
        """What `stamped` does not tell of rows that have times: see `pack_times`."""
        if self._packed_times is None:
            return pack_times(self.timestamps, self.times or [])
        return self._packed_times

    @property
    def key_bytes(self) -> int:
        """Of all keys together, as UTF-8. Raises UnicodeEncodeError for a lone surrogate."""
        if self._key_bytes is None:
            try:
                keys = "".join(cast("list[str]", self.keys))
            except TypeError:  # some row has none
                keys = "".join(filter(None, self.keys))
            self._key_bytes = len(keys) if keys.isascii() else len(keys.encode())
        return self._key_bytes

    @property
    def payload_bytes(self) -> int:
        """Of all payloads together."""
        return sum(self.sizes) if self._data is None else len(self._data)

    @property
    def data(self) -> Data:
        """All payloads, one behind the other."""
        if self._data is None:
            self._data = b"".join(self._payloads or ())
        return self._data

    @property
    def payloads(self) -> list[bytes]:
        """Each payload."""
        if self._payloads is None:
            data = bytes(self._data or b"")
            self._payloads = list(map(BytesIO(data).read, self.sizes))
        return self._payloads

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> Columns: ...

    def __getitem__(self, index: int | slice) -> Row | Columns:
        if isinstance(index, slice):
            return self._cut(*index.indices(len(self)))
        return Row(self.payloads[index], self.keys[index], None if self.timestamps is None else self.timestamps[index])

    def _cut(self, begin: int, end: int, step: int) -> Columns:
        if step != 1:
            raise ValueError(f"columns cannot be cut in steps of {step}")
        sizes = self.sizes[begin:end]
        timestamps = None if self.timestamps is None else self.timestamps[begin:end]
        data: Data | None = None
        if self._payloads is None and len(sizes) == self._count:
            data = self._data
        elif self._payloads is None:
            at = sum(self.sizes[:begin])
            data = memoryview(self._data or b"")[at : at + sum(sizes)]
        payloads = None if self._payloads is None else self._payloads[begin:end]
        times = None if self.times is None else self.times[begin:end]
        return Columns(self.keys[begin:end], sizes, timestamps, data, payloads, times)

    def pick(self, indices: Sequence[int]) -> Columns:
        """The rows at these places, in that order. Costs a third of rows that are made and taken apart again."""
        timestamps = None if self.timestamps is None else _at(self.timestamps, indices)
        times = None if self.times is None else _at(self.times, indices)
        keys, sizes, payloads = (_at(self.keys, indices), _at(self.sizes, indices), _at(self.payloads, indices))
        return Columns(keys, sizes, timestamps, None, payloads, times)

    def __iter__(self) -> Iterator[Row]:
        return map(Row, self.payloads, self.keys, self.timestamps or repeat(None))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __repr__(self) -> str:
        return f"Columns({list(self)!r})"

    def pop(self) -> None:
        """Leave out the last row."""
        self.check()
        self._packed = self._packed_times = self._key_bytes = None
        self._count -= 1
        self._keys.pop()
        size = self._sizes.pop()
        if self._timestamps is not None:
            self._timestamps.pop()
        if self._times is not None:
            self._times.pop()
        if self._payloads is not None:
            self._payloads.pop()
            self._data = None
        elif self._data is not None:
            self._data = memoryview(self._data)[: len(self._data) - size]


class Times(Sequence[int]):
    """When each row of columns that have times was appended, unpacked when somebody asks for it."""

    __slots__ = ("columns",)

    def __init__(self, columns: Columns) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns)

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> list[int]: ...

    def __getitem__(self, index: int | slice) -> int | list[int]:
        return (self.columns.times or [])[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __repr__(self) -> str:
        return repr(list(self))


Unpacked = tuple[list[str | None], list[int], list[int | None] | None]
"""Keys, sizes and timestamps."""


def unpack(packed: bytes | bytearray | memoryview, count: int, size: int) -> Unpacked:
    """Out of the packed form of so many rows, whose payloads have `size` bytes together. Raises StorageError."""
    try:
        keys, sizes, timestamps = _decoder.decode(packed)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise StorageError(f"its rows cannot be decoded: {exc}") from exc
    if len(keys) != len(sizes) or (timestamps is not None and len(timestamps) != len(sizes)):
        raise StorageError("its columns are of different lengths")
    if len(sizes) != count:
        raise StorageError(f"it has {len(sizes)} rows, its header tells of {count}")
    if sum(sizes) != size:
        raise StorageError(f"its payloads have {size} bytes, not the {sum(sizes)} that it tells")
    return keys, sizes, timestamps


def pack_times(timestamps: Sequence[int | None] | None, times: Sequence[int]) -> bytes:
    """What the stamped form does not tell, in msgpack.

    An array with the append time of each row that has a timestamp, and nil for the others, whose append time stands in
    the stamped form; nil if no row has a timestamp.
    """
    if timestamps is None:
        return _encoder.encode(None)
    return _encoder.encode([None if own is None else time for own, time in zip(timestamps, times, strict=True)])


def _unstamp(stamps: list[int | None] | None, packed_times: bytes) -> tuple[list[int | None] | None, list[int]]:
    """(timestamps, times) out of the stamped form and of what `pack_times` kept. Raises StorageError."""
    try:
        kept = _times_decoder.decode(packed_times)
    except msgspec.MsgspecError as exc:
        raise StorageError(f"its times cannot be decoded: {exc}") from exc
    if stamps is None or (kept is not None and len(kept) != len(stamps)):
        raise StorageError("it has not as many times as rows")
    told = [stamp for stamp in stamps if stamp is not None]
    if len(told) != len(stamps):
        raise StorageError("a row has neither a timestamp nor a time")
    if kept is None:
        return None, told
    times = [stamp if time is None else time for stamp, time in zip(told, kept, strict=True)]
    return [None if time is None else stamp for stamp, time in zip(told, kept, strict=True)], times


def sizes_of(rows: Sequence[Row]) -> list[int]:
    """The bytes of each payload."""
    return rows.sizes if isinstance(rows, Columns) else [len(row.data) for row in rows]
