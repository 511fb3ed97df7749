"""Expiry: records older than their stream's retention stop being readable (API 5.1.1, data_duration)."""

from __future__ import annotations

import logging

import anyio
import anyio.lowlevel

from .. import clock
from ..engine import Engine
from ..errors import StorageError
from .directory import Directory

logger = logging.getLogger("disstream.server")

HOUR_MS = 3_600_000

SLICE_S = 0.005
"""How long it works before requests get their turn: little beside what they take, much beside a turn of the loop."""


async def keep_trimming(engine: Engine, directory: Directory, interval_s: float) -> None:
    """Trim every `interval_s`, until cancelled. A failure of the engine is logged, and tried again next time."""
    while True:
        try:
            await trim_expired(engine, directory)
        except StorageError as exc:
            logger.error("expired records could not be trimmed: %s", exc)
        await anyio.sleep(interval_s)


async def trim_expired(engine: Engine, directory: Directory) -> None:
    """Move the oldest readable record of every partition past what has expired by now."""
    now_ms = clock.wall_ms()
    turn_ends = anyio.current_time() + SLICE_S
    for doc in await directory.everything():
        refs = list(doc.refs())
        for ref, bounds in zip(refs, await engine.log.bounds(refs), strict=True):
            if anyio.current_time() >= turn_ends:
                await anyio.lowlevel.checkpoint()
                turn_ends = anyio.current_time() + SLICE_S
            if bounds is None or bounds.oldest == bounds.next:
                continue
            expired_to = await engine.log.seek(ref, now_ms - doc.retention_h * HOUR_MS)
            if expired_to > bounds.oldest:
                await engine.log.trim(ref, expired_to)
                logger.debug("trimmed: id=%s partition=%d before=%d", ref.stream_id, ref.number, expired_to)
