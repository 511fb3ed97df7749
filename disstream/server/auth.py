"""Who sent a request, and whether it may do what it asks for (API 1.3, 1.4, 6.2). Only where users are configured.

    X-Auth-Token there       the token's user, in the token's project only
    else Authorization       the user of the access key, in any project of its own

Nothing is remembered of a request: the same signature may come again within its time, as official clients send it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from .. import clock
from ..wire.errors import api_error
from ..wire.http import Request
from ..wire.signing import MAX_SIGNED_BODY_BYTES, Authorization, parse_authorization, parse_sdk_date, verify
from .call import Caller
from .relay import sent_body
from .rights import ACTIONS
from .tokens import Tokens, same
from .users import User, Users

WINDOW_S = 900
"""How far X-Sdk-Date may lie from this machine's time, before or behind."""


class Auth:
    def __init__(self, users: Users, tokens: Tokens, region: str | None) -> None:
        self._users = users
        self._tokens = tokens
        self._region = region
        # A request with an unknown access key is verified all the same, and so takes as long.
        self._dummy_key = secrets.token_hex(20)

    def caller(self, request: Request, operation: str, project: str) -> Caller:
        """Raises ApiError: status 401 (credentials), DIS.4117 (not the user's project), DIS.4116 (not its right)."""
        user, scope = self.sign_in(request)
        if project not in user.projects or scope not in (None, project):
            raise api_error("DIS.4117", f"[{project[:80]}]")
        if operation not in user.operations:
            raise api_error("DIS.4116", f"[{ACTIONS[operation]} is not among the actions of {user}]")
        return Caller(user.domain, user.name)

    def precheck(self, headers: Mapping[str, str]) -> None:
        """Raise ApiError, status 401, if no body could make a request with these headers sign in."""
        if (token := headers.get("x-auth-token")) is not None:
            self._holder(token)
        elif (ak := self._authorization(headers).access_key) not in self._users.by_key:
            raise api_error("DIS.4107", f"[{ak[:80]!r}]")

    def sign_in(self, request: Request) -> tuple[User, str | None]:
        """The user, and the only project its token is for. Raises ApiError, status 401 or 413."""
        token = request.headers.get("x-auth-token")
        return self._holder(token) if token is not None else (self._signer(request), None)

    def _holder(self, token: str) -> tuple[User, str]:
        if not token:
            raise api_error("DIS.4113")
        found = self._tokens.read(token)
        user = self._users.by_name.get((found.domain, found.user)) if found else None
        if found is None or user is None:
            raise api_error("DIS.4114")
        if clock.wall_ms() >= found.expires_ms:
            raise api_error("DIS.4114", "[it has expired: ask for a new one]")
        return user, found.project

    def _authorization(self, headers: Mapping[str, str]) -> Authorization:
        """What the request claims; of its time and for this region."""
        authorization = parse_authorization(headers.get("authorization", ""))
        away_s = abs(clock.wall() - parse_sdk_date(headers.get("x-sdk-date", "")) / 1000)
        if away_s > WINDOW_S:
            raise api_error("DIS.4105", f"[it is {away_s:.0f} s off this server's clock, more than {WINDOW_S}]")
        if self._region and authorization.region and authorization.region != self._region:
            raise api_error("DIS.4111", f"[{authorization.region[:80]!r} is not {self._region}]")
        return authorization

    def _signer(self, request: Request) -> User:
        authorization = self._authorization(request.headers)
        digest, size = sent_body(request)
        if size > MAX_SIGNED_BODY_BYTES:
            told = f"[a signed body has at most {MAX_SIGNED_BODY_BYTES} bytes, not {size}: use a token]"
            raise api_error("DIS.4200", told, status=413)
        user, key = self._users.by_key.get(authorization.access_key, (None, None))
        matches = verify(request, authorization, key.sk if key else self._dummy_key, digest)
        if user is None or key is None:
            raise api_error("DIS.4107", f"[{authorization.access_key[:80]!r}]")
        if not matches:
            raise api_error("DIS.4112")
        if key.security_token and not same(request.headers.get("x-security-token", ""), key.security_token):
            raise api_error("DIS.4107", "[it is temporary, and X-Security-Token is not the one it came with]")
        return user
