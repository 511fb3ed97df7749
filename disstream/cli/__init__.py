"""The command line: one module per noun.

serve      run a server
stream     create, list, describe, scale, update and delete streams
app        the same for apps                        lag: how far they are, and who reads for them
explain    why an app stands still                  facts: what is asked for it; findings: what follows from it
leaseview  the same for leases in a store
reset      let an app read on somewhere else        replay: read a window of time again, for another app
tag        list, set and remove the tags of streams, and find streams by them
metrics    what was counted of a stream
checkpoint show, set and delete how far an app has read
dump       create, start, stop and delete tasks that copy a stream
record     produce and consume records           formats: records as text; feed: the input of produce; sending: its run
worker     run handlers; resume what was suspended
resend     a spill file, sent again
deadletter list, send back and discard what workers gave up
data       check, back up, restore, compact and measure the directory of a server
demo       the main job on real data
bench      measure and verify
listing    rows, for people and for pipes           places: options that say where; loading: functions by their names
session    where commands connect, the event loop they run on

Stands on the public face of the library alone; `data`, which needs no service, on the server and its engine. Exit
codes: 0 done; 1 the service said no, cannot be reached, or lost something; 2 bad usage.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from .. import __version__
from ..errors import ApiError, ConfigError, DisError
from ..lifecycle import unwrap
from .app import app
from .bench import bench
from .checkpoint import checkpoint
from .data import data
from .deadletter import deadletter
from .demo import demo
from .dump import dump
from .facts import APP_NOT_FOUND
from .metrics import metrics
from .record import consume, produce
from .replay import replay
from .serve import serve
from .session import reader_left
from .stream import stream
from .tag import tag
from .worker import worker

__all__ = ["main"]

REMEDIES = {
    "DIS.4301": "`disstream stream list` shows what there is, `disstream stream create NAME` makes one",
    "DIS.4101": "the service wants to know who asks: --ak, --user or --token-file, or the variables they name",
    "DIS.4117": "--project names another",
    "DIS.4331": "`disstream app members APP` shows who reads",
    "DIS.4354": "`disstream dump list STREAM` shows what there is",
    APP_NOT_FOUND: "`disstream app list` shows what there is, `disstream app create APP` makes one",
}


class _Commands(click.Group):
    """Turns what disstream and the operating system raise into one line on standard error and the exit code."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (DisError, OSError, BaseExceptionGroup) as raised:
            exc = unwrap(raised)
            if isinstance(exc, ConfigError):
                raise click.UsageError(_one_line(exc)) from exc
            if isinstance(exc, BrokenPipeError):
                raise _quiet_end() from exc
            if isinstance(exc, DisError | OSError):
                raise click.ClickException(_one_line(exc)) from exc
            raise

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except BrokenPipeError as exc:  # --help and --version print here
            raise _quiet_end() from exc


def _quiet_end() -> click.exceptions.Exit:
    """How a command ends whose reader has seen enough."""
    reader_left(sys.stdout)
    return click.exceptions.Exit(0)


def _one_line(exc: Exception) -> str:
    told = " ".join(str(exc).split())
    remedy = REMEDIES.get(exc.code) if isinstance(exc, ApiError) else None
    return f"{told}; {remedy}" if remedy else told


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110},
)
@click.version_option(__version__, prog_name="disstream")
def main() -> None:
    """Serve, fill, read and measure DIS streams.

    Begin with `disstream serve`; the other commands talk to it, or to any DIS endpoint.

    Exit codes: 0 done; 1 the service said no, cannot be reached, or lost something; 2 bad usage.
    """


for _command in (
    serve,
    stream,
    app,
    checkpoint,
    tag,
    metrics,
    dump,
    produce,
    consume,
    replay,
    worker,
    deadletter,
    data,
    demo,
    bench,
):
    main.add_command(_command)
