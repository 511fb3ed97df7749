"""Actions: every operation has one, and patterns allow what they say and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.errors import ConfigError
from disstream.server.rights import ACTIONS, allowed_operations
from disstream.wire.routes import ROUTES


def test_every_operation_in_a_project_has_an_action() -> None:
    """Every route with a project has an action, and IAM's calls have none."""
    assert set(ACTIONS) == {route.operation for route in ROUTES if "{project_id}" in route.path}


SHOWN = {"describe_stream", "stream_metrics", "partition_metrics"}
CHANGED = {"update_partition_count", "update_stream", "update_stream_v2"}


@pytest.mark.parametrize(
    ("patterns", "wanted"),
    [
        (["dis:*:*"], set(ACTIONS)),
        (["*:*:*"], set(ACTIONS)),
        ([], set()),
        (["dis:streams:get"], SHOWN),
        (["DIS:Streams:GET"], SHOWN),
        (["dis:appstate:get"], {"consuming_state"}),
        (["dis:AppState:*"], {"consuming_state"}),
        (["dis:records:read"], {"get_records", "notices"}),
        (["dis:records:read*"], {"get_records", "get_cursor", "notices"}),
        (["dis:*:create"], {"create_stream", "add_policy", "create_app", "create_dump_task", "create_tag"}),
        (["dis:stream*:list"], {"list_streams", "list_policies"}),
        (["dis:*s:get"], SHOWN | {"describe_app", "group_members", "get_checkpoint", "describe_dump_task"}),
        (["dis:r*s:w*e"], {"put_records"}),
        (["obs:*:*"], set()),
        (["dis:streams:get", "dis:records:write"], SHOWN | {"put_records"}),
        (["dis:streams:update"], CHANGED),
        (["dis:transferTasks:update"], {"change_dump_tasks"}),
        (["dis:tag*:list"], {"filter_by_tags", "stream_tags", "list_tags"}),
        (["dis:streams:****"], {"create_stream", "list_streams", "delete_stream"} | SHOWN | CHANGED),
    ],
)
def test_patterns(patterns: list[str], wanted: set[str]) -> None:
    """Wildcards stand for any letters of one part, case does not matter, and several patterns add up."""
    assert allowed_operations(patterns) == wanted


@pytest.mark.parametrize(
    "pattern", ["", "*", "dis:*", "dis:*:*:*", "dis::get", "dis:streams:get\n", "dis:st.*:get", "dis:(:*"]
)
def test_other_shapes_are_refused(pattern: str) -> None:
    """What is no pattern is a mistake, told with the form, not a pattern that allows nothing."""
    with pytest.raises(ConfigError, match="dis:resource:action"):
        allowed_operations([pattern])


@pytest.mark.parametrize(
    ("pattern", "told"),
    [("dis:AppStat:get", "is 'dis:AppState:get' meant"), ("dis:nothing:at", "matches no action")],
)
def test_a_typo_is_told(pattern: str, told: str) -> None:
    """A pattern of this service that allows nothing names the one that is meant."""
    with pytest.raises(ConfigError, match=told):
        allowed_operations([pattern])


def test_actions_of_calls_that_are_not_offered_may_be_named() -> None:
    """A policy written for the service is taken as it is."""
    assert allowed_operations(["dis:events:list", "dis:eventEnumSubs:*", "dis:streamPolicies:delete"]) == set()


part = st.text("abcdefgs*", min_size=1, max_size=60)


@given(part, part, part)
def test_any_pattern_ends(service: str, resource: str, action: str) -> None:
    """Stars, however many, do not make matching slow; and nothing is allowed that one part alone forbids."""
    allowed = allowed_operations([f"{service}:{resource}:{action}"])
    assert allowed <= allowed_operations([f"{service}:*:*"])
    assert allowed <= allowed_operations([f"*:{resource}:*"])
    assert allowed <= allowed_operations([f"*:*:{action}"])
