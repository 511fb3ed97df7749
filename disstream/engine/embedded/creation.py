"""A new data directory: after a power failure at any moment it is there as a whole, or as good as not begun.

    DIR and its parents      made, and their names synchronised, from the highest on
    data.mdb.first/data.mdb  an LMDB file with our format in it, synchronised
    data.mdb                 the same, renamed, and its name synchronised

LMDB alone would make data.mdb in place: cut short, or empty, it is taken for one that was damaged, and refused. What
is in `data.mdb.first` is nobody's: whoever finds it removes it, so it has a name that nobody gives to a backup. A
directory, because a file under another name would remember that it was opened by its name.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import lmdb

from .synced import sync_directory

FIRST = "data.mdb.first"


def make_directory(data_dir: Path) -> None:
    """Make it if it is not there, with all parents. Raises OSError."""
    missing = [parent for parent in (data_dir, *data_dir.parents) if not parent.exists()]
    data_dir.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):
        sync_directory(made)  # and its name in its parent


def make_data(data_dir: Path, path: Path, *, form: bytes, map_size_bytes: int) -> None:
    """Make the file `path` in a directory that is ours, with the format `form`. Raises lmdb.Error, OSError."""
    first = data_dir / FIRST
    discard_first(data_dir)
    try:
        env = lmdb.Environment(os.fspath(first), lock=False, map_size=map_size_bytes, max_dbs=1)
        try:
            with env.begin(write=True) as txn:
                txn.put(b"format", form, db=env.open_db(b"meta", txn=txn))
        finally:
            env.close()
        descriptor = os.open(first / path.name, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:
        discard_first(data_dir)
        raise
    os.replace(first / path.name, path)
    first.rmdir()
    sync_directory(data_dir)


def discard_first(data_dir: Path) -> None:
    """Remove what was begun and not finished. Raises OSError."""
    first = data_dir / FIRST
    with contextlib.suppress(FileNotFoundError):
        (first / "data.mdb").unlink()
    with contextlib.suppress(FileNotFoundError):
        first.rmdir()
