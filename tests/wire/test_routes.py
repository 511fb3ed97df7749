"""Targets: what the client builds is what the server matches, and what official clients send is understood."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.errors import ConfigError
from disstream.wire.http import build_target, split_target
from disstream.wire.routes import ROUTES, Match, NoMatch, Route, build, match

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(segments=st.lists(text, min_size=1, max_size=4), query=st.dictionaries(text, text, max_size=4))
def test_targets_survive_the_round_trip(segments: list[str], query: dict[str, str]) -> None:
    """Any segment and any parameter, whatever its characters, arrives as it was sent."""
    assert split_target(build_target(tuple(segments), query)) == (segments, query)


@pytest.mark.parametrize(
    ("target", "segments", "query"),
    [
        ("/v2/p/records/?partition-cursor=XYZ&", ["v2", "p", "records"], {"partition-cursor": "XYZ"}),
        ("/v2/p/streams/s1?stream_name=s1&limit_partitions=100&", ["v2", "p", "streams", "s1"], None),
        ("/v2/p/streams/s1?start_partitionId=", ["v2", "p", "streams", "s1"], {}),
        ("/v2/p/streams/s1?flag&x=1", ["v2", "p", "streams", "s1"], {"x": "1"}),
        (
            "/v2/p/records?partition-cursor=eyJ=&limit=5",
            ["v2", "p", "records"],
            {"partition-cursor": "eyJ=", "limit": "5"},
        ),
        ("/v2/p/records?partition-cursor=a%2B%2F%3Db", ["v2", "p", "records"], {"partition-cursor": "a+/=b"}),
        ("/v2/p/streams/a%2Fb//", ["v2", "p", "streams", "a/b"], {}),
        ("/v2/p/streams/a+b", ["v2", "p", "streams", "a+b"], {}),
        ("/v2/p?x=&x=1&x=2", ["v2", "p"], {"x": "1"}),
        ("/", [], {}),
        ("", [], {}),
    ],
)
def test_lenient_targets(target: str, segments: list[str], query: dict[str, str] | None) -> None:
    """Trailing slashes and ampersands, unencoded values, values left empty: as official clients send them."""
    found, parameters = split_target(target)
    assert found == segments
    assert query is None or parameters == query


PARAMS = {
    "project_id": "p",
    "stream_name": "s",
    "stream_id": "i",
    "app_name": "a",
    "member_id": "m",
    "task_name": "t",
    "partition_id": "0",
    "resource_type": "stream",
    "key": "k",
}


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.method} /{'/'.join(r.path)}")
def test_every_route_is_reached(route: Route) -> None:
    """No route is shadowed by another, whatever its parameters are called: also by the words of other paths."""
    for params in (PARAMS, {**PARAMS, "stream_name": "tags", "task_name": "action", "key": "action"}):
        segments = [params[part[1:-1]] if part[0] == "{" else part for part in route.path]
        found = match(route.method, segments)
        assert isinstance(found, Match)
        assert found.operation == route.operation
        assert found.params == {part[1:-1]: params[part[1:-1]] for part in route.path if part[0] == "{"}


@pytest.mark.parametrize("operation", sorted({route.operation for route in ROUTES}))
def test_every_operation_is_found_by_what_it_builds(operation: str) -> None:
    """Building and matching use the same table."""
    params = PARAMS
    method, target = build(operation, params)
    found = match(method, split_target(target)[0])
    assert isinstance(found, Match)
    assert found.operation == operation
    assert found.params.items() <= params.items()


def test_wrong_method_and_unknown_path_differ() -> None:
    """A known path tells which methods it has; an unknown one has none."""
    assert match("PATCH", ["v2", "p", "records"]) == NoMatch(("POST", "GET"))
    assert match("GET", ["v1", "p", "records"]) == NoMatch(())
    assert match("GET", ["v2", "p", "records", "more"]) == NoMatch(())


literals = {part for route in ROUTES for part in route.path if part[0] != "{"}
words = st.sampled_from([*sorted(literals), "x", "", "{x}"])


@given(method=st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD"]), segments=st.lists(words, max_size=8))
def test_matching_is_looking_through_the_table(method: str, segments: list[str]) -> None:
    """The first route that fits, also where names are words of other paths; else the methods of all that fit."""
    fitting = [
        route
        for route in ROUTES
        if len(route.path) == len(segments)
        and all(part[0] == "{" or part == segment for part, segment in zip(route.path, segments, strict=True))
    ]
    served = [route.operation for route in fitting if route.method == method]
    found = match(method, segments)
    if served:
        assert isinstance(found, Match)
        assert found.operation == served[0]
    else:
        assert found == NoMatch(tuple(dict.fromkeys(route.method for route in fitting)))


def test_empty_parameters_are_refused() -> None:
    """An empty name would turn "delete this stream" into another operation."""
    with pytest.raises(ConfigError, match="stream_name"):
        build("delete_stream", {"project_id": "p", "stream_name": ""})
