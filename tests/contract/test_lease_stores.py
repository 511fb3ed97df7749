"""Every lease store keeps the contract of `disstream.leases.api`: memory, SQLite, real PostgreSQL and Redis servers."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from lease_calls import opened
from lease_servers import LeaseServer, lease_server

from disstream.errors import ConfigError, StorageError, StoreUnavailable
from disstream.leases import (
    LeaseStore,
    MemoryLeases,
    PostgresLeases,
    RedisLeases,
    Row,
    SqliteLeases,
    Swap,
    lease_store,
)
from disstream.testing import check_lease_store
from disstream.testing.leases import DURABLE_LEASE_CHECKS, LEASE_CHECKS, LeaseCheck, MakeLeases

ALL = LEASE_CHECKS + DURABLE_LEASE_CHECKS


@pytest.fixture(scope="session")
def postgresql() -> Iterator[LeaseServer]:
    with lease_server("postgresql") as server:
        yield server


@pytest.fixture(scope="session")
def redis() -> Iterator[LeaseServer]:
    with lease_server("redis") as server:
        yield server


def _name(check: LeaseCheck) -> str:
    return check.__name__


def _twins() -> MakeLeases:
    """Rows of a name are those of one store, of which everybody gets a twin."""
    stores: dict[str, MemoryLeases] = {}
    return lambda name: stores.setdefault(name, MemoryLeases()).twin()


@pytest.mark.parametrize("check", ALL, ids=_name)
async def test_memory(check: LeaseCheck) -> None:
    """The memory store keeps one promise; its twins keep the durable ones too."""
    await check(_twins())


@pytest.mark.parametrize("check", ALL, ids=_name)
async def test_sqlite(check: LeaseCheck, tmp_path: Path) -> None:
    """The store in a file keeps one promise."""
    await check(lambda name: SqliteLeases(tmp_path / name))


@pytest.mark.parametrize("check", ALL, ids=_name)
async def test_postgres(check: LeaseCheck, postgresql: LeaseServer) -> None:
    """The store in a PostgreSQL keeps one promise."""
    await check(lambda name: PostgresLeases(postgresql.url, table=name))


@pytest.mark.parametrize("check", ALL, ids=_name)
async def test_redis(check: LeaseCheck, redis: LeaseServer) -> None:
    """The store in a Redis keeps one promise."""
    await check(lambda name: RedisLeases(redis.url, prefix=f"{name}:"))


async def _compare(kind: str, store: LeaseStore, seed: int) -> None:
    """Give a store and the oracle the same random calls, late versions among them; what they answer means the same."""
    dice = random.Random(f"{kind} {seed}")
    keys = ["a", "a/1", "a/2", "b%", "ü", "\U0001f511"]
    memory = MemoryLeases()
    # Versions are each store's own: compared by what they mean, when used as an expectation.
    given: dict[tuple[str, str], list[tuple[int, int]]] = {}
    async with opened(memory), opened(store):
        for step in range(150):
            app = dice.choice(["app", "ap"])
            mine, its = [], []
            for key in dice.sample(keys, dice.randrange(1, len(keys) + 1)):
                text = dice.choice([None, "", f"text {step}"])
                seen = given.get((app, key), [])
                # The newest mostly, so that something happens; an old one, or none, now and then.
                expected = seen[-1] if seen and dice.random() < 0.7 else dice.choice([*seen, None])
                if expected is None and text is None:
                    text = "made"
                mine.append(Swap(key, expected and expected[0], text))
                its.append(Swap(key, expected and expected[1], text))
            answers = await memory.swap(app, mine), await store.swap(app, its)
            for swap, version, other in zip(mine, *answers, strict=True):
                assert (version is None) == (other is None), f"seed {seed}, step {step}: {swap}"
                if version is not None and other is not None and swap.text is not None:
                    given.setdefault((app, swap.key), []).append((version, other))
            prefix = dice.choice(["", "a", "a/", "b", "b%", "ü"])
            found, other_found = await memory.read(app, prefix), await store.read(app, prefix)
            assert {key: row.text for key, row in found.items()} == {key: row.text for key, row in other_found.items()}
            for key, row in found.items():
                assert given[app, key][-1] == (row.version, other_found[key].version)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "redis"])
async def test_stores_answer_as_memory(kind: str, seed: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A store answers 150 random calls as the oracle does."""
    if kind == "sqlite":
        await _compare(kind, SqliteLeases(tmp_path / "x"), seed)
    elif kind == "redis":
        await _compare(kind, RedisLeases(request.getfixturevalue("redis").url, prefix=f"compare {seed}:"), seed)
    else:
        url = request.getfixturevalue("postgresql").url
        await _compare(kind, PostgresLeases(url, table=f"compare_{seed}"), seed)


def test_the_example_of_the_page(tmp_path: Path) -> None:
    """docs/leases.md: the check of a store of one's own runs as written."""
    page = (Path(__file__).parents[2] / "docs" / "leases.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (block,) = (block for block in blocks if "check_lease_store" in block)
    subprocess.run([sys.executable, "-W", "error", "-c", block], cwd=tmp_path, check=True, timeout=120)


class _Careless(MemoryLeases):
    """Changes rows without looking at their versions."""

    async def swap(self, app: str, swaps: Sequence[Swap]) -> list[int | None]:
        present = await self.read(app)
        seen = [(present[swap.key].version if swap.key in present else None) for swap in swaps]
        asked = [swap._replace(expected=version) for swap, version in zip(swaps, seen, strict=True)]
        return await super().swap(app, asked)


class _Mixed(MemoryLeases):
    """Shows the rows of apps whose names begin alike."""

    async def read(self, app: str, prefix: str = "") -> dict[str, Row]:
        return {**await super().read(app, prefix), **await super().read("a", prefix)}


class _Small(MemoryLeases):
    """Cuts what is long."""

    async def swap(self, app: str, swaps: Sequence[Swap]) -> list[int | None]:
        return await super().swap(app, [swap._replace(text=swap.text and swap.text[:9_999]) for swap in swaps])


class _AllOrNothing(MemoryLeases):
    """Refuses a whole call for one change that is late."""

    async def swap(self, app: str, swaps: Sequence[Swap]) -> list[int | None]:
        present = await self.read(app)
        late = [key for key, expected, _ in swaps if (present[key].version if key in present else None) != expected]
        return [None] * len(swaps) if late else await super().swap(app, swaps)


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (_Careless, "winners of k00 in round 0"),
        (_Mixed, "rows of 'ab'"),
        (_Small, "texts of rows|the changed text"),
        (_AllOrNothing, "the answer for"),
    ],
)
async def test_check_lease_store_finds_what_is_broken(broken: type[MemoryLeases], told: str) -> None:
    """The suite raises on stores that break one promise each, and tells which: it is no rubber stamp."""
    with pytest.raises(AssertionError, match=told):
        await check_lease_store(lambda name: broken(), durable=False)


async def test_check_lease_store_finds_a_store_that_forgets() -> None:
    """Fresh rows behind an old name are no durable store, and are fine where nobody asked for one."""
    await check_lease_store(lambda name: MemoryLeases(), durable=False)
    with pytest.raises(AssertionError, match="after reopening"):
        await check_lease_store(lambda name: MemoryLeases())


def test_addresses_name_stores(tmp_path: Path) -> None:
    """Each kind of address gives its store; what it says of a store shows no password."""
    kinds = {
        "memory://": MemoryLeases,
        "sqlite:///leases.db": SqliteLeases,
        f"sqlite:///{tmp_path}/a%20b.db": SqliteLeases,
        "postgresql://u:secret@h/d": PostgresLeases,
        "postgres://h/d": PostgresLeases,
        "redis://:secret@h:1/2": RedisLeases,
        "rediss://h": RedisLeases,
    }
    for url, kind in kinds.items():
        store: LeaseStore = lease_store(url)
        assert type(store) is kind
        assert "secret" not in repr(store)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("leases.db", "no '://'"),
        ("", "no '://'"),
        ("mysql://u:secret@h/d", "'mysql' is no kind"),
        ("sqlite://leases.db", "sqlite:///relative"),
        ("sqlite:///", "names no file"),
        ("memory://x", "memory://"),
    ],
)
def test_addresses_that_name_none(url: str, told: str) -> None:
    """A wrong address is refused with what to give instead, and without what may be secret."""
    with pytest.raises(ConfigError, match=told) as caught:
        lease_store(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf")])
def test_timeouts_that_are_none(timeout_s: float, tmp_path: Path) -> None:
    """A time-out that never or always strikes is refused by all stores."""
    for make in (
        lambda: SqliteLeases(tmp_path / "x", timeout_s=timeout_s),
        lambda: PostgresLeases("postgresql://h/d", timeout_s=timeout_s),
        lambda: RedisLeases("redis://h", timeout_s=timeout_s),
    ):
        with pytest.raises(ConfigError, match="timeout_s="):
            make()


def test_unavailable_says_what_callers_ask() -> None:
    """What passes by itself says so, and that it may have happened; a StorageError as such does neither."""
    assert (StoreUnavailable.retryable, StoreUnavailable.outcome_unknown) == (True, True)
    assert (StorageError.retryable, StorageError.outcome_unknown) == (False, False)
