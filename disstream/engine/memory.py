"""An engine in plain containers: durable for as long as the process lives, exact in everything else.

The oracle of the contract tests, so it is written to be obviously right rather than fast. Nothing here suspends except
`wait`, so every call is atomic.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

from ..errors import CatalogConflict, StorageError
from .api import (
    AppendRefused,
    Batch,
    Bounds,
    EngineStats,
    Entry,
    Known,
    PartitionRef,
    Replayed,
    Row,
    Span,
    Surplus,
    Versioned,
    Writer,
)
from .rules import (
    MAX_READ_ROWS,
    MAX_WRITERS,
    WRITERS_SLACK,
    check_append,
    check_open,
    check_recall,
    check_transaction,
    weigh,
)
from .surplus import Piece, surplus
from .waiters import Waiters
from .writers import WriterState, judge, overdue, stored


class MemoryEngine:
    """Log and catalog in memory. Use it from one loop; it forgets everything when closed."""

    def __init__(self) -> None:
        self._life = _Life()
        self._log = MemoryLog(self._life)
        self._catalog = MemoryCatalog(self._life)

    @property
    def log(self) -> MemoryLog:
        return self._log

    @property
    def catalog(self) -> MemoryCatalog:
        return self._catalog

    async def start(self) -> None:
        """Raises StorageError the second time: a closed memory engine has nothing left to open."""
        if self._life.state != "not started":
            raise StorageError(f"the memory engine is {self._life.state}: make a new one")
        self._life.state = "started"

    def stats(self) -> EngineStats:
        self._life.check()
        return EngineStats(durability="none", loss_s=None)

    async def wait_failed(self) -> None:
        """Never returns: nothing of it can fail."""
        self._life.check()
        await asyncio.get_running_loop().create_future()

    async def close(self) -> None:
        self._life.state = "closed"
        self._log.clear()
        self._catalog.clear()


class _Life:
    """What log and catalog ask before they do anything."""

    def __init__(self) -> None:
        self.state = "not started"

    def check(self) -> None:
        if self.state != "started":
            raise StorageError(f"the memory engine is {self.state}: use it between start() and close()")


class _Partition:
    """`batches` may reach below `oldest`: only whole ones are forgotten. `weights`: what each of them weighs."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.oldest = 0
        self.next = 0
        self.last_ms = 0
        self.batches: list[Batch] = []
        self.weights: list[int] = []
        self.held = 0
        self.writers: dict[str, WriterState] = {}

    def append(self, rows: Sequence[Row], now_ms: int) -> int:
        first = self.next
        self.last_ms = max(self.last_ms, now_ms)
        self.batches.append(Batch(first, self.last_ms, list(rows)))
        self.weights.append(weigh(rows))
        self.held += self.weights[-1]
        self.next += len(rows)
        return first

    def append_once(self, rows: Sequence[Row], writer: Writer, now_ms: int) -> int | AppendRefused | Replayed:
        known = self.recall(writer, len(rows), now_ms)
        if known.refused is not None:
            return Replayed(known.spans, 0, known.refused) if known.spans else known.refused
        left = rows[known.rows :]
        if not left:
            return Replayed(known.spans)
        first = self.append(left, now_ms)
        span = Span(writer.number + known.rows, writer.number + len(rows), first)
        state = self.writers.get(writer.producer)
        if state is None and len(self.writers) >= MAX_WRITERS + WRITERS_SLACK:
            for producer in overdue((producer, state.seen_ms) for producer, state in self.writers.items()):
                del self.writers[producer]
        self.writers[writer.producer] = stored(state, writer, span, self.last_ms)
        return Replayed((*known.spans, span), len(left)) if known.spans else first

    def recall(self, writer: Writer, rows: int, now_ms: int) -> Known:
        return judge(self.writers.get(writer.producer), writer, rows, max(self.last_ms, now_ms))

    def read(self, from_sequence: int, max_bytes: int) -> list[Batch]:
        found: list[Batch] = []
        if not self.oldest <= from_sequence < self.next:
            return found
        index = bisect_right(self.batches, from_sequence, key=lambda batch: batch.first_sequence) - 1
        left = max_bytes
        limit = from_sequence + MAX_READ_ROWS
        for first, append_ms, rows, _ in self.batches[index:]:
            begin = max(from_sequence - first, 0)
            end = begin
            while end < len(rows) and first + end < limit and rows[end].weight <= left:
                left -= rows[end].weight
                end += 1
            if end > begin:
                found.append(Batch(first + begin, append_ms, rows[begin:end]))
            if end < len(rows):
                break
        return found

    def seek(self, time_ms: int) -> int:
        index = bisect_left(self.batches, time_ms, key=lambda batch: batch.append_ms)
        return max(self.batches[index].first_sequence, self.oldest) if index < len(self.batches) else self.next

    def pieces(self) -> Iterator[Piece]:
        for batch, weight in zip(self.batches, self.weights, strict=True):
            yield Piece(batch.append_ms, batch.first_sequence + len(batch.rows), weight)

    def trim(self, before: int) -> None:
        self.oldest = max(self.oldest, min(before, self.next))
        whole = bisect_right(self.batches, self.oldest, key=lambda batch: batch.first_sequence + len(batch.rows))
        self.held -= sum(self.weights[:whole])
        del self.batches[:whole], self.weights[:whole]


class MemoryLog:
    """`Log` in lists."""

    def __init__(self, life: _Life) -> None:
        self._life = life
        self._partitions: dict[PartitionRef, _Partition] = {}
        self._waiters = Waiters()

    async def open(self, partitions: Mapping[PartitionRef, int]) -> None:
        self._life.check()
        check_open(partitions)
        for ref, epoch in partitions.items():
            known = self._partitions.get(ref)
            if known is not None and epoch < known.epoch:
                raise StorageError(f"epoch {epoch} of {ref} is lower than its present {known.epoch}: epochs only grow")
        for ref, epoch in partitions.items():
            known = self._partitions.setdefault(ref, _Partition(epoch))
            known.epoch = epoch

    async def append(self, entries: Sequence[Entry], now_ms: int) -> list[int | AppendRefused | Replayed]:
        self._life.check()
        check_append(entries, now_ms)
        for entry in entries:
            weigh(entry.rows)  # refuses keys that no other engine could keep
        results: list[int | AppendRefused | Replayed] = []
        for ref, rows, expected, writer in entries:
            partition = self._partitions.get(ref)
            if partition is None:
                results.append(AppendRefused(f"{ref} is not open"))
                continue
            if partition.epoch != expected:
                results.append(AppendRefused(f"{ref} has epoch {partition.epoch}, not {expected}", partition.epoch))
                continue
            if writer is None:
                results.append(partition.append(rows, now_ms))
            else:
                results.append(partition.append_once(rows, writer, now_ms))
            self._waiters.advanced(ref, partition.next)
        return results

    async def recall(self, asked: Sequence[tuple[PartitionRef, Writer, int]], now_ms: int) -> list[Known]:
        self._life.check()
        check_recall(asked, now_ms)
        found: list[Known] = []
        for ref, writer, rows in asked:
            partition = self._partitions.get(ref)
            if partition is None:
                found.append(Known((), AppendRefused(f"{ref} is not open")))
            else:
                found.append(partition.recall(writer, rows, now_ms))
        return found

    async def read(self, partition: PartitionRef, from_sequence: int, max_bytes: int) -> list[Batch]:
        self._life.check()
        known = self._partitions.get(partition)
        return known.read(from_sequence, max_bytes) if known else []

    async def wait(self, partition: PartitionRef, after: int, deadline: float) -> bool:
        """False as well when the engine closes meanwhile."""
        self._life.check()
        known = self._partitions.get(partition)
        if known is not None and known.next > after:
            return True
        return await self._waiters.wait(partition, after, deadline)

    def watch(
        self, partitions: Collection[PartitionRef], moved: Callable[[PartitionRef, int | None], None]
    ) -> AbstractContextManager[None]:
        self._life.check()
        return self._waiters.watch(partitions, moved)

    async def bounds(self, partitions: Sequence[PartitionRef]) -> list[Bounds | None]:
        self._life.check()
        found = [self._partitions.get(ref) for ref in partitions]
        return [Bounds(known.oldest, known.next, known.epoch) if known else None for known in found]

    async def seek(self, partition: PartitionRef, time_ms: int) -> int:
        """0 for a partition that is not open."""
        self._life.check()
        known = self._partitions.get(partition)
        return known.seek(time_ms) if known else 0

    async def surplus(self, partitions: Collection[PartitionRef], keep_bytes: int) -> Surplus:
        self._life.check()
        known = {ref: self._partitions[ref] for ref in partitions if ref in self._partitions}
        held = sum(partition.held for partition in known.values())
        return surplus(held - keep_bytes, {ref: partition.pieces() for ref, partition in known.items()})

    async def trim(self, partition: PartitionRef, before: int) -> None:
        """Does nothing for a partition that is not open."""
        self._life.check()
        known = self._partitions.get(partition)
        if known is not None:
            known.trim(before)

    async def drop(self, stream_id: str) -> None:
        self._life.check()
        dropped = [ref for ref in self._partitions if ref.stream_id == stream_id]
        for ref in dropped:
            del self._partitions[ref]
            self._waiters.dropped(ref)

    def clear(self) -> None:
        """Forget everything and let all waits return."""
        self._partitions.clear()
        self._waiters.close()


class MemoryCatalog:
    """`Catalog` in a dict, with its keys in order beside it."""

    def __init__(self, life: _Life) -> None:
        self._life = life
        self._values: dict[str, Versioned] = {}
        self._keys: list[str] = []
        self._version = 0
        self.revision = 0

    async def get(self, key: str) -> Versioned | None:
        self._life.check()
        return self._values.get(key)

    async def scan(self, prefix: str, after: str = "", limit: int = 1000) -> list[tuple[str, Versioned]]:
        self._life.check()
        found: list[tuple[str, Versioned]] = []
        index = max(bisect_left(self._keys, prefix), bisect_right(self._keys, after))
        while index < len(self._keys) and len(found) < limit and self._keys[index].startswith(prefix):
            found.append((self._keys[index], self._values[self._keys[index]]))
            index += 1
        return found

    async def transact(self, expect: Mapping[str, int], put: Mapping[str, bytes], delete: Collection[str] = ()) -> None:
        self._life.check()
        check_transaction(put, delete)
        for key, version in expect.items():
            present = self._values[key].version if key in self._values else 0
            if present != version:
                raise CatalogConflict(f"{key!r} has version {present}, not {version}: read it again")
        self.revision += 1
        for key in delete:
            if self._values.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]
        for key, value in put.items():
            self._version += 1
            if key not in self._values:
                insort(self._keys, key)
            self._values[key] = Versioned(value, self._version)

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()
        self._keys.clear()
