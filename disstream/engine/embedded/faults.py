"""What a failed transaction means: whether it may be in the file, and whether the engine may go on.

A transaction counts from the moment its meta page is written, which is the last thing a commit does: pages are written,
then synchronised, then the meta page is written and synchronised (with `fsync`).

    refused    LMDB did not take it (no room in the map, no memory, a damaged page): nothing was stored, go on
    no room    the disk, a quota or a limit did not take the pages: nothing was stored, go on
    failed     writing or synchronising failed: nothing was stored, *stop*
    unknown    the meta page failed: nobody knows whether it was stored, *stop*

Why a failed sync is never tried again: the system may have dropped the pages that it could not write, and tells so
once. The next sync then succeeds, and says nothing about them. A process that stops, and starts again from what the
disk holds, is told the truth.

LMDB reports EIO for a write that the disk took in part, which is how most disks become full, as it does for a sync that
failed. So room is asked for once more: only where there is none the disk is full, everything else is a failure. (Should
a sync fail on a disk that is full as well, it is taken for a full one. That harms nobody: pages of a transaction that
counts were all synchronised before, and the next one writes its own anew.) And a sync may fail for lack of room too
(thin volumes, NFS): a descriptor of our own, on which the system tells once that it could not write something, tells
that from a write that was refused.
"""

from __future__ import annotations

import errno
import os
from typing import Literal, NamedTuple

import lmdb

from .ballast import NO_ROOM

Kind = Literal["refused", "no room", "failed", "unknown"]


_JOB_PAGES = 8
"""How many pages a job may take besides its bytes: its path in two trees, rather too many."""

_MARGIN_BYTES = 1024**2
"""What a transaction may take besides its jobs: forgotten rows that are swept, the list of free pages."""


class Fault(NamedTuple):
    kind: Kind
    told: str
    """What happened, and the remedy."""

    @property
    def stops(self) -> bool:
        return self.kind in ("failed", "unknown")


def judge(exc: lmdb.Error, env: lmdb.Environment, data: int, transaction: int, sizes: list[int]) -> Fault:
    """What `exc` means. `transaction`: the number of the one that was being committed; 0: it had not come so far.

    `data`: a descriptor of the file, opened before anything was written. `sizes`: the bytes of each job.
    """
    if transaction and not _never_counted(env, transaction):
        return Fault("unknown", f"{exc}; check the disk, then start again")
    if isinstance(exc, lmdb.PanicError):
        return Fault("failed", f"{exc}; check the disk, then start again")
    if exc.code <= 0 or isinstance(exc, lmdb.MemoryError):  # LMDB's own: the map is full, the file is damaged, ...
        return Fault("refused", f"{exc}; {remedy(exc)}")
    code = _why_full(env, data, sizes) if exc.code == errno.EIO else exc.code
    if code in NO_ROOM and _is_sound(data):
        return Fault("no room", f"the disk has no room for it ({os.strerror(code)}); free some, or forget old rows")
    return Fault("failed", f"{exc}; check the disk, then start again")


def _never_counted(env: lmdb.Environment, transaction: int) -> bool:
    """Whether it is certain, after an error, that `transaction` did not take effect."""
    try:
        env.begin(write=True).abort()  # raises if the meta page could not be written
        return env.info()["last_txnid"] < transaction
    except lmdb.Error:
        return False


def _why_full(env: lmdb.Environment, data: int, sizes: list[int]) -> int:
    """With which error the file cannot grow by so much; 0: it can. What it grows here, later transactions use."""
    page_bytes = env.stat()["psize"]
    wanted_bytes = sum([(size // page_bytes + _JOB_PAGES) * page_bytes for size in (*sizes, 0)])
    found = os.fstatvfs(data)
    if found.f_bavail * found.f_frsize < wanted_bytes + _MARGIN_BYTES:
        return errno.ENOSPC
    try:
        os.posix_fallocate(data, (env.info()["last_pgno"] + 1) * page_bytes, wanted_bytes)
    except OSError as exc:
        return exc.errno or 0
    return 0


def _is_sound(data: int) -> bool:
    """Whether all that was written so far could be written back."""
    try:
        os.fdatasync(data)
    except OSError:
        return False
    return True


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
    if exc.code <= 0:  # LMDB's own, about what it finds in the file
        return "the file is damaged or not ours: restore a copy, or use another directory"
    return "check the disk, the directory's owner and its permissions"
