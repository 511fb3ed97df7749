"""Tag rules, and what the four lists and the name mean; against the plain formulas."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.errors import ApiError
from disstream.server.tagging import (
    checked_tags,
    filter_of,
    keys_to_delete,
    page_of,
    with_tags,
    without_keys,
    without_tag,
)
from disstream.wire.streams import Tag
from disstream.wire.tags import Match, TagQuery, TagValues

KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.sampled_from(["", "x", "y", "xy", "*x", "*", "*y"])
LISTS = st.none() | st.lists(
    st.builds(TagValues, KEYS, st.none() | st.lists(VALUES, unique=True, max_size=3)),
    unique_by=lambda entry: entry.key,
    max_size=3,
)
TAGS = st.dictionaries(KEYS, st.sampled_from(["", "x", "y", "xy", "yx", "z"]))
NAMES = st.sampled_from(["", "Orders", "orders-eu", "logs"])
MATCHES = st.none() | st.lists(st.builds(Match, st.just("resource_name"), st.sampled_from(["", "ORD", "s", None])))


@given(LISTS, LISTS, LISTS, LISTS, MATCHES, NAMES, TAGS)
def test_what_is_meant(
    tags: list[TagValues] | None,
    tags_any: list[TagValues] | None,
    not_tags: list[TagValues] | None,
    not_tags_any: list[TagValues] | None,
    matches: list[Match] | None,
    name: str,
    of_stream: dict[str, str],
) -> None:
    """All of, any of, not all of, none of; the name in upper or lower case; all that is given together."""
    query = TagQuery(
        action="filter",
        tags=tags,
        tags_any=tags_any,
        not_tags=not_tags,
        not_tags_any=not_tags_any,
        matches=matches[:10] if matches else matches,
    )

    def holds(entry: TagValues) -> bool:
        if entry.key not in of_stream:
            return False
        value, wanted = of_stream[entry.key], entry.values or ["*"]
        return any(w[1:] in value if w[:1] == "*" else w == value for w in wanted)

    wanted = True
    if tags:
        wanted = wanted and all([holds(entry) for entry in tags])
    if tags_any:
        wanted = wanted and any([holds(entry) for entry in tags_any])
    if not_tags:
        wanted = wanted and not all([holds(entry) for entry in not_tags])
    if not_tags_any:
        wanted = wanted and not any([holds(entry) for entry in not_tags_any])
    for match in matches or ():
        wanted = wanted and (match.value or "").upper() in name.upper()
    assert filter_of(query).means(name, of_stream) == wanted


def many(count: int, values: int = 1) -> list[TagValues]:
    return [TagValues(f"k{n}", [f"v{i}" for i in range(values)]) for n in range(count)]


def query_with(field: str, entries: list[TagValues]) -> TagQuery:
    fields: dict[str, Any] = {field: entries}
    return TagQuery(action="filter", **fields)


LIST_NAMES = ("tags", "tags_any", "not_tags", "not_tags_any")


@pytest.mark.parametrize("field", LIST_NAMES)
def test_lists_are_bounded(field: str) -> None:
    """Ten keys with ten values each, none of them empty."""
    filter_of(query_with(field, many(10, 10)))
    for wrong in (many(11), many(1, 11), [TagValues("", ["v"])]):
        assert refused(lambda wrong=wrong: filter_of(query_with(field, wrong))) == "DIS.4200"


@pytest.mark.parametrize("field", LIST_NAMES)
@pytest.mark.parametrize("twice", [[TagValues("k"), TagValues("k", ["v"])], [TagValues("k", ["v", "v"])]])
def test_what_may_not_be_given_twice(field: str, twice: list[TagValues]) -> None:
    """Keys, and the values of one: in all lists but `tags`."""
    query = query_with(field, twice)
    if field == "tags":
        filter_of(query)
    else:
        assert refused(lambda: filter_of(query)) == "DIS.4200"


@pytest.mark.parametrize("matches", [[Match("name", "x")], [Match("resource_name", "x")] * 11, "[{key=x, value=y}]"])
def test_only_the_name_is_matched(matches: Any) -> None:
    """Another key, or a list without end, is DIS.4200."""
    assert refused(lambda: filter_of(TagQuery(action="filter", matches=matches))) == "DIS.4200"


@pytest.mark.parametrize(
    ("offset", "limit", "page"),
    [
        (None, None, (0, 1000)),
        ("", "", (0, 1000)),
        ("0", "1", (0, 1)),
        (7, 1000, (7, 1000)),
        ("123456789012345678", "0010", (123456789012345678, 10)),
        ("-1", None, None),
        (-1, None, None),
        ("x", None, None),
        ("1" * 5000, None, None),
        (None, "0", None),
        (None, 1001, None),
        (None, "1.0", None),
        (None, "²", None),
    ],
)
def test_pages(offset: int | str | None, limit: int | str | None, page: tuple[int, int] | None) -> None:
    """Numbers as text or not; what is none, or out of bounds, is DIS.4200."""
    query = TagQuery(action="filter", offset=offset, limit=limit)
    if page is None:
        assert refused(lambda: page_of(query)) == "DIS.4200"
    else:
        assert page_of(query) == page


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        ("k" * 36, "v" * 43, ""),
        ("团队-_1", "开发.-_1", ""),
        ("k", None, ""),
        ("", "v", "DIS.4200"),
        ("k" * 37, "v", "DIS.4200"),
        ("k", "v" * 44, "DIS.4200"),
        ("a.b", "v", "DIS.4200"),
        ("a b", "v", "DIS.4200"),
        ("k", "a b", "DIS.4200"),
        ("k", "*v", "DIS.4200"),
        ("k\n", "v", "DIS.4200"),
        ("é", "v", "DIS.4200"),
        ("\u9fff", "\u4e00", ""),
        ("\ua000", "v", "DIS.4200"),
        ("_sys_enterprise_project_id", "v", ""),
    ],
)
def test_what_a_tag_may_be(key: str, value: str | None, code: str) -> None:
    """Letters, digits, - and _, Han characters, in values also points; so many of them."""
    if code:
        assert refused(lambda: checked_tags([Tag(key, value)], 10)) == code
    else:
        assert checked_tags([Tag(key, value)], 10) == {key: value or ""}


def test_setting() -> None:
    """Known keys are overwritten and do not count twice; one too many, or twice in one request, changes nothing."""
    tags = checked_tags([Tag(f"k{n}", "v") for n in range(3)], 3)
    assert with_tags(tags, {"k1": "new"}, 3) == {"k0": "v", "k1": "new", "k2": "v"}
    assert refused(lambda: with_tags(tags, {"k3": "v"}, 3)) == "DIS.4601"
    assert refused(lambda: checked_tags([Tag(f"k{n}") for n in range(4)], 3)) == "DIS.4601"
    assert refused(lambda: checked_tags([Tag("k", "v"), Tag("k", "v")], 3)) == "DIS.4200"


def test_removing() -> None:
    """One that is not there is an error only by itself; a list needs no good keys, but no empty ones."""
    tags = {"a": "1", "b": "2"}
    assert without_tag(tags, "a") == {"b": "2"}
    assert refused(lambda: without_tag(tags, "c")) == "DIS.4604"
    keys = keys_to_delete([Tag("a", "other"), Tag("a"), Tag("not a key!" * 9)])
    assert without_keys(tags, keys) == {"b": "2"}
    assert without_keys(tags, keys_to_delete([])) == tags
    assert refused(lambda: keys_to_delete([Tag("a"), Tag("", "v")])) == "DIS.4200"


def refused(call: Any) -> str:
    """The code that a call is refused with."""
    with pytest.raises(ApiError) as caught:
        call()
    return caught.value.code
