"""How a suspended partition is told to go on: by a checkpoint of an app beside the worker's, `<app>-control`.

Its number means nothing (it is the app's own, so that it is within the stream); its metadata is the order:

    {"disstream_resume":1,"at_ms":1795313465000}

"What was suspended until then may go on." A worker that holds a suspended partition looks there every few seconds, and
nobody looks otherwise. So it takes nothing but calls that every DIS has, needs no worker that listens, and works before
one is started. A second order for the same suspension changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import anyio
import msgspec

from .. import clock
from ..client import Client
from ..errors import ConfigError, DisError, NotFoundError
from ..model import Partition, PartitionState
from ..wire.annotations import read_note
from ..wire.checkpoints import position
from .dispatch import Dispatch
from .lanes import SUSPENDED
from .parking import Parking, Suspension

log = logging.getLogger("disstream.worker")

LOOK_S = 3.0
"""Between two looks for an order, while something is suspended."""

SUFFIX = "-control"
MAX_APP_CHARS = 200


class _Order(msgspec.Struct, frozen=True):
    disstream_resume: int
    at_ms: int


_decoder = msgspec.json.Decoder(_Order)


class Asked(NamedTuple):
    """A partition that was told to go on. `suspension` None: its checkpoint tells of none."""

    partition: Partition
    suspension: Suspension | None


def control_app(app: str) -> str:
    return app[: MAX_APP_CHARS - len(SUFFIX)] + SUFFIX


def suspension_of(state: PartitionState) -> Suspension | None:
    """Why the app's workers do not go on with this partition; None: they may."""
    if state.checkpoint is None:
        return None
    return Parking.read(read_note(position(state.checkpoint)[1]).annotation).suspension


async def ask_to_resume(
    dis: Client,
    app: str,
    stream: str,
    partition_id: str | None = None,
    *,
    states: Sequence[PartitionState] | None = None,
) -> list[Asked]:
    """Tell the workers of `app` to go on: with one partition, or with all of `stream` that are suspended.

    `states`: how far the app is, if somebody else than the service keeps it: of workers that share by leases the
    service learns late, or never, and an order for an older suspension would not be obeyed.

    Raises ConfigError (no such partition), NotFoundError (no such app or stream). A partition that is named is told so
    whether its checkpoint tells of a suspension or not.
    """
    if states is None:
        states = await dis.apps.state(app, stream)
    if partition_id is not None and partition_id not in {state.partition_id for state in states}:
        raise ConfigError(f"{stream} has no {partition_id}, only {', '.join(state.partition_id for state in states)}")
    asked: list[Asked] = []
    for state in states:
        suspension = suspension_of(state)
        if state.partition_id == partition_id or (partition_id is None and suspension is not None):
            if not asked:
                await _ensure(dis, control_app(app))
            at_ms = clock.wall_ms() if suspension is None else suspension.at_ms
            number = state.earliest if state.checkpoint is None else state.checkpoint.sequence_number
            order = msgspec.json.encode(_Order(1, at_ms)).decode()
            await dis.checkpoints.commit(control_app(app), stream, state.partition_id, number, metadata=order)
            asked.append(Asked(Partition(stream, state.partition_id), suspension))
    return asked


async def _ensure(dis: Client, app: str) -> None:
    try:
        await dis.apps.describe(app)
    except NotFoundError:
        try:
            await dis.apps.create(app)
        except DisError:
            await dis.apps.describe(app)  # somebody else made it, or the answer to our first try was lost


async def order_for(dis: Client, app: str, partition: Partition) -> int | None:
    """Until when (ms since 1970) what was suspended may go on; None: there is no order."""
    try:
        checkpoint = await dis.checkpoints.get(control_app(app), *partition)
    except NotFoundError:
        return None
    try:
        return None if checkpoint is None else _decoder.decode(checkpoint.metadata).at_ms
    except msgspec.DecodeError:
        return None


class Orders:
    """Looks for orders while something is suspended."""

    def __init__(self, dis: Client, app: str, dispatch: Dispatch) -> None:
        self._dis = dis
        self._app = app
        self._dispatch = dispatch

    async def run(self) -> None:
        """Until cancelled."""
        dispatch = self._dispatch
        while True:
            dispatch.suspended.clear()
            standing = [p for p, held in dispatch.lanes.partitions.items() if SUSPENDED in held.blocks]
            if not standing:
                await dispatch.suspended.wait()
                await self._commit()
                continue
            for partition in standing:
                await self._look(partition)
            with anyio.move_on_after(LOOK_S):
                await dispatch.suspended.wait()
                await self._commit()

    async def _look(self, partition: Partition) -> None:
        try:
            told = await order_for(self._dis, self._app, partition)
        except DisError as error:
            log.warning("app %s: orders for %s/%s cannot be read: %s", self._app, *partition, error)
            return
        held = self._dispatch.lanes.partitions.get(partition)
        if told is None or held is None or held.parking.suspension is None:
            return
        if told >= held.parking.suspension.at_ms:
            self._dispatch.resumed_ms = max(self._dispatch.resumed_ms, told)
            self._dispatch.resume(partition)

    async def _commit(self) -> None:
        """What was suspended is known to others at once, and to whoever looks."""
        await self._dispatch.commit()
