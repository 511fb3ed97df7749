"""What an engine is: two protocols that carry "one machine or many".

`Log` never sees an app, a tag or a name; `Catalog` never sees a record. Everything in a `Log` is keyed by stream *id*:
a stream deleted and created again under its name is another stream, and no old cursor may reach it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec


class PartitionRef(NamedTuple):
    """A partition of a stream that is identified by its id, not its name."""

    stream_id: str
    number: int


class Row(msgspec.Struct, gc=False, array_like=True):
    """A stored record. `timestamp` is the producer's own (ms since the epoch), None if it gave none."""

    data: bytes
    key: str | None = None
    timestamp: int | None = None

    @property
    def weight(self) -> int:
        """What the row counts towards `max_bytes`: payload and key."""
        return len(self.data) + (len(self.key.encode()) if self.key else 0)


class Batch(NamedTuple):
    """Consecutive rows of one partition that were appended in one call at `append_ms`."""

    first_sequence: int
    append_ms: int
    rows: Sequence[Row]


class Bounds(NamedTuple):
    """`oldest` is the first readable sequence number, `next` the one the next row gets; equal: nothing to read."""

    oldest: int
    next: int
    epoch: int


class AppendRefused(NamedTuple):
    """Why an entry of an append stored nothing: its partition is not open, or its epoch is not the expected one."""

    reason: str
    epoch: int | None = None


class Writer(NamedTuple):
    """Who appends, and the number of the first row among all of this producer, epoch and partition (from 0, no gaps).

    `request` grows with every attempt of the producer, so that an attempt that comes late can be told from the next.
    """

    producer: str  # 32 hex digits
    epoch: int
    number: int
    request: int


class Span(NamedTuple):
    """Rows of a producer that are stored: those from `number` to before `end`, in sequence from `first` on."""

    number: int
    end: int
    first: int


class Replayed(NamedTuple):
    """Some rows of an entry had been stored before; together with what was stored now, `spans` tells where they are.

    They are in order of their numbers and cover the entry from its first row on; a `first` of -1: stored, but too long
    ago to know where. `refused`: why the rows behind them were not stored; None: the spans cover all rows.
    """

    spans: tuple[Span, ...]
    refused: AppendRefused | None = None


class Entry(NamedTuple):
    """Rows (not empty) for one partition. `writer`: for a partition that must not store a producer's row twice."""

    partition: PartitionRef
    rows: Sequence[Row]
    expected_epoch: int
    writer: Writer | None = None


class Log(Protocol):
    """Rows in partitions.

    Sequence numbers are contiguous in a partition, start at 0 and never restart while the stream lives, whatever is
    trimmed. Every row keeps the time of its append, which never decreases within a partition (a clock that jumps back
    is held at the last time). A partition must be opened before it is used; its *epoch* fences writers that still
    believe in an older layout.
    """

    async def open(self, partitions: Mapping[PartitionRef, int]) -> None:
        """Create partitions, or raise the epoch of existing ones, all or nothing, durable when it returns.

        An append that expects an older epoch is refused from then on. Lowering an epoch raises StorageError; the same
        epoch again changes nothing.
        """
        ...

    async def append(
        self, entries: Sequence[tuple[PartitionRef, Sequence[Row], int]], now_ms: int
    ) -> list[int | AppendRefused]:
        """Append each entry's rows (not empty) to its partition, if the partition has the expected epoch.

        Result i belongs to entry i: the sequence number of its first row, or why the entry stored nothing. Durable when
        it returns. Calls made one after another store in that order. Raises StorageError (nothing was stored) or
        OutcomeUnknown. Cancellation: the append may still take effect, as a whole.
        """
        ...

    async def read(self, partition: PartitionRef, from_sequence: int, max_bytes: int) -> list[Batch]:
        """Rows from `from_sequence` on, in order, at most MAX_READ_ROWS, as many as weigh at most `max_bytes` together.

        Batches are cut so that the first row is exactly `from_sequence`. Empty: nothing there yet, `from_sequence`
        below the oldest row or above the next, or the first row alone is heavier than `max_bytes`. A partition that was
        never opened or was dropped has no rows.
        """
        ...

    async def wait(self, partition: PartitionRef, after: int, deadline: float) -> bool:
        """True as soon as the partition's next sequence number exceeds `after`, False at `deadline` (loop time)."""
        ...

    async def bounds(self, partitions: Sequence[PartitionRef]) -> list[Bounds | None]:
        """Bounds of each partition; None for one that was never opened or was dropped."""
        ...

    async def seek(self, partition: PartitionRef, time_ms: int) -> int:
        """The first sequence number appended at or after `time_ms`; the next one to be written if there is none yet."""
        ...

    async def trim(self, partition: PartitionRef, before: int) -> None:
        """Forget rows below `before` (at most all). Never moves backwards.

        Reading starts at the new oldest row at once; the space may be freed later.
        """
        ...

    async def drop(self, stream_id: str) -> None:
        """Forget all partitions of a stream and their rows. Waits on them return False at their deadline."""
        ...


class Versioned(NamedTuple):
    """A catalog value with its version: greater than 0, different after each change of the key, also after a delete."""

    value: bytes
    version: int


class Catalog(Protocol):
    """A small ordered map of text keys to bytes: streams, partitions, apps, checkpoints, tags, tasks.

    A key to be put has 1 to 500 bytes as UTF-8, else ConfigError; asking for another finds nothing.
    """

    async def get(self, key: str) -> Versioned | None: ...

    async def scan(self, prefix: str, after: str = "", limit: int = 1000) -> list[tuple[str, Versioned]]:
        """Keys that start with `prefix` and stand behind the whole key `after`, by code point, at most `limit`."""
        ...

    async def transact(
        self,
        expect: Mapping[str, int],
        put: Mapping[str, bytes],
        delete: Collection[str] = (),
    ) -> None:
        """Change any number of keys at once, if every key of `expect` has that version (0: does not exist).

        All or nothing, durable when it returns. Raises CatalogConflict (nothing changed), StorageError, OutcomeUnknown.
        Deleting what does not exist is no error; a key both put and deleted is a ConfigError.
        """
        ...


class Engine(Protocol):
    """A log and a catalog with one life. Not started in `__init__`; closing twice is fine."""

    @property
    def log(self) -> Log: ...

    @property
    def catalog(self) -> Catalog: ...

    async def start(self) -> None:
        """Open the storage. Raises StorageError with the remedy (in use, damaged, written by a newer version)."""
        ...

    async def close(self) -> None:
        """Finish what was accepted, then release everything. Later calls raise StorageError."""
        ...
