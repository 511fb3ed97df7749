"""What every contender does alike: the same records, one clock, one line of JSON for each lap. Standard library alone.

A contender is a process that is told a lap per line of standard input and answers each with a line. Payloads are random
bytes made before the first lap, 97 keys take turns, and the clock runs from the first record to the last
acknowledgement: what connects, creates and counts afterwards is not timed.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, NamedTuple, TypeVar

KEYS = 97
PARTITIONS = 4
THOUSAND = 1_000
WINDOW = 8
"""Thousands."""
POOL_RECORDS = 97_001
"""Different payloads. Prime to the keys, so that they meet in all combinations; a lap may be longer."""

Pairs = list[tuple[bytes, str]]
T = TypeVar("T")


class Lap(NamedTuple):
    """One way to write `pairs` once, to a stream (topic, key, ...) that is called `name` and does not exist yet."""

    address: str
    way: str
    name: str
    pairs: Pairs


class Outcome(NamedTuple):
    """What was acknowledged in a lap, and what is there: counted by the service, after the clock stopped."""

    acknowledged: int
    stored: int
    seconds: float
    cpu_s: float


class Stopwatch:
    """Elapsed and processor time of this process, all threads, from its making to `stop`."""

    def __init__(self) -> None:
        self.seconds = self.cpu_s = 0.0
        self._began, self._used = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        self.seconds, self.cpu_s = time.perf_counter() - self._began, time.process_time() - self._used

    def outcome(self, acknowledged: int, stored: int) -> Outcome:
        return Outcome(acknowledged, stored, self.seconds, self.cpu_s)


class Window(Generic[T]):
    """Acknowledgements of the last few thousand records, awaited in order while the next are sent.

    One after another costs less than `asyncio.gather`, and thousands less than all at the end: fewer objects alive.
    """

    def __init__(self) -> None:
        self._waiting: deque[list[Awaitable[T]]] = deque()
        self.count = 0
        """Acknowledged; what was not raises."""

    async def add(self, some: list[Awaitable[T]]) -> None:
        self._waiting.append(some)
        if len(self._waiting) > WINDOW:
            await self._settle()

    async def drain(self) -> None:
        while self._waiting:
            await self._settle()

    async def _settle(self) -> None:
        for acknowledgement in self._waiting.popleft():
            await acknowledgement
            self.count += 1


def partition_of(key: str) -> int:
    """Where a record belongs in a service whose clients choose: the keys in turn, so that all are equally full."""
    return int(key.rpartition("-")[2]) % PARTITIONS


def compete(run: Callable[[Lap], Outcome]) -> None:
    """Do the laps that standard input names, until it ends."""
    pool: dict[int, list[bytes]] = {}
    names = [f"key-{i}" for i in range(KEYS)]
    for line in sys.stdin:
        told = json.loads(line)
        size, records = told["size"], told["records"]
        if size not in pool:
            dice = random.Random(1)
            pool = {size: [dice.randbytes(size) for _ in range(POOL_RECORDS)]}
        payloads = pool[size]
        pairs = [(payloads[i % POOL_RECORDS], names[i % KEYS]) for i in range(records)]
        outcome = run(Lap(told["address"], told["way"], told["name"], pairs))
        print(json.dumps(outcome._asdict()), flush=True)
