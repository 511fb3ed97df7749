"""Rows as columns: all payloads in one piece, all keys in one list. Pure.

A put and a page hold a thousand rows of which nobody looks at one: what is asked is how large they are together and
where their keys belong. As columns they travel, are placed and are stored without an object for each. Whoever does look
gets a `Row`, made for him.

Keys, sizes and timestamps have one *packed* form, in which they are stored and sent to readers: msgpack, an array
[keys, sizes, timestamps]: an array of str or nil, an array of the payloads' bytes, and an array of int or nil, or nil
if no row has one. What was stored so is unpacked when somebody asks for it, and sent on as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import repeat
from typing import Annotated, overload

import msgspec

from ..errors import StorageError
from .api import Row

Data = bytes | memoryview

_encoder = msgspec.msgpack.Encoder()
_Size = Annotated[int, msgspec.Meta(ge=0)]
_decoder = msgspec.msgpack.Decoder(tuple[list[str | None], list[_Size], list[int | None] | None])


class Columns(Sequence[Row]):
    """Rows that can be cut and shortened, each cut a copy of all but the payloads; equal to any list of equal rows."""

    __slots__ = ("_count", "_data", "_keys", "_packed", "_payloads", "_sizes", "_timestamps")

    def __init__(
        self,
        keys: list[str | None],
        sizes: list[int],
        timestamps: list[int | None] | None = None,
        data: Data | None = None,
        payloads: list[bytes] | None = None,
    ) -> None:
        """Give all payloads joined, as `data`, or one by one: the other form is made when it is asked for."""
        assert len(keys) == len(sizes)
        assert timestamps is None or len(timestamps) == len(sizes)
        self._count = len(keys)
        self._keys = keys
        self._sizes = sizes
        self._timestamps = timestamps
        self._data = data
        self._payloads = payloads
        self._packed: bytes | None = None

    @classmethod
    def of_packed(cls, count: int, packed: bytes, data: bytes) -> Columns:
        """So many rows in packed form, which is believed until somebody looks at them (`check`)."""
        columns = cls([], [], None, data)
        columns._count = count
        columns._packed = packed
        return columns

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Columns:
        """These rows; themselves, if they are columns."""
        if isinstance(rows, Columns):
            return rows
        payloads = [row.data for row in rows]
        timestamps = [row.timestamp for row in rows]
        told = timestamps if any([timestamp is not None for timestamp in timestamps]) else None
        return cls([row.key for row in rows], list(map(len, payloads)), told, payloads=payloads)

    def check(self) -> None:
        """Unpack. Raises StorageError if they are not so many rows with these payloads, as does all that looks at them.

        Then nothing is changed, and the next one is told the same.
        """
        if self._packed is None or len(self._keys) == self._count:
            return
        try:
            keys, sizes, timestamps = _decoder.decode(self._packed)
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise StorageError(f"its rows cannot be decoded: {exc}") from exc
        if len(keys) != len(sizes) or (timestamps is not None and len(timestamps) != len(sizes)):
            raise StorageError("its columns are of different lengths")
        if len(sizes) != self._count:
            raise StorageError(f"it has {len(sizes)} rows, its header tells of {self._count}")
        if sum(sizes) != len(self._data or b""):
            raise StorageError(f"its payloads have {len(self._data or b'')} bytes, not the {sum(sizes)} that it tells")
        self._keys, self._sizes, self._timestamps = keys, sizes, timestamps

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
    def packed(self) -> bytes:
        """All but the payloads, as the docstring of the module draws it.

        Raises UnicodeEncodeError (a key with a lone surrogate), OverflowError (a timestamp beyond 64 bits).
        """
        if self._packed is None:
            return _encoder.encode((self._keys, self._sizes, self._timestamps))
        return self._packed

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
        data = None
        if self._payloads is None:
            at = sum(self.sizes[:begin])
            data = memoryview(self._data or b"")[at : at + sum(sizes)]
        payloads = None if self._payloads is None else self._payloads[begin:end]
        return Columns(self.keys[begin:end], sizes, timestamps, data, payloads)

    def __iter__(self) -> Iterator[Row]:
        return map(Row, self.payloads, self.keys, self.timestamps or repeat(None))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __repr__(self) -> str:
        return f"Columns({list(self)!r})"

    def pop(self) -> None:
        """Leave out the last row."""
        self.check()
        self._packed = None
        self._count -= 1
        self._keys.pop()
        size = self._sizes.pop()
        if self._timestamps is not None:
            self._timestamps.pop()
        if self._payloads is not None:
            self._payloads.pop()
            self._data = None
        elif self._data is not None:
            self._data = memoryview(self._data)[: len(self._data) - size]


def sizes_of(rows: Sequence[Row]) -> list[int]:
    """The bytes of each payload."""
    return rows.sizes if isinstance(rows, Columns) else [len(row.data) for row in rows]
