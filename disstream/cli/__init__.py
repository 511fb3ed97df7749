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
session    where commands connect, and as whom   running: the event loop they run on, and what they print

Stands on the public face of the library alone; `data`, which needs no service, on the server and its engine. Exit
codes: 0 done; 1 the service said no, cannot be reached, or lost something; 2 bad usage.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from .. import __version__
from ..errors import ApiError, ConfigError, DisError
from ..lifecycle import unwrap
from .running import reader_left

__all__ = ["main"]

COMMANDS = {
    "app": ("app", "Create and delete apps; tell who reads and how far."),
    "bench": ("bench", "Measure records per second and verify them in the same run."),
    "checkpoint": ("checkpoint", "Show, set and delete how far an app has read."),
    "consume": ("record", "Print the records of STREAM, and follow it."),
    "data": ("data", "Look after the data directory of a server."),
    "deadletter": ("deadletter", "List, send back or discard what workers gave up."),
    "demo": ("demo", "Send a CSV file through a server and check every record."),
    "dump": ("dump", "Create, start and stop dump tasks: a stream copied into a store."),
    "metrics": ("metrics", "Show what was counted of STREAM, by the minute."),
    "produce": ("record", "Send the records of a file or of standard input to STREAM."),
    "replay": ("replay", "Read a window of time of STREAM again, for another app."),
    "serve": ("serve", "Run a DIS server until SIGTERM or Ctrl-C."),
    "stream": ("stream", "Create, list, describe, scale, update and delete streams."),
    "tag": ("tag", "List, set and remove the tags of streams; find streams by them."),
    "worker": ("worker", "Call a handler of yours with records; let suspended partitions go on."),
}
"""Command -> its module, and what `disstream --help` says of it."""

REMEDIES = {
    "DIS.4301": "`disstream stream list` shows what there is, `disstream stream create NAME` makes one",
    "DIS.4101": "the service wants to know who asks: --ak, --user or --token-file, or the variables they name",
    "DIS.4117": "--project names another",
    "DIS.4331": "`disstream app members APP` shows who reads",
    "DIS.4354": "`disstream dump list STREAM` shows what there is",
    "DIS.4332": "`disstream app list` shows what there is, `disstream app create APP` makes one",
}


class _Commands(click.Group):
    """Turns what disstream and the operating system raise into one line on standard error and the exit code.

    It begins with stand-ins for its commands, which know their names and summaries. The real one takes its place when
    it is to run: what `bench` imports takes longer than all that `serve` does before it answers.
    """

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in COMMANDS:
            module, summary = COMMANDS[args[0]]
            command: click.Command = getattr(importlib.import_module(f".{module}", __name__), args[0])
            command.short_help = summary
            self.add_command(command)
        return super().resolve_command(ctx, args)

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


for _name, (_, _summary) in COMMANDS.items():
    main.add_command(click.Command(_name, short_help=_summary))
