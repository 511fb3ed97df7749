"""Tags of streams: set, shown, removed, and found by; on the wire and through the client."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from accounts import Signer, application
from server_http import Answer, Caller, serving
from test_client_calls import CUT, DONE, Script, client_on, ok

from disstream import connect
from disstream.client import Client
from disstream.errors import ConfigError, NotFoundError, QuotaError, TransportError
from disstream.model import TaggedStream
from disstream.server.tags import MAX_BODY_BYTES
from disstream.testing.clock import run_simulated

NOBODY = "A" * 19


async def stream_id(caller: Caller, name: str = "s") -> str:
    return str((await caller.describe(name))["stream_id"])


async def tags(caller: Caller, name: str = "s") -> dict[str, str]:
    """As told by the call for it, and by the description of the stream."""
    answer = await caller.call("GET", f"/v2/p/stream/{await stream_id(caller, name)}/tags")
    assert (answer.status, answer.code, set(answer.told)) == (200, "", {"tags"})
    found = {tag["key"]: tag["value"] for tag in answer.told["tags"]}
    assert (await caller.describe(name))["tags"] == answer.told["tags"]
    return found


def wire(**values: str) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


async def change(caller: Caller, action: str, *wanted: dict[str, str], name: str = "s") -> Answer:
    path = f"/v2/p/stream/{await stream_id(caller, name)}/tags/action"
    return await caller.call("POST", path, {"action": action, "tags": wanted})


async def find(caller: Caller, action: str = "filter", **query: Any) -> Answer:
    return await caller.call("POST", "/v2/p/stream/resource_instances/action", {"action": action, **query})


async def names(caller: Caller, **query: Any) -> list[str]:
    answer = await find(caller, **query)
    assert answer.code == "", answer
    assert set(answer.told) == {"resources", "total_count"}
    return [resource["resource_name"] for resource in answer.told["resources"]]


async def test_the_life_of_tags() -> None:
    """One by one and together; what is written changes nothing else of the stream."""
    async with serving() as http:
        await http.create("s", tags=wire(first="1"), sys_tags=wire(_sys_enterprise_project_id="0"))
        before = await http.describe("s")
        path = f"/v2/p/stream/{await stream_id(http)}/tags"
        for key, value in (("key", "value"), ("城市", "北京"), ("key", "new")):
            answer = await http.call("POST", path, {"tag": {"key": key, "value": value}})
            assert (answer.status, answer.body, answer.code) == (204, b"", "")
        assert await tags(http) == {"first": "1", "key": "new", "城市": "北京"}
        for key in ("%E5%9F%8E%E5%B8%82", "key"):
            answer = await http.call("DELETE", f"{path}/{key}")
            assert (answer.status, answer.body) == (204, b"")
            assert (await http.call("DELETE", f"{path}/{key}")).code == "DIS.4604"
        for _ in range(2):
            answer = await change(http, "create", *wire(first="2", second=""))
            assert (answer.status, answer.body) == (204, b"")
            assert await tags(http) == {"first": "2", "second": ""}
        for _ in range(2):
            answer = await change(http, "delete", *wire(second="whatever", none=""), {"key": "not a key! " * 9})
            assert (answer.status, answer.body) == (204, b"")
            assert await tags(http) == {"first": "2"}
        await change(http, "create", *wire(first="1"))
        assert await http.describe("s") == before


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("POST", "stream/{}/tags", {"tag": {"key": "a b"}}, "DIS.4200"),
        ("POST", "stream/{}/tags", {"tag": {"key": "k" * 37}}, "DIS.4200"),
        ("POST", "stream/{}/tags", {"tag": {"key": "k", "value": "*"}}, "DIS.4200"),
        ("POST", "stream/{}/tags", {}, "DIS.4200"),
        ("POST", "stream/{}/tags", b"{", "DIS.4300"),
        ("POST", "stream/{}/tags", {"tag": {"key": "k2"}}, "DIS.4601"),
        ("POST", "stream/{}/tags/action", {"action": "replace", "tags": []}, "DIS.4605"),
        ("POST", "stream/{}/tags/action", {"action": "replace"}, "DIS.4605"),
        ("POST", "stream/{}/tags/action", {"action": "create"}, "DIS.4200"),
        ("POST", "stream/{}/tags/action", {"action": "delete", "tags": None}, "DIS.4200"),
        ("POST", "stream/{}/tags/action", {"tags": []}, "DIS.4200"),
        ("POST", "stream/{}/tags/action", {"action": "delete", "tags": [{"key": ""}]}, "DIS.4200"),
        ("POST", "stream/{}/tags/action", {"action": "create", "tags": wire(a="1") * 2}, "DIS.4200"),
        ("POST", "stream/{}/tags/action", {"action": "create", "tags": wire(k0="x", a="1")}, "DIS.4601"),
        ("DELETE", "stream/{}/tags/none", None, "DIS.4604"),
        ("DELETE", "stream/{}/tags/action", None, "DIS.4604"),
        ("POST", "stream/resource_instances/action", {"action": "find"}, "DIS.4605"),
        ("POST", "stream/resource_instances/action", {}, "DIS.4200"),
        ("POST", "stream/resource_instances/action", {"action": "filter", "limit": "1001"}, "DIS.4200"),
        ("POST", "stream/resource_instances/action", {"action": "count", "matches": "?"}, "DIS.4200"),
        ("POST", "stream/resource_instances/action", {"action": "filter", "tags": wire(a="b")}, ""),
        ("POST", "disk/resource_instances/action", {"action": "filter"}, "DIS.4602"),
        ("POST", "streams/{}/tags", {"tag": {"key": "k"}}, "DIS.4602"),
        ("POST", "disk/{}/tags/action", {"action": "create", "tags": []}, "DIS.4602"),
        ("GET", "disk/{}/tags", None, "DIS.4602"),
        ("GET", "disk/tags", None, "DIS.4602"),
        ("DELETE", "disk/{}/tags/k0", None, "DIS.4602"),
    ],
)
async def test_refusals(method: str, path: str, body: Any, code: str) -> None:
    """What is wrong has its code, and changes nothing."""
    async with serving(max_tags=2) as http:
        await http.create("s", tags=wire(k0="0", k1="1"))
        answer = await http.call(method, "/v2/p/" + path.format(await stream_id(http)), body)
        assert answer.code == code
        assert answer.status == (400 if code else 200)
        assert await tags(http) == {"k0": "0", "k1": "1"}


@pytest.mark.parametrize(("max_tags", "more"), [(2, "DIS.4601"), (3, "")])
async def test_the_limit_is_one(max_tags: int, more: str) -> None:
    """Of tags given with the stream and of those that come later."""
    async with serving(max_tags=max_tags) as http:
        body = {"stream_name": "s", "partition_count": 1, "tags": wire(a="1", b="2", c="3")}
        assert (await http.call("POST", "/v2/p/streams", body)).code == more
        await http.create("t")
        assert (await change(http, "create", *wire(a="1", b="2", c="3"), name="t")).code == more
        assert len(await tags(http, "t")) == (0 if more else 3)


async def test_streams_that_are_not_there() -> None:
    """Unknown, deleted, named instead of identified, or another project's, shared or not: DIS.4603 in every call."""
    async with application() as app:
        alice, bob = Signer(app, "alice"), Signer(app, "bob")
        await alice.create("s", project="a1")
        await alice.create("gone", project="a1")
        shared, gone = [str((await alice.describe(n, project="a1"))["stream_id"]) for n in ("s", "gone")]
        rule = {"principal_name": "other.*", "action_type": "getStreamInfo", "effect": "accept"}
        assert (await alice.call("POST", "/v2/a1/streams/s/policies", rule)).status == 201
        await alice.call("DELETE", "/v2/a1/streams/gone")
        for caller, project, wanted in (
            (alice, "a1", NOBODY),
            (alice, "a1", gone),
            (alice, "a1", "s"),
            (alice, "a1", "x" * 3000),
            (alice, "a2", shared),
            (bob, "b1", shared),
        ):
            path = f"/v2/{project}/stream/{wanted}/tags"
            for method, target, body in (
                ("POST", path, {"tag": {"key": "k"}}),
                ("GET", path, None),
                ("DELETE", f"{path}/k", None),
                ("POST", f"{path}/action", {"action": "create", "tags": wire(k="v")}),
                ("POST", f"{path}/action", {"action": "delete", "tags": wire(k="v")}),
            ):
                answer = await caller.call(method, target, body)
                assert (answer.status, answer.code) == (400, "DIS.4603")
        assert (await bob.call("GET", "/v2/b1/stream/tags")).told == {"tags": []}
        assert (await bob.call("POST", "/v2/b1/stream/resource_instances/action", {"action": "count"})).told == {
            "total_count": 0
        }


async def test_finding() -> None:
    """All of, any of, not all of, none of; by name; together; in pages; counted. Other projects do not count."""
    made = {"other": {}, "s1": {"env": "prod", "team": "x"}, "s2": {"env": "test", "team": "x"}, "s3": {"env": "prod"}}
    async with serving() as http:
        for name, values in made.items():
            await http.create(name, tags=wire(**values), sys_tags=wire(_sys_enterprise_project_id="0"))
        await http.create("s4", project="q", tags=wire(env="prod"))
        prod, team = {"key": "env", "values": ["prod"]}, {"key": "team", "values": []}
        everything = [*made]
        for query, wanted in (
            ({}, everything),
            ({"tags": [], "tags_any": [], "not_tags": [], "not_tags_any": [], "matches": []}, everything),
            ({"tags": [prod]}, ["s1", "s3"]),
            ({"tags": [prod, team]}, ["s1"]),
            ({"tags": [{"key": "env", "values": ["*s", "x"]}]}, ["s2"]),
            ({"tags": [{"key": "_sys_enterprise_project_id"}]}, []),
            ({"tags_any": [prod, team]}, ["s1", "s2", "s3"]),
            ({"not_tags": [prod, team]}, ["other", "s2", "s3"]),
            ({"not_tags_any": [prod, team]}, ["other"]),
            ({"tags": [prod], "not_tags_any": [team]}, ["s3"]),
            ({"matches": [{"key": "resource_name", "value": "S"}]}, ["s1", "s2", "s3"]),
            ({"matches": "[{key=resource_name, value=2}]", "tags_any": [team]}, ["s2"]),
            ({"matches": '[{"key": "resource_name", "value": "oth"}]'}, ["other"]),
            ({"limit": "2"}, ["other", "s1"]),
            ({"limit": 2, "offset": 1}, ["s1", "s2"]),
            ({"limit": "2", "offset": "3"}, ["s3"]),
            ({"offset": "999999"}, []),
        ):
            fields: dict[str, Any] = dict(query)
            assert await names(http, **fields) == wanted, query
            total = len(everything) if {"limit", "offset"} & set(query) else len(wanted)
            assert (await find(http, **fields)).told["total_count"] == total
            assert (await find(http, "count", **fields)).told == {"total_count": total}
        assert (await find(http, "count", limit="nonsense", offset="-1")).told == {"total_count": 4}
        (found,) = (await find(http, tags=[prod, team])).told["resources"]
        assert found == {
            "resource_detail": None,
            "resource_id": await stream_id(http, "s1"),
            "resource_name": "s1",
            "tags": wire(env="prod", team="x"),
        }
        told = (await http.call("GET", "/v2/p/stream/tags")).told
        assert told == {"tags": [{"key": "env", "values": ["prod", "test"]}, {"key": "team", "values": ["x"]}]}


async def test_large_bodies() -> None:
    """The largest sensible question is answered; a body that would hold up others while it is read is refused."""
    values = ["字" * 43] * 9 + ["*" + "字" * 42]
    conditions = [{"key": "键" * 35 + str(n), "values": [f"{n}{value[1:]}" for value in values]} for n in range(10)]
    lists: dict[str, Any] = {"tags": conditions}
    for name in ("tags_any", "not_tags", "not_tags_any"):
        lists[name] = [{**c, "values": [f"{i}{v}"[:43] for i, v in enumerate(c["values"])]} for c in conditions]
    async with serving() as http:
        await http.create("s", tags=wire(k="v"))
        assert (await find(http, matches=[{"key": "resource_name", "value": "字" * 64}] * 10, **lists)).code == ""
        tags_of_it = f"/v2/p/stream/{await stream_id(http)}/tags"
        for path, body in (
            (tags_of_it, {"tag": {"key": "k", "value": "x" * MAX_BODY_BYTES}}),
            (f"{tags_of_it}/action", {"action": "delete", "tags": [{"key": "k"}] * (MAX_BODY_BYTES // 10)}),
            ("/v2/p/stream/resource_instances/action", {"action": "count", "tags": [{"key": "x" * MAX_BODY_BYTES}]}),
        ):
            answer = await http.call("POST", path, body)
            assert (answer.status, answer.code) == (413, "DIS.4200")
        assert await tags(http) == {"k": "v"}


async def test_changes_at_the_same_time() -> None:
    """None of them is lost."""
    async with serving() as http:
        await http.create("s")
        async with anyio.create_task_group() as tasks:
            for n in range(20):
                tasks.start_soon(change, http, "create", *wire(**{f"k{n}": str(n)}))
        assert await tags(http) == {f"k{n}": str(n) for n in range(20)}


# --- the client -------------------------------------------------------------------------------------------------------


async def test_the_client() -> None:
    """Every method against a server, with the stream's id given or asked for."""
    async with serving(max_tags=3) as http, connect(http.server.url, project_id="p") as dis:
        await http.create("s")
        await http.create("t", tags=wire(team="x"))
        known = await stream_id(http)
        await dis.tags.add("s", "team", "x")
        await dis.tags.add("", "empty", stream_id=known)
        await dis.tags.add_many("s", {"team": "y", "城市": "北京"})
        assert await dis.tags.of("s") == await dis.tags.of("", stream_id=known)
        assert await dis.tags.of("s") == {"team": "y", "empty": "", "城市": "北京"}
        assert await dis.tags.all() == {"empty": [""], "team": ["x", "y"], "城市": ["北京"]}
        with pytest.raises(QuotaError, match=r"DIS\.4601"):
            await dis.tags.add("s", "fourth", "v")
        await dis.tags.remove("s", "城市")
        with pytest.raises(NotFoundError, match=r"DIS\.4604"):
            await dis.tags.remove("s", "城市")
        await dis.tags.remove_many("s", ["empty", "never"])
        found = TaggedStream(name="s", stream_id=known, tags={"team": "y"})
        assert [stream async for stream in dis.tags.find(tags={"team": ["y"]}, name="S")] == [found]
        assert [stream.name async for stream in dis.tags.find(page_size=1)] == ["s", "t"]
        for wanted, count in (
            ({"tags_any": {"team": []}}, 2),
            ({"not_tags": {"team": ["y"]}}, 1),
            ({"not_tags_any": {"team": []}}, 0),
            ({"name": "t"}, 1),
            ({}, 2),
        ):
            fields: dict[str, Any] = dict(wanted)
            assert await dis.tags.count(**fields) == count
            assert len([stream async for stream in dis.tags.find(**fields)]) == count
        with pytest.raises(NotFoundError, match=r"DIS\.4603"):
            await dis.tags.of("", stream_id=NOBODY)
        with pytest.raises(NotFoundError, match=r"DIS\.4301"):
            await dis.tags.of("none")


async def test_what_is_not_sent() -> None:
    """Mistakes are named before anything is asked."""
    script = Script()

    async with client_on(script) as client:
        for call in (
            client.tags.add("", "\ud800", stream_id="i"),
            client.tags.remove("", "", stream_id="i"),
            client.tags.remove_many("", "letters", stream_id="i"),
            client.tags.of("", stream_id=""),
            client.tags.count(tags={"k": "letters"}),
            anext(client.tags.find(page_size=1001)),
        ):
            with pytest.raises(ConfigError):
                await call
    assert script.asked == []


def test_pages_that_come_and_do_not() -> None:
    """A service that tells no total is asked until a page is empty; one without a count is told so."""
    one = {"resources": [{"resource_id": "i", "resource_name": "n"}]}

    async def find_all(client: Client) -> list[str]:
        return [stream.name async for stream in client.tags.find()]

    async def main() -> None:
        script = Script(ok(one), ok(one), ok({"resources": []}), ok({**one, "total_count": "1"}), ok({}))
        async with client_on(script) as client:
            assert await find_all(client) == ["n", "n"]
            assert await find_all(client) == ["n"]
            assert [b'"offset":"2"' in request.body for request in script.asked[:3]] == [False, False, True]
            with pytest.raises(TransportError, match="how many"):
                await client.tags.count()

    run_simulated(main)


def test_what_is_repeated() -> None:
    """Setting, removing and finding do the same twice: after a lost answer they are sent again."""

    async def main() -> None:
        gone = Script(CUT, DONE, CUT, DONE, CUT, DONE, CUT, ok({"total_count": 1}))
        async with client_on(gone) as client:
            await client.tags.add("", "k", "v", stream_id="i")
            await client.tags.add_many("", {"k": "v"}, stream_id="i")
            await client.tags.remove("", "k", stream_id="i")
            assert await client.tags.count() == 1
        assert len(gone.asked) == 8

    run_simulated(main)
