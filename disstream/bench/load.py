"""Produce and consume at full speed, repeated, verified in the same run.

Payloads are made before the clock starts: the record's number in 8 bytes, then random bytes. Each repetition writes a
stream of its own. Only acknowledged records count, and after the clock stops everything is read back, and the key and
the bytes of each record are compared with those that were sent.
"""

from __future__ import annotations

import contextlib
import random
import resource
import statistics
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

import anyio
import msgspec

from ..client import ClientConfig
from ..consumer import ConsumerConfig
from ..door import DisClient, connect
from ..errors import Undelivered
from ..model import Record
from ..producer import Order, ProducerConfig
from .check import Checker, Findings, Sent
from .processes import Child, server
from .reader import reached

NUMBER_BYTES = 8
MANY = 1000
"""Records of one `send_many`, and of one `fetch`."""

Mode = Literal["send", "send_many"]
ReadMode = Literal["fetch", "async for"]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a bench does."""

    records: int
    size_bytes: int
    keys: int
    partitions: int
    order: Order
    repeats: int


class Lap(msgspec.Struct, frozen=True, kw_only=True):
    """One repetition. `records` were acknowledged (written) or received (read) in `seconds`.

    CPU is processor time in seconds; the server's is None where it cannot be known.
    """

    what: str
    records: int
    failed: int
    seconds: float
    client_cpu_s: float
    server_cpu_s: float | None
    findings: Findings

    @property
    def rate(self) -> float:
        return self.records / self.seconds if self.seconds else 0.0

    @property
    def lost(self) -> int:
        """Acknowledged, and not there when the stream was read back."""
        return max(0, self.records - self.findings.distinct)


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """All repetitions of one kind, with what they were made on."""

    command: str
    machine: str
    endpoint: str
    plan: Plan
    laps: list[Lap]

    @property
    def good(self) -> bool:
        """Nothing lost, failed, altered, or (where order was asked for) reordered."""
        return all(
            not (lap.lost or lap.failed or lap.findings.altered)
            and (self.plan.order == "none" or not lap.findings.reordered)
            for lap in self.laps
        )


def median(laps: Sequence[Lap]) -> Lap:
    """The lap in the middle by rate (of an even number: the lower one)."""
    rate = statistics.median_low(lap.rate for lap in laps)
    return next(lap for lap in laps if lap.rate == rate)


class Load(NamedTuple):
    """The records to send, in order."""

    payloads: list[bytes]
    keys: list[str]
    sent: Sent
    """The same, as the checker needs it."""

    @classmethod
    def make(cls, plan: Plan, dice: random.Random) -> Load:
        fill = plan.size_bytes - NUMBER_BYTES
        names = [f"key-{i}" for i in range(plan.keys)]
        keys = [names[i % plan.keys] for i in range(plan.records)]
        payloads = [i.to_bytes(NUMBER_BYTES, "big") + dice.randbytes(fill) for i in range(plan.records)]
        return cls(payloads, keys, Sent.of(zip(payloads, keys, strict=True)))


class Bench(NamedTuple):
    """A service to load. `process`: the server's own, if we started it."""

    dis: DisClient
    process: Child | None

    async def produce(self, plan: Plan, mode: Mode, tell: Callable[[str], None]) -> list[Lap]:
        """Write everything, `plan.repeats` times."""
        load = Load.make(plan, random.Random(0))
        laps = []
        for lap in range(plan.repeats):
            tell(f"writing {lap + 1}/{plan.repeats}")
            async with self._stream(plan) as stream:
                written = await self._write(stream, plan, mode, load)
                tell(f"reading back {lap + 1}/{plan.repeats}")
                written = msgspec.structs.replace(written, findings=await self._read_back(stream, load.sent))
            laps.append(written)
        return laps

    async def consume(self, plan: Plan, modes: Sequence[ReadMode], tell: Callable[[str], None]) -> list[Lap]:
        """Write once, untimed; read all of it `plan.repeats` times in each mode."""
        laps = []
        async with self._stream(plan) as stream:
            tell("writing what will be read")
            load = Load.make(plan, random.Random(0))
            written = await self._write(stream, plan, "send_many", load)
            for lap in range(plan.repeats):
                for mode in modes:
                    tell(f"reading with {mode} {lap + 1}/{plan.repeats}")
                    laps.append(await self._read(stream, load.sent, written.failed, mode))
        return laps

    @contextlib.asynccontextmanager
    async def _stream(self, plan: Plan) -> AsyncIterator[str]:
        name = f"bench-{token_hex(4)}"
        await self.dis.streams.create(name, partitions=plan.partitions)
        await self.dis.streams.wait_running(name)
        try:
            yield name
        finally:
            with anyio.move_on_after(5, shield=True):
                await self.dis.streams.delete(name)

    async def _write(self, stream: str, plan: Plan, mode: Mode, load: Load) -> Lap:
        payloads, keys, sent = load
        clock = _Clock(self.process)
        stats = None
        with contextlib.suppress(Undelivered):  # counted below
            async with self.dis.producer(stream, ProducerConfig(order=plan.order)) as producer:
                clock.start()
                if mode == "send":
                    send = producer.send
                    for payload, key in zip(payloads, keys, strict=True):
                        await send(payload, key=key)
                else:
                    for first in range(0, len(payloads), MANY):
                        chunk = slice(first, first + MANY)
                        await producer.send_many(zip(payloads[chunk], keys[chunk], strict=True))
                await producer.flush()
                clock.stop()
                stats = producer.stats()
        assert stats is not None
        return clock.lap(mode, stats.stored, stats.accepted - stats.stored, Checker(sent).findings())

    async def _read(self, stream: str, sent: Sent, failed: int, mode: ReadMode) -> Lap:
        ends = await self._ends(stream)
        total = sum(ends.values())
        clock = _Clock(self.process)
        read: list[Sequence[Record]] = []
        async with self.dis.consumer(stream, ConsumerConfig()) as consumer:
            clock.start()
            if mode == "fetch":
                left = total
                while left > 0:
                    batch = await consumer.fetch(max_records=MANY, timeout_s=1.0)
                    read.append(batch)
                    left -= len(batch)
            elif total:
                records: list[Record] = []
                async for record in consumer:
                    records.append(record)
                    if len(records) == total:
                        break
                read.append(records)
            clock.stop()
        checker = Checker(sent)
        for part in read:
            _check(checker, part)
        return clock.lap(mode, total, failed, checker.findings())

    async def _read_back(self, stream: str, sent: Sent) -> Findings:
        ends = await self._ends(stream)
        checker = Checker(sent)
        async with self.dis.consumer(stream, ConsumerConfig()) as consumer:
            while not reached(consumer, stream, ends):
                _check(checker, await consumer.fetch(max_records=MANY, timeout_s=1.0))
        return checker.findings()

    async def _ends(self, stream: str) -> dict[str, int]:
        info = await self.dis.streams.describe(stream)
        return {p.partition_id: p.sequence_range.end for p in info.partitions if p.sequence_range}


def _check(checker: Checker, records: Sequence[Record]) -> None:
    for record in records:
        numbered = len(record.data) >= NUMBER_BYTES
        number = int.from_bytes(record.data[:NUMBER_BYTES], "big") if numbered else None
        checker.add(number, record.key, record.data)


class _Clock:
    """Elapsed and processor time between start and stop."""

    def __init__(self, process: Child | None) -> None:
        self._process = process
        self._started = self._stopped = self._now()

    def _now(self) -> tuple[float, float, float | None]:
        """Loop time, our processor time, the server's."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        server_cpu_s = self._process.cpu_s() if self._process is not None else None
        return anyio.current_time(), used.ru_utime + used.ru_stime, server_cpu_s

    def start(self) -> None:
        self._started = self._now()

    def stop(self) -> None:
        self._stopped = self._now()

    def lap(self, what: str, records: int, failed: int, findings: Findings) -> Lap:
        begun, ended = self._started, self._stopped
        server_cpu_s = ended[2] - begun[2] if ended[2] is not None and begun[2] is not None else None
        return Lap(
            what=what,
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
        process = None
        url = endpoint
        if url is None:
            directory = Path(stack.enter_context(TemporaryDirectory(prefix="disstream-bench-")))
            url, process = await stack.enter_async_context(server(data_dir or directory / "data", directory))
        dis = await stack.enter_async_context(connect(url, project_id=project, config=config))
        yield Bench(dis, process)
