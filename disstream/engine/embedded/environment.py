"""The data directory: who may use it, which format it has, and the tables of its LMDB file.

    data.mdb         the LMDB file. Copy-on-write: a crash leaves the last committed transaction, there is no repair
    data.mdb.new     what a restore or a compaction writes, until it takes the place of data.mdb
    data.mdb.first/  while the directory is made: what becomes data.mdb, see creation.py
    lock.mdb         LMDB's table of readers
    disstream.lock   flock'ed by the process that uses the directory; contains its pid, and what it does if not serving
    ballast          room that is kept for what frees room, see ballast.py
    synced.meta      only with durability "relaxed": the way back after a power failure, see synced.py

Tables, numbers big endian:

    meta         "format" -> 4 bytes: FORMAT         "slot", "version" -> 8 bytes: the last one given out
    partitions   see partitions.py
    batches      see batch.py
    writers      see writers.py
    dropped      slot (8 bytes) -> nothing: partitions whose rows and writers are still to be swept
    catalog      key -> version (8 bytes), value

An append mostly writes one key, the numbers survive that all rows are forgotten, and opening the directory looks at a
few batches per partition.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lmdb

from ...errors import ConfigError, StorageError
from ..api import PartitionRef
from ..rules import MAX_KEY_BYTES
from . import batch, partitions
from .ballast import NO_ROOM, Ballast
from .creation import discard_first, make_data, make_directory
from .faults import judge, remedy
from .header import HEADER_BYTES, latest
from .merging import Merge
from .partitions import STATE_BYTES, PartitionState
from .progress import Progress
from .synced import Synced, distrusting, forget, go_back, sync_directory
from .writers import Writers

FORMAT = 3
"""2: batches are stored as columns. 3: the rows of one may have been appended at different times, and a partition's
record tells what its batches weigh. What was stored in an older format is read, so its directories are taken over; a
version that knows less must not open them any more."""

DATA = "data.mdb"
UNFINISHED = "data.mdb.new"
LOCK = "disstream.lock"

_NUMBER = struct.Struct(">Q")
_FORMAT = struct.Struct(">I")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedConfig:
    """How the embedded engine stores.

    `durability`: "fsync" (an answered append survives a power failure) or "relaxed": commits are not synchronised one
    by one, but every `sync_interval_s`. Relaxed survives the death of the process; a power failure or a crash of the
    system takes what was answered in the last `sync_interval_s` and while that was being synchronised, and nothing
    that was answered before (synced.py).
    """

    durability: Literal["fsync", "relaxed"] = "fsync"  # losing what was acknowledged must be somebody's decision
    sync_interval_s: float = 1.0  # what most people who accept a loss accept; ignored with fsync
    # Address space, not disk: the file grows as it is filled. More than one machine's disk holds for one queue, and
    # 1/512 of what a 64-bit process can address. It can be raised later, never lowered below what is used.
    map_size_bytes: int = 256 * 1024**3
    # Room that deletions find on a full disk (ballast.py); 0: none is kept. A thousand trims with what they sweep write
    # some hundred pages at a time; this is twenty times that.
    ballast_bytes: int = 8 * 1024**2

    def __post_init__(self) -> None:
        if self.durability not in ("fsync", "relaxed"):
            raise ConfigError(f"durability is {self.durability!r}: use 'fsync' or 'relaxed'")
        if not self.sync_interval_s > 0:
            raise ConfigError(f"sync_interval_s is {self.sync_interval_s}: use seconds greater than 0")
        if self.map_size_bytes < 1024**2:
            raise ConfigError(f"map_size_bytes is {self.map_size_bytes}: use at least 1 MiB")
        if self.ballast_bytes < 0:
            raise ConfigError(f"ballast_bytes is {self.ballast_bytes}: use 0 (none) or more")


class Environment:
    """The open directory."""

    def __init__(self, data_dir: Path, config: EmbeddedConfig) -> None:
        """Open or create it. Raises StorageError with the remedy."""
        self._lock = _lock(data_dir)
        try:
            _refuse_unfinished(data_dir)
            self._open(data_dir, config)
        except lmdb.Error as exc:
            self._unlock()
            raise StorageError(f"cannot open the data directory {data_dir}: {exc}; {remedy(exc)}") from exc
        except OSError as exc:
            self._unlock()
            told = "free space on the disk" if exc.errno in NO_ROOM else "check its permissions"
            raise StorageError(f"cannot open the data directory {data_dir}: {exc}; {told}") from exc
        except BaseException:
            self._unlock()
            raise

    def _open(self, data_dir: Path, config: EmbeddedConfig) -> None:
        path = data_dir / "data.mdb"
        new = not path.exists()
        if not new:
            if path.stat().st_size == 0:  # LMDB would make a new one of it, and all would seem well
                raise StorageError(
                    f"{path} is empty: restore a copy of the data directory, or remove the file to begin with nothing"
                )
            discard_first(data_dir)
            go_back(data_dir)
            _check_header(path)
        else:
            make_data(data_dir, path, form=_FORMAT.pack(FORMAT), map_size_bytes=config.map_size_bytes)
        _reserve_readers(data_dir)
        try:
            # All of this is synchronised, also with "relaxed": there is no way back yet.
            self._map(data_dir, config, sync=True)
        except BaseException:
            if new:
                path.unlink(missing_ok=True)  # as it was found, and not as an empty file
            raise
        self.synced: Synced | None = None
        self.file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            sync_directory(data_dir)
            with distrusting(data_dir):
                self.env.sync(True)  # what an earlier process has left to the system's memory, too
            if config.durability == "relaxed":
                self.env.close()
                self._map(data_dir, config, sync=False)
                self.synced = Synced(data_dir, self.env)
            else:
                forget(data_dir)
            self.ballast = Ballast(data_dir, config.ballast_bytes)
        except BaseException:
            self._release(clean=False)
            raise

    def _map(self, data_dir: Path, config: EmbeddedConfig, *, sync: bool) -> None:
        # writemap=False: with it a stray write could damage the file, and a full disk would kill the process (SIGBUS)
        # instead of raising. readahead stays on: a log is read forward.
        self.env = env = lmdb.Environment(
            os.fspath(data_dir),
            map_size=config.map_size_bytes,
            sync=sync,
            max_dbs=6,
            max_spare_txns=2,
        )
        try:
            _check_length(data_dir, env)
            self.page_bytes: int = env.stat()["psize"]
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
        refuse_newer(data_dir, found)

    def close(self, *, clean: bool = False) -> None:
        """Release the directory. `clean`: all that was committed is synchronised."""
        self._release(clean=clean)
        self._unlock()

    def _release(self, *, clean: bool) -> None:
        if self.synced is not None:
            self.synced.close(clean=clean)
        os.close(self.file)
        self.env.close()

    def used_pages(self) -> int:
        """Pages that hold something; the others of the file are free, but for those that list the free ones."""
        with self.env.begin() as txn:
            return 2 + self._table_pages(txn)

    def _table_pages(self, txn: lmdb.Transaction[Any]) -> int:
        used = 0
        for table in (None, self.meta, self.partitions, self.batches, self.writers.db, self.dropped, self.catalog):
            found = txn.stat(table) if table is not None else txn.stat()
            used += found["branch_pages"] + found["leaf_pages"] + found["overflow_pages"]
        return used

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
        except (struct.error, UnicodeDecodeError) as exc:
            raise StorageError(
                f"{self.env.path()} is damaged: a key or a value is not what it should be ({exc}); restore a copy of it"
            ) from exc

    def count_up(self, txn: lmdb.Transaction[Any], counter: bytes) -> int:
        """The next number of a counter in `meta`, starting at 1."""
        number = int.from_bytes(txn.get(counter, b"", db=self.meta), "big") + 1
        txn.put(counter, _NUMBER.pack(number), db=self.meta)
        return number

    def room(self, txn: lmdb.Transaction[Any]) -> tuple[int, int]:
        """How much of the file is free for what is stored next, as far as this transaction knows, and where it ends."""
        pages = self.env.info()["last_pgno"] + 1
        return (pages - self._table_pages(txn)) * self.page_bytes, pages * self.page_bytes

    def put_state(self, txn: lmdb.Transaction[Any], ref: PartitionRef, state: PartitionState) -> PartitionState:
        """Write the partition's record; returns the state as it is then."""
        txn.put(partitions.key(ref), partitions.record(state), db=self.partitions)
        return state._replace(unrecorded=0)

    def state(self, txn: lmdb.Transaction[Any], cursor: lmdb.Cursor[Any], ref: PartitionRef) -> PartitionState | None:
        """Where the partition stands in this transaction, told by its record and its last batches."""
        stored = txn.get(partitions.key(ref), db=self.partitions)
        return None if stored is None else partitions.current(cursor, ref, stored)

    def drop_states(self, txn: lmdb.Transaction[Any], stream_id: str) -> list[tuple[PartitionRef, int]]:
        """Take the stream's partitions out of the table, their slots into `dropped`; returns both."""
        gone: list[tuple[PartitionRef, int]] = []
        if len(stream_id) > MAX_KEY_BYTES:  # more than a key can hold: no such stream was ever opened
            return gone
        prefix = partitions.stream_prefix(stream_id)
        cursor = txn.cursor(db=self.partitions)
        cursor.set_range(prefix)
        while bytes(cursor.key()[: len(prefix)]) == prefix:  # the key is empty behind the last one of all
            ref = PartitionRef(stream_id, partitions.parse_number(cursor.key()))
            gone.append((ref, partitions.parse_state(cursor.value()).slot))
            cursor.delete()  # and stand on the next
        for _, slot in gone:
            txn.put(_NUMBER.pack(slot), b"", db=self.dropped)
        return gone

    def load(self) -> dict[PartitionRef, PartitionState]:
        """All partitions as they stand, each brought up to date by its last batches."""
        states: dict[PartitionRef, PartitionState] = {}
        uncounted: list[PartitionRef] = []
        with self.reading() as txn:
            cursor = txn.cursor(db=self.batches)
            # Only where partitions of an earlier version have to be counted it takes long.
            progress = Progress(
                f"taking over {self.env.path()}, counting its batches once", txn.stat(self.batches)["entries"]
            )
            for stored, value in txn.cursor(db=self.partitions):
                ref = partitions.parse_ref(stored)
                states[ref] = partitions.current(cursor, ref, value, progress.step)
                if len(value) != STATE_BYTES:
                    uncounted.append(ref)
            progress.end()
        if uncounted:
            self._record({ref: states[ref] for ref in uncounted})
        return states

    def _record(self, states: dict[PartitionRef, PartitionState]) -> None:
        """What was counted because an earlier version did not. On a full disk it is done again at the next start."""
        try:
            with self.env.begin(write=True) as txn:
                for ref, state in states.items():
                    self.put_state(txn, ref, state)
        except lmdb.Error as exc:
            fault = judge(exc, self.env, self.file, 0, [])
            if fault.stops:
                if self.synced is not None:
                    self.synced.distrust()
                raise StorageError(f"cannot open the data directory {self.env.path()}: {fault.told}") from exc

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


def refuse_newer(data_dir: Path, found: int) -> None:
    """Raise StorageError if a directory has a format that this version does not know."""
    if found > FORMAT:
        raise StorageError(
            f"the data directory {data_dir} has format {found}, this version of disstream writes format {FORMAT}: "
            "use the version that wrote it, or another directory"
        )


def _refuse_unfinished(data_dir: Path) -> None:
    """Raise StorageError for a directory into which a backup was being restored: it is not an empty one."""
    if (data_dir / UNFINISHED).exists() and not (data_dir / DATA).exists():
        raise StorageError(
            f"a restore into {data_dir} was not finished: repeat it (disstream data restore BACKUP {data_dir}), or "
            f"remove {data_dir / UNFINISHED} to begin with nothing"
        )


def _reserve_readers(data_dir: Path) -> None:
    """LMDB writes its table of readers through a map: on a full disk that would kill the process (SIGBUS).

    Raises OSError where there is no room for it.
    """
    descriptor = os.open(data_dir / "lock.mdb", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.posix_fallocate(descriptor, 0, 8192)  # what LMDB makes it for its 126 readers
    finally:
        os.close(descriptor)


def _check_header(path: Path) -> None:
    """Raise StorageError if LMDB would follow its first pages nowhere. What is no LMDB file it says itself."""
    with path.open("rb") as file:
        meta = latest(file.read(HEADER_BYTES))
    if meta is None:
        return
    fault = meta.fault()
    if fault is not None:
        raise StorageError(f"{path} is damaged: it tells of {fault}; restore a copy of the data directory")
    # More than a transaction can hold, and so more than it can have left unwritten. See _check_length for what is less.
    found, complete = path.stat().st_size, (meta.last_page + 1) * meta.page_bytes
    if complete > found + 1024**3:
        raise StorageError(
            f"{path} is cut short: {found} of {complete} bytes are there; restore a copy of the data directory"
        )


def _check_length(data_dir: Path, env: lmdb.Environment) -> None:
    """Raise StorageError if the file ends before what it holds: touching such a page would kill the process (SIGBUS).

    It may end before its last page number, because LMDB does not write pages that a transaction both took and gave
    back. Only then the tree is walked, by reading the file, to see whether something is missing.
    """
    path = data_dir / DATA
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


def _lock(data_dir: Path) -> int:
    """Take the directory for this process; returns the descriptor that holds the lock."""
    try:
        make_directory(data_dir)
        descriptor = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
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
