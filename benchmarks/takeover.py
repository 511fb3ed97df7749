"""What failures cost an app: two worker processes share a stream, and one of them, or the server, fails.

    python benchmarks/takeover.py [--runs 5] [--only kill,stop,term,block,restart]

Each run has a server and two workers of its own (session time-out 5 s, commits every second) and 2,000 flights a
second. What was handled is known from the workers, what was sent from this process; nothing is believed of the service:

    lost         sent, and handled by nobody                                                          must be 0
    duplicates   handled again; at most what the victim handled since its last commit
    order        first occurrences of a key out of the order of sending, over both workers            must be 0
    stale        commits with the victim's old generation that the server accepts afterwards, and
                 checkpoints that were seen to go back                                                must be 0
    take-over    from the failure until another worker handled a record of each of its partitions;
                 for `block` and `restart`, where nobody takes over: the longest silence afterwards
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import anyio

from disstream.bench.flights import SHIPPED, Row, read_rows
from disstream.bench.machine import describe
from disstream.bench.takeover import AUTO_COMMIT_S, COMMIT_SLACK_S, SESSION_TIMEOUT_S, Stage
from disstream.bench.worker import FETCH_RECORDS
from disstream.errors import DisError, StaleGeneration
from disstream.wire.checkpoints import position

RATE = 2_000
FAILS_AFTER_S = 3.0
STOPPED_S = SESSION_TIMEOUT_S + 4.0
BLOCKED_S = 3 * SESSION_TIMEOUT_S
WATCH_S = 0.25
"""Between two looks at the checkpoints."""


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

    def __init__(self, rows: list[Row], kind: str, pace_s: float) -> None:
        self._kind = kind
        self._stage = Stage(rows[: int(RATE * pace_s)], pace_s=pace_s)
        self._victim = ""
        self._failed_at = 0.0
        self._generation = 0
        self._former: frozenset[str] = frozenset()
        self._stale = 0

    async def run(self) -> Outcome:
        await self._stage.run(self._incident)
        stage, ledger = self._stage, self._stage.ledger
        found = ledger.findings()
        window_s = AUTO_COMMIT_S + COMMIT_SLACK_S
        note = ""
        if self._kind in ("block", "restart"):
            # Nobody may take over, so nothing may come twice.
            seconds = ledger.silence_s(self._failed_at, [self._victim])
            bound = 0
            changes = sum(len(ledger.assignments(name)) - 1 for name in ledger.counts)
            expected = ledger.assignments(self._victim)[-1].generation - self._generation
            note = f"{expected} rebalances" if expected or changes > 1 else "no rebalance"
        else:
            begins_s, skipped = ledger.succession(self._victim, self._failed_at)
            seconds = max(begins_s.values(), default=float("nan"))
            bound = 0 if self._kind == "term" else ledger.busiest(self._victim, window_s, self._failed_at)
            if self._kind == "stop":
                bound += FETCH_RECORDS  # the batch in its hands, which it finishes when it goes on
            if skipped or len(begins_s) < len(self._former):
                note = f"not taken over as it should be: {skipped or self._former - begins_s.keys()}"
                self._stale += 1
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
            self._victim = victim = stage.victim()
            self._former = stage.ledger.owned(victim)
            self._generation = stage.ledger.assignments(victim)[-1].generation
            match self._kind:
                case "kill":
                    self._failed_at = stage.signal(victim, signal.SIGKILL)
                    await stage.until(lambda: self._generation_moved(), "the others take over")
                case "stop":
                    self._failed_at = stage.signal(victim, signal.SIGSTOP)
                    await anyio.sleep(STOPPED_S)
                    stage.signal(victim, signal.SIGCONT)
                    await stage.until(lambda: self._generation_of(victim) > self._generation, "it joins again")
                case "term":
                    self._failed_at = stage.signal(victim, signal.SIGTERM)
                    await stage.until(lambda: self._generation_moved(), "the others take over")
                case "block":
                    self._failed_at = await stage.block(victim, BLOCKED_S)
                    await anyio.sleep(BLOCKED_S + 2.0)
                case "restart":
                    self._failed_at = await stage.restart_server()
                    await anyio.sleep(5.0)
            await self._commit_stale()
            tasks.cancel_scope.cancel()

    def _generation_of(self, worker: str) -> int:
        lines = self._stage.ledger.assignments(worker)
        return lines[-1].generation if lines else -1

    def _generation_moved(self) -> bool:
        return any(self._generation_of(name) > self._generation for name in self._stage.living)

    async def _commit_stale(self) -> None:
        """As the victim would, had it not noticed: with its own name and the generation it had."""
        moved = self._generation_moved()
        stale = self._generation if moved else self._generation - 1
        for partition in self._former:
            try:
                await self._stage.dis.checkpoints.commit(
                    self._stage.app, self._stage.stream, partition, 1, member_id=self._victim, generation=stale
                )
            except StaleGeneration:
                continue
            self._stale += 1

    async def _watch_checkpoints(self) -> None:
        latest: dict[str, int] = {}
        while True:
            try:
                states = await self._stage.dis.apps.state(self._stage.app, self._stage.stream)
            except DisError:
                states = []  # the server is being restarted
            for state in states:
                if state.checkpoint is not None:
                    following, _ = position(state.checkpoint)
                    self._stale += following < latest.get(state.partition_id, 0)
                    latest[state.partition_id] = following
            await anyio.sleep(WATCH_S)


KINDS = {
    "kill": ("kill -9 of a member", 14.0),
    "stop": (f"SIGSTOP for {STOPPED_S:g} s, then SIGCONT", 18.0),
    "term": ("SIGTERM", 9.0),
    "block": (f"handler blocks the loop for {BLOCKED_S:g} s", 23.0),
    "restart": ("server restart", 12.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default=",".join(KINDS), help="comma-separated kinds")
    arguments = parser.parse_args()
    kinds = arguments.only.split(",")
    if arguments.runs < 1:
        parser.error(f"--runs {arguments.runs}: at least 1")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    rows = read_rows(SHIPPED, "tailnum")
    table = []
    good = True
    for kind in kinds:
        name, pace_s = KINDS[kind]
        outcomes = []
        for number in range(arguments.runs):
            outcome = anyio.run(_work(rows, kind, pace_s), backend_options={"use_uvloop": True})
            print(f"{kind} {number + 1} of {arguments.runs}: {outcome}", file=sys.stderr, flush=True)
            outcomes.append(outcome)
        good = good and all(outcome.good for outcome in outcomes)
        table.append(_row(name, outcomes))
    print(
        f"{describe()}; session time-out {SESSION_TIMEOUT_S:g} s, {RATE:,} records/s, {arguments.runs} runs each; "
        "low / median / high"
    )
    print()
    print(
        "| what happens | lost | duplicates (bound) | order violations | stale commits accepted "
        "| take-over or silence, s |"
    )
    print("|---|---|---|---|---|---|")
    print("\n".join(table))
    if not good:
        sys.exit("a must is broken: see above")


def _work(rows: list[Row], kind: str, pace_s: float) -> Callable[[], Coroutine[Any, Any, Outcome]]:
    async def work() -> Outcome:
        return await Trial(rows, kind, pace_s).run()

    return work


def _row(name: str, outcomes: list[Outcome]) -> str:
    def spread(values: list[float], form: str) -> str:
        low, middle, high = min(values), statistics.median(values), max(values)
        return format(low, form) if low == high else " / ".join(format(v, form) for v in (low, middle, high))

    duplicates = spread([o.duplicates for o in outcomes], ",.0f")
    bound = max(o.bound for o in outcomes)
    notes = {o.note.strip() for o in outcomes if o.note}
    return (
        f"| {name} | {sum(o.lost for o in outcomes)} | {duplicates} ({bound:,}) | {sum(o.order for o in outcomes)} "
        f"| {sum(o.stale for o in outcomes)} | {spread([o.seconds for o in outcomes], '.1f')}"
        f"{' (' + ', '.join(sorted(notes)) + ')' if notes else ''} |"
    )


if __name__ == "__main__":
    main()
