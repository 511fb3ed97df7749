"""The producer for threads: `disstream.Producer`, in the client's loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from ..errors import ClosedError
from ..model import NewRecord
from ..producer import ProducerStats, Receipt
from .delivery import BatchDelivery, Chunk, Delivery
from .life import Resident, Residents
from .portal import Portal, returned
from .staging import StagedProducer

P = ParamSpec("P")
T = TypeVar("T")


class Producer(Resident):
    """Writes records to one stream. Made by `DisClient.producer`; use it with `with`, or `start()` and `close()`.

    Any number of threads may send; records of a key that one thread sends are stored in the order of its calls. What an
    interrupted call (Ctrl-C) gave may have been accepted. Any value is taken where there is a serializer; without one
    whatever is not bytes or str raises ConfigError.
    """

    def __init__(self, portal: Portal, inner: StagedProducer, started: Residents) -> None:
        super().__init__(portal, inner, started)
        self._inner = inner

    # --- records in ---

    def send(
        self,
        data: Any,
        *,
        key: str | None = None,
        partition_id: str | int | None = None,
        explicit_hash_key: int | str | None = None,
        timestamp: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Delivery:
        """Accept one record, waiting only for room: `.result()` of what this returns waits for its receipt.

        As `disstream.Producer.send`. As long as there is room, a record without a place or a time of its own costs no
        round trip to the loop (40 us).
        """
        if (conversion := self._inner.conversion) is not None:
            data, headers = conversion.payload(data), conversion.headers(headers)
        if partition_id is None and explicit_hash_key is None and timestamp is None and headers is None:
            staged = self._inner.stage(data, key)
            if staged is not None:
                return staged
        delivery = self._behind(
            self._inner.send,
            data,
            key=key,
            partition_id=partition_id,
            explicit_hash_key=explicit_hash_key,
            timestamp=timestamp,
            headers=headers,
        )
        return Delivery(Chunk(self._inner, [delivery]), 0)

    def try_send(
        self,
        data: Any,
        *,
        key: str | None = None,
        partition_id: str | int | None = None,
        explicit_hash_key: int | str | None = None,
        timestamp: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Delivery:
        """As `send`, but does not wait for room: raises BufferFull where `send` would."""
        if (conversion := self._inner.conversion) is not None:
            data, headers = conversion.payload(data), conversion.headers(headers)
        if partition_id is None and explicit_hash_key is None and timestamp is None and headers is None:
            staged = self._inner.stage(data, key)
            if staged is not None:
                return staged
        delivery = self._behind(
            returned,
            self._inner.try_send,
            data,
            key=key,
            partition_id=partition_id,
            explicit_hash_key=explicit_hash_key,
            timestamp=timestamp,
            headers=headers,
        )
        return Delivery(Chunk(self._inner, [delivery]), 0)

    def send_and_wait(
        self,
        data: Any,
        *,
        key: str | None = None,
        partition_id: str | int | None = None,
        explicit_hash_key: int | str | None = None,
        timestamp: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Receipt:
        """`send`, then wait for the receipt. Interrupted: the record may still be stored."""
        if (conversion := self._inner.conversion) is not None:
            data, headers = conversion.payload(data), conversion.headers(headers)
        return self._behind(
            self._inner.send_and_wait,
            data,
            key=key,
            partition_id=partition_id,
            explicit_hash_key=explicit_hash_key,
            timestamp=timestamp,
            headers=headers,
        )

    def send_many(self, records: Iterable[tuple[Any, str | None] | NewRecord]) -> BatchDelivery:
        """Accept many records at once, room for all or none: the fast lane. As `disstream.Producer.send_many`.

        One round trip to the loop for all of them.
        """
        if (conversion := self._inner.conversion) is not None:
            records = conversion.records(records)
        if not isinstance(records, list):
            records = list(records)  # here: a slow generator, or one that calls us, must not hold the loop
        return BatchDelivery(self._portal, self._behind(self._inner.send_many, records))

    # --- waiting and looking ---

    def flush(self) -> None:
        """Wait until every record accepted so far has its end. Raises nothing for failed records."""
        self._behind(self._inner.flush)

    def stats(self) -> ProducerStats:
        """What has happened so far. Works after `close`."""
        try:
            return self._behind(returned, self._inner.stats)
        except ClosedError:
            return self._inner.stats()

    def _behind(self, call: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `call` returns, called in the loop behind what is staged."""
        return self._portal.call(self._inner.behind(call, *args, **kwargs))

    def forked(self) -> None:
        """See `Resident`."""
        self._inner.forked()
