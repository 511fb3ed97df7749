"""What a stream may be created with, and what its document then says."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from disstream.errors import ApiError, ConfigError
from disstream.model import MAX_HASH_KEY, AutoScale
from disstream.server.config import ServerConfig
from disstream.server.creation import new_stream, updated_stream
from disstream.server.documents import StreamDoc, decode_document, encode_document, id_key, stream_key
from disstream.wire.streams import CreateStream, CsvProperties, Tag, UpdateStream


def create(**fields: Any) -> StreamDoc:
    request = CreateStream(**{"stream_name": "s", "partition_count": 2, **fields})
    return new_stream(request, max_partitions=50, max_tags=10, now_ms=7, source=random.Random(1))


def test_defaults() -> None:
    """A name and a count are enough."""
    doc = create()
    assert (doc.name, doc.retention_h, doc.stream_type, doc.data_type) == ("s", 24, "COMMON", "BLOB")
    assert (doc.create_time, doc.last_modified_time) == (7, 7)
    assert [(p.number, p.epoch, p.status) for p in doc.partitions] == [(0, 1, "ACTIVE"), (1, 1, "ACTIVE")]
    assert (doc.partitions[0].low, doc.partitions[1].high) == (0, MAX_HASH_KEY)
    assert len(doc.stream_id) == 19
    assert doc.stream_id.isalnum()


def test_everything() -> None:
    """All that is given is kept, and survives storing."""
    doc = create(
        stream_type="ADVANCED",
        data_type="CSV",
        data_duration=168,
        auto_scale_enabled=False,
        auto_scale_min_partition_count=1,
        data_schema='{"type":"string"}',
        csv_properties=CsvProperties(";"),
        compression_format="gzip",
        tags=[Tag("部门", "a.b-c_1"), Tag("k", None)],
        sys_tags=[Tag("_sys_enterprise_project_id", "0")],
    )
    assert decode_document(encode_document(doc)) == doc
    assert (doc.stream_type, doc.data_type, doc.retention_h) == ("ADVANCED", "CSV", 168)
    assert (doc.data_schema, doc.csv_delimiter, doc.compression_format) == ('{"type":"string"}', ";", "gzip")
    assert doc.tags == {"部门": "a.b-c_1", "k": ""}
    assert doc.sys_tags == {"_sys_enterprise_project_id": "0"}


@pytest.mark.parametrize("value", [None, "", 0, "0", 24, "24"])
def test_ways_to_say_a_day(value: int | str | None) -> None:
    """Absent, empty and zero retention mean the default; text is a number, too."""
    assert create(data_duration=value).retention_h == 24


def test_empty_strings_are_absent() -> None:
    """Optional texts left empty are not there."""
    doc = create(stream_type="", data_type="", data_schema="", compression_format="", csv_properties=CsvProperties(""))
    assert (doc.stream_type, doc.data_type) == ("COMMON", "BLOB")
    assert (doc.data_schema, doc.compression_format, doc.csv_delimiter) == (None, None, None)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"stream_name": ""}, "DIS.4200"),
        ({"stream_name": "a b"}, "DIS.4200"),
        ({"stream_name": "a" * 65}, "DIS.4200"),
        ({"stream_name": "é"}, "DIS.4200"),
        ({"stream_name": "a\n"}, "DIS.4200"),
        ({"partition_count": 0}, "DIS.4200"),
        ({"partition_count": -1}, "DIS.4200"),
        ({"partition_count": 51}, "DIS.4308"),
        ({"partition_count": 10**30}, "DIS.4308"),
        ({"stream_type": "common"}, "DIS.4200"),
        ({"data_type": "XML"}, "DIS.4200"),
        ({"data_duration": 23}, "DIS.4200"),
        ({"data_duration": 169}, "DIS.4200"),
        ({"data_duration": -24}, "DIS.4200"),
        ({"data_duration": "a day"}, "DIS.4200"),
        ({"data_duration": "9" * 5000}, "DIS.4200"),
        ({"compression_format": "lz4"}, "DIS.4200"),
        ({"auto_scale_enabled": True}, "DIS.4200"),
        ({"csv_properties": CsvProperties("-" * 17)}, "DIS.4200"),
        ({"tags": [Tag("", "v")]}, "DIS.4200"),
        ({"tags": [Tag("k" * 37)]}, "DIS.4200"),
        ({"tags": [Tag("k", "v" * 44)]}, "DIS.4200"),
        ({"tags": [Tag("k", "a b")]}, "DIS.4200"),
        ({"tags": [Tag("k."), Tag("l")]}, "DIS.4200"),
        ({"tags": [Tag("k"), Tag("k")]}, "DIS.4200"),
        ({"tags": [Tag(f"k{n}") for n in range(11)]}, "DIS.4601"),
        ({"sys_tags": [Tag("other", "x")]}, "DIS.4200"),
    ],
)
def test_refusals(fields: dict[str, Any], code: str) -> None:
    """Each bad field is refused with its code."""
    with pytest.raises(ApiError) as caught:
        create(**fields)
    assert caught.value.code == code


def test_keys_take_only_what_can_be_a_name() -> None:
    """A path segment that cannot be a name or an id never becomes a catalog key."""
    assert stream_key("p", "a-b_C") == "stream/p/a-b_C"
    for name in ("", "a/b", "a" * 65, "é", "a\x00"):
        assert stream_key("p", name) is None
    assert id_key("p", "8QM3Nt9YTLOwtUVYJhO") is not None
    for name in ("", "a-b", "a" * 61, "é"):
        assert id_key("p", name) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "0.0.0.0"},
        {"host": "192.168.0.1"},
        {"host": "::"},
        {"host": "example.com"},
        {"host": ""},
        {"port": -1},
        {"port": 65_536},
        {"durability": "maybe"},
        {"max_record_bytes": 0},
        {"retention_interval_s": 0.0},
        {"max_pending_bytes": 1_000},
        {"max_fetch_bytes": 1_048_576},
        {"max_buffered_bytes": 1},
        {"max_connections": 0},
        {"idle_timeout_s": 0.0},
        {"answer_timeout_s": -1.0},
    ],
)
def test_configurations_that_cannot_work(fields: dict[str, Any]) -> None:
    """A bad setting is refused by name before anything starts."""
    with pytest.raises(ConfigError, match=next(iter(fields))):
        ServerConfig(**fields)


def test_auto_scaling_has_bounds() -> None:
    """It takes both bounds, in order and within what the server allows; the first count may lie outside them."""
    bounds = {"auto_scale_min_partition_count": 3, "auto_scale_max_partition_count": 10}
    doc = create(auto_scale_enabled=True, **bounds)
    assert doc.auto_scale == AutoScale(3, 10)
    assert decode_document(encode_document(doc)) == doc
    assert create(auto_scale_enabled=False, **bounds).auto_scale is None
    assert create(**bounds).auto_scale is None
    for low, high, code in ((0, 1, "DIS.4200"), (2, 1, "DIS.4200"), (None, 1, "DIS.4200"), (1, 51, "DIS.4308")):
        with pytest.raises(ApiError, match="auto_scale_max_partition_count") as caught:
            create(auto_scale_enabled=True, auto_scale_min_partition_count=low, auto_scale_max_partition_count=high)
        assert caught.value.code == code


def update(doc: StreamDoc, **fields: Any) -> StreamDoc:
    return updated_stream(doc, UpdateStream(**fields), max_partitions=50, now_ms=9)


def test_an_update_changes_what_it_names() -> None:
    """Everything else stays, and what is empty counts as not named."""
    doc = create(data_type="CSV", data_duration=48, csv_properties=CsvProperties(";"), data_schema='"int"')
    assert update(doc) == msgspec.structs.replace(doc, last_modified_time=9)
    same = update(doc, data_duration="", data_type="", data_schema="", csv_properties=CsvProperties(""))
    assert same == msgspec.structs.replace(doc, last_modified_time=9)
    assert update(doc, data_duration="72").retention_h == 72
    assert {update(doc, data_duration=nothing).retention_h for nothing in (0, "0", "00")} == {48}
    assert update(doc, data_type="JSON").data_type == "JSON"
    assert update(doc, data_schema='"string"').data_schema == '"string"'
    assert update(doc, csv_properties=CsvProperties("|")).csv_delimiter == "|"
    for fields, code in (
        ({"data_duration": 169}, "DIS.4200"),
        ({"data_type": "XML"}, "DIS.4200"),
        ({"data_schema": '"no type"'}, "DIS.4360"),
        ({"auto_scale_enabled": True, "auto_scale_min_partition_count": 1}, "DIS.4200"),
    ):
        with pytest.raises(ApiError) as caught:
            update(doc, **fields)
        assert caught.value.code == code


def test_an_update_of_automatic_scaling() -> None:
    """It is switched on and off, its bounds are moved one by one, and bounds alone switch nothing on."""
    doc = create()
    assert update(doc, auto_scale_min_partition_count=1, auto_scale_max_partition_count=2).auto_scale is None
    on = update(doc, auto_scale_enabled=True, auto_scale_min_partition_count=1, auto_scale_max_partition_count=2)
    assert on.auto_scale == AutoScale(1, 2)
    assert update(on, data_type="JSON").auto_scale == AutoScale(1, 2)
    assert update(on, auto_scale_max_partition_count=5).auto_scale == AutoScale(1, 5)
    assert update(on, auto_scale_enabled=True).auto_scale == AutoScale(1, 2)
    assert update(on, auto_scale_enabled=False).auto_scale is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_hosts(host: str) -> None:
    """Every loopback address will do."""
    assert ServerConfig(host=host).host == host
