"""What `send` and `send_many` return. A Delivery is (chunk, index): nothing else exists per record."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from .. import producer
from ..errors import ClosedError, DisError, NotStored
from ..producer import Payload, Receipt, Receipts
from .portal import Portal, finished

if TYPE_CHECKING:
    from .staging import StagedProducer

T = TypeVar("T")


class Chunk:
    """Records staged together. `placed`: their deliveries, once the producer has them; `failure`: why it has not."""

    __slots__ = ("failure", "home", "placed", "rows", "weight")

    def __init__(
        self, home: StagedProducer, placed: producer.BatchDelivery | list[producer.Delivery] | None = None
    ) -> None:
        self.home = home
        self.rows: list[tuple[Payload, str | None]] = []
        self.weight = 0
        self.placed = placed
        self.failure: DisError | None = None

    def delivery(self, index: int) -> producer.Delivery | None:
        """None: it is not taken over yet. Raises NotStored if the producer refused it."""
        if self.placed is not None:
            return self.placed[index]
        if self.failure is not None:
            raise NotStored("closed", str(self.failure))
        return None


class Delivery(msgspec.Struct, frozen=True, gc=False, eq=False):
    """An accepted record. `result` may be asked any number of times, by any thread, also after closing."""

    _chunk: Chunk
    _index: int

    def done(self) -> bool:
        """Whether the record has its end, so that `result` does not wait."""
        chunk = self._chunk
        return chunk.failure is not None or (chunk.placed is not None and chunk.placed[self._index].done())

    def result(self, timeout: float | None = None) -> Receipt:
        """The receipt, once the record is stored.

        Raises RecordRejected, NotStored, DeliveryUnknown; WaitTimeout after `timeout` seconds. A wait that times out or
        is interrupted does not touch the record.
        """
        delivery = self._chunk.delivery(self._index)
        if delivery is not None and (receipt := delivery._stored()) is not None:
            return receipt  # the usual end, without a round trip
        return _wait(self._chunk.home.portal, self._end, self.done, timeout, "the record has no end")

    async def _end(self) -> Receipt:
        delivery = self._chunk.delivery(self._index)
        if delivery is None:
            self._chunk.home.take_over()
            delivery = self._chunk.delivery(self._index)
            assert delivery is not None
        return await delivery

    def __repr__(self) -> str:
        return f"<Delivery: {'settled' if self.done() else 'under way'}>"


class BatchDelivery:
    """Records accepted together by `send_many`. `result` may be asked any number of times, by any thread."""

    __slots__ = ("_batch", "_portal")

    def __init__(self, portal: Portal, batch: producer.BatchDelivery) -> None:
        self._portal = portal
        self._batch = batch

    def __len__(self) -> int:
        return len(self._batch)

    def done(self) -> bool:
        """Whether all records have their end, so that `result` does not wait."""
        return self._batch.done()

    def result(self, timeout: float | None = None) -> Receipts:
        """The receipts, once all are stored; in the order given to `send_many`.

        Raises DeliveryFailed once all have their end, if any was not stored; its `results` hold a Receipt or an
        exception for each record. WaitTimeout after `timeout` seconds.
        """
        return _wait(self._portal, self._ends, self.done, timeout, f"not all of {len(self)} records have an end")

    async def _ends(self) -> Receipts:
        return await self._batch

    def __repr__(self) -> str:
        return repr(self._batch)


def _wait(
    portal: Portal,
    ends: Callable[[], Coroutine[Any, Any, T]],
    done: Callable[[], bool],
    timeout: float | None,
    waiting: str,
) -> T:
    try:
        return portal.call(ends(), None if done() else timeout, waiting)
    except ClosedError:
        if not done():
            raise
        return finished(ends())  # closing left nothing to wait for
