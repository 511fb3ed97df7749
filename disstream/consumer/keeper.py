"""Who keeps the checkpoints of what a consumer holds, and what fences them.

`Holdings` decides what a checkpoint says and when; a `Keeper` knows where it goes and whether this consumer may still
write it. The service is one, fenced by the generation of a group or, for a consumer that chose its partitions, by
nothing. A store of leases is another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from .. import clock
from ..errors import DisError, LeaseLost
from ..model import AppInfo, Checkpoint, Partition, PartitionState
from .lease import Lease
from .reader import Source


class AppsApi(Protocol):
    async def create(self, name: str) -> None: ...
    async def describe(self, name: str) -> AppInfo: ...
    async def state(self, name: str, stream: str) -> list[PartitionState]: ...


class CheckpointsApi(Protocol):
    async def commit(
        self,
        app: str,
        stream: str,
        partition_id: str,
        sequence_number: int,
        *,
        metadata: str = "",
        stream_id: str | None = None,
        member_id: str | None = None,
        generation: int | None = None,
    ) -> None: ...


@runtime_checkable
class AppSource(Source, Protocol):
    """What a consumer needs of a client to read for an app."""

    @property
    def apps(self) -> AppsApi: ...
    @property
    def checkpoints(self) -> CheckpointsApi: ...


class Keeper(Protocol):
    """Checkpoints of one app. Failures that may heal are for the caller to try again."""

    async def states(self, stream: str) -> list[PartitionState]:
        """Every partition of the stream with its range and the app's checkpoint, whoever reads it now."""

    @property
    def together(self) -> int:
        """Of how many partitions checkpoints are written with one call."""

    async def keep(self, partition: Partition, checkpoint: Checkpoint) -> None:
        """Write it, unless somebody else may have the partition: LeaseLost (by our own clock), StaleGeneration."""

    async def keep_all(self, checkpoints: Mapping[Partition, Checkpoint]) -> dict[Partition, DisError]:
        """Write these, `together` at most; which were refused, and why. Raises what `keep` would, if that is of all."""


class Fence(NamedTuple):
    """Under which membership commits are made."""

    member_id: str
    lease: Lease


class ServiceKeeper:
    """The checkpoints that the service keeps (API 5.3)."""

    def __init__(self, source: AppSource, app: str, fence: Fence | None = None) -> None:
        self._source = source
        self._app = app
        self._fence = fence

    together = 1
    """The API knows no more in one request."""

    async def states(self, stream: str) -> list[PartitionState]:
        return await self._source.apps.state(self._app, stream)

    async def keep_all(self, checkpoints: Mapping[Partition, Checkpoint]) -> dict[Partition, DisError]:
        for partition, checkpoint in checkpoints.items():
            await self.keep(partition, checkpoint)
        return {}

    async def keep(self, partition: Partition, checkpoint: Checkpoint) -> None:
        fence = self._fence
        generation = None
        if fence is not None:
            generation = fence.lease.generation
            if not fence.lease.holds(clock.boot()):
                raise LeaseLost(f"{partition.partition_id} of {partition.stream!r} may belong to another member by now")
        await self._source.checkpoints.commit(
            self._app,
            partition.stream,
            partition.partition_id,
            checkpoint.sequence_number,
            metadata=checkpoint.metadata,
            member_id=fence.member_id if fence is not None else None,
            generation=generation,
        )
