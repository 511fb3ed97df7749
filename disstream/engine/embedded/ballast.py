"""Room on the disk: a ballast that is thrown off when there is none, and a look ahead.

LMDB changes nothing in place: even a transaction that deletes needs pages first. On a full disk it could not get them,
so nothing could ever be freed. So a file beside the data, the *ballast*, holds some room. It is given up only while
transactions run that hold no records (a trim, a deletion, a checkpoint), and put back before the next append: puts
cannot eat it. Where not all of it can be put back, there is a smaller one until the disk has room again.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from pathlib import Path

_log = logging.getLogger("disstream.engine")

NAME = "ballast"

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk, the quota, or what one file may be (ulimit -f): all of them are cured by freeing or granting room."""

LOW_SHARE = 20
LOW_BYTES = 1024**3
"""Room is low when the disk has less than a 20th of its size, or less than this; the smaller counts."""

_PIECE_BYTES = 65_536


class Ballast:
    """The file `ballast` in the directory, of up to `wanted` bytes; 0: none. Used by the thread that commits."""

    def __init__(self, data_dir: Path, wanted: int) -> None:
        self._dir = data_dir
        self._path = data_dir / NAME
        self._wanted = wanted
        self._low = False
        self.held = 0
        if wanted:
            self.put_back()
        else:
            self._path.unlink(missing_ok=True)  # of an earlier configuration

    @property
    def whole(self) -> bool:
        return self.held >= self._wanted

    def give_up(self) -> None:
        """Its room is free when this returns, unless others on the disk are faster."""
        if not self.held:
            return
        self.held = 0
        with contextlib.suppress(OSError), open(self._path, "r+b", buffering=0) as file:
            file.truncate(0)
            os.fsync(file.fileno())  # ext4 grants freed blocks once its journal says that they are free

    def put_back(self) -> None:
        """Take as much of it as there is."""
        try:
            # Not to be appended to: where the disk cannot reserve, the C library writes, at places of its choice.
            with open(self._path, "r+b" if self._path.exists() else "xb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                if size > self._wanted:
                    file.truncate(self._wanted)
                elif not _grow(file.fileno(), 0, self._wanted):  # from the beginning: a copy of it may have holes
                    while size < self._wanted and _grow(file.fileno(), size, min(size + _PIECE_BYTES, self._wanted)):
                        size += _PIECE_BYTES
                    file.truncate(size)  # what the last attempt got is less than a piece
                self.held = os.fstat(file.fileno()).st_size
        except OSError as exc:
            _log.warning("there is no ballast in %s, so nothing can be freed once the disk is full: %s", self._dir, exc)

    def look(self) -> int:
        """Bytes that the disk has for us. Warns once when that is little, and says once that it no longer is."""
        found = os.statvfs(self._dir)
        free = found.f_bavail * found.f_frsize
        low = min(found.f_blocks * found.f_frsize // LOW_SHARE, LOW_BYTES)
        if not self._low and free < low:
            self._low = True
            _log.warning(
                "the disk of %s is nearly full: %d MiB left; free or add room, or keep records for less long",
                self._dir,
                free >> 20,
            )
        elif self._low and free >= low + low // 4:
            self._low = False
            _log.info("the disk of %s has room again: %d MiB", self._dir, free >> 20)
        if not self.whole and free >= self._wanted + low // 4:
            self.put_back()
        return free


def _grow(file: int, size: int, wanted: int) -> bool:
    """Reserve what lies between; False: there is not so much."""
    try:
        os.posix_fallocate(file, size, wanted - size)
    except OSError as exc:
        if exc.errno not in NO_ROOM:
            raise
        return False
    return True
