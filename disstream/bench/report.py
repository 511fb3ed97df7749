"""Results as text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from .demo import BUFFER_BYTES, DemoReport
from .load import Result, median
from .takeover import AUTO_COMMIT_S, COMMIT_SLACK_S, TakeoverReport

BAR_CHARS = 40


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
    yield f"command   {result.command}"
    yield f"machine   {result.machine}"
    yield f"service   {result.endpoint}"
    yield (
        f"load      {plan.records:,} records of {plan.size_bytes:,} random bytes, {plan.keys} keys, "
        f"{plan.partitions} partitions, order={plan.order}"
    )
    yield ""
    figures = f"{'':<12}{'records/s':>12}{'MB/s':>9}  {'client us':>10}{'server us':>10}"
    yield f"{figures}  lost  duplicated  reordered  other key  other bytes  failed"
    for what in dict.fromkeys(lap.what for lap in result.laps):
        laps = [lap for lap in result.laps if lap.what == what]
        for lap in [*laps, median(laps)] if len(laps) > 1 else laps:
            found = lap.findings
            on_server = f"{lap.server_cpu_s / lap.records * 1e6:.2f}" if lap.server_cpu_s and lap.records else "-"
            on_client = f"{lap.client_cpu_s / lap.records * 1e6:.2f}" if lap.records else "-"
            yield (
                f"{what:<12}{lap.rate:>12,.0f}{lap.rate * plan.size_bytes / 1e6:>9.1f}  {on_client:>10}{on_server:>10}"
                f"  {lap.lost:>4}  {found.duplicates:>10}  {found.reordered:>9}"
                f"  {found.rekeyed:>9}  {found.changed + found.foreign:>11}  {lap.failed:>6}"
            )
        if len(laps) > 1:
            yield f"{'':<12}^ median of {len(laps)}"
    yield ""
    yield "client us, server us: processor time per record. Every record was read back and compared with what was sent:"
    yield "its key, its bytes (by CRC-32), and its place among the records of its key."


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the sorted values that at least `share` of them do not exceed; 0 if there are none."""
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)] if ordered else 0.0


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
