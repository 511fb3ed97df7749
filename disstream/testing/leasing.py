"""A lease store in a simulated world: takes time, fails, forgets to answer, as a test says.

Rows live in one `LeaseRows`; each consumer gets a `SimLeases` of its own, a line to them that can be cut. There is no
twin: in simulated time nothing runs in threads, so renewals come from the consumer's own loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random

import anyio

from ..errors import StoreUnavailable
from ..leases.api import Row, Swap


class LeaseRows:
    """What the stores of one world share."""

    def __init__(self) -> None:
        self.apps: dict[str, dict[str, Row]] = {}
        self.version = 0
        self.heed: Callable[[str, Swap, Row | None], None] = lambda app, swap, before: None
        """Told of each change that is made, and what the row was before."""

    def swap(self, app: str, swap: Swap) -> int | None:
        """One change, now."""
        rows = self.apps.setdefault(app, {})
        before = rows.get(swap.key)
        if (before.version if before is not None else None) != swap.expected:
            return None
        self.heed(app, swap, before)
        self.version += 1
        if swap.text is None:
            del rows[swap.key]
        else:
            rows[swap.key] = Row(self.version, swap.text)
        return self.version


class SimLeases:
    """One consumer's line to the rows of its world."""

    def __init__(self, rows: LeaseRows, *, latency_s: float = 0.001, dice: Random | None = None) -> None:
        self.rows = rows
        self.latency_s = latency_s
        self.cut = False
        """Nothing gets through; what is under way is answered by nobody."""
        self.lose = 0.0
        """The share of calls that fail, half of them after their effect."""
        self.late_s = 0.0
        """How much later than its failure a call that was lost may still have its effect."""
        self.reads = 0
        self.swaps: list[Swap] = []
        """That were asked for through this line."""
        self._dice = dice or Random(0)
        self.started = False

    async def start(self) -> None:
        self.started = True

    async def close(self) -> None:
        self.started = False

    async def read(self, app: str, prefix: str = "") -> dict[str, Row]:
        await self._travel()
        self.reads += 1
        found = {key: row for key, row in self.rows.apps.get(app, {}).items() if key.startswith(prefix)}
        await self._travel()
        return found

    async def swap(self, app: str, swaps: Sequence[Swap]) -> list[int | None]:
        self.swaps += swaps
        try:
            await self._travel()
        except StoreUnavailable:
            if self.late_s and not self.cut and self._dice.random() < 0.5:
                self._later(app, swaps)
            raise
        answers = [self.rows.swap(app, swap) for swap in swaps]
        await self._travel()
        return answers

    def twin(self) -> None:
        return None

    async def _travel(self) -> None:
        assert self.started, "a store is started before it is asked"
        await anyio.sleep(self.latency_s / 2)
        if self.cut or self._dice.random() < self.lose / 2:
            raise StoreUnavailable("the lease store cannot be reached")

    def _later(self, app: str, swaps: Sequence[Swap]) -> None:
        """The call was on its way for long: it is made, and nobody waits for the answer any more."""
        delay = self._dice.uniform(0.0, self.late_s)
        asyncio.get_running_loop().call_later(delay, lambda: [self.rows.swap(app, swap) for swap in swaps])
