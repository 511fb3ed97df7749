"""Whatever is done to the embedded engine in whatever order, crashes included, it answers as the memory engine does."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from disstream.engine.api import Batch, Engine, Entry, PartitionRef, Row, Writer
from disstream.engine.columns import Columns
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine
from disstream.engine.memory import MemoryEngine
from disstream.engine.rules import FORGET_WRITER_MS
from disstream.errors import DisError

T = TypeVar("T")

CONFIGS = [
    EmbeddedConfig(map_size_bytes=1 << 28),
    EmbeddedConfig(map_size_bytes=1 << 28, durability="relaxed", sync_interval_s=0.001),
    EmbeddedConfig(map_size_bytes=1 << 28, durability="relaxed", sync_interval_s=3600),
]
STREAMS = ["s", "s2", "ü"]
REFS = [PartitionRef(stream, number) for stream in STREAMS for number in range(2)]
KEYS = ["a", "a/b", "a/c", "b", "é", "\U0001f511"]
PRODUCERS = ["0" * 31 + "1", "f" * 32]
NOW = 10 * FORGET_WRITER_MS
LOTS = 1 << 40
HASTY = [("sweeping", "SWEEP_BATCHES", 3), ("commit", "MERGE_PAUSE_S", 0.0), ("merging", "FEW", 2)]
MEMORY = "/dev/shm"
LEFT_BEHIND = {"lock.mdb", "disstream.lock", "ballast"}
"""What a copy of the directory does without: it is made anew."""


class Call(NamedTuple):
    """What is asked of both engines."""

    name: str
    args: tuple[Any, ...]


class Place(NamedTuple):
    """A sequence number, told by where it is in its partition."""

    anchor: str
    offset: int


refs = st.sampled_from(REFS)
times = st.integers(-300, 300).map(lambda ms: NOW + ms) | st.sampled_from([0, NOW + FORGET_WRITER_MS + 1_000])
places = st.builds(Place, st.sampled_from(["oldest", "middle", "next", "zero"]), st.integers(-3, 8))
# Mostly the present one.
epochs = st.sampled_from([0] * 8 + [-1, 1])
row = st.builds(
    Row,
    st.binary(max_size=12) | st.integers(0, 9_000).map(lambda size: b"x" * size),
    st.sampled_from([None, None, "", "k", "ü" * 20]),
    st.sampled_from([None, None, 0, -5, 2**62]),
)
rows = st.lists(row, min_size=1, max_size=6) | st.builds(
    lambda one, count: [one] * count, row.filter(lambda one: one.weight < 100), st.integers(1, 80)
)
# The number is told by its distance from the next one; the request by how much older than the latest it is.
writers = st.none() | st.tuples(
    st.sampled_from(PRODUCERS),
    st.sampled_from([0, 0, 0, 1, 2]),
    st.sampled_from([0, 0, 0, 0, 1, -1, -3, -1_000]),
    st.sampled_from([0, 0, 0, 1, 5]),
)
keys = st.sampled_from(KEYS)
some_keys = st.lists(keys, max_size=3, unique=True)
entries = st.lists(st.tuples(refs, rows, epochs, writers, st.booleans()), min_size=1, max_size=3)

appends = st.tuples(st.just("append"), entries, times)
writes = st.one_of(
    appends,
    appends,
    st.tuples(st.just("ones"), refs, st.integers(2, 40), times),
    st.tuples(st.just("open"), st.dictionaries(refs, st.sampled_from([0, 0, 1, 1, -1]), min_size=1, max_size=4)),
    st.tuples(st.just("trim"), refs, places),
    st.tuples(st.just("drop"), st.sampled_from([*STREAMS, "none"])),
    st.tuples(st.just("transact"), st.lists(st.tuples(keys, st.booleans()), max_size=2), some_keys, some_keys),
)


class Histories(RuleBasedStateMachine):
    """The same calls to both engines, and the same answers."""

    def __init__(self) -> None:
        super().__init__()
        self._root = Path(tempfile.mkdtemp(dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
        self._runner = asyncio.Runner()
        self._memory = MemoryEngine()
        self._do(self._memory.start())
        self._lives = 0
        self._requests = 0
        self._values = 0
        # Versions are each engine's own: compared by what they mean, when used as an expectation.
        self._seen: list[dict[str, int]] = [{}, {}]

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    @initialize(config=st.sampled_from(CONFIGS))
    def begin(self, config: EmbeddedConfig) -> None:
        self._directory = self._root / "0"
        self._embedded = EmbeddedEngine(self._directory, config)
        self._do(self._embedded.start())
        self._do(self._together([Call("open", (dict.fromkeys(REFS[:3], 1),))]))

    def teardown(self) -> None:
        self._do(self._embedded.close())
        self._do(self._memory.close())
        self._runner.close()
        shutil.rmtree(self._root)

    # --- what is asked ------------------------------------------------------------------------------------------

    @rule(asked=st.lists(writes, min_size=1, max_size=5))
    def write(self, asked: list[tuple[Any, ...]]) -> None:
        """Some calls at once: they take effect in their order."""
        self._do(self._together(self._calls(asked)))

    @rule(ref=refs, place=places, max_bytes=st.sampled_from([0, 1, 10, 100, 1_000, 20_000, LOTS]))
    def read(self, ref: PartitionRef, place: Place, max_bytes: int) -> None:
        self._ask(Call("read", (ref, self._number(ref, place), max_bytes)))

    @rule(ref=refs, time=times, place=places)
    def seek(self, ref: PartitionRef, time: int, place: Place) -> None:
        self._ask(Call("seek", (ref, time)))
        # And just the time of some row, the one before, and the one after.
        number = self._number(ref, place)
        for batch in self._do(self._memory.log.read(ref, number, LOTS))[:1]:
            for near in (-1, 0, 1):
                self._ask(Call("seek", (ref, batch.append_ms + near)))

    @rule(ref=refs, writer=writers.filter(bool), count=st.integers(1, 100), time=times)
    def recall(self, ref: PartitionRef, writer: tuple[str, int, int, int], count: int, time: int) -> None:
        self._ask(Call("recall", ([(ref, self._writer(ref, writer), count)], time)))

    @rule(ref=refs, place=places)
    def wait(self, ref: PartitionRef, place: Place) -> None:
        """For what is there, or for what will not come before the deadline, which has passed."""
        self._ask(Call("wait", (ref, self._number(ref, place), 0.0)))

    @rule(key=keys)
    def get(self, key: str) -> None:
        self._ask(Call("get", (key,)))

    @rule(
        prefix=st.sampled_from(["", "a", "a/", "z"]), after=st.sampled_from(["", "a", "a/b"]), limit=st.integers(0, 5)
    )
    def scan(self, prefix: str, after: str, limit: int) -> None:
        self._ask(Call("scan", (prefix, after, limit)))

    @rule(config=st.sampled_from(CONFIGS))
    def reopen(self, config: EmbeddedConfig) -> None:
        """Closed, with appends under way that it finishes, and opened again."""
        self._do(self._embedded.close())
        self._embedded = EmbeddedEngine(self._directory, config)
        self._do(self._embedded.start())
        self._do(self._compare())

    @rule(config=st.sampled_from(CONFIGS), asked=st.lists(writes, max_size=6), answered=st.integers(0, 6))
    def crash(self, config: EmbeddedConfig, asked: list[tuple[Any, ...]], answered: int) -> None:
        """The process ends while calls are under way: a copy of its directory is what the next one opens.

        What was answered is there. What was not, as it was asked first: up to some call, and then no more.
        """
        self._do(self._crash(config, self._calls(asked), answered))

    @precondition(lambda self: self._lives > 1)
    @rule()
    def all_is_as_it_was(self) -> None:
        self._do(self._compare())

    @invariant()
    def bounds_are_equal(self) -> None:
        if self._directory.exists():
            self._ask(Call("bounds", (REFS,)))

    # --- how ----------------------------------------------------------------------------------------------------

    def _ask(self, call: Call) -> None:
        expected = self._do(self._answer(0, call))
        found = self._do(self._answer(1, call))
        assert found == expected, f"{call}: {found} instead of {expected}"

    async def _answer(self, which: int, call: Call) -> object:
        engine: Engine = (self._memory, self._embedded)[which]
        seen = self._seen[which]
        try:
            match call:
                case ("transact", (expected, puts, deletes)):
                    expect = {key: seen.get(key, 0) if known else 0 for key, known in expected}
                    await engine.catalog.transact(expect, puts, deletes)
                    return None
                case ("scan", args):
                    page = await engine.catalog.scan(*args)
                    seen.update({key: value.version for key, value in page})
                    return [(key, value.value) for key, value in page]
                case ("get", (key,)):
                    value = await engine.catalog.get(key)
                    seen[key] = value.version if value else 0
                    return value and value.value
                case ("read", args):
                    return _flat(await engine.log.read(*args))
                case (name, args):
                    return await getattr(engine.log, name)(*args)
        except DisError as exc:
            return type(exc)

    async def _together(self, calls: Sequence[Call]) -> None:
        before = await self._memory.log.bounds(REFS)
        told: dict[PartitionRef, int | None] = {}
        with self._embedded.log.watch(REFS, told.__setitem__):
            found = await asyncio.gather(*[self._answer(1, call) for call in calls])
        for call, answer in zip(calls, found, strict=True):
            expected = await self._answer(0, call)
            assert answer == expected, f"{call}: {answer} instead of {expected}"
        after = await self._memory.log.bounds(REFS)
        for ref, was, now in zip(REFS, before, after, strict=True):
            if now is not None and now.next > (was.next if was else 0):
                assert told[ref] == now.next, f"{ref} grew to {now.next}, {told[ref]} was told"
            elif was is not None and now is None:
                assert told[ref] is None, f"{ref} was dropped, {told[ref]} was told"

    async def _crash(self, config: EmbeddedConfig, calls: Sequence[Call], answered: int) -> None:
        under_way = [asyncio.ensure_future(self._answer(1, call)) for call in calls]
        await asyncio.gather(*under_way[:answered])
        await asyncio.sleep(0)  # those that were not waited for are under way as well
        done = [task.result() for task in under_way if task.done()]
        crashed, self._directory = self._embedded, self._root / str(self._lives + 1)
        self._copy(crashed, self._root / str(self._lives), self._directory)
        await asyncio.gather(*under_way)
        await crashed.close()
        shutil.rmtree(self._root / str(self._lives))
        self._lives += 1
        self._embedded = EmbeddedEngine(self._directory, config)
        await self._embedded.start()
        for number, call in enumerate(calls):
            if number >= len(done) and await self._difference() is None:
                return
            expected = await self._answer(0, call)
            if number < len(done):
                assert done[number] == expected, f"{call}: {done[number]} instead of {expected}"
        await self._compare()

    def _copy(self, engine: EmbeddedEngine, directory: Path, copy: Path) -> None:
        """As it is at one instant, that at which the begin of the file is read: what a snapshot sees stays as it is."""
        copy.mkdir()
        with engine.log._committer.check().reading():
            for path in directory.iterdir():
                if path.name not in LEFT_BEHIND:
                    shutil.copyfile(path, copy / path.name)

    async def _compare(self) -> None:
        difference = await self._difference()
        assert difference is None, difference

    async def _difference(self) -> str | None:
        """Of all that can be asked."""
        calls = [Call("bounds", (REFS,)), Call("scan", ("", "", 1_000))]
        calls += [Call("read", (ref, bounds.oldest, LOTS)) for ref, bounds in await self._bounds()]
        asked = [
            (ref, Writer(producer, epoch, 0, request), 10_000)
            for ref in REFS
            for producer in PRODUCERS
            for epoch in (0, 1, 2)
            for request in (self._requests - 5, self._requests)
            if request >= 0
        ]
        calls += [Call("recall", (asked, time)) for time in (NOW, NOW + FORGET_WRITER_MS) if asked]
        for call in calls:
            expected, found = await self._answer(0, call), await self._answer(1, call)
            if found != expected:
                return f"{call}: {found} instead of {expected}"
        return None

    async def _bounds(self) -> list[tuple[PartitionRef, Any]]:
        found = await self._memory.log.bounds(REFS)
        return [(ref, bounds) for ref, bounds in zip(REFS, found, strict=True) if bounds is not None]

    # --- from what was drawn to calls -------------------------------------------------------------------------------

    def _calls(self, asked: list[tuple[Any, ...]]) -> list[Call]:
        calls: list[Call] = []
        for one in asked:
            match one:
                case ("append", drawn, now_ms):
                    calls.append(Call("append", ([self._entry(*entry) for entry in drawn], now_ms)))
                case ("ones", ref, count, now_ms):
                    epoch = self._epoch(ref)
                    calls += [
                        Call("append", ([Entry(ref, [Row(b"%d" % n, "k", n)], epoch)], now_ms + n))
                        for n in range(count)
                    ]
                case ("open", drawn):
                    # One that is not open yet, or not any more, may begin with any epoch.
                    calls.append(Call("open", ({ref: max(self._epoch(ref) + by, 0) for ref, by in drawn.items()},)))
                case ("trim", ref, place):
                    calls.append(Call("trim", (ref, self._number(ref, place))))
                case ("drop", stream):
                    calls.append(Call("drop", (stream,)))
                case ("transact", expected, put, deleted):
                    self._values += 1
                    puts = {key: b"%d" % self._values for key in put}
                    calls.append(Call("transact", (expected, puts, [key for key in deleted if key not in puts])))
        return calls

    def _entry(
        self, ref: PartitionRef, rows: list[Row], by: int, writer: tuple[str, int, int, int] | None, columns: bool
    ) -> Entry:
        told = self._writer(ref, writer) if writer else None
        return Entry(ref, Columns.of(rows) if columns else rows, self._epoch(ref) + by, told)

    def _writer(self, ref: PartitionRef, drawn: tuple[str, int, int, int]) -> Writer:
        producer, epoch, distance, older = drawn
        self._requests += 1
        ((known),) = self._do(self._memory.log.recall([(ref, Writer(producer, epoch, 0, self._requests), 10_000)], NOW))
        return Writer(producer, epoch, max(known.rows + distance, 0), max(self._requests - older, 0))

    def _epoch(self, ref: PartitionRef) -> int:
        (bounds,) = self._do(self._memory.log.bounds([ref]))
        return bounds.epoch if bounds else 1

    def _number(self, ref: PartitionRef, place: Place) -> int:
        (bounds,) = self._do(self._memory.log.bounds([ref]))
        oldest, following = (bounds.oldest, bounds.next) if bounds else (0, 0)
        anchors = {"oldest": oldest, "middle": (oldest + following) // 2, "next": following, "zero": 0}
        return anchors[place.anchor] + place.offset


def _flat(batches: Sequence[Batch]) -> list[tuple[int, int, Row]]:
    """Number, time of the append and row of each, however they are batched."""
    found: list[tuple[int, int, Row]] = []
    for batch in batches:
        stamps = getattr(batch, "times", None) or [batch.append_ms] * len(batch.rows)
        numbers = range(batch.first_sequence, batch.first_sequence + len(batch.rows))
        found += zip(numbers, stamps, batch.rows, strict=True)
    return found


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done in pieces, or when there is enough of it, is done in small ones and at once."""
    for module, name, value in HASTY:
        monkeypatch.setattr(f"disstream.engine.embedded.{module}.{name}", value)


def play(examples: int, steps: int) -> None:
    run_state_machine_as_test(Histories, settings=settings(max_examples=examples, stateful_step_count=steps))


@pytest.mark.usefixtures("hasty")
def test_any_history() -> None:
    """Appends, reads, seeks, trims, scalings, drops, transactions, crashes and re-opens in random order."""
    play(60, 40)


@pytest.mark.long
@pytest.mark.usefixtures("hasty")
def test_any_history_for_long() -> None:
    """The same, more and longer, in pieces of a few batches."""
    play(250, 60)


@pytest.mark.long
def test_any_history_as_configured_for_long() -> None:
    """The same with the sizes that are used."""
    play(150, 60)
