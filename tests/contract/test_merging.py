"""Merging changes nothing that anybody can see: rows, numbers, times and places are those of the memory engine."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disstream.engine.api import Engine, Entry, PartitionRef, Row
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine, commit, merging
from disstream.engine.memory import MemoryEngine
from disstream.testing.checks import timed

REFS = [PartitionRef("s", 0), PartitionRef("s", 1)]
CONFIG = EmbeddedConfig(durability="relaxed", map_size_bytes=1 << 28)

rows = st.builds(
    Row, st.binary(max_size=30), st.sampled_from([None, "", "k", "schlüssel"]), st.none() | st.integers(-1, 2**63 - 1)
)
appends = st.tuples(
    st.just("append"), st.sampled_from(REFS), st.lists(rows, min_size=1, max_size=4), st.integers(0, 3), st.booleans()
)
steps = st.lists(
    appends
    | appends
    | st.tuples(st.just("trim"), st.sampled_from(REFS), st.floats(0, 1))
    | st.tuples(st.sampled_from(["look", "reopen"])),
    max_size=40,
)


async def see(engine: Engine, now_ms: int) -> list[object]:
    """All that can be read and found in it, from everywhere."""
    seen: list[object] = []
    for ref, bounds in zip(REFS, await engine.log.bounds(REFS), strict=True):
        assert bounds is not None
        seen.append(bounds)
        for begin in range(bounds.oldest, bounds.next):
            for most in (0, 5, 40, 1 << 20):
                seen.append(timed(await engine.log.read(ref, begin, most)))
        seen += [await engine.log.seek(ref, time) for time in range(now_ms + 2)]
    return seen


async def play(directory: Path, history: list[tuple[object, ...]]) -> None:
    memory, embedded = MemoryEngine(), EmbeddedEngine(directory, CONFIG)
    now_ms = 0
    for engine in (memory, embedded):
        await engine.start()
        await engine.log.open(dict.fromkeys(REFS, 1))
    for step in history:
        match step:
            case ("append", PartitionRef() as ref, list() as appended, int() as pause, bool() as several):
                now_ms += pause
                entries = [Entry(ref, appended, 1)] * (3 if several else 1)
                assert await embedded.log.append(entries, now_ms) == await memory.log.append(entries, now_ms)
            case ("trim", PartitionRef() as ref, float() as part):
                (bounds,) = await memory.log.bounds([ref])
                assert bounds is not None
                before = bounds.oldest + round((bounds.next - bounds.oldest) * part)
                for engine in (memory, embedded):
                    await engine.log.trim(ref, before)
            case ("look",):
                assert await see(embedded, now_ms) == await see(memory, now_ms)
            case _:
                await embedded.close()
                embedded = EmbeddedEngine(directory, CONFIG)
                await embedded.start()
    assert await see(embedded, now_ms) == await see(memory, now_ms)
    await embedded.close()
    embedded = EmbeddedEngine(directory, CONFIG)
    await embedded.start()
    assert await see(embedded, now_ms) == await see(memory, now_ms)
    await embedded.close()
    await memory.close()


@settings(max_examples=80, deadline=None)
@given(history=steps, few=st.integers(2, 4), small=st.sampled_from([3, 32]), large=st.sampled_from([9, 512]))
def test_any_history(history: list[tuple[object, ...]], few: int, small: int, large: int) -> None:
    """Appends small and large, trims, reads of any size from anywhere, seeks at any time, and starting anew."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as directory:
        patch.setattr(merging, "FEW", few)
        patch.setattr(merging, "SMALL_ROWS", small)
        patch.setattr(merging, "LARGE_ROWS", large)
        patch.setattr(commit, "MERGE_PAUSE_S", 0)
        asyncio.run(play(Path(directory), history))
