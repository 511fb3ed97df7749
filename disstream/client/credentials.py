"""Who a client is: the kinds of credentials, and the source that puts them on requests.

A `Source` holds one immutable `_Snapshot` of what goes on requests now. It changes only when the credentials do:

    AccessKey, Token    made once, never changes
    Password            a token of IAM. Asked for when first needed; again ahead of its end, while it is still in use;
                        and when the service refuses it
    a callable          what it returned. Asked again after a minute, while the old answer is still in use, and when
                        the service refuses that

    fresh --refresh_at--> ageing (used; a flight for the next one is begun) --ends_at--> ended (callers wait for it)

At most one flight is under way; whoever needs its outcome waits for it, and nobody's cancellation ends it. Flights run
in the home loop, that of the client the source was made for, because a callable may use sessions of that loop. A twin
(`Client.twin`) reads the snapshot from another thread: a reference to an immutable value needs no lock. Only what must
wait for a flight, or begin one, goes through the home loop.

Nothing here tells a secret: not `repr`, no exception, no message of the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import KW_ONLY, dataclass, field

import anyio
import anyio.abc
import msgspec

from .. import clock
from ..errors import AuthError, ClosedError, ConfigError, DisError, ThrottledError, TransportError
from ..wire.errors import retry_after_seconds
from ..wire.http import JSON, Request, Response
from ..wire.iam import (
    TOKEN_TARGET,
    IssuedToken,
    TokenRequest,
    decode_iam_error,
    decode_token_answer,
    encode_token_request,
)
from ..wire.signing import MAX_SIGNED_BODY_BYTES, Scheme, sdk_date, sign
from .api import Transport
from .config import ClientConfig, default_user_agent
from .endpoint import check_endpoint
from .http import HttpTransport

log = logging.getLogger("disstream.client")

_REFRESH_LEAD_S = 300.0
_REFRESH_LEAD_SHARE = 0.1
"""A token is replaced when less than the greater of both is left of it: hours before it ends, if it lives a day."""
_BELIEVED_S = 10.0
"""A token just issued is used so long whatever its end: with a wrong clock, every request would ask for one."""
_CALLABLE_REFRESH_S = 60.0
_CALLABLE_END_S = 300.0
"""A callable's answer is asked for anew after the first, in use until the second at most: rotated keys overlap."""
_BACKOFF_S = 10.0
"""A failed refresh in the background is tried again after this."""
_REFUSED_AGAIN_S = 5.0
"""If the service refuses what was renewed so short ago because it refused the one before, renewing is no remedy."""
_CLOCK_STEP_S = 60.0
"""Wall time may step back so far without anything being renewed."""


@dataclass(frozen=True, slots=True)
class AccessKey:
    """Signs each request with a secret that never travels. `security_token` belongs to temporary keys.

    `scheme`: A, what the current SDKs send; B, what the classic ones sent; C, with a derived key, in the form of the
    classic SDK, or C3 in that of the current ones. All but A need the `region`. Bodies up to 12 MiB can be signed.
    """

    access_key: str
    secret_key: str = field(repr=False)
    _: KW_ONLY
    security_token: str | None = field(default=None, repr=False)
    scheme: str = "A"
    region: str | None = None

    def __post_init__(self) -> None:
        _check_key("AccessKey.access_key", self.access_key, forbidden="/,=;")
        _check_key("AccessKey.secret_key", self.secret_key)
        if self.security_token is not None:
            _check_key("AccessKey.security_token", self.security_token)
        if self.scheme not in tuple(Scheme):
            raise ConfigError(f"AccessKey.scheme={self.scheme!r} must be one of {', '.join(Scheme)}")
        if self.region is not None:
            _check_key("AccessKey.region", self.region, forbidden="/,=;")
        elif Scheme(self.scheme).scoped:
            raise ConfigError(f"AccessKey.scheme={self.scheme!r} needs region=..., like 'cn-north-1'")


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was issued elsewhere. It is sent as it is, and never renewed."""

    token: str = field(repr=False)

    def __post_init__(self) -> None:
        _check_key("Token.token", self.token)


@dataclass(frozen=True, slots=True)
class Password:
    """A user of IAM, for whom the client gets tokens and renews them.

    `domain` is the name of the account. `endpoint`: where IAM answers, scheme://host[:port]; None: where DIS does. The
    token is asked for the client's project by its id, or by `project_name` if that is given.
    """

    user: str
    password: str = field(repr=False)
    _: KW_ONLY
    domain: str
    endpoint: str | None = None
    project_name: str | None = None

    def __post_init__(self) -> None:
        for name in ("user", "password", "domain", "project_name"):
            value = getattr(self, name)
            if name == "project_name" and value is None:
                continue
            if not isinstance(value, str) or not value:
                raise ConfigError(f"Password.{name} must be text that is not empty")
            if not value.isprintable():  # a lone surrogate is not printable either
                raise ConfigError(f"Password.{name} holds a line end or another control character: was it copied too?")
        if self.endpoint is not None:
            check_endpoint(self.endpoint)


Credentials = AccessKey | Token | Password
Provider = Callable[[], Awaitable[Credentials | None]]
"""Asked in the client's event loop, now and then; returns what to use from then on, None for nothing."""


def _check_key(name: str, value: str, forbidden: str = "") -> None:
    """Raise ConfigError, without the value, unless it can be in a header."""
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{name} must be text that is not empty")
    if not (value.isascii() and value.isprintable()) or any(c == " " or c in forbidden for c in value):
        raise ConfigError(
            f"{name} holds a blank, a line end or another character that cannot be in it: was it copied whole, and "
            "without the line end?"
        )


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What goes on requests now; instants are wall time."""

    carries: AccessKey | Token | None
    made_at: float = 0.0
    refresh_at: float = 0.0
    ends_at: float = 0.0
    forced: bool = False
    """Made because the service refused the one before."""


class _Flight:
    """A renewal under way. One of `snapshot` and `error` is there when it is done."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.forced = False
        self.awaited = False
        self.snapshot: _Snapshot | None = None
        self.error: DisError | None = None


class Source:
    """Puts credentials on the requests of a client and its twins. See the top of the file."""

    def __init__(
        self, credentials: Credentials | Provider, project_id: str, transport: Transport, config: ClientConfig
    ) -> None:
        """`transport` is the home client's own. Raises ConfigError for what are no credentials."""
        self._credentials = credentials
        self._project_id = project_id
        self._transport = transport
        self._config = config
        self._changes = not isinstance(credentials, AccessKey | Token)
        if not isinstance(credentials, AccessKey | Token | Password) and not callable(credentials):
            raise ConfigError(
                f"credentials of type {type(credentials).__name__}: give AccessKey(...), Token(...), Password(...), an "
                "async callable that returns one of them, or None"
            )
        self._snapshot: _Snapshot | None = None
        if isinstance(credentials, AccessKey | Token):
            self._snapshot = _Snapshot(credentials)
        # Of the home loop alone:
        self._home: asyncio.AbstractEventLoop | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._flight: _Flight | None = None
        self._pause_until = 0.0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Make this loop the home loop. At the end a flight is cut, and callers who need one get ClosedError."""
        async with anyio.create_task_group() as tasks:
            self._home, self._tasks = asyncio.get_running_loop(), tasks
            try:
                yield
            finally:
                self._tasks = None
                tasks.cancel_scope.cancel()

    async def authorize(self, request: Request, host: str) -> _Snapshot:
        """Add to the headers of `request`, which is to be sent to `host` at once. Returns what was used, for `renew`.

        Raises ConfigError: too large to be signed. AuthError: IAM refuses. TransportError, always with a known outcome:
        no credentials to be had now. ClosedError: the home client is closed.
        """
        snapshot = self._snapshot
        if self._changes or snapshot is None:
            snapshot = await self._usable(request.timeout_s)
        carries = snapshot.carries
        if isinstance(carries, AccessKey):
            if len(request.body) > MAX_SIGNED_BODY_BYTES:
                raise ConfigError(
                    f"a body of {len(request.body)} bytes cannot be signed, the limit is {MAX_SIGNED_BODY_BYTES}: "
                    "send less at once, or use a token"
                )
            request.headers.update(
                sign(
                    request,
                    access_key=carries.access_key,
                    secret_key=carries.secret_key,
                    host=host,
                    sdk_date=sdk_date(clock.wall()),
                    scheme=Scheme(carries.scheme),
                    region=carries.region,
                    security_token=carries.security_token,
                )
            )
        elif carries is not None:
            request.headers["x-auth-token"] = carries.token
        return snapshot

    async def renew(self, refused: _Snapshot, timeout_s: float | None) -> bool:
        """The service refused `refused`: whether there is something else by now. Raises as `authorize`."""
        if not self._changes or (refused.forced and clock.wall() - refused.made_at < _REFUSED_AGAIN_S):
            return False
        snapshot = self._snapshot
        if snapshot is refused or snapshot is None:
            snapshot = await self._renewed(refused, timeout_s, forced=True)
        return snapshot.carries != refused.carries

    async def _usable(self, timeout_s: float | None) -> _Snapshot:
        snapshot = self._snapshot
        now = clock.wall()
        if snapshot is None or not snapshot.made_at - _CLOCK_STEP_S <= now < snapshot.ends_at:
            return await self._renewed(snapshot, timeout_s, forced=False)
        if now >= snapshot.refresh_at and now >= self._pause_until and self._home is not None:
            if asyncio.get_running_loop() is self._home:
                self._refresh()
            else:
                with contextlib.suppress(RuntimeError):  # the home loop is closed: this one is still good
                    self._home.call_soon_threadsafe(self._refresh)
        return snapshot

    async def _renewed(self, old: _Snapshot | None, timeout_s: float | None, *, forced: bool) -> _Snapshot:
        """What comes after `old`, waited for in whatever loop this is."""
        home = self._home
        if home is None:
            raise ClosedError("the client whose credentials these are is not started")
        if timeout_s is None:
            timeout_s = self._config.request_timeout_s
        try:
            with anyio.fail_after(timeout_s):
                if asyncio.get_running_loop() is home:
                    return await self._landed(old, forced)
                return await self._landed_at(home, old, forced)
        except TimeoutError as exc:
            raise TransportError(
                f"no credentials within {timeout_s:g} s (nothing was sent)", outcome_unknown=False
            ) from exc

    async def _landed_at(self, home: asyncio.AbstractEventLoop, old: _Snapshot | None, forced: bool) -> _Snapshot:
        """`_landed` in the home loop, asked for from another."""
        gone = "the event loop of the client whose credentials these are is closed"
        landed = self._landed(old, forced)
        try:
            there = asyncio.run_coroutine_threadsafe(landed, home)
        except RuntimeError as exc:
            landed.close()
            raise ClosedError(gone) from exc
        try:
            here = asyncio.wrap_future(there)
            await asyncio.wait({here})  # not `await here`: an end of that loop would look like a cancellation of ours
            if here.cancelled():
                raise ClosedError(gone)
            return here.result()
        finally:
            there.cancel()  # done, or nobody waits for it any more

    # --- in the home loop ---------------------------------------------------------------------------------------

    async def _landed(self, old: _Snapshot | None, forced: bool) -> _Snapshot:
        if self._snapshot is not old and self._snapshot is not None:
            return self._snapshot
        if self._tasks is None:
            raise ClosedError("the client whose credentials these are is closed")
        flight = self._begin(self._tasks, forced=forced)
        flight.awaited = True
        await flight.done.wait()
        if flight.snapshot is None:
            raise flight.error or ClosedError("the client was closed while its credentials were renewed")
        return flight.snapshot

    def _refresh(self) -> None:
        """Begin a flight that nobody waits for."""
        if self._tasks is not None:
            self._begin(self._tasks, forced=False)

    def _begin(self, tasks: anyio.abc.TaskGroup, *, forced: bool) -> _Flight:
        if self._flight is None:
            self._flight = _Flight()
            tasks.start_soon(self._fly, self._flight, name="disstream credentials")
        self._flight.forced |= forced
        return self._flight

    async def _fly(self, flight: _Flight) -> None:
        try:
            with anyio.fail_after(self._config.request_timeout_s):
                self._snapshot = flight.snapshot = await self._next(flight)
        except TimeoutError:
            flight.error = TransportError(
                f"no credentials within request_timeout_s={self._config.request_timeout_s:g}", outcome_unknown=False
            )
        except DisError as exc:
            flight.error = exc
        finally:
            self._flight = None
            flight.done.set()
        if flight.error is not None:
            self._pause_until = clock.wall() + _BACKOFF_S
            if not flight.awaited:  # nobody is told otherwise
                log.warning("the credentials could not be renewed, the old ones are used: %s", flight.error)

    async def _next(self, flight: _Flight) -> _Snapshot:
        given = self._credentials
        if not isinstance(given, AccessKey | Token | Password):
            asked = await _ask(given)
            if not isinstance(asked, Password):
                now = clock.wall()
                return _Snapshot(asked, now, now + _CALLABLE_REFRESH_S, now + _CALLABLE_END_S, flight.forced)
            given = asked
        assert isinstance(given, Password)
        issued = await self._issue(given)
        now = clock.wall()
        lifetime = max(issued.expires_at_s - now, _BELIEVED_S)
        lead = min(max(_REFRESH_LEAD_S, lifetime * _REFRESH_LEAD_SHARE), lifetime / 2)
        return _Snapshot(Token(issued.token), now, now + lifetime - lead, now + lifetime, flight.forced)

    async def _issue(self, password: Password) -> IssuedToken:
        """A token of IAM. Raises AuthError: refused. TransportError: not to be had now; no request of DIS was sent."""
        body = encode_token_request(
            TokenRequest(
                user=password.user,
                domain=password.domain,
                password=password.password,
                project_id=None if password.project_name else self._project_id,
                project_name=password.project_name,
            )
        )
        headers = {
            "content-type": JSON,
            "accept": JSON,
            "user-agent": self._config.user_agent or default_user_agent(),
        }
        request = Request(method="POST", target=TOKEN_TARGET, headers=headers, body=body)
        transport = HttpTransport(password.endpoint, self._config) if password.endpoint else self._transport
        response: Response | None = None
        try:
            response = await transport.exchange(request)
            if 200 <= response.status < 300:
                return decode_token_answer(response)
        except TransportError as exc:
            told = "its answer is not shown, it holds the password" if _quotes(password, response) else str(exc)
            raise TransportError(f"no token of IAM: {told}", outcome_unknown=False) from None
        finally:
            if transport is not self._transport:
                await transport.close()
        raise _refused(password, response)


async def _ask(provider: Provider) -> Credentials | None:
    """What the user's callable returns now."""
    try:
        coming = provider()
        answer = await coming if inspect.isawaitable(coming) else coming
    except Exception as exc:
        # Not its text, which may tell a secret; whoever prints the cause sees it.
        raise TransportError(
            f"the callable that gives the credentials raised {type(exc).__name__}", outcome_unknown=False
        ) from exc
    if answer is not None and not isinstance(answer, AccessKey | Token | Password):
        raise ConfigError(
            f"the callable that gives the credentials returned a {type(answer).__name__}: it must be async and return "
            "AccessKey(...), Token(...), Password(...) or None"
        )
    return answer


def _refused(password: Password, response: Response) -> DisError:
    error = decode_iam_error(response)
    why = "its answer is not shown, it holds the password" if _quotes(password, response) else error.message
    told = f"IAM issues no token to {password.user!r} of {password.domain!r}: {why}"
    if response.status == 429:
        return ThrottledError(
            told,
            status=429,
            code=error.code,
            request_id=error.request_id,
            retry_after_s=retry_after_seconds(response.headers),
        )
    if response.status >= 500 or response.status == 408:
        return TransportError(told, outcome_unknown=False)
    return AuthError(told, status=error.status, code=error.code, request_id=error.request_id)


def _quotes(password: Password, response: Response | None) -> bool:
    """Whether an answer holds the password: whatever answered may have sent the request back.

    Then nothing of it is told. To blot out the places would tell a short password by what stands around them.
    """
    return response is not None and any(form.encode() in response.body for form in _forms(password))


def _forms(password: Password) -> list[str]:
    """The password as it is, as a JSON string holds it, and as one within another does; the longest first."""
    plain = password.password
    forms = {plain}
    for encode in (lambda text: msgspec.json.encode(text).decode(), json.dumps):
        once = encode(plain)[1:-1]
        forms |= {once, encode(once)[1:-1]}
    return sorted(forms, key=len, reverse=True)
