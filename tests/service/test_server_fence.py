"""The group of an app fences its commits and keeps the app: the two rooms together, nothing replaced."""

from __future__ import annotations

from app_server import ReaderCaller, reading


async def formed(server: ReaderCaller, member: str) -> int:
    """Join at once and sync; the generation."""
    body = {"groupId": "a", "clientId": member, "interestedStream": ["s"], "accelerateAssignEnabled": True}
    joined = await server.call("POST", "/v2/p/apps/a/consumers/", body)
    assert joined.told["state"] == "OK"
    synced = await server.call("POST", f"/v2/p/apps/a/consumers/{member}/partitions/", {"generation": -1})
    assert (synced.told["state"], synced.told["assignment"]) == ("OK", {"s": [0]})
    return int(synced.told["generation"])


async def test_a_group_and_its_commits() -> None:
    """The owner commits; a stranger, an old generation and a member that left do not; a plain commit is not fenced."""
    async with reading() as server:
        await server.make("s")
        assert await server.commit(1, client_id="m", generation_id=0) == "DIS.4702"
        generation = await formed(server, "m")
        assert await server.commit(2, client_id="m", generation_id=generation) == ""
        assert await server.commit(3, client_id="m", generation_id=str(generation)) == ""
        assert await server.commit(4, client_id="x", generation_id=generation) == "DIS.4702"
        assert await server.commit(4, client_id="m", generation_id=generation - 1) == "DIS.4703"
        assert await server.commit(4, client_id="m") == "DIS.4703"
        assert (await server.stored())["sequence_number"] == "3"
        assert await server.delete_app() == "DIS.4331"

        # The member goes between its commit's check and its transaction.
        server.engine.meanwhile = lambda: server.call("DELETE", "/v2/p/apps/a/consumers/m/")
        assert await server.commit(5, client_id="m", generation_id=generation) == "DIS.4702"
        assert (await server.stored())["sequence_number"] == "3"
        assert await server.commit(6) == ""
        assert await server.delete_app() == ""
        assert await server.engine.keys() == []


async def test_a_group_made_anew_is_another() -> None:
    """An app that is deleted and created again has no members, whatever its group was."""
    async with reading() as server:
        await server.make("s")
        generation = await formed(server, "m")
        await server.call("DELETE", "/v2/p/apps/a/consumers/m/")
        assert await server.delete_app() == ""
        await server.make(apps=("a",))
        assert await server.commit(1, client_id="m", generation_id=generation) == "DIS.4702"
        assert (await server.told("/apps/a/consumers"))["members"] == []
        assert await server.delete_app() == ""
