"""Bodies of the group protocol: the keys official clients send and need, both ways, and no odd one breaks us."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.errors import ApiError, TransportError
from disstream.model import GroupInfo, GroupMember
from disstream.wire.groups import (
    JoinAnswer,
    JoinRequest,
    MemberRequest,
    SyncAnswer,
    decode_heartbeat_answer,
    decode_join,
    decode_join_answer,
    decode_member,
    decode_members,
    decode_sync_answer,
    encode_heartbeat_answer,
    encode_join,
    encode_join_answer,
    encode_member,
    encode_members,
    encode_sync_answer,
)


def told(body: bytes) -> Any:
    return json.loads(body)


def test_requests() -> None:
    """Exactly what the Kafka adapter sends; null keys are left out."""
    assert told(encode_join("g", "c", ["s1", "s2"], None, 20.0, False)) == {
        "groupId": "g",
        "clientId": "c",
        "interestedStream": ["s1", "s2"],
        "interestedStreamIdList": [],
        "accelerateAssignEnabled": False,
        "rebalanceTimeoutMs": 20_000,
    }
    assert told(encode_join("g", "c", [], "s.*", 0.25, True)) == {
        "groupId": "g",
        "clientId": "c",
        "interestedStream": [],
        "interestedStreamIdList": [],
        "streamPattern": "s.*",
        "accelerateAssignEnabled": True,
        "rebalanceTimeoutMs": 250,
    }
    assert told(encode_member("g", "c", -1)) == {"groupId": "g", "clientId": "c", "generation": -1}


def test_requests_come_back() -> None:
    """The server reads what the client writes."""
    request = decode_join(encode_join("g", "c", ["s"], "p", 1.5, True))
    assert request == JoinRequest(
        group_id="g",
        client_id="c",
        interested_stream=("s",),
        interested_stream_id_list=(),
        stream_pattern="p",
        accelerate_assign_enabled=True,
        rebalance_timeout_ms=1_500,
    )
    assert decode_member(encode_member("g", "c", 7)) == MemberRequest(group_id="g", client_id="c", generation=7)


def test_absent_and_null() -> None:
    """Null, absent and unknown keys are fine in requests; so is no body where none is needed."""
    assert decode_join(b"{}") == decode_join(b'{"clientId":null,"interestedStream":null,"x":1}') == JoinRequest()
    assert decode_member(b"") == decode_member(b'{"generation":null,"clientId":null}') == MemberRequest()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "DIS.4300"),
        (b"[]", "DIS.4200"),
        (b'{"interestedStream":"s"}', "DIS.4200"),
        (b'{"interestedStream":[null]}', "DIS.4200"),
        (b'{"rebalanceTimeoutMs":"1"}', "DIS.4200"),
        (b'{"clientId":"\xff"}', "DIS.4300"),
    ],
)
def test_bad_requests(body: bytes, code: str) -> None:
    """What is not JSON, or of another type, is told."""
    with pytest.raises(ApiError) as caught:
        decode_join(body)
    assert caught.value.code == code


def test_answers() -> None:
    """syncDelayedTimeMs is never missing, milliseconds are rounded up, what does not apply is left out."""
    assert told(encode_join_answer(JoinAnswer("OK", 2.9991, None, 30.0))) == {
        "state": "OK",
        "syncDelayedTimeMs": 3_000,
        "sessionTimeoutMs": 30_000,
    }
    assert told(encode_join_answer(JoinAnswer("OK", 0.0, ()))) == {
        "state": "OK",
        "syncDelayedTimeMs": 0,
        "subscription": [],
    }
    assert told(encode_sync_answer(SyncAnswer("WAITING"))) == {"state": "WAITING"}
    assert told(encode_sync_answer(SyncAnswer("OK", 0, {}))) == {"state": "OK", "generation": 0, "assignment": {}}
    assert told(encode_heartbeat_answer("STABLE")) == {"state": "STABLE"}
    info = GroupInfo(
        state="STABLE", generation=3, members=(GroupMember(member_id="m", partitions={"s": [1]}, silent_s=0.5),)
    )
    assert told(encode_members(info)) == {
        "state": "STABLE",
        "generation": 3,
        "members": [{"memberId": "m", "partitions": {"s": [1]}, "silentMs": 500}],
    }
    assert decode_members(encode_members(info)) == info


def test_answers_of_others() -> None:
    """What the real service leaves out, or sends as null, has a meaning."""
    assert decode_join_answer(b'{"state":"REJOIN"}') == JoinAnswer("REJOIN", 0.0, None, None)
    assert decode_join_answer(
        b'{"state":"OK","syncDelayedTimeMs":1500,"subscription":["a"],"sessionTimeoutMs":0,"more":{}}'
    ) == JoinAnswer("OK", 1.5, ("a",), None)
    assert decode_sync_answer(b'{"state":"OK","generation":2,"assignment":{"s":[0,1]}}') == SyncAnswer(
        "OK", 2, {"s": [0, 1]}
    )
    assert decode_sync_answer(b'{"state":"OK"}') == SyncAnswer("OK", -1, {})
    assert decode_sync_answer(b'{"state":"ERROR","generation":9,"assignment":null}') == SyncAnswer("ERROR")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"state":null}', b'{"state":"DANCING"}'])
def test_answers_that_are_none(body: bytes) -> None:
    """What is no answer of the protocol is a TransportError that shows it."""
    for decode in (decode_join_answer, decode_sync_answer, decode_heartbeat_answer, decode_members):
        with pytest.raises(TransportError, match="not what DIS answers"):
            decode(body)


@given(
    delay_ms=st.integers(0, 10**7),
    session_ms=st.one_of(st.none(), st.integers(1, 10**7)),
    subscription=st.one_of(st.none(), st.lists(st.text(), max_size=3).map(tuple)),
    generation=st.integers(0, 2**63 - 1),
    assignment=st.dictionaries(st.text(), st.lists(st.integers(0, 2**31 - 1), max_size=4), max_size=3),
)
def test_round_trips(
    delay_ms: int,
    session_ms: int | None,
    subscription: tuple[str, ...] | None,
    generation: int,
    assignment: dict[str, list[int]],
) -> None:
    """Every answer comes back as it was, to the millisecond."""
    session_s = None if session_ms is None else session_ms / 1000
    join = JoinAnswer("OK", delay_ms / 1000, subscription, session_s)
    assert decode_join_answer(encode_join_answer(join)) == join
    sync = SyncAnswer("OK", generation, assignment)
    assert decode_sync_answer(encode_sync_answer(sync)) == sync
