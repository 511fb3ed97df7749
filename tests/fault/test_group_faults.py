"""Groups whose members die, hang, leave and come back, over a bad network, under a server that restarts.

At no time two members commit on a partition, no stale commit lands, and in the end everybody has a share.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress

import anyio
import pytest

from disstream.client import Client, ClientConfig
from disstream.engine.memory import MemoryEngine
from disstream.errors import ServerFault, StaleGeneration, ThrottledError, TransportError
from disstream.server.app import App
from disstream.server.config import ServerConfig
from disstream.testing.clock import run_simulated
from disstream.testing.network import AppTransport, FaultPlan, FaultyTransport
from disstream.wire.groups import NO_GENERATION
from disstream.wire.http import Request, Response

SESSION_S = 10.0
PARTITIONS = 7
CHAOS_S = 200.0
CALM_S = 60.0

NETWORK = FaultPlan(
    refuse=0.02,
    lose_request=0.03,
    lose_answer=0.03,
    late=0.02,
    duplicate=0.05,
    error_before=0.02,
    error_after=0.02,
    hang=0.5,
    delay=0.1,
    late_s=15.0,
)
PERFECT = FaultPlan()

SLOW_S = {"checkpoint": 15.0, "group": 3.0}
"""The longest that a slow write takes, by what is written."""

PASSING = (TransportError, ServerFault, ThrottledError)


class Judge:
    """Sees every commit at the moment it lands, and every share that is given out. Makes the storage slow at times."""

    def __init__(self, engine: MemoryEngine, dice: random.Random) -> None:
        self._dice = dice
        self.landed: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.slow = True
        self._newest: dict[int, tuple[int, str]] = {}
        self._given: dict[int, int] = {}
        self._transact = engine.catalog.transact

    async def transact(self, expect: Mapping[str, int], put: Mapping[str, bytes], delete: Collection[str] = ()) -> None:
        # Commits are the slowest: they are overtaken by whatever happens to the group meanwhile.
        longest_s = max((SLOW_S.get(key.partition("/")[0], 0.0) for key in put), default=0.0)
        if self.slow and self._dice.random() < 0.1:
            await anyio.sleep(self._dice.uniform(0, longest_s))
        await self._transact(expect, put, delete)
        for key, value in put.items():
            if key.startswith("checkpoint/"):
                told = json.loads(json.loads(value)["metadata"])
                self._land(int(key.rpartition("/")[2]), told["generation"], told["member"])

    def _land(self, partition: int, generation: int, member: str) -> None:
        owner = (generation, member)
        newest = self._newest.setdefault(partition, owner)
        given = self._given.get(partition, -1)
        # Noted, not raised: whoever sent it may have gone, and nobody would hear.
        if generation < newest[0] or (generation == newest[0] and member != newest[1]):
            self.wrong.append(f"partition {partition}: {owner} landed behind {newest}")
        if generation < given:
            self.wrong.append(f"partition {partition}: {owner} landed after generation {given} had been given out")
        self._newest[partition] = owner
        self.landed[member] += 1

    def give(self, partitions: Collection[int], generation: int) -> None:
        for partition in partitions:
            self._given[partition] = max(generation, self._given.get(partition, -1))


class World:
    """The server, which can be replaced; `handle` makes it an app."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.engine = MemoryEngine()
        self.judge = Judge(self.engine, dice)
        self.calm = False
        self.plan = NETWORK
        self._config = ServerConfig(data_dir=None, session_timeout_s=SESSION_S, join_delay_s=1.0)
        self.restart()

    def restart(self) -> None:
        """Requests under way stay with the old one: for a moment there are two."""
        self._app = App(self.engine, self._config, self.dice)

    async def handle(self, request: Request) -> Response:
        return await self._app.handle(request)

    def client(self, plan: FaultPlan) -> Client:
        wires = FaultyTransport(AppTransport(self, latency_s=0.01), self.dice, plan)
        config = ClientConfig(request_timeout_s=2.0, attempts=3, close_timeout_s=0.1)
        return Client(wires, "p", config, dice=self.dice)


class Worker:
    """Speaks the protocol as told, and commits on what it believes to be its own. Its faults are its life's."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.generation = NO_GENERATION
        self.share: list[int] = []
        self.stable = False
        self.commits = 0

    async def live(self) -> None:
        while True:
            async with self.world.client(PERFECT if self.world.calm else NETWORK) as client:
                await self._life(client)
            if self.world.dice.random() < 0.3 and not self.world.calm:
                self.name += "'"  # the next life has another name

    async def _life(self, client: Client) -> None:
        """Until it dies of something, or leaves; then a pause, and the next life knows nothing."""
        dice = self.world.dice
        self.generation, self.share, self.stable = NO_GENERATION, [], False
        was_calm = self.world.calm
        while self.world.calm == was_calm:
            fate = 1.0 if self.world.calm else dice.random()
            if fate < 0.02:
                await anyio.sleep(dice.uniform(0, 30))
                return
            if fate < 0.04:
                with suppress(*PASSING):
                    await client.groups.leave("a", self.name)
                await anyio.sleep(dice.uniform(0, 10))
                return
            if fate < 0.07:
                # Stands still, then goes on as if nothing had been: with commits before the next heartbeat.
                self.stable = False
                await anyio.sleep(dice.uniform(0, 2 * SESSION_S))
                await self._commit(client)
            try:
                await self._step(client)
            except PASSING:
                await anyio.sleep(dice.uniform(0, 1))
            await anyio.sleep(dice.uniform(0.2, 1.0))

    async def _step(self, client: Client) -> None:
        state = await client.groups.heartbeat("a", self.name, self.generation)
        self.stable = state == "STABLE"
        if state == "STABLE":
            await self._commit(client)
        elif state == "JOINING":
            if self.world.dice.random() < 0.7:
                await self._commit(client)  # what it finished
            answer = await client.groups.join("a", self.name, streams=["s"], rebalance_timeout_s=8.0)
            assert answer.state == "OK"
            await anyio.sleep(answer.sync_delay_s)
        if state != "STABLE":
            told = await client.groups.sync("a", self.name, self.generation)
            if told.state == "OK":
                self.generation, self.share = told.generation, list(told.assignment.get("s", ()))
                self.world.judge.give(self.share, told.generation)

    async def _commit(self, client: Client) -> None:
        for partition in self.share:
            self.commits += 1
            metadata = json.dumps({"member": self.name, "generation": self.generation, "n": self.commits})
            try:
                await client.checkpoints.commit(
                    "a", "s", str(partition), 0, metadata=metadata, member_id=self.name, generation=self.generation
                )
            except StaleGeneration as error:
                if self.world.calm and self.stable:
                    raise
                self.world.judge.refused[error.code] += 1
                return
            except PASSING:
                continue


@pytest.mark.parametrize("seed", range(6))
def test_one_owner_at_a_time(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happens, commits on a partition come from one member of ever newer generations; then all settles."""

    async def main() -> None:
        world = World(random.Random(seed))
        await world.engine.start()
        monkeypatch.setattr(world.engine.catalog, "transact", world.judge.transact)
        async with world.client(PERFECT) as client:
            await client.streams.create("s", partitions=PARTITIONS)
            await client.apps.create("a")
            workers = [Worker(world, f"w{n}") for n in range(4)]
            async with anyio.create_task_group() as tasks:
                for worker in workers:
                    tasks.start_soon(worker.live)
                while anyio.current_time() < CHAOS_S:
                    await anyio.sleep(world.dice.uniform(5, 30))
                    world.restart()
                world.calm, world.judge.slow = True, False
                await anyio.sleep(CALM_S)
                group = await client.groups.members("a")
                assert group.state == "STABLE"
                assert [m.member_id for m in group.members] == sorted(w.name for w in workers)
                shares = sorted(m.partitions["s"] for m in group.members)
                assert sorted(n for share in shares for n in share) == list(range(PARTITIONS))
                assert sorted(map(len, shares)) == [1, 2, 2, 2]
                assert all(worker.stable for worker in workers)
                before = Counter(world.judge.landed)
                await anyio.sleep(5)
                assert all(world.judge.landed[w.name] > before[w.name] for w in workers)
                tasks.cancel_scope.cancel()
        assert world.judge.wrong == []
        # There was something to go wrong.
        assert world.judge.refused.total() >= 3
        assert group.generation > 10
        await world.engine.close()

    run_simulated(main)
