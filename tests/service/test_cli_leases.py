"""`disstream app ... --store` tells and resets what members that share by leases have in their store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import click.testing
import pytest
from anyio.from_thread import BlockingPortal
from billing_world import ONE, ZERO, Run, command_line, rows, world
from msgspec.structs import replace

from disstream import Consumer, ConsumerConfig, Leases, SqliteLeases, connect
from disstream.cli import main
from disstream.consumer.rows import LeaseKey, LeaseRow, MemberRow, checkpoint_fields, encode_row, member_key, read_lease
from disstream.leases.api import Swap
from disstream.model import Partition
from disstream.server import Server, ServerConfig
from disstream.wire.annotations import Note
from disstream.wire.checkpoints import position, sealed
from disstream.worker.control import order_for
from disstream.worker.parking import Parking


@pytest.fixture
def both() -> Iterator[tuple[BlockingPortal, Server]]:
    with world(ServerConfig(data_dir=None, port=0)) as found:
        yield found


@pytest.fixture
def portal(both: tuple[BlockingPortal, Server]) -> BlockingPortal:
    return both[0]


@pytest.fixture
def server(both: tuple[BlockingPortal, Server]) -> Server:
    return both[1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "leases.db"


@pytest.fixture
def run(server: Server, path: Path) -> Run:
    """Runs a command line, `disstream app` on the rows in that file too."""
    invoke = command_line(server.url)

    def with_store(*arguments: str) -> click.testing.Result:
        store = ("--store", f"sqlite:///{path}") if arguments[0] == "app" else ()
        return invoke(*arguments, *store)

    return with_store


@asynccontextmanager
async def member(url: str, path: Path) -> AsyncIterator[Consumer]:
    """One that holds both partitions, and whose checkpoints the service is not told."""
    assigned = anyio.Event()
    config = ConsumerConfig(
        coordination=Leases(SqliteLeases(path), mirror_s=None),
        session_timeout_s=3.0,
        member_id="m1",
        on_assigned=lambda partitions: assigned.set() if len(partitions) == 2 else None,
        auto_commit_s=None,
        drain_timeout_s=1.0,
    )
    async with connect(url, project_id="demo") as dis, dis.consumer("orders", config, app="billing") as consumer:
        with anyio.fail_after(30.0):
            await assigned.wait()
        yield consumer


async def numbers(consumer: Consumer) -> list[int]:
    """All up to the last record of the first partition."""
    seen: list[int] = []
    with anyio.fail_after(30.0):
        while not seen or seen[-1] < 4:
            seen += [record.sequence_number for record in await consumer.fetch(timeout_s=0.1)]
    return seen


def test_the_rows_are_told(run: Run, server: Server, path: Path, portal: BlockingPortal) -> None:
    """Members and owners, and the checkpoints that count, of which the service knows nothing."""
    assert run("app", "members", "billing").stdout == ""
    assert rows(run("app", "explain", "billing", "orders"))[0][-1] == "nobody reads for billing"
    with portal.wrap_async_context_manager(member(server.url, path)) as consumer:

        async def read_all() -> None:
            await numbers(consumer)
            await consumer.fetch(timeout_s=0)
            await consumer.commit()

        portal.call(read_all)
        assert rows(run("app", "members", "billing")) == [["m1", "0.0", "orders: 0, 1"]]
        assert [row[2:5] for row in rows(run("app", "lag", "billing", "orders", "--time"))] == [
            ["5", "5", "0"],
            ["0", "0", "0"],
            ["", "", "0"],
        ]
        told = json.loads(run("app", "explain", "billing", "orders", "--json").stdout)
        assert (told["group"], told["members"]) == ("LEASES", {"m1": 0.0})
        assert {(p["owner"], p["kind"]) for p in told["partitions"]} == {("m1", "done")}
        assert [p["checkpoint"] for p in told["partitions"]] == [5, 0]
    assert run("app", "members", "billing").stdout == ""


def test_a_living_member_does_not_overwrite_a_reset(
    run: Run, server: Server, path: Path, portal: BlockingPortal
) -> None:
    """Refused with its name; forced, its row is taken from it: what it finished is refused, and it begins there."""
    with portal.wrap_async_context_manager(member(server.url, path)) as consumer:
        assert portal.call(numbers, consumer) == [0, 1, 2, 3, 4]
        done = run("app", "reset", "billing", "orders", "--to", "2", "--partition", "0")
        assert (done.exit_code, done.stdout) == (1, "")
        assert "1 member(s) read for billing (m1): stop them, or add --force" in done.stderr
        done = run("app", "reset", "billing", "orders", "--to", "2", "--partition", "0", "--dry-run")
        assert (rows(done), "it would take --force" in done.stderr) == ([[ZERO, "0", "2", "2 skipped"]], True)
        done = run("app", "reset", "billing", "orders", "--to", "2", "--partition", "0", "--force")
        assert rows(done) == [[ZERO, "0", "2", "2 skipped"]]
        assert done.stderr == "dropped m1: they join again by themselves, and begin at these places\n"
        assert portal.call(numbers, consumer) == [2, 3, 4]


def test_members_that_are_gone_do_not_count(
    run: Run, server: Server, path: Path, portal: BlockingPortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was killed left its rows: it is shown as silent, and a reset is not refused for it."""
    monkeypatch.setattr("disstream.cli.leaseview.LOOK_S", 0.05)  # nobody is there whose sign of life could be missed
    dead = LeaseRow(v=1, stream_id="", owner="m1/5c2e", token=3, checkpoint=("4", sealed(5, read=True).metadata))

    async def leave_rows() -> None:
        async with connect(server.url, project_id="demo") as dis:
            info = await dis.streams.describe("orders")
        store = SqliteLeases(path)
        await store.start()
        row = MemberRow(v=1, beat=7, session_timeout_s=0.9, streams=("orders",))
        lease = encode_row(replace(dead, stream_id=info.stream_id))
        swaps = [Swap(member_key("m1/5c2e"), None, encode_row(row)), Swap(LeaseKey("orders", 0).text(), None, lease)]
        assert None not in await store.swap("billing", swaps)
        await store.close()

    portal.call(leave_rows)
    ((name, silent_s, held),) = rows(run("app", "members", "billing"))
    assert (name, held, float(silent_s) > 0.3) == ("m1", "orders: 0", True)
    zero, one, step = rows(run("app", "explain", "billing", "orders"))
    assert step[2] == "disstream app members billing --store URL"
    assert zero[-1].startswith("its owner m1 has been silent for")
    assert one[-1] == "none of the 1 members of billing reads it"
    done = run("app", "reset", "billing", "orders", "--to", "earliest")
    assert (rows(done), done.stderr) == ([[ZERO, "5", "0", "5 again"], [ONE, "-", "0", "pinned"]], "")

    async def kept() -> tuple[LeaseRow, list[int | None]]:
        store = SqliteLeases(path)
        await store.start()
        found = await store.read("billing", "lease/")
        await store.close()
        async with connect(server.url, project_id="demo") as dis:
            states = await dis.apps.state("billing", "orders")
        key = LeaseKey("orders", 0).text()
        return read_lease(key, found[key].text), [
            None if s.checkpoint is None else position(s.checkpoint)[0] for s in states
        ]

    row, at_the_service = portal.call(kept)
    assert (row.owner, row.token, row.kept()) == ("", 4, sealed(0, read=False))
    assert at_the_service == [0, 0], "what has no row yet begins at what the service keeps"


def test_a_suspension_is_resumed_of_which_the_service_knows_nothing(
    run: Run, server: Server, path: Path, portal: BlockingPortal
) -> None:
    """Workers by leases note it in their rows; the order is for what stands there, not for what was mirrored once."""
    parking = Parking()
    parking.suspend(3, 0, "ValueError: no such table", 1_795_313_465_000)
    noted = sealed(3, read=True, metadata=Note(annotation=parking.text()).text())

    async def leave_row() -> None:
        async with connect(server.url, project_id="demo") as dis:
            info = await dis.streams.describe("orders")
        store = SqliteLeases(path)
        await store.start()
        row = LeaseRow(v=1, stream_id=info.stream_id, token=1, checkpoint=checkpoint_fields(noted))
        assert None not in await store.swap("billing", [Swap(LeaseKey("orders", 0).text(), None, encode_row(row))])
        await store.close()

    async def order() -> int | None:
        async with connect(server.url, project_id="demo") as dis:
            return await order_for(dis, "billing", Partition("orders", ZERO))

    portal.call(leave_row)
    done = run("worker", "resume", "billing", "orders")
    assert (done.exit_code, "of workers that share by leases give the --store" in done.stderr) == (1, True)
    done = run("worker", "resume", "billing", "orders", "--store", f"sqlite:///{path}")
    assert done.stdout == f"{ZERO}: may go on; it stopped at 3: ValueError: no such table\n"
    assert portal.call(order) == 1_795_313_465_000


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("nonsense", 2, "the address of the leases has no '://'"),
        ("mysql://x", 2, "'mysql' is no kind of lease store"),
        ("", 2, "it is empty"),
        ("sqlite:////nowhere/at/all/leases.db", 2, "/nowhere/at/all"),
    ],
)
def test_a_store_that_is_none(run: Run, url: str, code: int, words: str) -> None:
    """Told in a line, by every command that takes it."""
    for arguments in (("lag", "billing", "orders"), ("members", "billing"), ("explain", "billing", "orders")):
        done = click.testing.CliRunner().invoke(main, ("app", *arguments, "--store", url))
        assert (done.exit_code, words in done.stderr) == (code, True), done.stderr
