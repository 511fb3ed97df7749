"""`disstream worker`: a handler in a process of its own; signals, health, dead letters, resume, and what is told."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click.testing
import pytest
from anyio.from_thread import start_blocking_portal

from disstream.cli import main
from disstream.server import Server, ServerConfig

Run = Callable[..., click.testing.Result]

HANDLERS = """
import asyncio
import pathlib
import threading
import time

import disstream

async def show(record):
    print(record.text(), flush=True)

def plain(record):
    print(record.text(), threading.current_thread() is threading.main_thread(), flush=True)

async def slow(record):
    print("begin", record.text(), flush=True)
    while not pathlib.Path("go").exists():
        await asyncio.sleep(0.01)
    print("end", record.text(), flush=True)

async def stuck(record):
    print("begin", record.text(), flush=True)
    await asyncio.sleep(1000)

async def blocks(record):
    print("begin", record.text(), flush=True)
    while not pathlib.Path("go").exists():
        time.sleep(0.01)

async def picky(record):
    if record.text() == "3" and not pathlib.Path("go").exists():
        raise disstream.Reject("not a three")
    print(record.text(), flush=True)

async def leaves(record):
    raise SystemExit(7)

number = 7
"""


@pytest.fixture
def server() -> Iterator[Server]:
    """One whose groups do not wait for members that start together."""
    server = Server(ServerConfig(data_dir=None, port=0, join_delay_s=0.0))
    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(server):
        yield server


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with handlers.py in it."""
    (tmp_path / "handlers.py").write_text(HANDLERS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(server: Server, place: Path) -> Run:
    """Runs a command line against a server with the stream `s` of one partition and 5 records."""
    environment = {"DISSTREAM_ENDPOINT": server.url, "DISSTREAM_PROJECT_ID": "demo"}

    def invoke(*arguments: str, text: bytes = b"") -> click.testing.Result:
        return click.testing.CliRunner().invoke(main, arguments, input=text, env=environment)

    for stream in ("s", "dead"):
        assert invoke("stream", "create", stream, "--partitions", "1").exit_code == 0
    assert invoke("produce", "s", text=b"".join(b"%d\n" % n for n in range(5))).exit_code == 0
    return invoke


class Process:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self._lines = process.stdout

    def lines(self, count: int) -> list[str]:
        return [self._lines.readline().strip() for _ in range(count)]

    def line_with(self, text: str) -> str:
        for line in self._lines:
            if text in line:
                return line.strip()
        raise AssertionError(f"it never said {text!r}")

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> tuple[int, list[str]]:
        """The exit code, and what it still said."""
        rest = self._lines.read().splitlines()
        return self._process.wait(30), rest


@contextlib.contextmanager
def worker(server: Server, *arguments: str) -> Iterator[Process]:
    environment = {**os.environ, "DISSTREAM_ENDPOINT": server.url, "DISSTREAM_PROJECT_ID": "demo"}
    command = [sys.executable, "-W", "error", "-m", "disstream", "worker", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, bufsize=1
    ) as process:
        try:
            yield Process(process)
        finally:
            if process.poll() is None:
                process.kill()


ON_S = ("--stream", "s", "--app", "a", "--order", "partition")


def lag(run: Run) -> int:
    return int(run("app", "lag", "a", "s").stdout.split()[-1])


def test_workers_share_by_leases(run: Run, server: Server, place: Path) -> None:
    """With --leases the store says who reads what and keeps the checkpoints: the next one goes on behind the last."""
    by_leases = ("--leases", f"sqlite:///{place}/leases.db")
    with worker(server, "handlers:show", *ON_S, *by_leases) as process:
        for number in range(5):
            assert process.line_with(str(number)) == str(number)
        process.signal(signal.SIGTERM)
        assert process.end()[0] == 0
    assert run("app", "lag", "a", "s", "--store", by_leases[1]).stdout.split()[-1] == "0"
    assert run("produce", "s", text=b"5\n").exit_code == 0
    with worker(server, "handlers:show", *ON_S, *by_leases) as process:
        assert process.line_with("5") == "5"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_gracefully(run: Run, server: Server, place: Path, number: signal.Signals) -> None:
    """A call under way ends first; it is committed, no other begins; the last line counts; exit code 0."""
    with worker(server, "handlers:slow", *ON_S) as process:
        assert process.line_with("begin") == "begin 0"
        process.signal(number)
        assert process.line_with("stopping").startswith("stopping, with 1 call(s) under way")
        (place / "go").touch()
        code, rest = process.end()
    assert code == 0, rest
    assert rest[-1] == "handled 1, failed 0, dead letters 0, retried 0, timed out 0, cancelled 0"
    assert "end 0" in rest
    assert lag(run) == 4


def test_a_second_signal_does_not_wait(run: Run, server: Server) -> None:
    """The call is cancelled, nothing of it is committed; exit code 0 all the same."""
    with worker(server, "handlers:stuck", *ON_S, "--drain-timeout", "1000") as process:
        process.line_with("begin")
        process.signal(signal.SIGTERM)
        process.line_with("stopping")
        process.signal(signal.SIGINT)
        code, rest = process.end()
    assert (code, rest[-1]) == (0, "handled 0, failed 0, dead letters 0, retried 0, timed out 0, cancelled 1")
    assert lag(run) == 5


def test_a_plain_function_runs_in_a_thread(run: Run, server: Server) -> None:
    """And what it handled is committed."""
    with worker(server, "handlers:plain", *ON_S) as process:
        process.line_with("working for a on s")
        assert process.lines(5) == [f"{n} False" for n in range(5)]
        process.signal(signal.SIGTERM)
        assert process.end()[0] == 0
    assert lag(run) == 0


def answer(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_health_is_answered_while_a_handler_blocks(run: Run, server: Server, place: Path) -> None:
    """/live says 503 once the loop was blocked for health_stall_s, and 200 again; /ready tells what is held."""
    code = "import handlers, asyncio, disstream, os\n" + (
        "async def main():\n"
        "    async with disstream.connect() as dis:\n"
        "        config = disstream.WorkerConfig(\n"
        "            streams=['s'], app='a', order='partition', health_port=0, health_stall_s=0.5)\n"
        "        worker = disstream.Worker(dis, handlers.blocks, config)\n"
        "        run = asyncio.create_task(worker.run())\n"
        "        while worker.health_url is None:\n"
        "            await asyncio.sleep(0.01)\n"
        "        print(worker.health_url, flush=True)\n"
        "        await run\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "DISSTREAM_ENDPOINT": server.url, "DISSTREAM_PROJECT_ID": "demo"}
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code], stdout=subprocess.PIPE, text=True, env=environment, bufsize=1
    ) as popen:
        try:
            process = Process(popen)
            url = process.line_with("http")
            process.line_with("begin 0")
            status, told = answer(f"{url}/live")
            while status == 200:
                status, told = answer(f"{url}/live")
            assert status == 503
            assert "a handler blocks it" in told["reason"]
            (place / "go").touch()
            process.lines(4)
            while status != 200:
                status, told = answer(f"{url}/live")
            status, told = answer(f"{url}/ready")
            assert (status, told["state"], told["reason"]) == (200, "running", "holding 1 partition(s)")
            while told["stats"]["handled"] < 5:
                told = answer(f"{url}/ready")[1]
            assert told["stats"]["partitions"]["s/shardId-0000000000"]["held_records"] == 0
            popen.send_signal(signal.SIGTERM)
            assert popen.wait(30) == 0
        finally:
            if popen.poll() is None:
                popen.kill()
    assert lag(run) == 0


def test_dead_letters_and_health_from_the_command_line(run: Run, server: Server) -> None:
    """The record that is rejected goes to the letters, the others are handled."""
    with worker(server, "handlers:picky", *ON_S, "--dead-letters", "stream:dead", "--health-port", "0") as process:
        url = re.search(r"health at (http://\S+)", process.line_with("working for a on s"))
        assert url
        assert answer(f"{url[1]}/ready")[0] == 200
        process.line_with("4")
        process.signal(signal.SIGTERM)
        code, rest = process.end()
    assert (code, rest[-1]) == (0, "handled 4, failed 1, dead letters 1, retried 0, timed out 0, cancelled 0")
    assert lag(run) == 0


def test_a_suspended_partition_is_resumed(run: Run, server: Server, place: Path) -> None:
    """It stops loudly at the record, also for the next worker; after resume it goes on there, whoever runs then."""
    with worker(server, "handlers:picky", *ON_S) as process:
        assert "is suspended at 3: Reject: not a three" in process.line_with("is suspended")
        process.signal(signal.SIGTERM)
        assert process.end()[0] == 0
    assert lag(run) == 2
    (place / "go").touch()
    result = run("worker", "resume", "a", "s")
    assert (result.exit_code, result.stdout) == (
        0,
        "shardId-0000000000: may go on; it stopped at 3: Reject: not a three\n",
    )
    with worker(server, "handlers:picky", *ON_S) as process:
        process.line_with("3")
        process.line_with("4")
        process.signal(signal.SIGTERM)
        assert process.end()[0] == 0
    assert lag(run) == 0
    result = run("worker", "resume", "a", "s")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        1,
        "Error: no partition of s is suspended for a (of workers that share by leases give the --store)",
    )
    assert run("worker", "resume", "a", "s", "0").stdout.endswith("its checkpoint tells of no suspension\n")
    assert run("worker", "resume", "a", "s", "7").exit_code == 2
    assert run("worker", "resume", "b", "s").exit_code == 1


def test_a_killed_worker_is_replaced(place: Path) -> None:
    """kill -9 in the middle of a call: the next worker begins with that record, and everything is handled."""
    server = Server(ServerConfig(data_dir=None, port=0, join_delay_s=0.0, session_timeout_s=2.0))
    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(server):
        environment = {"DISSTREAM_ENDPOINT": server.url, "DISSTREAM_PROJECT_ID": "demo"}

        def invoke(*arguments: str, text: bytes = b"") -> click.testing.Result:
            return click.testing.CliRunner().invoke(main, arguments, input=text, env=environment)

        assert invoke("stream", "create", "s", "--partitions", "1").exit_code == 0
        assert invoke("produce", "s", text=b"0\n1\n2\n").exit_code == 0
        with worker(server, "handlers:slow", *ON_S) as victim:
            assert victim.line_with("begin") == "begin 0"
            (place / "go").touch()
            assert victim.line_with("begin") == "begin 1"
            victim.signal(signal.SIGKILL)
            assert victim.end()[0] == -signal.SIGKILL
        with worker(server, "handlers:slow", *ON_S) as heir:
            heir.line_with("end 2")
            heir.signal(signal.SIGTERM)
            assert heir.end()[0] == 0
        assert invoke("app", "lag", "a", "s").stdout.split()[-1] == "0"


def test_what_a_handler_leaves_with_is_the_exit_code(run: Run, server: Server) -> None:
    """SystemExit(7) ends the worker and the process."""
    with worker(server, "handlers:leaves", *ON_S) as process:
        assert process.end()[0] == 7
    assert lag(run) == 5


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nowhere:bill", *ON_S), "there is no module 'nowhere'"),
        (("handlers:nothing", *ON_S), "'handlers' has no 'nothing'"),
        (("handlers:number", *ON_S), "int, and cannot be called"),
        (("handlers", *ON_S), "give MODULE:NAME"),
        (("handlers:show", *ON_S, "--leases", "nonsense"), "the address of the leases has no '://'"),
        (("broken:bill", *ON_S), "cannot be imported: ZeroDivisionError"),
        (("needy:bill", *ON_S), "needs what is not there"),
        (("handlers:show", "--app", "a"), "say what to read"),
        (("handlers:show", *ON_S, "--pattern", "x"), "say what to read"),
        (("handlers:show", *ON_S, "--on-failure", "park"), "needs dead_letters"),
        (("handlers:show", *ON_S, "--dead-letters", "nonsense"), "say stream:NAME"),
    ],
)
def test_bad_usage_is_told_in_a_line(run: Run, place: Path, arguments: tuple[str, ...], told: str) -> None:
    """Exit code 2, with what to do."""
    (place / "broken.py").write_text("1 / 0\n")
    (place / "needy.py").write_text("import not_installed_anywhere\n")
    result = run("worker", *arguments)
    assert (result.exit_code, told in result.stderr) == (2, True), result.output


def test_a_service_that_says_no(run: Run) -> None:
    """No such stream: exit code 1, in one line."""
    result = run("worker", "handlers:show", "--stream", "none", "--app", "a")
    assert result.exit_code == 1
    assert "DIS.4301" in result.stderr
