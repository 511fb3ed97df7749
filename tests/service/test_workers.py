"""A server whose requests are taken in by other processes: what happens between it and them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import click.testing
import pytest
from certificates import certified
from server_http import data

from disstream.cli import main
from disstream.client import Client, ClientConfig
from disstream.engine import AppendRefused, Entry, Replayed
from disstream.engine.memory import MemoryEngine, MemoryLog
from disstream.errors import ConfigError, DisError, StorageError, TransportError
from disstream.model import NewRecord
from disstream.server import App, Server, ServerConfig
from disstream.server import fronts as fronts_module
from disstream.server.fronts import Fronts
from disstream.server.heartbeat import BEAT_S, MISSED, Heartbeat
from disstream.testing.clock import run_simulated
from disstream.wire.http import Request, Response
from disstream.wire.notices import Pushed, Watched, encode_notices

PROJECT = "p"
ALL = [Watched("s", "", [(0, 0)])]
ONCE = ClientConfig(attempts=1)
PUT = json.dumps({"stream_name": "s", "records": [{"data": data(b"x"), "partition_key": "k"}]})


class GatedLog(MemoryLog):
    """Appends wait until the test opens the gate."""

    def __init__(self, engine: MemoryEngine) -> None:
        super().__init__(engine._life)
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def append(self, entries: Any, now_ms: int) -> list[int | AppendRefused | Replayed]:
        entries = list[Entry](entries)
        self.entered.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return await super().append(entries, now_ms)


class World:
    """An application behind two fronts, with a stream "s"."""

    def __init__(self, app: App, log: GatedLog, fronts: Fronts, url: str, caplog: pytest.LogCaptureFixture) -> None:
        self.app = app
        self.log = log
        self.fronts = fronts
        self.url = url
        self._caplog = caplog

    @property
    def pids(self) -> list[tuple[int, int]]:
        """(number of a worker, its process), in the order in which they were started."""
        return [r.args for r in self._caplog.records if r.msg.startswith("worker %d serves")]  # type: ignore[misc]

    @property
    def connections(self) -> list[int]:
        """Of each front."""
        return [line.connections for line in self.fronts._lines if line is not None]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, _, port = self.url.partition("//")[2].rpartition(":")
        return await asyncio.open_connection(host, int(port))


@asynccontextmanager
async def world(caplog: pytest.LogCaptureFixture, level: int = logging.INFO, **config: Any) -> AsyncIterator[World]:
    caplog.set_level(level, "disstream.server")
    engine = MemoryEngine()
    log = engine._log = GatedLog(engine)
    await engine.start()
    settings = ServerConfig(**{"data_dir": None, "port": 0, "workers": 2, **config})
    app = App(engine, settings)
    body = json.dumps({"stream_name": "s", "partition_count": 1}).encode()
    assert (await app.handle(Request(method="POST", target="/v2/p/streams", body=body))).status == 201
    fronts = Fronts(app, settings)
    async with fronts.listen() as url:
        yield World(app, log, fronts, url, caplog)
    await engine.close()


async def until(true: Callable[[], bool]) -> None:
    """Turn the loop until other processes have made it true."""
    with anyio.fail_after(60):
        while not true():
            await anyio.lowlevel.checkpoint()


async def ask(pair: tuple[asyncio.StreamReader, asyncio.StreamWriter], method: str, path: str, body: str = "") -> int:
    """The status of the answer on an open connection, 0 if it ends instead."""
    reader, writer = pair
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0
    size = int(head.lower().partition(b"content-length:")[2].split()[0])
    await reader.readexactly(size)
    return int(head.split()[1])


async def test_connections_are_dealt_evenly_and_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Each goes to the front with the fewest; more than max_connections of all together are closed, until one ends.

    A signal that is meant for the server ends no front.
    """
    async with world(caplog, max_connections=5) as server, AsyncExitStack() as stack:
        pairs = []
        for _ in range(5):
            pair = await server.connect()
            stack.callback(pair[1].close)
            assert await ask(pair, "GET", "/v2/p/streams") == 200
            pairs.append(pair)
        assert sorted(server.connections) == [2, 3]
        for _, pid in server.pids:
            os.kill(pid, signal.SIGTERM)  # as systemd does to all of a service: the core alone decides
        for pair in pairs:
            assert await ask(pair, "GET", "/v2/p/streams") == 200
        extra = await server.connect()
        stack.callback(extra[1].close)
        assert await ask(extra, "GET", "/v2/p/streams") == 0
        pairs[0][1].close()
        await until(lambda: sum(server.connections) == 4)
        again = await server.connect()
        stack.callback(again[1].close)
        assert await ask(again, "GET", "/v2/p/streams") == 200


async def test_a_front_that_is_killed_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    """Its connections are cut and its calls cancelled; those of the other go on, and a new one takes its place."""
    async with (
        world(caplog) as server,
        Client(server.url, PROJECT, config=ONCE) as one,
        Client(server.url, PROJECT, config=ONCE) as two,
        Client(server.url, PROJECT, config=ONCE) as three,
        Client(server.url, PROJECT, config=ONCE) as four,
    ):
        for client in (one, two, three, four):
            await client.streams.describe("s")
        async with one.notices.open(ALL) as frames, two.notices.open(ALL) as others:
            assert await anext(frames) == await anext(others) == []
            assert server.app.notices.open_answers == 2
            outcomes: list[BaseException | None] = []

            async def put(client: Client) -> None:
                try:
                    await client.records.put("s", [NewRecord(b"x")])
                except TransportError as exc:
                    outcomes.append(exc)
                else:
                    outcomes.append(None)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(put, three)
                tasks.start_soon(put, four)
                await until(lambda: server.app._records.admission.pending_bytes > 150)  # both wait in the log
                worker, pid = server.pids[0]
                os.kill(pid, signal.SIGKILL)
                await until(lambda: server.app.notices.open_answers == 1)
                await server.log.cancelled.wait()
                server.log.gate.set()
            assert [exc is None for exc in outcomes].count(True) == 1
            lost = next(exc for exc in outcomes if exc is not None)
            assert isinstance(lost, TransportError)
            assert lost.outcome_unknown
            assert server.app._records.admission.pending_bytes == 0
            await until(lambda: len(server.pids) == 3)
            assert server.pids[2][0] == worker
            assert server.pids[2][1] != pid
            told: list[object] = []
            for stream in (frames, others):
                try:
                    told.append(await anext(stream))
                except TransportError as exc:
                    told.append(exc)
            assert [one for one in told if isinstance(one, list)] == [[(0, 1)]]
        async with Client(server.url, PROJECT, config=ONCE) as late:
            assert (await late.records.put("s", [NewRecord(b"y")]))[0].sequence_number == 1
        (error,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
        assert f"worker {worker} ended and is started again: exit code -9" in error


async def test_a_front_that_hangs_is_replaced(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is stopped gets no connections any more, is killed, said so, and replaced; who was connected to it is
    cut, and those of the other front go on."""
    monkeypatch.setattr(fronts_module, "BEAT_S", 0.02)
    monkeypatch.setattr(fronts_module, "MISSED", 200)
    async with world(caplog) as server, AsyncExitStack() as stack:
        pairs = []
        for _ in range(4):
            pair = await server.connect()
            stack.callback(pair[1].close)
            assert await ask(pair, "GET", "/v2/p/streams") == 200
            pairs.append(pair)
        worker, pid = server.pids[0]
        stopped = server.fronts._lines[worker - 1]
        assert stopped is not None
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: stopped.load[0])
        for _ in range(3):
            pair = await server.connect()
            stack.callback(pair[1].close)
            assert await ask(pair, "GET", "/v2/p/streams") == 200, "by the other one"
        assert stopped.connections == 2
        await until(lambda: len(server.pids) == 3)
        assert server.pids[2][0] == worker
        statuses = [await ask(pair, "GET", "/v2/p/streams") for pair in pairs]
        assert sorted(statuses) == [0, 0, 200, 200]
        first, second = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
        assert f"worker {worker} has not answered for 4 s, and is killed" in first
        assert f"worker {worker} ended and is started again: exit code -9" in second


class Silent:
    """Stands for the line to a front that answers for a while."""

    def __init__(self, answers: int) -> None:
        self.ended: list[float] = []
        self._heart = Heartbeat(MISSED)
        self._answers = answers

    def beat(self) -> bool:
        beats = self._heart.beat()
        self._answers -= 1
        if self._answers >= 0:
            self._heart.heard()
        return beats

    def end(self) -> None:
        self.ended.append(asyncio.get_running_loop().time())

    hang_up = end


@pytest.mark.parametrize("answers", [0, 1, 10_000])
def test_how_long_it_takes_to_notice(answers: int, caplog: pytest.LogCaptureFixture) -> None:
    """MISSED beats after its last answer, however long it worked before."""
    line = Silent(answers)
    run_simulated(lambda: fronts_module.watch(line, 1, line.end))  # type: ignore[arg-type]
    assert line.ended == [pytest.approx((answers + MISSED) * BEAT_S)] * 2
    assert [r.levelno for r in caplog.records] == [logging.ERROR]


async def test_pages_are_pushed_through_a_front(caplog: pytest.LogCaptureFixture) -> None:
    """As they are: what a GET through the other front tells, byte by byte; and nothing of them is held in the end."""
    async with (
        world(caplog) as server,
        Client(server.url, PROJECT, config=ONCE) as writer,
        Client(server.url, PROJECT, config=ONCE) as reader,
    ):
        server.log.gate.set()
        cursor = await writer.cursors.get("s", "0", "TRIM_HORIZON")
        await reader.streams.describe("s")
        async with reader.notices.open(ALL, push_bytes=1_000) as frames:
            assert await anext(frames) == []
            (await writer.records.put("s", [NewRecord(b"x", "k", timestamp=5), NewRecord(b"")])).raise_for_failed()
            while (frame := await anext(frames)) == []:
                pass
            assert isinstance(frame, Pushed)
            page, asked = frame.page("s", "shardId-0000000000"), await writer.records.get(cursor)
            assert (page.records, page.changes) == (asked.records, asked.changes)
            assert [record.sequence_number for record in page.records] == [0, 1]
            assert not (await writer.records.get(page.next_cursor)).records
        await until(lambda: server.app.notices.open_answers == server.app.pushing.held_bytes == 0)


async def test_a_client_that_hangs_up_ends_its_answer(caplog: pytest.LogCaptureFixture) -> None:
    """Whether it read of the answer or not: in the core nothing is left of it."""
    async with world(caplog) as server:
        async with Client(server.url, PROJECT) as client, client.notices.open(ALL) as frames:
            assert await anext(frames) == []
            assert server.app.notices.open_answers == 1
        await until(lambda: server.app.notices.open_answers == 0)
        await until(lambda: not any(line._open for line in server.fronts._lines if line is not None))
        assert sum(server.connections) == 0


async def test_closing_finishes_what_is_open(caplog: pytest.LogCaptureFixture) -> None:
    """A put that waits for the log is answered, answers that go on end as they should, and no process is left."""
    worlds: list[World] = []
    started, closing = anyio.Event(), anyio.Event()

    async def serve() -> None:
        async with world(caplog) as server:
            worlds.append(server)
            started.set()
            await closing.wait()

    async def put(pair: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        assert await ask(pair, "POST", "/v2/p/records", PUT) == 200
        pair[1].close()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        await started.wait()
        (server,) = worlds
        async with Client(server.url, PROJECT, config=ONCE) as client, client.notices.open(ALL) as frames:
            assert await anext(frames) == []
            tasks.start_soon(put, await server.connect())
            await server.log.entered.wait()
            closing.set()
            assert [frame async for frame in frames if frame] == []
            server.log.gate.set()
    for _, pid in server.pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


async def test_a_request_that_breaks_the_core(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is answered 500 DIS.5000, as without workers, and logged with its trace; the next one is answered."""
    async with world(caplog) as server:
        whole = server.app.handle

        async def broken(request: Request) -> Any:
            if request.target.endswith("broken"):
                raise ZeroDivisionError("a bug")
            return await whole(request)

        monkeypatch.setattr(server.app, "handle", broken)
        pair = await server.connect()
        assert await ask(pair, "GET", "/broken") == 500
        pair[1].close()
        pair = await server.connect()
        assert await ask(pair, "GET", "/v2/p/streams") == 200
        pair[1].close()
        assert any(r.exc_info and "a bug" in str(r.exc_info[1]) for r in caplog.records)

        async def pieces() -> AsyncGenerator[bytes, None]:
            yield b"one"
            raise ZeroDivisionError("another")

        async def half(request: Request) -> Response:
            return Response(status=200, pieces=pieces())

        monkeypatch.setattr(server.app, "handle", half)
        reader, writer = await server.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        told = await reader.read()
        assert told.endswith(b"3\r\none\r\n")  # without the end that says that it is whole
        writer.close()


async def test_what_fronts_log_is_told_by_the_server(caplog: pytest.LogCaptureFixture) -> None:
    """With the number of the worker, by the logger and at the level that the configuration here asks for."""
    async with world(caplog, logging.DEBUG) as server:
        reader, writer = await server.connect()
        writer.write(b"nonsense\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.")
        writer.close()
        await until(lambda: any("is not HTTP" in r.getMessage() for r in caplog.records))
        (line,) = [r for r in caplog.records if "is not HTTP" in r.getMessage()]
        assert (line.name, line.levelno) == ("disstream.server", logging.DEBUG)
        assert line.getMessage().startswith(("worker 1: ", "worker 2: "))


async def test_failures_are_counted_over_all_workers(caplog: pytest.LogCaptureFixture) -> None:
    """An address that failed too often on one front is refused by the other, before its large body is received."""
    async with world(caplog, max_failures_per_minute=3, max_body_bytes=200_000) as server:
        for _ in range(4):
            pair = await server.connect()
            assert await ask(pair, "GET", "/v2/p/streams/nope") == 400
            pair[1].close()
        reader, writer = await server.connect()
        writer.write(b"POST /v2/p/records HTTP/1.1\r\nHost: x\r\nContent-Length: 150000\r\n\r\n")
        assert b"DIS.4309" in await reader.read()
        writer.close()
        pair = await server.connect()
        assert await ask(pair, "GET", "/v2/p/streams") == 400
        pair[1].close()


async def test_refusals_of_a_front_count_too(caplog: pytest.LogCaptureFixture) -> None:
    """A body that is too large is refused by the front alone, and counted by the core."""
    async with world(caplog, max_failures_per_minute=1, max_body_bytes=1_000) as server:
        for _ in range(2):
            reader, writer = await server.connect()
            writer.write(b"POST /v2/p/records HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n")
            assert b" 413 " in await reader.readline()
            writer.close()
        pair = await server.connect()
        assert await ask(pair, "GET", "/v2/p/streams") == 400
        pair[1].close()


async def test_tls(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """The fronts speak it; a handshake that fails is no connection that would count for ever."""
    certificate, key = certified(tmp_path)
    async with world(caplog, tls_certificate=certificate, tls_key=key) as server:
        reader, writer = await server.connect()
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert b"HTTP" not in await reader.read()
        writer.close()
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        host, _, port = server.url.removeprefix("https://").rpartition(":")
        pair = await asyncio.open_connection(host, int(port), ssl=context)
        assert await ask(pair, "GET", "/v2/p/streams") == 200
        pair[1].close()
        await pair[1].wait_closed()
        await until(lambda: sum(server.connections) == 0)


async def test_a_worker_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The start fails with its number and exit code; the address is free again."""

    def start(*lines: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])

    monkeypatch.setattr(fronts_module, "_start", start)
    with pytest.raises(DisError, match=r"worker [12] did not start \(exit code 3\)"):
        await Server(ServerConfig(data_dir=None, port=0, workers=2)).start()


async def test_a_worker_that_cannot_be_started(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the start that ends the server. Later the others go on, and it is tried again."""
    start = fronts_module._start
    failures = 0

    def fail(*lines: int) -> subprocess.Popen[bytes]:
        nonlocal failures
        failures += 1
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(fronts_module, "_start", fail)
    with pytest.raises(DisError, match=r"worker [12] did not start \(.*unavailable\): give workers=1"):
        await Server(ServerConfig(data_dir=None, port=0, workers=2)).start()
    monkeypatch.setattr(fronts_module, "_start", start)
    monkeypatch.setattr(fronts_module, "_AGAIN_S", (0.0, 0.0))
    async with world(caplog) as server:
        failures = 0
        monkeypatch.setattr(fronts_module, "_start", fail)
        os.kill(server.pids[0][1], signal.SIGKILL)
        await until(lambda: failures >= 3)
        pair = await server.connect()
        assert await ask(pair, "GET", "/v2/p/streams") == 200
        pair[1].close()
        monkeypatch.setattr(fronts_module, "_start", start)
        await until(lambda: len(server.pids) == 3)


async def test_a_worker_of_another_release(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A front that speaks otherwise is not served: the files were replaced under a running server."""
    monkeypatch.setattr(fronts_module, "PROTOCOL", -1)
    with pytest.raises(DisError, match=r"worker [12] did not start"):
        await Server(ServerConfig(data_dir=None, port=0, workers=2)).start()
    assert "restart the server" in caplog.text


def test_a_server_that_dies_ends_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without workers: one line, exit code 1, and nothing is left behind."""
    started: list[subprocess.Popen[bytes]] = []
    start = fronts_module._start

    def watched(*lines: int) -> subprocess.Popen[bytes]:
        started.append(start(*lines))
        return started[-1]

    async def fail(*_: object) -> None:
        raise StorageError("the disk is gone")

    monkeypatch.setattr(fronts_module, "_start", watched)
    monkeypatch.setattr("disstream.server.server.keep_trimming", fail)
    result = click.testing.CliRunner().invoke(main, ["serve", "--memory", "--port", "0", "--workers", "2"])
    assert result.exit_code == 1
    assert "the disk is gone" in result.stderr
    assert "Traceback" not in result.output
    assert len(started) == 2
    assert all(process.returncode is not None for process in started)


@pytest.mark.parametrize("workers", [0, 65])
def test_numbers_that_cannot_be(workers: int) -> None:
    """Refused by value, and by the command line."""
    with pytest.raises(ConfigError, match=f"workers is {workers}: give 1"):
        ServerConfig(workers=workers)
    result = click.testing.CliRunner().invoke(main, ["serve", "--memory", "--workers", str(workers)])
    assert result.exit_code == 2
    assert str(workers) in result.stderr


def test_a_system_that_cannot_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where connections cannot be handed over more than one worker is refused, with what can be done instead."""
    monkeypatch.delattr("socket.send_fds")
    with pytest.raises(ConfigError, match="several servers, each with a data directory of its own"):
        ServerConfig(workers=2)
    assert ServerConfig(workers=1).workers == 1


def test_workers_in_the_configuration_file(tmp_path: Path) -> None:
    """[server] workers; an option goes before it."""
    path = tmp_path / "server.toml"
    path.write_text("[server]\nworkers = 99\n")
    result = click.testing.CliRunner().invoke(main, ["serve", "--memory", "--config", str(path)])
    assert result.exit_code == 2
    assert "workers is 99" in result.stderr


def test_a_core_that_is_killed_leaves_nothing_behind() -> None:
    """Its fronts cut what is open and end with it: standard error, which they have open too, comes to its end."""
    command = [sys.executable, "-m", "disstream", "serve", "--memory", "--port", "0", "--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline().rstrip()
        assert line.endswith("in memory, 2 workers")
        host, _, port = line.split()[1].removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as client, client.makefile("rb") as answer:
            for target, body in (
                ("streams", b'{"stream_name": "s", "partition_count": 1}'),
                ("disstream/notices", encode_notices(ALL)),
            ):
                head = f"POST /v2/p/{target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
                client.sendall(head.encode() + body)
                assert answer.readline().startswith(b"HTTP/1.1 20")
                while answer.readline() != b"\r\n":
                    pass
            assert answer.readline() == b"3\r\n"  # the first frame, as a chunk
            process.kill()
            with contextlib.suppress(ConnectionResetError):
                assert b"\r\n0\r\n" not in answer.read()  # cut, not finished
        _, told = process.communicate(timeout=60)
    assert told.count("serves: pid=") == 2
    assert "Traceback" not in told
