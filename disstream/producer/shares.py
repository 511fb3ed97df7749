"""The records of one `send_many` call, shared out to the lanes they go to. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from ..errors import ConfigError
from ..model import NewRecord
from ..wire.columns import NewColumns, is_plain
from .lanes import Lane
from .outcome import Batch
from .payload import MAX_RECORD_BYTES, Payload, as_bytes, checked_record
from .shipment import RECORD_OVERHEAD, weigh

_NO_PAYLOADS: list[bytes] = []
_NO_KEYS: list[str | None] = []


class Share:
    """The records of one `send_many` call that go to one lane, in order, and the spans of batches that hold them."""

    # The columns themselves, and no NewColumns yet: with a thousand partitions a share holds one record or two.
    __slots__ = ("keys", "lane", "payloads", "rich", "spans", "weight")

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.payloads: list[bytes] = []
        self.keys: list[str | None] = []
        self.rich: dict[int, NewRecord] | None = None
        self.weight = 0
        self.spans: list[tuple[Batch, range]] = []

    def append(self, row: NewRecord) -> None:
        """Any record; usual ones may be added to both columns."""
        if not is_plain(row):
            self.rich = self.rich or {}
            self.rich[len(self.payloads)] = row
        self.payloads.append(row.data)
        self.keys.append(row.key)

    @property
    def rows(self) -> NewColumns:
        return NewColumns(self.payloads, self.keys, self.rich)

    def let_go(self) -> NewColumns:
        """The records, which their batches hold from now on, and let go of when they are settled: so must we."""
        rows = self.rows
        self.payloads, self.keys, self.rich = _NO_PAYLOADS, _NO_KEYS, None
        return rows

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
        pair = (record.data, record.key) if type(record) is NewRecord and is_plain(record) else record
        if isinstance(pair, tuple):
            try:
                data, key = pair
                share = shares.get(key)
            except (ValueError, TypeError):  # not two, or a key that is not even hashable
                raise ConfigError(f"{pair!r:.80} is not a (data, key) pair with a key of text") from None
            if share is None and (lane := known.get(key)) is not None:
                share = by_lane.get(lane)
                if share is None:
                    share = by_lane[lane] = Share(lane)
                shares[key] = share
            if share is not None and type(data) is bytes and len(data) <= MAX_RECORD_BYTES:
                share.payloads.append(data)
                share.keys.append(key)
                order.append(share)
                continue
            row = NewRecord(as_bytes(data), key)
        else:
            row = checked_record(pair)
        lane = route(row)
        share = by_lane.get(lane)
        if share is None:
            share = by_lane[lane] = Share(lane)
        if row.partition_id is None and row.explicit_hash_key is None:
            shares[row.key] = share
        share.append(row)
        order.append(share)
    return order, by_lane, _weigh(by_lane) + len(order) * RECORD_OVERHEAD


def _weigh(by_lane: Mapping[Lane, Share]) -> int:
    for share in by_lane.values():
        share.weight = weigh(share.rows)
    return sum(share.weight for share in by_lane.values())


def share_out_again(order: list[Share], route: Callable[[NewRecord], Lane]) -> tuple[list[Share], dict[Lane, Share]]:
    """The layout changed while the call waited for room. Raises ConfigError for a partition that is gone."""
    following = {share: iter(share.rows) for share in set(order)}
    by_lane: dict[Lane, Share] = {}
    again = []
    for old in order:
        row = next(following[old])
        lane = route(row)
        share = by_lane.setdefault(lane, Share(lane))
        share.append(row)
        again.append(share)
    _weigh(by_lane)
    return again, by_lane
