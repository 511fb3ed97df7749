"""The two ways in: `connect` to a service, `serve` one."""

from __future__ import annotations

import enum
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, overload

from .client import AccessKey, Client, ClientConfig, Credentials, Password, Provider, Token, Transport
from .client.endpoint import is_readable_by_others
from .errors import ConfigError

if TYPE_CHECKING:  # who only produces loads neither the consumer nor the server, and so on
    from .consumer import Consumer, ConsumerConfig, Pattern
    from .producer import ConvertingProducer, Producer, ProducerConfig
    from .server import Server, ServerConfig

log = logging.getLogger("disstream.client")


class _Default(enum.Enum):
    ENVIRONMENT = "the credentials of the environment"


FROM_ENVIRONMENT: Final = _Default.ENVIRONMENT
"""What `connect` takes for credentials nobody gave it; None says: no credentials."""


class DisClient(Client):
    """A client that also makes producers and consumers. See `connect`."""

    @overload
    def producer(self, stream: str, config: ProducerConfig | None = None) -> Producer: ...
    @overload
    def producer(
        self, stream: str, config: ProducerConfig | None = None, *, serializer: Callable[[Any], bytes]
    ) -> ConvertingProducer: ...
    def producer(
        self, stream: str, config: ProducerConfig | None = None, *, serializer: Callable[[Any], bytes] | None = None
    ) -> Producer:
        """A producer for a stream, not started: use it with `async with`, inside the client's.

        `serializer`: that of the config, said here so that type checkers know that `send` takes any value.
        """
        from .producer import ProducerConfig, make_producer

        if serializer is not None:
            config = replace(config or ProducerConfig(), serializer=serializer)
        return make_producer(self, stream, config)

    def consumer(
        self, streams: str | Sequence[str] | Pattern, config: ConsumerConfig | None = None, *, app: str | None = None
    ) -> Consumer:
        """A consumer, not started: use it with `async with`, inside the client's.

        `streams`: a name, several, or a `Pattern`. `app`: consumers of one app share the partitions and go on at the
        app's checkpoints; without one this consumer reads everything, and commits nothing.
        """
        from .consumer import Consumer

        return Consumer(self, streams, config, app=app)


def connect(
    endpoint: str | None = None,
    *,
    project_id: str | None = None,
    credentials: Credentials | Provider | _Default | None = FROM_ENVIRONMENT,
    config: ClientConfig | None = None,
    transport: Transport | None = None,
) -> DisClient:
    """A client for one project of a service, not started: `async with connect(...)`, or `await connect(...).start()`.

    `endpoint`: scheme://host[:port], default $DISSTREAM_ENDPOINT; a path behind it is refused. `project_id`: default
    $DISSTREAM_PROJECT_ID. `transport` stands in for an endpoint; the client closes it. Connects to nothing by itself.

    `credentials`: `AccessKey`, `Token`, `Password`, or an async callable that returns one of them or None and is asked
    about once a minute; None: none are sent. Default: $DISSTREAM_AK and $DISSTREAM_SK (temporary ones with
    $DISSTREAM_SECURITY_TOKEN), else $CLOUD_SDK_AK and $CLOUD_SDK_SK, else $DISSTREAM_TOKEN, else none.

    Raises ConfigError.
    """
    project = project_id or os.environ.get("DISSTREAM_PROJECT_ID")
    if not project:
        raise ConfigError("no project: give connect(project_id=...), or set DISSTREAM_PROJECT_ID")
    if credentials is FROM_ENVIRONMENT:
        credentials = environment_credentials()
    if transport is not None:
        if endpoint is not None:
            raise ConfigError(f"connect got both the endpoint {endpoint!r} and a transport: give one of them")
        return DisClient(transport, project, config, credentials=credentials)
    address = endpoint or os.environ.get("DISSTREAM_ENDPOINT")
    if not address:
        raise ConfigError(
            "no endpoint: give connect('http://127.0.0.1:8080'), or set DISSTREAM_ENDPOINT; "
            "`disstream serve` starts a service there"
        )
    client = DisClient(address, project, config, credentials=credentials)
    for way in (address, credentials.endpoint if isinstance(credentials, Password) else None):
        if credentials is not None and way is not None and is_readable_by_others(way):
            log.warning("credentials without TLS: whoever is on the way to %s can read tokens and records", way)
    return client


def environment_credentials() -> Credentials | None:
    """The credentials that the environment holds, see `connect`. Raises ConfigError for half a pair."""
    for prefix in ("DISSTREAM", "CLOUD_SDK"):
        names = f"{prefix}_AK", f"{prefix}_SK"
        access_key, secret_key = map(os.environ.get, names)
        if access_key and secret_key:
            # The variables named CLOUD_SDK are a custom of the service's samples, which know none for a token.
            security_token = os.environ.get("DISSTREAM_SECURITY_TOKEN") if prefix == "DISSTREAM" else None
            return AccessKey(access_key, secret_key, security_token=security_token or None)
        if access_key or secret_key:
            there, missing = names if access_key else reversed(names)
            raise ConfigError(f"{there} is set, {missing} is not: set both or none of them")
    token = os.environ.get("DISSTREAM_TOKEN")
    return Token(token) if token else None


def serve(config: ServerConfig | None = None) -> Server:
    """A server in this process and event loop, not started: `async with serve(...) as server`, then `server.url`."""
    from .server import Server

    return Server(config)
