"""The group calls on a server: bodies as official clients send and read them, under virtual time, without sockets."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest
from server_http import Answer, AppCaller

from disstream.engine.memory import MemoryEngine
from disstream.errors import CatalogConflict, StaleGeneration, StorageError
from disstream.server import groups as groups_module
from disstream.server.app import App
from disstream.server.call import Call, Caller
from disstream.server.config import ServerConfig
from disstream.server.documents import app_key, checkpoint_key, grant_key, group_key
from disstream.server.groups import Groups
from disstream.testing.clock import run_simulated

CONFIG = ServerConfig(data_dir=None, session_timeout_s=30, join_delay_s=3)


class Site(AppCaller):
    """An app "a" of project "p" in a server, and the group calls in short."""

    def __init__(self, engine: MemoryEngine, config: ServerConfig = CONFIG) -> None:
        self.engine = engine
        self.config = config
        super().__init__(App(engine, config))

    @property
    def groups(self) -> Groups:
        handler = self.app._handlers["group_join"]
        assert isinstance(handler.__self__, Groups)
        return handler.__self__

    def restart(self) -> None:
        self.app = App(self.engine, self.config)

    async def create_app(self, app: str = "a", project: str = "p") -> None:
        assert (await self.call("POST", f"/v2/{project}/apps", {"app_name": app})).status == 201

    async def post(self, path: str, body: Any) -> Any:
        answer = await self.call("POST", path, body)
        assert answer.code == "", answer
        return answer.told

    async def join(self, member: str = "m1", *streams: str, app: str = "a", project: str = "p", **more: Any) -> Any:
        body = {"groupId": app, "clientId": member, "interestedStream": list(streams), **more}
        return await self.post(f"/v2/{project}/apps/{app}/consumers/", body)

    async def sync(self, member: str = "m1", generation: int = -1, *, app: str = "a", project: str = "p") -> Any:
        body = {"groupId": app, "clientId": member, "generation": generation}
        return await self.post(f"/v2/{project}/apps/{app}/consumers/{member}/partitions/", body)

    async def beat(self, member: str = "m1", generation: int = -1, *, app: str = "a", project: str = "p") -> str:
        body = {"groupId": app, "clientId": member, "generation": generation}
        told = await self.post(f"/v2/{project}/apps/{app}/consumers/{member}/heartbeats/", body)
        assert list(told) == ["state"]
        return str(told["state"])

    async def leave(self, member: str, *, app: str = "a") -> Answer:
        return await self.call("DELETE", f"/v2/p/apps/{app}/consumers/{member}/")

    async def members(self, app: str = "a") -> Any:
        answer = await self.call("GET", f"/v2/p/apps/{app}/consumers")
        assert answer.code == "", answer
        return answer.told

    async def stable(self, *members: str, streams: tuple[str, ...] = ("s",)) -> dict[str, Any]:
        """Let these form a stable group. Returns their sync answers."""
        for member in members:
            assert (await self.join(member, *streams))["state"] == "OK"
        await anyio.sleep(self.config.join_delay_s)
        found = {member: await self.sync(member) for member in members}
        assert {answer["state"] for answer in found.values()} == {"OK"}
        return found

    async def version(self) -> int:
        stored = await self.engine.catalog.get(group_key("p", "a"))
        return stored.version if stored else 0


@asynccontextmanager
async def site(config: ServerConfig = CONFIG, partitions: int = 4) -> AsyncIterator[Site]:
    engine = MemoryEngine()
    await engine.start()
    found = Site(engine, config)
    await found.create("s", partitions)
    await found.create_app()
    yield found
    await engine.close()


def simulated(test: Callable[[Site], Awaitable[None]]) -> Callable[[], None]:
    """Run the test on a site of its own, under virtual time."""

    def run() -> None:
        async def main() -> None:
            async with site() as found:
                await test(found)

        run_simulated(main)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@simulated
async def test_the_way_of_an_official_client(site: Site) -> None:
    """Heartbeat, join, wait, sync until OK, heartbeat STABLE: every state and key as the Kafka adapter expects them."""
    assert await site.beat() == "JOINING"
    told = await site.post(
        "/v2/p/apps/a/consumers/",
        {
            "groupId": "a",
            "clientId": "m1",
            "interestedStream": ["s"],
            "interestedStreamIdList": [],
            "streamPattern": None,
            "accelerateAssignEnabled": False,
            "rebalanceTimeoutMs": 20000,
        },
    )
    assert told == {"state": "OK", "syncDelayedTimeMs": 3000, "sessionTimeoutMs": 30000}
    assert await site.sync() == {"state": "WAITING"}
    assert await site.beat() == "SYNCING"
    await anyio.sleep(told["syncDelayedTimeMs"] / 1000)
    share = {"state": "OK", "generation": 0, "assignment": {"s": [0, 1, 2, 3]}}
    assert await site.sync() == share
    assert await site.beat(generation=0) == "STABLE"
    assert await site.sync(generation=0) == share
    assert await site.beat(generation=-1) == "JOINING"


@simulated
async def test_two_members_share_and_one_takes_over(site: Site) -> None:
    """A second member gets half; when one dies the other has everything after the session time-out."""
    shares = await site.stable("m1", "m2")
    assert {m: told["assignment"] for m, told in shares.items()} == {"m1": {"s": [0, 2]}, "m2": {"s": [1, 3]}}
    assert [await site.beat(m, 0) for m in ("m1", "m2")] == ["STABLE", "STABLE"]
    for _ in range(3):
        await anyio.sleep(10)
        assert await site.beat("m1", 0) == "STABLE"
    await anyio.sleep(1)
    assert await site.beat("m1", 0) == "JOINING"
    assert (await site.join("m1", "s"))["syncDelayedTimeMs"] == 0
    assert (await site.sync("m1", 0))["assignment"] == {"s": [0, 1, 2, 3]}
    assert await site.beat("m2", 0) == "JOINING"
    assert await site.sync("m2", 0) == {"state": "ERROR"}


@simulated
async def test_leaving(site: Site) -> None:
    """204 for members, strangers and strangers of no app; the group is asked to join again at once, then is empty."""
    await site.stable("m1", "m2")
    for member, app in (("m2", "a"), ("stranger", "a"), ("m1", "none")):
        answer = await site.leave(member, app=app)
        assert (answer.status, answer.body, answer.code) == (204, b"", "")
    assert await site.beat("m1", 0) == "JOINING"
    assert (await site.leave("m1")).status == 204
    assert await site.members() == {"state": "EMPTY", "generation": 0, "members": []}


@simulated
async def test_no_such_app(site: Site) -> None:
    """Every call says so in its own way, and nothing is kept of apps that are not there."""
    for app in ("none", "n" * 201, "..%2Fx", "%FF"):
        assert await site.join("m", "s", app=app) == {"state": "GROUP_NOT_EXIST", "syncDelayedTimeMs": 0}
        assert await site.sync("m", app=app) == {"state": "GROUP_NOT_EXIST"}
        assert await site.beat("m", app=app) == "GROUP_NOT_EXIST"
        answer = await site.call("GET", f"/v2/p/apps/{app}/consumers")
        assert (answer.status, answer.code) == (400, "DIS.4332")
        assert not await site.groups.in_use("p", app)
        with pytest.raises(StaleGeneration, match=r"DIS\.4702"):
            await site.groups.fence("p", app, "m", 0, "id", 0)
    assert site.groups._live == {}
    assert await site.engine.catalog.scan("group/") == []


@simulated
async def test_deleting_an_app_ends_its_group(site: Site) -> None:
    """Members of an app that is gone are told, and an app created under its name starts with an empty group."""
    await site.stable("m1")
    key = app_key("p", "a")
    assert key is not None
    await site.engine.catalog.transact({}, {}, [key, group_key("p", "a")])
    assert await site.beat("m1", 0) == "GROUP_NOT_EXIST"
    assert site.groups._live == {}
    await site.create_app()
    assert await site.beat("m1", 0) == "JOINING"


@simulated
async def test_subscriptions(site: Site) -> None:
    """Names, ids and patterns, alone and together; what cannot be read is refused in the join answer."""
    await site.create("s-two", 1)
    await site.create("other", 1)
    stream_id = (await site.describe("s-two"))["stream_id"]

    async def told(**wanted: Any) -> Any:
        answer = await site.join("m", **wanted)
        return answer["state"], answer.get("subscription")

    assert await told(interestedStream=["s", "s-two", "s"]) == ("OK", None)
    assert await told(interestedStreamIdList=[stream_id]) == ("OK", None)
    assert await told(streamPattern="s.*", interestedStream=None) == ("OK", ["s", "s-two"])
    assert await told(streamPattern="(s|other)") == ("OK", ["other", "s"])
    assert await told(streamPattern="nothing yet") == ("OK", [])
    for wanted in (
        {},
        {"streamPattern": ""},
        {"interestedStream": ["s", "missing"]},
        {"interestedStream": [""]},
        {"interestedStreamIdList": ["s"]},
        {"interestedStreamIdList": ["x" * 10_000]},
        {"streamPattern": "("},
        {"streamPattern": "(?=s)"},
        {"streamPattern": "s" * 1_001},
        {"streamPattern": "((s{1,900}){1,900}){1,900}"},
        {"streamPattern": "\x00\u1234[", "interestedStream": ["s"]},
    ):
        assert await told(**wanted) == ("ERR_SUBSCRIPTION", None), wanted
    for names in ([f"s{n}" for n in range(1_001)], ["s"] * 1_001):  # counted as sent: sorting millions takes seconds
        answer = await site.call("POST", "/v2/p/apps/a/consumers", {"clientId": "m", "interestedStream": names})
        assert (answer.code, "1001 streams" in answer.told["message"]) == ("DIS.4200", True)
    # A stream under two names is one stream: no partition may be read twice.
    await site.leave("m")
    await site.join("m", "s-two", interestedStreamIdList=[stream_id], accelerateAssignEnabled=True)
    assert (await site.sync("m"))["assignment"] == {"s-two": [0]}


@simulated
async def test_hostile_patterns_take_no_time(site: Site) -> None:
    """Patterns that make backtracking engines run for years are matched in linear time."""
    await site.create("a" * 60 + "b", 1)
    for pattern in ("(a*)*c", "(a|aa)+c", "(.*)(.*)(.*)(.*)(.*)(.*)(.*)c"):
        assert (await site.join("m", streamPattern=pattern))["subscription"] == []
    began = time.process_time()
    for pattern in ("(.*)" * 240 + "c", "(.?){300}c"):
        matches = groups_module._matcher(pattern)
        assert matches is not None
        assert not any(matches(f"{n:05}" + "a" * 59) for n in range(200))
    assert time.process_time() - began < 0.8


@simulated
async def test_others_have_their_turn_while_a_pattern_is_matched(site: Site) -> None:
    """A pattern on a project of many streams does not hold up everybody else until all were looked at."""
    for n in range(100):
        await site.create(f"many-{n}", 1)
    turns = 0
    seen: set[int] = set()

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    def matches(name: str) -> bool:
        seen.add(turns)
        return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups_module, "_matcher", lambda pattern: matches)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(others)
            await site.join("m", streamPattern="x")
            tasks.cancel_scope.cancel()
    assert len(seen) >= 3


@simulated
async def test_bad_members(site: Site) -> None:
    """Ids that cannot stand in a path, or are not the path's, are no members; bodies that are none are refused."""
    for member in ("", "x" * 201, "a/b", "ü", "a\n", ".", ".."):
        assert (await site.join(member, "s"))["state"] == "ERROR"
    assert (await site.join("with blanks & %20", "s"))["state"] == "OK"
    assert await site.post("/v2/p/apps/a/consumers/with%20blanks%20&%20%2520/partitions", {}) == {"state": "WAITING"}
    other = {"clientId": "other", "generation": 0}
    assert await site.post("/v2/p/apps/a/consumers/m/partitions", other) == {"state": "ERROR"}
    assert await site.post("/v2/p/apps/a/consumers/m/heartbeats", other) == {"state": "JOINING"}
    for path in ("", "/m/partitions", "/m/heartbeats"):
        for body, code in (
            (b"{", "DIS.4300"),
            (b'{"clientId": 5}', "DIS.4200"),
            (b'{"clientId": "\\ud800"}', "DIS.4300"),
            (b"[" * 100_000, "DIS.4300"),
        ):
            answer = await site.call("POST", f"/v2/p/apps/a/consumers{path}", body)
            assert (answer.status, answer.code) == (400, code), (path, body[:20])
    for generation in (-(2**70), 2**70):
        answer = await site.call("POST", "/v2/p/apps/a/consumers/m/partitions", {"generation": generation})
        assert answer.told == {"state": "ERROR"}
    assert (await site.call("POST", "/v2/p/apps/a/consumers/m/heartbeats")).told == {"state": "JOINING"}
    for timeout in (-5, 0, 2**62):
        assert (await site.join("t", "s", rebalanceTimeoutMs=timeout))["state"] == "OK"


@simulated
async def test_a_stable_group_is_not_written(site: Site) -> None:
    """Heartbeats, syncs and commits of a stable group leave the catalog alone."""
    await site.stable("m1", "m2")
    before = await site.version()
    stream_id = (await site.describe("s"))["stream_id"]
    for _ in range(10):
        await anyio.sleep(10)
        for member in ("m1", "m2"):
            assert await site.beat(member, 0) == "STABLE"
            assert (await site.sync(member, 0))["state"] == "OK"
        assert await site.groups.fence("p", "a", "m1", 0, stream_id, 0) == {group_key("p", "a"): before}
    assert await site.version() == before


@simulated
async def test_calls_at_once(site: Site) -> None:
    """Fifty members that join, sync and beat in one moment are one group of fifty."""
    await site.create("wide", 100)
    members = [f"m{n:02}" for n in range(50)]
    shares: dict[str, list[int]] = {}

    async def live(member: str) -> None:
        answer = await site.join(member, "wide")
        await anyio.sleep(answer["syncDelayedTimeMs"] / 1000)
        told = await site.sync(member)
        shares[member] = told["assignment"]["wide"]

    async with anyio.create_task_group() as tasks:
        for member in members:
            tasks.start_soon(live, member)
    assert {len(share) for share in shares.values()} == {2}
    assert sorted(n for share in shares.values() for n in share) == list(range(100))
    told = await site.members()
    assert (told["state"], told["generation"]) == ("STABLE", 0)
    assert [m["memberId"] for m in told["members"]] == members
    assert told["members"][0] == {"memberId": "m00", "partitions": {"wide": shares["m00"]}, "silentMs": 0}


@simulated
async def test_projects_do_not_meet(site: Site) -> None:
    """An app and a stream of the same names in another project are another group."""
    await site.create_app(project="q")
    await site.create("s", 2, project="q")
    await site.stable("m1")
    assert await site.beat("m1", 0, project="q") == "JOINING"
    assert (await site.join("m1", "s", project="q", accelerateAssignEnabled=True))["state"] == "OK"
    assert (await site.sync("m1", project="q"))["assignment"] == {"s": [0, 1]}
    assert await site.beat("m1", 0) == "STABLE"
    stream_id = (await site.describe("s", project="q"))["stream_id"]
    with pytest.raises(StaleGeneration, match=r"DIS\.4703"):
        await site.groups.fence("p", "a", "m1", 0, stream_id, 0)


@simulated
async def test_streams_that_change(site: Site) -> None:
    """A stream that is deleted, created again or newly matches a pattern makes a round within 5 s of heartbeats."""
    await site.stable("m1")
    await site.join("m2", streamPattern="s.*")
    await site.join("m1", "s")
    await anyio.sleep(3)
    first = [await site.sync(member) for member in ("m1", "m2")]
    assert [told["generation"] for told in first] == [1, 1]

    async def told_to_join(member: str, generation: int) -> None:
        waited = 0
        while await site.beat(member, generation) == "STABLE":
            await anyio.sleep(1)
            waited += 1
        assert waited <= 5
        assert await site.beat(member, generation) == "JOINING"

    async def again(generation: int) -> list[Any]:
        assert (await site.join("m1", "s"))["state"] == "OK"
        assert (await site.join("m2", streamPattern="s.*"))["state"] == "OK"
        found = [await site.sync(member) for member in ("m1", "m2")]
        assert [told["generation"] for told in found] == [generation] * 2
        return [told["assignment"] for told in found]

    await site.create("s2", 1)
    await told_to_join("m2", 1)
    shares = await again(2)
    assert shares[1]["s2"] == [0]
    assert sorted(shares[0]["s"] + shares[1].get("s", [])) == [0, 1, 2, 3]
    assert (await site.call("DELETE", "/v2/p/streams/s")).status == 204
    await site.create("s", 1)
    await told_to_join("m1", 2)
    assert await again(3) == [{"s": [0]}, {"s2": [0]}]
    assert (await site.call("DELETE", "/v2/p/streams/s")).status == 204
    await told_to_join("m1", 3)
    assert (await site.join("m1", "s"))["state"] == "ERR_SUBSCRIPTION"


@simulated
async def test_the_quota(site: Site) -> None:
    """The thousand-and-first member is refused with DIS.4339, and the others go on."""
    for n in range(1_000):
        assert (await site.join(f"m{n}", "s"))["state"] == "OK"
    answer = await site.call("POST", "/v2/p/apps/a/consumers/", {"clientId": "late", "interestedStream": ["s"]})
    assert (answer.status, answer.code) == (400, "DIS.4339")
    await anyio.sleep(3)
    assert (await site.sync("m0"))["state"] == "OK"


@simulated
async def test_a_restart(site: Site) -> None:
    """A new server on the same storage knows generation and shares, and gives everybody one session to be heard."""
    await site.stable("m1", "m2")
    await anyio.sleep(29)
    site.restart()
    assert await site.beat("m1", 0) == "STABLE"
    await anyio.sleep(29)
    assert await site.beat("m1", 0) == "STABLE"
    assert (await site.sync("m2", 0))["assignment"] == {"s": [1, 3]}
    await anyio.sleep(29)
    assert await site.beat("m1", 0) == "STABLE"
    await anyio.sleep(2)
    assert await site.beat("m1", 0) == "JOINING"
    assert await site.groups.in_use("p", "a")


@simulated
async def test_the_fence(site: Site) -> None:
    """A commit lands as long as nothing about the group changed since it was allowed, and never after."""
    await site.stable("m1", "m2")
    stream_id = (await site.describe("s"))["stream_id"]
    key = checkpoint_key("p", "a", stream_id, 0)
    catalog = site.engine.catalog

    allowed = await site.groups.fence("p", "a", "m1", 0, stream_id, 0)
    await catalog.transact(allowed, {key: b"1"})
    await site.join("m3", "s")
    with pytest.raises(CatalogConflict):
        await catalog.transact(allowed, {key: b"2"})
    await catalog.transact(await site.groups.fence("p", "a", "m1", 0, stream_id, 0), {key: b"3"})
    allowed = await site.groups.fence("p", "a", "m1", 0, stream_id, 0)
    await site.join("m1", "s")
    with pytest.raises(CatalogConflict):
        await catalog.transact(allowed, {key: b"4"})
    with pytest.raises(StaleGeneration, match=r"DIS\.4701"):
        await site.groups.fence("p", "a", "m1", 0, stream_id, 0)
    stored = await catalog.get(key)
    assert stored is not None
    assert stored.value == b"3"


@simulated
async def test_the_fence_stores_what_it_finds(site: Site) -> None:
    """A member that is found silent is dropped in the catalog before its commit is refused."""
    await site.stable("m1", "m2")
    stream_id = (await site.describe("s"))["stream_id"]
    allowed = await site.groups.fence("p", "a", "m1", 0, stream_id, 0)
    await anyio.sleep(20)
    await site.beat("m2", 0)
    await anyio.sleep(11)
    with pytest.raises(StaleGeneration, match=r"DIS\.4702"):
        await site.groups.fence("p", "a", "m1", 0, stream_id, 0)
    with pytest.raises(CatalogConflict):
        await site.engine.catalog.transact(allowed, {})
    site.restart()
    assert [m["memberId"] for m in (await site.members())["members"]] == ["m2"]


@simulated
async def test_memory_of_groups_is_bounded(site: Site) -> None:
    """A group is kept in memory while it has members only, and nothing of what members wanted before."""
    await site.stable("m1")
    assert len(site.groups._live) == 1
    for n in range(20):
        assert (await site.join("m1", streamPattern=f"s{n}"))["state"] == "OK"
    (live,) = site.groups._live.values()
    assert (len(live.looked), len(live.group.doc.seen)) == (1, 1)
    await site.leave("m1")
    await site.beat("m1")
    await site.members()
    assert site.groups._live == {}
    assert await site.version() > 0


@simulated
async def test_a_storage_that_fails(site: Site) -> None:
    """What could not be stored is not told, and has not happened: the call after it finds the group as it was."""
    await site.stable("m1")

    async def fail(*_: Any) -> None:
        raise StorageError("the disk is full")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site.engine.catalog, "transact", fail)
        answer = await site.call("POST", "/v2/p/apps/a/consumers/", {"clientId": "m2", "interestedStream": ["s"]})
        assert (answer.status, answer.code) == (500, "DIS.5000")
        assert await site.beat("m1", 0) == "STABLE"
    assert await site.beat("m1", 0) == "STABLE"
    assert (await site.join("m2", "s"))["syncDelayedTimeMs"] == 3000


@simulated
async def test_streams_of_other_accounts(site: Site) -> None:
    """A stream that another project shares is read by its id, by those who may, for as long as they may."""
    await site.create("shared", 2, project="q")
    stream_id = (await site.describe("shared", project="q"))["stream_id"]
    grant = grant_key(stream_id, "friends", "*", "getRecords")

    async def ask(handler: Any, domain: str, **body: Any) -> Any:
        params = {"app_name": "a", "member_id": "m"}
        call = Call("p", params, {}, msgspec.json.encode({"clientId": "m", **body}), Caller(domain, "u"))
        return msgspec.json.decode((await handler(call)).body)

    wanted = {"interestedStreamIdList": [stream_id], "accelerateAssignEnabled": True}
    assert (await ask(site.groups.join, "friends", **wanted))["state"] == "ERR_SUBSCRIPTION"
    await site.engine.catalog.transact({}, {grant: b"q/shared"})
    assert (await ask(site.groups.join, "strangers", **wanted))["state"] == "ERR_SUBSCRIPTION"
    assert (await ask(site.groups.join, "friends", **wanted))["state"] == "OK"
    assert (await ask(site.groups.sync, "friends"))["assignment"] == {stream_id: [0, 1]}
    await anyio.sleep(5)
    assert await ask(site.groups.heartbeat, "friends", generation=0) == {"state": "STABLE"}
    await site.engine.catalog.transact({}, {}, [grant])
    await anyio.sleep(5)
    assert await ask(site.groups.heartbeat, "friends", generation=0) == {"state": "JOINING"}


@simulated
async def test_two_servers_for_a_moment(site: Site) -> None:
    """Two servers on one storage, as while one replaces the other: no join of either is lost to the other's write."""
    await site.stable("m0")
    other = Site(site.engine)
    transact = site.engine.catalog.transact

    async def slowly(*change: Any) -> None:
        await anyio.sleep(0.1)
        await transact(*change)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site.engine.catalog, "transact", slowly)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(site.join, "m1", "s")
            tasks.start_soon(other.join, "m2", "s")
    for server in (site, other):
        assert [m["memberId"] for m in (await server.members())["members"]] == ["m0", "m1", "m2"]


@simulated
async def test_groups_in_memory_are_bounded(site: Site) -> None:
    """Of more groups than may be in memory the one called least recently is forgotten, and loaded when it is called."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups_module, "MAX_LIVE", 2)
        await site.stable("m1")
        for app in ("b", "c"):
            await site.create_app(app)
            await site.join("m1", "s", app=app)
            assert await site.beat("m1", 0) == "STABLE"
        assert set(site.groups._live) == {group_key("p", "a"), group_key("p", "c")}
        assert await site.beat("m1", app="b") == "SYNCING"
        assert set(site.groups._live) == {group_key("p", "b"), group_key("p", "a")}
        await anyio.sleep(CONFIG.session_timeout_s + 1)
        assert await site.beat("m1", 0) == "JOINING"


@simulated
async def test_documents_are_bounded(site: Site) -> None:
    """A join that would make the stored group too large is refused and changes nothing."""
    await site.stable("m1")
    before = await site.version()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups_module, "MAX_DOCUMENT_BYTES", 400)
        body = {"clientId": "m2", "streamPattern": "s" * 400 + ".*"}
        answer = await site.call("POST", "/v2/p/apps/a/consumers/", body)
        assert (answer.status, answer.code) == (400, "DIS.4339")
    assert await site.version() == before
    assert await site.beat("m1", 0) == "STABLE"
