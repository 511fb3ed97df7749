"""Every metric: what it is called, what it means, and where in `stats()` it stands. Pure.

A name is that of OpenTelemetry; Prometheus has `_` for `.`, the unit behind it, and `_total` behind counts. Each sample
bears the label `name` that its object was watched under; those of a partition also say which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple

from ..client import ClientStats
from ..consumer import ConsumerStats
from ..producer import ProducerStats
from ..server import ServerStats
from ..worker import WorkerStats

Sample = tuple[tuple[str, ...], float]
"""(values of the labels, figure)."""


class Metric(NamedTuple):
    name: str
    kind: Literal["count", "level"]
    """A count only grows, and begins anew with its object; a level goes up and down."""
    unit: Literal["", "records", "requests", "pages", "bytes", "seconds", "partitions", "records/second"]
    meaning: str
    labels: tuple[str, ...]
    """Beside `name`."""
    read: Callable[[Any], Iterable[Sample]]

    @property
    def prometheus(self) -> str:
        """Its name there."""
        parts = ["disstream", *self.name.split(".")]
        unit = self.unit.replace("/", "_per_")
        if unit and unit not in parts[-1] and not parts[-1].endswith(unit):
            parts.append(unit)
        if self.kind == "count":
            parts.append("total")
        return "_".join(parts)

    @property
    def opentelemetry(self) -> str:
        return f"disstream.{self.name}"


def _one(attribute: str) -> Callable[[Any], Iterator[Sample]]:
    """A figure of the whole object; no sample while it is unknown."""

    def read(stats: Any) -> Iterator[Sample]:
        figure = getattr(stats, attribute)
        if figure is not None:
            yield (), float(figure)

    return read


def _reading(attribute: str) -> Callable[[ConsumerStats], Iterator[Sample]]:
    """A figure of each partition that a consumer holds."""

    def read(stats: ConsumerStats) -> Iterator[Sample]:
        for reading in stats.partitions:
            figure = getattr(reading, attribute)
            if figure is not None:
                yield tuple(reading.partition), float(figure)

    return read


def _written(attribute: str) -> Callable[[ProducerStats], Iterator[Sample]]:
    """A figure of each partition that a producer writes; "" is that of records that go to any."""

    def read(stats: ProducerStats) -> Iterator[Sample]:
        for partition in stats.partitions:
            yield (partition.partition_id,), float(getattr(partition, attribute))

    return read


def _stalled(stats: ConsumerStats) -> Iterator[Sample]:
    for reading in stats.partitions:
        yield tuple(reading.partition), float(reading.stalled is not None)


def _suspended(stats: WorkerStats) -> Iterator[Sample]:
    for partition, work in stats.partitions.items():
        yield tuple(partition), float(work.suspended is not None)


def _stored(attribute: str) -> Callable[[ServerStats], Iterator[Sample]]:
    """A figure of a server's engine; no sample where there is none."""
    read = _one(attribute)
    return lambda stats: read(stats.engine)


def _durability(stats: ServerStats) -> Iterator[Sample]:
    yield (stats.engine.durability,), 1.0


def _refusing(stats: ServerStats) -> Iterator[Sample]:
    yield (), float(stats.engine.refusing is not None)


_READ = ("stream", "partition")
_WRITTEN = ("partition",)

CLIENT = (
    Metric("client.requests", "count", "", "requests made, repetitions included", (), _one("requests")),
    Metric("client.retries", "count", "", "requests that repeated an earlier one", (), _one("retries")),
    Metric("client.running", "level", "requests", "requests on the wire", (), _one("running")),
)

CONSUMER = (
    Metric("consumer.records", "count", "", "records handed out", (), _one("records")),
    Metric("consumer.pages", "count", "", "pages fetched with records in them", (), _one("pages")),
    Metric("consumer.buffered", "level", "bytes", "fetched and not handed out", (), _one("buffered_bytes")),
    Metric("consumer.assigned", "level", "partitions", "partitions held", (), _one("assigned")),
    Metric("consumer.rebalances", "count", "", "assignments taken over", (), _one("rebalances")),
    Metric("consumer.lapses", "count", "", "times nothing was handed out for want of an answer", (), _one("lapses")),
    Metric("consumer.retries", "count", "", "requests made again, beside the client's own", (), _one("retries")),
    Metric("consumer.throttled", "count", "", 'answers "too fast"', (), _one("throttled")),
    Metric("consumer.gap", "count", "records", "sequence numbers that never came", (), _one("gap_records")),
    Metric("consumer.replayed", "count", "records", "begun at again after a loss", (), _one("replayed_records")),
    Metric("consumer.repeated", "count", "records", "sent again by the service, dropped", (), _one("repeated_records")),
    Metric("consumer.undecoded", "count", "records", "handed out as they were stored", (), _one("undecoded_records")),
    Metric("consumer.stalls", "count", "", "times a partition was found standing", (), _one("stalls")),
    Metric("consumer.lag", "level", "records", "records not handed out yet", _READ, _reading("lag_records")),
    Metric("consumer.lag.time", "level", "seconds", "age of the next record", _READ, _reading("lag_s")),
    Metric("consumer.position", "level", "", "number of the next record", _READ, _reading("position")),
    Metric("consumer.committed", "level", "", "number that the checkpoint says", _READ, _reading("committed")),
    Metric("consumer.checkpoint.age", "level", "seconds", "since it was written", _READ, _reading("checkpoint_age_s")),
    Metric("consumer.stalled", "level", "", "1: the partition stands; 0: it does not", _READ, _stalled),
)

PRODUCER = (
    Metric("producer.accepted", "count", "records", "records taken by send", (), _one("accepted")),
    Metric("producer.stored", "count", "records", "records acknowledged", (), _one("stored")),
    Metric("producer.rejected", "count", "records", "records that the service refused", (), _one("rejected")),
    Metric("producer.not_stored", "count", "records", "given up, certainly not stored", (), _one("not_stored")),
    Metric("producer.unknown", "count", "records", "given up, perhaps stored", (), _one("unknown")),
    Metric("producer.reordered", "count", "records", "stored behind a later one of their key", (), _one("reordered")),
    Metric("producer.refused_attempts", "count", "records", "refused and tried again", (), _one("refused_attempts")),
    Metric("producer.requests", "count", "", "requests made", (), _one("requests")),
    Metric("producer.waiting", "level", "records", "records without an end yet", (), _one("waiting")),
    Metric("producer.in_flight", "level", "requests", "requests on the wire", (), _one("in_flight")),
    Metric("producer.buffered", "level", "bytes", "of buffer_bytes", (), _one("buffered_bytes")),
    Metric("producer.spilled", "count", "records", "failed records in the spill file", (), _one("spilled")),
    Metric("producer.unspilled", "count", "records", "failed records that did not fit", (), _one("unspilled")),
    Metric("producer.rate", "level", "records/second", "stored lately", _WRITTEN, _written("stored_per_s")),
    Metric("producer.partition.waiting", "level", "records", "not on the wire", _WRITTEN, _written("waiting")),
    Metric("producer.at_cap", "level", "", "1: written as fast as it may be", _WRITTEN, _written("at_cap")),
    Metric("producer.throttled", "level", "", "1: refused for its rate lately", _WRITTEN, _written("throttled")),
)

WORKER = (
    Metric("worker.handled", "count", "records", "records whose handler returned", (), _one("handled")),
    Metric("worker.failed", "count", "records", "records that were given up", (), _one("failed")),
    Metric("worker.retried", "count", "records", "put back to be tried again", (), _one("retried")),
    Metric("worker.raised", "count", "", "calls that raised", (), _one("raised")),
    Metric("worker.rejected", "count", "", "calls that raised Reject", (), _one("rejected")),
    Metric("worker.timed_out", "count", "", "calls that took too long", (), _one("timed_out")),
    Metric("worker.cancelled", "count", "", "calls cancelled by a stop or a hand-over", (), _one("cancelled")),
    Metric("worker.dead_letters", "count", "", "letters stored", (), _one("dead_letters")),
    Metric("worker.followed", "count", "records", "to the dead letters behind others", (), _one("followed")),
    Metric("worker.ignored", "count", "records", "given up without a letter", (), _one("ignored")),
    Metric("worker.in_flight", "level", "", "calls under way", (), _one("in_flight")),
    Metric("worker.queued", "level", "records", "taken and not finished", (), _one("queued_records")),
    Metric("worker.waiting_letters", "level", "", "letters not stored yet", (), _one("waiting_letters")),
    Metric("worker.parked_keys", "level", "", "keys that are parked", (), _one("parked_keys")),
    Metric("worker.oldest", "level", "seconds", "age of the oldest call", (), _one("oldest_in_flight_s")),
    Metric("worker.latency.p50", "level", "seconds", "half of the calls took no longer", (), _one("p50_s")),
    Metric("worker.latency.p99", "level", "seconds", "99 in 100 calls took no longer", (), _one("p99_s")),
    Metric("worker.suspended", "level", "", "1: the partition is suspended; 0: it is not", _READ, _suspended),
)

SERVER = (
    Metric("server.pending", "level", "bytes", "of records taken in and not stored yet", (), _one("pending_bytes")),
    Metric("server.durability", "level", "", "1, with what is promised as a label", ("durability",), _durability),
    Metric("server.loss", "level", "seconds", "what a power failure takes; none in memory", (), _stored("loss_s")),
    Metric("server.commits", "count", "", "transactions", (), _stored("commits")),
    Metric("server.syncs", "count", "", "times all that was committed was made safe", (), _stored("syncs")),
    Metric("server.sync.age", "level", "seconds", "since it was for the last time", (), _stored("sync_age_s")),
    Metric("server.used", "level", "bytes", "of the file, what holds something", (), _stored("used_bytes")),
    Metric("server.file", "level", "bytes", "of the file", (), _stored("file_bytes")),
    Metric("server.disk.free", "level", "bytes", "of the disk, for the server", (), _stored("free_bytes")),
    Metric("server.ballast", "level", "bytes", "of the disk, kept for deletions", (), _stored("ballast_bytes")),
    Metric("server.refusing", "level", "", "1: puts are refused, for want of room or a failure", (), _refusing),
    Metric("server.set_aside", "level", "partitions", "damage keeps batches from deletion", (), _stored("set_aside")),
    Metric("server.snapshot.age", "level", "seconds", "of a backup or check beside it", (), _stored("snapshot_age_s")),
)

BY_STATS: dict[type, tuple[Metric, ...]] = {
    ClientStats: CLIENT,
    ConsumerStats: CONSUMER,
    ProducerStats: PRODUCER,
    ServerStats: SERVER,
    WorkerStats: WORKER,
}
"""What is told of an object, by the type of its `stats()`."""


def metrics_of(stats: object) -> tuple[Metric, ...]:
    """Raises KeyError: these are no statistics of ours."""
    return BY_STATS[type(stats)]
