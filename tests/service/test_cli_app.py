"""`disstream app` and `disstream checkpoint` do and show what they say, and tell mistakes in one line."""

from __future__ import annotations

import importlib
import os
import pty
import subprocess
import sys

import anyio
import click.testing
import pytest
from fake_groups import FakeGroups
from test_cli_terminal import on_terminal

from disstream.cli import main
from disstream.cli.checkpoint import _goals
from disstream.cli.facts import progress
from disstream.client.groups import Groups
from disstream.door import connect
from disstream.errors import ApiError
from disstream.model import Checkpoint, GroupInfo, GroupMember, PartitionState
from disstream.server import Server
from disstream.wire.checkpoints import sealed
from disstream.wire.errors import api_error

ZERO, ONE = "shardId-0000000000", "shardId-0000000001"


class FakeMembers:
    """In the place of the call that tells the members: what it answers or raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer: GroupInfo | ApiError = GroupInfo(state="EMPTY", generation=0)

        async def members(_: Groups, app: str) -> GroupInfo:
            if isinstance(self.answer, ApiError):
                raise self.answer
            return self.answer

        monkeypatch.setattr(Groups, "members", members)


@pytest.fixture(autouse=True)
def group(monkeypatch: pytest.MonkeyPatch) -> FakeGroups:
    return FakeGroups(monkeypatch)


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> FakeMembers:
    return FakeMembers(monkeypatch)


def invoke(server: Server, *arguments: str, stdin: str = "") -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, [*arguments, "--endpoint", server.url], input=stdin)


def rows(result: click.testing.Result) -> list[list[str]]:
    assert result.exit_code == 0, result.output
    return [line.split("\t") for line in result.stdout.splitlines()]


@pytest.fixture
def server(disstream_server: Server) -> Server:
    """With stream orders (two partitions, five records in the first) and app billing."""
    for arguments in (
        ("stream", "create", "orders", "--partitions", "2"),
        ("app", "create", "billing"),
        ("produce", "orders", "--format", "records"),
    ):
        # The MD5 of key "a" falls into the first half of the hash space.
        lines = '{"data": "x", "key": "a"}\n' * 5
        done = invoke(disstream_server, *arguments, stdin=lines)
        assert done.exit_code == 0, done.output
    return disstream_server


def test_the_life_of_an_app(disstream_server: Server) -> None:
    """Created, listed, described, deleted; in a pipe the rows are fields separated by tabs, without a header."""
    assert invoke(disstream_server, "app", "create", "b").stdout == "created b\n"
    invoke(disstream_server, "app", "create", "a")
    invoke(disstream_server, "stream", "create", "s", "--partitions", "1")
    listed = rows(invoke(disstream_server, "app", "list"))
    assert [(row[0], row[2]) for row in listed] == [("a", ""), ("b", "")]
    assert invoke(disstream_server, "app", "describe", "a").stdout == ""
    invoke(disstream_server, "checkpoint", "set", "a", "s", "0", "latest")
    assert [row[2] for row in rows(invoke(disstream_server, "app", "list"))] == ["s", ""]
    assert [row[0] for row in rows(invoke(disstream_server, "app", "list", "--stream", "s"))] == ["a"]
    assert invoke(disstream_server, "app", "describe", "a").stdout == "s\n"
    assert invoke(disstream_server, "app", "delete", "a").stdout == "deleted a\n"
    assert [row[0] for row in rows(invoke(disstream_server, "app", "list"))] == ["b"]


def test_checkpoints_and_lag(server: Server) -> None:
    """What is set is shown as what is read next, and the lag counts from there; the sum stands last."""
    assert rows(invoke(server, "app", "lag", "billing", "orders")) == [
        [ZERO, "ACTIVE", "-", "5", "5"],
        [ONE, "ACTIVE", "-", "0", "0"],
        ["total", "", "", "", "5"],
    ]
    assert invoke(server, "checkpoint", "set", "billing", "orders", "0", "3").stdout == f"{ZERO}: next is 3\n"
    assert rows(invoke(server, "checkpoint", "show", "billing", "orders")) == [
        [ZERO, "ACTIVE", "3", "3", ""],
        [ONE, "ACTIVE", "-", "-", ""],
    ]
    assert [row[2:] for row in rows(invoke(server, "app", "lag", "billing", "orders"))] == [
        ["3", "5", "2"],
        ["-", "0", "0"],
        ["", "", "2"],
    ]
    done = invoke(server, "checkpoint", "set", "billing", "orders", "all", "latest")
    assert done.stdout == f"{ZERO}: next is 5\n{ONE}: next is 0\n"
    assert done.stderr == ""
    assert rows(invoke(server, "app", "lag", "billing", "orders"))[-1] == ["total", "", "", "", "0"]
    assert invoke(server, "checkpoint", "set", "billing", "orders", ZERO, "earliest").exit_code == 0
    assert rows(invoke(server, "app", "lag", "billing", "orders"))[-1] == ["total", "", "", "", "5"]

    deleted = invoke(server, "checkpoint", "delete", "billing", "orders", "1")
    assert deleted.stdout == f"deleted billing's checkpoint on orders {ONE}\n"
    assert [row[2] for row in rows(invoke(server, "checkpoint", "show", "billing", "orders"))] == ["0", "-"]
    deleted = invoke(server, "checkpoint", "delete", "billing", "orders")
    assert (deleted.exit_code, deleted.stdout) == (0, "deleted billing's checkpoints on orders\n")
    assert [row[2] for row in rows(invoke(server, "checkpoint", "show", "billing", "orders"))] == ["-", "-"]


@pytest.mark.parametrize(
    ("checkpoint", "earliest", "latest", "following", "left"),
    [
        (None, 4, 10, None, 6),
        (Checkpoint(7), 4, 10, 7, 3),
        (sealed(8, read=True), 4, 10, 8, 2),
        (sealed(10, read=True), 4, 10, 10, 0),
        (Checkpoint(2), 4, 10, 2, 6),
        (Checkpoint(9), 0, 0, 9, 0),
    ],
    ids=["none", "next", "last", "at the end", "expired", "nothing left"],
)
def test_what_is_left_to_read(
    checkpoint: Checkpoint | None, earliest: int, latest: int, following: int | None, left: int
) -> None:
    """Counted from what is read next, whoever wrote it, and never more than can be read."""
    state = PartitionState(partition_id=ZERO, checkpoint=checkpoint, earliest=earliest, latest=latest)
    assert progress(state) == (following, left)


def test_all_are_those_that_can_be_read() -> None:
    """DELETED partitions are set with all, EXPIRED ones are not; one by its name is, whatever it is."""
    states = [
        PartitionState(partition_id=f"p{n}", status=status, earliest=n, latest=9)
        for n, status in enumerate(("ACTIVE", "DELETED", "EXPIRED"))
    ]
    assert _goals(states, "s", "all", "earliest") == {"p0": 0, "p1": 1}
    assert _goals(states, "s", "all", "latest") == {"p0": 9, "p1": 9}
    assert _goals(states, "s", "p2", 4) == {"p2": 4}


def test_checkpoints_of_others_are_shown(server: Server) -> None:
    """Last read and next to read come out as what is read next; metadata is one line without control characters."""

    async def commit() -> None:
        ours = sealed(3, read=True, metadata="v2\n\x1b[31m")
        async with connect(server.url, project_id="demo") as dis:
            await dis.checkpoints.commit("billing", "orders", "0", ours.sequence_number, metadata=ours.metadata)
            await dis.checkpoints.commit("billing", "orders", "1", 0, metadata="theirs")

    anyio.run(commit)
    assert rows(invoke(server, "checkpoint", "show", "billing", "orders")) == [
        [ZERO, "ACTIVE", "3", "2", "v2..[31m"],
        [ONE, "ACTIVE", "0", "0", "theirs"],
    ]


def test_a_live_group_is_warned_of(server: Server, told: FakeMembers) -> None:
    """Setting goes through, and standard error says that members will commit over it, where the service tells them."""
    members = tuple(GroupMember(member_id=f"m{n}", partitions={"orders": [n]}, silent_s=0.5) for n in range(2))
    told.answer = GroupInfo(state="STABLE", generation=3, members=members)
    done = invoke(server, "checkpoint", "set", "billing", "orders", "0", "1")
    assert (done.exit_code, done.stdout) == (0, f"{ZERO}: next is 1\n")
    assert done.stderr.startswith("warning: 2 member(s) are reading for billing")
    told.answer = api_error("DIS.4200", "[no such path]", status=404)
    done = invoke(server, "checkpoint", "set", "billing", "orders", "0", "2")
    assert (done.exit_code, done.stderr) == (0, "")


def test_members(server: Server, told: FakeMembers) -> None:
    """One line a member: its partitions by stream, and how long it has been silent."""
    assert invoke(server, "app", "members", "billing").stdout == ""
    told.answer = GroupInfo(
        state="STABLE",
        generation=3,
        members=(
            GroupMember(member_id="m1", partitions={"t": [], "orders": [10, 2]}, silent_s=1.25),
            GroupMember(member_id="m2"),
        ),
    )
    assert rows(invoke(server, "app", "members", "billing")) == [
        ["m1", "1.2", "orders: 2, 10; t: -"],
        ["m2", "0.0", ""],
    ]


@pytest.mark.parametrize("status", [400, 404, 405])
def test_a_service_without_members(server: Server, told: FakeMembers, status: int) -> None:
    """One line says that this service does not tell; an unknown app is told as such."""
    told.answer = api_error("DIS.4200", "[no such path]", status=status)
    result = invoke(server, "app", "members", "billing")
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "does not tell the members" in result.stderr
    told.answer = api_error("DIS.4332", "[billing]", status=status)
    result = invoke(server, "app", "members", "billing")
    assert result.exit_code == 1
    assert "app not found. [billing]; `disstream app list`" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("app", "create", "billing"), 1, "DIS.4330"),
        (("app", "create", "a b"), 1, "DIS.4200"),
        (("app", "create", ""), 2, "an app needs a name"),
        (("app", "describe", "nope"), 1, "`disstream app create APP`"),
        (("app", "delete", "nope"), 1, "DIS.4332"),
        (("app", "lag", "nope", "orders"), 1, "DIS.4332"),
        (("app", "lag", "billing", "nope"), 1, "`disstream stream list`"),
        (("app", "list", "--stream", "nope"), 1, "DIS.4301"),
        (("checkpoint", "show", "billing", "nope"), 1, "DIS.4301"),
        (("checkpoint", "set", "billing", "orders", "2", "0"), 1, f"orders has no shardId-0000000002, only {ZERO}"),
        (("checkpoint", "set", "billing", "orders", "0", "6"), 1, f"6 is not written yet: {ZERO} ends before 5"),
        (("checkpoint", "set", "billing", "orders", "all", "3"), 1, f"3 is not written yet: {ONE} ends before 0"),
        (("checkpoint", "set", "billing", "orders", "x", "0"), 2, "'x' is neither a number, nor like"),
        (("checkpoint", "set", "billing", "orders", "0", "-1"), 2, "-1"),
        (("checkpoint", "set", "billing", "orders", "0", "oldest"), 2, "'oldest' is neither earliest nor latest"),
        (("checkpoint", "set", "billing", "orders", "0", str(2**63)), 2, "neither earliest nor latest"),
        (("checkpoint", "delete", "billing", "orders"), 1, "DIS.4375"),
        (("checkpoint", "delete", "billing", "orders", "9"), 1, "DIS.4302"),
        (("checkpoint", "delete", "billing", "orders", "x"), 2, "neither"),
    ],
)
def test_mistakes(server: Server, arguments: tuple[str, ...], code: int, words: str) -> None:
    """What the service refuses exits with 1 in one line, what was typed wrongly with 2; nothing is half done."""
    result = invoke(server, *arguments)
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert "Traceback" not in result.output
    if code == 1:
        assert len(result.stderr.splitlines()) == 1
    assert [row[2] for row in rows(invoke(server, "checkpoint", "show", "billing", "orders"))] == ["-", "-"]


def test_a_live_group_keeps_its_app(server: Server, group: FakeGroups) -> None:
    """An app whose members are reading is not deleted; the service's code is told."""
    group.reading = True
    result = invoke(server, "app", "delete", "billing")
    assert result.exit_code == 1
    assert "DIS.4331" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "answer", "left"), [((), "n\n", "3"), ((), "y\n", "-"), (("--yes",), "", "-"), (("1",), "", "3")]
)
def test_on_a_terminal_it_asks(
    server: Server, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], answer: str, left: str
) -> None:
    """Before the checkpoints of all partitions are deleted, unless --yes; not for one."""
    invoke(server, "checkpoint", "set", "billing", "orders", "0", "3")
    invoke(server, "checkpoint", "set", "billing", "orders", "1", "0")
    # Not by its dotted name: in the package that is the command.
    monkeypatch.setattr(importlib.import_module("disstream.cli.checkpoint"), "_asks", lambda: True)
    result = invoke(server, "checkpoint", "delete", "billing", "orders", *arguments, stdin=answer)
    assert result.exit_code == (1 if answer == "n\n" else 0)
    assert ("Delete all checkpoints of billing on orders?" in result.stderr) == bool(answer)
    assert rows(invoke(server, "checkpoint", "show", "billing", "orders"))[0][2] == left


def test_it_asks_on_a_real_terminal(server: Server) -> None:
    """The question is on the terminal, and no means no."""
    invoke(server, "checkpoint", "set", "billing", "orders", "0", "3")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "disstream", "checkpoint", "delete", "billing", "orders", "--endpoint", server.url]
    os.write(ours, b"n\n")
    done = subprocess.run(command, stdin=theirs, capture_output=True, text=True, timeout=60)
    os.close(theirs)
    os.close(ours)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Delete all checkpoints of billing on orders? [y/N]" in done.stderr
    assert rows(invoke(server, "checkpoint", "show", "billing", "orders"))[0][2] == "3"


def test_tables_on_a_terminal(server: Server) -> None:
    """Headers and a title; figures are whole on a narrow terminal."""
    endpoint = ("--endpoint", server.url)
    invoke(server, "checkpoint", "set", "billing", "orders", "0", "3")
    shown = on_terminal("app", "lag", "billing", "orders", *endpoint, columns=40)
    assert "billing on orders" in shown
    for whole in ("NEXT TO READ", ZERO, "total", "2"):
        assert whole in shown
    assert "METADATA" in on_terminal("checkpoint", "show", "billing", "orders", *endpoint)
