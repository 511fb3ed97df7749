"""Clients with each kind of credentials work against a real server that asks for them, from a second thread too."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest
from anyio.from_thread import start_blocking_portal

from disstream import clock
from disstream.client import AccessKey, Client, ClientConfig, Credentials, Password, Token
from disstream.door import connect
from disstream.errors import ApiError, AuthError, ClosedError, ConfigError, TransportError
from disstream.model import NewRecord
from disstream.server import Server, ServerConfig
from disstream.server.users import Project, User, UserKey, Users
from disstream.wire.http import Request
from disstream.wire.iam import TokenRequest, encode_token_request

T = TypeVar("T")

SECRET = "hush-hush"
USERS = Users(
    [Project(id="demo", name="cn-north-1", domain="acme")],
    [
        User(
            name="alice",
            domain="acme",
            projects=("demo",),
            password=SECRET,
            access_keys=(UserKey(ak="AK1", sk=SECRET), UserKey(ak="AK2", sk=SECRET, security_token="temporary")),
        )
    ],
)
ALICE = Password("alice", SECRET, domain="acme")
ONCE = ClientConfig(attempts=1)
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server with users, in a thread of its own: it answers while this loop is blocked."""
    server = Server(ServerConfig(data_dir=None, port=0, users=USERS, region="cn-north-1"))
    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(server):
        yield server.url


@pytest.fixture
def wall() -> Iterator[Callable[[float], None]]:
    """Moves wall time, of clients and server both, by so many seconds."""
    offset = 0.0
    system = clock.replace_wall(lambda: system() + offset)

    def move(seconds: float) -> None:
        nonlocal offset
        offset += seconds

    yield move
    clock.replace_wall(system)


async def give() -> Credentials | None:
    return ALICE


@pytest.mark.parametrize(
    "credentials",
    [
        *(AccessKey("AK1", SECRET, scheme=scheme, region="cn-north-1") for scheme in ("A", "B", "C", "C3")),
        AccessKey("AK1", SECRET),
        AccessKey("AK2", SECRET, security_token="temporary"),
        ALICE,
        Password("alice", SECRET, domain="acme", project_name="cn-north-1"),
        give,
    ],
    ids=lambda given: getattr(given, "__name__", repr(given)),
)
async def test_they_let_in(url: str, credentials: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Create, put, read and delete with paths, queries and bodies that must be signed as they are sent."""
    name = f"s{next(NUMBERS)}"
    with caplog.at_level(logging.DEBUG):
        async with connect(url, project_id="demo", credentials=credentials) as dis:
            await dis.streams.create(name, partitions=2)
            await dis.streams.wait_running(name)
            results = await dis.records.put(name, [NewRecord(b"x" * 300_000, partition_id="0")])
            cursor = await dis.cursors.get(name, "shardId-0000000000", "TRIM_HORIZON")
            page = await dis.records.get(cursor)
            assert [record.data for record in page.records] == [b"x" * 300_000]
            assert results[0].ok
            async with dis.producer(name) as producer:
                await producer.send_and_wait(b"y", key="k")
            assert name in [stream.name async for stream in dis.streams.list(page_size=1)]
            await dis.streams.delete(name)
    assert "hush" not in caplog.text


@pytest.mark.parametrize(
    ("credentials", "code"),
    [
        (None, "DIS.4101"),
        (AccessKey("AK1", "wrong"), "DIS.4112"),
        (AccessKey("AK9", SECRET), "DIS.4107"),
        (AccessKey("AK2", SECRET, security_token="old"), "DIS.4107"),
        (AccessKey("AK1", SECRET, scheme="B", region="eu-west-0"), "DIS.4111"),
        (Token("made-up"), "DIS.4114"),
        (Password("alice", "wrong", domain="acme"), ""),
        (Password("alice", SECRET, domain="other"), ""),
        (Password("alice", SECRET, domain="acme", project_name="other"), ""),
    ],
    ids=repr,
)
async def test_they_do_not(url: str, credentials: Credentials | None, code: str) -> None:
    """Wrong credentials are an AuthError with the service's code and without a secret."""
    async with connect(url, project_id="demo", credentials=credentials, config=ONCE) as dis:
        with pytest.raises(AuthError) as caught:
            await dis.streams.describe("s")
        assert caught.value.code == code
        assert caught.value.status == 401
        assert "hush" not in str(caught.value)


async def test_a_clock_that_is_wrong(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signature of another hour is refused with the code that says so."""
    monkeypatch.setattr("disstream.client.credentials.sdk_date", lambda now: "20200101T000000Z")
    async with connect(url, project_id="demo", credentials=AccessKey("AK1", SECRET), config=ONCE) as dis:
        with pytest.raises(AuthError, match=r"DIS\.4105"):
            await dis.streams.describe("s")


async def test_another_project(url: str) -> None:
    """A token is asked for the client's own project, which IAM refuses; a signature reaches the service."""
    async with connect(url, project_id="foreign", credentials=ALICE, config=ONCE) as dis:
        with pytest.raises(AuthError, match="IAM issues no token"):
            await dis.streams.describe("s")
    async with connect(url, project_id="foreign", credentials=AccessKey("AK1", SECRET), config=ONCE) as dis:
        with pytest.raises(ApiError, match=r"DIS\.4117"):
            await dis.streams.describe("s")


async def test_iam_elsewhere(url: str) -> None:
    """Tokens come from the IAM endpoint that was given; one that does not answer is a failure with a known outcome."""
    elsewhere = Password("alice", SECRET, domain="acme", endpoint=url)
    async with connect(url, project_id="demo", credentials=elsewhere, config=ONCE) as dis:
        assert [stream async for stream in dis.streams.list()] == []
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = Password("alice", SECRET, domain="acme", endpoint=f"http://127.0.0.1:{unused.getsockname()[1]}")
        async with connect(url, project_id="demo", credentials=nobody, config=ONCE) as dis:
            with pytest.raises(TransportError, match="no token of IAM") as caught:
                await dis.records.put("s", [NewRecord(b"x")])
            assert not caught.value.outcome_unknown


async def test_tokens_outlive_the_server_by_renewal() -> None:
    """A server that was restarted knows the old tokens no more: the client gets a new one and goes on."""
    config = ServerConfig(data_dir=None, port=0, users=USERS)
    async with Server(config) as first:
        port = int(first.url.rpartition(":")[2])
        async with connect(first.url, project_id="demo", credentials=ALICE, config=ONCE) as dis:
            assert [s async for s in dis.streams.list()] == []
            await first.close()
            async with Server(ServerConfig(data_dir=None, port=port, users=USERS)):
                await dis.streams.create("s", partitions=1)
                assert (await dis.streams.describe("s")).name == "s"


# --- what is on the wire ----------------------------------------------------------------------------------------


class Recorder:
    """Answers every request alike and keeps their heads."""

    def __init__(self) -> None:
        self.heads: list[list[str]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                self.heads.append(head)
                length = next((int(line[15:]) for line in head if line.lower().startswith("content-length:")), 0)
                await reader.readexactly(length)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@pytest.fixture
async def recorder() -> AsyncIterator[tuple[Recorder, str]]:
    kept = Recorder()
    server = await asyncio.start_server(kept.serve, "127.0.0.1", 0)
    yield kept, f"http://localhost:{server.sockets[0].getsockname()[1]}"
    server.close()


async def test_host_is_signed_as_it_is_sent(recorder: tuple[Recorder, str]) -> None:
    """One Host header, the one that is sent without credentials too, and one of each of the others."""
    kept, address = recorder
    hosts = []
    for credentials in (None, AccessKey("AK1", SECRET, security_token="temporary"), Token("t")):
        async with Client(address, "p", ONCE, credentials=credentials) as client:
            await client.call("put_records", body=b"{}")
        lines = kept.heads[-1][1:-2]
        names = [line.partition(":")[0].lower() for line in lines]
        assert len(names) == len(set(names))
        hosts += [line.partition(": ")[2] for line in lines if line.lower().startswith("host:")]
        assert ("authorization" in names, "x-sdk-date" in names) == (isinstance(credentials, AccessKey),) * 2
        assert ("x-auth-token" in names) == isinstance(credentials, Token)
        assert "hush" not in "".join(lines)
    assert hosts == [address.removeprefix("http://")] * 3


async def test_a_password_of_netrc_cannot_go_along(
    recorder: tuple[Recorder, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With trust_env and an entry for the host, a signed request is refused with the remedy."""
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine localhost login x password {SECRET}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with Client(
        recorder[1], "p", ClientConfig(attempts=1, trust_env=True), credentials=AccessKey("A", "S")
    ) as client:
        with pytest.raises(ConfigError, match=r"\.netrc.*trust_env=False") as caught:
            await client.call("list_streams")
    assert "hush" not in str(caught.value)


# --- a twin in a thread of its own ------------------------------------------------------------------------------


def in_thread(twin: Client | None, work: Callable[[Client], Awaitable[T]]) -> Callable[[], T]:
    """Run `work` with the started twin on an event loop in a new thread. Calling the result waits and blocks."""
    assert twin is not None
    outcome: list[T | BaseException] = []

    async def body() -> T:
        async with twin:
            return await work(twin)

    def target() -> None:
        try:
            outcome.append(anyio.run(body))
        except BaseException as exc:
            outcome.append(exc)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()

    def result() -> T:
        thread.join(20)
        assert outcome, "the thread does not end"
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    return result


async def ask(client: Client) -> None:
    async for _ in client.streams.list():
        pass


async def ask_soon(client: Client) -> None:
    await client.call("list_streams", timeout_s=0.3)


@pytest.mark.parametrize("credentials", [None, AccessKey("AK1", SECRET)], ids=repr)
async def test_a_twin_has_a_life_of_its_own(url: str, credentials: Credentials | None) -> None:
    """It works before the first is started, while its loop is blocked, and after it was closed."""
    first = Client(url, "demo", ONCE, credentials=credentials)

    async def try_it(client: Client) -> str:
        try:
            await ask(client)
        except AuthError as exc:
            return exc.code
        return "in"

    told = "in" if credentials else "DIS.4101"
    assert in_thread(first.twin(), try_it)() == told
    async with first:
        assert await try_it(first) == told
        assert in_thread(first.twin(), try_it)() == told
    assert in_thread(first.twin(), try_it)() == told


async def test_a_twin_uses_the_token_that_is_there(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a good token it needs neither IAM nor the other loop, which is blocked here, or closed."""
    issued = count_tokens(monkeypatch)
    async with Client(url, "demo", ONCE, credentials=ALICE) as first:
        await ask(first)
        in_thread(first.twin(), ask)()  # blocks this loop until it is done
    in_thread(first.twin(), ask)()
    assert issued == [threading.get_ident()]


async def test_a_twin_asks_the_first_for_a_token(
    url: str, wall: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a token, and when it has ended, the first client's loop gets one; once for both."""
    issued = count_tokens(monkeypatch)
    home = threading.get_ident()
    async with Client(url, "demo", ONCE, credentials=ALICE) as first:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, first)
            await anyio.to_thread.run_sync(in_thread(first.twin(), ask))
        assert issued == [home]
        wall(86_401)
        await anyio.to_thread.run_sync(in_thread(first.twin(), ask))
        assert issued == [home] * 2
        wall(0.95 * 86_400)  # ageing: used, and renewed aside
        renewed = anyio.Event()
        on_issue(monkeypatch, renewed.set)
        await anyio.to_thread.run_sync(in_thread(first.twin(), ask))
        with anyio.fail_after(10):
            await renewed.wait()


async def test_a_twin_does_not_wait_for_ever(url: str, wall: Callable[[float], None]) -> None:
    """Its token has ended and the first client's loop is blocked: a failure in time; closed: told so."""
    async with Client(url, "demo", ONCE, credentials=ALICE) as first:
        await ask(first)
        wall(86_401)
        with pytest.raises(TransportError, match=r"no credentials within 0\.3 s") as caught:
            in_thread(first.twin(), ask_soon)()  # blocks this loop meanwhile
        assert not caught.value.outcome_unknown
    with pytest.raises(ClosedError, match="the client whose credentials these are"):
        await anyio.to_thread.run_sync(in_thread(first.twin(), ask))
    with pytest.raises(ClosedError, match="is not started"):
        in_thread(Client(url, "demo", ONCE, credentials=ALICE).twin(), ask)()


def test_a_twin_of_a_loop_that_is_gone(url: str, wall: Callable[[float], None]) -> None:
    """The first client's loop is closed: the token that is there serves, after its end the twin is told."""
    kept: list[Client] = []

    async def main() -> None:
        async with Client(url, "demo", ONCE, credentials=ALICE) as first:
            await ask(first)
            kept.append(first)

    anyio.run(main)
    in_thread(kept[0].twin(), ask)()
    wall(0.95 * 86_400)
    in_thread(kept[0].twin(), ask)()
    wall(0.1 * 86_400)
    with pytest.raises(ClosedError, match=r"event loop .* is closed"):
        in_thread(kept[0].twin(), ask)()


def test_the_first_loop_ends_under_a_twin(url: str) -> None:
    """Its loop is torn down, the client not closed, while a twin waits for a flight: told, not taken for cancelled."""
    waits: list[Callable[[], None]] = []

    async def main() -> None:
        asked = anyio.Event()

        async def hang() -> Credentials | None:
            asked.set()
            await anyio.sleep_forever()
            raise AssertionError

        first = await Client(url, "demo", ONCE, credentials=hang).start()
        waits.append(in_thread(first.twin(), ask))
        await asked.wait()

    anyio.run(main)
    with pytest.raises(ClosedError, match=r"whose credentials these are|was closed while"):
        waits[0]()


async def test_a_callable_runs_in_the_first_loop(url: str) -> None:
    """Also when only a twin needs it, and when the service refused what a twin sent."""
    loops = []
    answers: list[Credentials] = [Token("made-up"), AccessKey("AK1", SECRET)]

    async def next_answer() -> Credentials | None:
        loops.append(asyncio.get_running_loop())
        return answers.pop(0)

    async with Client(url, "demo", ONCE, credentials=next_answer) as first:
        await anyio.to_thread.run_sync(in_thread(first.twin(), ask))
        await ask(first)
        assert loops == [asyncio.get_running_loop()] * 2


def count_tokens(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads in which tokens were asked for."""
    issued: list[int] = []
    on_issue(monkeypatch, lambda: issued.append(threading.get_ident()))
    return issued


def on_issue(monkeypatch: pytest.MonkeyPatch, happen: Callable[[], None]) -> None:
    def noted(request: TokenRequest) -> bytes:
        happen()
        return encode_token_request(request)

    monkeypatch.setattr("disstream.client.credentials.encode_token_request", noted)


def test_only_urls_have_twins() -> None:
    """Nobody knows whether a transport of the caller's can be used from another thread."""

    class Nothing:
        async def exchange(self, request: Request) -> Any:
            raise AssertionError

        async def close(self) -> None:
            pass

    assert Client(Nothing(), "p", credentials=ALICE).twin() is None
    twin = connect("http://127.0.0.1:1", project_id="p", credentials=None, config=ONCE).twin()
    assert twin is not None
    assert (twin.project_id, twin.config) == ("p", ONCE)
