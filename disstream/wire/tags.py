"""Bodies of the tag calls (API 5.7).

What is matched beside tags comes in three forms: as a list of keys and values, as the JSON text of one, and as what a
map looks like when some clients print it: `[{key=resource_name, value=orders}]`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from ..model import TaggedStream
from .body import Whole, decode_answer, decode_body
from .errors import api_error
from .streams import Tag

RESOURCE_TYPE = "stream"
"""The only one there is: what stands in the path."""

RESOURCE_NAME = "resource_name"
"""The only thing that can be matched beside tags."""

MAX_MATCHES_CHARS = 10_000
"""Of `matches` as text."""

# --- changing and listing ---------------------------------------------------------------------------------------------


class _Create(msgspec.Struct):
    tag: Tag


class TagChange(msgspec.Struct):
    """`action`: create or delete; the server checks it."""

    action: str
    tags: list[Tag] | None = None


class TagValues(msgspec.Struct, frozen=True):
    """A key with several values. As a condition: any of them, and without values any at all."""

    key: str
    values: list[str] | None = None


class _Tags(msgspec.Struct):
    tags: list[Tag] | None = None


class _AllTags(msgspec.Struct):
    tags: list[TagValues] | None = None


_create_decoder = msgspec.json.Decoder(_Create)
_change_decoder = msgspec.json.Decoder(TagChange)
_tags_decoder = msgspec.json.Decoder(_Tags)
_all_tags_decoder = msgspec.json.Decoder(_AllTags)


def encode_create_tag(key: str, value: str) -> bytes:
    return msgspec.json.encode(_Create(Tag(key, value)))


def decode_create_tag(body: bytes) -> Tag:
    """Raises ApiError: DIS.4300 not JSON, DIS.4200 wrong or missing field."""
    return decode_body(_create_decoder, body).tag


def encode_tag_change(action: str, tags: Mapping[str, str]) -> bytes:
    return msgspec.json.encode(TagChange(action, _tag_list(tags)))


def decode_tag_change(body: bytes) -> TagChange:
    """Raises ApiError: DIS.4300 not JSON, DIS.4200 wrong or missing field."""
    return decode_body(_change_decoder, body)


def encode_tags(tags: Mapping[str, str]) -> bytes:
    return msgspec.json.encode(_Tags(_tag_list(tags)))


def decode_tags(body: bytes) -> dict[str, str]:
    """Raises TransportError."""
    return _tag_dict(decode_answer(_tags_decoder, body).tags)


def encode_all_tags(tags: Mapping[str, Sequence[str]]) -> bytes:
    return msgspec.json.encode(_AllTags([TagValues(key, [*values]) for key, values in tags.items()]))


def decode_all_tags(body: bytes) -> dict[str, list[str]]:
    """Raises TransportError."""
    return {tag.key: tag.values or [] for tag in decode_answer(_all_tags_decoder, body).tags or ()}


def _tag_list(tags: Mapping[str, str]) -> list[Tag]:
    return [Tag(key, value) for key, value in tags.items()]


def _tag_dict(tags: Iterable[Tag] | None) -> dict[str, str]:
    return {tag.key: tag.value or "" for tag in tags or ()}


# --- finding ----------------------------------------------------------------------------------------------------------


class Match(msgspec.Struct, frozen=True):
    key: str
    value: str | None = None


class TagQuery(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The request to find or count streams as it stands on the wire; what the lists mean, server/tagging.py tells."""

    action: str
    limit: int | str | None = None
    offset: int | str | None = None
    tags: list[TagValues] | None = None
    tags_any: list[TagValues] | None = None
    not_tags: list[TagValues] | None = None
    not_tags_any: list[TagValues] | None = None
    matches: list[Match] | str | None = None


class _Resource(msgspec.Struct, kw_only=True):
    resource_detail: msgspec.Raw = msgspec.Raw(b"null")
    resource_id: str = ""
    resource_name: str = ""
    tags: list[Tag] | None = None


class _Resources(msgspec.Struct, kw_only=True, omit_defaults=True):
    resources: list[_Resource] | None = None
    total_count: Whole | None = None


_query_decoder = msgspec.json.Decoder(TagQuery)
_matches_decoder = msgspec.json.Decoder(list[Match])
_resources_decoder = msgspec.json.Decoder(_Resources, strict=False)

_MAP = re.compile(r"\{([^{}]*)\}")


def encode_tag_query(query: TagQuery) -> bytes:
    return msgspec.json.encode(query)


def decode_tag_query(body: bytes) -> TagQuery:
    """Raises ApiError: DIS.4300 not JSON, DIS.4200 wrong or missing field."""
    return decode_body(_query_decoder, body)


def matches_of(query: TagQuery) -> list[Match]:
    """What is matched, in whichever form it came. Raises ApiError DIS.4200."""
    found = query.matches
    if not isinstance(found, str):
        return found or []
    if len(found) > MAX_MATCHES_CHARS:
        raise api_error("DIS.4200", f"[matches has {len(found)} characters, more than {MAX_MATCHES_CHARS}]")
    if not found.strip():
        return []
    try:
        return _matches_decoder.decode(found)
    except (msgspec.DecodeError, RecursionError):
        return _printed_maps(found)


def _printed_maps(text: str) -> list[Match]:
    """Names hold none of the characters that structure the text: no need to know how others would escape them."""
    found: list[Match] = []
    for content in _MAP.findall(text):
        fields = {key.strip(): value.strip() for key, _, value in (part.partition("=") for part in content.split(","))}
        if set(fields) != {"key", "value"}:
            found.clear()
            break
        found.append(Match(fields["key"], fields["value"]))
    if not found or _MAP.sub("", text).strip("[], \t\r\n"):
        raise api_error(
            "DIS.4200",
            f"[matches={text[:80]!r} is neither a list like "
            f'[{{"key":"{RESOURCE_NAME}","value":"x"}}] nor a text like [{{key={RESOURCE_NAME}, value=x}}]]',
        )
    return found


def encode_resources(streams: Iterable[TaggedStream], total: int) -> bytes:
    resources = [
        _Resource(resource_id=stream.stream_id, resource_name=stream.name, tags=_tag_list(stream.tags))
        for stream in streams
    ]
    # As the sample, which has both whatever they are.
    return msgspec.json.encode({"resources": resources, "total_count": total})


def encode_total(total: int) -> bytes:
    return msgspec.json.encode(_Resources(total_count=total))


class ResourcePage(msgspec.Struct, frozen=True):
    """`total`: of all pages; None if it was not told."""

    streams: list[TaggedStream]
    total: int | None


def decode_resources(body: bytes) -> ResourcePage:
    """Raises TransportError."""
    told = decode_answer(_resources_decoder, body)
    streams = [
        TaggedStream(name=one.resource_name, stream_id=one.resource_id, tags=_tag_dict(one.tags))
        for one in told.resources or ()
    ]
    return ResourcePage(streams, told.total_count)
