"""The data directory: who may use it, which format it has, and the tables of its LMDB file.

    data.mdb         the LMDB file. Copy-on-write: a crash leaves the last committed transaction, there is no repair
    lock.mdb         LMDB's table of readers
    disstream.lock   flock'ed by the process that uses the directory; contains its pid

Tables, numbers big endian:

    meta         "format" -> 4 bytes: FORMAT         "slot", "version" -> 8 bytes: the last one given out
    partitions   stream id length (2 bytes), stream id, partition number (4 bytes) -> PartitionState, 6 x 8 bytes; the
                 last one, `held`, is missing in records of earlier versions
    batches      see batch.py
    writers      see writers.py
    dropped      slot (8 bytes) -> nothing: partitions whose rows and writers are still to be swept
    catalog      key -> version (8 bytes), value

A partition's record is written when it is opened, trimmed and swept, and by every UNRECORDED_BATCHES-th append only:
what `next`, `last_ms` and `held` have become since then is told by its last batches. So an append mostly writes one
key, the numbers survive that all rows are forgotten, and opening the directory looks at a few batches per partition.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lmdb

from ...errors import ConfigError, StorageError
from ..api import PartitionRef
from ..rules import MAX_KEY_BYTES, weigh
from . import batch
from .merging import Merge
from .writers import Writers

FORMAT = 3
"""2: batches are stored as columns. 3: the rows of one may have been appended at different times, and a partition's
record tells what its batches weigh. What was stored in an older format is read, so its directories are taken over; a
version that knows less must not open them any more."""

UNRECORDED_BATCHES = 4
"""How many batches a partition's record may be behind. Each of them is a page to be read when the directory is opened,
on a disk that may be slow; a record costs an append 1.5 us and the commit a page."""

_NUMBER = struct.Struct(">Q")
_FORMAT = struct.Struct(">I")
_STATE = struct.Struct(">QQQQQQ")
_STATE_BEFORE_HELD = struct.Struct(">QQQQQ")
_REF_HEAD = struct.Struct(">H")
_REF_TAIL = struct.Struct(">I")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedConfig:
    """How the embedded engine stores.

    `durability`: "fsync" (an answered append survives a power failure) or "relaxed": commits are not synchronised one
    by one, but every `sync_interval_s`. Relaxed survives the death of the process; a power failure or a crash of the
    system may cost the last `sync_interval_s`, and on file systems that reorder writes the whole directory.
    """

    durability: Literal["fsync", "relaxed"] = "fsync"  # losing what was acknowledged must be somebody's decision
    sync_interval_s: float = 1.0  # what most people who accept a loss accept; ignored with fsync
    # Address space, not disk: the file grows as it is filled. More than one machine's disk holds for one queue, and
    # 1/512 of what a 64-bit process can address. It can be raised later, never lowered below what is used.
    map_size_bytes: int = 256 * 1024**3

    def __post_init__(self) -> None:
        if self.durability not in ("fsync", "relaxed"):
            raise ConfigError(f"durability is {self.durability!r}: use 'fsync' or 'relaxed'")
        if not self.sync_interval_s > 0:
            raise ConfigError(f"sync_interval_s is {self.sync_interval_s}: use seconds greater than 0")
        if self.map_size_bytes < 1024**2:
            raise ConfigError(f"map_size_bytes is {self.map_size_bytes}: use at least 1 MiB")


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


class Environment:
    """The open directory."""

    def __init__(self, data_dir: Path, config: EmbeddedConfig) -> None:
        """Open or create it. Raises StorageError with the remedy."""
        self._lock = _lock(data_dir)
        try:
            self._open(data_dir, config)
        except lmdb.Error as exc:
            self._unlock()
            raise StorageError(f"cannot open the data directory {data_dir}: {exc}; {remedy(exc)}") from exc
        except OSError as exc:
            self._unlock()
            raise StorageError(f"cannot open the data directory {data_dir}: {exc}; check its permissions") from exc
        except BaseException:
            self._unlock()
            raise

    def _open(self, data_dir: Path, config: EmbeddedConfig) -> None:
        # writemap=False: with it a stray write could damage the file, and a full disk would kill the process (SIGBUS)
        # instead of raising. readahead stays on: a log is read forward.
        self.env = env = lmdb.Environment(
            os.fspath(data_dir),
            map_size=config.map_size_bytes,
            sync=config.durability == "fsync",
            max_dbs=6,
            max_spare_txns=2,
        )
        try:
            _check_length(data_dir, env)
            _sync_directory(data_dir)
            self.meta = env.open_db(b"meta")
            self._check_format(data_dir)
            self.partitions = env.open_db(b"partitions")
            self.batches = env.open_db(b"batches")
            self.writers = Writers(env)  # a directory of an earlier version gets an empty table
            self.dropped = env.open_db(b"dropped")
            self.catalog = env.open_db(b"catalog")
        except BaseException:
            env.close()
            raise

    def _check_format(self, data_dir: Path) -> None:
        with self.env.begin(write=True) as txn:
            stored = txn.get(b"format", db=self.meta)
            found = 0 if stored is None else int.from_bytes(stored, "big")
            if found < FORMAT:
                txn.put(b"format", _FORMAT.pack(FORMAT), db=self.meta)
        if found > FORMAT:
            raise StorageError(
                f"the data directory {data_dir} has format {found}, this version of disstream writes format {FORMAT}: "
                "use the version that wrote it, or another directory"
            )

    def close(self) -> None:
        """Release the directory."""
        self.env.close()
        self._unlock()

    def _unlock(self) -> None:
        # Explicitly: a forked child would otherwise keep the lock with its copy of the descriptor.
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        os.close(self._lock)

    @contextlib.contextmanager
    def reading(self) -> Iterator[lmdb.Transaction[memoryview]]:
        """A snapshot to be read without awaiting anything: an old snapshot keeps the file from reusing its space."""
        try:
            with self.env.begin(buffers=True) as txn:
                yield txn
        except lmdb.Error as exc:
            raise StorageError(f"cannot read from {self.env.path()}: {exc}; {remedy(exc)}") from exc

    def count_up(self, txn: lmdb.Transaction[Any], counter: bytes) -> int:
        """The next number of a counter in `meta`, starting at 1."""
        number = int.from_bytes(txn.get(counter, b"", db=self.meta), "big") + 1
        txn.put(counter, _NUMBER.pack(number), db=self.meta)
        return number

    def room(self, txn: lmdb.Transaction[Any]) -> tuple[int, int]:
        """How much of the file is free for what is stored next, as far as this transaction knows, and where it ends."""
        used = 0
        for table in (None, self.meta, self.partitions, self.batches, self.writers.db, self.dropped, self.catalog):
            found = txn.stat(table) if table is not None else txn.stat()
            used += found["branch_pages"] + found["leaf_pages"] + found["overflow_pages"]
        pages, page_bytes = self.env.info()["last_pgno"] + 1, found["psize"]
        return (pages - used) * page_bytes, pages * page_bytes

    def put_state(self, txn: lmdb.Transaction[Any], ref: PartitionRef, state: PartitionState) -> PartitionState:
        """Write the partition's record; returns the state as it is then."""
        txn.put(_partition_key(ref), _STATE.pack(*state[:-1]), db=self.partitions)
        return state._replace(unrecorded=0)

    def state(self, txn: lmdb.Transaction[Any], cursor: lmdb.Cursor[Any], ref: PartitionRef) -> PartitionState | None:
        """Where the partition stands in this transaction, told by its record and its last batches."""
        stored = txn.get(_partition_key(ref), db=self.partitions)
        return None if stored is None else _current(cursor, ref, stored)

    def drop_states(self, txn: lmdb.Transaction[Any], stream_id: str) -> list[tuple[PartitionRef, int]]:
        """Take the stream's partitions out of the table, their slots into `dropped`; returns both."""
        gone: list[tuple[PartitionRef, int]] = []
        if len(stream_id) > MAX_KEY_BYTES:  # more than a key can hold: no such stream was ever opened
            return gone
        prefix = _stream_prefix(stream_id)
        cursor = txn.cursor(db=self.partitions)
        cursor.set_range(prefix)
        while bytes(cursor.key()[: len(prefix)]) == prefix:  # the key is empty behind the last one of all
            (number,) = _REF_TAIL.unpack(cursor.key()[len(prefix) :])
            gone.append((PartitionRef(stream_id, number), _recorded(cursor.value()).slot))
            cursor.delete()  # and stand on the next
        for _, slot in gone:
            txn.put(_NUMBER.pack(slot), b"", db=self.dropped)
        return gone

    def load(self) -> dict[PartitionRef, PartitionState]:
        """All partitions as they stand, each brought up to date by its last batch."""
        states: dict[PartitionRef, PartitionState] = {}
        uncounted: list[PartitionRef] = []
        with self.reading() as txn:
            cursor = txn.cursor(db=self.batches)
            for stored, value in txn.cursor(db=self.partitions):
                size = _REF_HEAD.size
                ref = PartitionRef(str(stored[size : -_REF_TAIL.size], "utf-8"), *_REF_TAIL.unpack(stored[-4:]))
                states[ref] = _current(cursor, ref, value)
                if len(value) != _STATE.size:
                    uncounted.append(ref)
        if uncounted:  # by an earlier version: counting once is enough, and a disk that is full lets it be done again
            with contextlib.suppress(lmdb.Error), self.env.begin(write=True) as write:
                for ref in uncounted:
                    self.put_state(write, ref, states[ref])
        return states

    def merge(self, txn: lmdb.Transaction[Any], merge: Merge) -> None:
        """Make its batches one, those of them that are left. A damaged one, and all beside it, stay as they are."""
        cursor = txn.cursor(db=self.batches)
        values: list[memoryview] = []
        last = 0
        more = cursor.set_range(batch.key(merge.slot, merge.begin))
        while more:
            slot, found = batch.parse_key(cursor.key())
            if slot != merge.slot or found >= merge.end:
                break
            last = found
            values.append(cursor.value())
            more = cursor.next()
        if len(values) < 2:
            return
        try:
            merged = batch.merge(values)
        except batch.Damaged:
            return  # whoever reads it is told
        cursor.set_range(batch.key(merge.slot, merge.begin))
        for _ in values[1:]:
            cursor.delete()  # and stand on the next; the last one is replaced
        txn.put(batch.key(merge.slot, last), merged, db=self.batches)


def _stream_prefix(stream_id: str) -> bytes:
    """How the keys of a stream's partitions begin. With its length: no id is the beginning of another."""
    encoded = stream_id.encode("utf-8", "surrogatepass")
    return _REF_HEAD.pack(len(encoded)) + encoded


def _partition_key(ref: PartitionRef) -> bytes:
    return _stream_prefix(ref.stream_id) + _REF_TAIL.pack(ref.number)


def remedy(exc: lmdb.Error) -> str:
    """What the operator can do about it."""
    if isinstance(exc, lmdb.MapFullError):
        return "raise map_size_bytes, or forget old rows"
    if isinstance(exc, lmdb.DiskError):
        return "free space on the disk"
    if isinstance(exc, lmdb.MemoryError):
        return "lower map_size_bytes, or let the process use more address space (ulimit -v)"
    if isinstance(exc, lmdb.TxnFullError):
        return "write less in one call"
    if isinstance(exc, (lmdb.InvalidError, lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.VersionMismatchError)):
        return "the file is damaged or not ours: restore a copy, or use another directory"
    return "check the disk, the directory's owner and its permissions"


def _recorded(stored: bytes | memoryview) -> PartitionState:
    """A partition's record. One without `held` counts from the first batch on, and so takes a look at all of them."""
    if len(stored) == _STATE_BEFORE_HELD.size:
        return PartitionState(*_STATE_BEFORE_HELD.unpack(stored))
    return PartitionState(*_STATE.unpack(stored))


def _current(cursor: lmdb.Cursor[Any], ref: PartitionRef, stored: bytes | memoryview) -> PartitionState:
    """The partition's record brought up to date by the batches behind it."""
    state = _recorded(stored)
    counted = state.next if len(stored) == _STATE.size else 0
    more = cursor.set_range(batch.key(state.slot, counted))
    while more:
        slot, last = batch.parse_key(cursor.key())
        if slot != state.slot:
            break
        try:
            head = batch.header(cursor.value())
            weight = head.weight
            if head.first < counted:  # written anew since, together with batches that are counted
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
    return state


def _check_length(data_dir: Path, env: lmdb.Environment) -> None:
    """Raise StorageError if the file ends before what it holds: touching such a page would kill the process (SIGBUS).

    It may end before its last page number, because LMDB does not write pages that a transaction both took and gave
    back. Only then the tree is walked, by reading the file, to see whether something is missing.
    """
    path = data_dir / "data.mdb"
    found, complete = path.stat().st_size, (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    if found >= complete:
        return
    from lmdb.verify import VerifyError, verify

    try:
        errors = verify(data_dir)  # type: ignore[no-untyped-call]
    except VerifyError as exc:
        errors = [str(exc)]
    if errors:
        raise StorageError(
            f"{path} is cut short: {found} of {complete} bytes are there ({errors[0]}); "
            "restore a copy of the data directory, or use another one"
        )
    # The walk looks at the first page of a batch only. If its other pages are cut off, they become zeros here instead
    # of the death of the process, and reading the batch fails on its checksum.
    try:
        os.truncate(path, complete)
    except OSError as exc:
        raise StorageError(f"cannot extend {path} to {complete} bytes: {exc.strerror}; check the disk") from exc


def _sync_directory(data_dir: Path) -> None:
    """Make the names of new files durable: LMDB synchronises their content only."""
    for directory in (data_dir, data_dir.absolute().parent):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _lock(data_dir: Path) -> int:
    """Take the directory for this process; returns the descriptor that holds the lock."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(data_dir / "disstream.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as exc:
        raise StorageError(
            f"cannot use the data directory {data_dir}: {exc.strerror}; name a directory that can be written"
        ) from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    except OSError as exc:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        if isinstance(exc, BlockingIOError):
            raise StorageError(
                f"the data directory {data_dir} is in use by process {holder or 'unknown'}: stop it, or use another one"
            ) from exc
        raise StorageError(f"cannot lock the data directory {data_dir}: {exc.strerror}; free space or move it") from exc
    return descriptor
