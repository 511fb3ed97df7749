"""Leases of the processes of many hosts: rows in hashes of Redis.

Each call is one Lua script, which Redis runs from its beginning to its end without anything in between.

    <prefix>leases        hash      id: which store this is; format; version: the last one that was given
    <prefix>leases:<app>  hash      key of a row -> "<version> <text>"

Redis may forget what it answered: without persistence all of it, with its usual persistence the last two seconds, and a
replica that takes over lacks what had not reached it. Two things keep that from harm. A version is the last one plus
one, or the time of the server in microseconds if that is more: so versions grow over any loss, and a consumer that was
overtaken stays overtaken. And each call tells the id of the store it was opened on: one that has lost everything has
another or none, and that is reported instead of being taken for an app that has just begun.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from ..errors import ClosedError, ConfigError, StorageError, StoreUnavailable
from .api import Row, Swap
from .rules import DEFAULT_TIMEOUT_S, Life, check_read, check_swaps, check_timeout

FORMAT = "1"
"""Of the hashes; stands beside the id."""

CONNECTIONS = 4
"""A consumer asks one thing at a time, or two."""

# Who starts first makes the store. ARGV: format, id.
_START = """
redis.call('HSETNX', KEYS[1], 'format', ARGV[1])
redis.call('HSETNX', KEYS[1], 'id', ARGV[2])
return redis.call('HMGET', KEYS[1], 'format', 'id')
"""

# ARGV: id, prefix. The prefix is compared here, byte by byte, so that patterns have no meaning in it.
_READ = """
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then return {} end
local rows, found = redis.call('HGETALL', KEYS[2]), {ARGV[1]}
for i = 1, #rows, 2 do
  if string.sub(rows[i], 1, #ARGV[2]) == ARGV[2] then
    found[#found + 1] = rows[i]
    found[#found + 1] = rows[i + 1]
  end
end
return found
"""

# ARGV: id, then for each change its key, the version that is expected ("" for none), and "=" and its text (just "" to
# delete). TIME before writing needs Redis 5, which replicates what a script did rather than the script. Numbers of Lua
# are exact up to 2^53, which the microseconds reach in the year 2255.
_SWAP = """
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then return {} end
local now = redis.call('TIME')
local last = tonumber(redis.call('HGET', KEYS[1], 'version') or '0')
local version = math.max(last, tonumber(now[1]) * 1000000 + tonumber(now[2]))
local answers = {ARGV[1]}
for i = 2, #ARGV, 3 do
  local key, expected, change = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local present = redis.call('HGET', KEYS[2], key)
  local seen = present and string.match(present, '^%d+') or ''
  if seen == expected then
    version = version + 1
    local given = string.format('%.0f', version)
    -- First, so that a script that is cut here has given no version twice.
    redis.call('HSET', KEYS[1], 'version', given)
    if change == '' then
      redis.call('HDEL', KEYS[2], key)
    else
      redis.call('HSET', KEYS[2], key, given .. ' ' .. string.sub(change, 2))
    end
    answers[#answers + 1] = given
  else
    answers[#answers + 1] = ''
  end
end
return answers
"""


class RedisLeases:
    """A lease store in the Redis (5 or later) at `url`: "redis://:password@host:6379/0", "rediss://..." with TLS.

    Its keys begin with `prefix`. `timeout_s`: what a call may take, connecting included. It connects again by itself.
    Not for Redis Cluster, and not for a Redis that evicts keys (`maxmemory-policy` allkeys-...), which is refused.

    Without `appendonly yes` a restart of Redis loses the leases; with it, a crash loses up to two seconds of changes
    unless `appendfsync` is "always". The work of the commits that were lost is then done again.
    """

    def __init__(self, url: str, *, prefix: str = "disstream:", timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        check_timeout(timeout_s)
        self._url = url
        self._prefix = prefix
        self._timeout_s = timeout_s
        self._where = describe(url)
        self._life = Life(f"the lease store in {self._where}")
        self._id = ""
        self._client: Any = None

    async def start(self) -> None:
        with self._life.starting():
            try:
                await self._open()
            except BaseException:
                await self._let_go()
                raise

    async def close(self) -> None:
        self._life.close()
        await self._let_go()

    async def read(self, app: str, prefix: str = "") -> dict[str, Row]:
        self._life.check()
        check_read(app, prefix)
        _, *found = await self._run(_READ, app, prefix)
        rows = {}
        for key, value in zip(found[::2], found[1::2], strict=True):
            version, _, text = value.partition(b" ")
            rows[key.decode()] = Row(int(version), text.decode())
        return rows

    async def swap(self, app: str, swaps: Sequence[Swap]) -> list[int | None]:
        self._life.check()
        check_swaps(app, swaps)
        if not swaps:
            return []
        asked: list[str] = []
        for key, expected, text in swaps:
            asked += (key, "" if expected is None else str(expected), "" if text is None else f"={text}")
        _, *versions = await self._run(_SWAP, app, *asked)
        return [int(version) if version else None for version in versions]

    def twin(self) -> RedisLeases:
        return RedisLeases(self._url, prefix=self._prefix, timeout_s=self._timeout_s)

    async def _open(self) -> None:
        redis = _redis()
        try:
            pool = redis.asyncio.BlockingConnectionPool.from_url(
                self._url,
                max_connections=CONNECTIONS,
                timeout=self._timeout_s,
                socket_timeout=self._timeout_s,
                socket_connect_timeout=self._timeout_s,
                # A swap whose answer was lost would be asked again, and answered "not as expected" by its own success.
                retry=redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0),
                decode_responses=False,
            )
        except (ValueError, TypeError):
            # Not with its cause: what could not be read of an address may be a part of the password.
            raise ConfigError(
                f"the address of {self._where} cannot be read: give redis://user:password@host:port/number, with % "
                "codes for what is special in them"
            ) from None
        self._client = redis.asyncio.Redis.from_pool(pool)
        try:
            await self._check_policy()
            known, store = await self._call("EVAL", _START, 1, f"{self._prefix}leases", FORMAT, str(uuid.uuid4()))
        except StoreUnavailable as exc:
            if isinstance(exc.__cause__, _hopeless()):
                raise ConfigError(f"{exc}: check the address, user, password and rights") from exc.__cause__
            raise
        if known.decode() != FORMAT:
            raise ConfigError(
                f"the leases {self._prefix!r} in {self._where} have format {known.decode()!r}, of a later version of "
                "disstream: upgrade, or give another prefix"
            )
        self._id = store.decode()
        self._life.check_wanted()

    async def _check_policy(self) -> None:
        """Refuse a Redis that throws rows away without saying so. Who may not ask has to know."""
        try:
            memory = await self._call("INFO", "memory")
        except StoreUnavailable as exc:
            if isinstance(exc.__cause__, _redis().exceptions.NoPermissionError):
                return
            raise
        policy = str(memory.get("maxmemory_policy", ""))
        if policy.startswith("allkeys") and int(memory.get("maxmemory", 0)):
            raise ConfigError(
                f"{self._where} evicts keys when its memory is full (maxmemory-policy {policy}), leases too: set a "
                "policy that does not begin with allkeys, or take another Redis"
            )

    async def _run(self, script: str, app: str, *more: str) -> list[bytes]:
        leases = f"{self._prefix}leases"
        answer: list[bytes] = await self._call("EVAL", script, 2, leases, f"{leases}:{app}", self._id, *more)
        if not answer:
            raise StorageError(
                f"{self._where} has lost the leases {self._prefix!r} since they were opened (restarted without "
                "persistence, or flushed?): start their users anew"
            )
        return answer

    async def _call(self, *command: str | int) -> Any:
        redis = _redis()
        client = self._client
        if client is None:
            raise ClosedError(f"the lease store in {self._where} is closed")
        try:
            async with asyncio.timeout(self._timeout_s):
                return await client.execute_command(*command)
        except (TimeoutError, redis.TimeoutError) as exc:
            raise StoreUnavailable(f"{self._where} gave no answer within {self._timeout_s:g} s") from exc
        except (OSError, redis.RedisError) as exc:
            if isinstance(exc, OSError | redis.ConnectionError):
                # The server ended one, so it has ended the others too: each of them would cost a call to find out.
                with suppress(OSError, TimeoutError, redis.RedisError):
                    await client.connection_pool.disconnect(inuse_connections=False)
            raise StoreUnavailable(f"{self._where} cannot be used: {exc}") from exc

    async def _let_go(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        redis = _redis()
        # A connection that cannot say goodbye is gone all the same.
        with suppress(OSError, TimeoutError, redis.RedisError):
            async with asyncio.timeout(self._timeout_s):
                await client.aclose(close_connection_pool=True)


def describe(url: str) -> str:
    """Where it leads, without user, password and options, which may hold secrets."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "Redis"
    if parts.scheme == "unix":
        return f"Redis at {parts.path}"
    return f"Redis at {host or 'localhost'}:{port or 6379}" if parts.scheme else "Redis"


def _redis() -> Any:
    try:
        import redis.asyncio
        import redis.asyncio.retry
        import redis.backoff
    except ImportError:
        raise ConfigError("leases in Redis need redis-py: pip install disstream[redis]") from None
    return redis


def _hopeless() -> tuple[type[Exception], ...]:
    """What no waiting heals."""
    errors = _redis().exceptions
    return (errors.AuthenticationError, errors.AuthorizationError, errors.NoPermissionError, errors.DataError)
