"""`disstream serve`: a server until a signal ends it."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any, Literal

import anyio
import click

from ..engine import EngineStats
from ..server import Server, ServerConfig, read_config
from ..server.config import MAX_WORKERS
from .running import run, say


@click.command()
@click.option("--host", help="Address to listen on; one that others can reach takes users.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.  [default: 8080]")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory that keeps streams and records; made if absent.  [default: disstream-data]",
)
@click.option("--memory", is_flag=True, help="Keep everything in memory and forget it at the end.")
@click.option(
    "--durability",
    type=click.Choice(["fsync", "relaxed"]),
    help="fsync: what was acknowledged survives a power failure. relaxed: it survives the end of the process; a power "
    "failure takes what was acknowledged in the last --sync-interval-ms, and while that was written.  [default: fsync]",
)
@click.option(
    "--sync-interval-ms",
    type=click.IntRange(min=1),
    help="With --durability relaxed: how often the disk is made to hold what was acknowledged.  [default: 1000]",
)
@click.option(
    "--workers",
    type=click.IntRange(1, MAX_WORKERS),
    help="Processes that take requests in and answer them, beside the one that keeps the records; 1: it does both.  "
    "[default: 1]",
)
@click.option(
    "--limits",
    type=click.Choice(["open", "service"]),
    help="service: the limits of the real service, to rehearse with: bandwidth of partitions, quotas, pauses between "
    "scalings. open: its sizes, without these. [limits] in the file of --config sets each by its name.  "
    "[default: open]",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="TOML file with users, projects and settings. Options given here go before what it says.",
)
@click.option(
    "--insecure-bind", is_flag=True, help="Without users, listen on an address that others can reach: they may do all."
)
def serve(
    host: str | None,
    port: int | None,
    data_dir: Path | None,
    memory: bool,
    durability: Literal["fsync", "relaxed"] | None,
    workers: int | None,
    sync_interval_ms: int | None,
    limits: Literal["open", "service"] | None,
    config_file: Path | None,
    insecure_bind: bool,
) -> None:
    """Run a DIS server until SIGTERM or Ctrl-C, which finish what was accepted.

    Prints one line on standard output once it answers; logs go to standard error.

    \b
    Examples:
      disstream serve
      disstream serve --port 0 --memory
      disstream serve --config disstream.toml --host 0.0.0.0
    """
    if memory and data_dir is not None:
        raise click.UsageError("--memory keeps nothing, so it goes without --data-dir")
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    options = {"host": host, "port": port, "data_dir": data_dir, "durability": durability, "workers": workers}
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if sync_interval_ms is not None:
        given["sync_interval_s"] = sync_interval_ms / 1000
    if memory:
        given["data_dir"] = None
    if insecure_bind:
        given["insecure_bind"] = True
    config = read_config(config_file, profile=limits, given=given)
    if sync_interval_ms is not None and (config.durability != "relaxed" or config.data_dir is None):
        raise click.UsageError(
            "--sync-interval-ms is for a data directory with --durability relaxed: each commit syncs"
        )
    if config.users is not None:
        os.umask(0o077)  # who has to sign in to read a record shall not find it in a file
    run(lambda: _serve(config))


async def _serve(config: ServerConfig) -> None:
    # The receiver opens first, so that a signal ends a server that is still starting as it ends one that runs.
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with Server(config) as server:
            workers = f", {config.workers} workers" if config.workers > 1 else ""
            say(f"serving {server.url} {_kept(config, server.stats().engine)}{workers}")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_follow, server, tasks.cancel_scope, name="follow")
                await anext(aiter(signals))
                tasks.cancel_scope.cancel()


def _kept(config: ServerConfig, stats: EngineStats) -> str:
    """Where records are, and what a power failure takes of them."""
    if stats.loss_s is None:
        return "in memory"
    loss = f": a power failure may take the last {stats.loss_s:g} s" if stats.loss_s else ""
    return f"from {config.data_dir}, {stats.durability}{loss}"


async def _follow(server: Server, scope: anyio.CancelScope) -> None:
    """A server that dies ends the command, which then raises what it died of."""
    await server.wait_closed()
    scope.cancel()
