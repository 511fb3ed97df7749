"""Expiry: records older than their stream's retention stop being readable (API 5.1.1, data_duration).

So do the oldest records of a stream that holds more bytes than it may (`retention_bytes`, an extension). Both are
looked at every `retention_interval_s`: a stream exceeds its bytes by what arrives in between.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import anyio
import anyio.lowlevel

from .. import clock
from ..engine import Engine, Log, PartitionRef
from ..errors import NotFoundError, StorageError
from .directory import Directory
from .documents import StreamDoc
from .reshape import expired
from .scaling import Scaler

logger = logging.getLogger("disstream.server")

HOUR_MS = 3_600_000

SLICE_S = 0.005
"""How long it works before requests get their turn: little beside what they take, much beside a turn of the loop."""


async def keep_trimming(
    engine: Engine, directory: Directory, scaling: Scaler, interval_s: float, retention_bytes: int | None = None
) -> None:
    """Trim every `interval_s`, until cancelled. A failure of the engine is logged, and tried again next time."""
    while True:
        try:
            await trim_expired(engine, directory, scaling, retention_bytes)
        except StorageError as exc:
            logger.error("expired records could not be trimmed: %s", exc)
        await anyio.sleep(interval_s)


async def trim_expired(
    engine: Engine, directory: Directory, scaling: Scaler, retention_bytes: int | None = None
) -> None:
    """Move the oldest readable record of every partition past what has expired by now, or is too much.

    `retention_bytes`: what a stream may hold that has no bound of its own. A DELETED partition that has no record any
    more is EXPIRED then (API 5.1.5).
    """
    now_ms = clock.wall_ms()
    turn_ends = anyio.current_time() + SLICE_S
    for project, doc in await directory.everything():
        refs = list(doc.refs())
        empty: set[int] = set()
        expired_to: dict[PartitionRef, int] = {}
        for ref, bounds in zip(refs, await engine.log.bounds(refs), strict=True):
            if anyio.current_time() >= turn_ends:
                await anyio.lowlevel.checkpoint()
                turn_ends = anyio.current_time() + SLICE_S
            if bounds is None:
                continue
            if bounds.oldest == bounds.next:
                empty.add(ref.number)
                continue
            before = await engine.log.seek(ref, now_ms - doc.retention_h * HOUR_MS)
            if before > bounds.oldest:
                expired_to[ref] = before
                if before == bounds.next:
                    empty.add(ref.number)
        await _trim(engine.log, expired_to)
        keep_bytes = doc.retention_bytes or retention_bytes
        if keep_bytes is not None:
            more = True
            while more:
                too_much, more = await engine.log.surplus(refs, keep_bytes)
                await _trim(engine.log, too_much)
        if doc.changes:
            await _after_changes(directory, scaling, project, doc, empty, now_ms)


async def _trim(log: Log, before: Mapping[PartitionRef, int]) -> None:
    """All at once, so that they share a commit. Raises the first StorageError."""
    failures: list[StorageError] = []

    async def trim(ref: PartitionRef, number: int) -> None:
        try:
            await log.trim(ref, number)
        except StorageError as exc:
            failures.append(exc)
        else:
            logger.debug("trimmed: id=%s partition=%d before=%d", ref.stream_id, ref.number, number)

    async with anyio.create_task_group() as tasks:
        for ref, number in before.items():
            tasks.start_soon(trim, ref, number, name="disstream-trim")
    if failures:
        raise failures[0]


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
