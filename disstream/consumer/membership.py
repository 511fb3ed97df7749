"""What a consumer needs of whoever decides which partitions it reads, if it does not choose them itself.

`Member` is one: of a group that the service keeps. `Leasing` is another: through a store. A membership opens and drops
partitions in `Holdings`, and tells by its lease until when they may be acted for.
"""

from __future__ import annotations

import os
import re
import socket
from random import Random
from typing import Protocol

from ..errors import DisError
from .callbacks import Callbacks
from .lease import Lease

LEAVE_TIMEOUT_S = 3.0
"""For telling the others that this member leaves; if that fails they wait for the session time-out."""

CLOSE_COMMIT_S = 10.0
"""For the last commit of a close."""

COMMIT_SHARE = 0.2
"""Of what is left of the lease when a hand-over begins, kept for its commit."""


class Membership(Protocol):
    member_id: str
    lease: Lease
    callbacks: Callbacks
    stall_to_tell: bool
    """The loop was blocked for so long that the partitions were given up, and nobody was told yet."""

    @property
    def rebalances(self) -> int:
        """Assignments taken over so far, or how often partitions came or went."""

    @property
    def generation(self) -> int | None:
        """Of the group; None if there is none, or before an assignment."""

    @property
    def lapses(self) -> int:
        """How often the lease ran out, or stood still, because nothing was answered in time."""

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


def new_member_id(rng: Random) -> str:
    """Host, process and a random part."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:60]
    return f"{host or 'host'}-{os.getpid()}-{rng.getrandbits(48):012x}"
