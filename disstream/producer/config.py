"""What a producer can be told."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..errors import ConfigError
from ..wire.compression import RecordCompression
from ..wire.envelope import MAX_RECORDS
from .pacing import Pace

Order = Literal["key", "strict", "none"]

Trace = Callable[[], str | None] | Literal["opentelemetry"]

MAX_AGGREGATE_BYTES = 200_000
"""In characters of key and headers, of which one may take 4 bytes: no envelope passes the service's 1 MiB."""

MAX_BATCH_ROWS = 16_384
"""Small records in one batch: encoding more would hold the loop for longer than two ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What travels beside payloads, and how many share a record of the service (wire/envelope.py).

    Our consumers unwrap by themselves; who reads a stream by other means sees one binary record, under the key of the
    first in it.
    """

    aggregate_records: int = MAX_RECORDS
    """At most so many records share one of the service, of which a COMMON partition takes 1,000 a second. Only records
    that belong into one partition do. 1: none do, which is what order "none" asks for."""

    aggregate_bytes: int = 16_384
    """Payload, keys and headers that share one. 64 such records fill the 1 MiB a second of a COMMON partition, and what
    an envelope adds is 0.4 %. Larger ones save nothing; what a crashed reader gets again begins at one."""

    identity: bool = True
    """Say who sent a record and which number it gave it (`Record.producer_id`, `Record.number`), which is the same in
    every copy that retries may have stored: 25 bytes for each envelope. A record within 100 bytes of 1 MiB goes without
    it. False: a record that travels alone and has no headers goes as it is."""

    trace: Trace | None = None
    """Give each record a header `traceparent`: of a callable that returns it, or None for no header, asked at each
    `send`; "opentelemetry": of the current span (and `tracestate`), which needs the package opentelemetry-api."""

    def __post_init__(self) -> None:
        for name, most in (("aggregate_records", MAX_RECORDS), ("aggregate_bytes", MAX_AGGREGATE_BYTES)):
            value = getattr(self, name)
            if not isinstance(value, int) or not 1 <= value <= most:
                raise ConfigError(f"Envelope({name}={value!r}): must be a whole number from 1 to {most}")
        if not (self.trace is None or self.trace == "opentelemetry" or callable(self.trace)):
            raise ConfigError(f"Envelope(trace={self.trace!r}): give 'opentelemetry', or a callable")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerConfig:
    """How records are batched, ordered, retried and given up. Times in seconds."""

    order: Order = "key"
    """ "key": the records of a key are stored in the order of the `send` calls, exactly where the service obeys the
    suffix rule (once a record fails, the later ones of its partition in the same request fail too), otherwise up to
    counted exceptions. "strict": at most one unsettled record of a key is on the wire; exact anywhere, slower for few
    keys. "none": no order, any `max_in_flight` requests at once."""

    sessions: bool = True
    """Number the records where the service understands that (ours does), so that it stores each once and in order,
    whatever becomes of requests and answers. False: never. Needs order "key" or "strict"."""

    linger_s: float = 0.0
    """How long a batch that could go waits for more records. 0: a record goes at once when nothing is under way, so
    light load costs one round trip; a few wait 2 ms at most for a request that is out, and under heavy load batches
    fill while the lane is busy. Raise it to trade latency for still fewer requests."""

    max_batch_records: int = 3_000
    """Of the service, per request. What a request costs on both sides is spread over its records: with 3,000 of 100
    bytes a quarter more are written than with 2,000, and 4,000 gain a tenth on top, but hold the loop for longer than
    5 ms now and then. Official clients send several thousand at once too."""

    max_batch_bytes: int = 1_048_576
    """Payload and keys per request. The service refuses 5 MiB; encoding 1 MiB holds the loop for one to two ms."""

    max_in_flight: int = 8
    """Requests on the wire at once. With order "key" or "strict" at most one per partition."""

    buffer_bytes: int = 33_554_432
    """Bound on everything accepted and not settled: payload, key, and a fixed cost per record. Of several partitions,
    one may hold as much as is free: a half alone, two a third each. One that takes nothing cannot stop the others."""

    pace: Literal["auto"] | Pace | None = "auto"
    """How fast each partition is sent records. "auto": as fast as the service says, or publishes for the type of
    stream, and slower while it refuses records; our server without limits is not paced. A Pace: at most that. None: not
    paced; what is refused is tried again after a pause that doubles."""

    send_timeout_s: float = 60.0
    """How long `send` waits for room before it raises BufferFull."""

    delivery_timeout_s: float = 120.0
    """From acceptance to one of the four ends, whatever happens."""

    request_timeout_s: float = 30.0
    """One attempt. Shorter than delivery_timeout_s, so that a lost answer can be followed by another attempt."""

    retry_base_s: float = 0.05
    """First pause after a failed attempt; doubles per failure, full jitter. Official clients start at 50 ms too."""

    retry_max_s: float = 5.0
    """Longest pause: a service that comes back should not wait longer for us."""

    close_timeout_s: float = 30.0
    """How long `close` drains. What is not settled by then is given up: "closed", or unknown."""

    spill_path: str | os.PathLike[str] | None = None
    """A file for the records that fail: what is not stored is sent again by `disstream produce --resend FILE`; unknown
    and rejected ones are listed in it, marked. None: they are told of, not kept. One producer at a time."""

    spill_bytes: int = 268_435_456
    """Bound on that file. Eight times the buffer; a million records of 200 bytes. What does not fit is counted."""

    serializer: Callable[[Any], bytes] | None = None
    """From what `send` is given, whatever it is, to the payload: `disstream.json`, or any callable. What it raises,
    `send` raises, and nothing was accepted. None: bytes as they are, str as UTF-8, and nothing else."""

    envelope: Envelope | None = None
    """Headers, identity, and many small records in one of the service, for readers that know of it. None: a record is
    its payload, as every reader of the service expects."""

    record_compression: RecordCompression | None = None
    """"snappy": what the service stores of each record is a raw block of it, as with `data.compress.enabled` of the
    official Java client; every reader must know. Of an envelope it compresses the whole, so aggregated records find
    what they have in common. To save only the network, compress bodies (ClientConfig)."""

    @property
    def packs(self) -> bool:
        """Whether records of the service are others than those that were sent."""
        return self.envelope is not None or self.record_compression is not None

    @property
    def converts(self) -> bool:
        """Whether something is to be done with each record before it is accepted."""
        return self.serializer is not None or (self.envelope is not None and self.envelope.trace is not None)

    @property
    def max_batch_rows(self) -> int:
        """How many records share a batch, which becomes at most `max_batch_records` of the service."""
        # "strict" looks at every record of a batch for each request.
        if self.envelope is None or self.envelope.aggregate_records == 1 or self.order == "strict":
            return self.max_batch_records
        return min(self.max_batch_records * self.envelope.aggregate_records, MAX_BATCH_ROWS)

    def __post_init__(self) -> None:
        if self.serializer is not None and not callable(self.serializer):
            raise ConfigError(f"serializer={self.serializer!r:.80}: give a callable from value to bytes")
        if self.envelope is not None and not isinstance(self.envelope, Envelope):
            raise ConfigError(f"envelope={self.envelope!r:.80}: give Envelope(...), or None for none")
        if self.envelope is not None and self.envelope.aggregate_records > 1 and self.order == "none":
            raise ConfigError(
                "order='none' knows no partitions, of which aggregated records share one: "
                "use another order, or Envelope(aggregate_records=1)"
            )
        if self.record_compression not in (None, "snappy"):
            raise ConfigError(f"record_compression={self.record_compression!r}: use 'snappy' or None")
        if self.order not in get_args(Order):
            raise ConfigError(f"order={self.order!r}: use one of {', '.join(get_args(Order))}")
        if not (self.pace is None or self.pace == "auto" or isinstance(self.pace, Pace)):
            raise ConfigError(
                f'pace={self.pace!r}: use "auto", Pace(records_per_s=, bytes_per_s=), or None for no pace'
            )
        for name in ("max_batch_records", "max_batch_bytes", "max_in_flight", "buffer_bytes", "spill_bytes"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name}={value!r}: must be a whole number, at least 1")
        for name in ("delivery_timeout_s", "request_timeout_s", "retry_base_s", "retry_max_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)!r}: must be more than 0, and finite")
        for name in ("linger_s", "send_timeout_s", "close_timeout_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)!r}: must not be negative, and finite")
        path = self.spill_path
        if path is not None and not (isinstance(path, str | os.PathLike) and os.fspath(path)):
            raise ConfigError(f"spill_path={path!r}: name a file, or leave it out")
        if self.linger_s >= self.delivery_timeout_s:
            raise ConfigError(
                f"linger_s={self.linger_s} must be below delivery_timeout_s={self.delivery_timeout_s}: "
                "records would expire while they wait for company"
            )
        if self.retry_base_s > self.retry_max_s:
            raise ConfigError(f"retry_base_s={self.retry_base_s} must not exceed retry_max_s={self.retry_max_s}")
        if self.max_batch_bytes > self.buffer_bytes:
            raise ConfigError(
                f"max_batch_bytes={self.max_batch_bytes} must not exceed buffer_bytes={self.buffer_bytes}"
            )
