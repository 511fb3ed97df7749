"""When records reach the loop of a consumer that reads beside their producer."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from ..consumer import Consumer
from ..model import Record
from .laps import NUMBER_BYTES
from .machine import exact_now
from .timing import Spread


class Arrivals:
    """Reads until `count` records have come. Looks at nothing but the clock: records are compared afterwards."""

    def __init__(self, consumer: Consumer, count: int) -> None:
        self._consumer = consumer
        self._count = count
        self.records: list[Record] = []
        self.complete = anyio.Event()
        self._at_s: list[float] = []

    async def run(self) -> None:
        async for record in self._consumer:
            self._at_s.append(exact_now())
            self.records.append(record)
            if len(self.records) == self._count:
                self.complete.set()
                return

    def since(self, begin_s: float, rate: float, first: int) -> Spread:
        """From the instant each was due, of which number `first` was the first, to the body of the loop."""
        return Spread.of(at - due for at, due in zip(self._at_s, self._due(begin_s, rate, first), strict=True))

    def _due(self, begin_s: float, rate: float, first: int) -> Sequence[float]:
        numbers = [int.from_bytes(record.data[:NUMBER_BYTES], "big") for record in self.records]
        return [begin_s + (number - first) / rate for number in numbers]
