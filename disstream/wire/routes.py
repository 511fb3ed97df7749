"""The operations of the API: one table, from which the client builds targets and the server finds handlers."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import ConfigError
from .http import build_target


class Route(NamedTuple):
    """`path` holds literals and `{parameters}`; `project_id` is the first of each, but IAM's calls have none."""

    operation: str
    method: str
    path: tuple[str, ...]


def _route(operation: str, method: str, path: str) -> Route:
    return Route(operation, method, tuple(path.strip("/").split("/")))


ROUTES = (
    _route("create_stream", "POST", "/v2/{project_id}/streams"),  # API 5.1.1
    _route("list_streams", "GET", "/v2/{project_id}/streams"),  # API 5.1.2
    _route("delete_stream", "DELETE", "/v2/{project_id}/streams/{stream_name}"),  # API 5.1.3
    _route("describe_stream", "GET", "/v2/{project_id}/streams/{stream_name}"),  # API 5.1.4
    _route("put_records", "POST", "/v2/{project_id}/records"),  # API 5.4.1
    _route("get_records", "GET", "/v2/{project_id}/records"),  # API 5.4.2
    _route("add_policy", "POST", "/v2/{project_id}/streams/{stream_name}/policies"),  # API 5.1.7
    _route("list_policies", "GET", "/v2/{project_id}/streams/{stream_name}/policies"),  # API 5.1.8
    _route("create_app", "POST", "/v2/{project_id}/apps"),  # API 5.2.1
    _route("list_apps", "GET", "/v2/{project_id}/apps"),  # API 5.2.2
    _route("delete_app", "DELETE", "/v2/{project_id}/apps/{app_name}"),  # API 5.2.3
    _route("describe_app", "GET", "/v2/{project_id}/apps/{app_name}"),  # API 5.2.4
    _route("consuming_state", "GET", "/v2/{project_id}/apps/{app_name}/streams/{stream_name}"),  # API 5.2.5
    _route("commit_checkpoint", "POST", "/v2/{project_id}/checkpoints"),  # API 5.3.1
    _route("get_checkpoint", "GET", "/v2/{project_id}/checkpoints"),  # API 5.3.2
    _route("delete_checkpoint", "DELETE", "/v2/{project_id}/checkpoints"),  # API 5.3.3
    # The group protocol of the official Kafka adapter; the API reference does not mention it.
    _route("group_join", "POST", "/v2/{project_id}/apps/{app_name}/consumers"),
    _route("group_sync", "POST", "/v2/{project_id}/apps/{app_name}/consumers/{member_id}/partitions"),
    _route("group_heartbeat", "POST", "/v2/{project_id}/apps/{app_name}/consumers/{member_id}/heartbeats"),
    _route("group_leave", "DELETE", "/v2/{project_id}/apps/{app_name}/consumers/{member_id}"),
    _route("group_members", "GET", "/v2/{project_id}/apps/{app_name}/consumers"),  # ours: nobody else offers it
    _route("get_cursor", "GET", "/v2/{project_id}/cursors"),  # API 5.4.3
    # IAM's, which the service has at another endpoint.
    _route("create_token", "POST", "/v3/auth/tokens"),  # API 1.3
    _route("list_projects", "GET", "/v3/projects"),  # API 1.5
)

_BY_OPERATION = {route.operation: route for route in ROUTES}


class Match(NamedTuple):
    operation: str
    params: dict[str, str]


class NoMatch(NamedTuple):
    """`allowed`: the methods this path knows; empty when no operation has this path."""

    allowed: tuple[str, ...]


def match(method: str, segments: list[str]) -> Match | NoMatch:
    """The operation that serves `method` on these decoded path segments."""
    allowed = []
    for route in ROUTES:
        if len(route.path) != len(segments):
            continue
        params: dict[str, str] = {}
        for pattern, segment in zip(route.path, segments, strict=True):
            if pattern[0] == "{":
                params[pattern[1:-1]] = segment
            elif pattern != segment:
                break
        else:
            if route.method == method:
                return Match(route.operation, params)
            allowed.append(route.method)
    return NoMatch(tuple(allowed))


def build(operation: str, params: dict[str, str], query: dict[str, str] | None = None) -> tuple[str, str]:
    """(method, target) of an operation. An empty parameter would name another operation, so it is refused."""
    route = _BY_OPERATION[operation]
    segments = []
    for part in route.path:
        if part[0] == "{":
            value = params[part[1:-1]]
            if not value:
                raise ConfigError(f"{part[1:-1]} must not be empty")
            segments.append(value)
        else:
            segments.append(part)
    try:
        return route.method, build_target(tuple(segments), query or {})
    except UnicodeEncodeError as exc:
        raise ConfigError(f"{exc.object!r:.80} cannot be sent: a name is text without lone surrogates") from exc
