"""What lease stores refuse and notice: wrong addresses and rights, things of others, rows that are gone."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lease_calls import change, failure, opened, store_of
from lease_servers import PASSWORD, LeaseServer, lease_server

from disstream.errors import ConfigError, StorageError, StoreUnavailable
from disstream.leases import PostgresLeases, RedisLeases, SqliteLeases, Swap


@pytest.fixture(scope="module")
def postgresql() -> Iterator[LeaseServer]:
    with lease_server("postgresql") as running:
        yield running


@pytest.fixture(scope="module")
def redis() -> Iterator[LeaseServer]:
    with lease_server("redis") as running:
        yield running


# --- what will not heal -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["postgresql", "redis"])
async def test_wrong_passwords(kind: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> None:
    """A password that is refused is a ConfigError at the start; neither it nor the right one is told anywhere."""
    caplog.set_level(logging.DEBUG)
    right: LeaseServer = request.getfixturevalue(kind)
    error = await failure(store_of(right.url.replace(PASSWORD, "not-the-s3cr3t"), "wrong").start())
    assert isinstance(error, ConfigError)
    assert str(right.port) in str(error)
    told = "".join(traceback.format_exception(error)) + caplog.text
    assert "s3cr3t" not in told


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:s3cr3t/x@127.0.0.1/d",
        "postgresql://u:s3cr3t@127.0.0.1:s3cr3t/d",
        "mysql://u:s3cr3t@127.0.0.1/d",
        "redis://u:s3cr3t/x@127.0.0.1/0",
        "redis://:s3cr3t@127.0.0.1:s3cr3t/0",
        "redis+x://:s3cr3t@127.0.0.1/0",
        "redis://:s3cr3t@127.0.0.1/0?socket_timeout=s3cr3t",
    ],
)
async def test_addresses_that_cannot_be_read(url: str) -> None:
    """An address that is none is a ConfigError that says what one looks like, and no part of it that may be secret."""
    store = RedisLeases(url) if url.startswith("redis") else PostgresLeases(url)
    error = await failure(store.start())
    assert isinstance(error, ConfigError)
    assert "cannot be read" in str(error)
    assert "s3cr3t" not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize(("kind", "library"), [("postgres", "asyncpg"), ("redis", "redis")])
async def test_libraries_that_are_missing(kind: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library the start says how to install it."""
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    store = RedisLeases("redis://127.0.0.1") if kind == "redis" else PostgresLeases("postgresql://127.0.0.1/d")
    with pytest.raises(ConfigError, match=rf"pip install disstream\[{kind}\]"):
        await store.start()
    await store.close()


# --- PostgreSQL ---------------------------------------------------------------------------------------------------


async def ask(server: LeaseServer, statement: str, *values: object) -> Any:
    """What somebody else does to the database."""
    import asyncpg

    connection = await asyncpg.connect(server.url)
    try:
        return await connection.fetchval(statement, *values)
    finally:
        await connection.close()


@pytest.mark.parametrize("loss", ["DROP TABLE lost", "TRUNCATE lost", "DELETE FROM lost", "remade"])
async def test_a_table_that_was_emptied(postgresql: LeaseServer, loss: str) -> None:
    """A store whose table went says so for good and changes nothing any more; remade, it gives no version again."""
    await ask(postgresql, "DROP TABLE IF EXISTS lost")
    async with opened(PostgresLeases(postgresql.url, table="lost")) as store:
        version = await change(store, "k", None, "")
        await ask(postgresql, "DROP TABLE lost" if loss == "remade" else loss)
        if loss == "remade":
            async with opened(PostgresLeases(postgresql.url, table="lost")):
                pass
        for call in (store.read("app"), store.swap("app", [Swap("new", None, "")]), store.read("app")):
            error = await failure(call)
            assert (type(error), error.retryable) == (StorageError, False)
        if loss in ("TRUNCATE lost", "DELETE FROM lost"):
            with pytest.raises(ConfigError, match="was emptied: drop it"):
                await PostgresLeases(postgresql.url, table="lost").start()
        if loss == "remade":
            async with opened(PostgresLeases(postgresql.url, table="lost")) as other:
                assert await other.read("app") == {}
                assert (await change(other, "k", None, "") or 0) > (version or 0)


async def test_a_server_that_lost_changes(postgresql: LeaseServer) -> None:
    """A sequence that fell back, as after a restore, is ahead again for whoever connects: no version comes twice."""
    async with opened(PostgresLeases(postgresql.url, table="restored")) as store:
        version = await change(store, "k", None, "")
        assert version is not None
        await ask(postgresql, "SELECT setval('restored_version', 1000)")
    async with opened(PostgresLeases(postgresql.url, table="restored")) as store:
        assert (await change(store, "k", version, "") or 0) > version


async def test_schemas_and_rights(postgresql: LeaseServer) -> None:
    """A table may lie in a schema; who has no rights is told what to do, and needs none to make what is there."""
    await ask(postgresql, "CREATE SCHEMA apart")
    await ask(postgresql, "CREATE ROLE guest LOGIN PASSWORD 'guest'")
    guest = postgresql.url.replace(f"disstream:{PASSWORD}", "guest:guest")
    with pytest.raises(ConfigError, match="grant the right"):
        await PostgresLeases(guest, table="apart.leases").start()
    with pytest.raises(ConfigError, match="nowhere"):
        await PostgresLeases(postgresql.url, table="nowhere.leases").start()
    with pytest.raises(ConfigError, match="create the database"):
        await PostgresLeases(postgresql.url.replace("/postgres", "/absent")).start()
    async with opened(PostgresLeases(postgresql.url, table="apart.leases")) as store:
        await change(store, "k", None, "")
        with pytest.raises(ConfigError, match="grant the right"):
            await PostgresLeases(guest, table="apart.leases").start()
        await ask(postgresql, "GRANT USAGE ON SCHEMA apart TO guest")
        await ask(postgresql, "GRANT SELECT, INSERT, UPDATE, DELETE ON apart.leases TO guest")
        await ask(postgresql, "GRANT SELECT, USAGE, UPDATE ON SEQUENCE apart.leases_version TO guest")
        async with opened(PostgresLeases(guest, table="apart.leases")) as other:
            row = (await other.read("app"))["k"]
            assert await change(other, "k", row.version, "changed") is not None


async def test_the_table_that_an_administrator_makes(postgresql: LeaseServer) -> None:
    """docs/leases.md: with its statements, a user who may make nothing can use the table."""
    page = (Path(__file__).parents[2] / "docs" / "leases.md").read_text()
    (statements,) = re.findall(r"^```sql\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    await ask(postgresql, "CREATE ROLE worker LOGIN PASSWORD 'worker'")
    # Not by fetchval, which takes one statement at a time.
    import asyncpg

    connection = await asyncpg.connect(postgresql.url)
    await connection.execute(statements)
    await connection.close()
    worker = postgresql.url.replace(f"disstream:{PASSWORD}", "worker:worker")
    async with opened(PostgresLeases(worker)) as store:
        version = await change(store, "k", None, "")
        assert await change(store, "k", version, None) is not None


async def test_tables_of_others(postgresql: LeaseServer) -> None:
    """A table of another purpose, of a later format, or a name that is none is refused, and left as it is."""
    await ask(postgresql, "CREATE TABLE invoices (id int)")
    with pytest.raises(ConfigError, match="name another table"):
        await PostgresLeases(postgresql.url, table="invoices").start()
    async with opened(PostgresLeases(postgresql.url, table="later")):
        await ask(postgresql, "UPDATE later SET text = '2 x' WHERE app = ''")
    with pytest.raises(ConfigError, match="later version"):
        await PostgresLeases(postgresql.url, table="later").start()
    for name in ("", "A", "a b", 'a"b', "a.b.c", "a;b", "x" * 56, "1a"):
        with pytest.raises(ConfigError, match="table="):
            PostgresLeases(postgresql.url, table=name)


async def test_a_row_that_somebody_locks(postgresql: LeaseServer) -> None:
    """A swap waits for a lock as long as its time-out, then says that it may be repeated; reads go on."""
    import asyncpg

    async with opened(PostgresLeases(postgresql.url, table="locked", timeout_s=1.0)) as store:
        version = await change(store, "k", None, "")
        connection = await asyncpg.connect(postgresql.url)
        async with connection.transaction():
            await connection.execute("SELECT * FROM locked WHERE app = 'app' FOR UPDATE")
            assert isinstance(await failure(change(store, "k", version, "late")), StoreUnavailable)
            assert (await store.read("app"))["k"].version == version
        await connection.close()
        row = (await store.read("app"))["k"]
        assert await change(store, "k", row.version, "after") is not None


async def test_settings_of_the_database_that_would_break_promises(postgresql: LeaseServer) -> None:
    """Answers before the disk has them, or another isolation, are not for a lease store, whatever others have."""
    await ask(postgresql, "ALTER ROLE disstream SET synchronous_commit = 'off'")
    await ask(postgresql, "ALTER ROLE disstream SET default_transaction_isolation = 'serializable'")
    try:
        async with opened(PostgresLeases(postgresql.url, table="durable")) as store:
            assert isinstance(store, PostgresLeases)
            async with store._connection() as connection:
                assert await connection.fetchval("SHOW synchronous_commit") == "on"
                assert await connection.fetchval("SHOW transaction_isolation") == "read committed"
    finally:
        await ask(postgresql, "ALTER ROLE disstream RESET ALL")


# --- Redis --------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def asking(server: LeaseServer) -> AsyncIterator[Any]:
    """What somebody else does to the Redis."""
    import redis.asyncio

    client = redis.asyncio.Redis.from_url(server.url)
    try:
        yield client
    finally:
        await client.aclose()


async def test_a_redis_that_forgot(redis: LeaseServer) -> None:
    """Emptied while it is used, that is told for good, also when somebody began anew in it; no version comes twice."""
    async with opened(RedisLeases(redis.url)) as store:
        version = await change(store, "k", None, "")
        async with asking(redis) as client:
            await client.flushall()
        for attempt in range(3):
            if attempt == 2:
                other = RedisLeases(redis.url)
                await other.start()
            for call in (store.read("app"), store.swap("app", [Swap("new", None, "")])):
                error = await failure(call)
                assert (type(error), error.retryable) == (StorageError, False)
        assert await other.read("app") == {}
        assert (await change(other, "k", None, "") or 0) > (version or 0)
        await other.close()


async def test_a_redis_that_lost_its_last_changes(redis: LeaseServer) -> None:
    """A counter that fell back, as with a replica that lagged, gives no version again."""
    async with opened(RedisLeases(redis.url, prefix="lagged:")) as store:
        version = await change(store, "k", None, "")
        async with asking(redis) as client:
            await client.hset("lagged:leases", "version", "17")
        assert (await change(store, "k", version, "") or 0) > (version or 0)


async def test_a_redis_that_evicts(redis: LeaseServer) -> None:
    """One that may throw leases away when its memory is full is refused, with what to set instead."""
    async with asking(redis) as client:
        await client.config_set("maxmemory", "100mb")
        await client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            with pytest.raises(ConfigError, match="allkeys-lru"):
                await RedisLeases(redis.url).start()
        finally:
            await client.config_set("maxmemory-policy", "noeviction")
            await client.config_set("maxmemory", "0")


async def test_a_redis_with_few_rights(redis: LeaseServer) -> None:
    """Who may run scripts on the keys of leases can use them; who may not is told that it is about rights."""
    async with asking(redis) as client:
        await client.execute_command("ACL", "SETUSER", "few", "on", ">few", "~few:*", "+eval", "+@hash", "+time")
        await client.execute_command("ACL", "SETUSER", "none", "on", ">none", "~none:*", "+@connection")
    url = redis.url.replace(f":{PASSWORD}", "few:few")
    async with opened(RedisLeases(url, prefix="few:")) as store:
        assert await change(store, "k", None, "") is not None
    for wrong in (RedisLeases(url, prefix="other:"), RedisLeases(redis.url.replace(f":{PASSWORD}", "none:none"))):
        with pytest.raises(ConfigError, match="rights"):
            await wrong.start()


async def test_a_redis_of_a_later_format(redis: LeaseServer) -> None:
    """Leases of a later version are refused."""
    async with asking(redis) as client:
        await client.hset("later:leases", mapping={"format": "2", "id": "x"})
    with pytest.raises(ConfigError, match="later version"):
        await RedisLeases(redis.url, prefix="later:").start()


# --- SQLite -------------------------------------------------------------------------------------------------------


def _of_another_purpose(path: Path) -> None:
    import sqlite3

    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE invoices (id)")
        other.commit()


def _of_a_later_version(path: Path) -> None:
    import sqlite3

    with contextlib.closing(sqlite3.connect(path)) as other:
        other.executescript(f"PRAGMA application_id = {0x4449534C}; PRAGMA user_version = 2; CREATE TABLE x (y)")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda path: path.write_bytes(b"no database " * 500), "no SQLite database"),
        (lambda path: path.write_text("x"), "no SQLite database"),
        (lambda path: path.mkdir(), "cannot be opened"),
        (_of_another_purpose, "another purpose"),
        (_of_a_later_version, "later version"),
    ],
)
async def test_files_that_are_no_store(spoil: Callable[[Path], object], told: str, tmp_path: Path) -> None:
    """A file that is something else is refused with the remedy, and left as it is."""
    path = tmp_path / "x.db"
    spoil(path)
    before = path.read_bytes() if path.is_file() else b""
    store = SqliteLeases(path)
    for _ in range(2):
        with pytest.raises(ConfigError, match=told):
            await store.start()
    await store.close()
    assert (path.read_bytes() if path.is_file() else b"") == before


async def test_directories_that_cannot_be_used(tmp_path: Path) -> None:
    """A directory that is absent, or in which nobody may write, is told with its name."""
    for path in (tmp_path / "absent" / "x.db", Path("/proc/x.db"), Path("/proc/version")):
        with pytest.raises(ConfigError, match=path.name):
            await SqliteLeases(path).start()
    for name in ("", "a\0b"):
        with pytest.raises(ConfigError, match="path="):
            SqliteLeases(name)


async def test_a_damaged_file(tmp_path: Path) -> None:
    """Damage is found at the start, before anybody trusts what is left."""
    path = tmp_path / "x.db"
    async with opened(SqliteLeases(path)) as store:
        await store.swap("app", [Swap(f"k{n}", None, "x" * 500) for n in range(200)])
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 20] = bytes([0xA5]) * 4096 * 17
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="damaged"):
        await SqliteLeases(path).start()


async def test_a_file_that_goes(tmp_path: Path) -> None:
    """Deleted or replaced while it is used, a store says so for good instead of writing where nobody looks."""
    path = tmp_path / "x.db"
    for replace in (False, True):
        async with opened(SqliteLeases(path)) as store:
            await change(store, f"k{replace}", None, "")
            for file in tmp_path.iterdir():
                file.unlink()
            if replace:
                async with opened(SqliteLeases(path)):
                    pass
            for call in (store.read("app"), store.swap("app", [Swap("new", None, "")])):
                error = await failure(call)
                assert (type(error), error.retryable) == (StorageError, False)


async def test_an_older_copy_gives_no_version_again(tmp_path: Path) -> None:
    """What was given after a copy was made is given by nobody who goes on with the copy."""
    path, copy = tmp_path / "x.db", tmp_path / "copy.db"
    async with opened(SqliteLeases(path)) as store:
        first = await change(store, "k", None, "")
    shutil.copy(path, copy)
    async with opened(SqliteLeases(path)) as store:
        second = await change(store, "k", first, "lost")
    shutil.copy(copy, path)
    async with opened(SqliteLeases(path)) as store:
        assert await change(store, "k", second, "late") is None
        assert (await change(store, "k", first, "anew") or 0) > (second or 0)


async def test_a_file_that_another_process_holds(tmp_path: Path) -> None:
    """A lock that is held for longer than the time-out fails the swap, which may be repeated; reads go on."""
    import sqlite3

    path = tmp_path / "x.db"
    async with opened(SqliteLeases(path, timeout_s=0.5)) as store:
        version = await change(store, "k", None, "")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for call in (change(store, "k", version, "late"), SqliteLeases(path, timeout_s=0.5).start()):
                error = await failure(call)
                assert isinstance(error, StoreUnavailable)
                assert "held by another process" in str(error)
            assert (await store.read("app"))["k"].version == version
            other.execute("ROLLBACK")
        assert await change(store, "k", version, "after") is not None
