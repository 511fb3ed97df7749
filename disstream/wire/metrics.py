"""Query and answers of the metrics calls (API 5.6).

Data points are minutes: `timestamp` is the minute's first second. A single label is answered as `metrics`, a list of
them as `metrics_list`; of a partition, as some clients read nothing else, with the first also as `metrics`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec

from ..model import DataPoint, Metric
from .body import Whole, decode_answer
from .errors import api_error

PERIOD_S = 7 * 86_400
"""What is kept, and the longest period of one call."""

LENIENCE_S = 900
"""A period may start so much before what is kept: the clocks of clients, and requests on their way."""

ALIASES = {"traffic_controll_put": "traffic_control_put", "traffic_controll_get": "traffic_control_get"}
"""Spellings of the documents that the service itself does not use."""

_SECONDS = re.compile(r"[0-9]{1,10}", re.ASCII)


class MetricsQuery(NamedTuple):
    """`labels`: each once, in the order asked for; `listed`: asked for as a list. Seconds since the epoch, inclusive.

    `start_s` is that of its minute, or a minute that has just begun would be out of reach.
    """

    labels: list[str]
    listed: bool
    start_s: int
    end_s: int


def parse_metrics_query(query: Mapping[str, str], known: Collection[str], now_s: int) -> MetricsQuery:
    """Raises ApiError: DIS.4209 (no label, or none of `known`), DIS.4203 (no period), DIS.4204 (too long, too old)."""
    listed = query.get("label_list")
    labels: dict[str, None] = {}
    for part in [query.get("label", "")] if listed is None else listed.split(","):
        if label := part.strip():
            label = ALIASES.get(label, label)
            if label not in known:
                raise api_error("DIS.4209", f"[{label[:80]!r} is not one of {', '.join(known)}]")
            labels[label] = None
    if not labels:
        raise api_error("DIS.4209", f"[label or label_list is missing: {', '.join(known)}]")
    start_s, end_s = _seconds(query, "start_time"), _seconds(query, "end_time")
    if end_s < start_s:
        raise api_error("DIS.4203", f"[end_time={end_s} is before start_time={start_s}]")
    if end_s - start_s > PERIOD_S or start_s < now_s - PERIOD_S - LENIENCE_S:
        raise api_error("DIS.4204")
    return MetricsQuery([*labels], listed is not None, start_s - start_s % 60, end_s)


def _seconds(query: Mapping[str, str], field: str) -> int:
    text = query.get(field)
    if text is None:
        raise api_error("DIS.4203", f"[{field} is missing]")
    if not _SECONDS.fullmatch(text):
        raise api_error("DIS.4203", f"[{field}={text[:40]!r} is not a time in seconds since the epoch, of 10 digits]")
    return int(text)


class _Point(msgspec.Struct):
    timestamp: Whole
    value: Whole | None = None


class _Metrics(msgspec.Struct, kw_only=True):
    data_points: list[_Point] | None = msgspec.field(default=None, name="dataPoints")
    label: str | None = None


class _Answer(msgspec.Struct, kw_only=True, omit_defaults=True):
    metrics: _Metrics | None = None
    metrics_list: list[_Metrics] | None = None


_answer_decoder = msgspec.json.Decoder(_Answer, strict=False)


def encode_stream_metrics(metrics: Sequence[Metric], *, listed: bool) -> bytes:
    found = [_wire_metric(metric) for metric in metrics]
    return msgspec.json.encode(_Answer(metrics_list=found) if listed else _Answer(metrics=found[0]))


def encode_partition_metrics(metrics: Sequence[Metric], *, listed: bool) -> bytes:
    found = [_wire_metric(metric) for metric in metrics]
    return msgspec.json.encode(_Answer(metrics=found[0], metrics_list=found if listed else None))


def _wire_metric(metric: Metric) -> _Metrics:
    return _Metrics(data_points=[_Point(*point) for point in metric.points], label=metric.label)


def decode_metrics(body: bytes) -> dict[str, Metric]:
    """Label -> what was told of it, its points ascending by time. Raises TransportError."""
    told = decode_answer(_answer_decoder, body)
    found: dict[str, Metric] = {}
    for one in (told.metrics, *(told.metrics_list or ())):
        if one is not None and one.label is not None:
            label = ALIASES.get(one.label, one.label)
            points = [
                # The documents do not tell the unit: what is no time in seconds is one in milliseconds.
                DataPoint(p.timestamp if p.timestamp < 10**11 else p.timestamp // 1000, p.value)
                for p in one.data_points or ()
                if p.value is not None
            ]
            found[label] = Metric(label=label, points=tuple(sorted(points)))
    return found
