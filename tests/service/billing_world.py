"""A server in a thread with what the tests of `disstream app` begin with, and command lines on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click.testing
from anyio.from_thread import BlockingPortal, start_blocking_portal

from disstream.cli import main
from disstream.server import Server, ServerConfig

ZERO, ONE = "shardId-0000000000", "shardId-0000000001"

Run = Callable[..., click.testing.Result]


@contextmanager
def world(config: ServerConfig) -> Iterator[tuple[BlockingPortal, Server]]:
    """There is a stream `orders` with 2 partitions, 5 records in the first, and app `billing`."""
    server = Server(config)
    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(server):
        run = command_line(server.url)
        lines = '{"data": "x", "key": "a"}\n' * 5
        assert run("stream", "create", "orders", "--partitions", "2").exit_code == 0
        assert run("produce", "orders", "--format", "records", text=lines).exit_code == 0
        assert run("app", "create", "billing").exit_code == 0
        yield portal, server


def command_line(url: str) -> Run:
    environment = {"DISSTREAM_ENDPOINT": url, "DISSTREAM_PROJECT_ID": "demo"}

    def run(*arguments: str, text: str = "") -> click.testing.Result:
        return click.testing.CliRunner().invoke(main, arguments, input=text, env=environment)

    return run


def rows(result: click.testing.Result) -> list[list[str]]:
    assert result.exit_code == 0, result.output
    return [line.split("\t") for line in result.stdout.splitlines()]
