"""Leases of the processes of one host: rows in a SQLite file.

One thread per store holds one connection and does one job after another, so the loop never waits for a disk or for the
lock of another process. A job that was begun is finished by the thread whatever becomes of the task that waits for it:
only its answer is dropped, and the connection is never left in the middle of a transaction.

    disstream_rows     app, key, version, text     what `read` and `swap` are about
    disstream_store    id, version                 one row: which store this is, and the last version that was given

A version is the last one plus one, or the time in microseconds if that is more. So it grows even if the file is
replaced by an older copy of itself, and a consumer that was overtaken before stays overtaken.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from .. import clock
from ..errors import ConfigError, DisError, StorageError, StoreUnavailable
from .api import Row, Swap
from .rules import DEFAULT_TIMEOUT_S, Life, check_read, check_swaps, check_timeout

APPLICATION_ID = 0x4449534C
"""Of our files, in SQLite's header: "DISL"."""

_MAGIC = b"SQLite format 3\0"

FORMAT = 1
"""Of the tables, in SQLite's user_version."""

_TABLES = f"""
    CREATE TABLE disstream_rows (
        app TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, text TEXT NOT NULL, PRIMARY KEY (app, key)
    ) WITHOUT ROWID;
    CREATE TABLE disstream_store (id TEXT NOT NULL, version INTEGER NOT NULL);
    PRAGMA application_id = {APPLICATION_ID};
    PRAGMA user_version = {FORMAT};
"""

_READ = "SELECT key, version, text FROM disstream_rows WHERE app = ? AND key >= ? AND substr(key, 1, ?) = ?"
_INSERT = "INSERT INTO disstream_rows (app, key, version, text) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_UPDATE = "UPDATE disstream_rows SET version = ?, text = ? WHERE app = ? AND key = ? AND version = ?"
_DELETE = "DELETE FROM disstream_rows WHERE app = ? AND key = ? AND version = ?"

# Another process holds a lock for longer than we wait: it may let go.
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
# What no waiting heals: not ours to write, not a database, damaged.
_HOPELESS = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_NOTADB,  # encrypted, or its first page is gone
    sqlite3.SQLITE_CORRUPT,
}

T = TypeVar("T")

_opening = threading.Lock()
"""One store of a process opens at a time, so that none looks at a file that another one is opening."""
_opened_here: set[tuple[int, int]] = set()
"""Files (device and inode) that stores of this process have opened so far."""


class SqliteLeases:
    """A lease store in the file `path`, for any number of processes of one host. Its directory must exist.

    Each change is on the disk before it is answered (WAL, synchronous=FULL). `timeout_s`: how long a call waits for
    other processes to let go of the file.

    Not on a network file system: SQLite's locks and its shared memory do not work there, and two hosts would both
    believe that they hold a partition. Hosts share a PostgreSQL or a Redis. Beside the file there are two more, with
    `-wal` and `-shm` behind the name; copy the three together, while nobody uses them.
    """

    def __init__(self, path: str | Path, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        check_timeout(timeout_s)
        if not str(path) or "\0" in str(path):
            raise ConfigError(f"path={str(path)!r}: give the name of a file")
        self._path = Path(path).absolute()
        self._timeout_s = timeout_s
        self._life = Life(f"the lease store {self._path}")
        self._thread: ThreadPoolExecutor | None = None
        self._file = _File(self._path, timeout_s)

    async def start(self) -> None:
        with self._life.starting():
            # Anew for each attempt: the thread of one that was given up may still be at it.
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="disstream-leases")
            self._file = _File(self._path, self._timeout_s)
            try:
                await self._do(self._file.open)
            except BaseException:
                self._let_go()
                raise

    async def close(self) -> None:
        """Finish what was begun, then let go of the file. Cancelled: it is closed all the same."""
        self._life.close()
        if (closing := self._let_go()) is not None:
            # A disk that hangs must not hold whoever closes: the thread ends when the disk lets it.
            await asyncio.wait({closing}, timeout=self._timeout_s)

    async def read(self, app: str, prefix: str = "") -> dict[str, Row]:
        self._life.check()
        check_read(app, prefix)
        return await self._do(partial(self._file.read, app, prefix))

    async def swap(self, app: str, swaps: Sequence[Swap]) -> list[int | None]:
        self._life.check()
        check_swaps(app, swaps)
        if not swaps:
            return []
        return await self._do(partial(self._file.swap, app, list(swaps)))

    def twin(self) -> SqliteLeases:
        return SqliteLeases(self._path, timeout_s=self._timeout_s)

    def _let_go(self) -> asyncio.Future[None] | None:
        """Let the thread close the file behind what it was asked before, and end."""
        thread, self._thread = self._thread, None
        if thread is None:
            return None
        closing = asyncio.get_running_loop().run_in_executor(thread, self._file.close)
        thread.shutdown(wait=False)
        return closing

    async def _do(self, job: Callable[[], T]) -> T:
        """Let the thread do it. Twice the time-out covers the wait for a lock; the rest is the disk's."""
        try:
            async with asyncio.timeout(2 * self._timeout_s):
                return await asyncio.get_running_loop().run_in_executor(self._thread, job)
        except TimeoutError:
            raise StoreUnavailable(
                f"{self._path} gave no answer within {2 * self._timeout_s:g} s: check the disk"
            ) from None


class _File:
    """The connection. All of it runs in the thread of its store."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._connection: sqlite3.Connection | None = None
        self._inode = (0, 0)
        self._id = ""

    def open(self) -> None:
        try:
            self._connect()
        except sqlite3.Error as exc:
            self.close()
            raise self._failure(exc, at_start=True) from exc
        except DisError:
            self.close()
            raise

    def close(self) -> None:
        if self._connection is not None:
            # Closing may write the log back into the file; what cannot be written now is still in the log.
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def read(self, app: str, prefix: str) -> dict[str, Row]:
        connection = self._checked()
        try:
            self._last_version(connection)
            rows = connection.execute(_READ, (app, prefix, len(prefix), prefix)).fetchall()
        except sqlite3.Error as exc:
            raise self._failure(exc) from exc
        return {key: Row(version, text) for key, version, text in rows}

    def swap(self, app: str, swaps: list[Swap]) -> list[int | None]:
        connection = self._checked()
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                version = max(self._last_version(connection), clock.wall_ms() * 1000)
                answers: list[int | None] = []
                for swap in swaps:
                    version += 1
                    answers.append(version if self._change(connection, app, swap, version) else None)
                connection.execute("UPDATE disstream_store SET version = ?", (version,))
                connection.execute("COMMIT")
            except BaseException:
                self._roll_back(connection)
                raise
        except sqlite3.Error as exc:
            raise self._failure(exc) from exc
        return answers

    def _change(self, connection: sqlite3.Connection, app: str, swap: Swap, version: int) -> bool:
        key, expected, text = swap
        if expected is None:
            return connection.execute(_INSERT, (app, key, version, text)).rowcount == 1
        if text is None:
            return connection.execute(_DELETE, (app, key, expected)).rowcount == 1
        return connection.execute(_UPDATE, (version, text, app, key, expected)).rowcount == 1

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        """SQLite has done so already after some errors: then there is nothing left to roll back."""
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")

    def _look_at_head(self) -> None:
        """Raise ConfigError for a file that is no database: SQLite would take a short text for an empty one.

        Only of a file that no store of this process has opened: to close it again drops every lock that the process has
        on it (POSIX), also those of connections, and another process would delete the log that is in use.
        """
        if self._present_inode() in _opened_here:
            return
        with suppress(OSError), self._path.open("rb") as file:
            if not _MAGIC.startswith(file.read(len(_MAGIC))):
                raise ConfigError(f"{self._path} is no SQLite database: name another file")

    def _connect(self) -> None:
        with _opening:
            self._look_at_head()
            self._connect_anew()
            _opened_here.add(self._inode)

    def _connect_anew(self) -> None:
        # Transactions are ours to begin (isolation_level), and statements wait for locks as long as a call may.
        self._connection = connection = sqlite3.connect(self._path, timeout=self._timeout_s, isolation_level=None)
        self._know_purpose(connection)
        self._use_log(connection)
        connection.execute("PRAGMA synchronous = FULL")
        ((state,), *_) = connection.execute("PRAGMA quick_check(1)").fetchall()
        if state != "ok":
            raise ConfigError(f"{self._path} is damaged ({state}): move it away, and a new one is made")
        self._create(connection)
        self._inode = self._present_inode()
        ((self._id,),) = connection.execute("SELECT id FROM disstream_store").fetchall()

    def _know_purpose(self, connection: sqlite3.Connection) -> bool:
        """Whether there are our tables. Raises ConfigError for what somebody else, or a later version, has made."""
        ((application,),) = connection.execute("PRAGMA application_id").fetchall()
        ((found,),) = connection.execute("PRAGMA user_version").fetchall()
        ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
        if application == APPLICATION_ID:
            if found > FORMAT:
                raise ConfigError(
                    f"{self._path} has format {found}, of a later version of disstream; this one knows {FORMAT}: "
                    "upgrade, or name another file"
                )
            return True
        if application or tables:
            raise ConfigError(f"{self._path} is a database of another purpose: name a file for the leases alone")
        return False

    def _use_log(self, connection: sqlite3.Connection) -> None:
        """Readers and a writer at once. The switch waits for nobody, so processes that start together take turns."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                ((mode,),) = connection.execute("PRAGMA journal_mode = WAL").fetchall()
            except sqlite3.OperationalError as exc:
                if _code(exc) not in _BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
                continue
            if mode != "wal":
                raise ConfigError(
                    f"{self._path} cannot have a write-ahead log (SQLite chose {mode!r}): name a file on a local disk"
                )
            return

    def _create(self, connection: sqlite3.Connection) -> None:
        """Take the lock even if all is there: who may not write learns it now."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            if not self._know_purpose(connection):
                for statement in _TABLES.split(";"):
                    connection.execute(statement)
                connection.execute("INSERT INTO disstream_store VALUES (?, ?)", (str(uuid.uuid4()), 0))
            connection.execute("UPDATE disstream_store SET version = version")
            connection.execute("COMMIT")
        except BaseException:
            self._roll_back(connection)
            raise

    def _last_version(self, connection: sqlite3.Connection) -> int:
        """Raises StorageError if another store was copied over this one."""
        found: list[tuple[str, int]] = connection.execute("SELECT id, version FROM disstream_store").fetchall()
        if [store for store, _ in found] != [self._id]:
            raise self._replaced()
        return found[0][1]

    def _checked(self) -> sqlite3.Connection:
        """The connection, if its file is still the one that has the name: others open that one."""
        if self._connection is None:
            raise StoreUnavailable(f"{self._path} is not open")
        if self._present_inode() != self._inode:
            raise self._replaced()
        return self._connection

    def _replaced(self) -> StorageError:
        return StorageError(f"{self._path} was deleted or replaced while it was used: start its users anew")

    def _present_inode(self) -> tuple[int, int]:
        try:
            found = os.stat(self._path)
        except OSError:
            return (0, 0)
        return (found.st_dev, found.st_ino)

    def _failure(self, exc: sqlite3.Error, *, at_start: bool = False) -> DisError:
        code = _code(exc)
        if code in _BUSY:
            return StoreUnavailable(f"{self._path} was held by another process for {self._timeout_s:g} s: {exc}")
        if code not in _HOPELESS:  # a full disk, a failing one
            return StoreUnavailable(f"{self._path} cannot be used: {exc}; check the disk")
        if not at_start:
            return StorageError(f"{self._path} cannot be used any more: {exc}")
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return ConfigError(f"{self._path} is damaged ({exc}): move it away, and a new one is made")
        return ConfigError(
            f"{self._path} cannot be opened for writing ({exc}): its directory must exist, and both must be writable"
        )


def _code(exc: sqlite3.Error) -> int:
    """The primary result code; the upper bytes of the extended one tell details."""
    return int(getattr(exc, "sqlite_errorcode", 0)) & 0xFF
