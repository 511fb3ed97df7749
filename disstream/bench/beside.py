"""Two clients that write in turn, an old one and a fresh one: `python -m disstream.bench.beside` is the fresh one.

What a record costs follows the machine's mood, which changes from minute to minute by more than what is looked for. Two
processes that take turns of seconds share that mood, so the ratio of their costs does not know it: what is left is what
became of the old one. The same is done when the old one is young itself. What differs between the two for another
reason (the old one also takes samples) is in both, and the ratio of the ratios is what age costs.

The fresh process talks in lines of JSON:

    in    Job     first: what to write, and where
    out   Turn    once it has warmed up
    in    Go      write for so long
    out   Turn    of that; and so on

When its standard input closes it closes its producer and ends.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import anyio.to_thread
import msgspec

from ..client import ClientConfig
from ..client.config import Body
from ..door import connect
from ..errors import Undelivered
from ..producer import Producer, ProducerConfig
from ..wire.compression import Compression
from .laps import Plan, Way
from .machine import exact_now
from .processes import PYTHON, Child, child
from .timing import percentile
from .writing import chunk_records

POOL_RECORDS = 10_007
"""Different payloads; prime to any number of keys below it."""
TURN_S = 2.0
"""Long against the end of a turn, which waits for its last receipts, and short against the machine's moods."""
LEAST_TURNS = 4
"""Of each, of a short comparison."""


class Job(msgspec.Struct):
    endpoint: str
    project: str
    stream: str
    plan: Plan
    way: Way
    body: Body
    compression: Compression | None
    warm_up_s: float


class Go(msgspec.Struct):
    seconds: float


class Turn(msgspec.Struct, frozen=True):
    """Some seconds of writing, from the first record to the last receipt."""

    records: int
    """Acknowledged."""
    failed: int
    seconds: float
    cpu_s: float
    """Processor time of the whole process."""
    server_cpu_s: float | None = None
    """What the server used meanwhile; None: nobody knows."""

    @property
    def rate(self) -> float:
        return self.records / self.seconds if self.seconds else 0.0

    @property
    def us(self) -> float:
        """Processor time per record, microseconds."""
        return self.cpu_s / self.records * 1e6 if self.records else 0.0


class Ratio(msgspec.Struct, frozen=True):
    """Of many pairs: the median, and between which values the middle half of them is."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, ratios: list[float]) -> Ratio:
        ordered = sorted(ratios)
        return cls(statistics.median(ordered), percentile(ordered, 0.25), percentile(ordered, 0.75))


class Comparison(msgspec.Struct, frozen=True):
    """The turns of one after the other; `old[i]` and `fresh[i]` are neighbours."""

    old: list[Turn]
    fresh: list[Turn]
    warm_up: Turn
    """Of the fresh one, which does not count."""

    @property
    def cost(self) -> Ratio | None:
        """Processor time per record of the old one, in that of the fresh one. None: some turn stored nothing."""
        return _ratio((old.us, fresh.us) for old, fresh in zip(self.old, self.fresh, strict=True))

    @property
    def rate(self) -> Ratio | None:
        """The same of records a second."""
        return _ratio((old.rate, fresh.rate) for old, fresh in zip(self.old, self.fresh, strict=True))

    @property
    def server_cost(self) -> Ratio | None:
        """Processor time that the server used in the turns of the fresh one, in its. None: it is not known."""
        return _ratio((turn.server_cpu_s or 0.0, turn.cpu_s) for turn in self.fresh)

    @property
    def fresh_us(self) -> float:
        return statistics.median(turn.us for turn in self.fresh)

    @property
    def stored(self) -> int:
        """Records that the fresh one got acknowledged."""
        return sum(turn.records for turn in (self.warm_up, *self.fresh))

    @property
    def failed(self) -> int:
        """Records that it did not."""
        return sum(turn.failed for turn in (self.warm_up, *self.fresh))


def _ratio(pairs: Iterable[tuple[float, float]]) -> Ratio | None:
    found = list(pairs)
    if not found or not all(a and b for a, b in found):
        return None
    return Ratio.of([a / b for a, b in found])


class Writer:
    """Writes records of a pool as fast as the producer takes them. Nothing is kept of them."""

    def __init__(self, producer: Producer, plan: Plan, way: Way) -> None:
        self._producer = producer
        self._mode = way.mode
        self._count = chunk_records(plan.size_bytes)
        dice = random.Random(0)
        payloads = [dice.randbytes(plan.size_bytes) for _ in range(POOL_RECORDS)]
        keys = [f"key-{i}" for i in range(plan.keys)]
        self._records = zip(itertools.cycle(payloads), itertools.cycle(keys), strict=True)

    async def write(self, seconds: float) -> None:
        """For so long; what was written last is still under way."""
        producer, end = self._producer, anyio.current_time() + seconds
        while anyio.current_time() < end:
            some = list(itertools.islice(self._records, self._count))
            if self._mode == "send_many":
                await producer.send_many(some)
            else:
                for payload, key in some:
                    await producer.send(payload, key=key)

    async def turn(self, seconds: float) -> Turn:
        """For so long, and until all of it has its end."""
        before, began, cpu_s = self._producer.stats(), exact_now(), time.process_time()
        await self.write(seconds)
        await self._producer.flush()
        lasted, used = exact_now() - began, time.process_time() - cpu_s
        after = self._producer.stats()
        stored = after.stored - before.stored
        return Turn(stored, after.accepted - before.accepted - stored, lasted, used)


async def compare(writer: Writer, job: Job, seconds: float, server: Child | None) -> Comparison:
    """Let the writer, and a fresh process that does the job, write in turn for about so long together.

    Who begins changes from pair to pair, so that a drift within a pair is nobody's.
    """
    pairs = max(LEAST_TURNS, round(seconds / (2 * TURN_S)))
    turn_s = min(TURN_S, seconds / (2 * LEAST_TURNS))
    old: list[Turn] = []
    fresh: list[Turn] = []
    with TemporaryDirectory(prefix="disstream-bench-") as directory:
        async with child("fresh", [*PYTHON, "disstream.bench.beside"], Path(directory)) as process:
            await process.write(job)
            warm_up = await process.read(Turn)

            async def ours() -> None:
                old.append(await writer.turn(turn_s))

            async def theirs() -> None:
                used = server.cpu_s() if server is not None else None
                await process.write(Go(turn_s))
                turn = await process.read(Turn)
                ended = server.cpu_s() if server is not None else None
                server_cpu_s = ended - used if used is not None and ended is not None else None
                fresh.append(msgspec.structs.replace(turn, server_cpu_s=server_cpu_s))

            for number in range(pairs):
                both: list[Callable[[], Awaitable[None]]] = [ours, theirs] if number % 2 else [theirs, ours]
                for one in both:
                    await one()
    return Comparison(old, fresh, warm_up)


async def _work(job: Job, commands: io.FileIO) -> None:
    config = ClientConfig(body=job.body, compression=job.compression)
    async with connect(job.endpoint, project_id=job.project, config=config) as dis:
        with contextlib.suppress(Undelivered):  # each turn has told
            async with dis.producer(job.stream, ProducerConfig(order=job.way.order)) as producer:
                writer = Writer(producer, job.plan, job.way)
                _tell(await writer.turn(job.warm_up_s))
                while line := await anyio.to_thread.run_sync(commands.readline):
                    _tell(await writer.turn(msgspec.json.decode(line, type=Go).seconds))


def _tell(turn: Turn) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(turn) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    # Unbuffered: a thread may still block in a read when the interpreter ends, and then must hold no lock.
    commands = io.FileIO(0, closefd=False)
    job = msgspec.json.decode(commands.readline(), type=Job)
    anyio.run(_work, job, commands, backend_options={"use_uvloop": sys.platform != "win32"})


if __name__ == "__main__":
    main()
