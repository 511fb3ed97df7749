"""Schemas of a stream's data: Avro, as JSON text (API 5.1.1, data_schema). Pure."""

from __future__ import annotations

import warnings

import msgspec

from ..wire.errors import api_error

MAX_SCHEMA_CHARS = 65_536
"""A stream's document is read on every call: keep what rides along small."""

MAX_DEPTH = 128
"""Of lists and objects within each other; the parser takes several frames of the stack for each."""


def checked_schema(text: str | None) -> str | None:
    """The schema as it was given, or None if there is none. Raises ApiError DIS.4360."""
    if not text:
        return None
    if len(text) > MAX_SCHEMA_CHARS:
        raise api_error("DIS.4360", f"[{len(text)} characters are more than {MAX_SCHEMA_CHARS}]")
    try:
        schema = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as exc:
        raise api_error("DIS.4360", f"[not JSON: {exc}]") from exc
    if _depth(schema) > MAX_DEPTH:
        raise api_error("DIS.4360", f"[nested deeper than {MAX_DEPTH}]")
    import avro.schema  # here, because few streams have a schema
    from avro.errors import AvroException

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of logical types: by the rules of Avro the type beneath counts then
            avro.schema.parse(text)
    except (AvroException, ValueError, TypeError, KeyError, AttributeError, OverflowError) as exc:
        # The others are how the parser meets what is no schema at all: a number for a name, a list for a type, or a
        # size of more digits than can be reckoned with.
        raise api_error("DIS.4360", f"[not an Avro schema: {str(exc)[:200]}]") from exc
    return text


def _depth(value: object) -> int:
    """How deep lists and objects are nested, without recursion."""
    depth, level = 0, [value]
    while level:
        depth += 1
        following: list[object] = []
        for each in level:
            if isinstance(each, dict):
                following += each.values()
            elif isinstance(each, list):
                following += each
        level = following
    return depth
