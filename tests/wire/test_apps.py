"""Apps on the wire: exact bodies both ways, and all spellings that are in use."""

from __future__ import annotations

import json

import pytest

from disstream.errors import ApiError, TransportError
from disstream.model import AppInfo, Checkpoint, PartitionState
from disstream.wire.apps import (
    AppPage,
    StatePage,
    decode_app,
    decode_create,
    decode_list,
    decode_states,
    encode_app,
    encode_create,
    encode_list,
    encode_states,
)

APP = AppInfo(name="newapp", app_id="bd6IPpvgiIflQPMpi9M", create_time=1593569685875, streams=("newstream",))
WIRE_APP = {
    "app_id": "bd6IPpvgiIflQPMpi9M",
    "app_name": "newapp",
    "create_time": 1593569685875,
    "commit_checkpoint_stream_names": ["newstream"],
}


def test_create() -> None:
    """One field, both ways; more fields are let through."""
    assert json.loads(encode_create("a")) == {"app_name": "a"}
    assert decode_create(b'{"app_name":"a","x":1}') == "a"


@pytest.mark.parametrize(("body", "code"), [(b"", "DIS.4300"), (b"{}", "DIS.4200"), (b'{"app_name":1}', "DIS.4200")])
def test_bad_creations(body: bytes, code: str) -> None:
    """Not JSON is DIS.4300, a missing or wrong name DIS.4200."""
    with pytest.raises(ApiError) as caught:
        decode_create(body)
    assert caught.value.code == code


def test_an_app() -> None:
    """The documented sample, both ways; one without checkpoints has an empty list."""
    assert json.loads(encode_app(APP)) == WIRE_APP
    assert decode_app(json.dumps(WIRE_APP).encode()) == APP
    assert json.loads(encode_app(AppInfo(name="a")))["commit_checkpoint_stream_names"] == []


@pytest.mark.parametrize(
    ("body", "meant"),
    [
        (b'{"app_name":"a"}', AppInfo(name="a")),
        (b'{"app_name":"a","app_id":null,"commit_checkpoint_stream_names":null,"x":1}', AppInfo(name="a")),
        (b'{"app_name":"a","create_time":"12"}', AppInfo(name="a", create_time=12)),
        (b'{"app_name":"a","commit_check_point_stream_names":["s"]}', AppInfo(name="a", streams=("s",))),
    ],
)
def test_apps_of_other_services(body: bytes, meant: AppInfo) -> None:
    """Absent, null, numbers as text, and the second spelling of the list."""
    assert decode_app(body) == meant


def test_a_list() -> None:
    """A page of apps, both ways."""
    body = encode_list([APP], total=3, has_more=True)
    assert json.loads(body) == {"total_number": 3, "apps": [WIRE_APP], "has_more_app": True}
    assert decode_list(body) == AppPage([APP], 3, True)
    assert json.loads(encode_list([], total=0, has_more=False)) == {
        "total_number": 0,
        "apps": [],
        "has_more_app": False,
    }
    assert decode_list(b"{}") == AppPage([], 0, False)


STATES = [
    PartitionState(partition_id="shardId-0000000000", earliest=1653120573, latest=1658297359),
    PartitionState(
        partition_id="shardId-0000000001", checkpoint=Checkpoint(5, "m"), earliest=2, latest=9, status="DELETED"
    ),
]


def test_states() -> None:
    """Plain partition numbers, a sequence number that is text beside offsets that are numbers; both ways."""
    body = encode_states("a", "s", STATES, has_more=False)
    assert json.loads(body) == {
        "has_more": False,
        "stream_name": "s",
        "app_name": "a",
        "partition_consuming_states": [
            {
                "partition_id": "0",
                "sequence_number": "-1",
                "latest_offset": 1658297359,
                "earliest_offset": 1653120573,
                "checkpoint_type": "LAST_READ",
                "status": "ACTIVE",
                "metadata": "",
            },
            {
                "partition_id": "1",
                "sequence_number": "5",
                "latest_offset": 9,
                "earliest_offset": 2,
                "checkpoint_type": "LAST_READ",
                "status": "DELETED",
                "metadata": "m",
            },
        ],
    }
    assert decode_states(body) == StatePage(STATES, False, "1")


def test_states_of_other_services() -> None:
    """Numbers as text and the other way round, nulls, and either spelling of a partition."""
    page = decode_states(
        b'{"has_more":true,"partition_consuming_states":['
        b'{"partition_id":0,"sequence_number":-1,"latest_offset":"9","earliest_offset":"2","status":null,"metadata":null},'
        b'{"partition_id":"shardId-0000000001","sequence_number":5},{"partition_id":"2","sequence_number":""}]}'
    )
    assert page == StatePage(
        [
            PartitionState(partition_id="shardId-0000000000", earliest=2, latest=9),
            PartitionState(partition_id="shardId-0000000001", checkpoint=Checkpoint(5)),
            PartitionState(partition_id="shardId-0000000002"),
        ],
        True,
        "2",
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"partition_consuming_states":[{}]}',
        b'{"partition_consuming_states":[{"partition_id":"x"}]}',
        b'{"partition_consuming_states":[{"partition_id":"0","sequence_number":"x"}]}',
    ],
)
def test_states_that_cannot_be(body: bytes) -> None:
    """Told as such."""
    with pytest.raises(TransportError, match="not what DIS answers"):
        decode_states(body)
