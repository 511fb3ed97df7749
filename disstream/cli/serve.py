"""`disstream serve`: a server until a signal ends it."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import Literal

import anyio
import click

from ..server import Server, ServerConfig
from .session import run, say

DEFAULT_DATA_DIR = Path("disstream-data")


@click.command(short_help="Run a DIS server until SIGTERM or Ctrl-C.")
@click.option("--host", default="127.0.0.1", help="Address to listen on; loopback only, since nobody signs in yet.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, help="Port to listen on; 0 takes a free one.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help=f"Directory that keeps streams and records; made if absent.  [default: {DEFAULT_DATA_DIR}]",
)
@click.option("--memory", is_flag=True, help="Keep everything in memory and forget it at the end.")
@click.option(
    "--durability",
    type=click.Choice(["fsync", "relaxed"]),
    default="fsync",
    help="fsync: what was acknowledged survives a power failure. relaxed: it survives the end of the process; a power "
    "failure may take the last moments.",
)
def serve(host: str, port: int, data_dir: Path | None, memory: bool, durability: Literal["fsync", "relaxed"]) -> None:
    """Run a DIS server until SIGTERM or Ctrl-C, which finish what was accepted.

    Prints one line on standard output once it answers; logs go to standard error.

    \b
    Examples:
      disstream serve
      disstream serve --port 0 --memory
    """
    if memory and data_dir is not None:
        raise click.UsageError("--memory keeps nothing, so it goes without --data-dir")
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    directory = None if memory else (data_dir or DEFAULT_DATA_DIR)
    config = ServerConfig(host=host, port=port, data_dir=directory, durability=durability)
    run(lambda: _serve(config))


async def _serve(config: ServerConfig) -> None:
    # The receiver opens first, so that a signal ends a server that is still starting as it ends one that runs.
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with Server(config) as server:
            kept = "in memory" if config.data_dir is None else f"from {config.data_dir}, {config.durability}"
            say(f"serving {server.url} {kept}")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_follow, server, tasks.cancel_scope, name="follow")
                await anext(aiter(signals))
                tasks.cancel_scope.cancel()


async def _follow(server: Server, scope: anyio.CancelScope) -> None:
    """A server that dies ends the command, which then raises what it died of."""
    await server.wait_closed()
    scope.cancel()
