"""`disstream replay` reads a window of time again, once, in order, for an app of its own, and touches no other."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import click.testing
import pytest
from anyio.from_thread import start_blocking_portal

from disstream import Envelope, NewRecord, ProducerConfig, connect
from disstream.cli import main
from disstream.client.checkpoints import Checkpoints
from disstream.server import Server, ServerConfig
from disstream.wire.checkpoints import position

ZERO, ONE = "shardId-0000000000", "shardId-0000000001"

Run = Callable[..., click.testing.Result]


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(ServerConfig(data_dir=None, port=0, join_delay_s=0.0))
    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(server):
        yield server


@pytest.fixture
def run(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line in an empty directory; there is a stream `s` with 2 partitions."""
    environment = {"DISSTREAM_ENDPOINT": server.url, "DISSTREAM_PROJECT_ID": "demo"}
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str, text: bytes = b"") -> click.testing.Result:
        return click.testing.CliRunner().invoke(main, arguments, input=text, env=environment)

    assert invoke("stream", "create", "s", "--partitions", "2").exit_code == 0
    return invoke


def write(server: Server, numbers: range, partition: str = "0") -> None:
    async def put() -> None:
        async with connect(server.url, project_id="demo") as dis:
            records = [NewRecord(b"%d" % n, partition_id=partition) for n in numbers]
            (await dis.records.put("s", records)).raise_for_failed()

    anyio.run(put)


def places(server: Server, app: str) -> list[int | None]:
    """What the app reads next, partition by partition."""

    async def ask() -> list[int | None]:
        async with connect(server.url, project_id="demo") as dis:
            states = await dis.apps.state(app, "s")
            return [None if s.checkpoint is None else position(s.checkpoint)[0] for s in states]

    return anyio.run(ask)


def later_than_all(server: Server) -> str:
    """A time behind everything that is written, before everything to come: by the clock that all of them share."""

    async def ask() -> int:
        async with connect(server.url, project_id="demo") as dis:
            await dis.records.put("s", [NewRecord(b"mark", partition_id="1")])
            info = await dis.streams.describe("s")
            found = info.partitions[1].sequence_range
            assert found is not None
            page = await dis.records.get(await dis.cursors.get("s", "1", sequence_number=found.end - 1))
            return page.records[0].timestamp

    wanted = anyio.run(ask)
    while datetime.now(UTC).timestamp() * 1000 <= wanted + 1:  # a millisecond has to pass
        pass
    return (datetime.fromtimestamp(wanted / 1000, UTC) + timedelta(milliseconds=1)).isoformat()


def data(result: click.testing.Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [json.loads(line)["data"] for line in result.stdout.splitlines()]


def test_a_window_is_read_once(run: Run, server: Server) -> None:
    """--from is in it, --to is not; the same command again has nothing to do; the real app stays where it was."""
    write(server, range(5))
    begin = later_than_all(server)
    write(server, range(5, 9))
    end = later_than_all(server)
    write(server, range(9, 12))
    assert run("app", "create", "real").exit_code == 0
    assert run("checkpoint", "set", "real", "s", "all", "latest").exit_code == 0
    window = ("replay", "s", "--from", begin, "--to", end, "--app", "shadow")
    first = run(*window, "--partition", "0")
    assert data(first) == ["5", "6", "7", "8"]
    assert first.stderr == "replayed 4 records of s for shadow\n"
    assert places(server, "shadow") == [9, None]
    whole = data(run(*window))
    assert whole == ["mark"], "of the other partition, in the window by its own millisecond"
    again = run(*window)
    assert (data(again), again.stderr) == ([], "replayed 0 records of s for shadow\n")
    assert places(server, "real") == [12, 2]
    assert sorted(data(run(*window, "--force"))) == ["5", "6", "7", "8", "mark"]
    assert data(run("replay", "s", "--from", "2020-01-01", "--to", begin, "--app", "other", "--partition", "0")) == [
        str(n) for n in range(5)
    ]


def test_the_end_is_that_of_the_start(run: Run, server: Server) -> None:
    """Without --to it ends at what was the newest record; run again later, it goes on from there."""
    write(server, range(3))
    window = ("replay", "s", "--from", "earliest", "--app", "shadow", "--format", "raw")
    assert run(*window).stdout == "0\n1\n2\n"
    write(server, range(3, 5))
    assert run(*window).stdout == "3\n4\n"
    future = run("replay", "s", "--from", "earliest", "--to", "2120-01-01", "--app", "other", "--format", "raw")
    assert future.stdout == "0\n1\n2\n3\n4\n"


def test_only_its_own_checkpoints_are_gone_on_from(run: Run, server: Server) -> None:
    """An app that reads for itself, and one that replays another window, are left alone, unless --force says so."""
    write(server, range(5))
    assert run("consume", "s", "--app", "real", "--max", "2").exit_code == 0
    refused = run("replay", "s", "--from", "earliest", "--app", "real")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert f"real has a checkpoint on {ZERO} that no replay wrote (next to read: 2)" in refused.stderr
    assert run("replay", "s", "--from", "earliest", "--app", "shadow").exit_code == 0
    refused = run("replay", "s", "--from", "2020-01-01T00:00+00:00", "--app", "shadow")
    assert refused.exit_code == 1
    assert "of a replay from earliest to latest (next to read: 5)" in refused.stderr
    assert len(data(run("replay", "s", "--from", "2020-01-01T00:00+00:00", "--app", "shadow", "--force"))) == 5
    # The same instant, otherwise spelt, is the same window.
    assert data(run("replay", "s", "--from", "2020-01-01T01:00+01:00", "--app", "shadow")) == []


def test_an_app_with_members_is_refused(run: Run, server: Server) -> None:
    """Whoever reads for it would commit over the replay, and the replay over them."""
    write(server, range(2))

    async def join() -> None:
        async with connect(server.url, project_id="demo") as dis:
            await dis.apps.create("live")
            await dis.groups.join("live", "m1", streams=["s"])

    anyio.run(join)
    refused = run("replay", "s", "--from", "earliest", "--app", "live", "--force")
    assert (refused.exit_code, "m1 read for live" in refused.stderr) == (1, True)
    assert places(server, "live") == [None, None]


HANDLERS = """
import disstream

seen = []
again = 0


def plain(record):
    print("plain", record.text())


async def waiting(record):
    print("waiting", record.text())


def poison(record):
    if record.text() == "3":
        raise ValueError("no such order")
    print("fine", record.text())


number = 7
"""


@pytest.mark.parametrize("name", ["plain", "waiting"])
def test_a_handler_gets_each_record(run: Run, server: Server, tmp_path: Path, name: str) -> None:
    """A function or a coroutine function, from a module in the working directory; in order."""
    write(server, range(4))
    module = f"handlers_{name}"
    (tmp_path / f"{module}.py").write_text(HANDLERS)
    done = run("replay", "s", "--from", "earliest", "--app", "shadow", "--handler", f"{module}:{name}")
    assert (done.exit_code, done.stdout) == (0, "".join(f"{name} {n}\n" for n in range(4)))
    assert done.stderr == "replayed 4 records of s for shadow\n"


def test_a_slow_handler_leaves_no_more_behind(
    run: Run, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is committed every few seconds also in the middle of what was fetched: here after each record."""
    # Not by its dotted name: in the package that is the command.
    monkeypatch.setattr(importlib.import_module("disstream.cli.replay"), "COMMIT_S", 0.0)
    write(server, range(4))
    seen: list[int] = []
    commit = Checkpoints.commit

    async def committed(self: Checkpoints, *args: object, **more: object) -> None:
        if args[2] == ZERO:
            seen.append(int(str(args[3])))
        await commit(self, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Checkpoints, "commit", committed)
    assert run("replay", "s", "--from", "earliest", "--app", "shadow").exit_code == 0
    assert seen == [0, 1, 2, 3, 4]


def test_a_handler_that_raises_ends_it(run: Run, server: Server, tmp_path: Path) -> None:
    """With its traceback and one line that names the record; the next run begins with it."""
    write(server, range(6))
    (tmp_path / "handlers_bad.py").write_text(HANDLERS)
    command = ("replay", "s", "--from", "earliest", "--app", "shadow", "--handler", "handlers_bad:poison")
    for done in (run(*command), run(*command)):
        assert done.exit_code == 1
        assert "ValueError: no such order" in done.stderr
        assert f"the handler raised ValueError at record 3 of {ZERO}" in done.stderr.splitlines()[-1]
        assert "3 left" in done.stderr
        assert places(server, "shadow") == [3, 0]
    assert done.stdout == ""
    mended = run("replay", "s", "--from", "earliest", "--app", "shadow", "--handler", "handlers_bad:plain")
    assert mended.stdout == "plain 3\nplain 4\nplain 5\n"


def test_records_of_one_envelope_are_done_together(run: Run, server: Server, tmp_path: Path) -> None:
    """They share a number: stopped among them, the next run begins with the first of them."""

    async def send() -> None:
        config = ProducerConfig(envelope=Envelope(), linger_s=60.0)
        async with connect(server.url, project_id="demo") as dis, dis.producer("s", config) as producer:
            await producer.send_many([(b"%d" % n, "a") for n in range(6)])
            await producer.flush()

    anyio.run(send)
    (tmp_path / "handlers_envelope.py").write_text(HANDLERS)
    command = ("replay", "s", "--from", "earliest", "--app", "shadow", "--handler")
    assert run(*command, "handlers_envelope:poison").exit_code == 1
    assert places(server, "shadow")[0] == 0
    assert run(*command, "handlers_envelope:plain").stdout == "".join(f"plain {n}\n" for n in range(6))
    assert places(server, "shadow")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--from", "7", "--app", "x"), 2, "--from 7: give a time or earliest"),
        (("--from", "latest", "--app", "x"), 2, "give a time or earliest"),
        (("--from", "earliest", "--to", "9", "--app", "x"), 2, "--to 9: give a time or latest"),
        (("--from", "2026-01-02", "--to", "2026-01-01", "--app", "x"), 2, "must be later than"),
        (("--from", "earliest"), 2, "--app"),
        (("--app", "x"), 2, "--from"),
        (("--from", "earliest", "--app", ""), 2, "it is empty"),
        (("--from", "earliest", "--app", "a b"), 1, "DIS.4200"),
        (("--from", "earliest", "--app", "x", "--partition", "5"), 2, f"s has {ZERO}, {ONE}"),
        (("--from", "earliest", "--app", "x", "--handler", "nope"), 2, "give MODULE:NAME"),
        (("--from", "earliest", "--app", "x", "--handler", "nope_at_all:f"), 2, "there is no module 'nope_at_all'"),
        (("--from", "earliest", "--app", "x", "--handler", "json:nope"), 2, "'json' has no 'nope'"),
        (("--from", "earliest", "--app", "x", "--handler", "json:__name__"), 2, "str, and cannot be called"),
    ],
)
def test_wrong_use(run: Run, arguments: tuple[str, ...], code: int, words: str) -> None:
    """Told with the remedy, in no traceback."""
    done = run("replay", "s", *arguments)
    assert (done.exit_code, words in done.stderr) == (code, True), done.output
    assert "Traceback" not in done.output


def test_a_stream_that_is_not_there(run: Run) -> None:
    """One line with the service's code."""
    done = run("replay", "nope", "--from", "earliest", "--app", "x")
    assert (done.exit_code, "DIS.4301" in done.stderr, len(done.stderr.splitlines())) == (1, True, 1)


def test_interrupted_it_goes_on(run: Run, server: Server, tmp_path: Path) -> None:
    """Ctrl-C commits what was handled; the exit code says that the end was not reached."""
    write(server, range(50))
    (tmp_path / "slow.py").write_text(
        "import asyncio\n\n\nasync def handle(record):\n    print(record.text(), flush=True)\n"
        "    if record.text() == '20':\n        await asyncio.Event().wait()\n"
    )
    environment = {**os.environ, "DISSTREAM_ENDPOINT": server.url, "DISSTREAM_PROJECT_ID": "demo"}
    command = [sys.executable, "-m", "disstream", "replay", "s", "--from", "earliest", "--app", "shadow"]
    with subprocess.Popen(
        [*command, "--handler", "slow:handle"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=tmp_path,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert [process.stdout.readline() for _ in range(21)][-1] == "20\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 1
        told = process.stderr.read()
    assert "replayed 20 records of s for shadow, 30 left" in told
    assert "interrupted before the end: the same command goes on there" in told
    assert places(server, "shadow") == [20, 0]
    rest = run("replay", "s", "--from", "earliest", "--app", "shadow", "--format", "raw").stdout.split()
    assert rest == [str(n) for n in range(20, 50)]


def test_what_cannot_be_committed_is_told(run: Run, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that is refused at the end ends in one line and exit code 1, not in silence."""
    write(server, range(3))
    commit = Checkpoints.commit
    calls = 0

    async def refused(self: Checkpoints, *args: object, **more: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 2:  # the first two pin the window
            await self.get("nobody", "s", "0")
        await commit(self, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Checkpoints, "commit", refused)
    done = run("replay", "s", "--from", "earliest", "--app", "shadow", "--format", "raw")
    assert (done.exit_code, done.stdout) == (1, "0\n1\n2\n")
    assert "DIS.4332" in done.stderr
