"""The operations of the API: one table, from which the client builds targets and the server finds handlers."""

from __future__ import annotations

from operator import itemgetter
from typing import NamedTuple

from ..errors import ConfigError
from .http import build_target


class Route(NamedTuple):
    """`path` holds literals and `{parameters}`; `project_id` is the first of each, but what IAM answers and what
    the server tells of itself have none. Of several routes to one operation the client takes the first.
    """

    operation: str
    method: str
    path: tuple[str, ...]


def _route(operation: str, method: str, path: str) -> Route:
    return Route(operation, method, tuple(path.strip("/").split("/")))


def _dump_routes(streams: str) -> tuple[Route, ...]:
    tasks = f"/v2/{{project_id}}/{streams}/{{stream_name}}/transfer-tasks"
    return (
        _route("create_dump_task", "POST", tasks),  # API 5.5.1, 5.5.7 to 5.5.10
        _route("list_dump_tasks", "GET", tasks),  # API 5.5.2
        _route("delete_dump_task", "DELETE", f"{tasks}/{{task_name}}"),  # API 5.5.3
        _route("describe_dump_task", "GET", f"{tasks}/{{task_name}}"),  # API 5.5.4
        _route("change_dump_tasks", "POST", f"{tasks}/action"),  # API 5.5.5, 5.5.6
    )


ROUTES = (
    _route("create_stream", "POST", "/v2/{project_id}/streams"),  # API 5.1.1
    _route("list_streams", "GET", "/v2/{project_id}/streams"),  # API 5.1.2
    _route("delete_stream", "DELETE", "/v2/{project_id}/streams/{stream_name}"),  # API 5.1.3
    _route("describe_stream", "GET", "/v2/{project_id}/streams/{stream_name}"),  # API 5.1.4
    _route("update_partition_count", "PUT", "/v2/{project_id}/streams/{stream_name}"),  # API 5.1.5
    _route("update_stream", "PUT", "/v3/{project_id}/streams/{stream_name}"),  # API 5.1.6
    # The path of the authorisation tables, which the classic Java SDK uses; it wants an answer with a body.
    _route("update_stream_v2", "PUT", "/v2/{project_id}/streams/{stream_name}/update"),
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
    # Ours: what an operator needs while members read.
    _route("reset_checkpoints", "POST", "/v2/{project_id}/apps/{app_name}/streams/{stream_name}/checkpoints"),
    # The group protocol of the official Kafka adapter; the API reference does not mention it.
    _route("group_join", "POST", "/v2/{project_id}/apps/{app_name}/consumers"),
    _route("group_sync", "POST", "/v2/{project_id}/apps/{app_name}/consumers/{member_id}/partitions"),
    _route("group_heartbeat", "POST", "/v2/{project_id}/apps/{app_name}/consumers/{member_id}/heartbeats"),
    _route("group_leave", "DELETE", "/v2/{project_id}/apps/{app_name}/consumers/{member_id}"),
    _route("group_members", "GET", "/v2/{project_id}/apps/{app_name}/consumers"),  # ours: nobody else offers it
    _route("get_cursor", "GET", "/v2/{project_id}/cursors"),  # API 5.4.3
    *_dump_routes("streams"),
    *_dump_routes("stream"),  # the classic Python SDK's spelling
    _route("stream_metrics", "GET", "/v2/{project_id}/streams/{stream_name}/metrics"),  # API 5.6.1
    _route(
        "partition_metrics", "GET", "/v2/{project_id}/streams/{stream_name}/partitions/{partition_id}/metrics"
    ),  # API 5.6.2
    # Only `stream` is a resource type; any other is told so (DIS.4602).
    _route("create_tag", "POST", "/v2/{project_id}/{resource_type}/{stream_id}/tags"),  # API 5.7.1
    _route("stream_tags", "GET", "/v2/{project_id}/{resource_type}/{stream_id}/tags"),  # API 5.7.2
    _route("delete_tag", "DELETE", "/v2/{project_id}/{resource_type}/{stream_id}/tags/{key}"),  # API 5.7.3
    _route("change_tags", "POST", "/v2/{project_id}/{resource_type}/{stream_id}/tags/action"),  # API 5.7.4, 5.7.7
    _route("list_tags", "GET", "/v2/{project_id}/{resource_type}/tags"),  # API 5.7.5
    _route("filter_by_tags", "POST", "/v2/{project_id}/{resource_type}/resource_instances/action"),  # API 5.7.6
    # Ours: an extension (wire/notices.py). No resource of the API has this name.
    _route("notices", "POST", "/v2/{project_id}/disstream/notices"),
    # IAM's, which the service has at another endpoint.
    _route("create_token", "POST", "/v3/auth/tokens"),  # API 1.3
    _route("list_projects", "GET", "/v3/projects"),  # API 1.5
    # Ours: what the server offers, for machines.
    _route("openapi", "GET", "/openapi.json"),
)

_BY_OPERATION = {route.operation: route for route in reversed(ROUTES)}


class _Shape:
    """The paths with literals in the same places, by these literals: a request need not be compared to each path."""

    def __init__(self, places: tuple[int, ...]) -> None:
        self.literals: itemgetter[object] = itemgetter(*places)
        self.routes: dict[object, list[tuple[int, Route]]] = {}
        """With their places in the table."""


def _shapes() -> dict[int, list[_Shape]]:
    """By the number of segments."""
    shapes: dict[tuple[int, ...], _Shape] = {}
    by_length: dict[int, list[_Shape]] = {}
    for place, route in enumerate(ROUTES):
        literal = tuple(i for i, part in enumerate(route.path) if part[0] != "{")
        key = (len(route.path), *literal)
        if key not in shapes:
            shapes[key] = _Shape(literal)
            by_length.setdefault(len(route.path), []).append(shapes[key])
        shape = shapes[key]
        shape.routes.setdefault(shape.literals(route.path), []).append((place, route))
    return by_length


_SHAPES = _shapes()


class Match(NamedTuple):
    operation: str
    params: dict[str, str]


class NoMatch(NamedTuple):
    """`allowed`: the methods this path knows; empty when no operation has this path."""

    allowed: tuple[str, ...]


def match(method: str, segments: list[str]) -> Match | NoMatch:
    """The operation that serves `method` on these decoded path segments."""
    fitting: list[tuple[int, Route]] = []
    for shape in _SHAPES.get(len(segments), ()):
        fitting += shape.routes.get(shape.literals(segments), ())
    fitting.sort()  # of several the first in the table
    for _, route in fitting:
        if route.method == method:
            params = {name[1:-1]: text for name, text in zip(route.path, segments, strict=True) if name[0] == "{"}
            return Match(route.operation, params)
    return NoMatch(tuple({route.method: None for _, route in fitting}))


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
