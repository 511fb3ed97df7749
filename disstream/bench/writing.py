"""The ways to write records through a producer: as fast as it takes them, or each at its instant."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import anyio

from ..errors import DisError
from ..producer import Delivery, Producer
from .check import Sent
from .laps import NUMBER_BYTES, Mode, Plan
from .machine import exact_now
from .timing import Spread, schedule

MANY = 1_000
"""Records of one `send_many`, and of one `fetch`."""
CHUNK_BYTES = 1_048_576
"""Of payload in one `send_many`, at most, if the records are large."""
WAITING = 32
"""Of `receipts`: so many thousands are under way before the oldest thousand is awaited. More than the producer has in
its requests, so that it never waits for us; all receipts at the end would be one long stretch without a breath."""
TIMED_PER_S = 2_000
"""Of more records a second than that only some are timed: a waiting task for each would be most of the work."""


class Load(NamedTuple):
    """The records to send, in order."""

    payloads: list[bytes]
    keys: list[str]
    sent: Sent
    """The same, as the checker needs it."""

    @classmethod
    def make(cls, plan: Plan, dice: random.Random) -> Load:
        """Those that are not timed come first."""
        fill = plan.size_bytes - NUMBER_BYTES
        names = [f"key-{i}" for i in range(plan.keys)]
        count = plan.untimed + plan.records
        keys = [names[i % plan.keys] for i in range(count)]
        payloads = [i.to_bytes(NUMBER_BYTES, "big") + dice.randbytes(fill) for i in range(count)]
        return cls(payloads, keys, Sent.of(zip(payloads, keys, strict=True)))

    def part(self, begin: int, end: int | None = None) -> Load:
        """Those from number `begin` to in front of `end`; the numbers they bear stay what they are."""
        part = slice(begin, end)
        return Load(self.payloads[part], self.keys[part], Sent(self.sent.keys[part], self.sent.digests[part]))


async def at_full_speed(producer: Producer, mode: Mode, load: Load) -> None:
    """Returns when every record has its end. Failures are for the caller to count, from the producer's statistics."""
    payloads, keys, _ = load
    send = producer.send
    if mode == "send":
        for payload, key in zip(payloads, keys, strict=True):
            await send(payload, key=key)
    elif mode == "receipts":
        waiting: deque[list[Delivery]] = deque()
        for some in chunks(payloads, keys):
            waiting.append([await send(payload, key=key) for payload, key in some])
            if len(waiting) > WAITING:
                await _receipts(waiting.popleft())
        for deliveries in waiting:
            await _receipts(deliveries)
    else:
        for some in chunks(payloads, keys):
            await producer.send_many(some)
    await producer.flush()


def chunks(payloads: Sequence[bytes], keys: Sequence[str]) -> Iterator[Iterator[tuple[bytes, str]]]:
    """In thousands, or fewer if they are large."""
    step = chunk_records(len(payloads[0])) if payloads else MANY
    for first in range(0, len(payloads), step):
        chunk = slice(first, first + step)
        yield zip(payloads[chunk], keys[chunk], strict=True)


def chunk_records(size_bytes: int) -> int:
    return max(1, min(MANY, CHUNK_BYTES // size_bytes))


async def _receipts(deliveries: Iterable[Delivery]) -> None:
    for delivery in deliveries:
        try:
            await delivery
        except DisError:
            continue  # the producer's statistics tell how many


async def at_rate(producer: Producer, rate: float, load: Load, begin_s: float) -> tuple[Spread, Spread]:
    """Send each record at its instant, the first at `begin_s`, however long the others take; returns when all have
    their end.

    Two spreads, both from the instants at which records were due: to the receipt, and to the call of `send`.
    """
    latencies: list[float] = []
    lateness: list[float] = []
    every = max(1, round(rate / TIMED_PER_S))

    async def receive(delivery: Delivery, due: float) -> None:
        try:
            await delivery
        except DisError:
            return
        latencies.append(exact_now() - due)

    async with anyio.create_task_group() as tasks:
        instants = schedule(begin_s, rate, len(load.keys))
        for number, (due, payload, key) in enumerate(zip(instants, load.payloads, load.keys, strict=True)):
            # Timers are good to a millisecond, and may come too early by one: look again. Rounded up, or the loop would
            # turn until it is time.
            while (wait_s := due - exact_now()) > 0:  # noqa: ASYNC110 - no event comes, only time passes
                await anyio.sleep(math.ceil(wait_s * 1000) / 1000)
            lateness.append(-wait_s)
            delivery = await producer.send(payload, key=key)
            if number % every == 0:
                tasks.start_soon(receive, delivery, due)
        await producer.flush()
    return Spread.of(latencies), Spread.of(lateness)
