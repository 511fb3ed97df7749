"""The body of a put as columns: no base64, no object for each record on either side. Pure.

An extension: a server that offers it names `columns` in X-Disstream; a client may then put a body of the content type
`application/x-disstream-columns`. It is msgpack: an array of

    0  stream_name   str or nil, as in the JSON body
    1  stream_id     str or nil
    2  keys          array of str or nil: the partition key of each record
    3  timestamps    array of int or nil, or nil if no record has one
    4  sizes         array of int: the bytes of each payload
    5  data          bin: the payloads, one behind the other

The answer has the form it has to a body in JSON. In a session (sessions.py) a record without a key belongs to the
partition of its lane. Records that name a partition or a hash key do not travel so.

Example: one record b"hi" with the key "k" for the stream "s":

    96 a173 c0 91 a16b c0 91 02 c402 6869
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise, repeat
from typing import Annotated, Any, NamedTuple, overload

import msgspec

from ..model import MAX_HASH_KEY, NewRecord
from .errors import api_error
from .records import plain_text

COLUMNS = "application/x-disstream-columns"
"""The content type."""

EXTENSION = "columns"
"""What X-Disstream names where such bodies are read."""


SHORTEST_RECORD = 2
"""Bytes of a body that a record takes at least: nil for its key, and a size. In the other forms it takes more."""


class SentColumns(NamedTuple):
    """A body as it was decoded: keys, timestamps and sizes are of one length, and the sizes are those of `data`."""

    stream_name: str | None
    stream_id: str | None
    keys: list[str | None]
    timestamps: list[int | None] | None
    sizes: list[int]
    data: memoryview

    def records(self) -> list[NewRecord]:
        """An object for each record, for whoever has to look at one."""
        ends = accumulate(self.sizes, initial=0)
        payloads = [bytes(self.data[begin:end]) for begin, end in pairwise(ends)]
        times = self.timestamps or [None] * len(payloads)
        return [NewRecord(*row) for row in zip(payloads, self.keys, repeat(None), repeat(None), times, strict=False)]


_NONE: dict[int, NewRecord] = {}
"""For all columns without rich records: never written to."""


def is_plain(record: NewRecord) -> bool:
    """Whether it has a payload and a key at most."""
    return (
        record.partition_id is None
        and record.explicit_hash_key is None
        and record.timestamp is None
        and record.headers is None
    )


class NewColumns(Sequence[NewRecord]):
    """Records to be written, as two columns, and whole those few that have more than a payload and a key.

    Taking a record in, counting, encoding and letting go of it cost half of what they do with an object for each.
    """

    __slots__ = ("keys", "payloads", "rich")

    def __init__(
        self,
        payloads: list[bytes] | None = None,
        keys: list[str | None] | None = None,
        rich: dict[int, NewRecord] | None = None,
    ) -> None:
        """`rich`: by their place, the records that have more than stands in the columns, where they stand too."""
        self.payloads = [] if payloads is None else payloads
        self.keys = [] if keys is None else keys
        self.rich = rich or _NONE

    @classmethod
    def of(cls, records: Iterable[NewRecord]) -> NewColumns:
        """These records."""
        found = cls()
        for record in records:
            found.append(record)
        return found

    def append(self, record: NewRecord) -> None:
        """The record may be changed by its owner afterwards, unless it has more than a payload and a key."""
        if not is_plain(record):
            if self.rich is _NONE:
                self.rich = {}
            self.rich[len(self.payloads)] = record
        self.payloads.append(record.data)
        self.keys.append(record.key)

    def extend(self, other: NewColumns) -> None:
        if other.rich:
            count = len(self.payloads)
            self.rich = {**self.rich, **{count + index: record for index, record in other.rich.items()}}
        self.payloads += other.payloads
        self.keys += other.keys

    def pick(self, indices: Sequence[int]) -> NewColumns:
        """Those, in that order."""
        rich = {place: self.rich[i] for place, i in enumerate(indices) if i in self.rich} if self.rich else None
        return NewColumns([self.payloads[i] for i in indices], [self.keys[i] for i in indices], rich)

    def __len__(self) -> int:
        return len(self.payloads)

    @overload
    def __getitem__(self, index: int) -> NewRecord: ...

    @overload
    def __getitem__(self, index: slice) -> NewColumns: ...

    def __getitem__(self, index: int | slice) -> NewRecord | NewColumns:
        if isinstance(index, slice):
            if self.rich:
                return self.pick(range(*index.indices(len(self))))
            return NewColumns(self.payloads[index], self.keys[index])
        if self.rich and (record := self.rich.get(range(len(self))[index])) is not None:
            return record
        return NewRecord(self.payloads[index], self.keys[index])

    def __iter__(self) -> Iterator[NewRecord]:
        if self.rich:
            return map(self.__getitem__, range(len(self)))
        return map(NewRecord, self.payloads, self.keys)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __repr__(self) -> str:
        return f"NewColumns({list(self)!r})"


_encoder = msgspec.msgpack.Encoder(enc_hook=plain_text)


def encode_columns(stream_name: str, records: Sequence[NewRecord], stream_id: str | None = None) -> bytes | None:
    """None: some record names a partition or a hash key, or bears headers, which this form has no place for.

    Raises UnicodeEncodeError (a key with a lone surrogate), OverflowError (a timestamp), TypeError.
    """
    timestamps: list[int | None] | None = None
    if isinstance(records, NewColumns) and not records.rich:
        keys, payloads = records.keys, records.payloads
    elif any(record.partition_id or record.explicit_hash_key or record.headers for record in records):
        return None
    else:
        keys, payloads = [record.key for record in records], [record.data for record in records]
        if any(record.timestamp is not None for record in records):
            timestamps = [record.timestamp for record in records]
    sizes = list(map(len, payloads))
    return _encoder.encode((stream_name, stream_id, keys, timestamps, sizes, b"".join(payloads)))


def decode_columns(body: bytes, most: int) -> SentColumns:
    """Raises ApiError: DIS.4300 (no msgpack), DIS.4200 (not of this form, columns of different lengths, too many)."""
    try:
        sent = SentColumns(*_decoder(most).decode(body))
    except msgspec.ValidationError as exc:
        raise api_error("DIS.4200", f"[the body is not of {COLUMNS} with at most {most} records: {exc}]") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise api_error("DIS.4300", f"[the body is not msgpack: {exc}]") from exc
    counts = {len(sent.keys), len(sent.sizes), len(sent.sizes if sent.timestamps is None else sent.timestamps)}
    if len(counts) > 1:
        raise api_error("DIS.4200", f"[the columns have different lengths: {sorted(counts)}]")
    if sum(sent.sizes) != len(sent.data):
        raise api_error("DIS.4200", f"[the sizes are {sum(sent.sizes)} bytes together, data has {len(sent.data)}]")
    return sent


@functools.lru_cache(maxsize=16)
def _decoder(most: int) -> msgspec.msgpack.Decoder[Any]:
    # The length of an array is looked at before it is made: each element takes one byte here, and sixteen there.
    few = msgspec.Meta(max_length=most)
    keys: Any = Annotated[list[str | None], few]
    timestamps: Any = Annotated[list[Annotated[int, msgspec.Meta(ge=0, le=MAX_HASH_KEY)] | None], few] | None
    sizes: Any = Annotated[list[Annotated[int, msgspec.Meta(ge=0)]], few]
    return msgspec.msgpack.Decoder(tuple[str | None, str | None, keys, timestamps, sizes, memoryview])
