"""The server without its sockets: a request in, an answer out, on plain types."""

from __future__ import annotations

import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping

import anyio

from ..engine import Engine
from ..errors import ApiError, StorageError, StorageFull
from ..wire.caps import EXTENSION as CAPS
from ..wire.checkpoints import RESETS
from ..wire.columns import COLUMNS
from ..wire.columns import EXTENSION as COLUMNS_PUT
from ..wire.errors import api_error, encode_error, refusal
from ..wire.http import JSON, Request, Response, accepts, json_response, media_type, split_target
from ..wire.layouts import EXTENSION as LAYOUTS
from ..wire.notices import EXTENSION as WAIT
from ..wire.notices import PUSH
from ..wire.pages import EXTENSION as PAGES
from ..wire.places import EXTENSION as PLACES
from ..wire.places import HEADER as ANSWER
from ..wire.routes import NoMatch, match
from ..wire.sessions import EXTENSION as SESSIONS
from ..wire.sessions import HEADER as SESSION
from ..wire.streams import RETENTION
from .apps import Apps
from .auth import Auth
from .blacklist import Blacklist, too_many_failures
from .call import ANYONE, Call
from .checkpoints import Checkpoints
from .compression import Unpacking
from .config import ServerConfig
from .directory import Directory
from .documents import NAME
from .dumps import DumpTasks
from .flow import Flow, no_room
from .groups import Groups
from .iam import Iam
from .meter import Meter
from .metrics import Metrics
from .notices import Notices
from .policies import Policies
from .pushing import Pushing
from .records import Records
from .relay import Relayed
from .scaling import Scaler
from .streams import Streams
from .tags import Tags
from .tokens import Tokens

logger = logging.getLogger("disstream.server")

EXTENSIONS = (
    f"bounds, {CAPS}, {COLUMNS_PUT}, {LAYOUTS}, {PAGES}, {PLACES}, {PUSH}, {RESETS}, {RETENTION}, {SESSIONS}, {WAIT}"
)
"""What this server offers beyond the API, told in the header X-Disstream of every answer that is no refusal."""


class App:
    """Answers every request on a started engine. `source` draws request and stream ids."""

    def __init__(self, engine: Engine, config: ServerConfig, source: random.Random | None = None) -> None:
        self._source = source or random.Random()
        self.directory = Directory(engine, config)
        self.meter = Meter()
        flow = Flow(config)
        self.scaling = Scaler(engine, self.directory, config)
        streams = Streams(engine, self.directory, self.scaling, config, flow, self._source)
        self._records = records = Records(engine, self.directory, self.scaling, config, flow, self.meter)
        self.pushing = Pushing(engine, self.directory, config, flow, self.meter)
        self.notices = Notices(engine, self.directory, config, self.pushing)
        self.scaling.on_changed = self.notices.changed
        groups = Groups(engine, self.directory, config)
        apps = Apps(engine, self.directory, groups, config, self._source)
        checkpoints = Checkpoints(engine, self.directory, groups)
        policies = Policies(engine, self.directory)
        dumps = DumpTasks(engine, self.directory, config, self._source)
        self.metrics = metrics = Metrics(engine, self.directory, self.meter)
        tags = Tags(self.directory, config)
        tokens = Tokens(secrets.token_bytes(32))
        self._auth = None if config.users is None else Auth(config.users, tokens, config.region)
        self._iam = Iam(self._auth, tokens, config)
        self._unpacking = Unpacking(config)
        limit = config.max_failures_per_minute
        self._blacklist = None if limit is None else Blacklist(limit)
        self._handlers: dict[str, Callable[[Call], Awaitable[Response]]] = {
            "create_stream": streams.create,
            "list_streams": streams.listing,
            "delete_stream": streams.delete,
            "describe_stream": streams.describe,
            "update_partition_count": streams.scale,
            "update_stream": streams.update,
            "update_stream_v2": streams.update_v2,
            "put_records": records.put,
            "get_records": records.get,
            "get_cursor": records.get_cursor,
            "notices": self.notices.answer,
            "add_policy": policies.add,
            "list_policies": policies.listing,
            "create_dump_task": dumps.create,
            "list_dump_tasks": dumps.listing,
            "delete_dump_task": dumps.delete,
            "describe_dump_task": dumps.describe,
            "change_dump_tasks": dumps.change,
            "stream_metrics": metrics.of_stream,
            "partition_metrics": metrics.of_partition,
            "create_tag": tags.create,
            "stream_tags": tags.of_stream,
            "delete_tag": tags.delete,
            "change_tags": tags.change,
            "list_tags": tags.everything,
            "filter_by_tags": tags.filter,
            "create_app": apps.create,
            "list_apps": apps.listing,
            "delete_app": apps.delete,
            "describe_app": apps.describe,
            "consuming_state": apps.consuming_state,
            "commit_checkpoint": checkpoints.commit,
            "get_checkpoint": checkpoints.get,
            "delete_checkpoint": checkpoints.delete,
            "reset_checkpoints": checkpoints.reset,
            "group_join": groups.join,
            "group_sync": groups.sync,
            "group_heartbeat": groups.heartbeat,
            "group_leave": groups.leave,
            "group_members": groups.members,
        }

    @property
    def pending_bytes(self) -> int:
        return self._records.admission.pending_bytes

    def request_id(self) -> str:
        return f"{self._source.getrandbits(128):032x}"

    async def precheck(self, headers: Mapping[str, str], peer: str = "") -> None:
        """Raise ApiError if a request with these headers, from there, will be refused whatever follows them."""
        self._check_peer(peer)
        if self._auth is not None:
            self._auth.precheck(headers)

    async def handle(self, request: Request) -> Response:
        """Never raises an error of disstream: refusals and failures are answers, each with its X-Request-Id.

        Cancellation: what the request asked for may still take effect.
        """
        request_id = self.request_id()
        try:
            self._check_peer(request.peer)
            response = await self._dispatch(request)
        except ApiError as error:
            self.refused(request.peer, error.status, error.code)
            return refusal(error, request_id)
        except StorageFull:  # the engine has said so, once
            return refusal(no_room(), request_id)
        except StorageError as error:
            logger.error(
                "request failed: id=%s method=%s target=%.200s: %s", request_id, request.method, request.target, error
            )
            return refusal(api_error("DIS.5000"), request_id)
        self.refused(request.peer, response.status)  # by no such path, or by IAM
        response.headers["x-request-id"] = request_id
        response.headers["x-disstream"] = EXTENSIONS
        return response

    def _check_peer(self, peer: str) -> None:
        if self._blacklist is None:
            return
        left_s = self._blacklist.refused_for(peer, anyio.current_time())
        if left_s is not None:
            raise too_many_failures(left_s)

    def refused(self, peer: str, status: int, code: str = "") -> None:
        """Count what was answered to an address, if failures are counted; 2xx is none."""
        if self._blacklist is not None:
            self._blacklist.answered(peer, status, code, anyio.current_time())

    async def _dispatch(self, request: Request) -> Response:
        segments, query = split_target(request.target)
        found = match(request.method, segments)
        if isinstance(found, NoMatch):
            return _unrouted(request.method, found.allowed)
        if found.operation == "openapi":
            # Here: it takes as long to import as aiohttp's parser, and few servers are ever asked for it.
            from .openapi import document

            return json_response(document())
        project = found.params.get("project_id")
        if project is None:
            return await self._iam.handle(found.operation, request, query)
        caller = ANYONE if self._auth is None else self._auth.caller(request, found.operation, project)
        if not NAME.fullmatch(project):
            raise api_error("DIS.4117", f"[{project[:80]}]")
        claimed = request.headers.get("x-project-id")
        if claimed and claimed != project:
            raise api_error("DIS.4117", f"[X-Project-Id is {claimed[:80]!r}, the path has {project}]")
        handler = self._handlers[found.operation]
        relayed = request if isinstance(request, Relayed) else None
        call = Call(
            project,
            found.params,
            query,
            request.body,
            caller,
            media_type(request.headers),
            request.headers.get(SESSION),
            request.headers.get(ANSWER) == PLACES,
            accepts(request.headers, COLUMNS),
            "" if relayed is None else relayed.form,
            relayed is not None,
        )
        try:
            if "content-encoding" not in request.headers or (relayed is not None and relayed.unpacked):
                return await handler(call)
            # After the signature, which covers the bytes as they were sent.
            async with self._unpacking.unpacked(request) as body:
                return await handler(call._replace(body=body))
        except ApiError:
            if found.operation == "put_records":
                self._records.refused(call)
            raise


def _unrouted(method: str, allowed: tuple[str, ...]) -> Response:
    if allowed:
        error = api_error("DIS.4200", f"[{method[:20]} is not for this path, only {', '.join(allowed)}]", status=405)
    else:
        error = api_error("DIS.4200", "[no such path]", status=404)
    response = Response(status=error.status, headers={"content-type": JSON}, body=encode_error(error))
    if allowed:
        response.headers["allow"] = ", ".join(allowed)
    return response
