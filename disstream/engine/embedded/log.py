"""`Log` on LMDB: reads come straight from the mapped file (`reading`); writes are jobs for the commit thread."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from typing import NamedTuple

import lmdb

from ...errors import StorageError
from ..api import AppendRefused, Batch, Bounds, Entry, Known, PartitionRef, Replayed, Span, Surplus, Writer
from ..columns import Columns, Times
from ..rules import MAX_READ_ROWS, check_append, check_open, check_recall, weigh
from ..surplus import Piece, surplus
from ..writers import WriterState, judge
from ..writers import stored as remembered
from . import batch
from .commit import Committer
from .environment import Environment
from .partitions import UNRECORDED_BATCHES, PartitionState
from .seeking import Search
from .sweeping import EVERYTHING, Garbage
from .write import Write


class EmbeddedLog:
    """A read of what is not just written happens in a thread: it may have to wait for the disk."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer

    # --- writing: the checks and the encoding here, the rest on the thread ---------------------------------------

    async def open(self, partitions: Mapping[PartitionRef, int]) -> None:
        check_open(partitions)
        wanted = dict(partitions)
        await self._committer.submit(lambda write: _open(write, wanted))

    async def append(self, entries: Sequence[Entry], now_ms: int) -> list[int | AppendRefused | Replayed]:
        self._committer.check()
        check_append(entries, now_ms)
        # Encoded here and not on the thread: it overlaps with the fsync of the jobs before. On the thread it measured
        # 10 % faster at 100 B and 10 % slower at 1 KiB, but beside a busy loop a thread should hold the GIL briefly.
        encoded = [_Encoded(entry, batch.encode(entry.rows)) for entry in entries]
        size = sum([len(rows.buffer) for _, rows in encoded])
        self._committer.reading.wrote(size, self._committer.states)
        return await self._committer.submit(lambda write: _append(write, encoded, now_ms), size, append=True)

    async def trim(self, partition: PartitionRef, before: int) -> None:
        """Does nothing for a partition that is not open."""
        await self._committer.submit(lambda write: _trim(write, partition, before))

    async def drop(self, stream_id: str) -> None:
        await self._committer.submit(lambda write: _drop(write, stream_id))

    # --- reading -------------------------------------------------------------------------------------------------

    async def recall(self, asked: Sequence[tuple[PartitionRef, Writer, int]], now_ms: int) -> list[Known]:
        env = self._committer.check()
        check_recall(asked, now_ms)
        found: list[Known] = []
        with env.reading() as txn:
            for ref, writer, rows in asked:
                state = self._committer.states.get(ref)
                if state is None:
                    found.append(Known((), AppendRefused(f"{ref} is not open")))
                else:
                    known = env.writers.get(txn, state.slot, writer.producer)
                    found.append(judge(known, writer, rows, max(state.last_ms, now_ms)))
        return found

    async def read(self, partition: PartitionRef, from_sequence: int, max_bytes: int) -> list[Batch]:
        """Ends before a damaged batch; raises StorageError that names it if the first one is damaged."""
        env = self._committer.check()
        state = self._committer.states.get(partition)
        if state is None or not state.oldest <= from_sequence < state.next:
            return []
        return await self._committer.reading.run(
            env, partition, from_sequence, lambda _, cursor: _read(cursor, partition, state, from_sequence, max_bytes)
        )

    async def wait(self, partition: PartitionRef, after: int, deadline: float) -> bool:
        """False as well when the engine closes or stops meanwhile."""
        self._committer.check()
        state = self._committer.states.get(partition)
        if state is not None and state.next > after:
            return True
        return await self._committer.waiters.wait(partition, after, deadline)

    def watch(
        self, partitions: Collection[PartitionRef], moved: Callable[[PartitionRef, int | None], None]
    ) -> AbstractContextManager[None]:
        self._committer.check()
        return self._committer.waiters.watch(partitions, moved)

    async def bounds(self, partitions: Sequence[PartitionRef]) -> list[Bounds | None]:
        self._committer.check()
        found = [self._committer.states.get(ref) for ref in partitions]
        return [Bounds(state.oldest, state.next, state.epoch) if state else None for state in found]

    async def seek(self, partition: PartitionRef, time_ms: int) -> int:
        """0 for a partition that is not open."""
        env = self._committer.check()
        state = self._committer.states.get(partition)
        if state is None:
            return 0
        return await self._committer.reading.run(
            env, partition, state.oldest, lambda _, cursor: _seek(cursor, partition, state, time_ms)
        )

    async def surplus(self, partitions: Collection[PartitionRef], keep_bytes: int) -> Surplus:
        env = self._committer.check()
        states = self._committer.states
        refs = [ref for ref in partitions if ref in states]
        if sum([states[ref].held for ref in refs]) <= keep_bytes:
            return Surplus({})
        return await self._committer.reading.run_aside(
            env, lambda txn, cursor: _surplus(env, txn, cursor, refs, keep_bytes)
        )


def _open(write: Write, wanted: dict[PartitionRef, int]) -> None:
    for ref, epoch in wanted.items():
        state = write.state(ref)
        if state is not None and epoch < state.epoch:
            raise StorageError(f"epoch {epoch} of {ref} is lower than its present {state.epoch}: epochs only grow")
    for ref, epoch in wanted.items():
        state = write.state(ref)
        if state is not None and epoch == state.epoch:
            continue
        slot = state.slot if state else write.env.count_up(write.txn, b"slot")
        opened = state._replace(epoch=epoch) if state else PartitionState(slot, epoch)
        write.set_state(ref, write.env.put_state(write.txn, ref, opened))


class _Encoded(NamedTuple):
    entry: Entry
    rows: batch.Encoded


def _append(write: Write, entries: list[_Encoded], now_ms: int) -> list[int | AppendRefused | Replayed]:
    # First, because what is damaged there raises: nothing may be written by then.
    writers = _recalled(write, entries)
    results: list[int | AppendRefused | Replayed] = []
    for entry, rows in entries:
        ref, _, expected, writer = entry
        state = write.state(ref)
        if state is None:
            results.append(AppendRefused(f"{ref} is not open"))
        elif state.epoch != expected:
            results.append(AppendRefused(f"{ref} has epoch {state.epoch}, not {expected}", state.epoch))
        elif writer is None:
            results.append(_store(write, ref, state, rows, max(state.last_ms, now_ms)))
        else:
            results.append(_store_once(write, writers, entry, writer, state, rows, max(state.last_ms, now_ms)))
    return results


_Recalled = dict[tuple[int, str], WriterState | None]
"""What is remembered of producers, by slot and producer."""


def _recalled(write: Write, entries: list[_Encoded]) -> _Recalled:
    found: _Recalled = {}
    for (ref, _, _, writer), _ in entries:
        state = write.state(ref) if writer is not None else None
        if writer is not None and state is not None:
            found[state.slot, writer.producer] = write.env.writers.get(write.txn, state.slot, writer.producer)
    return found


def _store(write: Write, ref: PartitionRef, state: PartitionState, rows: batch.Encoded, append_ms: int) -> int:
    following = state.next + rows.length
    write.txn.put(batch.key(state.slot, following - 1), rows.value(state.next, append_ms), db=write.env.batches)
    write.stored.append((state.slot, state.next, rows.length, len(rows.buffer)))
    write.stored_bytes += rows.weight
    grown = state._replace(
        next=following, last_ms=append_ms, held=state.held + rows.weight, unrecorded=state.unrecorded + 1
    )
    if grown.unrecorded >= UNRECORDED_BATCHES:
        grown = write.env.put_state(write.txn, ref, grown)
    write.set_state(ref, grown)
    return state.next


def _store_once(
    write: Write,
    writers: _Recalled,
    entry: Entry,
    writer: Writer,
    state: PartitionState,
    rows: batch.Encoded,
    append_ms: int,
) -> int | AppendRefused | Replayed:
    whose = state.slot, writer.producer
    before = writers[whose]
    known = judge(before, writer, rows.length, append_ms)
    if known.refused is not None:
        return Replayed(known.spans, 0, known.refused) if known.spans else known.refused
    if known.rows == rows.length:
        return Replayed(known.spans)
    if known.rows:
        rows = batch.encode(entry.rows[known.rows :])
    first = _store(write, entry.partition, state, rows, append_ms)
    number = writer.number + known.rows
    span = Span(number, number + rows.length, first)
    writers[whose] = now = remembered(before, writer, span, append_ms)
    write.env.writers.put(write.txn, *whose, now, new=before is None)
    return Replayed((*known.spans, span), rows.length) if known.spans else first


def _trim(write: Write, ref: PartitionRef, before: int) -> None:
    state = write.state(ref)
    if state is None or min(before, state.next) <= state.oldest:
        return
    trimmed = write.env.put_state(write.txn, ref, state._replace(oldest=min(before, state.next)))
    write.set_state(ref, trimmed)
    write.garbage.append(Garbage(trimmed.slot, trimmed.oldest, ref))


def _drop(write: Write, stream_id: str) -> None:
    for ref, slot in write.env.drop_states(write.txn, stream_id):
        write.set_state(ref, None)
        write.garbage.append(Garbage(slot, EVERYTHING))


def _read(
    cursor: lmdb.Cursor[memoryview], ref: PartitionRef, state: PartitionState, from_sequence: int, max_bytes: int
) -> list[Batch]:
    """The batches from `from_sequence` on; the file may be ahead of `state`, never behind it."""
    found: list[Batch] = []
    left = max_bytes
    wanted = from_sequence
    end = min(state.next, from_sequence + MAX_READ_ROWS)
    more = cursor.set_range(batch.key(state.slot, from_sequence))
    while more and wanted < end:
        slot, last = batch.parse_key(cursor.key())
        if slot != state.slot:
            break
        value = cursor.value()
        try:
            head = batch.verify(value)
            if head.first > wanted:  # swept after a trim that `state` does not know yet
                break
            if head.first + head.length != last + 1:
                raise batch.Damaged("it has not as many rows as its header tells")
            whole = wanted == head.first and last < end and head.weight <= left
            # What goes out whole may never be looked at here.
            rows = batch.unopened(value, head) if whole else batch.rows(value)
        except batch.Damaged as exc:
            if found:
                break
            raise _damaged(ref, wanted, exc) from exc
        weight = head.weight
        if wanted > head.first or last >= end:
            rows = rows[wanted - head.first : end - head.first]
            weight = weigh(rows)
        if weight > left:
            rows = _fitting(rows, left)
            if rows:
                found.append(_batch(wanted, head, rows))
            break
        left -= weight
        found.append(_batch(wanted, head, rows))
        wanted = last + 1
        more = cursor.next()
    return found


def _batch(first: int, head: batch.Header, rows: Columns) -> Batch:
    """These rows, of the batch with that header, from number `first` on."""
    if not rows.timed:
        return Batch(first, head.append_ms, rows)
    times = Times(rows)
    to_its_end = first + len(rows) == head.first + head.length
    return Batch(first, head.append_ms if to_its_end else times[-1], rows, times)


def _fitting(rows: Columns, left: int) -> Columns:
    """As many of the first rows as weigh at most `left`."""
    for index, (size, key) in enumerate(zip(rows.sizes, rows.keys, strict=True)):
        left -= size + (len(key.encode()) if key else 0)
        if left < 0:
            return rows[:index]
    return rows


def _seek(cursor: lmdb.Cursor[memoryview], ref: PartitionRef, state: PartitionState, time_ms: int) -> int:
    """The first row at or after that time; the file may be ahead of `state`, never behind it.

    The time of a batch is that of its last row; only in the batch that is found in the end, its rows are looked at.
    """
    search = Search(state.oldest, state.next, state.last_ms, time_ms)
    while (probe := search.probe()) is not None:
        if not cursor.set_range(batch.key(state.slot, probe)):
            return state.next
        slot, last = batch.parse_key(cursor.key())
        if slot != state.slot:  # dropped, and swept, but `state` does not know yet
            return state.next
        try:
            head = batch.header(cursor.value())
        except batch.Damaged as exc:
            raise _damaged(ref, probe, exc) from exc
        search.told(probe, head.first, last, head.append_ms)
    return _seek_row(cursor, ref, state, search.found, time_ms)


def _seek_row(
    cursor: lmdb.Cursor[memoryview], ref: PartitionRef, state: PartitionState, sequence: int, time_ms: int
) -> int:
    """The first row at or after `time_ms` in the batch that holds `sequence`, none before it; its last row is one."""
    if sequence >= state.next or not cursor.set_range(batch.key(state.slot, sequence)):
        return state.next
    if batch.parse_key(cursor.key())[0] != state.slot:
        return state.next
    try:
        if not batch.header(cursor.value()).timed:
            return sequence
        head = batch.verify(cursor.value())
        times = batch.rows(cursor.value()).times
    except batch.Damaged as exc:
        raise _damaged(ref, sequence, exc) from exc
    return min(max(sequence, head.first + bisect_left(times or [], time_ms)), state.next)


def _surplus(
    env: Environment,
    txn: lmdb.Transaction[memoryview],
    cursor: lmdb.Cursor[memoryview],
    refs: list[PartitionRef],
    keep_bytes: int,
) -> Surplus:
    """All of it told by one snapshot, for while it is looked at there are appends, trims and sweeping."""
    over = -keep_bytes
    stored: dict[PartitionRef, Iterator[Piece]] = {}
    for ref in refs:
        state = env.state(txn, cursor, ref)
        if state is None:
            continue
        over += state.held
        pieces = _pieces(txn, env, ref, state)
        for piece in pieces:
            if piece.end > state.oldest:
                stored[ref] = chain([piece], pieces)
                break
            over -= piece.weight  # forgotten, and not swept yet
    return surplus(over, stored)


def _pieces(
    txn: lmdb.Transaction[memoryview], env: Environment, ref: PartitionRef, state: PartitionState
) -> Iterator[Piece]:
    with txn.cursor(db=env.batches) as cursor:
        more = cursor.set_range(batch.key(state.slot, 0))
        while more:
            slot, last = batch.parse_key(cursor.key())
            if slot != state.slot:
                break
            try:
                head = batch.header(cursor.value())
            except batch.Damaged as exc:
                raise _damaged(ref, last, exc) from exc
            yield Piece(head.append_ms, last + 1, head.weight)
            more = cursor.next()


def _damaged(ref: PartitionRef, sequence: int, exc: batch.Damaged) -> StorageError:
    return StorageError(
        f"the batch with sequence number {sequence} of partition {ref.number} (stream id {ref.stream_id}) is damaged: "
        f"{exc}; read on behind it, or restore a copy of the data directory"
    )
