"""What a data directory holds, in figures: per partition, and of the file.

Rows and their bounds are in the partitions' records, bytes and times in the headers of the batches: one page of each
batch is touched, its rows are not read and not verified (`check` does that).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import msgspec

from ...errors import StorageError
from . import batch
from .environment import DATA
from .partitions import parse_ref, parse_state
from .visit import TABLES, Tell, Visit, visit


class PartitionFigures(msgspec.Struct, kw_only=True):
    """`rows` from `oldest` on can be read. `bytes`: of payloads and keys in `batches`, the rows before `oldest` in the
    first of them included. `oldest_ms`, `newest_ms`: when the last row of the first and of the last batch was appended;
    None: no batch.
    """

    stream_id: str
    stream: str | None
    partition: int
    epoch: int
    oldest: int
    next: int
    rows: int = 0
    bytes: int = 0
    batches: int = 0
    oldest_ms: int | None = None
    newest_ms: int | None = None


class TableFigures(msgspec.Struct, kw_only=True):
    name: str
    entries: int
    pages: int


class DataFigures(msgspec.Struct, kw_only=True):
    """A directory. `pages` of `page_bytes` each: those the file has, of which `live_pages` hold something and
    `free_pages` are used again, as soon as no reader needs what they held. `garbage_batches`: of forgotten rows, still
    to be deleted. `readers`: (process id, number of the transaction whose snapshot it reads; None: of none just now).
    """

    directory: str
    format: int
    server: int | None
    file_bytes: int
    disk_free_bytes: int
    map_bytes: int
    page_bytes: int
    pages: int
    live_pages: int
    free_pages: int
    last_transaction: int
    readers: list[tuple[int, int | None]]
    tables: list[TableFigures]
    partitions: list[PartitionFigures]
    garbage_batches: int = 0

    @property
    def rows(self) -> int:
        return sum(partition.rows for partition in self.partitions)


def figures(data_dir: str, tell: Tell, names: str = "") -> DataFigures:
    """Look at a directory, also beside a running server. Raises StorageError with the remedy.

    `names`: how the catalog's keys begin that go on with project and stream id, and whose documents are the streams'
    names.
    """
    directory = Path(data_dir)
    with visit(directory, "reading") as found:
        partitions, garbage = _partitions(found, tell, _names(found, names) if names else {})
        live = found.live_pages()
        disk = os.statvfs(directory)
        info = found.env.info()
        return DataFigures(
            directory=data_dir,
            format=found.format,
            server=found.server,
            file_bytes=(directory / DATA).stat().st_size,
            disk_free_bytes=disk.f_bavail * disk.f_frsize,
            map_bytes=info["map_size"],
            page_bytes=found.page_bytes,
            pages=found.pages,
            live_pages=live,
            free_pages=found.pages - live,
            last_transaction=found.txn.id(),
            readers=_readers(found),
            tables=[
                TableFigures(name=name, entries=found.entries(name), pages=found.pages_of(name)) for name in TABLES
            ],
            partitions=sorted(partitions, key=lambda p: (p.stream or "", p.stream_id, p.partition)),
            garbage_batches=garbage,
        )


def _partitions(found: Visit, tell: Tell, names: dict[str, str]) -> tuple[list[PartitionFigures], int]:
    by_slot: dict[int, PartitionFigures] = {}
    for stored, value in found.walk("partitions"):
        try:
            ref, state = parse_ref(stored), parse_state(value)
        except (UnicodeDecodeError, struct.error) as exc:
            raise _damaged(found, f"the record of a partition, {bytes(stored).hex()}: {exc}") from exc
        by_slot[state.slot] = PartitionFigures(
            stream_id=ref.stream_id,
            stream=names.get(ref.stream_id),
            partition=ref.number,
            epoch=state.epoch,
            oldest=state.oldest,
            next=state.next,
        )
    garbage = 0
    total = found.entries("batches")
    for count, (stored, value) in enumerate(found.walk("batches")):
        tell("reading the batches", count, total)
        try:
            slot, last = batch.parse_key(stored)
            head = batch.header(value)
        except (struct.error, batch.Damaged) as exc:
            raise _damaged(found, f"batch {bytes(stored).hex()}: {exc}") from exc
        partition = by_slot.get(slot)
        if partition is None or last < partition.oldest:
            garbage += 1
            continue
        partition.next = max(partition.next, last + 1)
        partition.bytes += head.weight
        partition.batches += 1
        if partition.oldest_ms is None:
            partition.oldest_ms = head.append_ms
        partition.newest_ms = head.append_ms
    tell("reading the batches", total, total)
    for partition in by_slot.values():
        partition.rows = partition.next - partition.oldest
    return list(by_slot.values()), garbage


def _names(found: Visit, begin: str) -> dict[str, str]:
    """Stream id -> project/name."""
    names: dict[str, str] = {}
    prefix = begin.encode()
    for stored, value in found.walk("catalog", prefix):
        if not bytes(stored).startswith(prefix):
            break
        project, _, stream_id = bytes(stored[len(prefix) :]).decode(errors="replace").rpartition("/")
        names[stream_id] = f"{project}/{bytes(value[8:]).decode(errors='replace')}"
    return names


def _readers(found: Visit) -> list[tuple[int, int | None]]:
    """From the text that LMDB has: a header, and process id, thread and transaction in each line."""
    lines = [line.split() for line in found.env.readers().splitlines()]
    rows = [line for line in lines if len(line) == 3 and line[0].isdecimal() and int(line[0]) != os.getpid()]
    return [(int(pid), int(txn) if txn.isdecimal() else None) for pid, _, txn in rows]


def _damaged(found: Visit, what: str) -> StorageError:
    return StorageError(f"{found.directory} is damaged, {what}; `disstream data check` tells all of it")
