"""`disstream consume --app` commits what it printed, and the next one goes on behind it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import click.testing
import pytest
from anyio.from_thread import start_blocking_portal

from disstream import Consumer, ConsumerConfig, LeaseLost, Record, ServiceGroup, connect
from disstream.cli import main
from disstream.server import Server, ServerConfig

Run = Callable[..., click.testing.Result]


@pytest.fixture
def server() -> Iterator[Server]:
    """One whose groups do not wait for members that start together."""
    server = Server(ServerConfig(data_dir=None, port=0, join_delay_s=0.0))
    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(server):
        yield server


@pytest.fixture
def run(server: Server) -> Run:
    """Runs a command line against a server with the stream `s` of 2 partitions and 10 records."""
    environment = {"DISSTREAM_ENDPOINT": server.url, "DISSTREAM_PROJECT_ID": "demo"}

    def invoke(*arguments: str, text: bytes = b"") -> click.testing.Result:
        return click.testing.CliRunner().invoke(main, arguments, input=text, env=environment)

    assert invoke("stream", "create", "s", "--partitions", "2").exit_code == 0
    assert invoke("produce", "s", text=b"".join(b"%d\n" % n for n in range(10))).exit_code == 0
    return invoke


def printed(result: click.testing.Result) -> list[int]:
    assert result.exit_code == 0, result.output
    return [int(json.loads(line)["data"]) for line in result.stdout.splitlines()]


def test_each_run_goes_on_where_the_last_one_stopped(run: Run) -> None:
    """With --max and with --no-follow; nothing twice, nothing left out; another app has its own place."""
    seen = printed(run("consume", "s", "--app", "a", "--max", "4"))
    assert len(seen) == 4
    seen += printed(run("consume", "s", "--app", "a", "--no-follow"))
    assert sorted(seen) == list(range(10))
    assert printed(run("consume", "s", "--app", "a", "--no-follow")) == []
    assert len(printed(run("consume", "s", "--app", "b", "--no-follow"))) == 10


def test_chosen_partitions_need_no_group(run: Run) -> None:
    """--partition with --app reads alone, and commits too."""
    first = printed(run("consume", "s", "--app", "a", "--partition", "0", "--no-follow"))
    rest = printed(run("consume", "s", "--app", "a", "--no-follow"))
    assert sorted(first + rest) == list(range(10))
    assert first


def test_ctrl_c_commits_what_was_printed(run: Run, server: Server) -> None:
    """Exit code 0; the next one does not see it again."""
    environment = {**os.environ, "DISSTREAM_ENDPOINT": server.url, "DISSTREAM_PROJECT_ID": "demo"}
    command = [sys.executable, "-m", "disstream", "consume", "s", "--app", "a", "--format", "raw"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(10):
            process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stderr.read() == b""
    assert printed(run("consume", "s", "--app", "a", "--no-follow")) == []


@contextlib.asynccontextmanager
async def two_members(url: str) -> AsyncIterator[None]:
    """Two consumers of the app `a` that share `s`."""
    shared = anyio.Event()
    config = ConsumerConfig(
        coordination=ServiceGroup(accelerate=True, heartbeat_s=0.2),
        on_assigned=lambda partitions: shared.set() if len(partitions) == 1 else None,
    )
    async with connect(url, project_id="demo") as dis, dis.consumer("s", config, app="a"):
        async with dis.consumer("s", config, app="a"):
            with anyio.fail_after(30.0):
                await shared.wait()
            yield


def test_a_member_that_gets_no_partition_ends(run: Run, server: Server) -> None:
    """With --no-follow, where the others hold all of them: it says so, instead of waiting for records for ever."""
    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(two_members(server.url)):
        result = run("consume", "s", "--app", "a", "--no-follow")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "the other members of a hold all partitions of s" in result.stderr


def test_a_group_that_does_not_form_is_given_up(run: Run, server: Server) -> None:
    """With --no-follow, after --timeout: one that joined and went silent keeps the others waiting for longer."""

    async def join_and_go() -> None:
        async with connect(server.url, project_id="demo") as dis:
            await dis.apps.create("a")
            await dis.groups.join("a", "silent", streams=["s"], rebalance_timeout_s=60.0)

    anyio.run(join_and_go)
    result = run("consume", "s", "--app", "a", "--no-follow", "--timeout", "1")
    assert result.exit_code == 1
    assert "no partition was assigned for 1 s" in result.stderr


def test_sigterm_ends_a_command_that_is_deaf_to_ctrl_c(run: Run, server: Server) -> None:
    """As a shell starts it in the background of a script: it commits what it printed, and leaves."""
    environment = {**os.environ, "DISSTREAM_ENDPOINT": server.url, "DISSTREAM_PROJECT_ID": "demo"}
    consume = f"exec {sys.executable} -m disstream consume s --app a --format raw"
    command = ["sh", "-c", f"trap '' INT; {consume}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(10):
            process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr.read() == b""
    assert printed(run("consume", "s", "--app", "a", "--no-follow")) == []


def test_a_pipe_that_was_full_for_long_is_survived(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The partitions were given up meanwhile: that is told, and reading goes on."""
    fetch = Consumer.fetch
    blocked = iter([LeaseLost("the event loop was blocked")])

    async def fetch_after_a_block(consumer: Consumer, **options: Any) -> list[Record]:
        records = await fetch(consumer, **options)
        if records and (error := next(blocked, None)):
            raise error
        return records

    monkeypatch.setattr(Consumer, "fetch", fetch_after_a_block)
    result = run("consume", "s", "--app", "a", "--max", "1")
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)
    assert "a: the event loop was blocked" in result.stderr


def test_an_app_name_must_be_one(run: Run) -> None:
    """Empty or impossible: told, nothing is read."""
    assert run("consume", "s", "--app", "").exit_code == 2
    result = run("consume", "s", "--app", "a b", "--max", "1")
    assert result.exit_code == 1
    assert "a b" in result.output
