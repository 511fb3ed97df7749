"""`disstream app`: create, list, describe and delete apps, and tell how far they are."""

from __future__ import annotations

import click

from ..model import AppInfo
from .explain import explain
from .formats import time_text
from .lag import lag, members
from .listing import show
from .reset import reset
from .running import run, say
from .session import Target, connects


@click.group()
def app() -> None:
    """Create and delete apps; tell who reads and how far."""


@app.command()
@click.argument("name", metavar="APP")
@connects
def create(target: Target, name: str) -> None:
    """Create app APP: a reader of streams that has checkpoints of its own.

    Example: disstream app create billing
    """

    async def work() -> None:
        async with target.connect() as dis:
            await dis.apps.create(name)

    run(work)
    say(f"created {name}")


@app.command("list")
@click.option("--stream", metavar="STREAM", help="Only apps that have a checkpoint on STREAM.")
@connects
def list_apps(target: Target, stream: str | None) -> None:
    """List the apps of the project, by name, with the streams they have checkpoints on.

    In a pipe: one line an app, columns separated by tabs, no header.

    Example: disstream app list --stream orders
    """

    async def work() -> list[AppInfo]:
        async with target.connect() as dis:
            return [found async for found in dis.apps.list(stream=stream)]

    show(
        ("APP", "CREATED (UTC)", "STREAMS"),
        [(a.name, time_text(a.create_time), ", ".join(a.streams)) for a in run(work)],
        elastic=("APP", "STREAMS"),
    )


@app.command()
@click.argument("name", metavar="APP")
@connects
def describe(target: Target, name: str) -> None:
    """Show app APP and the streams it has checkpoints on.

    In a pipe: one line a stream, no header.

    Example: disstream app describe billing
    """

    async def work() -> AppInfo:
        async with target.connect() as dis:
            return await dis.apps.describe(name)

    info = run(work)
    show(
        ("STREAM",),
        [(stream,) for stream in info.streams],
        elastic=("STREAM",),
        title=f"{info.name} ({info.app_id}): created {time_text(info.create_time)} UTC",
    )


@app.command()
@click.argument("name", metavar="APP")
@connects
def delete(target: Target, name: str) -> None:
    """Delete app APP with all its checkpoints. It asks nothing and cannot be undone.

    Refused while members of its group are reading.

    Example: disstream app delete billing
    """

    async def work() -> None:
        async with target.connect() as dis:
            await dis.apps.delete(name)

    run(work)
    say(f"deleted {name}")


for _command in (lag, members, explain, reset):
    app.add_command(_command)
