"""Produce and consume, repeated in turn, verified in the same run.

Payloads are made before the clock starts: the record's number in 8 bytes, then random bytes. Each lap writes a stream
of its own. Only acknowledged records count, and after the clock stops everything is read back, and the key and the
bytes of each record are compared with those that were sent. Whatever is compared takes turns, so that a machine that
drifts slows all of it, and a lap of each that does not count comes first.
"""

from __future__ import annotations

import contextlib
import gc
import random
import resource
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import NamedTuple

import anyio
import msgspec

from ..client import ClientConfig
from ..consumer import ConsumerConfig
from ..door import DisClient, connect
from ..errors import Undelivered
from ..model import Record
from ..producer import Order, ProducerConfig
from .arrival import Arrivals
from .check import Checker, Findings, Sent
from .laps import NUMBER_BYTES, Lap, Plan, ReadMode, Way
from .machine import exact_now, fsync_times
from .processes import Child, server
from .pulse import Pulse
from .reader import reached
from .timing import Spread
from .writing import MANY, Load, at_full_speed, at_rate

WARM_UP_RECORDS = 100_000
"""At most: enough to fill the allocator's arenas, the caches and the connections of both sides."""
WARM_UP_S = 2.0
"""With a rate."""
FSYNC_COUNT = 300
PATIENCE_S = 30.0
"""For records that were written to reach a consumer; what has not is lost."""

Tell = Callable[[str], None]


UNSEEN_EVERY = 50
"""Batches that are kept before they are taken out of the collector's sight."""


class Bench(NamedTuple):
    """A service to load. `process`: the server's own, if we started it."""

    endpoint: str
    dis: DisClient
    process: Child | None
    data_dir: Path | None
    """Of that server."""

    async def produce(self, plan: Plan, ways: Sequence[Way], tell: Tell) -> list[Lap]:
        """Write everything in each way, `plan.repeats` times."""
        load = Load.make(plan, random.Random(0))
        warming = min(plan.records, WARM_UP_RECORDS if plan.rate is None else round(plan.rate * WARM_UP_S))
        for way in ways:
            tell(f"warming up {way}")
            async with self.stream(plan.partitions) as stream:
                await self.write(stream, plan, way, load.part(0, warming))
        laps = []
        for number in range(plan.repeats):
            for way in ways:
                tell(f"writing {way} {number + 1}/{plan.repeats}")
                laps.append(await self.lap(plan, way, load, tell))
        return laps

    async def lap(self, plan: Plan, way: Way, load: Load, tell: Tell) -> Lap:
        """Write a new stream, and read it back."""
        async with self.stream(plan.partitions) as stream:
            written = await self.write(stream, plan, way, load)
            tell("reading back")
            return msgspec.structs.replace(written, findings=await self._read_back(stream, load.sent))

    async def end_to_end(self, plan: Plan, rate: float, order: Order, tell: Tell) -> list[Lap]:
        """Write at `rate` while a consumer reads, `plan.repeats` times. Each lap's findings are what that one read."""
        load = Load.make(plan, random.Random(0))
        tell("warming up")
        await self._end_to_end(plan, rate, order, load.part(0, min(plan.records, round(rate * WARM_UP_S))))
        laps = []
        for number in range(plan.repeats):
            tell(f"writing and reading {number + 1}/{plan.repeats}")
            laps.append(await self._end_to_end(plan, rate, order, load))
        return laps

    async def _end_to_end(self, plan: Plan, rate: float, order: Order, load: Load) -> Lap:
        clock = _Clock(self.process)
        async with self.stream(plan.partitions) as stream, self.dis.consumer(stream) as consumer:
            arrivals = Arrivals(consumer, len(load.keys))
            with contextlib.suppress(Undelivered):  # counted below
                async with self.dis.producer(stream, ProducerConfig(order=order)) as producer:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(arrivals.run)
                        with _unseen(), Pulse() as pulse:
                            clock.start()
                            begin_s = exact_now()
                            latency, lateness = await at_rate(producer, rate, load, begin_s)
                            with anyio.move_on_after(PATIENCE_S):
                                await arrivals.complete.wait()
                            clock.stop()
                        tasks.cancel_scope.cancel()
                    stats = producer.stats()
        checker = Checker(load.sent)
        _check(checker, arrivals.records)
        lap = clock.lap("end to end", stats.stored, stats.accepted - stats.stored, checker.findings())
        return msgspec.structs.replace(
            lap,
            ordered=order != "none",
            stall=pulse.spread(),
            latency=latency,
            lateness=lateness,
            arrival=arrivals.since(begin_s, rate, 0),
        )

    async def consume(self, plan: Plan, modes: Sequence[ReadMode], tell: Tell) -> list[Lap]:
        """Write once, untimed; read all of it in each mode, `plan.repeats` times."""
        laps = []
        async with self.stream(plan.partitions) as stream:
            tell("writing what will be read")
            load = Load.make(plan, random.Random(0))
            written = await self.write(stream, plan, Way("send_many", "key"), load)
            for number in range(plan.repeats + 1):
                for mode in modes:
                    tell(f"reading with {mode} {number}/{plan.repeats}")
                    lap = await self._read(stream, load.sent, written.failed, mode)
                    if number:  # the first one warms up
                        laps.append(lap)
        return laps

    async def fsync(self, size_bytes: int) -> Spread | None:
        """How long the disk under the server takes to write and sync as many bytes; None: it is not ours."""
        if self.data_dir is None:
            return None
        return Spread.of(await anyio.to_thread.run_sync(fsync_times, self.data_dir, size_bytes, FSYNC_COUNT))

    @contextlib.asynccontextmanager
    async def stream(self, partitions: int) -> AsyncIterator[str]:
        """A new one, gone afterwards."""
        name = f"bench-{token_hex(4)}"
        await self.dis.streams.create(name, partitions=partitions)
        await self.dis.streams.wait_running(name)
        try:
            yield name
        finally:
            with anyio.move_on_after(5, shield=True):
                await self.dis.streams.delete(name)

    async def write(self, stream: str, plan: Plan, way: Way, load: Load) -> Lap:
        """Write `load`; what is there has not been looked at yet."""
        clock = _Clock(self.process)
        latency = lateness = None
        with contextlib.suppress(Undelivered):  # counted below
            async with self.dis.producer(stream, ProducerConfig(order=way.order)) as producer:
                if plan.untimed:
                    await at_full_speed(producer, way.mode, load.part(0, plan.untimed))
                before, timed = producer.stats(), load.part(plan.untimed)
                with _unseen(), Pulse() as pulse:
                    clock.start()
                    if plan.rate is None:
                        await at_full_speed(producer, way.mode, timed)
                    else:
                        latency, lateness = await at_rate(producer, plan.rate, timed, exact_now())
                    clock.stop()
                stats = producer.stats()
        stored = stats.stored - before.stored
        lap = clock.lap(str(way), stored, stats.accepted - stats.stored, Checker(load.sent).findings())
        return msgspec.structs.replace(
            lap,
            ordered=way.order != "none",
            untimed=before.stored,
            stall=pulse.spread(),
            latency=latency,
            lateness=lateness,
        )

    async def _read(self, stream: str, sent: Sent, failed: int, mode: ReadMode) -> Lap:
        ends = await self.ends(stream)
        total = sum(ends.values())
        clock = _Clock(self.process)
        read: list[Sequence[Record]] = []
        async with self.dis.consumer(stream, ConsumerConfig()) as consumer:
            with _unseen(), Pulse() as pulse:
                clock.start()
                if mode == "fetch":
                    left = total
                    while left > 0:
                        batch = await consumer.fetch(max_records=MANY, timeout_s=1.0)
                        read.append(batch)
                        left -= len(batch)
                        if len(read) % UNSEEN_EVERY == 0:
                            gc.freeze()  # as `_unseen`: what is kept to be checked is ours, not the consumer's
                elif total:
                    records: list[Record] = []
                    gc.freeze()
                    async for record in consumer:
                        records.append(record)
                        if len(records) == total:
                            break
                    read.append(records)
                clock.stop()
        checker = Checker(sent)
        for part in read:
            _check(checker, part)
        return msgspec.structs.replace(clock.lap(mode, total, failed, checker.findings()), stall=pulse.spread())

    async def _read_back(self, stream: str, sent: Sent) -> Findings:
        ends = await self.ends(stream)
        checker = Checker(sent)
        async with self.dis.consumer(stream, ConsumerConfig()) as consumer:
            while not reached(consumer, stream, ends):
                _check(checker, await consumer.fetch(max_records=MANY, timeout_s=1.0))
        return checker.findings()

    async def ends(self, stream: str) -> dict[str, int]:
        info = await self.dis.streams.describe(stream)
        return {p.partition_id: p.sequence_range.end for p in info.partitions if p.sequence_range}


def _check(checker: Checker, records: Sequence[Record]) -> None:
    for record in records:
        numbered = len(record.data) >= NUMBER_BYTES
        number = int.from_bytes(record.data[:NUMBER_BYTES], "big") if numbered else None
        checker.add(number, record.key, record.data)


@contextlib.contextmanager
def _unseen() -> Iterator[None]:
    """What is there already, millions of payloads and keys, is none of the garbage collector's business inside.

    Each of its full rounds would look at all of them, for tens of milliseconds: a stall of our own making.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class _Clock:
    """Elapsed and processor time between start and stop."""

    def __init__(self, process: Child | None) -> None:
        self._process = process
        self._started = self._stopped = self._now()

    def _now(self) -> tuple[float, float, float | None]:
        """Elapsed time, our processor time, the server's."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        server_cpu_s = self._process.cpu_s() if self._process is not None else None
        return exact_now(), used.ru_utime + used.ru_stime, server_cpu_s

    def start(self) -> None:
        self._started = self._now()

    def stop(self) -> None:
        self._stopped = self._now()

    def lap(self, what: str, records: int, failed: int, findings: Findings) -> Lap:
        begun, ended = self._started, self._stopped
        server_cpu_s = ended[2] - begun[2] if ended[2] is not None and begun[2] is not None else None
        return Lap(
            what=what,
            ordered=True,
            records=records,
            failed=failed,
            seconds=ended[0] - begun[0],
            client_cpu_s=ended[1] - begun[1],
            server_cpu_s=server_cpu_s,
            findings=findings,
        )


@contextlib.asynccontextmanager
async def bench(
    endpoint: str | None, project: str, data_dir: Path | None, config: ClientConfig | None = None
) -> AsyncIterator[Bench]:
    """A bench against `endpoint`; None: against a durable server of our own, in its own process, gone afterwards."""
    async with contextlib.AsyncExitStack() as stack:
        process: Child | None
        if endpoint is not None:
            url, process = endpoint, None
        else:
            directory = Path(stack.enter_context(TemporaryDirectory(prefix="disstream-bench-")))
            data_dir = data_dir or directory / "data"
            url, process = await stack.enter_async_context(server(data_dir, directory))
        dis = await stack.enter_async_context(connect(url, project_id=project, config=config))
        yield Bench(url, dis, process, data_dir)
