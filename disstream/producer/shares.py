"""The records of one `send_many` call, shared out to the lanes they go to. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from ..errors import ConfigError
from ..model import NewRecord
from .lanes import Lane
from .outcome import Batch
from .payload import MAX_RECORD_BYTES, Payload, as_bytes, checked_record
from .shipment import RECORD_OVERHEAD, weight_of


class Share:
    """The records of one `send_many` call that go to one lane, in order, and the spans of batches that hold them."""

    __slots__ = ("lane", "rows", "spans", "weight")

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.rows: list[NewRecord] = []
        self.weight = 0
        self.spans: list[tuple[Batch, range]] = []

    def places(self) -> Iterator[tuple[Batch, int]]:
        return ((batch, index) for batch, span in self.spans for index in span)


def share_out(
    records: Iterable[tuple[Payload, str | None] | NewRecord],
    known: Mapping[str | None, Lane],
    route: Callable[[NewRecord], Lane],
) -> tuple[list[Share], dict[Lane, Share], int]:
    """Each record's share, in order; each lane's; and the room they need together.

    `known`: lanes of keys; of others `route` checks the record and names the lane. Raises ConfigError.
    """
    order: list[Share] = []
    shares: dict[str | None, Share] = {}  # of keys; records that are routed otherwise have the lane's alone
    by_lane: dict[Lane, Share] = {}
    for record in records:
        if isinstance(record, tuple):
            try:
                data, key = record
                share = shares.get(key)
            except (ValueError, TypeError):  # not two, or a key that is not even hashable
                raise ConfigError(f"{record!r:.80} is not a (data, key) pair with a key of text") from None
            if share is None and (lane := known.get(key)) is not None:
                share = by_lane.get(lane)
                if share is None:
                    share = by_lane[lane] = Share(lane)
                shares[key] = share
            if share is not None and type(data) is bytes and len(data) <= MAX_RECORD_BYTES:
                share.rows.append(NewRecord(data, key))
                share.weight += len(data) + (len(key) if key else 0)
                order.append(share)
                continue
            row = NewRecord(as_bytes(data), key)
        else:
            row = checked_record(record)
        lane = route(row)
        share = by_lane.get(lane)
        if share is None:
            share = by_lane[lane] = Share(lane)
        if row.partition_id is None and row.explicit_hash_key is None:
            shares[row.key] = share
        share.rows.append(row)
        share.weight += weight_of(row)
        order.append(share)
    return order, by_lane, sum(share.weight for share in by_lane.values()) + len(order) * RECORD_OVERHEAD


def share_out_again(order: list[Share], route: Callable[[NewRecord], Lane]) -> tuple[list[Share], dict[Lane, Share]]:
    """The layout changed while the call waited for room. Raises ConfigError for a partition that is gone."""
    following = {share: iter(share.rows) for share in set(order)}
    by_lane: dict[Lane, Share] = {}
    again = []
    for old in order:
        row = next(following[old])
        lane = route(row)
        share = by_lane.setdefault(lane, Share(lane))
        share.rows.append(row)
        share.weight += weight_of(row)
        again.append(share)
    return again, by_lane
