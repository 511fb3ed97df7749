"""`disstream consume --app` commits what it printed, and the next one goes on behind it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import click.testing
import pytest
from anyio.from_thread import start_blocking_portal

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


def test_an_app_name_must_be_one(run: Run) -> None:
    """Empty or impossible: told, nothing is read."""
    assert run("consume", "s", "--app", "").exit_code == 2
    result = run("consume", "s", "--app", "a b", "--max", "1")
    assert result.exit_code == 1
    assert "a b" in result.output
