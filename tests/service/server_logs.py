"""A server on a log that does what a test tells it, under simulated time."""

from __future__ import annotations

import tracemalloc
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
from server_http import AppCaller

from disstream.engine import AppendRefused, Entry, Replayed
from disstream.engine.memory import MemoryEngine, MemoryLog
from disstream.server import App, ServerConfig
from disstream.testing.clock import run_simulated


def simulate(test: Callable[[AppCaller], Awaitable[None]], log: Any = MemoryLog, **config: Any) -> None:
    async def main() -> None:
        engine = MemoryEngine()
        engine._log = log(engine._life)
        await engine.start()
        await test(AppCaller(App(engine, ServerConfig(data_dir=None, **config))))
        await engine.close()

    run_simulated(main)


def log_of(caller: AppCaller) -> Any:
    return caller.app.scaling._engine.log


class GatedLog(MemoryLog):
    """Appends wait until the test opens the gate."""

    def __init__(self, life: Any) -> None:
        super().__init__(life)
        self.gate = anyio.Event()
        self.appends = 0

    async def append(self, entries: Sequence[Entry], now_ms: int) -> list[int | AppendRefused | Replayed]:
        self.appends += 1
        await self.gate.wait()
        return await super().append(entries, now_ms)


async def check_waiting_copies(caller: AppCaller, body: bytes, **headers: str) -> None:
    """21 copies of a put of 20,000 records, on a GatedLog: those that wait hold nothing but their bodies."""
    log = log_of(caller)
    answers: list[bytes] = []

    async def copy() -> None:
        answer = await caller.call("POST", "/v2/p/records", body, **{"x-disstream-answer": "places"}, **headers)
        answers.append(answer.body)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(copy)
        await anyio.wait_all_tasks_blocked()
        tracemalloc.start()
        for _ in range(20):
            tasks.start_soon(copy)
        await anyio.wait_all_tasks_blocked()
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        log.gate.set()
    assert held < 1_000_000
    assert answers == [b'{"failed_record_count":0,"places":[[0,0,20000]]}'] * 21
    assert log.appends == 1


class TrippedLog(MemoryLog):
    """Does what the test put into `before_append` first."""

    before_append: Callable[[], Awaitable[None]] | None = None

    async def append(self, entries: Sequence[Entry], now_ms: int) -> list[int | AppendRefused | Replayed]:
        if self.before_append is not None:
            trip, self.before_append = self.before_append, None
            await trip()
        return await super().append(entries, now_ms)
