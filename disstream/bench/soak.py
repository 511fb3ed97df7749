"""Writing without an end: does a record go on to cost the same, does the rate hold, does memory stay where it was?

    warm up -> compare -> write for so long, looking every second -> compare

`compare` (beside.py) lets the client write in turn with a fresh process: what a machine that drifts does to both is not
in the ratio. So the two ratios tell what became of the client, and what the fresh ones cost tells what became of the
machine.

Records are made on the way, from a pool of payloads, and nothing is kept of them. So they are not read back: at the end
the service is asked how many it holds, which must be as many as it acknowledged.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator

import anyio
import msgspec

from ..errors import Undelivered
from ..producer import Producer, ProducerConfig
from .beside import Comparison, Job, Writer, compare
from .curves import Panel, Picture
from .laps import Plan, Way
from .load import Bench, Tell
from .machine import Origin, exact_now, private_bytes
from .pulse import Pulse
from .timing import Spread

SAMPLE_INTERVAL_S = 1.0
SAMPLES = 50
"""At least, of a short run."""
WARM_UP_S = 5.0
"""Before what counts; a tenth of a short run."""
SLICES = 10
"""The time is looked at in so many equal parts: minutes, if it is ten of them."""
FLAT = 0.05
"""What does not change by more is flat."""


class Sample(msgspec.Struct, frozen=True):
    at_s: float
    stored: int
    """Records acknowledged since the beginning."""
    client_bytes: int | None
    """Memory of the process that is not backed by files."""
    server_bytes: int | None
    client_cpu_s: float = 0.0
    """Processor time since its beginning."""
    server_cpu_s: float | None = None


class Slice(msgspec.Struct, frozen=True):
    """Part of the run."""

    from_s: float
    rate: float
    client_bytes: float | None
    """Mean."""
    server_bytes: float | None
    client_us: float | None
    """Processor time per record, microseconds."""
    server_us: float | None


class SoakResult(msgspec.Struct, frozen=True, kw_only=True):
    origin: Origin
    plan: Plan
    """Its `records` are those accepted, of the fresh clients too."""
    samples: list[Sample]
    stored: int
    failed: int
    held: int
    """What the service says it holds."""
    stall: Spread
    young: Comparison | None = None
    """With a fresh client, before the first sample."""
    aged: Comparison | None = None
    """The same behind the last."""

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
        stored = last.stored - first.stored
        on_server = first.server_cpu_s is not None and last.server_cpu_s is not None
        return Slice(
            first.at_s,
            stored / (last.at_s - first.at_s),
            _mean(sample.client_bytes for sample in part),
            _mean(sample.server_bytes for sample in part),
            (last.client_cpu_s - first.client_cpu_s) / stored * 1e6 if stored else None,
            ((last.server_cpu_s or 0.0) - (first.server_cpu_s or 0.0)) / stored * 1e6 if stored and on_server else None,
        )

    def ageing(self) -> tuple[float, float] | None:
        """What age has done to the client: to a record's processor time, and to records a second. 0.01: 1 % more."""
        if self.young is None or self.aged is None:
            return None
        costs, rates = (self.young.cost, self.aged.cost), (self.young.rate, self.aged.rate)
        if costs[0] is None or costs[1] is None or rates[0] is None or rates[1] is None:
            return None
        return costs[1].median / costs[0].median - 1, rates[1].median / rates[0].median - 1

    def drift(self) -> float | None:
        """What a fresh client costs at the end more than one at the beginning: the machine, and nothing of ours."""
        if self.young is None or self.aged is None or not self.young.fresh_us:
            return None
        return self.aged.fresh_us / self.young.fresh_us - 1

    def server_ageing(self) -> float | None:
        """What age has done to a record's processor time on the server, told in that of fresh clients."""
        if self.young is None or self.aged is None:
            return None
        begun, ended = self.young.server_cost, self.aged.server_cost
        return ended.median / begun.median - 1 if begun is not None and ended is not None else None

    def picture(self) -> Picture:
        pairs = list(itertools.pairwise(self.samples))
        rates = [(b.at_s, (b.stored - a.stored) / (b.at_s - a.at_s)) for a, b in pairs]
        curves = {
            "processor time a record, us": {
                "client": [(part.from_s, part.client_us) for part in self.slices()],
                "server": [(part.from_s, part.server_us) for part in self.slices()],
            },
            "memory, MB": {
                "client": [(s.at_s, s.client_bytes and s.client_bytes / 1e6) for s in self.samples],
                "server": [(s.at_s, s.server_bytes and s.server_bytes / 1e6) for s in self.samples],
            },
        }
        panels = [Panel("records/s, acknowledged", {"written": rates})]
        for label, both in curves.items():
            known = {name: [(x, y) for x, y in points if y is not None] for name, points in both.items()}
            if known := {name: points for name, points in known.items() if points}:
                panels.append(Panel(label, known))
        return Picture(x_label="seconds", panels=panels)


def _mean(values: Iterator[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


async def soak(
    bench: Bench, plan: Plan, way: Way, seconds: float, compare_s: float, tell: Tell, origin: Origin
) -> SoakResult:
    """Write for so long. `compare_s`: how long a comparison takes, before and after; 0: there is none."""
    samples: list[Sample] = []
    young = aged = None
    async with bench.stream(plan.partitions) as stream:
        config = bench.dis.config
        warm_up_s = min(WARM_UP_S, seconds / 10)
        job = Job(bench.endpoint, bench.dis.project_id, stream, plan, way, config.body, config.compression, warm_up_s)
        with contextlib.suppress(Undelivered):  # counted below
            async with bench.dis.producer(stream, ProducerConfig(order=way.order)) as producer:
                writer = Writer(producer, plan, way)
                await writer.turn(warm_up_s)
                if compare_s:
                    tell("in turn with a fresh client")
                    young = await compare(writer, job, compare_s, bench.process)
                with Pulse() as pulse:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(_sample, bench, producer, seconds, samples, tell)
                        await writer.write(seconds)
                        await producer.flush()
                if compare_s:
                    tell("in turn with a fresh client")
                    aged = await compare(writer, job, compare_s, bench.process)
                stats = producer.stats()
        held = sum((await bench.ends(stream)).values())
    fresh = [comparison for comparison in (young, aged) if comparison is not None]
    stored = stats.stored + sum(comparison.stored for comparison in fresh)
    failed = stats.accepted - stats.stored + sum(comparison.failed for comparison in fresh)
    return SoakResult(
        origin=origin,
        plan=msgspec.structs.replace(plan, records=stored + failed),
        samples=samples,
        stored=stored,
        failed=failed,
        held=held,
        stall=pulse.spread(),
        young=young,
        aged=aged,
    )


async def _sample(bench: Bench, producer: Producer, seconds: float, samples: list[Sample], tell: Tell) -> None:
    interval_s = min(SAMPLE_INTERVAL_S, seconds / SAMPLES)
    server = bench.process
    begun = exact_now()
    for number in range(round(seconds / interval_s) + 1):
        await anyio.sleep(max(begun + number * interval_s - exact_now(), 0))
        sample = Sample(
            exact_now() - begun,
            producer.stats().stored,
            private_bytes(os.getpid()),
            server.private_bytes() if server is not None else None,
            time.process_time(),
            server.cpu_s() if server is not None else None,
        )
        samples.append(sample)
        if not number % SAMPLES:
            tell(f"{sample.at_s:,.0f} s: {sample.stored:,} records")
