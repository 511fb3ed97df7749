"""The answer to a get as columns: no base64, and no object for a record at which nobody looks, on either side. Pure.

An extension: a server that offers it names `pages` in X-Disstream; a client then asks for it with the header

    Accept: application/x-disstream-columns, application/json

and tells by the content type of the answer whether it got it. The body is msgpack, an array of

    0  next_cursor   str, as in the JSON body
    1  batches       array: neighbours, each an array of
                         first      int: the sequence number of the first record; the others follow without a gap
                         append_ms  int: when they were appended, ms since the epoch
                         columns    bin, in msgpack: an array of keys (array of str or nil), sizes (array of int: the
                                    bytes of each payload) and timestamps (array of int or nil, or nil for no array;
                                    nil: append_ms). Neighbours that were appended at different times have a timestamp
                                    each, which is that of the append where the producer gave none
    2  data          bin: the payloads of all batches, one behind the other, up to the end of the body

`columns` are a bin within the page because our engine stores them so: the server sends what lies on the disk.

Example: one record b"hi" with the key "k", number 5, appended at 1000 ms, and the cursor "c":

    93 a163 91 93 05 cd03e8 c407 93 91a16b 9102 c0 c402 6869
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import chain, repeat
from operator import eq
from typing import Annotated, Any, NamedTuple, overload

import msgspec

from ..errors import TransportError
from ..model import MAX_HASH_KEY, Record
from .columns import COLUMNS
from .http import JSON
from .records import PageRow, record_kind

EXTENSION = "pages"
"""What X-Disstream names where pages are given so."""

ACCEPT = f"{COLUMNS}, {JSON}"
"""What the client sends where they are."""

MAX_RECORDS = 100_000
"""In a page: five times what our server puts into one. A record takes two bytes in the body, and many times that when
it is taken out, so their number is bounded, and looked at before anything is made."""


PART_RECORDS = 4_000
"""How many are looked at without a break: a fraction of a millisecond."""


class PageBatch(NamedTuple):
    """`columns` in msgpack, as they are on the wire, and the payloads that belong to them."""

    first_sequence: int
    append_ms: int
    columns: bytes
    data: bytes | memoryview


_encoder = msgspec.msgpack.Encoder()


def encode_page_columns(batches: Sequence[PageBatch], next_cursor: str) -> bytes:
    """Copies each payload once, and looks at none."""
    size = sum([len(batch.data) for batch in batches])
    # Header and payloads are joined by hand: the encoder would take them joined only, which is a second copy.
    head = _encoder.encode((next_cursor, [batch[:3] for batch in batches]))
    return b"".join((b"\x93", head[1:], _bin_head(size), *[batch.data for batch in batches]))


def _bin_head(size: int) -> bytes:
    if size < 1 << 8:
        return b"\xc4" + size.to_bytes(1, "big")
    return b"\xc5" + size.to_bytes(2, "big") if size < 1 << 16 else b"\xc6" + size.to_bytes(4, "big")


class ColumnRecords(Sequence[Record]):
    """The records of a page, each made when it is taken: in a row by iterating, which costs a third of one by one.

    Equal to any sequence of equal records.
    """

    __slots__ = ("_at", "_body", "_keys", "_kind", "_sizes", "_times", "key_bytes", "numbers")

    def __init__(
        self,
        kind: type[Record],
        body: bytes,
        at: int,
        keys: list[str | None],
        sizes: list[int],
        times: list[int],
        numbers: Sequence[int],
        key_bytes: int,
    ) -> None:
        """`kind`: of `record_kind`. The payloads are in `body`, from `at` on."""
        self._kind = kind
        self._body = body
        self._at = at
        self._keys = keys
        self._sizes = sizes
        self._times = times
        self.numbers = numbers
        """The sequence number of each."""
        self.key_bytes = key_bytes
        """At most, of all keys together."""

    @property
    def held_bytes(self) -> int:
        """Of payloads and keys, that are in memory because of these: the whole page, for a slice of it too."""
        return len(self._body) + self.key_bytes

    def __len__(self) -> int:
        return len(self._sizes)

    def __iter__(self) -> Iterator[Record]:
        # A file in memory shares the body and cuts it at a fourth of the price of slices.
        file = BytesIO(self._body)
        file.seek(self._at)
        return map(self._kind, map(file.read, self._sizes), self.numbers, self._times, self._keys)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        if isinstance(index, slice):
            begin, end, step = index.indices(len(self))
            if step != 1:
                return [self[i] for i in range(begin, end, step)]
            at = self._at + sum(self._sizes[:begin])
            return self._cut(begin, max(begin, end), self._body, at, self.key_bytes)
        index = range(len(self))[index]
        at = self._at + sum(self._sizes[:index])
        data = self._body[at : at + self._sizes[index]]
        return self._kind(data, self.numbers[index], self._times[index], self._keys[index])

    def rows(self) -> list[PageRow]:
        """The records as the other forms of a page tell them."""
        file = BytesIO(self._body)
        file.seek(self._at)
        payloads = map(file.read, self._sizes)
        return list(map(PageRow, map(str, self.numbers), payloads, self._times, repeat("CreateTime"), self._keys))

    def pieces(self, most_bytes: int) -> Iterator[ColumnRecords]:
        """All of them, cut into pieces of at most so many bytes of payload, or of one record.

        Each has a copy of its payloads, so that the last one does not keep the page.
        """
        begin, at, size = 0, self._at, 0
        for index, one in enumerate(self._sizes):
            if index > begin and size + one > most_bytes:
                yield self._piece(begin, index, at, size)
                begin, at, size = index, at + size, 0
            size += one
        yield self._piece(begin, len(self), at, size)

    def _piece(self, begin: int, end: int, at: int, size: int) -> ColumnRecords:
        key_bytes = sum([len(key) for key in self._keys[begin:end] if key])
        return self._cut(begin, end, self._body[at : at + size], 0, key_bytes)

    def _cut(self, begin: int, end: int, body: bytes, at: int, key_bytes: int) -> ColumnRecords:
        return ColumnRecords(
            self._kind,
            body,
            at,
            self._keys[begin:end],
            self._sizes[begin:end],
            self._times[begin:end],
            self.numbers[begin:end],
            key_bytes,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    def __repr__(self) -> str:
        return f"ColumnRecords({list(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (list, (list(self),))  # without the class that only this process has, and what else is in the body


def number_of(records: Sequence[Record], index: int) -> int:
    """The sequence number of that record, without making it."""
    return records.numbers[index] if isinstance(records, ColumnRecords) else records[index].sequence_number


_Number = Annotated[int, msgspec.Meta(ge=0, le=MAX_HASH_KEY)]
# The length of an array is looked at before it is made.
_few = msgspec.Meta(max_length=MAX_RECORDS)
_page = msgspec.msgpack.Decoder(tuple[str, Annotated[list[tuple[_Number, _Number, memoryview]], _few], memoryview])
_columns = msgspec.msgpack.Decoder(
    tuple[
        Annotated[list[str | None], _few],
        Annotated[list[Annotated[int, msgspec.Meta(ge=0)]], _few],
        Annotated[list[int | None], _few] | None,
    ]
)


Decoded = tuple[ColumnRecords, str]
"""The records of a page, and the next cursor."""


def decode_page_columns(body: bytes, stream: str, partition: str) -> Decoded:
    """A page of that partition. Raises TransportError."""
    return next(filter(None, decode_in_parts(body, stream, partition)))


def page_rows(body: bytes) -> tuple[list[PageRow], str]:
    """The rows of a page and the next cursor, to write them in another form. Raises TransportError."""
    records, next_cursor = decode_page_columns(body, "", "")
    return records.rows(), next_cursor


def decode_in_parts(body: bytes, stream: str, partition: str) -> Iterator[Decoded | None]:
    """The same with breaks: gives None whenever some thousand records were looked at, and the page in the end.

    For an event loop, which others wait for: twenty thousand records take one to two milliseconds.
    """
    try:
        next_cursor, batches, data = _page.decode(body)
        keys: list[str | None] = []
        sizes: list[int] = []
        times: list[int] = []
        runs: list[range] = []
        pause_at = PART_RECORDS
        for first, append_ms, columns in batches:
            if len(sizes) >= pause_at:
                pause_at = len(sizes) + PART_RECORDS
                yield None
            told, lengths, timestamps = _columns.decode(columns)
            if len(told) != len(lengths) or (timestamps is not None and len(timestamps) != len(lengths)):
                raise ValueError("columns of different lengths")
            keys += told
            sizes += lengths
            if len(sizes) > MAX_RECORDS:
                raise ValueError(f"more than {MAX_RECORDS} records")
            if timestamps is None:
                times += [append_ms] * len(lengths)
            else:
                times += [append_ms if timestamp is None else timestamp for timestamp in timestamps]
            if runs and runs[-1].stop == first:
                runs[-1] = range(runs[-1].start, first + len(lengths))
            else:
                runs.append(range(first, first + len(lengths)))
        if sum(sizes) != len(data):
            raise ValueError(f"payloads of {len(data)} bytes, which are {sum(sizes)} together")
    except (ValueError, RecursionError) as exc:  # what msgspec raises are ValueErrors
        raise TransportError(f"the endpoint's answer is no page of {COLUMNS}: {exc}", outcome_unknown=True) from exc
    numbers: Sequence[int] = runs[0] if len(runs) == 1 else list(chain.from_iterable(runs))
    key_bytes = sum([len(columns) for _, _, columns in batches])
    kind = record_kind(stream, partition)
    yield ColumnRecords(kind, body, len(body) - len(data), keys, sizes, times, numbers, key_bytes), next_cursor
