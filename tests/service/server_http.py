"""Raw requests for the server's tests: nothing of our own client, so that the wire itself is tested."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
from yarl import URL

from disstream.server import Server, ServerConfig
from disstream.wire.cursors import decode_cursor
from disstream.wire.http import Request

FOUR_KEYS = {"error_code", "error_msg", "errorCode", "message"}


WORKERS = int(os.environ.get("DISSTREAM_TEST_WORKERS", "1"))
"""Of the servers that these tests start: test_workers_everywhere.py runs some of them with more."""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The DIS code of a refusal; "" for success. Checks what every answer owes."""
        assert len(self.headers["x-request-id"]) == 32
        if self.body:
            assert self.headers["content-type"] == "application/json"
        if self.status < 300:
            return ""
        assert set(self.told) == FOUR_KEYS
        assert self.told["error_code"] == self.told["errorCode"]
        assert self.told["error_msg"] == self.told["message"]
        return str(self.told["error_code"])


class Caller:
    """Calls with short names for what most tests do. Subclasses carry the request."""

    async def call(self, method: str, target: str, body: Any = None, **headers: str) -> Answer:
        raise NotImplementedError

    async def create(self, name: str, partitions: int = 1, project: str = "p", **fields: Any) -> None:
        body = {"stream_name": name, "partition_count": partitions, **fields}
        answer = await self.call("POST", f"/v2/{project}/streams", body)
        assert (answer.status, answer.body, answer.code) == (201, b"", ""), answer

    async def put(self, name: str, *records: dict[str, Any], project: str = "p") -> Answer:
        return await self.call("POST", f"/v2/{project}/records", {"stream_name": name, "records": records})

    async def describe(self, name: str, project: str = "p", query: str = "") -> Any:
        answer = await self.call("GET", f"/v2/{project}/streams/{name}{query}")
        assert answer.code == "", answer
        return answer.told

    async def ranges(self, name: str) -> list[str]:
        return [p["sequence_number_range"] for p in (await self.describe(name))["partitions"]]

    async def ask_cursor(self, name: str, partition: str = "0", project: str = "p", **query: object) -> Answer:
        text = "&".join(f"{key.replace('_', '-')}={value}" for key, value in query.items())
        return await self.call("GET", f"/v2/{project}/cursors?stream-name={name}&partition-id={partition}&{text}")

    async def cursor(self, name: str, partition: str = "0", **query: Any) -> str:
        answer = await self.ask_cursor(name, partition, **query)
        assert answer.code == "", answer
        return str(answer.told["partition_cursor"])

    async def position(self, name: str, partition: str = "0", **query: Any) -> int:
        return decode_cursor(await self.cursor(name, partition, **query)).sequence

    async def get(self, cursor: str, query: str = "", project: str = "p") -> Answer:
        return await self.call("GET", f"/v2/{project}/records?partition-cursor={cursor}{query}")

    async def read(self, name: str, partition: str = "0") -> list[dict[str, Any]]:
        """Everything in a partition."""
        cursor = await self.cursor(name, partition, cursor_type="TRIM_HORIZON")
        found: list[dict[str, Any]] = []
        while True:
            page = (await self.get(cursor)).told
            if not page["records"]:
                return found
            found += page["records"]
            cursor = page["next_partition_cursor"]


class HttpCaller(Caller):
    def __init__(self, session: aiohttp.ClientSession, server: Server) -> None:
        self.session = session
        self.server = server

    async def call(self, method: str, target: str, body: Any = None, **headers: str) -> Answer:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        url = URL(self.server.url + target, encoded=True)
        names = {key.replace("_", "-"): value for key, value in headers.items()}
        # A file, because aiohttp warns of large bytes.
        sent = None if data is None else io.BytesIO(data)
        async with self.session.request(method, url, data=sent, headers=names) as answer:
            return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, await answer.read())


class AppCaller(Caller):
    """Straight into the application, for tests under simulated time."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def call(self, method: str, target: str, body: Any = None, **headers: str) -> Answer:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        answer = await self.app.handle(Request(method=method, target=target, headers=headers, body=data))
        return Answer(answer.status, answer.headers, answer.body)


@asynccontextmanager
async def serving(**config: Any) -> AsyncIterator[HttpCaller]:
    """A fresh in-memory server and a caller of it."""
    async with (
        Server(ServerConfig(**{"data_dir": None, "port": 0, "workers": WORKERS, **config})) as server,
        aiohttp.ClientSession() as session,
    ):
        yield HttpCaller(session, server)


def data(payload: bytes) -> str:
    return base64.b64encode(payload).decode()
