"""Bodies of the two IAM calls that DIS needs: a token for a password (API 1.3), and the projects (API 1.5).

The token itself travels in a header: X-Subject-Token of the answer, X-Auth-Token of later requests. IAM tells errors in
a shape of its own, `{"error": {"code": 401, "message": ..., "title": ...}}`.
"""

from __future__ import annotations

import http
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from ..errors import ApiError, AuthError, TransportError
from .body import decode_answer
from .errors import decode_error
from .http import Response

TOKEN_TARGET = "/v3/auth/tokens"
PROJECTS_TARGET = "/v3/projects"
SUBJECT_TOKEN = "x-subject-token"


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks for a token, and for which project: by `project_id` or, if that is None, by `project_name`."""

    user: str
    domain: str
    password: str
    project_id: str | None = None
    project_name: str | None = None

    def __repr__(self) -> str:  # without the password
        project = self.project_id or self.project_name
        return f"TokenRequest(user={self.user!r}, domain={self.domain!r}, project={project!r})"


class IssuedToken(msgspec.Struct, frozen=True):
    """A token and when it ends, in seconds since the epoch."""

    token: str
    expires_at_s: float

    def __repr__(self) -> str:  # without the token
        return f"IssuedToken(expires_at_s={self.expires_at_s})"


class Named(msgspec.Struct, frozen=True, omit_defaults=True):
    """What IAM names by id, by name, or both: a domain, a project."""

    id: str = ""
    name: str = ""


class _User(msgspec.Struct, kw_only=True):
    name: str
    password: str
    domain: Named


class _ByPassword(msgspec.Struct):
    user: _User


class _Identity(msgspec.Struct):
    methods: list[str]
    password: _ByPassword


class _Scope(msgspec.Struct):
    project: Named


class _Auth(msgspec.Struct):
    identity: _Identity
    scope: _Scope


class _TokenBody(msgspec.Struct):
    auth: _Auth


_token_decoder = msgspec.json.Decoder(_TokenBody)


def encode_token_request(request: TokenRequest) -> bytes:
    """The body of POST /v3/auth/tokens."""
    project = Named(id=request.project_id) if request.project_id else Named(name=request.project_name or "")
    user = _User(name=request.user, password=request.password, domain=Named(name=request.domain))
    return msgspec.json.encode(_TokenBody(_Auth(_Identity(["password"], _ByPassword(user)), _Scope(project))))


def decode_token_request(body: bytes) -> TokenRequest:
    """Raises ApiError, status 400, for what is not a password request scoped to a project. It repeats no value."""
    try:
        auth = _token_decoder.decode(body).auth
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        # from None: a UnicodeDecodeError carries the bytes it choked on, which may be those of the password.
        raise ApiError(f"The token request cannot be read: {exc}", status=400) from None
    user = auth.identity.password.user
    project = auth.scope.project
    if auth.identity.methods != ["password"]:
        raise ApiError('auth.identity.methods must be ["password"]', status=400)
    if not (user.name and user.password and user.domain.name):
        raise ApiError("the user needs a name, a password and the name of a domain", status=400)
    if not (project.id or project.name):
        raise ApiError("auth.scope.project needs an id or a name: a token for DIS belongs to a project", status=400)
    return TokenRequest(
        user=user.name,
        domain=user.domain.name,
        password=user.password,
        project_id=project.id or None,
        project_name=project.name or None,
    )


def encode_token_answer(
    *, issued_at_s: float, expires_at_s: float, user: Named, domain: Named, project: Named
) -> bytes:
    """The body of the 201 answer; the token goes into its X-Subject-Token header."""
    owner = {"id": domain.id, "name": domain.name}
    return msgspec.json.encode(
        {
            "token": {
                "expires_at": _instant(expires_at_s),
                "issued_at": _instant(issued_at_s),
                "methods": ["password"],
                "catalog": [],
                "roles": [],
                "project": {"id": project.id, "name": project.name, "domain": owner},
                "user": {"id": user.id, "name": user.name, "domain": owner, "password_expires_at": ""},
            }
        }
    )


class _Token(msgspec.Struct):
    expires_at: datetime


class _TokenAnswer(msgspec.Struct):
    token: _Token


_answer_decoder = msgspec.json.Decoder(_TokenAnswer)


def decode_token_answer(response: Response) -> IssuedToken:
    """The token of a 2xx answer. Raises TransportError if there is none to be found in it."""
    token = response.headers.get(SUBJECT_TOKEN, "").strip()
    if not token:
        raise TransportError("IAM's answer has no X-Subject-Token: is the IAM endpoint right?", outcome_unknown=False)
    expires_at = decode_answer(_answer_decoder, response.body).token.expires_at
    if expires_at.tzinfo is None:
        expires_at = expires_at.replace(tzinfo=UTC)
    return IssuedToken(token, expires_at.timestamp())


def encode_iam_error(status: int, message: str) -> bytes:
    """The body of an answer that refuses."""
    return msgspec.json.encode({"error": {"code": status, "message": message, "title": http.HTTPStatus(status).phrase}})


def decode_iam_error(response: Response) -> ApiError:
    """The exception for a refusal of IAM, in its own shape or in that of DIS; AuthError for 401 and 403."""
    try:
        body: Any = msgspec.json.decode(response.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = None
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    if not isinstance(message, str) or not message:
        return decode_error(response)
    kind = AuthError if response.status in (401, 403) else ApiError
    return kind(message[:300], status=response.status, request_id=response.headers.get("x-request-id", ""))


# --- projects ---------------------------------------------------------------------------------------------------


class IamProject(msgspec.Struct, frozen=True, kw_only=True):
    """A project as listed (API 1.5). Its name is that of the region, unless somebody made it."""

    id: str
    name: str
    domain_id: str = ""
    parent_id: str = ""
    is_domain: bool = False
    enabled: bool = True
    description: str = ""


class _Projects(msgspec.Struct):
    projects: list[IamProject]


_projects_decoder = msgspec.json.Decoder(_Projects)


def encode_projects(projects: Sequence[IamProject], base_url: str) -> bytes:
    """The answer of GET /v3/projects. `base_url` is scheme://host[:port] of this service, for the links."""
    own = f"{base_url}{PROJECTS_TARGET}"

    def links(to: str) -> dict[str, str | None]:
        return {"next": None, "previous": None, "self": to}

    listed = [{**msgspec.structs.asdict(project), "links": links(f"{own}/{project.id}")} for project in projects]
    return msgspec.json.encode({"projects": listed, "links": links(own)})


def decode_projects(body: bytes) -> list[IamProject]:
    """Raises TransportError for an answer that is none."""
    return decode_answer(_projects_decoder, body).projects


def _instant(wall_s: float) -> str:
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
