"""Apps are created, listed, described and deleted as the API words it, and leave nothing behind."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import msgspec
import pytest
from app_server import NOTHING, ReaderCaller, reading
from fake_groups import FakeGroups

from disstream.engine import PartitionRef
from disstream.server.directory import Directory
from disstream.server.documents import StreamDoc, dropping_key, group_key, id_key, stream_key
from disstream.server.progress import forget_stream


@pytest.fixture(autouse=True)
def group(monkeypatch: pytest.MonkeyPatch) -> FakeGroups:
    return FakeGroups(monkeypatch)


async def test_an_app_lives() -> None:
    """201, 200 and 204 with the documented bodies, and gone afterwards."""
    async with reading() as server:
        await server.make()
        told = await server.told("/apps/a/")
        assert told.keys() == {"app_name", "app_id", "create_time", "commit_checkpoint_stream_names"}
        assert (told["app_name"], told["commit_checkpoint_stream_names"]) == ("a", [])
        assert re.fullmatch("[A-Za-z0-9]{19}", told["app_id"])
        assert told["create_time"] > 1_600_000_000_000
        assert await server.delete_app() == ""
        assert await server.told("/apps/a") == "DIS.4332"
        assert await server.delete_app() == "DIS.4332"


@pytest.mark.parametrize("name", ["x", "A-b_9", "x" * 200])
async def test_names(name: str) -> None:
    """1 to 200 letters, digits, - and _; a name is found as it is."""
    async with reading() as server:
        await server.make(apps=(name,))
        assert (await server.told(f"/apps/{name}"))["app_name"] == name


@pytest.mark.parametrize("name", ["", "x" * 201, "a b", "a/b", "é", "a\n", "a.b", "x" * 100_000])
async def test_names_that_cannot_be(name: str) -> None:
    """DIS.4200 and no app."""
    async with reading() as server:
        answer = await server.call("POST", "/v2/p/apps", {"app_name": name})
        assert (answer.status, answer.code) == (400, "DIS.4200")
        assert len(answer.body) < 1000
        assert (await server.told("/apps"))["total_number"] == 0


async def test_a_name_is_taken_once() -> None:
    """Of creations at the same moment one succeeds; the others, and later ones, get DIS.4330."""
    async with reading() as server:
        body = {"app_name": "a"}

        async def meanwhile() -> None:
            assert (await server.call("POST", "/v2/p/apps", body)).status == 201

        server.engine.meanwhile = meanwhile  # between the look and the deed of the first
        answers = await asyncio.gather(*[server.call("POST", "/v2/p/apps", body) for _ in range(5)])
        assert [answer.code for answer in answers] == ["DIS.4330"] * 5
        assert (await server.told("/apps"))["total_number"] == 1


async def test_apps_are_listed() -> None:
    """By name, in pages of `limit` behind `start_app_name`, with the number of all."""
    names = sorted(f"app-{n}" for n in range(12))
    async with reading() as server:
        await server.make(apps=(*reversed(names),))
        first = await server.told("/apps")
        assert [app["app_name"] for app in first["apps"]] == names[:10]
        assert (first["total_number"], first["has_more_app"]) == (12, True)
        rest = await server.told(f"/apps?start_app_name={names[9]}&limit=100")
        assert [app["app_name"] for app in rest["apps"]] == names[10:]
        assert (rest["total_number"], rest["has_more_app"]) == (12, False)
        assert (await server.told("/apps?start_app_name=zzz"))["apps"] == []
        for limit in ("0", "101", "x", "-1"):
            assert await server.told(f"/apps?limit={limit}") == "DIS.4200"
        other = await server.call("GET", "/v2/q/apps")
        assert other.told == {"total_number": 0, "apps": [], "has_more_app": False}


async def test_more_than_the_catalog_tells_at_once() -> None:
    """2,100 apps are counted, found and paged through; all checkpoints of one go with it."""
    async with reading() as server:
        await server.make("s", apps=tuple(f"a{n:04}" for n in range(2_100)), records=0)
        told = await server.told("/apps?start_app_name=a2098")
        assert (told["total_number"], [app["app_name"] for app in told["apps"]]) == (2_100, ["a2099"])
        for n in range(1_100):
            assert await server.commit(0, app_name=f"a{n:04}") == ""
        assert (await server.told("/apps?stream_name=s"))["total_number"] == 1_100
        await forget_stream(server.engine, (await server.describe("s"))["stream_id"])
        assert {key.split("/")[0] for key in await server.engine.keys()} == {"app"}


async def test_the_streams_of_apps() -> None:
    """The list of an app and the filter of the listing both tell on which streams there is a checkpoint now."""
    async with reading() as server:
        await server.make("s", "t", apps=("a", "b", "c"))

        async def seen() -> dict[str, Any]:
            listed = (await server.told("/apps"))["apps"]
            for app in listed:
                assert app == await server.told(f"/apps/{app['app_name']}")
            streams = {app["app_name"]: app["commit_checkpoint_stream_names"] for app in listed}
            for stream in ("s", "t"):
                filtered = await server.told(f"/apps?stream_name={stream}")
                assert [app["app_name"] for app in filtered["apps"]] == [a for a in streams if stream in streams[a]]
                assert filtered["total_number"] == len(filtered["apps"])
            return streams

        for app, stream in (("a", "t"), ("a", "s"), ("b", "s")):
            await server.commit(1, app_name=app, stream_name=stream)
        assert await seen() == {"a": ["s", "t"], "b": ["s"], "c": []}
        assert (await server.told("/apps?stream_name=s&limit=1"))["has_more_app"] is True
        await server.forget("app_name=a&stream_name=s")
        assert await seen() == {"a": ["t"], "b": ["s"], "c": []}
        await server.delete_app("b")
        await server.make(apps=("b",))
        assert await seen() == {"a": ["t"], "b": [], "c": []}
        assert await server.told("/apps?stream_name=nope") == "DIS.4301"


async def test_streams_without_a_name_here() -> None:
    """A stream of another account is told by its id; one that is being dropped is not told."""
    async with reading() as server:
        await server.make("s")
        await server.commit(1)
        stream_id = (await server.describe("s"))["stream_id"]
        name, by_id = stream_key("p", "s"), id_key("p", stream_id)
        assert name is not None
        assert by_id is not None
        await server.engine.transact({}, {}, [name, by_id])
        assert (await server.told("/apps/a"))["commit_checkpoint_stream_names"] == [stream_id]
        await server.engine.transact({}, {dropping_key(stream_id): b""})
        assert (await server.told("/apps/a"))["commit_checkpoint_stream_names"] == []


async def test_nothing_is_left_of_an_app(group: FakeGroups) -> None:
    """Its checkpoints on all streams and its group go with it; those of others stay."""
    async with reading() as server:
        await server.make("s", "t", apps=("a", "b"), partitions=2)
        await server.commit(0, app_name="b")
        await server.engine.transact({}, {group_key("p", "b"): b"1"})
        before = await server.engine.keys()
        await server.make(apps=("a2",))
        for stream in ("s", "t"):
            for number in ("0", "1"):
                await server.commit(0, app_name="a2", stream_name=stream, partition_id=number)
        await server.engine.transact({}, {group_key("p", "a2"): b"1"})
        assert await server.delete_app("a2") == ""
        assert await server.engine.keys() == before


async def test_an_app_in_use_stays(group: FakeGroups) -> None:
    """DIS.4331 while a live member reads, nothing is lost; a member that joins at the last moment counts."""
    async with reading() as server:
        await server.make("s")
        await server.commit(5)
        group.reading = True
        assert await server.delete_app() == "DIS.4331"
        assert (await server.stored())["sequence_number"] == "5"

        async def join() -> None:
            await server.engine.transact({}, {group_key("p", "a"): b"1"})
            group.reading = True

        group.reading, group.before_answer = False, join
        assert await server.delete_app() == "DIS.4331"
        assert (await server.stored())["sequence_number"] == "5"
        group.reading = False
        assert await server.delete_app() == ""


@pytest.mark.parametrize("stream", ["s", "t"], ids=["read before", "new"])
async def test_an_app_made_anew_starts_clean(stream: str) -> None:
    """Also if a commit landed while the old one was being deleted: no call shows or touches anything of it."""
    async with reading() as server:
        await server.make("s", "t", partitions=2)
        await server.commit(5)
        server.engine.meanwhile = lambda: server.commit(0, stream_name=stream, metadata="old")
        assert await server.delete_app() == ""
        await server.make(apps=("a",))
        assert (await server.told("/apps/a"))["commit_checkpoint_stream_names"] == []
        for name in ("s", "t"):
            assert (await server.told(f"/apps?stream_name={name}"))["apps"] == []
            assert await server.stored(f"app_name=a&stream_name={name}&partition_id=0") == NOTHING
            assert await server.forget(f"app_name=a&stream_name={name}&partition_id=0") == "DIS.4375"
            assert await server.forget(f"app_name=a&stream_name={name}") == "DIS.4375"
            states = (await server.told(f"/apps/a/streams/{name}"))["partition_consuming_states"]
            assert [state["sequence_number"] for state in states] == ["-1", "-1"]
        # A checkpoint of its own is not hidden behind one of the other.
        assert await server.commit(0, stream_name=stream, partition_id="1") == ""
        assert (await server.told("/apps/a"))["commit_checkpoint_stream_names"] == [stream]
        assert await server.delete_app() == ""
        assert await server.engine.keys() == []


@pytest.mark.parametrize("stream", ["s", "t"], ids=["read before", "new"])
async def test_what_a_late_commit_leaves(stream: str) -> None:
    """Where a commit landed while its app was being deleted, nothing stays longer than the stream."""
    async with reading() as server:
        await server.make("s", "t", partitions=2)
        await server.commit(5)
        server.engine.meanwhile = lambda: server.commit(0, stream_name=stream, partition_id="1")
        assert await server.delete_app() == ""
        left = [key for key in await server.engine.keys() if key.startswith("checkpoint/")]
        assert len(left) == (stream == "t")
        await forget_stream(server.engine, (await server.describe(stream))["stream_id"])
        assert await server.engine.keys() == []


async def states(server: ReaderCaller, query: str = "") -> Any:
    told = await server.told(f"/apps/a/streams/s?checkpoint_type=LAST_READ{query}")
    if isinstance(told, str):
        return told
    assert (told["app_name"], told["stream_name"]) == ("a", "s")
    return told["partition_consuming_states"], told["has_more"]


async def test_the_state_of_an_app() -> None:
    """Every partition with its checkpoint, or -1, and what can be read: the oldest, and the next to be written."""
    async with reading() as server:
        await server.make("s", partitions=2)
        await server.engine.log.trim(PartitionRef((await server.describe("s"))["stream_id"], 0), 4)
        await server.commit(7, metadata="m")
        common = {"checkpoint_type": "LAST_READ", "status": "ACTIVE"}
        first = {
            "partition_id": "0",
            "sequence_number": "7",
            "metadata": "m",
            "earliest_offset": 4,
            "latest_offset": 10,
        }
        second = {
            "partition_id": "1",
            "sequence_number": "-1",
            "metadata": "",
            "earliest_offset": 0,
            "latest_offset": 0,
        }
        (told, other), more = await states(server)
        assert time.time() * 1000 - told.pop("commit_time") < 60_000  # ours, and so is the member, which is no one here
        assert ([told, other], more) == ([first | common, second | common], False)
        bare = (await server.told("/apps/a/streams/s/"))["partition_consuming_states"]
        assert [state["sequence_number"] for state in bare] == ["7", "-1"]


async def test_the_state_in_pages() -> None:
    """`limit` partitions behind `start_partition_id`, in either spelling; each with its own checkpoint."""
    async with reading() as server:
        await server.make("s", partitions=12, records=0)
        for number in range(0, 12, 2):
            await server.commit(0, partition_id=str(number), metadata=str(number))

        async def page(query: str) -> tuple[list[tuple[str, str]], bool]:
            found, more = await states(server, query)
            return [(state["partition_id"], state["metadata"]) for state in found], more

        everything = [(str(n), str(n) if n % 2 == 0 else "") for n in range(12)]
        assert await page("") == (everything, False)
        assert await page("&limit=5") == (everything[:5], True)
        assert await page("&limit=5&start_partition_id=4") == (everything[5:10], True)
        assert await page("&limit=5&start_partition_id=shardId-0000000009") == (everything[10:], False)
        assert await page("&start_partition_id=99") == ([], False)


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/apps/nope/streams/s", "DIS.4332"),
        ("/apps/a/streams/nope", "DIS.4301"),
        ("/apps/nope/streams/nope", "DIS.4332"),
        ("/apps/a/streams/s?limit=0", "DIS.4200"),
        ("/apps/a/streams/s?limit=1001", "DIS.4200"),
        ("/apps/a/streams/s?start_partition_id=x", "DIS.4201"),
        ("/apps/a/streams/s?checkpoint_type=NEXT_READ", "DIS.4200"),
        ("/apps/a%2Fb", "DIS.4332"),
        ("/apps/%C3%A9", "DIS.4332"),
    ],
)
async def test_what_is_refused(target: str, code: str) -> None:
    """Each with the code of what is wrong."""
    async with reading() as server:
        await server.make("s")
        assert await server.told(target) == code


async def test_partitions_that_are_not_written_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are in the state with their checkpoint, also when the log holds nothing of them."""
    async with reading() as server:
        await server.make("s", partitions=3)
        await server.commit(7)
        await server.commit(0, partition_id="1")
        find = Directory.find

        async def scaled(self: Directory, *args: Any, **more: Any) -> Any:
            stream = await find(self, *args, **more)
            old, gone, alive = stream.doc.partitions
            partitions = (
                msgspec.structs.replace(old, status="DELETED"),
                msgspec.structs.replace(gone, number=99, status="EXPIRED"),
                alive,
            )
            changed = object.__new__(type(stream))
            changed.key, changed.version, changed.layout = stream.key, stream.version, stream.layout
            changed.doc = msgspec.structs.replace(stream.doc, partitions=(partitions[0], alive, partitions[1]))
            assert isinstance(changed.doc, StreamDoc)
            return changed

        monkeypatch.setattr(Directory, "find", scaled)
        found, _ = await states(server)
        shown = ("partition_id", "status", "sequence_number", "earliest_offset", "latest_offset")
        assert [tuple(state[key] for key in shown) for state in found] == [
            ("0", "DELETED", "7", 0, 10),
            ("2", "ACTIVE", "-1", 0, 0),
            ("99", "EXPIRED", "-1", 0, 0),
        ]
