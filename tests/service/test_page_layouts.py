"""Proves that no page holds a record of a change that it does not count, whatever happens while it is read."""

from __future__ import annotations

import anyio
import pytest
from app_world import AppWorld, simulate

from disstream.engine import Batch, PartitionRef
from disstream.engine.memory import MemoryLog


def test_changes_are_counted() -> None:
    """Pages and descriptions tell the count; scaling to the count there is counts no change."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2, records=1)
        dis = world.dis
        for target, changes in ((2, 0), (3, 1), (1, 2)):
            await dis.streams.scale("s", target)
            info = await dis.streams.describe("s")
            page = await dis.records.get(await dis.cursors.get("s", "0", "LATEST"))
            assert info.changes == page.changes == changes
            assert not page.records

    simulate(test)


def test_a_change_while_a_page_is_read_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page was asked for before the change, and read behind it: its records are not passed off as older ones."""

    async def test(world: AppWorld) -> None:
        await world.stream(partitions=2, records=1)
        cursor = await world.dis.cursors.get("s", "0", "TRIM_HORIZON")
        log = world.engine.log
        assert isinstance(log, MemoryLog)
        read, asked, changed = log.read, anyio.Event(), anyio.Event()

        async def late(partition: PartitionRef, from_sequence: int, max_bytes: int) -> list[Batch]:
            asked.set()
            await changed.wait()
            return await read(partition, from_sequence, max_bytes)

        monkeypatch.setattr(log, "read", late)
        async with anyio.create_task_group() as tasks:

            async def get() -> None:
                page = await world.dis.records.get(cursor)
                assert [record.data for record in page.records] == [b"0", b"1"]
                assert page.changes == 1

            tasks.start_soon(get)
            await asked.wait()
            await world.dis.streams.scale("s", 1)
            await world.write(1)
            changed.set()

    simulate(test)
