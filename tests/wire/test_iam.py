"""Golden bodies of the IAM calls, in both directions, and that no secret leaves them by another way."""

from __future__ import annotations

import json

import pytest

from disstream.errors import ApiError, AuthError, NotFoundError, ServerFault, TransportError
from disstream.wire.http import Request, Response
from disstream.wire.iam import (
    IamProject,
    IssuedToken,
    Named,
    TokenRequest,
    decode_iam_error,
    decode_projects,
    decode_token_answer,
    decode_token_request,
    encode_iam_error,
    encode_projects,
    encode_token_answer,
    encode_token_request,
)

REQUEST = {
    "auth": {
        "identity": {
            "methods": ["password"],
            "password": {"user": {"name": "alice", "password": "hush-hush", "domain": {"name": "acme"}}},
        },
        "scope": {"project": {"id": "p1"}},
    }
}


def changed(path: str, value: object) -> bytes:
    """REQUEST with the value at a dotted path replaced, or removed if it is None."""
    body = json.loads(json.dumps(REQUEST))
    *way, last = path.split(".")
    place = body
    for step in way:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return json.dumps(body).encode()


def test_a_token_request() -> None:
    """The documented body, scoped by id or by name, there and back."""
    request = TokenRequest(user="alice", domain="acme", password="hush-hush", project_id="p1")
    assert json.loads(encode_token_request(request)) == REQUEST
    assert decode_token_request(json.dumps(REQUEST).encode()) == request
    by_name = TokenRequest(user="alice", domain="acme", password="hush-hush", project_name="cn-north-1")
    body = encode_token_request(by_name)
    assert json.loads(body)["auth"]["scope"] == {"project": {"name": "cn-north-1"}}
    assert decode_token_request(body) == by_name


def test_what_others_add_is_ignored() -> None:
    """Unknown keys and a domain beside the name of the project, as other clients send them."""
    body = changed("auth.scope", {"project": {"name": "x", "domain": {"id": "d"}}, "domain": {"name": "acme"}})
    assert decode_token_request(body).project_name == "x"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "cannot be read"),
        (b"[]", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (changed("auth.identity.password.user.password", 5), "$.auth.identity.password.user.password"),
        (changed("auth.identity.password.user.domain", None), "domain"),
        (changed("auth.scope", None), "scope"),
        (changed("auth.scope", {"domain": {"name": "acme"}}), "project"),
        (changed("auth.scope.project", {}), "needs an id or a name"),
        (changed("auth.identity.methods", ["token"]), "methods"),
        (changed("auth.identity.methods", ["password", "totp"]), "methods"),
        (changed("auth.identity.password.user.name", ""), "needs a name"),
        (changed("auth.identity.password.user.password", ""), "a password"),
        (changed("auth.identity.password.user.domain", {"id": "d"}), "domain"),
    ],
)
def test_token_requests_that_are_none(body: bytes, told: str) -> None:
    """Refused with 400 and a reason."""
    with pytest.raises(ApiError, match=told.replace("$", r"\$")) as caught:
        decode_token_request(body)
    assert caught.value.status == 400


def test_no_password_leaves_by_an_error() -> None:
    """Neither `repr` nor a refusal, with its cause, shows what the request held."""
    assert "hush" not in repr(decode_token_request(json.dumps(REQUEST).encode()))
    cut = json.dumps(REQUEST).encode().replace(b"hush-hush", b"hush\xff")
    with pytest.raises(ApiError) as caught:
        decode_token_request(cut)
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert "secret" not in repr(IssuedToken("secret", 1.0))
    request = Request(method="POST", target="/t", headers={"x-auth-token": "secret"}, body=b"secret")
    assert repr(request) == "Request(POST /t, headers=['x-auth-token'], 6 bytes)"
    response = Response(status=201, headers={"x-subject-token": "secret"}, body=b"secret")
    assert repr(response) == "Response(201, headers=['x-subject-token'], 6 bytes)"


def test_a_token_answer() -> None:
    """UTC with microseconds; the token is in the header, whichever else the body holds."""
    body = encode_token_answer(
        issued_at_s=1_767_323_045.25,
        expires_at_s=1_767_409_445.25,
        user=Named("u1", "alice"),
        domain=Named("d1", "acme"),
        project=Named("p1", "cn-north-1"),
    )
    token = json.loads(body)["token"]
    assert token["expires_at"] == "2026-01-03T03:04:05.250000Z"
    assert token["issued_at"] == "2026-01-02T03:04:05.250000Z"
    assert token["methods"] == ["password"]
    assert token["user"]["domain"] == {"id": "d1", "name": "acme"}
    assert token["project"]["id"] == "p1"
    assert isinstance(token["catalog"], list)
    answer = Response(status=201, headers={"x-subject-token": "TOKEN"}, body=body)
    assert decode_token_answer(answer) == IssuedToken("TOKEN", 1_767_409_445.25)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2019-02-13T06:52:13.855000Z", 1_550_040_733.855),
        ("2019-02-13T06:52:13Z", 1_550_040_733.0),
        ("2019-02-13T06:52:13.855000", 1_550_040_733.855),
        ("2019-02-13T08:52:13+02:00", 1_550_040_733.0),
    ],
)
def test_instants_of_other_services(text: str, seconds: float) -> None:
    """With and without fraction and zone; without one it is UTC."""
    body = json.dumps({"token": {"expires_at": text, "catalog": [{"endpoints": []}]}}).encode()
    answer = decode_token_answer(Response(status=201, headers={"x-subject-token": "T"}, body=body))
    assert answer.expires_at_s == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b'{"token": {"expires_at": "2019-02-13T06:52:13Z"}}'),
        ({"x-subject-token": " "}, b'{"token": {"expires_at": "2019-02-13T06:52:13Z"}}'),
        ({"x-subject-token": "T"}, b"<html>"),
        ({"x-subject-token": "T"}, b'{"token": {}}'),
        ({"x-subject-token": "T"}, b'{"token": {"expires_at": "soon"}}'),
    ],
)
def test_token_answers_that_are_none(headers: dict[str, str], body: bytes) -> None:
    """A 2xx of something else is told as such, not as a crash."""
    with pytest.raises(TransportError):
        decode_token_answer(Response(status=200, headers=headers, body=body))


def test_errors() -> None:
    """IAM's own shape there and back; what is not of that shape is read as an answer of DIS."""
    body = encode_iam_error(401, "The username or password is wrong.")
    assert json.loads(body) == {
        "error": {"code": 401, "message": "The username or password is wrong.", "title": "Unauthorized"}
    }
    refused = decode_iam_error(Response(status=401, headers={"x-request-id": "r"}, body=body))
    assert type(refused) is AuthError
    assert (refused.message, refused.status, refused.request_id) == ("The username or password is wrong.", 401, "r")
    assert type(decode_iam_error(Response(status=400, body=encode_iam_error(400, "x")))) is ApiError
    dis = decode_iam_error(Response(status=401, body=b'{"error_code": "IAM.0011", "error_msg": "no"}'))
    assert (type(dis), dis.code) == (AuthError, "IAM.0011")
    assert type(decode_iam_error(Response(status=404, body=b'{"error": "x"}'))) is NotFoundError
    assert type(decode_iam_error(Response(status=502, body=b"\xff"))) is ServerFault


def test_projects() -> None:
    """The documented list with its links, there and back."""
    project = IamProject(id="a4a5", name="region_name", domain_id="6538", parent_id="6538")
    body = encode_projects([project], "https://iam.example.com")
    assert json.loads(body) == {
        "projects": [
            {
                "domain_id": "6538",
                "is_domain": False,
                "parent_id": "6538",
                "name": "region_name",
                "description": "",
                "links": {"next": None, "previous": None, "self": "https://iam.example.com/v3/projects/a4a5"},
                "id": "a4a5",
                "enabled": True,
            }
        ],
        "links": {"next": None, "previous": None, "self": "https://iam.example.com/v3/projects"},
    }
    assert decode_projects(body) == [project]
    assert decode_projects(b'{"projects": [], "links": {}}') == []
    with pytest.raises(TransportError):
        decode_projects(b"{}")
