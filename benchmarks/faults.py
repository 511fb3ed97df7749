"""What failures cost an app: worker processes share a stream, and one of them, the server or the lease store fails.

    python benchmarks/faults.py [--runs 5] [--only kill,stop,...] [--sharing group,leases] [--store URL] [--handler]

Each run has a server and workers of its own (session time-out 5 s, commits every second) and 2,000 flights a second;
the workers share the partitions as members of the service's group, or by leases in a SQLite file, or in the store of
--store, which must run already. Each is a loop that fetches, or with --handler a `disstream.Worker` that calls a
handler. What was handled is known from the workers, what was sent from this process; nothing is believed of the
service:

    lost         sent, and handled by nobody                                                          must be 0
    duplicates   handled again; at most what the failed workers handled since their last commit, and the batches in
                 their hands; 0 where nothing fails or nobody takes over
    order        first occurrences of a key out of the order of sending, over all workers             must be 0
    stale        writes in the name of the former owner that are accepted afterwards, and checkpoints
                 that were seen to go back                                                            must be 0
    take-over    from the failure until another worker handled a record of each of its partitions;
                 where nobody takes over: the longest silence of all workers afterwards
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sqlite3
import statistics
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import anyio

from disstream import clock
from disstream.bench.flights import SHIPPED, Row, read_rows
from disstream.bench.machine import describe
from disstream.bench.stage import AUTO_COMMIT_S, COMMIT_SLACK_S, SESSION_TIMEOUT_S, Stage
from disstream.bench.worker import FETCH_RECORDS
from disstream.consumer.rows import LEASES
from disstream.consumer.rows import read_rows as read_lease_rows
from disstream.errors import DisError, StaleGeneration
from disstream.leases import LeaseStore, Swap, lease_store
from disstream.leases.api import Row as StoredRow
from disstream.wire.checkpoints import position

RATE = 2_000
FAILS_AFTER_S = 3.0
STOPPED_S = SESSION_TIMEOUT_S + 4.0
BLOCKED_S = 3 * SESSION_TIMEOUT_S
DOWN_S = 30.0
WATCH_S = 0.25
"""Between two looks at the checkpoints."""

Sharing = Literal["group", "leases"]


class Kind(NamedTuple):
    name: str
    pace_s: float
    workers: int = 2
    partitions: int = 4


KINDS = {
    "kill": Kind("kill -9 of a member", 14.0),
    "stop": Kind(f"SIGSTOP for {STOPPED_S:g} s, then SIGCONT", 18.0),
    "term": Kind("SIGTERM", 9.0),
    "block": Kind(f"handler blocks the loop for {BLOCKED_S:g} s", 23.0),
    "store": Kind(f"who keeps the leases is down for {DOWN_S:g} s", 45.0),
    "restart": Kind("server restart", 12.0),
    "roll": Kind("rolling restart of 3 workers", 30.0, workers=3, partitions=6),
    "scale": Kind("scaled 2 -> 8 -> 3 under load, 3 workers", 24.0, workers=3, partitions=2),
}
TAKEN_OVER = ("kill", "stop", "term")
"""Somebody else goes on with what one worker had."""


@dataclass
class Outcome:
    lost: int
    duplicates: int
    bound: int
    order: int
    stale: int
    seconds: float
    note: str = ""

    @property
    def good(self) -> bool:
        return not (self.lost or self.order or self.stale or self.duplicates > self.bound)


class Trial:
    """One run of one kind."""

    def __init__(self, rows: list[Row], kind: str, sharing: Sharing, *, store: str = "", handler: bool = False) -> None:
        told = KINDS[kind]
        self._kind = kind
        self._leases = sharing == "leases"
        self._stage = Stage(
            rows[: int(RATE * told.pace_s)],
            pace_s=told.pace_s,
            partitions=told.partitions,
            workers=told.workers,
            leases=self._leases,
            store=store,
            handler=handler,
        )
        self._victims: list[str] = []
        self._failed_at = 0.0
        self._generation = 0
        self._former: frozenset[str] = frozenset()
        self._seen: dict[str, StoredRow] = {}
        self._stale = 0
        self._kept = False

    async def run(self) -> Outcome:
        await self._stage.run(self._incident)
        stage, ledger = self._stage, self._stage.ledger
        found = ledger.findings()
        window_s = AUTO_COMMIT_S + COMMIT_SLACK_S
        uncommitted = sum(ledger.busiest(name, window_s, self._failed_at) for name in self._victims)
        note = ""
        if self._kept:
            seconds = ledger.silence_s(self._failed_at)
            note = "stopped in the middle of a change of the store: it kept all"
        elif self._kind in TAKEN_OVER:
            (victim,) = self._victims
            begins_s, skipped = ledger.succession(victim, self._failed_at)
            seconds = max(begins_s.values(), default=float("nan"))
            if skipped or len(begins_s) < len(self._former):
                note = f"not taken over as it should be: {skipped or self._former - begins_s.keys()}"
                self._stale += 1
        else:
            seconds = ledger.silence_s(self._failed_at)
        bound = uncommitted if self._kind in ("kill", "stop", "store") else 0
        if self._kind in ("stop", "store"):
            bound += FETCH_RECORDS * len(self._victims)  # the batches in their hands, which they finish when they go on
        if stage.failures:
            note += f" not stored: {stage.failures}"
        return Outcome(
            lost=found.missing,
            duplicates=found.duplicates - ledger.written_twice(),
            bound=bound,
            order=found.reordered + found.rekeyed + found.changed + found.foreign,
            stale=self._stale,
            seconds=seconds,
            note=note,
        )

    async def _incident(self) -> None:
        stage = self._stage
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch_checkpoints)
            await anyio.sleep(FAILS_AFTER_S)
            victim = stage.victim()
            self._victims = [victim]
            self._former = stage.ledger.owned(victim)
            self._generation = self._generation_of(victim)
            self._seen = await self._stored()
            match self._kind:
                case "kill":
                    self._failed_at = stage.signal(victim, signal.SIGKILL)
                    await stage.until(stage.shared, "the others take over")
                case "stop":
                    self._failed_at = stage.signal(victim, signal.SIGSTOP)
                    await anyio.sleep(STOPPED_S)
                    before = len(stage.ledger.assignments(victim))
                    stage.signal(victim, signal.SIGCONT)
                    await stage.until(
                        lambda: len(stage.ledger.assignments(victim)) > before or self._kept_all(victim),
                        "it joins again, or goes on",
                    )
                case "term":
                    self._failed_at = stage.signal(victim, signal.SIGTERM)
                    await stage.until(stage.shared, "the others take over")
                case "block":
                    self._failed_at = await stage.block(victim, BLOCKED_S)
                    await anyio.sleep(BLOCKED_S + 2.0)
                case "restart":
                    self._failed_at = await stage.restart_server()
                    await anyio.sleep(5.0)
                case "store":
                    await self._store_down()
                case "roll":
                    await self._roll()
                case "scale":
                    self._failed_at = clock.boot()
                    await stage.scale(8)
                    await stage.until(stage.shared, "all hold the new partitions")
                    await anyio.sleep(3.0)
                    await stage.scale(3)
            await self._write_stale(victim)
            tasks.cancel_scope.cancel()

    def _kept_all(self, victim: str) -> bool:
        """Whether it goes on with all it had: it was stopped while it held the store's lock, and nobody could write."""
        ledger = self._stage.ledger
        others = [name for name in self._stage.living if name != victim]
        shared = {partition for name in others for partition in ledger.owned(name)} & self._former
        latest = max((at for at, _ in ledger.events(victim)), default=0.0)
        self._kept = self._leases and not shared and latest > self._failed_at + STOPPED_S + SESSION_TIMEOUT_S / 2
        return self._kept

    async def _store_down(self) -> None:
        """Of a group: the server, with the records. Of leases: the file, which somebody else holds locked."""
        self._victims = self._stage.living
        self._failed_at = clock.boot()
        if self._leases:
            lock = sqlite3.connect(self._stage.store.removeprefix("sqlite:///"), isolation_level=None)
            try:
                lock.execute("BEGIN EXCLUSIVE")
                await anyio.sleep(DOWN_S)
                lock.execute("ROLLBACK")
            finally:
                lock.close()
        else:
            self._stage.signal_server(signal.SIGSTOP)
            await anyio.sleep(DOWN_S)
            self._stage.signal_server(signal.SIGCONT)
        await self._stage.until(self._stage.shared, "all go on")

    async def _roll(self) -> None:
        """As a deployment does: a new one first, then an old one is told to leave, until none is left."""
        self._failed_at = clock.boot()
        self._victims = []
        for name in self._stage.living:
            added = await self._stage.add_worker()
            await self._stage.until(partial(self._holds, added), f"{added} has its share")
            self._stage.signal(name, signal.SIGTERM)
            await self._stage.ended(name)
            await self._stage.until(self._stage.shared, "the others hold all of it")

    def _holds(self, worker: str) -> bool:
        return bool(self._stage.ledger.owned(worker))

    # --- the former owner ---

    def _generation_of(self, worker: str) -> int:
        lines = self._stage.ledger.assignments(worker)
        return lines[-1].generation if lines else -1

    async def _write_stale(self, victim: str) -> None:
        """As the victim would, had it not noticed: in its own name, with what it knew before."""
        if self._leases:
            now = await self._stored()
            moved = [key for key, row in self._seen.items() if key in now and now[key].version != row.version]
            async with _opened(self._stage.store) as store:
                swaps = [Swap(key, self._seen[key].version, self._seen[key].text) for key in moved]
                self._stale += sum(done is not None for done in await store.swap(self._stage.app, swaps))
            return
        living = max(self._generation_of(name) for name in self._stage.living)
        stale = self._generation if living > self._generation else self._generation - 1
        for partition in self._former:
            try:
                await self._stage.dis.checkpoints.commit(
                    self._stage.app, self._stage.stream, partition, 1, member_id=victim, generation=stale
                )
            except StaleGeneration:
                continue
            self._stale += 1

    async def _stored(self) -> dict[str, StoredRow]:
        """The rows of all partitions in the lease store; none in a group."""
        if not self._leases:
            return {}
        async with _opened(self._stage.store) as store:
            return await store.read(self._stage.app, LEASES)

    async def _watch_checkpoints(self) -> None:
        latest: dict[str, int] = {}
        while True:
            try:
                found = await self._checkpoints()
            except DisError:
                found = {}  # the server is being restarted, or the store is down
            for partition, following in found.items():
                self._stale += following < latest.get(partition, 0)
                latest[partition] = following
            await anyio.sleep(WATCH_S)

    async def _checkpoints(self) -> dict[str, int]:
        """Partition -> the number to go on at."""
        if self._leases:
            rows = read_lease_rows(await self._stored()).leases
            kept = {str(key.number): row.kept() for key, row in rows.items()}
        else:
            states = await self._stage.dis.apps.state(self._stage.app, self._stage.stream)
            kept = {state.partition_id: state.checkpoint for state in states}
        return {name: position(checkpoint)[0] for name, checkpoint in kept.items() if checkpoint is not None}


@contextlib.asynccontextmanager
async def _opened(url: str) -> AsyncIterator[LeaseStore]:
    store = lease_store(url)
    await store.start()
    try:
        yield store
    finally:
        await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default=",".join(KINDS), help="comma-separated kinds")
    parser.add_argument("--sharing", default="group,leases", help="group, leases, or both")
    parser.add_argument("--store", default="", metavar="URL", help="a lease store that runs; default: a SQLite file")
    parser.add_argument("--handler", action="store_true", help="each worker is a disstream.Worker")
    arguments = parser.parse_args()
    kinds, ways = arguments.only.split(","), arguments.sharing.split(",")
    if arguments.store and "store" in kinds and "leases" in ways:
        parser.error("store: only a SQLite file can be locked from here; leave it out of --only with --store")
    if arguments.runs < 1:
        parser.error(f"--runs {arguments.runs}: at least 1")
    for given, known in ((kinds, list(KINDS)), (ways, ["group", "leases"])):
        if unknown := set(given) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    rows = read_rows(SHIPPED, "tailnum")
    table = []
    good = True
    for kind in kinds:
        for sharing in ways:
            outcomes: list[Outcome] = []
            for number in range(arguments.runs):
                told = f"{kind}, {sharing}, {number + 1} of {arguments.runs}"
                trial = Trial(rows, kind, sharing, store=arguments.store, handler=arguments.handler)
                try:
                    outcomes.append(anyio.run(trial.run, backend_options={"use_uvloop": True}))
                    print(f"{told}: {outcomes[-1]}", file=sys.stderr, flush=True)
                except* DisError as group:
                    print(f"{told}: not finished: {_causes(group)}", file=sys.stderr, flush=True)
                    good = False
            good = good and all(outcome.good for outcome in outcomes)
            if outcomes:
                table.append(_row(KINDS[kind].name, _way(sharing, arguments.store), outcomes))
    print(
        f"{describe()}; session time-out {SESSION_TIMEOUT_S:g} s, {RATE:,} records/s, {arguments.runs} runs each; "
        "low / median / high"
    )
    print()
    print(
        "| what happens | shared by | runs | lost | duplicates (bound) | order violations | stale writes accepted "
        "| take-over or silence, s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(table))
    if not good:
        sys.exit("a must is broken: see above")


def _causes(group: BaseExceptionGroup[BaseException]) -> str:
    """What the failures in it say."""
    told = [_causes(e) if isinstance(e, BaseExceptionGroup) else str(e) for e in group.exceptions]
    return "; ".join(told)


def _way(sharing: Sharing, store: str) -> str:
    """How the workers shared, with the kind of store if it is not the usual one."""
    return f"{sharing} ({urlsplit(store).scheme})" if store and sharing == "leases" else sharing


def _row(name: str, sharing: str, outcomes: list[Outcome]) -> str:
    def spread(values: list[float], form: str) -> str:
        low, middle, high = min(values), statistics.median(values), max(values)
        return format(low, form) if low == high else " / ".join(format(v, form) for v in (low, middle, high))

    duplicates = spread([o.duplicates for o in outcomes], ",.0f")
    bound = max(o.bound for o in outcomes)
    notes = {o.note.strip() for o in outcomes if o.note}
    return (
        f"| {name} | {sharing} | {len(outcomes)} | {sum(o.lost for o in outcomes)} | {duplicates} ({bound:,}) "
        f"| {sum(o.order for o in outcomes)} | {sum(o.stale for o in outcomes)} "
        f"| {spread([o.seconds for o in outcomes], '.1f')}{' (' + ', '.join(sorted(notes)) + ')' if notes else ''} |"
    )


if __name__ == "__main__":
    main()
