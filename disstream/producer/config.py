"""What a producer can be told."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import ConfigError

Order = Literal["key", "strict", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerConfig:
    """How records are batched, ordered, retried and given up. Times in seconds."""

    order: Order = "key"
    """ "key": the records of a key are stored in the order of the `send` calls, exactly where the service obeys the
    suffix rule (once a record fails, the later ones of its partition in the same request fail too), otherwise up to
    counted exceptions. "strict": at most one unsettled record of a key is on the wire; exact anywhere, slower for few
    keys. "none": no order, any `max_in_flight` requests at once."""

    linger_s: float = 0.0
    """How long a batch that could go waits for more records. 0: a lane that is idle sends at once, so light load costs
    one round trip, and under heavy load batches fill while the lane is busy. Raise it to trade latency for fewer
    requests."""

    max_batch_records: int = 1_000
    """Per request. A COMMON partition takes 1,000 records a second, and official clients send no more at once."""

    max_batch_bytes: int = 1_048_576
    """Payload and keys per request. The service refuses 5 MiB; encoding 1 MiB holds the loop for one to two ms."""

    max_in_flight: int = 8
    """Requests on the wire at once. With order "key" or "strict" at most one per partition."""

    buffer_bytes: int = 33_554_432
    """Bound on everything accepted and not settled: payload, key, and a fixed cost per record."""

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

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise ConfigError(f"order={self.order!r}: use one of {', '.join(get_args(Order))}")
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
