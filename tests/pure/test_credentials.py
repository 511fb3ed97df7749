"""Credentials refuse what cannot be right without telling it, and never show a secret; when a source renews them."""

from __future__ import annotations

import json
import logging
import pickle
import traceback
from collections.abc import Callable

import anyio
import msgspec
import pytest

from disstream import clock
from disstream.client import AccessKey, Client, ClientConfig, Credentials, Password, Token
from disstream.client.endpoint import is_readable_by_others
from disstream.door import connect, environment_credentials
from disstream.errors import ApiError, AuthError, ClosedError, ConfigError, DisError, TransportError
from disstream.testing.clock import run_simulated
from disstream.wire.errors import api_error, refusal
from disstream.wire.http import Request, Response
from disstream.wire.iam import TOKEN_TARGET, Named, decode_token_request, encode_iam_error, encode_token_answer
from disstream.wire.signing import parse_authorization, verify

SECRET = "hush-hush"
DAY = 86_400.0


# --- values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "credentials",
    [
        AccessKey("AK", SECRET, security_token=SECRET, scheme="B", region="r"),
        Token(SECRET),
        Password("alice", SECRET, domain="acme", endpoint="https://iam.example"),
    ],
)
def test_secrets_are_not_shown(credentials: Credentials) -> None:
    """Neither by repr, str and formatting, nor by repr of what holds them; they survive pickling for workers."""
    for text in (repr(credentials), str(credentials), f"{credentials}", repr([credentials]), repr({"x": credentials})):
        assert "hush" not in text
        assert type(credentials).__name__ in text
    assert pickle.loads(pickle.dumps(credentials)) == credentials
    client = Client("http://127.0.0.1:1", "p", credentials=credentials)
    assert "hush" not in repr(client) + repr(vars(client))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: AccessKey("", SECRET), "access_key"),
        (lambda: AccessKey("AK", ""), "secret_key"),
        (lambda: AccessKey("AK\n", SECRET), "access_key"),
        (lambda: AccessKey("A/K", SECRET), "access_key"),
        (lambda: AccessKey("AK", SECRET + "\n"), "secret_key.*line end"),
        (lambda: AccessKey("AK", " " + SECRET), "secret_key"),
        (lambda: AccessKey("AK", SECRET + "é"), "secret_key"),
        (lambda: AccessKey("AK", SECRET, security_token=SECRET + "\r\n"), "security_token"),
        (lambda: AccessKey("AK", SECRET, security_token=""), "security_token"),
        (lambda: AccessKey("AK", SECRET, scheme="D"), "scheme='D' must be one of A, B, C, C3"),
        (lambda: AccessKey("AK", SECRET, scheme="B"), "scheme='B' needs region"),
        (lambda: AccessKey("AK", SECRET, scheme="C3"), "scheme='C3' needs region"),
        (lambda: AccessKey("AK", SECRET, scheme="C", region="a/b"), "region"),
        (lambda: Token(SECRET + "\n"), "Token.token"),
        (lambda: Token(""), "Token.token"),
        (lambda: Token(None), "Token.token"),  # type: ignore[arg-type]
        (lambda: Password("alice", SECRET + "\n", domain="d"), "Password.password.*line end"),
        (lambda: Password("alice", "", domain="d"), "Password.password"),
        (lambda: Password("alice", SECRET + "\ud800", domain="d"), "Password.password"),
        (lambda: Password("", SECRET, domain="d"), "Password.user"),
        (lambda: Password("alice", SECRET, domain=""), "Password.domain"),
        (lambda: Password("alice", SECRET, domain="d", project_name=""), "Password.project_name"),
        (lambda: Password("alice", SECRET, domain="d", endpoint="iam"), "endpoint 'iam'"),
        (lambda: Client("http://h", "p", credentials=(SECRET, SECRET)), "credentials of type tuple"),  # type: ignore[arg-type]
        (lambda: Client("http://h", "p", credentials=SECRET), "credentials of type str"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_right(make: Callable[[], object], told: str) -> None:
    """Refused with the name of the field, and without its value."""
    with pytest.raises(ConfigError, match=told) as caught:
        make()
    assert "hush" not in "".join(traceback.format_exception_only(caught.value))


def test_a_password_may_hold_blanks() -> None:
    """Unlike keys and tokens it travels in a body."""
    assert Password("alice", "correct horse ä", domain="a c").password == "correct horse ä"


# --- the environment --------------------------------------------------------------------------------------------

NAMES = (
    "DISSTREAM_AK",
    "DISSTREAM_SK",
    "DISSTREAM_SECURITY_TOKEN",
    "CLOUD_SDK_AK",
    "CLOUD_SDK_SK",
    "DISSTREAM_TOKEN",
)


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, None),
        ({"DISSTREAM_TOKEN": "T"}, Token("T")),
        ({"DISSTREAM_AK": "A", "DISSTREAM_SK": "S", "DISSTREAM_TOKEN": "T"}, AccessKey("A", "S")),
        (
            {"DISSTREAM_AK": "A", "DISSTREAM_SK": "S", "DISSTREAM_SECURITY_TOKEN": "X"},
            AccessKey("A", "S", security_token="X"),
        ),
        ({"CLOUD_SDK_AK": "A", "CLOUD_SDK_SK": "S", "DISSTREAM_SECURITY_TOKEN": "X"}, AccessKey("A", "S")),
        (
            {"CLOUD_SDK_AK": "A", "CLOUD_SDK_SK": "S", "DISSTREAM_AK": "B", "DISSTREAM_SK": "Q"},
            AccessKey("B", "Q"),
        ),
        ({"CLOUD_SDK_AK": "A", "CLOUD_SDK_SK": "S", "DISSTREAM_TOKEN": "T"}, AccessKey("A", "S")),
        ({"DISSTREAM_AK": "", "DISSTREAM_SK": "", "DISSTREAM_TOKEN": ""}, None),
    ],
)
def test_the_environment(variables: dict[str, str], found: Credentials | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The documented order; an empty variable is none; a security token belongs to the pair of its own name."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert environment_credentials() == found


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        ("DISSTREAM_AK", "DISSTREAM_SK"),
        ("DISSTREAM_SK", "DISSTREAM_AK"),
        ("CLOUD_SDK_AK", "CLOUD_SDK_SK"),
        ("CLOUD_SDK_SK", "CLOUD_SDK_AK"),
    ],
)
def test_half_a_pair(there: str, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told with the variable that is missing, even if a token is there; explicit credentials need no environment."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(there, SECRET)
    monkeypatch.setenv("DISSTREAM_TOKEN", "T")
    with pytest.raises(ConfigError, match=f"{there} is set, {missing} is not") as caught:
        connect("http://127.0.0.1:1", project_id="p")
    assert "hush" not in str(caught.value)
    connect("http://127.0.0.1:1", project_id="p", credentials=None)
    connect("http://127.0.0.1:1", project_id="p", credentials=Token("T"))


@pytest.mark.parametrize(
    ("endpoint", "readable"),
    [
        ("http://dis.example", True),
        ("http://192.0.2.1:8080", True),
        ("http://[2001:db8::1]", True),
        ("https://dis.example", False),
        ("http://127.0.0.1:8080", False),
        ("http://127.9.9.9", False),
        ("http://[::1]:8080", False),
        ("http://localhost:8080", False),
    ],
)
def test_credentials_without_tls(endpoint: str, readable: bool, caplog: pytest.LogCaptureFixture) -> None:
    """One warning where others can read them, for the service and for IAM; none without credentials."""
    assert is_readable_by_others(endpoint) is readable
    with caplog.at_level(logging.WARNING, "disstream"):
        connect(endpoint, project_id="p", credentials=None)
        assert not caplog.records
        connect(endpoint, project_id="p", credentials=Token(SECRET))
        assert len(caplog.records) == readable
        caplog.clear()
        connect("https://dis.example", project_id="p", credentials=Password("u", SECRET, domain="d", endpoint=endpoint))
        assert len(caplog.records) == readable
    assert "hush" not in caplog.text


# --- a source, in simulated time --------------------------------------------------------------------------------


class World:
    """A service that wants the newest token, and its IAM. Counts what was asked for."""

    def __init__(self, lifetime_s: float = DAY) -> None:
        self.lifetime_s = lifetime_s
        self.issued = 0
        self.valid: set[str] = set()
        self.accept: Callable[[Request], bool] = lambda request: request.headers.get("x-auth-token") in self.valid
        self.seen: list[Request] = []
        self.iam: list[Response | Exception | float] = []
        """What IAM does next instead of issuing: an answer, a failure, or a wait of so many seconds before it does."""

    async def exchange(self, request: Request) -> Response:
        await anyio.sleep(0.01)
        if request.target == TOKEN_TARGET:
            return await self._issue(request)
        self.seen.append(request)
        if self.accept(request):
            return Response(status=200, body=b'{"stream_names": [], "has_more_streams": false, "total_number": 0}')
        return refusal(api_error("DIS.4114"), "r")

    async def _issue(self, request: Request) -> Response:
        told = self.iam.pop(0) if self.iam else 0.0
        if isinstance(told, Exception):
            raise told
        if isinstance(told, Response):
            return told
        await anyio.sleep(told)
        asked = decode_token_request(request.body)
        assert (asked.user, asked.domain, asked.password) == ("alice", "acme", SECRET)
        assert "x-auth-token" not in request.headers
        self.issued += 1
        token = f"token-{self.issued}"
        self.valid = {token}
        now = clock.wall()
        body = encode_token_answer(
            issued_at_s=now,
            expires_at_s=now + self.lifetime_s,
            user=Named(name=asked.user),
            domain=Named(name=asked.domain),
            project=Named(id=asked.project_id or "", name=asked.project_name or ""),
        )
        return Response(status=201, headers={"x-subject-token": token}, body=body)

    async def close(self) -> None:
        pass


ALICE = Password("alice", SECRET, domain="acme")
ONCE = ClientConfig(attempts=1, request_timeout_s=5.0)


async def ask(client: Client) -> None:
    async for _ in client.streams.list():
        pass


def test_one_token_for_many_callers() -> None:
    """A hundred calls at once ask IAM once, and the next one does not ask at all."""

    async def main() -> None:
        world = World()
        async with Client(world, "p1", ONCE, credentials=ALICE) as client:
            async with anyio.create_task_group() as tasks:
                for _ in range(100):
                    tasks.start_soon(ask, client)
            await ask(client)
        assert world.issued == 1
        assert len(world.seen) == 101

    run_simulated(main)


def test_a_caller_who_leaves_does_not_end_it_for_others() -> None:
    """The caller who began the flight is cancelled; the others get its token."""

    async def main() -> None:
        world = World()
        world.iam = [1.0]
        async with Client(world, "p1", ONCE, credentials=ALICE) as client:
            async with anyio.create_task_group() as tasks:
                with anyio.move_on_after(0.5) as left:
                    tasks.start_soon(ask, client)
                    await ask(client)
                assert left.cancelled_caught
        assert world.issued == 1
        assert len(world.seen) == 1

    run_simulated(main)


@pytest.mark.parametrize(("lifetime_s", "refresh_s"), [(DAY, 0.9 * DAY), (2000.0, 1700.0), (400.0, 200.0)])
def test_a_token_is_renewed_ahead_of_its_end(lifetime_s: float, refresh_s: float) -> None:
    """With less than 5 minutes and a tenth left (but half of a short life), aside: the call does not wait for IAM."""

    async def main() -> None:
        world = World(lifetime_s)
        async with Client(world, "p1", ONCE, credentials=ALICE) as client:
            await ask(client)
            await anyio.sleep(refresh_s - 1)
            await ask(client)
            assert world.issued == 1
            await anyio.sleep(1)
            world.iam = [2.0]
            before = anyio.current_time()
            await ask(client)
            assert anyio.current_time() - before < 0.1
            await anyio.sleep(3)
            assert world.issued == 2
            await ask(client)
            assert world.seen[-1].headers["x-auth-token"] == "token-2"

    run_simulated(main)


def test_an_old_token_serves_while_iam_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """A failed renewal aside is a warning, tried again after a pause; when the token has ended, calls fail."""

    async def main() -> None:
        world = World(1000.0)
        away = TransportError("no connection", outcome_unknown=True)
        async with Client(world, "p1", ONCE, credentials=ALICE) as client:
            await ask(client)
            await anyio.sleep(800)
            world.iam = [away, away, away]
            for _ in range(11):
                await ask(client)
                await anyio.sleep(0.9)
            assert len(world.iam) == 2  # one try in ten seconds
            await anyio.sleep(300)
            with pytest.raises(TransportError) as caught:
                await ask(client)
            assert not caught.value.outcome_unknown
            world.iam = []
            await ask(client)
            assert world.issued == 2

    with caplog.at_level(logging.WARNING, "disstream"):
        run_simulated(main)
    assert "could not be renewed" in caplog.text
    assert "hush" not in caplog.text


def test_a_refused_token_is_renewed_once() -> None:
    """401: one new token and the request again, a put too; refused again it is told, without asking IAM for ever."""

    async def main() -> None:
        world = World()
        async with Client(world, "p1", ONCE, credentials=ALICE) as client:
            await ask(client)
            world.valid = set()  # the service was restarted
            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(ask, client)
            assert world.issued == 2
            world.valid = set()
            puts = len(world.seen)
            await anyio.sleep(6)
            await client.call("put_records", body=b"{}")
            assert len(world.seen) == puts + 2
            assert world.issued == 3
            world.accept = lambda request: False
            for _ in range(5):
                with pytest.raises(AuthError, match=r"DIS\.4114"):
                    await ask(client)
            assert world.issued == 3
            await anyio.sleep(10)
            with pytest.raises(AuthError):
                await ask(client)
            assert world.issued == 4

    run_simulated(main)


@pytest.mark.parametrize(("status", "asked"), [(401, 2), (441, 2), (403, 1), (400, 1)])
def test_which_refusals_renew(status: int, asked: int) -> None:
    """401, and the 441 of older endpoints; what the user may not do, or did wrong, a new token does not mend."""

    async def main() -> None:
        class Refuses(World):
            async def exchange(self, request: Request) -> Response:
                answer = await super().exchange(request)
                return answer if request.target == TOKEN_TARGET else Response(status=status)

        world = Refuses()
        async with Client(world, "p1", ONCE, credentials=ALICE) as client:
            with pytest.raises(ApiError):
                await ask(client)
        assert (world.issued, len(world.seen)) == (asked, asked)

    run_simulated(main)


def test_one_call_renews_once() -> None:
    """However slowly the service refuses, a call brings at most one new token."""

    async def main() -> None:
        class Slow(World):
            async def exchange(self, request: Request) -> Response:
                await anyio.sleep(7)
                return await super().exchange(request)

        world = Slow()
        world.accept = lambda request: False
        async with Client(world, "p1", ClientConfig(attempts=3), credentials=ALICE) as client:
            with pytest.raises(AuthError):
                await ask(client)
        assert (world.issued, len(world.seen)) == (2, 2)

    run_simulated(main)


def test_a_renewal_costs_no_attempt() -> None:
    """Refused, renewed, then a fault: with two attempts the call still has its second."""

    async def main() -> None:
        faults = [Response(status=401), Response(status=503)]

        class Faulty(World):
            async def exchange(self, request: Request) -> Response:
                if request.target != TOKEN_TARGET and faults:
                    return faults.pop(0)
                return await super().exchange(request)

        world = Faulty()
        async with Client(world, "p1", ClientConfig(attempts=2), credentials=ALICE) as client:
            await ask(client)
            assert client.stats().requests == 3
            assert client.stats().retries == 2
        assert world.issued == 2

    run_simulated(main)


@pytest.mark.parametrize("kind", ["wrong", "echo", "later", "unread"])
def test_what_iam_refuses(kind: str) -> None:
    """A wrong password is an AuthError at once, trouble of IAM passes by a retry; neither tells the password."""
    answers = {
        "wrong": Response(status=401, body=encode_iam_error(401, "The username or password is wrong.")),
        "echo": Response(status=401, body=f'{{"you": "sent {SECRET}"}}'.encode()),
        "later": Response(status=503, body=b"busy"),
        "unread": Response(status=200, body=SECRET.encode()),
    }

    async def main() -> None:
        world = World()
        world.iam = [answers[kind]]
        config = ClientConfig(attempts=2, retry_base_s=0.1)
        async with Client(world, "p1", config, credentials=ALICE) as client:
            if kind in ("later", "unread"):
                await ask(client)
                return
            with pytest.raises(AuthError, match="'alice' of 'acme'") as caught:
                await ask(client)
            assert "hush" not in "".join(traceback.format_exception(caught.value))
            assert not world.seen

    run_simulated(main)


@pytest.mark.parametrize("status", [200, 401, 500])
@pytest.mark.parametrize("secret", [SECRET * 40, 'hush"\\hush', "hush\u00fchush", "hush\u4e2dhush"])
@pytest.mark.parametrize("nested", [False, True])
def test_an_answer_that_holds_the_request(status: int, secret: str, nested: bool) -> None:
    """Whatever sends the request back, as JSON or as JSON in JSON, cut off or not: no part of the password shows."""

    async def main() -> None:
        world = World()
        user = {"user": "alice", "password": secret}
        echoes = [encode(user) for encode in (json.dumps, lambda value: msgspec.json.encode(value).decode())]
        for echo in echoes:
            world.iam = [
                Response(
                    status=status,
                    headers={"x-subject-token": "t"},
                    body=(json.dumps({"error": {"message": echo}}) if nested else echo).encode(),
                )
            ]
            credentials = Password("alice", secret, domain="acme")
            async with Client(world, "p1", ONCE, credentials=credentials) as client:
                with pytest.raises(DisError) as caught:
                    await ask(client)
            assert "hush" not in "".join(traceback.format_exception(caught.value))

    run_simulated(main)


def test_a_token_of_the_past_is_believed_for_a_while() -> None:
    """With a clock that is a day ahead, every token has ended when it comes: it serves, not one for each request."""

    async def main() -> None:
        world = World(-3600.0)
        async with Client(world, "p1", ONCE, credentials=ALICE) as client:
            for _ in range(20):
                await ask(client)
            assert world.issued == 1

    run_simulated(main)


def test_wall_time_may_jump() -> None:
    """Forward past the end: a new token at once. Back by an hour: the old instants mean nothing, so a new one too."""

    async def main() -> None:
        offset = 0.0
        system = clock.replace_wall(lambda: 1.7e9 + offset + anyio.current_time())
        try:
            world = World()
            async with Client(world, "p1", ONCE, credentials=ALICE) as client:
                await ask(client)
                offset = 2 * DAY
                await ask(client)
                assert world.issued == 2
                offset -= 3600
                await ask(client)
                assert world.issued == 3
                offset -= 5
                await ask(client)
                assert world.issued == 3
        finally:
            clock.replace_wall(system)

    run_simulated(main)


def test_a_callable_rotates() -> None:
    """Asked first when needed, then once a minute, and when the service refuses what it gave; None sends nothing."""

    async def main() -> None:
        keys: list[Credentials | None] = [Token("t1"), Token("t2"), None]
        asked = 0

        async def give() -> Credentials | None:
            nonlocal asked
            asked += 1
            return keys[0]

        world = World()
        world.valid = {"t1"}
        async with Client(world, "p", ONCE, credentials=give) as client:
            assert asked == 0
            for _ in range(3):
                await ask(client)
            assert asked == 1
            await anyio.sleep(61)
            await ask(client)
            await anyio.sleep(0.1)
            assert asked == 2
            keys.pop(0)
            world.valid = {"t2"}
            await ask(client)  # refused, asked, repeated
            assert asked == 3
            world.valid = set()
            await anyio.sleep(6)
            before = len(world.seen)
            with pytest.raises(AuthError):
                await ask(client)
            assert len(world.seen) == before + 1  # the same again would be refused again
            keys.pop(0)
            world.accept = lambda request: not {"x-auth-token", "authorization"} & set(request.headers)
            await anyio.sleep(6)
            await ask(client)
            assert world.seen[-1].headers["x-project-id"] == "p"

    run_simulated(main)


def test_a_callable_that_fails() -> None:
    """Its exception is the cause of a TransportError that is tried again; its text, and a wrong type, are not shown."""

    async def main() -> None:
        answers: list[object] = [RuntimeError(SECRET), Token("t1")]

        async def give() -> Credentials | None:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer  # type: ignore[return-value]

        world = World()
        world.valid = {"t1"}
        async with Client(world, "p", ClientConfig(attempts=2), credentials=give) as client:
            await ask(client)
        answers[:] = [RuntimeError(SECRET)]
        async with Client(world, "p", ONCE, credentials=give) as client:
            with pytest.raises(TransportError, match="raised RuntimeError") as caught:
                await ask(client)
            assert "hush" not in str(caught.value)
            assert isinstance(caught.value.__cause__, RuntimeError)
            answers[:] = [SECRET]
            with pytest.raises(ConfigError, match="returned a str") as wrong:
                await ask(client)
            assert "hush" not in str(wrong.value)

    run_simulated(main)


def test_a_callable_that_hangs() -> None:
    """Calls give up after their own time-out with a known outcome; closing does not wait for it."""

    async def main() -> None:
        async def give() -> Credentials | None:
            await anyio.sleep_forever()
            raise AssertionError

        async with Client(World(), "p", ONCE, credentials=give) as client:
            with pytest.raises(TransportError, match="no credentials within 2 s") as caught:
                await client.call("list_streams", timeout_s=2.0)
            assert not caught.value.outcome_unknown
            with anyio.fail_after(11):
                await client.close()

    run_simulated(main)


def test_nothing_is_renewed_after_the_end() -> None:
    """Closed while a flight is under way: its callers are told, and no task is left."""

    async def main() -> None:
        world = World()
        world.iam = [100.0]
        failed: list[DisError] = []

        async def call(client: Client) -> None:
            try:
                await ask(client)
            except DisError as exc:
                failed.append(exc)

        client = await Client(world, "p1", ClientConfig(close_timeout_s=1.0), credentials=ALICE).start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, client)
            await anyio.sleep(1)
            await client.close()
        assert len(failed) == 1
        assert isinstance(failed[0], ClosedError | TransportError)
        assert world.issued == 0

    run_simulated(main)


# --- signing attempts -------------------------------------------------------------------------------------------


def test_each_attempt_is_signed_anew() -> None:
    """A repeated request carries the date of its own attempt, and each signature holds."""

    async def main() -> None:
        dates = []

        class Flaky(World):
            async def exchange(self, request: Request) -> Response:
                read = parse_authorization(request.headers["authorization"])
                assert verify(request, read, SECRET)
                assert read.signed_headers == ("content-type", "host", "x-project-id", "x-sdk-date", "x-security-token")
                dates.append(request.headers["x-sdk-date"])
                await anyio.sleep(2)
                return await super().exchange(request) if len(dates) > 1 else Response(status=503)

        world = Flaky()
        world.accept = lambda request: True
        key = AccessKey("AK", SECRET, security_token="temporary")
        async with Client(world, "p", ClientConfig(attempts=2), credentials=key) as client:
            await ask(client)
        assert len(set(dates)) == 2

    run_simulated(main)


@pytest.mark.parametrize("scheme", ["A", "B", "C", "C3"])
def test_a_refused_signature_is_told(scheme: str) -> None:
    """A fixed key has no other: 401 is an AuthError after one request."""

    async def main() -> None:
        world = World()
        key = AccessKey("AK", SECRET, scheme=scheme, region="cn-north-1")
        async with Client(world, "p", credentials=key) as client:
            with pytest.raises(AuthError):
                await ask(client)
        assert len(world.seen) == 1
        assert parse_authorization(world.seen[0].headers["authorization"]).scheme == scheme

    run_simulated(main)


def test_too_large_to_be_signed() -> None:
    """Above 12 MiB a signed request is refused before anything is sent; with a token it goes."""

    async def main() -> None:
        body = bytes(12 * 1024 * 1024 + 1)
        world = World()
        world.accept = lambda request: True
        async with Client(world, "p", credentials=AccessKey("AK", SECRET)) as client:
            await client.call("put_records", body=body[:-1])
            with pytest.raises(ConfigError, match=r"12582913 bytes .* 12582912.*use a token"):
                await client.call("put_records", body=body)
        async with Client(world, "p", credentials=Token("t")) as client:
            await client.call("put_records", body=body)
        assert len(world.seen) == 2

    run_simulated(main)


def test_without_credentials_nothing_is_added() -> None:
    """A client without credentials sends neither a token nor a signature nor a host of its own."""

    async def main() -> None:
        world = World()
        world.accept = lambda request: True
        async with Client(world, "p") as client:
            await ask(client)
            assert client.twin() is None
        assert set(world.seen[0].headers) == {"content-type", "accept", "user-agent", "x-project-id"}

    run_simulated(main)
