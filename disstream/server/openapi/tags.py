"""Tags, for the document (API 5.7). Pure."""

from __future__ import annotations

from ..tagging import MAX_KEYS, MAX_VALUES
from .parts import Answer, Body, Operation, Schema, choice, many, record, ref, text

_HAN = "\u4e00-\u9fff"
TAG_KEY = text("1 to 36 letters, digits, `-` or `_`.", pattern=rf"^[A-Za-z0-9_\-{_HAN}]{{1,36}}$")
_VALUE = text("At most 43 letters, digits, `.`, `-` or `_`.", pattern=rf"^[A-Za-z0-9._\-{_HAN}]{{0,43}}$")
_WANTED = many(ref("TagValues"), maxItems=MAX_KEYS)

SCHEMAS: dict[str, Schema] = {
    "Tag": record({"key": TAG_KEY}, {"value": _VALUE}),
    "SysTag": record(
        {"key": {"const": "_sys_enterprise_project_id"}},
        {"value": text("The enterprise project.", maxLength=64)},
    ),
    "TagValues": record({"key": text(minLength=1, maxLength=36)}, {"values": many(text(), maxItems=MAX_VALUES)}),
    "CreateTagRequest": record({"tag": ref("Tag")}),
    "ChangeTagsRequest": record(
        {
            "action": choice(("create", "delete")),
            "tags": many(record({"key": text(minLength=1, maxLength=36)}, {"value": text(maxLength=43)})),
        },
        description="Keys that are there already get the new value; keys that are not there are deleted all the same.",
    ),
    "StreamTags": record({"tags": many(ref("Tag"))}),
    "AllTags": record({"tags": many(record({"key": text(), "values": many(text())}))}),
    "FilterRequest": record(
        {"action": choice(("filter", "count"), "`count` answers only how many.")},
        {
            "limit": text("1 to 1000.", pattern="^[0-9]{1,4}$", default="1000"),
            "offset": text("So many are passed over.", pattern="^[0-9]{1,9}$", default="0"),
            "tags": {**_WANTED, "description": "Streams that have all of these."},
            "tags_any": {**_WANTED, "description": "Streams that have any of these."},
            "not_tags": {**_WANTED, "description": "Streams that lack any of these."},
            "not_tags_any": {**_WANTED, "description": "Streams that lack all of these."},
            "matches": many(
                record({"key": choice(("resource_name",)), "value": text("A part of the name.")}), maxItems=1
            ),
        },
        "An entry without values stands for any value. What is given together must hold together.",
    ),
    "FilterAnswer": record(
        {"total_count": {"type": "integer", "minimum": 0}},
        {
            "resources": many(
                record(
                    {
                        "resource_id": text(),
                        "resource_name": text(),
                        "resource_detail": {"type": ["object", "null"]},
                        "tags": many(ref("Tag")),
                    }
                )
            )
        },
    ),
}

_TAGS = [{"key": "key1", "value": "value1"}, {"key": "key2", "value": "value3"}]

OPERATIONS: dict[str, Operation] = {
    "create_tag": Operation(
        "Tags",
        "Give a stream a tag",
        {204: Answer("It has the tag.")},
        codes=("DIS.4601", "DIS.4603"),
        body=Body("CreateTagRequest", {"tag": {"tag": _TAGS[0]}}),
    ),
    "stream_tags": Operation(
        "Tags",
        "List the tags of a stream",
        {200: Answer("All of them.", "StreamTags", {"tags": _TAGS})},
        codes=("DIS.4603",),
    ),
    "delete_tag": Operation(
        "Tags",
        "Take a tag from a stream",
        {204: Answer("It has the tag no more.")},
        codes=("DIS.4603", "DIS.4604"),
    ),
    "change_tags": Operation(
        "Tags",
        "Give a stream several tags, or take them from it",
        {204: Answer("It has them, or has them no more.")},
        codes=("DIS.4601", "DIS.4603", "DIS.4605"),
        body=Body("ChangeTagsRequest", {verb: {"action": verb, "tags": _TAGS} for verb in ("create", "delete")}),
    ),
    "list_tags": Operation(
        "Tags",
        "List the tags of all streams",
        {200: Answer("Each key with all its values.", "AllTags", {"tags": [{"key": "key1", "values": ["value1"]}]})},
    ),
    "filter_by_tags": Operation(
        "Tags",
        "Find streams by their tags",
        {
            200: Answer(
                "One page, ascending by name; of `count` only how many there are.",
                "FilterAnswer",
                {
                    "resources": [
                        {
                            "resource_detail": None,
                            "resource_id": "8QM3Nt9YTLOwtUVYJhO",
                            "resource_name": "newstream",
                            "tags": _TAGS,
                        }
                    ],
                    "total_count": 1,
                },
            )
        },
        codes=("DIS.4605",),
        body=Body(
            "FilterRequest",
            {
                "filter": {
                    "action": "filter",
                    "offset": "0",
                    "limit": "100",
                    "tags": [{"key": "key1", "values": ["value1", "value2"]}],
                    "matches": [{"key": "resource_name", "value": "new"}],
                },
                "count": {"action": "count", "not_tags_any": [{"key": "key1", "values": []}]},
            },
        ),
    ),
}
