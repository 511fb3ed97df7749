"""How every command runs: the event loop, signals, and what it prints.

Knows nothing of services, so that `disstream serve` and `disstream data` start without a client.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TextIO, TypeVar

import anyio
import click

T = TypeVar("T")


def say(text: str, *, err: bool = False) -> None:
    """Print a line. Whoever read it may be gone: that is no error, and the exit code stays what the work earned."""
    try:
        click.echo(text, err=err)
    except BrokenPipeError:
        reader_left(sys.stderr if err else sys.stdout)


def reader_left(pipe: TextIO) -> None:
    """Put the null device in the place of a broken pipe: the interpreter flushes into it once more when it exits."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, pipe.fileno())
    os.close(null)


def run(main: Callable[[], Awaitable[T]]) -> T:
    """Run `main()` to its end on a new event loop. SIGTERM ends it as Ctrl-C does: cancelled, and cleaned up."""
    _fill_standard_descriptors()
    running: list[asyncio.Task[Any] | None] = []

    async def work() -> T:
        running.append(asyncio.current_task())
        return await main()

    def end(number: int, frame: object) -> None:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.raise_signal(signal.SIGINT)
        elif running and (task := running[0]) is not None:  # shells start background commands deaf to Ctrl-C
            task.get_loop().call_soon_threadsafe(task.cancel)

    previous = signal.signal(signal.SIGTERM, end)
    try:
        return anyio.run(work, backend_options={"use_uvloop": sys.platform != "win32"})
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGTERM, previous)


def _fill_standard_descriptors() -> None:
    """Put the null device where 0, 1 or 2 was closed: libuv aborts the process when a socket of its gets such a number.

    `sys.stdin`, `sys.stdout` and `sys.stderr` stay None then.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one


def show_progress() -> bool:
    """Whether somebody watches standard error: then progress is drawn there."""
    return sys.stderr is not None and sys.stderr.isatty()
