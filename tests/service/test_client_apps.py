"""Apps and checkpoints through the client: what it asks, what it makes of answers, what it refuses to send."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from app_server import reading
from fake_groups import FakeGroups
from test_client_calls import CUT, DONE, FAULT, GONE, Script, client_on, ok

from disstream.client import Client
from disstream.door import DisClient, connect
from disstream.errors import (
    ConfigError,
    ConflictError,
    NotFoundError,
    SequenceOutOfRange,
    StaleGeneration,
    TransportError,
)
from disstream.model import AppInfo, Checkpoint
from disstream.testing.clock import run_simulated
from disstream.testing.network import AppTransport
from disstream.wire.checkpoints import position, sealed
from disstream.wire.errors import api_error, refusal
from disstream.wire.http import Response

NEVER = refusal(api_error("DIS.4375"), "r")


@pytest.fixture(autouse=True)
def group(monkeypatch: pytest.MonkeyPatch) -> FakeGroups:
    return FakeGroups(monkeypatch)


async def everything(client: Client, page_size: int = 100) -> list[AppInfo]:
    return [app async for app in client.apps.list(page_size=page_size)]


def asked(*answers: Any, call: Callable[[Client], Coroutine[Any, Any, object]]) -> tuple[object, Script]:
    """What a call returns on these answers, and the script that saw its requests."""

    async def main() -> tuple[object, Script]:
        script = Script(*answers)
        async with client_on(script) as client:
            return await call(client), script

    return run_simulated(main)


async def test_apps_and_checkpoints_of_a_server(group: FakeGroups) -> None:
    """Every call against our server, with what each raises."""
    async with (
        reading() as server,
        connect(transport=AppTransport(server.app), project_id="p") as dis,
    ):
        await server.make("s", apps=(), partitions=12)
        for name in [f"app-{n:03}" for n in range(15)]:
            await dis.apps.create(name)
        assert [app.name async for app in dis.apps.list(page_size=4)] == [f"app-{n:03}" for n in range(15)]
        with pytest.raises(ConflictError, match=r"DIS\.4330"):
            await dis.apps.create("app-000")
        info = await dis.apps.describe("app-000")
        assert info == AppInfo(name="app-000", app_id=info.app_id, create_time=info.create_time)

        assert await dis.checkpoints.get("app-000", "s", "0") is None
        kept = sealed(4, read=True, metadata="mine")
        await dis.checkpoints.commit("app-000", "s", "0", kept.sequence_number, metadata=kept.metadata)
        found = await dis.checkpoints.get("app-000", "s", "shardId-0000000000")
        assert found is not None
        assert position(found) == (4, "mine")
        stream_id = (await dis.streams.describe("s")).stream_id
        await dis.checkpoints.commit("app-000", "nowhere", "3", 0, stream_id=stream_id)
        assert await dis.checkpoints.get("app-000", "", "3", stream_id=stream_id) == Checkpoint(0)

        assert (await dis.apps.describe("app-000")).streams == ("s",)
        assert [app.name async for app in dis.apps.list(stream="s")] == ["app-000"]
        states = await dis.apps.state("app-000", "s")
        assert states == await dis.apps.state("app-000", stream_id)
        assert [state.partition_id for state in states] == [f"shardId-{n:010}" for n in range(12)]
        assert [state.checkpoint for state in states[:4]] == [kept, None, None, Checkpoint(0)]
        assert (states[0].earliest, states[0].latest, states[0].status) == (0, 10, "ACTIVE")

        with pytest.raises(SequenceOutOfRange, match=r"\[11\]\[ should be within \]\[0\]\[ \]\[10\]"):
            await dis.checkpoints.commit("app-000", "s", "0", 11)
        group.refuse = api_error("DIS.4703")
        with pytest.raises(StaleGeneration):
            await dis.checkpoints.commit("app-000", "s", "0", 1, member_id="m", generation=1)
        assert group.fences == [("p", "app-000", "m", 1, stream_id, 0)]
        await refusals(dis)

        await dis.checkpoints.delete("app-000", "s", "3")
        await dis.checkpoints.delete("app-000", "s")
        with pytest.raises(NotFoundError, match=r"DIS\.4375"):
            await dis.checkpoints.delete("app-000", "s")
        group.reading = True
        with pytest.raises(ConflictError, match=r"DIS\.4331"):
            await dis.apps.delete("app-000")
        group.reading = False
        await dis.apps.delete("app-000")
        with pytest.raises(NotFoundError, match=r"DIS\.4332"):
            await dis.apps.delete("app-000")


async def refusals(dis: DisClient) -> None:
    """What does not exist is a NotFoundError in every call."""
    for call, code in (
        (dis.apps.describe("nope"), "DIS.4332"),
        (dis.apps.state("nope", "s"), "DIS.4332"),
        (dis.apps.state("app-000", "nope"), "DIS.4301"),
        (dis.checkpoints.commit("nope", "s", "0", 0), "DIS.4332"),
        (dis.checkpoints.get("app-000", "nope", "0"), "DIS.4301"),
        (dis.checkpoints.get("app-000", "s", "99"), "DIS.4302"),
        (dis.checkpoints.delete("nope", "s"), "DIS.4332"),
    ):
        with pytest.raises(NotFoundError) as caught:
            await call
        assert caught.value.code == code
    with pytest.raises(NotFoundError, match=r"DIS\.4301"):
        [app async for app in dis.apps.list(stream="nope")]


@pytest.mark.parametrize(
    "answer", [DONE, NEVER, ok({"sequence_number": "-1", "metadata": ""}), ok({"sequence_number": ""}), ok({})]
)
def test_all_that_services_say_for_none(answer: Response) -> None:
    """No body, DIS.4375, -1, empty and missing: nothing was committed."""
    found, _ = asked(answer, call=lambda c: c.checkpoints.get("a", "s", "0"))
    assert found is None


def test_what_is_missing_is_not_none() -> None:
    """A stream that does not exist is an error, and so is an answer that cannot be read."""
    with pytest.raises(NotFoundError):
        asked(GONE, call=lambda c: c.checkpoints.get("a", "s", "0"))
    with pytest.raises(TransportError):
        asked(Response(status=200, body=b"hello"), call=lambda c: c.checkpoints.get("a", "s", "0"))


def test_commits_are_repeated() -> None:
    """After a lost answer and a fault the same commit is sent again; long partition id, string number."""
    _, script = asked(CUT, FAULT, Response(status=201), call=lambda c: c.checkpoints.commit("a", "s", "3", 7))
    bodies = [json.loads(request.body) for request in script.asked]
    assert bodies == [bodies[0]] * 3
    assert (bodies[0]["partition_id"], bodies[0]["sequence_number"]) == ("shardId-0000000003", "7")


def test_a_creation_is_not_repeated() -> None:
    """After a lost answer the app may exist: the caller is told."""
    with pytest.raises(TransportError):
        asked(CUT, call=lambda c: c.apps.create("a"))


def test_a_repeated_deletion_that_finds_nothing_has_succeeded() -> None:
    """After a lost answer DIS.4332 and DIS.4375 mean done."""
    asked(CUT, refusal(api_error("DIS.4332"), "r"), call=lambda c: c.apps.delete("a"))
    asked(CUT, NEVER, call=lambda c: c.checkpoints.delete("a", "s"))


def test_states_are_paged() -> None:
    """The next page begins behind the last partition, spelled as the service spelled it."""
    pages = [
        ok({"has_more": True, "partition_consuming_states": [{"partition_id": "0"}, {"partition_id": "1"}]}),
        ok({"has_more": False, "partition_consuming_states": [{"partition_id": "shardId-0000000002"}]}),
    ]
    found, script = asked(*pages, call=lambda c: c.apps.state("a", "s"))
    assert isinstance(found, list)
    assert [state.partition_id for state in found] == [f"shardId-{n:010}" for n in range(3)]
    first, second = script.queries()
    assert first == {"limit": "1000", "checkpoint_type": "LAST_READ"}
    assert second == first | {"start_partition_id": "1"}


@pytest.mark.parametrize("page", [[], [{"partition_id": "0"}]])
def test_states_that_do_not_go_on(page: list[Any]) -> None:
    """A service that promises more and gives nothing new is not asked for ever."""
    answer = ok({"has_more": True, "partition_consuming_states": page})
    with pytest.raises(TransportError, match="do not go on"):
        asked(answer, answer, answer, call=lambda c: c.apps.state("a", "s"))


def test_a_list_that_does_not_go_on() -> None:
    """The same for apps."""
    answer = ok({"has_more_app": True, "apps": [{"app_name": "a"}]})
    with pytest.raises(TransportError, match="does not go on behind 'a'"):
        asked(answer, answer, answer, call=everything)
    with pytest.raises(TransportError, match="does not go on behind ''"):
        asked(ok({"has_more_app": True}), call=everything)


BAD_CALLS: dict[str, Callable[[Client], Coroutine[Any, Any, object]]] = {
    "partition_id 'x' is neither": lambda c: c.checkpoints.commit("a", "s", "x", 1),
    "partition_id '' is neither": lambda c: c.checkpoints.get("a", "s", ""),
    "partition_id '-1' is neither": lambda c: c.checkpoints.delete("a", "s", "-1"),
    "sequence_number=-1 must": lambda c: c.checkpoints.commit("a", "s", "0", -1),
    "sequence_number=9223372036854775808 must": lambda c: c.checkpoints.commit("a", "s", "0", 2**63),
    "metadata has 1001 characters, at most 1000": lambda c: c.checkpoints.commit("a", "s", "0", 1, metadata="x" * 1001),
    "leave lone surrogates out": lambda c: c.checkpoints.commit("a", "s", "0", 1, metadata="\ud800"),
    "text without lone surrogates": lambda c: c.apps.create("\ud800"),
    "an app needs a name": lambda c: c.apps.create(""),
    "app_name must not be empty": lambda c: c.apps.describe(""),
    "stream_name must not be empty": lambda c: c.apps.state("a", ""),
    "page_size=0 must be within 1 and 100": lambda c: everything(c, page_size=0),
}


@pytest.mark.parametrize("told", BAD_CALLS)
def test_what_is_not_sent(told: str) -> None:
    """A value that no service takes is named, and nothing is asked."""
    with pytest.raises(ConfigError, match=told):
        asked(call=BAD_CALLS[told])
