"""The way back of `relaxed`: which transaction is on the disk for certain, and how to return to it.

Without a sync for each commit the system writes pages when and in which order it likes. After a power failure the page
that names the latest transaction (its *meta page*, of which LMDB keeps two) may be there while pages of that
transaction are not: the whole directory would be lost, not just its last moments. So relaxed keeps three promises:

- Every `sync_interval_s` the file is synchronised, and then the meta page of the transaction that was the latest
  before, S, is written into this file and synchronised too.
- A snapshot of S stays open until the next one is on the disk. LMDB gives no page that a snapshot sees to a later
  transaction, so S stays whole in the file whatever becomes of the pages written since.
- A process that opens the directory after the system went down puts the meta page of S back before anybody looks at it.

What the system has in its memory survives the end of the process; only the end of the system loses it. Which of the two
happened tells the boot id of the kernel: if it is the one of the record, nothing is undone. A clean close synchronises
and removes the file; so does `fsync`, which needs no way back.

    synced.meta    two slots of 512 bytes, written in turn: a torn write leaves the other one. Numbers little endian.

      0  magic "DISSYNC1"            8 bytes
      8  number of this record       8   the higher of two sound ones counts
     16  boot id                    36   as the kernel writes it; spaces where there is none; "sync failed"
     52  size of a page              4
     56  meta page                 152   see header.py
    208  CRC-32 of all before        4
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lmdb

from ...errors import StorageError
from .header import META_BYTES, Meta

_log = logging.getLogger("disstream.engine")

NAME = "synced.meta"

_MAGIC = b"DISSYNC1"
_RECORD = struct.Struct("<8sQ36sI152s")
_CRC = struct.Struct("<I")
_SLOT_BYTES = 512
_NO_BOOT_ID = b" " * 36
_DISTRUSTED = b"sync failed".ljust(36)


class _Record(NamedTuple):
    number: int
    boot_id: bytes
    meta: Meta


class Synced:
    """What keeps the promises while a relaxed engine runs. Used by the thread that commits."""

    def __init__(self, data_dir: Path, env: lmdb.Environment) -> None:
        """From here on there is a way back to what the environment holds now, which is synchronised. Raises OSError."""
        self._env = env
        self._path = data_dir / NAME
        self._data = os.open(data_dir / "data.mdb", os.O_RDONLY | os.O_CLOEXEC)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        last = _latest(os.pread(self._file, 2 * _SLOT_BYTES, 0))
        self._number = 0 if last is None else last.number
        self._boot_id = boot_id()
        self._snapshot: lmdb.Transaction[Any] | None = None
        self._meta: Meta | None = None
        self.advance()
        sync_directory(data_dir)

    def advance(self) -> None:
        """Synchronise what was committed, and remember it as the way back. Raises lmdb.Error, OSError."""
        snapshot = self._env.begin()
        page_bytes = self._env.stat()["psize"]
        meta = Meta.parse(os.pread(self._data, META_BYTES, (snapshot.id() & 1) * page_bytes))
        assert meta is not None
        assert meta.txnid == snapshot.id(), "nobody else commits"
        self._env.sync(True)
        self._record(self._boot_id, meta)
        if self._snapshot is not None:
            self._snapshot.abort()
        self._snapshot, self._meta = snapshot, meta

    def distrust(self) -> None:
        """A write or a sync failed: the next start goes back, although the system did not go down."""
        if self._meta is not None:
            with contextlib.suppress(OSError):  # the same disk: what cannot be written cannot be said either
                self._record(_DISTRUSTED, self._meta)

    def _record(self, boot: bytes, meta: Meta) -> None:
        self._number += 1
        _write(self._file, _Record(self._number, boot, meta))

    def close(self, *, clean: bool) -> None:
        """`clean`: all is synchronised, so the way back is not needed any more."""
        if self._snapshot is not None:
            self._snapshot.abort()
        os.close(self._data)
        os.close(self._file)
        if clean:
            forget(self._path.parent)


def go_back(data_dir: Path) -> None:
    """If the system went down while a relaxed engine ran here, undo what was not synchronised. Raises StorageError.

    Before LMDB opens the directory. Done twice it is the same: the record stays until the next one takes its place.
    """
    last = _way_back(data_dir)
    if last is None:
        return
    page_bytes = last.meta.page_bytes
    with open(data_dir / "data.mdb", "r+b", buffering=0) as data:
        metas = [Meta.parse(os.pread(data.fileno(), META_BYTES, slot * page_bytes)) for slot in (0, 1)]
        present = max([meta.txnid for meta in metas if meta is not None], default=0)
        if present < last.meta.txnid:
            raise StorageError(
                f"{data_dir / 'data.mdb'} is older than {NAME} beside it tells: it was replaced; "
                f"remove {NAME} if that was meant, or restore both"
            )
        for slot in (0, 1):
            os.pwrite(data.fileno(), last.meta.as_of(slot), slot * page_bytes)
        os.fsync(data.fileno())
    _log.warning(
        "the system went down, or a sync failed, while %s was written with durability relaxed: what was acknowledged "
        "after the last sync is undone, %d transactions at least",
        data_dir,
        present - last.meta.txnid,
    )


@contextlib.contextmanager
def distrusting(data_dir: Path) -> Iterator[None]:
    """If a sync in the block fails, the next start goes back, although the system did not go down.

    What could not be written the system may have dropped from its memory, or may yet; and it tells so once, so the next
    sync would succeed.
    """
    try:
        yield
    except (lmdb.Error, OSError):
        with contextlib.suppress(OSError), open(data_dir / NAME, "r+b", buffering=0) as file:
            if (last := _latest(file.read(2 * _SLOT_BYTES))) is not None:
                _write(file.fileno(), _Record(last.number + 1, _DISTRUSTED, last.meta))
        raise


def is_settled(data_dir: Path) -> bool:
    """Whether there is nothing to be undone, so that the file can be read as it is. Raises StorageError."""
    return _way_back(data_dir) is None


def settle(data_dir: Path) -> None:
    """Undo what is to be undone, synchronise the rest, and forget the way back: another file may take the place of
    data.mdb, to which it does not lead. Raises StorageError, OSError.
    """
    if (data_dir / "data.mdb").exists():
        go_back(data_dir)
        with open(data_dir / "data.mdb", "r+b", buffering=0) as data, distrusting(data_dir):
            os.fsync(data.fileno())
    forget(data_dir)


def _way_back(data_dir: Path) -> _Record | None:
    """What to go back to; None: nothing is to be undone. Raises StorageError."""
    try:
        content = (data_dir / NAME).read_bytes()
    except FileNotFoundError:
        return None
    last = _latest(content)
    if last is None:
        if content:  # both slots: no torn write does that
            raise StorageError(
                f"{data_dir / NAME} is damaged: it tells what of data.mdb was on the disk before the system went down; "
                "restore a copy of the data directory, or remove this file if the system did not go down"
            )
        return None  # it was made, and nothing was committed without a sync before its first record
    return None if last.boot_id == boot_id() != _NO_BOOT_ID else last


def forget(data_dir: Path) -> None:
    """Nothing is to be undone any more. Raises OSError."""
    if (data_dir / NAME).exists():
        (data_dir / NAME).unlink()
        sync_directory(data_dir)


def boot_id() -> bytes:
    """What changes whenever the system starts; _NO_BOOT_ID where that is not told: then every end counts as its."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return file.read(36).ljust(36)
    except OSError:
        return _NO_BOOT_ID


def sync_directory(data_dir: Path) -> None:
    """Make the names of new files durable: LMDB synchronises their content only. Raises OSError.

    The directory's own name as well, unless we may pass its parent but not read it: then others made it for us.
    """
    _sync(data_dir)
    with contextlib.suppress(PermissionError):
        _sync(data_dir.absolute().parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(file: int, record: _Record) -> None:
    """In its turn. Raises OSError."""
    content = _RECORD.pack(_MAGIC, record.number, record.boot_id, record.meta.page_bytes, record.meta.page)
    os.pwrite(file, content + _CRC.pack(zlib.crc32(content)), record.number % 2 * _SLOT_BYTES)
    os.fdatasync(file)


def _latest(content: bytes) -> _Record | None:
    """The record that counts; None: there is no sound one."""
    found: list[_Record] = []
    for at in (0, _SLOT_BYTES):
        slot = content[at : at + _RECORD.size + _CRC.size]
        if len(slot) < _RECORD.size + _CRC.size or zlib.crc32(slot[: _RECORD.size]) != _CRC.unpack_from(slot, 208)[0]:
            continue
        magic, number, boot, page_bytes, page = _RECORD.unpack_from(slot)
        meta = Meta.parse(page)
        if magic == _MAGIC and meta is not None and meta.page_bytes == page_bytes:
            found.append(_Record(number, boot, meta))
    return max(found, key=lambda record: record.number, default=None)
