"""A front: a process that takes in requests for a server with several workers (fronts.py), and keeps no state.

It speaks HTTP and TLS, undoes compression, turns bodies of puts into columns and answers into what the client wants to
read (relay.py); everything else it asks the core, over the line that it was started with (frames.py). `Front` stands in
the place of an `App` behind the very `Edge` that a server without fronts has.

    starting   Hello is sent; Settings bring the configuration
    serving    connections arrive as descriptors on a second line, already accepted
    draining   asked to: requests under way are finished, at most `close_timeout_s`
    gone       also as soon as the core hangs up, whyever: then connections are cut, and nothing is answered any more

Signals do not end it: those that are meant for the server reach the core, which then drains its fronts.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import secrets
import signal
import socket
import ssl
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from typing import Any, cast

import anyio

from ..errors import ApiError, TransportError
from ..wire.columns import COLUMNS
from ..wire.errors import decode_error
from ..wire.http import Request, Response, split_target
from ..wire.routes import NoMatch, match
from ..wire.signing import body_hash
from .compression import Unpacking
from .config import ServerConfig
from .edge import Edge
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
    split_odd,
)
from .listening import HANDSHAKE_S, secure
from .relay import in_columns, rendered

logger = logging.getLogger("disstream.server")


class Line(asyncio.Protocol):
    """The front's end of the line to the core. What waits for the core is cancelled when that hangs up."""

    def __init__(self, on_lost: Callable[[], None] | None = None) -> None:
        self.on_lost = on_lost
        self.settings: asyncio.Future[Settings] = asyncio.get_running_loop().create_future()
        self.draining = asyncio.Event()  # also when the core has hung up
        self.lost = False
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._number = 0
        self._asked: dict[int, asyncio.Future[Response]] = {}
        self._pieces: dict[int, asyncio.Future[bytes | None]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.send(Hello(PROTOCOL, os.getpid()))

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost = True
        if self.on_lost is not None:
            self.on_lost()  # first: nobody shall be answered now
        self._room.set()
        waiting: list[asyncio.Future[Any]] = [*self._asked.values(), *self._pieces.values()]
        for future in waiting:
            future.cancel()
        if not self.settings.done():
            self.settings.set_exception(ConnectionError("the server is gone"))
        self.draining.set()

    def data_received(self, data: bytes) -> None:
        try:
            for head, body in self._frames.feed(data):
                self._take(head, body)
        except TransportError:
            logger.exception("the line to the server is broken")
            self.hang_up()

    def _take(self, head: Head, body: bytes) -> None:
        match head:
            case Answer():
                self._settle(head.number, Response(status=head.status, headers=head.headers, body=body))
            case Opening():
                pieces = _Pieces(self, head.number)
                if not self._settle(head.number, Response(status=head.status, headers=head.headers, pieces=pieces)):
                    self.send(Cancel(head.number))
            case Piece():
                self._give(head.number, body)
            case Ended(broken=True):
                for waiting in (self._asked.get(head.number), self._pieces.get(head.number)):
                    if waiting is not None and not waiting.done():
                        waiting.set_exception(RuntimeError("the request broke the server, whose log tells more"))
            case Ended():
                self._give(head.number, None)
            case Settings():
                self.settings.set_result(head)
            case Drain():
                self.draining.set()
            case Beat():
                self.send(head)
            case _:
                raise TransportError(f"{head!r} is not for a front", outcome_unknown=True)

    def _settle(self, number: int, response: Response) -> bool:
        """False: nobody waits for it any more."""
        asked = self._asked.get(number)
        if asked is None or asked.done():
            return False
        asked.set_result(response)
        return True

    def _give(self, number: int, piece: bytes | None) -> None:
        waiting = self._pieces.get(number)
        if waiting is not None and not waiting.done():
            waiting.set_result(piece)

    def send(self, head: Head, body: bytes = b"") -> None:
        """Nothing if the core has hung up. Raises UnicodeEncodeError."""
        frame = encode_frame(head, body)
        if self._transport is not None and not self.lost:
            self._transport.write(frame)
            if body:
                self._transport.write(body)

    async def ask(self, make: Callable[[int], Call | Check], body: bytes = b"") -> Response:
        """The core's answer to the call with the number that `make` is given.

        Cancellation: the core is told; what was asked for may still take effect.
        """
        await self._room.wait()
        self._number = number = self._number + 1
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        if self.lost:
            answer.cancel()
        try:
            self.send(make(number), body)
            return await answer
        except asyncio.CancelledError:
            self.send(Cancel(number))
            raise
        finally:
            del self._asked[number]

    async def next_piece(self, number: int) -> bytes | None:
        """None: there are no more."""
        piece: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._pieces[number] = piece
        if self.lost:
            piece.cancel()
        try:
            self.send(More(number))
            return await piece
        finally:
            del self._pieces[number]

    def hang_up(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _Pieces(AsyncGenerator[bytes, None]):
    """An answer that goes on. Not a generator function: one that nobody began would not notice that it is closed."""

    def __init__(self, line: Line, number: int) -> None:
        self._line = line
        self._number = number
        self._over = False

    async def asend(self, value: None) -> bytes:
        if self._over:
            raise StopAsyncIteration
        piece = await self._line.next_piece(self._number)
        if piece is None:
            self._over = True
            raise StopAsyncIteration
        return piece

    async def athrow(self, *exc: Any) -> bytes:
        await self.aclose()
        raise exc[0]

    async def aclose(self) -> None:
        if not self._over:
            self._over = True
            self._line.send(Cancel(self._number))


class _Notices:
    """The core ends the answers that go on, for all of its fronts."""

    def end(self) -> None:
        pass


class Front:
    """Answers requests like the `App` that is at the other end of the line."""

    def __init__(self, line: Line, settings: Settings, config: ServerConfig) -> None:
        self.notices = _Notices()
        self._line = line
        self._settings = settings
        self._unpacking = Unpacking(config)

    def request_id(self) -> str:
        return secrets.token_hex(16)

    async def precheck(self, headers: Mapping[str, str], peer: str) -> None:
        """As `App.precheck`."""
        if self._settings.checked:
            text, odd = split_odd(headers)
            answer = await self._line.ask(lambda number: Check(number, text, peer, odd))
            if answer.status:
                raise decode_error(answer)

    def refused(self, peer: str, status: int, code: str) -> None:
        self._line.send(Refused(peer, status, code))

    async def handle(self, request: Request) -> Response:
        """As `App.handle`. Cancelled if the core is gone."""
        if _is_put(request):
            response = await self._put(request)
        else:
            response = await self._hand_on(request, request.body)
        return rendered(request.headers, response)

    async def _put(self, request: Request) -> Response:
        if "content-encoding" not in request.headers:
            return await self._hand_on(request, request.body, put=True)
        try:
            # Counted as long as the core has it.
            async with self._unpacking.unpacked(request) as body:
                return await self._hand_on(request, body, put=True, unpacked=True)
        except ApiError:
            # Damaged, or no room: for the core to tell, once it knows who asks.
            return await self._hand_on(request, request.body)

    async def _hand_on(self, request: Request, body: bytes, *, put: bool = False, unpacked: bool = False) -> Response:
        columns = in_columns(request.headers, body, self._settings.max_request_records) if put else None
        if columns is not None:
            body = columns
        digest, size = "", 0
        if body is not request.body and "authorization" in request.headers:
            digest, size = body_hash(request.body), len(request.body)

        def call(number: int, headers: dict[str, str] = request.headers, odd: Mapping[str, bytes] = {}) -> Call:
            form = "" if columns is None else COLUMNS
            return Call(
                number,
                request.method,
                request.target,
                headers,
                request.peer,
                form,
                unpacked,
                digest,
                size,
                dict(odd),
            )

        try:
            return await self._line.ask(call, body)
        except UnicodeEncodeError:
            text, odd = split_odd(request.headers)
            return await self._line.ask(functools.partial(call, headers=text, odd=odd), body)


def _is_put(request: Request) -> bool:
    if request.method != "POST" or "/records" not in request.target:
        return False
    found = match(request.method, split_target(request.target)[0])
    return not isinstance(found, NoMatch) and found.operation == "put_records"


class _Logs(logging.Handler):
    """Log lines go to the core, which has the configuration of logging; without a core, to standard error."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if self._line.lost:
            sys.stderr.write(f"{text}\n")
        else:
            self._line.send(Told(record.name, record.levelno, text.encode("utf-8", "replace").decode()))


class _Door:
    """Where connections arrive from the core."""

    def __init__(
        self,
        door: socket.socket,
        make: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext | None,
        ended: Callable[[], None],
    ) -> None:
        self._door = door
        self._make = make
        self._tls = tls
        self._ended = ended
        self._greeting: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        self._door.setblocking(False)
        asyncio.get_running_loop().add_reader(self._door.fileno(), self._take)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._door.fileno())
        self._door.close()
        for task in self._greeting:
            task.cancel()

    def _take(self) -> None:
        while True:
            try:
                told, descriptors, _, _ = socket.recv_fds(self._door, 1, 1)
            except (BlockingIOError, InterruptedError):
                return
            if not told:  # the core is gone, which the line tells too
                asyncio.get_running_loop().remove_reader(self._door.fileno())
                return
            if not descriptors:
                logger.error("a connection is dropped: this process has no descriptor left for it (ulimit -n)")
                self._ended()
            for descriptor in descriptors:
                task = asyncio.get_running_loop().create_task(self._greet(socket.socket(fileno=descriptor)))
                self._greeting.add(task)
                task.add_done_callback(self._greeting.discard)

    async def _greet(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                self._make, connection, ssl=self._tls, ssl_handshake_timeout=HANDSHAKE_S if self._tls else None
            )
        except OSError as exc:  # a handshake that failed, mostly; TimeoutError and SSLError are OSErrors
            logger.debug("a connection did not come about: %s", exc)
            connection.close()
            self._ended()


async def serve(calls: socket.socket, door: socket.socket) -> bool:
    """Be a front until the core lets go of it. False: the core is gone."""
    line = Line()
    calls.setblocking(False)
    await asyncio.get_running_loop().create_unix_connection(lambda: line, sock=calls)
    settings = await line.settings
    _tell_logs(line, settings.log_level)
    config = ServerConfig(
        data_dir=None,
        max_body_bytes=settings.max_body_bytes,
        max_request_records=settings.max_request_records,
        max_buffered_bytes=settings.max_buffered_bytes,
        max_connections=settings.max_connections,
        idle_timeout_s=settings.idle_timeout_s,
        body_timeout_s=settings.body_timeout_s,
        answer_timeout_s=settings.answer_timeout_s,
        close_timeout_s=settings.close_timeout_s,
        tls_certificate=settings.tls_certificate,
        tls_key=settings.tls_key,
    )
    ended = functools.partial(line.send, Left())
    edge = Edge(Front(line, settings, config), config, ended)
    line.on_lost = edge.cut
    async with edge.answering() as make:
        entrance = _Door(door, make, secure(config), ended)
        entrance.open()
        await line.draining.wait()
        entrance.close()
    gone = line.lost
    line.hang_up()
    return not gone


def _tell_logs(line: Line, level: int) -> None:
    root = logging.getLogger()
    root.addHandler(_Logs(line))
    root.setLevel(level)


def main() -> None:
    """The process: its arguments are the numbers of two descriptors."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    calls, door = (socket.socket(fileno=int(text)) for text in sys.argv[1:3])
    ended = False
    with suppress(ConnectionError):
        ended = anyio.run(serve, calls, door, backend_options={"use_uvloop": True})
    sys.exit(0 if ended else 1)


if __name__ == "__main__":
    main()
