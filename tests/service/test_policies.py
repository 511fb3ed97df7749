"""Stream policies: what another account may do with a stream, by its id, and nothing beyond."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import pytest
from accounts import Signer, application
from server_http import Answer, data, serving

from disstream import connect
from disstream.engine.memory import MemoryEngine
from disstream.errors import ConfigError, NotFoundError
from disstream.model import PolicyRule
from disstream.server import App, ServerConfig
from disstream.server.policies import MAX_PRINCIPALS, MAX_RULES
from disstream.wire.cursors import decode_cursor
from disstream.wire.errors import api_error
from disstream.wire.policies import decode_rules

ACTIONS = ("putRecords", "getRecords", "getStreamInfo")


async def allow(owner: Signer, stream: str, principal: str, action: str, **fields: Any) -> Answer:
    body = {"stream_id": "", "principal_name": principal, "action_type": action, "effect": "accept", **fields}
    return await owner.call("POST", f"/v2/a1/streams/{stream}/policies", body)


async def shared(app: App, *grants: tuple[str, str]) -> str:
    """A stream "s" of alice with one record and these (principal, action) allowed; its id."""
    alice = Signer(app, "alice")
    await alice.create("s", project="a1")
    assert (await alice.put("s", {"data": data(b"first")}, project="a1")).code == ""
    for principal, action in grants:
        answer = await allow(alice, "s", principal, action)
        assert (answer.status, answer.body, answer.code) == (201, b"", "")
    return str((await alice.describe("s", project="a1"))["stream_id"])


async def put(caller: Signer, stream_id: str, name: str = "") -> Answer:
    body = {"stream_name": name, "stream_id": stream_id, "records": [{"data": data(b"more")}]}
    return await caller.call("POST", "/v2/b1/records", body)


async def cursor(caller: Signer, stream_id: str, name: str = "x") -> Answer:
    query = f"stream-name={name}&stream-id={stream_id}&partition-id=0&cursor-type=TRIM_HORIZON"
    return await caller.call("GET", f"/v2/b1/cursors?{query}")


async def info(caller: Signer, stream_id: str) -> Answer:
    return await caller.call("GET", f"/v2/b1/streams/{stream_id}")


async def codes(caller: Signer, stream_id: str) -> dict[str, str]:
    """What each action answers."""
    calls = zip(ACTIONS, (put, cursor, info), strict=True)
    return {action: (await call(caller, stream_id)).code for action, call in calls}


@pytest.mark.parametrize("principal", ["other.bob", "other.*", "other", " other.bob , acme.x", "x,other.*,"])
@pytest.mark.parametrize("action", ACTIONS)
async def test_a_policy_allows_one_action(principal: str, action: str) -> None:
    """To the user or all of the account; other actions are 403 DIS.4116 then, and to all others nothing is there."""
    async with application() as app:
        stream_id = await shared(app, (principal, action))
        bob, carol = Signer(app, "bob"), Signer(app, "carol")
        wanted = {other: "" if other == action else "DIS.4116" for other in ACTIONS}
        assert await codes(bob, stream_id) == wanted
        everybody = "other.bob" not in principal
        assert await codes(carol, stream_id) == (wanted if everybody else dict.fromkeys(ACTIONS, "DIS.4301"))
        nobody = await put(bob, "8QM3Nt9YTLOwtUVYJhO")
        assert nobody.code == "DIS.4301"
        if not everybody:
            told = (await put(carol, stream_id)).told["message"]
            assert told == nobody.told["message"].replace("8QM3Nt9YTLOwtUVYJhO", stream_id)


async def test_a_refusal_names_the_action() -> None:
    """403, with what the policies would have to allow."""
    async with application() as app:
        stream_id = await shared(app, ("other.bob", "getStreamInfo"))
        answer = await put(Signer(app, "bob"), stream_id)
        assert answer.status == 403
        assert "putRecords" in answer.told["message"]


async def test_a_shared_stream_is_used_by_its_id() -> None:
    """Upload, description, cursor, download and checkpoints, as clients of another account send them."""
    async with application() as app:
        stream_id = await shared(app, *((("other.bob"), action) for action in ACTIONS))
        bob = Signer(app, "bob")
        await bob.create("mine", project="b1")
        assert (await put(bob, stream_id, "s")).code == ""
        for path in (stream_id, f"s?stream_id={stream_id}", f"{stream_id}?stream_id={stream_id}"):
            assert (await bob.describe(path, project="b1"))["stream_name"] == "s"
        token = (await cursor(bob, stream_id)).told["partition_cursor"]
        page = (await bob.get(token, project="b1")).told
        assert [b64decode(r["data"]) for r in page["records"]] == [b"first", b"more"]
        assert (await bob.get(page["next_partition_cursor"], project="b1")).told["records"] == []
        assert (await bob.call("POST", "/v2/b1/apps", {"app_name": "app"})).status == 201
        body = {"app_name": "app", "stream_name": "s", "stream_id": stream_id, "partition_id": "0"}
        commit = {**body, "sequence_number": "1", "checkpoint_type": "LAST_READ"}
        assert (await bob.call("POST", "/v2/b1/checkpoints", commit)).status == 201
        assert (await Signer(app, "carol").call("POST", "/v2/b1/checkpoints", commit)).code == "DIS.4301"
        # Not by name: a name is one's own.
        assert (await bob.put("s", {"data": ""}, project="b1")).code == "DIS.4301"
        assert (await bob.call("GET", "/v2/b1/streams")).told["stream_names"] == ["mine"]
        for method, target in (("DELETE", f"streams/{stream_id}"), ("GET", f"streams/{stream_id}/policies")):
            assert (await bob.call(method, f"/v2/b1/{target}")).code == "DIS.4301"


async def test_a_stream_of_ones_own_with_the_same_name() -> None:
    """A cursor into a shared stream stays there although the reader owns a stream of its name."""
    async with application() as app:
        stream_id = await shared(app, ("other.bob", "getRecords"))
        bob = Signer(app, "bob")
        token = (await cursor(bob, stream_id)).told["partition_cursor"]
        assert decode_cursor(token).stream_name == "s"
        await bob.create("s", project="b1")
        assert len((await bob.get(token, project="b1")).told["records"]) == 1


async def test_a_cursor_is_checked_with_every_page() -> None:
    """A policy that is gone, changed, or whose stream is gone stops the reading at once."""
    engine = MemoryEngine()
    async with application(engine) as app:
        stream_id = await shared(app, ("other.bob", "getRecords"))
        bob = Signer(app, "bob")
        token = (await cursor(bob, stream_id)).told["partition_cursor"]
        assert (await bob.get(token, project="b1")).code == ""
        assert (await Signer(app, "carol").get(token, project="b1")).code == "DIS.4301"
        ((key, grant),) = await engine.catalog.scan("grant/")
        await engine.catalog.transact({}, {key.replace("getRecords", "putRecords"): grant.value}, [key])
        assert (await bob.get(token, project="b1")).code == "DIS.4116"
        await engine.catalog.transact({}, {key: grant.value})
        assert (await Signer(app, "alice").call("DELETE", "/v2/a1/streams/s")).status == 204
        assert (await bob.get(token, project="b1")).code == "DIS.4301"


async def test_policies_go_with_their_stream() -> None:
    """A deleted stream leaves no grant, and the next stream of its name has none; nor does a crash half-way."""
    engine = MemoryEngine()
    async with application(engine) as app:
        first = await shared(app, ("other.*", "putRecords"), ("other.bob", "getRecords"))
        alice, bob = Signer(app, "alice"), Signer(app, "bob")
        assert (await alice.call("DELETE", "/v2/a1/streams/s")).status == 204
        assert await engine.catalog.scan("grant/") == []
        second = await shared(app)
        for stream_id in (first, second):
            assert set((await codes(bob, stream_id)).values()) == {"DIS.4301"}
        await allow(alice, "s", "other.bob", "putRecords")
        drop = engine.log.drop

        async def crash(stream_id: str) -> None:
            raise api_error("DIS.5000")

        engine.log.drop = crash  # type: ignore[method-assign]
        assert (await alice.call("DELETE", "/v2/a1/streams/s")).code == "DIS.5000"
        assert (await put(bob, second)).code == "DIS.4301"
        assert len(await engine.catalog.scan("grant/")) == 1
        await alice.create("s", project="a1")
        assert set((await codes(bob, second)).values()) == {"DIS.4301"}
        engine.log.drop = drop  # type: ignore[method-assign]
        restarted = App(engine, ServerConfig(data_dir=None))
        await restarted.directory.drop_remains()
        assert await engine.catalog.scan("grant/") == []


async def test_rules_are_listed() -> None:
    """One rule per principal and action, once each however often it was added; ids instead of names beside."""
    async with application() as app:
        stream_id = await shared(
            app, ("other.bob, other.*", "putRecords"), ("other", "putRecords"), ("other.bob.x", "getRecords")
        )
        answer = await Signer(app, "alice").call("GET", "/v2/a1/streams/s/policies")
        assert answer.code == ""
        assert answer.told["stream_id"] == answer.told["streamId"] == stream_id
        rules = answer.told["rules"]
        assert [(r["principal_name"], r["action_type"], r["effect"]) for r in rules] == [
            ("other.*", "putRecords", "accept"),
            ("other.bob", "putRecords", "accept"),
            ("other.bob.x", "getRecords", "accept"),
        ]
        domains = {r["principal"].partition(".")[0] for r in rules}
        assert len(domains) == 1
        assert len(domains.pop()) == 32
        assert rules[0]["principal"].endswith(".*")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"principal_name": ""}, "DIS.4200"),
        ({"principal_name": " , "}, "DIS.4200"),
        ({"principal_name": "*"}, "DIS.4200"),
        ({"principal_name": "*.bob"}, "DIS.4200"),
        ({"principal_name": "other."}, "DIS.4200"),
        ({"principal_name": ".bob"}, "DIS.4200"),
        ({"principal_name": "other.a/b"}, "DIS.4200"),
        ({"principal_name": "other/x"}, "DIS.4200"),
        ({"principal_name": "other.b*"}, "DIS.4200"),
        ({"principal_name": "other.é"}, "DIS.4200"),
        ({"principal_name": "x" * 100_000}, "DIS.4200"),
        ({"principal_name": "other.bob,other.a b"}, "DIS.4200"),
        ({"principal_name": ",".join(["other.bob"] * (MAX_PRINCIPALS + 1))}, "DIS.4200"),
        ({"principal_name": None}, "DIS.4200"),
        ({"action_type": "deleteStream"}, "DIS.4200"),
        ({"action_type": ""}, "DIS.4200"),
        ({"effect": "deny"}, "DIS.4200"),
        ({"stream_id": 5}, "DIS.4200"),
        ({"stream_id": "8QM3Nt9YTLOwtUVYJhO"}, "DIS.4301"),
    ],
)
async def test_refused_policies(fields: dict[str, Any], code: str) -> None:
    """What cannot be a policy changes nothing, not even the good part of it."""
    engine = MemoryEngine()
    async with application(engine) as app:
        await shared(app)
        alice = Signer(app, "alice")
        body = {"principal_name": "other.bob", "action_type": "putRecords", "effect": "accept", **fields}
        assert (await alice.call("POST", "/v2/a1/streams/s/policies", body)).code == code
        assert (await alice.call("POST", "/v2/a1/streams/s/policies", b"{")).code == "DIS.4300"
        assert (await allow(alice, "none", "other.bob", "putRecords")).code == "DIS.4301"
        assert await engine.catalog.scan("grant/") == []


async def test_rules_are_bounded() -> None:
    """A stream takes so many rules and no more; what is there already can still be added again."""
    async with application() as app:
        await shared(app)
        alice = Signer(app, "alice")
        for start in range(0, MAX_RULES, MAX_PRINCIPALS):
            names = ",".join(f"other.u{n}" for n in range(start, start + MAX_PRINCIPALS))
            assert (await allow(alice, "s", names, "putRecords")).status == 201
        assert (await allow(alice, "s", "other.bob", "putRecords")).code == "DIS.4200"
        assert (await allow(alice, "s", "other.u7", "putRecords")).status == 201
        listed = (await alice.call("GET", "/v2/a1/streams/s/policies")).told["rules"]
        assert len(listed) == MAX_RULES


async def test_adding_takes_the_right() -> None:
    """A user without dis:streamPolicies:create cannot open the project's streams to others, but may see who can."""
    async with application() as app:
        await shared(app, ("other.bob", "putRecords"))
        reader = Signer(app, "reader")
        assert (await allow(reader, "s", "other.bob", "getRecords")).code == "DIS.4116"
        assert len((await reader.call("GET", "/v2/a1/streams/s/policies")).told["rules"]) == 1


async def test_the_client_adds_and_lists() -> None:
    """`policies.add` sends the stream's id, asked for if not given; `list` gives the rules; mistakes are told."""
    async with serving() as http, connect(http.server.url, project_id="p") as dis:
        await http.create("s")
        await dis.policies.add("s", "other.bob", "putRecords")
        await dis.policies.add("s", "d.*", "getRecords", stream_id=(await dis.streams.describe("s")).stream_id)
        first, second = await dis.policies.list("s")
        assert (first.principal, first.action, first.effect) == ("d.*", "getRecords", "accept")
        assert (second.principal, second.action) == ("other.bob", "putRecords")
        assert second.principal_id
        for principal, action in (("", "putRecords"), ("other.bob", "put")):
            with pytest.raises(ConfigError):
                await dis.policies.add("s", principal, action)
        with pytest.raises(NotFoundError):
            await dis.policies.add("none", "other.bob", "putRecords")
        with pytest.raises(NotFoundError):
            await dis.policies.list("none")


def test_rules_of_the_service_are_read() -> None:
    """Its example names a principal without a dot, and knows two spellings of the stream's id."""
    body = (
        b'{"stream_id":"x","streamId":"x","rules":[{"action_type":"putRecords","principal":"3b3f.*",'
        b'"principal_name":"anotherusername","effect":"accept"},{"action_type":"getRecords","principal":"3b3f.*"}]}'
    )
    assert decode_rules(body) == [
        PolicyRule(principal="anotherusername", action="putRecords", principal_id="3b3f.*"),
        PolicyRule(principal="3b3f.*", action="getRecords", principal_id="3b3f.*"),
    ]
    assert decode_rules(b'{"rules":null}') == decode_rules(b"{}") == []
