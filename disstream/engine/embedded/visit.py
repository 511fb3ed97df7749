"""A data directory looked at from outside, by a process that does not serve from it.

    who has disstream.lock      what a visitor does
    nobody                      takes it, so that no server starts meanwhile, and reads without LMDB's own locks
    a server                    reads one snapshot beside it, as a reader that LMDB's table of readers knows
    another visitor             is refused: it may be about to replace the file
    there is no such file       reads: a backup, which nobody serves from

A visitor makes no file: what it is pointed at may not be ours. While it reads beside a server, the server cannot use
the space again that is freed meanwhile, so the file may grow.

LMDB must not open a file twice in one process, and a damaged file can kill whoever reads it. So visits are made in a
process of their own (child.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb

from ...errors import StorageError
from .environment import DATA, LOCK, refuse_newer
from .faults import remedy
from .synced import is_settled

Tell = Callable[[str, int, int], None]
"""Takes how far a job is: what it does, how much of that is done, and of how much."""

TABLES = ("meta", "partitions", "batches", "writers", "dropped", "catalog")

_MAX_TABLES = 32
"""More than there are: a newer version may have added some, and its format shall be told."""

_HOLDER_BYTES = 40


def data_file(directory: Path) -> Path:
    """The LMDB file of a data directory. Raises StorageError if there is none."""
    path = directory / DATA
    try:
        if path.stat().st_size:
            return path
    except FileNotFoundError:
        raise StorageError(
            f"{directory} holds no data, there is no {DATA} in it: name the directory that "
            "`disstream serve --data-dir` names, or a backup of it"
        ) from None
    except OSError as exc:
        raise StorageError(f"cannot look into {directory}: {exc.strerror}; run as the user of the server") from exc
    raise StorageError(f"{path} is empty: restore a copy, or remove it to begin with nothing")


@contextlib.contextmanager
def claimed(directory: Path, doing: str, *, create: bool = False) -> Iterator[int | None]:
    """Keep servers and other visitors out while the block runs, unless a server runs: then yield its process id.

    `doing` is told to those who are kept out. `create`: make the lock if it is missing. Raises StorageError where
    another visitor is.
    """
    path = directory / LOCK
    try:
        descriptor = _open_lock(path, create=create)
    except OSError as exc:
        raise StorageError(f"cannot open {path}: {exc.strerror}; run as the user of the server") from exc
    if descriptor is None:
        yield None
        if path.exists():
            raise StorageError(
                f"a server started in {directory} meanwhile, so what was read is worth nothing: run again"
            )
        return
    try:
        holder = _take(descriptor, path, doing)
        yield holder
        if holder is None:
            _give_back(descriptor)
    finally:
        os.close(descriptor)


def _open_lock(path: Path, *, create: bool) -> int | None:
    """None: there is no lock. One that may only be read (a read-only file system) can be taken all the same."""
    try:
        if create and not path.exists():
            return _make_lock(path)
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError:
        if create:
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _make_lock(path: Path) -> int:
    """For whom the directory belongs to: root may be at work for the server's user."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    owner = path.parent.stat()
    if os.geteuid() == 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor


def _take(descriptor: int, path: Path, doing: str) -> int | None:
    """Lock it. Returns the process id of the server that has it instead."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, _HOLDER_BYTES, 0).decode("ascii", "replace").strip()
        if holder.isdecimal():
            return int(holder)
        raise StorageError(
            f"the data directory {path.parent} is in use by process {holder or 'unknown'}: wait until it has ended"
        ) from None
    except OSError as exc:
        raise StorageError(f"cannot lock {path}: {exc.strerror}; use a local file system") from exc
    with contextlib.suppress(OSError):  # opened for reading only: then nobody learns who we are
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d (%s)\n" % (os.getpid(), doing.encode()), 0)
    return None


def _give_back(descriptor: int) -> None:
    """Unlock it. The next one to hold it may be asked for its name before it has written that: it is not ours."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def refuse_unsettled(directory: Path) -> None:
    """Raise StorageError for a directory in which the next server is going to undo something. We change nothing."""
    if not is_settled(directory):
        raise StorageError(
            f"the system went down while a server wrote to {directory} with durability relaxed: start a server there "
            "first, it undoes what was not on the disk"
        )


class Visit:
    """One snapshot of the tables."""

    def __init__(self, directory: Path, env: lmdb.Environment, txn: lmdb.Transaction[memoryview], server: int | None):
        self.directory = directory
        self.env = env
        self.txn = txn
        self.server = server
        """The process that serves from it; None: nobody."""
        self._tables = {name: table for name in TABLES if (table := _table(env, txn, name)) is not None}
        self.format = int.from_bytes(self.meta("format"), "big")
        refuse_newer(directory, self.format)
        if not self.format or not {"partitions", "batches"} <= self._tables.keys():
            raise StorageError(
                f"{directory / DATA} is an LMDB file that disstream did not write: name a data directory of disstream"
            )

    def release(self) -> None:
        """End the snapshot: the tables cannot be read any more."""
        self.txn.abort()

    @property
    def file_bytes(self) -> int:
        return (self.directory / DATA).stat().st_size

    @property
    def page_bytes(self) -> int:
        return self.env.stat()["psize"]

    @property
    def pages(self) -> int:
        """Of the file as it was when it was opened, used or not."""
        return self.env.info()["last_pgno"] + 1

    def live_pages(self) -> int:
        """Those that hold something: of all tables, of the table of tables, and the two that tell where it is."""
        return 2 + _pages(self.txn.stat()) + sum(map(self.pages_of, self._tables))

    def pages_of(self, table: str) -> int:
        """Those of a table; 0 for one that the directory's format has not."""
        return _pages(self.txn.stat(self._tables[table])) if table in self._tables else 0

    def meta(self, name: str) -> bytes:
        """A value of the table `meta`; empty if it is not there."""
        table = self._tables.get("meta")
        return b"" if table is None else bytes(self.txn.get(name.encode(), b"", db=table))

    def entries(self, table: str) -> int:
        """How many there are; 0 for a table that the directory's format has not."""
        return self.txn.stat(self._tables[table])["entries"] if table in self._tables else 0

    def walk(self, table: str, begin: bytes = b"") -> Iterator[tuple[memoryview, memoryview]]:
        """Keys and values, in order, from the first key on that is not below `begin`."""
        if table in self._tables:
            with self.txn.cursor(db=self._tables[table]) as cursor:
                if cursor.set_range(begin) if begin else cursor.first():
                    yield from cursor.iternext()


def _pages(stat: lmdb._StatDict) -> int:
    return stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]


def _table(env: lmdb.Environment, txn: lmdb.Transaction[memoryview], name: str) -> lmdb._Database | None:
    try:
        return env.open_db(name.encode(), txn=txn, create=False)
    except lmdb.NotFoundError:
        return None


@contextlib.contextmanager
def look(directory: Path, server: int | None) -> Iterator[Visit]:
    """Open a claimed directory. Raises StorageError with the remedy."""
    path = data_file(directory)
    inode = path.stat().st_ino
    if server is None:
        refuse_unsettled(directory)
    if server is not None and not (directory / "lock.mdb").exists():
        raise StorageError(f"process {server} is just opening {directory}: run again")
    try:
        # A map of size 0 is one of the size that the server's has: no page of the snapshot is outside.
        env = lmdb.Environment(
            os.fspath(directory),
            readonly=True,
            create=False,
            lock=server is not None,
            map_size=0,
            max_dbs=_MAX_TABLES,
        )
    except lmdb.Error as exc:
        raise StorageError(f"cannot open {path}: {exc}; {remedy(exc)}") from exc
    try:
        if path.stat().st_ino != inode:  # by a compaction, between our looking for its lock and the opening
            raise StorageError(f"{path} was replaced meanwhile: run again")
        with env.begin(buffers=True) as txn:
            yield Visit(directory, env, txn, server)
    except lmdb.Error as exc:
        raise StorageError(f"cannot read from {path}: {exc}; {remedy(exc)}") from exc
    finally:
        env.close()


@contextlib.contextmanager
def visit(directory: Path, doing: str) -> Iterator[Visit]:
    """Claim and look."""
    data_file(directory)  # before a lock is looked for in what may be no directory
    with claimed(directory, doing) as server, look(directory, server) as found:
        yield found
