"""The official Python SDK against `disstream serve`: every method it has, signed, its parsed answers field by field.

What is called and what must come back stands in official/*_methods.py. Both clients of the SDK are tried.
"""

from __future__ import annotations

import pytest
from officials import Report, run

METHODS = (
    "batch_create_tags",
    "batch_delete_tags",
    "batch_start_transfer_task",
    "batch_stop_transfer_task",
    "commit_checkpoint",
    "consume_records",
    "create_app",
    "create_obs_transfer_task",
    "create_stream",
    "create_tag",
    "delete_app",
    "delete_checkpoint",
    "delete_stream",
    "delete_tag",
    "delete_transfer_task",
    "list_app",
    "list_policies",
    "list_resources_by_tags",
    "list_streams",
    "list_tags",
    "list_transfer_tasks",
    "send_records",
    "show_app",
    "show_checkpoint",
    "show_consumer_state",
    "show_cursor",
    "show_partition_metrics",
    "show_stream",
    "show_stream_metrics",
    "show_stream_tags",
    "show_transfer_task",
    "update_partition_count",
    "update_stream",
)
CASES = ("rights", "signatures", "temporary_keys", "traffic_control")
WAYS = ("sync", "async")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """All exercises, run once; each has a project of its own."""
    projects = [f"{name}-{way}" for name in METHODS + CASES for way in WAYS]
    return run("exercise_all.py", projects, tmp_path_factory.mktemp("official"))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", METHODS)
def test_method(report: Report, method: str, way: str) -> None:
    """The method answers, with every field as it must be, and is refused as it must be."""
    report.check(method, way)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_case(report: Report, case: str, way: str) -> None:
    """What concerns no single method: signing in, rights, traffic control."""
    report.check(case, way)


def test_no_method_is_left_out(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    """The SDK has exactly the methods that are exercised here, and each came through. Prints how many."""
    assert tuple(report.head["methods"]) == METHODS
    assert tuple(report.head["exercised"]) == METHODS
    assert tuple(report.head["cases"]) == CASES
    passed = [method for method in METHODS if not any(report.lines[method, way]["failures"] for way in WAYS)]
    compared = sum(line["compared"] for line in report.lines.values())
    with capsys.disabled():
        print(
            f"\nofficial SDK {report.head['version']}: methods {len(passed)} of {len(METHODS)} passed, "
            f"{' and '.join(WAYS)}; {compared} fields compared"
        )
    assert len(passed) == len(METHODS) == 33
