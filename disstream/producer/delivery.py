"""What `send` returns. A Delivery is (batch, index): waiters exist only where somebody waits."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Generator, Iterator, Sequence
from typing import Any, overload

import msgspec

from ..errors import DeliveryFailed
from .outcome import Batch, End, Failure, Receipt
from .shares import Share


class Delivery(msgspec.Struct, frozen=True, gc=False, eq=False):
    """An accepted record. Await it, any number of times, for its `Receipt`.

    Raises `RecordRejected`, `NotStored` or `DeliveryUnknown`. Cancelling or timing out the wait does not touch the
    record.
    """

    _batch: Batch
    _index: int

    def done(self) -> bool:
        """Whether the record has its end, so that awaiting does not suspend."""
        return self._batch.has_end(self._index)

    def _stored(self) -> Receipt | None:
        """The receipt, if its batch was stored as a whole: the one end that any thread may look at."""
        batch = self._batch
        return batch.answer.receipt(batch.offset + self._index, batch.attempts) if batch.answer is not None else None

    def __repr__(self) -> str:
        return f"<Delivery: {'settled' if self.done() else 'under way'}>"

    def __await__(self) -> Generator[Any, None, Receipt]:
        batch, index = self._batch, self._index
        end = batch.end(index)
        while end is None:
            yield from _next_change(batch).__await__()
            end = batch.end(index)
        if isinstance(end, Failure):
            raise end.exception()
        return end


class Receipts(Sequence[Receipt]):
    """The receipts of a batch, in the order given to `send_many`; built when looked at."""

    __slots__ = ("_found", "_order")

    def __init__(self, order: list[Share]) -> None:
        self._order = order
        self._found: list[tuple[Batch, int]] | None = None

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, index: int) -> Receipt: ...
    @overload
    def __getitem__(self, index: slice) -> list[Receipt]: ...
    def __getitem__(self, index: int | slice) -> Receipt | list[Receipt]:
        if self._found is None:
            self._found = _places(self._order)
        if isinstance(index, slice):
            return [_receipt_at(place) for place in self._found[index]]
        return _receipt_at(self._found[index])

    def __iter__(self) -> Iterator[Receipt]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3]))
        return f"Receipts([{shown}{', ...' if len(self) > 3 else ''}], {len(self)} in all)"


class BatchDelivery:
    """Records accepted together by `send_many`. Await it, any number of times, for their `Receipts`.

    Raises `DeliveryFailed` once all have their end, if any was not stored; its `results` hold a Receipt or an exception
    for each record, in order. Cancelling the wait does not touch the records.
    """

    __slots__ = ("_found", "_order", "_shares")

    def __init__(self, order: list[Share], shares: Collection[Share]) -> None:
        """`order[i]`: the share record i is in."""
        self._order = order
        self._shares = shares
        self._found: list[tuple[Batch, int]] | None = None

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> Delivery:
        """The delivery of one of them."""
        if self._found is None:
            self._found = _places(self._order)
        return Delivery(*self._found[index])

    def __repr__(self) -> str:
        return f"<BatchDelivery of {len(self)}: {'settled' if self.done() else 'under way'}>"

    def done(self) -> bool:
        """Whether all records have their end, so that awaiting does not suspend."""
        return all(_settled(batch, span) for share in self._shares for batch, span in share.spans)

    def __await__(self) -> Generator[Any, None, Receipts]:
        return self._receipts().__await__()

    async def _receipts(self) -> Receipts:
        sure = True
        for share in self._shares:
            for batch, span in share.spans:
                while not _settled(batch, span):
                    await _next_change(batch)
                sure = sure and batch.answer is not None
        if not sure:
            self._raise_for_failed(_places(self._order))
        return Receipts(self._order)

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


def _places(order: list[Share]) -> list[tuple[Batch, int]]:
    """Where each record of a call is."""
    following = {share: share.places() for share in set(order)}
    return [next(following[share]) for share in order]


def _receipt_at(place: tuple[Batch, int]) -> Receipt:
    batch, index = place
    end = batch.end(index)
    assert isinstance(end, Receipt)
    return end


def _settled(batch: Batch, span: range) -> bool:
    return batch.settled or (batch.ends is not None and all(i in batch.ends for i in span))


async def _next_change(batch: Batch) -> None:
    """Wait until something in `batch` is settled."""
    ledger = batch.ledger
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake() -> None:
        if not future.done():
            future.set_result(None)
            ledger.waking += 1

    batch.watch(wake)
    try:
        await future
    finally:
        batch.unwatch(wake)
        if future.done() and not future.cancelled():
            ledger.waking -= 1  # the caller looks before it awaits anything else, or was cancelled and never will
