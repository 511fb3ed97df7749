"""What a consumer needs of whoever decides which partitions it reads, if it does not choose them itself.

`Member` is one: of a group that the service keeps. A membership opens and drops partitions in `Holdings`, and tells by
its lease until when they may be acted for.
"""

from __future__ import annotations

from typing import Protocol

from ..errors import DisError
from .callbacks import Callbacks
from .lease import Lease


class Membership(Protocol):
    member_id: str
    lease: Lease
    callbacks: Callbacks
    rebalances: int
    stall_to_tell: bool
    """The loop was blocked for so long that the partitions were given up, and nobody was told yet."""

    @property
    def holds(self) -> bool:
        """Whether records may be handed out and commits sent now."""

    async def join(self) -> None:
        """Stands before `run`: everything that should fail at the start does so here."""

    async def run(self) -> None:
        """Until cancelled. Raises what will not heal."""

    async def close(self) -> None:
        """`run` was cancelled: give up everything, committing what is finished; nothing in hand is awaited."""

    async def leave(self) -> None:
        """Let the others have it now; bounded, raises nothing. Also without a `close`."""

    async def commit_finished(self) -> None:
        """Commit, and log instead of raising."""

    def heed(self, error: DisError) -> None:
        """A commit was refused."""
