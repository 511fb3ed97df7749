"""How a record gets from a thread into the loop without a round trip.

    thread   stage(data, key)  a lock and an append: the record is in the open chunk, and that is accepted
    loop     take_over()       the open chunk goes into the producer, and a new one is open

The first record of a chunk wakes the loop; until the loop looks, others join. A round trip (`behind`) is made where the
caller must wait for an answer: there is no room, or somebody waits for room already; the chunk is full (the loop is
behind, and a thread that never let go of the interpreter would keep it there); or only the loop can check the record.
It takes over the chunk first, so the calls of a thread keep their order.

What can never happen: a staged record that is refused. It was checked, and counted against the producer's budget,
before it was staged, so `take_over` asks for no room. (Calls that enter the budget at the same moment do not see what
is staged: the bound is buffer_bytes and a chunk.) Only a producer that died meanwhile refuses a chunk: then its records
are not stored, and told so.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from ..client import Client
from ..errors import DisError
from ..producer import Payload, Producer, ProducerConfig
from ..producer.conversion import Conversion
from ..producer.payload import as_bytes, checked_key
from ..producer.shares import share_out
from ..producer.shipment import RECORD_OVERHEAD
from .delivery import Chunk, Delivery
from .portal import Portal

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("disstream.producer")

CHUNK_RECORDS = 1_000
"""What is staged before a thread waits for the loop: 0.7 ms of its work, and as much of the loop's to take over."""

CHUNK_BYTES = 1_048_576


class StagedProducer(Producer):
    """A producer into which threads put records. `stage` is for any thread, everything else for the loop.

    What comes in is converted already: `conversion`, if there is one, is for the threads that send, so a slow
    serializer holds up nobody else, and a trace is that of the caller.
    """

    _converts = True

    def __init__(self, portal: Portal, client: Client, stream: str, config: ProducerConfig | None) -> None:
        super().__init__(client, stream, config)
        self.portal = portal
        self.conversion = Conversion(self._config) if self._config.converts else None
        self._limit = self._budget.limit
        self._chunk_bytes = min(CHUNK_BYTES, self._limit // 16)  # what it adds to a partition's share is not looked at
        self._lock = threading.Lock()
        self._chunk = Chunk(self)

    def stage(self, data: Payload, key: str | None) -> Delivery | None:
        """Accept a record; None: ask the loop. Never waits. Raises ConfigError."""
        if type(data) is not bytes:
            data = as_bytes(data)
        need = len(data) + RECORD_OVERHEAD
        budget = self._budget
        try:
            lane = self._by_key.get(key)
        except TypeError:  # not even hashable, as the check will say
            lane = None
        if key is not None:
            if lane is None:  # never sent before: else a stuck partition could fill the buffer with ever new keys
                checked_key(key)
                if budget.mark < 0:
                    return None  # nor are there lanes before the start
                lane = self._core.layout.lanes.of_key(key)  # for any thread: it only ever adds to a dict, or empties it
            need += len(key)
        with self._lock:
            chunk = self._chunk
            rows = chunk.rows
            index = len(rows)
            weight = chunk.weight + need
            if (
                budget.used + weight > self._limit
                or budget.mark < 0  # somebody waits: nobody overtakes
                or (lane is not None and budget.shut(lane.traffic))  # its partition holds its share, or somebody waits
                or index >= CHUNK_RECORDS
                or weight > self._chunk_bytes
            ):
                return None
            if not index:
                self.portal.call_soon(self.take_over)  # first: an interrupt between the two must not leave it asleep
            chunk.weight = weight
            rows.append((data, key))
        return Delivery(chunk, index)

    def take_over(self) -> None:
        """Give the open chunk to the producer, as `send_many` does once it has room."""
        with self._lock:
            chunk, self._chunk = self._chunk, Chunk(self)
        if not chunk.rows:
            return
        try:
            self._supervisor.check()
            order, by_lane, need = share_out(chunk.rows, self._by_key, self._check)
            self._budget.take(need)
            chunk.placed = self._put_in(order, by_lane)
        except DisError as exc:
            chunk.failure = exc
            log.warning("staged records are not stored stream=%s count=%d cause=%s", self._stream, len(chunk.rows), exc)
        chunk.rows = []

    async def behind(self, call: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `call` returns, called behind what is staged."""
        self.take_over()
        return await call(*args, **kwargs)

    async def close(self) -> None:
        self._shut()
        await super().close()

    async def abort(self) -> None:
        self._shut()
        await super().abort()

    def _shut(self) -> None:
        with self._lock:
            self._limit = -1  # from now on all ask the loop, and are told that it is closed
        self.take_over()

    def forked(self) -> None:
        """This is the child of a `fork`: a lock may be held for ever, and what is staged is the parent's."""
        self._lock = threading.Lock()
        self._limit = -1
