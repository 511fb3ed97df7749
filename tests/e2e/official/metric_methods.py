"""What a stream and its partitions took in and gave out, by the minute."""

from __future__ import annotations

import time
from typing import Any

from compare import shard
from instrument import Sdk, exercise
from record_methods import cursor, entry, send
from stream_methods import create

STREAM_TOTALS = {
    "total_put_bytes_per_stream": 1_500,
    "total_put_records_per_stream": 15,
    "total_put_req_suc_per_stream": 3,
    "total_get_bytes_per_stream": 2_000,
    "total_get_records_per_stream": 20,
    "total_get_req_suc_per_stream": 4,
    "traffic_control_put": 0,
    "traffic_control_get": 0,
}
PARTITION_TOTALS = {
    "total_put_bytes_per_partition": 1_000,
    "total_put_records_per_partition": 10,
    "total_get_bytes_per_partition": 2_000,
    "total_get_records_per_partition": 20,
}


def traffic(sdk: Sdk) -> dict[str, int]:
    """Ten records go into partition 1 and five into 0, a hundred bytes each; what is in 1 is read twice, to its end.

    Returns the window in which that was.
    """
    create(sdk, "s", 2)
    window = {"start_time": int(time.time()) // 60 * 60}
    for partition, count in (("1", 6), ("1", 4), ("0", 5)):
        send(sdk, "s", *(entry(b"x" * 100, partition_id=partition) for _ in range(count)))
    for _ in range(2):
        at = cursor(sdk, "s", "1", cursor_type="TRIM_HORIZON")
        page = sdk.consume_records(partition_cursor=at)
        sdk.equal("records read", len(page.records), 10)
        sdk.consume_records(partition_cursor=page.next_partition_cursor)
    return {**window, "end_time": int(time.time())}


def check(sdk: Sdk, metrics: Any, label: str, total: int, window: dict[str, int]) -> None:
    """A point for each minute at most, in order, in the window; they sum up to `total`."""
    sdk.equal("label", metrics.label, label)
    times = [point.timestamp for point in metrics.data_points]
    sdk.equal(f"times of {label}", times, sorted(set(times)))
    inside = [t % 60 == 0 and window["start_time"] <= t <= window["end_time"] for t in times]
    sdk.equal(f"minutes of {label}", inside, [True] * len(times))
    sdk.equal(f"total of {label}", sum(point.value for point in metrics.data_points), total)


@exercise
def show_stream_metrics(sdk: Sdk) -> None:
    """Every label counts exactly what was sent and read, one by one and as a list."""
    window = traffic(sdk)
    for label, total in STREAM_TOTALS.items():
        answer = sdk.show_stream_metrics(stream_name="s", label=label, **window)
        check(sdk, answer.metrics, label, total, window)
        sdk.equal("no list", answer.metrics_list, None)
    labels = list(STREAM_TOTALS)
    answer = sdk.show_stream_metrics(
        stream_name="s", label="traffic_control_get", label_list=",".join(labels), **window
    )
    sdk.equal("labels in their order", [metrics.label for metrics in answer.metrics_list], labels)
    sdk.equal("nothing alone", answer.metrics, None)
    for metrics in answer.metrics_list:
        check(sdk, metrics, metrics.label, STREAM_TOTALS[metrics.label], window)
    for label in ("total_put_req_latency", "total_get_req_latency"):
        points = sdk.show_stream_metrics(stream_name="s", label=label, **window).metrics.data_points
        sdk.equal(label, [0 <= point.value < 10_000 for point in points], [True] * len(points))
        sdk.equal(f"{label} is told", len(points) > 0, True)
    before = {"start_time": window["start_time"] - 3_600, "end_time": window["start_time"] - 60}
    answer = sdk.show_stream_metrics(stream_name="s", label=labels[0], **before)
    sdk.equal("an hour before", sum(point.value for point in answer.metrics.data_points), 0)

    def refused(code: str, message: str, stream: str = "s", **changes: Any) -> None:
        fields = {"label": labels[0], **window, **changes}
        sdk.refused("show_stream_metrics", code, message, stream_name=stream, **fields)

    refused("DIS.4209", "Invalid metrics label. ...", label="total_put_bytes_per_partition")
    refused("DIS.4209", "Invalid metrics label. ...", label=None)
    refused("DIS.4203", "Invalid monitoring period. ...", end_time=window["start_time"] - 60)
    refused("DIS.4203", "Invalid monitoring period. ...", start_time="yesterday")
    long_ago = window["start_time"] - 8 * 86_400
    refused("DIS.4204", "The monitoring period cannot be longer than 7 days.", start_time=long_ago)
    refused("DIS.4301", f"Stream does not exist. [gone][{sdk.project}]", "gone")


@exercise
def show_partition_metrics(sdk: Sdk) -> None:
    """Each partition counts for itself, under either spelling of its id."""
    window = traffic(sdk)
    for label, total in PARTITION_TOTALS.items():
        answer = sdk.show_partition_metrics(stream_name="s", partition_id=shard(1), label=label, **window)
        check(sdk, answer.metrics, label, total, window)
    label = "total_put_records_per_partition"
    answer = sdk.show_partition_metrics(stream_name="s", partition_id="0", label=label, **window)
    check(sdk, answer.metrics, label, 5, window)
    answer = sdk.show_partition_metrics(
        stream_name="s", partition_id="1", label_list="total_get_records_per_partition," + label, **window
    )
    check(sdk, answer.metrics, "total_get_records_per_partition", 20, window)

    def refused(code: str, message: str, partition: str = "1", **changes: Any) -> None:
        fields = {"stream_name": "s", "partition_id": partition, "label": label, **window, **changes}
        sdk.refused("show_partition_metrics", code, message, **fields)

    refused("DIS.4209", "Invalid metrics label. ...", label="total_put_bytes_per_stream")
    refused("DIS.4302", f"Partition does not exist. [{shard(2)}]", partition="2")
    refused("DIS.4201", "Invalid partition_id. ...", partition="one")
    refused("DIS.4301", f"Stream does not exist. [gone][{sdk.project}]", stream_name="gone")
