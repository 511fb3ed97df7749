"""The server without its sockets: a request in, an answer out, on plain types."""

from __future__ import annotations

import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping

from ..engine import Engine
from ..errors import ApiError, StorageError
from ..wire.errors import api_error, encode_error, refusal
from ..wire.http import JSON, Request, Response, split_target
from ..wire.routes import NoMatch, match
from .apps import Apps
from .auth import Auth
from .call import ANYONE, Call
from .checkpoints import Checkpoints
from .config import ServerConfig
from .directory import Directory
from .documents import NAME
from .groups import Groups
from .iam import Iam
from .policies import Policies
from .records import Records
from .streams import Streams
from .tokens import Tokens

logger = logging.getLogger("disstream.server")


class App:
    """Answers every request on a started engine. `source` draws request and stream ids."""

    def __init__(self, engine: Engine, config: ServerConfig, source: random.Random | None = None) -> None:
        self._source = source or random.Random()
        self.directory = Directory(engine, config)
        streams = Streams(engine, self.directory, config, self._source)
        records = Records(engine, self.directory, config)
        groups = Groups(engine, self.directory, config)
        apps = Apps(engine, self.directory, groups, self._source)
        checkpoints = Checkpoints(engine, self.directory, groups)
        policies = Policies(engine, self.directory)
        tokens = Tokens(secrets.token_bytes(32))
        self._auth = None if config.users is None else Auth(config.users, tokens, config.region)
        self._iam = Iam(self._auth, tokens, config)
        self._handlers: dict[str, Callable[[Call], Awaitable[Response]]] = {
            "create_stream": streams.create,
            "list_streams": streams.listing,
            "delete_stream": streams.delete,
            "describe_stream": streams.describe,
            "put_records": records.put,
            "get_records": records.get,
            "get_cursor": records.get_cursor,
            "add_policy": policies.add,
            "list_policies": policies.listing,
            "create_app": apps.create,
            "list_apps": apps.listing,
            "delete_app": apps.delete,
            "describe_app": apps.describe,
            "consuming_state": apps.consuming_state,
            "commit_checkpoint": checkpoints.commit,
            "get_checkpoint": checkpoints.get,
            "delete_checkpoint": checkpoints.delete,
            "group_join": groups.join,
            "group_sync": groups.sync,
            "group_heartbeat": groups.heartbeat,
            "group_leave": groups.leave,
            "group_members": groups.members,
        }

    def request_id(self) -> str:
        return f"{self._source.getrandbits(128):032x}"

    def precheck(self, headers: Mapping[str, str]) -> None:
        """Raise ApiError if a request with these headers will be refused whatever follows them."""
        if self._auth is not None:
            self._auth.precheck(headers)

    async def handle(self, request: Request) -> Response:
        """Never raises an error of disstream: refusals and failures are answers, each with its X-Request-Id.

        Cancellation: what the request asked for may still take effect.
        """
        request_id = self.request_id()
        try:
            response = await self._dispatch(request)
        except ApiError as error:
            return refusal(error, request_id)
        except StorageError as error:
            logger.error(
                "request failed: id=%s method=%s target=%.200s: %s", request_id, request.method, request.target, error
            )
            return refusal(api_error("DIS.5000"), request_id)
        response.headers["x-request-id"] = request_id
        return response

    async def _dispatch(self, request: Request) -> Response:
        segments, query = split_target(request.target)
        found = match(request.method, segments)
        if isinstance(found, NoMatch):
            return _unrouted(request.method, found.allowed)
        encoding = request.headers.get("content-encoding", "identity")
        if encoding.strip().lower() not in ("", "identity"):
            raise api_error("DIS.4200", f"[content-encoding {encoding[:80]!r} is not supported: send the body plain]")
        project = found.params.get("project_id")
        if project is None:
            return await self._iam.handle(found.operation, request, query)
        caller = ANYONE if self._auth is None else self._auth.caller(request, found.operation, project)
        if not NAME.fullmatch(project):
            raise api_error("DIS.4117", f"[{project[:80]}]")
        claimed = request.headers.get("x-project-id")
        if claimed and claimed != project:
            raise api_error("DIS.4117", f"[X-Project-Id is {claimed[:80]!r}, the path has {project}]")
        return await self._handlers[found.operation](Call(project, found.params, query, request.body, caller))


def _unrouted(method: str, allowed: tuple[str, ...]) -> Response:
    if allowed:
        error = api_error("DIS.4200", f"[{method[:20]} is not for this path, only {', '.join(allowed)}]", status=405)
    else:
        error = api_error("DIS.4200", "[no such path]", status=404)
    response = Response(status=error.status, headers={"content-type": JSON}, body=encode_error(error))
    if allowed:
        response.headers["allow"] = ", ".join(allowed)
    return response
