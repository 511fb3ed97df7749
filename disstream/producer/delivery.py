"""What `send` returns. A Delivery is (batch, index): waiters exist only where somebody waits."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterator, Sequence
from typing import Any, overload

import msgspec

from ..errors import DeliveryFailed
from .outcome import Batch, End, Failure, Receipt


class Delivery(msgspec.Struct, frozen=True, gc=False, eq=False):
    """An accepted record. Await it, any number of times, for its `Receipt`.

    Raises `RecordRejected`, `NotStored` or `DeliveryUnknown`. Cancelling or timing out the wait does not touch the
    record.
    """

    _batch: Batch
    _index: int

    def done(self) -> bool:
        """Whether the record has its end, so that awaiting does not suspend."""
        batch = self._batch
        return batch.answer is not None or (batch.ends is not None and self._index in batch.ends)

    def __await__(self) -> Generator[Any, None, Receipt]:
        return self._receipt().__await__()

    async def _receipt(self) -> Receipt:
        end = self._batch.end(self._index)
        while end is None:
            await _next_change(self._batch, range(self._index, self._index + 1))
            end = self._batch.end(self._index)
        if isinstance(end, Failure):
            raise end.exception()
        return end


class Receipts(Sequence[Receipt]):
    """The receipts of a batch, in the order given to `send_many`; built when looked at."""

    __slots__ = ("_places",)

    def __init__(self, places: Sequence[tuple[Batch, int]]) -> None:
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Receipt: ...
    @overload
    def __getitem__(self, index: slice) -> Receipts: ...
    def __getitem__(self, index: int | slice) -> Receipt | Receipts:
        if isinstance(index, slice):
            return Receipts(self._places[index])
        batch, place = self._places[index]
        end = batch.end(place)
        assert isinstance(end, Receipt)
        return end

    def __iter__(self) -> Iterator[Receipt]:
        return (self[i] for i in range(len(self._places)))


class BatchDelivery:
    """Records accepted together by `send_many`. Await it, any number of times, for their `Receipts`.

    Raises `DeliveryFailed` once all have their end, if any was not stored; its `results` hold a Receipt or an exception
    for each record, in order. Cancelling the wait does not touch the records.
    """

    __slots__ = ("_order", "_spans")

    def __init__(self, order: list[Batch], spans: dict[Batch, int]) -> None:
        """`order[i]`: the batch record i went into; `spans`: batch -> index of the first of our records in it."""
        self._order = order
        self._spans = spans

    def __len__(self) -> int:
        return len(self._order)

    def done(self) -> bool:
        return all(batch.answer is not None or self._settled(batch, span) for batch, span in self._ranges())

    def __await__(self) -> Generator[Any, None, Receipts]:
        return self._receipts().__await__()

    def _ranges(self) -> list[tuple[Batch, range]]:
        counts: dict[Batch, int] = {}
        for batch in self._order:
            counts[batch] = counts.get(batch, 0) + 1
        return [(batch, range(first, first + counts[batch])) for batch, first in self._spans.items()]

    @staticmethod
    def _settled(batch: Batch, span: range) -> bool:
        return batch.settled or (batch.ends is not None and all(i in batch.ends for i in span))

    async def _receipts(self) -> Receipts:
        unsure = []
        for batch, span in self._ranges():
            while batch.answer is None and not self._settled(batch, span):
                await _next_change(batch, span)
            if batch.answer is None:
                unsure.append(batch)
        places = self._places()
        if unsure:
            self._raise_for_failed(places)
        return Receipts(places)

    def _places(self) -> list[tuple[Batch, int]]:
        following = dict(self._spans)
        places = []
        for batch in self._order:
            place = following[batch]
            following[batch] = place + 1
            places.append((batch, place))
        return places

    @staticmethod
    def _raise_for_failed(places: list[tuple[Batch, int]]) -> None:
        ends: list[End | None] = [batch.end(place) for batch, place in places]
        failed = [(i, end) for i, end in enumerate(ends) if isinstance(end, Failure)]
        if failed:
            index, first = failed[0]
            error = DeliveryFailed(
                f"{len(failed)} of {len(places)} records were not stored; the first is record {index}: "
                f"{first.cause}: {first.detail}"
            )
            error.results = tuple(end.exception() if isinstance(end, Failure) else end for end in ends)
            raise error


async def _next_change(batch: Batch, watched: range) -> None:
    """Wait until something in `batch` is settled."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake() -> None:
        if not future.done():
            future.set_result(None)

    batch.watchers[wake] = watched
    try:
        await future
    finally:
        batch.watchers.pop(wake, None)
