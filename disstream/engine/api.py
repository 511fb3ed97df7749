"""What an engine is: two protocols that carry "one machine or many".

`Log` never sees an app, a tag or a name; `Catalog` never sees a record. Everything in a `Log` is keyed by stream *id*:
a stream deleted and created again under its name is another stream, and no old cursor may reach it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol

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
    # What a record may have beside it on its way in. A row is placed by its key, so it can stand for such a record.
    partition_id: ClassVar[None] = None
    explicit_hash_key: ClassVar[None] = None
    headers: ClassVar[None] = None

    @property
    def weight(self) -> int:
        """What the row counts towards `max_bytes`: payload and key."""
        return len(self.data) + (len(self.key.encode()) if self.key else 0)


class Batch(NamedTuple):
    """Consecutive rows of one partition that were appended at `append_ms`, or each at its own time.

    Rows of one append may come in several batches, and those of several appends in one: it then has `times`, one for
    each row, and `append_ms` is that of the last one.
    """

    first_sequence: int
    append_ms: int
    rows: Sequence[Row]
    times: Sequence[int] | None = None


class Bounds(NamedTuple):
    """`oldest` is the first readable sequence number, `next` the one the next row gets; equal: nothing to read."""

    oldest: int
    next: int
    epoch: int


class AppendRefused(NamedTuple):
    """Why rows were not stored.

    `kind`: "epoch" (the partition is not open, or its epoch, told in `epoch`, is not the expected one), "gap" (numbers
    of the writer before these are missing, or the writer is not known any more) or "fenced" (the writer has been here
    with a later epoch, or a later request).
    """

    reason: str
    epoch: int | None = None
    kind: Literal["epoch", "gap", "fenced"] = "epoch"


class Writer(NamedTuple):
    """Who appends, and the number of the first row among all of this producer, epoch and partition (from 0, no gaps).

    `request` grows with every attempt of the producer, so that an attempt that comes late can be told from the next.
    """

    producer: str  # 32 hex digits
    epoch: int
    number: int
    request: int


class Span(NamedTuple):
    """Rows of a producer that are stored: those from `number` to before `end`, in sequence from `first` on.

    A `first` of -1: stored, but too long ago to know where.
    """

    number: int
    end: int
    first: int


class Replayed(NamedTuple):
    """Some rows of an entry had been stored before.

    `spans`, in order of their numbers, cover the entry from its first row on. The last `stored` rows of them were
    stored by this call, the others before. `refused`: why the rows behind the spans were not; None: there are none.
    """

    spans: tuple[Span, ...]
    stored: int = 0
    refused: AppendRefused | None = None


class Entry(NamedTuple):
    """Rows (not empty) for one partition: a list, or `Columns`, which an engine may store as they are.

    `writer`: a producer whose rows the partition must not store twice.
    """

    partition: PartitionRef
    rows: Sequence[Row]
    expected_epoch: int
    writer: Writer | None = None


class Known(NamedTuple):
    """What a partition knows of rows that were asked for.

    `spans` tell which of them are stored, from the first one on. `refused`: why an append would not store the others;
    None: it would, as far as the writer is concerned.
    """

    spans: tuple[Span, ...]
    refused: AppendRefused | None = None

    @property
    def rows(self) -> int:
        """How many of them are stored."""
        return self.spans[-1].end - self.spans[0].number if self.spans else 0


class Surplus(NamedTuple):
    """Before which number to trim which partition. `more`: that is only a part; trim, and ask again."""

    before: dict[PartitionRef, int]
    more: bool = False


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

    async def append(self, entries: Sequence[Entry], now_ms: int) -> list[int | AppendRefused | Replayed]:
        """Append each entry's rows (not empty) to its partition, if the partition has the expected epoch.

        Result i belongs to entry i: the sequence number of its first row, why the entry stored nothing, or, with a
        writer, what was stored before. Durable when it returns. Calls made one after another store in that order.
        Raises StorageError (nothing was stored) or OutcomeUnknown. Cancellation: the append may still take effect, as
        a whole.

        An entry with a *writer* stores rows of each number once. The partition remembers, in one step with the rows, of
        each producer the epoch, the next number, the last request that stored, and the places of its latest rows:

            older epoch, or next rows of a request not newer than the last one   fenced
            newer epoch, or unknown producer: number 0                           stored; older epochs are forgotten
                                              another number                     gap
            the next number                                                      stored
            a lower number                                                       Replayed; rows from the next number on
                                                                                 are stored or fenced
            a higher number                                                      gap

        A producer is forgotten a day (`rules.FORGET_WRITER_MS`) after it last stored, and when so many others have
        stored in the partition since: `rules.MAX_WRITERS` are known for sure.
        """
        ...

    async def recall(self, asked: Sequence[tuple[PartitionRef, Writer, int]], now_ms: int) -> list[Known]:
        """What each partition knows of so many rows of a writer, without storing anything, whatever its epoch is.

        Appends that were answered are known, others may be. A partition that is not open refuses with "epoch".
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

    def watch(
        self, partitions: Collection[PartitionRef], moved: Callable[[PartitionRef, int | None], None]
    ) -> AbstractContextManager[None]:
        """Inside the block `moved(partition, next sequence number)` is called whenever one of these has grown.

        At once, on the loop, where it must neither wait nor raise; now and then also for one that has not grown. A
        partition that is dropped moves to None. What is there already is not told: ask for `bounds` inside the block.
        """
        ...

    async def bounds(self, partitions: Sequence[PartitionRef]) -> list[Bounds | None]:
        """Bounds of each partition; None for one that was never opened or was dropped."""
        ...

    async def seek(self, partition: PartitionRef, time_ms: int) -> int:
        """The first sequence number appended at or after `time_ms`; the next one to be written if there is none yet."""
        ...

    async def surplus(self, partitions: Collection[PartitionRef], keep_bytes: int) -> Surplus:
        """What to trim of these partitions for them to hold at most `keep_bytes` together. Trims nothing.

        Bytes are payload and keys (`Row.weight`). The oldest rows go first, by append time over all partitions, in
        batches as they are stored (an engine may have joined small ones), of which at most one more goes than has to; a
        batch that is trimmed in part counts as a whole. Cheap while they hold no more.
        """
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

    @property
    def revision(self) -> int:
        """Another number after each change, whoever made it: who has read a key at this one need not read it again.

        It moves when a read would see the change already, and at the latest when the `transact` that made it returns;
        also for a call that was cancelled, once it took effect.
        """
        ...

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


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot. Counts are since `start()`."""

    durability: Literal["none", "relaxed", "fsync"]
    loss_s: float | None
    """How far back a power failure reaches into what was acknowledged, in seconds, and the time that a sync takes more;
    0: nothing of it is lost; None: everything is."""
    commits: int = 0
    syncs: int = 0
    """How often all that was committed was made safe; with "fsync" each commit does that."""
    sync_age_s: float | None = None
    """Since it was for the last time; None: it was not."""
    used_bytes: int = 0
    """Of the file: what holds something. The rest of it is used before the file grows."""
    file_bytes: int = 0
    free_bytes: int = 0
    """Of the disk, for us. As last looked at, as are the sizes: while something is written, each second."""
    ballast_bytes: int = 0
    """Room of the disk that is kept for deletions."""
    refusing: str | None = None
    """Why appends are refused; None: they are not, as far as is known."""
    set_aside: int = 0
    """Partitions in which damage keeps batches from being deleted or merged, until the next start tries again."""
    snapshot_age_s: float | None = None
    """How long another process (a backup) has been reading one state of the file: until it ends, what is forgotten
    frees no space. Looked for every ten seconds while something is written; None: none does."""


class Engine(Protocol):
    """A log and a catalog with one life. Not started in `__init__`; closing twice is fine."""

    @property
    def log(self) -> Log: ...

    @property
    def catalog(self) -> Catalog: ...

    async def start(self) -> None:
        """Open the storage. Raises StorageError with the remedy (in use, damaged, written by a newer version)."""
        ...

    def stats(self) -> EngineStats:
        """What it has done and the room it has. Raises StorageError unless it runs."""
        ...

    async def wait_failed(self) -> None:
        """Return never while the engine works; raise StorageError once it has stopped by itself.

        It stores nothing from then on: whoever runs it should end, and be started again when the remedy was applied.
        """
        ...

    async def close(self) -> None:
        """Finish what was accepted, then release everything. Later calls raise StorageError."""
        ...
