"""Rows as columns: all payloads in one piece, all keys in one list. Pure.

A put and a page hold a thousand rows of which nobody looks at one: what is asked is how large they are together and
where their keys belong. As columns they travel, are placed and are stored without an object for each. Whoever does look
gets a `Row`, made for him.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise, repeat, starmap
from typing import overload

from .api import Row

Data = bytes | memoryview


class Columns(Sequence[Row]):
    """Rows that can be cut and shortened, each cut a copy of all but the payloads; equal to any list of equal rows.

    `sizes`: the bytes of each payload. `timestamps` is None if no row has one.
    """

    __slots__ = ("_data", "_payloads", "keys", "sizes", "timestamps")

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
        self.keys = keys
        self.sizes = sizes
        self.timestamps = timestamps
        self._data = data
        self._payloads = payloads

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Columns:
        """These rows; themselves, if they are columns."""
        if isinstance(rows, Columns):
            return rows
        payloads = [row.data for row in rows]
        timestamps = [row.timestamp for row in rows]
        told = timestamps if any([timestamp is not None for timestamp in timestamps]) else None
        return cls([row.key for row in rows], list(map(len, payloads)), told, payloads=payloads)

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
            ends = accumulate(self.sizes, initial=0)
            self._payloads = list(map(data.__getitem__, starmap(slice, pairwise(ends))))
        return self._payloads

    def __len__(self) -> int:
        return len(self.sizes)

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
        self.keys.pop()
        size = self.sizes.pop()
        if self.timestamps is not None:
            self.timestamps.pop()
        if self._payloads is not None:
            self._payloads.pop()
            self._data = None
        elif self._data is not None:
            self._data = memoryview(self._data)[: len(self._data) - size]


def sizes_of(rows: Sequence[Row]) -> list[int]:
    """The bytes of each payload."""
    return rows.sizes if isinstance(rows, Columns) else [len(row.data) for row in rows]
