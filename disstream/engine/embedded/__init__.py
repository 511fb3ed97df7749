"""The default engine: log and catalog in one LMDB environment, with group commit.

environment  the directory: its configuration, lock, format version, and the tables in the LMDB file
creation     a new directory, whole or not there
progress     how far the first start on one of an earlier version is
batch        how a stored batch looks, byte by byte (pure)
merging      which stored batches become one (pure)
seeking      which row is the first one at or after a time (pure)
writers      what is remembered of producers, byte by byte
partitions   where a partition stands, and the record of it
commit       the one thread that writes: group commit, what happens when storage fails
write        what a job of that thread works with
faults       what a failed transaction means: whether it may be stored, whether the engine may go on
ballast      room on the disk: what is kept for deletions, and a warning before there is none
header       LMDB's first pages, as far as we look at them (pure)
synced       "relaxed": the way back to what was synchronised, after a power failure
watch        figures of the thread for `stats()`
sweeping     what is forgotten leaves the file, in pieces that hold up nobody; who keeps it from becoming free
riding       both beside the jobs of a transaction, which must not fail for them
heat         which rows are certainly in memory (pure)
reading      where a read happens: on the loop if it is hot, else in a thread
log          `Log`: reads, and writes as jobs for the thread
catalog      `Catalog`, likewise

Looked at from outside, by processes that do not serve (`disstream data`):

visit        a directory opened for that, beside a server or without one
check        every table walked, every batch summed
figures      rows, bytes and pages, counted
backup       copies: made, put back, packed
copying      one snapshot into a file, given up if that hangs
child        such a job in a process of its own, which a damaged file may kill

The server opens it with a data directory. One process at a time; after a crash nothing needs repair.
"""

from __future__ import annotations

from pathlib import Path

from ..api import EngineStats
from .catalog import EmbeddedCatalog
from .commit import Committer
from .environment import EmbeddedConfig
from .log import EmbeddedLog

__all__ = ["EmbeddedConfig", "EmbeddedEngine"]


class EmbeddedEngine:
    """`Engine` in the directory `data_dir`, which is created if need be and belongs to one process at a time.

    Use it from the loop that called `start()`. A fork must not use it: LMDB and the commit thread stay behind.
    """

    def __init__(self, data_dir: str | Path, config: EmbeddedConfig | None = None) -> None:
        self._committer = Committer(Path(data_dir), config or EmbeddedConfig())
        self._log = EmbeddedLog(self._committer)
        self._catalog = EmbeddedCatalog(self._committer)

    @property
    def log(self) -> EmbeddedLog:
        return self._log

    @property
    def catalog(self) -> EmbeddedCatalog:
        return self._catalog

    async def start(self) -> None:
        """Open the directory. Raises StorageError with the remedy; a second start (also after close) raises it too.

        Cancelled: the directory is released as soon as its opening ended.
        """
        await self._committer.start()

    def stats(self) -> EngineStats:
        """What it has done, and the room it has. Raises StorageError unless it runs."""
        return self._committer.stats()

    async def wait_failed(self) -> None:
        await self._committer.wait_failed()

    async def close(self) -> None:
        """Store what was accepted, then release the directory; waits return False.

        Cancelled: it closes all the same.
        """
        await self._committer.close()
