"""Dead letters shown, sent back to where they came from, or discarded.

Letters of a key are sent in the order they were written. What was sent is marked, so that nothing is sent by the next
run again; who is killed between the two sends up to CHUNK_LETTERS of them twice. Two runs at once on one stream do too.

A letter of a parked key travels in an envelope, with headers by which the worker lets it through (parking.py). More
records of the key may have followed into the dead letters meanwhile: then the key stays parked, and they are sent in
another round, until the worker's checkpoint says that the key is not parked any more. What fails again is not sent
again by the same run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import anyio

from ..door import DisClient
from ..errors import ConfigError, DeliveryFailed, NotFoundError
from ..model import Checkpoint, Partition
from ..producer import Delivery, Envelope, Producer, ProducerConfig, Receipt
from ..wire.annotations import read_note
from ..wire.checkpoints import position
from .letters import Identity, Letter
from .parking import Parking
from .plan import Group, Outgoing, Plan, Selection
from .reading import Box, Foreign

MAX_ROUNDS = 20
"""A key whose records come faster than they are sent back is left parked after so many."""

CHUNK_LETTERS = 500
CHUNK_BYTES = 4 * 1024 * 1024

POLL_S = 1.0
"""How often it is looked whether a worker has come so far: workers commit every few seconds."""

Kept = Callable[[str, Partition], Awaitable[Checkpoint | None]]
"""An app's checkpoint of a partition."""

ENVELOPE = ProducerConfig(envelope=Envelope(aggregate_records=1, identity=False))
"""An envelope around what has headers, and around nothing else."""


@dataclass(slots=True)
class Report:
    """What became of it."""

    letters: int = 0
    """That are there, doubles not counted."""
    doubles: int = 0
    settled: int = 0
    """Sent back or discarded in this run."""
    expired: int = 0
    """Retention took them before they could be sent."""
    unsendable: list[tuple[Letter, str]] = field(default_factory=list)
    foreign: list[Foreign] = field(default_factory=list)
    """The first few of what is no letter."""
    foreign_count: int = 0
    unparked: set[Group] = field(default_factory=set)
    unwatched: int = 0
    """Keys whose letters were all sent; whether that has unparked them was not looked at."""
    parked: dict[Group, str] = field(default_factory=dict)
    """Keys that stay parked, and why."""
    left_behind: dict[Group, int] = field(default_factory=dict)
    """Keys that stay parked because so many letters of theirs were not selected."""


MAX_FOREIGN = 5
"""That a report shows."""


async def browse(
    box: Box, selection: Selection, show: Callable[[Letter, bool], None], *, settled: bool, limit: int | None = None
) -> Report:
    """Call `show(letter, is settled)` for the selected letters, doubles left out. `settled`: those too."""
    report = Report()
    plan = await _look(box, Plan(selection), report)
    seen: set[Identity] = set()
    shown = 0
    reading = box.reading()
    while (limit is None or shown < limit) and (found := await reading.next()) is not None:
        if isinstance(found, Letter) and selection.takes(found) and found.identity not in seen:
            seen.add(found.identity)
            done = plan.is_settled(found.identity)
            if settled or not done:
                show(found, done)
                shown += 1
    return report


async def _look(box: Box, plan: Plan, report: Report) -> Plan:
    """The first look. Raises ConfigError where there are no letters at all, but something else is."""
    await box.look()
    reading = box.reading()
    foreign: list[Foreign] = []
    report.foreign_count = 0
    while (found := await reading.next()) is not None:
        if not isinstance(found, Foreign):
            plan.note(found)
            continue
        report.foreign_count += 1
        if len(foreign) < MAX_FOREIGN:
            foreign.append(found)
    plan.decide()
    report.letters, report.doubles, report.foreign = plan.letters, plan.doubles, foreign
    if foreign and not plan.letters:
        raise ConfigError(
            f"{box.name} holds no dead letters: {report.foreign_count} of something else, "
            f"the first in {foreign[0].place}: {foreign[0].reason}"
        )
    return plan


class Redrive:
    """One run."""

    def __init__(
        self,
        dis: DisClient,
        box: Box,
        selection: Selection,
        *,
        limit: int | None = None,
        to_stream: str | None = None,
        discard: bool = False,
        rate: float | None = None,
        wait_s: float = 60.0,
        kept: Kept | None = None,
    ) -> None:
        """`to_stream`: send copies there, mark nothing, leave keys parked. `discard`: mark them, and send only
        what unparks keys.

        `rate`: letters a second at most. `wait_s`: how long to wait, in each round, for a worker to handle what was
        sent; 0: it is not looked whether keys are unparked. `kept`: an app's checkpoint, if somebody else than the
        service keeps it.
        """
        self._dis = dis
        self._box = box
        self._selection = selection
        self._limit = limit
        self._to_stream = to_stream
        self._discard = discard
        self._rate = rate
        self._wait_s = wait_s
        self._kept = kept or self._checkpoint
        self._producers: dict[str, Producer] = {}
        self._stack = AsyncExitStack()
        self._next_at = 0.0
        self._lasts: dict[Group, Receipt] = {}
        """Keys whose last letter was sent in this round, and where it is stored."""
        self.report = Report()

    async def run(self) -> Report:
        """Raises ConfigError, ApiError, TransportError, and DeliveryFailed for the first letter that was not stored;
        what was stored before is marked. `report` tells how far it came."""
        async with self._stack:
            only: frozenset[Group] | None = None
            for _ in range(MAX_ROUNDS):
                plan = await self._round(only)
                for group in plan.failed_again:
                    self.report.parked[group] = "a record of it failed again"
                self.report.left_behind |= plan.left_behind()
                if not self._wait_s:
                    self.report.unwatched = len(self._lasts)
                if not self._lasts or not self._wait_s:
                    break
                only = await self._unparked()
                if not only or self._discard:  # what followed meanwhile, nobody has discarded
                    break
            else:
                self.report.parked |= dict.fromkeys(only or (), "its records come faster than they are sent back")
            return self.report

    async def _round(self, only: frozenset[Group] | None) -> Plan:
        plan = Plan(self._selection, limit=self._limit, only=only, discard=self._discard)
        await _look(self._box, plan, self.report)
        self._lasts = {}
        taken = 0
        chunk: list[tuple[Outgoing, Delivery | None]] = []
        size = 0
        most = CHUNK_LETTERS if self._rate is None else max(1, min(CHUNK_LETTERS, int(self._rate)))
        reading = self._box.reading()
        while taken < plan.to_send and (found := await reading.next()) is not None:
            outgoing = plan.take(found) if isinstance(found, Letter) else None
            if outgoing is None:
                continue
            taken += 1
            try:
                chunk.append((outgoing, await self._send(outgoing)))
            except ConfigError as exc:  # the record cannot be sent, whatever the service
                self._cannot(plan, outgoing, str(exc))
                continue
            size += len(outgoing.letter.data)
            if len(chunk) >= most or size >= CHUNK_BYTES:
                await self._settle(chunk)
                chunk, size = [], 0
        await self._settle(chunk)
        self.report.expired += plan.to_send - taken
        return plan

    def _cannot(self, plan: Plan, outgoing: Outgoing, reason: str) -> None:
        self.report.unsendable.append((outgoing.letter, reason))
        if outgoing.group is not None:
            plan.block(outgoing.group)
            self.report.parked[outgoing.group] = "a letter of it cannot be sent back"

    # --- sending --------------------------------------------------------------------------------------------------

    async def _send(self, outgoing: Outgoing) -> Delivery | None:
        """None: there is nothing to be sent. Raises ConfigError."""
        letter, headers, data = outgoing.letter, outgoing.headers, outgoing.letter.data
        stream = self._to_stream or letter.stream
        if self._to_stream is None and outgoing.redriven is not None:
            headers = {**headers, **outgoing.redriven.headers()}
        if self._discard:
            if not outgoing.last:
                return None
            data = b""
        await self._pace()
        producer = await self._producer(stream)
        return await producer.send(data, key=letter.key or None, timestamp=letter.timestamp, headers=headers or None)

    async def _pace(self) -> None:
        if self._rate is not None:
            now = anyio.current_time()
            await anyio.sleep(max(0.0, self._next_at - now))
            self._next_at = max(now, self._next_at) + 1 / self._rate

    async def _producer(self, stream: str) -> Producer:
        found = self._producers.get(stream)
        if found is None:
            found = self._producers[stream] = await self._stack.enter_async_context(
                self._dis.producer(stream, ENVELOPE)
            )
        return found

    async def _settle(self, chunk: list[tuple[Outgoing, Delivery | None]]) -> None:
        """Wait until all are stored, and mark those that are. Raises DeliveryFailed if one is not."""
        if not chunk:
            return
        failure: DeliveryFailed | None = None
        stored: list[Outgoing] = []
        for outgoing, delivery in chunk:
            try:
                receipt = None if delivery is None else await delivery
            except DeliveryFailed as exc:
                failure = failure or exc
                continue
            stored.append(outgoing)
            if outgoing.group is not None and outgoing.last and receipt is not None and self._to_stream is None:
                self._lasts[outgoing.group] = receipt
        if stored and self._to_stream is None:
            await self._box.settle([outgoing.letter.identity for outgoing in stored], discarded=self._discard)
        self.report.settled += len(stored)
        if failure is not None:
            raise failure

    # --- keys -----------------------------------------------------------------------------------------------------

    async def _unparked(self) -> frozenset[Group]:
        """Wait until workers have handled what was sent. The keys that are parked although they have."""
        pending = dict(self._lasts)
        parked: set[Group] = set()
        deadline = anyio.current_time() + self._wait_s
        while True:
            states: dict[tuple[str, Partition], Checkpoint | None] = {}
            for group, receipt in list(pending.items()):
                place = group.app, Partition(group.stream, receipt.partition_id)
                if place not in states:
                    states[place] = await self._kept(*place)
                checkpoint = states[place]
                if checkpoint is None:
                    continue
                following, metadata = position(checkpoint)
                if following <= receipt.sequence_number:
                    continue
                del pending[group]
                self.report.parked.pop(group, None)
                if receipt.partition_id != group.partition_id:
                    self.report.parked[group] = (
                        f"its records go to {receipt.partition_id} since the stream was scaled: handled there; "
                        f"in {group.partition_id} it takes the room of a key"
                    )
                elif Parking.read(read_note(metadata).annotation).is_parked(group.key):
                    parked.add(group)
                    self.report.parked[group] = "more records of it followed meanwhile"
                else:
                    self.report.unparked.add(group)
            if not pending or anyio.current_time() >= deadline:
                break
            await anyio.sleep(POLL_S)
        for group in pending:
            self.report.parked[group] = f"no worker of {group.app} has handled what was sent within {self._wait_s:g} s"
        return frozenset(parked)

    async def _checkpoint(self, app: str, partition: Partition) -> Checkpoint | None:
        try:
            return await self._dis.checkpoints.get(app, *partition)
        except NotFoundError:  # no such app: none of its workers keeps checkpoints here, or it was deleted
            return None
