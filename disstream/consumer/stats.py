"""What a consumer tells about itself."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import DisError
from ..model import Partition


@dataclass(frozen=True, slots=True)
class PartitionReading:
    """How far a consumer is with one of its partitions."""

    partition: Partition
    position: int | None
    """The number of the next record to be handed out; None while only the service knows it."""
    committed: int | None
    """The number that the checkpoint goes on at; None: there is none."""
    checkpoint_age_s: float | None
    """Since this consumer last wrote the checkpoint; None: it has not."""
    end: int | None
    """The number of the next record to be written, as last heard: see `ConsumerConfig.lag_interval_s`. With
    notices (`ConsumerConfig.wait`) at once."""
    lag_records: int | None
    """From `position` to `end`; None while one of them is unknown."""
    lag_s: float | None
    """How old the next record is: 0 at the end. While it is not here yet, the age of the one handed out last, which is
    older; None: neither is known."""
    paused: tuple[str, ...] = ()
    """Why nothing of it is handed out; "" is the user's own `pause`."""
    stalled: str | None = None
    """Why it does not get on, in a word or two (`Stall.cause`); None: it does, or there is nothing to do."""
    last_error: DisError | None = None
    """What asking for the page that is owed was last answered with."""


@dataclass(frozen=True, slots=True)
class ConsumerStats:
    """A snapshot. Counts are since `start()`."""

    records: int
    """Handed out; those before a seek included."""
    pages: int
    """Fetched with at least one record in them."""
    buffered_bytes: int
    """Fetched and not taken, with the overhead per record. At most prefetch_bytes and one page for each partition."""
    gap_records: int
    """Sequence numbers that never came: expired before they were read, or missing in a page."""
    undecoded_records: int
    """Handed out as they were stored: they begin like an envelope and are none or damaged, or are not compressed as
    `record_compression` says."""
    repeated_records: int
    """Records that the service sent again and that were dropped."""
    retries: int
    """Requests that failed and were made again, beside the client's own."""
    unanswered_since: float | None
    """When (on the loop's clock, `anyio.current_time()`) a page was asked for that still has not come, of the partition
    that waits longest. Moments ago is normal; long ago means that the service fails or hangs. None: none is owed."""
    last_error: DisError | None
    """What asking for that page was last answered with; None: nothing yet."""
    assigned: int
    """Partitions held now."""
    generation: int | None
    """Of the group, as this member knows it; None without a group, with leases, or before an assignment."""
    rebalances: int
    """Assignments taken over so far. With leases, how often partitions came or went."""
    lapses: int = 0
    """How often nothing was handed out for a while because the service, or the lease store, did not answer in time, or
    the process was stopped."""
    throttled: int = 0
    """Answers that said "too fast" (DIS.4303 and the like) after the client's own attempts."""
    replayed_records: int = 0
    """Sequence numbers that this consumer had handed out before and began at again, because it lost their partition
    without a commit behind them. Seeks do not count."""
    stalls: int = 0
    """Times that a partition was found standing (`ConsumerConfig.stall_warn_s`)."""
    partitions: tuple[PartitionReading, ...] = ()
    """Each that is held, in order."""
    held_partitions: tuple[Partition, ...] = ()
    """Those whose next records were written after a change of the layout that others have not come to: keys moved."""
    awaited_partitions: tuple[Partition, ...] = ()
    """Those that these wait for, held here or by others: what was written to them before has to be finished first, and
    elsewhere committed."""

    @property
    def lag_records(self) -> int | None:
        """Over all partitions held; None while it is known of none."""
        known = [reading.lag_records for reading in self.partitions if reading.lag_records is not None]
        return sum(known) if known else None

    @property
    def lag_s(self) -> float | None:
        """Of the partition that is furthest behind; None while it is known of none."""
        return max((reading.lag_s for reading in self.partitions if reading.lag_s is not None), default=None)
