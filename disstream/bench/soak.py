"""Writing without an end: does the rate hold, and does memory stay where it was?

Records are made on the way, from a pool of payloads, and nothing is kept of them. So they are not read back: at the end
the service is asked how many it holds, which must be as many as it acknowledged.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
from collections.abc import Iterator

import anyio
import msgspec

from ..errors import Undelivered
from ..producer import Producer, ProducerConfig
from .curves import Panel, Picture
from .laps import Plan, Way
from .load import Bench, Tell
from .machine import Origin, exact_now, private_bytes
from .pulse import Pulse
from .timing import Spread
from .writing import chunk_records

SAMPLE_INTERVAL_S = 1.0
SAMPLES = 50
"""At least, of a short run."""
WARM_UP_S = 5.0
"""Before the first sample; a tenth of a short run."""
POOL_RECORDS = 10_007
"""Different payloads; prime to any number of keys below it."""
SLICES = 10
"""The time is looked at in so many equal parts: minutes, if it is ten of them."""
FLAT = 0.05


class Sample(msgspec.Struct, frozen=True):
    at_s: float
    stored: int
    """Records acknowledged since the beginning."""
    client_bytes: int | None
    """Memory of the process that is not backed by files."""
    server_bytes: int | None


class Slice(msgspec.Struct, frozen=True):
    """Part of the run."""

    from_s: float
    rate: float
    client_bytes: float | None
    """Mean."""
    server_bytes: float | None


class SoakResult(msgspec.Struct, frozen=True, kw_only=True):
    origin: Origin
    plan: Plan
    """Its `records` are those accepted."""
    samples: list[Sample]
    stored: int
    failed: int
    held: int
    """What the service says it holds."""
    stall: Spread

    @property
    def good(self) -> bool:
        return not self.failed and self.held == self.stored

    def slices(self) -> list[Slice]:
        """The run in equal parts (as many as there are samples for)."""
        count = min(SLICES, len(self.samples) - 1)
        bounds = [i * (len(self.samples) - 1) // count for i in range(count + 1)] if count > 0 else []
        return [self._slice(self.samples[a : b + 1]) for a, b in itertools.pairwise(bounds)]

    def _slice(self, part: list[Sample]) -> Slice:
        first, last = part[0], part[-1]
        return Slice(
            first.at_s,
            (last.stored - first.stored) / (last.at_s - first.at_s),
            _mean(sample.client_bytes for sample in part),
            _mean(sample.server_bytes for sample in part),
        )

    def picture(self) -> Picture:
        pairs = list(itertools.pairwise(self.samples))
        rates = [(b.at_s, (b.stored - a.stored) / (b.at_s - a.at_s)) for a, b in pairs]
        client = [(s.at_s, s.client_bytes / 1e6) for s in self.samples if s.client_bytes is not None]
        server = [(s.at_s, s.server_bytes / 1e6) for s in self.samples if s.server_bytes is not None]
        memory = {name: points for name, points in (("client", client), ("server", server)) if points}
        panels = [Panel("records/s, acknowledged", {"written": rates})]
        return Picture(x_label="seconds", panels=[*panels, Panel("memory, MB", memory)] if memory else panels)


def _mean(values: Iterator[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


async def soak(bench: Bench, plan: Plan, way: Way, seconds: float, tell: Tell, origin: Origin) -> SoakResult:
    """Write for so long (and a little before, which does not count)."""
    dice = random.Random(0)
    payloads = [dice.randbytes(plan.size_bytes) for _ in range(POOL_RECORDS)]
    keys = [f"key-{i}" for i in range(plan.keys)]
    records = zip(itertools.cycle(payloads), itertools.cycle(keys), strict=True)
    samples: list[Sample] = []
    async with bench.stream(plan.partitions) as stream:
        with contextlib.suppress(Undelivered):  # counted below
            async with bench.dis.producer(stream, ProducerConfig(order=way.order)) as producer:
                with Pulse() as pulse:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(_sample, bench, producer, seconds, samples, tell)
                        await _write(
                            producer, way, records, chunk_records(plan.size_bytes), _warm_up_s(seconds) + seconds
                        )
                        await producer.flush()
                stats = producer.stats()
        held = sum((await bench.ends(stream)).values())
    return SoakResult(
        origin=origin,
        plan=msgspec.structs.replace(plan, records=stats.accepted),
        samples=samples,
        stored=stats.stored,
        failed=stats.accepted - stats.stored,
        held=held,
        stall=pulse.spread(),
    )


async def _write(
    producer: Producer, way: Way, records: Iterator[tuple[bytes, str]], count: int, seconds: float
) -> None:
    """`count` records at a time."""
    end = anyio.current_time() + seconds
    while anyio.current_time() < end:
        some = list(itertools.islice(records, count))
        if way.mode == "send_many":
            await producer.send_many(some)
        else:
            for payload, key in some:
                await producer.send(payload, key=key)


async def _sample(bench: Bench, producer: Producer, seconds: float, samples: list[Sample], tell: Tell) -> None:
    interval_s = min(SAMPLE_INTERVAL_S, seconds / SAMPLES)
    await anyio.sleep(_warm_up_s(seconds))
    begun = exact_now()
    for number in range(round(seconds / interval_s) + 1):
        await anyio.sleep(max(begun + number * interval_s - exact_now(), 0))
        sample = Sample(
            exact_now() - begun,
            producer.stats().stored,
            private_bytes(os.getpid()),
            bench.process.private_bytes() if bench.process is not None else None,
        )
        samples.append(sample)
        if not number % SAMPLES:
            tell(f"{sample.at_s:,.0f} s: {sample.stored:,} records")


def _warm_up_s(seconds: float) -> float:
    return min(WARM_UP_S, seconds / 10)
