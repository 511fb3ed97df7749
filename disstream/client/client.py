"""The client: one project at one endpoint.

    caller -> Streams / Records / Cursors -> Client.call -> Transport.exchange
                 names <-> bodies            retries          one request, one answer

A call runs in the caller's task. The supervisor task only owns the end: `close()` refuses new calls, waits up to
`close_timeout_s` for running ones, cuts the rest (they raise TransportError with an unknown outcome) and closes the
transport; `abort()` cuts at once.
"""

from __future__ import annotations

import contextlib
import logging
import random
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import anyio

from ..errors import ApiError, ConfigError, DisError, NotFoundError, TransportError
from ..lifecycle import Scope, Supervisor, loop_time
from ..wire.errors import decode_error, retry_after_seconds
from ..wire.http import EXTENSIONS_HEADER, JSON, Request, Response
from ..wire.routes import build
from .api import Streamed, StreamingTransport, Transport
from .apps import Apps
from .checkpoints import Checkpoints
from .config import ClientConfig, default_user_agent
from .credentials import Credentials, Provider, Source
from .cursors import Cursors
from .dumps import Dumps
from .groups import Groups
from .http import HttpTransport
from .metrics import Metrics
from .notices import Notices
from .policies import Policies
from .records import Records
from .retry import RetryPolicy, may_repeat, repeat_of
from .streams import Streams
from .tags import Tags

log = logging.getLogger("disstream.client")

_MAX_REFUSAL_BYTES = 65_536
_MAX_CAUSES = 10
"""Errors behind an error that are looked at: nobody has more, and a chain may be a ring."""

_PROJECT_ID = re.compile(r"[!-~]{1,128}")


@dataclass(frozen=True, slots=True)
class ClientStats:
    """Counted since the start. `requests` are exchanges, `retries` those of them that repeated an earlier one."""

    requests: int
    retries: int
    running: int


class Client:
    """The calls of DIS, by resource: `streams`, `records`, `cursors`, `apps`, `checkpoints`, `groups`, `policies`,
    `dumps`, `metrics`, `tags`.

    Not started by making it.

    Safe to share between the tasks of one event loop. The client closes the transport it was given.
    """

    def __init__(
        self,
        endpoint: str | Transport,
        project_id: str,
        config: ClientConfig | None = None,
        *,
        credentials: Credentials | Provider | None = None,
        dice: random.Random | None = None,
    ) -> None:
        """`endpoint`: a URL, or whatever carries requests. `dice` draws the pauses between attempts.

        `credentials`: what requests carry, or an async callable that is asked for it now and then; None: nothing.
        """
        self.config = config or ClientConfig()
        if not _PROJECT_ID.fullmatch(project_id):
            raise ConfigError(f"project_id {project_id!r} must be 1 to 128 printable ASCII characters without blanks")
        if not isinstance(endpoint, str) and not hasattr(endpoint, "exchange"):
            raise ConfigError(f"endpoint {endpoint!r} is no address: give a URL like 'http://127.0.0.1:8080'")
        self.project_id = project_id
        self.extensions: frozenset[str] = frozenset()
        """What the endpoint offers beyond the API, as its latest answer that is no refusal says."""
        self._told_extensions = ""
        self.transport = HttpTransport(endpoint, self.config) if isinstance(endpoint, str) else endpoint
        self._source: Source | None = None
        if credentials is not None:
            self._source = Source(credentials, project_id, self.transport, self.config)
        self._endpoint = endpoint if isinstance(endpoint, str) else None
        self._is_twin = False
        # Only a signature needs it; a transport that knows no host gets the Host header it covers from us.
        self._host = self.transport.host if isinstance(self.transport, HttpTransport) else "localhost"
        self.streams = Streams(self)
        self.records = Records(self)
        self.cursors = Cursors(self)
        self.apps = Apps(self)
        self.checkpoints = Checkpoints(self)
        self.groups = Groups(self)
        self.policies = Policies(self)
        self.dumps = Dumps(self)
        self.metrics = Metrics(self)
        self.tags = Tags(self)
        self.notices = Notices(self)  # for consumers; no call of the API
        self._headers = {
            "content-type": JSON,  # on GET too: the service's gateway wants it everywhere
            "accept": JSON,
            "user-agent": self.config.user_agent or default_user_agent(),
            "x-project-id": project_id,
        }
        self._policy = RetryPolicy(
            self.config.attempts, self.config.retry_base_s, self.config.retry_max_s, self.config.retry_budget_s
        )
        self._dice = dice or random.Random()
        self._supervisor = Supervisor("disstream client", self._run)
        self._addresses: dict[str, tuple[str, str]] = {}
        self._calls: set[anyio.CancelScope] = set()
        self._streamed: set[anyio.CancelScope] = set()  # answers that go on: they have no end that a close could await
        self._call_ended: anyio.Event | None = None
        self._requests = 0
        self._retries = 0

    # --- life ---------------------------------------------------------------------------------------------------

    async def start(self) -> Self:
        """Make calls possible; connects to nothing. A client starts once: a second start raises ClosedError."""
        await self._supervisor.start()
        return self

    async def close(self) -> None:
        """Let running calls finish within `close_timeout_s`, then close the transport. Twice is fine."""
        await self._supervisor.close()

    async def abort(self) -> None:
        """Cut running calls and close the transport now. Twice is fine."""
        await self._supervisor.abort()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def twin(self) -> Client | None:
        """A client like this one for another event loop, in another thread; not started. None over a given transport.

        It shares the credentials: they are renewed in the loop of this client, which has to run for that.
        """
        if self._endpoint is None:
            return None
        twin = Client(self._endpoint, self.project_id, self.config)
        twin._source = self._source
        twin._is_twin = True
        return twin

    def stats(self) -> ClientStats:
        return ClientStats(requests=self._requests, retries=self._retries, running=len(self._calls))

    async def _run(self, scope: Scope) -> None:
        try:
            renewing = contextlib.nullcontext() if self._source is None or self._is_twin else self._source.running()
            async with renewing:
                scope.started()
                await scope.closing.wait()
                for answer in self._streamed:
                    answer.cancel()
                with anyio.move_on_after(self.config.close_timeout_s):
                    while self._calls:
                        self._call_ended = anyio.Event()
                        await self._call_ended.wait()
        finally:
            for call in self._calls | self._streamed:
                call.cancel()
            with anyio.move_on_after(self.config.close_timeout_s, shield=True):
                await self.transport.close()

    # --- calls --------------------------------------------------------------------------------------------------

    async def call(
        self,
        operation: str,
        params: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        attempts: int | None = None,
    ) -> Response:
        """Carry out an operation of the routes table and return its 2xx answer.

        Repeats what may be repeated (client/retry.py) at most `attempts` times in all, each bounded by `timeout_s`
        (None: as configured). A delete that finds nothing after an attempt of unknown outcome has succeeded. Whatever
        the operation, credentials that the service refuses are renewed once, if they can be, and it is asked again.
        `headers` (lower case) stand above the usual ones.

        Raises ApiError, TransportError, ClosedError. Cancellation: the running attempt may have been received.
        """
        self._supervisor.check()
        method, target = self._address(operation, params, query)
        policy = self._policy
        if attempts is not None:
            policy = RetryPolicy(attempts, policy.base_s, policy.max_s, policy.budget_s)
        if timeout_s is None:
            timeout_s = self.config.request_timeout_s
        with anyio.CancelScope() as scope:
            self._calls.add(scope)
            try:
                return await self._attempts(operation, method, target, body, headers, timeout_s, policy)
            finally:
                self._calls.discard(scope)
                if self._call_ended is not None:
                    self._call_ended.set()
        raise TransportError(f"{operation}: the client was closed before the answer came", outcome_unknown=True)

    @property
    def can_stream(self) -> bool:
        """Whether the transport can carry an answer that goes on."""
        return isinstance(self.transport, StreamingTransport)

    @contextlib.asynccontextmanager
    async def stream(self, operation: str, body: bytes, *, timeout_s: float) -> AsyncIterator[AsyncIterator[bytes]]:
        """Carry out an operation whose 2xx answer goes on: its pieces, which come inside the block. Never repeated.

        Refused credentials are renewed, for the next time. `timeout_s` bounds the wait for the beginning of the answer.
        Raises ApiError, TransportError (also inside the block, where a close of the client cuts it), ClosedError.
        """
        self._supervisor.check()
        assert isinstance(self.transport, StreamingTransport)
        method, target = self._address(operation, None, None)
        request = Request(method=method, target=target, headers=dict(self._headers), body=body, timeout_s=timeout_s)
        with anyio.CancelScope() as scope:
            self._streamed.add(scope)
            try:
                used = None if self._source is None else await self._source.authorize(request, self._host)
                self._requests += 1
                async with self.transport.stream(request) as answer:
                    if 200 <= answer.status < 300:
                        self._learn(answer.headers.get(EXTENSIONS_HEADER, ""))
                        yield answer.pieces
                        return
                    told = Response(status=answer.status, headers=answer.headers, body=await _begin(answer, timeout_s))
                if used is not None and self._source is not None and told.status in (401, 441):
                    await self._source.renew(used, timeout_s)
                raise _refusal(told)
            finally:
                self._streamed.discard(scope)
        raise TransportError(f"{operation}: the client was closed", outcome_unknown=True)

    def _address(
        self, operation: str, params: Mapping[str, str] | None, query: Mapping[str, str] | None
    ) -> tuple[str, str]:
        if params or query:
            return build(operation, {"project_id": self.project_id, **(params or {})}, dict(query or {}))
        address = self._addresses.get(operation)
        if address is None:  # puts are here all the time
            address = self._addresses[operation] = build(operation, {"project_id": self.project_id})
        return address

    async def _attempts(
        self,
        operation: str,
        method: str,
        target: str,
        body: bytes,
        headers: Mapping[str, str] | None,
        timeout_s: float,
        policy: RetryPolicy,
    ) -> Response:
        repeat = repeat_of(operation, method)
        usual = self._headers if headers is None else {**self._headers, **headers}
        began = loop_time()
        attempt = 0
        maybe_done = False
        renewed = False
        while True:
            attempt += 1
            retry_after_s: float | None = None
            error: DisError
            # Each attempt has headers of its own: what is added on the way must not be there the next time.
            request = Request(method=method, target=target, headers=dict(usual), body=body, timeout_s=timeout_s)
            try:
                used = None if self._source is None else await self._source.authorize(request, self._host)
                self._requests += 1
                response = await self.transport.exchange(request)
                if 200 <= response.status < 300:
                    self._learn(response.headers.get(EXTENSIONS_HEADER, ""))
                    return response
                error = _refusal(response)
                if (
                    used is not None
                    and self._source is not None
                    and response.status in (401, 441)
                    and not renewed
                    and await self._source.renew(used, timeout_s)
                ):  # refused, so nothing was done, whatever the operation: at once again, and not one attempt less
                    renewed = True
                    attempt -= 1
                    self._retries += 1
                    continue
                retry_after_s = retry_after_seconds(response.headers)
            except TransportError as exc:
                _forget_frames(exc)
                error = exc
            if maybe_done and method == "DELETE" and isinstance(error, NotFoundError):
                return Response(status=204)
            pause = None
            if may_repeat(error, repeat):
                pause = policy.pause(attempt, loop_time() - began, self._dice, retry_after_s)
            if pause is None:
                try:
                    raise error
                finally:
                    del error  # its traceback holds this frame, and so the body: else both wait for the collector
            maybe_done = maybe_done or error.outcome_unknown
            log.debug("%s: attempt %d failed, next in %.3f s: %s", operation, attempt, pause, error)
            del error  # as above
            await anyio.sleep(pause)
            self._retries += 1

    def _learn(self, told: str) -> None:
        if told != self._told_extensions:
            self._told_extensions = told
            self.extensions = frozenset(name.strip() for name in told.split(",")) - {""}


def _forget_frames(error: TransportError) -> None:
    """Of the errors behind it, forget where they were raised; what they say stays.

    Frames of libraries hold the body, and there are cycles among them and their errors that only the collector breaks,
    late: in an outage every attempt would leave megabytes behind.
    """
    behind = error.__cause__ or error.__context__
    for _ in range(_MAX_CAUSES):
        if behind is None:
            return
        behind.__traceback__ = None
        behind = behind.__cause__ or behind.__context__


async def _begin(answer: Streamed, timeout_s: float) -> bytes:
    """As much of a refusal as can hold its words."""
    body = b""
    with anyio.move_on_after(timeout_s):
        async for piece in answer.pieces:
            body += piece
            if len(body) > _MAX_REFUSAL_BYTES:
                break
    return body


def _refusal(response: Response) -> ApiError:
    if 300 <= response.status < 400:
        where = response.headers.get("location", "elsewhere")[:200]
        return ApiError(
            f"the endpoint redirects to {where!r}; redirects are not followed: give that address as the endpoint",
            status=response.status,
        )
    return decode_error(response)
