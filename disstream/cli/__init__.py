"""The command line: one module per noun.

serve      run a server
stream     create, list, describe and delete streams
record     produce and consume records           formats: records as text; feed: the input of produce
demo       the main job on real data
bench      measure and verify
session    where commands connect, the event loop they run on

Stands on the public face of the library alone. Exit codes: 0 done; 1 the service said no, cannot be reached, or lost
something; 2 bad usage.
"""

from __future__ import annotations

import click

from .. import __version__
from ..errors import ConfigError, DisError
from ..lifecycle import unwrap
from .bench import bench
from .demo import demo
from .record import consume, produce
from .serve import serve
from .stream import stream

__all__ = ["main"]


class _Commands(click.Group):
    """Turns what disstream and the operating system raise into one line on standard error and the exit code."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (DisError, OSError, BaseExceptionGroup) as raised:
            exc = unwrap(raised)
            if isinstance(exc, ConfigError):
                raise click.UsageError(_one_line(exc)) from exc
            # A broken pipe is click's: it ends quietly.
            if isinstance(exc, DisError | OSError) and not isinstance(exc, BrokenPipeError):
                raise click.ClickException(_one_line(exc)) from exc
            raise


def _one_line(exc: Exception) -> str:
    return " ".join(str(exc).split())


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110},
)
@click.version_option(__version__, prog_name="disstream")
def main() -> None:
    """Serve, fill, read and measure DIS streams.

    Begin with `disstream serve`; the other commands talk to it, or to any DIS endpoint that asks for no credentials.

    Exit codes: 0 done; 1 the service said no, cannot be reached, or lost something; 2 bad usage.
    """


for _command in (serve, stream, produce, consume, demo, bench):
    main.add_command(_command)
