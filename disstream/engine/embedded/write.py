"""What a job of the commit thread works with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lmdb

from ..api import PartitionRef
from .environment import Environment
from .partitions import PartitionState

if TYPE_CHECKING:
    from .sweeping import Garbage


class Write:
    """What a job works with: the transaction, and the partitions as this transaction has left them so far.

    What is read in the transaction are views of the file, good until the next write in it.
    """

    def __init__(
        self, env: Environment, txn: lmdb.Transaction[memoryview], states: dict[PartitionRef, PartitionState]
    ) -> None:
        self.env = env
        self.txn = txn
        self._states = states
        self.changed: dict[PartitionRef, PartitionState | None] = {}
        self.garbage: list[Garbage] = []
        self.stored_bytes = 0
        self.stored: list[tuple[int, int, int, int]] = []
        """Slot, first number, rows and bytes of each batch."""

    def state(self, ref: PartitionRef) -> PartitionState | None:
        return self.changed[ref] if ref in self.changed else self._states.get(ref)

    def whose(self, slot: int) -> PartitionRef | None:
        """The partition with that slot; None: it is dropped. Looks through all of them."""
        return next((ref for ref, state in self._states.items() if state.slot == slot), None)

    def set_state(self, ref: PartitionRef, state: PartitionState | None) -> None:
        self.changed[ref] = state
