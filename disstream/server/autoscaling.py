"""Streams that scale themselves: what was measured goes to autoscale.py, what it decides to scaling.py."""

from __future__ import annotations

import logging

import anyio
import anyio.lowlevel

from .. import clock
from ..errors import ApiError, StorageError
from .autoscale import BUSY_MINUTES, CAPACITY, QUIET_MINUTES, decide
from .directory import Directory
from .documents import StreamDoc
from .meter import MINUTE_MS, Meter
from .reshape import known, writable_count
from .scaling import Scaler

logger = logging.getLogger("disstream.server")

INTERVAL_S = 60.0
"""Minutes are what traffic is counted in."""


async def keep_scaling(directory: Directory, scaling: Scaler, meter: Meter) -> None:
    """Look once a minute at the streams that scale themselves, until cancelled. A failure is logged and tried again."""
    while True:
        await anyio.sleep(INTERVAL_S)
        try:
            await scale_all(directory, scaling, meter)
        except StorageError as exc:
            logger.error("streams could not be scaled: %s", exc)


async def scale_all(directory: Directory, scaling: Scaler, meter: Meter) -> None:
    """Scale the streams whose traffic asks for it, and finish the changes that were left half-way."""
    for project, doc in await directory.everything():
        target = wanted(doc, meter)
        if target is None and not doc.pending:
            await anyio.lowlevel.checkpoint()
            continue
        try:
            if target is None:
                await scaling.settled(await directory.find(project, doc.name, doc.stream_id, exact=True))
            else:
                await scaling.scale(project, doc.name, doc.stream_id, target, decided_on=doc)
        except ApiError as error:  # too soon after the last, no quota left, or deleted meanwhile
            logger.info("stream not scaled: project=%s stream=%s: %s", project, doc.name, error)


def wanted(doc: StreamDoc, meter: Meter) -> int | None:
    """How many partitions the stream should have; None: what it has, or somebody else says."""
    if doc.auto_scale is None or doc.pending:
        return None
    now_ms = clock.wall_ms()
    changed = [doc.create_time, *(s.at_ms for s in doc.scalings if not s.result_code)]
    known_since = max((at_ms for at_ms in changed if known(at_ms, now_ms)), default=0)
    return decide(
        doc.auto_scale,
        writable_count(doc),
        CAPACITY[doc.stream_type],
        meter.written(doc.stream_id, QUIET_MINUTES, now_ms),
        (now_ms - now_ms % MINUTE_MS - known_since) / 1000,
        throttled=meter.throttled(doc.stream_id, BUSY_MINUTES, now_ms),
    )
