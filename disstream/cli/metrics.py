"""`disstream metrics`: what was counted of a stream."""

from __future__ import annotations

import re

import click
import msgspec

from .. import clock
from ..model import PARTITION_METRICS, STREAM_METRICS, Metric
from .formats import time_text
from .listing import show
from .running import run, say
from .session import Target, connects

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)
_SHORT = re.compile(r"total_|_per_(stream|partition)|_req")
_MAX_S = 7 * 86_400


def _duration(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Seconds."""
    found = _DURATION.fullmatch(value)
    seconds = int(found.group(1)) * _UNITS[found.group(2)] if found else 0
    if not 0 < seconds <= _MAX_S:
        raise click.BadParameter(f"{value!r} is not a time like 90s, 15m, 1h or 2d, of 7d at most")
    return seconds


@click.command()
@click.argument("stream")
@click.option("--partition", metavar="P", help="Only of this partition.")
@click.option(
    "--label", "labels", multiple=True, metavar="LABEL", help="What to show; repeat it for more. Default: the traffic."
)
@click.option("--last", default="1h", callback=_duration, metavar="TIME", help="How far back: 90s, 15m, 1h, 2d.")
@click.option("--format", "form", type=click.Choice(["table", "jsonl"]), default="table", help="How to print it.")
@connects
def metrics(target: Target, stream: str, partition: str | None, labels: tuple[str, ...], last: int, form: str) -> None:
    """Show what was counted of STREAM, by the minute: bytes and records put and got, of seven days at most.

    Other labels of a stream: total_put_req_latency and total_get_req_latency (ms), total_put_req_suc_per_stream and
    total_get_req_suc_per_stream (requests), traffic_control_put and traffic_control_get (requests refused).

    Minutes in which nothing happened are left out. In a pipe a table is one line a minute, columns separated by tabs,
    no header; jsonl is one object a minute, with the minute's first second as timestamp.

    Example: disstream metrics orders --last 15m --label total_put_bytes_per_stream
    """
    usual = PARTITION_METRICS if partition is not None else STREAM_METRICS[:4]
    wanted = labels or usual

    async def work() -> dict[str, Metric]:
        start = clock.wall() - last
        async with target.connect() as dis:
            if partition is None:
                return await dis.metrics.stream(stream, wanted, start)
            return await dis.metrics.partition(stream, partition, wanted, start)

    found = run(work)
    minutes: dict[int, dict[str, int]] = {}
    for label, metric in found.items():
        for point in metric.points:
            minutes.setdefault(point.timestamp, {})[label] = point.value
    if form == "jsonl":
        for second, values in sorted(minutes.items()):
            say(msgspec.json.encode({"timestamp": second, **values}).decode())
        return
    show(
        ("TIME (UTC)", *(_SHORT.sub("", label).replace("_", " ").upper() for label in found)),
        [
            (time_text(second * 1000)[:16], *(str(values.get(label, "-")) for label in found))
            for second, values in sorted(minutes.items())
        ],
        elastic=(),
        title=stream if partition is None else f"{stream}, partition {partition}",
    )
