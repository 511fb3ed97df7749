"""A network without sockets: transports for simulations.

    Client -> FaultyTransport -> AppTransport -> anything with `async handle(Request) -> Response`

Both run under `run_simulated`. As with a real network, what was sent cannot be called back: a caller that times out or
is cancelled leaves its request on the way, and the effect may come later. Such requests run in tasks of the transport;
`settle()` waits until none is left, `close()` drops them.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import msgspec

from ..client.api import Streamed, StreamingTransport, Transport
from ..errors import ApiError, ConfigError, DisError, TransportError
from ..model import NewRecord, PutResult
from ..wire.columns import COLUMNS, decode_columns
from ..wire.compression import announced
from ..wire.errors import ERRORS, api_error, refusal
from ..wire.http import JSON, PROTOBUF, Request, Response, media_type, split_target
from ..wire.partitioning import HashRouter, hash_key, partition_number
from ..wire.places import HEADER as ANSWER
from ..wire.protobuf import decode_put_protobuf
from ..wire.records import PutRequest, decode_put, decode_put_answer, encode_put
from ..wire.routes import Match, build, match
from ..wire.sessions import HEADER
from ..wire.streams import decode_describe

DEFAULT_TIMEOUT_S = 30.0
"""Bounds an exchange whose request names no time-out: in a simulation nothing may wait for ever."""

_MAX_BODY_BYTES = 64 * 1024 * 1024  # before compression: more than any server takes


class App(Protocol):
    """Whatever answers requests; `disstream.server.App` does."""

    async def handle(self, request: Request) -> Response: ...


class _Wires:
    """Requests on the way, each in a task that outlives its caller."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._bug: BaseException | None = None

    def start(self, work: Coroutine[Any, Any, Response]) -> asyncio.Task[Response]:
        task = asyncio.get_running_loop().create_task(work, name="request on the way")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Response]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, DisError):
            self._bug = self._bug or error

    async def settle(self) -> None:
        """Wait until nothing is on the way. Raises what an app raised, even where the caller was gone by then."""
        await self._ends()
        if self._bug is not None:
            raise self._bug

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self._ends()

    async def _ends(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)


async def _answer(request: Request, task: asyncio.Task[Response]) -> Response:
    """Wait for `task` as long as the request says, as a client at the other end of a wire does."""
    timeout_s = _timeout_s(request)
    done, _ = await asyncio.wait({task}, timeout=timeout_s)
    if not done:
        raise _lost(request, f"no answer within {timeout_s:g} s")
    if task.cancelled():
        raise _lost(request, "the transport was closed")
    return task.result()


def _timeout_s(request: Request) -> float:
    return DEFAULT_TIMEOUT_S if request.timeout_s is None else request.timeout_s


def _lost(request: Request, told: str) -> TransportError:
    return TransportError(f"{request.method} {request.target.partition('?')[0]}: {told}", outcome_unknown=True)


class AppTransport:
    """Calls an app directly; request and answer each take half of `latency_s`."""

    def __init__(self, app: App, *, latency_s: float = 0.0) -> None:
        self._app = app
        self._latency_s = latency_s
        self._wires = _Wires()

    async def exchange(self, request: Request) -> Response:
        """As `Transport.exchange`; an exception of the app is raised as it is: a server would answer 500."""
        response = await _answer(request, self._wires.start(self._carry(request)))
        if response.pieces is not None:
            async with aclosing(response.pieces) as pieces:
                response.body = b"".join([piece async for piece in pieces])
            response.pieces = None
        return response

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[Streamed]:
        """As `StreamingTransport.stream`; what the app does until the next piece, it does in the caller's task."""
        response = await _answer(request, self._wires.start(self._carry(request)))
        async with aclosing(response.pieces or _whole(response)) as pieces, aclosing(self._late(pieces)) as late:
            yield Streamed(response.status, response.headers, late)

    async def _late(self, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        async for piece in pieces:
            await asyncio.sleep(self._latency_s / 2)
            yield piece

    async def _carry(self, request: Request) -> Response:
        await asyncio.sleep(self._latency_s / 2)
        response = await self._app.handle(request)
        await asyncio.sleep(self._latency_s / 2)
        return response

    async def settle(self) -> None:
        """Wait until no request is on the way."""
        await self._wires.settle()

    async def close(self) -> None:
        await self._wires.close()


async def _whole(response: Response) -> AsyncGenerator[bytes, None]:
    yield response.body


async def _cut(answer: Streamed, request: Request, lasts_s: float, hangs: bool) -> AsyncGenerator[bytes, None]:
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + lasts_s
    async for piece in answer.pieces:
        if loop.time() >= ends_at:
            if hangs:
                await asyncio.Event().wait()
            raise _lost(request, "the connection was cut")
        yield piece


Refusal = Literal["500", "503", "429", "DIS.4303", "DIS.4305"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultPlan:
    """How often what goes wrong: probabilities per exchange.

    At most one of the first seven happens to an exchange, so their sum is at most 1. `delay` and `partial` are drawn
    beside them: a partly failed put can lose its answer too.
    """

    refuse: float = 0.0
    """No connection: nothing is sent, and the caller knows it."""
    lose_request: float = 0.0
    """The request never arrives; the caller cannot know."""
    lose_answer: float = 0.0
    """The request takes effect, its answer never arrives."""
    late: float = 0.0
    """The caller times out; the request takes effect up to `late_s` after that."""
    duplicate: float = 0.0
    """The request takes effect twice; one of the answers arrives, the second effect possibly after it."""
    error_before: float = 0.0
    """One of `errors_before` is answered, and nothing has taken effect."""
    error_after: float = 0.0
    """One of `errors_after` is answered although the request took effect."""
    hang: float = 0.0
    """The share of lost requests and answers that show as a time-out; the others show as a cut connection at once."""

    delay: float = 0.0
    """The request arrives up to `delay_s` later (after the caller's time-out, if that is shorter)."""
    partial: float = 0.0
    """For puts: some records fail with DIS.4303, each with probability `partial_share`, and do not reach the app.

    Not for puts of a session: whoever refuses their records has to remember that, which only the app can."""

    delay_s: float = 1.0
    late_s: float = 5.0
    partial_share: float = 0.3
    suffix_rule: bool = True
    """In a partial failure: once a record of a partition fails, all its later ones in the request fail too."""
    errors_before: tuple[Refusal, ...] = ("500", "503", "429", "DIS.4303")
    errors_after: tuple[Refusal, ...] = ("500", "503")
    """Flow control after the effect would be a lie that no client can see through; name it here to have it."""

    def __post_init__(self) -> None:
        for name in (*_EXCLUSIVE, "hang", "delay", "partial", "partial_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"FaultPlan.{name}={getattr(self, name)!r} is not a probability (0 to 1)")
        total = sum(getattr(self, name) for name in _EXCLUSIVE)
        if total > 1.0 + 1e-9:
            raise ConfigError(f"FaultPlan: {', '.join(_EXCLUSIVE)} add up to {total:g}; at most 1 is possible")
        if self.delay_s < 0 or self.late_s < 0:
            raise ConfigError(f"FaultPlan: delay_s={self.delay_s!r} and late_s={self.late_s!r} must be 0 or more")
        for name in ("before", "after"):
            if getattr(self, f"error_{name}") and not getattr(self, f"errors_{name}"):
                raise ConfigError(f"FaultPlan.errors_{name} is empty, but error_{name} happens: name what is answered")


_EXCLUSIVE = ("refuse", "lose_request", "lose_answer", "late", "duplicate", "error_before", "error_after")


class FaultyTransport:
    """A transport over another one that goes wrong as planned. The same dice and the same calls: the same faults.

    `counts` tells how often each fault of the plan happened; `counts["exchanges"]` are all.
    """

    def __init__(self, inner: Transport, dice: random.Random, plan: FaultPlan) -> None:
        self._inner = inner
        self._dice = dice
        self._plan = plan
        self._wires = _Wires()
        self._layouts: dict[str, HashRouter] = {}
        self.counts: Counter[str] = Counter()

    async def exchange(self, request: Request) -> Response:
        """As `Transport.exchange`."""
        plan, dice = self._plan, self._dice
        self.counts["exchanges"] += 1
        fault = self._draw()
        if fault:
            self.counts[fault] += 1
        if fault == "refuse":
            raise TransportError(f"{request.method}: connection refused", outcome_unknown=False)
        delay_s = dice.uniform(0.0, plan.delay_s) if self._happens("delay") else 0.0
        if fault == "late":
            delay_s = _timeout_s(request) + dice.uniform(0.0, plan.late_s)
        hangs = fault in ("lose_request", "lose_answer") and dice.random() < plan.hang
        self.counts["hang"] += hangs
        response = await _answer(request, self._wires.start(self._carry(request, fault, delay_s, hangs)))
        if response is _NEVER:
            raise _lost(request, "the connection was cut")
        return response

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[Streamed]:
        """As `StreamingTransport.stream`, if the inner transport can. Of the plan: what is refused, answered with an
        error before, and lost: a request before its answer, an answer after some time, by a cut or by silence."""
        plan, dice = self._plan, self._dice
        self.counts["streams"] += 1
        assert isinstance(self._inner, StreamingTransport)
        fault = self._draw()
        self.counts[fault] += 1
        if fault == "refuse":
            raise TransportError(f"{request.method}: connection refused", outcome_unknown=False)
        if fault == "error_before":
            error = _error(dice.choice(plan.errors_before))
            yield Streamed(error.status, error.headers, _whole(error))
            return
        hangs = dice.random() < plan.hang
        if fault == "lose_request":
            await asyncio.sleep(_timeout_s(request) if hangs else 0)
            raise _lost(request, "no answer")
        lasts_s = dice.uniform(0.0, 10 * plan.late_s) if fault == "lose_answer" else float("inf")
        async with self._inner.stream(request) as answer, aclosing(_cut(answer, request, lasts_s, hangs)) as pieces:
            yield answer._replace(pieces=pieces)

    def _draw(self) -> str:
        point = self._dice.random()
        for name in _EXCLUSIVE:
            point -= getattr(self._plan, name)
            if point < 0:
                return name
        return ""

    def _happens(self, name: str) -> bool:
        happens = self._dice.random() < float(getattr(self._plan, name))
        self.counts[name] += happens
        return happens

    async def _carry(self, request: Request, fault: str, delay_s: float, hangs: bool) -> Response:
        plan, dice = self._plan, self._dice
        if delay_s:
            await asyncio.sleep(delay_s)
        if fault == "error_before":
            return _error(dice.choice(plan.errors_before))
        if fault in ("lose_request", "lose_answer"):
            if fault == "lose_answer":
                await self._effect(request)
            if hangs:
                await asyncio.sleep(_timeout_s(request) + 1.0)  # longer than the caller waits
            return _NEVER
        response = await self._effect(request)
        if fault == "error_after":
            return _error(dice.choice(plan.errors_after))
        if fault == "duplicate":
            if dice.random() < 0.5:
                return dice.choice((response, await self._effect(request)))
            self._wires.start(self._again(request, dice.uniform(0.0, plan.late_s)))
        return response

    async def _again(self, request: Request, delay_s: float) -> Response:
        await asyncio.sleep(delay_s)
        return await self._effect(request)

    # --- partial failure ----------------------------------------------------------------------------------------

    async def _effect(self, request: Request) -> Response:
        if not self._plan.partial or HEADER in request.headers or not _is_put(request) or not self._happens("partial"):
            return await self._inner.exchange(request)
        try:
            put = _decode(request)
        except ApiError:
            return await self._inner.exchange(request)  # the app's to refuse
        failing = await self._failing(request, put.stream_name or "", put.records)
        kept = [record for index, record in enumerate(put.records) if index not in failing]
        stored: list[PutResult] = []
        if kept:
            body = encode_put(put.stream_name or "", kept, put.stream_id)
            headers = {n: v for n, v in request.headers.items() if n not in ("content-encoding", ANSWER)}
            response = await self._inner.exchange(
                Request(
                    method=request.method,
                    target=request.target,
                    headers={**headers, "content-type": JSON},  # any client takes an answer in JSON
                    body=body,
                    timeout_s=request.timeout_s,
                )
            )
            if response.status != 200:
                return response
            stored = decode_put_answer(response.body)
            if len(stored) != len(kept):
                raise AssertionError(f"the endpoint answered {len(stored)} results to {len(kept)} records")
        self.counts["records failed"] += len(failing)
        rest = iter(stored)
        return _put_answer([_THROTTLED if i in failing else next(rest) for i in range(len(put.records))])

    async def _failing(self, request: Request, stream: str, records: Sequence[NewRecord]) -> set[int]:
        dice, share = self._dice, self._plan.partial_share
        if not records:
            return set()
        chosen = {index for index in range(len(records)) if dice.random() < share}
        chosen = chosen or {dice.randrange(len(records))}
        if not self._plan.suffix_rule:
            return chosen
        router = await self._layout(request, stream)
        failed_lanes: set[int | None] = set()
        failing: set[int] = set()
        for index, record in enumerate(records):
            lane = _lane(record, router)
            if index in chosen or lane in failed_lanes:
                failed_lanes.add(lane)
                failing.add(index)
        return failing

    async def _layout(self, request: Request, stream: str) -> HashRouter:
        """Who owns which hash keys, asked once per stream: layouts do not change in a simulation."""
        if (known := self._layouts.get(stream)) is not None:
            return known
        project_id = split_target(request.target)[0][1]
        method, target = build(
            "describe_stream", {"project_id": project_id, "stream_name": stream}, {"limit_partitions": "1000"}
        )
        response = await self._inner.exchange(
            Request(method=method, target=target, headers=request.headers, timeout_s=request.timeout_s)
        )
        partitions = decode_describe(response.body)[0].partitions if response.status == 200 else ()
        router = HashRouter(
            (partition_number(p.partition_id), p.hash_range) for p in partitions if p.writable and p.hash_range
        )
        if partitions:
            self._layouts[stream] = router
        return router

    async def settle(self) -> None:
        """Wait until no request is on the way: late ones have taken effect, duplicates too."""
        await self._wires.settle()

    async def close(self) -> None:
        """Drop what is on the way and close the inner transport."""
        await self._wires.close()
        await self._inner.close()


_NEVER = Response(status=0)
"""Stands for an answer that never comes because the connection was cut."""

_THROTTLED = PutResult(error_code="DIS.4303", error_message=ERRORS["DIS.4303"].shape)


def _is_put(request: Request) -> bool:
    found = match(request.method, split_target(request.target)[0])
    return isinstance(found, Match) and found.operation == "put_records"


def _decode(request: Request) -> PutRequest:
    """A put in any form that a client may give it. Raises ApiError."""
    packed = announced(request.headers, request.body, _MAX_BODY_BYTES)
    body = request.body if packed is None else packed.unpack()
    kind = media_type(request.headers)
    if kind == COLUMNS:
        sent = decode_columns(body, _MAX_BODY_BYTES)
        return PutRequest(stream_name=sent.stream_name, stream_id=sent.stream_id, records=sent.records())
    return decode_put_protobuf(body) if kind == PROTOBUF else decode_put(body)


def _lane(record: NewRecord, router: HashRouter) -> int | None:
    """The partition a record goes to; records that leave the choice to the service share the lane None."""
    try:
        if record.partition_id:
            return partition_number(record.partition_id)
        if record.explicit_hash_key:
            return router.owner(int(record.explicit_hash_key))
    except (ApiError, ValueError):
        return None  # the app will refuse the request
    return router.owner(hash_key(record.key)) if record.key else None


def _put_answer(results: Sequence[PutResult]) -> Response:
    entries = [
        {"partition_id": r.partition_id, "sequence_number": str(r.sequence_number)}
        if r.ok
        else {"error_code": r.error_code, "error_message": r.error_message}
        for r in results
    ]
    body = msgspec.json.encode({"failed_record_count": sum(not r.ok for r in results), "records": entries})
    return Response(status=200, headers={"content-type": JSON, "x-request-id": "faulty"}, body=body)


def _error(kind: Refusal) -> Response:
    if kind.startswith("DIS."):
        return refusal(api_error(kind), "faulty")
    if kind == "500":
        return refusal(api_error("DIS.5000"), "faulty")
    return Response(status=int(kind), headers={"x-request-id": "faulty"})
