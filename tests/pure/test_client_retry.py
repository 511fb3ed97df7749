"""Proves which failed calls are repeated, and that pauses keep within range, Retry-After and budget."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.client.retry import Repeat, RetryPolicy, may_repeat, repeat_of
from disstream.errors import ApiError, ClosedError, DisError, NotFoundError, ServerFault, ThrottledError, TransportError
from disstream.wire.errors import api_error as coded
from disstream.wire.errors import decode_error, encode_error
from disstream.wire.http import Response
from disstream.wire.routes import ROUTES

SAFE, CHANGES, ONCE = Repeat.SAFE, Repeat.CHANGES, Repeat.ONCE


def test_each_operation_has_its_class() -> None:
    """Reads, deletes and what is the same twice are safe, a put happens once, everything else changes something."""
    assert {r.operation: repeat_of(r.operation, r.method) for r in ROUTES} == {
        "create_stream": CHANGES,
        "list_streams": SAFE,
        "delete_stream": SAFE,
        "describe_stream": SAFE,
        "update_partition_count": CHANGES,
        "update_stream": SAFE,
        "update_stream_v2": CHANGES,
        "put_records": ONCE,
        "get_records": SAFE,
        "get_cursor": SAFE,
        "add_policy": SAFE,
        "list_policies": SAFE,
        "create_app": CHANGES,
        "list_apps": SAFE,
        "delete_app": SAFE,
        "describe_app": SAFE,
        "consuming_state": SAFE,
        "commit_checkpoint": SAFE,
        "get_checkpoint": SAFE,
        "delete_checkpoint": SAFE,
        "reset_checkpoints": SAFE,
        "group_join": SAFE,
        "group_sync": SAFE,
        "group_heartbeat": SAFE,
        "group_leave": SAFE,
        "group_members": SAFE,
        "notices": CHANGES,  # an answer that goes on: whoever listens asks again
        "create_dump_task": CHANGES,
        "list_dump_tasks": SAFE,
        "delete_dump_task": SAFE,
        "describe_dump_task": SAFE,
        "change_dump_tasks": SAFE,
        "stream_metrics": SAFE,
        "partition_metrics": SAFE,
        "create_tag": SAFE,
        "stream_tags": SAFE,
        "delete_tag": SAFE,
        "change_tags": SAFE,
        "list_tags": SAFE,
        "filter_by_tags": SAFE,
        "create_token": CHANGES,
        "list_projects": SAFE,
        "openapi": SAFE,
    }


@pytest.mark.parametrize(
    ("error", "repeated"),
    [
        (TransportError("refused", outcome_unknown=False), {SAFE, CHANGES, ONCE}),
        (TransportError("cut", outcome_unknown=True), {SAFE}),
        (ThrottledError("", status=400, code="DIS.4303"), {SAFE, CHANGES}),
        (ThrottledError("", status=400, code="DIS.4305"), {SAFE, CHANGES}),
        (ThrottledError("", status=400, code="DIS.4309"), set()),
        (ThrottledError("", status=429), {SAFE}),
        (ApiError("", status=408), {SAFE}),
        (ServerFault("", status=500, code="DIS.5000"), {SAFE}),
        (ServerFault("", status=503), {SAFE}),
        (ServerFault("", status=400, code="DIS.5250"), {SAFE}),
        (ApiError("", status=400, code="DIS.4200"), set()),
        (NotFoundError("", status=404), set()),
        (ApiError("", status=413), set()),
        (ApiError("", status=302), set()),
        (ClosedError("closed"), set()),
    ],
    ids=lambda value: str(value) if isinstance(value, DisError) else "",
)
def test_what_may_be_repeated(error: DisError, repeated: set[Repeat]) -> None:
    """For every kind of failure, the classes of operations that may be carried out again."""
    assert {repeat for repeat in Repeat if may_repeat(error, repeat)} == repeated


@pytest.mark.parametrize("code", ["DIS.4303", "DIS.4305", "DIS.5000", "DIS.4301", "DIS.4309"])
def test_the_rules_hold_for_decoded_answers(code: str) -> None:
    """An error that crossed the wire is judged like the one that was raised."""
    error = coded(code)
    decoded = decode_error(Response(status=error.status, body=encode_error(error)))
    assert [may_repeat(decoded, r) for r in Repeat] == [may_repeat(error, r) for r in Repeat]


policies = st.builds(
    lambda attempts, base, factor, budget: RetryPolicy(attempts, base, base * factor, budget),
    st.integers(1, 50),
    st.floats(0.001, 10),
    st.floats(1, 1000),
    st.floats(0, 1000),
)


@given(policies, st.integers(1, 100), st.floats(0, 2000), st.integers(0, 2**32), st.none() | st.floats(0, 100_000))
def test_pauses_are_bounded(
    policy: RetryPolicy, attempt: int, elapsed_s: float, seed: int, retry_after_s: float | None
) -> None:
    """No pause is longer than jitter and Retry-After allow, shorter than Retry-After, or ends behind the budget."""
    pause = policy.pause(attempt, elapsed_s, random.Random(seed), retry_after_s)
    asked = retry_after_s or 0.0
    if pause is None:
        widest = min(policy.max_s, policy.base_s * 2.0 ** min(attempt - 1, 64))
        assert attempt >= policy.attempts or elapsed_s + asked + widest > policy.budget_s
        return
    assert attempt < policy.attempts
    assert asked <= pause <= asked + policy.max_s
    assert pause <= asked + policy.base_s * 2.0 ** (attempt - 1)
    assert elapsed_s + pause <= policy.budget_s


def test_the_range_doubles_up_to_its_limit() -> None:
    """With the highest dice the pauses are 0.1, 0.2, 0.4, ... and never above retry_max_s."""

    class Highest(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return b

    policy = RetryPolicy(100, 0.1, 1.0, 1e9)
    pauses = [policy.pause(n, 0.0, Highest()) for n in range(1, 8)]
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0])


def test_jitter_spreads_over_the_whole_range() -> None:
    """Full jitter: the first pauses of many clients fill 0 to base evenly, so that they do not return together."""
    policy = RetryPolicy(2, 1.0, 1.0, 60.0)
    dice = random.Random(7)
    pauses = [policy.pause(1, 0.0, dice) or 0.0 for _ in range(1000)]
    tenths = [sum(low <= 10 * pause < low + 1 for pause in pauses) for low in range(10)]
    assert min(tenths) > 60
