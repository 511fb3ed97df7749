"""What `appender.py` told of its deeds, and whether a directory keeps it.

Every actor does one thing at a time. So whatever an ended process told, there are few states it can have left: all that
it was told to be done, and what it had begun, as a whole or not at all. After a look at the directory it is known which
of these it is, and has to stay.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from appender import LIVES, MOST_ROWS, PARTITIONS, brief, rows_of

from disstream.engine.api import Bounds, Entry, PartitionRef, Replayed, Row, Span, Writer
from disstream.engine.embedded import EmbeddedEngine

EVERYTHING = 1 << 40


@dataclass
class Life:
    """A stream that comes and goes. `may`: whether it may be there, be gone, or either."""

    may: set[str] = field(default_factory=lambda: {"gone"})
    life: bytes = b""
    lives: set[bytes] = field(default_factory=set)


class Ledger:
    """What must be in a directory, and what may be.

    `add` what was told before a sync that counts, `add_possible` what was told behind it: such may be there or not.
    """

    def __init__(self) -> None:
        self.acknowledged = 0
        self._rows: dict[PartitionRef, dict[int, bytes]] = {}
        self._ids: set[bytes] = set()
        self._numbers: dict[tuple[str, int], int] = {}
        """(producer, partition) -> the last number acknowledged."""
        self._trimmed = dict.fromkeys(PARTITIONS, 0)
        self._may_trim: dict[PartitionRef, set[int]] = {ref: {0} for ref in PARTITIONS}
        self._epochs = {0}
        self._pair = 0
        self._lives = [Life() for _ in range(LIVES)]

    def add(self, line: str) -> None:
        self.acknowledged += 1
        match line.split():
            case ["rows", stream, number, first, batch_id]:
                ref = PartitionRef(stream, int(number))
                self._rows.setdefault(ref, {})[int(first)] = bytes.fromhex(batch_id)
                self._ids.add(bytes.fromhex(batch_id))
            case ["wrote", producer, number, at]:
                self._numbers[producer, int(number)] = int(at)
            case ["trimming", number, before]:
                self._may_trim[PARTITIONS[int(number)]].add(int(before))
            case ["trimmed", number]:
                ref = PARTITIONS[int(number)]
                self._trimmed[ref] = max(self._may_trim[ref])
                self._may_trim[ref] = {self._trimmed[ref]}
                least = self._trimmed[ref] - MOST_ROWS
                self._rows[ref] = {first: rows for first, rows in self._rows.get(ref, {}).items() if first > least}
            case ["raising", epoch]:
                self._epochs.add(int(epoch))
            case ["raised", epoch]:
                self._epochs = {int(epoch)}
            case ["set", number]:
                self._pair = int(number)
            case ["opening", k, life]:
                self._lives[int(k)] = Life({"gone", "there"}, bytes.fromhex(life), {bytes.fromhex(life)})
                for ref in brief(int(k)):
                    self._rows[ref] = {}
            case ["opened", k]:
                self._lives[int(k)].may = {"there"}
            case ["dropping", k]:
                self._lives[int(k)].may.add("gone")
            case ["dropped", k]:
                self._lives[int(k)].may = {"gone"}
            case ["starting"] | ["setting", _]:
                pass
            case _:
                raise AssertionError(f"the process said {line!r}")

    def add_possible(self, line: str) -> None:
        """What may have been undone by the loss of all that came after some moment."""
        match line.split():
            case ["rows", _, _, _, batch_id]:
                self._ids.add(bytes.fromhex(batch_id))
            case ["trimming", number, before]:
                self._may_trim[PARTITIONS[int(number)]].add(int(before))
            case ["raising", epoch]:
                self._epochs.add(int(epoch))
            case ["opening", k, life]:
                self._lives[int(k)].may = {"gone", "there"}
                self._lives[int(k)].lives.add(bytes.fromhex(life))
                for ref in brief(int(k)):
                    self._rows[ref] = {}
            case ["dropping", k]:
                self._lives[int(k)].may.add("gone")

    async def verify(self, engine: EmbeddedEngine) -> None:
        """Raises AssertionError if something is missing, by halves or beside itself; what is there has to stay."""
        if max(self._epochs) and await engine.log.bounds(PARTITIONS) != [None] * len(PARTITIONS):
            await self._verify_partitions(engine)
        else:
            assert 0 in self._epochs, "the partitions are gone"
        for k in range(LIVES):
            await self._verify_life(engine, k)
        await self._verify_pair(engine)

    async def _verify_partitions(self, engine: EmbeddedEngine) -> None:
        found: dict[PartitionRef, dict[int, bytes]] = {}
        bounds = await engine.log.bounds(PARTITIONS)
        epochs = {known.epoch for known in bounds if known}
        assert len(epochs) == 1, f"epochs that were raised at once are {epochs}"
        assert epochs <= self._epochs, f"the epoch is {epochs}, told was {self._epochs}"
        self._epochs = epochs
        trimmed: set[PartitionRef] = set()
        for ref, known in zip(PARTITIONS, bounds, strict=True):
            assert known is not None, f"{ref} is gone"
            least = self._trimmed[ref]
            assert least <= known.oldest, f"{ref}: trimmed to {least}, oldest is {known.oldest}"
            assert known.oldest in self._may_trim[ref], f"{ref}: oldest is {known.oldest}: nobody wanted that"
            if known.oldest > least:
                trimmed.add(ref)
            self._trimmed[ref] = known.oldest
            self._may_trim[ref] = {known.oldest}
            found[ref] = await batches_of(engine, ref, known)
            self._compare(ref, known, found[ref])
        for batch_id in set().union(*(there.values() for there in found.values())) - self._ids:
            if batch_id[0] < 16:
                named = {ref for ref in PARTITIONS if batch_id[0] >> ref.number & 1}
                there = {ref for ref in PARTITIONS if batch_id in found[ref].values()}
                # Nobody trims what was not acknowledged, but for a process that finds it.
                assert named - trimmed <= there <= named, f"of a call that names {named} there is {there}"
            self._ids.add(batch_id)
        for ref in PARTITIONS:
            self._rows[ref] = found[ref]
        for (producer, number), last in self._numbers.items():
            await self._verify_writer(engine, producer, PARTITIONS[number], last, found[PARTITIONS[number]])

    def _compare(self, ref: PartitionRef, known: Bounds, found: dict[int, bytes]) -> None:
        for first, batch_id in self._rows.get(ref, {}).items():
            end = first + len(rows_of(batch_id))
            assert end <= known.next, f"{ref}: rows {first} to {end} were acknowledged, it ends at {known.next}"
            if end > known.oldest:
                there = found.get(first)
                assert there == batch_id, f"{ref}: at {first} is {there!r}, acknowledged was {batch_id!r}"

    async def _verify_writer(
        self, engine: EmbeddedEngine, producer: str, ref: PartitionRef, last: int, found: dict[int, bytes]
    ) -> None:
        """What is remembered of a producer is what is there of it, in one piece and each number once."""
        begin = bytes.fromhex(producer)[:4]
        there = {
            int.from_bytes(batch_id[4:], "big") + n: first + n
            for first, batch_id in found.items()
            if batch_id.startswith(begin)
            for n in range(len(rows_of(batch_id)))
        }
        (known,) = await engine.log.recall([(ref, Writer(producer, 0, 0, 1 << 40), 1 << 30)], 2_000)
        assert known.refused is None
        assert known.rows >= last + 1, f"{producer} in {ref}: {last} was acknowledged, {known.rows} are known"
        assert list(there) == list(range(known.rows - len(there), known.rows)), f"{producer} in {ref} has {there}"
        (bounds,) = await engine.log.bounds([ref])
        assert bounds is not None
        for number, end, first in known.spans:
            for n in range(number, end) if first >= 0 else ():
                if first + n - number >= bounds.oldest:
                    assert there.get(n) == first + n - number, f"{producer} in {ref}: {n} is not where {known} tells"

    async def _verify_life(self, engine: EmbeddedEngine, k: int) -> None:
        life = self._lives[k]
        bounds = await engine.log.bounds(brief(k))
        state = "gone" if bounds == [None] * len(bounds) else "there"
        assert state in life.may, f"brief-{k} is {state}, expected {life.may}"
        for ref, known in zip(brief(k), bounds, strict=True):
            if state == "gone":
                assert await engine.log.read(ref, 0, EVERYTHING) == []
                continue
            assert known is not None, f"{ref} is gone, and its neighbour is not"
            found = await batches_of(engine, ref, known)
            lives = {batch_id[:4] for batch_id in found.values()}
            assert len(lives) <= 1, f"{ref} has rows of the lives {lives}"
            assert lives <= life.lives, f"{ref} has rows of {lives}, expected {life.lives}"
            if life.lives == {life.life}:
                self._compare(ref, known, found)
            self._rows[ref] = found
        life.may = {state}

    async def _verify_pair(self, engine: EmbeddedEngine) -> None:
        left, right = await engine.catalog.get("left"), await engine.catalog.get("right")
        assert (left and left.value) == (right and right.value), "half a transaction"
        number, following = (left.value if left else b"0 0").split()
        assert int(number) >= self._pair, f"transaction {self._pair} was acknowledged, there is {int(number)}"
        self._pair = int(number)
        (bounds,) = await engine.log.bounds(PARTITIONS[:1])
        stored = bounds.next if bounds else 0
        assert stored >= int(following), f"a later transaction is there, rows before it end at {stored}"


async def batches_of(engine: EmbeddedEngine, ref: PartitionRef, bounds: Bounds) -> dict[int, bytes]:
    """The appends of which a partition has rows, by their first numbers, which may be trimmed. Checks each row."""
    rows: list[Row] = []
    last_ms = 0
    while bounds.oldest + len(rows) < bounds.next:
        page = await engine.log.read(ref, bounds.oldest + len(rows), EVERYTHING)
        assert page, f"{ref} has no row {bounds.oldest + len(rows)} of {bounds}"
        for batch in page:
            assert batch.first_sequence == bounds.oldest + len(rows), f"{ref}: numbers are not contiguous"
            assert batch.append_ms >= last_ms, f"{ref}: append times decrease"
            last_ms = batch.append_ms
            rows += batch.rows
    assert bounds.oldest + len(rows) == bounds.next, f"{ref} has {len(rows)} rows within {bounds}"
    assert await engine.log.seek(ref, last_ms + 1) == bounds.next
    assert await engine.log.seek(ref, 0) == bounds.oldest
    found: dict[int, bytes] = {}
    at = 0
    while at < len(rows):
        batch_id, index = rows[at].data[:8], rows[at].data[8]
        assert index == 0 or at == 0, f"{ref}: an append without its beginning at {bounds.oldest + at}"
        expected = rows_of(batch_id)[index:]
        assert rows[at : at + len(expected)] == expected, f"{ref}: an append by halves at {bounds.oldest + at}"
        found[bounds.oldest + at - index] = batch_id
        at += len(expected)
    return found


USED = [Row(bytes([n]) * n * 100, "k") for n in range(60)]


async def use(engine: EmbeddedEngine) -> None:
    """An engine that was brought back goes on: numbers, writers, catalog. What it stores is no part of any ledger."""
    refs = [ref for k in range(LIVES) for ref in brief(k)]
    for k in range(LIVES):
        await engine.log.drop(f"brief-{k}")
    await engine.log.open(dict.fromkeys(refs, 1))
    entries = [Entry(ref, USED, 1, Writer("7" * 32, 0, 0, 1)) for ref in refs]
    assert await engine.log.append(entries, 0) == [0] * len(refs)
    opened = {ref: known for ref, known in zip(PARTITIONS, await engine.log.bounds(PARTITIONS), strict=True) if known}
    entries = [Entry(ref, USED, known.epoch) for ref, known in opened.items()]
    assert await engine.log.append(entries, 0) == [known.next for known in opened.values()]
    for ref, known in opened.items():
        await engine.log.trim(ref, known.next)
    await engine.catalog.transact({}, {"used": b"1"})
    await verify_used(engine)


async def verify_used(engine: EmbeddedEngine) -> None:
    """What `use` did is there."""
    refs = [ref for k in range(LIVES) for ref in brief(k)]
    entries = [Entry(ref, USED, 1, Writer("7" * 32, 0, 0, 1)) for ref in refs]
    assert await engine.log.append(entries, 0) == [Replayed((Span(0, len(USED), 0),))] * len(refs)
    refs += PARTITIONS
    for ref, known in zip(refs, await engine.log.bounds(refs), strict=True):
        if known is not None:
            assert known.next - known.oldest == len(USED)
            page = await engine.log.read(ref, known.oldest, EVERYTHING)
            assert [row for batch in page for row in batch.rows] == USED
    found = await engine.catalog.get("used")
    assert found is not None
    assert found.value == b"1"
