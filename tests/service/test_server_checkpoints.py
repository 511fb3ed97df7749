"""Checkpoints are kept as committed, fenced by their app, their stream and their group, and go with them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from app_server import NOTHING, ReaderCaller, reading
from fake_groups import FakeGroups

from disstream.engine import PartitionRef
from disstream.engine.embedded import EmbeddedEngine
from disstream.errors import ApiError
from disstream.model import MAX_HASH_KEY
from disstream.server.call import Call, Caller
from disstream.server.documents import grant_key, group_key
from disstream.server.progress import forget_stream
from disstream.wire.errors import api_error


@pytest.fixture(autouse=True)
def group(monkeypatch: pytest.MonkeyPatch) -> FakeGroups:
    return FakeGroups(monkeypatch)


async def test_the_last_commit_counts() -> None:
    """Number and metadata are replaced as a whole, forwards and backwards, per app, stream and partition."""
    async with reading() as server:
        await server.make("s", "t", apps=("a", "b"), partitions=2)
        assert await server.stored() == NOTHING
        assert await server.commit("7", metadata="m") == ""
        assert await server.stored() == {"sequence_number": "7", "metadata": "m"}
        assert await server.commit(3) == ""
        assert await server.stored() == {"sequence_number": "3", "metadata": ""}
        for other in ("app_name=b&stream_name=s", "app_name=a&stream_name=t"):
            assert await server.stored(f"{other}&partition_id=0") == NOTHING
        assert await server.stored("app_name=a&stream_name=s&partition_id=shardId-0000000001") == NOTHING


async def test_streams_go_by_name_or_id() -> None:
    """An id finds the stream whatever name stands beside it; empty is absent; an id that is no more finds nothing."""
    async with reading() as server:
        await server.make("s", "t")
        stream_id = (await server.describe("s"))["stream_id"]
        assert await server.commit(1, stream_name="", stream_id=stream_id) == ""
        assert await server.commit(2, stream_name="t", stream_id=stream_id) == ""
        assert await server.commit(3, stream_id="") == ""
        assert (await server.stored())["sequence_number"] == "3"
        assert (await server.stored(f"app_name=a&stream_id={stream_id}&partition_id=0"))["sequence_number"] == "3"
        assert await server.stored("app_name=a&stream_name=t&partition_id=0") == NOTHING
        assert await server.commit(1, stream_id="8QM3Nt9YTLOwtUVYJhO") == "DIS.4301"


@pytest.mark.parametrize(
    ("sequence", "fields", "code"),
    [
        ("10", {}, ""),
        ("0", {}, ""),
        ("11", {}, "DIS.4224"),
        (MAX_HASH_KEY, {}, "DIS.4224"),
        (MAX_HASH_KEY + 1, {}, "DIS.4216"),
        ("-1", {}, "DIS.4216"),
        ("x", {}, "DIS.4216"),
        ("1", {"partition_id": "9"}, "DIS.4302"),
        ("1", {"partition_id": "nine"}, "DIS.4201"),
        ("1", {"stream_name": "nope"}, "DIS.4301"),
        ("1", {"stream_name": "no/name"}, "DIS.4301"),
        ("1", {"app_name": "nope"}, "DIS.4332"),
        ("1", {"app_name": "no/name"}, "DIS.4332"),
        ("1", {"app_name": "x" * 9999}, "DIS.4332"),
        ("1", {"app_name": "nope", "stream_name": "nope"}, "DIS.4332"),
        ("1", {"checkpoint_type": "NEXT_READ"}, "DIS.4200"),
        ("1", {"checkpoint_type": ""}, ""),
        ("1", {"metadata": "m" * 1000}, ""),
        ("1", {"metadata": "m" * 1001}, "DIS.4200"),
        ("1", {"project": "other"}, "DIS.4332"),
    ],
)
async def test_what_can_be_committed(sequence: object, fields: dict[str, Any], code: str) -> None:
    """Any number up to the next to be written, of what exists; a refused commit changes nothing."""
    async with reading() as server:
        await server.make("s")
        assert await server.commit("5", metadata="before") == ""
        assert await server.commit(sequence, **fields) == code
        if code:
            assert await server.stored() == {"sequence_number": "5", "metadata": "before"}
        else:
            assert (await server.stored())["sequence_number"] == sequence


async def test_below_the_oldest_and_above_the_newest() -> None:
    """A number that has expired is accepted; one that is not written yet is told the range in the documented shape."""
    async with reading() as server:
        await server.make("s")
        stream_id = (await server.describe("s"))["stream_id"]
        await server.engine.log.trim(PartitionRef(stream_id, 0), 4)
        assert await server.commit(2) == ""
        body = {"app_name": "a", "stream_name": "s", "partition_id": "0", "sequence_number": "11"}
        answer = await server.call("POST", "/v2/p/checkpoints", body)
        assert answer.told["message"] == "Sequence_number out of range. [11][ should be within ][4][ ][10]"


async def test_queries_that_miss() -> None:
    """What is not there is told with its code, on reading and on deleting."""
    async with reading() as server:
        await server.make("s")
        await server.commit(1)
        for query, code in {
            "app_name=nope&stream_name=s&partition_id=0": "DIS.4332",
            "app_name=a&stream_name=nope&partition_id=0": "DIS.4301",
            "app_name=a&stream_name=s&partition_id=9": "DIS.4302",
            "app_name=a&stream_name=s&partition_id=x": "DIS.4201",
            "app_name=a&partition_id=0": "DIS.4200",
            "stream_name=s&partition_id=0": "DIS.4200",
            "app_name=a&stream_name=s&partition_id=0&checkpoint_type=x": "DIS.4200",
        }.items():
            assert await server.stored(query) == code
            assert await server.forget(query) == code
        assert await server.stored("app_name=a&stream_name=s") == "DIS.4200"
        assert (await server.stored())["sequence_number"] == "1"


async def test_checkpoints_are_deleted() -> None:
    """One, or all of a stream; others stay; where there is none DIS.4375; a live group does not prevent it."""
    async with reading() as server:
        await server.make("s", "t", apps=("a", "b"), partitions=3, records=0)
        assert await server.forget() == "DIS.4375"
        for number in "012":
            assert await server.commit(0, partition_id=number) == ""
        assert await server.commit(0, stream_name="t") == ""
        assert await server.commit(0, app_name="b") == ""
        one = "app_name=a&stream_name=s&partition_id=shardId-0000000001&checkpoint_type=LAST_READ"
        assert await server.forget(one) == ""
        assert await server.forget(one) == "DIS.4375"
        left = [await server.stored(f"app_name=a&stream_name=s&partition_id={n}") for n in "012"]
        assert [checkpoint == NOTHING for checkpoint in left] == [False, True, False]
        assert await server.forget() == ""
        assert await server.forget() == "DIS.4375"
        assert await server.stored() == NOTHING
        assert await server.stored("app_name=a&stream_name=t&partition_id=0") != NOTHING
        assert await server.stored("app_name=b&stream_name=s&partition_id=0") != NOTHING


async def test_a_member_is_asked_for(group: FakeGroups) -> None:
    """client_id or generation_id make a fence: its refusal is the answer; without them nobody is asked."""
    async with reading() as server:
        await server.make("s", partitions=2)
        stream_id = (await server.describe("s"))["stream_id"]
        assert await server.commit(1, client_id="", generation_id=None) == ""
        assert group.fences == []
        assert await server.commit(2, client_id="m", generation_id=4) == ""
        assert await server.commit(3, client_id="m") == ""
        assert await server.commit(0, generation_id="5", partition_id="1") == ""
        assert group.fences == [
            ("p", "a", "m", 4, stream_id, 0),
            ("p", "a", "m", -1, stream_id, 0),
            ("p", "a", "", 5, stream_id, 1),
        ]
        group.refuse = api_error("DIS.4703", "[3]")
        assert await server.commit(9, client_id="m", generation_id=3) == "DIS.4703"
        assert (await server.stored())["sequence_number"] == "3"


async def test_a_group_that_changes_meanwhile(group: FakeGroups) -> None:
    """What the fence expects is checked in the transaction that writes: after a change the fence is asked again."""
    async with reading() as server:
        await server.make("s")
        key = group_key("p", "a")

        async def rebalance() -> None:
            await server.engine.transact({}, {key: b"generation 5"})
            group.refuse = api_error("DIS.4703", "[4]")

        await server.engine.transact({}, {key: b"generation 4"})
        stored = await server.engine.get(key)
        assert stored is not None
        group.expect = {key: stored.version}
        assert await server.commit(1, client_id="m", generation_id=4) == ""
        server.engine.meanwhile = rebalance
        assert await server.commit(2, client_id="m", generation_id=4) == "DIS.4703"
        assert (await server.stored())["sequence_number"] == "1"
        assert len(group.fences) == 3


@pytest.mark.parametrize(
    ("target", "code"), [("/v2/p/apps/a", "DIS.4332"), ("/v2/p/streams/s", "DIS.4301")], ids=["app", "stream"]
)
async def test_what_is_deleted_meanwhile(target: str, code: str) -> None:
    """A commit that was checked before its app or stream went does not land after it."""
    async with reading() as server:
        await server.make("s")
        server.engine.meanwhile = lambda: server.call("DELETE", target)
        assert await server.commit(1) == code
        assert not [key for key in await server.engine.keys() if key.startswith("checkpoint/")]


@pytest.mark.parametrize("what", ["app", "stream"])
async def test_what_is_made_anew_meanwhile(what: str) -> None:
    """A commit that was checked against an app or stream lands on its successor only after all checks anew."""
    async with reading() as server:
        await server.make("s")

        async def anew() -> None:
            await server.call("DELETE", f"/v2/p/{what}s/{what[0]}")
            await server.make(*["s"] * (what == "stream"), apps=("a",) * (what == "app"), records=0)

        server.engine.meanwhile = anew
        code = await server.commit(5)
        # The new stream has no record 5; the new app reads the stream as well as the old one did.
        assert code == ("DIS.4224" if what == "stream" else "")


async def test_many_at_once() -> None:
    """Concurrent commits of one app, also on one partition, all succeed, each in one transaction."""
    async with reading() as server:
        await server.make("s", partitions=20)
        before = server.engine.transactions
        commits = [server.commit(0, partition_id=str(n % 20)) for n in range(100)]
        assert set(await asyncio.gather(*commits)) == {""}
        assert server.engine.transactions - before == 100


async def checkpoints_of_two_apps(server: ReaderCaller) -> str:
    """Of apps a and b on streams s and t, and of another project on a stream of its own; the id of s."""
    await server.make("s", "t", apps=("a", "b"), partitions=2)
    for app in ("a", "b"):
        for stream in ("s", "t"):
            for number in ("0", "1"):
                assert await server.commit(0, app_name=app, stream_name=stream, partition_id=number) == ""
    return str((await server.describe("s"))["stream_id"])


async def test_a_stream_is_forgotten() -> None:
    """The checkpoints of every app on it are gone, those on others stay; a second time changes nothing."""
    async with reading() as server:
        gone = await checkpoints_of_two_apps(server)
        before = await server.engine.keys()
        for _ in range(2):
            await forget_stream(server.engine, gone)
            assert await server.engine.keys() == [key for key in before if gone not in key]


async def test_forgetting_goes_on_where_it_was() -> None:
    """Broken off between two apps, it finishes when it is called again."""
    async with reading() as server:
        gone = await checkpoints_of_two_apps(server)

        async def fail() -> None:
            raise ConnectionError

        async def fail_next() -> None:
            server.engine.meanwhile = fail

        server.engine.meanwhile = fail_next
        with pytest.raises(ConnectionError):
            await forget_stream(server.engine, gone)
        assert [key for key in await server.engine.keys() if gone in key]
        await forget_stream(server.engine, gone)
        assert not [key for key in await server.engine.keys() if gone in key]


async def test_a_stream_made_anew_has_none() -> None:
    """A stream that takes a deleted one's name begins without checkpoints, also while the old ones are still there."""
    async with reading() as server:
        await server.make("s")
        await server.commit(5)
        await server.call("DELETE", "/v2/p/streams/s")
        await server.create("s")
        assert await server.stored() == NOTHING
        assert await server.commit(0) == ""
        assert (await server.told("/apps/a"))["commit_checkpoint_stream_names"] == ["s"]


async def test_projects_do_not_meet() -> None:
    """The same names in two projects are two apps and two streams."""
    async with reading() as server:
        await server.make("s")
        await server.create("s", project="q")
        await server.call("POST", "/v2/q/apps", {"app_name": "a"})
        assert await server.commit(5) == ""
        assert await server.stored(project="q") == NOTHING
        assert await server.forget(project="q") == "DIS.4375"
        assert await server.commit(5, project="q") == "DIS.4224"


async def test_a_stream_of_another_account() -> None:
    """An app reads it by its id where a policy lets the caller; its checkpoints are those of its own project."""
    async with reading() as server:
        await server.make("s")
        stream_id = (await server.describe("s"))["stream_id"]
        await server.call("POST", "/v2/q/apps", {"app_name": "a"})
        await server.engine.transact({}, {grant_key(stream_id, "guests", "*", "getRecords"): b"p/s"})
        body = {"app_name": "a", "stream_name": "", "stream_id": stream_id, "partition_id": "0", "sequence_number": 4}
        query = {"app_name": "a", "stream_id": stream_id, "partition_id": "0"}
        path = {"app_name": "a", "stream_name": stream_id}

        async def outcome(operation: str, caller: Caller, *, listed: bool = False) -> Any:
            call = Call("q", path, {"stream_name": stream_id} if listed else query, json.dumps(body).encode(), caller)
            try:
                answer = await server.app._handlers[operation](call)
            except ApiError as error:
                return error.code
            return json.loads(answer.body) if answer.body else answer.status

        guest, stranger = Caller("guests", "g"), Caller("strangers", "x")
        operations = ("commit_checkpoint", "get_checkpoint", "consuming_state", "delete_checkpoint")
        assert [await outcome(operation, stranger) for operation in operations] == ["DIS.4301"] * 4
        assert await outcome("list_apps", stranger, listed=True) == "DIS.4301"
        assert await outcome("commit_checkpoint", guest) == 201
        assert await outcome("get_checkpoint", guest) == {"sequence_number": "4", "metadata": ""}
        (state,) = (await outcome("consuming_state", guest))["partition_consuming_states"]
        assert (state["sequence_number"], state["latest_offset"]) == ("4", 10)
        (app,) = (await outcome("list_apps", guest, listed=True))["apps"]
        assert app["commit_checkpoint_stream_names"] == [stream_id]
        assert await server.stored() == NOTHING
        assert await outcome("delete_checkpoint", guest) == 204
        await outcome("commit_checkpoint", guest)
        await forget_stream(server.engine, stream_id)
        assert await outcome("get_checkpoint", guest) == NOTHING


async def test_checkpoints_are_durable(tmp_path: Path) -> None:
    """What was answered with 201 is there after a restart on the same directory."""
    async with reading(EmbeddedEngine(tmp_path)) as server:
        await server.make("s")
        assert await server.commit(7, metadata="é") == ""
        keys = await server.engine.keys()
    async with reading(EmbeddedEngine(tmp_path)) as server:
        assert await server.stored() == {"sequence_number": "7", "metadata": "é"}
        assert await server.engine.keys() == keys
        assert await server.commit(8) == ""
