"""The words in which the document is written: schemas, and what there is to say of an operation. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..documents import NAME

Schema = dict[str, Any]
"""JSON Schema 2020-12, as OpenAPI 3.1 has it."""


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def text(description: str = "", **more: Any) -> Schema:
    return _of("string", description, more)


def number(description: str = "", **more: Any) -> Schema:
    return _of("integer", description, more)


def flag(description: str = "", **more: Any) -> Schema:
    return _of("boolean", description, more)


def choice(values: Sequence[str], description: str = "", **more: Any) -> Schema:
    return _of("string", description, {"enum": list(values), **more})


def many(items: Schema, description: str = "", **more: Any) -> Schema:
    return _of("array", description, {"items": items, **more})


def record(must: Mapping[str, Schema], may: Mapping[str, Schema] | None = None, description: str = "") -> Schema:
    """An object: what is always there, and what may be. Whatever else it has means nothing."""
    more: Schema = {"required": list(must)} if must else {}
    return _of("object", description, {**more, "properties": {**must, **(may or {})}})


def _of(kind: str, description: str, more: Mapping[str, Any]) -> Schema:
    return {"type": kind, **({"description": description} if description else {}), **more}


def time_ms(description: str) -> Schema:
    return number(f"{description}, in ms since the epoch.", format="int64", minimum=0)


def whole(pattern: str) -> str:
    """A pattern that must match from end to end, as the code uses them."""
    return f"^{pattern}$"


STREAM_NAME = text("1 to 64 letters, digits, `_` or `-`.", pattern=whole(NAME.pattern))
PARTITION_ID = text("`shardId-0000000000`, or the number alone.", pattern=r"^(shardId-)?[0-9]{1,10}$")
SEQUENCE_NUMBER = text("0 to 9223372036854775807, in decimal digits.", pattern=r"^[0-9]{1,19}$")
RANGE = text("`[low : high]`; `[-1 : -1]` for none.", pattern=r"^\[-?[0-9]+ : -?[0-9]+\]$")
STREAM_ID = text("The id of the stream, which a later stream of the same name will not have.", maxLength=64)
SHARED_ID = text(
    "The id of the stream. It is looked for where there is no stream of that name, and the only way to a stream "
    "which another account shares.",
    maxLength=64,
)
LAYOUTS = number(
    "How often the partitions of the stream were changed (an extension): what is told here knows of no later change.",
    minimum=0,
)


class Parameter(NamedTuple):
    """Of the query, or a header."""

    schema: Schema
    required: bool = False
    deprecated: bool = False


class Body(NamedTuple):
    """Of a request. `protobuf`: that body's message, if it may come as one. `columns`: whether it may come as those."""

    schema: str
    examples: Mapping[str, Any]
    required: bool = True
    protobuf: str = ""
    columns: bool = False


class Answer(NamedTuple):
    """To a request that was granted. Without a schema it has no body; `lines`: one that goes on, line by line."""

    description: str
    schema: str = ""
    example: Any = None
    headers: Mapping[str, Schema] = {}
    protobuf: str = ""
    columns: bool = False
    lines: str = ""


class Operation(NamedTuple):
    """`codes`: the DIS codes of its refusals, besides those that every call may meet."""

    tag: str
    summary: str
    answers: Mapping[int, Answer]
    codes: Sequence[str] = ()
    description: str = ""
    query: Mapping[str, Parameter] = {}
    body: Body | None = None
    headers: Mapping[str, Parameter] = {}
