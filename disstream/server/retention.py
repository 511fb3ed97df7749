"""Expiry: records older than their stream's retention stop being readable (API 5.1.1, data_duration)."""

from __future__ import annotations

import logging

import anyio
import anyio.lowlevel

from .. import clock
from ..engine import Engine
from ..errors import NotFoundError, StorageError
from .directory import Directory
from .documents import StreamDoc
from .reshape import expired
from .scaling import Scaler

logger = logging.getLogger("disstream.server")

HOUR_MS = 3_600_000

SLICE_S = 0.005
"""How long it works before requests get their turn: little beside what they take, much beside a turn of the loop."""


async def keep_trimming(engine: Engine, directory: Directory, scaling: Scaler, interval_s: float) -> None:
    """Trim every `interval_s`, until cancelled. A failure of the engine is logged, and tried again next time."""
    while True:
        try:
            await trim_expired(engine, directory, scaling)
        except StorageError as exc:
            logger.error("expired records could not be trimmed: %s", exc)
        await anyio.sleep(interval_s)


async def trim_expired(engine: Engine, directory: Directory, scaling: Scaler) -> None:
    """Move the oldest readable record of every partition past what has expired by now.

    A DELETED partition that has none any more is EXPIRED then (API 5.1.5).
    """
    now_ms = clock.wall_ms()
    turn_ends = anyio.current_time() + SLICE_S
    for project, doc in await directory.everything():
        refs = list(doc.refs())
        empty: set[int] = set()
        for ref, bounds in zip(refs, await engine.log.bounds(refs), strict=True):
            if anyio.current_time() >= turn_ends:
                await anyio.lowlevel.checkpoint()
                turn_ends = anyio.current_time() + SLICE_S
            if bounds is None:
                continue
            if bounds.oldest == bounds.next:
                empty.add(ref.number)
                continue
            expired_to = await engine.log.seek(ref, now_ms - doc.retention_h * HOUR_MS)
            if expired_to > bounds.oldest:
                await engine.log.trim(ref, expired_to)
                logger.debug("trimmed: id=%s partition=%d before=%d", ref.stream_id, ref.number, expired_to)
                if expired_to == bounds.next:
                    empty.add(ref.number)
        if doc.changes:
            await _after_changes(directory, scaling, project, doc, empty, now_ms)


async def _after_changes(
    directory: Directory, scaling: Scaler, project: str, doc: StreamDoc, empty: set[int], now_ms: int
) -> None:
    try:
        if expired(doc, empty, now_ms) is not doc:
            await directory.change(
                project, doc.name, doc.stream_id, lambda doc: expired(doc, empty, now_ms), exact=True
            )
        await scaling.forget_needless(doc)
    except NotFoundError:
        pass  # deleted meanwhile
