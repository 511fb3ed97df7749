"""What every command that talks to a service shares: where it connects, and the event loop it runs on."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple, TextIO, TypeVar

import anyio
import click

from ..client import ClientConfig
from ..door import DisClient, connect

T = TypeVar("T")

DEFAULT_ENDPOINT = "http://127.0.0.1:8080"
DEFAULT_PROJECT = "demo"


class Target(NamedTuple):
    """The service and the project a command works on."""

    endpoint: str
    project: str

    def connect(self, patience_s: float | None = None) -> DisClient:
        """`patience_s`: a call is given up after about so long, with all its attempts. None: the client's defaults."""
        config = None
        if patience_s is not None:
            usual = ClientConfig()
            config = ClientConfig(
                request_timeout_s=min(patience_s, usual.request_timeout_s),
                retry_budget_s=min(patience_s, usual.retry_budget_s),
            )
        return connect(self.endpoint, project_id=self.project, config=config)


def given(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """An option's value unless it is empty, as of `--project "$UNSET"`: nothing may be guessed instead."""
    if value == "":
        raise click.BadParameter("it is empty: give a value, or leave the option out")
    return value


def connects(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--endpoint` and `--project`; its function gets them as its first argument, a `Target`."""

    @click.option(
        "--endpoint",
        envvar="DISSTREAM_ENDPOINT",
        show_envvar=True,
        default=DEFAULT_ENDPOINT,
        callback=given,
        metavar="URL",
        help="Where the service answers.",
    )
    @click.option(
        "--project",
        envvar="DISSTREAM_PROJECT_ID",
        show_envvar=True,
        default=DEFAULT_PROJECT,
        callback=given,
        metavar="ID",
        help="The project whose streams are meant.",
    )
    @functools.wraps(command)
    def with_target(endpoint: str, project: str, **arguments: Any) -> Any:
        with library_messages():
            return command(Target(endpoint, project), **arguments)

    return with_target


class _Lines(logging.Handler):
    """Messages as lines on standard error, without time, level and traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        say(" ".join(record.getMessage().split()), err=True)


@contextlib.contextmanager
def library_messages() -> Iterator[None]:
    """Show the library's warnings, and of the producer also how it recovers, while a command runs."""
    handlers = (
        (logging.getLogger("disstream"), _Lines(logging.WARNING)),
        (logging.getLogger("disstream.producer"), _Lines(logging.INFO)),
    )
    handlers[1][1].addFilter(lambda record: record.levelno < logging.WARNING)  # those reach the first handler too
    levels = [logger.level for logger, _ in handlers]
    for logger, handler in handlers:
        logger.addHandler(handler)
        logger.setLevel(handler.level)
    try:
        yield
    finally:
        for (logger, handler), level in zip(handlers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


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
    previous = signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    try:
        return anyio.run(main, backend_options={"use_uvloop": sys.platform != "win32"})
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
