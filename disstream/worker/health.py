"""`/live` and `/ready`, from a thread of its own: so it can answer while a handler blocks the event loop.

The worker's loop shows a sign of life several times a second, and puts a snapshot here if one was asked for since
(`Pulse`). The thread reads nothing else.

    GET /live    200 while that happens and the worker has not failed; else 503
    GET /ready   200 while the worker is a member, holding partitions or standing by, and does not stop; else 503

Both answer a JSON object: state, reason (of a 503), alive_s (since the last sign of life), stats (of a moment ago;
when nobody has asked for long, of when somebody did).
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from typing import TYPE_CHECKING, Any

import msgspec

from .. import clock
from ..errors import ConfigError
from .stats import WorkerStats

if TYPE_CHECKING:
    from aiohttp import web

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 2.0


class Pulse:
    """What the loop tells the thread; each in one assignment."""

    def __init__(self) -> None:
        self.alive_at = clock.boot()
        self.state = "starting"
        self.ready = False
        self.why = "the worker has not joined yet"
        self.stats: WorkerStats | None = None
        self.wanted = True
        """Somebody asked, so that the next snapshot is worth its while: of many partitions it takes milliseconds."""

    def show(self, state: str, *, ready: bool, why: str) -> None:
        self.state, self.ready, self.why = state, ready, why
        self.alive_at = clock.boot()


class Health:
    def __init__(self, host: str, port: int, stall_s: float, pulse: Pulse) -> None:
        self._host = host
        self._port = port
        self._stall_s = stall_s
        self._pulse = pulse
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._listening = threading.Event()
        self._failure: Exception | None = None
        self.url = ""

    def start(self) -> None:
        """Returns when it answers, which takes no more than a moment. Raises ConfigError."""
        self._thread = threading.Thread(target=self._body, name="worker-health", daemon=True)
        self._thread.start()
        self._listening.wait(START_TIMEOUT_S)
        if self._failure is not None or not self.url:
            raise ConfigError(
                f"health_host={self._host!r}, health_port={self._port}: cannot be listened to: {self._failure}"
            ) from self._failure

    def stop(self) -> None:
        """Twice is fine."""
        if self._thread is not None and self._loop is not None and self._ended is not None:
            if self._thread.is_alive():
                self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join(STOP_TIMEOUT_S)

    # --- in the thread --------------------------------------------------------------------------------------------

    def _body(self) -> None:
        try:
            asyncio.run(self._serve())
        except OSError as exc:
            self._failure = exc
        finally:
            self._listening.set()

    async def _serve(self) -> None:
        from aiohttp import web  # here, because most workers answer nobody

        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        app = web.Application()
        app.router.add_get("/live", self._live)
        app.router.add_get("/ready", self._ready)
        runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
            host, port = runner.addresses[0][:2]
            self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            self._listening.set()
            await self._ended.wait()
        finally:
            await runner.cleanup()

    async def _live(self, request: web.Request) -> web.Response:
        pulse = self._pulse
        silent_s = clock.boot() - pulse.alive_at
        if pulse.state == "failed":
            return self._answer(503, pulse.why)
        if silent_s > self._stall_s:
            return self._answer(503, f"the event loop has not run for {silent_s:.1f} s: a handler blocks it")
        return self._answer(200, "")

    async def _ready(self, request: web.Request) -> web.Response:
        return self._answer(200 if self._pulse.ready else 503, self._pulse.why)

    def _answer(self, status: int, why: str) -> web.Response:
        from aiohttp import web

        self._pulse.wanted = True
        return web.Response(status=status, body=body_of(self._pulse, why), content_type="application/json")


def body_of(pulse: Pulse, reason: str) -> bytes:
    """What is answered, as JSON. Errors in it as their text."""
    body = {
        "state": pulse.state,
        "reason": reason,
        "alive_s": round(clock.boot() - pulse.alive_at, 3),
        "stats": None if pulse.stats is None else _plain(pulse.stats),
    }
    return msgspec.json.encode(body, enc_hook=str)


def _plain(stats: WorkerStats) -> dict[str, Any]:
    """As JSON can have it: partitions by stream/partition id."""
    told = {field.name: getattr(stats, field.name) for field in dataclasses.fields(stats)}
    told["suspended"] = [f"{p.stream}/{p.partition_id}" for p in stats.suspended]
    told["partitions"] = {f"{p.stream}/{p.partition_id}": work for p, work in stats.partitions.items()}
    consumer = stats.consumer
    if consumer is not None:
        told["consumer"] = {f.name: getattr(consumer, f.name) for f in dataclasses.fields(consumer)}
    return told
