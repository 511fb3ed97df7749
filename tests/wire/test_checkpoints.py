"""Checkpoints on the wire: exact bodies both ways, and an envelope that never passes a record over."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.errors import ApiError, ConfigError, TransportError
from disstream.model import MAX_HASH_KEY, Checkpoint
from disstream.wire.checkpoints import (
    MAX_METADATA_CHARS,
    MAX_USER_CHARS,
    CheckpointQuery,
    Commit,
    checkpoint_query,
    decode_checkpoint,
    decode_commit,
    encode_checkpoint,
    encode_commit,
    parse_checkpoint_query,
    position,
    sealed,
)

numbers = st.integers(0, MAX_HASH_KEY)
envelopes = st.builds(lambda kind, n: f'{{"kind":"{kind}","seq":{n}}}', st.sampled_from(["last", "next"]), numbers)
metadata = st.one_of(st.text(max_size=50), st.builds("".join, st.tuples(envelopes, st.text(max_size=20))))


# --- the envelope -----------------------------------------------------------------------------------------------------


@given(following=numbers, read=st.booleans(), user=metadata)
def test_what_is_sealed_comes_back(following: int, read: bool, user: str) -> None:
    """Position and metadata survive, also metadata that looks like an envelope; the service can keep the checkpoint."""
    if read and following == 0:
        following = 1
    kept = sealed(following, read=read, metadata=user)
    assert position(kept) == (following, user)
    assert kept.sequence_number == (following - 1 if read else following)
    assert len(kept.metadata) - len(user) <= MAX_METADATA_CHARS - MAX_USER_CHARS


@given(number=numbers, text=st.one_of(st.text(max_size=50), st.builds(str.__add__, envelopes, st.text(max_size=9))))
def test_a_strangers_checkpoint_is_next(number: int, text: str) -> None:
    """Whatever stands in it: unless an envelope of that very number says more, the number itself is read next."""
    following, user = position(Checkpoint(number, text))
    if following == number + 1:
        assert text == f'{{"kind":"last","seq":{number}}}{user}'
    else:
        assert following == number
        assert text in (user, f'{{"kind":"next","seq":{number}}}{user}')


@given(following=st.integers(1, 2**40), moved=st.integers(0, 2**40), user=metadata)
def test_a_moved_number_is_next(following: int, moved: int, user: str) -> None:
    """A client that sets another number and keeps our metadata: nothing behind that number is passed over."""
    kept = sealed(following, read=True, metadata=user)
    if moved != kept.sequence_number:
        assert position(Checkpoint(moved, kept.metadata)) == (moved, kept.metadata)


@pytest.mark.parametrize(
    ("checkpoint", "following", "user"),
    [
        (Checkpoint(41, '{"kind":"last","seq":41}v2'), 42, "v2"),
        (Checkpoint(42, '{"kind":"next","seq":42}'), 42, ""),
        (Checkpoint(42, "v2"), 42, "v2"),
        (Checkpoint(4, '{"kind":"last","seq":41}'), 4, '{"kind":"last","seq":41}'),
        (Checkpoint(41, '{"kind":"last","seq":041}'), 41, '{"kind":"last","seq":041}'),
        (Checkpoint(41, '{"kind": "last", "seq": 41}'), 41, '{"kind": "last", "seq": 41}'),
        (Checkpoint(41, 'v2{"kind":"last","seq":41}'), 41, 'v2{"kind":"last","seq":41}'),
        (Checkpoint(41, '{"kind":"done","seq":41}'), 41, '{"kind":"done","seq":41}'),
    ],
)
def test_positions(checkpoint: Checkpoint, following: int, user: str) -> None:
    """The examples of the documentation, and near misses of the envelope."""
    assert position(checkpoint) == (following, user)


@pytest.mark.parametrize(
    ("following", "read", "user", "told"),
    [
        (0, True, "", "next_sequence=0 with read=True"),
        (-1, False, "", "next_sequence=-1"),
        (2**63, False, "", "next_sequence=9223372036854775808"),
        (5, True, "x" * 901, "901 characters, at most 900 of the 1000"),
    ],
)
def test_what_cannot_be_sealed(following: int, read: bool, user: str, told: str) -> None:
    """Refused with the value and the limit."""
    with pytest.raises(ConfigError, match=told):
        sealed(following, read=read, metadata=user)
    assert len(sealed(2**63, read=True, metadata="x" * 900).metadata) <= 1000


# --- bodies -----------------------------------------------------------------------------------------------------------


def test_commit_as_we_send_it() -> None:
    """Exactly the documented fields, the fence only where there is one; the server reads back what was meant."""
    body = encode_commit("a", "s", "shardId-0000000003", Checkpoint(7, "m"))
    assert json.loads(body) == {
        "app_name": "a",
        "checkpoint_type": "LAST_READ",
        "stream_name": "s",
        "partition_id": "shardId-0000000003",
        "sequence_number": "7",
        "metadata": "m",
    }
    assert decode_commit(body) == Commit("a", "s", "", 3, 7, "m", "", None)
    fenced = encode_commit("a", "s", "0", Checkpoint(0), stream_id="i", member_id="c", generation=4)
    assert json.loads(fenced) | {"stream_id": "i", "client_id": "c", "generation_id": 4} == json.loads(fenced)
    assert decode_commit(fenced) == Commit("a", "s", "i", 0, 0, "", "c", 4)


def commit_with(**fields: Any) -> bytes:
    body = {"app_name": "a", "stream_name": "s", "partition_id": "0", "sequence_number": "2", **fields}
    return json.dumps({key: value for key, value in body.items() if value is not ...}).encode()


@pytest.mark.parametrize(
    ("fields", "meant"),
    [
        ({}, Commit("a", "s", "", 0, 2, "", "", None)),
        ({"partition_id": 5, "sequence_number": 9}, Commit("a", "s", "", 5, 9, "", "", None)),
        ({"metadata": None, "stream_id": "", "checkpoint_type": "", "x": 1}, Commit("a", "s", "", 0, 2, "", "", None)),
        ({"stream_name": "", "stream_id": "i"}, Commit("a", "", "i", 0, 2, "", "", None)),
        ({"client_id": "", "generation_id": None}, Commit("a", "s", "", 0, 2, "", "", None)),
        ({"client_id": "c", "generation_id": "12"}, Commit("a", "s", "", 0, 2, "", "c", 12)),
        ({"client_id": "c"}, Commit("a", "s", "", 0, 2, "", "c", -1)),
        ({"generation_id": 0}, Commit("a", "s", "", 0, 2, "", "", 0)),
        ({"sequence_number": str(MAX_HASH_KEY)}, Commit("a", "s", "", 0, MAX_HASH_KEY, "", "", None)),
        ({"metadata": "é" * 1000}, Commit("a", "s", "", 0, 2, "é" * 1000, "", None)),
    ],
)
def test_commits_as_official_clients_send_them(fields: dict[str, Any], meant: Commit) -> None:
    """Numbers or strings, empty or absent; half a fence is a fence."""
    assert decode_commit(commit_with(**fields)) == meant


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"app_name": ...}, "DIS.4200"),
        ({"app_name": 5}, "DIS.4200"),
        ({"stream_name": ...}, "DIS.4200"),
        ({"stream_name": "", "stream_id": ""}, "DIS.4200"),
        ({"partition_id": ...}, "DIS.4200"),
        ({"partition_id": "x"}, "DIS.4201"),
        ({"partition_id": -1}, "DIS.4201"),
        ({"partition_id": ""}, "DIS.4201"),
        ({"partition_id": 10**4000}, "DIS.4201"),
        ({"checkpoint_type": "NEXT"}, "DIS.4200"),
        ({"sequence_number": ...}, "DIS.4216"),
        ({"sequence_number": ""}, "DIS.4216"),
        ({"sequence_number": "-1"}, "DIS.4216"),
        ({"sequence_number": -1}, "DIS.4216"),
        ({"sequence_number": MAX_HASH_KEY + 1}, "DIS.4216"),
        ({"sequence_number": str(MAX_HASH_KEY + 1)}, "DIS.4216"),
        ({"sequence_number": "²"}, "DIS.4216"),
        ({"sequence_number": "9" * 5000}, "DIS.4216"),
        ({"sequence_number": "newstram"}, "DIS.4216"),
        ({"sequence_number": 1.5}, "DIS.4200"),
        ({"metadata": "x" * 1001}, "DIS.4200"),
        ({"metadata": {}}, "DIS.4200"),
        ({"generation_id": "x"}, "DIS.4200"),
        ({"generation_id": "-"}, "DIS.4200"),
    ],
)
def test_bad_commits(fields: dict[str, Any], code: str) -> None:
    """Each is refused with the code that names its field."""
    with pytest.raises(ApiError) as caught:
        decode_commit(commit_with(**fields))
    assert caught.value.code == code


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"[" * 99_999, b'{"sequence_number":' + b"9" * 9999 + b"}"], ids=range(5)
)
def test_what_is_no_commit(body: bytes) -> None:
    """Refused, never a failure of the server."""
    with pytest.raises(ApiError) as caught:
        decode_commit(body)
    assert caught.value.code in ("DIS.4300", "DIS.4200")


def test_queries() -> None:
    """What the client asks is what the server understands, and what other clients leave out is filled in."""
    asked = checkpoint_query("a", "s", "shardId-0000000001", stream_id="i")
    assert asked == {
        "stream_name": "s",
        "stream_id": "i",
        "partition_id": "shardId-0000000001",
        "app_name": "a",
        "checkpoint_type": "LAST_READ",
    }
    assert parse_checkpoint_query(asked) == CheckpointQuery("a", "s", "i", 1)
    assert parse_checkpoint_query(checkpoint_query("a", "s")) == CheckpointQuery("a", "s", "", None)
    assert parse_checkpoint_query({"stream-id": "i", "app_name": "a"}) == CheckpointQuery("a", "", "i", None)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"stream_name": "s"}, "DIS.4200"),
        ({"app_name": "a"}, "DIS.4200"),
        ({"app_name": "a", "stream_name": "s", "checkpoint_type": "x"}, "DIS.4200"),
        ({"app_name": "a", "stream_name": "s", "partition_id": "x"}, "DIS.4201"),
    ],
)
def test_bad_queries(query: dict[str, str], code: str) -> None:
    """Refused with the code that names the parameter."""
    with pytest.raises(ApiError) as caught:
        parse_checkpoint_query(query)
    assert caught.value.code == code


def test_answers() -> None:
    """A string and a string; none is -1 and empty."""
    assert json.loads(encode_checkpoint(Checkpoint(485, "m"))) == {"sequence_number": "485", "metadata": "m"}
    assert json.loads(encode_checkpoint(None)) == {"sequence_number": "-1", "metadata": ""}
    assert decode_checkpoint(encode_checkpoint(Checkpoint(485, "m"))) == Checkpoint(485, "m")


@pytest.mark.parametrize(
    ("body", "meant"),
    [
        (b"", None),
        (b" \n", None),
        (b"{}", None),
        (b'{"sequence_number":"-1","metadata":""}', None),
        (b'{"sequence_number":-1}', None),
        (b'{"sequence_number":"","metadata":"m"}', None),
        (b'{"sequence_number":null}', None),
        (b'{"sequence_number":485,"metadata":null,"x":1}', Checkpoint(485)),
        (b'{"sequence_number":"0"}', Checkpoint(0)),
    ],
)
def test_answers_of_other_services(body: bytes, meant: Checkpoint | None) -> None:
    """All that services say for none is none."""
    assert decode_checkpoint(body) == meant


@pytest.mark.parametrize(
    "body", [b"hello", b"[]", b'{"sequence_number":"newstram"}', b'{"sequence_number":"99999999999999999999"}']
)
def test_answers_that_cannot_be(body: bytes) -> None:
    """Told as such, with what was answered."""
    with pytest.raises(TransportError, match="not what DIS answers"):
        decode_checkpoint(body)
