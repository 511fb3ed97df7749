"""What tags may be, and which streams a question about tags means (API chapter 5). Pure.

A condition (a key with values) holds for a stream that has the key with one of the values; without values the value
does not matter; a value `*x` stands for every value that holds x. Four lists of conditions, and a name:

    tags            all hold              not_tags        not all hold
    tags_any        at least one holds    not_tags_any    none holds
    matches         the name holds the text, in upper or lower case

A stream is meant if everything that was given says so. An empty list says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from ..errors import ApiError
from ..wire.errors import api_error
from ..wire.streams import Tag
from ..wire.tags import RESOURCE_NAME, TagQuery, TagValues, matches_of

MAX_KEYS = 10
"""Of each list of conditions, and of what is matched beside them."""
MAX_VALUES = 10
"""Of each condition."""
PAGE = 1_000
"""Streams of one answer, unless less is asked for."""

_HAN = "\u4e00-\u9fff"
_KEY = re.compile(rf"[A-Za-z0-9_\-{_HAN}]{{1,36}}")
_VALUE = re.compile(rf"[A-Za-z0-9._\-{_HAN}]{{0,43}}")
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)


def checked_tags(tags: Sequence[Tag], most: int) -> dict[str, str]:
    """Tags to be set. Raises ApiError: DIS.4601 (more than `most`), DIS.4200 (one that cannot be, or a key twice)."""
    if len(tags) > most:
        raise api_error("DIS.4601")
    found: dict[str, str] = {}
    for tag in tags:
        value = tag.value or ""
        if not _KEY.fullmatch(tag.key):
            raise api_error("DIS.4200", f"[tag key {tag.key[:80]!r}: 1 to 36 letters, digits, - or _]")
        if not _VALUE.fullmatch(value):
            raise api_error("DIS.4200", f"[tag value {value[:80]!r}: at most 43 letters, digits, '.', - or _]")
        if tag.key in found:
            raise api_error("DIS.4200", f"[tag key {tag.key!r} is given twice]")
        found[tag.key] = value
    return found


def with_tags(tags: Mapping[str, str], more: Mapping[str, str], most: int) -> dict[str, str]:
    """A key that is there gets the new value. Raises ApiError DIS.4601."""
    together = {**tags, **more}
    if len(together) > most:
        raise api_error("DIS.4601")
    return together


def without_tag(tags: Mapping[str, str], key: str) -> dict[str, str]:
    """Raises ApiError DIS.4604 if it is not there."""
    if key not in tags:
        raise api_error("DIS.4604", f"[{key[:80]}]")
    return without_keys(tags, (key,))


def without_keys(tags: Mapping[str, str], keys: Collection[str]) -> dict[str, str]:
    """What is not there is as good as deleted."""
    return {key: value for key, value in tags.items() if key not in keys}


def keys_to_delete(tags: Iterable[Tag]) -> set[str]:
    """Values need not match, and keys may be any text but none. Raises ApiError DIS.4200."""
    keys = {tag.key for tag in tags}
    if "" in keys:
        raise api_error("DIS.4200", "[a tag key is empty]")
    return keys


# --- finding ----------------------------------------------------------------------------------------------------------


class Condition(msgspec.Struct, frozen=True):
    """`values` and `parts`: what the value may be, and what it may hold; neither: anything."""

    key: str
    values: frozenset[str]
    parts: tuple[str, ...]

    def holds(self, tags: Mapping[str, str]) -> bool:
        value = tags.get(self.key)
        if value is None:
            return False
        return not (self.values or self.parts) or value in self.values or any(part in value for part in self.parts)


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    tags: tuple[Condition, ...]
    tags_any: tuple[Condition, ...]
    not_tags: tuple[Condition, ...]
    not_tags_any: tuple[Condition, ...]
    names: tuple[str, ...]
    """What the name must hold, in lower case."""

    def means(self, name: str, tags: Mapping[str, str]) -> bool:
        lower = name.lower()
        return (
            all(part in lower for part in self.names)
            and all(condition.holds(tags) for condition in self.tags)
            and (not self.tags_any or any(condition.holds(tags) for condition in self.tags_any))
            and not (self.not_tags and all(condition.holds(tags) for condition in self.not_tags))
            and not any(condition.holds(tags) for condition in self.not_tags_any)
        )


def filter_of(query: TagQuery) -> Filter:
    """Raises ApiError DIS.4200."""
    names = []
    matches = matches_of(query)
    if len(matches) > MAX_KEYS:
        raise api_error("DIS.4200", f"[matches has {len(matches)} entries, more than {MAX_KEYS}]")
    for match in matches:
        if match.key != RESOURCE_NAME:
            raise api_error("DIS.4200", f"[matches: {match.key[:80]!r} is not {RESOURCE_NAME}]")
        names.append((match.value or "").lower())
    return Filter(
        tags=_conditions("tags", query.tags or (), unique=False),
        tags_any=_conditions("tags_any", query.tags_any or (), unique=True),
        not_tags=_conditions("not_tags", query.not_tags or (), unique=True),
        not_tags_any=_conditions("not_tags_any", query.not_tags_any or (), unique=True),
        names=tuple(names),
    )


def _conditions(field: str, wanted: Sequence[TagValues], *, unique: bool) -> tuple[Condition, ...]:
    if len(wanted) > MAX_KEYS:
        raise api_error("DIS.4200", f"[{field} has {len(wanted)} keys, more than {MAX_KEYS}]")
    if unique and len({one.key for one in wanted}) < len(wanted):
        raise api_error("DIS.4200", f"[{field} has a key twice]")
    return tuple(_condition(field, one, unique=unique) for one in wanted)


def _condition(field: str, wanted: TagValues, *, unique: bool) -> Condition:
    values = wanted.values or ()
    if not wanted.key:
        raise _bad_list(field, "a key is empty")
    if len(values) > MAX_VALUES:
        raise _bad_list(field, f"{wanted.key[:80]!r} has {len(values)} values, more than {MAX_VALUES}")
    if unique and len(set(values)) < len(values):
        raise _bad_list(field, f"{wanted.key[:80]!r} has a value twice")
    return Condition(
        wanted.key,
        frozenset(value for value in values if not value.startswith("*")),
        tuple(value[1:] for value in values if value.startswith("*")),
    )


def _bad_list(field: str, told: str) -> ApiError:
    return api_error("DIS.4200", f"[{field}: {told}]")


def page_of(query: TagQuery) -> tuple[int, int]:
    """(offset, limit). Raises ApiError DIS.4200."""
    return _number("offset", query.offset, 0, 0, 10**18), _number("limit", query.limit, PAGE, 1, PAGE)


def _number(field: str, value: int | str | None, default: int, low: int, high: int) -> int:
    if value is None or value == "":
        return default
    text = str(value)
    if not (_NUMBER.fullmatch(text) and low <= int(text) <= high):
        raise api_error("DIS.4200", f"[{field}={text[:40]!r} is not a number within {low}..{high}]")
    return int(text)
