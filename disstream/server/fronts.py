"""More cores: a server whose requests are taken in by several processes (`workers`), under the contract of one.

This process, the *core*, keeps the engine and the whole `App`: streams, limits, tokens, groups, counts, waiting reads,
the one writer. It accepts connections and hands each to one of N *fronts* (front.py), that with the fewest, as a
descriptor. A front does what needs no state: HTTP, TLS, compression, JSON and protobuf. What is left of a request comes
here over a line of its own (frames.py) and is answered by `App.handle`. So nothing has to be shared, and whatever is
promised by one process is promised by several.

    front dies    its connections are cut by the system; calls of it that are open are cancelled; a new one is started
    front hangs   it answers no beats (heartbeat.py), gets no connections, and is killed
    core dies     its end of each line closes: fronts cut their connections and end; nothing is left behind
    closing       no more connections; answers that go on end; fronts finish what is open and hang up; then the engine

Fronts are programs of their own (`python -m disstream.server.front`), not forks: a loop with threads cannot be forked.
Their lines are pairs of sockets that they inherit: nobody else can reach them, whatever the rights of a directory are.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import anyio
from anyio import to_thread

from ..errors import ApiError, DisError, TransportError
from ..wire.errors import api_error, refusal
from .app import App
from .config import ServerConfig
from .entrance import Entrance
from .frames import (
    PROTOCOL,
    Answer,
    Beat,
    Call,
    Cancel,
    Check,
    Drain,
    Ended,
    Frames,
    Head,
    Hello,
    Left,
    More,
    Opening,
    Piece,
    Refused,
    Settings,
    Told,
    encode_frame,
    join_odd,
)
from .heartbeat import BEAT_S, MISSED, Heartbeat
from .listening import bound, secure
from .relay import Relayed

logger = logging.getLogger("disstream.server")

_START_S = 60.0  # for a front to say hello; it imports what we have imported, half a second on an idle machine
_END_S = 2.0  # for its process to end once it hung up
_AGAIN_S = (0.0, 0.5, 2.0, 10.0)  # before a front that ended at once is started again; the last one from then on
_SETTLED_S = 60.0  # one that lived so long did not end at once
_BUFFER_BYTES = 1_048_576  # of a line: a page goes over in a few pieces, where the system lets it (net.core.wmem_max)


class Fronts:
    """Stands where a server without workers has its `Edge`."""

    def __init__(self, app: App, config: ServerConfig) -> None:
        self._app = app
        self._config = config
        self._lines: list[Line | None] = [None] * config.workers
        self._ready = [anyio.Event() for _ in self._lines]
        self._ending = False
        self._failed = False

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[str]:
        """As `Edge.listen`. Raises DisError too if a worker does not start."""
        secure(self._config)  # said once, and before anything is started
        listener, url = await bound(self._config)
        with listener:
            listener.setblocking(False)
            door = Entrance(listener, self._lines, self._config.max_connections)
            graceful = False
            async with anyio.create_task_group() as tasks:
                try:
                    for place in range(len(self._lines)):
                        tasks.start_soon(self._keep, place, name=f"disstream-worker-{place + 1}")
                    for ready in self._ready:
                        await ready.wait()
                    door.open()
                    yield url
                    graceful = True
                finally:
                    door.close()
                    self._ending = True
                    self._app.notices.end()
                    with anyio.CancelScope(shield=True):
                        await self._let_go(graceful)
                    tasks.cancel_scope.cancel()  # a pause before the next start, if any

    async def _let_go(self, graceful: bool) -> None:
        """Return when every front has hung up."""
        lines = [line for line in self._lines if line is not None]
        if graceful:
            for line in lines:
                line.send(Drain())
            # They cut what is not done by then; this is for one that hangs.
            with anyio.move_on_after(self._config.close_timeout_s + _END_S):
                for line in lines:
                    await line.lost.wait()
        for line in lines:
            line.hang_up()

    async def _keep(self, place: int) -> None:
        """A front lives at this place, one after the other, until the server closes."""
        loop = asyncio.get_running_loop()
        tries = 0
        while True:
            began = loop.time()
            try:
                why = f"exit code {await self._live(place)}"
                remedy = "its messages stand above"
            except (OSError, RuntimeError) as exc:  # no descriptor, process or thread to be had, which may pass
                why = str(exc)
                remedy = "give workers=1, or mend that"
            if self._ending:
                return
            if not self._ready[place].is_set():
                if self._failed:
                    return  # one says it for all
                self._failed = True
                raise DisError(f"worker {place + 1} did not start ({why}): {remedy}")
            logger.error("worker %d ended and is started again: %s", place + 1, why)
            tries = 0 if loop.time() - began > _SETTLED_S else tries
            await anyio.sleep(_AGAIN_S[tries])
            tries = min(tries + 1, len(_AGAIN_S) - 1)

    async def _live(self, place: int) -> int | None:
        """One life of a front: its exit code. Raises OSError, RuntimeError if there is nothing to make one of."""
        loop = asyncio.get_running_loop()
        line = Line(self._app, self._settings(place + 1))
        mine, theirs = socket.socketpair()
        try:
            line.door, their_door = socket.socketpair()
        except OSError:
            mine.close()
            theirs.close()
            raise
        for end in (mine, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        process: subprocess.Popen[bytes] | None = None
        try:
            with theirs, their_door:
                mine.setblocking(False)
                line.door.setblocking(False)
                await loop.create_unix_connection(lambda: line, sock=mine)
                process = await to_thread.run_sync(_start, theirs.fileno(), their_door.fileno())
            with anyio.move_on_after(_START_S):
                await line.settled.wait()
            if line.serving:
                self._lines[place] = line
                self._ready[place].set()
                logger.info("worker %d serves: pid=%d", place + 1, process.pid)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(watch, line, place + 1, process.kill, name=f"disstream-beats-{place + 1}")
                    await line.lost.wait()
                    tasks.cancel_scope.cancel()
        finally:
            self._lines[place] = None
            with anyio.CancelScope(shield=True):
                line.hang_up()
                line.door.close()
                mine.close()
                await line.drop()
                if process is not None:
                    await to_thread.run_sync(_end, process)
        return process.returncode

    def _settings(self, worker: int) -> Settings:
        config = self._config
        certificate, key = config.tls_certificate, config.tls_key
        return Settings(
            worker=worker,
            log_level=logger.getEffectiveLevel(),
            max_body_bytes=config.max_body_bytes,
            max_request_records=config.max_request_records,
            max_buffered_bytes=max(config.max_buffered_bytes // config.workers, config.max_body_bytes),
            max_connections=config.max_connections,
            idle_timeout_s=config.idle_timeout_s,
            body_timeout_s=config.body_timeout_s,
            answer_timeout_s=config.answer_timeout_s,
            close_timeout_s=config.close_timeout_s,
            checked=config.users is not None or config.max_failures_per_minute is not None,
            tls_certificate=None if certificate is None else str(Path(certificate).absolute()),
            tls_key=None if key is None else str(Path(key).absolute()),
        )


async def watch(line: Line, worker: int, kill: Callable[[], None]) -> None:
    """Send beats; return when they were not answered, and the front is killed."""
    while True:
        if not line.beat():
            break
        await anyio.sleep(BEAT_S)
    logger.error("worker %d has not answered for %g s, and is killed: its connections end", worker, MISSED * BEAT_S)
    kill()
    line.hang_up()


class _Open:
    """A call that is being answered."""

    __slots__ = ("more", "scope")

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.more = asyncio.Event()  # the front wants the next piece


class Line(asyncio.Protocol):
    """The core's end of the line to one front."""

    door: socket.socket
    """Over which it is given connections."""

    def __init__(self, app: App, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._open: dict[int, _Open] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.settled = anyio.Event()  # it serves, or never will
        self.lost = anyio.Event()
        self.serving = False
        self.connections = 0
        self._heart = Heartbeat(MISSED)

    @property
    def load(self) -> tuple[bool, int]:
        """As `entrance.Taker`: one that does not answer comes last."""
        return self._heart.hesitates, self.connections

    def beat(self) -> bool:
        """Send one. False: so many were not answered that it hangs."""
        if not self._heart.beat():
            return False
        self.send(Beat())
        return True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.serving = False
        self.lost.set()
        self.settled.set()
        for call in self._open.values():
            call.scope.cancel()

    def hang_up(self) -> None:
        """What is not sent yet is for nobody."""
        if self._transport is not None:
            self._transport.abort()

    async def drop(self) -> None:
        """Return when no call is open any more. They were cancelled when the line was lost."""
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    def hand_over(self, connection: socket.socket) -> bool:
        """False: there is no room, or it is just ending."""
        try:
            socket.send_fds(self.door, [b"+"], [connection.fileno()])
        except OSError:
            return False
        self.connections += 1
        return True

    def send(self, head: Head, body: bytes = b"") -> None:
        if self._transport is not None and not self.lost.is_set():
            self._transport.write(encode_frame(head, body))
            if body:
                self._transport.write(body)

    def data_received(self, data: bytes) -> None:
        self._heart.heard()
        try:
            for head, body in self._frames.feed(data):
                self._take(head, body)
        except TransportError:
            logger.exception("worker %d is not understood, and is ended", self._settings.worker)
            self.hang_up()

    def _take(self, head: Head, body: bytes) -> None:
        match head:
            case Call():
                self._start(head.number, self._answer(head, body))
            case More():
                if (call := self._open.get(head.number)) is not None:
                    call.more.set()
            case Cancel():
                if (call := self._open.get(head.number)) is not None:
                    call.scope.cancel()
            case Check():
                self._start(head.number, self._check(head))
            case Left():
                self.connections -= 1
            case Beat():
                pass  # that it came is all that it says
            case Refused():
                self._app.refused(head.peer, head.status, head.code)
            case Told():
                logging.getLogger(head.logger).log(head.level, "worker %d: %s", self._settings.worker, head.text)
            case Hello() if head.protocol == PROTOCOL:
                self.send(self._settings)
                self.serving = True
                self.settled.set()
            case Hello():
                raise TransportError(
                    f"it speaks {head.protocol}, not {PROTOCOL}: restart the server", outcome_unknown=False
                )
            case _:
                raise TransportError(f"{head!r} is not for the core", outcome_unknown=True)

    def _start(self, number: int, answering: Coroutine[Any, Any, None]) -> None:
        self._open[number] = _Open()
        task = asyncio.get_running_loop().create_task(answering)
        self._tasks.add(task)
        task.add_done_callback(functools.partial(self._done, number))

    def _done(self, number: int, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        del self._open[number]
        if not task.cancelled() and (exc := task.exception()) is not None:
            logger.error("a request broke the server", exc_info=exc)
            self.send(Ended(number, broken=True))

    async def _check(self, check: Check) -> None:
        with self._open[check.number].scope:
            try:
                await self._app.precheck(join_odd(check.headers, check.odd), check.peer)
            except ApiError as error:
                told = refusal(error, self._app.request_id())
                self.send(Answer(check.number, told.status, told.headers), told.body)
            else:
                self.send(Answer(check.number, 0, {}))

    async def _answer(self, call: Call, body: bytes) -> None:
        number = call.number
        mine = self._open[number]
        with mine.scope:
            response = await self._app.handle(
                Relayed(
                    method=call.method,
                    target=call.target,
                    headers=join_odd(call.headers, call.odd),
                    body=body,
                    peer=call.peer,
                    form=call.form,
                    unpacked=call.unpacked,
                    digest=call.digest,
                    size=call.size,
                )
            )
            if response.pieces is None:
                if call.method == "GET" and not self._fits(response.body):
                    # What was read can be read again; what was stored has to be told.
                    response = refusal(api_error("DIS.4305"), response.headers["x-request-id"])
                self.send(Answer(number, response.status, response.headers), response.body)
                return
            async with aclosing(response.pieces) as pieces:
                self.send(Opening(number, response.status, response.headers))
                while True:
                    await mine.more.wait()
                    mine.more.clear()
                    try:
                        piece = await anext(pieces)
                    except StopAsyncIteration:
                        break
                    self.send(Piece(number), piece)
                self.send(Ended(number))

    def _fits(self, answer: bytes) -> bool:
        """While no other waits an answer passes, as in `Edge`."""
        assert self._transport is not None
        unsent = self._transport.get_write_buffer_size()
        return not unsent or unsent + len(answer) <= self._settings.max_buffered_bytes


def _start(*lines: int) -> subprocess.Popen[bytes]:
    """A front with these descriptors. It finds our modules where we found them. Raises OSError."""
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    return subprocess.Popen(
        # -P: what lies in the current directory is looked for there only if that is so in this process.
        [sys.executable, "-P", "-m", "disstream.server.front", *map(str, lines)],
        pass_fds=lines,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # the one line on it is the server's
        env={**os.environ, "PYTHONPATH": paths},
        start_new_session=True,  # so that Ctrl-C reaches the core alone
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for it, with an end."""
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
