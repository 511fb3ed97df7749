"""What every engine promises of its catalog, as checks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from ..engine.api import Engine, Entry, Versioned
from ..errors import CatalogConflict, ConfigError
from .checks import LOTS, NOW, A, C, flat, numbered, promise, raises, rows_of, same


async def version_of(engine: Engine, key: str) -> int:
    found = await engine.catalog.get(key)
    return found.version if found else 0


@promise
async def catalog_keeps_bytes(engine: Engine) -> None:
    values = {"a": b"", "b": bytes(range(256)), "c/ü/鍵/🔑": b"x" * 100_000, "\x00": b"zero", "k" * 500: b"long"}
    await engine.catalog.transact({}, values)
    for key, value in values.items():
        found = await engine.catalog.get(key)
        same(found.value if found else None, value, f"value of {key[:20]!r}")
    for absent in ("", "b2", "k" * 501, "k" * 5000, "\ud800"):
        same(await engine.catalog.get(absent), None, f"get of the absent {absent[:20]!r}")


@promise
async def versions_differ_after_each_change(engine: Engine) -> None:
    seen = {0}
    for change in range(6):
        await engine.catalog.transact({"k": await version_of(engine, "k")}, {"k": b"same", "other": b""})
        version = await version_of(engine, "k")
        same(version > 0 and version not in seen, True, f"version {version} is new after change {change}")
        seen.add(version)
        if change % 2:
            await engine.catalog.transact({}, {}, ["k"])
            same(await engine.catalog.get("k"), None, "a deleted key")


@promise
async def a_conflict_changes_nothing(engine: Engine) -> None:
    await engine.catalog.transact({}, {"a": b"1", "b": b"1"})
    a, b = await version_of(engine, "a"), await version_of(engine, "b")
    conflicts = (
        {"a": a, "b": b + 1},
        {"a": a, "b": 0},
        {"absent": 1, "a": a},
        {"k" * 600: 1},
        {"": 1},
    )
    for expect in conflicts:
        call = engine.catalog.transact(expect, {"a": b"2", "new": b"2"}, ["b"])
        await raises(CatalogConflict, call, f"transact that expects {str(expect)[:40]}")
    expected = [("a", Versioned(b"1", a)), ("b", Versioned(b"1", b))]
    same(await engine.catalog.scan(""), expected, "catalog after conflicts")
    await engine.catalog.transact({"a": a, "b": b, "absent": 0, "": 0}, {"a": b"2", "new": b"2"}, ["b", "absent"])
    found = [(key, value.value) for key, value in await engine.catalog.scan("")]
    same(found, [("a", b"2"), ("new", b"2")], "catalog after a transaction of many keys")
    await raises(CatalogConflict, engine.catalog.transact({"b": b}, {"b": b"3"}), "the version before a delete")


@promise
async def one_of_many_concurrent_transactions_wins(engine: Engine) -> None:
    calls = [engine.catalog.transact({"k": 0}, {"k": b"%d" % n, f"trace-{n}": b""}) for n in range(30)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    same([result for result in results if not isinstance(result, CatalogConflict)], [None], "transactions that won")
    same(len(await engine.catalog.scan("")), 2, "keys that the winner left")


@promise
async def a_change_moves_the_revision(engine: Engine) -> None:
    catalog = engine.catalog
    seen = {catalog.revision}
    for put, delete in (({"k": b"1"}, ()), ({"k": b"1"}, ()), ({"other": b""}, ()), ({}, ("k",))):
        await catalog.transact({}, put, delete)
        same(catalog.revision in seen, False, f"revision {catalog.revision} was there before {put} and {delete}")
        seen.add(catalog.revision)
    for number in range(20):
        before = catalog.revision, await version_of(engine, "k")
        cancelled = asyncio.ensure_future(catalog.transact({}, {"k": b"%d" % number}))
        for _ in range(number % 3):
            await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        await engine.log.open({A: number})  # what was asked for before has been done by then
        if await version_of(engine, "k") != before[1]:
            same(catalog.revision != before[0], True, "the revision moved with a change whose caller was cancelled")


@promise
async def who_reads_when_the_revision_moves_misses_nothing(engine: Engine) -> None:
    catalog = engine.catalog
    for number in range(30):
        changing = asyncio.ensure_future(catalog.transact({}, {"k": b"%d" % number}))
        kept: tuple[int, Versioned | None] = (-1, None)
        while not changing.done() or kept[0] != catalog.revision:
            if kept[0] != catalog.revision:
                revision = catalog.revision
                kept = revision, await catalog.get("k")
            await asyncio.sleep(0)
        await changing
        same(kept[1], await catalog.get("k"), f"what was read at revision {kept[0]}")


@promise
async def conflicts_do_not_disturb_neighbours(engine: Engine) -> None:
    await engine.log.open({A: 1})
    calls: list[Awaitable[object]] = []
    for n in range(20):
        calls.append(engine.catalog.transact({"never": 9}, {"never": b""}))
        calls.append(engine.catalog.transact({}, {f"{n:02}": b""}))
        calls.append(engine.log.append([Entry(A, rows_of(n, n + 1), 1), Entry(C, rows_of(0, 1), 1)], NOW))
    await asyncio.gather(*calls, return_exceptions=True)
    same([key for key, _ in await engine.catalog.scan("")], [f"{n:02}" for n in range(20)], "keys put in between")
    same(flat(await engine.log.read(A, 0, LOTS)), numbered(0, 20), "rows appended in between")


@promise
async def impossible_transactions_are_refused(engine: Engine) -> None:
    await raises(ConfigError, engine.catalog.transact({}, {"a": b"", "b": b""}, ["b"]), "a key both put and deleted")
    for key in ("", "k" * 501, "ü" * 251, "\ud800"):
        await raises(ConfigError, engine.catalog.transact({}, {key: b"", "a": b""}), f"put of {key[:10]!r}")
    same(await engine.catalog.scan(""), [], "catalog after refused transactions")
    await engine.catalog.transact({}, {}, ["", "k" * 600, "absent", "\ud800"])


@promise
async def scans_page_in_code_point_order(engine: Engine) -> None:
    # UTF-16 would put U+FFFD behind U+1F511; many locales would mix cases.
    keys = sorted(
        ["a/", "a/B", "a/b", "a/b/c", "a/é", "a/\uffff", "a/\ufffd", "a/\U0001f511", "a/\x00", "A/a", "a0", "b"]
    )
    await engine.catalog.transact({}, {key: key.encode() for key in keys})
    for prefix in ("", "a", "a/", "a/b", "b", "c", "a/\uffff", "a/é", "\ud800", "x" * 600):
        expected = [key for key in keys if key.startswith(prefix)]
        same([key for key, _ in await engine.catalog.scan(prefix)], expected, f"scan({prefix[:9]!r})")
        for limit in (1, 2, 3, 100):
            paged: list[str] = []
            while page := await engine.catalog.scan(prefix, paged[-1] if paged else "", limit):
                same(len(page) <= limit, True, f"a page of {len(page)} stays within {limit}")
                paged += [key for key, _ in page]
            same(paged, expected, f"scan({prefix[:9]!r}) in pages of {limit}")
    for after in ("a/", "a/a", "a/b", "z", "a/\uffff", "a/\ud800", "a/b" + "z" * 600):
        expected = [key for key in keys if key.startswith("a/") and key > after]
        same([key for key, _ in await engine.catalog.scan("a/", after)], expected, f"scan behind {after[:9]!r}")
    same(await engine.catalog.scan("", "", 0), [], "scan of no keys")
    (found,) = await engine.catalog.scan("b")
    same(found, ("b", await engine.catalog.get("b")), "scan and get")
