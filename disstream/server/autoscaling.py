"""Streams that scale themselves: what was measured goes to autoscale.py, what it decides to scaling.py."""

from __future__ import annotations

import logging

import anyio
import anyio.lowlevel

from .. import clock
from ..errors import ApiError, StorageError
from .autoscale import CAPACITY, QUIET_MINUTES, decide
from .directory import Directory
from .documents import StreamDoc
from .meter import MINUTE_MS, Meter
from .reshape import writable_count
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
    """Scale the streams whose traffic asks for it."""
    for project, doc in await directory.everything():
        target = wanted(doc, meter)
        if target is None:
            await anyio.lowlevel.checkpoint()
            continue
        try:
            await scaling.scale(project, doc.name, doc.stream_id, target, automatic=True)
        except ApiError as error:  # too soon after the last, no quota left, or deleted meanwhile
            logger.info("stream not scaled: project=%s stream=%s to=%d: %s", project, doc.name, target, error)


def wanted(doc: StreamDoc, meter: Meter) -> int | None:
    """How many partitions the stream should have; None: what it has, or somebody else says."""
    if doc.auto_scale is None or doc.pending:
        return None
    now_ms = clock.wall_ms()
    known_since = max([doc.create_time, *(s.at_ms for s in doc.scalings if not s.result_code)])
    return decide(
        doc.auto_scale,
        writable_count(doc),
        CAPACITY[doc.stream_type],
        meter.written(doc.stream_id, QUIET_MINUTES, now_ms),
        (now_ms - now_ms % MINUTE_MS - known_since) / 1000,
    )
