"""Metrics of streams and partitions (API 5.6)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from .. import clock
from ..errors import ConfigError
from ..model import PARTITION_METRICS, STREAM_METRICS, Metric
from ..wire.metrics import ALIASES, PERIOD_S, decode_metrics

if TYPE_CHECKING:
    from .client import Client

Time = datetime | float
"""An aware datetime, or seconds since the epoch."""


class Metrics:
    """`client.metrics`: what the service counted, by the minute, for seven days."""

    STREAM_LABELS = STREAM_METRICS
    PARTITION_LABELS = PARTITION_METRICS

    def __init__(self, client: Client) -> None:
        self._client = client

    async def stream(
        self, name: str, labels: str | Sequence[str], start: Time, end: Time | None = None
    ) -> dict[str, Metric]:
        """Label -> what was counted of a stream from `start` to `end` (None: now), both included.

        API 5.6.1. `labels`: one of STREAM_LABELS, or several. Raises NotFoundError, ApiError (a label that the service
        does not know: DIS.4209; a period that ends before it starts: DIS.4203; more than seven days, or longer ago:
        DIS.4204).
        """
        return await self._ask("stream_metrics", {"stream_name": name}, labels, start, end)

    async def partition(
        self, name: str, partition: str, labels: str | Sequence[str], start: Time, end: Time | None = None
    ) -> dict[str, Metric]:
        """The same of one partition, by PARTITION_LABELS. API 5.6.2.

        The service's own documents know an answer of one label only: labels that lack in the answer to several are
        asked for one by one.
        """
        params = {"stream_name": name, "partition_id": partition}
        return await self._ask("partition_metrics", params, labels, start, end)

    async def _ask(
        self, operation: str, params: dict[str, str], labels: str | Sequence[str], start: Time, end: Time | None
    ) -> dict[str, Metric]:
        labels = [labels] if isinstance(labels, str) else labels
        wanted = list(dict.fromkeys(ALIASES.get(label, label) for label in labels))
        if not wanted or not all(wanted):
            raise ConfigError(f"labels={labels!r} names nothing to ask for: give one label, or several")
        first = _seconds("start", start)
        # By now the clock may have moved on: whoever asks for the last seven days means no more.
        last = min(int(clock.wall()), first + PERIOD_S) if end is None else _seconds("end", end)
        period = {"start_time": str(first), "end_time": str(last)}
        found: dict[str, Metric] = {}
        if len(wanted) > 1:
            query = {"label_list": ",".join(wanted), **period}
            found = decode_metrics((await self._client.call(operation, params, query)).body)
        for label in wanted:
            if label not in found:
                query = {"label": label, **period}
                found |= decode_metrics((await self._client.call(operation, params, query)).body)
        return {label: found.get(label, Metric(label=label)) for label in wanted}


def _seconds(field: str, time: Time) -> int:
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise ConfigError(f"{field}={time!r} has no time zone: give an aware datetime, or seconds since the epoch")
        time = time.timestamp()
    given: object = time
    if not isinstance(given, int | float):
        raise ConfigError(f"{field}={given!r}: give an aware datetime, or seconds since the epoch")
    # Not NaN, not what is meant as milliseconds; a year of four digits has as many.
    if not 0 <= time < 10**10:
        raise ConfigError(f"{field}={time!r} is no time in seconds since the epoch")
    return int(time)
