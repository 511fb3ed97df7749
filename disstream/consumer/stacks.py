"""Where code stands that does not get on: of a task that waits, of a thread that works."""

from __future__ import annotations

import asyncio
import sys
import traceback
from types import FrameType
from typing import Any

MAX_FRAMES = 30


def task_stack(task: asyncio.Task[Any]) -> str:
    """The coroutines of a task, from the outermost to what it waits for, as in a traceback; "" if it has ended."""
    if task.done():
        return ""
    frames: list[tuple[FrameType, int]] = []
    waits: Any = task.get_coro()
    while waits is not None and len(frames) < MAX_FRAMES:
        # A coroutine, or a generator that is one. What else can be awaited does not tell what it waits for.
        frame = getattr(waits, "cr_frame", None) or getattr(waits, "gi_frame", None)
        if frame is None:
            break
        frames.append((frame, frame.f_lineno))
        waits = getattr(waits, "cr_await", None) or getattr(waits, "gi_yieldfrom", None)
    return _text(frames)


def thread_stack(thread_id: int) -> str:
    """Of a running thread; "" if there is none of this id."""
    frame = sys._current_frames().get(thread_id)
    return _text(list(traceback.walk_stack(frame))[MAX_FRAMES::-1]) if frame is not None else ""


def _text(frames: list[tuple[FrameType, int]]) -> str:
    return "".join(traceback.StackSummary.extract(frames, lookup_lines=True).format())
