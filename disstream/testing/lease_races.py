"""What every lease store promises to several who use it at once, and of its life, as checks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from ..errors import ClosedError
from ..leases.api import LeaseStore, Row, Swap
from .checks import raises, same
from .lease_checks import change, durable_promise, made, opened, promise, promise_of_life, promise_of_two

ROUNDS = 300
"""Of a race between two stores."""

# --- several at once ----------------------------------------------------------------------------------------------


@promise_of_two
async def what_was_answered_is_read_by_all(first: LeaseStore, second: LeaseStore) -> None:
    version: int | None = await made(first, "k")
    for turn in range(50):
        writer, reader = (first, second) if turn % 2 else (second, first)
        version = await change(writer, "k", version, str(turn))
        for store in (reader, writer):
            same(await store.read("app"), {"k": Row(version or -1, str(turn))}, f"rows in turn {turn}")


@promise_of_two
async def of_two_exactly_one_wins(first: LeaseStore, second: LeaseStore) -> None:
    version: int | None = None
    for turn in range(ROUNDS):
        texts = [f"first {turn}", f"second {turn}"]
        # Every third round begins with a row that is not there.
        answers = await asyncio.gather(change(first, "k", version, texts[0]), change(second, "k", version, texts[1]))
        same(sum(answer is not None for answer in answers), 1, f"winners of round {turn}: {answers}")
        winner = 0 if answers[0] is not None else 1
        version = answers[winner]
        same(await second.read("app"), {"k": Row(version or -1, texts[winner])}, f"rows after round {turn}")
        if turn % 3 == 2:
            gone = await asyncio.gather(change(first, "k", version, None), change(second, "k", version, None))
            same(sum(answer is not None for answer in gone), 1, f"deletions in round {turn}: {gone}")
            version = None


@promise_of_two
async def calls_that_cross_end(first: LeaseStore, second: LeaseStore) -> None:
    dice = random.Random(1)
    keys = [f"k{n:02}" for n in range(12)]
    for turn in range(40):
        present = await first.read("app")
        asked: list[tuple[LeaseStore, list[Swap]]] = []
        for store in (first, second, first, second):
            swaps: list[Swap] = []
            for key in dice.sample(keys, len(keys)):
                row = present.get(key)
                gone = row is not None and dice.random() < 0.4
                swaps.append(Swap(key, row and row.version, None if gone else f"{turn} {len(asked)}"))
            asked.append((store, swaps))
        answers = await asyncio.gather(*(store.swap("app", swaps) for store, swaps in asked))
        found = await second.read("app")
        for key in keys:
            won = [
                (swap.text, version)
                for (_, swaps), versions in zip(asked, answers, strict=True)
                for swap, version in zip(swaps, versions, strict=True)
                if swap.key == key and version is not None
            ]
            # A row that was deleted is not made again by the others: each expected the version.
            if present.get(key) is None or not any(text is None for text, _ in won):
                same(len(won), 1, f"winners of {key} in round {turn}: {won}")
                ((text, version),) = won
                same(found.get(key), Row(version, text or ""), f"{key} after round {turn}")
            else:
                same((len(won), found.get(key)), (1, None), f"winners of {key}, deleted in round {turn}: {won}")


@promise
async def many_tasks_may_ask_at_once(store: LeaseStore) -> None:
    versions = await asyncio.gather(*(made(store, f"k{n}", str(n)) for n in range(60)))
    same(len(set(versions)), 60, "different versions of rows made at once")
    found = await asyncio.gather(*(store.read("app", f"k{n}") for n in range(60)))
    for n in range(60):
        same(found[n].get(f"k{n}"), Row(versions[n], str(n)), f"row {n}")


@promise
async def a_cancelled_call_leaves_the_store_usable(store: LeaseStore) -> None:
    for turn in range(60):
        present = await store.read("app")
        swaps = [Swap("k", present["k"].version if present else None, str(turn)), Swap(f"new {turn}", None, "")]
        calls = [asyncio.ensure_future(store.swap("app", swaps)), asyncio.ensure_future(store.read("app"))]
        for _ in range(turn % 20):
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        # It may have been made or not, or be made a little later; with this, that is over.
        while True:
            row = (await store.read("app")).get("k")
            version = await change(store, "k", row and row.version, f"after {turn}")
            if version is not None:
                break
        found = await store.read("app")
        same(found["k"], Row(version, f"after {turn}"), f"the row after a call that was cancelled, {turn}")


# --- life ---------------------------------------------------------------------------------------------------------


@promise_of_life
async def it_serves_between_start_and_close(make: Callable[[], LeaseStore]) -> None:
    store = make()
    await raises(ClosedError, store.read("app"), "a read before the start")
    await raises(ClosedError, store.swap("app", [Swap("k", None, "")]), "a swap before the start")
    await store.start()
    await raises(ClosedError, store.start(), "a second start")
    await made(store, "k")
    await store.close()
    await store.close()
    await raises(ClosedError, store.read("app"), "a read after the close")
    await raises(ClosedError, store.swap("app", [Swap("k", None, "")]), "a swap after the close")
    await raises(ClosedError, store.start(), "a start after the close")
    unused = make()
    await unused.close()
    await unused.close()


@promise_of_life
async def a_start_that_was_cancelled_may_be_tried_again(make: Callable[[], LeaseStore]) -> None:
    for turns in range(20):
        store = make()
        start = asyncio.ensure_future(store.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        if start.done() or not start.cancel():
            await start
        else:
            try:
                await start
            except asyncio.CancelledError:
                await store.start()
        await made(store, f"k{turns}", app=f"app {turns}")
        await store.close()


@promise_of_life
async def several_may_start_at_once(make: Callable[[], LeaseStore]) -> None:
    first = make()
    stores = [first, *(first.twin() or make() for _ in range(5))]
    await asyncio.gather(*(store.start() for store in stores))
    answers = await asyncio.gather(*(change(store, "k", None, "") for store in stores))
    same(sum(answer is not None for answer in answers), 1, f"winners among stores that started at once: {answers}")
    await asyncio.gather(*(store.close() for store in stores))


@promise
async def a_twin_serves_another_loop(store: LeaseStore) -> None:
    twin = store.twin()
    if twin is None:
        return
    version = await made(store, "k", "here")

    async def elsewhere() -> int:
        async with opened(twin):
            same((await twin.read("app")).get("k"), Row(version, "here"), "the row that a twin sees")
            changed = await change(twin, "k", version, "there") or -1
            for n in range(100):
                changed = await change(twin, "k", changed, f"there {n}") or -1
            return changed

    there = asyncio.to_thread(asyncio.run, elsewhere())
    here = [made(store, f"k{n}") for n in range(100)]
    changed, *_ = await asyncio.gather(there, *here)
    same((await store.read("app"))["k"], Row(changed, "there 99"), "what a twin in another thread has written")
    same(len(await store.read("app")), 101, "rows written in two threads")


@durable_promise
async def rows_outlive_the_store(make: Callable[[], LeaseStore]) -> None:
    async with opened(make()) as store:
        versions = await store.swap("app", [Swap(f"k{n}", None, f"text {n}") for n in range(30)])
        await change(store, "k7", versions[7], None)
        changed = await change(store, "k8", versions[8], "changed")
    expected = {f"k{n}": Row(versions[n] or -1, f"text {n}") for n in range(30) if n != 7}
    expected["k8"] = Row(changed or -1, "changed")
    async with opened(make()) as store:
        same(await store.read("app"), expected, "rows after reopening")
        same(await change(store, "k8", versions[8], "late"), None, "a change of before, after reopening")
        same(await change(store, "k8", changed, "again") is not None, True, "a change of the row as it is")


@durable_promise
async def versions_do_not_come_back_after_reopening(make: Callable[[], LeaseStore]) -> None:
    seen: list[int] = []
    for _ in range(5):
        async with opened(make()) as store:
            for old in seen:
                same(await change(store, "k", old, "bad"), None, f"a change with version {old} after reopening")
            version = await made(store, "k")
            seen.append(version)
            await change(store, "k", version, None)
    same(seen, sorted(set(seen)), "versions, in the order in which they were given")
