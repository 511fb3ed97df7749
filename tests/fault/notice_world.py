"""A consumer, a server and a line between them whose notices go wrong as told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from random import Random

import anyio
import msgspec

from disstream.client import Client
from disstream.client.api import Streamed
from disstream.engine.memory import MemoryEngine
from disstream.errors import TransportError
from disstream.model import NewRecord
from disstream.server import App, ServerConfig
from disstream.testing.clock import run_simulated
from disstream.testing.network import AppTransport
from disstream.wire.http import Request, Response
from disstream.wire.notices import Feed, Frame, Pushed, encode_frame, encode_pushed

LATENCY_S = 0.002


class Line(AppTransport):
    """A line whose notices go wrong as told. `asked` counts what passed it."""

    def __init__(self, app: App) -> None:
        super().__init__(app, latency_s=LATENCY_S)
        self.fault = ""
        self.down = False
        self.asked: Counter[str] = Counter()
        self.pages = 0

    async def exchange(self, request: Request) -> Response:
        self.asked[f"{request.method} {request.target.split('/')[3].partition('?')[0]}"] += 1
        if self.down:
            raise TransportError("the line is down", outcome_unknown=True)
        return await super().exchange(request)

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[Streamed]:
        self.asked["notices"] += 1
        if self.down or self.fault == "refused":
            raise TransportError("the line is down", outcome_unknown=False)
        if self.fault == "never":
            await anyio.sleep_forever()
        if self.fault in ("404", "405", "500"):
            yield Streamed(int(self.fault), {}, _nothing())
            return
        async with super().stream(request) as answer, aclosing(self._bad(answer.pieces)) as pieces:
            yield answer._replace(pieces=pieces)

    async def _bad(self, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Each piece of ours is some whole frames."""
        async for piece in pieces:
            if self.down or self.fault == "cut":
                raise TransportError("the line is cut", outcome_unknown=True)
            if self.fault == "silent":
                await anyio.sleep_forever()
            for frame in Feed(10_000).feed(piece):
                for bad in self._spoilt(frame):
                    yield bad
            if self.fault == "half":
                raise TransportError("the line is cut in a page", outcome_unknown=True)
            if self.fault == "late":
                await anyio.sleep(0.4)
            if self.fault == "short":
                return

    def _spoilt(self, frame: Frame) -> Iterator[bytes]:
        """What comes of a frame."""
        ends = [(frame.place, frame.end)] if isinstance(frame, Pushed) else frame
        whole = encode_pushed(frame) if isinstance(frame, Pushed) else encode_frame(frame)
        self.pages += isinstance(frame, Pushed)
        if self.fault == "low":
            yield encode_frame([])
        elif self.fault == "high":
            yield encode_frame((place, end + 1_000) for place, end in ends)
        elif self.fault == "garbage":
            yield b"<html>\n"
        elif self.fault == "doubled":
            yield whole
            yield whole
        elif self.fault == "lost" and self.pages % 2:
            yield encode_frame([])
        elif not isinstance(frame, Pushed):
            yield whole
        elif self.fault == "half":
            yield whole[:-20]
        elif self.fault == "rotten":  # what it says is a page is none
            yield encode_pushed(frame._replace(body=b"x" * len(frame.body)))
        elif self.fault == "behind":  # the page does not begin where it says
            yield encode_pushed(frame._replace(first=frame.first + 1))
        elif self.fault == "before":
            yield encode_pushed(frame._replace(first=max(frame.first - 1, 0)))
        elif self.fault == "more":
            yield encode_pushed(frame._replace(records=frame.records + 500))
        elif self.fault == "other":  # the page holds other records than its line tells
            cursor, ((first, *rest), *_), data = msgspec.msgpack.decode(frame.body)
            yield encode_pushed(frame._replace(body=msgspec.msgpack.encode([cursor, [[first + 9, *rest]], data])))
        elif self.fault == "dead":  # the cursor that comes with it is none
            _, batches, data = msgspec.msgpack.decode(frame.body)
            yield encode_pushed(frame._replace(body=msgspec.msgpack.encode(["nonsense", batches, data])))
        else:
            yield whole


async def _nothing() -> AsyncGenerator[bytes, None]:
    yield b""


class World:
    def __init__(self, engine: MemoryEngine) -> None:
        self.engine = engine
        self.app = App(engine, ServerConfig(data_dir=None, session_timeout_s=10.0), Random(1))
        self.line = Line(self.app)
        self.reader = Client(self.line, "p", dice=Random(2))
        self.writer = Client(AppTransport(self.app), "p")
        self.written = 0

    async def put(self, partition: int = 0, count: int = 1) -> None:
        records = [NewRecord(b"%d" % (self.written + n), partition_id=str(partition)) for n in range(count)]
        self.written += count
        (await self.writer.records.put("s", records)).raise_for_failed()

    async def until_live(self) -> None:
        """Time enough to join, and for the first frame."""
        await anyio.sleep(10)
        assert self.app.notices.open_answers


def simulate(test: Callable[[World], Awaitable[None]], partitions: int = 1) -> None:
    async def main() -> None:
        engine = MemoryEngine()
        await engine.start()
        world = World(engine)
        async with world.reader, world.writer:
            await world.writer.streams.create("s", partitions=partitions)
            await test(world)
            assert world.app.notices.open_answers == 0
        assert [t.get_name() for t in asyncio.all_tasks() if t is not asyncio.current_task()] == []
        await engine.close()

    run_simulated(main)
