"""A worker is killed while two share a stream: the second part of the demo."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import anyio
import msgspec

from ..errors import DisError
from .chart import Chart
from .check import Findings
from .flights import Row
from .stage import AUTO_COMMIT_S, COMMIT_SLACK_S, SESSION_TIMEOUT_S, Stage

WORKERS = ("worker-1", "worker-2")


class TakeoverReport(msgspec.Struct, frozen=True, kw_only=True):
    """What happened. Times in seconds."""

    sent: int
    acknowledged: int
    failures: dict[str, int]
    findings: Findings
    written_twice: int
    """Duplicates that stand in the stream: the producer repeated a request whose answer was lost."""
    pace_s: float
    session_timeout_s: float
    victim: str
    survivor: str
    killed_after_s: float
    """From the first record sent."""
    begins_s: dict[str, float]
    """The victim's partitions -> seconds from the kill until the survivor handled a record of it."""
    inherited_s: float | None
    """From the kill until the survivor held them all, also those of which no record came any more; None: never."""
    orphans: int
    """Partitions the victim had."""
    skipped: list[str]
    """Partitions in which the survivor began too late."""
    rate: float
    """Records/s of the victim when it was busiest."""
    chart: Chart

    @property
    def repeated(self) -> int:
        """Records that were handled again."""
        return self.findings.duplicates - self.written_twice

    @property
    def bound(self) -> int:
        """How many may have been: those the victim handled after its last commit."""
        return round(self.rate * (AUTO_COMMIT_S + COMMIT_SLACK_S))

    @property
    def good(self) -> bool:
        return (
            self.acknowledged == self.sent
            and self.findings.good
            and self.inherited_s is not None
            and not self.skipped
            and self.repeated <= self.bound
        )


class Takeover:
    """Half-way through the traffic one worker is killed. A display may look at `counts()` while it lasts."""

    def __init__(
        self,
        rows: Sequence[Row],
        *,
        pace_s: float,
        partitions: int = 4,
        session_timeout_s: float = SESSION_TIMEOUT_S,
        data_dir: Path | None = None,
    ) -> None:
        self.total = len(rows)
        self._pace_s = pace_s
        self._session_timeout_s = session_timeout_s
        self._stage = Stage(
            rows, pace_s=pace_s, partitions=partitions, session_timeout_s=session_timeout_s, data_dir=data_dir
        )
        self._victim = ""
        self._killed_at = 0.0

    def counts(self) -> dict[str, int]:
        """Records sent, and handled by each worker; the one that was killed bears it in its name."""
        stats = self._stage.stats()
        counts = {"sent": stats.accepted if stats is not None else 0}
        for name in WORKERS:
            shown = f"{name}, killed" if name == self._victim else name
            counts[shown] = self._stage.ledger.counts.get(name, 0)
        return counts

    async def run(self) -> TakeoverReport:
        """Raises DisError if a process ends that was not killed; whatever happens, no process or file is left."""
        await self._stage.run(self._kill)
        return self._report()

    async def _kill(self) -> None:
        await anyio.sleep(self._pace_s / 2)
        victim = self._stage.victim()
        self._killed_at = self._stage.signal(victim, signal.SIGKILL)
        self._victim = victim

    def _report(self) -> TakeoverReport:
        stage, ledger, victim = self._stage, self._stage.ledger, self._victim
        stats = stage.stats()
        if stats is None:
            raise DisError("the run ended before it began")
        begins_s, skipped = ledger.succession(victim, self._killed_at)
        killed_after_s = self._killed_at - stage.begun_at
        marks = {f"{victim} killed": killed_after_s}
        if begins_s:
            marks["taken over"] = killed_after_s + max(begins_s.values())
        return TakeoverReport(
            sent=self.total,
            acknowledged=stats.stored,
            failures=stage.failures,
            findings=ledger.findings(),
            written_twice=ledger.written_twice(),
            pace_s=self._pace_s,
            session_timeout_s=self._session_timeout_s,
            victim=victim,
            survivor=next(name for name in WORKERS if name != victim),
            killed_after_s=killed_after_s,
            begins_s=begins_s,
            inherited_s=ledger.inherited_s(victim, self._killed_at),
            orphans=len(ledger.owned(victim, self._killed_at)),
            skipped=skipped,
            rate=ledger.busiest(victim, AUTO_COMMIT_S + COMMIT_SLACK_S, self._killed_at)
            / (AUTO_COMMIT_S + COMMIT_SLACK_S),
            chart=Chart(
                duration_s=stage.ended_at - stage.begun_at,
                events={name: [(at - stage.begun_at, n) for at, n in ledger.events(name)] for name in WORKERS},
                marks=marks,
            ),
        )
