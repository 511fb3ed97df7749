"""Which lease store an address names: for the command line and configuration files.

memory://    sqlite:///relative/path    sqlite:////absolute/path    postgresql://user:password@host:port/database
redis://host:port/number (rediss:// with TLS)
"""

from __future__ import annotations

from urllib.parse import unquote

from ..errors import ConfigError
from .api import LeaseStore
from .memory import MemoryLeases
from .postgres import PostgresLeases
from .redis import RedisLeases
from .sqlite import SqliteLeases

KINDS = "sqlite:///path, postgresql://user:password@host/database, redis://host:6379/0 or memory://"


def lease_store(url: str) -> LeaseStore:
    """The store, not started. Raises ConfigError for what names none; never with what may be a password."""
    kind, there, rest = url.partition("://")
    if not there:
        raise ConfigError(f"the address of the leases has no '://': give {KINDS}")
    match kind:
        case "memory":
            if rest:
                raise ConfigError(f"{url!r:.80}: leases in memory have no name: give memory://")
            return MemoryLeases()
        case "sqlite":
            if not rest.startswith("/") or rest == "/":
                raise ConfigError(
                    f"{url!r:.200} names no file: give sqlite:///relative/path, or sqlite:////absolute/path with four "
                    "slashes"
                )
            return SqliteLeases(unquote(rest[1:]))
        case "postgresql" | "postgres":
            return PostgresLeases(url)
        case "redis" | "rediss":
            return RedisLeases(url)
        case _:
            raise ConfigError(f"{kind!r:.40} is no kind of lease store: give {KINDS}")
