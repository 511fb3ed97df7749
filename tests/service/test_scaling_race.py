"""Scaling under traffic, on the application itself, on an engine that takes its time: simulated, with seeded delays."""

from __future__ import annotations

import contextlib
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

import anyio
import pytest
from server_http import AppCaller, data

from disstream.engine import AppendRefused, Entry, PartitionRef, Replayed
from disstream.engine.memory import MemoryCatalog, MemoryEngine, MemoryLog
from disstream.server import App, ServerConfig
from disstream.testing.clock import run_simulated

CONFIG = ServerConfig(data_dir=None)


class SlowEngine(MemoryEngine):
    """Every write waits a moment before and after it takes effect."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self._log = SlowLog(self._life)
        self._catalog = SlowCatalog(self._life)
        self._log.dice = self._catalog.dice = dice


class _Slow:
    dice: random.Random

    async def pause(self) -> None:
        await anyio.sleep(self.dice.choice((0, 0, 0.001, 0.01, 0.1)))


class SlowLog(_Slow, MemoryLog):
    async def open(self, partitions: Mapping[PartitionRef, int]) -> None:
        await self.pause()
        await super().open(partitions)
        await self.pause()

    async def append(self, entries: Sequence[Entry], now_ms: int) -> list[int | AppendRefused | Replayed]:
        await self.pause()
        results = await super().append(entries, now_ms)
        await self.pause()
        return results


class SlowCatalog(_Slow, MemoryCatalog):
    async def transact(self, expect: Mapping[str, int], put: Mapping[str, bytes], delete: Collection[str] = ()) -> None:
        await self.pause()
        await super().transact(expect, put, delete)
        await self.pause()


class World(AppCaller):
    """Writers of one key each that know what was acknowledged, in which order."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.engine = SlowEngine(self.dice)
        super().__init__(App(self.engine, CONFIG))
        self.acked: dict[str, list[tuple[str, int, str]]] = defaultdict(list)  # key -> (partition, sequence, text)
        self.refused: dict[str, int] = defaultdict(int)
        self.ended: dict[str, int] = {}  # partition -> where a reader found its end once it was DELETED
        self.done = anyio.Event()

    async def write(self, key: str) -> None:
        """Put batches one after another; what is refused is sent again, from the first refused record on."""
        number = 0
        while not self.done.is_set():
            texts = [f"{key}:{number + i}" for i in range(self.dice.randint(1, 4))]
            records = [{"data": data(text.encode()), "partition_key": key} for text in texts]
            answer = await self.put("s", *records)
            if answer.status != 200:
                assert answer.code == "DIS.4303", answer
                self.refused[answer.code] += 1
                continue
            for text, result in zip(texts, answer.told["records"], strict=True):
                if "error_code" in result:
                    assert result["error_code"] == "DIS.4303", result
                    self.refused["DIS.4303"] += 1
                    break
                self.acked[key].append((result["partition_id"], int(result["sequence_number"]), text))
                number += 1
            await anyio.sleep(self.dice.choice((0, 0.01, 0.05)))

    async def write_until_gone(self) -> None:
        while True:
            answer = await self.put("s", {"data": data(b"x")})
            if answer.code not in ("", "DIS.4303"):
                assert answer.code == "DIS.4301"
                return

    async def watch(self) -> None:
        """Read what is DELETED to its end, and see that nothing follows there until it is written again."""
        while not self.done.is_set():
            for p in (await self.describe("s"))["partitions"]:
                end = int(p["sequence_number_range"].strip("[]").split(" : ")[1])
                if p["status"] == "DELETED":
                    assert self.ended.setdefault(p["partition_id"], end) == end, "written after its reader was done"
                else:
                    self.ended.pop(p["partition_id"], None)
            await anyio.sleep(self.dice.uniform(0, 0.05))

    async def check(self) -> None:
        """Everything acknowledged is where it was said to be, once; and in order over all layouts."""
        partitions = (await self.describe("s", query="?limit_partitions=1000"))["partitions"]
        stored: dict[tuple[str, int], str] = {}
        layout: dict[tuple[str, int], int] = {}
        for p in partitions:
            bounds = sorted((int(b["sequence_number"]), b["change"]) for b in p.get("bounds", ()))
            for record in await self.read("s", p["partition_id"]):
                at = p["partition_id"], int(record["sequence_number"])
                stored[at] = record["data"]
                layout[at] = max((change for bound, change in bounds if bound <= at[1]), default=0)
        assert len(set(stored.values())) == len(stored), "a record was stored twice"
        told = {(partition, sequence): text for each in self.acked.values() for partition, sequence, text in each}
        assert stored == {at: data(text.encode()) for at, text in told.items()}
        for each in self.acked.values():
            way = [(layout[partition, sequence], sequence) for partition, sequence, _ in each]
            assert way == sorted(way), "a reader that keeps to the bounds would see a key out of order"
            places = {(layout[partition, sequence], partition) for partition, sequence, _ in each}
            assert len(places) == len({change for change, _ in places}), "a key in two partitions of one layout"


def simulate(seed: int, test: Callable[[World], Awaitable[None]]) -> World:
    async def main() -> World:
        world = World(seed)
        await world.engine.start()
        await test(world)
        await world.engine.close()
        return world

    return run_simulated(main)


async def scale(world: World, target: int) -> Any:
    return await world.call("PUT", "/v2/p/streams/s", {"stream_name": "s", "target_partition_count": target})


@pytest.mark.parametrize("seed", range(12))
def test_puts_beside_scaling(seed: int) -> None:
    """A put beside a change of layout is either readable where it was acknowledged, or refused; order holds."""

    async def test(world: World) -> None:
        await world.create("s", 4)
        async with anyio.create_task_group() as tasks:
            for n in range(6):
                tasks.start_soon(world.write, f"key-{n}")
            tasks.start_soon(world.watch)
            for _ in range(12):
                await anyio.sleep(world.dice.uniform(0, 0.3))
                assert (await scale(world, world.dice.randint(1, 7))).code == ""
            world.done.set()
        await world.check()

    world = simulate(seed, test)
    assert sum(map(len, world.acked.values())) > 100


@pytest.mark.parametrize("seed", range(6))
def test_scalings_beside_each_other(seed: int) -> None:
    """Changes asked for at once take place one after another, each as a whole."""

    async def test(world: World) -> None:
        await world.create("s", 2)
        async with anyio.create_task_group() as tasks:
            for n in range(3):
                tasks.start_soon(world.write, f"key-{n}")
            async with anyio.create_task_group() as scaling:
                for _ in range(6):
                    scaling.start_soon(scale, world, world.dice.randint(1, 5))
            world.done.set()
        await world.check()
        told = await world.describe("s")
        last = told["update_partition_counts"]
        assert all(a["target_partition_count"] == b["src_partition_count"] for a, b in pairwise(last))
        assert told["writable_partition_count"] == last[-1]["target_partition_count"]

    simulate(seed, test)


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("cut_after_s", [0.0005 * 1.7**n for n in range(12)])
def test_a_change_that_is_cut(cut_after_s: float, restart: bool) -> None:
    """Cut at any moment, a change takes place or does not, and puts go on either way, at once or after a restart."""

    async def test(world: World) -> None:
        await world.create("s", 4)
        await world.put("s", *({"data": data(b"before"), "partition_key": f"k{n}"} for n in range(20)))
        with anyio.move_on_after(cut_after_s):
            await scale(world, 2)
        if restart:
            world.app = App(world.engine, CONFIG)
            await world.app.scaling.settle_all()
        answer = await world.put("s", *({"data": data(b"after"), "partition_key": f"k{n}"} for n in range(20)))
        assert (answer.status, answer.told["failed_record_count"]) == (200, 0)
        told = await world.describe("s")
        assert told["writable_partition_count"] in (2, 4)
        assert len(told["update_partition_counts"]) == (told["writable_partition_count"] == 2)
        texts = [r["data"] for p in told["partitions"] for r in await world.read("s", p["partition_id"])]
        assert sorted(texts) == sorted([data(b"before")] * 20 + [data(b"after")] * 20)
        assert (await scale(world, 3)).code == ""
        assert (await world.describe("s"))["writable_partition_count"] == 3

    simulate(int(cut_after_s * 1e6), test)


@pytest.mark.parametrize("seed", range(6))
def test_deleting_beside_scaling(seed: int) -> None:
    """A stream that is deleted while it is scaled leaves nothing behind, whoever comes first."""

    async def test(world: World) -> None:
        await world.create("s", 4)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.write_until_gone)
            tasks.start_soon(scale, world, 2)
            await anyio.sleep(world.dice.uniform(0, 0.2))
            answer = await world.call("DELETE", "/v2/p/streams/s")
            assert answer.code == ""
        assert await world.engine.catalog.scan("") == []
        assert not world.engine.log._partitions

    simulate(seed, test)


def test_a_change_left_behind_by_another_server() -> None:
    """Two servers on one engine: the fence of one is respected by the other, which finishes what it finds."""

    async def test(world: World) -> None:
        await world.create("s", 4)
        other = World(0)
        other.app = App(world.engine, CONFIG)
        for target in (2, 5, 1):
            with contextlib.suppress(TimeoutError):
                with anyio.fail_after(world.dice.uniform(0.001, 0.2)):
                    await scale(world, target)
            for caller in (other, world):
                answer = await caller.put("s", *({"data": data(b"x"), "partition_key": f"k{n}"} for n in range(9)))
                assert (answer.status, answer.told["failed_record_count"]) == (200, 0)

    for seed in range(8):
        simulate(seed, test)
