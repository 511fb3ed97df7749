"""The ways to write records through a producer: as fast as it takes them, or each at its instant."""

from __future__ import annotations

import math
import random
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
        fill = plan.size_bytes - NUMBER_BYTES
        names = [f"key-{i}" for i in range(plan.keys)]
        keys = [names[i % plan.keys] for i in range(plan.records)]
        payloads = [i.to_bytes(NUMBER_BYTES, "big") + dice.randbytes(fill) for i in range(plan.records)]
        return cls(payloads, keys, Sent.of(zip(payloads, keys, strict=True)))

    def first(self, count: int) -> Load:
        return Load(self.payloads[:count], self.keys[:count], Sent(self.sent.keys[:count], self.sent.digests[:count]))


async def at_full_speed(producer: Producer, mode: Mode, load: Load) -> None:
    """Returns when every record has its end. Failures are for the caller to count, from the producer's statistics."""
    payloads, keys, _ = load
    pairs = zip(payloads, keys, strict=True)
    send = producer.send
    if mode == "send":
        for payload, key in pairs:
            await send(payload, key=key)
    elif mode == "receipts":
        for delivery in [await send(payload, key=key) for payload, key in pairs]:
            try:
                await delivery
            except DisError:
                continue
    else:
        for first in range(0, len(payloads), MANY):
            chunk = slice(first, first + MANY)
            await producer.send_many(zip(payloads[chunk], keys[chunk], strict=True))
    await producer.flush()


async def at_rate(producer: Producer, rate: float, load: Load) -> tuple[Spread, Spread]:
    """Send each record at its instant, however long the others take; returns when all have their end.

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
        instants = schedule(exact_now(), rate, len(load.keys))
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
