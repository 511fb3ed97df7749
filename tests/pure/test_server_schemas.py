"""Which data schemas a stream may have."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disstream.errors import ApiError
from disstream.server.schemas import checked_schema

RECORD = (
    '{"type":"record","name":"RecordName","fields":'
    '[{"name":"key1","type":"string"},{"name":"key2","type":["null","long"]}]}'
)


def refused(text: str) -> str:
    with pytest.raises(ApiError) as caught:
        checked_schema(text)
    assert caught.value.code == "DIS.4360"
    return caught.value.message


@pytest.mark.parametrize("text", [RECORD, '"string"', '{"type":"map","values":"int"}', '["null","string"]'])
def test_schemas(text: str) -> None:
    """A schema in the syntax of Avro is kept as it was written."""
    assert checked_schema(text) == text


@pytest.mark.parametrize("text", [None, ""])
def test_no_schema(text: str | None) -> None:
    """Empty means none."""
    assert checked_schema(text) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not JSON"),
        ("1" * 65_537, "65537 characters"),
        ("[" * 200 + "]" * 200, "deeper"),
        ('"strin"', "strin"),
        ("5", "not an Avro schema"),
        ('{"type":"record","name":"a"}', "fields"),
        ('{"type":"record","fields":[]}', "Name"),
        ('{"type":"record","name":"1x","fields":[]}', "1x"),
        ('{"type":"enum","name":"e","symbols":["a","a"]}', "Duplicate"),
        ('["int","int"]', "already in Union"),
        (f'{{"type":"fixed","name":"f","size":1{"0" * 400},"logicalType":"decimal","precision":5}}', "too large"),
        ('{"type":"record","name":"x","fields":[{"name":"a","type":"int"},{"name":"a","type":"int"}]}', "already"),
    ],
)
def test_what_is_no_schema(text: str, told: str) -> None:
    """Each is refused with the reason."""
    assert told in refused(text)


def test_logical_types_that_do_not_fit_are_passed_over() -> None:
    """Avro ignores a logical type it cannot make sense of: no warning, no refusal."""
    text = '{"type":"long","logicalType":"date"}'
    assert checked_schema(text) == text


def test_deep_schemas_need_little_stack() -> None:
    """The deepest schema that is let in is parsed far from the end of the stack."""
    text = '"int"'
    for _ in range(120):
        text = f'{{"type":"array","items":{text}}}'

    def deep(levels: int) -> str | None:
        return deep(levels - 1) if levels else checked_schema(text)

    assert deep(sys.getrecursionlimit() // 4) == text


words = st.sampled_from(
    ["type", "name", "fields", "items", "values", "symbols", "size", "default", "logicalType", "precision", "namespace"]
)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from(["record", "string", "int", "enum", "array", "map", "fixed", "bytes", "decimal", "null", "error"]),
)
documents = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=6), max_leaves=20
)


@given(documents)
@settings(max_examples=150)
def test_any_document(document: object) -> None:
    """Whatever JSON is sent, it is a schema or refused as none."""
    text = json.dumps(document)
    try:
        kept = checked_schema(text)
    except ApiError as error:
        kept = error.code
    assert kept in (text, "DIS.4360")
