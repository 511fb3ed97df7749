"""Results as text."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterator

from ..producer.lanes import KEY_CACHE_SIZE
from .beside import Ratio
from .demo import BUFFER_BYTES, DemoReport
from .laps import Lap, Result, median
from .machine import Origin
from .soak import FLAT, SoakResult
from .stage import AUTO_COMMIT_S, COMMIT_SLACK_S
from .sweep import KEYS_FOR_PARTITIONS, SweepResult
from .takeover import TakeoverReport
from .timing import Spread, percentile

BAR_CHARS = 40
WHAT_CHARS = 18
TIME_CHARS = 44


def demo_lines(report: DemoReport, source: str) -> Iterator[str]:
    """What the demo tells at its end; the last line is the verdict."""
    found = report.findings
    unkeyed = report.sent - report.keyed
    yield f"{source}: {report.sent:,} records, {report.keys:,} keys, {len(report.partitions)} partitions"
    yield ""
    yield f"  acknowledged      {report.acknowledged:,} of {report.sent:,}"
    for cause, count in report.failures.items():
        yield f"                    {count:,} x {cause}"
    yield f"  distinct received {found.distinct:,}"
    yield f"  missing           {found.missing:,}"
    yield f"  duplicates        {found.duplicates:,}"
    yield f"  order violations  {found.reordered:,} per key ({unkeyed:,} records without a key have no order to check)"
    yield f"  other key         {found.rekeyed:,} (the key of each record was compared with the one it was sent with)"
    yield f"  other content     {found.changed:,} (the bytes of each record were compared with its row, by CRC-32)"
    if found.foreign:
        yield f"  never sent        {found.foreign:,}"
    yield ""
    yield f"  written           {_rate(report.sent, report.bytes_sent, report.write_s)}; acknowledged after fsync"
    yield f"  read              {_rate(found.received, report.bytes_read, report.read_s)}; another process, meanwhile"
    times = report.latencies_s
    p50, p99 = (percentile(times, share) * 1000 for share in (0.5, 0.99))
    yield f"  send to receipt   p50 {p50:,.0f} ms, p99 {p99:,.0f} ms; every {report.sample_every}th record was timed"
    yield f"                    (at full speed, {BUFFER_BYTES / 2**20:.0f} MiB on the way: more would wait longer)"
    yield ""
    yield "  records in each partition"
    yield from (f"  {line}" for line in bars(report.partitions))
    yield ""
    if report.good:
        yield "PASSED: every record was acknowledged and came back, with its key and its bytes, in the order of its key"
    else:
        yield "FAILED: see above"


def takeover_lines(report: TakeoverReport) -> Iterator[str]:
    """What the second part tells, but for the chart; the last line is the verdict."""
    found = report.findings
    yield (
        f"{report.sent:,} records in {report.pace_s:g} s; 2 workers in one app, session time-out "
        f"{report.session_timeout_s:g} s, commits every {AUTO_COMMIT_S:g} s"
    )
    yield ""
    yield (
        f"  killed            {report.victim}, with SIGKILL {report.killed_after_s:.1f} s after the first record; "
        f"it had {report.orphans} partitions"
    )
    begins = sorted(report.begins_s.values())
    if begins:
        last = f", the last one after {begins[-1]:.1f} s" if len(begins) > 1 else ""
        yield f"  taken over        after {begins[0]:.1f} s{last}, by {report.survivor}"
    elif report.inherited_s is not None:
        yield f"  taken over        after {report.inherited_s:.1f} s, by {report.survivor}; no record came there since"
    else:
        yield "  taken over        never"
    yield f"  acknowledged      {report.acknowledged:,} of {report.sent:,}"
    for cause, count in report.failures.items():
        yield f"                    {count:,} x {cause}"
    yield f"  missing           {found.missing:,}"
    yield (
        f"  duplicates        {report.repeated:,}; at most {report.bound:,}: {report.rate:,.0f} records/s x "
        f"({AUTO_COMMIT_S:g} s between commits + {COMMIT_SLACK_S:g} s)"
    )
    if report.written_twice:
        yield f"                    and {report.written_twice:,} that the producer wrote twice"
    yield f"  order violations  {found.reordered:,} per key, over both workers"
    if found.rekeyed or found.changed or found.foreign:
        yield f"  damaged           {found.rekeyed + found.changed + found.foreign:,}"
    if report.skipped:
        yield f"  skipped           in {', '.join(report.skipped)}: the survivor began too late"
    yield ""
    if report.good:
        yield "PASSED: every record was handled, in the order of its key, although a worker was killed"
    else:
        yield "FAILED: see above"


def bench_lines(result: Result) -> Iterator[str]:
    """A table of all repetitions, the median of each kind, and what it was measured on."""
    plan = result.plan
    pace = "" if plan.rate is None else f", {plan.rate:,.0f} records/s, each at its instant"
    yield from _origin_lines(result.origin)
    yield (
        f"load      {plan.records:,} records of {plan.size_bytes:,} random bytes, {plan.keys:,} keys, "
        f"{plan.partitions:,} partitions{pace}"
    )
    yield ""
    figures = f"{'':<{WHAT_CHARS}}{'records/s':>12}{'MB/s':>9}  {'client us':>10}{'server us':>10}"
    yield f"{figures}  lost  duplicated  reordered  other key  other bytes  failed"
    kinds = result.kinds()
    for what, laps in kinds.items():
        for lap in [*laps, median(laps)] if len(laps) > 1 else laps:
            found = lap.findings
            on_server = "-" if lap.server_us is None else f"{lap.server_us:.2f}"
            yield (
                f"{what:<{WHAT_CHARS}}{lap.rate:>12,.0f}{lap.rate * plan.size_bytes / 1e6:>9.1f}"
                f"  {lap.client_us:>10.2f}{on_server:>10}"
                f"  {lap.lost:>4}  {found.duplicates:>10}  {found.reordered:>9}"
                f"  {found.rekeyed:>9}  {found.changed + found.foreign:>11}  {lap.failed:>6}"
            )
        if len(laps) > 1:
            yield f"{'':<{WHAT_CHARS}}^ median of {len(laps)}"
    yield ""
    if len(kinds) > 1:
        yield from _price_lines(kinds)
    if any(lap.stall for lap in result.laps):
        yield from _time_lines(result, kinds)
        yield ""
    yield "client us, server us: processor time per record. Every record was read back and compared with what was sent:"
    yield "its key, its bytes (by CRC-32), and its place among the records of its key."


def _origin_lines(origin: Origin) -> Iterator[str]:
    yield f"command   {origin.command}"
    yield f"machine   {origin.machine}"
    built = f"disstream {origin.versions['disstream']}" + (f", commit {origin.commit}" if origin.commit else "")
    yield f"service   {origin.service}; {built}; {origin.began_at}"


def _price_lines(kinds: dict[str, list[Lap]]) -> Iterator[str]:
    """How the others compare with the first kind, lap by lap: a machine that drifts slows neighbours alike."""
    first, *others = kinds
    for other in others:
        pairs = list(zip(kinds[other], kinds[first], strict=True))
        rate = statistics.median(lap.rate / base.rate for lap, base in pairs if base.rate)
        cost = statistics.median(lap.client_us / base.client_us for lap, base in pairs if base.client_us)
        yield f"{other}: {rate:.2f} of the records/s of {first}, {cost:.2f} of its processor time on the client"
    yield ""


def _time_lines(result: Result, kinds: dict[str, list[Lap]]) -> Iterator[str]:
    """Latencies and stalls of the median laps."""
    yield f"{'ms':<{TIME_CHARS}}{'p50':>9}{'p90':>9}{'p99':>9}{'p99.9':>9}{'max':>9}"
    if result.fsync is not None:
        yield _spread(f"write and fsync, {result.fsync.count} times, beforehand", result.fsync)
    for what, laps in kinds.items():
        lap = median(laps)
        if lap.latency is not None and lap.lateness is not None:
            if lap.arrival is not None:
                yield _spread(f"{what}: due to the consumer's loop", lap.arrival)
            yield _spread(f"{what}: due to receipt", lap.latency)
            yield _spread(f"{what}: due to sent, part of it", lap.lateness)
        if lap.stall is not None:
            yield _spread(f"{what}: loop late to its timers", lap.stall)


def _spread(name: str, spread: Spread) -> str:
    shown = (spread.p50_s, spread.p90_s, spread.p99_s, spread.p999_s, spread.max_s)
    return f"{name:<{TIME_CHARS}}" + "".join(f"{seconds * 1000:>9.2f}" for seconds in shown)


def sweep_lines(result: SweepResult) -> Iterator[str]:
    """A line for each value, and how far the costs are apart."""
    plan = result.plan
    same = {
        "records": f"up to {plan.records:,} records a lap",
        "size": f"{plan.size_bytes:,} random bytes",
        "keys": f"{plan.keys:,} keys",
        "partitions": f"{plan.partitions:,} partitions",
    }
    same.pop(result.subject)
    if result.subject == "partitions":
        same["keys"] = f"{KEYS_FOR_PARTITIONS:,} keys"
    yield from _origin_lines(result.origin)
    yield f"load      {', '.join(same.values())}"
    yield ""
    yield f"{result.subject:>12}{'records/s':>12}{'MB/s':>9}  {'client us':>10}{'server us':>10}"
    for point in result.points:
        lap = point.median
        size = point.value if result.subject == "size" else plan.size_bytes
        on_server = "-" if lap.server_us is None else f"{lap.server_us:.2f}"
        beyond = "" if result.cached(point) else f"  beyond the {KEY_CACHE_SIZE:,} keys that are remembered"
        bad = "" if all(lap.good for lap in point.laps) else "  WRONG: records lost, altered, reordered or failed"
        yield (
            f"{point.value:>12,}{lap.rate:>12,.0f}{lap.rate * size / 1e6:>9.1f}"
            f"  {point.client_us:>10.2f}{on_server:>10}{beyond}{bad}"
        )
    yield ""
    if result.subject != "size":
        below, above = result.deviation()
        known = " whose keys are remembered" if result.subject == "keys" else ""
        yield f"client us of records{known}: {below:+.0%} to {above:+.0%} around the middle; medians of {plan.repeats}"
    yield "Every record was read back and compared with what was sent."


def soak_lines(result: SoakResult) -> Iterator[str]:
    """A line for each part of the run, and how the last one compares with the first."""
    plan = result.plan
    yield from _origin_lines(result.origin)
    yield (
        f"load      {plan.records:,} records of {plan.size_bytes:,} random bytes, {plan.keys:,} keys, "
        f"{plan.partitions:,} partitions"
    )
    yield ""
    yield f"{'from second':>12}{'records/s':>12}{'client us':>12}{'server us':>12}{'client MB':>12}{'server MB':>12}"
    parts = result.slices()
    for part in parts:
        costs = "".join(_cell(us, ".2f") for us in (part.client_us, part.server_us))
        sizes = "".join(_cell(size and size / 1e6, ".1f") for size in (part.client_bytes, part.server_bytes))
        yield f"{part.from_s:>12.0f}{part.rate:>12,.0f}{costs}{sizes}"
    yield ""
    if parts:
        first, last = parts[0], parts[-1]
        yield f"last part against the first, with the machine's drift: {_change(first.rate, last.rate)} records/s,"
        client, server = _change(first.client_us, last.client_us), _change(first.server_us, last.server_us)
        yield f"processor time per record {client} on the client, {server} on the server"
        memory = [(first.client_bytes, last.client_bytes), (first.server_bytes, last.server_bytes)]
        told = [f"{_change(*of)} of the {whose}" for of, whose in zip(memory, ("client", "server"), strict=True)]
        yield f"memory, the same: {', '.join(told)}; {_flat([b / a - 1 for a, b in memory if a and b])}"
        yield ""
    yield from _beside_lines(result)
    yield f"loop of the client late to its timers: p99.9 {result.stall.p999_s * 1000:.2f} ms"
    yield f"{result.stored:,} records acknowledged, {result.failed:,} not; the service holds {result.held:,}"


def _beside_lines(result: SoakResult) -> Iterator[str]:
    """How the client compares with fresh ones that take turns with it, at both ends of the run."""
    if result.young is None or result.aged is None:
        return
    heads = ("time a record / its", "records/s / its", "server's time / its")
    yield f"{'in turn with a fresh client':<28}{'pairs':>6}{''.join(f'{head:>24}' for head in heads)}"
    for when, comparison in (("at the beginning", result.young), ("at the end", result.aged)):
        ratios = (comparison.cost, comparison.rate, comparison.server_cost)
        yield f"{when:<28}{len(comparison.old):>6}{''.join(f'{_ratio(ratio):>24}' for ratio in ratios)}"
    ageing, drift, server = result.ageing(), result.drift(), result.server_ageing()
    if ageing is not None and drift is not None:
        cost, rate = ageing
        yield f"what age does to the client: processor time {cost:+.1%}, records/s {rate:+.1%}; {_flat(ageing)}"
        if server is not None:
            yield f"what age does to the server: processor time {server:+.1%}; {_flat([server])}"
        yield f"what the machine did: processor time of a fresh client {drift:+.1%}"
    yield ""


def _ratio(ratio: Ratio | None) -> str:
    return "unknown" if ratio is None else f"{ratio.median:.3f} ({ratio.low:.2f} to {ratio.high:.2f})"


def _flat(changes: Collection[float]) -> str:
    """Whether what is known of them is flat."""
    verdict = "unknown" if not changes else "yes" if all(abs(change) <= FLAT for change in changes) else "NO"
    return f"within {FLAT:.0%}: {verdict}"


def _cell(value: float | None, form: str) -> str:
    return f"{'-':>12}" if value is None else f"{value:>12{form}}"


def _change(first: float | None, last: float | None) -> str:
    return f"{last / first - 1:+.1%}" if first and last is not None else "unknown"


def bars(counts: dict[str, int], width: int = BAR_CHARS) -> list[str]:
    """One line per name: a bar, the longest `width` characters, with count and share of all."""
    total = sum(counts.values()) or 1
    longest = max(counts.values(), default=0) or 1
    margin = max(map(len, counts), default=0)
    return [
        f"{name:<{margin}}  {'█' * round(count / longest * width):<{width}}  {count:>9,}  {count / total:6.1%}"
        for name, count in sorted(counts.items())
    ]


def _rate(records: int, size_bytes: int, seconds: float) -> str:
    if seconds <= 0:
        return f"{records:,} records"
    return f"{records / seconds:,.0f} records/s, {size_bytes / seconds / 1e6:,.1f} MB/s (in {seconds:.2f} s)"
