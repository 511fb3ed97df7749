"""Whether a data directory holds what it should: every table walked, every batch summed.

What is checked, and in which order:

    the pages      by reading the file, without LMDB: every page reachable once, or free. Only where no server runs
    partitions     keys and states can be read, no slot is used twice, none is beyond the counter
    dropped        likewise, and nobody uses these slots any more
    batches        checksum, rows, weight; as many rows as the key says; no gap and no overlap from the oldest readable
                   row to the newest; times that never decrease; a slot that a partition has, or had
    writers        can be read, belong to a slot that there is, and claim no row that is not there
    catalog        keys are text, versions are below the counter. What the documents are, others check (`judge`)

The pages come first: where they are damaged, LMDB is not let near the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, Protocol

import msgspec
from lmdb.verify import VerifyError, verify

from ...errors import StorageError
from ..api import PartitionRef
from ..rules import MAX_KEY_BYTES, weigh
from . import batch
from .partitions import STATE_BYTES, PartitionState, parse_ref, parse_state
from .visit import Tell, Visit, claimed, data_file, look, refuse_unsettled
from .writers import parse_writer

MAX_FINDINGS = 1_000
"""Told one by one; more are counted."""

RESTORE = "restore a backup"


class Judge(Protocol):
    """Knows what the catalog's documents are."""

    def document(self, key: str, value: bytes) -> str | None:
        """Look at one. Returns what is wrong with it."""
        ...

    def end(self, epochs: Mapping[PartitionRef, int]) -> Iterable[tuple[str, str | None, int | None]]:
        """What is wrong with all of it together, with stream id and partition; `epochs`: the partitions of the log."""
        ...


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that is not as it should be, and what to do about it. `first` to `last`: the rows that it is about."""

    what: str
    remedy: str
    stream_id: str | None = None
    partition: int | None = None
    first: int | None = None
    last: int | None = None


class CheckReport(msgspec.Struct, omit_defaults=False, kw_only=True):
    """What was found. `server`: the process that serves from the directory; `swept_later`: batches of forgotten rows,
    which go piece by piece."""

    directory: str
    format: int = 0
    server: int | None = None
    pages: Literal["sound", "damaged", "not checked"] = "not checked"
    partitions: int = 0
    batches: int = 0
    rows: int = 0
    bytes: int = 0
    swept_later: int = 0
    writers: int = 0
    documents: int = 0
    findings: list[Finding] = []
    more: int = 0

    @property
    def clean(self) -> bool:
        return not self.findings

    def found(self, what: str, remedy: str, ref: PartitionRef | None = None, *rows: int) -> None:
        """Add a finding; `rows`: the first and the last that it is about."""
        stream_id, number = ref or (None, None)
        first, last = rows or (None, None)
        self.add(Finding(what, remedy, stream_id, number, first, last))

    def add(self, finding: Finding) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding)
        else:
            self.more += 1


def check(data_dir: str, tell: Tell, judge: Judge | None = None) -> CheckReport:
    """Check a directory. Raises StorageError where there is nothing to be checked.

    Keeps servers out while it runs. Beside a server, it checks what was committed when it began.
    """
    directory = Path(data_dir)
    report = CheckReport(directory=data_dir)
    data_file(directory)
    with claimed(directory, "checking") as server:
        report.server = server
        if server is None:
            refuse_unsettled(directory)
            _check_pages(directory, report, tell)
        if report.pages != "damaged":
            with look(directory, server) as visit:
                report.format = visit.format
                _Walk(visit, report, tell).run(judge)
    return report


def _check_pages(directory: Path, report: CheckReport, tell: Tell) -> None:
    tell("reading the pages", 0, 0)
    try:
        errors = verify(directory)  # type: ignore[no-untyped-call]
    except VerifyError as exc:
        errors = [str(exc)]
    report.pages = "damaged" if errors else "sound"
    for error in errors:
        report.found(f"damaged pages: {error}", RESTORE)


class _Partition:
    """What the walk knows of a partition. `next`: behind its last batch; None before its first. `held`: what the rows
    weigh that its record counts; None if it counts none, or not all of them are there.
    """

    def __init__(self, ref: PartitionRef, state: PartitionState, *, counts: bool) -> None:
        self.ref = ref
        self.state = state
        self.held = 0 if counts else None
        self.next: int | None = None
        self.last_ms = 0

    @property
    def end(self) -> int:
        """The number of the next row to come."""
        return max(self.state.next, self.next or 0)


class _Walk:
    """One look at all tables."""

    def __init__(self, visit: Visit, report: CheckReport, tell: Tell) -> None:
        self._visit = visit
        self._report = report
        self._tell = tell
        self._slots: dict[int, _Partition] = {}
        self._dropped: set[int] = set()
        self._last_slot = int.from_bytes(visit.meta("slot"), "big")

    def run(self, judge: Judge | None) -> None:
        self._partitions()
        self._drops()
        self._batches()
        self._writers()
        self._catalog(judge)

    # --- tables ---------------------------------------------------------------------------------------------------

    def _partitions(self) -> None:
        for stored, value in self._visit.walk("partitions"):
            self._report.partitions += 1
            try:
                ref, state = parse_ref(stored), parse_state(value)
            except (UnicodeDecodeError, struct.error) as exc:
                self._report.found(f"the record of a partition, {stored.hex()}, cannot be read: {exc}", RESTORE)
                continue
            if state.oldest > state.next:
                self._report.found(f"its oldest row {state.oldest} is behind its next, {state.next}", RESTORE, ref)
            self._check_slot(state.slot, ref)
            if (other := self._slots.get(state.slot)) is not None:
                self._report.found(f"it has the slot {state.slot} of {_name(other.ref)}", RESTORE, ref)
            self._slots[state.slot] = _Partition(ref, state, counts=len(value) == STATE_BYTES)

    def _drops(self) -> None:
        for stored, _ in self._visit.walk("dropped"):
            slot = int.from_bytes(stored, "big")
            self._dropped.add(slot)
            self._check_slot(slot, None)
            if (taken := self._slots.get(slot)) is not None:
                what = f"its slot {slot} is to be swept: its rows are going to be deleted"
                self._report.found(what, "start no server here; " + RESTORE, taken.ref)

    def _check_slot(self, slot: int, ref: PartitionRef | None) -> None:
        if not 1 <= slot <= self._last_slot:
            what = f"slot {slot} was never given out, the last one was {self._last_slot}"
            self._report.found(what, RESTORE, ref)

    def _batches(self) -> None:
        total = self._visit.entries("batches")
        strangers: set[int] = set()
        for count, (stored, value) in enumerate(self._visit.walk("batches")):
            self._tell("checking the batches", count, total)
            try:
                slot, last = batch.parse_key(stored)
            except struct.error:
                self._report.found(f"a batch has the key {stored.hex()}, which is none", RESTORE)
                continue
            partition = self._slots.get(slot)
            if partition is not None:
                self._batch(partition, last, value)
            elif slot in self._dropped:
                self._report.swept_later += 1
            elif slot not in strangers:
                strangers.add(slot)
                self._report.found(f"there are batches of slot {slot}, which no partition has", RESTORE)
        self._tell("checking the batches", total, total)
        for partition in self._slots.values():
            self._end(partition)

    def _batch(self, partition: _Partition, last: int, value: memoryview) -> None:
        ref, oldest = partition.ref, partition.state.oldest
        try:
            head = batch.verify(value)
            rows = batch.rows(value)
        except batch.Damaged as exc:
            self._damaged(partition, last, value, str(exc))
            return
        self._report.batches += 1
        first = last + 1 - head.length
        if head.first != first:
            what = f"the batch that ends with row {last} tells of rows {head.first} to {head.first + head.length - 1}"
            self._report.found(what, RESTORE, ref, max(first, 0), last)
        if head.weight != weigh(rows):
            self._report.found(
                f"it tells a weight of {head.weight}, its rows have {weigh(rows)}", RESTORE, ref, first, last
            )
        self._follow(partition, first, last)
        if partition.held is not None and first < partition.state.next:
            whole = last < partition.state.next
            partition.held += head.weight if whole else weigh(rows[: partition.state.next - first])
        for time_ms in (*(rows.times or ()), head.append_ms):
            if time_ms < partition.last_ms:
                what = f"it was appended at {time_ms} ms, after one of {partition.last_ms} ms: times only grow"
                self._report.found(what, "reading from a time may begin elsewhere", ref, first, last)
                break
            partition.last_ms = time_ms
        if last < oldest:
            self._report.swept_later += 1
        else:
            self._report.rows += last + 1 - max(first, oldest)
            self._report.bytes += head.weight

    def _damaged(self, partition: _Partition, last: int, value: memoryview, why: str) -> None:
        """Its rows are those up to `last` that the batch before it has not; its header is not to be believed."""
        first = partition.next
        if first is None:
            first = partition.state.oldest if partition.state.oldest <= last else last
        reset = f"disstream app reset APP STREAM --partition {partition.ref.number} --to {last + 1}"
        remedy = f"{RESTORE}, or read on behind it: {reset}"
        self._report.found(f"damaged batch: {why}", remedy, partition.ref, first, last)
        partition.next = last + 1
        partition.held = None

    def _follow(self, partition: _Partition, first: int, last: int) -> None:
        """Whether a batch begins where the one before ended; the first one may begin before the oldest row."""
        expected = partition.state.oldest if partition.next is None else partition.next
        if first > expected and last >= partition.state.oldest:
            self._missing(partition, max(expected, partition.state.oldest), first - 1)
        elif first < expected and partition.next is not None:
            what = "rows are there twice: a batch begins before the end of the one before"
            self._report.found(what, RESTORE, partition.ref, first, expected - 1)
            partition.held = None
        partition.next = last + 1

    def _end(self, partition: _Partition) -> None:
        oldest, following = partition.state.oldest, partition.state.next
        begin = max(oldest, partition.next or 0)
        if begin < following:
            self._missing(partition, begin, following - 1)
        if partition.held not in (None, partition.state.held):
            what = f"its record counts {partition.state.held} bytes, its batches have {partition.held}"
            self._report.found(what, "retention by bytes counts wrongly until all of it is gone", partition.ref)

    def _missing(self, partition: _Partition, first: int, last: int) -> None:
        if first <= last:
            self._report.found("rows are missing", RESTORE, partition.ref, first, last)
            partition.held = None

    def _writers(self) -> None:
        total = self._visit.entries("writers")
        for count, (stored, value) in enumerate(self._visit.walk("writers")):
            self._tell("checking the producers", count, total)
            self._report.writers += 1
            try:
                slot, producer, state = parse_writer(stored, value)
            except StorageError as exc:
                self._report.found(str(exc), f"let that producer start anew, or {RESTORE}")
                continue
            partition = self._slots.get(slot)
            if partition is None:
                if slot not in self._dropped:
                    what = f"producer {producer} is remembered in slot {slot}, which no partition has"
                    self._report.found(what, "nothing: it takes some bytes")
                continue
            end = max((span.first + span.end - span.number for span in state.spans), default=0)
            if end > partition.end:
                what = f"producer {producer} stored rows that are not there"
                self._report.found(what, RESTORE, partition.ref, partition.end, end - 1)

    def _catalog(self, judge: Judge | None) -> None:
        total = self._visit.entries("catalog")
        newest = int.from_bytes(self._visit.meta("version"), "big")
        for count, (stored, value) in enumerate(self._visit.walk("catalog")):
            self._tell("checking the catalog", count, total)
            self._report.documents += 1
            try:
                key = bytes(stored).decode()
            except UnicodeDecodeError as exc:
                self._report.found(f"the key of a document, {stored.hex()}, is no text: {exc}", RESTORE)
                continue
            version = int.from_bytes(value[:8], "big")
            if len(value) < 8 or not 1 <= version <= newest or len(stored) > MAX_KEY_BYTES:
                self._report.found(f"document {key!r} has version {version}, the last one was {newest}", RESTORE)
            elif judge is not None and (wrong := judge.document(key, bytes(value[8:]))) is not None:
                self._report.found(f"document {key!r}: {wrong}", RESTORE)
        self._tell("checking the catalog", total, total)
        if judge is not None:
            epochs = {partition.ref: partition.state.epoch for partition in self._slots.values()}
            for what, stream_id, number in judge.end(epochs):
                self._report.add(Finding(what, RESTORE, stream_id, number))


def _name(ref: PartitionRef) -> str:
    return f"partition {ref.number} of stream id {ref.stream_id}"
