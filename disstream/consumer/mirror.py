"""Brings the checkpoints that the service keeps up to date with those in the rows of leases.

For dashboards and for whoever leaves leases again: nobody reads them first, and a failure costs nothing but their age.
"""

from __future__ import annotations

import anyio

from ..errors import DisError
from .claims import Table
from .keeper import AppSource
from .leasekeeper import partition_of
from .reader import log
from .rows import LeaseKey, LeaseRow

REQUESTS_AT_ONCE = 8


class Mirror:
    def __init__(self, source: AppSource, app: str, table: Table) -> None:
        self._source = source
        self._app = app
        self._table = table
        self._told: dict[LeaseKey, tuple[str, tuple[str, str]]] = {}  # what the service was told last
        self._failing = False

    async def write(self, owner: str) -> None:
        """Tell the service of each partition of `owner` that moved. Raises nothing; as long as the requests take."""
        owned = {key: known.row for key, known in self._table.leases.items() if known.row.owner == owner}
        self._told = {key: told for key, told in self._told.items() if key in owned}
        due = [key for key, row in owned.items() if row.checkpoint and self._told.get(key) != _said(row)]
        failures: list[DisError] = []
        room = anyio.Semaphore(REQUESTS_AT_ONCE)

        async def one(key: LeaseKey, row: LeaseRow) -> None:
            checkpoint = row.kept()
            assert checkpoint is not None
            async with room:
                try:
                    await self._source.checkpoints.commit(
                        self._app,
                        *partition_of(key),
                        checkpoint.sequence_number,
                        metadata=checkpoint.metadata,
                        stream_id=row.stream_id or None,
                    )
                    self._told[key] = _said(row)
                except DisError as error:
                    failures.append(error)

        async with anyio.create_task_group() as tasks:
            for key in due:
                tasks.start_soon(one, key, owned[key], name=f"mirror-{key.stream}-{key.number}")
        if failures and not self._failing:
            log.warning("app %s: the service's checkpoints fall behind those of the leases: %s", self._app, failures[0])
        if due:
            self._failing = bool(failures)


def _said(row: LeaseRow) -> tuple[str, tuple[str, str]]:
    assert row.checkpoint is not None
    return row.stream_id, row.checkpoint
