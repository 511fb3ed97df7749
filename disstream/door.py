"""The two ways in: `connect` to a service, `serve` one."""

from __future__ import annotations

import os

from .client import Client, ClientConfig, Transport
from .consumer import Consumer, ConsumerConfig
from .errors import ConfigError
from .producer import Producer, ProducerConfig
from .server import Server, ServerConfig


class DisClient(Client):
    """A client that also makes producers and consumers. See `connect`."""

    def producer(self, stream: str, config: ProducerConfig | None = None) -> Producer:
        """A producer for a stream, not started: use it with `async with`, inside the client's."""
        return Producer(self, stream, config)

    def consumer(self, stream: str, config: ConsumerConfig | None = None) -> Consumer:
        """A consumer of a stream, not started: use it with `async with`, inside the client's."""
        return Consumer(self, stream, config)


def connect(
    endpoint: str | None = None,
    *,
    project_id: str | None = None,
    config: ClientConfig | None = None,
    transport: Transport | None = None,
) -> DisClient:
    """A client for one project of a service, not started: `async with connect(...)`, or `await connect(...).start()`.

    `endpoint`: scheme://host[:port], default $DISSTREAM_ENDPOINT; a path behind it is refused. `project_id`: default
    $DISSTREAM_PROJECT_ID. `transport` stands in for an endpoint; the client closes it. Connects to nothing by itself.
    Raises ConfigError.
    """
    project = project_id or os.environ.get("DISSTREAM_PROJECT_ID")
    if not project:
        raise ConfigError("no project: give connect(project_id=...), or set DISSTREAM_PROJECT_ID")
    if transport is not None:
        if endpoint is not None:
            raise ConfigError(f"connect got both the endpoint {endpoint!r} and a transport: give one of them")
        return DisClient(transport, project, config)
    address = endpoint or os.environ.get("DISSTREAM_ENDPOINT")
    if not address:
        raise ConfigError(
            "no endpoint: give connect('http://127.0.0.1:8080'), or set DISSTREAM_ENDPOINT; "
            "`disstream serve` starts a service there"
        )
    return DisClient(address, project, config)


def serve(config: ServerConfig | None = None) -> Server:
    """A server in this process and event loop, not started: `async with serve(...) as server`, then `server.url`."""
    return Server(config)
