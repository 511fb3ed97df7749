"""No integer of an answer is larger than what can be reckoned with: who sends one is told to be no DIS."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from disstream.errors import TransportError
from disstream.wire.apps import decode_list as decode_apps
from disstream.wire.apps import decode_states
from disstream.wire.dumps import decode_detail
from disstream.wire.dumps import decode_list as decode_tasks
from disstream.wire.groups import MAX_TIMEOUT_MS, decode_join_answer, decode_members, decode_sync_answer
from disstream.wire.metrics import decode_metrics
from disstream.wire.partitioning import parse_range
from disstream.wire.streams import decode_describe, decode_list
from disstream.wire.tags import decode_resources

N = "?"
"""Where the number stands."""

ANSWERS: dict[str, tuple[Callable[[bytes], object], Any]] = {
    "join delay": (decode_join_answer, {"state": "OK", "syncDelayedTimeMs": N}),
    "join session": (decode_join_answer, {"state": "OK", "sessionTimeoutMs": N}),
    "sync generation": (decode_sync_answer, {"state": "OK", "generation": N}),
    "sync partition": (decode_sync_answer, {"state": "OK", "generation": 1, "assignment": {"s": [0, N]}}),
    "members": (decode_members, {"state": "STABLE", "generation": N, "members": []}),
    "silent": (
        decode_members,
        {"state": "STABLE", "generation": 1, "members": [{"memberId": "m", "partitions": {}, "silentMs": N}]},
    ),
    "stream": (decode_describe, {"stream_name": "s", "retention_period": N}),
    "bound": (decode_describe, {"stream_name": "s", "partitions": [{"bounds": [{"change": N, "sequence_number": 1}]}]}),
    "streams": (decode_list, {"total_number": N}),
    "apps": (decode_apps, {"total_number": N}),
    "states": (decode_states, {"partition_consuming_states": [{"partition_id": "0", "latest_offset": N}]}),
    "metrics": (decode_metrics, {"metrics": {"label": "l", "dataPoints": [{"timestamp": N, "value": 1}]}}),
    "tasks": (decode_tasks, {"tasks": [{"task_name": "t", "create_time": N}]}),
    "task": (decode_detail, {"task_name": "t", "partitions": [{"partition_id": "0", "discard": N}]}),
    "tags": (decode_resources, {"total_count": N}),
}


def answer(form: Any, number: int) -> bytes:
    return json.dumps(form).replace(f'"{N}"', str(number)).encode()


@pytest.mark.parametrize("where", ANSWERS)
@pytest.mark.parametrize(
    "number", [2**63, 10**400, -(10**400), -(2**63) - 1], ids=["2^63", "large", "-large", "-2^63-1"]
)
def test_too_large(where: str, number: int) -> None:
    """Wherever it stands."""
    decode, form = ANSWERS[where]
    decode(answer(form, 1))
    with pytest.raises(TransportError, match="not what DIS answers"):
        decode(answer(form, number))


def test_no_member_waits_for_ever() -> None:
    """Nor believes that it may be silent for ever; a day is understood."""
    for key in ("syncDelayedTimeMs", "sessionTimeoutMs"):
        decode_join_answer(answer({"state": "OK", key: N}, MAX_TIMEOUT_MS))
        with pytest.raises(TransportError, match="not what DIS answers"):
            decode_join_answer(answer({"state": "OK", key: N}, MAX_TIMEOUT_MS + 1))


def test_ranges() -> None:
    """Of text that has more digits than a number can be made of, none is made."""
    assert parse_range("[0 : 9223372036854775807]") == (0, 2**63 - 1)
    assert parse_range(f"[0 : {'9' * 5000}]") is None
