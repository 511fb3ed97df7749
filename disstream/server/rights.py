"""Which IAM action an operation needs, and which actions a user's patterns allow (API 6.2). Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from ..errors import ConfigError

EVERYTHING = "dis:*:*"

ACTIONS = {
    "create_stream": "dis:streams:create",
    "list_streams": "dis:streams:list",
    "delete_stream": "dis:streams:delete",
    "describe_stream": "dis:streams:get",
    "update_partition_count": "dis:streams:update",
    "update_stream": "dis:streams:update",
    "update_stream_v2": "dis:streams:update",
    "put_records": "dis:records:write",
    "get_records": "dis:records:read",
    "get_cursor": "dis:records:readCursor",
    "notices": "dis:records:read",  # what they tell, a read tells too
    "add_policy": "dis:streamPolicies:create",
    "list_policies": "dis:streamPolicies:list",
    "create_app": "dis:apps:create",
    "list_apps": "dis:apps:list",
    "delete_app": "dis:apps:delete",
    "describe_app": "dis:apps:get",
    "consuming_state": "dis:AppState:get",
    "commit_checkpoint": "dis:checkpoints:commit",
    "get_checkpoint": "dis:checkpoints:get",
    "delete_checkpoint": "dis:checkpoints:delete",
    # Who may do this may do what it does in one step: commit, and take checkpoints from whoever reads.
    "reset_checkpoints": "dis:checkpoints:delete",
    "create_dump_task": "dis:transferTasks:create",
    "list_dump_tasks": "dis:transferTasks:list",
    "describe_dump_task": "dis:transferTasks:get",
    "delete_dump_task": "dis:transferTasks:delete",
    "change_dump_tasks": "dis:transferTasks:update",
    "stream_metrics": "dis:streams:get",
    "partition_metrics": "dis:streams:get",
    "create_tag": "dis:tagResources:create",
    "stream_tags": "dis:tags:list",
    "delete_tag": "dis:tagResources:delete",
    "change_tags": "dis:tagResources:update",
    "list_tags": "dis:tags:list",
    "filter_by_tags": "dis:tagResources:list",
    # The group calls have no action of their own; membership is what makes a commit valid.
    "group_join": "dis:checkpoints:commit",
    "group_sync": "dis:checkpoints:commit",
    "group_heartbeat": "dis:checkpoints:commit",
    "group_leave": "dis:checkpoints:commit",
    "group_members": "dis:apps:get",
}
"""Every operation of the routes table that works in a project. The others need none."""

_PATTERN = re.compile(r"[A-Za-z*]+:[A-Za-z*]+:[A-Za-z*]+", re.ASCII)


def allowed_operations(patterns: Iterable[str]) -> frozenset[str]:
    """The operations that `patterns` allow together.

    A pattern is `service:resource:action`, compared without regard to case; `*` stands for any letters of one part,
    also none. Raises ConfigError for a pattern of another shape, or one of ours that matches nothing: a typo.
    """
    matchers = []
    for pattern in patterns:
        matcher = _matcher(pattern)
        ours = pattern.lower().startswith("dis:")
        if ours and not any(matcher.fullmatch(action) for action in (*ACTIONS.values(), *_ELSEWHERE)):
            near = difflib.get_close_matches(pattern, ACTIONS.values(), 1)
            hint = f": is {near[0]!r} meant?" if near else ", for example 'dis:streams:get' or 'dis:records:*'"
            raise ConfigError(f"action {pattern[:80]!r} matches no action there is{hint}")
        matchers.append(matcher)
    return frozenset(
        operation for operation, action in ACTIONS.items() if any(matcher.fullmatch(action) for matcher in matchers)
    )


_ELSEWHERE = (
    "dis:events:list",
    *(f"dis:eventEnumSubs:{verb}" for verb in ("create", "delete", "update", "list")),
    "dis:streamPolicies:delete",
)
"""Actions of the service whose calls are not offered here: a pattern may name them."""


def _matcher(pattern: str) -> re.Pattern[str]:
    if not _PATTERN.fullmatch(pattern):
        raise ConfigError(
            f"action {pattern[:80]!r} is not of the form 'dis:resource:action'; "
            "each part may hold '*' for anything, as in 'dis:*:*' or 'dis:streams:get'"
        )
    # Runs of stars are one star, or matching could take for ever.
    return re.compile(re.sub(r"\*+", "[a-z]*", pattern), re.ASCII | re.IGNORECASE)
