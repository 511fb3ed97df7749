"""Metrics, for the document (API 5.6). Pure."""

from __future__ import annotations

from ...model import PARTITION_METRICS, STREAM_METRICS
from .parts import Answer, Operation, Parameter, Schema, choice, many, number, record, ref, text

SCHEMAS: dict[str, Schema] = {
    "MetricsAnswer": record({}, {"metrics": ref("Metric"), "metrics_list": many(ref("Metric"))}),
    "Metric": record(
        {
            "dataPoints": many(
                record({"timestamp": number("The beginning of a minute, in s since the epoch."), "value": number()}),
                "Ascending.",
            ),
            "label": text(),
        }
    ),
}

_CODES = ("DIS.4203", "DIS.4204", "DIS.4209", "DIS.4301")


def _query(labels: tuple[str, ...]) -> dict[str, Parameter]:
    return {
        "label": Parameter(choice(labels, "This or `label_list` is needed.")),
        "label_list": Parameter(text(f"Several of {', '.join(labels)}, separated by commas; wins over `label`.")),
        "start_time": Parameter(number("In s since the epoch.", minimum=0, maximum=9_999_999_999), required=True),
        "end_time": Parameter(
            number("In s since the epoch, at most 7 days later.", minimum=0, maximum=9_999_999_999), required=True
        ),
    }


def _point(label: str) -> dict[str, object]:
    return {"dataPoints": [{"timestamp": 1606984320, "value": 1024}], "label": label}


OPERATIONS: dict[str, Operation] = {
    "stream_metrics": Operation(
        "Metrics",
        "What was written to a stream and read from it, minute by minute",
        {
            200: Answer(
                "`metrics` answers `label`, `metrics_list` answers `label_list`.",
                "MetricsAnswer",
                {"metrics": _point(STREAM_METRICS[0])},
            )
        },
        codes=_CODES,
        query=_query(STREAM_METRICS),
    ),
    "partition_metrics": Operation(
        "Metrics",
        "What was written to a partition and read from it, minute by minute",
        {
            200: Answer(
                "`metrics` is the first of what was asked for, `metrics_list` answers `label_list`.",
                "MetricsAnswer",
                {"metrics": _point(PARTITION_METRICS[0])},
            )
        },
        codes=(*_CODES, "DIS.4201", "DIS.4302"),
        query=_query(PARTITION_METRICS),
    ),
}
