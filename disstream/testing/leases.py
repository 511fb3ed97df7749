"""The contract of a lease store as checks: one suite for ours and for yours.

    await check_lease_store(lambda name: MyLeases(f"http://127.0.0.1:2379/{name}"))

Each check proves one promise of `disstream.leases.api`. A test runner can take them one by one:

    @pytest.mark.parametrize("check", LEASE_CHECKS, ids=lambda check: check.__name__)
    async def test_contract(check): await check(make)

Here are those of rows and their versions; what is promised to several at once, and of a store's life, is checked in
`lease_races`.
"""

from __future__ import annotations

import random

from ..errors import ConfigError
from ..leases.api import MAX_KEY_BYTES, MAX_KEY_CHARS, MAX_TEXT_CHARS, LeaseStore, Row, Swap
from . import lease_races  # noqa: F401 - it registers its checks
from .checks import raises, same
from .lease_checks import (
    DURABLE_LEASE_CHECKS,
    LEASE_CHECKS,
    LeaseCheck,
    MakeLeases,
    change,
    made,
    promise,
)

__all__ = ["DURABLE_LEASE_CHECKS", "LEASE_CHECKS", "LeaseCheck", "MakeLeases", "check_lease_store"]


async def check_lease_store(make: MakeLeases, *, durable: bool = True) -> None:
    """Run all checks, each on rows of its own. Raises AssertionError that tells the first broken promise.

    `durable`: `make` called twice with a name gives two stores on the same rows, also after all of them were closed.
    """
    for check in LEASE_CHECKS + (DURABLE_LEASE_CHECKS if durable else []):
        await check(make)


@promise
async def a_row_is_made_changed_and_deleted(store: LeaseStore) -> None:
    first = await made(store, "k", "one")
    same(await store.read("app"), {"k": Row(first, "one")}, "rows after one was made")
    second = await change(store, "k", first, "two")
    same(await store.read("app"), {"k": Row(second or -1, "two")}, "rows after it was changed")
    same(await change(store, "k", second, None) is not None, True, "a deletion is answered with a number")
    same(await store.read("app"), {}, "rows after it was deleted")


@promise
async def what_is_not_as_expected_stays(store: LeaseStore) -> None:
    first = await made(store, "k", "one")
    second = await change(store, "k", first, "two") or -1
    for expected in (None, first, second + 1, 0):
        same(await change(store, "k", expected, "bad"), None, f"a change that expects {expected}, not {second}")
    for expected in (first, second + 1, 0):
        same(await change(store, "k", expected, None), None, f"a deletion that expects {expected}, not {second}")
        same(await change(store, "absent", expected, "bad"), None, f"a change of a row that is absent, not {expected}")
        same(await change(store, "absent", expected, None), None, f"a deletion of what is absent, not {expected}")
    same(await store.read("app"), {"k": Row(second, "two")}, "rows after changes that came too late")


@promise
async def versions_grow_and_never_come_back(store: LeaseStore) -> None:
    seen = []
    for turn in range(10):
        seen.append(await made(store, "k", "same"))
        for _ in range(3):
            version = await change(store, "k", seen[-1], "same")
            if version is None:
                raise AssertionError(f"change in turn {turn}: expected a version, found None")
            seen.append(version)
        await change(store, "k", seen[-1], None)
        for old in seen:
            same(await change(store, "k", old, "bad"), None, f"a change with version {old} of a deleted row")
    same(seen, sorted(set(seen)), "versions, in the order in which they were given")
    present = await made(store, "k")
    for old in seen:
        same(await change(store, "k", old, None), None, f"a deletion with version {old} of a row made anew")
    same(await store.read("app"), {"k": Row(present, "")}, "the row that was made anew")


@promise
async def texts_come_back_as_they_were(store: LeaseStore) -> None:
    texts = [
        "",
        " ",
        "=",
        "12 34",
        " 1 x ",
        "a\nb\r\n\tc",
        "'\"\\%_*?[]{}$1;--",
        "ü\u0301鍵\U0001f511",
        "\x01\x7f\ufeff",
        "null",
    ]
    texts += ["x" * MAX_TEXT_CHARS, "\U0001f511" * MAX_TEXT_CHARS, '{"owner": "m-1", "next": 17}']
    given = await store.swap("app", [Swap(f"made {n}", None, text) for n, text in enumerate(texts)])
    for n, text in enumerate(texts):
        changed = await change(store, f"changed {n}", await made(store, f"changed {n}", "before"), text)
        found = await store.read("app", f"changed {n}")
        same(found, {f"changed {n}": Row(changed or -1, text)}, f"the changed text {text[:20]!r}")
    found = await store.read("app", "made")
    expected = {f"made {n}": Row(given[n] or -1, text) for n, text in enumerate(texts)}
    same(found == expected, True, "texts of rows made in one call are as they were")


@promise
async def prefixes_are_taken_literally(store: LeaseStore) -> None:
    keys = [
        "a",
        "a%",
        "a%b",
        "a_",
        "ab",
        "abc",
        "a*",
        "a?c",
        "a[b]",
        "[ab]",
        "a\\",
        "a\\%",
        "a'",
        'a"',
        "A",
        "a ",
        " a",
    ]
    keys += [
        "ä",
        "äb",
        "a\u0308",
        "鍵/1",
        "鍵/2",
        "\U0001f511",
        "\U0001f511/x",
        "\uffff",
        "a/b/0",
        "a/b/1",
        "%",
        "_",
        "*",
        "^a",
    ]
    versions = await store.swap("app", [Swap(key, None, key) for key in keys])
    same(None in versions, False, "each of the keys is another one")
    for prefix in ["", *keys, "a/", "a/b", "x", "[", "鍵", "\\"]:
        found = await store.read("app", prefix)
        expected = {key: Row(version or -1, key) for key, version in zip(keys, versions, strict=True)}
        same(found, {key: expected[key] for key in keys if key.startswith(prefix)}, f"rows that begin with {prefix!r}")


@promise
async def apps_do_not_see_each_other(store: LeaseStore) -> None:
    apps = ["a", "ab", "A", "a:b", "a/b", "a%", "%", "_", "*", "ä", "a ", "a'b", "\U0001f511", "x" * MAX_KEY_CHARS]
    same(await store.read("a"), {}, "rows of an app that nobody has heard of")
    versions = [await made(store, "k", f"of {app}", app) for app in apps]
    for app, version in zip(apps, versions, strict=True):
        same(await store.read(app), {"k": Row(version, f"of {app}")}, f"rows of {app!r:.20}")
    await change(store, "k", versions[0], None, "a")
    for app, version in zip(apps[1:], versions[1:], strict=True):
        same(await store.read(app), {"k": Row(version, f"of {app}")}, f"rows of {app!r:.20} after those of 'a' went")


@promise
async def each_change_of_a_call_is_decided_for_itself(store: LeaseStore) -> None:
    keys = [f"partition/{n}" for n in range(400)]
    before = await store.swap("app", [Swap(key, None, "before") for key in keys])
    asked, expected = [], {}
    for n, (key, version) in enumerate(zip(keys, before, strict=True)):
        match n % 8:
            case 0 | 1 | 2:
                asked.append(Swap(key, version, "after"))
            case 3:
                asked.append(Swap(key, version, None))
            case 4:
                asked.append(Swap(key, (version or 0) - 1, "late"))
            case 5:
                asked.append(Swap(key, None, "late"))
            case 6:
                asked.append(Swap(f"new/{n}", None, "made"))
            case 7:
                asked.append(Swap(f"absent/{n}", version, None if n % 16 == 7 else "late"))
    random.Random(1).shuffle(asked)
    answers = dict(zip([swap.key for swap in asked], await store.swap("app", asked), strict=True))
    for n, (key, version) in enumerate(zip(keys, before, strict=True)):
        late = n % 8 in (4, 5, 7)
        changed = f"new/{n}" if n % 8 == 6 else f"absent/{n}" if n % 8 == 7 else key
        same(answers[changed] is None, late, f"the answer for {changed}, number {n % 8} of eight, is None")
        if n % 8 != 3:
            expected[key] = Row(version or -1, "before")
        if n % 8 in (0, 1, 2, 6):
            expected[changed] = Row(answers[changed] or -1, "made" if n % 8 == 6 else "after")
    same(await store.read("app"), expected, "rows after a call of many changes")


@promise
async def nothing_asked_is_nothing_done(store: LeaseStore) -> None:
    same(await store.swap("app", []), [], "a call without changes")
    same(await store.read("app"), {}, "rows of a new app")
    same(await store.read("app", "x" * MAX_KEY_CHARS), {}, "rows of a new app with a long prefix")


@promise
async def what_no_store_keeps_is_refused(store: LeaseStore) -> None:
    present = await made(store, "k", "kept")
    wide = "\U0001f511" * (MAX_KEY_BYTES // 4)
    for bad in ("", "x" * (MAX_KEY_CHARS + 1), wide + "x", "a\0b", "\ud800"):
        await raises(ConfigError, store.swap(bad, [Swap("k", None, "")]), f"a swap in the app {bad[:9]!r}")
        await raises(ConfigError, store.read(bad), f"a read of the app {bad[:9]!r}")
        call = store.swap("app", [Swap("k", present, "bad"), Swap(bad, None, "bad")])
        await raises(ConfigError, call, f"a swap of the key {bad[:9]!r}")
        if bad:
            await raises(ConfigError, store.read("app", bad), f"a read with the prefix {bad[:9]!r}")
    for bad in ("x" * (MAX_TEXT_CHARS + 1), "a\0b", "\ud800"):
        call = store.swap("app", [Swap("k", present, "bad"), Swap("other", None, bad)])
        await raises(ConfigError, call, f"a swap to the text {bad[:9]!r}")
    twice = [Swap("k", present, "bad"), Swap("k", present, None)]
    await raises(ConfigError, store.swap("app", twice), "two changes of one row")
    await raises(ConfigError, store.swap("app", [Swap("new", None, None)]), "a deletion of what is not there")
    for version in (-1, 2**63):
        await raises(ConfigError, store.swap("app", [Swap("k", version, "bad")]), f"a swap that expects {version}")
    same(await store.read("app"), {"k": Row(present, "kept")}, "rows after refused calls")
    for largest in ("x" * MAX_KEY_CHARS, wide, "".join(map(chr, range(0x4E00, 0x4E00 + MAX_KEY_BYTES // 3)))):
        version = await made(store, largest, "kept", largest)
        same(await store.read(largest, largest), {largest: Row(version, "kept")}, "the largest app and key")
