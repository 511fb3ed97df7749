"""What is stored of a producer is damaged: whoever needs it is told, all of a request fails, and nobody else's does."""

from __future__ import annotations

from pathlib import Path

import pytest

from disstream.engine.api import Bounds, Entry, PartitionRef, Replayed, Row, Span, Writer
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine
from disstream.engine.embedded import writers as table
from disstream.errors import StorageError
from disstream.testing.engine import opened

CONFIG = EmbeddedConfig(map_size_bytes=1 << 30)
A, B = PartitionRef("s", 0), PartitionRef("s", 1)
P, Q = "0123456789abcdef" * 2, "f" * 32
ROWS = [Row(b"x"), Row(b"y")]


def damage(engine: EmbeddedEngine, slot: int, producer: str) -> None:
    env = engine.log._committer.check()
    with env.env.begin(write=True) as txn:
        txn.put(table._key(slot, producer), b"\xc1", db=env.writers.db)


async def test_nothing_half_is_stored(tmp_path: Path) -> None:
    """Of a request for several partitions nothing is, not even what stands before the damage; without it, all."""
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await engine.log.open({A: 1, B: 1})
        await engine.log.append([Entry(B, ROWS, 1, Writer(P, 0, 0, 1))], 1)
        damage(engine, 2, P)
        both = [Entry(A, ROWS, 1, Writer(P, 0, 0, 2)), Entry(A, ROWS, 1), Entry(B, ROWS, 1, Writer(P, 0, 2, 2))]
        with pytest.raises(StorageError, match=f"producer {P} in slot 2 is damaged"):
            await engine.log.append(both, 2)
        assert await engine.log.bounds([A, B]) == [Bounds(0, 0, 1), Bounds(0, 2, 1)]
        assert await engine.log.append([*both[:2], Entry(B, ROWS, 1, Writer(Q, 0, 0, 1))], 3) == [0, 2, 2]


async def test_one_producer_twice_in_a_request(tmp_path: Path) -> None:
    """What the first of its entries stored, the second one knows."""
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await engine.log.open({A: 1})
        first, second = Entry(A, ROWS, 1, Writer(P, 0, 0, 1)), Entry(A, ROWS, 1, Writer(P, 0, 2, 2))
        assert await engine.log.append([first, second, first], 1) == [0, 2, Replayed((Span(0, 2, 0),))]


async def test_room_is_made_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where producers are too many, one whose record is damaged goes first, and keeps no new one out."""
    monkeypatch.setattr(table, "MAX_WRITERS", 1)
    monkeypatch.setattr(table, "WRITERS_SLACK", 1)
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        await engine.log.open({A: 1})
        for number, producer in enumerate((P, Q)):
            await engine.log.append([Entry(A, ROWS, 1, Writer(producer, 0, 0, 1))], number)
        damage(engine, 1, Q)
        monkeypatch.setattr("disstream.engine.writers.MAX_WRITERS", 1)
        assert await engine.log.append([Entry(A, ROWS, 1, Writer("a" * 32, 0, 0, 1))], 9) == [4]
        assert await engine.log.append([Entry(A, ROWS, 1, Writer(P, 0, 2, 2))], 9) == [6], "it is still known"
