"""Copies of a data directory: made beside a running server, put back, and packed.

All three write the whole file under another name, synchronise it, and only then give it its name: what is called
data.mdb is complete at every instant.

    backup   TARGET/data.mdb.new <- one snapshot of DIR/data.mdb           then renamed
    restore  DIR/data.mdb.new    <- BACKUP/data.mdb, checked before        then renamed
    compact  DIR/data.mdb.new    <- DIR/data.mdb without its free pages,   then renamed
                                    compared with it, row by row

A server that finds data.mdb.new alone refuses to start: a restore was not finished, and the directory is not an empty
one. Beside a data.mdb the file is a leftover, and the next run removes it.

What is copied beside a running server is one snapshot. As long as that takes, the server cannot use the space again
that is freed meanwhile. So a backup that does not get on is given up (copying.py); what is then left of it,
data.mdb.new, the next one removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import lmdb
import msgspec

from ...errors import StorageError
from .check import check
from .copying import Stalled, copy_snapshot
from .environment import DATA, LOCK, UNFINISHED
from .synced import settle, sync_directory
from .visit import TABLES, Tell, Visit, claimed, data_file, look, visit

GIVE_UP_S = 60.0
"""How long nothing may move: a disk that is shared, or away for a moment, comes back within that."""

CHUNK_BYTES = 4 * 1024**2
SPARE_BYTES = 16 * 1024**2
"""That a copy leaves free on the disk, at least: a server beside it goes on writing."""

_LMDB_LOCK = "lock.mdb"


class CopyReport(msgspec.Struct, kw_only=True):
    """`server`: the process that served from the directory meanwhile."""

    source: str
    target: str
    source_bytes: int
    target_bytes: int
    format: int
    server: int | None = None


# --- backup -------------------------------------------------------------------------------------------------------


def backup(
    data_dir: str,
    target: str,
    tell: Tell,
    *,
    compact: bool = False,
    force: bool = False,
    give_up_s: float | None = GIVE_UP_S,
) -> CopyReport:
    """Copy one snapshot into the directory `target`, which is made if need be; `compact`: without free pages.

    `force` replaces a backup that is there. `give_up_s`: how long nothing may get on; None: for ever.
    Raises StorageError with the remedy; then `target` is as it was, but for a file of another name if it hung.
    """
    source, directory = Path(data_dir), Path(target)
    data_file(source)
    _check_target(source, directory, force=force)
    with visit(source, "copying") as found:
        needed = (found.live_pages() if compact else found.pages) * found.page_bytes
        with _new_file(directory, needed, mode=(source / DATA).stat().st_mode) as new:
            found.release()  # LMDB copies with a snapshot of its own, not older than this one
            copy_snapshot(found.env, new, needed, tell, compact=compact, give_up_s=give_up_s)
        return _copied(found, source, directory)


def _check_target(source: Path, target: Path, *, force: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise StorageError(f"{target} is no directory: name one for the copy, which is made if need be")
    if target.samefile(source) or (target / LOCK).exists():
        raise StorageError(f"{target} is a data directory that a server used: name another one for the copy")
    there = {path.name for path in target.iterdir()} - {UNFINISHED, _LMDB_LOCK}
    if DATA in there and not force:
        raise StorageError(f"{target} holds a backup already: name another directory, or add --force to replace it")
    if there - {DATA}:
        raise StorageError(f"{target} holds other files ({min(there - {DATA})!r}): name a directory for the copy alone")


# --- restore ------------------------------------------------------------------------------------------------------


def restore(backup_dir: str, data_dir: str, tell: Tell, *, force: bool = False) -> CopyReport:
    """Put a backup into the directory `data_dir`, which is made if need be, once it is found to be sound.

    `force` replaces the data that is there. Raises StorageError with the remedy; then the directory holds what it held.
    """
    source, directory = Path(backup_dir), Path(data_dir)
    report = check(backup_dir, tell)
    if report.server is not None:
        raise StorageError(f"process {report.server} serves from {source}: that is no backup; make one first")
    if not report.clean:
        first, count = report.findings[0], len(report.findings) + report.more
        raise StorageError(f"{source} is damaged, {count} finding(s), the first: {first.what}; use another backup")
    if directory.exists():
        if not directory.is_dir() or directory.samefile(source):
            raise StorageError(f"{directory} is not a directory that the backup can be put into: name another one")
        there = {path.name for path in directory.iterdir()} - {UNFINISHED, _LMDB_LOCK}
        what = None
        if DATA in there:
            what = "holds data already"
        elif there and LOCK not in there:  # a lock tells that the other files are a server's
            what = f"holds other files ({min(there)!r})"
        if what is not None and not force:
            raise StorageError(f"{directory} {what}: name another directory, or add --force to put the backup there")
    directory.mkdir(parents=True, exist_ok=True)
    status = (source / DATA).stat()
    size = status.st_size
    with _alone(directory, "restoring"):
        with _new_file(directory, size, mode=status.st_mode, owner=directory.stat()) as new:
            with (source / DATA).open("rb") as reading, new.open("wb") as writing:
                while chunk := reading.read(CHUNK_BYTES):
                    writing.write(chunk)
                    tell("copying", writing.tell(), size)
                tell("synchronising", 0, 0)
                writing.flush()
                os.fsync(writing.fileno())
        return CopyReport(
            source=backup_dir,
            target=data_dir,
            source_bytes=size,
            target_bytes=(directory / DATA).stat().st_size,
            format=report.format,
        )


# --- compact ------------------------------------------------------------------------------------------------------


def compact(data_dir: str, tell: Tell) -> CopyReport:
    """Write the file anew without its free pages. Takes a directory that nobody uses, and as much space as that needs.

    Raises StorageError with the remedy; then the directory is as it was.
    """
    directory = Path(data_dir)
    path = data_file(directory)
    before = path.stat()
    with _alone(directory, "compacting"):
        with look(directory, None) as found:
            needed = found.live_pages() * found.page_bytes
            with _new_file(directory, needed, mode=before.st_mode, owner=before) as new:
                copy_snapshot(found.env, new, needed, tell, compact=True)
                _compare(found, new, tell)
            stored_format = found.format
    return CopyReport(
        source=data_dir,
        target=data_dir,
        source_bytes=before.st_size,
        target_bytes=path.stat().st_size,
        format=stored_format,
    )


def _compare(found: Visit, new: Path, tell: Tell) -> None:
    """Raise StorageError unless every key and every value is in both."""
    env = lmdb.Environment(
        os.fspath(new), subdir=False, readonly=True, lock=False, create=False, map_size=0, max_dbs=32
    )
    try:
        with env.begin(buffers=True) as txn:
            copied = Visit(found.directory, env, txn, None)
            total = sum(map(found.entries, TABLES))
            if total != sum(map(copied.entries, TABLES)):
                raise StorageError(f"the copy of {found.directory} has other rows than the original: check the disk")
            done = 0
            for table in TABLES:
                for ours, theirs in zip(found.walk(table), copied.walk(table), strict=True):
                    if ours != theirs:
                        raise StorageError(f"the copy of {found.directory} differs in {table}: check the disk")
                    done += 1
                    tell("comparing", done, total)
    except lmdb.Error as exc:
        raise StorageError(f"cannot read the copy {new}: {exc}; check the disk") from exc
    finally:
        env.close()


# --- files --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _alone(directory: Path, doing: str) -> Iterator[None]:
    """Have a directory for ourselves, whose data.mdb is going to be another file.

    Who reads beside a server may outlive it and hold lock.mdb still. LMDB keeps there the number of the last
    transaction of the old file: a server that found it beside the new one would write over what it holds. So nobody may
    have it open when we begin; who opens it meanwhile waits; and it is made void, so that the next one makes it anew
    and a reader that had waited fails.

    The way back that durability "relaxed" keeps is one of the old file, too: it is gone, or gone back, before that is.
    """
    with claimed(directory, doing, create=True) as server:
        if server is not None:
            raise StorageError(f"process {server} serves from {directory}: stop it first")
        settle(directory)
        try:
            readers = open(directory / _LMDB_LOCK, "r+b", buffering=0)
        except FileNotFoundError:
            yield
            return
        with readers:
            try:
                fcntl.lockf(readers, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)  # as LMDB does
            except BlockingIOError:
                raise StorageError(f"a process still reads from {directory}: wait until it has ended") from None
            os.pwrite(readers.fileno(), bytes(4), 0)  # where its magic number stands
            yield


@contextlib.contextmanager
def _new_file(directory: Path, needed: int, *, mode: int, owner: os.stat_result | None = None) -> Iterator[Path]:
    """A file of about `needed` bytes, to be filled and synchronised in the block, and then to become data.mdb.

    After an error it is removed, unless it hung. `mode`: its permissions; `owner`: whose it shall be, if not that of
    this process.
    """
    created = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    new = directory / UNFINISHED
    try:
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        _check_space(directory, needed)
        # Whoever could not read the original shall not read the copy, not even while it is written.
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if owner is not None and (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            os.fchmod(descriptor, mode & 0o777)
        finally:
            os.close(descriptor)
        yield new
        os.replace(new, directory / DATA)
        sync_directory(directory)
    except Stalled:  # to remove it may hang, too
        raise
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        if created:
            with contextlib.suppress(OSError):  # something is in it
                directory.rmdir()
        raise


def _check_space(directory: Path, needed: int) -> None:
    status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize
    if free < needed + SPARE_BYTES:
        raise StorageError(
            f"the copy takes {needed + SPARE_BYTES:,} bytes in {directory}, {free:,} are free: free some, or use "
            "another disk"
        )


def _copied(found: Visit, source: Path, target: Path) -> CopyReport:
    return CopyReport(
        source=str(source),
        target=str(target),
        source_bytes=found.file_bytes,
        target_bytes=(target / DATA).stat().st_size,
        format=found.format,
        server=found.server,
    )
