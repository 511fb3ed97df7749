"""Leases of the processes of many hosts: rows in a table of PostgreSQL.

Each call is one statement on one connection, so it is one transaction, whatever breaks. Of a swap each change is
decided by the row as it is under its lock; those that lost are not in the answer.

    "<table>"            app, key, version, text      what `read` and `swap` are about; and one row of app '' that tells
                                                      which store this is: key 'store', text '<format> <id>'
    "<table>_version"    the sequence of versions

The sequence begins at the time in microseconds, and each new connection moves it there if it is a minute behind. So
versions grow even if the table is made anew, or the server has lost changes: restored from a backup, or replaced by a
replica that lagged. A consumer that was overtaken before stays overtaken. (A server that lost changes ended all
connections, so what is asked afterwards comes over new ones.)
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import ClosedError, ConfigError, StorageError, StoreUnavailable
from .api import Row, Swap
from .rules import DEFAULT_TIMEOUT_S, Life, check_read, check_swaps, check_timeout

FORMAT = 1
"""Of the table; stands in the row that tells which store this is."""

CONNECTIONS = 4
"""A consumer asks one thing at a time, or two; more would take from what a server has for others."""

ATTEMPTS = 5
"""Of a swap that PostgreSQL undid because it and others waited for each other (see `_SWAP`)."""

_TABLE = re.compile(r"(?:[a-z_][a-z0-9_]{0,62}\.)?[a-z_][a-z0-9_]{0,54}")

# Several statements in one message: PostgreSQL runs them as one transaction without asking back, so a client that is
# stopped in the middle leaves no lock to the others.
_CREATE = """
    SELECT pg_advisory_xact_lock(hashtextextended('disstream {sequence}', 0));
    CREATE TABLE IF NOT EXISTS {table} (
        app text NOT NULL, key text NOT NULL, version bigint NOT NULL, text text NOT NULL, PRIMARY KEY (app, key)
    );
    CREATE SEQUENCE IF NOT EXISTS {sequence} OWNED BY {table}.version;
    SELECT setval('{sequence}', (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
        WHERE NOT EXISTS (SELECT FROM {table});
    INSERT INTO {table} SELECT '', 'store', nextval('{sequence}'), '{store}' WHERE NOT EXISTS (SELECT FROM {table});
"""

# One at a time: two that move it at once could move it back.
_CATCH_UP = """
    SELECT pg_advisory_xact_lock(hashtextextended('disstream {sequence}', 0));
    SELECT setval('{sequence}', now_us) FROM {sequence}, LATERAL (
        SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now_us
    ) AS clock WHERE now_us > last_value + 60000000;
"""

_WHICH = "SELECT text FROM {table} WHERE app = '' AND key = 'store'"

_READ = """
    SELECT app, key, version, text FROM {table}
    WHERE app = $1 AND starts_with(key, $2) OR app = '' AND key = 'store'
"""

# What exists is locked in the order of its keys before anything is changed, and rows are made only after that: so two
# swaps do not wait for each other, except where one makes a row that the other is deleting. Counting what a part
# returned makes PostgreSQL finish it first. The parts have names that no table of ours can have.
_SWAP = """
    WITH "Asked" AS (
        SELECT * FROM unnest($2::text[], $3::bigint[], $4::text[]) AS asked (key, expected, text) WHERE ({which}) = $5
    ), "Locked" AS (
        SELECT rows.key, "Asked".expected, "Asked".text FROM {table} AS rows JOIN "Asked" USING (key)
        WHERE rows.app = $1 AND "Asked".expected IS NOT NULL ORDER BY rows.key FOR UPDATE OF rows
    ), "Changed" AS (
        UPDATE {table} AS rows SET version = nextval('{sequence}'), text = "Locked".text FROM "Locked"
        WHERE rows.app = $1 AND rows.key = "Locked".key AND rows.version = "Locked".expected
            AND "Locked".text IS NOT NULL
        RETURNING rows.key, rows.version
    ), "Gone" AS (
        DELETE FROM {table} AS rows USING "Locked"
        WHERE rows.app = $1 AND rows.key = "Locked".key AND rows.version = "Locked".expected
            AND "Locked".text IS NULL
        RETURNING rows.key, rows.version
    ), "Made" AS (
        INSERT INTO {table} (app, key, version, text)
        SELECT $1, key, nextval('{sequence}'), text FROM "Asked"
        WHERE expected IS NULL AND (SELECT count(*) FROM "Changed") + (SELECT count(*) FROM "Gone") >= 0
        ORDER BY key ON CONFLICT DO NOTHING
        RETURNING key, version
    )
    SELECT key, version, NULL AS store FROM "Changed" UNION ALL SELECT key, version, NULL FROM "Gone"
    UNION ALL SELECT key, version, NULL FROM "Made" UNION ALL SELECT NULL, NULL, ({which})
"""


class PostgresLeases:
    """A lease store in the table `table` of the database `dsn` ("postgresql://user:password@host:5432/database").

    The table ("name" or "schema.name", in small letters) is made if need be. `timeout_s`: what a call may take,
    connecting included. It connects again by itself. Through PgBouncer: only if that pools sessions, not transactions.
    """

    def __init__(self, dsn: str, *, table: str = "disstream_leases", timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        check_timeout(timeout_s)
        if not _TABLE.fullmatch(table):
            raise ConfigError(
                f"table={table!r}: give small letters, digits and underscores, 55 at most, with a schema and a dot "
                "before them if need be"
            )
        self._dsn = dsn
        self._table = table
        self._timeout_s = timeout_s
        self._where = f"the table {table} of {describe(dsn)}"
        self._life = Life(f"the lease store in {self._where}")
        self._names = {
            "table": ".".join(f'"{part}"' for part in table.split(".")),
            "sequence": ".".join(f'"{part}"' for part in f"{table}_version".split(".")),
        }
        self._read = self._named(_READ)
        self._swap = self._named(_SWAP, which=self._named(_WHICH))
        self._store = ""
        self._pool: Any = None

    async def start(self) -> None:
        with self._life.starting():
            try:
                await self._open()
            except BaseException:
                await self._let_go()
                raise

    async def close(self) -> None:
        """Wait for calls under way, within the time-out, then end the connections."""
        self._life.close()
        await self._let_go()

    async def read(self, app: str, prefix: str = "") -> dict[str, Row]:
        self._life.check()
        check_read(app, prefix)
        async with self._connection() as connection:
            rows = await connection.fetch(self._read, app, prefix)
        found = {key: Row(version, text) for owner, key, version, text in rows if owner}
        self._check_store(next((text for owner, _, _, text in rows if not owner), None))
        return found

    async def swap(self, app: str, swaps: Sequence[Swap]) -> list[int | None]:
        self._life.check()
        check_swaps(app, swaps)
        if not swaps:
            return []
        columns = list(map(list, zip(*swaps, strict=True)))
        async with self._connection() as connection:
            for attempt in range(ATTEMPTS):
                try:
                    rows = await connection.fetch(self._swap, app, *columns, self._store)
                    break
                except _asyncpg().DeadlockDetectedError:  # undone as a whole, so it may be repeated
                    if attempt + 1 == ATTEMPTS:
                        raise
        versions = {key: version for key, version, _ in rows}
        self._check_store(next((store for key, _, store in rows if key is None), None))
        return [versions.get(swap.key) for swap in swaps]

    def twin(self) -> PostgresLeases:
        return PostgresLeases(self._dsn, table=self._table, timeout_s=self._timeout_s)

    def _named(self, statement: str, **more: str) -> str:
        return statement.format(**self._names, **more)

    def _check_store(self, found: str | None) -> None:
        if found != self._store:
            what = "was emptied" if found is None else "is another one"
            raise StorageError(f"{self._where} {what} since it was opened: start its users anew")

    async def _open(self) -> None:
        asyncpg = _asyncpg()
        try:
            self._pool = asyncpg.create_pool(
                self._dsn,
                min_size=0,  # connects when it is needed, so what is down at one time may be up at the next
                max_size=CONNECTIONS,
                timeout=self._timeout_s,
                command_timeout=self._timeout_s,
                # So that the server too gives up what nobody waits for any more.
                server_settings={
                    "application_name": "disstream",
                    "statement_timeout": str(int(self._timeout_s * 1000) + 1),
                    # In which a change waits for another of its row and then decides by what that left.
                    "default_transaction_isolation": "read committed",
                },
                init=self._prepare,
                reset=_nothing,
            )
            await self._pool
            async with self._connection() as connection:
                await self._create(connection)
            self._life.check_wanted()
        except StorageError as exc:
            if isinstance(exc.__cause__, _hopeless()):
                raise ConfigError(f"{exc}; {_remedy(exc.__cause__)}") from exc.__cause__
            raise

    async def _create(self, connection: Any) -> None:
        """Make the table unless it is there. That is asked first: making it takes rights that using it does not."""
        encoding = await connection.fetchval("SHOW server_encoding")
        if encoding != "UTF8":
            raise ConfigError(f"{describe(self._dsn)} has the encoding {encoding}: create a database with UTF8")
        if await connection.fetchval("SELECT to_regclass($1)::text", self._names["table"]) is None:
            await connection.execute(self._named(_CREATE, store=f"{FORMAT} {uuid.uuid4()}"))
        store = str(await connection.fetchval(self._named(_WHICH)) or "")
        known = store.partition(" ")[0]
        if known != str(FORMAT):
            if known.isdigit():
                raise ConfigError(
                    f"{self._where} has format {known}, of a later version of disstream: name another table"
                )
            raise ConfigError(f"{self._where} holds no leases, or was emptied: drop it, or name another table")
        self._store = store

    async def _prepare(self, connection: Any) -> None:
        """Of each new connection: durable answers, and versions that grow past what the server may have lost."""
        await connection.execute(
            "SELECT set_config('synchronous_commit', 'on', false) "
            "WHERE current_setting('synchronous_commit') IN ('off', 'local')"
        )
        if await connection.fetchval("SELECT to_regclass($1)::text", self._names["sequence"]) is not None:
            await connection.execute(self._named(_CATCH_UP))

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        """A connection for one call. What is not answered in full costs the connection; what fails is told as ours."""
        asyncpg = _asyncpg()
        pool = self._pool
        if pool is None:
            raise ClosedError(f"the lease store in {self._where} is closed")
        try:
            async with asyncio.timeout(self._timeout_s):
                try:
                    connection = await pool.acquire()
                except ValueError:  # asyncpg.ClientConfigurationError is one
                    # Not with its cause: what could not be read of an address may be a part of the password.
                    raise ConfigError(
                        f"the address of {describe(self._dsn)} cannot be read: give "
                        "postgresql://user:password@host:port/database, with % codes for what is special in them"
                    ) from None
                try:
                    yield connection
                except asyncpg.PostgresError:
                    raise  # the server answered: the connection is as good as before
                except BaseException:
                    # Its answer may still come, or never: asking the server to stop and waiting for that has no bound.
                    connection.terminate()
                    raise
                finally:
                    await pool.release(connection)
        except TimeoutError as exc:
            raise StoreUnavailable(f"{self._where} gave no answer within {self._timeout_s:g} s") from exc
        except asyncpg.UndefinedTableError as exc:
            raise StorageError(f"{self._where} is gone: start its users anew") from exc
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
            raise StoreUnavailable(f"{self._where} cannot be used: {_told(exc)}") from exc

    async def _let_go(self) -> None:
        pool, self._pool = self._pool, None
        if pool is None:
            return
        asyncpg = _asyncpg()
        # What cannot say goodbye in time is cut off by then; InterfaceError: it never came to be.
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            async with asyncio.timeout(self._timeout_s):
                await pool.close()


def describe(dsn: str) -> str:
    """Where it leads, without user, password and options, which may hold secrets."""
    try:
        parts = urlsplit(dsn)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "PostgreSQL"
    if not parts.scheme:
        return "PostgreSQL"
    where = f"{unquote(host)}:{port or 5432}" if host else "PostgreSQL"
    return f"{where}/{unquote(parts.path[1:])}" if len(parts.path) > 1 else where


def _asyncpg() -> Any:
    try:
        import asyncpg
    except ImportError:
        raise ConfigError("leases in PostgreSQL need asyncpg: pip install disstream[postgres]") from None
    return asyncpg


def _hopeless() -> tuple[type[Exception], ...]:
    """What no waiting heals."""
    asyncpg = _asyncpg()
    return (
        asyncpg.InvalidAuthorizationSpecificationError,  # the password too
        asyncpg.InvalidCatalogNameError,
        asyncpg.InvalidSchemaNameError,
        asyncpg.InsufficientPrivilegeError,
        asyncpg.UndefinedColumnError,
        asyncpg.UndefinedTableError,
        asyncpg.WrongObjectTypeError,
    )


def _remedy(exc: BaseException) -> str:
    asyncpg = _asyncpg()
    if isinstance(exc, asyncpg.InvalidAuthorizationSpecificationError):
        return "check user and password"
    if isinstance(exc, asyncpg.InvalidCatalogNameError):
        return "create the database, or name another"
    if isinstance(exc, asyncpg.InsufficientPrivilegeError):
        return "grant the right, or let somebody who has it make the table (docs/leases.md)"
    return "name another table"


def _told(exc: Exception) -> str:
    return str(exc) or type(exc).__name__


async def _nothing(connection: Any) -> None:
    """Between two uses of a connection: a statement leaves nothing behind that had to be reset."""
