"""Tags on the wire: the bodies of the reference both ways, and every form that is in use."""

from __future__ import annotations

import json
from typing import Any

import pytest

from disstream.errors import ApiError, TransportError
from disstream.model import TaggedStream
from disstream.wire.streams import Tag
from disstream.wire.tags import (
    MAX_MATCHES_CHARS,
    Match,
    ResourcePage,
    TagChange,
    TagQuery,
    TagValues,
    decode_all_tags,
    decode_create_tag,
    decode_resources,
    decode_tag_change,
    decode_tag_query,
    decode_tags,
    encode_all_tags,
    encode_create_tag,
    encode_resources,
    encode_tag_change,
    encode_tag_query,
    encode_tags,
    encode_total,
    matches_of,
)

TAGS = {"key1": "value1", "key2": "value3"}
WIRE_TAGS = [{"key": "key1", "value": "value1"}, {"key": "key2", "value": "value3"}]


def test_one_tag() -> None:
    """The documented sample, both ways; a value may be absent or null."""
    assert json.loads(encode_create_tag("key", "value")) == {"tag": {"key": "key", "value": "value"}}
    assert decode_create_tag(b'{"tag":{"key":"key","value":"value"},"x":1}') == Tag("key", "value")
    assert decode_create_tag(b'{"tag":{"key":"key"}}') == decode_create_tag(b'{"tag":{"key":"key","value":null}}')


@pytest.mark.parametrize("action", ["create", "delete"])
def test_several_tags(action: str) -> None:
    """The documented samples, both ways."""
    wire = {"action": action, "tags": WIRE_TAGS}
    assert json.loads(encode_tag_change(action, TAGS)) == wire
    assert decode_tag_change(json.dumps(wire).encode()) == TagChange(action, [Tag(*tag) for tag in TAGS.items()])


def test_tags_of_a_stream() -> None:
    """The documented sample, both ways; null for none, and for no value."""
    assert json.loads(encode_tags(TAGS)) == {"tags": WIRE_TAGS}
    assert json.loads(encode_tags({})) == {"tags": []}
    assert decode_tags(encode_tags(TAGS)) == TAGS
    assert decode_tags(b'{"tags":null}') == decode_tags(b"{}") == {}
    assert decode_tags(b'{"tags":[{"key":"k","value":null}]}') == {"k": ""}


def test_tags_of_a_project() -> None:
    """The documented sample, both ways."""
    tags = {"key1": ["value1", "value2"], "key2": ["value1", "value2"]}
    wire = {"tags": [{"key": key, "values": values} for key, values in tags.items()]}
    assert json.loads(encode_all_tags(tags)) == wire
    assert decode_all_tags(json.dumps(wire).encode()) == tags
    assert decode_all_tags(b'{"tags":[{"key":"k","values":null}]}') == {"k": []}
    assert decode_all_tags(b"{}") == {}


COUNT = {
    "action": "count",
    "tags": [
        {"key": "key1", "values": ["value1", "value2"]},
        {"key": "key2", "values": ["value1", "value2"]},
    ],
    "matches": [{"key": "resource_name", "value": "resource1"}],
}
FILTER = {
    "offset": "0",
    "limit": "100",
    "action": "filter",
    "matches": [{"key": "resource_name", "value": "resource1"}],
    "tags": [{"key": "key1", "values": ["*value1", "value2"]}],
}


def test_queries() -> None:
    """The documented samples, both ways: nothing is sent that was not given."""
    count = TagQuery(
        action="count",
        tags=[TagValues(key, ["value1", "value2"]) for key in ("key1", "key2")],
        matches=[Match("resource_name", "resource1")],
    )
    found = TagQuery(
        action="filter",
        offset="0",
        limit="100",
        matches=[Match("resource_name", "resource1")],
        tags=[TagValues("key1", ["*value1", "value2"])],
    )
    for query, wire in ((count, COUNT), (found, FILTER)):
        assert json.loads(encode_tag_query(query)) == wire
        assert decode_tag_query(json.dumps(wire).encode()) == query
    assert decode_tag_query(b'{"action":"filter","limit":5,"offset":7}') == TagQuery(action="filter", limit=5, offset=7)


@pytest.mark.parametrize(
    ("matches", "meant"),
    [
        (None, []),
        ("", []),
        (" ", []),
        ([], []),
        ("[]", []),
        ([{"key": "resource_name", "value": "x"}], [("resource_name", "x")]),
        ([{"key": "resource_name"}], [("resource_name", None)]),
        ('[{"key": "resource_name", "value": "x"}]', [("resource_name", "x")]),
        ("[{key=resource_name, value=x}]", [("resource_name", "x")]),
        ("[{value=x,key=resource_name}]", [("resource_name", "x")]),
        ("{key=resource_name, value=}", [("resource_name", "")]),
        (
            "[{key=resource_name, value=a}, {key=resource_name, value=b=c}]",
            [("resource_name", "a"), ("resource_name", "b=c")],
        ),
        ("[{key=other, value=x}]", [("other", "x")]),
    ],
)
def test_forms_of_matches(matches: Any, meant: list[tuple[str, str | None]]) -> None:
    """A list, the text of a list, and what clients print of one."""
    query = decode_tag_query(json.dumps({"action": "filter", "matches": matches}).encode())
    assert matches_of(query) == [Match(*match) for match in meant]


@pytest.mark.parametrize(
    "matches",
    [
        "x",
        "[",
        "{}",
        "[{}]",
        "{key=resource_name}",
        "[{key=resource_name, value=x}] and more",
        "[{key=resource_name, value=x, other=y}]",
        "[{key=resource_name, value={x}}]",
        '[{"key": 1}]',
        '["x"]',
        '"x"',
        "[" * 5000,
        "{" * 5000,
        "[{key=resource_name, value=x}]" + " " * MAX_MATCHES_CHARS,
    ],
)
def test_matches_that_are_none(matches: str) -> None:
    """Any other text is DIS.4200, and named."""
    with pytest.raises(ApiError, match="matches") as caught:
        matches_of(TagQuery(action="filter", matches=matches))
    assert caught.value.code == "DIS.4200"


STREAM = TaggedStream(name="resource1", stream_id="cdfs_cefs_wesas_12_dsad", tags={"key1": "value1", "key2": "value1"})


def test_found_streams() -> None:
    """The documented sample, both ways; counted, only the number."""
    body = encode_resources([STREAM], 1000)
    assert json.loads(body) == {
        "resources": [
            {
                "resource_detail": None,
                "resource_id": "cdfs_cefs_wesas_12_dsad",
                "resource_name": "resource1",
                "tags": [{"key": "key1", "value": "value1"}, {"key": "key2", "value": "value1"}],
            }
        ],
        "total_count": 1000,
    }
    assert decode_resources(body) == ResourcePage([STREAM], 1000)
    assert json.loads(encode_resources([], 0)) == {"resources": [], "total_count": 0}
    assert json.loads(encode_total(1000)) == {"total_count": 1000}
    assert json.loads(encode_total(0)) == {"total_count": 0}
    assert decode_resources(b'{"total_count":"3"}') == ResourcePage([], 3)
    assert decode_resources(b"{}") == ResourcePage([], None)
    detailed = b'{"resources":[{"resource_detail":{"a":[1]},"resource_id":"i","resource_name":"n","tags":null}]}'
    assert decode_resources(detailed) == ResourcePage([TaggedStream(name="n", stream_id="i")], None)


@pytest.mark.parametrize("decode", [decode_create_tag, decode_tag_change, decode_tag_query])
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "DIS.4300"),
        (b"{", "DIS.4300"),
        (b"[]", "DIS.4200"),
        (b"{}", "DIS.4200"),
        (b'{"tag":{"value":"v"},"action":5}', "DIS.4200"),
        (b'{"tag":{"key":5},"action":"x","tags":[{"key":5}]}', "DIS.4200"),
        (b'{"tag":null,"action":null}', "DIS.4200"),
        (b'{"tag":{"key":"k","value":5},"action":"x","tags":[{}]}', "DIS.4200"),
    ],
)
def test_bad_requests(decode: Any, body: bytes, code: str) -> None:
    """Not JSON is DIS.4300, missing and wrong fields are DIS.4200."""
    with pytest.raises(ApiError) as caught:
        decode(body)
    assert caught.value.code == code


@pytest.mark.parametrize("decode", [decode_tags, decode_all_tags, decode_resources])
@pytest.mark.parametrize("body", [b"", b"[]", b'{"tags":5,"resources":5}'])
def test_answers_that_cannot_be(decode: Any, body: bytes) -> None:
    """Told as such."""
    with pytest.raises(TransportError, match="not what DIS answers"):
        decode(body)
