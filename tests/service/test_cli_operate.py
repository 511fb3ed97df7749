"""`disstream app lag --time`, `--watch`, `explain` and `reset` tell the truth of a living app, and do as they say."""

from __future__ import annotations

import importlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.from_thread import BlockingPortal
from billing_world import ONE, ZERO, Run, command_line, rows, world
from test_cli_terminal import on_terminal

from disstream import Consumer, ConsumerConfig, Record, ServiceGroup, TransportError, connect
from disstream.client.client import Client
from disstream.client.groups import Groups
from disstream.server import Server, ServerConfig
from disstream.wire.annotations import Note, read_note
from disstream.wire.checkpoints import position, sealed
from disstream.wire.errors import api_error
from disstream.worker.parking import Parking


@pytest.fixture
def both() -> Iterator[tuple[BlockingPortal, Server]]:
    """A server whose groups do not wait for members that start together."""
    with world(ServerConfig(data_dir=None, port=0, join_delay_s=0.0)) as found:
        yield found


@pytest.fixture
def portal(both: tuple[BlockingPortal, Server]) -> BlockingPortal:
    return both[0]


@pytest.fixture
def server(both: tuple[BlockingPortal, Server]) -> Server:
    return both[1]


@pytest.fixture
def run(server: Server) -> Run:
    return command_line(server.url)


@asynccontextmanager
async def member(url: str, member_id: str = "m1") -> AsyncIterator[Consumer]:
    """A consumer of the app that holds both partitions."""
    assigned = anyio.Event()
    config = ConsumerConfig(
        coordination=ServiceGroup(accelerate=True, heartbeat_s=0.1),
        member_id=member_id,
        on_assigned=lambda partitions: assigned.set(),
        auto_commit_s=None,
    )
    async with connect(url, project_id="demo") as dis, dis.consumer("orders", config, app="billing") as consumer:
        with anyio.fail_after(30.0):
            await assigned.wait()
        yield consumer


async def commit(url: str, partition: str, following: int, *, read: bool, metadata: str = "") -> None:
    kept = sealed(following, read=read, metadata=metadata)
    async with connect(url, project_id="demo") as dis:
        await dis.checkpoints.commit("billing", "orders", partition, kept.sequence_number, metadata=kept.metadata)


# --- lag, members ----------------------------------------------------------------------------------------------------


def test_lag_in_time(run: Run) -> None:
    """A column more: the age of the next record in seconds, and of all the longest; what is read is 0."""
    (zero, one, total) = rows(run("app", "lag", "billing", "orders", "--time"))
    assert zero[:5] == [ZERO, "ACTIVE", "-", "5", "5"]
    assert 0.0 <= float(zero[5]) < 300.0
    assert one == [ONE, "ACTIVE", "-", "0", "0", "0.0"]
    assert (total[4], float(total[5]) >= float(zero[5])) == ("5", True)
    run("checkpoint", "set", "billing", "orders", "all", "latest")
    assert [row[5] for row in rows(run("app", "lag", "billing", "orders", "--time"))] == ["0.0", "0.0", "0.0"]


def test_a_large_record_is_looked_at_too(run: Run, server: Server) -> None:
    """A service that gives nothing under the small cap of the first look is asked for a whole page."""
    asked: list[str] = []
    exchange = Client.call

    async def call(self: Client, operation: str, *args: object, **more: object) -> object:
        query = more.get("query")
        if operation == "get_records" and isinstance(query, dict):
            asked.append(query["max_fetch_bytes"])
            if len(asked) == 1:
                query = {**query, "partition-cursor": await _end(self)}
                more["query"] = query
        return await exchange(self, operation, *args, **more)  # type: ignore[arg-type]

    async def _end(client: Client) -> str:
        return await client.cursors.get("orders", ONE, "LATEST")  # an empty page, as of a record that does not fit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Client, "call", call)
        zero, *_ = rows(run("app", "lag", "billing", "orders", "--time"))
    assert float(zero[5]) >= 0.0
    assert asked == ["4096", "1572864"]


def test_watching(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Again and again, each line with its time; a failure that may heal is told and waited out; Ctrl-C is the end."""
    module = importlib.import_module("disstream.cli.lag")
    looks = 0

    async def sleep(seconds: float) -> None:
        nonlocal looks
        looks += 1
        assert seconds <= 0.5
        if looks == 3:
            raise KeyboardInterrupt

    state = module.unread_times

    async def unread(*args: object) -> object:
        if looks == 1:
            raise TransportError("the line is cut", outcome_unknown=False)
        return await state(*args)

    monkeypatch.setattr(module.anyio, "sleep", sleep)
    monkeypatch.setattr(module, "unread_times", unread)
    done = run("app", "lag", "billing", "orders", "--time", "--watch", "0.5")
    found = rows(done)
    assert [row[1] for row in found] == [ZERO, ONE, "total"] * 2
    assert all(row[0].startswith("20") for row in found)
    assert done.stderr == "the line is cut; looking again in 0.5 s\n"


def test_watching_what_is_not_there_ends(run: Run) -> None:
    """What will not heal is an error, as without --watch."""
    for arguments in (("lag", "billing", "nope"), ("members", "nope")):
        done = run("app", *arguments, "--watch", "1")
        assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert run("app", "lag", "billing", "orders", "--watch", "0").exit_code == 2
    assert run("app", "lag", "billing", "orders", "--watch", "nan").exit_code == 2


# --- explain ---------------------------------------------------------------------------------------------------------


def test_explain_a_living_app(run: Run, server: Server, portal: BlockingPortal) -> None:
    """Nobody reads; then a member does, and has read all; each with its one next step."""
    zero, one, step = rows(run("app", "explain", "billing", "orders"))
    assert zero[:6] == [ZERO, "-", "-", "0", "5", "5"]
    assert zero[7:] == ["-", "nobody reads for billing"]
    assert one[-1] == "all is read; nobody reads for billing now"
    assert step[:2] == ["next step", "start a worker for billing"]

    with portal.wrap_async_context_manager(member(server.url)) as consumer:
        told = json.loads(run("app", "explain", "billing", "orders", "--json").stdout)
        assert (told["group"], list(told["members"])) == ("STABLE", ["m1"])
        assert {(p["owner"], p["kind"]) for p in told["partitions"]} == {("m1", "behind"), ("m1", "done")}
        assert [p["lag_records"] for p in told["partitions"]] == [5, 0]

        async def read_all() -> None:
            seen = 0
            while seen < 5:
                seen += len(await consumer.fetch())
            await consumer.fetch(timeout_s=0)
            await consumer.commit()

        portal.call(read_all)
        zero, one, step = rows(run("app", "explain", "billing", "orders"))
        assert (zero[1], zero[2], zero[5], zero[8]) == ("m1", "5", "0", "all is read")
        assert step == ["next step", "nothing: all is read", ""]
        told = json.loads(run("app", "explain", "billing", "orders", "--json").stdout)["partitions"][0]
        assert (told["committed_by"], told["checkpoint"]) == ("m1", 5)
        assert told["checkpoint_age_s"] < 300


def test_explain_what_a_reader_wrote(run: Run, server: Server, portal: BlockingPortal) -> None:
    """A problem that stands beside the checkpoint is told, as one line."""
    note = Note(problem="the database is away\n\x1b[31m").text()
    with portal.wrap_async_context_manager(member(server.url)):
        portal.call(lambda: commit(server.url, "0", 2, read=True, metadata=note))
        zero, _, step = rows(run("app", "explain", "billing", "orders"))
    assert zero[-1] == "the database is away..[31m"
    assert step[1].startswith("read the log of m1")


def test_explain_elsewhere(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that does not tell its members: what is known is told, the rest is left open."""

    async def members(_: Groups, app: str) -> None:
        raise api_error("DIS.4200", "[no such path]", status=404)

    monkeypatch.setattr(Groups, "members", members)
    zero, _, step = rows(run("app", "explain", "billing", "orders"))
    assert (zero[1], zero[-1]) == ("-", "not all is read")
    assert step[1] == "see whether it moves: this service does not tell who reads"


def test_explain_on_a_terminal(run: Run, server: Server) -> None:
    """A title with the group, headers, and the step with its command on a line of its own."""
    shown = on_terminal("app", "explain", "billing", "orders", "--endpoint", server.url, columns=120)
    for whole in ("billing on orders: EMPTY", "CHECKPOINT", "next step (shardId-0000000000): start a worker", "BEHIND"):
        assert whole in shown
    assert "\n  disstream worker MODULE:HANDLER --stream orders --app billing" in shown


@pytest.mark.parametrize(("arguments", "words"), [(("nope", "orders"), "DIS.4332"), (("billing", "nope"), "DIS.4301")])
def test_explain_what_is_not_there(run: Run, arguments: tuple[str, ...], words: str) -> None:
    """One line, exit code 1."""
    done = run("app", "explain", *arguments)
    assert (done.exit_code, words in done.stderr, len(done.stderr.splitlines())) == (1, True, 1)


# --- reset -----------------------------------------------------------------------------------------------------------


def test_reset(run: Run) -> None:
    """To either end, to a number, to a time; with from, to and effect of each; a dry run changes nothing."""
    assert rows(run("app", "reset", "billing", "orders", "--to", "latest", "--dry-run")) == [
        [ZERO, "-", "5", "5 skipped"],
        [ONE, "-", "0", "pinned"],
    ]
    assert [row[2] for row in rows(run("app", "lag", "billing", "orders"))] == ["-", "-", ""]
    done = run("app", "reset", "billing", "orders", "--to", "3", "--partition", "0")
    assert (rows(done), done.stderr) == ([[ZERO, "-", "3", "3 skipped"]], "")
    assert [row[2] for row in rows(run("app", "lag", "billing", "orders"))] == ["3", "-", ""]
    assert rows(run("app", "reset", "billing", "orders", "--to", "earliest")) == [
        [ZERO, "3", "0", "3 again"],
        [ONE, "-", "0", "pinned"],
    ]
    assert rows(run("app", "reset", "billing", "orders", "--to", "2020-01-01"))[0] == [ZERO, "0", "0", "none"]
    assert rows(run("app", "reset", "billing", "orders", "--to", "2120-01-01T00:00+00:00"))[0] == [
        ZERO,
        "0",
        "5",
        "5 skipped",
    ]
    assert [row[2] for row in rows(run("checkpoint", "show", "billing", "orders"))] == ["5", "0"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("billing", "orders"), 2, "--to"),
        (("billing", "orders", "--to", "oldest"), 2, "neither earliest, latest"),
        (("billing", "orders", "--to", "3"), 2, "orders has 2: add --partition"),
        (("billing", "orders", "--to", "6", "--partition", "0"), 1, "6 is not written yet: shardId-0000000000 holds 0"),
        (("billing", "orders", "--to", "latest", "--partition", "7"), 1, "orders has no shardId-0000000007 to read"),
        (("billing", "orders", "--to", "latest", "--partition", "x"), 2, "x"),
        (("nope", "orders", "--to", "latest"), 1, "DIS.4332"),
        (("billing", "nope", "--to", "latest"), 1, "DIS.4301"),
    ],
)
def test_wrong_resets(run: Run, arguments: tuple[str, ...], code: int, words: str) -> None:
    """Told in one line; nothing is changed."""
    done = run("app", "reset", *arguments)
    assert (done.exit_code, words in done.stderr) == (code, True), done.stderr
    assert [row[2] for row in rows(run("app", "lag", "billing", "orders"))] == ["-", "-", ""]


def test_reset_while_a_member_lives(run: Run, server: Server, portal: BlockingPortal) -> None:
    """Refused with its name; a dry run says so; forced, it is dropped, comes back, and reads from the new place."""
    with portal.wrap_async_context_manager(member(server.url)) as consumer:

        async def numbers() -> list[int]:
            seen: list[int] = []
            with anyio.fail_after(30.0):
                while not seen or seen[-1] < 4:
                    seen += [record.sequence_number for record in await consumer.fetch(timeout_s=0.1)]
            return seen

        assert portal.call(numbers) == [0, 1, 2, 3, 4]
        done = run("app", "reset", "billing", "orders", "--to", "2", "--partition", "0")
        assert (done.exit_code, done.stdout) == (1, "")
        assert "1 member(s) read for billing (m1): stop them, or add --force" in done.stderr
        done = run("app", "reset", "billing", "orders", "--to", "2", "--partition", "0", "--dry-run")
        assert (rows(done), "it would take --force" in done.stderr) == ([[ZERO, "0", "2", "2 skipped"]], True)
        done = run("app", "reset", "billing", "orders", "--to", "2", "--partition", "0", "--force")
        assert rows(done) == [[ZERO, "0", "2", "2 skipped"]]
        assert done.stderr == "dropped m1: they join again by themselves, and begin at these places\n"
        assert portal.call(numbers) == [2, 3, 4]
    # What the close committed came from behind the reset.
    assert rows(run("checkpoint", "show", "billing", "orders"))[0][2] in ("2", "5")


def test_a_reset_forgets_what_is_parked(run: Run, server: Server, portal: BlockingPortal) -> None:
    """Suspension and keys: all of it belongs to the place that is left."""
    parking = Parking()
    assert parking.park("billing", Record(b"", 2, key="customer-7", partition_id=ZERO))
    parking.suspend(3, 0, "ValueError", 1)
    note = Note(annotation=parking.text(), problem="suspended").text()
    portal.call(lambda: commit(server.url, "0", 3, read=True, metadata=note))
    assert "suspended" in rows(run("app", "explain", "billing", "orders"))[0][-1]
    assert run("app", "reset", "billing", "orders", "--to", "earliest").exit_code == 0
    assert "suspended" not in rows(run("app", "explain", "billing", "orders"))[0][-1]

    async def kept() -> Note:
        async with connect(server.url, project_id="demo") as dis:
            found = await dis.checkpoints.get("billing", "orders", "0")
            assert found is not None
            return read_note(position(found)[1])

    assert portal.call(kept) == Note()


def test_a_reader_outside_the_group_is_warned_of(run: Run, server: Server, portal: BlockingPortal) -> None:
    """It is no member that could be dropped, and it would commit over the reset."""
    portal.call(lambda: commit(server.url, "0", 3, read=True))
    done = run("app", "reset", "billing", "orders", "--to", "earliest")
    assert (done.exit_code, "somebody outside the group committed for billing" in done.stderr) == (0, True)
    assert run("app", "reset", "billing", "orders", "--to", "latest").stderr == ""


def test_reset_elsewhere(run: Run, server: Server, portal: BlockingPortal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extension it goes one by one, and says what may happen; who lives still has to be forced."""
    monkeypatch.setattr("disstream.cli.reset.RESETS", "nobody offers this")
    with portal.wrap_async_context_manager(member(server.url)):
        assert run("app", "reset", "billing", "orders", "--to", "latest").exit_code == 1
        done = run("app", "reset", "billing", "orders", "--to", "latest", "--force")
        assert (done.exit_code, "this service cannot drop them" in done.stderr) == (0, True)

    async def members(_: Groups, app: str) -> None:
        raise api_error("DIS.4200", "[no such path]", status=404)

    monkeypatch.setattr(Groups, "members", members)
    done = run("app", "reset", "billing", "orders", "--to", "1", "--partition", "0")
    assert (rows(done)[0][2], "does not tell who reads for billing" in done.stderr) == ("1", True)

    async def kept() -> int:
        async with connect(server.url, project_id="demo") as dis:
            found = await dis.checkpoints.get("billing", "orders", "0")
            assert found is not None
            return position(found)[0]

    assert portal.call(kept) == 1
