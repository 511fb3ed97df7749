"""Sessions under concurrency: attempts and their copies at once, cancelled anywhere, while the stream is scaled and the
log takes its time; seeded, under virtual time. Every record tells in its data which request brought it."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest

from disstream.engine import AppendRefused, Entry, Known, PartitionRef, Replayed, Writer
from disstream.engine.memory import MemoryEngine, MemoryLog
from disstream.server import App, ServerConfig
from disstream.testing.clock import run_simulated
from disstream.wire.http import Request, Response
from disstream.wire.partitioning import HashRouter, hash_key, hash_ranges, partition_number
from disstream.wire.sessions import FENCED, HEADER, MOVED, Session, SessionLane, encode_session

PRODUCERS = ["a" * 32, "b" * 32]
OWNER = HashRouter(enumerate(hash_ranges(4)))
KEYS = [[k for k in map(str, range(100)) if OWNER.owner(hash_key(k)) == number][:3] for number in range(4)]

Identity = tuple[str, int, int, int]
"""Producer, partition, epoch, number."""


class SlowLog(MemoryLog):
    """Takes its time before and after what it does."""

    def __init__(self, life: Any, dice: random.Random) -> None:
        super().__init__(life)
        self._dice = dice

    async def append(self, entries: Sequence[Entry], now_ms: int) -> list[int | AppendRefused | Replayed]:
        await asyncio.sleep(self._dice.choice([0, 0.001, 0.05, 0.3]))
        results = await super().append(entries, now_ms)
        await asyncio.sleep(self._dice.choice([0, 0.001, 0.05, 0.3]))
        return results

    async def recall(self, asked: Sequence[tuple[PartitionRef, Writer, int]], now_ms: int) -> list[Known]:
        await asyncio.sleep(self._dice.choice([0, 0, 0.01]))
        return await super().recall(asked, now_ms)


class World:
    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.engine = MemoryEngine()
        self.log = self.engine._log = SlowLog(self.engine._life, dice)
        pace = dice.choice([None, 8])
        self.app = App(self.engine, ServerConfig(data_dir=None, common_in_records_per_s=pace), dice)
        self.told: list[tuple[int, Identity, dict[str, str]]] = []

    async def call(self, method: str, target: str, body: Any, **headers: str) -> Response:
        request = Request(method=method, target=target, headers=headers, body=json.dumps(body).encode())
        return await self.app.handle(request)

    async def put(self, session: Session, keyed: bool) -> None:
        identities: list[Identity] = [
            (session.producer, lane.partition, lane.epoch, lane.number + i)
            for lane in session.lanes
            for i in range(lane.records)
        ]
        records = []
        for identity in identities:
            place = (
                {"partition_key": KEYS[identity[1]][identity[3] % 3]} if keyed else {"partition_id": str(identity[1])}
            )
            text = json.dumps([session.request, *identity]).encode()
            records.append({"data": base64.b64encode(text).decode(), **place})
        body = {"stream_name": "s", "records": records}
        answer = await self.call("POST", "/v2/p/records", body, **{HEADER: encode_session(session)})
        assert answer.status == 200
        entries = json.loads(answer.body)["records"]
        self.told += zip([session.request] * len(entries), identities, entries, strict=True)

    async def scale(self) -> None:
        for _ in range(self.dice.randrange(4)):
            await asyncio.sleep(self.dice.choice([0.01, 0.1, 0.5]))
            target = {"stream_name": "s", "target_partition_count": self.dice.randint(1, 4)}
            await self.call("PUT", "/v2/p/streams/s", target)

    def stored(self) -> dict[Identity, tuple[int, tuple[int, int]]]:
        """Identity -> the request that stored it, and its place; each once and in order."""
        found: dict[Identity, tuple[int, tuple[int, int]]] = {}
        for ref, partition in self.log._partitions.items():
            last: dict[str, tuple[int, int]] = {}
            for batch in partition.batches:
                for sequence, row in enumerate(batch.rows, batch.first_sequence):
                    request, producer, lane, epoch, number = json.loads(row.data)
                    assert lane == ref.number
                    before = last.get(producer, (epoch, -1))
                    assert (epoch, number) == (before[0], before[1] + 1) or (epoch > before[0] and number == 0)
                    last[producer] = epoch, number
                    found[producer, lane, epoch, number] = request, (lane, sequence)
        return found

    def compare(self) -> None:
        stored = self.stored()
        newest: dict[tuple[str, int], int] = defaultdict(int)
        for producer, lane, epoch, _ in stored:
            newest[producer, lane] = max(epoch, newest[producer, lane])
        for request, identity, told in self.told:
            code = told.get("error_code")
            if code is None:
                assert stored[identity][1] == (partition_number(told["partition_id"]), int(told["sequence_number"]))
            elif identity in stored and newest[identity[:2]] == identity[2]:
                by = stored[identity][0]
                assert by != request, f"{code} was told of {identity}, which request {request} stored"
                assert by > request or code not in (FENCED, MOVED)


async def run(seed: int) -> int:
    dice = random.Random(seed)
    world = World(dice)
    await world.engine.start()
    await world.call("POST", "/v2/p/streams", {"stream_name": "s", "partition_count": 2})
    tasks = [asyncio.create_task(world.scale())]
    sent: list[tuple[Session, bool]] = []
    following: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0])
    for request in range(dice.randint(5, 30)):
        if sent and dice.random() < 0.5:
            attempt = dice.choice(sent[-4:])
        else:
            producer = dice.choice(PRODUCERS)
            lanes = []
            for partition in dice.sample(range(4), dice.randint(1, 3)):
                lane = following[producer, partition]
                if dice.random() < 0.1:
                    lane[:] = lane[0] + 1, 0
                number, records = max(0, lane[1] - dice.choice([0, 0, 0, 1, 3, -1])), dice.randint(1, 4)
                lane[1] = number + records
                lanes.append(SessionLane(partition, lane[0], number, records))
            attempt = Session(producer, request, tuple(lanes)), dice.random() < 0.7
            sent.append(attempt)
        tasks.append(asyncio.create_task(world.put(*attempt)))
        if dice.random() < 0.15:
            asyncio.get_running_loop().call_later(dice.choice([0, 0.001, 0.06]), tasks[-1].cancel)
        await asyncio.sleep(dice.choice([0, 0, 0.001, 0.1, 0.4]))
    for end in await asyncio.gather(*tasks, return_exceptions=True):
        assert end is None or isinstance(end, asyncio.CancelledError), end
    world.compare()
    assert not world.app._records._turns._lines
    assert world.app._records.admission.pending_bytes == 0
    await world.engine.close()
    return len(world.told)


@pytest.mark.parametrize("first", range(0, 300, 100))
def test_whatever_comes_at_once(first: int) -> None:
    """Records are stored once and in order, places are true, what was told "not stored" is not stored by that request
    nor, if it was fenced or moved, by an earlier one; and no turn and no byte is left taken.
    """
    told = sum(run_simulated(lambda seed=seed: run(seed)) for seed in range(first, first + 100))  # type: ignore[misc]
    assert told > 1_000
