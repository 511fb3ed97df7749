"""How a client behaves: bodies, time-outs, connections, retries, TLS."""

from __future__ import annotations

import functools
import math
import platform
import ssl as tls
from dataclasses import dataclass
from typing import Literal, get_args

from .. import __version__
from ..errors import ConfigError
from ..wire.compression import COMPRESSIONS, Compression

Body = Literal["auto", "json", "protobuf"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """Settings of one client. Times are seconds."""

    body: Body = "auto"
    """How records travel; all other calls are JSON.

    "auto": as JSON, and from a producer to a server of ours, and from it to whoever reads, as columns, which both sides
    write and read in half the processor time or less (pages: a quarter), and which spare base64, a quarter of the
    bytes. "json": always. "protobuf" spares base64 too, and costs both sides two to three times the processor time per
    record of JSON: for large records and narrow lines to a service that is not ours.
    """
    compression: Compression | None = None
    """Of the records on their way to the service; pages are never compressed. "lz4" and "snappy" are the fastest,
    "zstd" is the smallest. A request that would not shrink goes as it is."""
    request_timeout_s: float = 30.0
    """One exchange from the first byte to the last of the answer: a full put of 5 MiB over a 2 Mbit/s line."""
    connect_timeout_s: float = 5.0
    """A connection, TLS included: a host that answers at all does so after at most two lost packets (1 s, 3 s)."""
    close_timeout_s: float = 10.0
    """How long `close()` lets running calls finish before it cuts them."""
    max_connections: int = 100
    """To the endpoint at once; more calls wait for a free one. Far above what the producer's groups need."""
    keepalive_s: float = 15.0
    """An idle connection is given up after this; well below the 60 s after which load balancers cut it under a put."""
    max_response_bytes: int = 64 * 1024 * 1024
    """A larger answer is refused unread: pages of the service hold 2 MiB, so this is only a guard for memory."""
    attempts: int = 5
    """Tries of a call that may be repeated, the first included. 1: never repeat."""
    retry_base_s: float = 0.1
    """The first pause is drawn from 0 to this, every further one from twice the range (full jitter)."""
    retry_max_s: float = 10.0
    """The widest range a pause is drawn from; a longer Retry-After of the service is still honoured."""
    retry_budget_s: float = 60.0
    """No attempt starts later than this after the call began: somebody is waiting for the answer."""
    user_agent: str | None = None
    """None: `disstream/<version> python/<version>`."""
    ssl: tls.SSLContext | bool = True
    """True: verify against the system's certificates; a context: as it says; False: verify nothing (for tests only)."""
    trust_env: bool = False
    """Honour HTTP_PROXY, HTTPS_PROXY, NO_PROXY and ~/.netrc. Off: a proxy set for browsers should not see records."""

    def __post_init__(self) -> None:
        if self.body not in get_args(Body):
            raise ConfigError(f"ClientConfig.body={self.body!r}: use one of {', '.join(get_args(Body))}")
        if self.compression is not None and self.compression not in COMPRESSIONS:
            raise ConfigError(
                f"ClientConfig.compression={self.compression!r}: use one of {', '.join(COMPRESSIONS)}, or None"
            )
        for name in ("request_timeout_s", "connect_timeout_s", "keepalive_s", "retry_base_s", "retry_max_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"ClientConfig.{name}={value!r} must be a finite number of seconds above 0")
        for name in ("close_timeout_s", "retry_budget_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"ClientConfig.{name}={value!r} must be a finite number of seconds, 0 or more")
        for name in ("max_connections", "max_response_bytes", "attempts"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(f"ClientConfig.{name}={value!r} must be 1 or more")
        if self.retry_max_s < self.retry_base_s:
            raise ConfigError(
                f"ClientConfig.retry_max_s={self.retry_max_s!r} must not be below retry_base_s={self.retry_base_s!r}"
            )
        if self.user_agent is not None and not (self.user_agent.isascii() and self.user_agent.isprintable()):
            raise ConfigError(f"ClientConfig.user_agent={self.user_agent!r} must be printable ASCII: it is a header")


@functools.cache
def default_user_agent() -> str:
    """`disstream/<version> python/<version>`."""
    return f"disstream/{__version__} python/{platform.python_version()}"
