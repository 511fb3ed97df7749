"""Users for tests of the server, and callers that sign their requests as one of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from server_http import Answer, Caller

from disstream import clock
from disstream.engine.memory import MemoryEngine
from disstream.server import App, Project, ServerConfig, User, UserKey, Users
from disstream.wire.http import Request
from disstream.wire.signing import Scheme, sdk_date, sign

HOST = "127.0.0.1:8080"
SECRETS = {"AKalice": "sk-of-alice", "AKreader": "sk-of-reader", "AKbob": "sk-of-bob", "AKcarol": "sk-of-carol"}
PASSWORD = "password-of-alice"


def users() -> Users:
    """Acme has alice (everything, two projects) and a reader; other has bob and carol."""
    return Users(
        [
            Project(id="a1", name="cn-north-1", domain="acme"),
            Project(id="a2", name="cn-east-2", domain="acme"),
            Project(id="b1", name="cn-north-1", domain="other"),
        ],
        [
            _user("alice", "acme", "a1", "a2", password=PASSWORD),
            _user("reader", "acme", "a1", actions=("dis:*:get", "dis:*:list", "dis:records:read*")),
            _user("bob", "other", "b1"),
            _user("carol", "other", "b1"),
        ],
    )


def _user(name: str, domain: str, *projects: str, **fields: Any) -> User:
    ak = f"AK{name}"
    return User(name=name, domain=domain, projects=projects, access_keys=(UserKey(ak=ak, sk=SECRETS[ak]),), **fields)


class Signer(Caller):
    """Signs with `user`'s key; `scheme` and the wall time of signing can be set."""

    def __init__(self, app: App, user: str) -> None:
        self.app = app
        self.ak = f"AK{user}"
        self.sk = SECRETS.get(self.ak, "nobody's")
        self.scheme = Scheme.A
        self.region = "cn-north-1"
        self.late_s = 0.0

    def request(self, method: str, target: str, body: Any = None, **headers: str) -> Request:
        """A signed request."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        names = {key.replace("_", "-"): value for key, value in headers.items()}
        request = Request(
            method=method, target=target, headers={"content-type": "application/json", **names}, body=data
        )
        request.headers |= sign(
            request,
            access_key=self.ak,
            secret_key=self.sk,
            host=HOST,
            sdk_date=sdk_date(clock.wall() - self.late_s),
            scheme=self.scheme,
            region=self.region if self.scheme.scoped else None,
        )
        return request

    async def send(self, request: Request) -> Answer:
        answer = await self.app.handle(request)
        return Answer(answer.status, answer.headers, answer.body)

    async def call(self, method: str, target: str, body: Any = None, **headers: str) -> Answer:
        return await self.send(self.request(method, target, body, **headers))


@asynccontextmanager
async def application(engine: MemoryEngine | None = None, **config: Any) -> AsyncIterator[App]:
    """An application in memory with these users, without sockets."""
    engine = engine or MemoryEngine()
    await engine.start()
    yield App(engine, ServerConfig(**{"data_dir": None, "users": users(), **config}))
    await engine.close()
