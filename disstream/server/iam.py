"""The two calls of IAM that clients of DIS need: a token for a password, and the projects of a user (API 1.3, 1.5).

They stand in no project, and refuse in IAM's own shape. Where no users are configured, everybody gets a token for any
project, which nothing asks for.
"""

from __future__ import annotations

import logging
import re

import anyio

from .. import clock
from ..errors import ApiError, ThrottledError
from ..wire.http import JSON, Request, Response, json_response
from ..wire.iam import (
    SUBJECT_TOKEN,
    IamProject,
    Named,
    TokenRequest,
    decode_token_request,
    encode_iam_error,
    encode_projects,
    encode_token_answer,
)
from .auth import Auth
from .config import ServerConfig
from .documents import NAME
from .tokens import Guesses, Token, Tokens, same
from .users import Project, User, Users, identifier

logger = logging.getLogger("disstream.server")

_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}", re.ASCII)
_WRONG = "The user name or the password is wrong, or the user may not use that project."


class Iam:
    def __init__(self, auth: Auth | None, tokens: Tokens, config: ServerConfig) -> None:
        self._auth = auth
        self._tokens = tokens
        self._users: Users | None = config.users
        self._lifetime_s = config.token_lifetime_s
        self._scheme = "http" if config.tls_certificate is None else "https"
        self._guesses = Guesses()

    async def handle(self, operation: str, request: Request, query: dict[str, str]) -> Response:
        try:
            return self._create_token(request) if operation == "create_token" else self._list_projects(request, query)
        except ApiError as error:
            headers = {"content-type": JSON}
            if isinstance(error, ThrottledError) and error.retry_after_s is not None:
                headers["retry-after"] = f"{error.retry_after_s:.0f}"
            told = encode_iam_error(error.status, error.message)
            return Response(status=error.status, headers=headers, body=told)

    def _create_token(self, request: Request) -> Response:
        wanted = decode_token_request(request.body)
        project = self._project_for(wanted)
        now_s = clock.wall()
        token = Token("", "", project.id, int((now_s + self._lifetime_s) * 1000))
        if self._users is not None:
            token = token._replace(domain=wanted.domain, user=wanted.user)
            logger.info("token issued: user=%s.%s project=%s", wanted.domain, wanted.user, project.id)
        body = encode_token_answer(
            issued_at_s=now_s,
            expires_at_s=token.expires_ms / 1000,
            user=Named(identifier(wanted.domain, wanted.user), wanted.user),
            domain=Named(identifier(wanted.domain), wanted.domain),
            project=Named(project.id, project.name),
        )
        return Response(status=201, headers={"content-type": JSON, SUBJECT_TOKEN: self._tokens.issue(token)}, body=body)

    def _project_for(self, wanted: TokenRequest) -> Project:
        """Checks the password, too; that comes first, so that a stranger learns nothing about projects."""
        if self._users is None:
            name = wanted.project_id or wanted.project_name or ""
            if not NAME.fullmatch(name):
                raise ApiError(_WRONG, status=401)
            return Project(id=name, name=name, domain="any")
        user = self._checked(wanted, self._users)
        project = self._users.project_named(user, wanted.project_name or "")
        if wanted.project_id is not None:
            project = self._users.projects[wanted.project_id] if wanted.project_id in user.projects else None
        if project is None:
            raise ApiError(_WRONG, status=401)
        return project

    def _checked(self, wanted: TokenRequest, users: Users) -> User:
        user = users.by_name.get((wanted.domain, wanted.user))
        now = anyio.current_time()
        if not self._guesses.admit(wanted.domain, wanted.user, now):
            raise ThrottledError(
                "Too many wrong passwords for this user: wait, then try again.",
                status=429,
                retry_after_s=self._guesses.SECONDS_EACH,
            )
        password = user.password if user else None
        # Compared with something in every case: the time does not tell who exists.
        matches = same(wanted.password, password or "")
        if user is None or password is None or not matches:
            self._guesses.failed(wanted.domain, wanted.user, now)
            raise ApiError(_WRONG, status=401)
        return user

    def _list_projects(self, request: Request, query: dict[str, str]) -> Response:
        """API 1.5; `name` keeps those of that name."""
        name = query.get("name", "")
        if self._auth is None or self._users is None:
            found = [Project(id=name, name=name, domain="any")] if NAME.fullmatch(name) else []
        else:
            user, scope = self._auth.sign_in(request)
            found = [
                project
                for project in self._users.projects_of(user)
                if (not name or project.name == name) and scope in (None, project.id)
            ]
        listed = [
            IamProject(id=p.id, name=p.name, domain_id=identifier(p.domain), parent_id=identifier(p.domain))
            for p in found
        ]
        host = request.headers.get("host", "")
        base = f"{self._scheme}://{host}" if _HOST.fullmatch(host) else ""
        return json_response(encode_projects(listed, base))
