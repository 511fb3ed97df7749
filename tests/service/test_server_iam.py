"""IAM on the server: tokens for passwords, projects of a user, and refusals in IAM's own shape."""

from __future__ import annotations

import asyncio
import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from accounts import PASSWORD, Signer, application, users
from server_http import Answer

from disstream import clock
from disstream.server import App
from disstream.server.tokens import Guesses, Token, Tokens
from disstream.testing.clock import run_simulated
from disstream.wire.http import Request

TOKENS = "/v3/auth/tokens"
GOOD: dict[str, Any] = {
    "auth": {
        "identity": {
            "methods": ["password"],
            "password": {"user": {"name": "alice", "password": PASSWORD, "domain": {"name": "acme"}}},
        },
        "scope": {"project": {"id": "a1"}},
    }
}


def wanted(**changes: Any) -> dict[str, Any]:
    """A good request with other fields: name, password, domain, methods, project (None: no scope)."""
    body = copy.deepcopy(GOOD)
    auth = body["auth"]
    user = auth["identity"]["password"]["user"]
    for key in ("name", "password"):
        user[key] = changes.get(key, user[key])
    user["domain"]["name"] = changes.get("domain", "acme")
    auth["identity"]["methods"] = changes.get("methods", ["password"])
    auth["scope"]["project"] = changes.get("project", {"id": "a1"})
    if changes.get("project", "") is None:
        del auth["scope"]
    return body


async def send(app: App, method: str, target: str, body: Any = b"", **headers: str) -> Answer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    names = {key.replace("_", "-"): value for key, value in headers.items()}
    answer = await app.handle(Request(method=method, target=target, headers=names, body=data))
    return Answer(answer.status, answer.headers, answer.body)


def refusal(answer: Answer) -> tuple[int, str]:
    """Status and message of an answer in IAM's shape."""
    assert set(answer.told) == {"error"}
    error = answer.told["error"]
    assert error["code"] == answer.status
    assert error["title"]
    assert len(answer.headers["x-request-id"]) == 32
    return answer.status, error["message"]


@pytest.mark.parametrize("project", [{"id": "a1"}, {"name": "cn-north-1"}, {"id": "a1", "name": "other"}])
async def test_a_token_is_issued_and_works(project: dict[str, str]) -> None:
    """201, the token in its header, the documented body; it signs in for 24 hours, in its project only."""
    async with application() as app:
        before = clock.wall()
        answer = await send(app, "POST", TOKENS, wanted(project=project))
        assert answer.status == 201
        token = answer.headers["x-subject-token"]
        told = answer.told["token"]
        assert token not in answer.body.decode()
        assert told["methods"] == ["password"]
        assert told["expires_at"].endswith("Z")
        assert len(told["expires_at"]) == len("2019-02-13T06:52:13.855000Z")
        ends = datetime.strptime(told["expires_at"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp()
        assert ends == pytest.approx(before + 86_400, abs=60)
        assert (told["project"]["id"], told["project"]["name"]) == ("a1", "cn-north-1")
        assert (told["user"]["name"], told["user"]["domain"]["name"]) == ("alice", "acme")
        assert "catalog" in told
        assert (await send(app, "GET", "/v2/a1/streams", x_auth_token=token)).code == ""
        assert (await send(app, "GET", "/v2/a2/streams", x_auth_token=token)).code == "DIS.4117"
        assert (await send(app, "GET", "/v2/b1/streams", x_auth_token=token)).code == "DIS.4117"


async def test_tokens_end() -> None:
    """After its life a token is DIS.4114; one of another server never was."""
    wall = 1_700_000_000.0
    previous = clock.replace_wall(lambda: wall)
    try:
        async with application(token_lifetime_s=60.0) as app, application() as other:
            token = (await send(app, "POST", TOKENS, GOOD)).headers["x-subject-token"]
            assert (await send(other, "GET", "/v2/a1/streams", x_auth_token=token)).code == "DIS.4114"
            wall += 59
            assert (await send(app, "GET", "/v2/a1/streams", x_auth_token=token)).code == ""
            wall += 1
            expired = await send(app, "GET", "/v2/a1/streams", x_auth_token=token)
            assert (expired.status, expired.code) == (401, "DIS.4114")
    finally:
        clock.replace_wall(previous)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[" * 50_000, 400),
        (b'"\xff"', 400),
        ({}, 400),
        (wanted(project=None), 400),
        (wanted(project={}), 400),
        (wanted(methods=["token"]), 400),
        (wanted(methods=[]), 400),
        (wanted(name=""), 400),
        (wanted(password=""), 400),
        (wanted(password=5), 400),
        (wanted(password="wrong"), 401),
        (wanted(password=PASSWORD + "\0"), 401),
        (wanted(name="nobody"), 401),
        (wanted(domain="other"), 401),
        (wanted(name="reader"), 401),  # has only a key
        (wanted(project={"id": "b1"}), 401),
        (wanted(project={"id": "nowhere"}), 401),
        (wanted(project={"name": "nowhere"}), 401),
    ],
)
async def test_refused_requests(body: Any, status: int) -> None:
    """Bad requests are 400, everything that could tell a stranger something is the same 401; no password comes back."""
    async with application() as app:
        answer = await send(app, "POST", TOKENS, body)
        got, message = refusal(answer)
        assert got == status
        assert PASSWORD not in answer.body.decode()
        assert "x-subject-token" not in answer.headers
        if status == 401:
            stranger = refusal(await send(app, "POST", TOKENS, wanted(name="stranger", domain="strange")))
            assert (got, message) == stranger


async def _guessing() -> None:
    async with application() as app:
        for _ in range(Guesses.BURST):
            assert refusal(await send(app, "POST", TOKENS, wanted(password="wrong")))[0] == 401
        answer = await send(app, "POST", TOKENS, GOOD)
        assert refusal(answer)[0] == 429
        assert int(answer.headers["retry-after"]) == Guesses.SECONDS_EACH
        # Others are not concerned, nor is who holds a token or a key.
        assert refusal(await send(app, "POST", TOKENS, wanted(name="reader")))[0] == 401
        assert (await Signer(app, "alice").call("GET", "/v2/a1/streams")).code == ""
        await asyncio.sleep(Guesses.SECONDS_EACH)
        assert (await send(app, "POST", TOKENS, GOOD)).status == 201
        for _ in range(Guesses.BURST):
            await send(app, "POST", TOKENS, wanted(name="nobody"))
        assert refusal(await send(app, "POST", TOKENS, wanted(name="nobody")))[0] == 429


def test_guessing_is_slow() -> None:
    """After a burst of wrong passwords a user's are refused for a while, right ones too; strangers fare the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Guesses, "_COUNTERS", 2**60)  # no two names meet by chance
        run_simulated(_guessing)


async def test_full_counters_tell_nobody_from_a_user() -> None:
    """Once failures of made-up names have filled the counters, users and strangers are refused alike."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Guesses, "_COUNTERS", 4)
        async with application() as app:
            for n in range(200):
                await send(app, "POST", TOKENS, wanted(name=f"made-up-{n}"))
            for name in ("alice", "reader", "nobody", "nobody-else"):
                assert refusal(await send(app, "POST", TOKENS, wanted(name=name, password="x")))[0] == 429, name


def test_guesses_are_bounded() -> None:
    """However many names are tried, the memory of failures has a bound; successes leave nothing."""
    guesses = Guesses()
    for n in range(100_000):
        name = f"user{n}"
        assert guesses.admit("d", name, 0.0) or n > 1_000
        guesses.failed("d", name, 0.0)
    assert len(guesses._levels) <= 16_384


def test_tokens_cannot_be_made_up() -> None:
    """Changed anywhere, cut, or signed with another secret, a token is none."""
    token = Token("d", "u", "p", 5)
    tokens = Tokens(b"secret")
    text = tokens.issue(token)
    assert tokens.read(text) == token
    assert Tokens(b"other").read(text) is None
    for n in range(len(text)):
        assert tokens.read(text[:n]) is None
        assert tokens.read(text[:n] + chr(ord(text[n]) ^ 1) + text[n + 1 :]) is None
    for junk in ("", ".", "..", "é", "\udc80", text + "x", text + "." + text, "x" * 100_000):
        assert tokens.read(junk) is None


async def test_projects() -> None:
    """The caller's projects in the documented shape; by name; with a token only its own."""
    async with application() as app:
        alice = Signer(app, "alice")
        told = (await alice.call("GET", "/v3/projects")).told
        first, second = told["projects"]
        assert (first["id"], first["name"], first["enabled"], first["is_domain"]) == ("a1", "cn-north-1", True, False)
        assert first["domain_id"] == first["parent_id"] == second["domain_id"]
        assert first["links"]["self"] == "http://127.0.0.1:8080/v3/projects/a1"
        assert told["links"]["self"] == "http://127.0.0.1:8080/v3/projects"
        named = (await alice.call("GET", "/v3/projects?name=cn-east-2")).told["projects"]
        assert [p["id"] for p in named] == ["a2"]
        assert (await alice.call("GET", "/v3/projects?name=no")).told["projects"] == []
        (bobs,) = (await Signer(app, "bob").call("GET", "/v3/projects")).told["projects"]
        assert (bobs["id"], bobs["name"]) == ("b1", "cn-north-1")
        assert bobs["domain_id"] != first["domain_id"]
        token = (await send(app, "POST", TOKENS, GOOD)).headers["x-subject-token"]
        (only,) = (await send(app, "GET", "/v3/projects", x_auth_token=token)).told["projects"]
        assert only["id"] == "a1"


async def test_projects_take_credentials() -> None:
    """Without, or with wrong ones, 401 in IAM's shape."""
    async with application() as app:
        assert refusal(await send(app, "GET", "/v3/projects"))[0] == 401
        assert refusal(await send(app, "GET", "/v3/projects", x_auth_token="x"))[0] == 401
        alice = Signer(app, "alice")
        alice.sk = "wrong"
        assert refusal(await alice.call("GET", "/v3/projects"))[0] == 401
        hostile = await send(app, "GET", "/v3/projects", host="\udc80", x_auth_token="\udc80")
        assert refusal(hostile)[0] == 401


async def test_without_users() -> None:
    """Everybody gets a token for any project, and the project of any name is there: clients that insist work."""
    async with application(users=None) as app:
        answer = await send(app, "POST", TOKENS, wanted(name="x", project={"name": "any"}))
        assert answer.status == 201
        assert answer.told["token"]["project"]["id"] == "any"
        assert answer.headers["x-subject-token"]
        assert refusal(await send(app, "POST", TOKENS, wanted(project={"id": "a b"})))[0] == 401
        (project,) = (await send(app, "GET", "/v3/projects?name=cn-north-1")).told["projects"]
        assert (project["id"], project["name"]) == ("cn-north-1", "cn-north-1")
        assert (await send(app, "GET", "/v3/projects", host="\udc80")).told["projects"] == []


async def test_other_methods() -> None:
    """The paths of IAM know one method each."""
    async with application() as app:
        for method, target, allowed in (("GET", TOKENS, "POST"), ("POST", "/v3/projects", "GET")):
            answer = await send(app, method, target)
            assert (answer.status, answer.headers["allow"]) == (405, allowed)


def test_users_find_projects_by_name() -> None:
    """A name is that of one's own project, though another domain has one of the same name."""
    known = users()
    alice, bob = known.by_name["acme", "alice"], known.by_name["other", "bob"]
    found = [known.project_named(user, "cn-north-1") for user in (alice, bob)]
    assert [project.id for project in found if project] == ["a1", "b1"]
    assert known.project_named(bob, "cn-east-2") is None
    assert known.project_named(known.by_name["acme", "reader"], "cn-east-2") is None  # of the domain, not the user's
