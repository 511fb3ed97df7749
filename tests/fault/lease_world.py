"""Workers that share a stream by leases: the world of `group_world`, with a store whose lines can be cut one by one.

What must never happen is asserted where it would: when a record is handled, and when the store makes a change.
"""

from __future__ import annotations

from group_world import APP, SESSION_S, Worker, World

from disstream.consumer import ConsumerConfig, Leases
from disstream.consumer.leasekeeper import key_of
from disstream.consumer.leasing import Leasing
from disstream.consumer.rows import LeaseRow, lease_key, read_lease, read_rows
from disstream.leases.api import Row, Swap
from disstream.model import Record
from disstream.testing.leasing import LeaseRows, SimLeases
from disstream.testing.network import FaultPlan
from disstream.wire.checkpoints import position


class LeaseWorld(World):
    """`lose`: the share of calls of the store that fail, some of them after their effect, or before a late one."""

    def __init__(self, seed: int, *, plan: FaultPlan | None = None, lose: float = 0.0) -> None:
        super().__init__(seed, plan=plan)
        self.rows = LeaseRows()
        self.rows.heed = self._changed
        self.lose = lose
        self.commits = 0
        self.takeovers = 0

    def line(self) -> SimLeases:
        line = SimLeases(self.rows, latency_s=self.dice.uniform(0.001, 0.1), dice=self.dice)
        line.lose = self.lose
        line.late_s = 10.0 if self.lose else 0.0
        return line

    def _changed(self, app: str, swap: Swap, before: Row | None) -> None:
        if before is None or swap.text is None or not swap.key.startswith("lease/"):
            return
        old, new = read_lease(swap.key, before.text), read_lease(swap.key, swap.text)
        assert new.token >= old.token
        if new.owner != old.owner:
            assert new.token > old.token, "an owner came or went, and the token stayed"
            assert new.checkpoint == old.checkpoint, "who takes over begins where the one before ended"
            assert not old.owner or not new.owner or not self._is_member(old.owner), "taken from a member that lives"
            self.takeovers += bool(new.owner)
        if new.checkpoint != old.checkpoint:
            self._keeps(lease_key(swap.key).number, new)

    def _is_member(self, name: str) -> bool:
        return f"member/{name}" in self.rows.apps[APP]

    def _keeps(self, number: int, row: LeaseRow) -> None:
        checkpoint = row.kept()
        assert checkpoint is not None
        following, _ = position(checkpoint)
        assert following <= self.finished_below[number], f"a checkpoint of {number} covers unfinished work"
        assert following >= self.checkpoints.get(number, 0), f"the checkpoint of {number} went back"
        self.checkpoints[number] = following
        self.commits += 1

    def kept(self) -> dict[int, int]:
        rows = read_rows(self.rows.apps[APP]).leases
        kept = {key.number: row.kept() for key, row in rows.items()}
        return {number: position(checkpoint)[0] for number, checkpoint in kept.items() if checkpoint is not None}


class LeaseWorker(Worker):
    def __init__(self, world: LeaseWorld, name: str) -> None:
        self.line = world.line()
        config = ConsumerConfig(
            coordination=Leases(self.line, mirror_s=None, outage_budget_s=1000.0),
            session_timeout_s=SESSION_S,
            drain_timeout_s=4.0,
            auto_commit_s=world.dice.uniform(0.5, 3.0),
            member_id=name,
            idle_max_s=0.3,
            retry_max_s=1.0,
        )
        super().__init__(world, name, config=config)

    def generation_of(self, record: Record) -> int:
        """The token of its partition."""
        member = self.consumer._member
        assert isinstance(member, Leasing)
        return member._table.leases[key_of(record.partition)].row.token

    async def die(self) -> None:
        self.line.cut = True
        await super().die()
